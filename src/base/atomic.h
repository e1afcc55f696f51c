/*
 * base/atomic -- the one door to C11 atomics.
 *
 * Every operation names its order. There are no stand-alone fences: ThreadSanitizer does not see
 * them, and where an order between two objects is needed, a read-modify-write on one of them gives
 * it. A build with ASIDE_SCHED calls aside_sched_point() before each operation, so that a seeded
 * scheduler can put any other thread's step there.
 */
#ifndef ASIDE_BASE_ATOMIC_H
#define ASIDE_BASE_ATOMIC_H

#include <stdatomic.h>

#ifdef ASIDE_SCHED
void aside_sched_point(void);
#define sched_point() aside_sched_point()
#else
#define sched_point() ((void)0)
#endif

#define load_relaxed(p) (sched_point(), atomic_load_explicit((p), memory_order_relaxed))
#define load_acquire(p) (sched_point(), atomic_load_explicit((p), memory_order_acquire))
#define store_relaxed(p, v) (sched_point(), atomic_store_explicit((p), (v), memory_order_relaxed))
#define store_release(p, v) (sched_point(), atomic_store_explicit((p), (v), memory_order_release))
#define exchange_acq_rel(p, v)                                                                     \
    (sched_point(), atomic_exchange_explicit((p), (v), memory_order_acq_rel))
#define fetch_add_relaxed(p, v)                                                                    \
    (sched_point(), atomic_fetch_add_explicit((p), (v), memory_order_relaxed))
#define fetch_sub_relaxed(p, v)                                                                    \
    (sched_point(), atomic_fetch_sub_explicit((p), (v), memory_order_relaxed))
#define fetch_add_acq_rel(p, v)                                                                    \
    (sched_point(), atomic_fetch_add_explicit((p), (v), memory_order_acq_rel))
#define fetch_sub_acq_rel(p, v)                                                                    \
    (sched_point(), atomic_fetch_sub_explicit((p), (v), memory_order_acq_rel))
/* *expected is what was found. Strong: false means that another value was there. */
#define compare_swap(p, expected, desired)                                                         \
    (sched_point(), atomic_compare_exchange_strong_explicit(                                       \
                        (p), (expected), (desired), memory_order_acq_rel, memory_order_acquire))
#define compare_swap_relaxed(p, expected, desired)                                                 \
    (sched_point(), atomic_compare_exchange_strong_explicit(                                       \
                        (p), (expected), (desired), memory_order_relaxed, memory_order_relaxed))

#endif
