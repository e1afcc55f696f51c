/*
 * group.c -- flight/group: each transition of a flight, and which flight the next caller meets (F1, F3,
 * F8, W1).
 */
#include "flights.h"

static aside_status never(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    (void)arg;
    return ASIDE_E_INVALID;
}

static struct flight *lead(const char *text)
{
    const aside_call call = {ASIDE_CALL, .fetch = never};
    return lead_call(text, &call);
}

static struct flight *lead_stopping(const char *text)
{
    const aside_call call = {ASIDE_CALL, .fetch = never, .stop_when_abandoned = 1};
    return lead_call(text, &call);
}

static bool leave_as(struct flight *flight, bool is_leader)
{
    lock_take(&lock);
    bool left = group_leave(flight, is_leader);
    lock_release(&lock);
    return left;
}

static bool leave(struct flight *flight)
{
    return leave_as(flight, false);
}

static void fence(const char *text)
{
    struct flight_key key = key_of(text);
    lock_take(&lock);
    group_fence(&group, &key);
    lock_release(&lock);
}

static bool supersede(struct flight *flight)
{
    lock_take(&lock);
    bool superseded = group_supersede(flight);
    lock_release(&lock);
    return superseded;
}

/* The leader's reference and the fetch's. */
static void unref_both(struct flight *flight)
{
    flight_unref(flight);
    flight_unref(flight);
}

/* ---- making -------------------------------------------------------------------------------------- */

TEST(a_flight_keeps_key_and_argument_of_its_own)
{
    char key[] = "key", arg[] = "argument";
    begin();
    aside_call call = {ASIDE_CALL, .fetch = never, .arg = arg, .arg_size = sizeof arg, .ttl_ms = 5};
    struct flight *flight = make_for(key, &call);
    memset(key, 'x', 3);
    memset(arg, 'x', 3);
    CHECK(flight->key_len == 3 && memcmp(flight->key, "key", 3) == 0);
    CHECK(strcmp(flight->arg, "argument") == 0);
    CHECK_INT((uintptr_t)flight->arg % 16, 0);
    CHECK_INT(flight->answer.ttl_ms, 5);
    CHECK_INT(flight->waiters, 1);
    CHECK_INT(flight->deadline_ns, STARTED + AGE_MS * INT64_C(1000000));
    flight_discard(flight);
    CHECK_INT(released, 0); /* nobody has seen it */
    end();
}

TEST(a_size_that_cannot_be_said_makes_no_flight)
{
    char arg[8] = "";
    begin();
    aside_call call = {ASIDE_CALL, .fetch = never, .arg = arg, .arg_size = SIZE_MAX};
    CHECK_INT(flight_size(3, &call), 0);
    CHECK(make_for("key", &call) == NULL);
    call.arg_size = SIZE_MAX - sizeof(struct flight);
    CHECK_INT(flight_size(3, &call), 0);
    call.arg_size = 0;
    CHECK(flight_size(ASIDE_MAX_KEY, &call) >= sizeof(struct flight) + ASIDE_MAX_KEY);
    ground.ledger.fail_at = 1;
    CHECK(make_for("key", &call) == NULL);
    end();
}

static _Atomic int retained, given_back;

static void retain(void *arg)
{
    (void)arg;
    retained++;
}

static void give_back(void *arg)
{
    (void)arg;
    given_back++;
}

TEST(an_argument_is_retained_once_and_released_with_the_flight)
{
    begin();
    aside_call call = {ASIDE_CALL, .fetch = never, .arg_retain = retain, .arg_release = give_back};
    struct flight *unseen = make_for("key", &call);
    flight_discard(unseen);
    CHECK_INT(retained, given_back);
    struct flight *flight = lead_call("key", &call);
    flight_keep_argument(flight, &call);
    int before = retained;
    settle(flight, ASIDE_NOT_FOUND);
    flight_unref(flight);
    CHECK_INT(given_back, before - 1);
    flight_unref(flight);
    CHECK_INT(given_back, before);
    end();
}

/* ---- leading and joining ------------------------------------------------------------------------- */

TEST(who_comes_while_a_flight_is_current_joins_it)
{
    begin();
    CHECK(join("key") == NULL);
    struct flight *flight = lead("key");
    CHECK(join("other") == NULL);
    CHECK(join("ke") == NULL);
    CHECK(join("") == NULL);
    for (uint32_t i = 2; i < 6; i++) {
        CHECK(join("key") == flight);
        CHECK_INT(flight->waiters, i);
        CHECK_INT(flight->refs, i + 1);
    }
    settle(flight, ASIDE_NOT_FOUND);
    CHECK(join("key") == NULL);
    CHECK_INT(released, 0);
    size_t charge = flight->charge;
    for (int i = 0; i < 6; i++)
        flight_unref(flight);
    CHECK_INT(released, 1);
    CHECK_INT(released_bytes, charge);
    end();
}

TEST(the_empty_key_has_flights_as_well)
{
    begin();
    struct flight *flight = lead("");
    CHECK(join("") == flight);
    CHECK(join("x") == NULL);
    flight_unref(flight);
    settle(flight, ASIDE_NOT_FOUND);
    unref_both(flight);
    end();
}

TEST(a_flight_that_as_many_have_joined_as_may_is_full)
{
    begin();
    struct flight *flight = lead("key"), *old = NULL;
    bool full = false;
    CHECK(join_at("key", STARTED, 2, &full, &old) == flight); /* the leader has not joined */
    CHECK(join_at("key", STARTED, 2, &full, &old) == flight);
    CHECK(!full);
    CHECK(join_at("key", STARTED, 2, &full, &old) == NULL);
    CHECK(full && old == NULL);
    CHECK_INT(flight->waiters, 3);
    CHECK(leave_as(flight, true)); /* which makes no room for one who joins */
    CHECK(join_at("key", STARTED, 2, &full, &old) == NULL);
    CHECK(full);
    CHECK(leave(flight));
    CHECK(join_at("key", STARTED, 2, &full, &old) == flight);
    CHECK(!full);
    settle(flight, ASIDE_NOT_FOUND);
    for (int i = 0; i < 3; i++)
        flight_unref(flight);
    unref_both(flight);
    end();
}

TEST(the_only_flight_is_found_before_and_after_others_came)
{
    begin();
    struct flight *first = lead("first"), *second = lead("second"), *joined;
    CHECK((joined = join("first")) == first);
    flight_unref(joined);
    CHECK((joined = join("second")) == second);
    flight_unref(joined);
    CHECK(settle(first, ASIDE_OK));
    CHECK(join("first") == NULL);
    CHECK((joined = join("second")) == second); /* in the table, which has no only one now */
    flight_unref(joined);
    struct flight *third = lead("third");
    fence("second");
    CHECK(join("second") == NULL && group.only == third);
    fence("third");
    CHECK(group.only == NULL && table_is_empty(&group.current));
    CHECK(settle(second, ASIDE_OK) && settle(third, ASIDE_OK));
    unref_both(first);
    unref_both(second);
    unref_both(third);
    end();
}

static struct flight *join_with_hash(const char *text, uint64_t hash)
{
    struct flight_key key = {hash, text, strlen(text)};
    struct flight *old = NULL;
    bool full = false;
    lock_take(&lock);
    struct flight *flight = group_join(&group, &key, STARTED, 0, &full, &old);
    lock_release(&lock);
    CHECK(old == NULL && !full);
    return flight;
}

static struct flight *lead_with_hash(const char *text, uint64_t hash)
{
    const aside_call call = {ASIDE_CALL, .fetch = never};
    struct flight *flight = make_for(text, &call);
    flight->hash = hash;
    lock_take(&lock);
    CHECK(group_lead(&group, flight));
    lock_release(&lock);
    return flight;
}

TEST(keys_that_share_a_hash_have_flights_of_their_own)
{
    static const char *const keys[] = {"key", "kez", "ke",
                                       ""}; /* one beside the table, the others in it */
    struct flight *flights[COUNT_OF(keys)];
    begin();
    for (size_t led = 0; led < COUNT_OF(keys); led++) {
        for (size_t i = led; i < COUNT_OF(keys); i++)
            CHECK(join_with_hash(keys[i], 42) == NULL);
        flights[led] = lead_with_hash(keys[led], 42);
    }
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        CHECK(join_with_hash(keys[i], 42) == flights[i]);
        flight_unref(flights[i]);
    }
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        CHECK(settle(flights[i], ASIDE_NOT_FOUND));
        unref_both(flights[i]);
    }
    end();
}

TEST(no_memory_leads_no_flight)
{
    begin();
    const aside_call call = {ASIDE_CALL, .fetch = never};
    struct flight *first = lead("first"); /* the only one needs no table */
    for (int nth = 1; nth <= 3; nth++) {
        struct flight *flight = make_for("key", &call);
        ground.ledger.fail_at = nth;
        lock_take(&lock);
        CHECK(!group_lead(&group, flight));
        lock_release(&lock);
        ground.ledger.fail_at = 0;
        CHECK(group.flights == first && !first->next);
        flight_discard(flight);
        CHECK(join("key") == NULL);
    }
    CHECK_INT(released, 0);
    CHECK(settle(first, ASIDE_OK));
    unref_both(first);
    end();
}

/* ---- settling ------------------------------------------------------------------------------------ */

TEST(the_first_verdict_stays)
{
    begin();
    struct flight *flight = lead("key");
    CHECK(!flight_is_settled(flight));
    CHECK(settle(flight, ASIDE_NOT_FOUND));
    CHECK(flight_is_settled(flight));
    CHECK(!settle(flight, ASIDE_E_CLOSED));
    CHECK(!supersede(flight));
    CHECK_STATUS(flight->verdict, ASIDE_NOT_FOUND);
    unref_both(flight);
    end();
}

TEST(shared_is_whether_two_were_attached_at_that_moment)
{
    begin();
    struct flight *alone = lead("a"), *left = lead("b"), *both = lead("c"), *nobody = lead("d");
    CHECK(join("b") == left && join("c") == both);
    CHECK(leave(left));
    CHECK(leave_as(nobody, true));
    settle(alone, ASIDE_OK);
    settle(left, ASIDE_OK);
    settle(both, ASIDE_OK);
    settle(nobody, ASIDE_OK);
    CHECK(!alone->shared && !left->shared && both->shared && !nobody->shared);
    flight_unref(left);
    flight_unref(both);
    unref_both(alone);
    unref_both(left);
    unref_both(both);
    unref_both(nobody);
    end();
}

TEST(who_leaves_too_late_has_the_verdict)
{
    begin();
    struct flight *flight = lead("key");
    CHECK(join("key") == flight);
    CHECK(leave(flight));
    settle(flight, ASIDE_NOT_FOUND);
    CHECK(!leave(flight));
    CHECK_INT(flight->waiters, 1);
    flight_unref(flight);
    unref_both(flight);
    end();
}

TEST(flights_leave_the_list_in_any_order)
{
    struct flight *flights[20];
    char key[16];
    begin();
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 20; i++) {
            snprintf(key, sizeof key, "%d", i);
            flights[i] = lead(key);
        }
        for (int left = 20; left > 0; left--) {
            size_t i = random_below((size_t)left);
            settle(flights[i], ASIDE_NOT_FOUND);
            unref_both(flights[i]);
            flights[i] = flights[left - 1];
            int listed = 0;
            for (struct flight *f = group.flights; f; f = f->next)
                listed++;
            CHECK_INT(listed, left - 1);
        }
    }
    end();
}

/* ---- fences -------------------------------------------------------------------------------------- */

TEST(a_fence_detaches_and_forbids_to_store)
{
    begin();
    struct flight *flight = lead("key"), *other = lead("other");
    CHECK(group_may_store(flight));
    fence("key");
    fence("key");
    fence("nothing");
    CHECK(!group_may_store(flight));
    CHECK(group_may_store(other));
    CHECK(!flight_is_settled(flight)); /* who joined before still gets its result */
    CHECK(join("key") == NULL);
    CHECK(settle(flight, ASIDE_OK));
    settle(other, ASIDE_OK);
    unref_both(flight);
    unref_both(other);
    end();
}

TEST(a_flight_that_was_detached_does_not_remove_a_newer_one)
{
    begin();
    struct flight *old = lead("key");
    fence("key");
    struct flight *newer = lead("key");
    CHECK(join("key") == newer);
    flight_unref(newer);
    CHECK(settle(old, ASIDE_OK));
    unref_both(old);
    CHECK(join("key") == newer);
    CHECK(group_may_store(newer));
    fence("key");
    struct flight *newest = lead("key");
    CHECK(supersede(newer));
    CHECK(join("key") == newest);
    settle(newest, ASIDE_OK);
    flight_unref(newest);
    flight_unref(newer);
    unref_both(newer);
    unref_both(newest);
    end();
}

TEST(a_write_of_all_keys_fences_every_flight)
{
    struct flight *flights[10];
    char key[16];
    begin();
    for (int i = 0; i < 10; i++) {
        snprintf(key, sizeof key, "%d", i);
        flights[i] = lead(key);
    }
    lock_take(&lock);
    group_fence_all(&group);
    lock_release(&lock);
    struct flight *after = lead("after");
    CHECK(group_may_store(after));
    for (int i = 0; i < 10; i++) {
        CHECK(!group_may_store(flights[i]));
        snprintf(key, sizeof key, "%d", i);
        if (i % 2) { /* met by a newcomer, who leads another one, or never met again */
            CHECK(join(key) == NULL);
            struct flight *newer = lead(key);
            CHECK(group_may_store(newer));
            CHECK(settle(flights[i], ASIDE_OK));
            CHECK(join(key) == newer);
            settle(newer, ASIDE_OK);
            flight_unref(newer);
            unref_both(newer);
        } else {
            CHECK(settle(flights[i], ASIDE_OK));
        }
        unref_both(flights[i]);
    }
    settle(after, ASIDE_OK);
    unref_both(after);
    end();
}

/* ---- age ----------------------------------------------------------------------------------------- */

TEST(a_newcomer_supersedes_a_flight_at_its_age_and_not_before)
{
    begin();
    struct flight *flight = lead("key"), *old = NULL;
    bool full = false;
    CHECK(join_at("key", flight->deadline_ns - 1, 0, &full, &old) == flight);
    CHECK(old == NULL);
    flight_unref(flight);
    CHECK(join_at("key", flight->deadline_ns, 0, &full, &old) == NULL);
    CHECK(old == flight && !full);
    CHECK(flight_is_settled(flight));
    CHECK_STATUS(flight->verdict, ASIDE_E_FETCH_TIMEOUT);
    CHECK(!group_may_store(flight));
    flight_unref(old);
    struct flight *newer = lead("key");
    CHECK(!settle(flight, ASIDE_OK)); /* the old fetch comes to its end */
    CHECK(join("key") == newer);
    flight_unref(newer);
    settle(newer, ASIDE_OK);
    unref_both(newer);
    unref_both(flight);
    end();
}

TEST(without_an_age_a_flight_never_grows_too_old)
{
    static const aside_clock clock;
    const aside_call call = {ASIDE_CALL, .fetch = never};
    begin();
    struct flight_options options = {&owner, &group, executor, ground.home, &clock, STARTED, 0};
    struct flight_key key = key_of("key");
    struct flight *flight = flight_new(&options, &key, &call), *old = NULL;
    bool full = false;
    lock_take(&lock);
    CHECK(group_lead(&group, flight));
    lock_release(&lock);
    CHECK(join_at("key", CLOCK_NEVER - 1, 0, &full, &old) == flight);
    CHECK(old == NULL);
    flight_unref(flight);
    settle(flight, ASIDE_OK);
    unref_both(flight);
    end();
}

static bool begin_on_worker(struct flight *flight)
{
    lock_take(&lock);
    bool begun = group_begin_on_worker(flight);
    lock_release(&lock);
    return begun;
}

static void end_on_worker(struct flight *flight)
{
    lock_take(&lock);
    group_end_on_worker(flight);
    lock_release(&lock);
}

TEST(a_superseded_fetch_on_a_worker_is_a_leftover_until_it_ends)
{
    begin(); /* two workers: one leftover is half of them */
    struct flight *running = lead("a"), *queued = lead("b"), *quick = lead("c");
    CHECK(begin_on_worker(running));
    CHECK(begin_on_worker(quick));
    CHECK(supersede(queued));
    CHECK(!executor_is_clogged(executor)); /* it holds no worker */
    CHECK(!begin_on_worker(queued));
    settle(quick, ASIDE_OK);
    end_on_worker(quick);
    CHECK(!executor_is_clogged(executor));
    CHECK(supersede(running));
    CHECK(!supersede(running));
    CHECK(executor_is_clogged(executor));
    end_on_worker(running);
    CHECK(!executor_is_clogged(executor));
    unref_both(running);
    unref_both(queued);
    unref_both(quick);
    end();
}

/* ---- stopping ------------------------------------------------------------------------------------ */

TEST(only_the_last_to_leave_asks_the_fetch_to_stop)
{
    begin();
    struct flight *flight = lead_stopping("key"), *other = lead("other");
    CHECK(join("key") == flight);
    CHECK(leave_as(flight, true));
    CHECK_INT(flight->stop, STOP_NO);
    CHECK(leave(flight));
    CHECK_INT(flight->stop, STOP_ASKED);
    CHECK(leave_as(other, true)); /* and only where the call wants it */
    CHECK_INT(other->stop, STOP_NO);
    flight_unref(flight);
    settle(flight, ASIDE_OK);
    settle(other, ASIDE_OK);
    unref_both(flight);
    unref_both(other);
    end();
}

TEST(a_newcomer_revives_a_fetch_that_has_not_heard)
{
    begin();
    struct flight *flight = lead_stopping("key");
    CHECK(leave_as(flight, true));
    CHECK(join("key") == flight);
    CHECK_INT(flight->stop, STOP_NO);
    CHECK_INT(flight->waiters, 1);
    CHECK(group_may_store(flight));
    settle(flight, ASIDE_OK);
    flight_unref(flight);
    unref_both(flight);
    end();
}

TEST(a_newcomer_leads_anew_once_the_fetch_has_heard)
{
    begin();
    struct flight *flight = lead_stopping("key");
    CHECK(leave_as(flight, true));
    flight->stop = STOP_HEARD;
    CHECK(join("key") == NULL);
    CHECK(!group_may_store(flight));
    struct flight *newer = lead("key");
    settle(flight, ASIDE_OK);
    CHECK(join("key") == newer);
    flight_unref(newer);
    settle(newer, ASIDE_OK);
    unref_both(flight);
    unref_both(newer);
    end();
}

/* ---- a flight that is begun without the lock ----------------------------------------------------- */

static bool has_room(void)
{
    return atomic_load(&group.solo) == NULL;
}

static void lock_and_unlock(void)
{
    group_lock(&group);
    CHECK(atomic_load(&group.solo) == GROUP_SHARED);
    group_unlock(&group);
}

static struct flight *begin_solo(const char *text)
{
    const aside_call call = {ASIDE_CALL, .fetch = never};
    struct flight *flight = make_for(text, &call), *room = NULL;
    flight->group = &group;
    CHECK(atomic_compare_exchange_strong(&group.solo, &room, flight));
    return flight;
}

TEST(a_group_has_no_room_for_a_solo_flight_before_it_is_made)
{
    begin();
    CHECK(!has_room());
    lock_and_unlock();
    CHECK(!has_room());
    group_make_room(&group);
    CHECK(has_room());
    lock_and_unlock();
    CHECK(has_room());
    end();
}

TEST(who_takes_the_lock_finds_a_solo_flight_to_be_one_like_any_other)
{
    begin();
    group_make_room(&group);
    struct flight *solo = begin_solo("solo");
    CHECK(group.flights == NULL);
    group_lock(&group);
    CHECK(group.flights == solo && group.only == solo && solo->current && solo->counted);
    CHECK_INT(group.running, 1);
    CHECK_INT(adopted, 1);
    group_unlock(&group);
    CHECK(!has_room());
    CHECK(join("solo") == solo);
    group_lock(&group); /* once */
    CHECK_INT(adopted, 1);
    group_end(&group, solo);
    CHECK(group_settle(solo, ASIDE_OK));
    group_unlock(&group);
    CHECK(has_room());
    flight_unref(solo);
    unref_both(solo);
    CHECK_INT(released, 1);
    end();
}

TEST(while_a_flight_is_under_way_there_is_no_room_settled_or_not)
{
    begin();
    group_make_room(&group);
    struct flight *flight = make_for("a", &(aside_call){ASIDE_CALL, .fetch = never});
    group_lock(&group);
    CHECK(group_begin(&group, flight) && group_lead(&group, flight));
    group_unlock(&group);
    CHECK(!has_room());
    group_lock(&group);
    CHECK(group_settle(flight, ASIDE_E_CLOSED));
    group_unlock(&group);
    CHECK(!has_room());
    group_lock(&group);
    group_end(&group, flight);
    group_unlock(&group);
    CHECK(has_room());
    unref_both(flight);
    end();
}

TEST(a_closed_group_has_no_room_ever_again)
{
    begin();
    group_make_room(&group);
    group_lock(&group);
    group.closed = true;
    group_unlock(&group);
    CHECK(!has_room());
    end();
}

TEST(a_solo_flight_is_counted_against_the_bound_by_a_credit_that_is_kept_for_it)
{
    struct flight_bound bound;
    begin();
    flight_bound_init(&bound, 16, 1);
    group_init(&group, &lock, &ground.mem, &bound);
    group_make_room(&group);
    CHECK(has_room());
    CHECK_INT(bound.credits, 15);
    struct flight *solo = begin_solo("solo");
    lock_and_unlock();
    CHECK_INT(group.credits + bound.credits, 15);
    group_lock(&group);
    group_end(&group, solo);
    CHECK(group_settle(solo, ASIDE_OK));
    group_unlock(&group);
    CHECK_INT(group.credits + bound.credits, 16);
    CHECK(has_room());
    unref_both(solo);
    end();
}

TEST(where_no_credit_can_be_kept_there_is_no_room)
{
    struct flight_bound bound;
    begin();
    flight_bound_init(&bound, 7, 1); /* too few for groups to keep any */
    group_init(&group, &lock, &ground.mem, &bound);
    group_make_room(&group);
    CHECK(!has_room());
    lock_and_unlock();
    CHECK(!has_room());
    CHECK_INT(bound.credits, 7);
    end();
}

TEST(a_group_that_is_made_while_others_have_all_credits_has_room_once_it_has_one)
{
    struct flight_bound bound;
    struct group others;
    struct flight *flights[8];
    begin();
    flight_bound_init(&bound, COUNT_OF(flights), 1);
    group_init(&others, &lock, &ground.mem, &bound);
    group_init(&group, &lock, &ground.mem, &bound);
    for (size_t i = 0; i < COUNT_OF(flights); i++) {
        flights[i] = make_for("k", &(aside_call){ASIDE_CALL, .fetch = never});
        CHECK(group_begin(&others, flights[i]));
    }
    group_make_room(&group);
    CHECK(!has_room());
    CHECK_INT(group.credits, 0);
    group_end(&others, flights[0]); /* its credit is kept there */
    group_end(&others, flights[1]);
    group_lock(&group);
    CHECK(group_begin(&group, flights[0]));
    group_unlock(&group);
    CHECK(!has_room());
    group_lock(&group);
    group_end(&group, flights[0]);
    group_unlock(&group);
    CHECK(has_room());
    for (size_t i = 2; i < COUNT_OF(flights); i++)
        group_end(&others, flights[i]);
    for (size_t i = 0; i < COUNT_OF(flights); i++)
        flight_discard(flights[i]);
    CHECK_INT(group.credits + others.credits + bound.credits, COUNT_OF(flights));
    group_fini(&others);
    end();
}

/* Each has a group of its own; all draw on one bound. */
struct drawer {
    struct group group;
    struct lock lock;
    struct flight *flights[4];
    pthread_t thread;
};

enum { DRAWERS = 4, CREDITS = 8 };

static _Atomic int under_way;

static void *draw_main(void *its_drawer)
{
    struct drawer *drawer = its_drawer;
    for (long i = test_rounds(2000); i > 0; i--) {
        struct flight *flight = drawer->flights[i % COUNT_OF(drawer->flights)];
        lock_take(&drawer->lock);
        if (load_relaxed(&flight->counted)) {
            under_way--;
            group_end(&drawer->group, flight);
        } else if (group_begin(&drawer->group, flight)) {
            CHECK(++under_way <= CREDITS);
        }
        lock_release(&drawer->lock);
    }
    return NULL;
}

static void drawer_init(struct drawer *drawer, struct flight_bound *bound)
{
    lock_init(&drawer->lock, RANK_SHARD);
    group_init(&drawer->group, &drawer->lock, &ground.mem, bound);
    for (size_t i = 0; i < COUNT_OF(drawer->flights); i++)
        drawer->flights[i] = make_for("k", &(aside_call){ASIDE_CALL, .fetch = never});
}

static void drawer_fini(struct drawer *drawer)
{
    for (size_t i = 0; i < COUNT_OF(drawer->flights); i++) {
        group_end(&drawer->group, drawer->flights[i]);
        flight_discard(drawer->flights[i]);
    }
    group_fini(&drawer->group);
    lock_fini(&drawer->lock);
}

TEST(credits_that_groups_take_and_give_back_at_once_are_neither_lost_nor_exceeded)
{
    static struct drawer drawers[DRAWERS];
    struct flight_bound bound;
    begin();
    flight_bound_init(&bound, CREDITS, DRAWERS); /* of which no group keeps any */
    for (int i = 0; i < DRAWERS; i++)
        drawer_init(&drawers[i], &bound);
    perturb(test_seed() | 1);
    for (int i = 0; i < DRAWERS; i++)
        drawers[i].thread = thread_start(draw_main, &drawers[i]);
    for (int i = 0; i < DRAWERS; i++)
        thread_join(drawers[i].thread);
    perturb(0);
    for (int i = 0; i < DRAWERS; i++)
        drawer_fini(&drawers[i]);
    CHECK_INT(bound.credits, CREDITS);
    end();
}

struct draws {
    struct drawer mine, others;
    bool come, drew; /* the other */
};

static void draw_as_well(void *its_draws)
{
    struct draws *draws = its_draws;
    draws->come = true;
    draws->drew = group_begin(&draws->others.group, draws->others.flights[0]);
}

/* How many draw if the other comes at my nth step. */
static int draw_at(struct draws *draws, int64_t nth)
{
    draws->come = draws->drew = false;
    if (!act_at_point(nth, draw_as_well, draws))
        test_skip("this build has no points between the steps of the library");
    bool drew = group_begin(&draws->mine.group, draws->mine.flights[0]);
    (void)act_at_point(0, NULL, NULL);
    group_end(&draws->mine.group, draws->mine.flights[0]);
    group_end(&draws->others.group, draws->others.flights[0]);
    return drew + draws->drew;
}

TEST(of_two_groups_that_draw_at_once_each_gets_a_credit_of_its_own_wherever_they_meet)
{
    static struct draws draws;
    for (size_t credits = 1; credits <= 2; credits++) {
        struct flight_bound bound;
        int64_t nth = 1;
        begin();
        flight_bound_init(&bound, credits, 2);
        drawer_init(&draws.mine, &bound);
        drawer_init(&draws.others, &bound);
        do {
            int drawn = draw_at(&draws, nth++);
            CHECK_INT(drawn, draws.come ? credits : 1);
            CHECK_INT(bound.credits, credits);
        } while (draws.come);
        CHECK(nth > 3);
        drawer_fini(&draws.mine);
        drawer_fini(&draws.others);
        end();
    }
}

TEST(a_flight_that_has_ended_ends_no_second_time)
{
    struct flight_bound bound;
    begin();
    flight_bound_init(&bound, 16, 1);
    group_init(&group, &lock, &ground.mem, &bound);
    struct flight *flight = make_for("k", &(aside_call){ASIDE_CALL, .fetch = never});
    group_end(&group, flight); /* nor one that was never counted */
    CHECK_INT(group.running, 0);
    CHECK(group_begin(&group, flight));
    CHECK_INT(group.running, 1);
    for (int i = 0; i < 3; i++) {
        group_end(&group, flight);
        CHECK_INT(group.running, 0);
        CHECK_INT(group.credits + bound.credits, 16);
    }
    flight_discard(flight);
    end();
}

TEST(in_the_child_of_a_fork_a_solo_flight_is_lost_and_there_is_room_again)
{
    begin();
    group_make_room(&group);
    struct flight *solo = begin_solo("solo");
    lock_take(&lock);
    group_fork_child(&group);
    lock_release(&lock);
    CHECK(flight_is_settled(solo));
    CHECK_STATUS(solo->verdict, ASIDE_E_FORKED);
    CHECK(has_room());
    CHECK_INT(adopted, 0);
    solo->group = NULL; /* nobody led it */
    unref_both(solo);
    end();
}
