/*
 * allow.c -- URLs are taken apart by libcurl, which will also fetch them: two parsers that differ
 * about where the host ends are how allow-lists are got round.
 */
#include "allow.h"

#include <curl/curl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* No '%' among them: an encoded slash or dot would mean one thing here and another to a server. */
static const char plain_characters[] = "abcdefghijklmnopqrstuvwxyz0123456789-./";

static bool is_part(CURLU *parsed, CURLUPart part, const char *wanted)
{
    char *text = NULL;
    CURLUcode code = curl_url_get(parsed, part, &text, CURLU_DEFAULT_PORT);
    bool is = code == CURLUE_OK && strcmp(text, wanted) == 0;
    curl_free(text);
    return is;
}

static bool is_absent(CURLU *parsed, CURLUPart part, CURLUcode absent)
{
    char *text = NULL;
    CURLUcode code = curl_url_get(parsed, part, &text, 0);
    curl_free(text);
    return code == absent;
}

static bool is_path(const struct allow *allow, const char *path)
{
    return strspn(path, plain_characters) == strlen(path) &&
           fnmatch(allow->path, path, FNM_PATHNAME | FNM_PERIOD) == 0;
}

/* Nothing of the message but the path, which has been looked at, goes into the URL to fetch. */
static bool rebuild(const struct allow *allow, CURLU *parsed, struct allowed_url *allowed)
{
    char *path = NULL;
    int len = -1;
    if (curl_url_get(parsed, CURLUPART_PATH, &path, 0) == CURLUE_OK && is_path(allow, path))
        len = snprintf(allowed->text, sizeof allowed->text, "%s://%s:%s%s", allow->scheme,
                       allow->host, allow->port, path);
    curl_free(path);
    allowed->len = len > 0 ? (size_t)len : 0;
    return len > 0 && allowed->len < sizeof allowed->text;
}

bool allow_url(const struct allow *allow, const char *url, struct allowed_url *allowed)
{
    CURLU *parsed = curl_url();
    bool ok = parsed != NULL &&
              curl_url_set(parsed, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
              is_part(parsed, CURLUPART_SCHEME, allow->scheme) &&
              is_part(parsed, CURLUPART_HOST, allow->host) &&
              is_part(parsed, CURLUPART_PORT, allow->port) &&
              is_absent(parsed, CURLUPART_QUERY, CURLUE_NO_QUERY) &&
              is_absent(parsed, CURLUPART_FRAGMENT, CURLUE_NO_FRAGMENT) &&
              rebuild(allow, parsed, allowed);
    curl_url_cleanup(parsed);
    return ok;
}
