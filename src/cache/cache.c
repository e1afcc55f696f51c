/* cache/cache -- see cache.h. */
#include "cache/cache.h"

#include "cache/options.h"

#include <unistd.h>

/* ---- what its host asks of it ---------------------------------------------------------------- */

static struct group *group_at(struct host *host, size_t number)
{
    struct store *store = &cache_of(host)->store;
    return number <= store->shard_mask ? &store->shards[number].group : NULL;
}

static void shut(struct host *host)
{
    store_clear(&cache_of(host)->store, true, host_now(host));
}

static void reaper_has_gone(void *host)
{
    host_release(host, fork_generation());
}

/* The reaper that closes the cache itself needs it until it has left. */
static void stop(struct host *host)
{
    uint32_t generation = fork_generation();
    host_hold(host);
    if (reaper_stop(&cache_of(host)->reaper, reaper_has_gone, host))
        host_release(host, generation);
}

static void clean(struct host *host)
{
    store_dismantle(&cache_of(host)->store);
}

static bool is_reaper(const struct host *host)
{
    return reaper_is_self(&cache_of((struct host *)(uintptr_t)host)->reaper);
}

static void free_cache(struct host *host)
{
    aside_cache *cache = cache_of(host);
    struct mem mem = host->home->mem;
    fork_leave(&host->forks);
    cache->magic = 0;
    store_fini(&cache->store);
    reaper_fini(&cache->reaper);
    host_fini(host);
    mem_free(&mem, cache->block);
}

static void fork_locks(struct host *host, enum lock_rank rank, void (*each)(struct lock *lock))
{
    if (rank == RANK_REFEREE && cache_of(host)->store.evicts)
        each(&cache_of(host)->store.referee.lock);
    if (rank == RANK_TAGS)
        each(&cache_of(host)->store.tags.lock);
    if (rank == RANK_REAPER)
        each(&cache_of(host)->reaper.lock);
}

static void fork_child(struct host *host)
{
    aside_cache *cache = cache_of(host);
    store_fork_child(&cache->store);
    reaper_fork_child(&cache->reaper);
    dice_part(&cache->dice, (uint64_t)getpid());
}

static const struct host_ops ops = {.group = group_at,
                                    .shut = shut,
                                    .stop = stop,
                                    .clean = clean,
                                    .is_own_thread = is_reaper,
                                    .free = free_cache,
                                    .fork_locks = fork_locks,
                                    .fork_child = fork_child};

/* ---- opening --------------------------------------------------------------------------------- */

static aside_status build(aside_cache *cache, const struct mem *mem, const aside_options *options)
{
    struct hash_seed seed;
    struct host *host = &cache->host;
    size_t shards = store_shards(options->max_bytes, options->max_entries);
    if (!hash_seed_init(&seed, options->hash_seed))
        return ASIDE_E_SYSTEM;
    cache->default_ttl_ms = options->default_ttl_ms;
    cache->disabled = options->disabled;
    cache->jitter = options->jitter;
    cache->rules = rules_of(&options->freshness, &(aside_freshness){.stale_ms = 0});
    cache->rare = rules_are_rare(&cache->rules);
    cache->on_slow = options->on_slow;
    dice_init(&cache->dice, siphash(seed.key, "dice", 4));
    aside_status status = host_init(host, &ops, mem, options, shards);
    if (status != ASIDE_OK)
        return status;
    status = ASIDE_E_NOMEM;
    if (!store_init(&cache->store, host->home, &seed, &host->bound, options, cache_now(cache)))
        goto fail_store;
    reaper_init(&cache->reaper, &cache->store, host, options);
    host_enlist(host);
    cache->magic = CACHE_MAGIC;
    if (reaper_start(&cache->reaper))
        return ASIDE_OK;

    status = ASIDE_E_THREAD;
    cache->magic = 0;
    fork_leave(&host->forks);
    reaper_fini(&cache->reaper);
    store_fini(&cache->store);
fail_store:
    host_fini(host);
    return status;
}

aside_status aside_open(aside_cache **cache, const aside_options *options)
{
    aside_options own;
    struct mem mem;
    if (cache)
        *cache = NULL;
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

/* ---- life ------------------------------------------------------------------------------------ */

aside_status aside_close(aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    host_close(&cache->host);
    return ASIDE_OK;
}

aside_cache *aside_ref(aside_cache *cache)
{
    if (cache_is(cache))
        host_ref(&cache->host);
    return cache;
}

void aside_unref(aside_cache *cache)
{
    if (cache_is(cache))
        host_unref(&cache->host);
}

aside_status aside_health(const aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    return cache_is_open(cache) ? ASIDE_OK : ASIDE_E_CLOSED;
}

aside_status aside_clock_changed(aside_cache *cache)
{
    if (!cache_is(cache))
        return ASIDE_E_INVALID;
    host_wake(&cache->host);
    reaper_wake(&cache->reaper, false);
    return ASIDE_OK;
}
