/*
 * fork.c -- base/fork: what a fork does with the locks and the members, without one: the handlers
 * are caught on their way to the C library and called here.
 */
#include "rooms.h"

#include "base/fork.h"

#include <aside/group.h>
#include <errno.h>
#include <sys/syscall.h>

static void (*before)(void), (*in_parent)(void), (*in_child)(void);
static bool no_handlers;
static int registrations;

/* In front of the C library's. */
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    registrations++;
    if (no_handlers)
        return ENOMEM;
    before = prepare;
    in_parent = parent;
    in_child = child;
    return 0;
}

/* ---- members ------------------------------------------------------------------------------------- */

/* Each has a lock of one rank. */
struct owner {
    struct fork_member member;
    struct lock lock;
    int children;
};

static struct owner owners[4];
static const struct owner *order[16]; /* in which their locks were come to */
static size_t visits;

static void locks_of(struct fork_member *member, enum lock_rank rank,
                     void (*each)(struct lock *lock))
{
    struct owner *owner = container_of(member, struct owner, member);
    if (owner->lock.rank != rank)
        return;
    CHECK(visits < COUNT_OF(order));
    order[visits++] = owner;
    each(&owner->lock);
}

static void child_of(struct fork_member *member)
{
    container_of(member, struct owner, member)->children++;
}

static const struct fork_ops ops = {locks_of, child_of}, quiet_ops = {locks_of, NULL};

static void join(int i, enum lock_rank rank)
{
    owners[i].member.ops = &ops;
    lock_init(&owners[i].lock, rank);
    CHECK(fork_join(&owners[i].member));
}

static bool is_held(int i)
{
    if (pthread_mutex_trylock(&owners[i].lock.mutex) != 0)
        return true;
    pthread_mutex_unlock(&owners[i].lock.mutex);
    return false;
}

/* Whose locks a fork takes, as a set of bits. */
static unsigned members(void)
{
    unsigned held = 0;
    visits = 0;
    before();
    for (int i = 0; i < 4; i++)
        held |= is_held(i) ? 1u << i : 0;
    in_parent();
    for (int i = 0; i < 4; i++)
        CHECK(!is_held(i));
    return held;
}

static void join_all(void)
{
    join(0, RANK_EXECUTOR);
    join(1, RANK_REGISTRY);
    join(2, RANK_REAPER);
    join(3, RANK_SHARD);
}

TEST(a_fork_takes_the_locks_by_rank_and_gives_them_back)
{
    static const int by_rank[] = {1, 3, 0, 2};
    join_all();
    CHECK_INT(members(), 15);
    CHECK_INT(visits, 8);
    for (size_t i = 0; i < 4; i++)
        CHECK(order[i] == &owners[by_rank[i]]);
    CHECK_INT(fork_generation(), 0);
}

TEST(in_the_child_every_lock_is_new_and_every_member_told)
{
    join_all();
    owners[2].member.ops = &quiet_ops;
    for (int forks = 1; forks <= 3; forks++) {
        visits = 0;
        before();
        in_child();
        CHECK_INT(fork_generation(), forks);
        for (int i = 0; i < 4; i++) {
            CHECK(!is_held(i));
            CHECK_INT(owners[i].children, i == 2 ? 0 : forks);
        }
    }
    CHECK_INT(members(), 15);
}

TEST(a_member_may_join_twice_and_is_one)
{
    join_all();
    for (int i = 0; i < 4; i++)
        CHECK(fork_join(&owners[i].member));
    CHECK_INT(members(), 15);
    CHECK_INT(visits, 8);
}

TEST(a_member_that_has_left_is_left_alone)
{
    join_all();
    fork_leave(&owners[0].member); /* the first that joined, and the last of the list */
    CHECK_INT(members(), 14);
    fork_leave(&owners[2].member); /* in the middle */
    CHECK_INT(members(), 10);
    fork_leave(&owners[3].member); /* the latest */
    CHECK_INT(members(), 2);
    join(2, RANK_SHARD);
    CHECK_INT(members(), 6);
    fork_leave(&owners[2].member);
    fork_leave(&owners[1].member);
    CHECK_INT(members(), 0);
    join_all();
    CHECK_INT(members(), 15);
}

static void *join_first(void *tid)
{
    atomic_store((_Atomic int *)tid, (int)syscall(SYS_gettid));
    CHECK(fork_join(&owners[0].member));
    return NULL;
}

/* Both have seen that it is no member yet. */
TEST(a_member_that_two_threads_have_join_while_the_process_forks_is_one)
{
    static _Atomic int tids[2];
    pthread_t threads[2];
    join(1, RANK_REGISTRY);
    owners[0].member.ops = &ops;
    lock_init(&owners[0].lock, RANK_SHARD);
    before();
    for (int i = 0; i < 2; i++) {
        threads[i] = thread_start(join_first, (void *)&tids[i]);
        WAIT_UNTIL(tids[i] != 0 && thread_is_asleep(tids[i]));
    }
    CHECK(!owners[0].member.joined); /* nobody comes while a fork is under way */
    in_parent();
    for (int i = 0; i < 2; i++)
        thread_join(threads[i]);
    CHECK_INT(members(), 3);
    CHECK_INT(visits, 4);
}

/* ---- the records of threads ---------------------------------------------------------------------- */

static struct gate gate;
static struct thread_account account;
static struct thread_record *others;

static void *reader_main(void *arg)
{
    others = thread_self();
    thread_count(&account, account.slot, others, 1, 5);
    epoch_enter(others);
    store_release(&others->visiting[1], arg);
    gate_pass(&gate);
    return NULL;
}

TEST(the_child_has_the_record_of_its_one_thread_and_what_all_have_counted)
{
    int object;
    uint64_t sums[THREAD_COUNTERS];
    struct thread_record *self = thread_self();
    gate_init(&gate);
    CHECK(thread_account_open(&account));
    pthread_t reader = thread_start(reader_main, &object);
    gate_wait_arrived(&gate, 1);
    epoch_enter(self);
    store_release(&self->visiting[0], &object);
    before();
    in_parent(); /* the other goes on here, unlike in a child: the locks are free before they are new */
    in_child();
    CHECK(!others->in_use && others->announced == 0 && others->visiting[1] == NULL);
    CHECK(self->in_use && self->announced != 0 && self->visiting[0] == &object);
    thread_account_sum(&account, sums); /* which takes the registry's lock */
    CHECK_INT(sums[1], 5);
    gate_open(&gate);
    thread_join(reader);
}

/* ---- without handlers ---------------------------------------------------------------------------- */

TEST(without_memory_for_the_handlers_nothing_is_opened)
{
    aside_cache *cache = NULL;
    aside_group *its_group = NULL;
    no_handlers = true;
    owners[0].member.ops = &ops;
    CHECK(!fork_join(&owners[0].member));
    CHECK(owners[0].member.link == NULL);
    CHECK(!thread_account_open(&account));
    CHECK_STATUS(aside_open(&cache, NULL), ASIDE_E_NOMEM);
    CHECK(cache == NULL);
    CHECK_STATUS(aside_group_new(&its_group, NULL), ASIDE_E_NOMEM);
    CHECK(its_group == NULL);
}

TEST(without_memory_for_the_handlers_there_is_no_token)
{
    aside_cancel *token = NULL;
    no_handlers = true;
    CHECK_STATUS(aside_cancel_new(&token), ASIDE_E_NOMEM);
    CHECK(token == NULL);
    CHECK_INT(registrations, 1);
}

TEST(without_memory_for_the_handlers_there_is_no_inbox)
{
    aside_inbox *inbox = (aside_inbox *)&errno;
    int descriptors = process_descriptors();
    no_handlers = true;
    CHECK_STATUS(aside_inbox_new(&inbox), ASIDE_E_NOMEM);
    CHECK(inbox == NULL);
    CHECK_INT(process_descriptors(), descriptors);
}

TEST(the_handlers_are_asked_for_once_and_then_nobody_is_refused)
{
    join(0, RANK_EXECUTOR);
    CHECK_INT(registrations, 1);
    no_handlers = true;
    join(1, RANK_SHARD);
    CHECK_INT(members(), 3);
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    end_cache(cache);
    aside_cancel_unref(token);
    CHECK_INT(registrations, 1);
}
