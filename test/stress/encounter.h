/*
 * encounter.h -- two threads that meet: the second begins at a step of the first, and in time at each.
 *
 * The first stands still there for a moment, whatever lock it may hold, and goes on beside the second.
 * Between the two stand relaxed flags alone: what a thread sanitizer is to see as ordered, the library must
 * have ordered itself.
 */
#ifndef ASIDE_STRESS_ENCOUNTER_H
#define ASIDE_STRESS_ENCOUNTER_H

#include "stress.h"

#define ENCOUNTER_MOMENT_NS 150000

struct encounter {
    void (*act)(void *scene, int which);  /* which: 0, whose steps count, or 1 */
    void (*then)(void *scene, int which); /* what each does after that */
    void *scene;
    int64_t step;
    bool reached; /* there was such a step */
    _Atomic bool begun, over;
    struct pool pool;
};

static inline void encounter_let_begin(void *its_encounter)
{
    struct encounter *encounter = its_encounter;
    int64_t until_ns = test_now_ns() + ENCOUNTER_MOMENT_NS;
    encounter->reached = true;
    atomic_store_explicit(&encounter->begun, true, memory_order_relaxed);
    while (!atomic_load_explicit(&encounter->over, memory_order_relaxed) &&
           test_now_ns() < until_ns)
        sched_yield();
}

static inline void encounter_work(void *its_encounter, int which)
{
    struct encounter *encounter = its_encounter;
    if (which == 0) {
        (void)act_at_point(encounter->step, encounter_let_begin, encounter);
        encounter->act(encounter->scene, 0);
        (void)act_at_point(0, NULL, NULL);
        atomic_store_explicit(&encounter->begun, true, memory_order_relaxed);
    } else {
        while (!atomic_load_explicit(&encounter->begun, memory_order_relaxed))
            sched_yield();
        encounter->act(encounter->scene, 1);
        atomic_store_explicit(&encounter->over, true, memory_order_relaxed);
    }
    encounter->then(encounter->scene, which);
}

static inline void encounter_open(struct encounter *encounter, void *scene,
                                  void (*act)(void *scene, int which),
                                  void (*then)(void *scene, int which))
{
    if (!act_at_point(0, NULL, NULL))
        test_skip("this build has no points between the steps of the library");
    memset((void *)encounter, 0, sizeof *encounter);
    encounter->act = act;
    encounter->then = then;
    encounter->scene = scene;
    pool_open(&encounter->pool, 2, encounter_work, encounter);
}

/* False: the first has not so many steps; the second came after it. */
static inline bool encounter_at(struct encounter *encounter, int64_t step)
{
    encounter->step = step;
    encounter->reached = false;
    atomic_store(&encounter->begun, false);
    atomic_store(&encounter->over, false);
    pool_turn(&encounter->pool);
    return encounter->reached;
}

static inline void encounter_close(struct encounter *encounter)
{
    pool_close(&encounter->pool);
}

/* Every so manieth step is enough for `make test`; in `make check-all` it is every one. */
static inline int64_t encounter_stride(void)
{
    long rounds = test_rounds(ROUNDS);
    return rounds < 20 * ROUNDS ? 1 + 40 * ROUNDS / rounds : 1;
}

#endif
