/*
 * park.c -- base/park: a wake-up is never lost, a deadline is kept, bits and single sleepers are
 * woken. Built as it is and with the condition variables of ASIDE_PARK_PTHREAD (variant parkfb).
 */
#include "rooms.h"

#include "base/park.h"

#include <sched.h>
#include <sys/syscall.h>

static struct park park;

/* ---- who sleeps ---------------------------------------------------------------------------------- */

/* Sleeps until its flag is up; counts how often a wait came back before that. */
struct sleeper {
    uint32_t number;
    _Atomic bool flag;
    _Atomic int returns;
    _Atomic int tid;
    pthread_t thread;
};

static void *sleeper_main(void *arg)
{
    struct sleeper *sleeper = arg;
    struct parker parker;
    parker_init(&parker, sleeper->number);
    sleeper->tid = (int)syscall(SYS_gettid);
    for (;;) {
        uint32_t ticket = park_ticket(&park);
        if (sleeper->flag)
            break;
        park_wait(&park, &parker, ticket, CLOCK_NEVER);
        sleeper->returns++;
    }
    parker_fini(&parker);
    return NULL;
}

static bool is_asleep(const struct sleeper *sleeper)
{
    return thread_is_asleep(sleeper->tid);
}

static void sleeper_begin(struct sleeper *sleeper, uint32_t number)
{
    memset((void *)sleeper, 0, sizeof *sleeper);
    sleeper->number = number;
    sleeper->thread = thread_start(sleeper_main, sleeper);
    WAIT_UNTIL(sleeper->tid != 0 && is_asleep(sleeper));
}

/* ---- tests --------------------------------------------------------------------------------------- */

TEST(a_ticket_that_is_out_of_date_is_not_slept_on)
{
    struct parker parker;
    park_init(&park);
    parker_init(&parker, 5);
    uint32_t ticket = park_ticket(&park);
    park_wake_all(&park);
    CHECK(park_ticket(&park) != ticket);
    park_wait(&park, &parker, ticket, CLOCK_NEVER); /* for ever, were it slept on */
    ticket = park_ticket(&park);
    park_wake_bit(&park, 1);
    park_wait(&park, &parker, ticket, CLOCK_NEVER);
    ticket = park_ticket(&park);
    park_wake_one(&park);
    park_wait(&park, &parker, ticket, CLOCK_NEVER);
    parker_fini(&parker);
    park_fini(&park);
}

/* Waits once, with the ticket that is its number. */
static void *once_main(void *arg)
{
    struct sleeper *sleeper = arg;
    struct parker parker;
    parker_init(&parker, 1);
    sleeper->tid = (int)syscall(SYS_gettid);
    park_wait(&park, &parker, sleeper->number, CLOCK_NEVER);
    parker_fini(&parker);
    return NULL;
}

TEST(a_ticket_is_slept_on_though_another_lay_down_with_the_same)
{
    static struct sleeper first, second;
    park_init(&park);
    uint32_t ticket = park_ticket(&park);
    sleeper_begin(&first, 0);
    CHECK_INT(park_ticket(&park), ticket | PARK_SLEEPERS);
    second.number = ticket;
    second.thread = thread_start(once_main, &second);
    WAIT_UNTIL(second.tid != 0 && is_asleep(&second));
    first.flag = true;
    park_wake_all(&park);
    thread_join(first.thread);
    thread_join(second.thread);
    park_fini(&park);
}

static int64_t waited(int64_t deadline_ns)
{
    struct parker parker;
    int64_t began = test_now_ns();
    parker_init(&parker, 0);
    do {
        park_wait(&park, &parker, park_ticket(&park), deadline_ns);
    } while (test_now_ns() < deadline_ns);
    parker_fini(&parker);
    return test_now_ns() - began;
}

TEST(a_deadline_ends_the_wait)
{
    park_init(&park);
    int64_t ns = waited(test_now_ns() + 20000000);
    CHECK(ns < INT64_C(2000000000));
    ns = waited(test_now_ns() +
                130000000); /* past the 100 ms at which a condition is looked at again */
    CHECK(ns < INT64_C(2000000000));
    park_fini(&park);
}

TEST(a_wait_does_not_end_long_before_its_deadline)
{
    struct parker parker;
    int64_t longest = 0;
    park_init(&park);
    parker_init(&parker, 0);
    for (int i = 0; i < 5; i++) { /* any one may return early, not all */
        int64_t began = test_now_ns();
        park_wait(&park, &parker, park_ticket(&park), began + 10000000);
        int64_t ns = test_now_ns() - began;
        longest = ns > longest ? ns : longest;
    }
    CHECK(longest >= 10000000);
    parker_fini(&parker);
    park_fini(&park);
}

TEST(a_deadline_that_is_over_returns_at_once)
{
    park_init(&park);
    CHECK(waited(test_now_ns() - 1) < INT64_C(1000000000));
    CHECK(waited(1) < INT64_C(1000000000));
    park_fini(&park);
}

TEST(wake_all_wakes_every_sleeper)
{
    static struct sleeper sleepers[8];
    park_init(&park);
    for (uint32_t i = 0; i < COUNT_OF(sleepers); i++)
        sleeper_begin(&sleepers[i], i * 5);
    for (size_t i = 0; i < COUNT_OF(sleepers); i++)
        sleepers[i].flag = true;
    park_wake_all(&park);
    for (size_t i = 0; i < COUNT_OF(sleepers); i++)
        thread_join(sleepers[i].thread);
    park_fini(&park);
}

TEST(wake_bit_wakes_that_sleeper_and_leaves_the_others)
{
    static struct sleeper one, other;
    enum { TIMES = 300 };
    park_init(&park);
    sleeper_begin(&one, 3);
    sleeper_begin(&other, 4);
    for (int i = 0; i < TIMES; i++) {
        int before = one.returns;
        park_wake_bit(&park, UINT32_C(1) << 3);
        WAIT_UNTIL(one.returns > before && is_asleep(&one));
    }
    CHECK(other.returns < TIMES / 2); /* a few may be early, by the clock of the fallback */
    one.flag = true;
    park_wake_bit(&park, UINT32_C(1) << 3);
    thread_join(one.thread);
    other.flag = true;
    park_wake_bit(&park, UINT32_C(1) << 4);
    thread_join(other.thread);
    park_fini(&park);
}

TEST(sleepers_that_share_a_bit_are_woken_together)
{
    static struct sleeper one, other;
    park_init(&park);
    sleeper_begin(&one, 7);
    sleeper_begin(&other, 7 + 32);
    one.flag = other.flag = true;
    park_wake_bit(&park, UINT32_C(1) << 7);
    thread_join(one.thread);
    thread_join(other.thread);
    park_fini(&park);
}

TEST(a_wait_may_return_early_and_is_looked_at_again)
{
    static struct sleeper sleeper;
    park_init(&park);
    sleeper_begin(&sleeper, 0);
    for (int i = 0; i < 20; i++) {
        int before = sleeper.returns;
        park_wake_all(&park); /* and the flag is down */
        WAIT_UNTIL(sleeper.returns > before && is_asleep(&sleeper));
    }
    sleeper.flag = true;
    park_wake_all(&park);
    thread_join(sleeper.thread);
    park_fini(&park);
}

/* ---- under perturbation -------------------------------------------------------------------------- */

static long rounds;
static struct park pings, pongs;
static _Atomic long pinged, ponged;

static void wait_for_round(struct park *where, struct parker *parker, const _Atomic long *done,
                           long round)
{
    for (;;) {
        uint32_t ticket = park_ticket(where);
        if (load_acquire(done) >= round)
            return;
        park_wait(where, parker, ticket, CLOCK_NEVER);
    }
}

static void *pong_main(void *arg)
{
    struct parker parker;
    (void)arg;
    parker_init(&parker, 9);
    for (long i = 1; i <= rounds; i++) {
        wait_for_round(&pings, &parker, &pinged, i);
        store_release(&ponged, i);
        if (i % 2)
            park_wake_all(&pongs);
        else
            park_wake_bit(&pongs, UINT32_C(1) << 30);
    }
    parker_fini(&parker);
    return NULL;
}

static void play(void)
{
    struct parker parker;
    rounds = test_rounds(20000);
    park_init(&pings);
    park_init(&pongs);
    parker_init(&parker, 30);
    pthread_t thread = thread_start(pong_main, NULL);
    for (long i = 1; i <= rounds; i++) {
        store_release(&pinged, i);
        if (i % 2)
            park_wake_one(&pings);
        else
            park_wake_bit(&pings, UINT32_C(1) << 9);
        wait_for_round(&pongs, &parker, &ponged, i);
    }
    thread_join(thread);
    parker_fini(&parker);
    park_fini(&pings);
    park_fini(&pongs);
}

TEST(ping_pong_loses_no_wake_up)
{
    play();
}

TEST(ping_pong_loses_no_wake_up_perturbed)
{
    perturb(test_seed() | 1);
    play();
    perturb(0);
}

static _Atomic long permits, taken;

static bool take_permit(void)
{
    long now = load_acquire(&permits);
    while (now > 0)
        if (compare_swap(&permits, &now, now - 1))
            return true;
    return false;
}

static void *taker_main(void *arg)
{
    struct parker parker;
    (void)arg;
    parker_init(&parker, 0);
    while (load_acquire(&taken) < rounds) {
        uint32_t ticket = park_ticket(&park);
        if (take_permit()) {
            if (fetch_add_acq_rel(&taken, 1) + 1 == rounds)
                park_wake_all(&park);
        } else if (load_acquire(&taken) < rounds) {
            park_wait(&park, &parker, ticket, CLOCK_NEVER);
        }
    }
    parker_fini(&parker);
    return NULL;
}

/* Permits are given one at a time, each with one wake-up, and the giver waits for each to be taken. */
TEST(wake_one_wakes_at_least_one_of_many)
{
    pthread_t threads[4];
    rounds = test_rounds(3000);
    park_init(&park);
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(taker_main, NULL);
    for (long i = 1; i <= rounds; i++) {
        fetch_add_acq_rel(&permits, 1);
        park_wake_one(&park);
        while (load_acquire(&taken) < i)
            sched_yield();
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    park_fini(&park);
}
