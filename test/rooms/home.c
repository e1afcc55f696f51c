/*
 * home.c -- base/home: an allocator and an account that outlive their cache for as long as handles
 * need them, also beyond the 255 homes that have a byte of their own.
 */
#include "rooms.h"

static struct ground ground;
static struct ledger ledger;
static struct mem mem;

static void begin(void)
{
    aside_alloc hooks = ledger_init(&ledger);
    CHECK(mem_init(&mem, &hooks));
}

TEST(a_home_goes_with_the_last_of_its_cache_and_its_pins)
{
    begin();
    struct home *home = home_open(&mem);
    CHECK(home != NULL);
    home_pin(home, 100);
    home_pin(home, 28);
    CHECK_INT(home->pinned_bytes, 128);
    home_close(home);
    CHECK_INT(ledger.live_blocks, 1);
    home_unpin(home, 100);
    CHECK_INT(home->pinned_bytes, 28);
    home_unpin(home, 28);
    CHECK_INT(ledger.live_blocks, 0);
    home = home_open(&mem);
    home_pin(home, 1);
    home_unpin(home, 1);
    CHECK_INT(ledger.live_blocks, 1);
    home_close(home);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_near_home_is_found_by_its_byte)
{
    struct home *homes[HOME_FAR + 5];
    begin();
    for (int i = 0; i < HOME_FAR + 5; i++) {
        homes[i] = home_open(&mem);
        CHECK(homes[i] != NULL);
        CHECK_INT(homes[i]->id, i < HOME_FAR ? i : HOME_FAR);
    }
    for (int i = 0; i < HOME_FAR; i++)
        CHECK(home_near((uint8_t)i) == homes[i]);
    home_close(homes[9]);
    CHECK(home_near(9) == NULL);
    homes[9] = home_open(&mem);
    CHECK_INT(homes[9]->id, 9); /* the lowest that is free, not the next */
    for (int i = 0; i < HOME_FAR + 5; i++)
        home_close(homes[i]);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(homes_that_come_and_go_use_no_more_names)
{
    begin();
    for (int i = 0; i < 1000; i++) {
        struct home *home = home_open(&mem);
        CHECK_INT(home->id, 0);
        home_close(home);
    }
}

TEST(a_byte_is_not_given_away_while_a_pinned_entry_needs_it)
{
    begin();
    struct home *first = home_open(&mem);
    home_pin(first, 8);
    home_close(first);
    struct home *second = home_open(&mem);
    CHECK(second->id != first->id);
    CHECK(home_near(first->id) == first);
    home_unpin(first, 8);
    home_close(second);
}

TEST(out_of_memory_opens_nothing_and_leaks_nothing)
{
    struct home *homes[12];
    int opened = 0;
    begin();
    ledger.fail_at = 1;
    CHECK(home_open(&mem) == NULL);
    CHECK_INT(ledger.live_blocks, 0);
    process_fail_alloc(1, true); /* the table of accounts, when it grows */
    while (opened < 12 && (homes[opened] = home_open(&mem)))
        opened++;
    CHECK(opened < 12);
    CHECK_INT(ledger.live_blocks, opened);
    process_fail_alloc(0, false);
    while (opened > 0)
        home_close(homes[--opened]);
    CHECK_INT(ledger.live_blocks, 0);
}

/* ---- far homes ----------------------------------------------------------------------------------- */

enum { CACHES = 300 };
static aside_cache *caches[CACHES];
static aside_value *handles[CACHES];

static void open_many(void)
{
    aside_options options = quiet_options();
    options.max_bytes = 64 << 10;
    options.alloc = ledger_init(&ledger);
    for (int i = 0; i < CACHES; i++)
        caches[i] = open_cache(&options);
}

static void text_of(int i, char text[32])
{
    snprintf(text, 32, "value %d", i);
}

TEST(more_than_255_caches_at_once_and_handles_that_outlive_them)
{
    char text[32];
    open_many();
    for (int i = 0; i < CACHES; i++) {
        text_of(i, text);
        put(caches[i], "key", text, ASIDE_FOREVER);
        put(caches[i], "other", "x", ASIDE_FOREVER);
        CHECK_STATUS(aside_get(caches[i], ASIDE_STR("key"), &handles[i]), ASIDE_OK);
    }
    for (int i = 0; i < CACHES; i++) {
        text_of(i, text);
        CHECK(holds(caches[i], "key", text));
        CHECK_STATUS(aside_delete(caches[i], ASIDE_STR("key")), ASIDE_OK);
        CHECK_STATUS(aside_reap(caches[i], 0, NULL), ASIDE_OK);
        CHECK(STAT(caches[i], pinned_bytes) > 0);
        CHECK_INT(STAT(caches[i], sets), 2);
        CHECK_INT(STAT(caches[i], hits), 2);
    }
    for (int i = 0; i < CACHES; i++)
        end_cache(caches[i]);
    CHECK_INT(ledger.live_blocks, 2 * CACHES); /* each a home and an entry */
    for (int i = 0; i < CACHES; i++) {
        text_of(i, text);
        CHECK(value_is(handles[i], text));
        aside_value_unref(handles[i]);
    }
    CHECK_INT(ledger.live_blocks, 0);
}

static void *unref_main(void *arg)
{
    (void)arg;
    for (int i = 0; i < CACHES; i++)
        aside_value_unref(handles[i]);
    return NULL;
}

TEST(a_far_handle_may_be_given_back_by_a_thread_that_knows_no_cache)
{
    open_many();
    for (int i = 0; i < CACHES; i++) {
        put(caches[i], "key", "v", ASIDE_FOREVER);
        CHECK_STATUS(aside_get(caches[i], ASIDE_STR("key"), &handles[i]), ASIDE_OK);
        end_cache(caches[i]);
        caches[i] = NULL;
    }
    thread_join(thread_start(unref_main, NULL));
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(an_entry_of_a_far_home_is_aligned_and_charged_with_its_prefix)
{
    struct home *homes[HOME_FAR];
    begin();
    for (int i = 0; i < HOME_FAR; i++)
        homes[i] = home_open(&mem);
    ground_init(&ground, 0, 0);
    CHECK_INT(ground.home->id, HOME_FAR);
    struct entry *near = entry_new(homes[3], "key", 3, 40),
                 *far = entry_new(ground.home, "key", 3, 40);
    CHECK_INT((uintptr_t)far % 16, 0);
    CHECK(entry_charge(far) > entry_charge(near));
    CHECK((int64_t)entry_charge(far) >= ground.ledger.live_bytes - (int64_t)sizeof(struct home));
    entry_discard(near);
    entry_discard(far);
    ground_fini(&ground);
    for (int i = 0; i < HOME_FAR; i++)
        home_close(homes[i]);
    CHECK_INT(ledger.live_blocks, 0);
}
