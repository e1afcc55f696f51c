/*
 * limbo.c -- store/limbo: open, waiting, ripe, visited; step by step, with the bytes told right at
 * every one of them.
 */
#include "rooms.h"

#include "store/limbo.h"

static struct ground ground;
static struct limbo limbo;
static size_t charge; /* of every entry here */

static void begin(void)
{
    ground_init(&ground, 0, 0);
    limbo_init(&limbo);
    CHECK(limbo_empty(&limbo));
}

static struct entry *make(void)
{
    static uint32_t number;
    number++;
    struct entry *entry = entry_make(ground.home, &number, sizeof number, 100, 1, 2);
    charge = entry_charge(entry);
    return entry;
}

static void check_counts(size_t open, size_t waiting, size_t ripe, size_t visited)
{
    CHECK_INT(limbo.open.count, open);
    CHECK_INT(limbo.waiting.count, waiting);
    CHECK_INT(limbo.ripe.count, ripe);
    CHECK_INT(limbo.visited.count, visited);
    CHECK_INT(limbo.bytes, (open + waiting + ripe) * charge);
    CHECK_INT(limbo.visited_bytes, visited * charge);
    CHECK_INT(limbo_empty(&limbo), open + waiting + ripe + visited == 0);
}

static void drop_all(void)
{
    struct entry *entries[8];
    unsigned count;
    do {
        limbo_step(&limbo, true);
        count = limbo_take(&limbo, entries, 8);
        for (unsigned i = 0; i < count; i++)
            entry_drop(entries[i]);
    } while (count);
}

static void end(void)
{
    drop_all();
    check_counts(0, 0, 0, 0);
    ground_fini(&ground);
}

TEST(a_step_without_need_does_nothing)
{
    begin();
    for (int i = 0; i < LIMBO_BATCH - 1; i++) {
        limbo_add(&limbo, make());
        limbo_step(&limbo, false);
        check_counts((size_t)i + 1, 0, 0, 0);
    }
    limbo_add(&limbo, make());
    limbo_step(&limbo, false);
    check_counts(0, 0, LIMBO_BATCH, 0);
    end();
}

TEST(pressed_without_readers_all_becomes_ripe)
{
    begin();
    limbo_add(&limbo, make());
    limbo_step(&limbo, true);
    check_counts(0, 0, 1, 0);
    end();
}

TEST(a_reader_inside_keeps_what_was_unlinked)
{
    struct stalled reader;
    struct entry *entries[4];
    begin();
    stalled_begin(&reader);
    limbo_add(&limbo, make());
    for (int i = 0; i < 10; i++) {
        limbo_step(&limbo, true);
        check_counts(0, 1, 0, 0);
        CHECK_INT(limbo_take(&limbo, entries, 4), 0);
    }
    stalled_end(&reader);
    limbo_step(&limbo, true);
    check_counts(0, 0, 1, 0);
    end();
}

TEST(what_comes_while_a_batch_waits_gets_the_next_tag)
{
    struct stalled early, late;
    begin();
    stalled_begin(&early);
    struct entry *first = make(), *second = make();
    limbo_add(&limbo, first);
    limbo_step(&limbo, true);
    check_counts(0, 1, 0, 0);
    uint64_t tag = limbo.tag;
    limbo_add(&limbo, second);
    limbo_step(&limbo, true);
    check_counts(1, 1, 0, 0); /* still open */
    CHECK_INT(limbo.tag, tag);
    stalled_end(&early);
    stalled_begin(&late); /* may have seen the second, not the first */
    limbo_step(&limbo, true);
    check_counts(0, 1, 1, 0);
    CHECK(limbo.ripe.first == &entry_cold(first)->link);
    CHECK(limbo.waiting.first == &entry_cold(second)->link);
    CHECK(limbo.tag > tag);
    for (int i = 0; i < 5; i++)
        limbo_step(&limbo, true);
    check_counts(0, 1, 1, 0);
    stalled_end(&late);
    limbo_step(&limbo, true);
    check_counts(0, 0, 2, 0);
    end();
}

TEST(entries_are_handed_out_in_order_and_no_more_than_asked_for)
{
    struct entry *made[10], *got[10];
    begin();
    for (int i = 0; i < 10; i++)
        limbo_add(&limbo, made[i] = make());
    limbo_step(&limbo, true);
    CHECK_INT(limbo_take(&limbo, got, 4), 4);
    check_counts(0, 0, 6, 0);
    CHECK_INT(limbo_take(&limbo, got + 4, 4), 4);
    CHECK_INT(limbo_take(&limbo, got + 8, 4), 2);
    check_counts(0, 0, 0, 0);
    CHECK_INT(limbo_take(&limbo, got, 4), 0);
    for (int i = 0; i < 10; i++) {
        CHECK(got[i] == made[i]);
        entry_drop(got[i]);
    }
    end();
}

TEST(an_entry_that_a_visit_names_goes_aside_until_the_visit_is_over)
{
    struct entry *entries[4];
    struct thread_record *self = thread_self();
    begin();
    struct entry *named = make(), *other = make();
    limbo_add(&limbo, named);
    limbo_add(&limbo, other);
    store_release(&self->visiting[3], named);
    limbo_step(&limbo, true);
    check_counts(0, 0, 2, 0);
    CHECK_INT(limbo_take(&limbo, entries, 4), 1);
    CHECK(entries[0] == other);
    check_counts(0, 0, 0, 1); /* counted apart from what the grace period keeps */
    for (int i = 0; i < 5; i++) {
        limbo_step(&limbo, true);
        CHECK_INT(limbo_take(&limbo, entries, 4), 0);
        check_counts(0, 0, 0, 1);
    }
    store_release(&self->visiting[3], NULL);
    CHECK_INT(limbo_take(&limbo, entries + 1, 1), 1);
    CHECK(entries[1] == named);
    check_counts(0, 0, 0, 0);
    entry_drop(named);
    entry_drop(other);
    end();
}

TEST(a_long_visit_does_not_hold_up_the_others)
{
    struct entry *named[3], *got[4];
    struct thread_record *self = thread_self();
    begin();
    for (int i = 0; i < 3; i++) {
        limbo_add(&limbo, named[i] = make());
        store_release(&self->visiting[i], named[i]);
    }
    limbo_step(&limbo, true);
    CHECK_INT(limbo_take(&limbo, got, 4), 0);
    check_counts(0, 0, 0, 3);
    for (int i = 0; i < 50; i++) {
        limbo_add(&limbo, make());
        limbo_step(&limbo, true);
        CHECK_INT(limbo_take(&limbo, got, 4), 1);
        entry_drop(got[0]);
        check_counts(0, 0, 0, 3);
    }
    store_release(&self->visiting[1], NULL); /* the one in the middle of the list */
    unsigned count = 0;
    for (int i = 0; i < 3 && count == 0; i++)
        count = limbo_take(&limbo, got, 4);
    CHECK_INT(count, 1);
    CHECK(got[0] == named[1]);
    entry_drop(got[0]);
    check_counts(0, 0, 0, 2);
    store_release(&self->visiting[0], NULL);
    store_release(&self->visiting[2], NULL);
    end();
}
