/*
 * churn.c -- whether memory creeps: many unique keys go through a cache that is full, each with an
 * expiry that none of them lives to see, and the process's resident size is sampled all along.
 * What a full cache needs is there long before a tenth of the keys is through: from then on the
 * resident size may vary, but it must not grow. Compared are the maximum up to a tenth of the keys
 * and the maximum of the rest.
 */
#include "lib_memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES 10000
#define TTL_MS 3600000
#define SAMPLE_EVERY 10000 /* sets of one thread between two samples */
#define TARGET 1.05

static aside_cache *cache;
static long keys_each;  /* of one thread */
static long keys_total; /* of all threads, less what does not divide evenly */

static struct {
    pthread_mutex_t lock;
    long done; /* keys that are through */
    int64_t early, late;
    long late_at;
} samples = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void sample(long more)
{
    NEED(pthread_mutex_lock(&samples.lock) == 0);
    int64_t resident = memory_resident_bytes();
    samples.done += more;
    if (samples.done <= keys_total / 10) {
        samples.early = resident > samples.early ? resident : samples.early;
    } else if (resident > samples.late) {
        samples.late = resident;
        samples.late_at = samples.done;
    }
    NEED(pthread_mutex_unlock(&samples.lock) == 0);
}

static void set_unique(uint64_t number)
{
    char key[BENCH_KEY], value[BENCH_VALUE];
    bench_key(key, number);
    for (int i = 0; i < BENCH_VALUE; i += BENCH_KEY)
        memcpy(value + i, key, BENCH_KEY);
    NEED(aside_set(cache, key, sizeof key, value, sizeof value, TTL_MS) == ASIDE_OK);
}

static void *write_keys(void *first)
{
    uint64_t number = *(uint64_t *)first;
    long unsampled = 0;
    for (long i = 0; i < keys_each; i++) {
        set_unique(number++);
        if (++unsampled < SAMPLE_EVERY && i + 1 < keys_each)
            continue;
        sample(unsampled);
        unsampled = 0;
    }
    return NULL;
}

static void write_by(size_t threads)
{
    pthread_t *writers = bench_alloc(threads * sizeof *writers);
    uint64_t *firsts = bench_alloc(threads * sizeof *firsts);
    for (size_t i = 0; i < threads; i++) {
        firsts[i] = (uint64_t)i * (uint64_t)keys_each;
        NEED(pthread_create(&writers[i], NULL, write_keys, &firsts[i]) == 0);
    }
    for (size_t i = 0; i < threads; i++)
        NEED(pthread_join(writers[i], NULL) == 0);
    free(writers);
    free(firsts);
}

static void report(double seconds)
{
    aside_stats stats = bench_stats(cache);
    double ratio = (double)samples.late / (double)samples.early;
    NEED(stats.sets == (uint64_t)keys_total && stats.entries <= MAX_ENTRIES);
    NEED(stats.entries + stats.evicted == stats.sets);
    printf("resident, maximum up to a tenth of the keys  %10.2f MiB\n"
           "resident, maximum of the rest                %10.2f MiB, at key %ld\n"
           "ratio                                        %10.4f, target %.2f: %s\n"
           "at the end: %llu entries, %llu bytes, %llu in limbo; %.0f ns a set\n\n",
           (double)samples.early / 0x1p20, (double)samples.late / 0x1p20, samples.late_at, ratio,
           TARGET, bench_verdict(ratio <= TARGET), (unsigned long long)stats.entries,
           (unsigned long long)stats.bytes, (unsigned long long)stats.limbo_bytes,
           seconds * 1e9 / (double)keys_total);
    printf("churn: keys=%ld early_bytes=%lld late_bytes=%lld ratio=%.4f target=%.2f target_is=%s "
           "entries=%llu bytes=%llu seconds=%.1f\n",
           keys_total, (long long)samples.early, (long long)samples.late, ratio, TARGET,
           bench_verdict(ratio <= TARGET), (unsigned long long)stats.entries,
           (unsigned long long)stats.bytes, seconds);
}

int main(int argc, char **argv)
{
    long keys = 100000000, threads = 1;
    const struct bench_option options[] = {
        {"--keys", &keys, 20 * MAX_ENTRIES, "unique keys of all threads together"},
        {"--threads", &threads, 1, "threads that write"},
    };
    bench_options(argc, argv, options, sizeof options / sizeof *options);
    bench_machine("churn");
    keys_each = keys / threads;
    keys_total = keys_each * threads;
    NEED(keys_each > 0);
    printf("%ld unique keys by %ld threads, %d-byte keys, %d-byte values, at most %d entries\n\n",
           keys_total, threads, BENCH_KEY, BENCH_VALUE, MAX_ENTRIES);
    aside_options cache_options = ASIDE_OPTIONS_INIT; /* with a reaper */
    cache_options.max_entries = MAX_ENTRIES;
    NEED(aside_open(&cache, &cache_options) == ASIDE_OK);
    int64_t start_ns = bench_now_ns();
    write_by((size_t)threads);
    report((double)(bench_now_ns() - start_ns) / 1e9);
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
    return 0;
}
