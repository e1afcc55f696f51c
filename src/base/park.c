/* base/park -- see park.h. */
#include "base/park.h"

#include "base/clock.h"

/* False if the number has moved on, and then there is nothing to wait for. */
static bool announce_sleeper(struct park *park, uint32_t *ticket)
{
    uint32_t seen = *ticket;
    *ticket |= PARK_SLEEPERS;
    return seen == *ticket || compare_swap(&park->word, &seen, *ticket) || seen == *ticket;
}

#ifndef ASIDE_PARK_PTHREAD

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A raw system call: neither a cancellation point nor a clobberer of the caller's errno. */
static void futex(struct park *park, int operation, uint32_t value, const struct timespec *until,
                  uint32_t bits)
{
    int saved = errno;
    syscall(SYS_futex, (uint32_t *)&park->word, operation | FUTEX_PRIVATE_FLAG, value, until, NULL,
            bits);
    errno = saved;
}

void park_init(struct park *park)
{
    atomic_init(&park->word, 0);
}

void park_fini(struct park *park)
{
    (void)park;
}

void parker_init(struct parker *parker, uint32_t number)
{
    parker->bit = UINT32_C(1) << (number % 32);
}

void parker_fini(struct parker *parker)
{
    (void)parker;
}

void park_wait(struct park *park, struct parker *parker, uint32_t ticket, int64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                             .tv_nsec = (long)(deadline_ns % 1000000000)};
    if (!announce_sleeper(park, &ticket))
        return;
    sched_point();
    futex(park, FUTEX_WAIT_BITSET, ticket, deadline_ns == CLOCK_NEVER ? NULL : &until, parker->bit);
}

static void wake(struct park *park, uint32_t bits, uint32_t most)
{
    if (!(fetch_add_acq_rel(&park->word, PARK_STEP) & PARK_SLEEPERS))
        return;
    sched_point();
    futex(park, FUTEX_WAKE_BITSET, most, NULL, bits);
}

void park_wake_all(struct park *park)
{
    wake(park, FUTEX_BITSET_MATCH_ANY, INT_MAX);
}

void park_wake_bit(struct park *park, uint32_t bit)
{
    wake(park, bit, INT_MAX);
}

void park_wake_one(struct park *park)
{
    wake(park, FUTEX_BITSET_MATCH_ANY, 1);
}

#else

#define LOOK_AGAIN_NS INT64_C(100000000)

void park_init(struct park *park)
{
    atomic_init(&park->word, 0);
    pthread_mutex_init(&park->mutex, NULL);
    park->first = NULL;
}

void park_fini(struct park *park)
{
    pthread_mutex_destroy(&park->mutex);
}

void parker_init(struct parker *parker, uint32_t number)
{
    parker->bit = UINT32_C(1) << (number % 32);
    parker->woken = false;
    parker->next = parker->prev = NULL;
    pthread_mutex_init(&parker->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&parker->moved, &attributes);
    pthread_condattr_destroy(&attributes);
}

void parker_fini(struct parker *parker)
{
    pthread_cond_destroy(&parker->moved);
    pthread_mutex_destroy(&parker->mutex);
}

/* False if the number has changed, and then there is nothing to wait for. */
static bool lie_down(struct park *park, struct parker *parker, uint32_t ticket)
{
    pthread_mutex_lock(&park->mutex);
    bool same = load_acquire(&park->word) == ticket;
    if (same) {
        parker->woken = false;
        parker->prev = NULL;
        parker->next = park->first;
        if (park->first)
            park->first->prev = parker;
        park->first = parker;
    }
    pthread_mutex_unlock(&park->mutex);
    return same;
}

static void get_up(struct park *park, struct parker *parker)
{
    pthread_mutex_lock(&park->mutex);
    if (parker->next)
        parker->next->prev = parker->prev;
    if (parker->prev)
        parker->prev->next = parker->next;
    else
        park->first = parker->next;
    pthread_mutex_unlock(&park->mutex);
}

void park_wait(struct park *park, struct parker *parker, uint32_t ticket, int64_t deadline_ns)
{
    sched_point();
    if (!announce_sleeper(park, &ticket) || !lie_down(park, parker, ticket))
        return;
    int64_t look_again = clock_read(CLOCK_MONOTONIC) + LOOK_AGAIN_NS;
    int64_t until_ns = deadline_ns < look_again ? deadline_ns : look_again;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                             .tv_nsec = (long)(until_ns % 1000000000)};
    pthread_mutex_lock(&parker->mutex);
    int error = 0;
    while (!parker->woken && error == 0)
        error = pthread_cond_timedwait(&parker->moved, &parker->mutex, &until);
    pthread_mutex_unlock(&parker->mutex);
    get_up(park, parker);
}

/* The park's mutex keeps the sleepers where they are meanwhile. */
static void wake(struct park *park, uint32_t bits, bool only_one)
{
    if (!(fetch_add_acq_rel(&park->word, PARK_STEP) & PARK_SLEEPERS))
        return;
    sched_point();
    pthread_mutex_lock(&park->mutex);
    for (struct parker *p = park->first; p; p = p->next) {
        if (!(p->bit & bits))
            continue;
        pthread_mutex_lock(&p->mutex);
        bool already = p->woken;
        p->woken = true;
        pthread_cond_signal(&p->moved);
        pthread_mutex_unlock(&p->mutex);
        if (only_one && !already)
            break;
    }
    pthread_mutex_unlock(&park->mutex);
}

void park_wake_all(struct park *park)
{
    wake(park, UINT32_MAX, false);
}

void park_wake_bit(struct park *park, uint32_t bit)
{
    wake(park, bit, false);
}

void park_wake_one(struct park *park)
{
    wake(park, UINT32_MAX, true);
}

#endif
