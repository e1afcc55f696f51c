/*
 * flight.c -- one fetch for all who miss together (F1 to F6): who leads, who joins, what each of
 * them gets, and what a fetch may answer.
 */
#include "helpers.h"

/* ---- miss, hit ----------------------------------------------------------------------------------- */

TEST(a_miss_fetches_and_the_next_call_hits)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller caller;
    source_init(&source, "value", false);
    caller_ask(&caller, cache, "k", &source, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "value"));
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(caller.result.shared, 0);
    CHECK_INT(caller.result.fenced, 0);
    CHECK_INT(caller.result.fetch_error, 0);
    caller_drop(&caller);
    CHECK(holds(cache, "k", "value"));
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "value"));
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_HIT);
    CHECK_INT(caller.result.shared, 0);
    caller_drop(&caller);
    CHECK_INT(source.fetches, 1);
    end_cache(cache);
}

TEST(an_entry_that_was_set_is_a_hit_and_nothing_is_fetched)
{
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "fetched", false);
    put(cache, "k", "set", 1000);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    CHECK_INT(source.fetches, 0);
    CHECK(holds(cache, "k", "set"));
    end_cache(cache);
}

static aside_status echo_key(aside_fetch *fetch, void *arg)
{
    size_t size = 0;
    const void *key = aside_fetch_key(fetch, &size);
    CHECK(arg == NULL);
    CHECK(aside_fetch_worker(fetch) == NULL);
    return aside_fetch_copy(fetch, key, size);
}

TEST(the_fetch_is_told_the_key)
{
    static const char *const keys[] = {"", "k",
                                       "https://example.org/sns/cert.pem?region=eu-west-1"};
    aside_cache *cache = open_quiet();
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        struct caller caller;
        caller_init(&caller, cache, keys[i], echo_key, NULL);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK(value_is(caller.result.value, keys[i]));
        caller_drop(&caller);
    }
    static char longest[ASIDE_MAX_KEY];
    memset(longest, 'k', sizeof longest);
    aside_call call = {ASIDE_CALL, .fetch = echo_key};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, longest, sizeof longest, &call, &result), ASIDE_OK);
    CHECK_INT(aside_value_size(result.value), sizeof longest);
    CHECK(memcmp(aside_value_data(result.value), longest, sizeof longest) == 0);
    aside_value_unref(result.value);
    end_cache(cache);
}

TEST(no_wait_hits_or_misses_and_starts_nothing)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(caller_run(&caller), ASIDE_MISS);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(source.fetches, 0);
    put(cache, "k", "there", 1000);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "there"));
    caller_drop(&caller);
    CHECK_INT(source.fetches, 0);
    end_cache(cache);
}

TEST(no_wait_does_not_join_either)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader, caller;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(caller_run(&caller), ASIDE_MISS);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    caller_drop(&leader);
    end_cache(cache);
}

/* ---- many callers, one fetch --------------------------------------------------------------------- */

static struct caller herd[1000];

/* `count` callers miss together; all get one value object from one fetch. */
static void check_herd(unsigned count, aside_cancel *token)
{
    aside_options options = quiet_options();
    options.max_flight_age_ms = 0; /* a thousand threads may take their time, under valgrind say */
    aside_cache *cache = open_cache(&options);
    struct source source;
    source_init(&source, "one", true);
    for (unsigned i = 0; i < count; i++) {
        caller_ask(&herd[i], cache, "k", &source, token);
        caller_start(&herd[i]);
    }
    gate_wait_arrived(&source.gate, 1);
    /* a leader on his own thread does not wait; one that may leave does */
    WAIT_UNTIL(STAT(cache, waiters_now) == (token == NULL ? count - 1 : count));
    gate_open(&source.gate);
    unsigned led = 0;
    for (unsigned i = 0; i < count; i++) {
        CHECK_STATUS(caller_join(&herd[i]), ASIDE_OK);
        CHECK(herd[i].result.value == herd[0].result.value);
        CHECK_INT(herd[i].result.shared, count > 1);
        CHECK_INT(herd[i].result.fenced, 0);
        led += herd[i].result.outcome == ASIDE_OUTCOME_FETCHED;
        if (herd[i].result.outcome != ASIDE_OUTCOME_FETCHED)
            CHECK_INT(herd[i].result.outcome, ASIDE_OUTCOME_JOINED);
    }
    CHECK(value_is(herd[0].result.value, "one"));
    CHECK_INT(led, 1);
    CHECK_INT(source.fetches, 1);
    WAIT_UNTIL(STAT(cache, fetches) == 1);
    CHECK_INT(STAT(cache, misses_led), 1);
    CHECK_INT(STAT(cache, misses_joined), count - 1);
    CHECK_INT(STAT(cache, waiters_now), 0);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    for (unsigned i = 0; i < count; i++)
        caller_drop(&herd[i]);
    CHECK(holds(cache, "k", "one"));
    end_cache(cache);
}

TEST(one_caller_shares_with_nobody)
{
    check_herd(1, NULL);
}

TEST(two_callers_share_one_fetch)
{
    check_herd(2, NULL);
}

TEST(twenty_callers_share_one_fetch)
{
    check_herd(20, NULL);
}

TEST(sixty_four_callers_share_one_fetch)
{
    check_herd(64, NULL);
}

TEST(a_thousand_callers_share_one_fetch)
{
    check_herd(1000, NULL);
}

TEST(callers_that_may_leave_share_one_fetch_on_a_worker)
{
    aside_cancel *token = token_new();
    check_herd(1, token);
    check_herd(20, token);
    aside_cancel_unref(token);
}

static aside_status joiners_fetch(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    CHECK(!"the joiner's fetch ran");
    return ASIDE_E_FETCH;
}

TEST(the_options_of_a_joiner_are_not_used)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "led", true);
    caller_ask(&leader, cache, "k", &source, NULL);
    leader.call.ttl_ms = 5000;
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    caller_init(&joiner, cache, "k", joiners_fetch, &joiner);
    joiner.call.ttl_ms = ASIDE_NO_STORE;
    caller_start(&joiner);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(value_is(joiner.result.value, "led"));
    CHECK(joiner.result.ttl_left_ms > 0 && joiner.result.ttl_left_ms <= 5000);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK(holds(cache, "k", "led"));
    end_cache(cache);
}

/* ---- different keys ------------------------------------------------------------------------------ */

TEST(different_keys_do_not_wait_for_each_other)
{
    aside_cache *cache = open_quiet();
    struct source held, free_source;
    struct caller leader;
    source_init(&held, "held", true);
    source_init(&free_source, "free", false);
    lead_to_gate(&leader, cache, "held", &held);
    char key[16];
    for (int i = 0; i < 300; i++) { /* enough to meet every shard */
        snprintf(key, sizeof key, "free%d", i);
        CHECK_STATUS(ask(cache, key, &free_source), ASIDE_OK);
    }
    CHECK_INT(free_source.fetches, 300);
    CHECK_INT(held.finished, 0);
    gate_open(&held.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    caller_drop(&leader);
    end_cache(cache);
}

TEST(plain_verbs_do_not_wait_for_a_fetch_of_their_key)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader;
    source_init(&source, "fetched", true);
    lead_to_gate(&leader, cache, "k", &source);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1000), ASIDE_MISS);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    put(cache, "k", "set", 1000);
    CHECK(holds(cache, "k", "set"));
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    end_cache(cache);
}

/* ---- errors -------------------------------------------------------------------------------------- */

/* Five callers share a fetch that answers with a status; all get it, and the key is usable at once. */
static void check_shared_failure(aside_fetch_fn *fetch, struct source *source, aside_status want,
                                 int fetch_error)
{
    struct caller callers[5];
    struct source good;
    aside_cache *cache = open_quiet();
    source_init(&good, "good", false);
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        caller_init(&callers[i], cache, "k", fetch, source);
        caller_start(&callers[i]);
    }
    WAIT_UNTIL(STAT(cache, waiters_now) == COUNT_OF(callers) - 1);
    gate_open(&source->gate);
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        CHECK_STATUS(caller_join(&callers[i]), want);
        CHECK(callers[i].result.value == NULL);
        CHECK_INT(callers[i].result.fetch_error, fetch_error);
        CHECK_INT(callers[i].result.shared, 1);
        CHECK_INT(callers[i].result.ttl_left_ms, 0);
    }
    CHECK_INT(source->fetches, 1);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    CHECK_STATUS(ask(cache, "k", &good), ASIDE_OK);
    CHECK(holds(cache, "k", "good"));
    end_cache(cache);
}

TEST(any_negative_status_reaches_every_caller_and_nothing_is_stored)
{
    static const int statuses[] = {-1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -12, -13, -77, -100000};
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        struct source source;
        source_init(&source, NULL, true);
        source.status = (aside_status)statuses[i];
        check_shared_failure(source_fetch, &source, source.status, 0);
    }
}

TEST(a_positive_status_that_is_no_answer_reaches_every_caller_as_invalid)
{
    static const int statuses[] = {ASIDE_MISS, ASIDE_EXISTS, 5, 99, 100000};
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        struct source source;
        source_init(&source, NULL, true);
        source.status = (aside_status)statuses[i];
        check_shared_failure(source_fetch, &source, ASIDE_E_INVALID, 0);
    }
}

TEST(ok_without_a_value_reaches_every_caller_as_invalid)
{
    struct source source;
    source_init(&source, NULL, true);
    source.status = ASIDE_OK;
    check_shared_failure(source_fetch, &source, ASIDE_E_INVALID, 0);
}

static aside_status not_found(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    atomic_fetch_add(&source->fetches, 1);
    gate_pass(&source->gate);
    return aside_fetch_not_found(fetch);
}

TEST(not_found_reaches_every_caller_and_nothing_is_stored)
{
    struct source source;
    source_init(&source, NULL, true);
    check_shared_failure(not_found, &source, ASIDE_NOT_FOUND, 0);
}

static aside_status fail_with_status(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    atomic_fetch_add(&source->fetches, 1);
    gate_pass(&source->gate);
    return aside_fetch_fail(fetch, source->status);
}

TEST(the_code_of_a_failed_source_reaches_every_caller)
{
    static const int codes[] = {5, -5, 0, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        struct source source;
        source_init(&source, NULL, true);
        source.status = (aside_status)codes[i];
        check_shared_failure(fail_with_status, &source, ASIDE_E_FETCH, codes[i]);
    }
}

TEST(a_result_is_filled_anew_by_every_call)
{
    aside_cache *cache = open_quiet();
    struct source source, good;
    struct caller caller;
    source_init(&source, NULL, false);
    source_init(&good, "good", false);
    source.gate.open = true;
    source.status = (aside_status)7;
    caller_init(&caller, cache, "k", fail_with_status, &source);
    CHECK_STATUS(caller_run(&caller), ASIDE_E_FETCH);
    CHECK_INT(caller.result.fetch_error, 7);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
    caller.call.fetch = source_fetch;
    caller.call.arg = &good;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.fetch_error, 0);
    caller_drop(&caller);
    memset((char *)&caller.result + sizeof(size_t), 0x55, sizeof caller.result - sizeof(size_t));
    caller.call.timeout_ms = ASIDE_NO_WAIT;
    caller.key = "other";
    CHECK_STATUS(caller_run(&caller), ASIDE_MISS);
    CHECK(caller.result.value == NULL);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(caller.result.shared, 0);
    CHECK_INT(caller.result.fenced, 0);
    CHECK_INT(caller.result.fetch_error, 0);
    CHECK_INT(caller.result.age_ms, 0);
    CHECK_INT(caller.result.ttl_left_ms, 0);
    end_cache(cache);
}

/* ---- a value that is not to be kept --------------------------------------------------------------- */

TEST(no_store_hands_over_to_all_and_stores_nothing)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    caller_ask(&leader, cache, "k", &source, NULL);
    leader.call.ttl_ms = ASIDE_NO_STORE;
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(leader.result.value == joiner.result.value);
    CHECK_INT(joiner.result.ttl_left_ms, 0);
    CHECK_INT(joiner.result.fenced, 0);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    CHECK_INT(source.fetches, 2);
    end_cache(cache);
}
