/*
 * cache/fetch -- aside_get_with_fetch: the path from a miss to a value.
 *
 *   hit? -> look: stale, remembered? -> may start? -> under the shard's lock: look again, join or lead
 *             \-> refresh in the background             (flight/call)
 *
 * What an entry is worth that is not simply fresh, says cache/sight. The end of a fetch,
 * answer_publish(), comes from wherever the fetch decided (flight/run).
 */
#include "cache/fetch.h"

#include "base/clock.h"
#include "cache/answer.h"
#include "cache/options.h"
#include "cache/read.h"
#include "flight/run.h"

#include <string.h>

static void release(void *its_host, size_t charge)
{
    struct host *host = its_host;
    budget_refund_lasting(&cache_of(host)->store.budget, charge);
    host_release(host, fork_generation());
}

static bool make_room(const struct flight *flight, size_t bytes)
{
    struct host *host = flight->owned_by;
    struct store *store = &cache_of(host)->store;
    return store_make_room(store, store_shard(store, flight->hash), bytes);
}

static const struct flight_owner owner = {answer_publish, release, NULL, make_room};

/* ---- looking --------------------------------------------------------------------------------- */

/* Whether what this caller sees is an answer for him. */
static bool answers(const struct lookup *l)
{
    switch (l->sight) {
    case SIGHT_NONE:
    case SIGHT_RESERVE: return false;
    case SIGHT_STALE:
    case SIGHT_REFRESHED:
        return !l->rules->soft_timeout_ms || l->request.call->timeout_ms == ASIDE_NO_WAIT;
    default: return true;
    }
}

static bool is_due(enum sight sight)
{
    return sight == SIGHT_EARLY || sight == SIGHT_STALE;
}

/* A refresh that hangs is no claim for ever. */
static int64_t claim_until(const struct lookup *l)
{
    int64_t age_ms = l->cache->host.max_flight_age_ms;
    return clock_after_ms(l->by.now_ns, age_ms ? age_ms : (int64_t)60 * 60 * 1000);
}

static void take(struct lookup *l, struct entry *entry)
{
    l->status = sight_take(l->sight, entry, l->by.now_ns, &l->request.result);
    if (l->cache->store.evicts)
        policy_hit(entry);
}

/* True: it is due, and this caller's to refresh; no answer is taken yet. */
static bool take_in(struct lookup *l, struct entry *entry)
{
    l->sight = entry ? sight_of(entry, &l->by) : SIGHT_NONE;
    if (!answers(l))
        return false;
    l->claimed_ns = claim_until(l);
    if (l->claims && is_due(l->sight) && sight_claim(entry, l->by.now_ns, l->claimed_ns))
        return true;
    take(l, entry);
    return false;
}

/* Finds the key's entry, and does that to it where it cannot go away: inside the epoch, or under the
 * lock in a thread that has no record. */
static bool with_entry(struct lookup *l, bool (*visit)(struct lookup *l, struct entry *entry))
{
    struct request *r = &l->request;
    struct shard *shard = store_shard(&l->cache->store, r->key.hash);
    bool done;
    if (likely(r->self != NULL)) {
        epoch_enter(r->self);
        done = visit(l, index_find(&shard->index, r->key.hash, r->key.bytes, r->key.len));
        epoch_leave(r->self);
    } else {
        lock_take(&shard->lock);
        done = visit(l, shard_find(shard, r->key.hash, r->key.bytes, r->key.len));
        lock_release(&shard->lock);
    }
    return done;
}

static void count_sight(struct lookup *l)
{
    const struct read read = {.self = l->request.self, .hash = l->request.key.hash};
    if (read.self)
        read_offer(l->cache, &read);
    if (!l->request.met)
        cache_count(l->cache, l->request.self, sight_counter(l->sight));
    l->request.met = true;
}

/* True: what he sees is his answer, l->status. */
static bool look(struct lookup *l)
{
    l->claims = false;
    (void)with_entry(l, take_in);
    if (answers(l))
        count_sight(l);
    return answers(l);
}

/* ---- joining or leading ---------------------------------------------------------------------- */

static enum lookup_meeting lead(struct lookup *l, struct flight *mine) REQUIRES(l->shard->lock)
{
    struct group *group = &l->shard->group;
    struct budget *budget = &l->cache->store.budget;
    l->status = ASIDE_E_BUSY;
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
    l->status = ASIDE_E_NOMEM;
    return MEET_REFUSED;
}

/* The same, if there is nobody to join. A refresh goes on without its caller. */
static enum lookup_meeting join_or_lead(struct lookup *l, struct flight *mine)
    REQUIRES(l->shard->lock)
{
    struct request *r = &l->request;
    bool full = false;
    const struct flight *under_way =
        mine->background ? group_find(r->group, &r->key, mine->started_ns, &l->old) : NULL;
    if (under_way) {
        l->under_way_ns = under_way->deadline_ns;
        return MEET_JOIN;
    }
    if (!mine->background)
        l->joined =
            group_join(r->group, &r->key, mine->started_ns, r->host->max_waiters, &full, &l->old);
    if (l->joined)
        return MEET_JOIN;
    l->status = ASIDE_E_BUSY;
    return full ? MEET_REFUSED : lead(l, mine);
}

/* Under the lock that also guards the flights: look again, then join or lead (F1). */
static enum lookup_meeting meet(struct lookup *l, struct flight *mine) REQUIRES(l->shard->lock)
{
    struct request *r = &l->request;
    l->status = ASIDE_E_CLOSED;
    if (l->shard->group.closed)
        return MEET_REFUSED;
    struct entry *entry = shard_find(l->shard, r->key.hash, r->key.bytes, r->key.len);
    l->sight = entry ? sight_of(entry, &l->by) : SIGHT_NONE;
    if (!mine->background && answers(l)) {
        take(l, entry);
        return MEET_ANSWER;
    }
    enum lookup_meeting met = join_or_lead(l, mine);
    if (met == MEET_LEAD && entry && entry_is_servable(entry, l->by.now_ns)) {
        mine->previous = entry_handle(entry);
        mine->previous_tagged = entry_has_tags(entry);
    }
    if (l->watcher && !mine->background && (met == MEET_LEAD || met == MEET_JOIN))
        flight_watch(met == MEET_LEAD ? mine : l->joined, l->watcher);
    return met;
}

/* Once more where room could be made for the flight. */
enum lookup_meeting lookup_meet(struct lookup *l, struct flight *mine)
{
    for (bool tried = false;; tried = true) {
        l->joined = l->old = NULL;
        lock_take(&l->shard->lock);
        enum lookup_meeting met = meet(l, mine);
        lock_release(&l->shard->lock);
        if (l->old)
            request_superseded(&l->request, l->old);
        bool room = met == MEET_NO_ROOM && !tried &&
                    store_make_room(&l->cache->store, l->shard, mine->charge);
        if (!room)
            return met;
    }
}

struct flight *lookup_new_flight(struct lookup *l)
{
    struct request *r = &l->request;
    l->shard = store_shard(&l->cache->store, r->key.hash);
    r->group = &l->shard->group;
    struct flight *mine = request_flight(r, &owner, clock_precise(&r->host->clock));
    if (!mine)
        return NULL;
    mine->tags = &l->cache->store.tags;
    mine->read_at = tags_now(mine->tags); /* its caller may have come long before that */
    mine->rules = *l->rules;
    mine->rare = rules_are_rare(l->rules);
    return mine;
}

static aside_status refuse(struct lookup *l)
{
    if (l->status == ASIDE_E_CLOSED)
        return ASIDE_E_CLOSED;
    return request_substitute(&l->request, request_refuse(&l->request, l->status));
}

aside_status lookup_turned_away(struct lookup *l, enum lookup_meeting met)
{
    if (met != MEET_ANSWER)
        return refuse(l);
    count_sight(l);
    return l->status;
}

static aside_status fetch_or_join(struct lookup *l)
{
    struct flight *mine = lookup_new_flight(l);
    l->status = ASIDE_E_NOMEM;
    if (!mine)
        return refuse(l);
    enum lookup_meeting met = lookup_meet(l, mine);
    if (met == MEET_LEAD)
        return request_lead(&l->request, mine);
    flight_discard(mine);
    return met == MEET_JOIN ? request_join(&l->request, l->joined) : lookup_turned_away(l, met);
}

/* ---- refreshing ------------------------------------------------------------------------------ */

/* Begins a fetch that nobody waits for, unless one is under way. */
static aside_status refresh(struct lookup *l)
{
    if (!l->request.self)
        return ASIDE_E_NOMEM;
    if (flight_is_own(l->request.self, l->request.host, l->request.key.bytes, l->request.key.len))
        return ASIDE_E_DEADLOCK;
    l->request.deadline_ns = l->request.soft_ns = CLOCK_NEVER;
    struct flight *mine = lookup_new_flight(l);
    if (!mine)
        return ASIDE_E_NOMEM;
    flight_go_unattended(mine, request_refreshes_here(&l->request));
    enum lookup_meeting met = lookup_meet(l, mine);
    if (met == MEET_LEAD)
        return request_refresh(&l->request, mine);
    flight_discard(mine);
    return met == MEET_JOIN ? ASIDE_OK : l->status;
}

/* The refresh that it was claimed for was not begun: others may try when the throttle time is over. */
static bool give_up_claim(struct lookup *l, struct entry *entry)
{
    struct entry_rare *rare = entry ? entry_rare(entry) : NULL;
    if (rare)
        store_release(&rare->claimed_until_ns, clock_after_ms(l->by.now_ns, l->rules->throttle_ms));
    return rare;
}

/* It was claimed for a fetch that is under way already, which may hang: then it is too old before a
 * refresh that were begun now would be. */
static bool shorten_claim(struct lookup *l, struct entry *entry)
{
    struct entry_rare *rare = entry ? entry_rare(entry) : NULL;
    int64_t claimed_ns = l->claimed_ns;
    return rare && compare_swap(&rare->claimed_until_ns, &claimed_ns, l->under_way_ns);
}

/* Looks, and has refreshed what is due if nobody else does. Its value is taken after that: where the
 * fetch has run here, it may be a new one. */
static bool look_and_refresh(struct lookup *l)
{
    l->claims = true;
    if (!with_entry(l, take_in)) {
        if (answers(l))
            count_sight(l);
        return answers(l);
    }
    l->under_way_ns = CLOCK_NEVER;
    if (refresh(l) != ASIDE_OK)
        (void)with_entry(l, give_up_claim);
    else if (l->under_way_ns < l->claimed_ns)
        (void)with_entry(l, shorten_claim);
    l->by.now_ns = cache_now(l->cache);
    return look(l);
}

/* ---- the call -------------------------------------------------------------------------------- */

/* Only what has windows answers for another: without them a failure is its caller's, whatever somebody
 * has stored meanwhile. */
static bool take_reserve(struct lookup *l, struct entry *entry)
{
    if (!entry || !sight_is_reserve(entry, &l->by))
        return false;
    bool fresh = entry_is_fresh(entry, l->by.now_ns);
    l->sight = fresh ? SIGHT_FRESH : SIGHT_RESERVE;
    take(l, entry);
    return true;
}

/* What may answer in the place of that status. What is fresh by now is better than stale. */
static bool take_stale(struct request *r, aside_stale_cause cause, aside_status status)
{
    struct lookup *l = container_of(r, struct lookup, request);
    int code = r->result.fetch_error;
    l->by.now_ns = cache_now(l->cache);
    if (!with_entry(l, take_reserve))
        return false;
    if (r->result.outcome == ASIDE_OUTCOME_STALE) {
        r->result.stale_cause = cause;
        r->result.fetch_status = status;
        r->result.fetch_error = code;
    }
    return true;
}

static const struct request_ops ops = {take_stale};

/* Who has a stale value at hand need not wait for long. */
static void set_soft_deadline(struct lookup *l)
{
    int64_t soft_ms = l->rules->soft_timeout_ms;
    bool has_stale =
        l->sight == SIGHT_STALE || l->sight == SIGHT_REFRESHED || l->sight == SIGHT_RESERVE;
    if (has_stale && soft_ms)
        l->request.soft_ns = clock_after_ms(clock_precise(&l->request.host->clock), soft_ms);
}

/* Nothing he sees is an answer: may he join or lead? ASIDE_OK: yes. */
static aside_status may_start(struct lookup *l, aside_status token)
{
    struct request *r = &l->request;
    if (!cache_is_open(l->cache))
        return ASIDE_E_CLOSED;
    cache_revive(l->cache);
    if (r->call->timeout_ms == ASIDE_NO_WAIT)
        return request_refuse(r, ASIDE_MISS);
    if (token != ASIDE_OK)
        return request_refuse(r, token);
    aside_status status = request_may_start(r);
    if (status == ASIDE_OK)
        set_soft_deadline(l);
    return status;
}

/* Who has been cancelled, or asks for a hit or nothing, starts nothing (C2). */
static bool may_refresh(const struct lookup *l, aside_status token)
{
    return token == ASIDE_OK && l->request.call->timeout_ms != ASIDE_NO_WAIT;
}

aside_status lookup_start(struct lookup *l, bool has_entry)
{
    aside_status token = aside_cancel_status(l->request.call->cancel);
    /* A value that was ready before the token fired can be seen by now, and wins (C3). */
    bool looks = has_entry || token != ASIDE_OK;
    l->sight = SIGHT_NONE;
    if (looks && (may_refresh(l, token) ? look_and_refresh(l) : look(l)))
        return l->status;
    aside_status status = may_start(l, token);
    return status == ASIDE_OK ? ASIDE_PENDING : status;
}

void lookup_init(struct lookup *l, aside_cache *cache, const struct host_call *inside,
                 const struct flight_key *key, const aside_call *call)
{
    *l = (struct lookup){.cache = cache,
                         .rules = &cache->rules,
                         .request = {.host = &cache->host,
                                     .ops = &ops,
                                     .operation = COUNTER_get_with_fetch_ok,
                                     .self = inside->self,
                                     .call = call,
                                     .key = *key,
                                     .deadline_ns = CLOCK_NEVER,
                                     .soft_ns = CLOCK_NEVER,
                                     .read_at = tags_now(&cache->store.tags),
                                     .cancel_state = inside->cancel_state,
                                     .result = ASIDE_RESULT_INIT}};
    if (unlikely(!rules_are_none(&call->freshness))) {
        l->own_rules = rules_of(&cache->rules, &call->freshness);
        l->rules = &l->own_rules;
    }
    l->by = (struct onlooker){cache, &call->freshness, l->rules, cache_now(cache)};
}

void lookup_rebase(struct lookup *l, const aside_call *call, const void *key)
{
    if (l->rules != &l->cache->rules)
        l->rules = &l->own_rules;
    l->by.rules = l->rules;
    l->by.own = &call->freshness;
    l->request.call = call;
    l->request.key.bytes = key;
}

void lookup_again(struct lookup *l)
{
    l->request.again = false;
    l->request.result = (aside_result)ASIDE_RESULT_INIT;
    l->by.now_ns = cache_now(l->cache);
}

static aside_status run(struct lookup *l, bool has_entry)
{
    for (;; has_entry = true) {
        aside_status status = lookup_start(l, has_entry);
        if (status == ASIDE_PENDING)
            status = fetch_or_join(l);
        if (!l->request.again)
            return status;
        lookup_again(l);
    }
}

/* read: what came of a look; only its hash if read.self is NULL, who has not looked then. */
static __attribute__((noinline)) aside_status fetch(aside_cache *cache, struct read read,
                                                    const void *key, size_t key_len,
                                                    const aside_call *call, aside_result *result)
{
    struct host_call inside;
    struct lookup l;
    aside_status status = ASIDE_E_INVALID;
    host_enter(&cache->host, &inside);
    lookup_init(&l, cache, &inside, &(struct flight_key){read.hash, key, key_len}, call);
    if (rules_are(&call->freshness))
        status = run(&l, !read.self || read.entry);
    *result = l.request.result;
    request_count(&l.request, status);
    host_exit(&inside);
    return status;
}

/* Of a hit that another cache's value lies in, or that is not simply fresh until its ttl ends. */
static OUT_OF_LINE void take_special(struct entry *entry, int64_t now_ns, aside_result *result)
{
    result->value = entry_handle(entry);
    result->ttl_left_ms = clock_left_ms(entry_expires(entry), now_ns);
}

/* Whether the read that read_begin() began was a hit. */
static HOT_INLINE bool end_hit(aside_cache *cache, const struct read *read, bool found,
                               aside_result *result)
{
    if (likely(found)) {
        struct entry *entry = read->entry;
        result->outcome = ASIDE_OUTCOME_HIT;
        result->age_ms = entry_age_ms(entry, read->now_ns);
        result->ttl_left_ms = clock_left_ms(load_relaxed(&entry->fresh_until_ns), read->now_ns);
        if (unlikely(entry_marks(entry) & (ENTRY_WRAPS | ENTRY_RARE)))
            take_special(entry, read->now_ns, result);
        else
            result->value = entry_own_handle(entry);
        read_hit(cache, read, COUNTER_hits);
    }
    read_end(read);
    if (likely(found))
        read_offer(cache, read);
    return found;
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
    }
    return fetch(cache, read, key, key_len, call, result);
}

aside_status aside_get_with_fetch(aside_cache *cache, const void *key, size_t key_len,
                                  const aside_call *call, aside_result *result)
{
    aside_call own_call;
    aside_result own;
    aside_status status = ASIDE_E_INVALID;
    aside_result *to = options_result(result, &own);
    call = options_call(call, &own_call);
    if (to && cache_is(cache) && cache_is_key(key, key_len) && call)
        status = get_with_fetch(cache, key, key_len, call, to);
    else if (cache_is(cache))
        cache_count(cache, thread_self(), COUNTER_get_with_fetch_error);
    if (unlikely(to != result && to))
        options_give_result(result, to);
    return status;
}

static aside_status refresh_inside(aside_cache *cache, const void *key, size_t key_len,
                                   const aside_call *call)
{
    struct host_call inside;
    struct lookup l;
    struct flight_key its_key = {cache_hash(cache, key, key_len), key, key_len};
    host_enter(&cache->host, &inside);
    lookup_init(&l, cache, &inside, &its_key, call);
    cache_revive(cache);
    aside_status status = cache_is_open(cache) ? refresh(&l) : ASIDE_E_CLOSED;
    cache_count(cache, inside.self, counter_of(COUNTER_refresh_ok, status));
    host_exit(&inside);
    return status;
}

aside_status aside_refresh(aside_cache *cache, const void *key, size_t key_len,
                           const aside_call *call)
{
    aside_call own;
    call = options_call(call, &own);
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    if (cache_is_key(key, key_len) && call && rules_are(&call->freshness))
        return refresh_inside(cache, key, key_len, call);
    cache_count(cache, thread_self(), COUNTER_refresh_error);
    return ASIDE_E_INVALID;
}
