/*
 * server.h -- the server that has the certificates: on loopback, by libmicrohttpd, over TLS. It
 * counts what is asked of it, and can be told to keep everybody waiting or to fail.
 */
#ifndef SERVER_H
#define SERVER_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define SERVER_PAGES 16

struct server_page {
    const char *path;
    unsigned status;
    const char *body;     /* kept by whoever added it */
    const char *location; /* or NULL */
    unsigned long downloads;
};

struct server {
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t released;
    bool held;
    unsigned long strays; /* requests for what is not there */
    size_t page_count;
    struct server_page pages[SERVER_PAGES];
};

/* On a free port. Errors end the program. */
void server_open(struct server *server, const char *cert_pem, const char *key_pem);
void server_close(struct server *server);

/* What is at a path from now on; its count of downloads stays. */
void server_put(struct server *server, const char *path, unsigned status, const char *body);
void server_redirect(struct server *server, const char *path, const char *location);

/* Between the two, requests are counted but not answered. */
void server_hold(struct server *server);
void server_release(struct server *server);

/* Requests since the last call of this, whatever the answer was. */
unsigned long server_take_downloads(struct server *server, const char *path);
unsigned long server_take_strays(struct server *server);

#endif
