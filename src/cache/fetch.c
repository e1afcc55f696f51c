/*
 * cache/fetch -- aside_get_with_fetch: the path from a miss to a value.
 *
 *   hit? -> leave? -> own fetch? -> under the shard's lock: look again, join or lead
 *     lead:  on this thread, or by a worker or the user's executor; then wait as who joined does
 *     wait:  until settled; or leave, by token or deadline; or supersede, past the flight's age
 *
 * The end of a fetch, publish(), comes from wherever the fetch decided (flight/run).
 */
#include "base/clock.h"
#include "cache/options.h"
#include "cache/read.h"
#include "flight/cancel.h"
#include "flight/run.h"

#include <pthread.h>
#include <string.h>

struct request {
    aside_cache *cache;
    struct thread_record *self;
    const aside_call *call;
    struct flight_key key;
    struct shard *shard;
    int64_t now_ns;      /* coarse, as the hit read it */
    int64_t deadline_ns; /* precise; CLOCK_NEVER */
    int cancel_state;    /* of the thread, for callbacks */
    aside_result result;
};

/* ---- results --------------------------------------------------------------------------------- */

static int64_t left_ms(int64_t until_ns, int64_t now_ns)
{
    if (until_ns == CLOCK_NEVER)
        return ASIDE_FOREVER;
    return until_ns > now_ns ? (until_ns - now_ns) / 1000000 : 0;
}

static void result_from_entry(aside_result *result, struct entry *entry, int64_t now_ns)
{
    result->outcome = ASIDE_OUTCOME_HIT;
    result->value = entry_handle(entry);
    result->age_ms = entry_age_ms(entry, now_ns);
    result->ttl_left_ms = left_ms(load_relaxed(&entry->fresh_until_ns), now_ns);
}

/* What the fetch said, once it has published. */
static aside_status take_answer(struct request *r, struct flight *flight)
{
    int64_t now_ns = cache_now(r->cache);
    r->result.shared = flight->shared;
    r->result.fenced = flight->overtaken;
    r->result.fetch_error = flight->answer.code;
    if (flight->shared)
        cache_count(r->cache, r->self, COUNTER_shared);
    if (flight->answer.status != ASIDE_OK)
        return flight->answer.status;
    r->result.value = aside_value_ref(flight->value);
    r->result.age_ms = (now_ns - flight->published_ns) / 1000000;
    r->result.ttl_left_ms = flight->stored ? left_ms(flight->fresh_until_ns, now_ns) : 0;
    return ASIDE_OK;
}

/* A flight that was superseded or closed has a verdict without an answer. */
static aside_status take_verdict(struct request *r, struct flight *flight)
{
    return flight->answered ? take_answer(r, flight) : flight->verdict;
}

static aside_status refuse(struct request *r, aside_status status)
{
    cache_count(r->cache, r->self, COUNTER_refused);
    return status;
}

/* ---- the end of a fetch ---------------------------------------------------------------------- */

/* The entry to be stored, or NULL; *wrapper is one that only the index will know. */
static struct entry *entry_to_store(aside_cache *cache, struct flight *flight, int64_t took_ns,
                                    struct entry **wrapper)
{
    struct flight_answer *answer = &flight->answer;
    int64_t ttl_ms = answer->ttl_ms ? answer->ttl_ms : cache->default_ttl_ms;
    struct entry *entry = answer->entry;
    if (ttl_ms == ASIDE_NO_STORE || answer->status != ASIDE_OK)
        return NULL;
    if (!entry)
        entry = *wrapper =
            entry_new_wrapping(cache->home, flight->key, flight->key_len, answer->given);
    flight->fresh_until_ns = clock_after_ms(flight->published_ns, ttl_ms);
    if (!entry)
        cache_count(cache, thread_self(), COUNTER_store_refused);
    else
        entry_set_times(entry, flight->published_ns, flight->fresh_until_ns, took_ns);
    return entry;
}

/* A fetch that took too long stores nothing, whether anybody noticed or not (F8). */
static void publish(struct flight *flight)
{
    aside_cache *cache = flight->owned_by;
    struct entry *entry = NULL, *wrapper = NULL;
    int64_t now_ns = clock_precise(&cache->clock);
    flight->published_ns = cache_now(cache);
    flight->overtaken = now_ns >= flight->deadline_ns;
    if (flight->answer.status == ASIDE_OK)
        flight->value = flight->answer.entry ? &flight->answer.entry->head : flight->answer.given;
    if (!flight->overtaken)
        entry = entry_to_store(cache, flight, now_ns - flight->began_ns, &wrapper);
    store_release(&flight->counted, false);
    fetch_sub_acq_rel(&cache->flights_now, 1);
    bool stored = store_publish(&cache->store, flight, entry, flight->published_ns);
    if (wrapper && stored)
        aside_value_unref(&wrapper->head);
    else if (wrapper)
        entry_discard(wrapper);
    if (!cache_is_open(cache))
        park_wake_all(&cache->ends);
    store_release(&flight->ended, true);
    flight_wake(flight);
}

static void release(void *its_cache, size_t charge)
{
    aside_cache *cache = its_cache;
    budget_refund_lasting(&cache->store.budget, charge);
    cache_release(cache);
}

static const struct flight_owner owner = {publish, release};

/* ---- waiting --------------------------------------------------------------------------------- */

/* After the lock is released. Nobody needs what is still in the queue. */
static void after_superseding(struct request *r, struct flight *flight)
{
    flight_wake(flight);
    cache_count(r->cache, r->self, COUNTER_superseded);
    if (executor_take(r->cache->executor, &flight->job))
        flight_refuse(flight, ASIDE_E_FETCH_TIMEOUT, 0);
}

static void supersede(struct request *r, struct flight *flight)
{
    lock_take(&r->shard->lock);
    bool superseded = group_supersede(flight);
    lock_release(&r->shard->lock);
    if (superseded)
        after_superseding(r, flight);
}

/* True: this caller has left; false: the flight was settled by then, and its verdict is his. */
static bool leave(struct request *r, struct flight *flight, enum counter counter)
{
    lock_take(&r->shard->lock);
    bool left = group_leave(flight, r->result.outcome == ASIDE_OUTCOME_FETCHED);
    lock_release(&r->shard->lock);
    if (left)
        cache_count(r->cache, r->self, counter);
    return left;
}

/* The innermost fetch of this cache that this thread is inside of: its worker's context can be lent. */
static const struct thread_fetch *own_fetch(const struct request *r)
{
    const struct thread_fetch *f = r->self->fetches;
    while (f && f->owner != r->cache)
        f = f->outer;
    return f;
}

/* A thread inside a fetch must not wait for a worker that may be waiting for it. */
static void help(struct request *r, struct flight *flight)
{
    struct executor *executor = r->cache->executor;
    const struct thread_fetch *fetch = own_fetch(r);
    if (!r->self->fetches || (!fetch && executor_binds_fetches(executor)) ||
        !executor_take_stuck(executor, &flight->job))
        return;
    flight->began_ns = clock_precise(&r->cache->clock);
    if (flight_is_settled(flight))
        flight_refuse(flight, flight->verdict, 0);
    else
        (void)flight_run(flight, r->self, fetch ? fetch->worker : NULL, r->cancel_state, true);
}

static enum waiter_end sleep_on(struct request *r, struct flight *flight)
{
    struct waiter waiter;
    aside_cancel *token = r->call->cancel;
    int64_t until_ns = r->deadline_ns < flight->deadline_ns ? r->deadline_ns : flight->deadline_ns;
    uint32_t number = (uint32_t)fetch_add_relaxed(&r->cache->waiters_now, 1);
    waiter_init(&waiter, &flight->park, number);
    cancel_enlist(token, &waiter);
    enum waiter_end end = waiter_wait(&waiter, &flight->settled, &r->cache->clock, until_ns);
    cancel_delist(token, &waiter);
    waiter_fini(&waiter);
    fetch_sub_relaxed(&r->cache->waiters_now, 1);
    return end;
}

/* Until there is a verdict, or the caller leaves. Keeps the reference. */
static aside_status wait_for(struct request *r, struct flight *flight)
{
    help(r, flight);
    enum waiter_end end = sleep_on(r, flight);
    if (end == WAITER_LEAVES_CANCELLED && leave(r, flight, COUNTER_cancelled))
        return ASIDE_E_CANCELLED;
    if (end == WAITER_LEAVES_LATE) {
        bool own = r->deadline_ns <= flight->deadline_ns;
        if (own && leave(r, flight, COUNTER_timeouts))
            return ASIDE_E_TIMEOUT;
        if (!own)
            supersede(r, flight);
    }
    return take_verdict(r, flight);
}

/* ---- leading --------------------------------------------------------------------------------- */

static bool may_leave(const struct request *r)
{
    return r->call->cancel || r->deadline_ns != CLOCK_NEVER;
}

/* A leader who cannot leave stays until his fetch has ended, superseded or closed as the flight
 * may be: the argument may be on his stack (C7). The answer is his all the same. */
static aside_status stay(struct request *r, struct flight *flight)
{
    struct waiter waiter;
    help(r, flight);
    uint32_t number = (uint32_t)fetch_add_relaxed(&r->cache->waiters_now, 1);
    waiter_init(&waiter, &flight->park, number);
    const aside_clock *clock = &r->cache->clock;
    if (waiter_wait(&waiter, &flight->ended, clock, flight->deadline_ns) == WAITER_LEAVES_LATE) {
        supersede(r, flight);
        (void)waiter_wait(&waiter, &flight->ended, clock, CLOCK_NEVER);
    }
    waiter_fini(&waiter);
    fetch_sub_relaxed(&r->cache->waiters_now, 1);
    return take_answer(r, flight);
}

static aside_status lead_here(struct request *r, struct flight *flight)
{
    const struct thread_fetch *outer = own_fetch(r);
    cache_count(r->cache, r->self, COUNTER_misses_led);
    if (flight_run(flight, r->self, outer ? outer->worker : NULL, r->cancel_state, true))
        return take_answer(r, flight);
    return stay(r, flight);
}

static aside_status hand_over(struct request *r, struct flight *flight)
{
    const aside_submit *submit = &r->cache->submit;
    if (submit->fn) {
        struct thread_fetch frame;
        run_push(r->self, &frame, flight, NULL);
        aside_status status = submit->fn(submit->ctx, (aside_job *)flight);
        run_pop(r->self, &frame);
        return status == ASIDE_OK ? ASIDE_OK : ASIDE_E_BUSY;
    }
    flight_job_init(flight);
    if (executor_is_clogged(r->cache->executor))
        return ASIDE_E_BUSY;
    return executor_submit(r->cache->executor, &flight->job);
}

static aside_status lead(struct request *r, struct flight *flight)
{
    struct thread_fetch frame;
    r->result.outcome = ASIDE_OUTCOME_FETCHED;
    run_push(r->self, &frame, flight, NULL);
    flight_keep_argument(flight, r->call);
    run_pop(r->self, &frame);
    if (!executor_binds_fetches(r->cache->executor) && !may_leave(r))
        return lead_here(r, flight);
    aside_status status = hand_over(r, flight);
    if (status != ASIDE_OK) {
        flight_refuse(flight, status, 0);
        r->result.outcome = ASIDE_OUTCOME_NONE;
        return refuse(r, status);
    }
    cache_count(r->cache, r->self, COUNTER_misses_led);
    return may_leave(r) ? wait_for(r, flight) : stay(r, flight);
}

static aside_status join(struct request *r, struct flight *flight)
{
    r->result.outcome = ASIDE_OUTCOME_JOINED;
    cache_count(r->cache, r->self, COUNTER_misses_joined);
    return wait_for(r, flight);
}

/* ---- joining or leading ---------------------------------------------------------------------- */

enum meeting { MEET_HIT, MEET_JOIN, MEET_LEAD, MEET_REFUSED, MEET_NO_ROOM };

static bool count_flight(aside_cache *cache)
{
    size_t now = load_relaxed(&cache->flights_now);
    do {
        if (cache->max_flights && now >= cache->max_flights)
            return false;
    } while (!compare_swap(&cache->flights_now, &now, now + 1));
    return true;
}

static enum meeting reserve_flight(aside_cache *cache, struct flight *flight)
{
    if (!count_flight(cache))
        return MEET_REFUSED;
    if (budget_reserve_lasting(&cache->store.budget, flight->charge)) {
        store_release(&flight->counted, true);
        cache_hold(cache);
        return MEET_LEAD;
    }
    fetch_sub_acq_rel(&cache->flights_now, 1);
    return MEET_NO_ROOM;
}

static enum meeting try_to_lead(struct request *r, struct flight *mine, aside_status *status)
    REQUIRES(r->shard->lock)
{
    aside_cache *cache = r->cache;
    *status = ASIDE_E_BUSY;
    enum meeting reserved = reserve_flight(cache, mine);
    if (reserved != MEET_LEAD || group_lead(&r->shard->group, mine))
        return reserved;
    fetch_sub_acq_rel(&cache->flights_now, 1);
    release(cache, mine->charge);
    *status = ASIDE_E_NOMEM;
    return MEET_REFUSED;
}

/* Under the lock that also guards the flights: look again, then join or lead (F1). */
static enum meeting meet(struct request *r, struct flight *mine, struct flight **flight,
                         struct flight **old, aside_status *status) REQUIRES(r->shard->lock)
{
    bool full = false;
    *status = ASIDE_E_CLOSED;
    if (r->shard->closed)
        return MEET_REFUSED;
    struct entry *entry = shard_find(r->shard, r->key.hash, r->key.bytes, r->key.len);
    if (entry && entry_fresh(entry, r->now_ns)) {
        result_from_entry(&r->result, entry, r->now_ns);
        return MEET_HIT;
    }
    *flight =
        group_join(&r->shard->group, &r->key, mine->started_ns, r->cache->max_waiters, &full, old);
    if (*flight)
        return MEET_JOIN;
    *status = ASIDE_E_BUSY;
    return full ? MEET_REFUSED : try_to_lead(r, mine, status);
}

static aside_status after_meeting(struct request *r, enum meeting met, struct flight *mine,
                                  struct flight *joined, aside_status status)
{
    struct flight *flight = met == MEET_LEAD ? mine : joined;
    if (met != MEET_LEAD)
        flight_discard(mine);
    if (met == MEET_HIT) {
        cache_count(r->cache, r->self, COUNTER_hits);
        return ASIDE_OK;
    }
    if (met != MEET_LEAD && met != MEET_JOIN)
        return status == ASIDE_E_CLOSED ? status : refuse(r, status);
    status = met == MEET_LEAD ? lead(r, flight) : join(r, flight);
    flight_unref(flight);
    return status;
}

static aside_status join_or_lead(struct request *r, struct flight *mine)
{
    aside_status status = ASIDE_E_BUSY;
    for (bool tried = false;; tried = true) {
        struct flight *joined = NULL, *old = NULL;
        lock_take(&r->shard->lock);
        enum meeting met = meet(r, mine, &joined, &old, &status);
        lock_release(&r->shard->lock);
        if (old) {
            after_superseding(r, old);
            flight_unref(old);
        }
        bool room = met == MEET_NO_ROOM && !tried &&
                    store_make_room(&r->cache->store, r->shard, mine->charge);
        if (!room)
            return after_meeting(r, met, mine, joined, status);
    }
}

static bool hit(struct request *r, aside_status *status)
{
    struct read read = {.self = r->self};
    if (unlikely(!r->self)) {
        *status = read_locked(r->cache, r->key.bytes, r->key.len, &r->result.value);
        r->result.outcome = *status == ASIDE_OK ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_NONE;
        if (*status == ASIDE_OK)
            cache_count(r->cache, NULL, COUNTER_hits);
        return *status != ASIDE_MISS;
    }
    bool found = read_begin(r->cache, r->key.bytes, r->key.len, &read);
    r->key.hash = read.hash;
    r->now_ns = read.now_ns;
    if (found) {
        result_from_entry(&r->result, read.entry, read.now_ns);
        read_hit(r->cache, &read);
    }
    read_end(&read);
    *status = found ? ASIDE_OK : cache_is_open(r->cache) ? ASIDE_MISS : ASIDE_E_CLOSED;
    return *status != ASIDE_MISS;
}

static aside_status miss(struct request *r)
{
    aside_cache *cache = r->cache;
    const aside_call *call = r->call;
    aside_status status;
    if (call->timeout_ms == ASIDE_NO_WAIT)
        return refuse(r, ASIDE_MISS);
    /* A value that was ready before the token fired can be seen by now, and wins (C3). */
    if (aside_cancel_fired(call->cancel))
        return hit(r, &status) ? status : refuse(r, ASIDE_E_CANCELLED);
    if (!r->self)
        return refuse(r, ASIDE_E_NOMEM);
    if (flight_is_own(r->self, cache, r->key.bytes, r->key.len))
        return refuse(r, ASIDE_E_DEADLOCK);
    int64_t now_ns = clock_precise(&cache->clock);
    r->deadline_ns = call->timeout_ms ? clock_after_ms(now_ns, call->timeout_ms) : CLOCK_NEVER;
    struct flight_options options = {&owner,        cache,  cache->executor,         cache->home,
                                     &cache->clock, now_ns, cache->max_flight_age_ms};
    struct flight *mine = flight_new(&options, &r->key, call);
    return mine ? join_or_lead(r, mine) : refuse(r, ASIDE_E_NOMEM);
}

/* ---- the call -------------------------------------------------------------------------------- */

static aside_status get_with_fetch(aside_cache *cache, const void *key, size_t key_len,
                                   const aside_call *call, aside_result *result)
{
    struct request r = {.cache = cache, .self = thread_self(), .call = call};
    aside_status status;
    r.key = (struct flight_key){0, key, key_len};
    struct cache_call inside;
    cache_enter(cache, &inside);
    r.cancel_state = inside.cancel_state;
    if (!hit(&r, &status)) {
        r.shard = store_shard(&cache->store, r.key.hash);
        status = miss(&r);
    }
    *result = r.result;
    cache_exit(&inside);
    return status;
}

/* The caller's struct may be an older, shorter one. */
static void give_result(aside_result *to, aside_result *from)
{
    from->struct_size = to->struct_size;
    memcpy(to, from, to->struct_size < sizeof *from ? to->struct_size : sizeof *from);
}

aside_status aside_get_with_fetch(aside_cache *cache, const void *key, size_t key_len,
                                  const aside_call *call, aside_result *result)
{
    aside_call own;
    aside_result full = ASIDE_RESULT_INIT, given;
    if (!result || !options_copy(&given, sizeof given, result) ||
        result->struct_size < offsetof(aside_result, outcome))
        return ASIDE_E_INVALID;
    aside_status status = ASIDE_E_INVALID;
    if (cache_is(cache) && cache_is_key(key, key_len) && call && options_take_call(&own, call))
        status = get_with_fetch(cache, key, key_len, &own, &full);
    give_result(result, &full);
    return status;
}
