/*
 * flight/waiter -- one caller that waits for a flight, on his own thread.
 *
 * Two things can end a wait before its deadline: the flight is settled (flight/group says so in an
 * atomic that never goes back), or the caller's token fires (state PENDING -> CANCELLED, by one
 * compare-and-swap under the token's lock). A flight that is settled wins, whatever the state: the
 * caller looks at it last, under the flight's lock (group_leave). Both change the flight's parking
 * word, so neither is slept over.
 */
#ifndef ASIDE_FLIGHT_WAITER_H
#define ASIDE_FLIGHT_WAITER_H

#include "base/park.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stdint.h>

enum waiter_state { WAITER_PENDING, WAITER_CANCELLED };

struct waiter {
    _Atomic uint32_t state;
    void (*woken)(
        struct waiter *waiter); /* NULL: it sleeps in the park; else under the token's lock */
    struct park *park;          /* in the flight, which the caller keeps */
    struct parker parker;
    struct waiter *next, **link; /* guarded by the token's lock */
};

enum waiter_end {
    WAITER_SETTLED,
    WAITER_LEAVES_CANCELLED,
    WAITER_LEAVES_LATE,
    WAITER_LEAVES_WITH_TOKEN, /* whose deadline is past */
    WAITER_TAKES_STALE        /* his caller has left with something else */
};

struct waiter_until {
    const aside_clock *clock;
    int64_t deadline_ns; /* of clock; CLOCK_NEVER */
    /* the token's, which may come nearer meanwhile; NULL: there is none */
    const aside_clock *token_clock;
    const _Atomic int64_t *token_deadline_ns;
};

void waiter_init(struct waiter *waiter, struct park *park, uint32_t number);
/* One that no thread sleeps for: woken is called instead. It needs no waiter_fini(). */
void waiter_init_remote(struct waiter *waiter, void (*woken)(struct waiter *waiter));
void waiter_fini(struct waiter *waiter);
/* By whoever holds the token's lock. */
void waiter_cancel(struct waiter *waiter);
/* Wakes it to look again, by whoever holds the token's lock. */
void waiter_nudge(struct waiter *waiter);
/* Until settled or cancelled, or until one of the deadlines. */
enum waiter_end waiter_wait(struct waiter *waiter, const _Atomic bool *settled,
                            const struct waiter_until *until);

#endif
