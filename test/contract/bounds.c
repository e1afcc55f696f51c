/*
 * bounds.c -- B1, B4: entries and bytes never exceed what was configured, as told by the gauges and
 * by a ledger that does not trust them; what can not fit is refused and costs nobody his place.
 */
#include "helpers.h"

#define MIB ((size_t)1 << 20)
#define FIXED_BYTES ((int64_t)MIB) /* what a cache needs beside what it holds */

static struct ledger ledger;

static aside_cache *open_bounded(size_t max_bytes, size_t max_entries)
{
    aside_options options = quiet_options();
    options.max_bytes = max_bytes;
    options.max_entries = max_entries;
    options.alloc = ledger_init(&ledger);
    return open_cache(&options);
}

/* The gauges are within the bounds, and the ledger agrees with the gauges. */
static void check_bounds(aside_cache *cache, size_t max_bytes, size_t max_entries)
{
    aside_stats stats = test_stats(cache);
    if (max_bytes != 0)
        CHECK(stats.bytes <= max_bytes);
    if (max_entries != 0)
        CHECK(stats.entries <= max_entries);
    CHECK(max_entries == 0 || aside_count(cache) <= max_entries);
}

static void check_ledger(aside_cache *cache, size_t max_bytes)
{
    aside_stats stats = test_stats(cache);
    int64_t kept = (int64_t)(stats.limbo_bytes + stats.pinned_bytes);
    CHECK(atomic_load(&ledger.live_bytes) <= (int64_t)max_bytes + kept + FIXED_BYTES);
}

/* ---- one thread ---------------------------------------------------------------------------------- */

TEST(max_entries_is_never_exceeded_and_is_used)
{
    static const size_t bounds[] = {1, 2, 7, 64, 1000};
    for (size_t b = 0; b < COUNT_OF(bounds); b++) {
        aside_cache *cache = open_bounded(0, bounds[b]);
        for (size_t i = 0; i < bounds[b] * 4 + 10; i++) {
            CHECK_STATUS(aside_set(cache, &i, sizeof i, &i, sizeof i, ASIDE_FOREVER), ASIDE_OK);
            check_bounds(cache, 0, bounds[b]);
        }
        CHECK(aside_count(cache) >= (bounds[b] + 1) / 2);
        CHECK(STAT(cache, evicted) > 0);
        end_cache(cache);
        CHECK_INT(ledger.live_blocks, 0);
    }
}

TEST(a_cache_for_one_entry_holds_one)
{
    aside_cache *cache = open_bounded(0, 1);
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK(holds(cache, "k", "v"));
    put(cache, "k", "w", ASIDE_FOREVER);
    CHECK(holds(cache, "k", "w"));
    CHECK_INT(STAT(cache, evicted), 0);
    end_cache(cache);
}

TEST(max_bytes_is_never_exceeded_and_is_used)
{
    static char bytes[20000];
    aside_cache *cache = open_bounded(4 * MIB, 0);
    for (int i = 0; i < 6000; i++) {
        size_t size = test_random() % (i % 100 == 0 ? sizeof bytes : 2000);
        CHECK_STATUS(aside_set(cache, &i, sizeof i, bytes, size, ASIDE_FOREVER), ASIDE_OK);
        check_bounds(cache, 4 * MIB, 0);
        check_ledger(cache, 4 * MIB);
    }
    CHECK(STAT(cache, bytes) >= 2 * MIB);
    CHECK(STAT(cache, evicted) > 0);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(the_bytes_of_a_wrapped_value_count_as_its_size_says)
{
    static struct tally tally;
    aside_cache *cache = open_bounded(4 * MIB, 0);
    char key[16];
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_STATUS(tally_set(&tally, cache, key, 100000, ASIDE_FOREVER), ASIDE_OK);
        CHECK(STAT(cache, bytes) <= 4 * MIB);
        CHECK(aside_count(cache) <= 4 * MIB / 100000);
    }
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT((size_t)tally.made - (size_t)tally.freed, aside_count(cache));
    end_cache(cache);
    CHECK_INT(tally.freed, 200);
}

TEST(many_small_entries_count_with_their_index)
{
    aside_cache *cache = open_bounded(2 * MIB, 0);
    for (uint32_t i = 0; i < 60000; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
        if (i % 64 == 0) {
            check_bounds(cache, 2 * MIB, 0);
            check_ledger(cache, 2 * MIB);
        }
    }
    end_cache(cache);
}

/* False: not even the large entry and its own table fit. */
static bool fill_beside_a_large_one(size_t left)
{
    static struct tally tally;
    aside_cache *cache = open_bounded(2 * MIB, 0);
    memset((void *)&tally, 0, sizeof tally);
    aside_status status = tally_set(&tally, cache, "large", 2 * MIB - left, ASIDE_FOREVER);
    CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
    for (uint32_t i = 0; i < 50; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, ASIDE_FOREVER), ASIDE_OK);
        check_bounds(cache, 2 * MIB, 0);
    }
    end_cache(cache);
    CHECK_INT(tally.freed, 1);
    CHECK_INT(ledger.live_blocks, 0);
    return status == ASIDE_OK;
}

/* A part of the cache that had no entry needs a table before it has one. However much a large entry
 * elsewhere leaves, it makes room for that, too. */
TEST(a_table_makes_room_for_itself)
{
    unsigned fitted = 0;
    for (size_t left = 1024; left <= 16384; left += 64)
        fitted += fill_beside_a_large_one(left);
    CHECK(fitted > 100);
}

TEST(what_can_never_fit_is_refused_and_evicts_nothing)
{
    static char bytes[3 * MIB];
    aside_cache *cache = open_bounded(2 * MIB, 0);
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(cache, key, "small", ASIDE_FOREVER);
    }
    size_t before = aside_count(cache);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, sizeof bytes, ASIDE_FOREVER),
                 ASIDE_E_TOO_LARGE);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("7"), bytes, sizeof bytes, ASIDE_FOREVER),
                 ASIDE_E_TOO_LARGE);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("large"), bytes, sizeof bytes, ASIDE_FOREVER),
                 ASIDE_E_TOO_LARGE);
    CHECK(holds(cache, "7", "small")); /* what was there stays */
    CHECK_INT(aside_count(cache), before);
    CHECK_INT(STAT(cache, evicted), 0);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK(holds(cache, key, "small"));
    }
    end_cache(cache);
}

/* Fills the cache until it evicts, then overwrites every key that is there with as much. */
static void check_overwriting(size_t max_bytes, size_t max_entries, int keys)
{
    static char bytes[1000];
    aside_cache *cache = open_bounded(max_bytes, max_entries);
    for (int i = 0; i < keys; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, bytes, sizeof bytes, ASIDE_FOREVER), ASIDE_OK);
    uint64_t evicted = STAT(cache, evicted);
    size_t count = aside_count(cache), present = 0;
    CHECK(evicted > 0);
    for (int i = 0; i < keys; i++) {
        if (aside_copy(cache, &i, sizeof i, NULL, 0, NULL) == ASIDE_MISS)
            continue;
        present++;
        CHECK_STATUS(aside_set(cache, &i, sizeof i, bytes, sizeof bytes, ASIDE_FOREVER), ASIDE_OK);
        CHECK_INT(STAT(cache, evicted), evicted);
        CHECK_INT(aside_count(cache), count);
        check_bounds(cache, max_bytes, max_entries);
    }
    CHECK_INT(present, count);
    end_cache(cache);
}

TEST(overwriting_in_a_full_cache_evicts_nobody_else)
{
    check_overwriting(0, 200, 800);
    check_overwriting(2 * MIB, 0, 5000);
}

/* ---- who goes ------------------------------------------------------------------------------------ */

/* One bound of the two, of about so many entries of that many bytes. */
struct crowd {
    aside_cache *cache;
    size_t max_bytes, max_entries, entries;
};

static const char contents[1000] = "";

static struct crowd crowd_bounded_by(bool by_bytes)
{
    struct crowd crowd = {NULL, 0, 0, 1000};
    if (by_bytes)
        crowd.max_bytes = MIB + MIB / 4;
    else
        crowd.max_entries = crowd.entries;
    crowd.cache = open_bounded(crowd.max_bytes, crowd.max_entries);
    return crowd;
}

/* True for a hit; a miss is stored. */
static bool crowd_ask(const struct crowd *crowd, uint64_t key)
{
    if (aside_copy(crowd->cache, &key, sizeof key, NULL, 0, NULL) != ASIDE_MISS)
        return true;
    CHECK_STATUS(
        aside_set(crowd->cache, &key, sizeof key, contents, sizeof contents, ASIDE_FOREVER),
        ASIDE_OK);
    check_bounds(crowd->cache, crowd->max_bytes, crowd->max_entries);
    return false;
}

static size_t crowd_ask_range(const struct crowd *crowd, uint64_t first, size_t count)
{
    size_t hits = 0;
    for (uint64_t key = first; key < first + count; key++)
        hits += crowd_ask(crowd, key);
    return hits;
}

static void check_scan(bool by_bytes)
{
    struct crowd crowd = crowd_bounded_by(by_bytes);
    size_t wanted = crowd.entries / 3;
    for (int turn = 0; turn < 5; turn++)
        (void)crowd_ask_range(&crowd, 0, wanted);
    CHECK_INT(crowd_ask_range(&crowd, 1000000, 20 * crowd.entries), 0);
    CHECK(crowd_ask_range(&crowd, 0, wanted) >= wanted * 9 / 10);
    end_cache(crowd.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_scan_of_keys_that_are_asked_for_once_leaves_those_that_are_asked_for_often)
{
    check_scan(false);
    check_scan(true);
}

/* If the least recently used went, or the oldest, there would be not one hit. */
static void check_loop(bool by_bytes)
{
    enum { TURNS = 20 };
    struct crowd crowd = crowd_bounded_by(by_bytes);
    size_t hits = 0;
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        size_t now = crowd_ask_range(&crowd, 0, 2 * crowd.entries);
        hits += turn < TURNS ? 0 : now;
    }
    CHECK(hits >= TURNS * 2 * crowd.entries * 3 / 10);
    end_cache(crowd.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_loop_over_twice_as_many_keys_as_there_is_room_for_has_hits)
{
    check_loop(false);
    check_loop(true);
}

/* Everything was asked for once, a while ago: what is new is wanted soon again. */
static void check_news(bool by_bytes)
{
    struct crowd crowd = crowd_bounded_by(by_bytes);
    size_t hits = 0, news = 60 * crowd.entries, last = 10 * crowd.entries;
    for (uint64_t key = 1000; key < 1000 + news; key++) {
        (void)crowd_ask(&crowd, key);
        for (uint64_t ago = 1; ago <= 2; ago++) {
            bool hit = crowd_ask(&crowd, key - ago * crowd.entries / 8);
            hits += key >= 1000 + news - last && hit;
        }
    }
    CHECK(hits >= 2 * last * 8 / 10);
    end_cache(crowd.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(where_what_is_new_is_wanted_soon_again_it_is_there)
{
    check_news(false);
    check_news(true);
}

/* ---- room that comes back ------------------------------------------------------------------------ */

/* Beside a large value, and whatever the index had grown to before. */
TEST(a_cleared_cache_has_room_for_what_an_empty_one_has)
{
    static char bytes[MIB - 8192];
    aside_cache *cache = open_bounded(MIB, 0);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, sizeof bytes, ASIDE_FOREVER),
                 ASIDE_OK);
    for (uint32_t i = 0; i < 20000; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK(STAT(cache, bytes) < 8192);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, sizeof bytes, ASIDE_FOREVER),
                 ASIDE_OK);
    check_bounds(cache, MIB, 0);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(deleting_makes_room)
{
    static char bytes[MIB];
    aside_cache *cache = open_bounded(4 * MIB, 0);
    for (int i = 0; i < 200; i++) {
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), bytes, sizeof bytes, ASIDE_FOREVER),
                     ASIDE_OK);
        CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
        check_ledger(cache, 4 * MIB);
    }
    CHECK_INT(STAT(cache, evicted), 0);
    CHECK_INT(STAT(cache, entries), 0);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(handles_are_counted_apart_and_shown)
{
    static char bytes[100000];
    aside_cache *cache = open_bounded(4 * MIB, 0);
    aside_value *value = NULL;
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), bytes, sizeof bytes, ASIDE_FOREVER), ASIDE_OK);
    CHECK_INT(STAT(cache, pinned_bytes), 0);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK(STAT(cache, pinned_bytes) >= sizeof bytes);
    CHECK(STAT(cache, bytes) < sizeof bytes);
    aside_value_unref(value);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, pinned_bytes), 0);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    end_cache(cache);
}

/* ---- many threads -------------------------------------------------------------------------------- */

enum { WRITERS = 8, LARGEST = 5000 };

struct load {
    aside_cache *cache;
    size_t max_bytes, max_entries;
    _Atomic int writing; /* writers that have not finished */
    pthread_t writers[WRITERS];
};

static void *write_much(void *arg)
{
    struct load *load = arg;
    static const char bytes[LARGEST] = "";
    for (long i = 0; i < test_rounds(3000); i++) {
        uint64_t key = test_random() % 20000;
        size_t size = test_random() % sizeof bytes;
        aside_status status = aside_set(load->cache, &key, sizeof key, bytes, size, ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        if (i % 7 == 0) {
            aside_value *value = NULL;
            key = test_random() % 20000;
            if (aside_get(load->cache, &key, sizeof key, &value) == ASIDE_OK)
                aside_value_unref(value);
        }
    }
    atomic_fetch_sub(&load->writing, 1);
    return NULL;
}

static void start_writing(struct load *load, size_t max_bytes, size_t max_entries)
{
    *load =
        (struct load){open_bounded(max_bytes, max_entries), max_bytes, max_entries, WRITERS, {0}};
    for (int i = 0; i < WRITERS; i++)
        load->writers[i] = thread_start(write_much, load);
}

static void await_writers(struct load *load)
{
    for (int i = 0; i < WRITERS; i++)
        thread_join(load->writers[i]);
}

static void check_while_writing(size_t max_bytes, size_t max_entries)
{
    struct load load;
    start_writing(&load, max_bytes, max_entries);
    while (atomic_load(&load.writing) > 0) {
        check_bounds(load.cache, max_bytes, max_entries);
        test_yield();
    }
    await_writers(&load);
    check_bounds(load.cache, max_bytes, max_entries);
    CHECK(test_rounds(1000) < 1000 || STAT(load.cache, evicted) > 0);
    if (max_bytes != 0)
        check_ledger(load.cache, max_bytes); /* at rest: the gauges and the ledger stand still */
    end_cache(load.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(the_bounds_hold_at_every_moment_while_eight_threads_write)
{
    check_while_writing(4 * MIB, 0);
    check_while_writing(0, 500);
    check_while_writing(2 * MIB, 300);
}

/* What is pinned: a handle of each writer, and the entry that he is about to store. What waits: a
 * store is refused once an eighth of the bound waits in its shard, but what others evict comes on top
 * of that: not more than is stored meanwhile, so not more than again as much. */
TEST(live_bytes_never_exceed_the_bound_what_is_pinned_what_waits_and_a_fixed_part)
{
    aside_cache *empty = open_bounded(4 * MIB, 0);
    int64_t fixed = ledger.live_bytes + 65536; /* and the tables that find flights by key */
    end_cache(empty);
    struct load load;
    int64_t most = 0, pinned = 2 * WRITERS * (LARGEST + 200), waiting = 2 * (int64_t)(4 * MIB / 8);
    start_writing(&load, 4 * MIB, 0);
    while (atomic_load(&load.writing) > 0) {
        int64_t live = atomic_load(&ledger.live_bytes);
        most = live > most ? live : most;
        test_yield();
    }
    await_writers(&load);
    CHECK(most <= (int64_t)(4 * MIB) + pinned + waiting + fixed);
    end_cache(load.cache);
}

/* ---- a reader that stays ------------------------------------------------------------------------- */

static void hold_at_gate(const void *data, size_t size, void *ctx)
{
    gate_pass(ctx);
    CHECK_INT(size, 6);
    CHECK(memcmp(data, "pinned", 6) == 0);
}

struct visitor {
    aside_cache *cache;
    struct gate gate;
};

static void *visit_long(void *arg)
{
    struct visitor *visitor = arg;
    CHECK_STATUS(aside_visit(visitor->cache, ASIDE_STR("k"), hold_at_gate, &visitor->gate),
                 ASIDE_OK);
    return NULL;
}

TEST(a_visit_that_lasts_pins_one_entry_and_stops_no_writer)
{
    static const char bytes[4000] = "";
    struct visitor visitor = {.cache = open_bounded(4 * MIB, 0)};
    gate_init(&visitor.gate);
    put(visitor.cache, "k", "pinned", ASIDE_FOREVER);
    pthread_t thread = thread_start(visit_long, &visitor);
    gate_wait_arrived(&visitor.gate, 1);
    put(visitor.cache, "k", "overwritten", ASIDE_FOREVER);
    for (int i = 0; i < 20000; i++) { /* twenty times what the cache may hold */
        CHECK_STATUS(aside_set(visitor.cache, &i, sizeof i, bytes, sizeof bytes, ASIDE_FOREVER),
                     ASIDE_OK);
        if (i % 512 == 0) {
            check_bounds(visitor.cache, 4 * MIB, 0);
            check_ledger(visitor.cache, 4 * MIB);
            CHECK(atomic_load(&ledger.live_bytes) <= (int64_t)(8 * MIB) + FIXED_BYTES);
        }
    }
    gate_open(&visitor.gate);
    thread_join(thread);
    end_cache(visitor.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- bounds at the edge of the numbers ----------------------------------------------------------- */

TEST(bounds_of_any_size_are_taken)
{
    static const size_t bounds[] = {1, (size_t)1 << 30, (size_t)1 << 34, SIZE_MAX / 2, SIZE_MAX};
    for (size_t i = 0; i < COUNT_OF(bounds); i++)
        for (size_t j = 0; j < COUNT_OF(bounds); j++) {
            aside_cache *cache = open_bounded(bounds[i], bounds[j]);
            CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "v", 1, ASIDE_FOREVER),
                         i == 0 ? ASIDE_E_TOO_LARGE : ASIDE_OK);
            CHECK_INT(aside_count(cache), i == 0 ? 0 : 1);
            end_cache(cache);
        }
}

/* ---- flights, which count as well ---------------------------------------------------------------- */

struct large {
    aside_cache *cache;
    struct gate *gate;
    char bytes[16000];
};

static aside_status fetch_at_gate(aside_fetch *fetch, void *arg)
{
    const struct large *large = arg;
    check_bounds(large->cache, 1 << 16, 0);
    gate_pass(large->gate);
    return aside_fetch_not_found(fetch);
}

static void *ask_with_large(void *arg)
{
    struct large *large = arg;
    aside_call call = {ASIDE_CALL, .fetch = fetch_at_gate, .arg = large, .arg_size = sizeof *large};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(large->cache, large->bytes, 8, &call, &result),
                 ASIDE_NOT_FOUND);
    return NULL;
}

/* Entries make room for the argument of a flight; flights do not make room for each other. */
TEST(an_argument_that_is_copied_counts_and_makes_room_for_itself)
{
    enum { FLIGHTS = 3 };
    static struct large large[FLIGHTS + 1];
    struct gate gate;
    pthread_t threads[FLIGHTS];
    aside_cache *cache = open_bounded(1 << 16, 0);
    aside_result result = ASIDE_RESULT_INIT;
    gate_init(&gate);
    for (int i = 0; i < 200; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, large->bytes, 1000, ASIDE_FOREVER), ASIDE_OK);
    CHECK(STAT(cache, bytes) > (1 << 16) - 2000);
    for (int i = 0; i < FLIGHTS; i++) {
        large[i] = (struct large){cache, &gate, {(char)i}};
        threads[i] = thread_start(ask_with_large, &large[i]);
        gate_wait_arrived(&gate, i + 1);
        check_bounds(cache, 1 << 16, 0);
    }
    aside_call call = {ASIDE_CALL, .fetch = fetch_at_gate, .arg = large, .arg_size = sizeof *large};
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("more"), &call, &result), ASIDE_E_BUSY);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("more"), &call, &result), ASIDE_E_BUSY);
    gate_open(&gate);
    for (int i = 0; i < FLIGHTS; i++)
        thread_join(threads[i]);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("more"), &call, &result), ASIDE_NOT_FOUND);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(an_argument_that_can_never_fit_is_refused_and_evicts_nothing)
{
    static char bytes[1 << 17];
    aside_cache *cache = open_bounded(1 << 16, 0);
    aside_call call = {ASIDE_CALL, .fetch = fetch_at_gate, .arg = bytes};
    aside_result result = ASIDE_RESULT_INIT;
    put(cache, "k", "v", ASIDE_FOREVER);
    call.arg_size = sizeof bytes;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("no"), &call, &result), ASIDE_E_BUSY);
    call.arg_size = SIZE_MAX / 2; /* no memory has that much, and not a byte of it is read */
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("no"), &call, &result), ASIDE_E_NOMEM);
    call.arg_size = SIZE_MAX;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("no"), &call, &result), ASIDE_E_NOMEM);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(STAT(cache, evicted), 0);
    end_cache(cache);
}
