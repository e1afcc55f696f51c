/*
 * service.h -- templates by id, through the cache.
 *
 * The only file of the daemon that knows how templates are cached: for how long, what answers while
 * the database fails, and who asks it. Everything else knows an id and an answer.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include "repository.h"

#include <aside/aside.h>
#include <stdbool.h>

enum sharing {
    SHARE_ALL,      /* as it is meant */
    SHARE_NO_FETCH, /* a cache, but everybody who misses asks the database: --no-singleflight */
    SHARE_NO_ANSWER /* everybody asks the database: --no-cache */
};

struct service_options {
    struct repository *repository; /* outlives the service */
    int64_t ttl_ms;
    int64_t not_found_ttl_ms;
    int64_t stale_if_error_ms;
    int64_t reaper_interval_ms;
    size_t workers;     /* each with a connection of its own */
    size_t max_waiting; /* fetches that wait for a worker, before requests are shed */
    enum sharing sharing;
};

struct service;

/* Opens the caches; may be followed by a fork. */
aside_status service_open(struct service **service, const struct service_options *options);

/* In the process that is to serve, on the thread of its loop: from here on service_fd() is a
 * descriptor for that loop's epoll, and service_dispatch() is to be called when it is readable. */
aside_status service_start(struct service *service);
int service_fd(const struct service *service);
void service_dispatch(struct service *service);

/*
 * The JSON of the template of an id, from any thread. ASIDE_PENDING: done will be called with ctx on
 * the loop's thread, once. Else the answer is in *result, whose value is the caller's.
 *   token  the caller's own: once it fires, or its deadline passes, this caller is told so, and
 *          nobody else notices.
 */
aside_status service_get(struct service *service, int64_t id, aside_cancel *token,
                         aside_done_fn *done, void *ctx, aside_result *result);

/* As service_get() with SHARE_NO_ANSWER, whatever the options say; for comparison. */
aside_status service_get_unshared(struct service *service, int64_t id, aside_done_fn *done,
                                  void *ctx, aside_result *result);

/* After the template of an id was written, or may have been: nobody who asks from now on gets an
 * older one. */
void service_forget(struct service *service, int64_t id);

/* For aside_stats_write() and aside_flights_write(); the first is the one that clients are served
 * from. */
enum { SERVICE_CACHES = 2 };
aside_cache *const *service_caches(const struct service *service);

/* Whoever still waits is told ASIDE_E_CLOSED, within this call, on the loop's thread, and whoever
 * asks later is told so at once. false: a query does not come to an end, and its worker still needs
 * the service and the repository, which must not be freed then. */
bool service_close(struct service *service);
/* Once nobody can call service_get() any more. NULL is ignored. */
void service_free(struct service *service);

#endif
