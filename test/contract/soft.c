/*
 * soft.c -- the soft timeout: who has a stale value at hand waits so long for the fetch and no longer,
 * which goes on without him.
 */
#include "stale.h"

#define SOFT 100

/* stale_ms and stale_if_error_ms as said, the soft timeout too. */
static aside_cache *open_soft(struct fake_clock *clock, int64_t stale_ms, int64_t error_ms,
                              int64_t soft_ms)
{
    aside_options options = stale_options(clock);
    options.freshness.stale_ms = stale_ms;
    options.freshness.stale_if_error_ms = error_ms;
    options.freshness.soft_timeout_ms = soft_ms;
    aside_cache *cache = open_cache(&options);
    make_old(cache, clock, 1);
    return cache;
}

/* Starts a caller; returns once so many wait, and the first one's fetch stands at the gate. */
static void wait_softly(struct caller *caller, aside_cache *cache, struct source *source,
                        unsigned waiters)
{
    caller_ask(caller, cache, "k", source, NULL);
    caller_start(caller);
    gate_wait_arrived(&source->gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == waiters);
}

/* ---- late, or in time ---------------------------------------------------------------------------- */

TEST(who_waits_too_long_takes_the_stale_value_and_the_fetch_goes_on)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, "now", true);
    wait_softly(&caller, cache, &source, 1);
    fake_clock_advance_ms(&clock, SOFT - 1, cache);
    test_yield();
    CHECK_INT(STAT(cache, waiters_now), 1);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "old"));
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(caller.result.stale_cause, ASIDE_STALE_LATE);
    CHECK_STATUS(caller.result.fetch_status, ASIDE_OK);
    CHECK_INT(caller.result.age_ms, TTL + 1 + SOFT);
    CHECK_INT(caller.result.ttl_left_ms, 0);
    caller_drop(&caller);
    let_go(cache, &source);
    aside_call call = call_for(&source);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, stale_late), 1);
    CHECK_INT(STAT(cache, timeouts), 0);
    CHECK_INT(STAT(cache, fetch_stored), 1);
    check_lookups(cache, 2);
    end_cache(cache);
}

TEST(a_fetch_that_ends_in_time_wins)
{
    struct fake_clock clock;
    struct source source;
    struct caller leader, joiner;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, "now", true);
    wait_softly(&leader, cache, &source, 1);
    wait_softly(&joiner, cache, &source, 2);
    fake_clock_advance_ms(&clock, SOFT - 1, cache);
    gate_open(&source.gate);
    caller_is_fresh(&leader, "now", ASIDE_OUTCOME_FETCHED);
    caller_is_fresh(&joiner, "now", ASIDE_OUTCOME_JOINED);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, stale_late), 0);
    wait_for_fetches(cache);
    check_lookups(cache, 2);
    end_cache(cache);
}

TEST(each_caller_waits_for_his_own_time)
{
    struct fake_clock clock;
    struct source source;
    struct caller first, second, third;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, "now", true);
    wait_softly(&first, cache, &source, 1);
    fake_clock_advance_ms(&clock, SOFT / 2, cache);
    wait_softly(&second, cache, &source, 2);
    caller_ask(&third, cache, "k", &source, NULL);
    third.call.freshness.soft_timeout_ms = ASIDE_FOREVER;
    caller_start(&third);
    WAIT_UNTIL(STAT(cache, waiters_now) == 3);
    fake_clock_advance_ms(&clock, SOFT / 2, cache);
    caller_is_stale(&first, "old", ASIDE_STALE_LATE);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    fake_clock_advance_ms(&clock, SOFT / 2, cache);
    caller_is_stale(&second, "old", ASIDE_STALE_LATE);
    fake_clock_advance_ms(&clock, SOFT, cache);
    gate_open(&source.gate);
    caller_is_fresh(&third, "now", ASIDE_OUTCOME_JOINED);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, stale_late), 2);
    end_cache(cache);
}

TEST(a_fetch_that_fails_in_time_is_answered_as_a_failure)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, NULL, true);
    source.status = (aside_status)-77;
    wait_softly(&caller, cache, &source, 1);
    gate_open(&source.gate);
    caller_is_stale(&caller, "old", ASIDE_STALE_ERROR);
    CHECK_STATUS(caller.result.fetch_status, (aside_status)-77);
    CHECK_INT(STAT(cache, stale_late), 0);
    aside_call call = call_for(&source);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED); /* he does not wait now */
    end_cache(cache);
}

TEST(a_fetch_that_fails_after_its_callers_have_left_throttles)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, NULL, true);
    source.status = (aside_status)-77;
    wait_softly(&caller, cache, &source, 1);
    fake_clock_advance_ms(&clock, SOFT, cache);
    caller_is_stale(&caller, "old", ASIDE_STALE_LATE);
    let_go(cache, &source);
    aside_call call = call_for(&source);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
    CHECK_STATUS(result.fetch_status, (aside_status)-77);
    CHECK_INT(source.fetches, 1);
    end_cache(cache);
}

/* ---- how long ------------------------------------------------------------------------------------ */

TEST(without_a_soft_timeout_nobody_waits)
{
    static const int64_t options_ms[] = {0, ASIDE_NO_WAIT, SOFT};
    static const int64_t call_ms[] = {0, 0, ASIDE_NO_WAIT};
    for (size_t i = 0; i < COUNT_OF(call_ms); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_soft(&clock, STALE, 0, options_ms[i]);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        call.freshness.soft_timeout_ms = call_ms[i];
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
        CHECK_INT(STAT(cache, refreshes), 1);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(the_calls_own_soft_timeout_counts)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, 0);
    source_init(&source, "now", true);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.freshness.soft_timeout_ms = SOFT / 2;
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    fake_clock_advance_ms(&clock, SOFT / 2, cache);
    caller_is_stale(&caller, "old", ASIDE_STALE_LATE);
    let_go(cache, &source);
    CHECK(holds(cache, "k", "now"));
    end_cache(cache);
}

TEST(for_ever_is_until_the_fetch_ends)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, LONG, 0, ASIDE_FOREVER);
    source_init(&source, "now", true);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    fake_clock_advance_ms(&clock, 29999, cache); /* the flight's age is a bound still */
    CHECK(!caller.done);
    gate_open(&source.gate);
    caller_is_fresh(&caller, "now", ASIDE_OUTCOME_FETCHED);
    end_cache(cache);
}

TEST(past_the_window_for_a_refresh_a_caller_waits_until_the_fetch_ends_or_the_soft_timeout)
{
    for (int soft = 0; soft < 2; soft++) {
        struct fake_clock clock;
        struct source source;
        struct caller caller;
        aside_cache *cache = open_soft(&clock, 0, TO_ERROR, soft ? SOFT : 0);
        source_init(&source, "now", true);
        caller_ask(&caller, cache, "k", &source, NULL);
        caller_start(&caller);
        gate_wait_arrived(&source.gate, 1);
        WAIT_UNTIL(STAT(cache, waiters_now) == (unsigned)soft); /* or he runs it himself */
        fake_clock_advance_ms(&clock, SOFT, cache);
        if (soft)
            caller_is_stale(&caller, "old", ASIDE_STALE_LATE);
        gate_open(&source.gate);
        if (!soft)
            caller_is_fresh(&caller, "now", ASIDE_OUTCOME_FETCHED);
        wait_for_fetches(cache);
        CHECK(holds(cache, "k", "now"));
        end_cache(cache);
    }
}

TEST(who_has_nothing_stale_at_hand_waits_until_the_fetch_ends)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    source_init(&source, "now", true);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    fake_clock_advance_ms(&clock, 2 * SOFT, cache);
    CHECK(!caller.done);
    gate_open(&source.gate);
    caller_is_fresh(&caller, "now", ASIDE_OUTCOME_FETCHED);
    CHECK_INT(STAT(cache, stale_late), 0);
    end_cache(cache);
}

/* ---- what comes between -------------------------------------------------------------------------- */

TEST(if_the_stale_value_was_deleted_meanwhile_the_caller_waits_on)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, "now", true);
    wait_softly(&caller, cache, &source, 1);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    fake_clock_advance_ms(&clock, 2 * SOFT, cache);
    test_yield();
    CHECK(!caller.done);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "now"));
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(caller.result.fenced, 1);
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_INT(STAT(cache, stale_late), 0);
    end_cache(cache);
}

TEST(if_its_windows_have_ended_meanwhile_the_caller_waits_on)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, SOFT, 0, SOFT);
    source_init(&source, "now", true);
    wait_softly(&caller, cache, &source, 1);
    fake_clock_advance_ms(&clock, SOFT, cache);
    test_yield();
    CHECK(!caller.done);
    gate_open(&source.gate);
    caller_is_fresh(&caller, "now", ASIDE_OUTCOME_FETCHED);
    end_cache(cache);
}

TEST(a_hard_deadline_that_comes_first_is_a_timeout)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, "now", true);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = SOFT - 1;
    caller_start(&caller);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    fake_clock_advance_ms(&clock, SOFT - 1, cache);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_TIMEOUT);
    let_go(cache, &source);
    end_cache(cache);
}

TEST(a_hard_deadline_that_comes_later_is_one_if_there_is_nothing_stale_by_then)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    source_init(&source, "now", true);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = 2 * SOFT;
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    fake_clock_advance_ms(&clock, SOFT, cache);
    test_yield();
    CHECK(!caller.done);
    fake_clock_advance_ms(&clock, SOFT, cache);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_TIMEOUT);
    let_go(cache, &source);
    end_cache(cache);
}

TEST(a_token_that_fires_before_it_is_a_cancellation)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_cache *cache = open_soft(&clock, STALE, 0, SOFT);
    aside_cancel *token = token_new();
    source_init(&source, "now", true);
    caller_ask(&caller, cache, "k", &source, token);
    caller_start(&caller);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    let_go(cache, &source);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(closing_the_cache_comes_before_a_stale_value)
{
    struct fake_clock clock;
    struct source source;
    struct caller caller;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.freshness.soft_timeout_ms = SOFT;
    options.close_wait_ms = 0;
    aside_cache *cache = open_cache(&options);
    make_old(cache, &clock, 1);
    source_init(&source, "now", true);
    wait_softly(&caller, cache, &source, 1);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CLOSED);
    gate_open(&source.gate);
    WAIT_UNTIL(source.finished == 1);
    aside_unref(cache);
    wait_for_no_threads();
}

/* Who may leave softly cannot run the fetch himself. */
TEST(without_a_worker_the_stale_value_is_there_at_once)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.freshness.soft_timeout_ms = SOFT;
    options.fetch_threads = 0;
    aside_cache *cache = open_cache(&options);
    make_old(cache, &clock, 1);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_BUSY);
    CHECK_STATUS(result.fetch_status, ASIDE_E_BUSY);
    end_cache(cache);
}

TEST(a_caller_joins_the_refresh_that_runs_and_leaves_it_softly)
{
    struct fake_clock clock;
    struct source source, never;
    struct caller joiner;
    aside_cache *cache = open_soft(&clock, STALE, 0, 0);
    held_init(&source, "now");
    source_init(&never, "never", false);
    aside_call call = call_for(&source);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&source.gate, 1);
    caller_ask(&joiner, cache, "k", &never, NULL);
    joiner.call.freshness.soft_timeout_ms = SOFT;
    caller_start(&joiner);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    fake_clock_advance_ms(&clock, SOFT, cache);
    caller_is_stale(&joiner, "old", ASIDE_STALE_LATE);
    let_go(cache, &source);
    CHECK(holds(cache, "k", "now"));
    CHECK_INT(never.fetches, 0);
    check_lookups(cache, 3);
    end_cache(cache);
}
