/*
 * solo.c -- flight/solo: the flight that a thread keeps is used again as long as it is for the same
 * host with the same parts, and made anew for any other.
 */
#include "flights.h"

#include "flight/host.h"
#include "flight/solo.h"

static struct host host;
static const struct flight *used; /* by the latest call */

static void begin_solo(void)
{
    begin();
    CHECK(thread_self() != NULL);
    group_make_room(&group);
    memset((void *)&host, 0, sizeof host);
    host.home = ground.home;
    host.slot = ground.home->account.slot;
    host.executor = executor;
}

static aside_status check_flight(aside_fetch *fetch, void *its_host)
{
    const struct host *own = its_host;
    used = (const struct flight *)fetch;
    CHECK(used->owned_by == own && used->home == own->home && used->executor == own->executor);
    CHECK_INT(used->generation, fork_generation());
    return aside_fetch_copy(fetch, "v", 1);
}

static bool try_alone(struct host *its_host, aside_result *result)
{
    const aside_call call = {ASIDE_CALL, .fetch = check_flight, .arg = its_host};
    struct request r = {.host = its_host,
                        .self = thread_self(),
                        .call = &call,
                        .key = key_of("key"),
                        .group = &group,
                        .cancel_state = HOST_CANCEL_UNTOUCHED};
    aside_status status = ASIDE_OK;
    CHECK(solo_fits(&call));
    bool done = solo_call(&r, &owner, result, &status);
    CHECK_STATUS(status, ASIDE_OK);
    return done;
}

/* A call that finds itself alone, and sees a flight of this host as it is now. */
static void call_alone(struct host *its_host)
{
    aside_result result;
    used = NULL;
    CHECK(try_alone(its_host, &result));
    CHECK(value_is(result.value, "v"));
    aside_value_unref(result.value);
    CHECK(used != NULL && thread_self()->solo == used);
    CHECK_INT(published + adopted, 0);
}

TEST(a_thread_keeps_its_flight_for_the_next_call)
{
    begin_solo();
    call_alone(&host);
    int64_t before = process_alloc_calls(), blocks = ground.ledger.calls;
    const struct flight *kept = used;
    for (int i = 0; i < 5; i++) {
        call_alone(&host);
        CHECK(used == kept);
    }
    CHECK_INT(process_alloc_calls(), before);
    CHECK_INT(ground.ledger.calls, blocks + 5); /* the values */
    end();
}

TEST(a_host_at_the_place_of_another_with_one_part_elsewhere_has_a_flight_of_its_own)
{
    static const struct executor_options pool = {.max_threads = 1, .stack_bytes = 1 << 18};
    begin_solo();
    struct executor *other_executor = executor_new(&ground.mem, &pool);
    struct home *other_home = home_open(&ground.mem);
    for (int i = 0; i < 8; i++) {
        host.executor = i & 1 ? other_executor : executor;
        host.home = i & 2 ? other_home : ground.home;
        host.slot = host.home->account.slot;
        call_alone(&host);
        call_alone(&host);
    }
    home_close(other_home);
    executor_unref(other_executor);
    end();
}

TEST(another_host_and_the_child_of_a_fork_have_flights_of_their_own)
{
    static struct host other;
    begin_solo();
    memset((void *)&other, 0, sizeof other);
    other.home = host.home;
    other.slot = host.slot;
    other.executor = host.executor;
    for (int i = 0; i < 3; i++) {
        call_alone(&host);
        call_alone(&other);
        call_alone(&other);
        fork_generation_now++;
        call_alone(&other);
    }
    fork_generation_now = 0;
    end();
}

TEST(without_memory_for_its_flight_a_call_is_none_that_finds_itself_alone)
{
    aside_result result;
    begin_solo();
    process_fail_alloc(1, false);
    CHECK(!try_alone(&host, &result));
    CHECK(used == NULL && atomic_load(&group.solo) == NULL);
    call_alone(&host);
    end();
}
