/*
 * limits.c -- where a bound is reached a stale value answers, if there is one (B1); and
 * options.on_slow, which hears of fetches that took long.
 */
#include "truth.h"

/* ---- bounds and stale values --------------------------------------------------------------------- */

/* "k" has expired; it answers for failures for ten seconds. Nothing is known of "missing". */
static void open_stale(struct scene *scene)
{
    scene->options.default_ttl_ms = 100;
    scene->options.freshness.stale_if_error_ms = 10000;
    scene_open(scene);
    scene_says(scene, "v", ASIDE_OK);
    (void)gets(scene, "k", "v");
    pass(scene, 100);
}

/* For want of room who asks for "k" has the stale value; with none, or who accepts none, the
 * error. */
static void check_busy(struct scene *scene)
{
    aside_stats before = test_stats(scene->cache);
    aside_result result = gets(scene, "k", "v");
    CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(result.stale_cause, ASIDE_STALE_BUSY);
    CHECK_STATUS(result.fetch_status, ASIDE_E_BUSY);
    CHECK_INT(result.ttl_left_ms, 0);
    CHECK_INT(asks(scene, "missing", ASIDE_E_BUSY).outcome, ASIDE_OUTCOME_NONE);
    scene->call.freshness.stale_if_error_ms = ASIDE_OFF;
    (void)asks(scene, "k", ASIDE_E_BUSY);
    scene->call.freshness.stale_if_error_ms = 0;
    aside_stats after = test_stats(scene->cache);
    CHECK_INT(after.stale_errors - before.stale_errors, 1);
    CHECK_INT(after.refused - before.refused, 3);
    CHECK_INT(after.hits + after.stale + after.misses_led + after.misses_joined,
              before.hits + before.stale + before.misses_led + before.misses_joined);
    CHECK_INT(after.fetches, before.fetches);
}

/* Once the value is past its window it answers for nothing. */
static void check_busy_past_the_window(struct scene *scene)
{
    pass(scene, 10000);
    CHECK_INT(asks(scene, "k", ASIDE_E_BUSY).outcome, ASIDE_OUTCOME_NONE);
}

TEST(beyond_max_flights_a_stale_value_answers)
{
    struct scene scene;
    struct caller held;
    scene_init(&scene);
    scene.options.max_flights = 1;
    open_stale(&scene);
    scene_lead(&scene, &held, "held");
    check_busy(&scene);
    CHECK_STATUS(aside_refresh(scene.cache, ASIDE_STR("k"), &scene.call), ASIDE_E_BUSY);
    check_busy_past_the_window(&scene);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&held), ASIDE_OK);
    caller_drop(&held);
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED); /* all is well again */
    scene_end(&scene);
}

TEST(beyond_max_waiters_a_stale_value_answers)
{
    struct scene scene;
    struct caller leader, joiner, other, waits;
    scene_init(&scene);
    scene.options.max_waiters = 1;
    open_stale(&scene);
    scene_lead(&scene, &leader, "k");
    scene_start(&scene, &joiner, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1);
    scene_lead(&scene, &other, "missing");
    scene_start(&scene, &waits, "missing");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 2);
    WAIT_UNTIL(STAT(scene.cache, misses_joined) == 2); /* which is counted a little later */
    check_busy(&scene);
    CHECK_STATUS(aside_refresh(scene.cache, ASIDE_STR("k"), &scene.call), ASIDE_OK); /* it runs */
    check_busy_past_the_window(&scene);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK_STATUS(caller_join(&other), ASIDE_OK);
    CHECK_STATUS(caller_join(&waits), ASIDE_OK);
    caller_drop(&leader);
    caller_drop(&joiner);
    caller_drop(&other);
    caller_drop(&waits);
    scene_end(&scene);
}

TEST(beyond_max_queued_a_stale_value_answers)
{
    struct scene scene;
    struct caller busy, queued;
    scene_init(&scene);
    scene.options.fetch_threads = 1;
    scene.options.max_queued = 1;
    open_stale(&scene);
    scene.call.timeout_ms = 60000; /* who may leave needs a worker */
    scene_lead(&scene, &busy, "busy");
    scene_start(&scene, &queued, "queued");
    WAIT_UNTIL(STAT(scene.cache, queued_now) == 1);
    WAIT_UNTIL(STAT(scene.cache, misses_led) == 3); /* which is counted a little later */
    check_busy(&scene);
    CHECK_STATUS(aside_refresh(scene.cache, ASIDE_STR("k"), &scene.call), ASIDE_E_BUSY);
    check_busy_past_the_window(&scene);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&busy), ASIDE_OK);
    CHECK_STATUS(caller_join(&queued), ASIDE_OK);
    caller_drop(&busy);
    caller_drop(&queued);
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED);
    scene_end(&scene);
}

TEST(without_workers_a_stale_value_answers_who_may_leave)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.fetch_threads = 0;
    open_stale(&scene);
    scene.call.timeout_ms = 60000;
    check_busy(&scene);
    check_busy_past_the_window(&scene);
    scene.call.timeout_ms = 0;
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED); /* on his own thread */
    scene_end(&scene);
}

static aside_status refuse_job(void *ctx, aside_job *job)
{
    (void)ctx;
    (void)job;
    return ASIDE_E_NOMEM;
}

TEST(where_an_executor_refuses_a_stale_value_answers)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.submit.fn = refuse_job;
    open_stale(&scene);
    scene.call.timeout_ms = 60000;
    CHECK_INT(gets(&scene, "k", "v").stale_cause, ASIDE_STALE_BUSY);
    (void)asks(&scene, "missing", ASIDE_E_BUSY);
    CHECK_INT(STAT(scene.cache, flights_now), 0);
    scene_end(&scene);
}

/* Inside its window it is served in any case; the refresh is begun once there is room. */
TEST(inside_its_window_a_stale_value_is_served_though_no_refresh_can_be_begun)
{
    struct scene scene;
    struct caller held;
    scene_init(&scene);
    scene.options.max_flights = 1;
    scene.options.default_ttl_ms = 100;
    scene.options.freshness.stale_ms = 60000;
    scene_open(&scene);
    scene_says(&scene, "v", ASIDE_OK);
    (void)gets(&scene, "k", "v");
    pass(&scene, 100);
    scene_lead(&scene, &held, "held");
    for (int i = 0; i < 3; i++) {
        aside_result result = gets(&scene, "k", "v");
        CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
        CHECK(result.stale_cause == ASIDE_STALE_BUSY || result.stale_cause == ASIDE_STALE_REFRESH);
    }
    (void)asks(&scene, "missing", ASIDE_E_BUSY);
    CHECK_INT(STAT(scene.cache, refreshes), 0);
    CHECK_INT(STAT(scene.cache, stale), 3);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&held), ASIDE_OK);
    caller_drop(&held);
    pass(&scene, 1000);           /* throttle_ms */
    (void)gets(&scene, "k", "v"); /* stale, if the worker is not faster */
    WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
    CHECK_INT(STAT(scene.cache, refreshes), 1);
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_HIT);
    scene_end(&scene);
}

static aside_status refuse_to_start(void *ctx, void **worker)
{
    (void)ctx;
    (void)worker;
    return (aside_status)-99;
}

TEST(where_no_worker_can_start_a_stale_value_answers)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.freshness.stale_if_error_ms = 10000;
    scene.options.worker.start = refuse_to_start;
    scene_open(&scene);
    CHECK_INT(asks(&scene, "k", ASIDE_E_WORKER).fetch_error, -99);
    put(scene.cache, "k", "set", 100);
    pass(&scene, 100);
    aside_result result = gets(&scene, "k", "set");
    CHECK_INT(result.stale_cause, ASIDE_STALE_ERROR);
    CHECK_STATUS(result.fetch_status, ASIDE_E_WORKER);
    CHECK_INT(result.fetch_error, -99);
    scene_end(&scene);
}

TEST(where_there_is_no_memory_for_a_flight_a_stale_value_answers)
{
    struct scene scene;
    scene_init(&scene);
    open_stale(&scene);
    scene.ledger.fail_for_ever = true;
    scene.ledger.fail_at = 1;
    aside_result result = gets(&scene, "k", "v");
    CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_STATUS(result.fetch_status, ASIDE_E_NOMEM);
    (void)asks(&scene, "missing", ASIDE_E_NOMEM);
    scene.ledger.fail_at = 0;
    scene.ledger.fail_for_ever = false;
    CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED);
    scene_end(&scene);
}

/* ---- slow fetches -------------------------------------------------------------------------------- */

/* What was heard last, and how often anything was. */
struct heard {
    struct scene scene;
    int64_t takes_ms; /* each fetch */
    _Atomic int count;
    char key[32];
    int64_t took_ms;
    aside_status status;
    int superseded;
    pthread_t thread;
    void (*also)(struct heard *heard); /* what else the listener does; NULL: nothing */
};

static void hear(void *ctx, const void *key, size_t key_len, int64_t took_ms, aside_status status,
                 int superseded)
{
    struct heard *heard = (struct heard *)ctx;
    snprintf(heard->key, sizeof heard->key, "%.*s", (int)key_len, (const char *)key);
    heard->took_ms = took_ms;
    heard->status = status;
    heard->superseded = superseded;
    heard->thread = pthread_self();
    if (heard->also != NULL)
        heard->also(heard);
    atomic_fetch_add(&heard->count, 1);
}

/* A fetch in which so much time passes. */
static aside_status take_time(aside_fetch *fetch, void *arg)
{
    struct heard *heard = (struct heard *)arg;
    fake_clock_advance_ms(&heard->scene.clock, heard->takes_ms, NULL);
    return truth_tell(fetch, &heard->scene.truth);
}

/* A cache of ten seconds' flights. */
static void heard_open(struct heard *heard, int64_t threshold_ms)
{
    memset((void *)heard, 0, sizeof *heard);
    scene_init(&heard->scene);
    heard->scene.options.max_flight_age_ms = 10000;
    heard->scene.options.on_slow.fn = hear;
    heard->scene.options.on_slow.ctx = heard;
    heard->scene.options.on_slow.threshold_ms = threshold_ms;
    heard->scene.call.fetch = take_time;
    heard->scene.call.arg = heard;
    scene_open(&heard->scene);
    scene_says(&heard->scene, "v", ASIDE_OK);
}

#define CHECK_HEARD(heard, number, text, ms, what, late)                                           \
    do {                                                                                           \
        CHECK_INT((heard)->count, number);                                                         \
        CHECK(strcmp((heard)->key, text) == 0);                                                    \
        CHECK_INT((heard)->took_ms, ms);                                                           \
        CHECK_STATUS((heard)->status, what);                                                       \
        CHECK_INT((heard)->superseded, late);                                                      \
    } while (0)

TEST(a_fetch_of_the_threshold_or_more_is_told_and_none_below_it)
{
    static struct heard heard;
    heard_open(&heard, 100);
    heard.takes_ms = 99;
    (void)gets(&heard.scene, "quick", "v");
    CHECK_INT(heard.count, 0);
    heard.takes_ms = 100;
    (void)gets(&heard.scene, "just", "v");
    CHECK_HEARD(&heard, 1, "just", 100, ASIDE_OK, 0);
    CHECK(pthread_equal(heard.thread, pthread_self()));
    heard.takes_ms = 5000;
    (void)gets(&heard.scene, "slow", "v");
    CHECK_HEARD(&heard, 2, "slow", 5000, ASIDE_OK, 0);
    (void)gets(&heard.scene, "slow", "v"); /* a hit */
    CHECK_INT(heard.count, 2);
    scene_end(&heard.scene);
}

TEST(with_a_threshold_of_0_every_fetch_is_told_and_with_none_no_fetch)
{
    static struct heard heard;
    heard_open(&heard, 0);
    (void)gets(&heard.scene, "k", "v");
    CHECK_HEARD(&heard, 1, "k", 0, ASIDE_OK, 0);
    refreshes(&heard.scene, "k");
    CHECK_INT(heard.count, 2);
    scene_end(&heard.scene);
    heard_open(&heard, ASIDE_FOREVER);
    heard.takes_ms = (int64_t)1000 * 60 * 60 * 24 * 365;
    (void)gets(&heard.scene, "k", "v");
    CHECK_INT(heard.count, 0);
    scene_end(&heard.scene);
}

TEST(the_listener_is_told_what_the_fetch_ended_with)
{
    static const aside_status answers[] = {ASIDE_NOT_FOUND, ASIDE_E_FETCH, (aside_status)-77};
    static struct heard heard;
    heard_open(&heard, 100);
    heard.takes_ms = 250;
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        scene_says(&heard.scene, NULL, answers[i]);
        (void)asks(&heard.scene, "k", answers[i]);
        CHECK_HEARD(&heard, (int)i + 1, "k", 250, answers[i], 0);
    }
    scene_says(&heard.scene, NULL, ASIDE_OK);
    (void)asks(&heard.scene, "k", ASIDE_E_INVALID);
    CHECK_HEARD(&heard, 4, "k", 250, ASIDE_E_INVALID, 0);
    scene_end(&heard.scene);
}

static aside_status end_it_slowly(aside_fetch *fetch, void *arg)
{
    struct heard *heard = (struct heard *)arg;
    fake_clock_advance_ms(&heard->scene.clock, heard->takes_ms, NULL);
    return end_the_thread(fetch, NULL);
}

TEST(a_fetch_that_ends_its_thread_is_told_as_well)
{
    static struct heard heard;
    aside_cancel *token = token_new();
    heard_open(&heard, 100);
    heard.takes_ms = 100;
    heard.scene.call.fetch = end_it_slowly;
    heard.scene.call.cancel = token;
    (void)asks(&heard.scene, "k", ASIDE_E_ABANDONED);
    WAIT_UNTIL(heard.count == 1);
    CHECK_HEARD(&heard, 1, "k", 100, ASIDE_E_ABANDONED, 0);
    scene_end(&heard.scene);
    aside_cancel_unref(token);
}

TEST(a_workers_fetch_is_told_on_the_worker_once_for_all_who_wait)
{
    static struct heard heard;
    struct caller callers[4];
    aside_cancel *token = token_new();
    heard_open(&heard, 100);
    heard.takes_ms = 100;
    heard.scene.truth.gated = true;
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        caller_init(&callers[i], heard.scene.cache, "k", take_time, &heard);
        callers[i].call.cancel = token;
        caller_start(&callers[i]);
    }
    WAIT_UNTIL(STAT(heard.scene.cache, waiters_now) == COUNT_OF(callers));
    gate_wait_arrived(&heard.scene.truth.gate, 1);
    scene_release(&heard.scene);
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    WAIT_UNTIL(heard.count == 1);
    CHECK_HEARD(&heard, 1, "k", 100, ASIDE_OK, 0);
    CHECK(!pthread_equal(heard.thread, pthread_self()));
    scene_end(&heard.scene);
    CHECK_INT(heard.count, 1);
    aside_cancel_unref(token);
}

/* From its start: what it waited for a worker is no time of its own. */
TEST(the_time_in_the_queue_does_not_count)
{
    static struct heard heard;
    struct caller busy, queued;
    heard_open(&heard, 100);
    end_cache(heard.scene.cache);
    heard.scene.options.fetch_threads = 1;
    scene_open(&heard.scene);
    heard.scene.call.timeout_ms = 60000;
    scene_lead(&heard.scene, &busy, "busy");
    scene_start(&heard.scene, &queued, "queued");
    WAIT_UNTIL(STAT(heard.scene.cache, queued_now) == 1);
    pass(&heard.scene, 500);
    scene_release(&heard.scene);
    CHECK_STATUS(caller_join(&busy), ASIDE_OK);
    CHECK_STATUS(caller_join(&queued), ASIDE_OK);
    caller_drop(&busy);
    caller_drop(&queued);
    WAIT_UNTIL(STAT(heard.scene.cache, flights_now) == 0);
    CHECK_HEARD(&heard, 1, "busy", 500, ASIDE_OK, 0);
    scene_end(&heard.scene);
    CHECK_INT(heard.count, 1);
}

TEST(a_background_refresh_is_told)
{
    static struct heard heard;
    heard_open(&heard, 100);
    heard.takes_ms = 300;
    CHECK_STATUS(aside_refresh(heard.scene.cache, ASIDE_STR("k"), &heard.scene.call), ASIDE_OK);
    WAIT_UNTIL(heard.count == 1);
    CHECK_HEARD(&heard, 1, "k", 300, ASIDE_OK, 0);
    CHECK(!pthread_equal(heard.thread, pthread_self()));
    scene_end(&heard.scene);
}

static aside_status answer_later(aside_fetch *fetch, void *arg)
{
    atomic_store((_Atomic(aside_fetch *) *)arg, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

/* By who completes it, and with all the time until then. */
TEST(a_pending_fetch_is_told_by_who_completes_it)
{
    static struct heard heard;
    static _Atomic(aside_fetch *) later;
    struct caller caller;
    heard_open(&heard, 100);
    caller_init(&caller, heard.scene.cache, "k", answer_later, (void *)&later);
    caller_start(&caller);
    WAIT_UNTIL(atomic_load(&later) != NULL);
    pass(&heard.scene, 700);
    CHECK_INT(heard.count, 0);
    CHECK_STATUS(aside_fetch_copy(atomic_load(&later), "v", 1), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(atomic_load(&later), ASIDE_OK), ASIDE_OK);
    CHECK_HEARD(&heard, 1, "k", 700, ASIDE_OK, 0);
    CHECK(pthread_equal(heard.thread, pthread_self()));
    aside_fetch_unref(atomic_load(&later));
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    caller_drop(&caller);
    scene_end(&heard.scene);
}

TEST(that_the_flight_had_grown_too_old_is_told)
{
    static struct heard heard;
    struct caller leader, joiner;
    heard_open(&heard, 100);
    heard.scene.call.timeout_ms = ASIDE_FOREVER;
    scene_lead(&heard.scene, &leader, "k");
    scene_start(&heard.scene, &joiner, "k");
    WAIT_UNTIL(STAT(heard.scene.cache, waiters_now) == 1);
    pass(&heard.scene, 10000);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_FETCH_TIMEOUT);
    CHECK_INT(heard.count, 0); /* it still runs */
    scene_release(&heard.scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    CHECK_HEARD(&heard, 1, "k", 10000, ASIDE_OK, 1);
    heard.takes_ms = 10001; /* and if nobody has noticed */
    (void)gets(&heard.scene, "alone", "v");
    CHECK_HEARD(&heard, 2, "alone", 10001, ASIDE_OK, 1);
    scene_end(&heard.scene);
}

TEST(that_the_cache_was_closed_is_told)
{
    static struct heard heard;
    struct caller leader;
    heard_open(&heard, 100);
    end_cache(heard.scene.cache);
    heard.scene.options.close_wait_ms = 0;
    scene_open(&heard.scene);
    scene_lead(&heard.scene, &leader, "k");
    pass(&heard.scene, 200);
    CHECK_STATUS(aside_close(heard.scene.cache), ASIDE_OK);
    scene_release(&heard.scene);
    (void)caller_join(&leader);
    caller_drop(&leader);
    CHECK_HEARD(&heard, 1, "k", 200, ASIDE_OK, 1);
    aside_unref(heard.scene.cache);
    WAIT_UNTIL(heard.scene.ledger.live_blocks == 0);
}

/* A write has overtaken it: that is no reason to be superseded. */
TEST(a_fetch_that_was_fenced_is_told_as_any_other)
{
    static struct heard heard;
    struct caller leader;
    heard_open(&heard, 100);
    scene_lead(&heard.scene, &leader, "k");
    pass(&heard.scene, 200);
    CHECK_STATUS(aside_delete(heard.scene.cache, ASIDE_STR("k")), ASIDE_MISS);
    scene_release(&heard.scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK_HEARD(&heard, 1, "k", 200, ASIDE_OK, 0);
    scene_end(&heard.scene);
}

static aside_status drop_job(void *ctx, aside_job *job)
{
    (void)ctx;
    aside_job_drop(job);
    return ASIDE_OK;
}

TEST(a_fetch_that_did_not_run_is_not_told)
{
    static struct heard heard;
    heard_open(&heard, 0);
    end_cache(heard.scene.cache);
    heard.scene.options.submit.fn = drop_job;
    scene_open(&heard.scene);
    heard.scene.call.timeout_ms = 60000;
    (void)asks(&heard.scene, "k", ASIDE_E_ABANDONED);
    CHECK_INT(heard.count, 0);
    scene_end(&heard.scene);
}

static void use_the_cache(struct heard *heard)
{
    aside_cache *cache = heard->scene.cache;
    if (strcmp(heard->key, "k") != 0)
        return; /* of a fetch of its own */
    heard->also = NULL;
    CHECK_STATUS(look(cache, "k"), ASIDE_OK); /* it is stored by now */
    put(cache, "k", "w", 1000);
    CHECK(holds(cache, "k", "w"));
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    (void)gets(&heard->scene, "k", "v");
    (void)gets(&heard->scene, "another", "v");
    (void)aside_delete_tag(cache, ASIDE_STR("t"));
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
}

TEST(the_listener_may_use_the_cache)
{
    static struct heard heard;
    heard_open(&heard, 0);
    heard.also = use_the_cache;
    (void)gets(&heard.scene, "k", "v");
    CHECK_INT(heard.count, 3);
    scene_end(&heard.scene);
}

static void close_the_cache(struct heard *heard)
{
    CHECK_STATUS(aside_close(heard->scene.cache), ASIDE_OK);
}

TEST(the_listener_may_close_the_cache)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        static struct heard heard;
        aside_result result = ASIDE_RESULT_INIT;
        heard_open(&heard, 0);
        end_cache(heard.scene.cache);
        heard.scene.options.close_wait_ms = 60000;
        scene_open(&heard.scene);
        heard.also = close_the_cache;
        heard.scene.call.timeout_ms = offloaded ? 60000 : 0;
        aside_status status =
            aside_get_with_fetch(heard.scene.cache, ASIDE_STR("k"), &heard.scene.call, &result);
        CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
        aside_value_unref(result.value);
        WAIT_UNTIL(heard.count == 1);
        CHECK_STATUS(aside_health(heard.scene.cache), ASIDE_E_CLOSED);
        scene_end(&heard.scene);
        wait_for_no_threads();
    }
}

TEST(a_threshold_that_is_none_is_refused_and_an_older_options_has_no_listener)
{
    static const int64_t bad[] = {-1, -2, INT64_MIN};
    static struct heard heard;
    aside_cache *none;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        aside_options options = quiet_options();
        options.on_slow.fn = hear;
        options.on_slow.threshold_ms = bad[i];
        CHECK_STATUS(aside_open(&none, &options), ASIDE_E_INVALID);
        CHECK(none == NULL);
    }
    heard_open(&heard, 0);
    end_cache(heard.scene.cache);
    heard.scene.options.struct_size = offsetof(aside_options, on_slow);
    scene_open(&heard.scene);
    (void)gets(&heard.scene, "k", "v");
    CHECK_INT(heard.count, 0);
    scene_end(&heard.scene);
}
