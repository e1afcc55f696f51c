/*
 * stampede.h -- many callers at once on one key that the cache does not have, with protection and
 * without: what the live page's button starts.
 *
 * On the loop's thread only; one at a time.
 */
#ifndef STAMPEDE_H
#define STAMPEDE_H

#include "service.h"

enum { STAMPEDE_MAX_CALLERS = 2000 };

struct stampede;

/* Called on the loop's thread, once, with the report, borrowed JSON:
 * {"id":7,"callers":500,"protected":{"queries":1,"hits":0,"joined":499,"failed":0,"p50_ms":...,
 * "p95_ms":...,"max_ms":...,"took_ms":...},"unprotected":{...}}
 * Latencies are of the callers who got an answer; that there is no such template is one. took_ms is
 * from the first question to the last answer. */
typedef void stampede_done(void *ctx, const char *report, size_t size);

struct stampede *stampede_new(struct service *service); /* NULL: no memory */
/* First the protected callers, then the others. done is called later, but where the service refuses
 * everybody at once: then before this returns. false: one is under way, or callers is not from 1 to
 * STAMPEDE_MAX_CALLERS; done is not called. */
bool stampede_begin(struct stampede *stampede, int64_t id, int callers, stampede_done *done,
                    void *ctx);
/* When none is under way, or the service is closed; NULL is ignored. */
void stampede_free(struct stampede *stampede);

#endif
