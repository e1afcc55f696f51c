/*
 * stats.c -- S1: at rest lookups = hits + misses + misses_led + misses_joined + refused, threads
 * that have ended included; and each counter moves when its text says so.
 */
#include "helpers.h"

static uint64_t lookups_of(aside_cache *cache)
{
    aside_stats stats = test_stats(cache);
    return stats.hits + stats.misses + stats.misses_led + stats.misses_joined + stats.refused;
}

/* Does `action` and checks that the counter has moved by `by` and the sum of lookups by `lookups`. */
#define CHECK_MOVES(cache, counter, by, lookups, action)                                           \
    do {                                                                                           \
        uint64_t was_ = STAT(cache, counter), sum_ = lookups_of(cache);                            \
        action;                                                                                    \
        CHECK_INT(STAT(cache, counter) - was_, by);                                                \
        CHECK_INT(lookups_of(cache) - sum_, lookups);                                              \
    } while (0)

static void no_op_visit(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
}

static aside_status ask_no_wait(aside_cache *cache, const char *key, struct source *source)
{
    struct caller caller;
    caller_ask(&caller, cache, key, source, NULL);
    caller.call.timeout_ms = ASIDE_NO_WAIT;
    caller_run(&caller);
    caller_drop(&caller);
    return caller.status;
}

/* ---- each counter -------------------------------------------------------------------------------- */

TEST(a_new_cache_has_counted_nothing)
{
    aside_cache *cache = open_quiet();
    aside_stats stats = test_stats(cache);
#define CHECK_ZERO(name, text) CHECK_INT(stats.name, 0);
    ASIDE_COUNTER_MAP(CHECK_ZERO)
#undef CHECK_ZERO
    CHECK_INT(stats.entries, 0);
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.queued_now, 0);
    CHECK_INT(stats.workers_now, 0);
    CHECK_INT(stats.pinned_bytes, 0);
    CHECK_INT(stats.limbo_bytes, 0);
    end_cache(cache);
}

TEST(every_way_to_look_counts_one_hit_or_one_miss)
{
    aside_cache *cache = open_quiet();
    struct source source;
    char buffer[4];
    source_init(&source, "v", false);
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK_MOVES(cache, hits, 1, 1, look(cache, "k"));
    CHECK_MOVES(cache, hits, 1, 1,
                CHECK_STATUS(aside_copy(cache, "k", 1, buffer, 4, NULL), ASIDE_OK));
    CHECK_MOVES(cache, hits, 1, 1,
                CHECK_STATUS(aside_visit(cache, "k", 1, no_op_visit, NULL), ASIDE_OK));
    CHECK_MOVES(cache, hits, 1, 1, ask(cache, "k", &source));
    CHECK_MOVES(cache, hits, 1, 1, ask_no_wait(cache, "k", &source));
    CHECK_MOVES(cache, misses, 1, 1, look(cache, "no"));
    CHECK_MOVES(cache, misses, 1, 1,
                CHECK_STATUS(aside_copy(cache, "no", 2, buffer, 4, NULL), ASIDE_MISS));
    CHECK_MOVES(cache, misses, 1, 1,
                CHECK_STATUS(aside_visit(cache, "no", 2, no_op_visit, NULL), ASIDE_MISS));
    CHECK_MOVES(cache, refused, 1, 1, ask_no_wait(cache, "no", &source));
    CHECK_MOVES(cache, misses_led, 1, 1, ask(cache, "no", &source));
    end_cache(cache);
}

TEST(writes_are_counted_and_are_no_lookups)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
    CHECK_MOVES(cache, sets, 1, 0, put(cache, "a", "v", 1000));
    CHECK_MOVES(cache, sets, 1, 0, put(cache, "a", "v", 1000));
    CHECK_MOVES(cache, sets, 1, 0,
                CHECK_STATUS(aside_set_value(cache, "b", 1, value, 1000), ASIDE_OK));
    CHECK_MOVES(cache, sets, 1, 0, CHECK_STATUS(aside_add(cache, "c", 1, "v", 1, 1000), ASIDE_OK));
    CHECK_MOVES(cache, sets, 0, 0,
                CHECK_STATUS(aside_add(cache, "c", 1, "v", 1, 1000), ASIDE_EXISTS));
    CHECK_MOVES(cache, touches, 1, 0, aside_touch(cache, "a", 1, 1000));
    CHECK_MOVES(cache, touches, 0, 0, aside_touch(cache, "no", 2, 1000));
    CHECK_MOVES(cache, deletes, 1, 0, aside_delete(cache, "a", 1));
    CHECK_MOVES(cache, deletes, 0, 0, aside_delete(cache, "a", 1));
    CHECK_MOVES(cache, deletes, 1, 0, put(cache, "b", "v", 0));
    CHECK_MOVES(cache, sets, 0, 0, put(cache, "b", "v", 0));
    CHECK_MOVES(cache, deletes, 1, 0, aside_touch(cache, "c", 1, 0));
    put(cache, "d", "v", 1000);
    CHECK_MOVES(cache, expires, 1, 0, aside_expire(cache, "d", 1));
    CHECK_MOVES(cache, expires, 0, 0, aside_expire(cache, "d", 1));
    CHECK_MOVES(cache, clears, 1, 0, aside_clear(cache));
    aside_value_unref(value);
    end_cache(cache);
}

TEST(removals_are_counted_by_their_cause)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_entries = 10;
    options.max_bytes = (size_t)1 << 20;
    aside_cache *cache = open_cache(&options);
    static char large[2 << 20];
    put(cache, "k", "v", 10);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_MOVES(cache, expired, 1, 0, aside_reap(cache, 0, NULL));
    for (int i = 0; i < 100; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK_INT(STAT(cache, evicted) + STAT(cache, entries), 100);
    CHECK_INT(STAT(cache, entries), aside_count(cache));
    CHECK_MOVES(cache, store_refused, 1, 0,
                CHECK_STATUS(aside_set(cache, "x", 1, large, sizeof large, 1), ASIDE_E_TOO_LARGE));
    end_cache(cache);
}

TEST(fetches_are_counted_by_their_answer)
{
    aside_cache *cache = open_quiet();
    struct source good, none, bad;
    source_init(&good, "v", false);
    source_init(&none, NULL, false);
    source_init(&bad, NULL, false);
    bad.status = (aside_status)-77;
    CHECK_MOVES(cache, fetch_stored, 1, 1, ask(cache, "a", &good));
    CHECK_MOVES(cache, fetches, 1, 1, ask(cache, "b", &good));
    CHECK_MOVES(cache, fetch_errors, 1, 1, ask(cache, "c", &bad));
    CHECK_MOVES(cache, fetches, 1, 1, ask(cache, "c", &bad));
    CHECK_MOVES(cache, fetch_stored, 0, 1, ask(cache, "c", &bad));
    CHECK_INT(STAT(cache, fetch_errors), 3);
    CHECK_INT(STAT(cache, fetch_not_found), 0);
    end_cache(cache);
}

static aside_status not_found(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_not_found(fetch);
}

static aside_status abandons(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    return ASIDE_PENDING;
}

static aside_status is_overtaken(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_delete(arg, ASIDE_STR("k")), ASIDE_MISS);
    return aside_fetch_copy(fetch, "v", 1);
}

static aside_status asks_itself(aside_fetch *fetch, void *arg)
{
    struct caller inner;
    caller_init(&inner, arg, "k", asks_itself, arg);
    CHECK_MOVES(inner.cache, refused, 1, 1, CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK));
    return aside_fetch_not_found(fetch);
}

TEST(odd_ends_of_fetches_are_counted)
{
    aside_cache *cache = open_quiet();
    struct caller caller;
    caller_init(&caller, cache, "k", not_found, NULL);
    CHECK_MOVES(cache, fetch_not_found, 1, 1, caller_run(&caller));
    caller_init(&caller, cache, "k", abandons, NULL);
    CHECK_MOVES(cache, fetch_abandoned, 1, 1, caller_run(&caller));
    caller_init(&caller, cache, "k", is_overtaken, cache);
    CHECK_MOVES(cache, fetch_fenced, 1, 1, caller_run(&caller));
    caller_drop(&caller);
    caller_init(&caller, cache, "k", asks_itself, cache);
    CHECK_MOVES(cache, misses_led, 1, 2, caller_run(&caller));
    CHECK_INT(STAT(cache, fetch_stored), 0);
    CHECK_INT(STAT(cache, fetches), 4);
    end_cache(cache);
}

TEST(those_who_join_share_and_leave_are_counted)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, joiner, leaver, late;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    CHECK_INT(STAT(cache, flights_now), 1);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    join_flight(&leaver, cache, "k", &source, token, 2);
    caller_ask(&late, cache, "k", &source, NULL);
    late.call.timeout_ms = 10;
    caller_start(&late);
    WAIT_UNTIL(STAT(cache, waiters_now) == 3);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leaver), ASIDE_E_CANCELLED);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(caller_join(&late), ASIDE_E_TIMEOUT);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.misses_led, 1);
    CHECK_INT(stats.misses_joined, 3);
    CHECK_INT(stats.hits, 0); /* a joined miss is not a hit */
    CHECK_INT(stats.shared, 2);
    CHECK_INT(stats.cancelled, 1);
    CHECK_INT(stats.timeouts, 1);
    CHECK_INT(stats.fetches, 1);
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(lookups_of(cache), 4);
    caller_drop(&leader);
    caller_drop(&joiner);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- sums ---------------------------------------------------------------------------------------- */

struct mix {
    aside_cache *cache;
    aside_cancel *token, *fired;
    _Atomic uint64_t lookups, hits, led, joined, refused, misses;
    _Atomic uint64_t fetches;
};

static aside_status mixed_fetch(aside_fetch *fetch, void *arg)
{
    struct mix *mix = arg;
    atomic_fetch_add(&mix->fetches, 1);
    switch (test_random() % 8) {
    case 0: return aside_fetch_not_found(fetch);
    case 1: return aside_fetch_fail(fetch, 1);
    case 2: test_yield(); break;
    default: break;
    }
    return aside_fetch_copy(fetch, "v", 1);
}

static void mixed_call(struct mix *mix, const char *key)
{
    struct caller caller;
    caller_init(&caller, mix->cache, key, mixed_fetch, mix);
    switch (test_random() % 6) {
    case 0: caller.call.timeout_ms = ASIDE_NO_WAIT; break;
    case 1: caller.call.cancel = mix->token; break;
    case 2: caller.call.cancel = mix->fired; break;
    default: break;
    }
    aside_status status = caller_run(&caller);
    caller_drop(&caller);
    switch (caller.result.outcome) {
    case ASIDE_OUTCOME_HIT: atomic_fetch_add(&mix->hits, 1); break;
    case ASIDE_OUTCOME_FETCHED: atomic_fetch_add(&mix->led, 1); break;
    case ASIDE_OUTCOME_JOINED: atomic_fetch_add(&mix->joined, 1); break;
    default: CHECK(status != ASIDE_OK); atomic_fetch_add(&mix->refused, 1);
    }
}

static void *mixed_work(void *arg)
{
    struct mix *mix = arg;
    for (int i = 0; i < 1500; i++) {
        char key[16], buffer[4];
        snprintf(key, sizeof key, "%d", (int)(test_random() % 8));
        atomic_fetch_add(&mix->lookups, 1);
        switch (test_random() % 8) {
        case 0:
            atomic_fetch_add(look(mix->cache, key) == ASIDE_OK ? &mix->hits : &mix->misses, 1);
            break;
        case 1:
            atomic_fetch_add(aside_copy(mix->cache, key, strlen(key), buffer, 4, NULL) == ASIDE_OK
                                 ? &mix->hits
                                 : &mix->misses,
                             1);
            break;
        default: mixed_call(mix, key);
        }
        if (i % 4 == 0)
            aside_delete(mix->cache, key, strlen(key));
        if (i % 9 == 0)
            put(mix->cache, key, "v", 1);
    }
    return NULL;
}

/* The callers' own sums, by what they were told, against the counters. */
static void check_sums(int threads)
{
    struct mix mix = {.cache = open_quiet(), .token = token_new(), .fired = token_new()};
    pthread_t workers[8];
    aside_cancel_fire(mix.fired);
    for (int wave = 0; wave < 2; wave++) { /* the second wave finds counters of ended threads */
        for (int i = 0; i < threads; i++)
            workers[i] = thread_start(mixed_work, &mix);
        for (int i = 0; i < threads; i++)
            thread_join(workers[i]);
        WAIT_UNTIL(STAT(mix.cache, flights_now) == 0);
        aside_stats stats = test_stats(mix.cache);
        CHECK_INT(lookups_of(mix.cache), mix.lookups);
        CHECK_INT(stats.hits, mix.hits);
        CHECK_INT(stats.misses, mix.misses);
        CHECK_INT(stats.misses_led, mix.led);
        CHECK_INT(stats.misses_joined, mix.joined);
        CHECK_INT(stats.refused, mix.refused);
        CHECK_INT(stats.fetches, mix.fetches);
        CHECK_INT(stats.entries, aside_count(mix.cache));
    }
    aside_cancel_unref(mix.token);
    aside_cancel_unref(mix.fired);
    end_cache(mix.cache);
}

TEST(the_sum_of_lookups_is_exact_with_one_thread)
{
    check_sums(1);
}

TEST(the_sum_of_lookups_is_exact_with_eight_threads_that_have_ended)
{
    check_sums(8);
}

static void *look_a_hundred_times(void *arg)
{
    for (int i = 0; i < 100; i++)
        look(arg, "k");
    return NULL;
}

TEST(what_three_hundred_ended_threads_counted_is_kept)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "v", ASIDE_FOREVER);
    for (int i = 1; i <= 300; i++) {
        thread_join(thread_start(look_a_hundred_times, cache));
        if (i % 100 == 0)
            CHECK_INT(STAT(cache, hits), 100 * i);
    }
    end_cache(cache);
}
