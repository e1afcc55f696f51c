/* flight/run -- see run.h. */
#include "flight/run.h"

#include "base/check.h"
#include "base/clock.h"
#include "flight/graph.h"
#include "freshness/rules.h"

#include <pthread.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__EXCEPTIONS)
#error "compile this file with -fexceptions: a fetch may end its thread, or throw"
#endif

#define MAGIC 0x41464c54 /* "AFLT", set by flight_new() */

static struct flight *flight_of(const aside_fetch *fetch)
{
    struct flight *flight = (struct flight *)(uintptr_t)fetch;
    return flight && flight->magic == MAGIC ? flight : NULL;
}

/* ---- deciding -------------------------------------------------------------------------------- */

static void drop_answer(struct flight_answer *answer)
{
    struct entry *entry = answer->entry;
    aside_value *given = answer->given;
    answer->entry = NULL;
    answer->given = NULL;
    if (entry)
        entry_discard(entry);
    if (given)
        aside_value_unref(given);
}

/* The previous value is the answer then. */
static aside_status keep_previous(struct flight *flight)
{
    if (!flight->previous)
        return ASIDE_E_INVALID;
    drop_answer(&flight->answer);
    flight->answer.given = aside_value_ref(flight->previous);
    flight->answer.not_modified = true;
    return ASIDE_OK;
}

static void settle_answer(struct flight *flight, aside_status status)
{
    struct flight_answer *answer = &flight->answer;
    if (status == ASIDE_NOT_MODIFIED)
        status = keep_previous(flight);
    bool has_value = answer->entry || answer->given;
    if (status > 0 && status != ASIDE_NOT_FOUND)
        status = ASIDE_E_INVALID;
    if (status == ASIDE_OK && !has_value)
        status = ASIDE_E_INVALID;
    if (status != ASIDE_OK)
        drop_answer(answer);
    if (status != ASIDE_E_FETCH && status != ASIDE_E_WORKER)
        answer->code = 0;
    answer->status = status;
}

/* Destructors and hooks run on behalf of a flight that is not settled yet: they are inside it as
 * its fetch is. */
void run_push(struct thread_record *self, struct thread_fetch *frame, const struct flight *flight,
              enum thread_frame kind, void *worker)
{
    if (!self)
        return;
    *frame = (struct thread_fetch){self->fetches, flight, flight->owned_by, worker, kind};
    self->fetches = frame;
}

void run_pop(struct thread_record *self, const struct thread_fetch *frame)
{
    if (self)
        self->fetches = frame->outer;
}

void flight_settle_inside(struct flight *flight, struct thread_record *self, aside_status status)
{
    struct thread_fetch frame;
    run_push(self, &frame, flight, FRAME_HOOK, NULL);
    settle_answer(flight, status);
    run_pop(self, &frame);
}

/* alone: nobody else can decide. */
static bool decide_inside(struct flight *flight, struct thread_record *self, aside_status status,
                          bool alone)
{
    uint32_t open = 0;
    struct thread_fetch frame;
    if (flight_is_lost(flight))
        return false;
    if (alone)
        store_relaxed(&flight->decided, 1);
    else if (!compare_swap(&flight->decided, &open, 1))
        return false;
    run_push(self, &frame, flight, FRAME_HOOK, NULL);
    settle_answer(flight, status);
    if (!flight_is_lost(flight)) /* a destructor may have forked */
        flight->owner->publish(flight);
    run_pop(self, &frame);
    return !flight_is_lost(flight);
}

static bool decide(struct flight *flight, aside_status status)
{
    return decide_inside(flight, thread_self(), status, false);
}

/* A lost flight is freed by the call that led it or not at all: its host may be gone by now. */
static void drop_handle(struct flight *flight)
{
    if (load_acquire(&flight->handles) != 1 && fetch_sub_acq_rel(&flight->handles, 1) != 1)
        return;
    if (flight_is_lost(flight)) {
        fetch_sub_acq_rel(&flight->refs, 1);
        return;
    }
    (void)decide(flight, ASIDE_E_ABANDONED);
    flight_unref(flight);
}

void flight_refuse(struct flight *flight, aside_status status, int code)
{
    if (!flight_is_lost(flight))
        flight->answer.code = code;
    (void)decide(flight, status);
    drop_handle(flight);
}

/* ---- running --------------------------------------------------------------------------------- */

struct run {
    struct thread_fetch frame; /* first: it is what the thread's record points to */
    struct thread_record *self;
    struct flight *flight;
    bool leader;
};

/* What it said in the child of a fork is discarded, as long as the host is surely there; but not
 * what somebody else was completing when it forked. */
static void OUT_OF_LINE finish_elsewhere(struct run *run)
{
    struct flight *flight = run->flight;
    if (flight_is_lost(flight)) {
        if (run->leader && !load_acquire(&flight->decided))
            drop_answer(&flight->answer);
        return;
    }
    group_lock(flight->group);
    group_end_on_worker(flight);
    group_unlock(flight->group);
}

/* The callback is over, one way or the other. */
static inline void finish(struct run *run)
{
    run_pop(run->self, &run->frame);
    if (unlikely(run->flight->on_worker || flight_is_lost(run->flight)))
        finish_elsewhere(run);
}

/* The callback does not return: its thread ends, or an exception passes through. */
static void unwound(void *its_run)
{
    struct run *run = its_run;
    finish(run);
    (void)decide(run->flight, ASIDE_E_ABANDONED);
    drop_handle(run->flight);
    if (!run->leader)
        return;
    graph_unblock(run->self); /* who led inside another fetch points to it */
    flight_unref(run->flight);
    run->self->inside--; /* of the call that led */
}

static aside_status call_fetch(struct run *run, int cancel_state)
{
    aside_status status;
    struct flight *flight = run->flight;
    pthread_cleanup_push(unwound, run);
    if (cancel_state >= 0)
        pthread_setcancelstate(cancel_state, NULL);
    status = flight->fetch((aside_fetch *)flight, flight->arg);
    if (cancel_state >= 0)
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cleanup_pop(0);
    return status;
}

aside_status flight_call(struct flight *flight, struct thread_record *self, void *worker,
                         int cancel_state, bool leader)
{
    struct run run;
    run.self = self;
    run.flight = flight;
    run.leader = leader;
    flight->worker = worker;
    flight->ran = true;
    store_relaxed(&flight->phase, FLIGHT_RUNNING);
    run_push(self, &run.frame, flight, FRAME_FETCH, worker);
    aside_status status = call_fetch(&run, cancel_state);
    finish(&run);
    return status;
}

bool flight_conclude(struct flight *flight, struct thread_record *self, aside_status status,
                     bool leader)
{
    if (status == ASIDE_PENDING) {
        store_relaxed(&flight->phase, FLIGHT_PENDING);
        drop_handle(flight);
        return false;
    }
    /* Who gave no handle away has nobody to race with. */
    bool alone = leader && load_acquire(&flight->handles) == 1 && !load_relaxed(&flight->decided);
    if (alone)
        flight->decides_at_leaders = true;
    bool decided = decide_inside(flight, self, status, alone);
    drop_handle(flight);
    return decided;
}

bool flight_run(struct flight *flight, struct thread_record *self, void *worker, int cancel_state,
                bool leader)
{
    aside_status status = flight_call(flight, self, worker, cancel_state, leader);
    return flight_conclude(flight, self, status, leader);
}

bool flight_is_own(const struct thread_record *self, const void *owner, const void *key,
                   size_t key_len)
{
    for (const struct thread_fetch *f = self->fetches; f; f = f->outer) {
        const struct flight *flight = f->flight;
        if (f->owner == owner && !load_acquire(&flight->decided) && flight->key_len == key_len &&
            (key_len == 0 || memcmp(flight->key, key, key_len) == 0))
            return true;
    }
    return false;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static void run_on_worker(struct flight *flight, struct thread_record *self, void *worker)
{
    group_lock(flight->group);
    bool begun = group_begin_on_worker(flight);
    group_unlock(flight->group);
    flight->began_ns = clock_precise(flight->clock);
    if (begun)
        (void)flight_run(flight, self, worker, PTHREAD_CANCEL_ENABLE, false);
    else
        flight_refuse(flight, flight->verdict, 0);
}

static void job_run(struct job *job, void *worker)
{
    struct flight *flight = container_of(job, struct flight, job);
    struct thread_record *self = thread_self();
    if (self)
        run_on_worker(flight, self, worker);
    else
        flight_refuse(flight, ASIDE_E_NOMEM, 0);
}

static void job_refuse(struct job *job, aside_status status, int code)
{
    flight_refuse(container_of(job, struct flight, job), status, code);
}

void flight_job_init(struct flight *flight)
{
    flight->job.run = job_run;
    flight->job.refuse = job_refuse;
}

/* A user's executor knows a flight by its job. */
void aside_job_run(aside_job *job, void *worker)
{
    struct flight *flight = flight_of((const aside_fetch *)job);
    if (!flight)
        return;
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    struct thread_record *self = thread_self();
    if (!self) {
        flight_refuse(flight, ASIDE_E_NOMEM, 0);
    } else if (flight_is_lost(flight) || flight_is_settled(flight)) {
        flight_refuse(flight, flight->verdict, 0);
    } else {
        flight->began_ns = clock_precise(flight->clock);
        (void)flight_run(flight, self, worker, before, false);
    }
    pthread_setcancelstate(before, NULL);
}

void aside_job_drop(aside_job *job)
{
    struct flight *flight = flight_of((const aside_fetch *)job);
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    if (flight)
        flight_refuse(flight, ASIDE_E_ABANDONED, 0);
    pthread_setcancelstate(before, NULL);
}

/* ---- what a fetch calls ---------------------------------------------------------------------- */

/* ASIDE_OK if the fetch may still say something. */
static aside_status may_say(const struct flight *flight)
{
    if (!flight)
        return ASIDE_E_INVALID;
    if (flight_is_lost(flight))
        return ASIDE_E_FORKED;
    return load_acquire(&flight->decided) ? ASIDE_E_INVALID : ASIDE_OK;
}

const void *aside_fetch_key(const aside_fetch *fetch, size_t *key_len)
{
    const struct flight *flight = flight_of(fetch);
    if (!flight || !key_len)
        return NULL;
    *key_len = flight->key_len;
    return flight->key;
}

void *aside_fetch_worker(const aside_fetch *fetch)
{
    const struct flight *flight = flight_of(fetch);
    return flight ? flight->worker : NULL;
}

static bool is_too_old(const struct flight *flight)
{
    return flight->deadline_ns != CLOCK_NEVER &&
           clock_precise(flight->clock) >= flight->deadline_ns;
}

int aside_fetch_stopping(aside_fetch *fetch)
{
    struct flight *flight = flight_of(fetch);
    if (!flight)
        return 0;
    uint32_t asked = STOP_ASKED;
    return flight_is_lost(flight) || compare_swap(&flight->stop, &asked, STOP_HEARD) ||
           asked == STOP_HEARD || flight_is_settled(flight) || is_too_old(flight);
}

aside_status aside_fetch_set_ttl(aside_fetch *fetch, int64_t ttl_ms)
{
    struct flight *flight = flight_of(fetch);
    aside_status status = may_say(flight);
    if (ttl_ms < 0 && ttl_ms != ASIDE_NO_STORE)
        return ASIDE_E_INVALID;
    if (status == ASIDE_OK)
        flight->answer.ttl_ms = ttl_ms;
    return status;
}

aside_status aside_fetch_set_freshness(aside_fetch *fetch, const aside_freshness *freshness)
{
    struct flight *flight = flight_of(fetch);
    aside_status status = may_say(flight);
    if (!freshness || !rules_are(freshness))
        return ASIDE_E_INVALID;
    if (status != ASIDE_OK || !flight->tags)
        return status; /* a group stores nothing */
    flight->rules = rules_of(&flight->rules, freshness);
    flight->rare = flight->rare || rules_are_rare(&flight->rules);
    return ASIDE_OK;
}

/* A full cache has no room for a new tag until something goes. */
static aside_status add_tag(struct flight *flight, const void *tag, size_t tag_len)
{
    struct tag_set **set = &flight->answer.tags;
    aside_status status = tags_add(flight->tags, set, tag, tag_len);
    if (status == ASIDE_E_BUSY && !tags_is_full(*set) &&
        flight->owner->make_room(flight, tag_charge(tag_len)))
        status = tags_add(flight->tags, set, tag, tag_len);
    return status;
}

aside_status aside_fetch_add_tag(aside_fetch *fetch, const void *tag, size_t tag_len)
{
    struct flight *flight = flight_of(fetch);
    aside_status status = may_say(flight);
    if (tag_len > ASIDE_MAX_TAG || (!tag && tag_len) || (flight && !flight->tags))
        return ASIDE_E_INVALID;
    if (status == ASIDE_OK)
        status = add_tag(flight, tag, tag_len);
    if (status == ASIDE_OK)
        flight->rare = true;
    return status;
}

const aside_value *aside_fetch_previous(const aside_fetch *fetch)
{
    const struct flight *flight = flight_of(fetch);
    return may_say(flight) == ASIDE_OK ? flight->previous : NULL;
}

aside_status aside_fetch_buffer(aside_fetch *fetch, size_t size, void **to)
{
    struct flight *flight = flight_of(fetch);
    if (to)
        *to = NULL;
    aside_status status = to ? may_say(flight) : ASIDE_E_INVALID;
    if (status != ASIDE_OK)
        return status;
    if (size > ENTRY_MAX_VALUE)
        return ASIDE_E_TOO_LARGE;
    struct entry *entry =
        entry_new_marked(flight->home, flight_marks(flight), flight->key, flight->key_len, size);
    if (!entry)
        return ASIDE_E_NOMEM;
    drop_answer(&flight->answer);
    flight->answer.entry = entry;
    *to = entry->bytes + entry_value_offset(entry);
    return ASIDE_OK;
}

aside_status aside_fetch_copy(aside_fetch *fetch, const void *data, size_t size)
{
    if (!data && size)
        return ASIDE_E_INVALID;
    void *to;
    aside_status status = aside_fetch_buffer(fetch, size, &to);
    if (status == ASIDE_OK && size)
        memcpy(to, data, size);
    return status;
}

aside_status aside_fetch_give(aside_fetch *fetch, aside_value *value)
{
    struct flight *flight = flight_of(fetch);
    aside_status status = value ? may_say(flight) : ASIDE_E_INVALID;
    if (status == ASIDE_E_FORKED)
        aside_value_unref(value);
    if (status != ASIDE_OK)
        return status;
    drop_answer(&flight->answer);
    flight->answer.given = value;
    return ASIDE_OK;
}

aside_status aside_fetch_not_modified(aside_fetch *fetch)
{
    struct flight *flight = flight_of(fetch);
    aside_status status = may_say(flight);
    if (status != ASIDE_OK)
        return status;
    return flight->previous ? ASIDE_NOT_MODIFIED : ASIDE_E_INVALID;
}

aside_status aside_fetch_not_found(aside_fetch *fetch)
{
    aside_status status = may_say(flight_of(fetch));
    return status == ASIDE_OK ? ASIDE_NOT_FOUND : status;
}

aside_status aside_fetch_fail(aside_fetch *fetch, int code)
{
    struct flight *flight = flight_of(fetch);
    aside_status status = may_say(flight);
    if (status != ASIDE_OK)
        return status;
    flight->answer.code = code;
    return ASIDE_E_FETCH;
}

aside_status aside_fetch_complete(aside_fetch *fetch, aside_status status)
{
    struct flight *flight = flight_of(fetch);
    if (!flight || status == ASIDE_PENDING)
        return ASIDE_E_INVALID;
    if (flight_is_lost(flight))
        return ASIDE_E_FORKED;
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    bool first = decide(flight, status);
    pthread_setcancelstate(before, NULL);
    return first ? ASIDE_OK : ASIDE_E_INVALID;
}

aside_fetch *aside_fetch_ref(aside_fetch *fetch)
{
    struct flight *flight = flight_of(fetch);
    if (flight)
        fetch_add_relaxed(&flight->handles, 1);
    return fetch;
}

void aside_fetch_unref(aside_fetch *fetch)
{
    struct flight *flight = flight_of(fetch);
    if (!flight)
        return;
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    drop_handle(flight);
    pthread_setcancelstate(before, NULL);
}
