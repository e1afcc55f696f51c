/*
 * compact.c -- the cache by hand again (glib.c), by somebody who counts cache misses: 16 shards,
 * each a GHashTable behind a mutex, with a list in order of use. The hash is computed once a call
 * and kept; key, link and value are one block. No expiry. Values are read under the lock.
 */
#define PEER_BOUNDED 1
#include "peer.h"
#include "shards.h"

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
    return shards_open(bound, name_hash, name_equal);
}

static void store_close(struct store *store)
{
    shards_close(store, free);
}

/* Makes the name as well. */
static struct shard *shard_for(struct store *store, struct name *name, const char *key)
{
    uint64_t hash = peer_hash(key);
    name->hash = (guint)hash;
    memcpy(name->bytes, key, BENCH_KEY);
    return shard_of(store, hash);
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    struct name name;
    struct shard *shard = shard_for(store, &name, key);
    pthread_mutex_lock(&shard->lock);
    struct item *item = g_hash_table_lookup(shard->table, &name);
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
    struct item *old = shard_displaced(shard, &item->name, most);
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
    struct shard *shard = shard_for(store, &item->name, key);
    item->size = BENCH_VALUE;
    item->use = (GList){.data = item};
    memcpy(item->value, value, BENCH_VALUE);
    free(put(shard, item, store->most));
}
