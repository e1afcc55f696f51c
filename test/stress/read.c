/*
 * read.c -- readers without a lock, while what they read is overwritten, dropped, moved and freed.
 */
#include "stress.h"

#define READERS 3
#define WRITERS 2

/* A second cache in which entries come and go, so that the epoch moves on whatever the first one does. */
static void epoch_pump(aside_cache *pump)
{
    for (uint64_t key = 0; key < 4; key++)
        (void)stamp_set(pump, key, 1, ASIDE_FOREVER);
    CHECK_STATUS(aside_reap(pump, 1, NULL), ASIDE_OK);
}

/* ---- get_racing_delete_eviction_growth ----------------------------------------------------------- */

#define SHARED_KEYS 6
#define HELD 3
#define FIRST_ARRAYS 8192 /* more than the first bucket arrays of all shards come to */

/* Each key has one writer, so the versions that its readers see never go back. */
struct churn {
    aside_cache *cache, *pump;
    uint64_t next_key; /* that nobody has used yet, for growth and eviction */
    _Atomic uint64_t version[SHARED_KEYS];
    _Atomic uint64_t floor[SHARED_KEYS];
};

struct seen {
    uint64_t key, version;
};

static void seen_by_visit(const void *data, size_t size, void *ctx)
{
    struct seen *seen = ctx;
    seen->version = stamp_read(data, size, seen->key);
    for (int i = 0; i < 2; i++) {
        sched_yield();
        CHECK_INT(stamp_read(data, size, seen->key), seen->version);
    }
}

/* One read without a handle; its version, or 0 for a miss. */
static uint64_t churn_look(aside_cache *cache, uint64_t key)
{
    struct seen seen = {key, 0};
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    aside_status status;
    if (test_random() % 2) {
        status = aside_copy(cache, &key, sizeof key, bytes, sizeof bytes, &size);
        if (status == ASIDE_OK)
            seen.version = stamp_read(bytes, size, key);
    } else {
        status = aside_visit(cache, &key, sizeof key, seen_by_visit, &seen);
    }
    CHECK(status == ASIDE_OK || status == ASIDE_MISS);
    return seen.version;
}

/* A handle that is kept for a while: its bytes stay what they were. */
struct held {
    struct seen seen;
    aside_value *value;
};

static void held_drop(struct held *held)
{
    if (held->value)
        CHECK_INT(stamp_of_value(held->value, held->seen.key), held->seen.version);
    aside_value_unref(held->value);
    held->value = NULL;
}

static uint64_t held_take(struct held *held, aside_cache *cache, uint64_t key)
{
    held_drop(held);
    aside_status status = aside_get(cache, &key, sizeof key, &held->value);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS);
    held->seen = (struct seen){key, held->value ? stamp_of_value(held->value, key) : 0};
    return held->seen.version;
}

static void churn_read(struct churn *churn)
{
    struct held held[HELD] = {{{0, 0}, NULL}};
    for (int i = 0; i < 18; i++) {
        uint64_t key = test_random() % SHARED_KEYS;
        uint64_t floor = atomic_load(&churn->floor[key]);
        uint64_t version = i % 3 == 0 ? held_take(&held[test_random() % HELD], churn->cache, key)
                                      : churn_look(churn->cache, key);
        if (!version)
            continue;
        CHECK(version >= floor);
        raise_to(&churn->floor[key], version);
    }
    for (int i = 0; i < HELD; i++)
        held_drop(&held[i]);
}

/* Bytes inside the entry, or in a value of their own that it refers to. */
static aside_status churn_set(aside_cache *cache, uint64_t key, uint64_t version)
{
    unsigned char bytes[STAMP_MOST];
    aside_value *value = NULL;
    if (version % 2)
        return stamp_set(cache, key, version, ASIDE_FOREVER);
    size_t size = stamp_write(bytes, key, version);
    CHECK_STATUS(aside_value_copy(bytes, size, &value), ASIDE_OK);
    aside_status status = aside_set_value(cache, &key, sizeof key, value, ASIDE_FOREVER);
    aside_value_unref(value);
    return status;
}

static void churn_write(struct churn *churn, int writer)
{
    uint64_t fresh = churn->next_key + (uint64_t)writer * 1000;
    for (int i = 0; i < 12; i++) {
        uint64_t key = test_random() % (SHARED_KEYS / WRITERS) * WRITERS + (uint64_t)writer;
        uint64_t version = atomic_fetch_add(&churn->version[key], 1) + 1;
        aside_status status = test_random() % 4 == 0 ? aside_delete(churn->cache, &key, sizeof key)
                                                     : churn_set(churn->cache, key, version);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_BUSY);
        if (status != ASIDE_E_BUSY)
            raise_to(&churn->floor[key], version);
        status = stamp_set(churn->cache, fresh++, 1, test_random() % 2 ? 1 : ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        if (test_random() % 8 == 0)
            CHECK_STATUS(aside_reap(churn->cache, 0, NULL), ASIDE_OK);
        if (test_random() % 64 == 0)
            CHECK_STATUS(aside_clear(churn->cache), ASIDE_OK);
    }
}

static void churn_work(void *scenario, int self)
{
    struct churn *churn = scenario;
    if (self < READERS)
        churn_read(churn);
    else if (self < READERS + WRITERS)
        churn_write(churn, self - READERS);
    else
        for (int i = 0; i < 4; i++)
            epoch_pump(churn->pump);
}

TEST(get_racing_delete_eviction_growth)
{
    struct ground ground;
    struct pool pool;
    static struct churn churn;
    const size_t most_entries[] = {0, 48, 16, 0}; /* growth without eviction, and with it */
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)64 << 10; /* one shard */
    churn.pump = cache_open(&options);
    churn.next_key = 1000000;
    pool_open(&pool, READERS + WRITERS + 1, churn_work, &churn);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        if (round % 4 == 0) { /* growth begins anew */
            options.max_entries = most_entries[round / 4 % 4];
            options.max_bytes = round / 4 % 4 == 3 ? (size_t)1 << 20 : (size_t)128 << 10;
            churn.cache = cache_open(&options);
        }
        churn.next_key += 10000;
        pool_round(&pool);
        if (options.max_entries)
            CHECK(aside_count(churn.cache) <= options.max_entries);
        CHECK(STAT(churn.cache, bytes) <= options.max_bytes);
        if (round % 4 == 3 || round + 1 == test_rounds(ROUNDS)) {
            CHECK_STATUS(aside_clear(churn.cache), ASIDE_OK);
            CHECK_INT(aside_count(churn.cache), 0);
            CHECK(STAT(churn.cache, bytes) <= FIRST_ARRAYS);
            CHECK_INT(STAT(churn.cache, pinned_bytes), 0);
            cache_end(churn.cache);
        }
    }
    pool_close(&pool);
    cache_end(churn.pump);
    ground_end(&ground);
}

/* ---- growth_never_hides_a_key -------------------------------------------------------------------- */

#define LASTING 8
#define GROWN 40

struct growing {
    aside_cache *cache;
};

static void growing_work(void *scenario, int self)
{
    struct growing *growing = scenario;
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    for (uint64_t i = 0; i < GROWN; i++) {
        if (self == 0) {
            CHECK_STATUS(stamp_set(growing->cache, 1000 + i, 1, ASIDE_FOREVER), ASIDE_OK);
            CHECK_STATUS(stamp_set(growing->cache, i % LASTING, 1, ASIDE_FOREVER), ASIDE_OK);
            continue;
        }
        uint64_t key = test_random() % LASTING;
        CHECK_STATUS(aside_copy(growing->cache, &key, sizeof key, bytes, sizeof bytes, &size),
                     ASIDE_OK);
        CHECK_INT(stamp_read(bytes, size, key), 1);
    }
}

TEST(growth_never_hides_a_key)
{
    struct ground ground;
    struct pool pool;
    struct growing growing;
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)256 << 10; /* one shard */
    pool_open(&pool, 4, growing_work, &growing);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        growing.cache = cache_open(&options);
        for (uint64_t key = 0; key < LASTING; key++)
            CHECK_STATUS(stamp_set(growing.cache, key, 1, ASIDE_FOREVER), ASIDE_OK);
        pool_round(&pool);
        CHECK_INT(aside_count(growing.cache), GROWN + LASTING);
        cache_end(growing.cache);
    }
    pool_close(&pool);
    ground_end(&ground);
}

/* ---- a_tag_is_not_a_key -------------------------------------------------------------------------- */

/* Keys that nobody has set: some share bucket and tag with one that is there, and all of them miss. */
TEST(a_tag_is_not_a_key)
{
    struct ground ground;
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)256 << 10; /* one shard */
    aside_cache *cache = cache_open(&options);
    for (uint64_t key = 0; key < 400; key++)
        CHECK_STATUS(stamp_set(cache, key, 1, ASIDE_FOREVER), ASIDE_OK);
    for (uint64_t key = 1000000; key < 1200000; key++) { /* a dozen of them are expected to */
        aside_value *value = NULL;
        CHECK_STATUS(aside_get(cache, &key, sizeof key, &value), ASIDE_MISS);
    }
    cache_end(cache);
    ground_end(&ground);
}

/* ---- first_writes_all_succeed -------------------------------------------------------------------- */

/* Everybody's first write to an empty shard: each wants the first array of buckets, one makes it. */
struct first {
    aside_cache *cache;
};

static void first_work(void *scenario, int self)
{
    struct first *first = scenario;
    for (uint64_t i = 0; i < 4; i++)
        CHECK_STATUS(stamp_set(first->cache, (uint64_t)self * 4 + i, 1, ASIDE_FOREVER), ASIDE_OK);
}

TEST(first_writes_all_succeed)
{
    struct ground ground;
    struct pool pool;
    struct first first;
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)512 << 10;
    pool_open(&pool, 4, first_work, &first);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        first.cache = cache_open(&options);
        pool_round(&pool);
        CHECK_INT(aside_count(first.cache), 16);
        cache_end(first.cache);
    }
    pool_close(&pool);
    ground_end(&ground);
}

/* ---- visit_pins ---------------------------------------------------------------------------------- */

#define DEPTH 6 /* more than a thread has slots for */
#define PINNED_KEYS 4

struct pinning {
    aside_cache *cache, *pump;
    uint64_t version;
};

struct visit {
    aside_cache *cache;
    uint64_t key;
    int depth;
};

static void visit_deeper(const void *data, size_t size, void *ctx)
{
    const struct visit *visit = ctx;
    uint64_t version = stamp_read(data, size, visit->key);
    if (visit->depth < DEPTH) {
        struct visit inner = {visit->cache, test_random() % PINNED_KEYS, visit->depth + 1};
        aside_status status =
            aside_visit(visit->cache, &inner.key, sizeof inner.key, visit_deeper, &inner);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS);
    }
    for (int i = 0; i < 3; i++) {
        sched_yield();
        CHECK_INT(stamp_read(data, size, visit->key), version);
    }
    /* A second visit, one after the other, must not take the place of the outer ones. */
    struct visit second = {visit->cache, test_random() % PINNED_KEYS, DEPTH};
    if (visit->depth < DEPTH)
        check_read(
            aside_visit(visit->cache, &second.key, sizeof second.key, visit_deeper, &second));
    CHECK_INT(stamp_read(data, size, visit->key), version);
}

static void pinning_write(struct pinning *pinning, int self)
{
    for (int i = 0; i < 12; i++) {
        uint64_t key = test_random() % PINNED_KEYS;
        unsigned what = (unsigned)(test_random() % 16);
        aside_status status = ASIDE_OK;
        if (what == 0)
            status = aside_clear(pinning->cache);
        else if (what < 3)
            status = aside_delete(pinning->cache, &key, sizeof key);
        else
            status = stamp_set(pinning->cache, key, pinning->version + (uint64_t)(self * 100 + i),
                               ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_BUSY);
        CHECK_STATUS(aside_reap(pinning->cache, 0, NULL),
                     ASIDE_OK); /* free what may be freed, now */
    }
}

static void pinning_work(void *scenario, int self)
{
    struct pinning *pinning = scenario;
    if (self < 2) {
        for (int i = 0; i < 4; i++) {
            struct visit visit = {pinning->cache, test_random() % PINNED_KEYS, 1};
            check_read(
                aside_visit(pinning->cache, &visit.key, sizeof visit.key, visit_deeper, &visit));
        }
    } else if (self < 4) {
        pinning_write(pinning, self);
    } else {
        for (int i = 0; i < 4; i++)
            epoch_pump(pinning->pump);
    }
}

TEST(visit_pins)
{
    struct ground ground;
    struct pool pool;
    static struct pinning pinning;
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)256 << 10; /* one shard */
    pinning.cache = cache_open(&options);
    pinning.pump = cache_open(&options);
    pool_open(&pool, 5, pinning_work, &pinning);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        pinning.version += 1000;
        for (uint64_t key = 0; key < PINNED_KEYS; key++)
            CHECK_STATUS(stamp_set(pinning.cache, key, pinning.version, ASIDE_FOREVER), ASIDE_OK);
        pool_round(&pool);
        /* No visit goes on: nothing is pinned by one any more. */
        for (int i = 0; i < 8; i++)
            CHECK_STATUS(aside_reap(pinning.cache, 0, NULL), ASIDE_OK);
        CHECK_INT(STAT(pinning.cache, pinned_bytes), 0);
        CHECK_INT(STAT(pinning.cache, limbo_bytes), 0);
    }
    pool_close(&pool);
    cache_end(pinning.cache);
    cache_end(pinning.pump);
    ground_end(&ground);
}

/* ---- limbo_stays_within_its_cap ------------------------------------------------------------------ */

#define LARGE 4096
#define LIMBO_CAP (32768 + 2 * LARGE) /* an eighth of the cache, and what was let in last */

/* Large values are overwritten faster than whole batches of them come together. */
static void limbo_work(void *scenario, int self)
{
    struct growing *growing = scenario;
    static unsigned char large[LARGE];
    unsigned char bytes[LARGE];
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t key = test_random() % 4;
        aside_status status =
            self == 0 ? aside_copy(growing->cache, &key, sizeof key, bytes, sizeof bytes, NULL)
                      : aside_set(growing->cache, &key, sizeof key, large, LARGE, ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_BUSY);
        CHECK(STAT(growing->cache, limbo_bytes) <= LIMBO_CAP);
    }
}

TEST(limbo_stays_within_its_cap)
{
    struct ground ground;
    struct pool pool;
    struct growing growing;
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)256 << 10; /* one shard */
    growing.cache = cache_open(&options);
    pool_open(&pool, 3, limbo_work, &growing);
    for (long round = 0; round < test_rounds(ROUNDS); round++)
        pool_round(&pool);
    pool_close(&pool);
    cache_end(growing.cache);
    ground_end(&ground);
}
