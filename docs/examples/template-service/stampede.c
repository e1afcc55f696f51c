/*
 * stampede.c -- two waves of callers on one template, the second when the first has been answered.
 *
 *   idle --begin--> PROTECTED --last answer--> UNPROTECTED --last answer--> report, idle
 *
 * The callers are calls, not threads: each asks on the loop's thread, before any of them can be
 * told anything there.
 */
#include "stampede.h"

#include "clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum phase { PROTECTED, UNPROTECTED, PHASES };

struct wave {
    size_t queries, hits, joined, failed, answered;
    int64_t began_ns, ended_ns;
    double latencies_ms[STAMPEDE_MAX_CALLERS]; /* of the answered, in the order of answers */
};

struct caller {
    struct stampede *stampede;
    int64_t began_ns;
};

struct stampede {
    struct service *service;
    /* of the one under way */
    int64_t id;
    size_t count;
    stampede_done *done; /* NULL: none is under way */
    void *ctx;
    enum phase phase;
    size_t left; /* callers who have no answer yet, and one until all have asked */
    bool closed; /* the service is, as they have no tokens: it must not be asked any more */
    struct wave waves[PHASES];
    struct caller callers[STAMPEDE_MAX_CALLERS];
};

/* ---- the report ------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The least of sorted latencies that so many percent of them do not exceed; 0 where there is none.
 * Callers who failed are left out: who is turned away at once has not been served fast. */
static double percentile(const struct wave *wave, size_t percent)
{
    size_t rank = (wave->answered * percent + 99) / 100;
    return rank == 0 ? 0 : wave->latencies_ms[rank - 1];
}

static void write_wave(struct wave *wave, char *text, size_t size)
{
    qsort(wave->latencies_ms, wave->answered, sizeof wave->latencies_ms[0], compare);
    snprintf(text, size,
             "{\"queries\":%zu,\"hits\":%zu,\"joined\":%zu,\"failed\":%zu,"
             "\"p50_ms\":%.3f,\"p95_ms\":%.3f,\"max_ms\":%.3f,\"took_ms\":%.3f}",
             wave->queries, wave->hits, wave->joined, wave->failed, percentile(wave, 50),
             percentile(wave, 95), percentile(wave, 100),
             (double)(wave->ended_ns - wave->began_ns) / 1e6);
}

/* done may begin another stampede. */
static void report(struct stampede *stampede)
{
    char waves[PHASES][320], text[800];
    stampede_done *done = stampede->done;
    for (int phase = 0; phase < PHASES; phase++)
        write_wave(&stampede->waves[phase], waves[phase], sizeof waves[phase]);
    int size = snprintf(text, sizeof text,
                        "{\"id\":%" PRId64 ",\"callers\":%zu,\"protected\":%s,\"unprotected\":%s}",
                        stampede->id, stampede->count, waves[PROTECTED], waves[UNPROTECTED]);
    stampede->done = NULL;
    done(stampede->ctx, text, (size_t)size);
}

/* ---- waves ----------------------------------------------------------------------------------- */

/* Whoever led a fetch has cost exactly one query, nobody else has cost any: who joined has shared
 * one, and who came after it has found its answer. So the callers' results say how many queries
 * there were, whatever else the database was asked meanwhile. */
static void count(struct wave *wave, const struct caller *caller, aside_status status,
                  const aside_result *result)
{
    wave->queries += result->outcome == ASIDE_OUTCOME_FETCHED;
    wave->joined += result->outcome == ASIDE_OUTCOME_JOINED;
    wave->hits += result->outcome == ASIDE_OUTCOME_HIT || result->outcome == ASIDE_OUTCOME_NEGATIVE;
    if (status < 0)
        wave->failed++;
    else
        wave->latencies_ms[wave->answered++] = (double)(now_ns() - caller->began_ns) / 1e6;
}

static void start_wave(struct stampede *stampede, enum phase phase);

static void one_less(struct stampede *stampede)
{
    if (--stampede->left > 0)
        return;
    stampede->waves[stampede->phase].ended_ns = now_ns();
    if (stampede->phase == PROTECTED)
        start_wave(stampede, UNPROTECTED);
    else
        report(stampede);
}

static void answered(void *ctx, aside_status status, aside_result *result)
{
    const struct caller *caller = ctx;
    struct stampede *stampede = caller->stampede;
    count(&stampede->waves[stampede->phase], caller, status, result);
    stampede->closed |= status == ASIDE_E_CLOSED || status == ASIDE_E_CANCELLED;
    aside_value_unref(result->value);
    one_less(stampede);
}

static aside_status ask(struct stampede *stampede, struct caller *caller, aside_result *result)
{
    if (stampede->closed)
        return ASIDE_E_CLOSED;
    if (stampede->phase == PROTECTED)
        return service_get(stampede->service, stampede->id, NULL, answered, caller, result);
    return service_get_unshared(stampede->service, stampede->id, answered, caller, result);
}

static void start_wave(struct stampede *stampede, enum phase phase)
{
    stampede->phase = phase;
    stampede->left = stampede->count + 1;
    stampede->waves[phase] = (struct wave){.began_ns = now_ns()};
    for (size_t i = 0; i < stampede->count; i++) {
        struct caller *caller = &stampede->callers[i];
        aside_result result = ASIDE_RESULT_INIT;
        *caller = (struct caller){stampede, now_ns()};
        aside_status status = ask(stampede, caller, &result);
        if (status != ASIDE_PENDING)
            answered(caller, status, &result);
    }
    one_less(stampede);
}

/* ---- the interface --------------------------------------------------------------------------- */

struct stampede *stampede_new(struct service *service)
{
    struct stampede *stampede = calloc(1, sizeof *stampede);
    if (stampede != NULL)
        stampede->service = service;
    return stampede;
}

bool stampede_begin(struct stampede *stampede, int64_t id, int callers, stampede_done *done,
                    void *ctx)
{
    if (stampede->done != NULL || callers < 1 || callers > STAMPEDE_MAX_CALLERS)
        return false;
    stampede->id = id;
    stampede->count = (size_t)callers;
    stampede->done = done;
    stampede->ctx = ctx;
    service_forget(stampede->service, id);
    start_wave(stampede, PROTECTED);
    return true;
}

void stampede_free(struct stampede *stampede)
{
    free(stampede);
}
