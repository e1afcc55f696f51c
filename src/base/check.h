/*
 * base/check -- assertions and the small compiler hints that every room uses.
 *
 * invariant() is for what the library itself must never do: it ends a debug build and costs a
 * release build nothing. What a user can do wrong is answered with ASIDE_E_INVALID instead: each
 * public object carries a magic word that is tested in every build.
 */
#ifndef ASIDE_BASE_CHECK_H
#define ASIDE_BASE_CHECK_H

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* What a hit is made of, and what must stay out of its way. */
#define HOT_INLINE inline __attribute__((always_inline))
#define OUT_OF_LINE __attribute__((noinline, cold))

/* Two lines: processors fetch them in pairs. */
#define CACHE_LINE 128

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#ifdef ASIDE_DEBUG
_Noreturn void check_failed(const char *file, int line, const char *what);
#define invariant(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#elif defined(__clang_analyzer__)
#define invariant(condition) ((condition) ? (void)0 : __builtin_unreachable())
#else
#define invariant(condition) ((void)sizeof(condition))
#endif

#endif
