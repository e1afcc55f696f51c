/*
 * cache/async -- aside_get_async: a lookup whose thread does not wait.
 *
 * What a blocking caller keeps on his stack lies in a block here; where he sleeps, this is told: by the
 * flight when it is settled (flight_watcher), by the token when it fires (waiter), by the inbox when a
 * deadline is past (flight/inbox). Each of them says no more than "look again". The loop's thread looks,
 * and does what a blocking caller does when he wakes up: leaves the flight, or takes its verdict.
 *
 *   starting --ready--> waiting --look: it has ended--> over: everything let go, then done() is called
 *                          ^ \--look: it has not-------/
 *                           \----look: what came is older than the caller may see: starts once more
 *
 * Without an inbox nobody can look but who completes the flight: then the later of him and the call that
 * has begun it ends it.
 *
 * Counted: the call itself until it is over, and the flight's list of watchers. Whoever has taken the
 * watcher off the list may still be about to post it when it is over: hence the second reference, and one
 * to the inbox. It holds the host, the flight, and the token. In the child of a fork it is lost with its
 * flight.
 */
#include "cache/fetch.h"
#include "cache/options.h"
#include "cache/read.h"
#include "flight/cancel.h"
#include "flight/inbox.h"
#include "flight/run.h"

#include <pthread.h>
#include <string.h>

struct async {
    struct lookup lookup; /* first */
    aside_call call;      /* with an argument of its own, if it is copied */
    struct flight *flight;
    struct flight_watcher watcher;
    struct waiter waiter; /* on the token's list */
    struct inbox_item item;
    aside_inbox *inbox; /* NULL: none */
    aside_done_fn *done;
    void *ctx;
    uint32_t generation;
    bool keeps_argument;       /* it has retained that itself */
    _Atomic uint32_t refs;     /* its own, and the list's */
    _Atomic uint32_t arrivals; /* without an inbox: of who began it, and of who completes it */
    _Alignas(16) unsigned char bytes[]; /* argument, then key */
};

/* In the child of a fork nobody is told of a call of before it. */
static bool is_lost(const struct async *a)
{
    return a->generation != fork_generation();
}

/* ---- its parts ------------------------------------------------------------------------------- */

static void unref(struct async *a)
{
    if (fetch_sub_acq_rel(&a->refs, 1) != 1)
        return;
    struct host *host = a->lookup.request.host;
    struct mem mem = host->home->mem;
    if (a->inbox)
        inbox_unref(a->inbox);
    uint32_t generation = a->generation;
    mem_free(&mem, a);
    host_release(host, generation);
}

static struct async *allocate(aside_cache *cache, size_t key_len, const aside_call *call)
{
    if (call->arg_size > SIZE_MAX / 2) /* what comes to it is small */
        return NULL;
    return mem_alloc(&cache->host.home->mem,
                     sizeof(struct async) + size_padded(call->arg_size) + key_len);
}

static void copy_in(struct async *a, const struct flight_key *key, const aside_call *call)
{
    unsigned char *bytes = a->bytes + size_padded(call->arg_size);
    a->call = *call;
    if (call->arg_size)
        a->call.arg = memcpy(a->bytes, call->arg, call->arg_size);
    if (key->len)
        memcpy(bytes, key->bytes, key->len);
}

/* ---- being told ------------------------------------------------------------------------------ */

static void end_without_inbox(struct async *a);

static void settled(struct flight_watcher *watcher)
{
    struct async *a = container_of(watcher, struct async, watcher);
    if (is_lost(a)) /* another callback has forked */
        return;
    if (a->inbox)
        inbox_post(&a->item);
    else if (fetch_add_acq_rel(&a->arrivals, 1) == 1)
        end_without_inbox(a);
    unref(a);
}

static void nudged(struct flight_watcher *watcher)
{
    struct async *a = container_of(watcher, struct async, watcher);
    if (a->inbox)
        inbox_post(&a->item);
}

static void woken(struct waiter *waiter)
{
    inbox_post(&container_of(waiter, struct async, waiter)->item);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* After that nobody tells it anything that counts. */
static void let_go(struct async *a)
{
    cancel_delist(a->call.cancel, &a->waiter);
    aside_cancel_unref(a->call.cancel);
    if (a->inbox)
        inbox_delist(&a->item);
    fetch_sub_relaxed(&a->lookup.request.host->waiters_now, 1);
    if (a->keeps_argument)
        a->call.arg_release(a->call.arg);
}

/* The flight's list gives up its reference, unless somebody is just about to use it. */
static void leave_list(struct async *a)
{
    if (flight_unwatch(a->flight, &a->watcher))
        unref(a);
}

static void tell(struct async *a, aside_status status)
{
    aside_done_fn *done = a->done;
    void *ctx = a->ctx;
    aside_result result = a->lookup.request.result;
    bool lost = is_lost(a);
    unref(a);
    if (lost)
        aside_value_unref(result.value);
    else
        done(ctx, status, &result);
}

/* When to look next, if nothing happens before that. Whatever happens from now on is told. */
static void watch_the_time(struct async *a)
{
    const struct request *r = &a->lookup.request;
    inbox_alarm(&a->item, request_alarm(r, a->flight));
    if (request_is_late(r, a->flight))
        inbox_post(&a->item);
}

/* By whose thread the request goes on. */
static void enter(struct async *a, struct host_call *inside)
{
    struct request *r = &a->lookup.request;
    host_enter(r->host, inside);
    r->self = inside->self;
    r->cancel_state = inside->cancel_state;
}

static aside_status arrive(struct async *a, enum waiter_end end)
{
    leave_list(a);
    struct flight *flight = a->flight;
    a->flight = NULL;
    return request_arrive(&a->lookup.request, flight, end);
}

/* ---- the beginning --------------------------------------------------------------------------- */

/* The flight has ended for this caller before it was one. */
static aside_status refused(struct async *a, aside_status status)
{
    leave_list(a);
    flight_unref(a->flight);
    a->flight = NULL;
    return request_substitute(&a->lookup.request, status);
}

/* *here: this thread is to run the fetch, once the rest is done. */
static aside_status lead(struct async *a, bool *here)
{
    struct request *r = &a->lookup.request;
    if (!request_keep_argument(r, a->flight)) {
        flight_refuse(a->flight, ASIDE_E_FORKED, 0);
        return refused(a, request_refuse(r, ASIDE_E_FORKED));
    }
    *here = request_refreshes_here(r);
    aside_status status = request_lead_async(r, a->flight, *here);
    return status == ASIDE_OK ? ASIDE_PENDING : refused(a, status);
}

/* It may have to lead later on, and the flight that it joins keeps another's argument. */
static aside_status join(struct async *a)
{
    struct request *r = &a->lookup.request;
    if (a->call.arg_retain && !a->keeps_argument) {
        a->call.arg_retain(a->call.arg);
        a->keeps_argument = true;
    }
    if (is_lost(a))
        return refused(a, request_refuse(r, ASIDE_E_FORKED));
    request_joined(r);
    return ASIDE_PENDING;
}

/* ASIDE_PENDING: it waits for a flight; any other status is the answer. */
static aside_status meet(struct async *a, bool *here)
{
    struct lookup *l = &a->lookup;
    struct flight *mine = lookup_new_flight(l);
    l->status = ASIDE_E_NOMEM;
    if (!mine)
        return lookup_turned_away(l, MEET_REFUSED);
    atomic_init(&mine->offered, request_refreshes_here(&l->request) || l->request.host->submit.fn);
    fetch_add_relaxed(&a->refs, 1); /* the list's */
    enum lookup_meeting met = lookup_meet(l, mine);
    a->flight = met == MEET_LEAD ? mine : l->joined;
    if (met == MEET_LEAD)
        return lead(a, here);
    flight_discard(mine);
    if (met == MEET_JOIN)
        return join(a);
    fetch_sub_relaxed(&a->refs, 1);
    return lookup_turned_away(l, met);
}

/* What came was older than this caller may see. */
static aside_status start_again(struct async *a)
{
    bool here = false;
    lookup_again(&a->lookup);
    aside_status status = lookup_start(&a->lookup, true);
    if (!a->inbox)
        a->lookup.request.soft_ns = CLOCK_NEVER;
    if (status == ASIDE_PENDING)
        status = meet(a, &here);
    if (here)
        request_run_here(&a->lookup.request, a->flight);
    return status;
}

/* ---- looking, on the loop's thread ----------------------------------------------------------- */

static void finish(struct async *a, const struct host_call *inside, aside_status status)
{
    request_count(&a->lookup.request, status);
    let_go(a);
    host_exit(inside);
    tell(a, status);
}

/* The fetch has ended the loop's thread. Its end is told to whoever dispatches next. */
static void looks_no_more(void *async)
{
    struct async *a = async;
    inbox_post(&a->item);
    inbox_ready(&a->item);
}

static aside_status start_again_by_loop(struct async *a)
{
    aside_status status;
    pthread_cleanup_push(looks_no_more, a);
    status = start_again(a);
    pthread_cleanup_pop(0);
    return status;
}

static bool look(struct inbox_item *item)
{
    struct async *a = container_of(item, struct async, item);
    struct request *r = &a->lookup.request;
    struct host_call inside;
    enum waiter_end end;
    aside_status status = ASIDE_PENDING;
    enter(a, &inside);
    if (request_has_ended(r, a->flight, &end))
        status = arrive(a, end);
    if (r->again)
        status = start_again_by_loop(a);
    if (status != ASIDE_PENDING && !is_lost(a)) {
        finish(a, &inside, status);
        return true;
    }
    if (!is_lost(a))
        watch_the_time(a);
    host_exit(&inside);
    return false;
}

/* Its result may be there: it is dropped, and not counted. */
static void abandon(struct inbox_item *item)
{
    struct async *a = container_of(item, struct async, item);
    struct request *r = &a->lookup.request;
    struct host_call inside;
    enter(a, &inside);
    request_count(r, ASIDE_E_CANCELLED);
    (void)arrive(a, WAITER_LEAVES_CANCELLED);
    aside_value_unref(r->result.value);
    r->result = (aside_result)ASIDE_RESULT_INIT;
    finish(a, &inside, ASIDE_E_CANCELLED);
}

static const struct inbox_ops inbox_ops = {look, abandon};

/* ---- without an inbox ------------------------------------------------------------------------ */

static void end_without_inbox(struct async *a)
{
    struct host_call inside;
    enter(a, &inside);
    aside_status status = arrive(a, WAITER_SETTLED);
    while (a->lookup.request.again) {
        store_relaxed(&a->arrivals, 0);
        status = start_again(a);
        if (is_lost(a))
            break;
        if (status == ASIDE_PENDING && fetch_add_acq_rel(&a->arrivals, 1) == 1)
            status = arrive(a, WAITER_SETTLED);
    }
    if (status == ASIDE_PENDING || is_lost(a))
        host_exit(&inside);
    else
        finish(a, &inside, status);
}

/* ---- the call -------------------------------------------------------------------------------- */

struct wish {
    aside_inbox *inbox;
    aside_done_fn *done;
    void *ctx;
};

static struct async *new_async(const struct lookup *l, const struct wish *wish)
{
    const struct request *r = &l->request;
    struct async *a = allocate(l->cache, r->key.len, r->call);
    if (!a)
        return NULL;
    memset((void *)a, 0, offsetof(struct async, bytes));
    a->lookup = *l;
    copy_in(a, &r->key, r->call);
    lookup_rebase(&a->lookup, &a->call, a->bytes + size_padded(r->call->arg_size));
    a->watcher = (struct flight_watcher){.settled = settled, .nudged = nudged};
    a->lookup.watcher = &a->watcher;
    waiter_init_remote(&a->waiter, woken);
    a->inbox = wish->inbox;
    a->done = wish->done;
    a->ctx = wish->ctx;
    a->generation = fork_generation();
    atomic_init(&a->refs, 1);
    if (a->inbox)
        inbox_ref(a->inbox);
    host_hold(r->host);
    return a;
}

struct pending {
    struct async *async;
    struct flight *flight; /* a reference of each */
    struct request runner;
};

/* Or the fetch has ended the thread. */
static void began(void *its_pending)
{
    const struct pending *pending = its_pending;
    struct async *a = pending->async;
    flight_unref(pending->flight);
    if (!a->inbox && !is_lost(a) && fetch_add_acq_rel(&a->arrivals, 1) == 1)
        end_without_inbox(a);
    unref(a);
}

/* False: the fetch has forked, and this is the child, where the call is lost. From the return of
 * inbox_ready() on, or of the last arrival, it may be over. */
static bool go_pending(struct async *a, bool here)
{
    bool lost;
    const struct request *r = &a->lookup.request;
    struct pending pending = {
        a, a->flight, {.host = r->host, .self = r->self, .cancel_state = r->cancel_state}};
    fetch_add_relaxed(&a->refs, 1);
    fetch_add_relaxed(&a->flight->refs, 1);
    fetch_add_relaxed(&r->host->waiters_now, 1);
    (void)aside_cancel_ref(a->call.cancel);
    cancel_enlist(a->call.cancel, &a->waiter);
    if (a->inbox) {
        watch_the_time(a);
        inbox_ready(&a->item);
    }
    pthread_cleanup_push(began, &pending);
    if (here)
        request_run_here(&pending.runner, pending.flight);
    lost = is_lost(a);
    pthread_cleanup_pop(1);
    return !lost;
}

/* A hook has run the fetch that was handed to it, which has ended the thread: the call does not return,
 * and nobody is told. */
static void begins_no_more(void *async)
{
    struct async *a = async;
    invariant(a->flight); /* which was handed over */
    leave_list(a);
    flight_unref(a->flight);
    if (a->inbox)
        inbox_delist(&a->item);
    unref(a);
}

static aside_status begin(struct async *a, bool *here)
{
    aside_status status;
    pthread_cleanup_push(begins_no_more, a);
    status = meet(a, here);
    pthread_cleanup_pop(0);
    return status;
}

/* *l has the answer if that is not ASIDE_PENDING. */
static aside_status wait_without_thread(struct lookup *l, const struct wish *wish)
{
    bool here = false;
    struct async *a = new_async(l, wish);
    l->status = ASIDE_E_NOMEM;
    if (!a)
        return lookup_turned_away(l, MEET_REFUSED);
    aside_status status = ASIDE_OK;
    if (a->inbox)
        status = inbox_enlist(a->inbox, &a->item, &inbox_ops);
    bool enlisted = status == ASIDE_OK && a->inbox;
    a->lookup.status = status;
    if (status == ASIDE_OK)
        status = begin(a, &here);
    else if (status == ASIDE_E_NOMEM)
        status = lookup_turned_away(&a->lookup, MEET_REFUSED);
    if (status == ASIDE_PENDING)
        return go_pending(a, here) ? ASIDE_PENDING : ASIDE_E_FORKED;
    if (a->keeps_argument)
        a->call.arg_release(a->call.arg);
    l->request.result = a->lookup.request.result;
    if (enlisted)
        inbox_delist(&a->item);
    unref(a);
    return status;
}

static aside_status get_async(aside_cache *cache, const struct flight_key *key,
                              const aside_call *call, const struct wish *wish, aside_result *result)
{
    struct host_call inside;
    struct lookup l;
    host_enter(&cache->host, &inside);
    lookup_init(&l, cache, &inside, key, call);
    l.request.operation = COUNTER_get_async_ok;
    aside_status status = lookup_start(&l, true);
    if (!wish->inbox)
        l.request.soft_ns = CLOCK_NEVER;
    if (status == ASIDE_PENDING)
        status = wait_without_thread(&l, wish);
    if (status != ASIDE_PENDING) {
        request_count(&l.request, status);
        *result = l.request.result;
    }
    host_exit(&inside);
    return status;
}

/* Without an inbox nobody could tell in time that it is over for the caller. */
static bool is_wish(const aside_call *call, const struct wish *wish)
{
    if (!wish->done || !rules_are(&call->freshness))
        return false;
    if (wish->inbox)
        return inbox_is(wish->inbox);
    return !call->cancel && (!call->timeout_ms || call->timeout_ms == ASIDE_NO_WAIT);
}

static aside_status ask(aside_cache *cache, const struct flight_key *key, const aside_call *call,
                        const struct wish *wish, aside_result *result)
{
    if (!wish->inbox || !inbox_is_lost(wish->inbox))
        return get_async(cache, key, call, wish, result);
    cache_count(cache, thread_self(), COUNTER_get_async_error);
    return ASIDE_E_FORKED;
}

aside_status aside_get_async(aside_cache *cache, const void *key, size_t key_len,
                             const aside_call *call, aside_inbox *inbox, aside_done_fn *done,
                             void *ctx, aside_result *result)
{
    aside_call own_call;
    aside_result own;
    struct wish wish = {inbox, done, ctx};
    aside_status status = ASIDE_E_INVALID;
    aside_result *to = options_result(result, &own);
    call = options_call(call, &own_call);
    if (to && cache_is(cache) && cache_is_key(key, key_len) && call && is_wish(call, &wish)) {
        struct flight_key its_key = {cache_hash(cache, key, key_len), key, key_len};
        status = ask(cache, &its_key, call, &wish, to);
    } else if (cache_is(cache)) {
        cache_count(cache, thread_self(), COUNTER_get_async_error);
    }
    if (to && to != result)
        options_give_result(result, to);
    return status;
}
