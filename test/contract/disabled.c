/*
 * disabled.c -- options.disabled: a cache that stores nothing (ASIDE_DISABLE_STORE), and one that
 * shares nothing either (ASIDE_DISABLE_ALL). What else is promised, holds in them as well.
 */
#include "helpers.h"

#include <limits.h>

static aside_options disabled_options(int disabled)
{
    aside_options options = quiet_options();
    options.disabled = disabled;
    return options;
}

static aside_cache *open_disabled(int disabled)
{
    aside_options options = disabled_options(disabled);
    return open_cache(&options);
}

static const int both[] = {ASIDE_DISABLE_STORE, ASIDE_DISABLE_ALL};

static void no_visit(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
    CHECK(!"called");
}

/* By every way to look there is nothing. */
static void check_misses(aside_cache *cache, const char *key)
{
    char buffer[8];
    size_t size = 77;
    CHECK_STATUS(look(cache, key), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, key, strlen(key), buffer, sizeof buffer, &size), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, key, strlen(key), NULL, 0, NULL), ASIDE_MISS);
    CHECK_STATUS(aside_visit(cache, key, strlen(key), no_visit, NULL), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    CHECK_INT(STAT(cache, entries), 0);
}

/* The lookups of a cache at rest are all accounted for (S1). */
static void check_sum(aside_cache *cache, uint64_t lookups)
{
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.hits + stats.misses + stats.misses_led + stats.misses_joined + stats.refused,
              lookups);
    CHECK_INT(stats.hits, 0);
    CHECK_INT(stats.sets, 0);
    CHECK_INT(stats.fetch_stored, 0);
    CHECK_INT(stats.entries, 0);
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
}

/* ---- opening ------------------------------------------------------------------------------------- */

TEST(numbers_that_are_not_known_are_refused)
{
    static const int unknown[] = {-1, 3, 4, 8, 255, 256, 65536, INT_MAX, INT_MIN};
    for (size_t i = 0; i < COUNT_OF(unknown); i++) {
        aside_options options = disabled_options(unknown[i]);
        aside_cache *cache = NULL;
        CHECK_STATUS(aside_open(&cache, &options), ASIDE_E_INVALID);
        CHECK(cache == NULL);
    }
}

TEST(a_cache_is_enabled_unless_it_is_said_otherwise)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    CHECK_INT(options.disabled, ASIDE_ENABLED);
    aside_cache *caches[2] = {open_disabled(ASIDE_ENABLED), open_cache(NULL)};
    for (int i = 0; i < 2; i++) {
        put(caches[i], "k", "v", ASIDE_FOREVER);
        CHECK(holds(caches[i], "k", "v"));
        end_cache(caches[i]);
    }
}

TEST(an_older_shorter_options_struct_gives_an_enabled_cache)
{
    static const int past_it[] = {ASIDE_DISABLE_STORE, ASIDE_DISABLE_ALL, 99};
    for (size_t i = 0; i < COUNT_OF(past_it); i++) {
        aside_options options = disabled_options(past_it[i]);
        options.struct_size = offsetof(aside_options, disabled);
        aside_cache *cache = open_cache(&options);
        put(cache, "k", "v", ASIDE_FOREVER);
        CHECK(holds(cache, "k", "v"));
        end_cache(cache);
    }
}

/* ---- plain verbs --------------------------------------------------------------------------------- */

TEST(writes_succeed_and_store_nothing)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        aside_value *value = NULL;
        size_t reaped = 77;
        uint64_t empty = STAT(cache, bytes);
        CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
        check_misses(cache, "k");
        for (int round = 0; round < 2; round++) {
            CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, ASIDE_FOREVER), ASIDE_OK);
            CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, ASIDE_DEFAULT_TTL), ASIDE_OK);
            CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, 0), ASIDE_OK);
            CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_OK);
            check_misses(cache, "k");
            CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, 1000), ASIDE_OK);
            CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, 1000), ASIDE_OK);
            CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, 0), ASIDE_OK);
            check_misses(cache, "k");
            CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
            CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS);
            CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1000), ASIDE_MISS);
            CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 0), ASIDE_MISS);
            CHECK_STATUS(aside_clear(cache), ASIDE_OK);
            CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
            CHECK_INT(reaped, 0);
            CHECK_STATUS(aside_health(cache), ASIDE_OK);
        }
        aside_stats stats = test_stats(cache);
        CHECK_INT(stats.sets + stats.deletes + stats.expires + stats.touches, 0);
        CHECK_INT(stats.evicted + stats.expired + stats.store_refused, 0);
        CHECK_INT(stats.bytes, empty);
        CHECK_INT(stats.clears, 2);
        CHECK(value_is(value, "v"));
        aside_value_unref(value);
        check_sum(cache, 5 * 4);
        end_cache(cache);
    }
}

TEST(bad_arguments_are_bad_all_the_same)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        aside_call call = {ASIDE_CALL, .fetch = NULL};
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), NULL), ASIDE_E_INVALID);
        CHECK_STATUS(aside_set(cache, NULL, 1, "v", 1, 1000), ASIDE_E_INVALID);
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), NULL, 1, 1000), ASIDE_E_INVALID);
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, -1), ASIDE_E_INVALID);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), NULL, 1000), ASIDE_E_INVALID);
        CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, -3), ASIDE_E_INVALID);
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), INT64_MIN), ASIDE_E_INVALID);
        CHECK_STATUS(aside_delete(cache, NULL, 1), ASIDE_E_INVALID);
        CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_E_INVALID);
        end_cache(cache);
    }
}

TEST(wrapped_values_are_freed_once_though_they_are_not_stored)
{
    struct tally *tally = (struct tally *)calloc(1, sizeof *tally);
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        CHECK_STATUS(tally_set(tally, cache, "k", 100, ASIDE_FOREVER), ASIDE_OK);
        CHECK_STATUS(tally_set(tally, cache, "k", 100, 1000), ASIDE_OK);
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        CHECK_INT(tally->freed, tally->made);
        end_cache(cache);
    }
    CHECK_INT(tally->freed, 4);
    free(tally);
}

static aside_status gives(aside_fetch *fetch, void *arg)
{
    return aside_fetch_give(fetch, tally_value((struct tally *)arg, 100));
}

TEST(a_value_that_a_fetch_gives_is_handed_over_and_freed_once)
{
    struct tally *tally = (struct tally *)calloc(1, sizeof *tally);
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        struct caller caller;
        int freed = atomic_load(&tally->freed);
        caller_init(&caller, cache, "k", gives, tally);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK_INT(aside_value_size(caller.result.value), 100);
        CHECK_INT(tally->freed, freed);
        end_cache(cache); /* a handle outlives its cache */
        CHECK_INT(tally->freed, freed);
        caller_drop(&caller);
        CHECK_INT(tally->freed, freed + 1);
    }
    free(tally);
}

/* ---- calls one after the other ------------------------------------------------------------------- */

TEST(every_call_fetches_anew)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        aside_cancel *token = token_new();
        struct source source;
        source_init(&source, "v", false);
        for (int call = 1; call <= 6; call++) {
            struct caller caller;
            caller_ask(&caller, cache, "k", &source, call % 2 ? token : NULL);
            caller.call.ttl_ms = call % 3 ? 1000 : ASIDE_NO_STORE;
            CHECK_STATUS(caller_run(&caller), ASIDE_OK);
            CHECK(value_is(caller.result.value, "v"));
            CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
            CHECK_INT(caller.result.shared, 0);
            CHECK_INT(caller.result.fenced, 0);
            CHECK_INT(caller.result.ttl_left_ms, 0); /* nothing was stored */
            CHECK_INT(source.fetches, call);
            caller_drop(&caller);
            check_misses(cache, "k");
        }
        CHECK_INT(STAT(cache, misses_led), 6);
        CHECK_INT(STAT(cache, fetches), 6);
        CHECK_INT(STAT(cache, shared), 0);
        CHECK_INT(STAT(cache, fetch_fenced), 0);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        check_sum(cache, 6 + 6 * 4);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

static aside_status finds_nothing(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_not_found(fetch);
}

static aside_status fails(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_fail(fetch, 42);
}

TEST(what_a_fetch_says_reaches_its_caller)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        struct caller caller;
        caller_init(&caller, cache, "k", finds_nothing, NULL);
        CHECK_STATUS(caller_run(&caller), ASIDE_NOT_FOUND);
        caller_init(&caller, cache, "k", fails, NULL);
        CHECK_STATUS(caller_run(&caller), ASIDE_E_FETCH);
        CHECK_INT(caller.result.fetch_error, 42);
        CHECK_INT(STAT(cache, fetch_not_found), 1);
        CHECK_INT(STAT(cache, fetch_errors), 1);
        check_sum(cache, 2);
        end_cache(cache);
    }
}

TEST(who_may_not_wait_or_has_left_already_starts_nothing)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        aside_cancel *token = token_new();
        struct source source;
        struct caller caller;
        source_init(&source, "v", false);
        put(cache, "k", "v", ASIDE_FOREVER);
        caller_ask(&caller, cache, "k", &source, NULL);
        caller.call.timeout_ms = ASIDE_NO_WAIT;
        CHECK_STATUS(caller_run(&caller), ASIDE_MISS);
        aside_cancel_fire(token);
        caller_ask(&caller, cache, "k", &source, token);
        CHECK_STATUS(caller_run(&caller), ASIDE_E_CANCELLED);
        CHECK_INT(source.fetches, 0);
        CHECK_INT(STAT(cache, refused), 2);
        check_sum(cache, 2);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

static aside_status asks_its_own_key(aside_fetch *fetch, void *arg)
{
    struct caller inner;
    aside_cancel *token = token_new();
    caller_init(&inner, (aside_cache *)arg, "k", asks_its_own_key, arg);
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    inner.call.cancel = token;
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    CHECK_STATUS(aside_delete((aside_cache *)arg, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    aside_cancel_unref(token);
    return aside_fetch_copy(fetch, "outer", 5);
}

TEST(a_fetch_that_asks_for_its_own_key_is_told_so)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        aside_cancel *token = token_new();
        for (int offloaded = 0; offloaded <= 1; offloaded++) {
            struct caller caller;
            caller_init(&caller, cache, "k", asks_its_own_key, cache);
            caller.call.cancel = offloaded ? token : NULL;
            CHECK_STATUS(caller_run(&caller), ASIDE_OK);
            CHECK(value_is(caller.result.value, "outer"));
            caller_drop(&caller);
        }
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        check_sum(cache, 2 * 4);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

/* ---- calls at the same time ---------------------------------------------------------------------- */

TEST(without_a_store_callers_who_miss_together_share_one_fetch)
{
    enum { JOINERS = 9 };
    aside_cache *cache = open_disabled(ASIDE_DISABLE_STORE);
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, joiners[JOINERS];
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    for (unsigned i = 0; i < JOINERS; i++)
        join_flight(&joiners[i], cache, "k", &source, i % 2 ? token : NULL, i + 1);
    check_misses(cache, "k");
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(leader.result.shared, 1);
    for (int i = 0; i < JOINERS; i++) {
        CHECK_STATUS(caller_join(&joiners[i]), ASIDE_OK);
        CHECK(joiners[i].result.value == leader.result.value);
        CHECK_INT(joiners[i].result.outcome, ASIDE_OUTCOME_JOINED);
        CHECK_INT(joiners[i].result.shared, 1);
        CHECK_INT(joiners[i].result.fenced, 0);
        CHECK_INT(joiners[i].result.ttl_left_ms, 0);
        caller_drop(&joiners[i]);
    }
    caller_drop(&leader);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, shared), JOINERS + 1);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK); /* it is over, and nothing is left of it */
    CHECK_INT(source.fetches, 2);
    CHECK_INT(STAT(cache, misses_led), 2);
    CHECK_INT(STAT(cache, misses_joined), JOINERS);
    check_sum(cache, 2 + JOINERS + 4);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(with_all_disabled_every_caller_has_a_fetch_of_his_own)
{
    enum { CALLERS = 12 };
    aside_options options = disabled_options(ASIDE_DISABLE_ALL);
    options.fetch_threads = CALLERS;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct caller callers[CALLERS];
    source_init(&source, "v", true);
    for (int i = 0; i < CALLERS; i++) {
        caller_ask(&callers[i], cache, "k", &source, i % 2 ? token : NULL);
        caller_start(&callers[i]);
        gate_wait_arrived(&source.gate, i + 1);
    }
    CHECK_INT(STAT(cache, flights_now), CALLERS);
    check_misses(cache, "k");
    gate_open(&source.gate);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        CHECK_INT(callers[i].result.outcome, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(callers[i].result.shared, 0);
        CHECK_INT(callers[i].result.ttl_left_ms, 0);
        for (int k = 0; k < i; k++)
            CHECK(callers[k].result.value != callers[i].result.value);
    }
    for (int i = 0; i < CALLERS; i++)
        caller_drop(&callers[i]);
    CHECK_INT(source.fetches, CALLERS);
    CHECK_INT(STAT(cache, misses_led), CALLERS);
    CHECK_INT(STAT(cache, misses_joined), 0);
    CHECK_INT(STAT(cache, shared), 0);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    check_sum(cache, CALLERS + 4);
    aside_cancel_unref(token);
    end_cache(cache);
}

enum verb { BY_SET, BY_SET_VALUE, BY_DELETE, BY_EXPIRE, BY_CLEAR, BY_ADD, BY_TOUCH, VERBS };

static void write_by(aside_cache *cache, enum verb verb)
{
    aside_value *value = NULL;
    switch (verb) {
    case BY_SET: put(cache, "k", "set", ASIDE_FOREVER); break;
    case BY_SET_VALUE:
        CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_OK);
        aside_value_unref(value);
        break;
    case BY_DELETE: CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case BY_EXPIRE: CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case BY_CLEAR: CHECK_STATUS(aside_clear(cache), ASIDE_OK); break;
    case BY_ADD: CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "a", 1, 1000), ASIDE_OK); break;
    default: CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1000), ASIDE_MISS);
    }
}

static void check_fencing(enum verb verb, bool fences)
{
    aside_cache *cache = open_disabled(ASIDE_DISABLE_STORE);
    struct source before, after;
    struct caller leader, joiner, newcomer;
    source_init(&before, "before", true);
    source_init(&after, "after", false);
    lead_to_gate(&leader, cache, "k", &before);
    join_flight(&joiner, cache, "k", &before, NULL, 1);
    write_by(cache, verb);
    if (fences) { /* whoever comes now must not see what may be older than the write (W1) */
        caller_ask(&newcomer, cache, "k", &after, NULL);
        CHECK_STATUS(caller_run(&newcomer), ASIDE_OK);
        CHECK(value_is(newcomer.result.value, "after"));
        CHECK_INT(newcomer.result.outcome, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(newcomer.result.fenced, 0);
        caller_drop(&newcomer);
    } else {
        join_flight(&newcomer, cache, "k", &after, NULL, 2);
    }
    gate_open(&before.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(value_is(joiner.result.value, "before"));
    CHECK_INT(leader.result.fenced, fences);
    CHECK_INT(joiner.result.fenced, fences);
    CHECK_INT(STAT(cache, fetch_fenced), fences);
    if (!fences) {
        CHECK_STATUS(caller_join(&newcomer), ASIDE_OK);
        CHECK(value_is(newcomer.result.value, "before"));
        caller_drop(&newcomer);
    }
    CHECK_INT(after.fetches, fences);
    caller_drop(&leader);
    caller_drop(&joiner);
    check_sum(cache, 3);
    end_cache(cache);
}

TEST(without_a_store_a_write_fences_the_fetch_under_way)
{
    for (int verb = BY_SET; verb <= BY_CLEAR; verb++)
        check_fencing((enum verb)verb, true);
}

TEST(without_a_store_add_and_touch_fence_nothing_for_they_neither_store_nor_drop)
{
    check_fencing(BY_ADD, false);
    check_fencing(BY_TOUCH, false);
}

TEST(with_all_disabled_who_enters_after_a_write_sees_nothing_older)
{
    for (int verb = 0; verb < VERBS; verb++) {
        aside_cache *cache = open_disabled(ASIDE_DISABLE_ALL);
        struct source before, after;
        struct caller leader, newcomer;
        source_init(&before, "before", true);
        source_init(&after, "after", false);
        lead_to_gate(&leader, cache, "k", &before);
        write_by(cache, (enum verb)verb);
        caller_ask(&newcomer, cache, "k", &after, NULL);
        CHECK_STATUS(caller_run(&newcomer), ASIDE_OK);
        CHECK(value_is(newcomer.result.value, "after"));
        caller_drop(&newcomer);
        gate_open(&before.gate);
        CHECK_STATUS(caller_join(&leader), ASIDE_OK);
        CHECK(value_is(leader.result.value, "before"));
        caller_drop(&leader);
        check_misses(cache, "k");
        check_sum(cache, 2 + 4);
        end_cache(cache);
    }
}

/* ---- leaving ------------------------------------------------------------------------------------- */

TEST(callers_leave_alone_and_their_fetch_runs_on)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        struct fake_clock clock;
        aside_options options = disabled_options(both[i]);
        options.clock = fake_clock_init(&clock);
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct source source;
        struct caller leaver, late;
        source_init(&source, "v", true);
        join_flight(&leaver, cache, "k", &source, token, 1);
        gate_wait_arrived(&source.gate, 1);
        caller_ask(&late, cache, "k", &source, NULL);
        late.call.timeout_ms = 100;
        caller_start(&late);
        WAIT_UNTIL(STAT(cache, waiters_now) == 2);
        if (both[i] == ASIDE_DISABLE_ALL)
            gate_wait_arrived(&source.gate, 2);
        aside_cancel_fire(token);
        CHECK_STATUS(caller_join(&leaver), ASIDE_E_CANCELLED);
        CHECK_INT(STAT(cache, waiters_now), 1);
        fake_clock_advance_ms(&clock, 100, cache);
        CHECK_STATUS(caller_join(&late), ASIDE_E_TIMEOUT);
        CHECK_INT(source.finished, 0);
        CHECK_INT(STAT(cache, cancelled), 1);
        CHECK_INT(STAT(cache, timeouts), 1);
        gate_open(&source.gate);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        CHECK_INT(source.finished, both[i] == ASIDE_DISABLE_ALL ? 2 : 1);
        check_misses(cache, "k");
        check_sum(cache, 2 + 4);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

static aside_status until_told_to_stop(aside_fetch *fetch, void *arg)
{
    _Atomic int *fetches = (_Atomic int *)arg;
    atomic_fetch_add(fetches, 1);
    WAIT_UNTIL(aside_fetch_stopping(fetch));
    return ASIDE_E_ABANDONED;
}

TEST(a_fetch_is_told_to_stop_when_its_last_caller_has_left)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_cache *cache = open_disabled(both[i]);
        aside_cancel *token = token_new();
        _Atomic int fetches = 0;
        struct caller caller;
        caller_init(&caller, cache, "k", until_told_to_stop, (void *)&fetches);
        caller.call.cancel = token;
        caller.call.stop_when_abandoned = 1;
        caller_start(&caller);
        WAIT_UNTIL(atomic_load(&fetches) == 1 && STAT(cache, waiters_now) == 1);
        aside_cancel_fire(token);
        CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

TEST(nobody_who_may_leave_waits_longer_than_a_flight_may_last)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        struct fake_clock clock;
        aside_options options = disabled_options(both[i]);
        options.clock = fake_clock_init(&clock);
        options.max_flight_age_ms = 1000;
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct source source;
        struct caller caller;
        source_init(&source, "v", true);
        join_flight(&caller, cache, "k", &source, token, 1);
        gate_wait_arrived(&source.gate, 1);
        fake_clock_advance_ms(&clock, 1001, cache);
        CHECK_STATUS(caller_join(&caller), ASIDE_E_FETCH_TIMEOUT);
        gate_open(&source.gate);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        check_misses(cache, "k");
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

/* ---- rings --------------------------------------------------------------------------------------- */

struct crossing {
    aside_cache *cache;
    const char *other;
    aside_cancel *token; /* of the inner call */
    struct gate gate;
    struct crossing *next;
    _Atomic int deadlocks;
};

static aside_status asks_the_other(aside_fetch *fetch, void *arg)
{
    struct crossing *crossing = (struct crossing *)arg;
    struct caller inner;
    size_t size = 0;
    gate_pass(&crossing->gate);
    caller_init(&inner, crossing->cache, crossing->other, asks_the_other, crossing->next);
    inner.call.cancel = crossing->token;
    aside_status status = caller_run(&inner);
    caller_drop(&inner);
    CHECK(status == ASIDE_OK || status == ASIDE_E_DEADLOCK);
    atomic_fetch_add(&crossing->deadlocks, status == ASIDE_E_DEADLOCK);
    const void *key = aside_fetch_key(fetch, &size);
    return aside_fetch_copy(fetch, key, size);
}

/* A asks for B and B for A. With all disabled neither waits for the other's fetch: each call leads one
 * of its own, until a thread comes back to a key of its own, which it must in a pool of two. */
static void check_crossing(int disabled, bool offloaded, bool tokens_inside)
{
    aside_options options = disabled_options(disabled);
    options.fetch_threads = 2;
    options.max_flight_age_ms = ASIDE_FOREVER;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct crossing a, b;
    struct caller first, second;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    gate_init(&a.gate);
    gate_init(&b.gate);
    a.cache = b.cache = cache;
    a.other = "b";
    b.other = "a";
    a.next = &b;
    b.next = &a;
    a.token = b.token = tokens_inside ? token : NULL;
    caller_init(&first, cache, "a", asks_the_other, &a);
    caller_init(&second, cache, "b", asks_the_other, &b);
    first.call.cancel = second.call.cancel = offloaded ? token : NULL;
    caller_start(&first);
    caller_start(&second);
    gate_wait_arrived(&a.gate, 1);
    gate_wait_arrived(&b.gate, 1);
    gate_open(&a.gate);
    gate_open(&b.gate);
    CHECK_STATUS(caller_join(&first), ASIDE_OK);
    CHECK_STATUS(caller_join(&second), ASIDE_OK);
    CHECK(atomic_load(&a.deadlocks) + atomic_load(&b.deadlocks) >= 1);
    caller_drop(&first);
    caller_drop(&second);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_INT(STAT(cache, waiters_now), 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(fetches_that_ask_for_each_other_end)
{
    for (size_t i = 0; i < COUNT_OF(both); i++)
        for (int offloaded = 0; offloaded <= 1; offloaded++)
            for (int inside = 0; inside <= 1; inside++)
                check_crossing(both[i], offloaded, inside);
}

/* ---- bounds -------------------------------------------------------------------------------------- */

TEST(no_more_flights_than_max_flights)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_options options = disabled_options(both[i]);
        options.max_flights = 2;
        aside_cache *cache = open_cache(&options);
        bool all = both[i] == ASIDE_DISABLE_ALL;
        struct source source;
        struct caller callers[2], joiner;
        source_init(&source, "v", true);
        for (int k = 0; k < 2; k++) {
            caller_ask(&callers[k], cache, all || k == 0 ? "k" : "other", &source, NULL);
            caller_start(&callers[k]);
            gate_wait_arrived(&source.gate, k + 1);
        }
        CHECK_STATUS(ask(cache, all ? "k" : "third", &source), ASIDE_E_BUSY);
        CHECK_STATUS(ask(cache, "fourth", &source), ASIDE_E_BUSY);
        CHECK_INT(STAT(cache, refused), 2);
        if (!all) /* who joins is no flight */
            join_flight(&joiner, cache, "k", &source, NULL, 1);
        gate_open(&source.gate);
        for (int k = 0; k < 2; k++) {
            CHECK_STATUS(caller_join(&callers[k]), ASIDE_OK);
            caller_drop(&callers[k]);
        }
        if (!all) {
            CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
            caller_drop(&joiner);
        }
        CHECK_INT(source.fetches, 2);
        CHECK_STATUS(ask(cache, "third", &source), ASIDE_OK); /* there is room again */
        check_sum(cache, all ? 5 : 6);
        end_cache(cache);
    }
}

TEST(no_more_waiters_than_max_waiters_in_a_shared_flight)
{
    aside_options options = disabled_options(ASIDE_DISABLE_STORE);
    options.max_waiters = 1;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_E_BUSY);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    caller_drop(&leader);
    caller_drop(&joiner);
    check_sum(cache, 3);
    end_cache(cache);
}

TEST(no_more_queued_fetches_than_max_queued_and_no_worker_where_there_is_none)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_options options = disabled_options(both[i]);
        options.fetch_threads = 1;
        options.max_queued = 1;
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct source source;
        struct caller callers[2], refused;
        source_init(&source, "v", true);
        join_flight(&callers[0], cache, "0", &source, token, 1);
        gate_wait_arrived(&source.gate, 1);
        join_flight(&callers[1], cache, both[i] == ASIDE_DISABLE_ALL ? "0" : "1", &source, token,
                    2);
        CHECK_INT(STAT(cache, queued_now), 1);
        caller_ask(&refused, cache, both[i] == ASIDE_DISABLE_ALL ? "0" : "2", &source, token);
        CHECK_STATUS(caller_run(&refused), ASIDE_E_BUSY);
        gate_open(&source.gate);
        for (int k = 0; k < 2; k++) {
            CHECK_STATUS(caller_join(&callers[k]), ASIDE_OK);
            caller_drop(&callers[k]);
        }
        CHECK_INT(source.fetches, 2);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        check_sum(cache, 3);
        end_cache(cache);

        options.fetch_threads = 0;
        cache = open_cache(&options);
        caller_ask(&refused, cache, "k", &source, token);
        CHECK_STATUS(caller_run(&refused), ASIDE_E_BUSY);
        CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

TEST(flights_are_bounded_by_max_bytes_too)
{
    enum { KEY = 60000, MAX_BYTES = 1 << 20, MOST = MAX_BYTES / KEY };
    static char keys[MOST + 1][KEY + 1];
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_options options = disabled_options(both[i]);
        options.max_bytes = MAX_BYTES;
        aside_cache *cache = open_cache(&options);
        struct source source;
        struct caller callers[MOST + 1];
        source_init(&source, "v", true);
        int refused = 0, leading = 0;
        for (int k = 0; k <= MOST; k++) {
            memset(keys[k], 'k', KEY);
            keys[k][0] = (char)('a' + k);
            caller_ask(&callers[k], cache, keys[k], &source, NULL);
            caller_start(&callers[k]);
            WAIT_UNTIL(atomic_load(&source.fetches) == leading + 1 ||
                       atomic_load(&callers[k].done));
            leading = atomic_load(&source.fetches);
            CHECK(STAT(cache, bytes) <= MAX_BYTES);
        }
        gate_open(&source.gate);
        for (int k = 0; k <= MOST; k++) {
            aside_status status = caller_join(&callers[k]);
            CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
            refused += status == ASIDE_E_BUSY;
            caller_drop(&callers[k]);
        }
        CHECK(refused >= 1);
        CHECK(leading >= 1);
        CHECK_INT(refused + leading, MOST + 1);
        CHECK_STATUS(ask(cache, keys[MOST], &source), ASIDE_OK); /* there is room again */
        check_sum(cache, MOST + 2);
        end_cache(cache);
    }
}

/* ---- closing ------------------------------------------------------------------------------------- */

TEST(a_close_while_fetches_run_sends_their_callers_away)
{
    enum { CALLERS = 6 };
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        struct ledger ledger;
        aside_options options = disabled_options(both[i]);
        options.alloc = ledger_init(&ledger);
        options.close_wait_ms = 0;
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct source source;
        struct caller leader, callers[CALLERS];
        source_init(&source, "v", true);
        lead_to_gate(&leader, cache, "k", &source);
        for (unsigned k = 0; k < CALLERS; k++)
            join_flight(&callers[k], cache, "k", &source, token, k + 1);
        int fetches = both[i] == ASIDE_DISABLE_ALL ? CALLERS + 1 : 1;
        gate_wait_arrived(&source.gate, fetches);
        CHECK_STATUS(aside_close(cache), ASIDE_OK);
        for (int k = 0; k < CALLERS; k++)
            CHECK_STATUS(caller_join(&callers[k]), ASIDE_E_CLOSED);
        CHECK_INT(source.finished, 0);
        CHECK_STATUS(ask(cache, "k", &source), ASIDE_E_CLOSED);
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, 1000), ASIDE_E_CLOSED);
        gate_open(&source.gate);
        CHECK_STATUS(caller_join(&leader),
                     ASIDE_OK); /* on his own thread: he has it in hand (F10) */
        CHECK(value_is(leader.result.value, "v"));
        CHECK_INT(leader.result.ttl_left_ms, 0);
        caller_drop(&leader);
        WAIT_UNTIL(atomic_load(&source.finished) == fetches);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        aside_unref(cache);
        aside_cancel_unref(token);
        WAIT_UNTIL(ledger.live_blocks == 0);
    }
}

static void *close_it(void *arg)
{
    CHECK_STATUS(aside_close((aside_cache *)arg), ASIDE_OK);
    return NULL;
}

TEST(a_close_waits_for_the_fetches_that_run)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_options options = disabled_options(both[i]);
        options.close_wait_ms = ASIDE_FOREVER;
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct source source;
        struct caller callers[2];
        source_init(&source, "v", true);
        lead_to_gate(&callers[0], cache, "k", &source);
        join_flight(&callers[1], cache, "k", &source, token, 1);
        int fetches = both[i] == ASIDE_DISABLE_ALL ? 2 : 1;
        gate_wait_arrived(&source.gate, fetches);
        pthread_t closer = thread_start(close_it, cache);
        CHECK_STATUS(caller_join(&callers[1]), ASIDE_E_CLOSED);
        CHECK_INT(source.finished, 0);
        gate_open(&source.gate);
        thread_join(closer);
        CHECK_INT(source.finished, fetches);
        CHECK_STATUS(caller_join(&callers[0]), ASIDE_OK);
        caller_drop(&callers[0]);
        aside_cancel_unref(token);
        aside_unref(cache);
    }
}

/* ---- many threads -------------------------------------------------------------------------------- */

struct load {
    aside_cache *cache;
    aside_cancel *token;
    struct source source;
    _Atomic uint64_t lookups, calls, joined;
};

static void *work(void *arg)
{
    struct load *load = (struct load *)arg;
    for (long i = 0; i < test_rounds(1500); i++) {
        char key[16];
        struct caller caller;
        snprintf(key, sizeof key, "%d", (int)(test_random() % 4));
        switch (test_random() % 6) {
        case 0: put(load->cache, key, "v", ASIDE_FOREVER); break;
        case 1:
            CHECK_STATUS(aside_add(load->cache, key, strlen(key), "v", 1, 1000), ASIDE_OK);
            break;
        case 2: CHECK_STATUS(aside_delete(load->cache, key, strlen(key)), ASIDE_MISS); break;
        case 3:
            atomic_fetch_add(&load->lookups, 1);
            CHECK_STATUS(look(load->cache, key), ASIDE_MISS);
            break;
        default:
            atomic_fetch_add(&load->lookups, 1);
            atomic_fetch_add(&load->calls, 1);
            caller_ask(&caller, load->cache, key, &load->source,
                       test_random() % 2 ? load->token : NULL);
            CHECK_STATUS(caller_run(&caller), ASIDE_OK);
            if (caller.result.outcome != ASIDE_OUTCOME_FETCHED) {
                CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_JOINED);
                atomic_fetch_add(&load->joined, 1);
            }
            caller_drop(&caller);
        }
    }
    return NULL;
}

TEST(the_sums_are_exact_after_four_busy_threads)
{
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        static struct load load;
        pthread_t threads[4];
        struct ledger ledger;
        memset(&load, 0, sizeof load);
        aside_options options = disabled_options(both[i]);
        options.alloc = ledger_init(&ledger);
        load.cache = open_cache(&options);
        load.token = token_new();
        source_init(&load.source, "v", false);
        for (size_t k = 0; k < COUNT_OF(threads); k++)
            threads[k] = thread_start(work, &load);
        for (size_t k = 0; k < COUNT_OF(threads); k++)
            thread_join(threads[k]);
        WAIT_UNTIL(STAT(load.cache, flights_now) == 0);
        CHECK_INT(STAT(load.cache, misses_joined), load.joined);
        CHECK_INT(STAT(load.cache, misses_led), load.calls - load.joined);
        CHECK_INT(STAT(load.cache, fetches), load.source.fetches);
        CHECK_INT(load.source.fetches, load.calls - load.joined);
        if (both[i] == ASIDE_DISABLE_ALL)
            CHECK_INT(load.joined, 0);
        check_sum(load.cache, load.lookups);
        CHECK_INT(aside_count(load.cache), 0);
        aside_cancel_unref(load.token);
        end_cache(load.cache);
        WAIT_UNTIL(ledger.live_blocks == 0);
    }
}
