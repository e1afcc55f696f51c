/*
 * policy.c -- store/policy: the heat of an entry, and that what is asked for stays while what is not
 * asked for goes.
 */
#include "rooms.h"

#include "store/policy.h"

static struct entry entry;

static unsigned heat(void)
{
    return atomic_load(&entry.head.marks) & ENTRY_HEAT;
}

TEST(heat_rises_to_three_and_no_further)
{
    static const unsigned expected[] = {1, 2, 3, 3, 3};
    atomic_store(&entry.head.marks, 0);
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        policy_hit(&entry);
        CHECK_INT(heat(), expected[i]);
    }
}

TEST(the_hand_cools_and_condemns_what_is_cold)
{
    atomic_store(&entry.head.marks, 0);
    CHECK(policy_condemns(&entry)); /* never hit */
    for (int hits = 1; hits <= 5; hits++) {
        for (int i = 0; i < hits; i++)
            policy_hit(&entry);
        for (int i = 0; i < (hits < 3 ? hits : 3); i++)
            CHECK(!policy_condemns(&entry));
        CHECK(policy_condemns(&entry));
        CHECK_INT(heat(), 0);
    }
}

TEST(the_other_marks_stay_as_they_are)
{
    atomic_store(&entry.head.marks, ENTRY_WRAPS);
    for (int i = 0; i < 10; i++) {
        policy_hit(&entry);
        CHECK_INT(atomic_load(&entry.head.marks) & ~(unsigned)ENTRY_HEAT, ENTRY_WRAPS);
    }
    while (!policy_condemns(&entry))
        CHECK_INT(atomic_load(&entry.head.marks) & ~(unsigned)ENTRY_HEAT, ENTRY_WRAPS);
    CHECK_INT(atomic_load(&entry.head.marks), ENTRY_WRAPS);
}

/* ---- through the cache --------------------------------------------------------------------------- */

enum { HOT = 50, CAPACITY = 500 };

static aside_cache *open_small(void)
{
    aside_options options = quiet_options();
    options.max_bytes = 0;
    options.max_entries = CAPACITY;
    return open_cache(&options);
}

static int read_hot(aside_cache *cache)
{
    int found = 0;
    for (uint32_t i = 0; i < HOT; i++)
        found += aside_copy(cache, &i, sizeof i, NULL, 0, NULL) == ASIDE_OK;
    return found;
}

TEST(hot_keys_survive_ten_times_as_many_cold_ones)
{
    aside_cache *cache = open_small();
    for (uint32_t i = 0; i < HOT; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    for (uint32_t i = HOT; i < 10 * CAPACITY; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
        if (i % 20 == 0)
            read_hot(cache);
    }
    CHECK_INT(read_hot(cache), HOT);
    CHECK(STAT(cache, evicted) >= 9 * CAPACITY);
    end_cache(cache);
}

TEST(what_was_hot_and_is_not_asked_for_any_more_goes)
{
    aside_cache *cache = open_small();
    for (uint32_t i = 0; i < HOT; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    for (int i = 0; i < 5; i++)
        read_hot(cache);
    for (uint32_t i = HOT; i < 20 * CAPACITY; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    CHECK(read_hot(cache) <= HOT / 10);
    end_cache(cache);
}

TEST(when_all_are_hot_something_goes_all_the_same)
{
    aside_cache *cache = open_small();
    for (uint32_t i = 0; i < CAPACITY; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    for (int turn = 0; turn < 4; turn++)
        for (uint32_t i = 0; i < CAPACITY; i++)
            CHECK_STATUS(aside_copy(cache, &i, sizeof i, NULL, 0, NULL), ASIDE_OK);
    for (uint32_t i = CAPACITY; i < CAPACITY + 10; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
        CHECK(aside_count(cache) <= CAPACITY);
    }
    end_cache(cache);
}
