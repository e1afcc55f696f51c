/*
 * threads.c -- many threads at once: no torn, stale, foreign or freed bytes (version and checksum
 * oracle), exactly one fetch at the instant of expiry and at a cold start (F1, F2), and calls from a
 * thread's last destructors.
 */
#include "helpers.h"

#include <aside/group.h>

/* ---- the oracle ---------------------------------------------------------------------------------- */

/* A value that carries its key, its version and a checksum over a body of changing length. */
struct record {
    uint64_t key, version, sum;
    uint32_t length;
    unsigned char body[180];
};

static uint64_t sum_of(const struct record *record)
{
    uint64_t sum = record->key * 31 + record->version * 17 + record->length;
    for (uint32_t i = 0; i < record->length; i++)
        sum = sum * 1099511628211u + record->body[i];
    return sum;
}

static size_t make_record(struct record *record, uint64_t key, uint64_t version)
{
    record->key = key;
    record->version = version;
    record->length = (uint32_t)(version * 7 % sizeof record->body);
    memset(record->body, (int)(version * 13 + key), record->length);
    record->sum = sum_of(record);
    return offsetof(struct record, body) + record->length;
}

/* Checks a value that was found under `key` and returns its version. */
static uint64_t check_record(const void *data, size_t size, uint64_t key)
{
    struct record record;
    CHECK(size >= offsetof(struct record, body) && size <= sizeof record);
    memcpy(&record, data, size);
    CHECK_INT(record.key, key);
    CHECK_INT(size, offsetof(struct record, body) + record.length);
    CHECK(record.sum == sum_of(&record));
    return record.version;
}

struct field {
    aside_cache *cache;
    _Atomic uint64_t version[8]; /* handed out, a key */
    _Atomic bool done;
    aside_cancel *token;
};

static void visit_record(const void *data, size_t size, void *ctx)
{
    uint64_t version = check_record(data, size, *(uint64_t *)ctx);
    test_yield(); /* the bytes stay as they are for as long as the visit lasts */
    CHECK_INT(check_record(data, size, *(uint64_t *)ctx), version);
}

static aside_status fetch_record(aside_fetch *fetch, void *arg)
{
    struct field *field = arg;
    struct record record;
    size_t key_size = 0;
    const uint64_t *key = aside_fetch_key(fetch, &key_size);
    uint64_t id;
    CHECK_INT(key_size, sizeof id);
    memcpy(&id, key, sizeof id);
    size_t size = make_record(&record, id, atomic_fetch_add(&field->version[id], 1) + 1);
    return aside_fetch_copy(fetch, &record, size);
}

static void write_record(struct field *field, uint64_t key)
{
    struct record record;
    size_t size = make_record(&record, key, atomic_fetch_add(&field->version[key], 1) + 1);
    aside_status status = aside_set(field->cache, &key, sizeof key, &record, size, ASIDE_FOREVER);
    CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
}

/* Reads a key in one of four ways; what is there must be whole, and of a version handed out. */
static void read_record(struct field *field, uint64_t key)
{
    struct record record;
    size_t size = 0;
    aside_value *value = NULL;
    aside_status status;
    switch (test_random() % 4) {
    case 0:
        if (aside_copy(field->cache, &key, sizeof key, &record, sizeof record, &size) == ASIDE_OK)
            CHECK(check_record(&record, size, key) <= atomic_load(&field->version[key]));
        return;
    case 1:
        status = aside_visit(field->cache, &key, sizeof key, visit_record, &key);
        CHECK(status == ASIDE_OK || status == ASIDE_MISS);
        return;
    case 2:
        if (aside_get(field->cache, &key, sizeof key, &value) != ASIDE_OK)
            return;
        break;
    default: {
        aside_call call = {ASIDE_CALL, .fetch = fetch_record, .arg = field};
        aside_result result = ASIDE_RESULT_INIT;
        call.cancel = test_random() % 2 ? field->token : NULL;
        CHECK_STATUS(aside_get_with_fetch(field->cache, &key, sizeof key, &call, &result),
                     ASIDE_OK);
        value = result.value;
    }
    }
    check_record(aside_value_data(value), aside_value_size(value), key);
    if (test_random() % 4 == 0)
        test_yield();
    check_record(aside_value_data(value), aside_value_size(value), key);
    aside_value_unref(value);
}

/* ---- one key ------------------------------------------------------------------------------------- */

static void *write_one_key(void *arg)
{
    for (int i = 0; i < 100; i++)
        write_record(arg, 0);
    return NULL;
}

static void *read_one_key(void *arg)
{
    for (int i = 0; i < 100; i++)
        read_record(arg, 0);
    return NULL;
}

TEST(ten_writers_and_ten_readers_of_one_key_corrupt_nothing)
{
    struct field field = {.cache = open_quiet(), .token = token_new()};
    pthread_t threads[20];
    for (int i = 0; i < 20; i++)
        threads[i] = thread_start(i % 2 ? write_one_key : read_one_key, &field);
    for (int i = 0; i < 20; i++)
        thread_join(threads[i]);
    aside_cancel_unref(field.token);
    end_cache(field.cache);
}

static void *count_up(void *arg)
{
    struct field *field = arg;
    for (long i = 0; i < test_rounds(4000); i++)
        write_record(field, 0);
    atomic_store(&field->done, true);
    return NULL;
}

static void *see_it_grow(void *arg)
{
    struct field *field = arg;
    uint64_t last = 0, key = 0;
    while (!atomic_load(&field->done)) {
        struct record record;
        size_t size = 0;
        if (aside_copy(field->cache, &key, sizeof key, &record, sizeof record, &size) != ASIDE_OK)
            continue;
        uint64_t version = check_record(&record, size, 0);
        CHECK(version >= last);
        last = version;
    }
    return NULL;
}

TEST(the_versions_of_one_writer_are_seen_in_order)
{
    struct field field = {.cache = open_quiet()};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = thread_start(i == 0 ? count_up : see_it_grow, &field);
    for (int i = 0; i < 4; i++)
        thread_join(threads[i]);
    end_cache(field.cache);
}

/* ---- few keys, every operation ------------------------------------------------------------------- */

static void *do_anything(void *arg)
{
    struct field *field = arg;
    for (long i = 0; i < test_rounds(4000); i++) {
        uint64_t key = test_random() % COUNT_OF(field->version);
        switch (test_random() % 16) {
        case 0: aside_delete(field->cache, &key, sizeof key); break;
        case 1: aside_expire(field->cache, &key, sizeof key); break;
        case 2: aside_touch(field->cache, &key, sizeof key, ASIDE_FOREVER); break;
        case 3: CHECK_STATUS(aside_reap(field->cache, 0, NULL), ASIDE_OK); break;
        case 4:
            if (test_random() % 16 == 0)
                CHECK_STATUS(aside_clear(field->cache), ASIDE_OK);
            break;
        case 5:
        case 6:
        case 7: write_record(field, key); break;
        default: read_record(field, key);
        }
    }
    return NULL;
}

TEST(four_busy_threads_on_few_keys_see_no_foreign_torn_or_freed_bytes)
{
    struct ledger ledger;
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 1;
    options.max_entries = 6; /* fewer than keys: eviction takes part */
    options.alloc = ledger_init(&ledger);
    struct field field = {.cache = open_cache(&options), .token = token_new()};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = thread_start(do_anything, &field);
    for (int i = 0; i < 4; i++)
        thread_join(threads[i]);
    aside_cancel_unref(field.token);
    end_cache(field.cache);
    WAIT_UNTIL(ledger.live_blocks == 0);
}

/* ---- bursts -------------------------------------------------------------------------------------- */

#define BURST 200

struct burst {
    struct caller callers[BURST];
    struct gate start;
};

static struct burst burst;

static void *burst_main(void *arg)
{
    gate_pass(&burst.start);
    caller_run(arg);
    return NULL;
}

/* All ask for the key as soon as the gate opens, in whatever way they like. */
static void check_burst(aside_cache *cache, const char *key, struct source *source,
                        const char *want)
{
    aside_cancel *token = token_new();
    int before = source->fetches;
    gate_init(&burst.start);
    for (int i = 0; i < BURST; i++) {
        caller_ask(&burst.callers[i], cache, key, source, i % 3 == 1 ? token : NULL);
        burst.callers[i].call.ttl_ms = 86400000;
        burst.callers[i].call.timeout_ms = i % 3 == 2 ? 3600000 : 0;
        burst.callers[i].thread = thread_start(burst_main, &burst.callers[i]);
    }
    gate_wait_arrived(&burst.start, BURST);
    gate_open(&burst.start);
    for (int i = 0; i < BURST; i++) {
        CHECK_STATUS(caller_join(&burst.callers[i]), ASIDE_OK);
        CHECK(value_is(burst.callers[i].result.value, want));
        caller_drop(&burst.callers[i]);
    }
    CHECK_INT(source->fetches - before, 1);
    gate_fini(&burst.start);
    aside_cancel_unref(token);
}

TEST(a_cold_start_burst_causes_exactly_one_fetch)
{
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "cold", false);
    check_burst(cache, "k", &source, "cold");
    end_cache(cache);
}

TEST(a_burst_at_the_very_instant_of_expiry_causes_exactly_one_fetch)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    struct source source;
    source_init(&source, "fresh", false);
    put(cache, "k", "old", 86400000);
    fake_clock_advance_ms(&clock, 86400000 - 1, cache);
    CHECK(holds(cache, "k", "old"));
    for (int day = 0; day < 3; day++) {
        fake_clock_advance_ms(&clock, day == 0 ? 1 : 86400000, cache);
        check_burst(cache, "k", &source, "fresh");
    }
    CHECK_INT(source.fetches, 3);
    end_cache(cache);
}

/* ---- exactly one fetch a key, without gates ------------------------------------------------------ */

#define ROUNDS 400

struct race {
    aside_cache *cache;
    pthread_barrier_t barrier;
    _Atomic int fetches[ROUNDS];
};

static aside_status count_fetch(aside_fetch *fetch, void *arg)
{
    struct race *race = arg;
    size_t size = 0;
    int round;
    memcpy(&round, aside_fetch_key(fetch, &size), sizeof round);
    atomic_fetch_add(&race->fetches[round], 1);
    return aside_fetch_copy(fetch, &round, sizeof round);
}

static void *race_main(void *arg)
{
    struct race *race = arg;
    for (int round = 0; round < ROUNDS; round++) {
        aside_call call = {ASIDE_CALL, .fetch = count_fetch, .arg = race};
        aside_result result = ASIDE_RESULT_INIT;
        pthread_barrier_wait(&race->barrier);
        CHECK_STATUS(aside_get_with_fetch(race->cache, &round, sizeof round, &call, &result),
                     ASIDE_OK);
        CHECK(memcmp(aside_value_data(result.value), &round, sizeof round) == 0);
        aside_value_unref(result.value);
    }
    return NULL;
}

TEST(a_newcomer_sees_the_flight_or_the_value_and_never_neither)
{
    static struct race race;
    pthread_t threads[4];
    race.cache = open_quiet();
    pthread_barrier_init(&race.barrier, NULL, 4);
    for (int i = 0; i < 4; i++)
        threads[i] = thread_start(race_main, &race);
    for (int i = 0; i < 4; i++)
        thread_join(threads[i]);
    for (int round = 0; round < ROUNDS; round++)
        CHECK_INT(race.fetches[round], 1);
    CHECK_INT(STAT(race.cache, fetches), ROUNDS);
    end_cache(race.cache);
}

/* ---- a thread's last destructors ----------------------------------------------------------------- */

static pthread_key_t early_key, late_key;
static _Atomic int last_calls;

struct farewell {
    aside_cache *cache;
    struct source source;
    pthread_key_t key;
    int rounds; /* destructor rounds left: past the one in which the library forgets the thread */
};

static void say_farewell(void *arg)
{
    struct farewell *farewell = arg;
    aside_cache *cache = farewell->cache;
    put(cache, "k", "from a destructor", ASIDE_FOREVER);
    CHECK(holds(cache, "k", "from a destructor"));
    CHECK_STATUS(look(cache, "no"), ASIDE_MISS);
    CHECK_STATUS(ask(cache, "fetched", &farewell->source), ASIDE_OK);
    aside_delete(cache, ASIDE_STR("fetched"));
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    atomic_fetch_add(&last_calls, 1);
    if (--farewell->rounds > 0)
        pthread_setspecific(farewell->key, farewell);
}

static void *leave_with_destructors(void *arg)
{
    struct farewell *both = arg;
    pthread_setspecific(early_key, &both[0]); /* one before this thread's first call */
    put(both[0].cache, "k", "alive", ASIDE_FOREVER);
    CHECK_STATUS(look(both[0].cache, "k"), ASIDE_OK);
    pthread_setspecific(late_key, &both[1]); /* and one after it */
    return NULL;
}

TEST(calls_from_a_threads_last_destructors_work)
{
    CHECK_INT(pthread_key_create(&early_key, say_farewell), 0);
    struct ledger ledger;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    CHECK_INT(pthread_key_create(&late_key, say_farewell), 0);
    for (int i = 0; i < 50; i++) {
        struct farewell both[2] = {{.cache = cache, .key = early_key, .rounds = 3},
                                   {.cache = cache, .key = late_key, .rounds = 3}};
        source_init(&both[0].source, "v", false);
        source_init(&both[1].source, "v", false);
        thread_join(thread_start(leave_with_destructors, both));
    }
    CHECK_INT(last_calls, 300);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- threads without a record -------------------------------------------------------------------- */

static void see_text(const void *data, size_t size, void *text)
{
    CHECK(size == strlen(text) && memcmp(data, text, size) == 0);
}

static void read_without_record(aside_cache *cache, unsigned *lookups)
{
    char buffer[300], big[300], text[] = "text";
    size_t size = 0;
    memset(big, 'b', sizeof big);
    put(cache, "k", text, ASIDE_FOREVER);
    put(cache, "empty", "", ASIDE_FOREVER);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("big"), big, sizeof big, ASIDE_FOREVER), ASIDE_OK);
    CHECK(holds(cache, "k", "text"));
    CHECK_STATUS(look(cache, "no"), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, &size), ASIDE_OK);
    CHECK(size == 4 && memcmp(buffer, "text", 4) == 0);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 3, &size), ASIDE_E_BUFFER);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("empty"), NULL, 0, &size), ASIDE_OK);
    CHECK_INT(size, 0);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("big"), buffer, sizeof buffer, NULL), ASIDE_OK);
    CHECK(memcmp(buffer, big, sizeof big) == 0);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("no"), buffer, 3, &size), ASIDE_MISS);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), see_text, text), ASIDE_OK);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("no"), see_text, text), ASIDE_MISS);
    *lookups += 9;
}

/* Sizes that are copied by words and those that are not; no byte behind the value is touched. */
static void copy_without_record(aside_cache *cache, unsigned *lookups)
{
    char bytes[280], buffer[281];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('a' + i % 23);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        size_t copied = 0;
        memset(buffer, '.', sizeof buffer);
        CHECK_STATUS(aside_set(cache, ASIDE_STR("sized"), bytes, size, ASIDE_FOREVER), ASIDE_OK);
        CHECK_STATUS(aside_copy(cache, ASIDE_STR("sized"), buffer, sizeof buffer, &copied),
                     ASIDE_OK);
        CHECK_INT(copied, size);
        CHECK(memcmp(buffer, bytes, size) == 0);
        CHECK_INT(buffer[size], '.');
        ++*lookups;
    }
}

/* A hit is served; a flight needs a record. */
static void ask_without_record(aside_cache *cache, unsigned *lookups)
{
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_HIT);
    CHECK(value_is(caller.result.value, "text"));
    caller_drop(&caller);
    CHECK_STATUS(ask(cache, "no", &source), ASIDE_E_NOMEM);
    caller_ask(&caller, cache, "no", &source, NULL);
    caller.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(caller_run(&caller), ASIDE_MISS);
    CHECK_INT(source.fetches, 0);
    *lookups += 3;
}

static void write_without_record(aside_cache *cache, struct fake_clock *clock, unsigned *lookups)
{
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, 0), ASIDE_EXISTS);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("no"), "v", 1, 0), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("added"), "v", 1, 1000), ASIDE_OK);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("added"), 10), ASIDE_OK);
    fake_clock_advance_ms(clock, 10, cache);
    CHECK_STATUS(look(cache, "added"), ASIDE_MISS); /* its time is over */
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("empty")), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(aside_count(cache), 0);
    *lookups += 1;
}

static void call_without_record(void)
{
    static struct ledger ledger;
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&clock);
    options.name = NULL;
    aside_cache *cache = open_cache(&options);
    unsigned lookups = 0;
    aside_value *value;
    read_without_record(cache, &lookups);
    copy_without_record(cache, &lookups);
    ask_without_record(cache, &lookups);
    write_without_record(cache, &clock, &lookups);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.hits + stats.misses + stats.misses_led + stats.misses_joined + stats.refused,
              lookups);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "v", 1, 0), ASIDE_E_CLOSED);
    aside_unref(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* Before the library's first call, so that it gets none: then no thread has a record. */
TEST(where_no_thread_specific_key_is_left_every_call_but_a_fetch_works)
{
    pthread_key_t other;
    while (pthread_key_create(&other, NULL) == 0)
        ;
    call_without_record();
}

static void *call_while_memory_is_short(void *unused)
{
    process_fail_alloc(1, true);
    call_without_record();
    process_fail_alloc(0, false);
    return unused;
}

TEST(a_thread_whose_record_cannot_be_allocated_can_make_every_call_but_a_fetch)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS); /* so that the record there is is this thread's */
    end_cache(cache);
    thread_join(thread_start(call_while_memory_is_short, NULL));
}

static uint64_t refused_by(const aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    CHECK_INT(stats.misses_led + stats.misses_joined, 0);
    return stats.refused;
}

static void *ask_group_while_memory_is_short(void *group)
{
    struct source source;
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .arg = &source};
    aside_result result = ASIDE_RESULT_INIT;
    source_init(&source, "v", false);
    process_fail_alloc(1, true);
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &call, &result), ASIDE_E_NOMEM);
    CHECK(result.value == NULL);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_NONE);
    call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &call, &result), ASIDE_MISS);
    CHECK_STATUS(aside_group_forget(group, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_INT(refused_by(group), 1);
    process_fail_alloc(0, false);
    CHECK_INT(source.fetches, 0);
    return NULL;
}

TEST(a_thread_whose_record_cannot_be_allocated_is_refused_by_a_group)
{
    aside_group *group = NULL;
    aside_cache *cache = open_quiet();
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS); /* so that the record there is is this thread's */
    CHECK_STATUS(aside_group_new(&group, NULL), ASIDE_OK);
    thread_join(thread_start(ask_group_while_memory_is_short, group));
    aside_group_unref(group);
    end_cache(cache);
}

static void close_from_destructor(void *ptr, void *cache)
{
    (void)ptr;
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
}

static void *close_without_record(void *cache)
{
    process_fail_alloc(1, true);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    process_fail_alloc(0, false);
    return NULL;
}

/* As it may with a record: it does not wait for itself (P1, P5). */
TEST(a_destructor_may_close_the_cache_that_a_thread_without_a_record_closes)
{
    static char thing;
    aside_cache *cache = open_quiet();
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&thing, 1, close_from_destructor, cache, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, ASIDE_FOREVER), ASIDE_OK);
    aside_value_unref(value);
    thread_join(thread_start(close_without_record, cache));
    end_cache(cache);
}
