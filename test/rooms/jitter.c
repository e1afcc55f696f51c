/*
 * jitter.c -- freshness/jitter and base/dice by themselves: the bounds of every kind at the edges of
 * its numbers, evenness, and that two who had the same dice part.
 */
#include "rooms.h"

#include "base/dice.h"
#include "freshness/jitter.h"

static int64_t spread(int kind, int64_t amount, int64_t ttl_ms, uint64_t draw)
{
    aside_jitter jitter = {kind, amount};
    CHECK(jitter_is(&jitter));
    return jitter_ttl_ms(&jitter, ttl_ms, draw);
}

TEST(both_ends_of_every_range_can_be_drawn)
{
    /* A draw counts by its remainder: so these are the least and the most of each. */
    CHECK_INT(spread(ASIDE_JITTER_ADD, 10, 100, 0), 100);
    CHECK_INT(spread(ASIDE_JITTER_ADD, 10, 100, 10), 110);
    CHECK_INT(spread(ASIDE_JITTER_ADD, 10, 100, 11), 100);
    CHECK_INT(spread(ASIDE_JITTER_EQUAL, 10, 100, 0), 95);
    CHECK_INT(spread(ASIDE_JITTER_EQUAL, 10, 100, 10), 105);
    CHECK_INT(spread(ASIDE_JITTER_EQUAL, 11, 100, 0), 95);
    CHECK_INT(spread(ASIDE_JITTER_EQUAL, 11, 100, 11), 106);
    CHECK_INT(spread(ASIDE_JITTER_FULL, 10, 100, 0), 10);
    CHECK_INT(spread(ASIDE_JITTER_FULL, 10, 100, 90), 100);
    CHECK_INT(spread(ASIDE_JITTER_FULL, 100, 100, 5), 100);
    CHECK_INT(spread(ASIDE_JITTER_PERCENT, 10, 250, 0), 225);
    CHECK_INT(spread(ASIDE_JITTER_PERCENT, 10, 250, 50), 275);
}

TEST(nothing_overflows_at_the_largest_numbers)
{
    static const int64_t large[] = {INT64_MAX, INT64_MAX - 1, INT64_MAX / 2, INT64_MAX / 2 + 1};
    static const uint64_t draws[] = {0, 1, INT64_MAX, UINT64_MAX, (uint64_t)1 << 63};
    static const int kinds[] = {ASIDE_JITTER_NONE, ASIDE_JITTER_ADD, ASIDE_JITTER_EQUAL,
                                ASIDE_JITTER_FULL, ASIDE_JITTER_PERCENT};
    for (size_t k = 0; k < COUNT_OF(kinds); k++)
        for (size_t a = 0; a < COUNT_OF(large); a++)
            for (size_t t = 0; t < COUNT_OF(large); t++)
                for (size_t d = 0; d < COUNT_OF(draws); d++) {
                    bool percent = kinds[k] == ASIDE_JITTER_PERCENT;
                    int64_t got =
                        spread(kinds[k], percent ? (int64_t)a * 33 : large[a], large[t], draws[d]);
                    CHECK(got >= 1);
                    CHECK((got == ASIDE_FOREVER) == (large[t] == ASIDE_FOREVER));
                }
}

TEST(a_ttl_of_1_ms_stays_one)
{
    for (uint64_t draw = 0; draw < 200; draw++) {
        CHECK_INT(spread(ASIDE_JITTER_FULL, 0, 1, draw), 1);
        CHECK_INT(spread(ASIDE_JITTER_PERCENT, 100, 1, draw % 2), 1);
        CHECK(spread(ASIDE_JITTER_EQUAL, 100, 1, draw) >= 1);
    }
}

/* Eight standard deviations: once in 10^14 by chance. */
TEST(draws_are_even)
{
    enum { CELLS = 64, DRAWS = 64000 };
    struct dice dice;
    double chi = 0, mean = (double)DRAWS / CELLS;
    uint32_t counts[CELLS] = {0};
    dice_init(&dice, test_seed());
    for (int i = 0; i < DRAWS; i++)
        counts[spread(ASIDE_JITTER_ADD, CELLS - 1, 1, dice_roll(&dice)) - 1]++;
    for (int i = 0; i < CELLS; i++)
        chi += (counts[i] - mean) * (counts[i] - mean) / mean;
    double off = chi - (CELLS - 1);
    CHECK(off * off < 8 * 8 * 2 * (CELLS - 1));
}

TEST(the_same_seed_gives_the_same_numbers_until_they_part)
{
    struct dice one, other;
    dice_init(&one, 5);
    dice_init(&other, 5);
    for (int i = 0; i < 100; i++)
        CHECK(dice_roll(&one) == dice_roll(&other));
    dice_part(&one, 1000);
    dice_part(&other, 1001);
    for (int i = 0; i < 100; i++)
        CHECK(dice_roll(&one) != dice_roll(&other));
}

/* SplitMix64 with state 0, as published with it. */
TEST(published_numbers_of_splitmix64)
{
    static const uint64_t published[] = {UINT64_C(0xe220a8397b1dcdaf), UINT64_C(0x6e789e6aa1b965f4),
                                         UINT64_C(0x06c45d188009454f)};
    struct dice dice;
    dice_init(&dice, UINT64_C(0x9e3779b97f4a7c15));
    for (size_t i = 0; i < COUNT_OF(published); i++)
        CHECK(dice_roll(&dice) == published[i]);
}
