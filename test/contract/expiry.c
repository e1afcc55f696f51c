/*
 * expiry.c -- an entry is fresh iff now < expires_at (W2), the ttl's special values (W3), lazy
 * expiry without a thread (P2), the reaper and aside_reap(). Time moves by the injected clock; only
 * the reaper's own tests use the real one.
 */
#include "helpers.h"

static aside_status answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "fetched", 7);
}

/* ---- the instant --------------------------------------------------------------------------------- */

TEST(an_entry_is_fresh_until_just_before_its_time_and_not_at_it)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "k", "v", 1000);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    fake_clock_advance_ms(&clock, 999, cache); /* one millisecond before */
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    fake_clock_advance_ns(&clock, 999999, cache); /* one nanosecond before */
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    fake_clock_advance_ns(&clock, 1, cache); /* at */
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    fake_clock_advance_ns(&clock, 1, cache); /* after */
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(every_reader_agrees_on_the_instant)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "k", "v", 5);
    aside_call call = {ASIDE_CALL, .fetch = answer, .timeout_ms = ASIDE_NO_WAIT};
    for (int expired = 0; expired <= 1; expired++) {
        aside_status want = expired ? ASIDE_MISS : ASIDE_OK;
        aside_result result = ASIDE_RESULT_INIT;
        char buffer[1];
        fake_clock_advance_ms(&clock, expired ? 1 : 4, cache);
        CHECK_STATUS(look(cache, "k"), want);
        CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 1, NULL), want);
        CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), want);
        aside_value_unref(result.value);
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1), want); /* 1 ms from now */
    }
    end_cache(cache);
}

TEST(an_expired_entry_is_no_fresh_entry_for_the_writers)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "d", "v", 10);
    put(cache, "e", "v", 10);
    put(cache, "a", "v", 10);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("d")), ASIDE_MISS);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("e")), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("e"), 1000), ASIDE_MISS);
    CHECK_STATUS(look(cache, "e"), ASIDE_MISS); /* touch did not bring it back */
    CHECK_STATUS(aside_add(cache, ASIDE_STR("a"), ASIDE_STR("new"), 1000), ASIDE_OK);
    CHECK(holds(cache, "a", "new"));
    end_cache(cache);
}

/* ---- special ttls -------------------------------------------------------------------------------- */

TEST(ttl_0_stores_nothing_and_drops_what_was_there)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "v", 0);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    put(cache, "k", "v", 1000);
    put(cache, "k", "w", 0);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    put(cache, "k", "v", 1000);
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("w", 1, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 0), ASIDE_OK);
    aside_value_unref(value);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    put(cache, "k", "v", 1000);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 0), ASIDE_OK);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

TEST(the_default_ttl_is_the_one_of_the_options)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.default_ttl_ms = 50;
    aside_cache *cache = open_cache(&options);
    aside_call call = {ASIDE_CALL, .fetch = answer}; /* ttl_ms 0: the default */
    aside_result result = ASIDE_RESULT_INIT;
    put(cache, "set", "v", ASIDE_DEFAULT_TTL);
    put(cache, "touched", "v", 10);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("touched"), ASIDE_DEFAULT_TTL), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("added"), "v", 1, ASIDE_DEFAULT_TTL), ASIDE_OK);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("fetched"), &call, &result), ASIDE_OK);
    CHECK_INT(result.ttl_left_ms, 50);
    aside_value_unref(result.value);
    static const char *const keys[] = {"set", "touched", "added", "fetched"};
    fake_clock_advance_ms(&clock, 49, cache);
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        CHECK_STATUS(look(cache, keys[i]), ASIDE_OK);
    fake_clock_advance_ms(&clock, 1, cache);
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        CHECK_STATUS(look(cache, keys[i]), ASIDE_MISS);
    end_cache(cache);
}

TEST(forever_and_sums_that_would_overflow_do_not_expire)
{
    static const int64_t ttls[] = {ASIDE_FOREVER, ASIDE_FOREVER - 1, INT64_MAX / 1000000,
                                   INT64_MAX / 1000000 + 1, INT64_MAX / 1000000 - 1000000};
    const int64_t century_ms = INT64_C(36525) * 86400 * 1000;
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    char key[2] = "0";
    for (size_t i = 0; i < COUNT_OF(ttls); i++) {
        key[0] = (char)('0' + i);
        put(cache, key, "v", ttls[i]);
    }
    for (int century = 0; century < 2; century++) {
        fake_clock_advance_ms(&clock, century_ms, cache);
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        for (size_t i = 0; i < COUNT_OF(ttls); i++) {
            key[0] = (char)('0' + i);
            CHECK_STATUS(look(cache, key), ASIDE_OK);
        }
    }
    end_cache(cache);
}

TEST(a_ttl_of_24_hours_ends_after_24_hours)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "k", "v", 86400000);
    fake_clock_advance_ms(&clock, 86399999, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(overwriting_replaces_the_ttl_in_both_directions)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "longer", "v", 10);
    put(cache, "longer", "v", 1000);
    put(cache, "shorter", "v", 1000);
    put(cache, "shorter", "v", 10);
    put(cache, "restarted", "v", 15);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(look(cache, "longer"), ASIDE_OK);
    CHECK_STATUS(look(cache, "shorter"), ASIDE_MISS);
    put(cache, "restarted", "v", 15); /* the ttl runs from the store */
    fake_clock_advance_ms(&clock, 14, cache);
    CHECK_STATUS(look(cache, "restarted"), ASIDE_OK);
    end_cache(cache);
}

TEST(touch_gives_a_new_ttl_from_now_and_leaves_the_value)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "k", "v", 10);
    for (int i = 0; i < 5; i++) {
        fake_clock_advance_ms(&clock, 9, cache);
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 10), ASIDE_OK);
    }
    CHECK(holds(cache, "k", "v"));
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 2), ASIDE_OK); /* shorter, too */
    fake_clock_advance_ms(&clock, 2, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    put(cache, "k", "v", 10);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), ASIDE_FOREVER), ASIDE_OK);
    fake_clock_advance_ms(&clock, 1000000000, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    end_cache(cache);
}

TEST(after_the_ttl_of_a_call_the_fetch_runs_again)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source source;
    source_init(&source, "10", false);
    struct caller caller;
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.ttl_ms = 30;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    source.answer = "20";
    fake_clock_advance_ms(&clock, 29, cache);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "10"));
    caller_drop(&caller);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "20"));
    caller_drop(&caller);
    CHECK_INT(source.fetches, 2);
    end_cache(cache);
}

/* ---- what a result says about time --------------------------------------------------------------- */

TEST(a_result_tells_age_and_time_left)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct caller caller;
    caller_init(&caller, cache, "k", answer, NULL);
    caller.call.ttl_ms = 100;
    caller_run(&caller);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(caller.result.age_ms, 0);
    CHECK_INT(caller.result.ttl_left_ms, 100);
    caller_drop(&caller);
    fake_clock_advance_ms(&clock, 30, cache);
    caller_run(&caller);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_HIT);
    CHECK_INT(caller.result.age_ms, 30);
    CHECK_INT(caller.result.ttl_left_ms, 70);
    caller_drop(&caller);
    put(cache, "k", "v", ASIDE_FOREVER);
    fake_clock_advance_ms(&clock, 5, cache);
    caller_run(&caller);
    CHECK_INT(caller.result.age_ms, 5);
    CHECK_INT(caller.result.ttl_left_ms, ASIDE_FOREVER);
    caller_drop(&caller);
    end_cache(cache);
}

TEST(a_value_that_is_not_stored_has_no_time_left)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct caller caller;
    caller_init(&caller, cache, "k", answer, NULL);
    caller.call.ttl_ms = ASIDE_NO_STORE;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.ttl_left_ms, 0);
    CHECK_INT(caller.result.age_ms, 0);
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

static aside_status slow_answer(aside_fetch *fetch, void *arg)
{
    fake_clock_advance_ms(arg, 500, NULL);
    return aside_fetch_copy(fetch, "slow", 4);
}

TEST(the_ttl_runs_from_the_store_not_from_the_start_of_the_fetch)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct caller caller;
    caller_init(&caller, cache, "k", slow_answer, &clock);
    caller.call.ttl_ms = 100;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.ttl_left_ms, 100);
    CHECK_INT(caller.result.age_ms, 0);
    caller_drop(&caller);
    fake_clock_advance_ms(&clock, 99, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

/* ---- without a reaper ---------------------------------------------------------------------------- */

TEST(without_a_reaper_no_thread_exists_and_expiry_is_lazy)
{
    int tasks = process_threads(), created = threads_created();
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "k", "v", 10);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    struct caller caller;
    caller_init(&caller, cache, "k", answer, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK_INT(process_threads(), tasks);
    CHECK_INT(process_threads_named("aside-"), 0);
    CHECK_INT(threads_created(), created);
    end_cache(cache);
    CHECK_INT(threads_created(), created);
}

TEST(lazy_removal_never_removes_a_newer_entry)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    for (int i = 0; i < 100; i++) {
        put(cache, "k", "old", 10);
        fake_clock_advance_ms(&clock, 10, cache);
        CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
        put(cache, "k", "new", 10);
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        CHECK(holds(cache, "k", "new"));
        CHECK_INT(aside_count(cache), 1);
    }
    end_cache(cache);
}

TEST(reap_removes_the_expired_and_only_them_and_says_how_many)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    char key[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(cache, key, "v", i % 2 == 0 ? 10 : 1000);
    }
    size_t reaped = 99;
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 0);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 500);
    CHECK_INT(aside_count(cache), 500);
    for (int i = 1; i < 1000; i += 2) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_STATUS(look(cache, key), ASIDE_OK);
    }
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, expired), 500);
    end_cache(cache);
}

TEST(a_reap_looks_at_no_more_than_its_budget_and_gets_round_in_the_end)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    char key[16];
    for (int i = 0; i < 400; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(cache, key, "v", 10);
    }
    fake_clock_advance_ms(&clock, 10, cache);
    size_t sum = 0;
    int calls = 0;
    for (; aside_count(cache) > 0 && calls < 4000; calls++) {
        size_t before = aside_count(cache), reaped = 0;
        CHECK_STATUS(aside_reap(cache, 10, &reaped), ASIDE_OK);
        CHECK(reaped <= 10);
        CHECK_INT(before - aside_count(cache), reaped);
        sum += reaped;
    }
    CHECK_INT(aside_count(cache), 0);
    CHECK_INT(sum, 400);
    CHECK(calls >= 40);
    end_cache(cache);
}

TEST(entries_that_are_set_and_never_read_do_not_accumulate)
{
    struct fake_clock clock;
    struct ledger ledger;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    char key[32];
    int64_t first_bytes = 0;
    for (int wave = 0; wave < 20; wave++) {
        for (int i = 0; i < 1000; i++) {
            snprintf(key, sizeof key, "%d/%d", wave, i);
            put(cache, key, "some value of a certain length", 10);
        }
        fake_clock_advance_ms(&clock, 10, cache);
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        CHECK_INT(aside_count(cache), 0);
        if (wave == 0)
            first_bytes = atomic_load(&ledger.live_bytes);
    }
    CHECK(atomic_load(&ledger.live_bytes) <= first_bytes + 65536);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- with a reaper (real clock) ------------------------------------------------------------------ */

/* One round: true if the short key was gone within 200 ms and the long one still hits. */
static bool reaped_in_time(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 20;
    aside_cache *cache = open_cache(&options);
    int64_t start = test_now_ns();
    put(cache, "long", "v", 60000);
    put(cache, "short", "v", 5);
    WAIT_UNTIL(aside_count(cache) == 1);
    int64_t took_ms = (test_now_ns() - start) / 1000000;
    CHECK_STATUS(look(cache, "long"), ASIDE_OK);
    CHECK_STATUS(look(cache, "short"), ASIDE_MISS);
    end_cache(cache);
    return took_ms < 200;
}

/* A busy machine may hold the reaper up; it is slow only if it is slow five times running. */
TEST(the_reaper_removes_a_short_key_within_200_ms_beside_a_long_one)
{
    int rounds = 1;
    while (!reaped_in_time())
        CHECK(++rounds <= 5);
}

TEST(the_reaper_empties_a_cache_that_nobody_reads)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 20;
    aside_cache *cache = open_cache(&options);
    WAIT_UNTIL(process_threads_named("aside-") == 1); /* it names itself */
    for (int i = 0; i < 5000; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, 5), ASIDE_OK);
    WAIT_UNTIL(aside_count(cache) == 0);
    WAIT_UNTIL(STAT(cache, expired) == 5000); /* the reaper counts after a round */
    end_cache(cache);
}

TEST(reap_beside_a_reaper_is_harmless)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 1;
    aside_cache *cache = open_cache(&options);
    put(cache, "stays", "v", 60000);
    for (int i = 0; i < 2000; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, 1), ASIDE_OK);
        if (i % 16 == 0)
            CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    }
    WAIT_UNTIL(aside_count(cache) == 1);
    CHECK(holds(cache, "stays", "v"));
    end_cache(cache);
}
