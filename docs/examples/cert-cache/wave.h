/*
 * wave.h -- a message for each thread of a crew, all checked at once, and what came of it.
 */
#ifndef WAVE_H
#define WAVE_H

#include "check.h"
#include "crew.h"
#include "server.h"

struct wave {
    unsigned long verdicts[VERDICTS];
    unsigned long hits, led, joined; /* callers, by how they got their answer */
    unsigned long shared;            /* callers whose download was shared */
    int problem;                     /* what the first caller was told ... */
    bool alike;                      /* ... and so was everybody else */
    int64_t last_ns;                 /* from the start to the last answer */
};

/*
 * lines: one for each member of the crew.
 * held   a server that must keep everybody waiting until every caller waits, so that the worst case
 *        is made, not hoped for; NULL: answers come when they come
 */
struct wave wave_run(struct crew *crew, struct certs *certs, char **lines, struct server *held);

#endif
