/*
 * async.c -- loops, plain callbacks and callers that wait, on a few keys, while fetches are completed
 * in any order, keys and tags deleted, tokens fired, clocks moved, inboxes freed and the cache closed.
 *
 * Who was told to wait is told exactly once, by nothing that has not happened; nobody sees a value
 * that is older than the last deletion that had returned before he came; and nothing is left behind.
 */
#include "stress.h"

#include <poll.h>

enum { LOOPS = 2, BLOCKER = LOOPS, PLAIN, COMPLETER, CHANGER, MEMBERS };
enum { KEYS = 3, TOKENS = 4, MOST_ASKS = 256, MOST_HELD = 512 };

struct loops;

/* One loop's thread has one inbox after another. */
struct loop {
    aside_inbox *inbox;
    _Atomic int freeing; /* how many of its inboxes are being freed, or have been */
};

/* One call. */
struct ask {
    struct loops *loops;
    uint64_t key, floor;
    struct loop *loop; /* NULL: none */
    int inbox;         /* of these the one whose number this is */
    int token;         /* -1: none */
    bool timed;
    _Atomic bool pending; /* it was told to wait */
    _Atomic int told;
};

struct held {
    aside_fetch *fetch;
    uint64_t version;
};

struct loops {
    struct ground ground;
    struct fake_clock fake;
    aside_cache *cache;
    bool closes, gives_back;
    struct loop loop[LOOPS];
    aside_cancel *token[TOKENS];
    _Atomic int fired[TOKENS];
    _Atomic int moved, closing; /* what has begun to happen */
    _Atomic uint64_t version[KEYS], floor[KEYS];
    _Atomic int asks, pending, told, busy; /* members that may still ask */
    struct ask ask[MOST_ASKS];
    pthread_mutex_t lock;
    _Atomic int held; /* written under the lock */
    struct held fetch[MOST_HELD];
};

/* ---- the source ---------------------------------------------------------------------------------- */

static void hold(struct loops *loops, aside_fetch *fetch, uint64_t version)
{
    pthread_mutex_lock(&loops->lock);
    CHECK(loops->held < MOST_HELD);
    loops->fetch[loops->held++] = (struct held){aside_fetch_ref(fetch), version};
    pthread_mutex_unlock(&loops->lock);
}

static void tag_of(uint64_t key, char tag[8])
{
    snprintf(tag, 8, "t%d", (int)key);
}

static aside_status answer(aside_fetch *fetch, uint64_t version)
{
    char tag[8];
    uint64_t key = stamp_key(fetch);
    tag_of(key, tag);
    aside_status status = aside_fetch_add_tag(fetch, tag, strlen(tag));
    return status == ASIDE_OK ? stamp_answer(fetch, key, version) : status;
}

/* It may say so now, or be completed by others later on. */
static aside_status ask_source(aside_fetch *fetch, void *arg)
{
    struct loops *loops = arg;
    uint64_t version = atomic_load(&loops->version[stamp_key(fetch)]);
    dawdle(3);
    switch (test_random() % 8) {
    case 0: return answer(fetch, version);
    case 1: return aside_fetch_fail(fetch, 5);
    default: hold(loops, fetch, version); return ASIDE_PENDING;
    }
}

/* False: none is held. */
static bool complete_one(struct loops *loops)
{
    struct held held = {NULL, 0};
    pthread_mutex_lock(&loops->lock);
    if (loops->held > 0) {
        int which = (int)(test_random() % (unsigned)loops->held);
        held = loops->fetch[which];
        loops->fetch[which] = loops->fetch[--loops->held];
    }
    pthread_mutex_unlock(&loops->lock);
    if (!held.fetch)
        return false;
    if (test_random() % 8 > 0) {
        aside_status status = answer(held.fetch, held.version);
        CHECK_STATUS(aside_fetch_complete(held.fetch, status), ASIDE_OK);
    }
    aside_fetch_unref(held.fetch); /* without a completion it is abandoned */
    return true;
}

/* ---- asking -------------------------------------------------------------------------------------- */

static void check_status(const struct ask *ask, aside_status status)
{
    const struct loops *loops = ask->loops;
    bool fired = ask->token >= 0 && loops->fired[ask->token];
    bool freed = ask->loop && ask->loop->freeing > ask->inbox;
    switch ((int)status) {
    case ASIDE_OK:
    case ASIDE_E_FETCH:
    case ASIDE_E_ABANDONED: return;
    case ASIDE_E_CANCELLED: CHECK(fired || freed); return;
    case ASIDE_E_TIMEOUT: CHECK(ask->timed && loops->moved); return;
    case ASIDE_E_FETCH_TIMEOUT: CHECK(loops->moved); return;
    case ASIDE_E_CLOSED: CHECK(loops->closing); return;
    default: CHECK_STATUS(status, ASIDE_E_BUSY);
    }
}

static void check_answer(const struct ask *ask, aside_status status, const aside_result *result)
{
    CHECK((status == ASIDE_OK) == (result->value != NULL));
    check_status(ask, status);
    if (status == ASIDE_OK)
        CHECK(stamp_of_value(result->value, ask->key) >= ask->floor);
    aside_value_unref(result->value);
}

static struct ask *new_ask(struct loops *loops, struct loop *loop, bool may_leave)
{
    int number = atomic_fetch_add(&loops->asks, 1);
    CHECK(number < MOST_ASKS);
    struct ask *ask = &loops->ask[number];
    memset((void *)ask, 0, sizeof *ask);
    ask->loops = loops;
    ask->key = test_random() % KEYS;
    ask->floor = atomic_load(&loops->floor[ask->key]);
    ask->loop = loop;
    ask->inbox = loop ? loop->freeing : 0;
    ask->token = may_leave && test_random() % 2 ? (int)(test_random() % TOKENS) : -1;
    ask->timed = may_leave && test_random() % 4 == 0;
    return ask;
}

static aside_call call_of(const struct ask *ask)
{
    aside_call call = {ASIDE_CALL, .fetch = ask_source, .arg = ask->loops};
    call.cancel = ask->token >= 0 ? ask->loops->token[ask->token] : NULL;
    call.timeout_ms = ask->timed ? 1 + (int64_t)(test_random() % 8) : 0;
    call.nonblocking = test_random() % 4 > 0;
    call.stop_when_abandoned = test_random() % 2;
    return call;
}

static void begin_one(struct loops *loops, struct loop *loop);
static void free_inbox(struct loop *loop);

/* What a callback does besides. */
static void meddle(struct ask *ask)
{
    struct loops *loops = ask->loops;
    switch (test_random() % 16) {
    case 0: (void)aside_delete(loops->cache, &ask->key, sizeof ask->key); break;
    case 1: (void)complete_one(loops); break;
    case 2:
        if (loops->asks < MOST_ASKS / 2 && !ask->loop)
            begin_one(loops, NULL);
        break;
    case 3:
        if (ask->loop && ask->loop->inbox)
            (void)aside_inbox_dispatch(ask->loop->inbox, 1, NULL);
        break;
    case 4:
        if (ask->loop && ask->loop->freeing == ask->inbox)
            free_inbox(ask->loop);
        break;
    default: break;
    }
}

static void be_told(void *ctx, aside_status status, aside_result *result)
{
    struct ask *ask = ctx;
    struct loops *loops = ask->loops;
    CHECK_INT(atomic_fetch_add(&ask->told, 1), 0);
    check_answer(ask, status, result);
    if (!loops->gives_back)
        meddle(ask);
    atomic_fetch_add(&loops->told, 1);
}

static void begin_one(struct loops *loops, struct loop *loop)
{
    struct ask *ask = new_ask(loops, loop, loop != NULL);
    aside_call call = call_of(ask);
    aside_result result = ASIDE_RESULT_INIT;
    atomic_fetch_add(&loops->pending, 1); /* before it can be told */
    aside_status status = aside_get_async(loops->cache, &ask->key, sizeof ask->key, &call,
                                          loop ? loop->inbox : NULL, be_told, ask, &result);
    if (status == ASIDE_PENDING) {
        atomic_store(&ask->pending, true);
        return;
    }
    check_answer(ask, status, &result);
    CHECK_INT(ask->told, 0);
    atomic_fetch_sub(&loops->pending, 1);
}

static void wait_for_one(struct loops *loops)
{
    struct ask *ask = new_ask(loops, NULL, true);
    aside_call call = call_of(ask);
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status =
        aside_get_with_fetch(loops->cache, &ask->key, sizeof ask->key, &call, &result);
    check_answer(ask, status, &result);
}

/* ---- the members --------------------------------------------------------------------------------- */

static void free_inbox(struct loop *loop)
{
    aside_inbox *inbox = loop->inbox;
    loop->inbox = NULL;
    atomic_fetch_add(&loop->freeing, 1);
    aside_inbox_free(inbox);
}

static void need_inbox(struct loop *loop)
{
    if (!loop->inbox)
        CHECK_STATUS(aside_inbox_new(&loop->inbox), ASIDE_OK);
}

static size_t dispatch_some(struct loop *loop)
{
    size_t dispatched = 0;
    if (loop->inbox)
        CHECK_STATUS(aside_inbox_dispatch(loop->inbox, test_random() % 3, &dispatched), ASIDE_OK);
    return dispatched;
}

static void go_round(struct loops *loops, struct loop *loop)
{
    for (int i = 0; i < 10; i++) {
        need_inbox(loop);
        begin_one(loops, loop);
        dawdle(4);
        if (test_random() % 2)
            (void)dispatch_some(loop);
        if (loop->inbox && test_random() % 16 == 0)
            free_inbox(loop);
    }
}

static void change_one(struct loops *loops)
{
    char tag[8];
    uint64_t key = test_random() % KEYS, version;
    tag_of(key, tag);
    switch (test_random() % 5) {
    case 0:
        version = atomic_fetch_add(&loops->version[key], 1) + 1;
        (void)aside_delete(loops->cache, &key, sizeof key);
        raise_to(&loops->floor[key], version);
        break;
    case 1:
        version = atomic_fetch_add(&loops->version[key], 1) + 1;
        (void)aside_delete_tag(loops->cache, tag, strlen(tag));
        raise_to(&loops->floor[key], version);
        break;
    case 2:
        atomic_store(&loops->fired[key % TOKENS], 1);
        aside_cancel_fire(loops->token[key % TOKENS]);
        break;
    default:
        atomic_store(&loops->moved, 1);
        fake_clock_advance_ms(&loops->fake, 1 + (int64_t)(test_random() % 6), loops->cache);
    }
}

static void change(struct loops *loops)
{
    for (int i = 0; i < 10; i++) {
        dawdle(6);
        change_one(loops);
    }
    if (!loops->closes)
        return;
    atomic_store(&loops->closing, 1);
    CHECK_STATUS(aside_close(loops->cache), ASIDE_OK);
}

static void loops_work(void *scenario, int self)
{
    struct loops *loops = scenario;
    dawdle(4);
    if (self == COMPLETER) {
        while (complete_one(loops) || atomic_load(&loops->busy) > 0)
            dawdle(3);
    } else if (self < LOOPS) {
        go_round(loops, &loops->loop[self]);
    } else if (self == CHANGER) {
        change(loops);
    } else {
        for (int i = 0; i < 10; i++)
            self == BLOCKER ? wait_for_one(loops) : begin_one(loops, NULL);
    }
    if (self == COMPLETER)
        return;
    if (loops->gives_back)
        aside_unref(loops->cache);
    atomic_fetch_sub(&loops->busy, 1);
}

/* ---- rounds -------------------------------------------------------------------------------------- */

static void loops_begin(struct loops *loops, const aside_options *base)
{
    aside_options options = *base;
    options.clock = fake_clock_init(&loops->fake);
    options.freshness.stale_ms = test_random() % 2 ? 10 : 0;
    options.freshness.stale_if_error_ms = test_random() % 2 ? 20 : 0;
    options.freshness.soft_timeout_ms = test_random() % 2 ? 3 : 0;
    options.freshness.refresh_ahead = test_random() % 2 ? 0.5 : 0;
    loops->closes = test_random() % 4 == 0;
    loops->gives_back = test_random() % 4 == 0;
    loops->moved = 0;
    loops->asks = loops->pending = loops->told = 0;
    loops->busy = MEMBERS - 1;
    loops->closing = loops->gives_back;
    loops->cache = cache_open(&options);
    for (int i = 2; i < MEMBERS && loops->gives_back; i++) /* one member has the first */
        aside_ref(loops->cache);
    for (int i = 0; i < TOKENS; i++) {
        loops->token[i] = token_new();
        loops->fired[i] = 0;
    }
    for (int i = 0; i < LOOPS; i++)
        loops->loop[i].freeing = 0;
}

static bool all_is_told(const struct loops *loops)
{
    return loops->told == loops->pending && loops->held == 0 &&
           STAT(loops->cache, waiters_now) == 0;
}

/* Whatever waits is told now: fetches end, and loops come round. */
static void loops_drain(struct loops *loops)
{
    int64_t give_up = test_now_ns() + test_patience_ns();
    bool drained = false;
    while (!drained) {
        CHECK(test_now_ns() < give_up);
        while (complete_one(loops))
            ;
        for (int i = 0; i < LOOPS; i++)
            (void)dispatch_some(&loops->loop[i]);
        drained = loops->gives_back ? loops->told == loops->pending && loops->held == 0
                                    : all_is_told(loops) && STAT(loops->cache, flights_now) == 0;
        test_yield();
    }
}

static void loops_end(struct loops *loops)
{
    for (int i = 0; i < LOOPS && test_random() % 2; i++)
        if (loops->loop[i].inbox)
            free_inbox(&loops->loop[i]);
    loops_drain(loops);
    for (int i = 0; i < loops->asks; i++)
        CHECK_INT(loops->ask[i].told, loops->ask[i].pending);
    for (int i = 0; i < LOOPS; i++)
        if (loops->loop[i].inbox)
            free_inbox(&loops->loop[i]);
    for (int i = 0; i < TOKENS; i++)
        aside_cancel_unref(loops->token[i]);
    if (!loops->gives_back)
        cache_end(loops->cache);
    while (complete_one(loops)) /* what a worker held after that */
        ;
}

TEST(everybody_is_told_exactly_once)
{
    static struct loops loops;
    struct pool pool;
    aside_options options = ground_begin(&loops.ground);
    int descriptors = process_descriptors();
    pthread_mutex_init(&loops.lock, NULL);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)1 << 18;
    options.default_ttl_ms = 10;
    options.max_flight_age_ms = 20;
    options.close_wait_ms = 0;
    pool_open(&pool, MEMBERS, loops_work, &loops);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        loops_begin(&loops, &options);
        pool_round(&pool);
        loops_end(&loops);
        WAIT_UNTIL(!complete_one(&loops) && loops.ground.ledger.live_blocks == 0);
    }
    pool_close(&pool);
    CHECK_INT(process_descriptors(), descriptors);
    ground_end(&loops.ground);
}
