/*
 * metrics.h -- what the HTTP side counts, in Prometheus' text format.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* X(name, path): what is told apart in http_request_total{path}. */
#define ROUTE_MAP(X)                                                                               \
    X(ROUTE_DETAILS, "/template-details")                                                          \
    X(ROUTE_METRICS, "/metrics")                                                                   \
    X(ROUTE_HEALTH, "/healthz")                                                                    \
    X(ROUTE_FLIGHTS, "/flights")                                                                   \
    X(ROUTE_HISTORY, "/history")                                                                   \
    X(ROUTE_STAMPEDE, "/stampede")                                                                 \
    X(ROUTE_PAGE, "/")

enum route {
#define ROUTE_ENUM(name, path) name,
    ROUTE_MAP(ROUTE_ENUM)
#undef ROUTE_ENUM
        ROUTE_OTHER, /* path="other": whatever clients invent is one path */
    ROUTE_COUNT
};

#define METHOD_MAP(X)                                                                              \
    X(METHOD_GET, "GET") X(METHOD_HEAD, "HEAD") X(METHOD_PUT, "PUT") X(METHOD_POST, "POST")

enum method {
#define METHOD_ENUM(name, text) name,
    METHOD_MAP(METHOD_ENUM)
#undef METHOD_ENUM
        METHOD_OTHER,
    METHOD_COUNT
};

enum route route_of(const char *path);
enum method method_of(const char *text);

/* Any thread; no lock. */
void metrics_request_began(void);
void metrics_request_ended(enum route route, enum method method, unsigned status, int64_t took_ns);

/* What has been counted so far. */
enum { LATENCY_BUCKETS = 20 };
struct metrics_totals {
    uint64_t requests; /* of ROUTE_DETAILS: the live page's own are not to move its charts */
    int64_t in_flight; /* of all routes */
    uint64_t buckets[LATENCY_BUCKETS + 1]; /* of ROUTE_DETAILS; the last has no upper bound */
};
void metrics_totals(struct metrics_totals *totals);

/* Upper bound, in seconds, of the requests among which the share of quantile lies, of the buckets'
 * growth between two times; 0 where there was none. Past the last bound it is that bound. */
double metrics_quantile(const struct metrics_totals *before, const struct metrics_totals *after,
                        double quantile);

/* http_request_total, http_request_duration_seconds, http_in_flight_requests, and
 * process_start_time_seconds. */
void metrics_write(FILE *out);

#endif
