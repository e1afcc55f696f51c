/*
 * aside.c -- the library itself as a driver of the suite, from the shared library that users link:
 * expiry, bound and keyed hash on, a reaper beside it. A case that looks keys up ends with how:
 *   copy   aside_copy      visit   aside_visit      get   aside_get, and the handle given back
 *
 * hit-sampled: one hot key again, of those that the cache's referee listens to. It takes keys by
 * their hash, so with a seed of our own we can tell which one it is sure to take.
 */
#include "driver.h"

#include "base/hash.h"

#include <stdlib.h>

#define TTL_MS 3600000

struct store {
    aside_cache *cache;
};

static const uint8_t hash_seed[16] = "the bench's seed";

static struct store *store_open(size_t bound)
{
    struct store *store = bench_alloc(sizeof *store);
    aside_options options = ASIDE_OPTIONS_INIT;
    options.max_bytes = bound * 1024; /* not what bounds it */
    options.max_entries = bound;
    options.hash_seed = hash_seed;
    NEED(aside_open(&store->cache, &options) == ASIDE_OK);
    return store;
}

static void store_close(struct store *store)
{
    NEED(aside_close(store->cache) == ASIDE_OK);
    aside_unref(store->cache);
    free(store);
}

/* The key with the least of those bits that decide: it is sampled if any is. */
static uint32_t sampled_key(void)
{
    static uint32_t number, least = UINT32_MAX;
    if (least < UINT32_MAX)
        return number;
    struct hash_seed seed;
    NEED(hash_seed_init(&seed, hash_seed));
    for (uint32_t i = 0; i < LOAD_ENTRIES; i++) {
        char key[BENCH_KEY];
        bench_key(key, i);
        uint32_t low = (uint32_t)hash_bytes(&seed, key, BENCH_KEY);
        if (low < least) {
            least = low;
            number = i;
        }
    }
    return number;
}

/* ---- one operation --------------------------------------------------------------------------- */

static bool read_copy(struct store *store, const char *key, uint64_t *sum)
{
    uint64_t buffer[BENCH_VALUE / 8];
    size_t size;
    aside_status status = aside_copy(store->cache, key, BENCH_KEY, buffer, sizeof buffer, &size);
    if (status != ASIDE_OK)
        return false;
    *sum += load_sum(buffer);
    return true;
}

static void add_up(const void *data, size_t size, void *sum)
{
    (void)size;
    *(uint64_t *)sum += load_sum(data);
}

static bool read_visit(struct store *store, const char *key, uint64_t *sum)
{
    return aside_visit(store->cache, key, BENCH_KEY, add_up, sum) == ASIDE_OK;
}

static bool read_get(struct store *store, const char *key, uint64_t *sum)
{
    aside_value *value;
    if (aside_get(store->cache, key, BENCH_KEY, &value) != ASIDE_OK)
        return false;
    *sum += load_sum(aside_value_data(value));
    aside_value_unref(value);
    return true;
}

static void write_one(struct store *store, const char *key, const uint64_t *value)
{
    NEED(aside_set(store->cache, key, BENCH_KEY, value, BENCH_VALUE, TTL_MS) == ASIDE_OK);
}

/* ---- batches --------------------------------------------------------------------------------- */

static size_t hits_copy(struct store *store, const struct driver_load *load)
{
    return driver_hits(store, load, read_copy);
}

static size_t hits_visit(struct store *store, const struct driver_load *load)
{
    return driver_hits(store, load, read_visit);
}

static size_t hits_get(struct store *store, const struct driver_load *load)
{
    return driver_hits(store, load, read_get);
}

static size_t mixed_copy(struct store *store, const struct driver_load *load)
{
    return driver_mixed(store, load, read_copy, write_one);
}

static size_t mixed_get(struct store *store, const struct driver_load *load)
{
    return driver_mixed(store, load, read_get, write_one);
}

static size_t aside_by_copy(struct store *store, const struct driver_load *load)
{
    return driver_aside(store, load, read_copy, write_one);
}

static void write_each(struct store *store, const char *keys, size_t count, const uint64_t *value)
{
    for (size_t i = 0; i < count; i++)
        write_one(store, keys + i * BENCH_KEY, value);
}

/* ---- get_with_fetch -------------------------------------------------------------------------- */

static aside_status fetch_at_once(aside_fetch *fetch, void *value)
{
    return aside_fetch_copy(fetch, value, BENCH_VALUE);
}

static aside_status fetch_slowly(aside_fetch *fetch, void *value)
{
    bench_nap_us(DRIVER_LOADER_MS * 1000);
    return aside_fetch_copy(fetch, value, BENCH_VALUE);
}

static uint64_t get_with_fetch(struct store *store, const char *key, const aside_call *call)
{
    aside_result result = ASIDE_RESULT_INIT;
    NEED(aside_get_with_fetch(store->cache, key, BENCH_KEY, call, &result) == ASIDE_OK);
    uint64_t sum = load_sum(aside_value_data(result.value));
    aside_value_unref(result.value);
    return sum;
}

static size_t aside_by_fetch(struct store *store, const struct driver_load *load)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_at_once, .ttl_ms = TTL_MS};
    call.arg = (void *)(uintptr_t)load->value;
    size_t hits = 0;
    for (int i = 0; i < DRIVER_BATCH; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        NEED(aside_get_with_fetch(store->cache, driver_key(load, i), BENCH_KEY, &call, &result) ==
             ASIDE_OK);
        hits += result.outcome == ASIDE_OUTCOME_HIT;
        NEED(load_sum(aside_value_data(result.value)) == LOAD_SUM);
        aside_value_unref(result.value);
    }
    return hits;
}

static void miss_each(struct store *store, const char *keys, size_t count, const uint64_t *value)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_at_once, .ttl_ms = TTL_MS};
    call.arg = (void *)(uintptr_t)value;
    for (size_t i = 0; i < count; i++)
        NEED(get_with_fetch(store, keys + i * BENCH_KEY, &call) == LOAD_SUM);
}

/* Alone a leader runs the fetch on his own thread; whoever joins waits for it. */
static uint64_t stampede(struct store *store, const char *key)
{
    uint64_t value[BENCH_VALUE / 8];
    load_value(value, 0);
    const aside_call call = {ASIDE_CALL, .fetch = fetch_slowly, .arg = value, .ttl_ms = TTL_MS};
    return get_with_fetch(store, key, &call);
}

/* ---- the driver ------------------------------------------------------------------------------ */

#define HITS(how, way)                                                                             \
    {.name = "hit-uniform-" how, .shape = DRIVER_HITS, .load = LOAD_UNIFORM, .batch = (way)},      \
        {.name = "hit-zipf-" how, .shape = DRIVER_HITS, .load = LOAD_ZIPF, .batch = (way)},        \
        {.name = "hit-hot-" how, .shape = DRIVER_HITS, .load = LOAD_HOT, .batch = (way)},          \
    {                                                                                              \
        .name = "hit-sampled-" how, .shape = DRIVER_HITS, .load = LOAD_HOT, .batch = (way),        \
        .hot = sampled_key                                                                         \
    }

static const struct driver_case cases[] = {
    HITS("copy", hits_copy),
    HITS("visit", hits_visit),
    HITS("get", hits_get),
    {.name = "mixed-zipf-copy", .shape = DRIVER_MIXED, .load = LOAD_ZIPF, .batch = mixed_copy},
    {.name = "mixed-zipf-get", .shape = DRIVER_MIXED, .load = LOAD_ZIPF, .batch = mixed_get},
    {.name = "aside-zipf-copy", .shape = DRIVER_ASIDE, .load = LOAD_ZIPF, .batch = aside_by_copy},
    {.name = "aside-zipf-fetch", .shape = DRIVER_ASIDE, .load = LOAD_ZIPF, .batch = aside_by_fetch},
    {.name = "set-full", .shape = DRIVER_FULL, .each = write_each},
    {.name = "miss", .shape = DRIVER_FULL, .each = miss_each},
    {.name = "fill", .shape = DRIVER_FILL},
    {.name = "bytes", .shape = DRIVER_BYTES},
    {.name = "stampede", .shape = DRIVER_STAMPEDE, .fetch = stampede},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    static const struct driver ours = {
        .cases = cases, .open = store_open, .close = store_close, .fill = write_each};
    return driver_main(argc, argv, &ours);
}
