/*
 * fence.c -- writes win (W1, W3): whoever enters after a write has returned never sees an older
 * value, though a fetch that had read it was under way.
 */
#include "helpers.h"

/* ---- one write during one fetch ------------------------------------------------------------------ */

enum write { DELETE, SET, SET_VALUE, SET_TTL_0, ADD, EXPIRE, CLEAR };

static void do_write(aside_cache *cache, enum write write)
{
    aside_value *value = NULL;
    switch (write) {
    case DELETE: CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case SET: put(cache, "k", "written", ASIDE_FOREVER); break;
    case SET_VALUE:
        CHECK_STATUS(aside_value_copy("written", 7, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, ASIDE_FOREVER), ASIDE_OK);
        aside_value_unref(value);
        break;
    case SET_TTL_0: put(cache, "k", "dropped", 0); break;
    case ADD:
        CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "written", 7, ASIDE_FOREVER), ASIDE_OK);
        break;
    case EXPIRE: CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS); break;
    case CLEAR: CHECK_STATUS(aside_clear(cache), ASIDE_OK); break;
    }
}

static bool stores(enum write write)
{
    return write == SET || write == SET_VALUE || write == ADD;
}

/*
 * A leader and a joiner hang in a fetch that has read the old state; the write returns; a later
 * caller sees the written value, or fetches anew, while the old fetch is still under way; the old
 * callers get their result, flagged, and it is not stored.
 */
static void check_fence(enum write write, bool offloaded)
{
    aside_cache *cache = open_quiet();
    aside_cancel *token = offloaded ? token_new() : NULL;
    struct source old, new;
    struct caller leader, joiner, later;
    source_init(&old, "old", true);
    source_init(&new, "new", false);
    caller_ask(&leader, cache, "k", &old, token);
    caller_start(&leader);
    gate_wait_arrived(&old.gate, 1);
    join_flight(&joiner, cache, "k", &old, NULL, offloaded ? 2 : 1);

    do_write(cache, write);
    const char *want = stores(write) ? "written" : "new";
    caller_ask(&later, cache, "k", &new, NULL);
    CHECK_STATUS(caller_run(&later), ASIDE_OK);
    CHECK(value_is(later.result.value, want));
    CHECK_INT(later.result.fenced, 0);
    CHECK_INT(new.fetches, stores(write) ? 0 : 1);
    CHECK_INT(old.finished, 0);
    caller_drop(&later);

    gate_open(&old.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(value_is(leader.result.value, "old"));
    CHECK(leader.result.value == joiner.result.value);
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(joiner.result.fenced, 1);
    CHECK_INT(joiner.result.shared, 1);
    CHECK_INT(joiner.result.ttl_left_ms, 0);
    caller_drop(&leader);
    caller_drop(&joiner);
    CHECK(holds(cache, "k", want));
    WAIT_UNTIL(STAT(cache, fetch_fenced) == 1); /* a worker may count after it has answered */
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(delete_fences_the_fetch_under_way)
{
    check_fence(DELETE, false);
    check_fence(DELETE, true);
}

TEST(set_fences_the_fetch_under_way_and_wins)
{
    check_fence(SET, false);
    check_fence(SET, true);
    check_fence(SET_VALUE, false);
}

TEST(a_set_with_ttl_0_drops_and_fences_as_delete_does)
{
    check_fence(SET_TTL_0, false);
}

TEST(an_add_that_succeeds_fences_the_fetch_under_way)
{
    check_fence(ADD, false);
    check_fence(ADD, true);
}

TEST(expire_fences_the_fetch_under_way)
{
    check_fence(EXPIRE, false);
}

TEST(clear_fences_the_fetch_under_way)
{
    check_fence(CLEAR, false);
    check_fence(CLEAR, true);
}

TEST(clear_fences_every_fetch_under_way)
{
    enum { KEYS = 32 };
    aside_cache *cache = open_quiet();
    struct source source;
    static struct caller leaders[KEYS];
    static char keys[KEYS][16];
    source_init(&source, "old", true);
    for (int i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i);
        caller_ask(&leaders[i], cache, keys[i], &source, NULL);
        caller_start(&leaders[i]);
    }
    gate_wait_arrived(&source.gate, KEYS);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    gate_open(&source.gate);
    for (int i = 0; i < KEYS; i++) {
        CHECK_STATUS(caller_join(&leaders[i]), ASIDE_OK);
        CHECK_INT(leaders[i].result.fenced, 1);
        caller_drop(&leaders[i]);
    }
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

/* ---- what does not fence ------------------------------------------------------------------------- */

TEST(touch_reads_other_keys_and_an_add_that_stores_nothing_do_not_fence)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader;
    source_init(&source, "fetched", true);
    put(cache, "other", "x", ASIDE_FOREVER);
    lead_to_gate(&leader, cache, "k", &source);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1000), ASIDE_MISS);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), "x", 1, 0), ASIDE_OK);
    put(cache, "other", "y", ASIDE_FOREVER);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("other")), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("K")), ASIDE_MISS);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 0);
    caller_drop(&leader);
    CHECK(holds(cache, "k", "fetched"));
    CHECK_INT(STAT(cache, fetch_fenced), 0);
    end_cache(cache);
}

TEST(a_write_before_the_fetch_starts_does_not_fence_it)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    put(cache, "k", "x", ASIDE_FOREVER);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    caller_ask(&caller, cache, "k", &source, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.fenced, 0);
    caller_drop(&caller);
    CHECK(holds(cache, "k", "v"));
    end_cache(cache);
}

TEST(a_failing_fetch_that_was_fenced_removes_nothing)
{
    aside_cache *cache = open_quiet();
    struct source source;
    struct caller leader;
    source_init(&source, NULL, true);
    source.status = (aside_status)-77;
    lead_to_gate(&leader, cache, "k", &source);
    put(cache, "k", "written", ASIDE_FOREVER);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), (aside_status)-77);
    CHECK(holds(cache, "k", "written"));
    end_cache(cache);
}

TEST(an_old_flight_that_ends_does_not_end_the_new_one)
{
    aside_cache *cache = open_quiet();
    struct source old, new, third;
    struct caller first, second, joiner;
    source_init(&old, "old", true);
    source_init(&new, "new", true);
    source_init(&third, "third", false);
    lead_to_gate(&first, cache, "k", &old);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    lead_to_gate(&second, cache, "k", &new);
    gate_open(&old.gate);
    CHECK_STATUS(caller_join(&first), ASIDE_OK);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    join_flight(&joiner, cache, "k", &third, NULL, 1); /* the new flight is still there */
    gate_open(&new.gate);
    CHECK_STATUS(caller_join(&second), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK(value_is(joiner.result.value, "new"));
    CHECK_INT(joiner.result.fenced, 0);
    CHECK_INT(third.fetches, 0);
    caller_drop(&first);
    caller_drop(&second);
    caller_drop(&joiner);
    CHECK(holds(cache, "k", "new"));
    end_cache(cache);
}

TEST(ten_generations_of_flights_keep_apart)
{
    enum { GENERATIONS = 10 };
    aside_cache *cache = open_quiet();
    static struct source sources[GENERATIONS];
    static struct caller leaders[GENERATIONS];
    static const char *const answers[GENERATIONS] = {"0", "1", "2", "3", "4",
                                                     "5", "6", "7", "8", "9"};
    for (int i = 0; i < GENERATIONS; i++) {
        source_init(&sources[i], answers[i], true);
        lead_to_gate(&leaders[i], cache, "k", &sources[i]);
        if (i < GENERATIONS - 1)
            CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    }
    for (int i = GENERATIONS - 1; i >= 0; i--) { /* the newest first, the oldest last */
        gate_open(&sources[i].gate);
        CHECK_STATUS(caller_join(&leaders[i]), ASIDE_OK);
        CHECK(value_is(leaders[i].result.value, answers[i]));
        CHECK_INT(leaders[i].result.fenced, i < GENERATIONS - 1);
        caller_drop(&leaders[i]);
        CHECK(holds(cache, "k", "9"));
    }
    end_cache(cache);
}

/* ---- the version oracle -------------------------------------------------------------------------- */

/* The source counts up; `settled` is the version whose invalidation has returned. */
struct oracle {
    aside_cache *cache;
    _Atomic uint64_t version, settled;
    _Atomic bool done;
    bool by_set, offloaded;
    aside_cancel *token;
};

static aside_status fetch_version(aside_fetch *fetch, void *arg)
{
    struct oracle *oracle = arg;
    uint64_t version = atomic_load(&oracle->version);
    if (test_random() % 8 == 0)
        test_yield(); /* the version that was read grows old here */
    return aside_fetch_copy(fetch, &version, sizeof version);
}

static void *write_versions(void *arg)
{
    struct oracle *oracle = arg;
    for (long i = 0; i < test_rounds(1500); i++) {
        uint64_t version = atomic_fetch_add(&oracle->version, 1) + 1;
        if (oracle->by_set)
            CHECK_STATUS(aside_set(oracle->cache, ASIDE_STR("k"), &version, sizeof version,
                                   i % 4 == 0 ? 0 : ASIDE_FOREVER),
                         ASIDE_OK);
        else if (i % 3 == 0)
            aside_expire(oracle->cache, ASIDE_STR("k"));
        else if (i % 3 == 1)
            aside_delete(oracle->cache, ASIDE_STR("k"));
        else
            CHECK_STATUS(aside_clear(oracle->cache), ASIDE_OK);
        atomic_store(&oracle->settled, version);
        if (i % 16 == 0)
            test_yield();
    }
    atomic_store(&oracle->done, true);
    return NULL;
}

static void *read_versions(void *arg)
{
    struct oracle *oracle = arg;
    while (!atomic_load(&oracle->done)) {
        uint64_t floor = atomic_load(&oracle->settled), found = 0;
        aside_call call = {ASIDE_CALL, .fetch = fetch_version, .arg = oracle,
                           .cancel = oracle->token};
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_get_with_fetch(oracle->cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
        CHECK_INT(aside_value_size(result.value), sizeof found);
        memcpy(&found, aside_value_data(result.value), sizeof found);
        aside_value_unref(result.value);
        CHECK(found >= floor);
        CHECK(found <= atomic_load(&oracle->version));
    }
    return NULL;
}

static void check_versions(bool by_set, bool offloaded)
{
    struct oracle oracle = {.cache = open_quiet(), .by_set = by_set};
    oracle.token = offloaded ? token_new() : NULL;
    pthread_t readers[3];
    for (int i = 0; i < 3; i++)
        readers[i] = thread_start(read_versions, &oracle);
    pthread_t writer = thread_start(write_versions, &oracle);
    thread_join(writer);
    for (int i = 0; i < 3; i++)
        thread_join(readers[i]);
    aside_cancel_unref(oracle.token);
    end_cache(oracle.cache);
}

TEST(nobody_sees_a_version_older_than_one_whose_invalidation_has_returned)
{
    check_versions(false, false);
    check_versions(false, true);
}

TEST(nobody_sees_a_version_older_than_one_that_was_set)
{
    check_versions(true, false);
    check_versions(true, true);
}
