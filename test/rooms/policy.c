/*
 * policy.c -- store/policy: who goes, and in which order, written out by hand for each rule; random
 * operations against a plain model; and through a cache, that what is asked for stays while what is
 * not goes.
 */
#include "rooms.h"

#include "store/policy.h"

#include <limits.h>

/* ---- a policy by hand ---------------------------------------------------------------------------- */

enum { ENTRIES = 300, ROOM = 512, NOBODY = -1 };

static struct policy policy;
static _Atomic uint8_t rule;
/* Without keys and values: the number is the print. */
static _Alignas(struct entry_cold) unsigned char blocks[ENTRIES][ENTRY_BARE];
static bool in[ENTRIES];
static _Alignas(64) unsigned char memory[ROOM * 2 * sizeof(uint64_t)], more[2 * sizeof memory];

static struct entry *entry_at(int i)
{
    return entry_of_cold(blocks[i]);
}

static void use_rule(enum policy_rule next)
{
    atomic_store(&rule, (uint8_t)next);
}

static void begin_with(enum policy_rule first, bool weighs)
{
    memset(blocks, 0, sizeof blocks);
    memset(in, 0, sizeof in);
    memset(memory, 0, sizeof memory);
    CHECK(policy_memory_bytes(ROOM, 1) <= sizeof memory);
    use_rule(first);
    policy_init(&policy, &rule, weighs);
    policy_remember(&policy, memory, ROOM, 1);
}

static void begin(enum policy_rule first)
{
    begin_with(first, false);
}

static uint32_t print_of(int i)
{
    return (uint32_t)i;
}

static uint64_t hash_of(int i)
{
    return (uint64_t)print_of(i) << 2;
}

static void add(int i)
{
    atomic_store(&entry_at(i)->head.marks, 0);
    policy_add(&policy, entry_at(i), hash_of(i));
    in[i] = true;
}

static void drop(int i)
{
    policy_remove(&policy, entry_at(i));
    in[i] = false;
}

/* From the first on, one after the other. */
static void add_up_to(int first, int end)
{
    for (int i = first; i < end; i++)
        add(i);
}

static void hit(int i, int times)
{
    while (times--)
        policy_hit(entry_at(i));
}

static unsigned heat(int i)
{
    return atomic_load(&entry_at(i)->head.marks) & ENTRY_HEAT;
}

static unsigned counted(int i)
{
    return sketch_count(&policy.sketch, print_of(i));
}

static int number_of(const struct entry *entry)
{
    ptrdiff_t offset = (unsigned char *)entry_cold(entry) - blocks[0];
    CHECK(offset >= 0 && offset < (ptrdiff_t)sizeof blocks);
    return (int)(offset / (ptrdiff_t)ENTRY_BARE);
}

static int victim_within(unsigned *looks)
{
    struct entry *victim = policy_victim(&policy, looks);
    if (!victim)
        return NOBODY;
    int i = number_of(victim);
    CHECK(in[i]);
    policy_evict(&policy, victim);
    in[i] = false;
    return i;
}

static int evict(void)
{
    unsigned looks = UINT_MAX;
    return victim_within(&looks);
}

/* Goes next, and found by so many looks. */
static void check_evicted(int i, unsigned looks)
{
    unsigned left = looks;
    CHECK_INT(victim_within(&left), i);
    CHECK_INT(left, 0);
    CHECK(policy_check(&policy, stderr));
}

/* Go next, one after the other. */
static void check_evicted_in_turn(int first, int end)
{
    for (int i = first; i < end; i++)
        CHECK_INT(evict(), i);
}

static void check_counts(size_t small, size_t main)
{
    CHECK_INT(policy.small.count, small);
    CHECK_INT(policy.main.count, main);
    CHECK(policy_check(&policy, stderr));
}

/* ---- heat ---------------------------------------------------------------------------------------- */

TEST(heat_rises_to_three_and_no_further)
{
    static const unsigned expected[] = {1, 2, 3, 3, 3};
    begin(POLICY_SECOND_LOOK_10);
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        hit(0, 1);
        CHECK_INT(heat(0), expected[i]);
    }
}

TEST(the_other_marks_stay_as_they_are)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 2);
    atomic_store(&entry_at(0)->head.marks, ENTRY_WRAPS);
    for (int i = 0; i < 10; i++) {
        hit(0, 1);
        CHECK_INT(atomic_load(&entry_at(0)->head.marks) & ~(unsigned)ENTRY_HEAT, ENTRY_WRAPS);
    }
    CHECK_INT(evict(), 1);
    CHECK_INT(atomic_load(&entry_at(0)->head.marks), ENTRY_WRAPS); /* in main, and cool */
    hit(0, 2);
    check_evicted(0, 3);
    CHECK_INT(atomic_load(&entry_at(0)->head.marks), ENTRY_WRAPS);
}

/* ---- second look --------------------------------------------------------------------------------- */

TEST(what_is_not_asked_for_goes_in_the_order_in_which_it_came)
{
    for (int r = POLICY_SECOND_LOOK_10; r < POLICY_RULES; r++) {
        begin((enum policy_rule)r);
        add_up_to(0, 20);
        for (int i = 0; i < 20; i++)
            check_evicted(i, 1);
        CHECK_INT(evict(), NOBODY);
    }
}

TEST(under_second_look_what_was_asked_for_twice_goes_to_main_and_once_is_not_enough)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 10);
    hit(0, 2);
    hit(1, 1);
    hit(3, 3);
    check_evicted(1, 2); /* 0 has gone to main */
    check_counts(8, 1);
    check_evicted(2, 1);
    check_evicted(4, 2); /* 3 has */
    check_counts(5, 2);
    check_evicted_in_turn(5, 10);
    check_evicted(0, 1); /* and is cool there */
    check_evicted(3, 1);
}

TEST(hot_ones_at_the_end_of_main_go_round_and_cool)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 4);
    for (int i = 0; i < 3; i++)
        hit(i, 2);
    check_evicted(3, 4);
    check_counts(0, 3);
    hit(0, 3);
    hit(1, 1);
    check_evicted(2, 3);
    CHECK_INT(heat(0), 2);
    CHECK_INT(heat(1), 0);
    check_evicted(1, 2);
    CHECK_INT(heat(0), 1);
    check_evicted(0, 2);
}

/* A tenth or two fifths. */
TEST(while_the_small_queue_holds_less_than_its_share_who_is_in_main_goes)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 40);
    for (int i = 0; i < 40; i++)
        hit(i, 2);
    check_evicted(0, 38); /* all but three have gone to main, and then the first to go there goes */
    for (int i = 37; i < 40; i++)
        drop(i);
    check_counts(0, 36);
    add_up_to(100, 102);
    check_evicted(1, 1); /* 2 of 38 */
    add(102);
    check_evicted(100, 1); /* 3 of 38 */
    use_rule(POLICY_SECOND_LOOK_40);
    check_evicted_in_turn(2, 32); /* 2 of 37, ..., 2 of 8 */
    check_evicted(101, 1);        /* 2 of 7 */
}

TEST(a_ghost_comes_back_to_main_under_second_look_once)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 10);
    check_evicted(0, 1);
    add(0);
    check_counts(9, 1);
    drop(0);
    add(0);
    check_counts(10, 0);
}

TEST(who_leaves_main_leaves_no_ghost)
{
    begin(POLICY_SECOND_LOOK_10);
    add(0);
    hit(0, 2);
    check_evicted(0, 2);
    add(0);
    check_counts(1, 0);
}

TEST(who_is_deleted_leaves_no_ghost)
{
    begin(POLICY_SECOND_LOOK_10);
    add(0);
    drop(0);
    add(0);
    check_counts(1, 0);
}

/* ---- contest ------------------------------------------------------------------------------------- */

/* 0 to 8 are in main, 0 at its end, and 9 lost against 0. All have been counted once. */
static void begin_contest(void)
{
    begin(POLICY_CONTEST_1);
    add_up_to(0, 10);
    check_evicted(9, 10);
    check_counts(0, 9);
}

TEST(under_contest_who_does_not_lead_goes_at_once)
{
    begin_contest();
    for (int i = 10; i < 50; i++) {
        add(i);
        check_evicted(i, 1);
    }
    check_counts(0, 9);
}

TEST(under_contest_a_lead_of_two_is_needed_and_enough)
{
    begin_contest();
    add(10); /* 1 to 1 */
    check_evicted(10, 1);
    add(10); /* 2 to 1 */
    check_evicted(10, 1);
    add(10); /* 3 to 1 */
    check_evicted(0, 1);
    CHECK_INT(counted(10), 3);
    CHECK_INT(counted(1), 1);
    check_counts(0, 9);
}

TEST(under_contest_what_the_small_queue_has_too_much_of_goes_to_main_without_one)
{
    begin_contest();
    add_up_to(10, 13);
    check_evicted(12, 3);
    check_counts(0, 11);
}

TEST(under_contest_a_ghost_comes_back_to_the_small_queue_and_is_none_any_more)
{
    begin_contest();
    add(9);
    check_counts(1, 9);
    use_rule(POLICY_SECOND_LOOK_10);
    drop(9);
    add(9);
    check_counts(1, 9);
}

TEST(under_contest_hits_count_and_who_was_asked_for_goes_round_the_small_queue_once_more)
{
    begin_contest();
    add(10);
    hit(10, 1); /* 2 to 1 */
    check_evicted(10, 2);
    add(11);
    hit(11, 2); /* 3 to 1 */
    check_evicted(0, 2);
    CHECK_INT(heat(11), 0);
    CHECK_INT(counted(11), 3);
}

TEST(under_contest_a_hot_rival_goes_round_and_cools)
{
    begin_contest();
    hit(0, 2);
    hit(1, 1);
    add(10);
    hit(10, 3);          /* 4 to 1 */
    check_evicted(2, 4); /* 10 goes round, 0 and 1 do, and 2 has been counted once */
    CHECK_INT(heat(0), 1);
    CHECK_INT(heat(1), 0);
    CHECK_INT(counted(0), 2);
    CHECK_INT(counted(1), 2);
}

TEST(while_main_is_empty_the_last_of_the_small_queue_goes)
{
    begin(POLICY_CONTEST_1);
    add(0);
    check_evicted(0, 1);
    add(1);
    hit(1, 3);
    check_evicted(1, 2);
    CHECK_INT(evict(), NOBODY);
}

/* Fills its counters, and nobody fades meanwhile. */
static void fill_counters(int i)
{
    for (int times = 0; times < SKETCH_MOST; times++)
        sketch_add(&policy.sketch, print_of(i));
    policy.sketch.added = 0;
}

/* Among those whose counters are full; of so many, how many were admitted. */
static int contests_won(int contests)
{
    int won = 0;
    begin_contest();
    for (int i = 0; i < ENTRIES; i++)
        fill_counters(i);
    for (int i = 0; i < contests; i++) {
        int candidate = 10 + i % (ENTRIES - 10);
        if (in[candidate])
            continue;
        add(candidate);
        policy.sketch.added = 0;
        won += evict() != candidate;
    }
    return won;
}

TEST(among_those_whose_counters_are_full_one_in_a_hundred_and_twenty_eight_is_admitted)
{
    int won = contests_won(128 * 40);
    CHECK(won >= 20 && won <= 80);
}

/* ---- a loop -------------------------------------------------------------------------------------- */

enum { LOOP_CAPACITY = 150, LOOP_TURNS = 60 };

/* A hit, or somebody goes for it. */
static bool ask_in_full(int i)
{
    if (in[i]) {
        hit(i, 1);
        return true;
    }
    if (policy.small.count + policy.main.count == LOOP_CAPACITY)
        (void)evict();
    add(i);
    return false;
}

/* Round and round over more keys than there is room for: of the second half of the turns. */
static double loop_hit_ratio(int keys)
{
    int hits = 0;
    begin(POLICY_CONTEST_1);
    for (int turn = 0; turn < 2 * LOOP_TURNS; turn++)
        for (int i = 0; i < keys; i++)
            hits += ask_in_full(i) && turn >= LOOP_TURNS;
    return (double)hits / (LOOP_TURNS * keys);
}

/* Nobody who comes has been asked for more often than those who are there. */
TEST(under_contest_a_loop_has_nearly_as_many_hits_as_can_be)
{
    static const int loops[] = {165, 180, 210, 250, 300};
    for (size_t i = 0; i < COUNT_OF(loops); i++)
        CHECK(loop_hit_ratio(loops[i]) >= 0.97 * LOOP_CAPACITY / loops[i]);
}

/* ---- a change of rule ---------------------------------------------------------------------------- */

TEST(a_change_to_contest_moves_what_the_small_queue_has_too_much_of_and_evicts_nobody_for_it)
{
    begin(POLICY_SECOND_LOOK_40);
    add_up_to(0, 100);
    for (int i = 0; i < 60; i++)
        hit(i, 2);
    check_evicted(60, 61);
    check_counts(39, 60);
    use_rule(POLICY_CONTEST_1);
    add(200);
    check_evicted(200, 40); /* 61 to 99 have gone to main, and 200 lost */
    check_counts(0, 99);
}

TEST(a_change_to_second_look_lets_the_small_queue_grow)
{
    begin_contest();
    use_rule(POLICY_SECOND_LOOK_40);
    add(10); /* 1 of 10, 2 of 10, ... */
    check_evicted(0, 1);
    add(11);
    check_evicted(1, 1);
    add(12);
    check_evicted(2, 1);
    add(13);
    check_evicted(10, 1); /* 4 of 10 */
    check_counts(3, 6);
}

/* ---- replacing and removing ---------------------------------------------------------------------- */

/* Under the number that it gets, the same key. */
static void replace(int old, int by)
{
    atomic_store(&entry_at(by)->head.marks, ENTRY_LONE);
    policy_replace(&policy, entry_at(old), entry_at(by));
    in[by] = in[old];
    in[old] = false;
    CHECK(policy_check(&policy, stderr));
}

TEST(who_replaces_another_has_his_place_his_heat_and_his_print)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 4);
    hit(1, 2);
    replace(1, 101);
    CHECK_INT(heat(101), 2);
    CHECK_INT(atomic_load(&entry_at(101)->head.marks) & ~(unsigned)ENTRY_HEAT, ENTRY_LONE);
    CHECK_INT(policy_print(entry_at(101)), print_of(1));
    replace(3, 103);
    check_evicted(0, 1);
    check_evicted(2, 2); /* 101 has gone to main */
    check_counts(1, 1);
    replace(101, 201);
    check_counts(1, 1);
    check_evicted(103, 1);
    replace(201, 1);
    check_evicted(1, 1);
}

TEST(who_has_been_replaced_is_in_no_queue)
{
    begin(POLICY_SECOND_LOOK_10);
    add(0);
    replace(0, 1);
    check_counts(1, 0);
    policy_remove(&policy, entry_at(0));
    check_counts(1, 0);
    check_evicted(1, 1);
    replace(1, 2); /* nor is who replaces such a one */
    check_counts(0, 0);
    policy_remove(&policy, entry_at(2));
    CHECK_INT(evict(), NOBODY);
}

TEST(an_entry_can_be_removed_from_anywhere_and_twice)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 8);
    for (int i = 0; i < 4; i++)
        hit(i, 2);
    check_evicted(4, 5);
    for (int i = 0; i < 8; i += i == 3 ? 4 : 3) { /* both ends of both queues */
        drop(i);
        drop(i);
    }
    check_counts(2, 2);
    check_evicted_in_turn(5, 7);
    check_evicted_in_turn(1, 3);
    check_counts(0, 0);
}

TEST(nobody_is_left_after_a_clear_and_what_was_counted_is)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 20);
    hit(0, 3);
    check_evicted(1, 2);
    policy_clear(&policy);
    check_counts(0, 0);
    CHECK_INT(evict(), NOBODY);
    CHECK_INT(counted(0), 4);
    add(1);
    check_counts(0, 1); /* its ghost was known */
    check_evicted(1, 1);
}

/* ---- weights ------------------------------------------------------------------------------------- */

/* Nine in main, and one in the small queue of the size of so many of them. */
static size_t begin_weighing(bool weighs, uint32_t times)
{
    begin_with(POLICY_SECOND_LOOK_10, weighs);
    for (int i = 0; i < 100; i++)
        entry_at(i)->value_size = 1000;
    size_t one = entry_charge(entry_at(0));
    add_up_to(0, 10);
    for (int i = 0; i < 9; i++)
        hit(i, 2);
    check_evicted(9, 10);
    use_rule(POLICY_SECOND_LOOK_40);
    entry_at(200)->value_size = (uint32_t)(1000 + one * (times - 1));
    CHECK_INT(entry_charge(entry_at(200)), one * times);
    add(200);
    check_counts(1, 9);
    return one;
}

TEST(entries_weigh_one_each_or_what_they_are_charged)
{
    size_t one = begin_weighing(true, 5);
    CHECK_INT(policy.small.weight, 5 * one);
    CHECK_INT(policy.main.weight, 9 * one);
    check_evicted(0, 1); /* 5 of 14 is not two fifths */
    (void)begin_weighing(true, 7);
    check_evicted(200, 1); /* 7 of 16 is */
    (void)begin_weighing(false, 7);
    CHECK_INT(policy.small.weight, 1);
    CHECK_INT(policy.main.weight, 9);
    check_evicted(0, 1);
}

TEST(a_larger_value_in_the_old_place_weighs_more)
{
    size_t one = begin_weighing(true, 5);
    entry_at(201)->value_size = (uint32_t)(1000 + one * 6);
    replace(200, 201);
    CHECK_INT(policy.small.weight, 7 * one);
    entry_at(100)->value_size = 1000;
    replace(201, 100);
    CHECK_INT(policy.small.weight, one);
    replace(3, 200);
    CHECK_INT(policy.main.weight, 13 * one);
    drop(200);
    CHECK_INT(policy.main.weight, 8 * one);
    CHECK(policy_check(&policy, stderr));
}

TEST(weights_of_any_size_are_summed)
{
    begin_with(POLICY_SECOND_LOOK_10, true);
    for (int i = 0; i < 100; i++)
        entry_at(i)->value_size = UINT32_MAX - 200;
    add_up_to(0, 100);
    CHECK(policy.small.weight > (size_t)100 * (UINT32_MAX - 200));
    check_evicted_in_turn(0, 100);
    CHECK_INT(policy.small.weight, 0);
}

/* ---- looks --------------------------------------------------------------------------------------- */

TEST(a_search_ends_when_its_looks_are_used_up_and_the_next_goes_on_from_there)
{
    unsigned looks = 0;
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 3);
    for (int i = 0; i < 3; i++)
        hit(i, 2);
    CHECK_INT(victim_within(&looks), NOBODY);
    check_counts(3, 0);
    looks = 2;
    CHECK_INT(victim_within(&looks), NOBODY);
    CHECK_INT(looks, 0);
    check_counts(1, 2);
    looks = 10;
    CHECK_INT(victim_within(&looks), 0);
    CHECK_INT(looks, 8);
    CHECK_INT(victim_within(&looks), 1);
    CHECK_INT(looks, 7);
}

TEST(a_search_among_nobody_takes_no_look)
{
    unsigned looks = 5;
    begin(POLICY_CONTEST_1);
    CHECK_INT(victim_within(&looks), NOBODY);
    CHECK_INT(looks, 5);
}

/* ---- memory -------------------------------------------------------------------------------------- */

TEST(without_memory_nobody_is_a_ghost_and_nothing_is_counted)
{
    begin(POLICY_SECOND_LOOK_10);
    policy_remember(&policy, NULL, 0, 1);
    add_up_to(0, 10);
    check_evicted(0, 1);
    add(0);
    check_counts(10, 0);
    CHECK_INT(counted(0), 0);
    use_rule(POLICY_CONTEST_1);
    check_evicted(0, 10); /* which came last */
}

static void copy_all(size_t capacity, unsigned words)
{
    size_t at = 0;
    memset(more, 0, sizeof more);
    CHECK(policy_memory_bytes(capacity, words) <= sizeof more);
    while (policy_copy_memory(&policy, more, capacity, words, &at)) {
    }
}

TEST(a_larger_memory_goes_on_counting_and_begins_without_ghosts)
{
    begin_contest();
    add(10);
    check_evicted(10, 1);
    add(10);
    check_evicted(10, 1);
    copy_all(2 * ROOM, 1);
    policy_remember(&policy, more, 2 * ROOM, 1);
    CHECK_INT(counted(10), 2);
    add(10);
    check_evicted(0, 1);
    CHECK_INT(counted(10), 3);
    use_rule(POLICY_SECOND_LOOK_10);
    add(9);
    check_counts(1, 9);
}

TEST(memory_has_room_for_what_it_is_said_to_be_for)
{
    for (size_t capacity = 0; capacity <= ROOM; capacity += 7) {
        size_t bytes = policy_memory_bytes(capacity, 1);
        CHECK(bytes >= capacity * 12 && bytes <= 24 * (capacity < 16 ? 16 : capacity));
        CHECK_INT(policy_memory_bytes(capacity, 4), bytes + bytes / 12 * 24);
        unsigned char *exact = aligned_alloc(64, (bytes + 63) / 64 * 64);
        CHECK(exact != NULL);
        memset(exact, 0, bytes);
        begin(POLICY_SECOND_LOOK_10);
        policy_remember(&policy, exact, capacity, 1); /* the sanitizer looks */
        add_up_to(0, ENTRIES);
        check_evicted_in_turn(0, ENTRIES);
        free(exact);
    }
}

/* Counts are halved once in sixteen additions an entry. */
TEST(who_was_asked_for_long_ago_loses_against_who_is_asked_for_now)
{
    begin_contest();
    for (int i = 0; i < 9; i++)
        fill_counters(i);
    int newcomers = 0;
    while (in[0] && newcomers < 2000) {
        int candidate = 10 + newcomers++ % 5;
        if (!in[candidate]) {
            add(candidate);
            hit(candidate, 1);
            (void)evict();
        }
    }
    CHECK(newcomers > 5 && newcomers < 200);
}

/* ---- the check ----------------------------------------------------------------------------------- */

static void check_reported(size_t *sum)
{
    FILE *nowhere = fopen("/dev/null", "we");
    ++*sum;
    CHECK(!policy_check(&policy, nowhere));
    CHECK(!policy_check(&policy, NULL));
    --*sum;
    CHECK(policy_check(&policy, stderr));
    fclose(nowhere);
}

TEST(the_check_reports_what_is_broken)
{
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, 3);
    hit(0, 2);
    check_evicted(1, 2);
    check_reported(&policy.small.count);
    check_reported(&policy.small.weight);
    check_reported(&policy.main.count);
    check_reported(&policy.main.weight);
    add(3);
    for (int i = 2; i <= 3; i++) { /* the end, and the front */
        struct entry_link *right = entry_cold(entry_at(i))->queue.prev;
        entry_cold(entry_at(i))->queue.prev = &entry_cold(entry_at(i))->queue;
        CHECK(!policy_check(&policy, NULL));
        entry_cold(entry_at(i))->queue.prev = right;
    }
    uint32_t print = entry_at(2)->print;
    entry_at(2)->print = entry_at(0)->print;
    CHECK(!policy_check(&policy, NULL));
    entry_at(2)->print = print;
    CHECK(policy_check(&policy, stderr));
}

/* ---- a model ------------------------------------------------------------------------------------- */

static size_t there;

/* Marks who is in the queue: nobody twice, and nobody who is not there. */
static size_t mark(const struct policy_queue *queue, bool *marked)
{
    size_t count = 0;
    for (struct entry_link *at = queue->ends.next; at != &queue->ends; at = at->next, count++) {
        int i = number_of(entry_of_cold(container_of(at, struct entry_cold, queue)));
        CHECK(in[i] && !marked[i]);
        marked[i] = true;
    }
    return count;
}

static void check_model(void)
{
    bool marked[ENTRIES] = {false};
    CHECK(policy_check(&policy, stderr));
    CHECK_INT(mark(&policy.small, marked) + mark(&policy.main, marked), there);
}

static void random_search(void)
{
    unsigned looks = 4 * (unsigned)there;
    bool short_one = random_below(3) == 0;
    if (short_one)
        looks = (unsigned)random_below(4);
    int i = victim_within(&looks);
    CHECK(short_one ? i != NOBODY || looks == 0 || there == 0 : i != NOBODY || there == 0);
    there -= i != NOBODY;
}

static void random_replacement(int i)
{
    int by = (int)random_below(ENTRIES);
    entry_at(by)->value_size = in[by] ? entry_at(by)->value_size : (uint32_t)random_below(5000);
    if (in[i] && !in[by])
        replace(i, by);
}

static void random_memory(void)
{
    static unsigned char other[sizeof memory];
    switch (random_below(3)) {
    case 0: policy_remember(&policy, NULL, 0, 1); break;
    case 1:
        memset(other, 0, sizeof other);
        policy_remember(&policy, other, ROOM, 1);
        break;
    default: memset(memory, 0, sizeof memory); policy_remember(&policy, memory, ROOM, 1);
    }
}

static void random_addition(int i)
{
    if (in[i])
        return;
    entry_at(i)->value_size = (uint32_t)random_below(5000);
    add(i);
    there++;
}

static void random_operation(void)
{
    int i = (int)random_below(ENTRIES);
    switch (random_below(16)) {
    case 0: random_replacement(i); break;
    case 1:
        there -= in[i];
        drop(i);
        break;
    case 2:
        if (random_below(20) == 0)
            use_rule((enum policy_rule)random_below(POLICY_RULES));
        break;
    case 3:
        if (random_below(100) == 0)
            random_memory();
        break;
    case 4:
    case 5:
    case 6:
    case 7: random_search(); break;
    case 8:
    case 9:
    case 10:
    case 11: random_addition(i); break;
    default: hit(i, in[i]);
    }
}

TEST(random_operations_agree_with_a_set)
{
    for (int start = 0; start < 6; start++) {
        begin_with((enum policy_rule)(start % POLICY_RULES), start < POLICY_RULES);
        there = 0;
        for (long round = test_rounds(30000); round > 0; round--) {
            random_operation();
            CHECK_INT(policy.small.count + policy.main.count, there);
            if (round % 16 == 0)
                check_model();
        }
        while (there > 0)
            random_search();
        check_counts(0, 0);
    }
}

/* ---- readers that hit meanwhile ------------------------------------------------------------------ */

enum { FEW = 3, READERS = 3 };

static _Atomic bool done;

static void *hit_few(void *arg)
{
    while (!load_acquire(&done))
        hit((int)random_below(FEW), 1);
    return arg;
}

/* As entries that readers find: nobody begins them anew while they can. */
static void evict_and_add_again(void)
{
    unsigned looks = (unsigned)random_below(4);
    int i = victim_within(&looks);
    if (i == NOBODY)
        return;
    policy_add(&policy, entry_at(i), hash_of(i));
    in[i] = true;
}

TEST(readers_and_the_policy_write_heat_at_once_and_touch_no_other_mark)
{
    pthread_t readers[READERS];
    begin(POLICY_SECOND_LOOK_10);
    add_up_to(0, FEW);
    for (int i = 0; i < FEW; i++)
        atomic_store(&entry_at(i)->head.marks, ENTRY_LONE);
    perturb(test_seed() | 1);
    for (int i = 0; i < READERS; i++)
        readers[i] = thread_start(hit_few, NULL);
    for (long round = test_rounds(20000); round > 0; round--) {
        evict_and_add_again();
        for (int i = 0; i < FEW; i++)
            CHECK_INT(atomic_load(&entry_at(i)->head.marks) & ~(unsigned)ENTRY_HEAT, ENTRY_LONE);
        if (round % 1000 == 0)
            use_rule((enum policy_rule)random_below(POLICY_RULES));
    }
    store_release(&done, true);
    for (int i = 0; i < READERS; i++)
        thread_join(readers[i]);
    perturb(0);
    CHECK(policy_check(&policy, stderr));
}

/* ---- through the cache --------------------------------------------------------------------------- */

enum { HOT = 50, CAPACITY = 500 };

static aside_cache *open_small(void)
{
    aside_options options = quiet_options();
    options.max_bytes = 0;
    options.max_entries = CAPACITY;
    return open_cache(&options);
}

static void set_range(aside_cache *cache, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
}

static int read_range(aside_cache *cache, uint32_t first, uint32_t end)
{
    int found = 0;
    for (uint32_t i = first; i < end; i++)
        found += aside_copy(cache, &i, sizeof i, NULL, 0, NULL) == ASIDE_OK;
    return found;
}

TEST(hot_keys_survive_ten_times_as_many_cold_ones)
{
    aside_cache *cache = open_small();
    set_range(cache, 0, HOT);
    for (uint32_t i = HOT; i < 10 * CAPACITY; i++) {
        set_range(cache, i, i + 1);
        if (i % 20 == 0)
            read_range(cache, 0, HOT);
    }
    CHECK_INT(read_range(cache, 0, HOT), HOT);
    CHECK(STAT(cache, evicted) >= 9 * CAPACITY);
    end_cache(cache);
}

/* By those who are asked for now: fetched where they miss. */
TEST(what_was_hot_and_is_not_asked_for_any_more_goes)
{
    aside_cache *cache = open_small();
    set_range(cache, 0, HOT);
    for (int i = 0; i < 5; i++)
        read_range(cache, 0, HOT);
    for (int turn = 0; turn < 40; turn++)
        for (uint32_t i = CAPACITY; i < 2 * CAPACITY; i++)
            if (read_range(cache, i, i + 1) == 0)
                set_range(cache, i, i + 1);
    CHECK(read_range(cache, 0, HOT) <= HOT / 10);
    CHECK(read_range(cache, CAPACITY, 2 * CAPACITY) >= CAPACITY * 9 / 10);
    end_cache(cache);
}

TEST(when_all_are_hot_something_goes_all_the_same)
{
    aside_cache *cache = open_small();
    set_range(cache, 0, CAPACITY);
    for (int turn = 0; turn < 4; turn++)
        CHECK_INT(read_range(cache, 0, CAPACITY), CAPACITY);
    for (uint32_t i = CAPACITY; i < CAPACITY + 10; i++) {
        set_range(cache, i, i + 1);
        CHECK(aside_count(cache) <= CAPACITY);
    }
    end_cache(cache);
}
