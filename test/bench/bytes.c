/*
 * bytes.c -- bytes an entry, everything in: a million entries, 16-byte keys, 64-byte values, each
 * with an expiry, no reaper, no bound unless asked for. Three fills, each in a process of its own:
 *   requested   a ledger of the bytes that the cache asks its allocator for
 *   usable      the same allocator calls, counted as malloc_usable_size + 8: what malloc uses up
 *   resident    growth of the process's resident size, with the default allocator
 * Each is noted at the end and at its worst: the fill is sampled as it goes, so growth of the index
 * with old and new tables side by side is seen.
 */
#include "lib_memory.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLE_EVERY 500  /* entries between two samples */
#define WORST_FROM 100000 /* entries from which on the worst point counts */
#define TARGET 195.0
#define GOAL 165.0
#define TTL_MS 3600000

/* ---- ledgers --------------------------------------------------------------------------------- */

static int64_t used_up(void *block)
{
    return block ? (int64_t)malloc_usable_size(block) + 8 : 0;
}

static void *usable_malloc(size_t size, void *ctx)
{
    void *block = malloc(size);
    atomic_fetch_add(&((struct memory_ledger *)ctx)->live_bytes, used_up(block));
    return block;
}

static void usable_free(void *block, void *ctx)
{
    atomic_fetch_sub(&((struct memory_ledger *)ctx)->live_bytes, used_up(block));
    free(block);
}

static void *usable_realloc(void *block, size_t size, void *ctx)
{
    int64_t before = used_up(block);
    void *grown = realloc(block, size);
    if (grown)
        atomic_fetch_add(&((struct memory_ledger *)ctx)->live_bytes, used_up(grown) - before);
    return grown;
}

/* ---- one fill, in a child -------------------------------------------------------------------- */

enum kind { REQUESTED, USABLE, RESIDENT, KINDS };
static const char *const kind_names[KINDS] = {"requested", "usable", "resident"};

struct figures {
    double at_end, worst, own_gauge; /* bytes an entry; own_gauge: what the library says */
    uint64_t worst_at;               /* entries */
};

static struct memory_ledger ledger;
static long bounded;

static aside_options options_of(enum kind kind, uint64_t entries)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.max_bytes = 0;
    options.max_entries = bounded ? (size_t)entries : 0;
    options.reaper_interval_ms = 0;
    if (kind == REQUESTED)
        options.alloc = memory_ledger_alloc(&ledger);
    if (kind == USABLE)
        options.alloc = (aside_alloc){usable_malloc, usable_realloc, usable_free, &ledger};
    return options;
}

static int64_t level(enum kind kind)
{
    return kind == RESIDENT ? memory_resident_bytes() : atomic_load(&ledger.live_bytes);
}

static void make_entry(uint64_t number, char key[BENCH_KEY], char value[BENCH_VALUE])
{
    bench_key(key, number);
    for (int i = 0; i < BENCH_VALUE; i += BENCH_KEY)
        memcpy(value + i, key, BENCH_KEY);
}

static void set_entry(aside_cache *cache, uint64_t number)
{
    char key[BENCH_KEY], value[BENCH_VALUE];
    make_entry(number, key, value);
    NEED(aside_set(cache, key, sizeof key, value, sizeof value, TTL_MS) == ASIDE_OK);
}

static void check_entries(aside_cache *cache, uint64_t entries)
{
    NEED(aside_count(cache) == entries);
    for (uint64_t i = 0; i < entries; i += 97) {
        char key[BENCH_KEY], value[BENCH_VALUE], got[BENCH_VALUE];
        size_t size = 0;
        make_entry(i, key, value);
        NEED(aside_copy(cache, key, sizeof key, got, sizeof got, &size) == ASIDE_OK);
        NEED(size == sizeof got && memcmp(got, value, sizeof got) == 0);
    }
}

static struct figures fill(enum kind kind, uint64_t entries)
{
    struct figures figures = {0};
    aside_options options = options_of(kind, entries);
    aside_cache *cache;
    (void)level(kind); /* what reading the level takes is taken before the start */
    int64_t start = level(kind);
    NEED(aside_open(&cache, &options) == ASIDE_OK);
    for (uint64_t count = 1; count <= entries; count++) {
        set_entry(cache, count - 1);
        if (count % SAMPLE_EVERY && count != entries)
            continue;
        figures.at_end = (double)(level(kind) - start) / (double)count;
        if (count < WORST_FROM || figures.at_end <= figures.worst)
            continue;
        figures.worst = figures.at_end;
        figures.worst_at = count;
    }
    figures.own_gauge = (double)bench_stats(cache).bytes / (double)entries;
    check_entries(cache, entries);
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
    return figures;
}

/* A fresh process for each fill: nobody else's pages, no blocks left over. */
static struct figures fill_in_child(enum kind kind, uint64_t entries)
{
    int ends[2];
    NEED(pipe(ends) == 0);
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        struct figures figures = fill(kind, entries);
        _exit(write(ends[1], &figures, sizeof figures) == sizeof figures ? 0 : 1);
    }
    close(ends[1]);
    struct figures figures;
    bool whole = read(ends[0], &figures, sizeof figures) == sizeof figures;
    close(ends[0]);
    int status;
    NEED(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    NEED(whole);
    return figures;
}

/* ---- report ---------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    long entries = 1000000;
    const struct bench_option options[] = {
        {"--entries", &entries, WORST_FROM, "entries of the fill"},
        {"--bounded", &bounded, 0,
         "not 0: bounded to so many entries, with all that eviction needs"}};
    bench_options(argc, argv, options, 2);
    bench_machine("bytes");
    printf("%ld entries, %d bytes of payload each; target: %.0f bytes an entry, goal: %.0f\n\n"
           "measure    at the end  worst after %d, at\n",
           entries, BENCH_KEY + BENCH_VALUE, TARGET, GOAL, WORST_FROM);
    struct figures figures[KINDS];
    for (int kind = 0; kind < KINDS; kind++) {
        figures[kind] = fill_in_child(kind, (uint64_t)entries);
        printf("%-10s %10.1f  %10.1f  %9llu\n", kind_names[kind], figures[kind].at_end,
               figures[kind].worst, (unsigned long long)figures[kind].worst_at);
    }
    printf("stats.bytes %9.1f\n\n", figures[REQUESTED].own_gauge);
    for (int kind = 0; kind < KINDS; kind++)
        printf("bytes: measure=%s entries=%ld at_end=%.1f worst=%.1f worst_at=%llu target=%.0f "
               "at_end_is=%s worst_is=%s\n",
               kind_names[kind], entries, figures[kind].at_end, figures[kind].worst,
               (unsigned long long)figures[kind].worst_at, TARGET,
               bench_verdict(figures[kind].at_end <= TARGET),
               bench_verdict(figures[kind].worst <= TARGET));
    printf("bytes: measure=stats_bytes entries=%ld at_end=%.1f\n", entries,
           figures[REQUESTED].own_gauge);
    return 0;
}
