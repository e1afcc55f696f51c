/*
 * crew.h -- threads that are held at a barrier and start together.
 */
#ifndef CREW_H
#define CREW_H

#include <pthread.h>
#include <stddef.h>

typedef void crew_fn(void *ctx, size_t member);

struct crew {
    size_t size;
    struct crew_member *members;
    pthread_barrier_t begin, end;
    /* written by the crew's owner between end and begin, read by members between begin and end */
    crew_fn *fn;
    void *ctx;
};

void crew_open(struct crew *crew, size_t size);
void crew_close(struct crew *crew);

/* All members call fn, starting together ... */
void crew_begin(struct crew *crew, crew_fn *fn, void *ctx);
/* ... and this waits until all have returned. */
void crew_finish(struct crew *crew);

#endif
