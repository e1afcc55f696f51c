/*
 * structs.c -- the public structs grow at their end: a larger one is taken if its tail is zero, the
 * fields that a smaller one lacks take their default, and nothing is written past it. And the texts
 * of the statuses.
 */
#include "helpers.h"

static aside_status answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "answer", 6);
}

static void check_refused(const aside_options *options)
{
    aside_cache *cache = NULL;
    CHECK_STATUS(aside_open(&cache, options), ASIDE_E_INVALID);
    CHECK(cache == NULL);
}

/* ---- structs that grow --------------------------------------------------------------------------- */

TEST(a_larger_struct_is_taken_iff_its_tail_is_zero)
{
    struct {
        aside_options head;
        char tail[16];
    } options = {.head = quiet_options()};
    struct {
        aside_call head;
        char tail[16];
    } call = {.head = {ASIDE_CALL, .fetch = answer}};
    struct {
        aside_result head;
        char tail[16];
    } result = {.head = ASIDE_RESULT_INIT};
    struct {
        aside_stats head;
        char tail[16];
    } stats = {.head = {.struct_size = 0}};
    options.head.struct_size = sizeof options;
    call.head.struct_size = sizeof call;
    result.head.struct_size = sizeof result;
    stats.head.struct_size = sizeof stats;

    aside_cache *cache = open_cache(&options.head);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call.head, &result.head), ASIDE_OK);
    aside_value_unref(result.head.value);
    CHECK_STATUS(aside_stats_get(cache, &stats.head), ASIDE_OK);
    CHECK_INT(stats.head.misses_led, 1);

    options.tail[15] = call.tail[0] = result.tail[7] = stats.tail[15] = 1;
    check_refused(&options.head);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call.head, &result.head),
                 ASIDE_E_INVALID);
    call.tail[0] = 0;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call.head, &result.head),
                 ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_get(cache, &stats.head), ASIDE_E_INVALID);
    end_cache(cache);
}

TEST(a_struct_size_of_0_is_refused)
{
    aside_cache *cache = open_quiet();
    aside_call call = {ASIDE_CALL, .fetch = answer};
    aside_result result = ASIDE_RESULT_INIT;
    aside_stats stats = {.struct_size = 0};
    result.struct_size = 0;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_get(cache, &stats), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_get(cache, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(fields_that_a_smaller_options_struct_lacks_take_their_default)
{
    aside_options options;
    memset(&options, 0x81, sizeof options); /* what lies past the struct is not read */
    options.struct_size = offsetof(aside_options, default_ttl_ms);
    options.name = "old";
    options.reaper_interval_ms = 0;
    aside_cache *cache = open_cache(&options);
    put(cache, "k", "v", ASIDE_DEFAULT_TTL);
    CHECK(holds(cache, "k", "v"));
    end_cache(cache);
}

TEST(fields_that_a_smaller_call_lacks_take_their_default)
{
    aside_cache *cache = open_quiet();
    aside_call call;
    aside_result result = ASIDE_RESULT_INIT;
    memset(&call, 0x81, sizeof call);
    call.struct_size = offsetof(aside_call, arg);
    call.fetch = answer;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK_INT(result.ttl_left_ms, ASIDE_FOREVER);
    aside_value_unref(result.value);
    end_cache(cache);
}

TEST(nothing_is_written_past_a_smaller_result_or_stats)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "v", 1000);
    aside_call call = {ASIDE_CALL, .fetch = answer};
    aside_result result;
    memset(&result, 0x55, sizeof result);
    result.struct_size = offsetof(aside_result, shared);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK(value_is(result.value, "v"));
    CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
    for (size_t i = offsetof(aside_result, shared); i < sizeof result; i++)
        CHECK_INT(((unsigned char *)&result)[i], 0x55);
    aside_value_unref(result.value);

    aside_stats stats;
    memset(&stats, 0x55, sizeof stats);
    stats.struct_size = offsetof(aside_stats, misses);
    CHECK_STATUS(aside_stats_get(cache, &stats), ASIDE_OK);
    CHECK_INT(stats.hits, 1);
    for (size_t i = offsetof(aside_stats, misses); i < sizeof stats; i++)
        CHECK_INT(((unsigned char *)&stats)[i], 0x55);
    end_cache(cache);
}

/* ---- text ---------------------------------------------------------------------------------------- */

TEST(every_status_has_its_name_and_text_and_other_numbers_have_the_spare_ones)
{
#define CHECK_TEXT(name, number, text)                                                             \
    CHECK_INT(name, number);                                                                       \
    CHECK(strcmp(aside_status_name(name), #name) == 0);                                            \
    CHECK(strcmp(aside_strerror(name), text) == 0);
    ASIDE_STATUS_MAP(CHECK_TEXT)
#undef CHECK_TEXT
    static const int unknown[] = {6, 7, 99, -17, -18, -1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNT_OF(unknown); i++) {
        CHECK(strcmp(aside_status_name((aside_status)unknown[i]), "ASIDE_UNKNOWN") == 0);
        CHECK(strcmp(aside_strerror((aside_status)unknown[i]), "unknown status") == 0);
    }
}

TEST(the_library_says_the_version_of_its_header)
{
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", ASIDE_VERSION_MAJOR, ASIDE_VERSION_MINOR,
             ASIDE_VERSION_PATCH);
    CHECK(strcmp(version, ASIDE_VERSION) == 0);
    CHECK(strcmp(aside_version(), ASIDE_VERSION) == 0);
}

/* ---- what a result must have room for ------------------------------------------------------------ */

TEST(a_result_without_room_for_the_value_is_refused)
{
    aside_cache *cache = open_quiet();
    aside_call call = {ASIDE_CALL, .fetch = answer};
    aside_result result = ASIDE_RESULT_INIT;
    put(cache, "k", "v", 1000);
    for (size_t size = sizeof result.struct_size; size < offsetof(aside_result, outcome); size++) {
        result.struct_size = size;
        CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_E_INVALID);
        CHECK(result.value == NULL);
    }
    result.struct_size = offsetof(aside_result, outcome);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK(value_is(result.value, "v"));
    aside_value_unref(result.value);
    end_cache(cache);
}
