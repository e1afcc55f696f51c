/*
 * nested.c -- a fetch that calls the cache (F9): its own key, other keys, cycles over threads, a
 * full pool; and a result that can not be stored, which reaches the callers all the same (F10).
 */
#include "helpers.h"

/* ---- its own key --------------------------------------------------------------------------------- */

static aside_status asks_its_own_key(aside_fetch *fetch, void *arg)
{
    struct caller inner;
    caller_init(&inner, arg, "k", asks_its_own_key, arg);
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    CHECK_INT(inner.result.outcome, ASIDE_OUTCOME_NONE);
    return aside_fetch_copy(fetch, "outer", 5);
}

TEST(a_fetch_that_asks_for_its_own_key_is_told_so_at_once)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        struct caller caller;
        caller_init(&caller, cache, "k", asks_its_own_key, cache);
        caller.call.cancel = offloaded ? token : NULL;
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK(value_is(caller.result.value, "outer"));
        CHECK_INT(caller.result.fenced, 0);
        caller_drop(&caller);
        CHECK(holds(cache, "k", "outer"));
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    }
    aside_cancel_unref(token);
    end_cache(cache);
}

static aside_status asks_with_a_token(aside_fetch *fetch, void *arg)
{
    struct caller inner;
    aside_cancel *token = token_new();
    caller_init(&inner, arg, "k", asks_with_a_token, arg);
    inner.call.cancel = token;
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    inner.call.cancel = NULL;
    inner.call.timeout_ms = 60000;
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    inner.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(caller_run(&inner), ASIDE_MISS);
    aside_cancel_unref(token);
    return aside_fetch_not_found(fetch);
}

TEST(neither_a_token_nor_a_deadline_hides_the_recursion)
{
    aside_cache *cache = open_quiet();
    struct caller caller;
    caller_init(&caller, cache, "k", asks_with_a_token, cache);
    CHECK_STATUS(caller_run(&caller), ASIDE_NOT_FOUND);
    end_cache(cache);
}

static aside_status fences_itself(aside_fetch *fetch, void *arg)
{
    aside_cache *cache = arg;
    struct caller inner;
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    caller_init(&inner, cache, "k", fences_itself, cache); /* fenced, and still its own key */
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    put(cache, "k", "set inside", ASIDE_FOREVER);
    CHECK(holds(cache, "k", "set inside"));
    CHECK_STATUS(caller_run(&inner), ASIDE_OK); /* a hit is no recursion */
    CHECK(value_is(inner.result.value, "set inside"));
    caller_drop(&inner);
    return aside_fetch_copy(fetch, "fetched", 7);
}

TEST(plain_verbs_work_on_the_key_of_the_running_fetch_and_fence_it)
{
    aside_cache *cache = open_quiet();
    struct caller caller;
    caller_init(&caller, cache, "k", fences_itself, cache);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "fetched"));
    CHECK_INT(caller.result.fenced, 1);
    CHECK_INT(caller.result.ttl_left_ms, 0);
    caller_drop(&caller);
    CHECK(holds(cache, "k", "set inside"));
    end_cache(cache);
}

/* ---- other keys ---------------------------------------------------------------------------------- */

struct chain {
    aside_cache *cache;
    aside_cancel *token;
    int depth;
};

/* The fetch of "0" asks for "1", and so on; the deepest asks for every key above it. */
static aside_status asks_the_next_key(aside_fetch *fetch, void *arg)
{
    struct chain *chain = arg;
    size_t size = 0;
    const char *key = aside_fetch_key(fetch, &size);
    char next[2] = {(char)(key[0] + 1), 0};
    struct caller inner;
    if (key[0] - '0' == chain->depth) {
        for (char c = '0'; c <= key[0]; c++) {
            char above[2] = {c, 0};
            caller_init(&inner, chain->cache, above, asks_the_next_key, chain);
            CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
        }
        return aside_fetch_copy(fetch, key, 1);
    }
    caller_init(&inner, chain->cache, next, asks_the_next_key, chain);
    inner.call.cancel = chain->token;
    CHECK_STATUS(caller_run(&inner), ASIDE_OK);
    CHECK_STATUS(aside_fetch_give(fetch, inner.result.value), ASIDE_OK);
    return ASIDE_OK;
}

static void check_chain(aside_cache *cache, aside_cancel *token, int depth)
{
    struct chain chain = {cache, token, depth};
    struct caller caller;
    char deepest[2] = {(char)('0' + depth), 0};
    caller_init(&caller, cache, "0", asks_the_next_key, &chain);
    caller.call.cancel = token;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, deepest));
    caller_drop(&caller);
    CHECK_INT(aside_count(cache), depth + 1);
    CHECK_INT(STAT(cache, fetches), depth + 1);
}

TEST(fetches_may_be_nested_several_deep)
{
    aside_cache *cache = open_quiet();
    check_chain(cache, NULL, 8);
    end_cache(cache);
}

TEST(nested_fetches_do_not_starve_in_a_pool_of_one)
{
    aside_options options = quiet_options();
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    check_chain(cache, token, 8);
    CHECK(STAT(cache, workers_now) <= 1);
    aside_cancel_unref(token);
    end_cache(cache);
}

struct crossing {
    aside_cache *cache;
    const char *other;
    struct gate gate;
    aside_status inner; /* what the nested call said */
};

static aside_status asks_the_other(aside_fetch *fetch, void *arg)
{
    struct crossing *crossing = arg;
    struct caller inner;
    gate_pass(&crossing->gate);
    caller_init(&inner, crossing->cache, crossing->other, asks_the_other, arg);
    crossing->inner = caller_run(&inner);
    caller_drop(&inner);
    size_t size = 0;
    const void *key = aside_fetch_key(fetch, &size);
    return aside_fetch_copy(fetch, key, size);
}

TEST(waiting_for_one_that_waits_for_a_third_is_no_ring)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct crossing a = {.cache = cache, .other = "b"}, b = {.cache = cache, .other = "c"};
    struct caller callers[2], last;
    source_init(&source, "c", true);
    gate_init(&a.gate);
    gate_init(&b.gate);
    gate_open(&a.gate);
    gate_open(&b.gate);
    lead_to_gate(&last, cache, "c", &source);
    caller_init(&callers[0], cache, "b", asks_the_other, &b);
    caller_init(&callers[1], cache, "a", asks_the_other, &a);
    for (unsigned i = 0; i < 2; i++) {
        caller_start(&callers[i]);
        WAIT_UNTIL(STAT(cache, waiters_now) == i + 1);
    }
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&last), ASIDE_OK);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_OK);
    caller_drop(&last);
    end_cache(cache);
}

/* ---- queued fetches and threads inside a fetch --------------------------------------------------- */

struct runner {
    aside_cache *cache;
    struct source *queued; /* the fetch that is to be waited for */
    pthread_t outer, inner;
};

static aside_status notes_its_thread(aside_fetch *fetch, void *arg)
{
    ((struct runner *)arg)->inner = pthread_self();
    return aside_fetch_copy(fetch, "inner", 5);
}

static aside_status asks_for_a_queued_one(aside_fetch *fetch, void *arg)
{
    struct runner *runner = arg;
    struct caller inner;
    runner->outer = pthread_self();
    caller_init(&inner, runner->cache, "inner", notes_its_thread, runner);
    inner.call.timeout_ms = 60000;
    CHECK_STATUS(caller_run(&inner), ASIDE_OK);
    return aside_fetch_give(fetch, inner.result.value);
}

TEST(a_thread_inside_a_fetch_runs_the_queued_fetch_that_it_waits_for)
{
    aside_options options = quiet_options();
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct caller busy, caller;
    struct runner runner = {.cache = cache};
    source_init(&source, "busy", true);
    caller_ask(&busy, cache, "busy", &source, token); /* takes the only worker */
    caller_start(&busy);
    gate_wait_arrived(&source.gate, 1);
    caller_init(&caller, cache, "outer", asks_for_a_queued_one, &runner);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "inner"));
    CHECK(pthread_equal(runner.outer, pthread_self()));
    CHECK(pthread_equal(runner.inner, pthread_self()));
    CHECK_INT(source.finished, 0);
    caller_drop(&caller);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&busy), ASIDE_OK);
    caller_drop(&busy);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- a result that can not be stored ------------------------------------------------------------- */

static aside_status too_large(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    void *to = NULL;
    atomic_fetch_add(&source->fetches, 1);
    gate_pass(&source->gate);
    CHECK_STATUS(aside_fetch_buffer(fetch, (size_t)4 << 20, &to), ASIDE_OK);
    memset(to, 'L', (size_t)4 << 20);
    return ASIDE_OK;
}

TEST(a_result_that_is_too_large_to_be_stored_reaches_all_callers)
{
    aside_options options = quiet_options();
    options.max_bytes = (size_t)2 << 20;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader, joiner;
    source_init(&source, NULL, true);
    put(cache, "other", "stays", ASIDE_FOREVER);
    caller_init(&leader, cache, "k", too_large, &source);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(leader.result.value == joiner.result.value);
    CHECK_INT(aside_value_size(leader.result.value), 4 << 20);
    CHECK_INT(((const char *)aside_value_data(leader.result.value))[(4 << 20) - 1], 'L');
    CHECK_INT(leader.result.ttl_left_ms, 0);
    CHECK_INT(leader.result.fenced, 0);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK(holds(cache, "other", "stays"));
    CHECK_INT(STAT(cache, store_refused), 1);
    CHECK_INT(STAT(cache, evicted), 0);
    end_cache(cache);
}

/* What could not be stored anyway is not what was refused. */
TEST(a_result_that_is_too_large_and_was_fenced_is_counted_as_fenced)
{
    aside_options options = quiet_options();
    options.max_bytes = (size_t)2 << 20;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader;
    source_init(&source, NULL, true);
    caller_init(&leader, cache, "k", too_large, &source);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    put(cache, "k", "written", ASIDE_FOREVER);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(aside_value_size(leader.result.value), 4 << 20);
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK(holds(cache, "k", "written"));
    CHECK_INT(STAT(cache, fetch_fenced), 1);
    CHECK_INT(STAT(cache, store_refused), 0);
    end_cache(cache);
}

static aside_status closes_and_answers(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_close(arg), ASIDE_OK);
    return aside_fetch_copy(fetch, "after close", 11);
}

TEST(a_result_that_comes_after_the_close_reaches_the_leader_on_his_own_thread)
{
    aside_cache *cache = open_quiet();
    struct caller caller;
    caller_init(&caller, cache, "k", closes_and_answers, cache);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "after close"));
    CHECK_INT(caller.result.ttl_left_ms, 0);
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_E_CLOSED);
    aside_unref(cache);
}
