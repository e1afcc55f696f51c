/*
 * age.c -- flights are bounded: in age (F8), in number, in waiters, in the queue (B1). What is
 * refused is refused with ASIDE_E_BUSY, at once, and everything works again afterwards.
 */
#include "helpers.h"

#define AGE_MS 30000 /* the default of max_flight_age_ms */

/* ---- a flight that grows too old ----------------------------------------------------------------- */

TEST(waiters_of_a_flight_that_is_too_old_get_fetch_timeout)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source source;
    struct caller leader, joiners[3];
    source_init(&source, "old", true);
    lead_to_gate(&leader, cache, "k", &source);
    for (unsigned i = 0; i < COUNT_OF(joiners); i++)
        join_flight(&joiners[i], cache, "k", &source, NULL, i + 1);
    fake_clock_advance_ms(&clock, AGE_MS + 1, cache);
    for (unsigned i = 0; i < COUNT_OF(joiners); i++) {
        CHECK_STATUS(caller_join(&joiners[i]), ASIDE_E_FETCH_TIMEOUT);
        CHECK(joiners[i].result.value == NULL);
    }
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK); /* on its own thread: it has the value in hand */
    CHECK(value_is(leader.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(leader.result.ttl_left_ms, 0);
    caller_drop(&leader);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS); /* the old one stored nothing */
    CHECK_INT(STAT(cache, superseded), 1);
    end_cache(cache);
}

TEST(until_its_age_is_reached_a_flight_is_joined)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    fake_clock_advance_ms(&clock, AGE_MS - 1, cache);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 0);
    CHECK_INT(source.fetches, 1);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(STAT(cache, superseded), 0);
    end_cache(cache);
}

TEST(the_next_caller_leads_a_new_flight_and_the_old_one_can_not_overwrite_it)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source old, new;
    struct caller leader, next;
    source_init(&old, "old", true);
    source_init(&new, "new", false);
    lead_to_gate(&leader, cache, "k", &old);
    fake_clock_advance_ms(&clock, AGE_MS + 1, cache);
    caller_ask(&next, cache, "k", &new, NULL);
    CHECK_STATUS(caller_run(&next), ASIDE_OK);
    CHECK(value_is(next.result.value, "new"));
    CHECK_INT(next.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(next.result.fenced, 0);
    caller_drop(&next);
    gate_open(&old.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK(holds(cache, "k", "new"));
    end_cache(cache);
}

TEST(the_old_one_stores_nothing_even_after_the_new_value_was_deleted)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source old, new;
    struct caller leader;
    source_init(&old, "old", true);
    source_init(&new, "new", false);
    lead_to_gate(&leader, cache, "k", &old);
    fake_clock_advance_ms(&clock, AGE_MS + 1, cache);
    CHECK_STATUS(ask(cache, "k", &new), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    gate_open(&old.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

TEST(an_offloaded_leader_does_not_wait_longer_than_the_age_either)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_cancel *token = token_new();
    struct source source;
    struct caller leader;
    source_init(&source, "old", true);
    caller_ask(&leader, cache, "k", &source, token);
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    fake_clock_advance_ms(&clock, AGE_MS + 1, cache);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_FETCH_TIMEOUT);
    gate_open(&source.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    aside_cancel_unref(token);
    end_cache(cache);
}

struct supersede_self {
    aside_cache *cache;
    struct fake_clock *clock;
};

static aside_status grows_too_old(aside_fetch *fetch, void *arg)
{
    struct supersede_self *self = arg;
    fake_clock_advance_ms(self->clock, AGE_MS + 1, self->cache);
    return aside_fetch_copy(fetch, "late", 4);
}

TEST(a_flight_that_is_too_old_stores_nothing_though_nobody_came_to_see_it)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct supersede_self self = {cache, &clock};
    struct caller caller;
    caller_init(&caller, cache, "k", grows_too_old, &self);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "late"));
    CHECK_INT(caller.result.fenced, 1);
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

static aside_status is_superseded(aside_fetch *fetch, void *arg)
{
    struct supersede_self *self = arg;
    struct source new;
    struct caller next, inner;
    source_init(&new, "new", false);
    fake_clock_advance_ms(self->clock, AGE_MS + 1, self->cache);
    caller_ask(&next, self->cache, "k", &new, NULL);
    next.call.ttl_ms = ASIDE_NO_STORE; /* or the value would be a hit below */
    caller_start(&next);
    CHECK_STATUS(caller_join(&next), ASIDE_OK);
    CHECK(value_is(next.result.value, "new"));
    caller_drop(&next);
    caller_init(&inner, self->cache, "k", is_superseded, arg);
    CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
    return aside_fetch_copy(fetch, "late", 4);
}

TEST(a_fetch_whose_flight_is_superseded_is_still_its_own_key)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct supersede_self self = {cache, &clock};
    struct caller caller;
    caller_init(&caller, cache, "k", is_superseded, &self);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "late"));
    CHECK_INT(caller.result.fenced, 1);
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    end_cache(cache);
}

static void check_no_age_bound(int64_t max_flight_age_ms)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_flight_age_ms = max_flight_age_ms;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader, joiner;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "k", &source);
    fake_clock_advance_ms(&clock, INT64_C(86400000) * 365, cache);
    join_flight(&joiner, cache, "k", &source, NULL, 1);
    fake_clock_advance_ms(&clock, INT64_C(86400000) * 365, cache);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(joiner.result.fenced, 0);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK(holds(cache, "k", "v"));
    end_cache(cache);
}

TEST(an_age_of_0_or_forever_is_no_bound)
{
    check_no_age_bound(0);
    check_no_age_bound(ASIDE_FOREVER);
}

TEST(time_in_the_queue_counts_towards_the_age)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source busy, queued;
    struct caller first, second;
    source_init(&busy, "busy", true);
    source_init(&queued, "queued", false);
    caller_ask(&first, cache, "busy", &busy, token);
    caller_start(&first);
    gate_wait_arrived(&busy.gate, 1);
    caller_ask(&second, cache, "queued", &queued, token);
    caller_start(&second);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    fake_clock_advance_ms(&clock, AGE_MS + 1, cache);
    CHECK_STATUS(caller_join(&second), ASIDE_E_FETCH_TIMEOUT);
    CHECK_STATUS(caller_join(&first), ASIDE_E_FETCH_TIMEOUT);
    gate_open(&busy.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_STATUS(look(cache, "queued"), ASIDE_MISS);
    CHECK_STATUS(look(cache, "busy"), ASIDE_MISS);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(when_every_worker_hangs_callers_fail_fast)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.fetch_threads = 4;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source hung, good;
    struct caller callers[4], next;
    char keys[4][16];
    source_init(&hung, "hung", true);
    source_init(&good, "good", false);
    for (int i = 0; i < 4; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i);
        caller_ask(&callers[i], cache, keys[i], &hung, token);
        caller_start(&callers[i]);
    }
    gate_wait_arrived(&hung.gate, 4);
    WAIT_UNTIL(STAT(cache, waiters_now) == 4);
    fake_clock_advance_ms(&clock, AGE_MS + 1, cache);
    for (int i = 0; i < 4; i++)
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_FETCH_TIMEOUT);
    caller_ask(&next, cache, "next", &good, token);
    CHECK_STATUS(caller_run(&next), ASIDE_E_BUSY); /* it does not queue behind them */
    CHECK_STATUS(ask(cache, "inline", &good), ASIDE_OK);
    gate_open(&hung.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_STATUS(caller_run(&next), ASIDE_OK);
    caller_drop(&next);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- how many ------------------------------------------------------------------------------------ */

TEST(no_more_flights_than_max_flights)
{
    aside_options options = quiet_options();
    options.max_flights = 2;
    aside_cache *cache = open_cache(&options);
    struct source held, good;
    struct caller leaders[2], joiner, third;
    source_init(&held, "held", true);
    source_init(&good, "good", false);
    put(cache, "hit", "v", ASIDE_FOREVER);
    caller_ask(&leaders[0], cache, "0", &held, NULL);
    caller_ask(&leaders[1], cache, "1", &held, NULL);
    caller_start(&leaders[0]);
    caller_start(&leaders[1]);
    gate_wait_arrived(&held.gate, 2);
    CHECK_INT(STAT(cache, flights_now), 2);
    caller_ask(&third, cache, "2", &good, NULL);
    CHECK_STATUS(caller_run(&third), ASIDE_E_BUSY);
    CHECK_INT(third.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(good.fetches, 0);
    CHECK_STATUS(ask(cache, "hit", &good), ASIDE_OK); /* hits are served */
    join_flight(&joiner, cache, "0", &held, NULL, 1); /* and flights joined */
    gate_open(&held.gate);
    CHECK_STATUS(caller_join(&leaders[0]), ASIDE_OK);
    CHECK_STATUS(caller_join(&leaders[1]), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    caller_drop(&leaders[0]);
    caller_drop(&leaders[1]);
    caller_drop(&joiner);
    CHECK_STATUS(caller_run(&third), ASIDE_OK);
    caller_drop(&third);
    end_cache(cache);
}

TEST(no_more_waiters_than_max_waiters_in_one_flight)
{
    aside_options options = quiet_options();
    options.max_waiters = 2;
    aside_cache *cache = open_cache(&options);
    struct source held, other;
    struct caller leader, other_leader, joiners[2], other_joiner, third;
    source_init(&held, "held", true);
    source_init(&other, "other", true);
    lead_to_gate(&leader, cache, "k", &held);
    lead_to_gate(&other_leader, cache, "o", &other);
    join_flight(&joiners[0], cache, "k", &held, NULL, 1);
    join_flight(&joiners[1], cache, "k", &held, NULL, 2);
    caller_ask(&third, cache, "k", &held, NULL);
    CHECK_STATUS(caller_run(&third), ASIDE_E_BUSY);
    join_flight(&other_joiner, cache, "o", &other, NULL, 3); /* counted a flight */
    gate_open(&held.gate);
    gate_open(&other.gate);
    struct caller *all[] = {&leader, &other_leader, &joiners[0], &joiners[1], &other_joiner};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        CHECK_STATUS(caller_join(all[i]), ASIDE_OK);
        caller_drop(all[i]);
    }
    CHECK_INT(held.fetches, 1);
    CHECK_STATUS(caller_run(&third), ASIDE_OK);
    CHECK_INT(third.result.outcome, ASIDE_OUTCOME_HIT);
    caller_drop(&third);
    end_cache(cache);
}

TEST(a_waiter_that_leaves_makes_room_for_another)
{
    aside_options options = quiet_options();
    options.max_waiters = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source held;
    struct caller leader, first, second;
    source_init(&held, "held", true);
    lead_to_gate(&leader, cache, "k", &held);
    join_flight(&first, cache, "k", &held, token, 1);
    caller_ask(&second, cache, "k", &held, NULL);
    CHECK_STATUS(caller_run(&second), ASIDE_E_BUSY);
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&first), ASIDE_E_CANCELLED);
    WAIT_UNTIL(STAT(cache, waiters_now) == 0);
    join_flight(&second, cache, "k", &held, NULL, 1);
    gate_open(&held.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&second), ASIDE_OK);
    caller_drop(&leader);
    caller_drop(&second);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(no_more_queued_fetches_than_max_queued)
{
    aside_options options = quiet_options();
    options.fetch_threads = 1;
    options.max_queued = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source held, good;
    struct caller busy, queued, third;
    source_init(&held, "held", true);
    source_init(&good, "good", false);
    caller_ask(&busy, cache, "busy", &held, token);
    caller_start(&busy);
    gate_wait_arrived(&held.gate, 1);
    caller_ask(&queued, cache, "queued", &good, token);
    caller_start(&queued);
    WAIT_UNTIL(STAT(cache, queued_now) == 1);
    caller_ask(&third, cache, "third", &good, token);
    CHECK_STATUS(caller_run(&third), ASIDE_E_BUSY);
    CHECK_INT(good.fetches, 0);
    CHECK_STATUS(ask(cache, "inline", &good), ASIDE_OK); /* whoever can not leave needs no worker */
    gate_open(&held.gate);
    CHECK_STATUS(caller_join(&busy), ASIDE_OK);
    CHECK_STATUS(caller_join(&queued), ASIDE_OK);
    caller_drop(&busy);
    caller_drop(&queued);
    CHECK_STATUS(caller_run(&third), ASIDE_OK);
    caller_drop(&third);
    CHECK_INT(STAT(cache, queued_now), 0);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(bounds_of_0_are_no_bounds)
{
    aside_options options = quiet_options();
    options.max_flights = options.max_waiters = options.max_queued = 0;
    options.max_bytes = options.max_entries = 0;
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source held;
    static struct caller callers[40];
    static char keys[20][16];
    source_init(&held, "held", true);
    for (int i = 0; i < 20; i++)
        snprintf(keys[i], sizeof keys[i], "%d", i);
    for (int i = 0; i < 40; i++) { /* two callers a key: one flies, nineteen are queued */
        caller_ask(&callers[i], cache, keys[i / 2], &held, token);
        caller_start(&callers[i]);
    }
    WAIT_UNTIL(STAT(cache, waiters_now) == 40);
    WAIT_UNTIL(STAT(cache, queued_now) == 19);
    CHECK_INT(STAT(cache, flights_now), 20);
    gate_open(&held.gate);
    for (int i = 0; i < 40; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    CHECK_INT(held.fetches, 20);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- a leader who cannot leave ------------------------------------------------------------------- */

static aside_status start_nothing(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

/* With a start hook his fetch runs on a worker, and his argument may be on his stack (C7). */
TEST(a_leader_who_cannot_leave_supersedes_his_flight_in_time_and_stays)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_flight_age_ms = 100;
    options.worker.start = start_nothing;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller leader;
    source_init(&source, "old", true);
    lead_to_gate(&leader, cache, "k", &source);
    fake_clock_advance_ms(&clock, 99, cache);
    CHECK_INT(STAT(cache, superseded), 0);
    fake_clock_advance_ms(&clock, 1, cache);
    WAIT_UNTIL(STAT(cache, superseded) == 1); /* nobody else was there to do it */
    CHECK(!leader.done);
    put(cache, "k", "new", ASIDE_FOREVER);
    CHECK(!leader.done);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK(holds(cache, "k", "new"));
    end_cache(cache);
}
