/* base/lock -- see lock.h. */
#include "base/lock.h"

#include "base/atomic.h"
#include "base/check.h"

#ifdef ASIDE_DEBUG
/* What this thread holds, outermost first. */
#define MAX_HELD 8
static _Thread_local struct {
    const struct lock *lock;
    size_t touched;
} held[MAX_HELD];
static _Thread_local unsigned depth;

static void note_taken(const struct lock *lock)
{
    invariant(depth < MAX_HELD);
    invariant(depth == 0 || held[depth - 1].lock->rank < lock->rank);
    held[depth].lock = lock;
    held[depth].touched = 0;
    depth++;
}

static void note_released(const struct lock *lock)
{
    invariant(depth > 0 && held[depth - 1].lock == lock);
    depth--;
}

void lock_touch(size_t entries)
{
    invariant(depth > 0);
    held[depth - 1].touched += entries;
    invariant(held[depth - 1].touched <= LOCK_MAX_TOUCHED);
}
/* Who releases a lock that he does not hold, or another process's, is told so. */
#define MUST(call) invariant((call) == 0)
#else
#define MUST(call) ((void)(call))
#define note_taken(lock) ((void)(lock))
#define note_released(lock) ((void)(lock))
#endif

void lock_init(struct lock *lock, enum lock_rank rank)
{
    *lock = (struct lock)LOCK_INIT(rank);
}

void lock_fini(struct lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

void lock_take(struct lock *lock) NO_LOCK_ANALYSIS
{
    sched_point();
    MUST(pthread_mutex_lock(&lock->mutex));
    note_taken(lock);
}

bool lock_try(struct lock *lock) NO_LOCK_ANALYSIS
{
    sched_point();
    if (pthread_mutex_trylock(&lock->mutex) != 0)
        return false;
    note_taken(lock);
    return true;
}

void lock_release(struct lock *lock) NO_LOCK_ANALYSIS
{
    note_released(lock);
    MUST(pthread_mutex_unlock(&lock->mutex));
    sched_point();
}

void lock_seize(struct lock *lock) NO_LOCK_ANALYSIS
{
    MUST(pthread_mutex_lock(&lock->mutex));
}

void lock_yield(struct lock *lock) NO_LOCK_ANALYSIS
{
    MUST(pthread_mutex_unlock(&lock->mutex));
}

void lock_renew(struct lock *lock)
{
#ifdef __SANITIZE_THREAD__
    /* It goes on counting the hold of the thread that forked, where there is one. */
    (void)pthread_mutex_trylock(&lock->mutex);
    pthread_mutex_unlock(&lock->mutex);
#endif
    lock_init(lock, lock->rank);
}
