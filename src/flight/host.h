/*
 * flight/host -- whose flights they are: what a cache and a stand-alone group have in common.
 *
 *   OPEN -> CLOSING -> CLOSED
 *     HALF_CLOSED -^                in the child of a fork, where who was closing it is not
 *
 * The users' references close it at the last one. What must not vanish under somebody holds it: the
 * users together, each flight, and a reaper that could not be joined. It is freed with the last
 * hold.
 *
 * A fork: the child's host has no flights. Holds of before the fork are not given back.
 */
#ifndef ASIDE_FLIGHT_HOST_H
#define ASIDE_FLIGHT_HOST_H

#include "base/clock.h"
#include "base/counter.h"
#include "base/fork.h"
#include "flight/executor.h"
#include "flight/group.h"

#include <aside/aside.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum host_phase { HOST_OPEN, HOST_HALF_CLOSED, HOST_CLOSING, HOST_CLOSED };

struct host;

/* What differs. No lock is held, but where it says so. */
struct host_ops {
    /* The group of this number, NULL past the last. */
    struct group *(*group)(struct host *host, size_t number);
    /* Closing: nothing may be led, joined or stored from now on, but flights go on. */
    void (*shut)(struct host *host);
    /* Closing, when the flights have been settled, and when the workers have gone. May be NULL. */
    void (*stop)(struct host *host);
    void (*clean)(struct host *host);
    /* This is a thread of the host's, which must not wait for itself. May be NULL. */
    bool (*is_own_thread)(const struct host *host);
    /* The last hold is gone: ends with host_fini() and frees the block. */
    void (*free)(struct host *host);
    /* In the child of a fork: the host's further locks, and what is to be given up. May be NULL. */
    void (*fork_locks)(struct host *host, enum lock_rank rank, void (*each)(struct lock *lock));
    void (*fork_child)(struct host *host);
};

struct host {
    /* immutable; hits read the first three */
    uint32_t slot; /* of the counters */
    aside_clock clock;
    struct home *home;
    const struct host_ops *ops;
    struct executor *executor;
    aside_submit submit;
    int64_t max_flight_age_ms, close_wait_ms; /* age 0: no bound */
    size_t max_waiters;
    uint32_t generation; /* of the process that opened it */
    char *name;
    struct fork_member forks;
    /* atomic; what every call reads lies apart from what flights write */
    _Atomic uint32_t phase;
    _Atomic(pthread_t) closer;                /* once the phase is CLOSING */
    _Alignas(CACHE_LINE) _Atomic size_t refs; /* the users' */
    _Atomic size_t holds;
    _Atomic size_t waiters_now;
    struct flight_bound bound; /* of all groups */
    struct park ends;          /* whoever waits for it to be closed, or for its flights */
    struct host *next_orphan;  /* see host_release() */
};

/* groups: how many there will be. Returns as aside_open(); options have been checked. */
aside_status host_init(struct host *host, const struct host_ops *ops, const struct mem *mem,
                       const aside_options *options, size_t groups);
/* From now on a fork looks after it. */
void host_enlist(struct host *host);
/* By ops->free; the forks have been left before anything that they need went. */
void host_fini(struct host *host);

static inline bool host_is_open(const struct host *host)
{
    return load_acquire(&host->phase) == HOST_OPEN;
}

static inline bool host_is_closed(const struct host *host)
{
    return load_acquire(&host->phase) == HOST_CLOSED;
}

static inline int64_t host_now(const struct host *host)
{
    return clock_coarse(&host->clock);
}

static inline void host_count(struct host *host, struct thread_record *self, unsigned counter)
{
    thread_count(&host->home->account, host->slot, self, counter, 1);
}

/* A call that may run user code and touch the host afterwards: cancellation is disabled in it, and
 * the host is not freed before its end, though that code may have given the last reference back. */
struct host_call {
    struct thread_record *self;
    struct host *held;       /* where the thread has no record ... */
    uint32_t generation;     /* ... of that hold ... */
    struct host_call *outer; /* ... and the call of the same kind that this one is inside of */
    int cancel_state;        /* the thread's own */
};
void host_enter(struct host *host, struct host_call *call);
/* The same, but cancellation is left as it is until the call needs it disabled. */
void host_enter_lightly(struct host *host, struct host_call *call);
#define HOST_CANCEL_UNTOUCHED (-1)
void host_exit(const struct host_call *call);

/* Keeps the host's memory, not its being open. generation: fork_generation() at the hold. */
void host_hold(struct host *host);
void host_release(struct host *host, uint32_t generation);
/* After a visit of this thread, which may have given the last reference back. */
void host_free_orphans(struct thread_record *self);

/* The last of flight_owner.publish. */
void host_flight_ended(struct host *host, struct flight *flight);
/* Under way or queued. */
size_t host_flights(struct host *host);

void host_ref(struct host *host);
void host_unref(struct host *host);
void host_close(struct host *host);
/* The clock has moved: whoever waits looks again. */
void host_wake(struct host *host);

#endif
