/*
 * glib.c -- a cache by hand, and the yardstick of the targets (glib16): 16 shards, each a
 * GHashTable behind a mutex, with a list in order of use. The table has a copy of each key of its
 * own, as is usual with GLib; an item has its value and its link in the list. A hit moves its item
 * to the front, what is too much goes from the back. No expiry. Values are read under the lock. See
 * compact.c as well.
 */
#define PEER_BOUNDED 1
#include "peer.h"

#include <glib.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARDS 16
#define SHARD_SHIFT 60 /* of a 64-bit hash */

struct item {
    char *key; /* the table's */
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

static guint key_hash(gconstpointer key)
{
    return (guint)peer_hash(key);
}

static gboolean key_equal(gconstpointer left, gconstpointer right)
{
    return memcmp(left, right, BENCH_KEY) == 0;
}

static void free_item(struct item *item)
{
    if (!item)
        return;
    free(item->key);
    free(item);
}

static struct store *store_open(size_t bound)
{
    struct store *store = aligned_alloc(128, sizeof *store);
    NEED(store);
    store->most = bound / SHARDS;
    for (int i = 0; i < SHARDS; i++) {
        NEED(pthread_mutex_init(&store->shards[i].lock, NULL) == 0);
        store->shards[i].table = g_hash_table_new(key_hash, key_equal);
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
            free_item(link->data);
        pthread_mutex_destroy(&shard->lock);
    }
    free(store);
}

static struct shard *shard_of(struct store *store, const char *key)
{
    return &store->shards[peer_hash(key) >> SHARD_SHIFT];
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    struct shard *shard = shard_of(store, key);
    pthread_mutex_lock(&shard->lock);
    struct item *item = g_hash_table_lookup(shard->table, key);
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
    struct item *old = g_hash_table_lookup(shard->table, item->key);
    if (!old && shard->used.length >= most)
        old = g_queue_peek_tail(&shard->used);
    if (old) {
        g_queue_unlink(&shard->used, &old->use);
        g_hash_table_remove(shard->table, old->key);
    }
    g_hash_table_insert(shard->table, item->key, item);
    g_queue_push_head_link(&shard->used, &item->use);
    pthread_mutex_unlock(&shard->lock);
    return old;
}

static void store_write(struct store *store, const char *key, const uint64_t *value)
{
    struct item *item = malloc(sizeof *item + BENCH_VALUE);
    NEED(item && (item->key = malloc(BENCH_KEY)));
    memcpy(item->key, key, BENCH_KEY);
    item->size = BENCH_VALUE;
    item->use = (GList){.data = item};
    memcpy(item->value, value, BENCH_VALUE);
    free_item(put(shard_of(store, key), item, store->most));
}
