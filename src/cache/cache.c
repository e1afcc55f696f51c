/* cache/cache -- see cache.h. Opening, closing, references. */
#include "cache/cache.h"

#include "base/clock.h"
#include "cache/options.h"

#include <pthread.h>
#include <string.h>

/* ---- opening --------------------------------------------------------------------------------- */

static void set_numbers(aside_cache *cache, const aside_options *options)
{
    cache->clock = options->clock;
    cache->default_ttl_ms = options->default_ttl_ms;
    cache->max_flight_age_ms =
        options->max_flight_age_ms == ASIDE_FOREVER ? 0 : options->max_flight_age_ms;
    cache->close_wait_ms = options->close_wait_ms;
    cache->max_flights = options->max_flights;
    cache->max_waiters = options->max_waiters;
    cache->submit = options->submit;
}

static void set_atomics(aside_cache *cache, const aside_options *options)
{
    atomic_init(&cache->phase, CACHE_OPEN);
    atomic_init(&cache->refs, 1);
    atomic_init(&cache->holds, 1);
    park_init(&cache->ends);
    reaper_init(&cache->reaper, &cache->store, &cache->clock, options->reaper_interval_ms);
}

static char *copy_name(const struct mem *mem, const char *name)
{
    size_t size = strlen(name ? name : "") + 1;
    char *copy = mem_alloc(mem, size);
    return copy ? memcpy(copy, name ? name : "", size) : NULL;
}

static struct executor *make_executor(const struct mem *mem, const aside_options *options)
{
    struct executor_options pool = {options->fetch_threads, options->max_queued,
                                    options->thread_stack_bytes, options->worker, options->clock};
    return executor_new(mem, &pool);
}

static aside_status build(aside_cache *cache, const struct mem *mem, const aside_options *options)
{
    struct hash_seed seed;
    aside_status status = ASIDE_E_NOMEM;
    if (!hash_seed_init(&seed, options->hash_seed))
        return ASIDE_E_SYSTEM;
    set_numbers(cache, options);
    set_atomics(cache, options);
    cache->name = copy_name(mem, options->name);
    if (!cache->name)
        goto fail_name;
    cache->home = home_open(mem);
    if (!cache->home)
        goto fail_home;
    cache->slot = cache->home->account.slot;
    cache->executor = make_executor(mem, options);
    if (!cache->executor)
        goto fail_executor;
    if (!store_init(&cache->store, cache->home, &seed, options->max_bytes, options->max_entries,
                    cache_now(cache)))
        goto fail_store;
    cache->magic = CACHE_MAGIC;
    status = ASIDE_E_THREAD;
    if (!reaper_start(&cache->reaper, options->thread_stack_bytes))
        goto fail_reaper;
    return ASIDE_OK;

fail_reaper:
    cache->magic = 0;
    store_fini(&cache->store);
fail_store:
    executor_unref(cache->executor);
fail_executor:
    home_close(cache->home);
fail_home:
    mem_free(mem, cache->name);
fail_name:
    reaper_fini(&cache->reaper);
    park_fini(&cache->ends);
    return status;
}

aside_status aside_open(aside_cache **cache, const aside_options *options)
{
    aside_options own;
    struct mem mem;
    if (!cache || !options_take(&own, options) || !mem_init(&mem, &own.alloc))
        return ASIDE_E_INVALID;
    void *block;
    aside_cache *made = mem_zalloc_lines(&mem, sizeof *made, &block);
    if (!made)
        return ASIDE_E_NOMEM;
    made->block = block;
    aside_status status = build(made, &mem, &own);
    if (status == ASIDE_OK)
        *cache = made;
    else
        mem_free(&mem, block);
    return status;
}

/* ---- holds ----------------------------------------------------------------------------------- */

void cache_hold(aside_cache *cache)
{
    fetch_add_relaxed(&cache->holds, 1);
}

static void free_cache(aside_cache *cache)
{
    struct mem mem = cache->home->mem;
    cache->magic = 0;
    store_fini(&cache->store);
    executor_unref(cache->executor);
    home_close(cache->home);
    reaper_fini(&cache->reaper);
    park_fini(&cache->ends);
    mem_free(&mem, cache->name);
    mem_free(&mem, cache->block);
}

/* A visit or a call of this very thread may still need the cache: then it has to end first. */
void cache_release(aside_cache *cache)
{
    if (fetch_sub_acq_rel(&cache->holds, 1) != 1)
        return;
    struct thread_record *self = thread_self();
    if (!self || (self->visits == 0 && self->inside == 0)) {
        free_cache(cache);
        return;
    }
    cache->next_orphan = self->orphans;
    self->orphans = cache;
    self->free_orphans = cache_free_orphans;
}

void cache_free_orphans(struct thread_record *self)
{
    while (self->visits == 0 && self->inside == 0 && self->orphans) {
        aside_cache *cache = self->orphans;
        self->orphans = cache->next_orphan;
        free_cache(cache);
    }
}

void cache_enter(aside_cache *cache, struct cache_call *call)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &call->cancel_state);
    call->self = thread_self();
    call->held = call->self ? NULL : cache;
    if (call->self)
        call->self->inside++;
    else
        cache_hold(cache);
}

void cache_exit(const struct cache_call *call)
{
    if (!call->self) {
        cache_release(call->held);
    } else {
        call->self->inside--;
        if (unlikely(call->self->orphans))
            cache_free_orphans(call->self);
    }
    pthread_setcancelstate(call->cancel_state, NULL);
}

/* ---- closing --------------------------------------------------------------------------------- */

static bool is_inside(const struct thread_fetch *from, const void *flight)
{
    while (from && from->flight != flight)
        from = from->outer;
    return from;
}

/* The flights under way that this very thread is inside of: nobody may wait for them here. */
static size_t own_flights(const aside_cache *cache, const struct thread_record *self)
{
    size_t own = 0;
    for (const struct thread_fetch *f = self ? self->fetches : NULL; f; f = f->outer) {
        const struct flight *flight = f->flight;
        own += f->owner == cache && !is_inside(f->outer, flight) && load_acquire(&flight->counted);
    }
    return own;
}

static bool is_in_callback(const aside_cache *cache, const struct thread_record *self)
{
    return own_flights(cache, self) > 0 ||
           pthread_equal(load_acquire(&cache->closer), pthread_self()) ||
           reaper_is_self(&cache->reaper) || executor_is_self(cache->executor);
}

static void settle_one(struct flight *flight)
{
    flight_wake(flight);
    flight_unref(flight);
}

/* Waiters get ASIDE_E_CLOSED; the fetches find their flights settled and store nothing. */
static void settle_flights(aside_cache *cache)
{
    for (size_t i = 0; i <= cache->store.shard_mask; i++) {
        struct shard *shard = &cache->store.shards[i];
        struct flight *flight;
        do {
            lock_take(&shard->lock);
            flight = shard->group.flights;
            if (flight) {
                fetch_add_relaxed(&flight->refs, 1);
                (void)group_settle(flight, ASIDE_E_CLOSED);
            }
            lock_release(&shard->lock);
            if (flight)
                settle_one(flight);
        } while (flight);
    }
}

static void wait_for_flights(aside_cache *cache, size_t own, int64_t deadline_ns)
{
    struct parker parker;
    parker_init(&parker, 0);
    for (;;) {
        uint32_t ticket = park_ticket(&cache->ends);
        if (load_acquire(&cache->flights_now) <= own || clock_precise(&cache->clock) >= deadline_ns)
            break;
        park_wait(&cache->ends, &parker, ticket, clock_alarm(&cache->clock, deadline_ns));
    }
    parker_fini(&parker);
}

static void wait_until_closed(aside_cache *cache)
{
    struct parker parker;
    parker_init(&parker, 0);
    for (;;) {
        uint32_t ticket = park_ticket(&cache->ends);
        if (load_acquire(&cache->phase) == CACHE_CLOSED)
            break;
        park_wait(&cache->ends, &parker, ticket, CLOCK_NEVER);
    }
    parker_fini(&parker);
}

static void reaper_has_gone(void *cache)
{
    cache_release(cache);
}

/* The reaper that closes the cache itself needs it until it has left. */
static void stop_reaper(aside_cache *cache)
{
    cache_hold(cache);
    if (reaper_stop(&cache->reaper, reaper_has_gone, cache))
        cache_release(cache);
}

static void close_first(aside_cache *cache, struct thread_record *self)
{
    store_release(&cache->closer, pthread_self());
    int64_t deadline_ns = clock_after_ms(clock_precise(&cache->clock), cache->close_wait_ms);
    store_clear(&cache->store, true, cache_now(cache));
    settle_flights(cache);
    stop_reaper(cache);
    executor_stop(cache->executor);
    wait_for_flights(cache, own_flights(cache, self), deadline_ns);
    executor_join(cache->executor, deadline_ns);
    store_dismantle(&cache->store);
    store_release(&cache->phase, CACHE_CLOSED);
    park_wake_all(&cache->ends);
}

aside_status aside_close(aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    struct cache_call call;
    uint32_t open = CACHE_OPEN;
    cache_enter(cache, &call);
    cache_hold(cache); /* others may give theirs back once they see it closed */
    if (compare_swap(&cache->phase, &open, CACHE_CLOSING))
        close_first(cache, call.self);
    else if (open == CACHE_CLOSING && !is_in_callback(cache, call.self))
        wait_until_closed(cache);
    cache_release(cache);
    cache_exit(&call);
    return ASIDE_OK;
}

/* ---- references ------------------------------------------------------------------------------ */

aside_cache *aside_ref(aside_cache *cache)
{
    if (cache_is(cache))
        fetch_add_relaxed(&cache->refs, 1);
    return cache;
}

void aside_unref(aside_cache *cache)
{
    if (!cache_is(cache) || fetch_sub_acq_rel(&cache->refs, 1) != 1)
        return;
    struct cache_call call;
    cache_enter(cache, &call);
    (void)aside_close(cache);
    cache_release(cache);
    cache_exit(&call);
}

aside_status aside_health(const aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    return cache_is_open(cache) ? ASIDE_OK : ASIDE_E_CLOSED;
}
