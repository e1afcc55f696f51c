/*
 * owner.c -- ownership (O1 to O4): a handle's bytes stay as they are whatever happens; a wrapped
 * pointer is freed exactly once on every path, by aside_reap() or aside_close() at the latest; a
 * destructor may call the cache.
 */
#include "helpers.h"

static struct tally tally;

/* ---- handles ------------------------------------------------------------------------------------- */

enum fate {
    DELETED,
    OVERWRITTEN,
    EXPIRED,
    EXPIRED_BY_TIME,
    CLEARED,
    EVICTED,
    CLOSED,
    DESTROYED,
    FATES
};

/* Stores keys and reads them, so that they are worth more than "k", until that has been evicted. */
static void flood_until_gone(aside_cache *cache)
{
    for (int i = 0; i < 100000; i++) {
        CHECK_STATUS(aside_set(cache, &i, sizeof i, &i, sizeof i, 1000), ASIDE_OK);
        for (int reads = 0; reads < 3; reads++)
            CHECK(aside_copy(cache, &i, sizeof i, NULL, 0, NULL) != ASIDE_E_INVALID);
        if (i % 1000 == 999 && look(cache, "k") == ASIDE_MISS)
            return;
    }
    CHECK(!"evicted");
}

static void meet(int fate, aside_cache *cache, struct fake_clock *clock)
{
    switch (fate) {
    case DELETED: CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK); break;
    case OVERWRITTEN:
        put(cache, "k", "something else, and longer than what was there", 1000);
        break;
    case EXPIRED: CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_OK); break;
    case EXPIRED_BY_TIME: fake_clock_advance_ms(clock, 1000, cache); break;
    case CLEARED: CHECK_STATUS(aside_clear(cache), ASIDE_OK); break;
    case EVICTED: flood_until_gone(cache); break;
    case CLOSED: CHECK_STATUS(aside_close(cache), ASIDE_OK); break;
    default: aside_unref(cache); return;
    }
    if (fate != CLOSED)
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
}

TEST(a_handle_stays_valid_and_unchanged_whatever_happens)
{
    for (int fate = 0; fate < FATES; fate++) {
        struct fake_clock clock;
        struct ledger ledger;
        aside_options options = quiet_options();
        options.clock = fake_clock_init(&clock);
        options.alloc = ledger_init(&ledger);
        options.max_entries = fate == EVICTED ? 256 : 0;
        aside_cache *cache = open_cache(&options);
        char text[300];
        memset(text, 'A' + (int)fate, sizeof text);
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), text, sizeof text, 1000), ASIDE_OK);
        aside_value *value = NULL;
        CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
        const void *data = aside_value_data(value);
        meet(fate, cache, &clock);
        CHECK(aside_value_data(value) == data);
        CHECK_INT(aside_value_size(value), sizeof text);
        CHECK(memcmp(data, text, sizeof text) == 0);
        aside_value_unref(value);
        if (fate != DESTROYED)
            end_cache(cache);
        CHECK_INT(ledger.live_blocks, 0);
    }
}

TEST(a_handle_keeps_a_wrapped_pointer_whatever_happens)
{
    for (int fate = 0; fate < FATES; fate++) {
        struct fake_clock clock;
        aside_options options = quiet_options();
        options.clock = fake_clock_init(&clock);
        options.max_entries = fate == EVICTED ? 256 : 0;
        aside_cache *cache = open_cache(&options);
        int freed = tally.freed;
        CHECK_STATUS(tally_set(&tally, cache, "k", 8, 1000), ASIDE_OK);
        aside_value *value = NULL;
        CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
        meet(fate, cache, &clock);
        CHECK_INT(tally.freed, freed);
        aside_value_unref(value);
        if (fate != DESTROYED) {
            if (fate != CLOSED)
                CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
            CHECK_INT(tally.freed, freed + 1);
            end_cache(cache);
        }
        CHECK_INT(tally.freed, freed + 1);
    }
}

TEST(without_a_handle_a_wrapped_pointer_is_freed_at_the_next_reap)
{
    for (int fate = 0; fate < FATES; fate++) {
        struct fake_clock clock;
        aside_options options = quiet_options();
        options.clock = fake_clock_init(&clock);
        options.max_entries = fate == EVICTED ? 256 : 0;
        aside_cache *cache = open_cache(&options);
        int freed = tally.freed;
        CHECK_STATUS(tally_set(&tally, cache, "k", 8, 1000), ASIDE_OK);
        CHECK_INT(tally.freed, freed);
        meet(fate, cache, &clock); /* which reaps, closes or destroys */
        CHECK_INT(tally.freed, freed + 1);
        if (fate != DESTROYED)
            end_cache(cache);
        CHECK_INT(tally.freed, freed + 1);
    }
}

static void *drop_handle(void *arg)
{
    aside_value_unref(arg);
    return NULL;
}

TEST(handles_may_be_dropped_on_any_thread)
{
    aside_cache *cache = open_quiet();
    for (int i = 0; i < 50; i++) {
        aside_value *value = tally_value(&tally, 1);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_OK);
        pthread_t thread = thread_start(drop_handle, value);
        CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
        thread_join(thread);
    }
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(tally.freed, 50);
    end_cache(cache);
}

/* ---- values without a cache, refused values ------------------------------------------------------ */

TEST(a_value_that_no_cache_ever_saw_is_freed_by_its_last_reference)
{
    aside_value *value = tally_value(&tally, 8);
    aside_value_ref(value);
    aside_value_unref(value);
    CHECK_INT(tally.freed, 0);
    CHECK(aside_value_data(value) == &tally.slot[0]);
    aside_value_unref(value);
    CHECK_INT(tally.freed, 1);
}

TEST(a_refused_value_stays_the_callers)
{
    aside_options options = quiet_options();
    options.max_bytes = (size_t)1 << 20;
    aside_cache *cache = open_cache(&options);
    CHECK_STATUS(tally_set(&tally, cache, "large", (size_t)2 << 20, 1000), ASIDE_E_TOO_LARGE);
    CHECK_INT(tally.freed, 1);
    CHECK_STATUS(tally_set(&tally, cache, "bad ttl", 1, -7), ASIDE_E_INVALID);
    CHECK_INT(tally.freed, 2);
    CHECK_STATUS(tally_set(&tally, cache, "ttl 0", 1, 0), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(tally.freed, 3);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(tally_set(&tally, cache, "closed", 1, 1000), ASIDE_E_CLOSED);
    CHECK_INT(tally.freed, 4);
    aside_unref(cache);
}

TEST(one_value_under_many_keys_is_freed_once_when_the_last_is_gone)
{
    aside_cache *cache = open_quiet(), *other = open_quiet();
    aside_value *value = tally_value(&tally, 8);
    for (int i = 0; i < 20; i++) {
        CHECK_STATUS(aside_set_value(cache, &i, sizeof i, value, 1000), ASIDE_OK);
        CHECK_STATUS(aside_set_value(other, &i, sizeof i, value, 1000), ASIDE_OK);
    }
    aside_value_unref(value);
    for (int i = 0; i < 20; i++)
        CHECK_STATUS(aside_delete(cache, &i, sizeof i), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    end_cache(cache);
    CHECK_INT(tally.freed, 0);
    end_cache(other);
    CHECK_INT(tally.freed, 1);
}

/* ---- values that a fetch gives ------------------------------------------------------------------- */

struct giver {
    struct gate gate;
    aside_status answer;
    int values; /* how many are given, the last counts */
    int64_t ttl_ms;
    bool then_copies, exits;
};

static aside_status gives(aside_fetch *fetch, void *arg)
{
    struct giver *giver = arg;
    gate_pass(&giver->gate);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, giver->ttl_ms), ASIDE_OK);
    for (int i = 0; i < giver->values; i++)
        CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 8)), ASIDE_OK);
    if (giver->then_copies)
        CHECK_STATUS(aside_fetch_copy(fetch, "copied", 6), ASIDE_OK);
    if (giver->exits)
        pthread_exit(NULL);
    return giver->answer;
}

/* Runs one fetch that gives, in a thread of its own; `fenced`: a delete overtakes it. */
static void check_given(struct giver *giver, bool fenced, bool closed, bool stored)
{
    aside_options options = quiet_options();
    options.close_wait_ms = 0;
    aside_cache *cache = open_cache(&options);
    struct caller caller;
    int made = tally.made;
    gate_init(&giver->gate);
    caller_init(&caller, cache, "k", gives, giver);
    caller_start(&caller);
    gate_wait_arrived(&giver->gate, 1);
    if (fenced)
        CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    if (closed)
        CHECK_STATUS(aside_close(cache), ASIDE_OK);
    gate_open(&giver->gate);
    thread_join(caller.thread);
    caller_drop(&caller);
    if (!closed) {
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        CHECK_STATUS(look(cache, "k"), stored ? ASIDE_OK : ASIDE_MISS);
    }
    int kept = stored && !giver->then_copies;
    CHECK_INT(tally.made - made, giver->values);
    CHECK_INT(tally.freed, tally.made - kept);
    end_cache(cache);
    CHECK_INT(tally.freed, tally.made);
}

TEST(a_given_value_is_freed_once_on_every_path)
{
    struct giver stored = {.values = 1}, thrice = {.values = 3};
    struct giver copied = {.values = 2, .then_copies = true};
    struct giver not_stored = {.values = 1, .ttl_ms = ASIDE_NO_STORE};
    struct giver failed = {.answer = (aside_status)-77, .values = 2};
    struct giver odd = {.answer = (aside_status)99, .values = 1};
    struct giver exits = {.values = 2, .exits = true};
    struct giver fenced = {.values = 1}, closed = {.values = 1};
    check_given(&stored, false, false, true);
    check_given(&thrice, false, false, true);
    check_given(&copied, false, false, true);
    check_given(&not_stored, false, false, false);
    check_given(&failed, false, false, false);
    check_given(&odd, false, false, false);
    check_given(&exits, false, false, false);
    check_given(&fenced, true, false, false);
    check_given(&closed, false, true, false);
}

static aside_status gives_and_leaves(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 8)), ASIDE_OK);
    *(aside_fetch **)arg = aside_fetch_ref(fetch);
    aside_fetch_unref(*(aside_fetch **)arg);
    return ASIDE_PENDING; /* nobody can complete it */
}

TEST(a_value_given_to_a_fetch_that_is_abandoned_is_freed)
{
    aside_cache *cache = open_quiet();
    aside_fetch *fetch = NULL;
    struct caller caller;
    caller_init(&caller, cache, "k", gives_and_leaves, &fetch);
    CHECK_STATUS(caller_run(&caller), ASIDE_E_ABANDONED);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(tally.freed, 1);
    end_cache(cache);
}

/* ---- destructors that call the cache ------------------------------------------------------------- */

static _Atomic int rebound;

static void destructor_calls_the_cache(void *ptr, void *ctx)
{
    aside_cache *cache = ctx;
    aside_value *value = NULL;
    (void)ptr;
    atomic_fetch_add(&rebound, 1);
    aside_status status = aside_set(cache, ASIDE_STR("from a destructor"), "v", 1, 1000);
    if (status != ASIDE_E_CLOSED)
        CHECK_STATUS(status, ASIDE_OK);
    status = aside_get(cache, ASIDE_STR("from a destructor"), &value);
    CHECK(status != ASIDE_E_INVALID); /* a miss, if the set has run a destructor that cleared */
    aside_value_unref(value);
    status = aside_reap(cache, 0, NULL);
    CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
    status = aside_clear(cache);
    CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
}

TEST(a_destructor_may_call_the_cache)
{
    aside_cache *cache = open_quiet();
    static int thing;
    for (int i = 0; i < 300; i++) {
        aside_value *value = NULL;
        CHECK_STATUS(aside_value_wrap(&thing, 1, destructor_calls_the_cache, cache, &value),
                     ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, &i, sizeof i, value, 1000), ASIDE_OK);
        aside_value_unref(value);
        if (i % 3 == 0)
            CHECK(aside_delete(cache, &i, sizeof i) >= 0);
    }
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(rebound, 300);
    end_cache(cache);
    CHECK_INT(rebound, 300);
}

/* ---- many threads -------------------------------------------------------------------------------- */

static void *churn(void *arg)
{
    aside_cache *cache = arg;
    for (int i = 0; i < 800; i++) {
        int key = (int)(test_random() % 16);
        aside_value *value = tally_value(&tally, 64);
        aside_status status = aside_set_value(cache, &key, sizeof key, value, ASIDE_FOREVER);
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        aside_value_unref(value);
        key = (int)(test_random() % 16);
        if (aside_get(cache, &key, sizeof key, &value) == ASIDE_OK) {
            const _Atomic int *slot = aside_value_data(value);
            CHECK_INT(atomic_load(slot), 0); /* not freed under a handle */
            aside_value_unref(value);
        }
        if (i % 5 == 0)
            aside_delete(cache, &key, sizeof key);
        if (i % 50 == 0)
            aside_reap(cache, 0, NULL);
    }
    return NULL;
}

TEST(every_wrapped_pointer_of_four_busy_threads_is_freed_exactly_once)
{
    aside_cache *cache = open_quiet();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = thread_start(churn, cache);
    for (int i = 0; i < 4; i++)
        thread_join(threads[i]);
    end_cache(cache);
    CHECK_INT(tally.made, 3200);
    CHECK_INT(tally.freed, 3200);
}
