/* base/siphash -- see siphash.h. */
#include "base/siphash.h"

#include "base/bytes.h"

#define SIP_ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

#define SIP_ROUND(v0, v1, v2, v3)                                                                  \
    do {                                                                                           \
        (v0) += (v1);                                                                              \
        (v2) += (v3);                                                                              \
        (v1) = SIP_ROTATE(v1, 13) ^ (v0);                                                          \
        (v3) = SIP_ROTATE(v3, 16) ^ (v2);                                                          \
        (v0) = SIP_ROTATE(v0, 32);                                                                 \
        (v2) += (v1);                                                                              \
        (v0) += (v3);                                                                              \
        (v1) = SIP_ROTATE(v1, 17) ^ (v2);                                                          \
        (v3) = SIP_ROTATE(v3, 21) ^ (v0);                                                          \
        (v2) = SIP_ROTATE(v2, 32);                                                                 \
    } while (0)

/* The last 0 to 7 bytes with the length above them. Overlapping loads instead of a loop. */
static uint64_t tail_word(const unsigned char *from, size_t rest, size_t length)
{
    uint64_t word = (uint64_t)length << 56;
    if (rest >= 4)
        return word | bytes_load32(from) |
               (uint64_t)bytes_load32(from + rest - 4) << (8 * (rest - 4));
    for (size_t i = 0; i < rest; i++)
        word |= (uint64_t)from[i] << (8 * i);
    return word;
}

uint64_t siphash(const uint64_t key[2], const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    uint64_t v0 = key[0] ^ UINT64_C(0x736f6d6570736575);
    uint64_t v1 = key[1] ^ UINT64_C(0x646f72616e646f6d);
    uint64_t v2 = key[0] ^ UINT64_C(0x6c7967656e657261);
    uint64_t v3 = key[1] ^ UINT64_C(0x7465646279746573);
    size_t rest = length;
    for (; rest >= 8; rest -= 8, at += 8) {
        uint64_t word = bytes_load64(at);
        v3 ^= word;
        SIP_ROUND(v0, v1, v2, v3);
        v0 ^= word;
    }
    uint64_t last = tail_word(at, rest, length);
    v3 ^= last;
    SIP_ROUND(v0, v1, v2, v3);
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND(v0, v1, v2, v3);
    SIP_ROUND(v0, v1, v2, v3);
    SIP_ROUND(v0, v1, v2, v3);
    return v0 ^ v1 ^ v2 ^ v3;
}
