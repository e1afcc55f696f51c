/*
 * flight.c -- one fetch a key, whoever comes, writes or waits meanwhile.
 */
#include "stress.h"

#define MEMBERS 4

/* ---- cold_key ------------------------------------------------------------------------------------ */

struct cold {
    aside_cache *cache;
    uint64_t key;
    bool may_leave;
    _Atomic int fetches;
    aside_result result[MEMBERS];
};

static aside_status cold_fetch(aside_fetch *fetch, void *arg)
{
    struct cold *cold = arg;
    atomic_fetch_add(&cold->fetches, 1);
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

static void cold_work(void *scenario, int self)
{
    struct cold *cold = scenario;
    aside_call call = {ASIDE_CALL, .fetch = cold_fetch, .arg = cold,
                       .timeout_ms = cold->may_leave ? 60000 : 0};
    aside_result *result = &cold->result[self];
    *result = (aside_result)ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cold->cache, &cold->key, sizeof cold->key, &call, result),
                 ASIDE_OK);
}

/* Nobody leaves, so whoever led or joined was there when the flight completed. */
static void cold_judge(struct cold *cold)
{
    int there = 0, led = 0;
    CHECK_INT(cold->fetches, 1);
    for (int i = 0; i < MEMBERS; i++) {
        led += cold->result[i].outcome == ASIDE_OUTCOME_FETCHED;
        there += cold->result[i].outcome != ASIDE_OUTCOME_HIT;
        CHECK(cold->result[i].value == cold->result[0].value);
        CHECK_INT(cold->result[i].fenced, 0);
    }
    CHECK_INT(led, 1);
    for (int i = 0; i < MEMBERS; i++)
        if (cold->result[i].outcome != ASIDE_OUTCOME_HIT)
            CHECK_INT(cold->result[i].shared, there >= 2);
    CHECK_INT(stamp_of_value(cold->result[0].value, cold->key), 1);
    for (int i = 0; i < MEMBERS; i++)
        aside_value_unref(cold->result[i].value);
}

TEST(cold_key)
{
    struct ground ground;
    struct cold cold = {.cache = NULL};
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    pool_open(&pool, MEMBERS, cold_work, &cold);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        if (round % 16 == 0) { /* so that the index is often cold as well */
            if (cold.cache)
                cache_end(cold.cache);
            cold.cache = cache_open(&options);
        }
        cold.key = (uint64_t)round;
        cold.may_leave = round % 4 == 3;
        cold.fetches = 0;
        pool_round(&pool);
        cold_judge(&cold);
    }
    pool_close(&pool);
    cache_end(cold.cache);
    ground_end(&ground);
}

/* ---- writes that overtake a fetch ---------------------------------------------------------------- */

#define TRUTH_KEYS 2

/* The source counts up; floor is the version that nobody may fall behind any more. */
struct truth {
    aside_cache *cache;
    _Atomic uint64_t version[TRUTH_KEYS];
    _Atomic uint64_t floor[TRUTH_KEYS];
    bool sets;
};

static aside_status truth_fetch(aside_fetch *fetch, void *arg)
{
    struct truth *truth = arg;
    uint64_t key = stamp_key(fetch);
    uint64_t version = atomic_load(&truth->version[key]);
    dawdle(4);
    return stamp_answer(fetch, key, version);
}

static void truth_ask(struct truth *truth, uint64_t key)
{
    uint64_t floor = atomic_load(&truth->floor[key]);
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = truth_fetch, .arg = truth};
    if (test_random() % 4 == 0)
        call.timeout_ms = 60000;
    CHECK_STATUS(aside_get_with_fetch(truth->cache, &key, sizeof key, &call, &result), ASIDE_OK);
    CHECK(stamp_of_value(result.value, key) >= floor);
    CHECK(!result.fenced || result.ttl_left_ms == 0); /* what a write overtook is not stored */
    aside_value_unref(result.value);
}

static void truth_look(struct truth *truth, uint64_t key)
{
    uint64_t floor = atomic_load(&truth->floor[key]);
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    aside_status status = aside_copy(truth->cache, &key, sizeof key, bytes, sizeof bytes, &size);
    if (status == ASIDE_OK)
        CHECK(stamp_read(bytes, size, key) >= floor);
    else
        CHECK_STATUS(status, ASIDE_MISS);
}

/* The source changes first, then the cache is told; from the return on the old version is gone. */
static void truth_change(struct truth *truth, uint64_t key)
{
    uint64_t version = atomic_fetch_add(&truth->version[key], 1) + 1;
    aside_status status;
    if (truth->sets)
        status = stamp_set(truth->cache, key, version, ASIDE_FOREVER);
    else
        switch (test_random() % 4) {
        case 0: status = aside_clear(truth->cache); break;
        case 1: status = aside_expire(truth->cache, &key, sizeof key); break;
        default: status = aside_delete(truth->cache, &key, sizeof key);
        }
    CHECK(status == ASIDE_OK || (status == ASIDE_MISS && !truth->sets));
    raise_to(&truth->floor[key], version);
}

/* Sets have one writer: of two, the later would be the truth, and the source could not tell which. */
static void truth_work(void *scenario, int self)
{
    struct truth *truth = scenario;
    for (int i = 0; i < 8; i++) {
        uint64_t key = test_random() % TRUTH_KEYS;
        if (self == 0 || (self == 1 && !truth->sets && i % 4 == 0))
            truth_change(truth, key);
        else if (test_random() % 4 == 0)
            truth_look(truth, key);
        else
            truth_ask(truth, key);
    }
}

static void truth_run(bool sets)
{
    struct ground ground;
    struct truth truth = {.sets = sets};
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)1 << 20;
    truth.cache = cache_open(&options);
    for (uint64_t key = 0; key < TRUTH_KEYS && sets; key++)
        CHECK_STATUS(stamp_set(truth.cache, key, 0, ASIDE_FOREVER), ASIDE_OK);
    pool_open(&pool, MEMBERS, truth_work, &truth);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        /* Where nothing is there, the sets meet fetches; no change of the truth, so no new floor. */
        for (uint64_t key = 0; key < TRUTH_KEYS && sets; key++)
            (void)aside_delete(truth.cache, &key, sizeof key);
        pool_round(&pool);
        for (uint64_t key = 0; key < TRUTH_KEYS; key++) {
            aside_value *value = NULL;
            aside_status status = aside_get(truth.cache, &key, sizeof key, &value);
            if (status == ASIDE_OK)
                CHECK_INT(stamp_of_value(value, key), truth.version[key]);
            aside_value_unref(value);
        }
        CHECK_INT(STAT(truth.cache, waiters_now), 0);
    }
    pool_close(&pool);
    cache_end(truth.cache);
    ground_end(&ground);
}

TEST(delete_then_read)
{
    truth_run(false);
}

TEST(set_during_fetch)
{
    truth_run(true);
}

/* ---- expire_and_refetch -------------------------------------------------------------------------- */

#define TTL_MS 100

struct expiring {
    aside_cache *cache;
    struct fake_clock clock;
    uint64_t generation;
    _Atomic int fetches;
};

static aside_status expiring_fetch(aside_fetch *fetch, void *arg)
{
    struct expiring *expiring = arg;
    atomic_fetch_add(&expiring->fetches, 1);
    return stamp_answer(fetch, stamp_key(fetch), expiring->generation);
}

/* The entry's time is over as the round begins. Some ask, some look (and remove lazily), one reaps. */
static void expiring_work(void *scenario, int self)
{
    struct expiring *expiring = scenario;
    uint64_t key = 7;
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    aside_status status;
    if (self == 3)
        CHECK_STATUS(aside_reap(expiring->cache, 0, NULL), ASIDE_OK);
    if (self == 2 || self == 3) {
        status = aside_copy(expiring->cache, &key, sizeof key, bytes, sizeof bytes, &size);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS);
        if (status == ASIDE_OK)
            CHECK_INT(stamp_read(bytes, size, key), expiring->generation);
        return;
    }
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = expiring_fetch, .arg = expiring, .ttl_ms = TTL_MS};
    status = aside_get_with_fetch(expiring->cache, &key, sizeof key, &call, &result);
    CHECK_STATUS(status, ASIDE_OK);
    CHECK_INT(stamp_of_value(result.value, key), expiring->generation);
    aside_value_unref(result.value);
}

TEST(expire_and_refetch)
{
    struct ground ground;
    static struct expiring expiring;
    struct pool pool;
    uint64_t key = 7;
    aside_options options = ground_begin(&ground);
    options.clock = fake_clock_init(&expiring.clock);
    options.max_bytes = (size_t)1 << 20;
    expiring.cache = cache_open(&options);
    pool_open(&pool, MEMBERS, expiring_work, &expiring);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        aside_value *value = NULL;
        expiring.generation++;
        expiring.fetches = 0;
        fake_clock_advance_ms(&expiring.clock, TTL_MS, expiring.cache); /* the very instant */
        pool_round(&pool);
        CHECK_INT(expiring.fetches, 1);
        CHECK_STATUS(aside_get(expiring.cache, &key, sizeof key, &value), ASIDE_OK);
        aside_value_unref(value);
        CHECK_INT(aside_count(expiring.cache), 1);
    }
    pool_close(&pool);
    cache_end(expiring.cache);
    ground_end(&ground);
}

/* ---- supersede_races_completion ------------------------------------------------------------------ */

#define AGE_MS 10

struct ageing {
    aside_cache *cache;
    struct fake_clock clock;
    uint64_t key;
    _Atomic uint64_t version; /* fetches so far, of all keys */
    _Atomic uint64_t floor;
    _Atomic uint64_t overtaken[64]; /* versions that were handed over as not stored */
    _Atomic unsigned overtaken_count;
};

static aside_status ageing_fetch(aside_fetch *fetch, void *arg)
{
    struct ageing *ageing = arg;
    uint64_t version = atomic_fetch_add(&ageing->version, 1) + 1;
    dawdle(6);
    return stamp_answer(fetch, stamp_key(fetch), version);
}

static void ageing_work(void *scenario, int self)
{
    struct ageing *ageing = scenario;
    if (self == 0) {
        for (int i = 0; i < 3; i++) {
            dawdle(6);
            fake_clock_advance_ms(&ageing->clock, AGE_MS / 2 + 1, ageing->cache);
        }
        return;
    }
    for (int i = 0; i < 3; i++) {
        uint64_t floor = atomic_load(&ageing->floor);
        aside_result result = ASIDE_RESULT_INIT;
        aside_call call = {ASIDE_CALL, .fetch = ageing_fetch, .arg = ageing};
        if (test_random() % 2)
            call.timeout_ms = 1000000;
        aside_status status =
            aside_get_with_fetch(ageing->cache, &ageing->key, sizeof ageing->key, &call, &result);
        if (status == ASIDE_OK) {
            uint64_t version = stamp_of_value(result.value, ageing->key);
            if (result.fenced)
                ageing->overtaken[atomic_fetch_add(&ageing->overtaken_count, 1) % 64] = version;
            else
                raise_to(&ageing->floor, version);
            /* Older than what was there when it asked: only the fetch that it led itself. */
            CHECK(version > floor || (version == floor && !result.fenced));
        } else {
            CHECK(status == ASIDE_E_FETCH_TIMEOUT || status == ASIDE_E_BUSY);
        }
        aside_value_unref(result.value);
    }
}

static void ageing_judge(struct ageing *ageing)
{
    aside_value *value = NULL;
    WAIT_UNTIL(STAT(ageing->cache, flights_now) == 0);
    if (aside_get(ageing->cache, &ageing->key, sizeof ageing->key, &value) == ASIDE_OK) {
        uint64_t version = stamp_of_value(value, ageing->key);
        CHECK(version >= ageing->floor);
        for (unsigned i = 0; i < ageing->overtaken_count && i < 64; i++)
            CHECK(ageing->overtaken[i] != version);
        aside_value_unref(value);
    }
    /* What was left over has ended and holds no worker any more. */
    uint64_t other = UINT64_MAX - ageing->key;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = ageing_fetch, .arg = ageing, .timeout_ms = 1000000};
    CHECK_STATUS(aside_get_with_fetch(ageing->cache, &other, sizeof other, &call, &result),
                 ASIDE_OK);
    aside_value_unref(result.value);
}

TEST(supersede_races_completion)
{
    struct ground ground;
    static struct ageing ageing;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.clock = fake_clock_init(&ageing.clock);
    options.max_flight_age_ms = AGE_MS;
    options.fetch_threads = 2;
    options.max_bytes = (size_t)1 << 20;
    ageing.cache = cache_open(&options);
    pool_open(&pool, MEMBERS, ageing_work, &ageing);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        ageing.key = (uint64_t)round;
        ageing.floor = 0;
        ageing.overtaken_count = 0;
        pool_round(&pool);
        ageing_judge(&ageing);
        if (round % 64 == 63)
            CHECK_STATUS(aside_clear(ageing.cache), ASIDE_OK);
    }
    pool_close(&pool);
    CHECK_INT(STAT(ageing.cache, queued_now), 0);
    cache_end(ageing.cache);
    ground_end(&ground);
}

/* ---- superseded_leaves_the_queue ----------------------------------------------------------------- */

/* The one worker hangs; the flight behind it grows too old, and its job must not stay in the queue. */
struct queueing {
    aside_cache *cache;
    struct fake_clock clock;
    uint64_t key;
    _Atomic bool hangs, answered, released;
};

static aside_status hanging_fetch(aside_fetch *fetch, void *arg)
{
    struct queueing *queueing = arg;
    queueing->hangs = true;
    WAIT_UNTIL(queueing->released);
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

static aside_status queued_fetch(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

static void queueing_ask(struct queueing *queueing, uint64_t key, aside_fetch_fn *fetch)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = fetch, .arg = queueing, .timeout_ms = 1000000};
    aside_status status = aside_get_with_fetch(queueing->cache, &key, sizeof key, &call, &result);
    /* Whoever looks at the clock only when the fetch has ended is served, as by one that was overtaken. */
    if (fetch == hanging_fetch && status == ASIDE_OK)
        CHECK_INT(result.fenced, 1);
    else
        CHECK_STATUS(status, ASIDE_E_FETCH_TIMEOUT);
    aside_value_unref(result.value);
}

static void queueing_work(void *scenario, int self)
{
    struct queueing *queueing = scenario;
    if (self == 0) {
        queueing_ask(queueing, queueing->key, hanging_fetch);
        return;
    }
    WAIT_UNTIL(queueing->hangs);
    if (self == 1) {
        queueing_ask(queueing, queueing->key + 1, queued_fetch);
        queueing->answered = true;
        return;
    }
    WAIT_UNTIL(STAT(queueing->cache, queued_now) == 1);
    fake_clock_advance_ms(&queueing->clock, AGE_MS, queueing->cache);
    WAIT_UNTIL(queueing->answered);
    CHECK_INT(STAT(queueing->cache, queued_now), 0);
    queueing->released = true;
}

TEST(superseded_leaves_the_queue)
{
    struct ground ground;
    static struct queueing queueing;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.clock = fake_clock_init(&queueing.clock);
    options.max_flight_age_ms = AGE_MS;
    options.fetch_threads = 1;
    queueing.cache = cache_open(&options);
    pool_open(&pool, 3, queueing_work, &queueing);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        queueing.key = 2 * (uint64_t)round;
        queueing.hangs = queueing.answered = queueing.released = false;
        pool_round(&pool);
        WAIT_UNTIL(STAT(queueing.cache, flights_now) == 0);
        CHECK_INT(aside_count(queueing.cache), 0);
    }
    pool_close(&pool);
    cache_end(queueing.cache);
    ground_end(&ground);
}

/* ---- pending_completion_races -------------------------------------------------------------------- */

enum { COMPLETERS = 2 };

struct pending {
    aside_cache *cache;
    uint64_t key;
    _Atomic bool begun;
    _Atomic(aside_fetch *) handed; /* with a reference for each completer */
    bool completes[COMPLETERS];    /* or only gives its reference back */
    bool closes;
    _Atomic int asked; /* askers that have their answer */
    int won[COMPLETERS];
    aside_status answer[2];
};

/* The second asker may come when all is over and lead a flight of his own: that answers at once. */
static aside_status pending_fetch(aside_fetch *fetch, void *arg)
{
    struct pending *pending = arg;
    if (atomic_exchange(&pending->begun, true))
        return ASIDE_E_SYSTEM;
    for (int i = 0; i < COMPLETERS; i++)
        (void)aside_fetch_ref(fetch);
    atomic_store(&pending->handed, fetch);
    dawdle(3);
    return ASIDE_PENDING;
}

static void pending_ask(struct pending *pending, int which)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = pending_fetch, .arg = pending,
                       .timeout_ms = pending->key % 2 ? 60000 : 0};
    pending->answer[which] =
        aside_get_with_fetch(pending->cache, &pending->key, sizeof pending->key, &call, &result);
    CHECK(result.value == NULL);
    atomic_fetch_add(&pending->asked, 1);
}

/* NULL if the cache was closed before the fetch could begin. */
static aside_fetch *pending_take(struct pending *pending)
{
    aside_fetch *fetch;
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    while (!(fetch = atomic_load(&pending->handed))) {
        if (pending->asked == 2 && STAT(pending->cache, flights_now) == 0)
            return atomic_load(&pending->handed);
        CHECK(test_now_ns() < give_up);
        sched_yield();
    }
    return fetch;
}

static void pending_end(struct pending *pending, int which)
{
    aside_fetch *fetch = pending_take(pending);
    if (!fetch)
        return;
    dawdle(4);
    if (pending->completes[which]) {
        aside_status status =
            aside_fetch_complete(fetch, which == 0 ? ASIDE_NOT_FOUND : ASIDE_E_FETCH);
        CHECK(status == ASIDE_OK || status == ASIDE_E_INVALID);
        pending->won[which] = status == ASIDE_OK;
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_NOT_FOUND), ASIDE_E_INVALID);
    }
    aside_fetch_unref(fetch);
}

/* 0 and 1 ask; 2 and 3 complete the fetch or drop it; 4 closes in every other round. */
static void pending_work(void *scenario, int self)
{
    struct pending *pending = scenario;
    if (self < 2)
        pending_ask(pending, self);
    else if (self < 4)
        pending_end(pending, self - 2);
    else if (pending->closes) {
        dawdle(8);
        CHECK_STATUS(aside_close(pending->cache), ASIDE_OK);
    }
}

static void pending_judge(const struct pending *pending)
{
    bool wanted = pending->completes[0] || pending->completes[1];
    aside_status expected = pending->won[0]   ? ASIDE_NOT_FOUND
                            : pending->won[1] ? ASIDE_E_FETCH
                                              : ASIDE_E_ABANDONED;
    int others = 0;
    CHECK(pending->won[0] + pending->won[1] <= 1);
    if (!pending->closes)
        CHECK_INT(pending->won[0] + pending->won[1], wanted);
    for (int i = 0; i < 2; i++) {
        others += pending->answer[i] == ASIDE_E_SYSTEM;
        if (pending->answer[i] != ASIDE_E_SYSTEM &&
            !(pending->closes && pending->answer[i] == ASIDE_E_CLOSED))
            CHECK_STATUS(pending->answer[i], expected);
    }
    CHECK(others <= 1);
}

TEST(pending_completion_races)
{
    struct ground ground;
    static struct pending pending;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)512 << 10;
    options.close_wait_ms = 20000;
    pool_open(&pool, 5, pending_work, &pending);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        pending.cache = cache_open(&options);
        pending.key = test_random() % 1000;
        pending.begun = false;
        pending.closes = round % 2;
        pending.asked = 0;
        pending.handed = NULL;
        for (int i = 0; i < COMPLETERS; i++) {
            pending.won[i] = 0;
            pending.completes[i] = test_random() % 4 != 0;
        }
        pool_round(&pool);
        pending_judge(&pending);
        cache_end(pending.cache);
        WAIT_UNTIL(ground.ledger.live_blocks == 0);
    }
    pool_close(&pool);
    ground_end(&ground);
}
