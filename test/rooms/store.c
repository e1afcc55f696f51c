/*
 * store.c -- store/store: what a write does that does not fit at once, and what it must not do: evict
 * in vain, wait without end, or lose a value that was fetched (B1, B4, F10).
 */
#include "rooms.h"

#include "cache/cache.h"

static struct ledger ledger;
static struct fake_clock fake;

static aside_cache *open_with(size_t max_bytes, size_t max_entries)
{
    aside_options options = quiet_options();
    options.max_bytes = max_bytes;
    options.max_entries = max_entries;
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&fake);
    return open_cache(&options);
}

static void finish(aside_cache *cache)
{
    CHECK(store_check(&cache->store, stderr));
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

static void set_small(aside_cache *cache, uint32_t count, int64_t ttl_ms)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, "v", 1, ttl_ms), ASIDE_OK);
}

static char bytes[1 << 20];

static aside_status fetch_text(aside_fetch *fetch, void *arg)
{
    return aside_fetch_copy(fetch, arg, strlen(arg));
}

/* ---- shards -------------------------------------------------------------------------------------- */

TEST(a_small_cache_has_few_shards_and_every_key_one_of_them)
{
    static const struct {
        size_t max_bytes, max_entries, shards;
    } cases[] = {{0, 0, 64},      {1, 0, 1},    {0, 1, 1},          {64 << 20, 0, 64},
                 {1 << 20, 0, 4}, {0, 2048, 4}, {64 << 20, 1024, 2}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        aside_cache *cache = open_with(cases[i].max_bytes, cases[i].max_entries);
        CHECK_INT(cache->store.shard_mask + 1, cases[i].shards);
        for (uint64_t hash = 1; hash; hash <<= 1)
            CHECK(store_shard(&cache->store, hash) < cache->store.shards + cases[i].shards);
        finish(cache);
    }
}

/* ---- room ---------------------------------------------------------------------------------------- */

TEST(a_large_value_makes_room_for_itself)
{
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 5000, ASIDE_FOREVER);
    CHECK(STAT(cache, bytes) <= 256 << 10);
    uint64_t evicted = STAT(cache, evicted);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, 100 << 10, ASIDE_FOREVER), ASIDE_OK);
    CHECK(STAT(cache, bytes) <= 256 << 10);
    CHECK(STAT(cache, evicted) > evicted);
    CHECK(STAT(cache, evicted) - evicted <
          100 * 1024 / 64 + 600); /* and not for much more than itself */
    CHECK_STATUS(look(cache, "large"), ASIDE_OK);
    finish(cache);
}

TEST(a_bucketful_of_places_is_made_for_one_entry_however_large)
{
    aside_cache *cache = open_with(0, 100);
    set_small(cache, 100, ASIDE_FOREVER);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("large"), bytes, 100000, ASIDE_FOREVER), ASIDE_OK);
    CHECK(STAT(cache, evicted) >= 1 && STAT(cache, evicted) <= 20);
    CHECK_INT(aside_count(cache), 101 - STAT(cache, evicted));
    finish(cache);
}

TEST(what_can_never_fit_beside_the_index_costs_nobody_his_place)
{
    for (size_t size = 60000; size <= 65536; size += 64) {
        aside_cache *cache = open_with(65536, 0);
        set_small(cache, 50, ASIDE_FOREVER);
        aside_status status = aside_set(cache, ASIDE_STR("large"), bytes, size, ASIDE_FOREVER);
        if (status == ASIDE_OK) {
            CHECK_STATUS(look(cache, "large"), ASIDE_OK);
        } else {
            CHECK_STATUS(status, ASIDE_E_TOO_LARGE);
            CHECK_INT(aside_count(cache), 50);
        }
        finish(cache);
    }
}

TEST(a_size_that_is_no_size_is_too_large_for_every_cache)
{
    int object;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 100, SIZE_MAX - 1000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        aside_value *value = NULL;
        aside_cache *cache = open_with(0, 0);
        set_small(cache, 500, ASIDE_FOREVER);
        CHECK_STATUS(aside_value_wrap(&object, sizes[i], NULL, NULL, &value), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, ASIDE_STR("key"), value, ASIDE_FOREVER),
                     ASIDE_E_TOO_LARGE);
        CHECK_INT(aside_count(cache), 500);
        aside_value_unref(value);
        finish(cache);
    }
}

TEST(an_overwrite_by_a_larger_value_may_evict_but_not_fail)
{
    aside_cache *cache = open_with(128 << 10, 0);
    set_small(cache, 3000, ASIDE_FOREVER);
    for (size_t size = 1000; size < 60000; size += 3000) {
        CHECK_STATUS(aside_set(cache, ASIDE_STR("growing"), bytes, size, ASIDE_FOREVER), ASIDE_OK);
        CHECK_STATUS(look(cache, "growing"), ASIDE_OK);
        CHECK(STAT(cache, bytes) <= 128 << 10);
    }
    finish(cache);
}

TEST(room_that_has_come_by_itself_meanwhile_costs_nobody_his_place)
{
    aside_cache *cache = open_with(512 << 10, 0);
    struct store *store = &cache->store;
    set_small(cache, 50, ASIDE_FOREVER);
    CHECK(store_make_room(store, &store->shards[0], 100000));
    CHECK_INT(STAT(cache, evicted), 0);
    CHECK_INT(aside_count(cache), 50);
    finish(cache);
}

/* From *next on, the first number that is a key of that shard. */
static void set_in_shard(aside_cache *cache, const struct shard *shard, uint32_t *next,
                         int64_t ttl_ms)
{
    while (store_shard(&cache->store, cache_hash(cache, next, sizeof *next)) != shard)
        ++*next;
    CHECK_STATUS(aside_set(cache, next, sizeof *next, "v", 1, ttl_ms), ASIDE_OK);
    ++*next;
}

TEST(a_shard_that_has_more_than_its_share_gives_it_up_to_the_others)
{
    enum { ENTRIES = 2048, SHARDS = 4, SHARE = ENTRIES / SHARDS };
    aside_cache *cache = open_with(0, ENTRIES);
    uint32_t next = 0;
    CHECK_INT(cache->store.shard_mask + 1, SHARDS);
    for (int i = 0; i < ENTRIES; i++)
        set_in_shard(cache, &cache->store.shards[0], &next, ASIDE_FOREVER);
    CHECK_INT(cache->store.shards[0].index.count, ENTRIES);
    for (int i = 0; i < 4 * SHARDS * ENTRIES; i++)
        set_in_shard(cache, &cache->store.shards[i % SHARDS], &next, ASIDE_FOREVER);
    for (int i = 0; i < SHARDS; i++) {
        CHECK(cache->store.shards[i].index.count <= SHARE + SHARE / 16);
        CHECK(cache->store.shards[i].index.count >= SHARE - SHARE / 4);
    }
    CHECK(aside_count(cache) >= ENTRIES - SHARDS);
    finish(cache);
}

TEST(room_that_nobody_can_free_is_not_waited_for)
{
    aside_cache *cache = open_with(512 << 10, 0);
    struct store *store = &cache->store;
    size_t left = store->budget.max_bytes - load_relaxed(&store->budget.bytes);
    CHECK(budget_reserve(&store->budget, left, 0)); /* as for flights */
    CHECK(!store_make_room(store, &store->shards[0], 1000));
    CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), "v", 1, ASIDE_FOREVER), ASIDE_E_BUSY);
    budget_refund(&store->budget, left, 0);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), "v", 1, ASIDE_FOREVER), ASIDE_OK);
    finish(cache);
}

/* ---- room that others take ----------------------------------------------------------------------- */

/* Two shards, of which one thread makes room in turn; this one holds the lock of the next until it
 * has taken away what was made. */
static struct store *contended;
static uint32_t first_victim;
static size_t stolen;
static _Atomic bool maker_done;

static pthread_mutex_t *victim_mutex(uint32_t turn)
{
    return &contended->shards[(first_victim + turn) & 1].lock.mutex;
}

static void steal_room(void)
{
    struct budget *budget = &contended->budget;
    size_t left = budget->max_bytes - load_relaxed(&budget->bytes);
    CHECK(budget_reserve(budget, left, 0));
    stolen += left;
}

static void *maker_main(void *arg)
{
    struct shard *near = &contended->shards[(first_victim + 1) & 1];
    bool made = store_make_room(contended, near, *(const size_t *)arg);
    store_release(&maker_done, true);
    return made ? arg : NULL;
}

/* A lock that is free is tried for, since these have one rank. */
static void rob(pthread_t *maker, size_t *lacking)
{
    uint32_t turn = 0;
    steal_room();
    CHECK_INT(pthread_mutex_trylock(victim_mutex(turn)), 0);
    *maker = thread_start(maker_main, lacking);
    for (;; turn++) {
        WAIT_UNTIL(load_relaxed(&contended->next_victim) == first_victim + turn + 1 ||
                   load_acquire(&maker_done));
        if (load_acquire(&maker_done))
            break;
        steal_room();
        CHECK_INT(pthread_mutex_trylock(victim_mutex(turn + 1)), 0);
        pthread_mutex_unlock(victim_mutex(turn));
    }
    pthread_mutex_unlock(victim_mutex(turn));
}

TEST(whose_room_is_taken_by_others_evicts_twice_its_size_and_not_the_whole_cache)
{
    enum { ENTRIES = 3000, LACKING = 200 };
    pthread_t maker;
    size_t charge;
    aside_cache *cache = open_with(512 << 10, 0);
    set_small(cache, ENTRIES, ASIDE_FOREVER);
    CHECK(entry_charge_of(cache->host.home, 4, 1, &charge));
    size_t lacking = LACKING * charge;
    contended = &cache->store;
    CHECK_INT(contended->shard_mask, 1);
    first_victim = load_relaxed(&contended->next_victim);
    rob(&maker, &lacking);
    CHECK(thread_join(maker) == &lacking); /* it is worth another try */
    CHECK(STAT(cache, evicted) > 2 * LACKING);
    CHECK(STAT(cache, evicted) < ENTRIES / 2);
    CHECK_INT(aside_count(cache), ENTRIES - STAT(cache, evicted));
    budget_refund(&contended->budget, stolen, 0);
    finish(cache);
}

/* The first key, as a text, of that shard. */
static void key_of_shard(const aside_cache *cache, size_t shard, char text[16])
{
    unsigned i = 0;
    do {
        snprintf(text, 16, "%u", i++);
    } while (store_shard(contended, cache_hash(cache, text, strlen(text))) !=
             &contended->shards[shard]);
}

/* Its room is made in the other shard: while it waits for that lock, this thread takes the lock
 * that it needs next, and has taken the room when it gives that back. */
static void rob_flight(struct caller *caller)
{
    caller_start(caller);
    WAIT_UNTIL(load_relaxed(&contended->next_victim) == 2);
    CHECK_INT(pthread_mutex_trylock(&contended->shards[0].lock.mutex), 0);
    pthread_mutex_unlock(&contended->shards[1].lock.mutex);
    WAIT_UNTIL(load_relaxed(&contended->budget.entries) == 0);
    steal_room();
    pthread_mutex_unlock(&contended->shards[0].lock.mutex);
}

TEST(a_flight_whose_room_is_taken_by_others_is_refused)
{
    static char text[] = "text";
    char large[16], asked[16];
    struct caller caller;
    aside_cache *cache = open_with(512 << 10, 0);
    contended = &cache->store;
    CHECK_INT(contended->shard_mask, 1);
    key_of_shard(cache, 0, asked);
    key_of_shard(cache, 1, large);
    CHECK_STATUS(aside_set(cache, large, strlen(large), bytes, 100000, ASIDE_FOREVER), ASIDE_OK);
    steal_room();
    store_relaxed(&contended->next_victim, 1);
    CHECK_INT(pthread_mutex_trylock(&contended->shards[1].lock.mutex), 0);
    caller_init(&caller, cache, asked, fetch_text, text);
    rob_flight(&caller);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_BUSY);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(STAT(cache, evicted), 1);
    CHECK_INT(STAT(cache, refused), 1);
    CHECK_INT(STAT(cache, fetches), 0);
    CHECK_INT(STAT(cache, flights_now), 0);
    CHECK_INT(STAT(cache, bytes), 512 << 10); /* all stolen, and nothing is kept for the flight */
    budget_refund(&contended->budget, stolen, 0);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    finish(cache);
}

static int refills, refills_left;

static void refill(void *object, void *cache);

/* Larger than what limbo may hold. */
static void put_refilling(aside_cache *cache)
{
    static int object;
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&object, 40000, refill, cache, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("refilling"), value, ASIDE_FOREVER), ASIDE_OK);
    aside_value_unref(value);
}

/* Limbo is as full again as before. */
static void refill(void *object, void *cache)
{
    (void)object;
    if (refills_left == 0)
        return;
    refills_left--;
    refills++;
    put_refilling(cache);
}

TEST(a_write_whose_room_is_always_taken_is_refused_in_the_end)
{
    aside_cache *cache = open_with(256 << 10, 0);
    refills_left = 1000;
    put_refilling(cache);
    put_refilling(cache);
    CHECK(cache->store.shards[0].limbo.bytes > cache->store.shards[0].limbo_max);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), "v", 1, ASIDE_FOREVER), ASIDE_E_BUSY);
    CHECK(refills > 1 && refills <= 100);
    CHECK_STATUS(look(cache, "key"), ASIDE_MISS);
    refills_left = 2;
    CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), "v", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK(holds(cache, "key", "v"));
    finish(cache);
}

/* ---- memory -------------------------------------------------------------------------------------- */

TEST(a_chain_that_cannot_be_made_longer_refuses_the_entry_and_nothing_else)
{
    aside_status status = ASIDE_OK;
    uint32_t next = 1;
    int64_t calls = 0;
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 1, ASIDE_FOREVER);
    for (; status == ASIDE_OK; next++) { /* each gets the memory for its own block and no more */
        CHECK(next < 1000);
        calls = ledger.calls;
        ledger.fail_for_ever = true;
        ledger.fail_at = 2;
        status = aside_set(cache, &next, sizeof next, "v", 1, ASIDE_FOREVER);
        ledger.fail_at = 0;
    }
    CHECK_STATUS(status, ASIDE_E_NOMEM);
    CHECK(ledger.calls - calls <= 4); /* it does not ask again and again */
    CHECK_INT(aside_count(cache), --next);
    CHECK(store_check(&cache->store, stderr));
    CHECK_STATUS(aside_set(cache, &next, sizeof next, "v", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK_INT(aside_count(cache), next + 1);
    finish(cache);
}

/* As if another thread had been making it meanwhile, and then had no memory for it. */
TEST(a_reap_brings_the_larger_table_that_no_write_has_brought)
{
    aside_cache *cache = open_with(256 << 10, 0);
    struct shard *shard = &cache->store.shards[0];
    shard->array_coming = true;
    set_small(cache, 60, ASIDE_FOREVER);
    CHECK(index_wants_array(&shard->index));
    shard->array_coming = false;
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK(!index_wants_array(&shard->index));
    CHECK_INT(aside_count(cache), 60);
    finish(cache);
}

/* ---- hashes -------------------------------------------------------------------------------------- */

/* The first key, as a text, whose hash is that one's in every bit of the mask. */
static void find_key(aside_cache *cache, uint64_t hash, uint64_t mask, char text[16])
{
    for (unsigned i = 0;; i++) {
        size_t length = (size_t)snprintf(text, 16, "%u", i);
        if (((cache_hash(cache, text, length) ^ hash) & mask) == 0)
            return;
    }
}

static void never_called(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
    CHECK(!"there is something to visit");
}

static void check_missed_and_fetched(aside_cache *cache, const char *key)
{
    static char text[] = "fetched";
    struct caller caller;
    CHECK_STATUS(look(cache, key), ASIDE_MISS);
    CHECK_STATUS(aside_copy(cache, key, strlen(key), NULL, 0, NULL), ASIDE_MISS);
    CHECK_STATUS(aside_visit(cache, key, strlen(key), never_called, NULL), ASIDE_MISS);
    caller_init(&caller, cache, key, fetch_text, text);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, text));
    caller_drop(&caller);
    CHECK(holds(cache, key, text));
}

#define TAG_BITS (~UINT64_C(0) << INDEX_TAG_SHIFT)

TEST(a_tag_of_zero_is_not_mistaken_for_an_empty_word)
{
    char key[16];
    aside_cache *cache = open_with(256 << 10, 0);
    find_key(cache, 0, TAG_BITS, key);
    check_missed_and_fetched(cache, key); /* while there is no table */
    CHECK_STATUS(aside_delete(cache, key, strlen(key)), ASIDE_OK);
    check_missed_and_fetched(cache, key); /* and in an empty bucket */
    finish(cache);
}

TEST(keys_of_one_bucket_and_one_tag_are_told_apart)
{
    char key[16];
    aside_cache *cache = open_with(256 << 10, 0);
    put(cache, "the other key", "other", ASIDE_FOREVER);
    uint64_t other = cache_hash(cache, ASIDE_STR("the other key"));
    find_key(cache, other, TAG_BITS | 7, key);
    check_missed_and_fetched(cache, key);
    CHECK(holds(cache, "the other key", "other"));
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("the other key")), ASIDE_OK);
    CHECK(holds(cache, key, "fetched"));
    finish(cache);
}

static aside_status never_fetched(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    CHECK(!"the key is there");
    return ASIDE_OK;
}

static aside_status fetch_tagged(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("tag")), ASIDE_OK);
    return aside_fetch_copy(fetch, arg, strlen(arg));
}

/* Hits do not find at once what has tags: they look once more, out of line. */
static void check_tagged_and_found(aside_cache *cache, const char *key)
{
    static char text[] = "tagged";
    struct caller caller;
    for (int i = 0; i < 2; i++) {
        caller_init(&caller, cache, key, fetch_tagged, text);
        CHECK_STATUS(caller_run(&caller), ASIDE_OK);
        CHECK_INT(caller.result.outcome, i ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_FETCHED);
        CHECK(value_is(caller.result.value, text));
        caller_drop(&caller);
    }
    CHECK(holds(cache, key, text));
}

TEST(what_has_tags_is_told_apart_from_a_key_of_its_bucket_and_tag)
{
    char key[16];
    aside_cache *cache = open_with(256 << 10, 0);
    put(cache, "the other key", "other", ASIDE_FOREVER);
    uint64_t other = cache_hash(cache, ASIDE_STR("the other key"));
    find_key(cache, other, TAG_BITS | 7, key);
    check_tagged_and_found(cache, key);
    finish(cache);
}

TEST(what_has_tags_and_a_tag_of_zero_is_found_behind_an_empty_word)
{
    char key[16], first[16];
    aside_cache *cache = open_with(256 << 10, 0);
    find_key(cache, 0, TAG_BITS, key);
    uint64_t bucket = cache_hash(cache, key, strlen(key)) & 7;
    find_key(cache, bucket | UINT64_C(1) << INDEX_TAG_SHIFT, TAG_BITS | 7, first);
    put(cache, first, "has the word", ASIDE_FOREVER); /* that is looked at first for both */
    check_tagged_and_found(cache, key);
    CHECK_STATUS(aside_delete(cache, first, strlen(first)), ASIDE_OK);
    CHECK(holds(cache, key, "tagged"));
    struct caller caller;
    caller_init(&caller, cache, key, never_fetched, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "tagged"));
    caller_drop(&caller);
    finish(cache);
}

/* ---- readers ------------------------------------------------------------------------------------- */

static void expect_visited(const void *data, size_t size, void *ctx)
{
    ++*(int *)ctx;
    CHECK(size == 1 && *(const char *)data == 'v');
}

static void check_found(aside_cache *cache, const char *key)
{
    char copy = 0;
    int visits = 0;
    struct caller caller;
    CHECK(holds(cache, key, "v"));
    CHECK_STATUS(aside_copy(cache, key, strlen(key), &copy, 1, NULL), ASIDE_OK);
    CHECK_INT(copy, 'v');
    CHECK_STATUS(aside_visit(cache, key, strlen(key), expect_visited, &visits), ASIDE_OK);
    CHECK_INT(visits, 1);
    caller_init(&caller, cache, key, never_fetched, NULL);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "v"));
    caller_drop(&caller);
}

/* So many buckets of the one shard have moved to a larger table. */
static size_t moved(aside_cache *cache)
{
    struct index_array *array = atomic_load(&cache->store.shards[0].index.array);
    return atomic_load(&array->next) ? array->moved : 0;
}

TEST(every_verb_finds_every_key_in_the_middle_of_a_growth)
{
    char key[16];
    int keys = 0;
    aside_cache *cache = open_with(256 << 10, 0);
    while (keys < 100 || moved(cache) == 0) {
        snprintf(key, sizeof key, "%d", keys++);
        put(cache, key, "v", ASIDE_FOREVER);
    }
    for (int i = 0; i < keys; i++) {
        snprintf(key, sizeof key, "%d", i);
        check_found(cache, key);
    }
    CHECK(moved(cache) > 0); /* still */
    finish(cache);
}

TEST(a_reader_that_meets_what_is_over_waits_for_no_writer)
{
    aside_cache *cache = open_with(256 << 10, 0);
    struct shard *shard = &cache->store.shards[0];
    put(cache, "key", "v", 1);
    fake_clock_advance_ms(&fake, 1, NULL);
    lock_take(&shard->lock);
    CHECK_STATUS(look(cache, "key"), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 1);
    lock_release(&shard->lock);
    CHECK_STATUS(look(cache, "key"), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    CHECK_INT(STAT(cache, expired), 1);
    finish(cache);
}

/* ---- reaping ------------------------------------------------------------------------------------- */

/* Entries that are due in a moment are not looked at for ever. */
TEST_LIMIT(a_reap_ends_though_many_are_due_in_a_moment, 10)
{
    size_t reaped = 1;
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 300, 1);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 0);
    for (int i = 0; i < 10; i++) {
        fake_clock_advance_ns(&fake, 99999, NULL);
        CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
        CHECK_INT(reaped, 0);
    }
    fake_clock_advance_ns(&fake, 10, NULL);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 300);
    finish(cache);
}

/* Of which shards entries leave, one after the other. */
struct order {
    aside_cache *cache;
    unsigned run, longest; /* of one shard in a row */
    const struct shard *last;
};

static void note_shard(void *ctx, const void *key, size_t key_len, aside_value *value,
                       aside_cause cause)
{
    struct order *order = ctx;
    (void)value;
    const struct shard *shard =
        store_shard(&order->cache->store, cache_hash(order->cache, key, key_len));
    if (cause != ASIDE_CAUSE_EXPIRED)
        return;
    order->run = shard == order->last ? order->run + 1 : 1;
    order->last = shard;
    if (order->run > order->longest)
        order->longest = order->run;
}

TEST(a_reap_takes_a_slice_of_each_shard_in_turn)
{
    enum { EACH = 20 * STORE_REAP_SLICE };
    struct order order = {.run = 0};
    aside_options options = quiet_options();
    uint32_t next = 0;
    options.max_entries = 1024;
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&fake);
    options.on_remove = (aside_on_remove){note_shard, &order};
    aside_cache *cache = order.cache = open_cache(&options);
    CHECK_INT(cache->store.shard_mask + 1, 2);
    for (int i = 0; i < 2 * EACH; i++)
        set_in_shard(cache, &cache->store.shards[i % 2], &next, 1000);
    fake_clock_advance_ms(&fake, 2000, cache);
    size_t reaped = 0;
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 2 * EACH);
    CHECK_INT(order.longest, STORE_REAP_SLICE);
    finish(cache);
}

TEST(a_budget_bounds_one_reap_and_the_next_goes_on)
{
    size_t reaped, all = 0;
    aside_cache *cache = open_with(0, 0);
    set_small(cache, 3000, 10);
    fake_clock_advance_ms(&fake, 10, NULL);
    for (int turn = 0; all < 3000; turn++) {
        CHECK(turn < 3000 / 100 + 64);
        CHECK_STATUS(aside_reap(cache, 100, &reaped), ASIDE_OK);
        CHECK(reaped <= 100);
        all += reaped;
        CHECK_INT(aside_count(cache), 3000 - all);
    }
    CHECK_INT(STAT(cache, expired), 3000);
    finish(cache);
}

TEST(reaping_ten_thousand_at_once_holds_no_lock_long)
{
    size_t reaped = 0;
    aside_cache *cache = open_with(0, 0);
    set_small(cache, 10000, 10);
    fake_clock_advance_ms(&fake, 10, NULL);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK); /* the debug build looks */
    CHECK_INT(reaped, 10000);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    finish(cache);
}

/* ---- clearing ------------------------------------------------------------------------------------ */

TEST(clearing_frees_entries_and_arrays_before_it_returns)
{
    aside_cache *cache = open_with(0, 0);
    CHECK_STATUS(aside_clear(cache),
                 ASIDE_OK); /* what an empty cache needs may be there from now on */
    uint64_t empty = STAT(cache, bytes);
    int64_t blocks = ledger.live_blocks;
    for (int round = 0; round < 3; round++) {
        set_small(cache, 10000, 1000);
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
        CHECK_INT(aside_count(cache), 0);
        CHECK_INT(STAT(cache, bytes), empty);
        CHECK_INT(STAT(cache, limbo_bytes), 0);
        CHECK_INT(ledger.live_blocks, blocks);
    }
    finish(cache);
}

TEST(what_a_reader_holds_of_a_cleared_cache_is_freed_by_the_next_reap)
{
    struct stalled reader;
    aside_cache *cache = open_with(0, 0);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    uint64_t empty = STAT(cache, bytes);
    int64_t blocks = ledger.live_blocks;
    set_small(cache, 1000, ASIDE_FOREVER);
    stalled_begin(&reader);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(STAT(cache, bytes), empty);
    CHECK(STAT(cache, limbo_bytes) > 64000);
    CHECK(ledger.live_blocks >= 1000);
    stalled_end(&reader);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    CHECK_INT(ledger.live_blocks, blocks);
    finish(cache);
}

TEST(arrays_that_growth_replaced_are_freed_on_the_way)
{
    aside_cache *cache = open_with(256 << 10, 0);
    set_small(cache, 1500, ASIDE_FOREVER);
    for (int i = 0; i < 200; i++)
        CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), "v", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK(cache->store.shards[0].doomed == NULL);
    finish(cache);
}

/* ---- a reader that does not leave ---------------------------------------------------------------- */

static aside_status fetch_give(aside_fetch *fetch, void *arg)
{
    return aside_fetch_give(fetch, arg);
}

/* Overwrites until limbo is full. */
static void fill_limbo(aside_cache *cache)
{
    aside_status status = ASIDE_OK;
    for (int i = 0; i < 10000 && status == ASIDE_OK; i++)
        status = aside_set(cache, ASIDE_STR("churned"), bytes, 2000, ASIDE_FOREVER);
    CHECK_STATUS(status, ASIDE_E_BUSY);
}

TEST(a_stalled_reader_makes_writes_busy_and_fetches_are_handed_over_all_the_same)
{
    static struct tally tally;
    static char text[] = "text";
    struct stalled reader;
    struct caller caller;
    aside_cache *cache = open_with(256 << 10, 0);
    put(cache, "old", "value", ASIDE_FOREVER);
    stalled_begin(&reader);
    fill_limbo(cache);
    CHECK(STAT(cache, limbo_bytes) < 64 << 10);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("old"), "new", 3, ASIDE_FOREVER), ASIDE_E_BUSY);
    CHECK(holds(cache, "old", "value")); /* nothing is lost */
    caller_init(&caller, cache, "fetched", fetch_text, text);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "text"));
    CHECK_INT(caller.result.ttl_left_ms, 0); /* not stored */
    CHECK_INT(caller.result.fenced, 0);
    CHECK_STATUS(look(cache, "fetched"), ASIDE_MISS);
    caller_drop(&caller);
    caller_init(&caller, cache, "given", fetch_give, tally_value(&tally, 10));
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(tally.freed, 0);
    caller_drop(&caller);
    CHECK_INT(tally.freed, 1);
    CHECK_INT(STAT(cache, store_refused), 2 + 2);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("old")), ASIDE_OK); /* removing always works */
    CHECK_STATUS(look(cache, "old"), ASIDE_MISS);
    stalled_end(&reader);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("old"), "new", 3, ASIDE_FOREVER), ASIDE_OK);
    caller_init(&caller, cache, "fetched", fetch_text, text);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK_INT(caller.result.ttl_left_ms, ASIDE_FOREVER);
    caller_drop(&caller);
    CHECK(holds(cache, "fetched", "text"));
    finish(cache);
}

static void hold_open(const void *data, size_t size, void *ctx)
{
    aside_cache *cache = ctx;
    CHECK(size == 7 && memcmp(data, "visited", 7) == 0);
    for (int i = 0; i < 2000; i++) /* a visit is no reader inside the epoch */
        CHECK_STATUS(aside_set(cache, ASIDE_STR("key"), bytes, 2000, ASIDE_FOREVER), ASIDE_OK);
    CHECK(memcmp(data, "visited", 7) == 0);
    CHECK(STAT(cache, pinned_bytes) > 0);
}

TEST(a_visit_of_any_length_holds_up_no_write)
{
    aside_cache *cache = open_with(256 << 10, 0);
    put(cache, "key", "visited", ASIDE_FOREVER);
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("key"), hold_open, cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, pinned_bytes), 0);
    finish(cache);
}

/* ---- many at once -------------------------------------------------------------------------------- */

static _Atomic bool done;

static void *writer_main(void *arg)
{
    aside_cache *cache = arg;
    for (long i = test_rounds(3000); i > 0; i--) {
        uint32_t key = (uint32_t)random_below(3000);
        aside_status status = ASIDE_OK;
        switch (random_below(8)) {
        case 0: (void)aside_delete(cache, &key, sizeof key); break;
        case 1:
            status = aside_copy(cache, &key, sizeof key, bytes + 1000000, 0, NULL);
            CHECK(status == ASIDE_MISS || status == ASIDE_E_BUFFER || status == ASIDE_OK);
            break;
        case 2:
            if (key < 5)
                CHECK_STATUS(aside_clear(cache), ASIDE_OK);
            break;
        case 3:
            if (key < 300)
                CHECK_STATUS(aside_reap(cache, random_below(50), NULL), ASIDE_OK);
            break;
        default:
            status = aside_set(cache, &key, sizeof key, bytes, random_below(500),
                               (int64_t)random_below(200) + 1);
            CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        }
    }
    return NULL;
}

static void *watcher_main(void *arg)
{
    aside_cache *cache = arg;
    while (!atomic_load(&done)) {
        fake_clock_advance_ns(&fake, 100000, NULL);
        CHECK(STAT(cache, bytes) <= 512 << 10);
        CHECK(STAT(cache, entries) <= 400);
        test_yield();
    }
    return NULL;
}

TEST(bounds_hold_and_nothing_leaks_with_four_writers)
{
    pthread_t threads[4];
    aside_cache *cache = open_with(512 << 10, 400);
    perturb(test_seed() | 1);
    pthread_t watcher = thread_start(watcher_main, cache);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(writer_main, cache);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    atomic_store(&done, true);
    thread_join(watcher);
    perturb(0);
    CHECK(test_rounds(1000) < 1000 || STAT(cache, evicted) > 0);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_INT(STAT(cache, entries), 0);
    CHECK(STAT(cache, bytes) <= 1000); /* an empty table */
    CHECK_INT(STAT(cache, limbo_bytes), 0);
    finish(cache);
}

static void *fill_main(void *arg)
{
    aside_cache *cache = arg;
    for (long i = test_rounds(3000); i > 0; i--) {
        uint64_t key = test_random();
        CHECK_STATUS(aside_set(cache, &key, sizeof key, "v", 1, ASIDE_FOREVER), ASIDE_OK);
    }
    return NULL;
}

/* Room that was there and has been taken before one came to it is no reason to give up. */
TEST(two_writers_in_a_full_cache_take_each_others_room_and_are_not_refused)
{
    pthread_t writers[2];
    aside_cache *cache = open_with(0, 64);
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(writers); i++)
        writers[i] = thread_start(fill_main, cache);
    for (size_t i = 0; i < COUNT_OF(writers); i++)
        thread_join(writers[i]);
    perturb(0);
    CHECK_INT(STAT(cache, store_refused), 0);
    finish(cache);
}

/* ---- a fork -------------------------------------------------------------------------------------- */

TEST(what_others_had_reserved_is_free_in_the_child)
{
    aside_cache *cache = open_with(512 << 10, 0);
    struct store *store = &cache->store;
    set_small(cache, 1000, ASIDE_FOREVER); /* in the middle of a growth, or not */
    size_t used = store->budget.bytes, entries = store->budget.entries;
    size_t lasting = store->budget.lasting;
    CHECK(budget_reserve(&store->budget, 1000, 7));
    CHECK(budget_reserve_lasting(&store->budget, 3000));
    store->shards[1].array_coming = true;
    store_fork_child(store);
    CHECK_INT(store->budget.bytes, used);
    CHECK_INT(store->budget.lasting, lasting);
    CHECK_INT(store->budget.entries, entries);
    CHECK(!store->shards[1].array_coming);
    set_small(cache, 2000, ASIDE_FOREVER);
    finish(cache);
}

/* ---- the check ----------------------------------------------------------------------------------- */

TEST(the_check_looks_at_every_shard)
{
    FILE *nowhere = fopen("/dev/null", "we");
    aside_cache *cache = open_with(1 << 20, 0);
    set_small(cache, 100, ASIDE_FOREVER);
    for (size_t i = 0; i <= cache->store.shard_mask; i++) {
        cache->store.shards[i].index.count++;
        CHECK(!store_check(&cache->store, nowhere));
        cache->store.shards[i].index.count--;
    }
    CHECK(store_check(&cache->store, stderr));
    fclose(nowhere);
    finish(cache);
}
