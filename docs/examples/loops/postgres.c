/*
 * postgres.c -- libpq without blocking: what its manual calls asynchronous command processing.
 *
 * A query that is under way when the connection is lost fails. Those behind it are sent by the next
 * connection; if that cannot be made, they fail too.
 */
#include "postgres.h"

#include <stdlib.h>

enum { PATIENCE_MS = 10000 }; /* for a connection, and for a query */

struct query {
    struct query *next;
    const char *bytes;
    size_t size;
    postgres_done *done;
    void *ctx;
};

static void advance(struct postgres *postgres);

/* ---- the queue ------------------------------------------------------------------------------- */

bool postgres_ask(struct postgres *postgres, const char *bytes, size_t size, postgres_done *done,
                  void *ctx)
{
    struct query *query = malloc(sizeof *query);
    if (query == NULL)
        return false;
    *query = (struct query){NULL, bytes, size, done, ctx};
    *postgres->last = query;
    postgres->last = &query->next;
    if (++postgres->queued > postgres->most_queued)
        postgres->most_queued = postgres->queued;
    advance(postgres);
    return true;
}

static void end_first(struct postgres *postgres, PGresult *result)
{
    struct query *query = postgres->first;
    postgres->first = query->next;
    if (postgres->first == NULL)
        postgres->last = &postgres->first;
    postgres->queued--;
    postgres->sent = false;
    postgres->result = NULL;
    query->done(query->ctx, result);
    PQclear(result);
    free(query);
}

/* ---- the socket ------------------------------------------------------------------------------ */

static void on_socket(uv_poll_t *handle, int status, int events);

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

/* Before whatever may close the socket: libuv must not watch one that is closed. */
static void unwatch(struct postgres *postgres)
{
    if (postgres->socket != NULL)
        uv_close((uv_handle_t *)postgres->socket, free_handle);
    postgres->socket = NULL;
}

/* Where it cannot be watched, the timer ends what is under way. */
static void watch(struct postgres *postgres, int events)
{
    if (postgres->socket == NULL) {
        uv_poll_t *handle = malloc(sizeof *handle);
        if (handle == NULL || uv_poll_init(postgres->loop, handle, PQsocket(postgres->conn)) != 0) {
            free(handle);
            return;
        }
        handle->data = postgres;
        postgres->socket = handle;
    }
    uv_poll_start(postgres->socket, events, on_socket);
}

/* ---- the connection -------------------------------------------------------------------------- */

static void disconnect(struct postgres *postgres)
{
    size_t failed = postgres->ready ? postgres->sent : postgres->queued;
    unwatch(postgres);
    uv_timer_stop(&postgres->timer);
    PQclear(postgres->result);
    PQfinish(postgres->conn);
    postgres->conn = NULL;
    postgres->ready = false;
    for (; failed > 0 && postgres->first != NULL; failed--)
        end_first(postgres, NULL);
    advance(postgres);
}

static void on_timeout(uv_timer_t *timer)
{
    disconnect(timer->data);
}

/* Waits for a host's name to be resolved; not for an address, or for a directory with a socket. */
static void connect_first(struct postgres *postgres)
{
    postgres->connections++;
    postgres->conn = PQconnectStart(postgres->conninfo);
    if (PQstatus(postgres->conn) == CONNECTION_BAD) {
        disconnect(postgres);
        return;
    }
    uv_timer_start(&postgres->timer, on_timeout, PATIENCE_MS, 0);
    watch(postgres, UV_WRITABLE);
}

static void go_on_connecting(struct postgres *postgres)
{
    unwatch(postgres); /* after this it may be another socket */
    PostgresPollingStatusType wanted = PQconnectPoll(postgres->conn);
    if (wanted == PGRES_POLLING_FAILED) {
        disconnect(postgres);
        return;
    }
    watch(postgres, wanted == PGRES_POLLING_WRITING ? UV_WRITABLE : UV_READABLE);
    if (wanted != PGRES_POLLING_OK)
        return;
    uv_timer_stop(&postgres->timer);
    PQsetnonblocking(postgres->conn, 1);
    postgres->ready = true;
    advance(postgres);
}

/* ---- a query --------------------------------------------------------------------------------- */

static void send_first(struct postgres *postgres)
{
    const struct query *query = postgres->first;
    const int size = (int)query->size;
    const int binary = 1; /* bytes and their number, not a C string */
    postgres->sent = true;
    postgres->queries++;
    uv_timer_start(&postgres->timer, on_timeout, PATIENCE_MS, 0);
    if (!PQsendQueryParams(postgres->conn, postgres->sql, 1, NULL, &query->bytes, &size, &binary,
                           0))
        disconnect(postgres);
    else
        watch(postgres, UV_READABLE | UV_WRITABLE);
}

/* Connects, or sends the next query, if that is what there is to do. */
static void advance(struct postgres *postgres)
{
    if (postgres->first == NULL || postgres->sent)
        return;
    if (postgres->conn == NULL)
        connect_first(postgres);
    else if (postgres->ready)
        send_first(postgres);
}

/* The query is over when there is no further result; the last one counts. */
static void take_results(struct postgres *postgres)
{
    PGresult *result;
    while (!PQisBusy(postgres->conn) && (result = PQgetResult(postgres->conn)) != NULL) {
        PQclear(postgres->result);
        postgres->result = result;
    }
    if (PQisBusy(postgres->conn))
        return;
    uv_timer_stop(&postgres->timer);
    end_first(postgres, postgres->result);
    advance(postgres);
}

/* What libuv says of the socket, libpq finds out as well. */
static void on_socket(uv_poll_t *handle, int status, int events)
{
    struct postgres *postgres = handle->data;
    (void)status;
    (void)events;
    if (!postgres->ready) {
        go_on_connecting(postgres);
        return;
    }
    int unsent = PQflush(postgres->conn);
    if (unsent < 0 || !PQconsumeInput(postgres->conn)) {
        disconnect(postgres);
        return;
    }
    watch(postgres, unsent > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
    if (postgres->sent)
        take_results(postgres);
}

/* ---- life ------------------------------------------------------------------------------------ */

void postgres_open(struct postgres *postgres, uv_loop_t *loop, const char *conninfo,
                   const char *sql)
{
    *postgres = (struct postgres){.loop = loop, .conninfo = conninfo, .sql = sql};
    postgres->last = &postgres->first;
    uv_timer_init(loop, &postgres->timer);
    postgres->timer.data = postgres;
}

void postgres_close(struct postgres *postgres)
{
    postgres->ready = false; /* nothing is sent again */
    disconnect(postgres);
    uv_close((uv_handle_t *)&postgres->timer, NULL);
}
