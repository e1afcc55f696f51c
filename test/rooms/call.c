/*
 * call.c -- flight/call: a flight that is settled in the instant between what a caller has found out
 * and what he does about it: he found that waiting closes a ring, that his token has fired, that the
 * flight is too old, or that its job is his to run. The verdict is his then (C3, F8, F9). The test
 * holds the shard's lock meanwhile, or does it all at a reading of the clock.
 */
#include "rooms.h"

#include "cache/cache.h"

#include <sys/syscall.h>

static aside_cache *cache;
static struct ledger ledger;
static aside_alloc counting;
static aside_cancel *token;

static struct lock *lock_of_all(void)
{
    return &cache->store.shards[0].lock;
}

static void begin(aside_options options)
{
    options.max_bytes = 64 << 10; /* one shard */
    cache = open_cache(&options);
    CHECK_INT(cache->store.shard_mask, 0);
    token = token_new();
}

static void end(void)
{
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_INT(STAT(cache, waiters_now), 0);
    end_cache(cache);
    aside_cancel_unref(token);
}

static struct flight *flight_of(const char *key)
{
    struct flight *flight = cache->store.shards[0].group.flights;
    while (flight && (flight->key_len != strlen(key) || memcmp(flight->key, key, strlen(key)) != 0))
        flight = flight->next;
    CHECK(flight != NULL);
    return flight;
}

/* Holds the lock until somebody is about to take it, and settles the flight first, as another caller
 * would who finds it too old. */
static void supersede_before(bool (*is_about_to)(void), void (*begins)(void))
{
    lock_take(lock_of_all());
    struct flight *flight = flight_of("y");
    fetch_add_relaxed(&flight->refs, 1);
    begins();
    WAIT_UNTIL(is_about_to());
    CHECK(group_supersede(flight));
    lock_release(lock_of_all());
    flight_wake(flight);
    flight_unref(flight);
}

/* ---- a ring -------------------------------------------------------------------------------------- */

/* The fetch of x asks for y, that of y for x. Who asks for y second stands at the gate first. */
static struct gate gate, asks_for_x;
static struct caller x, y, inner;
static pthread_t runner;

/* The thread of x: whether it is to stand at the gate, and has. */
static _Thread_local bool stands;
static _Atomic int tid;
static _Atomic bool has_passed;

static void stand_at_the_gate(void)
{
    stands = false;
    tid = (int)syscall(SYS_gettid);
    gate_pass(&gate);
    has_passed = true;
}

/* Who joins frees the flight that he would have led. */
static void free_at_the_gate(void *block, void *ctx)
{
    if (stands)
        stand_at_the_gate();
    counting.free(block, ctx);
}

static aside_status y_asks_for_x(aside_fetch *fetch, void *arg)
{
    struct caller caller;
    (void)arg;
    gate_pass(&asks_for_x);
    caller_init(&caller, cache, "x", source_fetch, NULL); /* which it joins */
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "x"));
    caller_drop(&caller);
    return aside_fetch_copy(fetch, "y", 1);
}

static aside_status x_asks_for_y(aside_fetch *fetch, void *arg)
{
    caller_init(&inner, cache, "y", y_asks_for_x, NULL);
    inner.call.cancel = arg;
    stands = true;
    CHECK_STATUS(caller_run(&inner), ASIDE_E_FETCH_TIMEOUT);
    return aside_fetch_copy(fetch, "x", 1);
}

static void begin_ring(aside_submit submit)
{
    aside_options options = quiet_options();
    options.submit = submit;
    options.alloc = counting = ledger_init(&ledger);
    options.alloc.free = free_at_the_gate;
    begin(options);
    gate_init(&gate);
    gate_init(&asks_for_x);
}

static void open_the_gate(void)
{
    gate_open(&gate);
}

static bool has_found_the_ring(void)
{
    return has_passed && thread_is_asleep(tid); /* at the lock */
}

static void end_ring(aside_outcome outcome)
{
    CHECK_STATUS(caller_join(&x), ASIDE_OK);
    CHECK_INT(inner.result.outcome, outcome);
    CHECK_INT(inner.result.shared, 0);
    CHECK(look(cache, "y") == ASIDE_MISS && holds(cache, "x", "x"));
    caller_drop(&x);
    end();
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(who_would_close_a_ring_by_joining_a_flight_that_is_settled_by_then_has_its_verdict)
{
    begin_ring((aside_submit){NULL, NULL});
    caller_init(&y, cache, "y", y_asks_for_x, NULL);
    caller_start(&y);
    gate_wait_arrived(&asks_for_x, 1);
    caller_init(&x, cache, "x", x_asks_for_y, NULL);
    caller_start(&x);
    gate_wait_arrived(&gate, 1); /* before it knows of the ring, which is none yet */
    gate_open(&asks_for_x);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    supersede_before(has_found_the_ring, open_the_gate);
    CHECK_STATUS(caller_join(&y), ASIDE_OK); /* it has run the fetch itself */
    caller_drop(&y);
    end_ring(ASIDE_OUTCOME_JOINED);
}

static void *run_job(void *job)
{
    aside_job_run(job, NULL);
    return NULL;
}

/* A call of its own that is refused takes back that this thread waits for what it hands over. */
static aside_status submit_at_the_gate(void *ctx, aside_job *job)
{
    struct caller third;
    (void)ctx;
    if (!stands)
        return ASIDE_E_BUSY;
    stands = false;
    caller_init(&third, cache, "third", source_fetch, NULL);
    third.call.cancel = token;
    CHECK_STATUS(caller_run(&third), ASIDE_E_BUSY);
    runner = thread_start(run_job, job);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1); /* the fetch of y, for x */
    stand_at_the_gate();
    return ASIDE_OK;
}

TEST(who_would_close_a_ring_by_leading_a_flight_that_is_settled_by_then_has_its_verdict)
{
    begin_ring((aside_submit){submit_at_the_gate, NULL});
    gate_open(&asks_for_x);
    caller_init(&x, cache, "x", x_asks_for_y, token);
    caller_start(&x);
    gate_wait_arrived(&gate, 1);
    supersede_before(has_found_the_ring, open_the_gate);
    end_ring(ASIDE_OUTCOME_FETCHED);
    thread_join(runner);
}

/* ---- a token ------------------------------------------------------------------------------------- */

static void fire(void)
{
    aside_cancel_fire(token);
}

/* The next is that it takes the lock. */
static bool nobody_waits(void)
{
    return load_acquire(&cache->host.waiters_now) == 0;
}

TEST(who_would_leave_by_his_token_a_flight_that_is_settled_by_then_has_its_verdict)
{
    struct source source;
    struct caller leader, joiner;
    begin(quiet_options());
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "y", &source);
    join_flight(&joiner, cache, "y", &source, token, 1);
    supersede_before(nobody_waits, fire);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_FETCH_TIMEOUT);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    CHECK_INT(STAT(cache, cancelled), 0);
    end();
}

/* ---- a reading of the clock ---------------------------------------------------------------------- */

/* At the moment that it watches for, in a reading of the watching thread's, another thread acts. */
static struct fake_clock fake;
static _Thread_local bool watches;
static bool (*is_the_moment)(void);
static thread_fn act;

static int64_t watching_clock(void *ctx)
{
    (void)ctx;
    if (watches && is_the_moment()) {
        watches = false;
        thread_join(thread_start(act, NULL));
    }
    return atomic_load(&fake.now_ns);
}

static aside_options watching_options(bool (*moment)(void), thread_fn acts)
{
    aside_options options = quiet_options();
    (void)fake_clock_init(&fake);
    is_the_moment = moment;
    act = acts;
    options.clock = (aside_clock){watching_clock, NULL};
    return options;
}

static void *watching_caller(void *its_caller)
{
    watches = true;
    caller_run(its_caller);
    CHECK(!watches);
    return NULL;
}

static struct source fresh;

static void *lead_anew(void *arg)
{
    fake_clock_advance_ms(&fake, 1000, NULL);
    CHECK_STATUS(ask(cache, "y", &fresh), ASIDE_OK);
    return arg;
}

static bool somebody_waits(void)
{
    return load_acquire(&cache->host.waiters_now) == 1;
}

TEST(who_finds_a_flight_too_old_that_another_has_superseded_by_then_has_its_verdict)
{
    struct source source;
    struct caller leader, joiner;
    aside_options options = watching_options(somebody_waits, lead_anew);
    options.max_flight_age_ms = 1000;
    begin(options);
    source_init(&source, "old", true);
    source_init(&fresh, "fresh", false);
    lead_to_gate(&leader, cache, "y", &source);
    caller_ask(&joiner, cache, "y", &source, NULL);
    joiner.thread = thread_start(watching_caller, &joiner);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_FETCH_TIMEOUT);
    CHECK_INT(STAT(cache, superseded), 1);
    CHECK_INT(fresh.fetches, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK(holds(cache, "y", "fresh"));
    end();
}

static void *close_main(void *arg)
{
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    return arg;
}

static bool nothing_is_queued(void)
{
    size_t queued, threads;
    executor_gauge(cache->host.executor, &queued, &threads);
    return queued == 0;
}

static aside_status ask_for_what_is_queued(aside_fetch *fetch, void *arg)
{
    caller_ask(&inner, cache, "y", arg, NULL);
    watches = true;
    CHECK_STATUS(caller_run(&inner), ASIDE_E_CLOSED);
    CHECK(!watches);
    return aside_fetch_copy(fetch, "x", 1);
}

TEST(who_takes_a_queued_fetch_that_is_settled_by_then_does_not_run_it)
{
    struct source busy, queued;
    struct caller occupant, leader;
    aside_options options = watching_options(nothing_is_queued, close_main);
    options.fetch_threads = 1;
    options.close_wait_ms = 0;
    begin(options);
    source_init(&busy, "busy", true);
    source_init(&queued, "queued", false);
    caller_ask(&occupant, cache, "busy", &busy, token);
    caller_start(&occupant);
    gate_wait_arrived(&busy.gate, 1);
    caller_ask(&leader, cache, "y", &queued, token);
    caller_start(&leader);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2 && STAT(cache, queued_now) == 1);
    caller_init(&x, cache, "x", ask_for_what_is_queued, &queued);
    CHECK_STATUS(caller_run(&x), ASIDE_OK);
    CHECK_INT(inner.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CLOSED);
    CHECK_STATUS(caller_join(&occupant), ASIDE_E_CLOSED);
    gate_open(&busy.gate);
    caller_drop(&x);
    end();
    CHECK_INT(queued.fetches, 0);
}
