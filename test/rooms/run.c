/*
 * run.c -- flight/run: a fetch decides once, by whichever way comes first, and what it noted before
 * that is released (F7, F9, O2).
 */
#include "flights.h"

#include "flight/run.h"

static struct tally tally;

static struct flight *lead_fetch(aside_fetch_fn *fetch, void *arg)
{
    const aside_call call = {ASIDE_CALL, .fetch = fetch, .arg = arg};
    return lead_call("key", &call);
}

/* Runs the fetch on this thread; the leader's reference is kept. */
static struct flight *run_fetch(aside_fetch_fn *fetch, void *arg, bool decides)
{
    struct flight *flight = lead_fetch(fetch, arg);
    CHECK_INT(flight_run(flight, thread_self(), NULL, PTHREAD_CANCEL_ENABLE, true), decides);
    CHECK(thread_self()->fetches == NULL);
    return flight;
}

static void check_verdict(aside_fetch_fn *fetch, void *arg, aside_status verdict, int code)
{
    begin();
    struct flight *flight = run_fetch(fetch, arg, true);
    CHECK_INT(published, 1);
    CHECK_STATUS(flight->verdict, verdict);
    CHECK_INT(flight->answer.code, code);
    CHECK((flight->value != NULL) == (verdict == ASIDE_OK));
    flight_unref(flight);
    CHECK_INT(released, 1);
    end();
}

/* ---- what a fetch returns ------------------------------------------------------------------------ */

static aside_status says(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    return *(const aside_status *)arg;
}

static aside_status copies(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "text", 4);
}

static aside_status finds_nothing(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_not_found(fetch);
}

static aside_status fails(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_fail(fetch, 42);
}

static aside_status copies_and_fails(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(copies(fetch, arg), ASIDE_OK);
    return fails(fetch, arg);
}

static aside_status fails_and_copies(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(fails(fetch, arg), ASIDE_E_FETCH);
    return copies(fetch, arg);
}

TEST(each_answer_is_the_verdict)
{
    static aside_status own = ASIDE_E_TIMEOUT, busy = ASIDE_E_BUSY;
    check_verdict(copies, NULL, ASIDE_OK, 0);
    check_verdict(finds_nothing, NULL, ASIDE_NOT_FOUND, 0);
    check_verdict(fails, NULL, ASIDE_E_FETCH, 42);
    check_verdict(copies_and_fails, NULL, ASIDE_E_FETCH, 42);
    check_verdict(fails_and_copies, NULL, ASIDE_OK, 0);
    check_verdict(says, &own, ASIDE_E_TIMEOUT, 0);
    check_verdict(says, &busy, ASIDE_E_BUSY, 0);
}

TEST(success_without_a_value_and_other_positive_statuses_are_invalid)
{
    static aside_status ok = ASIDE_OK, miss = ASIDE_MISS, exists = ASIDE_EXISTS,
                        unknown = (aside_status)99;
    check_verdict(says, &ok, ASIDE_E_INVALID, 0);
    check_verdict(says, &miss, ASIDE_E_INVALID, 0);
    check_verdict(says, &exists, ASIDE_E_INVALID, 0);
    check_verdict(says, &unknown, ASIDE_E_INVALID, 0);
}

static aside_status notes_many(aside_fetch *fetch, void *arg)
{
    void *to = NULL;
    (void)arg;
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 1)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 2)), ASIDE_OK);
    CHECK_INT(tally.freed, 1);
    CHECK_STATUS(aside_fetch_buffer(fetch, 3, &to), ASIDE_OK);
    CHECK_INT(tally.freed, 2);
    CHECK_STATUS(aside_fetch_copy(fetch, "x", 1), ASIDE_OK);
    return aside_fetch_give(fetch, tally_value(&tally, 77));
}

TEST(of_several_results_the_last_counts_and_the_others_are_released)
{
    begin();
    struct flight *flight = run_fetch(notes_many, NULL, true);
    CHECK_INT(aside_value_size(flight->value), 77);
    CHECK_INT(tally.freed, 2);
    flight_unref(flight);
    CHECK_INT(tally.freed, 3);
    end();
}

static aside_status gives_and_says(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 1)), ASIDE_OK);
    return *(const aside_status *)arg;
}

TEST(a_value_beside_an_error_is_released)
{
    static aside_status statuses[] = {ASIDE_NOT_FOUND, ASIDE_E_FETCH, ASIDE_E_NOMEM, ASIDE_MISS};
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        begin();
        struct flight *flight = run_fetch(gives_and_says, &statuses[i], true);
        CHECK_INT(tally.freed, tally.made);
        flight_unref(flight);
        end();
    }
}

/* ---- what a fetch calls -------------------------------------------------------------------------- */

static aside_status looks_round(aside_fetch *fetch, void *arg)
{
    size_t length = 0;
    void *to = NULL;
    const char *key = aside_fetch_key(fetch, &length);
    (void)arg;
    CHECK(length == 3 && memcmp(key, "key", 3) == 0);
    CHECK(aside_fetch_key(fetch, NULL) == NULL);
    CHECK(aside_fetch_key(NULL, &length) == NULL);
    CHECK(aside_fetch_worker(fetch) == &tally);
    CHECK(aside_fetch_worker(NULL) == NULL);
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    CHECK_INT(aside_fetch_stopping(NULL), 0);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, -2), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, ASIDE_NO_STORE), ASIDE_OK);
    CHECK_STATUS(aside_fetch_set_ttl(fetch, 12), ASIDE_OK);
    CHECK_STATUS(aside_fetch_set_ttl(NULL, 12), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_buffer(fetch, 1, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_buffer(fetch, (size_t)ENTRY_MAX_VALUE + 1, &to), ASIDE_E_TOO_LARGE);
    CHECK_STATUS(aside_fetch_copy(fetch, NULL, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_give(fetch, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_PENDING), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_buffer(fetch, 4, &to), ASIDE_OK);
    CHECK_INT((uintptr_t)to % 8, 0);
    memcpy(to, "abcd", 4);
    ground.ledger.fail_at = 1;
    CHECK_STATUS(aside_fetch_buffer(fetch, 4, &to), ASIDE_E_NOMEM);
    return ASIDE_OK; /* what was noted before the failure stands */
}

TEST(a_fetch_may_look_round)
{
    begin();
    struct flight *flight = lead_fetch(looks_round, NULL);
    CHECK(flight_run(flight, thread_self(), &tally, PTHREAD_CANCEL_ENABLE, true));
    CHECK(value_is(flight->value, "abcd"));
    CHECK_INT(flight->answer.ttl_ms, 12);
    CHECK_STATUS(aside_fetch_set_ttl((aside_fetch *)flight, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_copy((aside_fetch *)flight, "x", 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_not_found((aside_fetch *)flight), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_fail((aside_fetch *)flight, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_complete((aside_fetch *)flight, ASIDE_OK), ASIDE_E_INVALID);
    CHECK_INT(aside_fetch_stopping((aside_fetch *)flight), 1); /* it is settled */
    flight_unref(flight);
    end();
}

TEST(what_is_no_fetch_is_refused)
{
    static char nothing[sizeof(struct flight)] __attribute__((aligned(16)));
    aside_fetch *fetch = (aside_fetch *)nothing;
    void *to;
    CHECK_STATUS(aside_fetch_copy(fetch, "x", 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_buffer(NULL, 1, &to), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_complete(NULL, ASIDE_OK), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_not_found(NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_fail(NULL, 1), ASIDE_E_INVALID);
    CHECK(aside_fetch_ref(NULL) == NULL);
    aside_fetch_unref(NULL);
    aside_job_run(NULL, NULL);
    aside_job_drop(NULL);
}

/* ---- deciding at another time -------------------------------------------------------------------- */

static aside_fetch *kept;

static aside_status stays_pending(aside_fetch *fetch, void *arg)
{
    (void)arg;
    kept = aside_fetch_ref(fetch);
    return ASIDE_PENDING;
}

TEST(a_pending_fetch_is_completed_later_and_once)
{
    begin();
    struct flight *flight = run_fetch(stays_pending, NULL, false);
    CHECK_INT(published, 0);
    CHECK(!flight_is_settled(flight));
    CHECK_STATUS(aside_fetch_copy(kept, "late", 4), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(kept, ASIDE_OK), ASIDE_OK);
    CHECK_INT(published, 1);
    CHECK(value_is(flight->value, "late"));
    CHECK_STATUS(aside_fetch_complete(kept, ASIDE_NOT_FOUND), ASIDE_E_INVALID);
    aside_fetch_unref(kept);
    CHECK_INT(released, 0);
    flight_unref(flight);
    CHECK_INT(released, 1);
    end();
}

TEST(the_last_handle_without_an_answer_abandons)
{
    begin();
    struct flight *flight = run_fetch(stays_pending, NULL, false);
    CHECK(aside_fetch_ref(kept) == kept);
    CHECK_STATUS(aside_fetch_give(kept, tally_value(&tally, 1)), ASIDE_OK);
    aside_fetch_unref(kept);
    CHECK(!flight_is_settled(flight));
    aside_fetch_unref(kept);
    CHECK_STATUS(flight->verdict, ASIDE_E_ABANDONED);
    CHECK_INT(tally.freed, 1);
    flight_unref(flight);
    end();
}

static aside_status pends_for_nobody(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    (void)arg;
    return ASIDE_PENDING;
}

TEST(pending_without_a_handle_abandons_at_once)
{
    begin();
    struct flight *flight = run_fetch(pends_for_nobody, NULL, false);
    CHECK_STATUS(flight->verdict, ASIDE_E_ABANDONED);
    CHECK_INT(published, 1);
    flight_unref(flight);
    end();
}

static aside_status completes_early(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(aside_fetch_copy(fetch, "early", 5), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    CHECK_INT(published, 1);
    return *(const aside_status *)arg;
}

TEST(a_completion_before_the_return_wins)
{
    static aside_status returns[] = {ASIDE_PENDING, ASIDE_OK, ASIDE_E_FETCH};
    for (size_t i = 0; i < COUNT_OF(returns); i++) {
        begin();
        struct flight *flight = run_fetch(completes_early, &returns[i], false);
        CHECK_INT(published, 1);
        CHECK_STATUS(flight->verdict, ASIDE_OK);
        CHECK(value_is(flight->value, "early"));
        flight_unref(flight);
        end();
    }
}

TEST(a_flight_that_is_settled_meanwhile_keeps_its_verdict)
{
    begin();
    struct flight *flight = run_fetch(stays_pending, NULL, false);
    CHECK(settle(flight, ASIDE_E_CLOSED));
    CHECK_INT(aside_fetch_stopping(kept), 1);
    CHECK_STATUS(aside_fetch_give(kept, tally_value(&tally, 1)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(kept, ASIDE_OK), ASIDE_OK); /* it is the fetch's own word */
    CHECK_STATUS(flight->verdict, ASIDE_E_CLOSED);
    aside_fetch_unref(kept);
    flight_unref(flight);
    CHECK_INT(tally.freed, 1);
    end();
}

TEST(a_fetch_that_asks_hears_that_it_should_stop)
{
    begin();
    struct flight *flight = run_fetch(stays_pending, NULL, false);
    CHECK_INT(aside_fetch_stopping(kept), 0);
    flight->stop = STOP_ASKED;
    CHECK_INT(aside_fetch_stopping(kept), 1);
    CHECK_INT(flight->stop, STOP_HEARD);
    CHECK_INT(aside_fetch_stopping(kept), 1);
    aside_fetch_unref(kept);
    flight_unref(flight);
    end();
}

TEST(a_fetch_that_is_refused_never_runs)
{
    begin();
    struct flight *flight = lead_fetch(copies, NULL);
    flight_refuse(flight, ASIDE_E_WORKER, -7);
    CHECK(!flight->ran);
    CHECK_STATUS(flight->verdict, ASIDE_E_WORKER);
    CHECK_INT(flight->answer.code, -7);
    flight_unref(flight);
    CHECK_INT(released, 1);
    end();
}

/* ---- ends without a return ----------------------------------------------------------------------- */

static aside_status exits(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 1)), ASIDE_OK);
    pthread_exit(NULL);
}

static aside_status is_cancelled_outside(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    (void)arg;
    pthread_cancel(pthread_self());
    pthread_testcancel();
    return ASIDE_E_INVALID;
}

static void *run_main(void *its_flight)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    (void)flight_run(its_flight, thread_self(), NULL, PTHREAD_CANCEL_ENABLE, true);
    test_fail(__FILE__, __LINE__, "came back", NULL);
}

static void check_unwound(aside_fetch_fn *fetch)
{
    begin();
    struct flight *flight = lead_fetch(fetch, NULL);
    fetch_add_relaxed(&flight->refs, 1); /* the leader's goes with his thread */
    thread_join(thread_start(run_main, flight));
    CHECK_STATUS(flight->verdict, ASIDE_E_ABANDONED);
    CHECK_INT(tally.freed, tally.made);
    CHECK_INT(flight->refs, 1);
    flight_unref(flight);
    CHECK_INT(released, 1);
    end();
}

TEST(a_thread_that_ends_in_its_fetch_abandons_it)
{
    check_unwound(exits);
}

TEST(a_thread_that_is_cancelled_in_its_fetch_abandons_it)
{
    check_unwound(is_cancelled_outside);
}

/* ---- a fork -------------------------------------------------------------------------------------- */

static aside_status completes_and_is_the_child(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_give(fetch, tally_value(&tally, 77)), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    fork_generation_now++;
    return ASIDE_E_FETCH;
}

TEST(what_was_completed_before_its_fetch_forked_is_not_discarded_in_the_child)
{
    begin();
    struct flight *flight = run_fetch(completes_and_is_the_child, NULL, false);
    CHECK_INT(tally.freed, 0); /* it belongs to whoever got it */
    fork_generation_now--;
    CHECK_INT(published, 1);
    CHECK_STATUS(flight->verdict, ASIDE_OK);
    CHECK_INT(aside_value_size(flight->value), 77);
    flight_unref(flight);
    CHECK_INT(tally.freed, 1);
    CHECK_INT(released, 1);
    end();
}

/* ---- nesting ------------------------------------------------------------------------------------- */

static bool own(const void *owned_by, const char *key)
{
    return flight_is_own(thread_self(), owned_by, key, strlen(key));
}

static aside_status inner(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK(own(&group, "key") && own(&group, "inner"));
    CHECK(!own(&group, "other") && !own(&lock, "key") && !own(&group, "ke"));
    CHECK(!own(&group, "kez") && !own(&group, "outer"));
    return aside_fetch_not_found(fetch);
}

static aside_status outer(aside_fetch *fetch, void *arg)
{
    const aside_call call = {ASIDE_CALL, .fetch = inner};
    (void)arg;
    CHECK(own(&group, "key") && !own(&group, "inner"));
    struct flight *flight = lead_call("inner", &call);
    CHECK(flight_run(flight, thread_self(), NULL, PTHREAD_CANCEL_ENABLE, true));
    flight_unref(flight);
    CHECK(own(&group, "key") && !own(&group, "inner"));
    return aside_fetch_not_found(fetch);
}

TEST(a_thread_knows_the_fetches_that_it_is_running)
{
    begin();
    CHECK(!own(&group, "key"));
    struct flight *flight = run_fetch(outer, NULL, true);
    CHECK(!own(&group, "key"));
    flight_unref(flight);
    CHECK_INT(released, 2);
    end();
}

static aside_status knows_the_empty_key(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK(own(&group, "") && !own(&group, "key"));
    return aside_fetch_not_found(fetch);
}

TEST(a_thread_knows_that_it_is_running_the_fetch_of_the_empty_key)
{
    const aside_call call = {ASIDE_CALL, .fetch = knows_the_empty_key};
    begin();
    struct flight *flight = lead_call("", &call);
    CHECK(flight_run(flight, thread_self(), NULL, PTHREAD_CANCEL_ENABLE, true));
    CHECK(!own(&group, ""));
    flight_unref(flight);
    end();
}

/* ---- jobs ---------------------------------------------------------------------------------------- */

TEST(a_job_runs_on_a_worker)
{
    begin();
    struct flight *flight = lead_fetch(copies, NULL);
    flight_job_init(flight);
    CHECK_STATUS(executor_submit(executor, &flight->job), ASIDE_OK);
    WAIT_UNTIL(flight_is_settled(flight));
    CHECK(value_is(flight->value, "text"));
    WAIT_UNTIL(flight->refs == 1);
    flight_unref(flight);
    end();
}

TEST(a_job_whose_flight_is_settled_is_not_run)
{
    begin();
    struct flight *flight = lead_fetch(copies, NULL);
    flight_job_init(flight);
    settle(flight, ASIDE_E_CLOSED);
    CHECK_STATUS(executor_submit(executor, &flight->job), ASIDE_OK);
    WAIT_UNTIL(flight->refs == 1);
    CHECK(!flight->ran);
    flight_unref(flight);
    flight = lead_fetch(copies, NULL);
    settle(flight, ASIDE_E_CLOSED);
    aside_job_run((aside_job *)flight, NULL);
    CHECK(!flight->ran);
    CHECK_STATUS(flight->verdict, ASIDE_E_CLOSED);
    flight_unref(flight);
    end();
}

static aside_status names_worker(aside_fetch *fetch, void *arg)
{
    CHECK(aside_fetch_worker(fetch) == arg);
    return ASIDE_NOT_FOUND;
}

TEST(a_user_s_executor_runs_or_drops)
{
    begin();
    struct flight *flight = lead_fetch(names_worker, &tally);
    aside_job_run((aside_job *)flight, &tally);
    CHECK_STATUS(flight->verdict, ASIDE_NOT_FOUND);
    flight_unref(flight);
    flight = lead_fetch(copies, NULL);
    aside_job_drop((aside_job *)flight);
    CHECK(!flight->ran);
    CHECK_STATUS(flight->verdict, ASIDE_E_ABANDONED);
    flight_unref(flight);
    CHECK_INT(released, 2);
    end();
}

/* ---- races --------------------------------------------------------------------------------------- */

static _Atomic int firsts;

static void *complete_main(void *fetch)
{
    if (aside_fetch_complete(fetch, ASIDE_NOT_FOUND) == ASIDE_OK)
        firsts++;
    aside_fetch_unref(fetch);
    return NULL;
}

TEST(of_many_completions_one_is_the_first)
{
    perturb(test_seed() | 1);
    for (long round = test_rounds(150); round > 0; round--) {
        pthread_t threads[3];
        begin();
        firsts = 0;
        struct flight *flight = run_fetch(stays_pending, NULL, false);
        for (int i = 0; i < 3; i++)
            threads[i] = thread_start(complete_main, aside_fetch_ref(kept));
        aside_fetch_unref(kept);
        for (int i = 0; i < 3; i++)
            thread_join(threads[i]);
        CHECK_INT(firsts, 1);
        CHECK_INT(published, 1);
        flight_unref(flight);
        end();
    }
    perturb(0);
}
