/*
 * leaver.c -- the caller who started the fetch does not wait for its end.
 *
 * A gate holds the query: caller 0 asks first, the others follow while he waits, his token fires,
 * and the gate opens HOLD_NS later. Both columns do the same; unprotected callers ask a pool of
 * connections, and can look at their token only when their query is over.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "demo.h"
#include "load.h"
#include "lookup.h"
#include "report.h"
#include "table.h"

#define CALLERS ((size_t)20)
#define CONNECTIONS 8
#define CODE 0x212Bu
#define TTL_MS 30000
#define HOLD_NS (50 * MS)
#define PATIENCE_NS (2000 * MS) /* for the others to arrive */

/* ---- a gate ---------------------------------------------------------------------------------- */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int reached; /* somebody has come to it */
    int open;
};

static void gate_set(struct gate *gate, int *flag)
{
    pthread_mutex_lock(&gate->lock);
    *flag = 1;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void gate_wait(struct gate *gate, const int *flag)
{
    pthread_mutex_lock(&gate->lock);
    while (!*flag)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static void gate_pass(struct gate *gate)
{
    gate_set(gate, &gate->reached);
    gate_wait(gate, &gate->open);
}

/* ---- one column ------------------------------------------------------------------------------ */

struct run;
typedef aside_status ask_fn(struct run *run, aside_cancel *token);
struct run {
    struct gate gate;
    ask_fn *ask;
    struct lookup_key key;
    struct pool pool;
    aside_cache *cache;
    aside_cancel *tokens[CALLERS];
    atomic_int asking; /* callers that have arrived */
    atomic_int values, cancelled, others;
    int64_t fired_ns, left_ns; /* the token's firing, and caller 0's return */
    uint64_t queries;
    size_t stored;
};

static aside_status ask_source(struct run *run, aside_cancel *token)
{
    struct record record;
    struct conn *conn = pool_take(&run->pool);
    gate_pass(&run->gate);
    int rc = source_query(conn, run->key.text, run->key.len, &record);
    pool_give(&run->pool, conn);
    if (aside_cancel_fired(token))
        return ASIDE_E_CANCELLED;
    return rc == SQLITE_ROW && lookup_is(record.text, record.size, CODE) ? ASIDE_OK : ASIDE_E_FETCH;
}

static aside_status gated_fetch(aside_fetch *fetch, void *arg)
{
    gate_pass(arg);
    return lookup_fetch(fetch, NULL);
}

/* The fetch outlives its leader, and so does its argument: the gate goes after the cache. */
static aside_status ask_cache(struct run *run, aside_cancel *token)
{
    aside_call call = {ASIDE_CALL, .fetch = gated_fetch, .arg = &run->gate, .ttl_ms = TTL_MS,
                       .cancel = token};
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status =
        aside_get_with_fetch(run->cache, run->key.text, run->key.len, &call, &result);
    if (status == ASIDE_OK &&
        !lookup_is(aside_value_data(result.value), aside_value_size(result.value), CODE))
        status = ASIDE_E_FETCH;
    aside_value_unref(result.value);
    return status;
}

static void caller(void *ctx, size_t member)
{
    struct run *run = ctx;
    if (member > 0)
        gate_wait(&run->gate, &run->gate.reached);
    atomic_fetch_add(&run->asking, 1);
    aside_status status = run->ask(run, run->tokens[member]);
    if (member == 0) {
        run->left_ns = load_now_ns();
        gate_set(&run->gate, &run->gate.reached); /* should the fetch not have run */
    }
    if (status == ASIDE_OK)
        atomic_fetch_add(&run->values, 1);
    else if (status == ASIDE_E_CANCELLED)
        atomic_fetch_add(&run->cancelled, 1);
    else
        atomic_fetch_add(&run->others, 1);
}

/* All callers wait: in the flight, or for a connection and at the gate. */
static bool all_wait(struct run *run)
{
    if (run->cache != NULL)
        return lookup_stats(run->cache).waiters_now >= CALLERS;
    return atomic_load(&run->asking) == (int)CALLERS;
}

static void play(struct run *run)
{
    struct crew crew;
    crew_open(&crew, CALLERS);
    crew_begin(&crew, caller, run);
    for (int64_t end_ns = load_now_ns() + PATIENCE_NS; !all_wait(run) && load_now_ns() < end_ns;)
        load_sleep_until(load_now_ns() + MS);
    run->fired_ns = load_now_ns();
    aside_cancel_fire(run->tokens[0]);
    load_sleep_until(run->fired_ns + HOLD_NS);
    gate_set(&run->gate, &run->gate.open);
    crew_finish(&crew);
    crew_close(&crew);
}

static void measure(struct demo *demo, struct run *run)
{
    run->key = lookup_key_of(CODE);
    pthread_mutex_init(&run->gate.lock, NULL);
    pthread_cond_init(&run->gate.changed, NULL);
    for (size_t i = 0; i < CALLERS; i++)
        if (aside_cancel_new(&run->tokens[i]) != ASIDE_OK)
            die("out of memory");
    source_take_queries(demo->source);
    play(run);
    run->queries = source_take_queries(demo->source);
    for (size_t i = 0; i < CALLERS; i++)
        aside_cancel_unref(run->tokens[i]);
}

static void dispose(struct run *run)
{
    pthread_cond_destroy(&run->gate.changed);
    pthread_mutex_destroy(&run->gate.lock);
}

static void run_unprotected(struct demo *demo, struct run *run)
{
    run->ask = ask_source;
    pool_open(&run->pool, demo->source, CONNECTIONS);
    measure(demo, run);
    pool_close(&run->pool);
    dispose(run);
}

static void run_protected(struct demo *demo, struct run *run)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.worker = lookup_worker(demo->source);
    run->ask = ask_cache;
    run->cache = lookup_open(&options);
    measure(demo, run);
    run->stored = aside_count(run->cache);
    aside_close(run->cache);
    aside_unref(run->cache);
    dispose(run);
}

/* ---- the report ------------------------------------------------------------------------------ */

static void print(const struct run *bare, const struct run *kept)
{
    static const char *const headings[] = {"unprotected", "with libaside", NULL};
    struct table table;
    table_open(&table, "", headings);
    table_row(&table, "callers", CELLS(cell_count(CALLERS), cell_count(CALLERS)));
    table_row(&table, "callers that got the value",
              CELLS(cell_count((uint64_t)bare->values), cell_count((uint64_t)kept->values)));
    table_row(&table, "callers cancelled",
              CELLS(cell_count((uint64_t)bare->cancelled), cell_count((uint64_t)kept->cancelled)));
    table_row(&table, "from the cancellation to his return",
              CELLS(cell_time(bare->left_ns - bare->fired_ns),
                    cell_time(kept->left_ns - kept->fired_ns)));
    table_row(&table, "source queries",
              CELLS(cell_count(bare->queries), cell_count(kept->queries)));
    table_row(&table, "values stored", CELLS(cell_count(bare->stored), cell_count(kept->stored)));
    table_close();
}

static void judge(const struct run *bare, const struct run *kept)
{
    report_check(bare->values == (int)CALLERS - 1 && bare->cancelled == 1,
                 "unprotected: %d values and %d cancelled, not %zu and 1", bare->values,
                 bare->cancelled, CALLERS - 1);
    report_check(kept->values == (int)CALLERS - 1 && kept->cancelled == 1 && kept->others == 0,
                 "%d values, %d cancelled and %d other answers, not %zu, 1 and 0", kept->values,
                 kept->cancelled, kept->others, CALLERS - 1);
    report_check(kept->queries == 1, "%llu source queries, not 1",
                 (unsigned long long)kept->queries);
    report_check(kept->stored == 1, "%zu values stored, not 1", kept->stored);
    report_after(
        "The caller who started the query is gone %s after his token fired; the query went "
        "on, the other %d got its value, and the cache has it.",
        cell_time(kept->left_ns - kept->fired_ns).text, kept->values);
}

void leaver_scenario(struct demo *demo)
{
    struct run bare = {.cache = NULL}, kept = {.cache = NULL};
    report_heading(3, "A caller leaves");
    report_before(
        "%zu callers, each with a cancellation token, wait for one key. The first of them, "
        "whose miss started the query, is cancelled; the query lasts %lld ms more.",
        CALLERS, (long long)(HOLD_NS / MS));
    run_unprotected(demo, &bare);
    run_protected(demo, &kept);
    print(&bare, &kept);
    judge(&bare, &kept);
}
