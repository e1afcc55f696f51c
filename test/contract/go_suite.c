/*
 * go_suite.c -- the cases of the test suite of Go's singleflight (golang.org/x/sync), in C terms, for
 * aside_group_do(). Each test has the name of its Go case, and what it looks at more closely behind.
 *
 *   Go                         here
 *   g.Do                       a call with neither token nor deadline: it fetches on its own thread
 *   g.DoChan                   a call on another thread, with a token: a worker, or submit, fetches
 *   panic                      a fetch that ends without an answer
 *   runtime.Goexit             pthread_exit() in the fetch, and deferred cancellation
 *   "Do hangs"                 the test's time limit
 *
 * Not here: TestPanicErrorUnwrap, for what was thrown has no counterpart.
 */
#include "helpers.h"

#include <aside/group.h>

/* ---- callers of a group -------------------------------------------------------------------------- */

struct goer {
    aside_group *group;
    aside_call call;
    aside_result result;
    aside_status status;
    pthread_t thread;
    _Atomic bool done;
};

static aside_group *group_open(const aside_options *options)
{
    aside_group *group = NULL;
    CHECK_STATUS(aside_group_new(&group, options), ASIDE_OK);
    CHECK(group != NULL);
    return group;
}

static void group_end(aside_group *group)
{
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

static aside_stats group_stats(aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats;
}

#define GSTAT(group, member) (group_stats(group).member)

/* All ask for "key". With a token: DoChan, else Do. */
static void goer_init(struct goer *goer, aside_group *group, aside_fetch_fn *fetch, void *arg,
                      aside_cancel *token)
{
    memset(goer, 0, sizeof *goer);
    goer->group = group;
    goer->call.struct_size = sizeof goer->call;
    goer->call.fetch = fetch;
    goer->call.arg = arg;
    goer->call.cancel = token;
    goer->result.struct_size = sizeof goer->result;
}

static aside_status goer_run(struct goer *goer)
{
    goer->status = aside_group_do(goer->group, ASIDE_STR("key"), &goer->call, &goer->result);
    CHECK((goer->status == ASIDE_OK) == (goer->result.value != NULL));
    atomic_store(&goer->done, true);
    return goer->status;
}

static void *goer_main(void *arg)
{
    goer_run((struct goer *)arg);
    return NULL;
}

static void goer_start(struct goer *goer)
{
    goer->thread = thread_start(goer_main, goer);
}

static aside_status goer_join(struct goer *goer)
{
    thread_join(goer->thread);
    return goer->status;
}

static void goer_drop(struct goer *goer)
{
    aside_value_unref(goer->result.value);
    goer->result.value = NULL;
}

/* The group works for whoever comes next. */
static void check_usable(aside_group *group, aside_cancel *token)
{
    struct source source;
    struct goer goer;
    source_init(&source, "next", false);
    for (int i = 0; i < 2; i++) {
        goer_init(&goer, group, source_fetch, &source, i ? token : NULL);
        CHECK_STATUS(goer_run(&goer), ASIDE_OK);
        CHECK(value_is(goer.result.value, "next"));
        CHECK_INT(goer.result.outcome, ASIDE_OUTCOME_FETCHED);
        goer_drop(&goer);
    }
    CHECK_INT(source.fetches, 2);
    WAIT_UNTIL(GSTAT(group, flights_now) == 0);
    CHECK_INT(GSTAT(group, waiters_now), 0);
}

/* ---- TestDo, TestDoErr --------------------------------------------------------------------------- */

TEST(TestDo)
{
    aside_group *group = group_open(NULL);
    struct source source;
    struct goer goer;
    source_init(&source, "bar", false);
    goer_init(&goer, group, source_fetch, &source, NULL);
    CHECK_STATUS(goer_run(&goer), ASIDE_OK);
    CHECK(value_is(goer.result.value, "bar"));
    CHECK_INT(goer.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(goer.result.shared, 0);
    CHECK_INT(goer.result.fetch_error, 0);
    goer_drop(&goer);
    CHECK_INT(source.fetches, 1);
    group_end(group);
}

static aside_status fail_with_42(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_fail(fetch, 42);
}

TEST(TestDoErr)
{
    aside_group *group = group_open(NULL);
    struct goer goer;
    goer_init(&goer, group, fail_with_42, NULL, NULL);
    CHECK_STATUS(goer_run(&goer), ASIDE_E_FETCH);
    CHECK_INT(goer.result.fetch_error, 42);
    CHECK(goer.result.value == NULL);
    group_end(group);
}

TEST(TestDoErr_with_a_status_of_the_fetchs_own)
{
    aside_group *group = group_open(NULL);
    struct source source;
    struct goer goer;
    source_init(&source, NULL, false);
    source.status = (aside_status)-77;
    goer_init(&goer, group, source_fetch, &source, NULL);
    CHECK_STATUS(goer_run(&goer), (aside_status)-77);
    CHECK_INT(goer.result.fetch_error, 0);
    CHECK(goer.result.value == NULL);
    group_end(group);
}

/* ---- TestDoDupSuppress --------------------------------------------------------------------------- */

/* Ten callers, who are all there before the fetch goes on: Go wants fewer fetches than ten, we one. */
static void check_suppressed(aside_cancel *token)
{
    enum { CALLERS = 10 };
    aside_group *group = group_open(NULL);
    struct source source;
    struct goer goers[CALLERS];
    int led = 0;
    source_init(&source, "bar", true);
    for (int i = 0; i < CALLERS; i++) {
        goer_init(&goers[i], group, source_fetch, &source, token);
        goer_start(&goers[i]);
    }
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(GSTAT(group, waiters_now) == CALLERS - (token == NULL));
    gate_open(&source.gate);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_STATUS(goer_join(&goers[i]), ASIDE_OK);
        CHECK(value_is(goers[i].result.value, "bar"));
        CHECK_INT(goers[i].result.shared, 1);
        led += goers[i].result.outcome == ASIDE_OUTCOME_FETCHED;
    }
    for (int i = 0; i < CALLERS; i++)
        goer_drop(&goers[i]);
    CHECK_INT(led, 1);
    CHECK_INT(source.fetches, 1);
    group_end(group);
}

TEST(TestDoDupSuppress)
{
    check_suppressed(NULL);
}

TEST(TestDoDupSuppress_by_DoChan)
{
    aside_cancel *token = token_new();
    check_suppressed(token);
    aside_cancel_unref(token);
}

/* As Go does it: nobody knows who is inside already when the fetch goes on. */
TEST(TestDoDupSuppress_with_callers_that_may_come_too_late)
{
    enum { CALLERS = 10 };
    for (long round = 0; round < test_rounds(100); round++) {
        aside_group *group = group_open(NULL);
        struct source source;
        struct goer goers[CALLERS];
        source_init(&source, "bar", true);
        perturb(test_random() | 1);
        for (int i = 0; i < CALLERS; i++) {
            goer_init(&goers[i], group, source_fetch, &source, NULL);
            goer_start(&goers[i]);
        }
        gate_wait_arrived(&source.gate, 1);
        gate_open(&source.gate);
        int led = 0;
        for (int i = 0; i < CALLERS; i++) {
            CHECK_STATUS(goer_join(&goers[i]), ASIDE_OK);
            CHECK(value_is(goers[i].result.value, "bar"));
            led += goers[i].result.outcome == ASIDE_OUTCOME_FETCHED;
            goer_drop(&goers[i]);
        }
        perturb(0);
        CHECK(led >= 1 && led <= CALLERS);
        CHECK_INT(source.fetches, led);
        group_end(group);
    }
}

/* ---- TestForget ---------------------------------------------------------------------------------- */

/* The first, forgotten fetch ends; the second stays the one that newcomers join. */
static void check_forget(bool wait_for_first)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source sources[3];
    struct goer goers[3];
    source_init(&sources[0], "1", true);
    source_init(&sources[1], "2", true);
    source_init(&sources[2], "3", false);
    for (int i = 0; i < 3; i++)
        goer_init(&goers[i], group, source_fetch, &sources[i], i ? token : NULL);
    goer_start(&goers[0]);
    gate_wait_arrived(&sources[0].gate, 1);
    CHECK_STATUS(aside_group_forget(group, ASIDE_STR("key")), ASIDE_OK);
    goer_start(&goers[1]);
    gate_wait_arrived(&sources[1].gate, 1);
    gate_open(&sources[0].gate);
    WAIT_UNTIL(atomic_load(&sources[0].finished) == 1);
    if (wait_for_first)
        CHECK_STATUS(goer_join(&goers[0]), ASIDE_OK);
    goer_start(&goers[2]);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 2);
    gate_open(&sources[1].gate);
    if (!wait_for_first)
        CHECK_STATUS(goer_join(&goers[0]), ASIDE_OK);
    CHECK_STATUS(goer_join(&goers[1]), ASIDE_OK);
    CHECK_STATUS(goer_join(&goers[2]), ASIDE_OK);
    CHECK(value_is(goers[0].result.value, "1"));
    CHECK(value_is(goers[1].result.value, "2"));
    CHECK(value_is(goers[2].result.value, "2"));
    CHECK(goers[1].result.value == goers[2].result.value);
    CHECK_INT(goers[0].result.fenced, 1);
    CHECK_INT(goers[2].result.fenced, 0);
    CHECK_INT(goers[2].result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(sources[2].fetches, 0);
    for (int i = 0; i < 3; i++)
        goer_drop(&goers[i]);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(TestForget)
{
    check_forget(true);
}

TEST(TestForget_while_the_first_is_on_its_way_out)
{
    for (long round = 0; round < test_rounds(50); round++) {
        perturb(test_random() | 1);
        check_forget(false);
        perturb(0);
    }
}

/* ---- TestDoChan ---------------------------------------------------------------------------------- */

TEST(TestDoChan)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source source;
    struct goer goer;
    source_init(&source, "bar", false);
    goer_init(&goer, group, source_fetch, &source, token);
    goer_start(&goer);
    CHECK_STATUS(goer_join(&goer), ASIDE_OK);
    CHECK(value_is(goer.result.value, "bar"));
    CHECK_INT(goer.result.shared, 0);
    goer_drop(&goer);
    CHECK_INT(source.fetches, 1);
    aside_cancel_unref(token);
    group_end(group);
}

static aside_status keep_job(void *ctx, aside_job *job)
{
    atomic_store((_Atomic(aside_job *) *)ctx, job);
    return ASIDE_OK;
}

static void *run_job(void *job)
{
    aside_job_run((aside_job *)job, NULL);
    return NULL;
}

static aside_group *open_with_executor(_Atomic(aside_job *) *job)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    atomic_store(job, NULL);
    options.submit.fn = keep_job;
    options.submit.ctx = (void *)job;
    return group_open(&options);
}

TEST(TestDoChan_by_an_executor)
{
    static _Atomic(aside_job *) job;
    aside_group *group = open_with_executor(&job);
    aside_cancel *token = token_new();
    struct source source;
    struct goer goer;
    source_init(&source, "bar", false);
    goer_init(&goer, group, source_fetch, &source, token);
    goer_start(&goer);
    WAIT_UNTIL(atomic_load(&job) != NULL);
    CHECK_INT(source.fetches, 0);
    thread_join(thread_start(run_job, atomic_load(&job)));
    CHECK_STATUS(goer_join(&goer), ASIDE_OK);
    CHECK(value_is(goer.result.value, "bar"));
    goer_drop(&goer);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- TestPanicDo, TestPanicDoChan, TestPanicDoSharedByDoChan ------------------------------------- */

/* It says that somebody will complete it, and nobody can: it has ended without an answer. */
static aside_status end_without_an_answer(aside_fetch *fetch, void *arg)
{
    struct source *source = (struct source *)arg;
    (void)fetch;
    atomic_fetch_add(&source->fetches, 1);
    if (source->gated)
        gate_pass(&source->gate);
    return ASIDE_PENDING;
}

enum { PANICKING = 5 };

/* Each of them leads or joins, and is told the same; with a gate they are all of one flight. */
static void check_panic(aside_fetch_fn *fetch, bool gated, aside_cancel *token)
{
    aside_group *group = group_open(NULL);
    struct source source;
    struct goer goers[PANICKING];
    source_init(&source, NULL, gated);
    for (int i = 0; i < PANICKING; i++) {
        goer_init(&goers[i], group, fetch, &source, token);
        goer_start(&goers[i]);
    }
    if (gated) {
        gate_wait_arrived(&source.gate, 1);
        WAIT_UNTIL(GSTAT(group, waiters_now) == PANICKING - (token == NULL));
        gate_open(&source.gate);
    }
    for (int i = 0; i < PANICKING; i++)
        CHECK_STATUS(goer_join(&goers[i]), ASIDE_E_ABANDONED);
    CHECK(source.fetches >= 1 && source.fetches <= (gated ? 1 : PANICKING));
    WAIT_UNTIL(GSTAT(group, fetch_abandoned) == (uint64_t)source.fetches);
    aside_cancel *next = token_new();
    check_usable(group, next);
    aside_cancel_unref(next);
    group_end(group);
}

TEST(TestPanicDo)
{
    check_panic(end_without_an_answer, false, NULL);
}

TEST(TestPanicDo_in_one_flight)
{
    check_panic(end_without_an_answer, true, NULL);
}

TEST(TestPanicDoChan)
{
    aside_cancel *token = token_new();
    check_panic(end_without_an_answer, false, token);
    check_panic(end_without_an_answer, true, token);
    aside_cancel_unref(token);
}

TEST(TestPanicDoChan_by_an_executor_that_drops_the_job)
{
    static _Atomic(aside_job *) job;
    aside_group *group = open_with_executor(&job);
    aside_cancel *token = token_new();
    struct source source;
    struct goer goers[PANICKING];
    source_init(&source, "never", false);
    for (int i = 0; i < PANICKING; i++) {
        goer_init(&goers[i], group, source_fetch, &source, token);
        goer_start(&goers[i]);
    }
    WAIT_UNTIL(atomic_load(&job) != NULL && GSTAT(group, waiters_now) == PANICKING);
    aside_job_drop(atomic_load(&job));
    for (int i = 0; i < PANICKING; i++)
        CHECK_STATUS(goer_join(&goers[i]), ASIDE_E_ABANDONED);
    CHECK_INT(source.fetches, 0);
    aside_cancel_unref(token);
    group_end(group);
}

/* The leader is one of Do; who came by DoChan is told, and his own fetch does not run. */
static void check_panic_shared(aside_fetch_fn *fetch, bool leader_returns)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source ends, never;
    struct goer leader, joiner;
    source_init(&ends, NULL, true);
    source_init(&never, "never", false);
    goer_init(&leader, group, fetch, &ends, NULL);
    goer_init(&joiner, group, source_fetch, &never, token);
    goer_start(&leader);
    gate_wait_arrived(&ends.gate, 1);
    goer_start(&joiner);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
    gate_open(&ends.gate);
    CHECK_STATUS(goer_join(&joiner), ASIDE_E_ABANDONED);
    CHECK_INT(joiner.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(never.fetches, 0);
    thread_join(leader.thread);
    CHECK_INT(leader.done, leader_returns);
    if (leader_returns)
        CHECK_STATUS(leader.status, ASIDE_E_ABANDONED);
    check_usable(group, token);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(TestPanicDoSharedByDoChan)
{
    check_panic_shared(end_without_an_answer, true);
}

/* ---- TestGoexitDo -------------------------------------------------------------------------------- */

static aside_status exit_thread(aside_fetch *fetch, void *arg)
{
    struct source *source = (struct source *)arg;
    (void)fetch;
    atomic_fetch_add(&source->fetches, 1);
    if (source->gated)
        gate_pass(&source->gate);
    pthread_exit(NULL);
}

/* Those who lead end with their fetch; those who join are told. */
static void check_goexit(bool gated)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source source;
    struct goer goers[PANICKING];
    int ended = 0;
    source_init(&source, NULL, gated);
    for (int i = 0; i < PANICKING; i++) {
        goer_init(&goers[i], group, exit_thread, &source, NULL);
        goer_start(&goers[i]);
    }
    if (gated) {
        gate_wait_arrived(&source.gate, 1);
        WAIT_UNTIL(GSTAT(group, waiters_now) == PANICKING - 1);
        gate_open(&source.gate);
    }
    for (int i = 0; i < PANICKING; i++) {
        thread_join(goers[i].thread);
        ended += !goers[i].done;
        if (goers[i].done)
            CHECK_STATUS(goers[i].status, ASIDE_E_ABANDONED);
    }
    CHECK(ended >= 1);
    CHECK_INT(ended, source.fetches);
    CHECK(!gated || ended == 1);
    check_usable(group, token);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(TestGoexitDo)
{
    check_goexit(false);
}

TEST(TestGoexitDo_in_one_flight)
{
    check_goexit(true);
}

/* The worker ends, and all callers return. */
TEST(TestGoexitDo_by_DoChan)
{
    aside_cancel *token = token_new();
    check_panic(exit_thread, false, token);
    check_panic(exit_thread, true, token);
    aside_cancel_unref(token);
}

TEST(TestGoexitDo_shared_by_DoChan)
{
    check_panic_shared(exit_thread, false);
}

static aside_status run_until_cancelled(aside_fetch *fetch, void *arg)
{
    struct source *source = (struct source *)arg;
    (void)fetch;
    atomic_fetch_add(&source->fetches, 1);
    while (source->fetches > 0) { /* for ever */
        pthread_testcancel();     /* here and nowhere else: sanitizers do not see through others */
        sched_yield();
    }
    return ASIDE_E_FETCH;
}

TEST(TestGoexitDo_by_cancellation_of_the_thread)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source source;
    struct goer goers[PANICKING];
    source_init(&source, NULL, false);
    for (int i = 0; i < PANICKING; i++) {
        goer_init(&goers[i], group, run_until_cancelled, &source, NULL);
        goer_start(&goers[i]);
        WAIT_UNTIL(i ? GSTAT(group, waiters_now) == (uint64_t)i : atomic_load(&source.fetches) > 0);
    }
    pthread_cancel(goers[0].thread);
    CHECK(thread_join(goers[0].thread) == PTHREAD_CANCELED);
    CHECK(!goers[0].done);
    for (int i = 1; i < PANICKING; i++)
        CHECK_STATUS(goer_join(&goers[i]), ASIDE_E_ABANDONED);
    CHECK_INT(source.fetches, 1);
    check_usable(group, token);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- ExampleGroup -------------------------------------------------------------------------------- */

TEST(ExampleGroup)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source first, second;
    struct goer goers[2];
    source_init(&first, "func 1", true);
    source_init(&second, "func 2", true);
    goer_init(&goers[0], group, source_fetch, &first, token);
    goer_init(&goers[1], group, source_fetch, &second, token);
    goer_start(&goers[0]);
    gate_wait_arrived(&first.gate, 1);
    goer_start(&goers[1]);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 2);
    gate_open(&first.gate);
    gate_open(&second.gate);
    CHECK_STATUS(goer_join(&goers[0]), ASIDE_OK);
    CHECK_STATUS(goer_join(&goers[1]), ASIDE_OK);
    CHECK_INT(goers[1].result.shared, 1);
    CHECK(goers[0].result.value == goers[1].result.value);
    CHECK(value_is(goers[0].result.value, "func 1"));
    CHECK_INT(second.fetches, 0);
    goer_drop(&goers[0]);
    goer_drop(&goers[1]);
    aside_cancel_unref(token);
    group_end(group);
}
