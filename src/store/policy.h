/*
 * store/policy -- who has to go when a bound is reached.
 *
 * CLOCK with a small counter (Corbato 1968; the counter as in S3-FIFO, Yang et al. 2023): a hit
 * raises an entry's heat to at most 3, the sweeping hand lowers it and evicts what is cold. The
 * hand walks the index's buckets, whose order is the keyed hash's, so an entry costs no byte for
 * the queue. A hit writes nothing once the entry is hot: a key that all cores read stays in all
 * their caches.
 *
 * The shard holds the hand and does the unlinking; this room only judges.
 */
#ifndef ASIDE_STORE_POLICY_H
#define ASIDE_STORE_POLICY_H

#include "store/entry.h"

/* A reader has found the entry. */
static inline void policy_hit(struct entry *entry)
{
    uint8_t marks = load_relaxed(&entry->head.marks);
    if ((marks & ENTRY_HEAT) != ENTRY_HEAT)
        store_relaxed(&entry->head.marks, (uint8_t)(marks + 1));
}

/* The hand has come to the entry: true if it must go. */
static inline bool policy_condemns(struct entry *entry)
{
    uint8_t marks = load_relaxed(&entry->head.marks);
    if (!(marks & ENTRY_HEAT))
        return true;
    store_relaxed(&entry->head.marks, (uint8_t)(marks - 1));
    return false;
}

#endif
