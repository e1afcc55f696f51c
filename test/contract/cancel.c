/*
 * cancel.c -- callers come and go (C1 to C4, C6): by their token or their deadline, alone, without
 * disturbing the fetch or each other.
 */
#include "helpers.h"

/* Starts a caller with a token and returns once its fetch stands at the gate and it waits. */
static void lead_with_token(struct caller *caller, aside_cache *cache, const char *key,
                            struct source *source, aside_cancel *token)
{
    caller_ask(caller, cache, key, source, token);
    caller_start(caller);
    gate_wait_arrived(&source->gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
}

/* ---- before -------------------------------------------------------------------------------------- */

TEST(a_token_that_has_fired_starts_nothing)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    CHECK_INT(aside_cancel_fired(token), 0);
    aside_cancel_fire(token);
    CHECK_INT(aside_cancel_fired(token), 1);
    caller_ask(&caller, cache, "k", &source, token);
    CHECK_STATUS(caller_run(&caller), ASIDE_E_CANCELLED);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(source.fetches, 0);
    CHECK_INT(STAT(cache, workers_now), 0);
    CHECK_INT(STAT(cache, misses_led), 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_token_that_has_fired_joins_nothing)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, caller;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    aside_cancel_fire(token);
    caller_ask(&caller, cache, "k", &source, token);
    CHECK_STATUS(caller_run(&caller), ASIDE_E_CANCELLED);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    caller_drop(&leader);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_hit_is_served_though_the_token_has_fired_or_waiting_is_forbidden)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller caller;
    source_init(&source, "fetched", false);
    put(cache, "k", "there", ASIDE_FOREVER);
    aside_cancel_fire(token);
    caller_ask(&caller, cache, "k", &source, token);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "there"));
    caller_drop(&caller);
    caller.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    caller.call.timeout_ms = 1;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK_INT(source.fetches, 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- during -------------------------------------------------------------------------------------- */

TEST(a_leader_that_leaves_leaves_the_fetch_to_the_others)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, joiners[3];
    source_init(&source, "v", true);
    lead_with_token(&leader, cache, "k", &source, token);
    for (unsigned i = 0; i < 3; i++)
        join_flight(&joiners[i], cache, "k", &source, NULL, i + 2);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CANCELLED);
    CHECK(leader.result.value == NULL);
    CHECK_INT(source.finished, 0);
    WAIT_UNTIL(STAT(cache, waiters_now) == 3);
    gate_open(&source.gate);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_STATUS(caller_join(&joiners[i]), ASIDE_OK);
        CHECK_INT(joiners[i].result.shared, 1);
        caller_drop(&joiners[i]);
    }
    CHECK_INT(source.fetches, 1);
    CHECK(holds(cache, "k", "v"));
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_waiter_that_leaves_leaves_alone)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new(), *other = token_new();
    struct source source;
    struct caller leader, leaver, stayer;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&leaver, cache, "k", &source, token, 1);
    join_flight(&stayer, cache, "k", &source, other, 2);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leaver), ASIDE_E_CANCELLED);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&stayer), ASIDE_OK);
    CHECK(leader.result.value == stayer.result.value);
    CHECK_INT(leader.result.shared, 1);
    caller_drop(&leader);
    caller_drop(&stayer);
    aside_cancel_unref(token);
    aside_cancel_unref(other);
    end_cache(cache);
}

TEST(shared_counts_the_callers_that_are_there_at_the_end)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, leaver;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&leaver, cache, "k", &source, token, 1);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leaver), ASIDE_E_CANCELLED);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    caller_drop(&leader);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(when_everyone_has_left_the_value_is_stored_all_the_same)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller callers[4];
    source_init(&source, "v", true);
    lead_with_token(&callers[0], cache, "k", &source, token);
    for (unsigned i = 1; i < 4; i++)
        join_flight(&callers[i], cache, "k", &source, token, i + 1);
    aside_cancel_fire(token);
    for (unsigned i = 0; i < 4; i++)
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_CANCELLED);
    CHECK_INT(STAT(cache, waiters_now), 0);
    CHECK_INT(STAT(cache, flights_now), 1);
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    WAIT_UNTIL(look(cache, "k") == ASIDE_OK);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(source.fetches, 1);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_newcomer_joins_the_fetch_that_everyone_has_left_and_gets_its_value)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader, joiner, newcomer;
    source_init(&source, "v", true);
    lead_with_token(&leader, cache, "k", &source, token);
    join_flight(&joiner, cache, "k", &source, token, 2);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CANCELLED);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_CANCELLED);
    join_flight(&newcomer, cache, "k", &source, NULL, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&newcomer), ASIDE_OK);
    CHECK(value_is(newcomer.result.value, "v"));
    CHECK_INT(newcomer.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(newcomer.result.shared, 0);
    CHECK_INT(source.fetches, 1);
    caller_drop(&newcomer);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_fetch_that_is_left_while_it_is_queued_runs_and_is_stored)
{
    aside_options options = quiet_options();
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new(), *never = token_new();
    struct source held, queued;
    struct caller busy, leaver;
    source_init(&held, "busy", true);
    source_init(&queued, "queued", false);
    lead_with_token(&busy, cache, "busy", &held, never);
    caller_ask(&leaver, cache, "queued", &queued, token);
    caller_start(&leaver);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leaver), ASIDE_E_CANCELLED);
    CHECK_INT(queued.fetches, 0);
    gate_open(&held.gate);
    CHECK_STATUS(caller_join(&busy), ASIDE_OK);
    caller_drop(&busy);
    WAIT_UNTIL(look(cache, "queued") == ASIDE_OK);
    CHECK_INT(queued.fetches, 1);
    aside_cancel_unref(token);
    aside_cancel_unref(never);
    end_cache(cache);
}

/* ---- the value and the token at once ------------------------------------------------------------- */

struct early {
    _Atomic(aside_fetch *) fetch;
};

static aside_status leave_pending(aside_fetch *fetch, void *arg)
{
    struct early *early = arg;
    atomic_store(&early->fetch, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

/* A call whose token has fired, during which something happens as it reads the clock. */
struct looking {
    struct acting_clock clock;
    int reading; /* at which it happens */
    bool recordless;
    struct ledger ledger;
    struct source source;
    struct caller caller;
};

static void *set_ready(void *caller)
{
    put(((struct caller *)caller)->cache, ((struct caller *)caller)->key, "ready", ASIDE_FOREVER);
    return NULL;
}

static void *close_it(void *caller)
{
    CHECK_STATUS(aside_close(((struct caller *)caller)->cache), ASIDE_OK);
    return NULL;
}

static void *look_with_fired_token(void *arg)
{
    struct looking *looking = (struct looking *)arg;
    if (looking->recordless)
        process_fail_alloc(1, true);
    acting_clock_arm(&looking->clock, looking->reading);
    (void)caller_run(&looking->caller);
    process_fail_alloc(0, false);
    return NULL;
}

/* In a cache and on a thread of its own. True: the call read the clock that often. */
static bool look_once(struct looking *looking, thread_fn act)
{
    aside_options options = quiet_options();
    options.clock = acting_clock_init(&looking->clock, act, &looking->caller);
    options.alloc = ledger_init(&looking->ledger);
    aside_cancel *token = token_new();
    aside_cancel_fire(token);
    source_init(&looking->source, "fetched", false);
    caller_ask(&looking->caller, open_cache(&options), "k", &looking->source, token);
    thread_join(thread_start(look_with_fired_token, looking));
    bool acted = acting_clock_disarm(&looking->clock);
    CHECK_INT(STAT(looking->caller.cache, refused), !acted);
    CHECK_INT(looking->source.fetches, 0);
    CHECK(acted || looking->caller.status == ASIDE_E_CANCELLED);
    end_cache(looking->caller.cache);
    aside_cancel_unref(token);
    return acted;
}

/* Whenever it comes: as long as the call looks at the clock, it looks for the value after that. */
static void look_for_what_is_set(bool recordless)
{
    static struct looking looking;
    looking.recordless = recordless;
    looking.reading = 1;
    for (; look_once(&looking, set_ready); looking.reading++) {
        CHECK_STATUS(looking.caller.status, ASIDE_OK);
        CHECK_INT(looking.caller.result.outcome, ASIDE_OUTCOME_HIT);
        CHECK(value_is(looking.caller.result.value, "ready"));
        caller_drop(&looking.caller);
    }
    CHECK(looking.reading > 1);
}

static void look_for_what_is_closed(bool recordless)
{
    static struct looking looking;
    looking.recordless = recordless;
    looking.reading = 1;
    for (; look_once(&looking, close_it); looking.reading++)
        CHECK_STATUS(looking.caller.status, ASIDE_E_CLOSED);
    CHECK(looking.reading > 1);
}

/* So that the record there is is this thread's, and those that it starts need memory for theirs. */
static void take_the_record(void)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(a_value_that_is_set_while_a_call_with_a_fired_token_looks_wins)
{
    look_for_what_is_set(false);
}

TEST(a_value_that_is_set_while_such_a_call_looks_wins_for_a_thread_without_a_record_too)
{
    take_the_record();
    look_for_what_is_set(true);
}

TEST(a_cache_that_is_closed_while_a_call_with_a_fired_token_looks_is_closed)
{
    look_for_what_is_closed(false);
}

TEST(a_cache_that_is_closed_while_such_a_call_looks_is_closed_to_a_thread_without_a_record_too)
{
    take_the_record();
    look_for_what_is_closed(true);
}

/* Each key is set between the two looks of a call. Some are in the larger table then, some in the
 * smaller one yet, and not each is where it is looked for first. */
TEST(a_call_with_a_fired_token_looks_while_the_table_grows)
{
    struct acting_clock clock;
    struct caller caller;
    struct source source;
    aside_options options = quiet_options();
    options.clock = acting_clock_init(&clock, set_ready, &caller);
    options.max_bytes = 500000; /* few, and so large, tables */
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    char key[16];
    source_init(&source, "fetched", false);
    aside_cancel_fire(token);
    for (int i = 0; i < 1500; i++) {
        snprintf(key, sizeof key, "%d", i);
        caller_ask(&caller, cache, key, &source, token);
        CHECK_STATUS(caller_run(&caller), ASIDE_E_CANCELLED);
        acting_clock_arm(&clock, 2);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK(value_is(caller.result.value, "ready"));
        caller_drop(&caller);
    }
    CHECK_INT(STAT(cache, refused), 1500);
    CHECK_INT(source.fetches, 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_value_that_is_ready_when_the_token_fires_wins)
{
    aside_cache *cache = open_quiet();
    for (int round = 0; round < 200; round++) {
        aside_cancel *token = token_new();
        struct early early = {NULL};
        struct caller caller;
        char key[16];
        snprintf(key, sizeof key, "%d", round);
        caller_init(&caller, cache, key, leave_pending, &early);
        caller.call.cancel = token;
        caller_start(&caller);
        WAIT_UNTIL(atomic_load(&early.fetch) != NULL && STAT(cache, waiters_now) == 1);
        CHECK_STATUS(aside_fetch_copy(early.fetch, "ready", 5), ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(early.fetch, ASIDE_OK), ASIDE_OK);
        aside_cancel_fire(token);
        aside_fetch_unref(early.fetch);
        CHECK_STATUS(caller_join(&caller), ASIDE_OK);
        CHECK(value_is(caller.result.value, "ready"));
        caller_drop(&caller);
        aside_cancel_unref(token);
    }
    end_cache(cache);
}

/* ---- deadlines ----------------------------------------------------------------------------------- */

TEST(a_deadline_ends_the_wait_of_its_caller_alone)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source source;
    struct caller leader, joiner, patient;
    source_init(&source, "v", true);
    caller_ask(&leader, cache, "k", &source, NULL);
    leader.call.timeout_ms = 100;
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    caller_ask(&joiner, cache, "k", &source, NULL);
    joiner.call.timeout_ms = 200;
    caller_start(&joiner);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    join_flight(&patient, cache, "k", &source, NULL, 3);
    fake_clock_advance_ms(&clock, 99, cache);
    CHECK_INT(STAT(cache, timeouts), 0);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_TIMEOUT);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    fake_clock_advance_ms(&clock, 100, cache);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_TIMEOUT);
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&patient), ASIDE_OK);
    CHECK(value_is(patient.result.value, "v"));
    caller_drop(&patient);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(source.fetches, 1);
    end_cache(cache);
}

TEST(a_deadline_is_kept_by_the_systems_clock_and_not_before_its_time)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    for (int64_t ms = 1; ms <= 31; ms += 10) {
        caller_ask(&caller, cache, "k", &source, NULL);
        caller.call.timeout_ms = ms;
        int64_t start = test_now_ns();
        CHECK_STATUS(caller_run(&caller), ASIDE_E_TIMEOUT);
        CHECK(test_now_ns() - start >= ms * 1000000);
    }
    CHECK(source.fetches <= 1); /* later ones joined the first */
    gate_open(&source.gate);
    WAIT_UNTIL(look(cache, "k") == ASIDE_OK);
    end_cache(cache);
}

TEST(no_deadline_waits_as_long_as_it_takes)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_flight_age_ms = ASIDE_FOREVER;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader, none, forever, huge;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    join_flight(&none, cache, "k", &source, NULL, 1);
    caller_ask(&forever, cache, "k", &source, NULL);
    forever.call.timeout_ms = ASIDE_FOREVER;
    caller_start(&forever);
    caller_ask(&huge, cache, "k", &source, NULL);
    huge.call.timeout_ms = ASIDE_FOREVER - 1; /* the sum saturates */
    caller_start(&huge);
    WAIT_UNTIL(STAT(cache, waiters_now) == 3);
    fake_clock_advance_ms(&clock, INT64_C(86400000) * 3650, cache);
    CHECK_INT(STAT(cache, waiters_now), 3);
    gate_open(&source.gate);
    struct caller *all[] = {&leader, &none, &forever, &huge};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        CHECK_STATUS(caller_join(all[i]), ASIDE_OK);
        caller_drop(all[i]);
    }
    end_cache(cache);
}

/* ---- tokens -------------------------------------------------------------------------------------- */

TEST(one_token_serves_a_hundred_calls_at_once)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    static struct caller callers[100];
    static char keys[10][16];
    source_init(&source, "v", true);
    for (int i = 0; i < 10; i++)
        snprintf(keys[i], sizeof keys[i], "%d", i);
    for (int i = 0; i < 100; i++) {
        caller_ask(&callers[i], cache, keys[i % 10], &source, token);
        caller_start(&callers[i]);
    }
    WAIT_UNTIL(STAT(cache, waiters_now) == 100);
    aside_cancel_fire(token);
    for (int i = 0; i < 100; i++)
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_CANCELLED);
    CHECK_INT(STAT(cache, cancelled), 100);
    gate_open(&source.gate);
    WAIT_UNTIL(aside_count(cache) == 10); /* every fetch ran on */
    CHECK_INT(source.fetches, 10);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(one_token_serves_two_caches_and_firing_is_idempotent)
{
    aside_cache *caches[2] = {open_quiet(), open_quiet()};
    aside_cancel *token = token_new();
    struct source source;
    struct caller callers[2];
    source_init(&source, "v", true);
    for (int i = 0; i < 2; i++) {
        caller_ask(&callers[i], caches[i], "k", &source, token);
        caller_start(&callers[i]);
        WAIT_UNTIL(STAT(caches[i], waiters_now) == 1);
    }
    for (int i = 0; i < 3; i++)
        aside_cancel_fire(token);
    CHECK_INT(aside_cancel_fired(token), 1);
    for (int i = 0; i < 2; i++)
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_CANCELLED);
    CHECK(aside_cancel_ref(token) == token);
    aside_cancel_unref(token);
    CHECK_INT(aside_cancel_fired(token), 1); /* for ever */
    aside_cancel_unref(token);
    gate_open(&source.gate);
    for (int i = 0; i < 2; i++) {
        WAIT_UNTIL(look(caches[i], "k") == ASIDE_OK);
        end_cache(caches[i]);
    }
}

struct self_cancel {
    aside_cancel *token;
    struct caller *caller;
};

static aside_status fires_inside(aside_fetch *fetch, void *arg)
{
    struct self_cancel *self = arg;
    aside_cancel_fire(self->token);
    WAIT_UNTIL(atomic_load(&self->caller->done)); /* the fetch goes on, its caller has left */
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_token_may_be_fired_inside_the_fetch)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct caller caller;
    struct self_cancel self = {token, &caller};
    caller_init(&caller, cache, "k", fires_inside, &self);
    caller.call.cancel = token;
    caller_start(&caller);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    WAIT_UNTIL(holds(cache, "k", "v"));
    aside_cancel_unref(token);
    end_cache(cache);
}
