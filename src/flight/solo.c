/* flight/solo -- see solo.h. */
#include "flight/solo.h"

#include "flight/run.h"

#include <stdlib.h>

#define SOLO_KEY 64 /* longest key */

static bool may_be_solo(const struct request *r)
{
    const aside_call *call = r->call;
    return likely(r->self && !r->self->fetches && r->key.len <= SOLO_KEY && !call->cancel &&
                  !call->timeout_ms && !call->arg_size && !call->arg_retain);
}

/* The thread's own flight, which is taken from it meanwhile. */
static struct flight *take(struct request *r, const struct flight_owner *owner)
{
    struct host *host = r->host;
    struct flight *flight = r->self->solo;
    struct flight_options options = {
        owner,        host,           host->executor,         host->home,
        &host->clock, host_now(host), host->max_flight_age_ms};
    if (!flight)
        flight = malloc(sizeof *flight + SOLO_KEY);
    if (!flight)
        return NULL;
    r->self->solo = NULL;
    flight_prepare(flight, &options, &r->key, r->call);
    atomic_init(&flight->offered, true);
    return flight;
}

static void keep(struct thread_record *self, struct flight *flight)
{
    flight->magic = 0;
    self->solo = flight;
}

/* False: it would not be the only one, or may not be at all. */
static bool begin(struct request *r, struct flight *flight)
{
    struct group *group = r->group;
    lock_take(group->lock);
    bool alone = !group->closed && host_is_open(r->host) && group_is_empty(group) &&
                 group_begin(group, flight);
    if (alone) {
        (void)group_lead(group, flight);
        host_hold(r->host);
    }
    lock_release(group->lock);
    return alone;
}

/* True: nobody has come, and the flight is this thread's alone again. */
static bool end(struct request *r, struct flight *flight)
{
    struct group *group = r->group;
    lock_take(group->lock);
    bool alone = !flight_is_settled(flight) && load_acquire(&flight->refs) == 2;
    if (alone) {
        flight->overtaken = !group_may_store(flight);
        flight_count(flight);
        group_end(group, flight);
        (void)group_settle(flight, flight->answer.status);
    }
    lock_release(group->lock);
    return alone;
}

static aside_status take_answer(struct request *r, struct flight *flight)
{
    struct flight_answer *answer = &flight->answer;
    aside_status status = answer->status;
    r->result.fetch_error = answer->code;
    r->result.fenced = flight->overtaken;
    if (answer->entry)
        entry_pin(answer->entry);
    r->result.value = answer->entry ? &answer->entry->head : answer->given;
    request_count(r, status);
    keep(r->self, flight);
    if (!host_is_open(r->host))
        park_wake_all(&r->host->ends);
    host_release(r->host, fork_generation());
    return status;
}

/* The callback has not decided alone, or somebody waits for what it has decided. */
static aside_status go_on(struct request *r, struct flight *flight, aside_status said)
{
    bool decided = flight_conclude(flight, r->self, said, true);
    aside_status status = request_led_here(r, flight, decided);
    request_count(r, status);
    flight_unref(flight);
    return status;
}

/* Destructors that run then are inside the flight, as its fetch was. */
static void settle_answer(struct thread_record *self, struct flight *flight, aside_status said)
{
    struct thread_fetch frame;
    run_push(self, &frame, flight, FRAME_HOOK, NULL);
    flight_settle_answer(flight, said);
    run_pop(self, &frame);
}

bool solo_call(struct request *r, const struct flight_owner *owner, aside_status *status)
{
    struct flight *flight = may_be_solo(r) ? take(r, owner) : NULL;
    if (!flight)
        return false;
    if (!begin(r, flight)) {
        keep(r->self, flight);
        return false;
    }
    host_count(r->host, r->self, COUNTER_misses_led);
    r->deadline_ns = CLOCK_NEVER;
    r->result.outcome = ASIDE_OUTCOME_FETCHED;
    aside_status said = flight_call(flight, r->self, NULL, r->cancel_state, true);
    bool decides = said != ASIDE_PENDING && load_acquire(&flight->handles) == 1 &&
                   !load_relaxed(&flight->decided) && !flight_is_lost(flight);
    if (decides)
        settle_answer(r->self, flight, said);
    bool ended = decides && !flight_is_lost(flight) && end(r, flight);
    *status = ended ? take_answer(r, flight) : go_on(r, flight, said);
    return true;
}
