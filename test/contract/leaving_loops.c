/*
 * leaving_loops.c -- how the wait of an aside_get_async() ends, other than by its fetch: its token,
 * its deadline, the flight's age, a tag, the cache, the inbox, its thread. Whatever comes first, it
 * is told exactly once, and nothing is left behind.
 */
#include "loops.h"

/* ---- tokens -------------------------------------------------------------------------------------- */

TEST(a_token_that_has_fired_lets_a_hit_through_and_nothing_else)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.cancel = token_new();
    aside_cancel_fire(place.call.cancel);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_E_CANCELLED);
    put(place.cache, "k", "there", 1000);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_OK);
    drop_told(&told);
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, refused), 1);
    aside_cancel_unref(place.call.cancel);
    place_close(&place);
}

TEST(who_is_cancelled_is_told_while_the_fetch_runs_on)
{
    struct place place;
    struct told told = {0}, stays = {0};
    place_open(&place);
    place_wait(&place, &stays);
    place.call.cancel = token_new();
    place_wait(&place, &told);
    aside_cancel_fire(place.call.cancel);
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_CANCELLED, ASIDE_OUTCOME_JOINED);
    CHECK_INT(STAT(place.cache, waiters_now), 1);
    CHECK_INT(STAT(place.cache, cancelled), 1);
    CHECK_INT(STAT(place.cache, get_async_error), 1);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(!stays.result.shared); /* the other had left by then */
    check_value(&stays, ASIDE_OUTCOME_FETCHED, "fetched");
    CHECK(!is_readable(place.inbox));
    aside_cancel_unref(place.call.cancel);
    place_close(&place);
}

TEST(a_value_that_is_ready_when_the_token_fires_wins)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.cancel = token_new();
    place_wait(&place, &told);
    complete(&place.held, "ready");
    aside_cancel_fire(place.call.cancel);
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "ready");
    CHECK_INT(STAT(place.cache, cancelled), 0);
    aside_cancel_unref(place.call.cancel);
    place_close(&place);
}

TEST(a_value_that_is_ready_when_the_deadline_passes_wins)
{
    struct place place;
    struct told told = {0};
    place_open_clocked(&place);
    place.call.timeout_ms = 50;
    place_wait(&place, &told);
    complete(&place.held, "ready");
    place_move_ms(&place, 100);
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "ready");
    place_close(&place);
}

TEST(a_token_that_fires_after_the_callback_changes_nothing)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.cancel = token_new();
    place_wait(&place, &told);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 1);
    aside_cancel_fire(place.call.cancel);
    CHECK(!is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 0);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "fetched");
    aside_cancel_unref(place.call.cancel);
    place_close(&place);
}

/* The library keeps what it needs of it, the parent included. */
TEST(a_token_may_be_given_back_at_once_and_fires_with_its_parent)
{
    struct place place;
    struct told told = {0};
    aside_cancel *parent = token_new();
    place_open(&place);
    CHECK_STATUS(aside_cancel_child(parent, &place.call.cancel), ASIDE_OK);
    place_wait(&place, &told);
    aside_cancel_unref(place.call.cancel);
    aside_cancel_fire(parent);
    aside_cancel_unref(parent);
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_CANCELLED, ASIDE_OUTCOME_FETCHED);
    complete(&place.held, "nobody is there");
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK(holds(place.cache, "k", "nobody is there"));
    place_close(&place);
}

TEST(a_hundred_calls_leave_by_one_token)
{
    static struct told told[100];
    struct place place;
    struct told stays = {0};
    char key[16];
    place_open(&place);
    place_wait(&place, &stays);
    place.call.cancel = token_new();
    for (size_t i = 0; i < COUNT_OF(told); i++) {
        snprintf(key, sizeof key, "%s%d", i < 97 ? "k" : "other", i < 97 ? 0 : (int)i);
        begin_pending(&told[i], place.cache, i < 97 ? "k" : key, &place.call, place.inbox);
    }
    aside_cancel_fire(place.call.cancel);
    aside_cancel_unref(place.call.cancel);
    CHECK_INT(dispatch(place.inbox), COUNT_OF(told));
    for (size_t i = 0; i < COUNT_OF(told); i++)
        CHECK_STATUS(told[i].status, ASIDE_E_CANCELLED);
    CHECK_INT(STAT(place.cache, waiters_now), 1);
    for (int i = 0; i < 4; i++)
        complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&stays, ASIDE_OUTCOME_FETCHED, "fetched");
    place_close(&place);
}

static aside_status stop_if_abandoned(aside_fetch *fetch, void *arg)
{
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    return hold_fetch(fetch, arg);
}

TEST(a_fetch_that_all_loops_have_left_is_told_to_stop)
{
    struct place place;
    struct told told[2] = {{0}};
    place_open(&place);
    place.call.fetch = stop_if_abandoned;
    place.call.stop_when_abandoned = 1;
    place.call.cancel = token_new();
    place_wait(&place, &told[0]);
    place_wait(&place, &told[1]);
    aside_fetch *fetch = held_next(&place.held);
    aside_cancel_fire(place.call.cancel);
    CHECK_INT(dispatch_some(place.inbox, 1), 1);
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(aside_fetch_stopping(fetch), 1);
    aside_fetch_unref(fetch);
    aside_cancel_unref(place.call.cancel);
    check_all_quiet(place.cache);
    place_close(&place);
}

/* ---- deadlines by the system's clock ------------------------------------------------------------- */

TEST(a_timeout_makes_the_descriptor_readable_in_time)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.timeout_ms = 30;
    int64_t began_ns = test_now_ns();
    place_wait(&place, &told);
    dispatch_until(place.inbox, 1);
    CHECK(test_now_ns() - began_ns >= INT64_C(30000000));
    check_told(&told, ASIDE_E_TIMEOUT, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(STAT(place.cache, timeouts), 1);
    CHECK(!is_readable(place.inbox));
    complete(&place.held, "late");
    CHECK_INT(dispatch(place.inbox), 0);
    place_close(&place);
}

/* A machine that is busy may be past it before the call has begun. */
static void wait_with_a_deadline(struct place *place, struct told *told)
{
    aside_status status = ASIDE_E_TIMEOUT;
    for (int64_t ms = 30; status == ASIDE_E_TIMEOUT; ms *= 2) {
        aside_cancel_unref(place->call.cancel);
        place->call.cancel = token_new();
        CHECK_STATUS(aside_cancel_set_deadline(place->call.cancel, ms, NULL), ASIDE_OK);
        status = place_begin(place, told);
    }
    CHECK_STATUS(status, ASIDE_PENDING);
}

TEST(the_deadline_of_a_token_makes_the_descriptor_readable)
{
    for (int later = 0; later <= 1; later++) {
        struct place place;
        struct told told = {0};
        place_open(&place);
        if (later) { /* of one that waits already */
            place.call.cancel = token_new();
            place_wait(&place, &told);
            CHECK_STATUS(aside_cancel_set_deadline(place.call.cancel, 30, NULL), ASIDE_OK);
        } else {
            wait_with_a_deadline(&place, &told);
        }
        dispatch_until(place.inbox, 1);
        check_told(&told, ASIDE_E_TIMEOUT, ASIDE_OUTCOME_FETCHED);
        CHECK_INT(STAT(place.cache, timeouts), 1);
        complete(&place.held, "late");
        aside_cancel_unref(place.call.cancel);
        place_close(&place);
    }
}

TEST(a_flight_that_grows_too_old_is_told_though_nobody_sleeps_for_it)
{
    struct place place;
    struct told told = {0};
    aside_options options = place_options(&place);
    options.max_flight_age_ms = 30;
    place_open_with(&place, &options);
    place_wait(&place, &told);
    dispatch_until(place.inbox, 1);
    check_told(&told, ASIDE_E_FETCH_TIMEOUT, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(STAT(place.cache, superseded), 1);
    complete(&place.held, "late");
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_STATUS(look(place.cache, "k"), ASIDE_MISS);
    place_close(&place);
}

TEST(a_stale_value_is_taken_at_the_soft_timeout)
{
    struct place place;
    struct told told = {0};
    aside_options options = place_options(&place);
    options.default_ttl_ms = 1;
    options.freshness.stale_ms = 600000;
    place_open_with(&place, &options);
    place_wait(&place, &told);
    complete(&place.held, "old");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "old");
    WAIT_UNTIL(look(place.cache, "k") == ASIDE_MISS);
    place.call.freshness.soft_timeout_ms = 30;
    place_wait(&place, &told);
    dispatch_until(place.inbox, 1);
    CHECK_INT(told.result.stale_cause, ASIDE_STALE_LATE);
    check_value(&told, ASIDE_OUTCOME_STALE, "old");
    CHECK_INT(STAT(place.cache, stale_late), 1);
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 0);
    place_close(&place);
}

/* ---- deadlines by a clock of one's own ----------------------------------------------------------- */

TEST(a_clock_that_is_moved_wakes_the_inbox)
{
    struct place place;
    struct told told = {0}, plain = {0};
    place_open_clocked(&place);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    place.call.timeout_ms = 100;
    place_wait(&place, &told);
    place_move_ms(&place, 99);
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK(!is_readable(place.inbox));
    place_move_ms(&place, 1);
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_TIMEOUT, ASIDE_OUTCOME_JOINED);
    CHECK_INT(plain.times, 0);
    complete(&place.held, "late");
    check_value(&plain, ASIDE_OUTCOME_FETCHED, "late");
    place_close(&place);
}

TEST(timeouts_are_told_in_their_order)
{
    static const int timeouts_ms[] = {60, 20, 80, 40};
    static const int turns[] = {3, 1, 4, 2};
    struct place place;
    struct told told[4] = {{0}};
    place_open_clocked(&place);
    for (int i = 0; i < 4; i++) {
        place.call.timeout_ms = timeouts_ms[i];
        place_wait(&place, &told[i]);
    }
    for (int turn = 0; turn < 4; turn++) {
        place_move_ms(&place, 20);
        CHECK_INT(dispatch(place.inbox), 1);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_STATUS(told[i].status, ASIDE_E_TIMEOUT);
        CHECK_INT(told[i].turn, turns[i]);
    }
    complete(&place.held, "late");
    place_close(&place);
}

TEST(the_deadline_of_a_token_on_a_moved_clock_is_told)
{
    struct place place;
    struct told told = {0};
    struct fake_clock tokens;
    aside_clock clock = fake_clock_init(&tokens);
    place_open(&place); /* which lives by the system's */
    place.call.cancel = token_new();
    CHECK_STATUS(aside_cancel_set_deadline(place.call.cancel, 100, &clock), ASIDE_OK);
    place_wait(&place, &told);
    fake_clock_advance_ms(&tokens, 100, place.cache);
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_E_TIMEOUT, ASIDE_OUTCOME_FETCHED);
    complete(&place.held, "late");
    aside_cancel_unref(place.call.cancel);
    place_close(&place);
}

TEST(a_flight_that_grows_too_old_by_a_moved_clock_is_told)
{
    struct place place;
    struct told told = {0}, joined = {0}, newer = {0};
    place_open_clocked(&place);
    place_wait(&place, &told);
    place_wait(&place, &joined);
    place_move_ms(&place, 30000);
    CHECK_INT(dispatch(place.inbox), 2);
    check_told(&told, ASIDE_E_FETCH_TIMEOUT, ASIDE_OUTCOME_FETCHED);
    check_told(&joined, ASIDE_E_FETCH_TIMEOUT, ASIDE_OUTCOME_JOINED);
    place_wait(&place, &newer);
    complete(&place.held, "late");
    CHECK_INT(dispatch(place.inbox), 0);
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&newer, ASIDE_OUTCOME_FETCHED, "new");
    place_close(&place);
}

/* Nobody's clock but the newcomer's says so: then the plain callback is told by him. */
TEST(a_plain_callback_is_told_by_the_newcomer_who_finds_the_flight_too_old)
{
    struct place place;
    struct told plain = {0}, newer = {0};
    place_open_clocked(&place);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    place_move_ms(&place, 30000);
    place_wait(&place, &newer);
    CHECK(pthread_equal(plain.by, pthread_self()));
    check_told(&plain, ASIDE_E_FETCH_TIMEOUT, ASIDE_OUTCOME_FETCHED);
    complete(&place.held, "late");
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&newer, ASIDE_OUTCOME_FETCHED, "new");
    place_close(&place);
}

TEST(soft_timeouts_by_a_moved_clock)
{
    struct place place;
    struct told told = {0};
    place_open_stale(&place, (aside_freshness){.stale_ms = 100000, .soft_timeout_ms = 50});
    place_wait(&place, &told);
    place_move_ms(&place, 49);
    CHECK_INT(dispatch(place.inbox), 0);
    place_move_ms(&place, 1);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(told.result.stale_cause, ASIDE_STALE_LATE);
    check_value(&told, ASIDE_OUTCOME_STALE, "old");
    place_wait(&place, &told);
    complete(&place.held, "new");
    place_move_ms(&place, 50);
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_JOINED, "new"); /* it was ready by then */
    place_close(&place);
}

/* Another thread completes the fetch while the loop, past the soft timeout, looks round. */
struct ending {
    struct acting_clock clock;
    struct place place;
    struct told told;
};

static void *complete_after_all(void *arg)
{
    complete(&((struct ending *)arg)->place.held, "new");
    return NULL;
}

static void open_ending(struct ending *ending)
{
    struct place *place = &ending->place;
    aside_options options = place_options(place);
    options.clock = acting_clock_init(&ending->clock, complete_after_all, ending);
    options.default_ttl_ms = 10;
    options.freshness = (aside_freshness){.stale_ms = 100000, .soft_timeout_ms = 50};
    place_open_with(place, &options);
    put(place->cache, "k", "old", ASIDE_DEFAULT_TTL);
    fake_clock_advance_ms(&ending->clock.fake, 30, place->cache);
}

/* At that reading of the clock. True: the loop read it that often before he left. */
static bool end_at(int reading)
{
    static struct ending ending;
    struct place *place = &ending.place;
    memset((void *)&ending.told, 0, sizeof ending.told);
    open_ending(&ending);
    place_wait(place, &ending.told);
    fake_clock_advance_ms(&ending.clock.fake, 50, place->cache);
    acting_clock_arm(&ending.clock, reading);
    if (dispatch(place->inbox) == 0) { /* then he has been posted meanwhile */
        CHECK(is_readable(place->inbox));
        CHECK_INT(dispatch(place->inbox), 1);
    }
    bool ended = acting_clock_disarm(&ending.clock);
    CHECK_INT(STAT(place->cache, stale_late), !ended);
    CHECK_INT(STAT(place->cache, waiters_now), 0);
    check_value(&ending.told, ended ? ASIDE_OUTCOME_FETCHED : ASIDE_OUTCOME_STALE,
                ended ? "new" : "old");
    if (!ended)
        complete(&place->held, "late");
    place_close(place);
    return ended;
}

/* C3, to the last instant. */
TEST(a_fetch_that_ends_while_a_loop_turns_to_the_stale_value_wins)
{
    int reading = 1;
    while (end_at(reading))
        reading++;
    CHECK(reading > 2);
}

/* Another thread moves the clock past the deadline, and says so, while the call is made. */
struct moving {
    struct acting_clock clock;
    struct place place;
    struct told told;
};

static void *move_past_the_deadline(void *arg)
{
    struct moving *moving = (struct moving *)arg;
    fake_clock_advance_ms(&moving->clock.fake, 1000, moving->place.cache);
    return NULL;
}

/* At that reading of the clock. True: the call read it that often. */
static bool move_at(int reading)
{
    static struct moving moving;
    struct place *place = &moving.place;
    aside_options options = place_options(place);
    memset((void *)&moving.told, 0, sizeof moving.told);
    options.clock = acting_clock_init(&moving.clock, move_past_the_deadline, &moving);
    options.max_flight_age_ms = ASIDE_FOREVER;
    place_open_with(place, &options);
    place->call.timeout_ms = 1000;
    acting_clock_arm(&moving.clock, reading);
    place_wait(place, &moving.told);
    bool moved = acting_clock_disarm(&moving.clock);
    if (!is_readable(place->inbox)) {
        CHECK_STATUS(aside_clock_changed(place->cache), ASIDE_OK);
        CHECK_INT(dispatch(place->inbox), 0); /* it is not late */
        fake_clock_advance_ms(&moving.clock.fake, 1000, place->cache);
    }
    CHECK_INT(dispatch(place->inbox), 1);
    check_told(&moving.told, ASIDE_E_TIMEOUT, ASIDE_OUTCOME_FETCHED);
    complete(&place->held, "late");
    place_close(place);
    return moved;
}

/* However it falls: who is late when he begins to wait, or becomes it then, is told. */
TEST(a_clock_that_is_moved_while_the_call_is_made_is_not_slept_over)
{
    int reading = 1;
    while (move_at(reading))
        reading++;
    CHECK(reading > 2);
}

/* The same of the token, which another thread fires. */
static void *fire_it(void *arg)
{
    aside_cancel_fire(((struct moving *)arg)->place.call.cancel);
    return NULL;
}

static bool fire_at(int reading)
{
    static struct moving moving;
    struct place *place = &moving.place;
    aside_options options = place_options(place);
    memset((void *)&moving.told, 0, sizeof moving.told);
    options.clock = acting_clock_init(&moving.clock, fire_it, &moving);
    place_open_with(place, &options);
    place->call.cancel = token_new();
    acting_clock_arm(&moving.clock, reading);
    aside_status status = place_begin(place, &moving.told);
    bool fired = acting_clock_disarm(&moving.clock);
    aside_cancel_fire(place->call.cancel);
    CHECK_STATUS(status, fired && !place->held.fetches ? ASIDE_E_CANCELLED : ASIDE_PENDING);
    if (status == ASIDE_PENDING) {
        CHECK(is_readable(place->inbox));
        CHECK_INT(dispatch(place->inbox), 1);
        check_told(&moving.told, ASIDE_E_CANCELLED, ASIDE_OUTCOME_FETCHED);
        complete(&place->held, "late");
    }
    aside_cancel_unref(place->call.cancel);
    place_close(place);
    return fired;
}

TEST(a_token_that_fires_while_the_call_is_made_is_not_slept_over)
{
    int reading = 1;
    while (fire_at(reading))
        reading++;
    CHECK(reading > 2);
}

/* ---- what came is older than the caller may see -------------------------------------------------- */

/* A flight that a deletion of its tag overtakes, and one who joins it after that. */
static void join_outdated(struct place *place, struct told *led, struct told *later,
                          aside_inbox *inbox)
{
    place_wait(place, led);
    (void)aside_delete_tag(place->cache, ASIDE_STR("tag"));
    begin_pending(later, place->cache, "k", &place->call, inbox);
    CHECK_INT(place->held.fetches, 1);
    complete_tagged(&place->held, "outdated", "tag");
}

TEST(who_came_after_a_tag_was_deleted_has_another_fetch_started_by_his_loop)
{
    struct place place;
    struct told led = {0}, later = {0}, last = {0};
    place_open(&place);
    join_outdated(&place, &led, &later, place.inbox);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(led.result.fenced);
    check_value(&led, ASIDE_OUTCOME_FETCHED, "outdated");
    CHECK_INT(later.times, 0);
    CHECK_INT(place.held.fetches, 2);
    CHECK(!is_readable(place.inbox));
    place_wait(&place, &last);
    complete_tagged(&place.held, "new", "tag");
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK(!later.result.fenced);
    CHECK(later.result.shared);
    check_value(&later, ASIDE_OUTCOME_FETCHED, "new");
    check_value(&last, ASIDE_OUTCOME_JOINED, "new");
    CHECK(holds(place.cache, "k", "new"));
    CHECK_INT(STAT(place.cache, get_async_ok), 3);
    CHECK_INT(STAT(place.cache, misses_led) + STAT(place.cache, misses_joined), 3);
    place_close(&place);
}

/* The fetch that he has started began after that. */
TEST(a_tag_that_was_deleted_again_before_the_other_fetch_began_does_not_fence_it)
{
    struct place place;
    struct told led = {0}, later = {0};
    place_open(&place);
    place_wait(&place, &led);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    place_wait(&place, &later);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    complete_tagged(&place.held, "outdated", "tag");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(place.held.fetches, 2);
    complete_tagged(&place.held, "new", "tag");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(!later.result.fenced);
    check_value(&later, ASIDE_OUTCOME_FETCHED, "new");
    CHECK(holds(place.cache, "k", "new"));
    drop_told(&led);
    place_close(&place);
}

TEST(a_plain_callback_that_came_after_a_tag_was_deleted_has_another_fetch_started)
{
    struct place place;
    struct told led = {0}, later = {0};
    place_open(&place);
    join_outdated(&place, &led, &later, NULL);
    CHECK_INT(dispatch(place.inbox), 1);
    drop_told(&led);
    CHECK_INT(later.times, 0);
    CHECK_INT(place.held.fetches, 2);
    complete_tagged(&place.held, "new", "tag");
    check_value(&later, ASIDE_OUTCOME_FETCHED, "new");
    place_close(&place);
}

/* Its key and its call are the library's own by then. */
TEST(what_a_loop_asks_once_more_needs_nothing_of_the_callers_stack)
{
    struct place place;
    struct told led = {0}, later = {0};
    struct held *arg;
    char key[] = "k";
    place_open(&place);
    arg = &place.held;
    place_wait(&place, &led);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    aside_call *call = (aside_call *)malloc(sizeof *call);
    *call = place.call;
    begin_pending(&later, place.cache, key, call, place.inbox);
    memset((void *)call, 0xee, sizeof *call);
    free(call);
    key[0] = 'x';
    CHECK(arg == &place.held);
    complete_tagged(&place.held, "outdated", "tag");
    CHECK_INT(dispatch(place.inbox), 1);
    complete_tagged(&place.held, "new", "tag");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(holds(place.cache, "k", "new"));
    drop_told(&led);
    check_value(&later, ASIDE_OUTCOME_FETCHED, "new");
    place_close(&place);
}

TEST(the_deadline_of_who_asks_once_more_is_the_one_he_came_with)
{
    struct place place;
    struct told led = {0}, later = {0};
    place_open_clocked(&place);
    place_wait(&place, &led);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    place.call.timeout_ms = 100;
    place_wait(&place, &later);
    place_move_ms(&place, 60);
    complete_tagged(&place.held, "outdated", "tag");
    CHECK_INT(dispatch(place.inbox), 1);
    place_move_ms(&place, 40);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_STATUS(later.status, ASIDE_E_TIMEOUT);
    complete_tagged(&place.held, "late", "tag");
    drop_told(&led);
    place_close(&place);
}

TEST(who_asks_once_more_of_a_cache_that_was_closed_meanwhile_is_told_so)
{
    for (int plain = 0; plain <= 1; plain++) {
        struct place place;
        struct told led = {0}, later = {0};
        aside_options options = place_options(&place);
        options.close_wait_ms = 0;
        place_open_with(&place, &options);
        aside_inbox *inbox = plain ? NULL : place.inbox;
        join_outdated(&place, &led, &later, inbox);
        CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
        if (plain) /* who had begun another fetch by then */
            aside_fetch_unref(held_next(&place.held));
        CHECK_INT(dispatch(place.inbox), 2 - plain);
        CHECK_STATUS(later.status, ASIDE_E_CLOSED);
        drop_told(&led);
        place_close(&place);
    }
}

/* While he was away another has stored a value that is stale by now, and due. */
TEST(who_asks_once_more_and_meets_a_stale_value_has_it_refreshed_and_goes)
{
    for (int plain = 0; plain <= 1; plain++) {
        struct place place;
        struct told led = {0}, later = {0};
        aside_options options = place_options(&place);
        options.clock = fake_clock_init(&place.clock);
        options.freshness.stale_ms = 1000;
        place_open_with(&place, &options);
        place_wait(&place, &led);
        (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
        begin_pending(&later, place.cache, "k", &place.call, plain ? NULL : place.inbox);
        put(place.cache, "k", "set", 10);
        place_move_ms(&place, 20);
        complete_tagged(&place.held, "outdated", "tag");
        CHECK_INT(dispatch(place.inbox), 2 - plain);
        CHECK_INT(later.result.stale_cause, ASIDE_STALE_REFRESH);
        check_value(&later, ASIDE_OUTCOME_STALE, "set");
        CHECK_INT(place.held.fetches, 2);
        drop_told(&led);
        complete(&place.held, "new");
        CHECK_INT(dispatch(place.inbox), 0);
        CHECK(holds(place.cache, "k", "new"));
        place_close(&place);
    }
}

/* A refresh that another has begun is joined by nobody who takes the stale value. */
TEST(who_asks_once_more_and_meets_a_refresh_of_another_goes_with_the_stale_value)
{
    struct place place;
    struct told led = {0}, later = {0};
    aside_options options = place_options(&place);
    options.clock = fake_clock_init(&place.clock);
    options.freshness.stale_ms = 1000;
    place_open_with(&place, &options);
    place_wait(&place, &led);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    place_wait(&place, &later);
    put(place.cache, "k", "set", 10);
    CHECK_STATUS(aside_refresh(place.cache, ASIDE_STR("k"), &place.call), ASIDE_OK);
    place_move_ms(&place, 20);
    complete_tagged(&place.held, "outdated", "tag");
    CHECK_INT(dispatch(place.inbox), 2);
    check_value(&later, ASIDE_OUTCOME_STALE, "set");
    drop_told(&led);
    complete(&place.held, "new");
    CHECK_INT(place.held.fetches, 2);
    CHECK(holds(place.cache, "k", "new"));
    place_close(&place);
}

/* ---- what it is asked with ----------------------------------------------------------------------- */

struct argument {
    struct held held;
    _Atomic int retained, released;
};

static void retain(void *arg)
{
    atomic_fetch_add(&((struct argument *)arg)->retained, 1);
}

static void release(void *arg)
{
    struct argument *argument = (struct argument *)arg;
    CHECK(atomic_fetch_add(&argument->released, 1) < atomic_load(&argument->retained));
}

static aside_status hold_with_argument(aside_fetch *fetch, void *arg)
{
    struct argument *argument = (struct argument *)arg;
    CHECK(atomic_load(&argument->retained) > atomic_load(&argument->released));
    return hold_fetch(fetch, &argument->held);
}

static aside_call call_with(struct argument *argument)
{
    memset((void *)argument, 0, sizeof *argument);
    aside_call call = {ASIDE_CALL, .fetch = hold_with_argument, .arg = argument,
                       .arg_retain = retain, .arg_release = release};
    call.nonblocking = 1;
    return call;
}

TEST(the_leaders_argument_is_retained_once_and_released_once_after_the_fetch)
{
    for (int with_inbox = 0; with_inbox <= 1; with_inbox++) {
        struct place place;
        struct argument argument;
        struct told told = {0};
        place_open(&place);
        aside_call call = call_with(&argument);
        begin_pending(&told, place.cache, "k", &call, with_inbox ? place.inbox : NULL);
        CHECK_INT(argument.retained, 1);
        CHECK_INT(argument.released, 0);
        complete(&argument.held, "fetched");
        CHECK_INT(dispatch(place.inbox), with_inbox);
        check_value(&told, ASIDE_OUTCOME_FETCHED, "fetched");
        CHECK_INT(argument.retained, 1);
        CHECK_INT(argument.released, 1);
        place_close(&place);
    }
}

TEST(the_argument_of_who_leaves_is_released_when_his_fetch_has_ended)
{
    struct place place;
    struct argument argument;
    struct told told = {0};
    place_open(&place);
    aside_call call = call_with(&argument);
    call.cancel = token_new();
    begin_pending(&told, place.cache, "k", &call, place.inbox);
    aside_cancel_fire(call.cancel);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(argument.released, 0);
    complete(&argument.held, "fetched");
    CHECK_INT(argument.retained, 1);
    CHECK_INT(argument.released, 1);
    aside_cancel_unref(call.cancel);
    place_close(&place);
}

TEST(what_a_joiner_retains_he_releases_and_a_hit_retains_nothing)
{
    struct place place;
    struct argument argument;
    struct told led = {0}, told = {0};
    place_open(&place);
    aside_call call = call_with(&argument);
    place_wait(&place, &led);
    begin_pending(&told, place.cache, "k", &call, place.inbox);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK_INT(argument.retained, argument.released);
    CHECK_INT(argument.held.fetches, 0);
    drop_told(&led);
    int retained = argument.retained;
    CHECK_STATUS(begin(&told, place.cache, "k", &call, place.inbox), ASIDE_OK);
    drop_told(&told);
    CHECK_INT(argument.retained, retained);
    place_close(&place);
}

/* By himself, by his token, by his inbox, or by the cache: once more or not. */
TEST(what_a_joiner_retains_is_there_when_he_has_to_lead)
{
    for (int way = 0; way < 4; way++) {
        struct place place;
        struct argument argument;
        struct told led = {0}, told = {0};
        aside_options options = place_options(&place);
        options.close_wait_ms = 0;
        place_open_with(&place, &options);
        aside_call call = call_with(&argument);
        call.cancel = token_new();
        place_wait(&place, &led);
        (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
        begin_pending(&told, place.cache, "k", &call, place.inbox);
        complete_tagged(&place.held, "outdated", "tag");
        CHECK_INT(dispatch(place.inbox), 1);
        CHECK_INT(argument.held.fetches, 1);
        CHECK(argument.retained > argument.released);
        if (way == 1)
            aside_cancel_fire(call.cancel);
        if (way == 2)
            CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
        if (way != 0)
            CHECK_INT(dispatch(place.inbox), way != 3);
        if (way == 3) {
            aside_inbox_free(place.inbox);
            place.inbox = NULL;
        }
        complete_tagged(&argument.held, "new", "tag");
        if (way == 0)
            CHECK_INT(dispatch(place.inbox), 1);
        static const aside_status want[] = {ASIDE_OK, ASIDE_E_CANCELLED, ASIDE_E_CLOSED,
                                            ASIDE_E_CANCELLED};
        CHECK_STATUS(told.status, want[way]);
        CHECK_INT(argument.retained, argument.released);
        drop_told(&told);
        drop_told(&led);
        aside_cancel_unref(call.cancel);
        place_close(&place);
    }
}

/* His own is there all the time, and there is one. */
TEST(what_a_joiner_retains_he_retains_once_though_he_joins_again)
{
    struct place place;
    struct argument argument;
    struct told led = {0}, told = {0}, next = {0};
    place_open(&place);
    aside_call call = call_with(&argument);
    place_wait(&place, &led);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    begin_pending(&told, place.cache, "k", &call, place.inbox);
    complete_tagged(&place.held, "outdated", "tag");
    place_wait(&place, &next);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(argument.retained, 1);
    CHECK_INT(argument.released, 0);
    complete_tagged(&place.held, "new", "tag");
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK_INT(argument.retained, 1);
    CHECK_INT(argument.released, 1);
    CHECK_INT(argument.held.fetches, 0);
    check_value(&told, ASIDE_OUTCOME_JOINED, "new");
    check_value(&next, ASIDE_OUTCOME_FETCHED, "new");
    drop_told(&led);
    place_close(&place);
}

struct copied {
    struct held *held;
    char text[40];
};

static aside_status hold_with_copy(aside_fetch *fetch, void *arg)
{
    const struct copied *copied = (const struct copied *)arg;
    CHECK_INT((uintptr_t)arg % 8, 0);
    CHECK(strcmp(copied->text, "what the caller wrote") == 0);
    return hold_fetch(fetch, copied->held);
}

TEST(an_argument_that_is_copied_is_the_callers_again_at_once)
{
    struct place place;
    struct told led = {0}, told = {0};
    struct copied copied = {&place.held, "what the caller wrote"};
    place_open(&place);
    place_wait(&place, &led);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    aside_call call = {ASIDE_CALL, .fetch = hold_with_copy, .arg = &copied,
                       .arg_size = sizeof copied};
    call.nonblocking = 1;
    begin_pending(&told, place.cache, "k", &call, place.inbox);
    memset((void *)&copied, 0, sizeof copied);
    complete_tagged(&place.held, "outdated", "tag");
    CHECK_INT(dispatch(place.inbox), 1); /* and he leads, with his copy */
    CHECK_INT(place.held.fetches, 2);
    complete_tagged(&place.held, "new", "tag");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_FETCHED, "new");
    drop_told(&led);
    place_close(&place);
}

/* ---- the cache is closed ------------------------------------------------------------------------- */

TEST(closing_the_cache_tells_all_who_wait)
{
    struct place place;
    struct told told = {0}, joined = {0}, plain = {0};
    aside_options options = place_options(&place);
    options.close_wait_ms = 0;
    place_open_with(&place, &options);
    place_wait(&place, &told);
    place_wait(&place, &joined);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
    check_told(&plain, ASIDE_E_CLOSED, ASIDE_OUTCOME_JOINED);
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 2);
    check_told(&told, ASIDE_E_CLOSED, ASIDE_OUTCOME_FETCHED);
    check_told(&joined, ASIDE_E_CLOSED, ASIDE_OUTCOME_JOINED);
    CHECK_STATUS(place_begin(&place, &told), ASIDE_E_CLOSED);
    complete(&place.held, "late");
    CHECK_INT(dispatch(place.inbox), 0);
    CHECK_INT(STAT(place.cache, get_async_error), 4);
    place_close(&place);
}

/* The last reference is gone; what waits keeps what it needs. */
TEST(a_cache_may_be_gone_before_its_calls_are_dispatched)
{
    struct place place;
    struct told told = {0}, ready = {0};
    aside_options options = place_options(&place);
    options.close_wait_ms = 0;
    place_open_with(&place, &options);
    begin_pending(&ready, place.cache, "ready", &place.call, place.inbox);
    complete(&place.held, "ready");
    place_wait(&place, &told);
    aside_unref(place.cache);
    complete(&place.held, "late");
    CHECK_INT(dispatch(place.inbox), 2);
    check_value(&ready, ASIDE_OUTCOME_FETCHED, "ready");
    check_told(&told, ASIDE_E_CLOSED, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(place.ledger.live_blocks, 0);
    aside_inbox_free(place.inbox);
}

TEST(a_cache_may_be_gone_before_the_inbox_is_freed)
{
    struct place place;
    struct told told = {0}, ready = {0};
    aside_options options = place_options(&place);
    options.close_wait_ms = 0;
    place_open_with(&place, &options);
    begin_pending(&ready, place.cache, "ready", &place.call, place.inbox);
    complete(&place.held, "ready");
    place_wait(&place, &told);
    aside_unref(place.cache);
    aside_inbox_free(place.inbox);
    check_told(&told, ASIDE_E_CANCELLED, told.result.outcome);
    check_told(&ready, ASIDE_E_CANCELLED, ready.result.outcome);
    CHECK(place.ledger.live_blocks > 0); /* the fetch */
    complete(&place.held, "late");
    CHECK_INT(place.ledger.live_blocks, 0);
}

/* Its windows are of no use any more: there is nothing that could answer. */
TEST(a_failure_may_be_told_when_the_cache_has_gone)
{
    struct place place;
    struct told told = {0};
    place_open_stale(&place, (aside_freshness){.stale_if_error_ms = 100000});
    place_wait(&place, &told);
    complete_by_failure(&place.held, 42);
    CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
    aside_unref(place.cache);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_STATUS(told.status, ASIDE_E_FETCH);
    CHECK_INT(told.result.fetch_error, 42);
    CHECK_INT(place.ledger.live_blocks, 0);
    aside_inbox_free(place.inbox);
}

TEST(a_soft_timeout_may_pass_when_the_cache_has_gone)
{
    struct place place;
    struct told told = {0};
    place_open_stale(&place, (aside_freshness){.stale_ms = 100000, .soft_timeout_ms = 50});
    place_wait(&place, &told);
    aside_fetch *fetch = held_next(&place.held);
    CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
    fake_clock_advance_ms(&place.clock, 100, NULL);
    aside_unref(place.cache);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_STATUS(told.status, ASIDE_E_CLOSED);
    aside_fetch_unref(fetch);
    CHECK_INT(place.ledger.live_blocks, 0);
    aside_inbox_free(place.inbox);
}

TEST(a_cache_whose_calls_wait_in_no_inbox_closes_by_its_last_reference)
{
    struct place place;
    struct told plain = {0};
    aside_options options = place_options(&place);
    options.close_wait_ms = 0;
    place_open_with(&place, &options);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    aside_unref(place.cache);
    check_told(&plain, ASIDE_E_CLOSED, ASIDE_OUTCOME_FETCHED);
    complete(&place.held, "late");
    CHECK_INT(place.ledger.live_blocks, 0);
    aside_inbox_free(place.inbox);
}

/* ---- the inbox is freed -------------------------------------------------------------------------- */

TEST(freeing_an_inbox_tells_all_who_wait_and_disturbs_nobody_else)
{
    struct place place;
    struct told told[3] = {{0}}, stays = {0};
    place_open(&place);
    aside_inbox *other = inbox_open();
    begin_pending(&stays, place.cache, "k", &place.call, other);
    for (int i = 0; i < 3; i++)
        place_wait(&place, &told[i]);
    aside_inbox_free(place.inbox);
    place.inbox = NULL;
    for (int i = 0; i < 3; i++)
        check_told(&told[i], ASIDE_E_CANCELLED, told[i].result.outcome);
    CHECK_INT(STAT(place.cache, waiters_now), 1);
    CHECK_INT(STAT(place.cache, get_async_error), 3);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(other), 1);
    CHECK(!stays.result.shared);
    check_value(&stays, ASIDE_OUTCOME_FETCHED, "fetched");
    aside_inbox_free(other);
    place_close(&place);
}

TEST(freeing_an_inbox_drops_the_results_that_have_arrived)
{
    struct place place;
    struct told told[2] = {{0}};
    static struct tally tally;
    place_open(&place);
    place_wait(&place, &told[0]);
    place_wait(&place, &told[1]);
    aside_fetch *fetch = held_next(&place.held);
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 10)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, ASIDE_NO_STORE), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
    CHECK(is_readable(place.inbox));
    aside_inbox_free(place.inbox);
    place.inbox = NULL;
    for (int i = 0; i < 2; i++) {
        check_told(&told[i], ASIDE_E_CANCELLED, told[i].result.outcome);
        CHECK(told[i].result.value == NULL);
        CHECK_INT(told[i].result.stale_cause, ASIDE_STALE_NOT);
    }
    CHECK_INT(tally.freed, 1);
    CHECK_INT(STAT(place.cache, get_async_ok), 0); /* nobody was told that */
    CHECK_INT(STAT(place.cache, get_async_error), 2);
    place_close(&place);
}

static aside_status take_a_while(aside_fetch *fetch, void *arg)
{
    return source_fetch(fetch, arg);
}

TEST(a_fetch_on_a_worker_goes_on_though_its_inbox_is_freed)
{
    struct place place;
    struct source source;
    struct told told = {0};
    place_open(&place);
    source_init(&source, "fetched", true);
    place.call = (aside_call){ASIDE_CALL, .fetch = take_a_while, .arg = &source};
    place_wait(&place, &told);
    gate_wait_arrived(&source.gate, 1);
    aside_inbox_free(place.inbox);
    place.inbox = NULL;
    check_told(&told, ASIDE_E_CANCELLED, told.result.outcome);
    gate_open(&source.gate);
    WAIT_UNTIL(STAT(place.cache, flights_now) == 0);
    CHECK(holds(place.cache, "k", "fetched"));
    place_close(&place);
}

TEST(a_token_may_fire_after_the_inbox_has_gone)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.cancel = token_new();
    place.call.timeout_ms = 20;
    place_wait(&place, &told);
    aside_inbox_free(place.inbox);
    place.inbox = NULL;
    aside_cancel_fire(place.call.cancel);
    aside_cancel_unref(place.call.cancel);
    CHECK_STATUS(aside_clock_changed(place.cache), ASIDE_OK);
    complete(&place.held, "fetched");
    check_told(&told, ASIDE_E_CANCELLED, told.result.outcome);
    place_close(&place);
}

/* ---- callbacks that call the library ------------------------------------------------------------- */

static void free_the_inbox(struct told *told)
{
    struct place *place = (struct place *)told->arg;
    aside_inbox *inbox = place->inbox;
    place->inbox = NULL;
    aside_inbox_free(inbox);
}

TEST(a_callback_may_free_its_inbox)
{
    struct place place;
    struct told told[3] = {{0}}, waits = {0};
    place_open(&place);
    told[1].then = free_the_inbox;
    told[1].arg = &place;
    for (int i = 0; i < 3; i++)
        place_wait(&place, &told[i]);
    begin_pending(&waits, place.cache, "other", &place.call, place.inbox);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK(place.inbox == NULL);
    check_value(&told[0], ASIDE_OUTCOME_FETCHED, "fetched");
    check_value(&told[1], ASIDE_OUTCOME_JOINED, "fetched");
    check_told(&told[2], ASIDE_E_CANCELLED, told[2].result.outcome);
    check_told(&waits, ASIDE_E_CANCELLED, waits.result.outcome);
    complete(&place.held, "other");
    place_close(&place);
}

/* While it is being freed its callbacks can begin nothing with it, and do no harm. */
static void begin_with_what_goes(struct told *told)
{
    struct told again = {0};
    struct place *place = (struct place *)told->arg;
    CHECK_STATUS(begin(&again, place->cache, "more", &place->call, place->inbox), ASIDE_E_INVALID);
    CHECK_STATUS(aside_inbox_dispatch(place->inbox, 0, NULL), ASIDE_E_INVALID);
    aside_inbox_free(place->inbox);
}

TEST(a_callback_of_an_inbox_that_is_being_freed_begins_nothing_with_it)
{
    struct place place;
    struct told told[2] = {{0}};
    place_open(&place);
    for (int i = 0; i < 2; i++) {
        told[i].then = begin_with_what_goes;
        told[i].arg = &place;
        place_wait(&place, &told[i]);
    }
    aside_inbox_free(place.inbox);
    place.inbox = NULL;
    CHECK(told[0].times == 1 && told[1].times == 1);
    CHECK_INT(place.held.fetches, 1);
    complete(&place.held, "fetched");
    check_all_quiet(place.cache);
    place_close(&place);
}

static struct told next_told;

static void begin_another(struct told *told)
{
    struct place *place = (struct place *)told->arg;
    begin_pending(&next_told, place->cache, "next", &place->call, place->inbox);
    complete(&place->held, "next");
}

TEST(what_a_callback_begins_is_told_by_the_next_dispatch)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    told.then = begin_another;
    told.arg = &place;
    place_wait(&place, &told);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(next_told.times, 0);
    CHECK(is_readable(place.inbox));
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&next_told, ASIDE_OUTCOME_FETCHED, "next");
    drop_told(&told);
    place_close(&place);
}

static void dispatch_inside(struct told *told)
{
    CHECK_INT(dispatch(((struct place *)told->arg)->inbox), 2);
}

TEST(a_callback_may_dispatch)
{
    struct place place;
    struct told told[3] = {{0}};
    place_open(&place);
    told[0].then = dispatch_inside;
    told[0].arg = &place;
    for (int i = 0; i < 3; i++)
        place_wait(&place, &told[i]);
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK(!is_readable(place.inbox));
    for (int i = 0; i < 3; i++)
        drop_told(&told[i]);
    place_close(&place);
}

static void close_and_give_back(struct told *told)
{
    struct place *place = (struct place *)told->arg;
    drop_told(told);
    CHECK_STATUS(aside_close(place->cache), ASIDE_OK);
    aside_unref(place->cache);
}

/* By the inbox, or by who completes the fetch, or by who closes. */
TEST(a_callback_may_close_the_cache_and_give_it_back)
{
    for (int with_inbox = 0; with_inbox <= 1; with_inbox++) {
        struct place place;
        struct told told = {0}, other = {0};
        aside_options options = place_options(&place);
        options.close_wait_ms = 0;
        place_open_with(&place, &options);
        begin_pending(&told, place.cache, "k", &place.call, with_inbox ? place.inbox : NULL);
        begin_pending(&other, place.cache, "other", &place.call, place.inbox);
        told.then = close_and_give_back;
        told.arg = &place;
        complete(&place.held, "fetched");
        for (int i = 0; i <= with_inbox; i++)
            CHECK_INT(dispatch(place.inbox), 1);
        CHECK_STATUS(told.status, ASIDE_OK);
        CHECK_STATUS(other.status, ASIDE_E_CLOSED);
        complete(&place.held, "late");
        CHECK_INT(place.ledger.live_blocks, 0);
        aside_inbox_free(place.inbox);
    }
}

static void give_back(struct told *told)
{
    aside_unref((aside_cache *)told->arg);
}

TEST(a_callback_may_give_the_last_reference_back_while_another_closes)
{
    struct place place;
    struct told told = {0};
    aside_options options = place_options(&place);
    options.close_wait_ms = 0;
    place_open_with(&place, &options);
    told.then = give_back;
    told.arg = place.cache;
    begin_pending(&told, place.cache, "k", &place.call, NULL);
    CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
    check_told(&told, ASIDE_E_CLOSED, ASIDE_OUTCOME_FETCHED);
    complete(&place.held, "late");
    CHECK_INT(place.ledger.live_blocks, 0);
    aside_inbox_free(place.inbox);
}

static aside_cache *own_cache;
static aside_inbox *own_inbox;
static aside_status own_status;

static aside_status ask_for_own_key(aside_fetch *fetch, void *arg)
{
    struct told told = {0};
    aside_call call = {ASIDE_CALL, .fetch = ask_for_own_key, .arg = arg};
    own_status = begin(&told, own_cache, "k", &call, own_inbox);
    return aside_fetch_copy(fetch, "fetched", 7);
}

TEST(a_fetch_that_asks_for_its_own_key_is_told_so_at_once)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    own_cache = place.cache;
    own_inbox = place.inbox;
    place.call.fetch = ask_for_own_key;
    if (place_begin(&place, &told) == ASIDE_PENDING)
        CHECK_INT(dispatch(place.inbox), 1);
    CHECK_STATUS(own_status, ASIDE_E_DEADLOCK);
    CHECK(value_is(told.result.value, "fetched"));
    drop_told(&told);
    place_close(&place);
}

/* A fetch that leads another for its own thread's loop waits for nobody. */
static aside_status begin_other_key(aside_fetch *fetch, void *arg)
{
    struct place *place = (struct place *)arg;
    aside_call call = call_held(&place->held);
    begin_pending(&next_told, place->cache, "next", &call, place->inbox);
    CHECK_INT(dispatch(place->inbox), 0);
    return aside_fetch_copy(fetch, "fetched", 7);
}

TEST(a_fetch_may_begin_others_and_dispatch)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.fetch = begin_other_key;
    place.call.arg = &place;
    if (place_begin(&place, &told) == ASIDE_PENDING)
        CHECK_INT(dispatch(place.inbox), 1);
    CHECK(value_is(told.result.value, "fetched"));
    complete(&place.held, "next");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&next_told, ASIDE_OUTCOME_FETCHED, "next");
    drop_told(&told);
    place_close(&place);
}

static aside_status free_the_inbox_inside(aside_fetch *fetch, void *arg)
{
    struct place *place = (struct place *)arg;
    aside_inbox_free(place->inbox);
    place->inbox = NULL;
    return aside_fetch_copy(fetch, "fetched", 7);
}

TEST(the_fetch_that_is_led_may_free_the_inbox)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    place.call.fetch = free_the_inbox_inside;
    place.call.arg = &place;
    place_wait(&place, &told);
    check_told(&told, ASIDE_E_CANCELLED, told.result.outcome);
    CHECK(holds(place.cache, "k", "fetched"));
    place_close(&place);
}

static void free_inbox_of_retained(void *arg)
{
    struct place *place = (struct place *)arg;
    aside_inbox_free(place->inbox);
    place->inbox = NULL;
}

static void keep_released(void *arg)
{
    (void)arg;
}

static aside_status hold_for_place(aside_fetch *fetch, void *arg)
{
    return hold_fetch(fetch, &((struct place *)arg)->held);
}

TEST(the_hook_that_retains_may_free_the_inbox)
{
    struct place place;
    struct told told = {0};
    place_open(&place);
    aside_call call = {ASIDE_CALL, .fetch = hold_for_place, .arg = &place,
                       .arg_retain = free_inbox_of_retained, .arg_release = keep_released};
    call.nonblocking = 1;
    begin_pending(&told, place.cache, "k", &call, place.inbox);
    check_told(&told, ASIDE_E_CANCELLED, told.result.outcome);
    complete(&place.held, "fetched");
    place_close(&place);
}

/* ---- a fetch that ends its thread ---------------------------------------------------------------- */

struct ended {
    struct place place;
    struct told told;
    bool with_inbox;
};

static void *begin_and_end(void *arg)
{
    struct ended *ended = (struct ended *)arg;
    struct place *place = &ended->place;
    (void)begin(&ended->told, place->cache, "k", &place->call,
                ended->with_inbox ? place->inbox : NULL);
    return NULL;
}

/* The call never returns. Its joiners are told, and nothing stays behind but what the inbox has. */
TEST(a_nonblocking_fetch_may_end_its_thread)
{
    for (int with_inbox = 0; with_inbox <= 1; with_inbox++) {
        static struct ended ended;
        memset((void *)&ended, 0, sizeof ended);
        place_open(&ended.place);
        ended.with_inbox = with_inbox;
        ended.place.call.fetch = end_the_thread;
        thread_join(thread_start(begin_and_end, &ended));
        (void)dispatch(ended.place.inbox);
        CHECK(ended.told.times == 0 || ended.told.status == ASIDE_E_ABANDONED);
        check_all_quiet(ended.place.cache);
        CHECK_INT(STAT(ended.place.cache, fetch_abandoned), 1);
        place_close(&ended.place);
    }
}

static aside_status run_inside(void *ctx, aside_job *job)
{
    (void)ctx;
    aside_job_run(job, NULL);
    return ASIDE_OK;
}

TEST(a_job_may_end_the_thread_that_submits_it)
{
    for (int with_inbox = 0; with_inbox <= 1; with_inbox++) {
        static struct ended ended;
        memset((void *)&ended, 0, sizeof ended);
        aside_options options = place_options(&ended.place);
        options.submit = (aside_submit){run_inside, NULL};
        place_open_with(&ended.place, &options);
        ended.with_inbox = with_inbox;
        ended.place.call = (aside_call){ASIDE_CALL, .fetch = end_the_thread};
        thread_join(thread_start(begin_and_end, &ended));
        (void)dispatch(ended.place.inbox);
        check_all_quiet(ended.place.cache);
        place_close(&ended.place);
    }
}

static void *dispatch_and_end(void *arg)
{
    (void)dispatch((aside_inbox *)arg);
    CHECK(!"the fetch has not ended the thread");
    return NULL;
}

/* Of the loop, which has begun it since what came was outdated. Whoever dispatches next is told. */
TEST(a_fetch_may_end_the_thread_of_the_loop_that_begins_it)
{
    for (int submits = 0; submits <= 1; submits++) {
        struct place place;
        struct told led = {0}, later = {0};
        aside_options options = place_options(&place);
        if (submits)
            options.submit = (aside_submit){run_inside, NULL};
        place_open_with(&place, &options);
        place_wait(&place, &led);
        (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
        aside_call call = {ASIDE_CALL, .fetch = end_the_thread};
        call.nonblocking = !submits;
        begin_pending(&later, place.cache, "k", &call, place.inbox);
        complete_tagged(&place.held, "outdated", "tag");
        thread_join(thread_start(dispatch_and_end, place.inbox));
        check_value(&led, ASIDE_OUTCOME_FETCHED, "outdated");
        CHECK(is_readable(place.inbox));
        CHECK_INT(dispatch(place.inbox), 1);
        CHECK_STATUS(later.status, ASIDE_E_ABANDONED);
        check_all_quiet(place.cache);
        place_close(&place);
    }
}

/* ---- who joins a refresh ------------------------------------------------------------------------- */

static void *refresh_here(void *arg)
{
    struct caller *caller = (struct caller *)arg;
    caller->status = aside_refresh(caller->cache, "k", 1, &caller->call);
    return NULL;
}

static void begin_refresh(struct caller *refresher, struct place *place, struct source *source)
{
    source_init(source, "refreshed", true);
    caller_init(refresher, place->cache, "k", source_fetch, source);
    refresher->call.nonblocking = 1;
    refresher->thread = thread_start(refresh_here, refresher);
    gate_wait_arrived(&source->gate, 1);
}

/* On the thread of who asked for it, who waits for nobody. */
TEST(a_loop_that_joins_a_refresh_is_told)
{
    struct place place;
    struct source source;
    struct caller refresher;
    struct told told = {0};
    place_open(&place);
    begin_refresh(&refresher, &place, &source);
    place_wait(&place, &told);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&refresher), ASIDE_OK);
    dispatch_until(place.inbox, 1);
    check_value(&told, ASIDE_OUTCOME_JOINED, "refreshed");
    place_close(&place);
}

TEST(a_plain_callback_that_joins_a_refresh_is_told)
{
    struct place place;
    struct source source;
    struct caller refresher;
    struct told told = {0};
    place_open(&place);
    begin_refresh(&refresher, &place, &source);
    begin_pending(&told, place.cache, "k", &place.call, NULL);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&refresher), ASIDE_OK);
    check_value(&told, ASIDE_OUTCOME_JOINED, "refreshed");
    place_close(&place);
}

TEST(who_waits_for_a_refresh_is_woken)
{
    struct place place;
    struct source source;
    struct caller refresher, caller;
    place_open(&place);
    begin_refresh(&refresher, &place, &source);
    join_flight(&caller, place.cache, "k", &source, NULL, 1);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&refresher), ASIDE_OK);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "refreshed"));
    caller_drop(&caller);
    place_close(&place);
}

/* ---- bad arguments ------------------------------------------------------------------------------- */

static aside_status ask_badly(struct place *place, const void *key, size_t key_len,
                              const aside_call *call, aside_inbox *inbox, aside_done_fn *done)
{
    struct told told = {0};
    aside_result result = ASIDE_RESULT_INIT;
    result.value = (aside_value *)&result;
    result.age_ms = 77;
    aside_status status =
        aside_get_async(place->cache, key, key_len, call, inbox, done, &told, &result);
    CHECK(result.value == NULL);
    CHECK_INT(result.age_ms, 0);
    CHECK_INT(told.times, 0);
    return status;
}

TEST(bad_arguments_are_refused_and_nothing_has_happened)
{
    static char key[ASIDE_MAX_KEY + 1];
    struct place place;
    place_open(&place);
    put(place.cache, "k", "there", 1000); /* not even a hit */
    aside_call call = place.call;
    call.fetch = NULL;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, place.inbox, be_told), ASIDE_E_INVALID);
    call = place.call;
    call.timeout_ms = -2;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, place.inbox, be_told), ASIDE_E_INVALID);
    call = place.call;
    call.freshness.stale_ms = -3;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, place.inbox, be_told), ASIDE_E_INVALID);
    call = place.call;
    call.arg_retain = retain;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, place.inbox, be_told), ASIDE_E_INVALID);
    call = place.call;
    call.struct_size = 0;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, place.inbox, be_told), ASIDE_E_INVALID);
    call = place.call;
    CHECK_STATUS(ask_badly(&place, "k", 1, NULL, place.inbox, be_told), ASIDE_E_INVALID);
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, place.inbox, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(ask_badly(&place, NULL, 1, &call, place.inbox, be_told), ASIDE_E_INVALID);
    CHECK_STATUS(ask_badly(&place, key, sizeof key, &call, place.inbox, be_told), ASIDE_E_INVALID);
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, get_async_error), 9);
    CHECK_INT(STAT(place.cache, hits), 0);
    place_close(&place);
}

TEST(without_an_inbox_there_is_neither_token_nor_deadline)
{
    struct place place;
    place_open(&place);
    put(place.cache, "k", "there", 1000);
    aside_call call = place.call;
    call.timeout_ms = 1;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, NULL, be_told), ASIDE_E_INVALID);
    call.timeout_ms = ASIDE_FOREVER;
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, NULL, be_told), ASIDE_E_INVALID);
    call = place.call;
    call.cancel = token_new();
    CHECK_STATUS(ask_badly(&place, "k", 1, &call, NULL, be_told), ASIDE_E_INVALID);
    aside_cancel_unref(call.cancel);
    CHECK_INT(STAT(place.cache, get_async_error), 3);
    place_close(&place);
}

TEST(without_a_cache_or_a_place_for_the_result_it_is_refused)
{
    struct place place;
    struct told told = {0};
    aside_result result = ASIDE_RESULT_INIT;
    place_open(&place);
    result.value = (aside_value *)&result;
    CHECK_STATUS(aside_get_async(NULL, "k", 1, &place.call, place.inbox, be_told, &told, &result),
                 ASIDE_E_INVALID);
    CHECK(result.value == NULL);
    CHECK_STATUS(
        aside_get_async(place.cache, "k", 1, &place.call, place.inbox, be_told, &told, NULL),
        ASIDE_E_INVALID);
    result.struct_size = 0;
    CHECK_STATUS(
        aside_get_async(place.cache, "k", 1, &place.call, place.inbox, be_told, &told, &result),
        ASIDE_E_INVALID);
    result.struct_size = offsetof(aside_result, outcome) - 1;
    CHECK_STATUS(
        aside_get_async(place.cache, "k", 1, &place.call, place.inbox, be_told, &told, &result),
        ASIDE_E_INVALID);
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, get_async_error), 3);
    place_close(&place);
}

/* Of an older header, that ends after age_ms. */
TEST(a_shorter_result_gets_what_fits)
{
    struct place place;
    struct told told = {0};
    aside_result result = ASIDE_RESULT_INIT;
    place_open(&place);
    for (int turn = 0; turn < 2; turn++) {
        result.struct_size = offsetof(aside_result, ttl_left_ms);
        result.value = (aside_value *)&result;
        result.ttl_left_ms = 77;
        aside_status status = aside_get_async(turn ? place.cache : NULL, "k", 1, &place.call,
                                              place.inbox, be_told, &told, &result);
        CHECK_STATUS(status, turn ? ASIDE_PENDING : ASIDE_E_INVALID);
        CHECK(result.value == NULL);
        CHECK_INT(result.ttl_left_ms, 77);
    }
    complete(&place.held, "fetched");
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(told.result.struct_size, sizeof told.result);
    drop_told(&told);
    place_close(&place);
}

TEST(what_is_no_inbox_is_refused)
{
    struct place place;
    struct told told = {0};
    size_t dispatched = 99;
    int fd = 99;
    place_open(&place);
    void *zeros = zeros_new();
    aside_inbox *none = (aside_inbox *)zeros;
    CHECK_STATUS(aside_inbox_new(NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_inbox_fd(none, &fd), ASIDE_E_INVALID);
    CHECK_INT(fd, -1);
    CHECK_STATUS(aside_inbox_fd(place.inbox, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_inbox_dispatch(none, 0, &dispatched), ASIDE_E_INVALID);
    CHECK_INT(dispatched, 0);
    CHECK_STATUS(aside_inbox_dispatch(NULL, 0, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(begin(&told, place.cache, "k", &place.call, none), ASIDE_E_INVALID);
    aside_inbox_free(none);
    aside_inbox_free(NULL);
    zeros_end(zeros);
    CHECK_INT(place.held.fetches, 0);
    place_close(&place);
}

/* ---- what is counted ----------------------------------------------------------------------------- */

static uint64_t lookups(const aside_stats *s)
{
    return s->hits + s->stale + s->negative_hits + s->error_hits + s->misses + s->misses_led +
           s->misses_joined + s->refused;
}

TEST(every_call_is_one_lookup_and_one_outcome)
{
    struct place place;
    struct told told[8] = {{0}};
    aside_options options = place_options(&place);
    options.max_waiters = 2;
    place_open_with(&place, &options);
    put(place.cache, "hit", "there", 1000);
    CHECK_STATUS(begin(&told[0], place.cache, "hit", &place.call, place.inbox), ASIDE_OK);
    place_wait(&place, &told[1]);
    place_wait(&place, &told[2]);
    (void)aside_delete_tag(place.cache, ASIDE_STR("tag"));
    place.call.cancel = token_new();
    place_wait(&place, &told[3]);
    CHECK_STATUS(place_begin(&place, &told[4]), ASIDE_E_BUSY);
    complete_tagged(&place.held, "outdated", "tag");
    CHECK_INT(dispatch(place.inbox), 2);
    aside_cancel_fire(place.call.cancel);
    CHECK_INT(dispatch(place.inbox), 1);
    complete(&place.held, "late");
    aside_stats s = test_stats(place.cache);
    CHECK_INT(lookups(&s), 5);
    CHECK_INT(s.get_async_ok, 3);
    CHECK_INT(s.get_async_error, 2);
    CHECK_INT(s.get_with_fetch_ok + s.get_with_fetch_error, 0);
    for (int i = 0; i < 8; i++)
        drop_told(&told[i]);
    aside_cancel_unref(place.call.cancel);
    place_close(&place);
}

/* ---- without a record, without memory ------------------------------------------------------------ */

static void *begin_without_record(void *arg)
{
    struct place *place = (struct place *)arg;
    struct told told = {0};
    process_fail_alloc(1, true);
    CHECK_STATUS(begin(&told, place->cache, "hit", &place->call, place->inbox), ASIDE_OK);
    CHECK_INT(told.result.outcome, ASIDE_OUTCOME_HIT);
    drop_told(&told);
    CHECK_STATUS(place_begin(place, &told), ASIDE_E_NOMEM);
    process_fail_alloc(0, false);
    return NULL;
}

/* The records that there are belong to this thread, so that another needs memory for its own. */
static void take_the_record(struct place *place)
{
    CHECK_STATUS(look(place->cache, "none"), ASIDE_MISS);
}

TEST(a_thread_without_a_record_has_hits_and_begins_nothing)
{
    struct place place;
    place_open(&place);
    put(place.cache, "hit", "there", 1000);
    take_the_record(&place);
    thread_join(thread_start(begin_without_record, &place));
    CHECK_INT(place.held.fetches, 0);
    CHECK_INT(STAT(place.cache, refused), 1);
    CHECK_INT(STAT(place.cache, get_async_error), 1);
    place_close(&place);
}

static void *dispatch_without_record(void *arg)
{
    process_fail_alloc(1, true);
    size_t dispatched = dispatch(((struct place *)arg)->inbox);
    process_fail_alloc(0, false);
    CHECK_INT(dispatched, 2);
    return NULL;
}

TEST(a_thread_without_a_record_may_dispatch)
{
    struct place place;
    struct told told = {0}, leaves = {0}, stays = {0};
    place_open(&place);
    place_wait(&place, &told);
    complete(&place.held, "fetched");
    begin_pending(&stays, place.cache, "other", &place.call, NULL);
    place.call.cancel = token_new();
    begin_pending(&leaves, place.cache, "other", &place.call, place.inbox);
    aside_cancel_fire(place.call.cancel);
    aside_cancel_unref(place.call.cancel);
    thread_join(thread_start(dispatch_without_record, &place));
    check_value(&told, ASIDE_OUTCOME_FETCHED, "fetched");
    check_told(&leaves, ASIDE_E_CANCELLED, ASIDE_OUTCOME_JOINED);
    complete(&place.held, "other");
    drop_told(&stays);
    place_close(&place);
}

static void *complete_without_record(void *arg)
{
    struct place *place = (struct place *)arg;
    process_fail_alloc(1, true);
    aside_fetch *fetch = held_next(&place->held);
    CHECK_STATUS(aside_fetch_complete(fetch, aside_fetch_not_found(fetch)), ASIDE_OK);
    aside_fetch_unref(fetch);
    process_fail_alloc(0, false);
    return NULL;
}

TEST(a_thread_without_a_record_may_complete)
{
    struct place place;
    struct told told = {0}, plain = {0};
    place_open(&place);
    place_wait(&place, &told);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    thread_join(thread_start(complete_without_record, &place));
    check_told(&plain, ASIDE_NOT_FOUND, ASIDE_OUTCOME_JOINED);
    CHECK_INT(dispatch(place.inbox), 1);
    check_told(&told, ASIDE_NOT_FOUND, ASIDE_OUTCOME_FETCHED);
    place_close(&place);
}

/* What a call may say when memory is short; who was told to wait is told, and knows. */
static void check_short(struct told *told, aside_status status)
{
    if (status != ASIDE_PENDING)
        CHECK(status == ASIDE_OK || status == ASIDE_E_NOMEM || status == ASIDE_E_BUSY);
    CHECK_INT(told->times, status == ASIDE_PENDING);
    CHECK(told->status == ASIDE_OK || told->status == ASIDE_E_NOMEM ||
          told->status == ASIDE_E_BUSY || told->status == ASIDE_E_CANCELLED);
    drop_told(told);
}

static aside_status answer_or_fail(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "v", 1);
}

static void complete_if_memory_allows(struct held *held)
{
    aside_fetch *fetch = held_next(held);
    aside_status status = aside_fetch_copy(fetch, "v", 1);
    CHECK_STATUS(aside_fetch_complete(fetch, status), ASIDE_OK);
    aside_fetch_unref(fetch);
}

/* Leads, joins and leaves, by inbox and without, on a worker and here. */
static void loop_while_memory_is_short(struct place *place)
{
    static struct told told[6];
    aside_status status[6];
    memset((void *)told, 0, sizeof told);
    status[0] = place_begin(place, &told[0]);
    status[1] = begin(&told[1], place->cache, "k", &place->call, NULL);
    place->call.timeout_ms = 60000;
    status[2] = place_begin(place, &told[2]);
    aside_call call = {ASIDE_CALL, .fetch = answer_or_fail};
    status[3] = begin(&told[3], place->cache, "worker", &call, place->inbox);
    call.nonblocking = 1;
    status[4] = begin(&told[4], place->cache, "here", &call, place->inbox);
    while (place->held.completed < atomic_load(&place->held.fetches))
        complete_if_memory_allows(&place->held);
    if (status[3] == ASIDE_PENDING)
        WAIT_UNTIL(is_readable(place->inbox) && STAT(place->cache, flights_now) == 0);
    (void)dispatch(place->inbox);
    status[5] = begin(&told[5], place->cache, "freed", &place->call, place->inbox);
    aside_inbox_free(place->inbox);
    while (place->held.completed < atomic_load(&place->held.fetches))
        aside_fetch_unref(held_next(&place->held));
    for (int i = 0; i < 6; i++)
        check_short(&told[i], status[i]);
}

static int64_t run_short(bool own_allocator, int64_t nth, bool for_ever)
{
    struct place place;
    aside_options options = place_options(&place);
    if (!own_allocator)
        memset(&options.alloc, 0, sizeof options.alloc);
    place_open_with(&place, &options);
    CHECK_STATUS(look(place.cache, "none"), ASIDE_MISS);
    int64_t before = atomic_load(&place.ledger.calls);
    if (own_allocator) {
        place.ledger.fail_for_ever = for_ever;
        place.ledger.fail_at = nth;
    } else {
        process_fail_alloc(nth, for_ever);
    }
    loop_while_memory_is_short(&place);
    int64_t calls =
        own_allocator ? atomic_load(&place.ledger.calls) - before : process_alloc_calls();
    place.ledger.fail_for_ever = 0;
    place.ledger.fail_at = 0;
    process_fail_alloc(0, false);
    place.inbox = NULL;
    place_close(&place);
    return calls;
}

TEST(every_allocation_may_fail)
{
    for (int kind = 0; kind < 4; kind++) {
        int64_t nth = 1;
        while (run_short(kind % 2, nth, kind / 2) >= nth)
            nth++;
        printf("allocations of %s, %s: %d points\n", kind % 2 ? "the cache" : "all",
               kind / 2 ? "from then on" : "once", (int)nth - 1);
        CHECK(nth > 2);
    }
}

TEST(a_stale_value_answers_for_memory_that_an_inbox_lacks)
{
    struct place place;
    struct told told = {0};
    place_open_stale(&place, (aside_freshness){.stale_if_error_ms = 1000});
    for (int64_t nth = 1;; nth++) {
        aside_inbox_free(place.inbox);
        place.inbox = inbox_open(); /* so that it needs a block for its first alarm */
        process_fail_alloc(nth, false);
        aside_status status = place_begin(&place, &told);
        bool failed = process_alloc_calls() >= nth;
        process_fail_alloc(0, false);
        if (!failed) {
            CHECK_STATUS(status, ASIDE_PENDING);
            break;
        }
        CHECK_STATUS(status, ASIDE_OK);
        CHECK_INT(told.result.stale_cause, ASIDE_STALE_ERROR);
        CHECK_STATUS(told.result.fetch_status, ASIDE_E_NOMEM);
        drop_told(&told);
        CHECK_INT(STAT(place.cache, refused), nth);
    }
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 1);
    drop_told(&told);
    place_close(&place);
}
