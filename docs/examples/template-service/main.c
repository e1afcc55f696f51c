/*
 * main.c -- a service of templates: HTTP in front, a database behind, libaside between.
 *
 *   main.c       the parts, in the order in which they are made and taken apart
 *   options      the command line               process     background, pid file, service manager
 *   loop         the main thread                parking     requests that wait
 *   http         libmicrohttpd, requests        routes      what each path answers
 *   service      the cache, of bodies (body)    repository  the database: sqlite, postgres
 *   writer       the thread that writes         metrics     what is counted
 *   history, stampede, page                     the live page
 */
#include "http.h"
#include "log.h"
#include "loop.h"
#include "process.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- before the fork ------------------------------------------------------------------------- */

static bool open_source(struct app *app)
{
    const struct options *options = &app->options;
    app->repository = repository_open(&(struct repository_options){
        .address = options->database,
        .query_timeout_ms = options->query_timeout_ms,
        .delay_ms = options->query_delay_ms,
        .templates = options->templates,
    });
    return app->repository != NULL;
}

static bool open_cache(struct app *app)
{
    const struct options *options = &app->options;
    aside_status status =
        service_open(&app->service, &(struct service_options){
                                        .repository = app->repository,
                                        .ttl_ms = options->ttl_ms,
                                        .not_found_ttl_ms = options->not_found_ttl_ms,
                                        .stale_if_error_ms = options->stale_if_error_ms,
                                        .reaper_interval_ms = options->reaper_interval_ms,
                                        .workers = options->workers,
                                        .max_waiting = options->max_waiting,
                                        .sharing = options->sharing,
                                    });
    if (status != ASIDE_OK)
        log_line(LOG_ERR, "cannot open the cache: %s", aside_strerror(status));
    return status == ASIDE_OK;
}

/* ---- the process that serves ----------------------------------------------------------------- */

static bool start_parts(struct app *app)
{
    enum { MAX_WRITES = 1024 };
    app->stampede = stampede_new(app->service);
    app->writer =
        writer_start(app->repository, app->service, MAX_WRITES, app->options.change_every_ms);
    history_init(&app->history, service_caches(app->service)[0],
                 repository_queries(app->repository));
    if (app->stampede == NULL || app->writer == NULL)
        log_line(LOG_ERR, "out of memory, or of threads");
    return app->stampede != NULL && app->writer != NULL;
}

static void announce(const struct app *app, const struct http *http)
{
    bool is_v6 = strchr(app->options.address, ':') != NULL;
    log_line(LOG_INFO, "%s; ttl %lld ms", repository_describe(app->repository),
             (long long)app->options.ttl_ms);
    log_line(LOG_INFO, "listening on http://%s%s%s:%u/", is_v6 ? "[" : "", app->options.address,
             is_v6 ? "]" : "", http_port(http));
    process_is_ready();
}

/* Nobody new; who is being served gets his answer; then who still waits is told that he gets none.
 * A connection that was kept may bring a request at any time: until the HTTP threads have ended, the
 * writer and the service stay, and refuse. */
static void end(struct app *app, struct loop *loop, struct http *http)
{
    enum { LAST_ANSWERS_MS = 2000 };
    process_is_stopping();
    atomic_store(&app->draining, true);
    http_stop_listening(http);
    loop_drain(loop, http, app->options.drain_ms);
    unsigned waiting = http_requests(http);
    if (waiting > 0)
        log_line(LOG_WARNING, "%u requests are not waited for any longer", waiting);
    writer_close(app->writer);
    (void)service_close(app->service);
    loop_drain(loop, http, LAST_ANSWERS_MS);
    http_stop(http);
}

static bool serve(struct app *app, struct loop *loop)
{
    struct http *http = start_parts(app) ? http_start(app) : NULL;
    if (http != NULL) {
        announce(app, http);
        loop_run(loop);
        end(app, loop, http);
        log_line(LOG_INFO, "ended");
    }
    writer_stop(app->writer);
    stampede_free(app->stampede);
    return http != NULL;
}

static bool run(struct app *app)
{
    struct loop loop;
    if (service_start(app->service) != ASIDE_OK) {
        log_line(LOG_ERR, "the system gives no descriptors for an inbox");
        return false;
    }
    pthread_mutex_init(&app->history_lock, NULL);
    bool ok =
        loop_init(&loop, app) && process_write_pid(app->options.pid_file) && serve(app, &loop);
    process_remove_pid(app->options.pid_file);
    loop_destroy(&loop);
    pthread_mutex_destroy(&app->history_lock);
    return ok;
}

int main(int argc, char *argv[])
{
    static struct app app;
    int status = options_read(&app.options, argc, argv);
    if (status != 0)
        return status < 0 ? EXIT_SUCCESS : status;
    if (app.options.uses_syslog)
        log_to_syslog("template-service");
    signal(SIGPIPE, SIG_IGN);
    process_raise_limits();
    bool ok = open_source(&app) && open_cache(&app) &&
              (!app.options.daemonize || process_daemonize()) && run(&app);
    status = ok ? EXIT_SUCCESS : EXIT_FAILURE;
    if (app.service != NULL && !service_close(app.service))
        _exit(status); /* a worker is still at its query, with what would be freed here */
    service_free(app.service);
    repository_close(app.repository);
    return status;
}
