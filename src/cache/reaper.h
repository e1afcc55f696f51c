/*
 * cache/reaper -- the thread that removes what is over, every interval, and dismantles what clear
 * left.
 *
 * Started at open, stopped exactly once by the one who closes; joined, unless that is the reaper
 * itself in the middle of a destructor: then it is detached and holds the cache until it has left.
 */
#ifndef ASIDE_CACHE_REAPER_H
#define ASIDE_CACHE_REAPER_H

#include "base/park.h"

#include <aside/aside.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct reaper {
    /* immutable after start */
    bool exists;
    int64_t interval_ms;
    pthread_t thread;
    /* atomic */
    _Atomic bool stop;
    _Atomic bool wanted; /* there is something to dismantle */
    _Atomic bool orphan; /* nobody will join it */
    struct park park;
};

void reaper_init(struct reaper *reaper, int64_t interval_ms);
void reaper_fini(struct reaper *reaper);
/* False: no thread could be made. Nothing is started where the interval is 0 or less. */
bool reaper_start(aside_cache *cache, size_t stack_bytes);
void reaper_stop(aside_cache *cache);
/* There is something to do, or the clock has moved. */
void reaper_wake(struct reaper *reaper, bool something_to_do);
bool reaper_is_self(const struct reaper *reaper);

#endif
