/*
 * stale.h -- what the tests of stale values share: a cache on the injected clock whose values have
 * windows past their ttl, and one call of the key "k" with what came of it.
 */
#ifndef ASIDE_CONTRACT_STALE_H
#define ASIDE_CONTRACT_STALE_H

#include "helpers.h"

/* In milliseconds. */
#define TTL 1000
#define STALE 5000
#define TO_ERROR 20000
#define THROTTLE 2000
#define LONG 60000

/* Values that live for TTL; without windows so far. */
static inline aside_options stale_options(struct fake_clock *clock)
{
    aside_options options = quiet_options();
    options.clock = fake_clock_init(clock);
    options.default_ttl_ms = TTL;
    options.freshness.throttle_ms = THROTTLE;
    return options;
}

static inline aside_call call_for(struct source *source)
{
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .arg = source};
    return call;
}

/* One call on this thread; its value is compared (NULL: none) and dropped. */
static inline aside_result call_gives(aside_cache *cache, const aside_call *call, aside_status want,
                                      const char *text)
{
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), call, &result), want);
    CHECK(text == NULL ? result.value == NULL : value_is(result.value, text));
    aside_value_unref(result.value);
    result.value = NULL;
    return result;
}

/* The call is answered at once by a value past its ttl, for that reason. */
static inline aside_result call_is_stale(aside_cache *cache, const aside_call *call,
                                         const char *text, aside_stale_cause cause)
{
    aside_result result = call_gives(cache, call, ASIDE_OK, text);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(result.stale_cause, cause);
    CHECK_INT(result.ttl_left_ms, 0);
    return result;
}

/* The call gets a value that is not stale. */
static inline aside_result call_is_fresh(aside_cache *cache, const aside_call *call,
                                         const char *text, aside_outcome outcome)
{
    aside_result result = call_gives(cache, call, ASIDE_OK, text);
    CHECK_INT(result.outcome, outcome);
    CHECK_INT(result.stale_cause, ASIDE_STALE_NOT);
    CHECK_STATUS(result.fetch_status, ASIDE_OK);
    return result;
}

/* What a caller on a thread of his own came to have, as above. */
static inline void caller_is_stale(struct caller *caller, const char *text, aside_stale_cause cause)
{
    CHECK_STATUS(caller_join(caller), ASIDE_OK);
    CHECK(value_is(caller->result.value, text));
    CHECK_INT(caller->result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(caller->result.stale_cause, cause);
    CHECK_INT(caller->result.ttl_left_ms, 0);
    caller_drop(caller);
}

static inline void caller_is_fresh(struct caller *caller, const char *text, aside_outcome outcome)
{
    CHECK_STATUS(caller_join(caller), ASIDE_OK);
    CHECK(value_is(caller->result.value, text));
    CHECK_INT(caller->result.outcome, outcome);
    CHECK_INT(caller->result.stale_cause, ASIDE_STALE_NOT);
    caller_drop(caller);
}

/* Until every fetch has ended, those in the background too. */
static inline void wait_for_fetches(aside_cache *cache)
{
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
}

/* A source that is held until the caller who has begun its refresh is answered: else he, should he be
 * slow, may get what it has brought already. */
static inline void held_init(struct source *source, const char *answer)
{
    source_init(source, answer, true);
}

/* Lets it go, and what comes later. */
static inline void let_go(aside_cache *cache, struct source *source)
{
    gate_open(&source->gate);
    wait_for_fetches(cache);
}

/* The value "old", which is past its ttl by so much. */
static inline void make_old(aside_cache *cache, struct fake_clock *clock, int64_t past_ms)
{
    put(cache, "k", "old", ASIDE_DEFAULT_TTL);
    fake_clock_advance_ms(clock, TTL + past_ms, cache);
}

/* e to the minus x, x not negative, without the mathematical library: of a 1024th of x by its series. */
static inline double e_to_minus(double x)
{
    double y = x / 1024, small = 1 - y * (1 - y / 2 * (1 - y / 3 * (1 - y / 4 * (1 - y / 5))));
    for (int i = 0; i < 10; i++)
        small *= small;
    return small;
}

/* S1, in the header's words, where so many lookups were made and nothing runs. */
static inline void check_lookups(aside_cache *cache, uint64_t lookups)
{
    aside_stats s = test_stats(cache);
    CHECK_INT(s.hits + s.stale + s.negative_hits + s.error_hits + s.misses + s.misses_led +
                  s.misses_joined + s.refused,
              lookups);
}

#endif
