/*
 * sight.c -- cache/sight: of all who see that a value is due one claims it, wherever in between the
 * others come.
 */
#include "rooms.h"

#include "cache/sight.h"

enum { NOW = 1000000000, MINE = 2000000000, ANOTHERS = 2100000000 };

struct contest {
    struct ground ground;
    struct entry *entry;
    bool come, won; /* the other */
};

static void contest_begin(struct contest *contest)
{
    struct entry_life life = {.now_ns = 1, .expires_ns = 2, .stale_for_ns = CLOCK_NEVER / 2};
    ground_init(&contest->ground, 0, 0);
    contest->entry = entry_new_marked(contest->ground.home, ENTRY_RARE, "k", 1, 0);
    CHECK(contest->entry != NULL);
    entry_set_life(contest->entry, &life);
}

static void contest_end(struct contest *contest)
{
    entry_discard(contest->entry);
    ground_fini(&contest->ground);
}

static void claim_as_well(void *its_contest)
{
    struct contest *contest = its_contest;
    contest->come = true;
    contest->won = sight_claim(contest->entry, NOW, ANOTHERS);
}

/* The other comes at my nth step. */
static void meet_at(struct contest *contest, int64_t nth)
{
    entry_move_life(contest->entry, 2);
    contest->come = contest->won = false;
    if (!act_at_point(nth, claim_as_well, contest))
        test_skip("this build has no points between the steps of the library");
    bool won = sight_claim(contest->entry, NOW, MINE);
    (void)act_at_point(0, NULL, NULL);
    CHECK_INT(won + contest->won, 1);
    CHECK_INT(entry_rare(contest->entry)->claimed_until_ns, won ? MINE : ANOTHERS);
    CHECK(!sight_claim(contest->entry, MINE - 1, ANOTHERS)); /* until then nobody else does */
}

TEST(of_two_who_claim_a_value_one_does_wherever_they_meet)
{
    struct contest contest;
    int64_t nth = 0;
    int lost = 0;
    contest_begin(&contest);
    do {
        meet_at(&contest, ++nth);
        lost += contest.won;
    } while (contest.come);
    CHECK(lost >= 3 && lost < nth); /* who looks and then swaps may lose between the two */
    contest_end(&contest);
}

TEST(a_claim_ends_by_itself)
{
    struct contest contest;
    contest_begin(&contest);
    CHECK(sight_claim(contest.entry, NOW, MINE));
    CHECK(!sight_claim(contest.entry, MINE - 1, ANOTHERS));
    CHECK(sight_claim(contest.entry, MINE, ANOTHERS));
    contest_end(&contest);
}
