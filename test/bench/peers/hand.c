/*
 * hand.c -- a stampede that somebody protected by hand: one flight, a word that says how far it is.
 * Whoever comes first loads, publishes, and wakes all by one call of the futex; the others wait on
 * the word and take no lock. It knows one key at a time, and no errors, deadlines or tokens.
 */
#include "driver.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

enum stage { NOBODY, LOADING, READY };

struct store {
    char key[BENCH_KEY];
    pthread_mutex_t lock;
    _Atomic uint32_t stage;
    uint64_t value[BENCH_VALUE / 8];
};

static struct store *store_open(size_t bound)
{
    (void)bound;
    struct store *store = bench_alloc(sizeof *store);
    NEED(pthread_mutex_init(&store->lock, NULL) == 0);
    return store;
}

static void store_close(struct store *store)
{
    pthread_mutex_destroy(&store->lock);
    free(store);
}

/* True for the first who asks for a key. */
static bool lead(struct store *store, const char *key)
{
    pthread_mutex_lock(&store->lock);
    bool first = memcmp(store->key, key, BENCH_KEY) != 0;
    if (first) {
        memcpy(store->key, key, BENCH_KEY);
        atomic_store(&store->stage, LOADING);
    }
    pthread_mutex_unlock(&store->lock);
    return first;
}

static void load(struct store *store)
{
    bench_nap_us(DRIVER_LOADER_MS * 1000);
    load_value(store->value, 0);
    atomic_store(&store->stage, READY);
    bench_futex_wake(&store->stage, INT_MAX);
}

static uint64_t fetch(struct store *store, const char *key)
{
    if (lead(store, key))
        load(store);
    while (atomic_load(&store->stage) != READY)
        bench_futex_wait(&store->stage, LOADING);
    return load_sum(store->value);
}

static void write_nothing(struct store *store, const char *keys, size_t count,
                          const uint64_t *value)
{
    (void)store, (void)keys, (void)count, (void)value;
}

int main(int argc, char **argv)
{
    static const struct driver_case cases[] = {
        {.name = "stampede", .shape = DRIVER_STAMPEDE, .fetch = fetch},
        {.name = NULL},
    };
    static const struct driver by_hand = {
        .cases = cases, .open = store_open, .close = store_close, .fill = write_nothing};
    return driver_main(argc, argv, &by_hand);
}
