/*
 * token.c -- trees of tokens: fired, late, asked for descriptors, grown and given back, while calls
 * that wait with them end.
 */
#include "stress.h"
#include "sanitizers.h"

#include <aside/group.h>
#include <malloc.h>
#include <poll.h>

enum { CALLERS = 4, MOVER = CALLERS, LOOKER, MEMBERS };

/* What has begun to happen to a token. */
enum { FIRED = 1, LATE = 2 };

#define FAR_MS 1000000 /* longer than any clock here is moved in a round */

/* ---- short forms --------------------------------------------------------------------------------- */

static aside_cancel *child_of(aside_cancel *parent)
{
    aside_cancel *token = NULL;
    CHECK_STATUS(aside_cancel_child(parent, &token), ASIDE_OK);
    return token;
}

static void unref_both(aside_cancel *one, aside_cancel *other)
{
    bool swap = test_random() % 2;
    aside_cancel_unref(swap ? other : one);
    dawdle(3);
    aside_cancel_unref(swap ? one : other);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN, .revents = 0};
    return poll(&ready, 1, timeout_ms) == 1 && ready.revents == POLLIN;
}

static aside_stats group_stats(const aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats;
}

static void group_end(aside_group *group)
{
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

/* ---- a cache, a group, and the clock of the tokens ----------------------------------------------- */

struct places {
    aside_cache *cache;
    aside_group *group;
    struct fake_clock fake; /* also the cache's */
    aside_clock moved;      /* the same, as tokens know it */
};

static void places_open(struct places *places, struct ground *ground)
{
    aside_options options = ground_begin(ground);
    options.fetch_threads = 2;
    options.max_bytes = (size_t)1 << 20;
    CHECK_STATUS(aside_group_new(&places->group, &options), ASIDE_OK);
    options.clock = places->moved = fake_clock_init(&places->fake);
    places->cache = cache_open(&options);
}

static void places_move_ms(struct places *places, int64_t ms)
{
    fake_clock_advance_ms(&places->fake, ms, places->cache);
    CHECK_STATUS(aside_group_clock_changed(places->group), ASIDE_OK);
}

static void places_come_to_rest(struct places *places)
{
    WAIT_UNTIL(STAT(places->cache, flights_now) == 0);
    WAIT_UNTIL(group_stats(places->group).flights_now == 0);
    CHECK_INT(STAT(places->cache, waiters_now), 0);
    CHECK_INT(group_stats(places->group).waiters_now, 0);
}

static void places_close(struct places *places, struct ground *ground)
{
    group_end(places->group);
    cache_end(places->cache);
    ground_end(ground);
}

static aside_status places_ask(struct places *places, bool in_group, uint64_t key,
                               const aside_call *call, aside_result *result)
{
    aside_status status = in_group
                              ? aside_group_do(places->group, &key, sizeof key, call, result)
                              : aside_get_with_fetch(places->cache, &key, sizeof key, call, result);
    CHECK((status == ASIDE_OK) == (result->value != NULL));
    if (status == ASIDE_OK)
        (void)stamp_of_value(result->value, key);
    return status;
}

/* ---- a tree, and one call with each of its tokens ------------------------------------------------ */

/* A parent whose children are made by the callers, while others fire it, move its clock and look. */
struct tree {
    struct places places;
    aside_clock clock; /* of this round's deadlines: the moved one, or the system's */
    uint64_t key;
    aside_cancel *parent;
    _Atomic(aside_cancel *) shown[CALLERS][2]; /* each with a reference, for mover and looker */
    _Atomic int begun[CALLERS], parent_begun;
    _Atomic int fetches, returned;
    _Atomic(aside_fetch *) handed;
    bool held;       /* the fetch answers only when every caller has returned */
    bool done_first; /* the value was there before the parent was fired */
    aside_status status[CALLERS];
    aside_outcome outcome[CALLERS];
};

/* Each member has a reference of the parent. */
static void tree_begin(struct tree *tree, uint64_t round)
{
    static const aside_clock system = {NULL, NULL};
    tree->clock = test_random() % 4 ? tree->places.moved : system;
    tree->key = round;
    tree->parent = token_new();
    for (int i = 1; i < MEMBERS; i++)
        aside_cancel_ref(tree->parent);
    for (int i = 0; i < CALLERS; i++)
        tree->begun[i] = 0;
    tree->parent_begun = 0;
    tree->fetches = tree->returned = 0;
    tree->handed = NULL;
    tree->done_first = false;
}

/* What nobody took is given back, and then nothing is left of the tree. */
static void tree_end(struct tree *tree, int descriptors)
{
    for (int i = 0; i < CALLERS; i++)
        for (int k = 0; k < 2; k++)
            aside_cancel_unref(atomic_exchange(&tree->shown[i][k], NULL));
    CHECK_INT(process_descriptors(), descriptors);
    places_come_to_rest(&tree->places);
    if (tree->key % 64 == 63)
        CHECK_STATUS(aside_clear(tree->places.cache), ASIDE_OK);
}

static void tree_fire(aside_cancel *token, _Atomic int *begun)
{
    atomic_fetch_or(begun, FIRED);
    aside_cancel_fire(token);
    CHECK_STATUS(aside_cancel_status(token), ASIDE_E_CANCELLED);
}

/* The clock is moved by somebody who knows that calls wait; the system's moves by itself. */
static void tree_be_late(struct tree *tree, aside_cancel *token, _Atomic int *begun, int64_t ms)
{
    atomic_fetch_or(begun, LATE);
    CHECK_STATUS(aside_cancel_set_deadline(token, ms, &tree->clock), ASIDE_OK);
    dawdle(3);
    if (!tree->clock.now_ns)
        return;
    places_move_ms(&tree->places, ms);
    CHECK(aside_cancel_fired(token));
}

static void tree_out(struct tree *tree, aside_cancel *token, _Atomic int *begun)
{
    if (test_random() % 2)
        tree_fire(token, begun);
    else
        tree_be_late(tree, token, begun, (int64_t)(test_random() % 3));
}

/* A child or a grandchild; who was between is given back at once. */
static aside_cancel *tree_token(struct tree *tree, int self)
{
    aside_cancel *token = child_of(tree->parent);
    if (test_random() % 2) {
        aside_cancel *between = token;
        token = child_of(between);
        aside_cancel_unref(between);
    }
    for (int k = 0; k < 2; k++)
        atomic_store(&tree->shown[self][k], aside_cancel_ref(token));
    dawdle(4);
    aside_cancel_unref(tree->parent);
    return token;
}

/* What a caller is told has begun, and stays so. */
static void tree_check(struct tree *tree, int self, const aside_cancel *token, aside_status status)
{
    int begun = tree->begun[self] | tree->parent_begun;
    if (status == ASIDE_OK)
        return;
    if (status == ASIDE_E_CANCELLED) {
        CHECK(begun & FIRED);
        CHECK_STATUS(aside_cancel_status(token), ASIDE_E_CANCELLED);
    } else {
        CHECK_STATUS(status, ASIDE_E_TIMEOUT);
        CHECK(begun & LATE);
        CHECK(aside_cancel_fired(token));
    }
}

static void tree_call(struct tree *tree, int self, bool in_group, aside_fetch_fn *fetch)
{
    aside_cancel *token = tree_token(tree, self);
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = fetch, .arg = tree, .cancel = token};
    tree->status[self] = places_ask(&tree->places, in_group, tree->key, &call, &result);
    tree->outcome[self] = result.outcome;
    aside_value_unref(result.value);
    tree_check(tree, self, token, tree->status[self]);
    atomic_fetch_add(&tree->returned, 1);
    aside_cancel_unref(token);
}

static aside_status tree_fetch(aside_fetch *fetch, void *arg)
{
    struct tree *tree = arg;
    atomic_fetch_add(&tree->fetches, 1);
    if (tree->held)
        WAIT_UNTIL(tree->returned == CALLERS);
    else
        dawdle(6);
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

/* Whoever looks disturbs nothing: descriptors, far deadlines, children that come and go. */
static void tree_look(struct tree *tree)
{
    for (int i = 0; i < 6; i++) {
        int whose = (int)(test_random() % CALLERS), fd = -1;
        aside_cancel *token = atomic_exchange(&tree->shown[whose][1], NULL);
        if (!token)
            token = aside_cancel_ref(tree->parent);
        CHECK_STATUS(aside_cancel_fd(token, &fd), ASIDE_OK);
        if (is_readable(fd, 0))
            CHECK(tree->begun[whose] | tree->parent_begun);
        if (test_random() % 2)
            CHECK_STATUS(aside_cancel_set_deadline(token, FAR_MS, &tree->clock), ASIDE_OK);
        bool fired = aside_cancel_fired(token);
        aside_cancel *child = child_of(token);
        if (fired) {
            CHECK(is_readable(fd, 20000));
            CHECK(aside_cancel_fired(child));
        }
        unref_both(token, child);
    }
    aside_cancel_unref(tree->parent);
}

static void tree_run(void (*work)(void *, int), bool held, void (*judge)(struct tree *))
{
    struct ground ground;
    static struct tree tree;
    struct pool pool;
    memset((void *)&tree, 0, sizeof tree);
    tree.held = held;
    places_open(&tree.places, &ground);
    pool_open(&pool, MEMBERS, work, &tree);
    int descriptors = process_descriptors();
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        tree_begin(&tree, (uint64_t)round);
        pool_round(&pool);
        if (judge)
            judge(&tree);
        tree_end(&tree, descriptors);
    }
    pool_close(&pool);
    places_close(&tree.places, &ground);
}

/* ---- every_way_out ------------------------------------------------------------------------------- */

/* The fetches wait until all have left: whoever sleeps through his token is never woken by them. */
static void out_move(struct tree *tree)
{
    for (int i = 0; i < CALLERS; i++) {
        int whose = (int)(test_random() % CALLERS);
        aside_cancel *token = atomic_exchange(&tree->shown[whose][0], NULL);
        dawdle(6);
        if (token && test_random() % 2)
            tree_out(tree, token, &tree->begun[whose]);
        aside_cancel_unref(token);
    }
    tree_out(tree, tree->parent, &tree->parent_begun);
    aside_cancel_unref(tree->parent);
}

static void out_work(void *scenario, int self)
{
    if (self < CALLERS)
        tree_call(scenario, self, self % 2, tree_fetch);
    else if (self == MOVER)
        out_move(scenario);
    else
        tree_look(scenario);
}

static void out_judge(struct tree *tree)
{
    CHECK(tree->fetches <= 2); /* one in the cache, one in the group */
    for (int i = 0; i < CALLERS; i++)
        CHECK(tree->status[i] != ASIDE_OK);
}

TEST(every_way_out)
{
    tree_run(out_work, true, out_judge);
}

/* ---- ready_value_wins ---------------------------------------------------------------------------- */

static bool is_ready(struct tree *tree)
{
    aside_value *value = NULL;
    aside_status status = aside_get(tree->places.cache, &tree->key, sizeof tree->key, &value);
    aside_value_unref(value);
    return status == ASIDE_OK;
}

/* In every other round the parent goes only when the value can be seen: then everybody gets it. */
static void ready_move(struct tree *tree)
{
    int64_t give_up = test_now_ns() + INT64_C(20000000000);
    bool waits = tree->key % 2, set = tree->clock.now_ns && test_random() % 2;
    if (set)
        CHECK_STATUS(aside_cancel_set_deadline(tree->parent, 5, &tree->clock), ASIDE_OK);
    dawdle(6);
    while (!(tree->done_first = is_ready(tree)) && waits)
        CHECK(test_now_ns() < give_up);
    if (set)
        tree_be_late(tree, tree->parent, &tree->parent_begun, 5);
    else
        tree_out(tree, tree->parent, &tree->parent_begun);
    aside_cancel_unref(tree->parent);
}

static void ready_work(void *scenario, int self)
{
    if (self < CALLERS)
        tree_call(scenario, self, false, tree_fetch);
    else if (self == MOVER)
        ready_move(scenario);
    else
        tree_look(scenario);
}

static void ready_judge(struct tree *tree)
{
    CHECK(tree->fetches <= 1);
    for (int i = 0; i < CALLERS && tree->done_first; i++)
        CHECK_STATUS(tree->status[i], ASIDE_OK);
    WAIT_UNTIL(is_ready(tree) == tree->fetches);
}

TEST(ready_value_wins)
{
    tree_run(ready_work, false, ready_judge);
}

/* ---- completed_first_wins ------------------------------------------------------------------------ */

/* A group keeps nothing, so whoever comes too late to be attached may lead another fetch, or none. */
static aside_status handing_fetch(aside_fetch *fetch, void *arg)
{
    struct tree *tree = arg;
    if (atomic_fetch_add(&tree->fetches, 1) > 0)
        return stamp_answer(fetch, stamp_key(fetch), 2);
    atomic_store(&tree->handed, aside_fetch_ref(fetch));
    dawdle(3);
    return ASIDE_PENDING;
}

static void completed_move(struct tree *tree)
{
    aside_fetch *fetch;
    WAIT_UNTIL((fetch = atomic_load(&tree->handed)) != NULL);
    dawdle(8);
    CHECK_STATUS(stamp_answer(fetch, tree->key, 1), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    tree_out(tree, tree->parent, &tree->parent_begun);
    aside_fetch_unref(fetch);
    aside_cancel_unref(tree->parent);
}

static void completed_work(void *scenario, int self)
{
    if (self < CALLERS)
        tree_call(scenario, self, true, handing_fetch);
    else if (self == MOVER)
        completed_move(scenario);
    else
        tree_look(scenario);
}

static void completed_judge(struct tree *tree)
{
    int attached = 0;
    places_come_to_rest(&tree->places); /* a fetch that was left may be in the queue */
    for (int i = 0; i < CALLERS; i++) {
        attached += tree->outcome[i] != ASIDE_OUTCOME_NONE;
        if (tree->fetches == 1 && tree->outcome[i] != ASIDE_OUTCOME_NONE)
            CHECK_STATUS(tree->status[i], ASIDE_OK);
    }
    CHECK(attached >= 1);
}

TEST(completed_first_wins)
{
    tree_run(completed_work, false, completed_judge);
}

/* ---- trees_in_motion ----------------------------------------------------------------------------- */

#define GROWERS 4
#define BIN 8

/* Tokens alone. All in the bin fire with the root, or are late with it, and for no other reason. */
struct motion {
    struct fake_clock fake;
    aside_clock clock;
    aside_cancel *root;
    _Atomic(aside_cancel *) bin[BIN]; /* each with a reference */
    _Atomic bool fire_begun, fired;
    _Atomic int64_t due_at_most_ns, due_at_least_ns; /* the root's deadline lies between */
};

static void lower_to(_Atomic int64_t *least, int64_t value)
{
    int64_t now = atomic_load(least);
    while (now > value && !atomic_compare_exchange_weak(least, &now, value))
        ;
}

/* What a token says lies between what was so before it was asked and what is so after. */
static aside_status motion_ask(struct motion *motion, const aside_cancel *token)
{
    bool fired = motion->fired;
    bool late = motion->fake.now_ns >= motion->due_at_most_ns;
    aside_status status = aside_cancel_status(token);
    if (fired)
        CHECK_STATUS(status, ASIDE_E_CANCELLED);
    if (late)
        CHECK(status != ASIDE_OK);
    if (status == ASIDE_E_CANCELLED)
        CHECK(motion->fire_begun);
    if (status == ASIDE_E_TIMEOUT)
        CHECK(motion->fake.now_ns >= motion->due_at_least_ns);
    return status;
}

static void motion_look(struct motion *motion, aside_cancel *token)
{
    int fd = -1, again = -1;
    CHECK_STATUS(aside_cancel_fd(token, &fd), ASIDE_OK);
    aside_status status = motion_ask(motion, token);
    if (status != ASIDE_OK)
        CHECK(is_readable(fd, 20000));
    else if (is_readable(fd, 0))
        CHECK(motion_ask(motion, token) != ASIDE_OK);
    CHECK_STATUS(aside_cancel_fd(token, &again), ASIDE_OK);
    CHECK_INT(again, fd);
}

/* One of its own children fires or is late alone: nobody but that one notices. */
static void motion_end_alone(struct motion *motion, aside_cancel *token)
{
    aside_cancel *child = child_of(token), *below = child_of(child);
    if (test_random() % 2)
        aside_cancel_fire(child);
    else
        CHECK_STATUS(aside_cancel_set_deadline(child, 0, &motion->clock), ASIDE_OK);
    CHECK(aside_cancel_fired(child));
    CHECK(aside_cancel_fired(below));
    (void)motion_ask(motion, token);
    unref_both(child, below);
}

static void motion_grow(struct motion *motion)
{
    _Atomic(aside_cancel *) *place = &motion->bin[test_random() % BIN];
    aside_cancel *token = atomic_exchange(place, NULL);
    if (!token)
        token = child_of(motion->root);
    switch (test_random() % 4) {
    case 0: motion_look(motion, token); break;
    case 1: motion_end_alone(motion, token); break;
    case 2: {
        aside_cancel *parent = token;
        token = child_of(parent);
        aside_cancel_unref(parent);
        break;
    }
    default: (void)motion_ask(motion, token);
    }
    token = atomic_exchange(&motion->bin[test_random() % BIN], token);
    aside_cancel_unref(token); /* whoever lay there */
}

/* The first deadline of all decides on the clock, and all are of one. */
static void motion_root(struct motion *motion, int self)
{
    int64_t ms = 1 + (int64_t)(test_random() % 8);
    switch (test_random() % 4) {
    case 0:
        lower_to(&motion->due_at_least_ns, motion->fake.now_ns + ms * 1000000);
        CHECK_STATUS(aside_cancel_set_deadline(motion->root, ms, &motion->clock), ASIDE_OK);
        lower_to(&motion->due_at_most_ns, motion->fake.now_ns + ms * 1000000);
        break;
    case 1: fake_clock_advance_ms(&motion->fake, 1, NULL); break;
    case 2: motion_look(motion, motion->root); break;
    default:
        if (self > 0)
            break;
        motion->fire_begun = true;
        aside_cancel_fire(motion->root);
        motion->fired = true;
    }
}

static void motion_work(void *scenario, int self)
{
    struct motion *motion = scenario;
    for (int i = 0; i < 8; i++) {
        motion_grow(motion);
        if (self < 2)
            motion_root(motion, self);
    }
    dawdle(6);
    aside_cancel_unref(motion->root);
}

static void motion_begin(struct motion *motion)
{
    motion->clock = fake_clock_init(&motion->fake);
    motion->fire_begun = motion->fired = false;
    motion->due_at_most_ns = motion->due_at_least_ns = INT64_MAX;
    motion->root = token_new();
    for (int i = 0; i < GROWERS; i++)
        aside_cancel_ref(motion->root);
}

/* Those in the bin may be the last of the tree. */
static void motion_end(struct motion *motion)
{
    bool root_first = test_random() % 2;
    aside_status expected = motion_ask(motion, motion->root);
    if (root_first)
        aside_cancel_unref(motion->root);
    for (int i = 0; i < BIN; i++) {
        aside_cancel *token = atomic_exchange(&motion->bin[i], NULL);
        if (token)
            CHECK_STATUS(motion_ask(motion, token), expected);
        aside_cancel_unref(token);
    }
    if (!root_first)
        aside_cancel_unref(motion->root);
}

TEST(trees_in_motion)
{
    static struct motion motion;
    struct pool pool;
    long rounds = test_rounds(ROUNDS);
    size_t used = 0;
    pool_open(&pool, GROWERS, motion_work, &motion);
    int descriptors = process_descriptors();
    for (long round = 0; round < rounds; round++) {
        if (round == rounds / 4) /* the threads' caches of malloc are filled by then */
            used = mallinfo2().uordblks;
        motion_begin(&motion);
        pool_round(&pool);
        motion_end(&motion);
        CHECK_INT(process_descriptors(), descriptors);
    }
    if (rounds >= ROUNDS && !SANITIZED) /* less than one token in eight rounds */
        CHECK((int64_t)(mallinfo2().uordblks - used) < rounds * 16);
    pool_close(&pool);
}

/* ---- sums_of_calls_with_trees -------------------------------------------------------------------- */

/* What callers were told, in the cache and in the group. */
struct told {
    _Atomic uint64_t hits, led, joined, refused, misses, cancelled, timeouts, shared;
    _Atomic uint64_t ok, none, error;
};

struct sums {
    struct places places;
    aside_cancel *root;
    _Atomic int begun;
    struct told told[2];
    uint64_t round;
    _Atomic uint64_t fetches[2];
};

static aside_status sums_fetch(aside_fetch *fetch, void *arg)
{
    struct sums *sums = arg;
    uint64_t key = stamp_key(fetch);
    atomic_fetch_add(&sums->fetches[key % 2], 1);
    dawdle(4);
    if (test_random() % 16 == 0) {
        atomic_fetch_or(&sums->begun, FIRED);
        aside_cancel_fire(sums->root);
    }
    return key % 3 ? stamp_answer(fetch, key, 1) : aside_fetch_not_found(fetch);
}

static void sums_note(struct told *told, aside_status status, const aside_result *result)
{
    bool led = result->outcome == ASIDE_OUTCOME_FETCHED;
    bool joined = result->outcome == ASIDE_OUTCOME_JOINED;
    bool none = result->outcome == ASIDE_OUTCOME_NONE;
    atomic_fetch_add(&told->hits, result->outcome == ASIDE_OUTCOME_HIT);
    atomic_fetch_add(&told->led, led);
    atomic_fetch_add(&told->joined, joined);
    atomic_fetch_add(&told->misses, none && status == ASIDE_MISS);
    atomic_fetch_add(&told->refused, none && status != ASIDE_MISS);
    atomic_fetch_add(&told->cancelled, (led || joined) && status == ASIDE_E_CANCELLED);
    atomic_fetch_add(&told->timeouts, (led || joined) && status == ASIDE_E_TIMEOUT);
    atomic_fetch_add(&told->shared, result->shared != 0);
    atomic_fetch_add(&told->ok, status == ASIDE_OK);
    atomic_fetch_add(&told->none, status > 0);
    atomic_fetch_add(&told->error, status < 0);
}

/* Odd keys are asked of the group. */
static void sums_ask(struct sums *sums, aside_cancel *token)
{
    uint64_t key = sums->round * 6 + test_random() % 6;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = sums_fetch, .arg = sums, .cancel = token};
    switch (test_random() % 4) {
    case 0: call.timeout_ms = 2; break;
    case 1: call.timeout_ms = ASIDE_NO_WAIT; break;
    default: break;
    }
    aside_status status = places_ask(&sums->places, key % 2, key, &call, &result);
    if (status == ASIDE_E_CANCELLED)
        CHECK(sums->begun & FIRED);
    else if (status == ASIDE_E_TIMEOUT)
        CHECK(call.timeout_ms > 0 || sums->begun & LATE);
    else if (status == ASIDE_MISS)
        CHECK(call.timeout_ms == ASIDE_NO_WAIT);
    else
        CHECK_STATUS(status, key % 3 ? ASIDE_OK : ASIDE_NOT_FOUND);
    sums_note(&sums->told[key % 2], status, &result);
    aside_value_unref(result.value);
}

static void sums_call(struct sums *sums)
{
    for (int i = 0; i < 5; i++) {
        aside_cancel *token = test_random() % 4 ? child_of(sums->root) : NULL;
        sums_ask(sums, token);
        aside_cancel_unref(token);
    }
}

static void sums_work(void *scenario, int self)
{
    struct sums *sums = scenario;
    if (self < CALLERS) {
        sums_call(sums);
        return;
    }
    for (int i = 0; i < 4; i++) {
        dawdle(8);
        places_move_ms(&sums->places, 1);
        if (test_random() % 4)
            continue;
        atomic_fetch_or(&sums->begun, LATE);
        CHECK_STATUS(aside_cancel_set_deadline(sums->root, 1 + i, &sums->places.moved), ASIDE_OK);
    }
}

static void sums_judge(const struct told *told, const aside_stats *stats, uint64_t fetches)
{
    CHECK_INT(stats->hits, told->hits);
    CHECK_INT(stats->misses_led, told->led);
    CHECK_INT(stats->misses_joined, told->joined);
    CHECK_INT(stats->misses + stats->refused, told->misses + told->refused);
    CHECK_INT(stats->cancelled, told->cancelled);
    CHECK_INT(stats->timeouts, told->timeouts);
    CHECK_INT(stats->shared, told->shared);
    CHECK_INT(stats->get_with_fetch_ok, told->ok);
    CHECK_INT(stats->get_with_fetch_none, told->none);
    CHECK_INT(stats->get_with_fetch_error, told->error);
    CHECK_INT(stats->fetches, fetches);
    CHECK_INT(stats->misses_led, fetches);
    CHECK_INT(stats->queued_now, 0);
}

TEST(sums_of_calls_with_trees)
{
    struct ground ground;
    static struct sums sums;
    struct pool pool;
    places_open(&sums.places, &ground);
    pool_open(&pool, CALLERS + 1, sums_work, &sums);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        sums.round = (uint64_t)round;
        sums.begun = 0;
        sums.root = token_new();
        pool_round(&pool);
        places_come_to_rest(&sums.places);
        aside_stats cache = test_stats(sums.places.cache);
        aside_stats group = group_stats(sums.places.group);
        sums_judge(&sums.told[0], &cache, sums.fetches[0]);
        sums_judge(&sums.told[1], &group, sums.fetches[1]);
        aside_cancel_unref(sums.root);
        if (round % 64 == 63)
            CHECK_STATUS(aside_clear(sums.places.cache), ASIDE_OK);
    }
    pool_close(&pool);
    places_close(&sums.places, &ground);
}
