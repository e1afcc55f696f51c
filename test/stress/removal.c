/*
 * removal.c -- whatever is done at once, what was stored is told once when it has left, whole, and
 * before its destructor; and whoever keeps what he is told keeps it whole.
 */
#include "stress.h"

#define KEYS 6
#define FEW 3
#define MOST 512 /* values of a round */
#define KEPT 8
#define MEMBERS 5

/* Values of a round are numbered; the number is the version in their stamp. */
struct leaving {
    struct fake_clock clock;
    aside_cache *cache;
    bool closes;
    _Atomic uint64_t made;
    _Atomic int stored[MOST], told[MOST], freed[MOST];
    _Atomic bool wrapped[MOST], unknown[MOST];
    _Atomic uint64_t causes[7];
    _Atomic(aside_value *) kept[KEPT];
    unsigned char bytes[MOST][STAMP_MOST]; /* of wrapped values */
};

static __thread int depth;

static void leaving_keep(struct leaving *leaving, aside_value *value)
{
    aside_value_ref(value);
    aside_value_unref(atomic_exchange(&leaving->kept[test_random() % KEPT], value));
}

static void leaving_hear(void *ctx, const void *key, size_t key_len, aside_value *value,
                         aside_cause cause)
{
    struct leaving *leaving = ctx;
    uint64_t of = 0;
    CHECK_INT(depth++, 0);
    CHECK_INT(key_len, sizeof of);
    memcpy(&of, key, sizeof of);
    uint64_t id = stamp_of_value(value, of);
    CHECK(id < atomic_load(&leaving->made));
    CHECK_INT(atomic_fetch_add(&leaving->told[id], 1), 0);
    CHECK(cause >= ASIDE_CAUSE_EXPIRED && cause <= ASIDE_CAUSE_CLOSED);
    atomic_fetch_add(&leaving->causes[cause], 1);
    if (test_random() % 4 == 0)
        leaving_keep(leaving, value);
    dawdle(2);
    if (test_random() % 4 == 0)
        (void)aside_delete(leaving->cache, &of, sizeof of); /* told later on this thread */
    CHECK_INT(stamp_of_value(value, of), id);
    CHECK_INT(atomic_load(&leaving->freed[id]), 0);
    depth--;
}

static void leaving_free(void *ptr, void *ctx)
{
    struct leaving *leaving = ctx;
    size_t id = (size_t)((unsigned char *)ptr - &leaving->bytes[0][0]) / STAMP_MOST;
    CHECK_INT(atomic_fetch_add(&leaving->freed[id], 1), 0);
    memset(leaving->bytes[id], 0, STAMP_MOST); /* who looks now sees it */
}

/* A new value of the key; the caller owns it. */
static aside_value *leaving_value(struct leaving *leaving, uint64_t key, bool wrapped, uint64_t *id)
{
    aside_value *value = NULL;
    *id = atomic_fetch_add(&leaving->made, 1);
    CHECK(*id < MOST);
    unsigned char *bytes = leaving->bytes[*id];
    size_t size = stamp_write(bytes, key, *id);
    atomic_store(&leaving->wrapped[*id], wrapped);
    CHECK_STATUS(wrapped ? aside_value_wrap(bytes, size, leaving_free, leaving, &value)
                         : aside_value_copy(bytes, size, &value),
                 ASIDE_OK);
    if (test_random() % 4 == 0)
        CHECK_STATUS(aside_value_set_cost(value, test_random() % 4096), ASIDE_OK);
    return value;
}

static int64_t leaving_ttl(void)
{
    return test_random() % 2 ? ASIDE_FOREVER : (int64_t)(1 + test_random() % 3);
}

static void leaving_set(struct leaving *leaving, uint64_t key)
{
    uint64_t id;
    bool add = test_random() % 2; /* which copies the bytes */
    aside_value *value = leaving_value(leaving, key, !add && test_random() % 4 != 0, &id);
    aside_status status;
    if (!add)
        status = aside_set_value(leaving->cache, &key, sizeof key, value, leaving_ttl());
    else
        status = aside_add(leaving->cache, &key, sizeof key, aside_value_data(value),
                           aside_value_size(value), leaving_ttl());
    CHECK(status == ASIDE_OK || status == ASIDE_EXISTS || status == ASIDE_E_BUSY ||
          status == ASIDE_E_CLOSED);
    if (status == ASIDE_OK)
        atomic_store(&leaving->stored[id], 1);
    aside_value_unref(value);
}

struct leaving_fetch {
    struct leaving *leaving;
    uint64_t id;
    bool ran;
};

static aside_status leaving_answer(aside_fetch *fetch, void *arg)
{
    struct leaving_fetch *its = arg;
    its->ran = true;
    aside_value *value = leaving_value(its->leaving, stamp_key(fetch), test_random() % 2, &its->id);
    dawdle(3);
    return aside_fetch_give(fetch, value);
}

/* What the cache made of an answer that it did not hand over only the listener knows. */
static void leaving_ask(struct leaving *leaving, uint64_t key)
{
    struct leaving_fetch its = {leaving, 0, false};
    aside_call call = {ASIDE_CALL, .fetch = leaving_answer, .arg = &its, .ttl_ms = ASIDE_FOREVER};
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status = aside_get_with_fetch(leaving->cache, &key, sizeof key, &call, &result);
    CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY || status == ASIDE_E_CLOSED);
    if (its.ran && status != ASIDE_OK)
        atomic_store(&leaving->unknown[its.id], true);
    if (its.ran && status == ASIDE_OK && result.ttl_left_ms != 0)
        atomic_store(&leaving->stored[its.id], 1);
    aside_value_unref(result.value);
}

static void leaving_look(const void *data, size_t size, void *ctx)
{
    uint64_t key = *(const uint64_t *)ctx, id = stamp_read(data, size, key);
    dawdle(3);
    CHECK_INT(stamp_read(data, size, key), id);
}

static void leaving_read(struct leaving *leaving, uint64_t key)
{
    aside_value *value = NULL;
    if (test_random() % 2) {
        (void)!aside_visit(leaving->cache, &key, sizeof key, leaving_look, &key);
        return;
    }
    if (aside_get(leaving->cache, &key, sizeof key, &value) == ASIDE_OK)
        leaving_look(aside_value_data(value), aside_value_size(value), &key);
    aside_value_unref(value);
}

static void leaving_upkeep(struct leaving *leaving, uint64_t key)
{
    switch (test_random() % 6) {
    case 0: (void)aside_delete(leaving->cache, &key, sizeof key); break;
    case 1: (void)aside_expire(leaving->cache, &key, sizeof key); break;
    case 2:
        (void)aside_touch(leaving->cache, &key, sizeof key, (int64_t)(test_random() % 3));
        break;
    case 3: (void)aside_reap(leaving->cache, test_random() % 3, NULL); break;
    case 4: fake_clock_advance_ms(&leaving->clock, 1, leaving->cache); break;
    default:
        if (test_random() % 4 == 0)
            (void)aside_clear(leaving->cache);
    }
}

static void leaving_work(void *scenario, int self)
{
    struct leaving *leaving = scenario;
    for (int i = 0; i < 12; i++) {
        uint64_t key = test_random() % KEYS;
        switch (test_random() % 5) {
        case 0: leaving_read(leaving, key); break;
        case 1: leaving_upkeep(leaving, key); break;
        case 2: leaving_ask(leaving, key); break;
        default: leaving_set(leaving, key); break;
        }
        if (leaving->closes && self < 2 && test_random() % 8 == 0)
            CHECK_STATUS(aside_close(leaving->cache), ASIDE_OK);
    }
}

/* The cache is gone. */
static void leaving_judge(struct leaving *leaving)
{
    for (int i = 0; i < KEPT; i++)
        aside_value_unref(atomic_exchange(&leaving->kept[i], NULL));
    for (uint64_t id = 0; id < leaving->made; id++) {
        CHECK(leaving->unknown[id] || leaving->told[id] == leaving->stored[id]);
        CHECK_INT(leaving->freed[id], leaving->wrapped[id]);
    }
}

static void leaving_reset(struct leaving *leaving)
{
    leaving->made = 0;
    for (int i = 0; i < MOST; i++) {
        leaving->stored[i] = leaving->told[i] = leaving->freed[i] = 0;
        leaving->wrapped[i] = leaving->unknown[i] = false;
    }
}

/* Bounded or not, with a reaper or without, closed in the middle or at the end. */
static void leaving_round(struct leaving *leaving, struct pool *pool, aside_options options,
                          long round)
{
    leaving_reset(leaving);
    leaving->closes = round % 3 == 0;
    options.reaper_interval_ms = round % 5 == 0 ? 1 : 0;
    options.max_entries = round % 2 ? FEW : 0;
    options.max_bytes = round % 4 == 2 ? 0 : 16384;
    leaving->cache = cache_open(&options);
    pool_round(pool);
    CHECK_STATUS(aside_close(leaving->cache), ASIDE_OK);
    aside_unref(leaving->cache);
    leaving_judge(leaving);
}

static bool leaving_has_met(const struct leaving *leaving)
{
    for (int cause = ASIDE_CAUSE_EXPIRED; cause <= ASIDE_CAUSE_CLOSED; cause++)
        if (leaving->causes[cause] == 0)
            return false;
    return true;
}

TEST_LIMIT(what_leaves_is_told_once, 120)
{
    struct ground ground;
    struct pool pool;
    static struct leaving leaving;
    aside_options options = ground_begin(&ground);
    options.clock = fake_clock_init(&leaving.clock);
    options.on_remove.fn = leaving_hear;
    options.on_remove.ctx = &leaving;
    pool_open(&pool, MEMBERS, leaving_work, &leaving);
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        leaving_round(&leaving, &pool, options, round);
        CHECK_INT(ground.ledger.live_blocks, 0);
    }
    CHECK(test_rounds(ROUNDS) < 100 || leaving_has_met(&leaving));
    pool_close(&pool);
    ground_end(&ground);
}
