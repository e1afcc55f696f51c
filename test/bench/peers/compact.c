/*
 * compact.c -- the cache by hand again (glib.c), by somebody who counts cache misses: 16 shards,
 * each a GHashTable behind a mutex, with a list in order of use. The hash is computed once a call
 * and kept; key, link and value are one block. No expiry. Values are read under the lock.
 */
#define PEER_BOUNDED 1
#include "peer.h"

#include <glib.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARDS 16
#define SHARD_SHIFT 60 /* of a 64-bit hash */

struct name {
    guint hash;
    char bytes[BENCH_KEY];
};

struct item {
    struct name name; /* what the table looks at; first, so that an item is its own key */
    uint32_t size;
    GList use;        /* its link in the list */
    uint64_t value[]; /* size bytes */
};

struct shard {
    _Alignas(128) pthread_mutex_t lock;
    GHashTable *table;
    GQueue used; /* the latest first */
};

struct store {
    size_t most; /* items a shard */
    struct shard shards[SHARDS];
};

static void store_enter(void)
{
}

static void store_leave(void)
{
}

static guint name_hash(gconstpointer name)
{
    return ((const struct name *)name)->hash;
}

static gboolean name_equal(gconstpointer left, gconstpointer right)
{
    const struct name *a = left, *b = right;
    return memcmp(a->bytes, b->bytes, BENCH_KEY) == 0;
}

static struct store *store_open(size_t bound)
{
    struct store *store = aligned_alloc(128, sizeof *store);
    NEED(store);
    store->most = bound / SHARDS;
    for (int i = 0; i < SHARDS; i++) {
        NEED(pthread_mutex_init(&store->shards[i].lock, NULL) == 0);
        store->shards[i].table = g_hash_table_new(name_hash, name_equal);
        g_queue_init(&store->shards[i].used);
    }
    return store;
}

static void store_close(struct store *store)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &store->shards[i];
        g_hash_table_destroy(shard->table);
        for (GList *link; (link = g_queue_pop_head_link(&shard->used));)
            free(link->data);
        pthread_mutex_destroy(&shard->lock);
    }
    free(store);
}

static struct shard *shard_of(struct store *store, struct name *name, const char *key)
{
    uint64_t hash = peer_hash(key);
    name->hash = (guint)hash;
    memcpy(name->bytes, key, BENCH_KEY);
    return &store->shards[hash >> SHARD_SHIFT];
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    struct name name;
    struct shard *shard = shard_of(store, &name, key);
    pthread_mutex_lock(&shard->lock);
    struct item *item = g_hash_table_lookup(shard->table, &name);
    if (item) {
        g_queue_unlink(&shard->used, &item->use);
        g_queue_push_head_link(&shard->used, &item->use);
        *sum += load_sum(item->value);
    }
    pthread_mutex_unlock(&shard->lock);
    return item != NULL;
}

/* Puts an item into its shard; returns what it replaces, or what it displaces. */
static struct item *put(struct shard *shard, struct item *item, size_t most)
{
    pthread_mutex_lock(&shard->lock);
    struct item *old = g_hash_table_lookup(shard->table, &item->name);
    if (!old && shard->used.length >= most)
        old = g_queue_peek_tail(&shard->used);
    if (old) {
        g_queue_unlink(&shard->used, &old->use);
        g_hash_table_remove(shard->table, &old->name);
    }
    g_hash_table_add(shard->table, item);
    g_queue_push_head_link(&shard->used, &item->use);
    pthread_mutex_unlock(&shard->lock);
    return old;
}

static void store_write(struct store *store, const char *key, const uint64_t *value)
{
    struct item *item = malloc(sizeof *item + BENCH_VALUE);
    NEED(item);
    struct shard *shard = shard_of(store, &item->name, key);
    item->size = BENCH_VALUE;
    item->use = (GList){.data = item};
    memcpy(item->value, value, BENCH_VALUE);
    free(put(shard, item, store->most));
}
