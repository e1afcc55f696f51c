/*
 * cache/fetch -- aside_get_with_fetch: the path from a miss to a value.
 *
 *   hit? -> may start? -> under the shard's lock: look again, join or lead (flight/call)
 *
 * The end of a fetch, publish(), comes from wherever the fetch decided (flight/run).
 */
#include "base/clock.h"
#include "cache/options.h"
#include "cache/read.h"
#include "cache/stats.h"
#include "flight/call.h"

#include <string.h>

struct lookup {
    struct request request; /* first */
    aside_cache *cache;
    struct shard *shard;
    int64_t now_ns; /* coarse, as the hit read it */
};

/* ---- the end of a fetch ---------------------------------------------------------------------- */

/* The entry to be stored, or NULL; *wrapper is one that only the index will know. */
static struct entry *entry_to_store(aside_cache *cache, struct flight *flight, int64_t took_ns,
                                    struct entry **wrapper)
{
    struct flight_answer *answer = &flight->answer;
    int64_t ttl_ms = answer->ttl_ms ? answer->ttl_ms : cache->default_ttl_ms;
    struct entry *entry = answer->entry;
    if (ttl_ms == ASIDE_NO_STORE || answer->status != ASIDE_OK || cache->disabled)
        return NULL;
    if (!entry)
        entry = *wrapper =
            entry_new_wrapping(flight->home, flight->key, flight->key_len, answer->given);
    flight->fresh_until_ns = cache_expiry(cache, &answer->jitter, flight->published_ns, ttl_ms);
    if (!entry)
        cache_count(cache, thread_self(), COUNTER_store_refused);
    else
        entry_set_times(entry, flight->published_ns, flight->fresh_until_ns, took_ns);
    return entry;
}

/* A fetch that took too long stores nothing, whether anybody noticed or not (F8). */
static void publish(struct flight *flight)
{
    struct host *host = flight->owned_by;
    aside_cache *cache = cache_of(host);
    struct entry *entry = NULL, *wrapper = NULL;
    int64_t now_ns = clock_precise(&host->clock);
    flight->published_ns = cache_now(cache);
    flight->overtaken = now_ns >= flight->deadline_ns;
    if (flight->answer.status == ASIDE_OK)
        flight->value = flight->answer.entry ? &flight->answer.entry->head : flight->answer.given;
    if (flight->ran)
        stats_count_time(host, now_ns - flight->began_ns);
    if (!flight->overtaken)
        entry = entry_to_store(cache, flight, now_ns - flight->began_ns, &wrapper);
    bool stored = store_publish(&cache->store, flight, entry, flight->published_ns);
    if (wrapper && stored)
        aside_value_unref(&wrapper->head);
    else if (wrapper)
        entry_discard(wrapper);
    host_flight_ended(host, flight);
}

static void release(void *its_host, size_t charge)
{
    struct host *host = its_host;
    budget_refund_lasting(&cache_of(host)->store.budget, charge);
    host_release(host, fork_generation());
}

static const struct flight_owner owner = {publish, release, NULL};

/* ---- joining or leading ---------------------------------------------------------------------- */

enum meeting { MEET_HIT, MEET_JOIN, MEET_LEAD, MEET_REFUSED, MEET_NO_ROOM };

static void result_from_entry(aside_result *result, struct entry *entry, int64_t now_ns)
{
    result->outcome = ASIDE_OUTCOME_HIT;
    result->value = entry_handle(entry);
    result->age_ms = entry_age_ms(entry, now_ns);
    result->ttl_left_ms = clock_left_ms(load_relaxed(&entry->fresh_until_ns), now_ns);
}

static enum meeting lead(struct lookup *l, struct flight *mine, aside_status *status)
    REQUIRES(l->shard->lock)
{
    struct group *group = &l->shard->group;
    struct budget *budget = &l->cache->store.budget;
    *status = ASIDE_E_BUSY;
    if (!group_begin(group, mine))
        return MEET_REFUSED;
    if (!budget_reserve_lasting(budget, mine->charge)) {
        group_end(group, mine);
        return MEET_NO_ROOM;
    }
    bool alone = l->cache->disabled == ASIDE_DISABLE_ALL;
    if (alone)
        group_lead_alone(group, mine);
    if (alone || group_lead(group, mine)) {
        host_hold(l->request.host);
        return MEET_LEAD;
    }
    group_end(group, mine);
    budget_refund_lasting(budget, mine->charge);
    *status = ASIDE_E_NOMEM;
    return MEET_REFUSED;
}

/* Under the lock that also guards the flights: look again, then join or lead (F1). */
static enum meeting meet(struct lookup *l, struct flight *mine, struct flight **flight,
                         struct flight **old, aside_status *status) REQUIRES(l->shard->lock)
{
    struct request *r = &l->request;
    bool full = false;
    *status = ASIDE_E_CLOSED;
    if (l->shard->group.closed)
        return MEET_REFUSED;
    struct entry *entry = shard_find(l->shard, r->key.hash, r->key.bytes, r->key.len);
    if (entry && entry_fresh(entry, l->now_ns)) {
        result_from_entry(&r->result, entry, l->now_ns);
        return MEET_HIT;
    }
    *flight = group_join(r->group, &r->key, mine->started_ns, r->host->max_waiters, &full, old);
    if (*flight)
        return MEET_JOIN;
    *status = ASIDE_E_BUSY;
    return full ? MEET_REFUSED : lead(l, mine, status);
}

static aside_status after_meeting(struct lookup *l, enum meeting met, struct flight *mine,
                                  struct flight *joined, aside_status status)
{
    if (met == MEET_LEAD)
        return request_lead(&l->request, mine);
    flight_discard(mine);
    switch (met) {
    case MEET_HIT: cache_count(l->cache, l->request.self, COUNTER_hits); return ASIDE_OK;
    case MEET_JOIN: return request_join(&l->request, joined);
    default: return status == ASIDE_E_CLOSED ? status : request_refuse(&l->request, status);
    }
}

static aside_status join_or_lead(struct lookup *l, struct flight *mine)
{
    aside_status status = ASIDE_E_BUSY;
    for (bool tried = false;; tried = true) {
        struct flight *joined = NULL, *old = NULL;
        lock_take(&l->shard->lock);
        enum meeting met = meet(l, mine, &joined, &old, &status);
        lock_release(&l->shard->lock);
        if (old)
            request_superseded(&l->request, old);
        bool room = met == MEET_NO_ROOM && !tried &&
                    store_make_room(&l->cache->store, l->shard, mine->charge);
        if (!room)
            return after_meeting(l, met, mine, joined, status);
    }
}

/* ---- the call -------------------------------------------------------------------------------- */

/* Whether the read that read_begin() began was a hit. */
static HOT_INLINE bool end_hit(aside_cache *cache, const struct read *read, bool found,
                               aside_result *result)
{
    if (likely(found)) {
        result_from_entry(result, read->entry, read->now_ns);
        read_hit(cache, read, COUNTER_hits);
    }
    read_end(read);
    if (likely(found))
        read_offer(cache, read);
    return found;
}

static aside_status hit_locked(struct lookup *l)
{
    struct request *r = &l->request;
    aside_status status = read_locked(l->cache, r->key.bytes, r->key.len, &r->result.value);
    r->result.outcome = status == ASIDE_OK ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_NONE;
    if (status == ASIDE_OK)
        cache_count(l->cache, NULL, COUNTER_hits);
    return status;
}

/* A value that was ready before the token fired can be seen by now, and wins (C3). */
static aside_status look_again(struct lookup *l, aside_status left)
{
    struct request *r = &l->request;
    if (!r->self) {
        aside_status status = hit_locked(l);
        return status == ASIDE_MISS ? request_refuse(r, left) : status;
    }
    struct read read = {.self = r->self};
    bool found = read_begin(l->cache, r->key.bytes, r->key.len, &read);
    if (end_hit(l->cache, &read, found, &r->result))
        return ASIDE_OK;
    return cache_is_open(l->cache) ? request_refuse(r, left) : ASIDE_E_CLOSED;
}

static aside_status miss(struct lookup *l)
{
    struct request *r = &l->request;
    cache_revive(l->cache);
    if (r->call->timeout_ms == ASIDE_NO_WAIT)
        return request_refuse(r, ASIDE_MISS);
    aside_status status = aside_cancel_status(r->call->cancel);
    if (status != ASIDE_OK)
        return look_again(l, status);
    status = request_may_start(r);
    if (status != ASIDE_OK)
        return status;
    l->shard = store_shard(&l->cache->store, r->key.hash);
    r->group = &l->shard->group;
    struct flight *mine = request_flight(r, &owner, clock_precise(&r->host->clock));
    return mine ? join_or_lead(l, mine) : request_refuse(r, ASIDE_E_NOMEM);
}

/* Whoever had no record has not looked yet, though he may have one by now. */
static aside_status no_hit(struct lookup *l, bool looked)
{
    aside_status status = ASIDE_MISS;
    if (!looked)
        status = hit_locked(l);
    else if (!cache_is_open(l->cache))
        status = ASIDE_E_CLOSED;
    return status == ASIDE_MISS ? miss(l) : status;
}

/* read: what came of a look; only its hash and its time if read.self is NULL. */
static __attribute__((noinline)) aside_status fetch(aside_cache *cache, struct read read,
                                                    const void *key, size_t key_len,
                                                    const aside_call *call, aside_result *result)
{
    struct host_call inside;
    host_enter(&cache->host, &inside);
    struct lookup l = {.cache = cache,
                       .now_ns = read.now_ns,
                       .request = {.host = &cache->host,
                                   .self = inside.self,
                                   .call = call,
                                   .key = {read.hash, key, key_len},
                                   .cancel_state = inside.cancel_state}};
    aside_status status = no_hit(&l, read.self != NULL);
    *result = l.request.result;
    request_count(&l.request, status);
    host_exit(&inside);
    return status;
}

static HOT_INLINE aside_status get_with_fetch(aside_cache *cache, const void *key, size_t key_len,
                                              const aside_call *call, aside_result *result)
{
    struct read read = {.self = thread_self()};
    if (likely(read.self)) {
        bool found = read_begin(cache, key, key_len, &read);
        if (likely(end_hit(cache, &read, found, result))) {
            cache_count(cache, read.self, COUNTER_get_with_fetch_ok);
            return ASIDE_OK;
        }
    } else {
        read.hash = cache_hash(cache, key, key_len);
        read.now_ns = cache_now(cache);
    }
    return fetch(cache, read, key, key_len, call, result);
}

aside_status aside_get_with_fetch(aside_cache *cache, const void *key, size_t key_len,
                                  const aside_call *call, aside_result *result)
{
    aside_call own;
    aside_result full = ASIDE_RESULT_INIT;
    aside_status status = ASIDE_E_INVALID;
    bool given = options_is_result(result);
    call = options_call(call, &own);
    if (given && cache_is(cache) && cache_is_key(key, key_len) && call)
        status = get_with_fetch(cache, key, key_len, call, &full);
    else if (cache_is(cache))
        cache_count(cache, thread_self(), COUNTER_get_with_fetch_error);
    if (given)
        options_give_result(result, &full);
    return status;
}
