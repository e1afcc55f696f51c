/*
 * group.c -- the singleflight group without a cache: callers lead, join, leave, are forgotten,
 * refused and sent away, and what their fetches gave is freed once.
 */
#include "stress.h"

#include <aside/group.h>

enum { ASKERS = 4, HELPER = ASKERS };

/* ---- short forms --------------------------------------------------------------------------------- */

static aside_group *group_open(const aside_options *options)
{
    aside_group *group = NULL;
    CHECK_STATUS(aside_group_new(&group, options), ASIDE_OK);
    return group;
}

static void group_end(aside_group *group)
{
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

static aside_stats group_stats(const aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats;
}

#define GSTAT(group, member) (group_stats(group).member)

static aside_status ask(aside_group *group, uint64_t key, const aside_call *call,
                        aside_result *result)
{
    aside_status status = aside_group_do(group, &key, sizeof key, call, result);
    CHECK((status == ASIDE_OK) == (result->value != NULL));
    CHECK(result->outcome != ASIDE_OUTCOME_HIT);
    CHECK_INT(result->ttl_left_ms, 0);
    return status;
}

/* ---- what fetches give --------------------------------------------------------------------------- */

#define GIVEN_MOST 256

/* Each value wraps a slot, whose destructor counts there; its number is the value's version. */
struct given {
    _Atomic int made;
    _Atomic int freed[GIVEN_MOST];
};

static void given_begin(struct given *given)
{
    memset((void *)given, 0, sizeof *given);
}

static void given_free(void *ptr, void *its_given)
{
    struct given *given = its_given;
    _Atomic int *slot = ptr;
    CHECK(slot >= given->freed && slot < given->freed + GIVEN_MOST);
    CHECK_INT(atomic_fetch_add(slot, 1), 0);
}

static aside_value *given_new(struct given *given, int version)
{
    aside_value *value = NULL;
    CHECK(version < GIVEN_MOST);
    CHECK_STATUS(aside_value_wrap(&given->freed[version], 1, given_free, given, &value), ASIDE_OK);
    return value;
}

static int given_version(const struct given *given, const aside_value *value)
{
    const _Atomic int *slot = aside_value_data(value);
    CHECK(slot >= given->freed && slot < given->freed + given->made);
    CHECK_INT(*slot, 0); /* alive as long as somebody has it */
    return (int)(slot - given->freed);
}

static bool given_all_freed(const struct given *given)
{
    for (int i = 0; i < given->made; i++)
        if (given->freed[i] == 0)
            return false;
    return true;
}

/* ---- fetches that are completed later ------------------------------------------------------------ */

#define BOX 16

/* Where a fetch leaves itself, with a reference, for whoever completes it. */
struct box {
    _Atomic(aside_fetch *) slot[BOX];
};

static bool box_put(struct box *box, aside_fetch *fetch)
{
    for (int i = 0; i < BOX; i++) {
        aside_fetch *none = NULL;
        aside_fetch_ref(fetch);
        if (atomic_compare_exchange_strong(&box->slot[i], &none, fetch))
            return true;
        aside_fetch_unref(fetch);
    }
    return false;
}

static aside_fetch *box_take(struct box *box)
{
    for (int i = 0; i < BOX; i++) {
        aside_fetch *fetch = atomic_exchange(&box->slot[i], NULL);
        if (fetch)
            return fetch;
    }
    return NULL;
}

/* A fetch must not end a thread of the pool. */
static _Thread_local bool belongs_to_pool;

/* ---- one key ------------------------------------------------------------------------------------- */

/* Its fetches are counted from outside. */
struct single {
    aside_group *group;
    uint64_t key;
    struct given given;
    struct box box;
    _Atomic int running;
    _Atomic int forgets; /* that have begun, but for those that found nothing */
    _Atomic int out;     /* askers that have done */
    _Atomic int floor;   /* versions below it began before a forget that has returned */
    _Atomic bool fenced[GIVEN_MOST];
    aside_result result[ASKERS];
};

static void single_begin(struct single *single, uint64_t round)
{
    single->key = round;
    given_begin(&single->given);
    single->forgets = single->out = single->floor = 0;
    memset((void *)single->fenced, 0, sizeof single->fenced);
}

/* At most one at a time, but for those that were forgotten. Before the answer it counts no more: the
 * next may begin at once. */
static int single_runs(struct single *single)
{
    CHECK(atomic_fetch_add(&single->running, 1) <= atomic_load(&single->forgets));
    return atomic_fetch_add(&single->given.made, 1);
}

static void single_ends(struct single *single)
{
    CHECK(atomic_fetch_sub(&single->running, 1) > 0);
}

static aside_status single_fetch(aside_fetch *fetch, void *arg)
{
    struct single *single = arg;
    int version = single_runs(single);
    CHECK_STATUS(aside_fetch_give(fetch, given_new(&single->given, version)), ASIDE_OK);
    dawdle(4);
    if (test_random() % 3 == 0 && box_put(&single->box, fetch))
        return ASIDE_PENDING;
    single_ends(single);
    return ASIDE_OK;
}

static void single_complete(struct single *single, aside_fetch *fetch)
{
    dawdle(4);
    single_ends(single);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
}

/* Completes what is left to it until all askers have done. */
static void single_help(struct single *single)
{
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    while (single->out < ASKERS) {
        aside_fetch *fetch = box_take(&single->box);
        CHECK(test_now_ns() < give_up);
        if (fetch)
            single_complete(single, fetch);
        else
            sched_yield();
    }
}

/* He cannot leave, or might by a token or a deadline that do not come. */
static aside_status single_ask(struct single *single, aside_cancel *token, aside_result *result)
{
    aside_call call = {ASIDE_CALL, .fetch = single_fetch, .arg = single};
    *result = (aside_result)ASIDE_RESULT_INIT;
    switch (test_random() % 3) {
    case 0: call.cancel = token; break;
    case 1: call.timeout_ms = 60000; break;
    default: break;
    }
    return ask(single->group, single->key, &call, result);
}

static void single_rest(struct single *single)
{
    WAIT_UNTIL(GSTAT(single->group, flights_now) == 0);
    CHECK_INT(GSTAT(single->group, waiters_now), 0);
    CHECK_INT(single->running, 0);
    WAIT_UNTIL(given_all_freed(&single->given)); /* a worker may have a last reference */
}

static void single_run(void (*work)(void *, int), int members, void (*judge)(struct single *))
{
    struct ground ground;
    static struct single single;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    memset((void *)&single, 0, sizeof single);
    single.group = group_open(&options);
    pool_open(&pool, members, work, &single);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        single_begin(&single, (uint64_t)round);
        pool_round(&pool);
        judge(&single);
        single_rest(&single);
    }
    pool_close(&pool);
    group_end(single.group);
    ground_end(&ground);
}

/* ---- cold_key ------------------------------------------------------------------------------------ */

static void cold_work(void *scenario, int self)
{
    struct single *single = scenario;
    aside_cancel *token;
    if (self == HELPER) {
        single_help(single);
        return;
    }
    token = token_new();
    CHECK_STATUS(single_ask(single, token, &single->result[self]), ASIDE_OK);
    aside_cancel_unref(token);
    atomic_fetch_add(&single->out, 1);
}

/* Nobody leaves: each fetch has its leader, and shared tells whether he was alone. */
static void cold_judge(struct single *single)
{
    int led[ASKERS] = {0}, got[ASKERS] = {0};
    CHECK(single->given.made >= 1 && single->given.made <= ASKERS);
    for (int i = 0; i < ASKERS; i++) {
        int version = given_version(&single->given, single->result[i].value);
        led[version] += single->result[i].outcome == ASIDE_OUTCOME_FETCHED;
        got[version]++;
        CHECK_INT(single->result[i].fenced, 0);
    }
    for (int i = 0; i < ASKERS; i++) {
        int version = given_version(&single->given, single->result[i].value);
        CHECK_INT(led[version], 1);
        CHECK_INT(single->result[i].shared, got[version] >= 2);
    }
    for (int i = 0; i < ASKERS; i++)
        aside_value_unref(single->result[i].value);
}

TEST(cold_key)
{
    single_run(cold_work, ASKERS + 1, cold_judge);
}

/* ---- forget_races_completion --------------------------------------------------------------------- */

/* Who asks after a forget has returned gets what began after it. */
static void forget_ask(struct single *single)
{
    aside_cancel *token = token_new();
    for (int i = 0; i < 3; i++) {
        aside_result result;
        int floor = single->floor;
        CHECK_STATUS(single_ask(single, token, &result), ASIDE_OK);
        int version = given_version(&single->given, result.value);
        CHECK(version >= floor);
        if (result.fenced)
            single->fenced[version] = true;
        aside_value_unref(result.value);
    }
    aside_cancel_unref(token);
    atomic_fetch_add(&single->out, 1);
}

static void forget_forget(struct single *single)
{
    for (int i = 0; i < 4; i++) {
        dawdle(6);
        int began = single->given.made;
        atomic_fetch_add(&single->forgets, 1);
        aside_status status = aside_group_forget(single->group, &single->key, sizeof single->key);
        if (single->floor < began) /* this is the only one who raises it */
            single->floor = began;
        if (status != ASIDE_OK) {
            CHECK_STATUS(status, ASIDE_MISS);
            atomic_fetch_sub(&single->forgets, 1);
        }
    }
}

static void forget_work(void *scenario, int self)
{
    if (self < ASKERS)
        forget_ask(scenario);
    else if (self == HELPER)
        single_help(scenario);
    else
        forget_forget(scenario);
}

/* Each forget that found a fetch has told those who got its result, and nobody else. */
static void forget_judge(struct single *single)
{
    static uint64_t before;
    int fenced = 0;
    for (int i = 0; i < single->given.made; i++)
        fenced += single->fenced[i];
    CHECK_INT(fenced, single->forgets);
    WAIT_UNTIL(GSTAT(single->group, flights_now) == 0);
    CHECK_INT(GSTAT(single->group, fetch_fenced) - before, fenced);
    before = GSTAT(single->group, fetch_fenced);
}

TEST(forget_races_completion)
{
    single_run(forget_work, ASKERS + 2, forget_judge);
}

/* ---- close_under_load ---------------------------------------------------------------------------- */

struct closing {
    aside_group *group;
    struct given given;
    struct box box;
    bool closes; /* or the last reference does */
    _Atomic int fetches_now, out;
};

/* One key in four is asked of a source that answers only when it is told to stop. */
static aside_status closing_fetch(aside_fetch *fetch, void *arg)
{
    struct closing *closing = arg;
    uint64_t key = stamp_key(fetch);
    int version = atomic_fetch_add(&closing->given.made, 1);
    atomic_fetch_add(&closing->fetches_now, 1);
    if (key % 4 == 0 && closing->closes)
        WAIT_UNTIL(aside_fetch_stopping(fetch));
    else
        dawdle(3);
    CHECK_STATUS(aside_fetch_give(fetch, given_new(&closing->given, version)), ASIDE_OK);
    if (key % 4 == 1 && box_put(&closing->box, fetch))
        return ASIDE_PENDING;
    atomic_fetch_sub(&closing->fetches_now, 1);
    return ASIDE_OK;
}

static aside_status closing_ask(struct closing *closing, aside_cancel *token)
{
    uint64_t key = test_random() % 8;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = closing_fetch, .arg = closing, .cancel = token,
                       .timeout_ms = test_random() % 2 ? 60000 : 0};
    aside_status status = ask(closing->group, key, &call, &result);
    if (status == ASIDE_OK)
        (void)given_version(&closing->given, result.value);
    else if (!(status == ASIDE_E_CANCELLED && token))
        CHECK_STATUS(status, ASIDE_E_CLOSED);
    aside_value_unref(result.value);
    return status;
}

static aside_status closing_forget(struct closing *closing)
{
    uint64_t key = test_random() % 8;
    aside_status status = aside_group_forget(closing->group, &key, sizeof key);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED);
    return status;
}

static void closing_close(struct closing *closing)
{
    uint64_t key = 1;
    dawdle(16);
    int64_t began = test_now_ns();
    CHECK_STATUS(aside_group_close(closing->group), ASIDE_OK);
    CHECK(test_now_ns() - began < INT64_C(15000000000));
    CHECK_INT(closing->fetches_now, 0); /* it has waited for all of them */
    CHECK_STATUS(closing_ask(closing, NULL), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_group_forget(closing->group, &key, sizeof key), ASIDE_E_CLOSED);
}

enum { CLOSERS = 2, CLOSING_ASKERS = 3, CLOSING_HELPER = CLOSERS + CLOSING_ASKERS };

/* E_CLOSED once, E_CLOSED for ever. */
static void closing_use(struct closing *closing, int self)
{
    aside_cancel *token = self == CLOSERS ? NULL : token_new();
    bool closed = false;
    for (int i = 0; i < 12; i++) {
        aside_status status =
            test_random() % 4 ? closing_ask(closing, token) : closing_forget(closing);
        CHECK(!closed || status == ASIDE_E_CLOSED);
        closed = status == ASIDE_E_CLOSED;
        if (i == 9)
            aside_cancel_fire(token);
    }
    aside_cancel_unref(token);
}

static void closing_help(struct closing *closing)
{
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    while (closing->out < CLOSING_HELPER) {
        aside_fetch *fetch = box_take(&closing->box);
        CHECK(test_now_ns() < give_up);
        if (!fetch) {
            sched_yield();
            continue;
        }
        atomic_fetch_sub(&closing->fetches_now, 1);
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
        aside_fetch_unref(fetch);
    }
}

/* Each has a reference, and gives it back when he has done. */
static void closing_work(void *scenario, int self)
{
    struct closing *closing = scenario;
    if (self == CLOSING_HELPER) {
        closing_help(closing);
        return;
    }
    if (self >= CLOSERS)
        closing_use(closing, self);
    else if (closing->closes)
        closing_close(closing);
    aside_group_unref(closing->group);
    atomic_fetch_add(&closing->out, 1);
}

static void closing_round(struct closing *closing, struct pool *pool)
{
    int made = threads_created(), joined = threads_joined();
    for (int i = closing->closes ? 0 : 1; i < CLOSING_HELPER; i++)
        (void)aside_group_ref(closing->group);
    given_begin(&closing->given);
    closing->out = 0;
    pool_round(pool);
    CHECK_INT(closing->fetches_now, 0);
    if (closing->closes) {
        aside_stats stats = group_stats(closing->group);
        CHECK_INT(stats.flights_now + stats.waiters_now + stats.workers_now, 0);
        aside_group_unref(closing->group);
    }
    /* Every thread that was made has been joined: nobody was left behind, nobody joined twice. */
    CHECK_INT(threads_created() - made, threads_joined() - joined);
    WAIT_UNTIL(given_all_freed(&closing->given));
}

TEST_LIMIT(close_under_load, 120)
{
    struct ground ground;
    static struct closing closing;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 3;
    options.close_wait_ms = 20000;
    pool_open(&pool, CLOSING_HELPER + 1, closing_work, &closing);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        closing.group = group_open(&options);
        closing.closes = round % 4 != 3;
        closing_round(&closing, &pool);
        WAIT_UNTIL(ground.ledger.live_blocks == 0);
    }
    pool_close(&pool);
    ground_end(&ground);
}

/* ---- sums_exact_after_races ---------------------------------------------------------------------- */

/* What callers were told, and fetches did. */
struct tally {
    _Atomic uint64_t led, joined, refused, misses, cancelled, timeouts, shared, ok, none, error;
    _Atomic uint64_t fetches, not_found, errors, abandoned, retained, released;
};

struct counting {
    aside_group *group;
    aside_cancel *token;
    struct given given;
    struct box box;
    struct tally tally;
    _Atomic int out;
};

/* This thread leads what it asks for itself, and ends in the fetch. */
static _Thread_local bool ends_here;

static void counting_retain(void *arg)
{
    struct counting *counting = arg;
    atomic_fetch_add(&counting->tally.retained, 1);
}

static void counting_release(void *arg)
{
    struct counting *counting = arg;
    atomic_fetch_add(&counting->tally.released, 1);
}

static _Noreturn void counting_end_thread(struct counting *counting)
{
    atomic_fetch_add(&counting->tally.abandoned, 1);
    if (ends_here) /* its call does not return */
        atomic_fetch_add(&counting->tally.led, 1);
    pthread_exit(NULL);
}

static aside_status counting_fetch(aside_fetch *fetch, void *arg)
{
    struct counting *counting = arg;
    uint64_t key = stamp_key(fetch);
    atomic_fetch_add(&counting->tally.fetches, 1);
    dawdle(3);
    if (ends_here || (key % 8 == 7 && !belongs_to_pool && test_random() % 4 == 0))
        counting_end_thread(counting);
    switch (key % 4) {
    case 0: atomic_fetch_add(&counting->tally.not_found, 1); return aside_fetch_not_found(fetch);
    case 1: atomic_fetch_add(&counting->tally.errors, 1); return aside_fetch_fail(fetch, (int)key);
    default: break;
    }
    int version = atomic_fetch_add(&counting->given.made, 1);
    CHECK_STATUS(aside_fetch_give(fetch, given_new(&counting->given, version)), ASIDE_OK);
    return key % 4 == 2 && box_put(&counting->box, fetch) ? ASIDE_PENDING : ASIDE_OK;
}

static void counting_note(struct tally *tally, aside_status status, const aside_result *result)
{
    bool led = result->outcome == ASIDE_OUTCOME_FETCHED;
    bool joined = result->outcome == ASIDE_OUTCOME_JOINED;
    bool attached = led || joined;
    atomic_fetch_add(&tally->led, led);
    atomic_fetch_add(&tally->joined, joined);
    atomic_fetch_add(&tally->misses, !attached && status == ASIDE_MISS);
    atomic_fetch_add(&tally->refused, !attached && status != ASIDE_MISS);
    atomic_fetch_add(&tally->cancelled, attached && status == ASIDE_E_CANCELLED);
    atomic_fetch_add(&tally->timeouts, attached && status == ASIDE_E_TIMEOUT);
    atomic_fetch_add(&tally->shared, result->shared != 0);
    atomic_fetch_add(&tally->ok, status == ASIDE_OK);
    atomic_fetch_add(&tally->none, status > 0);
    atomic_fetch_add(&tally->error, status < 0);
}

/* Only what the header allows for such a key and such a call. */
static void counting_check(uint64_t key, const aside_call *call, aside_status status,
                           const aside_result *result)
{
    if (status == ASIDE_MISS)
        CHECK_INT(call->timeout_ms, ASIDE_NO_WAIT);
    else if (status == ASIDE_E_TIMEOUT)
        CHECK(call->timeout_ms > 0);
    else if (status == ASIDE_E_CANCELLED)
        CHECK(aside_cancel_fired(call->cancel));
    else if (status == ASIDE_NOT_FOUND)
        CHECK_INT(key % 4, 0);
    else if (status == ASIDE_E_FETCH)
        CHECK(key % 4 == 1 && result->fetch_error == (int)key);
    else if (status == ASIDE_OK)
        CHECK(key % 4 >= 2);
    else
        CHECK(status == ASIDE_E_BUSY || status == ASIDE_E_ABANDONED);
}

static void counting_ask(struct counting *counting, uint64_t key, bool may_leave)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = counting_fetch, .arg = counting};
    switch (may_leave ? test_random() % 5 : 4) {
    case 0: call.timeout_ms = 1; break;
    case 1: call.cancel = counting->token; break;
    case 2: call.timeout_ms = ASIDE_NO_WAIT; break;
    default: break;
    }
    if (test_random() % 2) {
        call.arg_retain = counting_retain;
        call.arg_release = counting_release;
    }
    call.stop_when_abandoned = test_random() % 2;
    aside_status status = ask(counting->group, key, &call, &result);
    counting_check(key, &call, status, &result);
    counting_note(&counting->tally, status, &result);
    if (status == ASIDE_OK)
        (void)given_version(&counting->given, result.value);
    aside_value_unref(result.value);
}

static void *counting_guest(void *arg)
{
    struct counting *counting = arg;
    counting_ask(counting, test_random() % 6, true);
    ends_here = true;
    counting_ask(counting, 3, false); /* if another leads he comes back */
    return NULL;
}

static bool counting_complete(struct counting *counting)
{
    aside_fetch *fetch = box_take(&counting->box);
    if (!fetch)
        return false;
    if (test_random() % 4 == 0)
        atomic_fetch_add(&counting->tally.abandoned, 1); /* only the reference is given back */
    else
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
    return true;
}

static void counting_help(struct counting *counting)
{
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    while (counting->out < ASKERS) {
        CHECK(test_now_ns() < give_up);
        if (test_random() % 64 == 0)
            aside_cancel_fire(counting->token);
        else if (!counting_complete(counting))
            sched_yield();
    }
}

static void counting_work(void *scenario, int self)
{
    struct counting *counting = scenario;
    belongs_to_pool = true;
    if (self == HELPER) {
        counting_help(counting);
        return;
    }
    if (self == 0) /* whoever ends takes nothing with him */
        thread_join(thread_start(counting_guest, counting));
    for (int i = 0; i < 6; i++) {
        uint64_t key = test_random() % 8;
        counting_ask(counting, key, true);
        if (test_random() % 4 == 0)
            (void)aside_group_forget(counting->group, &key, sizeof key);
    }
    atomic_fetch_add(&counting->out, 1);
}

static void counting_judge(struct counting *counting)
{
    const struct tally *tally = &counting->tally;
    aside_stats stats = group_stats(counting->group);
    CHECK_INT(stats.misses_led, tally->led);
    CHECK_INT(stats.misses_joined, tally->joined);
    CHECK_INT(stats.misses, tally->misses);
    CHECK_INT(stats.refused, tally->refused);
    CHECK_INT(stats.cancelled, tally->cancelled);
    CHECK_INT(stats.timeouts, tally->timeouts);
    CHECK_INT(stats.shared, tally->shared);
    CHECK_INT(stats.get_with_fetch_ok, tally->ok);
    CHECK_INT(stats.get_with_fetch_none, tally->none);
    CHECK_INT(stats.get_with_fetch_error, tally->error);
    CHECK_INT(stats.fetches, tally->fetches);
    CHECK_INT(stats.fetch_not_found, tally->not_found);
    CHECK_INT(stats.fetch_errors, tally->errors);
    CHECK_INT(stats.fetch_abandoned, tally->abandoned);
    CHECK_INT(stats.hits + stats.entries + stats.bytes + stats.fetch_stored, 0);
    CHECK_INT(stats.waiters_now + stats.queued_now, 0);
    WAIT_UNTIL(tally->retained == tally->released);
    WAIT_UNTIL(given_all_freed(&counting->given));
}

TEST_LIMIT(sums_exact_after_races, 120)
{
    struct ground ground;
    static struct counting counting;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    options.max_flights = 4;
    options.max_waiters = 2;
    options.max_queued = 1;
    counting.group = group_open(&options);
    pool_open(&pool, ASKERS + 1, counting_work, &counting);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        given_begin(&counting.given);
        counting.out = 0;
        counting.token = token_new();
        pool_round(&pool);
        WAIT_UNTIL((counting_complete(&counting), GSTAT(counting.group, flights_now) == 0));
        counting_judge(&counting);
        aside_cancel_unref(counting.token);
    }
    pool_close(&pool);
    group_end(counting.group);
    ground_end(&ground);
}

/* ---- the_bound_is_neither_exceeded_nor_lost ------------------------------------------------------ */

#define BOUNDED_KEYS 16

struct bounded {
    aside_group *group;
    int most;
    struct box box;
    aside_cancel *token;
    _Atomic int running, out;
    bool refills; /* every fetch stays pending, and sends away who led it */
};

/* Under way is what has begun and is not being completed. */
static aside_status bounded_fetch(aside_fetch *fetch, void *arg)
{
    struct bounded *bounded = arg;
    CHECK(atomic_fetch_add(&bounded->running, 1) < bounded->most);
    dawdle(4);
    if ((bounded->refills || test_random() % 4 == 0) && box_put(&bounded->box, fetch)) {
        if (bounded->refills)
            aside_cancel_fire(bounded->token);
        return ASIDE_PENDING;
    }
    atomic_fetch_sub(&bounded->running, 1);
    if (!belongs_to_pool && test_random() % 32 == 0)
        pthread_exit(NULL);
    return aside_fetch_not_found(fetch);
}

static aside_status bounded_ask(struct bounded *bounded, uint64_t key, aside_cancel *token,
                                int64_t timeout_ms, aside_outcome *outcome)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = bounded_fetch, .arg = bounded, .cancel = token,
                       .timeout_ms = timeout_ms};
    aside_status status = ask(bounded->group, key, &call, &result);
    if (outcome)
        *outcome = result.outcome;
    return status;
}

static bool bounded_complete(struct bounded *bounded)
{
    aside_fetch *fetch = box_take(&bounded->box);
    if (!fetch)
        return false;
    atomic_fetch_sub(&bounded->running, 1);
    if (test_random() % 4)
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_NOT_FOUND), ASIDE_OK);
    aside_fetch_unref(fetch);
    return true;
}

static void bounded_help(struct bounded *bounded)
{
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    dawdle(16);
    aside_cancel_fire(bounded->token);
    while (bounded->out < ASKERS) {
        CHECK(test_now_ns() < give_up);
        if (!bounded_complete(bounded))
            sched_yield();
    }
}

static void bounded_work(void *scenario, int self)
{
    struct bounded *bounded = scenario;
    belongs_to_pool = true;
    if (self == HELPER) {
        bounded_help(bounded);
        return;
    }
    for (int i = 0; i < 4; i++) {
        uint64_t key = test_random() % BOUNDED_KEYS;
        aside_cancel *token = test_random() % 2 ? bounded->token : NULL;
        aside_status status = bounded_ask(bounded, key, token, test_random() % 4 ? 0 : 1, NULL);
        CHECK(status == ASIDE_NOT_FOUND || status == ASIDE_E_BUSY || status == ASIDE_E_CANCELLED ||
              status == ASIDE_E_TIMEOUT || status == ASIDE_E_ABANDONED || status == ASIDE_E_NOMEM);
        if (test_random() % 4 == 0)
            (void)aside_group_forget(bounded->group, &key, sizeof key);
    }
    atomic_fetch_add(&bounded->out, 1);
}

/* As many as the bound says may be led again, and not one more. */
static void bounded_refill(struct bounded *bounded)
{
    aside_outcome outcome;
    bounded->refills = true;
    for (int i = 0; i <= bounded->most; i++) {
        bounded->token = token_new();
        aside_status status = bounded_ask(bounded, (uint64_t)i, bounded->token, 0, &outcome);
        CHECK_STATUS(status, i < bounded->most ? ASIDE_E_CANCELLED : ASIDE_E_BUSY);
        CHECK_INT(outcome, i < bounded->most ? ASIDE_OUTCOME_FETCHED : ASIDE_OUTCOME_NONE);
        aside_cancel_unref(bounded->token);
    }
    CHECK_INT(GSTAT(bounded->group, flights_now), bounded->most);
    for (int i = 0; i < bounded->most; i++)
        CHECK(bounded_complete(bounded));
    bounded->refills = false;
    WAIT_UNTIL(GSTAT(bounded->group, flights_now) == 0);
    CHECK_INT(bounded->running, 0);
}

/* In some rounds an allocation fails: what was reserved for it is given back. */
static void bounded_round(struct bounded *bounded, struct pool *pool, struct ledger *ledger)
{
    bounded->out = 0;
    bounded->token = token_new();
    ledger->fail_at = test_random() % 4 ? 0 : 1 + (int64_t)(test_random() % 16);
    pool_round(pool);
    ledger->fail_at = 0;
    aside_cancel_unref(bounded->token);
    WAIT_UNTIL((bounded_complete(bounded), GSTAT(bounded->group, flights_now) == 0));
    aside_stats stats = group_stats(bounded->group);
    CHECK_INT(stats.flights_now + stats.waiters_now + stats.queued_now, 0);
    CHECK_INT(bounded->running, 0);
    bounded_refill(bounded);
}

TEST(the_bound_is_neither_exceeded_nor_lost)
{
    static const int bounds[] = {1, 2, 7};
    struct ground ground;
    static struct bounded bounded;
    struct pool pool;
    aside_options options = ground_begin(&ground);
    options.fetch_threads = 2;
    pool_open(&pool, ASKERS + 1, bounded_work, &bounded);
    long rounds = test_rounds(ROUNDS) / 3 + 1;
    for (int i = 0; i < 3; i++) {
        bounded.most = bounds[i];
        options.max_flights = (size_t)bounds[i];
        bounded.group = group_open(&options);
        for (long round = 0; round < rounds; round++)
            bounded_round(&bounded, &pool, &ground.ledger);
        group_end(bounded.group);
    }
    pool_close(&pool);
    ground_end(&ground);
}
