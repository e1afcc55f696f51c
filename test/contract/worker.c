/*
 * worker.c -- who runs a fetch: the caller's thread, the library's workers and their contexts, an
 * executor of one's own; what becomes of the argument (C7); threads that can not be created (P5).
 */
#include "helpers.h"

struct where {
    pthread_t thread;
    void *worker;
    _Atomic int fetches;
};

static aside_status note_where(aside_fetch *fetch, void *arg)
{
    struct where *where = arg;
    where->thread = pthread_self();
    where->worker = aside_fetch_worker(fetch);
    atomic_fetch_add(&where->fetches, 1);
    return aside_fetch_copy(fetch, "v", 1);
}

/* One call that may leave (by a token that never fires), run on this thread. */
static aside_status ask_offloaded(aside_cache *cache, const char *key, aside_fetch_fn *fetch,
                                  void *arg, aside_result *result)
{
    struct caller caller;
    aside_cancel *token = token_new();
    caller_init(&caller, cache, key, fetch, arg);
    caller.call.cancel = token;
    caller_run(&caller);
    caller_drop(&caller);
    aside_cancel_unref(token);
    if (result != NULL)
        *result = caller.result;
    return caller.status;
}

static aside_status ask_inline(aside_cache *cache, const char *key, aside_fetch_fn *fetch,
                               void *arg)
{
    struct caller caller;
    caller_init(&caller, cache, key, fetch, arg);
    caller_run(&caller);
    caller_drop(&caller);
    return caller.status;
}

/* ---- which thread -------------------------------------------------------------------------------- */

TEST(a_caller_that_can_not_leave_fetches_on_his_own_thread)
{
    int created = threads_created();
    aside_cache *cache = open_quiet();
    struct where where = {0};
    CHECK_STATUS(ask_inline(cache, "k", note_where, &where), ASIDE_OK);
    CHECK(pthread_equal(where.thread, pthread_self()));
    CHECK(where.worker == NULL);
    CHECK_INT(threads_created(), created);
    end_cache(cache);
}

TEST(a_caller_that_may_leave_fetches_on_a_worker)
{
    aside_cache *cache = open_quiet();
    struct where where = {0};
    CHECK_STATUS(ask_offloaded(cache, "token", note_where, &where, NULL), ASIDE_OK);
    CHECK(!pthread_equal(where.thread, pthread_self()));
    where.thread = pthread_self();
    struct caller caller;
    caller_init(&caller, cache, "deadline", note_where, &where);
    caller.call.timeout_ms = 60000;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK(!pthread_equal(where.thread, pthread_self()));
    where.thread = pthread_self();
    caller_init(&caller, cache, "forever", note_where, &where);
    caller.call.timeout_ms = ASIDE_FOREVER; /* no deadline: he can not leave */
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK(pthread_equal(where.thread, pthread_self()));
    end_cache(cache);
}

TEST(there_are_never_more_workers_than_fetch_threads)
{
    enum { KEYS = 12 };
    aside_options options = quiet_options();
    options.fetch_threads = 3;
    int created = threads_created();
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source source;
    static struct caller callers[KEYS];
    static char keys[KEYS][16];
    source_init(&source, "v", true);
    for (int i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i);
        caller_ask(&callers[i], cache, keys[i], &source, token);
        caller_start(&callers[i]);
    }
    gate_wait_arrived(&source.gate, 3);
    WAIT_UNTIL(STAT(cache, queued_now) == KEYS - 3);
    CHECK_INT(STAT(cache, workers_now), 3);
    CHECK_INT(threads_created() - created, 3);
    CHECK_INT(source.fetches, 3);
    gate_open(&source.gate);
    for (int i = 0; i < KEYS; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    CHECK_INT(threads_created() - created, 3);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(without_fetch_threads_whoever_may_leave_is_refused)
{
    aside_options options = quiet_options();
    options.fetch_threads = 0;
    aside_cache *cache = open_cache(&options);
    struct where where = {0};
    CHECK_STATUS(ask_offloaded(cache, "k", note_where, &where, NULL), ASIDE_E_BUSY);
    CHECK_INT(where.fetches, 0);
    CHECK_STATUS(ask_inline(cache, "k", note_where, &where), ASIDE_OK);
    CHECK_STATUS(ask_offloaded(cache, "k", note_where, &where, NULL), ASIDE_OK); /* a hit */
    end_cache(cache);
}

/* ---- a context for each worker ------------------------------------------------------------------- */

struct pool {
    _Atomic int starts, stops;
    pthread_t threads[16];
    aside_status refuse; /* what start says instead of ASIDE_OK */
};

static aside_status worker_start(void *ctx, void **worker)
{
    struct pool *pool = ctx;
    if (pool->refuse != ASIDE_OK)
        return pool->refuse;
    int id = atomic_fetch_add(&pool->starts, 1);
    CHECK(id < 16);
    pool->threads[id] = pthread_self();
    *worker = &pool->threads[id];
    return ASIDE_OK;
}

static void worker_stop(void *ctx, void *worker)
{
    struct pool *pool = ctx;
    CHECK(pthread_equal(*(pthread_t *)worker, pthread_self()));
    atomic_fetch_add(&pool->stops, 1);
}

static aside_cache *open_with_pool(struct pool *pool, size_t threads)
{
    aside_options options = quiet_options();
    options.worker = (aside_worker){worker_start, worker_stop, pool};
    options.fetch_threads = threads;
    return open_cache(&options);
}

static aside_status check_context(aside_fetch *fetch, void *arg)
{
    pthread_t *worker = aside_fetch_worker(fetch);
    CHECK(worker != NULL);
    CHECK(pthread_equal(*worker, pthread_self())); /* the context that start made on this thread */
    return source_fetch(fetch, arg);
}

TEST(with_a_start_hook_every_fetch_runs_on_a_worker_with_its_own_context)
{
    enum { KEYS = 9 };
    struct pool pool = {0};
    aside_cache *cache = open_with_pool(&pool, 3);
    struct source source;
    static struct caller callers[KEYS];
    static char keys[KEYS][16];
    source_init(&source, "v", true);
    for (int i = 0; i < KEYS; i++) { /* these callers can not leave */
        snprintf(keys[i], sizeof keys[i], "%d", i);
        caller_init(&callers[i], cache, keys[i], check_context, &source);
        caller_start(&callers[i]);
    }
    gate_wait_arrived(&source.gate, 3);
    WAIT_UNTIL(STAT(cache, queued_now) == KEYS - 3);
    CHECK_INT(pool.starts, 3);
    gate_open(&source.gate);
    for (int i = 0; i < KEYS; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    end_cache(cache);
    WAIT_UNTIL(pool.stops == pool.starts);
    CHECK_INT(pool.starts, 3);
}

/* What a worker does at its end, on its own thread, while another thread closes. */
struct last_word {
    aside_cache *cache;
    pthread_key_t key;
    struct gate gate;
    _Atomic int closed;
};

static void close_as_well(void *arg)
{
    struct last_word *last = (struct last_word *)arg;
    gate_pass(&last->gate);
    CHECK_STATUS(aside_close(last->cache), ASIDE_OK);
    atomic_fetch_add(&last->closed, 1);
}

static aside_status start_with_context(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

static void stop_and_close(void *ctx, void *worker)
{
    CHECK(worker == ctx);
    close_as_well(worker);
}

static aside_status start_with_destructor(void *ctx, void **worker)
{
    struct last_word *last = (struct last_word *)ctx;
    *worker = ctx;
    return pthread_setspecific(last->key, last) == 0 ? ASIDE_OK : ASIDE_E_NOMEM;
}

static void *close_main(void *cache)
{
    CHECK_STATUS(aside_close((aside_cache *)cache), ASIDE_OK);
    return NULL;
}

static void check_last_word(struct last_word *last, const aside_worker *worker)
{
    struct source source;
    aside_options options = quiet_options();
    options.worker = *worker;
    options.worker.ctx = last;
    options.close_wait_ms = ASIDE_FOREVER;
    last->cache = open_cache(&options);
    last->closed = 0;
    gate_init(&last->gate);
    source_init(&source, "v", false);
    CHECK_STATUS(ask(last->cache, "k", &source), ASIDE_OK);
    pthread_t first = thread_start(close_main, last->cache);
    gate_wait_arrived(&last->gate, 1);
    CHECK_STATUS(aside_health(last->cache), ASIDE_E_CLOSED);
    gate_open(&last->gate);
    thread_join(first);
    CHECK_INT(last->closed, 1);
    aside_unref(last->cache);
}

TEST(a_stop_hook_may_close_and_waits_not_for_who_waits_for_its_worker)
{
    struct last_word last;
    const aside_worker worker = {start_with_context, stop_and_close, NULL};
    for (int round = 0; round < 20; round++)
        check_last_word(&last, &worker);
}

TEST(a_thread_specific_destructor_of_a_worker_may_close_and_waits_not_for_who_joins_it)
{
    struct last_word last;
    const aside_worker worker = {start_with_destructor, NULL, NULL};
    CHECK_INT(pthread_key_create(&last.key, close_as_well), 0);
    for (int round = 0; round < 20; round++)
        check_last_word(&last, &worker);
    CHECK_INT(pthread_key_delete(last.key), 0);
}

static aside_status exits_the_worker(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    pthread_exit(NULL);
}

TEST(a_worker_that_exits_in_a_fetch_is_stopped_and_replaced)
{
    struct pool pool = {0};
    struct where where = {0};
    aside_cache *cache = open_with_pool(&pool, 1);
    CHECK_STATUS(ask_inline(cache, "k", exits_the_worker, NULL), ASIDE_E_ABANDONED);
    CHECK_STATUS(ask_inline(cache, "k", note_where, &where), ASIDE_OK);
    CHECK(where.worker != NULL);
    CHECK_INT(pool.starts, 2);
    end_cache(cache);
    WAIT_UNTIL(pool.stops == 2);
}

TEST(a_worker_that_can_not_start_fails_the_fetch_that_it_was_made_for)
{
    struct pool pool = {.refuse = (aside_status)-42};
    struct where where = {0};
    struct caller caller;
    aside_cache *cache = open_with_pool(&pool, 2);
    caller_init(&caller, cache, "k", note_where, &where);
    CHECK_STATUS(caller_run(&caller), ASIDE_E_WORKER);
    CHECK_INT(caller.result.fetch_error, -42);
    CHECK_INT(where.fetches, 0);
    pool.refuse = ASIDE_OK; /* the database is back */
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.fetch_error, 0);
    caller_drop(&caller);
    end_cache(cache);
    WAIT_UNTIL(pool.stops == 1);
    CHECK_INT(pool.starts, 1);
}

struct nest {
    aside_cache *cache;
    struct where inner;
    void *outer;
};

static aside_status asks_another(aside_fetch *fetch, void *arg)
{
    struct nest *nest = arg;
    nest->outer = aside_fetch_worker(fetch);
    CHECK_STATUS(ask_inline(nest->cache, "inner", note_where, &nest->inner), ASIDE_OK);
    CHECK(aside_fetch_worker(fetch) == nest->outer);
    return aside_fetch_copy(fetch, "outer", 5);
}

TEST(a_nested_fetch_in_a_pool_of_one_runs_with_that_workers_context)
{
    struct pool pool = {0};
    aside_cache *cache = open_with_pool(&pool, 1);
    struct nest nest = {.cache = cache};
    CHECK_STATUS(ask_inline(cache, "outer", asks_another, &nest), ASIDE_OK);
    CHECK_INT(nest.inner.fetches, 1);
    CHECK(nest.outer == &pool.threads[0]);
    CHECK(nest.inner.worker == nest.outer);
    CHECK_INT(pool.starts, 1);
    end_cache(cache);
    WAIT_UNTIL(pool.stops == 1);
}

static aside_status asks_for_its_end(aside_fetch *fetch, void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    (void)ask_inline(cache, "inner", exits_the_worker, NULL);
    return aside_fetch_copy(fetch, "never", 5);
}

/* The only worker runs the inner fetch itself, which ends it. */
TEST(a_lookup_is_counted_though_the_fetch_that_it_runs_for_lack_of_a_worker_ends_its_thread)
{
    struct pool pool = {0};
    aside_cache *cache = open_with_pool(&pool, 1);
    CHECK_STATUS(ask_inline(cache, "outer", asks_for_its_end, cache), ASIDE_E_ABANDONED);
    WAIT_UNTIL(pool.stops == 1);
    CHECK_INT(STAT(cache, misses_led), 2);
    CHECK_INT(STAT(cache, misses_joined), 0);
    end_cache(cache);
}

/* ---- threads that can not be created ------------------------------------------------------------- */

TEST(without_threads_the_reaper_is_an_error_and_the_rest_works_inline)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = NULL;
    process_fail_thread(1, true);
    CHECK_STATUS(aside_open(&cache, &options), ASIDE_E_THREAD);
    CHECK(cache == NULL);
    options.reaper_interval_ms = 0;
    CHECK_STATUS(aside_open(&cache, &options), ASIDE_OK);
    struct where where = {0};
    CHECK_STATUS(ask_inline(cache, "k", note_where, &where), ASIDE_OK);
    CHECK(pthread_equal(where.thread, pthread_self()));
    CHECK_STATUS(ask_offloaded(cache, "other", note_where, &where, NULL), ASIDE_E_BUSY);
    CHECK_INT(where.fetches, 1);
    CHECK(process_thread_calls() >= 2);
    process_fail_thread(0, false);
    CHECK_STATUS(ask_offloaded(cache, "other", note_where, &where, NULL), ASIDE_OK);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    end_cache(cache);
}

TEST(with_a_start_hook_and_no_thread_every_caller_is_refused)
{
    struct pool pool = {0};
    struct where where = {0};
    aside_cache *cache = open_with_pool(&pool, 2);
    process_fail_thread(1, true);
    CHECK_STATUS(ask_inline(cache, "k", note_where, &where), ASIDE_E_BUSY);
    CHECK_INT(pool.starts, 0);
    CHECK_INT(where.fetches, 0);
    process_fail_thread(0, false);
    CHECK_STATUS(ask_inline(cache, "k", note_where, &where), ASIDE_OK);
    end_cache(cache);
}

/* ---- the argument -------------------------------------------------------------------------------- */

struct argument {
    struct gate *gate;
    char text[32];
};

static aside_status answer_argument(aside_fetch *fetch, void *arg)
{
    struct argument *argument = arg;
    if (argument->gate != NULL)
        gate_pass(argument->gate);
    aside_status status = aside_fetch_copy(fetch, argument->text, strlen(argument->text));
    memset(argument->text, '!', sizeof argument->text - 1); /* the copy is the fetch's own */
    return status;
}

TEST(the_fetch_sees_a_copy_of_the_argument)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct gate gate;
    struct caller caller;
    struct argument argument = {&gate, "at the call"};
    gate_init(&gate);
    caller_init(&caller, cache, "k", answer_argument, &argument);
    caller.call.arg_size = sizeof argument;
    caller.call.cancel = token;
    caller_start(&caller);
    gate_wait_arrived(&gate, 1);
    aside_cancel_fire(token); /* the caller leaves, and its argument goes with it */
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    memset(&argument, '-', sizeof argument);
    gate_open(&gate);
    WAIT_UNTIL(holds(cache, "k", "at the call"));
    aside_cancel_unref(token);
    struct argument inlined = {NULL, "inline"};
    caller_init(&caller, cache, "inline", answer_argument, &inlined);
    caller.call.arg_size = sizeof inlined;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "inline"));
    CHECK(strcmp(inlined.text, "inline") == 0);
    caller_drop(&caller);
    end_cache(cache);
}

struct counted_arg {
    struct source source; /* first: the fetch takes it for one */
    _Atomic int retained, released;
};

static void retain(void *arg)
{
    struct counted_arg *counted = arg;
    CHECK_INT(atomic_fetch_add(&counted->retained, 1), 0);
}

static void release(void *arg)
{
    struct counted_arg *counted = arg;
    CHECK_INT(counted->retained, 1);
    CHECK_INT(counted->source.finished, counted->source.fetches); /* not under a running fetch */
    CHECK_INT(atomic_fetch_add(&counted->released, 1), 0);
}

static void counted_init(struct counted_arg *counted, struct caller *caller, aside_cache *cache,
                         const char *key, aside_cancel *token)
{
    source_init(&counted->source, "v", false);
    counted->retained = counted->released = 0;
    caller_ask(caller, cache, key, &counted->source, token);
    caller->call.arg = counted;
    caller->call.arg_retain = retain;
    caller->call.arg_release = release;
}

TEST(the_argument_is_retained_and_released_once_by_a_led_flight)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct counted_arg counted;
    struct caller caller;
    counted_init(&counted, &caller, cache, "k", token);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(counted.retained, 1);
    WAIT_UNTIL(counted.released == 1);
    caller_drop(&caller);
    counted_init(&counted, &caller, cache, "k", token); /* a hit keeps nothing */
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(counted.retained, 0);
    caller_drop(&caller);
    counted_init(&counted, &caller, cache, "inline", NULL); /* balanced, whether kept or not */
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(counted.retained, counted.released);
    caller_drop(&caller);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(the_argument_of_a_joiner_or_of_one_who_is_refused_is_released_if_it_was_retained)
{
    aside_options options = quiet_options();
    options.fetch_threads = 1;
    options.max_queued = 1;
    options.max_waiters = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source held, busy;
    struct caller leader, worker, queued, callers[5];
    struct counted_arg counted[5];
    static const char *const keys[5] = {"k", "k", "third", "other", "k"};
    source_init(&held, "held", true);
    source_init(&busy, "busy", true);
    lead_to_gate(&leader, cache, "k", &held);
    caller_ask(&worker, cache, "busy", &busy, token); /* takes the only worker */
    caller_start(&worker);
    gate_wait_arrived(&busy.gate, 1);
    caller_ask(&queued, cache, "queued", &busy, token);
    caller_start(&queued);
    WAIT_UNTIL(STAT(cache, queued_now) == 1 && STAT(cache, waiters_now) == 2);
    for (int i = 0; i < 5; i++)
        counted_init(&counted[i], &callers[i], cache, keys[i], token);
    caller_start(&callers[0]); /* joins */
    WAIT_UNTIL(STAT(cache, waiters_now) == 3);
    CHECK_STATUS(caller_run(&callers[1]), ASIDE_E_BUSY); /* one waiter too many */
    CHECK_STATUS(caller_run(&callers[2]), ASIDE_E_BUSY); /* one in the queue too many */
    callers[3].call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(caller_run(&callers[3]), ASIDE_MISS);
    aside_cancel *fired = token_new();
    aside_cancel_fire(fired);
    callers[4].call.cancel = fired;
    CHECK_STATUS(caller_run(&callers[4]), ASIDE_E_CANCELLED);
    aside_cancel_unref(fired);
    gate_open(&held.gate);
    gate_open(&busy.gate);
    CHECK_STATUS(caller_join(&callers[0]), ASIDE_OK);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&worker), ASIDE_OK);
    CHECK_STATUS(caller_join(&queued), ASIDE_OK);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(counted[i].retained, counted[i].released);
        CHECK_INT(counted[i].source.fetches, 0);
    }
    caller_drop(&callers[0]);
    caller_drop(&leader);
    caller_drop(&worker);
    caller_drop(&queued);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_stack_that_is_too_small_for_any_thread_is_made_larger)
{
    static const size_t stacks[] = {0, 1, 4097, 1 << 18};
    for (size_t i = 0; i < COUNT_OF(stacks); i++) {
        aside_options options = ASIDE_OPTIONS_INIT; /* with a reaper */
        options.thread_stack_bytes = stacks[i];
        aside_cache *cache = open_cache(&options);
        struct caller caller;
        struct source source;
        source_init(&source, "v", false);
        caller_ask(&caller, cache, "k", &source, NULL);
        caller.call.timeout_ms = 60000;
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        caller_drop(&caller);
        end_cache(cache);
    }
}
