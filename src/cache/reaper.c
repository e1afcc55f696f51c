/* cache/reaper -- see reaper.h. */
#include "cache/reaper.h"

#include "base/clock.h"
#include "base/fork.h"
#include "base/native.h"

void reaper_init(struct reaper *reaper, struct store *store, struct host *host,
                 const aside_options *options)
{
    reaper->store = store;
    reaper->host = host;
    reaper->interval_ms = options->reaper_interval_ms;
    reaper->stack_bytes = options->thread_stack_bytes;
    park_init(&reaper->park);
    lock_init(&reaper->lock, RANK_REAPER);
}

void reaper_fini(struct reaper *reaper)
{
    park_fini(&reaper->park);
    lock_fini(&reaper->lock);
}

bool reaper_is_self(const struct reaper *reaper)
{
    return reaper_exists(reaper) && pthread_equal(reaper->thread, pthread_self());
}

void reaper_wake(struct reaper *reaper, bool something_to_do)
{
    if (!reaper_exists(reaper))
        return;
    if (something_to_do)
        store_release(&reaper->wanted, true);
    park_wake_all(&reaper->park);
}

/* ---- its thread ------------------------------------------------------------------------------ */

/* One turn: what is to be done now, and when to look again. */
static int64_t turn(struct reaper *reaper, int64_t next_ns)
{
    int64_t now_ns = clock_precise(&reaper->host->clock);
    if (exchange_acq_rel(&reaper->wanted, false))
        store_dismantle(reaper->store);
    if (now_ns < next_ns)
        return next_ns;
    (void)store_reap(reaper->store, host_now(reaper->host), 0);
    return clock_after_ms(now_ns, reaper->interval_ms);
}

/* A destructor may give the last reference to the cache back, where the thread that joins the
 * reaper is not there to wait for it: in the child of a fork, when this returns false. */
static bool turn_inside(struct reaper *reaper, uint32_t generation, int64_t *next_ns)
{
    struct host_call call;
    host_enter_lightly(reaper->host, &call);
    *next_ns = turn(reaper, *next_ns);
    bool same = generation == fork_generation();
    host_exit(&call);
    return same;
}

/* False: it was the reaper that forked, and this is the child. */
static bool reap_until_stopped(struct reaper *reaper)
{
    struct parker parker;
    uint32_t generation = fork_generation();
    parker_init(&parker, 0);
    int64_t next_ns = clock_after_ms(clock_precise(&reaper->host->clock), reaper->interval_ms);
    for (;;) {
        uint32_t ticket = park_ticket(&reaper->park);
        if (load_acquire(&reaper->stop))
            break;
        if (!turn_inside(reaper, generation, &next_ns))
            break;
        park_wait(&reaper->park, &parker, ticket, clock_alarm(&reaper->host->clock, next_ns));
    }
    parker_fini(&parker);
    return generation == fork_generation();
}

static void *reaper_main(void *its_reaper)
{
    struct reaper *reaper = its_reaper;
    native_name_thread("aside-reaper");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    lock_take(&reaper->lock); /* until who started it has said so */
    lock_release(&reaper->lock);
    if (reap_until_stopped(reaper) && reaper->gone)
        reaper->gone(reaper->owner);
    return NULL;
}

/* ---- starting and stopping ------------------------------------------------------------------- */

static bool start(struct reaper *reaper) REQUIRES(reaper->lock)
{
    if (load_relaxed(&reaper->stop))
        return true;
    if (!native_thread(&reaper->thread, reaper->stack_bytes, reaper_main, reaper))
        return false;
    store_release(&reaper->exists, true);
    return true;
}

bool reaper_start(struct reaper *reaper)
{
    if (reaper->interval_ms <= 0 || reaper->interval_ms == ASIDE_FOREVER)
        return true;
    lock_take(&reaper->lock);
    bool started = start(reaper);
    lock_release(&reaper->lock);
    return started;
}

void reaper_revive(struct reaper *reaper)
{
    lock_take(&reaper->lock);
    if (load_relaxed(&reaper->lost) && start(reaper))
        store_relaxed(&reaper->lost, false);
    lock_release(&reaper->lock);
}

bool reaper_stop(struct reaper *reaper, void (*gone)(void *owner), void *owner)
{
    bool self = reaper_is_self(reaper);
    if (self) {
        reaper->gone = gone;
        reaper->owner = owner;
        pthread_detach(reaper->thread);
    }
    lock_take(&reaper->lock);
    store_release(&reaper->stop, true);
    bool exists = reaper_exists(reaper);
    lock_release(&reaper->lock);
    park_wake_all(&reaper->park);
    if (exists && !self)
        pthread_join(reaper->thread, NULL);
    return !self;
}

void reaper_fork_child(struct reaper *reaper)
{
    park_init(&reaper->park);
    if (reaper_exists(reaper))
        store_relaxed(&reaper->lost, true);
    store_relaxed(&reaper->exists, false);
}
