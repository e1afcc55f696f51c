/*
 * cache/metrics -- aside_stats_write: statistics as text that Prometheus reads (exposition format
 * 0.0.4: all samples of one family together, below its HELP and TYPE).
 */
#include "base/mem.h"
#include "cache/cache.h"
#include "cache/page.h"
#include "cache/stats.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What one cache says, at one moment. */
struct sample {
    const char *name;
    aside_stats stats;
    struct stats_times times;
};

struct samples {
    const struct sample *sample;
    size_t count;
};

/* ---- text ------------------------------------------------------------------------------------ */

/* No printing of floating point: its comma depends on the locale. */
static void put_seconds(struct page *page, uint64_t ns)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
    size_t end = strlen(digits);
    while (digits[end - 1] == '0' && digits[end - 2] != '.')
        digits[--end] = '\0';
    page_put(page, digits);
}

static void put_label_value(struct page *page, const char *value)
{
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            page_put_char(page, '\\');
        if (*value == '\n')
            page_put(page, "\\n");
        else
            page_put_char(page, *value);
    }
}

/* ---- families -------------------------------------------------------------------------------- */

#define TIMES "fetch_duration_seconds"

static const char *end_of(const char *type)
{
    return strcmp(type, "counter") == 0 ? "_total" : "";
}

static void put_about(struct page *page, const char *what, const char *name, const char *type,
                      const char *text)
{
    page_put(page, what);
    page_put(page, name);
    page_put(page, end_of(type));
    page_put(page, " ");
    page_put(page, text);
    page_put(page, "\n");
}

static void put_head(struct page *page, const char *name, const char *type, const char *help)
{
    put_about(page, "# HELP aside_", name, type, help);
    put_about(page, "# TYPE aside_", name, type, type);
}

/* Up to its first label; more of them may follow. */
static void put_open(struct page *page, const char *name, const char *end,
                     const struct sample *sample)
{
    page_put(page, "aside_");
    page_put(page, name);
    page_put(page, end);
    page_put(page, "{cache=\"");
    put_label_value(page, sample->name);
    page_put(page, "\"");
}

static void put_value(struct page *page, uint64_t number)
{
    page_put(page, "} ");
    page_put_number(page, number);
    page_put(page, "\n");
}

/* A family of one number a cache, which is so far into the statistics. */
static void put_family(struct page *page, const struct samples *all, const char *name,
                       const char *type, const char *help, size_t offset)
{
    put_head(page, name, type, help);
    for (size_t i = 0; i < all->count; i++) {
        uint64_t number;
        memcpy(&number, (const char *)&all->sample[i].stats + offset, sizeof number);
        put_open(page, name, end_of(type), &all->sample[i]);
        put_value(page, number);
    }
}

static void put_operation(struct page *page, const struct sample *sample, const char *labels,
                          uint64_t number)
{
    put_open(page, "operations", "_total", sample);
    page_put(page, labels);
    put_value(page, number);
}

static void put_operations(struct page *page, const struct samples *all)
{
    put_head(page, "operations", "counter", "calls by operation and outcome");
    for (size_t i = 0; i < all->count; i++) {
        const struct sample *sample = &all->sample[i];
#define METRICS_OUTCOME(verb, outcome)                                                             \
    put_operation(page, sample, ",operation=\"" #verb "\",outcome=\"" #outcome "\"",               \
                  sample->stats.verb##_##outcome);
#define METRICS_OPERATION(verb)                                                                    \
    METRICS_OUTCOME(verb, ok) METRICS_OUTCOME(verb, none) METRICS_OUTCOME(verb, error)
        ASIDE_OPERATION_MAP(METRICS_OPERATION)
#undef METRICS_OPERATION
#undef METRICS_OUTCOME
    }
}

static void put_bucket(struct page *page, const struct sample *sample, unsigned i, uint64_t number)
{
    put_open(page, TIMES, "_bucket", sample);
    page_put(page, ",le=\"");
    if (i < COUNTER_TIMES - 1)
        put_seconds(page, (uint64_t)stats_time_ns(i));
    else
        page_put(page, "+Inf");
    page_put(page, "\"");
    put_value(page, number);
}

/* Each bucket has those before it, too. */
static void put_histogram(struct page *page, const struct sample *sample)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < COUNTER_TIMES; i++) {
        sum += sample->times.count[i];
        put_bucket(page, sample, i, sum);
    }
    put_open(page, TIMES, "_sum", sample);
    page_put(page, "} ");
    put_seconds(page, sample->times.all_ns);
    page_put(page, "\n");
    put_open(page, TIMES, "_count", sample);
    put_value(page, sum);
}

static void put_times(struct page *page, const struct samples *all)
{
    put_head(page, TIMES, "histogram", "how long fetches took that ran");
    for (size_t i = 0; i < all->count; i++)
        put_histogram(page, &all->sample[i]);
}

static void put_all(struct page *page, const struct samples *all)
{
#define METRICS_COUNTER(name, text)                                                                \
    put_family(page, all, #name, "counter", text, offsetof(aside_stats, name));
    ASIDE_COUNTER_MAP(METRICS_COUNTER)
#undef METRICS_COUNTER
#define METRICS_GAUGE(name, text)                                                                  \
    put_family(page, all, #name, "gauge", text, offsetof(aside_stats, name));
    ASIDE_GAUGE_MAP(METRICS_GAUGE)
#undef METRICS_GAUGE
    put_operations(page, all);
    put_times(page, all);
    page_end(page);
}

/* ---- the call -------------------------------------------------------------------------------- */

static bool have_names_of_their_own(aside_cache *const *caches, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(caches[i]->host.name, caches[j]->host.name) == 0)
                return false;
    return true;
}

static void take(struct sample *sample, aside_cache *cache)
{
    sample->name = cache->host.name;
    stats_of_cache(cache, &sample->stats);
    stats_times_of_host(&cache->host, &sample->times);
}

_Static_assert(sizeof(struct sample) <= sizeof(struct aside_cache),
               "no overflow: the samples of caches that all differ are no larger than those");

static void free_samples(void *samples)
{
    mem_free(&mem_default, samples);
}

aside_status aside_stats_write(aside_cache *const *caches, size_t count, aside_write_fn *write,
                               void *ctx)
{
    struct page page = {.write = write, .ctx = ctx};
    if (!write || (!caches && count) || !caches_are(caches, count) ||
        !have_names_of_their_own(caches, count))
        return ASIDE_E_INVALID;
    if (count == 0)
        return ASIDE_OK;
    struct sample *samples = mem_alloc(&mem_default, count * sizeof *samples);
    if (!samples)
        return ASIDE_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        take(&samples[i], caches[i]);
    struct samples all = {samples, count};
    pthread_cleanup_push(free_samples, samples);
    put_all(&page, &all);
    pthread_cleanup_pop(1);
    return page.status;
}
