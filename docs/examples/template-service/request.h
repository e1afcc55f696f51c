/*
 * request.h -- one request: what has been asked, and what is answered.
 */
#ifndef REQUEST_H
#define REQUEST_H

#include "app.h"
#include "metrics.h"

enum { MAX_BODY = 64 * 1024 };

enum { CLIENT_HAS_GONE = 499 }; /* a status that nobody gets */

enum phase {
    REQUEST_READING, /* its body, if it has one */
    REQUEST_PARKED,  /* it waits for an answer, which came if its handler is called again */
};

struct request {
    struct app *app;
    struct MHD_Connection *connection;
    enum route route;
    enum method method;
    enum phase phase;
    unsigned status; /* what was answered; 0: nothing yet */
    int64_t began_ns;
    aside_cancel *token; /* NULL: nothing that can be left */
    char *body;          /* of MAX_BODY bytes; NULL: none yet */
    size_t body_size;
    bool body_too_large;
    /* While it is parked whoever has the answer writes these. */
    struct parked parked;
    aside_status got;
    aside_result result;
    struct write write;
    char *report; /* malloc'd */
    size_t report_size;
};

/* Reads nothing, waits for nothing: queues an answer, or parks the request. */
enum MHD_Result request_answer(struct request *request);

#endif
