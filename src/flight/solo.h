/*
 * flight/solo -- a call that finds itself alone.
 *
 * Most calls lead a flight that nobody joins. Where nothing is stored that is all there is to
 * do, so such a call uses a flight that its thread keeps, and ends it in one hold of the lock,
 * without having it counted, woken and freed. Whether somebody has come is known under that
 * lock: then the flight goes the way of every other (flight/run), and the thread makes itself a
 * new one.
 *
 * For callers with neither token nor deadline, inside no other fetch, with a short key and no
 * argument of the library's, and for hosts without an allocator, a clock or a worker context of
 * the user's.
 */
#ifndef ASIDE_FLIGHT_SOLO_H
#define ASIDE_FLIGHT_SOLO_H

#include "flight/call.h"

/* True: done, with this status. False: nothing has happened. Needs the key's hash and group. */
bool solo_call(struct request *r, const struct flight_owner *owner, aside_status *status);

#endif
