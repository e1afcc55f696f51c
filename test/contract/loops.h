/*
 * loops.h -- what the tests for event loops share: inboxes, calls that do not wait, what came of
 * them, and fetches that are completed by hand.
 */
#ifndef ASIDE_CONTRACT_LOOPS_H
#define ASIDE_CONTRACT_LOOPS_H

#include "helpers.h"

#include <poll.h>

/* ---- fetches that are completed by hand ---------------------------------------------------------- */

#define MOST_HELD 8

/* A source whose fetches all return ASIDE_PENDING; the test completes them, first come first. */
struct held {
    _Atomic int fetches;
    int completed;
    _Atomic(aside_fetch *) fetch[MOST_HELD];
};

static inline aside_status hold_fetch(aside_fetch *fetch, void *arg)
{
    struct held *held = (struct held *)arg;
    int number = atomic_load(&held->fetches);
    CHECK(number < MOST_HELD);
    atomic_store(&held->fetch[number], aside_fetch_ref(fetch));
    atomic_fetch_add(&held->fetches, 1);
    return ASIDE_PENDING;
}

/* The next one, which the caller gives back. */
static inline aside_fetch *held_next(struct held *held)
{
    WAIT_UNTIL(atomic_load(&held->fetches) > held->completed);
    return atomic_load(&held->fetch[held->completed++]);
}

static inline void complete(struct held *held, const char *text)
{
    aside_fetch *fetch = held_next(held);
    CHECK_STATUS(aside_fetch_copy(fetch, text, strlen(text)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
}

static inline void complete_tagged(struct held *held, const char *text, const char *tag)
{
    aside_fetch *fetch = held_next(held);
    CHECK_STATUS(aside_fetch_add_tag(fetch, tag, strlen(tag)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_copy(fetch, text, strlen(text)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
}

static inline void complete_by_failure(struct held *held, int code)
{
    aside_fetch *fetch = held_next(held);
    CHECK_STATUS(aside_fetch_complete(fetch, aside_fetch_fail(fetch, code)), ASIDE_OK);
    aside_fetch_unref(fetch);
}

/* A call that leads on this thread and comes back at once. */
static inline aside_call call_held(struct held *held)
{
    aside_call call = {ASIDE_CALL, .fetch = hold_fetch, .arg = held};
    call.nonblocking = 1;
    return call;
}

/* ---- inboxes ------------------------------------------------------------------------------------- */

static inline aside_inbox *inbox_open(void)
{
    aside_inbox *inbox = NULL;
    CHECK_STATUS(aside_inbox_new(&inbox), ASIDE_OK);
    CHECK(inbox != NULL);
    return inbox;
}

static inline size_t dispatch_some(aside_inbox *inbox, size_t budget)
{
    size_t dispatched = 99;
    CHECK_STATUS(aside_inbox_dispatch(inbox, budget, &dispatched), ASIDE_OK);
    return dispatched;
}

static inline size_t dispatch(aside_inbox *inbox)
{
    return dispatch_some(inbox, 0);
}

static inline bool becomes_readable(aside_inbox *inbox, int timeout_ms)
{
    struct pollfd ready = {.fd = -1, .events = POLLIN, .revents = 0};
    CHECK_STATUS(aside_inbox_fd(inbox, &ready.fd), ASIDE_OK);
    return poll(&ready, 1, timeout_ms) == 1;
}

static inline bool is_readable(aside_inbox *inbox)
{
    return becomes_readable(inbox, 0);
}

/* As a loop does: sleeps until there is something, then dispatches, until so many were called. */
static inline void dispatch_until(aside_inbox *inbox, size_t count)
{
    for (size_t done = 0; done < count; done += dispatch(inbox))
        CHECK(becomes_readable(inbox, (int)(test_patience_ns() / 1000000)));
}

/* ---- what came of a call ------------------------------------------------------------------------- */

struct told {
    _Atomic int times;
    int turn; /* of all that were told in this process */
    aside_status status;
    aside_result result;
    pthread_t by;
    void (*then)(struct told *told); /* once that is noted */
    void *arg;
};

static _Atomic int tellings;

static inline void be_told(void *ctx, aside_status status, aside_result *result)
{
    struct told *told = (struct told *)ctx;
    CHECK_INT(atomic_load(&told->times), 0); /* exactly once */
    CHECK((status == ASIDE_OK) == (result->value != NULL));
    CHECK(status != ASIDE_PENDING);
    told->status = status;
    told->result = *result;
    told->by = pthread_self();
    told->turn = ++tellings;
    atomic_store(&told->times, 1);
    if (told->then != NULL)
        told->then(told);
}

/* Forgets what was there. What is told at once, is in *told as well. */
static inline aside_status begin(struct told *told, aside_cache *cache, const char *key,
                                 const aside_call *call, aside_inbox *inbox)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_value_unref(told->result.value);
    told->result.value = NULL;
    atomic_store(&told->times, 0);
    aside_status status =
        aside_get_async(cache, key, strlen(key), call, inbox, be_told, told, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (status == ASIDE_PENDING)
        return status;
    CHECK_INT(atomic_load(&told->times), 0);
    told->status = status;
    told->result = result;
    return status;
}

/* The same, and it waits. */
static inline void begin_pending(struct told *told, aside_cache *cache, const char *key,
                                 const aside_call *call, aside_inbox *inbox)
{
    CHECK_STATUS(begin(told, cache, key, call, inbox), ASIDE_PENDING);
}

static inline void drop_told(struct told *told)
{
    aside_value_unref(told->result.value);
    told->result.value = NULL;
}

static inline void check_told(struct told *told, aside_status status, aside_outcome outcome)
{
    CHECK_INT(atomic_load(&told->times), 1);
    CHECK_STATUS(told->status, status);
    CHECK_INT(told->result.outcome, outcome);
}

/* And gives it back. */
static inline void check_value(struct told *told, aside_outcome outcome, const char *text)
{
    check_told(told, ASIDE_OK, outcome);
    CHECK(value_is(told->result.value, text));
    drop_told(told);
}

/* Nothing is left: no caller, no flight, no block of a ledger. */
static inline void check_all_quiet(aside_cache *cache)
{
    CHECK_INT(STAT(cache, waiters_now), 0);
    CHECK_INT(STAT(cache, flights_now), 0);
}

/* ---- a place for all of that --------------------------------------------------------------------- */

/* One cache, one inbox, one source that is completed by hand. */
struct place {
    struct ledger ledger;
    struct fake_clock clock;
    aside_cache *cache;
    aside_inbox *inbox;
    struct held held;
    aside_call call; /* a nonblocking one of held */
};

static inline aside_options place_options(struct place *place)
{
    memset((void *)place, 0, sizeof *place);
    place->call = call_held(&place->held);
    aside_options options = quiet_options();
    options.alloc = ledger_init(&place->ledger);
    return options;
}

static inline void place_open_with(struct place *place, const aside_options *options)
{
    place->cache = open_cache(options);
    place->inbox = inbox_open();
}

static inline void place_open(struct place *place)
{
    aside_options options = place_options(place);
    place_open_with(place, &options);
}

static inline void place_open_clocked(struct place *place)
{
    aside_options options = place_options(place);
    options.clock = fake_clock_init(&place->clock);
    place_open_with(place, &options);
}

static inline void place_move_ms(struct place *place, int64_t ms)
{
    fake_clock_advance_ms(&place->clock, ms, place->cache);
}

static inline aside_status place_begin(struct place *place, struct told *told)
{
    return begin(told, place->cache, "k", &place->call, place->inbox);
}

static inline void place_wait(struct place *place, struct told *told)
{
    CHECK_STATUS(place_begin(place, told), ASIDE_PENDING);
}

/* Nobody waits any more, and nothing is left. */
static inline void place_close(struct place *place)
{
    CHECK_INT(STAT(place->cache, waiters_now), 0);
    end_cache(place->cache);
    aside_inbox_free(place->inbox);
    WAIT_UNTIL(place->ledger.live_blocks == 0); /* a worker may still be on its way out */
}

/* With a value that is 20 ms past its ttl. */
static inline void place_open_stale(struct place *place, aside_freshness freshness)
{
    aside_options options = place_options(place);
    struct told told = {0};
    options.clock = fake_clock_init(&place->clock);
    options.close_wait_ms = 0; /* nobody moves the clock then */
    options.default_ttl_ms = 10;
    options.freshness = freshness;
    place_open_with(place, &options);
    place_wait(place, &told);
    complete(&place->held, "old");
    CHECK_INT(dispatch(place->inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "old");
    place_move_ms(place, 30);
}

#endif
