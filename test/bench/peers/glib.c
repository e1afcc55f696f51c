/*
 * glib.c -- a cache by hand, and the yardstick of the targets (glib16): 16 shards, each a
 * GHashTable behind a mutex, with a list in order of use. The table has a copy of each key of its
 * own, as is usual with GLib; an item has its value and its link in the list. A hit moves its item
 * to the front, what is too much goes from the back. No expiry. Values are read under the lock. See
 * compact.c as well.
 */
#define PEER_BOUNDED 1
#include "peer.h"
#include "shards.h"

struct item {
    char *key; /* the table's */
    uint32_t size;
    GList use;        /* its link in the list */
    uint64_t value[]; /* size bytes */
};

static guint key_hash(gconstpointer key)
{
    return (guint)peer_hash(key);
}

static gboolean key_equal(gconstpointer left, gconstpointer right)
{
    return memcmp(left, right, BENCH_KEY) == 0;
}

static void free_item(void *old)
{
    struct item *item = old;
    if (!item)
        return;
    free(item->key);
    free(item);
}

static struct store *store_open(size_t bound)
{
    return shards_open(bound, key_hash, key_equal);
}

static void store_close(struct store *store)
{
    shards_close(store, free_item);
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    struct shard *shard = shard_of(store, peer_hash(key));
    pthread_mutex_lock(&shard->lock);
    struct item *item = g_hash_table_lookup(shard->table, key);
    if (item) {
        shard_touch(shard, &item->use);
        *sum += load_sum(item->value);
    }
    pthread_mutex_unlock(&shard->lock);
    return item != NULL;
}

/* Puts an item into its shard; returns what it replaces, or what it displaces. */
static struct item *put(struct shard *shard, struct item *item, size_t most)
{
    pthread_mutex_lock(&shard->lock);
    struct item *old = shard_displaced(shard, item->key, most);
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
    free_item(put(shard_of(store, peer_hash(key)), item, store->most));
}
