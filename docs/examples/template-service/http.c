/*
 * http.c -- some threads, each with a daemon of libmicrohttpd and its epoll, share one listening
 * socket. None of them ever waits for the database: see parking.h.
 *
 * The threads are not libmicrohttpd's own. Those have a defect: where a multiple of 128 sockets
 * become ready at once, epoll_wait() is called again, and with its timeout, before any of them is
 * looked at; if nothing else happens, they all wait until it is over, which may be ten seconds. Here a
 * timeout is TURN_MS.
 */
#include "http.h"

#include "clock.h"
#include "log.h"
#include "request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A connection is given up when nothing comes for QUIET_SECONDS, be it idle, or in the middle of a
 * request: libmicrohttpd does not notice that a client has left there. One time for all, since it
 * looks at every connection with a time of its own at each turn. Who is parked does not count. */
enum { BACKLOG = 4096, QUIET_SECONDS = 10, TURN_MS = 20 };

struct lane {
    struct http *http;
    struct MHD_Daemon *daemon;
    pthread_t thread;
};

struct http {
    struct app *app;
    uint16_t port;
    atomic_uint requests;
    atomic_bool deaf;    /* no more connections are accepted */
    atomic_bool stopped; /* the lanes end */
    unsigned count;      /* of lanes that run */
    struct lane lanes[];
};

/* ---- a request ------------------------------------------------------------------------------- */

static struct request *begin(struct http *http, struct MHD_Connection *connection, const char *path,
                             const char *method)
{
    struct request *request = calloc(1, sizeof *request);
    if (request == NULL)
        return NULL;
    request->app = http->app;
    request->connection = connection;
    request->route = route_of(path);
    request->method = method_of(method);
    request->began_ns = now_ns();
    atomic_fetch_add(&http->requests, 1);
    metrics_request_began();
    return request;
}

/* One whose client leaves while it waits is resumed to be told so, but libmicrohttpd may notice
 * first, and calls that an error of any kind. */
static bool is_departure(const struct request *request, enum MHD_RequestTerminationCode how)
{
    return request->status == 0 &&
           (request->phase == REQUEST_PARKED || how == MHD_REQUEST_TERMINATED_CLIENT_ABORT ||
            how == MHD_REQUEST_TERMINATED_READ_ERROR);
}

static void on_completed(void *its_http, struct MHD_Connection *connection, void **its_request,
                         enum MHD_RequestTerminationCode how)
{
    struct http *http = its_http;
    struct request *request = *its_request;
    (void)connection;
    if (request == NULL)
        return;
    *its_request = NULL;
    if (is_departure(request, how))
        request->status = CLIENT_HAS_GONE;
    metrics_request_ended(request->route, request->method, request->status,
                          now_ns() - request->began_ns);
    aside_cancel_unref(request->token);
    aside_value_unref(request->result.value);
    template_clear(&request->write.template);
    free(request->report);
    free(request->body);
    free(request);
    atomic_fetch_sub(&http->requests, 1);
}

static void keep(struct request *request, const char *bytes, size_t size)
{
    if (request->body == NULL)
        request->body = malloc(MAX_BODY);
    if (request->body == NULL || size > MAX_BODY - request->body_size) {
        request->body_too_large = true;
        return;
    }
    memcpy(request->body + request->body_size, bytes, size);
    request->body_size += size;
}

static enum MHD_Result on_request(void *its_http, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *upload, size_t *upload_size, void **its_request)
{
    struct request *request = *its_request;
    (void)version;
    if (request == NULL) {
        *its_request = request = begin(its_http, connection, path, method);
        return request != NULL ? MHD_YES : MHD_NO;
    }
    if (*upload_size > 0) {
        keep(request, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    return request_answer(request);
}

/* ---- a lane ---------------------------------------------------------------------------------- */

/* On the daemon's own thread alone: libmicrohttpd cannot do so beside it. */
static void stop_accepting(struct MHD_Daemon *daemon)
{
    int listening = MHD_quiesce_daemon(daemon);
    if (listening >= 0)
        close(listening);
}

static void *run_lane(void *its_lane)
{
    struct lane *lane = its_lane;
    bool deaf = false;
    while (!atomic_load(&lane->http->stopped)) {
        if (!deaf && atomic_load(&lane->http->deaf)) {
            stop_accepting(lane->daemon);
            deaf = true;
        }
        MHD_run_wait(lane->daemon, TURN_MS);
    }
    MHD_stop_daemon(lane->daemon);
    return NULL;
}

/* Takes the socket. */
static struct MHD_Daemon *make_daemon(struct http *http, int listening)
{
    const struct options *options = &http->app->options;
    unsigned share = (options->max_connections + options->http_threads - 1) / options->http_threads;
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http,
                         MHD_OPTION_LISTEN_SOCKET, listening, MHD_OPTION_CONNECTION_LIMIT, share,
                         MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)QUIET_SECONDS,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_END);
    if (daemon == NULL)
        close(listening);
    return daemon;
}

static bool start_lane(struct http *http, int listening)
{
    struct lane *lane = &http->lanes[http->count];
    int own = fcntl(listening, F_DUPFD_CLOEXEC, 0);
    *lane = (struct lane){.http = http, .daemon = own >= 0 ? make_daemon(http, own) : NULL};
    if (lane->daemon == NULL)
        return false;
    errno = pthread_create(&lane->thread, NULL, run_lane, lane);
    if (errno != 0)
        MHD_stop_daemon(lane->daemon);
    else
        http->count++;
    return errno == 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static struct addrinfo *resolve(const struct options *options)
{
    char port[8];
    struct addrinfo *found = NULL;
    const struct addrinfo wanted = {.ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    snprintf(port, sizeof port, "%u", options->port);
    int error = getaddrinfo(options->address, port, &wanted, &found);
    if (error == 0)
        return found;
    log_line(LOG_ERR, "cannot listen on %s: %s", options->address, gai_strerror(error));
    return NULL;
}

static int listen_at(const struct addrinfo *at)
{
    const int yes = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int open_port(const struct options *options)
{
    struct addrinfo *at = resolve(options);
    if (at == NULL)
        return -1;
    int fd = listen_at(at);
    if (fd < 0)
        log_line(LOG_ERR, "cannot listen on %s, port %u: %s", options->address, options->port,
                 strerror(errno));
    freeaddrinfo(at);
    return fd;
}

static uint16_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {0};
    socklen_t size = sizeof address;
    (void)getsockname(fd, &address.any, &size);
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

static bool start_lanes(struct http *http, int listening)
{
    while (http->count < http->app->options.http_threads)
        if (!start_lane(http, listening)) {
            log_line(LOG_ERR, "cannot start a thread for HTTP: %s", strerror(errno));
            return false;
        }
    return true;
}

struct http *http_start(struct app *app)
{
    int listening = open_port(&app->options);
    if (listening < 0)
        return NULL;
    struct http *http = calloc(1, sizeof *http + app->options.http_threads * sizeof http->lanes[0]);
    if (http != NULL) {
        http->app = app;
        http->port = port_of(listening);
    }
    if (http != NULL && !start_lanes(http, listening)) {
        http_stop(http);
        http = NULL;
    }
    close(listening); /* each lane has its own */
    return http;
}

uint16_t http_port(const struct http *http)
{
    return http->port;
}

void http_stop_listening(struct http *http)
{
    atomic_store(&http->deaf, true);
}

unsigned http_requests(const struct http *http)
{
    return atomic_load(&http->requests);
}

void http_stop(struct http *http)
{
    atomic_store(&http->stopped, true);
    for (unsigned i = 0; i < http->count; i++)
        pthread_join(http->lanes[i].thread, NULL);
    free(http);
}
