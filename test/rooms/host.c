/*
 * host.c -- flight/host: a thread without a record keeps what its call needs across a fork, as one
 * that has a record does (P4); and of two who close at once one closes.
 */
#include "rooms.h"

#include "cache/cache.h"

enum { CHILD_DONE = 42 };

static struct ledger ledger;
static struct fake_clock fake;
static pthread_key_t at_end;
static _Atomic int forks, children_done;

extern void __gcov_dump(void) __attribute__((weak));

/* Of the child's only thread: the call has ended, and the cache with it. */
static void check_all_freed(void *unused)
{
    (void)unused;
    CHECK_INT(ledger.live_blocks, 0);
    if (__gcov_dump)
        __gcov_dump();
    _exit(CHILD_DONE);
}

/* The child gives the one reference back, in the middle of what the parent's thread was doing. */
static void fork_and_unref(void *object, void *cache)
{
    (void)object;
    if (atomic_fetch_add(&forks, 1) > 0)
        return;
    CHECK(thread_current == NULL);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_INT(pthread_setspecific(at_end, &ledger), 0);
        aside_unref(cache);
        CHECK(ledger.live_blocks > 0); /* the call that runs this is not over */
        return;
    }
    int status = 0;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), CHILD_DONE);
    atomic_fetch_add(&children_done, 1);
}

/* With few locks: ThreadSanitizer lives through no more than 64 at once. */
static aside_options small_options(void)
{
    aside_options options = quiet_options();
    options.max_bytes = 65536;
    return options;
}

static aside_cache *open_forking(const aside_clock *clock, int64_t reaper_interval_ms)
{
    static int object;
    aside_value *value = NULL;
    aside_options options = small_options();
    CHECK_INT(pthread_key_create(&at_end, check_all_freed), 0);
    options.alloc = ledger_init(&ledger);
    options.clock = *clock;
    options.reaper_interval_ms = reaper_interval_ms;
    aside_cache *cache = open_cache(&options);
    CHECK_STATUS(aside_value_wrap(&object, 1, fork_and_unref, cache, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("key"), value, 50), ASIDE_OK);
    aside_value_unref(value);
    return cache;
}

static void finish(aside_cache *cache)
{
    CHECK_INT(children_done, 1);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

static void *clear_without_record(void *cache)
{
    process_fail_alloc(1, true);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    process_fail_alloc(0, false);
    return NULL;
}

TEST(a_call_without_a_record_that_forks_keeps_the_cache_that_its_child_gives_back)
{
    aside_clock clock = fake_clock_init(&fake);
    aside_cache *cache = open_forking(&clock, 0);
    thread_join(thread_start(clear_without_record, cache));
    finish(cache);
}

/* Once more inside itself: a clear in a destructor of another. */
static void clear_again(void *object, void *cache)
{
    (void)object;
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
}

TEST(a_call_without_a_record_inside_another_keeps_the_cache_as_well)
{
    static int object;
    aside_value *value = NULL;
    aside_clock clock = fake_clock_init(&fake);
    aside_options options = small_options();
    aside_cache *cache = open_forking(&clock, 0), *other = open_cache(&options);
    CHECK_STATUS(aside_value_wrap(&object, 1, clear_again, cache, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(other, ASIDE_STR("key"), value, 50), ASIDE_OK);
    aside_value_unref(value);
    thread_join(thread_start(clear_without_record, other));
    end_cache(other);
    finish(cache);
}

TEST(a_reaper_without_a_record_that_forks_keeps_the_cache_that_its_child_gives_back)
{
    static struct gated_clock gated;
    aside_clock clock = gated_clock_init(&gated);
    aside_cache *cache = open_forking(&clock, 100);
    gate_wait_arrived(&gated.gate, 1);
    fake_clock_advance_ms(&gated.fake, 100, NULL);
    process_fail_alloc(1, true);
    gate_open(&gated.gate);
    WAIT_UNTIL(children_done == 1);
    process_fail_alloc(0, false);
    finish(cache);
}

/* ---- two who close ------------------------------------------------------------------------------- */

struct closers {
    aside_cache *cache;
    bool in_time; /* the other came before the first had begun */
};

static void *close_it(void *cache)
{
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    return NULL;
}

/* Later than that he would wait for the first. */
static void overtake(void *its_closers)
{
    struct closers *closers = its_closers;
    closers->in_time = atomic_load(&closers->cache->host.phase) < HOST_CLOSING;
    if (closers->in_time)
        thread_join(thread_start(close_it, closers->cache));
}

/* True: at its nth step the first had not begun. */
static bool close_overtaken_at(int64_t nth)
{
    aside_options options = small_options();
    options.reaper_interval_ms = 1000;
    struct closers closers = {open_cache(&options), false};
    int joined = threads_joined();
    if (!act_at_point(nth, overtake, &closers))
        test_skip("this build has no points between the steps of the library");
    CHECK_STATUS(aside_close(closers.cache), ASIDE_OK);
    (void)act_at_point(0, NULL, NULL);
    CHECK_INT(threads_joined(), joined + 1);
    CHECK_STATUS(look(closers.cache, "k"), ASIDE_E_CLOSED);
    aside_unref(closers.cache);
    return closers.in_time;
}

TEST(who_closes_and_is_overtaken_before_he_has_begun_finds_it_closed)
{
    int64_t nth = 1;
    while (close_overtaken_at(nth))
        nth++;
    CHECK(nth > 3); /* the last of them between his look and his swap */
}
