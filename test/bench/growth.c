/*
 * growth.c -- how cost grows with size. Prints one line a point, fields parted by tabs: plot,
 * series, x, and the median, the least and the greatest y of its rounds; lines that begin with #
 * are remarks.
 *
 *   hit       ns of processor time a hit by aside_copy, against entries; uniform keys, one thread
 *   reap      us of processor time of one aside_reap(), against what varies: entries that have
 *             expired, none being alive; entries that are alive, 1,000 having expired
 *   wake      us from the completion of a flight to the return of the last of its callers, against
 *             those who wait
 *   wake_cpu  us of processor time of all threads for that, a waiter
 *   bytes     bytes an entry while a cache fills, against entries: requested of the allocator, and
 *             resident
 *
 * Each plot is taken in a process of its own: none finds the memory that another has left over.
 */
#include "lib_memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIRST 1000      /* entries at the first step */
#define LONG_MS 3600000 /* ttl of entries that stay */

static long most_entries = 10000000; /* of hit */
static long most_reaped = 1000000;
static long most_filled = 1000000; /* of bytes */
static long most_waiters = 10000;
static long rounds = 15;

/* ---- what all plots share -------------------------------------------------------------------- */

/* 1, 2 and 5 times a power of ten. */
static long next_step(long step)
{
    long power = 1;
    while (power * 10 <= step)
        power *= 10;
    return step < 2 * power ? 2 * power : step < 5 * power ? 5 * power : 10 * power;
}

static void print_point(const char *plot, const char *series, long x, const double *values,
                        size_t count)
{
    struct bench_spread spread = bench_spread(values, count);
    printf("%s\t%s\t%ld\t%.3f\t%.3f\t%.3f\n", plot, series, x, spread.mid, spread.low, spread.high);
}

static aside_cache *open_unbounded(aside_options *options)
{
    static const uint8_t seed[16] = "0123456789abcdef";
    aside_cache *cache;
    options->max_bytes = 0;
    options->reaper_interval_ms = 0;
    options->hash_seed = seed;
    NEED(aside_open(&cache, options) == ASIDE_OK);
    return cache;
}

static void close_cache(aside_cache *cache)
{
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
}

/* The value says whose it is. */
static void set_entry(aside_cache *cache, uint64_t number, int64_t ttl_ms)
{
    char key[BENCH_KEY], value[BENCH_VALUE];
    bench_key(key, number);
    for (int i = 0; i < BENCH_VALUE; i += BENCH_KEY)
        memcpy(value + i, key, BENCH_KEY);
    NEED(aside_set(cache, key, sizeof key, value, sizeof value, ttl_ms) == ASIDE_OK);
}

static void in_child(void (*plot)(void))
{
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        plot();
        fflush(stdout);
        _exit(0);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- hit ------------------------------------------------------------------------------------- */

#define BATCH 4096         /* keys that lie ready: few, they are in the way of the entries */
#define BATCHES 24         /* of a round */
#define BYTES_AN_ENTRY 350 /* more than the fill takes at its worst moment */

static int64_t hit_batch_ns(aside_cache *cache, long entries, uint64_t *random)
{
    static char asked[BATCH][BENCH_KEY], got[BENCH_VALUE];
    for (int i = 0; i < BATCH; i++)
        bench_key(asked[i], bench_random(random) % (uint64_t)entries);
    int64_t start_ns = bench_cpu_ns();
    for (int i = 0; i < BATCH; i++) {
        size_t size;
        NEED(aside_copy(cache, asked[i], BENCH_KEY, got, sizeof got, &size) == ASIDE_OK);
        NEED(memcmp(got, asked[i], BENCH_KEY) == 0);
    }
    return bench_cpu_ns() - start_ns;
}

static void hit_point(aside_cache *cache, long entries)
{
    static uint64_t random = 1;
    double *ns = bench_alloc((size_t)rounds * sizeof *ns);
    for (long round = -1; round < rounds; round++) { /* the first warms up */
        int64_t took_ns = 0;
        for (int i = 0; i < BATCHES; i++)
            took_ns += hit_batch_ns(cache, entries, &random);
        if (round >= 0)
            ns[round] = (double)took_ns / (BATCH * BATCHES);
    }
    print_point("hit", "copy", entries, ns, (size_t)rounds);
    free(ns);
}

static void plot_hit(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = open_unbounded(&options);
    int64_t available = memory_available_bytes();
    bench_pin(0);
    for (long step = FIRST, filled = 0; step <= most_entries; step = next_step(step)) {
        if (available && step * BYTES_AN_ENTRY > available) {
            printf("# hit ends before %ld entries: they may not fit in %lld MiB of free memory\n",
                   step, (long long)available >> 20);
            break;
        }
        while (filled < step)
            set_entry(cache, (uint64_t)filled++, LONG_MS);
        hit_point(cache, step);
    }
    close_cache(cache);
}

/* ---- reap ------------------------------------------------------------------------------------ */

#define REAP_ROUNDS 5
#define REAP_EXPIRED 1000 /* where the entries that are alive vary */
#define SHORT_MS 1000 /* ttl of entries that go; the others have LONG_MS and up to ten times that */

static _Atomic int64_t reap_clock_ns;

static int64_t reap_now(void *ctx)
{
    return atomic_load((_Atomic int64_t *)ctx);
}

static aside_cache *open_clocked(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    atomic_store(&reap_clock_ns, INT64_C(1000000000000));
    options.clock = (aside_clock){reap_now, &reap_clock_ns};
    return open_unbounded(&options);
}

/* Stores entries that expire soon, lets the time pass, and removes them. */
static double reap_us(aside_cache *cache, long expired)
{
    static uint64_t number = UINT64_C(1) << 32;
    size_t reaped;
    for (long i = 0; i < expired; i++)
        set_entry(cache, number++, SHORT_MS);
    atomic_fetch_add(&reap_clock_ns, 2 * SHORT_MS * INT64_C(1000000));
    NEED(aside_clock_changed(cache) == ASIDE_OK);
    int64_t start_ns = bench_cpu_ns();
    NEED(aside_reap(cache, 0, &reaped) == ASIDE_OK);
    int64_t took_ns = bench_cpu_ns() - start_ns;
    NEED(reaped == (size_t)expired);
    return (double)took_ns / 1e3;
}

static void plot_reap_expired(void)
{
    double us[REAP_ROUNDS];
    bench_pin(0);
    for (long step = FIRST; step <= most_reaped; step = next_step(step)) {
        for (int round = 0; round < REAP_ROUNDS; round++) {
            aside_cache *cache = open_clocked();
            us[round] = reap_us(cache, step);
            NEED(aside_count(cache) == 0);
            close_cache(cache);
        }
        print_point("reap", "expired", step, us, REAP_ROUNDS);
    }
}

static void plot_reap_live(void)
{
    double us[REAP_ROUNDS];
    uint64_t random = 2;
    aside_cache *cache = open_clocked();
    bench_pin(0);
    for (long step = FIRST, live = 0; step <= most_reaped; step = next_step(step)) {
        for (; live < step; live++)
            set_entry(cache, (uint64_t)live,
                      LONG_MS + (int64_t)(bench_random(&random) % (9 * LONG_MS)));
        for (int round = -1; round < REAP_ROUNDS; round++) {
            double took_us = reap_us(cache, REAP_EXPIRED);
            us[round < 0 ? 0 : round] = took_us; /* the first warms up */
        }
        NEED(aside_count(cache) == (size_t)live);
        print_point("reap", "live", step, us, REAP_ROUNDS);
    }
    close_cache(cache);
}

/* ---- wake ------------------------------------------------------------------------------------ */

#define STACK_BYTES ((size_t)64 << 10)

/* One caller that waits, on a thread of its own. */
struct waiter {
    pthread_t thread;
    _Atomic pid_t tid;
    int64_t cpu_before_ns, cpu_after_ns, returned_ns;
};

static struct {
    aside_cache *cache;
    struct waiter *waiters;
    long count;
    pthread_barrier_t begin, end;
    bool home; /* the waiters may end */
    char key[BENCH_KEY];
    int64_t complete_ns, complete_cpu_ns;
} crowd;

static aside_status never_fetch(aside_fetch *fetch, void *arg)
{
    (void)arg;
    NEED(!"a waiter leads");
    return aside_fetch_not_found(fetch);
}

static void wait_for_flight(struct waiter *self)
{
    const aside_call call = {ASIDE_CALL, .fetch = never_fetch};
    aside_result result = ASIDE_RESULT_INIT;
    NEED(aside_get_with_fetch(crowd.cache, crowd.key, BENCH_KEY, &call, &result) == ASIDE_OK);
    self->returned_ns = bench_now_ns();
    self->cpu_after_ns = bench_cpu_ns();
    NEED(result.outcome == ASIDE_OUTCOME_JOINED);
    aside_value_unref(result.value);
}

static void *waiter_main(void *arg)
{
    struct waiter *self = arg;
    atomic_store(&self->tid, bench_tid());
    for (;;) {
        pthread_barrier_wait(&crowd.begin);
        if (crowd.home)
            return NULL;
        wait_for_flight(self);
        pthread_barrier_wait(&crowd.end);
    }
}

/* Until all wait, as the library sees it, and sleep, as the kernel does. */
static void await_crowd(void)
{
    while (bench_stats(crowd.cache).waiters_now < (uint64_t)crowd.count)
        bench_nap_us(200);
    for (long i = 0; i < crowd.count; i++) {
        struct waiter *waiter = &crowd.waiters[i];
        clockid_t clock;
        struct timespec used;
        while (!bench_asleep(atomic_load(&waiter->tid)))
            bench_nap_us(50);
        NEED(pthread_getcpuclockid(waiter->thread, &clock) == 0);
        NEED(clock_gettime(clock, &used) == 0);
        waiter->cpu_before_ns = (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
    }
}

/* Runs on the leader's thread. */
static aside_status crowded_fetch(aside_fetch *fetch, void *arg)
{
    static const char payload[BENCH_VALUE] = "value";
    (void)arg;
    pthread_barrier_wait(&crowd.begin);
    await_crowd();
    aside_status status = aside_fetch_copy(fetch, payload, sizeof payload);
    crowd.complete_cpu_ns = bench_cpu_ns();
    crowd.complete_ns = bench_now_ns();
    return status;
}

/* One flight: to the last return in *last_us, processor time a waiter in *cpu_us. */
static void wake_crowd(uint64_t number, double *last_us, double *cpu_us)
{
    const aside_call call = {ASIDE_CALL, .fetch = crowded_fetch};
    aside_result result = ASIDE_RESULT_INIT;
    bench_key(crowd.key, number);
    NEED(aside_get_with_fetch(crowd.cache, crowd.key, BENCH_KEY, &call, &result) == ASIDE_OK);
    int64_t last_ns = bench_now_ns(), cpu_ns = bench_cpu_ns() - crowd.complete_cpu_ns;
    NEED(result.outcome == ASIDE_OUTCOME_FETCHED && result.shared);
    aside_value_unref(result.value);
    pthread_barrier_wait(&crowd.end);
    for (long i = 0; i < crowd.count; i++) {
        const struct waiter *waiter = &crowd.waiters[i];
        last_ns = waiter->returned_ns > last_ns ? waiter->returned_ns : last_ns;
        cpu_ns += waiter->cpu_after_ns - waiter->cpu_before_ns;
    }
    *last_us = (double)(last_ns - crowd.complete_ns) / 1e3;
    *cpu_us = (double)cpu_ns / 1e3 / (double)crowd.count;
}

/* False if the system does not give as many threads; those that it gave are left at the barrier. */
static bool gather(long count)
{
    pthread_attr_t small;
    aside_options options = ASIDE_OPTIONS_INIT;
    crowd.cache = open_unbounded(&options);
    crowd.count = count;
    crowd.waiters = bench_alloc((size_t)count * sizeof *crowd.waiters);
    crowd.home = false;
    NEED(pthread_barrier_init(&crowd.begin, NULL, (unsigned)count + 1) == 0);
    NEED(pthread_barrier_init(&crowd.end, NULL, (unsigned)count + 1) == 0);
    NEED(pthread_attr_init(&small) == 0);
    NEED(pthread_attr_setstacksize(&small, STACK_BYTES) == 0);
    long made = 0;
    while (made < count && pthread_create(&crowd.waiters[made].thread, &small, waiter_main,
                                          &crowd.waiters[made]) == 0)
        made++;
    pthread_attr_destroy(&small);
    for (long i = 0; i < made; i++)
        while (!atomic_load(&crowd.waiters[i].tid))
            bench_nap_us(200);
    if (made < count)
        printf("# wake ends before %ld waiters: the system gives %ld threads\n", count, made);
    return made == count;
}

static void disperse(void)
{
    crowd.home = true;
    pthread_barrier_wait(&crowd.begin);
    for (long i = 0; i < crowd.count; i++)
        NEED(pthread_join(crowd.waiters[i].thread, NULL) == 0);
    pthread_barrier_destroy(&crowd.begin);
    pthread_barrier_destroy(&crowd.end);
    close_cache(crowd.cache);
    free(crowd.waiters);
}

static void plot_wake(void)
{
    double *last_us = bench_alloc((size_t)rounds * sizeof *last_us);
    double *cpu_us = bench_alloc((size_t)rounds * sizeof *cpu_us);
    for (long count = 1; count <= most_waiters && gather(count); count *= 10) {
        wake_crowd(0, last_us, cpu_us); /* warms up */
        for (long i = 0; i < rounds; i++)
            wake_crowd((uint64_t)i + 1, &last_us[i], &cpu_us[i]);
        disperse();
        print_point("wake", "last_return", count, last_us, (size_t)rounds);
        print_point("wake_cpu", "a_waiter", count, cpu_us, (size_t)rounds);
    }
    free(last_us);
    free(cpu_us);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static struct memory_ledger ledger;

static int64_t requested_bytes(void)
{
    return atomic_load(&ledger.live_bytes);
}

/* A point every hundredth more, so that the steps of growth are seen. */
static void plot_fill(const char *series, aside_options *options, int64_t (*level)(void))
{
    (void)level(); /* what looking takes is taken before the start */
    int64_t start = level();
    aside_cache *cache = open_unbounded(options);
    for (long count = 1, next = FIRST; count <= most_filled; count++) {
        set_entry(cache, (uint64_t)count - 1, LONG_MS);
        if (count < next && count < most_filled)
            continue;
        double each = (double)(level() - start) / (double)count;
        print_point("bytes", series, count, &each, 1);
        next += next / 100;
    }
    NEED(aside_count(cache) == (size_t)most_filled);
    close_cache(cache);
}

static void plot_requested(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.alloc = memory_ledger_alloc(&ledger);
    plot_fill("requested", &options, requested_bytes);
    NEED(requested_bytes() == 0);
}

static void plot_resident(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    plot_fill("resident", &options, memory_resident_bytes);
}

/* ---- the run --------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    const struct bench_option options[] = {
        {"--entries", &most_entries, FIRST, "most entries of hit"},
        {"--reaped", &most_reaped, FIRST, "most entries of reap"},
        {"--waiters", &most_waiters, 1, "most waiters of wake"},
        {"--filled", &most_filled, FIRST, "most entries of bytes"},
        {"--rounds", &rounds, 1, "rounds of a point of hit and wake"},
    };
    bench_options(argc, argv, options, sizeof options / sizeof *options);
    printf("# ");
    bench_machine("growth");
    printf("# %d-byte keys, %d-byte values\n", BENCH_KEY, BENCH_VALUE);
    printf("plot\tseries\tx\ty\tleast\tgreatest\n");
    in_child(plot_requested);
    in_child(plot_resident);
    in_child(plot_hit);
    in_child(plot_reap_expired);
    in_child(plot_reap_live);
    in_child(plot_wake);
    return 0;
}
