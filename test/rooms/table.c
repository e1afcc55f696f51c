/*
 * table.c -- base/table: what is added is found until it is removed, by key bytes and never by hash
 * alone; memory that is short is an answer at every allocation (P5).
 */
#include "rooms.h"

#include "base/table.h"

enum { ITEMS = 200 };

struct item {
    struct table_node node;
    char key[16];
    uint32_t key_len;
    uint64_t hash;
    bool in;
};

static struct item items[ITEMS];
static struct ledger ledger;
static struct mem mem;
static struct table table;

static void begin(void)
{
    aside_alloc hooks = ledger_init(&ledger);
    CHECK(mem_init(&mem, &hooks));
    table_init(&table, &mem);
    memset(items, 0, sizeof items);
    for (int i = 0; i < ITEMS; i++) {
        items[i].key_len = (uint32_t)snprintf(items[i].key, sizeof items[i].key, "key %d", i);
        items[i].hash = (uint64_t)(i + 1) * UINT64_C(0x9e3779b97f4a7c15); /* the same each time */
    }
}

static struct item *find(const struct item *wanted)
{
    struct table_node *node = table_find(&table, wanted->key, wanted->key_len, wanted->hash);
    return node ? container_of(node, struct item, node) : NULL;
}

static bool add(struct item *item)
{
    item->in = table_add(&table, &item->node, item->key, item->key_len, item->hash);
    return item->in;
}

static void drop(struct item *item)
{
    table_remove(&table, &item->node);
    item->in = false;
}

static void check_all(void)
{
    size_t in = 0;
    for (int i = 0; i < ITEMS; i++) {
        CHECK(find(&items[i]) == (items[i].in ? &items[i] : NULL));
        in += items[i].in;
    }
    CHECK_INT(table_count(&table), in);
}

static void end(void)
{
    for (int i = 0; i < ITEMS; i++)
        if (items[i].in)
            drop(&items[i]);
    CHECK_INT(table_count(&table), 0);
    table_fini(&table);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(an_empty_table_holds_nothing_and_allocates_nothing)
{
    begin();
    CHECK_INT(table_count(&table), 0);
    CHECK(find(&items[0]) == NULL);
    CHECK_INT(ledger.calls, 0);
    end();
}

TEST(random_adds_and_removes_agree_with_a_list)
{
    begin();
    for (long round = test_rounds(20000); round > 0; round--) {
        struct item *item = &items[random_below(ITEMS)];
        if (item->in)
            drop(item);
        else
            CHECK(add(item));
        CHECK(find(item) == (item->in ? item : NULL));
        if (round % 512 == 0)
            check_all();
    }
    check_all();
    end();
}

TEST(keys_with_one_hash_are_told_apart)
{
    begin();
    for (int i = 0; i < ITEMS; i++) {
        items[i].hash = UINT64_C(0xdeadbeefcafef00d);
        CHECK(add(&items[i]));
    }
    check_all();
    for (int i = 0; i < ITEMS; i += 3)
        drop(&items[i]);
    check_all();
    end();
}

TEST(the_length_is_part_of_a_key)
{
    begin();
    items[0].hash = items[1].hash = 77;
    memcpy(items[0].key, "abcdef", 6);
    memcpy(items[1].key, "abcdef", 6);
    items[0].key_len = 3;
    items[1].key_len = 6;
    CHECK(add(&items[0]));
    CHECK(find(&items[1]) == NULL);
    CHECK(add(&items[1]));
    CHECK(find(&items[0]) == &items[0]);
    CHECK(find(&items[1]) == &items[1]);
    end();
}

TEST(the_empty_key_is_not_the_resident)
{
    begin();
    items[0].key_len = 0;
    items[0].hash = 0; /* which is the resident's */
    CHECK(find(&items[0]) == NULL);
    CHECK(add(&items[1]));
    CHECK(find(&items[0]) == NULL);
    CHECK(table_find(&table, NULL, 0, 0) == NULL);
    CHECK(add(&items[0]));
    CHECK(find(&items[0]) == &items[0]);
    CHECK(table_find(&table, NULL, 0, 0) == &items[0].node);
    drop(&items[0]);
    CHECK(find(&items[0]) == NULL);
    CHECK_INT(table_count(&table), 1);
    end();
}

TEST(the_longest_key_and_zero_bytes)
{
    static char longest[ASIDE_MAX_KEY];
    struct table_node node;
    begin();
    memset(longest, 'x', sizeof longest);
    longest[100] = 0;
    CHECK(table_add(&table, &node, longest, sizeof longest, 5));
    CHECK(table_find(&table, longest, sizeof longest, 5) == &node);
    CHECK(table_find(&table, longest, sizeof longest - 1, 5) == NULL);
    table_remove(&table, &node);
    end();
}

TEST(the_last_removal_frees_nothing_and_the_next_add_allocates_nothing)
{
    begin();
    CHECK(add(&items[0]));
    drop(&items[0]);
    int64_t calls = ledger.calls, blocks = ledger.live_blocks;
    for (int i = 0; i < 1000; i++) {
        CHECK(add(&items[i % ITEMS]));
        drop(&items[i % ITEMS]);
    }
    CHECK_INT(ledger.calls, calls);
    CHECK_INT(ledger.live_blocks, blocks);
    end();
}

/* All the items are added with one failing allocation, or with none left from then on. */
static bool add_all_failing(int64_t nth, bool for_ever)
{
    bool failed = false;
    begin();
    ledger.fail_for_ever = for_ever;
    ledger.fail_at = nth;
    for (int i = 0; i < ITEMS; i++)
        failed = !add(&items[i]) || failed;
    check_all();
    ledger.fail_at = 0;
    for (int i = 0; i < ITEMS; i++)
        if (!items[i].in)
            CHECK(add(&items[i]));
    check_all();
    CHECK_INT(table_count(&table), ITEMS);
    end();
    return failed;
}

TEST(out_of_memory_at_each_allocation_is_an_answer)
{
    begin();
    for (int i = 0; i < ITEMS; i++)
        CHECK(add(&items[i]));
    int64_t calls = ledger.calls;
    end();
    CHECK(calls >= 3);
    for (int64_t nth = 1; nth <= calls; nth++) {
        add_all_failing(nth, false);
        add_all_failing(nth, true);
    }
    CHECK(add_all_failing(1, true));
    CHECK(add_all_failing(2, false));
    CHECK(!add_all_failing(calls + 1, true));
}

/* ---- growth: uthash doubles its 32 buckets when one of them gets a tenth node -------------------- */

/* A hash of that bucket of the first 32; an odd `turn` leaves it when they are doubled. */
static uint64_t hash_in(unsigned bucket, unsigned turn)
{
    return (uint64_t)(bucket + 32 * (turn % 2)) << 16;
}

/* The tenth node of a bucket comes when there are that many others. */
static void check_growth(int others, bool spread)
{
    begin();
    for (int i = 0; i < others; i++) {
        items[i].hash = hash_in(6 + (unsigned)i % 20, (unsigned)i / 20);
        CHECK(add(&items[i]));
    }
    int64_t calls = ledger.calls, blocks = ledger.live_blocks;
    for (unsigned i = 0; i < 10; i++) {
        CHECK_INT(ledger.calls, calls);
        items[others + (int)i].hash = hash_in(5, spread ? i : 0);
        CHECK(add(&items[others + (int)i]));
    }
    CHECK_INT(ledger.calls, calls + 1);
    CHECK_INT(ledger.live_blocks, blocks);
    check_all();
    end();
}

TEST(a_growth_loses_no_node_however_they_are_spread)
{
    check_growth(1, false);
    check_growth(60, false); /* one long chain among short ones */
    check_growth(53, true);  /* 64 nodes with the resident: one for each new bucket */
    check_growth(100, true);
}

TEST(a_growth_without_memory_adds_nothing)
{
    begin();
    for (int i = 0; i < 9; i++) {
        items[i].hash = hash_in(5, 0);
        CHECK(add(&items[i]));
    }
    items[9].hash = hash_in(5, 0);
    ledger.fail_at = 1;
    CHECK(!add(&items[9]));
    CHECK_INT(ledger.fail_at, 0);
    check_all();
    drop(&items[8]); /* the neighbour in its chain */
    check_all();
    CHECK(add(&items[9]));
    CHECK(add(&items[8]));
    check_all();
    end();
}

TEST(after_two_growths_that_did_not_help_there_is_no_third)
{
    enum { CROWD = 1100 };
    static struct item crowd[CROWD];
    int64_t calls = 0;
    begin();
    for (int i = 0; i < CROWD; i++) {
        crowd[i].key_len = (uint32_t)snprintf(crowd[i].key, sizeof crowd[i].key, "key %d", i);
        crowd[i].hash = UINT64_C(0xdeadbeefcafef00d);
        CHECK(add(&crowd[i]));
        if (i == 9)
            calls = ledger.calls;
    }
    CHECK_INT(ledger.calls, calls + 1); /* at the tenth and the hundredth, and then no more */
    CHECK_INT(table_count(&table), CROWD);
    for (int i = 0; i < CROWD; i += 7)
        CHECK(find(&crowd[i]) == &crowd[i]);
    for (int i = 0; i < CROWD; i++)
        drop(&crowd[i]);
    end();
}
