/*
 * engine.h -- what repository.c asks of a database: implemented by sqlite.c and postgres.c.
 *
 * Deadlines are times of now_ms() (clock.h). What has not come to an end by then is given up; of a
 * change it is then unknown whether it was made.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include "clock.h"
#include "repository.h"

/* Opaque to repository.c: a sqlite3 or PGconn with what goes with it. */
struct session;

struct engine {
    const char *name;
    /* Where that is, without a password. false: it is no address. */
    bool (*describe)(const char *address, char *where, size_t size);
    /* The database gives up by itself what takes longer than statement_ms. NULL: it was logged why. */
    struct session *(*connect)(const char *address, int64_t statement_ms, int64_t deadline_ms);
    void (*disconnect)(struct session *session); /* never waits; NULL is ignored */
    /* Runs all migrations that are missing in one transaction, and fills an empty table. */
    enum db_outcome (*migrate)(struct session *session, int64_t templates, int64_t deadline_ms);
    enum db_outcome (*find)(struct session *session, int64_t id, struct template *t,
                            int64_t deadline_ms);
    enum db_outcome (*put)(struct session *session, struct template *t, int64_t deadline_ms);
    enum db_outcome (*change_all)(struct session *session, int64_t deadline_ms);
    /* Is it still connected, and may it be asked something? Does not wait. */
    bool (*is_usable)(struct session *session);
};

extern const struct engine sqlite_engine;
extern const struct engine postgres_engine;

/* For both, from repository.c: logs what failed and why, which may be of several lines; at most one
 * such failure a second, since while a database is away every request may come by here. */
void engine_complain(const char *what, const char *why);

#endif
