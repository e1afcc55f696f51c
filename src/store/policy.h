/*
 * store/policy -- who has to go when a bound is reached: the queues of one shard.
 *
 * The body is S3-FIFO's (Yang et al. 2023): new entries come to a small queue, those that are asked
 * for again go on to the main one, whose end is a clock's hand (Corbato 1968). A hit only raises the
 * entry's heat, and not even that once it is hot: no queue moves, so a key that all cores read stays
 * in all their caches.
 *
 *   small -- end reached, asked for --> main -- end reached, hot: cooler, to the front again
 *      \-- end reached, not asked for -> gone, leaving a ghost
 *
 * Who leaves the small queue is judged by one of two rules, and which one pays the referee finds
 * out (store/referee):
 *   second look   asked for twice in the small queue, or a ghost: to the main one (S3-FIFO's own).
 *                 Wins where what is new is what is wanted.
 *   contest       the sketch has counted it more often than the one at the end of main, which goes
 *                 then in its place (TinyLFU, Einziger et al. 2017). Wins on scans and loops.
 *
 * Guarded by the shard's lock; entries carry the links. The shard does the unlinking.
 */
#ifndef ASIDE_STORE_POLICY_H
#define ASIDE_STORE_POLICY_H

#include "store/entry.h"
#include "store/ghosts.h"
#include "store/sketch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What the small queue is to hold, and who leaves it for the main one. */
enum policy_rule { POLICY_CONTEST_1, POLICY_SECOND_LOOK_10, POLICY_SECOND_LOOK_40, POLICY_RULES };

struct policy_queue {
    struct entry_link ends; /* next: the front, where entries come; prev: the end */
    size_t count;
    size_t weight;
};

struct policy {
    const _Atomic uint8_t *rule; /* the referee's */
    bool weighs;                 /* entries weigh what they are charged; else 1 */
    struct policy_queue small, main;
    struct sketch sketch;
    struct ghosts ghosts;
    uint32_t dice;
};

/* Without memory of keys that are not there: policy_remember(). */
void policy_init(struct policy *policy, const _Atomic uint8_t *rule, bool weighs);
/* Bytes of such a memory for so many entries, with so many words of counters for each: one, or more
 * where few entries see many keys pass. */
size_t policy_memory_bytes(size_t entries, unsigned words);
/* Copies a part of what is remembered, from *at = 0 on, to a zeroed memory that is as large or
 * larger: true, go on. Ghosts are not copied. */
bool policy_copy_memory(const struct policy *policy, void *memory, size_t entries, unsigned words,
                        size_t *at);
/* From now on this is the memory, at a cache line, zeroed or a copy. It stays the caller's, until
 * there is another; NULL: none. */
void policy_remember(struct policy *policy, void *memory, size_t entries, unsigned words);

/* The key was not there. */
void policy_add(struct policy *policy, struct entry *entry, uint64_t hash);
/* The same key has another value: it takes the other's place. */
void policy_replace(struct policy *policy, struct entry *old, struct entry *entry);
/* Also of an entry that is in no queue. */
void policy_remove(struct policy *policy, struct entry *entry);
/* Who is to go, or NULL if there is nobody, or if that would take more than so many looks at
 * entries: *looks is what is left of them. The caller unlinks it; evicted: policy_evict(). */
struct entry *policy_victim(struct policy *policy, unsigned *looks);
/* As policy_remove(); its key may be remembered. */
void policy_evict(struct policy *policy, struct entry *entry);
/* Forgets all entries, whose links are never followed again. */
void policy_clear(struct policy *policy);

/* What the policy knows a key by. */
static inline uint32_t policy_print_of(uint64_t hash)
{
    return (uint32_t)(hash ^ hash >> 29) >> 2;
}

static inline uint32_t policy_print(const struct entry *entry)
{
    return entry->print >> 2;
}

bool policy_check(const struct policy *policy, FILE *why);

/* A reader has found the entry. */
static inline void policy_hit(struct entry *entry)
{
    uint8_t marks = load_relaxed(&entry->head.marks);
    if ((marks & ENTRY_HEAT) != ENTRY_HEAT)
        store_relaxed(&entry->head.marks, (uint8_t)(marks + 1));
}

#endif
