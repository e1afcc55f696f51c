/*
 * stress.h -- what the scenarios share: threads that go through rounds together, the version oracle,
 * and the count of what a scenario leaves behind.
 *
 * A round: the test's thread makes things ready, all members of the pool work at once under the seeded
 * scheduler, then the test's thread looks at what has come of it. Threads are kept from round to
 * round; each round draws anew who is starved.
 */
#ifndef ASIDE_STRESS_H
#define ASIDE_STRESS_H

#include "harness.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

#define ROUNDS 500 /* in `make test`; 5 times that in `make check-all`, 20 in `make run-stress` */

/* ---- a pool of threads --------------------------------------------------------------------------- */

#define POOL_MOST 8

struct pool;
struct pool_member {
    struct pool *pool;
    int self;
};

struct pool {
    void (*work)(void *scenario, int self);
    void *scenario;
    int count;
    bool over; /* changes between two barriers only */
    pthread_barrier_t begin, end;
    pthread_t thread[POOL_MOST];
    struct pool_member member[POOL_MOST];
};

static inline void *pool_main(void *its_member)
{
    const struct pool_member *member = its_member;
    struct pool *pool = member->pool;
    for (;;) {
        pthread_barrier_wait(&pool->begin);
        if (pool->over)
            return NULL;
        pool->work(pool->scenario, member->self);
        pthread_barrier_wait(&pool->end);
    }
}

static inline void pool_open(struct pool *pool, int count, void (*work)(void *, int),
                             void *scenario)
{
    memset(pool, 0, sizeof *pool);
    pool->work = work;
    pool->scenario = scenario;
    pool->count = count;
    pthread_barrier_init(&pool->begin, NULL, (unsigned)count + 1);
    pthread_barrier_init(&pool->end, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++) {
        pool->member[i] = (struct pool_member){pool, i};
        pool->thread[i] = thread_start(pool_main, &pool->member[i]);
    }
}

static inline void pool_turn(struct pool *pool)
{
    pthread_barrier_wait(&pool->begin);
    pthread_barrier_wait(&pool->end);
}

/* The seeded scheduler disturbs while the members work, and nothing else. */
static inline void pool_round(struct pool *pool)
{
    perturb(test_random() | 1);
    pool_turn(pool);
    perturb(0);
}

static inline void pool_close(struct pool *pool)
{
    pool->over = true;
    pthread_barrier_wait(&pool->begin);
    for (int i = 0; i < pool->count; i++)
        thread_join(pool->thread[i]);
    pthread_barrier_destroy(&pool->begin);
    pthread_barrier_destroy(&pool->end);
}

/* ---- what is left behind ------------------------------------------------------------------------- */

struct ground {
    struct ledger ledger;
    int threads;
};

static inline void *nothing_to_do(void *arg)
{
    return arg;
}

/* The allocator of every cache of the scenario goes into options. */
static inline aside_options ground_begin(struct ground *ground)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    thread_join(
        thread_start(nothing_to_do, NULL)); /* a sanitizer may start a thread of its own then */
    test_yield();
    ground->threads = process_threads();
    options.alloc = ledger_init(&ground->ledger);
    options.reaper_interval_ms = 0;
    return options;
}

static inline void ground_end(struct ground *ground)
{
    /* A worker that was detached gives its memory back a moment later. */
    WAIT_UNTIL(ground->ledger.live_blocks == 0);
    CHECK_INT(ground->ledger.live_bytes, 0);
    WAIT_UNTIL(process_threads() <= ground->threads);
}

static inline aside_cache *cache_open(const aside_options *options)
{
    aside_cache *cache = NULL;
    CHECK_STATUS(aside_open(&cache, options), ASIDE_OK);
    return cache;
}

static inline void cache_end(aside_cache *cache)
{
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    aside_unref(cache);
}

/* ---- the version oracle -------------------------------------------------------------------------- */

/* A value says whose it is, how old, and how long; what follows is made of that. */
struct stamp {
    uint64_t key, version, size, sum;
};

#define STAMP_MOST 512

static inline uint64_t stamp_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline size_t stamp_size(uint64_t key, uint64_t version)
{
    return sizeof(struct stamp) +
           stamp_mix(key * 31 + version) % (STAMP_MOST - sizeof(struct stamp));
}

static inline uint64_t stamp_sum(uint64_t key, uint64_t version, uint64_t size)
{
    return stamp_mix(stamp_mix(key + 1) ^ stamp_mix(version + 2) ^ (size << 48));
}

/* Fills stamp_size() bytes. */
static inline size_t stamp_write(void *to, uint64_t key, uint64_t version)
{
    size_t size = stamp_size(key, version);
    struct stamp stamp = {key, version, size, stamp_sum(key, version, size)};
    memcpy(to, &stamp, sizeof stamp);
    memset((unsigned char *)to + sizeof stamp, (int)(stamp.sum & 0xff), size - sizeof stamp);
    return size;
}

/* The version; stale, torn, foreign and freed bytes end the test. */
static inline uint64_t stamp_read(const void *from, size_t size, uint64_t key)
{
    struct stamp stamp;
    const unsigned char *rest = (const unsigned char *)from + sizeof stamp;
    CHECK(size >= sizeof stamp);
    memcpy(&stamp, from, sizeof stamp);
    CHECK_INT(stamp.sum, stamp_sum(stamp.key, stamp.version, stamp.size));
    CHECK_INT(stamp.key, key);
    CHECK_INT(stamp.size, size);
    for (size_t i = 0; i < size - sizeof stamp; i++)
        if (rest[i] != (stamp.sum & 0xff))
            CHECK_INT(rest[i], stamp.sum & 0xff);
    return stamp.version;
}

static inline uint64_t stamp_of_value(const aside_value *value, uint64_t key)
{
    return stamp_read(aside_value_data(value), aside_value_size(value), key);
}

static inline aside_status stamp_set(aside_cache *cache, uint64_t key, uint64_t version,
                                     int64_t ttl_ms)
{
    unsigned char bytes[STAMP_MOST];
    size_t size = stamp_write(bytes, key, version);
    return aside_set(cache, &key, sizeof key, bytes, size, ttl_ms);
}

/* What a fetch returns that has found this version. */
static inline aside_status stamp_answer(aside_fetch *fetch, uint64_t key, uint64_t version)
{
    unsigned char bytes[STAMP_MOST];
    size_t size = stamp_write(bytes, key, version);
    return aside_fetch_copy(fetch, bytes, size);
}

static inline uint64_t stamp_key(const aside_fetch *fetch)
{
    uint64_t key = 0;
    size_t size = 0;
    const void *bytes = aside_fetch_key(fetch, &size);
    CHECK_INT(size, sizeof key);
    memcpy(&key, bytes, sizeof key);
    return key;
}

/* What was seen may not be older than what was seen, or invalidated, before it was asked for. */
static inline void raise_to(_Atomic uint64_t *floor, uint64_t version)
{
    uint64_t now = atomic_load(floor);
    while (now < version && !atomic_compare_exchange_weak(floor, &now, version))
        ;
}

/* ---- short forms --------------------------------------------------------------------------------- */

/* A few steps of nothing, so that the members do not begin in step. */
static inline void dawdle(unsigned most)
{
    for (unsigned i = (unsigned)(test_random() % most); i > 0; i--)
        sched_yield();
}

/* What a plain read may say. */
static inline void check_read(aside_status status)
{
    CHECK(status == ASIDE_OK || status == ASIDE_MISS);
}

static inline aside_cancel *token_new(void)
{
    aside_cancel *token = NULL;
    CHECK_STATUS(aside_cancel_new(&token), ASIDE_OK);
    return token;
}

#endif
