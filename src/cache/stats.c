/*
 * cache/stats -- the counters and gauges of one cache, summed on demand.
 */
#include "cache/cache.h"

#include "cache/options.h"

#include <string.h>

static void fill_counters(aside_cache *cache, aside_stats *stats)
{
    uint64_t sums[THREAD_COUNTERS];
    thread_account_sum(&cache->home->account, sums);
#define STATS_COUNTER(name, text) stats->name = sums[COUNTER_##name];
    ASIDE_COUNTER_MAP(STATS_COUNTER)
#undef STATS_COUNTER
}

static void fill_gauges(aside_cache *cache, aside_stats *stats)
{
    size_t limbo, visited, queued, threads;
    store_gauge(&cache->store, &limbo, &visited);
    executor_gauge(cache->executor, &queued, &threads);
    stats->entries = load_relaxed(&cache->store.budget.entries);
    stats->bytes = load_relaxed(&cache->store.budget.bytes);
    stats->limbo_bytes = limbo;
    stats->pinned_bytes = load_relaxed(&cache->home->pinned_bytes) + visited;
    stats->flights_now = load_relaxed(&cache->flights_now);
    stats->waiters_now = load_relaxed(&cache->waiters_now);
    stats->queued_now = queued;
    stats->workers_now = threads;
}

aside_status aside_stats_get(const aside_cache *cache, aside_stats *stats)
{
    aside_stats full;
    if (!cache_is(cache) || !stats || !options_copy(&full, sizeof full, stats))
        return ASIDE_E_INVALID;
    aside_cache *counted = (aside_cache *)(uintptr_t)cache;
    fill_counters(counted, &full);
    fill_gauges(counted, &full);
    full.struct_size = stats->struct_size;
    memcpy(stats, &full, stats->struct_size < sizeof full ? stats->struct_size : sizeof full);
    return ASIDE_OK;
}

/* Under the shard's lock: the flights stay where they are meanwhile. */
static void wake_flights(struct shard *shard)
{
    lock_take(&shard->lock);
    for (struct flight *flight = shard->group.flights; flight; flight = flight->next)
        flight_wake(flight);
    lock_release(&shard->lock);
}

aside_status aside_clock_changed(aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    for (size_t i = 0; i <= cache->store.shard_mask; i++)
        wake_flights(&cache->store.shards[i]);
    reaper_wake(&cache->reaper, false);
    executor_wake(cache->executor);
    park_wake_all(&cache->ends);
    return ASIDE_OK;
}
