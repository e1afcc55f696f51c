/*
 * cache/verbs -- the plain verbs: get, copy, visit, set and its kin, clear, count, reap.
 */
#include "base/clock.h"
#include "cache/read.h"

#include <pthread.h>
#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

static OUT_OF_LINE aside_status plain_miss(aside_cache *cache, struct read read, const void *key,
                                           size_t key_len)
{
    if (!cache_is_open(cache))
        return ASIDE_E_CLOSED;
    cache_count(cache, read.self, COUNTER_misses);
    if (read.entry)
        read_remove(cache, read, key, key_len);
    return ASIDE_MISS;
}

static OUT_OF_LINE aside_status plain_read_locked(aside_cache *cache, const void *key,
                                                  size_t key_len, aside_value **value)
{
    aside_status status = read_locked(cache, key, key_len, value);
    if (status >= 0)
        cache_count(cache, NULL, status == ASIDE_OK ? COUNTER_hits : COUNTER_misses);
    return status;
}

aside_status aside_get(aside_cache *cache, const void *key, size_t key_len, aside_value **value)
{
    if (!value)
        return ASIDE_E_INVALID;
    *value = NULL;
    if (!cache_is(cache) || !cache_is_key(key, key_len))
        return ASIDE_E_INVALID;
    struct read read = {.self = thread_self()};
    if (unlikely(!read.self))
        return plain_read_locked(cache, key, key_len, value);
    if (likely(read_begin(cache, key, key_len, &read))) {
        *value = entry_handle(read.entry);
        read_hit(cache, &read);
        read_end(&read);
        return ASIDE_OK;
    }
    read_end(&read);
    return plain_miss(cache, read, key, key_len);
}

/* A call costs as much as copying a short value. By words of general registers: whoever reads the
 * copy at once, as most do, would wait longer for the wider ones. */
static HOT_INLINE void copy_bytes(char *to, const char *from, size_t size)
{
    if (size < 8 || size > 256) {
        memcpy(to, from, size);
        return;
    }
    for (size_t at = 0; at + 8 < size; at += 8)
        memcpy(to + at, from + at, 8);
    memcpy(to + size - 8, from + size - 8, 8);
}

static HOT_INLINE aside_status copy_out(const void *data, size_t size, void *buffer,
                                        size_t capacity, size_t *copied)
{
    if (copied)
        *copied = size;
    if (size > capacity)
        return ASIDE_E_BUFFER;
    if (size)
        copy_bytes(buffer, data, size);
    return ASIDE_OK;
}

static OUT_OF_LINE aside_status copy_locked(aside_cache *cache, const void *key, size_t key_len,
                                            void *buffer, size_t capacity, size_t *size)
{
    aside_value *value;
    aside_status status = plain_read_locked(cache, key, key_len, &value);
    if (status != ASIDE_OK)
        return status;
    status = copy_out(aside_value_data(value), aside_value_size(value), buffer, capacity, size);
    aside_value_unref(value);
    return status;
}

aside_status aside_copy(aside_cache *cache, const void *key, size_t key_len, void *buffer,
                        size_t capacity, size_t *size)
{
    if (!cache_is(cache) || !cache_is_key(key, key_len) || (!buffer && capacity))
        return ASIDE_E_INVALID;
    struct read read = {.self = thread_self()};
    if (unlikely(!read.self))
        return copy_locked(cache, key, key_len, buffer, capacity, size);
    if (likely(read_begin(cache, key, key_len, &read))) {
        aside_status status =
            copy_out(entry_data(read.entry), entry_size(read.entry), buffer, capacity, size);
        read_hit(cache, &read);
        read_end(&read);
        return status;
    }
    read_end(&read);
    return plain_miss(cache, read, key, key_len);
}

/* ---- visiting -------------------------------------------------------------------------------- */

static void unref_value(void *value)
{
    aside_value_unref(value);
}

/* By a counted reference: where there is no slot for the visit. */
static OUT_OF_LINE void visit_counted(aside_value *value, aside_visit_fn *fn, void *ctx)
{
    pthread_cleanup_push(unref_value, value);
    fn(aside_value_data(value), aside_value_size(value), ctx);
    pthread_cleanup_pop(1);
}

static OUT_OF_LINE aside_status visit_locked(aside_cache *cache, const void *key, size_t key_len,
                                             aside_visit_fn *fn, void *ctx)
{
    aside_value *value;
    aside_status status = plain_read_locked(cache, key, key_len, &value);
    if (status == ASIDE_OK)
        visit_counted(value, fn, ctx);
    return status;
}

/* All slots are in use: ends the read as visit_in_slot() does. */
static OUT_OF_LINE void visit_nested(struct read read, aside_visit_fn *fn, void *ctx)
{
    aside_value *value = entry_handle(read.entry);
    read_end(&read);
    visit_counted(value, fn, ctx);
}

/* The slot keeps the entry, so the epoch can go on during the callback. */
static HOT_INLINE void visit_in_slot(const struct read *read, aside_visit_fn *fn, void *ctx)
{
    struct thread_record *self = read->self;
    unsigned slot = self->visits++;
    store_relaxed(&self->visiting[slot], read->entry);
    read_end(read);
    fn(entry_data(read->entry), entry_size(read->entry), ctx);
    store_release(&self->visiting[slot], NULL);
    self->visits = slot;
    if (unlikely(self->orphans))
        cache_free_orphans(self);
}

aside_status aside_visit(aside_cache *cache, const void *key, size_t key_len, aside_visit_fn *fn,
                         void *ctx)
{
    if (!cache_is(cache) || !cache_is_key(key, key_len) || !fn)
        return ASIDE_E_INVALID;
    struct read read = {.self = thread_self()};
    if (unlikely(!read.self))
        return visit_locked(cache, key, key_len, fn, ctx);
    if (unlikely(!read_begin(cache, key, key_len, &read))) {
        read_end(&read);
        return plain_miss(cache, read, key, key_len);
    }
    read_hit(cache, &read);
    if (likely(read.self->visits < THREAD_VISITS))
        visit_in_slot(&read, fn, ctx);
    else
        visit_nested(read, fn, ctx);
    return ASIDE_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* False: not a ttl. */
static bool ttl_of(const aside_cache *cache, int64_t *ttl_ms)
{
    if (*ttl_ms == ASIDE_DEFAULT_TTL)
        *ttl_ms = cache->default_ttl_ms;
    return *ttl_ms >= 0;
}

static bool is_write(const aside_cache *cache, const void *key, size_t key_len)
{
    return cache_is(cache) && cache_is_key(key, key_len);
}

static void count_write(aside_cache *cache, aside_status status, enum counter counter)
{
    if (status == ASIDE_OK)
        cache_count(cache, thread_self(), counter);
}

static aside_status drop(aside_cache *cache, const void *key, size_t key_len, enum store_drop how)
{
    struct cache_call call;
    cache_enter(cache, &call);
    aside_status status = store_drop(&cache->store, cache_hash(cache, key, key_len), key, key_len,
                                     how, cache_now(cache));
    count_write(cache, status, how == STORE_DELETE ? COUNTER_deletes : COUNTER_expires);
    cache_exit(&call);
    return status;
}

/* Takes the entry, whatever comes of it. */
static aside_status put(aside_cache *cache, const void *key, size_t key_len, struct entry *entry,
                        enum shard_put how, int64_t ttl_ms)
{
    if (!entry)
        return ASIDE_E_NOMEM;
    struct cache_call call;
    cache_enter(cache, &call);
    int64_t now_ns = cache_now(cache);
    entry_set_times(entry, now_ns, clock_after_ms(now_ns, ttl_ms), 0);
    aside_status status =
        store_put(&cache->store, cache_hash(cache, key, key_len), entry, how, now_ns);
    if (status != ASIDE_OK)
        entry_discard(entry);
    if (status < 0 && status != ASIDE_E_CLOSED)
        cache_count(cache, call.self, COUNTER_store_refused);
    count_write(cache, status, COUNTER_sets);
    cache_exit(&call);
    return status;
}

/* ttl 0: nothing is stored. For set that is a deletion; add only looks. */
static aside_status put_nothing(aside_cache *cache, const void *key, size_t key_len,
                                enum shard_put how)
{
    aside_value *value = NULL;
    if (how == SHARD_SET) {
        aside_status status = drop(cache, key, key_len, STORE_DELETE);
        return status == ASIDE_MISS ? ASIDE_OK : status;
    }
    if (!cache_is_open(cache))
        return ASIDE_E_CLOSED;
    aside_status status = read_locked(cache, key, key_len, &value);
    aside_value_unref(value);
    return status == ASIDE_OK ? ASIDE_EXISTS : status == ASIDE_MISS ? ASIDE_OK : status;
}

static aside_status put_copy(aside_cache *cache, const void *key, size_t key_len, const void *data,
                             size_t size, int64_t ttl_ms, enum shard_put how)
{
    if (!is_write(cache, key, key_len) || (!data && size) || !ttl_of(cache, &ttl_ms))
        return ASIDE_E_INVALID;
    if (ttl_ms == 0)
        return put_nothing(cache, key, key_len, how);
    if (!cache_is_open(cache))
        return ASIDE_E_CLOSED;
    size_t charge;
    if (size > ENTRY_MAX_VALUE || !entry_charge_of(key_len, size, &charge) ||
        charge > cache->store.budget.max_bytes) {
        cache_count(cache, thread_self(), COUNTER_store_refused);
        return ASIDE_E_TOO_LARGE;
    }
    struct entry *entry = entry_new(cache->home, key, key_len, size);
    if (entry && size)
        memcpy(entry->bytes + entry_value_offset(entry), data, size);
    return put(cache, key, key_len, entry, how, ttl_ms);
}

aside_status aside_set(aside_cache *cache, const void *key, size_t key_len, const void *data,
                       size_t size, int64_t ttl_ms)
{
    return put_copy(cache, key, key_len, data, size, ttl_ms, SHARD_SET);
}

aside_status aside_add(aside_cache *cache, const void *key, size_t key_len, const void *data,
                       size_t size, int64_t ttl_ms)
{
    return put_copy(cache, key, key_len, data, size, ttl_ms, SHARD_ADD);
}

aside_status aside_set_value(aside_cache *cache, const void *key, size_t key_len,
                             aside_value *value, int64_t ttl_ms)
{
    if (!is_write(cache, key, key_len) || !value || !ttl_of(cache, &ttl_ms))
        return ASIDE_E_INVALID;
    if (ttl_ms == 0)
        return put_nothing(cache, key, key_len, SHARD_SET);
    if (!cache_is_open(cache))
        return ASIDE_E_CLOSED;
    return put(cache, key, key_len, entry_new_wrapping(cache->home, key, key_len, value), SHARD_SET,
               ttl_ms);
}

aside_status aside_delete(aside_cache *cache, const void *key, size_t key_len)
{
    return is_write(cache, key, key_len) ? drop(cache, key, key_len, STORE_DELETE)
                                         : ASIDE_E_INVALID;
}

aside_status aside_expire(aside_cache *cache, const void *key, size_t key_len)
{
    return is_write(cache, key, key_len) ? drop(cache, key, key_len, STORE_EXPIRE)
                                         : ASIDE_E_INVALID;
}

aside_status aside_touch(aside_cache *cache, const void *key, size_t key_len, int64_t ttl_ms)
{
    if (!is_write(cache, key, key_len) || !ttl_of(cache, &ttl_ms))
        return ASIDE_E_INVALID;
    if (ttl_ms == 0)
        return drop(cache, key, key_len, STORE_DELETE);
    struct cache_call call;
    cache_enter(cache, &call);
    int64_t now_ns = cache_now(cache);
    aside_status status = store_touch(&cache->store, cache_hash(cache, key, key_len), key, key_len,
                                      now_ns, clock_after_ms(now_ns, ttl_ms));
    count_write(cache, status, COUNTER_touches);
    cache_exit(&call);
    return status;
}

/* ---- the whole cache ------------------------------------------------------------------------- */

aside_status aside_clear(aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    if (!cache_is_open(cache))
        return ASIDE_E_CLOSED;
    struct cache_call call;
    cache_enter(cache, &call);
    cache_count(cache, call.self, COUNTER_clears);
    store_clear(&cache->store, false, cache_now(cache));
    if (cache->reaper.exists)
        reaper_wake(&cache->reaper, true);
    else
        store_dismantle(&cache->store);
    cache_exit(&call);
    return ASIDE_OK;
}

size_t aside_count(const aside_cache *cache)
{
    return cache_is(cache) ? load_relaxed(&cache->store.budget.entries) : 0;
}

aside_status aside_reap(aside_cache *cache, size_t budget, size_t *reaped)
{
    if (reaped)
        *reaped = 0;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    if (!cache_is_open(cache))
        return ASIDE_E_CLOSED;
    struct cache_call call;
    cache_enter(cache, &call);
    size_t removed = store_reap(&cache->store, cache_now(cache), budget);
    cache_exit(&call);
    if (reaped)
        *reaped = removed;
    return ASIDE_OK;
}
