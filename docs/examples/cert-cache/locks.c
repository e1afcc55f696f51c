/*
 * locks.c -- functions of the C library, redefined: the dynamic linker gives every caller these,
 * in libaside and in the other libraries, and RTLD_NEXT is the real one.
 */
#include "locks.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static _Thread_local bool watching;
static _Thread_local unsigned long counted;

void locks_watch(void)
{
    counted = 0;
    watching = true;
}

void locks_pause(void)
{
    watching = false;
}

void locks_resume(void)
{
    watching = true;
}

unsigned long locks_counted(void)
{
    watching = false;
    return counted;
}

/* Looked up when it is first called, which may be before main(). */
static void *real(_Atomic uintptr_t *known, const char *name)
{
    uintptr_t function = atomic_load_explicit(known, memory_order_relaxed);
    if (function == 0) {
        function = (uintptr_t)dlsym(RTLD_NEXT, name);
        if (function == 0)
            abort();
        atomic_store_explicit(known, function, memory_order_relaxed);
    }
    counted += watching;
    return (void *)function;
}

#define COUNTED(name, type)                                                                        \
    int name(type *lock)                                                                           \
    {                                                                                              \
        static _Atomic uintptr_t known;                                                            \
        return ((int (*)(type *))real(&known, #name))(lock);                                       \
    }

COUNTED(pthread_mutex_lock, pthread_mutex_t)
COUNTED(pthread_mutex_trylock, pthread_mutex_t)
COUNTED(pthread_rwlock_rdlock, pthread_rwlock_t)
COUNTED(pthread_rwlock_wrlock, pthread_rwlock_t)

/* A system call has at most six arguments; those that were not passed are not looked at. */
long syscall(long number, ...)
{
    static _Atomic uintptr_t known;
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    long (*next)(long, ...) = (long (*)(long, ...))real(&known, "syscall");
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
