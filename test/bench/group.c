/*
 * group.c -- what aside_group_do() costs where nothing is shared, beside Do of Go's
 * golang.org/x/sync/singleflight: one group, one or two threads, keys of their own, a caller with
 * neither token nor deadline, a fetch that does next to nothing. What is left is the flight itself.
 *
 *   ready  the fetch hands over a value that exists, one of its thread's own
 *   fresh  it makes a new one, a copy of 64 bytes
 *
 * Both sides make the same keys, cycle through them alike, check every result, and take the time in
 * their own process: peers/singleflight.go. Ours and Go's slices alternate, the order turns every
 * pair, and a ratio compares the two of one pair. A slice is long enough for Go to collect its
 * garbage, which belongs to the price of a call there as free() does here.
 *
 * ns is what one thread waits for a call, so two threads make 2/ns calls. Our threads are pinned,
 * one alone to each core in turn. Go's are not: they were slower when they were.
 */
#include "lib_bench.h"

#include <aside/group.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_THREADS 2
#define KEYS 1024 /* of one thread */
#define BATCH 256 /* calls between two looks at whether all have finished */
#define TARGET 0.5

enum kind { FRESH, READY, KINDS };
static const char *const kind_names[KINDS] = {"fresh", "ready"};

static char payload[BENCH_VALUE];

/* ---- ours ------------------------------------------------------------------------------------ */

struct worker {
    _Alignas(128) pthread_t thread;
    char keys[KEYS][BENCH_KEY];
    aside_value *value; /* a thread's own: keys of their own seldom have one value in common */
    int core;
    uint64_t calls;
    double ns;
};

static struct {
    aside_group *group;
    aside_fetch_fn *fetch;
    int threads;
    size_t calls;
    _Atomic int begun, ended;
} run;

static aside_status fetch_fresh(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, payload, sizeof payload);
}

static aside_status fetch_ready(aside_fetch *fetch, void *arg)
{
    const struct worker *worker = arg;
    return aside_fetch_give(fetch, aside_value_ref(worker->value));
}

static void call_all(struct worker *worker, size_t calls)
{
    const aside_call call = {ASIDE_CALL, .fetch = run.fetch, .arg = worker};
    for (size_t i = 0; i < calls; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        NEED(aside_group_do(run.group, worker->keys[i % KEYS], BENCH_KEY, &call, &result) ==
             ASIDE_OK);
        NEED(!result.shared && aside_value_size(result.value) == BENCH_VALUE);
        aside_value_unref(result.value);
    }
    worker->calls += calls;
}

/* Whoever has finished goes on calling: the last one would run undisturbed else. */
static void *work(void *arg)
{
    struct worker *worker = arg;
    bench_pin(worker->core);
    call_all(worker, run.calls / 10 + 1); /* warms up */
    atomic_fetch_add(&run.begun, 1);
    while (atomic_load(&run.begun) < run.threads)
        ;
    int64_t start_ns = bench_now_ns();
    call_all(worker, run.calls);
    worker->ns = (double)(bench_now_ns() - start_ns) / (double)run.calls;
    atomic_fetch_add(&run.ended, 1);
    while (atomic_load(&run.ended) < run.threads)
        call_all(worker, BATCH);
    return NULL;
}

static void prepare(struct worker *worker, int number, uint64_t seed)
{
    uint64_t first_key = (seed * (uint64_t)run.threads + (uint64_t)number) * KEYS;
    for (uint64_t i = 0; i < KEYS; i++)
        bench_key(worker->keys[i], first_key + i);
    worker->core = (int)(seed % MOST_THREADS) + number;
    worker->calls = 0;
    NEED(aside_value_copy(payload, sizeof payload, &worker->value) == ASIDE_OK);
}

/* Every call led a fetch of its own. */
static void check_counts(uint64_t calls)
{
    aside_stats stats = {.struct_size = sizeof stats};
    NEED(aside_group_stats_get(run.group, &stats) == ASIDE_OK);
    NEED(stats.fetches == calls && stats.misses_led == calls && stats.misses_joined == 0);
    NEED(stats.get_with_fetch_ok == calls && stats.flights_now == 0);
}

static double collect(struct worker *workers)
{
    uint64_t calls = 0;
    double ns = 0;
    for (int i = 0; i < run.threads; i++) {
        NEED(pthread_join(workers[i].thread, NULL) == 0);
        aside_value_unref(workers[i].value);
        calls += workers[i].calls;
        ns += workers[i].ns;
    }
    check_counts(calls);
    return ns / run.threads;
}

/* Nanoseconds each. seed says which keys, and which core comes first. */
static double slice_of_ours(enum kind kind, int threads, size_t calls, uint64_t seed)
{
    static struct worker workers[MOST_THREADS];
    NEED(aside_group_new(&run.group, NULL) == ASIDE_OK);
    run.fetch = kind == READY ? fetch_ready : fetch_fresh;
    run.threads = threads;
    run.calls = calls;
    atomic_store(&run.begun, 0);
    atomic_store(&run.ended, 0);
    for (int i = 0; i < threads; i++)
        prepare(&workers[i], i, seed);
    for (int i = 0; i < threads; i++)
        NEED(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    double ns = collect(workers);
    NEED(aside_group_close(run.group) == ASIDE_OK);
    aside_group_unref(run.group);
    return ns;
}

/* ---- the peer -------------------------------------------------------------------------------- */

static struct {
    pid_t pid;
    FILE *to, *from; /* NULL: there is none */
    char version[64];
} peer;

/* peers/singleflight beside this program; make leaves it out where there is no Go. */
static void peer_path(char *path, size_t capacity)
{
    ssize_t length = readlink("/proc/self/exe", path, capacity - 1);
    NEED(length > 0);
    path[length] = '\0';
    char *name = strrchr(path, '/') + 1;
    size_t left = capacity - (size_t)(name - path);
    NEED((size_t)snprintf(name, left, "peers/singleflight") < left);
}

static bool spawn_peer(int input, int output)
{
    char path[4096], *argv[] = {path, NULL};
    peer_path(path, sizeof path);
    posix_spawn_file_actions_t actions;
    NEED(posix_spawn_file_actions_init(&actions) == 0);
    NEED(posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO) == 0);
    NEED(posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO) == 0);
    int error = posix_spawn(&peer.pid, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error == 0;
}

static void start_peer(void)
{
    int to[2], from[2];
    NEED(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    bool started = spawn_peer(to[0], from[1]);
    close(to[0]);
    close(from[1]);
    if (!started) {
        close(to[1]);
        close(from[0]);
        return;
    }
    signal(SIGPIPE, SIG_IGN); /* a peer that has died is a functional error, to be told */
    NEED((peer.to = fdopen(to[1], "w")) && (peer.from = fdopen(from[0], "r")));
    NEED(fscanf(peer.from, "%63s", peer.version) == 1);
}

static double slice_of_peer(enum kind kind, int threads, size_t calls, uint64_t seed)
{
    double ns;
    NEED(fprintf(peer.to, "%d %zu %llu %s\n", threads, calls, (unsigned long long)seed,
                 kind_names[kind]) > 0);
    NEED(fflush(peer.to) == 0);
    NEED(fscanf(peer.from, "%lf", &ns) == 1);
    return ns;
}

static void end_peer(void)
{
    if (!peer.to)
        return;
    int status;
    fclose(peer.to);
    NEED(waitpid(peer.pid, &status, 0) == peer.pid && status == 0);
    fclose(peer.from);
}

/* ---- pairs and report ------------------------------------------------------------------------ */

struct figures {
    double *ours, *go, *ratio; /* [pair] */
};

static struct figures room_for(size_t pairs)
{
    double *all = bench_alloc(pairs * 3 * sizeof *all);
    return (struct figures){.ours = all, .go = all + pairs, .ratio = all + 2 * pairs};
}

static void measure_pair(struct figures *figures, enum kind kind, int threads, size_t calls,
                         size_t pair)
{
    for (int i = 0; i < 2; i++)
        if (((size_t)i + pair) % 2 == 0)
            figures->ours[pair] = slice_of_ours(kind, threads, calls, pair);
        else if (peer.to)
            figures->go[pair] = slice_of_peer(kind, threads, calls, pair);
    if (peer.to)
        figures->ratio[pair] = figures->ours[pair] / figures->go[pair];
}

static void print_spread(const double *values, size_t pairs, int digits)
{
    struct bench_spread spread = bench_spread(values, pairs);
    printf("\t%.*f\t%.*f\t%.*f", digits, spread.mid, digits, spread.low, digits, spread.high);
}

static void print_row(const struct figures *figures, enum kind kind, int threads, size_t pairs)
{
    printf("%s\t%d", kind_names[kind], threads);
    print_spread(figures->ours, pairs, 1);
    if (peer.to) {
        print_spread(figures->go, pairs, 1);
        print_spread(figures->ratio, pairs, 2);
    } else {
        printf("\tmissing\t-\t-\t-\t-\t-");
    }
    printf("\n");
}

/* One line for scripts. */
static void print_kind(const struct figures *figures, enum kind kind, size_t pairs)
{
    bool met = true;
    printf("group:");
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        const struct figures *these = &figures[threads - 1];
        printf(" threads=%d ours_ns=%.1f", threads, bench_median(these->ours, pairs));
        if (!peer.to) {
            printf(" go_ns=missing ratio=missing");
            continue;
        }
        double ratio = bench_median(these->ratio, pairs);
        met = met && ratio <= TARGET;
        printf(" go_ns=%.1f ratio=%.2f", bench_median(these->go, pairs), ratio);
    }
    printf(" value=%s target=%.2f target_is=%s\n", kind_names[kind], TARGET,
           peer.to ? bench_verdict(met) : "missing");
}

static void measure_all(struct figures figures[KINDS][MOST_THREADS], size_t calls, size_t pairs)
{
    for (size_t pair = 0; pair < pairs; pair++)
        for (int i = 0; i < KINDS * MOST_THREADS; i++)
            measure_pair(&figures[i / MOST_THREADS][i % MOST_THREADS], i / MOST_THREADS,
                         i % MOST_THREADS + 1, calls, pair);
}

static void report(struct figures figures[KINDS][MOST_THREADS], size_t pairs)
{
    printf("value\tthreads\tours_ns\tmin\tmax\tgo_ns\tmin\tmax\tratio\tmin\tmax\n");
    for (int i = 0; i < KINDS * MOST_THREADS; i++)
        print_row(&figures[i / MOST_THREADS][i % MOST_THREADS], i / MOST_THREADS,
                  i % MOST_THREADS + 1, pairs);
    printf("\n");
    for (int kind = 0; kind < KINDS; kind++)
        print_kind(figures[kind], kind, pairs);
}

int main(int argc, char **argv)
{
    long pairs = 15, calls = 500000;
    const struct bench_option options[] = {
        {"--pairs", &pairs, 1, "slices of each kind, ours and Go's"},
        {"--calls", &calls, 1, "calls of a thread in a slice"},
    };
    bench_options(argc, argv, options, sizeof options / sizeof *options);
    bench_machine("group");
    start_peer();
    printf("peer: %s%s\n", peer.to ? "golang.org/x/sync/singleflight, " : "missing", peer.version);
    printf("%ld alternating pairs of %ld calls a thread, %d keys of %d bytes each, values of %d "
           "bytes\ntarget: at most %.2f of Go's time\n\n",
           pairs, calls, KEYS, BENCH_KEY, BENCH_VALUE, TARGET);

    static struct figures figures[KINDS][MOST_THREADS];
    for (int i = 0; i < KINDS * MOST_THREADS; i++)
        figures[i / MOST_THREADS][i % MOST_THREADS] = room_for((size_t)pairs);
    measure_all(figures, (size_t)calls, (size_t)pairs);
    end_peer();
    report(figures, (size_t)pairs);
    for (int i = 0; i < KINDS * MOST_THREADS; i++)
        free(figures[i / MOST_THREADS][i % MOST_THREADS].ours);
    return 0;
}
