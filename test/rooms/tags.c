/*
 * tags.c -- store/tags: what was read before an invalidation is no longer good if it has the tag,
 * what was read after it is, whoever else has it, comes or goes meanwhile; and what tags count for.
 */
#include "rooms.h"

#include "base/siphash.h"
#include "store/tags.h"

static struct ground ground;
static struct tags tags;

static void begin(size_t max_bytes)
{
    static const uint8_t key[16] = "the same always";
    ground_init(&ground, max_bytes, 0);
    tags_init(&tags, &ground.mem, &ground.budget, key);
}

static void end(void)
{
    CHECK_INT(table_count(&tags.table), 0);
    CHECK_INT(tags_lasting(&tags), ground.budget.lasting);
    tags_fini(&tags);
    CHECK_INT(ground.budget.lasting, 0);
    ground_fini(&ground);
}

static aside_status try_add(struct tag_set **set, const char *text)
{
    return tags_add(&tags, set, text, strlen(text));
}

static void add(struct tag_set **set, const char *text)
{
    CHECK_STATUS(try_add(set, text), ASIDE_OK);
}

static struct tag_set *set_of(const char *text)
{
    struct tag_set *set = NULL;
    add(&set, text);
    return set;
}

static aside_status invalidate(const char *text)
{
    return tags_invalidate(&tags, text, strlen(text));
}

static char *nth_name(char name[16], size_t nth)
{
    snprintf(name, 16, "tag %zu", nth);
    return name;
}

static uint32_t slot_of(const char *text)
{
    return (uint32_t)siphash(tags.key, text, strlen(text)) & tags.floor_mask;
}

/* Another name with this one's slot, or the first from nth on with another. */
static void find_name(char name[16], const char *beside, bool same)
{
    size_t nth = 0;
    do
        nth_name(name, nth++);
    while ((slot_of(name) == slot_of(beside)) != same || strcmp(name, beside) == 0);
}

/* ---- one thread ---------------------------------------------------------------------------------- */

TEST(a_value_without_tags_is_good)
{
    begin(0);
    CHECK(tags_valid(NULL, 0));
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    CHECK(tags_valid(NULL, 0));
    CHECK_INT(tags_charge(NULL), 0);
    tags_drop(NULL);
    end();
}

TEST(what_was_read_before_an_invalidation_is_not_good_and_what_was_read_after_it_is)
{
    begin(0);
    uint64_t before = tags_now(&tags);
    struct tag_set *set = set_of("tag");
    CHECK(tags_valid(set, before));
    CHECK_STATUS(invalidate("tag"), ASIDE_OK);
    CHECK(!tags_valid(set, before));
    uint64_t after = tags_now(&tags);
    CHECK(tags_valid(set, after));
    CHECK_STATUS(invalidate("tag"), ASIDE_OK);
    CHECK(!tags_valid(set, after));
    CHECK(tags_valid(set, tags_now(&tags)));
    tags_drop(set);
    end();
}

TEST(each_value_that_has_the_tag_is_invalidated_and_any_of_its_tags_does)
{
    static const char *const names[] = {"a", "b", "c"};
    begin(0);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct tag_set *all = set_of("a"), *same = set_of(names[i]), *other = set_of("d");
        add(&all, "b");
        add(&all, "c");
        uint64_t before = tags_now(&tags);
        CHECK_STATUS(invalidate(names[i]), ASIDE_OK);
        CHECK(!tags_valid(all, before) && !tags_valid(same, before) && tags_valid(other, before));
        tags_drop(all);
        tags_drop(same);
        tags_drop(other);
    }
    end();
}

TEST(to_invalidate_what_nobody_has_is_a_miss)
{
    begin(0);
    struct tag_set *set = set_of("tag");
    uint64_t before = tags_now(&tags);
    CHECK_STATUS(invalidate("another"), ASIDE_MISS);
    CHECK_INT(tags_now(&tags), before + 1);
    CHECK(tags_valid(set, before));
    tags_drop(set);
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    end();
}

TEST(a_fetch_that_began_before_an_invalidation_of_what_nobody_had_is_fenced)
{
    begin(0);
    uint64_t before = tags_now(&tags);
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    uint64_t after = tags_now(&tags);
    struct tag_set *set = set_of("tag");
    CHECK(!tags_valid(set, before));
    CHECK(tags_valid(set, after));
    tags_drop(set);
    end();
}

TEST(a_tag_that_is_made_anew_begins_where_it_was_invalidated_last)
{
    begin(0);
    struct tag_set *set = set_of("tag");
    uint64_t before = tags_now(&tags);
    CHECK_STATUS(invalidate("tag"), ASIDE_OK);
    CHECK_STATUS(invalidate("another"), ASIDE_MISS);
    tags_drop(set);
    CHECK_INT(table_count(&tags.table), 0);
    set = set_of("tag");
    CHECK_INT(set->tag[0]->at, before + 1);
    CHECK(!tags_valid(set, before));
    CHECK(tags_valid(set, before + 1));
    tags_drop(set);
    end();
}

TEST(who_leaves_later_does_not_lower_the_floor)
{
    char old[16];
    begin(0);
    find_name(old, "tag", true);
    struct tag_set *set = set_of(old);
    CHECK_STATUS(invalidate(old), ASIDE_OK);
    uint64_t between = tags_now(&tags);
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    tags_drop(set);
    set = set_of("tag");
    CHECK(!tags_valid(set, between));
    tags_drop(set);
    end();
}

TEST(tags_of_one_slot_fence_what_is_new_and_nothing_that_is_there)
{
    char same[16], other[16];
    begin(0);
    find_name(same, "tag", true);
    find_name(other, "tag", false);
    struct tag_set *there = set_of(same);
    uint64_t before = tags_now(&tags);
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    struct tag_set *now = set_of(same), *elsewhere = set_of(other);
    CHECK(tags_valid(there, before) && tags_valid(now, before) && tags_valid(elsewhere, before));
    tags_drop(there);
    tags_drop(now);
    now = set_of(same);
    CHECK(!tags_valid(now, before) && tags_valid(now, before + 1));
    tags_drop(now);
    tags_drop(elsewhere);
    end();
}

TEST(of_thousands_of_tags_only_the_one_is_invalidated)
{
    enum { NAMES = 5000 };
    static struct tag_set *sets[NAMES];
    char name[16];
    begin(0);
    for (size_t i = 0; i < NAMES; i++)
        sets[i] = set_of(nth_name(name, i));
    CHECK_INT(table_count(&tags.table), NAMES);
    for (int turn = 0; turn < 20; turn++) {
        uint64_t before = tags_now(&tags);
        size_t chosen = random_below(NAMES);
        CHECK_STATUS(invalidate(nth_name(name, chosen)), ASIDE_OK);
        for (size_t i = 0; i < NAMES; i++)
            CHECK(tags_valid(sets[i], before) == (i != chosen));
    }
    for (size_t i = 0; i < NAMES; i++)
        tags_drop(sets[i]);
    memset(sets, 0, sizeof sets);
    end();
}

TEST(a_tag_that_a_set_has_is_not_added_twice)
{
    begin(0);
    struct tag_set *set = set_of("a");
    add(&set, "b");
    size_t lasting = tags_lasting(&tags);
    add(&set, "a");
    add(&set, "b");
    CHECK_INT(set->count, 2);
    CHECK_INT(set->tag[0]->refs, 1);
    CHECK_INT(tags_lasting(&tags), lasting);
    tags_drop(set);
    end();
}

TEST(sets_share_their_tags)
{
    begin(0);
    struct tag_set *one = set_of("tag"), *two = set_of("tag");
    CHECK(one->tag[0] == two->tag[0]);
    CHECK_INT(one->tag[0]->refs, 2);
    uint64_t before = tags_now(&tags);
    tags_drop(one);
    CHECK_STATUS(invalidate("tag"), ASIDE_OK);
    CHECK(!tags_valid(two, before));
    tags_drop(two);
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    end();
}

/* A set moves as it grows, which the ledger's guards look at. */
TEST(a_set_takes_the_most_tags_and_then_only_those_it_has)
{
    struct tag_set *set = NULL;
    char name[16];
    begin(0);
    for (size_t i = 0; i < ASIDE_MAX_TAGS; i++) {
        CHECK(!tags_is_full(set));
        add(&set, nth_name(name, i));
        CHECK_INT(set->count, i + 1);
        CHECK(set->room >= set->count && set->room <= 2 * set->count);
        CHECK_INT(tags_charge(set), mem_charge(sizeof *set + set->room * sizeof(void *)));
    }
    CHECK(tags_is_full(set));
    size_t lasting = tags_lasting(&tags);
    CHECK_STATUS(try_add(&set, "one more"), ASIDE_E_BUSY);
    CHECK_INT(tags_lasting(&tags), lasting);
    add(&set, nth_name(name, 0));
    add(&set, nth_name(name, ASIDE_MAX_TAGS - 1));
    for (size_t i = 0; i < ASIDE_MAX_TAGS; i++) {
        uint64_t before = tags_now(&tags);
        CHECK(tags_valid(set, before));
        CHECK_STATUS(invalidate(nth_name(name, i)), ASIDE_OK);
        CHECK(!tags_valid(set, before));
    }
    tags_drop(set);
    end();
}

TEST(a_name_may_be_empty_or_long_and_have_any_bytes)
{
    static const char zeros[2], longest[ASIDE_MAX_TAG] = {'\xff', 0, '\x80'};
    static const struct {
        const char *bytes;
        size_t length;
    } names[] = {{NULL, 0},
                 {zeros, 1},
                 {zeros, 2},
                 {"a\0b", 3},
                 {"a", 1},
                 {"a\0c", 3},
                 {"\xff\xfe\n", 3},
                 {longest, ASIDE_MAX_TAG - 1},
                 {longest, ASIDE_MAX_TAG}};
    struct tag_set *sets[COUNT_OF(names)] = {NULL};
    begin(0);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        for (int twice = 0; twice < 2; twice++)
            CHECK_STATUS(tags_add(&tags, &sets[i], names[i].bytes, names[i].length), ASIDE_OK);
    CHECK_INT(table_count(&tags.table), COUNT_OF(names));
    CHECK_STATUS(tags_add(&tags, &sets[0], "", 0), ASIDE_OK);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        uint64_t before = tags_now(&tags);
        CHECK_INT(sets[i]->count, 1);
        CHECK_STATUS(tags_invalidate(&tags, names[i].bytes, names[i].length), ASIDE_OK);
        for (size_t k = 0; k < COUNT_OF(names); k++)
            CHECK(tags_valid(sets[k], before) == (k != i));
    }
    for (size_t i = 0; i < COUNT_OF(names); i++)
        tags_drop(sets[i]);
    end();
}

/* ---- what they count for ------------------------------------------------------------------------- */

TEST(a_cache_without_tags_counts_and_allocates_nothing)
{
    begin(0);
    int64_t calls = ground.ledger.calls;
    CHECK_INT(tags_lasting(&tags), 0);
    CHECK_INT(ground.ledger.calls, calls);
    end();
    CHECK_INT(ground.ledger.calls, calls);
}

TEST(tags_are_counted_once_and_their_floors_with_the_first)
{
    const size_t floors = mem_charge(TAGS_FLOORS * sizeof(uint64_t));
    begin(0);
    struct tag_set *one = set_of("a"), *two = set_of("a");
    CHECK_INT(ground.budget.bytes, floors + tag_charge(1));
    add(&two, "bcd");
    CHECK_INT(ground.budget.bytes, floors + tag_charge(1) + tag_charge(3));
    CHECK_INT(tags_lasting(&tags), ground.budget.bytes);
    CHECK_INT(ground.budget.lasting, ground.budget.bytes);
    tags_drop(two);
    CHECK_INT(ground.budget.bytes, floors + tag_charge(1));
    tags_drop(one);
    CHECK_INT(ground.budget.bytes, floors);
    end();
    begin(0);
    CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
    CHECK_INT(tags_lasting(&tags), floors);
    end();
}

TEST(a_small_cache_has_few_floors)
{
    static const struct {
        size_t max_bytes, floors;
    } cases[] = {{0, TAGS_FLOORS},
                 {1, 1},
                 {64 * 8, 1},
                 {64 * 16 - 1, 1},
                 {64 * 16, 2},
                 {4096, 8},
                 {1 << 19, TAGS_FLOORS},
                 {1 << 30, TAGS_FLOORS}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        begin(cases[i].max_bytes);
        CHECK_INT(tags.floor_mask + 1, cases[i].floors);
        (void)invalidate("tag");
        CHECK(tags_lasting(&tags) <= mem_charge(cases[i].floors * sizeof(uint64_t)));
        end();
    }
}

/* So that so many bytes are left; what others had reserved before is told. */
static size_t fill_budget(size_t left)
{
    size_t taken = ground.budget.max_bytes - ground.budget.bytes - left;
    CHECK(budget_reserve(&ground.budget, taken, 0));
    return taken;
}

TEST(a_tag_that_fits_to_the_last_byte_fits_and_one_that_does_not_is_refused)
{
    struct tag_set *set = NULL;
    begin(4096);
    size_t taken = fill_budget(tag_charge(3) - 1);
    CHECK_STATUS(try_add(&set, "tag"), ASIDE_E_BUSY);
    CHECK(set == NULL);
    CHECK_INT(tags_lasting(&tags), 0);
    CHECK_INT(ground.ledger.live_blocks, 1); /* the home */
    budget_refund(&ground.budget, 1, 0);
    add(&set, "tag");
    CHECK_INT(ground.budget.bytes, 4096);
    tags_drop(set);
    CHECK_INT(tags_lasting(&tags), 0); /* there was no room for floors */
    budget_refund(&ground.budget, taken - 1, 0);
    end();
}

TEST(a_refused_tag_changes_nothing_and_those_that_are_there_need_no_room)
{
    begin(4096);
    struct tag_set *set = set_of("a"), *other = set_of("b");
    size_t lasting = tags_lasting(&tags), taken = fill_budget(0);
    int64_t blocks = ground.ledger.live_blocks;
    CHECK_STATUS(try_add(&set, "c"), ASIDE_E_BUSY);
    CHECK(set->count == 1 && set->room == 1 && !tags_is_full(set));
    CHECK_INT(tags_lasting(&tags), lasting);
    CHECK_INT(ground.ledger.live_blocks, blocks);
    add(&set, "b");
    tags_drop(other);
    CHECK_INT(tags_lasting(&tags), lasting);
    tags_drop(set);
    CHECK_INT(tags_lasting(&tags), lasting - 2 * tag_charge(1));
    CHECK_INT(ground.budget.bytes, 4096 - 2 * tag_charge(1));
    set = set_of("c");
    add(&set, "d");
    CHECK_INT(ground.budget.bytes, 4096);
    tags_drop(set);
    budget_refund(&ground.budget, taken, 0);
    end();
}

/* ---- memory that is short ------------------------------------------------------------------------ */

static size_t floors_charge(void)
{
    return mem_charge((tags.floor_mask + (size_t)1) * sizeof(uint64_t));
}

/* As if there had never been room for them. */
static void take_the_floors_away(void)
{
    mem_free(tags.mem, tags.floors);
    tags.floors = NULL;
    tags.lasting -= floors_charge();
    budget_refund_lasting(&ground.budget, floors_charge());
}

static bool new_tag_is_good(const char *name, uint64_t read_at)
{
    struct tag_set *set = set_of(name);
    bool valid = tags_valid(set, read_at);
    CHECK(tags_valid(set, tags_now(&tags)));
    tags_drop(set);
    return valid;
}

TEST(without_floors_an_invalidation_fences_more_than_it_had_to_and_does_not_fail)
{
    begin(1 << 20);
    struct tag_set *there = set_of("there");
    for (int of_memory = 0; of_memory < 2; of_memory++) {
        take_the_floors_away();
        size_t taken = of_memory ? 0 : fill_budget(floors_charge() - 1);
        uint64_t before = tags_now(&tags);
        ground.ledger.fail_at = of_memory;
        CHECK_STATUS(invalidate("tag"), ASIDE_MISS);
        CHECK(tags.floors == NULL);
        CHECK_INT(tags_lasting(&tags), tag_charge(5));
        budget_refund(&ground.budget, taken, 0);
        CHECK(tags_valid(there, before));
        uint64_t after = tags_now(&tags);
        CHECK_STATUS(invalidate("tag"), ASIDE_MISS); /* from here on there are floors */
        CHECK(tags.floors != NULL);
        CHECK(!new_tag_is_good("tag", before) && !new_tag_is_good("other", before));
        CHECK(!new_tag_is_good("tag", after) && new_tag_is_good("other", after));
    }
    tags_drop(there);
    end();
}

TEST(what_leaves_where_there_are_no_floors_is_not_forgotten)
{
    begin(tag_charge(3));
    struct tag_set *set = set_of("tag");
    uint64_t before = tags_now(&tags);
    CHECK_STATUS(invalidate("tag"), ASIDE_OK);
    tags_drop(set);
    CHECK(tags.floors == NULL);
    CHECK(!new_tag_is_good("tag", before));
    end();
}

enum { SETS = 12 }; /* so many tags that the table grows */

static size_t bytes_of_tags(void)
{
    size_t lasting = tags_lasting(&tags);
    return tags.floors ? lasting - floors_charge() : lasting;
}

/* What could not be added is not in the set, and is nowhere else. */
static void add_in_a_shortage(struct tag_set **set, const char *name)
{
    uint32_t count = *set ? (*set)->count : 0;
    size_t bytes = bytes_of_tags();
    uint64_t before = tags_now(&tags);
    aside_status status = try_add(set, name);
    if (status == ASIDE_OK) {
        CHECK_INT((*set)->count, count + 1);
        CHECK_STATUS(invalidate(name), ASIDE_OK);
        CHECK(!tags_valid(*set, before));
    } else {
        CHECK_STATUS(status, ASIDE_E_NOMEM);
        CHECK_INT(*set ? (*set)->count : 0, count);
        CHECK_INT(bytes_of_tags(), bytes);
        CHECK_STATUS(invalidate(name), ASIDE_MISS);
    }
}

static void live_through_a_shortage(void)
{
    struct tag_set *sets[SETS] = {NULL};
    char name[16];
    for (size_t i = 0; i < SETS * ASIDE_MAX_TAGS; i++)
        add_in_a_shortage(&sets[i / ASIDE_MAX_TAGS], nth_name(name, i));
    for (size_t i = 0; i < SETS; i++)
        tags_drop(sets[i]);
    CHECK_INT(bytes_of_tags(), 0);
}

TEST(each_allocation_that_fails_is_an_answer_and_leaves_no_trace)
{
    bool reached = true;
    for (int64_t nth = 1; reached; nth++)
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            begin(0);
            uint64_t before = tags_now(&tags);
            ground.ledger.fail_for_ever = for_ever;
            ground.ledger.fail_at = nth;
            live_through_a_shortage();
            reached = ground.ledger.fail_at == 0 || (for_ever && ground.ledger.fail_at == 1);
            ground.ledger.fail_at = 0;
            ground.ledger.fail_for_ever = false;
            CHECK(!new_tag_is_good("tag 0", before));
            live_through_a_shortage();
            end();
        }
}

/* ---- threads ------------------------------------------------------------------------------------- */

enum { NAMES = 5, INVALIDATORS = 2, FETCHERS = 3 };

static char names[NAMES][16];

/* What each invalidator has begun and ended, by name. */
static struct {
    _Atomic uint64_t begun[NAMES], ended[NAMES];
} told[INVALIDATORS];
static _Atomic int fetching;
static _Atomic long fenced, good;
static bool exact; /* no two names share a floor */

/* Names whose slots are their own, where there are enough. */
static void choose_names(void)
{
    size_t nth = 0;
    for (size_t i = 0; i < NAMES; i++) {
        bool alone;
        do {
            alone = true;
            nth_name(names[i], nth++);
            for (size_t k = 0; k < i; k++)
                alone = alone && slot_of(names[k]) != slot_of(names[i]);
        } while (!alone && tags.floor_mask + 1 >= NAMES);
    }
}

static void *invalidate_main(void *its_number)
{
    size_t self = *(const size_t *)its_number;
    while (fetching > 0) {
        size_t name = random_below(NAMES);
        told[self].begun[name]++;
        CHECK(invalidate(names[name]) >= ASIDE_OK);
        told[self].ended[name]++;
        test_yield();
    }
    return NULL;
}

struct instants {
    uint64_t begun[INVALIDATORS][NAMES], ended[INVALIDATORS][NAMES];
};

static void note_ended(struct instants *at)
{
    for (size_t i = 0; i < INVALIDATORS; i++)
        for (size_t name = 0; name < NAMES; name++)
            at->ended[i][name] = told[i].ended[name];
}

static void note_begun(struct instants *at)
{
    for (size_t i = 0; i < INVALIDATORS; i++)
        for (size_t name = 0; name < NAMES; name++)
            at->begun[i][name] = told[i].begun[name];
}

/* Whether one of these tags was invalidated for sure, or perhaps, between two instants: begun after
 * the one and ended before the other; ended after the one and begun before the other. */
static bool must_be_fenced(const struct instants *noted, const struct instants *looked,
                           unsigned names_in)
{
    for (size_t i = 0; i < INVALIDATORS; i++)
        for (size_t name = 0; name < NAMES; name++)
            if (names_in >> name & 1 && looked->ended[i][name] > noted->begun[i][name])
                return true;
    return false;
}

static bool may_be_fenced(const struct instants *noted, const struct instants *looked,
                          unsigned names_in)
{
    for (size_t i = 0; i < INVALIDATORS; i++)
        for (size_t name = 0; name < NAMES; name++)
            if (names_in >> name & 1 && looked->begun[i][name] > noted->ended[i][name])
                return true;
    return false;
}

static void inspect(const struct tag_set *set, uint64_t read_at, const struct instants *noted,
                    unsigned names_in)
{
    struct instants looked;
    note_ended(&looked);
    bool valid = tags_valid(set, read_at);
    note_begun(&looked);
    CHECK(!valid || !must_be_fenced(noted, &looked, names_in));
    CHECK(valid || !exact || may_be_fenced(noted, &looked, names_in));
    atomic_fetch_add(valid ? &good : &fenced, 1);
}

static void *fetch_main(void *arg)
{
    (void)arg;
    for (long i = test_rounds(4000); i > 0; i--) {
        struct tag_set *set = NULL;
        struct instants noted;
        unsigned names_in = (unsigned)random_below(1U << NAMES);
        note_ended(&noted);
        uint64_t read_at = tags_now(&tags);
        note_begun(&noted);
        for (size_t name = 0; name < NAMES; name++)
            if (names_in >> name & 1)
                add(&set, names[name]);
        for (size_t looks = random_below(3) + 1; looks > 0; looks--)
            inspect(set, read_at, &noted, names_in);
        tags_drop(set);
    }
    fetching--;
    return NULL;
}

static void fetch_while_others_invalidate(size_t max_bytes)
{
    static const size_t numbers[INVALIDATORS] = {0, 1};
    pthread_t invalidators[INVALIDATORS], fetchers[FETCHERS];
    begin(max_bytes);
    choose_names();
    exact = tags.floor_mask + 1 >= NAMES;
    fetching = FETCHERS;
    perturb(test_seed() | 1);
    for (size_t i = 0; i < FETCHERS; i++)
        fetchers[i] = thread_start(fetch_main, NULL);
    for (size_t i = 0; i < INVALIDATORS; i++)
        invalidators[i] = thread_start(invalidate_main, (void *)(uintptr_t)&numbers[i]);
    for (size_t i = 0; i < FETCHERS; i++)
        thread_join(fetchers[i]);
    for (size_t i = 0; i < INVALIDATORS; i++)
        thread_join(invalidators[i]);
    perturb(0);
    CHECK(good > 0 && fenced > 0);
    end();
}

TEST(fetches_are_fenced_by_what_was_invalidated_after_they_began_and_by_nothing_else)
{
    fetch_while_others_invalidate(0);
}

TEST(with_one_floor_for_all_no_fetch_that_must_be_fenced_is_missed)
{
    fetch_while_others_invalidate(1000);
    CHECK(!exact);
}

/* Of one name, so that its last references go while others come for it. */
static void *share_main(void *arg)
{
    (void)arg;
    for (long i = test_rounds(20000); i > 0; i--) {
        struct tag_set *one = set_of("tag"), *two = set_of("tag");
        CHECK(one->tag[0] == two->tag[0]); /* never another beside it */
        CHECK(one->tag[0]->refs >= 2);
        tags_drop(one);
        if (i % 64 == 0)
            test_yield();
        CHECK(two->tag[0]->length == 3 && memcmp(two->tag[0]->name, "tag", 3) == 0);
        tags_drop(two);
    }
    return NULL;
}

TEST(a_tag_whose_last_reference_goes_as_another_comes_is_one_tag_and_freed_once)
{
    pthread_t threads[4];
    begin(0);
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(share_main, NULL);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    CHECK_INT(tags_lasting(&tags), mem_charge(TAGS_FLOORS * sizeof(uint64_t)));
    end();
}

static void *invalidate_one_main(void *arg)
{
    (void)arg;
    while (fetching > 0)
        (void)invalidate("tag");
    return NULL;
}

/* Else he would begin anew with what is outdated from the start. */
TEST(who_finds_his_value_outdated_notes_a_count_at_which_a_new_one_is_not)
{
    begin(0);
    struct tag_set *set = set_of("tag");
    fetching = 1;
    perturb(test_seed() | 1);
    pthread_t thread = thread_start(invalidate_one_main, NULL);
    for (long i = test_rounds(20000); i > 0; i--) {
        uint64_t at = load_acquire(&set->tag[0]->at);
        CHECK(tags_now(&tags) >= at);
    }
    fetching = 0;
    thread_join(thread);
    perturb(0);
    tags_drop(set);
    end();
}

/* ---- fork ---------------------------------------------------------------------------------------- */

static bool is_well_in_the_child(struct tag_set *there, size_t lasting)
{
    struct tag_set *set = NULL;
    uint64_t before = tags_now(&tags);
    bool well = tags_lasting(&tags) == lasting && try_add(&set, "tag") == ASIDE_OK;
    well = well && set->tag[0] == there->tag[0] && invalidate("tag") == ASIDE_OK;
    well = well && !tags_valid(set, before) && !tags_valid(there, before);
    tags_drop(set);
    tags_drop(there);
    return well && invalidate("tag") == ASIDE_MISS;
}

/* As base/fork does it. */
TEST(in_the_child_of_a_fork_tags_are_as_they_were)
{
    begin(0);
    struct tag_set *set = set_of("tag");
    size_t lasting = tags_lasting(&tags);
    lock_seize(&tags.lock);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        lock_renew(&tags.lock);
        CHECK(is_well_in_the_child(set, lasting));
        end();
        _exit(0);
    }
    lock_yield(&tags.lock);
    int status = 1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    tags_drop(set);
    end();
}
