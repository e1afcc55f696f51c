/*
 * helpers.h -- what the contract tests share: short forms for text keys and values, a source of
 * truth that counts and that can be held at a gate, a caller on a thread of its own, and a tally of
 * destructors. Everything goes through the public header.
 */
#ifndef ASIDE_CONTRACT_HELPERS_H
#define ASIDE_CONTRACT_HELPERS_H

#include "harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

/* ---- caches -------------------------------------------------------------------------------------- */

/* The defaults, without a reaper. */
static inline aside_options quiet_options(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 0;
    return options;
}

static inline aside_cache *open_cache(const aside_options *options)
{
    aside_cache *cache = NULL;
    CHECK_STATUS(aside_open(&cache, options), ASIDE_OK);
    CHECK(cache != NULL);
    return cache;
}

static inline aside_cache *open_quiet(void)
{
    aside_options options = quiet_options();
    return open_cache(&options);
}

static inline aside_cache *open_clocked(struct fake_clock *clock)
{
    aside_options options = quiet_options();
    options.clock = fake_clock_init(clock);
    return open_cache(&options);
}

static inline void end_cache(aside_cache *cache)
{
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    aside_unref(cache);
}

static inline void wait_for_no_threads(void)
{
    WAIT_UNTIL(process_threads_named("aside-") == 0);
}

/* ---- text keys and values ------------------------------------------------------------------------ */

static inline void put(aside_cache *cache, const char *key, const char *text, int64_t ttl_ms)
{
    CHECK_STATUS(aside_set(cache, key, strlen(key), text, strlen(text), ttl_ms), ASIDE_OK);
}

/* What a plain get of the key says. */
static inline aside_status look(aside_cache *cache, const char *key)
{
    aside_value *value = NULL;
    aside_status status = aside_get(cache, key, strlen(key), &value);
    CHECK((status == ASIDE_OK) == (value != NULL));
    aside_value_unref(value);
    return status;
}

static inline bool value_is(const aside_value *value, const char *text)
{
    return value != NULL && aside_value_size(value) == strlen(text) &&
           memcmp(aside_value_data(value), text, strlen(text)) == 0;
}

static inline bool holds(aside_cache *cache, const char *key, const char *text)
{
    aside_value *value = NULL;
    bool same = aside_get(cache, key, strlen(key), &value) == ASIDE_OK && value_is(value, text);
    aside_value_unref(value);
    return same;
}

/* ---- a source of truth --------------------------------------------------------------------------- */

/* Counts its fetches, waits at its gate if gated, and answers: the text, or the status if none. */
struct source {
    const char *answer;
    aside_status status;
    bool gated;
    struct gate gate;
    _Atomic int fetches;
    _Atomic int finished;
};

static inline void source_init(struct source *source, const char *answer, bool gated)
{
    memset(source, 0, sizeof *source);
    source->answer = answer;
    source->gated = gated;
    gate_init(&source->gate);
}

static inline aside_status source_fetch(aside_fetch *fetch, void *arg)
{
    struct source *source = arg;
    atomic_fetch_add(&source->fetches, 1);
    if (source->gated)
        gate_pass(&source->gate);
    aside_status status = source->status;
    if (source->answer != NULL)
        status = aside_fetch_copy(fetch, source->answer, strlen(source->answer));
    atomic_fetch_add(&source->finished, 1);
    return status;
}

/* ---- callers ------------------------------------------------------------------------------------- */

/* One get_with_fetch, on this thread (caller_run) or on one of its own (caller_start). */
struct caller {
    aside_cache *cache;
    const char *key;
    aside_call call;
    aside_result result;
    aside_status status;
    pthread_t thread;
    _Atomic bool done;
};

/* A caller that can not leave: it runs the fetch itself if it leads. */
static inline void caller_init(struct caller *caller, aside_cache *cache, const char *key,
                               aside_fetch_fn *fetch, void *arg)
{
    memset(caller, 0, sizeof *caller);
    caller->cache = cache;
    caller->key = key;
    caller->call = (aside_call){ASIDE_CALL, .fetch = fetch, .arg = arg};
    caller->result = (aside_result)ASIDE_RESULT_INIT;
}

/* The same for a source; with a token it may leave, so the fetch is offloaded. */
static inline void caller_ask(struct caller *caller, aside_cache *cache, const char *key,
                              struct source *source, aside_cancel *token)
{
    caller_init(caller, cache, key, source_fetch, source);
    caller->call.cancel = token;
}

static inline aside_status caller_run(struct caller *caller)
{
    caller->status = aside_get_with_fetch(caller->cache, caller->key, strlen(caller->key),
                                          &caller->call, &caller->result);
    CHECK((caller->status == ASIDE_OK) == (caller->result.value != NULL));
    atomic_store(&caller->done, true);
    return caller->status;
}

static inline void *caller_main(void *arg)
{
    caller_run(arg);
    return NULL;
}

static inline void caller_start(struct caller *caller)
{
    caller->thread = thread_start(caller_main, caller);
}

/* Joins its thread; the value stays until caller_drop(). */
static inline aside_status caller_join(struct caller *caller)
{
    thread_join(caller->thread);
    return caller->status;
}

static inline void caller_drop(struct caller *caller)
{
    aside_value_unref(caller->result.value);
    caller->result.value = NULL;
}

/* Starts an inline leader and returns once its fetch stands at the gate. */
static inline void lead_to_gate(struct caller *caller, aside_cache *cache, const char *key,
                                struct source *source)
{
    caller_ask(caller, cache, key, source, NULL);
    caller_start(caller);
    gate_wait_arrived(&source->gate, 1);
}

/* Starts a caller that joins the key's flight; returns once `waiters` callers wait in the cache. */
static inline void join_flight(struct caller *caller, aside_cache *cache, const char *key,
                               struct source *source, aside_cancel *token, unsigned waiters)
{
    caller_ask(caller, cache, key, source, token);
    caller_start(caller);
    WAIT_UNTIL(STAT(cache, waiters_now) == waiters);
}

/* One inline call whose value is dropped. */
static inline aside_status ask(aside_cache *cache, const char *key, struct source *source)
{
    struct caller caller;
    caller_ask(&caller, cache, key, source, NULL);
    aside_status status = caller_run(&caller);
    caller_drop(&caller);
    return status;
}

static inline aside_cancel *token_new(void)
{
    aside_cancel *token = NULL;
    CHECK_STATUS(aside_cancel_new(&token), ASIDE_OK);
    CHECK(token != NULL);
    return token;
}

/* One call by a worker, whose value is dropped. */
static inline aside_status ask_worker(aside_cache *cache, const char *key, struct source *source)
{
    aside_cancel *token = token_new();
    struct caller caller;
    caller_ask(&caller, cache, key, source, token);
    aside_status status = caller_run(&caller);
    caller_drop(&caller);
    aside_cancel_unref(token);
    return status;
}

/* ---- other fetches ------------------------------------------------------------------------------- */

static inline aside_status end_the_thread(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    (void)arg;
    pthread_exit(NULL);
}

/* A value of no interest whose destructor is. */
static inline aside_status give(aside_fetch *fetch, void (*free_fn)(void *ptr, void *ctx),
                                void *ctx)
{
    static char thing;
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&thing, 1, free_fn, ctx, &value), ASIDE_OK);
    return aside_fetch_give(fetch, value);
}

/* ---- a clock with consequences ------------------------------------------------------------------- */

/* At one of the coming readings of the thread that arms it another thread does something, and has done
 * it before the reading is over: between two looks of one call, that is. */
struct acting_clock {
    struct fake_clock fake;
    pthread_t armed_by;
    _Atomic int readings_left; /* 0: it only shows the time */
    thread_fn act;
    void *arg;
};

static inline int64_t acting_clock_now(void *ctx)
{
    struct acting_clock *clock = (struct acting_clock *)ctx;
    if (atomic_load(&clock->readings_left) > 0 && pthread_equal(pthread_self(), clock->armed_by) &&
        atomic_fetch_sub(&clock->readings_left, 1) == 1)
        thread_join(thread_start(clock->act, clock->arg));
    return atomic_load(&clock->fake.now_ns);
}

static inline aside_clock acting_clock_init(struct acting_clock *clock, thread_fn act, void *arg)
{
    memset((void *)clock, 0, sizeof *clock);
    (void)fake_clock_init(&clock->fake);
    clock->act = act;
    clock->arg = arg;
    return (aside_clock){acting_clock_now, clock};
}

static inline void acting_clock_arm(struct acting_clock *clock, int reading)
{
    clock->armed_by = pthread_self();
    atomic_store(&clock->readings_left, reading);
}

/* True: that reading came, and the other thread has acted. */
static inline bool acting_clock_disarm(struct acting_clock *clock)
{
    return atomic_exchange(&clock->readings_left, 0) <= 0;
}

/* ---- a tally of destructors ---------------------------------------------------------------------- */

#define TALLY_MAX 4096

/* Wrapped pointers are the addresses of the slots; the destructor counts in its slot. */
struct tally {
    _Atomic int made;
    _Atomic int freed;
    _Atomic int slot[TALLY_MAX];
};

static inline void tally_free(void *ptr, void *ctx)
{
    struct tally *tally = ctx;
    _Atomic int *slot = ptr;
    CHECK(slot >= tally->slot && slot < tally->slot + TALLY_MAX);
    CHECK_INT(atomic_fetch_add(slot, 1), 0); /* a second call is a double free */
    atomic_fetch_add(&tally->freed, 1);
}

/* A new wrapped value that counts as `size` bytes; the caller owns the reference. */
static inline aside_value *tally_value(struct tally *tally, size_t size)
{
    int id = atomic_fetch_add(&tally->made, 1);
    CHECK(id < TALLY_MAX);
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&tally->slot[id], size, tally_free, tally, &value), ASIDE_OK);
    return value;
}

/* Stores a new wrapped value and keeps no reference to it. */
static inline aside_status tally_set(struct tally *tally, aside_cache *cache, const char *key,
                                     size_t size, int64_t ttl_ms)
{
    aside_value *value = tally_value(tally, size);
    aside_status status = aside_set_value(cache, key, strlen(key), value, ttl_ms);
    aside_value_unref(value);
    return status;
}

/* ---- what is no object --------------------------------------------------------------------------- */

/* A block of zeros in an object's place, as one that was freed and wiped may be. */
#define ZEROS 4096

static inline void *zeros_new(void)
{
    void *zeros = aligned_alloc(64, ZEROS);
    CHECK(zeros != NULL);
    return memset(zeros, 0, ZEROS);
}

/* Nothing was written there. */
static inline void zeros_end(void *zeros)
{
    const char *bytes = (const char *)zeros;
    for (size_t i = 0; i < ZEROS; i++)
        CHECK(bytes[i] == 0);
    free(zeros);
}

#endif
