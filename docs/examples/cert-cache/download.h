/*
 * download.h -- a small document, by its URL, through libcurl.
 */
#ifndef DOWNLOAD_H
#define DOWNLOAD_H

#include <curl/curl.h>
#include <stddef.h>

#define DOWNLOAD_MAX ((size_t)16 << 10)

struct download {
    size_t size;
    char bytes[DOWNLOAD_MAX];
};

/* A handle for one thread at a time; NULL if there is none to be had. It keeps its connection open
 * from one download to the next. authority_pem: who vouches for the server; copied. */
CURL *download_open(const char *authority_pem);
void download_close(CURL *curl);

/* Returns 0, or what went wrong: the HTTP status (100 and more) or a CURLcode (less than 100). */
int download(CURL *curl, const char *url, long timeout_ms, struct download *to);

#endif
