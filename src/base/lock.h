/*
 * base/lock -- mutexes with a rank.
 *
 * Whoever holds a lock may take only one of a higher rank. Debug builds check that, and that no
 * shard lock is held over more than LOCK_MAX_TOUCHED entries (B4); clang checks the guards at
 * compile time.
 */
#ifndef ASIDE_BASE_LOCK_H
#define ASIDE_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#if defined(__clang__)
#define LOCK_ATTRIBUTE(x) __attribute__((x))
#else
#define LOCK_ATTRIBUTE(x)
#endif
#define GUARDED_BY(lock) LOCK_ATTRIBUTE(guarded_by(lock))
#define REQUIRES(lock) LOCK_ATTRIBUTE(requires_capability(lock))
#define ACQUIRES(lock) LOCK_ATTRIBUTE(acquire_capability(lock))
#define RELEASES(lock) LOCK_ATTRIBUTE(release_capability(lock))
#define TRY_ACQUIRES(lock) LOCK_ATTRIBUTE(try_acquire_capability(true, lock))
#define NO_LOCK_ANALYSIS LOCK_ATTRIBUTE(no_thread_safety_analysis)

enum lock_rank {
    RANK_FORK = 1,
    RANK_REGISTRY,
    RANK_SHARD,
    RANK_REFEREE,
    RANK_GRAPH,
    RANK_TOKEN,
    RANK_INBOX,
    RANK_TAGS,
    RANK_EXECUTOR,
    RANK_REAPER,
    RANKS
};

#define LOCK_MAX_TOUCHED 64

struct LOCK_ATTRIBUTE(capability("mutex")) lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
};

#ifdef ASIDE_DEBUG
#define LOCK_MUTEX PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP
#else
#define LOCK_MUTEX PTHREAD_MUTEX_INITIALIZER
#endif

#define LOCK_INIT(its_rank)                                                                        \
    {                                                                                              \
        LOCK_MUTEX, its_rank                                                                       \
    }

void lock_init(struct lock *lock, enum lock_rank rank);
void lock_fini(struct lock *lock);
void lock_take(struct lock *lock) ACQUIRES(lock);
bool lock_try(struct lock *lock) TRY_ACQUIRES(lock);
void lock_release(struct lock *lock) RELEASES(lock);

/* Round a fork: all locks are taken, by rank, and released in the parent; in the child they are
 * made anew, since a mutex can only be released by the thread that took it. */
void lock_seize(struct lock *lock);
void lock_yield(struct lock *lock);
void lock_renew(struct lock *lock);

/* The holder of the innermost lock is about to look at so many entries. */
#ifdef ASIDE_DEBUG
void lock_touch(size_t entries);
#else
static inline void lock_touch(size_t entries)
{
    (void)entries;
}
#endif

#endif
