/*
 * internal.h -- what the files of the harness share with each other and with no test.
 */
#ifndef ASIDE_TEST_HARNESS_INTERNAL_H
#define ASIDE_TEST_HARNESS_INTERNAL_H

#include "harness.h"
#include "sanitizers.h"

#include <sys/types.h>

enum { EXIT_SKIPPED = 77 };

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
/* In its parent: prints the stack of every thread of pid, by gdb where there is one. */
void stacks_print_of(pid_t pid);

#endif
