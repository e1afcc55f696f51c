/*
 * token.c -- tokens that have children, deadlines and descriptors (C1 to C3, C6): what fires with
 * what, by which clock, and that a tree of tokens may be given back in any order.
 */
#include "helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>

/* ---- short forms --------------------------------------------------------------------------------- */

static aside_cancel *child_of(aside_cancel *parent)
{
    aside_cancel *token = NULL;
    CHECK_STATUS(aside_cancel_child(parent, &token), ASIDE_OK);
    CHECK(token != NULL && token != parent);
    return token;
}

static void set_deadline(aside_cancel *token, int64_t timeout_ms, const aside_clock *clock)
{
    CHECK_STATUS(aside_cancel_set_deadline(token, timeout_ms, clock), ASIDE_OK);
}

/* Both questions about a token agree. */
static void check_token(const aside_cancel *token, aside_status expected)
{
    CHECK_STATUS(aside_cancel_status(token), expected);
    CHECK_INT(aside_cancel_fired(token), expected != ASIDE_OK);
}

static int descriptor_of(aside_cancel *token)
{
    int fd = -1;
    CHECK_STATUS(aside_cancel_fd(token, &fd), ASIDE_OK);
    CHECK(fd >= 0);
    return fd;
}

/* Waits for a descriptor, generously where it is to become readable. */
static bool readable_within(int fd, int timeout_ms)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN, .revents = 0};
    int count = poll(&ready, 1, timeout_ms);
    CHECK(count >= 0);
    CHECK(count == 0 || ready.revents == POLLIN);
    return count == 1;
}

static bool is_readable(int fd)
{
    return readable_within(fd, 0);
}

static bool becomes_readable(int fd)
{
    return readable_within(fd, 20000);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0 || errno != EBADF;
}

/* Starts a caller with a token of this key; returns once `waiters` callers wait in the cache. */
static void wait_with(struct caller *caller, aside_cache *cache, const char *key,
                      struct source *source, aside_cancel *token, unsigned waiters)
{
    join_flight(caller, cache, key, source, token, waiters);
}

static void *hold_and_wait(void *arg)
{
    struct caller *caller = (struct caller *)arg;
    caller_run(caller);
    aside_cancel_unref(caller->call.cancel);
    return NULL;
}

/* As wait_with; the caller has a reference of its own and gives it back at the end. */
static void wait_holding(struct caller *caller, aside_cache *cache, const char *key,
                         struct source *source, aside_cancel *token)
{
    caller_ask(caller, cache, key, source, aside_cancel_ref(token));
    caller->thread = thread_start(hold_and_wait, caller);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
}

/* Lets the fetches of a source end, and the cache with them. */
static void finish(aside_cache *cache, struct source *source)
{
    gate_open(&source->gate);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_INT(STAT(cache, waiters_now), 0);
    end_cache(cache);
}

/* ---- children ------------------------------------------------------------------------------------ */

TEST(a_child_fires_with_its_parent)
{
    aside_cancel *parent = token_new(), *child = child_of(parent);
    check_token(parent, ASIDE_OK);
    check_token(child, ASIDE_OK);
    aside_cancel_fire(parent);
    check_token(parent, ASIDE_E_CANCELLED);
    check_token(child, ASIDE_E_CANCELLED);
    aside_cancel_unref(child);
    aside_cancel_unref(parent);
}

TEST(neither_parent_nor_sibling_fires_with_a_child)
{
    aside_cancel *parent = token_new(), *child = child_of(parent), *sibling = child_of(parent);
    aside_cancel *grandchild = child_of(child);
    aside_cancel_fire(child);
    check_token(parent, ASIDE_OK);
    check_token(sibling, ASIDE_OK);
    check_token(child, ASIDE_E_CANCELLED);
    check_token(grandchild, ASIDE_E_CANCELLED);
    aside_cancel_fire(parent);
    check_token(sibling, ASIDE_E_CANCELLED);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    aside_cancel_unref(sibling);
    aside_cancel_unref(grandchild);
}

TEST(a_child_of_a_token_that_has_fired_is_born_fired)
{
    aside_cancel *parent = token_new(), *between = child_of(parent);
    aside_cancel_fire(parent);
    aside_cancel *child = child_of(parent), *grandchild = child_of(between);
    check_token(child, ASIDE_E_CANCELLED);
    check_token(grandchild, ASIDE_E_CANCELLED);
    aside_cancel_unref(parent);
    check_token(child, ASIDE_E_CANCELLED);
    aside_cancel *late = child_of(child);
    check_token(late, ASIDE_E_CANCELLED);
    aside_cancel_unref(between);
    aside_cancel_unref(child);
    aside_cancel_unref(grandchild);
    aside_cancel_unref(late);
}

TEST(a_line_of_a_hundred_generations_fires_downwards_only)
{
    enum { DEPTH = 100 };
    static const int fired_at[] = {0, 1, 50, 98, 99};
    for (size_t i = 0; i < COUNT_OF(fired_at); i++) {
        aside_cancel *line[DEPTH];
        line[0] = token_new();
        for (int k = 1; k < DEPTH; k++)
            line[k] = child_of(line[k - 1]);
        aside_cancel_fire(line[fired_at[i]]);
        for (int k = 0; k < DEPTH; k++)
            check_token(line[k], k < fired_at[i] ? ASIDE_OK : ASIDE_E_CANCELLED);
        for (int k = 0; k < DEPTH; k++) /* once the eldest first, once the youngest */
            aside_cancel_unref(line[i % 2 ? k : DEPTH - 1 - k]);
    }
}

TEST(the_last_of_a_hundred_generations_fires_though_those_between_were_given_back)
{
    enum { DEPTH = 100 };
    for (int late = 0; late <= 1; late++) {
        struct fake_clock clock;
        aside_clock injected = fake_clock_init(&clock);
        aside_cancel *first = token_new(), *last = aside_cancel_ref(first);
        for (int k = 1; k < DEPTH; k++) {
            aside_cancel *next = child_of(last);
            aside_cancel_unref(last);
            last = next;
        }
        check_token(last, ASIDE_OK);
        if (late) {
            set_deadline(first, 10, &injected);
            fake_clock_advance_ms(&clock, 10, NULL);
        } else {
            aside_cancel_fire(first);
        }
        check_token(last, late ? ASIDE_E_TIMEOUT : ASIDE_E_CANCELLED);
        aside_cancel_unref(first);
        check_token(last, late ? ASIDE_E_TIMEOUT : ASIDE_E_CANCELLED);
        aside_cancel_unref(last);
    }
}

TEST(a_thousand_children_fire_with_their_parent)
{
    enum { CHILDREN = 1000 };
    static aside_cancel *children[CHILDREN];
    aside_cancel *parent = token_new();
    for (int i = 0; i < CHILDREN; i++)
        children[i] = child_of(parent);
    for (int i = 0; i < CHILDREN / 2; i++) { /* half of them are gone by then, from anywhere */
        int k = (int)(test_random() % CHILDREN);
        aside_cancel_unref(children[k]);
        children[k] = NULL;
    }
    for (int i = 0; i < CHILDREN; i++)
        check_token(children[i], ASIDE_OK); /* NULL has not fired */
    aside_cancel_fire(parent);
    aside_cancel_unref(parent);
    for (int i = 0; i < CHILDREN; i++) {
        check_token(children[i], children[i] ? ASIDE_E_CANCELLED : ASIDE_OK);
        aside_cancel_unref(children[i]);
    }
}

TEST(a_child_takes_a_reference_of_its_own_to_what_it_needs)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *parent = token_new(), *child = child_of(parent);
    set_deadline(parent, 10, &injected);
    aside_cancel_unref(parent);
    check_token(child, ASIDE_OK);
    fake_clock_advance_ms(&clock, 10, NULL);
    check_token(child, ASIDE_E_TIMEOUT); /* of a parent that was given back before */
    aside_cancel_fire(child);
    check_token(child, ASIDE_E_CANCELLED);
    aside_cancel_unref(child);
}

TEST(a_child_that_can_not_be_allocated_is_an_error_code)
{
    aside_cancel *parent = token_new(), *child = NULL;
    process_fail_alloc(1, true);
    CHECK_STATUS(aside_cancel_child(parent, &child), ASIDE_E_NOMEM);
    process_fail_alloc(0, false);
    CHECK(child == NULL);
    child = child_of(parent);
    aside_cancel_fire(parent);
    check_token(child, ASIDE_E_CANCELLED);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
}

/* ---- given back in any order --------------------------------------------------------------------- */

/* A parent with two children, the first of which has one. */
enum { PARENT, FIRST, SECOND, GRANDCHILD, NODES };
#define ORDERS 24

static void tree_new(aside_cancel *tree[NODES])
{
    tree[PARENT] = token_new();
    tree[FIRST] = child_of(tree[PARENT]);
    tree[SECOND] = child_of(tree[PARENT]);
    tree[GRANDCHILD] = child_of(tree[FIRST]);
}

/* The number-th of the ORDERS permutations of the nodes. */
static void order_of(int number, int order[NODES])
{
    int left[NODES] = {PARENT, FIRST, SECOND, GRANDCHILD}, count = NODES;
    for (int i = 0; i < NODES; i++) {
        int k = number % count;
        number /= count;
        order[i] = left[k];
        for (count--; k < count; k++)
            left[k] = left[k + 1];
    }
}

enum deed { NOTHING, FIRE_PARENT, FIRE_FIRST, PARENT_IS_LATE, DEEDS };

static aside_status what_is_due(int node, enum deed deed)
{
    if (deed == FIRE_PARENT || (deed == FIRE_FIRST && (node == FIRST || node == GRANDCHILD)))
        return ASIDE_E_CANCELLED;
    return deed == PARENT_IS_LATE ? ASIDE_E_TIMEOUT : ASIDE_OK;
}

/* Gives `before` of the nodes back, does the deed if its node is there, looks, gives the rest back. */
static void check_tree(const int order[NODES], int before, enum deed deed, bool descriptors)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *tree[NODES];
    int fds[NODES];
    tree_new(tree);
    if (deed == PARENT_IS_LATE)
        set_deadline(tree[PARENT], 100, &injected);
    for (int i = 0; i < NODES; i++)
        fds[i] = descriptors ? descriptor_of(tree[i]) : -1;
    for (int i = 0; i < before; i++) {
        aside_cancel_unref(tree[order[i]]);
        tree[order[i]] = NULL;
    }
    if ((deed == FIRE_PARENT && !tree[PARENT]) || (deed == FIRE_FIRST && !tree[FIRST]))
        deed = NOTHING; /* nobody is left who could */
    for (int i = 0; i < NODES; i++)
        check_token(tree[i], ASIDE_OK);
    aside_cancel_fire(deed == FIRE_PARENT ? tree[PARENT] : deed == FIRE_FIRST ? tree[FIRST] : NULL);
    fake_clock_advance_ms(&clock, 100, NULL);
    for (int i = before; i < NODES; i++) {
        for (int k = i; k < NODES; k++)
            check_token(tree[order[k]], what_is_due(order[k], deed));
        for (int k = i; k < NODES && descriptors; k++)
            CHECK_INT(is_readable(fds[order[k]]), what_is_due(order[k], deed) != ASIDE_OK);
        aside_cancel_unref(tree[order[i]]);
        tree[order[i]] = NULL;
    }
}

TEST(a_tree_may_be_given_back_in_any_order)
{
    int descriptors = process_descriptors();
    for (int number = 0; number < ORDERS; number++) {
        int order[NODES];
        order_of(number, order);
        for (int before = 0; before <= NODES; before++) {
            for (int deed = 0; deed < DEEDS; deed++) {
                check_tree(order, before, (enum deed)deed, false);
                check_tree(order, before, (enum deed)deed, true);
            }
        }
    }
    CHECK_INT(process_descriptors(), descriptors);
}

TEST(a_tree_may_be_given_back_in_any_order_while_a_call_waits_with_its_grandchild)
{
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "v", true);
    for (int number = 0; number < ORDERS; number++) {
        aside_cancel *tree[NODES];
        struct caller caller;
        int order[NODES];
        order_of(number, order);
        tree_new(tree);
        wait_holding(&caller, cache, "k", &source, tree[GRANDCHILD]);
        bool fired = false;
        for (int i = 0; i < NODES; i++) {
            CHECK(fired || !atomic_load(&caller.done));
            if (order[i] == PARENT) {
                aside_cancel_fire(tree[PARENT]);
                fired = true;
            }
            aside_cancel_unref(tree[order[i]]);
        }
        CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
        WAIT_UNTIL(STAT(cache, waiters_now) == 0);
    }
    CHECK_INT(STAT(cache, cancelled), ORDERS);
    CHECK_INT(source.fetches, 1); /* who came after another had left joined it */
    finish(cache, &source);
}

TEST(a_call_goes_on_when_all_but_its_token_are_given_back_unfired)
{
    for (int number = 0; number < ORDERS; number++) {
        aside_cache *cache = open_quiet();
        aside_cancel *tree[NODES];
        struct source source;
        struct caller caller;
        int order[NODES];
        order_of(number, order);
        source_init(&source, "v", true);
        tree_new(tree);
        wait_holding(&caller, cache, "k", &source, tree[GRANDCHILD]);
        for (int i = 0; i < NODES; i++)
            aside_cancel_unref(tree[order[i]]);
        CHECK_INT(STAT(cache, waiters_now), 1);
        gate_open(&source.gate);
        CHECK_STATUS(caller_join(&caller), ASIDE_OK);
        CHECK(value_is(caller.result.value, "v"));
        caller_drop(&caller);
        finish(cache, &source);
    }
}

/* Threads that do each one thing to a tree, all at the same instant. */
struct scramble {
    aside_cancel *tree[NODES];
    aside_cancel *made; /* while the tree fires, of its second child */
    pthread_barrier_t start;
};

static void *fires_the_parent(void *arg)
{
    struct scramble *s = (struct scramble *)arg;
    pthread_barrier_wait(&s->start);
    aside_cancel_fire(s->tree[PARENT]);
    aside_cancel_unref(s->tree[PARENT]);
    return NULL;
}

static void *gives_the_first_back(void *arg)
{
    struct scramble *s = (struct scramble *)arg;
    pthread_barrier_wait(&s->start);
    aside_cancel_unref(s->tree[FIRST]);
    return NULL;
}

static void *makes_a_child_of_the_second(void *arg)
{
    struct scramble *s = (struct scramble *)arg;
    pthread_barrier_wait(&s->start);
    s->made = child_of(s->tree[SECOND]);
    aside_cancel *passing = child_of(s->made);
    aside_cancel_unref(s->tree[SECOND]);
    aside_cancel_unref(passing);
    return NULL;
}

TEST(a_tree_that_fires_while_others_give_it_back_and_add_to_it_fires_them_all)
{
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "v", true);
    perturb(test_random() | 1);
    for (long round = 0; round < test_rounds(200); round++) {
        static const thread_fn deeds[] = {fires_the_parent, gives_the_first_back,
                                          makes_a_child_of_the_second};
        struct scramble s;
        struct caller caller;
        pthread_t threads[COUNT_OF(deeds)];
        tree_new(s.tree);
        pthread_barrier_init(&s.start, NULL, COUNT_OF(deeds));
        wait_holding(&caller, cache, "k", &source, s.tree[GRANDCHILD]);
        for (size_t i = 0; i < COUNT_OF(deeds); i++)
            threads[i] = thread_start(deeds[i], &s);
        for (size_t i = 0; i < COUNT_OF(deeds); i++)
            thread_join(threads[i]);
        check_token(s.made, ASIDE_E_CANCELLED);
        check_token(s.tree[GRANDCHILD], ASIDE_E_CANCELLED);
        aside_cancel_unref(s.made);
        aside_cancel_unref(s.tree[GRANDCHILD]);
        CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
        WAIT_UNTIL(STAT(cache, waiters_now) == 0);
        pthread_barrier_destroy(&s.start);
    }
    perturb(0);
    finish(cache, &source);
}

/* ---- callers ------------------------------------------------------------------------------------- */

/* A thousand callers of one key; each `every`-th has a child of the token, the others the token. */
static void check_thousand(int every)
{
    enum { MOST = 1000 };
    static struct caller callers[MOST];
    static aside_cancel *own[MOST];
    int count = test_rounds(MOST) < MOST ? (int)test_rounds(MOST) : MOST; /* fewer under valgrind */
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    source_init(&source, "v", true);
    for (int i = 0; i < count; i++) {
        own[i] = every && i % every == 0 ? child_of(token) : aside_cancel_ref(token);
        caller_ask(&callers[i], cache, "k", &source, own[i]);
        caller_start(&callers[i]);
        if (i % 50 == 49)
            WAIT_UNTIL(STAT(cache, waiters_now) == (unsigned)i + 1);
    }
    WAIT_UNTIL(STAT(cache, waiters_now) == (unsigned)count);
    aside_cancel_fire(token);
    for (int i = 0; i < count; i++) {
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_CANCELLED);
        aside_cancel_unref(own[i]);
    }
    CHECK_INT(STAT(cache, cancelled), count);
    CHECK_INT(STAT(cache, waiters_now), 0);
    CHECK_INT(STAT(cache, flights_now), 1);
    CHECK_INT(source.finished, 0); /* the fetch runs on, and its value is stored (C1) */
    gate_open(&source.gate);
    WAIT_UNTIL(look(cache, "k") == ASIDE_OK);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(source.fetches, 1);
    aside_cancel_unref(token);
    finish(cache, &source);
}

TEST(a_thousand_callers_leave_by_one_token)
{
    check_thousand(0);
}

TEST(a_thousand_callers_leave_by_one_token_half_of_them_by_its_children)
{
    check_thousand(2);
}

TEST(a_child_takes_its_own_callers_with_it_and_no_others)
{
    aside_cache *cache = open_quiet();
    aside_cancel *tree[NODES];
    struct source source;
    struct caller callers[NODES];
    source_init(&source, "v", true);
    tree_new(tree);
    for (unsigned i = 0; i < NODES; i++)
        wait_with(&callers[i], cache, "k", &source, tree[i], i + 1);
    aside_cancel_fire(tree[FIRST]);
    CHECK_STATUS(caller_join(&callers[FIRST]), ASIDE_E_CANCELLED);
    CHECK_STATUS(caller_join(&callers[GRANDCHILD]), ASIDE_E_CANCELLED);
    CHECK_INT(STAT(cache, waiters_now), 2);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&callers[PARENT]), ASIDE_OK);
    CHECK_STATUS(caller_join(&callers[SECOND]), ASIDE_OK);
    CHECK(callers[PARENT].result.value == callers[SECOND].result.value);
    CHECK_INT(STAT(cache, cancelled), 2);
    for (int i = 0; i < NODES; i++) {
        caller_drop(&callers[i]);
        aside_cancel_unref(tree[i]);
    }
    finish(cache, &source);
}

struct inside {
    aside_cancel *fired; /* by the fetch */
    struct caller *caller;
};

static aside_status fires_inside(aside_fetch *fetch, void *arg)
{
    struct inside *inside = (struct inside *)arg;
    aside_cancel_fire(inside->fired);
    aside_cancel_fire(inside->fired);
    WAIT_UNTIL(atomic_load(&inside->caller->done)); /* the fetch goes on, its caller has left */
    CHECK_INT(aside_fetch_stopping(fetch), 0);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_fire_the_parent_of_its_callers_token)
{
    aside_cache *cache = open_quiet();
    aside_cancel *parent = token_new(), *child = child_of(parent);
    struct caller caller;
    struct inside inside = {parent, &caller};
    caller_init(&caller, cache, "k", fires_inside, &inside);
    caller.call.cancel = child;
    caller_start(&caller);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    WAIT_UNTIL(holds(cache, "k", "v"));
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    end_cache(cache);
}

TEST(firing_twice_is_firing_once)
{
    aside_cache *cache = open_quiet();
    aside_cancel *parent = token_new(), *child = child_of(parent);
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    wait_with(&caller, cache, "k", &source, child, 1);
    aside_cancel_fire(child);
    aside_cancel_fire(child);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    aside_cancel_fire(parent);
    aside_cancel_fire(parent);
    check_token(child, ASIDE_E_CANCELLED);
    CHECK_INT(STAT(cache, cancelled), 1);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    finish(cache, &source);
}

struct volley {
    aside_cancel **tree;
    pthread_barrier_t start;
};

static void *fires_all(void *arg)
{
    struct volley *volley = (struct volley *)arg;
    int from = (int)(test_random() % NODES);
    pthread_barrier_wait(&volley->start);
    for (int i = 0; i < NODES; i++)
        aside_cancel_fire(volley->tree[(from + i) % NODES]);
    return NULL;
}

TEST(firing_from_many_threads_at_once_is_firing_once)
{
    enum { THREADS = 8 };
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "v", true);
    long rounds = test_rounds(50);
    for (long round = 0; round < rounds; round++) {
        aside_cancel *tree[NODES];
        struct caller callers[NODES];
        struct volley volley;
        pthread_t threads[THREADS];
        tree_new(tree);
        volley.tree = tree;
        pthread_barrier_init(&volley.start, NULL, THREADS);
        for (unsigned i = 0; i < NODES; i++)
            wait_with(&callers[i], cache, "k", &source, tree[i], i + 1);
        for (int i = 0; i < THREADS; i++)
            threads[i] = thread_start(fires_all, &volley);
        for (int i = 0; i < NODES; i++)
            CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_CANCELLED);
        for (int i = 0; i < THREADS; i++)
            thread_join(threads[i]);
        for (int i = 0; i < NODES; i++)
            aside_cancel_unref(tree[i]);
        pthread_barrier_destroy(&volley.start);
    }
    CHECK_INT(STAT(cache, cancelled), rounds * NODES);
    finish(cache, &source);
}

TEST(one_token_and_its_child_serve_two_caches)
{
    aside_cache *caches[2] = {open_quiet(), open_quiet()};
    aside_cancel *tokens[2];
    struct source source;
    struct caller callers[4];
    source_init(&source, "v", true);
    tokens[0] = token_new();
    tokens[1] = child_of(tokens[0]);
    for (unsigned i = 0; i < 4; i++)
        wait_with(&callers[i], caches[i % 2], "k", &source, tokens[i / 2], i / 2 + 1);
    aside_cancel_fire(tokens[1]);
    CHECK_STATUS(caller_join(&callers[2]), ASIDE_E_CANCELLED);
    CHECK_STATUS(caller_join(&callers[3]), ASIDE_E_CANCELLED);
    CHECK_INT(STAT(caches[0], waiters_now) + STAT(caches[1], waiters_now), 2);
    aside_cancel_fire(tokens[0]);
    CHECK_STATUS(caller_join(&callers[0]), ASIDE_E_CANCELLED);
    CHECK_STATUS(caller_join(&callers[1]), ASIDE_E_CANCELLED);
    aside_cancel_unref(tokens[0]);
    aside_cancel_unref(tokens[1]);
    gate_open(&source.gate);
    for (int i = 0; i < 2; i++) {
        WAIT_UNTIL(look(caches[i], "k") == ASIDE_OK);
        CHECK_INT(STAT(caches[i], cancelled), 2);
        finish(caches[i], &source);
    }
}

/* ---- deadlines ----------------------------------------------------------------------------------- */

TEST(a_deadline_of_0_is_past_at_once)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    for (int fake = 0; fake <= 1; fake++) {
        aside_cancel *token = token_new(), *child = child_of(token);
        set_deadline(token, 0, fake ? &injected : NULL);
        check_token(token, ASIDE_E_TIMEOUT);
        check_token(child, ASIDE_E_TIMEOUT);
        aside_cancel *born_late = child_of(token);
        check_token(born_late, ASIDE_E_TIMEOUT);
        aside_cancel_unref(born_late);
        aside_cancel_unref(child);
        aside_cancel_unref(token);
    }
}

TEST(a_deadline_passes_at_its_instant_and_not_before)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *token = token_new(), *child = child_of(token);
    set_deadline(token, 100, &injected);
    check_token(token, ASIDE_OK);
    fake_clock_advance_ns(&clock, 99999999, NULL);
    check_token(token, ASIDE_OK);
    check_token(child, ASIDE_OK);
    fake_clock_advance_ns(&clock, 1, NULL);
    check_token(child, ASIDE_E_TIMEOUT);
    check_token(token, ASIDE_E_TIMEOUT);
    fake_clock_advance_ms(&clock, INT64_C(86400000) * 365, NULL);
    check_token(token, ASIDE_E_TIMEOUT); /* for good */
    aside_cancel_unref(token);
    aside_cancel_unref(child);
}

TEST(for_ever_is_no_deadline_and_sums_that_would_overflow_do_not_pass)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *forever = token_new(), *huge = token_new(), *none = token_new();
    set_deadline(forever, ASIDE_FOREVER, &injected);
    set_deadline(forever, ASIDE_FOREVER, &injected);
    set_deadline(huge, ASIDE_FOREVER - 1, &injected);
    set_deadline(none, ASIDE_FOREVER, NULL);
    fake_clock_advance_ms(&clock, INT64_C(86400000) * 3650, NULL);
    check_token(forever, ASIDE_OK);
    check_token(huge, ASIDE_OK);
    check_token(none, ASIDE_OK);
    set_deadline(forever, 0, &injected);
    set_deadline(huge, 0, &injected);
    check_token(forever, ASIDE_E_TIMEOUT);
    check_token(huge, ASIDE_E_TIMEOUT);
    aside_cancel_unref(forever);
    aside_cancel_unref(huge);
    aside_cancel_unref(none);
}

TEST(of_several_deadlines_the_earliest_counts)
{
    static const int64_t orders[][3] = {{100, 200, 300},
                                        {300, 200, 100},
                                        {200, 100, 300},
                                        {100, ASIDE_FOREVER, 100},
                                        {ASIDE_FOREVER, 300, 100}};
    for (size_t i = 0; i < COUNT_OF(orders); i++) {
        struct fake_clock clock;
        aside_clock injected = fake_clock_init(&clock);
        aside_cancel *token = token_new();
        for (int k = 0; k < 3; k++)
            set_deadline(token, orders[i][k], &injected);
        fake_clock_advance_ms(&clock, 99, NULL);
        check_token(token, ASIDE_OK);
        fake_clock_advance_ms(&clock, 1, NULL);
        check_token(token, ASIDE_E_TIMEOUT);
        set_deadline(token, 1000, &injected); /* too late to help */
        set_deadline(token, ASIDE_FOREVER, &injected);
        check_token(token, ASIDE_E_TIMEOUT);
        aside_cancel_unref(token);
    }
}

TEST(of_the_deadlines_of_a_token_and_of_its_parents_the_earliest_counts)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *tree[NODES];
    tree_new(tree);
    set_deadline(tree[PARENT], 300, &injected);
    set_deadline(tree[FIRST], 200, &injected);
    set_deadline(tree[SECOND], 400, &injected); /* later than its parent's: changes nothing */
    set_deadline(tree[GRANDCHILD], 100, &injected);
    static const aside_status due[4][NODES] = {
        /* PARENT, FIRST, SECOND, GRANDCHILD, after 100, 200, 300, 400 ms */
        {ASIDE_OK, ASIDE_OK, ASIDE_OK, ASIDE_E_TIMEOUT},
        {ASIDE_OK, ASIDE_E_TIMEOUT, ASIDE_OK, ASIDE_E_TIMEOUT},
        {ASIDE_E_TIMEOUT, ASIDE_E_TIMEOUT, ASIDE_E_TIMEOUT, ASIDE_E_TIMEOUT},
        {ASIDE_E_TIMEOUT, ASIDE_E_TIMEOUT, ASIDE_E_TIMEOUT, ASIDE_E_TIMEOUT},
    };
    for (int step = 0; step < 4; step++) {
        fake_clock_advance_ms(&clock, 100, NULL);
        for (int i = 0; i < NODES; i++)
            check_token(tree[i], due[step][i]);
    }
    for (int i = 0; i < NODES; i++)
        aside_cancel_unref(tree[i]);
}

TEST(fired_counts_more_than_late)
{
    for (int first_late = 0; first_late <= 1; first_late++) {
        aside_cancel *tree[NODES];
        tree_new(tree);
        if (first_late)
            set_deadline(tree[PARENT], 0, NULL);
        aside_cancel_fire(tree[FIRST]);
        if (!first_late)
            set_deadline(tree[PARENT], 0, NULL);
        check_token(tree[PARENT], ASIDE_E_TIMEOUT); /* only a deadline is past */
        check_token(tree[SECOND], ASIDE_E_TIMEOUT);
        check_token(tree[FIRST], ASIDE_E_CANCELLED);
        check_token(tree[GRANDCHILD], ASIDE_E_CANCELLED);
        aside_cancel_fire(tree[PARENT]);
        check_token(tree[PARENT], ASIDE_E_CANCELLED);
        check_token(tree[SECOND], ASIDE_E_CANCELLED);
        for (int i = 0; i < NODES; i++)
            aside_cancel_unref(tree[i]);
    }
}

TEST(a_token_has_one_clock)
{
    struct fake_clock clock, other;
    aside_clock injected = fake_clock_init(&clock), second = fake_clock_init(&other);
    aside_clock same_context = {NULL, injected.ctx};
    aside_cancel *token = token_new();
    set_deadline(token, 200, &injected);
    CHECK_STATUS(aside_cancel_set_deadline(token, 0, &second), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_set_deadline(token, 0, &same_context), ASIDE_E_INVALID);
    CHECK_STATUS(aside_cancel_set_deadline(token, 0, NULL), ASIDE_E_INVALID);
    fake_clock_advance_ms(&clock, 199, NULL);
    check_token(token, ASIDE_OK); /* nothing has happened */
    set_deadline(token, 500, &injected);
    fake_clock_advance_ms(&clock, 1, NULL);
    check_token(token, ASIDE_E_TIMEOUT);
    aside_cancel_unref(token);
}

TEST(the_systems_clock_is_null_or_one_without_a_function)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock), systems = {NULL, NULL};
    for (int null_first = 0; null_first <= 1; null_first++) {
        aside_cancel *token = token_new();
        set_deadline(token, 60000, null_first ? NULL : &systems);
        set_deadline(token, 50000, null_first ? &systems : NULL);
        CHECK_STATUS(aside_cancel_set_deadline(token, 0, &injected), ASIDE_E_INVALID);
        check_token(token, ASIDE_OK);
        set_deadline(token, 0, &systems);
        check_token(token, ASIDE_E_TIMEOUT);
        aside_cancel_unref(token);
    }
}

TEST(the_first_deadline_in_a_tree_decides_the_clock_of_all_of_it)
{
    for (int first = 0; first < NODES; first++) {
        struct fake_clock clock, other;
        aside_clock injected = fake_clock_init(&clock), second = fake_clock_init(&other);
        aside_cancel *tree[NODES];
        tree_new(tree);
        set_deadline(tree[first], 200, &injected);
        aside_cancel *later = child_of(tree[SECOND]);
        for (int i = 0; i < NODES; i++) {
            CHECK_STATUS(aside_cancel_set_deadline(tree[i], 0, &second), ASIDE_E_INVALID);
            CHECK_STATUS(aside_cancel_set_deadline(tree[i], 0, NULL), ASIDE_E_INVALID);
        }
        CHECK_STATUS(aside_cancel_set_deadline(later, 0, &second), ASIDE_E_INVALID);
        fake_clock_advance_ms(&clock, 199, NULL);
        for (int i = 0; i < NODES; i++)
            check_token(tree[i], ASIDE_OK); /* nothing has happened */
        check_token(later, ASIDE_OK);
        set_deadline(later, 1, &injected);
        fake_clock_advance_ms(&clock, 1, NULL);
        check_token(tree[first], ASIDE_E_TIMEOUT);
        check_token(later, ASIDE_E_TIMEOUT);
        for (int i = 0; i < NODES; i++)
            aside_cancel_unref(tree[i]);
        CHECK_STATUS(aside_cancel_set_deadline(later, 0, &second), ASIDE_E_INVALID);
        aside_cancel_unref(later);
    }
}

TEST(for_ever_binds_a_token_to_no_clock)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *token = token_new();
    set_deadline(token, ASIDE_FOREVER, NULL);
    set_deadline(token, 10, &injected);
    fake_clock_advance_ms(&clock, 10, NULL);
    check_token(token, ASIDE_E_TIMEOUT);
    aside_cancel_unref(token);
}

TEST(the_clock_of_a_deadline_is_copied)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *token = token_new();
    set_deadline(token, 10, &injected);
    memset(&injected, 0xff, sizeof injected);
    check_token(token, ASIDE_OK);
    fake_clock_advance_ms(&clock, 10, NULL);
    check_token(token, ASIDE_E_TIMEOUT);
    aside_cancel_unref(token);
}

/* ---- deadlines and calls ------------------------------------------------------------------------- */

TEST(a_call_that_waits_leaves_by_the_deadline_of_its_token)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *token = token_new(), *other = token_new();
    struct source source;
    struct caller leader, joiner, patient;
    source_init(&source, "v", true);
    set_deadline(token, 100, &injected);
    set_deadline(other, 500, &injected);
    wait_with(&leader, cache, "k", &source, token, 1);
    wait_with(&joiner, cache, "k", &source, token, 2);
    wait_with(&patient, cache, "k", &source, other, 3);
    fake_clock_advance_ms(&clock, 99, cache);
    CHECK_INT(STAT(cache, timeouts), 0);
    CHECK_INT(STAT(cache, waiters_now), 3);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(caller_join(&leader), ASIDE_E_TIMEOUT);
    CHECK_STATUS(caller_join(&joiner), ASIDE_E_TIMEOUT);
    CHECK(leader.result.value == NULL);
    CHECK_INT(STAT(cache, timeouts), 2);
    CHECK_INT(STAT(cache, cancelled), 0);
    CHECK_INT(source.finished, 0);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&patient), ASIDE_OK);
    caller_drop(&patient);
    CHECK(holds(cache, "k", "v"));
    CHECK_INT(source.fetches, 1);
    aside_cancel_unref(token);
    aside_cancel_unref(other);
    finish(cache, &source);
}

TEST(a_parents_deadline_reaches_the_calls_of_its_children_and_goes_no_further_up)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *tree[NODES];
    struct source source;
    struct caller callers[NODES];
    source_init(&source, "v", true);
    tree_new(tree);
    set_deadline(tree[FIRST], 100, &injected);
    for (unsigned i = 0; i < NODES; i++)
        wait_with(&callers[i], cache, "k", &source, tree[i], i + 1);
    fake_clock_advance_ms(&clock, 100, cache);
    CHECK_STATUS(caller_join(&callers[FIRST]), ASIDE_E_TIMEOUT);
    CHECK_STATUS(caller_join(&callers[GRANDCHILD]), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, waiters_now), 2);
    CHECK_INT(STAT(cache, timeouts), 2);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&callers[PARENT]), ASIDE_OK);
    CHECK_STATUS(caller_join(&callers[SECOND]), ASIDE_OK);
    for (int i = 0; i < NODES; i++) {
        caller_drop(&callers[i]);
        aside_cancel_unref(tree[i]);
    }
    finish(cache, &source);
}

TEST(a_deadline_that_is_set_while_calls_wait_counts_for_them)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *parent = token_new(), *child = child_of(parent), *other = token_new();
    struct source source;
    struct caller callers[3];
    source_init(&source, "v", true);
    wait_with(&callers[0], cache, "k", &source, child, 1);
    wait_with(&callers[1], cache, "k", &source, parent, 2);
    wait_with(&callers[2], cache, "k", &source, other, 3);
    set_deadline(parent, 1000, &injected);
    set_deadline(child, 500, &injected);
    set_deadline(child, 100, &injected); /* earlier than the one that is waited by */
    fake_clock_advance_ms(&clock, 100, cache);
    CHECK_STATUS(caller_join(&callers[0]), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, waiters_now), 2);
    set_deadline(parent, 0, &injected); /* past at once: nobody has to move a clock */
    CHECK_STATUS(caller_join(&callers[1]), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, waiters_now), 1);
    CHECK_INT(STAT(cache, timeouts), 2);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&callers[2]), ASIDE_OK);
    caller_drop(&callers[2]);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    aside_cancel_unref(other);
    finish(cache, &source);
}

TEST(the_parents_deadline_that_is_set_while_calls_wait_reaches_them)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *tree[NODES];
    struct source source;
    struct caller callers[2];
    source_init(&source, "v", true);
    tree_new(tree);
    wait_with(&callers[0], cache, "k", &source, tree[GRANDCHILD], 1);
    wait_with(&callers[1], cache, "k", &source, tree[SECOND], 2);
    set_deadline(tree[PARENT], 50, &injected);
    fake_clock_advance_ms(&clock, 49, cache);
    CHECK_INT(STAT(cache, waiters_now), 2);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(caller_join(&callers[0]), ASIDE_E_TIMEOUT);
    CHECK_STATUS(caller_join(&callers[1]), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, timeouts), 2);
    for (int i = 0; i < NODES; i++)
        aside_cancel_unref(tree[i]);
    finish(cache, &source);
}

TEST(a_call_waits_by_the_earlier_of_its_own_and_of_its_tokens_deadline)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *token = token_new();
    struct source source;
    struct caller own, tokens;
    source_init(&source, "v", true);
    set_deadline(token, 200, &injected);
    caller_ask(&own, cache, "k", &source, token);
    own.call.timeout_ms = 100;
    caller_start(&own);
    WAIT_UNTIL(STAT(cache, waiters_now) == 1);
    caller_ask(&tokens, cache, "k", &source, token);
    tokens.call.timeout_ms = 300;
    caller_start(&tokens);
    WAIT_UNTIL(STAT(cache, waiters_now) == 2);
    fake_clock_advance_ms(&clock, 100, cache);
    CHECK_STATUS(caller_join(&own), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, waiters_now), 1);
    fake_clock_advance_ms(&clock, 100, cache);
    CHECK_STATUS(caller_join(&tokens), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, timeouts), 2);
    aside_cancel_unref(token);
    finish(cache, &source);
}

TEST(firing_ends_a_wait_before_its_deadline)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *parent = token_new(), *child = child_of(parent);
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    set_deadline(parent, 100, &injected);
    set_deadline(child, 200, &injected);
    wait_with(&caller, cache, "k", &source, child, 1);
    fake_clock_advance_ms(&clock, 99, cache);
    aside_cancel_fire(parent);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    CHECK_INT(STAT(cache, cancelled), 1);
    CHECK_INT(STAT(cache, timeouts), 0);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    finish(cache, &source);
}

TEST(a_deadline_serves_calls_in_two_caches)
{
    struct fake_clock clock;
    aside_cache *caches[2] = {open_clocked(&clock), open_clocked(&clock)};
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *parent = token_new(), *child = child_of(parent);
    struct source source;
    struct caller callers[2];
    source_init(&source, "v", true);
    set_deadline(parent, 100, &injected);
    for (int i = 0; i < 2; i++)
        wait_with(&callers[i], caches[i], "k", &source, child, 1);
    fake_clock_advance_ms(&clock, 100, NULL);
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(aside_clock_changed(caches[i]), ASIDE_OK);
        CHECK_STATUS(caller_join(&callers[i]), ASIDE_E_TIMEOUT);
        CHECK_INT(STAT(caches[i], timeouts), 1);
    }
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    for (int i = 0; i < 2; i++)
        finish(caches[i], &source);
}

TEST(a_late_or_fired_token_starts_nothing_and_joins_nothing)
{
    for (int fired = 0; fired <= 1; fired++) {
        aside_cache *cache = open_quiet();
        aside_cancel *parent = token_new(), *child = child_of(parent);
        aside_status due = fired ? ASIDE_E_CANCELLED : ASIDE_E_TIMEOUT;
        struct source source;
        struct caller leader, caller;
        source_init(&source, "v", true);
        if (fired)
            aside_cancel_fire(parent);
        else
            set_deadline(parent, 0, NULL);
        caller_ask(&caller, cache, "k", &source, child);
        CHECK_STATUS(caller_run(&caller), due);
        CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_NONE);
        CHECK_INT(source.fetches, 0);
        CHECK_INT(STAT(cache, workers_now), 0);
        CHECK_INT(STAT(cache, refused), 1);
        lead_to_gate(&leader, cache, "k", &source);
        caller.call.timeout_ms = 60000;
        CHECK_STATUS(caller_run(&caller), due);
        gate_open(&source.gate);
        CHECK_STATUS(caller_join(&leader), ASIDE_OK);
        CHECK_INT(leader.result.shared, 0);
        CHECK_INT(STAT(cache, misses_joined), 0);
        CHECK_INT(STAT(cache, misses_led), 1);
        CHECK_INT(STAT(cache, refused), 2);
        caller_drop(&leader);
        aside_cancel_unref(parent);
        aside_cancel_unref(child);
        finish(cache, &source);
    }
}

TEST(a_hit_is_served_with_a_late_or_fired_token)
{
    aside_cache *cache = open_quiet();
    struct source source;
    source_init(&source, "fetched", false);
    put(cache, "k", "there", ASIDE_FOREVER);
    for (int fired = 0; fired <= 1; fired++) {
        aside_cancel *tree[NODES];
        tree_new(tree);
        if (fired)
            aside_cancel_fire(tree[FIRST]);
        set_deadline(tree[PARENT], 0, NULL);
        for (int i = 0; i < NODES; i++) {
            struct caller caller;
            caller_ask(&caller, cache, "k", &source, tree[i]);
            CHECK_STATUS(caller_run(&caller), ASIDE_OK);
            CHECK(value_is(caller.result.value, "there"));
            CHECK_INT(caller.result.outcome, ASIDE_OUTCOME_HIT);
            caller_drop(&caller);
        }
        for (int i = 0; i < NODES; i++)
            aside_cancel_unref(tree[i]);
    }
    CHECK_INT(source.fetches, 0);
    CHECK_INT(STAT(cache, hits), 2 * NODES);
    end_cache(cache);
}

struct pending {
    aside_fetch *_Atomic fetch;
};

static aside_status leave_pending(aside_fetch *fetch, void *arg)
{
    atomic_store(&((struct pending *)arg)->fetch, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

TEST(a_value_that_is_ready_wins_over_the_parents_firing_and_over_the_deadline)
{
    struct fake_clock clock;
    aside_cache *cache = open_clocked(&clock);
    aside_clock injected = fake_clock_init(&clock);
    for (int round = 0; round < 200; round++) {
        aside_cancel *parent = token_new(), *child = child_of(parent);
        struct pending pending = {NULL};
        struct caller caller;
        char key[16];
        snprintf(key, sizeof key, "%d", round);
        set_deadline(parent, 10, &injected);
        caller_init(&caller, cache, key, leave_pending, &pending);
        caller.call.cancel = child;
        caller_start(&caller);
        WAIT_UNTIL(atomic_load(&pending.fetch) != NULL && STAT(cache, waiters_now) == 1);
        aside_fetch *fetch = atomic_load(&pending.fetch);
        CHECK_STATUS(aside_fetch_copy(fetch, "ready", 5), ASIDE_OK);
        CHECK_STATUS(aside_fetch_complete(fetch, ASIDE_OK), ASIDE_OK);
        if (round % 3 != 1)
            fake_clock_advance_ms(&clock, 10, cache);
        if (round % 3 != 0)
            aside_cancel_fire(parent);
        aside_fetch_unref(fetch);
        CHECK_STATUS(caller_join(&caller), ASIDE_OK);
        CHECK(value_is(caller.result.value, "ready"));
        caller_drop(&caller);
        aside_cancel_unref(parent);
        aside_cancel_unref(child);
    }
    CHECK_INT(STAT(cache, cancelled) + STAT(cache, timeouts), 0);
    end_cache(cache);
}

/* ---- deadlines by the system's clock ------------------------------------------------------------- */

TEST(a_call_returns_by_itself_at_its_tokens_deadline_and_not_before)
{
    struct fake_clock clock;
    for (int still = 0; still <= 1; still++) { /* the cache's own clock may even stand still */
        aside_cache *cache = still ? open_clocked(&clock) : open_quiet();
        struct source source;
        source_init(&source, "v", true);
        uint64_t calls = 0;
        for (int64_t ms = 1; ms <= 31; ms += 10) {
            for (int generations = 0; generations < 3; generations++) {
                aside_cancel *first = token_new(), *token = aside_cancel_ref(first);
                for (int i = 0; i < generations; i++) {
                    aside_cancel *child = child_of(token);
                    aside_cancel_unref(token);
                    token = child;
                }
                struct caller caller;
                int64_t start = test_now_ns();
                set_deadline(first, ms, NULL);
                caller_ask(&caller, cache, "k", &source, token);
                caller.call.timeout_ms = 60000;
                CHECK_STATUS(caller_run(&caller), ASIDE_E_TIMEOUT);
                CHECK(test_now_ns() - start >= ms * 1000000);
                check_token(token, ASIDE_E_TIMEOUT);
                aside_cancel_unref(first);
                aside_cancel_unref(token);
                calls++;
            }
        }
        CHECK_INT(STAT(cache, timeouts) + STAT(cache, refused), calls);
        CHECK(source.fetches <= 1); /* later ones joined the first */
        finish(cache, &source);
    }
}

TEST(a_call_that_waits_returns_by_itself_at_a_deadline_that_is_set_meanwhile)
{
    struct fake_clock clock;
    for (int still = 0; still <= 1; still++) {
        aside_cache *cache = still ? open_clocked(&clock) : open_quiet();
        aside_cancel *parent = token_new(), *child = child_of(parent);
        struct source source;
        struct caller callers[2];
        source_init(&source, "v", true);
        wait_with(&callers[0], cache, "k", &source, child, 1);
        wait_with(&callers[1], cache, "k", &source, parent, 2);
        set_deadline(parent, 60000, NULL);
        set_deadline(child, 50000, NULL);
        int64_t start = test_now_ns();
        set_deadline(parent, 5, NULL);
        CHECK_STATUS(caller_join(&callers[0]), ASIDE_E_TIMEOUT);
        CHECK_STATUS(caller_join(&callers[1]), ASIDE_E_TIMEOUT);
        CHECK(test_now_ns() - start >= 5000000);
        CHECK_INT(STAT(cache, timeouts), 2);
        aside_cancel_unref(parent);
        aside_cancel_unref(child);
        finish(cache, &source);
    }
}

TEST(a_token_may_go_by_a_clock_of_its_own_in_a_cache_that_goes_by_the_systems)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cache *cache = open_quiet();
    aside_cancel *token = token_new();
    struct source source;
    struct caller hasty, caller;
    source_init(&source, "v", true);
    set_deadline(token, 100, &injected);
    caller_ask(&hasty, cache, "k", &source, token);
    hasty.call.timeout_ms = 5;
    CHECK_STATUS(caller_run(&hasty),
                 ASIDE_E_TIMEOUT); /* its own deadline, while the token's stands */
    check_token(token, ASIDE_OK);
    wait_with(&caller, cache, "k", &source, token, 1);
    fake_clock_advance_ms(&clock, 99, cache);
    CHECK_INT(STAT(cache, waiters_now), 1);
    fake_clock_advance_ms(&clock, 1, cache);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_TIMEOUT);
    CHECK_INT(STAT(cache, timeouts), 2);
    aside_cancel_unref(token);
    finish(cache, &source);
}

/* ---- descriptors --------------------------------------------------------------------------------- */

TEST(a_descriptor_becomes_readable_when_its_token_fires_and_stays_so)
{
    aside_cancel *token = token_new();
    int fd = descriptor_of(token);
    CHECK(!is_readable(fd));
    CHECK_INT(descriptor_of(token), fd);
    aside_cancel_fire(token);
    for (int i = 0; i < 3; i++)
        CHECK(becomes_readable(fd));
    CHECK_INT(descriptor_of(token), fd);
    aside_cancel_fire(token);
    CHECK(is_readable(fd));
    aside_cancel_unref(token);
}

TEST(a_descriptor_becomes_readable_when_its_tokens_parent_fires)
{
    aside_cancel *tree[NODES];
    int fds[NODES];
    tree_new(tree);
    for (int i = 0; i < NODES; i++) {
        fds[i] = descriptor_of(tree[i]);
        for (int k = 0; k < i; k++)
            CHECK(fds[k] != fds[i]);
    }
    aside_cancel_fire(tree[FIRST]);
    CHECK(becomes_readable(fds[FIRST]));
    CHECK(becomes_readable(fds[GRANDCHILD]));
    CHECK(!is_readable(fds[PARENT]));
    CHECK(!is_readable(fds[SECOND]));
    aside_cancel_fire(tree[PARENT]);
    for (int i = 0; i < NODES; i++)
        CHECK(becomes_readable(fds[i]));
    for (int i = 0; i < NODES; i++)
        aside_cancel_unref(tree[i]);
}

TEST(a_descriptor_that_is_asked_for_after_the_firing_is_readable)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    aside_cancel *parent = token_new(), *child = child_of(parent);
    aside_cancel_fire(parent);
    CHECK(becomes_readable(descriptor_of(child)));
    CHECK(becomes_readable(descriptor_of(parent)));
    aside_cancel *late = token_new(), *by_own_clock = token_new();
    set_deadline(late, 0, NULL);
    set_deadline(by_own_clock, 10, &injected);
    fake_clock_advance_ms(&clock, 10, NULL);
    CHECK(becomes_readable(descriptor_of(late)));
    int fd = descriptor_of(by_own_clock);
    check_token(by_own_clock, ASIDE_E_TIMEOUT);
    CHECK(becomes_readable(fd));
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    aside_cancel_unref(late);
    aside_cancel_unref(by_own_clock);
}

enum when { BEFORE_THE_DESCRIPTOR, AFTER_THE_DESCRIPTOR, EARLIER_THAN_ONE_BEFORE, WHENS };

/* `whose` gets a deadline; the descriptor is the grandchild's. */
static void check_timed_descriptor(int whose, enum when when)
{
    aside_cancel *tree[NODES];
    int fd = -1;
    tree_new(tree);
    int64_t start = test_now_ns();
    if (when == EARLIER_THAN_ONE_BEFORE)
        set_deadline(tree[whose], 60000, NULL);
    if (when != BEFORE_THE_DESCRIPTOR) {
        fd = descriptor_of(tree[GRANDCHILD]);
        CHECK(!is_readable(fd));
        start = test_now_ns();
    }
    set_deadline(tree[whose], 5, NULL);
    set_deadline(tree[whose], 60000, NULL); /* later: changes nothing */
    if (when == BEFORE_THE_DESCRIPTOR)
        fd = descriptor_of(tree[GRANDCHILD]);
    CHECK(becomes_readable(fd));
    CHECK(test_now_ns() - start >= 5000000);
    check_token(tree[GRANDCHILD], ASIDE_E_TIMEOUT);
    CHECK(is_readable(fd)); /* for good */
    CHECK_INT(descriptor_of(tree[GRANDCHILD]), fd);
    for (int i = 0; i < NODES; i++)
        aside_cancel_unref(tree[i]);
}

TEST(a_descriptor_becomes_readable_at_the_deadline_of_its_token_or_of_a_parent)
{
    for (int when = 0; when < WHENS; when++) {
        check_timed_descriptor(GRANDCHILD, (enum when)when);
        check_timed_descriptor(FIRST, (enum when)when);
        check_timed_descriptor(PARENT, (enum when)when);
    }
}

TEST(the_deadline_of_a_parent_that_was_given_back_makes_a_descriptor_readable)
{
    aside_cancel *parent = token_new(), *child = child_of(parent);
    int fd = descriptor_of(child);
    set_deadline(parent, 20, NULL);
    aside_cancel_unref(parent);
    CHECK(becomes_readable(fd));
    check_token(child, ASIDE_E_TIMEOUT);
    aside_cancel_unref(child);
}

TEST(no_deadline_and_a_childs_deadline_make_no_descriptor_readable)
{
    aside_cancel *parent = token_new(), *child = child_of(parent), *other = child_of(parent);
    int fd = descriptor_of(parent), sibling = descriptor_of(other), own = descriptor_of(child);
    set_deadline(parent, ASIDE_FOREVER, NULL);
    set_deadline(child, 5, NULL);
    CHECK(becomes_readable(own));
    CHECK(!is_readable(fd));
    CHECK(!is_readable(sibling));
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    aside_cancel_unref(other);
}

/* By what a token is asked after its clock has moved. */
enum question { ASK_FIRED, ASK_STATUS, WAIT_WITH_IT, CALL_WITH_IT, QUESTIONS };

static void ask_token(aside_cancel *token, enum question question, struct fake_clock *clock)
{
    aside_cache *cache = open_clocked(clock);
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    if (question == WAIT_WITH_IT)
        wait_with(&caller, cache, "k", &source, token, 1);
    fake_clock_advance_ms(clock, 100, cache);
    if (question == ASK_FIRED)
        CHECK_INT(aside_cancel_fired(token), 1);
    if (question == ASK_STATUS)
        CHECK_STATUS(aside_cancel_status(token), ASIDE_E_TIMEOUT);
    if (question == WAIT_WITH_IT)
        CHECK_STATUS(caller_join(&caller), ASIDE_E_TIMEOUT);
    if (question == CALL_WITH_IT) {
        caller_ask(&caller, cache, "k", &source, token);
        CHECK_STATUS(caller_run(&caller), ASIDE_E_TIMEOUT);
    }
    finish(cache, &source);
}

TEST(a_deadline_on_a_clock_of_ones_own_makes_a_descriptor_readable_once_somebody_asks)
{
    for (int question = 0; question < QUESTIONS; question++) {
        for (int of_parent = 0; of_parent <= 1; of_parent++) {
            struct fake_clock clock;
            aside_clock injected = fake_clock_init(&clock);
            aside_cancel *parent = token_new(), *child = child_of(parent);
            int fd = descriptor_of(child);
            set_deadline(of_parent ? parent : child, 100, &injected);
            fake_clock_advance_ms(&clock, 0, NULL);
            check_token(child, ASIDE_OK);
            CHECK(!is_readable(fd));
            /* open_clocked() sets the clock anew, to where it was */
            ask_token(child, (enum question)question, &clock);
            CHECK(becomes_readable(fd));
            aside_cancel_unref(parent);
            aside_cancel_unref(child);
        }
    }
}

TEST(a_descriptor_is_close_on_exec_and_closed_with_the_last_reference)
{
    int before = process_descriptors();
    aside_cancel *parent = token_new(), *child = child_of(parent);
    int fds[2] = {descriptor_of(parent), descriptor_of(child)};
    for (int i = 0; i < 2; i++)
        CHECK(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    aside_cancel_ref(parent);
    aside_cancel_unref(parent);
    CHECK(is_open(fds[0]));
    aside_cancel_fire(child);
    CHECK(becomes_readable(fds[1]));
    aside_cancel_unref(child);
    CHECK(!is_open(fds[1]));
    CHECK(is_open(fds[0]));
    aside_cancel_unref(parent);
    CHECK(!is_open(fds[0]));
    CHECK_INT(process_descriptors(), before);
}

TEST(a_descriptor_is_closed_with_its_own_token_in_whatever_order_a_tree_is_given_back)
{
    int before = process_descriptors();
    for (int number = 0; number < ORDERS; number++) {
        aside_cancel *tree[NODES];
        int order[NODES], fds[NODES];
        order_of(number, order);
        tree_new(tree);
        for (int i = 0; i < NODES; i++)
            fds[i] = descriptor_of(tree[i]);
        for (int i = 0; i < NODES; i++) {
            aside_cancel_unref(tree[order[i]]);
            for (int k = 0; k < NODES; k++)
                CHECK_INT(is_open(fds[order[k]]), k > i);
        }
    }
    CHECK_INT(process_descriptors(), before);
}

TEST(a_token_that_nobody_asks_for_a_descriptor_has_none)
{
    int before = process_descriptors();
    aside_cancel *parent = token_new(), *child = child_of(parent);
    set_deadline(parent, 60000, NULL);
    set_deadline(child, 0, NULL);
    check_token(child, ASIDE_E_TIMEOUT);
    CHECK_INT(process_descriptors(), before);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
}

TEST(a_hundred_generations_with_a_descriptor_each_become_readable_together)
{
    enum { DEPTH = 100 };
    aside_cancel *line[DEPTH];
    int fds[DEPTH], before = process_descriptors();
    line[0] = token_new();
    for (int i = 1; i < DEPTH; i++)
        line[i] = child_of(line[i - 1]);
    for (int i = 0; i < DEPTH; i++)
        fds[i] = descriptor_of(line[i]);
    aside_cancel_fire(line[1]);
    CHECK(!is_readable(fds[0]));
    for (int i = 1; i < DEPTH; i++)
        CHECK(becomes_readable(fds[i]));
    for (int i = 0; i < DEPTH; i++)
        aside_cancel_unref(line[i]);
    CHECK_INT(process_descriptors(), before);
}

struct crowd {
    aside_cancel *token;
    pthread_barrier_t start;
    _Atomic int fd;
};

static void *asks_for_the_descriptor(void *arg)
{
    struct crowd *crowd = (struct crowd *)arg;
    pthread_barrier_wait(&crowd->start);
    int fd = descriptor_of(crowd->token), none = -1;
    if (!atomic_compare_exchange_strong(&crowd->fd, &none, fd))
        CHECK_INT(none, fd);
    CHECK(becomes_readable(fd));
    return NULL;
}

static void *fires_the_token(void *arg)
{
    struct crowd *crowd = (struct crowd *)arg;
    pthread_barrier_wait(&crowd->start);
    aside_cancel_fire(crowd->token);
    return NULL;
}

TEST(threads_that_ask_at_once_and_while_it_fires_get_one_descriptor_which_is_readable)
{
    enum { THREADS = 6 };
    int before = process_descriptors();
    perturb(test_random() | 1);
    for (long round = 0; round < test_rounds(100); round++) {
        struct crowd crowd;
        pthread_t threads[THREADS];
        aside_cancel *parent = token_new();
        crowd.token = child_of(parent);
        atomic_store(&crowd.fd, -1);
        pthread_barrier_init(&crowd.start, NULL, THREADS);
        for (int i = 0; i < THREADS; i++)
            threads[i] = thread_start(i == 0 ? fires_the_token : asks_for_the_descriptor, &crowd);
        for (int i = 0; i < THREADS; i++)
            thread_join(threads[i]);
        aside_cancel_unref(crowd.token);
        aside_cancel_unref(parent);
        CHECK(!is_open(atomic_load(&crowd.fd)));
        pthread_barrier_destroy(&crowd.start);
    }
    perturb(0);
    CHECK_INT(process_descriptors(), before);
}

/* ---- no descriptors left ------------------------------------------------------------------------- */

/* From now on the process may open `spare` more, until the limit that is returned is set again. */
static struct rlimit allow_descriptors(int spare)
{
    struct rlimit was, limit;
    int lowest = dup(STDERR_FILENO);
    CHECK(lowest >= 0);
    close(lowest);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &was), 0);
    limit = was;
    limit.rlim_cur = (rlim_t)(lowest + spare);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return was;
}

TEST(without_a_descriptor_left_there_is_an_error_code_and_nothing_else_changes)
{
    aside_cache *cache = open_quiet();
    aside_cancel *parent = token_new(), *child = child_of(parent);
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    int before = process_descriptors(), fd = -1;
    set_deadline(parent, 60000, NULL);
    wait_with(&caller, cache, "k", &source, child, 1);
    struct rlimit was = allow_descriptors(0);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK_STATUS(aside_cancel_fd(child, &fd), ASIDE_E_SYSTEM);
        CHECK_INT(errno, EMFILE);
        CHECK_INT(fd, -1);
    }
    check_token(parent, ASIDE_OK);
    check_token(child, ASIDE_OK);
    CHECK_INT(STAT(cache, waiters_now), 1);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &was), 0);
    CHECK_INT(process_descriptors(), before);
    fd = descriptor_of(child); /* now there is one */
    CHECK(!is_readable(fd));
    aside_cancel_fire(parent);
    CHECK(becomes_readable(fd));
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CANCELLED);
    aside_cancel_unref(parent);
    aside_cancel_unref(child);
    CHECK_INT(process_descriptors(), before);
    finish(cache, &source);
}

TEST(with_few_descriptors_left_there_is_one_or_an_error_code_and_none_is_lost)
{
    for (int spare = 1; spare <= 4; spare++) {
        aside_cancel *token = token_new();
        int before = process_descriptors(), fd = -1;
        set_deadline(token, 60000, NULL);
        struct rlimit was = allow_descriptors(spare);
        aside_status status = aside_cancel_fd(token, &fd);
        CHECK(status == ASIDE_OK || (status == ASIDE_E_SYSTEM && fd == -1));
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &was), 0);
        if (status != ASIDE_OK)
            CHECK_INT(process_descriptors(), before);
        aside_cancel_unref(token);
        CHECK_INT(process_descriptors(), before);
    }
}

TEST(a_descriptor_that_was_made_needs_no_other_for_a_deadline_or_for_firing)
{
    for (int fire = 0; fire <= 1; fire++) {
        aside_cancel *parent = token_new(), *child = child_of(parent);
        int fds[2] = {descriptor_of(parent), descriptor_of(child)};
        struct rlimit was = allow_descriptors(0);
        if (fire)
            aside_cancel_fire(parent);
        else
            set_deadline(parent, 5, NULL);
        CHECK(becomes_readable(fds[0]));
        CHECK(becomes_readable(fds[1]));
        check_token(child, fire ? ASIDE_E_CANCELLED : ASIDE_E_TIMEOUT);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &was), 0);
        aside_cancel_unref(parent);
        aside_cancel_unref(child);
    }
}

TEST(a_descriptor_that_can_not_be_allocated_is_an_error_code)
{
    aside_cancel *token = token_new();
    int before = process_descriptors();
    for (int nth = 1; nth <= 4; nth++) {
        int fd = -1;
        process_fail_alloc(nth, true);
        aside_status status = aside_cancel_fd(token, &fd);
        process_fail_alloc(0, false);
        CHECK(status == ASIDE_OK || (status == ASIDE_E_SYSTEM && fd == -1));
        CHECK_INT(fd >= 0, status == ASIDE_OK);
    }
    aside_cancel_fire(token);
    CHECK(becomes_readable(descriptor_of(token)));
    aside_cancel_unref(token);
    CHECK_INT(process_descriptors(), before);
}

/* ---- nothing is left behind ---------------------------------------------------------------------- */

/* Bytes that the C library's malloc has handed out, where it says so. */
static size_t bytes_in_use(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

/* A tree that is used in one way or another, by calls as well if there is a cache, and given back. */
static void live_and_die(int number, const aside_clock *clock, aside_cache *cache,
                         struct source *source)
{
    aside_cancel *tree[NODES];
    int order[NODES];
    order_of(number % ORDERS, order);
    tree_new(tree);
    if (number % 2)
        set_deadline(tree[FIRST], number % 4 == 1 ? 0 : 60000, clock);
    for (int i = 0; i < NODES && number % 3 == 0; i++)
        CHECK(descriptor_of(tree[i]) >= 0);
    if (number % 5 == 0)
        aside_cancel_fire(tree[SECOND]);
    for (int i = 0; i < NODES && cache != NULL; i++) {
        struct caller caller;
        caller_ask(&caller, cache, "k", source, tree[i]);
        CHECK(caller_run(&caller) == aside_cancel_status(tree[i]));
        caller_drop(&caller);
        CHECK(aside_cancel_fired(tree[i]) || aside_delete(cache, ASIDE_STR("k")) == ASIDE_OK);
    }
    for (int i = 0; i < NODES; i++)
        aside_cancel_unref(tree[order[i]]);
}

TEST(tokens_leave_neither_bytes_nor_descriptors_behind)
{
    struct fake_clock clock;
    aside_clock injected = fake_clock_init(&clock);
    size_t bytes = 0;
    int descriptors = process_descriptors();
    for (int i = 0; i < 50 * 120; i++) {
        if (i == 2 * 120) /* whatever is made once has been made by now */
            bytes = bytes_in_use();
        live_and_die(i % 120, i % 7 ? &injected : NULL, NULL, NULL);
    }
    CHECK_INT(bytes_in_use(), bytes);
    CHECK_INT(process_descriptors(), descriptors);
}

TEST(calls_with_tokens_leave_neither_bytes_of_their_cache_nor_descriptors_behind)
{
    struct ledger ledger;
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.alloc = ledger_init(&ledger);
    options.clock = fake_clock_init(&clock);
    aside_cache *cache = open_cache(&options);
    struct source source;
    source_init(&source, "v", false);
    int descriptors = process_descriptors();
    for (int i = 0; i < 4 * 120; i++)
        live_and_die(i % 120, i % 7 ? &options.clock : NULL, cache, &source);
    WAIT_UNTIL(STAT(cache, flights_now) == 0);
    CHECK_INT(STAT(cache, waiters_now), 0);
    CHECK_INT(process_descriptors(), descriptors);
    end_cache(cache);
    WAIT_UNTIL(ledger.live_blocks == 0);
    CHECK_INT(ledger.live_bytes, 0);
}

/* ---- no tokens ----------------------------------------------------------------------------------- */

TEST(no_function_takes_something_that_is_no_token)
{
    static int64_t zeros[64];
    aside_cancel *no_token = (aside_cancel *)zeros, *child = no_token;
    int fd = 0;
    CHECK_STATUS(aside_cancel_child(no_token, &child), ASIDE_E_INVALID);
    CHECK(child == NULL);
    CHECK_STATUS(aside_cancel_fd(no_token, &fd), ASIDE_E_INVALID);
    CHECK_INT(fd, -1);
    CHECK_STATUS(aside_cancel_set_deadline(no_token, 1000, NULL), ASIDE_E_INVALID);
    for (size_t i = 0; i < COUNT_OF(zeros); i++)
        CHECK_INT(zeros[i], 0);
}
