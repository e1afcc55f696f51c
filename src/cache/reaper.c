/* cache/reaper -- see reaper.h. */
#include "cache/reaper.h"

#include "base/clock.h"
#include "base/native.h"

void reaper_init(struct reaper *reaper, struct store *store, const aside_clock *clock,
                 int64_t interval_ms)
{
    reaper->store = store;
    reaper->clock = clock;
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
static int64_t turn(struct reaper *reaper, int64_t next_ns)
{
    int64_t now_ns = clock_precise(reaper->clock);
    if (exchange_acq_rel(&reaper->wanted, false))
        store_dismantle(reaper->store);
    if (now_ns < next_ns)
        return next_ns;
    (void)store_reap(reaper->store, clock_coarse(reaper->clock), 0);
    return clock_after_ms(now_ns, reaper->interval_ms);
}

static void *reaper_main(void *its_reaper)
{
    struct reaper *reaper = its_reaper;
    struct parker parker;
    native_name_thread("aside-reaper");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    parker_init(&parker, 0);
    int64_t next_ns = clock_after_ms(clock_precise(reaper->clock), reaper->interval_ms);
    for (;;) {
        uint32_t ticket = park_ticket(&reaper->park);
        if (load_acquire(&reaper->stop))
            break;
        next_ns = turn(reaper, next_ns);
        park_wait(&reaper->park, &parker, ticket, clock_alarm(reaper->clock, next_ns));
    }
    parker_fini(&parker);
    if (reaper->gone)
        reaper->gone(reaper->owner);
    return NULL;
}

bool reaper_start(struct reaper *reaper, size_t stack_bytes)
{
    if (reaper->interval_ms <= 0 || reaper->interval_ms == ASIDE_FOREVER)
        return true;
    reaper->exists = true;
    if (native_thread(&reaper->thread, stack_bytes, reaper_main, reaper))
        return true;
    reaper->exists = false;
    return false;
}

bool reaper_stop(struct reaper *reaper, void (*gone)(void *owner), void *owner)
{
    if (!reaper->exists)
        return true;
    bool self = reaper_is_self(reaper);
    if (self) {
        reaper->gone = gone;
        reaper->owner = owner;
        pthread_detach(reaper->thread);
    }
    store_release(&reaper->stop, true);
    park_wake_all(&reaper->park);
    if (!self)
        pthread_join(reaper->thread, NULL);
    return !self;
}
