/*
 * entry.c -- store/entry: layout, what an entry is charged for, its times, and handles of both forms
 * in every order of ending (O1, O2, O4, B3).
 */
#include "rooms.h"

static struct ground ground;

static struct entry *make(const char *key, const char *text)
{
    struct entry *entry = entry_new(ground.home, key, strlen(key), strlen(text));
    CHECK(entry != NULL);
    memcpy(entry->bytes + entry_value_offset(entry), text, strlen(text));
    return entry;
}

static aside_value *lone(const char *text)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_copy(text, strlen(text), &value), ASIDE_OK);
    return value;
}

/* ---- layout -------------------------------------------------------------------------------------- */

static void check_layout(size_t bare)
{
    size_t before = (size_t)ground.ledger.live_bytes;
    struct entry *empty = entry_new(ground.home, NULL, 0, 0);
    CHECK_INT(ground.ledger.live_bytes - before, bare);
    entry_discard(empty);
    for (size_t key_len = 0; key_len <= 40; key_len++) {
        char key[40];
        memset(key, 'k', sizeof key);
        struct entry *entry = entry_new(ground.home, key, key_len, 5);
        const char *data = entry_data(entry);
        CHECK_INT((uintptr_t)data % 8, 0);
        CHECK(data >= (char *)entry->bytes + key_len && data < (char *)entry->bytes + key_len + 8);
        CHECK_INT(entry->head.refs, 1);
        CHECK_INT(entry_size(entry), 5);
        CHECK(entry_has_key(entry, key, key_len));
        entry_discard(entry);
    }
}

TEST(an_entry_is_72_bytes_and_its_value_aligned)
{
    CHECK_INT(offsetof(struct entry, bytes), 24);
    ground_init(&ground, 0, 1);
    check_layout(72);
    ground_fini(&ground);
}

TEST(an_entry_that_is_never_evicted_is_56_bytes_and_its_value_aligned)
{
    ground_init(&ground, 0, 0);
    check_layout(56);
    ground_fini(&ground);
}

TEST(keys_are_equal_by_length_and_bytes_only)
{
    unsigned char one[40], other[40];
    ground_init(&ground, 0, 0);
    for (long round = test_rounds(3000); round > 0; round--) {
        size_t length = random_below(sizeof one);
        for (size_t i = 0; i < sizeof one; i++)
            one[i] = other[i] = (unsigned char)test_random();
        struct entry *entry = entry_new(ground.home, one, length, 0);
        CHECK(entry_has_key(entry, other, length));
        CHECK(!entry_has_key(entry, other, length + 1));
        CHECK(length == 0 || !entry_has_key(entry, other, length - 1));
        if (length) {
            other[random_below(length)] ^= (unsigned char)(1 << random_below(8));
            CHECK(!entry_has_key(entry, other, length));
        }
        entry_discard(entry);
    }
    struct entry *empty = entry_new(ground.home, NULL, 0, 0);
    CHECK(entry_has_key(empty, NULL, 0));
    entry_discard(empty);
    ground_fini(&ground);
}

TEST(lengths_are_checked_before_any_arithmetic)
{
    ground_init(&ground, 0, 0);
    CHECK(entry_new(ground.home, "k", 1, (size_t)ENTRY_MAX_VALUE + 1) == NULL);
    CHECK(entry_new(ground.home, "k", 1, SIZE_MAX) == NULL);
    CHECK(entry_new(ground.home, "k", 1, SIZE_MAX - 60) == NULL);
    /* A sum that is too large, as any may be where a size_t has 32 bits. */
    CHECK(entry_new(ground.home, "k", SIZE_MAX - 100, ENTRY_MAX_VALUE) == NULL);
    CHECK_INT(ground.ledger.calls, 1); /* the home's */
    static const char key[ASIDE_MAX_KEY];
    struct entry *longest = entry_new(ground.home, key, ASIDE_MAX_KEY, 3);
    CHECK_INT(longest->head.key_len, ASIDE_MAX_KEY);
    CHECK_INT(entry_value_offset(longest), ASIDE_MAX_KEY + 1);
    entry_discard(longest);
    ground.ledger.fail_at = 1;
    CHECK(entry_new(ground.home, "k", 1, 1) == NULL);
    ground_fini(&ground);
}

/* ---- charge -------------------------------------------------------------------------------------- */

TEST(the_charge_is_what_was_foretold_and_covers_the_block)
{
    static const size_t sizes[] = {0, 1, 7, 8, 100, 4096, 100000};
    ground_init(&ground, 0, 0);
    int64_t before = ground.ledger.live_bytes;
    for (size_t key_len = 0; key_len < 30; key_len++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            size_t charge = 0;
            CHECK(entry_charge_of(ground.home, key_len, sizes[i], &charge));
            struct entry *entry = entry_make(ground.home, "abcdefghijklmnopqrstuvwxyz0123456789",
                                             key_len, sizes[i], 1, 2);
            CHECK_INT(entry_charge(entry), charge);
            int64_t block = ground.ledger.live_bytes - before;
            CHECK((int64_t)charge >= block && (int64_t)charge < block + 32);
            entry_discard(entry);
        }
    }
    ground_fini(&ground);
}

TEST(a_charge_that_overflows_is_no_charge)
{
    size_t charge;
    ground_init(&ground, 0, 0);
    CHECK(!entry_charge_of(ground.home, 0, SIZE_MAX, &charge));
    CHECK(!entry_charge_of(ground.home, ASIDE_MAX_KEY, SIZE_MAX - 1000, &charge));
    for (size_t short_of = 0; short_of < 300; short_of++)
        if (entry_charge_of(ground.home, 8, SIZE_MAX - short_of, &charge))
            CHECK(charge >= SIZE_MAX - short_of);
    CHECK(entry_charge_of(ground.home, 8, SIZE_MAX / 2, &charge) && charge > SIZE_MAX / 2);
    ground_fini(&ground);
}

TEST(a_wrapped_size_is_any_number_and_never_charged_for_less)
{
    int object;
    ground_init(&ground, 0, 0);
    for (size_t short_of = 0; short_of < 400; short_of++) {
        aside_value *value = NULL;
        CHECK_STATUS(aside_value_wrap(&object, SIZE_MAX - short_of, NULL, NULL, &value), ASIDE_OK);
        struct entry *entry = entry_new_wrapping(ground.home, "k", 1, value);
        CHECK(entry_charge(entry) >= SIZE_MAX - short_of);
        CHECK(entry_size(entry) == SIZE_MAX - short_of);
        CHECK(entry_data(entry) == &object);
        CHECK(short_of > 0 || entry_charge(entry) == SIZE_MAX);
        entry_discard(entry);
        aside_value_unref(value);
    }
    ground_fini(&ground);
}

/* ---- times --------------------------------------------------------------------------------------- */

static int64_t age_after(int64_t born_ns, int64_t later_ns)
{
    struct entry *entry = entry_make(ground.home, "k", 1, 0, born_ns, CLOCK_NEVER);
    int64_t age = entry_age_ms(entry, born_ns + later_ns);
    entry_discard(entry);
    return age;
}

TEST(the_age_is_counted_in_milliseconds_from_birth)
{
    const int64_t ms = 1000000, born = 5000000000;
    ground_init(&ground, 0, 0);
    CHECK_INT(age_after(born, 0), 0);
    CHECK_INT(age_after(born, ms - 1), 0);
    CHECK_INT(age_after(born, ms), 1);
    CHECK_INT(age_after(born, 3600000 * ms), 3600000);
    CHECK_INT(age_after(born, -ms), 0); /* a coarse clock may be behind */
    ground_fini(&ground);
}

/* A clock of the user's may count from 1970: 40 bits of milliseconds are not enough for that. */
TEST(the_age_is_right_whatever_the_clock_counts_from)
{
    const int64_t ms = 1000000, since_1970 = INT64_C(1800000000000000000);
    ground_init(&ground, 0, 0);
    CHECK_INT(age_after(since_1970, 0), 0);
    CHECK_INT(age_after(since_1970, 1234 * ms), 1234);
    CHECK_INT(age_after((INT64_C(1) << 40) * ms - ms, 2 * ms), 2);
    ground_fini(&ground);
}

TEST(a_fetch_s_duration_saturates_and_leaves_the_birth_alone)
{
    CHECK_INT(entry_birth(7000000, 50000), UINT64_C(7) << 24 | 5);
    CHECK_INT(entry_birth(7000000, CLOCK_NEVER), UINT64_C(7) << 24 | 0xffffff);
    CHECK_INT(entry_birth(7000000, 0), UINT64_C(7) << 24);
}

/* The window of who may draw for it grows as the ttl does, to no more than for ever. */
TEST(a_window_that_grows_beyond_time_is_for_ever)
{
    static const int64_t factors[] = {1, 10, INT64_C(10000000), INT64_C(100000000)};
    struct entry_life life = {.now_ns = 1, .expires_ns = 1 + INT64_C(1000000)};
    life.early_for_ns = INT64_C(400000000000); /* of a fetch of 10 s, for a ttl of 1 ms */
    ground_init(&ground, 0, 0);
    struct entry *entry = entry_new_marked(ground.home, ENTRY_RARE, "k", 1, 1);
    for (size_t i = 0; i < COUNT_OF(factors); i++) {
        int64_t early_ns = life.early_for_ns, ttl_ns = factors[i] * 1000000;
        entry_set_life(entry, &life);
        entry_prolong_life(entry, 1, 1 + ttl_ns);
        int64_t window_ns = entry_rare(entry)->early_for_ns;
        if (early_ns <= INT64_MAX / factors[i])
            CHECK(window_ns >= early_ns * factors[i] && window_ns <= early_ns * factors[i] + 1);
        else
            CHECK(window_ns == INT64_MAX);
        CHECK_INT(entry->fresh_until_ns, 0); /* so whoever looks looks further */
    }
    entry_discard(entry);
    ground_fini(&ground);
}

TEST(fresh_until_is_exclusive)
{
    ground_init(&ground, 0, 0);
    struct entry *entry = entry_make(ground.home, "k", 1, 0, 10, 20);
    CHECK(entry_fresh(entry, 19));
    CHECK(!entry_fresh(entry, 20));
    CHECK(!entry_fresh(entry, 21));
    entry_discard(entry);
    ground_fini(&ground);
}

/* ---- handles of what is inside ------------------------------------------------------------------- */

TEST(a_handle_of_bytes_inside_is_the_entry_and_outlives_the_drop)
{
    ground_init(&ground, 0, 0);
    struct entry *entry = make("key", "text");
    size_t charge = entry_charge(entry);
    aside_value *one = entry_handle(entry), *other = entry_handle(entry);
    CHECK(one == &entry->head && other == one);
    entry_drop(entry);
    CHECK_INT(ground.home->pinned_bytes, charge);
    CHECK(value_is(one, "text"));
    aside_value_unref(one);
    CHECK(value_is(other, "text"));
    CHECK_INT(ground.home->pinned_bytes, charge);
    aside_value_unref(other);
    CHECK_INT(ground.home->pinned_bytes, 0);
    ground_fini(&ground);
}

TEST(handles_given_back_before_the_drop_pin_nothing)
{
    ground_init(&ground, 0, 0);
    struct entry *entry = make("key", "text");
    aside_value_unref(entry_handle(entry));
    CHECK_INT(entry->head.refs, 1);
    entry_drop(entry);
    CHECK_INT(ground.home->pinned_bytes, 0);
    ground_fini(&ground);
}

TEST(what_was_never_in_an_index_can_be_pinned)
{
    ground_init(&ground, 0, 0);
    struct entry *entry = make("key", "text");
    entry_pin(entry);
    CHECK_INT(ground.home->pinned_bytes, entry_charge(entry));
    CHECK(aside_value_ref(&entry->head) == &entry->head);
    aside_value_unref(&entry->head);
    CHECK(value_is(&entry->head, "text"));
    aside_value_unref(&entry->head);
    ground_fini(&ground);
}

/* ---- handles of what is wrapped ------------------------------------------------------------------ */

static struct tally tally;

TEST(a_handle_of_a_wrapped_value_is_that_value)
{
    ground_init(&ground, 0, 0);
    aside_value *value = tally_value(&tally, 77);
    struct entry *entry = entry_new_wrapping(ground.home, "key", 3, value);
    CHECK(entry_wraps(entry) && entry_wrapped(entry) == value);
    CHECK_INT(value->refs, 2);
    aside_value *handle = entry_handle(entry);
    CHECK(handle == value);
    CHECK_INT(value->refs, 3);
    CHECK_INT(entry->head.refs, 1); /* the entry itself is not kept */
    aside_value_unref(value);
    entry_drop(entry);
    CHECK_INT(ground.home->pinned_bytes, 0);
    CHECK_INT(tally.freed, 0);
    CHECK(aside_value_data(handle) == &tally.slot[0]);
    CHECK_INT(aside_value_size(handle), 77);
    aside_value_unref(handle);
    CHECK_INT(tally.freed, 1);
    ground_fini(&ground);
}

TEST(a_wrapped_value_ends_once_with_the_entry_that_was_last)
{
    ground_init(&ground, 0, 0);
    aside_value *value = tally_value(&tally, 1);
    struct entry *a = entry_new_wrapping(ground.home, "a", 1, value);
    struct entry *b = entry_new_wrapping(ground.home, "b", 1, value);
    aside_value_unref(value);
    entry_discard(a);
    CHECK_INT(tally.freed, 0);
    entry_drop(b);
    CHECK_INT(tally.freed, 1);
    ground_fini(&ground);
}

static void *get_without_record(void *cache)
{
    aside_value *value = NULL;
    process_fail_alloc(1, true);
    CHECK(thread_self() == NULL);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("key"), &value), ASIDE_OK);
    process_fail_alloc(0, false);
    return value;
}

TEST(a_thread_without_a_record_gets_the_wrapped_value_as_well)
{
    aside_cache *cache = open_quiet();
    CHECK_STATUS(tally_set(&tally, cache, "key", 77, ASIDE_FOREVER), ASIDE_OK);
    aside_value *value = thread_join(thread_start(get_without_record, cache));
    CHECK(aside_value_data(value) == &tally.slot[0]);
    CHECK_INT(aside_value_size(value), 77);
    CHECK_INT(value->refs, 2);
    end_cache(cache);
    CHECK_INT(tally.freed, 0);
    aside_value_unref(value);
    CHECK_INT(tally.freed, 1);
}

TEST(no_memory_for_a_wrapper_takes_no_reference)
{
    ground_init(&ground, 0, 0);
    aside_value *value = tally_value(&tally, 1);
    ground.ledger.fail_at = 1;
    CHECK(entry_new_wrapping(ground.home, "a", 1, value) == NULL);
    CHECK_INT(value->refs, 1);
    aside_value_unref(value);
    CHECK_INT(tally.freed, 1);
    ground_fini(&ground);
}

TEST(a_handle_of_another_cache_s_entry_can_be_wrapped)
{
    static struct ground elsewhere;
    ground_init(&ground, 0, 0);
    ground_init(&elsewhere, 0, 0);
    struct entry *inner = entry_make(elsewhere.home, "key", 3, 9, 1, 2);
    aside_value *handle = entry_handle(inner);
    struct entry *outer = entry_new_wrapping(ground.home, "other key", 9, handle);
    entry_drop(inner); /* from now on kept by handles */
    aside_value_unref(handle);
    CHECK_INT(elsewhere.home->pinned_bytes, entry_charge(inner));
    CHECK_INT(entry_size(outer), 9);
    CHECK(memcmp(entry_data(outer), "vvvvvvvvv", 9) == 0);
    struct entry *again = entry_new_wrapping(ground.home, "third", 5, entry_wrapped(outer));
    entry_drop(outer);
    aside_value *last = entry_handle(again);
    entry_drop(again);
    ground_fini(&ground); /* the home of the wrappers goes first */
    CHECK(value_is(last, "vvvvvvvvv"));
    aside_value_unref(last);
    ground_fini(&elsewhere);
}

/* ---- values that stand alone --------------------------------------------------------------------- */

TEST(lone_values_check_their_arguments)
{
    aside_value *value = NULL;
    int object;
    CHECK_STATUS(aside_value_copy(NULL, 1, &value), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_copy("x", 1, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_wrap(NULL, 1, NULL, NULL, &value), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_wrap(&object, 1, NULL, NULL, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_value_copy("x", SIZE_MAX, &value), ASIDE_E_NOMEM);
    CHECK_STATUS(aside_value_copy("x", SIZE_MAX - sizeof(struct lone_value), &value),
                 ASIDE_E_NOMEM);
    CHECK(value == NULL);
    process_fail_alloc(1, false);
    CHECK_STATUS(aside_value_copy("x", 1, &value), ASIDE_E_NOMEM);
    process_fail_alloc(1, false);
    CHECK_STATUS(aside_value_wrap(&object, 1, tally_free, &tally, &value), ASIDE_E_NOMEM);
    CHECK_INT(tally.freed, 0);
}

static void free_nothing(void *ptr, void *times)
{
    CHECK(ptr == NULL);
    ++*(int *)times;
}

TEST(no_pointer_of_no_size_can_be_wrapped)
{
    int times = 0;
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(NULL, 0, free_nothing, &times, &value), ASIDE_OK);
    CHECK(aside_value_data(value) == NULL);
    CHECK_INT(aside_value_size(value), 0);
    CHECK_INT(times, 0);
    aside_value_unref(value);
    CHECK_INT(times, 1);
}

TEST(lone_values_are_immutable_copies)
{
    char text[] = "text";
    aside_value *value = NULL, *empty = NULL;
    CHECK_STATUS(aside_value_copy(text, 4, &value), ASIDE_OK);
    text[0] = 'n';
    CHECK(value_is(value, "text"));
    CHECK_INT((uintptr_t)aside_value_data(value) % 8, 0);
    CHECK_STATUS(aside_value_copy(NULL, 0, &empty), ASIDE_OK);
    CHECK_INT(aside_value_size(empty), 0);
    CHECK(aside_value_ref(value) == value);
    aside_value_unref(value);
    CHECK(value_is(value, "text"));
    aside_value_unref(value);
    aside_value_unref(empty);
    CHECK(aside_value_ref(NULL) == NULL && aside_value_data(NULL) == NULL);
    CHECK_INT(aside_value_size(NULL), 0);
    aside_value_unref(NULL);
    aside_value_unref(lone("x"));
}

/* ---- counting by many ---------------------------------------------------------------------------- */

static struct entry *shared;

static void *handle_main(void *arg)
{
    aside_value *own = arg;
    for (long i = test_rounds(2000); i > 0; i--) {
        aside_value *more = aside_value_ref(own);
        CHECK(value_is(more, "shared"));
        aside_value_unref(own);
        own = more;
    }
    aside_value_unref(own);
    return NULL;
}

TEST(handles_and_the_drop_race_and_one_of_them_frees)
{
    pthread_t threads[4];
    ground_init(&ground, 0, 0);
    perturb(test_seed() | 1);
    for (int round = 0; round < 5; round++) {
        shared = make("key", "shared");
        for (size_t i = 0; i < COUNT_OF(threads); i++)
            threads[i] = thread_start(handle_main, entry_handle(shared));
        entry_drop(shared);
        for (size_t i = 0; i < COUNT_OF(threads); i++)
            thread_join(threads[i]);
        CHECK_INT(ground.home->pinned_bytes, 0);
        CHECK_INT(ground.ledger.live_blocks, 1);
    }
    perturb(0);
    ground_fini(&ground);
}

/* The one handle there is goes to another thread, which gives it back at once. */
static _Atomic(aside_value *) offered;
static _Atomic bool over;

static void *give_back_main(void *arg)
{
    while (!load_acquire(&over))
        aside_value_unref(exchange_acq_rel(&offered, NULL));
    return arg;
}

static aside_alloc counting;
static pthread_t dropper;
static _Atomic bool freed_pinned_by_dropper;

static void watching_free(void *block, void *ctx)
{
    if (ground.home->pinned_bytes > 0 && pthread_equal(pthread_self(), dropper))
        store_release(&freed_pinned_by_dropper, true);
    counting.free(block, ctx);
}

/* It saw a handle, and there is none any more when it has given its own reference back. */
TEST(the_index_s_reference_may_be_the_last_of_all)
{
    ground_init(&ground, 0, 0);
    struct mem plain = ground.home->mem;
    counting = plain.hooks;
    ground.home->mem.hooks.free = watching_free;
    dropper = pthread_self();
    pthread_t other = thread_start(give_back_main, NULL);
    perturb(test_seed() | 1);
    while (!load_acquire(&freed_pinned_by_dropper)) {
        struct entry *entry = make("key", "text");
        store_release(&offered, entry_handle(entry));
        entry_drop(entry);
        WAIT_UNTIL(load_acquire(&offered) == NULL);
    }
    perturb(0);
    store_release(&over, true);
    thread_join(other);
    CHECK_INT(ground.home->pinned_bytes, 0);
    CHECK_INT(ground.ledger.live_blocks, 1);
    ground.home->mem = plain;
    ground_fini(&ground);
}

/* ---- addresses that the index has no bits for ---------------------------------------------------- */

static void *far_malloc(size_t size, void *freed)
{
    (void)size, (void)freed;
    return (void *)(uintptr_t)(UINT64_C(1) << ENTRY_POINTER_BITS);
}

static void *far_realloc(void *block, size_t size, void *freed)
{
    (void)block;
    return far_malloc(size, freed);
}

static void far_free(void *block, void *freed)
{
    CHECK(block == far_malloc(0, NULL));
    ++*(int *)freed;
}

TEST(a_block_at_an_address_that_the_index_has_no_bits_for_is_given_back)
{
    int freed = 0;
    ground_init(&ground, 0, 0);
    struct mem near = ground.home->mem;
    ground.home->mem.hooks = (aside_alloc){far_malloc, far_realloc, far_free, &freed};
    CHECK(entry_new(ground.home, "k", 1, 1) == NULL);
    CHECK_INT(freed, 1);
    ground.home->mem = near;
    ground_fini(&ground);
}
