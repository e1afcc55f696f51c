/*
 * outcomes.c -- answers that are no value: that there is no such thing, and that the source has
 * failed. Both are remembered if the rules say so, for callers of aside_get_with_fetch() alone.
 */
#include "truth.h"

#include <limits.h>

/* Opens a cache that remembers so long that there is no such thing. */
static void open_absent(struct scene *scene, int64_t not_found_ttl_ms)
{
    scene_init(scene);
    scene->options.freshness.not_found_ttl_ms = not_found_ttl_ms;
    scene_open(scene);
    scene_says(scene, NULL, ASIDE_NOT_FOUND);
}

/* The same of failures. */
static void open_failing(struct scene *scene, int64_t backoff_ms, int64_t backoff_max_ms)
{
    scene_init(scene);
    scene->options.freshness.backoff_ms = backoff_ms;
    scene->options.freshness.backoff_max_ms = backoff_max_ms;
    scene_open(scene);
    scene_says(scene, NULL, ASIDE_E_FETCH);
    scene->truth.code = 42;
}

static void check_outcome(struct scene *scene, aside_status expected, aside_outcome outcome)
{
    CHECK_INT(asks(scene, "k", expected).outcome, outcome);
}

/* ---- that there is no such thing ----------------------------------------------------------------- */

TEST(by_default_neither_is_remembered)
{
    static const aside_status answers[] = {ASIDE_NOT_FOUND, ASIDE_E_FETCH, (aside_status)-77};
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        scene_says(&scene, NULL, answers[i]);
        for (int turn = 1; turn <= 3; turn++) {
            check_outcome(&scene, answers[i], ASIDE_OUTCOME_FETCHED);
            CHECK_INT(scene.truth.fetches, (int)i * 3 + turn);
            CHECK_INT(aside_count(scene.cache), 0);
        }
    }
    CHECK_INT(STAT(scene.cache, negative_hits), 0);
    CHECK_INT(STAT(scene.cache, error_hits), 0);
    scene_end(&scene);
}

TEST(not_found_is_remembered_for_its_ttl)
{
    struct scene scene;
    open_absent(&scene, 1000);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    for (int64_t age = 0; age < 1000; age += 333) {
        aside_result result = asks(&scene, "k", ASIDE_NOT_FOUND);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_NEGATIVE);
        CHECK_INT(result.age_ms, age);
        CHECK_INT(result.ttl_left_ms, 1000 - age);
        CHECK_INT(result.shared + result.fenced + result.fetch_error, 0);
        CHECK_INT(result.stale_cause, ASIDE_STALE_NOT);
        pass(&scene, 333);
    }
    CHECK_INT(STAT(scene.cache, negative_hits), 4); /* 332 ms too late by now */
    CHECK_INT(scene.truth.fetches, 1);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    pass(&scene, 999);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_NEGATIVE);
    pass(&scene, 1);
    scene_says(&scene, "there now", ASIDE_OK);
    CHECK_INT(gets(&scene, "k", "there now").outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(gets(&scene, "k", "there now").outcome, ASIDE_OUTCOME_HIT);
    scene_end(&scene);
}

TEST(not_found_may_be_remembered_for_ever)
{
    struct scene scene;
    open_absent(&scene, ASIDE_FOREVER);
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    pass(&scene, (int64_t)1000 * 60 * 60 * 24 * 365);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).ttl_left_ms, ASIDE_FOREVER);
    CHECK_INT(scene.truth.fetches, 1);
    scene_end(&scene);
}

static void never_visited(const void *data, size_t size, void *ctx)
{
    (void)data;
    (void)size;
    (void)ctx;
    test_fail(__FILE__, __LINE__, "a visit", "there is nothing to be visited");
}

/* Of what is remembered plain verbs know nothing. */
static void check_plain_misses(aside_cache *cache)
{
    size_t size = 7;
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), NULL, 0, &size), ASIDE_MISS);
    CHECK_INT(size, 0);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), never_visited, NULL), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 5000), ASIDE_MISS);
}

TEST(plain_reads_miss_what_is_remembered_and_leave_it)
{
    for (int failing = 0; failing <= 1; failing++) {
        struct scene scene;
        open_absent(&scene, 1000);
        if (failing) {
            scene.call.freshness.backoff_ms = 1000;
            scene_says(&scene, NULL, ASIDE_E_FETCH);
        }
        (void)asks(&scene, "k", scene.truth.says);
        check_plain_misses(scene.cache);
        check_outcome(&scene, scene.truth.says,
                      failing ? ASIDE_OUTCOME_ERROR : ASIDE_OUTCOME_NEGATIVE);
        CHECK_INT(STAT(scene.cache, misses), 3);
        CHECK_INT(scene.truth.fetches, 1);
        pass(&scene, 1000);
        check_plain_misses(scene.cache);
        scene_end(&scene);
    }
}

/* A hit or nothing: it is an answer that is there at once. */
TEST(a_caller_who_must_not_wait_is_told_what_is_remembered)
{
    struct scene scene;
    open_absent(&scene, 1000);
    scene.call.timeout_ms = ASIDE_NO_WAIT;
    check_outcome(&scene, ASIDE_MISS, ASIDE_OUTCOME_NONE);
    scene.call.timeout_ms = 0;
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    scene.call.timeout_ms = ASIDE_NO_WAIT;
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_NEGATIVE);
    scene_end(&scene);
}

/* ---- what ends it -------------------------------------------------------------------------------- */

enum write { SET, SET_VALUE, ADD, DELETE, EXPIRE, SET_TTL_0, CLEAR, WRITES };

static void do_write(aside_cache *cache, enum write write)
{
    aside_value *value = NULL;
    switch (write) {
    case SET: put(cache, "k", "written", 1000); break;
    case SET_VALUE:
        CHECK_STATUS(aside_value_copy("written", 7, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_OK);
        aside_value_unref(value);
        break;
    case ADD: CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "written", 7, 1000), ASIDE_OK); break;
    case DELETE: CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case EXPIRE: CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case SET_TTL_0: put(cache, "k", "dropped", 0); break;
    default: CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    }
}

/* What is remembered is over; what was written is there. */
static void check_ended_by(struct scene *scene, enum write write)
{
    bool stores = write <= ADD;
    int before = scene->truth.fetches;
    (void)asks(scene, "k", scene->truth.says);
    CHECK_INT(scene->truth.fetches, before + 1);
    do_write(scene->cache, write);
    aside_result result = asks(scene, "k", stores ? ASIDE_OK : scene->truth.says);
    CHECK_INT(result.outcome, stores ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_FETCHED);
    CHECK_INT(scene->truth.fetches, before + (stores ? 1 : 2));
    CHECK_STATUS(aside_clear(scene->cache), ASIDE_OK);
}

TEST(each_write_ends_a_remembered_not_found)
{
    struct scene scene;
    open_absent(&scene, ASIDE_FOREVER);
    for (int write = 0; write < WRITES; write++)
        check_ended_by(&scene, (enum write)write);
    scene_end(&scene);
}

TEST(each_write_ends_a_remembered_failure)
{
    struct scene scene;
    open_failing(&scene, ASIDE_FOREVER, ASIDE_FOREVER);
    for (int write = 0; write < WRITES; write++)
        check_ended_by(&scene, (enum write)write);
    scene_end(&scene);
}

TEST(what_is_remembered_is_reaped_once_it_is_over)
{
    struct scene scene;
    size_t reaped = 7;
    open_absent(&scene, 1000);
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    (void)asks(&scene, "l", ASIDE_NOT_FOUND);
    pass(&scene, 999);
    CHECK_STATUS(aside_reap(scene.cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 0);
    CHECK_INT(aside_count(scene.cache), 2);
    pass(&scene, 1);
    for (int i = 0; i < 100 && aside_count(scene.cache) > 0; i++) {
        pass(&scene, 100); /* the wheel's grain */
        CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    }
    CHECK_INT(aside_count(scene.cache), 0);
    CHECK_INT(STAT(scene.cache, expired), 2);
    scene_end(&scene);
}

static void count_removals(void *ctx, const void *key, size_t key_len, aside_value *value,
                           aside_cause cause)
{
    (void)key;
    (void)key_len;
    (void)cause;
    CHECK(value != NULL);
    atomic_fetch_add((_Atomic int *)ctx, 1);
}

/* There was no value, so none has left: not by any write, nor by a bound, the reaper or the end. */
TEST(nobody_is_told_of_the_end_of_what_is_remembered)
{
    struct scene scene;
    _Atomic int told = 0;
    scene_init(&scene);
    scene.options.max_entries = 10;
    scene.options.freshness.not_found_ttl_ms = scene.options.freshness.backoff_ms = 1000;
    scene.options.on_remove.fn = count_removals;
    scene.options.on_remove.ctx = (void *)&told;
    scene_open(&scene);
    for (int i = 0; i < 2 * WRITES + 100; i++) {
        char key[16];
        scene_says(&scene, NULL, i % 2 ? ASIDE_NOT_FOUND : ASIDE_E_FETCH);
        snprintf(key, sizeof key, i < 2 * WRITES ? "k" : "%d", i);
        (void)asks(&scene, key, scene.truth.says);
        CHECK(aside_count(scene.cache) <= 10);
        if (i < 2 * WRITES)
            do_write(scene.cache, (enum write)(i / 2));
        pass(&scene, i < 2 * WRITES ? 2000 : 0);
    }
    CHECK(STAT(scene.cache, evicted) > 0);
    pass(&scene, 5000);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    (void)asks(&scene, "k", scene.truth.says);
    scene_end(&scene);
    CHECK_INT(told, 2 * (ADD + 1)); /* of what was written */
}

/* The source that says "not found" ends a value, stale or fresh, whether that is remembered or
 * not. */
TEST(not_found_ends_the_value_that_was_there)
{
    for (int remembered = 0; remembered <= 1; remembered++) {
        struct scene scene;
        open_absent(&scene, remembered ? 1000 : 0);
        scene.call.freshness.stale_if_error_ms = ASIDE_FOREVER;
        scene.call.ttl_ms = 100;
        scene_says(&scene, "v", ASIDE_OK);
        (void)gets(&scene, "k", "v");
        (void)gets(&scene, "fresh", "v");
        scene_says(&scene, NULL, ASIDE_NOT_FOUND);
        refreshes(&scene, "fresh");
        CHECK_STATUS(look(scene.cache, "fresh"), ASIDE_MISS);
        pass(&scene, 100);
        (void)asks(&scene, "k", ASIDE_NOT_FOUND);
        pass(&scene, 1000);
        scene_says(&scene, NULL, ASIDE_E_FETCH);
        (void)asks(&scene, "k", ASIDE_E_FETCH); /* nothing is there to answer for it */
        (void)asks(&scene, "fresh", ASIDE_E_FETCH);
        scene_end(&scene);
    }
}

/* ---- whose rules --------------------------------------------------------------------------------- */

TEST(a_call_has_the_caches_not_found_ttl_or_its_own)
{
    struct scene scene;
    open_absent(&scene, 1000);
    scene.call.freshness.not_found_ttl_ms = 200;
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).ttl_left_ms, 200);
    pass(&scene, 200);
    scene.call.freshness.not_found_ttl_ms = 0;
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).ttl_left_ms, 1000);
    scene_end(&scene);
}

TEST(a_call_that_will_not_have_it_asks_anew_and_has_nothing_remembered)
{
    struct scene scene;
    open_absent(&scene, 1000);
    scene.call.freshness.not_found_ttl_ms = ASIDE_OFF;
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    scene.call.freshness.not_found_ttl_ms = 0;
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_NEGATIVE);
    scene.call.freshness.not_found_ttl_ms = ASIDE_OFF;
    scene_says(&scene, "there now", ASIDE_OK);
    CHECK_INT(gets(&scene, "k", "there now").outcome, ASIDE_OUTCOME_FETCHED);
    scene.call.freshness.not_found_ttl_ms = 0;
    CHECK_INT(gets(&scene, "k", "there now").outcome, ASIDE_OUTCOME_HIT);
    scene_end(&scene);
}

TEST(a_call_may_have_it_remembered_where_the_cache_does_not)
{
    struct scene scene;
    open_absent(&scene, 0);
    scene.call.freshness.not_found_ttl_ms = 300;
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    scene.call.freshness.not_found_ttl_ms = 0;
    pass(&scene, 299);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_NEGATIVE);
    pass(&scene, 1);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    scene_end(&scene);
}

TEST(a_fetch_may_say_how_long_its_answer_is_remembered)
{
    static const int64_t own_ms[] = {200, 5000, ASIDE_FOREVER, 0, ASIDE_OFF};
    for (size_t i = 0; i < COUNT_OF(own_ms); i++) {
        struct scene scene;
        aside_freshness own = {0};
        open_absent(&scene, 1000);
        own.not_found_ttl_ms = own_ms[i];
        scene.truth.own = &own;
        (void)asks(&scene, "k", ASIDE_NOT_FOUND);
        aside_result result = asks(&scene, "k", ASIDE_NOT_FOUND);
        CHECK_INT(result.outcome,
                  own_ms[i] == ASIDE_OFF ? ASIDE_OUTCOME_FETCHED : ASIDE_OUTCOME_NEGATIVE);
        CHECK_INT(result.ttl_left_ms, own_ms[i] == 0 ? 1000 : own_ms[i] < 0 ? 0 : own_ms[i]);
        scene_end(&scene);
    }
}

TEST(a_fetch_may_say_how_long_its_failure_is_remembered)
{
    struct scene scene;
    aside_freshness own = {0};
    open_failing(&scene, 0, 0);
    own.backoff_ms = 300;
    scene.truth.own = &own;
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    CHECK_INT(asks(&scene, "k", ASIDE_E_FETCH).ttl_left_ms, 300);
    CHECK_INT(scene.truth.fetches, 1);
    scene_end(&scene);
}

struct late {
    aside_fetch *fetch; /* a reference */
};

static aside_status say_nonsense(aside_fetch *fetch, void *arg)
{
    static const aside_freshness good = {0};
    aside_freshness bad[5] = {{0}};
    bad[0].stale_ms = -2;
    bad[1].not_found_ttl_ms = INT64_MIN;
    bad[2].backoff_ms = -3;
    bad[3].refresh_ahead = 1;
    bad[4].xfetch_beta = -2;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        CHECK_STATUS(aside_fetch_set_freshness(fetch, &bad[i]), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_freshness(fetch, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_freshness(NULL, &good), ASIDE_E_INVALID);
    ((struct late *)arg)->fetch = aside_fetch_ref(fetch);
    return aside_fetch_not_found(fetch);
}

TEST(a_fetch_may_say_what_makes_sense_until_it_has_ended)
{
    static const aside_freshness good = {0};
    struct scene scene;
    struct late late = {NULL};
    open_absent(&scene, 1000);
    scene.call.fetch = say_nonsense;
    scene.call.arg = &late;
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    CHECK_STATUS(aside_fetch_set_freshness(late.fetch, &good), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_not_found(late.fetch), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_fail(late.fetch, 1), ASIDE_E_INVALID);
    aside_fetch_unref(late.fetch);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).ttl_left_ms, 1000);
    scene_end(&scene);
}

TEST(the_jitter_of_a_ttl_spreads_how_long_not_found_is_remembered)
{
    struct scene scene;
    int64_t least = INT64_MAX, most = 0;
    scene_init(&scene);
    scene.options.freshness.not_found_ttl_ms = 1000;
    scene.options.jitter.kind = ASIDE_JITTER_ADD;
    scene.options.jitter.amount = 500;
    scene_open(&scene);
    scene_says(&scene, NULL, ASIDE_NOT_FOUND);
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        (void)asks(&scene, key, ASIDE_NOT_FOUND);
        int64_t left_ms = asks(&scene, key, ASIDE_NOT_FOUND).ttl_left_ms;
        least = left_ms < least ? left_ms : least;
        most = left_ms > most ? left_ms : most;
    }
    CHECK(least >= 1000 && least < 1050);
    CHECK(most <= 1500 && most > 1450);
    CHECK_INT(scene.truth.fetches, 1000);
    scene_end(&scene);
}

/* ---- many callers, and writes that come between -------------------------------------------------- */

/* Sixteen callers miss together, as many come later: one fetch. */
static void check_burst(struct scene *scene, aside_outcome later, int code)
{
    enum { CALLERS = 16 };
    struct caller callers[CALLERS];
    scene_lead(scene, &callers[0], "k");
    for (int i = 1; i < CALLERS; i++)
        scene_start(scene, &callers[i], "k");
    WAIT_UNTIL(STAT(scene->cache, waiters_now) == CALLERS - 1);
    scene_release(scene);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_STATUS(caller_join(&callers[i]), scene->truth.says);
        CHECK_INT(callers[i].result.outcome, i == 0 ? ASIDE_OUTCOME_FETCHED : ASIDE_OUTCOME_JOINED);
        CHECK_INT(callers[i].result.fetch_error, code);
        CHECK_INT(callers[i].result.shared, 1);
    }
    for (int i = 0; i < CALLERS; i++) {
        aside_result result = asks(scene, "k", scene->truth.says);
        CHECK_INT(result.outcome, later);
        CHECK_INT(result.fetch_error, code);
    }
    CHECK_INT(scene->truth.fetches, 1);
}

TEST(a_burst_on_a_missing_key_is_one_fetch)
{
    struct scene scene;
    open_absent(&scene, 1000);
    check_burst(&scene, ASIDE_OUTCOME_NEGATIVE, 0);
    CHECK_INT(STAT(scene.cache, negative_hits), 16);
    CHECK_INT(STAT(scene.cache, fetch_not_found), 1);
    scene_end(&scene);
}

TEST(a_burst_on_a_failing_key_is_one_fetch)
{
    struct scene scene;
    open_failing(&scene, 1000, 60000);
    check_burst(&scene, ASIDE_OUTCOME_ERROR, 42);
    CHECK_INT(STAT(scene.cache, error_hits), 16);
    CHECK_INT(STAT(scene.cache, fetch_errors), 1);
    scene_end(&scene);
}

/* Of a flight: at a step after its fetch somebody on another thread asks for the key. */
struct passer_by {
    struct scene scene;
    int64_t nth;
    _Atomic bool comes;
};

static void *ask_in_passing(void *its_passer_by)
{
    struct passer_by *passer_by = (struct passer_by *)its_passer_by;
    aside_call call = passer_by->scene.call;
    aside_result result = ASIDE_RESULT_INIT;
    call.timeout_ms = ASIDE_NO_WAIT;
    while (!atomic_load(&passer_by->comes))
        test_yield();
    aside_status status =
        aside_get_with_fetch(passer_by->scene.cache, ASIDE_STR("k"), &call, &result);
    CHECK_STATUS(status, result.outcome == ASIDE_OUTCOME_NONE ? ASIDE_MISS : ASIDE_NOT_FOUND);
    return NULL;
}

/* Whoever stores goes on without having heard of him: a thread that waited for him could not race. */
static void let_pass_by(void *its_passer_by)
{
    struct passer_by *passer_by = (struct passer_by *)its_passer_by;
    atomic_store(&passer_by->comes, true);
    for (int i = 0; i < 20; i++)
        test_yield();
}

static aside_status not_there_as_somebody_passes(aside_fetch *fetch, void *arg)
{
    struct passer_by *passer_by = (struct passer_by *)arg;
    if (!act_at_point(passer_by->nth, let_pass_by, passer_by))
        test_skip("this build has no points between the steps of the library");
    return aside_fetch_not_found(fetch);
}

/* True: there is such a step. */
static bool check_passer_by(int64_t nth)
{
    struct passer_by passer_by;
    struct scene *scene = &passer_by.scene;
    passer_by.nth = nth;
    atomic_init(&passer_by.comes, false);
    open_absent(scene, 1000);
    scene->call.fetch = not_there_as_somebody_passes;
    scene->call.arg = &passer_by;
    pthread_t thread = thread_start(ask_in_passing, &passer_by);
    check_outcome(scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    (void)act_at_point(0, NULL, NULL);
    bool reached = atomic_exchange(&passer_by.comes, true);
    thread_join(thread);
    check_outcome(scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_NEGATIVE);
    scene_end(scene);
    return reached;
}

TEST(what_is_remembered_is_whole_as_soon_as_it_is_found)
{
    int64_t nth = 1;
    while (check_passer_by(nth))
        nth++;
    CHECK(nth > 20);
}

/* The statistics name each lookup once. */
TEST(lookups_that_are_answered_by_memory_add_up)
{
    struct scene scene;
    open_absent(&scene, 1000);
    scene.call.freshness.backoff_ms = 1000;
    for (int i = 0; i < 5; i++)
        (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    for (int i = 0; i < 4; i++)
        (void)asks(&scene, "l", ASIDE_E_FETCH);
    (void)look(scene.cache, "k");
    aside_stats stats = test_stats(scene.cache);
    CHECK_INT(stats.misses_led, 2);
    CHECK_INT(stats.negative_hits, 4);
    CHECK_INT(stats.error_hits, 3);
    CHECK_INT(stats.misses, 1);
    CHECK_INT(stats.hits + stats.stale + stats.misses_joined + stats.refused, 0);
    CHECK_INT(stats.get_with_fetch_none, 5);
    CHECK_INT(stats.get_with_fetch_error, 4);
    CHECK_INT(stats.fetch_not_found, 1);
    CHECK_INT(stats.fetch_errors, 1);
    CHECK_INT(stats.fetch_stored, 0);
    scene_end(&scene);
}

/* What a fetch says that a write overtook is not remembered, and what was written stays. */
static void check_fenced(struct scene *scene, enum write write)
{
    struct caller leader;
    bool stores = write <= ADD;
    aside_status said = scene->truth.says;
    scene->truth.gate.open = false;
    scene_lead(scene, &leader, "k");
    do_write(scene->cache, write);
    scene_release(scene);
    CHECK_STATUS(caller_join(&leader), said);
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(asks(scene, "k", stores ? ASIDE_OK : said).outcome,
              stores ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_FETCHED);
    CHECK_STATUS(aside_clear(scene->cache), ASIDE_OK);
}

TEST(a_not_found_that_was_fenced_is_not_remembered)
{
    struct scene scene;
    open_absent(&scene, 1000);
    for (int write = 0; write < WRITES; write++)
        check_fenced(&scene, (enum write)write);
    scene_end(&scene);
}

TEST(a_failure_that_was_fenced_is_not_remembered)
{
    struct scene scene;
    open_failing(&scene, 1000, 60000);
    for (int write = 0; write < WRITES; write++)
        check_fenced(&scene, (enum write)write);
    scene_end(&scene);
}

TEST(a_cache_that_stores_nothing_remembers_nothing)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.disabled = ASIDE_DISABLE_STORE;
    scene.options.freshness.not_found_ttl_ms = scene.options.freshness.backoff_ms = 1000;
    scene_open(&scene);
    scene_says(&scene, NULL, ASIDE_NOT_FOUND);
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    check_outcome(&scene, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_FETCHED);
    scene_end(&scene);
}

static aside_status say_without_memory(aside_fetch *fetch, void *arg)
{
    struct scene *scene = (struct scene *)arg;
    (void)fetch;
    scene->ledger.fail_for_ever = true;
    scene->ledger.fail_at = 1;
    return scene->truth.says;
}

/* F10 of what is no value. */
TEST(an_answer_that_can_not_be_remembered_for_want_of_memory_is_given_all_the_same)
{
    static const aside_status answers[] = {ASIDE_NOT_FOUND, (aside_status)-77};
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        struct scene scene;
        open_absent(&scene, 1000);
        scene.call.freshness.backoff_ms = 1000;
        scene.call.fetch = say_without_memory;
        scene.call.arg = &scene;
        scene_says(&scene, NULL, answers[i]);
        (void)asks(&scene, "k", answers[i]);
        scene.ledger.fail_at = 0;
        scene.ledger.fail_for_ever = false;
        check_outcome(&scene, answers[i], ASIDE_OUTCOME_FETCHED);
        scene.ledger.fail_at = 0;
        scene.ledger.fail_for_ever = false;
        CHECK_INT(aside_count(scene.cache), 0);
        scene_end(&scene);
    }
}

/* ---- failures ------------------------------------------------------------------------------------ */

/* Remembered until just before so long after now, and asked for anew then. */
static void check_backoff(struct scene *scene, int64_t ms)
{
    int before = scene->truth.fetches;
    CHECK_INT(asks(scene, "k", ASIDE_E_FETCH).outcome, ASIDE_OUTCOME_FETCHED);
    aside_result result = asks(scene, "k", ASIDE_E_FETCH);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_ERROR);
    CHECK_INT(result.ttl_left_ms, ms);
    CHECK_INT(result.age_ms, 0);
    pass(scene, ms - 1);
    CHECK_INT(asks(scene, "k", ASIDE_E_FETCH).outcome, ASIDE_OUTCOME_ERROR);
    CHECK_INT(scene->truth.fetches, before + 1);
    pass(scene, 1);
}

TEST(a_failure_is_remembered_twice_as_long_as_the_one_before_it)
{
    struct scene scene;
    open_failing(&scene, 100, 500);
    check_backoff(&scene, 100);
    check_backoff(&scene, 200);
    check_backoff(&scene, 400);
    check_backoff(&scene, 500);
    check_backoff(&scene, 500);
    CHECK_INT(STAT(scene.cache, error_hits), 10);
    CHECK_INT(STAT(scene.cache, fetch_errors), 5);
    scene_end(&scene);
}

TEST(the_longest_back_off_is_a_minute_by_default)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.freshness.backoff_ms = 25000;
    scene_open(&scene);
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    check_backoff(&scene, 25000);
    check_backoff(&scene, 50000);
    check_backoff(&scene, 60000);
    check_backoff(&scene, 60000);
    scene_end(&scene);
}

TEST(failures_are_remembered_for_ever_and_no_sum_overflows)
{
    static const int64_t lengths[] = {ASIDE_FOREVER, INT64_MAX - 1, INT64_MAX / 2};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct scene scene;
        open_failing(&scene, lengths[i], ASIDE_FOREVER);
        (void)asks(&scene, "k", ASIDE_E_FETCH);
        pass(&scene, (int64_t)1000 * 60 * 60 * 24 * 365);
        check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_ERROR);
        (void)aside_expire(scene.cache, ASIDE_STR("k"));
        (void)asks(&scene, "k", ASIDE_E_FETCH);
        check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_ERROR);
        CHECK_INT(scene.truth.fetches, 2);
        scene_end(&scene);
    }
}

/* How the source answers that has failed twice. */
static void check_begins_anew(const char *value, aside_status says, int64_t ttl_ms)
{
    struct scene scene;
    open_failing(&scene, 100, 10000);
    scene.call.ttl_ms = 50;
    check_backoff(&scene, 100);
    check_backoff(&scene, 200);
    scene_says(&scene, value, says);
    scene.truth.ttl_ms = ttl_ms;
    (void)asks(&scene, "k", value ? ASIDE_OK : says);
    pass(&scene, 50);
    scene_says(&scene, NULL, ASIDE_E_FETCH);
    scene.truth.ttl_ms = 0;
    check_backoff(&scene, 100);
    check_backoff(&scene, 200);
    scene_end(&scene);
}

TEST(a_success_begins_the_back_off_anew)
{
    check_begins_anew("v", ASIDE_OK, 0);
}

TEST(not_found_is_a_success_of_the_source)
{
    check_begins_anew(NULL, ASIDE_NOT_FOUND, 0);
}

TEST(a_success_that_is_not_stored_begins_the_back_off_anew)
{
    check_begins_anew("v", ASIDE_OK, ASIDE_NO_STORE);
}

/* What is remembered is no longer so, once somebody who would not have it has asked. */
TEST(a_success_ends_what_is_remembered_stored_or_not)
{
    for (int stored = 0; stored <= 1; stored++) {
        struct scene scene;
        open_failing(&scene, 1000, 60000);
        (void)asks(&scene, "k", ASIDE_E_FETCH);
        scene_says(&scene, "v", ASIDE_OK);
        scene.call.freshness.backoff_ms = ASIDE_OFF;
        scene.call.ttl_ms = stored ? 0 : ASIDE_NO_STORE;
        CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED);
        scene.call.freshness.backoff_ms = 0;
        CHECK_INT(gets(&scene, "k", "v").outcome,
                  stored ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_FETCHED);
        scene_end(&scene);
    }
}

TEST(a_write_begins_the_back_off_anew)
{
    struct scene scene;
    open_failing(&scene, 100, 10000);
    check_backoff(&scene, 100);
    check_backoff(&scene, 200);
    CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
    check_backoff(&scene, 100);
    check_backoff(&scene, 200);
    put(scene.cache, "k", "v", 1);
    pass(&scene, 1);
    check_backoff(&scene, 100);
    scene_end(&scene);
}

/* It counts for as long again as it was served, and no longer. */
TEST(to_expire_a_failure_that_is_over_does_not_prolong_its_memory)
{
    struct scene scene;
    open_failing(&scene, 100, 10000);
    check_backoff(&scene, 100);
    pass(&scene, 60);
    CHECK_STATUS(aside_expire(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
    check_backoff(&scene, 200);
    pass(&scene, 120);
    CHECK_STATUS(aside_expire(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
    pass(&scene, 120);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    check_backoff(&scene, 100);
    scene_end(&scene);
}

TEST(each_key_has_a_back_off_of_its_own)
{
    struct scene scene;
    open_failing(&scene, 100, 10000);
    check_backoff(&scene, 100);
    check_backoff(&scene, 200);
    (void)asks(&scene, "other", ASIDE_E_FETCH);
    CHECK_INT(asks(&scene, "other", ASIDE_E_FETCH).ttl_left_ms, 100);
    scene_end(&scene);
}

TEST(status_and_code_of_a_failure_are_remembered)
{
    static const struct {
        aside_status status;
        int code;
    } failures[] = {{ASIDE_E_FETCH, 0},         {ASIDE_E_FETCH, -1},
                    {ASIDE_E_FETCH, INT_MAX},   {ASIDE_E_FETCH, INT_MIN},
                    {(aside_status)-17, 0},     {(aside_status)-77, 0},
                    {(aside_status)-100000, 0}, {(aside_status)-2000000000, 0},
                    {ASIDE_E_BUSY, 0},          {ASIDE_E_NOMEM, 0}};
    struct scene scene;
    open_failing(&scene, 1000, 1000);
    for (size_t i = 0; i < COUNT_OF(failures); i++) {
        scene_says(&scene, NULL, failures[i].status);
        scene.truth.code = failures[i].code;
        for (int turn = 0; turn < 3; turn++) {
            aside_result result = asks(&scene, "k", failures[i].status);
            CHECK_INT(result.fetch_error, failures[i].code);
            CHECK_INT(result.outcome, turn == 0 ? ASIDE_OUTCOME_FETCHED : ASIDE_OUTCOME_ERROR);
        }
        pass(&scene, 1000);
    }
    scene_end(&scene);
}

TEST(a_call_that_will_have_no_remembered_failure_asks_anew)
{
    struct scene scene;
    open_failing(&scene, 1000, 60000);
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    scene.call.freshness.backoff_ms = ASIDE_OFF;
    check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_FETCHED);
    scene.call.freshness.backoff_ms = 0;
    scene.call.freshness.not_found_ttl_ms = ASIDE_OFF; /* that is the other matter */
    check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_ERROR);
    scene_end(&scene);
}

/* ---- only what the source said ------------------------------------------------------------------- */

TEST(that_no_fetch_could_be_started_is_not_remembered)
{
    struct scene scene;
    struct caller leader;
    scene_init(&scene);
    scene.options.freshness.backoff_ms = 60000;
    scene.options.max_flights = 1;
    scene_open(&scene);
    scene_says(&scene, "v", ASIDE_OK);
    scene_lead(&scene, &leader, "held");
    check_outcome(&scene, ASIDE_E_BUSY, ASIDE_OUTCOME_NONE);
    check_outcome(&scene, ASIDE_E_BUSY, ASIDE_OUTCOME_NONE);
    CHECK_INT(STAT(scene.cache, error_hits), 0);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED);
    scene_end(&scene);
}

static aside_status drop_job(void *ctx, aside_job *job)
{
    atomic_fetch_add((_Atomic int *)ctx, 1);
    aside_job_drop(job);
    return ASIDE_OK;
}

static aside_status refuse_job(void *ctx, aside_job *job)
{
    (void)job;
    atomic_fetch_add((_Atomic int *)ctx, 1);
    return ASIDE_E_NOMEM;
}

/* The source was not asked. */
TEST(that_a_fetch_did_not_run_is_not_remembered)
{
    for (int refused = 0; refused <= 1; refused++) {
        struct scene scene;
        _Atomic int jobs = 0;
        scene_init(&scene);
        scene.options.freshness.backoff_ms = 60000;
        scene.options.submit.fn = refused ? refuse_job : drop_job;
        scene.options.submit.ctx = (void *)&jobs;
        scene_open(&scene);
        scene.call.timeout_ms = 60000;
        for (int turn = 1; turn <= 3; turn++) {
            (void)asks(&scene, "k", refused ? ASIDE_E_BUSY : ASIDE_E_ABANDONED);
            CHECK_INT(jobs, turn);
        }
        CHECK_INT(STAT(scene.cache, error_hits), 0);
        CHECK_INT(scene.truth.fetches, 0);
        scene_end(&scene);
    }
}

static aside_status never_starts(void *ctx, void **worker)
{
    (void)worker;
    atomic_fetch_add((_Atomic int *)ctx, 1);
    return (aside_status)-77;
}

/* Its start hook connects to the source, say. */
TEST(that_no_worker_could_start_is_remembered_though_no_fetch_ran)
{
    struct scene scene;
    _Atomic int starts = 0;
    scene_init(&scene);
    scene.options.freshness.backoff_ms = 1000;
    scene.options.worker.start = never_starts;
    scene.options.worker.ctx = (void *)&starts;
    scene_open(&scene);
    for (int turn = 1; turn <= 2; turn++) {
        CHECK_INT(asks(&scene, "k", ASIDE_E_WORKER).outcome, ASIDE_OUTCOME_FETCHED);
        aside_result result = asks(&scene, "k", ASIDE_E_WORKER);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_ERROR);
        CHECK_INT(result.fetch_error, -77);
        CHECK_INT(result.ttl_left_ms, turn * 1000);
        CHECK_INT(starts, turn);
        pass(&scene, turn * 1000);
    }
    CHECK_INT(scene.truth.fetches, 0);
    scene_end(&scene);
}

/* The fetch runs on, and what it says counts. */
TEST(that_a_caller_has_left_is_not_remembered)
{
    struct scene scene;
    struct caller caller;
    aside_cancel *token = token_new();
    open_failing(&scene, 60000, 60000);
    scene_says(&scene, "v", ASIDE_OK);
    scene.call.cancel = token;
    scene_lead(&scene, &caller, "k");
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    check_outcome(&scene, ASIDE_E_CANCELLED, ASIDE_OUTCOME_NONE);
    scene_release(&scene);
    scene.call.cancel = NULL;
    (void)gets(&scene, "k", "v");
    CHECK_INT(scene.truth.fetches, 1);
    CHECK_INT(STAT(scene.cache, error_hits), 0);
    scene_end(&scene);
    aside_cancel_unref(token);
}

TEST(a_closed_cache_says_that_it_is_closed_and_not_what_it_remembers)
{
    struct scene scene;
    open_failing(&scene, 60000, 60000);
    (void)asks(&scene, "k", ASIDE_E_FETCH);
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    check_outcome(&scene, ASIDE_E_CLOSED, ASIDE_OUTCOME_NONE);
    scene_end(&scene);
}

/* ---- beside a value ------------------------------------------------------------------------------ */

/* A value that has expired, and that answers for failures for ten seconds. */
static void open_with_reserve(struct scene *scene)
{
    scene_init(scene);
    scene->options.default_ttl_ms = 100;
    scene->options.freshness.stale_if_error_ms = 10000;
    scene->options.freshness.backoff_ms = 500;
    scene_open(scene);
    scene_says(scene, "v", ASIDE_OK);
    (void)gets(scene, "k", "v");
    pass(scene, 100);
    scene_says(scene, NULL, ASIDE_E_FETCH);
    scene->truth.code = 42;
}

TEST(a_stale_value_answers_and_no_failure_is_remembered)
{
    struct scene scene;
    open_with_reserve(&scene);
    aside_result result = gets(&scene, "k", "v");
    CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(result.stale_cause, ASIDE_STALE_ERROR);
    CHECK_STATUS(result.fetch_status, ASIDE_E_FETCH);
    CHECK_INT(result.fetch_error, 42);
    pass(&scene, 999); /* throttle_ms is a second */
    result = gets(&scene, "k", "v");
    CHECK_INT(result.stale_cause, ASIDE_STALE_THROTTLED);
    CHECK_INT(scene.truth.fetches, 2);
    pass(&scene, 1);
    CHECK_INT(gets(&scene, "k", "v").stale_cause, ASIDE_STALE_ERROR);
    CHECK_INT(scene.truth.fetches, 3);
    CHECK_INT(STAT(scene.cache, error_hits), 0);
    scene_end(&scene);
}

TEST(once_no_stale_value_answers_the_failure_is_remembered)
{
    struct scene scene;
    open_with_reserve(&scene);
    pass(&scene, 10000);
    check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_FETCHED);
    aside_result result = asks(&scene, "k", ASIDE_E_FETCH);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_ERROR);
    CHECK_INT(result.ttl_left_ms, 500);
    scene_end(&scene);
}

/* He gets the failure, and the others their value. */
TEST(a_caller_who_accepts_no_stale_value_does_not_lose_it_for_others)
{
    struct scene scene;
    open_with_reserve(&scene);
    scene.call.freshness.stale_if_error_ms = ASIDE_OFF;
    check_outcome(&scene, ASIDE_E_FETCH, ASIDE_OUTCOME_FETCHED);
    scene.call.freshness.stale_if_error_ms = 0;
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_STALE);
    scene_end(&scene);
}

/* Whatever the value's rules: with windows of its own, or stored by a plain verb. */
TEST(a_failed_refresh_leaves_a_fresh_value_where_it_is)
{
    for (int windows = 0; windows <= 1; windows++) {
        struct scene scene;
        open_failing(&scene, 1000, 60000);
        scene.call.freshness.stale_if_error_ms = windows ? 1000 : 0;
        scene_says(&scene, "v", ASIDE_OK);
        (void)gets(&scene, "fetched", "v");
        put(scene.cache, "set", "v", 60000);
        scene_says(&scene, NULL, ASIDE_E_FETCH);
        refreshes(&scene, "fetched");
        refreshes(&scene, "set");
        CHECK_INT(scene.truth.fetches, 3);
        CHECK(holds(scene.cache, "fetched", "v"));
        CHECK(holds(scene.cache, "set", "v"));
        CHECK_INT(gets(&scene, "fetched", "v").outcome, ASIDE_OUTCOME_HIT);
        CHECK_INT(gets(&scene, "set", "v").outcome, ASIDE_OUTCOME_HIT);
        scene_end(&scene);
    }
}
