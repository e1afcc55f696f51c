/*
 * plain.c -- the plain verbs: get, copy, visit, set, set_value, add, delete, expire, touch, clear,
 * count; the keys and values they take.
 */
#include "helpers.h"

/* ---- reading ------------------------------------------------------------------------------------- */

struct seen {
    int calls;
    size_t size;
    const void *data;
    char bytes[64];
};

static void note_visit(const void *data, size_t size, void *ctx)
{
    struct seen *seen = ctx;
    seen->calls++;
    seen->size = size;
    seen->data = data;
    memcpy(seen->bytes, data, size < sizeof seen->bytes ? size : sizeof seen->bytes);
}

TEST(a_value_is_read_back_by_get_copy_and_visit)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "value", 1000);

    aside_value *value = NULL;
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK(value_is(value, "value"));
    aside_value_unref(value);

    char buffer[16];
    size_t size = 0;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, &size), ASIDE_OK);
    CHECK_INT(size, 5);
    CHECK(memcmp(buffer, "value", 5) == 0);

    struct seen seen = {0};
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), note_visit, &seen), ASIDE_OK);
    CHECK_INT(seen.calls, 1);
    CHECK_INT(seen.size, 5);
    CHECK(memcmp(seen.bytes, "value", 5) == 0);
    CHECK_INT((uintptr_t)seen.data % 8, 0);
    end_cache(cache);
}

TEST(a_key_that_was_never_set_is_a_miss)
{
    aside_cache *cache = open_quiet();
    aside_value *value = (aside_value *)&cache; /* must be overwritten by NULL */
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_MISS);
    CHECK(value == NULL);
    char buffer[4];
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, NULL), ASIDE_MISS);
    struct seen seen = {0};
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), note_visit, &seen), ASIDE_MISS);
    CHECK_INT(seen.calls, 0);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_MISS);
    CHECK_STATUS(aside_touch(cache, ASIDE_STR("k"), 1000), ASIDE_MISS);
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

TEST(a_buffer_that_is_too_small_is_left_alone_and_the_size_is_told)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "12345", 1000);
    char buffer[5] = "....";
    size_t size = 0;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 4, &size), ASIDE_E_BUFFER);
    CHECK_INT(size, 5);
    CHECK(memcmp(buffer, "....", 5) == 0);
    size = 0;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), NULL, 0, &size), ASIDE_E_BUFFER);
    CHECK_INT(size, 5);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 4, NULL), ASIDE_E_BUFFER);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, 5, NULL), ASIDE_OK);
    CHECK(memcmp(buffer, "12345", 5) == 0);
    end_cache(cache);
}

TEST(a_copy_writes_no_byte_past_the_value)
{
    aside_cache *cache = open_quiet();
    for (size_t size = 0; size < 40; size++) {
        char text[40], buffer[48];
        memset(text, 'x', sizeof text);
        memset(buffer, '.', sizeof buffer);
        CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), text, size, 1000), ASIDE_OK);
        CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), buffer, sizeof buffer, NULL), ASIDE_OK);
        for (size_t i = 0; i < sizeof buffer; i++)
            CHECK_INT(buffer[i], i < size ? 'x' : '.');
    }
    end_cache(cache);
}

TEST(a_copy_that_is_refused_says_that_nothing_is_there)
{
    static char key[ASIDE_MAX_KEY + 1];
    aside_cache *cache = open_quiet();
    put(cache, "k", "value", 1000);
    char buffer[8] = ".......";
    size_t size = 9;
    CHECK_STATUS(aside_copy(NULL, ASIDE_STR("k"), buffer, sizeof buffer, &size), ASIDE_E_INVALID);
    CHECK_INT(size, 0);
    size = 9;
    CHECK_STATUS(aside_copy(cache, NULL, 1, buffer, sizeof buffer, &size), ASIDE_E_INVALID);
    CHECK_INT(size, 0);
    size = 9;
    CHECK_STATUS(aside_copy(cache, key, sizeof key, buffer, sizeof buffer, &size), ASIDE_E_INVALID);
    CHECK_INT(size, 0);
    size = 9;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), NULL, 5, &size), ASIDE_E_INVALID);
    CHECK_INT(size, 0);
    CHECK(memcmp(buffer, ".......", 8) == 0);
    CHECK_INT(STAT(cache, copy_error), 3);
    CHECK_INT(STAT(cache, hits), 0);
    end_cache(cache);
}

struct nested {
    aside_cache *cache;
    struct seen other;
};

static void visit_and_write(const void *data, size_t size, void *ctx)
{
    struct nested *nested = ctx;
    CHECK_STATUS(aside_visit(nested->cache, ASIDE_STR("b"), note_visit, &nested->other), ASIDE_OK);
    put(nested->cache, "a", "overwritten", 1000);
    CHECK_STATUS(aside_delete(nested->cache, ASIDE_STR("a")), ASIDE_OK);
    CHECK_STATUS(aside_clear(nested->cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(nested->cache, 0, NULL), ASIDE_OK);
    CHECK_INT(size, 5); /* and the bytes are still those of the visited entry */
    CHECK(memcmp(data, "first", 5) == 0);
}

TEST(a_visit_may_visit_write_delete_and_clear_and_keeps_its_bytes)
{
    aside_cache *cache = open_quiet();
    put(cache, "a", "first", 1000);
    put(cache, "b", "second", 1000);
    struct nested nested = {cache, {0}};
    CHECK_STATUS(aside_visit(cache, ASIDE_STR("a"), visit_and_write, &nested), ASIDE_OK);
    CHECK_INT(nested.other.calls, 1);
    CHECK(memcmp(nested.other.bytes, "second", 6) == 0);
    CHECK_INT(aside_count(cache), 0);
    end_cache(cache);
}

struct last_visit {
    struct ledger ledger;
    aside_cache *cache;
    int deeper; /* visits inside this one */
};

static void visit_and_unref(const void *data, size_t size, void *ctx)
{
    struct last_visit *last = (struct last_visit *)ctx;
    if (last->deeper-- > 0)
        CHECK_STATUS(aside_visit(last->cache, ASIDE_STR("k"), visit_and_unref, last), ASIDE_OK);
    else
        aside_unref(last->cache);
    CHECK(last->ledger.live_blocks > 0);
    CHECK(size == 7 && memcmp(data, "visited", 7) == 0);
}

/* More visits in each other than a thread has slots for, too. */
TEST(a_visit_may_give_the_last_reference_back_and_the_outermost_ends_the_cache)
{
    for (int depth = 0; depth < 10; depth++) {
        struct last_visit last;
        aside_options options = quiet_options();
        options.alloc = ledger_init(&last.ledger);
        last.cache = open_cache(&options);
        last.deeper = depth;
        put(last.cache, "k", "visited", ASIDE_FOREVER);
        CHECK_STATUS(aside_visit(last.cache, ASIDE_STR("k"), visit_and_unref, &last), ASIDE_OK);
        CHECK_INT(last.ledger.live_blocks, 0);
    }
}

/* ---- writing ------------------------------------------------------------------------------------- */

TEST(set_replaces_what_was_there)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "one", 1000);
    put(cache, "k", "a much longer second value", 1000);
    CHECK(holds(cache, "k", "a much longer second value"));
    put(cache, "k", "3", 1000);
    CHECK(holds(cache, "k", "3"));
    CHECK_INT(aside_count(cache), 1);
    end_cache(cache);
}

TEST(the_cache_keeps_a_copy_of_key_and_value)
{
    aside_cache *cache = open_quiet();
    char key[] = "key", text[] = "text";
    CHECK_STATUS(aside_set(cache, key, 3, text, 4, 1000), ASIDE_OK);
    memset(key, '-', 3);
    memset(text, '-', 4);
    CHECK(holds(cache, "key", "text"));
    CHECK_STATUS(look(cache, "---"), ASIDE_MISS);
    end_cache(cache);
}

TEST(a_value_may_be_set_from_a_handle_to_the_entry_that_it_replaces)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "0123456789", 1000);
    aside_value *value = NULL;
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
    const char *inside = aside_value_data(value);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), inside + 3, 4, 1000), ASIDE_OK);
    CHECK(holds(cache, "k", "3456"));
    CHECK(value_is(value, "0123456789"));
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("k"), value, 1000), ASIDE_OK);
    CHECK(holds(cache, "k", "0123456789"));
    aside_value_unref(value);
    end_cache(cache);
}

static void set_from_inside(const void *data, size_t size, void *ctx)
{
    CHECK_STATUS(aside_set(ctx, ASIDE_STR("k"), (const char *)data + 1, size - 1, 1000), ASIDE_OK);
}

TEST(a_value_may_be_set_from_inside_a_visit_of_the_entry_that_it_replaces)
{
    aside_cache *cache = open_quiet();
    put(cache, "k", "0123456789", 1000);
    for (int i = 0; i < 9; i++)
        CHECK_STATUS(aside_visit(cache, ASIDE_STR("k"), set_from_inside, cache), ASIDE_OK);
    CHECK(holds(cache, "k", "9"));
    end_cache(cache);
}

TEST(add_stores_only_where_no_fresh_entry_is)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), ASIDE_STR("one"), 1000), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), ASIDE_STR("two"), 1000), ASIDE_EXISTS);
    CHECK(holds(cache, "k", "one"));
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("k")), ASIDE_OK);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), ASIDE_STR("three"), 1000), ASIDE_OK);
    CHECK(holds(cache, "k", "three"));
    end_cache(cache);
}

TEST(add_with_ttl_0_answers_likewise_and_stores_nothing)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), ASIDE_STR("one"), 0), ASIDE_OK);
    CHECK_STATUS(look(cache, "k"), ASIDE_MISS);
    put(cache, "k", "there", 1000);
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), ASIDE_STR("one"), 0), ASIDE_EXISTS);
    CHECK(holds(cache, "k", "there"));
    end_cache(cache);
}

TEST(delete_and_expire_end_a_key_once)
{
    aside_cache *cache = open_quiet();
    put(cache, "d", "x", 1000);
    put(cache, "e", "x", 1000);
    put(cache, "stays", "x", 1000);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("d")), ASIDE_OK);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("d")), ASIDE_MISS);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("e")), ASIDE_OK);
    CHECK_STATUS(aside_expire(cache, ASIDE_STR("e")), ASIDE_MISS);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("e")), ASIDE_MISS);
    CHECK_STATUS(look(cache, "d"), ASIDE_MISS);
    CHECK_STATUS(look(cache, "e"), ASIDE_MISS);
    CHECK(holds(cache, "stays", "x"));
    end_cache(cache);
}

TEST(clear_drops_every_key_and_the_cache_goes_on)
{
    aside_cache *cache = open_quiet();
    char key[16];
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(cache, key, "x", ASIDE_FOREVER);
    }
    CHECK_INT(aside_count(cache), 3000);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_INT(aside_count(cache), 0);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_STATUS(look(cache, key), ASIDE_MISS);
    }
    CHECK_STATUS(aside_clear(cache), ASIDE_OK); /* empty, and once more */
    put(cache, "7", "again", 1000);
    CHECK(holds(cache, "7", "again"));
    CHECK_INT(aside_count(cache), 1);
    end_cache(cache);
}

TEST(count_follows_stores_and_deletes)
{
    aside_cache *cache = open_quiet();
    char key[16];
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_INT(aside_count(cache), i);
        put(cache, key, key, 1000);
    }
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK(holds(cache, key, key));
        CHECK_STATUS(aside_delete(cache, key, strlen(key)), ASIDE_OK);
        CHECK_INT(aside_count(cache), 499 - i);
    }
    CHECK_INT(aside_count(NULL), 0);
    end_cache(cache);
}

/* ---- keys ---------------------------------------------------------------------------------------- */

TEST(the_empty_key_is_a_key_with_or_without_a_pointer)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(aside_set(cache, NULL, 0, "empty", 5, 1000), ASIDE_OK);
    CHECK(holds(cache, "", "empty"));
    CHECK_STATUS(look(cache, "x"), ASIDE_MISS);
    aside_value *value = NULL;
    CHECK_STATUS(aside_get(cache, NULL, 0, &value), ASIDE_OK);
    aside_value_unref(value);
    CHECK_STATUS(aside_delete(cache, "ignored", 0), ASIDE_OK);
    CHECK_STATUS(look(cache, ""), ASIDE_MISS);
    end_cache(cache);
}

TEST(keys_are_equal_iff_length_and_bytes_are)
{
    static const struct {
        const char *bytes;
        size_t size;
    } keys[] = {{"", 0},         {"\0", 1},      {"\0\0", 2},       {"a", 1},        {"a\0", 2},
                {"a\0b", 3},     {"a\0c", 3},    {"\xff", 1},       {"\xff\xff", 2}, {"A", 1},
                {"12345678", 8}, {"1234567", 7}, {"12345678\0", 9}, {"x12345678", 9}};
    aside_cache *cache = open_quiet();
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        CHECK_STATUS(aside_set(cache, keys[i].bytes, keys[i].size, &i, sizeof i, 1000), ASIDE_OK);
    CHECK_INT(aside_count(cache), COUNT_OF(keys));
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        size_t found = 0;
        CHECK_STATUS(aside_copy(cache, keys[i].bytes, keys[i].size, &found, sizeof found, NULL),
                     ASIDE_OK);
        CHECK_INT(found, i);
    }
    end_cache(cache);
}

TEST(the_longest_key_works_and_its_last_byte_counts)
{
    aside_cache *cache = open_quiet();
    static char key[ASIDE_MAX_KEY + 1];
    memset(key, 'k', sizeof key);
    CHECK_STATUS(aside_set(cache, key, ASIDE_MAX_KEY, "one", 3, 1000), ASIDE_OK);
    CHECK_STATUS(aside_set(cache, key, ASIDE_MAX_KEY - 1, "two", 3, 1000), ASIDE_OK);
    key[ASIDE_MAX_KEY - 1] = 'K';
    CHECK_STATUS(aside_delete(cache, key, ASIDE_MAX_KEY), ASIDE_MISS);
    key[ASIDE_MAX_KEY - 1] = 'k';
    char found[4] = "";
    CHECK_STATUS(aside_copy(cache, key, ASIDE_MAX_KEY, found, 3, NULL), ASIDE_OK);
    CHECK(strcmp(found, "one") == 0);
    CHECK_STATUS(aside_set(cache, key, ASIDE_MAX_KEY + 1, "x", 1, 1000), ASIDE_E_INVALID);
    CHECK_INT(aside_count(cache), 2);
    end_cache(cache);
}

TEST(two_keys_of_every_length_near_the_word_sizes_stay_apart)
{
    aside_cache *cache = open_quiet();
    char key[80];
    for (size_t size = 1; size <= sizeof key; size++) {
        for (size_t flip = 0; flip < size; flip++) {
            memset(key, 'a', size);
            key[flip] = 'b';
            CHECK_STATUS(aside_set(cache, key, size, &flip, sizeof flip, 1000), ASIDE_OK);
        }
        for (size_t flip = 0; flip < size; flip++) {
            size_t found = 0;
            memset(key, 'a', size);
            CHECK_STATUS(aside_delete(cache, key, size), ASIDE_MISS);
            key[flip] = 'b';
            CHECK_STATUS(aside_copy(cache, key, size, &found, sizeof found, NULL), ASIDE_OK);
            CHECK_INT(found, flip);
        }
    }
    end_cache(cache);
}

/* ---- values -------------------------------------------------------------------------------------- */

TEST(an_empty_value_is_a_value)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), NULL, 0, 1000), ASIDE_OK);
    CHECK(holds(cache, "k", ""));
    size_t size = 9;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), NULL, 0, &size), ASIDE_OK);
    CHECK_INT(size, 0);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "ignored", 0, 1000), ASIDE_OK);
    CHECK(holds(cache, "k", ""));
    CHECK_STATUS(aside_add(cache, ASIDE_STR("k"), NULL, 0, 1000), ASIDE_EXISTS);
    end_cache(cache);
}

TEST(values_may_hold_nul_bytes)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(aside_set(cache, ASIDE_STR("k"), "a\0b\0", 4, 1000), ASIDE_OK);
    char found[4];
    size_t size = 0;
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("k"), found, 4, &size), ASIDE_OK);
    CHECK_INT(size, 4);
    CHECK(memcmp(found, "a\0b\0", 4) == 0);
    end_cache(cache);
}

TEST(a_value_of_20_mib_fits_into_64_mib)
{
    aside_cache *cache = open_quiet();
    size_t size = (size_t)20 << 20;
    unsigned char *bytes = malloc(size), *back = malloc(size);
    CHECK(bytes != NULL && back != NULL);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * 7 + (i >> 13));
    CHECK_STATUS(aside_set(cache, ASIDE_STR("big"), bytes, size, 1000), ASIDE_OK);
    CHECK_STATUS(aside_copy(cache, ASIDE_STR("big"), back, size, NULL), ASIDE_OK);
    CHECK(memcmp(bytes, back, size) == 0);
    CHECK(STAT(cache, bytes) >= size);
    free(bytes);
    free(back);
    end_cache(cache);
}

TEST(values_of_every_small_size_come_back_as_they_were)
{
    aside_cache *cache = open_quiet();
    unsigned char bytes[600], back[600];
    for (size_t size = 0; size <= sizeof bytes; size++) {
        for (size_t i = 0; i < size; i++)
            bytes[i] = (unsigned char)test_random();
        CHECK_STATUS(aside_set(cache, &size, sizeof size, bytes, size, 1000), ASIDE_OK);
        CHECK_STATUS(aside_copy(cache, &size, sizeof size, back, sizeof back, NULL), ASIDE_OK);
        CHECK(memcmp(bytes, back, size) == 0);
    }
    end_cache(cache);
}

TEST(one_value_lies_under_many_keys_and_in_two_caches)
{
    aside_cache *cache = open_quiet(), *other = open_quiet();
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("shared", 6, &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("a"), value, 1000), ASIDE_OK);
    CHECK_STATUS(aside_set_value(cache, ASIDE_STR("b"), value, 1000), ASIDE_OK);
    CHECK_STATUS(aside_set_value(other, ASIDE_STR("c"), value, 1000), ASIDE_OK);
    CHECK(value_is(value, "shared")); /* the caller keeps his reference */
    aside_value_unref(value);
    end_cache(cache);
    CHECK(holds(other, "c", "shared"));
    end_cache(other);
}

TEST(set_value_takes_a_handle_that_came_from_another_cache)
{
    aside_cache *cache = open_quiet(), *other = open_quiet();
    put(cache, "k", "travels", 1000);
    aside_value *value = NULL;
    CHECK_STATUS(aside_get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK_STATUS(aside_set_value(other, ASIDE_STR("k"), value, 1000), ASIDE_OK);
    aside_value_unref(value);
    end_cache(cache);
    CHECK(holds(other, "k", "travels"));
    end_cache(other);
}

TEST(values_live_without_a_cache)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy("bytes", 5, &value), ASIDE_OK);
    CHECK(aside_value_ref(value) == value);
    aside_value_unref(value);
    CHECK(value_is(value, "bytes"));
    aside_value_unref(value);
    CHECK_STATUS(aside_value_copy(NULL, 0, &value), ASIDE_OK);
    CHECK_INT(aside_value_size(value), 0);
    aside_value_unref(value);
    char text[] = "wrapped";
    CHECK_STATUS(aside_value_wrap(text, 7, NULL, NULL, &value), ASIDE_OK);
    CHECK(aside_value_data(value) == text);
    CHECK_INT(aside_value_size(value), 7);
    aside_value_unref(value);
    CHECK(strcmp(text, "wrapped") == 0);
}

TEST(two_caches_do_not_see_each_other)
{
    aside_cache *cache = open_quiet(), *other = open_quiet();
    put(cache, "k", "mine", 1000);
    CHECK_STATUS(look(other, "k"), ASIDE_MISS);
    put(other, "k", "yours", 1000);
    CHECK_STATUS(aside_clear(other), ASIDE_OK);
    CHECK(holds(cache, "k", "mine"));
    end_cache(cache);
    end_cache(other);
}

/* ---- keys of every length ------------------------------------------------------------------------ */

static void visit_length(const void *data, size_t size, void *length)
{
    CHECK(size == sizeof(size_t) && memcmp(data, length, size) == 0);
}

static aside_status fetch_length(aside_fetch *fetch, void *length)
{
    size_t key_len = 0;
    CHECK(aside_fetch_key(fetch, &key_len) != NULL || key_len == 0);
    CHECK_INT(key_len, *(size_t *)length);
    return aside_fetch_copy(fetch, length, sizeof(size_t));
}

/* The hash goes by words, halves and single bytes, and is inlined into each of them. */
TEST(every_verb_takes_keys_of_every_length)
{
    char key[40], other[40];
    aside_cache *cache = open_quiet();
    memset(key, 'k', sizeof key);
    memset(other, 'o', sizeof other);
    for (size_t length = 1; length <= sizeof key; length++) {
        aside_call call = {ASIDE_CALL, .fetch = fetch_length, .arg = &length};
        aside_result result = ASIDE_RESULT_INIT;
        aside_value *value = NULL;
        size_t copy = 0;
        CHECK_STATUS(aside_set(cache, key, length, &length, sizeof length, 60000), ASIDE_OK);
        CHECK_STATUS(aside_add(cache, key, length, &length, sizeof length, 60000), ASIDE_EXISTS);
        CHECK_STATUS(aside_add(cache, key, length, &length, sizeof length, 0), ASIDE_EXISTS);
        CHECK_STATUS(aside_get(cache, key, length, &value), ASIDE_OK);
        CHECK_STATUS(aside_copy(cache, key, length, &copy, sizeof copy, NULL), ASIDE_OK);
        CHECK_INT(copy, length);
        CHECK_STATUS(aside_visit(cache, key, length, visit_length, &length), ASIDE_OK);
        CHECK_STATUS(aside_touch(cache, key, length, 60000), ASIDE_OK);
        CHECK_STATUS(aside_set_value(cache, other, length, value, 60000), ASIDE_OK);
        CHECK_STATUS(aside_expire(cache, other, length), ASIDE_OK);
        CHECK_STATUS(aside_delete(cache, key, length), ASIDE_OK);
        aside_value_unref(value);
        call.nonblocking = 1; /* a refresh has ended when it returns */
        CHECK_STATUS(aside_refresh(cache, other, length, &call), ASIDE_OK);
        CHECK_STATUS(aside_copy(cache, other, length, &copy, sizeof copy, NULL), ASIDE_OK);
        CHECK_STATUS(aside_get_with_fetch(cache, key, length, &call, &result), ASIDE_OK);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_FETCHED);
        aside_value_unref(result.value);
        CHECK_STATUS(aside_get_with_fetch(cache, key, length, &call, &result), ASIDE_OK);
        CHECK_INT(result.outcome, ASIDE_OUTCOME_HIT);
        aside_value_unref(result.value);
    }
    CHECK_INT(aside_count(cache), 2 * sizeof key);
    end_cache(cache);
}
