/*
 * lib_load.h -- what the hit bench and the drivers of the suite ask for: keys, values, and who asks
 * for which key when. All of it is made before anything is timed.
 */
#ifndef ASIDE_BENCH_LOAD_H
#define ASIDE_BENCH_LOAD_H

#include "lib_bench.h"

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOAD_ENTRIES 100000
#define LOAD_PICKS (1u << 18) /* length of the hit bench's sequences; they are repeated */
#define LOAD_HOT_KEY 4711

enum load_kind { LOAD_UNIFORM, LOAD_ZIPF, LOAD_HOT, LOAD_KINDS };

const char *load_name(enum load_kind kind);

/* The keys 0 to entries - 1, one behind the other, BENCH_KEY bytes each. */
char *load_keys(size_t entries);

/* The value of key number. Its words add up to LOAD_SUM, so a check needs no second look-up. */
#define LOAD_SUM UINT64_C(0x0123456789abcdef)
void load_value(uint64_t value[BENCH_VALUE / 8], uint64_t number);

/* All bytes of a value, eight at a time. */
static inline uint64_t load_sum(const void *value)
{
    uint64_t sum = 0;
    for (int i = 0; i < BENCH_VALUE / 8; i++) {
        uint64_t word;
        memcpy(&word, (const char *)value + 8 * i, sizeof word);
        __asm__("" : "+r"(word)); /* word by word, as the fields of a struct are read */
        sum += word;
    }
    return sum;
}

/* count numbers of keys, all below entries, for one thread. zipf: exponent 0.99, ranks scattered
 * over the keys. */
uint32_t *load_picks(enum load_kind kind, size_t entries, size_t count, uint64_t seed);

/* The same of zipf, for as many as one likes; *seed moves on. */
struct load_zipf;
struct load_zipf *load_zipf_new(size_t entries);
void load_zipf_picks(const struct load_zipf *zipf, uint32_t *picks, size_t count, uint64_t *seed);
void load_zipf_free(struct load_zipf *zipf);

#ifdef __cplusplus
}
#endif

#endif
