/*
 * base/thread -- what the library keeps for each thread: one record, behind one thread-local
 * pointer.
 *
 * The record holds the thread's epoch announcement, its visit slots, its counters (an array by
 * cache slot, written by this thread alone, so that counting costs no locked instruction and no
 * shared line, S2) and the fetches that it is running. Records are never freed: a thread that ends
 * gives its record back for the next one. A thread gets no record if memory is short or if it is
 * in its last destructors; the callers of thread_self() have a slower way for that.
 *
 * Counters are summed on demand: those of a thread that ended have been folded into their account.
 */
#ifndef ASIDE_BASE_THREAD_H
#define ASIDE_BASE_THREAD_H

#include "base/atomic.h"
#include "base/check.h"
#include "base/lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THREAD_VISITS 4
#define THREAD_COUNTERS 96

struct thread_counters {
    _Atomic uint64_t count[THREAD_COUNTERS];
};

struct thread_record {
    /* this thread writes, reclaimers read */
    _Alignas(CACHE_LINE) _Atomic uint64_t announced; /* 0, or 2 * epoch + 1 */
    _Atomic(const void *) visiting[THREAD_VISITS];
    /* this thread's own */
    unsigned visits;
    uint32_t slots;                     /* of counters; changed under REGISTRY */
    struct thread_counters *counters;   /* replaced under REGISTRY */
    const struct thread_fetch *fetches; /* that run on this thread, innermost first */
    unsigned inside;     /* calls that may still touch their cache after running user code */
    unsigned dropping;   /* loops that run destructors */
    const void *telling; /* the listener that runs on it, if one does (store/removal) */
    uint64_t offered;    /* hash of the key that its last offer to a referee was about */
    void *solo;    /* a flight that the thread keeps for its next (flight/solo); by malloc() */
    void *orphans; /* caches to be freed when the outermost visit is over, or the thread */
    void (*free_orphans)(struct thread_record *self);
    unsigned destructor_rounds;
    /* of the list */
    struct thread_record *next; /* immutable once the record is in the list */
    bool in_use;                /* guarded by REGISTRY */
};

/* What runs on this thread on behalf of a flight: its fetch; a hook or a destructor that it
 * waits for; or the hook that hands it over, for which it does not. */
enum thread_frame { FRAME_FETCH, FRAME_HOOK, FRAME_SUBMIT };

/* On the stack of whoever runs it. */
struct thread_fetch {
    const struct thread_fetch *outer;
    const void *flight;
    const void *owner; /* the host */
    void *worker;
    enum thread_frame kind;
};

/* Where the counters of one cache are gathered. */
struct thread_account {
    uint32_t slot;
    uint64_t folded[THREAD_COUNTERS];         /* guarded by REGISTRY: of threads that ended */
    _Atomic uint64_t shared[THREAD_COUNTERS]; /* of threads without a record */
};

extern struct lock thread_registry;

#define THREAD_NO_RECORD ((struct thread_record *)1)
extern _Thread_local struct thread_record *thread_current
    __attribute__((tls_model("initial-exec")));

struct thread_record *thread_enroll(void) OUT_OF_LINE;

/* This thread's record, or NULL if it cannot have one. */
static inline struct thread_record *thread_self(void)
{
    struct thread_record *self = thread_current;
    return likely((uintptr_t)self > (uintptr_t)THREAD_NO_RECORD) ? self : thread_enroll();
}

/* The list of all records, for walking: records are added in front and never leave. */
struct thread_record *thread_first(void);

/* Gives the account a slot: the lowest that is free. False if there is no memory. */
bool thread_account_open(struct thread_account *account);
/* Nobody counts for the account any more. */
void thread_account_close(struct thread_account *account);
void thread_account_sum(struct thread_account *account, uint64_t sums[THREAD_COUNTERS]);

/* The way for a thread that has no record, or whose record has no counters for this slot yet. */
void thread_count_slowly(struct thread_account *account, unsigned counter, uint64_t n) OUT_OF_LINE;

/* Under any lock: takes none, and no memory. */
void thread_count_locked(struct thread_account *account, unsigned counter, uint64_t n);
/* So that thread_count_locked() on this thread finds its counters. */
void thread_count_prepare(struct thread_account *account);

/* One writer, so neither a locked instruction nor a schedule point. The slot is one of self's. */
static HOT_INLINE void thread_count_own(struct thread_record *self, uint32_t slot, unsigned counter,
                                        uint64_t n)
{
    _Atomic uint64_t *count = &self->counters[slot].count[counter];
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static HOT_INLINE void thread_count(struct thread_account *account, uint32_t slot,
                                    struct thread_record *self, unsigned counter, uint64_t n)
{
    if (likely(self && slot < self->slots))
        thread_count_own(self, slot, counter, n);
    else
        thread_count_slowly(account, counter, n);
}

#endif
