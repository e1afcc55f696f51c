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

void stats_of_cache(aside_cache *cache, aside_stats *stats)
{
    stats_of_host(&cache->host, stats);
    add_store(&cache->store, stats);
}

aside_status aside_stats_get(const aside_cache *cache, aside_stats *stats)
{
    aside_stats full;
    if (!cache_is(cache) || !stats || !options_copy(&full, sizeof full, stats))
        return ASIDE_E_INVALID;
    stats_of_cache((aside_cache *)(uintptr_t)cache, &full);
    options_give_stats(stats, &full);
    return ASIDE_OK;
}

/* ---- how long fetches take ------------------------------------------------------------------- */

int64_t stats_time_ns(unsigned i)
{
    static const int64_t bounds_us[COUNTER_TIMES - 1] = {
        100,   250,    500,    1000,   2500,    5000,    10000,   25000,
        50000, 100000, 250000, 500000, 1000000, 5000000, 30000000};
    return bounds_us[i] * 1000;
}

void stats_count_time(struct host *host, int64_t took_ns)
{
    unsigned i = 0;
    while (i < COUNTER_TIMES - 1 && took_ns > stats_time_ns(i))
        i++;
    struct thread_record *self = thread_self();
    host_count(host, self, COUNTER_fetch_took + i);
    counter_add(host->home, self, COUNTER_fetch_ns, (uint64_t)took_ns);
}

void stats_times_of_host(struct host *host, struct stats_times *times)
{
    uint64_t sums[THREAD_COUNTERS];
    thread_account_sum(&host->home->account, sums);
    memcpy(times->count, sums + COUNTER_fetch_took, sizeof times->count);
    times->all_ns = sums[COUNTER_fetch_ns];
}
