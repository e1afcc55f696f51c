/*
 * flight/solo -- a call that finds itself alone.
 *
 * Most calls lead a flight that nobody joins. Where nothing is stored that is all there is to do,
 * so such a call begins and ends, with one compare-and-swap each, a flight that its thread keeps:
 * without the lock, and without having it counted, woken and freed. Whoever comes meanwhile makes
 * it a flight like any other (flight/group): then it ends as any other does (flight/run), and the
 * thread makes itself a new one.
 *
 * For callers with neither token nor deadline, inside no other fetch, with a short key and no
 * argument of the library's, and for hosts without an allocator, a clock or a worker context of
 * the user's.
 */
#ifndef ASIDE_FLIGHT_SOLO_H
#define ASIDE_FLIGHT_SOLO_H

#include "flight/call.h"

#define SOLO_KEY 64 /* longest key */

/* The call is valid, and asks for nothing that needs more. */
static inline bool solo_fits(const aside_call *call)
{
    return call->struct_size == sizeof *call && call->fetch && !call->arg_size &&
           !call->arg_retain && !call->arg_release && !call->timeout_ms && !call->cancel &&
           (uint64_t)call->jitter.kind <= ASIDE_JITTER_NONE && call->jitter.amount >= 0 &&
           (call->ttl_ms >= 0 || call->ttl_ms == ASIDE_NO_STORE);
}

/* True: done, with this status and result. False: nothing has happened. For a request by a thread
 * that runs no fetch, with a host, the key's hash and group, and a call that fits. */
bool solo_call(struct request *r, const struct flight_owner *owner, aside_result *result,
               aside_status *status);

#endif
