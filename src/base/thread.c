/* base/thread -- see thread.h. */
#include "base/thread.h"

#include "base/fork.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef PTHREAD_DESTRUCTOR_ITERATIONS
#define PTHREAD_DESTRUCTOR_ITERATIONS 4
#endif

struct lock thread_registry = LOCK_INIT(RANK_REGISTRY);
_Thread_local struct thread_record *thread_current;

static _Atomic(struct thread_record *) first;
static struct thread_account **accounts; /* by slot; guarded by REGISTRY */
static uint32_t account_slots;           /* guarded by REGISTRY */

static pthread_key_t key;
static bool have_key; /* guarded by REGISTRY */

/* ---- the end of a thread --------------------------------------------------------------------- */

static void fold(struct thread_record *record) REQUIRES(thread_registry)
{
    for (uint32_t slot = 0; slot < record->slots; slot++) {
        struct thread_account *account = slot < account_slots ? accounts[slot] : NULL;
        for (unsigned i = 0; i < THREAD_COUNTERS; i++) {
            if (account)
                account->folded[i] += load_relaxed(&record->counters[slot].count[i]);
            store_relaxed(&record->counters[slot].count[i], 0);
        }
    }
}

/*
 * Runs as a thread-specific destructor. Other destructors may still call the library, in any order,
 * so the record is kept for as many rounds as there are, less one: in the very last, sanitizers
 * have taken down what they need for this thread.
 */
static void leave(void *its_record)
{
    struct thread_record *record = its_record;
    if (++record->destructor_rounds < PTHREAD_DESTRUCTOR_ITERATIONS - 1 &&
        pthread_setspecific(key, record) == 0)
        return;
    for (unsigned i = 0; i < THREAD_VISITS; i++)
        store_release(&record->visiting[i], NULL);
    record->visits = record->inside = record->dropping = 0;
    if (record->free_orphans)
        record->free_orphans(record);
    void *solo = record->solo;
    record->solo = NULL; /* first: a fork may come between */
    free(solo);
    thread_current = THREAD_NO_RECORD;
    store_release(&record->announced, 0);
    lock_take(&thread_registry);
    fold(record);
    record->in_use = false;
    lock_release(&thread_registry);
}

/* ---- a fork --------------------------------------------------------------------------------- */

static void fork_locks(struct fork_member *member, enum lock_rank rank,
                       void (*each)(struct lock *lock))
{
    (void)member;
    if (rank == RANK_REGISTRY)
        each(&thread_registry);
}

/* Nobody reads or visits any more but this thread. What the others have counted stays counted. */
static void fork_child(struct fork_member *member)
{
    (void)member;
    for (struct thread_record *r = thread_first(); r; r = r->next) {
        if (r == thread_current)
            continue;
        store_relaxed(&r->announced, 0);
        for (unsigned i = 0; i < THREAD_VISITS; i++)
            store_relaxed(&r->visiting[i], NULL);
        r->in_use = false;
    }
}

static const struct fork_ops fork_ops = {fork_locks, fork_child};
static struct fork_member forks = {.ops = &fork_ops};

/* ---- the beginning --------------------------------------------------------------------------- */

/* Not by pthread_once(): a fork may come between, and then not every system's child gets past it. */
static bool make_key(void) REQUIRES(thread_registry)
{
    have_key = have_key || pthread_key_create(&key, leave) == 0;
    return have_key;
}

static struct thread_record *reuse(void) REQUIRES(thread_registry)
{
    struct thread_record *record = load_acquire(&first);
    while (record && record->in_use)
        record = record->next;
    if (record)
        record->in_use = true;
    return record;
}

static struct thread_record *add_new(void) REQUIRES(thread_registry)
{
    void *block;
    if (posix_memalign(&block, CACHE_LINE, sizeof(struct thread_record)) != 0)
        return NULL;
    struct thread_record *record = memset(block, 0, sizeof *record);
    record->in_use = true;
    record->next = load_acquire(&first);
    store_release(&first, record);
    return record;
}

static struct thread_record *take_record(void)
{
    lock_take(&thread_registry);
    struct thread_record *record = make_key() ? reuse() : NULL;
    if (have_key && !record)
        record = add_new();
    lock_release(&thread_registry);
    return record;
}

static void give_back(struct thread_record *record)
{
    lock_take(&thread_registry);
    record->in_use = false;
    lock_release(&thread_registry);
}

struct thread_record *thread_enroll(void)
{
    if (thread_current == THREAD_NO_RECORD)
        return NULL;
    struct thread_record *record = take_record();
    if (!record)
        return NULL;
    record->visits = 0;
    record->fetches = NULL;
    record->inside = record->dropping = 0;
    record->orphans = NULL;
    record->free_orphans = NULL;
    record->destructor_rounds = 0;
    if (pthread_setspecific(key, record) != 0) {
        give_back(record);
        return NULL;
    }
    thread_current = record;
    return record;
}

struct thread_record *thread_first(void)
{
    return load_acquire(&first);
}

/* ---- accounts -------------------------------------------------------------------------------- */

static bool more_slots(void) REQUIRES(thread_registry)
{
    uint32_t wanted = account_slots ? 2 * account_slots : 8;
    struct thread_account **larger = realloc(accounts, wanted * sizeof(struct thread_account *));
    if (!larger)
        return false;
    memset(larger + account_slots, 0, (wanted - account_slots) * sizeof(struct thread_account *));
    accounts = larger;
    account_slots = wanted;
    return true;
}

bool thread_account_open(struct thread_account *account)
{
    memset(account, 0, sizeof *account);
    if (!fork_join(&forks))
        return false;
    lock_take(&thread_registry);
    uint32_t slot = 0;
    while (slot < account_slots && accounts[slot])
        slot++;
    bool have = slot < account_slots || more_slots();
    if (have) {
        accounts[slot] = account;
        account->slot = slot;
    }
    lock_release(&thread_registry);
    return have;
}

void thread_account_close(struct thread_account *account)
{
    lock_take(&thread_registry);
    for (struct thread_record *r = thread_first(); r; r = r->next)
        for (unsigned i = 0; account->slot < r->slots && i < THREAD_COUNTERS; i++)
            store_relaxed(&r->counters[account->slot].count[i], 0);
    accounts[account->slot] = NULL;
    lock_release(&thread_registry);
}

void thread_account_sum(struct thread_account *account, uint64_t sums[THREAD_COUNTERS])
{
    lock_take(&thread_registry);
    for (unsigned i = 0; i < THREAD_COUNTERS; i++)
        sums[i] = account->folded[i] + load_relaxed(&account->shared[i]);
    for (struct thread_record *r = thread_first(); r; r = r->next)
        for (unsigned i = 0; account->slot < r->slots && i < THREAD_COUNTERS; i++)
            sums[i] += load_relaxed(&r->counters[account->slot].count[i]);
    lock_release(&thread_registry);
}

static bool more_counters(struct thread_record *self, uint32_t slot)
{
    uint32_t wanted = slot + 4;
    struct thread_counters *larger = calloc(wanted, sizeof *larger);
    if (!larger)
        return false;
    lock_take(&thread_registry);
    struct thread_counters *old = self->counters;
    if (old)
        memcpy((void *)larger, (const void *)old, self->slots * sizeof *old);
    self->counters = larger;
    self->slots = wanted;
    lock_release(&thread_registry);
    free(old);
    return true;
}

void thread_count_slowly(struct thread_account *account, unsigned counter, uint64_t n)
{
    struct thread_record *self = thread_self();
    if (self && (account->slot < self->slots || more_counters(self, account->slot))) {
        thread_count_own(self, account->slot, counter, n);
        return;
    }
    fetch_add_relaxed(&account->shared[counter], n);
}

void thread_count_prepare(struct thread_account *account)
{
    struct thread_record *self = thread_self();
    if (self && account->slot >= self->slots)
        (void)more_counters(self, account->slot);
}

void thread_count_locked(struct thread_account *account, unsigned counter, uint64_t n)
{
    struct thread_record *self = thread_current;
    if ((uintptr_t)self > (uintptr_t)THREAD_NO_RECORD && account->slot < self->slots)
        thread_count_own(self, account->slot, counter, n);
    else
        fetch_add_relaxed(&account->shared[counter], n);
}
