/*
 * stale.c -- stale-while-revalidate: past its ttl a value is served at once while exactly one refresh
 * runs in the background; what ends it, what fences its refresh, who runs it; and aside_refresh().
 */
#include "stale.h"

static aside_cache *open_stale(struct fake_clock *clock)
{
    aside_options options = stale_options(clock);
    options.freshness.stale_ms = STALE;
    return open_cache(&options);
}

/* A cache with "old" in it, past its ttl by 1 ms. */
static aside_cache *open_with_old(struct fake_clock *clock)
{
    aside_cache *cache = open_stale(clock);
    make_old(cache, clock, 1);
    return cache;
}

/* The same, and a refresh of it stands at the source's gate. */
static aside_cache *open_refreshing(struct fake_clock *clock, struct source *source,
                                    const char *answer)
{
    aside_cache *cache = open_with_old(clock);
    source_init(source, answer, true);
    aside_call call = call_for(source);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&source->gate, 1);
    return cache;
}

/* ---- served at once, refreshed once -------------------------------------------------------------- */

TEST(past_its_ttl_a_value_is_served_at_once_while_it_is_refreshed)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_stale(&clock);
    source_init(&source, "now", true);
    aside_call call = call_for(&source);
    make_old(cache, &clock, 250);
    for (int i = 0; i < 3; i++) {
        aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
        CHECK_INT(result.age_ms, TTL + 250);
        CHECK_INT(result.fetch_error, 0);
        CHECK_STATUS(result.fetch_status, ASIDE_OK);
        CHECK_INT(result.shared + result.fenced, 0);
    }
    gate_wait_arrived(&source.gate, 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    aside_result result = call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    CHECK_INT(result.age_ms, 0);
    CHECK_INT(result.ttl_left_ms, TTL);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, refreshes), 1);
    CHECK_INT(STAT(cache, stale), 4);
    CHECK_INT(STAT(cache, fetch_stored), 1);
    check_lookups(cache, 5);
    end_cache(cache);
}

TEST(a_cache_without_bounds_serves_what_is_stale_as_well)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.max_bytes = options.max_entries = 0;
    options.freshness.stale_ms = STALE;
    aside_cache *cache = open_cache(&options);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    make_old(cache, &clock, 1);
    for (int i = 0; i < 3; i++)
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(cache, &source);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    CHECK_INT(STAT(cache, stale), 3);
    CHECK_INT(STAT(cache, refreshes), 1);
    end_cache(cache);
}

TEST(the_window_begins_at_the_end_of_the_ttl_and_ends_to_the_millisecond)
{
    static const struct {
        int64_t past_ms;
        aside_outcome outcome;
    } instants[] = {{-1, ASIDE_OUTCOME_HIT},
                    {0, ASIDE_OUTCOME_STALE},
                    {STALE - 1, ASIDE_OUTCOME_STALE},
                    {STALE, ASIDE_OUTCOME_FETCHED},
                    {STALE + 1, ASIDE_OUTCOME_FETCHED}};
    for (size_t i = 0; i < COUNT_OF(instants); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_stale(&clock);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        make_old(cache, &clock, instants[i].past_ms);
        bool fetched = instants[i].outcome == ASIDE_OUTCOME_FETCHED;
        if (fetched)
            gate_open(&source.gate);
        aside_result result = call_gives(cache, &call, ASIDE_OK, fetched ? "now" : "old");
        CHECK_INT(result.outcome, instants[i].outcome);
        let_go(cache, &source);
        CHECK_INT(source.fetches, i > 0);
        CHECK_INT(STAT(cache, refreshes), instants[i].outcome == ASIDE_OUTCOME_STALE);
        end_cache(cache);
    }
}

TEST(a_window_for_ever_has_no_end)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = ASIDE_FOREVER;
    aside_cache *cache = open_cache(&options);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    make_old(cache, &clock, INT64_C(1000) * 365 * 86400 * 10);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(cache, &source);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    end_cache(cache);
}

TEST(however_many_come_one_refresh_is_begun)
{
    enum { CALLERS = 32 };
    static struct caller herd[CALLERS];
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    source_init(&source, "now", true);
    for (int i = 0; i < CALLERS; i++) {
        caller_ask(&herd[i], cache, "k", &source, NULL);
        caller_start(&herd[i]);
    }
    for (int i = 0; i < CALLERS; i++) /* none of them waits for the gate */
        caller_is_stale(&herd[i], "old", ASIDE_STALE_REFRESH);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, refreshes), 1);
    CHECK_INT(STAT(cache, stale), CALLERS);
    CHECK(holds(cache, "k", "now"));
    check_lookups(cache, CALLERS + 1);
    end_cache(cache);
}

/* Each time its ttl is over. */
TEST(a_value_that_was_refreshed_is_refreshed_again)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    for (int i = 1; i < 6; i++) {
        held_init(&source, "old");
        aside_call call = call_for(&source);
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
        let_go(cache, &source);
        (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
        CHECK_INT(source.fetches, 1);
        fake_clock_advance_ms(&clock, TTL, cache);
    }
    end_cache(cache);
}

TEST(a_flight_that_others_wait_for_is_the_refresh)
{
    struct fake_clock clock;
    struct source source, never;
    struct caller leader;
    aside_cache *cache = open_with_old(&clock);
    source_init(&source, "now", true);
    source_init(&never, "never", false);
    caller_ask(&leader, cache, "k", &source, NULL);
    leader.call.freshness.stale_ms = ASIDE_OFF;
    caller_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    aside_call call = call_for(&never);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_open(&source.gate);
    caller_is_fresh(&leader, "now", ASIDE_OUTCOME_FETCHED);
    wait_for_fetches(cache);
    CHECK_INT(never.fetches, 0);
    CHECK_INT(STAT(cache, refreshes), 0);
    end_cache(cache);
}

TEST(who_accepts_nothing_stale_joins_the_refresh)
{
    struct fake_clock clock;
    struct source source, never;
    struct caller joiner;
    aside_cache *cache = open_refreshing(&clock, &source, "now");
    source_init(&never, "never", false);
    caller_ask(&joiner, cache, "k", &never, NULL);
    joiner.call.freshness.stale_ms = ASIDE_OFF;
    caller_start(&joiner);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&source.gate);
    caller_is_fresh(&joiner, "now", ASIDE_OUTCOME_JOINED);
    CHECK_INT(never.fetches, 0);
    check_lookups(cache, 2);
    end_cache(cache);
}

TEST(a_refresh_that_hangs_is_superseded_and_another_begins)
{
    struct fake_clock clock;
    struct source hung, next;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.max_flight_age_ms = 2000;
    aside_cache *cache = open_cache(&options);
    source_init(&hung, "hung", true);
    source_init(&next, "next", true);
    aside_call call = call_for(&hung), again = call_for(&next);
    make_old(cache, &clock, 0);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&hung.gate, 1);
    fake_clock_advance_ms(&clock, 1999, cache);
    (void)call_is_stale(cache, &again, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(STAT(cache, refreshes), 1);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_stale(cache, &again, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&next.gate, 1);
    CHECK_INT(STAT(cache, superseded), 1);
    gate_open(&next.gate);
    WAIT_UNTIL(STAT(cache, fetch_stored) == 1);
    gate_open(&hung.gate);
    wait_for_fetches(cache);
    CHECK(holds(cache, "k", "next"));
    CHECK_INT(hung.fetches + next.fetches, 2);
    end_cache(cache);
}

/* The refresh was somebody's flight already, older than he who found it due. */
TEST(a_flight_that_others_wait_for_and_that_hangs_holds_up_no_refresh)
{
    struct fake_clock clock;
    struct source hung, next;
    struct caller leader;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.max_flight_age_ms = 2000;
    aside_cache *cache = open_cache(&options);
    source_init(&hung, "hung", true);
    held_init(&next, "next");
    aside_call call = call_for(&next);
    make_old(cache, &clock, 0);
    caller_ask(&leader, cache, "k", &hung, NULL);
    leader.call.freshness.stale_ms = ASIDE_OFF;
    caller_start(&leader);
    gate_wait_arrived(&hung.gate, 1);
    fake_clock_advance_ms(&clock, 1500, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(next.fetches, 0);
    fake_clock_advance_ms(&clock, 500, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_open(&next.gate);
    WAIT_UNTIL(STAT(cache, fetch_stored) == 1);
    CHECK(holds(cache, "k", "next"));
    gate_open(&hung.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    caller_drop(&leader);
    CHECK(holds(cache, "k", "next"));
    end_cache(cache);
}

/* An allocator that, when the thread that has armed it frees a block, first has another do something. */
struct acting_alloc {
    pthread_t armed_by;
    _Atomic bool armed;
    thread_fn act;
    void *arg;
};

static void *acting_malloc(size_t size, void *ctx)
{
    (void)ctx;
    return malloc(size);
}

static void *acting_realloc(void *block, size_t size, void *ctx)
{
    (void)ctx;
    return realloc(block, size);
}

static void acting_free(void *block, void *ctx)
{
    struct acting_alloc *alloc = (struct acting_alloc *)ctx;
    if (atomic_load(&alloc->armed) && pthread_equal(pthread_self(), alloc->armed_by)) {
        atomic_store(&alloc->armed, false);
        thread_join(thread_start(alloc->act, alloc->arg));
    }
    free(block);
}

/* A cache without windows: "old" has those of the call that has fetched it. */
struct meddling {
    struct fake_clock clock;
    struct acting_alloc alloc;
    struct source old, hung, next;
    struct caller leader;
    aside_cache *cache;
    aside_call call; /* of next */
};

static void meddling_open(struct meddling *m, thread_fn act, size_t max_flights)
{
    memset((void *)m, 0, sizeof *m);
    aside_options options = stale_options(&m->clock);
    options.alloc = (aside_alloc){acting_malloc, acting_realloc, acting_free, &m->alloc};
    options.max_flight_age_ms = 2000;
    options.max_flights = max_flights;
    m->cache = open_cache(&options);
    m->alloc.act = act;
    m->alloc.arg = m->cache;
    source_init(&m->old, "old", false);
    source_init(&m->hung, "hung", true);
    held_init(&m->next, "next");
    m->call = call_for(&m->old);
    m->call.freshness.stale_ms = STALE;
    (void)call_is_fresh(m->cache, &m->call, "old", ASIDE_OUTCOME_FETCHED);
    m->call.arg = &m->next;
    fake_clock_advance_ms(&m->clock, TTL, m->cache);
}

/* And another's fetch of it, which he waits for, hangs. */
static void meddling_begin(struct meddling *m, thread_fn act)
{
    meddling_open(m, act, 0);
    caller_ask(&m->leader, m->cache, "k", &m->hung, NULL);
    m->leader.call.freshness.stale_ms = ASIDE_OFF;
    caller_start(&m->leader);
    gate_wait_arrived(&m->hung.gate, 1);
    fake_clock_advance_ms(&m->clock, 1500, m->cache);
}

/* The next block that this thread frees is that of the flight which it does not lead. */
static void meddling_arm(struct meddling *m)
{
    m->alloc.armed_by = pthread_self();
    atomic_store(&m->alloc.armed, true);
}

static void meddling_end(struct meddling *m)
{
    CHECK(!atomic_load(&m->alloc.armed));
    gate_open(&m->next.gate);
    gate_open(&m->hung.gate);
    CHECK_STATUS(caller_join(&m->leader), ASIDE_OK);
    CHECK(value_is(m->leader.result.value, "hung"));
    caller_drop(&m->leader);
    wait_for_fetches(m->cache);
    end_cache(m->cache);
}

static void *expire_it(void *cache)
{
    CHECK_STATUS(aside_expire((aside_cache *)cache, ASIDE_STR("k")), ASIDE_MISS);
    return NULL;
}

static void *delete_it(void *cache)
{
    CHECK_STATUS(aside_delete((aside_cache *)cache, ASIDE_STR("k")), ASIDE_MISS);
    return NULL;
}

static void *write_it(void *cache)
{
    put((aside_cache *)cache, "k", "written", LONG);
    return NULL;
}

/* He is about to note how long the fetch of the other may hang, which is nothing to the value by then. */
TEST(what_is_expired_while_a_fetch_under_way_is_found_is_the_next_callers_to_refresh)
{
    struct meddling m;
    meddling_begin(&m, expire_it);
    meddling_arm(&m);
    (void)call_is_stale(m.cache, &m.call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(STAT(m.cache, refreshes), 0);
    (void)call_is_stale(m.cache, &m.call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(STAT(m.cache, refreshes), 1);
    meddling_end(&m);
}

TEST(what_is_deleted_while_a_fetch_under_way_is_found_is_fetched_anew)
{
    struct meddling m;
    meddling_begin(&m, delete_it);
    gate_open(&m.next.gate);
    meddling_arm(&m);
    (void)call_is_fresh(m.cache, &m.call, "next", ASIDE_OUTCOME_FETCHED);
    CHECK_INT(STAT(m.cache, refreshes), 0);
    meddling_end(&m);
}

TEST(what_is_written_while_a_fetch_under_way_is_found_is_the_answer)
{
    struct meddling m;
    meddling_begin(&m, write_it);
    meddling_arm(&m);
    (void)call_is_fresh(m.cache, &m.call, "written", ASIDE_OUTCOME_HIT);
    CHECK_INT(m.next.fetches, 0);
    CHECK(holds(m.cache, "k", "written"));
    meddling_end(&m);
}

/* ---- what ends a stale value --------------------------------------------------------------------- */

enum end { DELETE, SET_TTL_0, TOUCH_NOTHING, CLEAR, SET, SET_VALUE, ADD, EXPIRE };

static void do_end(aside_cache *cache, enum end end)
{
    aside_value *value = NULL;
    switch (end) {
    case DELETE: CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case SET_TTL_0: put(cache, "k", "dropped", 0); break;
    case TOUCH_NOTHING: CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), LONG), ASIDE_MISS); break;
    case CLEAR: CHECK_STATUS(aside_clear(cache), ASIDE_OK); break;
    case SET: put(cache, "k", "written", LONG); break;
    case SET_VALUE:
        CHECK_STATUS(aside_value_copy("written", 7, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, LONG), ASIDE_OK);
        aside_value_unref(value);
        break;
    case ADD: CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "written", 7, LONG), ASIDE_OK); break;
    case EXPIRE: CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    }
}

TEST(what_is_deleted_or_cleared_is_not_served_stale)
{
    static const enum end ends[] = {DELETE, SET_TTL_0, CLEAR};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_with_old(&clock);
        source_init(&source, "now", false);
        aside_call call = call_for(&source);
        do_end(cache, ends[i]);
        (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
        CHECK_INT(STAT(cache, stale) + STAT(cache, refreshes), 0);
        end_cache(cache);
    }
}

TEST(a_touch_does_not_revive_what_is_stale)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    source_init(&source, "now", true);
    aside_call call = call_for(&source);
    do_end(cache, TOUCH_NOTHING);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_open(&source.gate);
    end_cache(cache);
}

TEST(a_source_that_says_not_found_ends_the_stale_value)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    held_init(&source, NULL);
    source.status = ASIDE_NOT_FOUND;
    aside_call call = call_for(&source);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(cache, &source);
    CHECK_INT(STAT(cache, fetch_not_found), 1);
    (void)call_gives(cache, &call, ASIDE_NOT_FOUND, NULL);
    CHECK_INT(source.fetches, 2);
    check_lookups(cache, 2);
    end_cache(cache);
}

TEST(what_is_expired_is_served_stale_and_its_windows_begin_then)
{
    for (int64_t past_ms = STALE - 1; past_ms <= STALE; past_ms++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_stale(&clock);
        source_init(&source, "now", true);
        aside_call call = call_for(&source);
        put(cache, "k", "old", LONG);
        fake_clock_advance_ms(&clock, 100, cache);
        CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_OK);
        CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
        CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS); /* changes nothing */
        fake_clock_advance_ms(&clock, past_ms, cache);
        if (past_ms >= STALE)
            gate_open(&source.gate);
        if (past_ms < STALE)
            CHECK_INT(call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH).age_ms,
                      100 + past_ms);
        else
            (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(to_expire_what_is_stale_does_not_prolong_its_windows)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_stale(&clock);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    make_old(cache, &clock, STALE - 1);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    end_cache(cache);
}

TEST(a_value_with_windows_that_is_touched_has_them_after_its_new_ttl)
{
    static const int64_t past_ms[] = {-1, 0, STALE - 1, STALE};
    static const aside_outcome want[] = {ASIDE_OUTCOME_HIT, ASIDE_OUTCOME_STALE,
                                         ASIDE_OUTCOME_STALE, ASIDE_OUTCOME_FETCHED};
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_stale(&clock);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        put(cache, "k", "old", TTL);
        fake_clock_advance_ms(&clock, TTL - 1, cache);
        CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), LONG), ASIDE_OK);
        fake_clock_advance_ms(&clock, LONG + past_ms[i], cache);
        bool fetched = want[i] == ASIDE_OUTCOME_FETCHED;
        if (fetched)
            gate_open(&source.gate);
        CHECK_INT(call_gives(cache, &call, ASIDE_OK, fetched ? "now" : "old").outcome, want[i]);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(a_touch_with_ttl_0_ends_a_value_with_windows)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_stale(&clock);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    put(cache, "k", "old", TTL);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 0), ASIDE_OK);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    end_cache(cache);
}

/* ---- writes win over a refresh ------------------------------------------------------------------- */

TEST(a_refresh_that_a_write_overtook_stores_nothing)
{
    static const enum end writes[] = {SET, SET_VALUE, ADD, DELETE, SET_TTL_0, CLEAR};
    for (size_t i = 0; i < COUNT_OF(writes); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_refreshing(&clock, &source, "outdated");
        bool stores = writes[i] == SET || writes[i] == SET_VALUE || writes[i] == ADD;
        do_end(cache, writes[i]);
        gate_open(&source.gate);
        wait_for_fetches(cache);
        CHECK_INT(STAT(cache, fetch_fenced), 1);
        CHECK_INT(STAT(cache, fetch_stored), 0);
        if (stores)
            CHECK(holds(cache, "k", "written"));
        else
            CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
        source.answer = "now";
        aside_call call = call_for(&source);
        (void)call_is_fresh(cache, &call, stores ? "written" : "now",
                            stores ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_FETCHED);
        end_cache(cache);
    }
}

TEST(after_a_delete_nobody_joins_the_refresh_of_before)
{
    struct fake_clock clock;
    struct source source, next;
    aside_cache *cache = open_refreshing(&clock, &source, "outdated");
    source_init(&next, "next", false);
    aside_call call = call_for(&next);
    do_end(cache, DELETE);
    (void)call_is_fresh(cache, &call, "next", ASIDE_OUTCOME_FETCHED);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK(holds(cache, "k", "next"));
    end_cache(cache);
}

TEST(an_expire_fences_the_refresh_and_the_next_caller_begins_another)
{
    struct fake_clock clock;
    struct source source, next;
    aside_cache *cache = open_refreshing(&clock, &source, "outdated");
    source_init(&next, "next", true);
    aside_call call = call_for(&next);
    do_end(cache, EXPIRE);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&next.gate, 1);
    gate_open(&source.gate);
    WAIT_UNTIL(STAT(cache, fetch_fenced) == 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_open(&next.gate);
    wait_for_fetches(cache);
    CHECK(holds(cache, "k", "next"));
    CHECK_INT(next.fetches, 1);
    end_cache(cache);
}

TEST(a_failed_refresh_that_a_write_overtook_changes_nothing)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_refreshing(&clock, &source, NULL);
    source.status = ASIDE_E_FETCH;
    do_end(cache, SET);
    let_go(cache, &source);
    fake_clock_advance_ms(&clock, LONG, cache);
    held_init(&source, "now"); /* nobody is held back for what the old one came to */
    aside_call call = call_for(&source);
    (void)call_is_stale(cache, &call, "written", ASIDE_STALE_REFRESH);
    let_go(cache, &source);
    CHECK(holds(cache, "k", "now"));
    end_cache(cache);
}

TEST(not_found_of_a_refresh_that_a_write_overtook_removes_nothing)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_refreshing(&clock, &source, NULL);
    source.status = ASIDE_NOT_FOUND;
    do_end(cache, SET);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK(holds(cache, "k", "written"));
    end_cache(cache);
}

/* The flight ends well, and yet there is no new value: no claim is left behind. */
TEST(after_a_refresh_that_stores_nothing_the_next_caller_begins_another)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    call.ttl_ms = ASIDE_NO_STORE;
    for (int i = 1; i < 4; i++) {
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
        wait_for_fetches(cache);
        CHECK_INT(source.fetches, i);
    }
    end_cache(cache);
}

/* ---- a call's own windows ------------------------------------------------------------------------ */

TEST(a_call_says_how_stale_a_value_it_accepts)
{
    static const struct {
        int64_t own_ms, past_ms;
        aside_outcome outcome;
    } cases[] = {{ASIDE_OFF, 0, ASIDE_OUTCOME_FETCHED},
                 {100, 99, ASIDE_OUTCOME_STALE},
                 {100, 100, ASIDE_OUTCOME_FETCHED},
                 {2 * STALE, STALE - 1, ASIDE_OUTCOME_STALE},
                 {2 * STALE, STALE, ASIDE_OUTCOME_FETCHED}, /* it was not stored for so long */
                 {ASIDE_FOREVER, STALE, ASIDE_OUTCOME_FETCHED}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_stale(&clock);
        held_init(&source, "now");
        aside_call call = call_for(&source);
        call.freshness.stale_ms = cases[i].own_ms;
        make_old(cache, &clock, cases[i].past_ms);
        bool fetched = cases[i].outcome == ASIDE_OUTCOME_FETCHED;
        if (fetched)
            gate_open(&source.gate);
        CHECK_INT(call_gives(cache, &call, ASIDE_OK, fetched ? "now" : "old").outcome,
                  cases[i].outcome);
        let_go(cache, &source);
        end_cache(cache);
    }
}

static aside_status sets_window(aside_fetch *fetch, void *arg)
{
    aside_freshness own = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    own.stale_ms = *(const int64_t *)arg;
    CHECK_STATUS(aside_fetch_set_freshness(fetch, &own), ASIDE_OK);
    return aside_fetch_copy(fetch, "old", 3);
}

/* The window of what that call stores: so long it is served stale, and no longer. */
static void check_window(const aside_call *call, int64_t window_ms)
{
    for (int late = 0; late < 2; late++) {
        struct fake_clock clock;
        struct source source;
        aside_cache *cache = open_stale(&clock);
        held_init(&source, "now");
        aside_call later = call_for(&source);
        (void)call_is_fresh(cache, call, "old", ASIDE_OUTCOME_FETCHED);
        fake_clock_advance_ms(&clock, TTL + window_ms - !late, cache);
        if (late)
            gate_open(&source.gate);
        if (late)
            (void)call_is_fresh(cache, &later, "now", ASIDE_OUTCOME_FETCHED);
        else if (window_ms)
            (void)call_is_stale(cache, &later, "old", ASIDE_STALE_REFRESH);
        else
            (void)call_is_fresh(cache, &later, "old", ASIDE_OUTCOME_HIT);
        let_go(cache, &source);
        end_cache(cache);
    }
}

TEST(a_value_has_the_windows_of_the_call_that_fetched_it)
{
    static const int64_t own_ms[] = {0, 100, 2 * STALE, ASIDE_OFF};
    static const int64_t want_ms[] = {STALE, 100, 2 * STALE, 0};
    for (size_t i = 0; i < COUNT_OF(own_ms); i++) {
        struct source source;
        source_init(&source, "old", false);
        aside_call call = call_for(&source);
        call.freshness.stale_ms = own_ms[i];
        check_window(&call, want_ms[i]);
    }
}

TEST(a_fetch_says_how_long_its_value_is_served_stale)
{
    static const int64_t said_ms[] = {0, 100, 2 * STALE, ASIDE_OFF};
    static const int64_t want_ms[] = {STALE, 100, 2 * STALE, 0};
    for (size_t i = 0; i < COUNT_OF(said_ms); i++) {
        int64_t said = said_ms[i];
        aside_call call = {ASIDE_CALL, .fetch = sets_window, .arg = &said};
        check_window(&call, want_ms[i]);
        call.freshness.stale_ms = 300; /* is overridden too, or stays */
        check_window(&call, said == 0 ? 300 : want_ms[i]);
    }
}

static aside_status sets_nonsense(aside_fetch *fetch, void *arg)
{
    aside_freshness bad = {-2, 0, 0, 0, 0, 0, 0, 0, 0};
    (void)arg;
    CHECK_STATUS(aside_fetch_set_freshness(fetch, &bad), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_freshness(fetch, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_freshness(NULL, &bad), ASIDE_E_INVALID);
    bad.stale_ms = 0;
    bad.refresh_ahead = 1;
    CHECK_STATUS(aside_fetch_set_freshness(fetch, &bad), ASIDE_E_INVALID);
    return aside_fetch_copy(fetch, "old", 3);
}

TEST(a_freshness_that_makes_no_sense_is_refused_everywhere)
{
    struct source source;
    aside_freshness bad[4];
    memset(bad, 0, sizeof bad);
    bad[0].stale_ms = -2;
    bad[1].soft_timeout_ms = INT64_MIN;
    bad[2].refresh_ahead = 1;
    bad[3].xfetch_beta = -0.5;
    aside_cache *cache = open_quiet(), *none;
    source_init(&source, "v", false);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        aside_options options = quiet_options();
        aside_call call = call_for(&source);
        options.freshness = call.freshness = bad[i];
        CHECK_STATUS(aside_open(&none, &options), ASIDE_E_INVALID);
        (void)call_gives(cache, &call, ASIDE_E_INVALID, NULL);
        CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_E_INVALID);
    }
    CHECK_INT(source.fetches, 0);
    end_cache(cache);
    aside_call call = {ASIDE_CALL, .fetch = sets_nonsense};
    check_window(&call, STALE);
}

/* As one built against a header without the member would. */
TEST(an_older_options_and_an_older_call_have_no_windows)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.struct_size = offsetof(aside_options, freshness);
    aside_cache *cache = open_cache(&options);
    source_init(&source, "now", false);
    aside_call call = call_for(&source);
    call.freshness.stale_ms = STALE;
    call.struct_size = offsetof(aside_call, freshness);
    make_old(cache, &clock, 0);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    fake_clock_advance_ms(&clock, TTL, cache);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_FETCHED);
    end_cache(cache);
}

/* ---- who must not wait, who has left ------------------------------------------------------------- */

TEST(with_a_fired_token_or_no_wait_a_stale_value_is_served_and_nothing_is_begun)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    aside_cancel *token = token_new();
    held_init(&source, "now");
    aside_call call = call_for(&source), fired = call_for(&source);
    fired.cancel = token;
    aside_cancel_fire(token);
    aside_call no_wait = call_for(&source);
    no_wait.timeout_ms = ASIDE_NO_WAIT;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(call_gives(cache, &fired, ASIDE_OK, "old").outcome, ASIDE_OUTCOME_STALE);
        CHECK_INT(call_gives(cache, &no_wait, ASIDE_OK, "old").outcome, ASIDE_OUTCOME_STALE);
    }
    CHECK_INT(STAT(cache, refreshes), 0);
    CHECK_INT(source.fetches, 0);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH); /* nor was it claimed */
    let_go(cache, &source);
    CHECK_INT(source.fetches, 1);
    fake_clock_advance_ms(&clock, TTL + STALE, cache);
    CHECK_INT(call_gives(cache, &fired, ASIDE_E_CANCELLED, NULL).outcome, ASIDE_OUTCOME_NONE);
    check_lookups(cache, 8);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(with_no_wait_a_stale_value_is_served)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_refreshing(&clock, &source, "now");
    aside_call call = call_for(&source);
    call.timeout_ms = ASIDE_NO_WAIT;
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    call.freshness.soft_timeout_ms = LONG; /* he does not wait for that either */
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    call.freshness.stale_ms = ASIDE_OFF;
    CHECK_INT(call_gives(cache, &call, ASIDE_MISS, NULL).outcome, ASIDE_OUTCOME_NONE);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK_INT(source.fetches, 1);
    check_lookups(cache, 4);
    end_cache(cache);
}

/* ---- who runs a refresh -------------------------------------------------------------------------- */

struct ran {
    pthread_t thread;
    void *worker;
    _Atomic int fetches;
};

static aside_status note_run(aside_fetch *fetch, void *arg)
{
    struct ran *ran = (struct ran *)arg;
    ran->thread = pthread_self();
    ran->worker = aside_fetch_worker(fetch);
    aside_status status = aside_fetch_copy(fetch, "now", 3);
    atomic_fetch_add(&ran->fetches, 1);
    return status;
}

/* One call finds the value due, and the fetch runs before it returns: on its own thread. */
static void check_runs_here(aside_options *options, struct fake_clock *clock, aside_call *call)
{
    aside_cache *cache = open_cache(options);
    struct ran *ran = (struct ran *)call->arg;
    aside_result result = ASIDE_RESULT_INIT;
    ran->fetches = 0;
    make_old(cache, clock, 1);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), call, &result), ASIDE_OK);
    CHECK(result.value != NULL); /* the old one or the new one */
    aside_value_unref(result.value);
    CHECK_INT(ran->fetches, 1);
    CHECK(pthread_equal(ran->thread, pthread_self()));
    CHECK(holds(cache, "k", "now"));
    CHECK_INT(STAT(cache, refreshes), 1);
    CHECK_INT(STAT(cache, workers_now), 0);
    check_lookups(cache, 2);
    end_cache(cache);
}

TEST(without_workers_a_refresh_runs_on_the_callers_thread)
{
    struct fake_clock clock;
    struct ran ran;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.fetch_threads = 0;
    aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
    check_runs_here(&options, &clock, &call);
}

TEST(a_nonblocking_refresh_runs_on_the_callers_thread)
{
    struct fake_clock clock;
    struct ran ran;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
    call.nonblocking = 1;
    check_runs_here(&options, &clock, &call);
}

struct promised {
    aside_fetch *fetch; /* completed later */
    int fetches;
};

static aside_status promise(aside_fetch *fetch, void *arg)
{
    struct promised *promised = (struct promised *)arg;
    promised->fetch = aside_fetch_ref(fetch);
    promised->fetches++;
    return ASIDE_PENDING;
}

TEST(a_nonblocking_refresh_that_is_pending_is_waited_for_by_nobody)
{
    struct fake_clock clock;
    struct promised promised = {NULL, 0};
    aside_cache *cache = open_with_old(&clock);
    aside_call call = {ASIDE_CALL, .fetch = promise, .arg = &promised};
    call.nonblocking = 1;
    for (int i = 0; i < 3; i++)
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(promised.fetches, 1);
    CHECK_INT(STAT(cache, workers_now), 0);
    CHECK_STATUS(aside_fetch_complete(promised.fetch, aside_fetch_copy(promised.fetch, "now", 3)),
                 ASIDE_OK);
    aside_fetch_unref(promised.fetch);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    end_cache(cache);
}

struct executor {
    aside_status answer;
    aside_job *job; /* taken and not yet used up */
    int submitted;
};

static aside_status submit(void *ctx, aside_job *job)
{
    struct executor *executor = (struct executor *)ctx;
    executor->submitted++;
    if (executor->answer == ASIDE_OK)
        executor->job = job;
    return executor->answer;
}

static aside_cache *open_with_executor(struct executor *executor, struct fake_clock *clock)
{
    aside_options options = stale_options(clock);
    options.freshness.stale_ms = STALE;
    options.submit.fn = submit;
    options.submit.ctx = executor;
    aside_cache *cache = open_cache(&options);
    make_old(cache, clock, 1);
    return cache;
}

TEST(a_refresh_goes_to_the_executor)
{
    struct fake_clock clock;
    struct ran ran = {.fetches = 0};
    struct executor executor = {ASIDE_OK, NULL, 0};
    int worker;
    aside_cache *cache = open_with_executor(&executor, &clock);
    aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
    for (int i = 0; i < 3; i++)
        (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(executor.submitted, 1);
    CHECK_INT(ran.fetches, 0);
    aside_job_run(executor.job, &worker);
    CHECK(ran.worker == &worker);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    end_cache(cache);
}

TEST(a_refresh_that_the_executor_drops_has_failed)
{
    struct fake_clock clock;
    struct ran ran = {.fetches = 0};
    struct executor executor = {ASIDE_OK, NULL, 0};
    aside_cache *cache = open_with_executor(&executor, &clock);
    aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    aside_job_drop(executor.job);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
    CHECK_STATUS(result.fetch_status, ASIDE_E_ABANDONED);
    CHECK_INT(executor.submitted, 1);
    fake_clock_advance_ms(&clock, THROTTLE, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(executor.submitted, 2);
    aside_job_run(executor.job, NULL);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    end_cache(cache);
}

/* He who found it due is none the worse for it. */
TEST(where_no_refresh_can_be_begun_the_value_is_served_all_the_same)
{
    struct fake_clock clock;
    struct ran ran = {.fetches = 0};
    struct executor executor = {ASIDE_E_BUSY, NULL, 0};
    aside_cache *cache = open_with_executor(&executor, &clock);
    aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
    CHECK_INT(call_gives(cache, &call, ASIDE_OK, "old").outcome, ASIDE_OUTCOME_STALE);
    CHECK_INT(call_gives(cache, &call, ASIDE_OK, "old").outcome, ASIDE_OUTCOME_STALE);
    executor.answer = ASIDE_OK;
    fake_clock_advance_ms(&clock, THROTTLE, cache);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    CHECK(executor.job != NULL); /* they have not given up for ever */
    aside_job_run(executor.job, NULL);
    (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    end_cache(cache);
}

static aside_status worker_start(void *ctx, void **worker)
{
    *worker = ctx;
    return *(aside_status *)ctx;
}

TEST(with_a_start_hook_a_refresh_runs_on_a_worker_always)
{
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        struct fake_clock clock;
        struct ran ran = {.fetches = 0};
        aside_status start = ASIDE_OK;
        aside_options options = stale_options(&clock);
        options.freshness.stale_ms = STALE;
        options.worker.start = worker_start;
        options.worker.ctx = &start;
        aside_cache *cache = open_cache(&options);
        aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
        call.nonblocking = nonblocking;
        make_old(cache, &clock, 1);
        CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
        wait_for_fetches(cache);
        CHECK_INT(ran.fetches, 1);
        CHECK(ran.worker == &start);
        CHECK(!pthread_equal(ran.thread, pthread_self()));
        (void)call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
        end_cache(cache);
    }
}

TEST(a_refresh_whose_worker_does_not_start_has_failed)
{
    struct fake_clock clock;
    struct ran ran = {.fetches = 0};
    aside_status start = (aside_status)-77;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.worker.start = worker_start;
    options.worker.ctx = &start;
    aside_cache *cache = open_cache(&options);
    aside_call call = {ASIDE_CALL, .fetch = note_run, .arg = &ran};
    make_old(cache, &clock, 1);
    CHECK_INT(call_gives(cache, &call, ASIDE_OK, "old").outcome, ASIDE_OUTCOME_STALE);
    wait_for_fetches(cache);
    aside_result result = call_is_stale(cache, &call, "old", ASIDE_STALE_THROTTLED);
    CHECK_STATUS(result.fetch_status, ASIDE_E_WORKER);
    CHECK_INT(result.fetch_error, -77);
    CHECK_INT(ran.fetches, 0);
    end_cache(cache);
}

/* ---- arguments ----------------------------------------------------------------------------------- */

struct counted {
    _Atomic int kept, released, fetches;
};

static void keep(void *arg)
{
    atomic_fetch_add(&((struct counted *)arg)->kept, 1);
}

static void release(void *arg)
{
    struct counted *counted = (struct counted *)arg;
    CHECK_INT(counted->fetches, counted->kept);
    atomic_fetch_add(&counted->released, 1);
}

static aside_status count_fetch(aside_fetch *fetch, void *arg)
{
    struct counted *counted = (struct counted *)arg;
    CHECK_INT(counted->kept, counted->released + 1);
    atomic_fetch_add(&counted->fetches, 1);
    return aside_fetch_copy(fetch, "now", 3);
}

TEST(a_refresh_keeps_its_argument_and_releases_it_once)
{
    struct fake_clock clock;
    struct counted counted = {0, 0, 0};
    aside_cache *cache = open_with_old(&clock);
    aside_call call = {ASIDE_CALL, .fetch = count_fetch, .arg = &counted};
    call.arg_retain = keep;
    call.arg_release = release;
    for (int i = 1; i < 4; i++) {
        CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
        WAIT_UNTIL(counted.released == i);
        CHECK_INT(counted.kept, i);
        fake_clock_advance_ms(&clock, TTL, cache);
    }
    end_cache(cache);
}

static aside_status echo_argument(aside_fetch *fetch, void *arg)
{
    return aside_fetch_copy(fetch, arg, 8);
}

TEST(an_argument_that_is_copied_may_lie_on_a_stack)
{
    struct fake_clock clock;
    struct executor executor = {ASIDE_OK, NULL, 0};
    char word[8] = "stacked";
    aside_cache *cache = open_with_executor(&executor, &clock);
    aside_call call = {ASIDE_CALL, .fetch = echo_argument, .arg = word, .arg_size = sizeof word};
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    memset(word, 'x', sizeof word);
    aside_job_run(executor.job, NULL);
    CHECK(aside_copy(cache, ASIDE_STR("k"), word, sizeof word, NULL) == ASIDE_OK);
    CHECK(strcmp(word, "stacked") == 0);
    end_cache(cache);
}

/* ---- plain verbs --------------------------------------------------------------------------------- */

static void never_visited(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
    CHECK(!"a stale value was visited");
}

TEST(plain_verbs_see_fresh_values_only_and_leave_a_stale_one_where_it_is)
{
    struct fake_clock clock;
    struct source source;
    char buffer[8];
    size_t size = 1;
    aside_cache *cache = open_stale(&clock);
    held_init(&source, "now");
    aside_call call = call_for(&source);
    make_old(cache, &clock, STALE - 1);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, &size), ASIDE_MISS);
    CHECK_INT(size, 0);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), never_visited, NULL), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), LONG), ASIDE_MISS);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(aside_count(cache), 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    let_go(cache, &source);
    check_lookups(cache, 4);
    end_cache(cache);
}

TEST(a_value_is_reaped_after_its_windows)
{
    struct fake_clock clock;
    size_t reaped = 1;
    aside_cache *cache = open_stale(&clock);
    make_old(cache, &clock, STALE - 1);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 0);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

TEST(plain_verbs_hit_what_has_windows_while_it_is_fresh)
{
    struct fake_clock clock;
    char buffer[8];
    size_t size = 0;
    aside_cache *cache = open_stale(&clock);
    make_old(cache, &clock, -1);
    CHECK(holds(cache, "k", "old"));
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, &size), ASIDE_OK);
    CHECK_INT(size, 3);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "x", 1, LONG), ASIDE_EXISTS);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    check_lookups(cache, 2);
    end_cache(cache);
}

/* ---- aside_refresh ------------------------------------------------------------------------------- */

TEST(a_refresh_that_is_asked_for_stores_and_others_go_on_meanwhile)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    aside_cache *cache = open_cache(&options); /* it needs no windows */
    source_init(&source, "now", true);
    aside_call call = call_for(&source);
    call.ttl_ms = LONG;
    put(cache, "k", "old", TTL);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    gate_wait_arrived(&source.gate, 1);
    (void)call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK(holds(cache, "k", "old"));
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK); /* one is under way */
    gate_open(&source.gate);
    wait_for_fetches(cache);
    aside_result result = call_is_fresh(cache, &call, "now", ASIDE_OUTCOME_HIT);
    CHECK_INT(result.ttl_left_ms, LONG);
    CHECK_INT(source.fetches, 1);
    CHECK_INT(STAT(cache, refreshes), 1);
    CHECK_INT(STAT(cache, refresh_ok), 2);
    check_lookups(cache, 3); /* a refresh looks nothing up */
    end_cache(cache);
}

TEST(a_refresh_of_what_is_not_there_is_joined_by_who_misses)
{
    struct source source, never;
    struct caller joiner;
    aside_cache *cache = open_quiet();
    source_init(&source, "now", true);
    source_init(&never, "never", false);
    aside_call call = call_for(&source);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    gate_wait_arrived(&source.gate, 1);
    join_flight(&joiner, cache, "k", &never, NULL, 1);
    gate_open(&source.gate);
    caller_is_fresh(&joiner, "now", ASIDE_OUTCOME_JOINED);
    CHECK_INT(joiner.result.shared, 0); /* he alone was attached */
    CHECK_INT(never.fetches, 0);
    check_lookups(cache, 1);
    end_cache(cache);
}

TEST(a_refresh_finds_the_fetch_that_others_wait_for_under_way)
{
    struct source source, never;
    struct caller leader;
    aside_cache *cache = open_quiet();
    source_init(&source, "now", true);
    source_init(&never, "never", false);
    lead_to_gate(&leader, cache, "k", &source);
    aside_call call = call_for(&never);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    gate_open(&source.gate);
    caller_is_fresh(&leader, "now", ASIDE_OUTCOME_FETCHED);
    CHECK_INT(never.fetches, 0);
    CHECK_INT(STAT(cache, refreshes), 0);
    end_cache(cache);
}

TEST(a_refresh_that_fails_leaves_a_fresh_value_as_it_is)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_stale(&clock);
    source_init(&source, NULL, false);
    source.status = ASIDE_E_FETCH;
    aside_call call = call_for(&source);
    put(cache, "k", "old", TTL);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    wait_for_fetches(cache);
    CHECK_INT(STAT(cache, fetch_errors), 1);
    aside_result result = call_is_fresh(cache, &call, "old", ASIDE_OUTCOME_HIT);
    CHECK_INT(result.ttl_left_ms, TTL);
    end_cache(cache);
}

TEST(a_refresh_is_fenced_as_any_fetch_is)
{
    struct source source;
    aside_cache *cache = open_quiet();
    source_init(&source, "outdated", true);
    aside_call call = call_for(&source);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    gate_wait_arrived(&source.gate, 1);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    gate_open(&source.gate);
    wait_for_fetches(cache);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_INT(STAT(cache, fetch_fenced), 1);
    end_cache(cache);
}

static aside_status refreshes_itself(aside_fetch *fetch, void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    aside_call call = {ASIDE_CALL, .fetch = refreshes_itself, .arg = arg};
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_E_DEADLOCK);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_does_not_refresh_its_own_key)
{
    aside_cache *cache = open_quiet();
    aside_call call = {ASIDE_CALL, .fetch = refreshes_itself, .arg = cache};
    (void)call_is_fresh(cache, &call, "v", ASIDE_OUTCOME_FETCHED);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    wait_for_fetches(cache);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(STAT(cache, refresh_error), 2);
    end_cache(cache);
}

static aside_status looks_at_itself(aside_fetch *fetch, void *arg)
{
    aside_call call = {ASIDE_CALL, .fetch = looks_at_itself, .arg = arg};
    (void)call_is_stale((aside_cache *)arg, &call, "old", ASIDE_STALE_REFRESH);
    call.freshness.stale_ms = ASIDE_OFF;
    (void)call_gives((aside_cache *)arg, &call, ASIDE_E_DEADLOCK, NULL);
    return aside_fetch_copy(fetch, "now", 3);
}

TEST(a_refresh_may_be_served_the_stale_value_itself)
{
    struct fake_clock clock;
    aside_cache *cache = open_with_old(&clock);
    aside_call call = {ASIDE_CALL, .fetch = looks_at_itself, .arg = cache};
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_OK);
    wait_for_fetches(cache);
    CHECK(holds(cache, "k", "now"));
    end_cache(cache);
}

TEST(a_refresh_that_cannot_be_begun_says_why)
{
    struct source source, other;
    struct caller leader;
    aside_options options = quiet_options();
    options.max_flights = 1;
    aside_cache *cache = open_cache(&options);
    source_init(&source, "v", true);
    source_init(&other, "v", false);
    aside_call call = call_for(&other), without = call_for(&other), half = call_for(&other);
    without.fetch = NULL;
    half.arg_retain = keep;
    lead_to_gate(&leader, cache, "held", &source);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_E_BUSY);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &without), ASIDE_E_INVALID);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &half), ASIDE_E_INVALID);
    CHECK_STATUS(aside_refresh(cache, NULL, 1, &call), ASIDE_E_INVALID);
    CHECK_STATUS(aside_refresh(NULL, ASIDE_STR("k"), &call), ASIDE_E_INVALID);
    gate_open(&source.gate);
    caller_is_fresh(&leader, "v", ASIDE_OUTCOME_FETCHED);
    CHECK_INT(STAT(cache, refresh_error), 5);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &call), ASIDE_E_CLOSED);
    CHECK_INT(other.fetches, 0);
    aside_unref(cache);
}

/* No flight can be begun, and what it was claimed for is gone, or another's, by then. */
static void check_refused_and_meddled_with(thread_fn act, aside_status status, const char *text)
{
    struct meddling m;
    struct source other;
    struct caller elsewhere;
    meddling_open(&m, act, 1);
    source_init(&other, "v", true);
    lead_to_gate(&elsewhere, m.cache, "other", &other);
    meddling_arm(&m);
    (void)call_gives(m.cache, &m.call, status, text);
    CHECK(!atomic_load(&m.alloc.armed));
    CHECK_INT(STAT(m.cache, refreshes), 0);
    gate_open(&other.gate);
    caller_is_fresh(&elsewhere, "v", ASIDE_OUTCOME_FETCHED);
    CHECK_INT(m.next.fetches, 0);
    end_cache(m.cache);
}

TEST(a_refresh_that_cannot_be_begun_of_what_is_gone_by_then)
{
    check_refused_and_meddled_with(delete_it, ASIDE_E_BUSY, NULL);
    check_refused_and_meddled_with(write_it, ASIDE_OK, "written");
    check_refused_and_meddled_with(expire_it, ASIDE_OK, "old");
}

struct recordless {
    aside_cache *cache;
    aside_call call;
};

static void *refresh_without_record(void *arg)
{
    struct recordless *recordless = (struct recordless *)arg;
    aside_cache *cache = recordless->cache;
    process_fail_alloc(1, true);
    CHECK_STATUS(aside_refresh(cache, ASIDE_STR("k"), &recordless->call), ASIDE_E_NOMEM);
    (void)call_is_stale(cache, &recordless->call, "old", ASIDE_STALE_REFRESH);
    process_fail_alloc(0, false);
    return NULL;
}

/* He has claimed it, and gives it up: others begin one once the throttle time is over. */
TEST(a_thread_without_a_record_is_served_what_is_stale_and_refreshes_nothing)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_with_old(&clock);
    source_init(&source, "now", true);
    struct recordless recordless = {cache, call_for(&source)};
    CHECK_STATUS(look(cache, "none"),
                 ASIDE_MISS); /* the record that there is belongs to this thread */
    thread_join(thread_start(refresh_without_record, &recordless));
    CHECK_INT(STAT(cache, refresh_error), 1);
    fake_clock_advance_ms(&clock, THROTTLE - 1, cache);
    (void)call_is_stale(cache, &recordless.call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(STAT(cache, refreshes), 0);
    fake_clock_advance_ms(&clock, 1, cache);
    (void)call_is_stale(cache, &recordless.call, "old", ASIDE_STALE_REFRESH);
    CHECK_INT(STAT(cache, refreshes), 1);
    let_go(cache, &source);
    end_cache(cache);
}

/* ---- close --------------------------------------------------------------------------------------- */

static aside_status runs_until_it_is_to_stop(aside_fetch *fetch, void *arg)
{
    struct source *source = (struct source *)arg;
    atomic_fetch_add(&source->fetches, 1);
    WAIT_UNTIL(aside_fetch_stopping(fetch));
    aside_status status = aside_fetch_copy(fetch, "late", 4);
    atomic_fetch_add(&source->finished, 1);
    return status;
}

TEST(close_waits_for_the_refresh_that_runs)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.close_wait_ms = ASIDE_FOREVER;
    aside_cache *cache = open_cache(&options);
    source_init(&source, NULL, false);
    aside_call call = {ASIDE_CALL, .fetch = runs_until_it_is_to_stop, .arg = &source};
    make_old(cache, &clock, 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    WAIT_UNTIL(source.fetches == 1);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_INT(source.finished, 1);
    (void)call_gives(cache, &call, ASIDE_E_CLOSED, NULL);
    CHECK_INT(aside_count(cache), 0);
    aside_unref(cache);
}

TEST(a_refresh_that_outlives_the_cache_keeps_what_it_needs)
{
    struct fake_clock clock;
    struct source source;
    aside_options options = stale_options(&clock);
    options.freshness.stale_ms = STALE;
    options.close_wait_ms = 0;
    aside_cache *cache = open_cache(&options);
    source_init(&source, "late", true);
    aside_call call = call_for(&source);
    make_old(cache, &clock, 1);
    (void)call_is_stale(cache, &call, "old", ASIDE_STALE_REFRESH);
    gate_wait_arrived(&source.gate, 1);
    end_cache(cache);
    gate_open(&source.gate);
    WAIT_UNTIL(source.finished == 1);
    wait_for_no_threads();
}

/* ---- statistics ---------------------------------------------------------------------------------- */

TEST(every_lookup_is_counted_once_whatever_answers_it)
{
    struct fake_clock clock;
    struct source source;
    aside_cache *cache = open_stale(&clock);
    uint64_t lookups = 0;
    source_init(&source, NULL, false);
    for (int i = 0; i < 400; i++) {
        aside_call call = call_for(&source);
        aside_result result = ASIDE_RESULT_INIT;
        uint64_t dice = test_random();
        source.answer = dice % 3 ? "v" : NULL;
        source.status = dice % 2 ? ASIDE_E_FETCH : ASIDE_NOT_FOUND;
        call.freshness.stale_ms = dice % 7 ? 0 : ASIDE_OFF;
        call.freshness.soft_timeout_ms = dice % 5 ? 0 : LONG;
        call.timeout_ms = dice % 11 ? 0 : ASIDE_NO_WAIT;
        aside_status status = aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result);
        CHECK((status == ASIDE_OK) == (result.value != NULL));
        aside_value_unref(result.value);
        wait_for_fetches(cache);
        (void)look(cache, "k");
        lookups += 2;
        fake_clock_advance_ms(&clock, (int64_t)(dice >> 32) % (2 * TTL), cache);
    }
    check_lookups(cache, lookups);
    aside_stats s = test_stats(cache);
    CHECK(s.hits && s.stale && s.misses && s.misses_led && s.refused && s.refreshes);
    CHECK_INT(s.get_with_fetch_ok + s.get_with_fetch_none + s.get_with_fetch_error, lookups / 2);
    end_cache(cache);
}
