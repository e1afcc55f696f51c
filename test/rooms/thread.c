/*
 * thread.c -- base/thread: one record a thread, given back and reused; counters that survive the
 * thread that counted, and that begin at zero in a slot that is used again (S1).
 */
#include "rooms.h"

#include "base/thread.h"

#include <errno.h>
#include <threads.h>

static struct thread_account account, second;

static uint64_t sum_of(struct thread_account *of, unsigned counter)
{
    uint64_t sums[THREAD_COUNTERS];
    thread_account_sum(of, sums);
    return sums[counter];
}

static void count(struct thread_account *to, unsigned counter, uint64_t n)
{
    thread_count(to, to->slot, thread_self(), counter, n);
}

static size_t records(void)
{
    size_t all = 0;
    for (struct thread_record *r = thread_first(); r; r = r->next)
        all++;
    return all;
}

/* ---- records ------------------------------------------------------------------------------------- */

static void *record_main(void *arg)
{
    (void)arg;
    struct thread_record *self = thread_self();
    CHECK(self != NULL);
    CHECK(thread_self() == self);
    CHECK_INT((uintptr_t)self % CACHE_LINE, 0);
    CHECK_INT(self->visits, 0);
    CHECK(self->fetches == NULL && self->orphans == NULL);
    CHECK_INT(self->announced, 0);
    /* what a careless thread leaves behind */
    self->visits = 3;
    atomic_store(&self->visiting[2], self);
    atomic_store(&self->announced, 99);
    return self;
}

TEST(records_are_reused_and_clean)
{
    struct thread_record *own = thread_self();
    void *first = thread_join(thread_start(record_main, NULL));
    CHECK(first != own);
    size_t all = records();
    for (int i = 0; i < 100; i++)
        CHECK(thread_join(thread_start(record_main, NULL)) == first);
    CHECK_INT(records(), all);
    struct thread_record *left = first;
    CHECK_INT(left->announced, 0);
    CHECK(left->visiting[2] == NULL);
    CHECK(!left->in_use);
}

static struct gate gate;
static void *record_at_gate(void *arg)
{
    (void)arg;
    struct thread_record *self = thread_self();
    gate_pass(&gate);
    return self;
}

TEST(threads_at_the_same_time_have_records_of_their_own)
{
    enum { THREADS = 24 };
    pthread_t threads[THREADS];
    void *got[THREADS];
    gate_init(&gate);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(record_at_gate, NULL);
    gate_wait_arrived(&gate, THREADS);
    gate_open(&gate);
    for (int i = 0; i < THREADS; i++) {
        got[i] = thread_join(threads[i]);
        CHECK(got[i] != NULL);
        for (int j = 0; j < i; j++)
            CHECK(got[i] != got[j]);
    }
    CHECK(records() >= THREADS);
}

/* ---- counters ------------------------------------------------------------------------------------ */

static void *count_main(void *arg)
{
    uint64_t times = *(const uint64_t *)arg;
    for (uint64_t i = 0; i < times; i++) {
        count(&account, 0, 1);
        count(&account, THREAD_COUNTERS - 1, 2);
    }
    return NULL;
}

TEST(counts_survive_their_thread)
{
    uint64_t times = 1000;
    CHECK(thread_account_open(&account));
    for (int i = 0; i < 5; i++)
        thread_join(thread_start(count_main, &times));
    count_main(&times);
    CHECK_INT(sum_of(&account, 0), 6 * times);
    CHECK_INT(sum_of(&account, THREAD_COUNTERS - 1), 12 * times);
    CHECK_INT(sum_of(&account, 1), 0);
    thread_account_close(&account);
}

TEST(sums_are_exact_at_rest_and_never_go_back)
{
    uint64_t times = (uint64_t)test_rounds(50000);
    pthread_t threads[4];
    CHECK(thread_account_open(&account));
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(count_main, &times);
    for (uint64_t last = 0, now; last < 2 * times; last = now) {
        now = sum_of(&account, 0);
        CHECK(now >= last && now <= 4 * times);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    CHECK_INT(sum_of(&account, 0), 4 * times);
    CHECK_INT(sum_of(&account, THREAD_COUNTERS - 1), 8 * times);
    thread_account_close(&account);
}

static void *count_at_gate(void *arg)
{
    count(arg, 3, 7);
    gate_pass(&gate);
    count(&second, 3, 1);
    return NULL;
}

TEST(a_slot_that_is_used_again_begins_at_zero)
{
    gate_init(&gate);
    CHECK(thread_account_open(&account));
    count(&account, 3, 5);
    pthread_t living = thread_start(count_at_gate, &account);
    gate_wait_arrived(&gate, 1);
    CHECK_INT(sum_of(&account, 3), 12);
    uint32_t slot = account.slot;
    thread_account_close(&account);
    CHECK(thread_account_open(&second));
    CHECK_INT(second.slot, slot);
    CHECK_INT(sum_of(&second, 3), 0);
    gate_open(&gate);
    thread_join(living);
    CHECK_INT(sum_of(&second, 3), 1);
    count(&second, 3, 2);
    CHECK_INT(sum_of(&second, 3), 3);
    thread_account_close(&second);
}

TEST(a_thread_that_ends_after_an_account_leaves_nothing_in_its_slot)
{
    gate_init(&gate);
    CHECK(thread_account_open(&account));
    CHECK(thread_account_open(&second));
    pthread_t living = thread_start(count_at_gate, &account);
    gate_wait_arrived(&gate, 1);
    thread_account_close(&account);
    gate_open(&gate);
    thread_join(living);
    CHECK(thread_account_open(&account));
    CHECK_INT(sum_of(&account, 3), 0);
    CHECK_INT(sum_of(&second, 3), 1);
}

TEST(accounts_take_the_lowest_slot_and_do_not_mix)
{
    enum { ACCOUNTS = 300 };
    static struct thread_account accounts[ACCOUNTS];
    for (uint32_t i = 0; i < ACCOUNTS; i++) {
        CHECK(thread_account_open(&accounts[i]));
        CHECK_INT(accounts[i].slot, i);
        count(&accounts[i], i % THREAD_COUNTERS, i + 1);
    }
    for (uint32_t i = 0; i < ACCOUNTS; i++)
        for (unsigned j = 0; j < THREAD_COUNTERS; j++)
            CHECK_INT(sum_of(&accounts[i], j), j == i % THREAD_COUNTERS ? i + 1 : 0);
    thread_account_close(&accounts[17]);
    thread_account_close(&accounts[200]);
    CHECK(thread_account_open(&accounts[200]));
    CHECK_INT(accounts[200].slot, 17);
    CHECK_INT(sum_of(&accounts[200], 200 % THREAD_COUNTERS), 0);
}

/* ---- without a record ---------------------------------------------------------------------------- */

static void *without_record(void *arg)
{
    (void)arg;
    process_fail_alloc(1, true);
    CHECK(thread_self() == NULL);
    count(&account, 4, 10);
    process_fail_alloc(0, false);
    CHECK(thread_self() != NULL);
    process_fail_alloc(1, true); /* a record, but no memory for counters */
    count(&account, 4, 1);
    process_fail_alloc(0, false);
    count(&account, 4, 100);
    return NULL;
}

TEST(without_memory_for_a_record_counting_goes_on)
{
    CHECK(thread_self() != NULL); /* the main thread's is in use: there is none to be reused */
    CHECK(thread_account_open(&account));
    thread_join(thread_start(without_record, NULL));
    CHECK_INT(sum_of(&account, 4), 111);
    thread_account_close(&account);
}

static void *hold_record(void *arg)
{
    (void)arg;
    count(&account, 6, 1);
    gate_pass(&gate);
    return thread_self();
}

/* Asks for a record while there is none, and counts when another thread has left its own. */
static void *ask_too_early(void *other)
{
    process_fail_alloc(1, true);
    struct thread_record *none = thread_self();
    CHECK(none == NULL);
    gate_open(&gate);
    void *left = thread_join(*(pthread_t *)other);
    thread_count(&account, account.slot, none, 6, 10);
    CHECK_INT(process_alloc_calls(), 1);
    CHECK(thread_self() == left);
    CHECK_INT(load_relaxed(&thread_self()->counters[account.slot].count[6]), 10);
    process_fail_alloc(0, false);
    return NULL;
}

TEST(a_record_that_comes_late_is_counted_in_with_the_counters_that_it_has)
{
    CHECK(thread_self() != NULL);
    CHECK(thread_account_open(&account));
    gate_init(&gate);
    pthread_t other = thread_start(hold_record, NULL);
    gate_wait_arrived(&gate, 1);
    thread_join(thread_start(ask_too_early, &other));
    CHECK_INT(sum_of(&account, 6), 11);
    thread_account_close(&account);
}

static void count_locked(uint64_t n)
{
    int64_t calls = process_alloc_calls();
    lock_take(&thread_registry); /* who took it would not come back */
    thread_count_locked(&account, 7, n);
    lock_release(&thread_registry);
    CHECK_INT(process_alloc_calls(), calls);
}

static void *locked_main(void *arg)
{
    (void)arg;
    count_locked(1);
    CHECK(thread_current == NULL); /* nor did that make a record */
    CHECK(thread_self() != NULL);
    count_locked(10);
    CHECK_INT(account.shared[7], 11);
    thread_count_prepare(&account);
    count_locked(100);
    CHECK_INT(account.shared[7], 11);
    return NULL;
}

TEST(counting_under_a_lock_takes_neither_a_lock_nor_memory)
{
    CHECK(thread_self() != NULL); /* the main thread's is in use: there is none to be reused */
    CHECK(thread_account_open(&account));
    thread_join(thread_start(locked_main, NULL));
    CHECK_INT(sum_of(&account, 7), 111);
    thread_account_close(&account);
}

TEST(without_memory_no_account_is_opened)
{
    static struct thread_account accounts[20];
    int opened = 0;
    process_fail_alloc(1, true);
    while (opened < 20 && thread_account_open(&accounts[opened]))
        opened++;
    CHECK(opened < 20);
    process_fail_alloc(0, false);
    CHECK(thread_account_open(&accounts[opened]));
    CHECK_INT(accounts[opened].slot, opened);
}

/* Destructors that run in every round the system allows, before and after the library's own. */
static pthread_key_t late;
static _Atomic int rounds_run, had_no_record;

static void late_destructor(void *again)
{
    rounds_run++;
    struct thread_record *self = thread_self();
    had_no_record += self == NULL;
    count(&account, 5, 1);
    pthread_setspecific(late, again);
}

static void *late_main(void *arg)
{
    CHECK(thread_self() != NULL);
    pthread_setspecific(late, arg);
    return NULL;
}

static void check_late(thread_fn main)
{
    rounds_run = had_no_record = 0;
    CHECK(thread_account_open(&account));
    size_t all = records();
    for (int i = 0; i < 10; i++)
        thread_join(thread_start(main, &account));
    CHECK(rounds_run >= 10);
    CHECK_INT(sum_of(&account, 5), rounds_run);
    CHECK(records() <= all + 1);
    thread_account_close(&account);
}

TEST(destructors_that_run_after_the_library_s_may_count)
{
    CHECK(thread_self() != NULL);
    CHECK_INT(pthread_key_create(&late, late_destructor), 0);
    check_late(late_main);
    CHECK(had_no_record > 0); /* in the last round there is no way back */
}

TEST(destructors_that_run_before_the_library_s_may_count)
{
    CHECK_INT(pthread_key_create(&late, late_destructor), 0);
    check_late(late_main);
    CHECK(had_no_record <= 10); /* in no round but the last */
}

/* ---- without a place for the record -------------------------------------------------------------- */

/* In front of the C library's, which may find no memory for a record's place in its thread. It is
 * also called by sanitizers that are not ready yet. */
static _Thread_local bool no_place;

__attribute__((no_sanitize("address", "thread", "undefined"))) int pthread_setspecific(
    pthread_key_t key, const void *value)
{
    for (struct thread_record *r = no_place ? thread_first() : NULL; r; r = r->next)
        if (r == value)
            return ENOMEM;
    return tss_set(key, (void *)(uintptr_t)value) == thrd_success ? 0 : EINVAL;
}

static void *without_place(void *arg)
{
    (void)arg;
    no_place = true;
    CHECK(thread_self() == NULL);
    count(&account, 4, 10);
    no_place = false;
    CHECK(thread_self() != NULL);
    count(&account, 4, 1);
    return NULL;
}

TEST(a_record_that_finds_no_place_in_its_thread_is_given_back)
{
    CHECK(thread_self() != NULL);
    CHECK(thread_account_open(&account));
    size_t all = records();
    for (int i = 0; i < 5; i++)
        thread_join(thread_start(without_place, NULL));
    CHECK_INT(records(), all + 1);
    CHECK_INT(sum_of(&account, 4), 55);
    thread_account_close(&account);
}

static void *late_without_place(void *arg)
{
    late_main(arg);
    no_place = true;
    return NULL;
}

TEST(a_record_that_cannot_stay_until_the_last_round_goes_in_the_first)
{
    CHECK(thread_self() != NULL);
    CHECK_INT(pthread_key_create(&late, late_destructor), 0);
    check_late(late_without_place);
    CHECK_INT(had_no_record, rounds_run); /* each of which the library's came before */
    for (struct thread_record *r = thread_first(); r; r = r->next)
        CHECK_INT(r->in_use, r == thread_self());
}

static void *count_in_sixth(void *arg)
{
    struct thread_account *all = arg;
    count(&all[5], 3, 7);
    return NULL;
}

TEST(a_record_may_have_room_for_more_accounts_than_there_are)
{
    static struct thread_account all[6]; /* of eight slots; a record that needs six has nine */
    for (int i = 0; i < 6; i++)
        CHECK(thread_account_open(&all[i]));
    thread_join(thread_start(count_in_sixth, all));
    for (int i = 0; i < 6; i++)
        CHECK_INT(sum_of(&all[i], 3), i == 5 ? 7 : 0);
    for (int i = 0; i < 6; i++)
        thread_account_close(&all[i]);
}
