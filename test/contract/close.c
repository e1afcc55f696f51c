/*
 * close.c -- P1: closing once, twice, by many, with waiters, with running fetches, from inside
 * callbacks, with handles outstanding.
 */
#include "helpers.h"

/* ---- once, twice, many --------------------------------------------------------------------------- */

TEST(close_is_idempotent_and_health_tells)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(aside_health(cache), ASIDE_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(aside_close(cache), ASIDE_OK);
        CHECK_STATUS(aside_health(cache), ASIDE_E_CLOSED);
    }
    aside_unref(cache);
}

static void no_visit(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
    CHECK(!"called");
}

TEST(every_later_call_is_told_that_the_cache_is_closed)
{
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "v", false);
    aside_value *value = NULL, *got = (aside_value *)&cache;
    aside_stats stats = {.struct_size = sizeof stats};
    size_t reaped = 0;
    char buffer[4];
    CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &got), ASIDE_E_CLOSED);
    CHECK(got == NULL);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 4, NULL), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), no_visit, NULL), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, 1000), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, 0), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("n"), "v", 1, 1000), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1000), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_clear(cache), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_E_CLOSED);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_E_CLOSED);
    CHECK_INT(source.fetches, 0);
    CHECK_INT(aside_count(cache), 0);
    CHECK_STATUS(aside_stats_get(cache, &stats), ASIDE_OK); /* a closed cache answers too */
    CHECK_INT(stats.sets, 1);
    CHECK_INT(stats.entries, 0);
    aside_value_unref(value);
    aside_unref(cache);
}

static void *close_it(void *arg)
{
    CHECK_STATUS(aside_close(arg), ASIDE_OK);
    return NULL;
}

/* Which all begin at once. */
static struct gate closers_gate;

static void *close_with_others(void *cache)
{
    gate_pass(&closers_gate);
    return close_it(cache);
}

TEST(sixteen_closers_join_the_reaper_exactly_once)
{
    perturb(test_seed() | 1);
    for (long round = test_rounds(200); round > 0; round--) {
        aside_options options = ASIDE_OPTIONS_INIT;
        options.reaper_interval_ms = 1;
        int created = threads_created(), joined = threads_joined();
        aside_cache *cache = open_cache(&options);
        CHECK_INT(threads_created() - created, 1);
        pthread_t closers[16];
        gate_init(&closers_gate);
        for (int i = 0; i < 16; i++)
            closers[i] = thread_start(close_with_others, cache);
        gate_wait_arrived(&closers_gate, 16);
        gate_open(&closers_gate);
        for (int i = 0; i < 16; i++)
            thread_join(closers[i]);
        CHECK_INT(threads_created() - created, 1);
        CHECK_INT(threads_joined() - joined, 1);
        WAIT_UNTIL(process_threads_named("aside-") == 0);
        aside_unref(cache);
        CHECK_INT(threads_joined() - joined, 1);
    }
    perturb(0);
}

TEST(the_last_reference_closes)
{
    struct tally *tally = calloc(1, sizeof *tally);
    aside_options options = ASIDE_OPTIONS_INIT; /* with a reaper */
    aside_cache *cache = open_cache(&options);
    int joined = threads_joined();
    CHECK_STATUS(tally_set(tally, cache, "k", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK(aside_ref(cache) == cache);
    aside_unref(cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    aside_unref(cache);
    CHECK_INT(tally->freed, 1);
    CHECK_INT(threads_joined() - joined, 1);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
    free(tally);
}

/* ---- with waiters and running fetches ------------------------------------------------------------ */

TEST(close_wakes_every_waiter)
{
    enum { WAITERS = 12 };
    aside_options options = quiet_options();
    options.close_wait_ms = 0;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, waiters[WAITERS];
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    for (unsigned i = 0; i < WAITERS; i++)
        join_flight(&waiters[i], cache, "k", &source, i % 2 ? token : NULL, i + 1);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    for (unsigned i = 0; i < WAITERS; i++) {
        CHECK_STATUS(caller_join(&waiters[i]), ASIDE_E_CLOSED);
        CHECK(waiters[i].result.value == NULL);
    }
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK); /* it has its value in hand (F10) */
    CHECK(value_is(leader.result.value, "v"));
    CHECK_INT(leader.result.ttl_left_ms, 0);
    caller_drop(&leader);
    aside_cancel_unref(token);
    aside_unref(cache);
}

TEST(close_wakes_those_whose_fetch_is_queued_and_runs_none_of_these)
{
    aside_options options = quiet_options();
    options.close_wait_ms = 0;
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source held, queued;
    struct caller busy, waiting;
    source_init(&held, "busy", true);
    source_init(&queued, "queued", false);
    caller_ask(&busy, cache, "busy", &held, token);
    caller_start(&busy);
    gate_wait_arrived(&held.gate, 1);
    caller_ask(&waiting, cache, "queued", &queued, token);
    caller_start(&waiting);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(caller_join(&busy), ASIDE_E_CLOSED);
    CHECK_STATUS(caller_join(&waiting), ASIDE_E_CLOSED);
    gate_open(&held.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    aside_cancel_unref(token);
    aside_unref(cache);
}

struct closer {
    aside_cache *cache;
    struct source *source;
    int finished; /* fetches that had finished when the close returned */
    _Atomic bool done;
};

static void *close_and_look(void *arg)
{
    struct closer *closer = arg;
    CHECK_STATUS(aside_close(closer->cache), ASIDE_OK);
    closer->finished = atomic_load(&closer->source->finished);
    atomic_store(&closer->done, true);
    return NULL;
}

/* All closers, not just the first, return after the fetch has. */
static void check_close_waits(bool offloaded)
{
    aside_options options = quiet_options();
    options.close_wait_ms = ASIDE_FOREVER;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = offloaded ? token_new() : NULL;
    struct source source;
    struct caller leader;
    struct closer closers[4];
    pthread_t threads[4];
    source_init(&source, "v", true);
    caller_ask(&leader, cache, "k", &source, token);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    for (int i = 0; i < 4; i++) {
        closers[i] = (struct closer){.cache = cache, .source = &source};
        threads[i] = thread_start(close_and_look, &closers[i]);
    }
    WAIT_UNTIL(aside_health(cache) == ASIDE_E_CLOSED);
    if (offloaded)
        CHECK_STATUS(caller_join(&leader), ASIDE_E_CLOSED);
    gate_open(&source.gate);
    for (int i = 0; i < 4; i++) {
        thread_join(threads[i]);
        CHECK_INT(closers[i].finished, 1);
    }
    if (!offloaded)
        CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    aside_cancel_unref(token);
    aside_unref(cache);
}

TEST(close_waits_for_running_fetches_and_so_do_the_other_closers)
{
    check_close_waits(false);
    check_close_waits(true);
}

TEST(close_waits_no_longer_than_close_wait_ms_and_the_fetch_keeps_what_it_needs)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_flight_age_ms = 0;
    options.close_wait_ms = 3600000; /* by the injected clock: nobody waits an hour here */
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    struct closer closer = {.cache = cache, .source = &source};
    pthread_t thread = thread_start(close_and_look, &closer);
    WAIT_UNTIL(aside_health(cache) == ASIDE_E_CLOSED);
    WAIT_UNTIL((fake_clock_advance_ms(&clock, 600000, cache), atomic_load(&closer.done)));
    thread_join(thread);
    CHECK_INT(closer.finished, 0);
    aside_unref(cache); /* the caller's last reference goes while the fetch runs on */
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "v"));
    caller_drop(&leader);
}

TEST(close_waits_at_least_close_wait_ms_for_a_fetch_that_hangs)
{
    aside_options options = quiet_options();
    options.close_wait_ms = 30;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    int64_t start = test_now_ns();
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK(test_now_ns() - start >= 30 * 1000000);
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    aside_unref(cache);
}

static aside_status stops_when_closed(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    gate_pass(&source->gate);
    WAIT_UNTIL(aside_fetch_stopping(fetch));
    atomic_fetch_add(&source->finished, 1);
    return ASIDE_E_CANCELLED;
}

TEST(a_running_fetch_is_asked_to_stop_when_the_cache_is_closed)
{
    aside_options options = quiet_options();
    options.close_wait_ms = ASIDE_FOREVER;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader;
    source_init(&source, NULL, true);
    gate_open(&source.gate);
    caller_init(&leader, cache, "k", stops_when_closed, &source);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_INT(source.finished, 1);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CANCELLED);
    aside_unref(cache);
}

/* ---- from inside callbacks ----------------------------------------------------------------------- */

static aside_status closes_inside(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_close(arg), ASIDE_OK);
    CHECK_STATUS(aside_close(arg), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_close_its_cache)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        aside_options options = ASIDE_OPTIONS_INIT; /* with a reaper */
        options.close_wait_ms = ASIDE_FOREVER;      /* it does not wait for itself */
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct caller caller;
        caller_init(&caller, cache, "k", closes_inside, cache);
        caller.call.cancel = offloaded ? token : NULL;
        CHECK_STATUS(caller_run(&caller), offloaded ? ASIDE_E_CLOSED : ASIDE_OK);
        caller_drop(&caller);
        end_cache(cache);
        aside_cancel_unref(token);
        WAIT_UNTIL(process_threads_named("aside-") == 0);
    }
}

static aside_options patient_options(void)
{
    aside_options options = quiet_options();
    options.close_wait_ms = ASIDE_FOREVER;
    return options;
}

/* A fetch that closes. */
struct inside {
    aside_cache *cache, *closes;
    aside_cancel *token; /* of the calls */
    int depth;           /* of fetches, one in the other */
    struct source *other;
    int finished; /* fetches of the other when the close returned */
    bool has_closed;
};

static aside_status close_after_the_gate(aside_fetch *fetch, void *arg)
{
    struct inside *inside = (struct inside *)arg;
    gate_pass(&inside->other->gate);
    CHECK_STATUS(aside_close(inside->closes), ASIDE_OK);
    inside->has_closed = true;
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_close_while_another_thread_that_closes_waits_for_it)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        aside_options options = patient_options();
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = offloaded ? token_new() : NULL;
        struct source source;
        struct caller caller;
        struct inside inside = {cache, cache, NULL, 0, &source, 0, false};
        source_init(&source, NULL, true);
        caller_init(&caller, cache, "k", close_after_the_gate, &inside);
        caller.call.cancel = token;
        caller_start(&caller);
        gate_wait_arrived(&source.gate, 1);
        pthread_t first = thread_start(close_it, cache);
        WAIT_UNTIL(aside_health(cache) == ASIDE_E_CLOSED);
        if (offloaded)
            CHECK_STATUS(caller_join(&caller), ASIDE_E_CLOSED);
        gate_open(&source.gate);
        thread_join(first);
        CHECK(inside.has_closed);
        if (!offloaded)
            CHECK_STATUS(caller_join(&caller), ASIDE_OK);
        caller_drop(&caller);
        aside_cancel_unref(token);
        aside_unref(cache);
    }
}

/* Inside as many fetches as it is told, closes a cache in which a fetch of another thread is under
 * way, and looks whether that had finished when the close returned. */
static aside_status close_deep_inside(aside_fetch *fetch, void *arg)
{
    struct inside *inside = (struct inside *)arg;
    if (--inside->depth > 0) {
        struct caller deeper;
        char key[2] = {(char)('0' + inside->depth), 0};
        caller_init(&deeper, inside->cache, key, close_deep_inside, inside);
        deeper.call.cancel = inside->token;
        caller_run(&deeper);
        caller_drop(&deeper);
        return aside_fetch_copy(fetch, "v", 1);
    }
    CHECK_STATUS(aside_close(inside->closes), ASIDE_OK);
    inside->finished = atomic_load(&inside->other->finished);
    inside->has_closed = true;
    return aside_fetch_copy(fetch, "v", 1);
}

/* Not for the fetches that it is inside of, each of which counts once; and for the other one. */
static void check_close_inside(aside_cache *cache, aside_cache *closes, int depth, bool leaving)
{
    struct source other;
    struct caller leader, caller;
    aside_cancel *token = leaving ? token_new() : NULL;
    struct inside inside = {cache, closes, token, depth, &other, 0, false};
    source_init(&other, "v", true);
    lead_to_gate(&leader, closes, "other", &other);
    caller_init(&caller, cache, "k", close_deep_inside, &inside);
    caller.call.cancel = token;
    caller_start(&caller);
    WAIT_UNTIL(aside_health(closes) == ASIDE_E_CLOSED);
    gate_open(&other.gate);
    CHECK_STATUS(caller_join(&caller), leaving && cache == closes ? ASIDE_E_CLOSED : ASIDE_OK);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK(inside.has_closed);
    CHECK_INT(inside.finished, 1);
    caller_drop(&caller);
    caller_drop(&leader);
    aside_cancel_unref(token);
}

TEST(a_fetch_inside_others_may_close_their_cache_and_waits_for_none_of_these)
{
    aside_options options = patient_options();
    for (int depth = 1; depth <= 4; depth++) {
        aside_cache *cache = open_cache(&options);
        check_close_inside(cache, cache, depth, false);
        end_cache(cache);
    }
}

static aside_status submit_and_run(void *ctx, aside_job *job)
{
    aside_job_run(job, ctx);
    return ASIDE_OK;
}

TEST(a_fetch_that_submit_runs_at_once_may_close_its_cache)
{
    aside_options options = patient_options();
    options.submit.fn = submit_and_run;
    for (int depth = 1; depth <= 3; depth++) {
        aside_cache *cache = open_cache(&options);
        check_close_inside(cache, cache, depth, true);
        end_cache(cache);
    }
}

TEST(a_fetch_that_closes_another_cache_waits_for_the_fetches_of_that_one_only)
{
    aside_options options = patient_options();
    for (int depth = 1; depth <= 3; depth++) {
        aside_cache *cache = open_cache(&options), *other = open_cache(&options);
        check_close_inside(cache, other, depth, false);
        CHECK_STATUS(aside_health(cache), ASIDE_OK);
        end_cache(other);
        end_cache(cache);
    }
}

static void destructor_closes(void *ptr, void *ctx)
{
    (void)ptr;
    CHECK_STATUS(aside_close(ctx), ASIDE_OK);
}

TEST(a_destructor_may_close_its_cache)
{
    for (int reaper = 0; reaper <= 1; reaper++) {
        aside_options options = ASIDE_OPTIONS_INIT;
        options.reaper_interval_ms = reaper ? 5 : 0;
        aside_cache *cache = open_cache(&options);
        aside_value *value = NULL;
        static int thing;
        CHECK_STATUS(aside_value_wrap(&thing, 1, destructor_closes, cache, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, ASIDE_FOREVER), ASIDE_OK);
        aside_value_unref(value);
        aside_delete(cache, ASIDE_STR("k"));
        if (reaper)
            WAIT_UNTIL(aside_health(cache) == ASIDE_E_CLOSED); /* on the reaper's own thread */
        else
            aside_reap(cache, 0, NULL);
        CHECK_STATUS(aside_health(cache), ASIDE_E_CLOSED);
        end_cache(cache);
    }
}

struct held_reaper {
    aside_cache *cache;
    struct gate gate;
    _Atomic bool closed;
};

static void closes_after_the_gate(void *ptr, void *ctx)
{
    struct held_reaper *held = (struct held_reaper *)ctx;
    (void)ptr;
    gate_pass(&held->gate);
    CHECK_STATUS(aside_close(held->cache), ASIDE_OK);
    atomic_store(&held->closed, true);
}

TEST(a_destructor_on_the_reapers_thread_may_close_while_another_thread_waits_for_the_reaper)
{
    static int thing;
    struct held_reaper held;
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_value *value = NULL;
    options.reaper_interval_ms = 5;
    held.cache = open_cache(&options);
    held.closed = false;
    gate_init(&held.gate);
    CHECK_STATUS(aside_value_wrap(&thing, 1, closes_after_the_gate, &held, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(held.cache, ASIDE_STR("k"), value, ASIDE_FOREVER), ASIDE_OK);
    aside_value_unref(value);
    CHECK_STATUS(aside_delete(held.cache, ASIDE_STR("k")), ASIDE_OK);
    gate_wait_arrived(&held.gate, 1);
    pthread_t first = thread_start(close_it, held.cache);
    WAIT_UNTIL(aside_health(held.cache) == ASIDE_E_CLOSED);
    gate_open(&held.gate);
    thread_join(first);
    CHECK(held.closed);
    aside_unref(held.cache);
}

static void visit_closes(const void *data, size_t size, void *ctx)
{
    CHECK_STATUS(aside_close(ctx), ASIDE_OK);
    CHECK_INT(size, 7);
    CHECK(memcmp(data, "visited", 7) == 0);
}

TEST(a_visit_may_close_its_cache_and_keeps_its_bytes)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "visited", ASIDE_FOREVER);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), visit_closes, cache), ASIDE_OK);
    CHECK_STATUS(look(cache, "k"), ASIDE_E_CLOSED);
    aside_unref(cache);
}

static aside_status gives_last_reference(aside_fetch *fetch, void *arg)
{
    aside_unref(arg);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_give_the_last_reference_back)
{
    struct ledger ledger;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    struct caller caller;
    caller_init(&caller, cache, "k", gives_last_reference, cache);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "v"));
    caller_drop(&caller);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(handles_stay_valid_after_the_cache_is_gone_and_then_nothing_is_left)
{
    struct ledger ledger;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    aside_value *values[3] = {NULL, NULL, NULL};
    put(cache, "a", "first", ASIDE_FOREVER);
    for (int i = 0; i < 3; i++)
        CHECK_STATUS(aside_get(cache, ASIDE_STR("a"), &values[i]), ASIDE_OK);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK(value_is(values[0], "first"));
    aside_value_unref(values[0]);
    aside_unref(cache);
    CHECK(value_is(values[1], "first"));
    aside_value_unref(values[1]);
    CHECK(value_is(values[2], "first"));
    CHECK(ledger.live_blocks > 0);
    aside_value_unref(values[2]);
    CHECK_INT(ledger.live_blocks, 0);
    CHECK_INT(ledger.live_bytes, 0);
}
