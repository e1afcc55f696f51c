/*
 * wave.c -- starts a crew, opens the server's gate when all of them stand before it, and counts.
 */
#include "wave.h"

#include <stdlib.h>
#include <time.h>

#include "report.h"

#define MS ((int64_t)1000000)

struct run {
    struct certs *certs;
    char **lines;
    struct check *checks; /* one for each member */
    int64_t *returned_ns;
};

static void check_one(void *ctx, size_t member)
{
    struct run *run = ctx;
    run->checks[member] = check_line(run->certs, run->lines[member]);
    run->returned_ns[member] = hands_now_ns();
}

static uint64_t waiting(const struct certs *certs)
{
    aside_stats stats = {.struct_size = sizeof stats};
    if (aside_stats_get(certs->cache, &stats) != ASIDE_OK)
        die("the cache has no statistics");
    return stats.waiters_now;
}

/* Gives up in time for the download to be answered all the same: the counts will say it. */
static void release_when_all_wait(struct server *server, const struct certs *certs, size_t callers)
{
    int64_t give_up_ns = hands_now_ns() + certs->options.timeout_ms * MS / 2;
    const struct timespec pause = {0, MS};
    while (waiting(certs) < callers && hands_now_ns() < give_up_ns)
        nanosleep(&pause, NULL);
    server_release(server);
}

static void count(struct wave *wave, const struct check *check)
{
    wave->verdicts[check->verdict]++;
    wave->hits += check->answer.outcome == ASIDE_OUTCOME_HIT;
    wave->led += check->answer.outcome == ASIDE_OUTCOME_FETCHED;
    wave->joined += check->answer.outcome == ASIDE_OUTCOME_JOINED;
    wave->shared += check->answer.shared != 0;
    wave->alike = wave->alike && check->answer.problem == wave->problem;
}

static struct wave summary(const struct run *run, size_t callers, int64_t begun_ns)
{
    struct wave wave = {.problem = run->checks[0].answer.problem, .alike = true};
    for (size_t i = 0; i < callers; i++) {
        count(&wave, &run->checks[i]);
        if (run->returned_ns[i] - begun_ns > wave.last_ns)
            wave.last_ns = run->returned_ns[i] - begun_ns;
    }
    return wave;
}

struct wave wave_run(struct crew *crew, struct certs *certs, char **lines, struct server *held)
{
    struct run run = {certs, lines, calloc(crew->size, sizeof *run.checks),
                      calloc(crew->size, sizeof *run.returned_ns)};
    if (run.checks == NULL || run.returned_ns == NULL)
        die("out of memory");
    if (held != NULL)
        server_hold(held);
    int64_t begun_ns = hands_now_ns();
    crew_begin(crew, check_one, &run);
    if (held != NULL)
        release_when_all_wait(held, certs, crew->size);
    crew_finish(crew);
    struct wave wave = summary(&run, crew->size, begun_ns);
    free(run.checks);
    free(run.returned_ns);
    return wave;
}
