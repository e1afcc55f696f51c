/*
 * jitter.c -- a ttl is spread, so that what was stored together does not expire together: by the
 * cache's option, by a call's, and never below a millisecond.
 */
#include "helpers.h"

enum { KEYS = 10000 };

static const uint8_t seed[16] = "jitter's tests";

static aside_cache *open_jittered(struct fake_clock *clock, int kind, int64_t amount)
{
    aside_options options = quiet_options();
    options.clock = fake_clock_init(clock);
    options.hash_seed = seed;
    options.jitter.kind = kind;
    options.jitter.amount = amount;
    return open_cache(&options);
}

static aside_status answer(aside_fetch *fetch, void *arg)
{
    const int64_t *ttl_ms = (const int64_t *)arg;
    if (ttl_ms)
        CHECK_STATUS(aside_fetch_set_ttl(fetch, *ttl_ms), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

/* What is left of the ttl of a key that is there. */
static int64_t left_ms(aside_cache *cache, const void *key, size_t key_len)
{
    aside_call call = {ASIDE_CALL, .fetch = answer, .timeout_ms = ASIDE_NO_WAIT};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, key, key_len, &call, &result), ASIDE_OK);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
    aside_value_unref(result.value);
    return result.ttl_left_ms;
}

struct spread {
    int64_t least, most, sum; /* of KEYS */
};

static struct spread spread_begin(void)
{
    struct spread spread = {INT64_MAX, INT64_MIN, 0};
    return spread;
}

static void spread_add(struct spread *spread, int64_t ms)
{
    spread->least = ms < spread->least ? ms : spread->least;
    spread->most = ms > spread->most ? ms : spread->most;
    spread->sum += ms;
}

static struct spread spread_of_sets(aside_cache *cache, int64_t ttl_ms)
{
    struct spread spread = spread_begin();
    for (uint32_t i = 0; i < KEYS; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, ttl_ms), ASIDE_OK);
        spread_add(&spread, left_ms(cache, &i, sizeof i));
    }
    return spread;
}

/* The same of values that calls bring; ttl_ms 0: the fetch says so much instead. */
static struct spread spread_of_calls(aside_cache *cache, aside_jitter own, int64_t ttl_ms,
                                     int64_t said_ms)
{
    struct spread spread = spread_begin();
    aside_call call = {ASIDE_CALL, .fetch = answer};
    call.ttl_ms = ttl_ms;
    call.arg = said_ms ? &said_ms : NULL;
    call.jitter = own;
    for (uint32_t i = 0; i < KEYS; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        (void)aside_delete(cache, &i, sizeof i);
        CHECK_STATUS(aside_get_with_fetch(cache, &i, sizeof i, &call, &result), ASIDE_OK);
        aside_value_unref(result.value);
        CHECK_INT(left_ms(cache, &i, sizeof i), result.ttl_left_ms);
        spread_add(&spread, result.ttl_left_ms);
    }
    return spread;
}

/* Within the bounds, to which it comes near, with about this mean. */
static void check_spread(struct spread spread, int64_t least, int64_t most, int64_t mean)
{
    double range = (double)(most - least);
    CHECK(spread.least >= least && spread.most <= most);
    CHECK((double)(spread.least - least) <= range / 100);
    CHECK((double)(most - spread.most) <= range / 100);
    double off = (double)(spread.sum - KEYS * mean) / KEYS;
    CHECK(off * off <= range / 100 * range / 100);
}

static int count_fresh(aside_cache *cache)
{
    int fresh = 0;
    for (uint32_t i = 0; i < KEYS; i++)
        fresh += aside_copy(cache, &i, sizeof i, NULL, 0, NULL) == ASIDE_E_BUFFER;
    return fresh;
}

TEST(ten_thousand_keys_set_at_once_expire_over_ten_seconds)
{
    struct fake_clock clock;
    aside_cache *cache = open_jittered(&clock, ASIDE_JITTER_EQUAL, 10000);
    struct spread spread = spread_of_sets(cache, 60000);
    check_spread(spread, 55000, 65000, 60000);
    fake_clock_advance_ms(&clock, 54999, cache);
    CHECK_INT(count_fresh(cache), KEYS);
    fake_clock_advance_ms(&clock, 5001, cache);
    int half = count_fresh(cache);
    CHECK(half > KEYS * 45 / 100 && half < KEYS * 55 / 100);
    fake_clock_advance_ms(&clock, 5000, cache);
    CHECK_INT(count_fresh(cache), 0);
    end_cache(cache);
}

TEST(each_kind_spreads_as_it_says)
{
    static const struct {
        int kind;
        int64_t amount, least, most;
    } kinds[] = {{ASIDE_JITTER_DEFAULT, 500, 1000, 1000}, {ASIDE_JITTER_NONE, 500, 1000, 1000},
                 {ASIDE_JITTER_ADD, 500, 1000, 1500},     {ASIDE_JITTER_EQUAL, 500, 750, 1250},
                 {ASIDE_JITTER_FULL, 200, 200, 1000},     {ASIDE_JITTER_FULL, 2000, 1000, 1000},
                 {ASIDE_JITTER_PERCENT, 20, 800, 1200},   {ASIDE_JITTER_PERCENT, 0, 1000, 1000},
                 {ASIDE_JITTER_ADD, 0, 1000, 1000}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct fake_clock clock;
        aside_cache *cache = open_jittered(&clock, kinds[i].kind, kinds[i].amount);
        check_spread(spread_of_sets(cache, 1000), kinds[i].least, kinds[i].most,
                     (kinds[i].least + kinds[i].most) / 2);
        end_cache(cache);
    }
}

TEST(a_spread_ttl_is_a_millisecond_at_least)
{
    static const struct {
        int kind;
        int64_t amount, most;
    } kinds[] = {{ASIDE_JITTER_EQUAL, 1000, 505},
                 {ASIDE_JITTER_FULL, 0, 5},
                 {ASIDE_JITTER_PERCENT, 100, 10}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct fake_clock clock;
        aside_cache *cache = open_jittered(&clock, kinds[i].kind, kinds[i].amount);
        struct spread spread = spread_of_sets(cache, 5);
        CHECK_INT(spread.least, 1);
        CHECK(spread.most <= kinds[i].most);
        end_cache(cache);
    }
}

TEST(for_ever_stays_for_ever_and_no_sum_overflows)
{
    struct fake_clock clock;
    aside_cache *cache = open_jittered(&clock, ASIDE_JITTER_ADD, INT64_MAX);
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK_INT(left_ms(cache, ASIDE_STR("k")), ASIDE_FOREVER);
    for (int i = 0; i < 100; i++) {
        put(cache, "k", "v", INT64_MAX - 1);
        CHECK_STATUS(look(cache, "k"), ASIDE_OK);
        put(cache, "k", "v", 1);
        CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    }
    end_cache(cache);
}

TEST(the_default_ttl_is_spread_as_well)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.hash_seed = seed;
    options.default_ttl_ms = 1000;
    options.jitter.kind = ASIDE_JITTER_ADD;
    options.jitter.amount = 500;
    aside_cache *cache = open_cache(&options);
    check_spread(spread_of_sets(cache, ASIDE_DEFAULT_TTL), 1000, 1500, 1250);
    end_cache(cache);
}

TEST(what_is_touched_is_spread_anew)
{
    struct fake_clock clock;
    aside_cache *cache = open_jittered(&clock, ASIDE_JITTER_EQUAL, 1000);
    struct spread spread = spread_begin();
    put(cache, "k", "v", ASIDE_FOREVER);
    for (int i = 0; i < KEYS; i++) {
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 2000), ASIDE_OK);
        spread_add(&spread, left_ms(cache, ASIDE_STR("k")));
    }
    check_spread(spread, 1500, 2500, 2000);
    end_cache(cache);
}

TEST(a_call_has_the_caches_jitter_or_its_own)
{
    static const aside_jitter none = {ASIDE_JITTER_NONE, 0}, as_the_cache = {0, 0},
                              add = {ASIDE_JITTER_ADD, 100};
    struct fake_clock clock;
    aside_cache *cache = open_jittered(&clock, ASIDE_JITTER_EQUAL, 1000);
    check_spread(spread_of_calls(cache, as_the_cache, 2000, 0), 1500, 2500, 2000);
    check_spread(spread_of_calls(cache, none, 2000, 0), 2000, 2000, 2000);
    check_spread(spread_of_calls(cache, add, 2000, 0), 2000, 2100, 2050);
    check_spread(spread_of_calls(cache, as_the_cache, 0, 3000), 2500, 3500, 3000);
    check_spread(spread_of_calls(cache, add, 2000, 3000), 3000, 3100, 3050);
    end_cache(cache);
}

TEST(a_jitter_that_is_none_is_refused)
{
    static const aside_jitter bad[] = {{-1, 0},
                                       {ASIDE_JITTER_PERCENT + 1, 0},
                                       {ASIDE_JITTER_ADD, -1},
                                       {ASIDE_JITTER_EQUAL, -1},
                                       {ASIDE_JITTER_FULL, INT64_MIN},
                                       {ASIDE_JITTER_PERCENT, -1},
                                       {ASIDE_JITTER_PERCENT, 101}};
    aside_cache *cache = open_quiet(), *none;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        aside_options options = quiet_options();
        aside_call call = {ASIDE_CALL, .fetch = answer};
        aside_result result = ASIDE_RESULT_INIT;
        options.jitter = call.jitter = bad[i];
        CHECK_STATUS(aside_open(&none, &options), ASIDE_E_INVALID);
        CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_E_INVALID);
        CHECK(none == NULL && result.value == NULL);
    }
    end_cache(cache);
}

/* As one built against a header without the member would. */
TEST(an_older_options_and_an_older_call_have_no_jitter)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    aside_call call = {ASIDE_CALL, .fetch = answer};
    aside_result result = ASIDE_RESULT_INIT;
    options.clock = fake_clock_init(&clock);
    options.jitter.kind = call.jitter.kind = ASIDE_JITTER_PERCENT;
    options.jitter.amount = call.jitter.amount = 1000;
    options.struct_size = offsetof(aside_options, jitter);
    call.struct_size = offsetof(aside_call, jitter);
    call.ttl_ms = 1000;
    aside_cache *cache = open_cache(&options);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK_INT(result.ttl_left_ms, 1000);
    aside_value_unref(result.value);
    end_cache(cache);
}
