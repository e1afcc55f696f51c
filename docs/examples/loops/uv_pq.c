/*
 * uv_pq.c -- libuv and libpq on one thread: fetches that do not block, and no worker at all.
 *
 *   uv_pq CONNINFO [LOOKUPS [KEYS]]
 *
 * Looks one cold key up LOOKUPS times at once, then KEYS cold keys, then these again, and prints
 * what it has counted. Exits with 0 if each lookup was answered exactly once, be it by an error.
 *
 * A fetch starts a query and returns ASIDE_PENDING. The loop watches the connection's socket and
 * the cache's inbox: the one completes fetches, the other answers whoever looked up.
 */
#include <aside/aside.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "postgres.h"

enum { LOOKUPS = 10000, KEYS = 100 };
enum { DEADLINE_MS = 30000, BACKOFF_MS = 200, REAP_MS = 1000, REAP_ENTRIES = 1000 };
enum failure { UNREACHABLE = 1, REFUSED }; /* codes of aside_fetch_fail() */

static void must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "uv_pq: %s\n", what);
        exit(2);
    }
}

/* ---- the fetch ------------------------------------------------------------------------------- */

static aside_status read_row(aside_fetch *fetch, const PGresult *result)
{
    if (result == NULL)
        return aside_fetch_fail(fetch, UNREACHABLE);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return aside_fetch_fail(fetch, REFUSED);
    if (PQntuples(result) == 0)
        return aside_fetch_not_found(fetch);
    return aside_fetch_copy(fetch, PQgetvalue(result, 0, 0), (size_t)PQgetlength(result, 0, 0));
}

static void complete(void *ctx, const PGresult *result)
{
    aside_fetch *fetch = ctx;
    aside_fetch_complete(fetch, read_row(fetch, result));
    aside_fetch_unref(fetch);
}

/* Runs on the loop's thread, inside aside_get_async(). */
static aside_status fetch_value(aside_fetch *fetch, void *arg)
{
    struct postgres *postgres = arg;
    size_t len;
    const char *key = aside_fetch_key(fetch, &len); /* stays as long as our reference */
    if (postgres_ask(postgres, key, len, complete, aside_fetch_ref(fetch)))
        return ASIDE_PENDING;
    aside_fetch_unref(fetch);
    return ASIDE_E_NOMEM;
}

/* ---- the cache in the loop ------------------------------------------------------------------- */

struct app {
    uv_loop_t loop;
    struct postgres postgres;
    aside_cache *cache;
    aside_inbox *inbox;
    uv_poll_t results;
    uv_timer_t reaper;
};

static void on_results(uv_poll_t *handle, int status, int events)
{
    struct app *app = handle->data;
    (void)status;
    (void)events;
    aside_inbox_dispatch(app->inbox, 0, NULL);
}

static void on_reap(uv_timer_t *timer)
{
    struct app *app = timer->data;
    aside_reap(app->cache, REAP_ENTRIES, NULL);
}

static void open_cache(struct app *app)
{
    int fd;
    aside_options options = ASIDE_OPTIONS_INIT;
    options.fetch_threads = 0;
    options.reaper_interval_ms = 0; /* on_reap() instead */
    options.freshness.backoff_ms = BACKOFF_MS;
    must(aside_open(&app->cache, &options) == ASIDE_OK, "no cache");
    must(aside_inbox_new(&app->inbox) == ASIDE_OK, "no inbox");
    must(aside_inbox_fd(app->inbox, &fd) == ASIDE_OK, "no descriptor of the inbox");
    must(uv_poll_init(&app->loop, &app->results, fd) == 0, "the inbox cannot be watched");
    uv_timer_init(&app->loop, &app->reaper);
    app->results.data = app->reaper.data = app;
    uv_poll_start(&app->results, UV_READABLE, on_results);
    uv_timer_start(&app->reaper, on_reap, REAP_MS, REAP_MS);
}

static void close_app(struct app *app)
{
    postgres_close(&app->postgres); /* first: aside_close() would wait for its queries */
    aside_close(app->cache);
    uv_close((uv_handle_t *)&app->results, NULL);
    uv_close((uv_handle_t *)&app->reaper, NULL);
    uv_run(&app->loop, UV_RUN_DEFAULT);
    aside_inbox_free(app->inbox);
    aside_unref(app->cache);
    must(uv_loop_close(&app->loop) == 0, "something is left in the loop");
}

/* ---- lookups --------------------------------------------------------------------------------- */

struct tally {
    size_t answered, at_once, callbacks, values, errors;
};

struct lookup {
    struct tally *tally;
    size_t user;
    size_t answers;
};

static void answer(struct lookup *lookup, aside_status status, aside_result *result)
{
    char expected[40];
    int len = snprintf(expected, sizeof expected, "name of user %zu", lookup->user);
    struct tally *tally = lookup->tally;
    tally->answered += lookup->answers++ == 0;
    if (status != ASIDE_OK)
        tally->errors++;
    else if (aside_value_size(result->value) == (size_t)len &&
             memcmp(aside_value_data(result->value), expected, (size_t)len) == 0)
        tally->values++;
    aside_value_unref(result->value);
}

static void answered(void *ctx, aside_status status, aside_result *result)
{
    struct lookup *lookup = ctx;
    lookup->tally->callbacks++;
    answer(lookup, status, result);
}

static void look_up(struct app *app, struct lookup *lookup)
{
    char key[32];
    int len = snprintf(key, sizeof key, "user:%zu", lookup->user);
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = fetch_value, .arg = &app->postgres, .nonblocking = 1};
    call.timeout_ms = DEADLINE_MS;
    aside_status status =
        aside_get_async(app->cache, key, (size_t)len, &call, app->inbox, answered, lookup, &result);
    if (status == ASIDE_PENDING)
        return;
    lookup->tally->at_once++;
    answer(lookup, status, &result);
}

static size_t count_tasks(void)
{
    size_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    must(tasks != NULL, "no /proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* All lookups are begun before the loop turns once. Whether each was answered exactly once. */
static bool run(struct app *app, const char *title, size_t lookups, size_t first, size_t keys)
{
    struct postgres *postgres = &app->postgres;
    struct tally tally = {0};
    struct lookup *all = calloc(lookups, sizeof *all);
    must(all != NULL, "out of memory");
    uint64_t began = uv_hrtime();
    postgres->queries = postgres->connections = postgres->most_queued = 0;
    for (size_t i = 0; i < lookups; i++) {
        all[i] = (struct lookup){&tally, first + i % keys, 0};
        look_up(app, &all[i]);
    }
    size_t tasks = count_tasks();
    while (tally.answered < lookups)
        uv_run(&app->loop, UV_RUN_ONCE);
    double elapsed_ms = (double)(uv_hrtime() - began) / 1e6;
    printf("%s: lookups=%zu at_once=%zu callbacks=%zu values=%zu errors=%zu queries=%zu queue=%zu "
           "connections=%zu tasks=%zu elapsed_ms=%.1f\n",
           title, lookups, tally.at_once, tally.callbacks, tally.values, tally.errors,
           postgres->queries, postgres->most_queued, postgres->connections, tasks, elapsed_ms);
    fflush(stdout);
    free(all);
    return tally.at_once + tally.callbacks == lookups && tally.values + tally.errors == lookups;
}

int main(int argc, char **argv)
{
    static struct app app;
    if (argc < 2) {
        fprintf(stderr, "usage: uv_pq CONNINFO [LOOKUPS [KEYS]]\n");
        return 2;
    }
    size_t lookups = argc > 2 ? strtoul(argv[2], NULL, 10) : LOOKUPS;
    size_t keys = argc > 3 ? strtoul(argv[3], NULL, 10) : KEYS;
    must(keys > 0, "no keys");
    must(uv_loop_init(&app.loop) == 0, "no loop");
    postgres_open(&app.postgres, &app.loop, argv[1], "SELECT value FROM pairs WHERE key = $1");
    open_cache(&app);
    bool good = run(&app, "one cold key", lookups, 0, 1);
    good &= run(&app, "cold keys", lookups, 1, keys);
    good &= run(&app, "the same keys", lookups, 1, keys);
    close_app(&app);
    return good ? 0 : 1;
}
