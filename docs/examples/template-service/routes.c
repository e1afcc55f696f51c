/*
 * routes.c -- what each path answers. A handler is called once to begin with, and once more when a
 * request that it parked has its answer.
 */
#include "answer.h"
#include "page.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what has been asked --------------------------------------------------------------------- */

/* A number of decimal digits alone, from least to most; else -1. */
static int64_t number_of(const struct request *request, const char *name, int64_t least,
                         int64_t most)
{
    const char *text = NULL;
    size_t size = 0;
    MHD_lookup_connection_value_n(request->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name),
                                  &text, &size);
    if (text == NULL || size == 0 || strspn(text, "0123456789") != size)
        return -1; /* %00 may be in it */
    errno = 0;
    int64_t number = strtoll(text, NULL, 10);
    return errno == 0 && number >= least && number <= most ? number : -1;
}

static int64_t id_of(const struct request *request)
{
    return number_of(request, "id", 1, INT64_MAX);
}

static const char ending[] = "the service is ending";
static const char bad_id[] = "id must be a number from 1 to 9223372036854775807";

/* Every request that may wait can be left, by its client or at its deadline, and nobody else
 * notices. */
static bool give_token(struct request *request)
{
    int64_t timeout_ms = request->app->options.timeout_ms;
    return aside_cancel_new(&request->token) == ASIDE_OK &&
           aside_cancel_set_deadline(request->token, timeout_ms, NULL) == ASIDE_OK;
}

static enum MHD_Result park(struct request *request)
{
    request->phase = REQUEST_PARKED;
    parking_park(&request->app->parking, &request->parked);
    return MHD_YES;
}

/* ---- GET /template-details ------------------------------------------------------------------- */

/* RFC 9211: hit and fwd exclude each other, and a stale answer is a hit. */
static const char *cache_status_of(const aside_result *result)
{
    switch (result->outcome) {
    case ASIDE_OUTCOME_FETCHED: return "libaside; fwd=miss";
    case ASIDE_OUTCOME_JOINED: return "libaside; fwd=miss; collapsed";
    case ASIDE_OUTCOME_STALE: return "libaside; hit; detail=stale";
    default: return "libaside";
    }
}

static enum MHD_Result answer_template(struct request *request, aside_status status,
                                       aside_result *result)
{
    aside_value *value = result->value;
    result->value = NULL;
    switch (status) {
    case ASIDE_OK:
        if (result->outcome == ASIDE_OUTCOME_HIT)
            return answer_hit(request, value);
        return answer_value(request, value, cache_status_of(result));
    case ASIDE_NOT_FOUND: return answer_error(request, MHD_HTTP_NOT_FOUND, "no such template");
    case ASIDE_E_BUSY:
        return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, "too many queries wait");
    case ASIDE_E_TIMEOUT:
        return answer_error(request, MHD_HTTP_GATEWAY_TIMEOUT, "the database is too slow");
    case ASIDE_E_CANCELLED: return answer_error(request, CLIENT_HAS_GONE, "the client has gone");
    case ASIDE_E_CLOSED: return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, ending);
    case ASIDE_E_NOMEM:
        return answer_error(request, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
    default: return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, "the database fails");
    }
}

/* On the loop's thread. */
static void on_template(void *its_request, aside_status status, aside_result *result)
{
    struct request *request = its_request;
    request->got = status;
    request->result = *result;
    parking_answer(&request->app->parking, &request->parked);
}

static enum MHD_Result get_template(struct request *request)
{
    if (request->phase == REQUEST_PARKED)
        return answer_template(request, request->got, &request->result);
    int64_t id = id_of(request);
    if (id < 0)
        return answer_error(request, MHD_HTTP_BAD_REQUEST, bad_id);
    if (!give_token(request))
        return MHD_NO;
    parked_init(&request->parked, request->connection, request->token);
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status =
        service_get(request->app->service, id, request->token, on_template, request, &result);
    if (status == ASIDE_PENDING)
        return park(request); /* request->result may have been written already */
    return answer_template(request, status, &result);
}

/* ---- PUT /template-details ------------------------------------------------------------------- */

/* On the writer's thread. */
static void on_written(struct write *write)
{
    struct request *request = (struct request *)((char *)write - offsetof(struct request, write));
    parking_answer(&request->app->parking, &request->parked);
}

static enum MHD_Result answer_write(struct request *request)
{
    switch (request->write.outcome) {
    case DB_OK:
    case DB_CREATED: return answer_written(request);
    case DB_NOT_ASKED:
        return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE,
                            "not written: the database is busy, or away");
    default:
        return answer_error(request, MHD_HTTP_GATEWAY_TIMEOUT,
                            "it is unknown whether it was written: ask, or write again");
    }
}

static enum MHD_Result begin_write(struct request *request)
{
    struct write *write = &request->write;
    if (!give_token(request))
        return MHD_NO;
    write->token = request->token;
    write->done = on_written;
    parked_init(&request->parked, request->connection, request->token);
    if (writer_put(request->app->writer, write))
        return park(request);
    return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, "too many writes wait");
}

static enum MHD_Result put_template(struct request *request)
{
    char why[160];
    if (request->phase == REQUEST_PARKED)
        return answer_write(request);
    int64_t id = id_of(request);
    if (id < 0)
        return answer_error(request, MHD_HTTP_BAD_REQUEST, bad_id);
    if (request->body_too_large)
        return answer_error(request, MHD_HTTP_CONTENT_TOO_LARGE, "more than 64 KiB");
    const char *wrong =
        template_from_json(&request->write.template, request->body, request->body_size, why);
    if (wrong != NULL)
        return answer_error(request, MHD_HTTP_BAD_REQUEST, wrong);
    request->write.template.id = id;
    return begin_write(request);
}

/* ---- for people and their tools -------------------------------------------------------------- */

static aside_status write_piece(void *its_out, const char *text, size_t length)
{
    return fwrite(text, 1, length, its_out) == length ? ASIDE_OK : ASIDE_E_NOMEM;
}

static void write_named(FILE *out, const char *name, const char *text, uint64_t value)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s counter\n%s %llu\n", name, text, name, name,
            (unsigned long long)value);
}

/* Totals of both caches: with --no-cache and --no-singleflight clients use the second, too. */
static void write_cache_metrics(FILE *out, const struct app *app)
{
    uint64_t hits = 0, misses = 0, shared = 0;
    for (int i = 0; i < SERVICE_CACHES; i++) {
        aside_stats stats = {.struct_size = sizeof stats};
        if (aside_stats_get(service_caches(app->service)[i], &stats) != ASIDE_OK)
            continue;
        hits += stats.hits + stats.stale + stats.negative_hits;
        misses += stats.misses_led + stats.misses_joined;
        shared += stats.misses_joined;
    }
    write_named(out, "cache_hits_total", "Requests answered from the cache.", hits);
    write_named(out, "cache_misses_total", "Requests that had to wait for a query.", misses);
    write_named(out, "singleflight_shared_total", "Those of them that shared another's.", shared);
    write_named(out, "db_hits_total", "Queries for a template.",
                repository_queries(app->repository));
}

static bool write_metrics(FILE *out, struct app *app)
{
    metrics_write(out);
    write_cache_metrics(out, app);
    aside_cache *const *caches = service_caches(app->service);
    return aside_stats_write(caches, SERVICE_CACHES, write_piece, out) == ASIDE_OK;
}

static bool write_flights(FILE *out, struct app *app)
{
    aside_cache *const *caches = service_caches(app->service);
    return aside_flights_write(caches, SERVICE_CACHES, write_piece, out) == ASIDE_OK;
}

static bool write_history(FILE *out, struct app *app)
{
    pthread_mutex_lock(&app->history_lock);
    history_write(&app->history, out);
    pthread_mutex_unlock(&app->history_lock);
    return true;
}

static enum MHD_Result answer_written_text(struct request *request, const char *type,
                                           bool (*write)(FILE *out, struct app *app))
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return MHD_NO;
    bool whole = write(out, request->app) && !ferror(out);
    if (fclose(out) == 0 && whole)
        return answer_text(request, type, text, size);
    free(text);
    return answer_error(request, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
}

static enum MHD_Result get_metrics(struct request *request)
{
    return answer_written_text(request, "text/plain; version=0.0.4; charset=utf-8", write_metrics);
}

static enum MHD_Result get_flights(struct request *request)
{
    return answer_written_text(request, "application/json", write_flights);
}

static enum MHD_Result get_history(struct request *request)
{
    return answer_written_text(request, "application/json", write_history);
}

static enum MHD_Result get_page(struct request *request)
{
    size_t size;
    const void *bytes = page_html(&size);
    return answer_constant(request, "text/html; charset=utf-8", bytes, size);
}

/* For a load balancer: no more requests, please, once it is ending. */
static enum MHD_Result get_health(struct request *request)
{
    static const char well[] = "{\"status\":\"ok\"}\n";
    if (atomic_load(&request->app->draining))
        return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, ending);
    return answer_constant(request, "application/json", well, sizeof well - 1);
}

/* ---- POST /stampede -------------------------------------------------------------------------- */

static void on_report(void *its_request, const char *report, size_t size)
{
    struct request *request = its_request;
    request->report = malloc(size);
    request->report_size = size;
    if (request->report != NULL)
        memcpy(request->report, report, size);
    parking_answer(&request->app->parking, &request->parked);
}

/* On the loop's thread, whose the stampede is. */
static void begin_stampede(struct parked *parked)
{
    struct request *request = (struct request *)((char *)parked - offsetof(struct request, parked));
    int callers = (int)number_of(request, "callers", 1, STAMPEDE_MAX_CALLERS);
    request->got = ASIDE_OK;
    if (stampede_begin(request->app->stampede, id_of(request), callers, on_report, request))
        return;
    request->got = ASIDE_E_BUSY;
    parking_answer(&request->app->parking, &request->parked);
}

static enum MHD_Result post_stampede(struct request *request)
{
    if (request->phase == REQUEST_PARKED && request->got == ASIDE_E_BUSY)
        return answer_error(request, MHD_HTTP_CONFLICT, "a stampede is under way");
    if (request->phase == REQUEST_PARKED) {
        char *report = request->report;
        request->report = NULL;
        return answer_text(request, "application/json", report, request->report_size);
    }
    if (atomic_load(&request->app->draining))
        return answer_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, ending);
    if (id_of(request) < 0)
        return answer_error(request, MHD_HTTP_BAD_REQUEST, bad_id);
    if (number_of(request, "callers", 1, STAMPEDE_MAX_CALLERS) < 0)
        return answer_error(request, MHD_HTTP_BAD_REQUEST, "callers must be from 1 to 2000");
    parked_init(&request->parked, request->connection, NULL);
    request->parked.on_arrival = begin_stampede;
    return park(request);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static const struct {
    enum route route;
    enum method method;
    enum MHD_Result (*answer)(struct request *request);
} all_routes[] = {
    {ROUTE_DETAILS, METHOD_GET, get_template}, {ROUTE_DETAILS, METHOD_PUT, put_template},
    {ROUTE_METRICS, METHOD_GET, get_metrics},  {ROUTE_HEALTH, METHOD_GET, get_health},
    {ROUTE_FLIGHTS, METHOD_GET, get_flights},  {ROUTE_HISTORY, METHOD_GET, get_history},
    {ROUTE_PAGE, METHOD_GET, get_page},        {ROUTE_STAMPEDE, METHOD_POST, post_stampede},
};

enum MHD_Result request_answer(struct request *request)
{
    /* libmicrohttpd leaves the body of an answer to HEAD out. */
    enum method method = request->method == METHOD_HEAD ? METHOD_GET : request->method;
    const char *allowed = NULL;
    for (size_t i = 0; i < sizeof all_routes / sizeof *all_routes; i++) {
        if (all_routes[i].route != request->route)
            continue;
        if (all_routes[i].method == method)
            return all_routes[i].answer(request);
        allowed = all_routes[i].method == METHOD_POST ? "POST" : "GET, HEAD";
    }
    if (request->route == ROUTE_DETAILS)
        allowed = "GET, HEAD, PUT";
    if (allowed != NULL)
        return answer_wrong_method(request, allowed);
    return answer_error(request, MHD_HTTP_NOT_FOUND, "there is nothing here");
}
