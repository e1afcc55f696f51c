/*
 * base/fork -- a process that forks while its threads are at work.
 *
 * Only the thread that forks is there in the child. So before a fork every lock of the library is
 * taken, in the order of the ranks; what locks guard is in order then. The parent releases them. In
 * the child they are made anew, and each member gives up what belonged to other threads: without
 * user code, and without memory, since an allocator of the user's may not be ready yet. What needs
 * either waits for the first call that misses or writes.
 *
 * What was made before a fork can be told by its generation: a number that the child counts up.
 */
#ifndef ASIDE_BASE_FORK_H
#define ASIDE_BASE_FORK_H

#include "base/atomic.h"
#include "base/lock.h"

#include <stdbool.h>
#include <stdint.h>

struct fork_member;

struct fork_ops {
    /* Does that to each of the member's locks of this rank. */
    void (*locks)(struct fork_member *member, enum lock_rank rank, void (*each)(struct lock *lock));
    /* In the child. May be NULL. */
    void (*child)(struct fork_member *member);
};

struct fork_member {
    const struct fork_ops *ops;
    struct fork_member *next, **link; /* guarded by the rank FORK */
    _Atomic bool joined;
};

/* False: no memory; but once one has joined, none is refused. A member may join again. */
bool fork_join(struct fork_member *member);
void fork_leave(struct fork_member *member);

extern uint32_t fork_generation_now;

/* Written only while there is one thread. */
static inline uint32_t fork_generation(void)
{
    return fork_generation_now;
}

#endif
