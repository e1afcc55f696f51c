/*
 * group_meetings.c -- any two operations on one key of a group without a cache meet (encounter.h).
 *
 * Each thread asks once more afterwards: nobody is given what a fetch found that had begun before the key was
 * forgotten, if he came after that. Then the group is closed, and nothing is left of it.
 */
#include "encounter.h"
#include "children.h"
#include "sanitizers.h"

#include <aside/group.h>

#define KEY UINT64_C(1)

struct meeting {
    struct ledger ledger;
    aside_group *group;
    aside_cancel *token;
    bool worked;            /* who may leave has his fetch run by a worker */
    _Atomic uint64_t truth; /* the version that the source has */
    _Atomic uint64_t floor; /* nobody who asks from now on may see an older one */
    void (*first)(struct meeting *meeting), (*second)(struct meeting *meeting);
};

/* ---- operations ---------------------------------------------------------------------------------- */

static aside_status tell(aside_fetch *fetch, void *its_meeting)
{
    const struct meeting *meeting = its_meeting;
    return stamp_answer(fetch, KEY, atomic_load(&meeting->truth));
}

static aside_status tell_nothing(aside_fetch *fetch, void *its_meeting)
{
    (void)its_meeting;
    return aside_fetch_fail(fetch, 42);
}

static bool may_be_told(const struct meeting *meeting, const aside_call *call, aside_status status)
{
    switch (status) {
    case ASIDE_E_CANCELLED: return call->cancel != NULL;
    case ASIDE_E_BUSY: return !meeting->worked;
    default: return status == ASIDE_E_FETCH || status == ASIDE_E_CLOSED;
    }
}

static void ask(struct meeting *meeting, aside_fetch_fn *fetch, aside_cancel *token)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch, .arg = meeting, .cancel = token};
    aside_result result = ASIDE_RESULT_INIT;
    uint64_t key = KEY, floor = atomic_load(&meeting->floor);
    aside_status status = aside_group_do(meeting->group, &key, sizeof key, &call, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (status != ASIDE_OK) {
        CHECK(may_be_told(meeting, &call, status));
        return;
    }
    uint64_t version = stamp_of_value(result.value, KEY);
    CHECK(floor <= version && version <= atomic_load(&meeting->truth));
    aside_value_unref(result.value);
}

static void do_ask(struct meeting *meeting)
{
    ask(meeting, tell, NULL);
}

static void do_ask_in_vain(struct meeting *meeting)
{
    ask(meeting, tell_nothing, NULL);
}

static void do_ask_and_perhaps_leave(struct meeting *meeting)
{
    ask(meeting, tell, meeting->token);
}

static void do_cancel(struct meeting *meeting)
{
    aside_cancel_fire(meeting->token);
}

static void do_forget(struct meeting *meeting)
{
    uint64_t key = KEY, version = atomic_fetch_add(&meeting->truth, 1) + 1;
    aside_status status = aside_group_forget(meeting->group, &key, sizeof key);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED);
    raise_to(&meeting->floor, version);
}

static aside_stats stats_of(const struct meeting *meeting)
{
    aside_stats stats = {.struct_size = sizeof stats};
    CHECK_STATUS(aside_group_stats_get(meeting->group, &stats), ASIDE_OK);
    return stats;
}

static void do_count(struct meeting *meeting)
{
    CHECK(stats_of(meeting).flights_now <= 2);
}

static void do_close(struct meeting *meeting)
{
    CHECK_STATUS(aside_group_close(meeting->group), ASIDE_OK);
}

/* Its thread is alone there. Under a sanitizer a child may allocate nothing (children.h). */
static void do_fork(struct meeting *meeting)
{
    if (SANITIZED)
        return;
    struct child child = child_fork();
    if (child.pid == 0) {
        do_forget(meeting);
        do_ask(meeting);
        do_close(meeting);
        aside_group_unref(meeting->group);
        child_done();
    }
    child_end(&child, CHILD_DONE);
}

#define OPERATIONS(X)                                                                              \
    X(ask)                                                                                         \
    X(ask_in_vain)                                                                                 \
    X(ask_and_perhaps_leave)                                                                       \
    X(cancel)                                                                                      \
    X(forget)                                                                                      \
    X(count)                                                                                       \
    X(close)                                                                                       \
    X(fork)

static const struct {
    const char *name;
    void (*run)(struct meeting *meeting);
} operations[] = {
#define OPERATION(name) {#name, do_##name},
    OPERATIONS(OPERATION)
#undef OPERATION
};

/* ---- a meeting ----------------------------------------------------------------------------------- */

static void act(void *its_meeting, int which)
{
    struct meeting *meeting = its_meeting;
    (which == 0 ? meeting->first : meeting->second)(meeting);
}

static void ask_again(void *its_meeting, int which)
{
    (void)which;
    do_ask(its_meeting);
}

static void open_meeting(struct meeting *meeting)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.alloc = ledger_init(&meeting->ledger);
    options.fetch_threads = meeting->worked;
    CHECK_STATUS(aside_group_new(&meeting->group, &options), ASIDE_OK);
    meeting->token = token_new();
    atomic_store(&meeting->truth, 1);
    atomic_store(&meeting->floor, 0);
}

static void judge(struct meeting *meeting)
{
    WAIT_UNTIL(stats_of(meeting).flights_now == 0); /* a worker may be at it still */
    CHECK_INT(stats_of(meeting).waiters_now, 0);
    aside_cancel_unref(meeting->token);
    do_close(meeting);
    aside_group_unref(meeting->group);
    WAIT_UNTIL(meeting->ledger.live_blocks == 0);
}

static bool is_met(struct encounter *encounter, const char *first, size_t second, int64_t step)
{
    struct meeting *meeting = encounter->scene;
    test_scene("%s, met by %s at step %lld; worked %d", first, operations[second].name,
               (long long)step, meeting->worked);
    open_meeting(meeting);
    meeting->second = operations[second].run;
    bool is_met = encounter_at(encounter, step);
    judge(meeting);
    return is_met;
}

/* They are few, and have few steps: a tenth of the stride. */
static void meet_all(const char *first, void (*run)(struct meeting *meeting))
{
    static struct meeting meeting;
    static struct encounter encounter;
    int64_t stride = encounter_stride() / 10 + 1;
    encounter_open(&encounter, &meeting, act, ask_again);
    meeting.first = run;
    for (size_t i = 0; i < 2 * COUNT_OF(operations); i++) {
        int64_t step = 1 + (int64_t)(test_random() % (uint64_t)stride);
        meeting.worked = i % 2;
        while (is_met(&encounter, first, i / 2, step))
            step += stride;
    }
    encounter_close(&encounter);
}

#define MEETING(name)                                                                              \
    TEST(name##_is_met_at_each_step)                                                               \
    {                                                                                              \
        meet_all(#name, do_##name);                                                                \
    }
OPERATIONS(MEETING)
