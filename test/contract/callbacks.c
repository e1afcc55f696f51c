/*
 * callbacks.c -- what user code may do where the library calls it, at the edges: end its thread in a
 * fetch inside another one, ask and close from destructors of answers, fetch inside a submit hook, be
 * cancelled, close at a reading of the clock; and descriptors that stay readable once they are.
 */
#include "helpers.h"

#include <aside/group.h>
#include <poll.h>

/* ---- what several tests use ---------------------------------------------------------------------- */

static aside_options ageless_options(void)
{
    aside_options options = quiet_options();
    options.max_flight_age_ms = ASIDE_FOREVER;
    return options;
}

static aside_group *group_open(const aside_options *options)
{
    aside_group *group = NULL;
    CHECK_STATUS(aside_group_new(&group, options), ASIDE_OK);
    CHECK(group != NULL);
    return group;
}

/* ---- a nested fetch that ends its thread --------------------------------------------------------- */

struct vanishing {
    aside_cache *cache;
    aside_cancel *token;
    bool joins; /* the fetch that the thread helps to run is one that it joined */
    struct source busy;
    struct caller occupant, first, outer, other;
    _Atomic int ends;
    aside_status said; /* what the fetch of "other" was told of "outer" */
};

static aside_status end_and_count(aside_fetch *fetch, void *arg)
{
    struct vanishing *v = (struct vanishing *)arg;
    atomic_fetch_add(&v->ends, 1);
    return end_the_thread(fetch, NULL);
}

static aside_status ask_for_outer(aside_fetch *fetch, void *arg)
{
    struct vanishing *v = (struct vanishing *)arg;
    struct caller caller;
    caller_init(&caller, v->cache, "outer", end_and_count, v);
    v->said = caller_run(&caller);
    caller_drop(&caller);
    return aside_fetch_copy(fetch, "other", 5);
}

/* Runs while "outer" is given up, its flight still there for whoever asks: "inner" has gone by then. */
static void let_another_ask(void *ptr, void *ctx)
{
    struct vanishing *v = (struct vanishing *)ctx;
    (void)ptr;
    if (v->joins)
        WAIT_UNTIL(atomic_load(&v->first.done));
    caller_init(&v->other, v->cache, "other", ask_for_outer, v);
    caller_start(&v->other);
    WAIT_UNTIL(STAT(v->cache, waiters_now) == 2); /* the occupant, and the fetch of "other" */
}

static aside_status ask_for_inner(aside_fetch *fetch, void *arg)
{
    struct vanishing *v = (struct vanishing *)arg;
    struct caller caller;
    CHECK_STATUS(give(fetch, let_another_ask, v), ASIDE_OK);
    caller_init(&caller, v->cache, "inner", end_and_count, v);
    caller.call.cancel = v->token;
    caller_run(&caller);
    CHECK(!"the thread has ended");
    return ASIDE_E_FETCH;
}

/* The only worker is taken, so the thread of "outer" runs "inner" itself, and with it ends. */
static void check_vanishing(bool joins)
{
    struct vanishing v;
    struct ledger ledger;
    struct source source;
    aside_options options = ageless_options();
    memset(&v, 0, sizeof v);
    options.fetch_threads = 1;
    options.alloc = ledger_init(&ledger);
    v.cache = open_cache(&options);
    v.token = token_new();
    v.joins = joins;
    source_init(&v.busy, "busy", true);
    source_init(&source, "again", false);
    caller_ask(&v.occupant, v.cache, "busy", &v.busy, v.token);
    caller_start(&v.occupant);
    gate_wait_arrived(&v.busy.gate, 1);
    WAIT_UNTIL(STAT(v.cache, waiters_now) == 1);
    if (joins) {
        caller_init(&v.first, v.cache, "inner", end_and_count, &v);
        v.first.call.cancel = v.token;
        caller_start(&v.first);
        WAIT_UNTIL(STAT(v.cache, waiters_now) == 2);
    }
    caller_init(&v.outer, v.cache, "outer", ask_for_inner, &v);
    caller_start(&v.outer);
    thread_join(v.outer.thread);
    CHECK(!v.outer.done);
    CHECK_STATUS(caller_join(&v.other), ASIDE_OK);
    CHECK(value_is(v.other.result.value, "other"));
    CHECK_STATUS(v.said, ASIDE_E_ABANDONED);
    if (joins)
        CHECK_STATUS(caller_join(&v.first), ASIDE_E_ABANDONED);
    CHECK_INT(v.ends, 1);
    CHECK_STATUS(ask(v.cache, "outer", &source), ASIDE_OK);
    CHECK_STATUS(ask(v.cache, "inner", &source), ASIDE_OK);
    gate_open(&v.busy.gate);
    CHECK_STATUS(caller_join(&v.occupant), ASIDE_OK);
    WAIT_UNTIL(STAT(v.cache, flights_now) == 0);
    CHECK_INT(STAT(v.cache, fetch_abandoned), 2);
    caller_drop(&v.other);
    caller_drop(&v.occupant);
    aside_cancel_unref(v.token);
    end_cache(v.cache);
    WAIT_UNTIL(ledger.live_blocks == 0);
}

TEST(a_fetch_that_a_thread_led_ran_itself_and_ended_in_leaves_no_edge)
{
    for (int i = 0; i < 20; i++)
        check_vanishing(false);
}

TEST(a_fetch_that_a_thread_joined_ran_itself_and_ended_in_leaves_no_edge)
{
    for (int i = 0; i < 20; i++)
        check_vanishing(true);
}

/* ---- destructors of answers that were given up --------------------------------------------------- */

/* A group takes short cuts where no hook of the user's could see them. */
enum kind { PLAIN_GROUP, GROUP_WITH_ALLOCATOR, CACHE, KINDS };

struct inside {
    aside_group *group; /* or */
    aside_cache *cache;
    bool closes;
    _Atomic int destroyed, fetches;
    _Atomic bool done;
    aside_status said;
    aside_outcome outcome;
};

static aside_status inside_ask(struct inside *inside, aside_fetch_fn *fetch, aside_cancel *token,
                               aside_result *result)
{
    aside_call call = ASIDE_CALL_INIT;
    call.fetch = fetch;
    call.arg = inside;
    call.cancel = token;
    if (inside->group != NULL)
        return aside_group_do(inside->group, ASIDE_STR("k"), &call, result);
    return aside_get_with_fetch(inside->cache, ASIDE_STR("k"), &call, result);
}

static aside_status fetch_that_must_not_run(aside_fetch *fetch, void *arg)
{
    struct inside *inside = (struct inside *)arg;
    atomic_fetch_add(&inside->fetches, 1);
    return aside_fetch_copy(fetch, "v", 1);
}

static void ask_or_close(void *ptr, void *ctx)
{
    struct inside *inside = (struct inside *)ctx;
    aside_result result = ASIDE_RESULT_INIT;
    (void)ptr;
    atomic_fetch_add(&inside->destroyed, 1);
    if (!inside->closes)
        inside->said = inside_ask(inside, fetch_that_must_not_run, NULL, &result);
    else if (inside->group != NULL)
        inside->said = aside_group_close(inside->group);
    else
        inside->said = aside_close(inside->cache);
    inside->outcome = result.outcome;
    CHECK(result.value == NULL);
    atomic_store(&inside->done, true);
}

static aside_status give_and_fail(aside_fetch *fetch, void *arg)
{
    CHECK_STATUS(give(fetch, ask_or_close, arg), ASIDE_OK);
    return aside_fetch_fail(fetch, 7);
}

static void inside_open(struct inside *inside, enum kind kind, struct ledger *ledger)
{
    aside_options options = ageless_options();
    memset(inside, 0, sizeof *inside);
    options.close_wait_ms = ASIDE_FOREVER;
    if (kind != PLAIN_GROUP)
        options.alloc = ledger_init(ledger);
    if (kind == CACHE)
        inside->cache = open_cache(&options);
    else
        inside->group = group_open(&options);
}

static void inside_end(struct inside *inside)
{
    if (inside->cache != NULL) {
        end_cache(inside->cache);
    } else {
        CHECK_STATUS(aside_group_close(inside->group), ASIDE_OK);
        aside_group_unref(inside->group);
    }
    wait_for_no_threads();
}

static void check_given_up(bool closes)
{
    for (int kind = 0; kind < KINDS; kind++) {
        for (int on_worker = 0; on_worker <= 1; on_worker++) {
            struct inside inside;
            struct ledger ledger;
            aside_result result = ASIDE_RESULT_INIT;
            aside_cancel *token = on_worker ? token_new() : NULL;
            memset(&ledger, 0, sizeof ledger);
            inside_open(&inside, (enum kind)kind, &ledger);
            inside.closes = closes;
            aside_status status = inside_ask(&inside, give_and_fail, token, &result);
            /* who can not leave stays for the answer, who waits for a worker is told at once */
            CHECK_STATUS(status, closes && on_worker ? ASIDE_E_CLOSED : ASIDE_E_FETCH);
            if (status == ASIDE_E_FETCH)
                CHECK_INT(result.fetch_error, 7);
            WAIT_UNTIL(atomic_load(&inside.done));
            inside_end(&inside);
            CHECK_STATUS(inside.said, closes ? ASIDE_OK : ASIDE_E_DEADLOCK);
            CHECK_INT(inside.outcome, ASIDE_OUTCOME_NONE);
            CHECK_INT(inside.fetches, 0);
            CHECK_INT(inside.destroyed, 1);
            CHECK_INT(ledger.live_blocks, 0);
            aside_cancel_unref(token);
        }
    }
}

/* Nothing here grows too old, and nobody waits for a bounded time: only being told ends it. */
TEST_LIMIT(a_destructor_of_an_answer_given_up_that_asks_for_its_own_key_is_told_at_once, 20)
{
    check_given_up(false);
}

TEST_LIMIT(a_destructor_of_an_answer_given_up_may_close_and_waits_not_for_itself, 20)
{
    check_given_up(true);
}

/* ---- a fetch inside submit that ends the thread -------------------------------------------------- */

struct parting;

struct part {
    struct parting *parting;
    pthread_key_t key;
    int rounds; /* of destructors left: past the one in which the library forgets the thread */
};

struct parting {
    aside_cache *cache;
    aside_cancel *token;
    struct gate gate;
    struct caller leader, joiner;
    struct source source;
    struct part parts[2];
    _Atomic int last_calls, submitted;
};

static aside_status run_at_once(void *ctx, aside_job *job)
{
    struct parting *parting = (struct parting *)ctx;
    atomic_fetch_add(&parting->submitted, 1);
    aside_job_run(job, NULL);
    return ASIDE_OK;
}

static aside_status end_after_the_gate(aside_fetch *fetch, void *arg)
{
    struct parting *parting = (struct parting *)arg;
    gate_pass(&parting->gate);
    return end_the_thread(fetch, NULL);
}

static void say_farewell(void *arg)
{
    struct part *part = (struct part *)arg;
    struct parting *parting = part->parting;
    struct caller caller;
    put(parting->cache, "set", "v", ASIDE_FOREVER);
    CHECK(holds(parting->cache, "set", "v"));
    CHECK_STATUS(ask(parting->cache, "by myself", &parting->source), ASIDE_OK);
    caller_ask(&caller, parting->cache, "by submit", &parting->source, parting->token);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    CHECK_STATUS(ask(parting->cache, "k", &parting->source), ASIDE_OK); /* inside it no more */
    CHECK_STATUS(aside_clear(parting->cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(parting->cache, 0, NULL), ASIDE_OK);
    atomic_fetch_add(&parting->last_calls, 1);
    if (--part->rounds > 0)
        pthread_setspecific(part->key, part);
}

static void *lead_and_part(void *arg)
{
    struct parting *parting = (struct parting *)arg;
    pthread_setspecific(parting->parts[0].key, &parting->parts[0]);
    put(parting->cache, "alive", "v", ASIDE_FOREVER);
    pthread_setspecific(parting->parts[1].key, &parting->parts[1]);
    caller_run(&parting->leader);
    CHECK(!"the thread has ended");
    return NULL;
}

static void check_parting(pthread_key_t early_key)
{
    struct parting parting;
    struct ledger ledger;
    aside_options options = ageless_options();
    memset(&parting, 0, sizeof parting);
    options.alloc = ledger_init(&ledger);
    options.submit = (aside_submit){run_at_once, &parting};
    parting.cache = open_cache(&options);
    parting.token = token_new();
    gate_init(&parting.gate);
    source_init(&parting.source, "v", false);
    for (int i = 0; i < 2; i++)
        parting.parts[i] = (struct part){&parting, early_key, 3};
    CHECK_INT(pthread_key_create(&parting.parts[1].key, say_farewell), 0);
    caller_init(&parting.leader, parting.cache, "k", end_after_the_gate, &parting);
    parting.leader.call.cancel = parting.token;
    pthread_t thread = thread_start(lead_and_part, &parting);
    gate_wait_arrived(&parting.gate, 1);
    join_flight(&parting.joiner, parting.cache, "k", &parting.source, NULL, 1);
    gate_open(&parting.gate);
    thread_join(thread);
    CHECK_STATUS(caller_join(&parting.joiner), ASIDE_E_ABANDONED);
    CHECK_INT(parting.last_calls, 6);
    CHECK(!parting.leader.done);
    CHECK_INT(STAT(parting.cache, fetch_abandoned), 1);
    CHECK_INT(STAT(parting.cache, flights_now), 0);
    CHECK_INT(STAT(parting.cache, waiters_now), 0);
    CHECK_INT(parting.submitted, 7);
    CHECK_STATUS(aside_close(parting.cache), ASIDE_OK);
    aside_unref(parting.cache);
    CHECK_INT(ledger.live_blocks, 0);
    CHECK_INT(ledger.live_bytes, 0);
    aside_cancel_unref(parting.token);
    CHECK_INT(pthread_key_delete(parting.parts[1].key), 0);
}

TEST(a_fetch_that_submit_runs_at_once_may_end_the_thread_and_leaves_nothing)
{
    pthread_key_t early_key; /* earlier than the library's own */
    CHECK_INT(pthread_key_create(&early_key, say_farewell), 0);
    for (int i = 0; i < 20; i++)
        check_parting(early_key);
    CHECK_INT(pthread_key_delete(early_key), 0);
}

/* ---- destructors by aside_fetch_complete() where fetches have contexts --------------------------- */

struct completing {
    aside_cache *cache;
    aside_cancel *token;
    bool hurried; /* the destructor's own call could leave */
    _Atomic(aside_fetch *) held;
    struct source busy;
    struct caller occupant, pending;
    _Atomic int fetches;
    _Atomic(void *) worker;
    _Atomic bool on_this_thread;
    pthread_t thread; /* which completes */
    aside_status said;
};

static aside_status start_worker(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

static aside_status note_worker(aside_fetch *fetch, void *arg)
{
    struct completing *c = (struct completing *)arg;
    atomic_store(&c->worker, aside_fetch_worker(fetch));
    atomic_store(&c->on_this_thread, pthread_equal(pthread_self(), c->thread) != 0);
    atomic_fetch_add(&c->fetches, 1);
    return aside_fetch_copy(fetch, "v", 1);
}

static void ask_for_another(void *ptr, void *ctx)
{
    struct completing *c = (struct completing *)ctx;
    struct caller caller;
    (void)ptr;
    caller_init(&caller, c->cache, "another", note_worker, c);
    if (c->hurried)
        caller.call.cancel = c->token;
    c->said = caller_run(&caller);
    caller_drop(&caller);
}

static aside_status hold_with_value(aside_fetch *fetch, void *arg)
{
    struct completing *c = (struct completing *)arg;
    CHECK_STATUS(give(fetch, ask_for_another, c), ASIDE_OK);
    atomic_store(&c->held, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

static void *complete_main(void *arg)
{
    struct completing *c = (struct completing *)arg;
    aside_fetch *fetch = atomic_load(&c->held);
    c->thread = pthread_self();
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_E_FETCH), ASIDE_OK);
    aside_fetch_unref(fetch);
    return NULL;
}

static void check_completing(bool hurried)
{
    struct completing c;
    int context = 0;
    aside_options options = ageless_options();
    memset(&c, 0, sizeof c);
    c.hurried = hurried;
    options.fetch_threads = 1;
    options.worker.start = start_worker;
    options.worker.ctx = &context;
    c.cache = open_cache(&options);
    c.token = token_new();
    source_init(&c.busy, "busy", true);
    caller_init(&c.pending, c.cache, "pending", hold_with_value, &c);
    caller_start(&c.pending);
    WAIT_UNTIL(atomic_load(&c.held) != NULL);
    lead_to_gate(&c.occupant, c.cache, "busy", &c.busy);
    WAIT_UNTIL(STAT(c.cache, waiters_now) == 2);
    pthread_t completer = thread_start(complete_main, &c);
    /* the fetch stays queued, its caller waits, until the only worker has time for it */
    WAIT_UNTIL(STAT(c.cache, waiters_now) == 3 || atomic_load(&c.fetches) > 0);
    CHECK_INT(c.fetches, 0);
    CHECK_INT(STAT(c.cache, queued_now), 1);
    gate_open(&c.busy.gate);
    thread_join(completer);
    CHECK_STATUS(caller_join(&c.occupant), ASIDE_OK);
    CHECK_STATUS(caller_join(&c.pending), ASIDE_E_FETCH);
    caller_drop(&c.occupant);
    CHECK_STATUS(c.said, ASIDE_OK);
    CHECK_INT(c.fetches, 1);
    CHECK(c.worker == &context);
    CHECK(!c.on_this_thread);
    aside_cancel_unref(c.token);
    end_cache(c.cache);
    wait_for_no_threads();
}

TEST(a_destructor_on_the_thread_that_completes_has_its_fetch_run_with_a_workers_context)
{
    check_completing(false);
    check_completing(true);
}

/* ---- a submit hook that fetches ------------------------------------------------------------------ */

struct hooked {
    aside_cache *cache, *third_cache;
    aside_cancel *token;
    bool late;   /* the hook returns when b's fetch waits for a already */
    bool nested; /* the hook is asked by itself */
    pthread_t runner;
    struct source third;
    struct caller a;
    aside_status a_said, b_said; /* what the fetch of a was told of b, and that of b of a */
    _Atomic bool b_is_told;
};

static void *run_job(void *job)
{
    aside_job_run((aside_job *)job, NULL);
    return NULL;
}

static aside_status fetch_in_the_hook(void *ctx, aside_job *job)
{
    struct hooked *hooked = (struct hooked *)ctx;
    struct caller caller;
    if (hooked->nested) {
        aside_job_run(job, NULL);
        return ASIDE_OK;
    }
    hooked->nested = true;
    caller_ask(&caller, hooked->third_cache, "third", &hooked->third, hooked->token);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK); /* it waits, or has waited */
    caller_drop(&caller);
    hooked->runner = thread_start(run_job, job);
    if (hooked->late)
        WAIT_UNTIL(STAT(hooked->cache, waiters_now) == 1 || atomic_load(&hooked->b_is_told));
    return ASIDE_OK;
}

static aside_status never_run(aside_fetch *fetch, void *arg)
{
    (void)fetch;
    (void)arg;
    CHECK(!"a fetch that is never run");
    return ASIDE_E_FETCH;
}

static aside_status b_asks_for_a(aside_fetch *fetch, void *arg)
{
    struct hooked *hooked = (struct hooked *)arg;
    struct caller caller;
    if (!hooked->late)
        WAIT_UNTIL(STAT(hooked->cache, waiters_now) == 1); /* a's fetch waits for b */
    caller_init(&caller, hooked->cache, "a", never_run, NULL);
    hooked->b_said = caller_run(&caller);
    atomic_store(&hooked->b_is_told, true);
    caller_drop(&caller);
    return aside_fetch_copy(fetch, "b", 1);
}

static aside_status a_asks_for_b(aside_fetch *fetch, void *arg)
{
    struct hooked *hooked = (struct hooked *)arg;
    struct caller caller;
    caller_init(&caller, hooked->cache, "b", b_asks_for_a, hooked);
    caller.call.cancel = hooked->token;
    hooked->a_said = caller_run(&caller);
    caller_drop(&caller);
    return aside_fetch_copy(fetch, "a", 1);
}

static void check_hooked(bool late, bool another_cache)
{
    struct hooked hooked;
    aside_options options = ageless_options();
    memset(&hooked, 0, sizeof hooked);
    hooked.late = late;
    hooked.token = token_new();
    source_init(&hooked.third, "third", false);
    options.submit = (aside_submit){fetch_in_the_hook, &hooked};
    hooked.cache = open_cache(&options);
    hooked.third_cache = another_cache ? open_quiet() : hooked.cache;
    caller_init(&hooked.a, hooked.cache, "a", a_asks_for_b, &hooked);
    CHECK_STATUS(caller_run(&hooked.a), ASIDE_OK);
    CHECK(value_is(hooked.a.result.value, "a"));
    caller_drop(&hooked.a);
    thread_join(hooked.runner);
    CHECK_INT(hooked.third.fetches, 1);
    if (!late)
        CHECK_STATUS(hooked.b_said, ASIDE_E_DEADLOCK);
    else /* whoever of the two closes the ring */
        CHECK_INT((hooked.a_said == ASIDE_E_DEADLOCK) + (hooked.b_said == ASIDE_E_DEADLOCK), 1);
    CHECK_INT((hooked.a_said == ASIDE_OK) + (hooked.b_said == ASIDE_OK), 1);
    CHECK_INT(STAT(hooked.cache, flights_now), 0);
    CHECK_INT(STAT(hooked.cache, superseded), 0);
    CHECK(holds(hooked.cache, "a", "a"));
    CHECK(holds(hooked.cache, "b", "b"));
    aside_cancel_unref(hooked.token);
    if (another_cache)
        end_cache(hooked.third_cache);
    end_cache(hooked.cache);
}

TEST_LIMIT(a_submit_hook_that_fetches_hides_no_ring, 30)
{
    for (int way = 0; way < 4; way++)
        check_hooked(way & 1, way & 2);
}

/* ---- descriptors --------------------------------------------------------------------------------- */

static bool readable_within_ms(int fd, int ms)
{
    struct pollfd descriptor = {fd, POLLIN, 0};
    return poll(&descriptor, 1, ms) == 1 && (descriptor.revents & POLLIN) != 0;
}

static int descriptor_of(aside_cancel *token)
{
    int fd = -1;
    CHECK_STATUS(aside_cancel_fd(token, &fd), ASIDE_OK);
    return fd;
}

/* Asks a token, over and over. */
struct asking {
    aside_cancel *token;
    aside_status expected;
    _Atomic bool stop;
    _Atomic long asked;
};

static void *ask_over_and_over(void *arg)
{
    struct asking *asking = (struct asking *)arg;
    while (!atomic_load(&asking->stop)) {
        CHECK_STATUS(aside_cancel_status(asking->token), asking->expected);
        CHECK_INT(aside_cancel_fired(asking->token), 1);
        atomic_fetch_add(&asking->asked, 1);
    }
    return NULL;
}

static void check_stays_readable(aside_cancel *token, int fd, aside_status expected)
{
    struct asking asking = {token, expected, false, 0};
    long gaps = 0, polls = test_rounds(20000);
    CHECK(readable_within_ms(fd, 20000));
    pthread_t thread = thread_start(ask_over_and_over, &asking);
    WAIT_UNTIL(asking.asked > 0);
    for (long i = 0; i < polls; i++) {
        gaps += !readable_within_ms(fd, 0);
        if (i % 16 == 0) {
            CHECK_INT(aside_cancel_fired(token), 1);
            CHECK_INT(descriptor_of(token), fd);
        }
        if (i % 16 == 8 && expected == ASIDE_E_CANCELLED)
            aside_cancel_fire(token);
    }
    atomic_store(&asking.stop, true);
    thread_join(thread);
    CHECK_INT(gaps, 0);
}

TEST(a_descriptor_stays_readable_while_its_token_is_asked)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    for (int own_clock = 0; own_clock <= 1; own_clock++) {
        for (int of_parent = 0; of_parent <= 1; of_parent++) {
            aside_cancel *parent = token_new(), *child = NULL, *token;
            CHECK_STATUS(aside_cancel_child(parent, &child), ASIDE_OK);
            token = of_parent ? child : parent;
            int fd = descriptor_of(token);
            CHECK_STATUS(aside_cancel_set_deadline(parent, 5, own_clock ? &injected : NULL),
                         ASIDE_OK);
            CHECK(own_clock || readable_within_ms(fd, 20000));
            fake_clock_advance_ms(&clock, 5, NULL);
            CHECK_STATUS(aside_cancel_status(token), ASIDE_E_TIMEOUT);
            check_stays_readable(token, fd, ASIDE_E_TIMEOUT);
            aside_cancel_unref(parent);
            aside_cancel_unref(child);
        }
    }
}

TEST(a_descriptor_stays_readable_after_its_token_was_fired)
{
    aside_cancel *token = token_new();
    int fd = descriptor_of(token);
    aside_cancel_fire(token);
    check_stays_readable(token, fd, ASIDE_E_CANCELLED);
    aside_cancel_unref(token);
}

struct firing {
    _Atomic(aside_cancel *) token;
    _Atomic bool fired, stop;
};

static void *fire_main(void *arg)
{
    struct firing *firing = (struct firing *)arg;
    while (!atomic_load(&firing->stop)) {
        aside_cancel *token = atomic_exchange(&firing->token, NULL);
        if (token == NULL)
            continue;
        aside_cancel_fire(token);
        atomic_store(&firing->fired, true);
    }
    return NULL;
}

/* Who looks while it is fired late must see what was there before. */
TEST(a_descriptor_that_a_deadline_made_readable_stays_so_while_its_token_is_fired)
{
    struct fake_clock clock;
    struct firing firing;
    aside_clock injected = fake_clock_init(&clock);
    long gaps = 0;
    memset(&firing, 0, sizeof firing);
    pthread_t thread = thread_start(fire_main, &firing);
    for (long round = test_rounds(2000); round > 0; round--) {
        aside_cancel *token = token_new();
        CHECK_STATUS(aside_cancel_set_deadline(token, 0, round % 2 ? &injected : NULL), ASIDE_OK);
        int fd = descriptor_of(token);
        CHECK(readable_within_ms(fd, 20000));
        atomic_store(&firing.fired, false);
        atomic_store(&firing.token, token);
        bool gap = false;
        while (!atomic_load(&firing.fired))
            gap |= !readable_within_ms(fd, 0);
        gaps += gap;
        CHECK_STATUS(aside_cancel_status(token), ASIDE_E_CANCELLED);
        aside_cancel_unref(token);
    }
    atomic_store(&firing.stop, true);
    thread_join(thread);
    CHECK_INT(gaps, 0);
}

TEST(a_descriptor_that_is_made_after_the_deadline_on_a_clock_of_ones_own_is_readable)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    for (int of_parent = 0; of_parent <= 1; of_parent++) {
        aside_cancel *parent = token_new(), *child = NULL, *early;
        CHECK_STATUS(aside_cancel_child(parent, &child), ASIDE_OK);
        CHECK_STATUS(aside_cancel_set_deadline(of_parent ? parent : child, 100, &injected),
                     ASIDE_OK);
        CHECK_STATUS(aside_cancel_child(child, &early), ASIDE_OK);
        int fd = descriptor_of(early);
        fake_clock_advance_ms(&clock, 99, NULL);
        CHECK(!readable_within_ms(fd, 0));
        CHECK(!readable_within_ms(descriptor_of(early), 0));
        fake_clock_advance_ms(&clock, 1, NULL);
        CHECK(readable_within_ms(descriptor_of(child), 20000)); /* nobody has asked */
        CHECK(readable_within_ms(descriptor_of(child), 0));
        CHECK_INT(descriptor_of(early), fd); /* to ask for it again is to ask */
        CHECK(readable_within_ms(fd, 20000));
        aside_cancel_unref(early);
        aside_cancel_unref(child);
        aside_cancel_unref(parent);
    }
}

/* ---- joiners of a group's flight ----------------------------------------------------------------- */

struct crowd {
    aside_group *group;
    _Atomic long joined, led;
    bool closing;
};

static aside_status answer_soon(aside_fetch *fetch, void *arg)
{
    (void)arg;
    for (uint64_t i = test_random() % 4; i > 0; i--)
        test_yield();
    return aside_fetch_copy(fetch, "abc", 3);
}

static void *ask_many_times(void *arg)
{
    struct crowd *crowd = (struct crowd *)arg;
    for (long round = test_rounds(1500); round > 0; round--) {
        aside_call call = ASIDE_CALL_INIT;
        aside_result result = ASIDE_RESULT_INIT;
        call.fetch = answer_soon;
        aside_status status = aside_group_do(crowd->group, ASIDE_STR("k"), &call, &result);
        if (crowd->closing && status == ASIDE_E_CLOSED)
            break;
        CHECK_STATUS(status, ASIDE_OK);
        CHECK(value_is(result.value, "abc"));
        atomic_fetch_add(result.outcome == ASIDE_OUTCOME_JOINED ? &crowd->joined : &crowd->led, 1);
        aside_value_unref(result.value);
        if (round % 64 == 0)
            (void)aside_group_forget(crowd->group, ASIDE_STR("k"));
    }
    return NULL;
}

static void check_crowd(enum kind kind, bool closing)
{
    enum { ASKERS = 6 };
    struct crowd crowd;
    struct ledger ledger;
    aside_options options = ageless_options();
    pthread_t threads[ASKERS];
    memset(&crowd, 0, sizeof crowd);
    if (kind == GROUP_WITH_ALLOCATOR)
        options.alloc = ledger_init(&ledger);
    crowd.group = group_open(&options);
    crowd.closing = closing;
    for (int i = 0; i < ASKERS; i++)
        threads[i] = thread_start(ask_many_times, &crowd);
    if (closing) {
        WAIT_UNTIL(crowd.joined + crowd.led > 20);
        CHECK_STATUS(aside_group_close(crowd.group), ASIDE_OK);
    }
    for (int i = 0; i < ASKERS; i++)
        thread_join(threads[i]);
    CHECK(closing || crowd.joined > 0 || test_rounds(100) < 100);
    aside_group_unref(crowd.group);
}

TEST_LIMIT(who_joins_a_groups_flight_is_never_told_ok_without_a_value, 120)
{
    perturb(test_random() | 1);
    for (int kind = PLAIN_GROUP; kind <= GROUP_WITH_ALLOCATOR; kind++)
        check_crowd((enum kind)kind, false);
    for (long round = test_rounds(50); round > 0; round--)
        check_crowd(round % 2 ? PLAIN_GROUP : GROUP_WITH_ALLOCATOR, true);
    perturb(0);
}

/* ---- cancellation that is pending ---------------------------------------------------------------- */

struct pending {
    aside_cache *cache;
    aside_cancel *token, *dropped;
    struct caller caller;
    _Atomic(aside_job *) job;
    _Atomic int retained, released, destroyed;
    _Atomic bool came_back;
};

static aside_status keep_job(void *ctx, aside_job *job)
{
    struct pending *pending = (struct pending *)ctx;
    atomic_store(&pending->job, job);
    return ASIDE_OK;
}

static void count_retain(void *arg)
{
    struct pending *pending = (struct pending *)arg;
    atomic_fetch_add(&pending->retained, 1);
}

static void release_at_a_cancellation_point(void *arg)
{
    struct pending *pending = (struct pending *)arg;
    pthread_testcancel();
    atomic_fetch_add(&pending->released, 1);
}

/* From here on every cancellation point ends the thread. */
static void be_cancelled(void)
{
    int before = -1;
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before), 0);
    CHECK_INT(before, PTHREAD_CANCEL_ENABLE);
    CHECK_INT(pthread_cancel(pthread_self()), 0);
}

static void come_back(struct pending *pending)
{
    int before = -1;
    atomic_store(&pending->came_back, true);
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before), 0);
    CHECK_INT(before, PTHREAD_CANCEL_ENABLE); /* as it was */
    pthread_testcancel();
    CHECK(!"the thread has ended");
}

static void *drop_the_job(void *arg)
{
    struct pending *pending = (struct pending *)arg;
    aside_job *job = atomic_load(&pending->job);
    be_cancelled();
    aside_job_drop(job);
    come_back(pending);
    return NULL;
}

static void *unref_the_token(void *arg)
{
    struct pending *pending = (struct pending *)arg;
    be_cancelled();
    aside_cancel_unref(pending->dropped);
    come_back(pending);
    return NULL;
}

TEST(a_thread_with_cancellation_pending_drops_a_job_whole)
{
    struct pending pending;
    struct ledger ledger;
    aside_options options = ageless_options();
    memset(&pending, 0, sizeof pending);
    options.alloc = ledger_init(&ledger);
    options.submit = (aside_submit){keep_job, &pending};
    pending.cache = open_cache(&options);
    pending.token = token_new();
    caller_init(&pending.caller, pending.cache, "k", never_run, &pending);
    pending.caller.call.arg_retain = count_retain;
    pending.caller.call.arg_release = release_at_a_cancellation_point;
    pending.caller.call.cancel = pending.token;
    caller_start(&pending.caller);
    WAIT_UNTIL(atomic_load(&pending.job) != NULL && STAT(pending.cache, waiters_now) == 1);
    aside_cancel_fire(pending.token); /* who drops it is the last who needs it */
    CHECK_STATUS(caller_join(&pending.caller), ASIDE_E_CANCELLED);
    CHECK(thread_join(thread_start(drop_the_job, &pending)) == PTHREAD_CANCELED);
    CHECK(pending.came_back);
    CHECK_INT(pending.retained, 1);
    CHECK_INT(pending.released, 1);
    CHECK_INT(STAT(pending.cache, flights_now), 0);
    aside_cancel_unref(pending.token);
    end_cache(pending.cache);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_thread_with_cancellation_pending_gives_a_token_back_whole)
{
    struct asking nothing = {NULL, ASIDE_OK, true, 0};
    /* a sanitizer may open a descriptor of its own with the first thread */
    thread_join(thread_start(ask_over_and_over, &nothing));
    int descriptors = process_descriptors();
    for (int fired = 0; fired <= 1; fired++) {
        struct pending pending;
        memset(&pending, 0, sizeof pending);
        pending.dropped = token_new();
        CHECK(descriptor_of(pending.dropped) >= 0);
        CHECK_INT(process_descriptors(), descriptors + 1);
        if (fired)
            aside_cancel_fire(pending.dropped);
        CHECK(thread_join(thread_start(unref_the_token, &pending)) == PTHREAD_CANCELED);
        CHECK(pending.came_back);
        CHECK_INT(process_descriptors(), descriptors);
    }
}

/* ---- a clock at which another thread closes the cache -------------------------------------------- */

struct closing {
    struct acting_clock clock;
    struct ledger ledger;
    struct tally tally;
    struct source source;
    int fetches; /* that had begun by then */
    aside_cache *cache;
};

static void *close_it(void *arg)
{
    struct closing *closing = (struct closing *)arg;
    CHECK_STATUS(aside_close(closing->cache), ASIDE_OK);
    closing->fetches = closing->source.fetches;
    return NULL;
}

static aside_status get_there(struct closing *closing)
{
    return look(closing->cache, "there");
}

static aside_status copy_there(struct closing *closing)
{
    return aside_copy(closing->cache, ASIDE_STR("there"), NULL, 0, NULL);
}

static void never_mind(const void *data, size_t size, void *ctx)
{
    (void)data;
    (void)size;
    (void)ctx;
}

static aside_status visit_there(struct closing *closing)
{
    return aside_visit(closing->cache, ASIDE_STR("there"), never_mind, NULL);
}

static aside_status set_there(struct closing *closing)
{
    return aside_set(closing->cache, ASIDE_STR("there"), ASIDE_STR("new"), 1000);
}

static aside_status set_value_there(struct closing *closing)
{
    return tally_set(&closing->tally, closing->cache, "there", 10, 1000);
}

static aside_status add_absent(struct closing *closing)
{
    return aside_add(closing->cache, ASIDE_STR("absent"), ASIDE_STR("new"), 1000);
}

static aside_status add_nothing_there(struct closing *closing)
{
    return aside_add(closing->cache, ASIDE_STR("there"), ASIDE_STR("new"), 0);
}

static aside_status add_nothing_absent(struct closing *closing)
{
    return aside_add(closing->cache, ASIDE_STR("absent"), ASIDE_STR("new"), 0);
}

static aside_status delete_there(struct closing *closing)
{
    return aside_delete(closing->cache, ASIDE_STR("there"));
}

static aside_status expire_there(struct closing *closing)
{
    return aside_expire(closing->cache, ASIDE_STR("there"));
}

static aside_status touch_there(struct closing *closing)
{
    return aside_touch(closing->cache, ASIDE_STR("there"), 1000);
}

static aside_status fetch_there(struct closing *closing)
{
    return ask(closing->cache, "there", &closing->source);
}

static aside_status fetch_absent(struct closing *closing)
{
    return ask(closing->cache, "absent", &closing->source);
}

static const struct {
    aside_status (*call)(struct closing *closing);
    aside_status says; /* of a cache that stays open */
} timed_calls[] = {{get_there, ASIDE_OK},
                   {copy_there, ASIDE_E_BUFFER},
                   {visit_there, ASIDE_OK},
                   {set_there, ASIDE_OK},
                   {set_value_there, ASIDE_OK},
                   {add_absent, ASIDE_OK},
                   {add_nothing_there, ASIDE_EXISTS},
                   {add_nothing_absent, ASIDE_OK},
                   {delete_there, ASIDE_OK},
                   {expire_there, ASIDE_OK},
                   {touch_there, ASIDE_OK},
                   {fetch_there, ASIDE_OK},
                   {fetch_absent, ASIDE_OK}};

/* False: the call does not look at the clock that often. */
static bool call_while_closed(size_t nth, int reading, aside_status *status)
{
    static struct closing closing;
    aside_options options = quiet_options();
    options.close_wait_ms = 0; /* what it would wait for waits for it */
    options.alloc = ledger_init(&closing.ledger);
    options.clock = acting_clock_init(&closing.clock, close_it, &closing);
    closing.tally.made = closing.tally.freed = closing.tally.slot[0] = 0;
    source_init(&closing.source, "fetched", false);
    closing.cache = open_cache(&options);
    put(closing.cache, "there", "old", 1000);
    acting_clock_arm(&closing.clock, reading);
    *status = timed_calls[nth].call(&closing);
    bool closed = acting_clock_disarm(&closing.clock);
    CHECK_STATUS(aside_health(closing.cache), closed ? ASIDE_E_CLOSED : ASIDE_OK);
    CHECK_INT(STAT(closing.cache, store_refused), 0);
    CHECK_INT(STAT(closing.cache, refused), 0); /* which is for callers of an open cache */
    CHECK_INT(STAT(closing.cache, misses_led), closing.source.fetches);
    CHECK_INT(STAT(closing.cache, flights_now), 0);
    CHECK(!closed || closing.source.fetches == closing.fetches); /* none begins after that */
    end_cache(closing.cache);
    CHECK_INT(closing.tally.freed, closing.tally.made);
    CHECK_INT(closing.ledger.live_blocks, 0);
    return closed;
}

TEST(a_cache_that_is_closed_at_any_instant_of_a_call_does_it_or_says_so)
{
    for (size_t i = 0; i < COUNT_OF(timed_calls); i++) {
        aside_status status;
        int reading = 1, refusals = 0;
        for (; call_while_closed(i, reading, &status); reading++) {
            CHECK(reading < 100);
            if (status == ASIDE_E_CLOSED)
                refusals++;
            else
                CHECK_STATUS(status, timed_calls[i].says);
        }
        CHECK_STATUS(status, timed_calls[i].says);
        CHECK(refusals > 0);
    }
}

struct group_closing {
    struct acting_clock clock;
    struct source source;
    int fetches; /* that had begun by then */
    aside_group *group;
};

static void *close_group(void *arg)
{
    struct group_closing *closing = (struct group_closing *)arg;
    CHECK_STATUS(aside_group_close(closing->group), ASIDE_OK);
    closing->fetches = closing->source.fetches;
    return NULL;
}

/* False: the call does not look at the clock that often. */
static bool do_while_closed(int reading, aside_status *status)
{
    static struct group_closing closing;
    struct ledger ledger;
    aside_options options = quiet_options();
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .arg = &closing.source};
    aside_result result = ASIDE_RESULT_INIT;
    aside_stats stats;
    options.close_wait_ms = 0;
    options.alloc = ledger_init(&ledger);
    options.clock = acting_clock_init(&closing.clock, close_group, &closing);
    source_init(&closing.source, "fetched", false);
    closing.group = group_open(&options);
    acting_clock_arm(&closing.clock, reading);
    *status = aside_group_do(closing.group, ASIDE_STR("key"), &call, &result);
    CHECK((*status == ASIDE_OK) == value_is(result.value, "fetched"));
    aside_value_unref(result.value);
    bool closed = acting_clock_disarm(&closing.clock);
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(aside_group_stats_get(closing.group, &stats), ASIDE_OK);
    CHECK_INT(stats.refused, 0);
    CHECK_INT(stats.misses_led, closing.source.fetches);
    CHECK_INT(stats.flights_now, 0);
    CHECK(!closed || closing.source.fetches == closing.fetches);
    aside_group_unref(closing.group);
    CHECK_INT(ledger.live_blocks, 0);
    return closed;
}

TEST(a_group_that_is_closed_at_any_instant_of_a_call_does_it_or_says_so)
{
    aside_status status;
    int reading = 1, refusals = 0;
    for (; do_while_closed(reading, &status); reading++) {
        CHECK(reading < 100);
        if (status == ASIDE_E_CLOSED)
            refusals++;
        else
            CHECK_STATUS(status, ASIDE_OK);
    }
    CHECK_STATUS(status, ASIDE_OK);
    CHECK(refusals > 0);
}

/* ---- options that contradict each other ---------------------------------------------------------- */

static aside_status open_both(const aside_options *options)
{
    static char nothing;
    aside_cache *cache = (aside_cache *)(void *)&nothing;
    aside_group *group = (aside_group *)(void *)&nothing;
    aside_status status = aside_open(&cache, options);
    CHECK_STATUS(aside_group_new(&group, options), status);
    CHECK((cache != NULL) == (status == ASIDE_OK));
    CHECK((group != NULL) == (status == ASIDE_OK));
    aside_unref(cache);
    aside_group_unref(group);
    return status;
}

TEST(contexts_for_workers_and_an_executor_of_ones_own_exclude_each_other)
{
    aside_options options = quiet_options();
    options.worker.start = start_worker;
    CHECK_STATUS(open_both(&options), ASIDE_OK);
    options.submit.fn = keep_job;
    CHECK_STATUS(open_both(&options), ASIDE_E_INVALID);
    options.worker.start = NULL;
    CHECK_STATUS(open_both(&options), ASIDE_OK);
}
