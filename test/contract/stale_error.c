/*
 * stale_error.c -- stale-if-error: past its ttl a value answers for a source that fails, for a bound
 * that was reached and for a flight that grew too old; and after a failure the source is left alone for
 * a while.
 */
#include "stale.h"

static aside_cache *open_for_errors(struct fake_clock *clock)
{
    aside_options options = stale_options(clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    return open_cache(&options);
}

/* Fails with a code. */
static aside_status fails(aside_fetch *fetch, void *arg)
{
    struct source *source = (struct source *)arg;
    atomic_fetch_add(&source->fetches, 1);
    if (source->gated)
        gate_pass(&source->gate);
    return aside_fetch_fail(fetch, 7);
}

static aside_call call_failing(struct source *source)
{
    aside_call call = {ASIDE_CALL, .fetch = fails, .arg = source};
    return call;
}

static void says_7(aside_result result)
{
    CHECK_STATUS(result.fetch_status, ASIDE_E_FETCH);
    CHECK_INT(result.fetch_error, 7);
}

/* ---- a source that fails ------------------------------------------------------------------------- */

TEST(a_stale_value_answers_for_a_source_that_fails)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, 250);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    says_7(result);
    CHECK_INT(result.age_ms, TTL + 250);
    CHECK_INT(result.fenced, 0);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, stale_errors), 1);
    CHECK_INT(STAT(cache, misses_led), 1);
    CHECK_INT(STAT(cache, stale), 0); /* that is of those answered at once */
    CHECK_INT(STAT(cache, fetch_errors), 1);
    CHECK_INT(STAT(cache, get_with_fetch_ok), 1);
    check_lookups(cache, 1);
    end_cache(cache);
}

TEST(within_the_window_the_source_is_asked_first)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    make_old(cache, &clock, 0);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    CHECK_INT(STAT(cache, refreshes) + STAT(cache, stale_errors), 0);
    end_cache(cache);
}

TEST(whoever_waits_for_the_fetch_that_fails_gets_the_stale_value)
{
    struct fake_clock clock;
    struct source source;
    struct caller callers[4];
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, true);
    make_old(cache, &clock, 1);
    for (unsigned i = 0; i < COUNT_OF(callers); i++) {
        caller_init(&callers[i], cache, "k", fails, &source);
        caller_start(&callers[i]);
    }
    WAIT_UNTIL(STAT(cache, waiters_now) == COUNT_OF(callers) - 1);
    gate_open(&source.gate);
    for (unsigned i = 0; i < COUNT_OF(callers); i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        CHECK(value_is(callers[i].result.value, "old"));
        CHECK_INT(callers[i].result.outcome, ASIDE_OUTCOME_STALE);
        CHECK_INT(callers[i].result.stale_cause, ASIDE_STALE_ERROR);
        says_7(callers[i].result);
        caller_drop(&callers[i]);
    }
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, stale_errors), COUNT_OF(callers));
    check_lookups(cache, COUNT_OF(callers));
    end_cache(cache);
}

TEST(the_window_for_failures_ends_to_the_millisecond)
{
    for (int64_t past_ms = TO_ERROR - 1; past_ms <= TO_ERROR; past_ms++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_for_errors(&clock);
        source_init(&source, NULL, false);
        aside_call call = call_failing(&source);
        make_old(cache, &clock, past_ms);
        if (past_ms < TO_ERROR) {
            says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR));
        } else {
            aside_result result = call_gives(cache, &call, ASIDE_E_FETCH, NULL);
            CHECK_INT(result.fetch_error, 7);
            CHECK_INT(result.outcome, ASIDE_OUTCOME_FETCHED);
            CHECK_INT(result.stale_cause, ASIDE_STALE_NOT);
        }
        CHECK_INT(source.fetches, 1);
        end_cache(cache);
    }
}

struct slow_failure {
    struct fake_clock *clock;
    aside_cache *cache;
    int64_t takes_ms;
};

static aside_status fails_slowly(aside_fetch *fetch, void *arg)
{
    const struct slow_failure *slow = (const struct slow_failure *)arg;
    fake_clock_advance_ms(slow->clock, slow->takes_ms, slow->cache);
    return aside_fetch_fail(fetch, 7);
}

TEST(a_fetch_that_fails_after_the_windows_end_is_answered_by_nothing)
{
    for (int64_t takes_ms = 10; takes_ms <= 11; takes_ms++) {
        struct fake_clock clock;
        aside_cache *cache = open_for_errors(&clock);
        struct slow_failure slow = {&clock, cache, takes_ms};
        aside_call call = {ASIDE_CALL, .fetch = fails_slowly, .arg = &slow};
        make_old(cache, &clock, TO_ERROR - 11);
        if (takes_ms == 10)
            says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR));
        else
            (void)call_gives(cache, &call, ASIDE_E_FETCH, NULL);
        end_cache(cache);
    }
}

TEST(a_value_that_is_gone_meanwhile_answers_for_nothing)
{
    struct fake_clock clock;
    struct source source;
    struct caller leader;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, true);
    make_old(cache, &clock, 1);
    caller_init(&leader, cache, "k", fails, &source);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_FETCH);
    CHECK_INT(leader.result.fetch_error, 7);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(what_is_expired_answers_for_a_source_that_fails)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = call_failing(&source);
    put(cache, "k", "old", LONG);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_OK);
    fake_clock_advance_ms(&clock, TO_ERROR - 1, cache);
    says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR));
    end_cache(cache);
}

TEST(not_found_is_no_failure_and_ends_the_value)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    source.status = ASIDE_NOT_FOUND;
    aside_call call = call_for(&source), failing = call_failing(&source);
    make_old(cache, &clock, 1);
    (void)call_gives(cache, &call, ASIDE_NOT_FOUND, NULL);
    (void)call_gives(cache, &failing, ASIDE_E_FETCH, NULL);
    end_cache(cache);
}

/* ---- the source is left alone for a while -------------------------------------------------------- */

TEST(after_a_failure_nobody_asks_the_source_for_the_throttle_time)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, 1);
    for (int round = 1; round < 4; round++) {
        says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR));
        for (int i = 0; i < 3; i++)
            says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED));
        fake_clock_advance_ms(&clock, THROTTLE - 1, cache);
        says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED));
        CHECK_INT(source.fetches, round);
        fake_clock_advance_ms(&clock, 1, cache);
    }
    CHECK_INT(STAT(cache, stale), 12);
    CHECK_INT(STAT(cache, stale_errors), 3);
    check_lookups(cache, 15);
    source.answer = "now";
    call.fetch = source_fetch;
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    end_cache(cache);
}

TEST(the_throttle_time_is_a_second_unless_it_is_said)
{
    static const int64_t said_ms[] = {-2, ASIDE_OFF, 0, 10};
    static const int64_t want_ms[] = {1000, 0, 0, 10}; /* -2: not said */
    for (size_t i = 0; i < COUNT_OF(said_ms); i++) {
        struct fake_clock clock;
        struct source source;
        aside_options options = quiet_options();
        options.clock = fake_clock_init(&clock);
        options.default_ttl_ms = TTL;
        options.freshness.stale_if_error_ms = TO_ERROR;
        if (said_ms[i] != -2)
            options.freshness.throttle_ms = said_ms[i];
        aside_cache *cache = open_cache(&options);
        source_init(&source, NULL, false);
        aside_call call = call_failing(&source);
        make_old(cache, &clock, 1);
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
        if (want_ms[i]) {
            fake_clock_advance_ms(&clock, want_ms[i] - 1, cache);
            (void)call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
            fake_clock_advance_ms(&clock, 1, cache);
        }
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
        CHECK_INT(source.fetches, 2);
        end_cache(cache);
    }
}

TEST(who_does_not_accept_a_stale_value_asks_the_source_for_himself)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = call_failing(&source), strict = call_failing(&source);
    strict.freshness.stale_if_error_ms = ASIDE_OFF;
    make_old(cache, &clock, 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    (void)call_gives(cache, &strict, ASIDE_E_FETCH, NULL);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
    CHECK_INT(source.fetches, 2);
    end_cache(cache);
}

TEST(a_write_ends_the_throttle_time)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    put(cache, "k", "written", 1);
    fake_clock_advance_ms(&clock, 1, cache);
    says_7(call_is_stale(cache, &call, "written", ASIDE_STALE_ERROR));
    CHECK_INT(source.fetches, 2);
    end_cache(cache);
}

TEST(the_throttle_ends_with_the_window)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, TO_ERROR - 10);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    fake_clock_advance_ms(&clock, 9, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_gives(cache, &call, ASIDE_E_FETCH, NULL);
    CHECK_INT(source.fetches, 2);
    end_cache(cache);
}

/* ---- with both windows --------------------------------------------------------------------------- */

static aside_cache *open_with_both(struct fake_clock *clock)
{
    aside_options options = stale_options(clock);
    options.freshness.stale_ms = STALE;
    options.freshness.stale_if_error_ms = TO_ERROR;
    return open_cache(&options);
}

TEST(a_refresh_that_fails_throttles_and_the_next_one_is_a_refresh_again)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_both(&clock);
    held_init(&source, NULL);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, 1);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_STATUS(result.fetch_status, ASIDE_OK);
    let_go(cache, &source);
    says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED));
    fake_clock_advance_ms(&clock, THROTTLE, cache);
    held_init(&source, NULL);
    result = call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_STATUS(result.fetch_status, ASIDE_OK);
    CHECK_INT(result.fetch_error, 0);
    gate_wait_arrived(&source.gate, 1);
    result = call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_STATUS(result.fetch_status, ASIDE_OK);
    let_go(cache, &source);
    says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED));
    CHECK_INT(source.fetches, 1);
    end_cache(cache);
}

TEST(past_the_first_window_callers_wait_for_the_refresh_that_runs)
{
    struct fake_clock clock;
    struct source source;
    struct caller joiner;
    aside_cache *cache = open_with_both(&clock);
    held_init(&source, NULL);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, STALE - THROTTLE - 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(cache, &source); /* it fails, and the next one runs when the window ends */
    fake_clock_advance_ms(&clock, THROTTLE, cache);
    held_init(&source, NULL);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&source.gate, 1);
    fake_clock_advance_ms(&clock, 1, cache);
    caller_init(&joiner, cache, "k", fails, &source);
    caller_start(&joiner);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&source.gate);
    caller_is_stale(&joiner, "old", ASIDE_STALE_ERROR);
    CHECK_INT(source.fetches, 1);
    end_cache(cache);
}

TEST(the_longer_window_counts_for_failures)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.freshness.stale_if_error_ms = 10;
    aside_cache *cache = open_cache(&options);
    held_init(&source, NULL);
    aside_call call = call_failing(&source);
    make_old(cache, &clock, STALE - 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(cache, &source);
    says_7(call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED));
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_gives(cache, &call, ASIDE_E_FETCH, NULL);
    end_cache(cache);
}

/* ---- what else is a failure ---------------------------------------------------------------------- */

TEST(any_status_of_a_fetch_that_is_an_error_is_answered)
{
    static const int statuses[] = {-1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -12, -13, -77, -100000};
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_for_errors(&clock);
        source_init(&source, NULL, false);
        source.status = (aside_status)statuses[i];
        aside_call call = call_for(&source);
        make_old(cache, &clock, 1);
        aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
        CHECK_STATUS(result.fetch_status, source.status);
        result = call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
        CHECK_STATUS(result.fetch_status, source.status);
        CHECK_INT(source.fetches, 1);
        end_cache(cache);
    }
}

TEST(no_answer_at_all_is_answered)
{
    struct fake_clock clock;
    aside_cache *cache = open_for_errors(&clock);
    struct caller caller;
    aside_cancel *token = token_new();
    make_old(cache, &clock, 1);
    caller_init(&caller, cache, "k", end_the_thread, NULL);
    caller.call.cancel = token; /* so that a worker's thread ends */
    aside_result result = call_is_stale(cache, &caller.call, "old", ASIDE_STALE_ERROR);
    CHECK_STATUS(result.fetch_status, ASIDE_E_ABANDONED);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_flight_that_grew_too_old_is_answered)
{
    struct fake_clock clock;
    struct source source;
    struct caller leader, joiner;
    aside_options options = stale_options(&clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    options.max_flight_age_ms = 100;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    source_init(&source, "late", true);
    make_old(cache, &clock, 1);
    caller_ask(&leader, cache, "k", &source, token);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    join_flight(&joiner, cache, "k", &source, NULL, 2);
    fake_clock_advance_ms(&clock, 100, cache);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(leader.result.fetch_status, ASIDE_E_FETCH_TIMEOUT);
    CHECK_INT(leader.result.stale_cause, ASIDE_STALE_ERROR);
    CHECK(value_is(leader.result.value, "old"));
    caller_drop(&leader);
    caller_is_stale(&joiner, "old", ASIDE_STALE_ERROR);
    CHECK_INT(STAT(cache, stale_errors), 2);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_worker_that_does_not_start_is_answered)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    options.max_flights = 1;
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    source_init(&source, "v", false);
    aside_cancel *token = token_new();
    aside_call call = call_for(&source);
    call.cancel = token;
    make_old(cache, &clock, 1);
    process_fail_thread(1, true);
    aside_result result = call_gives(cache, &call, ASIDE_OK, "old");
    process_fail_thread(0, false);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
    CHECK(result.stale_cause == ASIDE_STALE_ERROR || result.stale_cause == ASIDE_STALE_BUSY);
    CHECK(result.fetch_status < 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

static aside_status refuse_to_start(void *ctx, void **worker)
{
    (void)ctx, (void)worker;
    return (aside_status)-77;
}

TEST(a_start_hook_that_fails_is_answered)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    options.worker.start = refuse_to_start;
    aside_cache *cache = open_cache(&options);
    source_init(&source, "v", false);
    aside_call call = call_for(&source);
    make_old(cache, &clock, 1);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    CHECK_STATUS(result.fetch_status, ASIDE_E_WORKER);
    CHECK_INT(result.fetch_error, -77);
    CHECK_INT(source.fetches, 0);
    end_cache(cache);
}

/* ---- a bound that was reached -------------------------------------------------------------------- */

static void says_busy(aside_cache *cache, const aside_call *call)
{
    aside_result result = call_is_stale(cache, call, "old", ASIDE_STALE_BUSY);
    CHECK_STATUS(result.fetch_status, ASIDE_E_BUSY);
    CHECK_INT(result.fetch_error, 0);
}

TEST(too_many_flights_are_answered)
{
    struct fake_clock clock;
    struct source held, source;
    struct caller leader;
    aside_options options = stale_options(&clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    options.max_flights = 1;
    aside_cache *cache = open_cache(&options);
    source_init(&held, "v", true);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    make_old(cache, &clock, 1);
    lead_to_gate(&leader, cache, "held", &held);
    for (int i = 0; i < 3; i++)
        says_busy(cache, &call);
    CHECK_INT(STAT(cache, stale_errors), 3);
    CHECK_INT(STAT(cache, refused), 3);
    gate_open(&held.gate);
    caller_is_fresh(&leader, "v", ASIDE_OUTCOME_FETCHED);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED); /* no throttle: it never ran */
    check_lookups(cache, 5);
    end_cache(cache);
}

TEST(too_many_waiters_are_answered)
{
    struct fake_clock clock;
    struct source source;
    struct caller leader, joiner;
    aside_options options = stale_options(&clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    options.max_waiters = 1;
    aside_cache *cache = open_cache(&options);
    source_init(&source, "now", true);
    make_old(cache, &clock, 1);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    aside_call call = call_for(&source);
    says_busy(cache, &call);
    gate_open(&source.gate);
    caller_is_fresh(&leader, "now", ASIDE_OUTCOME_FETCHED);
    caller_is_fresh(&joiner, "now", ASIDE_OUTCOME_JOINED);
    check_lookups(cache, 3);
    end_cache(cache);
}

TEST(no_worker_for_who_may_leave_is_answered)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_if_error_ms = TO_ERROR;
    options.fetch_threads = 0;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    call.cancel = token;
    make_old(cache, &clock, 1);
    says_busy(cache, &call);
    CHECK_INT(source.fetches, 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- what is the caller's own -------------------------------------------------------------------- */

TEST(who_leaves_or_is_refused_for_himself_gets_no_stale_value)
{
    struct fake_clock clock;
    struct source source;
    struct caller late, cancelled;
    aside_cache *cache = open_for_errors(&clock);
    aside_cancel *token = token_new();
    source_init(&source, "now", true);
    make_old(cache, &clock, 1);
    caller_ask(&late, cache, "k", &source, NULL);
    late.call.timeout_ms = 50;
    caller_start(&late);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    join_flight(&cancelled, cache, "k", &source, token, 2);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&cancelled), ASIDE_E_CANCELLED);
    fake_clock_advance_ms(&clock, 50, cache);
    CHECK_STATUS(caller_join(&late), ASIDE_E_TIMEOUT);
    aside_call call = call_for(&source);
    call.timeout_ms = ASIDE_NO_WAIT;
    (void)call_gives(cache, &call, ASIDE_MISS, NULL);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    (void)call_gives(cache, &call, ASIDE_E_CLOSED, NULL);
    aside_cancel_unref(token);
    aside_unref(cache);
}

static aside_status asks_itself(aside_fetch *fetch, void *arg)
{
    aside_call call = {ASIDE_CALL, .fetch = asks_itself, .arg = arg};
    (void)call_gives((aside_cache *)arg, &call, ASIDE_E_DEADLOCK, NULL);
    return aside_fetch_copy(fetch, "now", 3);
}

TEST(a_deadlock_is_not_answered)
{
    struct fake_clock clock;
    aside_cache *cache = open_for_errors(&clock);
    aside_call call = {ASIDE_CALL, .fetch = asks_itself, .arg = cache};
    make_old(cache, &clock, 1);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    end_cache(cache);
}

/* ---- a call's own window ------------------------------------------------------------------------- */

TEST(a_call_says_how_stale_a_value_may_be_that_answers_for_a_failure)
{
    static const struct {
        int64_t own_ms, past_ms;
        aside_status status;
    } cases[] = {{ASIDE_OFF, 0, ASIDE_E_FETCH},
                 {100, 99, ASIDE_OK},
                 {100, 100, ASIDE_E_FETCH},
                 {2 * TO_ERROR, TO_ERROR - 1, ASIDE_OK},
                 {2 * TO_ERROR, TO_ERROR, ASIDE_E_FETCH}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_for_errors(&clock);
        source_init(&source, NULL, false);
        aside_call call = call_failing(&source);
        call.freshness.stale_if_error_ms = cases[i].own_ms;
        make_old(cache, &clock, cases[i].past_ms);
        (void)call_gives(cache, &call, cases[i].status, cases[i].status == ASIDE_OK ? "old" : NULL);
        end_cache(cache);
    }
}

static aside_status fails_and_says(aside_fetch *fetch, void *arg)
{
    aside_freshness own = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    own.throttle_ms = 50;
    CHECK_STATUS(aside_fetch_set_freshness(fetch, &own), ASIDE_OK);
    return fails(fetch, arg);
}

TEST(a_fetch_that_fails_says_for_how_long_nobody_is_to_ask_again)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_for_errors(&clock);
    source_init(&source, NULL, false);
    aside_call call = {ASIDE_CALL, .fetch = fails_and_says, .arg = &source};
    make_old(cache, &clock, 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    fake_clock_advance_ms(&clock, 49, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_ERROR);
    CHECK_INT(source.fetches, 2);
    end_cache(cache);
}
