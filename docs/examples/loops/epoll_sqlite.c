/*
 * epoll_sqlite.c -- a server on one epoll loop, with SQLite behind the cache's worker threads.
 *
 *   epoll_sqlite SOCKET DATABASE [DEADLINE_MS]
 *
 * A client sends a key a line, and gets a line for each, in that order: "ok VALUE", "none" or
 * "error WHY". An empty line asks for figures. SIGTERM ends the server.
 *
 * The loop never waits for the database. A client has one lookup under way at most, and nothing is
 * read from it meanwhile: nothing piles up for one that sends more than it reads.
 */
#include <aside/aside.h>

#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lines.h"

enum { TTL_MS = 60000, NOT_FOUND_MS = 1000, DEADLINE_MS = 1000, BUSY_MS = 5000, WORKERS = 4 };
enum { MAX_FD = 1000 }; /* below `ulimit -n`: accept4() finds a descriptor each time it is called */

struct server {
    int epoll_fd, listen_fd, signal_fd, inbox_fd;
    aside_cache *cache;
    aside_inbox *inbox;
    const char *database;
    int64_t deadline_ms;
    atomic_ulong queries;
    struct client *clients[MAX_FD]; /* by descriptor */
};

struct client {
    struct server *server;
    struct lines lines;
    uint32_t events;     /* that epoll is to tell of */
    aside_cancel *token; /* fires when the client goes */
    bool gone;
    bool waiting; /* for the cache: answered() will be called with this client */
};

static void must(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

/* ---- on the workers: a connection for each, and the fetch ------------------------------------ */

static aside_status connect_worker(void *ctx, void **worker)
{
    static const char text[] = "SELECT value FROM pairs WHERE key = ?1";
    const struct server *server = ctx;
    sqlite3_stmt *query = NULL;
    sqlite3 *db;
    int rc = sqlite3_open_v2(server->database, &db, SQLITE_OPEN_READONLY, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(db, BUSY_MS); /* nothing else would end a fetch */
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(db, text, -1, &query, NULL);
    if (rc != SQLITE_OK)
        sqlite3_close(db);
    *worker = query;
    return rc == SQLITE_OK ? ASIDE_OK : ASIDE_E_FETCH;
}

static void disconnect_worker(void *ctx, void *worker)
{
    sqlite3 *db = sqlite3_db_handle(worker);
    (void)ctx;
    sqlite3_finalize(worker);
    sqlite3_close(db);
}

/* What the query's row, or the want of one, says. */
static aside_status read_row(aside_fetch *fetch, sqlite3_stmt *query, int rc)
{
    if (rc == SQLITE_DONE)
        return aside_fetch_not_found(fetch);
    if (rc != SQLITE_ROW)
        return aside_fetch_fail(fetch, rc);
    const void *text = sqlite3_column_text(query, 0);
    return aside_fetch_copy(fetch, text, (size_t)sqlite3_column_bytes(query, 0));
}

static aside_status fetch_value(aside_fetch *fetch, void *arg)
{
    struct server *server = arg;
    sqlite3_stmt *query = aside_fetch_worker(fetch);
    size_t len;
    const char *key = aside_fetch_key(fetch, &len);
    atomic_fetch_add(&server->queries, 1);
    sqlite3_bind_text(query, 1, key, (int)len, SQLITE_STATIC);
    aside_status status = read_row(fetch, query, sqlite3_step(query));
    sqlite3_reset(query);
    return status;
}

/* ---- on the loop's thread: clients ----------------------------------------------------------- */

static void serve(struct client *client);

static void answer(struct client *client, aside_status status, aside_result *result)
{
    const char *value = aside_value_data(result->value);
    if (status == ASIDE_OK)
        lines_say(&client->lines, "ok %.*s", (int)aside_value_size(result->value), value);
    else if (status == ASIDE_NOT_FOUND)
        lines_say(&client->lines, "none");
    else
        lines_say(&client->lines, "error %s", aside_strerror(status));
    aside_value_unref(result->value);
}

static void free_client(struct client *client)
{
    aside_cancel_unref(client->token);
    free(client);
}

static void answered(void *ctx, aside_status status, aside_result *result)
{
    struct client *client = ctx;
    client->waiting = false;
    answer(client, status, result);
    if (client->gone)
        free_client(client);
    else
        serve(client);
}

static void look_up(struct client *client, const char *key, size_t len)
{
    struct server *server = client->server;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = fetch_value, .arg = server, .ttl_ms = TTL_MS};
    call.timeout_ms = server->deadline_ms;
    call.cancel = client->token;
    aside_status status =
        aside_get_async(server->cache, key, len, &call, server->inbox, answered, client, &result);
    client->waiting = status == ASIDE_PENDING;
    if (!client->waiting)
        answer(client, status, &result);
}

static void say_figures(struct client *client)
{
    const struct server *server = client->server;
    aside_stats s = {.struct_size = sizeof s};
    must(aside_stats_get(server->cache, &s) == ASIDE_OK, "the figures");
    lines_say(&client->lines, "waiting=%ju fetching=%ju hits=%ju left=%ju late=%ju queries=%lu",
              s.waiters_now, s.flights_now, s.hits, s.cancelled, s.timeouts,
              atomic_load(&server->queries));
}

static void watch(const struct server *server, int operation, int fd, uint32_t events)
{
    struct epoll_event event = {events, {.fd = fd}};
    must(epoll_ctl(server->epoll_fd, operation, fd, &event) == 0, "epoll_ctl");
}

/* Line after line, as far as that goes without waiting. */
static void serve(struct client *client)
{
    char line[LINE];
    size_t len;
    while (!client->waiting && lines_flush(&client->lines) &&
           lines_take(&client->lines, line, &len)) {
        if (len > 0)
            look_up(client, line, len);
        else
            say_figures(client);
    }
    uint32_t events = client->waiting ? 0 : client->lines.out_len > 0 ? EPOLLOUT : EPOLLIN;
    if (events != client->events)
        watch(client->server, EPOLL_CTL_MOD, client->lines.fd, events);
    client->events = events;
}

static void welcome(struct server *server)
{
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= MAX_FD) {
        close(fd);
        return;
    }
    struct client *client = calloc(1, sizeof *client);
    must(client != NULL && aside_cancel_new(&client->token) == ASIDE_OK, "a client");
    client->server = server;
    client->lines.fd = fd;
    client->events = EPOLLIN;
    server->clients[fd] = client;
    watch(server, EPOLL_CTL_ADD, fd, EPOLLIN);
}

/* Firing the token brings answered() about; the fetch runs on, for the others and for the cache. */
static void leave(struct client *client)
{
    client->gone = true;
    client->server->clients[client->lines.fd] = NULL;
    close(client->lines.fd);
    aside_cancel_fire(client->token);
    if (!client->waiting)
        free_client(client);
}

/* EPOLLHUP comes unasked, also while the client waits; with TCP ask for EPOLLRDHUP besides. Only
 * its own event makes a client leave: no other event of the same batch can be its. */
static void on_client(struct client *client, uint32_t events)
{
    bool stays = !(events & (EPOLLHUP | EPOLLERR));
    if (stays && (events & EPOLLIN))
        stays = lines_receive(&client->lines);
    if (stays)
        serve(client);
    else
        leave(client);
}

/* ---- the server ------------------------------------------------------------------------------ */

static void seed(const char *database)
{
    static const char text[] =
        "CREATE TABLE IF NOT EXISTS pairs (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
        "  INSERT OR IGNORE INTO pairs SELECT 'user:' || i, 'name of user ' || i FROM n;";
    sqlite3 *db;
    must(sqlite3_open(database, &db) == SQLITE_OK, database);
    must(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, database);
    sqlite3_close(db);
}

static void open_cache(struct server *server)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.worker = (aside_worker){connect_worker, disconnect_worker, server};
    options.fetch_threads = WORKERS;
    options.freshness.not_found_ttl_ms = NOT_FOUND_MS;
    options.close_wait_ms = ASIDE_FOREVER; /* BUSY_MS bounds it */
    must(aside_open(&server->cache, &options) == ASIDE_OK, "the cache");
    must(aside_inbox_new(&server->inbox) == ASIDE_OK, "the inbox");
    must(aside_inbox_fd(server->inbox, &server->inbox_fd) == ASIDE_OK, "the inbox");
}

/* Threads inherit this: signals are the loop's, and interrupt no worker. */
static int block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void loop(struct server *server)
{
    struct epoll_event events[64];
    for (;;) {
        int count = epoll_wait(server->epoll_fd, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == server->signal_fd)
                return;
            if (fd == server->listen_fd)
                welcome(server);
            else if (fd == server->inbox_fd)
                aside_inbox_dispatch(server->inbox, 0, NULL);
            else
                on_client(server->clients[fd], events[i].events);
        }
    }
}

/* Fetches end, workers disconnect, and whoever waits is told that the cache is closed. */
static void finish(struct server *server)
{
    close(server->listen_fd);
    aside_close(server->cache);
    aside_inbox_dispatch(server->inbox, 0, NULL);
    aside_inbox_free(server->inbox);
    for (int fd = 0; fd < MAX_FD; fd++)
        if (server->clients[fd] != NULL)
            leave(server->clients[fd]);
    aside_unref(server->cache);
    close(server->signal_fd);
    close(server->epoll_fd);
}

int main(int argc, char **argv)
{
    static struct server server;
    if (argc < 3) {
        fprintf(stderr, "usage: epoll_sqlite SOCKET DATABASE [DEADLINE_MS]\n");
        return 2;
    }
    server.database = argv[2];
    server.deadline_ms = argc > 3 ? strtol(argv[3], NULL, 10) : DEADLINE_MS;
    seed(server.database);
    server.signal_fd = block_signals();
    open_cache(&server);
    server.listen_fd = lines_listen(argv[1]);
    must(server.listen_fd >= 0, argv[1]);
    server.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(&server, EPOLL_CTL_ADD, server.listen_fd, EPOLLIN);
    watch(&server, EPOLL_CTL_ADD, server.signal_fd, EPOLLIN);
    watch(&server, EPOLL_CTL_ADD, server.inbox_fd, EPOLLIN);
    loop(&server);
    unlink(argv[1]);
    finish(&server);
    return 0;
}
