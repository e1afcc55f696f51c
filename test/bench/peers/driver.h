/*
 * driver.h -- what the drivers of the suite share. A driver is a program that does one case of the
 * suite with one cache, ours or a peer's, and speaks lines:
 *
 *   driver --cases           prints the names of the cases it knows
 *   driver CASE THREADS      makes everything, warms up, says "ready"; then, for each line "go MS",
 *                            runs the case for MS milliseconds and answers "OPS NS HITS": what all
 *                            threads did together, how long it took, how many found their key.
 *                            Ends with its input.
 *
 * Cases that are not repeated for a time do their work once a "go": a fill, a stampede, a number of
 * misses. The case bytes answers "BYTES 1 ENTRIES" instead.
 *
 * The protocol, the load and the threads are in driver.c; the loops are here, so that the compiler
 * puts a peer's own functions into them. C++ can read it.
 */
#ifndef ASIDE_BENCH_DRIVER_H
#define ASIDE_BENCH_DRIVER_H

#include "../lib_bench.h"
#include "../lib_load.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DRIVER_BATCH 256                    /* operations between two looks at the clock */
#define DRIVER_SET (1u << 31)               /* in a pick: store the key instead of looking it up */
#define DRIVER_LOADER_MS 2                  /* what the loader of a stampede takes */
#define DRIVER_MANY 1000000                 /* keys of the cases aside, fill and bytes */
#define DRIVER_ASIDE_BOUND 100000           /* entries that the case aside may keep */
#define DRIVER_BOUND (LOAD_ENTRIES * 3 / 2) /* of hits: caches that fill up keep their books */

/* The cache; each driver says what it is. */
struct store;

/* What one thread asks for and stores. */
struct driver_load {
    const char *keys;
    const uint32_t *picks; /* DRIVER_BATCH of them */
    const uint64_t *value; /* its words add up to LOAD_SUM */
};

/* One batch; returns how many keys it found. */
typedef size_t driver_batch(struct store *store, const struct driver_load *load);

/* Stores the value under count keys, or asks for each of them, misses and fetches it. */
typedef void driver_each(struct store *store, const char *keys, size_t count,
                         const uint64_t *value);

/* The value of a key that a loader of DRIVER_LOADER_MS brings, added up. */
typedef uint64_t driver_fetch(struct store *store, const char *key);

enum driver_shape {
    DRIVER_HITS,     /* batches of look-ups that all hit */
    DRIVER_MIXED,    /* the same with one store in ten */
    DRIVER_ASIDE,    /* many more keys than entries; what misses is stored */
    DRIVER_FULL,     /* keys that are new to a full cache, each once */
    DRIVER_FILL,     /* a million keys into an empty cache */
    DRIVER_BYTES,    /* what that does to the resident size */
    DRIVER_STAMPEDE, /* all threads ask for one key that is not there */
};

/* Those members count that the shape needs. */
struct driver_case {
    const char *name; /* NULL: the end of a list */
    enum driver_shape shape;
    enum load_kind load;
    driver_batch *batch;
    driver_each *each;
    driver_fetch *fetch;
    uint32_t (*hot)(void); /* the hot key's number; NULL: LOAD_HOT_KEY */
};

struct driver {
    const struct driver_case *cases;
    struct store *(*open)(size_t bound); /* most entries */
    void (*close)(struct store *store);
    driver_each *fill;
    void (*enter)(void), (*leave)(void); /* a thread begins, ends using stores; or NULL */
};

int driver_main(int argc, char **argv, const struct driver *driver);

/* ---- loops ----------------------------------------------------------------------------------- */

#define DRIVER_INLINE static inline __attribute__((always_inline))

/* Looks a key up and adds the words of its value to *sum; false: it is not there. */
typedef bool driver_read(struct store *store, const char *key, uint64_t *sum);
typedef void driver_write(struct store *store, const char *key, const uint64_t *value);

DRIVER_INLINE const char *driver_key(const struct driver_load *load, int nth)
{
    return load->keys + (size_t)(load->picks[nth] & ~DRIVER_SET) * BENCH_KEY;
}

DRIVER_INLINE size_t driver_hits(struct store *store, const struct driver_load *load,
                                 driver_read *read)
{
    uint64_t sum = 0;
    for (int i = 0; i < DRIVER_BATCH; i++)
        NEED(read(store, driver_key(load, i), &sum));
    NEED(sum == DRIVER_BATCH * LOAD_SUM);
    return DRIVER_BATCH;
}

DRIVER_INLINE size_t driver_mixed(struct store *store, const struct driver_load *load,
                                  driver_read *read, driver_write *write)
{
    uint64_t sum = 0, hits = 0;
    for (int i = 0; i < DRIVER_BATCH; i++)
        if (load->picks[i] & DRIVER_SET) {
            write(store, driver_key(load, i), load->value);
        } else {
            NEED(read(store, driver_key(load, i), &sum));
            hits++;
        }
    NEED(sum == hits * LOAD_SUM);
    return hits;
}

DRIVER_INLINE size_t driver_aside(struct store *store, const struct driver_load *load,
                                  driver_read *read, driver_write *write)
{
    uint64_t sum = 0, hits = 0;
    for (int i = 0; i < DRIVER_BATCH; i++) {
        const char *key = driver_key(load, i);
        if (read(store, key, &sum))
            hits++;
        else
            write(store, key, load->value);
    }
    NEED(sum == hits * LOAD_SUM);
    return hits;
}

#ifdef __cplusplus
}
#endif

#endif
