/* base/aes -- see aes.h. */
#include "base/aes.h"

#include "base/siphash.h"

#ifdef __x86_64__

/* Of each number another word, as random as the key. */
static uint64_t drawn_word(const uint64_t key[2], uint64_t *number)
{
    ++*number;
    return siphash(key, number, sizeof *number);
}

void aes_seed_init(struct aes_seed *seed, const uint64_t key[2])
{
    uint64_t number = 0;
    aes_block blocks[1 + AES_ROUNDS];
    for (unsigned i = 0; i < 1 + AES_ROUNDS; i++)
        for (unsigned half = 0; half < 2; half++)
            blocks[i][half] = drawn_word(key, &number);
    seed->start = blocks[0];
    memcpy(seed->round, blocks + 1, sizeof seed->round);
    seed->length_factor = drawn_word(key, &number) | 1;
}

#endif
