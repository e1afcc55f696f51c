/*
 * oom.c -- P5: every allocation and every thread creation that fails is an error code or a slower
 * path, never a crash, a leak, an exit or a hang. A scenario is run with its n-th allocation failing
 * for every n, once and from then on; what it was told is checked against the documented codes.
 */
#include "helpers.h"

/* ---- what a call may say when memory or threads are short ---------------------------------------- */

static void check_one_of(int line, aside_status status, const aside_status *allowed, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (status == allowed[i])
            return;
    test_fail(__FILE__, line, "a status that this call does not document", aside_status_name(status));
}

#define CHECK_ONE_OF(status, ...)                                                                  \
    check_one_of(__LINE__, (status), (const aside_status[]){__VA_ARGS__},                          \
                 COUNT_OF(((const aside_status[]){__VA_ARGS__})))
#define CHECK_WROTE(status) CHECK_ONE_OF(status, ASIDE_OK, ASIDE_E_NOMEM, ASIDE_E_BUSY)
#define CHECK_FETCHED(status)                                                                      \
    CHECK_ONE_OF(status, ASIDE_OK, ASIDE_NOT_FOUND, ASIDE_E_NOMEM, ASIDE_E_BUSY)

/* A call, and that a value comes with success and with nothing else. */
static aside_status call_key(aside_cache *cache, const char *key, aside_fetch_fn *fetch, void *arg,
                             aside_cancel *token)
{
    struct caller caller;
    caller_init(&caller, cache, key, fetch, arg);
    caller.call.cancel = token;
    aside_status status = caller_run(&caller);
    if (status == ASIDE_OK)
        CHECK(value_is(caller.result.value, "fetched"));
    caller_drop(&caller);
    return status;
}

static aside_status copy_answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "fetched", 7);
}

static aside_status buffer_answer(aside_fetch *fetch, void *arg)
{
    void *to = NULL;
    (void)arg;
    aside_status status = aside_fetch_buffer(fetch, 7, &to);
    if (status == ASIDE_OK)
        memcpy(to, "fetched", 7);
    return status;
}

/* ---- the parts of the scenario ------------------------------------------------------------------- */

static struct ledger ledger;
static struct fake_clock clock_;
static struct tally tally;

static void store_and_read(aside_cache *cache)
{
    aside_value *value = NULL;
    char buffer[8];
    CHECK_WROTE(aside_set(cache, ASIDE_STR("set"), ASIDE_STR("v"), ASIDE_FOREVER));
    CHECK_WROTE(aside_set(cache, ASIDE_STR("set"), ASIDE_STR("overwritten"), 1000));
    CHECK_WROTE(aside_add(cache, ASIDE_STR("added"), ASIDE_STR("v"), 1000));
    if (aside_value_wrap(&tally.slot[tally.made], 9, tally_free, &tally, &value) == ASIDE_OK) {
        tally.made++;
        CHECK_WROTE(aside_set_value(cache, ASIDE_STR("wrapped"), value, 1000));
        CHECK_WROTE(aside_set_value(cache, ASIDE_STR("again"), value, 1000));
        aside_value_unref(value);
    }
    if (aside_value_copy("copied", 6, &value) == ASIDE_OK) {
        CHECK_WROTE(aside_set_value(cache, ASIDE_STR("copied"), value, 1000));
        aside_value_unref(value);
    }
    CHECK_ONE_OF(aside_get(cache, ASIDE_STR("set"), &value), ASIDE_OK, ASIDE_MISS);
    aside_value_unref(value);
    CHECK_ONE_OF(aside_copy(cache, ASIDE_STR("added"), buffer, 8, NULL), ASIDE_OK, ASIDE_MISS);
    CHECK_ONE_OF(aside_touch(cache, ASIDE_STR("added"), 5), ASIDE_OK, ASIDE_MISS);
    CHECK_ONE_OF(aside_expire(cache, ASIDE_STR("copied")), ASIDE_OK, ASIDE_MISS);
    CHECK_ONE_OF(aside_delete(cache, ASIDE_STR("wrapped")), ASIDE_OK, ASIDE_MISS);
}

struct joined {
    aside_cache *cache;
    _Atomic bool fetching, leader_done, joiner_done;
};

/* Ends once somebody has joined, or the joiner has been refused. */
static aside_status answer_when_joined(aside_fetch *fetch, void *arg)
{
    struct joined *joined = arg;
    atomic_store(&joined->fetching, true);
    WAIT_UNTIL(STAT(joined->cache, waiters_now) > 0 || atomic_load(&joined->joiner_done));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void *lead_main(void *arg)
{
    struct joined *joined = arg;
    CHECK_FETCHED(call_key(joined->cache, "joined", answer_when_joined, joined, NULL));
    atomic_store(&joined->leader_done, true);
    return NULL;
}

static void lead_and_join(aside_cache *cache)
{
    struct joined joined = {.cache = cache};
    pthread_t leader = thread_start(lead_main, &joined);
    WAIT_UNTIL(atomic_load(&joined.fetching) || atomic_load(&joined.leader_done));
    CHECK_FETCHED(call_key(cache, "joined", copy_answer, NULL, NULL));
    atomic_store(&joined.joiner_done, true);
    thread_join(leader);
}

static void *call_superseding(void *arg)
{
    CHECK_FETCHED(call_key(arg, "old", copy_answer, NULL, NULL));
    return NULL;
}

/* While it runs its flight grows too old and another thread leads a new one. */
static aside_status answer_too_late(aside_fetch *fetch, void *arg)
{
    fake_clock_advance_ms(&clock_, 40000, arg);
    thread_join(thread_start(call_superseding, arg));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static aside_status fence_itself(aside_fetch *fetch, void *arg)
{
    CHECK_WROTE(aside_set(arg, ASIDE_STR("fenced"), ASIDE_STR("x"), 1000));
    CHECK_ONE_OF(aside_delete(arg, ASIDE_STR("fenced")), ASIDE_OK, ASIDE_MISS);
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void fetch_in_every_way(aside_cache *cache)
{
    aside_cancel *token = NULL;
    CHECK_ONE_OF(aside_cancel_new(&token), ASIDE_OK, ASIDE_E_NOMEM);
    CHECK_FETCHED(call_key(cache, "led", copy_answer, NULL, NULL));
    CHECK_FETCHED(call_key(cache, "buffer", buffer_answer, NULL, NULL));
    lead_and_join(cache);
    CHECK_FETCHED(call_key(cache, "worker", copy_answer, NULL, token));
    CHECK_FETCHED(call_key(cache, "worker2", buffer_answer, NULL, token));
    CHECK_FETCHED(call_key(cache, "fenced", fence_itself, cache, NULL));
    CHECK_FETCHED(call_key(cache, "old", answer_too_late, cache, NULL));
    aside_cancel_fire(token);
    CHECK_ONE_OF(call_key(cache, "cancelled", copy_answer, NULL, token), ASIDE_OK,
                 ASIDE_E_CANCELLED, ASIDE_E_NOMEM, ASIDE_E_BUSY);
    aside_cancel_unref(token);
}

static void grow(aside_cache *cache, int entries)
{
    for (int i = 0; i < entries; i++)
        CHECK_WROTE(aside_set(cache, &i, sizeof i, "v", 1, 1000));
    for (int i = 0; i < entries; i += 16)
        CHECK_ONE_OF(aside_delete(cache, &i, sizeof i), ASIDE_OK, ASIDE_MISS);
}

static void shrink(aside_cache *cache)
{
    fake_clock_advance_ms(&clock_, 1000, cache);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_WROTE(aside_set(cache, ASIDE_STR("last"), ASIDE_STR("v"), 1000));
    CHECK_ONE_OF(aside_clear(cache), ASIDE_OK, ASIDE_E_NOMEM);
    CHECK_ONE_OF(look(cache, "last"), ASIDE_MISS, ASIDE_OK);
}

/* One run; true if the cache could be opened at all. */
static bool scenario(bool reaper, bool fetches, int entries)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = NULL;
    options.reaper_interval_ms = reaper ? 300000 : 0;
    options.clock = fake_clock_init(&clock_);
    options.alloc = (aside_alloc){0};
    options.alloc = ledger_init(&ledger);
    ledger.fail_at = 0;
    tally.made = tally.freed = 0;
    memset(tally.slot, 0, sizeof tally.slot[0] * 8);
    return aside_open(&cache, &options) == ASIDE_OK && cache != NULL && fetches && entries;
}
