/*
 * epoch.c -- base/epoch: nothing is ripe while a reader could see it, everything is once they have
 * gone, and what visits name is found.
 */
#include "rooms.h"

#include "base/epoch.h"

static uint64_t now(void)
{
    return atomic_load(&epoch_global.now);
}

static void advance(int times)
{
    while (times-- > 0)
        epoch_advance();
}

TEST(two_epochs_make_a_tag_ripe_and_one_does_not)
{
    uint64_t tag = epoch_tag();
    CHECK_INT(tag, now());
    CHECK(!epoch_ripe(tag));
    advance(1);
    CHECK_INT(now(), tag + 1);
    CHECK(!epoch_ripe(tag));
    advance(1);
    CHECK_INT(now(), tag + 2);
    CHECK(epoch_ripe(tag));
    CHECK(!epoch_ripe(epoch_tag()));
}

TEST(a_reader_inside_holds_the_epoch_after_the_next)
{
    struct stalled reader;
    stalled_begin(&reader);
    uint64_t tag = epoch_tag();
    advance(100);
    CHECK(now() <= tag + 1);
    CHECK(!epoch_ripe(tag));
    stalled_end(&reader);
    advance(2);
    CHECK(epoch_ripe(tag));
}

TEST(a_reader_that_is_behind_holds_the_epoch_where_it_is)
{
    struct stalled behind, present;
    stalled_begin(&behind);
    advance(1);
    uint64_t tag = epoch_tag();
    stalled_begin(&present);
    advance(100);
    CHECK_INT(now(), tag);
    stalled_end(&behind);
    advance(100);
    CHECK_INT(now(), tag + 1); /* that one still */
    stalled_end(&present);
    advance(1);
    CHECK(epoch_ripe(tag));
}

TEST(who_has_left_holds_nothing)
{
    struct thread_record *self = thread_self();
    for (int i = 0; i < 10; i++) {
        uint64_t before = now();
        epoch_enter(self);
        CHECK_INT(self->announced, 2 * before + 1);
        epoch_leave(self);
        CHECK_INT(self->announced, 0);
        advance(1);
        CHECK_INT(now(), before + 1);
    }
}

/* ---- names --------------------------------------------------------------------------------------- */

static struct gate gate;
static char objects[64];

static void name_all(size_t first)
{
    struct thread_record *self = thread_self();
    for (size_t i = 0; i < THREAD_VISITS; i++)
        store_release(&self->visiting[i], &objects[first + i]);
}

static void *visitor_main(void *arg)
{
    name_all((size_t)((char *)arg - objects));
    gate_pass(&gate);
    return NULL; /* the names go with the thread */
}

TEST(what_visits_name_is_found)
{
    struct epoch_names names;
    pthread_t threads[2];
    gate_init(&gate);
    epoch_named(&names);
    CHECK_INT(names.count, 0);
    CHECK(!epoch_is_named(&names, &objects[0]));
    store_release(&thread_self()->visiting[1], &objects[0]);
    threads[0] = thread_start(visitor_main, &objects[4]);
    threads[1] = thread_start(visitor_main, &objects[8]);
    gate_wait_arrived(&gate, 2);
    epoch_named(&names);
    CHECK_INT(names.count, 9);
    CHECK(!names.overflow);
    CHECK(epoch_is_named(&names, &objects[0]));
    for (size_t i = 1; i < 4; i++)
        CHECK(!epoch_is_named(&names, &objects[i]));
    for (size_t i = 4; i < 12; i++)
        CHECK(epoch_is_named(&names, &objects[i]));
    gate_open(&gate);
    thread_join(threads[0]);
    thread_join(threads[1]);
    epoch_named(&names);
    CHECK_INT(names.count, 1);
    CHECK(!epoch_is_named(&names, &objects[4]));
}

static void check_many(int threads, bool overflow)
{
    struct epoch_names names;
    pthread_t visitors[16];
    gate_init(&gate);
    for (int i = 0; i < threads; i++)
        visitors[i] = thread_start(visitor_main, &objects[i * THREAD_VISITS]);
    gate_wait_arrived(&gate, threads);
    epoch_named(&names);
    CHECK_INT(names.overflow, overflow);
    CHECK_INT(names.count, overflow ? EPOCH_MAX_NAMES : threads * THREAD_VISITS);
    for (int i = 0; i < threads * THREAD_VISITS; i++)
        CHECK(epoch_is_named(&names, &objects[i]));
    CHECK(!epoch_is_named(&names, &names)); /* and nothing else is, however many there are */
    gate_open(&gate);
    for (int i = 0; i < threads; i++)
        thread_join(visitors[i]);
}

TEST(thirty_two_names_fit)
{
    check_many(EPOCH_MAX_NAMES / THREAD_VISITS, false);
}

TEST(more_names_are_looked_for_one_by_one)
{
    check_many(EPOCH_MAX_NAMES / THREAD_VISITS + 1, true);
}

/* ---- readers and a reclaimer, perturbed ---------------------------------------------------------- */

enum { NODES = 64, ALIVE = 1, FREED = 2 };

struct node {
    _Atomic int state;
    uint64_t tag;
};

static struct node nodes[NODES];
static _Atomic(struct node *) published;
static _Atomic bool done;

static void *reader_main(void *arg)
{
    (void)arg;
    struct thread_record *self = thread_self();
    while (!load_acquire(&done)) {
        epoch_enter(self);
        struct node *node = load_acquire(&published);
        for (int i = 0; i < 4; i++) {
            sched_point();
            CHECK_INT(load_relaxed(&node->state), ALIVE);
        }
        epoch_leave(self);
    }
    return NULL;
}

/* Publishes node after node; a node is used again once its tag is ripe. */
TEST(no_reader_meets_what_was_freed)
{
    pthread_t readers[3];
    size_t first = 0, count = 0; /* of those that wait, in a ring */
    long reused = 0;
    for (size_t i = 0; i < NODES; i++)
        atomic_store(&nodes[i].state, FREED);
    atomic_store(&nodes[0].state, ALIVE);
    atomic_store(&published, &nodes[0]);
    perturb(test_seed() | 1);
    for (size_t i = 0; i < COUNT_OF(readers); i++)
        readers[i] = thread_start(reader_main, NULL);
    for (long i = 1, rounds = test_rounds(10000); i <= rounds;) {
        while (count && epoch_ripe(nodes[first].tag)) {
            store_relaxed(&nodes[first].state, FREED);
            first = (first + 1) % NODES;
            count--;
            reused++;
        }
        if (count + 1 < NODES) {
            struct node *fresh = &nodes[(first + count + 1) % NODES];
            CHECK_INT(load_relaxed(&fresh->state), FREED);
            store_relaxed(&fresh->state, ALIVE);
            struct node *old = exchange_acq_rel(&published, fresh);
            old->tag = epoch_tag();
            count++;
            i++;
        }
        epoch_advance();
    }
    store_release(&done, true);
    for (size_t i = 0; i < COUNT_OF(readers); i++)
        thread_join(readers[i]);
    perturb(0);
    CHECK(reused > 0);
}
