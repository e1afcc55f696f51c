/*
 * index.c -- store/index: what is there is found, at every step of a growth and by readers without a
 * lock; what could not be done has changed nothing; taking apart comes to every entry.
 */
#include "rooms.h"

#include "store/index.h"

enum { KEYS = 1024 };

static struct ground ground;
static struct index index_;
static struct lock lock;
static uint32_t keys[KEYS]; /* the key's bytes; keys[i] == i unless a test makes them collide */
static struct entry *linked[KEYS]; /* what the model says */
static struct index_array *retired[32];
static size_t retired_count;

/* ---- the index under its lock, as a shard uses it ------------------------------------------------ */

static void begin(size_t max_bytes)
{
    ground_init(&ground, max_bytes, 0);
    lock_init(&lock, RANK_SHARD);
    index_init(&index_, &ground.mem, &ground.seed, &ground.budget);
    for (uint32_t i = 0; i < KEYS; i++)
        keys[i] = i;
    memset(linked, 0, sizeof linked);
    retired_count = 0;
}

static uint64_t hash(uint32_t i)
{
    return ground_hash(&ground, &keys[i], sizeof keys[i]);
}

static struct entry *find_bytes(uint64_t its_hash, const void *key, size_t key_len)
{
    return index_find(&index_, its_hash, key, key_len);
}

static struct entry *find(uint32_t i)
{
    return find_bytes(hash(i), &keys[i], sizeof keys[i]);
}

static _Atomic uint64_t *locate(uint32_t i)
{
    return index_locate(&index_, hash(i), &keys[i], sizeof keys[i]);
}

static struct entry *make(uint32_t i)
{
    return entry_make(ground.home, &keys[i], sizeof keys[i], 4, 1, CLOCK_NEVER);
}

static enum index_end insert(uint32_t i)
{
    struct entry *entry = make(i);
    enum index_end end = index_insert(&index_, hash(i), entry);
    if (end == INDEX_OK)
        linked[i] = entry;
    else
        entry_discard(entry);
    return end;
}

static void replace(uint32_t i)
{
    struct entry *old = linked[i];
    linked[i] = make(i);
    index_replace(locate(i), hash(i), linked[i]);
    entry_discard(old);
}

static void drop(uint32_t i)
{
    index_remove(&index_, locate(i));
    entry_discard(linked[i]);
    linked[i] = NULL;
}

static bool grow(void)
{
    size_t buckets = index_next_size(&index_);
    if (!budget_reserve(&ground.budget, index_array_bytes(buckets), 0))
        return false;
    struct index_array *array = index_array_new(&ground.mem, buckets);
    if (array && index_grow(&index_, array))
        return true;
    budget_refund(&ground.budget, index_array_bytes(buckets), 0);
    if (array)
        index_array_free(array);
    return false;
}

/* True when the growth is over. */
static bool step(void)
{
    struct index_array *old = NULL;
    lock_take(&lock);
    bool over = index_step(&index_, &old);
    lock_release(&lock);
    CHECK(over == (old != NULL));
    if (over)
        retired[retired_count++] = old;
    return over;
}

static bool growing(void)
{
    struct index_array *array = atomic_load(&index_.array);
    return atomic_load(&array->next) != NULL;
}

static void fill(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (index_wants_array(&index_))
            CHECK(grow());
        while (growing() && !step()) {
        }
        CHECK_INT(insert(i), INDEX_OK);
    }
}

static void check_all(void)
{
    size_t count = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        CHECK(find(i) == linked[i]);
        _Atomic uint64_t *word = locate(i);
        CHECK((word ? index_entry(atomic_load(word)) : NULL) == linked[i]);
        count += linked[i] != NULL;
    }
    CHECK_INT(index_.count, count);
    CHECK(index_check(&index_, stderr));
}

static void free_array(struct index_array *array)
{
    budget_refund(&ground.budget, index_array_charge(array), 0);
    index_array_free(array);
}

static void end(void)
{
    for (uint32_t i = 0; i < KEYS; i++)
        if (linked[i])
            drop(i);
    CHECK_INT(index_.count, 0);
    for (struct index_array *array = index_empty(&index_), *next; array; array = next) {
        next = atomic_load(&array->next);
        free_array(array);
    }
    while (retired_count)
        free_array(retired[--retired_count]);
    lock_fini(&lock);
    ground_fini(&ground);
}

/* Keys whose hashes agree in the lowest bits: one chain, also after a growth. */
static void make_colliding(uint32_t count, unsigned bits)
{
    uint32_t made = 0;
    for (uint32_t number = KEYS; made < count; number++)
        if ((ground_hash(&ground, &number, sizeof number) & ((1u << bits) - 1)) == 3)
            keys[made++] = number;
}

/* ---- one thread ---------------------------------------------------------------------------------- */

TEST(an_index_begins_with_nothing)
{
    struct index_array *old;
    begin(0);
    CHECK(index_is_stuck(&index_));
    CHECK(index_wants_array(&index_));
    CHECK_INT(insert(1), INDEX_NO_ARRAY);
    CHECK(!index_step(&index_, &old));
    CHECK(index_empty(&index_) == NULL);
    check_all();
    CHECK(grow());
    CHECK(!index_is_stuck(&index_));
    CHECK(!index_wants_array(&index_));
    CHECK_INT(insert(1), INDEX_OK);
    check_all();
    end();
}

static void random_operation(void)
{
    uint32_t i = (uint32_t)random_below(KEYS);
    if (index_wants_array(&index_))
        CHECK(grow());
    switch (random_below(5)) {
    case 0: (void)step(); break;
    case 1:
        if (linked[i])
            drop(i);
        break;
    case 2:
        if (linked[i])
            replace(i);
        break;
    default:
        if (!linked[i])
            CHECK_INT(insert(i), INDEX_OK);
    }
    CHECK(find(i) == linked[i]);
}

TEST(random_operations_agree_with_an_array)
{
    for (int start = 0; start < 4; start++) {
        begin(0);
        for (long round = test_rounds(15000); round > 0; round--) {
            random_operation();
            if (round % 256 == 0)
                check_all();
        }
        check_all();
        end();
    }
}

TEST(a_chain_of_one_hash_is_searched_to_its_end)
{
    enum { CHAIN = 60 };
    begin(0);
    make_colliding(CHAIN, 10);
    CHECK(grow());
    for (uint32_t i = 0; i < CHAIN; i++) {
        CHECK_INT(insert(i), INDEX_OK);
        check_all();
    }
    for (uint32_t i = 0; i < CHAIN; i += 2)
        drop(i);
    check_all();
    int64_t blocks = ground.ledger.live_blocks;
    for (uint32_t i = 0; i < CHAIN; i += 2)
        CHECK_INT(insert(i), INDEX_OK); /* into the words that became free */
    CHECK_INT(ground.ledger.live_blocks, blocks + CHAIN / 2);
    check_all();
    CHECK(grow());
    while (!step())
        check_all();
    check_all();
    for (uint32_t i = 0; i < CHAIN; i++)
        replace(i);
    check_all();
    end();
}

TEST(the_length_is_part_of_a_key)
{
    uint64_t one_hash = test_random();
    begin(0);
    CHECK(grow());
    struct entry *shorter = entry_make(ground.home, "abc", 3, 4, 1, CLOCK_NEVER);
    struct entry *longer = entry_make(ground.home, "abcdef", 6, 4, 1, CLOCK_NEVER);
    CHECK_INT(index_insert(&index_, one_hash, longer), INDEX_OK);
    CHECK(index_locate(&index_, one_hash, "abc", 3) == NULL);
    CHECK(find_bytes(one_hash, "abc", 3) == NULL);
    CHECK_INT(index_insert(&index_, one_hash, shorter), INDEX_OK);
    CHECK(find_bytes(one_hash, "abc", 3) == shorter);
    CHECK(find_bytes(one_hash, "abcdef", 6) == longer);
    index_remove(&index_, index_locate(&index_, one_hash, "abc", 3));
    CHECK(find_bytes(one_hash, "abcdef", 6) == longer);
    index_remove(&index_, index_locate(&index_, one_hash, "abcdef", 6));
    entry_discard(shorter);
    entry_discard(longer);
    end();
}

TEST(an_overwrite_stays_in_its_word)
{
    begin(0);
    fill(100);
    _Atomic uint64_t *word = locate(42);
    replace(42);
    CHECK(locate(42) == word);
    CHECK_INT(atomic_load(word) >> INDEX_TAG_SHIFT, hash(42) >> INDEX_TAG_SHIFT);
    check_all();
    end();
}

TEST(every_key_is_found_after_every_step_of_a_growth)
{
    begin(0);
    fill(300);
    for (int growth = 0; growth < 3; growth++) {
        CHECK(grow());
        CHECK(!grow()); /* one at a time */
        for (bool over = false; !over;) {
            over = step();
            check_all();
        }
    }
    end();
}

TEST(writes_between_the_steps_go_to_the_right_array)
{
    begin(0);
    fill(400);
    CHECK(grow());
    for (uint32_t i = 0; growing(); i++) {
        (void)step();
        drop(i);
        replace(i + 150);
        CHECK_INT(insert(i + 400), INDEX_OK);
        if (i % 8 == 0)
            check_all();
    }
    check_all();
    end();
}

TEST(an_array_of_another_size_is_refused)
{
    begin(0);
    fill(10);
    size_t buckets = index_next_size(&index_);
    struct index_array *array = index_array_new(&ground.mem, 2 * buckets);
    CHECK(!index_grow(&index_, array));
    index_array_free(array);
    check_all();
    end();
}

TEST(a_growth_that_must_wait_is_wanted_again_later)
{
    begin(0);
    fill(39);
    while (!index_wants_array(&index_))
        CHECK_INT(insert((uint32_t)index_.count), INDEX_OK);
    index_grow_later(&index_);
    CHECK(!index_wants_array(&index_));
    for (uint32_t i = (uint32_t)index_.count; !index_wants_array(&index_); i++) {
        CHECK(i < 100);
        CHECK_INT(insert(i), INDEX_OK);
    }
    check_all();
    end();
}

/* Entries may have left between the attempt that failed and the moment at which that is noted. */
TEST(a_growth_that_nobody_wants_any_more_is_not_put_off)
{
    begin(0);
    fill(10);
    size_t grow_at = index_.grow_at;
    index_grow_later(&index_);
    CHECK_INT(index_.grow_at, grow_at);
    check_all();
    end();
}

/* ---- when something is short --------------------------------------------------------------------- */

/* Fills one chain up to where the next entry needs an overflow bucket that is not there. */
static uint32_t fill_chain(void)
{
    make_colliding(64, 10);
    CHECK(grow());
    for (uint32_t i = 0; i < INDEX_WORDS; i++)
        CHECK_INT(insert(i), INDEX_OK);
    return INDEX_WORDS;
}

TEST(an_insert_that_finds_no_memory_changes_nothing)
{
    begin(0);
    uint32_t next = fill_chain();
    struct entry *entry = make(next);
    size_t bytes = ground.budget.bytes;
    ground.ledger.fail_at = 1;
    CHECK_INT(index_insert(&index_, hash(next), entry), INDEX_NO_MEMORY);
    CHECK(ground.budget.bytes == bytes);
    check_all();
    CHECK_INT(index_insert(&index_, hash(next), entry), INDEX_OK);
    linked[next] = entry;
    CHECK(ground.budget.bytes > bytes);
    check_all();
    end();
}

TEST(an_insert_that_finds_no_room_changes_nothing)
{
    begin(index_array_bytes(8) + 100);
    uint32_t next = fill_chain();
    CHECK_INT(insert(next), INDEX_NO_ROOM);
    CHECK(ground.budget.bytes == index_array_bytes(8));
    check_all();
    drop(0);
    CHECK_INT(insert(next), INDEX_OK);
    check_all();
    end();
}

TEST(a_move_that_fails_is_undone_and_tried_again)
{
    enum { CHAIN = 40 };
    begin(0);
    make_colliding(CHAIN, 10);
    CHECK(grow());
    for (uint32_t i = 0; i < CHAIN; i++)
        CHECK_INT(insert(i), INDEX_OK);
    CHECK(grow());
    int failures = 0;
    while (growing()) {
        ground.ledger.fail_at = failures < 5;
        (void)step();
        failures += failures < 5 && ground.ledger.fail_at == 0;
        check_all();
    }
    CHECK_INT(failures, 5);
    end();
}

TEST(a_move_without_room_is_undone_and_writes_go_on)
{
    enum { CHAIN = 14 };
    size_t slab = 0;
    for (int pass = 0; pass < 2; pass++) { /* the first learns what an overflow slab is charged */
        begin(pass == 0 ? 0 : index_array_bytes(8) + index_array_bytes(16) + slab);
        make_colliding(CHAIN + 4, 10);
        CHECK(grow());
        for (uint32_t i = 0; i < CHAIN; i++)
            CHECK_INT(insert(i), INDEX_OK);
        slab = ground.budget.bytes - index_array_bytes(8);
        CHECK(slab > 0);
        CHECK(grow());
        for (int i = 0; i < 20 && growing(); i++) {
            (void)step();
            check_all();
        }
        CHECK_INT(growing(), pass == 1);
        drop(1);
        replace(2);
        CHECK_INT(insert(CHAIN), INDEX_OK);
        check_all();
        end();
    }
}

TEST(an_array_without_memory_is_none)
{
    begin(0);
    ground.ledger.fail_at = 1;
    CHECK(index_array_new(&ground.mem, 8) == NULL);
    CHECK(index_array_new(&ground.mem, SIZE_MAX / 64) == NULL);
    CHECK(index_array_new(&ground.mem, SIZE_MAX) == NULL);
    CHECK_INT(ground.budget.bytes, 0);
    end();
}

TEST(the_bytes_of_an_array_cover_what_was_allocated)
{
    begin(0);
    int64_t before = ground.ledger.live_bytes;
    for (size_t buckets = 8; buckets <= 4096; buckets *= 2) {
        struct index_array *array = index_array_new(&ground.mem, buckets);
        CHECK_INT((uintptr_t)index_bucket_at(array, 0) % 64, 0);
        CHECK((int64_t)index_array_charge(array) >= ground.ledger.live_bytes - before);
        CHECK(index_array_charge(array) == index_array_bytes(buckets));
        index_array_free(array);
    }
    end();
}

/* ---- taking apart -------------------------------------------------------------------------------- */

static unsigned met[KEYS];

static void note(struct entry **entries, unsigned count)
{
    for (unsigned j = 0; j < count; j++) {
        uint32_t key, i = 0;
        memcpy(&key, entries[j]->bytes, sizeof key);
        while (keys[i] != key)
            i++;
        CHECK(linked[i] == entries[j]);
        met[i]++;
    }
}

static void check_met_once(void)
{
    for (uint32_t i = 0; i < KEYS; i++)
        CHECK_INT(met[i], linked[i] ? 1 : 0);
}

static void take_apart(struct index_array *array, unsigned max)
{
    struct entry *entries[32];
    for (unsigned count; (count = index_array_take(array, entries, max));) {
        CHECK(count <= max);
        note(entries, count);
    }
    CHECK_INT(index_array_take(array, entries, max), 0);
}

/* Empties the index after so many steps of a growth and takes every array apart. */
static void check_taken(int steps, unsigned max)
{
    begin(0);
    fill(333);
    memset(met, 0, sizeof met);
    for (int i = 0; i < steps; i++) {
        if (i == 0)
            CHECK(grow());
        (void)step();
    }
    struct index_array *array = index_empty(&index_), *next;
    CHECK_INT(index_.count, 0);
    CHECK(find(7) == NULL);
    CHECK(index_check(&index_, stderr));
    for (; array; array = next) {
        next = atomic_load(&array->next);
        take_apart(array, max);
        free_array(array);
    }
    check_met_once();
    for (uint32_t i = 0; i < KEYS; i++) {
        if (linked[i])
            entry_discard(linked[i]);
        linked[i] = NULL;
    }
    end();
}

TEST(what_was_emptied_gives_every_entry_once)
{
    check_taken(0, 1);
    check_taken(0, 5);
    check_taken(0, 32);
}

TEST(also_when_it_was_growing)
{
    check_taken(1, 3);
    check_taken(10, 7);
    check_taken(25, 32);
}

TEST(an_emptied_index_begins_anew)
{
    begin(0);
    fill(100);
    struct index_array *array = index_empty(&index_);
    struct entry *entries[128];
    CHECK_INT(index_array_take(array, entries, 128), 100);
    for (int i = 0; i < 100; i++)
        entry_discard(entries[i]);
    memset(linked, 0, sizeof linked);
    free_array(array);
    CHECK(index_is_stuck(&index_));
    CHECK_INT(insert(5), INDEX_NO_ARRAY);
    fill(200);
    check_all();
    end();
}

/* ---- the check ----------------------------------------------------------------------------------- */

static FILE *nowhere;

static void expect_broken(void)
{
    CHECK(!index_check(&index_, nowhere));
    CHECK(!index_check(&index_, NULL));
}

/* In a bucket that this hash does not belong to. */
static _Atomic uint64_t *empty_word_elsewhere(uint64_t its_hash)
{
    struct index_array *array = atomic_load(&index_.array);
    for (size_t at = its_hash + 1;; at++) {
        struct index_bucket *other = index_bucket_at(array, at & array->mask);
        for (unsigned i = 0; i < INDEX_WORDS; i++)
            if (((at ^ its_hash) & array->mask) && atomic_load(&other->word[i]) == 0)
                return &other->word[i];
    }
}

TEST(the_check_reports_what_is_broken)
{
    begin(0);
    nowhere = fopen("/dev/null", "we");
    fill(200);
    _Atomic uint64_t *word = locate(17);
    uint64_t right = atomic_load(word);
    index_.count++;
    expect_broken();
    index_.count -= 2;
    expect_broken();
    index_.count++;
    atomic_store(word, right ^ UINT64_C(1) << INDEX_TAG_SHIFT); /* another tag */
    expect_broken();
    atomic_store(word, 0);
    expect_broken();
    _Atomic uint64_t *other = empty_word_elsewhere(hash(17));
    atomic_store(other, right);
    expect_broken();
    atomic_store(other, 0);
    atomic_store(word, right);
    check_all();
    fclose(nowhere);
    end();
}

/* ---- readers without a lock ---------------------------------------------------------------------- */

enum { STABLE = 200 }; /* keys 0 to 199 are always there; the others come and go */
static _Atomic bool done;
static _Atomic long reads;

static void *reader_main(void *arg)
{
    (void)arg;
    while (!load_acquire(&done)) {
        uint32_t i = (uint32_t)random_below(KEYS);
        struct entry *entry = index_find(&index_, hash(i), &keys[i], sizeof keys[i]);
        CHECK(i >= STABLE || entry != NULL);
        CHECK(!entry || entry_has_key(entry, &keys[i], sizeof keys[i]));
        CHECK(!entry || memcmp(entry_data(entry), "vvvv", 4) == 0);
        fetch_add_relaxed(&reads, 1);
    }
    return NULL;
}

/* Entries that were unlinked stay until the readers have gone. */
static struct entry **unlinked;
static size_t unlinked_count;

static void churn(void)
{
    uint32_t i = (uint32_t)random_below(KEYS);
    struct entry *old = linked[i];
    if (index_wants_array(&index_) ||
        (index_next_size(&index_) < 1024 && !growing() && random_below(50) == 0))
        CHECK(grow());
    (void)step();
    if (!old) {
        CHECK_INT(insert(i), INDEX_OK);
        return;
    }
    if (i < STABLE || random_below(2)) {
        linked[i] = make(i);
        index_replace(locate(i), hash(i), linked[i]);
    } else {
        index_remove(&index_, locate(i));
        linked[i] = NULL;
    }
    unlinked[unlinked_count++] = old;
}

TEST(readers_never_miss_a_key_that_is_always_there)
{
    pthread_t readers[2];
    long rounds = test_rounds(6000);
    begin(0);
    unlinked = calloc((size_t)rounds, sizeof(struct entry *));
    CHECK(unlinked != NULL);
    fill(STABLE);
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(readers); i++)
        readers[i] = thread_start(reader_main, NULL);
    for (long round = 0; round < rounds; round++)
        churn();
    store_release(&done, true);
    for (size_t i = 0; i < COUNT_OF(readers); i++)
        thread_join(readers[i]);
    perturb(0);
    CHECK(reads > 0);
    check_all();
    while (unlinked_count)
        entry_discard(unlinked[--unlinked_count]);
    free(unlinked);
    end();
}
