/*
 * lock.c -- base/lock: exclusion, and what a debug build checks: the order of ranks, the order of
 * release, and that no hold looks at more than LOCK_MAX_TOUCHED entries (B4).
 */
#include "rooms.h"

static struct lock shard, other_shard, token, registry;

static void locks_init(void)
{
    lock_init(&registry, RANK_REGISTRY);
    lock_init(&shard, RANK_SHARD);
    lock_init(&other_shard, RANK_SHARD);
    lock_init(&token, RANK_TOKEN);
}

static void *try_main(void *arg)
{
    bool got = lock_try(&shard);
    if (got)
        lock_release(&shard);
    *(bool *)arg = got;
    return NULL;
}

static bool other_thread_gets_it(void)
{
    bool got = false;
    thread_join(thread_start(try_main, &got));
    return got;
}

TEST(a_lock_that_is_held_is_not_given_twice)
{
    locks_init();
    lock_take(&shard);
    CHECK(!other_thread_gets_it());
    lock_release(&shard);
    CHECK(other_thread_gets_it());
    CHECK(lock_try(&shard));
    CHECK(!other_thread_gets_it());
    lock_release(&shard);
    lock_fini(&shard);
}

static long counted;

static void *count_main(void *arg)
{
    for (long i = *(long *)arg; i > 0; i--) {
        lock_take(&shard);
        counted++;
        lock_release(&shard);
    }
    return NULL;
}

TEST(one_at_a_time)
{
    pthread_t threads[4];
    long each = test_rounds(2000);
    locks_init();
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(count_main, &each);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    CHECK_INT(counted, 4 * each);
}

/* ---- ranks --------------------------------------------------------------------------------------- */

static void in_order(void)
{
    lock_take(&registry);
    lock_take(&shard);
    lock_take(&token);
    lock_release(&token);
    lock_release(&shard);
    lock_take(&other_shard); /* the rank is free again */
    lock_release(&other_shard);
    lock_release(&registry);
}

static void downwards(void)
{
    lock_take(&token);
    lock_take(&shard);
}

static void downwards_by_try(void)
{
    lock_take(&token);
    (void)lock_try(&shard);
}

static void same_rank(void)
{
    lock_take(&shard);
    lock_take(&other_shard);
}

/* As many as there are records of what is held, and one more. */
static struct lock ladder[9];

static void take_rungs(int count)
{
    for (int i = 0; i < count; i++) {
        lock_init(&ladder[i], (enum lock_rank)(RANK_REGISTRY + i));
        lock_take(&ladder[i]);
    }
}

static void hold_eight(void)
{
    take_rungs(8);
}

static void hold_nine(void)
{
    take_rungs(9);
}

static void released_out_of_order(void)
{
    lock_take(&shard);
    lock_take(&token);
    lock_release(&shard);
}

static void released_unheld(void)
{
    lock_release(&shard);
}

TEST(ranks_may_only_rise)
{
    NEEDS_INVARIANTS();
    locks_init();
    CHECK(!aborts(in_order));
    CHECK(aborts(downwards));
    CHECK(aborts(downwards_by_try));
    CHECK(aborts(same_rank));
}

TEST(no_more_locks_are_held_at_a_time_than_there_is_room_to_note)
{
    NEEDS_INVARIANTS();
    CHECK(!aborts(hold_eight));
    CHECK(aborts(hold_nine));
}

TEST(the_innermost_lock_is_released_first)
{
    NEEDS_INVARIANTS();
    locks_init();
    CHECK(aborts(released_out_of_order));
    CHECK(aborts(released_unheld));
}

/* ---- B4 ------------------------------------------------------------------------------------------ */

static void touch_64(void)
{
    for (int hold = 0; hold < 3; hold++) { /* each hold has its own count */
        lock_take(&shard);
        lock_touch(60);
        lock_take(&token);
        lock_touch(LOCK_MAX_TOUCHED);
        lock_release(&token);
        lock_touch(4);
        lock_release(&shard);
    }
}

static void touch_65(void)
{
    lock_take(&shard);
    lock_touch(LOCK_MAX_TOUCHED + 1);
}

static void touch_65_by_and_by(void)
{
    lock_take(&shard);
    for (int i = 0; i < LOCK_MAX_TOUCHED + 1; i++)
        lock_touch(1);
}

static void touch_unlocked(void)
{
    lock_touch(1);
}

TEST(a_hold_that_touches_more_than_64_entries_ends_the_process)
{
    NEEDS_INVARIANTS();
    CHECK_INT(LOCK_MAX_TOUCHED, 64);
    locks_init();
    CHECK(!aborts(touch_64));
    CHECK(aborts(touch_65));
    CHECK(aborts(touch_65_by_and_by));
    CHECK(aborts(touch_unlocked));
}
