/* driver.c -- see driver.h. */
#include "driver.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FEW_PICKS LOAD_PICKS
#define MANY_PICKS (1u << 21) /* more than two slices ask for */
#define SETTLE 2000000        /* look-ups before the hit ratio of the case aside is taken */
#define FULL_KEYS 100000      /* new keys a go of a case on a full cache */
#define FILL_BOUND (DRIVER_MANY * 3 / 2)
#define STACK_BYTES ((size_t)256 << 10)
#define MOST_THREADS 4096

struct worker {
    _Alignas(128) pthread_t thread;
    int number, core;
    uint32_t *picks;
    size_t at; /* in picks */
    uint64_t seed;
    uint64_t value[BENCH_VALUE / 8];
    uint64_t ops, hits;
    int64_t took_ns, end_ns;
};

static const struct driver *driver;
static const struct driver_case *the_case;
static struct store *store;
static char *keys;
static size_t key_count, pick_count, thread_count;
static struct worker *workers;
static struct load_zipf *zipf; /* of the case aside */

/* What is asked of the workers now. */
static struct {
    void (*job)(struct worker *worker);
    int64_t slice_ns;
    bool pinned;
    uint32_t number; /* of the order */
    _Atomic uint32_t parked;
    struct bench_event begin;
    char key[BENCH_KEY];
} order;

/* ---- what a worker does ---------------------------------------------------------------------- */

static void run_batch(struct worker *worker)
{
    struct driver_load load = {keys, worker->picks + worker->at, worker->value};
    worker->hits += the_case->batch(store, &load);
    worker->ops += DRIVER_BATCH;
    worker->at = (worker->at + DRIVER_BATCH) % pick_count;
}

static void run_until(struct worker *worker, int64_t slice_ns)
{
    worker->ops = worker->hits = 0;
    int64_t start_ns = bench_now_ns();
    do {
        run_batch(worker);
        worker->took_ns = bench_now_ns() - start_ns;
    } while (worker->took_ns < slice_ns);
}

static void slice_job(struct worker *worker)
{
    run_until(worker, order.slice_ns);
}

static void fill_job(struct worker *worker)
{
    size_t first = key_count * (size_t)worker->number / thread_count;
    size_t end = key_count * ((size_t)worker->number + 1) / thread_count;
    driver->fill(store, keys + first * BENCH_KEY, end - first, worker->value);
    worker->ops = end - first;
}

static void stampede_job(struct worker *worker)
{
    NEED(the_case->fetch(store, order.key) == LOAD_SUM);
    worker->ops = 1;
}

static void full_job(struct worker *worker)
{
    the_case->each(store, keys, key_count, worker->value);
    worker->ops = key_count;
}

/* A thread's first call may make what it needs: that is not timed. */
static void warm_up(struct worker *worker)
{
    if (order.job == slice_job)
        run_until(worker, order.slice_ns / 10);
    else
        driver->fill(store, "user:-----------", 1, worker->value);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    if (order.pinned)
        bench_pin(worker->core);
    if (driver->enter)
        driver->enter();
    warm_up(worker);
    atomic_fetch_add(&order.parked, 1);
    bench_event_await(&order.begin, order.number);
    order.job(worker);
    worker->end_ns = bench_now_ns();
    if (driver->leave)
        driver->leave();
    return NULL;
}

/* ---- orders ---------------------------------------------------------------------------------- */

struct answer {
    uint64_t ops, hits;
    int64_t ns;
};

static void start(size_t count)
{
    pthread_attr_t small;
    NEED(pthread_attr_init(&small) == 0);
    NEED(pthread_attr_setstacksize(&small, STACK_BYTES) == 0);
    order.number++;
    atomic_store(&order.parked, 0);
    for (size_t i = 0; i < count; i++)
        NEED(pthread_create(&workers[i].thread, &small, work, &workers[i]) == 0);
    pthread_attr_destroy(&small);
    while (atomic_load(&order.parked) < count)
        bench_nap_us(100);
    if (!order.pinned)
        bench_nap_us(5000); /* a crowd is to be asleep when it begins */
}

/* From the beginning to the end of the last; for slices the mean of what each of them took. */
static struct answer run_team(size_t count)
{
    start(count);
    struct answer answer = {0, 0, 0};
    int64_t begin_ns = bench_now_ns(), last_ns = 0, sum_ns = 0;
    bench_event_set(&order.begin, order.number);
    for (size_t i = 0; i < count; i++) {
        NEED(pthread_join(workers[i].thread, NULL) == 0);
        answer.ops += workers[i].ops;
        answer.hits += workers[i].hits;
        sum_ns += workers[i].took_ns;
        last_ns = workers[i].end_ns > last_ns ? workers[i].end_ns : last_ns;
    }
    answer.ns = order.job == slice_job ? sum_ns / (int64_t)count : last_ns - begin_ns;
    return answer;
}

/* Cores are not equally fast: one thread is half the time on the first, half on the second. */
static struct answer slice(int64_t slice_ns)
{
    order.slice_ns = slice_ns;
    if (thread_count > 1 || bench_cores() == 1)
        return run_team(thread_count);
    order.slice_ns = slice_ns / 2;
    struct answer left = run_team(1);
    workers[0].core = 1;
    struct answer right = run_team(1);
    workers[0].core = 0;
    return (struct answer){left.ops + right.ops, left.hits + right.hits, left.ns + right.ns};
}

/* No sequence is asked for twice: a cache that learns would know it by heart. */
static void renew_picks(struct worker *worker)
{
    if (worker->at <= pick_count / 2)
        return;
    load_zipf_picks(zipf, worker->picks, pick_count, &worker->seed);
    worker->at = 0;
}

static struct answer aside_slice(int64_t slice_ns)
{
    for (size_t i = 0; i < thread_count; i++)
        renew_picks(&workers[i]);
    return slice(slice_ns);
}

static struct answer fresh_fill(void)
{
    store = driver->open(FILL_BOUND);
    struct answer answer = run_team(thread_count);
    driver->close(store);
    store = NULL;
    return answer;
}

static int64_t resident_bytes(void)
{
    long long total, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    NEED(file && fscanf(file, "%lld %lld", &total, &resident) == 2);
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static struct answer growth(void)
{
    (void)resident_bytes(); /* what reading it takes is taken before the start */
    int64_t before = resident_bytes();
    store = driver->open(FILL_BOUND);
    driver->fill(store, keys, key_count, workers[0].value);
    int64_t bytes = resident_bytes() - before;
    driver->close(store);
    store = NULL;
    return (struct answer){(uint64_t)bytes, key_count, 1};
}

static struct answer stampede(void)
{
    static uint64_t number = DRIVER_MANY;
    bench_key(order.key, number++);
    return run_team(thread_count);
}

/* The keys of a go have never been seen before. */
static struct answer on_full(void)
{
    static uint64_t next = DRIVER_MANY;
    for (size_t i = 0; i < key_count; i++)
        bench_key(keys + i * BENCH_KEY, next++);
    return run_team(1);
}

static struct answer go(int64_t slice_ns)
{
    switch (the_case->shape) {
    case DRIVER_FILL: return fresh_fill();
    case DRIVER_BYTES: return growth();
    case DRIVER_STAMPEDE: return stampede();
    case DRIVER_FULL: return on_full();
    case DRIVER_ASIDE: return aside_slice(slice_ns);
    default: return slice(slice_ns);
    }
}

/* ---- making ---------------------------------------------------------------------------------- */

static void mark_sets(uint32_t *picks, uint64_t seed)
{
    for (size_t i = 0; i < pick_count; i++)
        if (bench_random(&seed) % 10 == 0)
            picks[i] |= DRIVER_SET;
}

static void pick(struct worker *worker)
{
    worker->seed = 1 + (uint64_t)worker->number;
    if (the_case->shape == DRIVER_ASIDE) {
        worker->picks = bench_alloc(pick_count * sizeof *worker->picks);
        load_zipf_picks(zipf, worker->picks, pick_count, &worker->seed);
        return;
    }
    worker->picks = load_picks(the_case->load, key_count, pick_count, worker->seed);
    if (the_case->shape == DRIVER_MIXED)
        mark_sets(worker->picks, worker->seed + 1000);
    for (size_t i = 0; the_case->hot && i < pick_count; i++)
        worker->picks[i] = the_case->hot();
}

static void make_workers(void)
{
    void *block = NULL;
    NEED(posix_memalign(&block, 128, thread_count * sizeof *workers) == 0);
    workers = memset(block, 0, thread_count * sizeof *workers);
    for (size_t i = 0; i < thread_count; i++) {
        workers[i].number = workers[i].core = (int)i;
        load_value(workers[i].value, i);
        if (the_case->batch)
            pick(&workers[i]);
    }
}

static void fill_each(size_t count)
{
    uint64_t value[BENCH_VALUE / 8];
    for (size_t i = 0; i < count; i++) {
        load_value(value, i);
        driver->fill(store, keys + i * BENCH_KEY, 1, value);
    }
}

static void make_hits(void)
{
    key_count = LOAD_ENTRIES;
    pick_count = FEW_PICKS;
    keys = load_keys(key_count);
    make_workers();
    order.job = slice_job;
    store = driver->open(DRIVER_BOUND);
    fill_each(key_count);
}

static void make_aside(void)
{
    key_count = DRIVER_MANY;
    pick_count = MANY_PICKS;
    keys = load_keys(key_count);
    zipf = load_zipf_new(key_count);
    make_workers();
    order.job = slice_job;
    store = driver->open(DRIVER_ASIDE_BOUND);
    for (size_t i = 0; i < SETTLE; i += DRIVER_BATCH)
        run_batch(&workers[i / DRIVER_BATCH % thread_count]);
}

static void make_full(void)
{
    key_count = DRIVER_MANY / 2;
    keys = load_keys(key_count);
    make_workers();
    order.job = full_job;
    store = driver->open(DRIVER_ASIDE_BOUND);
    fill_each(key_count);
    key_count = FULL_KEYS;
}

static void make_fill(void)
{
    key_count = DRIVER_MANY;
    keys = load_keys(key_count);
    make_workers();
    order.job = fill_job;
}

static void make_stampede(void)
{
    make_workers();
    order.job = stampede_job;
    order.pinned = false;
    store = driver->open(DRIVER_BOUND);
}

static void make(void)
{
    order.pinned = true;
    switch (the_case->shape) {
    case DRIVER_ASIDE: make_aside(); break;
    case DRIVER_FULL: make_full(); break;
    case DRIVER_FILL:
    case DRIVER_BYTES: make_fill(); break;
    case DRIVER_STAMPEDE: make_stampede(); break;
    default: make_hits(); break;
    }
}

static void end(void)
{
    if (store)
        driver->close(store);
    for (size_t i = 0; i < thread_count; i++)
        free(workers[i].picks);
    load_zipf_free(zipf);
    free(workers);
    free(keys);
}

/* ---- the protocol ---------------------------------------------------------------------------- */

static const struct driver_case *find_case(const char *name)
{
    const struct driver_case *each = driver->cases;
    while (each->name && strcmp(each->name, name) != 0)
        each++;
    return each->name ? each : NULL;
}

static int print_cases(void)
{
    for (const struct driver_case *each = driver->cases; each->name; each++)
        printf("%s\n", each->name);
    return 0;
}

static void answer_lines(void)
{
    long ms;
    printf("ready\n");
    fflush(stdout);
    while (scanf(" go %ld", &ms) == 1) {
        struct answer answer = go(ms * 1000000);
        printf("%llu %lld %llu\n", (unsigned long long)answer.ops, (long long)answer.ns,
               (unsigned long long)answer.hits);
        fflush(stdout);
    }
}

int driver_main(int argc, char **argv, const struct driver *which)
{
    driver = which;
    if (argc == 2 && strcmp(argv[1], "--cases") == 0)
        return print_cases();
    if (argc == 3) {
        the_case = find_case(argv[1]);
        thread_count = strtoul(argv[2], NULL, 10);
    }
    if (!the_case || thread_count < 1 || thread_count > MOST_THREADS) {
        fprintf(stderr, "usage: %s --cases | CASE THREADS\n", argv[0]);
        return 2;
    }
    if (driver->enter)
        driver->enter();
    make();
    answer_lines();
    end();
    if (driver->leave)
        driver->leave();
    return 0;
}
