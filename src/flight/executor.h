/*
 * flight/executor -- a bounded pool of threads that run jobs, made when they are needed.
 *
 * In the child of a fork there are none, and new ones are made. A worker that forks itself is none
 * in the child: its thread ends as soon as the job returns, without the stop hook, since what the
 * hook would end is the parent's as well.
 *
 * Counted: the cache holds one reference and each worker one, so that a worker that could not be
 * waited for at close keeps what it stands on. The queue is first in, first out, and a job may be
 * taken back as long as nobody has begun it.
 *
 *   worker:  BUSY or IDLE -> ENDED (joined by executor_join)   normally
 *                         -> LEFT (detached, frees itself)      not waited for, or its thread ended
 */
#ifndef ASIDE_FLIGHT_EXECUTOR_H
#define ASIDE_FLIGHT_EXECUTOR_H

#include "base/lock.h"
#include "base/mem.h"
#include "base/park.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct job {
    void (*run)(struct job *job, void *worker);
    /* Instead of run: there is no worker for it, because of status and code. */
    void (*refuse)(struct job *job, aside_status status, int code);
    struct job *next, *prev; /* guarded by the executor's lock */
    bool queued;             /* guarded by the executor's lock */
};

struct executor_options {
    size_t max_threads, max_queued, stack_bytes;
    aside_worker hooks;
    aside_clock clock; /* of executor_join() */
};

struct executor;

/* NULL: no memory. No thread is made yet. */
struct executor *executor_new(const struct mem *mem, const struct executor_options *options);
void executor_unref(struct executor *executor);

/* ASIDE_OK: the job is run or refused later, on a worker; or ASIDE_E_BUSY, ASIDE_E_CLOSED: it is
 * the caller's still. */
aside_status executor_submit(struct executor *executor, struct job *job);
/* Takes a job back that nobody has begun. */
bool executor_take(struct executor *executor, struct job *job);
/* The same, unless an idle worker is on its way to it. */
bool executor_take_stuck(struct executor *executor, struct job *job);
/* True on a thread of the pool. */
bool executor_is_self(struct executor *executor);
bool executor_binds_fetches(const struct executor *executor);
/* It may have threads at all. */
bool executor_has_threads(const struct executor *executor);
/* A running job is no longer waited for by anybody (+1), and has ended after all (-1). */
void executor_note_leftover(struct executor *executor, int change);
/* Leftovers hold half of the threads: do not start more. */
bool executor_is_clogged(struct executor *executor);

/* Takes no more jobs, refuses those in the queue with ASIDE_E_CLOSED and sends the workers home. */
void executor_stop(struct executor *executor);
/* Joins the workers, except those that are busy at deadline_ns and the calling one. */
void executor_join(struct executor *executor, int64_t deadline_ns);
/* The clock has moved. */
void executor_wake(struct executor *executor);

/* In the child of a fork: its threads and its queue are gone. */
struct lock *executor_lock(struct executor *executor);
void executor_fork_child(struct executor *executor);

void executor_gauge(struct executor *executor, size_t *queued, size_t *threads);

#endif
