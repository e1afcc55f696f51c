/*
 * history.c -- a ring of seconds, each the growth of counters that never go back.
 */
#include "history.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static int64_t wall_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static aside_stats read_stats(const aside_cache *cache)
{
    aside_stats stats = {.struct_size = sizeof stats};
    if (aside_stats_get(cache, &stats) != ASIDE_OK)
        memset(&stats, 0, sizeof stats);
    return stats;
}

void history_init(struct history *history, aside_cache *cache, uint64_t queries)
{
    memset(history, 0, sizeof *history);
    metrics_totals(&history->totals);
    history->stats = read_stats(cache);
    history->queries = queries;
}

/* Every lookup is one of the three: see ASIDE_COUNTER_MAP. */
static uint64_t hits_of(const aside_stats *stats)
{
    return stats->hits + stats->stale + stats->negative_hits + stats->error_hits;
}

static uint64_t misses_of(const aside_stats *stats)
{
    return stats->misses + stats->misses_led + stats->refused;
}

void history_sample(struct history *history, aside_cache *cache, uint64_t queries)
{
    struct second *second = &history->seconds[history->count++ % HISTORY_SECONDS];
    struct metrics_totals totals;
    aside_stats stats = read_stats(cache);
    metrics_totals(&totals);
    *second = (struct second){
        .at_ms = wall_clock_ms(),
        .requests = totals.requests - history->totals.requests,
        .hits = hits_of(&stats) - hits_of(&history->stats),
        .misses = misses_of(&stats) - misses_of(&history->stats),
        .shared = stats.misses_joined - history->stats.misses_joined,
        .queries = queries - history->queries,
        .p95_ms = metrics_quantile(&history->totals, &totals, 0.95) * 1000,
        .in_flight = totals.in_flight,
    };
    history->totals = totals;
    history->stats = stats;
    history->queries = queries;
}

static void write_second(const struct second *second, FILE *out)
{
    fprintf(out,
            "{\"at\":%" PRId64 ",\"requests\":%" PRIu64 ",\"hits\":%" PRIu64 ",\"misses\":%" PRIu64
            ",\"shared\":%" PRIu64 ",\"queries\":%" PRIu64 ",\"p95_ms\":%.3f,\"in_flight\":%" PRId64
            "}",
            second->at_ms, second->requests, second->hits, second->misses, second->shared,
            second->queries, second->p95_ms, second->in_flight);
}

void history_write(const struct history *history, FILE *out)
{
    size_t first = history->count > HISTORY_SECONDS ? history->count - HISTORY_SECONDS : 0;
    fputs("{\"seconds\":[", out);
    for (size_t i = first; i < history->count; i++) {
        if (i > first)
            fputc(',', out);
        write_second(&history->seconds[i % HISTORY_SECONDS], out);
    }
    fputs("]}", out);
}
