/*
 * async.c -- aside_get_async: what a caller gets who must not wait, at once or by his inbox, who
 * runs his fetch, and whom he shares it with. How else his wait may end: leaving_loops.c.
 */
#include "loops.h"

#include <sys/epoll.h>

/* ---- at once ------------------------------------------------------------------------------------- */

TEST(a_hit_is_there_at_once_and_nobody_is_called)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    put(place.cache, "k", "there", 1000);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_HIT);
    CHECK(value_is(told.result.value, "there"));
    CHECK(told.result.ttl_left_ms > 0 && told.result.ttl_left_ms <= 1000);
    drop_told(&told);
    CHECK(!is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_INT(told.times, 0);
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, hits), 1);
    CHECK_INT(STAT(place.cache, get_async_ok), 1);
    place_close(&place);
}

TEST(a_hit_needs_no_inbox)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    put(place.cache, "k", "there", 1000);
    CHECK_STATUS(begin(&told, place.cache, "k", &place.call, NULL), ASIDE_OK);
    CHECK(value_is(told.result.value, "there"));
    drop_told(&told);
    CHECK_INT(told.times, 0);
    place_close(&place);
}

TEST(a_stale_value_is_there_at_once_while_a_refresh_runs)
{
    struct place place;
    struct told told = {0};
    place_open_stale(&place, (aside_freshness){.stale_ms = 1000});
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(told.result.stale_cause, ASIDE_STALE_REFRESH);
    CHECK(value_is(told.result.value, "old"));
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(place.held.fetches, 2); /* one refresh for both */
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_HIT);
    CHECK(value_is(told.result.value, "new"));
    drop_told(&told);
    CHECK_INT(STAT(place.cache, stale), 2);
    place_close(&place);
}

TEST(what_is_remembered_as_not_found_is_there_at_once)
{
    struct place place;
    struct told told = {0};
    aside_options options = place_options(&place);
    options.freshness.not_found_ttl_ms = 60000;
    place_open_with(&place, &options);
    place_wait(&place, &told);
    aside_fetch *fetch = held_next(&place.held);
    CHECK_STATUS(aside_fetch_complete(fetch, aside_fetch_not_found(fetch)), ASIDE_OK);
    aside_fetch_unref(fetch);
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_NOT_FOUND);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_NEGATIVE);
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_INT(place.held.fetches, 1);
    CHECK_INT(STAT(place.cache, get_async_none), 2);
    CHECK_INT(STAT(place.cache, negative_hits), 1);
    place_close(&place);
}

TEST(a_failure_that_is_remembered_is_there_at_once)
{
    struct place place;
    struct told told = {0};
    aside_options options = place_options(&place);
    options.freshness.backoff_ms = 60000;
    place_open_with(&place, &options);
    place_wait(&place, &told);
    complete_by_failure(&place.held, 42);
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_FETCH, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(told.result.fetch_error, 42);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_E_FETCH);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_ERROR);
    CHECK_INT(told.result.fetch_error, 42);
    CHECK_INT(place.held.fetches, 1);
    CHECK_INT(STAT(place.cache, get_async_error), 2);
    place_close(&place);
}

TEST(no_wait_hits_or_misses_and_starts_nothing)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(place_begin(&place, &told), ASIDE_MISS);
    CHECK_STATUS(begin(&told, place.cache, "k", &place.call, NULL), ASIDE_MISS);
    put(place.cache, "k", "there", 1000);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    drop_told(&told);
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, refused), 2);
    CHECK_INT(STAT(place.cache, get_async_none), 2);
    place_close(&place);
}

/* ---- a miss -------------------------------------------------------------------------------------- */

TEST(what_a_miss_brings_comes_by_the_inbox_to_the_thread_that_dispatches)
{
    struct place place;
    struct told told = {0};
    place_open_clocked(&place);
    place.call.ttl_ms = 1000;
    place_wait(&place, &told);
    CHECK_INT(STAT(place.cache, waiters_now), 1);
    CHECK(!is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 0);
    complete(&place.held, "fetched");
    CHECK_INT(told.times, 0);
    CHECK(is_readable(place.inbox));
    place_move_ms(&place, 7);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(pthread_equal(told.by, pthread_self()));
    CHECK(!is_readable(place.inbox));
    CHECK_INT(told.result.shared, 0);
    CHECK_INT(told.result.fenced, 0);
    CHECK_INT(told.result.fetch_error, 0);
    CHECK_INT(told.result.stale_cause, ASIDE_STALE_NOT);
    CHECK_INT(told.result.age_ms, 7);
    CHECK_INT(told.result.ttl_left_ms, 993);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "fetched");
    CHECK(holds(place.cache, "k", "fetched"));
    CHECK_INT(STAT(place.cache, misses_led), 1);
    CHECK_INT(STAT(place.cache, get_async_ok), 1);
    place_close(&place);
}

TEST(who_comes_later_joins_and_has_the_same_value)
{
    struct place place;
    struct told led = {0}, joined = {0};
    place_open(&place);
    place_wait(&place, &led);
    place_wait(&place, &joined);
    CHECK_INT(place.held.fetches, 1);
    CHECK_INT(STAT(place.cache, waiters_now), 2);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK(led.result.value == joined.result.value);
    CHECK(led.result.shared && joined.result.shared);
    check_value(&led, ASIDE_OUTCOME_FETCHED, "fetched");
    check_value(&joined, ASIDE_OUTCOME_JOINED, "fetched");
    CHECK_INT(STAT(place.cache, shared), 2);
    CHECK_INT(STAT(place.cache, misses_joined), 1);
    place_close(&place);
}

TEST(first_come_first_told)
{
    struct place place;
    static struct told told[100];
    place_open(&place);
    for (size_t i = 0; i < COUNT_OF(told); i++)
        place_wait(&place, &told[i]);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), COUNT_OF(told));
    for (size_t i = 0; i < COUNT_OF(told); i++) {
        CHECK_INT(told[i].turn, i + 1);
        drop_told(&told[i]);
    }
    place_close(&place);
}

TEST(a_budget_leaves_the_rest_for_later_and_the_descriptor_readable)
{
    struct place place;
    struct told told[5] = {{0}};
    place_open(&place);
    for (size_t i = 0; i < COUNT_OF(told); i++)
        place_wait(&place, &told[i]);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch_some(place.inbox, 2), 2);
    CHECK(told[1].times == 1 && told[2].times == 0);
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch_some(place.inbox, 100), 3);
    CHECK(!is_readable(place.inbox));
    for (size_t i = 0; i < COUNT_OF(told); i++)
        drop_told(&told[i]);
    place_close(&place);
}

/* For who waits for edges, that is. */
TEST(a_burst_is_one_event)
{
    struct place place;
    struct told told[50];
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int fd = -1, loop = epoll_create1(EPOLL_CLOEXEC);
    memset(told, 0, sizeof told);
    place_open(&place);
    CHECK_STATUS(aside_inbox_fd(place.inbox, &fd), ASIDE_OK);
    CHECK_INT(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event), 0);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT_OF(told); i++)
            place_wait(&place, &told[i]);
        CHECK_INT(epoll_wait(loop, &event, 1, 0), 0);
        complete(&place.held, "fetched");
        CHECK_INT(epoll_wait(loop, &event, 1, 0), 1);
        CHECK_INT(epoll_wait(loop, &event, 1, 0), 0);
        CHECK_INT(dispatch(place.inbox), COUNT_OF(told));
        CHECK_STATUS(aside_delete(place.cache, ASIDE_STR("k")), ASIDE_OK);
    }
    for (size_t i = 0; i < COUNT_OF(told); i++)
        drop_told(&told[i]);
    close(loop);
    place_close(&place);
}

TEST(loops_callbacks_and_callers_that_wait_share_one_fetch)
{
    struct place place;
    struct told led = {0}, other = {0}, plain = {0};
    struct caller caller;
    place_open(&place);
    aside_inbox *second = inbox_open();
    place_wait(&place, &led);
    begin_pending(&other, place.cache, "k", &place.call, second);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    caller_init(&caller, place.cache, "k", hold_fetch, &place.held);
    caller_start(&caller);
    WAIT_UNTIL(STAT(place.cache, waiters_now) == 4);
    complete(&place.held, "fetched");
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    CHECK_INT(plain.times, 1); /* by who completed it, before that returned */
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(dispatch(second), 1);
    CHECK_INT(place.held.fetches, 1);
    CHECK(led.result.value == other.result.value && led.result.value == plain.result.value);
    CHECK(led.result.value == caller.result.value);
    CHECK(led.result.shared && other.result.shared && plain.result.shared && caller.result.shared);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_JOINED);
    caller_drop(&caller);
    check_value(&led, ASIDE_OUTCOME_FETCHED, "fetched");
    check_value(&other, ASIDE_OUTCOME_JOINED, "fetched");
    check_value(&plain, ASIDE_OUTCOME_JOINED, "fetched");
    CHECK_INT(STAT(place.cache, shared), 4);
    aside_inbox_free(second);
    place_close(&place);
}

TEST(a_loop_joins_who_waits_and_who_waits_leads)
{
    struct place place;
    struct source source;
    struct caller leader;
    struct told told = {0};
    place_open(&place);
    source_init(&source, "fetched", true);
    lead_to_gate(&leader, place.cache, "k", &source);
    place_wait(&place, &told);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    dispatch_until(place.inbox, 1);
    CHECK(told.result.value == leader.result.value);
    check_value(&told, ASIDE_OUTCOME_JOINED, "fetched");
    CHECK_INT(place.held.fetches, 0);
    caller_drop(&leader);
    place_close(&place);
}

/* ---- every answer -------------------------------------------------------------------------------- */

TEST(every_answer_of_a_fetch_arrives)
{
    static const int statuses[] = {-1, -2, -3, -4, -5, -6, -9, -10, -12, -77, -100000};
    struct place place;
    struct told told = {0};
    place_open(&place);
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        place.held.fetches = place.held.completed = 0;
        place_wait(&place, &told);
        aside_fetch *fetch = held_next(&place.held);
        CHECK_STATUS(aside_fetch_complete(fetch, (aside_status)statuses[i]), ASIDE_OK);
        aside_fetch_unref(fetch);
        CHECK_INT(dispatch(place.inbox), 1);
        check_told(&told, (aside_status)statuses[i], ASIDE_OUTCOME_FETCHED);
        CHECK_INT(told.result.ttl_left_ms, 0);
    }
    CHECK_INT(STAT(place.cache, get_async_error), COUNT_OF(statuses));
    place_close(&place);
}

TEST(a_fetch_whose_last_reference_goes_is_abandoned)
{
    struct place place;
    struct told told = {0}, plain = {0};
    place_open(&place);
    place_wait(&place, &told);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    aside_fetch_unref(held_next(&place.held));
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_ABANDONED, ASIDE_OUTCOME_FETCHED);
    check_told(&plain, ASIDE_E_ABANDONED, ASIDE_OUTCOME_JOINED);
    place_close(&place);
}

TEST(a_result_that_a_write_overtook_is_handed_over_as_fenced)
{
    struct place place;
    struct told told = {0}, later = {0};
    place_open(&place);
    place_wait(&place, &told);
    CHECK_STATUS(aside_delete(place.cache, ASIDE_STR("k")), ASIDE_MISS);
    place_wait(&place, &later);
    CHECK_INT(place.held.fetches, 2);
    complete(&place.held, "overtaken");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(told.result.fenced);
    CHECK_INT(told.result.ttl_left_ms, 0);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "overtaken");
    CHECK_STATUS(look(place.cache, "k"), ASIDE_MISS);
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(!later.result.fenced);
    check_value(&later, ASIDE_OUTCOME_FETCHED, "new");
    place_close(&place);
}

TEST(a_stale_value_answers_for_a_source_that_fails)
{
    struct place place;
    struct told told = {0};
    place_open_stale(&place, (aside_freshness){.stale_if_error_ms = 1000});
    place_wait(&place, &told);
    complete_by_failure(&place.held, 42);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(told.result.stale_cause, ASIDE_STALE_ERROR);
    CHECK_STATUS(told.result.fetch_status, ASIDE_E_FETCH);
    CHECK_INT(told.result.fetch_error, 42);
    check_value(&told, ASIDE_OUTCOME_STALE, "old");
    CHECK_INT(STAT(place.cache, stale_errors), 1);
    place_close(&place);
}

/* ---- who runs the fetch -------------------------------------------------------------------------- */

static aside_status answer_at_once(aside_fetch *fetch, void *arg)
{
    atomic_fetch_add((_Atomic int *)arg, 1);
    return aside_fetch_copy(fetch, "at once", 7);
}

/* Whether it comes at once or by the inbox. */
static void check_comes(struct place *place, struct told *told, aside_status status,
                        const char *text)
{
    if (status == ASIDE_PENDING) {
        dispatch_until(place->inbox, 1);
        CHECK_INT(told->times, 1);
    }
    CHECK_STATUS(told->status, ASIDE_OK);
    CHECK_INT(told->result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK(value_is(told->result.value, text));
    drop_told(told);
    CHECK_INT(dispatch(place->inbox), 0);
}

TEST(a_nonblocking_fetch_may_answer_at_once)
{
    struct place place;
    struct told told = {0}, plain = {0};
    _Atomic int fetches = 0;
    place_open(&place);
    place.call.fetch = answer_at_once;
    place.call.arg = (void *)&fetches;
    check_comes(&place, &told, place_begin(&place, &told), "at once");
    CHECK_INT(fetches, 1);
    CHECK_INT(STAT(place.cache, workers_now), 0);
    CHECK_STATUS(aside_delete(place.cache, ASIDE_STR("k")), ASIDE_OK);
    aside_status status = begin(&plain, place.cache, "k", &place.call, NULL);
    CHECK_INT(plain.times, status == ASIDE_PENDING); /* before this returned */
    CHECK(value_is(plain.result.value, "at once"));
    drop_told(&plain);
    place_close(&place);
}

static aside_status complete_early(aside_fetch *fetch, void *arg)
{
    (void)arg;
    aside_fetch *mine = aside_fetch_ref(fetch);
    CHECK_STATUS(aside_fetch_copy(mine, "early", 5), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(mine, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(mine);
    return ASIDE_PENDING;
}

TEST(a_fetch_may_be_completed_before_its_callback_returns)
{
    struct place place;
    struct told told = {0}, plain = {0};
    place_open(&place);
    place.call.fetch = complete_early;
    check_comes(&place, &told, place_begin(&place, &told), "early");
    CHECK_STATUS(aside_delete(place.cache, ASIDE_STR("k")), ASIDE_OK);
    aside_status status = begin(&plain, place.cache, "k", &place.call, NULL);
    CHECK_INT(plain.times, status == ASIDE_PENDING);
    CHECK(value_is(plain.result.value, "early"));
    drop_told(&plain);
    place_close(&place);
}

static void *complete_elsewhere(void *arg)
{
    complete((struct held *)arg, "from elsewhere");
    return NULL;
}

TEST(a_fetch_may_be_completed_on_another_thread)
{
    struct place place;
    struct told told = {0}, plain = {0};
    place_open(&place);
    place_wait(&place, &told);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    pthread_t thread = thread_start(complete_elsewhere, &place.held);
    dispatch_until(place.inbox, 1);
    thread_join(thread);
    CHECK(pthread_equal(told.by, pthread_self()));
    CHECK(pthread_equal(plain.by, thread));
    check_value(&told, ASIDE_OUTCOME_FETCHED, "from elsewhere");
    check_value(&plain, ASIDE_OUTCOME_JOINED, "from elsewhere");
    place_close(&place);
}

static aside_status note_thread(aside_fetch *fetch, void *arg)
{
    *(pthread_t *)arg = pthread_self();
    return aside_fetch_copy(fetch, "by whom", 7);
}

TEST(a_fetch_that_may_block_goes_to_a_worker)
{
    struct place place;
    struct told told = {0};
    pthread_t by = pthread_self();
    place_open(&place);
    place.call = (aside_call){ASIDE_CALL, .fetch = note_thread, .arg = &by};
    place_wait(&place, &told);
    dispatch_until(place.inbox, 1);
    CHECK(!pthread_equal(by, pthread_self()));
    CHECK(pthread_equal(told.by, pthread_self()));
    check_value(&told, ASIDE_OUTCOME_FETCHED, "by whom");
    place_close(&place);
}

TEST(in_a_cache_without_workers_it_runs_here)
{
    struct place place;
    struct told told = {0};
    pthread_t by;
    memset(&by, 0, sizeof by);
    aside_options options = place_options(&place);
    options.fetch_threads = 0;
    place_open_with(&place, &options);
    place.call = (aside_call){ASIDE_CALL, .fetch = note_thread, .arg = &by};
    check_comes(&place, &told, place_begin(&place, &told), "by whom");
    CHECK(pthread_equal(by, pthread_self()));
    place_close(&place);
}

static aside_status start_worker(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

static aside_status fail_to_start(void *ctx, void **worker)
{
    (void)ctx, (void)worker;
    return (aside_status)-55;
}

static aside_status answer_if_on_worker(aside_fetch *fetch, void *arg)
{
    CHECK(aside_fetch_worker(fetch) == arg);
    return aside_fetch_copy(fetch, "worker", 6);
}

TEST(with_a_start_hook_a_worker_runs_it_nonblocking_or_not)
{
    for (int nonblocking = 0; nonblocking <= 1; nonblocking++) {
        struct place place;
        struct told told = {0};
        aside_options options = place_options(&place);
        options.worker = (aside_worker){start_worker, NULL, &place};
        place_open_with(&place, &options);
        place.call.fetch = answer_if_on_worker;
        place.call.arg = &place;
        place.call.nonblocking = nonblocking;
        place_wait(&place, &told);
        dispatch_until(place.inbox, 1);
        check_value(&told, ASIDE_OUTCOME_FETCHED, "worker");
        CHECK_INT(STAT(place.cache, workers_now), 1);
        place_close(&place);
    }
}

TEST(a_start_hook_that_fails_is_told_by_the_inbox)
{
    struct place place;
    struct told told = {0};
    aside_options options = place_options(&place);
    options.worker = (aside_worker){fail_to_start, NULL, NULL};
    place_open_with(&place, &options);
    place_wait(&place, &told);
    dispatch_until(place.inbox, 1);
    check_told(&told, ASIDE_E_WORKER, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(told.result.fetch_error, -55);
    CHECK_INT(place.held.fetches, 0);
    place_close(&place);
}

/* ---- an executor of one's own -------------------------------------------------------------------- */

struct hook {
    aside_status status;
    bool runs;
    aside_job *job;
};

static aside_status submit_to_hook(void *ctx, aside_job *job)
{
    struct hook *hook = (struct hook *)ctx;
    if (hook->status == ASIDE_OK && hook->runs)
        aside_job_run(job, hook);
    else if (hook->status == ASIDE_OK)
        hook->job = job;
    return hook->status;
}

static void place_open_hooked(struct place *place, struct hook *hook)
{
    aside_options options = place_options(place);
    memset(hook, 0, sizeof *hook);
    options.submit = (aside_submit){submit_to_hook, hook};
    place_open_with(place, &options);
    place->call = (aside_call){ASIDE_CALL, .fetch = answer_if_on_worker, .arg = hook};
}

TEST(a_job_that_is_run_later_arrives_later)
{
    struct place place;
    struct hook hook;
    struct told told = {0};
    place_open_hooked(&place, &hook);
    place_wait(&place, &told);
    CHECK_INT(dispatch(place.inbox), 0);
    aside_job_run(hook.job, &hook);
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "worker");
    place_close(&place);
}

TEST(a_job_that_is_run_inside_of_the_hook_arrives_all_the_same)
{
    struct place place;
    struct hook hook;
    struct told told = {0};
    place_open_hooked(&place, &hook);
    hook.runs = true;
    check_comes(&place, &told, place_begin(&place, &told), "worker");
    place_close(&place);
}

TEST(a_job_that_is_dropped_is_told)
{
    struct place place;
    struct hook hook;
    struct told told = {0};
    place_open_hooked(&place, &hook);
    place_wait(&place, &told);
    aside_job_drop(hook.job);
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_ABANDONED, ASIDE_OUTCOME_FETCHED);
    place_close(&place);
}

TEST(a_hook_that_refuses_the_job_is_told_at_once)
{
    struct place place;
    struct hook hook;
    struct told told = {0};
    place_open_hooked(&place, &hook);
    hook.status = (aside_status)-44;
    CHECK_STATUS(place_begin(&place, &told), ASIDE_E_BUSY);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_STATUS(begin(&told, place.cache, "k", &place.call, NULL), ASIDE_E_BUSY);
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_INT(told.times, 0);
    CHECK_INT(STAT(place.cache, refused), 2);
    CHECK_INT(STAT(place.cache, misses_led), 0);
    CHECK_INT(STAT(place.cache, get_async_error), 2);
    check_all_quiet(place.cache);
    place_close(&place);
}

TEST(a_nonblocking_fetch_needs_no_executor)
{
    struct place place;
    struct hook hook;
    struct told told = {0};
    place_open_hooked(&place, &hook);
    hook.status = (aside_status)-44;
    place.call = call_held(&place.held);
    place_wait(&place, &told);
    complete(&place.held, "here");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "here");
    place_close(&place);
}

/* He runs it on his own thread, though he may leave, and waits for who completes it. */
TEST(a_caller_who_waits_for_the_nonblocking_fetch_that_he_leads_may_leave)
{
    enum { STAYS, IS_CANCELLED, IS_LATE, WAYS };
    static const aside_status want[WAYS] = {ASIDE_OK, ASIDE_E_CANCELLED, ASIDE_E_TIMEOUT};
    for (int way = 0; way < WAYS; way++) {
        struct place place;
        struct caller caller;
        place_open_clocked(&place);
        caller_init(&caller, place.cache, "k", hold_fetch, &place.held);
        caller.call.nonblocking = 1;
        caller.call.timeout_ms = 1000;
        caller.call.cancel = token_new();
        caller_start(&caller);
        WAIT_UNTIL(STAT(place.cache, waiters_now) == 1);
        CHECK_INT(place.held.fetches, 1);
        if (way == IS_CANCELLED)
            aside_cancel_fire(caller.call.cancel);
        if (way == IS_LATE)
            place_move_ms(&place, 1000);
        if (way == STAYS)
            complete(&place.held, "fetched");
        CHECK_STATUS(caller_join(&caller), want[way]);
        CHECK(way != STAYS || value_is(caller.result.value, "fetched"));
        caller_drop(&caller);
        if (way != STAYS)
            complete(&place.held, "fetched");
        CHECK(holds(place.cache, "k", "fetched"));
        CHECK_INT(STAT(place.cache, queued_now) + process_threads_named("aside-fetch"), 0);
        aside_cancel_unref(caller.call.cancel);
        place_close(&place);
    }
}

/* ---- bounds -------------------------------------------------------------------------------------- */

TEST(an_argument_of_which_there_can_be_no_copy_is_refused_for_want_of_memory)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 8, SIZE_MAX / 2 + 1, SIZE_MAX / 2};
    struct place place;
    struct told told = {0};
    place_open(&place);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        place.call.arg_size = sizes[i];
        CHECK_STATUS(place_begin(&place, &told), ASIDE_E_NOMEM);
        CHECK_STATUS(begin(&told, place.cache, "k", &place.call, NULL), ASIDE_E_NOMEM);
    }
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, refused), 2 * COUNT_OF(sizes));
    check_all_quiet(place.cache);
    place_close(&place);
}

TEST(past_max_flights_and_max_waiters_it_is_busy_at_once)
{
    struct place place;
    struct told led = {0}, joined = {0}, told = {0};
    aside_options options = place_options(&place);
    options.max_flights = 1;
    options.max_waiters = 1;
    place_open_with(&place, &options);
    place_wait(&place, &led);
    CHECK_STATUS(begin(&told, place.cache, "other", &place.call, place.inbox), ASIDE_E_BUSY);
    place_wait(&place, &joined);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_E_BUSY);
    CHECK_INT(STAT(place.cache, refused), 2);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK_INT(told.times, 0);
    drop_told(&led);
    drop_told(&joined);
    place_close(&place);
}

TEST(past_max_queued_it_is_busy_at_once)
{
    struct place place;
    struct source source;
    struct told told[3] = {{0}};
    aside_options options = place_options(&place);
    options.fetch_threads = 1;
    options.max_queued = 1;
    place_open_with(&place, &options);
    source_init(&source, "fetched", true);
    place.call = (aside_call){ASIDE_CALL, .fetch = source_fetch, .arg = &source};
    begin_pending(&told[0], place.cache, "a", &place.call, place.inbox);
    gate_wait_arrived(&source.gate, 1);
    begin_pending(&told[1], place.cache, "b", &place.call, place.inbox);
    CHECK_STATUS(begin(&told[2], place.cache, "c", &place.call, place.inbox), ASIDE_E_BUSY);
    gate_open(&source.gate);
    dispatch_until(place.inbox, 2);
    CHECK_INT(told[2].times, 0);
    drop_told(&told[0]);
    drop_told(&told[1]);
    place_close(&place);
}

TEST(a_stale_value_answers_at_once_for_a_bound_that_was_reached)
{
    struct place place;
    struct told told = {0}, other = {0};
    aside_options options = place_options(&place);
    options.clock = fake_clock_init(&place.clock);
    options.default_ttl_ms = 10;
    options.max_flights = 1;
    options.freshness.stale_if_error_ms = 1000;
    place_open_with(&place, &options);
    place_wait(&place, &told);
    complete(&place.held, "old");
    CHECK_INT(dispatch(place.inbox), 1);
    place_move_ms(&place, 30);
    begin_pending(&other, place.cache, "other", &place.call, place.inbox);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(told.result.stale_cause, ASIDE_STALE_BUSY);
    CHECK(value_is(told.result.value, "old"));
    drop_told(&told);
    complete(&place.held, "other");
    CHECK_INT(dispatch(place.inbox), 1);
    drop_told(&other);
    place_close(&place);
}
