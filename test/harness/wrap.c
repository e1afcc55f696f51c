/*
 * wrap.c -- stands between the library and the C library in test builds.
 *
 * The library's objects (and no others) have these symbols renamed after they are compiled, as
 * wrap.syms says; so what the tests and the harness call themselves is neither counted nor failed.
 */
#include "internal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static struct countdown allocs, starts, randoms;
static _Atomic int64_t alloc_calls, start_calls;
static _Atomic int created, joined;

#define relaxed_load(p) atomic_load_explicit((p), memory_order_relaxed)
#define relaxed_store(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define relaxed_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

static void countdown_set(struct countdown *countdown, int64_t nth, bool for_ever)
{
    relaxed_store(&countdown->for_ever, for_ever);
    relaxed_store(&countdown->left, nth);
}

void process_fail_alloc(int64_t nth, bool for_ever)
{
    relaxed_store(&alloc_calls, 0);
    countdown_set(&allocs, nth, for_ever);
}

void process_fail_thread(int64_t nth, bool for_ever)
{
    relaxed_store(&start_calls, 0);
    countdown_set(&starts, nth, for_ever);
}

void process_fail_random(int64_t nth, bool for_ever)
{
    countdown_set(&randoms, nth, for_ever);
}

int64_t process_alloc_calls(void)
{
    return relaxed_load(&alloc_calls);
}

int64_t process_thread_calls(void)
{
    return relaxed_load(&start_calls);
}

int threads_created(void)
{
    return relaxed_load(&created);
}

int threads_joined(void)
{
    return relaxed_load(&joined);
}

/* ---- what the library calls ---------------------------------------------------------------------- */

void *harness_malloc(size_t size);
void *harness_calloc(size_t count, size_t size);
void *harness_realloc(void *block, size_t size);
int harness_posix_memalign(void **block, size_t alignment, size_t size);
void *harness_aligned_alloc(size_t alignment, size_t size);
int harness_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_fn fn, void *arg);
int harness_pthread_join(pthread_t thread, void **result);
int harness_pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until);
int harness_pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock,
                                 const struct timespec *until);
ssize_t harness_getrandom(void *buffer, size_t size, unsigned int flags);

static bool alloc_fails(void)
{
    relaxed_add(&alloc_calls, 1);
    return countdown_hit(&allocs.left, &allocs.for_ever);
}

void *harness_malloc(size_t size)
{
    if (alloc_fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return malloc(size);
}

void *harness_calloc(size_t count, size_t size)
{
    if (alloc_fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return calloc(count, size);
}

void *harness_realloc(void *block, size_t size)
{
    if (alloc_fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, size);
}

int harness_posix_memalign(void **block, size_t alignment, size_t size)
{
    if (alloc_fails())
        return ENOMEM;
    return posix_memalign(block, alignment, size);
}

void *harness_aligned_alloc(size_t alignment, size_t size)
{
    if (alloc_fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return aligned_alloc(alignment, size);
}

int harness_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_fn fn, void *arg)
{
    relaxed_add(&start_calls, 1);
    if (countdown_hit(&starts.left, &starts.for_ever))
        return EAGAIN;
    relaxed_add(&created, 1);
    int error = pthread_create(thread, attr, fn, arg);
    if (error)
        relaxed_add(&created, -1);
    return error;
}

static int note_join(int error)
{
    if (!error)
        relaxed_add(&joined, 1);
    return error;
}

int harness_pthread_join(pthread_t thread, void **result)
{
    return note_join(pthread_join(thread, result));
}

int harness_pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until)
{
    return note_join(pthread_timedjoin_np(thread, result, until));
}

int harness_pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock,
                                 const struct timespec *until)
{
    return note_join(pthread_clockjoin_np(thread, result, clock, until));
}

ssize_t harness_getrandom(void *buffer, size_t size, unsigned int flags)
{
    if (countdown_hit(&randoms.left, &randoms.for_ever)) {
        errno = ENOSYS;
        return -1;
    }
    return getrandom(buffer, size, flags);
}
