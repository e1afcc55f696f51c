/*
 * leave.c -- how long a caller takes to leave while every core is busy (C5, P1).
 *
 * Twice as many spinning threads as cores. One caller waits for a flight that another caller leads
 * and whose fetch is held at a gate; a control thread waits on a bare futex word. Once both sleep,
 * the caller is released (its token fires, or the cache closes) and the control is woken, one right
 * after the other, in turns of order. Each is timed from the instant before its own release to its
 * own return.
 */
#include "lib_bench.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define BUSY_PER_CORE 2
#define TARGET_OVER_MS 5.0 /* p99.9 over the control's */
#define TARGET_WORST_MS 1000.0

enum mode { CANCEL, CLOSE, MODES };
static const char *const mode_names[MODES] = {"cancel", "close"};

static aside_cache *cache;
static aside_cancel *token;
static struct bench_event begin, caller_done, control_done, control_parks, control_go;
static struct bench_event holding, gate; /* of the held fetch, numbered by leader */
static uint32_t leaders;
static aside_status expected;
static int64_t caller_ns, control_ns; /* when they returned */
static _Atomic int caller_tid, control_tid;
static _Atomic bool going_home;

/* ---- the threads ----------------------------------------------------------------------------- */

static void *spin(void *arg)
{
    while (!atomic_load_explicit(&going_home, memory_order_relaxed))
        continue;
    return arg;
}

static aside_status held_fetch(aside_fetch *fetch, void *arg)
{
    (void)arg;
    uint32_t number = leaders;
    bench_event_set(&holding, number);
    bench_event_await(&gate, number);
    return aside_fetch_not_found(fetch);
}

static void *lead(void *arg)
{
    const aside_call call = {ASIDE_CALL, .fetch = held_fetch};
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status = aside_get_with_fetch(cache, ASIDE_STR("held"), &call, &result);
    NEED(status == ASIDE_NOT_FOUND || status == ASIDE_E_CLOSED);
    return arg;
}

static void *caller(void *arg)
{
    atomic_store(&caller_tid, bench_tid());
    for (uint32_t number = 1;; number++) {
        bench_event_await(&begin, number);
        if (atomic_load(&going_home))
            return arg;
        const aside_call call = {ASIDE_CALL, .fetch = held_fetch, .cancel = token};
        aside_result result = ASIDE_RESULT_INIT;
        aside_status status = aside_get_with_fetch(cache, ASIDE_STR("held"), &call, &result);
        caller_ns = bench_now_ns();
        NEED(status == expected);
        bench_event_set(&caller_done, number);
    }
}

static void *control(void *arg)
{
    atomic_store(&control_tid, bench_tid());
    for (uint32_t number = 1;; number++) {
        bench_event_await(&begin, number);
        if (atomic_load(&going_home))
            return arg;
        bench_event_set(&control_parks, number);
        bench_event_await(&control_go, number);
        control_ns = bench_now_ns();
        bench_event_set(&control_done, number);
    }
}

/* ---- the scene ------------------------------------------------------------------------------- */

static pthread_t start_leader(void)
{
    pthread_t thread;
    leaders++;
    NEED(pthread_create(&thread, NULL, lead, NULL) == 0);
    bench_event_await(&holding, leaders);
    return thread;
}

static void end_leader(pthread_t thread)
{
    bench_event_set(&gate, leaders);
    NEED(pthread_join(thread, NULL) == 0);
}

static void open_cache(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.max_flight_age_ms = ASIDE_FOREVER;
    options.reaper_interval_ms = 0;
    options.close_wait_ms = 0;
    NEED(aside_open(&cache, &options) == ASIDE_OK);
}

static void let_both_sleep(uint32_t number, uint64_t waiters)
{
    bench_event_set(&begin, number);
    bench_event_await(&control_parks, number);
    while (bench_stats(cache).waiters_now < waiters || !bench_asleep(atomic_load(&caller_tid)) ||
           !bench_asleep(atomic_load(&control_tid)))
        bench_nap_us(100);
}

static int64_t release_caller(enum mode mode)
{
    int64_t start_ns = bench_now_ns();
    if (mode == CANCEL)
        aside_cancel_fire(token);
    else
        NEED(aside_close(cache) == ASIDE_OK);
    return start_ns;
}

static int64_t release_control(uint32_t number)
{
    int64_t start_ns = bench_now_ns();
    bench_event_set(&control_go, number);
    return start_ns;
}

/* Milliseconds of both in one round. number counts the rounds of all modes. */
static void one_round(enum mode mode, uint32_t number, uint64_t waiters, double *ours, double *bare)
{
    int64_t caller_from_ns, control_from_ns;
    let_both_sleep(number, waiters);
    if (number % 2) {
        caller_from_ns = release_caller(mode);
        control_from_ns = release_control(number);
    } else {
        control_from_ns = release_control(number);
        caller_from_ns = release_caller(mode);
    }
    bench_event_await(&caller_done, number);
    bench_event_await(&control_done, number);
    *ours = (double)(caller_ns - caller_from_ns) / 1e6;
    *bare = (double)(control_ns - control_from_ns) / 1e6;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static uint32_t rounds_begun; /* over both modes */

/* All rounds under one flight. Each returns how many there was time for. */
static size_t measure_cancel(size_t rounds, int64_t until_ns, double *ours, double *bare)
{
    open_cache();
    expected = ASIDE_E_CANCELLED;
    pthread_t leader = start_leader();
    uint64_t waiters = bench_stats(cache).waiters_now + 1;
    size_t done = 0;
    while (done < rounds && bench_now_ns() < until_ns) {
        NEED(aside_cancel_new(&token) == ASIDE_OK);
        one_round(CANCEL, ++rounds_begun, waiters, &ours[done], &bare[done]);
        aside_cancel_unref(token);
        done++;
    }
    NEED(bench_stats(cache).cancelled == done);
    end_leader(leader);
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
    return done;
}

/* A cache and a flight for each round. */
static size_t measure_close(size_t rounds, int64_t until_ns, double *ours, double *bare)
{
    expected = ASIDE_E_CLOSED;
    token = NULL;
    size_t done = 0;
    while (done < rounds && bench_now_ns() < until_ns) {
        open_cache();
        pthread_t leader = start_leader();
        uint64_t waiters = bench_stats(cache).waiters_now + 1;
        one_round(CLOSE, ++rounds_begun, waiters, &ours[done], &bare[done]);
        end_leader(leader);
        aside_unref(cache);
        done++;
    }
    return done;
}

static void report(enum mode mode, const double *ours, const double *bare, size_t rounds)
{
    static const double parts[] = {0.5, 0.99, 0.999, 1};
    static const char *const names[] = {"p50", "p99", "p99.9", "max"};
    double q[2][4];
    printf("%-7s %zu rounds\n        %-6s %10s %10s   milliseconds\n", mode_names[mode], rounds, "",
           "caller", "control");
    for (int i = 0; i < 4; i++) {
        q[0][i] = bench_quantile(ours, rounds, parts[i]);
        q[1][i] = bench_quantile(bare, rounds, parts[i]);
        printf("        %-6s %10.3f %10.3f\n", names[i], q[0][i], q[1][i]);
    }
    bool met = q[0][2] <= q[1][2] + TARGET_OVER_MS && q[0][3] <= TARGET_WORST_MS;
    for (int i = 0; i < 2; i++)
        printf("leave: by=%s who=%s rounds=%zu p50_ms=%.3f p99_ms=%.3f p99.9_ms=%.3f max_ms=%.3f\n",
               mode_names[mode], i ? "control" : "caller", rounds, q[i][0], q[i][1], q[i][2],
               q[i][3]);
    printf("leave: by=%s p99.9_over_control_ms=%.3f target_over_ms=%.0f target_max_ms=%.0f "
           "target_is=%s\n\n",
           mode_names[mode], q[0][2] - q[1][2], TARGET_OVER_MS, TARGET_WORST_MS,
           bench_verdict(met));
}

static void run(enum mode mode, size_t rounds, int64_t seconds)
{
    double *ours = bench_alloc(rounds * sizeof *ours);
    double *bare = bench_alloc(rounds * sizeof *bare);
    int64_t until_ns = bench_now_ns() + seconds * 1000000000;
    size_t done = mode == CANCEL ? measure_cancel(rounds, until_ns, ours, bare)
                                 : measure_close(rounds, until_ns, ours, bare);
    report(mode, ours, bare, done);
    free(ours);
    free(bare);
}

int main(int argc, char **argv)
{
    long rounds = 10000, closes = 1000, seconds = 25;
    const struct bench_option options[] = {
        {"--rounds", &rounds, 1, "cancellations"},
        {"--closes", &closes, 1, "closes"},
        {"--seconds", &seconds, 1, "most seconds for each of the two"},
    };
    bench_options(argc, argv, options, sizeof options / sizeof *options);
    bench_machine("leave");
    int busy = BUSY_PER_CORE * bench_cores();
    printf(
        "%d busy threads; targets: p99.9 within %.0f ms of the control's, never over %.0f ms\n\n",
        busy, TARGET_OVER_MS, TARGET_WORST_MS);

    pthread_t pair[2], *spinners = bench_alloc((size_t)busy * sizeof *spinners);
    NEED(pthread_create(&pair[0], NULL, caller, NULL) == 0);
    NEED(pthread_create(&pair[1], NULL, control, NULL) == 0);
    while (!atomic_load(&caller_tid) || !atomic_load(&control_tid))
        bench_nap_us(100);
    for (int i = 0; i < busy; i++)
        NEED(pthread_create(&spinners[i], NULL, spin, NULL) == 0);
    run(CANCEL, (size_t)rounds, seconds);
    run(CLOSE, (size_t)closes, seconds);

    atomic_store(&going_home, true);
    bench_event_set(&begin, rounds_begun + 1);
    for (int i = 0; i < 2; i++)
        NEED(pthread_join(pair[i], NULL) == 0);
    for (int i = 0; i < busy; i++)
        NEED(pthread_join(spinners[i], NULL) == 0);
    free(spinners);
    return 0;
}
