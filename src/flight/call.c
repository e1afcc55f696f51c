/* flight/call -- see call.h. */
#include "flight/call.h"

#include "base/clock.h"
#include "flight/cancel.h"
#include "flight/graph.h"
#include "flight/run.h"

/* ---- results --------------------------------------------------------------------------------- */

/* The last who needs the flight need not count the value up, and down again with the flight. */
static aside_value *take_value(struct flight *flight)
{
    if (load_acquire(&flight->refs) != 1)
        return aside_value_ref(flight->value);
    aside_value *value = flight->value;
    flight->value = NULL;
    return value;
}

/* From here on the call waits, or runs code of the user's that is not the fetch. */
static void disable_cancellation(struct request *r)
{
    if (r->cancel_state == HOST_CANCEL_UNTOUCHED)
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &r->cancel_state);
}

/* What the fetch said, once it has published. */
static aside_status take_answer(struct request *r, struct flight *flight)
{
    if (unlikely(flight->outdated) && r->read_at > flight->read_at) {
        r->again = true;
        return ASIDE_MISS;
    }
    r->said = true;
    r->ran = flight->ran;
    r->result.shared = flight->shared;
    r->result.fenced = flight->overtaken;
    r->result.fetch_error = flight->answer.code;
    if (flight->shared)
        host_count(r->host, r->self, COUNTER_shared);
    if (flight->answer.status != ASIDE_OK)
        return flight->answer.status;
    r->result.value = take_value(flight);
    if (flight->published_ns) {
        int64_t now_ns = host_now(r->host);
        r->result.age_ms = (now_ns - flight->published_ns) / 1000000;
        r->result.ttl_left_ms = flight->stored ? clock_left_ms(flight->fresh_until_ns, now_ns) : 0;
    }
    return ASIDE_OK;
}

/* A flight that was superseded or closed has a verdict without an answer. */
static aside_status take_verdict(struct request *r, struct flight *flight)
{
    return flight->answered ? take_answer(r, flight) : flight->verdict;
}

void request_count(struct request *r, aside_status status)
{
    if (!r->counted)
        host_count(r->host, r->self, counter_of(r->operation, status));
    r->counted = true;
}

/* A lookup is counted once, however often it has to look. */
static void count_meeting(struct request *r, enum counter counter)
{
    if (!r->met)
        host_count(r->host, r->self, counter);
    r->met = true;
}

aside_status request_refuse(struct request *r, aside_status status)
{
    count_meeting(r, COUNTER_refused);
    return status;
}

static bool says_of_source(const struct request *r, aside_status status)
{
    return status < 0 && (r->said || status == ASIDE_E_FETCH_TIMEOUT || status == ASIDE_E_BUSY ||
                          status == ASIDE_E_NOMEM);
}

aside_status request_substitute(struct request *r, aside_status status)
{
    bool bound = status == ASIDE_E_BUSY && !r->ran;
    aside_stale_cause cause = bound ? ASIDE_STALE_BUSY : ASIDE_STALE_ERROR;
    if (!r->ops || !says_of_source(r, status) || !r->ops->take_stale(r, cause, status))
        return status;
    host_count(r->host, r->self, COUNTER_stale_errors);
    return ASIDE_OK;
}

/* What has come of leading or joining, unless the caller has to look again. */
static aside_status conclude(struct request *r, struct flight *flight, aside_status status)
{
    if (!r->again) {
        status = request_substitute(r, status);
        request_count(r, status);
    }
    flight_unref(flight);
    return status;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* After the lock is released. Nobody needs what is still in the queue. */
static void after_superseding(struct request *r, struct flight *flight)
{
    flight_wake(flight);
    host_count(r->host, r->self, COUNTER_superseded);
    if (executor_take(r->host->executor, &flight->job))
        flight_refuse(flight, ASIDE_E_FETCH_TIMEOUT, 0);
}

void request_superseded(struct request *r, struct flight *old)
{
    disable_cancellation(r);
    after_superseding(r, old);
    flight_unref(old);
}

static void supersede(struct request *r, struct flight *flight)
{
    group_lock(r->group);
    bool superseded = group_supersede(flight);
    group_unlock(r->group);
    if (superseded)
        after_superseding(r, flight);
}

/* True: this caller has left; false: the flight was settled by then, and its verdict is his. */
static bool leave_as(struct request *r, struct flight *flight, bool is_leader)
{
    group_lock(r->group);
    bool left = group_leave(flight, is_leader);
    group_unlock(r->group);
    return left;
}

static bool leads(const aside_result *result)
{
    return result->outcome == ASIDE_OUTCOME_FETCHED;
}

static bool leave(struct request *r, struct flight *flight)
{
    return leave_as(r, flight, leads(&r->result));
}

static bool leave_counted(struct request *r, struct flight *flight, enum counter counter)
{
    bool left = leave(r, flight);
    if (left)
        host_count(r->host, r->self, counter);
    return left;
}

/* The innermost fetch of this host that this thread is inside of: its worker's context can be
 * lent. */
static const struct thread_fetch *own_fetch(const struct request *r)
{
    const struct thread_fetch *f = r->self->fetches;
    while (f && (f->owner != r->host || f->kind != FRAME_FETCH))
        f = f->outer;
    return f;
}

struct helping {
    struct request *request;
    uint32_t generation;
};

/* The fetch has ended the thread that came to wait for it, before that was counted. */
static void helper_unwinds(void *its_helping)
{
    const struct helping *helping = its_helping;
    struct request *r = helping->request;
    count_meeting(r, leads(&r->result) ? COUNTER_misses_led : COUNTER_misses_joined);
    host_release(r->host, helping->generation);
}

static void run_for_others(struct request *r, struct flight *flight, void *worker)
{
    struct helping helping = {r, fork_generation()};
    host_hold(r->host); /* the flight's hold goes first when the thread ends */
    pthread_cleanup_push(helper_unwinds, &helping);
    (void)flight_run(flight, r->self, worker, r->cancel_state, true);
    pthread_cleanup_pop(0);
    host_release(r->host, helping.generation);
}

/* A thread inside a fetch must not wait for a worker that may be waiting for it. True: it has run
 * the fetch itself. */
static bool help(struct request *r, struct flight *flight)
{
    struct executor *executor = r->host->executor;
    const struct thread_fetch *fetch = own_fetch(r);
    if (!r->self->fetches || (!fetch && executor_binds_fetches(executor)) ||
        !executor_take_stuck(executor, &flight->job))
        return false;
    flight->began_ns = clock_precise(&r->host->clock);
    if (flight_is_settled(flight))
        flight_refuse(flight, flight->verdict, 0);
    else
        run_for_others(r, flight, fetch ? fetch->worker : NULL);
    return true;
}

static enum waiter_end sleep_on(struct request *r, struct flight *flight, const _Atomic bool *done,
                                struct waiter_until *until)
{
    struct waiter waiter;
    disable_cancellation(r);
    uint32_t number = (uint32_t)fetch_add_relaxed(&r->host->waiters_now, 1);
    waiter_init(&waiter, &flight->park, number);
    enum waiter_end end = cancel_wait(r->call->cancel, &waiter, done, until);
    waiter_fini(&waiter);
    fetch_sub_relaxed(&r->host->waiters_now, 1);
    return end;
}

static int64_t earlier(int64_t a_ns, int64_t b_ns)
{
    return a_ns < b_ns ? a_ns : b_ns;
}

/* The caller's own deadline or the flight's, whichever is earlier. */
static int64_t deadline_of(const struct request *r, const struct flight *flight)
{
    return earlier(r->deadline_ns, flight->deadline_ns);
}

static struct waiter_until until_of(const struct request *r, const struct flight *flight)
{
    return (struct waiter_until){.clock = &r->host->clock, .deadline_ns = deadline_of(r, flight)};
}

/* A thread inside a fetch that joins a flight in the instant before its leader has handed it over
 * could not help: the worker that it may be is the one that will be missing. So it waits for that
 * first. */
static enum waiter_end wait_for_offer(struct request *r, struct flight *flight)
{
    struct waiter_until until = until_of(r, flight);
    if (!r->self->fetches || load_acquire(&flight->offered))
        return WAITER_SETTLED;
    return sleep_on(r, flight, &flight->offered, &until);
}

static aside_status leave_late(struct request *r, struct flight *flight)
{
    if (leave_counted(r, flight, COUNTER_timeouts))
        return ASIDE_E_TIMEOUT;
    return take_verdict(r, flight);
}

static aside_status end_waiting(struct request *r, struct flight *flight, enum waiter_end end)
{
    bool own = r->deadline_ns <= flight->deadline_ns;
    if (end == WAITER_LEAVES_CANCELLED && leave_counted(r, flight, COUNTER_cancelled))
        return ASIDE_E_CANCELLED;
    if (end == WAITER_LEAVES_WITH_TOKEN || (end == WAITER_LEAVES_LATE && own))
        return leave_late(r, flight);
    if (end == WAITER_LEAVES_LATE)
        supersede(r, flight);
    return take_verdict(r, flight);
}

/* The soft deadline is past: true if a stale value is the caller's now, and he has left. A flight that
 * is done by then wins. */
static bool settles_for_stale(struct request *r, struct flight *flight)
{
    aside_result before = r->result;
    r->soft_ns = CLOCK_NEVER;
    if (!r->ops->take_stale(r, ASIDE_STALE_LATE, ASIDE_OK))
        return false;
    if (leave_as(r, flight, leads(&before))) {
        host_count(r->host, r->self, COUNTER_stale_late);
        return true;
    }
    aside_value_unref(r->result.value);
    r->result = before;
    return false;
}

/* Until it is settled, or the caller leaves; WAITER_TAKES_STALE: he has left. */
static enum waiter_end wait_until(struct request *r, struct flight *flight)
{
    for (;;) {
        struct waiter_until until = until_of(r, flight);
        bool soft = r->soft_ns < until.deadline_ns;
        if (soft)
            until.deadline_ns = r->soft_ns;
        enum waiter_end end = sleep_on(r, flight, &flight->settled, &until);
        if (end != WAITER_LEAVES_LATE || !soft)
            return end;
        if (settles_for_stale(r, flight))
            return WAITER_TAKES_STALE;
    }
}

/* Until there is a verdict, or the caller leaves. Keeps the reference. */
static aside_status wait_for(struct request *r, struct flight *flight)
{
    if (flight_is_lost(flight)) {
        graph_unblock(r->self);
        return ASIDE_E_FORKED;
    }
    enum waiter_end end = wait_until(r, flight);
    graph_unblock(r->self);
    return end == WAITER_TAKES_STALE ? ASIDE_OK : end_waiting(r, flight, end);
}

/* ---- leading --------------------------------------------------------------------------------- */

static bool may_leave(const struct request *r)
{
    return r->call->cancel || r->deadline_ns != CLOCK_NEVER || r->soft_ns != CLOCK_NEVER;
}

bool request_leads_here(const struct request *r)
{
    return !executor_binds_fetches(r->host->executor) && (!may_leave(r) || r->call->nonblocking);
}

/* A leader who cannot leave stays until his fetch has ended, superseded or closed as the flight
 * may be: the argument may be on his stack (C7). The answer is his all the same. */
static aside_status stay(struct request *r, struct flight *flight)
{
    struct waiter_until until = {.clock = &r->host->clock, .deadline_ns = flight->deadline_ns};
    if (flight_is_lost(flight)) {
        graph_unblock(r->self);
        return ASIDE_E_FORKED;
    }
    if (sleep_on(r, flight, &flight->ended, &until) == WAITER_LEAVES_LATE) {
        until.deadline_ns = CLOCK_NEVER;
        supersede(r, flight);
        (void)sleep_on(r, flight, &flight->ended, &until);
    }
    graph_unblock(r->self);
    return take_answer(r, flight);
}

static aside_status lead_here(struct request *r, struct flight *flight)
{
    const struct thread_fetch *outer = own_fetch(r);
    count_meeting(r, COUNTER_misses_led);
    void *worker = outer ? outer->worker : NULL;
    return request_led_here(r, flight, flight_run(flight, r->self, worker, r->cancel_state, true));
}

aside_status request_led_here(struct request *r, struct flight *flight, bool decided)
{
    if (decided)
        return take_answer(r, flight);
    bool stays = !may_leave(r);
    (void)graph_block(r->self, flight, stays);
    return stays ? stay(r, flight) : wait_for(r, flight);
}

struct submission {
    struct request *request;
    struct flight *flight;
    struct thread_fetch frame;
};

/* The hook has run the job itself, and that has ended the thread. */
static void submission_unwinds(void *its_submission)
{
    struct submission *submission = its_submission;
    struct thread_record *self = submission->request->self;
    run_pop(self, &submission->frame);
    graph_unblock(self);
    flight_unref(submission->flight);
    self->inside--; /* of the call that led */
}

static aside_status submit(struct request *r, struct flight *flight)
{
    const aside_submit *hook = &r->host->submit;
    struct submission submission = {.request = r, .flight = flight};
    aside_status status;
    if (r->host->generation != fork_generation())
        return ASIDE_E_FORKED;
    run_push(r->self, &submission.frame, flight, FRAME_SUBMIT, NULL);
    pthread_cleanup_push(submission_unwinds, &submission);
    status = hook->fn(hook->ctx, (aside_job *)flight);
    pthread_cleanup_pop(0);
    run_pop(r->self, &submission.frame);
    return status == ASIDE_OK ? ASIDE_OK : ASIDE_E_BUSY;
}

static aside_status hand_over(struct request *r, struct flight *flight)
{
    if (r->host->submit.fn)
        return submit(r, flight);
    flight_job_init(flight);
    if (executor_is_clogged(r->host->executor))
        return ASIDE_E_BUSY;
    return executor_submit(r->host->executor, &flight->job);
}

static void offer(struct flight *flight)
{
    if (!flight_is_lost(flight) && !exchange_acq_rel(&flight->offered, true))
        flight_wake(flight);
}

/* By one whose thread does not wait for it. */
static aside_status hand_over_or_refuse(struct request *r, struct flight *flight)
{
    disable_cancellation(r);
    aside_status status = hand_over(r, flight);
    if (status == ASIDE_OK)
        offer(flight);
    else
        flight_refuse(flight, status, 0);
    return status;
}

static aside_status refuse_ring(struct request *r)
{
    graph_unblock(r->self);
    r->result.outcome = ASIDE_OUTCOME_NONE;
    return request_refuse(r, ASIDE_E_DEADLOCK);
}

static aside_status not_handed_over(struct request *r, struct flight *flight, aside_status status)
{
    graph_unblock(r->self);
    flight_refuse(flight, status, 0);
    r->result.outcome = ASIDE_OUTCOME_NONE;
    return request_refuse(r, status);
}

/* What the fetch may come to wait for must find this thread waiting: so that is noted first; and
 * again where a hook, or the fetch that this thread has run itself, may have taken it back. */
static aside_status lead_by_others(struct request *r, struct flight *flight)
{
    bool stays = !may_leave(r);
    disable_cancellation(r);
    (void)graph_block(r->self, flight, stays);
    aside_status status = hand_over(r, flight);
    if (status != ASIDE_OK)
        return not_handed_over(r, flight, status);
    offer(flight);
    bool helped = help(r, flight);
    if ((helped || r->host->submit.fn) && !graph_block(r->self, flight, stays) && !stays &&
        leave(r, flight))
        return refuse_ring(r);
    count_meeting(r, COUNTER_misses_led);
    return stays ? stay(r, flight) : wait_for(r, flight);
}

bool request_keep_argument(struct request *r, struct flight *flight)
{
    struct thread_fetch frame;
    if (!r->call->arg_retain)
        return true;
    run_push(r->self, &frame, flight, FRAME_HOOK, NULL);
    flight_keep_argument(flight, r->call);
    run_pop(r->self, &frame);
    return !flight_is_lost(flight);
}

aside_status request_lead(struct request *r, struct flight *flight)
{
    r->result.outcome = ASIDE_OUTCOME_FETCHED;
    if (!request_keep_argument(r, flight)) {
        flight_refuse(flight, ASIDE_E_FORKED, 0);
        flight_unref(flight);
        r->result.outcome = ASIDE_OUTCOME_NONE;
        return request_refuse(r, ASIDE_E_FORKED);
    }
    return conclude(r, flight,
                    request_leads_here(r) ? lead_here(r, flight) : lead_by_others(r, flight));
}

bool request_refreshes_here(const struct request *r)
{
    const struct executor *executor = r->host->executor;
    return !executor_binds_fetches(executor) &&
           (r->call->nonblocking || (!r->host->submit.fn && !executor_has_threads(executor)));
}

/* The reference that is given back if the fetch ends the thread is its caller's. Who decides at his
 * leader's wakes nobody, for that one is awake: but here nobody has led who is. */
static void run_unattended(const struct request *r, struct flight *flight)
{
    const struct thread_fetch *outer = own_fetch(r);
    (void)flight_run(flight, r->self, outer ? outer->worker : NULL, r->cancel_state, true);
    if (!flight_is_lost(flight) && flight_is_settled(flight))
        flight_wake(flight);
}

aside_status request_refresh(struct request *r, struct flight *flight)
{
    aside_status status = ASIDE_OK;
    bool kept = request_keep_argument(r, flight);
    host_count(r->host, r->self, COUNTER_refreshes);
    if (!kept)
        flight_refuse(flight, status = ASIDE_E_FORKED, 0);
    else if (request_refreshes_here(r))
        run_unattended(r, flight);
    else
        status = hand_over_or_refuse(r, flight);
    flight_unref(flight);
    return status;
}

/* ---- joining --------------------------------------------------------------------------------- */

/* True: to wait would close a ring, and the caller has left. */
static bool leaves_ring(struct request *r, struct flight *flight)
{
    return !graph_block(r->self, flight, false) && leave(r, flight);
}

static aside_status wait_or_be_refused(struct request *r, struct flight *flight)
{
    disable_cancellation(r);
    if (leaves_ring(r, flight))
        return refuse_ring(r);
    enum waiter_end end = wait_for_offer(r, flight);
    if (end == WAITER_SETTLED && help(r, flight) && leaves_ring(r, flight))
        return refuse_ring(r);
    count_meeting(r, COUNTER_misses_joined);
    if (end == WAITER_SETTLED)
        return wait_for(r, flight);
    graph_unblock(r->self);
    return end_waiting(r, flight, end);
}

aside_status request_join(struct request *r, struct flight *flight)
{
    r->result.outcome = ASIDE_OUTCOME_JOINED;
    return conclude(r, flight, wait_or_be_refused(r, flight));
}

/* ---- without waiting ------------------------------------------------------------------------- */

/* The reference that is given back if a hook, or the fetch, ends the thread is not its caller's. */
static void lend_reference(struct flight *flight)
{
    fetch_add_relaxed(&flight->refs, 1);
}

static aside_status lend_to_others(struct request *r, struct flight *flight)
{
    lend_reference(flight);
    aside_status status = hand_over_or_refuse(r, flight);
    flight_unref(flight);
    return status;
}

aside_status request_lead_async(struct request *r, struct flight *flight, bool here)
{
    aside_status status = here ? ASIDE_OK : lend_to_others(r, flight);
    if (status != ASIDE_OK)
        return request_refuse(r, status);
    r->result.outcome = ASIDE_OUTCOME_FETCHED;
    count_meeting(r, COUNTER_misses_led);
    return ASIDE_OK;
}

void request_run_here(const struct request *r, struct flight *flight)
{
    lend_reference(flight);
    run_unattended(r, flight);
    flight_unref(flight);
}

void request_joined(struct request *r)
{
    r->result.outcome = ASIDE_OUTCOME_JOINED;
    count_meeting(r, COUNTER_misses_joined);
}

int64_t request_alarm(const struct request *r, const struct flight *flight)
{
    int64_t deadline_ns = earlier(deadline_of(r, flight), r->soft_ns);
    return earlier(clock_alarm(&r->host->clock, deadline_ns), cancel_alarm(r->call->cancel));
}

bool request_is_late(const struct request *r, const struct flight *flight)
{
    int64_t deadline_ns = earlier(deadline_of(r, flight), r->soft_ns);
    return clock_precise(&r->host->clock) >= deadline_ns || aside_cancel_fired(r->call->cancel);
}

bool request_has_ended(struct request *r, struct flight *flight, enum waiter_end *end)
{
    aside_status token = aside_cancel_status(r->call->cancel);
    int64_t now_ns = clock_precise(&r->host->clock);
    *end = WAITER_SETTLED;
    if (flight_is_settled(flight))
        return true;
    if (token != ASIDE_OK)
        *end = token == ASIDE_E_TIMEOUT ? WAITER_LEAVES_WITH_TOKEN : WAITER_LEAVES_CANCELLED;
    else if (now_ns >= deadline_of(r, flight))
        *end = WAITER_LEAVES_LATE;
    else if (now_ns >= r->soft_ns && settles_for_stale(r, flight))
        *end = WAITER_TAKES_STALE;
    return *end != WAITER_SETTLED;
}

aside_status request_arrive(struct request *r, struct flight *flight, enum waiter_end end)
{
    return conclude(r, flight, end == WAITER_TAKES_STALE ? ASIDE_OK : end_waiting(r, flight, end));
}

/* ---- before that ----------------------------------------------------------------------------- */

aside_status request_may_start(struct request *r)
{
    if (!r->self)
        return request_refuse(r, ASIDE_E_NOMEM);
    if (flight_is_own(r->self, r->host, r->key.bytes, r->key.len))
        return request_refuse(r, ASIDE_E_DEADLOCK);
    r->soft_ns = CLOCK_NEVER;
    if (r->call->timeout_ms && !r->met) /* who looks once more has his deadline */
        r->deadline_ns = clock_after_ms(clock_precise(&r->host->clock), r->call->timeout_ms);
    return ASIDE_OK;
}

struct flight *request_flight(struct request *r, const struct flight_owner *owner, int64_t now_ns)
{
    struct host *host = r->host;
    struct flight_options options = {owner,        host,   host->executor,         host->home,
                                     &host->clock, now_ns, host->max_flight_age_ms};
    struct flight *flight = flight_new(&options, &r->key, r->call);
    if (flight)
        atomic_init(&flight->offered, request_leads_here(r) || host->submit.fn);
    return flight;
}
