/*
 * http.h -- libmicrohttpd, and the life of a request.
 */
#ifndef HTTP_H
#define HTTP_H

#include "app.h"

struct http;

/* Starts to listen, and to answer; it has been logged why it cannot: NULL. */
struct http *http_start(struct app *app);
uint16_t http_port(const struct http *http);

/* Accepts no more connections; what is under way goes on. */
void http_stop_listening(struct http *http);
/* Requests that have been begun and not ended. */
unsigned http_requests(const struct http *http);
/* All requests must have been answered. Frees it. */
void http_stop(struct http *http);

#endif
