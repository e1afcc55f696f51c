/* flight/solo -- see solo.h. */
#include "flight/solo.h"

#include "flight/run.h"

#include <stdlib.h>
#include <string.h>

/* ---- the flight that a thread keeps ---------------------------------------------------------- */

static struct flight *make(struct request *r, const struct flight_owner *owner)
{
    struct host *host = r->host;
    struct flight_options options = {owner, host, host->executor, host->home, &host->clock, 0, 0};
    struct flight *flight = r->self->solo;
    if (!flight)
        flight = malloc(sizeof *flight + SOLO_KEY);
    if (!flight)
        return NULL;
    flight_prepare(flight, &options, &r->key, r->call);
    atomic_init(&flight->offered, true);
    return flight;
}

/* It was made for this host, or for one at the same place with its parts at the same places. */
static bool is_for(const struct flight *flight, const struct host *host)
{
    return flight && flight->owned_by == host && flight->home == host->home &&
           flight->executor == host->executor && !flight_is_lost(flight);
}

/* All that differs from one call to the next, if nobody else has seen the flight. */
static void renew(struct flight *flight, const struct request *r)
{
    flight->group = r->group;
    flight->hash = r->key.hash;
    flight->fetch = r->call->fetch;
    flight->arg = r->call->arg;
    flight->stops = r->call->stop_when_abandoned != 0;
    flight->answer = (struct flight_answer){.status = ASIDE_PENDING, .ttl_ms = r->call->ttl_ms};
    store_relaxed(&flight->decided, 0);
    flight->key_len = r->key.len;
    if (r->key.len)
        memcpy(flight->bytes, r->key.bytes, r->key.len);
    flight_date(flight, host_now(r->host), r->host->max_flight_age_ms);
}

/* ---- a call ---------------------------------------------------------------------------------- */

/* False: it would not be the only one, or may not be at all. */
static bool begin(struct request *r, const struct flight_owner *owner)
{
    struct flight *flight = r->self->solo;
    struct flight *room = NULL;
    if (unlikely(!is_for(flight, r->host)))
        flight = r->self->solo = make(r, owner);
    if (!flight)
        return false;
    renew(flight, r);
    return compare_swap(&r->group->solo, &room, flight);
}

/* The answer is the callback's, nobody has come, and the flight is this thread's alone again. */
static bool end(const struct request *r, struct flight *flight, aside_status said)
{
    struct flight *solo = flight;
    struct flight_answer *answer = &flight->answer;
    if (unlikely(said == ASIDE_PENDING || load_acquire(&flight->handles) != 1 ||
                 load_relaxed(&flight->decided) || flight_is_lost(flight)))
        return false;
    bool has_value = answer->entry || answer->given;
    if (likely(said == ASIDE_OK && has_value && !answer->code))
        answer->status = said; /* there is nothing to drop */
    else
        flight_settle_inside(flight, r->self, said);
    return !flight_is_lost(flight) && compare_swap(&r->group->solo, &solo, NULL);
}

static aside_value *value_of(const struct flight_answer *answer)
{
    if (!answer->entry)
        return answer->given;
    entry_pin(answer->entry);
    return &answer->entry->head;
}

static aside_status take_answer(struct request *r, struct flight *flight, aside_result *result)
{
    const struct flight_answer *answer = &flight->answer;
    aside_status status = answer->status;
    struct thread_record *self = r->self;
    store_relaxed(&flight->decided, 1); /* for who keeps a handle that is none of his */
    self->solo = flight;
    host_count(r->host, self, COUNTER_fetches);
    host_count(r->host, self, counter_of(COUNTER_get_with_fetch_ok, status));
    if (unlikely(status != ASIDE_OK))
        flight_count_failure(flight);
    *result = (aside_result){.struct_size = sizeof *result,
                             .value = value_of(answer),
                             .outcome = ASIDE_OUTCOME_FETCHED,
                             .fetch_error = answer->code};
    self->inside--;
    if (unlikely(self->orphans))
        host_free_orphans(self);
    return status;
}

/* The callback has not decided alone, or somebody waits for what it has decided. */
static aside_status go_on(struct request *r, struct flight *flight, aside_status said,
                          aside_result *result)
{
    r->ops = NULL;
    r->operation = COUNTER_get_with_fetch_ok;
    r->deadline_ns = r->soft_ns = CLOCK_NEVER;
    r->counted = r->met = r->again = r->said = false;
    r->result = (aside_result){.struct_size = sizeof *result, .outcome = ASIDE_OUTCOME_FETCHED};
    bool decided = flight_conclude(flight, r->self, said, true);
    aside_status status = request_led_here(r, flight, decided);
    request_count(r, status);
    flight_unref(flight);
    *result = r->result;
    host_exit(&(struct host_call){.self = r->self, .cancel_state = r->cancel_state});
    return status;
}

bool solo_call(struct request *r, const struct flight_owner *owner, aside_result *result,
               aside_status *status)
{
    if (load_relaxed(&r->group->solo) || !begin(r, owner))
        return false;
    struct flight *flight = r->self->solo;
    r->self->solo = NULL;
    r->self->inside++;
    host_count(r->host, r->self, COUNTER_misses_led);
    aside_status said = flight_call(flight, r->self, NULL, HOST_CANCEL_UNTOUCHED, true);
    *status = likely(end(r, flight, said)) ? take_answer(r, flight, result)
                                           : go_on(r, flight, said, result);
    return true;
}
