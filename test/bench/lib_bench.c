/* lib_bench.c -- see lib_bench.h. */
#include "lib_bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---- the run --------------------------------------------------------------------------------- */

static _Noreturn void usage(const char *program, const struct bench_option *options, size_t count,
                            int status)
{
    FILE *to = status ? stderr : stdout;
    fprintf(to, "usage: %s [options]\n", program);
    for (size_t i = 0; i < count; i++)
        fprintf(to, "  %-14s N  %s (default %ld)\n", options[i].name, options[i].what,
                *options[i].value);
    exit(status);
}

static const struct bench_option *find_option(const char *name, const struct bench_option *options,
                                              size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, options[i].name) == 0)
            return &options[i];
    return NULL;
}

void bench_options(int argc, char **argv, const struct bench_option *options, size_t count)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--help") == 0)
            usage(argv[0], options, count, 0);
        const struct bench_option *option = find_option(argv[i], options, count);
        if (!option || i + 1 == argc)
            usage(argv[0], options, count, 2);
        char *end;
        errno = 0;
        long value = strtol(argv[i + 1], &end, 10);
        if (errno || *end || end == argv[i + 1] || value < option->least)
            usage(argv[0], options, count, 2);
        *option->value = value;
    }
}

/* The first "model name" of /proc/cpuinfo, else "unknown". */
static void processor(char *to, size_t capacity)
{
    snprintf(to, capacity, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(to, capacity, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    fclose(file);
}

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

void bench_machine(const char *bench)
{
    char model[128];
    processor(model, sizeof model);
    struct utsname kernel;
    NEED(uname(&kernel) == 0);
    double load[1] = {0};
    if (getloadavg(load, 1) != 1)
        load[0] = -1;
    printf("machine: bench=%s cores=%d cpu=\"%s\" kernel=%s compiler=\"%s\" aside=%s load=%.2f\n",
           bench, bench_cores(), model, kernel.release, COMPILER, aside_version(), load[0]);
}

void bench_die(const char *file, int line, const char *what)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: functional error: not so: %s\n", file, line, what);
    _exit(1);
}

const char *bench_verdict(bool met)
{
    return met ? "met" : "missed";
}

void *bench_alloc(size_t size)
{
    void *block = calloc(1, size);
    NEED(block);
    return block;
}

/* ---- time and cores -------------------------------------------------------------------------- */

int64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t bench_cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

int64_t bench_delay_ns(void)
{
    long long ran, delayed = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%lld %lld", &ran, &delayed) != 2)
        delayed = 0;
    fclose(file);
    return delayed;
}

void bench_nap_us(long us)
{
    struct timespec nap = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&nap, NULL);
}

/* Asked before main: a pinned thread would see its own core only. */
static cpu_set_t allowed;

__attribute__((constructor)) static void learn_cores(void)
{
    NEED(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
}

int bench_cores(void)
{
    return CPU_COUNT(&allowed);
}

void bench_pin(int nth)
{
    int left = nth % bench_cores();
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (!CPU_ISSET(core, &allowed) || left-- > 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        NEED(sched_setaffinity(0, sizeof one, &one) == 0);
        return;
    }
}

pid_t bench_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

bool bench_asleep(pid_t tid)
{
    char path[64], stat[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0);
    ssize_t length = read(fd, stat, sizeof stat - 1);
    close(fd);
    NEED(length > 0);
    stat[length] = '\0';
    const char *state = strrchr(stat, ')');
    return state && state[1] == ' ' && state[2] == 'S';
}

/* ---- order statistics ------------------------------------------------------------------------ */

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double *sorted(const double *values, size_t count)
{
    NEED(count > 0);
    double *copy = bench_alloc(count * sizeof *copy);
    memcpy(copy, values, count * sizeof *copy);
    qsort(copy, count, sizeof *copy, by_size);
    return copy;
}

struct bench_spread bench_spread(const double *values, size_t count)
{
    double *in_order = sorted(values, count);
    struct bench_spread spread = {
        in_order[0],
        (in_order[(count - 1) / 2] + in_order[count / 2]) / 2,
        in_order[count - 1],
    };
    free(in_order);
    return spread;
}

double bench_median(const double *values, size_t count)
{
    return bench_spread(values, count).mid;
}

double bench_quantile(const double *values, size_t count, double part)
{
    double *in_order = sorted(values, count);
    double rank = part * (double)count;
    size_t at = (size_t)rank;
    if (at > 0 && (double)at >= rank)
        at--;
    double value = in_order[at < count ? at : count - 1];
    free(in_order);
    return value;
}

/* ---- keys and random numbers ----------------------------------------------------------------- */

void bench_key(char key[BENCH_KEY], uint64_t number)
{
    memcpy(key, "user:", 5);
    for (int i = BENCH_KEY - 1; i >= 5; i--, number /= 10)
        key[i] = (char)('0' + number % 10);
}

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- events ---------------------------------------------------------------------------------- */

void bench_futex_wait(_Atomic uint32_t *word, uint32_t while_it_is)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, NULL, NULL, 0);
}

void bench_futex_wake(_Atomic uint32_t *word, int most)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

void bench_event_set(struct bench_event *event, uint32_t number)
{
    atomic_store(&event->reached, number);
    bench_futex_wake(&event->reached, INT_MAX);
}

void bench_event_await(struct bench_event *event, uint32_t number)
{
    uint32_t seen;
    while ((seen = atomic_load(&event->reached)) < number)
        bench_futex_wait(&event->reached, seen);
}

/* ---- statistics ------------------------------------------------------------------------------ */

aside_stats bench_stats(const aside_cache *cache)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    NEED(aside_stats_get(cache, &stats) == ASIDE_OK);
    return stats;
}
