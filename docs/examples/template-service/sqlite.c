/*
 * sqlite.c -- a file, in which readers do not wait for the writer.
 *
 * What keeps a statement waiting is another connection's lock, which the busy timeout bounds, or its
 * own work, which the progress handler ends.
 */
#include "engine.h"

#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { STEPS_BETWEEN_LOOKS = 1000, RETRY_MS = 5 };

enum query { FIND, PUT, CHANGE_ALL, QUERIES };

static const char *const texts[QUERIES] = {
    [FIND] = "SELECT version, name, subject, body FROM templates WHERE id = ?1",
    [PUT] = "INSERT INTO templates (id, version, name, subject, body, updated_at)"
            " VALUES (?1, 1, ?2, ?3, ?4, strftime('%s', 'now'))"
            " ON CONFLICT (id) DO UPDATE SET version = version + 1, name = excluded.name,"
            " subject = excluded.subject, body = excluded.body, updated_at = excluded.updated_at"
            " RETURNING version",
    [CHANGE_ALL] = "UPDATE templates SET version = version + 1, updated_at = strftime('%s', 'now')",
};

/* The first makes version 1 of the schema, and so on: never change one, add another. */
static const char *const migrations[] = {
    "CREATE TABLE templates (id INTEGER PRIMARY KEY, version INTEGER NOT NULL,"
    " name TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL)",
    "ALTER TABLE templates ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;"
    "UPDATE templates SET updated_at = strftime('%s', 'now')",
};
enum { SCHEMA_VERSION = sizeof migrations / sizeof migrations[0] };

static const char seed_text[] =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
    " INSERT INTO templates (id, version, name, subject, body, updated_at)"
    " SELECT i, 1, 'template ' || i, 'Your order {{order}}, by template ' || i,"
    " 'Dear {{name}},' || char(10) || 'your order {{order}} is on its way.',"
    " strftime('%s', 'now')"
    " FROM n WHERE ?1 > 0 AND NOT EXISTS (SELECT 1 FROM templates)";

struct session {
    sqlite3 *db;
    sqlite3_stmt *queries[QUERIES]; /* prepared when first needed: the table may not be there yet */
    int64_t deadline_ms;
    bool failed; /* other than by being late */
};

/* ---- time and errors ------------------------------------------------------------------------- */

static int is_late(void *arg)
{
    const struct session *session = arg;
    return now_ms() >= session->deadline_ms;
}

static void set_deadline(struct session *session, int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms - now_ms();
    session->deadline_ms = deadline_ms;
    sqlite3_busy_timeout(session->db, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
}

static enum db_outcome failure(struct session *session, const char *what)
{
    int code = sqlite3_errcode(session->db) & 0xff;
    bool late = code == SQLITE_BUSY || code == SQLITE_INTERRUPT;
    engine_complain(what, sqlite3_errmsg(session->db));
    session->failed = session->failed || !late;
    return late ? DB_TIMEOUT : DB_FAILED;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static bool describe(const char *address, char *where, size_t size)
{
    snprintf(where, size, "%s", address);
    return address[0] != '\0' && address[0] != ':'; /* which is a file that nobody shares */
}

static void disconnect(struct session *session)
{
    if (session == NULL)
        return;
    for (int i = 0; i < QUERIES; i++)
        sqlite3_finalize(session->queries[i]);
    sqlite3_close(session->db);
    free(session);
}

/* Every call has a deadline of its own. */
static struct session *open_file(const char *address, int64_t statement_ms, int64_t deadline_ms)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    struct session *session = calloc(1, sizeof *session);
    (void)statement_ms;
    (void)deadline_ms;
    if (session == NULL)
        return NULL;
    if (sqlite3_open_v2(address, &session->db, flags, NULL) != SQLITE_OK) {
        engine_complain("SQLite cannot open the file", sqlite3_errmsg(session->db));
        disconnect(session);
        return NULL;
    }
    sqlite3_progress_handler(session->db, STEPS_BETWEEN_LOOKS, is_late, session);
    return session;
}

static bool is_usable(struct session *session)
{
    return !session->failed;
}

/* ---- queries --------------------------------------------------------------------------------- */

/* NULL: failure() tells why. */
static sqlite3_stmt *begin(struct session *session, enum query query, int64_t deadline_ms)
{
    sqlite3_stmt **statement = &session->queries[query];
    set_deadline(session, deadline_ms);
    if (*statement == NULL)
        sqlite3_prepare_v3(session->db, texts[query], -1, SQLITE_PREPARE_PERSISTENT, statement,
                           NULL);
    return *statement;
}

/* The texts that are bound are borrowed. */
static void end(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

static char *copy_text(sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    return text == NULL ? NULL : strdup(text);
}

static enum db_outcome read_row(struct session *session, sqlite3_stmt *row, struct template *t)
{
    t->version = sqlite3_column_int64(row, 0);
    t->name = copy_text(row, 1);
    t->subject = copy_text(row, 2);
    t->body = copy_text(row, 3);
    if (t->name != NULL && t->subject != NULL && t->body != NULL)
        return DB_OK;
    template_clear(t);
    return failure(session, "SQLite: a template cannot be read");
}

static enum db_outcome find(struct session *session, int64_t id, struct template *t,
                            int64_t deadline_ms)
{
    sqlite3_stmt *statement = begin(session, FIND, deadline_ms);
    if (statement == NULL)
        return failure(session, "SQLite: a template is not found");
    sqlite3_bind_int64(statement, 1, id);
    t->id = id;
    enum db_outcome outcome;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        outcome = read_row(session, statement, t);
    else
        outcome =
            rc == SQLITE_DONE ? DB_NOT_FOUND : failure(session, "SQLite: a template is not found");
    end(statement);
    return outcome;
}

/* It is committed by the step after the row. */
static enum db_outcome put(struct session *session, struct template *t, int64_t deadline_ms)
{
    sqlite3_stmt *statement = begin(session, PUT, deadline_ms);
    if (statement == NULL)
        return failure(session, "SQLite: a template is not written");
    sqlite3_bind_int64(statement, 1, t->id);
    sqlite3_bind_text(statement, 2, t->name, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 3, t->subject, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 4, t->body, -1, SQLITE_STATIC);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        t->version = sqlite3_column_int64(statement, 0);
        rc = sqlite3_step(statement);
    }
    enum db_outcome outcome = t->version == 1 ? DB_CREATED : DB_OK;
    if (rc != SQLITE_DONE)
        outcome = failure(session, "SQLite: a template is not written");
    end(statement);
    return outcome;
}

static enum db_outcome change_all(struct session *session, int64_t deadline_ms)
{
    sqlite3_stmt *statement = begin(session, CHANGE_ALL, deadline_ms);
    if (statement == NULL || sqlite3_step(statement) != SQLITE_DONE) {
        enum db_outcome outcome = failure(session, "SQLite: the templates are not changed");
        sqlite3_reset(statement);
        return outcome;
    }
    sqlite3_reset(statement);
    return DB_OK;
}

/* ---- the schema ------------------------------------------------------------------------------ */

static bool run(struct session *session, const char *sql)
{
    return sqlite3_exec(session->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* Where two do this at once, one of them is told at once that the file is busy. */
static bool use_wal(struct session *session)
{
    while (!run(session, "PRAGMA journal_mode = WAL")) {
        if ((sqlite3_errcode(session->db) & 0xff) != SQLITE_BUSY || is_late(session))
            return false;
        sqlite3_sleep(RETRY_MS);
    }
    return true;
}

static bool read_version(struct session *session, int *version)
{
    sqlite3_stmt *query = NULL;
    sqlite3_prepare_v2(session->db, "PRAGMA user_version", -1, &query, NULL);
    bool read = query != NULL && sqlite3_step(query) == SQLITE_ROW;
    if (read)
        *version = sqlite3_column_int(query, 0);
    sqlite3_finalize(query);
    return read;
}

static bool write_version(struct session *session)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", (int)SCHEMA_VERSION);
    return run(session, sql);
}

static bool seed(struct session *session, int64_t templates)
{
    sqlite3_stmt *query = NULL;
    if (sqlite3_prepare_v2(session->db, seed_text, -1, &query, NULL) != SQLITE_OK)
        return false;
    sqlite3_bind_int64(query, 1, templates);
    bool seeded = sqlite3_step(query) == SQLITE_DONE;
    sqlite3_finalize(query);
    return seeded;
}

/* Closing the session rolls back what has failed. */
static enum db_outcome migrate(struct session *session, int64_t templates, int64_t deadline_ms)
{
    static const char what[] = "SQLite: the tables are not brought up to date";
    int version;
    set_deadline(session, deadline_ms);
    if (!use_wal(session) || !run(session, "BEGIN IMMEDIATE") || !read_version(session, &version))
        return failure(session, what);
    if (version > SCHEMA_VERSION) {
        log_line(LOG_ERR, "the tables are of version %d, and %d is what is known here", version,
                 (int)SCHEMA_VERSION);
        return DB_FAILED;
    }
    for (int i = version; i < SCHEMA_VERSION; i++)
        if (!run(session, migrations[i]))
            return failure(session, what);
    if (!write_version(session) || !seed(session, templates) || !run(session, "COMMIT"))
        return failure(session, what);
    if (version < SCHEMA_VERSION)
        log_line(LOG_INFO, "the tables are now of version %d, before of %d", (int)SCHEMA_VERSION,
                 version);
    return DB_OK;
}

const struct engine sqlite_engine = {"SQLite", describe, open_file,  disconnect, migrate,
                                     find,     put,      change_all, is_usable};
