/*
 * sanitizers.h -- which sanitizer this build has: UNDER_ASAN, UNDER_TSAN, and SANITIZED for either,
 * each 0 or 1; and what a program asks of it.
 */
#ifndef ASIDE_TEST_SANITIZERS_H
#define ASIDE_TEST_SANITIZERS_H

#include <stdbool.h>

/* gcc says so by a macro, clang when it is asked. */
#ifdef __has_feature
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

#define SANITIZED (UNDER_ASAN || UNDER_TSAN)

/* Written once in a program. The search for deadlocks ends a process that holds more than 64 mutexes,
 * as one with many caches does when it forks. */
#define SEARCH_NO_DEADLOCKS const bool search_no_deadlocks = true
#define SEARCH_NO_LEAKS const bool search_no_leaks = true

/* Where it is written, it exists. */
extern const bool search_no_deadlocks __attribute__((weak));
extern const bool search_no_leaks __attribute__((weak));

#endif
