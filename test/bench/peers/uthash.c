/*
 * uthash.c -- a cache by hand: 16 shards, each a uthash table behind a mutex. uthash keeps its
 * items in the order in which they were added, so a hit moves its item to the end, and what is too
 * much goes from the front: least recently used. No expiry. Values are read under the lock.
 */
#define PEER_BOUNDED 1
#include "peer.h"

#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

#define SHARDS 16
#define SHARD_SHIFT 28 /* of a 32-bit hash */

struct item {
    UT_hash_handle hh;
    uint32_t size;
    char key[BENCH_KEY];
    uint64_t value[]; /* size bytes */
};

struct shard {
    _Alignas(128) pthread_mutex_t lock;
    struct item *table;
};

struct store {
    size_t most; /* items a shard */
    struct shard shards[SHARDS];
};

static struct store *store_open(size_t bound)
{
    struct store *store = aligned_alloc(128, sizeof *store);
    NEED(store);
    memset(store, 0, sizeof *store);
    store->most = bound / SHARDS;
    for (int i = 0; i < SHARDS; i++)
        NEED(pthread_mutex_init(&store->shards[i].lock, NULL) == 0);
    return store;
}

static void store_close(struct store *store)
{
    for (int i = 0; i < SHARDS; i++) {
        struct item *item, *next;
        HASH_ITER (hh, store->shards[i].table, item, next) {
            HASH_DEL(store->shards[i].table, item);
            free(item);
        }
        pthread_mutex_destroy(&store->shards[i].lock);
    }
    free(store);
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    struct item *item;
    unsigned hash;
    HASH_VALUE(key, BENCH_KEY, hash);
    struct shard *shard = &store->shards[hash >> SHARD_SHIFT];
    pthread_mutex_lock(&shard->lock);
    HASH_FIND_BYHASHVALUE(hh, shard->table, key, BENCH_KEY, hash, item);
    if (item) {
        HASH_DEL(shard->table, item);
        HASH_ADD_KEYPTR_BYHASHVALUE(hh, shard->table, item->key, BENCH_KEY, hash, item);
        *sum += load_sum(item->value);
    }
    pthread_mutex_unlock(&shard->lock);
    return item != NULL;
}

/* Puts an item into its shard; returns what it replaces, or what it displaces. */
static struct item *put(struct store *store, struct item *item)
{
    struct item *old;
    unsigned hash;
    HASH_VALUE(item->key, BENCH_KEY, hash);
    struct shard *shard = &store->shards[hash >> SHARD_SHIFT];
    pthread_mutex_lock(&shard->lock);
    HASH_FIND_BYHASHVALUE(hh, shard->table, item->key, BENCH_KEY, hash, old);
    if (!old && HASH_COUNT(shard->table) >= store->most)
        old = shard->table;
    if (old)
        HASH_DEL(shard->table, old);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, shard->table, item->key, BENCH_KEY, hash, item);
    pthread_mutex_unlock(&shard->lock);
    return old;
}

static void store_write(struct store *store, const char *key, const uint64_t *value)
{
    struct item *item = malloc(sizeof *item + BENCH_VALUE);
    NEED(item);
    memcpy(item->key, key, BENCH_KEY);
    item->size = BENCH_VALUE;
    memcpy(item->value, value, BENCH_VALUE);
    free(put(store, item));
}
