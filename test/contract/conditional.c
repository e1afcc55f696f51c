/*
 * conditional.c -- conditional refresh: a fetch sees the value that was there, and may say that it
 * is still good. Then the entry is renewed where it is, unless something has overtaken the fetch.
 */
#include "truth.h"

#include <aside/group.h>

/* ---- what a fetch sees --------------------------------------------------------------------------- */

/* What a fetch of "k" sees: the value's text, or "none". */
struct glance {
    char text[32];
    const aside_value *kept; /* a reference, if it was asked for one */
    bool keeps;
};

static aside_status look_back(aside_fetch *fetch, void *arg)
{
    struct glance *glance = (struct glance *)arg;
    const aside_value *previous = aside_fetch_previous(fetch);
    CHECK(previous == aside_fetch_previous(fetch));
    if (previous != NULL)
        snprintf(glance->text, sizeof glance->text, "%.*s", (int)aside_value_size(previous),
                 (const char *)aside_value_data(previous));
    else
        snprintf(glance->text, sizeof glance->text, "none");
    if (glance->keeps)
        glance->kept = aside_value_ref((aside_value *)(uintptr_t)previous);
    return aside_fetch_fail(fetch, 1);
}

/* By a refresh, which changes nothing. */
static void check_seen(struct scene *scene, const char *expected)
{
    struct glance glance;
    memset((void *)&glance, 0, sizeof glance);
    aside_call call = {ASIDE_CALL, .fetch = look_back, .arg = &glance, .nonblocking = 1};
    CHECK_STATUS(aside_refresh(scene->cache, ASIDE_STR("k"), &call), ASIDE_OK);
    if (strcmp(glance.text, expected) != 0)
        test_fail(__FILE__, __LINE__, expected, glance.text);
}

/* "k" is there for 1000 ms, then stale for so long. */
static void open_with(struct scene *scene, int64_t stale_ms, int64_t stale_if_error_ms)
{
    scene_init(scene);
    scene->options.freshness.stale_ms = stale_ms;
    scene->options.freshness.stale_if_error_ms = stale_if_error_ms;
    scene->call.ttl_ms = 1000;
    scene_open(scene);
    scene_says(scene, "v", ASIDE_OK);
    (void)gets(scene, "k", "v");
}

TEST(a_fetch_sees_the_fresh_value_that_it_refreshes)
{
    struct scene scene;
    open_with(&scene, 0, 0);
    check_seen(&scene, "v");
    put(scene.cache, "k", "set", 1000);
    check_seen(&scene, "set");
    pass(&scene, 999);
    check_seen(&scene, "set");
    pass(&scene, 1);
    check_seen(&scene, "none");
    scene_end(&scene);
}

TEST(a_fetch_sees_the_value_within_its_stale_windows)
{
    for (int for_errors = 0; for_errors <= 1; for_errors++) {
        struct scene scene;
        open_with(&scene, for_errors ? 0 : 500, for_errors ? 500 : 0);
        pass(&scene, 1000);
        check_seen(&scene, "v");
        pass(&scene, 499);
        check_seen(&scene, "v");
        pass(&scene, 1);
        check_seen(&scene, "none");
        scene_end(&scene);
    }
}

TEST(the_fetch_of_a_caller_who_waits_sees_it_as_well)
{
    struct scene scene;
    struct glance glance;
    memset((void *)&glance, 0, sizeof glance);
    open_with(&scene, 0, 500);
    pass(&scene, 1000);
    scene.call.fetch = look_back;
    scene.call.arg = &glance;
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_STALE);
    CHECK(strcmp(glance.text, "v") == 0);
    scene_end(&scene);
}

TEST(a_fetch_sees_nothing_where_nothing_is)
{
    struct scene scene;
    open_with(&scene, 5000, 5000);
    CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_OK);
    check_seen(&scene, "none");
    put(scene.cache, "k", "v", 1000);
    put(scene.cache, "k", "v", 0);
    check_seen(&scene, "none");
    (void)gets(&scene, "k", "v");
    CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
    check_seen(&scene, "none");
    scene.call.freshness.not_found_ttl_ms = 1000;
    scene_says(&scene, NULL, ASIDE_NOT_FOUND);
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    check_seen(&scene, "none");
    scene_end(&scene);
}

TEST(what_expire_has_ended_is_seen_if_it_has_windows)
{
    for (int windows = 0; windows <= 1; windows++) {
        struct scene scene;
        open_with(&scene, 0, windows ? 5000 : 0);
        CHECK_STATUS(aside_expire(scene.cache, ASIDE_STR("k")), ASIDE_OK);
        check_seen(&scene, windows ? "v" : "none");
        scene_end(&scene);
    }
}

TEST(a_fetch_does_not_see_what_its_tag_has_ended)
{
    struct scene scene;
    open_with(&scene, 5000, 0);
    scene.truth.tag = "t";
    refreshes(&scene, "k");
    check_seen(&scene, "v");
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("t")), ASIDE_OK);
    check_seen(&scene, "none");
    scene_end(&scene);
}

TEST(a_reference_keeps_what_a_fetch_has_seen)
{
    struct scene scene;
    struct glance glance;
    memset((void *)&glance, 0, sizeof glance);
    glance.keeps = true;
    open_with(&scene, 0, 0);
    aside_call call = {ASIDE_CALL, .fetch = look_back, .arg = &glance, .nonblocking = 1};
    CHECK_STATUS(aside_refresh(scene.cache, ASIDE_STR("k"), &call), ASIDE_OK);
    CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_OK);
    end_cache(scene.cache);
    CHECK(value_is(glance.kept, "v"));
    aside_value_unref((aside_value *)(uintptr_t)glance.kept);
    WAIT_UNTIL(scene.ledger.live_blocks == 0);
}

static aside_status look_back_in_vain(aside_fetch *fetch, void *arg)
{
    CHECK(aside_fetch_previous(fetch) == NULL);
    CHECK_STATUS(aside_fetch_not_modified(fetch), ASIDE_E_INVALID);
    return *(const aside_status *)arg;
}

/* Nor may it say that nothing is still good, whether it asks for that or not. */
TEST(without_a_previous_value_there_is_none_to_be_still_good)
{
    struct scene scene;
    aside_status raw = ASIDE_NOT_MODIFIED;
    open_with(&scene, 0, 0);
    scene.call.fetch = look_back_in_vain;
    scene.call.arg = &raw;
    (void)asks(&scene, "missing", ASIDE_E_INVALID);
    CHECK_INT(STAT(scene.cache, fetch_not_modified), 0);
    CHECK(aside_fetch_previous(NULL) == NULL);
    CHECK_STATUS(aside_fetch_not_modified(NULL), ASIDE_E_INVALID);
    scene_end(&scene);
}

TEST(a_groups_fetch_has_no_previous_value)
{
    aside_group *group = NULL;
    aside_options options = quiet_options();
    aside_status raw = ASIDE_NOT_MODIFIED;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = look_back_in_vain, .arg = &raw};
    CHECK_STATUS(aside_group_new(&group, &options), ASIDE_OK);
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &call, &result), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

/* ---- still good ---------------------------------------------------------------------------------- */

/* A handle to "k" and where its bytes are. */
static aside_value *hold(struct scene *scene)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_get(scene->cache, ASIDE_STR("k"), &value), ASIDE_OK);
    return value;
}

/* What is there now is the very same bytes. */
static void check_same(struct scene *scene, const aside_value *before)
{
    aside_value *now = hold(scene);
    CHECK(aside_value_data(now) == aside_value_data(before));
    CHECK(value_is(before, "v"));
    aside_value_unref(now);
}

TEST(what_is_still_good_is_renewed_where_it_is)
{
    struct scene scene;
    open_with(&scene, 0, 0);
    aside_value *before = hold(&scene);
    aside_stats stats = test_stats(scene.cache);
    int64_t blocks = scene.ledger.live_blocks;
    pass(&scene, 700);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    for (int turn = 1; turn <= 10; turn++) {
        refreshes(&scene, "k");
        aside_result result = gets(&scene, "k", "v");
        CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
        CHECK_INT(result.age_ms, 0);
        CHECK_INT(result.ttl_left_ms, 1000);
        check_same(&scene, before);
        CHECK_INT(STAT(scene.cache, fetch_not_modified), turn);
        CHECK_INT(STAT(scene.cache, bytes), stats.bytes);
        CHECK_INT(scene.ledger.live_blocks, blocks);
        pass(&scene, 999);
    }
    CHECK_INT(aside_count(scene.cache), 1);
    pass(&scene, 1);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    CHECK(value_is(before, "v"));
    aside_value_unref(before);
    scene_end(&scene);
}

TEST(who_waits_for_it_gets_the_previous_value)
{
    struct scene scene;
    struct caller leader, joiner;
    open_with(&scene, 0, 5000);
    aside_value *before = hold(&scene);
    pass(&scene, 1500);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene_lead(&scene, &leader, "k");
    scene_start(&scene, &joiner, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK_INT(leader.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(joiner.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK(leader.result.value == before && joiner.result.value == before);
    CHECK_INT(leader.result.ttl_left_ms, 1000);
    CHECK_INT(joiner.result.age_ms, 0);
    CHECK_INT(leader.result.fenced + joiner.result.fenced, 0);
    caller_drop(&leader);
    caller_drop(&joiner);
    check_same(&scene, before);
    aside_value_unref(before);
    scene_end(&scene);
}

/* Within its window it is served at once, and a worker has it renewed. */
TEST(a_stale_value_is_renewed_in_the_background_and_its_windows_begin_anew)
{
    struct scene scene;
    open_with(&scene, 500, 0);
    pass(&scene, 1400);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene.truth.gated = true;
    CHECK_INT(gets(&scene, "k", "v").stale_cause, ASIDE_STALE_REFRESH);
    scene_release(&scene);
    WAIT_UNTIL(STAT(scene.cache, fetch_not_modified) == 1);
    WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
    aside_result result = gets(&scene, "k", "v");
    CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
    CHECK_INT(result.ttl_left_ms, 1000);
    pass(&scene, 1000 + 499);
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_STALE);
    pass(&scene, 1);
    WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    scene_end(&scene);
}

TEST(a_fetch_says_for_how_long_it_is_still_good)
{
    struct scene scene;
    aside_freshness own = {0};
    open_with(&scene, 0, 0);
    aside_value *before = hold(&scene);
    own.stale_if_error_ms = 300;
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene.truth.ttl_ms = 200;
    refreshes(&scene, "k");
    CHECK_INT(gets(&scene, "k", "v").ttl_left_ms, 200);
    scene.truth.own = &own; /* it had no windows, and has one now */
    refreshes(&scene, "k");
    check_same(&scene, before);
    CHECK_INT(gets(&scene, "k", "v").ttl_left_ms, 200);
    scene.truth.own = NULL;
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    pass(&scene, 499);
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(scene.cache, ASIDE_STR("k"), &scene.call, &result), ASIDE_OK);
    CHECK(result.value == before);
    aside_value_unref(result.value);
    pass(&scene, 1);
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    aside_value_unref(before);
    scene_end(&scene);
}

/* As if it were stored now, by a call that will have no windows. */
TEST(who_renews_a_value_without_windows_takes_them_away)
{
    struct scene scene;
    open_with(&scene, 500, 500);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene.call.freshness.stale_ms = scene.call.freshness.stale_if_error_ms = ASIDE_OFF;
    refreshes(&scene, "k");
    pass(&scene, 1000);
    scene.call.freshness.stale_ms = scene.call.freshness.stale_if_error_ms = 0;
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    scene_end(&scene);
}

TEST(the_jitter_of_a_call_spreads_what_it_renews)
{
    struct scene scene;
    int64_t least = INT64_MAX, most = 0;
    open_with(&scene, 0, 0);
    scene.call.jitter.kind = ASIDE_JITTER_ADD;
    scene.call.jitter.amount = 500;
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    for (int i = 0; i < 1000; i++) {
        refreshes(&scene, "k");
        int64_t left_ms = gets(&scene, "k", "v").ttl_left_ms;
        least = left_ms < least ? left_ms : least;
        most = left_ms > most ? left_ms : most;
    }
    CHECK(least >= 1000 && least < 1050);
    CHECK(most <= 1500 && most > 1450);
    scene_end(&scene);
}

/* What was stored by a plain verb is a previous value as any other. */
TEST(what_was_set_is_renewed_as_well)
{
    struct scene scene;
    open_with(&scene, 0, 0);
    put(scene.cache, "k", "v", 300);
    aside_value *before = hold(&scene);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    refreshes(&scene, "k");
    check_same(&scene, before);
    CHECK_INT(gets(&scene, "k", "v").ttl_left_ms, 1000);
    aside_value_unref(before);
    scene_end(&scene);
}

TEST(a_wrapped_value_is_renewed_and_freed_once)
{
    static struct tally tally;
    struct scene scene;
    open_with(&scene, 0, 0);
    CHECK_STATUS(tally_set(&tally, scene.cache, "k", 1, 1000), ASIDE_OK);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    for (int i = 0; i < 5; i++) {
        scene.call.freshness.stale_ms = i >= 2 ? 100 : 0; /* the entry is to become another */
        refreshes(&scene, "k");
        aside_value *now = hold(&scene);
        CHECK(aside_value_data(now) == (const void *)&tally.slot[0]);
        aside_value_unref(now);
        pass(&scene, 900);
    }
    CHECK_INT(STAT(scene.cache, fetch_not_modified), 5);
    CHECK_INT(tally.freed, 0);
    CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_OK);
    scene_end(&scene);
    CHECK_INT(tally.freed, 1);
}

TEST(what_has_failed_before_is_as_good_as_new)
{
    struct scene scene;
    open_with(&scene, 0, 60000);
    pass(&scene, 1000);
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    CHECK_INT(gets(&scene, "k", "v").stale_cause, ASIDE_STALE_ERROR);
    CHECK_INT(gets(&scene, "k", "v").stale_cause, ASIDE_STALE_THROTTLED);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    refreshes(&scene, "k");
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_HIT);
    pass(&scene, 1000);
    scene_says(&scene, "new", ASIDE_OK);
    CHECK_INT(gets(&scene, "k", "new").outcome, ASIDE_OUTCOME_FETCHED); /* not throttled */
    scene_end(&scene);
}

static void count_removals(void *ctx, const void *key, size_t key_len, aside_value *value,
                           aside_cause cause)
{
    (void)key;
    (void)key_len;
    (void)cause;
    CHECK(value_is(value, "v"));
    atomic_fetch_add((_Atomic int *)ctx, 1);
}

TEST(what_is_renewed_has_not_left)
{
    struct scene scene;
    _Atomic int told = 0;
    scene_init(&scene);
    scene.options.on_remove.fn = count_removals;
    scene.options.on_remove.ctx = (void *)&told;
    scene_open(&scene);
    scene_says(&scene, "v", ASIDE_OK);
    (void)gets(&scene, "k", "v");
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    refreshes(&scene, "k");
    CHECK_INT(told, 0);
    scene_end(&scene);
    CHECK_INT(told, 1);
}

/* ---- the last word counts ------------------------------------------------------------------------ */

static aside_status find_it_good_after_all(aside_fetch *fetch, void *arg)
{
    struct tally *tally = (struct tally *)arg;
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(tally, 1)), ASIDE_OK);
    return aside_fetch_not_modified(fetch);
}

static aside_status find_it_changed_after_all(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_not_modified(fetch), ASIDE_NOT_MODIFIED);
    return aside_fetch_copy(fetch, "changed", 7);
}

TEST(of_several_answers_the_last_counts)
{
    static struct tally tally;
    struct scene scene;
    open_with(&scene, 0, 0);
    aside_value *before = hold(&scene);
    scene.call.fetch = find_it_good_after_all;
    scene.call.arg = &tally;
    refreshes(&scene, "k");
    check_same(&scene, before);
    CHECK_INT(tally.freed, 1);
    scene.call.fetch = find_it_changed_after_all;
    refreshes(&scene, "k");
    CHECK(holds(scene.cache, "k", "changed"));
    CHECK_INT(STAT(scene.cache, fetch_not_modified), 1);
    aside_value_unref(before);
    scene_end(&scene);
}

struct later {
    _Atomic(aside_fetch *) fetch;
};

static aside_status answer_later(aside_fetch *fetch, void *arg)
{
    atomic_store(&((struct later *)arg)->fetch, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

TEST(it_may_be_said_by_who_completes_a_pending_fetch)
{
    struct scene scene;
    struct later later;
    struct caller caller;
    memset((void *)&later, 0, sizeof later);
    open_with(&scene, 0, 5000);
    aside_value *before = hold(&scene);
    pass(&scene, 1000);
    caller_init(&caller, scene.cache, "k", answer_later, &later);
    caller.call.ttl_ms = 1000;
    caller_start(&caller);
    WAIT_UNTIL(atomic_load(&later.fetch) != NULL);
    aside_fetch *fetch = atomic_load(&later.fetch);
    CHECK(aside_fetch_previous(fetch) == before);
    CHECK_STATUS(aside_fetch_not_modified(fetch), ASIDE_NOT_MODIFIED);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_NOT_MODIFIED), ASIDE_OK);
    CHECK(aside_fetch_previous(fetch) == NULL);
    CHECK_STATUS(aside_fetch_not_modified(fetch), ASIDE_E_INVALID);
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    CHECK(caller.result.value == before);
    CHECK_INT(caller.result.ttl_left_ms, 1000);
    caller_drop(&caller);
    check_same(&scene, before);
    aside_value_unref(before);
    scene_end(&scene);
}

/* ---- overtaken ----------------------------------------------------------------------------------- */

enum write { SET, SET_VALUE, DELETE, EXPIRE, SET_TTL_0, CLEAR, WRITES };

static void do_write(aside_cache *cache, enum write write)
{
    aside_value *value = NULL;
    switch (write) {
    case SET: put(cache, "k", "written", 5000); break;
    case SET_VALUE:
        CHECK_STATUS(aside_value_copy("written", 7, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 5000), ASIDE_OK);
        aside_value_unref(value);
        break;
    case DELETE: CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK); break;
    case EXPIRE: CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_OK); break;
    case SET_TTL_0: put(cache, "k", "dropped", 0); break;
    default: CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    }
}

/* A refresh of a fresh value on a worker stands at the gate, and somebody has joined it. */
static void refresh_to_gate(struct scene *scene, struct caller *joiner)
{
    scene->truth.gated = true;
    scene->truth.gate.open = false;
    int arrived = scene->truth.gate.arrived;
    CHECK_STATUS(aside_refresh(scene->cache, ASIDE_STR("k"), &scene->call), ASIDE_OK);
    gate_wait_arrived(&scene->truth.gate, arrived + 1);
    scene_start(scene, joiner, "k");
}

/* A fetch that finds the value still good was overtaken by the write. */
static void check_fenced(enum write write)
{
    struct scene scene;
    struct caller leader;
    bool stores = write <= SET_VALUE;
    open_with(&scene, 0, 5000);
    CHECK_STATUS(aside_expire(scene.cache, ASIDE_STR("k")), ASIDE_OK);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene_lead(&scene, &leader, "k");
    if (write == DELETE)
        CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_MISS); /* it is stale */
    else if (write == EXPIRE)
        CHECK_STATUS(aside_expire(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
    else
        do_write(scene.cache, write);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "v"));
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(leader.result.ttl_left_ms, 0);
    caller_drop(&leader);
    CHECK_STATUS(look(scene.cache, "k"), stores ? ASIDE_OK : ASIDE_MISS);
    CHECK(holds(scene.cache, "k", "written") == stores);
    CHECK_INT(STAT(scene.cache, fetch_fenced), 1);
    CHECK_INT(STAT(scene.cache, fetch_not_modified), 0);
    scene_end(&scene);
}

TEST(a_write_meanwhile_has_the_last_word)
{
    for (int write = 0; write < WRITES; write++)
        check_fenced((enum write)write);
}

/* The same of a refresh in the background, while the value is fresh. */
TEST(a_write_during_a_background_refresh_has_the_last_word)
{
    for (int write = 0; write < WRITES; write++) {
        struct scene scene;
        struct caller hit;
        open_with(&scene, 0, 0);
        scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
        refresh_to_gate(&scene, &hit);
        CHECK_STATUS(caller_join(&hit), ASIDE_OK); /* a hit needs nobody */
        CHECK_INT(hit.result.outcome, ASIDE_OUTCOME_HIT);
        caller_drop(&hit);
        do_write(scene.cache, (enum write)write);
        scene_release(&scene);
        WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
        CHECK(holds(scene.cache, "k", "written") == (write <= SET_VALUE));
        CHECK_STATUS(look(scene.cache, "k"), write <= SET_VALUE ? ASIDE_OK : ASIDE_MISS);
        CHECK_INT(STAT(scene.cache, fetch_not_modified), 0);
        scene_end(&scene);
    }
}

/* Nor is it renewed once its flight has grown too old. */
TEST(a_flight_that_is_too_old_renews_nothing)
{
    struct scene scene;
    struct caller leader;
    open_with(&scene, 0, 100000);
    pass(&scene, 1000);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene_lead(&scene, &leader, "k");
    pass(&scene, 30000);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    scene_end(&scene);
}

/* F10: it is handed over, whether there is still an entry to be renewed or not. */
TEST(what_was_evicted_meanwhile_is_handed_over)
{
    for (int tagged = 0; tagged <= 1; tagged++) {
        struct scene scene;
        struct caller leader;
        scene_init(&scene);
        scene.options.max_entries = 10;
        scene.options.freshness.stale_if_error_ms = 5000;
        scene.call.ttl_ms = 1000;
        scene_open(&scene);
        scene_says(&scene, "v", ASIDE_OK);
        scene.truth.tag = tagged ? "t" : NULL;
        (void)gets(&scene, "k", "v");
        scene.truth.tag = NULL;
        pass(&scene, 1000);
        scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
        scene_lead(&scene, &leader, "k");
        for (uint32_t i = 0; i < 1000; i++)
            CHECK_STATUS(aside_set(scene.cache, &i, sizeof i, "x", 1, 60000), ASIDE_OK);
        scene_release(&scene);
        CHECK_STATUS(caller_join(&leader), ASIDE_OK);
        CHECK(value_is(leader.result.value, "v"));
        CHECK_INT(leader.result.fenced, 0);
        CHECK((leader.result.ttl_left_ms != 0) == (look(scene.cache, "k") == ASIDE_OK));
        caller_drop(&leader);
        scene_end(&scene);
    }
}

/* ---- tags ---------------------------------------------------------------------------------------- */

/* "k" is stale, and has this tag. */
static void open_tagged(struct scene *scene, const char *tag)
{
    open_with(scene, 0, 60000);
    scene->truth.tag = tag;
    refreshes(scene, "k");
    scene->truth.tag = NULL;
    pass(scene, 1000);
    scene_says(scene, NULL, ASIDE_NOT_MODIFIED);
}

TEST(the_tags_stay_if_the_fetch_adds_none)
{
    struct scene scene;
    open_tagged(&scene, "t");
    for (int turn = 0; turn < 3; turn++) {
        (void)gets(&scene, "k", "v");
        CHECK_STATUS(look(scene.cache, "k"), ASIDE_OK);
        pass(&scene, 1000);
    }
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("t")), ASIDE_OK);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    (void)asks(&scene, "k", ASIDE_E_INVALID); /* no previous value any more */
    scene_end(&scene);
}

TEST(tags_that_the_fetch_adds_take_the_place_of_the_others)
{
    struct scene scene;
    open_tagged(&scene, "old");
    aside_value *before = NULL;
    refreshes(&scene, "k");
    before = hold(&scene);
    scene.truth.tag = "new";
    refreshes(&scene, "k");
    check_same(&scene, before);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK); /* nobody has it any more */
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("old")), ASIDE_MISS);
    check_same(&scene, before);
    scene.truth.tag = NULL;
    refreshes(&scene, "k");
    check_same(&scene, before);
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("new")), ASIDE_OK);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    CHECK(value_is(before, "v"));
    aside_value_unref(before);
    scene_end(&scene);
}

TEST(what_had_no_tags_may_get_some)
{
    struct scene scene;
    open_with(&scene, 0, 0);
    aside_value *before = hold(&scene);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene.truth.tag = "t";
    refreshes(&scene, "k");
    check_same(&scene, before);
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("t")), ASIDE_OK);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    aside_value_unref(before);
    scene_end(&scene);
}

TEST(renewing_with_other_tags_again_and_again_takes_no_more_room)
{
    struct scene scene;
    char tag[16];
    open_with(&scene, 0, 60000);
    scene_says(&scene, NULL, ASIDE_NOT_MODIFIED);
    scene.truth.tag = tag;
    uint64_t most = 0;
    for (int i = 0; i < 1000; i++) {
        snprintf(tag, sizeof tag, "tag %3d", i % 1000);
        refreshes(&scene, "k");
        CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
        uint64_t bytes = STAT(scene.cache, bytes);
        if (i < 10)
            most = bytes > most ? bytes : most;
        CHECK(bytes <= most);
    }
    CHECK(holds(scene.cache, "k", "v"));
    CHECK_INT(aside_count(scene.cache), 1);
    scene_end(&scene);
}

/* The value that was there died with its tag: what a fetch that began before says of it is as
 * old. */
static void check_overtaken_by_tag(const char *added, bool evicted)
{
    struct scene scene;
    struct caller before, after;
    open_tagged(&scene, "t");
    scene.truth.tag = added;
    scene_lead(&scene, &before, "k");
    if (evicted)
        CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("t")), ASIDE_OK);
    if (evicted)
        CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    scene_start(&scene, &after, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1 || scene.truth.fetches == 4);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&before), ASIDE_OK);
    CHECK(value_is(before.result.value, "v"));
    CHECK_INT(before.result.fenced, 1);
    CHECK_INT(before.result.ttl_left_ms, 0);
    caller_drop(&before);
    CHECK_STATUS(caller_join(&after), ASIDE_E_INVALID); /* another fetch: nothing is there for it */
    CHECK_INT(scene.truth.fetches, 4);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    CHECK_INT(STAT(scene.cache, fetch_not_modified), 0);
    scene_end(&scene);
}

TEST(a_tag_of_the_previous_value_that_is_deleted_meanwhile_has_the_last_word)
{
    check_overtaken_by_tag(NULL, false);
}

TEST(so_it_has_if_the_fetch_adds_another_tag)
{
    check_overtaken_by_tag("another", false);
}

TEST(so_it_has_if_the_entry_is_gone_by_then)
{
    check_overtaken_by_tag(NULL, true);
    check_overtaken_by_tag("another", true);
}

/* Another tag is nothing to it. */
TEST(a_tag_that_the_previous_value_does_not_have_may_be_deleted_meanwhile)
{
    struct scene scene;
    struct caller leader;
    open_tagged(&scene, "t");
    scene.call.fetch = truth_tell;
    scene_lead(&scene, &leader, "k");
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("other")), ASIDE_MISS);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 0);
    caller_drop(&leader);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_OK);
    scene_end(&scene);
}

/* What was there died with its tag, and somebody has written another value since: which is what he may see
 * who came between the two. */
TEST(what_was_written_over_a_value_whose_tag_was_deleted_is_what_a_later_joiner_gets)
{
    struct scene scene;
    struct caller before, after;
    open_tagged(&scene, "t");
    scene_lead(&scene, &before, "k");
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("t")), ASIDE_OK);
    scene_start(&scene, &after, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1);
    put(scene.cache, "k", "written", 60000);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&before), ASIDE_OK);
    CHECK(value_is(before.result.value, "v"));
    CHECK_INT(before.result.fenced, 1);
    caller_drop(&before);
    CHECK_STATUS(caller_join(&after), ASIDE_OK);
    CHECK(value_is(after.result.value, "written"));
    CHECK_INT(after.result.outcome, ASIDE_OUTCOME_HIT);
    caller_drop(&after);
    CHECK_INT(STAT(scene.cache, fetch_not_modified), 0);
    scene_end(&scene);
}

/* ---- what goes away while it is renewed ---------------------------------------------------------- */

/* Its time is over, and a reader who meets it removes it, unless its shard is being written to. */
static void *meet_what_is_over(void *its_scene)
{
    struct scene *scene = (struct scene *)its_scene;
    fake_clock_advance_ms(&scene->clock, 5000, NULL);
    CHECK_STATUS(look(scene->cache, "k"), ASIDE_MISS);
    return NULL;
}

struct vanishing {
    struct scene scene;
    int64_t nth; /* step after the fetch */
    bool gone;
};

static void let_vanish(void *its_vanishing)
{
    struct vanishing *vanishing = (struct vanishing *)its_vanishing;
    thread_join(thread_start(meet_what_is_over, &vanishing->scene));
    vanishing->gone = true;
}

static aside_status still_good_but_vanishes(aside_fetch *fetch, void *arg)
{
    struct vanishing *vanishing = (struct vanishing *)arg;
    if (!act_at_point(vanishing->nth, let_vanish, vanishing))
        test_skip("this build has no points between the steps of the library");
    return aside_fetch_not_modified(fetch);
}

/* True: there is such a step. */
static bool check_vanishing(int64_t nth)
{
    struct vanishing vanishing;
    struct scene *scene = &vanishing.scene;
    vanishing.nth = nth;
    vanishing.gone = false;
    open_with(scene, 0, 5000);
    pass(scene, 1000);
    scene->call.fetch = still_good_but_vanishes;
    scene->call.arg = &vanishing;
    CHECK_INT(gets(scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED);
    (void)act_at_point(0, NULL, NULL);
    bool renewed = STAT(scene->cache, fetch_stored) == 2;
    CHECK(vanishing.gone || renewed);
    CHECK_INT(STAT(scene->cache, fetch_not_modified), renewed);
    CHECK_INT(aside_count(scene->cache), renewed); /* with its windows once more */
    CHECK_STATUS(look(scene->cache, "k"), renewed && !vanishing.gone ? ASIDE_OK : ASIDE_MISS);
    scene_end(scene);
    return vanishing.gone;
}

TEST(whenever_an_entry_goes_away_while_it_is_renewed_its_value_is_handed_over)
{
    int64_t nth = 1;
    while (check_vanishing(nth))
        nth++;
    CHECK(nth > 20);
}
