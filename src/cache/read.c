/* cache/read -- see read.h. */
#include "cache/read.h"

aside_value *read_rare(aside_cache *cache, struct read read, const void *key, size_t key_len)
{
    const struct shard *shard = store_shard(&cache->store, read.hash);
    aside_value *value = NULL;
    epoch_enter(read.self);
    read.entry = index_find(&shard->index, read.hash, key, key_len);
    if (read.entry && entry_is_fresh(read.entry, read.now_ns)) {
        value = entry_handle(read.entry);
        read_use(cache, &read);
    }
    epoch_leave(read.self);
    return value;
}

void read_remove(aside_cache *cache, struct read read, const void *key, size_t key_len)
{
    struct host_call call;
    host_enter(&cache->host, &call);
    cache_revive(cache);
    store_lazily_remove(&cache->store, read.hash, read.entry, key, key_len, read.now_ns);
    host_exit(&call);
}

aside_status read_locked(aside_cache *cache, const void *key, size_t key_len, aside_value **value)
{
    uint64_t hash = cache_hash(cache, key, key_len);
    int64_t now_ns = cache_now(cache);
    struct shard *shard = store_shard(&cache->store, hash);
    lock_take(&shard->lock);
    bool closed = shard->group.closed;
    struct entry *entry = shard_find(shard, hash, key, key_len);
    if (entry && !entry_is_fresh(entry, now_ns))
        entry = NULL;
    *value = entry ? entry_handle(entry) : NULL;
    lock_release(&shard->lock);
    return entry ? ASIDE_OK : closed ? ASIDE_E_CLOSED : ASIDE_MISS;
}
