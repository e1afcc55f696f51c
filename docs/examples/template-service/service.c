/*
 * service.c -- aside_get_async() in front of repository_find().
 *
 * Two caches. The first serves clients. The second shares nothing and stores nothing: it is what the
 * daemon would be without libaside, on the same workers' code, for comparison.
 */
#include "service.h"

#include "body.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_SIZE = 32 };

struct service {
    struct service_options options;
    aside_cache *caches[SERVICE_CACHES];
    aside_inbox *inbox; /* NULL before service_start() */
};

struct key {
    char text[KEY_SIZE]; /* legible in GET /flights */
    size_t size;
};

/* Every request comes by here: without printf(). */
static struct key key_of(int64_t id)
{
    static const char prefix[] = "template:";
    enum { PREFIX = sizeof prefix - 1 };
    struct key key;
    char *end = key.text + sizeof key.text, *at = end;
    for (uint64_t left = (uint64_t)id; left > 0 || at == end; left /= 10)
        *--at = (char)('0' + left % 10);
    key.size = PREFIX + (size_t)(end - at);
    memmove(key.text + PREFIX, at, (size_t)(end - at));
    memcpy(key.text, prefix, PREFIX);
    return key;
}

/* ---- asking the database --------------------------------------------------------------------- */

static aside_status connect_worker(void *ctx, void **worker)
{
    const struct service *service = ctx;
    *worker = connection_new(service->options.repository);
    return *worker != NULL ? ASIDE_OK : ASIDE_E_NOMEM;
}

static void disconnect_worker(void *ctx, void *worker)
{
    (void)ctx;
    connection_free(worker);
}

static aside_status value_of(const struct template *t, uint64_t query, aside_value **value)
{
    size_t size;
    char *json = template_to_json(t, query, &size);
    if (json == NULL)
        return ASIDE_E_NOMEM;
    aside_status status = body_new(json, size, value);
    free(json);
    return status;
}

static int64_t id_of(const aside_fetch *fetch)
{
    struct key key = {.size = 0};
    const void *bytes = aside_fetch_key(fetch, &key.size);
    memcpy(key.text, bytes, key.size);
    key.text[key.size] = '\0';
    return strtoll(strchr(key.text, ':') + 1, NULL, 10);
}

/* ASIDE_OK: *value is the caller's. */
static aside_status ask(aside_fetch *fetch, aside_value **value)
{
    struct template t = {0};
    uint64_t query;
    enum db_outcome outcome = repository_find(aside_fetch_worker(fetch), id_of(fetch), &t, &query);
    aside_status status = outcome == DB_OK          ? value_of(&t, query, value)
                          : outcome == DB_NOT_FOUND ? aside_fetch_not_found(fetch)
                                                    : aside_fetch_fail(fetch, (int)outcome);
    template_clear(&t);
    return status;
}

static aside_status fetch_template(aside_fetch *fetch, void *its_service)
{
    aside_value *value;
    (void)its_service;
    aside_status status = ask(fetch, &value);
    return status == ASIDE_OK ? aside_fetch_give(fetch, value) : status;
}

/* Of a cache without singleflight: everyone who misses stores what he found, in the end. Nothing
 * fences that: what a write has overtaken meanwhile may be stored after it. */
static aside_status fetch_and_store(aside_fetch *fetch, void *its_service)
{
    struct service *service = its_service;
    aside_value *value;
    aside_status status = ask(fetch, &value);
    if (status != ASIDE_OK)
        return status;
    struct key key = key_of(id_of(fetch));
    if (aside_set_value(service->caches[0], key.text, key.size, value, ASIDE_DEFAULT_TTL) !=
        ASIDE_OK)
        log_line(LOG_WARNING, "%.*s could not be stored", (int)key.size, key.text);
    return aside_fetch_give(fetch, value);
}

/* ---- life ------------------------------------------------------------------------------------ */

enum {
    SOFT_TIMEOUT_MS = 250, /* who has a stale template at hand waits no longer */
    BACKOFF_MS = 100, /* without one: a failure is the answer for so long, then twice that ... */
    BACKOFF_MAX_MS = 2000,
    CLOSE_WAIT_MS = 1000 /* for queries whose callers have been told that it is closed */
};

static aside_options cache_options(struct service *service)
{
    const struct service_options *wanted = &service->options;
    aside_options options = ASIDE_OPTIONS_INIT;
    options.name = "templates";
    options.default_ttl_ms = wanted->ttl_ms;
    options.reaper_interval_ms = wanted->reaper_interval_ms;
    options.fetch_threads = wanted->workers;
    options.max_queued = wanted->max_waiting;
    options.close_wait_ms = CLOSE_WAIT_MS;
    options.worker = (aside_worker){connect_worker, disconnect_worker, service};
    options.freshness.stale_if_error_ms = wanted->stale_if_error_ms;
    options.freshness.soft_timeout_ms = SOFT_TIMEOUT_MS;
    options.freshness.not_found_ttl_ms = wanted->not_found_ttl_ms;
    options.freshness.backoff_ms = BACKOFF_MS;
    options.freshness.backoff_max_ms = BACKOFF_MAX_MS;
    return options;
}

static aside_status open_caches(struct service *service)
{
    aside_options options = cache_options(service);
    aside_status status = aside_open(&service->caches[0], &options);
    if (status != ASIDE_OK)
        return status;
    options.name = "unshared";
    options.disabled = ASIDE_DISABLE_ALL;
    options.reaper_interval_ms = 0;
    return aside_open(&service->caches[1], &options);
}

aside_status service_open(struct service **its_service, const struct service_options *options)
{
    struct service *service = calloc(1, sizeof *service);
    *its_service = NULL;
    if (service == NULL)
        return ASIDE_E_NOMEM;
    service->options = *options;
    aside_status status = open_caches(service);
    if (status != ASIDE_OK)
        service_free(service);
    else
        *its_service = service;
    return status;
}

/* An inbox does not cross a fork; the caches do. */
aside_status service_start(struct service *service)
{
    return aside_inbox_new(&service->inbox);
}

int service_fd(const struct service *service)
{
    int fd;
    return aside_inbox_fd(service->inbox, &fd) == ASIDE_OK ? fd : -1;
}

void service_dispatch(struct service *service)
{
    (void)aside_inbox_dispatch(service->inbox, 0, NULL);
}

static bool has_workers(const aside_cache *cache)
{
    aside_stats stats = {.struct_size = sizeof stats};
    return aside_stats_get(cache, &stats) == ASIDE_OK && stats.workers_now > 0;
}

/* The inbox stays: an HTTP thread may be about to ask. Freed with calls in it, it would tell them
 * that they had left. */
bool service_close(struct service *service)
{
    bool ended = true;
    for (int i = 0; i < SERVICE_CACHES; i++) {
        (void)aside_close(service->caches[i]);
        ended = ended && !has_workers(service->caches[i]);
    }
    service_dispatch(service);
    return ended;
}

void service_free(struct service *service)
{
    if (service == NULL)
        return;
    for (int i = 0; i < SERVICE_CACHES; i++)
        aside_unref(service->caches[i]);
    aside_inbox_free(service->inbox);
    free(service);
}

/* ---- requests -------------------------------------------------------------------------------- */

static aside_status get(struct service *service, aside_cache *cache, aside_fetch_fn *fetch,
                        const struct key *key, aside_cancel *token, aside_done_fn *done, void *ctx,
                        aside_result *result)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch, .arg = service, .cancel = token};
    call.ttl_ms = 0; /* the cache's */
    return aside_get_async(cache, key->text, key->size, &call, service->inbox, done, ctx, result);
}

static aside_status get_without_singleflight(struct service *service, const struct key *key,
                                             aside_cancel *token, aside_done_fn *done, void *ctx,
                                             aside_result *result)
{
    aside_value *value;
    if (aside_get(service->caches[0], key->text, key->size, &value) != ASIDE_OK)
        return get(service, service->caches[1], fetch_and_store, key, token, done, ctx, result);
    *result = (aside_result)ASIDE_RESULT_INIT;
    result->value = value;
    result->outcome = ASIDE_OUTCOME_HIT;
    return ASIDE_OK;
}

aside_status service_get(struct service *service, int64_t id, aside_cancel *token,
                         aside_done_fn *done, void *ctx, aside_result *result)
{
    struct key key = key_of(id);
    switch (service->options.sharing) {
    case SHARE_NO_FETCH: return get_without_singleflight(service, &key, token, done, ctx, result);
    case SHARE_NO_ANSWER:
        return get(service, service->caches[1], fetch_template, &key, token, done, ctx, result);
    default:
        return get(service, service->caches[0], fetch_template, &key, token, done, ctx, result);
    }
}

aside_status service_get_unshared(struct service *service, int64_t id, aside_done_fn *done,
                                  void *ctx, aside_result *result)
{
    struct key key = key_of(id);
    return get(service, service->caches[1], fetch_template, &key, NULL, done, ctx, result);
}

void service_forget(struct service *service, int64_t id)
{
    struct key key = key_of(id);
    (void)aside_delete(service->caches[0], key.text, key.size);
}

aside_cache *const *service_caches(const struct service *service)
{
    return service->caches;
}
