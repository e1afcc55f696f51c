/*
 * store/budget -- what the index may reach: bytes and entries of one cache (B1).
 *
 * Reserved before anything is linked, and only if it fits, so that the sums are never above the
 * bounds, not for an instant. Refunded when a thing is unlinked.
 */
#ifndef ASIDE_STORE_BUDGET_H
#define ASIDE_STORE_BUDGET_H

#include "base/atomic.h"
#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Half of what a size_t can say, so that sums of two do not overflow. */
#define BUDGET_MOST (SIZE_MAX / 2)

struct budget {
    size_t max_bytes;   /* immutable; BUDGET_MOST: no bound */
    size_t max_entries; /* immutable; BUDGET_MOST: no bound */
    _Alignas(CACHE_LINE) _Atomic size_t bytes;
    _Atomic size_t entries;
    _Atomic size_t lasting; /* of bytes: what no eviction can free */
};

struct budget_room {
    size_t bytes, entries;
};

/* 0 means no bound. */
void budget_init(struct budget *budget, size_t max_bytes, size_t max_entries);

/* True if both fit; else nothing is reserved. */
bool budget_reserve(struct budget *budget, size_t bytes, size_t entries);
void budget_refund(struct budget *budget, size_t bytes, size_t entries);
/* The same for bytes of the index and of flights. */
bool budget_reserve_lasting(struct budget *budget, size_t bytes);
void budget_refund_lasting(struct budget *budget, size_t bytes);

/* Says anew what is used. Nobody else does anything with the budget. */
void budget_recount(struct budget *budget, size_t bytes, size_t lasting, size_t entries);

/* It would fit now; and it might fit if every entry were evicted. */
bool budget_has(const struct budget *budget, const struct budget_room *room);
bool budget_could_have(const struct budget *budget, size_t bytes);

#endif
