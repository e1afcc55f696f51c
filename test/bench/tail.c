/*
 * tail.c -- what the reaper costs, and what it and the growth of the index do to the slowest calls.
 *
 * Reaper: a million entries, 16-byte keys, 64-byte values, a clock of our own. The clock is moved
 * so that none, one in a hundred or all of them are over, and one aside_reap() is timed by the
 * processor time of its thread.
 *
 * Slowest calls: one pinned thread times each of its calls, aside_get with the handle given back,
 * or aside_set, by two looks at the clock; the 99.9th percentile with the other thread at work is
 * compared with that of the same slice without. The two alternate, the order turns every pair.
 * A slice in which the kernel kept the thread from its core is tried again a few times.
 *   reap-N   the other thread calls aside_reap() on a million entries of which N expire during the
 *            slices, again at once as long as that removes any, else after a pause; without: it
 *            computes. The keys that are asked for and stored are others.
 *   growth   of get: the other thread stores new keys, from a tenth of a million entries to a
 *            million, so that the index grows several times; without: it stores as many in an index
 *            that has grown.
 *            of set: the thread itself fills a cache, from empty to a million entries; without: a
 *            cache whose entries were all deleted, so that its index has its size. Both get the
 *            memory of their entries from the kernel, page by page.
 */
#include "lib_bench.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 1000000
#define HALF (MANY / 2)   /* keys below are asked for; of the others some expire */
#define TENTH (MANY / 10) /* entries when the growth begins */
#define LONG_MS ((int64_t)3600000)
#define DAY_MS ((int64_t)86400000)
#define SAMPLES (4u << 20)
#define TARGET 1.5
#define PART .999
#define KEPT_MOST .02 /* of a slice that counts as undisturbed */
#define TRIES 3

static char payload[BENCH_VALUE];
static char *keys;
static uint32_t *samples; /* nanoseconds */
static long slice_ms = 80, pairs = 9, rounds = 5, pause_us = 1000;

static const char *key_of(size_t number)
{
    return keys + number * BENCH_KEY;
}

static void store(aside_cache *cache, size_t number, int64_t ttl_ms)
{
    NEED(aside_set(cache, key_of(number), BENCH_KEY, payload, sizeof payload, ttl_ms) == ASIDE_OK);
}

static void store_all(aside_cache *cache, size_t from, size_t to, int64_t ttl_ms)
{
    for (size_t i = from; i < to; i++)
        store(cache, i, ttl_ms);
}

static aside_cache *open_cache(const aside_clock *clock)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.max_bytes = (size_t)1 << 30;
    options.reaper_interval_ms = 0;
    if (clock)
        options.clock = *clock;
    aside_cache *cache;
    NEED(aside_open(&cache, &options) == ASIDE_OK);
    return cache;
}

static void close_cache(aside_cache *cache)
{
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
}

/* ---- what the reaper costs ------------------------------------------------------------------- */

static int64_t own_now_ns(void *ctx)
{
    return *(int64_t *)ctx;
}

/* Nanoseconds of one aside_reap() that has to remove so many of a million. */
static double reap_ns(aside_cache *cache, int64_t *now_ns, size_t expired)
{
    const int64_t ttl_ms = 60000;
    store_all(cache, 0, expired, ttl_ms);
    *now_ns += 2 * ttl_ms * 1000000;
    aside_clock_changed(cache);
    size_t reaped;
    int64_t start_ns = bench_cpu_ns();
    NEED(aside_reap(cache, 0, &reaped) == ASIDE_OK);
    int64_t took_ns = bench_cpu_ns() - start_ns;
    NEED(reaped == expired);
    store_all(cache, 0, expired, 1000 * DAY_MS);
    return (double)took_ns;
}

static void report_reap(size_t expired, const double *ns)
{
    struct bench_spread spread = bench_spread(ns, (size_t)rounds);
    double each = expired ? spread.mid / (double)expired : 0;
    printf("reap: entries=%d expired=%zu ms=%.3f ms_min=%.3f ms_max=%.3f ns_expired=%.1f "
           "ns_entry=%.3f\n",
           MANY, expired, spread.mid / 1e6, spread.low / 1e6, spread.high / 1e6, each,
           spread.mid / MANY);
}

static void measure_reaper(void)
{
    static const size_t expired[] = {0, MANY / 100, MANY};
    int64_t now_ns = 1000000000;
    const aside_clock clock = {own_now_ns, &now_ns};
    aside_cache *cache = open_cache(&clock);
    store_all(cache, 0, MANY, 1000 * DAY_MS);
    double *ns = bench_alloc((size_t)rounds * sizeof *ns);
    for (size_t i = 0; i < sizeof expired / sizeof *expired; i++) {
        (void)reap_ns(cache, &now_ns, expired[i]); /* warms up */
        for (long round = 0; round < rounds; round++)
            ns[round] = reap_ns(cache, &now_ns, expired[i]);
        report_reap(expired[i], ns);
    }
    free(ns);
    close_cache(cache);
}

/* ---- slices of timed calls ------------------------------------------------------------------- */

enum op { GET, SET, OPS };
static const char *const op_names[OPS] = {"get", "set"};

static void timed_call(aside_cache *cache, enum op op, size_t number, size_t nth)
{
    const char *key = key_of(number);
    aside_value *value = NULL;
    int64_t start_ns = bench_now_ns();
    aside_status status = op == GET
                              ? aside_get(cache, key, BENCH_KEY, &value)
                              : aside_set(cache, key, BENCH_KEY, payload, sizeof payload, LONG_MS);
    aside_value_unref(value);
    int64_t took_ns = bench_now_ns() - start_ns;
    NEED(status == ASIDE_OK);
    samples[nth] = (uint32_t)(took_ns < UINT32_MAX ? took_ns : UINT32_MAX);
}

static int by_size(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static double tail_of(size_t count)
{
    NEED(count >= 1000);
    qsort(samples, count, sizeof *samples, by_size);
    return samples[(size_t)(PART * (double)count)];
}

/* The other thread: works until it is told to stop, or until it has done what it had to. */
static struct {
    aside_cache *cache;
    void (*work)(void);
    size_t from, to; /* of what it stores */
    _Atomic bool begun, stop, done;
    uint64_t reaped;
} other;

static void *other_thread(void *arg)
{
    (void)arg;
    bench_pin(1);
    atomic_store(&other.begun, true);
    other.work();
    atomic_store(&other.done, true);
    return NULL;
}

static void compute(void)
{
    uint64_t state = 1;
    while (!atomic_load_explicit(&other.stop, memory_order_relaxed))
        (void)bench_random(&state);
}

static void reap(void)
{
    while (!atomic_load_explicit(&other.stop, memory_order_relaxed)) {
        size_t reaped;
        NEED(aside_reap(other.cache, 0, &reaped) == ASIDE_OK);
        other.reaped += reaped;
        if (reaped == 0 && pause_us > 0)
            bench_nap_us(pause_us);
    }
}

static void store_range(void)
{
    store_all(other.cache, other.from, other.to, LONG_MS);
}

static pthread_t start_other(aside_cache *cache, void (*work)(void))
{
    pthread_t thread;
    other.cache = cache;
    other.work = work;
    other.reaped = 0;
    atomic_store(&other.begun, false);
    atomic_store(&other.stop, false);
    atomic_store(&other.done, false);
    NEED(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    while (!atomic_load(&other.begun))
        ;
    return thread;
}

static void end_other(pthread_t thread)
{
    atomic_store(&other.stop, true);
    NEED(pthread_join(thread, NULL) == 0);
}

struct slice {
    double tail; /* nanoseconds */
    double kept; /* the share of the time that the kernel kept the ready thread from its core */
};

static double kept_since(int64_t start_ns, int64_t delay_ns)
{
    return (double)(bench_delay_ns() - delay_ns) / (double)(bench_now_ns() - start_ns);
}

/* Calls on keys below the given one, for so long or until the other thread is done. */
static struct slice timed_slice(aside_cache *cache, enum op op, size_t below, int64_t slice_ns,
                                uint64_t seed)
{
    size_t count = 0;
    int64_t start_ns = bench_now_ns(), end_ns = start_ns + slice_ns, delay_ns = bench_delay_ns();
    do {
        for (int i = 0; i < 64 && count < SAMPLES; i++)
            timed_call(cache, op, (size_t)(bench_random(&seed) % below), count++);
    } while (bench_now_ns() < end_ns && !atomic_load(&other.done) && count < SAMPLES);
    double kept = kept_since(start_ns, delay_ns);
    return (struct slice){tail_of(count), kept};
}

/* ---- while the reaper runs ------------------------------------------------------------------- */

/* So many entries are over at instants spread over the slices, which begin at the return. */
static void make_expire(aside_cache *cache, size_t expiring, uint64_t seed)
{
    int64_t ahead_ns = 50000000 + (int64_t)expiring * 1500;
    int64_t begin_ns = bench_now_ns() + ahead_ns, whole_ms = OPS * slice_ms;
    for (size_t i = 0; i < expiring; i++) {
        int64_t left_ms = (begin_ns - bench_now_ns()) / 1000000;
        int64_t ttl_ms = left_ms + (int64_t)(bench_random(&seed) % (uint64_t)whole_ms);
        store(cache, HALF + i, ttl_ms > 1 ? ttl_ms : 1);
    }
    while (bench_now_ns() < begin_ns)
        bench_nap_us(500);
}

static void reap_slices(aside_cache *cache, size_t expiring, bool with, size_t pair,
                        struct slice slices[OPS])
{
    if (with)
        make_expire(cache, expiring, pair);
    pthread_t thread = start_other(cache, with ? reap : compute);
    for (int op = 0; op < OPS; op++)
        slices[op] = timed_slice(cache, op, HALF, slice_ms * 1000000, pair);
    end_other(thread);
    NEED(!with || expiring == 0 || other.reaped > 0);
    if (with)
        store_all(cache, HALF, HALF + expiring, LONG_MS);
}

/* ---- while the index grows ------------------------------------------------------------------- */

static struct slice get_slice(bool with, size_t pair)
{
    aside_cache *cache = open_cache(NULL);
    store_all(cache, 0, with ? TENTH : MANY, LONG_MS);
    other.from = TENTH;
    other.to = MANY;
    pthread_t thread = start_other(cache, store_range);
    struct slice slice = timed_slice(cache, GET, TENTH, INT64_MAX / 2, pair);
    end_other(thread);
    NEED(aside_count(cache) == MANY);
    close_cache(cache);
    return slice;
}

static struct slice set_slice(bool with)
{
    aside_cache *cache = open_cache(NULL);
    if (!with) {
        store_all(cache, 0, MANY, LONG_MS);
        for (size_t i = 0; i < MANY; i++)
            NEED(aside_delete(cache, key_of(i), BENCH_KEY) == ASIDE_OK);
        NEED(aside_reap(cache, 0, NULL) == ASIDE_OK); /* and what waits for the grace period */
    }
    malloc_trim(0);
    int64_t start_ns = bench_now_ns(), delay_ns = bench_delay_ns();
    for (size_t i = 0; i < MANY; i++)
        timed_call(cache, SET, i, i);
    double kept = kept_since(start_ns, delay_ns);
    NEED(aside_count(cache) == MANY);
    close_cache(cache);
    return (struct slice){tail_of(MANY), kept};
}

/* ---- pairs and report ------------------------------------------------------------------------ */

struct tails {
    double *with, *without; /* [pair] */
    double kept;            /* the most of any slice that counts */
};

static struct tails tails_new(void)
{
    double *all = bench_alloc(2 * (size_t)pairs * sizeof *all);
    return (struct tails){all, all + pairs, 0};
}

static void report_tail(enum op op, const char *meanwhile, const struct tails *tails)
{
    double *ratios = bench_alloc((size_t)pairs * sizeof *ratios);
    for (long i = 0; i < pairs; i++)
        ratios[i] = tails->with[i] / tails->without[i];
    struct bench_spread ratio = bench_spread(ratios, (size_t)pairs);
    printf("tail: op=%s meanwhile=%s p999_ns=%.0f without_ns=%.0f ratio=%.2f ratio_min=%.2f "
           "ratio_max=%.2f kept=%.2f target=%.2f target_is=%s\n",
           op_names[op], meanwhile, bench_median(tails->with, (size_t)pairs),
           bench_median(tails->without, (size_t)pairs), ratio.mid, ratio.low, ratio.high,
           tails->kept, TARGET, bench_verdict(ratio.mid <= TARGET));
    free(ratios);
}

/* The least disturbed of a few tries counts. */
static void quiet_reap_slices(aside_cache *cache, size_t expiring, bool with, size_t pair,
                              struct slice best[OPS])
{
    best[GET].kept = best[SET].kept = 2;
    for (int i = 0; i < TRIES && best[GET].kept + best[SET].kept > KEPT_MOST; i++) {
        struct slice slices[OPS];
        reap_slices(cache, expiring, with, pair, slices);
        for (int op = 0; op < OPS; op++)
            if (slices[op].kept < best[op].kept)
                best[op] = slices[op];
    }
}

static struct slice quiet_growth_slice(enum op op, bool with, size_t pair)
{
    struct slice best = {0, 2};
    for (int i = 0; i < TRIES && best.kept > KEPT_MOST; i++) {
        struct slice slice = op == GET ? get_slice(with, pair) : set_slice(with);
        if (slice.kept < best.kept)
            best = slice;
    }
    return best;
}

static void note(struct tails *tails, bool with, long pair, struct slice slice)
{
    (with ? tails->with : tails->without)[pair] = slice.tail;
    tails->kept = slice.kept > tails->kept ? slice.kept : tails->kept;
}

static void measure_reap(aside_cache *cache, size_t expiring)
{
    struct tails tails[OPS] = {tails_new(), tails_new()};
    for (long pair = 0; pair < pairs; pair++)
        for (int i = 0; i < 2; i++) {
            struct slice slices[OPS];
            quiet_reap_slices(cache, expiring, (pair + i) % 2, (size_t)pair, slices);
            for (int op = 0; op < OPS; op++)
                note(&tails[op], (pair + i) % 2, pair, slices[op]);
        }
    char name[32];
    snprintf(name, sizeof name, "reap-%zu", expiring);
    for (int op = 0; op < OPS; op++) {
        report_tail(op, name, &tails[op]);
        free(tails[op].with);
    }
}

static void measure_growth(enum op op)
{
    struct tails tails = tails_new();
    for (long pair = 0; pair < pairs; pair++)
        for (int i = 0; i < 2; i++) {
            bool with = (pair + i) % 2;
            note(&tails, with, pair, quiet_growth_slice(op, with, (size_t)pair));
        }
    report_tail(op, "growth", &tails);
    free(tails.with);
}

static void measure_tails(void)
{
    aside_cache *cache = open_cache(NULL);
    store_all(cache, 0, MANY, LONG_MS);
    measure_reap(cache, 0);
    measure_reap(cache, MANY / 100);
    measure_reap(cache, HALF);
    close_cache(cache);
    measure_growth(GET);
    measure_growth(SET);
}

int main(int argc, char **argv)
{
    const struct bench_option options[] = {
        {"--pairs", &pairs, 1, "slices with and without, each"},
        {"--slice-ms", &slice_ms, 1, "length of a slice of get or set"},
        {"--rounds", &rounds, 1, "runs of the reaper"},
        {"--pause-us", &pause_us, 0, "of the reaper when it has removed nothing"},
    };
    bench_options(argc, argv, options, sizeof options / sizeof *options);
    bench_machine("tail");
    bench_pin(0);
    keys = bench_alloc((size_t)MANY * BENCH_KEY);
    samples = bench_alloc((size_t)SAMPLES * sizeof *samples);
    memset(payload, 'v', sizeof payload);
    memset(samples, 1, (size_t)SAMPLES * sizeof *samples);
    for (size_t i = 0; i < MANY; i++)
        bench_key(keys + i * BENCH_KEY, i);
    printf("%ld pairs of %ld ms, %d entries, %d-byte keys, %d-byte values; p99.9 of single calls\n"
           "target: at most %.2f of what it is without\n\n",
           pairs, slice_ms, MANY, BENCH_KEY, BENCH_VALUE, TARGET);
    measure_reaper();
    measure_tails();
    free(samples);
    free(keys);
    return 0;
}
