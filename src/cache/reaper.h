/*
 * cache/reaper -- the thread that removes what is over, every interval, and dismantles what clear
 * left.
 *
 * Started at open, stopped exactly once by the one who closes; joined, unless that is the reaper
 * itself in the middle of a destructor: then it is detached and says when it has gone.
 *
 * In the child of a fork it is lost, and started again by the first call that writes or misses. If
 * it was the reaper that forked, its thread ends in the child as soon as the destructor returns.
 */
#ifndef ASIDE_CACHE_REAPER_H
#define ASIDE_CACHE_REAPER_H

#include "base/lock.h"
#include "base/park.h"
#include "flight/host.h"
#include "store/store.h"

#include <aside/aside.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct reaper {
    /* immutable */
    int64_t interval_ms;
    size_t stack_bytes;
    struct store *store;
    struct host *host;
    struct lock lock;
    pthread_t thread; /* written under lock, before exists */
    /* the reaper's own: of one that nobody will join */
    void (*gone)(void *owner);
    void *owner;
    /* atomic */
    _Atomic bool exists; /* written under lock */
    _Atomic bool lost;   /* written under lock: there should be one */
    _Atomic bool stop;   /* written under lock */
    _Atomic bool wanted; /* there is something to dismantle */
    struct park park;
};

void reaper_init(struct reaper *reaper, struct store *store, struct host *host,
                 const aside_options *options);
void reaper_fini(struct reaper *reaper);
/* False: no thread could be made. Nothing is started where the interval is 0 or less. */
bool reaper_start(struct reaper *reaper);
/* Once. False if this is the reaper's own thread: then gone(owner) is the last that it does. */
bool reaper_stop(struct reaper *reaper, void (*gone)(void *owner), void *owner);
/* There is something to do, or the clock has moved. */
void reaper_wake(struct reaper *reaper, bool something_to_do);
bool reaper_is_self(const struct reaper *reaper);
static inline bool reaper_exists(const struct reaper *reaper)
{
    return load_acquire(&reaper->exists);
}

/* In the child of a fork. */
void reaper_fork_child(struct reaper *reaper);
static inline bool reaper_is_lost(const struct reaper *reaper)
{
    return atomic_load_explicit(&reaper->lost, memory_order_relaxed);
}
/* Starts one again; if that cannot be, the next caller tries. */
void reaper_revive(struct reaper *reaper) OUT_OF_LINE;

#endif
