/*
 * base/hash -- the hash of a key, keyed for each cache, so that nobody can choose keys that collide
 * (B2): by AES instructions where the processor has them, else SipHash-1-3.
 */
#ifndef ASIDE_BASE_HASH_H
#define ASIDE_BASE_HASH_H

#include "base/aes.h"
#include "base/check.h"
#include "base/siphash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_seed {
    uint64_t key[2];
    bool by_aes;
    struct aes_seed aes; /* follows from the key; only if by_aes */
};

/* From 16 bytes, or from getrandom(2) where bytes is NULL; false if that fails. */
bool hash_seed_init(struct hash_seed *seed, const uint8_t *bytes);

static HOT_INLINE uint64_t hash_bytes(const struct hash_seed *seed, const void *bytes,
                                      size_t length)
{
    return likely(seed->by_aes) ? aes_hash(&seed->aes, bytes, length)
                                : siphash(seed->key, bytes, length);
}

#endif
