/*
 * postgres.h -- one connection to PostgreSQL in a libuv loop, and queries that queue for it. Knows
 * nothing of caches.
 *
 * It is made when a query wants it, and again after it was lost. Everything on the loop's thread.
 */
#ifndef LOOPS_POSTGRES_H
#define LOOPS_POSTGRES_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

/* result is borrowed; NULL: the connection was lost, or could not be made. */
typedef void postgres_done(void *ctx, const PGresult *result);

struct postgres {
    uv_loop_t *loop;
    const char *conninfo, *sql; /* what every query says, with one parameter */
    PGconn *conn;               /* NULL: none */
    uv_poll_t *socket;          /* of conn; NULL: not watched */
    uv_timer_t timer;           /* of what is under way */
    bool ready;                 /* conn has been made */
    bool sent;                  /* the first query is under way */
    PGresult *result;           /* of the first query */
    struct query *first, **last;
    size_t queued, most_queued, queries, connections;
};

void postgres_open(struct postgres *postgres, uv_loop_t *loop, const char *conninfo,
                   const char *sql);

/* Queries that wait are done with NULL, before it returns. The loop has to turn once more. */
void postgres_close(struct postgres *postgres);

/* The parameter's bytes must stay until done is called: exactly once, also from inside this call.
 * False: there is no memory, done is not called. */
bool postgres_ask(struct postgres *postgres, const char *bytes, size_t size, postgres_done *done,
                  void *ctx);

#endif
