/*
 * fork.c -- the process forks at any moment, whatever its threads are doing: the parent does not
 * notice, and the child, alone as it is, has a cache that is sound and works (P4).
 *
 * Under a sanitizer the child can neither allocate nor free nor start a thread (children.h): there it
 * looks only, at entries that do not expire.
 */
#include "stress.h"
#include "children.h"
#include "sanitizers.h"

#include "cache/cache.h"

#include <aside/group.h>

SEARCH_NO_DEADLOCKS;

enum { THREADS = 4, CHILDREN = 2, TURNS = 8 };

/* Of the first, each is written by one thread; the others are the main thread's own. */
enum { KEYS = 8, HELD_KEY = KEYS, FORK_KEY, CHILD_KEY };

/* ---- the storm ----------------------------------------------------------------------------------- */

#define BOX 16

struct storm {
    aside_cache *cache;
    aside_group *group;
    aside_options options;
    _Atomic uint64_t version[KEYS]; /* what the source has */
    _Atomic uint64_t floor[KEYS];   /* what nobody may fall behind any more */
    aside_value *held;
    aside_cancel *parent, *with_fd;
    _Atomic(aside_cancel *) shown; /* a token that somebody may wait with, with a reference */
    pthread_mutex_t passing_lock;
    aside_cache *_Atomic passing; /* a cache that comes and goes; changes under the lock */
    _Atomic(aside_fetch *) box[BOX];
    _Atomic int out; /* threads that have done */
    _Atomic uint64_t lookups, group_lookups;
};

/* A fetch may end this thread. */
static _Thread_local bool is_guest;

static aside_stats group_stats(const aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats;
}

#define GSTAT(group, member) (group_stats(group).member)

static uint64_t lookups_of(const aside_stats *stats)
{
    return stats->hits + stats->misses + stats->misses_led + stats->misses_joined + stats->refused;
}

/* ---- reading and writing ------------------------------------------------------------------------- */

struct seen {
    uint64_t key, version;
};

static void see(const void *data, size_t size, void *ctx)
{
    struct seen *seen = ctx;
    seen->version = stamp_read(data, size, seen->key);
    if (is_guest && test_random() % 4 == 0)
        pthread_exit(NULL);
}

static void storm_look(struct storm *storm, uint64_t key)
{
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    struct seen seen = {key, 0};
    aside_value *value = NULL;
    uint64_t floor = storm->floor[key];
    aside_status status;
    atomic_fetch_add(&storm->lookups, 1);
    switch (test_random() % 3) {
    case 0:
        status = aside_copy(storm->cache, &key, sizeof key, bytes, sizeof bytes, &size);
        if (status == ASIDE_OK)
            see(bytes, size, &seen);
        break;
    case 1: status = aside_visit(storm->cache, &key, sizeof key, see, &seen); break;
    default:
        status = aside_get(storm->cache, &key, sizeof key, &value);
        if (status == ASIDE_OK)
            seen.version = stamp_of_value(value, key);
        aside_value_unref(value);
    }
    check_read(status);
    CHECK(status != ASIDE_OK || seen.version >= floor);
}

/* The source changes first, then the cache is told. */
static void storm_change(struct storm *storm, uint64_t key)
{
    uint64_t version = atomic_fetch_add(&storm->version[key], 1) + 1;
    aside_status status;
    switch (test_random() % (SANITIZED ? 6 : 8)) {
    case 0: status = aside_delete(storm->cache, &key, sizeof key); break;
    case 1: status = aside_clear(storm->cache); break;
    case 6: status = aside_expire(storm->cache, &key, sizeof key); break;
    case 7: status = stamp_set(storm->cache, key, version, 1); break;
    default: status = stamp_set(storm->cache, key, version, ASIDE_FOREVER);
    }
    if (status != ASIDE_E_BUSY) {
        check_read(status);
        raise_to(&storm->floor[key], version);
    }
}

/* ---- fetching ------------------------------------------------------------------------------------ */

static bool box_put(struct storm *storm, aside_fetch *fetch)
{
    for (int i = 0; i < BOX; i++) {
        aside_fetch *none = NULL;
        aside_fetch_ref(fetch);
        if (atomic_compare_exchange_strong(&storm->box[i], &none, fetch))
            return true;
        aside_fetch_unref(fetch);
    }
    return false;
}

/* In the child those of the parent are nobody's concern. */
static void box_empty(struct storm *storm, aside_status expected)
{
    for (int i = 0; i < BOX; i++) {
        aside_fetch *fetch = atomic_exchange(&storm->box[i], NULL);
        if (!fetch)
            continue;
        CHECK(stamp_key(fetch) < KEYS);
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), expected);
        aside_fetch_unref(fetch);
    }
}

static void storm_ask(struct storm *storm, uint64_t key, bool in_group);

static aside_status storm_fetch(aside_fetch *fetch, void *arg)
{
    struct storm *storm = arg;
    uint64_t key = stamp_key(fetch);
    uint64_t version = storm->version[key];
    unsigned dice = (unsigned)test_random() % 16;
    if (key + 1 < KEYS && dice % 4 == 0)
        storm_ask(storm, key + 1, dice == 0);
    dawdle(3);
    if (is_guest && dice == 1)
        pthread_exit(NULL);
    if (dice == 2)
        return aside_fetch_fail(fetch, 1);
    CHECK_STATUS(stamp_answer(fetch, key, version), ASIDE_OK);
    return dice > 13 && box_put(storm, fetch) ? ASIDE_PENDING : ASIDE_OK;
}

/* A token that others may come upon and fire. */
static aside_cancel *storm_token(struct storm *storm)
{
    aside_cancel *token = NULL;
    int fd;
    CHECK_STATUS(aside_cancel_child(storm->parent, &token), ASIDE_OK);
    if (test_random() % 4 == 0)
        CHECK_STATUS(aside_cancel_fd(token, &fd), ASIDE_OK);
    aside_cancel_unref(atomic_exchange(&storm->shown, aside_cancel_ref(token)));
    return token;
}

static void storm_fire(struct storm *storm)
{
    aside_cancel *token = atomic_exchange(&storm->shown, NULL);
    aside_cancel_fire(token);
    aside_cancel_unref(token);
}

static void storm_check(uint64_t key, uint64_t floor, aside_status status,
                        const aside_result *result, const aside_call *call)
{
    CHECK((status == ASIDE_OK) == (result->value != NULL));
    switch (status) {
    case ASIDE_OK: CHECK(stamp_of_value(result->value, key) >= floor); break;
    case ASIDE_E_CANCELLED: CHECK(aside_cancel_fired(call->cancel)); break;
    case ASIDE_E_TIMEOUT: CHECK_INT(call->timeout_ms, 1); break;
    case ASIDE_E_FETCH: CHECK_INT(result->fetch_error, 1); break;
    default: CHECK_STATUS(status, ASIDE_E_ABANDONED);
    }
    aside_value_unref(result->value);
}

static void unref_token(void *token)
{
    aside_cancel_unref(token);
}

/* This thread may end in the call: if it is inside a fetch and runs the one that it waits for. */
static void storm_ask(struct storm *storm, uint64_t key, bool in_group)
{
    uint64_t floor = storm->floor[key];
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = storm_fetch, .arg = storm};
    aside_status status;
    call.cancel = test_random() % 2 ? storm_token(storm) : NULL;
    call.timeout_ms = test_random() % 8 ? 0 : 1;
    call.ttl_ms = SANITIZED || test_random() % 4 ? 0 : 1;
    atomic_fetch_add(in_group ? &storm->group_lookups : &storm->lookups, 1);
    pthread_cleanup_push(unref_token, call.cancel);
    if (in_group)
        status = aside_group_do(storm->group, &key, sizeof key, &call, &result);
    else
        status = aside_get_with_fetch(storm->cache, &key, sizeof key, &call, &result);
    /* Nobody forgets a group's flight when the source changes. */
    storm_check(key, in_group ? 0 : floor, status, &result, &call);
    pthread_cleanup_pop(1);
    if (in_group && test_random() % 4 == 0)
        (void)aside_group_forget(storm->group, &key, sizeof key);
}

/* ---- a cache that comes and goes ----------------------------------------------------------------- */

static aside_cache *passing_ref(struct storm *storm)
{
    pthread_mutex_lock(&storm->passing_lock);
    aside_cache *cache = aside_ref(storm->passing);
    pthread_mutex_unlock(&storm->passing_lock);
    return cache;
}

static aside_cache *passing_swap(struct storm *storm, aside_cache *cache)
{
    pthread_mutex_lock(&storm->passing_lock);
    aside_cache *before = atomic_exchange(&storm->passing, cache);
    pthread_mutex_unlock(&storm->passing_lock);
    return before;
}

static void passing_use(aside_cache *cache)
{
    unsigned char bytes[STAMP_MOST];
    uint64_t key = test_random() % KEYS;
    size_t size = 0;
    aside_status status = stamp_set(cache, key, key, 1 + (int64_t)(test_random() % 3));
    CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED || status == ASIDE_E_BUSY);
    status = aside_copy(cache, &key, sizeof key, bytes, sizeof bytes, &size);
    if (status == ASIDE_OK)
        CHECK_INT(stamp_read(bytes, size, key), key);
    else
        CHECK(status == ASIDE_MISS || status == ASIDE_E_CLOSED);
}

/* It is closed while it is there for all, or when it is not, or by the last reference. */
static void storm_pass(struct storm *storm)
{
    aside_cache *cache = NULL;
    switch (test_random() % 4) {
    case 0: cache = passing_swap(storm, cache_open(&storm->options)); break;
    case 1:
        cache = passing_ref(storm);
        if (cache)
            CHECK_STATUS(aside_close(cache), ASIDE_OK);
        break;
    case 2:
        cache = passing_swap(storm, NULL);
        if (cache && test_random() % 2)
            CHECK_STATUS(aside_close(cache), ASIDE_OK);
        break;
    default:
        cache = passing_ref(storm);
        if (cache)
            passing_use(cache);
    }
    aside_unref(cache);
}

/* ---- the threads --------------------------------------------------------------------------------- */

static void *storm_guest(void *its_storm)
{
    struct storm *storm = its_storm;
    is_guest = true;
    for (int i = 0; i < 3; i++) {
        storm_look(storm, test_random() % KEYS);
        storm_ask(storm, test_random() % KEYS, test_random() % 2);
    }
    return NULL;
}

static void storm_turn(struct storm *storm, int self)
{
    uint64_t key = test_random() % KEYS;
    switch (test_random() % 16) {
    case 0: thread_join(thread_start(storm_guest, storm)); break;
    case 1:
    case 2: storm_pass(storm); break;
    case 3: storm_fire(storm); break;
    case 4: CHECK_STATUS(aside_reap(storm->cache, 4, NULL), ASIDE_OK); break;
    case 5:
    case 6:
    case 7: storm_change(storm, key / THREADS * THREADS + (uint64_t)self); break;
    case 8:
    case 9:
    case 10: storm_look(storm, key); break;
    case 11:
    case 12: storm_ask(storm, key, true); break;
    default: storm_ask(storm, key, false);
    }
}

static void storm_work(void *scenario, int self)
{
    struct storm *storm = scenario;
    for (int i = 0; i < TURNS; i++)
        storm_turn(storm, self);
    atomic_fetch_add(&storm->out, 1);
}

/* A fetch that everybody has left may still ask the other for something. So each is looked at twice,
 * and meanwhile nobody may have asked for anything. */
static bool storm_is_at_rest(struct storm *storm)
{
    uint64_t asked = storm->lookups + storm->group_lookups;
    box_empty(storm, ASIDE_OK);
    for (int i = 0; i < 2; i++)
        if (STAT(storm->cache, flights_now) > 0 || GSTAT(storm->group, flights_now) > 0)
            return false;
    return storm->lookups + storm->group_lookups == asked;
}

/* ---- in the child -------------------------------------------------------------------------------- */

/* Nothing goes on, and what was stored is there, whole, and not older than it may be. */
static void child_looks(struct storm *storm)
{
    aside_stats stats = test_stats(storm->cache), group = group_stats(storm->group);
    CHECK_INT(stats.flights_now + stats.waiters_now + stats.queued_now + stats.workers_now, 0);
    CHECK_INT(group.flights_now + group.waiters_now + group.queued_now + group.workers_now, 0);
    CHECK_INT(stats.entries, aside_count(storm->cache));
    if (!SANITIZED)
        CHECK_INT(process_threads_named("aside-"), 0);
    CHECK(store_check(&storm->cache->store, stderr));
    for (uint64_t key = 0; key < KEYS; key++)
        for (int i = 0; i < 3; i++)
            storm_look(storm, key);
    CHECK_INT(stamp_of_value(storm->held, HELD_KEY), 1);
}

static aside_status child_fetch(aside_fetch *fetch, void *arg)
{
    CHECK(arg == NULL);
    return stamp_answer(fetch, stamp_key(fetch), 7);
}

static void child_asks(struct storm *storm, bool in_group, aside_cancel *token)
{
    uint64_t key = CHILD_KEY;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = child_fetch, .cancel = token};
    if (in_group)
        CHECK_STATUS(aside_group_do(storm->group, &key, sizeof key, &call, &result), ASIDE_OK);
    else
        CHECK_STATUS(aside_get_with_fetch(storm->cache, &key, sizeof key, &call, &result),
                     ASIDE_OK);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(result.shared + result.fenced, 0);
    CHECK_INT(stamp_of_value(result.value, key), 7);
    aside_value_unref(result.value);
}

/* Writes, and fetches on this thread and by a worker that is made for it. */
static void child_uses(struct storm *storm)
{
    unsigned char bytes[STAMP_MOST];
    uint64_t key = CHILD_KEY;
    size_t size = 0;
    aside_cancel *token = token_new();
    CHECK_STATUS(stamp_set(storm->cache, key, 5, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_copy(storm->cache, &key, sizeof key, bytes, sizeof bytes, &size), ASIDE_OK);
    CHECK_INT(stamp_read(bytes, size, key), 5);
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(aside_delete(storm->cache, &key, sizeof key), ASIDE_OK);
        CHECK_STATUS(aside_copy(storm->cache, &key, sizeof key, bytes, sizeof bytes, &size),
                     ASIDE_MISS);
        child_asks(storm, false, i ? token : NULL);
        child_asks(storm, true, i ? token : NULL);
    }
    aside_cancel_unref(token);
    CHECK_STATUS(aside_reap(storm->cache, 0, NULL), ASIDE_OK);
    CHECK(store_check(&storm->cache->store, stderr));
}

static void child_uses_tokens(struct storm *storm)
{
    aside_cancel *shown = atomic_exchange(&storm->shown, NULL);
    aside_cancel *child = NULL;
    int fd = -1;
    CHECK_STATUS(aside_cancel_fd(storm->with_fd, &fd), ASIDE_E_FORKED);
    CHECK_STATUS(aside_cancel_child(storm->parent, &child), ASIDE_OK);
    CHECK_STATUS(aside_cancel_fd(child, &fd), ASIDE_OK);
    CHECK_STATUS(aside_cancel_status(child), ASIDE_OK);
    aside_cancel_fire(storm->parent);
    CHECK_STATUS(aside_cancel_status(child), ASIDE_E_CANCELLED);
    if (shown)
        CHECK_STATUS(aside_cancel_status(shown), ASIDE_E_CANCELLED);
    aside_cancel_unref(shown);
    aside_cancel_unref(child);
}

/* Others who are not here may have references: so it is not left to the last one. */
static void child_drops_passing(struct storm *storm)
{
    aside_cache *passing = atomic_exchange(&storm->passing, NULL);
    if (passing)
        CHECK_STATUS(aside_close(passing), ASIDE_OK);
    aside_unref(passing);
}

static void child_closes(struct storm *storm)
{
    CHECK_STATUS(aside_close(storm->cache), ASIDE_OK);
    CHECK_STATUS(aside_health(storm->cache), ASIDE_E_CLOSED);
    CHECK_INT(aside_count(storm->cache), 0);
    CHECK_STATUS(aside_group_close(storm->group), ASIDE_OK);
    child_drops_passing(storm);
    aside_unref(storm->cache);
    aside_group_unref(storm->group);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
    CHECK_INT(stamp_of_value(storm->held, HELD_KEY), 1);
    aside_value_unref(storm->held);
}

struct child_worker {
    struct storm *storm;
    int self;
};

static void *child_thread(void *its_worker)
{
    struct child_worker *worker = its_worker;
    storm_work(worker->storm, worker->self);
    return NULL;
}

/* Threads of the child go on as those of the parent did. */
static void child_storms(struct storm *storm)
{
    pthread_t threads[2];
    struct child_worker workers[2] = {{storm, 0}, {storm, THREADS - 1}};
    child_drops_passing(storm);
    pthread_mutex_init(&storm->passing_lock, NULL); /* who may hold it is not here */
    storm->out = 0;
    for (int i = 0; i < 2; i++)
        threads[i] = thread_start(child_thread, &workers[i]);
    WAIT_UNTIL((box_empty(storm, ASIDE_OK), storm->out == 2));
    for (int i = 0; i < 2; i++)
        thread_join(threads[i]);
    WAIT_UNTIL(storm_is_at_rest(storm));
    CHECK_INT(STAT(storm->cache, waiters_now), 0);
    CHECK(store_check(&storm->cache->store, stderr));
}

/* The scheduler goes on as in the parent, begins anew, or is off. */
static void child_perturbs(uint64_t way)
{
    if (way % 4 == 0)
        perturb(0);
    else if (way % 4 == 1)
        perturb(way | 1);
}

static _Noreturn void be_a_child(struct storm *storm, uint64_t way);

static void child_forks(struct storm *storm, uint64_t way)
{
    struct child child = child_fork();
    if (child.pid == 0)
        be_a_child(storm, way);
    child_uses(storm);
    child_end(&child, CHILD_DONE);
}

static _Noreturn void be_a_child(struct storm *storm, uint64_t way)
{
    unsigned what = way / 4 % 16;
    child_perturbs(way);
    if (what == 0)
        child_done();
    if (what > 1 || SANITIZED) {
        child_looks(storm);
        box_empty(storm, ASIDE_E_FORKED);
        if (SANITIZED)
            child_done();
        if (what == 2)
            child_forks(storm, way / 64 * 4 + 5 * 4);
        child_uses(storm);
        if (what == 3)
            child_storms(storm);
        child_uses_tokens(storm);
        if (what == 4)
            CHECK_STATUS(aside_clear(storm->cache), ASIDE_OK);
        child_uses(storm);
    }
    child_closes(storm);
    child_done();
}

/* ---- in the parent ------------------------------------------------------------------------------- */

struct forking {
    bool forked;
    struct child child;
};

static void fork_here(struct forking *forking)
{
    forking->child = child_fork();
    forking->forked = true;
}

static void fork_in_visit(const void *data, size_t size, void *ctx)
{
    struct forking *forking = ctx;
    fork_here(forking);
    CHECK_INT(stamp_read(data, size, HELD_KEY), 1);
}

static aside_status fork_in_fetch(aside_fetch *fetch, void *arg)
{
    struct forking *forking = arg;
    fork_here(forking);
    CHECK_INT(aside_fetch_stopping(fetch), in_child);
    return stamp_answer(fetch, stamp_key(fetch), 1);
}

/* The call that led the fetch is told in the child what has become of it. */
static struct child fork_fetching(struct storm *storm, bool in_group)
{
    uint64_t key = FORK_KEY;
    struct forking forking = {.forked = false};
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = fork_in_fetch, .arg = &forking,
                       .ttl_ms = ASIDE_NO_STORE};
    atomic_fetch_add(in_group ? &storm->group_lookups : &storm->lookups, 1);
    aside_status status =
        in_group ? aside_group_do(storm->group, &key, sizeof key, &call, &result)
                 : aside_get_with_fetch(storm->cache, &key, sizeof key, &call, &result);
    CHECK(forking.forked);
    CHECK_STATUS(status, in_child ? ASIDE_E_FORKED : ASIDE_OK);
    CHECK((result.value == NULL) == in_child);
    aside_value_unref(result.value);
    return forking.child;
}

/* Between the two the entry may be evicted, or cleared: then it forks outside. */
static struct child fork_visiting(struct storm *storm)
{
    uint64_t key = HELD_KEY;
    struct forking forking = {.forked = false};
    (void)stamp_set(storm->cache, key, 1, ASIDE_FOREVER);
    atomic_fetch_add(&storm->lookups, 1);
    check_read(aside_visit(storm->cache, &key, sizeof key, fork_in_visit, &forking));
    return forking.forked ? forking.child : child_fork();
}

static struct child storm_fork(struct storm *storm)
{
    uint64_t where = SANITIZED ? 8 : test_random() % 8, way = test_random();
    struct child child = where == 0   ? fork_visiting(storm)
                         : where <= 2 ? fork_fetching(storm, where == 2)
                                      : child_fork();
    if (child.pid == 0)
        be_a_child(storm, way);
    return child;
}

/* Forks now and then, completes what is pending, as long as the others are there. */
static void storm_main(struct storm *storm)
{
    struct child children[CHILDREN];
    int64_t give_up = test_now_ns() + 2 * child_patience_ns();
    for (int left = CHILDREN; storm->out < THREADS || left > 0;) {
        CHECK(test_now_ns() < give_up);
        dawdle(24);
        box_empty(storm, ASIDE_OK);
        if (left > 0 && test_random() % 2)
            children[--left] = storm_fork(storm);
    }
    for (int i = 0; i < CHILDREN; i++)
        child_end(&children[i], CHILD_DONE);
}

/* As pool_round(), but that this thread takes part. */
static void storm_round(struct storm *storm, struct pool *pool)
{
    storm->out = 0;
    storm->parent = token_new();
    perturb(test_random() | 1);
    pthread_barrier_wait(&pool->begin);
    storm_main(storm);
    pthread_barrier_wait(&pool->end);
    perturb(0);
}

static void storm_judge(struct storm *storm, int descriptors)
{
    WAIT_UNTIL(storm_is_at_rest(storm));
    aside_stats stats = test_stats(storm->cache), group = group_stats(storm->group);
    CHECK_INT(stats.waiters_now + stats.queued_now, 0);
    CHECK_INT(group.waiters_now + group.queued_now, 0);
    CHECK_INT(lookups_of(&stats), storm->lookups);
    CHECK_INT(lookups_of(&group), storm->group_lookups);
    CHECK_INT(aside_cancel_fired(storm->parent) + aside_cancel_fired(storm->with_fd), 0);
    CHECK(store_check(&storm->cache->store, stderr));
    aside_cancel_unref(atomic_exchange(&storm->shown, NULL));
    aside_cancel_unref(storm->parent);
    WAIT_UNTIL(process_descriptors() == descriptors); /* an ended thread's is closed at its end */
}

static void storm_open(struct storm *storm, struct ground *ground)
{
    uint64_t key = HELD_KEY;
    int fd = -1;
    aside_options options = ground_begin(ground);
    memset((void *)storm, 0, sizeof *storm);
    pthread_mutex_init(&storm->passing_lock, NULL);
    options.reaper_interval_ms = SANITIZED ? 0 : 1;
    options.fetch_threads = 2;
    options.max_flight_age_ms = ASIDE_FOREVER; /* who would hang does */
    options.max_bytes = (size_t)1 << 20;
    storm->options = options;
    storm->cache = cache_open(&options);
    CHECK_STATUS(aside_group_new(&storm->group, &options), ASIDE_OK);
    CHECK_STATUS(stamp_set(storm->cache, key, 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_get(storm->cache, &key, sizeof key, &storm->held), ASIDE_OK);
    storm->lookups = 1;
    storm->with_fd = token_new();
    CHECK_STATUS(aside_cancel_fd(storm->with_fd, &fd), ASIDE_OK);
}

static void storm_close(struct storm *storm)
{
    aside_unref(storm->passing);
    cache_end(storm->cache);
    CHECK_STATUS(aside_group_close(storm->group), ASIDE_OK);
    aside_group_unref(storm->group);
    CHECK_INT(stamp_of_value(storm->held, HELD_KEY), 1);
    aside_value_unref(storm->held);
    aside_cancel_unref(storm->with_fd);
}

TEST_LIMIT(fork_against_everything, 120)
{
    struct ground ground;
    static struct storm storm;
    struct pool pool;
    storm_open(&storm, &ground);
    pool_open(&pool, THREADS, storm_work, &storm);
    int descriptors = process_descriptors();
    for (long round = 0; round < test_rounds(ROUNDS / 5); round++) {
        storm_round(&storm, &pool);
        storm_judge(&storm, descriptors);
    }
    pool_close(&pool);
    storm_close(&storm);
    ground_end(&ground);
}
