/*
 * no_aes.c -- a processor without AES instructions: every verb of a cache and of a group finds its
 * keys by the other hash, too, whoever calls, and while the table grows, evicts and is reaped.
 */
#include "rooms.h"

#include "cache/cache.h"

#include <aside/group.h>

/* ---- the processor ------------------------------------------------------------------------------- */

#ifdef __x86_64__

/* Where the compiler's library keeps what the processor can do, for __builtin_cpu_supports(). */
extern struct {
    unsigned vendor, type, subtype;
    volatile unsigned features;
} __cpu_model;

static void turn_off_aes(void)
{
    __cpu_model.features &= ~(1U << 18);
}

#else

static void turn_off_aes(void)
{
}

#endif

/* By the hash that this processor has, and by the one that every processor has. */
static void by_either_hash(void (*program)(void))
{
    program();
    turn_off_aes();
    program();
}

TEST(a_processor_without_aes_is_seen_by_the_next_seed)
{
    struct hash_seed before, after;
    CHECK(hash_seed_init(&before, NULL));
    CHECK_INT(before.by_aes, aes_is_here());
    turn_off_aes();
    CHECK(hash_seed_init(&after, NULL));
    CHECK(!after.by_aes);
    CHECK(hash_bytes(&after, "key", 3) == siphash(after.key, "key", 3));
    CHECK_INT(before.by_aes, hash_bytes(&before, "key", 3) != siphash(before.key, "key", 3));
}

/* ---- keys, each of which is its value ------------------------------------------------------------ */

/* Every way in which either hash reads the end of a key. */
static const size_t lengths[] = {0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 100};
static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuv"
                              "wxyz0123456789abcdefghijklmnopqr";

static void check_letters(const void *data, size_t size, void *its_size)
{
    CHECK_INT(size, *(const size_t *)its_size);
    CHECK(memcmp(data, letters, size) == 0);
}

static void check_value(aside_value *value, size_t size)
{
    CHECK(value != NULL);
    check_letters(aside_value_data(value), aside_value_size(value), &size);
    aside_value_unref(value);
}

static aside_status fetch_its_key(aside_fetch *fetch, void *arg)
{
    size_t size = 0;
    const void *key = aside_fetch_key(fetch, &size);
    (void)arg;
    return aside_fetch_copy(fetch, key, size);
}

/* ---- a cache ------------------------------------------------------------------------------------- */

static void check_there(aside_cache *cache, size_t size)
{
    char buffer[sizeof letters];
    size_t copied = 0;
    aside_value *value = NULL;
    CHECK_STATUS(aside_copy(cache, letters, size, buffer, sizeof buffer, &copied), ASIDE_OK);
    check_letters(buffer, copied, &size);
    CHECK_STATUS(aside_visit(cache, letters, size, check_letters, &size), ASIDE_OK);
    CHECK_STATUS(aside_get(cache, letters, size, &value), ASIDE_OK);
    check_value(value, size);
    CHECK_STATUS(aside_add(cache, letters, size, "", 0, 1000), ASIDE_EXISTS);
    CHECK_STATUS(aside_add(cache, letters, size, "", 0, 0), ASIDE_EXISTS);
}

static void check_gone(aside_cache *cache, size_t size)
{
    char none;
    aside_value *value = NULL;
    CHECK_STATUS(aside_copy(cache, letters, size, &none, 0, NULL), ASIDE_MISS);
    CHECK_STATUS(aside_visit(cache, letters, size, check_letters, NULL), ASIDE_MISS);
    CHECK_STATUS(aside_get(cache, letters, size, &value), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, letters, size, 1000), ASIDE_MISS);
    CHECK_STATUS(aside_expire(cache, letters, size), ASIDE_MISS);
    CHECK_STATUS(aside_delete(cache, letters, size), ASIDE_MISS);
    CHECK_STATUS(aside_add(cache, letters, size, "", 0, 0), ASIDE_OK);
}

static void check_writing(aside_cache *cache, size_t size)
{
    aside_value *value = NULL;
    check_gone(cache, size);
    CHECK_STATUS(aside_set(cache, letters, size, letters, size, 1000), ASIDE_OK);
    check_there(cache, size);
    CHECK_STATUS(aside_expire(cache, letters, size), ASIDE_OK);
    check_gone(cache, size);
    CHECK_STATUS(aside_add(cache, letters, size, letters, size, 1000), ASIDE_OK);
    CHECK_STATUS(aside_touch(cache, letters, size, 2000), ASIDE_OK);
    check_there(cache, size);
    CHECK_STATUS(aside_value_copy(letters, size, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, letters, size, value, 1000), ASIDE_OK);
    aside_value_unref(value);
    check_there(cache, size);
    CHECK_STATUS(aside_delete(cache, letters, size), ASIDE_OK);
    check_gone(cache, size);
}

static void check_fetching(aside_cache *cache, size_t size, aside_cancel *fired)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_its_key};
    aside_result result = ASIDE_RESULT_INIT;
    call.cancel = fired;
    CHECK_STATUS(aside_get_with_fetch(cache, letters, size, &call, &result), ASIDE_E_CANCELLED);
    call.cancel = NULL;
    CHECK_STATUS(aside_get_with_fetch(cache, letters, size, &call, &result), ASIDE_OK);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_FETCHED);
    check_value(result.value, size);
    check_there(cache, size);
    call.cancel = fired;
    CHECK_STATUS(aside_get_with_fetch(cache, letters, size, &call, &result), ASIDE_OK);
    CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
    check_value(result.value, size);
    call.cancel = NULL;
    call.nonblocking = 1;
    CHECK_STATUS(aside_refresh(cache, letters, size, &call), ASIDE_OK);
    CHECK_INT(STAT(cache, refreshes), STAT(cache, misses_led)); /* one of each a key */
    check_there(cache, size);
}

static void use_every_verb(void)
{
    aside_cache *cache = open_quiet();
    aside_cancel *fired = token_new();
    aside_cancel_fire(fired);
    CHECK_INT(cache->store.seed.by_aes, aes_is_here());
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        check_writing(cache, lengths[i]);
        check_fetching(cache, lengths[i], fired);
    }
    for (size_t i = 0; i < COUNT_OF(lengths); i++)
        check_there(cache, lengths[i]);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    for (size_t i = 0; i < COUNT_OF(lengths); i++)
        check_gone(cache, lengths[i]);
    aside_cancel_unref(fired);
    end_cache(cache);
}

TEST(every_verb_of_a_cache_works_by_either_hash)
{
    by_either_hash(use_every_verb);
}

/* ---- a cache in the hands of a thread without a record ------------------------------------------- */

static void *use_without_record(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    aside_call call = {ASIDE_CALL, .fetch = fetch_its_key};
    process_fail_alloc(1, true);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        aside_result result = ASIDE_RESULT_INIT;
        check_gone(cache, lengths[i]);
        CHECK_STATUS(aside_get_with_fetch(cache, letters, lengths[i], &call, &result),
                     ASIDE_E_NOMEM);
        CHECK_STATUS(aside_set(cache, letters, lengths[i], letters, lengths[i], 1000), ASIDE_OK);
        check_there(cache, lengths[i]);
        CHECK_STATUS(aside_get_with_fetch(cache, letters, lengths[i], &call, &result), ASIDE_OK);
        check_value(result.value, lengths[i]);
    }
    process_fail_alloc(0, false);
    return NULL;
}

static void use_from_elsewhere(void)
{
    struct ledger ledger;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    aside_cache *cache = open_cache(&options);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS); /* so that the record there is is this thread's */
    thread_join(thread_start(use_without_record, cache));
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_thread_without_a_record_finds_its_keys_by_either_hash)
{
    by_either_hash(use_from_elsewhere);
}

/* ---- many keys ----------------------------------------------------------------------------------- */

enum { KEYS = 2000 };

static void set_number(aside_cache *cache, uint32_t number, int64_t ttl_ms)
{
    CHECK_STATUS(aside_set(cache, &number, sizeof number, &number, sizeof number, ttl_ms),
                 ASIDE_OK);
}

static bool has_number(aside_cache *cache, uint32_t number)
{
    uint32_t found = 0;
    aside_status status = aside_copy(cache, &number, sizeof number, &found, sizeof found, NULL);
    CHECK_INT(found, status == ASIDE_OK ? number : 0);
    return status == ASIDE_OK;
}

static void grow(void)
{
    aside_cache *cache = open_quiet();
    for (uint32_t i = 0; i < KEYS; i++) {
        set_number(cache, i, ASIDE_FOREVER);
        CHECK(has_number(cache, i / 2));
    }
    for (uint32_t i = 0; i < KEYS; i++)
        CHECK(has_number(cache, i));
    end_cache(cache);
}

TEST(a_table_grows_by_either_hash)
{
    by_either_hash(grow);
}

static void evict(void)
{
    aside_options options = quiet_options();
    options.max_entries = KEYS / 10;
    aside_cache *cache = open_cache(&options);
    size_t there = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        set_number(cache, i, ASIDE_FOREVER);
        (void)has_number(cache, i % 7);
    }
    for (uint32_t i = 0; i < KEYS; i++)
        there += has_number(cache, i);
    CHECK(there > 0 && there <= options.max_entries);
    CHECK_INT(there, aside_count(cache));
    end_cache(cache);
}

TEST(a_full_cache_evicts_by_either_hash)
{
    by_either_hash(evict);
}

static void reap(void)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    size_t reaped = 0;
    for (uint32_t i = 0; i < KEYS; i++)
        set_number(cache, i, i % 2 ? ASIDE_FOREVER : 1000);
    fake_clock_advance_ms(&clock, 1000, cache);
    CHECK(!has_number(cache, 0)); /* and whoever sees that it is over removes it */
    CHECK_INT(aside_count(cache), KEYS - 1);
    CHECK_STATUS(aside_reap(cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, KEYS / 2 - 1);
    for (uint32_t i = 0; i < KEYS; i++)
        CHECK_INT(has_number(cache, i), i % 2);
    end_cache(cache);
}

TEST(what_is_over_is_reaped_by_either_hash)
{
    by_either_hash(reap);
}

/* ---- a group ------------------------------------------------------------------------------------- */

static aside_status forget_its_key(aside_fetch *fetch, void *group)
{
    size_t size = 0;
    const void *key = aside_fetch_key(fetch, &size);
    CHECK_STATUS(aside_group_forget((aside_group *)group, key, size), ASIDE_OK);
    return aside_fetch_copy(fetch, key, size);
}

/* timeout_ms 0: on this thread, without the lock; else by a worker. */
static void check_group(aside_group *group, size_t size, int64_t timeout_ms)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_its_key, .arg = group};
    aside_result result = ASIDE_RESULT_INIT;
    call.timeout_ms = timeout_ms;
    CHECK_STATUS(aside_group_do(group, letters, size, &call, &result), ASIDE_OK);
    CHECK_INT(result.fenced, 0);
    check_value(result.value, size);
    call.fetch = forget_its_key;
    CHECK_STATUS(aside_group_do(group, letters, size, &call, &result), ASIDE_OK);
    CHECK_INT(result.fenced, 1);
    check_value(result.value, size);
    CHECK_STATUS(aside_group_forget(group, letters, size), ASIDE_MISS);
}

static void use_group(void)
{
    aside_group *group = NULL;
    CHECK_STATUS(aside_group_new(&group, NULL), ASIDE_OK);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        check_group(group, lengths[i], 0);
        check_group(group, lengths[i], 60000);
    }
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

TEST(every_verb_of_a_group_works_by_either_hash)
{
    by_either_hash(use_group);
}
