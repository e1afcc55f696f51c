/* cache/reaper -- see reaper.h. */
#include "cache/reaper.h"

#include "base/clock.h"
#include "base/native.h"
#include "cache/cache.h"

void reaper_init(struct reaper *reaper, int64_t interval_ms)
{
    reaper->interval_ms = interval_ms;
    park_init(&reaper->park);
}

void reaper_fini(struct reaper *reaper)
{
    park_fini(&reaper->park);
}

bool reaper_is_self(const struct reaper *reaper)
{
    return reaper->exists && pthread_equal(reaper->thread, pthread_self());
}

void reaper_wake(struct reaper *reaper, bool something_to_do)
{
    if (!reaper->exists)
        return;
    if (something_to_do)
        store_release(&reaper->wanted, true);
    park_wake_all(&reaper->park);
}

/* One turn: what is to be done now, and when to look again. */
static int64_t turn(aside_cache *cache, int64_t next_ns)
{
    struct reaper *reaper = &cache->reaper;
    int64_t now_ns = clock_precise(&cache->clock);
    if (exchange_acq_rel(&reaper->wanted, false))
        store_dismantle(&cache->store);
    if (now_ns < next_ns)
        return next_ns;
    (void)store_reap(&cache->store, cache_now(cache), 0);
    return clock_after_ms(now_ns, reaper->interval_ms);
}

static void *reaper_main(void *its_cache)
{
    aside_cache *cache = its_cache;
    struct reaper *reaper = &cache->reaper;
    struct parker parker;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    parker_init(&parker, 0);
    int64_t next_ns = clock_after_ms(clock_precise(&cache->clock), reaper->interval_ms);
    for (;;) {
        uint32_t ticket = park_ticket(&reaper->park);
        if (load_acquire(&reaper->stop))
            break;
        next_ns = turn(cache, next_ns);
        park_wait(&reaper->park, &parker, ticket, clock_alarm(&cache->clock, next_ns));
    }
    parker_fini(&parker);
    if (load_acquire(&reaper->orphan))
        cache_release(cache);
    return NULL;
}

bool reaper_start(aside_cache *cache, size_t stack_bytes)
{
    struct reaper *reaper = &cache->reaper;
    if (reaper->interval_ms <= 0 || reaper->interval_ms == ASIDE_FOREVER)
        return true;
    reaper->exists = true;
    if (native_thread(&reaper->thread, "aside-reaper", stack_bytes, reaper_main, cache))
        return true;
    reaper->exists = false;
    return false;
}

void reaper_stop(aside_cache *cache)
{
    struct reaper *reaper = &cache->reaper;
    if (!reaper->exists)
        return;
    bool self = reaper_is_self(reaper);
    if (self) {
        cache_hold(cache);
        store_release(&reaper->orphan, true);
        pthread_detach(reaper->thread);
    }
    store_release(&reaper->stop, true);
    park_wake_all(&reaper->park);
    if (!self)
        pthread_join(reaper->thread, NULL);
}
