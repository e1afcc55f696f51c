/*
 * options.c -- cache/options: public structs of any size (shorter ones take the defaults, longer
 * ones must hold zeroes past what is known), and what is checked in them.
 */
#include "rooms.h"

#include "cache/options.h"

#include <stddef.h>

static aside_status never(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    (void)arg;
    return ASIDE_E_INVALID;
}

static void nothing(void *arg)
{
    (void)arg;
}

/* ---- sizes --------------------------------------------------------------------------------------- */

struct thing {
    size_t struct_size;
    int64_t a, b;
};

static struct thing copied(const void *from, bool expected)
{
    struct thing to = {sizeof to, 10, 20};
    CHECK_INT(options_copy(&to, sizeof to, from), expected);
    return to;
}

TEST(members_that_a_shorter_struct_lacks_keep_their_default)
{
    struct thing from = {sizeof from, 1, 2}, to = copied(&from, true);
    CHECK(to.struct_size == sizeof to && to.a == 1 && to.b == 2);
    from.struct_size = offsetof(struct thing, b);
    to = copied(&from, true);
    CHECK(to.struct_size == sizeof to && to.a == 1 && to.b == 20);
    from.struct_size = sizeof from.struct_size;
    to = copied(&from, true);
    CHECK(to.struct_size == sizeof to && to.a == 10 && to.b == 20);
}

TEST(a_size_that_is_no_size_is_refused)
{
    struct thing from = {0, 1, 2};
    for (size_t size = 0; size < sizeof from.struct_size; size++) {
        from.struct_size = size;
        copied(&from, false);
    }
}

TEST(a_longer_struct_may_only_hold_zeroes_past_what_is_known)
{
    struct {
        struct thing thing;
        unsigned char more[40];
    } from = {{sizeof from, 1, 2}, {0}};
    struct thing to = copied(&from, true);
    CHECK(to.struct_size == sizeof to && to.a == 1 && to.b == 2);
    for (size_t i = 0; i < sizeof from.more; i++) {
        from.more[i] = 1;
        copied(&from, false);
        from.more[i] = 0;
    }
}

/* ---- options ------------------------------------------------------------------------------------- */

static bool taken(const aside_options *from)
{
    aside_options to;
    return options_take(&to, from);
}

TEST(no_options_are_the_defaults)
{
    aside_options to, defaults = ASIDE_OPTIONS_INIT;
    aside_options shortest = {.struct_size = sizeof(size_t)};
    for (int i = 0; i < 2; i++) {
        CHECK(options_take(&to, i ? &shortest : NULL));
        CHECK(strcmp(to.name, defaults.name) == 0);
        to.name = defaults.name; /* two translation units may have a literal each */
        CHECK(memcmp(&to, &defaults, offsetof(aside_options, disabled)) == 0);
        CHECK_INT(to.disabled, defaults.disabled);
    }
}

TEST(options_of_every_size_fill_what_they_lack)
{
    aside_options from = ASIDE_OPTIONS_INIT, to;
    from.reaper_interval_ms = 7;
    from.default_ttl_ms = 8;
    from.max_entries = 9;
    from.fetch_threads = 10;
    from.struct_size = offsetof(aside_options, max_flights);
    CHECK(options_take(&to, &from));
    CHECK(to.struct_size == sizeof to && to.reaper_interval_ms == 7 && to.default_ttl_ms == 8);
    CHECK(to.max_entries == 9 && to.fetch_threads == 8 && to.max_flights == 65536);
}

static int64_t clock_zero(void *ctx)
{
    (void)ctx;
    return 0;
}

TEST(each_duration_is_checked)
{
    static const int64_t any[] = {INT64_MIN, -2, -1, 0, 1, ASIDE_FOREVER};
    for (size_t i = 0; i < COUNT_OF(any); i++) {
        aside_options options = ASIDE_OPTIONS_INIT;
        options.reaper_interval_ms = any[i];
        CHECK(taken(&options));
        options.default_ttl_ms = any[i];
        CHECK_INT(taken(&options), any[i] > 0);
        options.default_ttl_ms = 1;
        options.max_flight_age_ms = any[i];
        CHECK_INT(taken(&options), any[i] >= 0);
        options.max_flight_age_ms = 0;
        options.close_wait_ms = any[i];
        CHECK_INT(taken(&options), any[i] >= 0);
    }
    aside_options stopped = ASIDE_OPTIONS_INIT;
    stopped.clock.now_ns = clock_zero;
    CHECK(!taken(&stopped));
}

/* ---- calls --------------------------------------------------------------------------------------- */

static bool call_taken(const aside_call *from)
{
    aside_call to;
    return options_call(from, &to);
}

TEST(a_call_needs_a_fetch_and_at_most_one_way_to_keep_its_argument)
{
    int object = 0;
    aside_call call = {ASIDE_CALL, .fetch = NULL};
    CHECK(!call_taken(&call));
    call.fetch = never;
    CHECK(call_taken(&call));
    call.arg_size = 4;
    CHECK(!call_taken(&call)); /* of nothing */
    call.arg = &object;
    CHECK(call_taken(&call));
    call.arg_retain = nothing;
    CHECK(!call_taken(&call));
    call.arg_size = 0;
    CHECK(!call_taken(&call)); /* without its counterpart */
    call.arg_release = nothing;
    CHECK(call_taken(&call));
    call.arg_size = 4;
    CHECK(!call_taken(&call));
    call.arg_size = 0;
    call.arg_retain = NULL;
    CHECK(!call_taken(&call));
}

TEST(a_call_s_durations_are_numbers_or_named)
{
    static const int64_t any[] = {INT64_MIN, -3, -2, -1, 0, 1, ASIDE_FOREVER};
    for (size_t i = 0; i < COUNT_OF(any); i++) {
        aside_call call = {ASIDE_CALL, .fetch = never, .ttl_ms = any[i]};
        CHECK_INT(call_taken(&call), any[i] >= ASIDE_NO_STORE);
        call.ttl_ms = 0;
        call.timeout_ms = any[i];
        CHECK_INT(call_taken(&call), any[i] >= ASIDE_NO_WAIT);
    }
}

TEST(a_token_is_looked_at_before_it_is_used)
{
    static char no_token[64];
    aside_call call = {ASIDE_CALL, .fetch = never, .cancel = (aside_cancel *)no_token};
    CHECK(!call_taken(&call));
    aside_cancel *token = token_new();
    call.cancel = token;
    CHECK(call_taken(&call));
    aside_cancel_unref(token);
}

TEST(an_older_call_has_no_token_and_no_deadline)
{
    aside_call to, from = {ASIDE_CALL, .fetch = never, .ttl_ms = 5, .timeout_ms = 6};
    from.cancel = (aside_cancel *)&from;
    from.struct_size = offsetof(aside_call, timeout_ms);
    CHECK(options_call(&from, &to) == &to);
    CHECK(to.struct_size == sizeof to && to.ttl_ms == 5 && to.timeout_ms == 0 && to.cancel == NULL);
}
