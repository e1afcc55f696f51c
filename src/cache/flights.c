/*
 * cache/flights -- aside_flights_write: what is under way, as JSON.
 *
 * Of each shard a few flights are copied under its lock, and written after it is released.
 */
#include "base/clock.h"
#include "cache/cache.h"
#include "cache/page.h"

#include <pthread.h>
#include <string.h>

#define MOST_SHOWN 32 /* of a shard */
#define MOST_KEY 128  /* bytes of a key */

struct row {
    size_t key_len;
    unsigned char key[MOST_KEY];
    int64_t age_ms;
    uint32_t waiters;
    enum flight_phase phase;
    bool background, fenced, superseded;
};

struct rows {
    size_t count, not_shown;
    struct row row[MOST_SHOWN];
};

/* ---- copying --------------------------------------------------------------------------------- */

static void copy_flight(struct row *row, const struct flight *flight, int64_t now_ns)
{
    row->key_len = flight->key_len < MOST_KEY ? flight->key_len : MOST_KEY;
    if (row->key_len)
        memcpy(row->key, flight->key, row->key_len);
    row->age_ms = (now_ns - flight->started_ns) / 1000000;
    row->superseded = flight_is_settled(flight);
    row->waiters = row->superseded ? 0 : flight->waiters;
    row->phase = (enum flight_phase)load_relaxed(&flight->phase);
    row->background = flight->background;
    row->fenced = flight->fenced || flight->stamp != flight->group->stamp;
}

static void copy_list(struct rows *rows, const struct flight *flight, int64_t now_ns)
{
    for (; flight && rows->count < MOST_SHOWN; flight = flight->next)
        copy_flight(&rows->row[rows->count++], flight, now_ns);
}

/* Those that have been given up first: they are why one looks. */
static void copy_group(struct rows *rows, struct group *group, int64_t now_ns)
{
    rows->count = 0;
    group_lock(group);
    copy_list(rows, group->outrun, now_ns);
    copy_list(rows, group->flights, now_ns);
    if (group->running > rows->count)
        rows->not_shown += group->running - rows->count;
    group_unlock(group);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_byte(struct page *page, unsigned char byte)
{
    static const char digits[] = "0123456789abcdef";
    if (byte >= ' ' && byte < 0x7f && byte != '"' && byte != '\\') {
        page_put_char(page, (char)byte);
        return;
    }
    page_put(page, "\\u00");
    page_put_char(page, digits[byte >> 4]);
    page_put_char(page, digits[byte & 15]);
}

static void put_string(struct page *page, const void *bytes, size_t length)
{
    page_put_char(page, '"');
    for (size_t i = 0; i < length; i++)
        put_byte(page, ((const unsigned char *)bytes)[i]);
    page_put_char(page, '"');
}

static void put_flag(struct page *page, const char *name, bool flag)
{
    page_put(page, ",\"");
    page_put(page, name);
    page_put(page, flag ? "\":true" : "\":false");
}

static void put_member(struct page *page, const char *name, uint64_t number)
{
    page_put(page, ",\"");
    page_put(page, name);
    page_put(page, "\":");
    page_put_number(page, number);
}

/* The beginning of an object; all but the first of the array follow a comma. */
static void put_open(struct page *page, const char *cache, bool *first)
{
    page_put(page, *first ? "\n{\"cache\":" : ",\n{\"cache\":");
    put_string(page, cache, strlen(cache));
    *first = false;
}

static void put_row(struct page *page, const char *cache, const struct row *row, bool *first)
{
    static const char *const states[] = {"queued", "running", "pending"};
    put_open(page, cache, first);
    page_put(page, ",\"key\":");
    put_string(page, row->key, row->key_len);
    put_member(page, "age_ms", row->age_ms > 0 ? (uint64_t)row->age_ms : 0);
    put_member(page, "waiters", row->waiters);
    page_put(page, ",\"state\":\"");
    page_put(page, states[row->phase]);
    page_put_char(page, '"');
    put_flag(page, "background", row->background);
    put_flag(page, "fenced", row->fenced);
    put_flag(page, "superseded", row->superseded);
    page_put_char(page, '}');
}

static void put_cache(struct page *page, struct rows *rows, aside_cache *cache, bool *first)
{
    struct host *host = &cache->host;
    struct group *group;
    rows->not_shown = 0;
    for (size_t i = 0; (group = host->ops->group(host, i)); i++) {
        copy_group(rows, group, clock_precise(&host->clock));
        for (size_t row = 0; row < rows->count; row++)
            put_row(page, host->name, &rows->row[row], first);
    }
    if (rows->not_shown == 0)
        return;
    put_open(page, host->name, first);
    put_member(page, "not_shown", rows->not_shown);
    page_put_char(page, '}');
}

/* ---- the call -------------------------------------------------------------------------------- */

static void free_rows(void *rows)
{
    mem_free(&mem_default, rows);
}

aside_status aside_flights_write(aside_cache *const *caches, size_t count, aside_write_fn *write,
                                 void *ctx)
{
    struct page page = {.write = write, .ctx = ctx};
    bool first = true;
    if (!write || (!caches && count) || !caches_are(caches, count))
        return ASIDE_E_INVALID;
    struct rows *rows = mem_alloc(&mem_default, sizeof *rows);
    if (!rows)
        return ASIDE_E_NOMEM;
    pthread_cleanup_push(free_rows, rows);
    page_put_char(&page, '[');
    for (size_t i = 0; i < count; i++)
        put_cache(&page, rows, caches[i], &first);
    page_put(&page, first ? "]\n" : "\n]\n");
    page_end(&page);
    pthread_cleanup_pop(1);
    return page.status;
}
