/*
 * hands.h -- a clock whose hands can be moved, so that nothing has to sleep for 24 hours.
 */
#ifndef HANDS_H
#define HANDS_H

#include <aside/aside.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define HOURS(n) ((int64_t)(n)*3600)
#define MINUTES(n) ((int64_t)(n)*60)

struct hands {
    _Atomic int64_t moved_s; /* of both clocks: time that passes */
    _Atomic int64_t set_s;   /* of the wall clock alone: somebody has set it */
};

/* For options.clock: the system's monotonic clock, and how far the hands were moved. */
aside_clock hands_clock(struct hands *hands);

/* The wall clock, by which certificates are dated. */
time_t hands_date(struct hands *hands);

int64_t hands_now_ns(void); /* the monotonic clock as it is */

/* Time passes, and the cache is told so. */
void hands_move(struct hands *hands, int64_t seconds, aside_cache *cache);

#endif
