/*
 * harness.h -- the project's own test harness. One process a test, a time limit that prints every
 * thread's stack, a printed seed that replays, exit 77 = skipped.
 *
 * A test file is a program: it defines tests with TEST() and links harness.c, which has main():
 *   prog                 runs every test of the file, each in a child process
 *   prog --list          names, one a line
 *   prog --run NAME      one test, in this process (for gdb, valgrind)
 *   --seed N             replays; --rounds N scales stress tests; --limit S changes the time limit
 */
#ifndef ASIDE_TEST_HARNESS_H
#define ASIDE_TEST_HARNESS_H

#include <aside/aside.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- tests --------------------------------------------------------------------------------------- */

struct test {
    const char *name;
    void (*run)(void);
    int limit_s; /* 0: the default, 60 */
    struct test *next;
};
void test_register(struct test *test);

/* TEST(name) { body } */
#define TEST(ident) TEST_LIMIT(ident, 0)
#define TEST_LIMIT(ident, seconds)                                                                 \
    static void test_##ident(void);                                                                \
    __attribute__((constructor)) static void register_##ident(void)                                \
    {                                                                                              \
        static struct test self = {#ident, test_##ident, (seconds), NULL};                         \
        test_register(&self);                                                                      \
    }                                                                                              \
    static void test_##ident(void)

/* A failed check prints file, line, expression and seed, and ends the test's process with status 1. */
#define CHECK(condition) ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition, NULL))
#define CHECK_INT(actual, expected)                                                                \
    test_check_int(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))
#define CHECK_STATUS(actual, expected)                                                             \
    test_check_status(__FILE__, __LINE__, #actual, (actual), (expected))
_Noreturn void test_fail(const char *file, int line, const char *what, const char *why);
void test_check_int(const char *file, int line, const char *what, long long actual,
                    long long expected);
void test_check_status(const char *file, int line, const char *what, aside_status actual,
                       aside_status expected);
_Noreturn void test_skip(const char *why); /* exit 77 */
/* What the test is about just now, as printf() has it: printed when it fails. */
void test_scene(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t test_seed(void);             /* of this run, printed when a test fails */
uint64_t test_random(void);           /* thread-safe, from the seed */
long test_rounds(long for_make_test); /* for_make_test scaled by --rounds / ASIDE_TEST_ROUNDS */

/* ---- threads and gates --------------------------------------------------------------------------- */

typedef void *(*thread_fn)(void *);
pthread_t thread_start(thread_fn fn, void *arg); /* fails the test if it cannot */
void *thread_join(pthread_t thread);

/* A gate that a fetch waits at until the test opens it. Static init: {0}-able through gate_init. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int arrived; /* threads that have reached the gate so far */
    bool open;
};
void gate_init(struct gate *gate);
void gate_pass(struct gate *gate); /* arrive, wait until open */
void gate_open(struct gate *gate);
void gate_wait_arrived(struct gate *gate, int count); /* until that many have arrived */
void gate_fini(struct gate *gate);

/* Spins (yielding) until the condition holds; fails the test after a third of the usual time limit. */
#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int64_t give_up_ = test_now_ns() + test_patience_ns();                                     \
        while (!(condition)) {                                                                     \
            if (test_now_ns() > give_up_)                                                          \
                test_fail(__FILE__, __LINE__, #condition, "still false after long");               \
            test_yield();                                                                          \
        }                                                                                          \
    } while (0)
int64_t test_now_ns(void); /* CLOCK_MONOTONIC */
int64_t test_patience_ns(void);
void test_yield(void); /* sched_yield and a very short nap */

/* One gauge or counter of a cache, by member name: STAT(cache, waiters_now). */
#define STAT(cache, member) (test_stats(cache).member)
aside_stats test_stats(aside_cache *cache);

/* ---- the injected clock -------------------------------------------------------------------------- */

struct fake_clock {
    _Atomic int64_t now_ns;
};
aside_clock fake_clock_init(struct fake_clock *clock); /* starts at 1000 s */
/* Moves the clock and tells the cache (may be NULL) by aside_clock_changed(). */
void fake_clock_advance_ms(struct fake_clock *clock, int64_t ms, aside_cache *cache);
void fake_clock_advance_ns(struct fake_clock *clock, int64_t ns, aside_cache *cache);

/* ---- the ledger: an allocator that counts, and that fails on demand ------------------------------ */

struct ledger {
    _Atomic int64_t live_bytes; /* as requested */
    _Atomic int64_t live_blocks;
    _Atomic int64_t peak_bytes;
    _Atomic int64_t calls;     /* mallocs and growing reallocs so far */
    _Atomic int64_t fail_at;   /* 0: never; n: the n-th call from now fails ... */
    _Atomic int fail_for_ever; /* ... and every later one */
};
aside_alloc ledger_init(
    struct ledger *ledger); /* guards each block: overrun and double free end the test */

/* Process-wide: malloc, calloc, realloc, posix_memalign, aligned_alloc and pthread_create of the library
 * are wrapped at link time (--wrap) in test builds; these make the n-th fail. 0: never. */
void process_fail_alloc(int64_t nth, bool for_ever);
void process_fail_thread(int64_t nth, bool for_ever);
void process_fail_random(int64_t nth, bool for_ever); /* getrandom(2) of the library, likewise */
int64_t process_alloc_calls(void);                    /* since the last process_fail_alloc */
int64_t process_thread_calls(void);                   /* since the last process_fail_thread */

/* ---- counted from outside ------------------------------------------------------------------------ */

int process_threads(void);                     /* tasks in /proc/self/task */
int process_threads_named(const char *prefix); /* of these, whose name starts so */
int process_descriptors(void);                 /* in /proc/self/fd */
size_t process_resident_bytes(void);
int threads_created(void); /* pthread_create calls by the library so far, by --wrap */
int threads_joined(void);  /* pthread_join calls by the library so far, by --wrap */

/* ---- the seeded scheduler ------------------------------------------------------------------------ */

/* In builds with ASIDE_SCHED every atomic operation, lock, unlock, wait and wake of the library calls
 * aside_sched_point() first. It does nothing until perturb() gives it a seed; then it yields, naps and
 * starves one thread in four at random. perturb(0) stops it. False where the build has no points. */
bool perturb(uint64_t seed);
void aside_sched_point(void);

/* At the n-th of its points from now on the thread that asks for this calls fn, once: which does there what
 * another thread could. 0: it does not. False where the build has no points. */
bool act_at_point(int64_t nth, void (*fn)(void *arg), void *arg);

#endif
