/*
 * lib_memory.h -- how much memory a cache takes: a ledger of the bytes that it asks its allocator
 * for, and the resident size of the process, which has the allocator's own losses in it.
 */
#ifndef ASIDE_BENCH_MEMORY_H
#define ASIDE_BENCH_MEMORY_H

#include "lib_bench.h"

/* Bytes asked for and not given back. {0} is ready for use. */
struct memory_ledger {
    _Atomic int64_t live_bytes;
};
aside_alloc memory_ledger_alloc(struct memory_ledger *ledger);

int64_t memory_resident_bytes(void);  /* of this process; allocates nothing */
int64_t memory_available_bytes(void); /* that programs may still take; 0 if unknown */

#endif
