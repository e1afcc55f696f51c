/*
 * cache/alone -- the stand-alone group: the flights of a cache, without the cache.
 *
 * Keys are spread over slots, each with a lock and a group (flight/group); everything else is a
 * cache's, by way of their common host (flight/host) and call (flight/call). Nothing is stored, so
 * what completes a flight is short: note the answer, settle, wake.
 *
 * Flights are dated by the coarse clock: the precise one would cost half of what a call costs that
 * finds nobody to share with. So a flight may be superseded one tick early. A flight that nobody
 * noticed to be too old is as good as any: nothing is stored.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "cache/options.h"
#include "cache/stats.h"
#include "flight/call.h"
#include "flight/solo.h"

#include <aside/group.h>

#define MAGIC 0x41475250 /* "AGRP" */
#define SLOTS 64

struct slot {
    _Alignas(CACHE_LINE) struct lock lock;
    struct group group;
};

struct aside_group {
    _Alignas(CACHE_LINE) uint32_t magic;
    struct hash_seed seed; /* immutable */
    bool plain;            /* immutable: no hook of the user's runs in a call but the fetch */
    void *block;
    struct host host;
    struct slot slots[SLOTS];
};

static aside_group *group_of(struct host *host)
{
    return container_of(host, struct aside_group, host);
}

static bool is_group(const aside_group *group)
{
    return group && group->magic == MAGIC;
}

static bool is_key(const void *key, size_t key_len)
{
    return key_len <= ASIDE_MAX_KEY && (key || key_len == 0);
}

/* ---- the end of a fetch ---------------------------------------------------------------------- */

static void publish(struct flight *flight)
{
    struct host *host = flight->owned_by;
    struct flight_answer *answer = &flight->answer;
    if (!flight->decides_at_leaders)
        flight->published_ns = host_now(host);
    if (answer->status == ASIDE_OK)
        flight->value = answer->entry ? &answer->entry->head : answer->given;
    if (answer->entry)
        entry_pin(answer->entry);
    if (!flight->decides_at_leaders)
        thread_count_prepare(&host->home->account);
    group_lock(flight->group);
    flight->overtaken = !group_may_store(flight);
    flight_count(flight);
    group_end(flight->group, flight);
    if (!flight_is_settled(flight)) {
        flight->answered = true; /* before anybody can see that it is settled */
        (void)group_settle(flight, answer->status);
    }
    group_unlock(flight->group);
    host_flight_ended(host, flight);
}

static void release(void *host, size_t charge)
{
    (void)charge;
    host_release(host, fork_generation());
}

static void adopt(void *host)
{
    host_hold(host);
}

static const struct flight_owner owner = {publish, release, adopt, NULL};

/* ---- a call ---------------------------------------------------------------------------------- */

static struct slot *slot_for(aside_group *group, uint64_t hash)
{
    return &group->slots[hash >> 32 & (SLOTS - 1)];
}

/* Under the slot's lock: the flight to join; or NULL, and mine is led if *status is ASIDE_OK. */
static struct flight *meet(struct request *r, struct flight *mine, struct flight **old,
                           aside_status *status) REQUIRES(r->group->lock)
{
    bool full = false;
    *status = ASIDE_E_CLOSED;
    if (r->group->closed)
        return NULL;
    *status = ASIDE_OK;
    struct flight *joined =
        group_join(r->group, &r->key, mine->started_ns, r->host->max_waiters, &full, old);
    if (joined)
        return joined;
    if (full || !group_begin(r->group, mine))
        *status = ASIDE_E_BUSY;
    else if (!group_lead(r->group, mine))
        *status = ASIDE_E_NOMEM;
    else
        host_hold(r->host);
    if (*status == ASIDE_E_NOMEM)
        group_end(r->group, mine);
    return NULL;
}

static aside_status join_or_lead(struct request *r, struct flight *mine)
{
    struct flight *old = NULL;
    aside_status status;
    group_lock(r->group);
    struct flight *joined = meet(r, mine, &old, &status);
    group_unlock(r->group);
    if (old)
        request_superseded(r, old);
    if (!joined && status == ASIDE_OK)
        return request_lead(r, mine);
    flight_discard(mine);
    if (joined)
        return request_join(r, joined);
    return status == ASIDE_E_CLOSED ? status : request_refuse(r, status);
}

static aside_status start(aside_group *group, struct request *r)
{
    aside_status status;
    r->key.hash = hash_bytes(&group->seed, r->key.bytes, r->key.len);
    r->group = &slot_for(group, r->key.hash)->group;
    if (!host_is_open(r->host))
        return ASIDE_E_CLOSED;
    if (r->call->timeout_ms == ASIDE_NO_WAIT) {
        host_count(r->host, r->self, COUNTER_misses);
        return ASIDE_MISS;
    }
    status = aside_cancel_status(r->call->cancel);
    if (status != ASIDE_OK)
        return request_refuse(r, status);
    status = request_may_start(r);
    if (status != ASIDE_OK)
        return status;
    struct flight *mine = request_flight(r, &owner, host_now(r->host));
    return mine ? join_or_lead(r, mine) : request_refuse(r, ASIDE_E_NOMEM);
}

static aside_status do_inside(aside_group *group, struct request *r)
{
    struct host_call inside;
    r->host = &group->host;
    if (group->plain && !r->call->arg_retain && !r->call->cancel)
        host_enter_lightly(r->host, &inside);
    else
        host_enter(r->host, &inside);
    r->self = inside.self;
    r->cancel_state = inside.cancel_state;
    aside_status status = start(group, r);
    request_count(r, status);
    inside.cancel_state = r->cancel_state;
    host_exit(&inside);
    return status;
}

static OUT_OF_LINE aside_status do_any(aside_group *group, const void *key, size_t key_len,
                                       const aside_call *call, aside_result *result)
{
    aside_call own;
    struct request r = {.operation = COUNTER_get_with_fetch_ok,
                        .call = options_call(call, &own),
                        .key = {0, key, key_len},
                        .deadline_ns = CLOCK_NEVER,
                        .soft_ns = CLOCK_NEVER,
                        .result = ASIDE_RESULT_INIT};
    aside_status status = ASIDE_E_INVALID;
    aside_result own_result, *to = options_result(result, &own_result);
    if (to && r.call && is_group(group) && is_key(key, key_len))
        status = do_inside(group, &r);
    else if (is_group(group))
        host_count(&group->host, thread_self(), COUNTER_get_with_fetch_error);
    if (to)
        options_give_result(result, &r.result);
    return status;
}

/* True: done. The way of most calls, for which nothing is prepared that they do not need. */
static HOT_INLINE bool do_solo(aside_group *group, struct flight_key key, const aside_call *call,
                               aside_result *result, aside_status *status)
{
    struct request r;
    r.self = thread_self();
    if (!r.self || r.self->fetches)
        return false;
    key.hash = hash_bytes(&group->seed, key.bytes, key.len);
    r.host = &group->host;
    r.call = call;
    r.key = key;
    r.group = &slot_for(group, key.hash)->group;
    r.cancel_state = HOST_CANCEL_UNTOUCHED;
    return solo_call(&r, &owner, result, status);
}

aside_status aside_group_do(aside_group *group, const void *key, size_t key_len,
                            const aside_call *call, aside_result *result)
{
    struct flight_key its_key = {0, key, key_len};
    aside_status status;
    if (likely(is_group(group) && group->plain && key && key_len <= SOLO_KEY && call &&
               solo_fits(call) && result && result->struct_size == sizeof *result) &&
        do_solo(group, its_key, call, result, &status))
        return status;
    return do_any(group, key, key_len, call, result);
}

aside_status aside_group_forget(aside_group *group, const void *key, size_t key_len)
{
    if (!is_group(group) || !is_key(key, key_len))
        return ASIDE_E_INVALID;
    struct flight_key wanted = {hash_bytes(&group->seed, key, key_len), key, key_len};
    struct slot *slot = slot_for(group, wanted.hash);
    group_lock(&slot->group);
    bool closed = slot->group.closed || !host_is_open(&group->host);
    bool forgotten = group_fence(&slot->group, &wanted);
    group_unlock(&slot->group);
    if (closed)
        return ASIDE_E_CLOSED;
    return forgotten ? ASIDE_OK : ASIDE_MISS;
}

/* ---- what its host asks of it ---------------------------------------------------------------- */

static struct group *group_at(struct host *host, size_t number)
{
    return number < SLOTS ? &group_of(host)->slots[number].group : NULL;
}

static void shut(struct host *host)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &group_of(host)->slots[i];
        group_lock(&slot->group);
        slot->group.closed = true;
        group_fence_all(&slot->group);
        group_unlock(&slot->group);
    }
}

static void fini_slots(aside_group *group)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        group_fini(&group->slots[i].group);
        lock_fini(&group->slots[i].lock);
    }
}

static void free_group(struct host *host)
{
    aside_group *group = group_of(host);
    struct mem mem = host->home->mem;
    fork_leave(&host->forks);
    group->magic = 0;
    fini_slots(group);
    host_fini(host);
    mem_free(&mem, group->block);
}

static const struct host_ops ops = {.group = group_at, .shut = shut, .free = free_group};

/* ---- life ------------------------------------------------------------------------------------ */

static void init_slots(aside_group *group)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &group->slots[i];
        lock_init(&slot->lock, RANK_SHARD);
        group_init(&slot->group, &slot->lock, &group->host.home->mem, &group->host.bound);
        if (group->plain)
            group_make_room(&slot->group);
    }
}

static aside_status build(aside_group *group, const struct mem *mem, const aside_options *options)
{
    if (!hash_seed_init(&group->seed, options->hash_seed))
        return ASIDE_E_SYSTEM;
    aside_status status = host_init(&group->host, &ops, mem, options, SLOTS);
    if (status != ASIDE_OK)
        return status;
    group->plain = !options->alloc.malloc && !options->clock.now_ns && !options->worker.start;
    init_slots(group);
    host_enlist(&group->host);
    group->magic = MAGIC;
    return ASIDE_OK;
}

aside_status aside_group_new(aside_group **group, const aside_options *options)
{
    aside_options own;
    struct mem mem;
    if (group)
        *group = NULL;
    if (!group || !options_take(&own, options) || !mem_init(&mem, &own.alloc))
        return ASIDE_E_INVALID;
    void *block;
    aside_group *made = mem_zalloc_lines(&mem, sizeof *made, &block);
    if (!made)
        return ASIDE_E_NOMEM;
    made->block = block;
    aside_status status = build(made, &mem, &own);
    if (status == ASIDE_OK)
        *group = made;
    else
        mem_free(&mem, block);
    return status;
}

aside_status aside_group_close(aside_group *group)
{
    if (!is_group(group))
        return ASIDE_E_INVALID;
    host_close(&group->host);
    return ASIDE_OK;
}

aside_group *aside_group_ref(aside_group *group)
{
    if (is_group(group))
        host_ref(&group->host);
    return group;
}

void aside_group_unref(aside_group *group)
{
    if (is_group(group))
        host_unref(&group->host);
}

aside_status aside_group_clock_changed(aside_group *group)
{
    if (!is_group(group))
        return ASIDE_E_INVALID;
    host_wake(&group->host);
    return ASIDE_OK;
}

aside_status aside_group_stats_get(const aside_group *group, aside_stats *stats)
{
    aside_stats full;
    if (!is_group(group) || !stats || !options_copy(&full, sizeof full, stats))
        return ASIDE_E_INVALID;
    stats_of_host(&((aside_group *)(uintptr_t)group)->host, &full);
    options_give_stats(stats, &full);
    return ASIDE_OK;
}
