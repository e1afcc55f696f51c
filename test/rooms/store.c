/*
 * store.c -- store/store: what a write does that does not fit at once, and what it must not do: evict
 * in vain, wait without end, or lose a value that was fetched (B1, B4, F10).
 */
#include "rooms.h"

#include "cache/cache.h"

static struct ledger ledger;
static struct fake_clock fake;

static aside_cache *open_with(size_t max_bytes, size_t max_entries)
{
    aside_options options = quiet_options();
    options.max_bytes = max_bytes;
    options.max_entries = max_entries;
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&fake);
    return open_cache(&options);
}

static void finish(aside_cache *cache)
{
    CHECK(store_check(&cache->store, stderr));
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

static void set_small(aside_cache *cache, uint32_t count, int64_t ttl_ms)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, ttl_ms), ASIDE_OK);
}

static char bytes[1 << 20];

/* ---- shards -------------------------------------------------------------------------------------- */

TEST(a_small_cache_has_few_shards_and_every_key_one_of_them)
{
    static const struct {
        size_t max_bytes, max_entries, shards;
    } cases[] = {{0, 0, 64},      {1, 0, 1},    {0, 1, 1},          {64 << 20, 0, 64},
                 {1 << 20, 0, 4}, {0, 2048, 4}, {64 << 20, 1024, 2}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        aside_cache *cache = open_with(cases[i].max_bytes, cases[i].max_entries);
        CHECK_INT(cache->store.shard_mask + 1, cases[i].shards);
        for (uint64_t hash = 1; hash; hash <<= 1)
            CHECK(store_shard(&cache->store, hash) < cache->store.shards + cases[i].shards);
        finish(cache);
    }
}

/* ---- room ---------------------------------------------------------------------------------------- */

TEST(a_large_value_makes_room_for_itself)
{
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 5000, ASIDE_FOREVER);
    CHECK(STAT(cache, bytes) <= 256 << 10);
    uint64_t evicted = STAT(cache, evicted);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, 100 << 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK(STAT(cache, bytes) <= 256 << 10);
    CHECK(STAT(cache, evicted) > evicted);
    CHECK(STAT(cache, evicted) - evicted <
          100 * 1024 / 64 + 600); /* and not for much more than itself */
    CHECK_STATUS(look(cache, "large"), ASIDE_OK);
    finish(cache);
}

TEST(a_bucketful_of_places_is_made_for_one_entry_however_large)
{
    aside_cache *cache = open_with(0, 100);
    set_small(cache, 100, ASIDE_FOREVER);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, 100000, ASIDE_FOREVER), ASIDE_OK);
    CHECK(STAT(cache, evicted) >= 1 && STAT(cache, evicted) <= 20);
    CHECK_INT(aside_count(cache), 101 - STAT(cache, evicted));
    finish(cache);
}

TEST(what_can_never_fit_beside_the_index_costs_nobody_his_place)
{
    for (size_t size = 60000; size <= 65536; size += 64) {
        aside_cache *cache = open_with(65536, 0);
        set_small(cache, 50, ASIDE_FOREVER);
        aside_status status = aside_set(cache, ASIDE_STR("large"), bytes, size, ASIDE_FOREVER);
        if (status == ASIDE_OK) {
            CHECK_STATUS(look(cache, "large"), ASIDE_OK);
        } else {
            CHECK_STATUS(status, ASIDE_E_TOO_LARGE);
            CHECK_INT(aside_count(cache), 50);
        }
        finish(cache);
    }
}

TEST(a_size_that_is_no_size_is_too_large_for_every_cache)
{
    int object;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 100, SIZE_MAX - 1000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        aside_value *value = NULL;
        aside_cache *cache = open_with(0, 0);
        set_small(cache, 500, ASIDE_FOREVER);
        CHECK_STATUS(aside_value_wrap(&object, sizes[i], NULL, NULL, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("key"), value, ASIDE_FOREVER),
                     ASIDE_E_TOO_LARGE);
        CHECK_INT(aside_count(cache), 500);
        aside_value_unref(value);
        finish(cache);
    }
}

TEST(an_overwrite_by_a_larger_value_may_evict_but_not_fail)
{
    aside_cache *cache = open_with(128 << 10, 0);
    set_small(cache, 3000, ASIDE_FOREVER);
    for (size_t size = 1000; size < 60000; size += 3000) {
        CHECK_STATUS(aside_set(cache, ASIDE_STR("growing"), bytes, size, ASIDE_FOREVER), ASIDE_OK);
        CHECK_STATUS(look(cache, "growing"), ASIDE_OK);
        CHECK(STAT(cache, bytes) <= 128 << 10);
    }
    finish(cache);
}

/* ---- reaping ------------------------------------------------------------------------------------- */

/* Entries that are due in a moment are not looked at for ever. */
TEST_LIMIT(a_reap_ends_though_many_are_due_in_a_moment, 10)
{
    size_t reaped = 1;
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 300, 1);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 0);
    for (int i = 0; i < 10; i++) {
        fake_clock_advance_ns(&fake, 99999, NULL);
        CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
        CHECK_INT(reaped, 0);
    }
    fake_clock_advance_ns(&fake, 10, NULL);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 300);
    finish(cache);
}

TEST(a_budget_bounds_one_reap_and_the_next_goes_on)
{
    size_t reaped, all = 0;
    aside_cache *cache = open_with(0, 0);
    set_small(cache, 3000, 10);
    fake_clock_advance_ms(&fake, 10, NULL);
    for (int turn = 0; all < 3000; turn++) {
        CHECK(turn < 3000 / 100 + 64);
        CHECK_STATUS(aside_reap(cache, 100, &reaped), ASIDE_OK);
        CHECK(reaped <= 100);
        all += reaped;
        CHECK_INT(aside_count(cache), 3000 - all);
    }
    CHECK_INT(STAT(cache, expired), 3000);
    finish(cache);
}

TEST(reaping_ten_thousand_at_once_holds_no_lock_long)
{
    size_t reaped = 0;
    aside_cache *cache = open_with(0, 0);
    set_small(cache, 10000, 10);
    fake_clock_advance_ms(&fake, 10, NULL);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK); /* the debug build looks */
    CHECK_INT(reaped, 10000);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    finish(cache);
}

/* ---- clearing ------------------------------------------------------------------------------------ */

TEST(clearing_frees_entries_and_arrays_before_it_returns)
{
    aside_cache *cache = open_with(0, 0);
    CHECK_STATUS(aside_clear(cache),
                 ASIDE_OK); /* what an empty cache needs may be there from now on */
    uint64_t empty = STAT(cache, bytes);
    int64_t blocks = ledger.live_blocks;
    for (int round = 0; round < 3; round++) {
        set_small(cache, 10000, 1000);
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
        CHECK_INT(aside_count(cache), 0);
        CHECK_INT(STAT(cache, bytes), empty);
        CHECK_INT(STAT(cache, limbo_bytes), 0);
        CHECK_INT(ledger.live_blocks, blocks);
    }
    finish(cache);
}

TEST(what_a_reader_holds_of_a_cleared_cache_is_freed_by_the_next_reap)
{
    struct stalled reader;
    aside_cache *cache = open_with(0, 0);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    uint64_t empty = STAT(cache, bytes);
    int64_t blocks = ledger.live_blocks;
    set_small(cache, 1000, ASIDE_FOREVER);
    stalled_begin(&reader);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(STAT(cache, bytes), empty);
    CHECK(STAT(cache, limbo_bytes) > 64000);
    CHECK(ledger.live_blocks >= 1000);
    stalled_end(&reader);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    CHECK_INT(ledger.live_blocks, blocks);
    finish(cache);
}

TEST(arrays_that_growth_replaced_are_freed_on_the_way)
{
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 1500, ASIDE_FOREVER);
    for (int i = 0; i < 200; i++)
        CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), "v", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK(cache->store.shards[0].doomed == NULL);
    finish(cache);
}

/* ---- a reader that does not leave ---------------------------------------------------------------- */

static aside_status fetch_text(aside_fetch *fetch, void *arg)
{
    return aside_fetch_copy(fetch, arg, strlen(arg));
}

static aside_status fetch_give(aside_fetch *fetch, void *arg)
{
    return aside_fetch_give(fetch, arg);
}

/* Overwrites until limbo is full. */
static void fill_limbo(aside_cache *cache)
{
    aside_status status = ASIDE_OK;
    for (int i = 0; i < 10000 && status == ASIDE_OK; i++)
        status = aside_set(cache, ASIDE_STR("churned"), bytes, 2000, ASIDE_FOREVER);
    CHECK_STATUS(status, ASIDE_E_BUSY);
}

TEST(a_stalled_reader_makes_writes_busy_and_fetches_are_handed_over_all_the_same)
{
    static struct tally tally;
    static char text[] = "text";
    struct stalled reader;
    struct caller caller;
    aside_cache *cache = open_with(256 << 10, 0);
    put(cache, "old", "value", ASIDE_FOREVER);
    stalled_begin(&reader);
    fill_limbo(cache);
    CHECK(STAT(cache, limbo_bytes) < 64 << 10);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("old"), "new", 3, ASIDE_FOREVER), ASIDE_E_BUSY);
    CHECK(holds(cache, "old", "value")); /* nothing is lost */
    caller_init(&caller, cache, "fetched", fetch_text, text);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "text"));
    CHECK_INT(caller.result.ttl_left_ms, 0); /* not stored */
    CHECK_INT(caller.result.fenced, 0);
    CHECK_STATUS(look(cache, "fetched"), ASIDE_MISS);
    caller_drop(&caller);
    caller_init(&caller, cache, "given", fetch_give, tally_value(&tally, 10));
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(tally.freed, 0);
    caller_drop(&caller);
    CHECK_INT(tally.freed, 1);
    CHECK_INT(STAT(cache, store_refused), 2 + 2);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("old")), ASIDE_OK); /* removing always works */
    CHECK_STATUS(look(cache, "old"), ASIDE_MISS);
    stalled_end(&reader);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("old"), "new", 3, ASIDE_FOREVER), ASIDE_OK);
    caller_init(&caller, cache, "fetched", fetch_text, text);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.ttl_left_ms, ASIDE_FOREVER);
    caller_drop(&caller);
    CHECK(holds(cache, "fetched", "text"));
    finish(cache);
}

static void hold_open(const void *data, size_t size, void *ctx)
{
    aside_cache *cache = ctx;
    CHECK(size == 7 && memcmp(data, "visited", 7) == 0);
    for (int i = 0; i < 2000; i++) /* a visit is no reader inside the epoch */
        CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), bytes, 2000, ASIDE_FOREVER), ASIDE_OK);
    CHECK(memcmp(data, "visited", 7) == 0);
    CHECK(STAT(cache, pinned_bytes) > 0);
}

TEST(a_visit_of_any_length_holds_up_no_write)
{
    aside_cache *cache = open_with(256 << 10, 0);
    put(cache, "key", "visited", ASIDE_FOREVER);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("key"), hold_open, cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, pinned_bytes), 0);
    finish(cache);
}

/* ---- many at once -------------------------------------------------------------------------------- */

static _Atomic bool done;

static void *writer_main(void *arg)
{
    aside_cache *cache = arg;
    for (long i = test_rounds(3000); i > 0; i--) {
        uint32_t key = (uint32_t)random_below(3000);
        aside_status status = ASIDE_OK;
        switch (random_below(8)) {
        case 0: (void)aside_delete(cache, &key, sizeof key); break;
        case 1:
            status = aside_copy(cache, &key, sizeof key, bytes + 1000000, 0, NULL);
            CHECK(status == ASIDE_MISS || status == ASIDE_E_BUFFER || status == ASIDE_OK);
            break;
        case 2:
            if (key < 5)
                CHECK_STATUS(aside_clear(cache), ASIDE_OK);
            break;
        case 3:
            if (key < 300)
                CHECK_STATUS(aside_reap(cache, random_below(50), NULL), ASIDE_OK);
            break;
        default:
            status = aside_set(cache, &key, sizeof key, bytes, random_below(500),
                               (int64_t)random_below(200) + 1);
            CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        }
    }
    return NULL;
}

static void *watcher_main(void *arg)
{
    aside_cache *cache = arg;
    while (!atomic_load(&done)) {
        fake_clock_advance_ns(&fake, 100000, NULL);
        CHECK(STAT(cache, bytes) <= 512 << 10);
        CHECK(STAT(cache, entries) <= 400);
        test_yield();
    }
    return NULL;
}

TEST(bounds_hold_and_nothing_leaks_with_four_writers)
{
    pthread_t threads[4];
    aside_cache *cache = open_with(512 << 10, 400);
    perturb(test_seed() | 1);
    pthread_t watcher = thread_start(watcher_main, cache);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(writer_main, cache);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    atomic_store(&done, true);
    thread_join(watcher);
    perturb(0);
    CHECK(test_rounds(1000) < 1000 || STAT(cache, evicted) > 0);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, entries), 0);
    CHECK(STAT(cache, bytes) <= 1000); /* an empty table */
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    finish(cache);
}
