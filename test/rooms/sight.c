/*
 * sight.c -- cache/sight: of all who see that a value is due one claims it and refreshes it, wherever in
 * between the others come.
 */
#include "rooms.h"

#include "cache/sight.h"
#include "contract/loops.h"

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

/* ---- a caller ------------------------------------------------------------------------------------ */

/* A value that a caller finds due, while another does as well. */
struct rivals {
    struct fake_clock clock;
    aside_cache *cache;
    struct held held;
    struct contest contest; /* for the entry that is there */
};

static struct entry *entry_there(aside_cache *cache)
{
    uint64_t hash = cache_hash(cache, ASIDE_STR("k"));
    struct shard *shard = store_shard(&cache->store, hash);
    lock_take(&shard->lock);
    struct entry *entry = shard_find(shard, hash, ASIDE_STR("k"));
    lock_release(&shard->lock);
    CHECK(entry != NULL);
    return entry;
}

static void rivals_begin(struct rivals *rivals)
{
    memset(rivals, 0, sizeof *rivals);
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&rivals->clock);
    options.freshness.stale_ms = 5000;
    rivals->cache = open_cache(&options);
    put(rivals->cache, "k", "old", 1000);
    fake_clock_advance_ms(&rivals->clock, 1000, rivals->cache);
    rivals->contest.entry = entry_there(rivals->cache);
}

static void claim_it_now(void *its_rivals)
{
    struct rivals *rivals = its_rivals;
    int64_t now_ns = rivals->clock.now_ns;
    rivals->contest.come = true;
    rivals->contest.won = sight_claim(rivals->contest.entry, now_ns, now_ns + 1000000000);
}

/* The other comes at the caller's nth step. True: there is one. */
static bool rival_comes_at(int64_t nth)
{
    static struct rivals rivals;
    aside_result result = ASIDE_RESULT_INIT;
    rivals_begin(&rivals);
    aside_call call = call_held(&rivals.held);
    if (!act_at_point(nth, claim_it_now, &rivals))
        test_skip("this build has no points between the steps of the library");
    CHECK_STATUS(aside_get_with_fetch(rivals.cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    (void)act_at_point(0, NULL, NULL);
    CHECK(value_is(result.value, "old"));
    CHECK_INT(result.outcome, ASIDE_OUTCOME_STALE);
    aside_value_unref(result.value);
    CHECK_INT(STAT(rivals.cache, refreshes) + rivals.contest.won, 1);
    CHECK_INT(rivals.held.fetches, !rivals.contest.won);
    if (rivals.held.fetches)
        complete(&rivals.held, "new");
    end_cache(rivals.cache);
    return rivals.contest.come;
}

TEST(who_finds_due_what_another_claims_in_that_instant_is_served_and_refreshes_nothing)
{
    int64_t nth = 1;
    while (rival_comes_at(nth))
        nth++;
    CHECK(nth > 20);
}
