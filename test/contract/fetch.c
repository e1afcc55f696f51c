/*
 * fetch.c -- inside a fetch: the ways to note a result, completion from elsewhere (ASIDE_PENDING),
 * a fetch that ends without an answer (F7), one that calls the cache (F9), and a result that can
 * not be stored (F10).
 */
#include "helpers.h"

/* Runs one inline call with the fetch; the caller drops the value. */
static struct caller run(aside_cache *cache, const char *key, aside_fetch_fn *fetch, void *arg)
{
    struct caller caller;
    caller_init(&caller, cache, key, fetch, arg);
    caller_run(&caller);
    return caller;
}

/* ---- being told to stop -------------------------------------------------------------------------- */

static struct fake_clock long_clock;

static aside_status looks_a_century_later(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    fake_clock_advance_ms(&long_clock, INT64_C(100) * 365 * 86400 * 1000, NULL);
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_is_never_told_to_stop_for_its_age_where_flights_may_have_any)
{
    const int64_t any_age[] = {0, ASIDE_FOREVER};
    for (size_t i = 0; i < COUNT_OF(any_age); i++) {
        aside_options options = quiet_options();
        options.clock = fake_clock_init(&long_clock);
        options.max_flight_age_ms = any_age[i];
        aside_cache *cache = open_cache(&options);
        struct caller caller = run(cache, "k", looks_a_century_later, NULL);
        CHECK_STATUS(caller.status, ASIDE_OK);
        CHECK_INT(caller.result.fenced, 0);
        caller_drop(&caller);
        CHECK(holds(cache, "k", "v"));
        end_cache(cache);
    }
}

/* ---- noting a result ----------------------------------------------------------------------------- */

static aside_status by_buffer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    void *to = NULL;
    CHECK_STATUS(aside_fetch_buffer(fetch, 1000, &to), ASIDE_OK);
    CHECK_INT((uintptr_t)to % 8, 0);
    memset(to, 'b', 1000);
    return ASIDE_OK;
}

TEST(a_value_may_be_written_in_place)
{
    aside_cache *cache = open_quiet();
    struct caller caller = run(cache, "k", by_buffer, NULL);
    CHECK_STATUS(caller.status, ASIDE_OK);
    CHECK_INT(aside_value_size(caller.result.value), 1000);
    const char *bytes = aside_value_data(caller.result.value);
    for (int i = 0; i < 1000; i++)
        CHECK_INT(bytes[i], 'b');
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    end_cache(cache);
}

static aside_status empty_copy(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, NULL, 0);
}

static aside_status empty_buffer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    void *to = NULL;
    return aside_fetch_buffer(fetch, 0, &to);
}

TEST(an_empty_value_is_an_answer)
{
    aside_cache *cache = open_quiet();
    struct caller copied = run(cache, "copy", empty_copy, NULL);
    struct caller written = run(cache, "buffer", empty_buffer, NULL);
    CHECK(value_is(copied.result.value, ""));
    CHECK(value_is(written.result.value, ""));
    caller_drop(&copied);
    caller_drop(&written);
    CHECK(holds(cache, "copy", ""));
    CHECK(holds(cache, "buffer", ""));
    end_cache(cache);
}

static aside_status by_give(aside_fetch *fetch, void *arg)
{
    return aside_fetch_give(fetch, arg);
}

TEST(a_value_that_exists_may_be_given)
{
    aside_cache *cache = open_quiet();
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("given", 5, &value), ASIDE_OK);
    aside_value_ref(value); /* one for the fetch, one stays here */
    struct caller caller = run(cache, "k", by_give, value);
    CHECK_STATUS(caller.status, ASIDE_OK);
    CHECK(value_is(caller.result.value, "given"));
    caller_drop(&caller);
    CHECK(value_is(value, "given"));
    aside_value_unref(value);
    CHECK(holds(cache, "k", "given"));
    end_cache(cache);
}

static aside_status twice_copied(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_copy(fetch, "first", 5), ASIDE_OK);
    return aside_fetch_copy(fetch, "last", 4);
}

static aside_status value_after_not_found(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_not_found(fetch), ASIDE_NOT_FOUND);
    return aside_fetch_copy(fetch, "last", 4);
}

static aside_status value_after_failure(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_fail(fetch, 5), ASIDE_E_FETCH);
    return aside_fetch_copy(fetch, "last", 4);
}

static aside_status not_found_after_value(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_copy(fetch, "first", 5), ASIDE_OK);
    return aside_fetch_not_found(fetch);
}

static aside_status failure_after_value(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_copy(fetch, "first", 5), ASIDE_OK);
    return aside_fetch_fail(fetch, 5);
}

static aside_status error_after_value(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_copy(fetch, "first", 5), ASIDE_OK);
    return (aside_status)-77;
}

TEST(the_last_result_counts)
{
    static const struct {
        aside_fetch_fn *fetch;
        aside_status want;
        int fetch_error;
    } cases[] = {{twice_copied, ASIDE_OK, 0},
                 {value_after_not_found, ASIDE_OK, 0},
                 {value_after_failure, ASIDE_OK, 0},
                 {not_found_after_value, ASIDE_NOT_FOUND, 0},
                 {failure_after_value, ASIDE_E_FETCH, 5},
                 {error_after_value, (aside_status)-77, 0}};
    aside_cache *cache = open_quiet();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char key[2] = {(char)('a' + i), 0};
        struct caller caller = run(cache, key, cases[i].fetch, NULL);
        CHECK_STATUS(caller.status, cases[i].want);
        CHECK_INT(caller.result.fetch_error, cases[i].fetch_error);
        if (cases[i].want == ASIDE_OK)
            CHECK(value_is(caller.result.value, "last"));
        CHECK_STATUS(look(cache, key), cases[i].want == ASIDE_OK ? ASIDE_OK : ASIDE_MISS);
        caller_drop(&caller);
    }
    end_cache(cache);
}

static aside_status with_ttl(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_fetch_set_ttl(fetch, *(int64_t *)arg), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_set_the_ttl_of_its_result)
{
    static const struct {
        int64_t ttl, left;
        aside_status stored;
    } cases[] = {{70, 70, ASIDE_OK},
                 {ASIDE_FOREVER, ASIDE_FOREVER, ASIDE_OK},
                 {0, 500, ASIDE_OK}, /* the default of the cache */
                 {ASIDE_NO_STORE, 0, ASIDE_MISS}};
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.default_ttl_ms = 500;
    aside_cache *cache = open_cache(&options);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char key[2] = {(char)('a' + i), 0};
        int64_t ttl = cases[i].ttl;
        struct caller caller;
        caller_init(&caller, cache, key, with_ttl, &ttl);
        caller.call.ttl_ms = 9999; /* not this one */
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK_INT(caller.result.ttl_left_ms, cases[i].left);
        CHECK_STATUS(look(cache, key), cases[i].stored);
        caller_drop(&caller);
    }
    end_cache(cache);
}

/* ---- completion from elsewhere ------------------------------------------------------------------- */

struct pending {
    _Atomic(aside_fetch *) fetch; /* referenced, for whoever completes it */
    const char *answer;
    _Atomic int fetches;
};

static aside_status leave_pending(aside_fetch *fetch, void *arg)
{
    struct pending *pending = arg;
    atomic_fetch_add(&pending->fetches, 1);
    CHECK(aside_fetch_ref(fetch) == fetch);
    atomic_store(&pending->fetch, fetch);
    return ASIDE_PENDING;
}

/* Starts the call and returns the pending fetch. */
static aside_fetch *start_pending(struct caller *caller, aside_cache *cache,
                                  struct pending *pending)
{
    memset(pending, 0, sizeof *pending);
    caller_init(caller, cache, "k", leave_pending, pending);
    caller_start(caller);
    WAIT_UNTIL(atomic_load(&pending->fetch) != NULL);
    return atomic_load(&pending->fetch);
}

TEST(another_thread_completes_a_pending_fetch_once)
{
    aside_cache *cache = open_quiet();
    struct pending pending;
    struct caller leader, joiner;
    aside_fetch *fetch = start_pending(&leader, cache, &pending);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1); /* now the leader waits as well */
    caller_init(&joiner, cache, "k", leave_pending, &pending);
    caller_start(&joiner);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    size_t size = 0;
    CHECK(memcmp(aside_fetch_key(fetch, &size), "k", 1) == 0);
    CHECK_INT(size, 1);
    CHECK_STATUS(aside_fetch_copy(fetch, "later", 5), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_E_FETCH), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_copy(fetch, "too late", 8), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, 5), ASIDE_E_INVALID);
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(value_is(joiner.result.value, "later"));
    CHECK(leader.result.value == joiner.result.value);
    CHECK_INT(joiner.result.shared, 1);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK_INT(pending.fetches, 1);
    CHECK(holds(cache, "k", "later"));
    end_cache(cache);
}

TEST(a_pending_fetch_may_end_with_any_answer)
{
    aside_cache *cache = open_quiet();
    struct pending pending;
    struct caller caller;
    aside_fetch *fetch = start_pending(&caller, cache, &pending);
    CHECK_STATUS(aside_fetch_complete(fetch, aside_fetch_fail(fetch, 12)), ASIDE_OK);
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_FETCH);
    CHECK_INT(caller.result.fetch_error, 12);
    fetch = start_pending(&caller, cache, &pending);
    CHECK_STATUS(aside_fetch_complete(fetch, aside_fetch_not_found(fetch)), ASIDE_OK);
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&caller), ASIDE_NOT_FOUND);
    fetch = start_pending(&caller, cache, &pending);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK); /* without a value */
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_INVALID);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

static aside_status completed_inside(aside_fetch *fetch, void *arg)
{
    (void)arg;
    aside_fetch_ref(fetch);
    CHECK_STATUS(aside_fetch_copy(fetch, "early", 5), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
    return ASIDE_PENDING;
}

TEST(a_fetch_may_be_completed_before_its_callback_returns)
{
    aside_cache *cache = open_quiet();
    struct caller caller = run(cache, "k", completed_inside, NULL);
    CHECK_STATUS(caller.status, ASIDE_OK);
    CHECK(value_is(caller.result.value, "early"));
    caller_drop(&caller);
    CHECK(holds(cache, "k", "early"));
    end_cache(cache);
}

TEST(a_pending_fetch_whose_reference_is_dropped_is_abandoned)
{
    aside_cache *cache = open_quiet();
    struct pending pending;
    struct caller caller;
    aside_fetch *fetch = start_pending(&caller, cache, &pending);
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_ABANDONED);
    CHECK_INT(STAT(cache, fetch_abandoned), 1);
    end_cache(cache);
}

static aside_status pending_without_reference(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    return ASIDE_PENDING;
}

TEST(pending_without_a_reference_is_abandoned)
{
    aside_cache *cache = open_quiet();
    struct caller caller = run(cache, "k", pending_without_reference, NULL);
    CHECK_STATUS(caller.status, ASIDE_E_ABANDONED);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

static aside_status keep_reference(aside_fetch *fetch, void *arg)
{
    *(aside_fetch **)arg = aside_fetch_ref(fetch);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_reference_to_a_fetch_that_has_ended_is_harmless)
{
    aside_options options = quiet_options();
    options.close_wait_ms = ASIDE_FOREVER; /* what has ended is not waited for */
    aside_cache *cache = open_cache(&options);
    aside_fetch *fetch = NULL;
    aside_value *value = NULL;
    struct caller caller = run(cache, "k", keep_reference, &fetch);
    CHECK_STATUS(caller.status, ASIDE_OK);
    caller_drop(&caller);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_E_FETCH), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_copy("w", 1, &value), ASIDE_OK);
    CHECK_STATUS(aside_fetch_give(fetch, value), ASIDE_E_INVALID);
    aside_value_unref(value); /* give did not take it */
    CHECK(holds(cache, "k", "v"));
    end_cache(cache);
    size_t size = 0;
    CHECK(memcmp(aside_fetch_key(fetch, &size), "k", 1) == 0); /* valid while referenced */
    aside_fetch_unref(fetch);
}

/* ---- a fetch that ends without an answer --------------------------------------------------------- */

static aside_status exits_its_thread(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    (void)fetch;
    atomic_fetch_add(&source->fetches, 1);
    gate_pass(&source->gate);
    pthread_exit(NULL);
}

static void check_abandoned_by_exit(aside_cancel *token)
{
    aside_cache *cache = open_quiet();
    struct source source, good;
    struct caller leader, joiner;
    source_init(&source, NULL, true);
    source_init(&good, "good", false);
    caller_init(&leader, cache, "k", exits_its_thread, &source);
    leader.call.cancel = token;
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    join_flight(&joiner, cache, "k", &good, NULL, token == NULL ? 1 : 2);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_ABANDONED);
    thread_join(leader.thread);
    if (token != NULL)
        CHECK_STATUS(leader.status, ASIDE_E_ABANDONED);
    else
        CHECK(!leader.done); /* its thread has ended inside the fetch */
    CHECK_INT(good.fetches, 0);
    CHECK_STATUS(ask(cache, "k", &good), ASIDE_OK);
    caller_ask(&joiner, cache, "other", &good, token); /* and workers go on */
    CHECK_STATUS(caller_run(&joiner), ASIDE_OK);
    caller_drop(&joiner);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    end_cache(cache);
}

TEST(a_leader_that_exits_inside_its_fetch_abandons_the_flight)
{
    check_abandoned_by_exit(NULL);
}

TEST(a_worker_that_exits_inside_a_fetch_abandons_the_flight)
{
    aside_cancel *token = token_new();
    check_abandoned_by_exit(token);
    aside_cancel_unref(token);
}

static aside_status runs_until_cancelled(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    (void)fetch;
    atomic_fetch_add(&source->fetches, 1);
    while (source->fetches > 0) { /* for ever */
        pthread_testcancel();     /* here and nowhere else: sanitizers do not see through others */
        sched_yield();
    }
    return ASIDE_E_FETCH;
}

TEST(a_thread_that_is_cancelled_in_its_fetch_abandons_the_flight)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "good", false);
    caller_init(&leader, cache, "k", runs_until_cancelled, &source);
    caller_start(&leader);
    WAIT_UNTIL(source.fetches == 1);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    pthread_cancel(leader.thread);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_ABANDONED);
    CHECK(thread_join(leader.thread) == PTHREAD_CANCELED);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    end_cache(cache);
}

TEST(a_thread_that_is_cancelled_while_it_waits_gets_its_answer_first)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    pthread_cancel(joiner.thread);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    thread_join(joiner.thread);
    CHECK(joiner.done); /* cancellation was held off until the call had returned */
    CHECK(value_is(joiner.result.value, "v"));
    caller_drop(&leader);
    caller_drop(&joiner);
    end_cache(cache);
}
