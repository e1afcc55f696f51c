/*
 * parking.h -- requests that wait for an answer, their connections suspended.
 *
 * An HTTP thread parks a request, and is free for others. Whoever has the answer says so from any
 * thread. The loop's thread does the rest: it watches the client's socket meanwhile, and fires the
 * request's token if the client goes away; it resumes the connection once there is an answer.
 *
 *              HTTP thread             any thread            the loop
 *   parked     parking_park()                                watches the socket
 *   answered                           parking_answer()
 *   gone                                                     resumes; the request is HTTP's again
 *
 * The two may come in either order. Only the loop resumes, after both, and as the last thing it does
 * with a batch of events: none of these can be about a request that has been freed.
 */
#ifndef PARKING_H
#define PARKING_H

#include <aside/aside.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>

struct parked {
    struct MHD_Connection *connection;
    aside_cancel *token;                       /* NULL: none */
    void (*on_arrival)(struct parked *parked); /* NULL, or: called by the loop once it is parked */
    /* guarded by parking.lock */
    bool arrived, answered, listed;
    struct parked *next;
    /* the loop's own */
    int watched_fd; /* -1: none */
};

struct parking {
    int epoll_fd;  /* the loop's; not owned */
    int wakeup_fd; /* readable while news is not empty */
    pthread_mutex_t lock;
    struct parked *news; /* guarded by lock */
};

bool parking_init(struct parking *parking, int epoll_fd);
void parking_destroy(struct parking *parking);

/* For a request that has not been parked before, or not since it was resumed. */
void parked_init(struct parked *parked, struct MHD_Connection *connection, aside_cancel *token);

/* On the connection's HTTP thread, as the last thing that its handler does with it. */
void parking_park(struct parking *parking, struct parked *parked);
/* From any thread, once, after parked_init(); perhaps before parking_park(). */
void parking_answer(struct parking *parking, struct parked *parked);

/* On the loop's thread: its epoll says that a watched client has hung up (data.ptr is parked). */
void parking_client_left(struct parking *parking, struct parked *parked);
/* On the loop's thread, as the last of a batch: takes up what has been parked and answered. */
void parking_settle(struct parking *parking);

#endif
