/*
 * cache/stats -- the counters and gauges of one cache or group, summed on demand.
 *
 * A plain read that hits counts itself as an operation and nothing else: the sums of all hits and
 * misses are made here.
 */
#ifndef ASIDE_CACHE_STATS_H
#define ASIDE_CACHE_STATS_H

#include "base/counter.h"
#include "flight/host.h"

/* What a host knows; the rest is 0. */
void stats_of_host(struct host *host, aside_stats *stats);
/* All of a cache. */
void stats_of_cache(aside_cache *cache, aside_stats *stats);

/* Fetches by how long they took: as many as took no longer than stats_time_ns(i), but longer than
 * the time before it; the last has no bound. */
struct stats_times {
    uint64_t count[COUNTER_TIMES];
    uint64_t all_ns;
};
void stats_times_of_host(struct host *host, struct stats_times *times);
/* In nanoseconds, for i up to COUNTER_TIMES - 2. */
int64_t stats_time_ns(unsigned i);
/* Of a fetch that ran, by whoever publishes what it said. */
void stats_count_time(struct host *host, int64_t took_ns);

#endif
