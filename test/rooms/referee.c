/*
 * referee.c -- store/referee: it samples the share of keys that its miniatures are of the cache, finds
 * out which rule pays, changes it when that is clear and not sooner, hears no more hits than misses
 * have paid for, and never waits.
 */
#include "children.h"
#include "rooms.h"
#include "sanitizers.h"

#include "cache/cache.h"

SEARCH_NO_DEADLOCKS;

static struct ground ground;
static struct referee referee;

static void begin(size_t max_bytes, size_t max_entries)
{
    ground_init(&ground, max_bytes, max_entries);
    memset((void *)&referee, 0, sizeof referee);
    CHECK(referee_init(&referee, &ground.mem, &ground.budget));
}

static void end(void)
{
    referee_fini(&referee);
    ground_fini(&ground);
}

static uint64_t hash(uint64_t key)
{
    return ground_hash(&ground, &key, sizeof key);
}

static enum policy_rule rule(void)
{
    return (enum policy_rule)load_relaxed(&referee.rule);
}

/* ---- the sample ---------------------------------------------------------------------------------- */

static double share(void)
{
    return (double)referee.share / 4294967296.0;
}

static void check_share(double expected)
{
    enum { KEYS = 40000 };
    size_t sampled = 0;
    for (uint64_t key = 0; key < KEYS; key++)
        sampled += referee_samples(&referee, hash(key));
    double off = (double)sampled - expected * KEYS;
    CHECK(share() <= expected && share() > expected * 0.999);
    CHECK(off * off <= 8 * 8 * expected * KEYS); /* eight standard deviations */
}

TEST(the_sample_is_to_all_keys_as_a_miniature_is_to_the_cache)
{
    static const struct {
        size_t max_bytes, max_entries, size, full;
    } cases[] = {{0, 1, 1, 1},
                 {0, 2, 2, 2},
                 {0, 31, 31, 31},
                 {0, 32, 32, 32},
                 {0, 33, 32, 33},
                 {0, 512, 32, 512},
                 {0, 1024, 64, 1024},
                 {0, 4096, 256, 4096},
                 {0, 100000, 256, 100000},
                 {1, 0, 1, 1}, /* of entries nobody knows yet, 256 bytes each */
                 {1 << 20, 0, 256, 4096},
                 {1 << 20, 1000, 62, 1000},
                 {1 << 16, 1000, 32, 256}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        begin(cases[i].max_bytes, cases[i].max_entries);
        CHECK_INT(referee.size, cases[i].size);
        check_share((double)cases[i].size / (double)cases[i].full);
        end();
    }
}

/* Of keys that no two have the print of: else now and then one is taken for another. */
static void hear_misses(size_t count)
{
    static uint64_t newest;
    for (size_t i = 0; i < count; i++)
        referee_hear_miss(&referee, (++newest * 0x9e3779b1 & 0x7ffffff) << 2);
}

/* Requests between two comparisons. */
static size_t window(void)
{
    return 4 * referee.size;
}

TEST(the_sample_follows_what_the_cache_turns_out_to_hold)
{
    static const size_t each[] = {64, 1000, 4096, 65536};
    for (size_t i = 0; i < COUNT_OF(each); i++) {
        begin(1 << 20, 0);
        CHECK(budget_reserve(&ground.budget, 10 * each[i], 10));
        check_share(256.0 / 4096);
        hear_misses(window());
        double full = (double)(((size_t)1 << 20) / (each[i] + 1));
        check_share(full > 256 ? 256 / full : 1);
        budget_refund(&ground.budget, 10 * each[i], 10);
        end();
    }
}

TEST(a_referee_without_memory_is_none)
{
    ground_init(&ground, 0, 1000);
    ground.ledger.fail_at = 1;
    CHECK(!referee_init(&referee, &ground.mem, &ground.budget));
    ground_fini(&ground);
}

TEST(a_small_cache_has_a_small_referee)
{
    int64_t before = 0;
    static const size_t bounds[] = {1, 100, 1024, 4096, 1000000};
    for (size_t i = 0; i < COUNT_OF(bounds); i++) {
        begin(0, bounds[i]);
        CHECK(ground.ledger.live_bytes >= before);
        CHECK(ground.ledger.live_bytes < (bounds[i] <= 512 ? 16 << 10 : 100 << 10));
        before = ground.ledger.live_bytes;
        end();
    }
}

/* ---- judging ------------------------------------------------------------------------------------- */

/* What was seen of its judgements: each request is one of a key that misses, so that all are heard. */
static struct {
    unsigned changes, later;
} seen;

static void check_change(enum policy_rule before, bool judged, unsigned leads, unsigned leader)
{
    CHECK(judged || leads == 0); /* the first clear lead is enough */
    if (rule() == before)
        return;
    CHECK(!judged || (leads == 1 && leader == rule()));
    seen.changes++;
    seen.later += judged;
}

static void request(uint64_t key)
{
    enum policy_rule before = rule();
    bool judged = referee.judged;
    unsigned leads = referee.leads, leader = referee.leader;
    uint64_t its_hash = hash(key);
    if (!referee_samples(&referee, its_hash))
        return;
    referee_hear_miss(&referee, its_hash);
    check_change(before, judged, leads, leader);
}

/* Round and round over one and a half of what the cache holds. */
static void request_in_a_loop(size_t capacity, size_t requests)
{
    static size_t at;
    while (requests--)
        request(at++ % (capacity * 3 / 2));
}

/* Each key three times, one eighth of the cache apart, and never again. */
static void request_once_and_soon_again(size_t capacity, size_t requests)
{
    static uint64_t newest = UINT64_C(1) << 40;
    for (size_t i = 0; i < requests / 3; i++, newest++) {
        request(newest);
        request(newest - capacity / 8);
        request(newest - capacity / 4);
    }
}

enum { CAPACITY = 2048, ENOUGH = 60 * CAPACITY };

TEST(on_a_loop_contest_is_chosen_whatever_the_rule_was)
{
    for (int first = 0; first < POLICY_RULES; first++) {
        begin(0, CAPACITY);
        store_relaxed(&referee.rule, (uint8_t)first);
        request_in_a_loop(CAPACITY, ENOUGH);
        CHECK_INT(rule(), POLICY_CONTEST_1);
        end();
    }
}

TEST(where_only_what_is_new_is_wanted_second_look_is_chosen_whatever_the_rule_was)
{
    for (int first = 0; first < POLICY_RULES; first++) {
        begin(0, CAPACITY);
        store_relaxed(&referee.rule, (uint8_t)first);
        request_once_and_soon_again(CAPACITY, ENOUGH);
        CHECK_INT(rule(), POLICY_SECOND_LOOK_40);
        end();
    }
}

TEST(where_nothing_is_ever_asked_for_twice_the_rule_stays)
{
    for (int first = 0; first < POLICY_RULES; first++) {
        begin(0, CAPACITY);
        store_relaxed(&referee.rule, (uint8_t)first);
        hear_misses(ENOUGH);
        CHECK_INT(rule(), first);
        CHECK(!referee.judged);
        end();
    }
}

TEST(the_rule_changes_at_once_for_the_first_time_and_later_only_after_two_leads_in_a_row)
{
    begin(0, CAPACITY);
    for (int turn = 0; turn < 6; turn++) {
        request_once_and_soon_again(CAPACITY, ENOUGH);
        CHECK_INT(rule(), POLICY_SECOND_LOOK_40);
        request_in_a_loop(CAPACITY, ENOUGH);
        CHECK_INT(rule(), POLICY_CONTEST_1);
    }
    CHECK(seen.changes >= 12);
    CHECK_INT(seen.changes - seen.later, 1);
    end();
}

TEST(caches_of_any_size_are_judged)
{
    static const size_t bounds[] = {1, 2, 3, 31, 32, 33, 100, 5000};
    for (size_t i = 0; i < COUNT_OF(bounds); i++) {
        begin(0, bounds[i]);
        for (int r = 0; r < 20000; r++)
            request(random_below(3 * bounds[i]));
        CHECK(rule() < POLICY_RULES);
        end();
    }
    begin(1, 0);
    for (int r = 0; r < 20000; r++)
        request(random_below(3));
    end();
}

/* ---- listening ----------------------------------------------------------------------------------- */

/* Is it heard? What is heard counts towards the next comparison. */
static bool hears_hit(uint64_t its_hash, uint64_t *last)
{
    size_t before = referee.heard;
    referee_hear_hit(&referee, its_hash, last);
    return referee.heard != before;
}

static bool hears_miss(void)
{
    size_t before = referee.heard;
    referee_hear_miss(&referee, test_random());
    return referee.heard != before;
}

TEST(a_hit_on_the_same_key_as_the_last_is_not_heard)
{
    uint64_t last = 0, one = 12345, other = 54321;
    begin(0, CAPACITY);
    CHECK(hears_hit(one, &last));
    for (int i = 0; i < 10; i++)
        CHECK(!hears_hit(one, &last));
    CHECK(hears_hit(other, &last));
    CHECK(hears_hit(one, &last));
    uint64_t last_of_another = 0;
    CHECK(hears_hit(one, &last_of_another));
    end();
}

/* Until it stops: how many hits it has heard. */
static size_t hits_heard(void)
{
    uint64_t last = 0;
    size_t count = 0;
    while (hears_hit(test_random(), &last))
        count++;
    for (int i = 0; i < 100; i++)
        CHECK(!hears_hit(test_random(), &last));
    return count;
}

/* Until it listens again: how many misses that takes, none of which is heard. */
static size_t misses_not_heard(void)
{
    size_t count = 0;
    while (!load_relaxed(&referee.listens)) {
        CHECK(!hears_miss());
        count++;
    }
    return count;
}

TEST(hits_are_heard_as_long_as_the_credit_lasts_that_misses_have_earned)
{
    begin(0, CAPACITY);
    size_t size = referee.size;
    CHECK_INT(hits_heard(), 16 * size);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(misses_not_heard(), 4 * size);
        CHECK(hears_miss());
        CHECK_INT(hits_heard(), 8 * size + 2);
    }
    end();
}

TEST(credit_is_not_saved_up_without_end)
{
    begin(0, CAPACITY);
    hear_misses(100000);
    size_t heard = hits_heard();
    CHECK(heard >= 16 * referee.size && heard <= 16 * referee.size + 2);
    end();
}

/* Of a hundred requests one misses: two hits are heard for it in the long run. */
TEST(where_few_miss_few_hits_are_heard)
{
    uint64_t last = 0;
    size_t heard = 0, misses = 0;
    begin(0, CAPACITY);
    for (int i = 0; i < 400000; i++) {
        if (i % 100 == 0) {
            (void)hears_miss();
            misses++;
        } else {
            heard += hears_hit(test_random(), &last);
        }
    }
    CHECK(heard > misses && heard <= 2 * misses + 16 * referee.size);
    end();
}

/* ---- never waiting ------------------------------------------------------------------------------- */

static _Atomic bool returned;

static void *offer_main(void *arg)
{
    uint64_t last = 0;
    referee_hear_hit(&referee, 12345, &last);
    CHECK_INT(last, 0); /* it may be offered again */
    referee_hear_miss(&referee, 12345);
    store_release(&returned, true);
    return arg;
}

TEST(who_finds_the_lock_taken_does_not_wait)
{
    begin(0, CAPACITY);
    lock_take(&referee.lock);
    pthread_t offerer = thread_start(offer_main, NULL);
    WAIT_UNTIL(load_acquire(&returned));
    thread_join(offerer);
    CHECK_INT(referee.heard, 0);
    CHECK_INT(referee.credit, 16 * referee.size);
    lock_release(&referee.lock);
    CHECK(hears_miss());
    end();
}

enum { THREADS = 4 };

static void *hear_much(void *arg)
{
    uint64_t last = 0;
    for (long i = test_rounds(5000); i > 0; i--) {
        uint64_t its_hash = hash(random_below(CAPACITY / 4));
        if (!referee_samples(&referee, its_hash)) /* as readers look, without the lock */
            its_hash++;
        if (random_below(4) == 0)
            referee_hear_miss(&referee, its_hash);
        else
            referee_hear_hit(&referee, its_hash, &last);
        CHECK(rule() < POLICY_RULES);
    }
    return arg;
}

TEST(four_threads_may_offer_at_once)
{
    pthread_t threads[THREADS];
    begin(0, CAPACITY);
    perturb(test_seed() | 1);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(hear_much, NULL);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    perturb(0);
    CHECK(referee.credit <= 16 * referee.size + 2);
    CHECK(referee.heard < window());
    request_in_a_loop(CAPACITY, ENOUGH); /* and it is as good as before */
    CHECK_INT(rule(), POLICY_CONTEST_1);
    end();
}

/* ---- in a cache ---------------------------------------------------------------------------------- */

static aside_cache *open_bounded(size_t max_entries)
{
    aside_options options = quiet_options();
    options.max_bytes = 0;
    options.max_entries = max_entries;
    return open_cache(&options);
}

/* A hit, or a miss after which it is there. */
static bool ask_cache(aside_cache *cache, uint64_t key)
{
    if (aside_copy(cache, &key, sizeof key, NULL, 0, NULL) == ASIDE_OK)
        return true;
    CHECK_STATUS(aside_set(cache, &key, sizeof key, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    return false;
}

static uint8_t rule_of(aside_cache *cache)
{
    return load_relaxed(&cache->store.referee.rule);
}

TEST(a_cache_comes_to_the_rule_that_pays_and_to_the_other_when_that_does)
{
    size_t hits = 0;
    aside_cache *cache = open_bounded(CAPACITY);
    for (uint64_t i = 0; i < ENOUGH; i++)
        (void)ask_cache(cache, i / 3 * 3 == i ? 1000000 + i / 3 : 1000000 + i / 3 - i % 3 * 256);
    CHECK(rule_of(cache) != POLICY_CONTEST_1);
    for (uint64_t i = 0; i < ENOUGH; i++)
        (void)ask_cache(cache, i % (CAPACITY * 3 / 2));
    CHECK_INT(rule_of(cache), POLICY_CONTEST_1);
    for (uint64_t i = 0; i < CAPACITY * 6; i++)
        hits += ask_cache(cache, i % (CAPACITY * 3 / 2));
    CHECK(hits > CAPACITY * 6 / 2);
    end_cache(cache);
}

static void hit_by_get(aside_cache *cache, uint64_t key)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_get(cache, &key, sizeof key, &value), ASIDE_OK);
    aside_value_unref(value);
}

static void hit_by_copy(aside_cache *cache, uint64_t key)
{
    CHECK(ask_cache(cache, key));
}

static void look_away(const void *data, size_t size, void *ctx)
{
    (void)data;
    (void)size;
    (void)ctx;
}

static void hit_by_visit(aside_cache *cache, uint64_t key)
{
    CHECK_STATUS(aside_visit(cache, &key, sizeof key, look_away, NULL), ASIDE_OK);
}

static aside_status fetch_nothing(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_not_found(fetch);
}

static void hit_by_fetch(aside_cache *cache, uint64_t key)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_nothing};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, &key, sizeof key, &call, &result), ASIDE_OK);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
    aside_value_unref(result.value);
}

TEST(a_hit_by_whatever_verb_is_heard_unless_it_is_the_same_again)
{
    static void (*const ways[])(aside_cache * cache, uint64_t key) = {hit_by_get, hit_by_copy,
                                                                      hit_by_visit, hit_by_fetch};
    aside_cache *cache = open_bounded(CAPACITY);
    struct referee *its = &cache->store.referee;
    store_relaxed(&its->share, UINT32_MAX);
    for (uint64_t key = 0; key < 2; key++)
        (void)ask_cache(cache, key);
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        for (uint64_t key = 0; key < 2; key++) {
            size_t before = its->heard;
            ways[i](cache, key);
            CHECK_INT(its->heard, before + 1);
            ways[i](cache, key);
            CHECK_INT(its->heard, before + 1);
        }
    }
    end_cache(cache);
}

struct second_look {
    struct acting_clock clock;
    aside_cache *cache;
    size_t heard;
};

static void *set_between_the_looks(void *arg)
{
    struct second_look *between = arg;
    put(between->cache, "k", "v", ASIDE_FOREVER);
    between->heard = between->cache->store.referee.heard;
    return NULL;
}

/* At its second reading of the clock a call whose token has fired looks again. */
TEST(a_hit_by_the_second_look_of_a_call_is_heard)
{
    struct second_look between;
    struct caller caller;
    aside_options options = quiet_options();
    options.max_entries = CAPACITY;
    options.clock = acting_clock_init(&between.clock, set_between_the_looks, &between);
    aside_cache *cache = between.cache = open_cache(&options);
    aside_cancel *token = token_new();
    aside_cancel_fire(token);
    store_relaxed(&cache->store.referee.share, UINT32_MAX);
    caller_init(&caller, cache, "k", fetch_nothing, NULL);
    caller.call.cancel = token;
    acting_clock_arm(&between.clock, 2);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK_INT(cache->store.referee.heard, between.heard + 1);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_cache_in_which_all_hit_soon_stops_listening)
{
    aside_cache *cache = open_bounded(CAPACITY);
    for (int turn = 0; turn < 100; turn++)
        for (uint64_t i = 0; i < CAPACITY; i++)
            (void)ask_cache(cache, i);
    CHECK_INT(STAT(cache, misses), CAPACITY);
    CHECK(!load_relaxed(&cache->store.referee.listens));
    size_t heard = cache->store.referee.heard;
    for (uint64_t i = 0; i < CAPACITY; i++)
        CHECK(ask_cache(cache, i));
    CHECK_INT(cache->store.referee.heard, heard);
    end_cache(cache);
}

TEST(a_cache_without_bounds_has_no_referee)
{
    aside_options options = quiet_options();
    options.max_bytes = 0;
    aside_cache *cache = open_cache(&options);
    CHECK(!cache->store.evicts);
    for (uint64_t i = 0; i < 1000; i++)
        (void)ask_cache(cache, i % 500);
    CHECK_INT(STAT(cache, hits), 500);
    CHECK(cache->store.referee.miniatures == NULL);
    end_cache(cache);
}

/* ---- a fork -------------------------------------------------------------------------------------- */

static _Atomic bool stop;

static void *ask_much(void *cache)
{
    while (!load_acquire(&stop))
        (void)ask_cache(cache, random_below(2 * CAPACITY));
    return cache;
}

/* Whoever was in the middle of an offer is not here. It takes no memory. */
static void hear_in_the_child(struct referee *its)
{
    size_t before = its->heard;
    bool listened = load_relaxed(&its->listens);
    CHECK(lock_try(&its->lock));
    lock_release(&its->lock);
    referee_hear_miss(its, 12345);
    CHECK(!listened || its->heard != before);
    CHECK(load_relaxed(&its->rule) < POLICY_RULES);
}

static bool is_in_use(struct referee *its)
{
    if (!lock_try(&its->lock))
        return true;
    lock_release(&its->lock);
    return false;
}

TEST_LIMIT(a_child_has_a_referee_that_hears, 120)
{
    pthread_t asker;
    aside_cache *cache = open_bounded(CAPACITY);
    store_relaxed(&cache->store.referee.share, UINT32_MAX);
    (void)ask_cache(cache, 0);
    perturb(test_seed() | 1);
    asker = thread_start(ask_much, cache);
    for (long round = test_rounds(60); round > 0; round--) {
        WAIT_UNTIL(is_in_use(&cache->store.referee));
        struct child child = child_fork();
        if (child.pid == 0) {
            perturb(0);
            hear_in_the_child(&cache->store.referee);
            child_done();
        }
        child_end(&child, CHILD_DONE);
        store_relaxed(&cache->store.referee.share, UINT32_MAX);
    }
    store_release(&stop, true);
    thread_join(asker);
    perturb(0);
    end_cache(cache);
}
