/*
 * cache/reaper -- the thread that removes what is over, every interval, and dismantles what clear
 * left.
 *
 * Started at open, stopped exactly once by the one who closes; joined, unless that is the reaper
 * itself in the middle of a destructor: then it is detached and says when it has gone.
 */
#ifndef ASIDE_CACHE_REAPER_H
#define ASIDE_CACHE_REAPER_H

#include "base/park.h"
#include "store/store.h"

#include <aside/aside.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct reaper {
    /* immutable after start */
    bool exists;
    int64_t interval_ms;
    struct store *store;
    const aside_clock *clock;
    pthread_t thread;
    /* the reaper's own: of one that nobody will join */
    void (*gone)(void *owner);
    void *owner;
    /* atomic */
    _Atomic bool stop;
    _Atomic bool wanted; /* there is something to dismantle */
    struct park park;
};

void reaper_init(struct reaper *reaper, struct store *store, const aside_clock *clock,
                 int64_t interval_ms);
void reaper_fini(struct reaper *reaper);
/* False: no thread could be made. Nothing is started where the interval is 0 or less. */
bool reaper_start(struct reaper *reaper, size_t stack_bytes);
/* Once. False if this is the reaper's own thread: then gone(owner) is the last that it does. */
bool reaper_stop(struct reaper *reaper, void (*gone)(void *owner), void *owner);
/* There is something to do, or the clock has moved. */
void reaper_wake(struct reaper *reaper, bool something_to_do);
bool reaper_is_self(const struct reaper *reaper);

#endif
