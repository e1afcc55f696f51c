/*
 * base/bytes -- little-endian words out of bytes at any address.
 */
#ifndef ASIDE_BASE_BYTES_H
#define ASIDE_BASE_BYTES_H

#include "base/check.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static HOT_INLINE uint64_t bytes_load64(const unsigned char *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static HOT_INLINE uint32_t bytes_load32(const unsigned char *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

#endif
