/* base/fork -- see fork.h. */
#include "base/fork.h"

#include <pthread.h>
#include <stddef.h>

uint32_t fork_generation_now;

static struct lock registry = LOCK_INIT(RANK_FORK);
static struct fork_member *first; /* guarded by registry */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool installed;

static void all_locks(void (*each)(struct lock *lock))
{
    for (unsigned rank = RANK_FORK + 1; rank < RANKS; rank++)
        for (struct fork_member *m = first; m; m = m->next)
            m->ops->locks(m, (enum lock_rank)rank, each);
}

static void prepare(void)
{
    lock_seize(&registry);
    all_locks(lock_seize);
}

static void parent(void)
{
    all_locks(lock_yield);
    lock_yield(&registry);
}

static void child(void)
{
    fork_generation_now++;
    all_locks(lock_renew);
    lock_renew(&registry);
    for (struct fork_member *m = first; m; m = m->next)
        if (m->ops->child)
            m->ops->child(m);
}

static void install(void)
{
    installed = pthread_atfork(prepare, parent, child) == 0;
}

static void enlist(struct fork_member *member) REQUIRES(registry)
{
    member->next = first;
    member->link = &first;
    if (first)
        first->link = &member->next;
    first = member;
    store_release(&member->joined, true);
}

bool fork_join(struct fork_member *member)
{
    if (load_acquire(&member->joined))
        return true;
    pthread_once(&once, install);
    if (!installed)
        return false;
    lock_take(&registry);
    if (!load_relaxed(&member->joined))
        enlist(member);
    lock_release(&registry);
    return true;
}

void fork_leave(struct fork_member *member)
{
    lock_take(&registry);
    *member->link = member->next;
    if (member->next)
        member->next->link = member->link;
    store_release(&member->joined, false);
    lock_release(&registry);
}
