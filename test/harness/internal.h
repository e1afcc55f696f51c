/*
 * internal.h -- what the files of the harness share with each other and with no test.
 */
#ifndef ASIDE_TEST_HARNESS_INTERNAL_H
#define ASIDE_TEST_HARNESS_INTERNAL_H

#include "harness.h"

#include <sys/types.h>

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifndef UNDER_ASAN
#define UNDER_ASAN 0
#endif

/* A bijection of 64 bits whose output looks random (Steele et al. 2014, SplitMix64). */
static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Fails the n-th call from now, and every later one if asked to. 0: none. */
struct countdown {
    _Atomic int64_t left;
    _Atomic int for_ever;
};
bool countdown_hit(_Atomic int64_t *left, const _Atomic int *for_ever);

/* Ends this process at once, after what coverage has counted is on disk. */
_Noreturn void harness_exit_now(int status);

/* In a test's process: a stack when it crashes, and one a thread when the parent asks. */
void stacks_install(void);
/* In the parent: prints the stack of every thread of pid, by gdb where there is one. */
void stacks_print_of(pid_t pid);

#endif
