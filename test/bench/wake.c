/*
 * wake.c -- how long a crowd takes to return once its flight is complete, beside a bare futex.
 *
 * Ours: one caller leads a flight whose fetch is held at a gate; N others join it. Once the library
 * says that all of them wait, and the kernel that all of them sleep, the gate opens. Timed from the
 * instant before the fetch returns to the last return of any caller, the leader's included.
 * Bare: the same threads wait on one futex word; timed from the instant before the word changes and
 * FUTEX_WAKE takes all, to the last return, the waker's included. Ours and bare alternate.
 */
#include "lib_bench.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STACK_BYTES ((size_t)128 << 10)
#define GOAL 1.10

enum mode { FLIGHT, BARE, HOME };

static struct {
    aside_cache *cache;
    size_t waiters;
    pthread_t *threads; /* the leader is number 0 */
    pid_t *tids;
    int64_t *returned_ns;
    pthread_barrier_t begin, end;
    struct bench_event round;   /* the leader may begin it */
    struct bench_event holding; /* the leader is at the gate */
    struct bench_event gate;
    _Atomic uint32_t word;   /* what the bare waiters wait on */
    _Atomic uint32_t parked; /* bare waiters that are about to */
    _Atomic uint32_t known;  /* threads whose tid is noted */
    uint32_t number;         /* of the round */
    enum mode mode;
    char key[BENCH_KEY];
    int64_t start_ns;
} crowd;

/* ---- the leader ------------------------------------------------------------------------------ */

static void hold(void)
{
    uint32_t number = crowd.number;
    bench_event_set(&crowd.holding, number);
    bench_event_await(&crowd.gate, number);
}

static aside_status held_fetch(aside_fetch *fetch, void *arg)
{
    (void)arg;
    static const char payload[BENCH_VALUE] = "value";
    aside_status status = aside_fetch_copy(fetch, payload, sizeof payload);
    hold();
    crowd.start_ns = bench_now_ns();
    return status;
}

static void call(size_t who, aside_outcome expected)
{
    const aside_call options = {ASIDE_CALL, .fetch = held_fetch};
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status =
        aside_get_with_fetch(crowd.cache, crowd.key, BENCH_KEY, &options, &result);
    crowd.returned_ns[who] = bench_now_ns();
    NEED(status == ASIDE_OK && result.outcome == expected);
    NEED(aside_value_size(result.value) == BENCH_VALUE);
    aside_value_unref(result.value);
}

static void wake_bare(void)
{
    hold();
    crowd.start_ns = bench_now_ns();
    atomic_store(&crowd.word, crowd.number);
    bench_futex_wake(&crowd.word, INT_MAX);
    crowd.returned_ns[0] = bench_now_ns();
}

static void *leader(void *arg)
{
    (void)arg;
    crowd.tids[0] = bench_tid();
    atomic_fetch_add(&crowd.known, 1);
    for (uint32_t number = 1;; number++) {
        bench_event_await(&crowd.round, number);
        if (crowd.mode == HOME)
            return NULL;
        if (crowd.mode == FLIGHT)
            call(0, ASIDE_OUTCOME_FETCHED);
        else
            wake_bare();
        pthread_barrier_wait(&crowd.end);
    }
}

/* ---- the waiters ----------------------------------------------------------------------------- */

static void wait_bare(size_t who)
{
    uint32_t before = crowd.number - 1, seen;
    atomic_fetch_add(&crowd.parked, 1);
    while ((seen = atomic_load(&crowd.word)) <= before)
        bench_futex_wait(&crowd.word, seen);
    crowd.returned_ns[who] = bench_now_ns();
}

static void *waiter(void *arg)
{
    size_t who = *(size_t *)arg;
    free(arg);
    crowd.tids[who] = bench_tid();
    atomic_fetch_add(&crowd.known, 1);
    for (;;) {
        pthread_barrier_wait(&crowd.begin);
        if (crowd.mode == HOME)
            return NULL;
        if (crowd.mode == FLIGHT)
            call(who, ASIDE_OUTCOME_JOINED);
        else
            wait_bare(who);
        pthread_barrier_wait(&crowd.end);
    }
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void await_asleep(void)
{
    for (size_t i = 0; i <= crowd.waiters; i++)
        while (!bench_asleep(crowd.tids[i]))
            bench_nap_us(50);
}

static void begin(enum mode mode)
{
    crowd.mode = mode;
    crowd.number++;
    atomic_store(&crowd.parked, 0);
    bench_key(crowd.key, crowd.waiters * 1000000 + crowd.number);
    bench_event_set(&crowd.round, crowd.number);
}

/* Milliseconds from the start to the last return. */
static double round_ms(enum mode mode)
{
    begin(mode);
    bench_event_await(&crowd.holding, crowd.number);
    uint64_t before = bench_stats(crowd.cache).waiters_now;
    pthread_barrier_wait(&crowd.begin);
    if (mode == FLIGHT)
        while (bench_stats(crowd.cache).waiters_now < before + crowd.waiters)
            bench_nap_us(200);
    else
        while (atomic_load(&crowd.parked) < crowd.waiters)
            bench_nap_us(200);
    await_asleep();
    bench_event_set(&crowd.gate, crowd.number);
    pthread_barrier_wait(&crowd.end);
    int64_t last_ns = 0;
    for (size_t i = 0; i <= crowd.waiters; i++)
        if (crowd.returned_ns[i] > last_ns)
            last_ns = crowd.returned_ns[i];
    return (double)(last_ns - crowd.start_ns) / 1e6;
}

static void gather(size_t waiters)
{
    memset(&crowd, 0, sizeof crowd);
    crowd.waiters = waiters;
    crowd.threads = bench_alloc((waiters + 1) * sizeof *crowd.threads);
    crowd.tids = bench_alloc((waiters + 1) * sizeof *crowd.tids);
    crowd.returned_ns = bench_alloc((waiters + 1) * sizeof *crowd.returned_ns);
    NEED(aside_open(&crowd.cache, NULL) == ASIDE_OK);
    NEED(pthread_barrier_init(&crowd.begin, NULL, (unsigned)waiters + 1) == 0);
    NEED(pthread_barrier_init(&crowd.end, NULL, (unsigned)waiters + 2) == 0);
    pthread_attr_t small;
    NEED(pthread_attr_init(&small) == 0);
    NEED(pthread_attr_setstacksize(&small, STACK_BYTES) == 0);
    NEED(pthread_create(&crowd.threads[0], &small, leader, NULL) == 0);
    for (size_t i = 1; i <= waiters; i++) {
        size_t *who = bench_alloc(sizeof *who);
        *who = i;
        NEED(pthread_create(&crowd.threads[i], &small, waiter, who) == 0);
    }
    pthread_attr_destroy(&small);
    while (atomic_load(&crowd.known) < waiters + 1)
        bench_nap_us(200);
}

static void disperse(void)
{
    begin(HOME);
    pthread_barrier_wait(&crowd.begin);
    for (size_t i = 0; i <= crowd.waiters; i++)
        NEED(pthread_join(crowd.threads[i], NULL) == 0);
    pthread_barrier_destroy(&crowd.begin);
    pthread_barrier_destroy(&crowd.end);
    NEED(aside_close(crowd.cache) == ASIDE_OK);
    aside_unref(crowd.cache);
    free(crowd.threads);
    free(crowd.tids);
    free(crowd.returned_ns);
}

static void measure(size_t waiters, size_t rounds)
{
    double *ours = bench_alloc(rounds * sizeof *ours);
    double *bare = bench_alloc(rounds * sizeof *bare);
    double *ratio = bench_alloc(rounds * sizeof *ratio);
    gather(waiters);
    (void)round_ms(FLIGHT);
    (void)round_ms(BARE);
    for (size_t i = 0; i < rounds; i++) {
        if (i % 2)
            bare[i] = round_ms(BARE);
        ours[i] = round_ms(FLIGHT);
        if (i % 2 == 0)
            bare[i] = round_ms(BARE);
        ratio[i] = ours[i] / bare[i];
    }
    aside_stats stats = bench_stats(crowd.cache);
    NEED(stats.fetches == rounds + 1 && stats.misses_joined == (rounds + 1) * waiters);
    disperse();
    struct bench_spread times = bench_spread(ratio, rounds);
    struct bench_spread us = bench_spread(ours, rounds), them = bench_spread(bare, rounds);
    NEED(us.low > 0 && them.low > 0);
    printf("%zu waiters: ours %.3f ms (%.3f..%.3f), bare %.3f ms (%.3f..%.3f)\n", waiters, us.mid,
           us.low, us.high, them.mid, them.low, them.high);
    printf("wake: waiters=%zu ours_ms=%.3f bare_ms=%.3f ratio=%.2f ratio_min=%.2f ratio_max=%.2f "
           "goal=%.2f goal_is=%s\n",
           waiters, us.mid, them.mid, times.mid, times.low, times.high, GOAL,
           bench_verdict(times.mid <= GOAL));
    free(ours);
    free(bare);
    free(ratio);
}

int main(int argc, char **argv)
{
    long rounds = 51;
    const struct bench_option options[] = {{"--rounds", &rounds, 1, "pairs for each crowd"}};
    bench_options(argc, argv, options, 1);
    bench_machine("wake");
    printf("%ld alternating rounds, completion to the last return of all callers, medians\n"
           "goal: %.2f x one bare FUTEX_WAKE of as many threads, or less\n\n",
           rounds, GOAL);
    measure(100, (size_t)rounds);
    measure(1000, (size_t)rounds);
    return 0;
}
