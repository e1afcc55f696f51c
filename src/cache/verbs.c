/*
 * cache/verbs -- the plain verbs: get, copy, visit, set and its kin, clear, count, reap.
 */
#include "base/clock.h"
#include "cache/read.h"

#include <pthread.h>
#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

/* What is no hit counts as ok + 1, no value, or as ok + 2, an error. */
static OUT_OF_LINE aside_status plain_end(aside_cache *cache, struct thread_record *self,
                                          unsigned ok, aside_status status)
{
    if (cache_is(cache))
        cache_count(cache, self, counter_of(ok, status));
    return status;
}

static OUT_OF_LINE aside_status plain_refuse(aside_cache *cache, unsigned ok)
{
    return plain_end(cache, thread_self(), ok, ASIDE_E_INVALID);
}

static OUT_OF_LINE aside_status plain_miss(aside_cache *cache, struct read read, const void *key,
                                           size_t key_len, unsigned ok)
{
    if (!cache_is_open(cache))
        return plain_end(cache, read.self, ok, ASIDE_E_CLOSED);
    (void)plain_end(cache, read.self, ok, ASIDE_MISS);
    if (read.entry)
        read_remove(cache, read, key, key_len);
    return ASIDE_MISS;
}

static OUT_OF_LINE aside_status plain_read_locked(aside_cache *cache, const void *key,
                                                  size_t key_len, aside_value **value, unsigned ok)
{
    return plain_end(cache, NULL, ok, read_locked(cache, key, key_len, value));
}

static OUT_OF_LINE aside_status get_rare(aside_cache *cache, struct read read, const void *key,
                                         size_t key_len, aside_value **value)
{
    *value = read_rare(cache, read, key, key_len);
    if (*value)
        return plain_end(cache, read.self, COUNTER_get_ok, ASIDE_OK);
    return plain_miss(cache, read, key, key_len, COUNTER_get_ok);
}

aside_status aside_get(aside_cache *cache, const void *key, size_t key_len, aside_value **value)
{
    if (value)
        *value = NULL;
    if (!value || !cache_is(cache) || !cache_is_key(key, key_len))
        return plain_refuse(cache, COUNTER_get_ok);
    struct read read = {.self = thread_self()};
    if (unlikely(!read.self))
        return plain_read_locked(cache, key, key_len, value, COUNTER_get_ok);
    if (likely(read_begin(cache, key, key_len, &read))) {
        *value = entry_handle(read.entry);
        read_hit(cache, &read, COUNTER_get_ok);
        read_end(&read);
        read_offer(cache, &read);
        return ASIDE_OK;
    }
    read_end(&read);
    if (unlikely(read.entry != NULL))
        return get_rare(cache, read, key, key_len, value);
    return plain_miss(cache, read, key, key_len, COUNTER_get_ok);
}

/* A call costs as much as copying a short value. By words of general registers: whoever reads the
 * copy at once, as most do, would wait longer for the wider ones. */
static HOT_INLINE void copy_bytes(char *to, const char *from, size_t size)
{
    if (size < 8 || size > 256) {
        memcpy(to, from, size);
        return;
    }
    size_t at = 0;
    for (; at + 32 <= size; at += 32) {
        memcpy(to + at, from + at, 8);
        memcpy(to + at + 8, from + at + 8, 8);
        memcpy(to + at + 16, from + at + 16, 8);
        memcpy(to + at + 24, from + at + 24, 8);
    }
    for (; at + 8 <= size; at += 8)
        memcpy(to + at, from + at, 8);
    if (at < size)
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

/* A value that was there, but too large for the buffer, is a hit and an error. */
static void count_copy(aside_cache *cache, struct thread_record *self, aside_status status)
{
    if (unlikely(status == ASIDE_E_BUFFER))
        cache_count(cache, self, COUNTER_hits);
    cache_count(cache, self, counter_of(COUNTER_copy_ok, status));
}

static aside_status copy_value(aside_cache *cache, struct thread_record *self, aside_value *value,
                               void *buffer, size_t capacity, size_t *size)
{
    aside_status status =
        copy_out(aside_value_data(value), aside_value_size(value), buffer, capacity, size);
    count_copy(cache, self, status);
    aside_value_unref(value);
    return status;
}

static OUT_OF_LINE aside_status copy_locked(aside_cache *cache, const void *key, size_t key_len,
                                            void *buffer, size_t capacity, size_t *size)
{
    aside_value *value;
    if (size)
        *size = 0;
    aside_status status = read_locked(cache, key, key_len, &value);
    if (status == ASIDE_OK)
        return copy_value(cache, NULL, value, buffer, capacity, size);
    count_copy(cache, NULL, status);
    return status;
}

static OUT_OF_LINE aside_status copy_rare(aside_cache *cache, struct read read, const void *key,
                                          size_t key_len, void *buffer, size_t capacity,
                                          size_t *size)
{
    aside_value *value = read_rare(cache, read, key, key_len);
    if (value)
        return copy_value(cache, read.self, value, buffer, capacity, size);
    if (size)
        *size = 0;
    return plain_miss(cache, read, key, key_len, COUNTER_copy_ok);
}

aside_status aside_copy(aside_cache *cache, const void *key, size_t key_len, void *buffer,
                        size_t capacity, size_t *size)
{
    if (unlikely(!cache_is(cache) || !cache_is_key(key, key_len) || (!buffer && capacity))) {
        if (size)
            *size = 0;
        return plain_refuse(cache, COUNTER_copy_ok);
    }
    struct read read = {.self = thread_self()};
    if (unlikely(!read.self))
        return copy_locked(cache, key, key_len, buffer, capacity, size);
    if (likely(read_begin(cache, key, key_len, &read))) {
        aside_status status = copy_out(entry_data_behind(read.entry, key_len),
                                       entry_size(read.entry), buffer, capacity, size);
        read_use(cache, &read);
        count_copy(cache, read.self, status);
        read_end(&read);
        read_offer(cache, &read);
        return status;
    }
    read_end(&read);
    if (unlikely(read.entry != NULL))
        return copy_rare(cache, read, key, key_len, buffer, capacity, size);
    if (size)
        *size = 0;
    return plain_miss(cache, read, key, key_len, COUNTER_copy_ok);
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
    aside_status status = plain_read_locked(cache, key, key_len, &value, COUNTER_visit_ok);
    if (status == ASIDE_OK)
        visit_counted(value, fn, ctx);
    return status;
}

static OUT_OF_LINE aside_status visit_rare(aside_cache *cache, struct read read, const void *key,
                                           size_t key_len, aside_visit_fn *fn, void *ctx)
{
    aside_value *value = read_rare(cache, read, key, key_len);
    if (!value)
        return plain_miss(cache, read, key, key_len, COUNTER_visit_ok);
    (void)plain_end(cache, read.self, COUNTER_visit_ok, ASIDE_OK);
    visit_counted(value, fn, ctx);
    return ASIDE_OK;
}

/* All slots are in use: ends the read as visit_in_slot() does. */
static OUT_OF_LINE void visit_nested(struct read read, aside_visit_fn *fn, void *ctx)
{
    aside_value *value = entry_handle(read.entry);
    read_end(&read);
    visit_counted(value, fn, ctx);
}

/* The slot keeps the entry, so the epoch can go on during the callback. */
static HOT_INLINE void visit_in_slot(const struct read *read, size_t key_len, aside_visit_fn *fn,
                                     void *ctx)
{
    struct thread_record *self = read->self;
    unsigned slot = self->visits++;
    store_relaxed(&self->visiting[slot], read->entry);
    read_end(read);
    fn(entry_data_behind(read->entry, key_len), entry_size(read->entry), ctx);
    store_release(&self->visiting[slot], NULL);
    self->visits = slot;
    if (unlikely(self->orphans))
        host_free_orphans(self);
}

aside_status aside_visit(aside_cache *cache, const void *key, size_t key_len, aside_visit_fn *fn,
                         void *ctx)
{
    if (!cache_is(cache) || !cache_is_key(key, key_len) || !fn)
        return plain_refuse(cache, COUNTER_visit_ok);
    struct read read = {.self = thread_self()};
    if (unlikely(!read.self))
        return visit_locked(cache, key, key_len, fn, ctx);
    if (unlikely(!read_begin(cache, key, key_len, &read))) {
        read_end(&read);
        if (read.entry)
            return visit_rare(cache, read, key, key_len, fn, ctx);
        return plain_miss(cache, read, key, key_len, COUNTER_visit_ok);
    }
    read_offer(cache, &read); /* here, since fn may end the thread, or the cache */
    read_hit(cache, &read, COUNTER_visit_ok);
    if (likely(read.self->visits < THREAD_VISITS))
        visit_in_slot(&read, key_len, fn, ctx);
    else
        visit_nested(read, fn, ctx);
    return ASIDE_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* False: not a ttl. A cache that is disabled stores nothing. */
static bool ttl_of(const aside_cache *cache, int64_t *ttl_ms)
{
    if (*ttl_ms == ASIDE_DEFAULT_TTL)
        *ttl_ms = cache->default_ttl_ms;
    bool is_ttl = *ttl_ms >= 0;
    if (cache->disabled)
        *ttl_ms = 0;
    return is_ttl;
}

/* Round every write, whatever it comes to. */
static void begin_write(aside_cache *cache, struct host_call *call)
{
    host_enter(&cache->host, call);
    cache_revive(cache);
}

static aside_status end_write(aside_cache *cache, const struct host_call *call, unsigned ok,
                              aside_status status)
{
    cache_count(cache, call->self, counter_of(ok, status));
    host_exit(call);
    return status;
}

static void count_write(aside_cache *cache, aside_status status, enum counter counter)
{
    if (status == ASIDE_OK)
        cache_count(cache, thread_self(), counter);
}

static aside_status drop(aside_cache *cache, const void *key, size_t key_len, enum store_drop how)
{
    aside_status status = store_drop(&cache->store, cache_hash(cache, key, key_len), key, key_len,
                                     how, cache_now(cache));
    count_write(cache, status, how == STORE_DELETE ? COUNTER_deletes : COUNTER_expires);
    return status;
}

/* What entries are made as that callers store. */
static unsigned marks_of(const aside_cache *cache)
{
    return cache->rare ? ENTRY_RARE : 0;
}

static OUT_OF_LINE void set_rare_life(const aside_cache *cache, struct entry *entry, int64_t now_ns,
                                      int64_t expires_ns)
{
    struct entry_life life = cache_life(&cache->rules, now_ns, expires_ns, 0);
    entry_set_life(entry, &life);
}

/* Takes the entry, whatever comes of it. */
static aside_status put(aside_cache *cache, const void *key, size_t key_len, struct entry *entry,
                        enum shard_put how, int64_t ttl_ms)
{
    if (!entry) {
        cache_count(cache, thread_self(), COUNTER_store_refused);
        return ASIDE_E_NOMEM;
    }
    int64_t now_ns = cache_now(cache);
    int64_t expires_ns = cache_expiry(cache, &cache->jitter, now_ns, ttl_ms);
    if (likely(!cache->rare))
        entry_set_times(entry, now_ns, expires_ns, 0);
    else
        set_rare_life(cache, entry, now_ns, expires_ns);
    aside_status status =
        store_put(&cache->store, cache_hash(cache, key, key_len), entry, how, now_ns);
    if (status != ASIDE_OK)
        entry_discard(entry);
    if (status < 0 && status != ASIDE_E_CLOSED)
        cache_count(cache, thread_self(), COUNTER_store_refused);
    count_write(cache, status, COUNTER_sets);
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
    if (!cache_is_key(key, key_len) || (!data && size) || !ttl_of(cache, &ttl_ms))
        return ASIDE_E_INVALID;
    if (ttl_ms == 0)
        return put_nothing(cache, key, key_len, how);
    if (cache_is_closed(cache))
        return ASIDE_E_CLOSED;
    size_t charge;
    if (size > ENTRY_MAX_VALUE || !entry_charge_of(cache->host.home, key_len, size, &charge) ||
        charge > cache->store.budget.max_bytes) {
        cache_count(cache, thread_self(), COUNTER_store_refused);
        return ASIDE_E_TOO_LARGE;
    }
    struct entry *entry = entry_new_marked(cache->host.home, marks_of(cache), key, key_len, size);
    if (entry && size)
        memcpy(entry->bytes + entry_value_offset(entry), data, size);
    return put(cache, key, key_len, entry, how, ttl_ms);
}

static aside_status put_value(aside_cache *cache, const void *key, size_t key_len,
                              aside_value *value, int64_t ttl_ms)
{
    if (!cache_is_key(key, key_len) || !value || !ttl_of(cache, &ttl_ms))
        return ASIDE_E_INVALID;
    if (ttl_ms == 0)
        return put_nothing(cache, key, key_len, SHARD_SET);
    if (cache_is_closed(cache))
        return ASIDE_E_CLOSED;
    struct entry *entry =
        entry_new_wrapping_marked(cache->host.home, marks_of(cache), key, key_len, value);
    return put(cache, key, key_len, entry, SHARD_SET, ttl_ms);
}

static aside_status touch(aside_cache *cache, const void *key, size_t key_len, int64_t ttl_ms)
{
    bool drops = ttl_ms == 0;
    if (!cache_is_key(key, key_len) || !ttl_of(cache, &ttl_ms))
        return ASIDE_E_INVALID;
    if (drops)
        return drop(cache, key, key_len, STORE_DELETE);
    int64_t now_ns = cache_now(cache);
    aside_status status = store_touch(&cache->store, cache_hash(cache, key, key_len), key, key_len,
                                      now_ns, cache_expiry(cache, &cache->jitter, now_ns, ttl_ms));
    count_write(cache, status, COUNTER_touches);
    return status;
}

static aside_status clear(aside_cache *cache)
{
    if (cache_is_closed(cache))
        return ASIDE_E_CLOSED;
    store_clear(&cache->store, false, cache_now(cache));
    aside_status status = cache_is_open(cache) ? ASIDE_OK : ASIDE_E_CLOSED;
    count_write(cache, status, COUNTER_clears);
    if (reaper_exists(&cache->reaper))
        reaper_wake(&cache->reaper, true);
    else
        store_dismantle(&cache->store);
    return status;
}

static aside_status delete_tag(aside_cache *cache, const void *tag, size_t tag_len)
{
    if (tag_len > ASIDE_MAX_TAG || (!tag && tag_len))
        return ASIDE_E_INVALID;
    if (cache_is_closed(cache))
        return ASIDE_E_CLOSED;
    aside_status status = tags_invalidate(&cache->store.tags, tag, tag_len);
    return cache_is_open(cache) ? status : ASIDE_E_CLOSED;
}

aside_status aside_delete_tag(aside_cache *cache, const void *tag, size_t tag_len)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    return end_write(cache, &call, COUNTER_delete_tag_ok, delete_tag(cache, tag, tag_len));
}

aside_status aside_set(aside_cache *cache, const void *key, size_t key_len, const void *data,
                       size_t size, int64_t ttl_ms)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    aside_status status = put_copy(cache, key, key_len, data, size, ttl_ms, SHARD_SET);
    return end_write(cache, &call, COUNTER_set_ok, status);
}

aside_status aside_add(aside_cache *cache, const void *key, size_t key_len, const void *data,
                       size_t size, int64_t ttl_ms)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    aside_status status = put_copy(cache, key, key_len, data, size, ttl_ms, SHARD_ADD);
    return end_write(cache, &call, COUNTER_add_ok, status);
}

aside_status aside_set_value(aside_cache *cache, const void *key, size_t key_len,
                             aside_value *value, int64_t ttl_ms)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    aside_status status = put_value(cache, key, key_len, value, ttl_ms);
    return end_write(cache, &call, COUNTER_set_ok, status);
}

static aside_status drop_counted(aside_cache *cache, const void *key, size_t key_len,
                                 enum store_drop how, unsigned ok)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    aside_status status =
        cache_is_key(key, key_len) ? drop(cache, key, key_len, how) : ASIDE_E_INVALID;
    return end_write(cache, &call, ok, status);
}

aside_status aside_delete(aside_cache *cache, const void *key, size_t key_len)
{
    return drop_counted(cache, key, key_len, STORE_DELETE, COUNTER_delete_ok);
}

aside_status aside_expire(aside_cache *cache, const void *key, size_t key_len)
{
    return drop_counted(cache, key, key_len, STORE_EXPIRE, COUNTER_expire_ok);
}

aside_status aside_touch(aside_cache *cache, const void *key, size_t key_len, int64_t ttl_ms)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    return end_write(cache, &call, COUNTER_touch_ok, touch(cache, key, key_len, ttl_ms));
}

/* ---- the whole cache ------------------------------------------------------------------------- */

aside_status aside_clear(aside_cache *cache)
{
    struct host_call call;
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    begin_write(cache, &call);
    return end_write(cache, &call, COUNTER_clear_ok, clear(cache));
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
    struct host_call call;
    host_enter(&cache->host, &call);
    cache_revive(cache);
    size_t removed = store_reap(&cache->store, cache_now(cache), budget);
    host_exit(&call);
    if (reaped)
        *reaped = removed;
    return ASIDE_OK;
}
