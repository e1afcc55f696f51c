/*
 * waiter.c -- flight/waiter: what ends a wait, and what wins when two things do (C3).
 */
#include "rooms.h"

#include "flight/waiter.h"

static struct park park;
static struct waiter waiter;
static _Atomic bool settled;
static struct fake_clock fake;
static const aside_clock real;

static void begin(void)
{
    park_init(&park);
    waiter_init(&waiter, &park, 3);
    atomic_store(&settled, false);
}

static enum waiter_end wait_until(const aside_clock *clock, int64_t deadline_ns)
{
    const struct waiter_until until = {.clock = clock, .deadline_ns = deadline_ns};
    return waiter_wait(&waiter, &settled, &until);
}

TEST(what_is_settled_already_ends_the_wait)
{
    begin();
    atomic_store(&settled, true);
    CHECK_INT(wait_until(&real, CLOCK_NEVER), WAITER_SETTLED);
    CHECK_INT(wait_until(&real, 1), WAITER_SETTLED); /* and wins over a deadline that is over */
}

TEST(settled_wins_over_cancelled)
{
    begin();
    waiter_cancel(&waiter);
    atomic_store(&settled, true);
    CHECK_INT(wait_until(&real, 1), WAITER_SETTLED);
}

TEST(cancelled_wins_over_late)
{
    begin();
    waiter_cancel(&waiter);
    CHECK_INT(wait_until(&real, 1), WAITER_LEAVES_CANCELLED);
    CHECK_INT(wait_until(&real, CLOCK_NEVER), WAITER_LEAVES_CANCELLED);
}

TEST(a_cancellation_counts_once)
{
    begin();
    uint32_t ticket = park_ticket(&park);
    waiter_cancel(&waiter);
    CHECK(park_ticket(&park) != ticket);
    ticket = park_ticket(&park);
    waiter_cancel(&waiter);
    CHECK_INT(park_ticket(&park), ticket);
}

TEST(a_deadline_of_the_real_clock_wakes_by_itself)
{
    begin();
    int64_t began = test_now_ns();
    CHECK_INT(wait_until(&real, began + 15000000), WAITER_LEAVES_LATE);
    CHECK(test_now_ns() - began >= 15000000);
    CHECK(test_now_ns() - began < INT64_C(2000000000));
    CHECK_INT(wait_until(&real, began), WAITER_LEAVES_LATE);
}

/* ---- on a thread --------------------------------------------------------------------------------- */

struct waiting {
    aside_clock clock;
    int64_t deadline_ns;
    _Atomic bool begun;
    enum waiter_end end;
    pthread_t thread;
};

static void *waiting_main(void *arg)
{
    struct waiting *waiting = arg;
    atomic_store(&waiting->begun, true);
    waiting->end = wait_until(&waiting->clock, waiting->deadline_ns);
    return NULL;
}

static void waiting_begin(struct waiting *waiting, aside_clock clock, int64_t deadline_ns)
{
    memset((void *)waiting, 0, sizeof *waiting);
    waiting->clock = clock;
    waiting->deadline_ns = deadline_ns;
    begin();
    waiting->thread = thread_start(waiting_main, waiting);
    WAIT_UNTIL(atomic_load(&waiting->begun));
}

TEST(a_deadline_of_a_users_clock_is_seen_when_it_is_woken)
{
    struct waiting waiting;
    aside_clock clock = fake_clock_init(&fake);
    waiting_begin(&waiting, clock, fake.now_ns + 100);
    for (int i = 0; i < 99; i++) { /* woken early it goes on waiting */
        fake.now_ns++;
        park_wake_all(&park);
    }
    fake.now_ns++;
    park_wake_all(&park);
    thread_join(waiting.thread);
    CHECK_INT(waiting.end, WAITER_LEAVES_LATE);
}

TEST(settling_wakes)
{
    struct waiting waiting;
    for (long i = test_rounds(100); i > 0; i--) {
        waiting_begin(&waiting, real, CLOCK_NEVER);
        store_release(&settled, true);
        park_wake_all(&park);
        thread_join(waiting.thread);
        CHECK_INT(waiting.end, WAITER_SETTLED);
    }
}

TEST(cancelling_wakes)
{
    struct waiting waiting;
    for (long i = test_rounds(100); i > 0; i--) {
        waiting_begin(&waiting, real, CLOCK_NEVER);
        waiter_cancel(&waiter);
        thread_join(waiting.thread);
        CHECK_INT(waiting.end, WAITER_LEAVES_CANCELLED);
    }
}
