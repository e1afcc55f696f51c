/*
 * truth.h -- what the tests of freshness, tags and typed answers share: a source of truth that
 * answers whatever it is told to, and a cache on an injected clock that asks it.
 */
#ifndef ASIDE_CONTRACT_TRUTH_H
#define ASIDE_CONTRACT_TRUTH_H

#include "helpers.h"

/* It answers its value, or what it says if it has none. */
struct truth {
    const char *value;
    aside_status says;
    int code;                   /* with ASIDE_E_FETCH */
    int64_t ttl_ms;             /* said from inside; 0: not */
    const aside_freshness *own; /* said from inside; NULL: not */
    const char *tag;            /* of what it answers; NULL: none */
    bool tags_late;             /* the tag comes after the value */
    _Atomic bool gated;
    struct gate gate;
    _Atomic int fetches;
};

static inline aside_status truth_value(aside_fetch *fetch, const struct truth *truth)
{
    if (truth->value != NULL)
        return aside_fetch_copy(fetch, truth->value, strlen(truth->value));
    if (truth->says == ASIDE_NOT_FOUND)
        return aside_fetch_not_found(fetch);
    if (truth->says == ASIDE_NOT_MODIFIED)
        return aside_fetch_not_modified(fetch);
    return truth->says == ASIDE_E_FETCH ? aside_fetch_fail(fetch, truth->code) : truth->says;
}

static inline void truth_add_tag(aside_fetch *fetch, const struct truth *truth)
{
    if (truth->tag != NULL)
        CHECK_STATUS(aside_fetch_add_tag(fetch, truth->tag, strlen(truth->tag)), ASIDE_OK);
}

static inline aside_status truth_tell(aside_fetch *fetch, void *arg)
{
    struct truth *truth = (struct truth *)arg;
    atomic_fetch_add(&truth->fetches, 1);
    if (truth->gated)
        gate_pass(&truth->gate);
    if (truth->own != NULL)
        CHECK_STATUS(aside_fetch_set_freshness(fetch, truth->own), ASIDE_OK);
    if (truth->ttl_ms != 0)
        CHECK_STATUS(aside_fetch_set_ttl(fetch, truth->ttl_ms), ASIDE_OK);
    if (!truth->tags_late)
        truth_add_tag(fetch, truth);
    aside_status status = truth_value(fetch, truth);
    if (truth->tags_late)
        truth_add_tag(fetch, truth);
    return status;
}

/* A cache, its clock and its allocator, and a call that asks the truth. */
struct scene {
    struct fake_clock clock;
    struct ledger ledger;
    aside_options options;
    aside_cache *cache;
    aside_call call;
    struct truth truth;
};

/* The options may be changed before it is opened. */
static inline void scene_init(struct scene *scene)
{
    memset((void *)scene, 0, sizeof *scene);
    scene->options = quiet_options();
    scene->options.clock = fake_clock_init(&scene->clock);
    scene->options.alloc = ledger_init(&scene->ledger);
    scene->call = (aside_call){ASIDE_CALL, .fetch = truth_tell, .arg = &scene->truth};
    gate_init(&scene->truth.gate);
}

static inline void scene_open(struct scene *scene)
{
    scene->cache = open_cache(&scene->options);
}

/* A value from now on; or NULL, and that. */
static inline void scene_says(struct scene *scene, const char *value, aside_status says)
{
    scene->truth.value = value;
    scene->truth.says = says;
}

static inline void scene_end(struct scene *scene)
{
    end_cache(scene->cache);
    WAIT_UNTIL(scene->ledger.live_blocks == 0); /* a worker may still be on its way out */
    CHECK_INT(scene->ledger.live_bytes, 0);
    gate_fini(&scene->truth.gate);
}

static inline void pass(struct scene *scene, int64_t ms)
{
    fake_clock_advance_ms(&scene->clock, ms, scene->cache);
}

/* The call with what is expected of it; the value is dropped. */
static inline aside_result asks(struct scene *scene, const char *key, aside_status expected)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_status status =
        aside_get_with_fetch(scene->cache, key, strlen(key), &scene->call, &result);
    CHECK_STATUS(status, expected);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    aside_value_unref(result.value);
    result.value = NULL;
    return result;
}

/* It is answered by this value. */
static inline aside_result gets(struct scene *scene, const char *key, const char *text)
{
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(scene->cache, key, strlen(key), &scene->call, &result),
                 ASIDE_OK);
    CHECK(value_is(result.value, text));
    aside_value_unref(result.value);
    result.value = NULL;
    return result;
}

/* A refresh that runs here, and has ended. */
static inline void refreshes(struct scene *scene, const char *key)
{
    aside_call call = scene->call;
    call.nonblocking = 1;
    CHECK_STATUS(aside_refresh(scene->cache, key, strlen(key), &call), ASIDE_OK);
}

/* A caller of the same call on a thread of his own. */
static inline void scene_start(struct scene *scene, struct caller *caller, const char *key)
{
    caller_init(caller, scene->cache, key, truth_tell, &scene->truth);
    caller->call = scene->call;
    caller_start(caller);
}

/* The same; he leads, and his fetch stands at the gate. */
static inline void scene_lead(struct scene *scene, struct caller *caller, const char *key)
{
    int arrived = scene->truth.gate.arrived;
    scene->truth.gated = true;
    scene_start(scene, caller, key);
    gate_wait_arrived(&scene->truth.gate, arrived + 1);
}

/* Whoever waits at the gate goes on, and nobody waits there again. */
static inline void scene_release(struct scene *scene)
{
    scene->truth.gated = false;
    gate_open(&scene->truth.gate);
}

#endif
