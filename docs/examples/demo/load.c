/*
 * load.c -- clocks, seeded numbers, a zipf law, crews of threads, percentiles.
 */
#include "load.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "report.h"

#define NS_PER_S 1000000000

int64_t load_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void load_sleep_until(int64_t instant_ns)
{
    struct timespec until = {instant_ns / NS_PER_S, instant_ns % NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

void *load_alloc(size_t count, size_t size)
{
    void *block = calloc(count > 0 ? count : 1, size);
    if (block == NULL)
        die("out of memory");
    return block;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea and Flood 2014). */
uint64_t load_next(struct load_random *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static double unit(struct load_random *random)
{
    return (double)(load_next(random) >> 11) * 0x1p-53;
}

size_t load_below(struct load_random *random, size_t bound)
{
    return (size_t)(unit(random) * (double)bound);
}

void load_zipf_init(struct load_zipf *zipf, size_t count, double exponent)
{
    double sum = 0;
    zipf->count = count;
    zipf->upto = load_alloc(count, sizeof *zipf->upto);
    for (size_t k = 0; k < count; k++)
        zipf->upto[k] = sum += pow((double)(k + 1), -exponent);
    for (size_t k = 0; k < count; k++)
        zipf->upto[k] /= sum;
}

size_t load_zipf_draw(const struct load_zipf *zipf, struct load_random *random)
{
    double chance = unit(random);
    size_t low = 0, high = zipf->count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (zipf->upto[middle] > chance)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void load_zipf_free(struct load_zipf *zipf)
{
    free(zipf->upto);
}

/* ---- crews ----------------------------------------------------------------------------------- */

struct crew_member {
    struct crew *crew;
    size_t index;
    int64_t returned_ns;
};

static void *member_main(void *arg)
{
    struct crew_member *self = arg;
    struct crew *crew = self->crew;
    for (;;) {
        pthread_barrier_wait(&crew->begin);
        if (crew->fn == NULL)
            return NULL;
        crew->fn(crew->ctx, self->index);
        self->returned_ns = load_now_ns();
        pthread_barrier_wait(&crew->end);
    }
}

void crew_open(struct crew *crew, size_t size)
{
    crew->size = size;
    crew->threads = load_alloc(size, sizeof *crew->threads);
    crew->members = load_alloc(size, sizeof *crew->members);
    pthread_barrier_init(&crew->begin, NULL, (unsigned)size + 1);
    pthread_barrier_init(&crew->end, NULL, (unsigned)size + 1);
    for (size_t i = 0; i < size; i++) {
        crew->members[i] = (struct crew_member){crew, i, 0};
        int error = pthread_create(&crew->threads[i], NULL, member_main, &crew->members[i]);
        if (error != 0)
            die("cannot start thread %zu of %zu: %s", i + 1, size, strerror(error));
    }
}

void crew_begin(struct crew *crew, crew_fn *fn, void *ctx)
{
    crew->fn = fn;
    crew->ctx = ctx;
    crew->begun_ns = load_now_ns();
    pthread_barrier_wait(&crew->begin);
}

int64_t crew_finish(struct crew *crew)
{
    int64_t last_ns = 0;
    pthread_barrier_wait(&crew->end);
    for (size_t i = 0; i < crew->size; i++)
        if (crew->members[i].returned_ns > last_ns)
            last_ns = crew->members[i].returned_ns;
    return last_ns - crew->begun_ns;
}

int64_t crew_wave(struct crew *crew, crew_fn *fn, void *ctx)
{
    crew_begin(crew, fn, ctx);
    return crew_finish(crew);
}

void crew_close(struct crew *crew)
{
    crew_begin(crew, NULL, NULL);
    for (size_t i = 0; i < crew->size; i++)
        pthread_join(crew->threads[i], NULL);
    pthread_barrier_destroy(&crew->begin);
    pthread_barrier_destroy(&crew->end);
    free(crew->members);
    free(crew->threads);
}

/* ---- distributions --------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void load_sort(int64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, by_size);
}

int64_t load_percentile(const int64_t *sorted, size_t count, double percent)
{
    size_t rank = (size_t)ceil(percent / 100 * (double)count);
    return sorted[rank > 0 ? rank - 1 : 0];
}
