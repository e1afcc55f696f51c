/*
 * sched.c -- the seeded scheduler behind aside_sched_point().
 *
 * A thread draws its own random numbers from the seed and from the order in which it came to its first
 * point. Most points do nothing; some yield, some nap, and one thread in four is starved: it naps more
 * often and longer. Only relaxed atomics are used, so no order between threads comes from here that
 * the library does not make itself. Never a cancellation point, and errno stays as it was.
 */
#include "internal.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    YIELD_ONE_IN = 16,
    NAP_ONE_IN = 128,
    NAP_MOST_NS = 50000,
    STARVED_ONE_IN = 4,
    STARVED_NAP_ONE_IN = 24,
    STARVED_NAP_MOST_NS = 250000
};

/* 0: off; else counts the calls of perturb(), so that threads draw anew after each. */
static _Atomic uint64_t generation;
static _Atomic uint64_t generations;
static _Atomic uint64_t current_seed;
static _Atomic uint64_t threads_seen;

static _Thread_local struct {
    uint64_t generation;
    uint64_t state;
    bool starved;
} self;

/* What this thread is to do, and after how many points. */
static _Thread_local struct {
    int64_t points_left;
    void (*fn)(void *arg);
    void *arg;
} act;

#define relaxed_load(p) atomic_load_explicit((p), memory_order_relaxed)
#define relaxed_store(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define relaxed_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

static uint64_t draw(void)
{
    self.state += UINT64_C(0x9e3779b97f4a7c15);
    return mix64(self.state);
}

static void begin(uint64_t now)
{
    uint64_t nth = relaxed_add(&threads_seen, 1);

    self.generation = now;
    self.state = mix64(relaxed_load(&current_seed) ^ mix64(nth + 1));
    self.starved = draw() % STARVED_ONE_IN == 0;
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default, 50 us, would round every nap up */
}

static void nap(uint64_t most_ns)
{
    struct timespec length = {0, (long)(1000 + draw() % most_ns)};

    syscall(SYS_nanosleep, &length, NULL); /* not nanosleep(): that is a cancellation point */
}

static void disturb(uint64_t number)
{
    int saved = errno;

    if (self.starved ? number % STARVED_NAP_ONE_IN == 0 : number % NAP_ONE_IN == 0)
        nap(self.starved ? STARVED_NAP_MOST_NS : NAP_MOST_NS);
    else if (number % YIELD_ONE_IN == 1)
        sched_yield();
    errno = saved;
}

static void count_down(void)
{
    int saved = errno;

    if (--act.points_left == 0)
        act.fn(act.arg);
    errno = saved;
}

void aside_sched_point(void)
{
    uint64_t now = relaxed_load(&generation);

    if (__builtin_expect(act.points_left > 0, 0))
        count_down();
    if (__builtin_expect(now == 0, 1))
        return;
    if (self.generation != now)
        begin(now);
    disturb(draw() >> 8);
}

bool perturb(uint64_t seed)
{
#ifdef ASIDE_SCHED
    relaxed_store(&threads_seen, 0);
    relaxed_store(&current_seed, seed);
    relaxed_store(&generation, seed ? relaxed_add(&generations, 1) + 1 : 0);
    return true;
#else
    (void)seed;
    return false;
#endif
}

bool act_at_point(int64_t nth, void (*fn)(void *arg), void *arg)
{
#ifdef ASIDE_SCHED
    act.points_left = nth;
    act.fn = fn;
    act.arg = arg;
    return true;
#else
    (void)nth;
    (void)fn;
    (void)arg;
    return false;
#endif
}
