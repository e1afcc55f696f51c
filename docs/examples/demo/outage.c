/*
 * outage.c -- outage morning: the cache is empty and everybody is back at once.
 *
 * The requests are drawn before anything runs, so both columns answer the same ones in the same
 * order: WAVES waves of CALLERS threads that start together, then SPREAD requests with pauses.
 *
 * A latency is counted from the moment when the request was due, the start of its wave say, and not
 * from when its thread got hold of a core: else a busy machine would hide the queue in front of it.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"
#include "load.h"
#include "lookup.h"
#include "report.h"
#include "table.h"

#define CALLERS ((size_t)200)
#define WAVES ((size_t)25)
#define SPREAD ((size_t)2500)
#define REQUESTS (CALLERS * WAVES + SPREAD)
#define PAUSE_US ((size_t)100000) /* longest pause between two requests of the spread */
#define ZIPF 0.99
#define CONNECTIONS 8 /* of the pool, and of the library's workers */
#define TTL_MS 30000

struct request {
    uint32_t code;
    int64_t pause_ns; /* before it, in the spread */
};

struct plan {
    struct request requests[REQUESTS];
    size_t distinct;
};

/* One column of the table. */
struct run;
typedef bool ask_fn(struct run *run, uint32_t code);
struct run {
    const struct plan *plan;
    ask_fn *ask;
    struct pool pool;   /* of the one */
    aside_cache *cache; /* of the other */
    struct crew crew;
    size_t wave;
    int64_t *latency_ns; /* a request each, sorted in the end */
    int64_t elapsed_ns;
    uint64_t queries;
    atomic_ulong hits, shared, wrong;
};

/* ---- the plan -------------------------------------------------------------------------------- */

/* Code points for the ranks of the zipf law: any characters, in any order. */
static uint32_t *draw_codes(const struct demo *demo, struct load_random *random)
{
    uint32_t *codes = load_alloc(demo->char_count, sizeof *codes);
    for (size_t i = 0; i < demo->char_count; i++)
        codes[i] = demo->chars[i].code;
    for (size_t i = 0; i < demo->keys; i++) {
        size_t other = i + load_below(random, demo->char_count - i);
        uint32_t code = codes[other];
        codes[other] = codes[i];
        codes[i] = code;
    }
    return codes;
}

static struct plan *make_plan(const struct demo *demo)
{
    struct load_random random = {demo->seed};
    struct load_zipf zipf;
    struct plan *plan = load_alloc(1, sizeof *plan);
    uint32_t *codes = draw_codes(demo, &random);
    bool *asked = load_alloc(demo->keys, sizeof *asked);
    load_zipf_init(&zipf, demo->keys, ZIPF);
    for (size_t i = 0; i < REQUESTS; i++) {
        size_t rank = load_zipf_draw(&zipf, &random);
        plan->distinct += !asked[rank];
        asked[rank] = true;
        plan->requests[i].code = codes[rank];
        plan->requests[i].pause_ns = (int64_t)load_below(&random, PAUSE_US) * 1000;
    }
    load_zipf_free(&zipf);
    free(asked);
    free(codes);
    return plan;
}

/* ---- one request ----------------------------------------------------------------------------- */

static bool ask_source(struct run *run, uint32_t code)
{
    struct record record;
    struct lookup_key key = lookup_key_of(code);
    struct conn *conn = pool_take(&run->pool);
    int rc = source_query(conn, key.text, key.len, &record);
    pool_give(&run->pool, conn);
    return rc == SQLITE_ROW && lookup_is(record.text, record.size, code);
}

static bool ask_cache(struct run *run, uint32_t code)
{
    aside_call call = {ASIDE_CALL, .fetch = lookup_fetch, .ttl_ms = TTL_MS};
    aside_result result = ASIDE_RESULT_INIT;
    struct lookup_key key = lookup_key_of(code);
    if (aside_get_with_fetch(run->cache, key.text, key.len, &call, &result) != ASIDE_OK)
        return false;
    atomic_fetch_add(&run->hits, result.outcome == ASIDE_OUTCOME_HIT);
    atomic_fetch_add(&run->shared, result.shared != 0);
    bool right = lookup_is(aside_value_data(result.value), aside_value_size(result.value), code);
    aside_value_unref(result.value);
    return right;
}

static void ask(struct run *run, size_t index, int64_t due_ns)
{
    bool right = run->ask(run, run->plan->requests[index].code);
    run->latency_ns[index] = load_now_ns() - due_ns;
    if (!right)
        atomic_fetch_add(&run->wrong, 1);
}

/* ---- the load -------------------------------------------------------------------------------- */

static void in_wave(void *ctx, size_t member)
{
    struct run *run = ctx;
    ask(run, run->wave * CALLERS + member, run->crew.begun_ns);
}

static void in_spread(void *ctx, size_t member)
{
    struct run *run = ctx;
    int64_t due_ns = run->crew.begun_ns;
    for (size_t i = WAVES * CALLERS + member; i < REQUESTS; i += CALLERS) {
        due_ns += run->plan->requests[i].pause_ns;
        load_sleep_until(due_ns);
        ask(run, i, due_ns);
    }
}

static void load(struct demo *demo, struct run *run)
{
    run->latency_ns = load_alloc(REQUESTS, sizeof *run->latency_ns);
    crew_open(&run->crew, CALLERS);
    source_take_queries(demo->source);
    int64_t begun_ns = load_now_ns();
    for (run->wave = 0; run->wave < WAVES; run->wave++)
        crew_wave(&run->crew, in_wave, run);
    crew_wave(&run->crew, in_spread, run);
    run->elapsed_ns = load_now_ns() - begun_ns;
    run->queries = source_take_queries(demo->source);
    crew_close(&run->crew);
    load_sort(run->latency_ns, REQUESTS);
}

static void run_unprotected(struct demo *demo, struct run *run)
{
    run->ask = ask_source;
    pool_open(&run->pool, demo->source, CONNECTIONS);
    load(demo, run);
    pool_close(&run->pool);
}

static void run_protected(struct demo *demo, struct run *run)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.fetch_threads = CONNECTIONS;
    options.worker = lookup_worker(demo->source);
    run->ask = ask_cache;
    run->cache = lookup_open(&options);
    load(demo, run);
    aside_close(run->cache);
    aside_unref(run->cache);
}

/* ---- the report ------------------------------------------------------------------------------ */

static struct cell percentile(const struct run *run, double percent)
{
    return cell_time(load_percentile(run->latency_ns, REQUESTS, percent));
}

static void print(const struct plan *plan, const struct run *bare, const struct run *kept)
{
    static const char *const headings[] = {"unprotected", "with libaside", NULL};
    struct table table;
    table_open(&table, "", headings);
    table_row(&table, "requests", CELLS(cell_count(REQUESTS), cell_count(REQUESTS)));
    table_row(&table, "distinct code points among them",
              CELLS(cell_count(plan->distinct), cell_count(plan->distinct)));
    table_row(&table, "hit rate",
              CELLS(cell_percent(bare->hits, REQUESTS), cell_percent(kept->hits, REQUESTS)));
    table_row(&table, "source queries",
              CELLS(cell_count(bare->queries), cell_count(kept->queries)));
    table_row(&table, "callers given a shared result",
              CELLS(cell_none(), cell_count(kept->shared)));
    table_row(&table, "latency of a caller, p50",
              CELLS(percentile(bare, 50), percentile(kept, 50)));
    table_row(&table, "                     p95",
              CELLS(percentile(bare, 95), percentile(kept, 95)));
    table_row(&table, "                     p99",
              CELLS(percentile(bare, 99), percentile(kept, 99)));
    table_close();
}

static void judge(const struct plan *plan, const struct run *bare, const struct run *kept)
{
    uint64_t periods = 1 + (uint64_t)(kept->elapsed_ns / (TTL_MS * MS));
    report_check(bare->wrong == 0 && kept->wrong == 0,
                 "wrong or missing answers: %lu unprotected, %lu with libaside", bare->wrong,
                 kept->wrong);
    report_check(bare->queries == REQUESTS, "%llu unprotected queries for %zu requests",
                 (unsigned long long)bare->queries, REQUESTS);
    if (periods == 1)
        report_check(kept->queries == plan->distinct, "%llu source queries for %zu distinct keys",
                     (unsigned long long)kept->queries, plan->distinct);
    else
        report_check(kept->queries <= plan->distinct * periods,
                     "%llu source queries for %zu distinct keys in %llu ttl periods",
                     (unsigned long long)kept->queries, plan->distinct,
                     (unsigned long long)periods);
    report_after("The source was asked once for each of the %s code points and never twice within "
                 "the ttl, which is the least there can be: %s of its load is gone.",
                 cell_count(plan->distinct).text,
                 cell_percent(bare->queries - kept->queries, bare->queries).text);
}

void outage_scenario(struct demo *demo)
{
    struct plan *plan = make_plan(demo);
    struct run bare = {.plan = plan}, kept = {.plan = plan};
    report_heading(1, "Outage morning");
    report_before("The cache is cold. %zu callers ask together, %zu times, and %s more requests "
                  "follow at random moments: %s code points by a zipf law of %.2f, %d connections "
                  "to the source, a ttl of %d s.",
                  CALLERS, WAVES, cell_count(SPREAD).text, cell_count(demo->keys).text, ZIPF,
                  CONNECTIONS, TTL_MS / 1000);
    run_unprotected(demo, &bare);
    run_protected(demo, &kept);
    print(plan, &bare, &kept);
    judge(plan, &bare, &kept);
    demo->requests = REQUESTS;
    demo->hits = kept.hits;
    demo->source_queries = kept.queries;
    demo->unprotected_queries = bare.queries;
    free(bare.latency_ns);
    free(kept.latency_ns);
    free(plan);
}
