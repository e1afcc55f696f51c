/*
 * instructions.c -- each path of the library a fixed number of times, for callgrind to count.
 *
 * Time differs from run to run by more than a careless change costs; the number of instructions
 * does not. counted() is what callgrind collects in and dumps after: the library's instructions,
 * the C library's on its behalf, and a dozen or two for the loop and the checks below. Before each
 * path its keys are laid out, and some calls of the same kind run uncounted. The names of the paths
 * are printed in the order of the dumps; instructions.sh puts both together.
 *
 * Nothing may differ between two runs: one thread, no reaper, a fixed seed. The clock is the
 * system's, by a system call: valgrind hides the quicker way from the C library.
 */
#include "lib_bench.h"

#include <stdio.h>
#include <string.h>

#define CALLS 20000 /* of each path */
#define WARM_UP 2000
#define FULL_ENTRIES 10000
#define TTL_MS 3600000

static aside_cache *room; /* without a bound; holds the keys from 0 on */
static aside_cache *full; /* evicts one entry for each new key */
static char keys[WARM_UP + CALLS][BENCH_KEY];
static char payload[BENCH_VALUE], sink[BENCH_VALUE];

/* ---- one call of each path ------------------------------------------------------------------- */

static void hit_copy(const char *key)
{
    size_t size;
    NEED(aside_copy(room, key, BENCH_KEY, sink, sizeof sink, &size) == ASIDE_OK);
}

static void look(const void *data, size_t size, void *ctx)
{
    (void)size;
    memcpy(ctx, data, 1);
}

static void hit_visit(const char *key)
{
    NEED(aside_visit(room, key, BENCH_KEY, look, sink) == ASIDE_OK);
}

static void hit_handle(const char *key)
{
    aside_value *value;
    NEED(aside_get(room, key, BENCH_KEY, &value) == ASIDE_OK);
    aside_value_unref(value);
}

static void miss_copy(const char *key)
{
    size_t size;
    NEED(aside_copy(room, key, BENCH_KEY, sink, sizeof sink, &size) == ASIDE_MISS);
}

static void set_in_room(const char *key)
{
    NEED(aside_set(room, key, BENCH_KEY, payload, sizeof payload, TTL_MS) == ASIDE_OK);
}

static void set_in_full(const char *key)
{
    NEED(aside_set(full, key, BENCH_KEY, payload, sizeof payload, TTL_MS) == ASIDE_OK);
}

static aside_status fetch_payload(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, payload, sizeof payload);
}

static void get_with_fetch(const char *key)
{
    const aside_call call = {ASIDE_CALL, .fetch = fetch_payload, .ttl_ms = TTL_MS};
    aside_result result = ASIDE_RESULT_INIT;
    NEED(aside_get_with_fetch(room, key, BENCH_KEY, &call, &result) == ASIDE_OK);
    aside_value_unref(result.value);
}

static void drop(const char *key)
{
    NEED(aside_delete(room, key, BENCH_KEY) == ASIDE_OK);
}

/* ---- what is counted ------------------------------------------------------------------------- */

/* Keys from 0 on are in the room; what follows is new to both caches. */
enum { THERE = 0, NEW_IN_ROOM = 1000000, FETCHED = 2000000, NEW_IN_FULL = 3000000 };

static const struct path {
    const char *name;
    void (*call)(const char *key);
    uint64_t first_key;
} paths[] = {
    {"hit_copy", hit_copy, THERE},           {"hit_visit", hit_visit, THERE},
    {"hit_handle", hit_handle, THERE},       {"hit_get_with_fetch", get_with_fetch, THERE},
    {"miss_copy", miss_copy, NEW_IN_ROOM},   {"miss_get_with_fetch", get_with_fetch, FETCHED},
    {"set_new", set_in_room, NEW_IN_ROOM},   {"set_overwrite", set_in_room, THERE},
    {"set_evict", set_in_full, NEW_IN_FULL}, {"delete", drop, THERE},
};

static void repeat(const struct path *path, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        path->call(keys[i]);
}

/* Known to instructions.sh by this name. */
__attribute__((noinline)) static void counted(const struct path *path)
{
    repeat(path, WARM_UP, WARM_UP + CALLS);
    __asm__ volatile("" ::: "memory"); /* the loop is not what this returns into */
}

static void run(const struct path *path)
{
    for (size_t i = 0; i < WARM_UP + CALLS; i++)
        bench_key(keys[i], path->first_key + i);
    repeat(path, 0, WARM_UP);
    counted(path);
    printf("path: %s\n", path->name);
}

/* ---- the two caches -------------------------------------------------------------------------- */

static aside_cache *open_cache(size_t max_entries)
{
    static const uint8_t seed[16] = "0123456789abcdef";
    aside_options options = ASIDE_OPTIONS_INIT;
    options.max_bytes = 0;
    options.max_entries = max_entries;
    options.reaper_interval_ms = 0;
    options.hash_seed = seed;
    aside_cache *cache;
    NEED(aside_open(&cache, &options) == ASIDE_OK);
    return cache;
}

/* The full one is written four times over: what it measures by itself has settled then. */
static void fill(void)
{
    char key[BENCH_KEY];
    for (uint64_t i = 0; i < WARM_UP + CALLS; i++) {
        bench_key(key, THERE + i);
        set_in_room(key);
    }
    for (uint64_t i = 0; i < 4 * FULL_ENTRIES; i++) {
        bench_key(key, THERE + i);
        set_in_full(key);
    }
}

static void close_cache(aside_cache *cache)
{
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
}

int main(void)
{
    bench_machine("instructions");
    printf("calls: %d\n", CALLS);
    room = open_cache(0);
    full = open_cache(FULL_ENTRIES);
    memset(payload, 'v', sizeof payload);
    fill();
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        run(&paths[i]);
    NEED(bench_stats(room).fetches == WARM_UP + CALLS && bench_stats(full).evicted >= CALLS);
    close_cache(room);
    close_cache(full);
    return 0;
}
