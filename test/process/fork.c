/*
 * fork.c -- P4: a cache or group that was opened before fork() works in the parent, which does not
 * notice, and in the child: it has the entries, none of the flights, and makes its threads anew when
 * it needs them. What cannot cross says ASIDE_E_FORKED there. Nobody hangs.
 */
#include "children.h"
#include "contract/helpers.h"
#include "sanitizers.h"

#include <aside/group.h>
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sys/mman.h>

SEARCH_NO_DEADLOCKS;

/* A child that makes these checks and ends. */
static void in_a_child(void (*checks)(void *), void *arg)
{
    struct child child = child_fork();
    if (child.pid == 0) {
        checks(arg);
        child_done();
    }
    child_end(&child, CHILD_DONE);
}

/* ---- a cache and its use ------------------------------------------------------------------------- */

#define ENTRIES 300

static void fill(aside_cache *cache)
{
    for (int i = 0; i < ENTRIES; i++) {
        char key[16], text[24];
        snprintf(key, sizeof key, "key %d", i);
        snprintf(text, sizeof text, "value %d", i);
        put(cache, key, text, ASIDE_FOREVER);
    }
}

static void compare_visited(const void *data, size_t size, void *text)
{
    CHECK(size == strlen((const char *)text) && memcmp(data, text, size) == 0);
}

/* Reads every entry in each way: all are hits. */
static void check_filled(aside_cache *cache)
{
    struct source never;
    source_init(&never, "fetched", false);
    for (int i = 0; i < ENTRIES; i++) {
        char key[16], text[24], buffer[24];
        size_t size = 0;
        snprintf(key, sizeof key, "key %d", i);
        snprintf(text, sizeof text, "value %d", i);
        CHECK(holds(cache, key, text));
        CHECK_STATUS(aside_copy(cache, key, strlen(key), buffer, sizeof buffer, &size), ASIDE_OK);
        CHECK(size == strlen(text) && memcmp(buffer, text, size) == 0);
        CHECK_STATUS(aside_visit(cache, key, strlen(key), compare_visited, text), ASIDE_OK);
        CHECK_STATUS(ask(cache, key, &never), ASIDE_OK);
    }
    CHECK_INT(never.fetches, 0);
}

/* Everything works, on this thread alone. */
static void use_cache(aside_cache *cache)
{
    struct source source;
    char text[] = "again";
    source_init(&source, "fetched", false);
    put(cache, "use", "set", ASIDE_FOREVER);
    CHECK(holds(cache, "use", "set"));
    put(cache, "use", "again", 60000);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("use"), compare_visited, text), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("use")), ASIDE_OK);
    CHECK_STATUS(look(cache, "use"), ASIDE_MISS);
    (void)aside_delete(cache, ASIDE_STR("inline"));
    (void)aside_delete(cache, ASIDE_STR("worker"));
    CHECK_STATUS(ask(cache, "inline", &source), ASIDE_OK);
    CHECK_STATUS(ask_worker(cache, "worker", &source), ASIDE_OK);
    CHECK_INT(source.fetches, 2);
    CHECK(holds(cache, "inline", "fetched"));
    CHECK(holds(cache, "worker", "fetched"));
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_health(cache), ASIDE_OK);
}

static void close_here(aside_cache *cache)
{
    struct source source;
    source_init(&source, "fetched", false);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(aside_health(cache), ASIDE_E_CLOSED);
    CHECK_STATUS(look(cache, "key 1"), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, ASIDE_FOREVER), ASIDE_E_CLOSED);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_INT(aside_count(cache), 0);
    CHECK_INT(source.fetches, 0);
}

/* Threads of the library's that do not sleep. */
static int workers_awake(void)
{
    int awake = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (const struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], line[256] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", task->d_name);
        FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (file == NULL)
            continue;
        if (fgets(line, sizeof line, file) != NULL && strstr(line, "(aside-fetch)") != NULL)
            awake += strstr(line, "(aside-fetch) S") == NULL;
        fclose(file);
    }
    closedir(tasks);
    return awake;
}

/* A worker that has answered its caller still holds the flight, and lets go before it sleeps. What it
 * held at a fork would stay allocated in the child. */
static void wait_for_idle_workers(void)
{
    for (int looks = 0; looks < 5; looks++) {
        WAIT_UNTIL(workers_awake() == 0);
        test_yield();
    }
}

/* With a reaper that runs all the time. */
static aside_options busy_options(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 1;
    options.fetch_threads = 2;
    return options;
}

/* A reaper and a worker live. */
static aside_cache *open_filled(const aside_options *options)
{
    aside_cache *cache = open_cache(options);
    struct source source;
    source_init(&source, "fetched", false);
    fill(cache);
    CHECK_STATUS(ask_worker(cache, "worker", &source), ASIDE_OK);
    return cache;
}

/* ---- entries, threads, closing ------------------------------------------------------------------- */

static void change_everything(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    CHECK_INT(aside_count(cache), ENTRIES);
    CHECK_INT(STAT(cache, entries), ENTRIES);
    check_filled(cache);
    put(cache, "key 0", "of the child", ASIDE_FOREVER);
    CHECK(holds(cache, "key 0", "of the child"));
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("key 1")), ASIDE_OK);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("key 2")), ASIDE_OK);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("key 3"), 60000), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("key 4"), "v", 1, 60000), ASIDE_EXISTS);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("added"), "v", 1, 60000), ASIDE_OK);
    CHECK_STATUS(look(cache, "key 1"), ASIDE_MISS);
    CHECK_STATUS(look(cache, "key 2"), ASIDE_MISS);
    use_cache(cache);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(aside_count(cache), 0);
    CHECK_STATUS(look(cache, "key 3"), ASIDE_MISS);
    fill(cache);
    check_filled(cache);
    close_here(cache);
    aside_unref(cache);
}

TEST(the_child_has_the_entries_and_its_changes_are_its_own)
{
    aside_cache *cache = open_quiet();
    fill(cache);
    aside_stats before = test_stats(cache);
    in_a_child(change_everything, cache);
    aside_stats after = test_stats(cache);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    check_filled(cache);
    CHECK_INT(aside_count(cache), ENTRIES);
    use_cache(cache);
    end_cache(cache);
}

static void miss_in_every_way(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    struct source source;
    struct caller caller;
    source_init(&source, "fetched here", false);
    for (int i = 0; i < 2; i++) {
        aside_cancel *token = i ? token_new() : NULL;
        caller_ask(&caller, cache, i ? "by worker" : "inline", &source, token);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(caller.result.shared, 0);
        caller_drop(&caller);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_HIT);
        CHECK(value_is(caller.result.value, "fetched here"));
        caller_drop(&caller);
        aside_cancel_unref(token);
    }
    CHECK_INT(source.fetches, 2);
    CHECK_INT(process_threads_named("aside-fetch"), 1);
}

TEST(the_first_miss_in_the_child_fetches)
{
    aside_cache *quiet = open_quiet();
    aside_options options = busy_options();
    aside_cache *filled = open_filled(&options);
    in_a_child(miss_in_every_way, quiet);
    in_a_child(miss_in_every_way, filled);
    CHECK_STATUS(look(quiet, "inline"), ASIDE_MISS);
    CHECK_STATUS(look(filled, "inline"), ASIDE_MISS);
    end_cache(quiet);
    end_cache(filled);
}

static void hit_only(void *arg)
{
    int created = threads_created();
    CHECK_INT(process_threads_named("aside-"), 0);
    for (int i = 0; i < 10; i++)
        check_filled((aside_cache *)arg);
    CHECK_INT(process_threads_named("aside-"), 0);
    CHECK_INT(threads_created(), created);
}

/* The ways to write; each starts the reaper. */
static int first_write;

static void write_once(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    aside_value *value = NULL;
    struct source source;
    source_init(&source, "fetched", false);
    CHECK_STATUS(aside_value_copy("v", 1, &value), ASIDE_OK);
    check_filled(cache);
    CHECK_INT(process_threads_named("aside-"), 0);
    switch (first_write) {
    case 0: put(cache, "k", "v", ASIDE_FOREVER); break;
    case 1: put(cache, "key 1", "v", ASIDE_FOREVER); break;
    case 2: CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, 60000), ASIDE_OK); break;
    case 3:
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, ASIDE_FOREVER), ASIDE_OK);
        break;
    case 4: CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK); break;
    default: CHECK_STATUS(aside_delete(cache, ASIDE_STR("key 1")), ASIDE_OK);
    }
    WAIT_UNTIL(process_threads_named("aside-reaper") == 1);
    CHECK_INT(process_threads_named("aside-"), 1);
    for (int i = 0; i < 100; i++) /* and only one */
        put(cache, "k", "v", ASIDE_FOREVER);
    CHECK_INT(process_threads_named("aside-"), 1);
    aside_value_unref(value);
    close_here(cache);
    wait_for_no_threads();
    aside_unref(cache);
}

TEST(a_hit_starts_no_thread_in_the_child_and_the_first_write_starts_the_reaper)
{
    aside_options options = busy_options();
    aside_cache *cache = open_filled(&options);
    in_a_child(hit_only, cache);
    for (first_write = 0; first_write < 6; first_write++)
        in_a_child(write_once, cache);
    WAIT_UNTIL(process_threads_named("aside-reaper") == 1); /* it names itself */
    end_cache(cache);
}

static void use_without_reaper(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    use_cache(cache);
    CHECK_INT(process_threads_named("aside-reaper"), 0);
}

TEST(a_cache_without_a_reaper_has_none_in_the_child)
{
    aside_cache *cache = open_quiet();
    fill(cache);
    in_a_child(use_without_reaper, cache);
    end_cache(cache);
}

struct expiring {
    aside_cache *cache;
    struct fake_clock clock;
};

/* What the parent stored, and what is stored here, goes without being asked for. */
static void wait_for_reaper(void *arg)
{
    struct expiring *expiring = (struct expiring *)arg;
    put(expiring->cache, "here", "v", 1000);
    CHECK_INT(aside_count(expiring->cache), ENTRIES + 2);
    WAIT_UNTIL((fake_clock_advance_ms(&expiring->clock, 100, expiring->cache),
                aside_count(expiring->cache) == ENTRIES));
    check_filled(expiring->cache);
    WAIT_UNTIL(STAT(expiring->cache, expired) == 2);
}

TEST(the_reaper_of_the_child_removes_what_the_parent_stored)
{
    struct expiring expiring;
    aside_options options = busy_options();
    options.clock = fake_clock_init(&expiring.clock);
    expiring.cache = open_cache(&options);
    fill(expiring.cache);
    put(expiring.cache, "before", "v", 1000);
    in_a_child(wait_for_reaper, &expiring);
    CHECK(holds(expiring.cache, "before", "v")); /* its clock has not moved */
    end_cache(expiring.cache);
}

static void close_first_thing(void *cache)
{
    close_here((aside_cache *)cache);
    aside_unref((aside_cache *)cache);
}

static void unref_only(void *cache)
{
    aside_unref((aside_cache *)cache);
}

static void use_then_unref(void *cache)
{
    use_cache((aside_cache *)cache);
    aside_unref((aside_cache *)cache);
    wait_for_no_threads();
}

static void use_closed(void *cache)
{
    close_here((aside_cache *)cache);
}

TEST(a_cache_may_be_closed_in_the_child_and_in_the_parent)
{
    for (int i = 0; i < 4; i++) {
        aside_options options = busy_options();
        options.close_wait_ms = ASIDE_FOREVER;
        aside_cache *cache = i % 2 ? open_filled(&options) : open_cache(&options);
        int joined = threads_joined();
        in_a_child(close_first_thing, cache);
        in_a_child(unref_only, cache);
        in_a_child(use_then_unref, cache);
        CHECK_STATUS(aside_health(cache), ASIDE_OK);
        WAIT_UNTIL(process_threads_named("aside-reaper") == 1); /* it names itself */
        CHECK_INT(threads_joined(), joined);
        if (i < 2)
            use_cache(cache);
        CHECK_STATUS(aside_close(cache), ASIDE_OK);
        CHECK(threads_joined() > joined);
        in_a_child(use_closed, cache);
        close_here(cache);
        aside_unref(cache);
        wait_for_no_threads();
    }
}

static void open_another(void *arg)
{
    aside_options options = busy_options();
    aside_cache *cache = open_filled(&options);
    check_filled(cache);
    use_cache(cache);
    if (arg != NULL)
        use_cache((aside_cache *)arg);
    close_first_thing(cache);
}

TEST(a_cache_may_be_opened_in_the_child)
{
    in_a_child(open_another, NULL); /* before the parent has had any */
    aside_cache *cache = open_quiet();
    in_a_child(open_another, cache);
    end_cache(cache);
    in_a_child(open_another, NULL);
}

TEST(many_caches_cross_at_once)
{
    enum { CACHES = SANITIZED ? 60 : 300 };
    static aside_cache *caches[CACHES];
    for (int i = 0; i < CACHES; i++) {
        caches[i] = open_quiet();
        put(caches[i], "k", "v", ASIDE_FOREVER);
    }
    for (int i = 0; i < CACHES; i += 3) { /* holes */
        end_cache(caches[i]);
        caches[i] = NULL;
    }
    struct child child = child_fork();
    for (int i = 0; i < CACHES; i++) {
        if (caches[i] == NULL)
            continue;
        CHECK(holds(caches[i], "k", "v"));
        use_cache(caches[i]);
        end_cache(caches[i]);
    }
    if (child.pid == 0)
        child_done();
    child_end(&child, CHILD_DONE);
}

TEST(a_cache_without_bounds_crosses_too)
{
    aside_options options = quiet_options();
    options.max_bytes = options.max_entries = 0;
    aside_cache *cache = open_cache(&options);
    put(cache, "k", "v", ASIDE_FOREVER);
    struct child child = child_fork();
    CHECK(holds(cache, "k", "v"));
    use_cache(cache);
    end_cache(cache);
    if (child.pid == 0)
        child_done();
    child_end(&child, CHILD_DONE);
}

static void three_generations(aside_cache *cache, int generation)
{
    char key[16], text[24];
    check_filled(cache);
    use_cache(cache);
    snprintf(key, sizeof key, "of %d", generation);
    put(cache, key, key, ASIDE_FOREVER);
    WAIT_UNTIL(process_threads_named("aside-reaper") == 1);
    CHECK(process_threads_named("aside-fetch") >= 1);
    if (generation < 3) {
        struct child child = child_fork();
        if (child.pid == 0) {
            CHECK_INT(process_threads_named("aside-"), 0);
            three_generations(cache, generation + 1);
            child_done();
        }
        use_cache(cache);
        child_end(&child, CHILD_DONE);
    }
    for (int i = 0; i <= 3; i++) {
        snprintf(text, sizeof text, "of %d", i);
        CHECK_STATUS(look(cache, text), i <= generation ? ASIDE_OK : ASIDE_MISS);
    }
    check_filled(cache);
    close_first_thing(cache);
    wait_for_no_threads();
}

TEST(it_works_three_generations_deep)
{
    aside_options options = busy_options();
    three_generations(open_filled(&options), 0);
}

/* ---- handles, memory, counters ------------------------------------------------------------------- */

struct held {
    aside_cache *cache;
    aside_value *copied, *wrapped;
    struct tally *tally;
};

static void use_handles(void *arg)
{
    struct held *held = (struct held *)arg;
    CHECK(value_is(held->copied, "held"));
    CHECK(aside_value_data(held->wrapped) == &held->tally->slot[0]);
    aside_value *again = aside_value_ref(held->copied);
    CHECK(again == held->copied);
    aside_value_unref(again);
    put(held->cache, "copied", "overwritten", ASIDE_FOREVER);
    CHECK_STATUS(aside_set_value(held->cache, ASIDE_STR("again"), held->wrapped, ASIDE_FOREVER),
                 ASIDE_OK);
    CHECK_STATUS(aside_clear(held->cache), ASIDE_OK);
    CHECK(value_is(held->copied, "held"));
    end_cache(held->cache);
    CHECK(value_is(held->copied, "held"));
    CHECK_INT(held->tally->freed, 0);
    aside_value_unref(held->copied);
    aside_value_unref(held->wrapped);
    CHECK_INT(held->tally->freed, 1);
}

TEST(a_handle_of_before_is_valid_in_the_child)
{
    struct held held;
    held.cache = open_quiet();
    held.tally = (struct tally *)calloc(1, sizeof *held.tally);
    put(held.cache, "copied", "held", ASIDE_FOREVER);
    CHECK_STATUS(tally_set(held.tally, held.cache, "wrapped", 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_get(held.cache, ASIDE_STR("copied"), &held.copied), ASIDE_OK);
    CHECK_STATUS(aside_get(held.cache, ASIDE_STR("wrapped"), &held.wrapped), ASIDE_OK);
    in_a_child(use_handles, &held);
    CHECK_INT(held.tally->freed, 0);
    use_handles(&held); /* and the parent does the same with its own */
    free(held.tally);
}

struct counted {
    aside_cache *cache;
    struct ledger ledger;
    int64_t empty; /* bytes of the cache without its entries */
    struct tally *tally;
};

static void free_all(void *arg)
{
    struct counted *counted = (struct counted *)arg;
    CHECK(counted->ledger.live_bytes > counted->empty + ENTRIES * 10);
    CHECK_STATUS(aside_clear(counted->cache), ASIDE_OK);
    CHECK_INT(aside_count(counted->cache), 0);
    WAIT_UNTIL((aside_reap(counted->cache, 0, NULL), counted->tally->freed == 1));
    WAIT_UNTIL((aside_reap(counted->cache, 0, NULL), counted->ledger.live_bytes <= counted->empty));
    fill(counted->cache);
    check_filled(counted->cache);
    CHECK_STATUS(tally_set(counted->tally, counted->cache, "w", 10, ASIDE_FOREVER), ASIDE_OK);
    end_cache(counted->cache);
    CHECK_INT(counted->tally->freed, 2);
    WAIT_UNTIL(counted->ledger.live_blocks == 0);
    CHECK_INT(counted->ledger.live_bytes, 0);
}

/* way: 0 nothing but entries, 1 with a reaper, 2 and an idle worker. */
static void check_freed(int way)
{
    struct counted counted;
    struct source source;
    aside_options options = way ? busy_options() : quiet_options();
    options.alloc = ledger_init(&counted.ledger);
    counted.cache = open_cache(&options);
    counted.tally = (struct tally *)calloc(1, sizeof *counted.tally);
    source_init(&source, "fetched", false);
    fill(counted.cache);
    if (way == 2)
        CHECK_STATUS(ask_worker(counted.cache, "worker", &source), ASIDE_OK);
    CHECK_STATUS(aside_clear(counted.cache), ASIDE_OK);
    WAIT_UNTIL((aside_reap(counted.cache, 0, NULL), STAT(counted.cache, limbo_bytes) == 0));
    counted.empty = counted.ledger.live_bytes;
    CHECK_STATUS(tally_set(counted.tally, counted.cache, "w", 10, ASIDE_FOREVER), ASIDE_OK);
    fill(counted.cache);
    check_filled(counted.cache);
    wait_for_idle_workers();
    int64_t bytes = counted.ledger.live_bytes, blocks = counted.ledger.live_blocks;
    in_a_child(free_all, &counted);
    if (way == 0) {
        CHECK_INT(counted.ledger.live_bytes, bytes);
        CHECK_INT(counted.ledger.live_blocks, blocks);
    }
    CHECK_INT(counted.tally->freed, 0);
    check_filled(counted.cache);
    end_cache(counted.cache);
    WAIT_UNTIL(counted.ledger.live_blocks == 0);
    CHECK_INT(counted.tally->freed, 1);
    free(counted.tally);
}

TEST(what_the_child_drops_is_freed_there)
{
    check_freed(0);
}

TEST(what_the_child_drops_is_freed_there_though_the_parent_has_a_reaper)
{
    check_freed(1);
}

TEST(what_the_child_drops_is_freed_there_though_the_parent_has_a_worker)
{
    check_freed(2);
}

struct looker {
    aside_cache *cache;
    struct gate *gate;
};

static void *look_and_stand(void *arg)
{
    struct looker *looker = (struct looker *)arg;
    for (int i = 0; i < 100; i++)
        CHECK_STATUS(look(looker->cache, "key 1"), ASIDE_OK);
    gate_pass(looker->gate);
    return NULL;
}

static uint64_t lookups_of(aside_cache *cache)
{
    aside_stats stats = test_stats(cache);
    return stats.hits + stats.misses + stats.misses_led + stats.misses_joined + stats.refused;
}

static void look_a_few_times(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    for (int i = 0; i < 7; i++)
        CHECK_STATUS(look(cache, "key 2"), ASIDE_OK);
    CHECK_STATUS(look(cache, "no"), ASIDE_MISS);
    CHECK_INT(STAT(cache, hits), 307);
    CHECK_INT(STAT(cache, misses), 1);
    CHECK_INT(lookups_of(cache), 308);
    CHECK_INT(STAT(cache, sets), ENTRIES);
}

/* What threads counted that are not there in the child is not lost, nor counted twice. */
TEST(counters_and_gauges_go_on_in_the_child)
{
    enum { THREADS = 3 };
    aside_cache *cache = open_quiet();
    struct gate gate;
    struct looker looker = {cache, &gate};
    pthread_t threads[THREADS];
    fill(cache);
    gate_init(&gate);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(look_and_stand, &looker);
    gate_wait_arrived(&gate, THREADS);
    in_a_child(look_a_few_times, cache);
    CHECK_INT(lookups_of(cache), 300);
    gate_open(&gate);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    CHECK_INT(lookups_of(cache), 300);
    in_a_child(look_a_few_times, cache);
    end_cache(cache);
}

/* ---- flights and waiters at the moment of the fork ----------------------------------------------- */

static aside_status leave_pending(aside_fetch *fetch, void *arg)
{
    atomic_store((_Atomic(aside_fetch *) *)arg, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

/* A fetch by its leader, one by a worker, one in the queue, one that is pending; two have joined. */
struct traffic {
    aside_cache *cache;
    struct ledger ledger;
    aside_cancel *token;
    struct source led, worked, queued;
    _Atomic(aside_fetch *) pending;
    struct caller leader, worker, waiting, pender, joiners[2];
    uint64_t bytes; /* of the cache before the flights */
};

/* Every bound is reached then. */
static void traffic_begin(struct traffic *traffic, int64_t reaper_interval_ms)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = reaper_interval_ms;
    options.alloc = ledger_init(&traffic->ledger);
    options.fetch_threads = 1;
    options.max_queued = 1;
    options.max_waiters = 1;
    options.max_flights = 4;
    options.close_wait_ms = ASIDE_FOREVER;
    aside_cache *cache = traffic->cache = open_cache(&options);
    traffic->token = token_new();
    fill(cache);
    traffic->bytes = STAT(cache, bytes);
    source_init(&traffic->led, "led", true);
    source_init(&traffic->worked, "worked", true);
    source_init(&traffic->queued, "queued", true);
    lead_to_gate(&traffic->leader, cache, "led", &traffic->led);
    caller_ask(&traffic->worker, cache, "worked", &traffic->worked, traffic->token);
    caller_start(&traffic->worker);
    gate_wait_arrived(&traffic->worked.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    join_flight(&traffic->waiting, cache, "queued", &traffic->queued, traffic->token, 2);
    atomic_store(&traffic->pending, NULL);
    caller_init(&traffic->pender, cache, "pending", leave_pending, (void *)&traffic->pending);
    caller_start(&traffic->pender);
    WAIT_UNTIL(STAT(cache, waiters_now) == 3);
    join_flight(&traffic->joiners[0], cache, "led", &traffic->led, NULL, 4);
    join_flight(&traffic->joiners[1], cache, "worked", &traffic->worked, traffic->token, 5);
    CHECK_INT(STAT(cache, flights_now), 4);
    CHECK_INT(STAT(cache, queued_now), 1);
    CHECK(STAT(cache, bytes) > traffic->bytes);
}

/* In the parent: nobody has noticed anything. */
static void traffic_end(struct traffic *traffic)
{
    struct caller *callers[] = {&traffic->leader, &traffic->worker,     &traffic->waiting,
                                &traffic->pender, &traffic->joiners[0], &traffic->joiners[1]};
    static const char *const texts[] = {"led", "worked", "queued", "pending", "led", "worked"};
    aside_cache *cache = traffic->cache;
    aside_fetch *fetch = atomic_load(&traffic->pending);
    CHECK_INT(STAT(cache, flights_now), 4);
    CHECK_INT(STAT(cache, waiters_now), 5);
    CHECK_INT(STAT(cache, queued_now), 1);
    CHECK_INT(STAT(cache, workers_now), 1);
    for (size_t i = 0; i < COUNT_OF(callers); i++)
        CHECK(!callers[i]->done);
    CHECK_INT(aside_cancel_fired(traffic->token), 0);
    gate_open(&traffic->led.gate);
    gate_open(&traffic->worked.gate);
    gate_open(&traffic->queued.gate);
    CHECK_STATUS(aside_fetch_copy(fetch, "pending", 7), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        CHECK_STATUS(caller_join(callers[i]), ASIDE_OK);
        CHECK(value_is(callers[i]->result.value, texts[i]));
        CHECK_INT(callers[i]->result.fenced, 0);
        caller_drop(callers[i]);
        CHECK(holds(cache, texts[i], texts[i]));
    }
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.misses_led, 4);
    CHECK_INT(stats.misses_joined, 2);
    CHECK_INT(stats.refused, 0);
    CHECK_INT(stats.fetches, 4);
    CHECK_INT(stats.fetch_stored, 4);
    CHECK_INT(stats.waiters_now, 0);
    check_filled(cache);
    aside_cancel_unref(traffic->token);
    end_cache(cache);
    WAIT_UNTIL(traffic->ledger.live_blocks == 0);
}

/* In the child: none of them is there, and no bound is reached. */
static void check_no_traffic(void *arg)
{
    static const char *const keys[] = {"led", "worked", "queued", "pending"};
    struct traffic *traffic = (struct traffic *)arg;
    aside_cache *cache = traffic->cache;
    aside_stats stats = test_stats(cache);
    struct source source;
    struct caller caller;
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.queued_now, 0);
    CHECK_INT(stats.workers_now, 0);
    CHECK_INT(stats.entries, ENTRIES);
    CHECK_INT(stats.bytes, traffic->bytes);
    check_filled(cache);
    source_init(&source, "of the child", false);
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        caller_ask(&caller, cache, keys[i], &source, i % 2 ? traffic->token : NULL);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_FETCHED);
        caller_drop(&caller);
        CHECK(holds(cache, keys[i], "of the child"));
    }
    CHECK_INT(source.fetches, 4);
    use_cache(cache);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    use_cache(cache);
    close_first_thing(cache); /* which does not wait for those fetches */
}

static void check_traffic(void (*checks)(void *), int64_t reaper_interval_ms, int children)
{
    struct traffic traffic;
    traffic_begin(&traffic, reaper_interval_ms);
    while (children-- > 0)
        in_a_child(checks, &traffic);
    traffic_end(&traffic);
    wait_for_no_threads();
}

TEST(the_child_has_none_of_the_flights_and_the_parent_keeps_them)
{
    check_traffic(check_no_traffic, 0, 3);
}

TEST(the_child_has_none_of_the_flights_and_the_parent_keeps_them_with_a_reaper)
{
    check_traffic(check_no_traffic, 1, 3);
}

static void close_with_traffic(void *traffic)
{
    close_first_thing(((struct traffic *)traffic)->cache);
}

static void clear_and_forks_again(void *arg)
{
    struct traffic *traffic = (struct traffic *)arg;
    CHECK_STATUS(aside_clear(traffic->cache), ASIDE_OK);
    fill(traffic->cache);
    in_a_child(check_no_traffic, traffic);
    check_no_traffic(traffic);
}

TEST(flights_of_the_parent_do_not_hold_up_a_close_or_a_fork_in_the_child)
{
    check_traffic(close_with_traffic, 0, 2);
    check_traffic(clear_and_forks_again, 1, 2);
}

/* The forgotten, fenced and superseded ones are not on any table, but they run. */
TEST(fenced_flights_stay_in_the_parent_too)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source old, next;
    struct caller leader, worker;
    source_init(&old, "old", true);
    source_init(&next, "next", true);
    lead_to_gate(&leader, cache, "k", &old);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    caller_ask(&worker, cache, "k", &next, token);
    caller_start(&worker);
    gate_wait_arrived(&next.gate, 1);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    struct child child = child_fork();
    if (child.pid == 0) {
        struct source source;
        source_init(&source, "of the child", false);
        CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
        CHECK(holds(cache, "k", "of the child"));
        use_cache(cache);
        close_first_thing(cache);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    gate_open(&old.gate);
    gate_open(&next.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&worker), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(worker.result.fenced, 1);
    caller_drop(&leader);
    caller_drop(&worker);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(workers_that_hang_in_the_parent_do_not_clog_those_of_the_child)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.fetch_threads = 2;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source hung, good;
    struct caller callers[2];
    source_init(&hung, "hung", true);
    source_init(&good, "good", false);
    for (int i = 0; i < 2; i++) {
        caller_ask(&callers[i], cache, i ? "b" : "a", &hung, token);
        caller_start(&callers[i]);
    }
    gate_wait_arrived(&hung.gate, 2);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    fake_clock_advance_ms(&clock, 30001, cache);
    for (int i = 0; i < 2; i++)
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_FETCH_TIMEOUT);
    CHECK_STATUS(ask_worker(cache, "next", &good), ASIDE_E_BUSY);
    struct child child = child_fork();
    if (child.pid == 0) {
        CHECK_STATUS(ask_worker(cache, "next", &good), ASIDE_OK);
        use_cache(cache);
        close_first_thing(cache);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    gate_open(&hung.gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_STATUS(ask_worker(cache, "next", &good), ASIDE_OK);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- readers at the moment of the fork ----------------------------------------------------------- */

struct visitor {
    aside_cache *cache;
    struct gate gate;
};

static void stand_in_visit(const void *data, size_t size, void *ctx)
{
    char before[16];
    CHECK(size < sizeof before);
    memcpy(before, data, size);
    gate_pass(&((struct visitor *)ctx)->gate);
    CHECK(memcmp(before, data, size) == 0);
}

static void *visit_main(void *arg)
{
    struct visitor *visitor = (struct visitor *)arg;
    CHECK_STATUS(aside_visit(visitor->cache, ASIDE_STR("key 1"), stand_in_visit, visitor),
                 ASIDE_OK);
    return NULL;
}

/* Writes many times what the cache may hold: no reader stands still here, so nothing is refused. */
static void overwrite_much(aside_cache *cache, const struct ledger *ledger, int64_t most)
{
    static char bytes[1000];
    for (int i = 0; i < 10000; i++) {
        int key = 1000000 + i % 100;
        CHECK_STATUS(aside_set(cache, &key, sizeof key, bytes, sizeof bytes, ASIDE_FOREVER),
                     ASIDE_OK);
        if (ledger)
            CHECK(ledger->live_bytes <= most);
    }
}

TEST(a_visit_of_another_thread_pins_its_entry_in_the_child_and_stops_no_writer)
{
    enum { VISITORS = 3 };
    struct ledger ledger;
    struct visitor visitor;
    aside_options options = quiet_options();
    pthread_t threads[VISITORS];
    options.alloc = ledger_init(&ledger);
    options.max_bytes = (size_t)1 << 20;
    visitor.cache = open_cache(&options);
    gate_init(&visitor.gate);
    fill(visitor.cache);
    for (int i = 0; i < VISITORS; i++)
        threads[i] = thread_start(visit_main, &visitor);
    gate_wait_arrived(&visitor.gate, VISITORS);
    int64_t most = ledger.live_bytes + (3 << 20);
    struct child child = child_fork();
    if (child.pid == 0) {
        check_filled(visitor.cache);
        CHECK_STATUS(aside_delete(visitor.cache, ASIDE_STR("key 1")), ASIDE_OK);
        overwrite_much(visitor.cache, &ledger, most);
        CHECK_STATUS(aside_clear(visitor.cache), ASIDE_OK);
        overwrite_much(visitor.cache, &ledger, most);
        use_cache(visitor.cache);
        close_first_thing(visitor.cache);
        child_done();
    }
    CHECK_STATUS(aside_delete(visitor.cache, ASIDE_STR("key 1")), ASIDE_OK);
    overwrite_much(visitor.cache, &ledger, most);
    child_end(&child, CHILD_DONE);
    gate_open(&visitor.gate);
    for (int i = 0; i < VISITORS; i++)
        thread_join(threads[i]);
    end_cache(visitor.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- a fork inside a callback -------------------------------------------------------------------- */

/* The parent goes on as if nothing had happened; the child is told, and goes on as well. */
struct forking {
    aside_cache *cache;
    struct child child;
    struct tally *tally;
    _Atomic int fetches;
    bool leaves; /* the child returns from the callback at once */
    bool closes; /* it closes its cache before that */
    aside_fetch *fetch;
};

static void forking_init(struct forking *forking, aside_cache *cache)
{
    memset(forking, 0, sizeof *forking);
    forking->cache = cache;
    forking->tally = (struct tally *)calloc(1, sizeof *forking->tally);
    fill(cache);
}

static void forking_fini(struct forking *forking)
{
    free(forking->tally);
    end_cache(forking->cache);
    wait_for_no_threads();
}

/* What a fetch of before the fork hears in the child, inside its callback. */
static void check_forked_fetch(aside_fetch *fetch, struct forking *forking, const char *key)
{
    void *to = NULL;
    size_t size = 0;
    int made = forking->tally->made;
    aside_value *value = tally_value(forking->tally, 1);
    CHECK(memcmp(aside_fetch_key(fetch, &size), key, strlen(key)) == 0);
    CHECK_INT(size, strlen(key));
    CHECK_INT(aside_fetch_stopping(fetch), 1);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, 5), ASIDE_E_FORKED);
    to = &size;
    CHECK_STATUS(aside_fetch_buffer(fetch, 10, &to), ASIDE_E_FORKED);
    CHECK(to == NULL);
    CHECK_STATUS(aside_fetch_copy(fetch, "child", 5), ASIDE_E_FORKED);
    CHECK_INT(forking->tally->slot[made], 0);
    CHECK_STATUS(aside_fetch_give(fetch, value), ASIDE_E_FORKED); /* takes the reference */
    CHECK_INT(forking->tally->slot[made], 1);
    CHECK_STATUS(aside_fetch_not_found(fetch), ASIDE_E_FORKED);
    CHECK_STATUS(aside_fetch_fail(fetch, 1), ASIDE_E_FORKED);
    CHECK(aside_fetch_ref(fetch) == fetch);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_E_FORKED);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_E_BUSY), ASIDE_E_FORKED);
    aside_fetch_unref(fetch);
}

static aside_status fork_inside(aside_fetch *fetch, void *arg)
{
    struct forking *forking = (struct forking *)arg;
    atomic_fetch_add(&forking->fetches, 1);
    forking->child = child_fork();
    if (forking->child.pid > 0)
        return aside_fetch_copy(fetch, "parent", 6);
    if (!forking->leaves) {
        check_forked_fetch(fetch, forking, "k");
        check_filled(forking->cache);
        use_cache(forking->cache); /* also fetches, of other keys */
        CHECK_STATUS(look(forking->cache, "k"), ASIDE_MISS);
    }
    if (forking->closes)
        close_first_thing(forking->cache);
    return aside_fetch_copy(fetch, "child", 5);
}

/* Where the call of the forked fetch has returned in the child. */
static _Noreturn void check_after_fork(struct forking *forking, const struct caller *caller)
{
    struct source source;
    CHECK_STATUS(caller->status, ASIDE_E_FORKED);
    CHECK(caller->result.value == NULL);
    CHECK_STATUS(look(forking->cache, "k"), ASIDE_MISS);
    CHECK_INT(STAT(forking->cache, flights_now), 0);
    CHECK_INT(STAT(forking->cache, waiters_now), 0);
    source_init(&source, "of the child", false);
    CHECK_STATUS(ask(forking->cache, "k", &source), ASIDE_OK); /* no recursion: it has ended */
    CHECK(holds(forking->cache, "k", "of the child"));
    check_filled(forking->cache);
    use_cache(forking->cache);
    close_first_thing(forking->cache);
    child_done();
}

TEST(a_fork_inside_a_fetch_on_its_leaders_thread)
{
    for (int leaves = 0; leaves <= 1; leaves++) {
        struct forking forking;
        struct caller caller;
        forking_init(&forking, open_quiet());
        forking.leaves = leaves;
        caller_init(&caller, forking.cache, "k", fork_inside, &forking);
        caller_run(&caller);
        if (forking.child.pid == 0)
            check_after_fork(&forking, &caller);
        CHECK_STATUS(caller.status, ASIDE_OK);
        CHECK(value_is(caller.result.value, "parent"));
        CHECK_INT(caller.result.fenced, 0);
        caller_drop(&caller);
        child_end(&forking.child, CHILD_DONE);
        CHECK(holds(forking.cache, "k", "parent"));
        CHECK_INT(forking.fetches, 1);
        CHECK_INT(STAT(forking.cache, fetch_stored), 1);
        forking_fini(&forking);
    }
}

/* In the child, where the call has come back, its thread tells so. */
static void *run_and_tell(void *arg)
{
    struct caller *caller = (struct caller *)arg;
    caller_run(caller);
    if (!in_child)
        return NULL;
    CHECK_STATUS(caller->status, ASIDE_E_FORKED);
    check_filled(caller->cache);
    close_first_thing(caller->cache);
    child_done();
}

struct waiting_fork {
    struct forking forking; /* first */
    struct gate gate;
};

static aside_status fork_after_the_gate(aside_fetch *fetch, void *arg)
{
    gate_pass(&((struct waiting_fork *)arg)->gate);
    return fork_inside(fetch, arg);
}

/* The leader is another thread than the main one, and others wait for him. */
TEST(a_fork_inside_a_fetch_that_others_wait_for)
{
    struct waiting_fork waiting;
    struct caller leader, joiners[3];
    aside_cancel *token = token_new();
    forking_init(&waiting.forking, open_quiet());
    gate_init(&waiting.gate);
    aside_cache *cache = waiting.forking.cache;
    caller_init(&leader, cache, "k", fork_after_the_gate, &waiting);
    leader.thread = thread_start(run_and_tell, &leader);
    gate_wait_arrived(&waiting.gate, 1);
    for (unsigned i = 0; i < 3; i++)
        join_flight(&joiners[i], cache, "k", NULL, i ? token : NULL, i + 1);
    waiting.forking.leaves = true;
    gate_open(&waiting.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(caller_join(&joiners[i]), ASIDE_OK);
        CHECK(value_is(joiners[i].result.value, "parent"));
        CHECK_INT(joiners[i].result.shared, 1);
        caller_drop(&joiners[i]);
    }
    caller_drop(&leader);
    child_end(&waiting.forking.child, CHILD_DONE);
    CHECK(holds(cache, "k", "parent"));
    aside_cancel_unref(token);
    forking_fini(&waiting.forking);
}

static aside_status fork_and_free(aside_fetch *fetch, void *arg)
{
    struct forking *forking = (struct forking *)arg;
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(forking->tally, 1)), ASIDE_OK);
    forking->child = child_fork();
    return ASIDE_OK;
}

/* What the fetch had noted before, the argument's copy and the flight are freed in the child. */
TEST(a_forked_fetch_leaves_nothing_behind_in_the_child)
{
    struct ledger ledger;
    struct forking forking;
    struct caller caller;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    forking_init(&forking, open_cache(&options));
    caller_init(&caller, forking.cache, "k", fork_and_free, &forking);
    caller_run(&caller);
    if (forking.child.pid == 0) {
        CHECK_STATUS(caller.status, ASIDE_E_FORKED);
        CHECK_INT(forking.tally->freed, 1);
        use_cache(forking.cache);
        end_cache(forking.cache);
        wait_for_no_threads();
        WAIT_UNTIL(ledger.live_blocks == 0);
        child_done();
    }
    CHECK_STATUS(caller.status, ASIDE_OK);
    child_end(&forking.child, CHILD_DONE);
    CHECK_INT(forking.tally->freed, 0);
    caller_drop(&caller);
    CHECK_STATUS(aside_clear(forking.cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(forking.cache, 0, NULL), ASIDE_OK);
    CHECK_INT(forking.tally->freed, 1);
    forking_fini(&forking);
    CHECK_INT(ledger.live_blocks, 0);
}

struct nested_fork {
    struct forking forking; /* first */
    aside_cache *outer;
    bool offloaded;
    aside_cancel *token;
};

static aside_status ask_the_forking_one(aside_fetch *fetch, void *arg)
{
    struct nested_fork *nested = (struct nested_fork *)arg;
    struct caller inner;
    caller_init(&inner, nested->forking.cache, "k", fork_inside, &nested->forking);
    caller_run(&inner);
    if (nested->forking.child.pid == 0) {
        CHECK_STATUS(inner.status, ASIDE_E_FORKED);
        CHECK_INT(aside_fetch_stopping(fetch), 1);
        return aside_fetch_copy(fetch, "child", 5);
    }
    CHECK_STATUS(inner.status, ASIDE_OK);
    return aside_fetch_give(fetch, inner.result.value);
}

TEST(a_fork_inside_a_nested_fetch_is_told_to_both_calls)
{
    for (int same = 0; same <= 1; same++) {
        struct nested_fork nested;
        struct caller caller;
        memset(&nested, 0, sizeof nested);
        forking_init(&nested.forking, open_quiet());
        nested.outer = same ? aside_ref(nested.forking.cache) : open_quiet();
        caller_init(&caller, nested.outer, "outer", ask_the_forking_one, &nested);
        caller_run(&caller);
        if (nested.forking.child.pid == 0) {
            CHECK_STATUS(look(nested.outer, "outer"), ASIDE_MISS);
            aside_unref(nested.outer);
            check_after_fork(&nested.forking, &caller);
        }
        CHECK_STATUS(caller.status, ASIDE_OK);
        CHECK(value_is(caller.result.value, "parent"));
        caller_drop(&caller);
        child_end(&nested.forking.child, CHILD_DONE);
        CHECK(holds(nested.outer, "outer", "parent"));
        aside_unref(nested.outer);
        forking_fini(&nested.forking);
    }
}

/* The child goes on inside the fetch, and ends by itself. */
static aside_status fork_and_stay(aside_fetch *fetch, void *arg)
{
    struct forking *forking = (struct forking *)arg;
    aside_status status = fork_inside(fetch, arg);
    if (forking->child.pid == 0) {
        close_first_thing(forking->cache);
        exit(0);
    }
    return status;
}

/* The library ends the worker's thread in the child. It is the last one there if the others that the
 * child has made are joined by its close, so the process ends, with 0. */
static void check_worker_forks(const aside_options *options, aside_fetch_fn *fetch, bool leaves)
{
    struct forking forking;
    struct caller caller;
    aside_cancel *token = token_new();
    forking_init(&forking, open_cache(options));
    forking.leaves = leaves;
    forking.closes = !leaves && fetch != fork_and_stay;
    caller_init(&caller, forking.cache, "k", fetch, &forking);
    caller.call.cancel = token;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "parent"));
    caller_drop(&caller);
    child_end(&forking.child, 0);
    CHECK(holds(forking.cache, "k", "parent"));
    use_cache(forking.cache);
    CHECK_INT(forking.fetches, 1);
    aside_cancel_unref(token);
    forking_fini(&forking);
}

TEST(a_worker_that_forks_ends_in_the_child_and_the_child_with_it)
{
    aside_options options = busy_options();
    check_worker_forks(&options, fork_inside, true);
    check_worker_forks(&options, fork_inside, false);
    options.reaper_interval_ms = 0;
    check_worker_forks(&options, fork_inside, true);
}

TEST(a_worker_that_forks_may_stay_in_its_fetch_in_the_child)
{
    aside_options options = busy_options();
    check_worker_forks(&options, fork_and_stay, false);
}

static aside_status fork_and_end_thread(aside_fetch *fetch, void *arg)
{
    struct forking *forking = (struct forking *)arg;
    aside_status status = fork_inside(fetch, arg);
    if (forking->child.pid == 0)
        pthread_exit(NULL);
    return status;
}

TEST(a_worker_that_forks_may_end_its_thread_in_the_child)
{
    aside_options options = busy_options();
    check_worker_forks(&options, fork_and_end_thread, true);
    check_worker_forks(&options, fork_and_end_thread, false);
}

/* ---- worker.start, worker.stop ------------------------------------------------------------------- */

struct hooks {
    struct child child;
    bool forks_at_start, forks_at_stop, refuses;
    _Atomic int starts, stops;
};

static aside_status start_hook(void *ctx, void **worker)
{
    struct hooks *hooks = (struct hooks *)ctx;
    atomic_fetch_add(&hooks->starts, 1);
    *worker = hooks;
    if (hooks->forks_at_start) {
        hooks->forks_at_start = false;
        hooks->child = child_fork();
        if (hooks->child.pid == 0 && hooks->refuses)
            return (aside_status)-5;
    }
    return ASIDE_OK;
}

static void stop_hook(void *ctx, void *worker)
{
    struct hooks *hooks = (struct hooks *)ctx;
    CHECK(worker == hooks);
    atomic_fetch_add(&hooks->stops, 1);
    if (hooks->forks_at_stop) {
        hooks->forks_at_stop = false;
        hooks->child = child_fork();
    }
}

static aside_cache *open_with_hooks(struct hooks *hooks)
{
    aside_options options = busy_options();
    memset(hooks, 0, sizeof *hooks);
    options.fetch_threads = 1;
    options.worker.start = start_hook;
    options.worker.stop = stop_hook;
    options.worker.ctx = hooks;
    return open_cache(&options);
}

TEST(a_fork_inside_worker_start_or_stop)
{
    for (int way = 0; way < 3; way++) {
        struct hooks hooks;
        aside_cache *cache = open_with_hooks(&hooks);
        struct source source;
        source_init(&source, "v", false);
        hooks.forks_at_start = way < 2;
        hooks.refuses = way == 1;
        hooks.forks_at_stop = way == 2;
        fill(cache);
        CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
        if (way < 2)
            child_end(&hooks.child, 0); /* the thread that it returned on has ended */
        check_filled(cache);
        end_cache(cache);
        WAIT_UNTIL(hooks.stops == hooks.starts);
        if (way == 2)
            child_end(&hooks.child, 0);
        CHECK_INT(source.fetches, 1);
        wait_for_no_threads();
    }
}

static struct hooks crossing_hooks;

static void use_hooks(void *cache)
{
    int starts = crossing_hooks.starts, stops = crossing_hooks.stops;
    check_filled((aside_cache *)cache);
    CHECK_INT(crossing_hooks.starts, starts);
    use_cache((aside_cache *)cache);
    CHECK_INT(crossing_hooks.starts, starts + 1);
    close_here((aside_cache *)cache);
    WAIT_UNTIL(crossing_hooks.stops == stops + 1); /* for the worker of the child only */
    aside_unref((aside_cache *)cache);
    wait_for_no_threads();
    CHECK_INT(crossing_hooks.stops, stops + 1);
}

TEST(the_workers_of_the_child_have_contexts_of_their_own)
{
    aside_cache *cache = open_with_hooks(&crossing_hooks);
    struct source source;
    source_init(&source, "v", false);
    fill(cache);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    int starts = crossing_hooks.starts;
    in_a_child(use_hooks, cache);
    CHECK_INT(crossing_hooks.starts, starts);
    CHECK_INT(crossing_hooks.stops, 0);
    end_cache(cache);
    WAIT_UNTIL(crossing_hooks.stops == starts);
}

/* ---- an executor of one's own -------------------------------------------------------------------- */

enum mode { KEEP, RUN_NOW, FORK_AND_KEEP };

struct executor {
    enum mode mode;
    _Atomic(aside_job *) job;
    _Atomic int submitted;
    struct child child;
};

static aside_status submit(void *ctx, aside_job *job)
{
    struct executor *executor = (struct executor *)ctx;
    atomic_fetch_add(&executor->submitted, 1);
    if (executor->mode == RUN_NOW) {
        aside_job_run(job, NULL);
        return ASIDE_OK;
    }
    if (executor->mode == FORK_AND_KEEP)
        executor->child = child_fork();
    atomic_store(&executor->job, job);
    return ASIDE_OK;
}

static aside_cache *open_with_executor(struct executor *executor, enum mode mode)
{
    aside_options options = busy_options();
    memset(executor, 0, sizeof *executor);
    executor->mode = mode;
    options.submit.fn = submit;
    options.submit.ctx = executor;
    aside_cache *cache = open_cache(&options);
    fill(cache);
    return cache;
}

/* In the child: who would need the executor is told; who can lead, leads; hits are served. */
static void use_without_executor(aside_cache *cache, struct executor *executor)
{
    struct source source;
    int submitted = executor->submitted;
    source_init(&source, "of the child", false);
    check_filled(cache);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(ask_worker(cache, "needs it", &source), ASIDE_E_FORKED);
        CHECK_INT(STAT(cache, flights_now), 0);
    }
    CHECK_INT(source.fetches, 0);
    CHECK_STATUS(ask(cache, "needs it", &source), ASIDE_OK);
    CHECK_STATUS(ask_worker(cache, "needs it", &source), ASIDE_OK); /* a hit */
    CHECK_INT(source.fetches, 1);
    CHECK_INT(executor->submitted, submitted);
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK(holds(cache, "k", "v"));
}

TEST(an_executor_of_ones_own_does_not_cross)
{
    struct executor executor;
    aside_cache *cache = open_with_executor(&executor, RUN_NOW);
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(ask_worker(cache, "worker", &source), ASIDE_OK);
    struct child child = child_fork();
    if (child.pid == 0) {
        use_without_executor(cache, &executor);
        close_first_thing(cache);
        aside_cache *own = open_with_executor(&executor, RUN_NOW); /* one of its own works */
        use_cache(own);
        CHECK(executor.submitted > 0);
        end_cache(own);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("worker")), ASIDE_OK);
    CHECK_STATUS(ask_worker(cache, "worker", &source), ASIDE_OK);
    CHECK_INT(executor.submitted, 2);
    end_cache(cache);
}

TEST(a_job_of_before_is_used_up_in_the_child_without_being_run)
{
    struct executor executor;
    aside_cache *cache = open_with_executor(&executor, KEEP);
    aside_cancel *token = token_new();
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, token);
    caller_start(&caller);
    WAIT_UNTIL(atomic_load(&executor.job) != NULL && STAT(cache, waiters_now) == 1);
    for (int drop = 0; drop <= 1; drop++) {
        struct child child = child_fork();
        if (child.pid == 0) {
            if (drop)
                aside_job_drop(executor.job);
            else
                aside_job_run(executor.job, NULL);
            CHECK_INT(source.fetches, 0);
            CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
            use_without_executor(cache, &executor);
            close_first_thing(cache);
            child_done();
        }
        child_end(&child, CHILD_DONE);
    }
    aside_job_run(executor.job, NULL);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK_INT(source.fetches, 1);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* The job runs inside submit, so the fork happens under the very call. */
TEST(a_fork_inside_a_fetch_that_submit_runs_at_once)
{
    struct executor executor;
    struct forking forking;
    struct caller caller;
    aside_cancel *token = token_new();
    forking_init(&forking, open_with_executor(&executor, RUN_NOW));
    forking.leaves = true;
    caller_init(&caller, forking.cache, "k", fork_inside, &forking);
    caller.call.cancel = token;
    caller_run(&caller);
    if (forking.child.pid == 0) {
        CHECK_STATUS(caller.status, ASIDE_E_FORKED);
        use_without_executor(forking.cache, &executor);
        close_first_thing(forking.cache);
        child_done();
    }
    CHECK_STATUS(caller.status, ASIDE_OK);
    caller_drop(&caller);
    child_end(&forking.child, CHILD_DONE);
    CHECK(holds(forking.cache, "k", "parent"));
    aside_cancel_unref(token);
    forking_fini(&forking);
}

/* On a thread of the user's the child comes back from aside_job_run(). */
struct job_runner {
    struct executor executor;
    struct forking forking;
};

static void *run_job_and_look(void *arg)
{
    struct job_runner *runner = (struct job_runner *)arg;
    aside_job_run(atomic_load(&runner->executor.job), NULL);
    if (runner->forking.child.pid > 0)
        return NULL;
    CHECK_STATUS(look(runner->forking.cache, "k"), ASIDE_MISS);
    use_without_executor(runner->forking.cache, &runner->executor);
    close_first_thing(runner->forking.cache);
    child_done();
}

TEST(a_fork_inside_a_fetch_on_a_thread_of_the_users)
{
    struct job_runner runner;
    struct caller caller;
    aside_cancel *token = token_new();
    forking_init(&runner.forking, open_with_executor(&runner.executor, KEEP));
    runner.forking.leaves = true;
    caller_init(&caller, runner.forking.cache, "k", fork_inside, &runner.forking);
    caller.call.cancel = token;
    caller_start(&caller);
    WAIT_UNTIL(atomic_load(&runner.executor.job) != NULL);
    thread_join(thread_start(run_job_and_look, &runner));
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "parent"));
    caller_drop(&caller);
    child_end(&runner.forking.child, CHILD_DONE);
    aside_cancel_unref(token);
    forking_fini(&runner.forking);
}

/* The caller would wait for a fetch that nobody is going to run. */
TEST(a_fork_inside_submit)
{
    struct executor executor;
    aside_cache *cache = open_with_executor(&executor, FORK_AND_KEEP);
    aside_cancel *token = token_new();
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, token);
    caller.thread = thread_start(run_and_tell, &caller);
    WAIT_UNTIL(atomic_load(&executor.job) != NULL);
    aside_job_run(executor.job, NULL);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    caller_drop(&caller);
    child_end(&executor.child, CHILD_DONE);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- visits and destructors ---------------------------------------------------------------------- */

struct forking_visit {
    aside_cache *cache;
    struct child child;
    int depth;
};

static void fork_in_visit(const void *data, size_t size, void *ctx)
{
    struct forking_visit *visit = (struct forking_visit *)ctx;
    if (visit->depth > 0) {
        visit->depth--;
        CHECK_STATUS(aside_visit(visit->cache, ASIDE_STR("key 1"), fork_in_visit, visit), ASIDE_OK);
        CHECK(size == 7 && memcmp(data, "value 1", 7) == 0);
        return;
    }
    visit->child = child_fork();
    CHECK_STATUS(aside_delete(visit->cache, ASIDE_STR("key 1")), ASIDE_OK);
    overwrite_much(visit->cache, NULL, 0);
    CHECK_STATUS(aside_clear(visit->cache), ASIDE_OK);
    use_cache(visit->cache);
    CHECK(size == 7 && memcmp(data, "value 1", 7) == 0);
}

TEST(a_fork_inside_a_visit)
{
    for (int depth = 0; depth <= 6; depth += 3) { /* and in visits inside visits */
        struct ledger ledger;
        struct forking_visit visit;
        aside_options options = quiet_options();
        options.alloc = ledger_init(&ledger);
        visit.cache = open_cache(&options);
        visit.depth = depth;
        fill(visit.cache);
        CHECK_STATUS(aside_visit(visit.cache, ASIDE_STR("key 1"), fork_in_visit, &visit), ASIDE_OK);
        use_cache(visit.cache);
        end_cache(visit.cache);
        wait_for_no_threads();
        WAIT_UNTIL(ledger.live_blocks == 0);
        if (visit.child.pid == 0)
            child_done();
        child_end(&visit.child, CHILD_DONE);
    }
}

static void fork_and_close_in_visit(const void *data, size_t size, void *ctx)
{
    struct forking_visit *visit = (struct forking_visit *)ctx;
    visit->child = child_fork();
    close_first_thing(visit->cache);
    CHECK(size == 7 && memcmp(data, "value 1", 7) == 0);
}

TEST(a_cache_may_be_closed_inside_a_visit_in_the_child)
{
    aside_options options = busy_options();
    struct forking_visit visit;
    visit.cache = open_filled(&options);
    CHECK_STATUS(aside_visit(visit.cache, ASIDE_STR("key 1"), fork_and_close_in_visit, &visit),
                 ASIDE_OK);
    if (visit.child.pid == 0)
        child_done();
    child_end(&visit.child, CHILD_DONE);
    wait_for_no_threads();
}

struct forking_value {
    _Atomic bool forked;
    struct child child;
    pthread_t thread;
};

static void fork_in_destructor(void *ptr, void *ctx)
{
    struct forking_value *value = (struct forking_value *)ctx;
    (void)ptr;
    value->thread = pthread_self();
    value->child = child_fork();
    atomic_store(&value->forked, true);
}

static void set_forking(struct forking_value *forking, aside_cache *cache, int64_t ttl_ms)
{
    static char thing;
    aside_value *value = NULL;
    memset(forking, 0, sizeof *forking);
    CHECK_STATUS(aside_value_wrap(&thing, 1, fork_in_destructor, forking, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("forking"), value, ttl_ms), ASIDE_OK);
    aside_value_unref(value);
}

/* way: 0 a reap after a delete, 1 a clear, 2 a close. */
static void check_destructor_forks(int way)
{
    struct ledger ledger;
    struct forking_value forking;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    set_forking(&forking, cache, ASIDE_FOREVER);
    fill(cache);
    switch (way) {
    case 0:
        CHECK_STATUS(aside_delete(cache, ASIDE_STR("forking")), ASIDE_OK);
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        break;
    case 1: CHECK_STATUS(aside_clear(cache), ASIDE_OK); break;
    default: CHECK_STATUS(aside_close(cache), ASIDE_OK);
    }
    CHECK(forking.forked);
    if (way < 2) {
        fill(cache);
        check_filled(cache);
        use_cache(cache);
    }
    close_first_thing(cache);
    wait_for_no_threads();
    WAIT_UNTIL(ledger.live_blocks == 0);
    if (forking.child.pid == 0)
        child_done();
    child_end(&forking.child, CHILD_DONE);
}

TEST(a_fork_inside_a_destructor)
{
    check_destructor_forks(0);
    check_destructor_forks(1);
}

TEST(a_fork_inside_a_destructor_during_the_close)
{
    check_destructor_forks(2);
}

/* In the child the reaper's thread, its only one, ends when the callback returns. */
TEST(a_fork_inside_a_destructor_on_the_reapers_thread)
{
    struct forking_value forking;
    aside_options options = busy_options();
    aside_cache *cache = open_filled(&options);
    set_forking(&forking, cache, 1);
    WAIT_UNTIL(atomic_load(&forking.forked));
    CHECK(!pthread_equal(forking.thread, pthread_self()));
    child_end(&forking.child, 0);
    WAIT_UNTIL(process_threads_named("aside-reaper") == 1); /* it names itself */
    check_filled(cache);
    set_forking(&forking, cache, 1); /* it goes on in the parent */
    WAIT_UNTIL(atomic_load(&forking.forked));
    child_end(&forking.child, 0);
    end_cache(cache);
}

/* ---- pending fetches ----------------------------------------------------------------------------- */

static void complete_in_child(void *arg)
{
    struct forking *forking = (struct forking *)arg;
    aside_fetch *fetch = forking->fetch;
    size_t size = 0;
    void *to = NULL;
    CHECK(memcmp(aside_fetch_key(fetch, &size), "k", 1) == 0);
    CHECK_INT(aside_fetch_stopping(fetch), 1);
    CHECK_STATUS(aside_fetch_buffer(fetch, 1, &to), ASIDE_E_FORKED);
    CHECK_STATUS(aside_fetch_copy(fetch, "child", 5), ASIDE_E_FORKED);
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(forking->tally, 1)), ASIDE_E_FORKED);
    CHECK_INT(forking->tally->freed, 1);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, 1), ASIDE_E_FORKED);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_E_FORKED);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_E_FETCH), ASIDE_E_FORKED);
    aside_fetch_unref(fetch);
    CHECK_STATUS(look(forking->cache, "k"), ASIDE_MISS);
    use_cache(forking->cache);
    close_first_thing(forking->cache);
}

static void unref_in_child(void *arg)
{
    struct forking *forking = (struct forking *)arg;
    aside_fetch_unref(forking->fetch); /* the last one, without a completion */
    use_cache(forking->cache);
    close_first_thing(forking->cache);
}

static void keep_in_child(void *arg)
{
    struct forking *forking = (struct forking *)arg;
    size_t size = 0;
    close_first_thing(forking->cache);
    CHECK(memcmp(aside_fetch_key(forking->fetch, &size), "k", 1) == 0); /* it is referenced */
    CHECK_STATUS(aside_fetch_complete(forking->fetch, ASIDE_OK), ASIDE_E_FORKED);
    aside_fetch_unref(forking->fetch);
}

TEST(a_pending_fetch_is_completed_in_the_parent_only)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        struct forking forking;
        struct caller caller;
        aside_cancel *token = token_new();
        _Atomic(aside_fetch *) pending = NULL;
        forking_init(&forking, open_quiet());
        caller_init(&caller, forking.cache, "k", leave_pending, (void *)&pending);
        caller.call.cancel = offloaded ? token : NULL;
        caller_start(&caller);
        WAIT_UNTIL(atomic_load(&pending) != NULL && STAT(forking.cache, waiters_now) == 1);
        forking.fetch = atomic_load(&pending);
        in_a_child(complete_in_child, &forking);
        in_a_child(unref_in_child, &forking);
        in_a_child(keep_in_child, &forking);
        CHECK(!caller.done);
        CHECK_INT(aside_fetch_stopping(forking.fetch), 0);
        CHECK_STATUS(aside_fetch_copy(forking.fetch, "parent", 6), ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(forking.fetch, ASIDE_OK), ASIDE_OK);
        aside_fetch_unref(forking.fetch);
        CHECK_STATUS(caller_join(&caller), ASIDE_OK);
        caller_drop(&caller);
        CHECK(holds(forking.cache, "k", "parent"));
        aside_cancel_unref(token);
        forking_fini(&forking);
    }
}

/* ---- tokens -------------------------------------------------------------------------------------- */

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {fd, POLLIN, 0};
    CHECK(poll(&poll_fd, 1, 0) >= 0);
    return poll_fd.revents & POLLIN;
}

struct tokens {
    aside_cache *cache;
    aside_cancel *parent, *child; /* one fires with the other */
    aside_cancel *with_fd;
    int fd;
};

static void use_tokens(void *arg)
{
    struct tokens *tokens = (struct tokens *)arg;
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    caller_ask(&caller, tokens->cache, "k", &source, tokens->child);
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(tokens->cache, waiters_now) == 1);
    CHECK_INT(aside_cancel_fired(tokens->parent), 0);
    CHECK_STATUS(aside_cancel_status(tokens->child), ASIDE_OK);
    aside_cancel_fire(tokens->parent);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    CHECK_INT(aside_cancel_fired(tokens->parent), 1);
    CHECK_INT(aside_cancel_fired(tokens->child), 1);
    gate_open(&source.gate);
    WAIT_UNTIL(STAT(tokens->cache, flights_now) == 0);
    CHECK(holds(tokens->cache, "k", "v"));
    aside_cancel_unref(tokens->parent);
    aside_cancel_unref(tokens->child);
    use_cache(tokens->cache);
    close_first_thing(tokens->cache);
}

TEST(a_token_of_before_works_in_the_child_and_fires_there_alone)
{
    struct tokens tokens;
    memset(&tokens, 0, sizeof tokens);
    tokens.cache = open_quiet();
    tokens.parent = token_new();
    CHECK_STATUS(aside_cancel_child(tokens.parent, &tokens.child), ASIDE_OK);
    in_a_child(use_tokens, &tokens);
    CHECK_INT(aside_cancel_fired(tokens.parent), 0);
    CHECK_INT(aside_cancel_fired(tokens.child), 0);
    use_tokens(&tokens); /* the same in the parent */
}

/*
 * Those who wait with it are not here. But their stacks are used again by threads of the child, who
 * wait with another token, one at the place of the last who joined, if the C library is as it is:
 * they must not be taken for the old ones.
 */
static void fire_in_child(void *arg)
{
    enum { CALLERS = 8 };
    struct traffic *traffic = (struct traffic *)arg;
    aside_cache *cache = open_quiet();
    aside_cancel *fresh = token_new();
    struct source held;
    struct caller callers[CALLERS], late;
    source_init(&held, "v", true);
    caller_ask(&late, cache, "k", &held, NULL);
    late.call.timeout_ms = 1; /* it leads, and leaves its fetch to the others */
    CHECK_STATUS(caller_run(&late), ASIDE_E_TIMEOUT);
    for (unsigned i = 0; i < CALLERS; i++)
        join_flight(&callers[i], cache, "k", &held, fresh, i + 1);
    aside_cancel_fire(traffic->token);
    CHECK_INT(aside_cancel_fired(traffic->token), 1);
    caller_ask(&late, traffic->cache, "k", &held, traffic->token);
    CHECK_STATUS(caller_run(&late), ASIDE_E_CANCELLED);
    for (int i = 0; i < 5; i++)
        check_filled(traffic->cache);
    for (int i = 0; i < CALLERS; i++)
        CHECK(!callers[i].done);
    gate_open(&held.gate);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_OK);
        caller_drop(&callers[i]);
    }
    close_first_thing(traffic->cache);
    end_cache(cache);
    aside_cancel_unref(traffic->token);
    aside_cancel_unref(fresh);
}

TEST(a_token_that_callers_wait_with_fires_in_the_child_for_nobody)
{
    check_traffic(fire_in_child, 0, 2); /* traffic_end() looks whether any has left */
}

/* Somebody waits with it at the fork, and leaves in the parent by it; the child's has not fired. */
TEST(a_token_that_fires_in_the_parent_does_not_fire_in_the_child)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller caller;
    int ends[2];
    char byte;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    source_init(&source, "v", true);
    caller_ask(&caller, cache, "k", &source, token);
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    struct child child = child_fork();
    if (child.pid == 0) {
        CHECK_INT(read(ends[0], &byte, 1), 1);
        CHECK_INT(aside_cancel_fired(token), 0);
        struct source good;
        source_init(&good, "good", false);
        caller_ask(&caller, cache, "k", &good, token);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        caller_drop(&caller);
        close_first_thing(cache);
        child_done();
    }
    aside_cancel_fire(token);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    CHECK_INT(write(ends[1], "x", 1), 1);
    child_end(&child, CHILD_DONE);
    gate_open(&source.gate);
    close(ends[0]);
    close(ends[1]);
    aside_cancel_unref(token);
    end_cache(cache);
}

static void use_descriptors(void *arg)
{
    struct tokens *tokens = (struct tokens *)arg;
    int fd = 77, again = -1;
    CHECK_STATUS(aside_cancel_fd(tokens->with_fd, &fd), ASIDE_E_FORKED);
    CHECK_INT(fd, -1);
    aside_cancel_fire(tokens->with_fd);
    CHECK_INT(aside_cancel_fired(tokens->with_fd), 1);
    CHECK_STATUS(aside_cancel_fd(tokens->with_fd, &fd), ASIDE_E_FORKED);
    /* one that is asked for here belongs to the child */
    CHECK_STATUS(aside_cancel_fd(tokens->child, &fd), ASIDE_OK);
    CHECK_STATUS(aside_cancel_fd(tokens->child, &again), ASIDE_OK);
    CHECK_INT(fd, again);
    CHECK(!is_readable(fd));
    aside_cancel_fire(tokens->parent);
    CHECK(is_readable(fd));
    aside_cancel_unref(tokens->with_fd);
    aside_cancel_unref(tokens->child);
    aside_cancel_unref(tokens->parent);
}

/* Spread ttls, as the parent and two of its children draw them after the forks. */
enum { DRAWS = 50 };
struct draws {
    aside_cache *cache;
    int64_t (*left_ms)[DRAWS]; /* one row for each process */
    int row;
};

static void draw_ttls(void *arg)
{
    struct draws *draws = (struct draws *)arg;
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .timeout_ms = ASIDE_NO_WAIT};
    for (int i = 0; i < DRAWS; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_set(draws->cache, ASIDE_STR("k"), "v", 1, 3600000), ASIDE_OK);
        CHECK_STATUS(aside_get_with_fetch(draws->cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
        draws->left_ms[draws->row][i] = result.ttl_left_ms;
        aside_value_unref(result.value);
    }
}

TEST(processes_that_come_of_one_another_spread_their_ttls_each_in_its_own_way)
{
    aside_options options = quiet_options();
    struct fake_clock clock;
    options.clock = fake_clock_init(&clock);
    options.jitter.kind = ASIDE_JITTER_ADD;
    options.jitter.amount = 1000000;
    size_t size = sizeof(int64_t[3][DRAWS]);
    struct draws draws = {open_cache(&options), NULL, 0};
    draws.left_ms = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(draws.left_ms != MAP_FAILED);
    for (; draws.row < 2; draws.row++)
        in_a_child(draw_ttls, &draws);
    draw_ttls(&draws);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < i; j++)
            CHECK(memcmp(draws.left_ms[i], draws.left_ms[j], sizeof draws.left_ms[0]) != 0);
    munmap(draws.left_ms, size);
    end_cache(draws.cache);
}

TEST(a_descriptor_of_a_token_does_not_cross)
{
    struct tokens tokens;
    int fd = -1;
    memset(&tokens, 0, sizeof tokens);
    tokens.parent = token_new();
    tokens.with_fd = token_new();
    CHECK_STATUS(aside_cancel_child(tokens.parent, &tokens.child), ASIDE_OK);
    CHECK_STATUS(aside_cancel_fd(tokens.with_fd, &tokens.fd), ASIDE_OK);
    int descriptors = process_descriptors();
    in_a_child(use_descriptors, &tokens);
    CHECK_INT(process_descriptors(), descriptors);
    CHECK(!is_readable(tokens.fd)); /* it was fired in the child, not here */
    CHECK_INT(aside_cancel_fired(tokens.with_fd), 0);
    CHECK_STATUS(aside_cancel_fd(tokens.with_fd, &fd), ASIDE_OK);
    CHECK_INT(fd, tokens.fd);
    CHECK_STATUS(aside_cancel_fd(tokens.child, &fd), ASIDE_OK);
    CHECK(!is_readable(fd));
    aside_cancel_fire(tokens.with_fd);
    CHECK(is_readable(tokens.fd));
    CHECK(!is_readable(fd));
    aside_cancel_unref(tokens.with_fd);
    aside_cancel_unref(tokens.child);
    aside_cancel_unref(tokens.parent);
    CHECK_INT(process_descriptors(), descriptors - 1);
}

/* A token with a descriptor works for calls all the same; and a deadline crosses. */
static void wait_with_descriptor(void *arg)
{
    struct tokens *tokens = (struct tokens *)arg;
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    caller_ask(&caller, tokens->cache, "k", &source, tokens->with_fd);
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(STAT(tokens->cache, waiters_now) == 1);
    CHECK_STATUS(aside_cancel_set_deadline(tokens->with_fd, 1, NULL), ASIDE_OK);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_TIMEOUT);
    WAIT_UNTIL(aside_cancel_status(tokens->parent) == ASIDE_E_TIMEOUT);
    gate_open(&source.gate);
    WAIT_UNTIL(STAT(tokens->cache, flights_now) == 0);
    close_first_thing(tokens->cache);
}

TEST(a_token_with_a_descriptor_and_a_deadline_works_in_the_child)
{
    struct tokens tokens;
    memset(&tokens, 0, sizeof tokens);
    tokens.cache = open_quiet();
    tokens.parent = token_new();
    tokens.with_fd = token_new();
    CHECK_STATUS(aside_cancel_fd(tokens.with_fd, &tokens.fd), ASIDE_OK);
    CHECK_STATUS(aside_cancel_set_deadline(tokens.parent, 1, NULL), ASIDE_OK);
    in_a_child(wait_with_descriptor, &tokens);
    CHECK(!is_readable(tokens.fd));
    CHECK_STATUS(aside_cancel_status(tokens.with_fd), ASIDE_OK);
    aside_cancel_unref(tokens.with_fd);
    aside_cancel_unref(tokens.parent);
    end_cache(tokens.cache);
}

/* ---- a close that another thread is in the middle of --------------------------------------------- */

static void *close_main(void *cache)
{
    CHECK_STATUS(aside_close((aside_cache *)cache), ASIDE_OK);
    return NULL;
}

TEST(a_cache_that_another_thread_is_closing_may_be_closed_in_the_child)
{
    enum { CLOSERS = 2 };
    for (int reaper = 0; reaper <= 1; reaper++) {
        aside_options options = busy_options();
        options.reaper_interval_ms = reaper;
        options.close_wait_ms = ASIDE_FOREVER;
        aside_cache *cache = open_filled(&options);
        struct source source;
        struct caller leader;
        pthread_t closers[CLOSERS];
        source_init(&source, "v", true);
        lead_to_gate(&leader, cache, "k", &source);
        for (int i = 0; i < CLOSERS; i++)
            closers[i] = thread_start(close_main, cache);
        WAIT_UNTIL(aside_health(cache) == ASIDE_E_CLOSED);
        in_a_child(close_first_thing, cache);
        in_a_child(unref_only, cache);
        gate_open(&source.gate);
        CHECK_STATUS(caller_join(&leader), ASIDE_OK);
        caller_drop(&leader);
        for (int i = 0; i < CLOSERS; i++)
            thread_join(closers[i]);
        close_first_thing(cache);
        wait_for_no_threads();
    }
}

struct closing {
    aside_cache *cache;
    struct gate gate;
};

static void *close_at_the_gate(void *arg)
{
    struct closing *closing = (struct closing *)arg;
    gate_pass(&closing->gate);
    CHECK_STATUS(aside_close(closing->cache), ASIDE_OK);
    return NULL;
}

/* Anywhere in the close, as it comes. */
TEST(a_fork_at_any_point_of_a_close_leaves_a_cache_that_can_be_closed)
{
    for (long round = 0; round < test_rounds(40); round++) {
        struct closing closing;
        aside_options options = busy_options();
        gate_init(&closing.gate);
        closing.cache = open_filled(&options);
        perturb(test_random() | 1);
        pthread_t closer = thread_start(close_at_the_gate, &closing);
        gate_wait_arrived(&closing.gate, 1);
        gate_open(&closing.gate);
        for (uint64_t i = test_random() % 200; i > 0; i--)
            sched_yield();
        struct child child = child_fork();
        if (child.pid == 0) {
            perturb(0);
            if (!SANITIZED)
                close_first_thing(closing.cache);
            child_done();
        }
        perturb(0);
        child_end(&child, CHILD_DONE);
        thread_join(closer);
        close_first_thing(closing.cache);
    }
}

/* ---- daemons, programs, exit() ------------------------------------------------------------------- */

/* Reads what a process writes that is not a child of ours, until it has ended. */
static void expect_ok(int from)
{
    char text[4096] = "";
    size_t length = 0;
    int64_t give_up_ns = test_now_ns() + child_patience_ns();
    for (;;) {
        struct pollfd poll_fd = {from, POLLIN, 0};
        if (test_now_ns() > give_up_ns)
            test_fail(__FILE__, __LINE__, "a daemon ends", text);
        if (poll(&poll_fd, 1, 100) <= 0)
            continue;
        ssize_t got = read(from, text + length, sizeof text - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
        text[length] = '\0';
    }
    close(from);
    child_skip_if_confused(text);
    if (strcmp(text, "ok") != 0)
        test_fail(__FILE__, __LINE__, "the daemon's work", text);
}

static _Noreturn void work_as_daemon(aside_cache *cache, int report)
{
    child_guard();
    dup2(report, STDERR_FILENO);
    check_filled(cache);
    use_cache(cache);
    WAIT_UNTIL(process_threads_named("aside-reaper") == 1);
    close_first_thing(cache);
    CHECK_INT(write(report, "ok", 2), 2);
    _exit(0);
}

TEST(a_process_that_forks_twice_to_be_a_daemon_keeps_its_cache)
{
    aside_options options = busy_options();
    aside_cache *cache = open_filled(&options);
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    struct child child = child_fork();
    if (child.pid == 0) {
        close(ends[0]);
        CHECK(setsid() > 0);
        pid_t daemon_pid = fork();
        CHECK(daemon_pid >= 0);
        if (daemon_pid > 0)
            _exit(CHILD_DONE);
        work_as_daemon(cache, ends[1]);
    }
    close(ends[1]);
    child_end(&child, CHILD_DONE);
    expect_ok(ends[0]);
    check_filled(cache);
    end_cache(cache);
}

TEST(a_process_that_calls_daemon_keeps_its_cache)
{
    aside_options options = busy_options();
    aside_cache *cache = open_filled(&options);
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    struct child child = child_fork();
    if (child.pid == 0) {
        close(ends[0]);
        use_cache(cache); /* it has threads of its own when it forks */
        CHECK(daemon(1, 1) == 0);
        work_as_daemon(cache, ends[1]);
    }
    close(ends[1]);
    child_end(&child, 0); /* daemon() ends the first one so */
    expect_ok(ends[0]);
    end_cache(cache);
}

static void exit_here(void *cache)
{
    use_cache((aside_cache *)cache);
    exit(CHILD_DONE); /* with a reaper and a worker alive */
}

static void run_a_program(void *cache)
{
    (void)cache;
    execl("/bin/sh", "sh", "-c", "exit 42", (char *)NULL);
}

static void end_the_only_thread(void *cache)
{
    check_filled((aside_cache *)cache);
    pthread_exit(NULL);
}

TEST(a_child_may_exit_or_run_a_program)
{
    struct traffic traffic;
    traffic_begin(&traffic, 1);
    in_a_child(exit_here, traffic.cache);
    in_a_child(run_a_program, NULL);
    struct child child = child_fork();
    if (child.pid == 0)
        end_the_only_thread(traffic.cache);
    child_end(&child, 0);
    CHECK_INT(system("exit 3"), 3 << 8);
    traffic_end(&traffic);
}

/* ---- a stand-alone group ------------------------------------------------------------------------- */

struct asker {
    aside_group *group;
    const char *key;
    aside_call call;
    aside_result result;
    aside_status status;
    pthread_t thread;
    _Atomic bool done;
};

static aside_group *group_open(const aside_options *options)
{
    aside_group *group = NULL;
    CHECK_STATUS(aside_group_new(&group, options), ASIDE_OK);
    return group;
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

static void asker_init(struct asker *asker, aside_group *group, const char *key,
                       aside_fetch_fn *fetch, void *arg, aside_cancel *token)
{
    memset(asker, 0, sizeof *asker);
    asker->group = group;
    asker->key = key;
    asker->call.struct_size = sizeof asker->call;
    asker->call.fetch = fetch;
    asker->call.arg = arg;
    asker->call.cancel = token;
    asker->result.struct_size = sizeof asker->result;
}

static aside_status asker_run(struct asker *asker)
{
    asker->status =
        aside_group_do(asker->group, asker->key, strlen(asker->key), &asker->call, &asker->result);
    CHECK((asker->status == ASIDE_OK) == (asker->result.value != NULL));
    atomic_store(&asker->done, true);
    return asker->status;
}

static void *asker_main(void *arg)
{
    asker_run((struct asker *)arg);
    return NULL;
}

static void asker_drop(struct asker *asker)
{
    aside_value_unref(asker->result.value);
    asker->result.value = NULL;
}

static aside_status ask_group(aside_group *group, const char *key, struct source *source,
                              aside_cancel *token)
{
    struct asker asker;
    asker_init(&asker, group, key, source_fetch, source, token);
    asker_run(&asker);
    asker_drop(&asker);
    return asker.status;
}

static void use_group(aside_group *group)
{
    aside_cancel *token = token_new();
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(aside_group_forget(group, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_STATUS(ask_group(group, "k", &source, NULL), ASIDE_OK);
    CHECK_STATUS(ask_group(group, "k", &source, token), ASIDE_OK);
    CHECK_INT(source.fetches, 2);
    aside_cancel_unref(token);
}

static void close_group(aside_group *group)
{
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    CHECK_STATUS(ask_group(group, "k", &source, NULL), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_group_forget(group, ASIDE_STR("k")), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

static void check_no_flights(void *arg)
{
    aside_group *group = (aside_group *)arg;
    aside_stats stats = group_stats(group);
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.queued_now, 0);
    CHECK_INT(stats.workers_now, 0);
    CHECK_INT(process_threads_named("aside-"), 0);
    use_group(group);
    close_group(group);
    wait_for_no_threads();
}

static void close_group_first_thing(void *group)
{
    close_group((aside_group *)group);
}

static void unref_group_only(void *group)
{
    aside_group_unref((aside_group *)group);
}

static void check_group_crosses(bool hooks)
{
    struct ledger ledger;
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_alloc alloc = ledger_init(&ledger);
    if (hooks)
        options.alloc = alloc;
    options.close_wait_ms = ASIDE_FOREVER;
    options.max_flights = 2;
    options.max_waiters = 1;
    options.fetch_threads = 1;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source sources[2];
    struct asker askers[4];
    for (int i = 0; i < 2; i++) { /* one led here, one by a worker; one has joined each */
        source_init(&sources[i], "parent", true);
        asker_init(&askers[i], group, i ? "other" : "k", source_fetch, &sources[i],
                   i ? token : NULL);
        asker_init(&askers[i + 2], group, i ? "other" : "k", source_fetch, &sources[i], token);
        askers[i].thread = thread_start(asker_main, &askers[i]);
        gate_wait_arrived(&sources[i].gate, 1);
    }
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
    for (int i = 2; i < 4; i++) {
        askers[i].thread = thread_start(asker_main, &askers[i]);
        WAIT_UNTIL(GSTAT(group, waiters_now) == (uint64_t)i);
    }
    in_a_child(check_no_flights, group);
    in_a_child(close_group_first_thing, group);
    in_a_child(unref_group_only, group);
    CHECK_INT(GSTAT(group, flights_now), 2);
    CHECK_INT(GSTAT(group, waiters_now), 3);
    for (int i = 0; i < 2; i++)
        gate_open(&sources[i].gate);
    for (int i = 0; i < 4; i++) {
        thread_join(askers[i].thread);
        CHECK_STATUS(askers[i].status, ASIDE_OK);
        CHECK(value_is(askers[i].result.value, "parent"));
        CHECK_INT(askers[i].result.shared, 1);
        asker_drop(&askers[i]);
    }
    WAIT_UNTIL(GSTAT(group, flights_now) == 0);
    CHECK_INT(GSTAT(group, misses_led), 2);
    CHECK_INT(GSTAT(group, misses_joined), 2);
    use_group(group);
    close_group(group);
    aside_cancel_unref(token);
    WAIT_UNTIL(ledger.live_blocks == 0);
}

TEST(a_group_works_in_the_child_and_has_none_of_the_flights)
{
    check_group_crosses(false);
    check_group_crosses(true);
}

struct counted_group {
    aside_group *group;
    struct ledger ledger;
};

static void use_and_free_group(void *arg)
{
    struct counted_group *counted = (struct counted_group *)arg;
    use_group(counted->group);
    close_group(counted->group);
    wait_for_no_threads();
    WAIT_UNTIL(counted->ledger.live_blocks == 0);
}

TEST(nothing_of_a_group_is_left_in_the_child)
{
    struct counted_group counted;
    aside_options options = ASIDE_OPTIONS_INIT;
    struct source source;
    options.alloc = ledger_init(&counted.ledger);
    counted.group = group_open(&options);
    source_init(&source, "v", false);
    CHECK_STATUS(ask_group(counted.group, "k", &source, NULL), ASIDE_OK);
    in_a_child(use_and_free_group, &counted);
    use_and_free_group(&counted);
}

struct group_fork {
    aside_group *group;
    struct child child;
};

static aside_status fork_in_group_fetch(aside_fetch *fetch, void *arg)
{
    struct group_fork *forking = (struct group_fork *)arg;
    forking->child = child_fork();
    if (forking->child.pid > 0)
        return aside_fetch_copy(fetch, "parent", 6);
    CHECK_INT(aside_fetch_stopping(fetch), 1);
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(ask_group(forking->group, "other", &source, NULL), ASIDE_OK);
    return aside_fetch_copy(fetch, "child", 5);
}

TEST(a_fork_inside_a_fetch_of_a_group)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        struct group_fork forking;
        struct asker asker;
        aside_cancel *token = token_new();
        forking.group = group_open(NULL);
        asker_init(&asker, forking.group, "k", fork_in_group_fetch, &forking,
                   offloaded ? token : NULL);
        asker_run(&asker);
        if (forking.child.pid == 0) {
            CHECK(!offloaded); /* the worker's thread ends, and the child with it */
            CHECK_STATUS(asker.status, ASIDE_E_FORKED);
            use_group(forking.group);
            close_group(forking.group);
            child_done();
        }
        CHECK_STATUS(asker.status, ASIDE_OK);
        CHECK(value_is(asker.result.value, "parent"));
        asker_drop(&asker);
        child_end(&forking.child, offloaded ? 0 : CHILD_DONE);
        use_group(forking.group);
        close_group(forking.group);
        aside_cancel_unref(token);
        wait_for_no_threads();
    }
}

/* ---- a busy process ------------------------------------------------------------------------------ */

#define BUSY_THREADS 4
#define BUSY_KEYS 64

struct busy {
    aside_cache *cache;
    aside_group *group;
    aside_cancel *token;
    struct ledger ledger;
    uint64_t bytes; /* of the cache when it was empty */
    _Atomic bool stop;
    _Atomic uint64_t turns, lookups, group_lookups;
    pthread_t threads[BUSY_THREADS];
};

/* A value that says whose it is: the key's number, and that many bytes of one letter. */
struct stamped {
    unsigned key, size;
    char letters[200];
};

static size_t make_stamped(struct stamped *stamped, unsigned key)
{
    stamped->key = key;
    stamped->size = (unsigned)(test_random() % sizeof stamped->letters);
    memset(stamped->letters, 'a' + (int)(key % 26), stamped->size);
    return offsetof(struct stamped, letters) + stamped->size;
}

static void check_stamped(const void *data, size_t size, void *its_key)
{
    struct stamped stamped;
    unsigned key = *(const unsigned *)its_key;
    if (size < offsetof(struct stamped, letters) || size > sizeof stamped)
        CHECK_INT(size, sizeof stamped);
    memcpy(&stamped, data, size);
    CHECK_INT(stamped.key, key);
    CHECK_INT(size, offsetof(struct stamped, letters) + stamped.size);
    for (unsigned i = 0; i < stamped.size; i++)
        CHECK_INT(stamped.letters[i], 'a' + (int)(key % 26));
}

static aside_status fetch_stamped(aside_fetch *fetch, void *arg)
{
    struct stamped stamped;
    size_t size = 0;
    unsigned key;
    (void)arg;
    memcpy(&key, aside_fetch_key(fetch, &size), sizeof key);
    CHECK_INT(size, sizeof key);
    if (test_random() % 4 == 0)
        test_yield();
    if (test_random() % 32 == 0)
        return ASIDE_PENDING; /* and nobody is there to complete it */
    return aside_fetch_copy(fetch, &stamped, make_stamped(&stamped, key));
}

static void check_call(aside_status status, aside_value *value, unsigned key)
{
    if (status == ASIDE_OK)
        check_stamped(aside_value_data(value), aside_value_size(value), &key);
    else
        CHECK(status == ASIDE_E_ABANDONED || status == ASIDE_MISS || status == ASIDE_E_CANCELLED ||
              status == ASIDE_E_TIMEOUT || status == ASIDE_E_BUSY);
    aside_value_unref(value);
}

static aside_status visit_busy(struct busy *busy, unsigned key)
{
    atomic_fetch_add(&busy->lookups, 1);
    return aside_visit(busy->cache, &key, sizeof key, check_stamped, &key);
}

/* One of many operations; whatever it finds is whole, and of its key. */
static void turn(struct busy *busy)
{
    unsigned key = (unsigned)(test_random() % BUSY_KEYS);
    struct stamped stamped;
    size_t size = 0;
    aside_value *value = NULL;
    aside_status status = ASIDE_MISS;
    aside_call call = {ASIDE_CALL, .fetch = fetch_stamped};
    aside_result result = ASIDE_RESULT_INIT;
    switch (test_random() % 12) {
    case 0:
        status = aside_copy(busy->cache, &key, sizeof key, &stamped, sizeof stamped, &size);
        if (status == ASIDE_OK)
            check_stamped(&stamped, size, &key);
        atomic_fetch_add(&busy->lookups, 1);
        break;
    case 1: status = visit_busy(busy, key); break;
    case 2:
        status = aside_get(busy->cache, &key, sizeof key, &value);
        check_call(status, value, key);
        atomic_fetch_add(&busy->lookups, 1);
        break;
    case 3:
    case 4:
        size = make_stamped(&stamped, key);
        status = aside_set(busy->cache, &key, sizeof key, &stamped, size,
                           1 + (int64_t)(test_random() % 5));
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        break;
    case 5: (void)aside_delete(busy->cache, &key, sizeof key); break;
    case 6:
        if (test_random() % 32 == 0)
            CHECK_STATUS(aside_clear(busy->cache), ASIDE_OK);
        break;
    case 7:
        call.cancel = test_random() % 2 ? busy->token : NULL;
        status = aside_group_do(busy->group, &key, sizeof key, &call, &result);
        check_call(status, result.value, key);
        atomic_fetch_add(&busy->group_lookups, 1);
        if (test_random() % 4 == 0)
            (void)aside_group_forget(busy->group, &key, sizeof key);
        break;
    default:
        call.ttl_ms = 1 + (int64_t)(test_random() % 5);
        call.cancel = test_random() % 2 ? busy->token : NULL;
        call.timeout_ms = test_random() % 4 ? 0 : 1;
        status = aside_get_with_fetch(busy->cache, &key, sizeof key, &call, &result);
        check_call(status, result.value, key);
        atomic_fetch_add(&busy->lookups, 1);
    }
    atomic_fetch_add(&busy->turns, 1);
}

static void *busy_main(void *arg)
{
    struct busy *busy = (struct busy *)arg;
    while (!atomic_load(&busy->stop))
        turn(busy);
    return NULL;
}

static void busy_begin(struct busy *busy)
{
    aside_options options = busy_options();
    memset(busy, 0, sizeof *busy);
    options.alloc = ledger_init(&busy->ledger);
    options.max_bytes = (size_t)1 << 20;
    busy->cache = open_cache(&options);
    busy->bytes = STAT(busy->cache, bytes);
    if (test_random() % 2) /* a group without hooks of the user's takes short cuts */
        memset(&options.alloc, 0, sizeof options.alloc);
    busy->group = group_open(&options);
    busy->token = token_new();
    (void)visit_busy(busy, 0); /* the thread that forks has its counters by then */
    perturb(test_random() | 1);
    for (int i = 0; i < BUSY_THREADS; i++)
        busy->threads[i] = thread_start(busy_main, busy);
}

static void busy_end(struct busy *busy)
{
    atomic_store(&busy->stop, true);
    for (int i = 0; i < BUSY_THREADS; i++)
        thread_join(busy->threads[i]);
    perturb(0);
    WAIT_UNTIL(STAT(busy->cache, flights_now) == 0 && GSTAT(busy->group, flights_now) == 0);
    CHECK_INT(STAT(busy->cache, waiters_now), 0);
    CHECK_INT(lookups_of(busy->cache), busy->lookups);
    aside_stats stats = group_stats(busy->group);
    CHECK_INT(stats.misses_led + stats.misses_joined + stats.refused + stats.misses,
              busy->group_lookups);
    use_cache(busy->cache);
    use_group(busy->group);
    close_first_thing(busy->cache);
    close_group(busy->group);
    aside_cancel_unref(busy->token);
    WAIT_UNTIL(busy->ledger.live_blocks == 0);
    CHECK_INT(busy->ledger.live_bytes, 0);
    wait_for_no_threads();
}

/* Nothing that needs memory or a thread, if this thread has visited the cache before the fork. */
static void read_busy(struct busy *busy)
{
    CHECK_INT(STAT(busy->cache, flights_now), 0);
    CHECK_INT(GSTAT(busy->group, flights_now), 0);
    CHECK_INT(STAT(busy->cache, entries), aside_count(busy->cache));
    for (unsigned key = 0; key < BUSY_KEYS; key++) {
        aside_status status = visit_busy(busy, key);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS);
    }
}

/* What a child of a busy process looks at: the entries that came with it, then everything. */
static void check_busy(struct busy *busy, bool thoroughly)
{
    aside_stats stats = test_stats(busy->cache);
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.queued_now, 0);
    CHECK_INT(stats.workers_now, 0);
    read_busy(busy);
    use_cache(busy->cache);
    use_group(busy->group);
    if (!thoroughly)
        return;
    for (int i = 0; i < 300; i++)
        turn(busy);
    overwrite_much(busy->cache, &busy->ledger, busy->ledger.live_bytes + (3 << 20));
    CHECK_STATUS(aside_clear(busy->cache), ASIDE_OK);
    CHECK_INT(aside_count(busy->cache), 0);
    WAIT_UNTIL(STAT(busy->cache, bytes) == busy->bytes); /* nothing of before is still counted */
    use_cache(busy->cache);
}

static void close_busy(struct busy *busy)
{
    close_first_thing(busy->cache);
    close_group(busy->group);
    wait_for_no_threads();
}

static _Noreturn void be_a_child(struct busy *busy, uint64_t way)
{
    perturb(0);
    if (SANITIZED) {
        read_busy(busy);
        child_done();
    }
    switch (way % 8) {
    case 0: break; /* ends at once */
    case 1: close_busy(busy); break;
    case 2:
        aside_unref(busy->cache);
        aside_group_unref(busy->group);
        break;
    case 3: {
        struct child child = child_fork(); /* a grandchild, before anything else */
        check_busy(busy, false);
        if (child.pid == 0)
            child_done();
        child_end(&child, CHILD_DONE);
        break;
    }
    case 4: check_busy(busy, false); exit(CHILD_DONE);
    case 5:
        check_busy(busy, true);
        close_busy(busy);
        break;
    default: check_busy(busy, false); close_busy(busy);
    }
    child_done();
}

static void dawdle(struct busy *busy)
{
    uint64_t until = atomic_load(&busy->turns) + test_random() % 64;
    WAIT_UNTIL(atomic_load(&busy->turns) >= until);
}

#define FORKS 1000

static void *nothing_to_do(void *arg)
{
    return arg;
}

TEST_LIMIT(a_busy_process_may_fork_a_thousand_times, 240)
{
    struct busy busy;
    thread_join(thread_start(nothing_to_do, NULL)); /* a sanitizer may start one of its own then */
    int threads = process_threads(), descriptors = process_descriptors();
    busy_begin(&busy);
    int most = threads + BUSY_THREADS + 1 + 2 + 2; /* a reaper, and workers of both */
    for (long round = test_rounds(FORKS); round > 0; round--) {
        uint64_t way = test_random();
        dawdle(&busy);
        struct child child = child_fork();
        if (child.pid == 0)
            be_a_child(&busy, way);
        child_end(&child, CHILD_DONE);
        CHECK(process_threads() <= most);
        CHECK_INT(process_descriptors(), descriptors);
    }
    busy_end(&busy);
    WAIT_UNTIL(process_threads() <= threads);
    CHECK_INT(process_descriptors(), descriptors);
}

/* Several children live at the same time, and the parent's threads fork themselves. */
static void *fork_main(void *arg)
{
    struct busy *busy = (struct busy *)arg;
    (void)visit_busy(busy, 0);
    for (long round = test_rounds(15); round > 0; round--) {
        uint64_t way = test_random();
        turn(busy);
        struct child child = child_fork();
        if (child.pid == 0)
            be_a_child(busy, way);
        turn(busy);
        child_end(&child, CHILD_DONE);
    }
    return NULL;
}

TEST_LIMIT(several_threads_may_fork_at_once, 120)
{
    enum { FORKERS = 3 };
    struct busy busy;
    pthread_t forkers[FORKERS];
    busy_begin(&busy);
    for (int i = 0; i < FORKERS; i++)
        forkers[i] = thread_start(fork_main, &busy);
    for (int i = 0; i < FORKERS; i++)
        thread_join(forkers[i]);
    busy_end(&busy);
}

/* Caches come and go, and with them what a fork has to look after. */
static void *open_and_close_main(void *arg)
{
    struct busy *busy = (struct busy *)arg;
    while (!atomic_load(&busy->stop)) {
        aside_options options = busy_options();
        aside_cache *cache = open_cache(&options);
        aside_group *group = group_open(&options);
        use_cache(cache);
        use_group(group);
        if (test_random() % 2)
            CHECK_STATUS(aside_close(cache), ASIDE_OK);
        aside_unref(cache);
        aside_group_unref(group);
    }
    return NULL;
}

TEST_LIMIT(a_process_may_fork_while_caches_are_opened_and_closed, 120)
{
    enum { OPENERS = 2 };
    struct busy busy;
    pthread_t openers[OPENERS];
    busy_begin(&busy);
    for (int i = 0; i < OPENERS; i++)
        openers[i] = thread_start(open_and_close_main, &busy);
    for (long round = test_rounds(60); round > 0; round--) {
        uint64_t way = test_random();
        dawdle(&busy);
        struct child child = child_fork();
        if (child.pid == 0)
            be_a_child(&busy, way);
        child_end(&child, CHILD_DONE);
    }
    atomic_store(&busy.stop, true);
    for (int i = 0; i < OPENERS; i++)
        thread_join(openers[i]);
    busy_end(&busy);
}

/* ---- a full cache -------------------------------------------------------------------------------- */

/* Half of its keys are sampled by those who find out what eviction pays. */
struct full {
    aside_cache *cache;
    _Atomic bool stop;
    _Atomic uint64_t turns;
};

#define FULL_ENTRIES 64

static void see_nothing(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
}

static aside_status visit_full(struct full *full, uint64_t key)
{
    return aside_visit(full->cache, &key, sizeof key, see_nothing, NULL);
}

/* A miss is stored, and somebody goes. */
static void *full_main(void *arg)
{
    struct full *full = (struct full *)arg;
    while (!atomic_load(&full->stop)) {
        uint64_t key = test_random() % (2 * FULL_ENTRIES);
        if (visit_full(full, key) == ASIDE_MISS)
            CHECK_STATUS(aside_set(full->cache, &key, sizeof key, "v", 1, ASIDE_FOREVER), ASIDE_OK);
        atomic_fetch_add(&full->turns, 1);
    }
    return NULL;
}

static _Noreturn void evict_in_a_child(struct full *full)
{
    perturb(0);
    for (uint64_t key = 0; key < 2 * FULL_ENTRIES; key++)
        (void)visit_full(full, key);
    if (SANITIZED)
        child_done();
    uint64_t evicted = STAT(full->cache, evicted);
    for (uint64_t i = 0; i < 10 * FULL_ENTRIES; i++) {
        uint64_t key = i % (2 * FULL_ENTRIES) + 1000;
        if (visit_full(full, key) == ASIDE_MISS)
            CHECK_STATUS(aside_set(full->cache, &key, sizeof key, "v", 1, ASIDE_FOREVER), ASIDE_OK);
        CHECK(aside_count(full->cache) <= FULL_ENTRIES);
    }
    CHECK(STAT(full->cache, evicted) > evicted + 3 * FULL_ENTRIES);
    end_cache(full->cache);
    child_done();
}

TEST_LIMIT(the_child_of_a_process_that_hits_and_evicts_all_the_time_goes_on_evicting, 120)
{
    struct full full = {0};
    pthread_t threads[2];
    aside_options options = quiet_options();
    options.max_entries = FULL_ENTRIES;
    full.cache = open_cache(&options);
    (void)visit_full(&full, 0); /* this thread has its counters by then */
    perturb(test_random() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(full_main, &full);
    for (long round = test_rounds(100); round > 0; round--) {
        uint64_t until = atomic_load(&full.turns) + test_random() % 64;
        WAIT_UNTIL(atomic_load(&full.turns) >= until);
        struct child child = child_fork();
        if (child.pid == 0)
            evict_in_a_child(&full);
        child_end(&child, CHILD_DONE);
    }
    atomic_store(&full.stop, true);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    end_cache(full.cache);
}

/* ---- at rest ------------------------------------------------------------------------------------- */

/* At rest a fork leaves nothing at all in the parent, be there flights or not. */
TEST(forks_of_a_process_at_rest_leave_nothing_in_it)
{
    struct traffic traffic;
    traffic_begin(&traffic, 0);
    size_t used = 0;
    int threads = process_threads(), descriptors = process_descriptors();
    int64_t bytes = traffic.ledger.live_bytes, blocks = traffic.ledger.live_blocks;
    for (long round = -10; round < test_rounds(100); round++) {
        struct child child = child_fork();
        if (child.pid == 0) {
            check_filled(traffic.cache);
            child_done();
        }
        child_end(&child, CHILD_DONE);
        if (round == -1)
            used = mallinfo2().uordblks;
    }
    if (!SANITIZED)
        CHECK_INT(mallinfo2().uordblks, used);
    CHECK_INT(process_threads(), threads);
    CHECK_INT(process_descriptors(), descriptors);
    CHECK_INT(traffic.ledger.live_bytes, bytes);
    CHECK_INT(traffic.ledger.live_blocks, blocks);
    traffic_end(&traffic);
}

/* vfork(), and what the C library makes of it, prepares nothing and disturbs nothing. */
TEST(programs_may_be_started_by_a_busy_process)
{
    struct busy busy;
    busy_begin(&busy);
    for (long round = test_rounds(30); round > 0; round--) {
        dawdle(&busy);
        CHECK_INT(system("exit 7"), 7 << 8);
    }
    busy_end(&busy);
}

/* ---- what leaves is told in its own process ------------------------------------------------------ */

struct hearing {
    aside_cache *cache;
    int entries;
    bool forks; /* the first call, on this thread */
    struct child child;
    struct gate *gate; /* at which the first call stands; NULL: at none */
    _Atomic int told, of[7];
};

static void hear(void *ctx, const void *key, size_t key_len, aside_value *value, aside_cause cause)
{
    struct hearing *hearing = (struct hearing *)ctx;
    CHECK(key_len > 0 && *(const char *)key != '\0');
    CHECK(aside_value_size(value) > 0);
    atomic_fetch_add(&hearing->of[cause], 1);
    if (atomic_fetch_add(&hearing->told, 1) > 0)
        return;
    if (hearing->gate != NULL)
        gate_pass(hearing->gate);
    if (hearing->forks)
        hearing->child = child_fork();
}

static void hearing_open(struct hearing *hearing)
{
    aside_options options = quiet_options();
    memset((void *)hearing, 0, sizeof *hearing);
    options.on_remove.fn = hear;
    options.on_remove.ctx = hearing;
    hearing->cache = open_filled(&options);
    hearing->entries = (int)aside_count(hearing->cache);
}

static void leave_in_many_ways(void *arg)
{
    struct hearing *hearing = (struct hearing *)arg;
    aside_cache *cache = hearing->cache;
    CHECK_INT(hearing->told, 0);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("key 1")), ASIDE_OK);
    CHECK_INT(hearing->of[ASIDE_CAUSE_DELETED], 1);
    put(cache, "key 2", "new", ASIDE_FOREVER);
    CHECK_INT(hearing->of[ASIDE_CAUSE_REPLACED], 1);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("key 3")), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(hearing->of[ASIDE_CAUSE_EXPIRED], 1);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(hearing->of[ASIDE_CAUSE_CLEARED], hearing->entries - 2);
    put(cache, "last", "one", ASIDE_FOREVER);
    end_cache(cache);
    CHECK_INT(hearing->of[ASIDE_CAUSE_CLOSED], 1);
    CHECK_INT(hearing->told, hearing->entries + 2);
}

TEST(what_leaves_in_the_child_is_told_there_and_what_leaves_in_the_parent_in_the_parent)
{
    struct hearing hearing;
    hearing_open(&hearing);
    in_a_child(leave_in_many_ways, &hearing);
    leave_in_many_ways(&hearing);
}

/* What this thread was telling at that moment it goes on telling in both. */
TEST(a_listener_may_fork)
{
    struct hearing hearing;
    hearing_open(&hearing);
    hearing.forks = true;
    CHECK_STATUS(aside_clear(hearing.cache), ASIDE_OK);
    CHECK_INT(hearing.of[ASIDE_CAUSE_CLEARED], hearing.entries);
    use_cache(hearing.cache);
    end_cache(hearing.cache);
    if (hearing.child.pid == 0)
        child_done();
    child_end(&hearing.child, CHILD_DONE);
}

static void *clear_it(void *arg)
{
    struct hearing *hearing = (struct hearing *)arg;
    CHECK_STATUS(aside_clear(hearing->cache), ASIDE_OK);
    return NULL;
}

/* What the other thread had in hand is told in the parent alone. */
static void go_on_without_it(void *arg)
{
    struct hearing *hearing = (struct hearing *)arg;
    CHECK_INT(hearing->told, 1);
    CHECK_INT(aside_count(hearing->cache), 0);
    use_cache(hearing->cache);
    end_cache(hearing->cache);
    CHECK(hearing->of[ASIDE_CAUSE_CLEARED] <= hearing->entries);
}

TEST(a_child_does_not_wait_for_a_listener_of_the_parent)
{
    struct hearing hearing;
    struct gate gate;
    hearing_open(&hearing);
    gate_init(&gate);
    hearing.gate = &gate;
    pthread_t other = thread_start(clear_it, &hearing);
    gate_wait_arrived(&gate, 1);
    in_a_child(go_on_without_it, &hearing);
    gate_open(&gate);
    thread_join(other);
    CHECK_INT(hearing.of[ASIDE_CAUSE_CLEARED], hearing.entries);
    end_cache(hearing.cache);
}
