/*
 * lib_baseline.c -- FROZEN. Targets are multiples of this code's speed, so a change here would move
 * every published ratio. Do not tune, tidy or fix it; if another yardstick is wanted, add a file.
 *
 * What it is: 64 shards on cache lines of their own, in each a pthread mutex and a uthash table
 * with uthash's default hash, computed once a call (its top bits choose the shard, uthash uses the
 * low ones). An entry is one block: key, value, expiry, an atomic count of handles. A hit reads the
 * coarse clock, locks, finds, checks the expiry, counts, unlocks; giving back uncounts. It keeps no
 * bound and moves no list on a hit, and it is linked statically: all of that is in its favour.
 */
#include "lib_baseline.h"

#include "lib_bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>

#define SHARDS 64
#define SHARD_SHIFT 26 /* of a 32-bit hash */

struct baseline_entry {
    UT_hash_handle hh;
    _Atomic uint32_t handles; /* the table's own included */
    uint32_t size;
    int64_t expires_ns;
    size_t key_len;
    char bytes[]; /* the value, then the key */
};

struct shard {
    _Alignas(128) pthread_mutex_t lock;
    struct baseline_entry *table;
};

struct baseline {
    struct shard shards[SHARDS];
};

static int64_t coarse_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct baseline *baseline_open(void)
{
    struct baseline *baseline = aligned_alloc(128, sizeof *baseline);
    NEED(baseline);
    memset(baseline, 0, sizeof *baseline);
    for (int i = 0; i < SHARDS; i++)
        NEED(pthread_mutex_init(&baseline->shards[i].lock, NULL) == 0);
    return baseline;
}

void baseline_close(struct baseline *baseline)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &baseline->shards[i];
        struct baseline_entry *entry, *next;
        HASH_ITER (hh, shard->table, entry, next) {
            HASH_DEL(shard->table, entry);
            baseline_unref(entry);
        }
        pthread_mutex_destroy(&shard->lock);
    }
    free(baseline);
}

static struct baseline_entry *new_entry(const void *key, size_t key_len, const void *data,
                                        size_t size, int64_t ttl_ms)
{
    struct baseline_entry *entry = malloc(sizeof *entry + size + key_len);
    NEED(entry);
    atomic_init(&entry->handles, 1);
    entry->size = (uint32_t)size;
    entry->expires_ns = coarse_now_ns() + ttl_ms * 1000000;
    entry->key_len = key_len;
    memcpy(entry->bytes, data, size);
    memcpy(entry->bytes + size, key, key_len);
    return entry;
}

void baseline_set(struct baseline *baseline, const void *key, size_t key_len, const void *data,
                  size_t size, int64_t ttl_ms)
{
    struct baseline_entry *entry = new_entry(key, key_len, data, size, ttl_ms), *old;
    unsigned hash;
    HASH_VALUE(key, key_len, hash);
    struct shard *shard = &baseline->shards[hash >> SHARD_SHIFT];
    pthread_mutex_lock(&shard->lock);
    HASH_FIND_BYHASHVALUE(hh, shard->table, key, key_len, hash, old);
    if (old)
        HASH_DEL(shard->table, old);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, shard->table, entry->bytes + size, key_len, hash, entry);
    pthread_mutex_unlock(&shard->lock);
    if (old)
        baseline_unref(old);
}

struct baseline_entry *baseline_get(struct baseline *baseline, const void *key, size_t key_len)
{
    struct baseline_entry *entry;
    unsigned hash;
    int64_t now_ns = coarse_now_ns();
    HASH_VALUE(key, key_len, hash);
    struct shard *shard = &baseline->shards[hash >> SHARD_SHIFT];
    pthread_mutex_lock(&shard->lock);
    HASH_FIND_BYHASHVALUE(hh, shard->table, key, key_len, hash, entry);
    if (entry && now_ns >= entry->expires_ns)
        entry = NULL;
    if (entry)
        atomic_fetch_add_explicit(&entry->handles, 1, memory_order_relaxed);
    pthread_mutex_unlock(&shard->lock);
    return entry;
}

const void *baseline_data(const struct baseline_entry *entry, size_t *size)
{
    *size = entry->size;
    return entry->bytes;
}

void baseline_unref(struct baseline_entry *entry)
{
    if (atomic_fetch_sub_explicit(&entry->handles, 1, memory_order_acq_rel) == 1)
        free(entry);
}
