/*
 * cancel.c -- flight/cancel: a token with many waiters, who come and go in every order while it fires
 * (C6); a waiter that has been taken off the list is touched by nobody.
 */
#include "rooms.h"

#include "flight/cancel.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#ifdef __linux__
#include <sys/timerfd.h>
#endif

enum { WAITERS = 5 };

static struct park park;
static struct waiter waiters[WAITERS];

static void begin(void)
{
    park_init(&park);
    for (uint32_t i = 0; i < WAITERS; i++)
        waiter_init(&waiters[i], &park, i);
}

static bool is_cancelled(const struct waiter *waiter)
{
    return atomic_load(&waiter->state) == WAITER_CANCELLED;
}

TEST(a_token_begins_unfired_and_fires_for_ever)
{
    aside_cancel *token = token_new();
    CHECK(cancel_is_token(token));
    CHECK_INT(aside_cancel_fired(token), 0);
    aside_cancel_fire(token);
    aside_cancel_fire(token);
    CHECK_INT(aside_cancel_fired(token), 1);
    CHECK(aside_cancel_ref(token) == token);
    aside_cancel_unref(token);
    CHECK_INT(aside_cancel_fired(token), 1);
    aside_cancel_unref(token);
}

TEST(no_token_is_no_trouble)
{
    begin();
    aside_cancel_fire(NULL);
    aside_cancel_unref(NULL);
    CHECK(aside_cancel_ref(NULL) == NULL);
    CHECK_INT(aside_cancel_fired(NULL), 0);
    cancel_enlist(NULL, &waiters[0]);
    cancel_delist(NULL, &waiters[0]);
    CHECK(!is_cancelled(&waiters[0]));
    CHECK_STATUS(aside_cancel_new(NULL), ASIDE_E_INVALID);
}

TEST(no_memory_makes_no_token)
{
    aside_cancel *token = NULL;
    process_fail_alloc(1, false);
    CHECK_STATUS(aside_cancel_new(&token), ASIDE_E_NOMEM);
    CHECK(token == NULL);
}

TEST(firing_reaches_every_waiter_and_wakes_each_once)
{
    aside_cancel *token = token_new();
    begin();
    for (int i = 0; i < WAITERS; i++)
        cancel_enlist(token, &waiters[i]);
    uint32_t ticket = park_ticket(&park);
    aside_cancel_fire(token);
    for (int i = 0; i < WAITERS; i++)
        CHECK(is_cancelled(&waiters[i]));
    CHECK(park_ticket(&park) != ticket);
    ticket = park_ticket(&park);
    aside_cancel_fire(token);
    CHECK_INT(park_ticket(&park), ticket); /* each is woken once */
    for (int i = 0; i < WAITERS; i++)
        cancel_delist(token, &waiters[i]);
    aside_cancel_unref(token);
}

TEST(who_enlists_after_the_firing_is_cancelled_at_once)
{
    aside_cancel *token = token_new();
    begin();
    aside_cancel_fire(token);
    uint32_t ticket = park_ticket(&park);
    cancel_enlist(token, &waiters[0]);
    CHECK(is_cancelled(&waiters[0]));
    CHECK(park_ticket(&park) != ticket);
    cancel_delist(token, &waiters[0]);
    aside_cancel_unref(token);
}

TEST(who_has_been_taken_off_is_not_reached)
{
    aside_cancel *token = token_new();
    begin();
    for (int i = 0; i < WAITERS; i++)
        cancel_enlist(token, &waiters[i]);
    cancel_delist(token, &waiters[1]);
    cancel_delist(token, &waiters[4]);
    cancel_delist(token, &waiters[4]);                    /* twice is harmless */
    memset((void *)&waiters[4], 0xee, sizeof waiters[4]); /* its stack frame is somebody else's */
    aside_cancel_fire(token);
    for (int i = 0; i < 4; i++)
        CHECK_INT(is_cancelled(&waiters[i]), i != 1);
    for (int i = 0; i < 4; i++)
        cancel_delist(token, &waiters[i]);
    aside_cancel_unref(token);
}

/* The n-th permutation of the waiters. */
static void permute(int n, int order[WAITERS])
{
    bool used[WAITERS] = {false};
    for (int at = 0; at < WAITERS; at++) {
        int left = WAITERS - at, nth = n % left, i = 0;
        n /= left;
        for (;; i++)
            if (!used[i] && nth-- == 0)
                break;
        used[i] = true;
        order[at] = i;
    }
}

TEST(waiters_leave_the_list_in_every_order)
{
    for (int n = 0; n < 120; n++) {
        for (int fire_after = 0; fire_after <= WAITERS; fire_after++) {
            int order[WAITERS];
            aside_cancel *token = token_new();
            begin();
            permute(n, order);
            for (int i = 0; i < WAITERS; i++)
                cancel_enlist(token, &waiters[i]);
            for (int i = 0; i < WAITERS; i++) {
                if (i == fire_after)
                    aside_cancel_fire(token);
                cancel_delist(token, &waiters[order[i]]);
            }
            aside_cancel_fire(token);
            for (int i = 0; i < WAITERS; i++)
                CHECK_INT(is_cancelled(&waiters[order[i]]), i >= fire_after);
            aside_cancel_unref(token);
        }
    }
}

/* ---- descriptors where the kernel sets no ticks -------------------------------------------------- */

#if defined(__linux__) && defined(__GLIBC__) && defined(__LP64__)
static int refused, settings;

/* These two are in front of the C library's: as where the kernel was built without
 * CONFIG_CHECKPOINT_RESTORE, and with every setting of a timer counted. */
int ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    refused++;
    errno = ENOTTY;
    return -1;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *before)
{
    settings++;
    return (int)syscall(SYS_timerfd_settime, fd, flags, when, before);
}

static bool is_readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 0) == 1;
}

static int descriptor_of(aside_cancel *token)
{
    int fd = -1;
    CHECK_STATUS(aside_cancel_fd(token, &fd), ASIDE_OK);
    return fd;
}

TEST(a_descriptor_is_readable_after_the_firing_where_the_kernel_sets_no_ticks)
{
    for (int asked_late = 0; asked_late <= 1; asked_late++) {
        aside_cancel *token = token_new();
        int fd = asked_late ? -1 : descriptor_of(token);
        aside_cancel_fire(token);
        fd = asked_late ? descriptor_of(token) : fd;
        CHECK(is_readable(fd));
        aside_cancel_unref(token);
    }
    CHECK_INT(refused, 2);
}

TEST(a_descriptor_is_readable_past_a_deadline_on_ones_own_clock_where_the_kernel_sets_no_ticks)
{
    struct fake_clock fake;
    const aside_clock clock = fake_clock_init(&fake);
    aside_cancel *token = token_new();
    CHECK_STATUS(aside_cancel_set_deadline(token, 100, &clock), ASIDE_OK);
    int fd = descriptor_of(token);
    CHECK(!is_readable(fd));
    fake_clock_advance_ms(&fake, 100, NULL);
    CHECK_STATUS(aside_cancel_status(token), ASIDE_E_TIMEOUT);
    CHECK(is_readable(fd));
    CHECK_INT(refused, 1);
    aside_cancel_unref(token);
}

TEST(a_descriptor_that_is_readable_by_its_deadline_is_left_alone_where_the_kernel_sets_no_ticks)
{
    aside_cancel *token = token_new();
    int fd = descriptor_of(token);
    CHECK_STATUS(aside_cancel_set_deadline(token, 1, NULL), ASIDE_OK);
    WAIT_UNTIL(is_readable(fd));
    CHECK_INT(settings, 1);
    aside_cancel_fire(token);
    CHECK(is_readable(fd));
    CHECK_STATUS(aside_cancel_status(token), ASIDE_E_CANCELLED);
    CHECK_INT(refused, 1);
    CHECK_INT(settings, 1);
    aside_cancel_unref(token);
}
#endif

/* ---- races --------------------------------------------------------------------------------------- */

static aside_cancel *contended;
static _Atomic int ready, came;

static void meet_others(int count)
{
    fetch_add_acq_rel(&ready, 1);
    while (load_acquire(&ready) < count)
        test_yield();
}

/* Enlists a waiter on its stack and waits for it as a caller does; never settled. */
static void *wait_main(void *arg)
{
    static _Atomic bool never;
    struct waiter waiter;
    const aside_clock clock = {NULL, NULL};
    const struct waiter_until until = {.clock = &clock, .deadline_ns = CLOCK_NEVER};
    meet_others(4);
    waiter_init(&waiter, &park, (uint32_t)(uintptr_t)arg);
    cancel_enlist(contended, &waiter);
    CHECK_INT(waiter_wait(&waiter, &never, &until), WAITER_LEAVES_CANCELLED);
    cancel_delist(contended, &waiter);
    waiter_fini(&waiter);
    memset((void *)&waiter, 0xee, sizeof waiter);
    fetch_add_acq_rel(&came, 1);
    return NULL;
}

static void *fire_main(void *arg)
{
    (void)arg;
    meet_others(4);
    aside_cancel_fire(contended);
    return NULL;
}

TEST(a_firing_that_races_the_waiters_reaches_all_of_them)
{
    perturb(test_seed() | 1);
    park_init(&park);
    long rounds = test_rounds(300);
    for (long round = 0; round < rounds; round++) {
        pthread_t threads[4];
        contended = token_new();
        atomic_store(&ready, 0);
        for (uintptr_t i = 0; i < 4; i++)
            threads[i] = thread_start(i == 3 ? fire_main : wait_main, (void *)i);
        for (int i = 0; i < 4; i++)
            thread_join(threads[i]);
        aside_cancel_unref(contended);
    }
    perturb(0);
    CHECK_INT(came, 3 * rounds);
}

static void *come_and_go_main(void *arg)
{
    struct waiter waiter;
    (void)arg;
    for (long i = test_rounds(3000); i > 0; i--) {
        waiter_init(&waiter, &park, (uint32_t)i);
        cancel_enlist(contended, &waiter);
        sched_point();
        cancel_delist(contended, &waiter);
        waiter_fini(&waiter);
        memset((void *)&waiter, 0xee, sizeof waiter);
    }
    return NULL;
}

TEST(waiters_that_come_and_go_during_a_firing_leave_the_list_whole)
{
    pthread_t threads[3];
    park_init(&park);
    contended = token_new();
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(come_and_go_main, NULL);
    for (int i = 0; i < 20; i++) {
        test_yield();
        if (i == 10)
            aside_cancel_fire(contended);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    begin();
    cancel_enlist(contended, &waiters[0]);
    CHECK(is_cancelled(&waiters[0]));
    aside_cancel_unref(contended);
}
