/*
 * store/limbo -- what has left the index and waits until no reader can see it. One for each shard,
 * guarded by its lock.
 *
 *   open -> waiting (tagged) -> ripe -> handed out to be dropped
 *                                \-> visited, while a visit names it -> ripe
 *
 * Adding is a few writes and allocates nothing: the entry's link is free, it has left the wheel.
 * Only one batch waits at a time; what comes meanwhile stays open and gets the next tag.
 */
#ifndef ASIDE_STORE_LIMBO_H
#define ASIDE_STORE_LIMBO_H

#include "base/epoch.h"
#include "store/entry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct limbo {
    struct link_list open, waiting, ripe, visited;
    uint64_t tag; /* of waiting */
    size_t bytes; /* of open, waiting and ripe */
    size_t visited_bytes;
};

/* Retires that are worth the walk over all threads which a step of the epoch costs. */
#define LIMBO_BATCH 32

void limbo_init(struct limbo *limbo);
void limbo_add(struct limbo *limbo, struct entry *entry);
/* Moves batches on as far as the readers allow. Cheap unless there is a batch worth it, or
 * pressed. */
void limbo_step(struct limbo *limbo, bool pressed);
/* Takes up to max ripe entries: the caller, without the lock, gives each to entry_drop(). */
unsigned limbo_take(struct limbo *limbo, struct entry **entries, unsigned max);
bool limbo_empty(const struct limbo *limbo);
/* Whether a step is worth its while. */
static inline bool limbo_has_batch(const struct limbo *limbo)
{
    return limbo->open.count + limbo->waiting.count >= LIMBO_BATCH;
}

#endif
