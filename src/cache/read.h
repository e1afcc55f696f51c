/*
 * cache/read -- the hit: hash, announce, find, compare the deadline.
 *
 * No lock and no shared write. What is not a hit is looked at again out of line.
 */
#ifndef ASIDE_CACHE_READ_H
#define ASIDE_CACHE_READ_H

#include "base/epoch.h"
#include "cache/cache.h"
#include "store/referee.h"

struct read {
    struct thread_record *self;
    int64_t now_ns;
    uint64_t hash;
    struct entry *entry; /* the fresh one; valid until read_end() */
};

/* Begins a read inside the epoch: true for a hit. self must not be NULL. */
static HOT_INLINE bool read_begin(aside_cache *cache, const void *key, size_t key_len,
                                  struct read *read)
{
    read->hash = cache_hash(cache, key, key_len);
    const struct shard *shard = store_shard(&cache->store, read->hash);
    index_prefetch(&shard->index, read->hash);
    read->now_ns = cache_now(cache);
    epoch_enter(read->self);
    read->entry = index_find(&shard->index, read->hash, key, key_len);
    return likely(read->entry != NULL) && entry_fresh(read->entry, read->now_ns);
}

static HOT_INLINE void read_end(const struct read *read)
{
    epoch_leave(read->self);
}

/* Inside the epoch: the entry was of use. */
static HOT_INLINE void read_use(const aside_cache *cache, const struct read *read)
{
    if (cache->store.evicts)
        policy_hit(read->entry);
}

static HOT_INLINE void read_hit(aside_cache *cache, const struct read *read, unsigned counter)
{
    read_use(cache, read);
    cache_count(cache, read->self, counter);
}

/* Of a hit: it may be one of those that the referee hears. Best after read_end(), where little is
 * live. */
static HOT_INLINE void read_offer(aside_cache *cache, const struct read *read)
{
    if (unlikely(referee_samples(&cache->store.referee, read->hash)))
        referee_hear_hit(&cache->store.referee, read->hash, &read->self->offered);
}

/* After read_end() of a read that was no hit: a handle to the value if it is fresh all the same, though
 * hits do not find it so at once: it has tags, say. NULL: it is not. */
aside_value *read_rare(aside_cache *cache, struct read read, const void *key,
                       size_t key_len) OUT_OF_LINE;

/* After read_end(): removes the entry that was over, if that can be done at once. The cache may
 * be gone then. */
void read_remove(aside_cache *cache, struct read read, const void *key, size_t key_len) OUT_OF_LINE;

/* For a thread without a record: a handle, found under the shard's lock; ASIDE_MISS,
 * ASIDE_E_CLOSED. Counts nothing. */
aside_status read_locked(aside_cache *cache, const void *key, size_t key_len, aside_value **value);

#endif
