/*
 * lib_bench.h -- what all benches share: the machine line, options, time, order statistics,
 * pinning, events on a futex word. A bench prints figures and targets, and fails on functional
 * errors only: a slow figure is a finding, not a failure.
 *
 * How figures are taken: on small virtual machines two threads that write one cache line run in
 * spells of tens of seconds, slow or fast. So ours and the control alternate within a second, the
 * order turns every round, and what is compared are pairs: the median of the ratios, not the ratio
 * of two medians taken minutes apart.
 */
#ifndef ASIDE_BENCH_H
#define ASIDE_BENCH_H

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One of the peers is in C++, which sees everything but the events: it lacks C's atomics. */
#ifdef __cplusplus
extern "C" {
#else
#include <stdatomic.h>
#endif

/* ---- the run --------------------------------------------------------------------------------- */

/* One --name VALUE of the command line; *value holds the default first. least: smallest allowed. */
struct bench_option {
    const char *name;
    long *value;
    long least;
    const char *what;
};

/* Reads the command line; --help and unknown options end the program. */
void bench_options(int argc, char **argv, const struct bench_option *options, size_t count);

/* Prints on what the bench runs: processor, cores, kernel, compiler, library, load average. */
void bench_machine(const char *bench);

/* A functional error: prints it, ends the program with status 1. */
void bench_die(const char *file, int line, const char *what) __attribute__((noreturn));
#define NEED(condition) ((condition) ? (void)0 : bench_die(__FILE__, __LINE__, #condition))

/* A target beside a figure: "met" or "missed". */
const char *bench_verdict(bool met);

void *bench_alloc(size_t size); /* zeroed; ends the program if there is no memory */

/* ---- time and cores -------------------------------------------------------------------------- */

int64_t bench_now_ns(void);   /* CLOCK_MONOTONIC */
int64_t bench_cpu_ns(void);   /* CLOCK_THREAD_CPUTIME_ID */
int64_t bench_delay_ns(void); /* how long this thread was ready and had no core; 0 if unknown */
void bench_nap_us(long us);
int bench_cores(void);   /* that this process may use */
void bench_pin(int nth); /* this thread to the nth of them, modulo their number */
pid_t bench_tid(void);
bool bench_asleep(pid_t tid); /* a thread of this process sleeps in the kernel */

/* ---- order statistics ------------------------------------------------------------------------ */

struct bench_spread {
    double low, mid, high;
};
struct bench_spread bench_spread(const double *values, size_t count); /* minimum, median, maximum */
double bench_median(const double *values, size_t count);
double bench_quantile(const double *values, size_t count, double part); /* nearest rank */

/* ---- keys and random numbers ----------------------------------------------------------------- */

#define BENCH_KEY 16   /* bytes of a key */
#define BENCH_VALUE 64 /* bytes of a value */

void bench_key(char key[BENCH_KEY], uint64_t number); /* 16 printable characters, no NUL */
uint64_t bench_random(uint64_t *state);               /* splitmix64 */

/* ---- events ---------------------------------------------------------------------------------- */

#ifndef __cplusplus
void bench_futex_wait(_Atomic uint32_t *word, uint32_t while_it_is);
void bench_futex_wake(_Atomic uint32_t *word, int most);

/* A number that only grows; waiting for n ends once it is n or more. {0} is ready for use. */
struct bench_event {
    _Atomic uint32_t reached;
};
void bench_event_set(struct bench_event *event, uint32_t number);
void bench_event_await(struct bench_event *event, uint32_t number);
#endif

/* ---- statistics ------------------------------------------------------------------------------ */

aside_stats bench_stats(const aside_cache *cache);

#ifdef __cplusplus
}
#endif

#endif
