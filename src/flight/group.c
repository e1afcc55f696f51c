/* flight/group -- see group.h. */
#include "flight/group.h"

#include "base/check.h"
#include "base/counter.h"

#include <string.h>

#define MAGIC 0x41464c54 /* "AFLT" */

void flight_bound_init(struct flight_bound *bound, size_t max, size_t groups)
{
    bound->max = max;
    bound->kept = max / (8 * groups);
    atomic_init(&bound->credits, max);
}

void group_init(struct group *group, struct lock *lock, const struct mem *mem,
                struct flight_bound *bound)
{
    group->lock = lock;
    group->bound = bound && bound->max ? bound : NULL;
    group->flights = group->outrun = group->only = NULL;
    group->stamp = 0;
    group->running = group->credits = 0;
    group->closed = group->has_room = false;
    atomic_init(&group->solo, GROUP_SHARED);
    table_init(&group->current, mem);
}

void group_fini(struct group *group)
{
    table_fini(&group->current);
}

/* ---- a flight -------------------------------------------------------------------------------- */

size_t flight_size(size_t key_len, const aside_call *call)
{
    size_t size = sizeof(struct flight) + key_len + 16;
    return size_add(size, call->arg_size, &size) && size <= SIZE_MAX / 2 ? size : 0;
}

void flight_go_unattended(struct flight *flight, bool offered)
{
    atomic_init(&flight->offered, offered);
    flight->background = true;
    flight->waiters = 0;
    flight->leader_attached = false;
}

void flight_keep_argument(struct flight *flight, const aside_call *call)
{
    call->arg_retain(call->arg);
    flight->arg_release = call->arg_release;
}

static void copy_argument(struct flight *flight, const aside_call *call)
{
    flight->arg = call->arg;
    if (!call->arg_size)
        return;
    memcpy(flight->bytes, call->arg, call->arg_size);
    flight->arg = flight->bytes;
}

static void set_options(struct flight *flight, const struct flight_options *options)
{
    flight->owner = options->owner;
    flight->owned_by = options->owned_by;
    flight->generation = fork_generation();
    flight->executor = options->executor;
    flight->home = options->home;
    flight->clock = options->clock;
    flight_date(flight, options->now_ns, options->max_age_ms);
}

void flight_prepare(struct flight *flight, const struct flight_options *options,
                    const struct flight_key *key, const aside_call *call)
{
    memset((char *)flight + offsetof(struct flight, next), 0,
           offsetof(struct flight, bytes) - offsetof(struct flight, next));
    flight->magic = MAGIC;
    set_options(flight, options);
    flight->charge = 0;
    flight->group = NULL;
    flight->hash = key->hash;
    flight->fetch = call->fetch;
    flight->arg_release = NULL;
    flight->stops = call->stop_when_abandoned != 0;
    flight->rare = flight->background = false;
    flight->tags = NULL;
    flight->previous = NULL;
    flight->answer.status = ASIDE_PENDING;
    flight->answer.ttl_ms = call->ttl_ms;
    flight->answer.jitter = call->jitter;
    flight->key_len = key->len;
    unsigned char *key_bytes = flight->bytes + size_padded(call->arg_size);
    if (key->len)
        memcpy(key_bytes, key->bytes, key->len);
    flight->key = key_bytes;
    flight->waiters = 1;
    flight->leader_attached = true;
    atomic_init(&flight->refs, 2);
    atomic_init(&flight->handles, 1);
    park_init(&flight->park);
    copy_argument(flight, call);
}

struct flight *flight_new(const struct flight_options *options, const struct flight_key *key,
                          const aside_call *call)
{
    size_t size = flight_size(key->len, call);
    struct flight *flight = size ? mem_alloc(&options->home->mem, size) : NULL;
    if (!flight)
        return NULL;
    flight_prepare(flight, options, key, call);
    flight->charge = mem_charge(size);
    return flight;
}

static void free_flight(struct flight *flight)
{
    struct mem mem = flight->home->mem;
    if (flight->arg_release)
        flight->arg_release(flight->arg);
    if (unlikely(flight->previous || flight->answer.tags) && !flight_is_lost(flight)) {
        aside_value_unref(flight->previous);
        tags_drop(flight->answer.tags);
    }
    bool led = flight->group && !flight_is_lost(flight);
    const struct flight_owner *owner = led ? flight->owner : NULL;
    void *owned_by = flight->owned_by;
    size_t charge = flight->charge;
    flight->magic = 0;
    park_fini(&flight->park);
    mem_free(&mem, flight);
    if (owner)
        owner->release(owned_by, charge);
}

void flight_discard(struct flight *flight)
{
    free_flight(flight);
}

/* Who finds only his own reference is alone: others come by the table, or by the fetch's. */
void flight_unref(struct flight *flight)
{
    if (load_acquire(&flight->refs) != 1 && fetch_sub_acq_rel(&flight->refs, 1) != 1)
        return;
    if (!flight_is_lost(flight))
        aside_value_unref(flight->value);
    free_flight(flight);
}

/* ---- who waits without a thread -------------------------------------------------------------- */

void flight_watch(struct flight *flight, struct flight_watcher *watcher)
{
    watcher->next = NULL;
    watcher->prev = flight->last_watcher;
    watcher->listed = true;
    flight->last_watcher = watcher;
    if (watcher->prev)
        watcher->prev->next = watcher;
    else
        store_release(&flight->watchers, watcher);
}

static void take_off(struct flight *flight, struct flight_watcher *watcher)
{
    if (watcher->prev)
        watcher->prev->next = watcher->next;
    else
        store_release(&flight->watchers, watcher->next);
    if (watcher->next)
        watcher->next->prev = watcher->prev;
    else
        flight->last_watcher = watcher->prev;
    watcher->listed = false;
}

bool flight_unwatch(struct flight *flight, struct flight_watcher *watcher)
{
    group_lock(flight->group);
    bool there = watcher->listed;
    if (there)
        take_off(flight, watcher);
    group_unlock(flight->group);
    return there;
}

static unsigned take_watchers(struct flight *flight, struct flight_watcher **taken, unsigned most)
{
    unsigned count = 0;
    group_lock(flight->group);
    for (; count < most && load_relaxed(&flight->watchers); count++) {
        taken[count] = load_relaxed(&flight->watchers);
        take_off(flight, taken[count]);
    }
    group_unlock(flight->group);
    return count;
}

/* Outside of the lock, a few at a time: there may be thousands, and each may be told by a write. */
static OUT_OF_LINE void tell_watchers(struct flight *flight)
{
    struct flight_watcher *taken[32];
    unsigned count;
    if (!flight_is_settled(flight))
        return;
    while ((count = take_watchers(flight, taken, 32)) > 0)
        for (unsigned i = 0; i < count; i++)
            taken[i]->settled(taken[i]);
}

void flight_nudge(struct flight *flight)
{
    park_wake_all(&flight->park);
    for (struct flight_watcher *w = load_relaxed(&flight->watchers); w; w = w->next)
        w->nudged(w);
}

void flight_wake(struct flight *flight)
{
    park_wake_all(&flight->park);
    if (unlikely(load_acquire(&flight->watchers)))
        tell_watchers(flight);
}

static void count_if(const struct flight *flight, bool condition, unsigned counter)
{
    if (condition)
        thread_count_locked(&flight->home->account, counter, 1);
}

void flight_count_failure(const struct flight *flight)
{
    aside_status status = flight->answer.status;
    count_if(flight, flight->answer.not_modified && flight->stored, COUNTER_fetch_not_modified);
    count_if(flight, status == ASIDE_NOT_FOUND, COUNTER_fetch_not_found);
    count_if(flight, status == ASIDE_E_ABANDONED, COUNTER_fetch_abandoned);
    count_if(flight, status < 0 && status != ASIDE_E_ABANDONED && flight->ran,
             COUNTER_fetch_errors);
}

void flight_count(const struct flight *flight)
{
    count_if(flight, flight->ran, COUNTER_fetches);
    count_if(flight, flight->overtaken, COUNTER_fetch_fenced);
    flight_count_failure(flight);
}

/* ---- transitions ----------------------------------------------------------------------------- */

static void enlist(struct flight **list, struct flight *flight)
{
    flight->next = *list;
    flight->link = list;
    if (flight->next)
        flight->next->link = &flight->next;
    *list = flight;
}

static void delist(struct flight *flight)
{
    *flight->link = flight->next;
    if (flight->next)
        flight->next->link = flight->link;
    flight->link = NULL;
}

/* Only the current flight of a key is in the table: a flight that was detached removes nobody
 * else's. */
static void detach(struct flight *flight)
{
    if (!flight->current)
        return;
    if (flight->group->only == flight)
        flight->group->only = NULL;
    else
        table_remove(&flight->group->current, &flight->node);
    flight->current = false;
}

static bool has_key(const struct flight *flight, const struct flight_key *key)
{
    return flight->hash == key->hash && flight->key_len == key->len &&
           (key->len == 0 || memcmp(flight->key, key->bytes, key->len) == 0);
}

static struct flight *find(const struct group *group, const struct flight_key *key)
{
    if (group->only && has_key(group->only, key))
        return group->only;
    if (table_is_empty(&group->current))
        return NULL;
    struct table_node *node =
        table_find(&group->current, key->bytes, (uint32_t)key->len, key->hash);
    return node ? container_of(node, struct flight, node) : NULL;
}

static bool take_credit(struct flight_bound *bound)
{
    size_t left = load_relaxed(&bound->credits);
    do {
        if (left == 0)
            return false;
    } while (!compare_swap_relaxed(&bound->credits, &left, left - 1));
    return true;
}

bool group_begin(struct group *group, struct flight *flight)
{
    if (group->credits)
        group->credits--;
    else if (group->bound && !take_credit(group->bound))
        return false;
    group->running++;
    store_release(&flight->counted, true);
    return true;
}

void group_end(struct group *group, struct flight *flight)
{
    if (!load_relaxed(&flight->counted))
        return;
    store_release(&flight->counted, false);
    group->running--;
    if (flight_is_settled(flight))
        delist(flight);
    if (!group->bound)
        return;
    if (group->credits < group->bound->kept)
        group->credits++;
    else
        fetch_add_relaxed(&group->bound->credits, 1);
}

/* A credit is kept for a flight that does not ask for one. */
static bool has_room(const struct group *group)
{
    return group->has_room && !group->running && !group->closed &&
           (!group->bound || group->credits);
}

void group_lock(struct group *group) NO_LOCK_ANALYSIS
{
    lock_take(group->lock);
    if (load_relaxed(&group->solo) == GROUP_SHARED)
        return;
    struct flight *solo = exchange_acq_rel(&group->solo, GROUP_SHARED);
    if (!solo)
        return;
    (void)group_begin(group, solo);
    (void)group_lead(group, solo); /* the only one: that needs no memory */
    solo->owner->adopt(solo->owned_by);
}

void group_unlock(struct group *group) NO_LOCK_ANALYSIS
{
    if (has_room(group))
        store_release(&group->solo, NULL);
    lock_release(group->lock);
}

void group_make_room(struct group *group)
{
    group->has_room = true;
    if (group->bound && group->bound->kept && take_credit(group->bound))
        group->credits++;
    if (has_room(group))
        store_release(&group->solo, NULL);
}

bool group_lead(struct group *group, struct flight *flight)
{
    if (!group->only)
        group->only = flight;
    else if (!table_add(&group->current, &flight->node, flight->key, (uint32_t)flight->key_len,
                        flight->hash))
        return false;
    flight->current = true;
    group_lead_alone(group, flight);
    return true;
}

void group_lead_alone(struct group *group, struct flight *flight)
{
    if (!flight->group) /* a solo flight knows it, and its thread may be looking */
        flight->group = group;
    flight->stamp = group->stamp;
    enlist(&group->flights, flight);
}

/* A fetch that has been asked to stop goes on for a newcomer, if it has not heard of it yet. */
static bool revive(struct flight *flight)
{
    uint32_t asked = STOP_ASKED;
    return load_acquire(&flight->stop) == STOP_NO || compare_swap(&flight->stop, &asked, STOP_NO);
}

/* False: the flight is not for newcomers any more, and is off the table now. */
static bool welcomes(struct flight *flight, int64_t now_ns, struct flight **old)
{
    if (flight->stamp != flight->group->stamp) {
        flight->fenced = true;
        detach(flight);
        return false;
    }
    if (now_ns >= flight->deadline_ns) {
        fetch_add_relaxed(&flight->refs, 1);
        *old = flight;
        group_supersede(flight);
        return false;
    }
    if (revive(flight))
        return true;
    flight->fenced = true;
    detach(flight);
    return false;
}

struct flight *group_find(struct group *group, const struct flight_key *key, int64_t now_ns,
                          struct flight **old)
{
    struct flight *current = find(group, key);
    return current && welcomes(current, now_ns, old) ? current : NULL;
}

struct flight *group_join(struct group *group, const struct flight_key *key, int64_t now_ns,
                          size_t max_waiters, bool *full, struct flight **old)
{
    struct flight *current = find(group, key);
    if (!current || !welcomes(current, now_ns, old))
        return NULL;
    *full = max_waiters && current->waiters - current->leader_attached >= max_waiters;
    if (*full)
        return NULL;
    current->waiters++;
    fetch_add_relaxed(&current->refs, 1);
    return current;
}

bool group_settle(struct flight *flight, aside_status verdict)
{
    if (flight_is_settled(flight))
        return false;
    detach(flight);
    delist(flight);
    if (load_relaxed(&flight->counted))
        enlist(&flight->group->outrun, flight);
    flight->verdict = verdict;
    flight->shared = flight->waiters >= 2;
    store_release(&flight->offered, true);
    store_release(&flight->settled, true);
    return true;
}

bool group_fence(struct group *group, const struct flight_key *key)
{
    struct flight *flight = find(group, key);
    if (!flight)
        return false;
    flight->fenced = true;
    detach(flight);
    return true;
}

void group_fence_all(struct group *group)
{
    group->stamp++;
}

bool group_may_store(const struct flight *flight)
{
    return !flight_is_lost(flight) && !flight_is_settled(flight) && !flight->fenced &&
           flight->stamp == flight->group->stamp;
}

bool group_supersede(struct flight *flight)
{
    if (!group_settle(flight, ASIDE_E_FETCH_TIMEOUT))
        return false;
    if (flight->on_worker) {
        flight->leftover = true;
        executor_note_leftover(flight->executor, 1);
    }
    return true;
}

bool group_begin_on_worker(struct flight *flight)
{
    flight->on_worker = !flight_is_settled(flight);
    return flight->on_worker;
}

void group_end_on_worker(struct flight *flight)
{
    flight->on_worker = false;
    if (flight->leftover)
        executor_note_leftover(flight->executor, -1);
}

bool group_leave(struct flight *flight, bool is_leader)
{
    if (flight_is_settled(flight))
        return false;
    if (is_leader)
        flight->leader_attached = false;
    if (--flight->waiters == 0 && flight->stops && !flight->background) {
        uint32_t no = STOP_NO;
        compare_swap(&flight->stop, &no, STOP_ASKED);
    }
    return true;
}

static void lose(struct flight *flight)
{
    flight->verdict = ASIDE_E_FORKED;
    store_relaxed(&flight->counted, false);
    store_relaxed(&flight->offered, true);
    store_relaxed(&flight->settled, true);
}

void group_fork_child(struct group *group)
{
    for (struct flight *flight = group->flights; flight; flight = flight->next) {
        detach(flight);
        lose(flight);
    }
    struct flight *solo = load_relaxed(&group->solo);
    if (solo && solo != GROUP_SHARED)
        lose(solo);
    group->flights = group->outrun = NULL;
    group->running = group->credits = 0;
    store_relaxed(&group->solo, has_room(group) ? NULL : GROUP_SHARED);
}
