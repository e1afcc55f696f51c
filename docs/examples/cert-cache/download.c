/*
 * download.c -- libcurl, told everything that it would otherwise decide by itself.
 *
 * Nothing stops a fetch from outside (README.md, "What bounds a fetch"): the timeouts here do.
 */
#include "download.h"

#include <stdbool.h>
#include <string.h>

#define HTTP_OK 200

/* CURLOPT_MAXFILESIZE believes the length that the server states; this believes nothing. */
static size_t take(char *bytes, size_t one, size_t count, void *arg)
{
    struct download *to = arg;
    (void)one;
    if (count > sizeof to->bytes - to->size)
        return 0;
    memcpy(to->bytes + to->size, bytes, count);
    to->size += count;
    return count;
}

static bool set_transport(CURL *curl, const char *authority_pem)
{
    struct curl_blob authority = {(void *)authority_pem, strlen(authority_pem), CURL_BLOB_COPY};
    return curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &authority) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_CAPATH, NULL) == CURLE_OK &&
           /* A variable of the environment must not send us through a proxy. */
           curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK;
}

static bool set_limits(CURL *curl)
{
    /* Timeouts by SIGALRM cannot work in a program with threads. */
    return curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, (long)DOWNLOAD_MAX) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take) == CURLE_OK &&
           /* A redirection would lead past the allow-list. */
           curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK;
}

CURL *download_open(const char *authority_pem)
{
    CURL *curl = curl_easy_init();
    if (curl != NULL && set_transport(curl, authority_pem) && set_limits(curl))
        return curl;
    download_close(curl);
    return NULL;
}

void download_close(CURL *curl)
{
    curl_easy_cleanup(curl);
}

int download(CURL *curl, const char *url, long timeout_ms, struct download *to)
{
    long status = 0;
    to->size = 0;
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, to);
    CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, url);
    if (code == CURLE_OK)
        code = curl_easy_perform(curl);
    if (code != CURLE_OK)
        return (int)code;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status == HTTP_OK ? 0 : (int)status;
}
