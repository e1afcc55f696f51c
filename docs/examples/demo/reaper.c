/*
 * reaper.c -- entries that have expired and that nobody asks for again.
 *
 * Two caches get the name of every character with the same ttl; one has a reaper thread. Threads
 * are counted in /proc/self/task, by the name that the library gives them.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "demo.h"
#include "load.h"
#include "lookup.h"
#include "report.h"
#include "table.h"

#define TTL_MS 500
#define INTERVAL_MS 100
#define PATIENCE_NS (5000 * MS)
#define THREAD_NAME "aside"

struct run {
    int64_t interval_ms; /* 0: no reaper */
    aside_cache *cache;
    size_t stored;
    aside_stats before, after; /* just stored; ttl and some intervals later */
    size_t threads_open, threads_closed;
};

/* ---- threads --------------------------------------------------------------------------------- */

static bool is_library_thread(const char *id)
{
    char path[300], name[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", id);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    bool named = fgets(name, sizeof name, file) != NULL &&
                 strncmp(name, THREAD_NAME, strlen(THREAD_NAME)) == 0;
    fclose(file);
    return named;
}

static size_t library_threads(void)
{
    size_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL)
        die("cannot read /proc/self/task");
    for (const struct dirent *task; (task = readdir(tasks)) != NULL;)
        if (task->d_name[0] != '.' && is_library_thread(task->d_name))
            count++;
    closedir(tasks);
    return count;
}

/* The kernel drops a task's directory a moment after the thread could be joined, and a new thread
 * gives itself its name a moment after it was made: waits for either. */
static size_t settled_threads(size_t expected)
{
    int64_t end_ns = load_now_ns() + 1000 * MS;
    while (library_threads() != expected && load_now_ns() < end_ns)
        load_sleep_until(load_now_ns() + MS);
    return library_threads();
}

/* ---- one column ------------------------------------------------------------------------------ */

static void fill(const struct demo *demo, struct run *run)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = run->interval_ms;
    run->cache = lookup_open(&options);
    for (size_t i = 0; i < demo->char_count; i++) {
        const char *name = demo->chars[i].name;
        struct lookup_key key = lookup_key_of(demo->chars[i].code);
        run->stored +=
            aside_set(run->cache, key.text, key.len, name, strlen(name), TTL_MS) == ASIDE_OK;
    }
    run->before = lookup_stats(run->cache);
    run->threads_open = settled_threads(run->interval_ms > 0);
}

static void finish(struct run *run)
{
    run->after = lookup_stats(run->cache);
    aside_close(run->cache);
    aside_unref(run->cache);
    run->threads_closed = settled_threads(0);
}

/* Some intervals after the last ttl, or as long as it takes within reason. */
static void wait_for_reaper(const struct run *run)
{
    int64_t begun_ns = load_now_ns();
    load_sleep_until(begun_ns + (TTL_MS + 3 * INTERVAL_MS) * MS);
    while (aside_count(run->cache) > 0 && load_now_ns() < begun_ns + PATIENCE_NS)
        load_sleep_until(load_now_ns() + 10 * MS);
}

/* ---- the report ------------------------------------------------------------------------------ */

static void print(const struct run *bare, const struct run *kept)
{
    static const char *const headings[] = {"without reaper", "with reaper", NULL};
    struct table table;
    table_open(&table, "", headings);
    table_row(&table, "entries stored", CELLS(cell_count(bare->stored), cell_count(kept->stored)));
    table_row(&table, "entries held, just stored",
              CELLS(cell_count(bare->before.entries), cell_count(kept->before.entries)));
    table_row(&table, "entries held, after the ttl",
              CELLS(cell_count(bare->after.entries), cell_count(kept->after.entries)));
    table_row(&table, "memory held, just stored",
              CELLS(cell_bytes(bare->before.bytes), cell_bytes(kept->before.bytes)));
    table_row(&table, "memory held, after the ttl",
              CELLS(cell_bytes(bare->after.bytes), cell_bytes(kept->after.bytes)));
    table_row(&table, "threads of the library, cache open",
              CELLS(cell_count(bare->threads_open), cell_count(kept->threads_open)));
    table_row(&table, "threads of the library, cache closed",
              CELLS(cell_count(bare->threads_closed), cell_count(kept->threads_closed)));
    table_close();
}

static void judge(const struct demo *demo, const struct run *bare, const struct run *kept)
{
    report_check(bare->stored == demo->char_count && kept->stored == demo->char_count,
                 "%zu and %zu entries stored, not %zu", bare->stored, kept->stored,
                 demo->char_count);
    report_check(kept->after.entries == 0, "%llu expired entries are still there",
                 (unsigned long long)kept->after.entries);
    report_check(bare->threads_open == 0, "%zu threads without a reaper", bare->threads_open);
    report_check(kept->threads_open == 1, "%zu threads while the cache is open, not 1",
                 kept->threads_open);
    report_check(bare->threads_closed == 0 && kept->threads_closed == 0,
                 "a thread is still there after aside_close()");
    report_after(
        "The reaper removed all %s entries by itself and ended with its cache; without one "
        "no thread is ever made, and what nobody asks for again stays.",
        cell_count(kept->stored).text);
}

void reaper_scenario(struct demo *demo)
{
    struct run bare = {.interval_ms = 0}, kept = {.interval_ms = INTERVAL_MS};
    report_heading(4, "Reaper");
    report_before("The name of every character is stored for %d ms and never asked for again; the "
                  "reaper, where there is one, runs every %d ms.",
                  TTL_MS, INTERVAL_MS);
    fill(demo, &bare);
    load_sleep_until(load_now_ns() + (TTL_MS + 3 * INTERVAL_MS) * MS);
    finish(&bare);
    fill(demo, &kept);
    wait_for_reaper(&kept);
    finish(&kept);
    print(&bare, &kept);
    judge(demo, &bare, &kept);
}
