/*
 * wheel.c -- store/wheel against the plainest model: an array of deadlines. Nothing that is over is
 * missed, nothing is looked at without end, from 1 ns to for ever and over jumps of years.
 */
#include "rooms.h"

#include "store/wheel.h"

enum { ENTRIES = 300 };
#define SECOND INT64_C(1000000000)
#define YEAR (INT64_C(31557600) * SECOND)

static struct wheel wheel;
static _Alignas(struct entry_cold) unsigned char blocks[ENTRIES][ENTRY_BARE];
static struct entry *entries[ENTRIES];
static bool in[ENTRIES];
static int64_t now;

static int64_t deadline_of(int i)
{
    return atomic_load(&entry_cold(entries[i])->serve_until_ns);
}

static void begin(int64_t start_ns)
{
    now = start_ns;
    wheel_init(&wheel, now);
    for (int i = 0; i < ENTRIES; i++) {
        entries[i] = entry_of_cold(blocks[i]);
        in[i] = false;
    }
}

static void add(int i, int64_t deadline_ns)
{
    atomic_store(&entry_cold(entries[i])->serve_until_ns, deadline_ns);
    wheel_add(&wheel, entries[i]);
    in[i] = true;
}

static void drop(int i)
{
    wheel_remove(entries[i]);
    in[i] = false;
}

static int number_of(const struct entry *entry)
{
    for (int i = 0; i < ENTRIES; i++)
        if (entries[i] == entry)
            return i;
    test_fail(__FILE__, __LINE__, "an entry that was never added", NULL);
}

/* As a shard reaps: what is over goes, what is not goes back. How many were looked at. */
static int reap(int64_t to_ns)
{
    struct entry *entry;
    int looked = 0;
    now = to_ns;
    wheel_advance(&wheel, now);
    while ((entry = wheel_due(&wheel))) {
        int i = number_of(entry);
        CHECK(in[i]);
        looked++;
        if (deadline_of(i) <= now)
            in[i] = false;
        else
            wheel_add(&wheel, entry);
        CHECK(looked <= 2 * ENTRIES);
    }
    return looked;
}

/* After a reap everything that is over has gone, and nothing else has: reap() took only that. */
static void check_all(void)
{
    for (int i = 0; i < ENTRIES; i++)
        CHECK(!in[i] || deadline_of(i) > now);
    CHECK(wheel_check(&wheel, stderr));
}

/* Of every order of size between 1 ns and for ever. */
static int64_t random_span(void)
{
    unsigned bits = (unsigned)random_below(63);
    return (int64_t)((UINT64_C(1) << bits) | (test_random() & ((UINT64_C(1) << bits) - 1)));
}

static int64_t saturating(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static void random_step(int64_t most_ns)
{
    int i = (int)random_below(ENTRIES);
    switch (random_below(4)) {
    case 0:
        if (in[i])
            drop(i);
        break;
    case 1:
        reap(saturating(now, random_span() % most_ns));
        check_all();
        break;
    default:
        if (in[i])
            drop(i);
        add(i, saturating(now, random_span()));
    }
}

TEST(random_deadlines_agree_with_a_list)
{
    static const int64_t most[] = {10000000, SECOND, 3600 * SECOND, YEAR};
    for (size_t m = 0; m < COUNT_OF(most); m++) {
        begin(1000 * SECOND + (int64_t)random_below(1000000000));
        for (long round = test_rounds(4000); round > 0; round--)
            random_step(most[m]);
        reap(INT64_MAX - 1);
        check_all();
        for (int i = 0; i < ENTRIES; i++)
            CHECK(!in[i] || deadline_of(i) == INT64_MAX);
    }
}

TEST(one_before_at_and_one_after_a_deadline)
{
    static const int64_t spans[] = {1,         4194303,    4194304,        4194305,
                                    134217728, 5 * SECOND, 86400 * SECOND, 3 * YEAR};
    for (size_t i = 0; i < COUNT_OF(spans); i++) {
        begin(123456789012);
        int64_t deadline = now + spans[i];
        add(0, deadline);
        reap(deadline - 1);
        CHECK(in[0]);
        reap(deadline);
        CHECK(!in[0]);
    }
}

TEST(a_deadline_that_is_over_already_is_due_at_once)
{
    begin(50 * SECOND);
    add(0, 1);
    add(1, 49 * SECOND);
    add(2, now);
    reap(now);
    check_all();
    CHECK(!in[0] && !in[1] && !in[2]);
}

TEST(for_ever_is_not_kept)
{
    begin(SECOND);
    add(0, CLOCK_NEVER);
    CHECK(entry_cold(entries[0])->link.next == NULL);
    CHECK_INT(reap(INT64_MAX - 1), 0);
    CHECK(in[0]);
    drop(0);
    CHECK(wheel_check(&wheel, stderr));
}

TEST(far_deadlines_cascade_in_few_looks)
{
    static const int64_t spans[] = {60 * SECOND, 3600 * SECOND, 86400 * SECOND, 30 * 86400 * SECOND,
                                    2 * YEAR};
    for (size_t i = 0; i < COUNT_OF(spans); i++) {
        begin(777 * SECOND);
        int64_t deadline = now + spans[i];
        int looked = 0;
        add(0, deadline);
        for (int step = 1; step <= 1000; step++) {
            looked += reap(777 * SECOND + spans[i] / 1000 * step);
            check_all();
        }
        looked += reap(deadline);
        CHECK(!in[0]);
        /* one look a level, and beyond the 52 days of the wheel one for each time it has turned */
        CHECK(looked <= WHEEL_LEVELS + 1 + (int)(spans[i] / (50 * 86400 * SECOND)) * 2);
    }
}

TEST(a_clock_that_jumps_by_years_misses_nothing)
{
    begin(1);
    for (int i = 0; i < ENTRIES; i++)
        add(i, 1 + i * (YEAR / 8));
    reap(30 * YEAR);
    check_all();
    reap(30 * YEAR + 1);
    check_all();
    reap(INT64_MAX - 1);
    check_all();
    for (int i = 0; i < ENTRIES; i++)
        CHECK(!in[i]);
    add(0, INT64_MAX - 1);
    reap(INT64_MAX - 1);
    CHECK(!in[0]);
}

TEST(a_clock_that_goes_back_does_nothing)
{
    begin(100 * SECOND);
    add(0, 101 * SECOND);
    CHECK_INT(reap(50 * SECOND), 0);
    CHECK_INT(wheel.now_ns, 100 * SECOND);
    reap(101 * SECOND);
    CHECK(!in[0]);
}

TEST(an_entry_can_be_removed_from_anywhere)
{
    begin(10 * SECOND);
    for (int i = 0; i < 5; i++)
        add(i, now + SECOND); /* one ring */
    drop(0);
    drop(2);
    drop(4);
    drop(4); /* also of one that the wheel does not keep */
    CHECK(wheel_check(&wheel, stderr));
    wheel_advance(&wheel, now + 2 * SECOND);
    drop(1); /* of what is due */
    CHECK(wheel_due(&wheel) == entries[3]);
    CHECK(wheel_due(&wheel) == NULL);
    CHECK(wheel_check(&wheel, stderr));
}

TEST(the_check_reports_a_broken_ring)
{
    FILE *nowhere = fopen("/dev/null", "we");
    begin(10 * SECOND);
    for (int i = 0; i < 3; i++)
        add(i, now + SECOND);
    CHECK(wheel_check(&wheel, stderr));
    struct entry_link *right = entry_cold(entries[1])->link.prev;
    entry_cold(entries[1])->link.prev = &entry_cold(entries[1])->link;
    CHECK(!wheel_check(&wheel, nowhere));
    CHECK(!wheel_check(&wheel, NULL));
    entry_cold(entries[1])->link.prev = right;
    CHECK(wheel_check(&wheel, stderr));
    wheel_advance(&wheel, now + 2 * SECOND);
    right = wheel.due.prev;
    wheel.due.prev = &entry_cold(entries[0])->link;
    CHECK(!wheel_check(&wheel, nowhere));
    wheel.due.prev = right;
    CHECK(wheel_check(&wheel, stderr));
    fclose(nowhere);
}
