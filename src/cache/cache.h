/*
 * cache/cache -- the cache itself: what the public verbs share, and its life.
 *
 * What it has in common with a stand-alone group, its references and its end among that, is its
 * host (flight/host); the cache adds a store and a reaper.
 */
#ifndef ASIDE_CACHE_CACHE_H
#define ASIDE_CACHE_CACHE_H

#include "cache/reaper.h"
#include "flight/host.h"
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
    int disabled;
    void *block;
    struct host host; /* hits read its beginning */
    struct reaper reaper;
};

static inline bool cache_is(const aside_cache *cache)
{
    return likely(cache && cache->magic == CACHE_MAGIC);
}

static inline bool cache_is_open(const aside_cache *cache)
{
    return host_is_open(&cache->host);
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

/* By every call that may take a shard's lock, a hit excepted: what a fork took away is made
 * again. */
static inline void cache_revive(aside_cache *cache)
{
    if (unlikely(reaper_is_lost(&cache->reaper)))
        reaper_revive(&cache->reaper);
}

#endif
