/*
 * removal.c -- options.on_remove: each entry that was in the cache and has left is told once, with its
 * key, its value and the cause, outside every lock, and what is never stored is never told; and
 * aside_value_set_cost(): what a cache counts for a value in the place of its size.
 */
#include "helpers.h"

#include <inttypes.h>

/* ---- what was told ------------------------------------------------------------------------------- */

/* A cache whose listener writes down what it is told, one "key=value cause; " after the other. */
struct scene {
    struct fake_clock clock;
    struct ledger ledger;
    aside_options options;
    aside_cache *cache; /* NULL: the listener has given the last reference back */
    pthread_mutex_t lock;
    char told[1000];                   /* what fits */
    int count;                         /* of what was told since the beginning */
    _Atomic int returned;              /* of the listener's calls */
    void (*also)(struct scene *scene); /* what else the listener does; NULL: nothing */
    bool closes;                       /* it closes the cache: a verb may say so */
    const struct way *way;
    struct gate gate;
    struct source source;
    struct tally tally;
};

static void hear(void *ctx, const void *key, size_t key_len, aside_value *value, aside_cause cause)
{
    struct scene *scene = (struct scene *)ctx;
    const char *name = (const char *)key, *bytes = (const char *)aside_value_data(value);
    pthread_mutex_lock(&scene->lock);
    size_t used = strlen(scene->told), size = aside_value_size(value);
    if (used + key_len + size + 20 < sizeof scene->told)
        snprintf(scene->told + used, sizeof scene->told - used, "%.*s=%.*s %s; ", (int)key_len,
                 name, (int)size, bytes, aside_cause_name(cause));
    scene->count++;
    pthread_mutex_unlock(&scene->lock);
    if (scene->also != NULL)
        scene->also(scene);
    atomic_fetch_add(&scene->returned, 1);
}

/* What was told since the last look is this. */
static void check_told(const char *file, int line, struct scene *scene, const char *expected)
{
    char why[2100];
    pthread_mutex_lock(&scene->lock);
    snprintf(why, sizeof why, "told \"%s\", not \"%s\"", scene->told, expected);
    if (strcmp(scene->told, expected) != 0)
        test_fail(file, line, "what the listener was told", why);
    scene->told[0] = '\0';
    pthread_mutex_unlock(&scene->lock);
}
#define CHECK_TOLD(scene, expected) check_told(__FILE__, __LINE__, (scene), (expected))

static int told_so_far(struct scene *scene)
{
    pthread_mutex_lock(&scene->lock);
    int count = scene->count;
    pthread_mutex_unlock(&scene->lock);
    return count;
}

/* Without a reaper and without bounds; the options may be changed before it is opened. */
static void scene_init(struct scene *scene)
{
    memset((void *)scene, 0, sizeof *scene);
    scene->options = quiet_options();
    scene->options.max_bytes = 0;
    scene->options.clock = fake_clock_init(&scene->clock);
    scene->options.alloc = ledger_init(&scene->ledger);
    scene->options.on_remove.fn = hear;
    scene->options.on_remove.ctx = scene;
    pthread_mutex_init(&scene->lock, NULL);
    gate_init(&scene->gate);
    source_init(&scene->source, "fetched", false);
}

static void scene_open(struct scene *scene)
{
    scene->cache = open_cache(&scene->options);
}

/* What is there still leaves with the cache; nothing of it stays. */
static void scene_end(struct scene *scene)
{
    if (scene->cache != NULL)
        end_cache(scene->cache);
    CHECK_INT(scene->ledger.live_blocks, 0);
    CHECK_INT(scene->tally.freed, scene->tally.made);
    gate_fini(&scene->gate);
    pthread_mutex_destroy(&scene->lock);
}

static void pass(struct scene *scene, int64_t ms)
{
    fake_clock_advance_ms(&scene->clock, ms, scene->cache);
}

/* A value of a text, which the caller owns. */
static aside_value *text_value(const char *text)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy(text, strlen(text), &value), ASIDE_OK);
    return value;
}

static aside_status store_text(aside_cache *cache, const char *key, const char *text,
                               int64_t ttl_ms)
{
    aside_value *value = text_value(text);
    aside_status status = aside_set_value(cache, key, strlen(key), value, ttl_ms);
    aside_value_unref(value);
    return status;
}

/* ---- the ways to leave --------------------------------------------------------------------------- */

/* In each of them "k" leaves, in a cache with room for one entry, where it has 10 ms to live. The verb
 * comes last: the cache may be gone after it. */

static void allow(const struct scene *scene, aside_status status, aside_status expected)
{
    if (!(scene->closes && status == ASIDE_E_CLOSED))
        CHECK_STATUS(status, expected);
}

static void leave_by_delete(struct scene *scene)
{
    allow(scene, aside_delete(scene->cache, ASIDE_STR("k")), ASIDE_OK);
}

static void leave_by_delete_when_over(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, aside_delete(scene->cache, ASIDE_STR("k")), ASIDE_MISS);
}

static void leave_by_set_with_ttl_0(struct scene *scene)
{
    allow(scene, aside_set(scene->cache, ASIDE_STR("k"), ASIDE_STR("w"), 0), ASIDE_OK);
}

static void leave_by_set_value_with_ttl_0(struct scene *scene)
{
    allow(scene, store_text(scene->cache, "k", "w", 0), ASIDE_OK);
}

static void leave_by_touch_with_ttl_0(struct scene *scene)
{
    allow(scene, aside_touch(scene->cache, ASIDE_STR("k"), 0), ASIDE_OK);
}

static void leave_by_touch_with_ttl_0_when_over(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, aside_touch(scene->cache, ASIDE_STR("k"), 0), ASIDE_MISS);
}

static void leave_by_set(struct scene *scene)
{
    allow(scene, aside_set(scene->cache, ASIDE_STR("k"), ASIDE_STR("w"), 10), ASIDE_OK);
}

static void leave_by_set_when_over(struct scene *scene)
{
    pass(scene, 10);
    leave_by_set(scene);
}

static void leave_by_set_value(struct scene *scene)
{
    allow(scene, store_text(scene->cache, "k", "w", 10), ASIDE_OK);
}

static void leave_by_set_value_when_over(struct scene *scene)
{
    pass(scene, 10);
    leave_by_set_value(scene);
}

static void leave_by_add_when_over(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, aside_add(scene->cache, ASIDE_STR("k"), ASIDE_STR("w"), 10), ASIDE_OK);
}

static void leave_by_a_fetch_when_over(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, ask(scene->cache, "k", &scene->source), ASIDE_OK);
}

static void leave_by_a_fetch_when_expired(struct scene *scene)
{
    CHECK_STATUS(aside_expire(scene->cache, ASIDE_STR("k")), ASIDE_OK);
    allow(scene, ask(scene->cache, "k", &scene->source), ASIDE_OK);
}

static void leave_for_another(struct scene *scene)
{
    allow(scene, aside_set(scene->cache, ASIDE_STR("other"), ASIDE_STR("w"), 10), ASIDE_OK);
}

static void leave_for_what_is_added(struct scene *scene)
{
    allow(scene, aside_add(scene->cache, ASIDE_STR("other"), ASIDE_STR("w"), 10), ASIDE_OK);
}

static void leave_for_what_is_fetched(struct scene *scene)
{
    allow(scene, ask(scene->cache, "other", &scene->source), ASIDE_OK);
}

static void leave_by_a_get(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, look(scene->cache, "k"), ASIDE_MISS);
}

static void leave_by_a_copy(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, aside_copy(scene->cache, ASIDE_STR("k"), NULL, 0, NULL), ASIDE_MISS);
}

static void see_nothing(const void *data, size_t size, void *ctx)
{
    (void)data;
    (void)size;
    (void)ctx;
    CHECK(!"there is something");
}

static void leave_by_a_visit(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, aside_visit(scene->cache, ASIDE_STR("k"), see_nothing, NULL), ASIDE_MISS);
}

static void leave_by_a_reap(struct scene *scene)
{
    pass(scene, 10);
    allow(scene, aside_reap(scene->cache, 0, NULL), ASIDE_OK);
}

static void leave_by_a_reap_when_expired(struct scene *scene)
{
    CHECK_STATUS(aside_expire(scene->cache, ASIDE_STR("k")), ASIDE_OK);
    allow(scene, aside_reap(scene->cache, 0, NULL), ASIDE_OK);
}

static void leave_by_a_clear(struct scene *scene)
{
    allow(scene, aside_clear(scene->cache), ASIDE_OK);
}

static void leave_by_a_close(struct scene *scene)
{
    CHECK_STATUS(aside_close(scene->cache), ASIDE_OK);
}

static void leave_with_the_last_reference(struct scene *scene)
{
    aside_cache *cache = scene->cache;
    scene->cache = NULL;
    aside_unref(cache);
}

static const struct way {
    void (*leave)(struct scene *scene);
    const char *told, *left; /* and what leaves when the cache is closed after that */
} ways[] = {{leave_by_delete, "k=v deleted; ", ""},
            {leave_by_delete_when_over, "k=v expired; ", ""},
            {leave_by_set_with_ttl_0, "k=v deleted; ", ""},
            {leave_by_set_value_with_ttl_0, "k=v deleted; ", ""},
            {leave_by_touch_with_ttl_0, "k=v deleted; ", ""},
            {leave_by_touch_with_ttl_0_when_over, "k=v expired; ", ""},
            {leave_by_set, "k=v replaced; ", "k=w closed; "},
            {leave_by_set_when_over, "k=v expired; ", "k=w closed; "},
            {leave_by_set_value, "k=v replaced; ", "k=w closed; "},
            {leave_by_set_value_when_over, "k=v expired; ", "k=w closed; "},
            {leave_by_add_when_over, "k=v expired; ", "k=w closed; "},
            {leave_by_a_fetch_when_over, "k=v expired; ", "k=fetched closed; "},
            {leave_by_a_fetch_when_expired, "k=v expired; ", "k=fetched closed; "},
            {leave_for_another, "k=v evicted; ", "other=w closed; "},
            {leave_for_what_is_added, "k=v evicted; ", "other=w closed; "},
            {leave_for_what_is_fetched, "k=v evicted; ", "other=fetched closed; "},
            {leave_by_a_get, "k=v expired; ", ""},
            {leave_by_a_copy, "k=v expired; ", ""},
            {leave_by_a_visit, "k=v expired; ", ""},
            {leave_by_a_reap, "k=v expired; ", ""},
            {leave_by_a_reap_when_expired, "k=v expired; ", ""},
            {leave_by_a_clear, "k=v cleared; ", ""},
            {leave_by_a_close, "k=v closed; ", ""},
            {leave_with_the_last_reference, "k=v closed; ", ""}};

/* "k" is there, in a cache with room for one. */
static void way_begin(struct scene *scene, void (*also)(struct scene *scene))
{
    scene_init(scene);
    scene->options.max_entries = 1;
    scene->options.max_bytes = 65536; /* few enough that what waits to be freed is bounded */
    scene->also = also;
    scene_open(scene);
    put(scene->cache, "k", "v", 10);
}

TEST(each_way_to_leave_is_told_once_with_its_cause_before_the_call_returns)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        way_begin(&scene, NULL);
        CHECK_TOLD(&scene, "");
        ways[i].leave(&scene);
        CHECK_TOLD(&scene, ways[i].told);
        if (scene.cache != NULL)
            CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
        CHECK_TOLD(&scene, ways[i].left);
        scene_end(&scene);
        CHECK_INT(scene.told[0], '\0'); /* nor with the last reference */
    }
}

TEST(without_a_listener_every_way_to_leave_works_the_same)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        scene_init(&scene);
        scene.options.max_entries = 1;
        scene.options.on_remove.fn = NULL; /* the context alone is nobody */
        scene_open(&scene);
        put(scene.cache, "k", "v", 10);
        ways[i].leave(&scene);
        scene_end(&scene);
        CHECK_INT(scene.count, 0);
    }
}

TEST(the_reaper_tells_what_is_over)
{
    static struct scene scene;
    scene_init(&scene);
    scene.options.reaper_interval_ms = 100;
    scene_open(&scene);
    put(scene.cache, "k", "v", 50);
    put(scene.cache, "stays", "there", ASIDE_FOREVER);
    while (told_so_far(&scene) == 0) { /* whenever the reaper began to wait */
        pass(&scene, 100);
        test_yield();
    }
    CHECK_TOLD(&scene, "k=v expired; ");
    CHECK(holds(scene.cache, "stays", "there"));
    scene_end(&scene);
}

static void check_cleared(int64_t reaper_interval_ms)
{
    static struct scene scene;
    char text[32];
    scene_init(&scene);
    scene.options.reaper_interval_ms = reaper_interval_ms;
    scene_open(&scene);
    for (int i = 0; i < 10; i++) {
        snprintf(text, sizeof text, "%d", i);
        put(scene.cache, text, "v", ASIDE_FOREVER);
    }
    CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
    WAIT_UNTIL(reaper_interval_ms == 0 || told_so_far(&scene) == 10);
    CHECK_INT(told_so_far(&scene), 10);
    for (int i = 0; i < 10; i++) {
        snprintf(text, sizeof text, "%d=v cleared; ", i);
        CHECK(strstr(scene.told, text) != NULL);
    }
    scene.told[0] = '\0';
    put(scene.cache, "last", "one", ASIDE_FOREVER);
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "last=one closed; ");
    scene_end(&scene);
}

TEST(what_is_cleared_or_closed_is_told_entry_by_entry)
{
    check_cleared(0);
    check_cleared(100); /* by the reaper, soon */
}

/* ---- many ---------------------------------------------------------------------------------------- */

#define CAUSES 7 /* 0 is none */

/* A listener that counts. */
struct sums {
    _Atomic int of[CAUSES];
};

static void count_cause(void *ctx, const void *key, size_t key_len, aside_value *value,
                        aside_cause cause)
{
    struct sums *sums = (struct sums *)ctx;
    (void)key;
    CHECK_INT(key_len, sizeof(int));
    CHECK_INT(aside_value_size(value), 100);
    CHECK(cause > 0 && cause < CAUSES);
    atomic_fetch_add(&sums->of[cause], 1);
}

static aside_cache *open_counted(struct sums *sums, size_t max_bytes, size_t max_entries,
                                 struct fake_clock *clock)
{
    aside_options options = quiet_options();
    memset((void *)sums, 0, sizeof *sums);
    options.max_bytes = max_bytes;
    options.max_entries = max_entries;
    options.clock = fake_clock_init(clock);
    options.on_remove.fn = count_cause;
    options.on_remove.ctx = sums;
    return open_cache(&options);
}

static void put_many(aside_cache *cache, int count)
{
    static const char bytes[100] = "";
    for (int i = 0; i < count; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, bytes, sizeof bytes, 10), ASIDE_OK);
}

/* More than a slice of what is done under one lock. */
TEST(many_that_leave_at_once_are_told_each)
{
    enum { MANY = 1000 };
    struct fake_clock clock;
    struct sums sums;
    aside_cache *cache = open_counted(&sums, 0, 0, &clock);
    put_many(cache, MANY);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(sums.of[ASIDE_CAUSE_CLEARED], MANY);
    put_many(cache, MANY);
    put_many(cache, MANY);
    CHECK_INT(sums.of[ASIDE_CAUSE_REPLACED], MANY);
    fake_clock_advance_ms(&clock, 10, cache);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(sums.of[ASIDE_CAUSE_EXPIRED], MANY);
    put_many(cache, MANY);
    end_cache(cache);
    CHECK_INT(sums.of[ASIDE_CAUSE_CLOSED], MANY);
    CHECK_INT(sums.of[ASIDE_CAUSE_EVICTED] + sums.of[ASIDE_CAUSE_DELETED] + sums.of[0], 0);
}

TEST(a_reap_with_a_budget_tells_as_many_as_it_removed)
{
    struct fake_clock clock;
    struct sums sums;
    aside_cache *cache = open_counted(&sums, 0, 0, &clock);
    put_many(cache, 300);
    fake_clock_advance_ms(&clock, 10, cache);
    for (int all = 0; all < 300;) {
        size_t reaped = 0;
        CHECK_STATUS(aside_reap(cache, 7, &reaped), ASIDE_OK);
        CHECK(reaped <= 7);
        all += (int)reaped;
        CHECK_INT(sums.of[ASIDE_CAUSE_EXPIRED], all);
    }
    end_cache(cache);
    CHECK_INT(sums.of[ASIDE_CAUSE_EXPIRED], 300);
    CHECK_INT(sums.of[ASIDE_CAUSE_CLOSED], 0);
}

/* By entries, and by bytes. */
TEST(what_is_evicted_is_told_as_often_as_it_is_counted)
{
    static const size_t bounds[][2] = {{0, 50}, {65536, 0}, {65536, 100}};
    for (size_t i = 0; i < COUNT_OF(bounds); i++) {
        struct fake_clock clock;
        struct sums sums;
        aside_cache *cache = open_counted(&sums, bounds[i][0], bounds[i][1], &clock);
        put_many(cache, 3000);
        CHECK(sums.of[ASIDE_CAUSE_EVICTED] > 1000);
        CHECK_INT(STAT(cache, evicted), sums.of[ASIDE_CAUSE_EVICTED]);
        CHECK_INT(aside_count(cache) + (size_t)sums.of[ASIDE_CAUSE_EVICTED], 3000);
        end_cache(cache);
        CHECK_INT(sums.of[ASIDE_CAUSE_EVICTED] + sums.of[ASIDE_CAUSE_CLOSED], 3000);
    }
}

/* ---- what is never told -------------------------------------------------------------------------- */

TEST(what_can_never_fit_is_not_told_nor_what_stays_for_it)
{
    static struct scene scene;
    static char large[100000];
    scene_init(&scene);
    scene.options.max_bytes = 65536;
    scene_open(&scene);
    put(scene.cache, "k", "v", ASIDE_FOREVER);
    CHECK_STATUS(aside_set(scene.cache, ASIDE_STR("k"), large, sizeof large, 10),
                 ASIDE_E_TOO_LARGE);
    CHECK_STATUS(aside_add(scene.cache, ASIDE_STR("new"), large, sizeof large, 10),
                 ASIDE_E_TOO_LARGE);
    CHECK_STATUS(tally_set(&scene.tally, scene.cache, "k", sizeof large, 10), ASIDE_E_TOO_LARGE);
    scene.source.answer = (const char *)memset(large, 'x', sizeof large - 1);
    CHECK_STATUS(ask(scene.cache, "new", &scene.source), ASIDE_OK);
    CHECK_INT(STAT(scene.cache, store_refused), 4);
    CHECK_TOLD(&scene, "");
    CHECK(holds(scene.cache, "k", "v"));
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "k=v closed; ");
    scene_end(&scene);
}

static void memory_fails(struct scene *scene, bool fails)
{
    atomic_store(&scene->ledger.fail_for_ever, fails ? 1 : 0);
    atomic_store(&scene->ledger.fail_at, fails ? 1 : 0);
}

TEST(what_there_is_no_memory_for_is_not_told_nor_what_stays_for_it)
{
    static struct scene scene;
    way_begin(&scene, NULL);
    memory_fails(&scene, true);
    CHECK_STATUS(aside_set(scene.cache, ASIDE_STR("k"), ASIDE_STR("w"), 10), ASIDE_E_NOMEM);
    CHECK_STATUS(aside_set(scene.cache, ASIDE_STR("other"), ASIDE_STR("w"), 10), ASIDE_E_NOMEM);
    CHECK_STATUS(aside_add(scene.cache, ASIDE_STR("other"), ASIDE_STR("w"), 10), ASIDE_E_NOMEM);
    CHECK_STATUS(tally_set(&scene.tally, scene.cache, "k", 10, 10), ASIDE_E_NOMEM);
    memory_fails(&scene, false);
    CHECK_TOLD(&scene, "");
    CHECK(holds(scene.cache, "k", "v"));
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "k=v closed; ");
    scene_end(&scene);
}

/* The ways that store nothing need none. */
TEST(where_memory_is_short_what_leaves_is_told)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        if (ways[i].left[0] != '\0')
            continue;
        way_begin(&scene, NULL);
        memory_fails(&scene, true);
        ways[i].leave(&scene);
        memory_fails(&scene, false);
        CHECK_TOLD(&scene, ways[i].told);
        scene_end(&scene);
    }
}

TEST(what_is_there_already_or_is_only_handed_over_is_not_told)
{
    static struct scene scene;
    struct caller caller;
    scene_init(&scene);
    scene_open(&scene);
    put(scene.cache, "k", "v", 10);
    CHECK_STATUS(aside_add(scene.cache, ASIDE_STR("k"), ASIDE_STR("w"), 10), ASIDE_EXISTS);
    CHECK_STATUS(aside_add(scene.cache, ASIDE_STR("k"), ASIDE_STR("w"), 0), ASIDE_EXISTS);
    put(scene.cache, "new", "w", 0);
    CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("new")), ASIDE_MISS);
    CHECK_STATUS(aside_touch(scene.cache, ASIDE_STR("k"), 20), ASIDE_OK);
    caller_ask(&caller, scene.cache, "new", &scene.source, NULL);
    caller.call.ttl_ms = ASIDE_NO_STORE;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    scene.source.answer = NULL;
    scene.source.status = ASIDE_NOT_FOUND;
    CHECK_STATUS(ask(scene.cache, "new", &scene.source), ASIDE_NOT_FOUND);
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "k=v closed; ");
    scene_end(&scene);
}

static aside_status answer_overtaken(aside_fetch *fetch, void *arg)
{
    struct scene *scene = (struct scene *)arg;
    put(scene->cache, "k", "newer", 10);
    return aside_fetch_copy(fetch, "older", 5);
}

TEST(what_a_write_has_overtaken_is_not_told)
{
    static struct scene scene;
    struct caller caller;
    scene_init(&scene);
    scene_open(&scene);
    caller_init(&caller, scene.cache, "k", answer_overtaken, &scene);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.fenced, 1);
    caller_drop(&caller);
    CHECK(holds(scene.cache, "k", "newer"));
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "k=newer closed; ");
    scene_end(&scene);
}

TEST(a_disabled_cache_has_nothing_to_tell)
{
    static const int disabled[] = {ASIDE_DISABLE_STORE, ASIDE_DISABLE_ALL};
    for (size_t i = 0; i < COUNT_OF(disabled); i++) {
        static struct scene scene;
        scene_init(&scene);
        scene.options.disabled = disabled[i];
        scene_open(&scene);
        put(scene.cache, "k", "v", 10);
        CHECK_STATUS(store_text(scene.cache, "k", "w", 10), ASIDE_OK);
        CHECK_STATUS(aside_add(scene.cache, ASIDE_STR("k"), ASIDE_STR("w"), 10), ASIDE_OK);
        CHECK_STATUS(ask(scene.cache, "k", &scene.source), ASIDE_OK);
        CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
        CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
        CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
        scene_end(&scene);
        CHECK_INT(scene.count, 0);
    }
}

/* ---- the value that is told ---------------------------------------------------------------------- */

/* Keeps every value it is told. */
struct keeper {
    aside_value *kept[64];
    int count;
    struct tally *tally; /* of wrapped values; NULL: texts */
};

static void keep(void *ctx, const void *key, size_t key_len, aside_value *value, aside_cause cause)
{
    struct keeper *keeper = (struct keeper *)ctx;
    (void)key;
    (void)key_len;
    (void)cause;
    CHECK(keeper->count < (int)COUNT_OF(keeper->kept));
    if (keeper->tally != NULL) {
        const _Atomic int *slot = (const _Atomic int *)aside_value_data(value);
        CHECK(slot == &keeper->tally->slot[keeper->count]);
        CHECK_INT(atomic_load(slot), 0); /* its destructor runs later */
        CHECK_INT(aside_value_size(value), 10);
    }
    keeper->kept[keeper->count++] = aside_value_ref(value);
}

static aside_cache *open_keeper(struct keeper *keeper, struct ledger *ledger, struct tally *tally)
{
    aside_options options = quiet_options();
    memset((void *)keeper, 0, sizeof *keeper);
    keeper->tally = tally;
    options.alloc = ledger_init(ledger);
    options.on_remove.fn = keep;
    options.on_remove.ctx = keeper;
    return open_cache(&options);
}

TEST(a_value_that_the_listener_keeps_outlives_the_cache)
{
    struct keeper keeper;
    struct ledger ledger;
    aside_cache *cache = open_keeper(&keeper, &ledger, NULL);
    put(cache, "k", "first", ASIDE_FOREVER);
    put(cache, "k", "second", ASIDE_FOREVER);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    put(cache, "k", "third", ASIDE_FOREVER);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    put(cache, "k", "fourth", ASIDE_FOREVER);
    end_cache(cache);
    CHECK_INT(keeper.count, 4);
    CHECK(value_is(keeper.kept[0], "first"));
    CHECK(value_is(keeper.kept[1], "second"));
    CHECK(value_is(keeper.kept[2], "third"));
    CHECK(value_is(keeper.kept[3], "fourth"));
    for (int i = 0; i < 4; i++) {
        CHECK(ledger.live_blocks > 0);
        aside_value_unref(keeper.kept[i]);
    }
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_wrapped_value_is_told_itself_before_its_destructor_runs)
{
    static struct tally tally;
    struct keeper keeper;
    struct ledger ledger;
    aside_cache *cache = open_keeper(&keeper, &ledger, &tally);
    CHECK_STATUS(tally_set(&tally, cache, "k", 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(tally_set(&tally, cache, "k", 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(tally_set(&tally, cache, "k", 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(tally_set(&tally, cache, "k", 10, ASIDE_FOREVER), ASIDE_OK);
    end_cache(cache);
    CHECK_INT(keeper.count, 4);
    CHECK_INT(tally.freed, 0);
    for (int i = 0; i < 4; i++) {
        aside_value_unref(keeper.kept[i]);
        CHECK_INT(tally.freed, i + 1);
        CHECK_INT(tally.slot[i], 1);
    }
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_value_that_the_listener_keeps_is_counted_as_what_a_handle_keeps)
{
    static const char bytes[10000] = "";
    struct keeper keeper;
    struct ledger ledger;
    aside_cache *cache = open_keeper(&keeper, &ledger, NULL);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), bytes, sizeof bytes, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK(STAT(cache, pinned_bytes) >= sizeof bytes);
    CHECK(STAT(cache, pinned_bytes) < sizeof bytes + 500);
    CHECK(STAT(cache, bytes) < sizeof bytes);
    CHECK_STATUS(aside_value_set_cost(keeper.kept[0], 1), ASIDE_E_INVALID);
    aside_value_unref(keeper.kept[0]);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, pinned_bytes), 0);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

/* It is the cache's, and counted yet. */
static void set_a_cost(void *ctx, const void *key, size_t key_len, aside_value *value,
                       aside_cause cause)
{
    int *told = (int *)ctx;
    (void)key;
    (void)key_len;
    (void)cause;
    CHECK_STATUS(aside_value_set_cost(value, 1000000), ASIDE_E_INVALID);
    ++*told;
}

TEST(the_cost_of_a_value_that_is_told_cannot_be_set)
{
    static struct tally tally;
    int told = 0;
    aside_options options = quiet_options();
    options.on_remove.fn = set_a_cost;
    options.on_remove.ctx = &told;
    aside_cache *cache = open_cache(&options);
    put(cache, "k", "copied", ASIDE_FOREVER);
    CHECK_STATUS(tally_set(&tally, cache, "k", 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(told, 2);
    CHECK_INT(STAT(cache, pinned_bytes), 0);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    end_cache(cache);
    CHECK_INT(tally.freed, 1);
}

/* The same value under two keys and in two caches leaves four times. */
TEST(a_value_is_told_by_every_entry_that_had_it)
{
    static struct scene one, other;
    struct scene *scenes[2] = {&one, &other};
    aside_value *value = text_value("v");
    for (int i = 0; i < 2; i++) {
        scene_init(scenes[i]);
        scene_open(scenes[i]);
        CHECK_STATUS(aside_set_value(scenes[i]->cache, ASIDE_STR("a"), value, 10), ASIDE_OK);
        CHECK_STATUS(aside_set_value(scenes[i]->cache, ASIDE_STR("b"), value, 10), ASIDE_OK);
    }
    CHECK_STATUS(aside_set_value(one.cache, ASIDE_STR("a"), value, 10), ASIDE_OK); /* by itself */
    CHECK_TOLD(&one, "a=v replaced; ");
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(aside_delete(scenes[i]->cache, ASIDE_STR("b")), ASIDE_OK);
        CHECK_STATUS(aside_delete(scenes[i]->cache, ASIDE_STR("a")), ASIDE_OK);
        CHECK_TOLD(scenes[i], "b=v deleted; a=v deleted; ");
    }
    aside_value_unref(value);
    scene_end(&one);
    scene_end(&other);
}

/* Who looks at it does not keep it in the cache. */
TEST(what_a_handle_keeps_is_told_when_it_leaves_and_not_again)
{
    static struct scene scene;
    aside_value *value = NULL;
    scene_init(&scene);
    scene_open(&scene);
    put(scene.cache, "k", "v", ASIDE_FOREVER);
    CHECK_STATUS(aside_get(scene.cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_TOLD(&scene, "k=v deleted; ");
    aside_value_unref(value);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    put(scene.cache, "k", "w", ASIDE_FOREVER);
    CHECK_STATUS(aside_get(scene.cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "k=w cleared; ");
    put(scene.cache, "empty", "", ASIDE_FOREVER);
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "empty= closed; ");
    aside_unref(scene.cache);
    scene.cache = NULL;
    CHECK(value_is(value, "w"));
    aside_value_unref(value);
    CHECK_TOLD(&scene, "");
    scene_end(&scene);
}

/* ---- a reader that looks at it meanwhile --------------------------------------------------------- */

static void leave_meanwhile(const void *data, size_t size, void *ctx)
{
    struct scene *scene = (struct scene *)ctx;
    CHECK_INT(size, 1);
    scene->way->leave(scene);
    CHECK(*(const char *)data == 'v');
}

/* Of a clear and of a close perhaps later; of the rest at once. */
TEST(what_a_visit_looks_at_is_told_once)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        way_begin(&scene, NULL);
        aside_cache *cache = scene.cache;
        scene.way = &ways[i];
        CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), leave_meanwhile, &scene), ASIDE_OK);
        if (scene.cache != NULL)
            aside_unref(scene.cache); /* which closes it */
        scene.cache = NULL;
        char expected[100];
        snprintf(expected, sizeof expected, "%s%s", ways[i].told, ways[i].left);
        CHECK_TOLD(&scene, expected);
        scene_end(&scene);
    }
}

static void see_v(const void *data, size_t size, void *ctx)
{
    struct scene *scene = (struct scene *)ctx;
    gate_pass(&scene->gate);
    CHECK_INT(size, 1);
    CHECK(*(const char *)data == 'v');
}

static void *visit_k(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    CHECK_STATUS(aside_visit(scene->cache, ASIDE_STR("k"), see_v, scene), ASIDE_OK);
    return NULL;
}

/* Of the two with the last reference at the latest. */
TEST(what_another_thread_looks_at_is_told_once)
{
    for (int close = 0; close <= 1; close++) {
        static struct scene scene;
        way_begin(&scene, NULL);
        pthread_t visitor = thread_start(visit_k, &scene);
        gate_wait_arrived(&scene.gate, 1);
        CHECK_STATUS(close ? aside_close(scene.cache) : aside_clear(scene.cache), ASIDE_OK);
        CHECK(told_so_far(&scene) <= 1);
        gate_open(&scene.gate);
        thread_join(visitor);
        aside_unref(scene.cache);
        scene.cache = NULL;
        CHECK_TOLD(&scene, close ? "k=v closed; " : "k=v cleared; ");
        scene_end(&scene);
    }
}

/* ---- what the listener may do -------------------------------------------------------------------- */

static aside_status see_told(struct scene *scene, const char *key)
{
    return aside_visit(scene->cache, key, strlen(key), see_nothing, NULL);
}

/* The key that has left is not there, nor is one that never was. */
static void call_every_verb(struct scene *scene)
{
    aside_cache *cache = scene->cache;
    scene->also = NULL; /* what leaves by that is only written down */
    CHECK_STATUS(look(cache, "no"), ASIDE_MISS);
    CHECK_STATUS(see_told(scene, "no"), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("no"), NULL, 0, NULL), ASIDE_MISS);
    put(cache, "a", "1", 10);
    CHECK(holds(cache, "a", "1"));
    put(cache, "a", "2", 10);
    CHECK_STATUS(store_text(cache, "a", "3", 10), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("a"), ASIDE_STR("4"), 10), ASIDE_EXISTS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("a"), 20), ASIDE_OK);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("a")), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("a"), ASIDE_STR("4"), 10), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("a")), ASIDE_OK);
    CHECK_STATUS(ask(cache, "b", &scene->source), ASIDE_OK);
    CHECK_STATUS(ask_worker(cache, "b", &scene->source), ASIDE_OK); /* a hit */
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_clock_changed(cache), ASIDE_OK);
    CHECK_STATUS(aside_health(cache), ASIDE_OK);
    CHECK_INT(aside_count(cache), STAT(cache, entries));
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    put(cache, "c", "5", 10);
    CHECK_INT(scene->count, 1); /* nothing was told meanwhile */
}

static void check_every_verb(const struct way *way)
{
    static struct scene scene;
    char expected[300];
    scene_init(&scene);
    scene_open(&scene);
    put(scene.cache, "k", "v", 10);
    scene.also = call_every_verb;
    way->leave(&scene);
    snprintf(expected, sizeof expected, "%sa=1 replaced; a=2 replaced; a=3 expired; a=4 deleted; ",
             way->told);
    CHECK(strncmp(scene.told, expected, strlen(expected)) == 0);
    CHECK(strstr(scene.told, "b=fetched cleared; ") != NULL);
    scene.told[0] = '\0';
    CHECK(holds(scene.cache, "c", "5") || way->leave == leave_by_a_clear);
    scene_end(&scene);
}

/* In a cache that is open, and that has room for all. */
TEST(the_listener_may_call_every_verb_and_is_told_of_them_after_it_has_returned)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        if (strstr(ways[i].told, "evicted") == NULL && strstr(ways[i].told, "closed") == NULL)
            check_every_verb(&ways[i]);
}

/* ---- depth --------------------------------------------------------------------------------------- */

static __thread int depth; /* of listeners on this thread */

#define NESTED 1000

/* One of two caches with room for one entry, whose listeners write to each other or to themselves. */
struct echo {
    aside_cache *cache, *other;
    int step; /* 0: what is written replaces, else it evicts */
    bool inside;
    int told, deepest;
};

static void put_number(aside_cache *cache, int number)
{
    CHECK_STATUS(aside_set(cache, &number, sizeof number, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
}

static void write_on(void *ctx, const void *key, size_t key_len, aside_value *value,
                     aside_cause cause)
{
    struct echo *echo = (struct echo *)ctx;
    int number = 0;
    CHECK(!echo->inside); /* for one cache never twice on a thread */
    CHECK_INT(key_len, sizeof number);
    CHECK_INT(aside_value_size(value), 0);
    memcpy(&number, key, sizeof number);
    echo->inside = true;
    depth++;
    echo->deepest = depth > echo->deepest ? depth : echo->deepest;
    if (cause != ASIDE_CAUSE_CLOSED && echo->told < NESTED)
        put_number(echo->other, number + 2 * echo->step);
    echo->told++;
    depth--;
    echo->inside = false;
}

static void echo_open(struct echo *echo, int step)
{
    aside_options options = quiet_options();
    memset(echo, 0, sizeof *echo);
    options.max_entries = 1;
    options.on_remove.fn = write_on;
    options.on_remove.ctx = echo;
    echo->cache = open_cache(&options);
    echo->other = echo->cache;
    echo->step = step;
    put_number(echo->cache, 0);
}

TEST(a_listener_that_writes_to_its_own_full_cache_is_not_called_inside_itself)
{
    for (int step = 0; step <= 1; step++) {
        struct echo echo;
        echo_open(&echo, step);
        put_number(echo.cache, step);
        CHECK_INT(echo.told, NESTED + 1); /* before the call returned */
        CHECK_INT(echo.deepest, 1);
        CHECK_INT(STAT(echo.cache, sets), NESTED + 2);
        CHECK_INT(STAT(echo.cache, evicted), step ? NESTED + 1 : 0);
        CHECK_INT(aside_count(echo.cache), 1);
        end_cache(echo.cache);
        CHECK_INT(echo.told, NESTED + 2);
    }
}

TEST(listeners_of_two_full_caches_that_write_to_each_other_nest_two_deep_at_most)
{
    for (int step = 0; step <= 1; step++) {
        struct echo one, other;
        echo_open(&one, step);
        echo_open(&other, step);
        one.other = other.cache;
        other.other = one.cache;
        put_number(one.cache, step);
        CHECK(one.told + other.told > NESTED);
        CHECK_INT(STAT(one.cache, sets), one.told + 1);
        CHECK_INT(STAT(other.cache, sets), other.told + 1);
        CHECK(one.deepest <= 2);
        CHECK(other.deepest <= 2);
        end_cache(one.cache);
        end_cache(other.cache);
    }
}

/* ---- closing from inside ------------------------------------------------------------------------- */

static void close_inside(struct scene *scene)
{
    CHECK_STATUS(aside_close(scene->cache), ASIDE_OK);
    CHECK_STATUS(look(scene->cache, "k"), ASIDE_E_CLOSED);
    CHECK_STATUS(aside_set(scene->cache, ASIDE_STR("k"), NULL, 0, 10), ASIDE_E_CLOSED);
}

static void unref_inside(struct scene *scene)
{
    aside_cache *cache = scene->cache;
    scene->cache = NULL; /* what leaves by that is told too */
    aside_unref(cache);
}

/* What is told is what would be told without that. */
static void check_inside(const struct way *way, void (*also)(struct scene *))
{
    static struct scene scene;
    char expected[100];
    snprintf(expected, sizeof expected, "%s%s", way->told, way->left);
    way_begin(&scene, also);
    scene.closes = true;
    way->leave(&scene);
    if (scene.cache != NULL)
        CHECK_STATUS(aside_health(scene.cache), ASIDE_E_CLOSED);
    if (scene.cache != NULL)
        aside_unref(scene.cache);
    scene.cache = NULL;
    CHECK(strncmp(scene.told, way->told, strlen(way->told)) == 0);
    if (strcmp(scene.told, way->told) != 0) /* a store may have come too late */
        CHECK_TOLD(&scene, expected);
    scene.told[0] = '\0';
    scene_end(&scene);
}

TEST_LIMIT(the_listener_may_close_the_cache_and_waits_not_for_itself, 20)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        if (ways[i].leave != leave_with_the_last_reference)
            check_inside(&ways[i], close_inside);
}

TEST_LIMIT(the_listener_may_give_the_last_reference_back, 20)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        if (ways[i].leave != leave_with_the_last_reference)
            check_inside(&ways[i], unref_inside);
}

static void end_on_the_reaper(struct scene *scene, void (*also)(struct scene *))
{
    scene_init(scene);
    scene->options.reaper_interval_ms = 100;
    scene->also = also;
    scene_open(scene);
    aside_cache *mine = aside_ref(scene->cache);
    put(mine, "k", "v", 50);
    while (atomic_load(&scene->returned) == 0) {
        fake_clock_advance_ms(&scene->clock, 100, mine);
        test_yield();
    }
    CHECK_STATUS(aside_health(mine), also == unref_inside ? ASIDE_OK : ASIDE_E_CLOSED);
    CHECK_STATUS(aside_close(mine), ASIDE_OK);
    aside_unref(mine);
    aside_unref(scene->cache);
    scene->cache = NULL;
    wait_for_no_threads();
    CHECK_TOLD(scene, "k=v expired; ");
    WAIT_UNTIL(scene->ledger.live_blocks == 0);
    scene_end(scene);
}

/* The reaper does not wait for itself either. */
TEST_LIMIT(the_listener_may_end_the_cache_on_the_reaper, 20)
{
    static struct scene closed,
        given_back; /* one each: nobody joins a reaper that ends its cache */
    end_on_the_reaper(&closed, close_inside);
    end_on_the_reaper(&given_back, unref_inside);
}

/* ---- fetches from inside ------------------------------------------------------------------------- */

static void fetch_inside(struct scene *scene)
{
    scene->also = NULL;
    CHECK_STATUS(ask(scene->cache, "inner", &scene->source), ASIDE_OK);
    CHECK(holds(scene->cache, "inner", "fetched"));
    CHECK_STATUS(ask_worker(scene->cache, "by a worker", &scene->source), ASIDE_OK);
}

TEST(the_listener_may_fetch)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        if (strstr(ways[i].told, "closed") != NULL)
            continue;
        way_begin(&scene, fetch_inside);
        ways[i].leave(&scene);
        CHECK(scene.source.fetches >= 2);
        CHECK(strncmp(scene.told, ways[i].told, strlen(ways[i].told)) == 0);
        scene_end(&scene);
    }
}

/* "k" makes room for what this thread has fetched, which is not stored before. */
static void ask_for_other(struct scene *scene)
{
    scene->also = NULL;
    CHECK_STATUS(look(scene->cache, "other"), ASIDE_MISS);
    CHECK_STATUS(ask(scene->cache, "other", &scene->source), ASIDE_E_DEADLOCK);
}

TEST_LIMIT(a_listener_inside_a_fetchs_store_that_asks_for_its_key_would_wait_for_itself, 20)
{
    static struct scene scene;
    way_begin(&scene, ask_for_other);
    leave_for_what_is_fetched(&scene);
    CHECK_INT(scene.source.fetches, 1);
    CHECK(holds(scene.cache, "other", "fetched"));
    CHECK_TOLD(&scene, "k=v evicted; ");
    scene_end(&scene);
}

/* What was over is told to who misses, before a fetch begins. */
static void ask_again(struct scene *scene)
{
    scene->also = NULL;
    CHECK_STATUS(ask(scene->cache, "k", &scene->source), ASIDE_OK);
}

TEST_LIMIT(a_listener_may_fetch_what_is_over_inside_the_call_that_met_it, 20)
{
    static struct scene scene;
    way_begin(&scene, ask_again);
    leave_by_a_fetch_when_over(&scene);
    CHECK(scene.source.fetches >= 1 && scene.source.fetches <= 2);
    CHECK(holds(scene.cache, "k", "fetched"));
    CHECK(strncmp(scene.told, "k=v expired; ", 13) == 0);
    scene_end(&scene);
}

/* The callback of "k" makes "gone" leave, whose listener asks for "k". */
static aside_status delete_gone(aside_fetch *fetch, void *arg)
{
    struct scene *scene = (struct scene *)arg;
    CHECK_STATUS(aside_delete(scene->cache, ASIDE_STR("gone")), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

static void ask_for_k(struct scene *scene)
{
    scene->also = NULL;
    CHECK_STATUS(ask(scene->cache, "k", &scene->source), ASIDE_E_DEADLOCK);
    CHECK_STATUS(ask_worker(scene->cache, "k", &scene->source), ASIDE_E_DEADLOCK);
}

TEST_LIMIT(a_listener_inside_a_fetch_that_asks_for_its_key_would_wait_for_itself, 20)
{
    static struct scene scene;
    struct caller caller;
    scene_init(&scene);
    scene_open(&scene);
    scene.also = ask_for_k;
    put(scene.cache, "gone", "x", 10);
    caller_init(&caller, scene.cache, "k", delete_gone, &scene);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK_TOLD(&scene, "gone=x deleted; ");
    CHECK_INT(scene.source.fetches, 0);
    CHECK(holds(scene.cache, "k", "v"));
    scene_end(&scene);
}

/* ---- no lock, no cancellation -------------------------------------------------------------------- */

/* The first call stands at the gate, the others pass. */
static void stand_at_gate(struct scene *scene)
{
    if (told_so_far(scene) == 1)
        gate_pass(&scene->gate);
}

static void *leave_as_told(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    scene->way->leave(scene);
    return NULL;
}

/* What would not be freed while a reader stands still would be refused soon. */
static void check_nothing_waits_to_be_freed(aside_cache *cache)
{
    static const char bytes[1000] = "";
    for (int i = 0; i < 1000; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, bytes, sizeof bytes, 10), ASIDE_OK);
}

static void check_every_lock_is_free(aside_cache *cache)
{
    aside_status status = aside_set(cache, ASIDE_STR("k"), ASIDE_STR("1"), 10);
    if (status == ASIDE_E_CLOSED)
        return;
    CHECK_STATUS(status, ASIDE_OK);
    CHECK(holds(cache, "k", "1"));
    put(cache, "beside", "2", 10); /* evicts, and what is evicted is told on this thread */
    CHECK(holds(cache, "beside", "2"));
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("beside"), 20), ASIDE_OK);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("beside")), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("beside")), ASIDE_MISS);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(STAT(cache, entries), 0);
    check_nothing_waits_to_be_freed(cache);
}

/* With room for one entry there is one shard. */
TEST_LIMIT(while_the_listener_stands_still_others_read_and_write, 20)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        way_begin(&scene, stand_at_gate);
        aside_cache *mine = aside_ref(scene.cache);
        if (ways[i].leave == leave_with_the_last_reference)
            aside_unref(mine); /* nobody may use it then */
        scene.way = &ways[i];
        pthread_t other = thread_start(leave_as_told, &scene);
        gate_wait_arrived(&scene.gate, 1);
        if (ways[i].leave != leave_with_the_last_reference)
            check_every_lock_is_free(mine);
        gate_open(&scene.gate);
        thread_join(other);
        if (ways[i].leave != leave_with_the_last_reference)
            aside_unref(mine);
        scene_end(&scene);
    }
}

static void see_cancellation(struct scene *scene)
{
    int before = -1;
    (void)scene;
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before), 0);
    CHECK_INT(before, PTHREAD_CANCEL_DISABLE);
    pthread_testcancel();
}

/* By a thread that is to end at the next chance. */
static void *leave_while_cancelled(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    int before = -1;
    CHECK_INT(pthread_cancel(pthread_self()), 0);
    scene->way->leave(scene);
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before), 0);
    CHECK_INT(before, PTHREAD_CANCEL_ENABLE); /* as it was */
    pthread_testcancel();
    CHECK(!"the thread has ended");
    return NULL;
}

TEST(a_listener_is_not_cancelled)
{
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        static struct scene scene;
        bool fetches = strstr(ways[i].left, "fetched") != NULL; /* which may be cancelled */
        way_begin(&scene, see_cancellation);
        scene.way = &ways[i];
        pthread_t other = thread_start(fetches ? leave_as_told : leave_while_cancelled, &scene);
        CHECK((thread_join(other) == PTHREAD_CANCELED) == !fetches);
        CHECK_TOLD(&scene, ways[i].told);
        CHECK_INT(scene.returned, 1);
        scene_end(&scene);
    }
}

/* ---- threads that end ---------------------------------------------------------------------------- */

static pthread_key_t early_key, late_key;

/* A destructor of a thread that ends, before the library's own and after it. */
static void delete_at_the_end(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    put(scene->cache, "last", "words", 10);
    CHECK_STATUS(aside_delete(scene->cache, ASIDE_STR("last")), ASIDE_OK);
    put(scene->cache, "last", "words", 0);
    int told = told_so_far(scene);
    if (told < 5) /* three rounds: the last one is the sanitizers' */
        CHECK_INT(pthread_setspecific(told % 2 ? early_key : late_key, scene), 0);
}

static void *end_with_destructors(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    CHECK_STATUS(look(scene->cache, "last"), ASIDE_MISS);
    CHECK_INT(pthread_setspecific(early_key, scene), 0);
    CHECK_INT(pthread_setspecific(late_key, scene), 0);
    return NULL;
}

TEST(what_a_threads_last_destructors_remove_is_told)
{
    static struct scene scene;
    CHECK_INT(pthread_key_create(&early_key, delete_at_the_end), 0);
    scene_init(&scene);
    scene_open(&scene);
    CHECK_INT(pthread_key_create(&late_key, delete_at_the_end), 0);
    thread_join(thread_start(end_with_destructors, &scene));
    CHECK(scene.count >= 4);
    CHECK_INT(STAT(scene.cache, deletes), scene.count);
    CHECK_INT(STAT(scene.cache, sets), scene.count);
    scene_end(&scene);
}

/* ---- everything at random ------------------------------------------------------------------------ */

#define MODEL_KEYS 24
#define MODEL_MOST 6000
#define MODEL_HANDLES 4

/* A value and what has become of it; its number is in its bytes, or it is wrapped. */
struct life {
    int key;
    int64_t until_ns;
    bool stored, told, destroyed;
};

enum verb { STORES, DROPS, CLEARS, READS, REAPS, CLOSES };

struct model {
    struct fake_clock clock;
    struct ledger ledger;
    aside_cache *cache;
    bool wrapped, bounded;
    enum verb verb; /* that is under way */
    int key;        /* of it */
    int made;
    aside_value *handles[MODEL_HANDLES];
    struct life lives[MODEL_MOST];
};

static int64_t model_now(struct model *model)
{
    return atomic_load(&model->clock.now_ns);
}

static struct life *life_of(struct model *model, const aside_value *value)
{
    int id = -1;
    if (model->wrapped) {
        const struct life *life = (const struct life *)aside_value_data(value);
        id = (int)(life - model->lives);
    } else {
        CHECK(aside_value_size(value) >= sizeof id);
        memcpy(&id, aside_value_data(value), sizeof id);
    }
    CHECK(id >= 0 && id < model->made);
    return &model->lives[id];
}

static void model_told(void *ctx, const void *key, size_t key_len, aside_value *value,
                       aside_cause cause)
{
    struct model *model = (struct model *)ctx;
    struct life *life = life_of(model, value);
    CHECK_INT(key_len, sizeof life->key);
    CHECK(memcmp(key, &life->key, sizeof life->key) == 0);
    CHECK(life->stored && !life->told && !life->destroyed);
    life->told = true;
    bool over = life->until_ns <= model_now(model), of_key = life->key == model->key;
    switch (cause) {
    case ASIDE_CAUSE_EXPIRED: CHECK(over); break;
    case ASIDE_CAUSE_EVICTED: CHECK(model->bounded && model->verb == STORES); break;
    case ASIDE_CAUSE_DELETED: CHECK(!over && of_key && model->verb == DROPS); break;
    case ASIDE_CAUSE_REPLACED: CHECK(!over && of_key && model->verb == STORES); break;
    case ASIDE_CAUSE_CLEARED: CHECK(model->verb == CLEARS); break;
    case ASIDE_CAUSE_CLOSED: CHECK(model->verb == CLOSES); break;
    default: CHECK(!"a cause");
    }
}

static void life_free(void *ptr, void *ctx)
{
    struct life *life = (struct life *)ptr;
    (void)ctx;
    CHECK(!life->destroyed);
    life->destroyed = true;
}

/* A new one for the key; it counts as stored until a verb has said that it is not. */
static struct life *life_new(struct model *model, int64_t ttl_ms, aside_value **value)
{
    static char bytes[300];
    int id = model->made++;
    CHECK(id < MODEL_MOST);
    struct life *life = &model->lives[id];
    *life = (struct life){model->key, INT64_MAX, true, false, false};
    if (ttl_ms != ASIDE_FOREVER)
        life->until_ns = model_now(model) + ttl_ms * 1000000;
    size_t size = sizeof id + (size_t)(test_random() % 200);
    memcpy(bytes, &id, sizeof id);
    CHECK_STATUS(model->wrapped ? aside_value_wrap(life, size, life_free, NULL, value)
                                : aside_value_copy(bytes, size, value),
                 ASIDE_OK);
    return life;
}

static int64_t ttl_at_random(void)
{
    return test_random() % 3 == 0 ? ASIDE_FOREVER : (int64_t)(1 + test_random() % 40);
}

static void model_store(struct model *model)
{
    aside_value *value = NULL;
    int64_t ttl_ms = ttl_at_random();
    uint64_t way = test_random() % 3;
    const void *key = &model->key;
    struct life *life = life_new(model, ttl_ms, &value);
    aside_status status = ASIDE_OK;
    model->verb = STORES;
    if (way == 0 || model->wrapped)
        status = aside_set_value(model->cache, key, sizeof model->key, value, ttl_ms);
    else if (way == 1)
        status = aside_set(model->cache, key, sizeof model->key, aside_value_data(value),
                           aside_value_size(value), ttl_ms);
    else
        status = aside_add(model->cache, key, sizeof model->key, aside_value_data(value),
                           aside_value_size(value), ttl_ms);
    CHECK(status == ASIDE_OK || status == ASIDE_E_NOMEM || (status == ASIDE_EXISTS && way == 2));
    life->stored = status == ASIDE_OK;
    aside_value_unref(value);
}

/* With ttl 0, by delete, by touch; it may be over, or not there. */
static void model_drop(struct model *model)
{
    aside_cache *cache = model->cache;
    const void *key = &model->key;
    size_t key_len = sizeof model->key;
    aside_status status = ASIDE_OK;
    model->verb = DROPS;
    switch (test_random() % 4) {
    case 0: status = aside_delete(cache, key, key_len); break;
    case 1: status = aside_touch(cache, key, key_len, 0); break;
    case 2: CHECK_STATUS(aside_set(cache, key, key_len, "x", 1, 0), ASIDE_OK); break;
    default: status = aside_add(cache, key, key_len, "x", 1, 0); break;
    }
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_EXISTS);
}

/* Changes the time that what is there has; what is there nobody knows but who asks. */
static void model_change_time(struct model *model)
{
    aside_value *value = NULL;
    const void *key = &model->key;
    int64_t ttl_ms = ttl_at_random();
    model->verb = READS;
    if (aside_get(model->cache, key, sizeof model->key, &value) != ASIDE_OK)
        return;
    struct life *life = life_of(model, value);
    CHECK(life->stored && !life->told && life->key == model->key);
    aside_value_unref(value);
    if (test_random() % 2) {
        CHECK_STATUS(aside_expire(model->cache, key, sizeof model->key), ASIDE_OK);
        life->until_ns = model_now(model);
        return;
    }
    CHECK_STATUS(aside_touch(model->cache, key, sizeof model->key, ttl_ms), ASIDE_OK);
    life->until_ns = ttl_ms == ASIDE_FOREVER ? INT64_MAX : model_now(model) + ttl_ms * 1000000;
}

/* Some keep what they have read for a while. */
static void model_read(struct model *model)
{
    const void *key = &model->key;
    aside_value **handle = &model->handles[test_random() % MODEL_HANDLES];
    char buffer[16];
    model->verb = READS;
    aside_value_unref(*handle);
    *handle = NULL;
    if (test_random() % 2)
        CHECK(aside_copy(model->cache, key, sizeof model->key, buffer, sizeof buffer, NULL) <=
              ASIDE_MISS);
    else if (aside_get(model->cache, key, sizeof model->key, handle) == ASIDE_OK)
        CHECK(life_of(model, *handle)->until_ns > model_now(model));
}

struct model_fetch {
    struct model *model;
    struct life *life;
};

static aside_status model_answer(aside_fetch *fetch, void *arg)
{
    struct model_fetch *its = (struct model_fetch *)arg;
    aside_value *value = NULL;
    its->life = life_new(its->model, ASIDE_FOREVER, &value);
    CHECK_STATUS(aside_fetch_give(fetch, value), ASIDE_OK);
    switch (test_random() % 8) {
    case 0: return aside_fetch_not_found(fetch);
    case 1: return aside_fetch_fail(fetch, 5);
    case 2: CHECK_STATUS(aside_fetch_set_ttl(fetch, ASIDE_NO_STORE), ASIDE_OK); break;
    case 3: model_store(its->model); break; /* which fences, or not if it is refused */
    default: break;
    }
    return ASIDE_OK;
}

static void model_ask(struct model *model)
{
    struct model_fetch its = {model, NULL};
    aside_call call = {ASIDE_CALL, .fetch = model_answer, .arg = &its, .ttl_ms = ASIDE_FOREVER};
    aside_result result = ASIDE_RESULT_INIT;
    model->verb = STORES;
    aside_status status =
        aside_get_with_fetch(model->cache, &model->key, sizeof model->key, &call, &result);
    if (its.life != NULL && !(status == ASIDE_OK && result.ttl_left_ms != 0)) {
        CHECK(!its.life->told);
        its.life->stored = false;
    }
    aside_value_unref(result.value);
}

static void model_step(struct model *model)
{
    model->key = (int)(test_random() % MODEL_KEYS);
    if (test_random() % 8 == 0) {
        atomic_store(&model->ledger.fail_for_ever, (int)(test_random() % 2));
        atomic_store(&model->ledger.fail_at, (int64_t)(1 + test_random() % 3));
    }
    switch (test_random() % 32) {
    case 0:
        model->verb = CLEARS;
        CHECK_STATUS(aside_clear(model->cache), ASIDE_OK);
        break;
    case 1:
    case 2:
        model->verb = REAPS;
        CHECK_STATUS(aside_reap(model->cache, test_random() % 20, NULL), ASIDE_OK);
        break;
    case 3:
    case 4:
    case 5:
        fake_clock_advance_ms(&model->clock, (int64_t)(test_random() % 20), model->cache);
        break;
    default:
        switch (test_random() % 5) {
        case 0: model_drop(model); break;
        case 1: model_change_time(model); break;
        case 2: model_read(model); break;
        case 3: model_ask(model); break;
        default: model_store(model); break;
        }
    }
    atomic_store(&model->ledger.fail_at, 0);
}

/* What was stored and was not told is there. */
static void model_judge(struct model *model)
{
    size_t there = 0;
    for (int i = 0; i < model->made; i++) {
        const struct life *life = &model->lives[i];
        CHECK(!life->told || life->stored);
        there += life->stored && !life->told;
    }
    CHECK_INT(aside_count(model->cache), there);
}

static void model_end(struct model *model)
{
    model->verb = CLOSES;
    CHECK_STATUS(aside_close(model->cache), ASIDE_OK);
    model_judge(model);
    aside_unref(model->cache);
    for (int i = 0; i < MODEL_HANDLES; i++)
        aside_value_unref(model->handles[i]);
    for (int i = 0; i < model->made; i++) {
        CHECK(model->lives[i].told == model->lives[i].stored);
        CHECK(model->lives[i].destroyed == model->wrapped);
    }
    CHECK_INT(model->ledger.live_blocks, 0);
}

static void check_model(size_t max_bytes, size_t max_entries, bool wrapped)
{
    static struct model model;
    aside_options options = quiet_options();
    memset((void *)&model, 0, sizeof model);
    options.max_bytes = max_bytes;
    options.max_entries = max_entries;
    options.clock = fake_clock_init(&model.clock);
    options.alloc = ledger_init(&model.ledger);
    options.on_remove.fn = model_told;
    options.on_remove.ctx = &model;
    model.cache = open_cache(&options);
    model.wrapped = wrapped;
    model.bounded = max_bytes != 0 || max_entries != 0;
    for (int step = 0; step < 2500; step++) {
        model_step(&model);
        if (step % 8 == 0)
            model_judge(&model);
    }
    model_end(&model);
}

TEST(whatever_is_done_what_was_stored_is_there_or_was_told_once)
{
    static const size_t bounds[][2] = {{0, 0}, {0, 10}, {16384, 0}, {16384, 15}};
    for (long round = 0; round < test_rounds(8); round++)
        for (size_t i = 0; i < COUNT_OF(bounds); i++)
            for (int wrapped = 0; wrapped <= 1; wrapped++)
                check_model(bounds[i][0], bounds[i][1], wrapped);
}

/* ---- what a value costs -------------------------------------------------------------------------- */

static aside_value *costing(const void *bytes, size_t size, size_t cost)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy(bytes, size, &value), ASIDE_OK);
    CHECK_STATUS(aside_value_set_cost(value, cost), ASIDE_OK);
    return value;
}

static aside_status set_and_unref(aside_cache *cache, const char *key, aside_value *value)
{
    aside_status status = aside_set_value(cache, key, strlen(key), value, ASIDE_FOREVER);
    aside_value_unref(value);
    return status;
}

/* What the gauge says while this value, which is given back, is the only entry. */
static size_t bytes_with(aside_cache *cache, aside_value *value)
{
    CHECK_STATUS(set_and_unref(cache, "k", value), ASIDE_OK);
    size_t bytes = STAT(cache, bytes);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    return bytes;
}

static aside_cache *open_bytes(size_t max_bytes)
{
    aside_options options = quiet_options();
    options.max_bytes = max_bytes;
    return open_cache(&options);
}

TEST(a_cost_is_counted_in_the_place_of_the_size)
{
    static const size_t costs[] = {1, 8, 15, 16, 17, 100, 4096, 65536, 1000000};
    static const size_t bounds[] = {0, (size_t)64 << 20};
    static const char bytes[1000] = "";
    for (size_t b = 0; b < COUNT_OF(bounds); b++) {
        aside_cache *cache = open_bytes(bounds[b]);
        size_t nothing = bytes_with(cache, costing(bytes, sizeof bytes, 0));
        size_t empty = STAT(cache, bytes);
        CHECK(nothing > empty && nothing < empty + 200); /* the entry and its key */
        for (size_t i = 0; i < COUNT_OF(costs); i++) {
            size_t with = bytes_with(cache, costing(bytes, sizeof bytes, costs[i]));
            CHECK(with > nothing + costs[i] - 16 && with < nothing + costs[i] + 16);
            CHECK(costs[i] % 16 != 0 || with == nothing + costs[i]);
            CHECK_INT(bytes_with(cache, costing("", 0, costs[i])), with); /* whatever the size */
            CHECK_INT(STAT(cache, bytes), empty);
        }
        end_cache(cache);
    }
}

/* But for what lies beside the size, and is the same for every size. */
TEST(a_value_whose_cost_is_its_size_counts_as_one_without)
{
    static struct tally tally;
    aside_cache *cache = open_bytes(0);
    size_t beside = SIZE_MAX;
    for (size_t size = 0; size < 100000; size += 16 + size / 16 * 16) {
        size_t without = bytes_with(cache, tally_value(&tally, size));
        aside_value *value = tally_value(&tally, size);
        CHECK_STATUS(aside_value_set_cost(value, 3), ASIDE_OK);
        CHECK_STATUS(aside_value_set_cost(value, size), ASIDE_OK); /* the last counts */
        CHECK_INT(aside_value_size(value), size);
        size_t with = bytes_with(cache, value);
        if (beside == SIZE_MAX)
            beside = without - with;
        CHECK(beside <= 128);
        CHECK_INT(without, with + beside);
    }
    end_cache(cache);
    CHECK_INT(tally.freed, tally.made);
}

TEST(a_cost_changes_neither_the_bytes_nor_their_number)
{
    static struct tally tally;
    static const size_t costs[] = {0, 1, 5, 100000};
    aside_cache *cache = open_bytes(0);
    for (size_t i = 0; i < COUNT_OF(costs); i++) {
        aside_value *value = costing("value", 5, costs[i]), *wrapped = tally_value(&tally, 7);
        CHECK(value_is(value, "value"));
        CHECK_STATUS(aside_value_set_cost(wrapped, costs[i]), ASIDE_OK);
        CHECK_INT(aside_value_size(wrapped), 7);
        CHECK(aside_value_data(wrapped) == &tally.slot[i]);
        CHECK_STATUS(set_and_unref(cache, "k", value), ASIDE_OK);
        CHECK(holds(cache, "k", "value"));
        CHECK_STATUS(set_and_unref(cache, "k", wrapped), ASIDE_OK);
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
        CHECK_INT(tally.freed, (int)i + 1);
    }
    end_cache(cache);
}

/* Small values that cost much crowd each other out, large ones that cost nothing do not. */
TEST(eviction_by_bytes_follows_the_cost)
{
    enum { ONE = 100000, ROOM = 10 };
    static struct tally tally;
    aside_cache *cache = open_bytes(ROOM * ONE + ONE / 2);
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_STATUS(set_and_unref(cache, key, costing("x", 1, ONE)), ASIDE_OK);
        CHECK(STAT(cache, bytes) <= ROOM * ONE + ONE / 2);
        CHECK(aside_count(cache) <= ROOM);
    }
    CHECK(aside_count(cache) >= ROOM / 2);
    CHECK_INT(STAT(cache, evicted), 100 - aside_count(cache));
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    uint64_t evicted = STAT(cache, evicted);
    for (int i = 0; i < 100; i++) {
        aside_value *value = tally_value(&tally, ONE);
        snprintf(key, sizeof key, "%d", i);
        CHECK_STATUS(aside_value_set_cost(value, 0), ASIDE_OK);
        CHECK_STATUS(set_and_unref(cache, key, value), ASIDE_OK);
    }
    CHECK_INT(aside_count(cache), 100);
    CHECK_INT(STAT(cache, evicted), evicted);
    end_cache(cache);
    CHECK_INT(tally.freed, 100);
}

TEST(the_bound_holds_whatever_values_cost)
{
    enum { BOUND = 1 << 20 };
    static const char bytes[2000] = "";
    aside_cache *cache = open_bytes(BOUND);
    for (int i = 0; i < 5000; i++) {
        char key[16];
        size_t cost = (size_t)(test_random() % (i % 50 == 0 ? BOUND / 4 : 5000));
        aside_value *value = costing(bytes, (size_t)(test_random() % sizeof bytes), cost);
        snprintf(key, sizeof key, "%d", (int)(test_random() % 1000));
        CHECK_STATUS(set_and_unref(cache, key, value), ASIDE_OK);
        CHECK(STAT(cache, bytes) <= BOUND);
        if (i % 7 == 0)
            (void)aside_delete(cache, key, strlen(key));
    }
    CHECK(STAT(cache, bytes) >= BOUND / 2);
    CHECK(STAT(cache, evicted) > 0);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK(STAT(cache, bytes) < 65536); /* all of it has come back */
    end_cache(cache);
}

TEST(a_cost_that_can_never_fit_is_refused_and_nothing_is_lost)
{
    static const size_t costs[] = {1 << 20,        SIZE_MAX / 2,  SIZE_MAX - 4096, SIZE_MAX - 255,
                                   SIZE_MAX - 100, SIZE_MAX - 16, SIZE_MAX - 15,   SIZE_MAX};
    static struct scene scene;
    scene_init(&scene);
    scene.options.max_bytes = 1 << 20;
    scene_open(&scene);
    put(scene.cache, "k", "v", ASIDE_FOREVER);
    uint64_t bytes = STAT(scene.cache, bytes);
    for (size_t i = 0; i < COUNT_OF(costs); i++) {
        CHECK_STATUS(set_and_unref(scene.cache, "k", costing("x", 1, costs[i])), ASIDE_E_TOO_LARGE);
        CHECK_STATUS(set_and_unref(scene.cache, "other", costing("x", 1, costs[i])),
                     ASIDE_E_TOO_LARGE);
        CHECK(holds(scene.cache, "k", "v"));
        CHECK_INT(STAT(scene.cache, bytes), bytes);
    }
    CHECK_INT(aside_count(scene.cache), 1);
    CHECK_INT(STAT(scene.cache, store_refused), 2 * COUNT_OF(costs));
    CHECK_TOLD(&scene, "");
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_TOLD(&scene, "k=v closed; ");
    scene_end(&scene);
}

/* Costs are as large as a size_t, and no sum of them starts over. */
TEST(costs_beyond_4_GiB_are_counted)
{
    const size_t cost = (size_t)(UINT64_C(5) << 30), bound = (size_t)(UINT64_C(64) << 30);
    if (sizeof(size_t) < 8)
        test_skip("a size_t has 32 bits");
    aside_cache *cache = open_bytes(bound);
    char key[16];
    size_t nothing = bytes_with(cache, costing("x", 1, 0));
    CHECK_INT(bytes_with(cache, costing("x", 1, cost)), nothing + cost);
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_STATUS(set_and_unref(cache, key, costing("x", 1, cost)), ASIDE_OK);
        CHECK(STAT(cache, bytes) <= bound);
    }
    CHECK(aside_count(cache) >= 6 && aside_count(cache) <= 12);
    end_cache(cache);
}

TEST(in_a_cache_without_a_bound_the_largest_costs_do_not_start_over)
{
    aside_cache *cache = open_bytes(0);
    aside_status status = set_and_unref(cache, "k", costing("x", 1, SIZE_MAX));
    CHECK_STATUS(status, ASIDE_E_TOO_LARGE);
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

/* Whose cost may not be set counts as before. */
TEST(a_cost_is_only_for_a_value_that_nobody_else_has)
{
    static struct tally tally;
    aside_cache *cache = open_bytes(0);
    CHECK_STATUS(aside_value_set_cost(NULL, 1), ASIDE_E_INVALID);
    size_t counts = bytes_with(cache, costing("x", 1, 4096));
    aside_value *value = costing("x", 1, 4096);
    CHECK(aside_value_ref(value) == value);
    CHECK_STATUS(aside_value_set_cost(value, 100000), ASIDE_E_INVALID);
    aside_value_unref(value);
    CHECK_INT(bytes_with(cache, value), counts);
    value = tally_value(&tally, 4096);
    CHECK(aside_value_ref(value) == value);
    CHECK_STATUS(aside_value_set_cost(value, 0), ASIDE_E_INVALID);
    aside_value_unref(value);
    CHECK_STATUS(aside_value_set_cost(value, 8192), ASIDE_OK); /* his alone again */
    CHECK_INT(bytes_with(cache, value), counts + 4096);
    end_cache(cache);
    CHECK_INT(tally.freed, tally.made);
}

/* Be it there still or gone, copied or wrapped, stored or handed over only. */
TEST(a_cost_is_not_for_a_value_that_came_from_a_cache)
{
    static struct tally tally;
    aside_cache *cache = open_bytes(0);
    struct source source;
    struct caller caller;
    aside_value *value = NULL;
    source_init(&source, "fetched", false);
    put(cache, "k", "v", ASIDE_FOREVER);
    CHECK_STATUS(tally_set(&tally, cache, "wrapped", 10, ASIDE_FOREVER), ASIDE_OK);
    for (int i = 0; i < 2; i++) {
        const char *key = i ? "wrapped" : "k";
        CHECK_STATUS(aside_get(cache, key, strlen(key), &value), ASIDE_OK);
        uint64_t bytes = STAT(cache, bytes);
        CHECK_STATUS(aside_value_set_cost(value, 100000), ASIDE_E_INVALID);
        CHECK_INT(STAT(cache, bytes), bytes);
        CHECK_STATUS(aside_delete(cache, key, strlen(key)), ASIDE_OK);
        CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
        if (i == 0)
            CHECK_STATUS(aside_value_set_cost(value, 100000), ASIDE_E_INVALID);
        aside_value_unref(value);
    }
    caller_ask(&caller, cache, "fetched", &source, NULL);
    caller.call.ttl_ms = ASIDE_NO_STORE;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_STATUS(aside_value_set_cost(caller.result.value, 1), ASIDE_E_INVALID);
    caller_drop(&caller);
    end_cache(cache);
    CHECK_INT(tally.freed, 1);
}

static aside_status give_costing(aside_fetch *fetch, void *arg)
{
    return aside_fetch_give(fetch, costing("x", 1, *(const size_t *)arg));
}

TEST(the_cost_of_what_a_fetch_gives_counts)
{
    size_t cost = 100000;
    aside_cache *cache = open_bytes((size_t)1 << 20);
    size_t counts = bytes_with(cache, costing("x", 1, cost));
    struct caller caller;
    caller_init(&caller, cache, "k", give_costing, &cost);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(STAT(cache, bytes), counts);
    caller_drop(&caller);
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        caller_init(&caller, cache, key, give_costing, &cost);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        caller_drop(&caller);
        CHECK(STAT(cache, bytes) <= 1 << 20);
    }
    CHECK(aside_count(cache) <= 10);
    cost = SIZE_MAX; /* refused, and handed over all the same */
    caller_init(&caller, cache, "large", give_costing, &cost);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "x"));
    caller_drop(&caller);
    CHECK_STATUS(look(cache, "large"), ASIDE_MISS);
    end_cache(cache);
}

/* Each entry that has it counts it. */
TEST(a_cost_is_counted_in_every_place)
{
    aside_cache *caches[2] = {open_bytes(0), open_bytes((size_t)64 << 20)};
    aside_value *value = costing("x", 1, 1 << 20);
    for (int i = 0; i < 2; i++) {
        uint64_t empty = STAT(caches[i], bytes);
        CHECK_STATUS(aside_set_value(caches[i], ASIDE_STR("a"), value, ASIDE_FOREVER), ASIDE_OK);
        CHECK_STATUS(aside_set_value(caches[i], ASIDE_STR("b"), value, ASIDE_FOREVER), ASIDE_OK);
        CHECK(STAT(caches[i], bytes) >= empty + (2 << 20));
        CHECK_STATUS(aside_value_set_cost(value, 1), ASIDE_E_INVALID);
        CHECK_STATUS(aside_delete(caches[i], ASIDE_STR("a")), ASIDE_OK);
        CHECK(STAT(caches[i], bytes) >= empty + (1 << 20));
        CHECK(STAT(caches[i], bytes) < empty + (2 << 20));
    }
    aside_value_unref(value);
    end_cache(caches[0]);
    end_cache(caches[1]);
}

/* ---- causes as text ------------------------------------------------------------------------------ */

TEST(every_cause_has_a_name)
{
    static const struct {
        aside_cause cause;
        int number;
        const char *name;
    } causes[] = {{ASIDE_CAUSE_EXPIRED, 1, "expired"}, {ASIDE_CAUSE_EVICTED, 2, "evicted"},
                  {ASIDE_CAUSE_DELETED, 3, "deleted"}, {ASIDE_CAUSE_REPLACED, 4, "replaced"},
                  {ASIDE_CAUSE_CLEARED, 5, "cleared"}, {ASIDE_CAUSE_CLOSED, 6, "closed"}};
    static const int unknown[] = {0, 7, -1, 1000, INT32_MAX, INT32_MIN};
    size_t count = 0;
#define ONE_CAUSE(cause, number, name) count++;
    ASIDE_CAUSE_MAP(ONE_CAUSE)
#undef ONE_CAUSE
    CHECK_INT(count, COUNT_OF(causes));
    for (size_t i = 0; i < COUNT_OF(causes); i++) {
        CHECK_INT(causes[i].cause, causes[i].number);
        CHECK(strcmp(aside_cause_name(causes[i].cause), causes[i].name) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(unknown); i++)
        CHECK(strcmp(aside_cause_name((aside_cause)unknown[i]), "unknown") == 0);
}
