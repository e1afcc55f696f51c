/*
 * miss.c -- what a miss costs: aside_get_with_fetch() that leads on its own thread, with a fetch
 * that does next to nothing, beside a plain aside_set() of the same size. One pinned thread;
 * its processor time is counted, so that whoever else uses the core hardly shows.
 *
 * Keys are distinct and never asked for again: a key that is deleted and fetched anew would hide
 * the price of memory, and a delete would be timed along. Two caches are tried:
 *   full   max_entries reached before anything is timed, so that each store evicts one entry. This
 *          is what a cache-aside daemon does all day.
 *   room   no bound, empty at first, so that each store only adds and the index grows. Nothing is
 *          evicted; hence the stricter ratio.
 * In both the plain set pays the very same: it stores as many entries of the same size under fresh
 * keys into a cache of its own in the same state. Opening, filling and closing are not timed.
 */
#include "lib_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FULL_ENTRIES 100000
#define TTL_MS 3600000

enum kind { SET, FETCH_STORE, GET_SET, NO_STORE, NOT_FOUND, KINDS };
static const struct {
    const char *name, *what;
} kinds[KINDS] = {
    {"set", "aside_set"},
    {"fetch_store", "leads, the value is stored"},
    {"get_set", "aside_get that misses, then aside_set"},
    {"no_store", "leads, ASIDE_NO_STORE: handed over only"},
    {"not_found", "leads, there is no such thing"},
};

enum mode { FULL, ROOM, MODES };
static const char *const mode_names[MODES] = {"full", "room"};

static char payload[BENCH_VALUE];
static uint64_t next_key;
static char *keys;    /* of one slice */
static size_t misses; /* in one slice */

/* ---- one miss -------------------------------------------------------------------------------- */

static aside_status fetch_payload(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, payload, sizeof payload);
}

static aside_status fetch_nothing(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_not_found(fetch);
}

static void lead(aside_cache *cache, const char *key, const aside_call *call, aside_status expected)
{
    aside_result result = ASIDE_RESULT_INIT;
    NEED(aside_get_with_fetch(cache, key, BENCH_KEY, call, &result) == expected);
    NEED(result.outcome == ASIDE_OUTCOME_FETCHED);
    aside_value_unref(result.value);
}

static void get_set(aside_cache *cache, const char *key)
{
    aside_value *value;
    NEED(aside_get(cache, key, BENCH_KEY, &value) == ASIDE_MISS);
    NEED(aside_set(cache, key, BENCH_KEY, payload, sizeof payload, TTL_MS) == ASIDE_OK);
}

static void miss_all(aside_cache *cache, enum kind kind)
{
    const aside_call store = {ASIDE_CALL, .fetch = fetch_payload, .ttl_ms = TTL_MS};
    const aside_call hand_over = {ASIDE_CALL, .fetch = fetch_payload, .ttl_ms = ASIDE_NO_STORE};
    const aside_call nothing = {ASIDE_CALL, .fetch = fetch_nothing, .ttl_ms = TTL_MS};
    for (size_t i = 0; i < misses; i++) {
        const char *key = keys + i * BENCH_KEY;
        switch (kind) {
        case SET:
            NEED(aside_set(cache, key, BENCH_KEY, payload, sizeof payload, TTL_MS) == ASIDE_OK);
            break;
        case FETCH_STORE: lead(cache, key, &store, ASIDE_OK); break;
        case GET_SET: get_set(cache, key); break;
        case NO_STORE: lead(cache, key, &hand_over, ASIDE_OK); break;
        default: lead(cache, key, &nothing, ASIDE_NOT_FOUND); break;
        }
    }
}

/* ---- slices ---------------------------------------------------------------------------------- */

static void fresh_keys(void)
{
    for (size_t i = 0; i < misses; i++)
        bench_key(keys + i * BENCH_KEY, next_key++);
}

static aside_cache *open_cache(enum mode mode)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.max_bytes = 0;
    options.max_entries = mode == FULL ? FULL_ENTRIES : 0;
    aside_cache *cache;
    NEED(aside_open(&cache, &options) == ASIDE_OK);
    for (int i = 0; mode == FULL && i < FULL_ENTRIES; i++) {
        char key[BENCH_KEY];
        bench_key(key, next_key++);
        NEED(aside_set(cache, key, BENCH_KEY, payload, sizeof payload, TTL_MS) == ASIDE_OK);
    }
    return cache;
}

static void close_cache(aside_cache *cache)
{
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
}

static void check_counts(const aside_stats *before, const aside_stats *after, enum kind kind,
                         enum mode mode)
{
    bool leads = kind == FETCH_STORE || kind == NO_STORE || kind == NOT_FOUND;
    bool stores = kind == SET || kind == GET_SET || kind == FETCH_STORE;
    NEED(after->fetches - before->fetches == (leads ? misses : 0));
    NEED(after->fetch_stored - before->fetch_stored == (kind == FETCH_STORE ? misses : 0));
    NEED(after->store_refused == before->store_refused);
    if (mode == ROOM)
        NEED(after->entries - before->entries == (stores ? misses : 0));
    else
        NEED(after->entries <= FULL_ENTRIES);
}

/* Nanoseconds each. */
static double slice(aside_cache *kept, enum kind kind, enum mode mode)
{
    aside_cache *cache = kept ? kept : open_cache(mode);
    fresh_keys();
    aside_stats before = bench_stats(cache);
    int64_t start_ns = bench_cpu_ns();
    miss_all(cache, kind);
    int64_t took_ns = bench_cpu_ns() - start_ns;
    aside_stats after = bench_stats(cache);
    check_counts(&before, &after, kind, mode);
    if (!kept)
        close_cache(cache);
    return (double)took_ns / (double)misses;
}

/* ns[kind][pair]. */
static void measure(enum mode mode, size_t pairs, double *ns[KINDS])
{
    aside_cache *caches[KINDS] = {NULL};
    for (int kind = 0; mode == FULL && kind < KINDS; kind++) {
        caches[kind] = open_cache(mode);
        (void)slice(caches[kind], kind, mode); /* warms up */
    }
    for (size_t pair = 0; pair < pairs; pair++)
        for (int i = 0; i < KINDS; i++) {
            int kind = pair % 2 ? KINDS - 1 - i : i;
            ns[kind][pair] = slice(caches[kind], kind, mode);
        }
    for (int kind = 0; kind < KINDS; kind++)
        if (caches[kind])
            close_cache(caches[kind]);
}

/* ---- report ---------------------------------------------------------------------------------- */

static void report(enum mode mode, size_t pairs, double *ns[KINDS], bool script)
{
    double *times = bench_alloc(pairs * sizeof *times);
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < pairs; i++)
            times[i] = ns[kind][i] / ns[SET][i];
        struct bench_spread each = bench_spread(ns[kind], pairs);
        struct bench_spread ratio = bench_spread(times, pairs);
        printf(script ? "miss: mode=%s op=%s ns=%.1f ns_min=%.1f ns_max=%.1f over_set=%.2f "
                        "over_set_min=%.2f over_set_max=%.2f"
                      : "%-5s %-12s %8.1f  %7.1f..%-7.1f %6.2f  %6.2f..%-6.2f",
               mode_names[mode], kinds[kind].name, each.mid, each.low, each.high, ratio.mid,
               ratio.low, ratio.high);
        if (script)
            printf("%s%s\n", kind == FETCH_STORE ? " target=3.00 target_is=" : "",
                   kind == FETCH_STORE ? bench_verdict(ratio.mid < 3 || each.mid <= 250) : "");
        else
            printf(" %s\n", kinds[kind].what);
    }
    free(times);
}

int main(int argc, char **argv)
{
    long pairs = 15, count = 50000;
    const struct bench_option options[] = {
        {"--pairs", &pairs, 1, "slices of each kind"},
        {"--misses", &count, 1, "misses a slice"},
    };
    bench_options(argc, argv, options, sizeof options / sizeof *options);
    bench_machine("miss");
    bench_pin(0);
    misses = (size_t)count;
    keys = bench_alloc(misses * BENCH_KEY);
    memset(payload, 'v', sizeof payload);

    double *ns[MODES][KINDS];
    for (int i = 0; i < MODES * KINDS; i++)
        ns[i / KINDS][i % KINDS] = bench_alloc((size_t)pairs * sizeof(double));
    printf("%ld alternating slices of %ld misses, %d-byte keys, %d-byte values\n"
           "target: fetch_store below 3 x set, or 250 ns\n\n"
           "cache op             ns each     min..max      x set     min..max\n",
           pairs, count, BENCH_KEY, BENCH_VALUE);
    for (int mode = 0; mode < MODES; mode++) {
        measure(mode, (size_t)pairs, ns[mode]);
        report(mode, (size_t)pairs, ns[mode], false);
    }
    printf("\n");
    for (int mode = 0; mode < MODES; mode++)
        report(mode, (size_t)pairs, ns[mode], true);
    for (int i = 0; i < MODES * KINDS; i++)
        free(ns[i / KINDS][i % KINDS]);
    free(keys);
    return 0;
}
