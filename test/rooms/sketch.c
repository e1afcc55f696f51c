/*
 * sketch.c -- store/sketch against the plainest model, a number a key: it never says too little while
 * nothing fades, rarely too much, and what fades has halved, whether its line's turn has come or not.
 */
#include "rooms.h"

#include "store/sketch.h"

enum { LINES = 64, KEYS = 512, WORDS = LINES * SKETCH_WORDS };
#define NEVER SIZE_MAX

static _Alignas(64) uint64_t words[WORDS], probed[WORDS], larger[4 * WORDS];
static struct sketch sketch;
static unsigned truth[KEYS];
static uint32_t prints[KEYS];

static void begin(size_t lines, size_t period)
{
    memset(words, 0, sizeof words);
    sketch_init(&sketch, words, lines * SKETCH_WORDS, period);
    for (size_t i = 0; i < KEYS; i++) {
        prints[i] = (uint32_t)test_random() >> 2;
        truth[i] = 0;
    }
}

static void add(size_t i)
{
    sketch_add(&sketch, prints[i]);
    truth[i] += truth[i] < SKETCH_MOST;
}

static void add_times(uint32_t print, unsigned times)
{
    while (times--)
        sketch_add(&sketch, print);
}

static unsigned count(size_t i)
{
    return sketch_count(&sketch, prints[i]);
}

/* Everybody is added up to so many times. */
static void add_all(unsigned most)
{
    for (size_t i = 0; i < KEYS; i++)
        for (size_t times = random_below(most + 1); times; times--)
            add(i);
}

/* In a sketch of so many lines: where an addition leaves its traces. */
static size_t line_of(uint32_t print, size_t lines)
{
    struct sketch probe;
    size_t word = 0;
    memset(probed, 0, sizeof probed);
    sketch_init(&probe, probed, lines * SKETCH_WORDS, NEVER);
    sketch_add(&probe, print);
    while (!probed[word])
        word++;
    return word / SKETCH_WORDS;
}

static uint32_t print_in_line(size_t line, size_t lines)
{
    uint32_t print = 0;
    while (line_of(print, lines) != line)
        print++;
    return print;
}

/* ---- counting ------------------------------------------------------------------------------------ */

TEST(a_key_is_counted_up_to_fifteen)
{
    begin(LINES, NEVER);
    for (unsigned times = 0; times < 40; times++) {
        CHECK_INT(count(0), times < SKETCH_MOST ? times : SKETCH_MOST);
        sketch_add(&sketch, prints[0]);
    }
}

TEST(every_print_has_its_place)
{
    static const uint32_t odd[] = {0, 1, UINT32_MAX, UINT32_MAX - 1, UINT32_MAX >> 2};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        begin(LINES, NEVER);
        CHECK_INT(sketch_count(&sketch, odd[i]), 0);
        sketch_add(&sketch, odd[i]);
        CHECK_INT(sketch_count(&sketch, odd[i]), 1);
    }
}

TEST(an_addition_raises_four_counters_of_one_line)
{
    begin(LINES, NEVER);
    for (size_t i = 0; i < KEYS; i++) {
        size_t line = line_of(prints[i], LINES);
        int raised = 0;
        for (size_t w = 0; w < WORDS; w++) {
            CHECK(probed[w] == 0 || w / SKETCH_WORDS == line);
            raised += __builtin_popcountll(probed[w]);
        }
        CHECK_INT(raised, 4);
    }
}

static void check_never_too_little(void)
{
    for (size_t i = 0; i < KEYS; i++)
        CHECK(count(i) >= truth[i] && count(i) <= SKETCH_MOST);
}

TEST(a_count_is_never_too_little_and_with_a_word_for_each_key_rarely_too_much)
{
    size_t wrong = 0, asked = 0;
    for (int round = 0; round < 20; round++) {
        begin(LINES, NEVER); /* as many words as keys */
        for (long i = 0; i < 4 * KEYS; i++) {
            add(random_below(KEYS));
            if (i % 64 == 0)
                check_never_too_little();
        }
        check_never_too_little();
        for (size_t i = 0; i < KEYS; i++, asked++)
            wrong += count(i) > truth[i];
    }
    CHECK(wrong < asked / 50);
}

TEST(one_line_serves_a_few_keys)
{
    begin(1, NEVER);
    for (size_t i = 0; i < 4; i++)
        add_times(prints[i], (unsigned)(i + 1));
    for (size_t i = 0; i < 4; i++)
        CHECK(count(i) >= i + 1 && count(i) <= SKETCH_MOST);
}

TEST(without_words_nothing_is_counted)
{
    size_t line = 0;
    sketch_init(&sketch, NULL, 0, 10);
    add_times(7, 100);
    CHECK_INT(sketch_count(&sketch, 7), 0);
    CHECK(!sketch_copy(&sketch, larger, WORDS, &line));
    CHECK_INT(line, 0);
}

/* ---- fading -------------------------------------------------------------------------------------- */

static unsigned noted[KEYS];

/* The next addition begins to halve. */
static void halve_now(void)
{
    sketch.period = sketch.added + 1;
}

/* Who shares a line with what goes on being added is no witness. */
static void note_all_but(uint32_t filler)
{
    for (size_t i = 0; i < KEYS; i++) {
        bool shares = line_of(prints[i], LINES) == line_of(filler, LINES);
        noted[i] = shares ? UINT32_MAX : count(i);
    }
}

static void check_noted(unsigned divisor)
{
    for (size_t i = 0; i < KEYS; i++)
        if (noted[i] != UINT32_MAX)
            CHECK_INT(count(i), noted[i] / divisor);
}

TEST(in_the_middle_of_a_halving_everybody_reads_as_after_it)
{
    uint32_t filler = 12345;
    begin(LINES, NEVER);
    add_all(SKETCH_MOST + 5);
    note_all_but(filler);
    check_noted(1);
    halve_now();
    sketch_add(&sketch, filler);
    sketch.period = NEVER;
    check_noted(2);
    CHECK_INT(sketch.halved, 0);
    for (int steps = 0; sketch.halved < LINES; steps++) {
        CHECK(steps < LINES);
        sketch_add(&sketch, filler);
        check_noted(2);
    }
    sketch_add(&sketch, filler);
    CHECK_INT(sketch.halved, LINES);
    check_noted(2);
}

TEST(what_is_added_in_the_middle_of_a_halving_is_one_and_stays_one)
{
    uint32_t print = print_in_line(LINES - 1, LINES), filler = print_in_line(0, LINES);
    for (unsigned before = 0; before <= SKETCH_MOST; before++) {
        begin(LINES, NEVER);
        add_times(print, before);
        halve_now();
        sketch_add(&sketch, filler);
        sketch.period = NEVER;
        sketch_add(&sketch, print);
        unsigned expected = before < SKETCH_MOST - 1 ? before / 2 + 1 : SKETCH_MOST / 2;
        CHECK_INT(sketch_count(&sketch, print), expected);
        add_times(filler, LINES);
        CHECK_INT(sketch.halved, LINES);
        CHECK_INT(sketch_count(&sketch, print), expected);
    }
}

TEST(what_is_not_asked_for_any_more_fades_away)
{
    static const unsigned faded[] = {15, 7, 3, 1, 0, 0};
    enum { PERIOD = 200 };
    uint32_t print = print_in_line(LINES - 1, LINES), filler = print_in_line(0, LINES);
    begin(LINES, PERIOD);
    add_times(print, SKETCH_MOST);
    for (size_t i = 0; i < COUNT_OF(faded); i++) {
        CHECK_INT(sketch_count(&sketch, print), faded[i]);
        add_times(filler, i == 0 ? PERIOD - SKETCH_MOST : PERIOD);
    }
}

/* Periods that are shorter than a halving takes: all lines have their turn as often. */
TEST(a_halving_is_over_before_the_next_begins)
{
    uint32_t first = print_in_line(1, LINES), last = print_in_line(LINES - 1, LINES);
    uint32_t filler = print_in_line(0, LINES);
    begin(LINES, 3);
    for (unsigned i = 0; i < SKETCH_MOST; i++) {
        sketch.added = 0;
        sketch_add(&sketch, first);
        sketch.added = 0;
        sketch_add(&sketch, last);
    }
    unsigned least = SKETCH_MOST;
    for (int i = 0; i < 3 * LINES; i++) {
        sketch_add(&sketch, filler);
        unsigned one = sketch_count(&sketch, first), other = sketch_count(&sketch, last);
        CHECK_INT(one, other);
        least = one < least ? one : least;
    }
    CHECK(least <= 1);
}

TEST(counts_are_of_what_was_asked_for_of_late)
{
    enum { PERIOD = 16 * KEYS };
    begin(LINES, PERIOD);
    for (long i = 0; i < 10 * PERIOD; i++)
        sketch_add(&sketch, prints[random_below(KEYS)]);
    for (long i = 0; i < 5 * PERIOD; i++)
        sketch_add(&sketch, prints[random_below(KEYS / 2)]);
    size_t high = 0, faded = 0;
    for (size_t i = 0; i < KEYS / 2; i++)
        high += count(i) >= SKETCH_MOST / 2;
    for (size_t i = KEYS / 2; i < KEYS; i++)
        faded += count(i) <= 1;
    CHECK(high > KEYS / 2 * 9 / 10);
    CHECK(faded > KEYS / 2 * 9 / 10);
}

/* ---- copies -------------------------------------------------------------------------------------- */

/* In so many calls. */
static size_t copy_to(size_t lines)
{
    size_t line = 0, calls = 1;
    memset(larger, 0, sizeof larger);
    while (sketch_copy(&sketch, larger, lines * SKETCH_WORDS, &line))
        calls++;
    CHECK_INT(line, lines);
    return calls;
}

static void check_copy_counts_the_same(size_t lines)
{
    struct sketch copy;
    (void)copy_to(lines);
    sketch_init(&copy, larger, lines * SKETCH_WORDS, NEVER);
    for (size_t i = 0; i < KEYS; i++)
        CHECK_INT(sketch_count(&copy, prints[i]), count(i));
}

static void check_copies(void)
{
    for (size_t lines = LINES; lines <= 4 * LINES; lines *= 2)
        check_copy_counts_the_same(lines);
}

TEST(a_copy_as_large_or_larger_has_all_counts)
{
    begin(LINES, NEVER);
    add_all(SKETCH_MOST);
    check_copies();
    begin(1, NEVER);
    add_all(1);
    check_copies();
}

TEST(a_copy_in_the_middle_of_a_halving_has_all_counts)
{
    begin(LINES, NEVER);
    add_all(SKETCH_MOST);
    halve_now();
    sketch_add(&sketch, 1);
    sketch.period = NEVER;
    while (sketch.halved < LINES) {
        check_copies();
        sketch_add(&sketch, 1);
    }
}

TEST(a_copy_is_made_in_slices)
{
    begin(LINES, NEVER);
    CHECK_INT(copy_to(LINES), 1);
    CHECK_INT(copy_to(4 * LINES), 4);
}
