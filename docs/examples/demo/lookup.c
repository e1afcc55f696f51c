/*
 * lookup.c -- how the demo uses libaside: keys, the fetch, a connection for each fetch worker.
 */
#include "lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

struct lookup_key lookup_key_of(uint32_t code)
{
    struct lookup_key key;
    key.len = (size_t)snprintf(key.text, sizeof key.text, "char:%04X", (unsigned)code);
    return key;
}

bool lookup_is(const void *data, size_t size, uint32_t code)
{
    char start[16];
    size_t len = (size_t)snprintf(start, sizeof start, "U+%04X ", (unsigned)code);
    return size > len && memcmp(data, start, len) == 0;
}

aside_cache *lookup_open(const aside_options *options)
{
    aside_cache *cache;
    aside_status status = aside_open(&cache, options);
    if (status != ASIDE_OK)
        die("cannot open a cache: %s", aside_strerror(status));
    return cache;
}

/* ---- workers --------------------------------------------------------------------------------- */

static aside_status start_worker(void *ctx, void **worker)
{
    struct conn *mine = malloc(sizeof *mine);
    if (mine == NULL)
        return ASIDE_E_NOMEM;
    if (conn_open(mine, ctx) != SQLITE_OK) {
        free(mine);
        return ASIDE_E_FETCH;
    }
    *worker = mine;
    return ASIDE_OK;
}

static void stop_worker(void *ctx, void *worker)
{
    (void)ctx;
    conn_close(worker);
    free(worker);
}

aside_worker lookup_worker(struct source *source)
{
    return (aside_worker){start_worker, stop_worker, source};
}

/* ---- fetches --------------------------------------------------------------------------------- */

aside_status lookup_answer(aside_fetch *fetch, int rc, const struct record *record)
{
    if (rc == SQLITE_ROW)
        return aside_fetch_copy(fetch, record->text, record->size);
    if (rc == SQLITE_DONE)
        return aside_fetch_not_found(fetch);
    return aside_fetch_fail(fetch, rc);
}

aside_status lookup_fetch(aside_fetch *fetch, void *arg)
{
    struct record record;
    size_t key_len;
    const void *key = aside_fetch_key(fetch, &key_len);
    (void)arg;
    int rc = source_query(aside_fetch_worker(fetch), key, key_len, &record);
    return lookup_answer(fetch, rc, &record);
}

aside_stats lookup_stats(const aside_cache *cache)
{
    aside_stats stats = {.struct_size = sizeof stats};
    if (aside_stats_get(cache, &stats) != ASIDE_OK)
        die("the cache has no statistics");
    return stats;
}
