/*
 * cache/metrics -- aside_stats_write: statistics as text that Prometheus reads (exposition format
 * 0.0.4: all samples of one family together, below its HELP and TYPE).
 */
#include "base/mem.h"
#include "cache/cache.h"
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

struct page {
    aside_write_fn *write;
    void *ctx;
    aside_status status;
    const struct sample *samples;
    size_t count;
    size_t used; /* of text */
    char text[2048];
};

/* ---- text ------------------------------------------------------------------------------------ */

static void flush(struct page *page)
{
    if (page->used && page->status == ASIDE_OK)
        page->status = page->write(page->ctx, page->text, page->used);
    page->used = 0;
}

static void put_char(struct page *page, char c)
{
    if (page->used == sizeof page->text)
        flush(page);
    page->text[page->used++] = c;
}

static void put(struct page *page, const char *text)
{
    for (; *text; text++)
        put_char(page, *text);
}

static void put_number(struct page *page, uint64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, number);
    put(page, digits);
}

/* No printing of floating point: its comma depends on the locale. */
static void put_seconds(struct page *page, uint64_t ns)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
    size_t end = strlen(digits);
    while (digits[end - 1] == '0' && digits[end - 2] != '.')
        digits[--end] = '\0';
    put(page, digits);
}

static void put_label_value(struct page *page, const char *value)
{
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            put_char(page, '\\');
        if (*value == '\n')
            put(page, "\\n");
        else
            put_char(page, *value);
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
    put(page, what);
    put(page, name);
    put(page, end_of(type));
    put(page, " ");
    put(page, text);
    put(page, "\n");
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
    put(page, "aside_");
    put(page, name);
    put(page, end);
    put(page, "{cache=\"");
    put_label_value(page, sample->name);
    put(page, "\"");
}

static void put_value(struct page *page, uint64_t number)
{
    put(page, "} ");
    put_number(page, number);
    put(page, "\n");
}

/* A family of one number a cache, which is so far into the statistics. */
static void put_family(struct page *page, const char *name, const char *type, const char *help,
                       size_t offset)
{
    put_head(page, name, type, help);
    for (size_t i = 0; i < page->count; i++) {
        uint64_t number;
        memcpy(&number, (const char *)&page->samples[i].stats + offset, sizeof number);
        put_open(page, name, end_of(type), &page->samples[i]);
        put_value(page, number);
    }
}

static void put_operation(struct page *page, const struct sample *sample, const char *labels,
                          uint64_t number)
{
    put_open(page, "operations", "_total", sample);
    put(page, labels);
    put_value(page, number);
}

static void put_operations(struct page *page)
{
    put_head(page, "operations", "counter", "calls by operation and outcome");
    for (size_t i = 0; i < page->count; i++) {
        const struct sample *sample = &page->samples[i];
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
    put(page, ",le=\"");
    if (i < COUNTER_TIMES - 1)
        put_seconds(page, (uint64_t)stats_time_ns(i));
    else
        put(page, "+Inf");
    put(page, "\"");
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
    put(page, "} ");
    put_seconds(page, sample->times.all_ns);
    put(page, "\n");
    put_open(page, TIMES, "_count", sample);
    put_value(page, sum);
}

static void put_times(struct page *page)
{
    put_head(page, TIMES, "histogram", "how long fetches took that ran");
    for (size_t i = 0; i < page->count; i++)
        put_histogram(page, &page->samples[i]);
}

static void put_all(struct page *page)
{
#define METRICS_COUNTER(name, text)                                                                \
    put_family(page, #name, "counter", text, offsetof(aside_stats, name));
    ASIDE_COUNTER_MAP(METRICS_COUNTER)
#undef METRICS_COUNTER
#define METRICS_GAUGE(name, text)                                                                  \
    put_family(page, #name, "gauge", text, offsetof(aside_stats, name));
    ASIDE_GAUGE_MAP(METRICS_GAUGE)
#undef METRICS_GAUGE
    put_operations(page);
    put_times(page);
    flush(page);
}

/* ---- the call -------------------------------------------------------------------------------- */

static bool are_caches(aside_cache *const *caches, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!cache_is(caches[i]))
            return false;
        for (size_t j = 0; j < i; j++)
            if (strcmp(caches[i]->host.name, caches[j]->host.name) == 0)
                return false;
    }
    return true;
}

static void take(struct sample *sample, aside_cache *cache)
{
    sample->name = cache->host.name;
    stats_of_cache(cache, &sample->stats);
    stats_times_of_host(&cache->host, &sample->times);
}

static void free_samples(void *samples)
{
    mem_free(&mem_default, samples);
}

aside_status aside_stats_write(aside_cache *const *caches, size_t count, aside_write_fn *write,
                               void *ctx)
{
    struct page page = {.write = write, .ctx = ctx, .count = count};
    if (!write || (!caches && count) || !are_caches(caches, count))
        return ASIDE_E_INVALID;
    if (count == 0)
        return ASIDE_OK;
    struct sample *samples = count <= SIZE_MAX / sizeof *samples
                                 ? mem_alloc(&mem_default, count * sizeof *samples)
                                 : NULL;
    if (!samples)
        return ASIDE_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        take(&samples[i], caches[i]);
    page.samples = samples;
    pthread_cleanup_push(free_samples, samples);
    put_all(&page);
    pthread_cleanup_pop(1);
    return page.status;
}
