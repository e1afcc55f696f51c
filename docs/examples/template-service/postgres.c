/*
 * postgres.c -- libpq without blocking, although each thread waits for its own queries.
 *
 * Its simpler functions wait for as long as the server takes, and a server that has stopped, or a
 * network that has gone, takes for ever. Here poll() waits, until a deadline. A session that has
 * passed one is closed: an answer may yet come, and it would be taken for that of the next query.
 * The server has a timeout of its own, a little shorter: one that is merely slow ends the query
 * itself, and the session is kept.
 *
 * PQconnectStart() waits for a host's name to be resolved. An address, in hostaddr, avoids that.
 */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { NUMBER = 24 };

enum query { FIND, PUT, CHANGE_ALL, QUERIES };

static const struct {
    const char *name, *text;
    int parameters;
} queries[QUERIES] = {
    [FIND] = {"find", "SELECT version, name, subject, body FROM templates WHERE id = $1", 1},
    [PUT] = {"put",
             "INSERT INTO templates (id, version, name, subject, body) VALUES ($1, 1, $2, $3, $4)"
             " ON CONFLICT (id) DO UPDATE SET version = templates.version + 1,"
             " name = excluded.name, subject = excluded.subject, body = excluded.body,"
             " updated_at = now() RETURNING version",
             4},
    [CHANGE_ALL] = {"change_all", "UPDATE templates SET version = version + 1, updated_at = now()",
                    0},
};

/* The first makes version 1 of the schema, and so on: never change one, add another. */
static const char *const migrations[] = {
    "CREATE TABLE templates (id bigint PRIMARY KEY, version bigint NOT NULL,"
    " name text NOT NULL, subject text NOT NULL, body text NOT NULL)",
    "ALTER TABLE templates ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now()",
};
enum { SCHEMA_VERSION = sizeof migrations / sizeof migrations[0] };

/* The lock is of nothing but this number; others wait until the transaction has ended. */
static const char begin_text[] =
    "BEGIN; SELECT pg_advisory_xact_lock(8387230210669507685);"
    "CREATE TABLE IF NOT EXISTS schema_version"
    " (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())";

static const char seed_text[] =
    "INSERT INTO templates (id, version, name, subject, body)"
    " SELECT i, 1, 'template ' || i, 'Your order {{order}}, by template ' || i,"
    " E'Dear {{name}},\\nyour order {{order}} is on its way.'"
    " FROM generate_series(1, $1::bigint) AS i WHERE NOT EXISTS (SELECT 1 FROM templates)";

struct session {
    PGconn *conn;
    bool prepared[QUERIES]; /* when first needed: the table may not be there yet */
    bool failed;            /* or late: not to be used again */
};

/* ---- waiting --------------------------------------------------------------------------------- */

static bool await_socket(PGconn *conn, short events, int64_t deadline_ms)
{
    struct pollfd socket = {PQsocket(conn), events, 0};
    for (;;) {
        int64_t left_ms = deadline_ms - now_ms();
        if (left_ms <= 0)
            return false;
        int ready = poll(&socket, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return ready > 0;
    }
}

/* Reads as well while there is something to send: the server may do nothing else than send. */
static bool exchange(PGconn *conn, int64_t deadline_ms)
{
    int unsent = PQflush(conn);
    if (unsent < 0)
        return false;
    short events = unsent > 0 ? POLLIN | POLLOUT : POLLIN;
    return await_socket(conn, events, deadline_ms) && PQconsumeInput(conn);
}

/* The last result, of which there are several where something failed, or with several statements.
 * NULL: it has not come. */
static PGresult *await_result(PGconn *conn, int64_t deadline_ms)
{
    PGresult *last = NULL, *result;
    for (;;) {
        while (!PQisBusy(conn)) {
            if ((result = PQgetResult(conn)) == NULL)
                return last;
            PQclear(last);
            last = result;
        }
        if (!exchange(conn, deadline_ms)) {
            PQclear(last);
            return NULL;
        }
    }
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* sent: what a PQsend function returned. NULL: failure() tells why. */
static PGresult *await_answer(struct session *session, int sent, int64_t deadline_ms)
{
    PGresult *result = sent ? await_result(session->conn, deadline_ms) : NULL;
    ExecStatusType status = PQresultStatus(result);
    session->failed = status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK;
    return result;
}

/* The server has ended it: it is late, but the session is as good as before. */
static bool was_ended(const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    return state != NULL && strcmp(state, "57014") == 0;
}

/* Takes the result. */
static enum db_outcome failure(struct session *session, const char *what, PGresult *result,
                               int64_t deadline_ms)
{
    const char *why = result != NULL ? PQresultErrorMessage(result) : PQerrorMessage(session->conn);
    bool ended = was_ended(result);
    bool late = result == NULL && now_ms() >= deadline_ms;
    engine_complain(what, late ? "no answer in time" : why);
    session->failed = !ended;
    PQclear(result);
    return ended || late ? DB_TIMEOUT : DB_FAILED;
}

static bool is_good(const struct session *session)
{
    return !session->failed;
}

/* Statements without parameters, of which there may be several. */
static PGresult *run(struct session *session, const char *sql, int64_t deadline_ms)
{
    return await_answer(session, PQsendQuery(session->conn, sql), deadline_ms);
}

static PGresult *prepare(struct session *session, enum query query, int64_t deadline_ms)
{
    int sent = PQsendPrepare(session->conn, queries[query].name, queries[query].text, 0, NULL);
    PGresult *result = await_answer(session, sent, deadline_ms);
    session->prepared[query] = is_good(session);
    return result;
}

static PGresult *ask(struct session *session, enum query query, const char *const *parameters,
                     int64_t deadline_ms)
{
    if (!session->prepared[query]) {
        PGresult *result = prepare(session, query, deadline_ms);
        if (!session->prepared[query])
            return result;
        PQclear(result);
    }
    int sent = PQsendQueryPrepared(session->conn, queries[query].name, queries[query].parameters,
                                   parameters, NULL, NULL, 0);
    return await_answer(session, sent, deadline_ms);
}

/* ---- connecting ------------------------------------------------------------------------------ */

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword != NULL; options++)
        if (strcmp(options->keyword, keyword) == 0)
            return options->val;
    return NULL;
}

static bool describe(const char *address, char *where, size_t size)
{
    PQconninfoOption *options = PQconninfoParse(address, NULL);
    if (options == NULL)
        return false;
    const char *host = value_of(options, "host");
    if (host == NULL)
        host = value_of(options, "hostaddr");
    if (host == NULL)
        host = getenv("PGHOST");
    snprintf(where, size, "%s", host != NULL ? host : "this host");
    PQconninfoFree(options);
    return true;
}

static void log_notice(void *ctx, const char *notice)
{
    (void)ctx;
    engine_complain("PostgreSQL", notice);
}

/* Sends its farewell only if that does not block: the connection is in non-blocking mode. */
static void disconnect(struct session *session)
{
    if (session == NULL)
        return;
    PQfinish(session->conn);
    free(session);
}

static bool finish_connecting(PGconn *conn, int64_t deadline_ms)
{
    PostgresPollingStatusType wanted = PGRES_POLLING_WRITING;
    if (PQstatus(conn) == CONNECTION_BAD)
        return false;
    while (wanted != PGRES_POLLING_OK) {
        short events = wanted == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        if (!await_socket(conn, events, deadline_ms))
            return false;
        wanted = PQconnectPoll(conn);
        if (wanted == PGRES_POLLING_FAILED)
            return false;
    }
    return PQsetnonblocking(conn, 1) == 0;
}

static PGresult *set_up(struct session *session, int64_t statement_ms, int64_t deadline_ms)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "SET statement_timeout = %" PRId64 "; SET client_encoding = 'UTF8';"
             "SET client_min_messages = warning",
             statement_ms - statement_ms / 10);
    return run(session, sql, deadline_ms);
}

static struct session *connect_to(const char *address, int64_t statement_ms, int64_t deadline_ms)
{
    static const char *const keywords[] = {"dbname", "fallback_application_name", NULL};
    const char *const values[] = {address, "template-service", NULL};
    struct session *session = calloc(1, sizeof *session);
    PGresult *result = NULL;
    if (session == NULL)
        return NULL;
    session->failed = true;
    session->conn = PQconnectStartParams(keywords, values, 1);
    PQsetNoticeProcessor(session->conn, log_notice, NULL);
    if (finish_connecting(session->conn, deadline_ms))
        result = set_up(session, statement_ms, deadline_ms);
    if (is_good(session)) {
        PQclear(result);
        return session;
    }
    failure(session, "PostgreSQL cannot be connected to", result, deadline_ms);
    disconnect(session);
    return NULL;
}

/* What the server has done meanwhile is only known once it is read: some last words, and the end. */
static bool is_usable(struct session *session)
{
    struct pollfd socket = {PQsocket(session->conn), POLLIN, 0};
    while (is_good(session) && poll(&socket, 1, 0) > 0)
        session->failed = !PQconsumeInput(session->conn) || PQisBusy(session->conn);
    return is_good(session) && PQstatus(session->conn) == CONNECTION_OK;
}

/* ---- queries --------------------------------------------------------------------------------- */

static int64_t number_in(const PGresult *result)
{
    return strtoll(PQgetvalue(result, 0, 0), NULL, 10);
}

static enum db_outcome read_row(const PGresult *result, struct template *t)
{
    if (PQntuples(result) == 0)
        return DB_NOT_FOUND;
    t->version = number_in(result);
    t->name = strdup(PQgetvalue(result, 0, 1));
    t->subject = strdup(PQgetvalue(result, 0, 2));
    t->body = strdup(PQgetvalue(result, 0, 3));
    if (t->name != NULL && t->subject != NULL && t->body != NULL)
        return DB_OK;
    template_clear(t);
    return DB_FAILED;
}

static enum db_outcome find(struct session *session, int64_t id, struct template *t,
                            int64_t deadline_ms)
{
    char number[NUMBER];
    snprintf(number, sizeof number, "%" PRId64, id);
    const char *const parameters[] = {number};
    PGresult *result = ask(session, FIND, parameters, deadline_ms);
    if (!is_good(session))
        return failure(session, "PostgreSQL: a template is not found", result, deadline_ms);
    t->id = id;
    enum db_outcome outcome = read_row(result, t);
    PQclear(result);
    return outcome;
}

static enum db_outcome put(struct session *session, struct template *t, int64_t deadline_ms)
{
    char number[NUMBER];
    snprintf(number, sizeof number, "%" PRId64, t->id);
    const char *const parameters[] = {number, t->name, t->subject, t->body};
    PGresult *result = ask(session, PUT, parameters, deadline_ms);
    if (!is_good(session))
        return failure(session, "PostgreSQL: a template is not written", result, deadline_ms);
    t->version = number_in(result);
    PQclear(result);
    return t->version == 1 ? DB_CREATED : DB_OK;
}

static enum db_outcome change_all(struct session *session, int64_t deadline_ms)
{
    PGresult *result = ask(session, CHANGE_ALL, NULL, deadline_ms);
    if (!is_good(session))
        return failure(session, "PostgreSQL: the templates are not changed", result, deadline_ms);
    PQclear(result);
    return DB_OK;
}

/* ---- the schema ------------------------------------------------------------------------------ */

static PGresult *run_migration(struct session *session, int version, int64_t deadline_ms)
{
    char sql[512];
    snprintf(sql, sizeof sql, "%s; INSERT INTO schema_version (version) VALUES (%d)",
             migrations[version - 1], version);
    return run(session, sql, deadline_ms);
}

static PGresult *seed(struct session *session, int64_t templates, int64_t deadline_ms)
{
    char number[NUMBER];
    snprintf(number, sizeof number, "%" PRId64, templates);
    const char *const parameters[] = {number};
    int sent = PQsendQueryParams(session->conn, seed_text, 1, NULL, parameters, NULL, NULL, 0);
    return await_answer(session, sent, deadline_ms);
}

/* Takes the result of the step before: nothing is done after one that has failed. */
static PGresult *then(struct session *session, PGresult *result, const char *sql,
                      int64_t deadline_ms)
{
    if (!is_good(session))
        return result;
    PQclear(result);
    return run(session, sql, deadline_ms);
}

static const char migrating[] = "PostgreSQL: the tables are not brought up to date";

/* Within the transaction. Closing the session rolls back what has failed. */
static PGresult *migrate_from(struct session *session, int version, int64_t templates,
                              int64_t deadline_ms)
{
    PGresult *result = NULL;
    for (int i = version + 1; i <= SCHEMA_VERSION && is_good(session); i++) {
        PQclear(result);
        result = run_migration(session, i, deadline_ms);
    }
    if (!is_good(session))
        return result;
    PQclear(result);
    result = seed(session, templates, deadline_ms);
    return then(session, result, "COMMIT", deadline_ms);
}

/* Under the lock; -1: failed, which was logged. */
static int read_version(struct session *session, int64_t deadline_ms)
{
    PGresult *result = run(session, begin_text, deadline_ms);
    result =
        then(session, result, "SELECT coalesce(max(version), 0) FROM schema_version", deadline_ms);
    if (!is_good(session)) {
        failure(session, migrating, result, deadline_ms);
        return -1;
    }
    int version = (int)number_in(result);
    PQclear(result);
    if (version <= SCHEMA_VERSION)
        return version;
    log_line(LOG_ERR, "the tables are of version %d, and %d is what is known here", version,
             (int)SCHEMA_VERSION);
    return -1;
}

static enum db_outcome migrate(struct session *session, int64_t templates, int64_t deadline_ms)
{
    int version = read_version(session, deadline_ms);
    if (version < 0)
        return DB_FAILED;
    PGresult *result = migrate_from(session, version, templates, deadline_ms);
    if (!is_good(session))
        return failure(session, migrating, result, deadline_ms);
    PQclear(result);
    if (version < SCHEMA_VERSION)
        log_line(LOG_INFO, "the tables are now of version %d, before of %d", (int)SCHEMA_VERSION,
                 version);
    return DB_OK;
}

const struct engine postgres_engine = {"PostgreSQL", describe, connect_to, disconnect, migrate,
                                       find,         put,      change_all, is_usable};
