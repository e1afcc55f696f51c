/*
 * crew.c -- two barriers, one before and one after the work.
 */
#include "crew.h"

#include <stdlib.h>
#include <string.h>

#include "report.h"

struct crew_member {
    struct crew *crew;
    size_t index;
    pthread_t thread;
};

static void *member_main(void *arg)
{
    struct crew_member *self = arg;
    struct crew *crew = self->crew;
    for (;;) {
        pthread_barrier_wait(&crew->begin);
        if (crew->fn == NULL)
            return NULL;
        crew->fn(crew->ctx, self->index);
        pthread_barrier_wait(&crew->end);
    }
}

void crew_open(struct crew *crew, size_t size)
{
    crew->size = size;
    crew->members = calloc(size, sizeof *crew->members);
    if (crew->members == NULL)
        die("out of memory");
    pthread_barrier_init(&crew->begin, NULL, (unsigned)size + 1);
    pthread_barrier_init(&crew->end, NULL, (unsigned)size + 1);
    for (size_t i = 0; i < size; i++) {
        struct crew_member *member = &crew->members[i];
        member->crew = crew;
        member->index = i;
        int error = pthread_create(&member->thread, NULL, member_main, member);
        if (error != 0)
            die("cannot start thread %zu of %zu: %s", i + 1, size, strerror(error));
    }
}

void crew_begin(struct crew *crew, crew_fn *fn, void *ctx)
{
    crew->fn = fn;
    crew->ctx = ctx;
    pthread_barrier_wait(&crew->begin);
}

void crew_finish(struct crew *crew)
{
    pthread_barrier_wait(&crew->end);
}

void crew_close(struct crew *crew)
{
    crew_begin(crew, NULL, NULL);
    for (size_t i = 0; i < crew->size; i++)
        pthread_join(crew->members[i].thread, NULL);
    pthread_barrier_destroy(&crew->begin);
    pthread_barrier_destroy(&crew->end);
    free(crew->members);
}
