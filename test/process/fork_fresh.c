/*
 * fork_fresh.c -- what is stale or due in the child of a fork: it has the value, but not the refresh of
 * it that ran in the parent, so it begins one of its own.
 */
#include "children.h"
#include "contract/stale.h"
#include "sanitizers.h"

SEARCH_NO_DEADLOCKS;

struct family {
    struct fake_clock clock;
    aside_cache *cache;
    struct source parents, childs; /* each process has a source */
};

static void family_open(struct family *family, const aside_freshness *freshness)
{
    aside_options options = stale_options(&family->clock);
    options.freshness = *freshness;
    options.freshness.throttle_ms = THROTTLE;
    family->cache = open_cache(&options);
    held_init(&family->parents, "parent's");
    held_init(&family->childs, "child's");
}

/* The child's call begins a refresh, though one of the parent's was under way when it was forked. */
static void refresh_in_child(struct family *family, aside_outcome outcome)
{
    aside_call call = call_for(&family->childs);
    for (int i = 0; i < 3; i++)
        CHECK_INT(call_gives(family->cache, &call, ASIDE_OK, "old").outcome, outcome);
    gate_wait_arrived(&family->childs.gate, 1);
    let_go(family->cache, &family->childs);
    (void)call_is_fresh(family->cache, &call, "child's", ASIDE_OUTCOME_HIT);
    CHECK_INT(family->childs.fetches, 1);
    end_cache(family->cache);
}

static void refresh_in_parent(struct family *family)
{
    let_go(family->cache, &family->parents);
    CHECK(holds(family->cache, "k", "parent's"));
    CHECK_INT(family->parents.fetches, 1);
    end_cache(family->cache);
}

static void check_fork(struct family *family, aside_outcome outcome)
{
    aside_call call = call_for(&family->parents);
    CHECK_INT(call_gives(family->cache, &call, ASIDE_OK, "old").outcome, outcome);
    gate_wait_arrived(&family->parents.gate, 1);
    struct child child = child_fork();
    if (child.pid == 0) {
        refresh_in_child(family, outcome);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    refresh_in_parent(family);
}

TEST(a_stale_value_that_was_being_refreshed_is_refreshed_anew_in_the_child)
{
    struct family family;
    aside_freshness freshness = {.stale_ms = STALE};
    family_open(&family, &freshness);
    make_old(family.cache, &family.clock, 1);
    check_fork(&family, ASIDE_OUTCOME_STALE);
}

TEST(a_fresh_value_that_was_being_refreshed_is_refreshed_anew_in_the_child)
{
    struct family family;
    aside_freshness freshness = {.refresh_ahead = 0.5};
    family_open(&family, &freshness);
    make_old(family.cache, &family.clock, -1);
    check_fork(&family, ASIDE_OUTCOME_HIT);
}

/* That the source has failed is as true in the child. */
TEST(the_child_leaves_a_source_alone_that_has_failed_in_the_parent)
{
    struct family family;
    aside_freshness freshness = {.stale_ms = STALE};
    family_open(&family, &freshness);
    make_old(family.cache, &family.clock, 1);
    family.parents.answer = NULL;
    family.parents.status = (aside_status)-77;
    aside_call call = call_for(&family.parents);
    (void)call_is_stale(family.cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(family.cache, &family.parents);
    struct child child = child_fork();
    if (child.pid == 0) {
        call = call_for(&family.childs);
        (void)call_is_stale(family.cache, &call, "old", ASIDE_STALE_THROTTLED);
        fake_clock_advance_ms(&family.clock, THROTTLE, family.cache);
        refresh_in_child(&family, ASIDE_OUTCOME_STALE);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    (void)call_is_stale(family.cache, &call, "old", ASIDE_STALE_THROTTLED);
    end_cache(family.cache);
}
