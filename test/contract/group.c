/*
 * group.c -- the singleflight group without a cache (group.h): who leads, joins, leaves and is told
 * what; results with their destructors; forgetting; bounds; who runs a fetch; nesting and rings;
 * closing; memory and threads that fail; and that nothing is kept of a flight.
 *
 * The cases of Go's own test suite are in go_suite.c.
 */
#include "helpers.h"

#include <aside/group.h>
#include <malloc.h>

#define AGE_MS 30000 /* the default of max_flight_age_ms */

/* ---- groups -------------------------------------------------------------------------------------- */

static aside_options no_options(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    return options;
}

static aside_group *group_open(const aside_options *options)
{
    aside_group *group = NULL;
    CHECK_STATUS(aside_group_new(&group, options), ASIDE_OK);
    CHECK(group != NULL);
    return group;
}

static aside_group *group_clocked(struct fake_clock *clock)
{
    aside_options options = no_options();
    options.clock = fake_clock_init(clock);
    return group_open(&options);
}

static void group_advance_ms(struct fake_clock *clock, int64_t ms, aside_group *group)
{
    fake_clock_advance_ms(clock, ms, NULL);
    CHECK_STATUS(aside_group_clock_changed(group), ASIDE_OK);
}

static void group_end(aside_group *group)
{
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

static aside_status forget(aside_group *group, const char *key)
{
    return aside_group_forget(group, key, strlen(key));
}

static aside_stats group_stats(const aside_group *group)
{
    aside_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats;
}

#define GSTAT(group, member) (group_stats(group).member)

/* ---- callers of a group -------------------------------------------------------------------------- */

/* One aside_group_do, on this thread (asker_run) or on one of its own (asker_start). */
struct asker {
    aside_group *group;
    const char *key;
    aside_call call;
    aside_result result;
    aside_status status;
    pthread_t thread;
    _Atomic bool done;
};

/* One that can not leave: it runs the fetch itself if it leads. */
static void asker_init(struct asker *asker, aside_group *group, const char *key,
                       aside_fetch_fn *fetch, void *arg)
{
    memset(asker, 0, sizeof *asker);
    asker->group = group;
    asker->key = key;
    asker->call.struct_size = sizeof asker->call;
    asker->call.fetch = fetch;
    asker->call.arg = arg;
    asker->result.struct_size = sizeof asker->result;
}

/* The same for a source; with a token it may leave, so the fetch is offloaded. */
static void asker_ask(struct asker *asker, aside_group *group, const char *key,
                      struct source *source, aside_cancel *token)
{
    asker_init(asker, group, key, source_fetch, source);
    asker->call.cancel = token;
}

static aside_status asker_run(struct asker *asker)
{
    asker->status =
        aside_group_do(asker->group, asker->key, strlen(asker->key), &asker->call, &asker->result);
    CHECK((asker->status == ASIDE_OK) == (asker->result.value != NULL));
    CHECK(asker->result.outcome != ASIDE_OUTCOME_HIT);
    CHECK_INT(asker->result.ttl_left_ms, 0);
    CHECK_INT(asker->result.struct_size, sizeof asker->result);
    atomic_store(&asker->done, true);
    return asker->status;
}

static void *asker_main(void *arg)
{
    asker_run((struct asker *)arg);
    return NULL;
}

static void asker_start(struct asker *asker)
{
    asker->thread = thread_start(asker_main, asker);
}

static aside_status asker_join(struct asker *asker)
{
    thread_join(asker->thread);
    return asker->status;
}

static void asker_drop(struct asker *asker)
{
    aside_value_unref(asker->result.value);
    asker->result.value = NULL;
}

/* Starts a leader on his own thread and returns once his fetch stands at the gate. */
static void lead_group(struct asker *asker, aside_group *group, const char *key,
                       struct source *source)
{
    asker_ask(asker, group, key, source, NULL);
    asker_start(asker);
    gate_wait_arrived(&source->gate, 1);
}

/* The same for one that waits for a worker; returns once he waits. */
static void lead_group_by_worker(struct asker *asker, aside_group *group, const char *key,
                                 struct source *source, aside_cancel *token)
{
    asker_ask(asker, group, key, source, token);
    asker_start(asker);
    gate_wait_arrived(&source->gate, 1);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
}

/* Starts one that joins the key's flight; returns once `waiters` callers wait in the group. */
static void join_group(struct asker *asker, aside_group *group, const char *key,
                       struct source *source, aside_cancel *token, unsigned waiters)
{
    asker_ask(asker, group, key, source, token);
    asker_start(asker);
    WAIT_UNTIL(GSTAT(group, waiters_now) == waiters);
}

/* One call on this thread whose value is dropped. */
static aside_status ask_group(aside_group *group, const char *key, struct source *source,
                              aside_cancel *token)
{
    struct asker asker;
    asker_ask(&asker, group, key, source, token);
    aside_status status = asker_run(&asker);
    asker_drop(&asker);
    return status;
}

/* It has no flights, and the next callers are served, on their own thread and by a worker. */
static void check_idle(aside_group *group)
{
    aside_cancel *token = token_new();
    struct source source;
    source_init(&source, "v", false);
    WAIT_UNTIL(GSTAT(group, flights_now) == 0);
    CHECK_INT(GSTAT(group, waiters_now), 0);
    CHECK_INT(GSTAT(group, queued_now), 0);
    CHECK_STATUS(ask_group(group, "idle", &source, NULL), ASIDE_OK);
    CHECK_STATUS(ask_group(group, "idle", &source, token), ASIDE_OK);
    CHECK_INT(source.fetches, 2);
    aside_cancel_unref(token);
}

static aside_status never_fetch(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    CHECK(!"called");
    return ASIDE_E_INVALID;
}

/* ---- bad arguments ------------------------------------------------------------------------------- */

static int64_t broken_clock(void *ctx)
{
    (void)ctx;
    return 0;
}

static void *some_malloc(size_t size, void *ctx)
{
    (void)ctx;
    return malloc(size);
}

TEST(a_group_takes_the_options_of_a_cache_and_refuses_what_that_refuses)
{
    aside_options bad[12];
    struct {
        aside_options options;
        char more[16];
    } longer;
    aside_group *group = NULL;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        bad[i] = no_options();
    bad[0].struct_size = 0;
    bad[1].default_ttl_ms = 0;
    bad[2].default_ttl_ms = -1;
    bad[3].max_flight_age_ms = -1;
    bad[4].close_wait_ms = -1;
    bad[5].alloc.malloc = some_malloc; /* one of four */
    bad[6].clock.now_ns = broken_clock;
    bad[7].disabled = -1;
    bad[8].disabled = 3;
    bad[9].struct_size = 3;
    bad[10].default_ttl_ms = INT64_MIN;
    bad[11].close_wait_ms = INT64_MIN;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        group = (aside_group *)&bad;
        CHECK_STATUS(aside_group_new(&group, &bad[i]), ASIDE_E_INVALID);
        CHECK(group == NULL);
    }
    memset(&longer, 0, sizeof longer);
    longer.options = no_options();
    longer.options.struct_size = sizeof longer;
    longer.more[15] = 1;
    CHECK_STATUS(aside_group_new(&group, &longer.options), ASIDE_E_INVALID);
    CHECK(group == NULL);
    longer.more[15] = 0;
    CHECK_STATUS(aside_group_new(&group, &longer.options), ASIDE_OK);
    CHECK(group != NULL);
    aside_group_unref(group);
    CHECK_STATUS(aside_group_new(NULL, NULL), ASIDE_E_INVALID);
}

static void no_hook(void *arg)
{
    (void)arg;
    CHECK(!"called");
}

static aside_status try_call(aside_group *group, const aside_call *call)
{
    aside_result result = ASIDE_RESULT_INIT;
    result.value = (aside_value *)group;
    result.outcome = ASIDE_OUTCOME_HIT;
    aside_status status = aside_group_do(group, ASIDE_STR("k"), call, &result);
    CHECK(result.value == NULL);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_NONE);
    return status;
}

/* Whatever takes a group refuses this, or ignores it. */
static void check_no_group(aside_group *no_group)
{
    aside_stats stats = {.struct_size = sizeof stats};
    aside_call call = {ASIDE_CALL, .fetch = never_fetch};
    CHECK_STATUS(try_call(no_group, &call), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_forget(no_group, ASIDE_STR("k")), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_stats_get(no_group, &stats), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_clock_changed(no_group), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_close(no_group), ASIDE_E_INVALID);
    CHECK(aside_group_ref(no_group) == no_group);
    aside_group_unref(no_group);
}

TEST(null_objects_are_refused_or_ignored)
{
    aside_stats stats;
    aside_group *group = group_open(NULL);
    check_no_group(NULL);
    memset(&stats, 0, sizeof stats);
    CHECK_STATUS(aside_group_stats_get(group, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_E_INVALID); /* of no size */
    CHECK_STATUS(aside_group_clock_changed(group), ASIDE_OK);
    group_end(group);
}

TEST(no_verb_takes_something_that_is_no_group)
{
    aside_group *zeros = (aside_group *)zeros_new();
    check_no_group(zeros);
    zeros_end(zeros);
}

TEST(no_bad_call_is_taken)
{
    static int thing;
    aside_group *group = group_open(NULL);
    aside_call good = ASIDE_CALL_INIT, bad[12];
    aside_result result = ASIDE_RESULT_INIT;
    good.fetch = never_fetch;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        bad[i] = good;
    bad[0].struct_size = 0;
    bad[1].fetch = NULL;
    bad[2].timeout_ms = -2;
    bad[3].timeout_ms = INT64_MIN;
    bad[4].ttl_ms = -2; /* it has no effect, but it means nothing */
    bad[5].arg_size = 4;
    bad[5].arg = NULL;
    bad[6].arg_retain = no_hook; /* without the other */
    bad[7].arg_release = no_hook;
    bad[8].arg = &thing;
    bad[8].arg_size = sizeof thing;
    bad[8].arg_retain = bad[8].arg_release = no_hook;
    bad[9].jitter.kind = ASIDE_JITTER_PERCENT + 1; /* as the ttl */
    bad[10].jitter.kind = ASIDE_JITTER_NONE;
    bad[10].jitter.amount = -1;
    bad[11].jitter.kind = ASIDE_JITTER_ADD;
    bad[11].jitter.amount = INT64_MIN;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        CHECK_STATUS(try_call(group, &bad[i]), ASIDE_E_INVALID);
    CHECK_STATUS(try_call(group, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &good, NULL), ASIDE_E_INVALID);
    result.struct_size = 0;
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &good, &result), ASIDE_E_INVALID);
    result.struct_size = offsetof(aside_result, outcome) - 1; /* the value would be lost */
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &good, &result), ASIDE_E_INVALID);
    result.struct_size = sizeof result;
    CHECK_STATUS(aside_group_do(NULL, ASIDE_STR("k"), &good, &result), ASIDE_E_INVALID);
    CHECK_INT(GSTAT(group, misses_led), 0);
    check_idle(group);
    group_end(group);
}

TEST(no_bad_key_is_taken)
{
    static char longer[ASIDE_MAX_KEY + 1];
    const struct {
        const void *key;
        size_t size;
    } bad[] = {{NULL, 1}, {NULL, SIZE_MAX}, {longer, ASIDE_MAX_KEY + 1}, {longer, SIZE_MAX}};
    aside_group *group = group_open(NULL);
    aside_call call = ASIDE_CALL_INIT;
    call.fetch = never_fetch;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        aside_result result = ASIDE_RESULT_INIT;
        result.value = (aside_value *)&result;
        CHECK_STATUS(aside_group_do(group, bad[i].key, bad[i].size, &call, &result),
                     ASIDE_E_INVALID);
        CHECK(result.value == NULL);
        CHECK_STATUS(aside_group_forget(group, bad[i].key, bad[i].size), ASIDE_E_INVALID);
    }
    group_end(group);
}

static aside_status echo_key(aside_fetch *fetch, void *arg)
{
    size_t size = 0;
    const void *key = aside_fetch_key(fetch, &size);
    CHECK(arg == NULL);
    CHECK(aside_fetch_worker(fetch) == NULL);
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    return aside_fetch_copy(fetch, key, size);
}

TEST(any_key_is_told_to_its_fetch)
{
    static char longest[ASIDE_MAX_KEY];
    static const struct {
        const char *key;
        size_t size;
    } keys[] = {{NULL, 0}, {"", 0},     {"\0", 1},   {"\0\0", 2},
                {"k", 1},  {"k\0k", 3}, {"k\0l", 3}, {longest, sizeof longest}};
    aside_group *group = group_open(NULL);
    memset(longest, 'k', sizeof longest);
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        aside_call call = ASIDE_CALL_INIT;
        aside_result result = ASIDE_RESULT_INIT;
        call.fetch = echo_key;
        CHECK_STATUS(aside_group_do(group, keys[i].key, keys[i].size, &call, &result), ASIDE_OK);
        CHECK_INT(aside_value_size(result.value), keys[i].size);
        if (keys[i].size > 0)
            CHECK(memcmp(aside_value_data(result.value), keys[i].key, keys[i].size) == 0);
        aside_value_unref(result.value);
        CHECK_STATUS(aside_group_forget(group, keys[i].key, keys[i].size), ASIDE_MISS);
    }
    group_end(group);
}

TEST(what_is_about_storing_has_no_effect)
{
    struct ledger ledger;
    aside_options options = no_options();
    int threads = threads_created();
    options.alloc = ledger_init(&ledger);
    options.reaper_interval_ms = 1;
    options.default_ttl_ms = 1;
    options.max_bytes = 1;
    options.max_entries = 1;
    options.disabled = ASIDE_DISABLE_ALL; /* it shares all the same */
    aside_group *group = group_open(&options);
    struct source held, other;
    struct asker leader, joiner, next;
    source_init(&held, "v", true);
    source_init(&other, "o", true);
    lead_group(&leader, group, "k", &held);
    lead_group(&next, group, "other", &other); /* flights have no bytes to fit in either */
    join_group(&joiner, group, "k", &held, NULL, 1);
    gate_open(&held.gate);
    gate_open(&other.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    CHECK_STATUS(asker_join(&next), ASIDE_OK);
    CHECK(leader.result.value == joiner.result.value);
    CHECK_INT(held.fetches, 1);
    asker_drop(&leader);
    asker_drop(&joiner);
    asker_drop(&next);
    CHECK_INT(threads_created(), threads); /* no reaper */
    group_end(group);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(the_ttl_of_a_call_and_of_a_fetch_have_no_effect)
{
    static const int64_t ttls[] = {0, 1, 1000, ASIDE_NO_STORE, ASIDE_FOREVER};
    aside_group *group = group_open(NULL);
    struct source source;
    source_init(&source, "v", false);
    for (size_t i = 0; i < COUNT_OF(ttls); i++) {
        struct asker asker;
        asker_ask(&asker, group, "k", &source, NULL);
        asker.call.ttl_ms = ttls[i];
        CHECK_STATUS(asker_run(&asker), ASIDE_OK); /* which looks at ttl_left_ms */
        asker_drop(&asker);
    }
    CHECK_INT(source.fetches, COUNT_OF(ttls));
    group_end(group);
}

static aside_status says_its_freshness(aside_fetch *fetch, void *arg)
{
    aside_freshness freshness = {.stale_ms = 60000, .not_found_ttl_ms = 60000};
    aside_freshness senseless = {.stale_ms = -7};
    ++*(int *)arg;
    CHECK_STATUS(aside_fetch_set_freshness(fetch, &freshness), ASIDE_OK);
    CHECK_STATUS(aside_fetch_set_freshness(fetch, &senseless), ASIDE_E_INVALID);
    return aside_fetch_not_found(fetch);
}

TEST(the_freshness_that_a_fetch_says_has_no_effect)
{
    aside_options options = no_options();
    aside_group *group = group_open(&options);
    int fetches = 0;
    aside_call call = {ASIDE_CALL, .fetch = says_its_freshness, .arg = &fetches};
    for (int i = 1; i <= 3; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &call, &result), ASIDE_NOT_FOUND);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(fetches, i);
    }
    group_end(group);
}

TEST(the_jitter_of_a_call_has_no_effect)
{
    static const aside_jitter jitters[] = {{ASIDE_JITTER_DEFAULT, 0},
                                           {ASIDE_JITTER_NONE, 0},
                                           {ASIDE_JITTER_ADD, 1000},
                                           {ASIDE_JITTER_PERCENT, 100}};
    aside_group *group = group_open(NULL);
    struct source source;
    source_init(&source, "v", false);
    for (size_t i = 0; i < COUNT_OF(jitters); i++) {
        struct asker asker;
        asker_ask(&asker, group, "k", &source, NULL);
        asker.call.jitter = jitters[i];
        CHECK_STATUS(asker_run(&asker), ASIDE_OK); /* which looks at ttl_left_ms */
        asker_drop(&asker);
    }
    CHECK_INT(source.fetches, COUNT_OF(jitters));
    group_end(group);
}

/* ---- one fetch, its result, and nothing kept ----------------------------------------------------- */

TEST(every_call_after_the_end_of_a_fetch_fetches_anew)
{
    aside_group *group = group_open(NULL);
    struct source source;
    struct asker asker;
    source_init(&source, "v", false);
    for (int i = 1; i <= 3; i++) {
        asker_ask(&asker, group, "k", &source, NULL);
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "v"));
        CHECK_INT(asker.result.outcome, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(asker.result.shared, 0);
        CHECK_INT(asker.result.fenced, 0);
        CHECK_INT(asker.result.fetch_error, 0);
        CHECK(asker.result.age_ms >= 0);
        asker_drop(&asker);
        CHECK_INT(source.fetches, i);
    }
    group_end(group);
}

/* `count` callers at once get one object from one fetch, and see the same bit. */
static void check_herd(unsigned count, aside_cancel *token)
{
    static struct asker herd[100];
    aside_group *group = group_open(NULL);
    struct source source;
    unsigned led = 0;
    source_init(&source, "one", true);
    for (unsigned i = 0; i < count; i++) {
        asker_ask(&herd[i], group, "k", &source, token);
        asker_start(&herd[i]);
    }
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(GSTAT(group, waiters_now) == (token == NULL ? count - 1 : count));
    CHECK_INT(GSTAT(group, flights_now), 1);
    gate_open(&source.gate);
    for (unsigned i = 0; i < count; i++) {
        CHECK_STATUS(asker_join(&herd[i]), ASIDE_OK);
        CHECK(herd[i].result.value == herd[0].result.value);
        CHECK_INT(herd[i].result.shared, count > 1);
        CHECK_INT(herd[i].result.fenced, 0);
        led += herd[i].result.outcome == ASIDE_OUTCOME_FETCHED;
        if (herd[i].result.outcome != ASIDE_OUTCOME_FETCHED)
            CHECK_INT(herd[i].result.outcome, ASIDE_OUTCOME_JOINED);
    }
    CHECK(value_is(herd[0].result.value, "one"));
    CHECK_INT(led, 1);
    CHECK_INT(source.fetches, 1);
    for (unsigned i = 0; i < count; i++)
        asker_drop(&herd[i]);
    check_idle(group);
    group_end(group);
}

TEST(one_caller_shares_with_nobody)
{
    check_herd(1, NULL);
}

TEST(two_and_a_hundred_callers_share_one_fetch)
{
    check_herd(2, NULL);
    check_herd(100, NULL);
}

TEST(callers_that_may_leave_share_one_fetch_of_a_worker)
{
    aside_cancel *token = token_new();
    check_herd(1, token);
    check_herd(2, token);
    check_herd(100, token);
    aside_cancel_unref(token);
}

TEST(different_keys_do_not_wait_for_each_other)
{
    aside_group *group = group_open(NULL);
    struct source held, other;
    struct asker leader;
    source_init(&held, "held", true);
    source_init(&other, "other", false);
    lead_group(&leader, group, "k", &held);
    CHECK_STATUS(ask_group(group, "other", &other, NULL), ASIDE_OK);
    CHECK_INT(held.finished, 0);
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    asker_drop(&leader);
    group_end(group);
}

TEST(two_groups_have_nothing_in_common)
{
    aside_group *groups[2] = {group_open(NULL), group_open(NULL)};
    struct source held, other;
    struct asker leader;
    source_init(&held, "held", true);
    source_init(&other, "other", false);
    lead_group(&leader, groups[0], "k", &held);
    CHECK_STATUS(forget(groups[1], "k"), ASIDE_MISS);
    CHECK_STATUS(ask_group(groups[1], "k", &other, NULL), ASIDE_OK);
    CHECK_STATUS(aside_group_close(groups[1]), ASIDE_OK);
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "held"));
    CHECK_INT(leader.result.fenced, 0);
    asker_drop(&leader);
    aside_group_unref(groups[1]);
    group_end(groups[0]);
}

struct answer {
    struct gate gate;
    int code;            /* of aside_fetch_fail, if not 0 */
    aside_status status; /* what the fetch returns else */
};

static aside_status give_answer(aside_fetch *fetch, void *arg)
{
    struct answer *answer = (struct answer *)arg;
    gate_pass(&answer->gate);
    if (answer->code != 0)
        return aside_fetch_fail(fetch, answer->code);
    if (answer->status == ASIDE_NOT_FOUND)
        return aside_fetch_not_found(fetch);
    return answer->status;
}

TEST(every_answer_reaches_all_callers)
{
    static const struct {
        int code;
        aside_status status, told;
    } cases[] = {
        {7, ASIDE_OK, ASIDE_E_FETCH},          {-7, ASIDE_OK, ASIDE_E_FETCH},
        {0, ASIDE_NOT_FOUND, ASIDE_NOT_FOUND}, {0, (aside_status)-1000, (aside_status)-1000},
        {0, ASIDE_E_BUSY, ASIDE_E_BUSY},       {0, ASIDE_OK, ASIDE_E_INVALID}, /* without a value */
        {0, ASIDE_EXISTS, ASIDE_E_INVALID},    {0, (aside_status)1000, ASIDE_E_INVALID}};
    for (size_t i = 0; i < COUNT_OF(cases) * 2; i++) {
        aside_group *group = group_open(NULL);
        aside_cancel *token = token_new();
        struct answer answer;
        struct asker leader, joiner;
        bool offloaded = i % 2;
        gate_init(&answer.gate);
        answer.code = cases[i / 2].code;
        answer.status = cases[i / 2].status;
        asker_init(&leader, group, "k", give_answer, &answer);
        leader.call.cancel = offloaded ? token : NULL;
        asker_start(&leader);
        gate_wait_arrived(&answer.gate, 1);
        asker_init(&joiner, group, "k", never_fetch, NULL);
        asker_start(&joiner);
        WAIT_UNTIL(GSTAT(group, waiters_now) == 1u + offloaded);
        gate_open(&answer.gate);
        CHECK_STATUS(asker_join(&leader), cases[i / 2].told);
        CHECK_STATUS(asker_join(&joiner), cases[i / 2].told);
        CHECK_INT(leader.result.fetch_error, cases[i / 2].code);
        CHECK_INT(joiner.result.fetch_error, cases[i / 2].code);
        CHECK_INT(joiner.result.outcome, ASIDE_OUTCOME_JOINED);
        check_idle(group);
        aside_cancel_unref(token);
        group_end(group);
    }
}

static aside_status fail_and_answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_fail(fetch, 42), ASIDE_E_FETCH);
    return aside_fetch_copy(fetch, "v", 1);
}

/* Completes before its callback returns, which has no say then. */
static aside_status complete_and_return(aside_fetch *fetch, void *arg)
{
    aside_fetch *own = aside_fetch_ref(fetch);
    CHECK_STATUS(aside_fetch_copy(fetch, "v", 1), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(own, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(own);
    return *(aside_status *)arg;
}

static void check_alone_and_by_a_worker(aside_fetch_fn *fetch, void *arg)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    for (int i = 0; i < 4; i++) {
        struct asker asker;
        asker_init(&asker, group, "k", fetch, arg);
        asker.call.cancel = i % 2 ? token : NULL;
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "v"));
        CHECK_INT(asker.result.fetch_error, 0);
        CHECK_INT(asker.result.outcome, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(asker.result.shared, 0);
        asker_drop(&asker);
    }
    CHECK_INT(GSTAT(group, fetches), 4);
    CHECK_INT(GSTAT(group, fetch_errors), 0);
    CHECK_INT(GSTAT(group, get_with_fetch_ok), 4);
    check_idle(group);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_failure_that_was_noted_before_an_answer_is_forgotten)
{
    check_alone_and_by_a_worker(fail_and_answer, NULL);
}

TEST(what_a_fetch_was_completed_with_counts_and_not_what_its_callback_returns)
{
    aside_status returns[] = {ASIDE_PENDING, ASIDE_OK, ASIDE_NOT_FOUND, ASIDE_E_FETCH};
    for (size_t i = 0; i < COUNT_OF(returns); i++)
        check_alone_and_by_a_worker(complete_and_return, &returns[i]);
}

static aside_status write_in_place(aside_fetch *fetch, void *arg)
{
    void *to = NULL;
    (void)arg;
    CHECK_STATUS(aside_fetch_set_ttl(fetch, 5), ASIDE_OK); /* which has no effect */
    CHECK_STATUS(aside_fetch_buffer(fetch, 1000, &to), ASIDE_OK);
    CHECK_INT((uintptr_t)to % 8, 0);
    memset(to, 'b', 1000);
    return ASIDE_OK;
}

TEST(a_value_may_be_written_in_place)
{
    aside_group *group = group_open(NULL);
    struct asker asker;
    asker_init(&asker, group, "k", write_in_place, NULL);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    CHECK_INT(aside_value_size(asker.result.value), 1000);
    const char *bytes = (const char *)aside_value_data(asker.result.value);
    for (int i = 0; i < 1000; i++)
        CHECK_INT(bytes[i], 'b');
    asker_drop(&asker);
    group_end(group);
}

static aside_status name_a_large_value(aside_fetch *fetch, void *arg)
{
    void *to = NULL;
    (void)arg;
    CHECK_STATUS(aside_fetch_buffer(fetch, (size_t)100 << 20, &to), ASIDE_OK);
    memset(to, 'L', 16);
    return ASIDE_OK;
}

/* Nothing is stored, so no bound of a store refuses it. */
TEST(a_value_larger_than_max_bytes_is_handed_over)
{
    aside_group *group = group_open(NULL);
    struct asker asker;
    asker_init(&asker, group, "k", name_a_large_value, NULL);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    CHECK_INT(aside_value_size(asker.result.value), 100 << 20);
    asker_drop(&asker);
    group_end(group);
}

/* Asks for so many keys; the tables that find flights are made once for all. */
static void ask_for_many(aside_group *group, int keys, aside_cancel *token)
{
    struct source source;
    source_init(&source, "some text that takes a few bytes", false);
    for (int i = 0; i < keys; i++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        CHECK_STATUS(ask_group(group, key, &source, token), ASIDE_OK);
    }
}

/* Two callers for each of sixteen keys, all at once; some are forgotten meanwhile. */
static void burst(aside_group *group, const struct ledger *ledger)
{
    enum { CALLERS = 32 };
    static struct asker askers[CALLERS];
    static char keys[CALLERS][16];
    struct source held;
    int64_t bytes = ledger->live_bytes;
    source_init(&held, "held", true);
    for (int i = 0; i < CALLERS; i++) {
        snprintf(keys[i], sizeof keys[i], "key %d", i / 2);
        asker_ask(&askers[i], group, keys[i], &held, NULL);
        asker_start(&askers[i]);
    }
    gate_wait_arrived(&held.gate, CALLERS / 2);
    WAIT_UNTIL(GSTAT(group, waiters_now) == CALLERS / 2);
    CHECK(ledger->live_bytes > bytes);
    for (int i = 0; i < CALLERS; i += 4)
        CHECK_STATUS(forget(group, keys[i]), ASIDE_OK);
    gate_open(&held.gate);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_STATUS(asker_join(&askers[i]), ASIDE_OK);
        asker_drop(&askers[i]);
    }
}

TEST(nothing_is_kept_after_the_flight)
{
    struct ledger ledger;
    aside_options options = no_options();
    options.alloc = ledger_init(&ledger);
    aside_group *group = group_open(&options);
    int64_t empty = ledger.live_bytes;
    ask_for_many(group, 2000, NULL);
    burst(group, &ledger);
    int64_t bytes = ledger.live_bytes, blocks = ledger.live_blocks;
    CHECK(bytes < empty + 64 * 1024);
    for (int i = 0; i < 3; i++) {
        ask_for_many(group, 2000, NULL);
        CHECK_INT(ledger.live_bytes, bytes);
        burst(group, &ledger);
        CHECK_INT(ledger.live_bytes, bytes);
        CHECK_INT(ledger.live_blocks, blocks);
    }
    aside_group_unref(group); /* no close is owed */
    CHECK_INT(ledger.live_blocks, 0);
}

/* Without hooks of the user's: what the C library has handed out. */
TEST(nothing_is_kept_after_the_flight_by_a_group_without_hooks)
{
    aside_group *group = group_open(NULL);
    ask_for_many(group, 2000, NULL);
    size_t used = mallinfo2().uordblks;
    for (int i = 0; i < 10; i++)
        ask_for_many(group, 200 * i, NULL);
    CHECK_INT(mallinfo2().uordblks, used); /* a sanitizer always says 0 */
    group_end(group);
}

TEST(nothing_is_kept_after_flights_on_workers)
{
    struct ledger ledger;
    aside_options options = no_options();
    options.alloc = ledger_init(&ledger);
    options.fetch_threads = 1;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    ask_for_many(group, 1000, NULL);
    int64_t bytes = ledger.live_bytes;
    ask_for_many(group, 1000, token);
    WAIT_UNTIL(ledger.live_bytes <= bytes + 512); /* of the worker, who lets go a moment later */
    aside_cancel_unref(token);
    group_end(group);
    WAIT_UNTIL(ledger.live_blocks == 0);
}

/* ---- results with a destructor ------------------------------------------------------------------- */

struct wrapping {
    struct tally *tally;
    struct gate gate;
    bool gated, exits, twice;
    _Atomic int fetches;
};

static void wrapping_init(struct wrapping *wrapping, bool gated)
{
    memset(wrapping, 0, sizeof *wrapping);
    wrapping->tally = (struct tally *)calloc(1, sizeof *wrapping->tally);
    wrapping->gated = gated;
    gate_init(&wrapping->gate);
}

static void wrapping_fini(struct wrapping *wrapping, int made)
{
    CHECK_INT(wrapping->tally->made, made);
    WAIT_UNTIL(wrapping->tally->freed == made); /* whoever ran the fetch may be the last one */
    free(wrapping->tally);
}

static aside_status give_wrapped(aside_fetch *fetch, void *arg)
{
    struct wrapping *wrapping = (struct wrapping *)arg;
    atomic_fetch_add(&wrapping->fetches, 1);
    if (wrapping->gated)
        gate_pass(&wrapping->gate);
    aside_status status = aside_fetch_give(fetch, tally_value(wrapping->tally, 100));
    if (wrapping->twice)
        status = aside_fetch_give(fetch, tally_value(wrapping->tally, 100));
    if (wrapping->exits)
        pthread_exit(NULL);
    return status;
}

static void ask_wrapped(struct asker *asker, aside_group *group, struct wrapping *wrapping,
                        aside_cancel *token)
{
    asker_init(asker, group, "k", give_wrapped, wrapping);
    asker->call.cancel = token;
}

/* Two lead or join, one leaves if there is a token; the value goes with the last handle. */
static void check_wrapped(bool offloaded, int joiners)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct wrapping wrapping;
    struct asker askers[8];
    wrapping_init(&wrapping, true);
    for (int i = 0; i <= joiners; i++) {
        ask_wrapped(&askers[i], group, &wrapping, i == 0 && !offloaded ? NULL : token);
        asker_start(&askers[i]);
        if (i == 0)
            gate_wait_arrived(&wrapping.gate, 1);
        WAIT_UNTIL(GSTAT(group, waiters_now) == (uint64_t)(i + offloaded));
    }
    gate_open(&wrapping.gate);
    for (int i = 0; i <= joiners; i++) {
        CHECK_STATUS(asker_join(&askers[i]), ASIDE_OK);
        CHECK(aside_value_data(askers[i].result.value) == &wrapping.tally->slot[0]);
        CHECK_INT(aside_value_size(askers[i].result.value), 100);
    }
    WAIT_UNTIL(GSTAT(group, flights_now) == 0);
    for (int i = 0; i <= joiners; i++) {
        CHECK_INT(wrapping.tally->freed, 0);
        asker_drop(&askers[i]);
    }
    wrapping_fini(&wrapping, 1);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_destructor_runs_once_after_the_last_handle)
{
    check_wrapped(false, 0);
    check_wrapped(true, 0);
    check_wrapped(false, 5);
    check_wrapped(true, 5);
}

TEST(a_destructor_runs_once_where_the_handle_outlives_the_group)
{
    struct ledger ledger;
    aside_options options = no_options();
    options.alloc = ledger_init(&ledger);
    aside_group *group = group_open(&options);
    struct wrapping wrapping;
    struct source source;
    struct asker wrapped, copied;
    wrapping_init(&wrapping, false);
    source_init(&source, "copied", false);
    ask_wrapped(&wrapped, group, &wrapping, NULL);
    asker_ask(&copied, group, "c", &source, NULL);
    CHECK_STATUS(asker_run(&wrapped), ASIDE_OK);
    CHECK_STATUS(asker_run(&copied), ASIDE_OK);
    group_end(group);
    CHECK(value_is(copied.result.value, "copied"));
    CHECK_INT(wrapping.tally->freed, 0);
    asker_drop(&wrapped);
    wrapping_fini(&wrapping, 1);
    asker_drop(&copied);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(destructors_run_once_where_the_key_was_forgotten)
{
    aside_group *group = group_open(NULL);
    struct wrapping old, next;
    struct asker leader, joiner, newcomer;
    wrapping_init(&old, true);
    wrapping_init(&next, false);
    ask_wrapped(&leader, group, &old, NULL);
    asker_start(&leader);
    gate_wait_arrived(&old.gate, 1);
    ask_wrapped(&joiner, group, &old, NULL);
    asker_start(&joiner);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
    CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    ask_wrapped(&newcomer, group, &next, NULL);
    CHECK_STATUS(asker_run(&newcomer), ASIDE_OK);
    gate_open(&old.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    CHECK(leader.result.value == joiner.result.value);
    CHECK(newcomer.result.value != joiner.result.value);
    asker_drop(&newcomer);
    asker_drop(&leader);
    CHECK_INT(old.tally->freed, 0);
    asker_drop(&joiner);
    wrapping_fini(&old, 1);
    wrapping_fini(&next, 1);
    group_end(group);
}

TEST(a_destructor_runs_once_where_every_caller_has_left)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct wrapping wrapping;
    struct asker askers[3];
    wrapping_init(&wrapping, true);
    for (unsigned i = 0; i < 3; i++) {
        ask_wrapped(&askers[i], group, &wrapping, token);
        asker_start(&askers[i]);
        WAIT_UNTIL(GSTAT(group, waiters_now) == i + 1);
    }
    gate_wait_arrived(&wrapping.gate, 1);
    aside_cancel_fire(token);
    for (int i = 0; i < 3; i++) /* and their threads end */
        CHECK_STATUS(asker_join(&askers[i]), ASIDE_E_CANCELLED);
    CHECK_INT(wrapping.tally->made, 0);
    gate_open(&wrapping.gate);
    WAIT_UNTIL(GSTAT(group, flights_now) == 0);
    wrapping_fini(&wrapping, 1);
    aside_cancel_unref(token);
    group_end(group);
}

/* The thread that runs the fetch ends inside it, with the value in hand. */
static void check_exit_with_value(bool offloaded)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct wrapping wrapping;
    struct asker leader, joiner;
    wrapping_init(&wrapping, true);
    wrapping.exits = true;
    ask_wrapped(&leader, group, &wrapping, offloaded ? token : NULL);
    asker_start(&leader);
    gate_wait_arrived(&wrapping.gate, 1);
    ask_wrapped(&joiner, group, &wrapping, NULL);
    asker_start(&joiner);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1u + offloaded);
    gate_open(&wrapping.gate);
    CHECK_STATUS(asker_join(&joiner), ASIDE_E_ABANDONED);
    thread_join(leader.thread);
    CHECK_INT(leader.done, offloaded);
    check_idle(group);
    wrapping_fini(&wrapping, 1);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_destructor_runs_once_where_the_thread_of_the_fetch_ended)
{
    check_exit_with_value(false);
    check_exit_with_value(true);
}

TEST(of_two_results_the_last_counts_and_both_are_freed_once)
{
    aside_group *group = group_open(NULL);
    struct wrapping wrapping;
    struct asker asker;
    wrapping_init(&wrapping, false);
    wrapping.twice = true;
    ask_wrapped(&asker, group, &wrapping, NULL);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    CHECK(aside_value_data(asker.result.value) == &wrapping.tally->slot[1]);
    CHECK_INT(wrapping.tally->freed, 1);
    asker_drop(&asker);
    wrapping_fini(&wrapping, 2);
    group_end(group);
}

static void destructor_asks(void *ptr, void *ctx)
{
    struct source source;
    (void)ptr;
    source_init(&source, "v", false);
    CHECK_STATUS(ask_group((aside_group *)ctx, "k", &source, NULL), ASIDE_OK);
    CHECK_STATUS(forget((aside_group *)ctx, "k"), ASIDE_MISS);
}

static aside_status give_asking(aside_fetch *fetch, void *group)
{
    static int thing;
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&thing, 1, destructor_asks, group, &value), ASIDE_OK);
    CHECK_STATUS(aside_fetch_give(fetch, value), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1); /* here the destructor runs, or soon */
}

TEST(a_destructor_may_call_the_group)
{
    aside_group *group = group_open(NULL);
    struct asker asker;
    asker_init(&asker, group, "other", give_asking, group);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    asker_drop(&asker);
    CHECK_INT(GSTAT(group, fetches), 2);
    group_end(group);
}

/* ---- forgetting ---------------------------------------------------------------------------------- */

TEST(forget_says_whether_a_fetch_was_under_way)
{
    aside_group *group = group_open(NULL);
    struct source held, other;
    struct asker leader;
    source_init(&held, "v", true);
    source_init(&other, "o", false);
    CHECK_STATUS(forget(group, "k"), ASIDE_MISS);
    lead_group(&leader, group, "k", &held);
    CHECK_STATUS(forget(group, "other"), ASIDE_MISS);
    CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    CHECK_STATUS(forget(group, "k"), ASIDE_MISS); /* that one is forgotten already */
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    asker_drop(&leader);
    CHECK_STATUS(ask_group(group, "k", &other, NULL), ASIDE_OK);
    CHECK_STATUS(forget(group, "k"), ASIDE_MISS); /* it has ended */
    group_end(group);
}

/* Those of before get the old result, flagged; newcomers start one of their own. */
static void check_forget(aside_cancel *token)
{
    aside_group *group = group_open(NULL);
    unsigned offloaded = token != NULL;
    struct source old, next;
    struct asker leader, joiner, newcomer, last;
    source_init(&old, "old", true);
    source_init(&next, "next", true);
    asker_ask(&leader, group, "k", &old, token);
    asker_start(&leader);
    gate_wait_arrived(&old.gate, 1);
    WAIT_UNTIL(GSTAT(group, waiters_now) == offloaded);
    join_group(&joiner, group, "k", &old, NULL, 1 + offloaded);
    CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    asker_ask(&newcomer, group, "k", &next, token);
    asker_start(&newcomer);
    gate_wait_arrived(&next.gate, 1);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1 + 2 * offloaded);
    CHECK_INT(GSTAT(group, flights_now), 2);
    gate_open(&old.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    CHECK(leader.result.value == joiner.result.value);
    CHECK(value_is(joiner.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(joiner.result.fenced, 1);
    CHECK_INT(joiner.result.shared, 1);
    WAIT_UNTIL(GSTAT(group, flights_now) == 1); /* the end of the old one has not removed the new */
    join_group(&last, group, "k", &old, NULL, 1 + offloaded);
    gate_open(&next.gate);
    CHECK_STATUS(asker_join(&newcomer), ASIDE_OK);
    CHECK_STATUS(asker_join(&last), ASIDE_OK);
    CHECK(newcomer.result.value == last.result.value);
    CHECK(value_is(last.result.value, "next"));
    CHECK_INT(newcomer.result.fenced, 0);
    CHECK_INT(last.result.fenced, 0);
    CHECK_INT(last.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(old.fetches, 1);
    CHECK_INT(next.fetches, 1);
    CHECK_INT(GSTAT(group, fetch_fenced), 1);
    asker_drop(&leader);
    asker_drop(&joiner);
    asker_drop(&newcomer);
    asker_drop(&last);
    check_idle(group);
    group_end(group);
}

TEST(forget_fences_the_flight_and_newcomers_start_another)
{
    aside_cancel *token = token_new();
    check_forget(NULL);
    check_forget(token);
    aside_cancel_unref(token);
}

TEST(a_key_may_be_forgotten_again_and_again)
{
    enum { FLIGHTS = 20 };
    aside_group *group = group_open(NULL);
    struct source sources[FLIGHTS];
    struct asker leaders[FLIGHTS], joiners[FLIGHTS];
    char texts[FLIGHTS][8];
    for (unsigned i = 0; i < FLIGHTS; i++) {
        snprintf(texts[i], sizeof texts[i], "%u", i);
        source_init(&sources[i], texts[i], true);
        lead_group(&leaders[i], group, "k", &sources[i]);
        join_group(&joiners[i], group, "k", &sources[i], NULL, i + 1);
        CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    }
    CHECK_INT(GSTAT(group, flights_now), FLIGHTS);
    for (unsigned n = 0; n < FLIGHTS; n++) { /* they end in another order than they began */
        unsigned i = (n * 7 + 3) % FLIGHTS;
        gate_open(&sources[i].gate);
        CHECK_STATUS(asker_join(&leaders[i]), ASIDE_OK);
        CHECK_STATUS(asker_join(&joiners[i]), ASIDE_OK);
        CHECK(value_is(leaders[i].result.value, texts[i]));
        CHECK(value_is(joiners[i].result.value, texts[i]));
        asker_drop(&leaders[i]);
        asker_drop(&joiners[i]);
    }
    check_idle(group);
    group_end(group);
}

struct own {
    aside_group *group;
    struct source next;
};

/* A fetch that is forgotten by itself is still the fetch of its key on this thread. */
static aside_status forget_itself(aside_fetch *fetch, void *arg)
{
    struct own *own = (struct own *)arg;
    struct asker inner;
    CHECK_STATUS(forget(own->group, "k"), ASIDE_OK);
    asker_ask(&inner, own->group, "k", &own->next, NULL);
    CHECK_STATUS(asker_run(&inner), ASIDE_E_DEADLOCK);
    asker_start(&inner);
    CHECK_STATUS(asker_join(&inner), ASIDE_OK); /* another thread leads a new one */
    CHECK(value_is(inner.result.value, "next"));
    asker_drop(&inner);
    return aside_fetch_copy(fetch, "old", 3);
}

TEST(a_fetch_may_forget_its_own_key)
{
    struct own own;
    struct asker asker;
    own.group = group_open(NULL);
    source_init(&own.next, "next", false);
    asker_init(&asker, own.group, "k", forget_itself, &own);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    CHECK(value_is(asker.result.value, "old"));
    CHECK_INT(asker.result.fenced, 1);
    asker_drop(&asker);
    check_idle(own.group);
    group_end(own.group);
}

TEST(a_forgotten_fetch_that_fails_or_is_abandoned_ends_its_own_flight_only)
{
    for (int abandoned = 0; abandoned <= 1; abandoned++) {
        aside_group *group = group_open(NULL);
        struct answer answer;
        struct source next;
        struct asker leader, newcomer;
        gate_init(&answer.gate);
        answer.code = 0;
        answer.status = abandoned ? ASIDE_PENDING : (aside_status)-99;
        source_init(&next, "next", true);
        asker_init(&leader, group, "k", give_answer, &answer);
        asker_start(&leader);
        gate_wait_arrived(&answer.gate, 1);
        CHECK_STATUS(forget(group, "k"), ASIDE_OK);
        lead_group(&newcomer, group, "k", &next);
        gate_open(&answer.gate);
        CHECK_STATUS(asker_join(&leader), abandoned ? ASIDE_E_ABANDONED : (aside_status)-99);
        gate_open(&next.gate);
        CHECK_STATUS(asker_join(&newcomer), ASIDE_OK);
        asker_drop(&newcomer);
        check_idle(group);
        group_end(group);
    }
}

/* ---- callers come and go ------------------------------------------------------------------------- */

TEST(a_token_takes_one_caller_out)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new(), *other = token_new();
    struct source source;
    struct asker leader, leaver, stayer;
    source_init(&source, "v", true);
    lead_group(&leader, group, "k", &source);
    join_group(&leaver, group, "k", &source, token, 1);
    join_group(&stayer, group, "k", &source, other, 2);
    aside_cancel_fire(token);
    CHECK_STATUS(asker_join(&leaver), ASIDE_E_CANCELLED);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
    CHECK(!leader.done && !stayer.done);
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&stayer), ASIDE_OK);
    CHECK(leader.result.value == stayer.result.value);
    CHECK_INT(leader.result.shared, 1);
    asker_drop(&leader);
    asker_drop(&stayer);
    aside_cancel_unref(token);
    aside_cancel_unref(other);
    group_end(group);
}

TEST(a_leader_that_leaves_leaves_the_fetch_to_the_others)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader, joiner;
    source_init(&source, "v", true);
    lead_group_by_worker(&leader, group, "k", &source, token);
    join_group(&joiner, group, "k", &source, NULL, 2);
    aside_cancel_fire(token);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_CANCELLED);
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    CHECK(value_is(joiner.result.value, "v"));
    CHECK_INT(joiner.result.shared, 0); /* he was the only one at the end */
    CHECK_INT(joiner.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(source.fetches, 1);
    asker_drop(&joiner);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_newcomer_joins_the_fetch_that_everyone_has_left)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader, newcomer;
    source_init(&source, "v", true);
    lead_group_by_worker(&leader, group, "k", &source, token);
    aside_cancel_fire(token);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_CANCELLED);
    CHECK_INT(GSTAT(group, flights_now), 1);
    join_group(&newcomer, group, "k", &source, NULL, 1);
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&newcomer), ASIDE_OK);
    CHECK_INT(newcomer.result.outcome, ASIDE_OUTCOME_JOINED);
    CHECK_INT(source.fetches, 1);
    asker_drop(&newcomer);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_deadline_takes_one_caller_out)
{
    struct fake_clock clock;
    aside_group *group = group_clocked(&clock);
    struct source source;
    struct asker leader, joiner, patient;
    source_init(&source, "v", true);
    asker_ask(&leader, group, "k", &source, NULL);
    leader.call.timeout_ms = 100;
    asker_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    asker_ask(&joiner, group, "k", &source, NULL);
    joiner.call.timeout_ms = 200;
    asker_start(&joiner);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 2);
    join_group(&patient, group, "k", &source, NULL, 3);
    group_advance_ms(&clock, 99, group);
    CHECK_INT(GSTAT(group, timeouts), 0);
    group_advance_ms(&clock, 1, group);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_TIMEOUT);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 2);
    group_advance_ms(&clock, 100, group);
    CHECK_STATUS(asker_join(&joiner), ASIDE_E_TIMEOUT);
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&patient), ASIDE_OK);
    CHECK_INT(source.fetches, 1);
    asker_drop(&patient);
    group_end(group);
}

TEST(a_deadline_is_kept_by_the_systems_clock)
{
    aside_group *group = group_open(NULL);
    struct source source;
    struct asker asker;
    source_init(&source, "v", true);
    for (int64_t ms = 1; ms <= 21; ms += 10) {
        int64_t began_ns = test_now_ns();
        asker_ask(&asker, group, "k", &source, NULL);
        asker.call.timeout_ms = ms;
        CHECK_STATUS(asker_run(&asker), ASIDE_E_TIMEOUT);
        CHECK(test_now_ns() - began_ns >= ms * 1000000);
    }
    gate_open(&source.gate);
    check_idle(group);
    CHECK_INT(source.fetches, 1); /* later ones joined the first */
    group_end(group);
}

TEST(no_wait_is_a_miss_and_starts_and_joins_nothing)
{
    aside_group *group = group_open(NULL);
    struct source held, source;
    struct asker leader, asker;
    source_init(&held, "v", true);
    source_init(&source, "v", false);
    for (int under_way = 0; under_way <= 1; under_way++) {
        if (under_way)
            lead_group(&leader, group, "k", &held);
        asker_ask(&asker, group, "k", &source, NULL);
        asker.call.timeout_ms = ASIDE_NO_WAIT;
        CHECK_STATUS(asker_run(&asker), ASIDE_MISS);
        CHECK_INT(asker.result.outcome, ASIDE_OUTCOME_NONE);
        CHECK_INT(source.fetches, 0);
    }
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    asker_drop(&leader);
    group_end(group);
}

TEST(a_token_that_has_fired_starts_and_joins_nothing)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source held, source;
    struct asker leader, asker;
    source_init(&held, "v", true);
    source_init(&source, "v", false);
    aside_cancel_fire(token);
    for (int under_way = 0; under_way <= 1; under_way++) {
        if (under_way)
            lead_group(&leader, group, "k", &held);
        asker_ask(&asker, group, "k", &source, token);
        CHECK_STATUS(asker_run(&asker), ASIDE_E_CANCELLED);
        CHECK_INT(asker.result.outcome, ASIDE_OUTCOME_NONE);
        CHECK_INT(source.fetches, 0);
    }
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.shared, 0);
    asker_drop(&leader);
    aside_cancel_unref(token);
    group_end(group);
}

struct pending {
    _Atomic(aside_fetch *) fetch; /* referenced, for whoever completes it */
};

static aside_status leave_pending(aside_fetch *fetch, void *arg)
{
    struct pending *pending = (struct pending *)arg;
    CHECK(aside_fetch_ref(fetch) == fetch);
    atomic_store(&pending->fetch, fetch);
    return ASIDE_PENDING;
}

/* Starts the call; returns the pending fetch once its caller waits. */
static aside_fetch *start_pending(struct asker *asker, aside_group *group, struct pending *pending,
                                  aside_cancel *token)
{
    atomic_store(&pending->fetch, NULL);
    asker_init(asker, group, "k", leave_pending, pending);
    asker->call.cancel = token;
    asker_start(asker);
    WAIT_UNTIL(atomic_load(&pending->fetch) != NULL && GSTAT(group, waiters_now) == 1);
    return atomic_load(&pending->fetch);
}

TEST(a_value_that_is_ready_when_the_token_fires_wins)
{
    aside_group *group = group_open(NULL);
    for (int round = 0; round < 100; round++) {
        aside_cancel *token = token_new();
        struct pending pending;
        struct asker asker;
        aside_fetch *fetch = start_pending(&asker, group, &pending, token);
        CHECK_STATUS(aside_fetch_copy(fetch, "ready", 5), ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
        aside_cancel_fire(token);
        aside_fetch_unref(fetch);
        CHECK_STATUS(asker_join(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "ready"));
        asker_drop(&asker);
        aside_cancel_unref(token);
    }
    group_end(group);
}

TEST(a_token_with_a_deadline_and_a_child_of_one_work_with_a_group)
{
    struct fake_clock clock;
    aside_group *group = group_clocked(&clock);
    aside_clock its_clock = {NULL, NULL};
    aside_cancel *parent = token_new(), *child = NULL;
    struct source source;
    struct asker by_parent, by_child;
    its_clock = fake_clock_init(&clock);
    source_init(&source, "v", true);
    CHECK_STATUS(aside_cancel_child(parent, &child), ASIDE_OK);
    lead_group_by_worker(&by_parent, group, "k", &source, parent);
    join_group(&by_child, group, "k", &source, child, 2);
    CHECK_STATUS(aside_cancel_set_deadline(child, 50, &its_clock), ASIDE_OK);
    group_advance_ms(&clock, 50, group);
    CHECK_STATUS(asker_join(&by_child), ASIDE_E_TIMEOUT);
    CHECK(!by_parent.done);
    asker_ask(&by_child, group, "k", &source, child);
    CHECK_STATUS(asker_run(&by_child), ASIDE_E_TIMEOUT);
    aside_cancel_unref(child);
    CHECK_STATUS(aside_cancel_child(parent, &child), ASIDE_OK);
    join_group(&by_child, group, "k", &source, child, 2);
    aside_cancel_fire(parent);
    CHECK_STATUS(asker_join(&by_parent), ASIDE_E_CANCELLED);
    CHECK_STATUS(asker_join(&by_child), ASIDE_E_CANCELLED);
    gate_open(&source.gate);
    WAIT_UNTIL(GSTAT(group, flights_now) == 0);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    group_end(group);
}

struct stopping {
    struct gate gate;
    _Atomic int fetches, heard;
};

static aside_status poll_until_stopped(aside_fetch *fetch, void *arg)
{
    struct stopping *stopping = (struct stopping *)arg;
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    atomic_fetch_add(&stopping->fetches, 1);
    WAIT_UNTIL(aside_fetch_stopping(fetch));
    atomic_fetch_add(&stopping->heard, 1);
    gate_pass(&stopping->gate);
    return ASIDE_E_CANCELLED;
}

TEST(a_fetch_that_everyone_has_left_is_told_to_stop_and_gets_no_newcomer)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct stopping stopping;
    struct source next;
    struct asker leader;
    memset(&stopping, 0, sizeof stopping);
    gate_init(&stopping.gate);
    source_init(&next, "next", false);
    asker_init(&leader, group, "k", poll_until_stopped, &stopping);
    leader.call.cancel = token;
    leader.call.stop_when_abandoned = 1;
    asker_start(&leader);
    WAIT_UNTIL(stopping.fetches == 1 && GSTAT(group, waiters_now) == 1);
    aside_cancel_fire(token);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_CANCELLED);
    gate_wait_arrived(&stopping.gate, 1);
    CHECK_STATUS(ask_group(group, "k", &next, NULL), ASIDE_OK); /* by a fetch of its own */
    CHECK_INT(next.fetches, 1);
    gate_open(&stopping.gate);
    check_idle(group);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- bounds -------------------------------------------------------------------------------------- */

TEST(no_more_flights_than_max_flights)
{
    aside_options options = no_options();
    options.max_flights = 2;
    aside_group *group = group_open(&options);
    struct source held, good;
    struct asker leaders[2], joiner, third;
    source_init(&held, "held", true);
    source_init(&good, "good", false);
    lead_group(&leaders[0], group, "0", &held);
    asker_ask(&leaders[1], group, "1", &held, NULL);
    asker_start(&leaders[1]);
    gate_wait_arrived(&held.gate, 2);
    asker_ask(&third, group, "2", &good, NULL);
    CHECK_STATUS(asker_run(&third), ASIDE_E_BUSY);
    CHECK_INT(third.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_STATUS(forget(group, "0"), ASIDE_OK); /* a forgotten one still runs, and counts */
    CHECK_STATUS(ask_group(group, "0", &good, NULL), ASIDE_E_BUSY);
    CHECK_INT(good.fetches, 0);
    join_group(&joiner, group, "1", &held, NULL, 1);
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leaders[0]), ASIDE_OK);
    CHECK_STATUS(asker_join(&leaders[1]), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    asker_drop(&leaders[0]);
    asker_drop(&leaders[1]);
    asker_drop(&joiner);
    CHECK_STATUS(asker_run(&third), ASIDE_OK);
    asker_drop(&third);
    group_end(group);
}

TEST(no_more_waiters_than_max_waiters_in_one_flight)
{
    aside_options options = no_options();
    options.max_waiters = 2;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source held;
    struct asker leader, joiners[2], third;
    source_init(&held, "held", true);
    lead_group(&leader, group, "k", &held);
    join_group(&joiners[0], group, "k", &held, token, 1);
    join_group(&joiners[1], group, "k", &held, NULL, 2);
    asker_ask(&third, group, "k", &held, NULL);
    CHECK_STATUS(asker_run(&third), ASIDE_E_BUSY);
    aside_cancel_fire(token); /* one leaves: there is room again */
    CHECK_STATUS(asker_join(&joiners[0]), ASIDE_E_CANCELLED);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
    join_group(&third, group, "k", &held, NULL, 2);
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiners[1]), ASIDE_OK);
    CHECK_STATUS(asker_join(&third), ASIDE_OK);
    asker_drop(&leader);
    asker_drop(&joiners[1]);
    asker_drop(&third);
    CHECK_INT(held.fetches, 1);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(no_more_queued_fetches_than_max_queued)
{
    aside_options options = no_options();
    options.fetch_threads = 1;
    options.max_queued = 1;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source held, good;
    struct asker busy, queued, third;
    source_init(&held, "held", true);
    source_init(&good, "good", false);
    lead_group_by_worker(&busy, group, "busy", &held, token);
    asker_ask(&queued, group, "queued", &good, token);
    asker_start(&queued);
    WAIT_UNTIL(GSTAT(group, queued_now) == 1);
    asker_ask(&third, group, "third", &good, token);
    CHECK_STATUS(asker_run(&third), ASIDE_E_BUSY);
    CHECK_INT(good.fetches, 0);
    CHECK_STATUS(ask_group(group, "inline", &good, NULL), ASIDE_OK);
    CHECK_INT(GSTAT(group, workers_now), 1);
    gate_open(&held.gate);
    CHECK_STATUS(asker_join(&busy), ASIDE_OK);
    CHECK_STATUS(asker_join(&queued), ASIDE_OK);
    asker_drop(&busy);
    asker_drop(&queued);
    CHECK_STATUS(asker_run(&third), ASIDE_OK);
    asker_drop(&third);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(without_fetch_threads_whoever_may_leave_is_refused)
{
    aside_options options = no_options();
    options.fetch_threads = 0;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader, joiner;
    source_init(&source, "v", true);
    CHECK_STATUS(ask_group(group, "k", &source, token), ASIDE_E_BUSY);
    CHECK_INT(source.fetches, 0);
    lead_group(&leader, group, "k", &source);
    join_group(&joiner, group, "k", &source, token, 1); /* but he may join */
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    asker_drop(&leader);
    asker_drop(&joiner);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- the age of a flight ------------------------------------------------------------------------- */

TEST(a_flight_that_is_too_old_is_superseded)
{
    struct fake_clock clock;
    aside_group *group = group_clocked(&clock);
    struct source old, next;
    struct asker leader, joiner, newcomer;
    source_init(&old, "old", true);
    source_init(&next, "next", true);
    lead_group(&leader, group, "k", &old);
    join_group(&joiner, group, "k", &old, NULL, 1);
    group_advance_ms(&clock, AGE_MS - 1, group);
    CHECK_INT(GSTAT(group, superseded), 0);
    group_advance_ms(&clock, 2, group);
    CHECK_STATUS(asker_join(&joiner), ASIDE_E_FETCH_TIMEOUT);
    lead_group(&newcomer, group, "k", &next);
    gate_open(&old.gate);
    CHECK_STATUS(asker_join(&leader),
                 ASIDE_OK); /* he can not leave, and gets what his fetch brings */
    CHECK(value_is(leader.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    gate_open(&next.gate);
    CHECK_STATUS(asker_join(&newcomer), ASIDE_OK);
    CHECK(value_is(newcomer.result.value, "next"));
    CHECK_INT(newcomer.result.fenced, 0);
    CHECK_INT(GSTAT(group, superseded), 1);
    asker_drop(&leader);
    asker_drop(&newcomer);
    check_idle(group);
    group_end(group);
}

TEST(a_leader_that_may_leave_waits_no_longer_than_the_age)
{
    struct fake_clock clock;
    aside_group *group = group_clocked(&clock);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader;
    source_init(&source, "old", true);
    lead_group_by_worker(&leader, group, "k", &source, token);
    group_advance_ms(&clock, AGE_MS + 1, group);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_FETCH_TIMEOUT);
    gate_open(&source.gate);
    check_idle(group);
    aside_cancel_unref(token);
    group_end(group);
}

struct ageing {
    aside_group *group;
    struct fake_clock *clock;
};

static aside_status hear_of_its_age(aside_fetch *fetch, void *arg)
{
    struct ageing *ageing = (struct ageing *)arg;
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    group_advance_ms(ageing->clock, AGE_MS + 1, ageing->group);
    CHECK_INT(aside_fetch_stopping(fetch), 1);
    return ASIDE_E_CANCELLED;
}

TEST(a_fetch_is_told_that_its_flight_has_grown_too_old)
{
    struct fake_clock clock;
    struct ageing ageing;
    struct asker asker;
    ageing.group = group_clocked(&clock);
    ageing.clock = &clock;
    asker_init(&asker, ageing.group, "k", hear_of_its_age, &ageing);
    CHECK_STATUS(asker_run(&asker), ASIDE_E_CANCELLED);
    group_end(ageing.group);
}

/* By the system's clock, which a group without hooks of the user's takes short cuts with. */
TEST(the_age_of_a_flight_is_kept_by_the_systems_clock)
{
    aside_options options = no_options();
    options.max_flight_age_ms = 200;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source old, next;
    struct asker leader, joiners[2];
    source_init(&old, "old", true);
    source_init(&next, "next", false);
    int64_t began_ns = test_now_ns();
    lead_group(&leader, group, "k", &old);
    for (int i = 0; i < 2; i++) { /* both of the first flight, if they come in time */
        asker_ask(&joiners[i], group, "k", &next, i ? token : NULL);
        asker_start(&joiners[i]);
    }
    for (int i = 0; i < 2; i++) {
        aside_status status = asker_join(&joiners[i]);
        CHECK(status == ASIDE_E_FETCH_TIMEOUT || status == ASIDE_OK);
        CHECK(test_now_ns() - began_ns >=
              (200 - 20) * 1000000); /* less a tick of the coarse clock */
        asker_drop(&joiners[i]);
    }
    CHECK_STATUS(ask_group(group, "k", &next, NULL), ASIDE_OK);
    WAIT_UNTIL(ask_group(group, "k", &next, token) ==
               ASIDE_OK); /* a slow worker is too old as well */
    gate_open(&old.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    CHECK(GSTAT(group, superseded) >= 1);
    asker_drop(&leader);
    check_idle(group);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- who runs the fetch -------------------------------------------------------------------------- */

struct where {
    pthread_t thread;
    void *worker;
    _Atomic int fetches;
};

static aside_status note_where(aside_fetch *fetch, void *arg)
{
    struct where *where = (struct where *)arg;
    where->thread = pthread_self();
    where->worker = aside_fetch_worker(fetch);
    atomic_fetch_add(&where->fetches, 1);
    return aside_fetch_copy(fetch, "v", 1);
}

static aside_status ask_where(aside_group *group, struct where *where, aside_cancel *token,
                              int64_t timeout_ms)
{
    struct asker asker;
    asker_init(&asker, group, "k", note_where, where);
    asker.call.cancel = token;
    asker.call.timeout_ms = timeout_ms;
    aside_status status = asker_run(&asker);
    asker_drop(&asker);
    return status;
}

TEST(who_can_not_leave_fetches_himself_and_others_by_a_worker)
{
    int created = threads_created();
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct where where;
    memset(&where, 0, sizeof where);
    CHECK_STATUS(ask_where(group, &where, NULL, 0), ASIDE_OK);
    CHECK(pthread_equal(where.thread, pthread_self()));
    CHECK_STATUS(ask_where(group, &where, NULL, ASIDE_FOREVER), ASIDE_OK);
    CHECK(pthread_equal(where.thread, pthread_self()));
    CHECK_INT(threads_created(), created); /* none before a fetch needs one */
    CHECK_STATUS(ask_where(group, &where, token, 0), ASIDE_OK);
    CHECK(!pthread_equal(where.thread, pthread_self()));
    CHECK_STATUS(ask_where(group, &where, NULL, 60000), ASIDE_OK);
    CHECK(!pthread_equal(where.thread, pthread_self()));
    CHECK(where.worker == NULL);
    CHECK(threads_created() > created);
    CHECK(process_threads_named("aside-fetch") > 0);
    aside_cancel_unref(token);
    group_end(group);
    WAIT_UNTIL(process_threads_named("aside-") == 0); /* the workers are joined, or on their way */
}

struct pool {
    _Atomic int starts, stops;
    pthread_t threads[16];
    aside_status refuse; /* what start says instead of ASIDE_OK */
};

static aside_status worker_start(void *ctx, void **worker)
{
    struct pool *pool = (struct pool *)ctx;
    if (pool->refuse != ASIDE_OK)
        return pool->refuse;
    int id = atomic_fetch_add(&pool->starts, 1);
    CHECK(id < 16);
    pool->threads[id] = pthread_self();
    *worker = &pool->threads[id];
    return ASIDE_OK;
}

static void worker_stop(void *ctx, void *worker)
{
    struct pool *pool = (struct pool *)ctx;
    CHECK(pthread_equal(*(pthread_t *)worker, pthread_self()));
    atomic_fetch_add(&pool->stops, 1);
}

static aside_group *open_with_pool(struct pool *pool, size_t threads)
{
    aside_options options = no_options();
    memset(pool, 0, sizeof *pool);
    options.worker.start = worker_start;
    options.worker.stop = worker_stop;
    options.worker.ctx = pool;
    options.fetch_threads = threads;
    return group_open(&options);
}

TEST(with_a_start_hook_every_fetch_runs_on_a_worker_with_its_context)
{
    struct pool pool;
    aside_group *group = open_with_pool(&pool, 1);
    struct where where;
    memset(&where, 0, sizeof where);
    for (int i = 1; i <= 3; i++) {
        CHECK_STATUS(ask_where(group, &where, NULL, 0), ASIDE_OK);
        CHECK(where.worker == &pool.threads[0]);
        CHECK(pthread_equal(where.thread, pool.threads[0]));
        CHECK_INT(where.fetches, i);
    }
    CHECK_INT(pool.starts, 1);
    CHECK_INT(pool.stops, 0);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    WAIT_UNTIL(pool.stops == 1);
    aside_group_unref(group);
}

TEST(a_worker_that_can_not_start_fails_the_fetch_that_it_was_made_for)
{
    struct pool pool;
    aside_group *group = open_with_pool(&pool, 2);
    struct source source;
    struct asker asker;
    source_init(&source, "v", false);
    pool.refuse = (aside_status)-42;
    asker_ask(&asker, group, "k", &source, NULL);
    CHECK_STATUS(asker_run(&asker), ASIDE_E_WORKER);
    CHECK_INT(asker.result.fetch_error, -42);
    CHECK_INT(source.fetches, 0);
    pool.refuse = ASIDE_OK;
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    CHECK_INT(asker.result.fetch_error, 0);
    asker_drop(&asker);
    group_end(group);
    WAIT_UNTIL(pool.stops == 1);
}

TEST(without_threads_callers_that_may_leave_are_refused)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    struct source source;
    source_init(&source, "v", false);
    process_fail_thread(1, true);
    CHECK_STATUS(ask_group(group, "k", &source, token), ASIDE_E_BUSY);
    CHECK_INT(source.fetches, 0);
    CHECK_STATUS(ask_group(group, "k", &source, NULL), ASIDE_OK);
    process_fail_thread(0, false);
    check_idle(group);
    aside_cancel_unref(token);
    group_end(group);
}

enum mode { RUN_NOW, KEEP, DROP_NOW, REFUSE };

struct executor {
    enum mode mode;
    _Atomic(aside_job *) job; /* taken and not yet used up */
    _Atomic int submitted;
    int context; /* its address is the worker */
};

static aside_status submit(void *ctx, aside_job *job)
{
    struct executor *executor = (struct executor *)ctx;
    atomic_fetch_add(&executor->submitted, 1);
    switch (executor->mode) {
    case RUN_NOW: aside_job_run(job, &executor->context); return ASIDE_OK;
    case DROP_NOW: aside_job_drop(job); return ASIDE_OK;
    case REFUSE: return (aside_status)-9;
    case KEEP: break;
    }
    atomic_store(&executor->job, job);
    return ASIDE_OK;
}

static aside_group *open_with_executor(struct executor *executor, enum mode mode)
{
    aside_options options = no_options();
    memset(executor, 0, sizeof *executor);
    executor->mode = mode;
    options.submit.fn = submit;
    options.submit.ctx = executor;
    options.close_wait_ms = 0;
    return group_open(&options);
}

static void *run_job(void *arg)
{
    struct executor *executor = (struct executor *)arg;
    aside_job_run(atomic_exchange(&executor->job, NULL), &executor->context);
    return NULL;
}

TEST(an_executor_of_ones_own_may_run_a_job_at_once_or_later)
{
    struct executor executor;
    aside_group *group = open_with_executor(&executor, RUN_NOW);
    aside_cancel *token = token_new();
    struct where where;
    struct asker asker;
    int created = threads_created();
    memset(&where, 0, sizeof where);
    CHECK_STATUS(ask_where(group, &where, token, 0), ASIDE_OK);
    CHECK(pthread_equal(where.thread, pthread_self()));
    CHECK(where.worker == &executor.context);
    executor.mode = KEEP;
    asker_init(&asker, group, "k", note_where, &where);
    asker.call.cancel = token;
    asker_start(&asker);
    WAIT_UNTIL(atomic_load(&executor.job) != NULL);
    CHECK_INT(where.fetches, 1);
    pthread_t runner = thread_start(run_job, &executor);
    CHECK_STATUS(asker_join(&asker), ASIDE_OK);
    CHECK(pthread_equal(where.thread, runner));
    thread_join(runner);
    asker_drop(&asker);
    CHECK_STATUS(ask_where(group, &where, NULL, 0), ASIDE_OK); /* needs no executor */
    CHECK_INT(executor.submitted, 2);
    CHECK_INT(threads_created(), created);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(an_executor_of_ones_own_may_drop_a_job_or_not_take_it)
{
    struct executor executor;
    aside_group *group = open_with_executor(&executor, DROP_NOW);
    aside_cancel *token = token_new();
    struct source source;
    struct asker asker;
    source_init(&source, "v", false);
    CHECK_STATUS(ask_group(group, "k", &source, token), ASIDE_E_ABANDONED);
    executor.mode = REFUSE;
    CHECK_STATUS(ask_group(group, "k", &source, token), ASIDE_E_BUSY);
    executor.mode = KEEP;
    asker_ask(&asker, group, "k", &source, token);
    asker_start(&asker);
    WAIT_UNTIL(atomic_load(&executor.job) != NULL);
    aside_job_drop(atomic_load(&executor.job));
    CHECK_STATUS(asker_join(&asker), ASIDE_E_ABANDONED);
    CHECK_INT(source.fetches, 0);
    CHECK_INT(GSTAT(group, flights_now), 0);
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_job_that_is_held_at_the_close_may_be_used_up_afterwards)
{
    for (int drop = 0; drop <= 1; drop++) {
        struct executor executor;
        aside_group *group = open_with_executor(&executor, KEEP);
        aside_cancel *token = token_new();
        struct source source;
        struct asker asker;
        source_init(&source, "v", false);
        asker_ask(&asker, group, "k", &source, token);
        asker_start(&asker);
        WAIT_UNTIL(atomic_load(&executor.job) != NULL);
        CHECK_STATUS(aside_group_close(group), ASIDE_OK);
        CHECK_STATUS(asker_join(&asker), ASIDE_E_CLOSED);
        aside_group_unref(group);
        if (drop)
            aside_job_drop(executor.job);
        else
            aside_job_run(executor.job, NULL);
        aside_cancel_unref(token);
    }
}

/* ---- the argument -------------------------------------------------------------------------------- */

static aside_status answer_text(aside_fetch *fetch, void *arg)
{
    char *text = (char *)arg;
    aside_status status = aside_fetch_copy(fetch, text, strlen(text));
    memset(text, '!', strlen(text)); /* the copy is the fetch's own */
    return status;
}

TEST(the_fetch_sees_a_copy_of_the_argument)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        char text[] = "as it was";
        struct asker asker;
        asker_init(&asker, group, "k", answer_text, text);
        asker.call.arg_size = sizeof text;
        asker.call.cancel = offloaded ? token : NULL;
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "as it was"));
        CHECK(strcmp(text, "as it was") == 0);
        asker_drop(&asker);
    }
    aside_cancel_unref(token);
    group_end(group);
}

struct counted_arg {
    struct source source; /* first: the fetch takes it for one */
    _Atomic int retained, released;
};

static void retain(void *arg)
{
    CHECK_INT(atomic_fetch_add(&((struct counted_arg *)arg)->retained, 1), 0);
}

static void release(void *arg)
{
    struct counted_arg *counted = (struct counted_arg *)arg;
    CHECK_INT(counted->retained, 1);
    CHECK_INT(counted->source.finished, counted->source.fetches); /* not under a running fetch */
    CHECK_INT(atomic_fetch_add(&counted->released, 1), 0);
}

TEST(an_argument_that_was_retained_is_released_once)
{
    static struct counted_arg counted[4]; /* led; led by a worker; joined; not begun */
    static struct asker askers[4];
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    for (int i = 0; i < 4; i++) {
        source_init(&counted[i].source, "v", i < 2);
        counted[i].retained = counted[i].released = 0;
        asker_ask(&askers[i], group, i == 1 ? "other" : "k", &counted[i].source,
                  i == 1 ? token : NULL);
        askers[i].call.arg = &counted[i];
        askers[i].call.arg_retain = retain;
        askers[i].call.arg_release = release;
    }
    askers[3].call.timeout_ms = ASIDE_NO_WAIT;
    asker_start(&askers[0]);
    asker_start(&askers[1]);
    gate_wait_arrived(&counted[0].source.gate, 1);
    gate_wait_arrived(&counted[1].source.gate, 1);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 1);
    asker_start(&askers[2]);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 2);
    CHECK_STATUS(asker_run(&askers[3]), ASIDE_MISS);
    CHECK_INT(counted[1].retained, 1);
    CHECK_INT(counted[1].released, 0);
    gate_open(&counted[0].source.gate);
    gate_open(&counted[1].source.gate);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(asker_join(&askers[i]), ASIDE_OK);
        asker_drop(&askers[i]);
    }
    for (int i = 0; i < 4; i++)
        WAIT_UNTIL(counted[i].released == counted[i].retained);
    CHECK_INT(counted[1].released, 1);
    CHECK_INT(counted[2].source.fetches, 0);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- pending fetches ----------------------------------------------------------------------------- */

static void *complete_with_text(void *arg)
{
    aside_fetch *fetch = (aside_fetch *)arg;
    size_t size = 0;
    CHECK(memcmp(aside_fetch_key(fetch, &size), "k", 1) == 0);
    CHECK_INT(size, 1);
    CHECK_STATUS(aside_fetch_copy(fetch, "later", 5), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_copy(fetch, "too late", 8), ASIDE_E_INVALID);
    aside_fetch_unref(fetch);
    return NULL;
}

TEST(another_thread_completes_a_pending_fetch_once)
{
    aside_group *group = group_open(NULL);
    aside_cancel *token = token_new();
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        struct pending pending;
        struct asker leader, joiner;
        aside_fetch *fetch = start_pending(&leader, group, &pending, offloaded ? token : NULL);
        asker_init(&joiner, group, "k", never_fetch, NULL);
        asker_start(&joiner);
        WAIT_UNTIL(GSTAT(group, waiters_now) == 2);
        thread_join(thread_start(complete_with_text, fetch));
        CHECK_STATUS(asker_join(&leader), ASIDE_OK);
        CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
        CHECK(value_is(leader.result.value, "later"));
        CHECK(leader.result.value == joiner.result.value);
        CHECK_INT(joiner.result.shared, 1);
        asker_drop(&leader);
        asker_drop(&joiner);
    }
    aside_cancel_unref(token);
    group_end(group);
}

TEST(a_pending_fetch_may_be_forgotten_or_dropped)
{
    aside_group *group = group_open(NULL);
    struct pending pending;
    struct asker asker;
    aside_fetch *fetch = start_pending(&asker, group, &pending, NULL);
    CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, aside_fetch_not_found(fetch)), ASIDE_OK);
    aside_fetch_unref(fetch);
    CHECK_STATUS(asker_join(&asker), ASIDE_NOT_FOUND);
    CHECK_INT(asker.result.fenced, 1);
    fetch = start_pending(&asker, group, &pending, NULL);
    aside_fetch_unref(fetch);
    CHECK_STATUS(asker_join(&asker), ASIDE_E_ABANDONED);
    CHECK_INT(GSTAT(group, fetch_abandoned), 1);
    check_idle(group);
    group_end(group);
}

/* ---- nesting and rings --------------------------------------------------------------------------- */

struct nest {
    aside_group *group;
    aside_cancel *token;
    struct source inner;
    bool own;
};

static aside_status ask_inside(aside_fetch *fetch, void *arg)
{
    struct nest *nest = (struct nest *)arg;
    struct asker inner;
    asker_ask(&inner, nest->group, nest->own ? "outer" : "inner", &nest->inner, nest->token);
    if (nest->own) {
        CHECK_STATUS(asker_run(&inner), ASIDE_E_DEADLOCK);
        CHECK_INT(inner.result.outcome, ASIDE_OUTCOME_NONE);
        inner.call.timeout_ms = ASIDE_NO_WAIT;
        CHECK_STATUS(asker_run(&inner), ASIDE_MISS);
        return aside_fetch_copy(fetch, "outer", 5);
    }
    CHECK_STATUS(asker_run(&inner), ASIDE_OK);
    CHECK_INT(inner.result.outcome, ASIDE_OUTCOME_FETCHED);
    return aside_fetch_give(fetch, inner.result.value);
}

/* way: 1 the outer call has a token, 2 the inner one has. One worker serves both. */
static void check_nested(bool own, int way)
{
    aside_options options = no_options();
    aside_cancel *token = token_new();
    struct nest nest;
    struct asker asker;
    options.fetch_threads = 1;
    nest.group = group_open(&options);
    nest.token = way & 2 ? token : NULL;
    nest.own = own;
    source_init(&nest.inner, "inner", false);
    asker_init(&asker, nest.group, "outer", ask_inside, &nest);
    asker.call.cancel = way & 1 ? token : NULL;
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    CHECK(value_is(asker.result.value, own ? "outer" : "inner"));
    CHECK_INT(nest.inner.fetches, !own);
    asker_drop(&asker);
    check_idle(nest.group);
    aside_cancel_unref(token);
    group_end(nest.group);
}

TEST(a_fetch_may_ask_for_another_key)
{
    for (int way = 0; way < 4; way++)
        check_nested(false, way);
}

TEST(a_fetch_that_asks_for_its_own_key_is_told_so_at_once)
{
    for (int way = 0; way < 4; way++)
        check_nested(true, way);
}

struct ring {
    aside_group *groups[2];
    aside_cache *cache; /* in the second one's place, where it is set */
    aside_status inner;
};

static aside_status back_to_the_first(aside_fetch *fetch, void *arg)
{
    struct ring *ring = (struct ring *)arg;
    struct asker asker;
    asker_init(&asker, ring->groups[0], "a", never_fetch, NULL);
    ring->inner = asker_run(&asker);
    return aside_fetch_copy(fetch, "b", 1);
}

static aside_status on_to_the_second(aside_fetch *fetch, void *arg)
{
    struct ring *ring = (struct ring *)arg;
    if (ring->cache != NULL) {
        struct caller caller;
        caller_init(&caller, ring->cache, "b", back_to_the_first, ring);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        return aside_fetch_give(fetch, caller.result.value);
    }
    struct asker asker;
    asker_init(&asker, ring->groups[1], "b", back_to_the_first, ring);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    return aside_fetch_give(fetch, asker.result.value);
}

TEST(a_ring_of_two_groups_or_of_a_group_and_a_cache_is_told)
{
    for (int with_cache = 0; with_cache <= 1; with_cache++) {
        struct ring ring;
        struct asker asker;
        memset(&ring, 0, sizeof ring);
        ring.groups[0] = group_open(NULL);
        ring.groups[1] = group_open(NULL);
        ring.cache = with_cache ? open_quiet() : NULL;
        asker_init(&asker, ring.groups[0], "a", on_to_the_second, &ring);
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "b"));
        CHECK_STATUS(ring.inner, ASIDE_E_DEADLOCK);
        asker_drop(&asker);
        if (with_cache)
            end_cache(ring.cache);
        group_end(ring.groups[0]);
        group_end(ring.groups[1]);
    }
}

/* The same key in two groups is two keys. */
static aside_status ask_same_key_elsewhere(aside_fetch *fetch, void *arg)
{
    struct nest *nest = (struct nest *)arg;
    struct asker asker;
    asker_ask(&asker, nest->group, "k", &nest->inner, NULL);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    return aside_fetch_give(fetch, asker.result.value);
}

TEST(the_same_key_of_another_group_is_no_ring)
{
    aside_group *outer = group_open(NULL);
    struct nest nest;
    struct asker asker;
    memset(&nest, 0, sizeof nest);
    nest.group = group_open(NULL);
    source_init(&nest.inner, "inner", false);
    asker_init(&asker, outer, "k", ask_same_key_elsewhere, &nest);
    CHECK_STATUS(asker_run(&asker), ASIDE_OK);
    asker_drop(&asker);
    group_end(outer);
    group_end(nest.group);
}

struct crossing {
    aside_group *other;
    const char *key; /* of the other */
    struct gate gate;
    aside_cancel *token;
    aside_status inner; /* what the nested call said */
    aside_fetch_fn *fetch;
};

static aside_status cross(aside_fetch *fetch, void *arg)
{
    struct crossing *crossing = (struct crossing *)arg;
    struct asker inner;
    size_t size = 0;
    gate_pass(&crossing->gate);
    asker_init(&inner, crossing->other, crossing->key, never_fetch, NULL);
    inner.call.cancel = crossing->token;
    crossing->inner = asker_run(&inner);
    asker_drop(&inner);
    const void *key = aside_fetch_key(fetch, &size);
    return aside_fetch_copy(fetch, key, size);
}

/* A of one waits for B of the other, and that for A, on two threads: the second to wait is told. */
static void check_crossing(aside_cancel *token, bool one_group)
{
    aside_group *groups[2];
    struct crossing crossings[2];
    struct asker askers[2];
    groups[0] = group_open(NULL);
    groups[1] = one_group ? aside_group_ref(groups[0]) : group_open(NULL);
    memset(crossings, 0, sizeof crossings);
    for (int i = 0; i < 2; i++) {
        gate_init(&crossings[i].gate);
        crossings[i].other = groups[!i];
        crossings[i].key = i ? "a" : "b";
        crossings[i].token = token;
        asker_init(&askers[i], groups[i], i ? "b" : "a", cross, &crossings[i]);
        askers[i].call.cancel = token;
        asker_start(&askers[i]);
        gate_wait_arrived(&crossings[i].gate, 1);
    }
    gate_open(&crossings[0].gate);
    gate_open(&crossings[1].gate);
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(asker_join(&askers[i]), ASIDE_OK);
        CHECK(value_is(askers[i].result.value, i ? "b" : "a"));
        asker_drop(&askers[i]);
    }
    int told = (crossings[0].inner == ASIDE_E_DEADLOCK) + (crossings[1].inner == ASIDE_E_DEADLOCK);
    int served = (crossings[0].inner == ASIDE_OK) + (crossings[1].inner == ASIDE_OK);
    CHECK_INT(told, 1);
    CHECK_INT(served, 1);
    aside_group_unref(groups[1]);
    group_end(groups[0]);
}

TEST(a_ring_of_two_groups_over_two_threads_is_told)
{
    for (long round = 0; round < test_rounds(50); round++) {
        aside_cancel *token = round % 2 ? token_new() : NULL;
        perturb(test_random() | 1);
        check_crossing(token, round % 4 < 2);
        perturb(0);
        aside_cancel_unref(token);
    }
}

/* ---- closing ------------------------------------------------------------------------------------- */

TEST(a_closed_group_answers_closed_and_may_be_closed_again)
{
    aside_group *group = group_open(NULL);
    struct source source;
    struct asker asker;
    aside_stats stats;
    source_init(&source, "v", false);
    CHECK_STATUS(ask_group(group, "k", &source, NULL), ASIDE_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(aside_group_close(group), ASIDE_OK);
        asker_ask(&asker, group, "k", &source, NULL);
        CHECK_STATUS(asker_run(&asker), ASIDE_E_CLOSED);
        CHECK_INT(asker.result.outcome, ASIDE_OUTCOME_NONE);
        CHECK_STATUS(forget(group, "k"), ASIDE_E_CLOSED);
        CHECK_STATUS(aside_group_clock_changed(group), ASIDE_OK);
    }
    stats = group_stats(group); /* it answers too */
    CHECK_INT(stats.fetches, 1);
    CHECK_INT(source.fetches, 1);
    aside_group_unref(group);
}

TEST(close_wakes_every_waiter_and_the_leader_gets_what_his_fetch_brings)
{
    enum { WAITERS = 8 };
    aside_options options = no_options();
    options.close_wait_ms = 0;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader, waiters[WAITERS];
    source_init(&source, "v", true);
    lead_group(&leader, group, "k", &source);
    for (unsigned i = 0; i < WAITERS; i++)
        join_group(&waiters[i], group, "k", &source, i % 2 ? token : NULL, i + 1);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    for (unsigned i = 0; i < WAITERS; i++)
        CHECK_STATUS(asker_join(&waiters[i]), ASIDE_E_CLOSED);
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "v"));
    asker_drop(&leader);
    aside_cancel_unref(token);
    aside_group_unref(group);
}

TEST(close_wakes_those_who_were_forgotten_too)
{
    aside_options options = no_options();
    options.close_wait_ms = 0;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader, joiner;
    source_init(&source, "v", true);
    lead_group_by_worker(&leader, group, "k", &source, token);
    join_group(&joiner, group, "k", &source, NULL, 2);
    CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_CLOSED);
    CHECK_STATUS(asker_join(&joiner), ASIDE_E_CLOSED);
    gate_open(&source.gate);
    aside_cancel_unref(token);
    aside_group_unref(group);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
}

struct closer {
    aside_group *group;
    struct source *source;
    int finished; /* fetches that had finished when the close returned */
    _Atomic bool done;
};

static void *close_and_look(void *arg)
{
    struct closer *closer = (struct closer *)arg;
    CHECK_STATUS(aside_group_close(closer->group), ASIDE_OK);
    closer->finished = closer->source->finished;
    atomic_store(&closer->done, true);
    return NULL;
}

/* All closers, not just the first, return after the fetch has. */
static void check_close_waits(bool offloaded)
{
    aside_options options = no_options();
    options.close_wait_ms = ASIDE_FOREVER;
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct asker leader;
    struct closer closers[4];
    pthread_t threads[4];
    source_init(&source, "v", true);
    asker_ask(&leader, group, "k", &source, offloaded ? token : NULL);
    asker_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    memset(closers, 0, sizeof closers);
    for (int i = 0; i < 4; i++) {
        closers[i].group = group;
        closers[i].source = &source;
        threads[i] = thread_start(close_and_look, &closers[i]);
    }
    WAIT_UNTIL(forget(group, "k") == ASIDE_E_CLOSED);
    if (offloaded)
        CHECK_STATUS(asker_join(&leader), ASIDE_E_CLOSED);
    for (int i = 0; i < 4; i++)
        CHECK(!closers[i].done);
    gate_open(&source.gate);
    for (int i = 0; i < 4; i++) {
        thread_join(threads[i]);
        CHECK_INT(closers[i].finished, 1);
    }
    if (!offloaded)
        CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    asker_drop(&leader);
    aside_cancel_unref(token);
    aside_group_unref(group);
}

TEST(close_waits_for_running_fetches_and_so_do_the_other_closers)
{
    check_close_waits(false);
    check_close_waits(true);
}

TEST(close_waits_no_longer_than_close_wait_ms_and_the_fetch_keeps_what_it_needs)
{
    struct fake_clock clock;
    struct ledger ledger;
    aside_options options = no_options();
    options.clock = fake_clock_init(&clock);
    options.alloc = ledger_init(&ledger);
    options.max_flight_age_ms = 0;
    options.close_wait_ms = 3600000; /* by the injected clock: nobody waits an hour here */
    aside_group *group = group_open(&options);
    struct source source;
    struct asker leader;
    struct closer closer;
    source_init(&source, "v", true);
    lead_group(&leader, group, "k", &source);
    memset(&closer, 0, sizeof closer);
    closer.group = group;
    closer.source = &source;
    pthread_t thread = thread_start(close_and_look, &closer);
    WAIT_UNTIL(forget(group, "k") == ASIDE_E_CLOSED);
    WAIT_UNTIL((group_advance_ms(&clock, 600000, group), atomic_load(&closer.done)));
    thread_join(thread);
    CHECK_INT(closer.finished, 0);
    aside_group_unref(group); /* the last reference goes while the fetch runs on */
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK(value_is(leader.result.value, "v"));
    asker_drop(&leader);
    CHECK_INT(ledger.live_blocks, 0);
}

static aside_status stop_when_closed(aside_fetch *fetch, void *arg)
{
    struct source *source = (struct source *)arg;
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    gate_pass(&source->gate);
    WAIT_UNTIL(aside_fetch_stopping(fetch));
    atomic_fetch_add(&source->finished, 1);
    return ASIDE_E_CANCELLED;
}

TEST(a_running_fetch_is_asked_to_stop_when_the_group_is_closed)
{
    aside_options options = no_options();
    options.close_wait_ms = ASIDE_FOREVER;
    aside_group *group = group_open(&options);
    struct source source;
    struct asker leader;
    source_init(&source, NULL, true);
    gate_open(&source.gate);
    asker_init(&leader, group, "k", stop_when_closed, &source);
    asker_start(&leader);
    gate_wait_arrived(&source.gate, 1);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    CHECK_INT(source.finished, 1);
    CHECK_STATUS(asker_join(&leader), ASIDE_E_CANCELLED);
    aside_group_unref(group);
}

static aside_status close_inside(aside_fetch *fetch, void *group)
{
    CHECK_STATUS(aside_group_close((aside_group *)group), ASIDE_OK);
    CHECK_STATUS(aside_group_close((aside_group *)group), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_close_its_group)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        aside_options options = no_options();
        options.close_wait_ms = ASIDE_FOREVER; /* it does not wait for itself */
        aside_group *group = group_open(&options);
        aside_cancel *token = token_new();
        struct asker asker;
        asker_init(&asker, group, "k", close_inside, group);
        asker.call.cancel = offloaded ? token : NULL;
        CHECK_STATUS(asker_run(&asker), offloaded ? ASIDE_E_CLOSED : ASIDE_OK);
        if (!offloaded)
            CHECK(value_is(asker.result.value, "v"));
        asker_drop(&asker);
        group_end(group);
        aside_cancel_unref(token);
        WAIT_UNTIL(process_threads_named("aside-") == 0);
    }
}

static aside_status give_last_reference(aside_fetch *fetch, void *group)
{
    aside_group_unref((aside_group *)group);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_give_the_last_reference_back)
{
    for (int offloaded = 0; offloaded <= 1; offloaded++) {
        struct ledger ledger;
        aside_options options = no_options();
        options.alloc = ledger_init(&ledger);
        aside_group *group = group_open(&options);
        aside_cancel *token = token_new();
        struct asker asker;
        asker_init(&asker, group, "k", give_last_reference, group);
        asker.call.cancel = offloaded ? token : NULL;
        if (offloaded) /* its caller has a reference of his own, as everybody who calls */
            CHECK(aside_group_ref(group) == group);
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "v"));
        asker_drop(&asker);
        if (offloaded)
            aside_group_unref(group);
        WAIT_UNTIL(ledger.live_blocks == 0);
        aside_cancel_unref(token);
        WAIT_UNTIL(process_threads_named("aside-") == 0);
    }
}

/* What a fetch gives the last reference of, and what memory that has. */
struct parting {
    aside_group *group;
    aside_cache *cache;
    struct ledger ledger;
};

static aside_status part_from_another(aside_fetch *fetch, void *arg)
{
    struct parting *parting = (struct parting *)arg;
    aside_group_unref(parting->group);
    aside_unref(parting->cache);
    CHECK(parting->ledger.live_blocks > 0); /* this thread's call may need it */
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_give_the_last_reference_of_another_back_which_goes_with_the_call)
{
    aside_group *group = group_open(NULL);
    for (int i = 0; i < 3; i++) {
        struct parting parting;
        struct asker asker;
        aside_options options = quiet_options();
        memset(&parting, 0, sizeof parting);
        options.alloc = ledger_init(&parting.ledger);
        parting.group = i != 1 ? group_open(&options) : NULL;
        parting.cache = i != 0 ? open_cache(&options) : NULL;
        asker_init(&asker, group, "k", part_from_another, &parting);
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK_INT(parting.ledger.live_blocks, 0);
        CHECK(value_is(asker.result.value, "v"));
        asker_drop(&asker);
    }
    check_idle(group);
    group_end(group);
}

TEST(the_last_reference_closes)
{
    aside_options options = no_options();
    struct ledger ledger;
    options.alloc = ledger_init(&ledger);
    aside_group *group = group_open(&options);
    aside_cancel *token = token_new();
    struct source source;
    source_init(&source, "v", false);
    CHECK(aside_group_ref(group) == group);
    CHECK_STATUS(ask_group(group, "k", &source, token), ASIDE_OK); /* a worker lives */
    aside_group_unref(group);
    CHECK_STATUS(ask_group(group, "k", &source, NULL), ASIDE_OK);
    aside_group_unref(group);
    WAIT_UNTIL(ledger.live_blocks == 0);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
    aside_cancel_unref(token);
}

TEST(a_thousand_groups_leave_no_thread_no_descriptor_and_no_byte_behind)
{
    static aside_group *many[300];
    struct ledger ledger;
    aside_options options = no_options();
    int descriptors = process_descriptors();
    aside_cancel *token = token_new();
    struct source source;
    options.alloc = ledger_init(&ledger);
    source_init(&source, "v", false);
    for (int i = 0; i < 1000; i++) {
        aside_group *group = group_open(&options);
        CHECK_STATUS(ask_group(group, "k", &source, i % 4 ? NULL : token), ASIDE_OK);
        if (i % 2 == 0)
            CHECK_STATUS(aside_group_close(group), ASIDE_OK);
        aside_group_unref(group);
    }
    for (size_t i = 0; i < COUNT_OF(many); i++) { /* and many at once */
        many[i] = group_open(&options);
        CHECK_STATUS(ask_group(many[i], "k", &source, NULL), ASIDE_OK);
    }
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        CHECK_INT(GSTAT(many[i], fetches), 1);
        aside_group_unref(many[i]);
    }
    aside_cancel_unref(token);
    WAIT_UNTIL(ledger.live_blocks == 0);
    CHECK_INT(ledger.live_bytes, 0);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
    CHECK_INT(process_descriptors(), descriptors);
}

/* ---- statistics ---------------------------------------------------------------------------------- */

static uint64_t lookups_of(aside_group *group)
{
    aside_stats stats = group_stats(group);
    return stats.misses_led + stats.misses_joined + stats.refused + stats.misses;
}

/* What is about entries stays 0; "pinned" may say what handles keep. */
static void check_no_entries(aside_group *group)
{
    aside_stats stats = group_stats(group);
    CHECK_INT(stats.hits, 0);
    CHECK_INT(stats.sets, 0);
    CHECK_INT(stats.deletes, 0);
    CHECK_INT(stats.expires, 0);
    CHECK_INT(stats.touches, 0);
    CHECK_INT(stats.clears, 0);
    CHECK_INT(stats.evicted, 0);
    CHECK_INT(stats.expired, 0);
    CHECK_INT(stats.store_refused, 0);
    CHECK_INT(stats.fetch_stored, 0);
    CHECK_INT(stats.entries, 0);
    CHECK_INT(stats.bytes, 0);
    CHECK_INT(stats.limbo_bytes, 0);
#define CHECK_NO_CALLS(verb) CHECK_INT(stats.verb##_ok + stats.verb##_none + stats.verb##_error, 0)
    CHECK_NO_CALLS(get);
    CHECK_NO_CALLS(copy);
    CHECK_NO_CALLS(visit);
    CHECK_NO_CALLS(set);
    CHECK_NO_CALLS(add);
    CHECK_NO_CALLS(delete);
    CHECK_NO_CALLS(expire);
    CHECK_NO_CALLS(touch);
    CHECK_NO_CALLS(clear);
#undef CHECK_NO_CALLS
}

TEST(a_new_group_has_counted_nothing)
{
    aside_group *group = group_open(NULL);
    aside_stats stats = group_stats(group);
#define CHECK_ZERO(name, text) CHECK_INT(stats.name, 0);
    ASIDE_COUNTER_MAP(CHECK_ZERO)
    ASIDE_GAUGE_MAP(CHECK_ZERO)
#undef CHECK_ZERO
    check_no_entries(group);
    CHECK_INT(stats.get_with_fetch_ok + stats.get_with_fetch_none + stats.get_with_fetch_error, 0);
    group_end(group);
}

TEST(each_end_of_a_call_is_counted)
{
    struct fake_clock clock;
    aside_group *group = group_clocked(&clock);
    aside_cancel *token = token_new();
    struct source source, failing, good;
    struct asker leader, joiner, leaver, late, asker;
    struct answer none;
    source_init(&source, "v", true);
    source_init(&failing, NULL, false);
    source_init(&good, "good", false);
    failing.status = (aside_status)-77;
    gate_init(&none.gate);
    gate_open(&none.gate);
    none.code = 0;
    lead_group(&leader, group, "k", &source);
    CHECK_INT(GSTAT(group, flights_now), 1);
    join_group(&joiner, group, "k", &source, NULL, 1);
    join_group(&leaver, group, "k", &source, token, 2);
    asker_ask(&late, group, "k", &source, NULL);
    late.call.timeout_ms = 10;
    asker_start(&late);
    WAIT_UNTIL(GSTAT(group, waiters_now) == 3);
    aside_cancel_fire(token);
    CHECK_STATUS(asker_join(&leaver), ASIDE_E_CANCELLED);
    group_advance_ms(&clock, 10, group);
    CHECK_STATUS(asker_join(&late), ASIDE_E_TIMEOUT);
    CHECK_STATUS(forget(group, "k"), ASIDE_OK);
    gate_open(&source.gate);
    CHECK_STATUS(asker_join(&leader), ASIDE_OK);
    CHECK_STATUS(asker_join(&joiner), ASIDE_OK);
    asker_drop(&leader);
    asker_drop(&joiner);
    CHECK_STATUS(ask_group(group, "k", &failing, NULL), (aside_status)-77);
    none.status = ASIDE_NOT_FOUND;
    asker_init(&asker, group, "k", give_answer, &none);
    CHECK_STATUS(asker_run(&asker), ASIDE_NOT_FOUND);
    none.status = ASIDE_PENDING;
    CHECK_STATUS(asker_run(&asker), ASIDE_E_ABANDONED);
    asker.call.timeout_ms = ASIDE_NO_WAIT;
    CHECK_STATUS(asker_run(&asker), ASIDE_MISS);
    CHECK_STATUS(ask_group(group, "k", &good, token), ASIDE_E_CANCELLED); /* refused */
    CHECK_STATUS(ask_group(group, "k", &good, NULL), ASIDE_OK);
    aside_stats stats = group_stats(group);
    CHECK_INT(stats.misses_led, 5);
    CHECK_INT(stats.misses_joined, 3);
    CHECK_INT(stats.misses, 1);
    CHECK_INT(stats.refused, 1);
    CHECK_INT(lookups_of(group), 10);
    CHECK_INT(stats.shared, 2);
    CHECK_INT(stats.cancelled, 1);
    CHECK_INT(stats.timeouts, 1);
    CHECK_INT(stats.fetches, 5);
    CHECK_INT(stats.fetch_errors, 1);
    CHECK_INT(stats.fetch_not_found, 1);
    CHECK_INT(stats.fetch_abandoned, 1);
    CHECK_INT(stats.fetch_fenced, 1);
    CHECK_INT(stats.flights_now, 0);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.get_with_fetch_ok, 3);
    CHECK_INT(stats.get_with_fetch_none, 2);  /* NOT_FOUND, MISS */
    CHECK_INT(stats.get_with_fetch_error, 5); /* two left, -77, ABANDONED, CANCELLED at once */
    check_no_entries(group);
    aside_cancel_unref(token);
    group_end(group);
}

/* ---- many threads -------------------------------------------------------------------------------- */

struct mix {
    aside_group *group;
    aside_cancel *token, *fired;
    bool forgets;
    _Atomic int running[4]; /* fetches of each key */
    _Atomic uint64_t led, joined, refused, missed, ok, none, error, fetches;
    _Atomic uint64_t made, freed;
};

struct block {
    struct mix *mix;
    int key;
    _Atomic int freed;
};

static void free_block(void *ptr, void *ctx)
{
    struct block *block = (struct block *)ptr;
    CHECK_INT(atomic_fetch_add(&block->freed, 1), 0);
    atomic_fetch_add(&((struct mix *)ctx)->freed, 1);
    free(block);
}

static aside_status mixed_fetch(aside_fetch *fetch, void *arg)
{
    struct mix *mix = (struct mix *)arg;
    size_t size = 0;
    int key = *(const char *)aside_fetch_key(fetch, &size) - '0';
    aside_value *value = NULL;
    int before = atomic_fetch_add(&mix->running[key], 1);
    CHECK(mix->forgets || before == 0); /* F1 */
    atomic_fetch_add(&mix->fetches, 1);
    if (test_random() % 4 == 0)
        test_yield();
    struct block *block = (struct block *)calloc(1, sizeof *block);
    block->mix = mix;
    block->key = key;
    CHECK_STATUS(aside_value_wrap(block, sizeof *block, free_block, mix, &value), ASIDE_OK);
    atomic_fetch_add(&mix->made, 1);
    CHECK_STATUS(aside_fetch_give(fetch, value), ASIDE_OK);
    aside_status status = ASIDE_OK;
    if (test_random() % 8 == 0) /* the value goes unseen */
        status = aside_fetch_fail(fetch, 1);
    atomic_fetch_sub(&mix->running[key], 1);
    return status;
}

static void mixed_call(struct mix *mix, const char *key)
{
    struct asker asker;
    asker_init(&asker, mix->group, key, mixed_fetch, mix);
    switch (test_random() % 6) {
    case 0: asker.call.timeout_ms = ASIDE_NO_WAIT; break;
    case 1: asker.call.cancel = mix->token; break;
    case 2: asker.call.cancel = mix->fired; break;
    case 3: asker.call.timeout_ms = 60000; break;
    default: break;
    }
    aside_status status = asker_run(&asker);
    if (status == ASIDE_OK) {
        const struct block *block = (const struct block *)aside_value_data(asker.result.value);
        CHECK_INT(block->key, key[0] - '0');
        CHECK_INT(block->freed, 0);
    }
    asker_drop(&asker);
    atomic_fetch_add(status == ASIDE_OK ? &mix->ok : status > 0 ? &mix->none : &mix->error, 1);
    switch (asker.result.outcome) {
    case ASIDE_OUTCOME_FETCHED: atomic_fetch_add(&mix->led, 1); break;
    case ASIDE_OUTCOME_JOINED: atomic_fetch_add(&mix->joined, 1); break;
    default: atomic_fetch_add(status == ASIDE_MISS ? &mix->missed : &mix->refused, 1);
    }
}

static void *mixed_work(void *arg)
{
    struct mix *mix = (struct mix *)arg;
    for (long i = test_rounds(800); i > 0; i--) {
        char key[2] = {(char)('0' + test_random() % 4), 0};
        mixed_call(mix, key);
        if (mix->forgets && i % 4 == 0) {
            aside_status status = forget(mix->group, key);
            CHECK(status == ASIDE_OK || status == ASIDE_MISS);
        }
    }
    return NULL;
}

/* hooks: with an allocator of its own. */
static void check_mix(bool forgets, bool hooks)
{
    enum { THREADS = 8 };
    struct ledger ledger;
    struct mix mix;
    aside_options options = no_options();
    pthread_t threads[THREADS];
    aside_alloc alloc = ledger_init(&ledger);
    memset(&mix, 0, sizeof mix);
    if (hooks)
        options.alloc = alloc;
    mix.group = group_open(&options);
    mix.token = token_new();
    mix.fired = token_new();
    mix.forgets = forgets;
    aside_cancel_fire(mix.fired);
    perturb(test_random() | 1);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(mixed_work, &mix);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    perturb(0);
    WAIT_UNTIL(GSTAT(mix.group, flights_now) == 0);
    aside_stats stats = group_stats(mix.group);
    CHECK_INT(stats.misses_led, mix.led);
    CHECK_INT(stats.misses_joined, mix.joined);
    CHECK_INT(stats.refused, mix.refused);
    CHECK_INT(stats.misses, mix.missed);
    CHECK_INT(stats.fetches, mix.fetches);
    CHECK_INT(stats.misses_led, stats.fetches);
    CHECK_INT(stats.get_with_fetch_ok, mix.ok);
    CHECK_INT(stats.get_with_fetch_none, mix.none);
    CHECK_INT(stats.get_with_fetch_error, mix.error);
    CHECK_INT(stats.waiters_now, 0);
    check_no_entries(mix.group);
    group_end(mix.group);
    WAIT_UNTIL(ledger.live_blocks == 0 && mix.freed == mix.made);
    CHECK_INT(mix.made, mix.fetches);
    aside_cancel_unref(mix.token);
    aside_cancel_unref(mix.fired);
}

TEST(eight_threads_on_four_keys_never_run_two_fetches_of_one_key)
{
    check_mix(false, false);
    check_mix(false, true);
}

TEST(eight_threads_that_forget_now_and_then_lose_nothing)
{
    check_mix(true, false);
    check_mix(true, true);
}

struct pounding {
    aside_group *group;
    struct source source;
    aside_cancel *token;
    struct gate gate;
};

/* asker_run() looks whether a value has come with success. */
static void *pound(void *arg)
{
    struct pounding *pounding = (struct pounding *)arg;
    gate_pass(&pounding->gate);
    for (long i = test_rounds(20000); i > 0; i--) {
        struct asker asker;
        asker_ask(&asker, pounding->group, "k", &pounding->source, i % 4 ? NULL : pounding->token);
        CHECK_STATUS(asker_run(&asker), ASIDE_OK);
        CHECK(value_is(asker.result.value, "v"));
        CHECK(asker.result.shared || asker.result.outcome == ASIDE_OUTCOME_FETCHED);
        asker_drop(&asker);
    }
    return NULL;
}

TEST(success_always_comes_with_the_value)
{
    enum { THREADS = 4 };
    struct pounding pounding;
    pthread_t threads[THREADS];
    pounding.group = group_open(NULL);
    pounding.token = token_new();
    source_init(&pounding.source, "v", false);
    gate_init(&pounding.gate);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(pound, &pounding);
    gate_wait_arrived(&pounding.gate, THREADS);
    gate_open(&pounding.gate);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    CHECK_INT(GSTAT(pounding.group, misses_led) + GSTAT(pounding.group, misses_joined),
              THREADS * test_rounds(20000));
    aside_cancel_unref(pounding.token);
    group_end(pounding.group);
}

static void *open_use_and_close(void *arg)
{
    struct source source;
    (void)arg;
    for (long i = test_rounds(200); i > 0; i--) {
        aside_group *group = group_open(NULL);
        source_init(&source, "v", false);
        CHECK_STATUS(ask_group(group, "k", &source, NULL), ASIDE_OK);
        CHECK_INT(GSTAT(group, fetches), 1);
        aside_group_unref(group);
    }
    return NULL;
}

TEST(groups_come_and_go_on_many_threads)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = thread_start(open_use_and_close, NULL);
    for (int i = 0; i < 4; i++)
        thread_join(threads[i]);
}

struct closing {
    aside_group *group;
    struct source source;
    struct gate gate;
};

static void *ask_until_closed(void *arg)
{
    struct closing *closing = (struct closing *)arg;
    aside_status status;
    gate_pass(&closing->gate);
    do {
        char key[2] = {(char)('0' + test_random() % 3), 0};
        struct asker asker;
        asker_ask(&asker, closing->group, key, &closing->source, NULL);
        asker.call.timeout_ms = test_random() % 2 ? 60000 : 0;
        status = asker_run(&asker);
        CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
        asker_drop(&asker);
    } while (status != ASIDE_E_CLOSED);
    return NULL;
}

TEST(a_group_may_be_closed_under_load)
{
    for (long round = 0; round < test_rounds(50); round++) {
        struct ledger ledger;
        struct closing closing;
        aside_options options = no_options();
        pthread_t threads[4];
        aside_alloc alloc = ledger_init(&ledger);
        if (round % 2)
            options.alloc = alloc;
        options.close_wait_ms = ASIDE_FOREVER;
        closing.group = group_open(&options);
        source_init(&closing.source, "v", false);
        gate_init(&closing.gate);
        perturb(test_random() | 1);
        for (int i = 0; i < 4; i++)
            threads[i] = thread_start(ask_until_closed, &closing);
        gate_wait_arrived(&closing.gate, 4);
        gate_open(&closing.gate);
        WAIT_UNTIL(atomic_load(&closing.source.fetches) > (int)(test_random() % 50));
        CHECK_STATUS(aside_group_close(closing.group), ASIDE_OK);
        for (int i = 0; i < 4; i++)
            thread_join(threads[i]);
        perturb(0);
        CHECK_INT(closing.source.fetches, closing.source.finished);
        aside_group_unref(closing.group);
        WAIT_UNTIL(ledger.live_blocks == 0);
    }
}

/* ---- memory and threads that fail (P5) ----------------------------------------------------------- */

/* Of a group with an allocator of its own; beside that one; with the C library's alone; threads. The
 * plain ones have no clock of their own either. */
enum what { GROUP_ALLOCS, OTHER_ALLOCS, ALL_ALLOCS, THREADS, PLAIN_ALLOCS, PLAIN_THREADS };

static struct ledger short_ledger;
static struct fake_clock short_clock;
static struct tally short_tally;

static void fail(enum what what, int64_t nth, bool for_ever)
{
    if (what == GROUP_ALLOCS) {
        atomic_store(&short_ledger.fail_for_ever, for_ever);
        atomic_store(&short_ledger.fail_at, nth);
    } else if (what == THREADS || what == PLAIN_THREADS) {
        process_fail_thread(nth, for_ever);
    } else {
        process_fail_alloc(nth, for_ever);
    }
}

static int64_t calls_so_far(enum what what)
{
    if (what == GROUP_ALLOCS)
        return atomic_load(&short_ledger.calls);
    if (what == THREADS || what == PLAIN_THREADS)
        return process_thread_calls();
    return process_alloc_calls();
}

/* A call, and that a value comes with success and with nothing else. */
static aside_status call_key(aside_group *group, const char *key, aside_fetch_fn *fetch, void *arg,
                             aside_cancel *token)
{
    struct asker asker;
    asker_init(&asker, group, key, fetch, arg);
    asker.call.cancel = token;
    aside_status status = asker_run(&asker);
    asker_drop(&asker);
    return status;
}

static void check_fetched(aside_status status)
{
    if (status != ASIDE_OK && status != ASIDE_E_NOMEM && status != ASIDE_E_BUSY)
        CHECK_STATUS(status, ASIDE_OK);
}

static aside_status copy_answer(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "fetched", 7);
}

static aside_status give_tallied(aside_fetch *fetch, void *arg)
{
    aside_value *value = NULL;
    (void)arg;
    aside_status status =
        aside_value_wrap(&short_tally.slot[short_tally.made], 9, tally_free, &short_tally, &value);
    if (status != ASIDE_OK)
        return status;
    short_tally.made++;
    return aside_fetch_give(fetch, value);
}

static aside_status buffer_answer(aside_fetch *fetch, void *arg)
{
    void *to = NULL;
    (void)arg;
    aside_status status = aside_fetch_buffer(fetch, 7, &to);
    if (status == ASIDE_OK)
        memcpy(to, "fetched", 7);
    return status;
}

struct joined {
    aside_group *group;
    _Atomic bool fetching, leader_done, joiner_done;
};

/* Ends once somebody has joined, or the joiner has been refused. */
static aside_status answer_when_joined(aside_fetch *fetch, void *arg)
{
    struct joined *joined = (struct joined *)arg;
    atomic_store(&joined->fetching, true);
    WAIT_UNTIL(GSTAT(joined->group, waiters_now) > 0 || atomic_load(&joined->joiner_done));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void *lead_main(void *arg)
{
    struct joined *joined = (struct joined *)arg;
    check_fetched(call_key(joined->group, "joined", answer_when_joined, joined, NULL));
    atomic_store(&joined->leader_done, true);
    return NULL;
}

static void lead_and_join(aside_group *group)
{
    struct joined joined;
    memset(&joined, 0, sizeof joined);
    joined.group = group;
    pthread_t leader = thread_start(lead_main, &joined);
    WAIT_UNTIL(atomic_load(&joined.fetching) || atomic_load(&joined.leader_done));
    check_fetched(call_key(group, "joined", copy_answer, NULL, NULL));
    atomic_store(&joined.joiner_done, true);
    thread_join(leader);
}

static void *call_superseding(void *group)
{
    check_fetched(call_key((aside_group *)group, "old", copy_answer, NULL, NULL));
    return NULL;
}

static aside_status answer_too_late(aside_fetch *fetch, void *group)
{
    group_advance_ms(&short_clock, 40000, (aside_group *)group);
    thread_join(thread_start(call_superseding, group));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static aside_status forget_and_nest(aside_fetch *fetch, void *group)
{
    CHECK_STATUS(forget((aside_group *)group, "forgotten"), ASIDE_OK); /* it never fails */
    check_fetched(call_key((aside_group *)group, "inner", copy_answer, NULL, NULL));
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void use_in_every_way(aside_group *group, bool plain)
{
    aside_cancel *token = NULL;
    aside_status status = aside_cancel_new(&token);
    CHECK(status == ASIDE_OK || status == ASIDE_E_NOMEM);
    check_fetched(call_key(group, "led", copy_answer, NULL, NULL));
    check_fetched(call_key(group, "buffer", buffer_answer, NULL, NULL));
    check_fetched(call_key(group, "wrapped", give_tallied, NULL, NULL));
    lead_and_join(group);
    check_fetched(call_key(group, "worker", copy_answer, NULL, token));
    check_fetched(call_key(group, "worker2", give_tallied, NULL, token));
    check_fetched(call_key(group, "forgotten", forget_and_nest, group, NULL));
    if (!plain)
        check_fetched(call_key(group, "old", answer_too_late, group, NULL));
    aside_cancel_fire(token);
    status = call_key(group, "cancelled", copy_answer, NULL, token);
    CHECK(status == ASIDE_E_CANCELLED || (token == NULL && status == ASIDE_OK) ||
          status == ASIDE_E_NOMEM);
    aside_cancel_unref(token);
}

/* One run with the n-th call failing; returns how many calls there were. */
static int64_t run_scenario(enum what what, int64_t nth, bool for_ever)
{
    aside_options options = no_options();
    aside_group *group = NULL;
    bool plain = what >= PLAIN_ALLOCS;
    if (!plain)
        options.clock = fake_clock_init(&short_clock);
    memset(&short_ledger, 0, sizeof short_ledger);
    if (what != ALL_ALLOCS && !plain)
        options.alloc = ledger_init(&short_ledger);
    memset(&short_tally, 0, sizeof short_tally);
    fail(what, nth, for_ever);
    aside_status opened = aside_group_new(&group, &options);
    CHECK(opened == ASIDE_OK || opened == ASIDE_E_NOMEM);
    CHECK((opened == ASIDE_OK) == (group != NULL));
    int64_t calls = calls_so_far(what);
    if (opened == ASIDE_OK) {
        use_in_every_way(group, plain);
        calls = calls_so_far(what);
        if (!for_ever || nth % 2 == 1) { /* else it is closed while the shortage lasts */
            fail(what, 0, false);
            check_idle(group);
        }
        group_end(group);
    }
    WAIT_UNTIL(short_ledger.live_blocks == 0); /* a worker may still be on its way out */
    CHECK_INT(short_ledger.live_bytes, 0);
    WAIT_UNTIL(short_tally.freed == short_tally.made);
    fail(what, 0, false);
    return calls;
}

/* Every point, once and from then on, until one lies beyond the last call. */
static void check_every_point(enum what what)
{
    run_scenario(what, 0, false);
    for (int for_ever = 0; for_ever <= 1; for_ever++) {
        int64_t nth = 1;
        while (run_scenario(what, nth, for_ever) >= nth)
            nth++;
        printf("%s: %d points\n", for_ever ? "from then on" : "once", (int)nth - 1);
        CHECK(nth >= 2);
    }
    CHECK(run_scenario(what, 0, false) > 0); /* and all is well again */
}

TEST(every_allocation_of_a_group_may_fail)
{
    check_every_point(GROUP_ALLOCS);
}

TEST(every_allocation_beside_a_groups_own_may_fail)
{
    check_every_point(OTHER_ALLOCS);
}

TEST(every_allocation_with_the_c_librarys_allocator_may_fail)
{
    check_every_point(ALL_ALLOCS);
}

TEST(every_allocation_of_a_group_without_hooks_may_fail)
{
    check_every_point(PLAIN_ALLOCS);
}

TEST(every_thread_creation_may_fail)
{
    check_every_point(THREADS);
    check_every_point(PLAIN_THREADS);
}

TEST(a_group_that_can_have_no_seed_is_refused)
{
    aside_group *group = NULL;
    process_fail_random(1, true);
    CHECK_STATUS(aside_group_new(&group, NULL), ASIDE_E_SYSTEM);
    CHECK(group == NULL);
    process_fail_random(0, false);
    CHECK_STATUS(aside_group_new(&group, NULL), ASIDE_OK);
    group_end(group);
}

/* ---- a handle of the fetch that outlives the call ------------------------------------------------ */

static aside_status keep_handle(aside_fetch *fetch, void *arg)
{
    *(aside_fetch **)arg = aside_fetch_ref(fetch);
    return aside_fetch_copy(fetch, "kept", 4);
}

/* The keys that a handle and the fetch of a later call are told. */
static void check_key(const aside_fetch *fetch, const char *expected)
{
    size_t size = 0;
    const void *key = aside_fetch_key(fetch, &size);
    CHECK(size == strlen(expected) && memcmp(key, expected, size) == 0);
}

static aside_status look_at_both(aside_fetch *fetch, void *kept)
{
    check_key(fetch, "second");
    check_key(kept, "first");
    CHECK_STATUS(aside_fetch_copy(kept, "late", 4), ASIDE_E_INVALID);
    return aside_fetch_copy(fetch, "2", 1);
}

TEST(a_handle_that_is_kept_speaks_of_its_own_flight_which_is_decided)
{
    aside_group *group = group_open(NULL);
    for (int round = 0; round < 3; round++) {
        aside_fetch *kept = NULL;
        aside_call first = {ASIDE_CALL, .fetch = keep_handle, .arg = &kept};
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_group_do(group, "first", 5, &first, &result), ASIDE_OK);
        CHECK_INT(result.shared + result.fenced, 0);
        aside_value_unref(result.value);
        aside_call second = {ASIDE_CALL, .fetch = look_at_both, .arg = kept};
        CHECK_STATUS(aside_group_do(group, "second", 6, &second, &result), ASIDE_OK);
        aside_value_unref(result.value);
        CHECK_STATUS(aside_fetch_complete(kept, ASIDE_OK), ASIDE_E_INVALID);
        CHECK_INT(GSTAT(group, flights_now), 0);
        aside_fetch_unref(kept);
    }
    CHECK_INT(GSTAT(group, fetches), 6);
    group_end(group);
}
