/*
 * history.h -- the last five minutes, second by second, for the live page.
 *
 * One thread samples and writes; it is the loop's.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include <aside/aside.h>
#include <stdint.h>
#include <stdio.h>

#include "metrics.h"

enum { HISTORY_SECONDS = 300 };

/* What a second was: rates, and the state at its end. */
struct second {
    int64_t at_ms;     /* since 1970 */
    uint64_t requests; /* for templates, over HTTP */
    /* Lookups in the cache, each one of three: answered by what it held; led a fetch, or was
     * refused; joined the fetch of another. */
    uint64_t hits, misses, shared;
    uint64_t queries; /* that the database was sent */
    double p95_ms;    /* metrics_quantile() of these requests */
    int64_t in_flight;
};

struct history {
    struct second seconds[HISTORY_SECONDS]; /* a ring */
    size_t count;                           /* ever sampled */
    struct metrics_totals totals;           /* at the last sample */
    aside_stats stats;
    uint64_t queries;
};

void history_init(struct history *history, aside_cache *cache, uint64_t queries);
/* Once a second; queries is repository_queries(). */
void history_sample(struct history *history, aside_cache *cache, uint64_t queries);
/* {"seconds":[{"at":...,"requests":...,"hits":...,"misses":...,"shared":...,"queries":...,
 * "p95_ms":...,"in_flight":...},...]}, oldest first. */
void history_write(const struct history *history, FILE *out);

#endif
