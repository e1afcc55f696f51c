/*
 * flights.h -- flights made by hand, under a group and an owner of the test's own: what the owner is
 * told is counted, and an answer is handed over without being stored.
 */
#ifndef ASIDE_ROOMS_FLIGHTS_H
#define ASIDE_ROOMS_FLIGHTS_H

#include "rooms.h"

#include "flight/group.h"

static struct ground ground;
static struct lock lock;
static struct group group;
static struct executor *executor;
static _Atomic int published, released, adopted;
static _Atomic size_t released_bytes;

static void publish(struct flight *flight)
{
    struct flight_answer *answer = &flight->answer;
    published++;
    if (answer->entry)
        entry_pin(answer->entry);
    if (answer->status == ASIDE_OK)
        flight->value = answer->entry ? &answer->entry->head : answer->given;
    lock_take(&lock);
    flight->answered = !flight_is_settled(flight);
    (void)group_settle(flight, answer->status);
    lock_release(&lock);
    flight_wake(flight);
}

static void release(void *owned_by, size_t charge)
{
    CHECK(owned_by == &group);
    released++;
    released_bytes += charge;
}

static void adopt(void *owned_by)
{
    CHECK(owned_by == &group);
    adopted++;
}

static const struct flight_owner owner = {publish, release, adopt, NULL};

static void begin(void)
{
    static const struct executor_options pool = {.max_threads = 2, .stack_bytes = 1 << 18};
    ground_init(&ground, 0, 0);
    lock_init(&lock, RANK_SHARD);
    group_init(&group, &lock, &ground.mem, NULL);
    executor = executor_new(&ground.mem, &pool);
    CHECK(executor != NULL);
    published = released = adopted = 0;
    released_bytes = 0;
}

static void end(void)
{
    CHECK(group.flights == NULL);
    CHECK_INT(table_count(&group.current), 0);
    executor_stop(executor);
    executor_join(executor, CLOCK_NEVER);
    executor_unref(executor);
    group_fini(&group);
    lock_fini(&lock);
    ground_fini(&ground);
}

static inline struct flight_key key_of(const char *text)
{
    return (struct flight_key){ground_hash(&ground, text, strlen(text)), text, strlen(text)};
}

enum { STARTED = 1000000000, AGE_MS = 100 };

static int64_t started(void *ctx)
{
    (void)ctx;
    return STARTED;
}

static struct flight *make_for(const char *text, const aside_call *call)
{
    static const aside_clock clock = {started, NULL};
    struct flight_options options = {&owner, &group,  executor, ground.home,
                                     &clock, STARTED, AGE_MS};
    struct flight_key key = key_of(text);
    return flight_new(&options, &key, call);
}

/* Leads a flight of the call; its two references are the caller's and the fetch's. */
static inline struct flight *lead_call(const char *text, const aside_call *call)
{
    struct flight *flight = make_for(text, call);
    CHECK(flight != NULL);
    lock_take(&lock);
    CHECK(group_lead(&group, flight));
    lock_release(&lock);
    return flight;
}

static struct flight *join_at(const char *text, int64_t now_ns, size_t max, bool *full,
                              struct flight **old)
{
    struct flight_key key = key_of(text);
    lock_take(&lock);
    struct flight *flight = group_join(&group, &key, now_ns, max, full, old);
    lock_release(&lock);
    return flight;
}

static inline struct flight *join(const char *text)
{
    struct flight *old = NULL;
    bool full = false;
    struct flight *flight = join_at(text, STARTED, 0, &full, &old);
    CHECK(old == NULL && !full);
    return flight;
}

static inline bool settle(struct flight *flight, aside_status verdict)
{
    lock_take(&lock);
    bool settled = group_settle(flight, verdict);
    lock_release(&lock);
    return settled;
}

#endif
