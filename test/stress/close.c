/*
 * close.c -- a cache is closed while everything goes on in it.
 */
#include "stress.h"

#define MEMBERS 6

struct closing {
    aside_cache *cache;
    uint64_t round;
    _Atomic int fetches_now;
};

/* One key in four is asked of a source that answers only when it is told to stop. */
static aside_status closing_fetch(aside_fetch *fetch, void *arg)
{
    struct closing *closing = arg;
    uint64_t key = stamp_key(fetch);
    atomic_fetch_add(&closing->fetches_now, 1);
    if (key % 4 == 0)
        WAIT_UNTIL(aside_fetch_stopping(fetch));
    else
        dawdle(3);
    aside_status status = stamp_answer(fetch, key, 1);
    atomic_fetch_sub(&closing->fetches_now, 1);
    return status;
}

/* Only what the header allows. E_CLOSED once, E_CLOSED for ever. */
static bool closing_allows(aside_status status, bool *closed)
{
    bool was_closed = *closed;
    *closed = status == ASIDE_E_CLOSED;
    return !was_closed || *closed;
}

static aside_status closing_ask(struct closing *closing, uint64_t key, aside_cancel *token)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = closing_fetch, .arg = closing, .cancel = token,
                       .timeout_ms = test_random() % 2 ? 60000 : 0};
    aside_status status = aside_get_with_fetch(closing->cache, &key, sizeof key, &call, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (status != ASIDE_OK && !(status == ASIDE_E_CANCELLED && token))
        CHECK_STATUS(status, ASIDE_E_CLOSED);
    if (status == ASIDE_OK)
        CHECK_INT(stamp_of_value(result.value, key), 1);
    aside_value_unref(result.value);
    return status;
}

static aside_status closing_read(struct closing *closing, uint64_t key)
{
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    aside_status status = aside_copy(closing->cache, &key, sizeof key, bytes, sizeof bytes, &size);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED);
    if (status == ASIDE_OK)
        CHECK_INT(stamp_read(bytes, size, key), 1);
    return status;
}

static aside_status closing_write(struct closing *closing, uint64_t key)
{
    aside_status status;
    switch (test_random() % 4) {
    case 0: status = aside_delete(closing->cache, &key, sizeof key); break;
    case 1: status = aside_reap(closing->cache, 4, NULL); break;
    default: status = stamp_set(closing->cache, key, 1, test_random() % 2 ? 1 : 60000);
    }
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED ||
          status == ASIDE_E_BUSY);
    return status;
}

static void closing_close(struct closing *closing)
{
    aside_value *value = NULL;
    uint64_t key = 1;
    dawdle(16);
    int64_t began = test_now_ns();
    CHECK_STATUS(aside_close(closing->cache), ASIDE_OK);
    CHECK(test_now_ns() - began < INT64_C(15000000000));
    CHECK_INT(closing->fetches_now, 0); /* it has waited for all of them */
    CHECK_STATUS(aside_health(closing->cache), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_get(closing->cache, &key, sizeof key, &value), ASIDE_E_CLOSED);
    CHECK_STATUS(stamp_set(closing->cache, key, 1, 1), ASIDE_E_CLOSED);
    CHECK_INT(aside_count(closing->cache), 0);
    CHECK_INT(STAT(closing->cache, flights_now), 0);
}

/* 0 and 1 close; 2 reads; 3 writes; 4 and 5 ask, the former without a way to leave. */
static void closing_work(void *scenario, int self)
{
    struct closing *closing = scenario;
    aside_cache *cache = aside_ref(closing->cache);
    aside_cancel *token = self == 5 ? token_new() : NULL;
    bool closed = false;
    if (self < 2) {
        closing_close(closing);
    } else {
        for (int i = 0; i < 64 && !closed; i++) {
            uint64_t key = test_random() % 8;
            aside_status status = self == 2   ? closing_read(closing, key)
                                  : self == 3 ? closing_write(closing, key)
                                              : closing_ask(closing, key, token);
            CHECK(closing_allows(status, &closed));
        }
    }
    aside_cancel_fire(token);
    aside_cancel_unref(token);
    aside_unref(cache);
}

TEST_LIMIT(close_under_load, 120)
{
    struct ground ground;
    static struct closing closing;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 3;
    options.max_bytes = (size_t)512 << 10;
    options.close_wait_ms = 20000;
    pool_open(&pool, MEMBERS, closing_work, &closing);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        int made = threads_created(), joined = threads_joined();
        options.reaper_interval_ms = round % 2;
        closing.cache = cache_open(&options);
        pool_round(&pool);
        CHECK_INT(closing.fetches_now, 0);
        CHECK_STATUS(aside_close(closing.cache), ASIDE_OK);
        /* Every thread that was made has been joined: nobody was left behind, nobody joined twice. */
        CHECK_INT(threads_created() - made, threads_joined() - joined);
        aside_unref(closing.cache);
        WAIT_UNTIL(ground.ledger.live_blocks == 0);
    }
    pool_close(&pool);
    ground_end(&ground);
}
