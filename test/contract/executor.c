/*
 * executor.c -- a submit function of one's own instead of the library's workers: it runs a job at
 * once, later on another thread, drops it, or does not take it.
 */
#include "helpers.h"

enum mode { RUN_NOW, RUN_LATER, DROP_NOW, DROP_LATER, REFUSE };

struct executor {
    enum mode mode;
    _Atomic(aside_job *) job; /* taken and not yet used up */
    _Atomic int submitted;
    int context; /* its address is the worker */
};

static aside_status submit(void *ctx, aside_job *job)
{
    struct executor *executor = ctx;
    atomic_fetch_add(&executor->submitted, 1);
    switch (executor->mode) {
    case RUN_NOW: aside_job_run(job, &executor->context); return ASIDE_OK;
    case DROP_NOW: aside_job_drop(job); return ASIDE_OK;
    case REFUSE: return (aside_status)-9;
    default: atomic_store(&executor->job, job); return ASIDE_OK;
    }
}

static aside_cache *open_with_executor(struct executor *executor)
{
    aside_options options = quiet_options();
    options.submit = (aside_submit){submit, executor};
    return open_cache(&options);
}

struct ran {
    pthread_t thread;
    void *worker;
    int fetches;
};

static aside_status note_run(aside_fetch *fetch, void *arg)
{
    struct ran *ran = arg;
    ran->thread = pthread_self();
    ran->worker = aside_fetch_worker(fetch);
    ran->fetches++;
    return aside_fetch_copy(fetch, "v", 1);
}

static void ask_executor(struct caller *caller, aside_cache *cache, const char *key,
                         struct ran *ran, aside_cancel *token)
{
    caller_init(caller, cache, key, note_run, ran);
    caller->call.cancel = token;
}

TEST(a_job_that_is_run_at_once_answers_its_caller)
{
    struct executor executor = {.mode = RUN_NOW};
    aside_cache *cache = open_with_executor(&executor);
    aside_cancel *token = token_new();
    struct ran ran = {0};
    struct caller caller;
    int created = threads_created();
    ask_executor(&caller, cache, "k", &ran, token);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "v"));
    caller_drop(&caller);
    CHECK(pthread_equal(ran.thread, pthread_self()));
    CHECK(ran.worker == &executor.context);
    CHECK_INT(threads_created(), created); /* no workers of the library's */
    CHECK(holds(cache, "k", "v"));
    aside_cancel_unref(token);
    end_cache(cache);
}

static void *run_job(void *arg)
{
    struct executor *executor = arg;
    aside_job_run(atomic_load(&executor->job), &executor->context);
    return NULL;
}

TEST(a_job_that_is_run_later_on_another_thread_answers_all_callers)
{
    struct executor executor = {.mode = RUN_LATER};
    aside_cache *cache = open_with_executor(&executor);
    aside_cancel *token = token_new();
    struct ran ran = {0};
    struct caller callers[3];
    for (unsigned i = 0; i < COUNT_OF(callers); i++) {
        ask_executor(&callers[i], cache, "k", &ran, token);
        caller_start(&callers[i]);
        WAIT_UNTIL(STAT(cache, waiters_now) == i + 1);
    }
    WAIT_UNTIL(atomic_load(&executor.job) != NULL);
    CHECK_INT(ran.fetches, 0);
    pthread_t runner = thread_start(run_job, &executor);
    for (unsigned i = 0; i < COUNT_OF(callers); i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    CHECK(pthread_equal(ran.thread, runner));
    thread_join(runner);
    CHECK_INT(ran.fetches, 1);
    CHECK_INT(executor.submitted, 1);
    CHECK(ran.worker == &executor.context);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_job_that_is_run_after_all_callers_have_left_is_stored)
{
    struct executor executor = {.mode = RUN_LATER};
    aside_cache *cache = open_with_executor(&executor);
    aside_cancel *token = token_new();
    struct ran ran = {0};
    struct caller caller;
    ask_executor(&caller, cache, "k", &ran, token);
    caller_start(&caller);
    WAIT_UNTIL(atomic_load(&executor.job) != NULL);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    run_job(&executor);
    CHECK_INT(ran.fetches, 1);
    CHECK(holds(cache, "k", "v"));
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_job_that_is_dropped_is_abandoned)
{
    struct executor executor = {.mode = DROP_NOW};
    aside_cache *cache = open_with_executor(&executor);
    aside_cancel *token = token_new();
    struct ran ran = {0};
    struct caller callers[2];
    ask_executor(&callers[0], cache, "k", &ran, token);
    CHECK_STATUS(caller_run(&callers[0]), ASIDE_E_ABANDONED);
    executor.mode = DROP_LATER;
    for (unsigned i = 0; i < COUNT_OF(callers); i++) {
        ask_executor(&callers[i], cache, "k", &ran, token);
        caller_start(&callers[i]);
        WAIT_UNTIL(STAT(cache, waiters_now) == i + 1);
    }
    WAIT_UNTIL(atomic_load(&executor.job) != NULL);
    aside_job_drop(atomic_load(&executor.job));
    for (unsigned i = 0; i < COUNT_OF(callers); i++)
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_ABANDONED);
    CHECK_INT(ran.fetches, 0);
    executor.mode = RUN_NOW; /* and the key is usable at once */
    CHECK_STATUS(caller_run(&callers[0]), ASIDE_OK);
    caller_drop(&callers[0]);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_job_that_is_not_taken_is_refused_with_busy)
{
    struct executor executor = {.mode = REFUSE};
    aside_cache *cache = open_with_executor(&executor);
    aside_cancel *token = token_new();
    struct ran ran = {0};
    struct caller caller;
    ask_executor(&caller, cache, "k", &ran, token);
    CHECK_STATUS(caller_run(&caller), ASIDE_E_BUSY);
    CHECK_INT(executor.submitted, 1);
    CHECK_INT(STAT(cache, flights_now), 0);
    caller.call.cancel = NULL; /* who can not leave needs no executor */
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK(pthread_equal(ran.thread, pthread_self()));
    CHECK_INT(executor.submitted, 1);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_job_that_is_still_held_at_the_close_may_be_used_up_afterwards)
{
    for (int drop = 0; drop <= 1; drop++) {
        struct executor executor = {.mode = RUN_LATER};
        struct ledger ledger;
        aside_options options = quiet_options();
        options.submit = (aside_submit){submit, &executor};
        options.close_wait_ms = 0;
        options.alloc = ledger_init(&ledger);
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct ran ran = {0};
        struct caller caller;
        ask_executor(&caller, cache, "k", &ran, token);
        caller_start(&caller);
        WAIT_UNTIL(atomic_load(&executor.job) != NULL);
        CHECK_STATUS(aside_close(cache), ASIDE_OK);
        CHECK_STATUS(caller_join(&caller), ASIDE_E_CLOSED);
        aside_unref(cache);
        if (drop)
            aside_job_drop(executor.job);
        else
            aside_job_run(executor.job, NULL);
        CHECK_INT(ledger.live_blocks, 0);
        aside_cancel_unref(token);
    }
}
