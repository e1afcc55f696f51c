/*
 * rules.c -- freshness/rules by itself: which numbers make sense, a call's over a cache's, how long a
 * failure is remembered, and when something fresh is refreshed: for XFetch, how often.
 */
#include "rooms.h"

#include "base/dice.h"
#include "contract/stale.h"
#include "freshness/rules.h"

#include <math.h>

#define MS INT64_C(1000000) /* in nanoseconds */

static const aside_freshness nothing = {0};

/* ---- numbers that make sense --------------------------------------------------------------------- */

enum { DURATIONS = 7 };

static int64_t *duration(aside_freshness *rules, int which)
{
    int64_t *const durations[DURATIONS] = {&rules->stale_ms,         &rules->stale_if_error_ms,
                                           &rules->throttle_ms,      &rules->soft_timeout_ms,
                                           &rules->not_found_ttl_ms, &rules->backoff_ms,
                                           &rules->backoff_max_ms};
    return durations[which];
}

TEST(a_duration_is_not_negative_but_for_off)
{
    static const int64_t good[] = {0, 1, ASIDE_OFF, ASIDE_FOREVER, ASIDE_FOREVER - 1};
    static const int64_t bad[] = {-2, -1000, INT64_MIN};
    for (int which = 0; which < DURATIONS; which++) {
        aside_freshness rules = nothing;
        for (size_t i = 0; i < COUNT_OF(good); i++) {
            *duration(&rules, which) = good[i];
            CHECK(rules_are(&rules));
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
            *duration(&rules, which) = bad[i];
            CHECK(!rules_are(&rules));
        }
    }
}

TEST(a_share_lies_between_0_and_1)
{
    const double good[] = {0, -0.0, 0.5, 1e-300, 1 - 1e-16, -1};
    const double bad[] = {1, 1.5, -0.5, -2, HUGE_VAL, -HUGE_VAL, NAN, -NAN};
    aside_freshness rules = nothing;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        rules.refresh_ahead = good[i];
        CHECK(rules_are(&rules));
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        rules.refresh_ahead = bad[i];
        CHECK(!rules_are(&rules));
    }
}

TEST(a_beta_is_a_number_that_is_not_negative)
{
    const double good[] = {0, -0.0, 1, 1e-300, 1000, -1};
    const double bad[] = {-0.5, -2, HUGE_VAL, -HUGE_VAL, NAN, -NAN};
    aside_freshness rules = nothing;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        rules.xfetch_beta = good[i];
        CHECK(rules_are(&rules));
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        rules.xfetch_beta = bad[i];
        CHECK(!rules_are(&rules));
    }
}

/* ---- a call's over a cache's --------------------------------------------------------------------- */

TEST(a_duration_of_the_call_is_its_own_or_the_caches_or_off)
{
    static const struct {
        int64_t cache, call, want;
    } cases[] = {{0, 0, 0},
                 {5, 0, 5},
                 {5, 7, 7},
                 {0, 7, 7},
                 {5, ASIDE_OFF, 0},
                 {ASIDE_OFF, 0, 0},
                 {ASIDE_OFF, 7, 7},
                 {ASIDE_OFF, ASIDE_OFF, 0},
                 {5, ASIDE_FOREVER, ASIDE_FOREVER},
                 {ASIDE_FOREVER, 5, 5}};
    for (int which = 0; which < DURATIONS; which++)
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            aside_freshness cache = nothing, call = nothing;
            *duration(&cache, which) = cases[i].cache;
            *duration(&call, which) = cases[i].call;
            aside_freshness got = rules_of(&cache, &call);
            for (int other = 0; other < DURATIONS; other++)
                CHECK_INT(*duration(&got, other), other == which ? cases[i].want : 0);
            CHECK_INT(rules_are_none(&call), cases[i].call == 0);
        }
}

TEST(a_share_and_a_beta_of_the_call_are_its_own_or_the_caches_or_off)
{
    static const struct {
        double cache, call, want;
    } cases[] = {{0, 0, 0},    {0.5, 0, 0.5},    {0.5, 0.25, 0.25}, {0, 0.25, 0.25},
                 {0.5, -1, 0}, {-1, 0.25, 0.25}, {-1, 0, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        aside_freshness cache = nothing, call = nothing;
        cache.refresh_ahead = cases[i].cache;
        call.refresh_ahead = cases[i].call;
        CHECK(rules_of(&cache, &call).refresh_ahead == cases[i].want);
        CHECK(rules_of(&cache, &call).xfetch_beta == 0);
        CHECK_INT(rules_are_none(&call), cases[i].call == 0);
        cache = call = nothing;
        cache.xfetch_beta = cases[i].cache;
        call.xfetch_beta = cases[i].call;
        CHECK(rules_of(&cache, &call).xfetch_beta == cases[i].want);
        CHECK(rules_of(&cache, &call).refresh_ahead == 0);
        CHECK_INT(rules_are_none(&call), cases[i].call == 0);
    }
}

TEST(what_is_more_than_fresh_for_its_ttl_is_rare)
{
    aside_freshness rules = {.throttle_ms = 1,
                             .soft_timeout_ms = 1,
                             .not_found_ttl_ms = 1,
                             .backoff_ms = 1,
                             .backoff_max_ms = 1};
    CHECK(!rules_are_rare(&rules));
    CHECK(!rules_are_rare(&nothing));
    CHECK(rules_are_rare(&(aside_freshness){.stale_ms = 1}));
    CHECK(rules_are_rare(&(aside_freshness){.stale_if_error_ms = 1}));
    CHECK(rules_are_rare(&(aside_freshness){.refresh_ahead = 0.9}));
    CHECK(rules_are_rare(&(aside_freshness){.xfetch_beta = 1}));
}

/* ---- after the ttl ------------------------------------------------------------------------------- */

TEST(the_longer_window_counts_for_failures)
{
    aside_freshness rules = {.stale_ms = 5, .stale_if_error_ms = 20};
    CHECK_INT(rules_stale_for_ns(&rules), 5 * MS);
    CHECK_INT(rules_serve_for_ns(&rules), 20 * MS);
    rules.stale_if_error_ms = 0;
    CHECK_INT(rules_serve_for_ns(&rules), 5 * MS);
    rules.stale_ms = ASIDE_FOREVER;
    CHECK_INT(rules_stale_for_ns(&rules), CLOCK_NEVER);
    CHECK_INT(rules_serve_for_ns(&rules), CLOCK_NEVER);
    rules = (aside_freshness){.stale_if_error_ms = ASIDE_FOREVER - 1};
    CHECK_INT(rules_stale_for_ns(&rules), 0);
    CHECK_INT(rules_serve_for_ns(&rules), CLOCK_NEVER);
}

TEST(each_failure_is_remembered_twice_as_long_up_to_the_most)
{
    aside_freshness rules = {.backoff_ms = 100, .backoff_max_ms = 1000};
    static const int64_t want[] = {100, 200, 400, 800, 1000, 1000};
    for (uint64_t i = 0; i < COUNT_OF(want); i++)
        CHECK_INT(rules_backoff_ms(&rules, 100, i + 1), want[i]);
    CHECK_INT(rules_backoff_ms(&rules, 100, UINT64_MAX), 1000);
    rules.backoff_max_ms = 400; /* met exactly */
    CHECK_INT(rules_backoff_ms(&rules, 100, 3), 400);
    CHECK_INT(rules_backoff_ms(&rules, 100, 4), 400);
}

TEST(a_first_failure_longer_than_the_most_stays_as_it_is)
{
    aside_freshness rules = {.backoff_ms = 100};
    static const int64_t most[] = {0, 1, 99, 100};
    for (size_t m = 0; m < COUNT_OF(most); m++)
        for (uint64_t times = 1; times < 70; times++) {
            rules.backoff_max_ms = most[m];
            CHECK_INT(rules_backoff_ms(&rules, 100, times), 100);
        }
}

TEST(doubling_ends_at_for_ever)
{
    aside_freshness rules = {.backoff_max_ms = ASIDE_FOREVER};
    CHECK_INT(rules_backoff_ms(&rules, 1, 62), INT64_C(1) << 61);
    CHECK_INT(rules_backoff_ms(&rules, 1, 63), INT64_C(1) << 62);
    CHECK_INT(rules_backoff_ms(&rules, 1, 64), ASIDE_FOREVER);
    CHECK_INT(rules_backoff_ms(&rules, 1, UINT64_MAX), ASIDE_FOREVER);
    CHECK_INT(rules_backoff_ms(&rules, ASIDE_FOREVER - 1, 2), ASIDE_FOREVER);
    CHECK_INT(rules_backoff_ms(&rules, ASIDE_FOREVER, 1), ASIDE_FOREVER);
}

/* ---- before its end ------------------------------------------------------------------------------ */

static uint64_t none_drawn(void *ctx)
{
    (void)ctx;
    CHECK(!"nothing is to be drawn");
    return 0;
}

TEST(a_share_is_refreshed_from_its_instant_on)
{
    aside_freshness rules = {.refresh_ahead = 0.75};
    CHECK_INT(rules_early_for_ns(&rules, 1000 * MS, 0), 250 * MS);
    CHECK(!rules_refresh_early(&rules, 1000 * MS, 250 * MS + 1, 0, none_drawn, NULL));
    CHECK(rules_refresh_early(&rules, 1000 * MS, 250 * MS, 0, none_drawn, NULL));
    CHECK(rules_refresh_early(&rules, 1000 * MS, 1, 0, none_drawn, NULL));
    CHECK_INT(rules_early_for_ns(&rules, INT64_MAX - 1, 0) > 0, 1);
}

TEST(what_never_expires_and_what_has_no_rule_is_never_early)
{
    aside_freshness rules = {.refresh_ahead = 0.5, .xfetch_beta = 1};
    CHECK_INT(rules_early_for_ns(&rules, CLOCK_NEVER, 1000 * MS), 0);
    CHECK_INT(rules_early_for_ns(&nothing, 1000 * MS, 1000 * MS), 0);
    CHECK(!rules_refresh_early(&nothing, 1000 * MS, 1, 1000 * MS, none_drawn, NULL));
}

TEST(what_took_no_time_is_not_refreshed_early_by_chance)
{
    aside_freshness rules = {.xfetch_beta = 1000};
    CHECK_INT(rules_early_for_ns(&rules, 1000 * MS, 0), 0);
    CHECK(!rules_refresh_early(&rules, 1000 * MS, 1, 0, none_drawn, NULL));
}

static uint64_t roll(void *dice)
{
    return dice_roll((struct dice *)dice);
}

TEST(nothing_is_drawn_before_the_window)
{
    static const double betas[] = {1e-6, 0.5, 1, 3, 1e6};
    static const int64_t took[] = {1, 10000, 3 * MS, 167000 * MS, INT64_MAX};
    for (size_t b = 0; b < COUNT_OF(betas); b++)
        for (size_t t = 0; t < COUNT_OF(took); t++) {
            aside_freshness rules = {.xfetch_beta = betas[b]};
            int64_t early_ns = rules_early_for_ns(&rules, INT64_MAX - 1, took[t]);
            CHECK(early_ns >= 0);
            if (early_ns < INT64_MAX - 1)
                CHECK(!rules_refresh_early(&rules, INT64_MAX - 1, early_ns + 2 + early_ns / 1000000,
                                           took[t], none_drawn, NULL));
        }
}

/* The most that early_for may cost is one in a million draws. */
TEST(the_window_is_so_early_that_it_leaves_nothing_out)
{
    aside_freshness rules = {.xfetch_beta = 2};
    int64_t early_ns = rules_early_for_ns(&rules, 1000000 * MS, 100 * MS);
    CHECK(e_to_minus((double)early_ns / (2 * 100.0 * MS)) < 1e-6);
    rules.refresh_ahead = 0.001;
    CHECK_INT(rules_early_for_ns(&rules, 1000 * MS, MS), 999 * MS); /* the longer of the two */
}

/* ---- how often ----------------------------------------------------------------------------------- */

enum { DRAWS = 200000 };

TEST(xfetch_refreshes_as_often_as_its_formula_says)
{
    static const struct {
        int64_t left_ns, took_ns;
        double beta;
    } cases[] = {{100 * MS, 100 * MS, 1},
                 {10 * MS, 100 * MS, 1},
                 {300 * MS, 100 * MS, 1},
                 {500 * MS, 100 * MS, 1},
                 {100 * MS, 100 * MS, 3},
                 {100 * MS, 100 * MS, 0.25},
                 {1, 1, 1},
                 {7 * MS, 10 * MS, 0.5},
                 {900 * MS, 100 * MS, 2}};
    struct dice dice;
    dice_init(&dice, test_seed());
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        aside_freshness rules = {.xfetch_beta = cases[i].beta};
        double p =
            e_to_minus((double)cases[i].left_ns / (cases[i].beta * (double)cases[i].took_ns));
        int count = 0;
        for (int draw = 0; draw < DRAWS; draw++)
            count += rules_refresh_early(&rules, 1000000 * MS, cases[i].left_ns, cases[i].took_ns,
                                         roll, &dice);
        double off = count - DRAWS * p;
        CHECK(off * off <= 4 * 4 * DRAWS * p * (1 - p));
    }
}

/* The smallest deviate that refreshes with left_ns is left_ns / took_ns: so a deviate is found by
 * halving, with the same draws each time. */
static double deviate(struct dice *dice)
{
    aside_freshness rules = {.xfetch_beta = 1};
    const int64_t unit = INT64_C(1) << 40;
    uint64_t at = dice->at;
    int64_t low = 0, high = 40 * unit;
    struct dice same;
    while (high - low > unit >> 20) {
        int64_t middle = low + (high - low) / 2;
        dice_init(&same, at);
        if (rules_refresh_early(&rules, INT64_MAX - 1, middle, unit, roll, &same))
            low = middle;
        else
            high = middle;
    }
    dice->at = same.at;
    return (double)low / (double)unit;
}

/* Of an exponential deviate the mean is 1, the variance 1, the variance of a square 20, and of the
 * variance's estimate, 8 / n. */
TEST(the_deviate_has_the_mean_and_the_variance_of_an_exponential_one)
{
    struct dice dice;
    double sum = 0, squares = 0;
    dice_init(&dice, test_seed());
    for (int i = 0; i < DRAWS; i++) {
        double it = deviate(&dice);
        CHECK(it >= 0);
        sum += it;
        squares += it * it;
    }
    double mean = sum / DRAWS, variance = squares / DRAWS - mean * mean;
    double mean_off = mean - 1, variance_off = variance - 1;
    CHECK(mean_off * mean_off <= 4 * 4 * 1.0 / DRAWS);
    CHECK(variance_off * variance_off <= 4 * 4 * 8.0 / DRAWS);
}

/* However bad the draws are, it ends: all of them falling, all of them equal. */
static uint64_t falling(void *ctx)
{
    uint64_t *left = (uint64_t *)ctx;
    return *left ? --*left : 0;
}

TEST(a_draw_ends_whatever_the_dice_say)
{
    aside_freshness rules = {.xfetch_beta = 1};
    uint64_t from = 1001, none = 0;
    (void)rules_refresh_early(&rules, 1000 * MS, MS, MS, falling, &from);
    CHECK(!rules_refresh_early(&rules, 1000 * MS, MS, MS, falling, &none));
}

/* Each first run of falling draws is of an even length, which says no more than "at least one more". */
static uint64_t one_more(void *ctx)
{
    return ++*(uint64_t *)ctx % 3 == 2 ? 1 : 2;
}

TEST(the_deviate_is_at_most_40)
{
    aside_freshness rules = {.xfetch_beta = 1};
    uint64_t draws = 0;
    CHECK(rules_refresh_early(&rules, 1000 * MS, 40 * MS, MS, one_more, &draws));
    CHECK_INT(draws, 40 * 3);
    CHECK(!rules_refresh_early(&rules, 1000 * MS, 40 * MS + 1, MS, one_more, &draws));
    CHECK_INT(draws, 40 * 3);
}
