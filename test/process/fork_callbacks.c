/*
 * fork_callbacks.c -- P4, where it is user code that forks while the library is in the middle of
 * something: hooks, destructors, fetches inside fetches. The child comes back into what its parent
 * was doing and goes on; the parent does not notice.
 *
 * Where it is a thread of the library's that forks, the child ends with it, and makes its checks as it
 * exits. (ThreadSanitizer has left by then: under it such a child just exits.)
 */
#include "children.h"
#include "contract/helpers.h"
#include "sanitizers.h"

#include <aside/group.h>

SEARCH_NO_DEADLOCKS;

/* ---- children ------------------------------------------------------------------------------------ */

/* What a child does that ends with a thread of the library's. */
static void (*last_checks)(void *);
static void *last_argument;

static void *make_last_checks(void *arg)
{
    last_checks(arg);
    child_done();
}

/* The thread that exits is past its last destructors, and may not fetch: another does. */
static void be_the_last(void)
{
    if (in_child && last_checks != NULL)
        thread_join(thread_start(make_last_checks, last_argument));
}

static void at_exit_of_a_child(void (*checks)(void *), void *arg)
{
    static bool registered;
    last_checks = checks;
    last_argument = arg;
    if (!registered && !UNDER_TSAN)
        CHECK_INT(atexit(be_the_last), 0);
    registered = true;
}

/* Forks once, the first time: whatever comes after that, in either process, does not. */
struct forker {
    _Atomic bool armed, forked;
    pthread_t test; /* its thread */
    bool elsewhere; /* another forks, one of the library's */
    struct child child;
};

static void forker_init(struct forker *forker)
{
    memset(forker, 0, sizeof *forker);
    forker->test = pthread_self();
    forker->armed = true;
}

static bool fork_once(struct forker *forker)
{
    if (!atomic_exchange(&forker->armed, false))
        return false;
    CHECK(!in_child);
    forker->elsewhere = !pthread_equal(forker->test, pthread_self());
    forker->child = child_fork();
    atomic_store(&forker->forked, true);
    return true;
}

static void forker_end(struct forker *forker)
{
    WAIT_UNTIL(atomic_load(&forker->forked));
    child_end(&forker->child, UNDER_TSAN && forker->elsewhere ? 0 : CHILD_DONE);
}

/* ---- use ----------------------------------------------------------------------------------------- */

static void check_at_rest(aside_cache *cache)
{
    CHECK_INT(STAT(cache, flights_now), 0);
    CHECK_INT(STAT(cache, waiters_now), 0);
    CHECK_INT(STAT(cache, queued_now), 0);
}

/* Everything works, on this thread alone. by_worker: what the cache has for an executor is there. */
static void use_cache(aside_cache *cache, bool by_worker)
{
    struct source source;
    source_init(&source, "fetched", false);
    put(cache, "use", "set", ASIDE_FOREVER);
    CHECK(holds(cache, "use", "set"));
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("use")), ASIDE_OK);
    CHECK_STATUS(look(cache, "use"), ASIDE_MISS);
    (void)aside_delete(cache, ASIDE_STR("inline"));
    (void)aside_delete(cache, ASIDE_STR("worker"));
    CHECK_STATUS(ask(cache, "inline", &source), ASIDE_OK);
    CHECK(holds(cache, "inline", "fetched"));
    if (by_worker) {
        CHECK_STATUS(ask_worker(cache, "worker", &source), ASIDE_OK);
        CHECK(holds(cache, "worker", "fetched"));
    }
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_health(cache), ASIDE_OK);
}

static void wait_for_rest(aside_cache *cache)
{
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    check_at_rest(cache);
}

/* The child has all that its parent has, but for what was under way. */
static void go_on_in_child(aside_cache *cache)
{
    check_at_rest(cache);
    use_cache(cache, true);
    wait_for_rest(cache);
    end_cache(cache);
    wait_for_no_threads();
}

static void go_on_at_exit(void *cache)
{
    go_on_in_child((aside_cache *)cache);
}

static void go_on_in_parent(aside_cache *cache)
{
    wait_for_rest(cache);
    use_cache(cache, true);
    end_cache(cache);
    wait_for_no_threads();
}

static aside_cache *open_with_ledger(struct ledger *ledger)
{
    aside_options options = quiet_options();
    options.alloc = ledger_init(ledger);
    return open_cache(&options);
}

/* ---- worker.stop --------------------------------------------------------------------------------- */

struct stopping {
    struct forker forker;
    aside_cache *cache;
    bool at_once;       /* the child goes on inside the hook */
    bool closing;       /* it is a close that stops the worker */
    _Atomic bool ready; /* no other thread allocates, which not every sanitizer lives through */
};

static void close_in_child(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    check_at_rest(cache);
    CHECK_INT(STAT(cache, workers_now), 0);
    CHECK_STATUS(aside_health(cache), ASIDE_E_CLOSED);
    CHECK_STATUS(look(cache, "k"), ASIDE_E_CLOSED);
    end_cache(cache);
    wait_for_no_threads();
}

static aside_status start_worker(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

static void do_nothing(void *arg)
{
    (void)arg;
}

static void fork_in_stop(void *ctx, void *worker)
{
    struct stopping *stopping = (struct stopping *)ctx;
    CHECK(worker == ctx);
    WAIT_UNTIL(atomic_load(&stopping->ready));
    if (!fork_once(&stopping->forker) || !in_child || !stopping->at_once)
        return;
    if (stopping->closing)
        close_in_child(stopping->cache);
    else
        go_on_in_child(stopping->cache);
    last_checks = do_nothing;
}

/* A worker that a fetch ends is stopped while its cache is open. */
static void check_fork_in_stop(bool closing, bool at_once)
{
    struct stopping stopping;
    struct source source;
    struct caller caller;
    aside_options options = quiet_options();
    memset(&stopping, 0, sizeof stopping);
    forker_init(&stopping.forker);
    stopping.at_once = at_once;
    stopping.closing = closing;
    options.worker = (aside_worker){start_worker, fork_in_stop, &stopping};
    stopping.cache = open_cache(&options);
    at_exit_of_a_child(closing ? close_in_child : go_on_at_exit, stopping.cache);
    source_init(&source, "v", false);
    if (closing) {
        CHECK_STATUS(ask(stopping.cache, "k", &source), ASIDE_OK);
        atomic_store(&stopping.ready, true);
        CHECK_STATUS(aside_close(stopping.cache), ASIDE_OK);
    } else {
        caller_init(&caller, stopping.cache, "k", end_the_thread, NULL);
        CHECK_STATUS(caller_run(&caller), ASIDE_E_ABANDONED);
        atomic_store(&stopping.ready, true);
        WAIT_UNTIL(STAT(stopping.cache, workers_now) == 0); /* the hook has returned */
        use_cache(stopping.cache, true);
    }
    forker_end(&stopping.forker);
    end_cache(stopping.cache);
    wait_for_no_threads();
}

TEST(a_fork_in_the_stop_hook_of_a_worker)
{
    for (int way = 0; way < 4; way++)
        check_fork_in_stop(way & 1, way & 2);
}

/* ---- a call on the way of which user code forks -------------------------------------------------- */

struct scene {
    struct forker forker;
    struct ledger ledger;
    aside_cache *cache;
    aside_cancel *token; /* NULL: the fetch runs on this thread */
    struct caller caller;
};

static void scene_begin(struct scene *scene, bool by_worker, aside_fetch_fn *fetch, void *arg)
{
    forker_init(&scene->forker);
    scene->cache = open_with_ledger(&scene->ledger);
    scene->token = by_worker ? token_new() : NULL;
    caller_init(&scene->caller, scene->cache, "k", fetch, arg);
    scene->caller.call.cancel = scene->token;
    at_exit_of_a_child(go_on_at_exit, scene->cache);
}

static _Noreturn void scene_end_in_child(struct scene *scene)
{
    go_on_in_child(scene->cache);
    child_done();
}

static void scene_end(struct scene *scene)
{
    caller_drop(&scene->caller);
    forker_end(&scene->forker);
    go_on_in_parent(scene->cache);
    aside_cancel_unref(scene->token);
    WAIT_UNTIL(scene->ledger.live_blocks == 0);
}

/* ---- arguments ----------------------------------------------------------------------------------- */

struct arguments {
    struct scene scene;
    bool forks_at_retain;
    _Atomic int retained, released;
};

static void retain(void *arg)
{
    struct arguments *arguments = (struct arguments *)arg;
    atomic_fetch_add(&arguments->retained, 1);
    if (arguments->forks_at_retain)
        (void)fork_once(&arguments->scene.forker);
}

static void release(void *arg)
{
    struct arguments *arguments = (struct arguments *)arg;
    atomic_fetch_add(&arguments->released, 1);
    if (!arguments->forks_at_retain)
        (void)fork_once(&arguments->scene.forker);
}

static aside_status answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "v", 1);
}

/* What the argument was kept for is over when it is released. */
static _Noreturn void check_argument_in_child(struct arguments *arguments)
{
    struct scene *scene = &arguments->scene;
    bool kept = !arguments->forks_at_retain;
    CHECK_STATUS(scene->caller.status, kept ? ASIDE_OK : ASIDE_E_FORKED);
    caller_drop(&scene->caller);
    CHECK_INT(arguments->retained, 1);
    CHECK(!kept || arguments->released == 1);
    CHECK(!kept || holds(scene->cache, "k", "v"));
    CHECK(STAT(scene->cache, bytes) < 1 << 20);
    scene_end_in_child(scene);
}

static void check_fork_with_argument(bool forks_at_retain, bool by_worker)
{
    struct arguments arguments;
    struct scene *scene = &arguments.scene;
    memset(&arguments, 0, sizeof arguments);
    scene_begin(scene, by_worker, answer, &arguments);
    arguments.forks_at_retain = forks_at_retain;
    scene->caller.call.arg_retain = retain;
    scene->caller.call.arg_release = release;
    caller_run(&scene->caller);
    if (in_child)
        check_argument_in_child(&arguments);
    CHECK_STATUS(scene->caller.status, ASIDE_OK);
    CHECK(value_is(scene->caller.result.value, "v"));
    WAIT_UNTIL(arguments.released == 1 && atomic_load(&scene->forker.forked));
    CHECK_INT(arguments.retained, 1);
    scene_end(scene);
    CHECK_INT(arguments.retained, 1);
    CHECK_INT(arguments.released, 1);
}

TEST(a_fork_as_an_argument_is_retained)
{
    check_fork_with_argument(true, false);
    check_fork_with_argument(true, true);
}

/* Nobody waits for it: who begins it is told in the child, and the parent's goes on. */
TEST(a_fork_as_the_argument_of_a_refresh_is_retained)
{
    struct arguments arguments;
    struct scene *scene = &arguments.scene;
    memset((void *)&arguments, 0, sizeof arguments);
    scene_begin(scene, false, answer, &arguments);
    arguments.forks_at_retain = true;
    scene->caller.call.arg_retain = retain;
    scene->caller.call.arg_release = release;
    aside_status status = aside_refresh(scene->cache, ASIDE_STR("k"), &scene->caller.call);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        CHECK_STATUS(look(scene->cache, "k"), ASIDE_MISS);
        CHECK_INT(arguments.retained, 1);
        scene_end_in_child(scene);
    }
    CHECK_STATUS(status, ASIDE_OK);
    WAIT_UNTIL(arguments.released == 1);
    CHECK(holds(scene->cache, "k", "v"));
    scene_end(scene);
}

TEST(a_fork_as_an_argument_is_released)
{
    check_fork_with_argument(false, false);
    check_fork_with_argument(false, true);
}

/* ---- destructors --------------------------------------------------------------------------------- */

struct discarding {
    struct forker *forker;
    aside_cache *cache; /* or */
    aside_group *group;
    bool by_worker;
};

static aside_stats group_stats(const aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats;
}

static uint64_t waiters_of(const struct discarding *discarding)
{
    return discarding->cache != NULL ? STAT(discarding->cache, waiters_now)
                                     : group_stats(discarding->group).waiters_now;
}

static void fork_in_destructor(void *ptr, void *ctx)
{
    struct discarding *discarding = (struct discarding *)ctx;
    (void)ptr;
    (void)fork_once(discarding->forker);
}

static aside_status give_and_fail(aside_fetch *fetch, void *arg)
{
    struct discarding *discarding = (struct discarding *)arg;
    CHECK_STATUS(give(fetch, fork_in_destructor, discarding), ASIDE_OK);
    if (discarding->by_worker) /* no other thread allocates then */
        WAIT_UNTIL(waiters_of(discarding) == 1);
    return aside_fetch_fail(fetch, 7);
}

TEST(a_fork_in_the_destructor_of_a_value_that_its_fetch_discards)
{
    for (int by_worker = 0; by_worker <= 1; by_worker++) {
        struct discarding discarding;
        struct scene scene;
        scene_begin(&scene, by_worker, give_and_fail, &discarding);
        discarding = (struct discarding){&scene.forker, scene.cache, NULL, by_worker};
        caller_run(&scene.caller);
        if (in_child) {
            CHECK_STATUS(scene.caller.status, ASIDE_E_FORKED);
            CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
            scene_end_in_child(&scene);
        }
        CHECK_STATUS(scene.caller.status, ASIDE_E_FETCH);
        CHECK_INT(scene.caller.result.fetch_error, 7);
        scene_end(&scene);
    }
}

static aside_status group_ask(aside_group *group, const char *key, aside_fetch_fn *fetch, void *arg,
                              aside_cancel *token)
{
    aside_call call = ASIDE_CALL_INIT;
    aside_result result = ASIDE_RESULT_INIT;
    call.fetch = fetch;
    call.arg = arg;
    call.cancel = token;
    aside_status status = aside_group_do(group, key, strlen(key), &call, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    aside_value_unref(result.value);
    return status;
}

static void use_and_end_group(void *arg)
{
    aside_group *group = (aside_group *)arg;
    aside_cancel *token = token_new();
    CHECK_STATUS(group_ask(group, "k", answer, NULL, NULL), ASIDE_OK);
    CHECK_STATUS(group_ask(group, "k", answer, NULL, token), ASIDE_OK);
    WAIT_UNTIL(group_stats(group).flights_now == 0);
    CHECK_INT(group_stats(group).waiters_now, 0);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
    aside_cancel_unref(token);
    wait_for_no_threads();
}

/* A group without an allocator of the user's takes short cuts. */
TEST(a_fork_in_the_destructor_of_a_value_that_a_groups_fetch_discards)
{
    for (int way = 0; way < 4; way++) {
        bool by_worker = way & 1, hooked = way & 2;
        struct forker forker;
        struct ledger ledger;
        aside_options options = quiet_options();
        aside_group *group = NULL;
        aside_cancel *token = by_worker ? token_new() : NULL;
        memset(&ledger, 0, sizeof ledger);
        if (hooked)
            options.alloc = ledger_init(&ledger);
        CHECK_STATUS(aside_group_new(&group, &options), ASIDE_OK);
        forker_init(&forker);
        struct discarding discarding = {&forker, NULL, group, by_worker};
        at_exit_of_a_child(use_and_end_group, group);
        aside_status status = group_ask(group, "k", give_and_fail, &discarding, token);
        if (in_child) {
            CHECK_STATUS(status, ASIDE_E_FORKED);
            use_and_end_group(group);
            child_done();
        }
        CHECK_STATUS(status, ASIDE_E_FETCH);
        forker_end(&forker);
        use_and_end_group(group);
        aside_cancel_unref(token);
        WAIT_UNTIL(ledger.live_blocks == 0);
    }
}

enum { ROOM = 64, CALLS = 8 * ROOM, TIMES = 5 };

struct crowding {
    struct forker forker;
    int target, destroyed; /* the destructor that forks, and how many there were so far */
    bool copies;           /* what comes once the cache is full is copied */
    int call;
};

static void fork_in_one_destructor(void *ptr, void *ctx)
{
    struct crowding *crowding = (struct crowding *)ctx;
    (void)ptr;
    if (++crowding->destroyed == crowding->target)
        (void)fork_once(&crowding->forker);
}

static aside_status fill_up(aside_fetch *fetch, void *arg)
{
    struct crowding *crowding = (struct crowding *)arg;
    if (crowding->copies && crowding->call >= ROOM)
        return aside_fetch_copy(fetch, "abcdef", 6);
    return give(fetch, fork_in_one_destructor, crowding);
}

/* What is asked for again and again drives out what was asked for once. */
static int number_of(const struct crowding *crowding)
{
    bool again = crowding->copies && crowding->call >= ROOM;
    return again ? ROOM + (crowding->call - ROOM) / TIMES : crowding->call;
}

static void check_fork_while_making_room(int target, bool copies)
{
    struct crowding crowding;
    aside_options options = quiet_options();
    struct ledger ledger;
    bool was_in_child = false;
    memset(&crowding, 0, sizeof crowding);
    forker_init(&crowding.forker);
    crowding.target = target;
    crowding.copies = copies;
    options.max_entries = ROOM;
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    for (; crowding.call < CALLS; crowding.call++) {
        struct caller caller;
        char key[16];
        snprintf(key, sizeof key, "key %d", number_of(&crowding));
        caller_init(&caller, cache, key, fill_up, &crowding);
        aside_status status = caller_run(&caller);
        if (in_child && !was_in_child)
            CHECK(status == ASIDE_OK || status == ASIDE_E_FORKED);
        else
            CHECK_STATUS(status, ASIDE_OK);
        was_in_child = in_child;
        caller_drop(&caller);
        check_at_rest(cache);
        CHECK(aside_count(cache) <= ROOM);
    }
    CHECK(crowding.forker.forked);
    int destroyed = crowding.destroyed;
    use_cache(cache, true);
    end_cache(cache);
    wait_for_no_threads();
    CHECK(crowding.destroyed >= destroyed && crowding.destroyed <= (copies ? ROOM : CALLS));
    if (in_child)
        child_done();
    CHECK_INT(crowding.destroyed, copies ? ROOM : CALLS);
    WAIT_UNTIL(ledger.live_blocks == 0);
    forker_end(&crowding.forker);
}

TEST(a_fork_in_a_destructor_that_runs_while_a_fetch_makes_room)
{
    for (int target = 1; target <= 12; target++) {
        check_fork_while_making_room(target, false);
        check_fork_while_making_room(target, true);
    }
}

enum { REFRESHED_BYTES = 16 << 10, WRAPPED_BYTES = 1 << 10, WRAPPED = 200 };

static aside_status bring_more(aside_fetch *fetch, void *arg)
{
    void *to;
    (void)arg;
    CHECK(aside_fetch_previous(fetch) != NULL);
    CHECK_STATUS(aside_fetch_buffer(fetch, REFRESHED_BYTES, &to), ASIDE_OK);
    memset(to, 'n', REFRESHED_BYTES);
    return ASIDE_OK;
}

/* So many values that nobody asks for, and "k". */
static void fill_with_wrapped(aside_cache *cache, struct crowding *crowding)
{
    static char thing;
    for (uint32_t i = 0; i < WRAPPED; i++) {
        aside_value *value = NULL;
        CHECK_STATUS(
            aside_value_wrap(&thing, WRAPPED_BYTES, fork_in_one_destructor, crowding, &value),
            ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, &i, sizeof i, value, ASIDE_FOREVER), ASIDE_OK);
        aside_value_unref(value);
    }
    put(cache, "k", "old", ASIDE_FOREVER);
}

/* The child's refresh, which had a previous value and brought another, stores nothing and goes. */
static void check_fork_while_a_refresh_makes_room(int target)
{
    struct crowding crowding;
    struct ledger ledger;
    aside_options options = quiet_options();
    aside_call call = {ASIDE_CALL, .fetch = bring_more, .nonblocking = 1};
    memset((void *)&crowding, 0, sizeof crowding);
    options.max_bytes = 128 << 10;
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    fill_with_wrapped(cache, &crowding);
    forker_init(&crowding.forker);
    crowding.target = crowding.destroyed + target;
    aside_status status = aside_refresh(cache, ASIDE_STR("k"), &call);
    CHECK(crowding.forker.forked);
    CHECK(status == ASIDE_OK || (in_child && status == ASIDE_E_FORKED));
    CHECK_INT(STAT(cache, flights_now), 0);
    aside_value *value = NULL;
    if (aside_get(cache, ASIDE_STR("k"), &value) == ASIDE_OK)
        CHECK(value_is(value, "old") || aside_value_size(value) == REFRESHED_BYTES);
    CHECK(in_child || (value && aside_value_size(value) == REFRESHED_BYTES));
    aside_value_unref(value);
    use_cache(cache, true);
    end_cache(cache);
    wait_for_no_threads();
    if (in_child)
        child_done();
    WAIT_UNTIL(ledger.live_blocks == 0);
    forker_end(&crowding.forker);
}

TEST(a_fork_in_a_destructor_that_runs_while_a_refresh_makes_room)
{
    for (int target = 1; target <= 12; target++)
        check_fork_while_a_refresh_makes_room(target);
}

/* ---- a fetch that submit runs at once, inside two others ----------------------------------------- */

struct nest {
    struct forker forker;
    aside_cache *outer, *inner; /* may be the same */
    aside_cancel *token;
    aside_status said[2]; /* to the outermost fetch, to the one in the middle */
};

static aside_status run_at_once(void *ctx, aside_job *job)
{
    (void)ctx;
    aside_job_run(job, NULL);
    return ASIDE_OK;
}

static aside_status fork_and_answer(aside_fetch *fetch, void *arg)
{
    struct nest *nest = (struct nest *)arg;
    (void)fork_once(&nest->forker);
    return aside_fetch_copy(fetch, "innermost", 9);
}

static aside_status ask_innermost(aside_fetch *fetch, void *arg)
{
    struct nest *nest = (struct nest *)arg;
    struct caller caller;
    caller_init(&caller, nest->inner, "innermost", fork_and_answer, nest);
    caller.call.cancel = nest->token;
    nest->said[1] = caller_run(&caller);
    caller_drop(&caller);
    return aside_fetch_copy(fetch, "middle", 6);
}

static aside_status ask_middle(aside_fetch *fetch, void *arg)
{
    struct nest *nest = (struct nest *)arg;
    struct caller caller;
    caller_init(&caller, nest->outer, "middle", ask_innermost, nest);
    nest->said[0] = caller_run(&caller);
    caller_drop(&caller);
    return aside_fetch_copy(fetch, "outermost", 9);
}

static void end_nest(struct nest *nest)
{
    wait_for_rest(nest->outer);
    wait_for_rest(nest->inner);
    use_cache(nest->outer, nest->outer != nest->inner);
    use_cache(nest->inner, !in_child); /* an executor of one's own does not cross */
    end_cache(nest->outer);
    if (nest->outer != nest->inner)
        end_cache(nest->inner);
    aside_cancel_unref(nest->token);
    wait_for_no_threads();
}

static void check_nest(bool two_caches)
{
    struct nest nest;
    struct caller caller;
    struct ledger ledger;
    aside_options options = quiet_options();
    memset(&nest, 0, sizeof nest);
    forker_init(&nest.forker);
    options.alloc = ledger_init(&ledger);
    options.submit.fn = run_at_once;
    nest.token = token_new();
    nest.inner = open_cache(&options);
    nest.outer = two_caches ? open_quiet() : nest.inner;
    caller_init(&caller, nest.outer, "outermost", ask_middle, &nest);
    caller_run(&caller);
    CHECK_STATUS(caller.status, in_child ? ASIDE_E_FORKED : ASIDE_OK);
    CHECK_STATUS(nest.said[0], caller.status);
    CHECK_STATUS(nest.said[1], caller.status);
    caller_drop(&caller);
    CHECK_STATUS(look(nest.inner, "innermost"), in_child ? ASIDE_MISS : ASIDE_OK);
    end_nest(&nest);
    if (in_child)
        child_done();
    forker_end(&nest.forker);
    WAIT_UNTIL(ledger.live_blocks == 0);
}

TEST(a_fork_in_a_fetch_that_submit_runs_at_once_inside_two_others)
{
    check_nest(true);
    check_nest(false);
}

/* ---- the jobs of an executor of one's own -------------------------------------------------------- */

enum { JOBS = 4 };

struct queue {
    aside_cache *cache;
    aside_job *jobs[JOBS];
    _Atomic int count;
};

static aside_status keep_job(void *ctx, aside_job *job)
{
    struct queue *queue = (struct queue *)ctx;
    CHECK(atomic_load(&queue->count) < JOBS);
    queue->jobs[atomic_load(&queue->count)] = job;
    atomic_fetch_add(&queue->count, 1);
    return ASIDE_OK;
}

/* The caller of the second has left, that of the others waits in the parent. */
static void check_drained_late(bool drops, bool closes)
{
    static const char *const keys[JOBS] = {"a", "b", "c", "d"};
    struct queue queue;
    struct source source;
    struct caller callers[JOBS];
    struct ledger ledger;
    aside_cancel *tokens[JOBS];
    aside_options options = quiet_options();
    memset(&queue, 0, sizeof queue);
    options.alloc = ledger_init(&ledger);
    options.submit = (aside_submit){keep_job, &queue};
    queue.cache = open_cache(&options);
    source_init(&source, "v", false);
    for (int i = 0; i < JOBS; i++) {
        tokens[i] = token_new();
        caller_ask(&callers[i], queue.cache, keys[i], &source, tokens[i]);
        caller_start(&callers[i]);
        WAIT_UNTIL(queue.count == i + 1 && STAT(queue.cache, waiters_now) == (unsigned)i + 1);
    }
    aside_cancel_fire(tokens[1]);
    CHECK_STATUS(caller_join(&callers[1]), ASIDE_E_CANCELLED);
    struct child child = child_fork();
    if (child.pid == 0) {
        if (closes)
            CHECK_STATUS(aside_close(queue.cache), ASIDE_OK);
        aside_unref(queue.cache);
        for (int i = 0; i < JOBS; i++) {
            if (drops)
                aside_job_drop(queue.jobs[i]);
            else
                aside_job_run(queue.jobs[i], NULL);
        }
        CHECK_INT(source.fetches, 0);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    for (int i = 0; i < JOBS; i++)
        aside_job_run(queue.jobs[i], NULL);
    for (int i = 0; i < JOBS; i++) {
        if (i != 1)
            CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
        CHECK(holds(queue.cache, keys[i], "v"));
        aside_cancel_unref(tokens[i]);
    }
    CHECK_INT(source.fetches, JOBS);
    end_cache(queue.cache);
    WAIT_UNTIL(ledger.live_blocks == 0);
}

TEST(an_executor_may_be_drained_in_the_child_when_the_cache_has_gone)
{
    for (int way = 0; way < 4; way++)
        check_drained_late(way & 1, way & 2);
}

/* ---- the last reference inside a callback -------------------------------------------------------- */

enum note { COPIES, WRITES, GIVES, NOTES };

struct last {
    struct forker forker;
    aside_cache *cache;
    enum note note;
    bool closes;
    _Atomic int destroyed;
};

static void count_destroyed(void *ptr, void *ctx)
{
    struct last *last = (struct last *)ctx;
    (void)ptr;
    CHECK_INT(atomic_fetch_add(&last->destroyed, 1), 0);
}

static void give_last_reference_back(struct last *last)
{
    if (last->closes)
        CHECK_STATUS(aside_close(last->cache), ASIDE_OK);
    aside_unref(last->cache);
    last->cache = NULL;
}

static aside_status answer_fork_and_unref(aside_fetch *fetch, void *arg)
{
    struct last *last = (struct last *)arg;
    void *to = NULL;
    aside_status status = ASIDE_OK;
    switch (last->note) {
    case COPIES: status = aside_fetch_copy(fetch, "v", 1); break;
    case WRITES:
        CHECK_STATUS(aside_fetch_buffer(fetch, 1, &to), ASIDE_OK);
        memcpy(to, "v", 1);
        break;
    default: CHECK_STATUS(give(fetch, count_destroyed, last), ASIDE_OK);
    }
    CHECK_STATUS(status, ASIDE_OK);
    WAIT_UNTIL(STAT(last->cache, waiters_now) == 1); /* no other thread allocates then */
    (void)fork_once(&last->forker);
    if (in_child)
        give_last_reference_back(last);
    return status;
}

/* What the child finds out once its only thread has unwound. */
static void check_last(void *arg)
{
    struct last *last = (struct last *)arg;
    CHECK(last->cache == NULL);
    CHECK(last->destroyed <= 1);
    aside_cache *another = open_quiet();
    use_cache(another, true);
    end_cache(another);
}

TEST(a_fetch_on_a_worker_that_forks_and_whose_child_gives_the_last_reference_back)
{
    for (int note = 0; note < NOTES; note++) {
        for (int closes = 0; closes <= 1; closes++) {
            struct last last;
            struct ledger ledger;
            struct caller caller;
            aside_cancel *token = token_new();
            memset(&last, 0, sizeof last);
            forker_init(&last.forker);
            last.note = (enum note)note;
            last.closes = closes;
            last.cache = open_with_ledger(&ledger);
            at_exit_of_a_child(check_last, &last);
            caller_init(&caller, last.cache, "k", answer_fork_and_unref, &last);
            caller.call.cancel = token;
            CHECK_STATUS(caller_run(&caller), ASIDE_OK);
            caller_drop(&caller);
            forker_end(&last.forker);
            go_on_in_parent(last.cache);
            CHECK_INT(last.destroyed, last.note == GIVES);
            aside_cancel_unref(token);
            WAIT_UNTIL(ledger.live_blocks == 0);
        }
    }
}

static void fork_and_unref_in_destructor(void *ptr, void *ctx)
{
    struct last *last = (struct last *)ctx;
    count_destroyed(ptr, ctx);
    (void)fork_once(&last->forker);
    if (in_child)
        give_last_reference_back(last);
}

/* clears: the reaper takes a table apart; else it finds one entry that has expired. */
static void check_reaper(bool clears, bool closes)
{
    enum { OTHERS = 100 };
    struct last last;
    struct ledger ledger;
    aside_options options = quiet_options();
    struct tally *tally = (struct tally *)calloc(1, sizeof *tally);
    struct fake_clock clock;
    aside_value *value = NULL;
    memset(&last, 0, sizeof last);
    forker_init(&last.forker);
    last.closes = closes;
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&clock);
    options.reaper_interval_ms = 10;
    last.cache = open_cache(&options);
    at_exit_of_a_child(check_last, &last);
    CHECK_STATUS(aside_value_wrap(tally, 1, fork_and_unref_in_destructor, &last, &value), ASIDE_OK);
    for (int i = 0; i < OTHERS; i++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        CHECK_STATUS(tally_set(tally, last.cache, key, 1, ASIDE_FOREVER), ASIDE_OK);
    }
    CHECK_STATUS(aside_set_value(last.cache, ASIDE_STR("k"), value, clears ? ASIDE_FOREVER : 1),
                 ASIDE_OK);
    aside_value_unref(value);
    if (clears)
        CHECK_STATUS(aside_clear(last.cache), ASIDE_OK);
    while (last.destroyed == 0) { /* it takes the reaper a few turns */
        fake_clock_advance_ms(&clock, 10, last.cache);
        test_yield();
    }
    forker_end(&last.forker);
    CHECK_INT(process_threads_named("aside-reaper"), 1); /* which goes on */
    go_on_in_parent(last.cache);
    CHECK_INT(last.destroyed, 1);
    CHECK_INT(tally->freed, OTHERS);
    WAIT_UNTIL(ledger.live_blocks == 0);
    free(tally);
}

TEST(a_destructor_on_the_reapers_thread_that_forks_and_whose_child_gives_the_last_reference_back)
{
    for (int way = 0; way < 4; way++)
        check_reaper(way & 1, way & 2);
}

/* ---- while a table is taken apart ---------------------------------------------------------------- */

struct dismantling {
    struct forker forker;
    aside_cache *cache;
    bool reaps_twice;
    uint64_t bytes; /* before the clear */
    _Atomic int freed;
};

static void fork_and_reap(void *ptr, void *ctx)
{
    struct dismantling *d = (struct dismantling *)ctx;
    (void)ptr;
    CHECK_INT(atomic_fetch_add(&d->freed, 1), 0);
    (void)fork_once(&d->forker);
    if (!in_child)
        return;
    for (int i = 0; i <= d->reaps_twice; i++)
        CHECK_STATUS(aside_reap(d->cache, 0, NULL), ASIDE_OK);
    CHECK(STAT(d->cache, limbo_bytes) <= d->bytes);
}

static void check_dismantling(int count, int which, bool reaps_twice)
{
    struct dismantling d;
    struct ledger ledger;
    aside_options options = quiet_options();
    struct tally *tally = (struct tally *)calloc(1, sizeof *tally);
    memset(&d, 0, sizeof d);
    forker_init(&d.forker);
    d.reaps_twice = reaps_twice;
    options.alloc = ledger_init(&ledger);
    options.max_entries = count <= ROOM ? ROOM : 0;
    d.cache = open_cache(&options);
    for (int i = 0; i < count; i++) {
        char key[16];
        aside_value *value = NULL;
        snprintf(key, sizeof key, "key %d", i);
        if (i != which) {
            CHECK_STATUS(tally_set(tally, d.cache, key, 1, ASIDE_FOREVER), ASIDE_OK);
            continue;
        }
        CHECK_STATUS(aside_value_wrap(tally, 1, fork_and_reap, &d, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(d.cache, key, strlen(key), value, ASIDE_FOREVER), ASIDE_OK);
        aside_value_unref(value);
    }
    d.bytes = STAT(d.cache, bytes) + STAT(d.cache, limbo_bytes) + STAT(d.cache, pinned_bytes);
    CHECK_STATUS(aside_clear(d.cache), ASIDE_OK);
    CHECK(STAT(d.cache, limbo_bytes) <= d.bytes);
    for (int i = 0; i < 5; i++)
        CHECK_STATUS(aside_reap(d.cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(d.cache, limbo_bytes), 0);
    CHECK_INT(STAT(d.cache, entries), 0);
    CHECK_INT(d.freed, 1);
    CHECK_INT(tally->freed, count - 1);
    use_cache(d.cache, true);
    end_cache(d.cache);
    wait_for_no_threads();
    CHECK_INT(tally->freed, count - 1);
    WAIT_UNTIL(ledger.live_blocks == 0);
    if (in_child)
        child_done();
    forker_end(&d.forker);
    free(tally);
}

TEST(a_fork_in_a_destructor_while_a_clear_takes_a_table_apart)
{
    for (int reaps_twice = 0; reaps_twice <= 1; reaps_twice++) {
        check_dismantling(10, 5, reaps_twice);
        check_dismantling(40, 20, reaps_twice);
        check_dismantling(60, 0, reaps_twice);
        check_dismantling(60, 59, reaps_twice);
        check_dismantling(1000, 500, reaps_twice);
    }
}
