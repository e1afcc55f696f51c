/*
 * source.c -- the SQLite file, the query, the pool.
 *
 * The file lives in a directory of its own under $TMPDIR, removed at exit, also by a signal. It is
 * written by import.c before the first connection and only read afterwards.
 */
#include "source.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "import.h"
#include "load.h"
#include "report.h"

static const int ending_signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGTERM};
static struct source *volatile opened; /* what the exit and signal handlers remove */

/* ---- the file -------------------------------------------------------------------------------- */

/* Async-signal-safe. */
static void remove_files(void)
{
    if (opened == NULL)
        return;
    unlink(opened->path);
    rmdir(opened->dir);
    opened = NULL;
}

static void on_signal(int number)
{
    remove_files();
    signal(number, SIG_DFL);
    raise(number);
}

void source_open(struct source *source, const char *unicode_dir)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(source->dir, sizeof source->dir, "%s/aside-demo-XXXXXX",
             tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
    if (mkdtemp(source->dir) == NULL)
        die("cannot make a temporary directory %s", source->dir);
    snprintf(source->path, sizeof source->path, "%s/unicode.db", source->dir);
    atomic_init(&source->queries, 0);
    opened = source;
    atexit(remove_files);
    for (size_t i = 0; i < sizeof ending_signals / sizeof ending_signals[0]; i++)
        signal(ending_signals[i], on_signal);
    import_unicode(source->path, unicode_dir, source->version, sizeof source->version);
}

void source_close(struct source *source)
{
    if (opened == source)
        remove_files();
}

uint64_t source_take_queries(struct source *source)
{
    return atomic_exchange(&source->queries, 0);
}

/* ---- connections ----------------------------------------------------------------------------- */

/* Everything that is known about one character, from seven tables. */
static const char query_text[] =
    "SELECT c.name, g.name, b.name, s.name, a.version,"
    "       (SELECT group_concat(d.name, ' + ') FROM"
    "          (SELECT part FROM parts WHERE cp = c.cp ORDER BY place) p"
    "          JOIN chars d ON d.cp = p.part),"
    "       l.name,"
    "       (SELECT group_concat(n.alias, ', ') FROM aliases n WHERE n.cp = c.cp)"
    "  FROM chars c"
    "  JOIN categories g ON g.code = c.category"
    "  LEFT JOIN blocks b ON c.cp BETWEEN b.low AND b.high"
    "  LEFT JOIN scripts s ON c.cp BETWEEN s.low AND s.high"
    "  LEFT JOIN ages a ON c.cp BETWEEN a.low AND a.high"
    "  LEFT JOIN chars l ON l.cp = c.lowercase"
    " WHERE c.cp = ?1";

static const char *const query_columns[] = {"name",  "category", "block",        "script",
                                            "since", "made of",  "in lowercase", "also known as"};

int conn_open(struct conn *conn, struct source *source)
{
    conn->source = source;
    conn->query = NULL;
    int rc =
        sqlite3_open_v2(source->path, &conn->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(conn->db, query_text, -1, &conn->query, NULL);
    if (rc != SQLITE_OK)
        conn_close(conn);
    return rc;
}

void conn_close(struct conn *conn)
{
    sqlite3_finalize(conn->query);
    sqlite3_close(conn->db);
    conn->query = NULL;
    conn->db = NULL;
}

static void append(struct record *record, const char *label, const char *text)
{
    size_t room = sizeof record->text - record->size;
    int len = snprintf(record->text + record->size, room, "%-14s%s\n", label, text);
    record->size += len < 0 ? 0 : (size_t)len < room ? (size_t)len : room - 1;
}

static void write_record(sqlite3_stmt *query, uint32_t code, struct record *record)
{
    char label[16];
    snprintf(label, sizeof label, "U+%04X", (unsigned)code);
    record->size = 0;
    append(record, label, (const char *)sqlite3_column_text(query, 0));
    for (int i = 1; i < sqlite3_column_count(query); i++) {
        const char *text = (const char *)sqlite3_column_text(query, i);
        if (text != NULL)
            append(record, query_columns[i], text);
    }
}

static bool parse_key(const void *key, size_t key_len, uint32_t *code)
{
    static const char prefix[] = "char:";
    const size_t prefix_len = sizeof prefix - 1;
    char text[24], *end;
    if (key_len <= prefix_len || key_len >= sizeof text || memcmp(key, prefix, prefix_len) != 0)
        return false;
    memcpy(text, key, key_len);
    text[key_len] = '\0';
    *code = (uint32_t)strtoul(text + prefix_len, &end, 16);
    return *end == '\0';
}

int source_query(struct conn *conn, const void *key, size_t key_len, struct record *record)
{
    uint32_t code;
    if (!parse_key(key, key_len, &code))
        return SQLITE_MISUSE;
    atomic_fetch_add(&conn->source->queries, 1);
    sqlite3_bind_int64(conn->query, 1, code);
    int rc = sqlite3_step(conn->query);
    if (rc == SQLITE_ROW)
        write_record(conn->query, code, record);
    sqlite3_reset(conn->query);
    return rc;
}

void source_chars(const struct source *source, struct source_char **chars, size_t *count)
{
    sqlite3 *db;
    sqlite3_stmt *walk = NULL;
    size_t room = 1 << 16;
    struct source_char *list = load_alloc(room, sizeof *list);
    if (sqlite3_open_v2(source->path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "SELECT cp, name FROM chars ORDER BY cp", -1, &walk, NULL) !=
            SQLITE_OK)
        die("SQLite (package libsqlite3-0): %s", sqlite3_errmsg(db));
    for (*count = 0; *count < room && sqlite3_step(walk) == SQLITE_ROW; ++*count) {
        struct source_char *to = &list[*count];
        to->code = (uint32_t)sqlite3_column_int64(walk, 0);
        snprintf(to->name, sizeof to->name, "%s", (const char *)sqlite3_column_text(walk, 1));
    }
    sqlite3_finalize(walk);
    sqlite3_close(db);
    *chars = list;
}

/* ---- pool ------------------------------------------------------------------------------------ */

void pool_open(struct pool *pool, struct source *source, size_t size)
{
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->returned, NULL);
    pool->conns = load_alloc(size, sizeof *pool->conns);
    pool->free = NULL;
    pool->size = size;
    for (size_t i = 0; i < size; i++) {
        int rc = conn_open(&pool->conns[i], source);
        if (rc != SQLITE_OK)
            die("SQLite (package libsqlite3-0) cannot open %s: %s", source->path,
                sqlite3_errstr(rc));
        pool_give(pool, &pool->conns[i]);
    }
}

void pool_close(struct pool *pool)
{
    for (size_t i = 0; i < pool->size; i++)
        conn_close(&pool->conns[i]);
    free(pool->conns);
    pthread_cond_destroy(&pool->returned);
    pthread_mutex_destroy(&pool->lock);
}

struct conn *pool_take(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->free == NULL)
        pthread_cond_wait(&pool->returned, &pool->lock);
    struct conn *conn = pool->free;
    pool->free = conn->next;
    pthread_mutex_unlock(&pool->lock);
    return conn;
}

void pool_give(struct pool *pool, struct conn *conn)
{
    pthread_mutex_lock(&pool->lock);
    conn->next = pool->free;
    pool->free = conn;
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_signal(&pool->returned);
}
