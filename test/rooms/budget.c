/*
 * budget.c -- store/budget: reserved before it is used, refused when it does not fit, and never above
 * the bound, not for an instant (B1).
 */
#include "rooms.h"

static struct budget budget;

static void check_used(size_t bytes, size_t entries)
{
    CHECK(budget.bytes == bytes);
    CHECK(budget.entries == entries);
}

TEST(what_fits_is_reserved_to_the_last_byte)
{
    budget_init(&budget, 100, 3);
    CHECK(budget_reserve(&budget, 60, 1));
    CHECK(!budget_reserve(&budget, 41, 1));
    check_used(60, 1);
    CHECK(budget_reserve(&budget, 40, 1));
    check_used(100, 2);
    CHECK(!budget_reserve(&budget, 1, 0));
    CHECK(budget_reserve(&budget, 0, 1));
    CHECK(!budget_reserve(&budget, 0, 1));
    budget_refund(&budget, 100, 3);
    check_used(0, 0);
}

TEST(when_one_does_not_fit_neither_is_reserved)
{
    budget_init(&budget, 100, 1);
    CHECK(budget_reserve(&budget, 10, 1));
    CHECK(!budget_reserve(&budget, 10, 1));
    check_used(10, 1);
    CHECK(!budget_reserve(&budget, 91, 0));
    check_used(10, 1);
}

TEST(zero_means_no_bound_and_sums_do_not_wrap)
{
    budget_init(&budget, 0, 0);
    size_t most = budget.max_bytes, most_entries = budget.max_entries;
    CHECK(most >= SIZE_MAX / 2 && most_entries >= SIZE_MAX / 2);
    CHECK(budget_reserve(&budget, most - 5, 1000000));
    CHECK(!budget_reserve(&budget, 6, 0));
    CHECK(!budget_reserve(&budget, SIZE_MAX, 0));
    CHECK(budget_reserve(&budget, 5, most_entries - 1000000));
    CHECK(!budget_reserve(&budget, 1, 0));
    CHECK(!budget_reserve(&budget, 0, 1));
    CHECK(!budget_reserve(&budget, SIZE_MAX, SIZE_MAX));
    check_used(most, most_entries);
}

enum { MAX_BYTES = 1000, MAX_ENTRIES = 20 };
static _Atomic bool done;

static void *spender_main(void *arg)
{
    struct {
        size_t bytes, entries;
    } held[8] = {{0, 0}};
    _Atomic long *reserved = arg;
    for (long i = test_rounds(20000); i > 0; i--) {
        size_t at = random_below(COUNT_OF(held));
        budget_refund(&budget, held[at].bytes, held[at].entries);
        held[at].bytes = random_below(400);
        held[at].entries = random_below(4);
        if (budget_reserve(&budget, held[at].bytes, held[at].entries))
            atomic_fetch_add(reserved, 1);
        else
            held[at].bytes = held[at].entries = 0;
    }
    for (size_t i = 0; i < COUNT_OF(held); i++)
        budget_refund(&budget, held[i].bytes, held[i].entries);
    return NULL;
}

static void *watcher_main(void *arg)
{
    (void)arg;
    while (!atomic_load(&done)) {
        CHECK(budget.bytes <= MAX_BYTES);
        CHECK(budget.entries <= MAX_ENTRIES);
    }
    return NULL;
}

TEST(never_above_the_bound_with_four_threads)
{
    pthread_t threads[4];
    _Atomic long reserved = 0;
    budget_init(&budget, MAX_BYTES, MAX_ENTRIES);
    perturb(test_seed() | 1);
    pthread_t watcher = thread_start(watcher_main, NULL);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(spender_main, &reserved);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    atomic_store(&done, true);
    thread_join(watcher);
    perturb(0);
    check_used(0, 0);
    CHECK(reserved > 0);
}

TEST(what_is_counted_anew_replaces_what_was_reserved)
{
    budget_init(&budget, 1000, 10);
    CHECK(budget_reserve(&budget, 900, 9) && budget_reserve_lasting(&budget, 100));
    CHECK(!budget_reserve(&budget, 1, 0));
    budget_recount(&budget, 300, 50, 2);
    CHECK(budget_could_have(&budget, 950) && !budget_could_have(&budget, 951));
    CHECK(budget_has(&budget, &(struct budget_room){650, 8}));
    CHECK(!budget_has(&budget, &(struct budget_room){651, 0}));
    CHECK(!budget_has(&budget, &(struct budget_room){0, 9}));
}
