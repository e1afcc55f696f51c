/*
 * early.c -- refresh_ahead and xfetch_beta: a value is refreshed before its ttl ends, once, while
 * everybody is given it as the fresh value that it is.
 */
#include "stale.h"

#define AHEAD_AT 750 /* milliseconds of TTL */

static aside_cache *open_ahead(struct fake_clock *clock)
{
    aside_options options = stale_options(clock);
    options.freshness.refresh_ahead = 0.75;
    return open_cache(&options);
}

/* "old", of this age. */
static void make_aged(aside_cache *cache, struct fake_clock *clock, int64_t age_ms)
{
    put(cache, "k", "old", TTL);
    fake_clock_advance_ms(clock, age_ms, cache);
}

/* ---- refresh_ahead ------------------------------------------------------------------------------- */

TEST(once_its_share_of_the_ttl_has_passed_a_value_is_refreshed_and_is_a_hit_meanwhile)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_ahead(&clock);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    make_aged(cache, &clock, AHEAD_AT);
    for (int i = 0; i < 3; i++) {
        aside_result result = call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
        CHECK_INT(result.age_ms, AHEAD_AT);
        CHECK_INT(result.ttl_left_ms, TTL - AHEAD_AT);
    }
    gate_wait_arrived(&source.gate, 1);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    let_go(cache, &source);
    aside_result result = call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    CHECK_INT(result.age_ms, 0);
    CHECK_INT(result.ttl_left_ms, TTL);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, refreshes), 1);
    CHECK_INT(STAT(cache, hits), 5);
    CHECK_INT(STAT(cache, stale), 0);
    check_lookups(cache, 5);
    end_cache(cache);
}

TEST(before_its_share_has_passed_nothing_happens)
{
    for (int64_t age_ms = AHEAD_AT - 1; age_ms <= AHEAD_AT; age_ms++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_ahead(&clock);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        make_aged(cache, &clock, age_ms);
        for (int i = 0; i < 3; i++)
            (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
        CHECK_INT(STAT(cache, refreshes), age_ms == AHEAD_AT);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(many_callers_begin_one_early_refresh)
{
    enum { CALLERS = 32 };
    static struct caller herd[CALLERS];
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_ahead(&clock);
    held_init(&source, "now");
    make_aged(cache, &clock, TTL - 1);
    for (int i = 0; i < CALLERS; i++) {
        caller_ask(&herd[i], cache, "k", &source, NULL);
        caller_start(&herd[i]);
    }
    for (int i = 0; i < CALLERS; i++)
        caller_is_fresh(&herd[i], "old", ASIDE_OUTCOME_HIT);
    let_go(cache, &source);
    CHECK_INT(source.fetches, 1);
    check_lookups(cache, CALLERS);
    end_cache(cache);
}

/* Its ttl ends while the refresh runs, and it has no windows. */
TEST(after_its_ttl_callers_wait_for_the_early_refresh)
{
    struct fake_clock clock;
    struct source source;
    struct caller joiner;
    aside_cache *cache = open_ahead(&clock);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    make_aged(cache, &clock, TTL - 1);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    gate_wait_arrived(&source.gate, 1);
    fake_clock_advance_ms(&clock, 1, cache);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    let_go(cache, &source);
    caller_is_fresh(&joiner, "now", ASIDE_OUTCOME_JOINED);
    CHECK_INT(source.fetches, 1);
    end_cache(cache);
}

TEST(an_early_refresh_that_fails_is_not_tried_again_for_the_throttle_time)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.refresh_ahead = 0.75;
    options.freshness.throttle_ms = 100;
    aside_cache *cache = open_cache(&options);
    held_init(&source, NULL);
    source.status = ASIDE_E_FETCH;
    aside_call call = call_for(&source);
    make_aged(cache, &clock, AHEAD_AT);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    let_go(cache, &source);
    fake_clock_advance_ms(&clock, 99, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 1);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 2);
    wait_for_fetches(cache);
    end_cache(cache);
}

TEST(an_early_refresh_is_fenced_as_any_fetch_is)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_ahead(&clock);
    held_init(&source, "outdated");
    aside_call call = call_for(&source);
    make_aged(cache, &clock, AHEAD_AT);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    gate_wait_arrived(&source.gate, 1);
    put(cache, "k", "written", TTL);
    let_go(cache, &source);
    CHECK(holds(cache, "k", "written"));
    CHECK_INT(STAT(cache, fetch_fenced), 1);
    end_cache(cache);
}

TEST(a_call_refreshes_ahead_by_its_own_share_or_not_at_all)
{
    static const struct {
        double own;
        int64_t age_ms;
        int refreshes;
    } cases[] = {{0, TTL - 1, 1}, {ASIDE_OFF, TTL - 1, 0}, {0.875, 874, 0},
                 {0.875, 875, 1}, {0.999, 998, 0},         {0, AHEAD_AT - 1, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_ahead(&clock);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        call.freshness.refresh_ahead = cases[i].own;
        make_aged(cache, &clock, cases[i].age_ms);
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
        CHECK_INT(STAT(cache, refreshes), cases[i].refreshes);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(a_call_refreshes_ahead_what_it_has_fetched_itself)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    aside_cache *cache = open_cache(&options);
    source_init(&source, "old", false);
    aside_call call = call_for(&source);
    call.freshness.refresh_ahead = 0.75;
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_FETCHED);
    held_init(&source, "now");
    fake_clock_advance_ms(&clock, AHEAD_AT - 1, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 0);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 1);
    let_go(cache, &source);
    end_cache(cache);
}

static void is_old(const void *data, size_t size, void *ctx)
{
    CHECK(size == 3 && memcmp(data, "old", 3) == 0);
    ++*(int *)ctx;
}

TEST(plain_reads_hit_what_is_due_and_refresh_nothing)
{
    struct fake_clock clock;
    char buffer[8];
    size_t size = 0;
    int visits = 0;
    aside_cache *cache = open_ahead(&clock);
    make_aged(cache, &clock, TTL - 1);
    CHECK(holds(cache, "k", "old"));
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, &size), ASIDE_OK);
    CHECK(size == 3 && memcmp(buffer, "old", 3) == 0);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 2, &size), ASIDE_E_BUFFER);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), is_old, &visits), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "x", 1, LONG), ASIDE_EXISTS);
    CHECK_INT(visits, 1);
    CHECK_INT(STAT(cache, refreshes), 0);
    CHECK_INT(STAT(cache, hits), 4);
    check_lookups(cache, 4);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(with_a_fired_token_a_due_value_is_a_hit_and_nothing_is_begun)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_ahead(&clock);
    aside_cancel *token = token_new();
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    call.cancel = token;
    aside_cancel_fire(token);
    make_aged(cache, &clock, TTL - 1);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 0);
    CHECK_INT(source.fetches, 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(what_never_expires_is_never_due)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.refresh_ahead = 0.001;
    options.freshness.xfetch_beta = 1000;
    aside_cache *cache = open_cache(&options);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    put(cache, "k", "old", ASIDE_FOREVER);
    fake_clock_advance_ms(&clock, INT64_C(1000) * 365 * 86400, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 0);
    end_cache(cache);
}

/* A ttl runs from the touch on, and so does its share. */
TEST(what_is_touched_is_due_by_its_new_ttl)
{
    static const int64_t ttl_ms[] = {TTL, 10 * TTL, TTL / 10};
    for (size_t i = 0; i < COUNT_OF(ttl_ms); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_ahead(&clock);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        make_aged(cache, &clock, TTL / 2);
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), ttl_ms[i]), ASIDE_OK);
        fake_clock_advance_ms(&clock, ttl_ms[i] * 3 / 4 - 1, cache);
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
        CHECK_INT(STAT(cache, refreshes), 0);
        fake_clock_advance_ms(&clock, 1, cache);
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
        CHECK_INT(STAT(cache, refreshes), 1);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(what_had_no_end_and_is_given_one_is_due_before_it)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_ahead(&clock);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    put(cache, "k", "old", ASIDE_FOREVER);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), TTL), ASIDE_OK);
    fake_clock_advance_ms(&clock, AHEAD_AT - 1, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 0);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 1);
    let_go(cache, &source);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), ASIDE_FOREVER), ASIDE_OK);
    fake_clock_advance_ms(&clock, TTL, cache);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 1);
    end_cache(cache);
}

/* Longer than the milliseconds of a ttl are kept: a call that goes by a share of its own sees it all the
 * same. */
TEST(what_lives_for_a_hundred_days_is_due_by_the_share_of_the_call)
{
    const int64_t day_ms = (int64_t)24 * 60 * 60 * 1000;
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_ahead(&clock);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    call.freshness.refresh_ahead = 0.9;
    put(cache, "k", "old", 100 * day_ms);
    fake_clock_advance_ms(&clock, 89 * day_ms, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 0);
    fake_clock_advance_ms(&clock, 2 * day_ms, cache);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, refreshes), 1);
    let_go(cache, &source);
    end_cache(cache);
}

/* ---- XFetch -------------------------------------------------------------------------------------- */

struct timed {
    struct fake_clock *clock;
    int64_t takes_ms;
    _Atomic int fetches;
};

static aside_status takes_its_time(aside_fetch *fetch, void *arg)
{
    struct timed *timed = (struct timed *)arg;
    atomic_fetch_add(&timed->fetches, 1);
    fake_clock_advance_ms(timed->clock, timed->takes_ms, NULL);
    return aside_fetch_copy(fetch, "old", 3);
}

/* Refreshes run on the thread of who finds them due, so their number is known when he returns. */
static aside_cache *open_xfetch(struct fake_clock *clock, double beta)
{
    static const uint8_t seed[16] = "early's tests";
    aside_options options = quiet_options();
    options.clock = fake_clock_init(clock);
    options.max_flight_age_ms = 0;
    options.fetch_threads = 0;
    options.freshness.xfetch_beta = beta;
    options.hash_seed = seed;
    return open_cache(&options);
}

enum { KEYS = 4000 };

/* Of so many keys, each fetched in takes_ms and met once with left_ms of its ttl, how many are
 * refreshed then. */
static int refreshed_of_keys(double beta, double own, int64_t takes_ms, int64_t left_ms)
{
    struct fake_clock clock;
    struct timed timed = {&clock, takes_ms, 0};
    aside_cache *cache = open_xfetch(&clock, beta);
    aside_call call = {ASIDE_CALL, .fetch = takes_its_time, .arg = &timed, .ttl_ms = 100000};
    call.freshness.xfetch_beta = own;
    int refreshed = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        aside_result result = ASIDE_RESULT_INIT;
        timed.takes_ms = takes_ms;
        CHECK_STATUS(aside_get_with_fetch(cache, &key, sizeof key, &call, &result), ASIDE_OK);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_FETCHED);
        aside_value_unref(result.value);
        fake_clock_advance_ms(&clock, 100000 - left_ms, cache);
        timed.takes_ms = 0;
        timed.fetches = 0;
        CHECK_STATUS(aside_get_with_fetch(cache, &key, sizeof key, &call, &result), ASIDE_OK);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
        aside_value_unref(result.value);
        refreshed += timed.fetches;
    }
    CHECK_INT(STAT(cache, refreshes), refreshed);
    check_lookups(cache, 2 * KEYS);
    end_cache(cache);
    return refreshed;
}

TEST(xfetch_refreshes_with_the_probability_that_it_says)
{
    static const struct {
        double beta, own;
        int64_t takes_ms, left_ms;
    } cases[] = {{1, 0, 100, 100}, {1, 0, 100, 10},   {1, 0, 100, 300},
                 {3, 0, 50, 100},  {0.5, 0, 200, 70}, {1, 2, 100, 100}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        double beta = cases[i].own > 0 ? cases[i].own : cases[i].beta;
        double p = e_to_minus((double)cases[i].left_ms / (beta * (double)cases[i].takes_ms));
        double off =
            refreshed_of_keys(cases[i].beta, cases[i].own, cases[i].takes_ms, cases[i].left_ms) -
            KEYS * p;
        CHECK(off * off <= 5 * 5 * KEYS * p * (1 - p)); /* once in two million by chance */
    }
}

TEST(xfetch_leaves_alone_what_took_no_time_what_has_long_to_live_and_who_wants_none)
{
    CHECK_INT(refreshed_of_keys(1, 0, 0, 1), 0);
    CHECK_INT(refreshed_of_keys(1, 0, 100, 50000), 0);
    CHECK_INT(refreshed_of_keys(1, ASIDE_OFF, 100, 1), 0);
}

TEST(what_was_set_took_no_time)
{
    struct fake_clock clock;
    struct timed timed = {&clock, 0, 0};
    aside_cache *cache = open_xfetch(&clock, 1000);
    aside_call call = {ASIDE_CALL, .fetch = takes_its_time, .arg = &timed};
    put(cache, "k", "old", TTL);
    fake_clock_advance_ms(&clock, TTL - 1, cache);
    for (int i = 0; i < 1000; i++)
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(timed.fetches, 0);
    end_cache(cache);
}

/* The window of who may draw grows with the ttl, beyond what time can be told: it is for ever then. */
TEST(what_was_slow_to_fetch_and_is_touched_for_a_year_is_drawn_for_before_its_end)
{
    const int64_t year_ms = (int64_t)365 * 24 * 60 * 60 * 1000;
    struct fake_clock clock;
    struct timed timed = {&clock, 10000, 0};
    aside_cache *cache = open_xfetch(&clock, 1);
    aside_call call = {ASIDE_CALL, .fetch = takes_its_time, .arg = &timed, .ttl_ms = TTL};
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_FETCHED);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), year_ms), ASIDE_OK);
    for (int i = 0; i < 100; i++)
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(timed.fetches, 1);
    fake_clock_advance_ms(&clock, year_ms - 1, cache);
    for (int i = 0; i < 10 && timed.fetches == 1; i++)
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(timed.fetches, 2);
    end_cache(cache);
}
