/* lib_load.c -- see lib_load.h. */
#include "lib_load.h"

#include <math.h>
#include <stdlib.h>

#define ZIPF_EXPONENT 0.99
#define SCATTER_SEED 99 /* the same for all threads: they share the popular keys */

const char *load_name(enum load_kind kind)
{
    static const char *const names[LOAD_KINDS] = {"uniform", "zipf", "hot"};
    return names[kind];
}

char *load_keys(size_t entries)
{
    char *keys = bench_alloc(entries * BENCH_KEY);
    for (size_t i = 0; i < entries; i++)
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
static uint32_t *scatter(size_t entries)
{
    uint64_t state = SCATTER_SEED;
    uint32_t *to = bench_alloc(entries * sizeof *to);
    for (size_t i = 0; i < entries; i++)
        to[i] = (uint32_t)i;
    for (size_t i = entries - 1; i > 0; i--) {
        size_t j = (size_t)(bench_random(&state) % (i + 1));
        uint32_t swap = to[i];
        to[i] = to[j];
        to[j] = swap;
    }
    return to;
}

/* Share of the lookups that go to the ranks 0 to i. */
static double *zipf_shares(size_t entries)
{
    double *shares = bench_alloc(entries * sizeof *shares), sum = 0;
    for (size_t i = 0; i < entries; i++)
        shares[i] = sum += pow((double)(i + 1), -ZIPF_EXPONENT);
    for (size_t i = 0; i < entries; i++)
        shares[i] /= sum;
    return shares;
}

struct load_zipf {
    size_t entries;
    double *shares;
    uint32_t *to;
    uint32_t *guide; /* the rank at which each of entries equal parts begins; one more at the end */
};

static uint32_t *guide_to(const double *shares, size_t entries)
{
    uint32_t *guide = bench_alloc((entries + 1) * sizeof *guide), rank = 0;
    for (size_t part = 0; part <= entries; part++) {
        while (rank < entries - 1 && shares[rank] < (double)part / (double)entries)
            rank++;
        guide[part] = rank;
    }
    return guide;
}

struct load_zipf *load_zipf_new(size_t entries)
{
    NEED(entries > 0 && entries < UINT32_MAX);
    struct load_zipf *zipf = bench_alloc(sizeof *zipf);
    zipf->entries = entries;
    zipf->shares = zipf_shares(entries);
    zipf->to = scatter(entries);
    zipf->guide = guide_to(zipf->shares, entries);
    return zipf;
}

void load_zipf_free(struct load_zipf *zipf)
{
    if (!zipf)
        return;
    free(zipf->shares);
    free(zipf->to);
    free(zipf->guide);
    free(zipf);
}

static size_t rank_of(const struct load_zipf *zipf, double point)
{
    size_t part = (size_t)(point * (double)zipf->entries);
    size_t low = zipf->guide[part], high = zipf->guide[part + 1];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zipf->shares[middle] < point)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void load_zipf_picks(const struct load_zipf *zipf, uint32_t *picks, size_t count, uint64_t *seed)
{
    for (size_t i = 0; i < count; i++)
        picks[i] = zipf->to[rank_of(zipf, unit(seed))];
}

static void pick_zipf(uint32_t *picks, size_t entries, size_t count, uint64_t seed)
{
    struct load_zipf *zipf = load_zipf_new(entries);
    load_zipf_picks(zipf, picks, count, &seed);
    load_zipf_free(zipf);
}

uint32_t *load_picks(enum load_kind kind, size_t entries, size_t count, uint64_t seed)
{
    NEED(entries > 0 && entries <= UINT32_MAX);
    uint32_t *picks = bench_alloc(count * sizeof *picks);
    if (kind == LOAD_ZIPF) {
        pick_zipf(picks, entries, count, seed);
        return picks;
    }
    for (size_t i = 0; i < count; i++)
        picks[i] = kind == LOAD_HOT ? LOAD_HOT_KEY : (uint32_t)(bench_random(&seed) % entries);
    return picks;
}
