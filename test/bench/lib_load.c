/* lib_load.c -- see lib_load.h. */
#include "lib_load.h"

#include <math.h>
#include <stdlib.h>

#define ZIPF_EXPONENT 0.99
#define HOT_KEY 4711
#define SCATTER_SEED 99 /* the same for all threads: they share the popular keys */

const char *load_name(enum load_kind kind)
{
    static const char *const names[LOAD_KINDS] = {"uniform", "zipf", "hot"};
    return names[kind];
}

char *load_keys(void)
{
    char *keys = bench_alloc((size_t)LOAD_ENTRIES * BENCH_KEY);
    for (size_t i = 0; i < LOAD_ENTRIES; i++)
        bench_key(keys + i * BENCH_KEY, i);
    return keys;
}

void load_value(uint64_t value[BENCH_VALUE / 8], uint64_t number)
{
    uint64_t state = number;
    value[0] = LOAD_SUM;
    for (int i = 1; i < BENCH_VALUE / 8; i++) {
        value[i] = bench_random(&state);
        value[0] -= value[i];
    }
}

static double unit(uint64_t *state)
{
    return (double)(bench_random(state) >> 11) * 0x1p-53;
}

/* Rank to key number. */
static uint32_t *scatter(void)
{
    uint64_t state = SCATTER_SEED;
    uint32_t *to = bench_alloc(LOAD_ENTRIES * sizeof *to);
    for (uint32_t i = 0; i < LOAD_ENTRIES; i++)
        to[i] = i;
    for (uint32_t i = LOAD_ENTRIES - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(bench_random(&state) % (i + 1));
        uint32_t swap = to[i];
        to[i] = to[j];
        to[j] = swap;
    }
    return to;
}

/* Share of the lookups that go to the ranks 0 to i. */
static double *zipf_shares(void)
{
    double *shares = bench_alloc(LOAD_ENTRIES * sizeof *shares), sum = 0;
    for (size_t i = 0; i < LOAD_ENTRIES; i++)
        shares[i] = sum += pow((double)(i + 1), -ZIPF_EXPONENT);
    for (size_t i = 0; i < LOAD_ENTRIES; i++)
        shares[i] /= sum;
    return shares;
}

static uint32_t rank_of(const double *shares, double point)
{
    uint32_t low = 0, high = LOAD_ENTRIES - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (shares[middle] < point)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void pick_zipf(uint32_t *picks, uint64_t seed)
{
    double *shares = zipf_shares();
    uint32_t *to = scatter();
    for (size_t i = 0; i < LOAD_PICKS; i++)
        picks[i] = to[rank_of(shares, unit(&seed))];
    free(to);
    free(shares);
}

uint32_t *load_picks(enum load_kind kind, uint64_t seed)
{
    uint32_t *picks = bench_alloc(LOAD_PICKS * sizeof *picks);
    if (kind == LOAD_ZIPF) {
        pick_zipf(picks, seed);
        return picks;
    }
    for (size_t i = 0; i < LOAD_PICKS; i++)
        picks[i] = kind == LOAD_HOT ? HOT_KEY : (uint32_t)(bench_random(&seed) % LOAD_ENTRIES);
    return picks;
}
