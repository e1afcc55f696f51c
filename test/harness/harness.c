/*
 * harness.c -- main() of every test program: options, one process a test, the time limit, totals.
 *
 * The parent stays single-threaded and never calls the library. It forks a child a test, each in a
 * process group of its own, so that whatever a test leaves behind can be removed with it.
 */
#include "children.h"
#include "internal.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_LIMIT_S = 60 };

static struct test *tests;
static struct test **tests_end = &tests;
static const char *program;
static char scene[200];
static const char *current = "?"; /* the test that this process runs */
static uint64_t seed;
static double rounds_scale = 1.0;
static int limit_s = DEFAULT_LIMIT_S;

void test_register(struct test *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

/* ---- checks -------------------------------------------------------------------------------------- */

extern void __gcov_dump(void) __attribute__((weak));

_Noreturn void harness_exit_now(int status)
{
    fflush(NULL);
    if (__gcov_dump)
        __gcov_dump();
    _exit(status);
}

_Noreturn void test_fail(const char *file, int line, const char *what, const char *why)
{
    fprintf(stderr, "%s:%d: %s: failed: %s%s%s\n", file, line, current, what, why ? ": " : "",
            why ? why : "");
    if (scene[0])
        fprintf(stderr, "    %s\n", scene);
    fprintf(stderr, "    seed %" PRIu64 "\n", seed);
    harness_exit_now(1);
}

void test_check_int(const char *file, int line, const char *what, long long actual,
                    long long expected)
{
    char why[80];

    if (actual == expected)
        return;
    snprintf(why, sizeof why, "is %lld, expected %lld", actual, expected);
    test_fail(file, line, what, why);
}

void test_check_status(const char *file, int line, const char *what, aside_status actual,
                       aside_status expected)
{
    char why[160];

    if (actual == expected)
        return;
    snprintf(why, sizeof why, "is %s (%d), expected %s (%d)", aside_status_name(actual),
             (int)actual, aside_status_name(expected), (int)expected);
    test_fail(file, line, what, why);
}

void test_scene(const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    vsnprintf(scene, sizeof scene, format, rest);
    va_end(rest);
}

_Noreturn void test_skip(const char *why)
{
    fprintf(stderr, "%s: skipped: %s\n", current, why);
    harness_exit_now(EXIT_SKIPPED);
}

uint64_t test_seed(void)
{
    return seed;
}

uint64_t test_random(void)
{
    static _Atomic uint64_t threads_seen;
    static _Thread_local uint64_t state;
    static _Thread_local bool seeded;

    if (!seeded) {
        uint64_t nth = atomic_fetch_add_explicit(&threads_seen, 1, memory_order_relaxed);
        state = mix64(seed ^ mix64(nth + 1));
        seeded = true;
    }
    state += UINT64_C(0x9e3779b97f4a7c15);
    return mix64(state);
}

long test_rounds(long for_make_test)
{
    double scaled = (double)for_make_test * rounds_scale;

    return scaled < 1.0 ? 1 : (long)(scaled + 0.5);
}

/* ---- one test in a process of its own ------------------------------------------------------------ */

static _Noreturn void run_here(const struct test *test)
{
    current = test->name;
    stacks_install();
    test->run();
    fflush(NULL);
    exit(0);
}

static _Noreturn void run_as_child(const struct test *test, pid_t parent, const sigset_t *mask)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    sigprocmask(SIG_SETMASK, mask, NULL);
    run_here(test);
}

/* False if the limit passed first. SIGCHLD is blocked in the parent. */
static bool wait_until(pid_t pid, int64_t deadline_ns, int *status)
{
    sigset_t child_signal;

    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    while (waitpid(pid, status, WNOHANG) != pid) {
        int64_t left_ns = deadline_ns - test_now_ns();
        struct timespec left = {left_ns / 1000000000, left_ns % 1000000000};
        if (left_ns <= 0)
            return false;
        sigtimedwait(&child_signal, NULL, &left);
    }
    return true;
}

static void describe(int status, bool timed_out, int limit, char *text, size_t size)
{
    if (timed_out)
        snprintf(text, size, "not done after %d s", limit);
    else if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d, %s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

int64_t test_patience_ns(void)
{
    return limit_s * INT64_C(1000000000) / 3;
}

static int limit_of(const struct test *test)
{
    if (!test->limit_s)
        return limit_s;
    return (int)((int64_t)test->limit_s * limit_s / DEFAULT_LIMIT_S) + 1;
}

/* 0 passed, 1 failed, 2 skipped */
static int run_apart(const struct test *test, const sigset_t *mask)
{
    int64_t began_ns = test_now_ns();
    int limit = limit_of(test);
    pid_t parent = getpid();
    char why[128];
    int status = 0;

    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        printf("  FAIL %s: fork: %s\n", test->name, strerror(errno));
        return 1;
    }
    if (pid == 0)
        run_as_child(test, parent, mask);
    setpgid(pid, pid); /* the child does so as well: whoever comes first */

    bool timed_out = !wait_until(pid, began_ns + limit * INT64_C(1000000000), &status);
    if (timed_out) {
        printf("%s: not done after %d s; its threads:\n", test->name, limit);
        fflush(stdout);
        stacks_print_of(pid);
    }
    kill(-pid, SIGKILL);
    if (timed_out)
        waitpid(pid, &status, 0);

    double seconds = (double)(test_now_ns() - began_ns) / 1e9;
    if (!timed_out && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("  ok   %s (%.2f s)\n", test->name, seconds);
        return 0;
    }
    if (!timed_out && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
        printf("  skip %s\n", test->name);
        return 2;
    }
    describe(status, timed_out, limit, why, sizeof why);
    printf("  FAIL %s (%.2f s): %s\n       again: %s --seed %" PRIu64 " %s\n", test->name, seconds,
           why, program, seed, test->name);
    return 1;
}

/* ---- the command line ---------------------------------------------------------------------------- */

static const struct test *find(const char *name)
{
    for (const struct test *test = tests; test; test = test->next)
        if (!strcmp(test->name, name))
            return test;
    fprintf(stderr, "%s: no test is called %s\n", program, name);
    exit(2);
}

static void usage(void)
{
    fprintf(
        stderr,
        "usage: %s [--seed N] [--rounds SCALE] [--limit SECONDS] [--list | --run NAME | NAME...]\n",
        program);
    exit(2);
}

static const char *value_of(char **argv, int *at)
{
    if (!argv[*at + 1])
        usage();
    return argv[++*at];
}

static void defaults(void)
{
    const char *text = getenv("ASIDE_TEST_SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = mix64((uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec +
                 ((uint64_t)getpid() << 32)) >>
           16;
    if (text && *text)
        seed = strtoull(text, NULL, 0);
    text = getenv("ASIDE_TEST_ROUNDS");
    if (text && *text)
        rounds_scale = strtod(text, NULL);
    text = getenv("ASIDE_TEST_LIMIT");
    if (text && *text)
        limit_s = (int)strtol(text, NULL, 10);
}

static int run_selected(char **names)
{
    int count[3] = {0, 0, 0};
    sigset_t child_signal, mask;

    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, &mask);
    if (*names)
        for (; *names; names++)
            count[run_apart(find(*names), &mask)]++;
    else
        for (const struct test *test = tests; test; test = test->next)
            count[run_apart(test, &mask)]++;
    if (count[0] + count[1] + count[2] == 0) {
        printf("%s has no tests\n", program);
        count[1] = 1;
    }
    printf("%d passed, %d failed, %d skipped\n", count[0], count[1], count[2]);
    if (count[1])
        return 1;
    return count[0] ? 0 : EXIT_SKIPPED;
}

int main(int argc, char **argv)
{
    const char *alone = NULL;
    bool list = false;
    int at;

    (void)argc;
    program = argv[0];
    setvbuf(stdout, NULL, _IOLBF, 0);
    defaults();
    for (at = 1; argv[at] && !strncmp(argv[at], "--", 2); at++) {
        if (!strcmp(argv[at], "--list"))
            list = true;
        else if (!strcmp(argv[at], "--run"))
            alone = value_of(argv, &at);
        else if (!strcmp(argv[at], "--seed"))
            seed = strtoull(value_of(argv, &at), NULL, 0);
        else if (!strcmp(argv[at], "--rounds"))
            rounds_scale = strtod(value_of(argv, &at), NULL);
        else if (!strcmp(argv[at], "--limit"))
            limit_s = (int)strtol(value_of(argv, &at), NULL, 10);
        else
            usage();
    }
    if (limit_s < 1 || rounds_scale <= 0)
        usage();
    if (list) {
        for (const struct test *test = tests; test; test = test->next)
            puts(test->name);
        return tests ? 0 : 1;
    }
    if (alone)
        run_here(find(alone));
    return run_selected(argv + at);
}

/* ---- what the sanitizers are told ---------------------------------------------------------------- */

#if UNDER_TSAN
#define TSAN_DEFAULTS                                                                              \
    "die_after_fork=0:second_deadlock_stack=1:allocator_may_return_null=1:history_size=4"
/* Called before ThreadSanitizer works: nothing may be called or read here. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return &search_no_deadlocks ? TSAN_DEFAULTS ":detect_deadlocks=0" : TSAN_DEFAULTS;
}
#endif
#if UNDER_ASAN
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1";
}
/* What the parent's threads hold is lost to their child. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return in_child || &search_no_leaks;
}
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1";
}
#endif
