/*
 * repository.c -- which engine, connections that come back, and how many finds there were.
 *
 * A find that meets a lost connection is tried once more, on a new one. A change is not: it may have
 * been made. That is rare, since a connection is looked at before it is used.
 */
#include "engine.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"

enum { MIGRATION_MS = 60000, QUIET_MS = 1000, WHERE = 512 };

struct repository {
    const struct engine *engine;
    char *address;
    char description[WHERE];
    int64_t query_timeout_ms, delay_ms;
    atomic_uint_least64_t queries;
};

struct connection {
    struct repository *repository;
    struct session *session; /* NULL: none yet, or it was lost */
};

/* ---- for the engines ------------------------------------------------------------------------- */

/* Turns a text of several lines into one. */
static void join_lines(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '\n')
        text[--length] = '\0';
    for (; *text != '\0'; text++)
        if (*text == '\n' || *text == '\t')
            *text = ' ';
}

void engine_complain(const char *what, const char *why)
{
    static atomic_int_least64_t quiet_until_ms;
    char line[WHERE];
    int64_t time_ms = now_ms(), until_ms = atomic_load(&quiet_until_ms);
    if (time_ms < until_ms ||
        !atomic_compare_exchange_strong(&quiet_until_ms, &until_ms, time_ms + QUIET_MS))
        return;
    snprintf(line, sizeof line, "%s", why);
    join_lines(line);
    log_line(LOG_WARNING, "%s: %s", what, line);
}

/* ---- opening --------------------------------------------------------------------------------- */

static const struct engine *engine_of(const char *address)
{
    if (strncmp(address, "postgresql://", 13) == 0 || strncmp(address, "postgres://", 11) == 0)
        return &postgres_engine;
    return &sqlite_engine;
}

/* libpq's own message would repeat the address, and with it a password. */
static bool describe(struct repository *repository)
{
    const struct engine *engine = repository->engine;
    char where[WHERE - 32];
    if (!engine->describe(repository->address, where, sizeof where)) {
        log_line(LOG_ERR, "the address of the database is no address of %s", engine->name);
        return false;
    }
    snprintf(repository->description, WHERE, "%s, %s", engine->name, where);
    return true;
}

/* Filling a table may take longer than a query is given, and another daemon may be at it. */
static bool migrate(struct repository *repository, int64_t templates)
{
    const struct engine *engine = repository->engine;
    int64_t deadline_ms = now_ms() + MIGRATION_MS;
    struct session *session = engine->connect(repository->address, MIGRATION_MS, deadline_ms);
    if (session == NULL)
        return false;
    enum db_outcome outcome = engine->migrate(session, templates, deadline_ms);
    engine->disconnect(session);
    return outcome == DB_OK;
}

struct repository *repository_open(const struct repository_options *options)
{
    struct repository *repository = calloc(1, sizeof *repository);
    if (repository == NULL)
        return NULL;
    repository->engine = engine_of(options->address);
    repository->address = strdup(options->address);
    repository->query_timeout_ms = options->query_timeout_ms;
    repository->delay_ms = options->delay_ms;
    if (repository->address != NULL && describe(repository) &&
        migrate(repository, options->templates))
        return repository;
    repository_close(repository);
    return NULL;
}

void repository_close(struct repository *repository)
{
    if (repository == NULL)
        return;
    free(repository->address);
    free(repository);
}

uint64_t repository_queries(const struct repository *repository)
{
    return atomic_load(&repository->queries);
}

const char *repository_describe(const struct repository *repository)
{
    return repository->description;
}

/* ---- connections ----------------------------------------------------------------------------- */

struct connection *connection_new(struct repository *repository)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection != NULL)
        connection->repository = repository;
    return connection;
}

static void disconnect(struct connection *connection)
{
    connection->repository->engine->disconnect(connection->session);
    connection->session = NULL;
}

void connection_free(struct connection *connection)
{
    if (connection == NULL)
        return;
    disconnect(connection);
    free(connection);
}

static bool is_connected(struct connection *connection)
{
    return connection->session != NULL &&
           connection->repository->engine->is_usable(connection->session);
}

static bool connect_by(struct connection *connection, int64_t deadline_ms)
{
    const struct repository *repository = connection->repository;
    if (is_connected(connection))
        return true;
    disconnect(connection);
    connection->session =
        repository->engine->connect(repository->address, repository->query_timeout_ms, deadline_ms);
    return connection->session != NULL;
}

static int64_t deadline_of(const struct connection *connection)
{
    return now_ms() + connection->repository->query_timeout_ms;
}

/* ---- what is asked --------------------------------------------------------------------------- */

static void pause_ms(int64_t ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&time, &time) != 0)
        continue;
}

static enum db_outcome find_by(struct connection *connection, int64_t id, struct template *t,
                               uint64_t *query, int64_t deadline_ms)
{
    struct repository *repository = connection->repository;
    if (!connect_by(connection, deadline_ms))
        return DB_NOT_ASKED;
    *query = atomic_fetch_add(&repository->queries, 1) + 1;
    return repository->engine->find(connection->session, id, t, deadline_ms);
}

/* Half of the delay each way: what arrives is as old as it would be with a database far away. */
enum db_outcome repository_find(struct connection *connection, int64_t id, struct template *t,
                                uint64_t *query)
{
    int64_t delay_ms = connection->repository->delay_ms;
    pause_ms(delay_ms / 2);
    bool was_connected = is_connected(connection);
    int64_t deadline_ms = deadline_of(connection);
    enum db_outcome outcome = find_by(connection, id, t, query, deadline_ms);
    if (outcome == DB_FAILED && was_connected && !is_connected(connection))
        outcome = find_by(connection, id, t, query, deadline_ms);
    pause_ms(delay_ms - delay_ms / 2);
    return outcome;
}

enum db_outcome repository_put(struct connection *connection, struct template *t)
{
    int64_t deadline_ms = deadline_of(connection);
    if (!connect_by(connection, deadline_ms))
        return DB_NOT_ASKED;
    return connection->repository->engine->put(connection->session, t, deadline_ms);
}

enum db_outcome repository_change_all(struct connection *connection)
{
    int64_t deadline_ms = deadline_of(connection);
    if (!connect_by(connection, deadline_ms))
        return DB_NOT_ASKED;
    return connection->repository->engine->change_all(connection->session, deadline_ms);
}
