/*
 * cache/stats -- the counters and gauges of one cache or group, summed on demand.
 *
 * A plain read that hits counts itself as an operation and nothing else: the sums of all hits and
 * misses are made here.
 */
#ifndef ASIDE_CACHE_STATS_H
#define ASIDE_CACHE_STATS_H

#include "flight/host.h"

/* What a host knows; the rest is 0. */
void stats_of_host(struct host *host, aside_stats *stats);

#endif
