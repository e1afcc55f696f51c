/*
 * base/aes -- a keyed hash by the processor's AES instructions, for those that have them.
 *
 * Sixteen bytes are mixed by two rounds of AES, the last of a key by four (as Go's runtime does with
 * three). Two texts of one length up to sixteen bytes collide in all 128 bits with a chance of
 * 2^-113 at most over the keys of the rounds, two longer ones with 2^-28 or so at worst (Keliher and
 * Sui 2007); a length shifts where it all begins by a secret multiple. SipHash needs five times the
 * instructions for a short key.
 *
 * By inline assembly: intrinsics would want the whole caller compiled for such processors.
 */
#ifndef ASIDE_BASE_AES_H
#define ASIDE_BASE_AES_H

#include "base/bytes.h"
#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AES_ROUNDS 4

#ifdef __x86_64__

typedef uint64_t aes_block __attribute__((vector_size(16)));

struct aes_seed {
    aes_block start, round[AES_ROUNDS];
    uint64_t length_factor; /* odd */
};

/* From a key of 128 random bits. */
void aes_seed_init(struct aes_seed *seed, const uint64_t key[2]);

static inline bool aes_is_here(void)
{
    return __builtin_cpu_supports("aes");
}

static HOT_INLINE aes_block aes_round(aes_block state, aes_block key)
{
    /* volatile: not to be tried where the processor may not know it. */
    __asm__ volatile("aesenc {%1, %0|%0, %1}" : "+x"(state) : "x"(key));
    return state;
}

static HOT_INLINE aes_block aes_load(const unsigned char *from)
{
    aes_block block;
    memcpy(&block, from, sizeof block);
    return block;
}

/* 0 to 15 bytes; of one length, no two texts give the same. */
static HOT_INLINE aes_block aes_load_short(const unsigned char *from, size_t length)
{
    if (length >= 8)
        return (aes_block){bytes_load64(from), bytes_load64(from + length - 8)};
    if (length >= 4)
        return (aes_block){bytes_load32(from), bytes_load32(from + length - 4)};
    if (length)
        return (aes_block){from[0] | (unsigned)from[length / 2] << 8, from[length - 1]};
    return (aes_block){0, 0};
}

static HOT_INLINE uint64_t aes_hash(const struct aes_seed *seed, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    aes_block state = seed->start ^ (aes_block) { length * seed->length_factor, 0 };
    if (likely(length >= 16)) {
        for (size_t left = length; left > 16; left -= 16, at += 16)
            state = aes_round(aes_round(state ^ aes_load(at), seed->round[0]), seed->round[1]);
        state ^= aes_load((const unsigned char *)bytes + length - 16);
    } else {
        state ^= aes_load_short(at, length);
    }
    for (unsigned i = 0; i < AES_ROUNDS; i++)
        state = aes_round(state, seed->round[i]);
    return state[0];
}

#else

struct aes_seed {
    char none;
};

static inline bool aes_is_here(void)
{
    return false;
}

static inline void aes_seed_init(struct aes_seed *seed, const uint64_t key[2])
{
    (void)seed;
    (void)key;
}

static inline uint64_t aes_hash(const struct aes_seed *seed, const void *bytes, size_t length)
{
    (void)seed;
    (void)bytes;
    return length;
}

#endif

#endif
