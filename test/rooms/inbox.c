/*
 * inbox.c -- flight/inbox: who is posted, or late, is looked at, once, in order; the descriptor
 * says so, and nothing that was posted is ever left behind it; an inbox that is freed, or that came
 * through a fork, lets go of everything.
 */
#include "children.h"
#include "rooms.h"

#include "base/fork.h"
#include "flight/inbox.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>

#ifndef __linux__
TEST(other_systems_have_no_inbox)
{
    aside_inbox *inbox = (aside_inbox *)&errno;
    CHECK_STATUS(aside_inbox_new(&inbox), ASIDE_E_SYSTEM);
    CHECK_INT(errno, ENOSYS);
    CHECK(inbox == NULL);
}
#else

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

/* ---- what is looked at --------------------------------------------------------------------------- */

struct thing {
    struct inbox_item item;
    int id;
    int looks_left; /* so many times it is not done yet */
    void (*in_look)(struct thing *thing);
    void (*when_done)(struct thing *thing); /* no item any more */
    void (*when_abandoned)(struct thing *thing);
};

static aside_inbox *box;
static int box_fd;
static int log_ids[4096]; /* of all looks, and -id for who is abandoned */
static size_t log_length;

static void note(int id)
{
    CHECK(log_length < COUNT_OF(log_ids));
    log_ids[log_length++] = id;
}

/* Whoever holds any other lock may not take this one. */
static void check_no_lock(void)
{
    static struct lock lowest = LOCK_INIT(RANK_FORK);
    lock_take(&lowest);
    lock_release(&lowest);
}

static void call(void (*fn)(struct thing *), struct thing *thing)
{
    if (fn)
        fn(thing);
}

static bool look_at_thing(struct inbox_item *item)
{
    struct thing *thing = container_of(item, struct thing, item);
    check_no_lock();
    note(thing->id);
    call(thing->in_look, thing);
    if (thing->looks_left-- > 0)
        return false;
    inbox_delist(item);
    memset((void *)item, 0xee, sizeof *item);
    call(thing->when_done, thing);
    return true;
}

static void abandon_thing(struct inbox_item *item)
{
    struct thing *thing = container_of(item, struct thing, item);
    check_no_lock();
    note(-thing->id);
    inbox_delist(item);
    memset((void *)item, 0xee, sizeof *item);
    call(thing->when_abandoned, thing);
}

static const struct inbox_ops thing_ops = {look_at_thing, abandon_thing};

static void enlist(struct thing *thing, int id)
{
    memset((void *)thing, 0, sizeof *thing);
    thing->id = id;
    CHECK_STATUS(inbox_enlist(box, &thing->item, &thing_ops), ASIDE_OK);
}

static void enlist_ready(struct thing *thing, int id)
{
    enlist(thing, id);
    inbox_ready(&thing->item);
}

/* With ids from 1 on. */
static void enlist_all(struct thing *things, int count)
{
    for (int i = 0; i < count; i++)
        enlist_ready(&things[i], i + 1);
}

static void post_all(struct thing *things, int count)
{
    for (int i = 0; i < count; i++)
        inbox_post(&things[i].item);
}

static void begin(void)
{
    box_fd = -1;
    CHECK_STATUS(aside_inbox_new(&box), ASIDE_OK);
    CHECK_STATUS(aside_inbox_fd(box, &box_fd), ASIDE_OK);
}

static size_t dispatch(size_t budget)
{
    size_t dispatched = 99;
    CHECK_STATUS(aside_inbox_dispatch(box, budget, &dispatched), ASIDE_OK);
    return dispatched;
}

static bool is_readable(void)
{
    struct pollfd ready = {.fd = box_fd, .events = POLLIN};
    return poll(&ready, 1, 0) == 1;
}

/* A timer may take a while. */
static void wait_readable(void)
{
    struct pollfd ready = {.fd = box_fd, .events = POLLIN};
    CHECK_INT(poll(&ready, 1, (int)(test_patience_ns() / 1000000)), 1);
}

/* And forgets it. */
static void check_log(const int *ids, size_t count)
{
    CHECK_INT(log_length, count);
    for (size_t i = 0; i < count; i++)
        CHECK_INT(log_ids[i], ids[i]);
    log_length = 0;
}
#define CHECK_LOG(...)                                                                             \
    check_log((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))
#define CHECK_LOG_EMPTY() CHECK_INT(log_length, 0)

/* ---- making -------------------------------------------------------------------------------------- */

TEST(an_inbox_has_three_descriptors_and_gives_them_back)
{
    int before = process_descriptors();
    begin();
    CHECK_INT(process_descriptors(), before + 3);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_INT(process_descriptors(), before);
}

TEST(its_descriptors_are_closed_on_exec)
{
    bool had[64];
    int found = 0;
    for (int fd = 0; fd < 64; fd++)
        had[fd] = fcntl(fd, F_GETFD) >= 0;
    begin();
    for (int fd = 0; fd < 64; fd++) {
        if (had[fd] || fcntl(fd, F_GETFD) < 0)
            continue;
        CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
        found++;
    }
    CHECK_INT(found, 3);
    aside_inbox_free(box);
}

TEST(bad_arguments_are_refused)
{
    int fd = 7;
    size_t dispatched = 7;
    uint64_t nothing[64] = {0};
    CHECK_STATUS(aside_inbox_new(NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_inbox_fd(NULL, &fd), ASIDE_E_INVALID);
    CHECK_INT(fd, -1);
    CHECK_STATUS(aside_inbox_dispatch(NULL, 0, &dispatched), ASIDE_E_INVALID);
    CHECK_INT(dispatched, 0);
    CHECK(!inbox_is((const aside_inbox *)nothing));
    CHECK_STATUS(aside_inbox_dispatch((aside_inbox *)nothing, 0, NULL), ASIDE_E_INVALID);
    aside_inbox_free(NULL);
    begin();
    CHECK(inbox_is(box) && !inbox_is_lost(box));
    CHECK_STATUS(aside_inbox_fd(box, NULL), ASIDE_E_INVALID);
    CHECK_STATUS(aside_inbox_dispatch(box, 0, NULL), ASIDE_OK);
    aside_inbox_free(box);
}

TEST(no_memory_makes_no_inbox)
{
    int before = process_descriptors();
    process_fail_alloc(1, false);
    CHECK_STATUS(aside_inbox_new(&box), ASIDE_E_NOMEM);
    CHECK(box == NULL);
    CHECK_INT(process_descriptors(), before);
}

TEST(no_descriptors_make_no_inbox)
{
    struct rlimit many;
    CHECK(getrlimit(RLIMIT_NOFILE, &many) == 0);
    for (int left = 0; left < 3; left++) {
        int before = process_descriptors();
        int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
        close(lowest);
        const struct rlimit few = {(rlim_t)(lowest + left), many.rlim_max};
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        box = (aside_inbox *)&many;
        aside_status status = aside_inbox_new(&box);
        int error = errno;
        CHECK(setrlimit(RLIMIT_NOFILE, &many) == 0);
        CHECK_STATUS(status, ASIDE_E_SYSTEM);
        CHECK_INT(error, EMFILE);
        CHECK(box == NULL);
        CHECK_INT(process_descriptors(), before);
    }
}

/* ---- posting ------------------------------------------------------------------------------------- */

TEST(what_is_posted_is_looked_at_in_order_and_once)
{
    struct thing things[5];
    begin();
    enlist_all(things, 5);
    CHECK(!is_readable());
    CHECK_INT(dispatch(0), 0);
    inbox_post(&things[3].item);
    inbox_post(&things[0].item);
    inbox_post(&things[3].item);
    inbox_post(&things[4].item);
    inbox_post(&things[0].item);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 3);
    CHECK_LOG(4, 1, 5);
    CHECK(!is_readable());
    inbox_post(&things[2].item);
    inbox_post(&things[1].item);
    CHECK_INT(dispatch(0), 2);
    CHECK_LOG(3, 2);
    CHECK(!is_readable());
    CHECK_INT(dispatch(0), 0);
    aside_inbox_free(box);
    CHECK_LOG_EMPTY();
}

TEST(who_is_not_done_is_looked_at_when_posted_again)
{
    struct thing thing;
    begin();
    enlist_ready(&thing, 1);
    thing.looks_left = 2;
    for (int i = 0; i < 2; i++) {
        inbox_post(&thing.item);
        CHECK_INT(dispatch(0), 0);
        CHECK_LOG(1);
        CHECK(!is_readable());
        CHECK_INT(dispatch(0), 0);
        CHECK_LOG_EMPTY();
    }
    inbox_post(&thing.item);
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1);
    aside_inbox_free(box);
}

static void post_itself(struct thing *thing)
{
    inbox_post(&thing->item);
    inbox_post(&thing->item);
}

TEST(who_is_posted_while_looked_at_is_looked_at_again)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    things[0].looks_left = 1;
    things[0].in_look = post_itself;
    post_all(things, 2);
    CHECK_INT(dispatch(5), 2);
    CHECK_LOG(1, 2, 1);
    CHECK(!is_readable());
    enlist_ready(&things[0], 1);
    things[0].looks_left = 1;
    things[0].in_look = post_itself;
    inbox_post(&things[0].item);
    CHECK_INT(dispatch(0), 0); /* which looks at those that were there */
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1, 1);
    CHECK(!is_readable()); /* what is done is in no queue, though it was posted */
    aside_inbox_free(box);
    CHECK_LOG_EMPTY();
}

TEST(who_is_posted_before_it_is_ready_is_looked_at_when_it_is)
{
    struct thing things[2];
    begin();
    enlist(&things[0], 1);
    enlist(&things[1], 2);
    inbox_post(&things[0].item);
    CHECK_INT(dispatch(0), 0);
    CHECK_LOG_EMPTY();
    CHECK(!is_readable());
    inbox_ready(&things[1].item);
    CHECK(!is_readable());
    inbox_ready(&things[0].item);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1);
    aside_inbox_free(box);
    CHECK_LOG(-2);
}

TEST(whose_maker_takes_it_off_is_not_looked_at)
{
    struct thing things[3];
    begin();
    for (int i = 0; i < 3; i++)
        enlist(&things[i], i + 1);
    post_all(things, 3);
    inbox_alarm(&things[0].item, 1);
    inbox_delist(&things[1].item);
    inbox_delist(&things[0].item);
    memset((void *)things, 0xee, 2 * sizeof things[0]);
    inbox_ready(&things[2].item);
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(3);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_LOG_EMPTY();
}

TEST(who_is_taken_off_the_middle_of_the_queue_leaves_it_whole)
{
    for (int off = 0; off < 3; off++) {
        struct thing things[3];
        begin();
        enlist_all(things, 3);
        post_all(things, 3);
        inbox_delist(&things[off].item);
        memset((void *)&things[off], 0xee, sizeof things[off]);
        CHECK_INT(dispatch(0), 2);
        CHECK_LOG(off == 0 ? 2 : 1, off == 2 ? 2 : 3);
        enlist_ready(&things[0], 1);
        inbox_post(&things[0].item);
        inbox_delist(&things[0].item);
        CHECK(!is_readable());
        aside_inbox_free(box);
        CHECK_LOG_EMPTY();
    }
}

TEST(who_holds_a_shards_or_a_tokens_lock_may_post)
{
    static struct lock shard = LOCK_INIT(RANK_SHARD), token = LOCK_INIT(RANK_TOKEN);
    struct thing thing;
    begin();
    enlist_ready(&thing, 1);
    lock_take(&shard);
    lock_take(&token);
    inbox_post(&thing.item);
    inbox_alarm(&thing.item, 1);
    lock_release(&token);
    lock_release(&shard);
    CHECK_INT(dispatch(0), 1);
    aside_inbox_free(box);
}

/* ---- how many at once ---------------------------------------------------------------------------- */

TEST(a_budget_counts_who_is_done_and_the_rest_stays_readable)
{
    struct thing things[6];
    begin();
    enlist_all(things, 6);
    things[0].looks_left = 1;
    post_all(things, 6);
    CHECK_INT(dispatch(2), 2);
    CHECK_LOG(1, 2, 3);
    CHECK(is_readable());
    CHECK_INT(dispatch(1), 1);
    CHECK(is_readable());
    CHECK_INT(dispatch(100), 2);
    CHECK_LOG(4, 5, 6);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_LOG(-1);
}

/* The same thing again, behind all others. */
static void make_another(struct thing *thing)
{
    void (*when_done)(struct thing *) = thing->when_done;
    enlist_ready(thing, thing->id + 10);
    thing->when_done = when_done;
    inbox_post(&thing->item);
}

TEST(without_a_budget_those_are_looked_at_that_are_there_when_it_begins)
{
    struct thing things[3];
    begin();
    enlist_all(things, 3);
    for (int i = 0; i < 3; i++)
        things[i].when_done = make_another;
    post_all(things, 3);
    CHECK_INT(dispatch(0), 3);
    CHECK_LOG(1, 2, 3);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 3);
    CHECK_LOG(11, 12, 13);
    CHECK_INT(dispatch(7), 7);
    CHECK_LOG(21, 22, 23, 31, 32, 33, 41);
    CHECK(is_readable());
    for (int i = 0; i < 3; i++)
        things[i].when_done = NULL;
    CHECK_INT(dispatch(0), 3);
    CHECK_LOG(42, 43, 51);
    CHECK(!is_readable());
    aside_inbox_free(box);
}

static int edges(int epoll_fd)
{
    struct epoll_event event;
    return epoll_wait(epoll_fd, &event, 1, 0);
}

static int edge_triggered(void)
{
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET};
    int fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(epoll_ctl(fd, EPOLL_CTL_ADD, box_fd, &wanted) == 0);
    return fd;
}

TEST(who_waits_for_edges_gets_one_for_a_post_an_alarm_and_for_what_is_left)
{
    struct thing things[4];
    begin();
    int fd = edge_triggered();
    CHECK_INT(edges(fd), 0);
    enlist_all(things, 4);
    post_all(things, 3);
    CHECK_INT(edges(fd), 1);
    CHECK_INT(edges(fd), 0);
    for (int left = 2; left >= 0; left--) {
        CHECK_INT(dispatch(1), 1);
        CHECK_INT(edges(fd), left > 0);
        CHECK_INT(edges(fd), 0);
    }
    inbox_alarm(&things[3].item, 1);
    WAIT_UNTIL(edges(fd) == 1);
    CHECK_INT(dispatch(1), 1);
    CHECK_INT(edges(fd), 0);
    close(fd);
    aside_inbox_free(box);
}

/* ---- alarms -------------------------------------------------------------------------------------- */

#define FAR_NS (test_now_ns() + INT64_C(3600000000000))

TEST(an_alarm_makes_it_readable_and_is_used_up)
{
    struct thing thing;
    begin();
    enlist_ready(&thing, 1);
    thing.looks_left = 1;
    int64_t alarm_ns = test_now_ns() + 20000000;
    inbox_alarm(&thing.item, alarm_ns);
    wait_readable();
    CHECK(test_now_ns() >= alarm_ns);
    CHECK_INT(dispatch(0), 0);
    CHECK_LOG(1);
    CHECK(!is_readable());
    CHECK_INT(dispatch(0), 0);
    CHECK_LOG_EMPTY();
    inbox_alarm(&thing.item, 1);
    wait_readable();
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1);
    CHECK(!is_readable());
    aside_inbox_free(box);
}

TEST(an_alarm_that_is_over_makes_it_readable_whatever_the_instant)
{
    static const int64_t instants[] = {1, 0, -1, INT64_MIN, 999999999, 1000000000};
    for (size_t i = 0; i < COUNT_OF(instants); i++) {
        struct thing thing;
        begin();
        enlist_ready(&thing, 1);
        inbox_alarm(&thing.item, instants[i]);
        wait_readable();
        CHECK_INT(dispatch(0), 1);
        CHECK(!is_readable());
        CHECK_LOG(1);
        aside_inbox_free(box);
    }
}

TEST(an_alarm_that_is_far_away_makes_nothing_readable)
{
    struct thing things[3];
    begin();
    enlist_all(things, 3);
    inbox_alarm(&things[0].item, FAR_NS);
    inbox_alarm(&things[1].item, CLOCK_NEVER - 1);
    inbox_alarm(&things[2].item, CLOCK_NEVER);
    CHECK(!is_readable());
    CHECK_INT(dispatch(0), 0);
    CHECK_LOG_EMPTY();
    aside_inbox_free(box);
    CHECK_LOG(-3, -2, -1);
}

TEST(an_alarm_takes_the_place_of_the_one_before)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    inbox_alarm(&things[0].item, 1);
    inbox_alarm(&things[0].item, FAR_NS);
    inbox_alarm(&things[1].item, 1);
    inbox_alarm(&things[1].item, CLOCK_NEVER);
    CHECK_INT(dispatch(0), 0);
    CHECK_LOG_EMPTY();
    CHECK(!is_readable());
    inbox_alarm(&things[0].item, 2);
    wait_readable();
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1);
    inbox_alarm(&things[1].item, FAR_NS);
    inbox_post(&things[1].item);
    CHECK_INT(dispatch(0), 1); /* with its alarm */
    CHECK_LOG(2);
    aside_inbox_free(box);
}

TEST(who_is_posted_and_late_is_looked_at_once)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    post_all(things, 2);
    inbox_alarm(&things[0].item, 1);
    inbox_alarm(&things[1].item, 1);
    CHECK_INT(dispatch(0), 2);
    CHECK_LOG(1, 2);
    CHECK(!is_readable());
    aside_inbox_free(box);
}

TEST(an_alarm_before_it_is_ready_is_not_lost)
{
    struct thing thing;
    begin();
    enlist(&thing, 1);
    inbox_alarm(&thing.item, 1);
    wait_readable();
    CHECK_INT(dispatch(0), 0);
    CHECK(!is_readable());
    inbox_ready(&thing.item);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1);
    aside_inbox_free(box);
}

static void alarm_itself(struct thing *thing)
{
    inbox_alarm(&thing->item, 1);
}

TEST(who_sets_its_alarm_anew_in_its_look_is_looked_at_by_the_next_dispatch)
{
    struct thing thing;
    begin();
    enlist_ready(&thing, 1);
    thing.in_look = alarm_itself;
    thing.looks_left = 3;
    inbox_alarm(&thing.item, 1);
    for (int i = 0; i < 4; i++) {
        wait_readable();
        CHECK_INT(dispatch(9), i == 3);
        CHECK_LOG(1);
    }
    aside_inbox_free(box);
}

enum { CROWD = 500 };
static struct thing crowd[CROWD];
static int64_t alarms[CROWD + 1]; /* by id */

/* Of a crowd whose alarms were set, changed and taken away. */
TEST(those_who_are_late_are_looked_at_by_their_time)
{
    begin();
    enlist_all(crowd, CROWD);
    for (int i = 0; i < 4 * CROWD; i++) {
        int id = 1 + (int)random_below(CROWD);
        size_t way = random_below(8);
        alarms[id] = way == 0   ? CLOCK_NEVER
                     : way == 1 ? FAR_NS + (int64_t)random_below(1000)
                                : 1 + (int64_t)random_below(1000);
        inbox_alarm(&crowd[id - 1].item, alarms[id]);
    }
    int64_t latest_ns = 0, now_ns = test_now_ns();
    size_t late = 0;
    for (int id = 1; id <= CROWD; id++)
        late += alarms[id] != 0 && alarms[id] <= now_ns;
    CHECK_INT(dispatch(0), late);
    CHECK_INT(log_length, late);
    for (size_t i = 0; i < late; i++) {
        CHECK(alarms[log_ids[i]] >= latest_ns);
        latest_ns = alarms[log_ids[i]];
        alarms[log_ids[i]] = CLOCK_NEVER;
    }
    CHECK(latest_ns <= now_ns);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_INT(log_length, CROWD);
}

TEST(those_who_leave_the_heap_leave_it_in_order)
{
    begin();
    enlist_all(crowd, CROWD);
    for (int id = 1; id <= CROWD; id++) {
        alarms[id] = 1 + (int64_t)random_below(CROWD);
        inbox_alarm(&crowd[id - 1].item, alarms[id]);
    }
    for (int i = 0; i < CROWD; i += 2)
        inbox_delist(&crowd[i].item);
    CHECK_INT(dispatch(0), CROWD / 2);
    for (int i = 1; i < CROWD / 2; i++)
        CHECK(alarms[log_ids[i]] >= alarms[log_ids[i - 1]] && log_ids[i] % 2 == 0);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_INT(log_length, CROWD / 2);
}

TEST(the_alarms_that_are_set_survive_those_that_are_enlisted_after_them)
{
    begin();
    for (int i = 0; i < CROWD; i++) {
        enlist_ready(&crowd[i], i + 1);
        inbox_alarm(&crowd[i].item, CROWD - i);
    }
    CHECK_INT(dispatch(0), CROWD);
    for (int i = 0; i < CROWD; i++)
        CHECK_INT(log_ids[i], CROWD - i);
    aside_inbox_free(box);
}

/* ---- memory -------------------------------------------------------------------------------------- */

TEST(no_room_for_an_alarm_is_said_when_it_is_enlisted)
{
    int enlisted = 0;
    struct thing refused;
    begin();
    for (int refusals = 0; refusals < 3; enlisted++) {
        process_fail_alloc(1, false);
        aside_status status = inbox_enlist(box, &refused.item, &thing_ops);
        bool asked = process_alloc_calls() > 0;
        process_fail_alloc(0, false);
        CHECK_STATUS(status, asked ? ASIDE_E_NOMEM : ASIDE_OK);
        refusals += asked;
        if (!asked)
            inbox_delist(&refused.item);
        CHECK(enlisted < CROWD);
        enlist_ready(&crowd[enlisted], enlisted + 1);
    }
    process_fail_alloc(1, true);
    for (int i = 0; i < enlisted; i++)
        inbox_alarm(&crowd[i].item, i + 1);
    post_all(crowd, enlisted / 2);
    CHECK_INT(dispatch(0), enlisted);
    process_fail_alloc(0, false);
    aside_inbox_free(box);
}

/* ---- callbacks that use the inbox ---------------------------------------------------------------- */

static void dispatch_one(struct thing *thing)
{
    (void)thing;
    CHECK(is_readable());
    CHECK_INT(dispatch(1), 1);
}

TEST(a_callback_may_dispatch)
{
    struct thing things[4];
    begin();
    enlist_all(things, 4);
    things[0].when_done = things[1].when_done = dispatch_one;
    post_all(things, 4);
    CHECK_INT(dispatch(0), 2); /* its own: two were called by those below it */
    CHECK_LOG(1, 2, 3, 4);
    CHECK(!is_readable() || dispatch(0) == 0);
    CHECK(!is_readable());
    aside_inbox_free(box);
}

static void post_itself_and_dispatch(struct thing *thing)
{
    thing->in_look = NULL;
    inbox_post(&thing->item);
    inbox_alarm(&thing->item, 1);
    CHECK_INT(dispatch(9), 1);
    CHECK(!is_readable());
}

TEST(a_look_that_runs_user_code_is_not_begun_again_by_it)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    things[0].in_look = post_itself_and_dispatch;
    things[0].looks_left = 1;
    post_all(things, 2);
    CHECK_INT(dispatch(9), 1);
    CHECK_LOG(1, 2, 1);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_LOG_EMPTY();
}

static void free_box(struct thing *thing)
{
    (void)thing;
    aside_inbox_free(box);
}

TEST(a_callback_may_free_the_inbox_which_is_gone_when_that_has_returned)
{
    struct thing things[4];
    int before = process_descriptors();
    begin();
    enlist_all(things, 4);
    things[1].when_done = free_box;
    post_all(things, 3);
    CHECK_INT(dispatch(0), 2);
    CHECK_LOG(1, 2, -4, -3);
    CHECK_INT(process_descriptors(), before);
}

static void dispatch_then_free(struct thing *thing)
{
    (void)thing;
    CHECK_INT(dispatch(1), 1);
    aside_inbox_free(box);
    CHECK_STATUS(aside_inbox_dispatch(box, 0, NULL), ASIDE_E_INVALID);
    CHECK(inbox_is(box));
    aside_inbox_free(box); /* by mistake */
}

TEST(a_callback_of_a_callback_may_free_the_inbox)
{
    struct thing things[5];
    int before = process_descriptors();
    begin();
    enlist_all(things, 5);
    things[0].when_done = dispatch_one;
    things[1].when_done = free_box;
    post_all(things, 4);
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(1, 2, -5, -4, -3);
    CHECK_INT(process_descriptors(), before);
}

TEST(an_inbox_that_is_freed_in_a_callback_is_used_no_more)
{
    struct thing things[3];
    int before = process_descriptors();
    begin();
    enlist_all(things, 3);
    things[0].when_done = dispatch_then_free;
    post_all(things, 2);
    CHECK_INT(dispatch(9), 1);
    CHECK_LOG(1, 2, -3);
    CHECK_INT(process_descriptors(), before);
}

static void enlist_in_vain(struct thing *thing)
{
    CHECK_STATUS(inbox_enlist(box, &thing->item, &thing_ops), ASIDE_E_INVALID);
    CHECK_STATUS(aside_inbox_dispatch(box, 0, NULL), ASIDE_E_INVALID);
    aside_inbox_free(box);
}

TEST(all_who_are_left_are_abandoned_once_when_it_is_freed)
{
    struct thing things[4];
    int before = process_descriptors();
    begin();
    enlist_all(things, 4);
    inbox_post(&things[1].item);
    inbox_alarm(&things[2].item, 1);
    inbox_alarm(&things[3].item, FAR_NS);
    things[1].when_abandoned = enlist_in_vain;
    aside_inbox_free(box);
    CHECK_LOG(-4, -3, -2, -1);
    CHECK_INT(process_descriptors(), before);
}

TEST(who_is_looked_at_while_the_inbox_is_freed_is_abandoned_after_the_look)
{
    for (int looks_left = 0; looks_left <= 1; looks_left++) {
        struct thing things[2];
        int before = process_descriptors();
        begin();
        enlist_all(things, 2);
        things[0].in_look = free_box;
        things[0].looks_left = looks_left;
        post_all(things, 2);
        CHECK_INT(dispatch(0), 1 - looks_left);
        if (looks_left)
            CHECK_LOG(1, -2, -1);
        else
            CHECK_LOG(1, -2);
        CHECK_INT(process_descriptors(), before);
    }
}

TEST(who_is_made_while_the_inbox_is_freed_keeps_it_until_it_is_ready)
{
    struct thing things[3];
    int before = process_descriptors();
    begin();
    for (int i = 0; i < 3; i++)
        enlist(&things[i], i + 1);
    aside_inbox_free(box);
    CHECK_LOG_EMPTY();
    inbox_post(&things[0].item);
    inbox_alarm(&things[0].item, 1);
    inbox_ready(&things[0].item);
    CHECK_LOG(-1);
    inbox_delist(&things[1].item);
    CHECK_INT(process_descriptors(), before + 3);
    inbox_ready(&things[2].item);
    CHECK_LOG(-3);
    CHECK_INT(process_descriptors(), before);
}

/* ---- in front of the C library's ----------------------------------------------------------------- */

#if defined(__GLIBC__) && defined(__LP64__)
static _Atomic int writes, settings;
static _Atomic int interruptions; /* so many calls are, of each kind */
static _Atomic bool hold_writers, counter_is_full;
static struct gate writers;
static int refuse_watch; /* the n-th from now on */

static bool is_interrupted(void)
{
    errno = EINTR;
    return interruptions > 0 && interruptions-- > 0;
}

int eventfd_write(int fd, eventfd_t value)
{
    if (is_interrupted())
        return -1;
    if (hold_writers)
        gate_pass(&writers);
    writes++;
    const eventfd_t most = UINT64_MAX - 1;
    if (counter_is_full)
        CHECK(write(fd, &most, sizeof most) == sizeof most);
    return write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

int eventfd_read(int fd, eventfd_t *value)
{
    if (is_interrupted())
        return -1;
    return read(fd, value, sizeof *value) == sizeof *value ? 0 : -1;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *before)
{
    settings++;
    return (int)syscall(SYS_timerfd_settime, fd, flags, when, before);
}

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    if (refuse_watch > 0 && --refuse_watch == 0) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll_fd, op, fd, event);
}

TEST(a_descriptor_that_cannot_be_watched_makes_no_inbox)
{
    for (int nth = 1; nth <= 2; nth++) {
        int before = process_descriptors();
        refuse_watch = nth;
        CHECK_STATUS(aside_inbox_new(&box), ASIDE_E_SYSTEM);
        CHECK_INT(errno, ENOSPC);
        CHECK(box == NULL);
        CHECK_INT(process_descriptors(), before);
    }
}

TEST(a_burst_is_written_once)
{
    begin();
    enlist_all(crowd, 100);
    for (int burst = 0; burst < 3; burst++) {
        post_all(crowd, 100);
        CHECK_INT(writes, burst + 1);
        for (int i = 0; i < 100; i++)
            crowd[i].looks_left = 1;
        CHECK_INT(dispatch(0), 0);
    }
    for (int i = 0; i < 100; i++)
        inbox_alarm(&crowd[i].item, 1);
    CHECK_INT(dispatch(0), 100);
    CHECK_INT(writes, 4);
    aside_inbox_free(box);
}

TEST(the_timer_is_set_when_an_alarm_is_the_earliest_and_not_when_it_goes_away)
{
    struct thing things[3];
    int64_t far_ns = FAR_NS;
    begin();
    enlist_all(things, 3);
    inbox_alarm(&things[0].item, far_ns);
    CHECK_INT(settings, 1);
    inbox_alarm(&things[1].item, far_ns + 1);
    inbox_alarm(&things[2].item, far_ns);
    CHECK_INT(settings, 1);
    inbox_alarm(&things[2].item, far_ns - 1);
    CHECK_INT(settings, 2);
    inbox_alarm(&things[2].item, far_ns + 2);
    inbox_alarm(&things[1].item, CLOCK_NEVER);
    inbox_alarm(&things[0].item, CLOCK_NEVER);
    CHECK_INT(dispatch(0), 0);
    CHECK_INT(settings, 2);
    inbox_alarm(&things[2].item, test_now_ns() + 1000000);
    inbox_alarm(&things[2].item, far_ns);
    wait_readable(); /* for nothing, once */
    CHECK_INT(dispatch(0), 0);
    CHECK(!is_readable());
    CHECK_INT(settings, 4);
    aside_inbox_free(box);
}

TEST(an_interrupted_call_is_made_again)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    interruptions = 3;
    inbox_post(&things[0].item);
    CHECK_INT(interruptions, 0);
    CHECK(is_readable());
    interruptions = 3;
    CHECK_INT(dispatch(0), 1);
    CHECK_INT(interruptions, 0);
    CHECK(!is_readable());
    aside_inbox_free(box);
}

/* As after 2 to the 64th posts. It is readable all the same. */
TEST(a_counter_that_is_full_is_as_good_as_written)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    counter_is_full = true;
    inbox_post(&things[0].item);
    counter_is_full = false;
    CHECK_INT(writes, 1);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    CHECK(!is_readable());
    inbox_post(&things[1].item);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    aside_inbox_free(box);
}

static void *post_main(void *item)
{
    inbox_post(item);
    return NULL;
}

TEST(a_post_that_is_late_to_write_loses_nothing)
{
    struct thing things[2];
    begin();
    gate_init(&writers);
    enlist_all(things, 2);
    hold_writers = true;
    pthread_t thread = thread_start(post_main, &things[0].item);
    gate_wait_arrived(&writers, 1);
    hold_writers = false;
    CHECK_INT(dispatch(0), 1); /* it is in the queue before it is written */
    CHECK(!is_readable());
    inbox_post(&things[1].item);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    CHECK(!is_readable());
    gate_open(&writers);
    thread_join(thread);
    CHECK(is_readable()); /* for nothing */
    CHECK_INT(dispatch(0), 0);
    CHECK(!is_readable());
    aside_inbox_free(box);
    gate_fini(&writers);
}

TEST(an_inbox_that_is_freed_stays_until_nobody_writes_to_it)
{
    struct thing thing;
    int before = process_descriptors();
    begin();
    gate_init(&writers);
    enlist_ready(&thing, 1);
    hold_writers = true;
    pthread_t thread = thread_start(post_main, &thing.item);
    gate_wait_arrived(&writers, 1);
    hold_writers = false;
    CHECK_INT(dispatch(0), 1);
    aside_inbox_free(box);
    CHECK_INT(process_descriptors(), before + 3);
    CHECK(is_readable() == false);
    gate_open(&writers);
    thread_join(thread);
    CHECK_INT(process_descriptors(), before);
    gate_fini(&writers);
}
#endif

/* ---- threads that are ended, and errno ----------------------------------------------------------- */

static _Atomic int reached;

static void *cancelled_main(void *arg)
{
    struct thing *thing = arg;
    pthread_cancel(pthread_self());
    inbox_post(&thing->item);
    CHECK_INT(dispatch(0), 1);
    reached = 1;
    aside_inbox_free(box);
    reached = 2;
    pthread_testcancel();
    reached = 3;
    return NULL;
}

static void cancellation_point(struct thing *thing)
{
    (void)thing;
    pthread_testcancel();
}

TEST(a_thread_that_is_cancelled_is_not_ended_inside)
{
    struct thing things[2];
    int before = process_descriptors();
    begin();
    enlist_all(things, 2);
    things[0].when_done = things[1].when_abandoned = cancellation_point;
    CHECK(thread_join(thread_start(cancelled_main, &things[0])) == PTHREAD_CANCELED);
    CHECK_INT(reached, 2);
    CHECK_INT(process_descriptors(), before);
}

TEST(errno_is_left_alone)
{
    struct thing thing;
    begin();
    enlist_ready(&thing, 1);
    errno = ERANGE;
    inbox_alarm(&thing.item, 1);
    inbox_post(&thing.item);
    CHECK_INT(dispatch(0), 1);
    CHECK_INT(dispatch(0), 0); /* reads what is not there */
    aside_inbox_free(box);
    CHECK_INT(errno, ERANGE);
}

/* ---- forks --------------------------------------------------------------------------------------- */

static void check_lost(struct thing *known, struct thing *queued)
{
    int fd = 7;
    size_t dispatched = 7;
    struct thing late;
    CHECK(inbox_is(box) && inbox_is_lost(box));
    CHECK_STATUS(aside_inbox_fd(box, &fd), ASIDE_E_FORKED);
    CHECK_INT(fd, -1);
    CHECK_STATUS(aside_inbox_dispatch(box, 0, &dispatched), ASIDE_E_FORKED);
    CHECK_INT(dispatched, 0);
    CHECK_STATUS(inbox_enlist(box, &late.item, &thing_ops), ASIDE_E_FORKED);
    inbox_ready(&known->item);
    inbox_post(&known->item);
    inbox_alarm(&known->item, 1);
    inbox_delist(&queued->item);
}

TEST(in_the_child_of_a_fork_it_is_lost_and_can_be_freed)
{
    struct thing things[2];
    int before = process_descriptors();
    begin();
    enlist_all(things, 2);
    inbox_post(&things[1].item);
    inbox_alarm(&things[1].item, FAR_NS);
    struct child child = child_fork();
    if (child.pid == 0) {
        check_lost(&things[0], &things[1]);
        int descriptors = process_descriptors();
        aside_inbox_free(box);
        CHECK_INT(process_descriptors(), descriptors - 3);
        CHECK(inbox_is_lost(box)); /* which the other item keeps */
        inbox_post(&things[0].item);
        inbox_delist(&things[0].item);
        CHECK_LOG_EMPTY();
        begin();
        enlist_all(things, 2);
        post_all(things, 2);
        CHECK_INT(dispatch(0), 2);
        aside_inbox_free(box);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    CHECK(is_readable());
    CHECK_INT(dispatch(0), 1);
    CHECK_LOG(2);
    CHECK(!is_readable());
    aside_inbox_free(box);
    CHECK_LOG(-1);
    CHECK_INT(process_descriptors(), before);
}

static struct child forked;
static bool free_in_child;

static void fork_in_callback(struct thing *thing)
{
    (void)thing;
    forked = child_fork();
    if (forked.pid == 0 && free_in_child)
        aside_inbox_free(box);
}

TEST(a_callback_that_forks_ends_the_dispatch_in_the_child)
{
    for (int frees = 0; frees <= 1; frees++) {
        struct thing things[3];
        size_t dispatched = 0;
        int before = process_descriptors();
        begin();
        enlist_all(things, 3);
        things[1].when_done = fork_in_callback;
        free_in_child = frees;
        post_all(things, 3);
        aside_status status = aside_inbox_dispatch(box, 0, &dispatched);
        if (forked.pid == 0) {
            CHECK_STATUS(status, ASIDE_E_FORKED);
            CHECK_INT(dispatched, 2);
            inbox_delist(&things[2].item); /* the last that kept it, if it is freed */
            if (!frees)
                aside_inbox_free(box);
            CHECK_LOG(1, 2);
            CHECK_INT(process_descriptors(), before);
            child_done();
        }
        child_end(&forked, CHILD_DONE);
        CHECK_STATUS(status, ASIDE_OK);
        CHECK_INT(dispatched, 3);
        CHECK_LOG(1, 2, 3);
        aside_inbox_free(box);
    }
}

TEST(a_look_that_forks_leaves_the_item_to_the_parent)
{
    struct thing things[2];
    begin();
    enlist_all(things, 2);
    things[0].in_look = fork_in_callback;
    things[0].looks_left = 1;
    post_all(things, 2);
    aside_status status = aside_inbox_dispatch(box, 0, NULL);
    if (forked.pid == 0) {
        CHECK_STATUS(status, ASIDE_E_FORKED);
        CHECK_LOG(1);
        child_done();
    }
    child_end(&forked, CHILD_DONE);
    CHECK_LOG(1, 2);
    aside_inbox_free(box);
    CHECK_LOG(-1);
}

TEST(a_callback_that_forks_while_it_is_freed_is_the_last_in_the_child)
{
    for (int frees = 0; frees <= 1; frees++) {
        struct thing things[3];
        int before = process_descriptors();
        begin();
        enlist_all(things, 3);
        things[1].when_abandoned = fork_in_callback;
        free_in_child = frees;
        aside_inbox_free(box);
        if (forked.pid == 0) {
            CHECK_LOG(-3, -2);
            CHECK_INT(process_descriptors(), before);
            inbox_delist(&things[0].item);
            child_done();
        }
        child_end(&forked, CHILD_DONE);
        CHECK_LOG(-3, -2, -1);
        CHECK_INT(process_descriptors(), before);
    }
}

static _Atomic bool enough;

static void *busy_main(void *arg)
{
    struct thing *thing = arg;
    while (!load_acquire(&enough)) {
        inbox_post(&thing->item);
        inbox_alarm(&thing->item, FAR_NS);
        struct thing other;
        CHECK_STATUS(inbox_enlist(box, &other.item, &thing_ops), ASIDE_OK);
        inbox_delist(&other.item);
    }
    return NULL;
}

TEST(a_fork_while_others_are_in_the_middle_hangs_nobody)
{
    static struct thing things[3];
    pthread_t threads[3];
    begin();
    enlist_all(things, 3);
    for (int i = 0; i < 3; i++)
        threads[i] = thread_start(busy_main, &things[i]);
    for (long round = test_rounds(30); round > 0; round--) {
        struct child child = child_fork();
        if (child.pid == 0) {
            check_lost(&things[0], &things[1]);
            aside_inbox_free(box);
            child_done();
        }
        child_end(&child, CHILD_DONE);
    }
    store_release(&enough, true);
    for (int i = 0; i < 3; i++)
        thread_join(threads[i]);
    aside_inbox_free(box);
}

/* ---- races --------------------------------------------------------------------------------------- */

/* A number that its maker counts up to its end. */
struct counter {
    struct inbox_item item;
    struct lock *lock; /* of whoever posts; a look takes it, so that he has ended */
    int now, end;      /* guarded by lock */
    _Atomic bool *gone;
};

static bool look_at_counter(struct inbox_item *item)
{
    struct counter *counter = container_of(item, struct counter, item);
    lock_take(counter->lock);
    bool done = counter->now == counter->end;
    lock_release(counter->lock);
    if (!done)
        return false;
    _Atomic bool *gone = counter->gone;
    inbox_delist(item);
    free(counter);
    store_release(gone, true);
    return true;
}

static const struct inbox_ops counter_ops = {look_at_counter, NULL};

static struct counter *new_counter(struct lock *lock, _Atomic bool *gone)
{
    struct counter *made = calloc(1, sizeof *made);
    CHECK(made != NULL);
    made->lock = lock;
    made->gone = gone;
    made->end = 1 + (int)random_below(4);
    CHECK_STATUS(inbox_enlist(box, &made->item, &counter_ops), ASIDE_OK);
    return made;
}

/* The last one may be the last that its maker sees of it. */
static void count(struct counter *counter)
{
    struct lock *lock = counter->lock;
    size_t way = random_below(4);
    lock_take(lock);
    counter->now++;
    if (way < 3)
        inbox_post(&counter->item);
    if (way > 1)
        inbox_alarm(&counter->item, way == 2 ? FAR_NS : 1);
    lock_release(lock);
}

/* One after the other, so that a wake-up that is lost is not made good by the next. */
static void *count_main(void *arg)
{
    struct lock lock = LOCK_INIT(RANK_SHARD);
    (void)arg;
    for (long round = test_rounds(300); round > 0; round--) {
        _Atomic bool gone = false;
        struct counter *counter = new_counter(&lock, &gone);
        int end = counter->end, ready_at = (int)random_below((size_t)end + 1);
        for (int i = 0; i < end; i++) {
            if (i == ready_at)
                inbox_ready(&counter->item);
            count(counter);
        }
        if (end == ready_at)
            inbox_ready(&counter->item);
        while (!load_acquire(&gone))
            test_yield();
    }
    lock_fini(&lock);
    return NULL;
}

static void wait_for_edge(int epoll_fd)
{
    struct epoll_event event;
    CHECK_INT(epoll_wait(epoll_fd, &event, 1, (int)(test_patience_ns() / 1000000)), 1);
}

static void race(int makers, bool by_edges)
{
    pthread_t threads[8];
    long left = makers * test_rounds(300);
    begin();
    int edge_fd = edge_triggered();
    perturb(test_seed() | 1);
    for (int i = 0; i < makers; i++)
        threads[i] = thread_start(count_main, NULL);
    while (left > 0) {
        if (by_edges)
            wait_for_edge(edge_fd);
        else
            wait_readable();
        left -= (long)dispatch(random_below(3));
    }
    for (int i = 0; i < makers; i++)
        thread_join(threads[i]);
    perturb(0);
    while (is_readable())
        CHECK_INT(dispatch(0), 0);
    close(edge_fd);
    aside_inbox_free(box);
}

TEST(nothing_that_one_thread_posts_is_left_behind)
{
    race(1, false);
}

TEST(nothing_that_eight_threads_post_is_left_behind)
{
    race(8, false);
}

TEST(nothing_that_one_thread_posts_is_left_behind_for_who_waits_for_edges)
{
    race(1, true);
}

TEST(nothing_that_eight_threads_post_is_left_behind_for_who_waits_for_edges)
{
    race(8, true);
}

static struct thing outer, inner;
static _Atomic long round_now;
static bool inner_is_done;

static void *inner_main(void *arg)
{
    (void)arg;
    for (long round = test_rounds(300); round > 0; round--) {
        while (load_acquire(&round_now) != round)
            sched_yield();
        inbox_post(&inner.item);
    }
    return NULL;
}

static void say_so(struct thing *thing)
{
    (void)thing;
    inner_is_done = true;
}

static void wait_for_inner(struct thing *thing)
{
    (void)thing;
    while (!inner_is_done) {
        wait_readable();
        dispatch(1);
    }
}

TEST(a_callback_may_run_a_loop_of_its_own)
{
    begin();
    perturb(test_seed() | 1);
    pthread_t thread = thread_start(inner_main, NULL);
    for (long round = test_rounds(300); round > 0; round--) {
        log_length = 0;
        inner_is_done = false;
        enlist_ready(&outer, 1);
        enlist_ready(&inner, 2);
        outer.when_done = wait_for_inner;
        inner.when_done = say_so;
        inbox_post(&outer.item);
        store_release(&round_now, round);
        dispatch(1);
        while (!inner_is_done)
            dispatch(1);
    }
    thread_join(thread);
    perturb(0);
    aside_inbox_free(box);
}
#endif
