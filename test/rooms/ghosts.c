/*
 * ghosts.c -- store/ghosts: who was evicted of late is known, once; the oldest are forgotten first,
 * and no more are remembered than are to be.
 */
#include "rooms.h"

#include "store/ghosts.h"

enum { SETS = 32, ROOM = SETS * GHOSTS_SET };

static _Alignas(64) uint32_t prints[ROOM];
static struct ghosts ghosts;

static void begin(size_t count)
{
    memset(prints, 0, sizeof prints);
    ghosts_init(&ghosts, prints, count);
}

static size_t remembered(void)
{
    size_t count = 0;
    for (size_t i = 0; i < ROOM; i++)
        count += prints[i] != 0;
    return count;
}

TEST(a_ghost_is_known_once)
{
    begin(ROOM);
    CHECK(!ghosts_take(&ghosts, 5));
    ghosts_add(&ghosts, 5, ROOM);
    ghosts_add(&ghosts, 6, ROOM);
    CHECK(!ghosts_take(&ghosts, 7));
    CHECK(ghosts_take(&ghosts, 5));
    CHECK(!ghosts_take(&ghosts, 5));
    CHECK(ghosts_take(&ghosts, 6));
    CHECK(!ghosts_take(&ghosts, 6));
    CHECK_INT(remembered(), 0);
}

TEST(every_print_can_be_remembered)
{
    static const uint32_t odd[] = {0, 1, 2, UINT32_MAX, UINT32_MAX >> 2};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        begin(GHOSTS_SET);
        CHECK(!ghosts_take(&ghosts, odd[i]));
        ghosts_add(&ghosts, odd[i], ROOM);
        CHECK(ghosts_take(&ghosts, odd[i]));
        CHECK(!ghosts_take(&ghosts, odd[i]));
    }
}

/* One set, so that all are of it. */
TEST(the_oldest_of_a_set_goes_when_another_comes)
{
    begin(GHOSTS_SET);
    for (uint32_t i = 1; i <= GHOSTS_SET + 3; i++)
        ghosts_add(&ghosts, i, ROOM);
    for (uint32_t i = 1; i <= GHOSTS_SET + 3; i++)
        CHECK(ghosts_take(&ghosts, i) == (i > 3));
}

TEST(who_is_taken_leaves_the_others_their_order)
{
    begin(GHOSTS_SET);
    for (uint32_t i = 1; i <= GHOSTS_SET; i++)
        ghosts_add(&ghosts, i, ROOM);
    CHECK(ghosts_take(&ghosts, 1)); /* the oldest, the latest, and one between */
    CHECK(ghosts_take(&ghosts, GHOSTS_SET));
    CHECK(ghosts_take(&ghosts, 7));
    CHECK_INT(remembered(), GHOSTS_SET - 3);
    for (uint32_t i = 101; i <= 105; i++)
        ghosts_add(&ghosts, i, ROOM); /* for which two had to go */
    for (uint32_t i = 2; i < GHOSTS_SET; i++)
        CHECK(ghosts_take(&ghosts, i) == (i > 3 && i != 7));
    for (uint32_t i = 101; i <= 105; i++)
        CHECK(ghosts_take(&ghosts, i));
    CHECK_INT(remembered(), 0);
}

TEST(each_set_forgets_for_itself)
{
    begin(ROOM);
    for (uint32_t i = 0; i < 4 * ROOM; i++)
        ghosts_add(&ghosts, 1000 + i, ROOM);
    CHECK_INT(remembered(), ROOM);
    size_t known = 0; /* of the last half of what there is room for */
    for (uint32_t i = 4 * ROOM - ROOM / 2; i < 4 * ROOM; i++)
        known += ghosts_take(&ghosts, 1000 + i);
    CHECK(known > ROOM / 2 * 9 / 10);
    for (uint32_t i = 0; i < ROOM; i++)
        CHECK(!ghosts_take(&ghosts, 1000 + i));
}

/* A set's share, rounded up. */
TEST(no_more_are_remembered_than_are_to_be)
{
    static const size_t mosts[] = {0, 1, SETS - 1, SETS, 100, 200, ROOM - SETS, ROOM, SIZE_MAX};
    for (size_t m = 0; m < COUNT_OF(mosts); m++) {
        size_t most = mosts[m], bound = most < ROOM - SETS ? most / SETS * SETS + SETS : ROOM;
        begin(ROOM);
        for (int i = 0; i < 20 * ROOM; i++) {
            ghosts_add(&ghosts, (uint32_t)test_random() >> 2, most);
            CHECK(remembered() <= bound);
        }
        CHECK_INT(remembered(), bound);
    }
}

TEST(when_fewer_are_to_be_remembered_the_oldest_are_forgotten)
{
    begin(GHOSTS_SET);
    for (uint32_t i = 1; i <= GHOSTS_SET; i++)
        ghosts_add(&ghosts, i, GHOSTS_SET);
    ghosts_add(&ghosts, 100, 4); /* and this one is the fifth */
    CHECK_INT(remembered(), 5);
    CHECK(ghosts_take(&ghosts, 100));
    for (uint32_t i = 1; i <= GHOSTS_SET; i++)
        CHECK(ghosts_take(&ghosts, i) == (i > GHOSTS_SET - 4));
}

TEST(without_prints_nothing_is_remembered)
{
    ghosts_init(&ghosts, NULL, 0);
    ghosts_add(&ghosts, 5, 100);
    CHECK(!ghosts_take(&ghosts, 5));
    CHECK(!ghosts_take(&ghosts, 0));
}
