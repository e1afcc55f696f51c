/*
 * cache/cache -- the cache itself: what the public verbs share, its life, and its end.
 *
 *   OPEN -> CLOSING -> CLOSED
 *
 * The users' references close it at the last one. What must not vanish under somebody holds it:
 * the users together, each flight, and a reaper that could not be joined. It is freed with the
 * last hold.
 */
#ifndef ASIDE_CACHE_CACHE_H
#define ASIDE_CACHE_CACHE_H

#include "base/clock.h"
#include "cache/reaper.h"
#include "flight/executor.h"
#include "store/store.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_MAGIC 0x41434845 /* "ACHE" */

enum cache_phase { CACHE_OPEN, CACHE_CLOSING, CACHE_CLOSED };

struct aside_cache {
    /* immutable after open; hits read it */
    _Alignas(CACHE_LINE) uint32_t magic;
    uint32_t slot; /* of the counters */
    struct home *home;
    aside_clock clock;
    struct store store;
    /* immutable after open */
    int64_t default_ttl_ms, max_flight_age_ms, close_wait_ms;
    size_t max_flights, max_waiters;
    aside_submit submit;
    struct executor *executor;
    char *name;
    void *block;
    /* atomic */
    _Alignas(CACHE_LINE) _Atomic uint32_t phase;
    _Atomic(pthread_t) closer; /* once the phase is CLOSING */
    _Atomic size_t refs;       /* the users' */
    _Atomic size_t holds;
    _Atomic size_t flights_now;
    _Atomic size_t waiters_now;
    struct park ends; /* whoever waits for the cache to be closed, or for its flights */
    struct reaper reaper;
    struct aside_cache *next_orphan; /* see cache_release() */
};

static inline bool cache_is(const aside_cache *cache)
{
    return likely(cache && cache->magic == CACHE_MAGIC);
}

static inline bool cache_is_open(const aside_cache *cache)
{
    return load_acquire(&cache->phase) == CACHE_OPEN;
}

static inline bool cache_is_key(const void *key, size_t key_len)
{
    return likely(key_len <= ASIDE_MAX_KEY && (key || key_len == 0));
}

static HOT_INLINE uint64_t cache_hash(const aside_cache *cache, const void *key, size_t key_len)
{
    return hash_bytes(&cache->store.seed, key, key_len);
}

static inline int64_t cache_now(const aside_cache *cache)
{
    return clock_coarse(&cache->clock);
}

static inline void cache_count(aside_cache *cache, struct thread_record *self, enum counter counter)
{
    thread_count(&cache->home->account, cache->slot, self, counter, 1);
}

/* A call that may run user code and touch the cache afterwards: cancellation is disabled in it, and the cache is not
 * freed before its end, though that code may have given the last reference back. */
struct cache_call {
    aside_cache *held; /* where the thread has no record */
    struct thread_record *self;
    int cancel_state; /* the thread's own */
};
void cache_enter(aside_cache *cache, struct cache_call *call);
void cache_exit(const struct cache_call *call);

/* Keeps the cache's memory, not its being open. */
void cache_hold(aside_cache *cache);
void cache_release(aside_cache *cache);
/* After a visit of this thread, which may have given the last reference back. */
void cache_free_orphans(struct thread_record *self);

#endif
