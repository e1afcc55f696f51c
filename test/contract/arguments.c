/*
 * arguments.c -- what every public function says to a bad argument. "Nothing has happened
 * then" is checked by the count and by a sentinel key.
 */
#include "helpers.h"

static aside_status answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "answer", 6);
}

static void no_visit(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
    CHECK(!"called");
}

/* ---- verbs that take a key ----------------------------------------------------------------------- */

typedef aside_status keyed_verb(aside_cache *cache, const void *key, size_t key_len);

static aside_status do_get(aside_cache *cache, const void *key, size_t key_len)
{
    aside_value *value = (aside_value *)&key;
    aside_status status = aside_get(cache, key, key_len, &value);
    CHECK(value == NULL);
    return status;
}

static aside_status do_copy(aside_cache *cache, const void *key, size_t key_len)
{
    return aside_copy(cache, key, key_len, NULL, 0, NULL);
}

static aside_status do_visit(aside_cache *cache, const void *key, size_t key_len)
{
    return aside_visit(cache, key, key_len, no_visit, NULL);
}

static aside_status do_set(aside_cache *cache, const void *key, size_t key_len)
{
    return aside_set(cache, key, key_len, "v", 1, 1000);
}

static aside_status do_set_value(aside_cache *cache, const void *key, size_t key_len)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
    aside_status status = aside_set_value(cache, key, key_len, value, 1000);
    aside_value_unref(value);
    return status;
}

static aside_status do_add(aside_cache *cache, const void *key, size_t key_len)
{
    return aside_add(cache, key, key_len, "v", 1, 1000);
}

static aside_status do_touch(aside_cache *cache, const void *key, size_t key_len)
{
    return aside_touch(cache, key, key_len, 1000);
}

static aside_status do_fetch(aside_cache *cache, const void *key, size_t key_len)
{
    aside_call call = {ASIDE_CALL, .fetch = answer};
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status = aside_get_with_fetch(cache, key, key_len, &call, &result);
    CHECK(result.value == NULL);
    return status;
}

static const struct {
    const char *name;
    keyed_verb *verb;
} verbs[] = {
    {"get", do_get},
    {"copy", do_copy},
    {"visit", do_visit},
    {"set", do_set},
    {"set_value", do_set_value},
    {"add", do_add},
    {"delete", aside_delete},
    {"expire", aside_expire},
    {"touch", do_touch},
    {"get_with_fetch", do_fetch},
};

/* Whatever takes a cache refuses this, or ignores it. */
static void check_no_cache(aside_cache *no_cache)
{
    aside_stats stats = {.struct_size = sizeof stats};
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        aside_status status = verbs[i].verb(no_cache, "k", 1);
        if (status != ASIDE_E_INVALID)
            test_fail(__FILE__, __LINE__, verbs[i].name, aside_status_name(status));
    }
    CHECK_STATUS(aside_close(no_cache), ASIDE_E_INVALID);
    CHECK_STATUS(aside_clear(no_cache), ASIDE_E_INVALID);
    CHECK_STATUS(aside_reap(no_cache, 0, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_health(no_cache), ASIDE_E_INVALID);
    CHECK_STATUS(aside_clock_changed(no_cache), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_get(no_cache, &stats), ASIDE_E_INVALID);
    CHECK_INT(aside_count(no_cache), 0);
    CHECK(aside_ref(no_cache) == no_cache);
    aside_unref(no_cache);
}

TEST(no_verb_takes_a_null_cache)
{
    check_no_cache(NULL);
}

TEST(no_verb_takes_something_that_is_no_cache)
{
    aside_cache *zeros = (aside_cache *)zeros_new();
    check_no_cache(zeros);
    zeros_end(zeros);
}

TEST(no_verb_takes_a_bad_key)
{
    static char longer[ASIDE_MAX_KEY + 1];
    const struct {
        const void *key;
        size_t size;
    } bad[] = {{NULL, 1}, {NULL, SIZE_MAX}, {longer, ASIDE_MAX_KEY + 1}, {longer, SIZE_MAX}};
    aside_cache *cache = open_quiet();
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        for (size_t k = 0; k < COUNT_OF(bad); k++) {
            aside_status status = verbs[i].verb(cache, bad[k].key, bad[k].size);
            if (status != ASIDE_E_INVALID)
                test_fail(__FILE__, __LINE__, verbs[i].name, aside_status_name(status));
        }
    }
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

TEST(no_reader_takes_a_null_result_or_visitor)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "v", 1000);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), NULL, 1, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), NULL, NULL), ASIDE_E_INVALID);
    end_cache(cache);
}

TEST(no_writer_takes_a_null_value_with_a_size_or_a_ttl_that_means_nothing)
{
    static const int64_t bad_ttls[] = {-1, -3, -1000, INT64_MIN};
    aside_cache *cache = open_quiet();
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("new", 3, &value), ASIDE_OK);
    put(cache, "k", "old", ASIDE_FOREVER);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), NULL, 1, 1000), ASIDE_E_INVALID);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("n"), NULL, 1, 1000), ASIDE_E_INVALID);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), NULL, 1000), ASIDE_E_INVALID);
    for (size_t i = 0; i < COUNT_OF(bad_ttls); i++) {
        int64_t ttl = bad_ttls[i];
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "new", 3, ttl), ASIDE_E_INVALID);
        CHECK_STATUS(aside_add(cache, ASIDE_STR("n"), "new", 3, ttl), ASIDE_E_INVALID);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, ttl), ASIDE_E_INVALID);
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), ttl), ASIDE_E_INVALID);
    }
    CHECK(holds(cache, "k", "old"));
    CHECK_INT(aside_count(cache), 1);
    aside_value_unref(value);
    end_cache(cache);
}

TEST(sizes_that_can_not_be_added_up_are_refused_before_a_byte_is_read)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 8, SIZE_MAX - 64, SIZE_MAX / 2 + 1};
    aside_options options = quiet_options();
    options.max_bytes = 0; /* no bound: still no overflow */
    aside_cache *cache = open_cache(&options);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        aside_status status = aside_set(cache, ASIDE_STR("k"), "x", sizes[i], 1000);
        CHECK(status == ASIDE_E_TOO_LARGE || status == ASIDE_E_INVALID);
        aside_value *value = NULL;
        CHECK(aside_value_copy("x", sizes[i], &value) < 0);
        CHECK(value == NULL);
    }
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

TEST(wrapped_sizes_that_can_not_be_added_up_are_refused)
{
    static const size_t sizes[] = {SIZE_MAX / 2 + 1, SIZE_MAX, SIZE_MAX - 8};
    static int thing;
    for (int bounded = 0; bounded <= 1; bounded++) {
        aside_options options = quiet_options();
        options.max_bytes = bounded ? options.max_bytes : 0;
        aside_cache *cache = open_cache(&options);
        for (size_t i = bounded ? 0 : 1; i < COUNT_OF(sizes); i++) {
            aside_value *value = NULL;
            if (aside_value_wrap(&thing, sizes[i], NULL, NULL, &value) != ASIDE_OK)
                continue; /* refused there already */
            CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_E_TOO_LARGE);
            aside_value_unref(value);
        }
        CHECK_INT(aside_count(cache), 0);
        end_cache(cache);
    }
}

/* ---- other functions ----------------------------------------------------------------------------- */

TEST(open_needs_a_place_for_the_cache)
{
    CHECK_STATUS(aside_open(NULL, NULL), ASIDE_E_INVALID);
}

TEST(null_objects_are_refused_or_ignored)
{
    aside_value *value = NULL;
    int thing;
    CHECK_STATUS(aside_cancel_new(NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_copy("x", 1, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_copy(NULL, 1, &value), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_wrap(&thing, 1, NULL, NULL, NULL), ASIDE_E_INVALID);
    CHECK(value == NULL);
    CHECK(aside_cancel_ref(NULL) == NULL);
    CHECK(aside_value_ref(NULL) == NULL);
    CHECK(aside_fetch_ref(NULL) == NULL);
    CHECK(aside_value_data(NULL) == NULL);
    CHECK_INT(aside_value_size(NULL), 0);
    CHECK_INT(aside_cancel_fired(NULL), 0);
    aside_value_unref(NULL);
    aside_cancel_unref(NULL);
    aside_fetch_unref(NULL);
    aside_cancel_fire(NULL);
}

TEST(functions_of_a_token_refuse_or_ignore_null)
{
    aside_cancel *token = token_new(), *child = token;
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    int fd = 77;
    CHECK_STATUS(aside_cancel_child(NULL, &child), ASIDE_E_INVALID);
    CHECK(child == NULL);
    CHECK_STATUS(aside_cancel_child(token, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_child(NULL, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_set_deadline(NULL, 0, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_set_deadline(NULL, 1000, &injected), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_set_deadline(NULL, ASIDE_FOREVER, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_fd(NULL, &fd), ASIDE_E_INVALID);
    CHECK_INT(fd, -1);
    CHECK_STATUS(aside_cancel_fd(token, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_fd(NULL, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_status(NULL), ASIDE_OK);
    CHECK_INT(aside_cancel_fired(NULL), 0);
    CHECK_STATUS(aside_cancel_status(token), ASIDE_OK);
    aside_cancel_unref(token);
}

TEST(a_deadline_of_a_negative_duration_is_refused_and_nothing_has_happened)
{
    static const int64_t negative[] = {-1, -2, -3, -1000, INT64_MIN};
    struct fake_clock clock, other;
    aside_clock injected = fake_clock_init(&clock), second = fake_clock_init(&other);
    aside_cancel *token = token_new();
    for (size_t i = 0; i < COUNT_OF(negative); i++) {
        CHECK_STATUS(aside_cancel_set_deadline(token, negative[i], NULL), ASIDE_E_INVALID);
        CHECK_STATUS(aside_cancel_set_deadline(token, negative[i], &second), ASIDE_E_INVALID);
        CHECK_STATUS(aside_cancel_status(token), ASIDE_OK);
    }
    /* nor is the token bound to a clock */
    CHECK_STATUS(aside_cancel_set_deadline(token, 10, &injected), ASIDE_OK);
    for (size_t i = 0; i < COUNT_OF(negative); i++)
        CHECK_STATUS(aside_cancel_set_deadline(token, negative[i], &injected), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_status(token), ASIDE_OK);
    fake_clock_advance_ms(&clock, 10, NULL);
    CHECK_STATUS(aside_cancel_status(token), ASIDE_E_TIMEOUT);
    aside_cancel_unref(token);
}

TEST(functions_of_a_fetch_refuse_null)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("x", 1, &value), ASIDE_OK);
    size_t size = 1;
    void *to = NULL;
    CHECK(aside_fetch_key(NULL, &size) == NULL);
    CHECK_STATUS(aside_fetch_set_ttl(NULL, 1000), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_buffer(NULL, 1, &to), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_copy(NULL, "x", 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_give(NULL, value), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_not_found(NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_fail(NULL, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_complete(NULL, ASIDE_OK), ASIDE_E_INVALID);
    CHECK(value_is(value, "x")); /* give did not take it */
    aside_value_unref(value);
}

static aside_status fetch_with_bad_arguments(aside_fetch *fetch, void *arg)
{
    (void)arg;
    void *to = NULL;
    CHECK_STATUS(aside_fetch_set_ttl(fetch, -2), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, INT64_MIN), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_buffer(fetch, 1, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_copy(fetch, NULL, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_give(fetch, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_PENDING), ASIDE_E_INVALID);
    aside_status status = aside_fetch_buffer(fetch, SIZE_MAX, &to);
    CHECK(status == ASIDE_E_TOO_LARGE || status == ASIDE_E_INVALID);
    status = aside_fetch_copy(fetch, "x", SIZE_MAX - 16);
    CHECK(status == ASIDE_E_TOO_LARGE || status == ASIDE_E_INVALID);
    return aside_fetch_copy(fetch, "good", 4);
}

TEST(bad_arguments_inside_a_fetch_do_not_spoil_it)
{
    aside_cache *cache = open_quiet();
    struct caller caller;
    caller_init(&caller, cache, "k", fetch_with_bad_arguments, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "good"));
    CHECK_INT(caller.result.ttl_left_ms, ASIDE_FOREVER);
    caller_drop(&caller);
    end_cache(cache);
}

static void never_called(void *arg)
{
    (void)arg;
    CHECK(!"called");
}

TEST(a_call_that_contradicts_itself_is_refused)
{
    aside_cache *cache = open_quiet();
    char thing[4] = "abc";
    const aside_call bad[] = {
        {ASIDE_CALL, .fetch = NULL},
        {.struct_size = 0, .fetch = answer},
        {ASIDE_CALL, .fetch = answer, .ttl_ms = -2},
        {ASIDE_CALL, .fetch = answer, .ttl_ms = INT64_MIN},
        {ASIDE_CALL, .fetch = answer, .timeout_ms = -2},
        {ASIDE_CALL, .fetch = answer, .timeout_ms = INT64_MIN},
        {ASIDE_CALL, .fetch = answer, .arg = NULL, .arg_size = 4},
        {ASIDE_CALL, .fetch = answer, .arg = thing, .arg_retain = never_called},
        {ASIDE_CALL, .fetch = answer, .arg = thing, .arg_release = never_called},
        {ASIDE_CALL, .fetch = answer, .arg = thing, .arg_size = 4, .arg_retain = never_called,
         .arg_release = never_called},
    };
    aside_result result = ASIDE_RESULT_INIT;
    for (int hit = 0; hit <= 1; hit++) { /* on a miss, and where an entry would have answered */
        for (size_t i = 0; i < COUNT_OF(bad); i++)
            CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &bad[i], &result),
                         ASIDE_E_INVALID);
        CHECK(result.value == NULL);
        CHECK_INT(aside_count(cache), hit);
        put(cache, "k", "v", 1000);
    }
    aside_call call = {ASIDE_CALL, .fetch = answer};
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("n"), NULL, &result), ASIDE_E_INVALID);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("n"), &call, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(look(cache, "n"), ASIDE_MISS);
    end_cache(cache);
}

/* ---- options ------------------------------------------------------------------------------------- */

static int64_t clock_of_zero(void *ctx)
{
    (void)ctx;
    return 0;
}

static int64_t clock_below_zero(void *ctx)
{
    (void)ctx;
    return -5;
}

static void *some_malloc(size_t size, void *ctx)
{
    (void)ctx;
    return malloc(size);
}

static void *some_realloc(void *block, size_t size, void *ctx)
{
    (void)ctx;
    return realloc(block, size);
}

static void some_free(void *block, void *ctx)
{
    (void)ctx;
    free(block);
}

static void check_refused(const aside_options *options)
{
    aside_cache *cache = NULL;
    CHECK_STATUS(aside_open(&cache, options), ASIDE_E_INVALID);
    CHECK(cache == NULL);
}

TEST(open_refuses_durations_and_clocks_that_mean_nothing)
{
    static const int64_t negative[] = {-1, -2, -1000, INT64_MIN};
    aside_options good = quiet_options(), bad = good;
    bad.default_ttl_ms = 0;
    check_refused(&bad);
    for (size_t i = 0; i < COUNT_OF(negative); i++) {
        bad = good;
        bad.default_ttl_ms = negative[i];
        check_refused(&bad);
        bad = good;
        bad.max_flight_age_ms = negative[i];
        check_refused(&bad);
        bad = good;
        bad.close_wait_ms = negative[i];
        check_refused(&bad);
    }
    bad = good;
    bad.clock.now_ns = clock_of_zero;
    check_refused(&bad);
    bad.clock.now_ns = clock_below_zero;
    check_refused(&bad);
    bad = good;
    bad.struct_size = 0;
    check_refused(&bad);
}

TEST(open_refuses_an_incomplete_allocator)
{
    for (int members = 1; members < 7; members++) {
        aside_options options = quiet_options();
        options.alloc.malloc = members & 1 ? some_malloc : NULL;
        options.alloc.realloc = members & 2 ? some_realloc : NULL;
        options.alloc.free = members & 4 ? some_free : NULL;
        check_refused(&options);
    }
    aside_options options = quiet_options();
    options.alloc = (aside_alloc){some_malloc, some_realloc, some_free, NULL};
    end_cache(open_cache(&options)); /* a ctx is not needed */
}

TEST(open_takes_every_duration_that_means_something)
{
    static const int64_t intervals[] = {0, -1, INT64_MIN, ASIDE_FOREVER};
    for (size_t i = 0; i < COUNT_OF(intervals); i++) {
        aside_options options = quiet_options();
        options.reaper_interval_ms = intervals[i];
        options.default_ttl_ms = i == 0 ? 1 : ASIDE_FOREVER;
        options.max_flight_age_ms = i == 0 ? 0 : i == 1 ? 1 : ASIDE_FOREVER;
        options.close_wait_ms = i == 0 ? 0 : i == 1 ? 1 : ASIDE_FOREVER;
        int threads = threads_created();
        aside_cache *cache = open_cache(&options);
        CHECK_INT(threads_created(), threads); /* none of these asks for a reaper (P2) */
        put(cache, "k", "v", ASIDE_DEFAULT_TTL);
        end_cache(cache);
    }
}

TEST(open_says_so_if_the_random_source_fails_and_needs_none_with_a_seed)
{
    static const uint8_t seed[16] = {7};
    aside_options options = quiet_options();
    aside_cache *cache = NULL;
    process_fail_random(1, true);
    CHECK_STATUS(aside_open(&cache, &options), ASIDE_E_SYSTEM);
    CHECK(cache == NULL);
    options.hash_seed = seed;
    CHECK_STATUS(aside_open(&cache, &options), ASIDE_OK);
    process_fail_random(0, false);
    end_cache(cache);
}

TEST(options_are_not_kept)
{
    char name[] = "copied";
    uint8_t seed[16] = {1, 2, 3};
    aside_options options = quiet_options();
    options.name = name;
    options.hash_seed = seed;
    aside_cache *cache = open_cache(&options);
    memset(name, '-', sizeof name);
    memset(seed, 0xff, sizeof seed);
    memset(&options, 0xff, sizeof options);
    put(cache, "k", "v", 1000);
    CHECK(holds(cache, "k", "v"));
    end_cache(cache);
}

TEST(null_options_are_the_defaults)
{
    aside_cache *cache = open_cache(NULL);
    put(cache, "k", "v", ASIDE_DEFAULT_TTL);
    aside_call call = {ASIDE_CALL, .fetch = answer};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK_INT(result.ttl_left_ms, ASIDE_FOREVER);
    CHECK(value_is(result.value, "v"));
    aside_value_unref(result.value);
    end_cache(cache);
}
