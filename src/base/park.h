/*
 * base/park -- waiting for a word to change.
 *
 * A park is a sequence number. Whoever waits reads a ticket, looks whether what he waits for is
 * there, and sleeps only if the number is still his ticket: a wake-up between the look and the
 * sleep changes the number, so it is never lost. Any wait may return early; the caller looks again.
 *
 * The number moves in steps of two; its lowest bit says that somebody may be asleep. A wake-up
 * that finds it unset stays out of the kernel, which is most of what a flight that nobody joined
 * would cost otherwise.
 *
 * On Linux the number is a futex and each sleeper one of 32 bits of it, so that one of many can be
 * woken and all of them with one call. Elsewhere, or with ASIDE_PARK_PTHREAD, each sleeper has a
 * mutex and a condition and looks again every 100 ms, since glibc before 2.41 can lose a
 * condition's wake-up (bug 25847).
 *
 * A park must outlive whoever wakes it: it lives in a counted object, never on a stack.
 */
#ifndef ASIDE_BASE_PARK_H
#define ASIDE_BASE_PARK_H

#include "base/atomic.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if !defined(__linux__) && !defined(ASIDE_PARK_PTHREAD)
#define ASIDE_PARK_PTHREAD
#endif

struct parker;

struct park {
    _Atomic uint32_t word;
#ifdef ASIDE_PARK_PTHREAD
    pthread_mutex_t mutex;
    struct parker *first; /* guarded by mutex */
#endif
};

/* One sleeper's place; the sleeper's own, on its stack if it likes. */
struct parker {
    uint32_t bit;
#ifdef ASIDE_PARK_PTHREAD
    pthread_cond_t moved;
    pthread_mutex_t mutex;
    bool woken;                 /* guarded by mutex */
    struct parker *next, *prev; /* guarded by the park's mutex */
#endif
};

void park_init(struct park *park);
void park_fini(struct park *park);
/* number spreads the sleepers of one park over its bits. */
void parker_init(struct parker *parker, uint32_t number);
void parker_fini(struct parker *parker);

#define PARK_STEP 2
#define PARK_SLEEPERS 1

static inline uint32_t park_ticket(struct park *park)
{
    return load_acquire(&park->word);
}

/* Sleeps until woken or until deadline_ns of CLOCK_MONOTONIC, CLOCK_NEVER for none. */
void park_wait(struct park *park, struct parker *parker, uint32_t ticket, int64_t deadline_ns);

void park_wake_all(struct park *park);
/* Wakes those with this bit, which may be more than one. */
void park_wake_bit(struct park *park, uint32_t bit);
/* Wakes at least one sleeper, if there is any. */
void park_wake_one(struct park *park);

#endif
