/*
 * stop.c -- a call with stop_when_abandoned: its fetch is asked to stop once the last caller has
 * left, unless a newcomer joins before it has noticed (C1, C4).
 */
#include "helpers.h"

struct stopping {
    struct source source;
    _Atomic int looked; /* what aside_fetch_stopping() said, plus 1 */
};

/* Waits at the gate, then looks once and answers as told. */
static aside_status looks_after_the_gate(aside_fetch *fetch, void *arg)
{
    struct stopping *stopping = arg;
    atomic_fetch_add(&stopping->source.fetches, 1);
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    gate_pass(&stopping->source.gate);
    atomic_store(&stopping->looked, aside_fetch_stopping(fetch) + 1);
    return aside_fetch_copy(fetch, stopping->source.answer, strlen(stopping->source.answer));
}

static aside_status polls_until_stopped(aside_fetch *fetch, void *arg)
{
    struct stopping *stopping = arg;
    atomic_fetch_add(&stopping->source.fetches, 1);
    WAIT_UNTIL(aside_fetch_stopping(fetch));
    atomic_store(&stopping->looked, 2);
    gate_pass(&stopping->source.gate);
    return aside_fetch_copy(fetch, stopping->source.answer, strlen(stopping->source.answer));
}

static void lead_stopping(struct caller *caller, struct stopping *stopping, aside_cache *cache,
                          aside_fetch_fn *fetch, aside_cancel *token, int stop_when_abandoned)
{
    source_init(&stopping->source, "old", true);
    stopping->looked = 0;
    caller_init(caller, cache, "k", fetch, stopping);
    caller->call.cancel = token;
    caller->call.stop_when_abandoned = stop_when_abandoned;
    caller_start(caller);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1 && stopping->source.fetches == 1);
}

TEST(a_fetch_is_not_asked_to_stop_unless_its_call_said_so)
{
    aside_cache *cache = open_quiet();
    for (int stop = 0; stop <= 1; stop++) {
        aside_cancel *token = token_new();
        struct stopping stopping;
        struct caller caller;
        lead_stopping(&caller, &stopping, cache, looks_after_the_gate, token, stop);
        aside_cancel_fire(token);
        CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
        gate_open(&stopping.source.gate);
        WAIT_UNTIL(stopping.looked != 0);
        CHECK_INT(stopping.looked - 1, stop);
        WAIT_UNTIL(STAT(cache, flights_now) == 0);
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
        aside_cancel_unref(token);
    }
    end_cache(cache);
}

TEST(a_fetch_is_not_asked_to_stop_while_a_caller_stays)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct stopping stopping;
    struct caller leader, stayer;
    lead_stopping(&leader, &stopping, cache, looks_after_the_gate, token, 1);
    join_flight(&stayer, cache, "k", &stopping.source, NULL, 2);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CANCELLED);
    gate_open(&stopping.source.gate);
    CHECK_STATUS(caller_join(&stayer), ASIDE_OK);
    CHECK_INT(stopping.looked - 1, 0);
    caller_drop(&stayer);
    CHECK(holds(cache, "k", "old"));
    aside_cancel_unref(token);
    end_cache(cache);
}

/* Nobody waited for it when it began. */
TEST(a_refresh_is_not_asked_to_stop_when_the_last_who_has_joined_it_leaves)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct stopping stopping;
    struct caller joiner;
    source_init(&stopping.source, "new", true);
    stopping.looked = 0;
    aside_call call = {ASIDE_CALL, .fetch = looks_after_the_gate, .arg = &stopping};
    call.stop_when_abandoned = 1;
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    gate_wait_arrived(&stopping.source.gate, 1);
    join_flight(&joiner, cache, "k", &stopping.source, token, 1);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_CANCELLED);
    gate_open(&stopping.source.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_INT(stopping.looked - 1, 0);
    CHECK(holds(cache, "k", "new"));
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_newcomer_revives_an_abandoned_fetch_that_has_not_noticed)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct stopping stopping;
    struct caller leader, newcomer;
    lead_stopping(&leader, &stopping, cache, looks_after_the_gate, token, 1);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CANCELLED);
    join_flight(&newcomer, cache, "k", &stopping.source, NULL, 1);
    gate_open(&stopping.source.gate);
    CHECK_STATUS(caller_join(&newcomer), ASIDE_OK);
    CHECK_INT(newcomer.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(stopping.looked - 1, 0);
    CHECK_INT(stopping.source.fetches, 1);
    caller_drop(&newcomer);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(once_a_fetch_knows_that_it_is_to_stop_a_newcomer_starts_his_own)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct stopping stopping;
    struct source new;
    struct caller leader;
    source_init(&new, "new", false);
    lead_stopping(&leader, &stopping, cache, polls_until_stopped, token, 1);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_CANCELLED);
    WAIT_UNTIL(stopping.looked == 2);
    CHECK_STATUS(ask(cache, "k", &new), ASIDE_OK);
    CHECK_INT(new.fetches, 1);
    gate_open(&stopping.source.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK(holds(cache, "k", "new")); /* the stopped one stores nothing over it (F1) */
    aside_cancel_unref(token);
    end_cache(cache);
}
