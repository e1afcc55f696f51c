/*
 * hits.c -- certificates that are cached: how many locks are taken to find one.
 *
 * Counted from entering certs_use() to its return, but for the time that the caller's own code
 * looks at the certificate: OpenSSL takes locks of its own there.
 */
#include <stdatomic.h>

#include "example.h"
#include "locks.h"
#include "report.h"

#define READERS 4
#define HITS_EACH 10000

struct hits {
    struct certs *certs;
    struct allowed_url url;
    atomic_ulong first_locks; /* of each thread's first call */
    atomic_ulong locks, found, looked_at;
};

static void look(const X509 *cert, void *ctx)
{
    struct hits *hits = ctx;
    locks_pause();
    if (X509_get0_pubkey(cert) != NULL)
        hits->looked_at++;
    locks_resume();
}

/* Returns the locks that were taken. */
static unsigned long hit(struct hits *hits)
{
    locks_watch();
    struct certs_answer answer = certs_use(hits->certs, &hits->url, look, hits);
    unsigned long locks = locks_counted();
    hits->found += answer.outcome == ASIDE_OUTCOME_HIT;
    return locks;
}

/* A thread that calls the library for the first time is entered in its list of threads, under a
 * lock, once. */
static void hit_many(void *ctx, size_t member)
{
    struct hits *hits = ctx;
    (void)member;
    hits->first_locks += hit(hits);
    for (int i = 0; i < HITS_EACH; i++)
        hits->locks += hit(hits);
}

/* One that misses must be seen to take locks: else the counting is blind, and 0 says nothing. */
static unsigned long locks_of_miss(struct hits *hits)
{
    aside_clear(hits->certs->cache);
    locks_watch();
    struct certs_answer answer = certs_use(hits->certs, &hits->url, look, hits);
    unsigned long locks = locks_counted();
    report_check(answer.outcome == ASIDE_OUTCOME_FETCHED, "a miss did not fetch");
    report_check(locks > 0, "a miss takes no lock: the counting is blind");
    return locks;
}

void hits_scenario(struct example *example)
{
    const unsigned long wanted = (unsigned long)READERS * HITS_EACH;
    struct hits hits = {.certs = &example->certs};
    struct crew readers;
    world_url(&example->world, PAGE("orders"), &hits.url);
    unsigned long locks = locks_of_miss(&hits);
    crew_open(&readers, READERS);
    crew_begin(&readers, hit_many, &hits);
    crew_finish(&readers);
    crew_close(&readers);
    unsigned long downloads = server_take_downloads(&example->world.server, PAGE("orders"));
    example->locks_on_hits = hits.locks;
    report_check(hits.locks == 0, "%lu locks on hits", example->locks_on_hits);
    report_check(hits.found == wanted + READERS, "%lu of %lu were hits", (unsigned long)hits.found,
                 wanted + READERS);
    report_check(hits.looked_at == hits.found + 1 && downloads == 1, "%lu looks, %lu downloads",
                 (unsigned long)hits.looked_at, downloads);
    report_line("hits",
                "%lu lookups, %d threads: locks=%lu; the miss before: locks=%lu, the first call of "
                "a thread: locks=%lu",
                wanted, READERS, example->locks_on_hits, locks, hits.first_locks / READERS);
}
