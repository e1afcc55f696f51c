/*
 * writer.h -- the thread that writes to the database, so that no HTTP thread ever waits for it.
 */
#ifndef WRITER_H
#define WRITER_H

#include "repository.h"
#include "service.h"

struct write {
    struct template template; /* owned; id and texts in, version out */
    aside_cancel *token;      /* what has been left before its turn is not written; borrowed */
    /* On the writer's thread, once; the write is the caller's again. */
    void (*done)(struct write *write);
    enum db_outcome outcome; /* DB_NOT_ASKED also where it was left, or refused */
    struct write *next;      /* the writer's own */
};

struct writer;

/* change_every_ms 0: never; else every template changes by itself, as if another program wrote.
 * NULL: no memory or no thread. */
struct writer *writer_start(struct repository *repository, struct service *service,
                            size_t max_queued, int64_t change_every_ms);
/* false: max_queued wait already, or the writer is stopping; done is not called. */
bool writer_put(struct writer *writer, struct write *write);
/* From now on nothing is taken, and what is queued is not written; the one under way is waited for.
 * writer_stop() is still owed, once nobody can call writer_put() any more. NULL is ignored. */
void writer_close(struct writer *writer);
/* Frees it. What is queued is written first, as far as its tokens have not fired. NULL is ignored. */
void writer_stop(struct writer *writer);

#endif
