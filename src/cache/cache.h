/*
 * cache/cache -- the cache itself: what the public verbs share, and its life.
 *
 * What it has in common with a stand-alone group, its references and its end among that, is its
 * host (flight/host); the cache adds a store and a reaper.
 */
#ifndef ASIDE_CACHE_CACHE_H
#define ASIDE_CACHE_CACHE_H

#include "base/dice.h"
#include "cache/reaper.h"
#include "flight/host.h"
#include "freshness/jitter.h"
#include "freshness/rules.h"
#include "store/store.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_MAGIC 0x41434845 /* "ACHE" */

struct aside_cache {
    /* immutable after open; hits read it */
    _Alignas(CACHE_LINE) uint32_t magic;
    struct store store;
    int64_t default_ttl_ms;
    aside_jitter jitter;
    int disabled;
    aside_freshness rules; /* with 0 for what is off */
    bool rare;             /* what lives by them is more than fresh until its ttl ends */
    aside_on_slow on_slow;
    void *block;
    struct host host; /* hits read its beginning */
    struct reaper reaper;
    /* for jitter and early refreshes; whoever needs it writes it */
    _Alignas(CACHE_LINE) struct dice dice;
};

static inline bool cache_is(const aside_cache *cache)
{
    return likely(cache && cache->magic == CACHE_MAGIC);
}

static inline bool caches_are(aside_cache *const *caches, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!cache_is(caches[i]))
            return false;
    return true;
}

static inline bool cache_is_open(const aside_cache *cache)
{
    return host_is_open(&cache->host);
}

/* Until it is closed hits go on, and writes count: whoever is told that his came too late must leave nothing
 * older behind. */
static inline bool cache_is_closed(const aside_cache *cache)
{
    return host_is_closed(&cache->host);
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
    return host_now(&cache->host);
}

static inline void cache_count(aside_cache *cache, struct thread_record *self, unsigned counter)
{
    host_count(&cache->host, self, counter);
}

static inline aside_cache *cache_of(struct host *host)
{
    return container_of(host, struct aside_cache, host);
}

/* When what is stored now for that long expires. */
static inline int64_t cache_expiry(aside_cache *cache, const aside_jitter *own, int64_t now_ns,
                                   int64_t ttl_ms)
{
    const aside_jitter *jitter = own->kind == ASIDE_JITTER_DEFAULT ? &cache->jitter : own;
    if (unlikely(jitter->kind > ASIDE_JITTER_NONE))
        ttl_ms = jitter_ttl_ms(jitter, ttl_ms, dice_roll(&cache->dice));
    return clock_after_ms(now_ns, ttl_ms);
}

/* The life by these rules of what is stored now until then. */
static inline struct entry_life cache_life(const aside_freshness *rules, int64_t now_ns,
                                           int64_t expires_ns, int64_t fetch_ns)
{
    int64_t ttl_ns = expires_ns == CLOCK_NEVER ? CLOCK_NEVER : expires_ns - now_ns;
    return (struct entry_life){.now_ns = now_ns,
                               .fetch_ns = fetch_ns,
                               .expires_ns = expires_ns,
                               .early_for_ns = rules_early_for_ns(rules, ttl_ns, fetch_ns),
                               .stale_for_ns = rules_stale_for_ns(rules),
                               .serve_for_ns = rules_serve_for_ns(rules)};
}

/* By every call that may take a shard's lock, a hit excepted: what a fork took away is made
 * again. */
static inline void cache_revive(aside_cache *cache)
{
    if (unlikely(reaper_is_lost(&cache->reaper)))
        reaper_revive(&cache->reaper);
}

#endif
