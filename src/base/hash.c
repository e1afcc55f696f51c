/* base/hash -- see hash.h. */
#include "base/hash.h"

#include <errno.h>
#include <sys/random.h>

static bool draw(unsigned char *bytes, size_t count)
{
    ssize_t got;
    do {
        got = getrandom(bytes, count, 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)count;
}

bool hash_seed_init(struct hash_seed *seed, const uint8_t *bytes)
{
    unsigned char drawn[16];
    if (!bytes && !draw(drawn, sizeof drawn))
        return false;
    if (!bytes)
        bytes = drawn;
    seed->key[0] = bytes_load64(bytes);
    seed->key[1] = bytes_load64(bytes + 8);
    seed->by_aes = aes_is_here();
    if (seed->by_aes)
        aes_seed_init(&seed->aes, seed->key);
    return true;
}
