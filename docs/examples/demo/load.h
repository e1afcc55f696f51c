/*
 * load.h -- what makes load and measures it: clocks, seeded numbers, a zipf law, crews of threads.
 */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* ---- time: nanoseconds of the monotonic clock ------------------------------------------------ */

#define MS ((int64_t)1000000)

int64_t load_now_ns(void);
void load_sleep_until(int64_t instant_ns);

/* ---- numbers: the same for the same seed, on every machine ----------------------------------- */

struct load_random {
    uint64_t state;
};

uint64_t load_next(struct load_random *random);              /* any 64 bits */
size_t load_below(struct load_random *random, size_t bound); /* 0 to bound - 1 */

/* Ranks 0 to count - 1; rank k is drawn in proportion to 1 / (k + 1)^exponent. */
struct load_zipf {
    double *upto; /* upto[k]: the chance of a rank of at most k */
    size_t count;
};

void load_zipf_init(struct load_zipf *zipf, size_t count, double exponent);
size_t load_zipf_draw(const struct load_zipf *zipf, struct load_random *random);
void load_zipf_free(struct load_zipf *zipf);

/* ---- crews: threads that exist beforehand and start together --------------------------------- */

typedef void crew_fn(void *ctx, size_t member);

struct crew {
    size_t size;
    pthread_t *threads;
    struct crew_member *members;
    pthread_barrier_t begin, end;
    /* written by the crew's owner between end and begin, read by members between begin and end */
    crew_fn *fn;
    void *ctx;
    int64_t begun_ns;
};

void crew_open(struct crew *crew, size_t size);
void crew_begin(struct crew *crew, crew_fn *fn,
                void *ctx);             /* all members call fn, starting together */
int64_t crew_finish(struct crew *crew); /* ns from the start to the last return */
int64_t crew_wave(struct crew *crew, crew_fn *fn, void *ctx); /* both */
void crew_close(struct crew *crew);

/* ---- distributions --------------------------------------------------------------------------- */

void load_sort(int64_t *values, size_t count);
int64_t load_percentile(const int64_t *sorted, size_t count, double percent); /* nearest rank */

/* malloc and calloc that end the program instead of returning NULL. */
void *load_alloc(size_t count, size_t size);

#endif
