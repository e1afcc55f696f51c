/*
 * life.c -- what must add up when all is over: counters, destructors, threads, bounds.
 */
#include "stress.h"

/* ---- stats_exact_after_races --------------------------------------------------------------------- */

/* The tally is kept by the callers, from what they were told. */
struct tally {
    _Atomic uint64_t hits, misses, led, joined, refused, cancelled, timeouts, shared;
    _Atomic uint64_t sets, deletes, expires, touches, clears, fetches;
};

struct counting {
    aside_cache *cache;
    struct tally tally;
    aside_cancel *token;
};

static aside_status counting_fetch(aside_fetch *fetch, void *arg)
{
    struct counting *counting = arg;
    atomic_fetch_add(&counting->tally.fetches, 1);
    dawdle(3);
    uint64_t key = stamp_key(fetch);
    return key % 3 == 0 ? aside_fetch_not_found(fetch) : stamp_answer(fetch, key, 1);
}

static void counting_ask(struct counting *counting, uint64_t key)
{
    struct tally *tally = &counting->tally;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = counting_fetch, .arg = counting};
    switch (test_random() % 4) {
    case 0: call.timeout_ms = 1; break;
    case 1: call.cancel = counting->token; break;
    case 2: call.timeout_ms = ASIDE_NO_WAIT; break;
    default: break;
    }
    aside_status status = aside_get_with_fetch(counting->cache, &key, sizeof key, &call, &result);
    bool attached =
        result.outcome == ASIDE_OUTCOME_FETCHED || result.outcome == ASIDE_OUTCOME_JOINED;
    atomic_fetch_add(&tally->hits, result.outcome == ASIDE_OUTCOME_HIT);
    atomic_fetch_add(&tally->led, result.outcome == ASIDE_OUTCOME_FETCHED);
    atomic_fetch_add(&tally->joined, result.outcome == ASIDE_OUTCOME_JOINED);
    atomic_fetch_add(&tally->refused, result.outcome == ASIDE_OUTCOME_NONE);
    atomic_fetch_add(&tally->cancelled, attached && status == ASIDE_E_CANCELLED);
    atomic_fetch_add(&tally->timeouts, attached && status == ASIDE_E_TIMEOUT);
    atomic_fetch_add(&tally->shared, result.shared != 0);
    aside_value_unref(result.value);
}

static void counting_look(struct counting *counting, uint64_t key)
{
    char small[8];
    aside_value *value = NULL;
    aside_status status = test_random() % 2 ? aside_get(counting->cache, &key, sizeof key, &value)
                                            : aside_copy(counting->cache, &key, sizeof key, small,
                                                         sizeof small, NULL);
    aside_value_unref(value);
    CHECK(status == ASIDE_OK || status == ASIDE_E_BUFFER || status == ASIDE_MISS);
    atomic_fetch_add(status == ASIDE_MISS ? &counting->tally.misses : &counting->tally.hits, 1);
}

static void counting_write(struct counting *counting, uint64_t key)
{
    struct tally *tally = &counting->tally;
    switch (test_random() % 6) {
    case 0:
        atomic_fetch_add(&tally->deletes,
                         aside_delete(counting->cache, &key, sizeof key) == ASIDE_OK);
        break;
    case 1:
        atomic_fetch_add(&tally->expires,
                         aside_expire(counting->cache, &key, sizeof key) == ASIDE_OK);
        break;
    case 2:
        atomic_fetch_add(&tally->touches,
                         aside_touch(counting->cache, &key, sizeof key, 60000) == ASIDE_OK);
        break;
    case 3: atomic_fetch_add(&tally->clears, aside_clear(counting->cache) == ASIDE_OK); break;
    default: atomic_fetch_add(&tally->sets, stamp_set(counting->cache, key, 1, 60000) == ASIDE_OK);
    }
}

static void *counting_guest(void *arg)
{
    struct counting *counting = arg;
    for (int i = 0; i < 4; i++)
        counting_look(counting, test_random() % 8);
    counting_ask(counting, test_random() % 8);
    return NULL;
}

static void counting_work(void *scenario, int self)
{
    struct counting *counting = scenario;
    if (self == 3) {
        dawdle(12);
        aside_cancel_fire(counting->token);
    }
    if (self == 2) /* whoever ends takes nothing with him */
        thread_join(thread_start(counting_guest, counting));
    for (int i = 0; i < 6; i++) {
        uint64_t key = test_random() % 8;
        if (test_random() % 4 == 0)
            counting_write(counting, key);
        else if (test_random() % 2)
            counting_look(counting, key);
        else
            counting_ask(counting, key);
    }
}

static void counting_judge(struct counting *counting)
{
    const struct tally *tally = &counting->tally;
    /* A fetch that everybody has left ends when it ends. */
    WAIT_UNTIL(STAT(counting->cache, flights_now) == 0 &&
               STAT(counting->cache, fetches) == STAT(counting->cache, misses_led));
    aside_stats stats = test_stats(counting->cache);
    CHECK_INT(stats.hits, tally->hits);
    CHECK_INT(stats.misses, tally->misses);
    CHECK_INT(stats.misses_led, tally->led);
    CHECK_INT(stats.misses_joined, tally->joined);
    CHECK_INT(stats.refused, tally->refused);
    CHECK_INT(stats.cancelled, tally->cancelled);
    CHECK_INT(stats.timeouts, tally->timeouts);
    CHECK_INT(stats.shared, tally->shared);
    CHECK_INT(stats.sets, tally->sets);
    CHECK_INT(stats.deletes, tally->deletes);
    CHECK_INT(stats.expires, tally->expires);
    CHECK_INT(stats.touches, tally->touches);
    CHECK_INT(stats.clears, tally->clears);
    CHECK_INT(stats.fetches, tally->fetches);
    CHECK_INT(stats.fetches, stats.misses_led);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.queued_now, 0);
}

TEST(stats_exact_after_races)
{
    struct ground ground;
    struct pool pool;
    static struct counting counting;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)1 << 20;
    counting.cache = cache_open(&options);
    pool_open(&pool, 4, counting_work, &counting);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        counting.token = token_new();
        pool_round(&pool);
        counting_judge(&counting);
        aside_cancel_unref(counting.token);
    }
    pool_close(&pool);
    cache_end(counting.cache);
    ground_end(&ground);
}

/* ---- wrapped_destructors_once -------------------------------------------------------------------- */

#define WRAPS_MOST 512
#define WRAPPED_KEYS 4

struct wrapping {
    aside_cache *cache;
    _Atomic int made;
    _Atomic int freed[WRAPS_MOST];
};

/* The pointer is the slot itself. */
static void wrapped_free(void *ptr, void *ctx)
{
    struct wrapping *wrapping = ctx;
    _Atomic int *slot = ptr;
    CHECK(slot >= wrapping->freed && slot < wrapping->freed + WRAPS_MOST);
    CHECK_INT(atomic_fetch_add(slot, 1), 0);
}

static aside_value *wrapped_new(struct wrapping *wrapping)
{
    int id = atomic_fetch_add(&wrapping->made, 1);
    aside_value *value = NULL;
    CHECK(id < WRAPS_MOST);
    CHECK_STATUS(aside_value_wrap(&wrapping->freed[id], 64, wrapped_free, wrapping, &value),
                 ASIDE_OK);
    return value;
}

static aside_status wrapping_fetch(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_fetch_give(fetch, wrapped_new(arg)), ASIDE_OK);
    if (test_random() % 4 == 0) /* the last counts */
        CHECK_STATUS(aside_fetch_give(fetch, wrapped_new(arg)), ASIDE_OK);
    dawdle(3);
    return test_random() % 4 == 0 ? ASIDE_E_FETCH : ASIDE_OK;
}

/* Whoever holds it, or visits it, meets it alive. */
static void wrapped_visit(const void *data, size_t size, void *ctx)
{
    const _Atomic int *slot = data;
    (void)ctx;
    CHECK_INT(size, 64);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(atomic_load(slot), 0);
        sched_yield();
    }
}

static void wrapping_store(struct wrapping *wrapping, uint64_t key)
{
    aside_value *value = wrapped_new(wrapping);
    aside_status status = aside_set_value(wrapping->cache, &key, sizeof key, value, ASIDE_FOREVER);
    CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
    aside_value_unref(value);
}

static void wrapping_work(void *scenario, int self)
{
    struct wrapping *wrapping = scenario;
    aside_cache *cache = wrapping->cache;
    for (int i = 0; i < 12; i++) {
        uint64_t key = test_random() % WRAPPED_KEYS;
        aside_value *value = NULL;
        aside_result result = ASIDE_RESULT_INIT;
        aside_call call = {ASIDE_CALL, .fetch = wrapping_fetch, .arg = wrapping,
                           .timeout_ms = test_random() % 4 == 0 ? 60000 : 0};
        switch ((self + test_random() % 2 * 4 + (uint64_t)i) % 8) {
        case 0: wrapping_store(wrapping, key); break;
        case 1: (void)aside_delete(cache, &key, sizeof key); break;
        case 2: check_read(aside_visit(cache, &key, sizeof key, wrapped_visit, NULL)); break;
        case 3:
            if (aside_get(cache, &key, sizeof key, &value) == ASIDE_OK)
                wrapped_visit(aside_value_data(value), aside_value_size(value), NULL);
            aside_value_unref(value);
            break;
        case 4: CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK); break;
        case 5:
            if (test_random() % 8 == 0)
                CHECK_STATUS(aside_clear(cache), ASIDE_OK);
            break;
        default:
            if (aside_get_with_fetch(cache, &key, sizeof key, &call, &result) == ASIDE_OK)
                wrapped_visit(aside_value_data(result.value), aside_value_size(result.value), NULL);
            aside_value_unref(result.value);
        }
    }
}

static bool wrapped_all_freed(struct wrapping *wrapping)
{
    CHECK_STATUS(aside_reap(wrapping->cache, 0, NULL), ASIDE_OK);
    for (int i = 0; i < wrapping->made; i++)
        if (wrapping->freed[i] == 0)
            return false;
    return true;
}

TEST(wrapped_destructors_once)
{
    struct ground ground;
    struct pool pool;
    static struct wrapping wrapping;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)256 << 10;
    wrapping.cache = cache_open(&options);
    pool_open(&pool, 4, wrapping_work, &wrapping);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        memset(wrapping.freed, 0, sizeof wrapping.freed);
        wrapping.made = 0;
        pool_round(&pool);
        WAIT_UNTIL(STAT(wrapping.cache, flights_now) == 0);
        CHECK_STATUS(aside_clear(wrapping.cache), ASIDE_OK);
        WAIT_UNTIL(wrapped_all_freed(&wrapping));
    }
    pool_close(&pool);
    cache_end(wrapping.cache);
    ground_end(&ground);
}

/* ---- thread_exit_races --------------------------------------------------------------------------- */

#define VISITED_KEYS 4

/* Threads come, read, and end, some of them in the middle of a visit or of a fetch. */
struct exiting {
    aside_cache *cache;
    _Atomic uint64_t version;
    _Atomic uint64_t lookups;
};

static void exiting_visit(const void *data, size_t size, void *ctx)
{
    uint64_t key = *(const uint64_t *)ctx;
    uint64_t version = stamp_read(data, size, key);
    for (int i = 0; i < 2; i++) {
        sched_yield();
        CHECK_INT(stamp_read(data, size, key), version);
    }
    if (test_random() % 8 == 0)
        pthread_exit(NULL);
}

static aside_status exiting_fetch(aside_fetch *fetch, void *arg)
{
    struct exiting *exiting = arg;
    if (test_random() % 4 == 0)
        pthread_exit(NULL);
    return stamp_answer(fetch, stamp_key(fetch), atomic_load(&exiting->version));
}

static void *exiting_guest(void *arg)
{
    struct exiting *exiting = arg;
    for (int i = 0; i < 4; i++) {
        uint64_t key = test_random() % VISITED_KEYS;
        aside_result result = ASIDE_RESULT_INIT;
        aside_call call = {ASIDE_CALL, .fetch = exiting_fetch, .arg = exiting,
                           .timeout_ms = test_random() % 4 == 0 ? 60000 : 0};
        atomic_fetch_add(&exiting->lookups, 1);
        if (test_random() % 2) {
            check_read(aside_visit(exiting->cache, &key, sizeof key, exiting_visit, &key));
            continue;
        }
        aside_status status =
            aside_get_with_fetch(exiting->cache, &key, sizeof key, &call, &result);
        CHECK(status == ASIDE_OK || status == ASIDE_E_ABANDONED);
        if (status == ASIDE_OK)
            (void)stamp_of_value(result.value, key);
        aside_value_unref(result.value);
    }
    return NULL;
}

static void exiting_work(void *scenario, int self)
{
    struct exiting *exiting = scenario;
    if (self < 2) {
        pthread_t one = thread_start(exiting_guest, exiting);
        pthread_t other = thread_start(exiting_guest, exiting);
        thread_join(one);
        thread_join(other);
        return;
    }
    for (int i = 0; i < 12; i++) {
        uint64_t key = test_random() % VISITED_KEYS;
        uint64_t version = atomic_fetch_add(&exiting->version, 1) + 1;
        aside_status status = i % 4 == 3 ? aside_delete(exiting->cache, &key, sizeof key)
                                         : stamp_set(exiting->cache, key, version, ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_BUSY);
        CHECK_STATUS(aside_reap(exiting->cache, 0, NULL), ASIDE_OK);
    }
}

/* Nothing stays pinned or in limbo; a worker may be about to let its answer go. */
static bool exiting_is_tidy(aside_cache *cache)
{
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    aside_stats stats = test_stats(cache);
    return stats.limbo_bytes == 0 && stats.pinned_bytes == 0;
}

TEST_LIMIT(thread_exit_races, 120)
{
    struct ground ground;
    struct pool pool;
    static struct exiting exiting;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)256 << 10;
    exiting.cache = cache_open(&options);
    pool_open(&pool, 4, exiting_work, &exiting);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        pool_round(&pool);
        WAIT_UNTIL(STAT(exiting.cache, flights_now) == 0);
        aside_stats stats = test_stats(exiting.cache);
        CHECK_INT(stats.hits + stats.misses + stats.misses_led + stats.misses_joined +
                      stats.refused,
                  exiting.lookups);
        CHECK(stats.workers_now <= 2);
        WAIT_UNTIL(exiting_is_tidy(exiting.cache));
    }
    pool_close(&pool);
    cache_end(exiting.cache);
    ground_end(&ground);
}

/* ---- thread_ends_in_a_last_visit ----------------------------------------------------------------- */

/* Whoever visits gives the last reference back, and then the thread may end as well. */
struct last {
    aside_cache *cache;
    bool ends;
};

static void last_visit(const void *data, size_t size, void *ctx)
{
    const struct last *last = ctx;
    aside_unref(last->cache);
    CHECK_INT(stamp_read(data, size, 1), 1);
    if (last->ends)
        pthread_exit(NULL);
}

static void *last_guest(void *arg)
{
    const struct last *last = arg;
    uint64_t key = 1;
    check_read(aside_visit(last->cache, &key, sizeof key, last_visit, arg));
    return NULL;
}

TEST(thread_ends_in_a_last_visit)
{
    struct ground ground;
    aside_options options = ground_begin(&ground);
    options.max_bytes = (size_t)256 << 10;
    for (long round = 0; round < test_rounds(ROUNDS / 10); round++) {
        struct last last = {cache_open(&options), round % 2};
        CHECK_STATUS(stamp_set(last.cache, 1, 1, ASIDE_FOREVER), ASIDE_OK);
        thread_join(thread_start(last_guest, &last));
        CHECK_INT(ground.ledger.live_blocks, 0);
    }
    ground_end(&ground);
}

/* ---- reaper_races -------------------------------------------------------------------------------- */

#define REAPED_KEYS 16

/* A reaper every millisecond, beside everything that touches the same entries. */
struct reaping {
    aside_cache *cache;
    _Atomic uint64_t version[REAPED_KEYS];
    _Atomic uint64_t floor[REAPED_KEYS];
};

static void reaping_write(struct reaping *reaping, uint64_t key)
{
    uint64_t version = atomic_fetch_add(&reaping->version[key], 1) + 1;
    aside_status status;
    switch (test_random() % 16) {
    case 0: status = aside_delete(reaping->cache, &key, sizeof key); break;
    case 1: status = aside_expire(reaping->cache, &key, sizeof key); break;
    case 2: status = aside_clear(reaping->cache); break;
    case 3:
    case 4:
        (void)aside_touch(reaping->cache, &key, sizeof key, (int64_t)(test_random() % 4));
        return;
    case 5: CHECK_STATUS(aside_reap(reaping->cache, 8, NULL), ASIDE_OK); return;
    default: status = stamp_set(reaping->cache, key, version, (int64_t)(test_random() % 4));
    }
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_BUSY);
    if (status != ASIDE_E_BUSY)
        raise_to(&reaping->floor[key], version);
}

static void reaping_read(struct reaping *reaping, uint64_t key)
{
    uint64_t floor = atomic_load(&reaping->floor[key]);
    aside_value *value = NULL;
    aside_status status = aside_get(reaping->cache, &key, sizeof key, &value);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS);
    if (status == ASIDE_OK)
        CHECK(stamp_of_value(value, key) >= floor);
    aside_value_unref(value);
}

/* Each key has one writer. */
static void reaping_work(void *scenario, int self)
{
    struct reaping *reaping = scenario;
    for (int i = 0; i < 16; i++) {
        uint64_t key = test_random() % REAPED_KEYS;
        if (self < 2)
            reaping_write(reaping, key / 2 * 2 + (uint64_t)self);
        else
            reaping_read(reaping, key);
    }
}

TEST(reaper_races)
{
    struct ground ground;
    struct pool pool;
    static struct reaping reaping;
    int made = threads_created(), joined = threads_joined();
    aside_options options = ground_begin(&ground);
    options.reaper_interval_ms = 1;
    options.max_bytes = (size_t)512 << 10;
    reaping.cache = cache_open(&options);
    pool_open(&pool, 4, reaping_work, &reaping);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        pool_round(&pool);
        if (round % 50 ==
            49) /* all of it has a time that ends: the reaper alone empties the cache */
            WAIT_UNTIL(aside_count(reaping.cache) == 0);
    }
    pool_close(&pool);
    CHECK_INT(threads_created() - made, 1);
    cache_end(reaping.cache);
    CHECK_INT(threads_joined() - joined, 1);
    ground_end(&ground);
}

/* ---- flights_stay_within_their_bound ------------------------------------------------------------- */

#define MOST_FLIGHTS 2

struct bounded {
    aside_cache *cache;
    uint64_t key;
    _Atomic int running;
};

static aside_status bounded_fetch(aside_fetch *fetch, void *arg)
{
    struct bounded *bounded = arg;
    CHECK(atomic_fetch_add(&bounded->running, 1) < MOST_FLIGHTS);
    dawdle(4);
    atomic_fetch_sub(&bounded->running, 1);
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

/* Different keys, so different shards as well. */
static void bounded_work(void *scenario, int self)
{
    struct bounded *bounded = scenario;
    uint64_t key = bounded->key * 8 + (uint64_t)self;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = bounded_fetch, .arg = bounded};
    aside_status status = aside_get_with_fetch(bounded->cache, &key, sizeof key, &call, &result);
    CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
    aside_value_unref(result.value);
}

TEST(flights_stay_within_their_bound)
{
    struct ground ground;
    struct pool pool;
    static struct bounded bounded;
    aside_options options = ground_begin(&ground);
    options.max_flights = MOST_FLIGHTS;
    options.max_entries = 4096;
    bounded.cache = cache_open(&options);
    pool_open(&pool, 5, bounded_work, &bounded);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        bounded.key = (uint64_t)round;
        pool_round(&pool);
        CHECK_INT(STAT(bounded.cache, flights_now), 0);
    }
    pool_close(&pool);
    cache_end(bounded.cache);
    ground_end(&ground);
}

/* ---- entries_stay_within_their_bound ------------------------------------------------------------- */

#define MOST_ENTRIES 2048 /* the least that has several shards, and so several locks */

static void filling_work(void *scenario, int self)
{
    struct bounded *bounded = scenario;
    for (uint64_t i = 0; i < 6; i++) {
        uint64_t key = (bounded->key * 8 + (uint64_t)self) * 8 + i;
        aside_status status = stamp_set(bounded->cache, key, 1, ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        CHECK(aside_count(bounded->cache) <= MOST_ENTRIES);
    }
}

TEST(entries_stay_within_their_bound)
{
    struct ground ground;
    struct pool pool;
    static struct bounded bounded;
    aside_options options = ground_begin(&ground);
    options.max_entries = MOST_ENTRIES;
    bounded.cache = cache_open(&options);
    for (uint64_t key = 0; key < 2 * MOST_ENTRIES; key++)
        CHECK_STATUS(stamp_set(bounded.cache, UINT64_MAX - key, 1, ASIDE_FOREVER), ASIDE_OK);
    pool_open(&pool, 4, filling_work, &bounded);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        bounded.key = (uint64_t)round;
        pool_round(&pool);
        CHECK(STAT(bounded.cache, entries) > 0);
    }
    pool_close(&pool);
    cache_end(bounded.cache);
    ground_end(&ground);
}
