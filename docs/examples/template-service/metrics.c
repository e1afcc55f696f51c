/*
 * metrics.c -- counters that every HTTP thread adds to, without a lock.
 *
 * All atomics are relaxed: each number is right by itself, and a reader that sees one request in
 * one of them and not yet in another is off by requests that end at this very moment.
 */
#include "metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* X(status): what the daemon answers with; any other is status="other". */
#define STATUS_MAP(X) X(200) X(201) X(400) X(404) X(405) X(413) X(499) X(500) X(503) X(504)

/* X(nanoseconds, seconds as text): upper bounds, closest where a database's answers lie. As text,
 * because what printf() makes of a fraction goes by the locale. */
#define BOUND_MAP(X)                                                                               \
    X(100000, "0.0001")                                                                            \
    X(200000, "0.0002")                                                                            \
    X(500000, "0.0005")                                                                            \
    X(1000000, "0.001")                                                                            \
    X(2000000, "0.002")                                                                            \
    X(3000000, "0.003")                                                                            \
    X(5000000, "0.005")                                                                            \
    X(7500000, "0.0075")                                                                           \
    X(10000000, "0.01")                                                                            \
    X(15000000, "0.015")                                                                           \
    X(20000000, "0.02")                                                                            \
    X(30000000, "0.03")                                                                            \
    X(50000000, "0.05")                                                                            \
    X(100000000, "0.1")                                                                            \
    X(200000000, "0.2")                                                                            \
    X(500000000, "0.5")                                                                            \
    X(1000000000, "1")                                                                             \
    X(2000000000, "2")                                                                             \
    X(5000000000, "5")                                                                             \
    X(10000000000, "10")

static const struct {
    int64_t ns;
    const char *seconds;
} bounds[] = {
#define BOUND_ROW(ns, seconds) {ns, seconds},
    BOUND_MAP(BOUND_ROW)
#undef BOUND_ROW
};
_Static_assert(sizeof bounds / sizeof bounds[0] == LATENCY_BUCKETS, "metrics.h says how many");

static const char *const paths[] = {
#define ROUTE_PATH(name, path) path,
    ROUTE_MAP(ROUTE_PATH)
#undef ROUTE_PATH
        "other"};

static const char *const methods[] = {
#define METHOD_TEXT(name, text) text,
    METHOD_MAP(METHOD_TEXT)
#undef METHOD_TEXT
        "other"};

static const struct {
    unsigned status;
    const char *text;
} statuses[] = {
#define STATUS_ROW(status) {status, #status},
    STATUS_MAP(STATUS_ROW)
#undef STATUS_ROW
        {0, "other"}};
enum { STATUS_COUNT = sizeof statuses / sizeof statuses[0] };

static atomic_uint_fast64_t ended[ROUTE_COUNT][METHOD_COUNT][STATUS_COUNT];
static atomic_uint_fast64_t buckets[ROUTE_COUNT][LATENCY_BUCKETS + 1];
static atomic_uint_fast64_t sums_ns[ROUTE_COUNT];
static atomic_int_fast64_t in_flight;

/* ---- names ----------------------------------------------------------------------------------- */

enum route route_of(const char *path)
{
    int route = 0;
    while (route < ROUTE_OTHER && strcmp(path, paths[route]) != 0)
        route++;
    return (enum route)route;
}

enum method method_of(const char *text)
{
    int method = 0;
    while (method < METHOD_OTHER && strcmp(text, methods[method]) != 0)
        method++;
    return (enum method)method;
}

static size_t status_of(unsigned status)
{
    size_t i = 0;
    while (i < STATUS_COUNT - 1 && status != statuses[i].status)
        i++;
    return i;
}

/* ---- counting -------------------------------------------------------------------------------- */

static void add(atomic_uint_fast64_t *counter, uint64_t amount)
{
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static uint64_t load(atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_request_began(void)
{
    atomic_fetch_add_explicit(&in_flight, 1, memory_order_relaxed);
}

static size_t bucket_of(int64_t took_ns)
{
    size_t i = 0;
    while (i < LATENCY_BUCKETS && took_ns > bounds[i].ns)
        i++;
    return i;
}

void metrics_request_ended(enum route route, enum method method, unsigned status, int64_t took_ns)
{
    int64_t ns = took_ns > 0 ? took_ns : 0;
    atomic_fetch_sub_explicit(&in_flight, 1, memory_order_relaxed);
    add(&ended[route][method][status_of(status)], 1);
    add(&buckets[route][bucket_of(ns)], 1);
    add(&sums_ns[route], (uint64_t)ns);
}

/* ---- reading --------------------------------------------------------------------------------- */

void metrics_totals(struct metrics_totals *totals)
{
    totals->requests = 0;
    totals->in_flight = atomic_load_explicit(&in_flight, memory_order_relaxed);
    for (size_t i = 0; i <= LATENCY_BUCKETS; i++) {
        totals->buckets[i] = load(&buckets[ROUTE_DETAILS][i]);
        totals->requests += totals->buckets[i];
    }
}

double metrics_quantile(const struct metrics_totals *before, const struct metrics_totals *after,
                        double quantile)
{
    uint64_t count = after->requests - before->requests, seen = 0;
    if (count == 0)
        return 0;
    size_t i = 0;
    for (; i < LATENCY_BUCKETS - 1; i++) {
        seen += after->buckets[i] - before->buckets[i];
        if ((double)seen >= quantile * (double)count)
            break;
    }
    return (double)bounds[i].ns / 1e9;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The commonest sample is there from the start, so that its first growth is seen as growth. */
static int is_always_written(size_t route, size_t method, size_t status)
{
    return route == ROUTE_DETAILS && method == METHOD_GET && statuses[status].status == 200;
}

static void write_count(FILE *out, size_t route, size_t method, size_t status)
{
    uint64_t count = load(&ended[route][method][status]);
    if (count == 0 && !is_always_written(route, method, status))
        return;
    fprintf(out, "http_request_total{path=\"%s\",method=\"%s\",status=\"%s\"} %" PRIu64 "\n",
            paths[route], methods[method], statuses[status].text, count);
}

static void write_counts(FILE *out)
{
    write_head(out, "http_request_total", "counter", "HTTP requests that have been answered.");
    for (size_t route = 0; route < ROUTE_COUNT; route++)
        for (size_t method = 0; method < METHOD_COUNT; method++)
            for (size_t status = 0; status < STATUS_COUNT; status++)
                write_count(out, route, method, status);
}

static uint64_t read_buckets(size_t route, uint64_t read[LATENCY_BUCKETS + 1])
{
    uint64_t count = 0;
    for (size_t i = 0; i <= LATENCY_BUCKETS; i++)
        count += read[i] = load(&buckets[route][i]);
    return count;
}

/* The count is the sum of what was read, so that it equals the last bucket at any moment. */
static void write_histogram(FILE *out, size_t route)
{
    uint64_t read[LATENCY_BUCKETS + 1], seen = 0, sum_ns = load(&sums_ns[route]);
    uint64_t count = read_buckets(route, read);
    if (count == 0 && route != ROUTE_DETAILS)
        return;
    for (size_t i = 0; i <= LATENCY_BUCKETS; i++) {
        seen += read[i];
        fprintf(out, "http_request_duration_seconds_bucket{path=\"%s\",le=\"%s\"} %" PRIu64 "\n",
                paths[route], i < LATENCY_BUCKETS ? bounds[i].seconds : "+Inf", seen);
    }
    fprintf(out, "http_request_duration_seconds_sum{path=\"%s\"} %" PRIu64 ".%09" PRIu64 "\n",
            paths[route], sum_ns / 1000000000, sum_ns % 1000000000);
    fprintf(out, "http_request_duration_seconds_count{path=\"%s\"} %" PRIu64 "\n", paths[route],
            count);
}

/* When this process began, in seconds since 1970; 0 where the system does not tell. It counts in
 * ticks since the machine was started: the 22nd word, the 20th past the program's name, which may
 * hold blanks. */
static double process_start(void)
{
    char text[1024] = "";
    struct timespec now, up;
    FILE *stat = fopen("/proc/self/stat", "r");
    if (stat == NULL)
        return 0;
    text[fread(text, 1, sizeof text - 1, stat)] = '\0';
    fclose(stat);
    const char *word = strrchr(text, ')');
    for (int i = 0; i < 20 && word != NULL; i++)
        word = strchr(word + 1, ' ');
    if (word == NULL)
        return 0;
    double began = strtod(word, NULL) / (double)sysconf(_SC_CLK_TCK);
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    return (double)(now.tv_sec - up.tv_sec) + began;
}

static void write_start(FILE *out)
{
    double start = process_start();
    if (start <= 0)
        return;
    write_head(out, "process_start_time_seconds", "gauge", "When the process began, since 1970.");
    fprintf(out, "process_start_time_seconds %.0f\n", start);
}

void metrics_write(FILE *out)
{
    write_counts(out);
    write_head(out, "http_request_duration_seconds", "histogram",
               "Time from a request's arrival to the end of its answer.");
    for (size_t route = 0; route < ROUTE_COUNT; route++)
        write_histogram(out, route);
    write_head(out, "http_in_flight_requests", "gauge", "HTTP requests that are being answered.");
    fprintf(out, "http_in_flight_requests %" PRIdFAST64 "\n",
            atomic_load_explicit(&in_flight, memory_order_relaxed));
    write_start(out);
}
