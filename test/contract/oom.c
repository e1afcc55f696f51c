/*
 * oom.c -- P5: every allocation and every thread creation that fails is an error code or a slower
 * path, never a crash, a leak, an exit or a hang. A scenario is run with its n-th allocation failing
 * for every n, once and from then on; what it was told is checked against the documented codes.
 */
#include "helpers.h"

#include <aside/group.h>

/* ---- what a call may say when memory or threads are short ---------------------------------------- */

static void check_one_of(int line, aside_status status, const aside_status *allowed, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (status == allowed[i])
            return;
    test_fail(__FILE__, line, "a status that this call does not document",
              aside_status_name(status));
}

#define CHECK_ONE_OF(status, ...)                                                                  \
    check_one_of(__LINE__, (status), (const aside_status[]){__VA_ARGS__},                          \
                 COUNT_OF(((const aside_status[]){__VA_ARGS__})))
#define CHECK_WROTE(status) CHECK_ONE_OF(status, ASIDE_OK, ASIDE_E_NOMEM, ASIDE_E_BUSY)
#define CHECK_FETCHED(status)                                                                      \
    CHECK_ONE_OF(status, ASIDE_OK, ASIDE_NOT_FOUND, ASIDE_E_NOMEM, ASIDE_E_BUSY)

/* A call, and that a value comes with success and with nothing else. */
static aside_status call_key(aside_cache *cache, const char *key, aside_fetch_fn *fetch, void *arg,
                             aside_cancel *token)
{
    struct caller caller;
    caller_init(&caller, cache, key, fetch, arg);
    caller.call.cancel = token;
    aside_status status = caller_run(&caller);
    if (status == ASIDE_OK)
        CHECK(value_is(caller.result.value, "fetched"));
    caller_drop(&caller);
    return status;
}

static aside_status copy_answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "fetched", 7);
}

static aside_status buffer_answer(aside_fetch *fetch, void *arg)
{
    void *to = NULL;
    (void)arg;
    aside_status status = aside_fetch_buffer(fetch, 7, &to);
    if (status == ASIDE_OK)
        memcpy(to, "fetched", 7);
    return status;
}

/* ---- the parts of the scenario ------------------------------------------------------------------- */

static struct ledger ledger;
static struct fake_clock clock_;
static struct tally tally;

/* Whatever fails: what was stored is there, what was not is not, and deleting never fails. */
static void store_and_read(aside_cache *cache)
{
    aside_value *value = NULL;
    char buffer[8];
    aside_status first = aside_set(cache, ASIDE_STR("set"), ASIDE_STR("v"), ASIDE_FOREVER);
    aside_status second = aside_set(cache, ASIDE_STR("set"), ASIDE_STR("overwritten"), 1000);
    CHECK_WROTE(first);
    CHECK_WROTE(second);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("set"), &value),
                 first == ASIDE_OK || second == ASIDE_OK ? ASIDE_OK : ASIDE_MISS);
    if (value != NULL)
        CHECK(value_is(value, second == ASIDE_OK ? "overwritten" : "v"));
    aside_value_unref(value);
    first = aside_add(cache, ASIDE_STR("added"), ASIDE_STR("v"), 1000);
    CHECK_WROTE(first);
    aside_status found = first == ASIDE_OK ? ASIDE_OK : ASIDE_MISS;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("added"), buffer, 8, NULL), found);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("added"), 5), found);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("added")), found);
    if (aside_value_wrap(&tally.slot[0], 9, tally_free, &tally, &value) == ASIDE_OK) {
        tally.made++;
        CHECK_WROTE(aside_set_value(cache, ASIDE_STR("again"), value, 1000));
        first = aside_set_value(cache, ASIDE_STR("wrapped"), value, 1000);
        CHECK_WROTE(first);
        CHECK_STATUS(aside_delete(cache, ASIDE_STR("wrapped")),
                     first == ASIDE_OK ? ASIDE_OK : ASIDE_MISS);
        aside_value_unref(value);
    }
    if (aside_value_copy("copied", 6, &value) == ASIDE_OK) {
        CHECK_WROTE(aside_set_value(cache, ASIDE_STR("copied"), value, 1000));
        aside_value_unref(value);
    }
}

struct joined {
    aside_cache *cache;
    _Atomic bool fetching, leader_done, joiner_done;
};

/* Ends once somebody has joined, or the joiner has been refused. */
static aside_status answer_when_joined(aside_fetch *fetch, void *arg)
{
    struct joined *joined = arg;
    atomic_store(&joined->fetching, true);
    WAIT_UNTIL(STAT(joined->cache, waiters_now) > 0 || atomic_load(&joined->joiner_done));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void *lead_main(void *arg)
{
    struct joined *joined = arg;
    CHECK_FETCHED(call_key(joined->cache, "joined", answer_when_joined, joined, NULL));
    atomic_store(&joined->leader_done, true);
    return NULL;
}

/* Of a cache with an allocator of its own; beside that one; with the C library's alone; threads. */
enum what { CACHE_ALLOCS, OTHER_ALLOCS, ALL_ALLOCS, THREADS };

static int64_t calls_so_far(enum what what)
{
    if (what == CACHE_ALLOCS)
        return atomic_load(&ledger.calls);
    return what == THREADS ? process_thread_calls() : process_alloc_calls();
}

/* Where the calls of a run come from: each stage ends with its name and how many there were by then. */
#define MOST_STAGES 16
static struct {
    enum what what;
    int count;
    struct {
        const char *name;
        int64_t calls;
    } stage[MOST_STAGES];
} run;

static void end_stage(const char *name)
{
    if (run.count < MOST_STAGES) {
        run.stage[run.count].name = name;
        run.stage[run.count++].calls = calls_so_far(run.what);
    }
}

static void print_stages(void)
{
    for (int i = 0; i < run.count; i++) {
        int64_t before = i > 0 ? run.stage[i - 1].calls : 0;
        printf("    %-10s %3d points\n", run.stage[i].name, (int)(run.stage[i].calls - before));
    }
}

static void lead_and_join(aside_cache *cache)
{
    struct joined joined = {.cache = cache};
    pthread_t leader = thread_start(lead_main, &joined);
    WAIT_UNTIL(atomic_load(&joined.fetching) || atomic_load(&joined.leader_done));
    CHECK_FETCHED(call_key(cache, "joined", copy_answer, NULL, NULL));
    atomic_store(&joined.joiner_done, true);
    thread_join(leader);
}

static void *call_superseding(void *arg)
{
    CHECK_FETCHED(call_key(arg, "old", copy_answer, NULL, NULL));
    return NULL;
}

/* While it runs its flight grows too old and another thread leads a new one. */
static aside_status answer_too_late(aside_fetch *fetch, void *arg)
{
    fake_clock_advance_ms(&clock_, 40000, arg);
    thread_join(thread_start(call_superseding, arg));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static aside_status fence_itself(aside_fetch *fetch, void *arg)
{
    CHECK_WROTE(aside_set(arg, ASIDE_STR("fenced"), ASIDE_STR("x"), 1000));
    CHECK_ONE_OF(aside_delete(arg, ASIDE_STR("fenced")), ASIDE_OK, ASIDE_MISS);
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void fetch_in_every_way(aside_cache *cache)
{
    aside_cancel *token = NULL;
    CHECK_ONE_OF(aside_cancel_new(&token), ASIDE_OK, ASIDE_E_NOMEM);
    CHECK_FETCHED(call_key(cache, "led", copy_answer, NULL, NULL));
    CHECK_FETCHED(call_key(cache, "buffer", buffer_answer, NULL, NULL));
    end_stage("lead");
    lead_and_join(cache);
    end_stage("join");
    CHECK_FETCHED(call_key(cache, "worker", copy_answer, NULL, token));
    CHECK_FETCHED(call_key(cache, "worker2", buffer_answer, NULL, token));
    end_stage("worker");
    CHECK_FETCHED(call_key(cache, "fenced", fence_itself, cache, NULL));
    end_stage("fence");
    CHECK_FETCHED(call_key(cache, "old", answer_too_late, cache, NULL));
    end_stage("supersede");
    aside_cancel_fire(token);
    CHECK_ONE_OF(call_key(cache, "cancelled", copy_answer, NULL, token), ASIDE_OK,
                 ASIDE_E_CANCELLED, ASIDE_E_NOMEM, ASIDE_E_BUSY);
    aside_cancel_unref(token);
    end_stage("cancel");
}

/* Enough entries for every table to grow more than once. */
static void grow_and_shrink(aside_cache *cache, int entries)
{
    size_t stored = 0, before = aside_count(cache);
    for (int i = 0; i < entries; i++) {
        aside_status status = aside_set(cache, &i, sizeof i, "v", 1, 1000);
        CHECK_WROTE(status);
        stored += status == ASIDE_OK;
    }
    CHECK_INT(aside_count(cache) - before, stored);
    for (int i = 0; i < entries; i += 16)
        stored -= aside_delete(cache, &i, sizeof i) == ASIDE_OK;
    CHECK_INT(aside_count(cache) - before, stored);
    end_stage("growth");
    fake_clock_advance_ms(&clock_, 1000, cache);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    end_stage("reap");
    CHECK_WROTE(aside_set(cache, ASIDE_STR("last"), ASIDE_STR("v"), 1000));
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(look(cache, "last"), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    end_stage("clear");
}

/* ---- running it ---------------------------------------------------------------------------------- */

static void fail(enum what what, int64_t nth, bool for_ever)
{
    if (what == CACHE_ALLOCS) {
        atomic_store(&ledger.fail_for_ever, for_ever);
        atomic_store(&ledger.fail_at, nth);
    } else if (what == THREADS) {
        process_fail_thread(nth, for_ever);
    } else {
        process_fail_alloc(nth, for_ever);
    }
}

/* Once nothing fails any more everything works: no shard, key or pool remembers the shortage. */
static void check_recovered(aside_cache *cache)
{
    aside_cancel *token = token_new();
    for (int i = 0; i < 200; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, 1000), ASIDE_OK);
    CHECK_INT(aside_count(cache), 200);
    CHECK_STATUS(call_key(cache, "led", copy_answer, NULL, NULL), ASIDE_OK);
    CHECK_STATUS(call_key(cache, "worker", copy_answer, NULL, token), ASIDE_OK);
    CHECK_STATUS(look(cache, "led"), ASIDE_OK);
    aside_cancel_unref(token);
}

/* One run with the n-th call failing; returns how many calls there were. */
static int64_t run_scenario(enum what what, int64_t nth, bool for_ever, bool fetches, int entries)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = NULL;
    options.reaper_interval_ms = fetches ? 300000 : 0;
    options.clock = fake_clock_init(&clock_);
    options.alloc =
        what == ALL_ALLOCS ? (aside_alloc){NULL, NULL, NULL, NULL} : ledger_init(&ledger);
    tally.made = tally.freed = tally.slot[0] = 0;
    run.what = what;
    run.count = 0;
    fail(what, nth, for_ever);
    aside_status opened = aside_open(&cache, &options);
    CHECK_ONE_OF(opened, ASIDE_OK, ASIDE_E_NOMEM, ASIDE_E_THREAD);
    CHECK((opened == ASIDE_OK) == (cache != NULL));
    int64_t calls = calls_so_far(what);
    end_stage("open");
    if (opened == ASIDE_OK) {
        if (fetches) {
            store_and_read(cache);
            end_stage("store");
            fetch_in_every_way(cache);
        }
        grow_and_shrink(cache, entries);
        calls = calls_so_far(what);
        if (!for_ever || nth % 2 == 1) { /* else it is closed while the shortage lasts */
            fail(what, 0, false);
            check_recovered(cache);
        }
        CHECK_STATUS(aside_close(cache), ASIDE_OK);
        aside_unref(cache);
    }
    WAIT_UNTIL(ledger.live_blocks == 0); /* a worker may still be on its way out */
    CHECK_INT(ledger.live_bytes, 0);
    CHECK_INT(tally.freed, tally.made);
    fail(what, 0, false);
    return calls;
}

/* Every point, once and from then on, until one lies beyond the last call. Of a cache without a
 * ledger only the sanitizers see a leak. */
static void check_every_point(enum what what, const char *name)
{
    printf("%s, where they come from:\n", name);
    run_scenario(what, 0, false, true, 40);
    print_stages();
    for (int for_ever = 0; for_ever <= 1; for_ever++) {
        int64_t nth = 1;
        while (run_scenario(what, nth, for_ever, true, 40) >= nth)
            nth++;
        printf("%s, %s: %d points\n", name, for_ever ? "from then on" : "once", (int)nth - 1);
        CHECK(nth > 2);
    }
    CHECK(run_scenario(what, 0, false, true, 40) > 0); /* and all is well again */
}

TEST(every_allocation_of_a_cache_may_fail)
{
    check_every_point(CACHE_ALLOCS, "allocations of the cache");
}

TEST(every_allocation_beside_a_caches_own_may_fail)
{
    check_every_point(OTHER_ALLOCS, "allocations beside the cache's own");
}

TEST(every_allocation_with_the_c_librarys_allocator_may_fail)
{
    check_every_point(ALL_ALLOCS, "all allocations");
}

TEST(every_thread_creation_may_fail)
{
    check_every_point(THREADS, "threads");
}

/* Five thousand entries; some points at random in each of many stretches of the calls. */
TEST(growth_to_five_thousand_entries_may_fail_anywhere)
{
    int64_t calls = run_scenario(CACHE_ALLOCS, 0, false, false, 5000), points = test_rounds(100);
    CHECK(calls > 0);
    if (points > calls)
        points = calls;
    for (int64_t i = 0; i < points; i++) {
        int64_t first = calls * i / points + 1, end = calls * (i + 1) / points + 1;
        int64_t nth = first + (int64_t)(test_random() % (uint64_t)(end - first));
        run_scenario(CACHE_ALLOCS, nth, i % 2, false, 5000);
    }
    printf("growth: %d points of %d\n", (int)points, (int)calls);
}

/* ---- a result that can not be stored for want of memory (F10) ------------------------------------ */

static aside_status answer_and_exhaust(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    gate_pass(&source->gate);
    aside_status status = aside_fetch_copy(fetch, "fetched", 7);
    fail(CACHE_ALLOCS, 1, true);
    return status;
}

TEST(a_result_reaches_all_callers_though_no_memory_is_left_to_store_it)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        aside_options options = quiet_options();
        options.alloc = ledger_init(&ledger);
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct source source;
        struct caller leader, joiner;
        source_init(&source, NULL, true);
        caller_init(&leader, cache, "k", answer_and_exhaust, &source);
        leader.call.cancel = offloaded ? token : NULL;
        caller_start(&leader);
        gate_wait_arrived(&source.gate, 1);
        join_flight(&joiner, cache, "k", &source, NULL, offloaded ? 2 : 1);
        gate_open(&source.gate);
        CHECK_STATUS(caller_join(&leader), ASIDE_OK);
        CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
        fail(CACHE_ALLOCS, 0, false);
        CHECK(leader.result.value == joiner.result.value);
        CHECK(value_is(joiner.result.value, "fetched"));
        caller_drop(&leader);
        caller_drop(&joiner);
        put(cache, "k", "again", 1000);
        CHECK(holds(cache, "k", "again"));
        aside_cancel_unref(token);
        end_cache(cache);
        WAIT_UNTIL(ledger.live_blocks == 0);
    }
}

TEST(without_memory_hits_are_served_and_keys_deleted)
{
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    aside_value *value = NULL;
    put(cache, "k", "there", ASIDE_FOREVER);
    put(cache, "d", "there", ASIDE_FOREVER);
    fail(CACHE_ALLOCS, 1, true);
    process_fail_alloc(1, true);
    CHECK(holds(cache, "k", "there"));
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("n"), ASIDE_STR("v"), 1000), ASIDE_E_NOMEM);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), ASIDE_STR("w"), 1000), ASIDE_E_NOMEM);
    CHECK(holds(cache, "k", "there")); /* nothing is lost */
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("d")), ASIDE_OK);
    CHECK_STATUS(look(cache, "d"), ASIDE_MISS);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK(value_is(value, "there"));
    aside_value_unref(value);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    process_fail_alloc(0, false);
    aside_unref(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- a worker without a record ------------------------------------------------------------------- */

/* Whoever called has a record, the thread that is to run his fetch gets none. */
TEST(a_worker_that_can_have_no_record_refuses_its_fetch)
{
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    put(cache, "warm", "v", ASIDE_FOREVER);
    CHECK_STATUS(look(cache, "warm"), ASIDE_OK);
    CHECK_STATUS(look(cache, "no"), ASIDE_MISS);
    process_fail_alloc(1, true);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = 60000;
    CHECK_STATUS(caller_run(&caller), ASIDE_E_NOMEM);
    process_fail_alloc(0, false);
    CHECK_INT(source.fetches, 0);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

static aside_status keep_job(void *ctx, aside_job *job)
{
    atomic_store((_Atomic(aside_job *) *)ctx, job);
    return ASIDE_OK;
}

static void *run_job_while_memory_is_short(void *job)
{
    process_fail_alloc(1, true);
    aside_job_run(job, NULL);
    process_fail_alloc(0, false);
    return NULL;
}

TEST(a_job_that_is_run_by_a_thread_that_can_have_no_record_is_refused)
{
    static _Atomic(aside_job *) job;
    aside_options options = quiet_options();
    options.submit = (aside_submit){keep_job, (void *)&job};
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = 60000;
    caller_start(&caller);
    WAIT_UNTIL(atomic_load(&job) != NULL);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS); /* this thread has a record, too */
    thread_join(thread_start(run_job_while_memory_is_short, atomic_load(&job)));
    CHECK_STATUS(caller_join(&caller), ASIDE_E_NOMEM);
    CHECK_INT(source.fetches, 0);
    end_cache(cache);
}

static void *ask_with_a_record_at_the_second_try(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    struct source source;
    source_init(&source, "v", false);
    process_fail_alloc(1, false);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    CHECK_INT(source.fetches, 1);
    return NULL;
}

TEST(whoever_gets_his_record_at_the_second_try_stores_under_his_key)
{
    aside_options options = quiet_options();
    aside_cache *cache = open_cache(&options);
    thread_join(thread_start(ask_with_a_record_at_the_second_try, cache));
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    end_cache(cache);
}

static void *hit_with_a_record_at_the_second_try(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .timeout_ms = ASIDE_NO_WAIT};
    aside_result result = ASIDE_RESULT_INIT;
    process_fail_alloc(1, false);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
    aside_value_unref(result.value);
    return NULL;
}

TEST(whoever_gets_his_record_at_the_second_try_has_his_hit)
{
    aside_options options = quiet_options();
    aside_cache *cache = open_cache(&options);
    put(cache, "k", "v", ASIDE_FOREVER);
    thread_join(thread_start(hit_with_a_record_at_the_second_try, cache));
    CHECK_INT(STAT(cache, hits), 1);
    CHECK_INT(STAT(cache, refused), 0);
    CHECK_INT(STAT(cache, get_with_fetch_ok), 1);
    end_cache(cache);
}

static aside_status give_while_memory_is_short(aside_fetch *fetch, void *value)
{
    ledger.fail_for_ever = true;
    ledger.fail_at = 1;
    return aside_fetch_give(fetch, value);
}

/* A value that exists needs an entry to be stored, and none to be handed over (F10). */
TEST(a_value_that_was_given_reaches_its_caller_though_there_is_no_memory_for_its_entry)
{
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    aside_value *value = NULL;
    struct caller caller;
    CHECK_STATUS(aside_value_copy("given", 5, &value), ASIDE_OK);
    caller_init(&caller, cache, "k", give_while_memory_is_short, value);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    ledger.fail_at = 0;
    ledger.fail_for_ever = false;
    CHECK(value_is(caller.result.value, "given"));
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_INT(STAT(cache, store_refused), 1);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- a flight beside another, for which there is no memory --------------------------------------- */

/* A flight takes one block, and to be told from another that is under way it takes more. */
static void leave_memory_for_one_block(void)
{
    ledger.fail_for_ever = true;
    ledger.fail_at = 2;
}

static aside_status find_nothing(aside_fetch *fetch, void *fetches)
{
    atomic_fetch_add((_Atomic int *)fetches, 1);
    return aside_fetch_not_found(fetch);
}

TEST(a_flight_beside_another_that_finds_no_memory_is_refused_and_leaves_no_trace)
{
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    options.max_bytes = 65536; /* so little that all keys lie together */
    options.max_flights = 2;
    aside_cache *cache = open_cache(&options);
    static _Atomic int fetches;
    struct source source;
    struct caller leader, other;
    source_init(&source, "v", true);
    lead_to_gate(&leader, cache, "led", &source);
    caller_init(&other, cache, "other", find_nothing, (void *)&fetches);
    int64_t blocks = ledger.live_blocks;
    uint64_t bytes = STAT(cache, bytes);
    for (unsigned turn = 1; turn <= 3; turn++) {
        leave_memory_for_one_block();
        CHECK_STATUS(caller_run(&other), ASIDE_E_NOMEM);
        fail(CACHE_ALLOCS, 0, false);
        CHECK_INT(other.result.outcome, ASIDE_OUTCOME_NONE);
        CHECK_INT(STAT(cache, refused), turn);
        CHECK_INT(STAT(cache, flights_now), 1);
        CHECK_INT(STAT(cache, bytes), bytes);
        CHECK_INT(ledger.live_blocks, blocks);
    }
    CHECK_INT(fetches, 0);
    CHECK_STATUS(caller_run(&other), ASIDE_NOT_FOUND); /* the second of two */
    CHECK_INT(fetches, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

static uint64_t refused_by(const aside_group *group, uint64_t flights_now)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    CHECK_INT(stats.flights_now, flights_now);
    return stats.refused;
}

struct group_leader {
    aside_group *group;
    struct source source;
};

static void *lead_in_group(void *arg)
{
    struct group_leader *leader = arg;
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .arg = &leader->source};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_group_do(leader->group, ASIDE_STR("led"), &call, &result), ASIDE_OK);
    aside_value_unref(result.value);
    return NULL;
}

/* The first number whose flight lies beside the one that is led, for want of memory refused. */
static uint32_t find_refused(aside_group *group, const aside_call *call, aside_result *result)
{
    for (uint32_t key = 0;; key++) {
        CHECK(key < 10000);
        leave_memory_for_one_block();
        aside_status status = aside_group_do(group, &key, sizeof key, call, result);
        fail(CACHE_ALLOCS, 0, false);
        if (status == ASIDE_E_NOMEM)
            return key;
        CHECK_STATUS(status, ASIDE_NOT_FOUND);
    }
}

TEST(a_groups_flight_beside_another_that_finds_no_memory_is_refused_and_leaves_no_trace)
{
    static _Atomic int fetches;
    struct group_leader leader;
    aside_call call = {ASIDE_CALL, .fetch = find_nothing, .arg = (void *)&fetches};
    aside_result result = ASIDE_RESULT_INIT;
    aside_options options = quiet_options();
    memset(&leader, 0, sizeof leader);
    options.alloc = ledger_init(&ledger);
    options.max_flights = 2;
    CHECK_STATUS(aside_group_new(&leader.group, &options), ASIDE_OK);
    source_init(&leader.source, "v", true);
    pthread_t thread = thread_start(lead_in_group, &leader);
    gate_wait_arrived(&leader.source.gate, 1);
    int64_t blocks = ledger.live_blocks;
    uint32_t key = find_refused(leader.group, &call, &result);
    CHECK_INT(fetches, key); /* those before it */
    CHECK_INT(result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(refused_by(leader.group, 1), 1);
    CHECK_INT(ledger.live_blocks, blocks);
    CHECK_STATUS(aside_group_do(leader.group, &key, sizeof key, &call, &result), ASIDE_NOT_FOUND);
    CHECK_INT(fetches, key + 1);
    gate_open(&leader.source.gate);
    thread_join(thread);
    CHECK_STATUS(aside_group_close(leader.group), ASIDE_OK);
    aside_group_unref(leader.group);
    CHECK_INT(ledger.live_blocks, 0);
}
