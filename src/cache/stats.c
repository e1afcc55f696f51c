/* cache/stats -- see stats.h. */
#include "cache/stats.h"

#include "cache/cache.h"
#include "cache/options.h"

#include <string.h>

static void fill_counters(struct host *host, aside_stats *stats)
{
    uint64_t sums[THREAD_COUNTERS];
    thread_account_sum(&host->home->account, sums);
#define STATS_COUNTER(name, text) stats->name = sums[COUNTER_##name];
    ASIDE_COUNTER_MAP(STATS_COUNTER)
#undef STATS_COUNTER
#define STATS_OPERATION(verb)                                                                      \
    stats->verb##_ok = sums[COUNTER_##verb##_ok];                                                  \
    stats->verb##_none = sums[COUNTER_##verb##_none];                                              \
    stats->verb##_error = sums[COUNTER_##verb##_error];
    ASIDE_OPERATION_MAP(STATS_OPERATION)
#undef STATS_OPERATION
    stats->hits += stats->get_ok + stats->copy_ok + stats->visit_ok;
    stats->misses += stats->get_none + stats->copy_none + stats->visit_none;
}

void stats_of_host(struct host *host, aside_stats *stats)
{
    size_t queued, threads;
    memset(stats, 0, sizeof *stats);
    fill_counters(host, stats);
    executor_gauge(host->executor, &queued, &threads);
    stats->pinned_bytes = load_relaxed(&host->home->pinned_bytes);
    stats->flights_now = host_flights(host);
    stats->waiters_now = load_relaxed(&host->waiters_now);
    stats->queued_now = queued;
    stats->workers_now = threads;
}

static void add_store(struct store *store, aside_stats *stats)
{
    size_t limbo, visited;
    store_gauge(store, &limbo, &visited);
    stats->entries = load_relaxed(&store->budget.entries);
    stats->bytes = load_relaxed(&store->budget.bytes);
    stats->limbo_bytes = limbo;
    stats->pinned_bytes += visited;
}

aside_status aside_stats_get(const aside_cache *cache, aside_stats *stats)
{
    aside_stats full;
    if (!cache_is(cache) || !stats || !options_copy(&full, sizeof full, stats))
        return ASIDE_E_INVALID;
    aside_cache *counted = (aside_cache *)(uintptr_t)cache;
    stats_of_host(&counted->host, &full);
    add_store(&counted->store, &full);
    options_give_stats(stats, &full);
    return ASIDE_OK;
}
