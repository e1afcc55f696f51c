/*
 * peer.h -- the driver of a peer that has one natural way to look a key up. Include it, then define
 * the functions that it declares; it has main().
 */
#ifndef ASIDE_BENCH_PEER_H
#define ASIDE_BENCH_PEER_H

#include "driver.h"

#ifndef PEER_BOUNDED
#error "say whether the peer keeps a bound: #define PEER_BOUNDED 0 or 1"
#endif

/* What a thread calls before its first use of a store and after its last, if anything. */
#ifndef PEER_ENTER
#define PEER_ENTER NULL
#define PEER_LEAVE NULL
#endif

static struct store *store_open(size_t bound);
static void store_close(struct store *store);
static bool store_read(struct store *store, const char *key, uint64_t *sum);
static void store_write(struct store *store, const char *key, const uint64_t *value);

/* Of a key of BENCH_KEY bytes: what a program without enemies would take. */
static inline uint64_t peer_hash(const char *key)
{
    uint64_t low, high;
    memcpy(&low, key, sizeof low);
    memcpy(&high, key + sizeof low, sizeof high);
    uint64_t hash = low * UINT64_C(0x9e3779b97f4a7c15) + (high ^ high >> 29);
    hash *= UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ hash >> 32) * UINT64_C(0x94d049bb133111eb);
    return hash ^ hash >> 29;
}

static size_t batch_hits(struct store *store, const struct driver_load *load)
{
    return driver_hits(store, load, store_read);
}

static size_t batch_mixed(struct store *store, const struct driver_load *load)
{
    return driver_mixed(store, load, store_read, store_write);
}

static void write_each(struct store *store, const char *keys, size_t count, const uint64_t *value)
{
    for (size_t i = 0; i < count; i++)
        store_write(store, keys + i * BENCH_KEY, value);
}

#if PEER_BOUNDED
static size_t batch_aside(struct store *store, const struct driver_load *load)
{
    return driver_aside(store, load, store_read, store_write);
}
#endif

/* In the order of struct driver_case: C++ has no designated initialisers of C's kind. */
static const struct driver_case peer_cases[] = {
    {"hit-uniform", DRIVER_HITS, LOAD_UNIFORM, batch_hits, NULL, NULL, NULL},
    {"hit-zipf", DRIVER_HITS, LOAD_ZIPF, batch_hits, NULL, NULL, NULL},
    {"hit-hot", DRIVER_HITS, LOAD_HOT, batch_hits, NULL, NULL, NULL},
    {"mixed-zipf", DRIVER_MIXED, LOAD_ZIPF, batch_mixed, NULL, NULL, NULL},
#if PEER_BOUNDED
    {"aside-zipf", DRIVER_ASIDE, LOAD_ZIPF, batch_aside, NULL, NULL, NULL},
    {"set-full", DRIVER_FULL, LOAD_UNIFORM, NULL, write_each, NULL, NULL},
#endif
    {"fill", DRIVER_FILL, LOAD_UNIFORM, NULL, NULL, NULL, NULL},
    {"bytes", DRIVER_BYTES, LOAD_UNIFORM, NULL, NULL, NULL, NULL},
    {NULL, DRIVER_HITS, LOAD_UNIFORM, NULL, NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    static const struct driver peer = {peer_cases, store_open, store_close,
                                       write_each, PEER_ENTER, PEER_LEAVE};
    return driver_main(argc, argv, &peer);
}

#endif
