/*
 * operations.c -- the counters of calls by verb and by outcome (ASIDE_OPERATION_MAP): ok, none,
 * error, exactly one of them a call, in every thread, and in agreement with the other counters (S1).
 */
#include "helpers.h"

/* ---- one call, one count ------------------------------------------------------------------------- */

/* The counts of all verbs, in the order of the map. */
enum {
#define VERB_NUMBER(verb) VERB_##verb,
    ASIDE_OPERATION_MAP(VERB_NUMBER)
#undef VERB_NUMBER
        VERBS
};

enum { OK, NONE, ERROR, OUTCOMES };

struct counts {
    uint64_t of[VERBS][OUTCOMES];
};

static const char *const verb_names[] = {
#define VERB_NAME(verb) #verb,
    ASIDE_OPERATION_MAP(VERB_NAME)
#undef VERB_NAME
};

static struct counts counts_of(aside_cache *cache)
{
    aside_stats stats = test_stats(cache);
    struct counts counts;
#define VERB_COUNTS(verb)                                                                          \
    counts.of[VERB_##verb][OK] = stats.verb##_ok;                                                  \
    counts.of[VERB_##verb][NONE] = stats.verb##_none;                                              \
    counts.of[VERB_##verb][ERROR] = stats.verb##_error;
    ASIDE_OPERATION_MAP(VERB_COUNTS)
#undef VERB_COUNTS
    return counts;
}

static int outcome_of(aside_status status)
{
    return status == ASIDE_OK ? OK : status > 0 ? NONE : ERROR;
}

/* Since `before` each count has grown by what `grown` says. */
static void check_grown(aside_cache *cache, const struct counts *before, const struct counts *grown,
                        int line)
{
    static const char *const outcomes[] = {"ok", "none", "error"};
    struct counts now = counts_of(cache);
    for (int verb = 0; verb < VERBS; verb++) {
        for (int outcome = 0; outcome < OUTCOMES; outcome++) {
            uint64_t was = before->of[verb][outcome], by = grown->of[verb][outcome];
            char why[128];
            snprintf(why, sizeof why, "%s_%s was %d, is %d, and not %d more", verb_names[verb],
                     outcomes[outcome], (int)was, (int)now.of[verb][outcome], (int)by);
            if (now.of[verb][outcome] != was + by)
                test_fail(__FILE__, line, "the counts of calls", why);
        }
    }
}

/* The call returns `status`, and that is all that is counted. */
#define CHECK_COUNTS(cache, verb, status, call)                                                    \
    do {                                                                                           \
        struct counts before_ = counts_of(cache), grown_;                                          \
        memset(&grown_, 0, sizeof grown_);                                                         \
        CHECK_STATUS(call, status);                                                                \
        grown_.of[VERB_##verb][outcome_of(status)] = 1;                                            \
        check_grown(cache, &before_, &grown_, __LINE__);                                           \
    } while (0)

/* Nothing is counted at all. */
#define CHECK_COUNTS_NOTHING(cache, action)                                                        \
    do {                                                                                           \
        struct counts before_ = counts_of(cache), grown_;                                          \
        memset(&grown_, 0, sizeof grown_);                                                         \
        action;                                                                                    \
        check_grown(cache, &before_, &grown_, __LINE__);                                           \
    } while (0)

static void no_op_visit(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
}

static aside_status visit(aside_cache *cache, const char *key)
{
    return aside_visit(cache, key, strlen(key), no_op_visit, NULL);
}

static aside_status copy(aside_cache *cache, const char *key, size_t capacity)
{
    char buffer[16];
    CHECK(capacity <= sizeof buffer);
    return aside_copy(cache, key, strlen(key), buffer, capacity, NULL);
}

static aside_status set(aside_cache *cache, const char *key, int64_t ttl_ms)
{
    return aside_set(cache, key, strlen(key), "value", 5, ttl_ms);
}

static aside_status add(aside_cache *cache, const char *key, int64_t ttl_ms)
{
    return aside_add(cache, key, strlen(key), "value", 5, ttl_ms);
}

TEST(a_new_cache_has_counted_no_call)
{
    aside_cache *cache = open_quiet();
    struct counts none;
    memset(&none, 0, sizeof none);
    check_grown(cache, &none, &none, __LINE__);
    end_cache(cache);
}

TEST(readers_count_what_they_say)
{
    aside_cache *cache = open_quiet();
    aside_value *value = NULL;
    put(cache, "k", "value", ASIDE_FOREVER);
    CHECK_COUNTS(cache, get, ASIDE_OK, look(cache, "k"));
    CHECK_COUNTS(cache, get, ASIDE_MISS, look(cache, "no"));
    CHECK_COUNTS(cache, get, ASIDE_E_INVALID, aside_get(cache, NULL, 1, &value));
    CHECK_COUNTS(cache, get, ASIDE_E_INVALID, aside_get(cache, "k", ASIDE_MAX_KEY + 1, &value));
    CHECK_COUNTS(cache, get, ASIDE_E_INVALID, aside_get(cache, ASIDE_STR("k"), NULL));
    CHECK_COUNTS(cache, copy, ASIDE_OK, copy(cache, "k", 16));
    CHECK_COUNTS(cache, copy, ASIDE_OK, copy(cache, "k", 5));
    CHECK_COUNTS(cache, copy, ASIDE_E_BUFFER, copy(cache, "k", 4));
    CHECK_COUNTS(cache, copy, ASIDE_E_BUFFER, aside_copy(cache, "k", 1, NULL, 0, NULL));
    CHECK_COUNTS(cache, copy, ASIDE_MISS, copy(cache, "no", 16));
    CHECK_COUNTS(cache, copy, ASIDE_E_INVALID, aside_copy(cache, "k", 1, NULL, 1, NULL));
    CHECK_COUNTS(cache, copy, ASIDE_E_INVALID, aside_copy(cache, NULL, 1, NULL, 0, NULL));
    CHECK_COUNTS(cache, visit, ASIDE_OK, visit(cache, "k"));
    CHECK_COUNTS(cache, visit, ASIDE_MISS, visit(cache, "no"));
    CHECK_COUNTS(cache, visit, ASIDE_E_INVALID, aside_visit(cache, "k", 1, NULL, NULL));
    CHECK_COUNTS(cache, visit, ASIDE_E_INVALID, aside_visit(cache, NULL, 1, no_op_visit, NULL));
    end_cache(cache);
}

TEST(a_buffer_that_is_too_small_is_an_error_and_a_hit)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "value", ASIDE_FOREVER);
    CHECK_STATUS(copy(cache, "k", 4), ASIDE_E_BUFFER);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.copy_error, 1);
    CHECK_INT(stats.copy_ok, 0);
    CHECK_INT(stats.hits, 1);
    CHECK_INT(stats.misses, 0);
    end_cache(cache);
}

TEST(writers_count_what_they_say)
{
    aside_options options = quiet_options();
    options.max_bytes = (size_t)1 << 20;
    aside_cache *cache = open_cache(&options);
    static char large[2 << 20];
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
    CHECK_COUNTS(cache, set, ASIDE_OK, set(cache, "k", 1000));
    CHECK_COUNTS(cache, set, ASIDE_OK, set(cache, "k", ASIDE_DEFAULT_TTL));
    CHECK_COUNTS(cache, set, ASIDE_OK, set(cache, "k", 0));
    CHECK_COUNTS(cache, set, ASIDE_OK, aside_set_value(cache, "k", 1, value, 1000));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, set(cache, "k", -1));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, aside_set(cache, "k", 1, NULL, 1, 1000));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, aside_set(cache, NULL, 1, "v", 1, 1000));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, aside_set_value(cache, "k", 1, NULL, 1000));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, aside_set_value(cache, "k", 1, value, -3));
    CHECK_COUNTS(cache, set, ASIDE_E_TOO_LARGE,
                 aside_set(cache, "k", 1, large, sizeof large, 1000));
    CHECK_COUNTS(cache, add, ASIDE_EXISTS, add(cache, "k", 1000));
    CHECK_COUNTS(cache, add, ASIDE_EXISTS, add(cache, "k", 0));
    CHECK_COUNTS(cache, add, ASIDE_OK, add(cache, "n", 1000));
    CHECK_COUNTS(cache, add, ASIDE_OK, add(cache, "z", 0));
    CHECK_COUNTS(cache, add, ASIDE_E_INVALID, add(cache, "z", -1));
    CHECK_COUNTS(cache, add, ASIDE_E_INVALID, aside_add(cache, NULL, 1, "v", 1, 1000));
    CHECK_COUNTS(cache, add, ASIDE_E_TOO_LARGE,
                 aside_add(cache, "z", 1, large, sizeof large, 1000));
    aside_value_unref(value);
    end_cache(cache);
}

TEST(verbs_that_end_or_prolong_count_what_they_say)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    put(cache, "k", "value", 1000);
    CHECK_COUNTS(cache, touch, ASIDE_OK, aside_touch(cache, "k", 1, 100));
    CHECK_COUNTS(cache, touch, ASIDE_MISS, aside_touch(cache, "no", 2, 100));
    CHECK_COUNTS(cache, touch, ASIDE_E_INVALID, aside_touch(cache, "k", 1, -1));
    CHECK_COUNTS(cache, touch, ASIDE_E_INVALID, aside_touch(cache, NULL, 1, 100));
    CHECK_COUNTS(cache, touch, ASIDE_OK, aside_touch(cache, "k", 1, 0)); /* drops it */
    CHECK_COUNTS(cache, touch, ASIDE_MISS, aside_touch(cache, "k", 1, 0));
    put(cache, "k", "value", 1000);
    CHECK_COUNTS(cache, expire, ASIDE_OK, aside_expire(cache, "k", 1));
    CHECK_COUNTS(cache, expire, ASIDE_MISS, aside_expire(cache, "k", 1));
    CHECK_COUNTS(cache, expire, ASIDE_E_INVALID, aside_expire(cache, NULL, 1));
    put(cache, "k", "value", 1000);
    CHECK_COUNTS(cache, delete, ASIDE_OK, aside_delete(cache, "k", 1));
    CHECK_COUNTS(cache, delete, ASIDE_MISS, aside_delete(cache, "k", 1));
    CHECK_COUNTS(cache, delete, ASIDE_E_INVALID, aside_delete(cache, NULL, 1));
    put(cache, "k", "value", 10);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_COUNTS(cache, delete, ASIDE_MISS, aside_delete(cache, "k", 1)); /* it was over */
    CHECK_COUNTS(cache, clear, ASIDE_OK, aside_clear(cache));
    CHECK_COUNTS(cache, clear, ASIDE_OK, aside_clear(cache));
    end_cache(cache);
}

/* ---- get_with_fetch ------------------------------------------------------------------------------ */

static aside_status call_with(aside_cache *cache, const char *key, aside_fetch_fn *fetch, void *arg,
                              int64_t timeout_ms, aside_cancel *token)
{
    struct caller caller;
    caller_init(&caller, cache, key, fetch, arg);
    caller.call.timeout_ms = timeout_ms;
    caller.call.cancel = token;
    aside_status status = caller_run(&caller);
    caller_drop(&caller);
    return status;
}

static aside_status says(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    return *(const aside_status *)arg;
}

static aside_status finds_nothing(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_not_found(fetch);
}

static aside_status fails(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_fail(fetch, 1);
}

TEST(calls_that_fetch_count_what_they_say)
{
    aside_cache *cache = open_quiet();
    aside_cancel *fired = token_new();
    struct source source;
    aside_status own = (aside_status)-77, nothing = ASIDE_OK, pending = ASIDE_PENDING;
    aside_call call = {ASIDE_CALL, .fetch = finds_nothing};
    aside_result result = ASIDE_RESULT_INIT;
    source_init(&source, "v", false);
    aside_cancel_fire(fired);
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK, ask(cache, "k", &source));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK, ask(cache, "k", &source)); /* a hit */
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK,
                 call_with(cache, "k", source_fetch, &source, ASIDE_NO_WAIT, fired));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK,
                 call_with(cache, "w", source_fetch, &source, 60000, NULL)); /* by a worker */
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_MISS,
                 call_with(cache, "no", source_fetch, &source, ASIDE_NO_WAIT, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_NOT_FOUND,
                 call_with(cache, "no", finds_nothing, NULL, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_FETCH,
                 call_with(cache, "no", fails, NULL, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, own, call_with(cache, "no", says, &own, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID, /* neither a value nor an error */
                 call_with(cache, "no", says, &nothing, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_ABANDONED,
                 call_with(cache, "no", says, &pending, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_CANCELLED,
                 call_with(cache, "no", source_fetch, &source, 0, fired));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID,
                 call_with(cache, "no", NULL, NULL, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID,
                 call_with(cache, "no", source_fetch, &source, -2, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID,
                 aside_get_with_fetch(cache, NULL, 1, &call, &result));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID,
                 aside_get_with_fetch(cache, "no", 2, NULL, &result));
    aside_cancel_unref(fired);
    end_cache(cache);
}

TEST(a_call_whose_result_can_not_be_written_counts_an_error)
{
    aside_cache *cache = open_quiet();
    aside_call call = {ASIDE_CALL, .fetch = finds_nothing};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID,
                 aside_get_with_fetch(cache, "no", 2, &call, NULL));
    result.struct_size = 0;
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_INVALID,
                 aside_get_with_fetch(cache, "no", 2, &call, &result));
    end_cache(cache);
}

TEST(callers_who_join_and_leave_count_each_for_himself)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_waiters = 4;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new(), *late_token = token_new();
    struct source source;
    struct caller leader, joiner, leaver, late, by_token;
    struct counts before = counts_of(cache), grown;
    source_init(&source, "v", true);
    CHECK_STATUS(aside_cancel_set_deadline(late_token, 10, &options.clock), ASIDE_OK);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    join_flight(&leaver, cache, "k", &source, token, 2);
    join_flight(&by_token, cache, "k", &source, late_token, 3);
    caller_ask(&late, cache, "k", &source, NULL);
    late.call.timeout_ms = 10;
    caller_start(&late);
    WAIT_UNTIL(STAT(cache, waiters_now) == 4);
    memset(&grown, 0, sizeof grown);
    check_grown(cache, &before, &grown, __LINE__); /* nobody has an outcome yet */
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_BUSY, ask(cache, "k", &source));
    grown.of[VERB_get_with_fetch][ERROR] = 1;
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leaver), ASIDE_E_CANCELLED);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(caller_join(&late), ASIDE_E_TIMEOUT);
    CHECK_STATUS(caller_join(&by_token), ASIDE_E_TIMEOUT);
    grown.of[VERB_get_with_fetch][ERROR] = 4;
    check_grown(cache, &before, &grown, __LINE__);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    grown.of[VERB_get_with_fetch][OK] = 2;
    check_grown(cache, &before, &grown,
                __LINE__); /* what the fetch stored is no set of anybody's */
    CHECK_INT(STAT(cache, timeouts), 2);
    CHECK_INT(STAT(cache, cancelled), 1);
    caller_drop(&leader);
    caller_drop(&joiner);
    aside_cancel_unref(token);
    aside_cancel_unref(late_token);
    end_cache(cache);
}

TEST(a_flight_that_grew_too_old_is_an_error_of_those_who_waited)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_flight_age_ms = 1000;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    fake_clock_advance_ms(&clock, 1001, cache);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_FETCH_TIMEOUT);
    CHECK_INT(STAT(cache, get_with_fetch_error), 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(STAT(cache, get_with_fetch_ok), 1);
    CHECK_INT(STAT(cache, get_with_fetch_none), 0);
    caller_drop(&leader);
    end_cache(cache);
}

static aside_status calls_from_inside(aside_fetch *fetch, void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    struct source source;
    source_init(&source, "v", false);
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_DEADLOCK,
                 call_with(cache, "outer", calls_from_inside, arg, 0, NULL));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK, ask(cache, "inner", &source));
    CHECK_COUNTS(cache, get, ASIDE_MISS, look(cache, "outer"));
    CHECK_COUNTS(cache, delete, ASIDE_MISS, aside_delete(cache, ASIDE_STR("outer")));
    CHECK_COUNTS(cache, set, ASIDE_OK, set(cache, "other", 1000));
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(calls_inside_a_fetch_count_like_any_other)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(call_with(cache, "outer", calls_from_inside, cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(call_with(cache, "outer", calls_from_inside, cache, 60000, NULL), ASIDE_OK);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.get_with_fetch_ok, 4);
    CHECK_INT(stats.get_with_fetch_error, 2);
    CHECK_INT(stats.get_none + stats.delete_none + stats.set_ok, 6);
    end_cache(cache);
}

static void visit_that_calls(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size;
    aside_cache *cache = (aside_cache *)ctx;
    CHECK_COUNTS(cache, get, ASIDE_OK, look(cache, "k"));
    CHECK_COUNTS(cache, delete, ASIDE_OK, aside_delete(cache, ASIDE_STR("k")));
}

TEST(calls_inside_a_visit_count_like_any_other_and_the_visit_is_one_call)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), visit_that_calls, cache), ASIDE_OK);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.visit_ok, 1);
    CHECK_INT(stats.visit_none + stats.visit_error, 0);
    CHECK_INT(stats.get_ok, 1);
    CHECK_INT(stats.delete_ok, 1);
    end_cache(cache);
}

/* ---- what counts for nobody ---------------------------------------------------------------------- */

TEST(functions_that_are_no_verb_and_what_the_library_does_itself_count_for_none)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    size_t reaped = 0;
    put(cache, "k", "value", 10);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK));
    CHECK_INT(reaped, 1);
    CHECK_COUNTS_NOTHING(cache, CHECK_INT(aside_count(cache), 0));
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_health(cache), ASIDE_OK));
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_clock_changed(cache), ASIDE_OK));
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_stats_get(cache, NULL), ASIDE_E_INVALID));
    CHECK_COUNTS_NOTHING(cache, aside_unref(aside_ref(cache)));
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_close(cache), ASIDE_OK));
    aside_unref(cache);
}

TEST(a_call_without_a_cache_counts_in_no_other)
{
    aside_cache *cache = open_quiet();
    aside_value *value = NULL;
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_get(NULL, "k", 1, &value), ASIDE_E_INVALID));
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(set(NULL, "k", 1000), ASIDE_E_INVALID));
    CHECK_COUNTS_NOTHING(cache, CHECK_STATUS(aside_clear(NULL), ASIDE_E_INVALID));
    end_cache(cache);
}

TEST(each_cache_counts_its_own_calls)
{
    aside_cache *one = open_quiet(), *other = open_quiet();
    put(one, "k", "value", ASIDE_FOREVER);
    CHECK_COUNTS_NOTHING(other, CHECK_STATUS(look(one, "k"), ASIDE_OK));
    CHECK_COUNTS(one, get, ASIDE_OK, look(one, "k"));
    CHECK_COUNTS(other, get, ASIDE_MISS, look(other, "k"));
    end_cache(one);
    end_cache(other);
}

TEST(a_closed_cache_counts_errors)
{
    aside_cache *cache = open_quiet();
    aside_value *value = NULL;
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
    put(cache, "k", "value", ASIDE_FOREVER);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_COUNTS(cache, get, ASIDE_E_CLOSED, look(cache, "k"));
    CHECK_COUNTS(cache, copy, ASIDE_E_CLOSED, copy(cache, "k", 16));
    CHECK_COUNTS(cache, visit, ASIDE_E_CLOSED, visit(cache, "k"));
    CHECK_COUNTS(cache, set, ASIDE_E_CLOSED, set(cache, "k", 1000));
    CHECK_COUNTS(cache, set, ASIDE_E_CLOSED, set(cache, "k", 0));
    CHECK_COUNTS(cache, set, ASIDE_E_CLOSED, aside_set_value(cache, "k", 1, value, 1000));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, set(cache, "k", -1));
    CHECK_COUNTS(cache, add, ASIDE_E_CLOSED, add(cache, "k", 1000));
    CHECK_COUNTS(cache, delete, ASIDE_E_CLOSED, aside_delete(cache, "k", 1));
    CHECK_COUNTS(cache, expire, ASIDE_E_CLOSED, aside_expire(cache, "k", 1));
    CHECK_COUNTS(cache, touch, ASIDE_E_CLOSED, aside_touch(cache, "k", 1, 1000));
    CHECK_COUNTS(cache, touch, ASIDE_E_CLOSED, aside_touch(cache, "k", 1, 0));
    CHECK_COUNTS(cache, clear, ASIDE_E_CLOSED, aside_clear(cache));
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_E_CLOSED, ask(cache, "k", &source));
    CHECK_INT(STAT(cache, hits) + STAT(cache, misses) + STAT(cache, refused), 0); /* no lookups */
    aside_value_unref(value);
    aside_unref(cache);
}

TEST(callers_whom_a_close_sends_away_count_an_error)
{
    aside_options options = quiet_options();
    options.close_wait_ms = 0;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_CLOSED);
    CHECK_INT(STAT(cache, get_with_fetch_error), 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(STAT(cache, get_with_fetch_ok), 1);
    caller_drop(&leader);
    aside_unref(cache);
}

TEST(a_disabled_cache_counts_what_its_calls_say)
{
    static const int both[] = {ASIDE_DISABLE_STORE, ASIDE_DISABLE_ALL};
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        aside_options options = quiet_options();
        options.disabled = both[i];
        aside_cache *cache = open_cache(&options);
        struct source source;
        source_init(&source, "v", false);
        CHECK_COUNTS(cache, set, ASIDE_OK, set(cache, "k", 1000));
        CHECK_COUNTS(cache, add, ASIDE_OK, add(cache, "k", 1000));
        CHECK_COUNTS(cache, get, ASIDE_MISS, look(cache, "k"));
        CHECK_COUNTS(cache, copy, ASIDE_MISS, copy(cache, "k", 16));
        CHECK_COUNTS(cache, visit, ASIDE_MISS, visit(cache, "k"));
        CHECK_COUNTS(cache, delete, ASIDE_MISS, aside_delete(cache, "k", 1));
        CHECK_COUNTS(cache, expire, ASIDE_MISS, aside_expire(cache, "k", 1));
        CHECK_COUNTS(cache, touch, ASIDE_MISS, aside_touch(cache, "k", 1, 1000));
        CHECK_COUNTS(cache, clear, ASIDE_OK, aside_clear(cache));
        CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK, ask(cache, "k", &source));
        end_cache(cache);
    }
}

/* ---- an older struct ----------------------------------------------------------------------------- */

TEST(an_older_shorter_stats_struct_is_filled_and_nothing_past_it_written)
{
    aside_cache *cache = open_quiet();
    aside_stats stats;
    memset(&stats, 0x55, sizeof stats);
    stats.struct_size = offsetof(aside_stats, get_ok);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_stats_get(cache, &stats), ASIDE_OK);
    CHECK_INT(stats.misses, 1);
    for (size_t i = offsetof(aside_stats, get_ok); i < sizeof stats; i++)
        CHECK_INT(((unsigned char *)&stats)[i], 0x55);
    end_cache(cache);
}

/* ---- threads ------------------------------------------------------------------------------------- */

/* What the threads of a test did, by what they were told. */
struct load {
    aside_cache *cache;
    aside_cancel *token, *fired;
    aside_value *value;
    _Atomic uint64_t of[VERBS][OUTCOMES];
    _Atomic uint64_t too_small; /* copies, which are hits as well */
    _Atomic uint64_t fetched_hits, stored, dropped;
};

static void note(struct load *load, int verb, aside_status status)
{
    atomic_fetch_add(&load->of[verb][outcome_of(status)], 1);
}

static aside_status random_fetch(aside_fetch *fetch, void *arg)
{
    (void)arg;
    switch (test_random() % 8) {
    case 0: return aside_fetch_not_found(fetch);
    case 1: return aside_fetch_fail(fetch, 1);
    case 2: test_yield(); break;
    default: break;
    }
    return aside_fetch_copy(fetch, "value", 5);
}

static void random_get_with_fetch(struct load *load, const char *key)
{
    struct caller caller;
    caller_init(&caller, load->cache, key, random_fetch, NULL);
    switch (test_random() % 5) {
    case 0: caller.call.timeout_ms = ASIDE_NO_WAIT; break;
    case 1: caller.call.cancel = load->token; break;
    case 2: caller.call.cancel = load->fired; break;
    case 3: caller.call.ttl_ms = test_random() % 4 ? 1000 : -2; break;
    default: break;
    }
    note(load, VERB_get_with_fetch, caller_run(&caller));
    if (caller.result.outcome == ASIDE_OUTCOME_HIT)
        atomic_fetch_add(&load->fetched_hits, 1);
    caller_drop(&caller);
}

static void random_write(struct load *load, const char *key)
{
    int64_t ttl = test_random() % 8 ? 100000 : test_random() % 2 ? 0 : -7;
    aside_status status;
    switch (test_random() % 3) {
    case 0: note(load, VERB_set, status = set(load->cache, key, ttl)); break;
    case 1:
        status = aside_set_value(load->cache, key, strlen(key), load->value, ttl);
        note(load, VERB_set, status);
        break;
    default: note(load, VERB_add, status = add(load->cache, key, ttl));
    }
    if (status == ASIDE_OK && ttl != 0)
        atomic_fetch_add(&load->stored, 1);
}

static void random_call(struct load *load)
{
    char key[16];
    aside_status status;
    snprintf(key, sizeof key, "%d", (int)(test_random() % 12));
    aside_cache *cache = load->cache;
    switch (test_random() % 16) {
    case 0: note(load, VERB_delete, aside_delete(cache, key, strlen(key))); break;
    case 1: note(load, VERB_expire, aside_expire(cache, key, strlen(key))); break;
    case 2: note(load, VERB_touch, aside_touch(cache, key, strlen(key), 1000)); break;
    case 3:
        status = copy(cache, key, test_random() % 2 ? 16 : 2);
        note(load, VERB_copy, status);
        if (status == ASIDE_E_BUFFER)
            atomic_fetch_add(&load->too_small, 1);
        break;
    case 4: note(load, VERB_visit, visit(cache, key)); break;
    case 5: note(load, VERB_visit, aside_visit(cache, key, 1, NULL, NULL)); break;
    case 6:
        if (test_random() % 16 == 0)
            note(load, VERB_clear, aside_clear(cache));
        break;
    case 7:
    case 8: note(load, VERB_get, look(cache, key)); break;
    case 9:
    case 10:
    case 11: random_write(load, key); break;
    default: random_get_with_fetch(load, key);
    }
}

static void *work(void *arg)
{
    for (long i = 0; i < test_rounds(2500); i++)
        random_call((struct load *)arg);
    return NULL;
}

static void check_load(struct load *load)
{
    struct counts none, told;
    uint64_t(*of)[OUTCOMES] = told.of;
    memset(&none, 0, sizeof none);
    for (int verb = 0; verb < VERBS; verb++)
        for (int outcome = 0; outcome < OUTCOMES; outcome++)
            of[verb][outcome] = atomic_load(&load->of[verb][outcome]);
    check_grown(load->cache, &none, &told, __LINE__);

    aside_stats stats = test_stats(load->cache);
    CHECK_INT(stats.hits, of[VERB_get][OK] + of[VERB_copy][OK] + load->too_small +
                              of[VERB_visit][OK] + load->fetched_hits);
    CHECK_INT(stats.misses, of[VERB_get][NONE] + of[VERB_copy][NONE] + of[VERB_visit][NONE]);
    CHECK_INT(stats.sets, load->stored);
    CHECK_INT(stats.expires, of[VERB_expire][OK]);
    CHECK_INT(stats.touches, of[VERB_touch][OK]);
    CHECK_INT(stats.clears, of[VERB_clear][OK]);
    CHECK(stats.deletes >= of[VERB_delete][OK]); /* and what ttl 0 dropped */
}

/* Of get_with_fetch, bad arguments apart, every call is a lookup. */
static void check_threads(int threads)
{
    static struct load load;
    pthread_t workers[8];
    memset(&load, 0, sizeof load);
    load.cache = open_quiet();
    load.token = token_new();
    load.fired = token_new();
    aside_cancel_fire(load.fired);
    CHECK_STATUS(aside_value_copy("value", 5, &load.value), ASIDE_OK);
    for (int wave = 0; wave < 2; wave++) { /* the second wave finds counters of ended threads */
        for (int i = 0; i < threads; i++)
            workers[i] = thread_start(work, &load);
        for (int i = 0; i < threads; i++)
            thread_join(workers[i]);
        WAIT_UNTIL(STAT(load.cache, flights_now) == 0);
        check_load(&load);
    }
    aside_value_unref(load.value);
    aside_cancel_unref(load.token);
    aside_cancel_unref(load.fired);
    end_cache(load.cache);
}

TEST(what_one_thread_was_told_is_what_is_counted)
{
    check_threads(1);
}

TEST(what_eight_threads_that_have_ended_were_told_is_what_is_counted)
{
    check_threads(8);
}

static void *every_verb_once(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(look(cache, "there"), ASIDE_OK);
    CHECK_STATUS(copy(cache, "there", 16), ASIDE_OK);
    CHECK_STATUS(visit(cache, "there"), ASIDE_OK);
    CHECK_STATUS(look(cache, "not there"), ASIDE_MISS);
    CHECK_STATUS(copy(cache, "there", 0), ASIDE_E_BUFFER);
    CHECK_STATUS(visit(cache, "not there"), ASIDE_MISS);
    CHECK_STATUS(set(cache, "mine", 1000), ASIDE_OK);
    CHECK_STATUS(add(cache, "mine", 1000), ASIDE_EXISTS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("mine"), 1000), ASIDE_OK);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("mine")), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("mine")), ASIDE_MISS);
    CHECK_STATUS(ask(cache, "there", &source), ASIDE_OK);
    return NULL;
}

TEST(what_three_hundred_ended_threads_were_told_is_kept)
{
    aside_cache *cache = open_quiet();
    struct counts before, grown;
    put(cache, "there", "value", ASIDE_FOREVER);
    before = counts_of(cache);
    memset(&grown, 0, sizeof grown);
    for (uint64_t i = 1; i <= 300; i++) {
        thread_join(thread_start(every_verb_once, cache));
        grown.of[VERB_get][OK] = grown.of[VERB_get][NONE] = i;
        grown.of[VERB_copy][OK] = grown.of[VERB_copy][ERROR] = i;
        grown.of[VERB_visit][OK] = grown.of[VERB_visit][NONE] = i;
        grown.of[VERB_set][OK] = grown.of[VERB_add][NONE] = grown.of[VERB_touch][OK] = i;
        grown.of[VERB_expire][OK] = grown.of[VERB_delete][NONE] = i;
        grown.of[VERB_get_with_fetch][OK] = i;
        if (i % 50 == 1)
            check_grown(cache, &before, &grown, __LINE__);
    }
    check_grown(cache, &before, &grown, __LINE__);
    end_cache(cache);
}

/* ---- threads without a record -------------------------------------------------------------------- */

/* Keys of destructors: one is made before the library's, one after it, which sees the thread when the
 * library has forgotten it. */
static pthread_key_t early_key, late_key;
static aside_cache *farewell_cache;
static _Atomic uint64_t farewells;
#define FAREWELLS 3 /* rounds of destructors; not the fourth, in which sanitizers end */

static void say_farewell(pthread_key_t key, uintptr_t rounds_left)
{
    CHECK_STATUS(look(farewell_cache, "k"), ASIDE_OK);
    CHECK_STATUS(look(farewell_cache, "no"), ASIDE_MISS);
    CHECK_STATUS(set(farewell_cache, "k", 1000), ASIDE_OK);
    CHECK_STATUS(aside_delete(farewell_cache, ASIDE_STR("no")), ASIDE_MISS);
    atomic_fetch_add(&farewells, 1);
    CHECK_INT(pthread_setspecific(key, (void *)(rounds_left - 1)), 0);
}

static void say_early(void *rounds_left)
{
    say_farewell(early_key, (uintptr_t)rounds_left);
}

static void say_late(void *rounds_left)
{
    say_farewell(late_key, (uintptr_t)rounds_left);
}

static void *first_calls_at_its_end(void *arg)
{
    CHECK_INT(pthread_setspecific(early_key, (void *)(uintptr_t)FAREWELLS), 0);
    return arg;
}

static void *calls_until_its_end(void *arg)
{
    CHECK_STATUS(look(farewell_cache, "k"), ASIDE_OK);
    CHECK_INT(pthread_setspecific(late_key, (void *)(uintptr_t)FAREWELLS), 0);
    return arg;
}

TEST(calls_in_a_threads_last_destructors_are_counted)
{
    struct counts before, grown;
    CHECK_INT(pthread_key_create(&early_key, say_early), 0);
    farewell_cache = open_quiet();
    put(farewell_cache, "k", "value", ASIDE_FOREVER);
    CHECK_INT(pthread_key_create(&late_key, say_late), 0);
    before = counts_of(farewell_cache);
    for (int i = 0; i < 10; i++) {
        thread_join(thread_start(first_calls_at_its_end, NULL));
        thread_join(thread_start(calls_until_its_end, NULL));
    }
    CHECK_INT(farewells, 20 * FAREWELLS);
    memset(&grown, 0, sizeof grown);
    grown.of[VERB_get][OK] = farewells + 10;
    grown.of[VERB_get][NONE] = grown.of[VERB_set][OK] = grown.of[VERB_delete][NONE] = farewells;
    check_grown(farewell_cache, &before, &grown, __LINE__);
    CHECK_INT(STAT(farewell_cache, hits), farewells + 10);
    end_cache(farewell_cache);
}

static void *calls_without_memory(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    process_fail_alloc(1, true);
    CHECK_COUNTS(cache, get, ASIDE_OK, look(cache, "k"));
    CHECK_COUNTS(cache, get, ASIDE_MISS, look(cache, "no"));
    CHECK_COUNTS(cache, copy, ASIDE_OK, copy(cache, "k", 16));
    CHECK_COUNTS(cache, copy, ASIDE_E_BUFFER, copy(cache, "k", 0));
    CHECK_COUNTS(cache, visit, ASIDE_OK, visit(cache, "k"));
    CHECK_COUNTS(cache, delete, ASIDE_MISS, aside_delete(cache, ASIDE_STR("no")));
    CHECK_COUNTS(cache, set, ASIDE_E_INVALID, set(cache, "k", -1));
    struct source source;
    source_init(&source, "v", false);
    CHECK_COUNTS(cache, get_with_fetch, ASIDE_OK, ask(cache, "k", &source));
    struct counts before = counts_of(cache), grown;
    aside_status status = ask(cache, "no", &source); /* no memory, or found some of its own */
    memset(&grown, 0, sizeof grown);
    grown.of[VERB_get_with_fetch][outcome_of(status)] = 1;
    check_grown(cache, &before, &grown, __LINE__);
    process_fail_alloc(0, false);
    return NULL;
}

TEST(calls_of_a_thread_for_which_no_memory_was_left_are_counted)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "value", ASIDE_FOREVER);
    for (int i = 0; i < 3; i++)
        thread_join(thread_start(calls_without_memory, cache));
    end_cache(cache);
}
