/*
 * base/dice -- numbers that look random, and need be no secret. SplitMix64 (Steele, Lea and Flood
 * 2014): its state is a counter, so threads share one by an atomic addition.
 */
#ifndef ASIDE_BASE_DICE_H
#define ASIDE_BASE_DICE_H

#include "base/atomic.h"

#include <stdint.h>

struct dice {
    _Atomic uint64_t at;
};

static inline void dice_init(struct dice *dice, uint64_t seed)
{
    atomic_init(&dice->at, seed);
}

static inline uint64_t dice_roll(struct dice *dice)
{
    uint64_t z = fetch_add_relaxed(&dice->at, UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* So that whoever else has the same state, a parent or a sibling, goes on otherwise. */
static inline void dice_part(struct dice *dice, uint64_t mark)
{
    struct dice other;
    dice_init(&other, mark);
    fetch_add_relaxed(&dice->at, dice_roll(&other));
}

#endif
