/*
 * ring.c -- fetches that ask for each other at random, over two caches and a group, on their callers'
 * threads and on workers, while flights grow too old, tokens fire, keys are deleted and all is
 * closed: nobody hangs, and nobody is told of a ring that is none (F9).
 */
#include "stress.h"

#include <aside/group.h>

/* A node is a key of one of the hosts; who asks upwards goes from host to host. */
enum { HOSTS = 3, GROUP = 2, NODES = 15, OUTSIDE = -1 };
enum { ASKERS = 4, MOVER = ASKERS, CLOSER, MEMBERS };

#define AGE_MS 10

struct rules {
    bool upwards; /* fetches ask for greater nodes only: there are no rings */
    bool writes;  /* keys are deleted, set, expired, cleared, forgotten */
    bool leaves;  /* tokens fire, and some deadlines pass */
    bool ages;    /* flights are superseded; else nothing but the detection ends a ring */
    bool closes;  /* everything is closed meanwhile */
};

/* What callers of one host were told. */
struct told {
    _Atomic uint64_t hits, led, joined, refused, cancelled, timeouts, shared, ok, error;
};

/* ---- who waits for whom -------------------------------------------------------------------------- */

#define EDGES 128

/* Kept by those who wait: from the node whose fetch asks to the node that it asks for. */
struct edges {
    _Atomic int edge[EDGES]; /* 0: free; else 1 + from * NODES + to */
};

static _Atomic int *edge_add(struct edges *edges, int from, int to)
{
    for (unsigned at = (unsigned)test_random() % EDGES, i = 0; i < EDGES; i++) {
        _Atomic int *edge = &edges->edge[(at + i) % EDGES];
        int none = 0;
        if (atomic_compare_exchange_strong(edge, &none, 1 + from * NODES + to))
            return edge;
    }
    test_fail(__FILE__, __LINE__, "room for an edge", NULL);
}

static bool edges_lead(const struct edges *edges, int from, int to)
{
    unsigned reached = 1u << from, before;
    do {
        before = reached;
        for (int i = 0; i < EDGES; i++) {
            int edge = edges->edge[i];
            if (edge && reached >> (edge - 1) / NODES & 1)
                reached |= 1u << (edge - 1) % NODES;
        }
    } while (reached != before);
    return reached >> to & 1;
}

static void edges_check_none(const struct edges *edges)
{
    for (int i = 0; i < EDGES; i++)
        CHECK_INT(edges->edge[i], 0);
}

/* ---- the hosts ----------------------------------------------------------------------------------- */

#define BOX 16

struct jungle {
    struct rules rules;
    aside_cache *cache[GROUP];
    aside_group *group;
    struct fake_clock fake;
    aside_options options;
    aside_cancel *token;
    uint64_t round;
    struct edges edges;
    struct told told[HOSTS];
    _Atomic uint64_t asked, answered; /* calls */
    _Atomic(aside_fetch *) box[BOX];  /* fetches that are pending, each with a reference */
    _Atomic int out;                  /* members that have done, but for the mover */
};

static aside_status no_context(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

/* One with a pool of two, one whose fetches are bound to workers, a group with a pool of one. */
static void jungle_open(struct jungle *jungle)
{
    aside_options options = jungle->options;
    options.clock = (aside_clock){jungle->options.clock.now_ns, &jungle->fake};
    options.max_flight_age_ms = jungle->rules.ages ? AGE_MS : ASIDE_FOREVER;
    options.max_bytes = (size_t)1 << 20;
    options.close_wait_ms = ASIDE_FOREVER;
    options.fetch_threads = 1;
    CHECK_STATUS(aside_group_new(&jungle->group, &options), ASIDE_OK);
    options.fetch_threads = 2;
    jungle->cache[0] = cache_open(&options);
    options.fetch_threads = 16; /* nobody but a worker of its own may run what waits in its queue */
    options.worker.start = no_context;
    jungle->cache[1] = cache_open(&options);
}

static void jungle_close_host(struct jungle *jungle, int host)
{
    if (host == GROUP)
        CHECK_STATUS(aside_group_close(jungle->group), ASIDE_OK);
    else
        CHECK_STATUS(aside_close(jungle->cache[host]), ASIDE_OK);
}

static void jungle_end(struct jungle *jungle)
{
    for (int host = 0; host < HOSTS; host++)
        jungle_close_host(jungle, host);
    aside_unref(jungle->cache[0]);
    aside_unref(jungle->cache[1]);
    aside_group_unref(jungle->group);
}

static aside_stats host_stats(struct jungle *jungle, int host)
{
    aside_stats stats;
    if (host != GROUP)
        return test_stats(jungle->cache[host]);
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(jungle->group, &stats), ASIDE_OK);
    return stats;
}

/* A fetch that everybody has left may still ask another host: so nobody may ask meanwhile. */
static bool jungle_is_at_rest(struct jungle *jungle)
{
    uint64_t answered = jungle->answered;
    if (jungle->asked != answered)
        return false;
    for (int host = 0; host < HOSTS; host++)
        if (host_stats(jungle, host).flights_now > 0)
            return false;
    return jungle->asked == answered;
}

static void jungle_move_ms(struct jungle *jungle, int64_t ms)
{
    fake_clock_advance_ms(&jungle->fake, ms, jungle->cache[0]);
    CHECK_STATUS(aside_clock_changed(jungle->cache[1]), ASIDE_OK);
    CHECK_STATUS(aside_group_clock_changed(jungle->group), ASIDE_OK);
}

/* ---- asking -------------------------------------------------------------------------------------- */

static aside_status jungle_fetch(aside_fetch *fetch, void *arg);

static void note(struct told *told, aside_status status, const aside_result *result)
{
    bool led = result->outcome == ASIDE_OUTCOME_FETCHED;
    bool joined = result->outcome == ASIDE_OUTCOME_JOINED;
    atomic_fetch_add(&told->hits, result->outcome == ASIDE_OUTCOME_HIT);
    atomic_fetch_add(&told->led, led);
    atomic_fetch_add(&told->joined, joined);
    atomic_fetch_add(&told->refused, result->outcome == ASIDE_OUTCOME_NONE);
    atomic_fetch_add(&told->cancelled, (led || joined) && status == ASIDE_E_CANCELLED);
    atomic_fetch_add(&told->timeouts, (led || joined) && status == ASIDE_E_TIMEOUT);
    atomic_fetch_add(&told->shared, result->shared != 0);
    atomic_fetch_add(&told->ok, status == ASIDE_OK);
    atomic_fetch_add(&told->error, status < 0);
}

/* Who closes a ring is inside one of its fetches. Where nobody can leave, all others still wait, so
 * that the ring can be seen. */
static void check_ring(struct jungle *jungle, int from, int to)
{
    const struct rules *rules = &jungle->rules;
    CHECK(from != OUTSIDE);
    CHECK(!rules->upwards);
    if (!rules->leaves && !rules->ages && !rules->closes)
        CHECK(edges_lead(&jungle->edges, to, from));
}

static void check_status(struct jungle *jungle, const aside_call *call, aside_status status)
{
    const struct rules *rules = &jungle->rules;
    switch (status) {
    case ASIDE_E_CANCELLED: CHECK(rules->leaves && aside_cancel_fired(call->cancel)); break;
    case ASIDE_E_TIMEOUT: CHECK(rules->leaves && call->timeout_ms > 0); break;
    case ASIDE_E_FETCH_TIMEOUT: CHECK(rules->ages); break;
    case ASIDE_E_BUSY: CHECK(rules->ages); break; /* too many that were superseded still run */
    case ASIDE_E_CLOSED: CHECK(rules->closes); break;
    default: CHECK_STATUS(status, ASIDE_OK);
    }
}

static aside_call jungle_call(struct jungle *jungle)
{
    aside_call call = {ASIDE_CALL, .fetch = jungle_fetch, .arg = jungle};
    switch (test_random() % 4) {
    case 0: call.cancel = jungle->token; break;
    case 1: call.timeout_ms = jungle->rules.leaves && test_random() % 2 ? 4 : 86400000; break;
    default: break;
    }
    return call;
}

static void jungle_ask(struct jungle *jungle, int from, int to)
{
    uint64_t key = jungle->round * NODES + (uint64_t)to;
    int host = to % HOSTS;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = jungle_call(jungle);
    atomic_fetch_add(&jungle->asked, 1);
    _Atomic int *edge = from == OUTSIDE ? NULL : edge_add(&jungle->edges, from, to);
    aside_status status =
        host == GROUP ? aside_group_do(jungle->group, &key, sizeof key, &call, &result)
                      : aside_get_with_fetch(jungle->cache[host], &key, sizeof key, &call, &result);
    if (edge)
        atomic_store(edge, 0);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (status == ASIDE_OK)
        (void)stamp_of_value(result.value, key);
    else if (status == ASIDE_E_DEADLOCK)
        check_ring(jungle, from, to);
    else
        check_status(jungle, &call, status);
    note(&jungle->told[host], status, &result);
    aside_value_unref(result.value);
    atomic_fetch_add(&jungle->answered, 1);
}

static void jungle_write(struct jungle *jungle, int node)
{
    uint64_t key = jungle->round * NODES + (uint64_t)node;
    aside_cache *cache = node % HOSTS == GROUP ? NULL : jungle->cache[node % HOSTS];
    aside_status status;
    if (!cache)
        status = aside_group_forget(jungle->group, &key, sizeof key);
    else
        switch (test_random() % 8) {
        case 0: status = aside_clear(cache); break;
        case 1: status = aside_expire(cache, &key, sizeof key); break;
        case 2: status = stamp_set(cache, key, 1, 60000); break;
        default: status = aside_delete(cache, &key, sizeof key);
        }
    CHECK(status == ASIDE_OK || status == ASIDE_MISS ||
          (status == ASIDE_E_CLOSED && jungle->rules.closes));
}

/* ---- inside a fetch ------------------------------------------------------------------------------ */

/* Leaves it, with its answer, to the mover. */
static bool leave_pending(struct jungle *jungle, aside_fetch *fetch)
{
    for (int i = 0; i < BOX; i++) {
        aside_fetch *none = NULL;
        aside_fetch_ref(fetch);
        if (atomic_compare_exchange_strong(&jungle->box[i], &none, fetch))
            return true;
        aside_fetch_unref(fetch);
    }
    return false;
}

static void jungle_ask_more(struct jungle *jungle, int node)
{
    int most = jungle->rules.upwards ? NODES - 1 - node : NODES;
    if (most == 0)
        return;
    int to = (int)(test_random() % (unsigned)most);
    jungle_ask(jungle, node, jungle->rules.upwards ? node + 1 + to : to);
}

static aside_status jungle_fetch(aside_fetch *fetch, void *arg)
{
    struct jungle *jungle = arg;
    uint64_t key = stamp_key(fetch);
    int node = (int)(key % NODES);
    unsigned dice = (unsigned)(test_random() % 20);
    for (int asks = dice < 8 ? 0 : dice < 15 ? 1 : 2; asks > 0; asks--)
        jungle_ask_more(jungle, node);
    if (jungle->rules.writes && test_random() % 8 == 0)
        jungle_write(jungle, node); /* which fences this very fetch */
    if (test_random() % 2)
        CHECK_STATUS(aside_fetch_set_ttl(fetch, ASIDE_NO_STORE), ASIDE_OK);
    CHECK_STATUS(stamp_answer(fetch, key, 1), ASIDE_OK);
    return test_random() % 8 == 0 && leave_pending(jungle, fetch) ? ASIDE_PENDING : ASIDE_OK;
}

/* ---- the members --------------------------------------------------------------------------------- */

static void complete_pending(struct jungle *jungle)
{
    for (int i = 0; i < BOX; i++) {
        aside_fetch *fetch = atomic_exchange(&jungle->box[i], NULL);
        if (!fetch)
            continue;
        dawdle(3);
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
        aside_fetch_unref(fetch);
    }
}

static void jungle_disturb(struct jungle *jungle)
{
    if (jungle->rules.ages)
        jungle_move_ms(jungle, AGE_MS / 2 + 1);
    else if (jungle->rules.leaves)
        jungle_move_ms(jungle, 3);
    if (jungle->rules.leaves && test_random() % 4 == 0)
        aside_cancel_fire(jungle->token);
}

/* Disturbs a few times, and completes what is pending as long as the others are there. */
static void jungle_move(struct jungle *jungle)
{
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    int others = jungle->rules.closes ? ASKERS + 1 : ASKERS;
    for (int left = 6; jungle->out < others;) {
        CHECK(test_now_ns() < give_up);
        complete_pending(jungle);
        dawdle(6);
        if (left-- > 0)
            jungle_disturb(jungle);
    }
}

static void jungle_close(struct jungle *jungle)
{
    unsigned first = (unsigned)test_random() % HOSTS;
    for (unsigned i = 0; i < HOSTS; i++) {
        dawdle(12);
        jungle_close_host(jungle, (int)((first + i) % HOSTS));
    }
}

static void jungle_work(void *scenario, int self)
{
    struct jungle *jungle = scenario;
    if (self == MOVER) {
        jungle_move(jungle);
        return;
    }
    if (self == CLOSER)
        jungle_close(jungle);
    for (int i = 0; i < 3 && self < ASKERS; i++) {
        int node = (int)(test_random() % NODES);
        jungle_ask(jungle, OUTSIDE, node);
        if (jungle->rules.writes && test_random() % 2)
            jungle_write(jungle, node);
    }
    atomic_fetch_add(&jungle->out, 1);
}

/* ---- rounds -------------------------------------------------------------------------------------- */

/* Every call was counted once, by what its caller was told. */
static void jungle_judge(struct jungle *jungle)
{
    edges_check_none(&jungle->edges);
    for (int host = 0; host < HOSTS; host++) {
        const struct told *told = &jungle->told[host];
        aside_stats stats = host_stats(jungle, host);
        CHECK_INT(stats.flights_now + stats.waiters_now + stats.queued_now, 0);
        if (jungle->rules.closes) /* who finds it closed is not counted */
            continue;
        CHECK_INT(stats.hits, told->hits);
        CHECK_INT(stats.misses_led, told->led);
        CHECK_INT(stats.misses_joined, told->joined);
        CHECK_INT(stats.refused, told->refused);
        CHECK_INT(stats.misses, 0);
        CHECK_INT(stats.cancelled, told->cancelled);
        CHECK_INT(stats.timeouts, told->timeouts);
        CHECK_INT(stats.shared, told->shared);
        CHECK_INT(stats.get_with_fetch_ok, told->ok);
        CHECK_INT(stats.get_with_fetch_error, told->error);
        if (!jungle->rules.ages)
            CHECK_INT(stats.superseded, 0);
    }
}

static void jungle_round(struct jungle *jungle, struct pool *pool)
{
    jungle->out = 0;
    jungle->token = token_new();
    pool_round(pool);
    WAIT_UNTIL((complete_pending(jungle), jungle_is_at_rest(jungle)));
    jungle_judge(jungle);
    aside_cancel_unref(jungle->token);
    if (jungle->round++ % 64 == 63 && !jungle->rules.closes)
        for (int i = 0; i < GROUP; i++)
            CHECK_STATUS(aside_clear(jungle->cache[i]), ASIDE_OK);
}

static void jungle_run(struct rules rules, long rounds)
{
    struct ground ground;
    static struct jungle jungle;
    struct pool pool;
    memset((void *)&jungle, 0, sizeof jungle);
    jungle.rules = rules;
    jungle.options = ground_begin(&ground);
    jungle.options.clock = fake_clock_init(&jungle.fake);
    pool_open(&pool, rules.closes ? MEMBERS : CLOSER, jungle_work, &jungle);
    if (!rules.closes)
        jungle_open(&jungle);
    for (long round = 0; round < rounds; round++) {
        if (rules.closes)
            jungle_open(&jungle);
        jungle_round(&jungle, &pool);
        if (rules.closes)
            jungle_end(&jungle);
    }
    pool_close(&pool);
    if (!rules.closes)
        jungle_end(&jungle);
    ground_end(&ground);
}

TEST(rings_and_no_rings)
{
    jungle_run((struct rules){0}, test_rounds(ROUNDS));
}

TEST(rings_against_writes)
{
    jungle_run((struct rules){.writes = true}, test_rounds(ROUNDS));
}

TEST(rings_against_tokens_and_deadlines)
{
    jungle_run((struct rules){.leaves = true, .writes = true}, test_rounds(ROUNDS));
}

TEST(rings_against_supersede)
{
    jungle_run((struct rules){.ages = true, .writes = true}, test_rounds(ROUNDS));
}

TEST(rings_against_close)
{
    jungle_run((struct rules){.closes = true, .leaves = true, .writes = true}, test_rounds(ROUNDS));
}

TEST(upwards_there_are_no_rings)
{
    struct rules rules = {.upwards = true, .writes = true};
    jungle_run(rules, test_rounds(ROUNDS) / 2);
    rules.leaves = rules.ages = true;
    jungle_run(rules, test_rounds(ROUNDS) / 2);
}
