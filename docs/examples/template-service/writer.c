/*
 * writer.c -- a queue, and the thread that works it off with a connection of its own.
 *
 * The cache is told after each write, before whoever asked for it is: who knows of a write and asks
 * gets no older template. It is told also where nobody knows whether the write was made. One that a
 * stopped server makes after that, once it goes on, is noticed when the cached template expires.
 *
 * What changes by itself is not told to the cache: another program would not do so either.
 */
#include "writer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct writer {
    struct service *service;
    size_t max_queued;
    int64_t change_every_ms;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t news;
    struct write *first, **last; /* guarded by lock, as is what follows */
    size_t queued;
    bool stopping;

    atomic_bool closed;            /* queued writes are refused */
    bool joined;                   /* of whoever ends it */
    struct connection *connection; /* the thread's own */
    struct timespec next_change;
};

/* ---- time ------------------------------------------------------------------------------------ */

static void set_next_change(struct writer *writer)
{
    struct timespec *next = &writer->next_change;
    clock_gettime(CLOCK_MONOTONIC, next);
    next->tv_sec += writer->change_every_ms / 1000;
    next->tv_nsec += writer->change_every_ms % 1000 * 1000000;
    if (next->tv_nsec >= 1000000000) {
        next->tv_sec++;
        next->tv_nsec -= 1000000000;
    }
}

static bool change_is_due(const struct writer *writer)
{
    struct timespec now;
    const struct timespec *next = &writer->next_change;
    if (writer->change_every_ms == 0)
        return false;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > next->tv_sec ||
           (now.tv_sec == next->tv_sec && now.tv_nsec >= next->tv_nsec);
}

/* ---- the queue ------------------------------------------------------------------------------- */

bool writer_put(struct writer *writer, struct write *write)
{
    pthread_mutex_lock(&writer->lock);
    bool taken = !writer->stopping && writer->queued < writer->max_queued;
    if (taken) {
        write->next = NULL;
        *writer->last = write;
        writer->last = &write->next;
        writer->queued++;
        pthread_cond_signal(&writer->news);
    }
    pthread_mutex_unlock(&writer->lock);
    return taken;
}

static struct write *take_locked(struct writer *writer)
{
    struct write *write = writer->first;
    if (write == NULL)
        return NULL;
    writer->first = write->next;
    if (writer->first == NULL)
        writer->last = &writer->first;
    writer->queued--;
    return write;
}

static void wait_locked(struct writer *writer)
{
    if (writer->change_every_ms == 0)
        pthread_cond_wait(&writer->news, &writer->lock);
    else
        pthread_cond_timedwait(&writer->news, &writer->lock, &writer->next_change);
}

enum job { JOB_WRITE, JOB_CHANGE, JOB_STOP };

/* A change goes first, however long the queue is. The next is due a while after this one has ended:
 * writes go on as well. */
static enum job next_job(struct writer *writer, struct write **write)
{
    enum job job = JOB_WRITE;
    pthread_mutex_lock(&writer->lock);
    while (writer->first == NULL && !writer->stopping && !change_is_due(writer))
        wait_locked(writer);
    if (!writer->stopping && change_is_due(writer))
        job = JOB_CHANGE;
    else if ((*write = take_locked(writer)) == NULL)
        job = JOB_STOP;
    pthread_mutex_unlock(&writer->lock);
    return job;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void do_write(struct writer *writer, struct write *write)
{
    int64_t id = write->template.id;
    write->outcome = DB_NOT_ASKED;
    if (!atomic_load(&writer->closed) && !aside_cancel_fired(write->token))
        write->outcome = repository_put(writer->connection, &write->template);
    if (write->outcome != DB_NOT_ASKED)
        service_forget(writer->service, id);
    write->done(write);
}

static void *run(void *arg)
{
    struct writer *writer = arg;
    for (;;) {
        struct write *write = NULL;
        enum job job = next_job(writer, &write);
        if (job == JOB_STOP)
            return NULL;
        if (job == JOB_WRITE) {
            do_write(writer, write);
            continue;
        }
        repository_change_all(writer->connection);
        set_next_change(writer);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void init_lock(struct writer *writer)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&writer->news, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&writer->lock, NULL);
}

static void free_writer(struct writer *writer)
{
    connection_free(writer->connection);
    pthread_cond_destroy(&writer->news);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}

struct writer *writer_start(struct repository *repository, struct service *service,
                            size_t max_queued, int64_t change_every_ms)
{
    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return NULL;
    writer->service = service;
    writer->max_queued = max_queued;
    writer->change_every_ms = change_every_ms;
    writer->last = &writer->first;
    writer->connection = connection_new(repository);
    init_lock(writer);
    set_next_change(writer);
    if (writer->connection != NULL && pthread_create(&writer->thread, NULL, run, writer) == 0)
        return writer;
    free_writer(writer);
    return NULL;
}

static void end_thread(struct writer *writer)
{
    if (writer->joined)
        return;
    pthread_mutex_lock(&writer->lock);
    writer->stopping = true;
    pthread_cond_signal(&writer->news);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    writer->joined = true;
}

void writer_close(struct writer *writer)
{
    if (writer == NULL)
        return;
    atomic_store(&writer->closed, true);
    end_thread(writer);
}

void writer_stop(struct writer *writer)
{
    if (writer == NULL)
        return;
    end_thread(writer);
    free_writer(writer);
}
