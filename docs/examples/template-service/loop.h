/*
 * loop.h -- the daemon's own thread: signals, answers that arrive, clients that leave, the second.
 */
#ifndef LOOP_H
#define LOOP_H

#include "app.h"

struct http;

struct loop {
    struct app *app;
    int epoll_fd;
    int signal_fd; /* SIGTERM and SIGINT, which no thread must get otherwise */
    int timer_fd;  /* each second */
    bool ended;    /* by a signal */
};

/* Blocks the signals, also for threads that are made later. The service must have been started. */
bool loop_init(struct loop *loop, struct app *app);
void loop_destroy(struct loop *loop);

/* Until a signal asks the daemon to end. */
void loop_run(struct loop *loop);
/* Until http has no request under way, or so many milliseconds have passed. */
void loop_drain(struct loop *loop, const struct http *http, int64_t most_ms);

#endif
