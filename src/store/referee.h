/*
 * store/referee -- which rule of eviction pays, for one cache.
 *
 * Each rule has a miniature cache of keys, without values, that sees the requests for a sample of
 * the keys (miniature simulation: Waldspurger, Saemundsson, Ahmad, Park 2017). Now and then their
 * hits are compared, older ones counting less, and the best rule is the cache's from then on, if it
 * leads clearly.
 *
 * Misses are cheap to offer beside what they cost anyway. Hits are not: a sampled hit is offered
 * only if this thread has not just offered the same key, and nobody waits for the referee's lock.
 * And the referee listens only as long as it has credit: a hit that it hears costs one, a sampled
 * miss earns two. Where few miss, the choice matters little.
 */
#ifndef ASIDE_STORE_REFEREE_H
#define ASIDE_STORE_REFEREE_H

#include "base/lock.h"
#include "store/budget.h"
#include "store/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct miniature;

struct referee {
    /* read by hits */
    _Atomic uint32_t share; /* of the keys, in 2^32: what is sampled; 0: nothing */
    _Atomic bool listens;   /* else nothing is heard, and misses only earn credit */
    _Atomic uint8_t rule;   /* enum policy_rule */
    _Alignas(CACHE_LINE) struct lock lock;
    struct miniature *miniatures; /* guarded by lock; POLICY_RULES of them */
    size_t size;                  /* immutable: entries of each */
    size_t heard;                 /* guarded by lock: requests since they were compared last */
    size_t credit;                /* guarded by lock: hits that may be heard */
    unsigned leader, leads;       /* guarded by lock: which rule led last, and how often in a row */
    bool judged;                  /* guarded by lock: the rule has changed before */
    const struct budget *budget;  /* immutable */
    const struct mem *mem;        /* immutable */
    void *block;                  /* immutable */
};

/* budget: what bounds the cache. False: no memory. */
bool referee_init(struct referee *referee, const struct mem *mem, const struct budget *budget);
void referee_fini(struct referee *referee);

/* Neither the bucket nor the shard depends on the highest of these bits, except in huge caches. */
static HOT_INLINE bool referee_samples(const struct referee *referee, uint64_t hash)
{
    return (uint32_t)hash < atomic_load_explicit(&referee->share, memory_order_relaxed);
}

/* Of a sampled key. *last: the key that this thread has offered before. */
void referee_hear_hit(struct referee *referee, uint64_t hash, uint64_t *last);
void referee_hear_miss(struct referee *referee, uint64_t hash);

#endif
