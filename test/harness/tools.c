/*
 * tools.c -- threads, gates, clocks, and what the kernel says about this process.
 */
#include "internal.h"

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- threads ------------------------------------------------------------------------------------- */

pthread_t thread_start(thread_fn fn, void *arg)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, fn, arg);

    if (error)
        test_fail(__FILE__, __LINE__, "pthread_create", strerror(error));
    return thread;
}

void *thread_join(pthread_t thread)
{
    void *result;
    int error = pthread_join(thread, &result);

    if (error)
        test_fail(__FILE__, __LINE__, "pthread_join", strerror(error));
    return result;
}

/* ---- gates --------------------------------------------------------------------------------------- */

void gate_init(struct gate *gate)
{
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->moved, NULL);
    gate->arrived = 0;
    gate->open = false;
}

void gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->arrived++;
    pthread_cond_broadcast(&gate->moved);
    while (!gate->open)
        pthread_cond_wait(&gate->moved, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->moved);
    pthread_mutex_unlock(&gate->lock);
}

void gate_wait_arrived(struct gate *gate, int count)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->arrived < count)
        pthread_cond_wait(&gate->moved, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

void gate_fini(struct gate *gate)
{
    pthread_cond_destroy(&gate->moved);
    pthread_mutex_destroy(&gate->lock);
}

/* ---- time ---------------------------------------------------------------------------------------- */

int64_t test_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void test_yield(void)
{
    const struct timespec nap = {0, 20000};

    sched_yield();
    nanosleep(&nap, NULL);
}

static int64_t fake_now(void *ctx)
{
    struct fake_clock *clock = ctx;

    return clock->now_ns;
}

aside_clock fake_clock_init(struct fake_clock *clock)
{
    clock->now_ns = INT64_C(1000000000000);
    return (aside_clock){fake_now, clock};
}

void fake_clock_advance_ns(struct fake_clock *clock, int64_t ns, aside_cache *cache)
{
    clock->now_ns += ns;
    if (cache)
        (void)aside_clock_changed(cache);
}

void fake_clock_advance_ms(struct fake_clock *clock, int64_t ms, aside_cache *cache)
{
    fake_clock_advance_ns(clock, ms * 1000000, cache);
}

/* ---- statistics ---------------------------------------------------------------------------------- */

aside_stats test_stats(aside_cache *cache)
{
    aside_stats stats;

    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_stats_get(cache, &stats), ASIDE_OK);
    return stats;
}

/* ---- this process -------------------------------------------------------------------------------- */

static bool thread_is_named(const char *tid, const char *prefix)
{
    char path[300], name[32] = "";

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", tid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false; /* it has just ended */
    bool got = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    return got && !strncmp(name, prefix, strlen(prefix));
}

/* Numbered entries of a directory under /proc, with a thread's name that starts so. */
static int count_numbers(const char *path, const char *prefix)
{
    const struct dirent *entry;
    int count = 0;
    DIR *dir = opendir(path);

    if (!dir)
        test_fail(__FILE__, __LINE__, "opendir", path);
    while ((entry = readdir(dir)))
        if (isdigit((unsigned char)entry->d_name[0]) &&
            (!prefix || thread_is_named(entry->d_name, prefix)))
            count++;
    closedir(dir);
    return count;
}

int process_threads(void)
{
    return count_numbers("/proc/self/task", NULL);
}

int process_threads_named(const char *prefix)
{
    return count_numbers("/proc/self/task", prefix);
}

int process_descriptors(void)
{
    return count_numbers("/proc/self/fd", NULL) - 1; /* less the one that reads the list */
}

size_t process_resident_bytes(void)
{
    char line[128] = "", *resident = NULL;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file && fgets(line, sizeof line, file))
        resident = strchr(line, ' '); /* the first number is the size of the address space */
    if (!resident)
        test_fail(__FILE__, __LINE__, "/proc/self/statm", NULL);
    fclose(file);
    return strtoul(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}
