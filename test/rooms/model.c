/*
 * model.c -- random operations on the public interface against a naive model: one thread, a clock of
 * the test's own, a constant seed. --rounds 500 makes it ten million operations for each cache.
 *
 * The model knows each key's value and time, and which keys the index holds. What an eviction took it
 * learns from the index, and counts: exactly as many as the cache says.
 */
#include "rooms.h"

#include "cache/cache.h"

enum { KEYS = 400, MOST_BYTES = 3000 };

struct slot {
    bool there;       /* in the index, fresh or not */
    int64_t until_ns; /* fresh before that */
    int64_t born_ns;
    size_t size;
    unsigned char first; /* of the bytes: each is 7 more than the one before */
};

static struct slot model[KEYS];
static struct ledger ledger;
static struct fake_clock fake;
static struct tally_light {
    _Atomic long made, freed;
} wrapped;
static aside_cache *cache;
static size_t max_bytes, max_entries;
static aside_stats expected; /* the counters that the model knows */
static uint64_t evicted;
static aside_cancel *fired;

#define DEFAULT_TTL_MS 1000

/* ---- keys and values ----------------------------------------------------------------------------- */

static char key_bytes[KEYS][40];
static size_t key_lens[KEYS];

static void make_keys(void)
{
    for (int i = 0; i < KEYS; i++) {
        int written = snprintf(key_bytes[i], sizeof key_bytes[i], "%d", i);
        key_lens[i] = i == 0 ? 0 : (size_t)written + (size_t)i % 24; /* the rest are NUL bytes */
    }
}

#define KEY(i) key_lens[i] ? key_bytes[i] : NULL, key_lens[i]

static unsigned char scratch[MOST_BYTES];

static const unsigned char *value_bytes(const struct slot *slot)
{
    for (size_t i = 0; i < slot->size; i++)
        scratch[i] = (unsigned char)(slot->first + 7 * i);
    return scratch;
}

static void check_bytes(const struct slot *slot, const void *data, size_t size)
{
    CHECK_INT(size, slot->size);
    CHECK(size == 0 || memcmp(data, value_bytes(slot), size) == 0);
}

static int64_t now_ns(void)
{
    return fake.now_ns;
}

static bool fresh(const struct slot *slot)
{
    return slot->there && now_ns() < slot->until_ns;
}

/* ---- what the model does ------------------------------------------------------------------------- */

static int64_t random_ttl(void)
{
    switch (random_below(8)) {
    case 0: return 0;
    case 1: return ASIDE_FOREVER;
    case 2: return ASIDE_DEFAULT_TTL;
    case 3: return (int64_t)random_below(100000);
    default: return (int64_t)random_below(60) + 1;
    }
}

static int64_t until(int64_t ttl_ms)
{
    return clock_after_ms(now_ns(), ttl_ms == ASIDE_DEFAULT_TTL ? DEFAULT_TTL_MS : ttl_ms);
}

/* A value nobody has stored yet. */
static struct slot draw(void)
{
    size_t most = random_below(10) == 0 ? MOST_BYTES : 300;
    return (struct slot){.size = random_below(most), .first = (unsigned char)test_random()};
}

static void write_slot(int i, struct slot value, int64_t ttl_ms)
{
    value.there = true;
    value.until_ns = until(ttl_ms);
    value.born_ns = now_ns();
    model[i] = value;
}

static void drop_slot(int i)
{
    model[i].there = false;
}

/* A plain reader that meets an entry whose time is over removes it. */
static aside_status read_slot(int i)
{
    if (fresh(&model[i])) {
        expected.hits++;
        return ASIDE_OK;
    }
    expected.misses++;
    expected.expired += model[i].there;
    drop_slot(i);
    return ASIDE_MISS;
}

static aside_status delete_slot(int i)
{
    bool was_fresh = fresh(&model[i]);
    drop_slot(i);
    expected.deletes += was_fresh;
    return was_fresh ? ASIDE_OK : ASIDE_MISS;
}

/* ---- reading ------------------------------------------------------------------------------------- */

static void do_get(int i)
{
    aside_value *value = NULL;
    aside_status status = read_slot(i);
    CHECK_STATUS(aside_get(cache, KEY(i), &value), status);
    if (status == ASIDE_OK)
        check_bytes(&model[i], aside_value_data(value), aside_value_size(value));
    else
        CHECK(value == NULL);
    aside_value_unref(value);
}

static void do_copy(int i)
{
    static unsigned char buffer[MOST_BYTES + 8];
    size_t capacity = random_below(MOST_BYTES), size = SIZE_MAX;
    aside_status status = read_slot(i);
    if (status == ASIDE_OK && model[i].size > capacity)
        status = ASIDE_E_BUFFER;
    memset(buffer, 0xee, sizeof buffer);
    CHECK_STATUS(aside_copy(cache, KEY(i), buffer, capacity, &size), status);
    CHECK(size == (status == ASIDE_MISS ? 0 : model[i].size));
    if (status == ASIDE_OK)
        check_bytes(&model[i], buffer, size);
    CHECK_INT(buffer[status == ASIDE_OK ? size : 0], 0xee); /* no byte more than there are */
}

static void visit_one(const void *data, size_t size, void *ctx)
{
    const struct slot **seen = ctx;
    check_bytes(*seen, data, size);
    *seen = NULL;
}

static void do_visit(int i)
{
    aside_status status = read_slot(i);
    const struct slot *seen = &model[i];
    CHECK_STATUS(aside_visit(cache, KEY(i), visit_one, (void *)&seen), status);
    CHECK_INT(seen == NULL, status == ASIDE_OK);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void do_set(int i)
{
    struct slot value = draw();
    int64_t ttl_ms = random_ttl();
    CHECK_STATUS(aside_set(cache, KEY(i), value_bytes(&value), value.size, ttl_ms), ASIDE_OK);
    if (ttl_ms == 0) {
        (void)delete_slot(i);
        return;
    }
    write_slot(i, value, ttl_ms);
    expected.sets++;
}

static void free_wrapped(void *ptr, void *ctx)
{
    CHECK(ctx == &wrapped);
    free(ptr);
    wrapped.freed++;
}

/* The bytes as a value of either form, or as a handle of what the cache holds under another key. */
static aside_value *make_value(struct slot *value)
{
    aside_value *made = NULL;
    int other = (int)random_below(KEYS);
    if (random_below(3) == 0 && fresh(&model[other])) {
        CHECK_STATUS(aside_get(cache, KEY(other), &made), ASIDE_OK);
        expected.hits++;
        value->size = model[other].size;
        value->first = model[other].first;
    } else if (random_below(2)) {
        unsigned char *block = malloc(value->size + 1);
        CHECK(block != NULL);
        memcpy(block, value_bytes(value), value->size);
        CHECK_STATUS(aside_value_wrap(block, value->size, free_wrapped, &wrapped, &made), ASIDE_OK);
        wrapped.made++;
    } else {
        CHECK_STATUS(aside_value_copy(value_bytes(value), value->size, &made), ASIDE_OK);
    }
    return made;
}

static void do_set_value(int i)
{
    struct slot value = draw();
    int64_t ttl_ms = random_ttl();
    aside_value *handle = make_value(&value);
    CHECK_STATUS(aside_set_value(cache, KEY(i), handle, ttl_ms), ASIDE_OK);
    aside_value_unref(handle);
    if (ttl_ms == 0) {
        (void)delete_slot(i);
        return;
    }
    write_slot(i, value, ttl_ms);
    expected.sets++;
}

static void do_add(int i)
{
    struct slot value = draw();
    int64_t ttl_ms = random_ttl();
    ttl_ms = ttl_ms ? ttl_ms : 1; /* 0 is looked at below */
    aside_status status = fresh(&model[i]) ? ASIDE_EXISTS : ASIDE_OK;
    CHECK_STATUS(aside_add(cache, KEY(i), value_bytes(&value), value.size, ttl_ms), status);
    if (status == ASIDE_EXISTS)
        return;
    write_slot(i, value, ttl_ms);
    expected.sets++;
}

static void do_delete(int i)
{
    aside_status status = delete_slot(i);
    CHECK_STATUS(aside_delete(cache, KEY(i)), status);
}

static void do_expire(int i)
{
    bool was_fresh = fresh(&model[i]);
    CHECK_STATUS(aside_expire(cache, KEY(i)), was_fresh ? ASIDE_OK : ASIDE_MISS);
    if (was_fresh)
        model[i].until_ns = now_ns();
    expected.expires += was_fresh;
}

static void do_touch(int i)
{
    int64_t ttl_ms = random_ttl();
    aside_status status = fresh(&model[i]) ? ASIDE_OK : ASIDE_MISS;
    CHECK_STATUS(aside_touch(cache, KEY(i), ttl_ms), status);
    if (ttl_ms == 0) {
        (void)delete_slot(i);
    } else if (status == ASIDE_OK) {
        model[i].until_ns = until(ttl_ms);
        expected.touches++;
    }
}

/* ---- fetching ------------------------------------------------------------------------------------ */

enum answer {
    ANSWER_COPY,
    ANSWER_BUFFER,
    ANSWER_GIVE,
    ANSWER_COMPLETE,
    ANSWER_NOT_FOUND,
    ANSWER_FAIL,
    ANSWER_STATUS,
    ANSWER_NOTHING,
    ANSWER_EXIT_PENDING,
    ANSWER_FENCED,
    ANSWER_OVERWRITTEN,
    ANSWERS
};

/* One fetch, as it was drawn; what it did is in the last members. */
struct plan {
    int key;
    enum answer answer;
    struct slot value;
    int64_t took_ns, set_ttl_ms; /* -3: not set */
    bool nests;
    bool ran;
};

static aside_status answer_value(aside_fetch *fetch, struct plan *plan)
{
    void *to = NULL;
    switch (plan->answer) {
    case ANSWER_BUFFER:
        CHECK_STATUS(aside_fetch_buffer(fetch, plan->value.size, &to), ASIDE_OK);
        memcpy(to, value_bytes(&plan->value), plan->value.size);
        return ASIDE_OK;
    case ANSWER_GIVE: return aside_fetch_give(fetch, make_value(&plan->value));
    case ANSWER_COMPLETE:
        CHECK_STATUS(aside_fetch_copy(fetch, value_bytes(&plan->value), plan->value.size),
                     ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
        return ASIDE_PENDING;
    default: return aside_fetch_copy(fetch, value_bytes(&plan->value), plan->value.size);
    }
}

static aside_status fetch_planned(aside_fetch *fetch, void *arg);

static void ask_again(const struct plan *plan)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_planned};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, KEY(plan->key), &call, &result), ASIDE_E_DEADLOCK);
    expected.refused++;
}

static aside_status fetch_planned(aside_fetch *fetch, void *arg)
{
    struct plan *plan = arg;
    size_t key_len = SIZE_MAX;
    plan->ran = true;
    const void *key = aside_fetch_key(fetch, &key_len);
    CHECK(key_len == key_lens[plan->key] && memcmp(key, key_bytes[plan->key], key_len) == 0);
    fake_clock_advance_ns(&fake, plan->took_ns, NULL);
    if (plan->nests)
        ask_again(plan);
    if (plan->set_ttl_ms != -3)
        CHECK_STATUS(aside_fetch_set_ttl(fetch, plan->set_ttl_ms), ASIDE_OK);
    switch (plan->answer) {
    case ANSWER_NOT_FOUND: return aside_fetch_not_found(fetch);
    case ANSWER_FAIL: return aside_fetch_fail(fetch, 4711);
    case ANSWER_STATUS: return ASIDE_E_TIMEOUT;
    case ANSWER_NOTHING: return ASIDE_OK;
    case ANSWER_EXIT_PENDING: return ASIDE_PENDING; /* and nobody completes it */
    case ANSWER_FENCED: do_delete(plan->key); break;
    case ANSWER_OVERWRITTEN: do_set(plan->key); break;
    default: break;
    }
    return answer_value(fetch, plan);
}

static aside_status status_of(const struct plan *plan)
{
    switch (plan->answer) {
    case ANSWER_NOT_FOUND:
        drop_slot(plan->key); /* also what lingers past its time */
        expected.fetch_not_found++;
        return ASIDE_NOT_FOUND;
    case ANSWER_FAIL: expected.fetch_errors++; return ASIDE_E_FETCH;
    case ANSWER_STATUS: expected.fetch_errors++; return ASIDE_E_TIMEOUT;
    case ANSWER_NOTHING: expected.fetch_errors++; return ASIDE_E_INVALID;
    case ANSWER_EXIT_PENDING: expected.fetch_abandoned++; return ASIDE_E_ABANDONED;
    default: return ASIDE_OK;
    }
}

static int64_t left_ms(int64_t until_ns)
{
    return until_ns == CLOCK_NEVER ? ASIDE_FOREVER : (until_ns - now_ns()) / 1000000;
}

static void check_hit(int i, aside_status status, const aside_result *result)
{
    CHECK_STATUS(status, ASIDE_OK);
    CHECK_INT(result->outcome, ASIDE_OUTCOME_HIT);
    check_bytes(&model[i], aside_value_data(result->value), aside_value_size(result->value));
    CHECK_INT(result->age_ms, now_ns() / 1000000 - model[i].born_ns / 1000000);
    CHECK_INT(result->ttl_left_ms, left_ms(model[i].until_ns));
    CHECK(!result->shared && !result->fenced && result->fetch_error == 0);
    expected.hits++;
}

static void check_fetched(struct plan *plan, const aside_call *call, aside_status status,
                          const aside_result *result)
{
    bool fenced = plan->answer == ANSWER_FENCED || plan->answer == ANSWER_OVERWRITTEN;
    int64_t ttl_ms = plan->set_ttl_ms != -3 ? plan->set_ttl_ms : call->ttl_ms;
    expected.misses_led++;
    expected.fetches++;
    expected.fetch_fenced += fenced;
    CHECK(plan->ran);
    CHECK_STATUS(status, status_of(plan));
    CHECK_INT(result->outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(result->fenced, fenced);
    CHECK_INT(result->fetch_error, plan->answer == ANSWER_FAIL ? 4711 : 0);
    CHECK(!result->shared);
    if (status != ASIDE_OK)
        return;
    check_bytes(&plan->value, aside_value_data(result->value), aside_value_size(result->value));
    CHECK_INT(result->age_ms, 0);
    if (fenced || ttl_ms == ASIDE_NO_STORE) {
        CHECK_INT(result->ttl_left_ms, 0);
        return;
    }
    write_slot(plan->key, plan->value, ttl_ms ? ttl_ms : DEFAULT_TTL_MS);
    expected.fetch_stored++;
    CHECK_INT(result->ttl_left_ms, left_ms(model[plan->key].until_ns));
}

static int64_t random_call_ttl(void)
{
    int64_t ttl_ms = random_ttl();
    return ttl_ms == ASIDE_DEFAULT_TTL ? ASIDE_NO_STORE : ttl_ms;
}

static void do_fetch(int i)
{
    struct plan plan = {i, (enum answer)random_below(ANSWERS + 8), draw(), 0, -3, false, false};
    aside_call call = {ASIDE_CALL, .fetch = fetch_planned, .arg = &plan,
                       .ttl_ms = random_call_ttl()};
    aside_result result = ASIDE_RESULT_INIT;
    if (plan.answer >= ANSWERS)
        plan.answer = ANSWER_COPY;
    if (random_below(15) == 0)
        plan.took_ns = (int64_t)random_below(20000000);
    if (random_below(15) == 0)
        plan.set_ttl_ms = random_call_ttl();
    plan.nests = random_below(8) == 0;
    size_t kind = random_below(40);
    if (kind == 0)
        call.timeout_ms = ASIDE_NO_WAIT;
    else if (kind == 1)
        call.cancel = fired;
    else if (kind == 2)
        call.timeout_ms = ASIDE_FOREVER;
    bool hit = fresh(&model[i]);
    aside_status status = aside_get_with_fetch(cache, KEY(i), &call, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (hit) {
        check_hit(i, status, &result);
        CHECK(!plan.ran);
    } else if (kind < 2) {
        CHECK_STATUS(status, kind == 0 ? ASIDE_MISS : ASIDE_E_CANCELLED);
        CHECK(!plan.ran);
        expected.refused++;
    } else {
        check_fetched(&plan, &call, status, &result);
    }
    aside_value_unref(result.value);
}

/* ---- the whole cache ----------------------------------------------------------------------------- */

static void do_advance(void)
{
    static const int64_t spans[] = {1,        1000000,   1000000,
                                    20000000, 300000000, INT64_C(100000000000)};
    int64_t span = spans[random_below(COUNT_OF(spans))];
    fake_clock_advance_ns(&fake, span == 1 ? 1 : (int64_t)random_below((size_t)span), NULL);
}

static void do_clear(void)
{
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    for (int i = 0; i < KEYS; i++)
        drop_slot(i);
    expected.clears++;
    CHECK_INT(STAT(cache, limbo_bytes), 0);
}

static bool is_linked(int i)
{
    uint64_t hash = cache_hash(cache, key_bytes[i], key_lens[i]);
    struct shard *shard = store_shard(&cache->store, hash);
    lock_take(&shard->lock);
    bool linked = shard_find(shard, hash, key_bytes[i], key_lens[i]) != NULL;
    lock_release(&shard->lock);
    return linked;
}

static void do_reap(void)
{
    size_t budget = random_below(3) ? 0 : random_below(40) + 1, reaped = SIZE_MAX, over = 0,
           gone = 0;
    CHECK_STATUS(aside_reap(cache, budget, &reaped), ASIDE_OK);
    for (int i = 0; i < KEYS; i++) {
        if (!model[i].there || fresh(&model[i]))
            continue;
        over++;
        if (is_linked(i))
            continue;
        gone++;
        drop_slot(i);
    }
    CHECK_INT(reaped, gone);
    CHECK(budget ? reaped <= budget : reaped == over);
    expected.expired += reaped;
}

/* ---- comparing ----------------------------------------------------------------------------------- */

/* What the model has and the index has not was evicted; nothing else may differ. */
static void check_index(int operated, bool was_there)
{
    uint64_t now_evicted = STAT(cache, evicted), gone = 0;
    for (int i = 0; i < KEYS; i++) {
        bool linked = is_linked(i);
        CHECK(model[i].there || !linked);
        if (!model[i].there || linked)
            continue;
        gone++; /* even what was written just now: its table wanted to grow */
        drop_slot(i);
    }
    /* The old entry of the very key may have been evicted before the new one was stored. */
    CHECK(gone == now_evicted - evicted ||
          (operated >= 0 && was_there && gone + 1 == now_evicted - evicted));
    evicted = now_evicted;
}

static void check_count(void)
{
    size_t there = 0;
    for (int i = 0; i < KEYS; i++)
        there += model[i].there;
    CHECK_INT(aside_count(cache), there);
}

static void check_counters(void)
{
    aside_stats stats = test_stats(cache);
#define SAME(member) CHECK_INT(stats.member, expected.member)
    SAME(hits);
    SAME(misses);
    SAME(misses_led);
    SAME(misses_joined);
    SAME(refused);
    SAME(sets);
    SAME(deletes);
    SAME(expires);
    SAME(touches);
    SAME(clears);
    SAME(expired);
    SAME(store_refused);
    SAME(fetches);
    SAME(fetch_stored);
    SAME(fetch_not_found);
    SAME(fetch_errors);
    SAME(fetch_abandoned);
    SAME(fetch_fenced);
    SAME(superseded);
    SAME(shared);
    SAME(cancelled);
    SAME(timeouts);
#undef SAME
    CHECK_INT(stats.entries, aside_count(cache));
    CHECK(!max_bytes || stats.bytes <= max_bytes);
    CHECK(!max_entries || stats.entries <= max_entries);
    CHECK_INT(stats.waiters_now, 0);
    CHECK(store_check(&cache->store, stderr));
}

/* ---- a run --------------------------------------------------------------------------------------- */

static void operate(int i)
{
    static void (*const verbs[])(int) = {
        do_get,       do_get, do_copy,  do_visit, do_set,    do_set,    do_set,   do_fetch,
        do_set_value, do_add, do_fetch, do_fetch, do_delete, do_expire, do_touch, do_fetch};
    switch (random_below(100)) {
    case 0: do_reap(); break;
    case 1:
        if (random_below(15) == 0)
            do_clear();
        break;
    case 2:
    case 3:
    case 4:
    case 5:
    case 6: do_advance(); break;
    default: verbs[random_below(COUNT_OF(verbs))](i);
    }
}

static void begin(size_t bytes, size_t entries)
{
    static const uint8_t seed[16] = "constant seed..";
    aside_options options = quiet_options();
    max_bytes = options.max_bytes = bytes;
    max_entries = options.max_entries = entries;
    options.default_ttl_ms = DEFAULT_TTL_MS;
    options.hash_seed = seed;
    options.fetch_threads = 1;
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&fake);
    cache = open_cache(&options);
    fired = token_new();
    aside_cancel_fire(fired);
    make_keys();
}

static void end(void)
{
    end_cache(cache);
    aside_cancel_unref(fired);
    WAIT_UNTIL(ledger.live_blocks == 0);
    CHECK_INT(wrapped.freed, wrapped.made);
}

/* Every path was taken, or the rest proves little. */
static void check_all_happened(long rounds)
{
    if (rounds < 10000)
        return;
    CHECK(expected.hits > 0 && expected.misses > 0 && expected.misses_led > 0 &&
          expected.refused > 0);
    CHECK(expected.sets > 0 && expected.deletes > 0 && expected.expires > 0 &&
          expected.touches > 0);
    CHECK(expected.clears > 0 && expected.expired > 0 && expected.fetch_stored > 0);
    CHECK(expected.fetch_not_found > 0 && expected.fetch_errors > 0 && expected.fetch_fenced > 0);
    CHECK(expected.fetch_abandoned > 0 && wrapped.made > 0);
}

static void run_model(size_t bytes, size_t entries)
{
    begin(bytes, entries);
    long rounds = test_rounds(20000);
    for (long round = 1; round <= rounds; round++) {
        int i = (int)random_below(KEYS);
        bool was_there = model[i].there;
        operate(i);
        if (STAT(cache, evicted) != evicted || round % 256 == 0)
            check_index(i, was_there);
        check_count();
        if (round % 1000 == 0)
            check_counters();
    }
    check_index(-1, false);
    check_counters();
    check_all_happened(rounds);
    end();
}

TEST_LIMIT(without_bounds, 3600)
{
    run_model(0, 0);
}

TEST_LIMIT(one_shard_with_room_for_all, 3600)
{
    run_model(0, 1000);
    CHECK_INT(evicted, 0);
}

TEST_LIMIT(one_shard_with_too_few_bytes, 3600)
{
    run_model(48 << 10, 0); /* evicts hundreds of times, whatever the seed */
    CHECK(evicted > 0 || test_rounds(20000) < 10000);
}

TEST_LIMIT(one_shard_with_too_few_entries, 3600)
{
    run_model(0, 100);
    CHECK(evicted > 0 || test_rounds(20000) < 10000);
}

TEST_LIMIT(both_bounds_and_several_shards, 3600)
{
    run_model(1 << 20, 100);
}

/* ---- what is no lookup --------------------------------------------------------------------------- */

TEST(only_lookups_are_counted_as_lookups)
{
    begin(0, 0);
    put(cache, "key", "v", 1000);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("key"), "v", 1, 1000), ASIDE_EXISTS);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("key"), "v", 1, 0), ASIDE_EXISTS);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("other"), "v", 1, 0), ASIDE_OK);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("key"), 5), ASIDE_OK);
    CHECK_INT(STAT(cache, hits), 0);
    CHECK_INT(STAT(cache, misses), 0);
    end();
}
