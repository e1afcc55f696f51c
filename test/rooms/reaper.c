/*
 * reaper.c -- cache/reaper: it works where there is no memory for its thread's record, and where a
 * fork has taken it away one call after the other tries to have it back, until one does.
 */
#include "rooms.h"

#include "cache/cache.h"

/* ---- without a record ---------------------------------------------------------------------------- */

static struct ledger ledger;
static struct gated_clock gated;
static struct tally tally;

static aside_cache *open_gated(void)
{
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    options.clock = gated_clock_init(&gated);
    options.reaper_interval_ms = 100;
    aside_cache *cache = open_cache(&options);
    gate_wait_arrived(&gated.gate, 1);
    return cache;
}

static size_t records(void)
{
    size_t all = 0;
    for (const struct thread_record *r = thread_first(); r; r = r->next)
        all++;
    return all;
}

/* Its first turn finds what is over by then. */
static void let_it_reap_without_memory(void)
{
    fake_clock_advance_ms(&gated.fake, 100, NULL);
    process_fail_alloc(1, true);
    gate_open(&gated.gate);
}

TEST(a_reaper_that_can_have_no_record_reaps)
{
    aside_cache *cache = open_gated();
    CHECK_STATUS(tally_set(&tally, cache, "over", 10, 50), ASIDE_OK);
    CHECK_STATUS(tally_set(&tally, cache, "stays", 10, 200), ASIDE_OK);
    let_it_reap_without_memory();
    WAIT_UNTIL(tally.freed == 1);
    CHECK(process_alloc_calls() > 0);
    CHECK_INT(records(), 1); /* this thread's */
    WAIT_UNTIL(STAT(cache, expired) == 1);
    CHECK_STATUS(look(cache, "stays"), ASIDE_OK);
    process_fail_alloc(0, false);
    end_cache(cache);
    CHECK_INT(tally.freed, 2);
    CHECK_INT(ledger.live_blocks, 0);
}

static void close_and_unref(void *object, void *cache)
{
    (void)object;
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    aside_unref(cache);
}

TEST(a_destructor_on_a_reaper_without_a_record_may_give_the_last_reference_back)
{
    static int object;
    aside_value *value = NULL;
    aside_cache *cache = open_gated();
    CHECK_STATUS(aside_value_wrap(&object, 1, close_and_unref, cache, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("key"), value, 50), ASIDE_OK);
    aside_value_unref(value);
    let_it_reap_without_memory();
    WAIT_UNTIL(ledger.live_blocks == 0);
    process_fail_alloc(0, false);
    CHECK_INT(threads_joined(), 0);
    WAIT_UNTIL(process_threads_named("aside-reaper") == 0);
}

/* ---- after a fork -------------------------------------------------------------------------------- */

static struct fake_clock fake;

/* As the child of a fork finds it: there was a reaper. */
static aside_cache *open_bereft(void)
{
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&fake);
    aside_cache *cache = open_cache(&options);
    cache->reaper.interval_ms = 100;
    store_release(&cache->reaper.exists, true);
    reaper_fork_child(&cache->reaper);
    CHECK(reaper_is_lost(&cache->reaper) && !reaper_exists(&cache->reaper));
    return cache;
}

/* Whenever the reaper began to wait. */
static bool is_empty_later(aside_cache *cache)
{
    fake_clock_advance_ms(&fake, 100, cache);
    return aside_count(cache) == 0;
}

static void finish_revived(aside_cache *cache)
{
    CHECK(reaper_exists(&cache->reaper) && !reaper_is_lost(&cache->reaper));
    CHECK_INT(threads_created(), 1);
    WAIT_UNTIL(is_empty_later(cache));
    end_cache(cache);
    CHECK_INT(threads_joined(), 1);
}

TEST(a_reaper_that_cannot_be_made_again_is_tried_for_by_the_next_call)
{
    aside_cache *cache = open_bereft();
    process_fail_thread(1, true);
    put(cache, "key", "value", 100); /* which does not suffer from it */
    CHECK(holds(cache, "key", "value"));
    CHECK(!reaper_exists(&cache->reaper) && reaper_is_lost(&cache->reaper));
    CHECK_INT(process_thread_calls(), 1);
    put(cache, "key", "again", 100);
    CHECK_INT(process_thread_calls(), 2);
    process_fail_thread(0, false);
    put(cache, "key", "at last", 100);
    finish_revived(cache);
}

TEST(who_comes_late_to_revive_a_reaper_makes_no_second)
{
    aside_cache *cache = open_bereft();
    put(cache, "key", "value", 100);
    reaper_revive(&cache->reaper);
    finish_revived(cache);
}
