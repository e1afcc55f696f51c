/*
 * fork_async.c -- P4 of event loops: what an aside_get_async() waits for stays in the parent, who
 * does not notice the fork. In the child an inbox of before it says ASIDE_E_FORKED, nobody is called
 * for what was asked before, and inboxes that are made there work.
 */
#include "children.h"
#include "contract/loops.h"
#include "sanitizers.h"

SEARCH_NO_DEADLOCKS;

static void ask_in_the_child(struct place *place)
{
    struct told told = {0};
    size_t dispatched = 99;
    int fd = 99;
    CHECK_STATUS(place_begin(place, &told), ASIDE_E_FORKED);
    CHECK_STATUS(begin(&told, place->cache, "hit", &place->call, place->inbox), ASIDE_E_FORKED);
    CHECK_STATUS(aside_inbox_dispatch(place->inbox, 0, &dispatched), ASIDE_E_FORKED);
    CHECK_INT(dispatched, 0);
    CHECK_STATUS(aside_inbox_fd(place->inbox, &fd), ASIDE_E_FORKED);
    CHECK_INT(fd, -1);
    CHECK_INT(STAT(place->cache, waiters_now), 0);
    CHECK_INT(STAT(place->cache, flights_now), 0);
    aside_inbox_free(place->inbox);
}

/* As in any other process. */
static void use_a_new_inbox(struct place *place)
{
    struct told told[3] = {{0}};
    struct held held;
    memset((void *)&held, 0, sizeof held);
    place->inbox = inbox_open();
    place->call.arg = &held;
    place_wait(place, &told[0]);
    begin_pending(&told[1], place->cache, "k", &place->call, NULL);
    place->call.timeout_ms = 20;
    begin_pending(&told[2], place->cache, "other", &place->call, place->inbox);
    complete(&held, "in the child");
    dispatch_until(place->inbox, 2);
    check_value(&told[0], ASIDE_OUTCOME_FETCHED, "in the child");
    check_value(&told[1], ASIDE_OUTCOME_JOINED, "in the child");
    CHECK_STATUS(told[2].status, ASIDE_E_TIMEOUT);
    aside_fetch_unref(held_next(&held));
    aside_inbox_free(place->inbox);
}

/* A result that has arrived, a call that waits, one that waits by his token, and a plain callback. */
TEST(the_child_is_told_nothing_and_the_parent_everything)
{
    static struct place place;
    static struct told ready, waits, leaves, plain;
    place_open(&place);
    put(place.cache, "hit", "there", ASIDE_FOREVER);
    begin_pending(&ready, place.cache, "ready", &place.call, place.inbox);
    complete(&place.held, "ready");
    place_wait(&place, &waits);
    begin_pending(&plain, place.cache, "k", &place.call, NULL);
    aside_cancel *token = place.call.cancel = token_new();
    place_wait(&place, &leaves);
    place.call.cancel = NULL;
    struct child child = child_fork();
    if (child.pid == 0) {
        aside_cancel_fire(token);
        ask_in_the_child(&place);
        use_a_new_inbox(&place);
        CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
        aside_unref(place.cache);
        CHECK(ready.times + waits.times + leaves.times + plain.times == 0);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    aside_cancel_fire(token);
    aside_cancel_unref(token);
    CHECK_INT(dispatch(place.inbox), 2);
    check_value(&ready, ASIDE_OUTCOME_FETCHED, "ready");
    CHECK_STATUS(leaves.status, ASIDE_E_CANCELLED);
    complete(&place.held, "in the parent");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&waits, ASIDE_OUTCOME_FETCHED, "in the parent");
    check_value(&plain, ASIDE_OUTCOME_JOINED, "in the parent");
    place_close(&place);
}

TEST(a_call_with_an_inbox_of_before_the_fork_is_counted)
{
    static struct place place;
    static struct told told;
    place_open(&place);
    struct child child = child_fork();
    if (child.pid == 0) {
        CHECK_STATUS(place_begin(&place, &told), ASIDE_E_FORKED);
        CHECK_INT(STAT(place.cache, get_async_error), 1);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    place_close(&place);
}

/* ---- who forks in the middle of it --------------------------------------------------------------- */

/* What forks, where and how. */
struct forking {
    struct place place;
    struct told told;
    bool completes; /* before it forks */
    struct child child;
};

static struct forking forking;

static void forking_open(void)
{
    memset((void *)&forking, 0, sizeof forking);
    place_open(&forking.place);
}

/* In the parent. */
static void forking_close(void)
{
    child_end(&forking.child, CHILD_DONE);
    place_close(&forking.place);
}

static aside_status fork_in_the_fetch(aside_fetch *fetch, void *arg)
{
    (void)arg;
    aside_fetch *mine = aside_fetch_ref(fetch);
    if (forking.completes) {
        CHECK_STATUS(aside_fetch_copy(mine, "fetched", 7), ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(mine, ASIDE_OK), ASIDE_OK);
    }
    forking.child = child_fork();
    if (!forking.completes && forking.child.pid != 0) {
        CHECK_STATUS(aside_fetch_copy(mine, "fetched", 7), ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(mine, ASIDE_OK), ASIDE_OK);
    }
    aside_fetch_unref(mine);
    return ASIDE_PENDING;
}

static void check_forked_fetch(bool completes, bool with_inbox)
{
    forking_open();
    struct place *place = &forking.place;
    aside_inbox *inbox = with_inbox ? place->inbox : NULL;
    forking.completes = completes;
    place->call.fetch = fork_in_the_fetch;
    aside_status status = begin(&forking.told, place->cache, "k", &place->call, inbox);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        CHECK_INT(forking.told.times, 0);
        CHECK_INT(forking.told.result.outcome, ASIDE_OUTCOME_NONE);
        ask_in_the_child(place);
        place->call = call_held(&place->held);
        (void)aside_delete(place->cache, ASIDE_STR("k"));
        use_a_new_inbox(place);
        child_done();
    }
    CHECK_STATUS(status, ASIDE_PENDING);
    CHECK_INT(dispatch(place->inbox), with_inbox);
    check_value(&forking.told, ASIDE_OUTCOME_FETCHED, "fetched");
    forking_close();
}

TEST(a_fetch_that_forks_is_told_in_the_parent_alone)
{
    check_forked_fetch(false, true);
    check_forked_fetch(true, true);
}

TEST(a_fetch_that_forks_calls_back_in_the_parent_alone)
{
    check_forked_fetch(false, false);
    check_forked_fetch(true, false);
}

static void fork_when_told(struct told *told)
{
    (void)told;
    forking.child = child_fork();
}

TEST(a_callback_that_forks_is_the_last_one_in_the_child)
{
    static struct told second;
    forking_open();
    struct place *place = &forking.place;
    forking.told.then = fork_when_told;
    place_wait(place, &forking.told);
    place_wait(place, &second);
    complete(&place->held, "fetched");
    size_t dispatched = 99;
    aside_status status = aside_inbox_dispatch(place->inbox, 0, &dispatched);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        CHECK_INT(second.times, 0);
        ask_in_the_child(place);
        CHECK_INT(second.times, 0);
        child_done();
    }
    CHECK_STATUS(status, ASIDE_OK);
    CHECK_INT(dispatched, 2);
    drop_told(&forking.told);
    drop_told(&second);
    forking_close();
}

TEST(a_plain_callback_that_forks_is_the_last_one_in_the_child)
{
    static struct told second;
    forking_open();
    struct place *place = &forking.place;
    forking.told.then = fork_when_told;
    begin_pending(&forking.told, place->cache, "k", &place->call, NULL);
    begin_pending(&second, place->cache, "k", &place->call, NULL);
    aside_fetch *fetch = held_next(&place->held);
    (void)aside_fetch_complete(fetch, ASIDE_NOT_FOUND);
    if (in_child) {
        CHECK_INT(second.times, 0);
        ask_in_the_child(place);
        use_a_new_inbox(place);
        child_done();
    }
    aside_fetch_unref(fetch);
    CHECK_STATUS(second.status, ASIDE_NOT_FOUND);
    forking_close();
}

static void fork_to_retain(void *arg)
{
    (void)arg;
    forking.child = child_fork();
}

static void release_nothing(void *arg)
{
    (void)arg;
}

static aside_status hold_for_all(aside_fetch *fetch, void *arg)
{
    return hold_fetch(fetch, &((struct forking *)arg)->place.held);
}

/* Of who leads, and of who joins. */
static void check_forked_hook(bool joins)
{
    static struct told led;
    forking_open();
    struct place *place = &forking.place;
    memset((void *)&led, 0, sizeof led);
    if (joins)
        place_wait(place, &led);
    aside_call call = {ASIDE_CALL, .fetch = hold_for_all, .arg = &forking,
                       .arg_retain = fork_to_retain, .arg_release = release_nothing};
    call.nonblocking = 1;
    aside_status status = begin(&forking.told, place->cache, "k", &call, place->inbox);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        ask_in_the_child(place);
        use_a_new_inbox(place);
        CHECK_INT(forking.told.times, 0);
        child_done();
    }
    CHECK_STATUS(status, ASIDE_PENDING);
    complete(&place->held, "fetched");
    CHECK_INT(dispatch(place->inbox), 1 + joins);
    drop_told(&led);
    drop_told(&forking.told);
    forking_close();
}

TEST(a_hook_that_forks_while_it_retains_the_argument)
{
    check_forked_hook(false);
    check_forked_hook(true);
}

/* The fetch that the loop begins because the first result was outdated. */
TEST(a_loop_that_forks_in_a_fetch_of_its_own_goes_on_in_the_parent_alone)
{
    static struct told led;
    forking_open();
    struct place *place = &forking.place;
    place_wait(place, &led);
    CHECK_STATUS(aside_delete_tag(place->cache, ASIDE_STR("tag")), ASIDE_MISS);
    aside_call call = {ASIDE_CALL, .fetch = fork_in_the_fetch};
    call.nonblocking = 1;
    begin_pending(&forking.told, place->cache, "k", &call, place->inbox);
    complete_tagged(&place->held, "outdated", "tag");
    size_t dispatched = 99;
    aside_status status = aside_inbox_dispatch(place->inbox, 0, &dispatched);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        CHECK_INT(forking.told.times, 0);
        ask_in_the_child(place);
        child_done();
    }
    CHECK_STATUS(status, ASIDE_OK);
    if (!forking.told.times)
        CHECK_INT(dispatch(place->inbox), 1);
    check_value(&forking.told, ASIDE_OUTCOME_FETCHED, "fetched");
    drop_told(&led);
    forking_close();
}

/* What a joiner has retained himself is released before he is told. */
TEST(a_hook_that_forks_while_a_loop_releases_the_argument)
{
    static struct told led;
    forking_open();
    struct place *place = &forking.place;
    memset((void *)&led, 0, sizeof led);
    place_wait(place, &led);
    aside_call call = {ASIDE_CALL, .fetch = hold_for_all, .arg = &forking,
                       .arg_retain = release_nothing, .arg_release = fork_to_retain};
    call.nonblocking = 1;
    begin_pending(&forking.told, place->cache, "k", &call, place->inbox);
    complete(&place->held, "fetched");
    size_t dispatched = 99;
    aside_status status = aside_inbox_dispatch(place->inbox, 0, &dispatched);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        CHECK_INT(forking.told.times, 0);
        ask_in_the_child(place);
        (void)aside_delete(place->cache, ASIDE_STR("k"));
        place->call = call_held(&place->held);
        use_a_new_inbox(place);
        child_done();
    }
    CHECK_STATUS(status, ASIDE_OK);
    CHECK_INT(dispatched, 2);
    check_value(&forking.told, ASIDE_OUTCOME_JOINED, "fetched");
    drop_told(&led);
    forking_close();
}

/* ---- who forks where a call begins anew ---------------------------------------------------------- */

static int retained;

static void fork_to_retain_again(void *arg)
{
    if (++retained == 2)
        fork_to_retain(arg);
}

static void check_again_in_child(struct place *place)
{
    CHECK_INT(forking.told.times, 0);
    ask_in_the_child(place);
    place->call = call_held(&place->held);
    (void)aside_delete(place->cache, ASIDE_STR("k"));
    use_a_new_inbox(place);
    CHECK_INT(forking.told.times, 0);
    child_done();
}

/* Joins a flight whose result is outdated for it, so that it leads another. */
static void begin_outdated(struct told *led, const aside_call *call, aside_inbox *inbox)
{
    struct place *place = &forking.place;
    memset((void *)led, 0, sizeof *led);
    place_wait(place, led);
    CHECK_STATUS(aside_delete_tag(place->cache, ASIDE_STR("tag")), ASIDE_MISS);
    begin_pending(&forking.told, place->cache, "k", call, inbox);
    aside_fetch *fetch = held_next(&place->held);
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("tag")), ASIDE_OK);
    CHECK_STATUS(aside_fetch_copy(fetch, "outdated", 8), ASIDE_OK);
    (void)aside_fetch_complete(fetch, ASIDE_OK); /* a plain callback goes on in here */
    if (in_child)
        check_again_in_child(place);
    aside_fetch_unref(fetch);
}

static void check_fork_to_retain_again(bool with_inbox)
{
    static struct told led;
    forking_open();
    struct place *place = &forking.place;
    retained = 0;
    aside_call call = {ASIDE_CALL, .fetch = hold_for_all, .arg = &forking,
                       .arg_retain = fork_to_retain_again, .arg_release = release_nothing};
    call.nonblocking = 1;
    begin_outdated(&led, &call, with_inbox ? place->inbox : NULL);
    size_t dispatched = 99;
    aside_status status = aside_inbox_dispatch(place->inbox, 0, &dispatched);
    if (in_child) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        check_again_in_child(place);
    }
    CHECK_STATUS(status, ASIDE_OK);
    CHECK_INT(dispatched, 1);
    complete(&place->held, "fetched");
    CHECK_INT(dispatch(place->inbox), with_inbox);
    check_value(&forking.told, ASIDE_OUTCOME_FETCHED, "fetched");
    drop_told(&led);
    forking_close();
}

TEST(a_hook_that_forks_while_a_loop_leads_anew)
{
    check_fork_to_retain_again(true);
}

TEST(a_hook_that_forks_while_a_plain_callback_leads_anew)
{
    check_fork_to_retain_again(false);
}

TEST(a_plain_callback_that_forks_in_a_fetch_of_its_own_is_told_in_the_parent_alone)
{
    for (int completes = 0; completes <= 1; completes++) {
        static struct told led;
        forking_open();
        forking.completes = completes;
        aside_call call = {ASIDE_CALL, .fetch = fork_in_the_fetch};
        call.nonblocking = 1;
        begin_outdated(&led, &call, NULL);
        check_value(&forking.told, ASIDE_OUTCOME_FETCHED, "fetched");
        CHECK_INT(dispatch(forking.place.inbox), 1);
        drop_told(&led);
        forking_close();
    }
}
