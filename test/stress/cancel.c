/*
 * cancel.c -- callers leave at the worst moment, and nobody else notices.
 */
#include "stress.h"

#define CALLERS 4

struct leaving {
    aside_cache *cache;
    uint64_t key;
    aside_cancel *token[CALLERS];
    _Atomic int fetches;
    bool held; /* the fetch answers only when all who were to leave have left */
    _Atomic int returned;
    _Atomic bool ready_first; /* the value was seen before the tokens were fired */
    aside_status status[CALLERS];
};

static aside_status leaving_fetch(aside_fetch *fetch, void *arg)
{
    struct leaving *leaving = arg;
    atomic_fetch_add(&leaving->fetches, 1);
    if (leaving->held)
        WAIT_UNTIL(leaving->returned == CALLERS);
    else
        dawdle(6);
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

static void leaving_call(struct leaving *leaving, int self)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = leaving_fetch, .arg = leaving,
                       .cancel = leaving->token[self]};
    aside_status status =
        aside_get_with_fetch(leaving->cache, &leaving->key, sizeof leaving->key, &call, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (status == ASIDE_OK)
        CHECK_INT(stamp_of_value(result.value, leaving->key), 1);
    else
        CHECK_STATUS(status, ASIDE_E_CANCELLED);
    aside_value_unref(result.value);
    leaving->status[self] = status;
    atomic_fetch_add(&leaving->returned, 1);
}

static bool leaving_ready(struct leaving *leaving)
{
    aside_value *value = NULL;
    bool ready = aside_get(leaving->cache, &leaving->key, sizeof leaving->key, &value) == ASIDE_OK;
    aside_value_unref(value);
    return ready;
}

static void leaving_forget(struct leaving *leaving)
{
    CHECK_INT(STAT(leaving->cache, waiters_now), 0);
    if (leaving->key % 64 == 63)
        CHECK_STATUS(aside_clear(leaving->cache), ASIDE_OK);
}

/* What ends the round: whatever became of the callers, the fetch ran once and was stored. */
static void leaving_judge(struct leaving *leaving)
{
    WAIT_UNTIL(STAT(leaving->cache, flights_now) == 0);
    CHECK(leaving->fetches <= 1);
    WAIT_UNTIL(leaving_ready(leaving) == leaving->fetches);
    leaving_forget(leaving);
}

static aside_cache *leaving_open(struct ground *ground)
{
    aside_options options = ground_begin(ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)1 << 20;
    return cache_open(&options);
}

/* ---- cancel_racing_completion -------------------------------------------------------------------- */

/* Callers 0 and 1 are told to leave; in every other round only when the value can be seen already. */
static void racing_fire(struct leaving *leaving)
{
    bool waits = leaving->key % 2;
    bool ready = false;
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    dawdle(6);
    while (!(ready = leaving_ready(leaving)) && waits)
        CHECK(test_now_ns() < give_up);
    leaving->ready_first = ready;
    aside_cancel_fire(leaving->token[0]);
    aside_cancel_fire(leaving->token[1]);
}

static void racing_work(void *scenario, int self)
{
    if (self < CALLERS)
        leaving_call(scenario, self);
    else
        racing_fire(scenario);
}

TEST(cancel_racing_completion)
{
    struct ground ground;
    static struct leaving leaving;
    struct pool pool;
    leaving.cache = leaving_open(&ground);
    pool_open(&pool, CALLERS + 1, racing_work, &leaving);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        leaving.key = (uint64_t)round;
        leaving.fetches = 0;
        leaving.returned = 0;
        for (int i = 0; i < CALLERS; i++)
            leaving.token[i] = token_new();
        pool_round(&pool);
        /* Those who were not told to leave are not disturbed; a value that is ready wins. */
        for (int i = leaving.ready_first ? 0 : 2; i < CALLERS; i++)
            CHECK_STATUS(leaving.status[i], ASIDE_OK);
        CHECK_INT(leaving.fetches, 1);
        leaving_judge(&leaving);
        for (int i = 0; i < CALLERS; i++)
            aside_cancel_unref(leaving.token[i]);
    }
    pool_close(&pool);
    cache_end(leaving.cache);
    ground_end(&ground);
}

/* ---- token_shared_by_all ------------------------------------------------------------------------- */

/* The fetch waits until all have left: whoever sleeps through the firing is never woken by it. */
static void shared_work(void *scenario, int self)
{
    struct leaving *leaving = scenario;
    if (self < CALLERS) {
        leaving_call(leaving, self);
        return;
    }
    dawdle(10);
    aside_cancel_fire(leaving->token[0]);
    CHECK(aside_cancel_fired(leaving->token[0]));
    aside_cancel_fire(leaving->token[0]);
}

TEST(token_shared_by_all)
{
    struct ground ground;
    static struct leaving leaving;
    struct pool pool;
    leaving.cache = leaving_open(&ground);
    leaving.held = true;
    pool_open(&pool, CALLERS + 1, shared_work, &leaving);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        aside_cancel *token = token_new();
        leaving.key = (uint64_t)round;
        leaving.fetches = 0;
        leaving.returned = 0;
        for (int i = 0; i < CALLERS; i++)
            leaving.token[i] = token;
        pool_round(&pool);
        for (int i = 0; i < CALLERS; i++)
            CHECK_STATUS(leaving.status[i], ASIDE_E_CANCELLED);
        aside_cancel_unref(token);
        leaving_judge(&leaving);
    }
    pool_close(&pool);
    cache_end(leaving.cache);
    ground_end(&ground);
}

/* ---- newcomer_revives_or_leads ------------------------------------------------------------------- */

/*
 * All but one leave a fetch that may stop then. Once it has been told to stop, nobody gets its answer:
 * neither by joining it later nor from the cache; and the one who stayed or came is served.
 */
struct stopping {
    aside_cache *cache;
    uint64_t key;
    aside_cancel *token[CALLERS];
    _Atomic uint64_t version;
    _Atomic uint64_t heard; /* the latest version whose fetch was told */
    _Atomic int fetches;
};

static aside_status stopping_fetch(aside_fetch *fetch, void *arg)
{
    struct stopping *stopping = arg;
    uint64_t version = atomic_fetch_add(&stopping->version, 1) + 1;
    for (int i = 0; i < 6; i++) {
        if (aside_fetch_stopping(fetch)) {
            raise_to(&stopping->heard, version);
            CHECK_INT(aside_fetch_stopping(fetch), 1);
            dawdle(4);
            CHECK_INT(aside_fetch_stopping(fetch), 1); /* it stays told */
            break;
        }
        sched_yield();
    }
    return stamp_answer(fetch, stamp_key(fetch), version);
}

static void stopping_work(void *scenario, int self)
{
    struct stopping *stopping = scenario;
    if (self == CALLERS) {
        for (int i = 0; i < CALLERS - 1; i++) {
            dawdle(3);
            aside_cancel_fire(stopping->token[i]);
        }
        return;
    }
    if (self == CALLERS - 1)
        dawdle(12);
    uint64_t heard = atomic_load(&stopping->heard);
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = stopping_fetch, .arg = stopping,
                       .cancel = stopping->token[self], .stop_when_abandoned = 1};
    aside_status status =
        aside_get_with_fetch(stopping->cache, &stopping->key, sizeof stopping->key, &call, &result);
    if (self == CALLERS - 1)
        CHECK_STATUS(status, ASIDE_OK);
    if (status == ASIDE_OK && result.outcome == ASIDE_OUTCOME_JOINED)
        CHECK(stamp_of_value(result.value, stopping->key) > heard);
    CHECK(status == ASIDE_OK || status == ASIDE_E_CANCELLED);
    aside_value_unref(result.value);
}

TEST(newcomer_revives_or_leads)
{
    struct ground ground;
    static struct stopping stopping;
    struct pool pool;
    stopping.cache = leaving_open(&ground);
    pool_open(&pool, CALLERS + 1, stopping_work, &stopping);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        stopping.key = (uint64_t)round;
        for (int i = 0; i < CALLERS; i++)
            stopping.token[i] = token_new();
        pool_round(&pool);
        WAIT_UNTIL(STAT(stopping.cache, flights_now) == 0);
        for (int i = 0; i < CALLERS; i++)
            aside_cancel_unref(stopping.token[i]);
        if (round % 64 == 63)
            CHECK_STATUS(aside_clear(stopping.cache), ASIDE_OK);
    }
    pool_close(&pool);
    cache_end(stopping.cache);
    ground_end(&ground);
}
