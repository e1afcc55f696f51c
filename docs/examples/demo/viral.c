/*
 * viral.c -- one key that everybody wants has just expired.
 *
 * The source is made slow and narrow here: SLOTS connections, and each query, the same as
 * everywhere, lasts at least QUERY_NS. The fetch runs on the leader's own thread, as it does for
 * callers who have neither token nor deadline, and takes its connection from the same pool as the
 * unprotected callers.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "demo.h"
#include "load.h"
#include "lookup.h"
#include "report.h"
#include "table.h"

#define CALLERS ((size_t)100)
#define SLOTS 5
#define QUERY_NS (2 * MS)
#define ROUNDS 21
#define LAST (ROUNDS - 1)   /* of the sorted rounds: the slowest */
#define MIDDLE (ROUNDS / 2) /* the median */
#define BURSTS 3
#define ENOUGH 11.0 /* a ratio below this gets a note */
#define CODE 0x1F600u
#define LONG_TTL_MS 30000
#define SHORT_TTL_MS ((int64_t)150)

struct viral {
    struct source *source;
    struct pool pool;
    aside_cache *cache;
    struct crew crew;
    struct lookup_key key;
    int64_t ttl_ms;
    atomic_ulong wrong;
};

/* ---- the slow source ------------------------------------------------------------------------- */

static int slow_query(struct pool *pool, const void *key, size_t key_len, struct record *record)
{
    struct conn *conn = pool_take(pool);
    int64_t begun_ns = load_now_ns();
    int rc = source_query(conn, key, key_len, record);
    load_sleep_until(begun_ns + QUERY_NS);
    pool_give(pool, conn);
    return rc;
}

static aside_status slow_fetch(aside_fetch *fetch, void *arg)
{
    struct record record;
    size_t key_len;
    const void *key = aside_fetch_key(fetch, &key_len);
    int rc = slow_query(arg, key, key_len, &record);
    return lookup_answer(fetch, rc, &record);
}

/* ---- three kinds of callers ------------------------------------------------------------------ */

static void answered(struct viral *viral, const void *data, size_t size)
{
    if (!lookup_is(data, size, CODE))
        atomic_fetch_add(&viral->wrong, 1);
}

static void ask_source(void *ctx, size_t member)
{
    struct viral *viral = ctx;
    struct record record = {.size = 0};
    (void)member;
    slow_query(&viral->pool, viral->key.text, viral->key.len, &record);
    answered(viral, record.text, record.size);
}

static void ask_libaside(void *ctx, size_t member)
{
    struct viral *viral = ctx;
    aside_call call = {ASIDE_CALL, .fetch = slow_fetch, .arg = &viral->pool,
                       .ttl_ms = viral->ttl_ms};
    aside_result result = ASIDE_RESULT_INIT;
    (void)member;
    aside_status status =
        aside_get_with_fetch(viral->cache, viral->key.text, viral->key.len, &call, &result);
    answered(viral, aside_value_data(result.value),
             status == ASIDE_OK ? aside_value_size(result.value) : 0);
    aside_value_unref(result.value);
}

/* Cache-aside as it is usually written: look, else query and store. */
static void ask_plain_cache(void *ctx, size_t member)
{
    struct viral *viral = ctx;
    struct record record = {.size = 0};
    (void)member;
    if (aside_copy(viral->cache, viral->key.text, viral->key.len, record.text, sizeof record.text,
                   &record.size) != ASIDE_OK) {
        slow_query(&viral->pool, viral->key.text, viral->key.len, &record);
        if (aside_set(viral->cache, viral->key.text, viral->key.len, record.text, record.size,
                      viral->ttl_ms) != ASIDE_OK)
            atomic_fetch_add(&viral->wrong, 1);
    }
    answered(viral, record.text, record.size);
}

/* ---- with and without, round by round -------------------------------------------------------- */

struct rounds {
    int64_t bare_ns[ROUNDS], kept_ns[ROUNDS]; /* to the last answer */
    uint64_t bare_queries, kept_queries;      /* most in a round */
};

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void run_rounds(struct viral *viral, struct rounds *rounds)
{
    viral->ttl_ms = LONG_TTL_MS;
    ask_libaside(viral, 0);
    for (size_t i = 0; i < ROUNDS; i++) {
        source_take_queries(viral->source);
        rounds->bare_ns[i] = crew_wave(&viral->crew, ask_source, viral);
        rounds->bare_queries = most(rounds->bare_queries, source_take_queries(viral->source));
        aside_expire(viral->cache, viral->key.text, viral->key.len);
        rounds->kept_ns[i] = crew_wave(&viral->crew, ask_libaside, viral);
        rounds->kept_queries = most(rounds->kept_queries, source_take_queries(viral->source));
    }
    load_sort(rounds->bare_ns, ROUNDS);
    load_sort(rounds->kept_ns, ROUNDS);
}

static void print_rounds(const struct rounds *rounds)
{
    static const char *const headings[] = {"unprotected", "with libaside", NULL};
    struct table table;
    table_open(&table, "", headings);
    table_row(&table, "callers", CELLS(cell_count(CALLERS), cell_count(CALLERS)));
    table_row(&table, "source queries",
              CELLS(cell_count(rounds->bare_queries), cell_count(rounds->kept_queries)));
    table_row(&table, "time to the last answer, median",
              CELLS(cell_time(rounds->bare_ns[MIDDLE]), cell_time(rounds->kept_ns[MIDDLE])));
    table_row(&table, "                         best",
              CELLS(cell_time(rounds->bare_ns[0]), cell_time(rounds->kept_ns[0])));
    table_row(&table, "                         worst",
              CELLS(cell_time(rounds->bare_ns[LAST]), cell_time(rounds->kept_ns[LAST])));
    table_close();
}

static void compare(struct demo *demo, struct viral *viral)
{
    struct rounds rounds = {.bare_queries = 0};
    run_rounds(viral, &rounds);
    int64_t bare_ns = rounds.bare_ns[MIDDLE], kept_ns = rounds.kept_ns[MIDDLE];
    double ratio = (double)bare_ns / (double)kept_ns;
    print_rounds(&rounds);
    report_check(rounds.kept_queries == 1, "%llu queries for one expired key, not 1",
                 (unsigned long long)rounds.kept_queries);
    report_check(rounds.bare_queries == CALLERS, "%llu unprotected queries for %zu callers",
                 (unsigned long long)rounds.bare_queries, CALLERS);
    report_after("One query instead of %llu answers everybody, %.1f times sooner.",
                 (unsigned long long)rounds.bare_queries, ratio);
    if (ratio < ENOUGH)
        report_note("A ratio of %.1f is less than the usual %.0f: the machine is busy, or slow to "
                    "wake threads.",
                    ratio, ENOUGH);
    demo->viral_queries = rounds.kept_queries;
    demo->viral_ratio = ratio;
}

/* ---- a longer ttl ---------------------------------------------------------------------------- */

struct burst {
    uint64_t fresh_queries;   /* of a wave while the entry is fresh */
    uint64_t expired_queries; /* of a wave just after its ttl */
    int64_t expired_ns;       /* to the last answer of that one */
};

static void wait_for_expiry(struct viral *viral)
{
    int64_t give_up_ns = load_now_ns() + 2 * viral->ttl_ms * MS + 1000 * MS;
    while (aside_copy(viral->cache, viral->key.text, viral->key.len, NULL, 0, NULL) != ASIDE_MISS)
        if (load_now_ns() > give_up_ns)
            die("an entry with a ttl of %lld ms does not expire", (long long)viral->ttl_ms);
        else
            load_sleep_until(load_now_ns() + MS);
}

static struct burst one_burst(struct viral *viral, crew_fn *ask)
{
    struct burst burst;
    aside_delete(viral->cache, viral->key.text, viral->key.len);
    ask(viral, 0);
    source_take_queries(viral->source);
    crew_wave(&viral->crew, ask, viral);
    burst.fresh_queries = source_take_queries(viral->source);
    wait_for_expiry(viral);
    burst.expired_ns = crew_wave(&viral->crew, ask, viral);
    burst.expired_queries = source_take_queries(viral->source);
    return burst;
}

/* The burst with the most queries of some. */
static struct burst worst_burst(struct viral *viral, crew_fn *ask, int64_t ttl_ms)
{
    struct burst worst = {.expired_queries = 0};
    viral->ttl_ms = ttl_ms;
    for (int i = 0; i < BURSTS; i++) {
        struct burst burst = one_burst(viral, ask);
        if (burst.expired_queries > worst.expired_queries)
            worst = burst;
    }
    return worst;
}

static void burst_row(const struct table *table, const char *label, int64_t ttl_ms,
                      struct burst burst)
{
    table_row(table, label,
              CELLS(cell_time(ttl_ms * MS), cell_count(burst.fresh_queries),
                    cell_count(burst.expired_queries), cell_time(burst.expired_ns)));
}

static void postpone(struct viral *viral)
{
    static const char *const headings[] = {"ttl", "while fresh", "at expiry", "last answer", NULL};
    struct table table;
    report_before(
        "Does a longer ttl help? A plain cache, look and else query, is given one ten times "
        "as long; each wave is the same %zu callers, the worst of %d waves counts.",
        CALLERS, BURSTS);
    struct burst once = worst_burst(viral, ask_plain_cache, SHORT_TTL_MS);
    struct burst longer = worst_burst(viral, ask_plain_cache, 10 * SHORT_TTL_MS);
    struct burst kept = worst_burst(viral, ask_libaside, SHORT_TTL_MS);
    table_open(&table, "source queries of a wave", headings);
    burst_row(&table, "plain cache", SHORT_TTL_MS, once);
    burst_row(&table, "plain cache, longer ttl", 10 * SHORT_TTL_MS, longer);
    burst_row(&table, "libaside", SHORT_TTL_MS, kept);
    table_close();
    report_after(
        "The longer ttl only postpones the stampede: %llu queries come at once when it ends, "
        "where sharing the fetch leaves %llu.",
        (unsigned long long)longer.expired_queries, (unsigned long long)kept.expired_queries);
}

void viral_scenario(struct demo *demo)
{
    struct viral viral = {.source = demo->source, .key = lookup_key_of(CODE)};
    report_heading(2, "Viral key");
    report_before(
        "%zu callers want one key that has just expired; the source serves %d queries at a "
        "time and takes %lld ms for each. %d rounds.",
        CALLERS, SLOTS, (long long)(QUERY_NS / MS), ROUNDS);
    pool_open(&viral.pool, demo->source, SLOTS);
    viral.cache = lookup_open(NULL);
    crew_open(&viral.crew, CALLERS);
    compare(demo, &viral);
    postpone(&viral);
    report_check(viral.wrong == 0, "%lu wrong or missing answers", viral.wrong);
    crew_close(&viral.crew);
    aside_close(viral.cache);
    aside_unref(viral.cache);
    pool_close(&viral.pool);
}
