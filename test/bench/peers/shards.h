/*
 * shards.h -- what the caches by hand of GLib share (glib.c, compact.c): shards, each a GHashTable
 * behind a mutex, with a list of its items in order of use. Least recently used goes first.
 */
#ifndef ASIDE_BENCH_SHARDS_H
#define ASIDE_BENCH_SHARDS_H

#include "../lib_bench.h"

#include <glib.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define SHARDS 16
#define SHARD_SHIFT 60 /* of a 64-bit hash */

struct shard {
    _Alignas(128) pthread_mutex_t lock;
    GHashTable *table;
    GQueue used; /* links of items, the latest first */
};

struct store {
    size_t most; /* items a shard */
    struct shard shards[SHARDS];
};

static inline struct store *shards_open(size_t bound, GHashFunc hash, GEqualFunc equal)
{
    struct store *store = aligned_alloc(128, sizeof *store);
    NEED(store);
    store->most = bound / SHARDS;
    for (int i = 0; i < SHARDS; i++) {
        NEED(pthread_mutex_init(&store->shards[i].lock, NULL) == 0);
        store->shards[i].table = g_hash_table_new(hash, equal);
        g_queue_init(&store->shards[i].used);
    }
    return store;
}

static inline void shards_close(struct store *store, GDestroyNotify free_item)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &store->shards[i];
        g_hash_table_destroy(shard->table);
        for (GList *link; (link = g_queue_pop_head_link(&shard->used));)
            free_item(link->data);
        pthread_mutex_destroy(&shard->lock);
    }
    free(store);
}

static inline struct shard *shard_of(struct store *store, uint64_t hash)
{
    return &store->shards[hash >> SHARD_SHIFT];
}

/* Under the lock: an item was of use. */
static inline void shard_touch(struct shard *shard, GList *use)
{
    g_queue_unlink(&shard->used, use);
    g_queue_push_head_link(&shard->used, use);
}

/* Under the lock: what has to go before an item comes under this key: the one that has it, or the
 * last, or none (NULL). */
static inline void *shard_displaced(const struct shard *shard, gconstpointer key, size_t most)
{
    void *old = g_hash_table_lookup(shard->table, key);
    return old || shard->used.length < most ? old : g_queue_peek_tail((GQueue *)&shard->used);
}

#endif
