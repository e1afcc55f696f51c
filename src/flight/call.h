/*
 * flight/call -- one caller's way with a flight: to lead it or to join it, and to wait or to leave.
 *
 *   request_may_start -> under the group's lock, by whoever owns it: join or lead
 *     lead:  on this thread, or by a worker or the user's executor; then wait as who joined does
 *     wait:  until settled; or leave, by token or deadline; or supersede, past the flight's age
 *
 * What it means to complete a flight is its owner's affair (flight_owner.publish).
 */
#ifndef ASIDE_FLIGHT_CALL_H
#define ASIDE_FLIGHT_CALL_H

#include "flight/host.h"

#include <aside/aside.h>

struct request {
    struct host *host;
    struct thread_record *self; /* NULL: this caller cannot lead or join */
    const aside_call *call;
    struct flight_key key;
    struct group *group; /* the key's */
    int64_t deadline_ns; /* this caller's own, precise; CLOCK_NEVER */
    int cancel_state;    /* of the thread, for callbacks; HOST_CANCEL_UNTOUCHED: as it is */
    bool counted;        /* by its outcome */
    aside_result result;
};

/* ASIDE_OK: the caller may lead or join; else he is refused with this status, and counted. Fills
 * deadline_ns. */
aside_status request_may_start(struct request *r);
/* A new flight for the caller, to be led by him or discarded; now_ns dates it. */
struct flight *request_flight(struct request *r, const struct flight_owner *owner, int64_t now_ns);
aside_status request_refuse(struct request *r, aside_status status);

/* Counts the call by its outcome, once: as long as the caller has a flight, the host is there. */
void request_count(struct request *r, aside_status status);

/* Whether the caller runs a fetch that he leads himself. */
bool request_leads_here(const struct request *r);
/* What such a caller does when the callback has returned; decided: by that. */
aside_status request_led_here(struct request *r, struct flight *flight, bool decided);

/* After the group's lock is released. All take the caller's reference to the flight. */
aside_status request_lead(struct request *r, struct flight *flight);
aside_status request_join(struct request *r, struct flight *flight);
/* group_join() came upon a flight that was too old. */
void request_superseded(struct request *r, struct flight *old);

#endif
