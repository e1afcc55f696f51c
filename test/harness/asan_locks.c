/*
 * asan_locks.c -- the locks of AddressSanitizer's allocator, held over a fork.
 *
 * The C library holds those of malloc() itself. AddressSanitizer does so since clang 17 and gcc 14:
 * before, what another thread held at that moment stays locked in the child for ever, and its next
 * malloc() hangs. The functions are the runtime's own; only where it is linked statically can they be
 * called. They are the first to be registered: their turn comes after every other handler that
 * prepares, and before every other that goes on, which may allocate.
 */
#include "sanitizers.h"

#if UNDER_ASAN && ((defined(__clang_major__) && __clang_major__ < 17) ||                           \
                   (!defined(__clang_major__) && __GNUC__ < 14))

#include <stdlib.h>

#define RUNTIME(name, symbol)                                                                      \
    void name(void) __asm__(symbol) __attribute__((weak, visibility("hidden")))

RUNTIME(lock_threads, "_ZN6__lsan18LockThreadRegistryEv");
RUNTIME(unlock_threads, "_ZN6__lsan20UnlockThreadRegistryEv");
RUNTIME(lock_allocator, "_ZN6__lsan13LockAllocatorEv");
RUNTIME(unlock_allocator, "_ZN6__lsan15UnlockAllocatorEv");
RUNTIME(lock_stacks, "_ZN11__sanitizer17StackDepotLockAllEv");
RUNTIME(unlock_stacks, "_ZN11__sanitizer19StackDepotUnlockAllEv");

/* What pthread_atfork() calls, which a test may have in its hands. */
int register_handlers(void (*prepare)(void), void (*parent)(void), void (*child)(void),
                      void *program) __asm__("__register_atfork");

/* In the order in which its search for leaks takes them. */
static void lock_all(void)
{
    lock_threads();
    lock_allocator();
    lock_stacks();
}

static void unlock_all(void)
{
    unlock_stacks();
    unlock_allocator();
    unlock_threads();
}

__attribute__((constructor(101))) static void register_first(void)
{
    if (!lock_threads || !lock_allocator || !lock_stacks)
        return;
    if (register_handlers(lock_all, unlock_all, unlock_all, NULL))
        abort();
}

#endif
