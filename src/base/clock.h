/*
 * base/clock -- the only place that reads time. Monotonic nanoseconds.
 *
 * The coarse clock dates entries: 2 ns a read, and a grain of one kernel tick. The precise one
 * dates flights and waits. A clock of the user's replaces both, and then waits have no instant of
 * the real clock to wake at: aside_clock_changed() wakes them.
 */
#ifndef ASIDE_BASE_CLOCK_H
#define ASIDE_BASE_CLOCK_H

#include "base/check.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_NEVER INT64_MAX

static inline int64_t clock_read(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

#ifdef CLOCK_MONOTONIC_COARSE
#define CLOCK_ENTRIES CLOCK_MONOTONIC_COARSE
#else
#define CLOCK_ENTRIES CLOCK_MONOTONIC
#endif

static inline int64_t clock_coarse(const aside_clock *clock)
{
    return unlikely(clock->now_ns) ? clock->now_ns(clock->ctx) : clock_read(CLOCK_ENTRIES);
}

static inline int64_t clock_precise(const aside_clock *clock)
{
    return clock->now_ns ? clock->now_ns(clock->ctx) : clock_read(CLOCK_MONOTONIC);
}

/* Until when the kernel may let a thread sleep that waits for deadline_ns of this clock. */
static inline int64_t clock_alarm(const aside_clock *clock, int64_t deadline_ns)
{
    return clock->now_ns ? CLOCK_NEVER : deadline_ns;
}

/* now + ms, saturating; ASIDE_FOREVER stays for ever. ms >= 0. */
static inline int64_t clock_after_ms(int64_t now_ns, int64_t ms)
{
    int64_t ns, sum;
    if (__builtin_mul_overflow(ms, INT64_C(1000000), &ns) ||
        __builtin_add_overflow(now_ns, ns, &sum))
        return CLOCK_NEVER;
    return sum;
}

/* What is left until then, in whole milliseconds. */
static inline int64_t clock_left_ms(int64_t until_ns, int64_t now_ns)
{
    if (until_ns == CLOCK_NEVER)
        return ASIDE_FOREVER;
    return until_ns > now_ns ? (until_ns - now_ns) / 1000000 : 0;
}

#endif
