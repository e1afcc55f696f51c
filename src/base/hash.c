/* base/hash -- see hash.h. */
#include "base/hash.h"

#include <errno.h>
#include <sys/random.h>

bool hash_seed_init(struct hash_seed *seed, const uint8_t *bytes)
{
    unsigned char drawn[16];
    if (!bytes) {
        ssize_t got;
        do {
            got = getrandom(drawn, sizeof drawn, 0);
        } while (got < 0 && errno == EINTR);
        if (got != (ssize_t)sizeof drawn)
            return false;
        bytes = drawn;
    }
    seed->k0 = hash_load64(bytes);
    seed->k1 = hash_load64(bytes + 8);
    return true;
}
