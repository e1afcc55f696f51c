/*
 * source.h -- the source of truth: the Unicode character database in an SQLite file, one query that
 * joins its tables, and a pool of connections for callers that have none of their own.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdint.h>

struct source {
    char dir[512]; /* temporary, removed by source_close() and at exit */
    char path[544];
    char version[16];      /* of the database: "15.0.0" */
    atomic_ullong queries; /* counted inside source_query(), whoever calls it */
};

/* Reads the text files in unicode_dir into a fresh database. Errors end the program. */
void source_open(struct source *source, const char *unicode_dir);
void source_close(struct source *source);

/* Queries since the last call of this. */
uint64_t source_take_queries(struct source *source);

struct source_char {
    uint32_t code;
    char name[96];
};

/* Every character, by code point; *chars is to be freed. This is not counted as a query. */
void source_chars(const struct source *source, struct source_char **chars, size_t *count);

/* ---- connections: one thread at a time each -------------------------------------------------- */

struct conn {
    struct source *source;
    sqlite3 *db;
    sqlite3_stmt *query;
    struct conn *next; /* of the free ones, in a pool */
};

/* What the query finds: some lines of text. */
struct record {
    size_t size;
    char text[1024];
};

int conn_open(struct conn *conn, struct source *source); /* an SQLite code */
void conn_close(struct conn *conn);

/* The query. key: "char:0041". SQLITE_ROW: found; SQLITE_DONE: no such character; else an error. */
int source_query(struct conn *conn, const void *key, size_t key_len, struct record *record);

/* ---- pool: callers wait for a free connection ------------------------------------------------ */

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t returned;
    struct conn *conns; /* size of them */
    struct conn *free;  /* guarded by lock: the list of those that nobody has */
    size_t size;
};

void pool_open(struct pool *pool, struct source *source, size_t size);
void pool_close(struct pool *pool);
struct conn *pool_take(struct pool *pool);
void pool_give(struct pool *pool, struct conn *conn);

#endif
