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
#include "flight/waiter.h"

#include <aside/aside.h>

struct request;

/* What a cache does for its requests; a stand-alone group has nothing that is stale. */
struct request_ops {
    /* Fills the result with a value that may answer in the place of this status, for this cause; false
     * if there is none. No lock is held. */
    bool (*take_stale)(struct request *r, aside_stale_cause cause, aside_status status);
};

struct request {
    struct host *host;
    const struct request_ops *ops; /* NULL: a group's */
    unsigned operation;            /* the counter of its success */
    struct thread_record *self;    /* NULL: this caller cannot lead or join */
    const aside_call *call;
    struct flight_key key;
    struct group *group; /* the key's */
    int64_t deadline_ns; /* this caller's own, precise; CLOCK_NEVER */
    int64_t soft_ns;     /* when he takes a stale value if there is one, likewise */
    uint64_t read_at;    /* the tags' count when he came */
    int cancel_state;    /* of the thread, for callbacks; HOST_CANCEL_UNTOUCHED: as it is */
    bool counted;        /* by its outcome */
    bool met;            /* counted as one who led or joined */
    bool again;          /* what he has waited for is older than he may see: he looks once more */
    bool said;           /* the status is what the fetch said */
    bool ran;            /* and it has run: what was refused before that is no failure of it */
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

/* What the caller gets in the place of that status: a stale value, if there is one and it may be. */
aside_status request_substitute(struct request *r, aside_status status);
/* Of a flight that nobody waits for (flight_go_unattended): whether this thread runs its fetch. */
bool request_refreshes_here(const struct request *r);
/* Leads such a flight: ASIDE_OK if its fetch has run, or will. */
aside_status request_refresh(struct request *r, struct flight *flight);

/* After the group's lock is released. All take the caller's reference to the flight. */
aside_status request_lead(struct request *r, struct flight *flight);
aside_status request_join(struct request *r, struct flight *flight);
/* Before its fetch can run: retains the argument of a flight that is led. False: the process has forked
 * meanwhile. */
bool request_keep_argument(struct request *r, struct flight *flight);
/* The same for callers whose thread does not wait; the reference stays. Leads: by others, or else the
 * caller calls request_run_here() later on. A status other than ASIDE_OK: it is refused, and settled. */
aside_status request_lead_async(struct request *r, struct flight *flight, bool here);
/* Of a request host, thread and its cancel state count. Then the fetch may have ended, or not. */
void request_run_here(const struct request *r, struct flight *flight);
void request_joined(struct request *r);
/* Whether something has ended such a wait; and when to look again if nothing happens before that. */
bool request_has_ended(struct request *r, struct flight *flight, enum waiter_end *end);
int64_t request_alarm(const struct request *r, const struct flight *flight);
/* It is time to look by now. A clock of the user's has no alarm: who moved it before the caller could be
 * told has told nobody. */
bool request_is_late(const struct request *r, const struct flight *flight);
/* What has come of it; takes the reference. */
aside_status request_arrive(struct request *r, struct flight *flight, enum waiter_end end);
/* group_join() came upon a flight that was too old. */
void request_superseded(struct request *r, struct flight *old);

#endif
