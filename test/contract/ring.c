/*
 * ring.c -- fetches that wait for each other (F9): a ring over any number of threads, workers and
 * caches is found at once by the call that would close it, and what is no ring is not reported.
 * Nothing here ever grows too old, so that nothing but the detection can end a ring.
 */
#include "helpers.h"

#define MOST 5 /* members of one ring */

/* ---- members ------------------------------------------------------------------------------------- */

/* A key whose fetch waits at its gate, asks for the key of `next`, and answers its own key. */
struct member {
    aside_cache *cache;
    char key[4];
    struct member *next;    /* NULL: its fetch asks for nobody */
    struct source *instead; /* what fetches the next key if this member has to lead it */
    aside_cancel *token;    /* of the caller: with one the fetch runs on a worker */
    aside_cancel *inner_token;
    int64_t inner_timeout_ms;
    struct gate gate;  /* before it asks */
    struct gate after; /* and after that; open unless a test says otherwise */
    struct caller caller;
    aside_status inner;          /* what it was told */
    aside_outcome inner_outcome; /* and how */
    _Atomic int fetches, asked;
};

static aside_status member_fetch(aside_fetch *fetch, void *arg)
{
    struct member *member = (struct member *)arg;
    atomic_fetch_add(&member->fetches, 1);
    gate_pass(&member->gate);
    if (member->next != NULL) {
        struct caller inner;
        caller_init(&inner, member->next->cache, member->next->key, member_fetch, member->next);
        if (member->instead != NULL) {
            inner.call.fetch = source_fetch;
            inner.call.arg = member->instead;
        }
        inner.call.cancel = member->inner_token;
        inner.call.timeout_ms = member->inner_timeout_ms;
        member->inner = caller_run(&inner);
        member->inner_outcome = inner.result.outcome;
        caller_drop(&inner);
    }
    atomic_fetch_add(&member->asked, 1);
    gate_pass(&member->after);
    return aside_fetch_copy(fetch, member->key, strlen(member->key));
}

/* The number-th member, called "a" and so on. */
static void member_init(struct member *member, aside_cache *cache, int number, struct member *next)
{
    memset(member, 0, sizeof *member);
    member->cache = cache;
    snprintf(member->key, sizeof member->key, "%c", 'a' + number);
    member->next = next;
    gate_init(&member->gate);
    gate_init(&member->after);
    gate_open(&member->after);
}

/* Starts its caller; returns once its fetch stands at the gate. */
static void member_start(struct member *member)
{
    caller_init(&member->caller, member->cache, member->key, member_fetch, member);
    member->caller.call.cancel = member->token;
    caller_start(&member->caller);
    gate_wait_arrived(&member->gate, 1);
}

/* Joins its caller, who must have got the fetch's own key. */
static void member_end(struct member *member)
{
    CHECK_STATUS(caller_join(&member->caller), ASIDE_OK);
    CHECK(value_is(member->caller.result.value, member->key));
    caller_drop(&member->caller);
}

/* ---- at rest ------------------------------------------------------------------------------------- */

static aside_options ageless_options(void)
{
    aside_options options = quiet_options();
    options.max_flight_age_ms = ASIDE_FOREVER;
    return options;
}

static aside_cache *open_ageless(void)
{
    aside_options options = ageless_options();
    return open_cache(&options);
}

/* All flights have ended, and every one of `calls`, all to get_with_fetch, counted once (S1). */
static void check_rest(aside_cache *cache, uint64_t calls)
{
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    aside_stats stats = test_stats(cache);
    CHECK_INT(stats.waiters_now, 0);
    CHECK_INT(stats.queued_now, 0);
    CHECK_INT(stats.hits + stats.misses_led + stats.misses_joined + stats.refused, calls);
    CHECK_INT(stats.get_with_fetch_ok + stats.get_with_fetch_none + stats.get_with_fetch_error,
              calls);
    CHECK_INT(stats.superseded, 0);
}

/* The next call of a key works. */
static void check_usable(aside_cache *cache, const char *key)
{
    struct source source;
    source_init(&source, "again", false);
    aside_delete(cache, key, strlen(key));
    CHECK_STATUS(ask(cache, key, &source), ASIDE_OK);
    CHECK_INT(source.fetches, 1);
    CHECK(holds(cache, key, "again"));
}

/* ---- rings that are closed one by one ------------------------------------------------------------ */

/* What a ring is made of. */
struct ring {
    aside_cache *caches[2]; /* of the even and of the odd members; may be the same */
    int count;
    unsigned workers; /* bit i: the fetch of member i runs on a worker, its caller having a token */
    bool inner_tokens;
    int64_t inner_timeout_ms;
};

static unsigned waiting_in(const struct ring *ring)
{
    uint64_t waiters = STAT(ring->caches[0], waiters_now);
    if (ring->caches[1] != ring->caches[0])
        waiters += STAT(ring->caches[1], waiters_now);
    return (unsigned)waiters;
}

static void shuffle(int *order, int count)
{
    for (int i = 0; i < count; i++)
        order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        int k = (int)(test_random() % (unsigned)(i + 1)), was = order[i];
        order[i] = order[k];
        order[k] = was;
    }
}

static void ring_start(const struct ring *ring, struct member *members, aside_cancel *token)
{
    unsigned waiters = 0;
    for (int i = 0; i < ring->count; i++) {
        member_init(&members[i], ring->caches[i % 2], i, &members[(i + 1) % ring->count]);
        members[i].token = ring->workers >> i & 1 ? token : NULL;
        members[i].inner_token = ring->inner_tokens ? token : NULL;
        members[i].inner_timeout_ms = ring->inner_timeout_ms;
        waiters += ring->workers >> i & 1;
    }
    for (int i = 0; i < ring->count; i++)
        member_start(&members[i]);
    WAIT_UNTIL(waiting_in(ring) == waiters);
}

/* Lets the members ask one after the other, in any order: the last one closes the ring, and nobody
 * else is told so. */
static void check_ring(const struct ring *ring)
{
    static struct member members[MOST];
    aside_cancel *token = token_new();
    int order[MOST], last;
    ring_start(ring, members, token);
    unsigned waiters = waiting_in(ring);
    shuffle(order, ring->count);
    last = order[ring->count - 1];
    for (int i = 0; i < ring->count; i++) {
        struct member *member = &members[order[i]];
        gate_open(&member->gate);
        waiters += order[i] != last;
        if (order[i] != last)
            WAIT_UNTIL(waiting_in(ring) == waiters);
    }
    for (int i = 0; i < ring->count; i++)
        member_end(&members[i]);
    for (int i = 0; i < ring->count; i++) {
        CHECK_STATUS(members[i].inner, i == last ? ASIDE_E_DEADLOCK : ASIDE_OK);
        CHECK_INT(members[i].fetches, 1);
        if (i != last)
            CHECK_INT(members[i].inner_outcome, ASIDE_OUTCOME_JOINED);
    }
    aside_cancel_unref(token);
}

/* As check_ring, in caches of its own, with what must hold afterwards. */
static void check_ring_alone(struct ring ring, bool two_caches)
{
    ring.caches[0] = open_ageless();
    ring.caches[1] = two_caches ? open_ageless() : ring.caches[0];
    check_ring(&ring);
    int even = (ring.count + 1) / 2; /* calls for their keys: by their callers, by who is before */
    check_rest(ring.caches[0], 2 * (uint64_t)(two_caches ? even : ring.count));
    if (two_caches)
        check_rest(ring.caches[1], 2 * (uint64_t)(ring.count - even));
    for (int i = 0; i < ring.count; i++) {
        char key[2] = {(char)('a' + i), 0};
        CHECK(holds(ring.caches[i % 2], key, key)); /* each fetch went on, and was stored */
        check_usable(ring.caches[i % 2], key);
    }
    if (two_caches)
        end_cache(ring.caches[1]);
    end_cache(ring.caches[0]);
}

TEST(a_ring_of_two_threads_is_found_by_who_closes_it)
{
    struct ring ring = {.count = 2};
    for (int i = 0; i < 10; i++)
        check_ring_alone(ring, false);
}

TEST(a_ring_of_two_workers_is_found_by_who_closes_it)
{
    struct ring ring = {.count = 2, .workers = 3};
    for (int i = 0; i < 10; i++)
        check_ring_alone(ring, false);
}

TEST(a_ring_of_three_four_or_five_is_found_however_threads_and_workers_are_mixed)
{
    for (int count = 3; count <= MOST; count++) {
        for (unsigned workers = 0; workers < 1u << count; workers++) {
            struct ring ring = {.count = count, .workers = workers};
            check_ring_alone(ring, false);
        }
    }
}

TEST(a_ring_over_two_caches_is_found)
{
    for (int count = 2; count <= MOST; count++) {
        for (unsigned workers = 0; workers < 1u << count; workers += 3) {
            struct ring ring = {.count = count, .workers = workers};
            check_ring_alone(ring, true);
        }
    }
}

TEST(a_ring_whose_callers_could_leave_by_a_token_or_a_deadline_is_found_at_once)
{
    for (int inner = 0; inner < 3; inner++) {
        for (unsigned workers = 0; workers < 8; workers++) {
            struct ring ring = {.count = 3, .workers = workers, .inner_tokens = inner != 1};
            ring.inner_timeout_ms = inner == 0 ? 0 : INT64_C(86400000);
            check_ring_alone(ring, workers % 2 == 1);
        }
    }
}

TEST(rings_one_after_the_other_in_one_cache_are_all_found)
{
    aside_cache *cache = open_ageless();
    uint64_t calls = 0;
    for (int i = 0; i < 40; i++) {
        struct ring ring = {.caches = {cache, cache}, .count = 2 + i % (MOST - 1)};
        ring.workers = (unsigned)test_random();
        ring.inner_tokens = i % 3 == 0;
        check_ring(&ring);
        calls += 2 * (uint64_t)ring.count;
        check_rest(cache, calls);
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    }
    end_cache(cache);
}

TEST(the_call_that_is_refused_is_told_that_it_led_and_joined_nothing)
{
    aside_cache *cache = open_ageless();
    struct member a, b;
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    member_start(&a);
    member_start(&b);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&b.gate);
    member_end(&a);
    member_end(&b);
    CHECK_STATUS(b.inner, ASIDE_E_DEADLOCK);
    CHECK_INT(b.inner_outcome, ASIDE_OUTCOME_NONE);
    CHECK_INT(STAT(cache, refused), 1);
    CHECK_INT(STAT(cache, misses_joined), 1);
    CHECK_INT(STAT(cache, get_with_fetch_error), 1);
    check_rest(cache, 4);
    end_cache(cache);
}

/* ---- rings that are closed by all at once -------------------------------------------------------- */

TEST(of_a_ring_that_all_close_at_once_at_least_one_is_told_and_all_get_their_values)
{
    static struct member members[MOST];
    aside_cache *cache = open_ageless();
    aside_cancel *token = token_new();
    uint64_t calls = 0;
    for (long round = 0; round < test_rounds(150); round++) {
        struct ring ring = {.caches = {cache, cache}, .count = 2 + (int)(round % (MOST - 1))};
        ring.workers = (unsigned)test_random();
        ring.inner_tokens = test_random() % 2;
        perturb(test_random() | 1);
        ring_start(&ring, members, token);
        for (int i = 0; i < ring.count; i++)
            gate_open(&members[i].gate);
        int told = 0;
        for (int i = 0; i < ring.count; i++)
            member_end(&members[i]);
        perturb(0);
        for (int i = 0; i < ring.count; i++) {
            CHECK(members[i].inner == ASIDE_OK || members[i].inner == ASIDE_E_DEADLOCK);
            told += members[i].inner == ASIDE_E_DEADLOCK;
            calls += 2;
        }
        /* Who asks after another's value has been stored gets that, and closes no ring: but the first
         * value of a ring comes from one who was told. */
        CHECK(told >= 1);
        check_rest(cache, calls);
        CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    }
    for (int i = 0; i < MOST; i++)
        check_usable(cache, members[i].key);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- other ways to wait -------------------------------------------------------------------------- */

/* The ring goes through a fetch that a thread runs inside another one. */
TEST(a_ring_through_the_outer_fetch_of_a_thread_is_found)
{
    for (int through_outer = 0; through_outer <= 1; through_outer++) {
        for (int on_worker = 0; on_worker <= 1; on_worker++) {
            aside_cache *cache = open_ageless();
            aside_cancel *token = token_new();
            struct member a, b, c;
            member_init(&a, cache, 0, &b); /* its thread leads b as well */
            member_init(&b, cache, 1, &c);
            member_init(&c, cache, 2, through_outer ? &a : &b);
            a.token = c.token = on_worker ? token : NULL;
            member_start(&a);
            member_start(&c);
            gate_open(&a.gate);
            gate_wait_arrived(&b.gate, 1);
            unsigned waiters = on_worker ? 2 : 0;
            WAIT_UNTIL(STAT(cache, waiters_now) == waiters);
            gate_open(&c.gate);
            WAIT_UNTIL(STAT(cache, waiters_now) == waiters + 1);
            gate_open(&b.gate);
            member_end(&a);
            member_end(&c);
            CHECK_STATUS(a.inner, ASIDE_OK);
            CHECK_STATUS(b.inner, ASIDE_E_DEADLOCK);
            CHECK_STATUS(c.inner, ASIDE_OK);
            check_rest(cache, 5);
            aside_cancel_unref(token);
            end_cache(cache);
        }
    }
}

/* A thread that waits for the worker it has handed a fetch to waits for that fetch. */
TEST(a_ring_through_a_leader_that_waits_for_a_worker_is_found)
{
    for (int count = 2; count <= MOST; count++) {
        for (int on_worker = 0; on_worker <= 1; on_worker++) {
            struct member members[MOST];
            aside_cache *cache = open_ageless();
            aside_cancel *token = token_new();
            for (int i = 0; i < count; i++) {
                member_init(&members[i], cache, i, &members[(i + 1) % count]);
                members[i].inner_token = token;
                gate_open(&members[i].gate);
            }
            members[0].token = on_worker ? token : NULL;
            member_start(&members[0]);
            member_end(&members[0]);
            for (int i = 0; i < count; i++) {
                CHECK_STATUS(members[i].inner, i == count - 1 ? ASIDE_E_DEADLOCK : ASIDE_OK);
                CHECK_INT(members[i].fetches, 1);
            }
            check_rest(cache, (uint64_t)count + 1);
            for (int i = 0; i < count; i++)
                CHECK(holds(cache, members[i].key, members[i].key));
            aside_cancel_unref(token);
            end_cache(cache);
        }
    }
}

static aside_status start_worker(void *ctx, void **worker)
{
    *worker = ctx;
    return ASIDE_OK;
}

static void stop_worker(void *ctx, void *worker)
{
    CHECK(worker == ctx);
}

TEST(a_ring_is_found_where_fetches_run_on_workers_only)
{
    for (int inner_tokens = 0; inner_tokens <= 1; inner_tokens++) {
        for (int count = 2; count <= MOST; count++) {
            aside_options options = ageless_options();
            int context;
            options.worker = (aside_worker){start_worker, stop_worker, &context};
            aside_cache *cache = open_cache(&options);
            static struct member members[MOST];
            aside_cancel *token = token_new();
            /* every caller waits for a worker, token or not */
            for (int i = 0; i < count; i++) {
                member_init(&members[i], cache, i, &members[(i + 1) % count]);
                members[i].token = i % 2 ? token : NULL;
                members[i].inner_token = inner_tokens ? token : NULL;
                member_start(&members[i]);
            }
            unsigned waiters = (unsigned)count;
            for (int i = 0; i < count; i++) {
                WAIT_UNTIL(STAT(cache, waiters_now) == waiters);
                gate_open(&members[i].gate);
                waiters++;
            }
            for (int i = 0; i < count; i++)
                member_end(&members[i]);
            for (int i = 0; i < count; i++)
                CHECK_STATUS(members[i].inner, i == count - 1 ? ASIDE_E_DEADLOCK : ASIDE_OK);
            check_rest(cache, 2 * (uint64_t)count);
            aside_cancel_unref(token);
            end_cache(cache);
        }
    }
}

/* Threads of one's own that run the jobs. */
struct submitter {
    pthread_t threads[2 * MOST];
    _Atomic int count;
};

static void *run_job(void *arg)
{
    aside_job_run((aside_job *)arg, NULL);
    return NULL;
}

static aside_status submit_to_a_thread(void *ctx, aside_job *job)
{
    struct submitter *submitter = (struct submitter *)ctx;
    int number = atomic_fetch_add(&submitter->count, 1);
    CHECK(number < (int)COUNT_OF(submitter->threads));
    submitter->threads[number] = thread_start(run_job, job);
    return ASIDE_OK;
}

TEST(a_ring_over_the_threads_of_an_executor_of_ones_own_is_found)
{
    for (int count = 2; count <= MOST; count++) {
        struct submitter submitter;
        memset(&submitter, 0, sizeof submitter);
        aside_options options = ageless_options();
        options.submit = (aside_submit){submit_to_a_thread, &submitter};
        aside_cache *cache = open_cache(&options);
        struct ring ring = {.caches = {cache, cache}, .count = count, .workers = ~1u};
        check_ring(&ring);
        check_rest(cache, 2 * (uint64_t)count);
        for (int i = 0; i < atomic_load(&submitter.count); i++)
            thread_join(submitter.threads[i]);
        end_cache(cache);
    }
}

/* Whoever waits in a pool of one runs what is queued himself, and is found as well. */
TEST(a_ring_through_a_queued_fetch_that_its_waiter_runs_is_found)
{
    aside_options options = ageless_options();
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct member a, b, c;
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &c); /* queued by a, the only worker, which has to run it */
    member_init(&c, cache, 2, &a);
    a.token = a.inner_token = token;
    member_start(&a);
    member_start(&c);
    gate_open(&a.gate);
    gate_wait_arrived(&b.gate, 1);
    gate_open(&c.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2); /* the caller of a, and c's fetch */
    gate_open(&b.gate);
    member_end(&a);
    member_end(&c);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_E_DEADLOCK);
    CHECK_STATUS(c.inner, ASIDE_OK);
    check_rest(cache, 5);
    aside_cancel_unref(token);
    end_cache(cache);
}

static struct gate *retain_gate;

static void retain_slowly(void *arg)
{
    (void)arg;
    gate_pass(retain_gate);
}

static void release_at_once(void *arg)
{
    (void)arg;
}

/* Between the instant from which a flight can be joined and the one at which its fetch lies in the
 * queue its leader may be held up: arg_retain shows it. Whoever joins it then must not wait for a
 * worker that waits for him. */
static void check_early_joiner(bool on_worker)
{
    aside_options options = ageless_options();
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct gate retain;
    struct source source, held;
    struct member a, b;
    struct caller leader, busy;
    source_init(&source, "b", false);
    source_init(&held, "held", true);
    gate_init(&retain);
    retain_gate = &retain;
    member_init(&b, cache, 1, NULL);
    gate_open(&b.gate);
    member_init(&a, cache, 0, &b);
    a.token = on_worker ? token : NULL; /* else the only worker is taken by another */
    member_start(&a);
    if (!on_worker) {
        caller_ask(&busy, cache, "busy", &held, token);
        caller_start(&busy);
        gate_wait_arrived(&held.gate, 1);
    }
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    caller_ask(&leader, cache, "b", &source, token);
    leader.call.arg_retain = retain_slowly;
    leader.call.arg_release = release_at_once;
    caller_start(&leader);
    gate_wait_arrived(&retain, 1);
    gate_open(&a.gate); /* a waits for b, which is not in the queue yet, or has led it himself */
    WAIT_UNTIL(STAT(cache, waiters_now) == 2 || atomic_load(&a.asked) == 1);
    gate_open(&retain);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    member_end(&a);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_INT(atomic_load(&source.fetches) + atomic_load(&b.fetches), 1);
    caller_drop(&leader);
    if (!on_worker) {
        CHECK_INT(held.finished, 0);
        gate_open(&held.gate);
        CHECK_STATUS(caller_join(&busy), ASIDE_OK);
        caller_drop(&busy);
    }
    check_rest(cache, on_worker ? 3 : 4);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_fetch_that_the_only_worker_waits_for_before_it_is_queued_runs_all_the_same)
{
    check_early_joiner(true);
}

TEST(a_fetch_that_a_thread_inside_a_fetch_waits_for_before_it_is_queued_runs_all_the_same)
{
    check_early_joiner(false);
}

TEST(who_waits_inside_a_fetch_for_one_that_is_not_queued_yet_waits_no_longer_than_its_age)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.clock = fake_clock_init(&clock);
    options.max_flight_age_ms = 1000;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct gate retain;
    struct source source;
    struct member a, b;
    struct caller leader;
    source_init(&source, "b", false);
    gate_init(&retain);
    retain_gate = &retain;
    member_init(&b, cache, 1, NULL); /* only its key */
    member_init(&a, cache, 0, &b);
    caller_ask(&leader, cache, "b", &source, token);
    leader.call.arg_retain = retain_slowly;
    leader.call.arg_release = release_at_once;
    caller_start(&leader);
    gate_wait_arrived(&retain, 1);
    fake_clock_advance_ms(&clock, 500, cache);
    member_start(&a);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    fake_clock_advance_ms(&clock, 501, cache); /* b is too old, a is not */
    member_end(&a);
    CHECK_STATUS(a.inner, ASIDE_E_FETCH_TIMEOUT);
    CHECK(holds(cache, "a", "a"));
    gate_open(&retain);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_FETCH_TIMEOUT);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_STATUS(look(cache, "b"), ASIDE_MISS);
    CHECK_INT(STAT(cache, superseded), 1);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* The executor runs the job before its hook returns: then the leader's thread is inside the fetch. */
static aside_status submit_and_run(void *ctx, aside_job *job)
{
    aside_job_run(job, ctx);
    return ASIDE_OK;
}

TEST(a_ring_through_an_executor_that_runs_its_jobs_at_once_is_found)
{
    for (int last = 0; last <= 1; last++) { /* who closes it */
        aside_options options = ageless_options();
        options.submit = (aside_submit){submit_and_run, NULL};
        aside_cache *cache = open_cache(&options);
        aside_cancel *token = token_new();
        struct member a, b, c;
        member_init(&a, cache, 0, &b);
        member_init(&b, cache, 1, &c); /* led by a's thread, and run at once */
        member_init(&c, cache, 2, &b);
        a.inner_token = token;
        member_start(&a);
        member_start(&c);
        gate_open(&a.gate);
        gate_wait_arrived(&b.gate, 1);
        gate_open(last ? &b.gate : &c.gate);
        WAIT_UNTIL(STAT(cache, waiters_now) == 1);
        gate_open(last ? &c.gate : &b.gate);
        member_end(&a);
        member_end(&c);
        CHECK_STATUS(a.inner, ASIDE_OK);
        CHECK_STATUS(last ? c.inner : b.inner, ASIDE_E_DEADLOCK);
        CHECK_STATUS(last ? b.inner : c.inner, ASIDE_OK);
        check_rest(cache, 5);
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

/* The hook hands the job to a thread that stands at a gate yet, and waits itself for a fetch that
 * waits for the fetch which that job is: the hook's thread is not inside that one. */
struct hook_that_waits {
    struct member *awaited;
    struct gate gate;
    pthread_t runner;
    aside_job *job;
    aside_status said;
};

static void *run_after_the_gate(void *arg)
{
    struct hook_that_waits *hook = (struct hook_that_waits *)arg;
    gate_pass(&hook->gate);
    aside_job_run(hook->job, NULL);
    return NULL;
}

static aside_status submit_and_wait(void *ctx, aside_job *job)
{
    struct hook_that_waits *hook = (struct hook_that_waits *)ctx;
    struct member *awaited = hook->awaited;
    struct caller caller;
    hook->job = job;
    hook->runner = thread_start(run_after_the_gate, hook);
    gate_open(&awaited->gate);
    WAIT_UNTIL(STAT(awaited->cache, waiters_now) == 1);
    caller_init(&caller, awaited->cache, awaited->key, member_fetch, awaited);
    hook->said = caller_run(&caller);
    caller_drop(&caller);
    return ASIDE_OK;
}

TEST(a_submit_hook_may_wait_for_a_fetch_that_waits_for_the_one_it_has_handed_over)
{
    struct hook_that_waits hook;
    aside_options options = ageless_options();
    options.submit = (aside_submit){submit_and_wait, &hook};
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct member a, b;
    gate_init(&hook.gate);
    hook.awaited = &b;
    member_init(&a, cache, 0, NULL);
    member_init(&b, cache, 1, &a);
    gate_open(&a.gate);
    member_start(&b);
    caller_init(&a.caller, cache, "a", member_fetch, &a);
    a.caller.call.cancel = token;
    caller_start(&a.caller);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2); /* the fetch of b, and the hook */
    CHECK_INT(a.fetches, 0);
    gate_open(&hook.gate);
    member_end(&a);
    member_end(&b);
    thread_join(hook.runner);
    CHECK_STATUS(hook.said, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_OK);
    check_rest(cache, 4);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* A fetch that waits for one that was fenced meanwhile waits for it all the same. */
TEST(a_ring_through_a_flight_that_was_fenced_by_a_delete_is_found)
{
    for (unsigned workers = 0; workers < 4; workers++) {
        aside_cache *cache = open_ageless();
        aside_cancel *token = token_new();
        struct member a, b;
        member_init(&a, cache, 0, &b);
        member_init(&b, cache, 1, &a);
        a.token = workers & 1 ? token : NULL;
        b.token = workers & 2 ? token : NULL;
        member_start(&a);
        member_start(&b);
        unsigned waiters = (workers & 1) + (workers >> 1);
        WAIT_UNTIL(STAT(cache, waiters_now) == waiters);
        gate_open(&b.gate);
        WAIT_UNTIL(STAT(cache, waiters_now) == waiters + 1);
        CHECK_STATUS(aside_delete(cache, ASIDE_STR("a")), ASIDE_MISS);
        gate_open(&a.gate);
        CHECK_STATUS(caller_join(&a.caller), ASIDE_OK);
        CHECK_INT(a.caller.result.fenced, 1);
        caller_drop(&a.caller);
        member_end(&b);
        CHECK_STATUS(a.inner, ASIDE_E_DEADLOCK);
        CHECK_STATUS(b.inner, ASIDE_OK);
        check_rest(cache, 4);
        CHECK_STATUS(look(cache, "a"), ASIDE_MISS);
        CHECK(holds(cache, "b", "b"));
        check_usable(cache, "a");
        aside_cancel_unref(token);
        end_cache(cache);
    }
}

TEST(a_ring_through_a_wait_that_was_fenced_before_the_ring_was_closed_is_found)
{
    aside_cache *cache = open_ageless();
    struct member members[3];
    for (int i = 0; i < 3; i++)
        member_init(&members[i], cache, i, &members[(i + 1) % 3]);
    for (int i = 0; i < 3; i++)
        member_start(&members[i]);
    for (unsigned i = 0; i < 2; i++) {
        gate_open(&members[i].gate);
        WAIT_UNTIL(STAT(cache, waiters_now) == i + 1);
    }
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("b")), ASIDE_MISS); /* which a waits for */
    gate_open(&members[2].gate);
    for (int i = 0; i < 3; i++)
        member_end(&members[i]);
    CHECK_STATUS(members[2].inner, ASIDE_E_DEADLOCK);
    CHECK_STATUS(members[1].inner, ASIDE_OK);
    CHECK_STATUS(members[0].inner, ASIDE_OK);
    check_rest(cache, 6);
    check_usable(cache, "b");
    end_cache(cache);
}

TEST(a_ring_over_two_caches_one_of_which_was_cleared_meanwhile_is_found)
{
    aside_cache *cache = open_ageless(), *cleared = open_ageless();
    struct member a, b;
    member_init(&a, cache, 0, &b);
    member_init(&b, cleared, 1, &a);
    member_start(&a);
    member_start(&b);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cleared, waiters_now) == 1);
    CHECK_STATUS(aside_clear(cleared), ASIDE_OK); /* fences b, which a waits for */
    gate_open(&b.gate);
    member_end(&a);
    CHECK_STATUS(caller_join(&b.caller), ASIDE_OK);
    CHECK_INT(b.caller.result.fenced, 1);
    caller_drop(&b.caller);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_E_DEADLOCK);
    check_rest(cache, 2);
    check_rest(cleared, 2);
    check_usable(cleared, "b");
    end_cache(cache);
    end_cache(cleared);
}

/* Many wait for one member, others hang on the ring: only what closes it is refused. */
TEST(callers_that_only_wait_for_a_member_of_a_ring_get_its_value)
{
    enum { OUTSIDERS = 6 };
    aside_cache *cache = open_ageless();
    aside_cancel *token = token_new();
    struct member a, b, tail;
    struct caller outsiders[OUTSIDERS];
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    member_init(&tail, cache, 2, &a); /* waits for the ring, is no part of it */
    member_start(&a);
    member_start(&b);
    member_start(&tail);
    gate_open(&tail.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    for (unsigned i = 0; i < OUTSIDERS; i++) {
        caller_init(&outsiders[i], cache, i % 2 ? "a" : "b", member_fetch, NULL);
        outsiders[i].call.cancel = i % 3 ? token : NULL;
        caller_start(&outsiders[i]);
        WAIT_UNTIL(STAT(cache, waiters_now) == 3 + i);
    }
    gate_open(&b.gate);
    member_end(&a);
    member_end(&b);
    member_end(&tail);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_E_DEADLOCK);
    CHECK_STATUS(tail.inner, ASIDE_OK);
    for (int i = 0; i < OUTSIDERS; i++) {
        CHECK_STATUS(caller_join(&outsiders[i]), ASIDE_OK);
        caller_drop(&outsiders[i]);
    }
    check_rest(cache, 6 + OUTSIDERS);
    aside_cancel_unref(token);
    end_cache(cache);
}

/* ---- what is no ring ----------------------------------------------------------------------------- */

TEST(a_chain_is_no_ring)
{
    for (int two_caches = 0; two_caches <= 1; two_caches++) {
        for (unsigned workers = 0; workers < 1u << MOST; workers++) {
            struct member members[MOST];
            aside_cache *first = open_ageless();
            struct ring ring = {.caches = {first, two_caches ? open_ageless() : first}};
            aside_cancel *token = token_new();
            int order[MOST];
            unsigned waiters = 0;
            for (int i = 0; i < MOST; i++) {
                member_init(&members[i], ring.caches[i % 2], i,
                            i + 1 < MOST ? &members[i + 1] : NULL);
                members[i].token = workers >> i & 1 ? token : NULL;
                waiters += workers >> i & 1;
            }
            for (int i = 0; i < MOST; i++)
                member_start(&members[i]);
            WAIT_UNTIL(waiting_in(&ring) == waiters);
            shuffle(order, MOST - 1);
            for (int i = 0; i < MOST - 1; i++) {
                gate_open(&members[order[i]].gate);
                waiters++;
                WAIT_UNTIL(waiting_in(&ring) == waiters);
            }
            gate_open(&members[MOST - 1].gate);
            for (int i = 0; i < MOST; i++) {
                member_end(&members[i]);
                CHECK_STATUS(members[i].inner, ASIDE_OK);
            }
            aside_cancel_unref(token);
            if (two_caches)
                end_cache(ring.caches[1]);
            end_cache(ring.caches[0]);
        }
    }
}

TEST(two_that_wait_for_a_third_which_waits_for_a_fourth_are_no_ring)
{
    aside_cache *cache = open_ageless();
    struct member members[4];
    member_init(&members[0], cache, 0, &members[2]);
    member_init(&members[1], cache, 1, &members[2]);
    member_init(&members[2], cache, 2, &members[3]);
    member_init(&members[3], cache, 3, NULL);
    for (int i = 0; i < 4; i++)
        member_start(&members[i]);
    for (unsigned i = 0; i < 3; i++) {
        gate_open(&members[i].gate);
        WAIT_UNTIL(STAT(cache, waiters_now) == i + 1);
    }
    gate_open(&members[3].gate);
    for (int i = 0; i < 4; i++) {
        member_end(&members[i]);
        CHECK_STATUS(members[i].inner, ASIDE_OK);
    }
    check_rest(cache, 7);
    end_cache(cache);
}

/* By what the inner caller of a leaves b, so that b may wait for a. */
enum way_out { BY_TOKEN, BY_PARENT, BY_DEADLINE, BY_TOKENS_DEADLINE, WAYS_OUT };

static void check_way_out(enum way_out way, unsigned workers)
{
    struct fake_clock clock;
    aside_options options = ageless_options();
    options.clock = fake_clock_init(&clock);
    aside_cache *cache = open_cache(&options);
    aside_cancel *outer = token_new(), *parent = token_new(), *token = NULL;
    struct member a, b;
    CHECK_STATUS(aside_cancel_child(parent, &token), ASIDE_OK);
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    gate_init(&a.after); /* closed */
    a.token = workers & 1 ? outer : NULL;
    b.token = workers & 2 ? outer : NULL;
    a.inner_token = token;
    a.inner_timeout_ms = way == BY_DEADLINE ? 100 : 0;
    if (way == BY_TOKENS_DEADLINE)
        CHECK_STATUS(aside_cancel_set_deadline(token, 100, &options.clock), ASIDE_OK);
    member_start(&a);
    member_start(&b);
    unsigned waiters = (workers & 1) + (workers >> 1);
    WAIT_UNTIL(STAT(cache, waiters_now) == waiters);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == waiters + 1); /* a waits for b */
    if (way == BY_TOKEN || way == BY_PARENT)
        aside_cancel_fire(way == BY_TOKEN ? token : parent);
    else
        fake_clock_advance_ms(&clock, 100, cache);
    gate_wait_arrived(&a.after, 1); /* no longer */
    CHECK_STATUS(a.inner,
                 way == BY_TOKEN || way == BY_PARENT ? ASIDE_E_CANCELLED : ASIDE_E_TIMEOUT);
    gate_open(&b.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == waiters + 1); /* b waits for a, and is not refused */
    CHECK_INT(b.asked, 0);
    gate_open(&a.after);
    member_end(&a);
    member_end(&b);
    CHECK_STATUS(b.inner, ASIDE_OK);
    check_rest(cache, 4);
    aside_cancel_unref(outer);
    aside_cancel_unref(parent);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(the_same_shape_is_no_ring_after_one_caller_in_it_has_left)
{
    for (int way = 0; way < WAYS_OUT; way++)
        for (unsigned workers = 0; workers < 4; workers++)
            check_way_out((enum way_out)way, workers);
}

TEST(a_wait_that_is_over_is_no_part_of_a_ring)
{
    aside_cache *cache = open_ageless();
    struct member a, b, c;
    member_init(&a, cache, 0, &c);
    member_init(&b, cache, 1, &a);
    member_init(&c, cache, 2, NULL);
    gate_init(&a.after); /* closed */
    member_start(&a);
    member_start(&b);
    member_start(&c);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1); /* a waits for c */
    gate_open(&c.gate);
    member_end(&c);
    gate_wait_arrived(&a.after, 1); /* and has got it */
    struct member d;                /* runs c's key again, and waits for b, which waits for a */
    member_init(&d, cache, 2, &b);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("c")), ASIDE_OK);
    member_start(&d);
    gate_open(&b.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&d.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    gate_open(&a.after);
    member_end(&a);
    member_end(&b);
    member_end(&d);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_OK);
    CHECK_STATUS(d.inner, ASIDE_OK);
    check_rest(cache, 7);
    end_cache(cache);
}

TEST(a_ring_that_a_delete_has_opened_before_is_none)
{
    aside_cache *cache = open_ageless();
    struct source fresh;
    struct member a, b;
    source_init(&fresh, "fresh", false);
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    b.instead = &fresh;
    member_start(&a);
    member_start(&b);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("a")), ASIDE_MISS);
    gate_open(&b.gate); /* leads a fetch of its own, for the one under way is fenced */
    CHECK_STATUS(caller_join(&a.caller), ASIDE_OK);
    CHECK_INT(a.caller.result.fenced, 1);
    caller_drop(&a.caller);
    member_end(&b);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_OK);
    CHECK_INT(fresh.fetches, 1);
    check_rest(cache, 4);
    CHECK(holds(cache, "a", "fresh"));
    end_cache(cache);
}

/* A hit, and a call that must not wait, wait for nobody. */
TEST(who_does_not_wait_closes_no_ring)
{
    aside_cache *cache = open_ageless();
    struct member a, b;
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    b.inner_timeout_ms = ASIDE_NO_WAIT;
    member_start(&a);
    member_start(&b);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&b.gate);
    member_end(&a);
    member_end(&b);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_MISS);

    aside_cancel *fired = token_new();
    aside_cancel_fire(fired);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    b.inner_token = fired;
    member_start(&a);
    member_start(&b);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    gate_open(&b.gate);
    member_end(&a);
    member_end(&b);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_E_CANCELLED);

    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    member_init(&a, cache, 0, &b);
    member_init(&b, cache, 1, &a);
    member_start(&a);
    member_start(&b);
    gate_open(&a.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    put(cache, "a", "set", ASIDE_FOREVER);
    gate_open(&b.gate);
    CHECK_STATUS(caller_join(&a.caller), ASIDE_OK);
    caller_drop(&a.caller);
    member_end(&b);
    CHECK_STATUS(a.inner, ASIDE_OK);
    CHECK_STATUS(b.inner, ASIDE_OK);
    CHECK_INT(b.inner_outcome, ASIDE_OUTCOME_HIT);
    check_rest(cache, 12);
    aside_cancel_unref(fired);
    end_cache(cache);
}

/* ---- a fetch that is pending --------------------------------------------------------------------- */

struct pending {
    aside_fetch *_Atomic fetch;
};

static aside_status leave_pending(aside_fetch *fetch, void *arg)
{
    atomic_store(&((struct pending *)arg)->fetch, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

/* The only worker has left a fetch pending, and goes on to another that waits for it in the end. */
TEST(the_thread_that_left_a_fetch_pending_may_wait_for_it_like_any_other)
{
    aside_options options = ageless_options();
    options.fetch_threads = 1;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct pending pending = {NULL};
    struct member a, b, c;
    struct caller first;
    member_init(&a, cache, 0, NULL); /* only its key */
    member_init(&b, cache, 1, &a);
    member_init(&c, cache, 2, &b);
    caller_init(&first, cache, "a", leave_pending, &pending);
    first.call.cancel = token;
    caller_start(&first);
    WAIT_UNTIL(atomic_load(&pending.fetch) != NULL);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    member_start(&b);
    gate_open(&b.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2); /* on a thread of its own, waits for a */
    c.token = token;
    member_start(&c);
    gate_open(&c.gate);
    WAIT_UNTIL(STAT(cache, waiters_now) == 4); /* its caller, and the worker, which waits for b */
    CHECK_INT(c.asked, 0);
    aside_fetch *fetch = atomic_load(&pending.fetch);
    CHECK_STATUS(aside_fetch_copy(fetch, "a", 1), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
    aside_fetch_unref(fetch);
    CHECK_STATUS(caller_join(&first), ASIDE_OK);
    caller_drop(&first);
    member_end(&b);
    member_end(&c);
    CHECK_STATUS(b.inner, ASIDE_OK);
    CHECK_STATUS(c.inner, ASIDE_OK);
    check_rest(cache, 5);
    aside_cancel_unref(token);
    end_cache(cache);
}

/*
 * The only worker runs x, whose fetch asks for y and has to run that itself. It waits for a third
 * there, so that it is not known any more to wait for y, and leaves y pending to a thread that drops
 * an answer, whose destructor asks for x, before y is decided: y waits for x. What asked for y must
 * not wait for it then, unless it cannot leave.
 */
enum knot_kind { KNOT_JOINS, KNOT_LEADS_AND_MAY_LEAVE, KNOT_LEADS_AND_STAYS };

struct knot {
    aside_cache *cache;
    enum knot_kind kind;
    aside_cancel *token, *way_out;
    struct gate gate; /* x's, before it asks */
    struct caller x, y;
    struct source third;
    pthread_t completer;
    aside_fetch *held;
    aside_status told, told_destructor;
    aside_outcome outcome;
    _Atomic bool x_was_told;
};

static void ask_for_x(void *ptr, void *ctx)
{
    struct knot *knot = (struct knot *)ctx;
    struct caller caller;
    (void)ptr;
    caller_init(&caller, knot->cache, "x", source_fetch, NULL); /* which it joins */
    caller.call.cancel = knot->way_out;
    knot->told_destructor = caller_run(&caller);
    CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_JOINED);
    caller_drop(&caller);
}

static void *complete_y(void *arg)
{
    struct knot *knot = (struct knot *)arg;
    CHECK_STATUS(aside_fetch_complete(knot->held, ASIDE_E_FETCH), ASIDE_OK);
    aside_fetch_unref(knot->held);
    return NULL;
}

static aside_status leave_y_to_another(aside_fetch *fetch, void *arg)
{
    struct knot *knot = (struct knot *)arg;
    aside_value *dropped = NULL;
    unsigned waiters = knot->kind == KNOT_JOINS ? 2 : 1; /* the callers of x and of y */
    CHECK_STATUS(ask(knot->cache, "third", &knot->third), ASIDE_OK);
    CHECK_STATUS(aside_value_wrap(knot, 1, ask_for_x, knot, &dropped), ASIDE_OK);
    CHECK_STATUS(aside_fetch_give(fetch, dropped), ASIDE_OK);
    knot->held = aside_fetch_ref(fetch);
    knot->completer = thread_start(complete_y, knot);
    WAIT_UNTIL(STAT(knot->cache, waiters_now) == waiters + 1);
    return ASIDE_PENDING;
}

static aside_status ask_for_y(aside_fetch *fetch, void *arg)
{
    struct knot *knot = (struct knot *)arg;
    struct caller caller;
    gate_pass(&knot->gate);
    caller_init(&caller, knot->cache, "y", leave_y_to_another, knot);
    caller.call.cancel = knot->kind == KNOT_LEADS_AND_MAY_LEAVE ? knot->token : NULL;
    knot->told = caller_run(&caller);
    knot->outcome = caller.result.outcome;
    atomic_store(&knot->x_was_told, true);
    return aside_fetch_copy(fetch, "x", 1);
}

static void knot_init(struct knot *knot, enum knot_kind kind)
{
    static int context;
    aside_options options = ageless_options();
    options.fetch_threads = 1;
    options.worker = (aside_worker){start_worker, stop_worker, &context};
    memset(knot, 0, sizeof *knot);
    knot->kind = kind;
    knot->cache = open_cache(&options);
    knot->token = token_new();
    knot->way_out = token_new();
    gate_init(&knot->gate);
    source_init(&knot->third, "third", false);
}

static void knot_end(struct knot *knot)
{
    aside_cancel_unref(knot->token);
    aside_cancel_unref(knot->way_out);
    end_cache(knot->cache);
}

static void check_knot(enum knot_kind kind)
{
    struct knot knot;
    bool stays = kind == KNOT_LEADS_AND_STAYS, joins = kind == KNOT_JOINS;
    knot_init(&knot, kind);
    caller_init(&knot.x, knot.cache, "x", ask_for_y, &knot);
    caller_start(&knot.x);
    gate_wait_arrived(&knot.gate, 1);
    if (joins) {
        caller_init(&knot.y, knot.cache, "y", leave_y_to_another, &knot);
        caller_start(&knot.y);
        WAIT_UNTIL(STAT(knot.cache, waiters_now) == 2 && STAT(knot.cache, queued_now) == 1);
    }
    gate_open(&knot.gate);
    if (stays) { /* until the destructor leaves */
        WAIT_UNTIL(STAT(knot.cache, waiters_now) == 3);
        CHECK(!knot.x_was_told);
        aside_cancel_fire(knot.way_out);
    }
    CHECK_STATUS(caller_join(&knot.x), ASIDE_OK);
    caller_drop(&knot.x);
    if (joins)
        CHECK_STATUS(caller_join(&knot.y), ASIDE_E_FETCH);
    thread_join(knot.completer);
    CHECK_STATUS(knot.told, stays ? ASIDE_E_FETCH : ASIDE_E_DEADLOCK);
    CHECK_INT(knot.outcome, stays ? ASIDE_OUTCOME_FETCHED : ASIDE_OUTCOME_NONE);
    CHECK_STATUS(knot.told_destructor, stays ? ASIDE_E_CANCELLED : ASIDE_OK);
    check_rest(knot.cache, joins ? 5 : 4);
    check_usable(knot.cache, "y");
    knot_end(&knot);
}

TEST(who_joins_a_fetch_runs_it_and_closes_a_ring_by_what_it_left_pending_is_told)
{
    check_knot(KNOT_JOINS);
}

TEST(who_leads_a_fetch_runs_it_and_closes_a_ring_by_what_it_left_pending_is_told_if_he_may_leave)
{
    check_knot(KNOT_LEADS_AND_MAY_LEAVE);
}

TEST(who_leads_a_fetch_and_cannot_leave_stays_though_what_he_left_pending_closes_a_ring)
{
    check_knot(KNOT_LEADS_AND_STAYS);
}

/* ---- deep, and at random ------------------------------------------------------------------------- */

struct descent {
    aside_cache *cache;
    aside_cancel *token;
    int depth;
};

/* The fetch of "0" asks for "1", and so on; the deepest asks for all above it, which is a ring. */
static aside_status descends(aside_fetch *fetch, void *arg)
{
    struct descent *descent = (struct descent *)arg;
    struct caller inner;
    size_t size = 0;
    char key[16] = "";
    const void *its = aside_fetch_key(fetch, &size);
    CHECK(size < sizeof key);
    memcpy(key, its, size);
    int number = atoi(key);
    if (number == descent->depth) {
        for (int i = 0; i < number; i++) {
            snprintf(key, sizeof key, "%d", i);
            caller_init(&inner, descent->cache, key, descends, descent);
            inner.call.cancel = i % 2 ? descent->token : NULL;
            CHECK_STATUS(caller_run(&inner), ASIDE_E_DEADLOCK);
        }
        return aside_fetch_copy(fetch, "bottom", 6);
    }
    snprintf(key, sizeof key, "%d", number + 1);
    caller_init(&inner, descent->cache, key, descends, descent);
    inner.call.cancel = descent->token;
    CHECK_STATUS(caller_run(&inner), ASIDE_OK);
    return aside_fetch_give(fetch, inner.result.value);
}

static void check_descent(int depth, size_t fetch_threads, bool tokens)
{
    aside_options options = ageless_options();
    options.fetch_threads = fetch_threads;
    options.thread_stack_bytes = (size_t)8 << 20;
    aside_cache *cache = open_cache(&options);
    struct descent descent = {cache, tokens ? token_new() : NULL, depth};
    struct caller caller;
    caller_init(&caller, cache, "0", descends, &descent);
    caller.call.cancel = descent.token;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    CHECK(value_is(caller.result.value, "bottom"));
    caller_drop(&caller);
    CHECK_INT(aside_count(cache), depth + 1);
    CHECK_INT(STAT(cache, fetches), depth + 1);
    CHECK(STAT(cache, workers_now) <= fetch_threads);
    check_rest(cache, (uint64_t)(2 * depth + 1));
    aside_cancel_unref(descent.token);
    end_cache(cache);
}

TEST(fetches_may_be_nested_a_hundred_deep_on_their_callers_thread)
{
    check_descent(100, 2, false);
}

TEST(fetches_may_be_nested_a_hundred_deep_in_a_pool_of_two)
{
    check_descent(100, 2, true);
}

TEST(the_deepest_of_nested_fetches_may_wait_for_none_above_it_whoever_runs_them)
{
    for (size_t fetch_threads = 1; fetch_threads <= 8; fetch_threads++)
        check_descent(7, fetch_threads, true);
}

/* Several threads whose fetches ask for others at random. */
enum { KEYS = 6, ASKERS = 5 };

struct jumble {
    aside_cache *cache;
    aside_cancel *token;
    bool upwards; /* fetches ask for greater keys only: there are no rings */
    bool hasty;   /* callers leave after a very short time */
    _Atomic uint64_t calls, deadlocks, left;
};

static aside_status jumbled_call(struct jumble *jumble, int number, bool inside);

static aside_status jumbled_fetch(aside_fetch *fetch, void *arg)
{
    struct jumble *jumble = (struct jumble *)arg;
    size_t size = 0;
    const char *key = (const char *)aside_fetch_key(fetch, &size);
    int number = key[0] - '0', asks = (int)(test_random() % 20);
    asks = asks < 9 ? 0 : asks < 16 ? 1 : 2;
    for (int i = 0; i < asks; i++) {
        int other = (int)(test_random() % KEYS);
        if (other != number && (!jumble->upwards || other > number))
            (void)jumbled_call(jumble, other, true);
    }
    if (test_random() % 4 == 0)
        test_yield();
    if (test_random() % 2)
        CHECK_STATUS(aside_fetch_set_ttl(fetch, ASIDE_NO_STORE), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

static aside_status jumbled_call(struct jumble *jumble, int number, bool inside)
{
    char key[2] = {(char)('0' + number), 0};
    struct caller caller;
    caller_init(&caller, jumble->cache, key, jumbled_fetch, jumble);
    uint64_t dice = test_random();
    caller.call.cancel = dice % 3 == 0 ? jumble->token : NULL;
    caller.call.timeout_ms = jumble->hasty && dice % 5 < 2 ? 1 : 0;
    atomic_fetch_add(&jumble->calls, 1);
    aside_status status = caller_run(&caller);
    caller_drop(&caller);
    if (status == ASIDE_E_DEADLOCK && inside && !jumble->upwards)
        atomic_fetch_add(&jumble->deadlocks, 1);
    else if (status == ASIDE_E_TIMEOUT && caller.call.timeout_ms != 0)
        atomic_fetch_add(&jumble->left, 1);
    else
        CHECK_STATUS(status, ASIDE_OK);
    if (dice / 15 % 8 == 0)
        aside_delete(jumble->cache, key, 1);
    return status;
}

static void *asks_at_random(void *arg)
{
    struct jumble *jumble = (struct jumble *)arg;
    for (long i = 0; i < test_rounds(600); i++)
        (void)jumbled_call(jumble, (int)(test_random() % KEYS), false);
    return NULL;
}

static void check_jumble(bool upwards, bool hasty, size_t fetch_threads)
{
    aside_options options = ageless_options();
    options.fetch_threads = fetch_threads;
    options.thread_stack_bytes = (size_t)8 << 20;
    struct jumble jumble;
    memset(&jumble, 0, sizeof jumble);
    jumble.cache = open_cache(&options);
    jumble.token = token_new();
    jumble.upwards = upwards;
    jumble.hasty = hasty;
    pthread_t askers[ASKERS];
    perturb(test_random() | 1);
    for (int i = 0; i < ASKERS; i++)
        askers[i] = thread_start(asks_at_random, &jumble);
    for (int i = 0; i < ASKERS; i++)
        thread_join(askers[i]);
    perturb(0);
    WAIT_UNTIL(STAT(jumble.cache, flights_now) == 0); /* those that were left may call as well */
    check_rest(jumble.cache, jumble.calls);
    CHECK_INT(STAT(jumble.cache, get_with_fetch_error), jumble.deadlocks + jumble.left);
    CHECK_INT(STAT(jumble.cache, timeouts), jumble.left);
    for (int i = 0; i < KEYS; i++) {
        char key[2] = {(char)('0' + i), 0};
        check_usable(jumble.cache, key);
    }
    aside_cancel_unref(jumble.token);
    end_cache(jumble.cache);
}

TEST(fetches_that_ask_for_each_other_at_random_all_end)
{
    check_jumble(false, false, 8);
    check_jumble(false, false, 2);
    check_jumble(false, false, 1);
}

TEST(fetches_that_ask_for_each_other_at_random_all_end_though_callers_leave)
{
    check_jumble(false, true, 8);
    check_jumble(false, true, 1);
}

TEST(fetches_that_ask_in_one_order_are_never_told_of_a_ring)
{
    check_jumble(true, false, 8);
    check_jumble(true, false, 2);
    check_jumble(true, false, 1);
}

TEST(fetches_that_ask_in_one_order_are_never_told_of_a_ring_though_callers_leave)
{
    check_jumble(true, true, 8);
    check_jumble(true, true, 1);
}
