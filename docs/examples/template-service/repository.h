/*
 * repository.h -- where templates are kept: a file of SQLite, or PostgreSQL.
 *
 * It knows nothing of caches. A connection is one thread's. It is made when it is first needed, and
 * anew after it was lost, so that neither a thread nor the daemon depends on the database being
 * there at that moment. No call takes much longer than the query timeout, whatever the database
 * does; only repository_open() may take a minute, and resolving a host's name as long as that takes.
 */
#ifndef REPOSITORY_H
#define REPOSITORY_H

#include "template.h"

#include <stdbool.h>

struct repository; /* where, and how many queries so far: shared by all threads */
struct connection; /* one thread's */

struct repository_options {
    const char *address; /* postgresql://..., postgres://..., or the path of a file; copied */
    int64_t query_timeout_ms;
    int64_t
        delay_ms; /* added to every find, beyond the timeout, to play a database that is far away */
    int64_t templates; /* with ids 1 to that, where the table is new and empty */
};

enum db_outcome {
    DB_OK,
    DB_NOT_FOUND,
    DB_CREATED,   /* of a put: there was none of that id */
    DB_NOT_ASKED, /* it is out of reach: certainly nothing has changed */
    DB_FAILED,    /* of a put: it may have been written all the same */
    DB_TIMEOUT    /* likewise */
};

/* Connects, brings the schema up to date (several daemons may start at once), fills an empty table.
 * NULL: it has been logged why. */
struct repository *repository_open(const struct repository_options *options);
void repository_close(struct repository *repository); /* after its connections; NULL is ignored */

struct connection *connection_new(struct repository *repository); /* NULL: no memory */
void connection_free(struct connection *connection);              /* NULL is ignored */

/* The template of an id, into a struct of zeros. *query is the number of this query among all
 * finds: 1, 2 and so on; untouched where the database could not even be asked. */
enum db_outcome repository_find(struct connection *connection, int64_t id, struct template *t,
                                uint64_t *query);

/* Replaces or creates the template of t->id; t->version is what it has come to. Committed before
 * DB_OK or DB_CREATED is returned. */
enum db_outcome repository_put(struct connection *connection, struct template *t);

/* Another program would do this: every template changes. */
enum db_outcome repository_change_all(struct connection *connection);

/* Finds that were sent to the database so far; a second try on a new connection counts anew. */
uint64_t repository_queries(const struct repository *repository);

/* "SQLite, FILE" or "PostgreSQL, HOST": without a password, for a log. */
const char *repository_describe(const struct repository *repository);

#endif
