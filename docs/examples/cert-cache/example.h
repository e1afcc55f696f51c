/*
 * example.h -- what the scenarios share, and the figures of the last line.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include "check.h"
#include "crew.h"
#include "world.h"

struct example {
    /* set by main before the first scenario */
    struct world world;
    struct certs certs;
    struct crew crew;
    char **orders; /* a message for each member of the crew, all naming one certificate */
    size_t messages;
    const char *messages_path; /* NULL: a temporary file */

    /* filled by the scenarios, printed at the end */
    unsigned long verdicts[VERDICTS]; /* of the stream */
    unsigned long downloads_cold, shared_cold;
    unsigned long downloads_expiry, shared_expiry;
    unsigned long downloads_failing;
    unsigned long downloads_unshared;
    unsigned long locks_on_hits;
};

/* in bursts.c */
void cold_scenario(struct example *example);   /* nothing is cached, everybody comes at once */
void expiry_scenario(struct example *example); /* what is cached is over, everybody comes */
/* in failures.c */
void failing_scenario(struct example *example); /* the server fails, and gets well */
void slow_scenario(struct example *example);    /* the server does not answer in time */
/* in a file each */
void unshared_scenario(struct example *example); /* a cold start of a cache that shares nothing */
void stream_scenario(struct example *example);   /* messages of all kinds, from a file */
void renewal_scenario(struct example *example);  /* a certificate ends within the day */
void hits_scenario(struct example *example);     /* what is cached takes no lock */

/* A problem in words: of download() or trust_read(). */
const char *problem_text(int problem);

#endif
