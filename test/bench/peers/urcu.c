/*
 * urcu.c -- cds_lfht of liburcu, memb flavour: look-ups take no lock and write nothing. The table
 * alone, with neither bound nor expiry; values are read in place inside rcu_read_lock().
 */
#define URCU_INLINE_SMALL_FUNCTIONS
#define _LGPL_SOURCE
#include <urcu/urcu-memb.h>

#define PEER_BOUNDED 0
#define PEER_ENTER urcu_memb_register_thread
#define PEER_LEAVE urcu_memb_unregister_thread
#include "peer.h"

#include <stdlib.h>
#include <urcu/rculfhash.h>

struct item {
    struct cds_lfht_node node;
    struct rcu_head head;
    uint32_t size;
    char key[BENCH_KEY];
    uint64_t value[]; /* size bytes */
};

struct store {
    struct cds_lfht *table;
};

/* As many buckets as entries or more from the start: left to itself it stays at up to eight entries
 * a bucket, which costs it more than half of its speed. */
static size_t buckets_for(size_t entries)
{
    size_t buckets = 1;
    while (buckets < entries)
        buckets *= 2;
    return buckets;
}

static struct store *store_open(size_t bound)
{
    size_t buckets = buckets_for(bound);
    struct store *store = malloc(sizeof *store);
    NEED(store);
    store->table = cds_lfht_new_flavor(buckets, 1, 0, CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
                                       &urcu_memb_flavor, NULL);
    NEED(store->table);
    return store;
}

static void free_item(struct rcu_head *head)
{
    free(caa_container_of(head, struct item, head));
}

static void store_close(struct store *store)
{
    struct cds_lfht_iter iter;
    struct item *item;
    urcu_memb_read_lock();
    cds_lfht_for_each_entry(store->table, &iter, item,
                            node) if (cds_lfht_del(store->table, &item->node) == 0)
        urcu_memb_call_rcu(&item->head, free_item);
    urcu_memb_read_unlock();
    urcu_memb_barrier();
    NEED(cds_lfht_destroy(store->table, NULL) == 0);
    free(store);
}

static int matches(struct cds_lfht_node *node, const void *key)
{
    return memcmp(caa_container_of(node, struct item, node)->key, key, BENCH_KEY) == 0;
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    struct cds_lfht_iter iter;
    unsigned long hash = peer_hash(key);
    urcu_memb_read_lock();
    cds_lfht_lookup(store->table, hash, matches, key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    if (node)
        *sum += load_sum(caa_container_of(node, struct item, node)->value);
    urcu_memb_read_unlock();
    return node != NULL;
}

static void store_write(struct store *store, const char *key, const uint64_t *value)
{
    struct item *item = malloc(sizeof *item + BENCH_VALUE);
    NEED(item);
    memcpy(item->key, key, BENCH_KEY);
    item->size = BENCH_VALUE;
    memcpy(item->value, value, BENCH_VALUE);
    urcu_memb_read_lock();
    struct cds_lfht_node *old =
        cds_lfht_add_replace(store->table, peer_hash(key), matches, item->key, &item->node);
    urcu_memb_read_unlock();
    if (old)
        urcu_memb_call_rcu(&caa_container_of(old, struct item, node)->head, free_item);
}
