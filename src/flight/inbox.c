/* flight/inbox -- see inbox.h. */
#include "flight/inbox.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/lock.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define MAGIC 0x58424e49 /* "INBX" */
#define NO_FD (-1)
#define FIRST_ROOM 16
#define MOST_RUNG 64 /* alarms in one hold of the lock, for which a shard's may wait */

struct aside_inbox {
    uint32_t magic;
    uint32_t generation;        /* immutable */
    int fd, event_fd, timer_fd; /* immutable until it is freed */
    _Atomic size_t refs;
    _Atomic bool freed; /* by its user */

    struct lock lock;
    struct inbox_item *first, *last; /* guarded by lock */
    size_t queued;                   /* guarded by lock */
    bool lit;                 /* guarded by lock: the eventfd is, or is about to be, written */
    struct inbox_item *all;   /* guarded by lock */
    size_t listed;            /* guarded by lock */
    struct inbox_item **heap; /* guarded by lock: by alarm_ns, the earliest first */
    size_t alarms, room;      /* guarded by lock: places of the heap that are used, and all */
    int64_t armed_ns;         /* guarded by lock: what the timer is set to */
};

/* A fork need not take an inbox's lock: that of a lost one is not touched again. The room is a
 * member so that the generation moves. */
static void fork_locks(struct fork_member *member, enum lock_rank rank,
                       void (*each)(struct lock *lock))
{
    (void)member;
    (void)rank;
    (void)each;
}

static const struct fork_ops fork_ops = {fork_locks, NULL};
static struct fork_member forks = {.ops = &fork_ops};

/* ---- descriptors ----------------------------------------------------------------------------- */

/* Round system calls: whoever posts is not ended by them, and keeps his errno. */
struct quiet {
    int cancel_state, error;
};

static struct quiet quiet_begin(void)
{
    struct quiet quiet = {.error = errno};
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &quiet.cancel_state);
    return quiet;
}

static void quiet_end(struct quiet quiet)
{
    errno = quiet.error;
    pthread_setcancelstate(quiet.cancel_state, NULL);
}

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

static bool got(int *to, int fd)
{
    *to = fd;
    return fd != NO_FD;
}

static bool watch(int epoll_fd, int fd)
{
    struct epoll_event readable = {.events = EPOLLIN};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &readable) == 0;
}

static bool open_all(aside_inbox *inbox)
{
    return got(&inbox->fd, epoll_create1(EPOLL_CLOEXEC)) &&
           got(&inbox->event_fd, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) &&
           got(&inbox->timer_fd, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) &&
           watch(inbox->fd, inbox->event_fd) && watch(inbox->fd, inbox->timer_fd);
}

/* What else could fail is a counter that is full: the descriptor is readable then. */
static void write_event(const aside_inbox *inbox)
{
    struct quiet quiet = quiet_begin();
    while (eventfd_write(inbox->event_fd, 1) != 0 && errno == EINTR)
        ;
    quiet_end(quiet);
}

static void read_event(const aside_inbox *inbox)
{
    eventfd_t count;
    struct quiet quiet = quiet_begin();
    while (eventfd_read(inbox->event_fd, &count) != 0 && errno == EINTR)
        ;
    quiet_end(quiet);
}

/* Makes it unreadable until then. At 0 it would never go off. Fails for no instant from 1 on. */
static void set_timer(const aside_inbox *inbox, int64_t at_ns)
{
    struct itimerspec when = {.it_value = {0, 0}};
    struct quiet quiet = quiet_begin();
    if (at_ns != CLOCK_NEVER) {
        at_ns = at_ns > 1 ? at_ns : 1;
        when.it_value.tv_sec = (time_t)(at_ns / 1000000000);
        when.it_value.tv_nsec = (long)(at_ns % 1000000000);
    }
    timerfd_settime(inbox->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    quiet_end(quiet);
}
#else
static bool open_all(aside_inbox *inbox)
{
    (void)inbox;
    errno = ENOSYS;
    return false;
}

static void write_event(const aside_inbox *inbox)
{
    (void)inbox;
}

static void read_event(const aside_inbox *inbox)
{
    (void)inbox;
}

static void set_timer(const aside_inbox *inbox, int64_t at_ns)
{
    (void)inbox;
    (void)at_ns;
}
#endif

static void close_one(int *fd)
{
    if (*fd != NO_FD)
        close(*fd);
    *fd = NO_FD;
}

static void close_all(aside_inbox *inbox)
{
    struct quiet quiet = quiet_begin();
    close_one(&inbox->fd);
    close_one(&inbox->event_fd);
    close_one(&inbox->timer_fd);
    quiet_end(quiet);
}

/* ---- making and ending ----------------------------------------------------------------------- */

bool inbox_is(const aside_inbox *inbox)
{
    return inbox->magic == MAGIC;
}

bool inbox_is_lost(const aside_inbox *inbox)
{
    return inbox->generation != fork_generation();
}

void inbox_ref(aside_inbox *inbox)
{
    fetch_add_relaxed(&inbox->refs, 1);
}

/* The lock of a lost one may be held by a thread of the parent. */
void inbox_unref(aside_inbox *inbox)
{
    if (fetch_sub_acq_rel(&inbox->refs, 1) != 1)
        return;
    close_all(inbox);
    if (!inbox_is_lost(inbox))
        lock_fini(&inbox->lock);
    mem_free(&mem_default, inbox->heap);
    inbox->magic = 0;
    mem_free(&mem_default, inbox);
}

static aside_inbox *new_inbox(void)
{
    aside_inbox *made = fork_join(&forks) ? mem_zalloc(&mem_default, sizeof *made) : NULL;
    if (!made)
        return NULL;
    made->magic = MAGIC;
    made->generation = fork_generation();
    made->fd = made->event_fd = made->timer_fd = NO_FD;
    made->armed_ns = CLOCK_NEVER;
    atomic_init(&made->refs, 1);
    atomic_init(&made->freed, false);
    lock_init(&made->lock, RANK_INBOX);
    return made;
}

aside_status aside_inbox_new(aside_inbox **inbox)
{
    if (!inbox)
        return ASIDE_E_INVALID;
    *inbox = NULL;
    aside_inbox *made = new_inbox();
    if (!made)
        return ASIDE_E_NOMEM;
    if (!open_all(made)) {
        inbox_unref(made);
        return ASIDE_E_SYSTEM;
    }
    *inbox = made;
    return ASIDE_OK;
}

aside_status aside_inbox_fd(const aside_inbox *inbox, int *fd)
{
    if (fd)
        *fd = NO_FD;
    if (!fd || !inbox || !inbox_is(inbox))
        return ASIDE_E_INVALID;
    if (inbox_is_lost(inbox))
        return ASIDE_E_FORKED;
    *fd = inbox->fd;
    return ASIDE_OK;
}

/* ---- the queue ------------------------------------------------------------------------------- */

/* True: the caller is to call light_up(), under no lock of the inbox. */
static bool enqueue(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    item->state = INBOX_QUEUED;
    item->missed = false;
    item->next = NULL;
    item->prev = inbox->last;
    *(inbox->last ? &inbox->last->next : &inbox->first) = item;
    inbox->last = item;
    inbox->queued++;
    if (inbox->lit)
        return false;
    inbox->lit = true;
    inbox_ref(inbox);
    return true;
}

/* Not under the lock: this wakes the loop's thread, which would run into it. */
static void light_up(aside_inbox *inbox, bool to_be_lit)
{
    if (!to_be_lit)
        return;
    write_event(inbox);
    inbox_unref(inbox);
}

/* Under the lock, lest it swallows what is written for the next item. Who is about to write still
 * does: the descriptor is readable for nothing then, which the next dispatch mends. */
static void darken(aside_inbox *inbox) REQUIRES(inbox->lock)
{
    read_event(inbox);
    inbox->lit = false;
}

static void dequeue(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    *(item->prev ? &item->prev->next : &inbox->first) = item->next;
    *(item->next ? &item->next->prev : &inbox->last) = item->prev;
    inbox->queued--;
    if (!inbox->first)
        darken(inbox);
}

/* It is the caller's alone from now on. */
static void seize(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    if (item->state == INBOX_QUEUED)
        dequeue(inbox, item);
    item->state = INBOX_BUSY;
}

static bool post(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    if (item->state == INBOX_BUSY)
        item->missed = true;
    return item->state == INBOX_IDLE && enqueue(inbox, item);
}

void inbox_post(struct inbox_item *item)
{
    aside_inbox *inbox = item->inbox;
    if (inbox_is_lost(inbox))
        return;
    lock_take(&inbox->lock);
    bool to_be_lit = post(inbox, item);
    lock_release(&inbox->lock);
    light_up(inbox, to_be_lit);
}

/* ---- alarms ---------------------------------------------------------------------------------- */

static struct inbox_item *at(const aside_inbox *inbox, size_t place) REQUIRES(inbox->lock)
{
    return inbox->heap[place - 1];
}

static void put(aside_inbox *inbox, size_t place, struct inbox_item *item) REQUIRES(inbox->lock)
{
    inbox->heap[place - 1] = item;
    item->place = place;
}

/* The earlier of the two below a place, or none. */
static size_t earlier_below(const aside_inbox *inbox, size_t place) REQUIRES(inbox->lock)
{
    size_t left = 2 * place, right = left + 1;
    if (left > inbox->alarms)
        return 0;
    return right <= inbox->alarms && at(inbox, right)->alarm_ns < at(inbox, left)->alarm_ns ? right
                                                                                            : left;
}

/* Finds its place, from that one on, which is free. */
static void settle(aside_inbox *inbox, size_t place, struct inbox_item *item) REQUIRES(inbox->lock)
{
    for (; place > 1 && item->alarm_ns < at(inbox, place / 2)->alarm_ns; place /= 2)
        put(inbox, place, at(inbox, place / 2));
    for (;;) {
        size_t below = earlier_below(inbox, place);
        if (!below || item->alarm_ns <= at(inbox, below)->alarm_ns)
            break;
        put(inbox, place, at(inbox, below));
        place = below;
    }
    put(inbox, place, item);
}

static void unschedule(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    if (!item->place)
        return;
    struct inbox_item *last = at(inbox, inbox->alarms--);
    if (last != item)
        settle(inbox, item->place, last);
    item->place = 0;
    item->alarm_ns = CLOCK_NEVER;
}

static int64_t earliest_ns(const aside_inbox *inbox) REQUIRES(inbox->lock)
{
    return inbox->alarms ? at(inbox, 1)->alarm_ns : CLOCK_NEVER;
}

/* Under the lock, so that the timer is what was last said. */
static void arm(aside_inbox *inbox, int64_t at_ns) REQUIRES(inbox->lock)
{
    inbox->armed_ns = at_ns;
    set_timer(inbox, at_ns);
}

/* The timer is only brought forward: most alarms are taken away before they go off, and setting it
 * back each time is a system call. It may go off for nothing, once, and is set anew then. */
void inbox_alarm(struct inbox_item *item, int64_t alarm_ns)
{
    aside_inbox *inbox = item->inbox;
    if (inbox_is_lost(inbox))
        return;
    lock_take(&inbox->lock);
    unschedule(inbox, item);
    if (alarm_ns != CLOCK_NEVER) {
        item->alarm_ns = alarm_ns;
        settle(inbox, ++inbox->alarms, item);
    }
    if (earliest_ns(inbox) < inbox->armed_ns)
        arm(inbox, earliest_ns(inbox));
    lock_release(&inbox->lock);
}

/* Queues those that are late. True: there may be more. */
static bool ring_some(aside_inbox *inbox, int64_t now_ns)
{
    bool to_be_lit = false;
    unsigned rung = 0;
    lock_take(&inbox->lock);
    for (; rung < MOST_RUNG && earliest_ns(inbox) <= now_ns; rung++) {
        struct inbox_item *item = at(inbox, 1);
        unschedule(inbox, item);
        to_be_lit = post(inbox, item) || to_be_lit;
    }
    if (rung < MOST_RUNG && inbox->armed_ns <= now_ns)
        arm(inbox, earliest_ns(inbox));
    lock_release(&inbox->lock);
    light_up(inbox, to_be_lit);
    return rung == MOST_RUNG;
}

static void ring(aside_inbox *inbox)
{
    int64_t now_ns = clock_read(CLOCK_MONOTONIC);
    while (ring_some(inbox, now_ns))
        ;
}

/* ---- items ----------------------------------------------------------------------------------- */

/* Room for one more alarm. Items are larger than their places, so the size does not overflow. The
 * old heap is freed last, so that the child of a fork can free what it finds. */
static bool reserve(aside_inbox *inbox) REQUIRES(inbox->lock)
{
    if (inbox->listed < inbox->room)
        return true;
    size_t room = inbox->room ? 2 * inbox->room : FIRST_ROOM;
    struct inbox_item **smaller = inbox->heap;
    struct inbox_item **heap = mem_alloc(&mem_default, room * sizeof inbox->heap[0]);
    if (!heap)
        return false;
    if (inbox->alarms)
        memcpy(heap, smaller, inbox->alarms * sizeof inbox->heap[0]);
    inbox->heap = heap;
    inbox->room = room;
    mem_free(&mem_default, smaller);
    return true;
}

static void list(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    item->all_next = inbox->all;
    item->all_link = &inbox->all;
    if (item->all_next)
        item->all_next->all_link = &item->all_next;
    inbox->all = item;
    inbox->listed++;
    inbox_ref(inbox);
}

static void unlist(aside_inbox *inbox, struct inbox_item *item) REQUIRES(inbox->lock)
{
    *item->all_link = item->all_next;
    if (item->all_next)
        item->all_next->all_link = item->all_link;
    inbox->listed--;
}

aside_status inbox_enlist(aside_inbox *inbox, struct inbox_item *item, const struct inbox_ops *ops)
{
    *item = (struct inbox_item){
        .ops = ops, .inbox = inbox, .state = INBOX_BUSY, .alarm_ns = CLOCK_NEVER};
    if (inbox_is_lost(inbox))
        return ASIDE_E_FORKED;
    aside_status status = ASIDE_OK;
    lock_take(&inbox->lock);
    if (load_acquire(&inbox->freed))
        status = ASIDE_E_INVALID;
    else if (!reserve(inbox))
        status = ASIDE_E_NOMEM;
    else
        list(inbox, item);
    lock_release(&inbox->lock);
    return status;
}

void inbox_ready(struct inbox_item *item)
{
    aside_inbox *inbox = item->inbox;
    if (inbox_is_lost(inbox))
        return;
    bool to_be_lit = false;
    lock_take(&inbox->lock);
    bool freed = load_acquire(&inbox->freed);
    if (!freed) {
        item->state = INBOX_IDLE;
        to_be_lit = item->missed && enqueue(inbox, item);
    }
    lock_release(&inbox->lock);
    light_up(inbox, to_be_lit);
    if (freed) /* and it is BUSY: who freed the inbox has left it alone */
        item->ops->abandon(item);
}

void inbox_delist(struct inbox_item *item)
{
    aside_inbox *inbox = item->inbox;
    if (!inbox_is_lost(inbox)) {
        lock_take(&inbox->lock);
        seize(inbox, item);
        unschedule(inbox, item);
        unlist(inbox, item);
        lock_release(&inbox->lock);
    }
    inbox_unref(inbox);
}

/* ---- dispatching ----------------------------------------------------------------------------- */

static bool is_over(const aside_inbox *inbox)
{
    return inbox_is_lost(inbox) || load_acquire(&inbox->freed);
}

/* How many are queued. None: nor is there a reason for the descriptor to be readable. */
static size_t count_queued(aside_inbox *inbox)
{
    lock_take(&inbox->lock);
    size_t queued = inbox->queued;
    if (!queued)
        darken(inbox);
    lock_release(&inbox->lock);
    return queued;
}

/* A callback may have forked, or freed the inbox. */
static struct inbox_item *next_to_look_at(aside_inbox *inbox)
{
    if (is_over(inbox))
        return NULL;
    lock_take(&inbox->lock);
    struct inbox_item *item = inbox->first;
    if (item)
        seize(inbox, item);
    lock_release(&inbox->lock);
    return item;
}

static size_t look_at_queue(aside_inbox *inbox, size_t most_looks, size_t most_done)
{
    size_t done = 0;
    for (; most_looks > 0 && done < most_done; most_looks--) {
        struct inbox_item *item = next_to_look_at(inbox);
        if (!item)
            break;
        if (item->ops->look(item))
            done++;
        else
            inbox_ready(item);
    }
    return done;
}

/* It has been readable all the time: who waits for edges needs a new one. */
static void light_for_the_rest(aside_inbox *inbox)
{
    if (is_over(inbox))
        return;
    lock_take(&inbox->lock);
    bool rest = inbox->first != NULL;
    lock_release(&inbox->lock);
    if (rest)
        write_event(inbox);
}

static size_t dispatch(aside_inbox *inbox, size_t budget)
{
    ring(inbox);
    size_t queued = count_queued(inbox);
    size_t done = look_at_queue(inbox, budget ? SIZE_MAX : queued, budget ? budget : SIZE_MAX);
    light_for_the_rest(inbox);
    return done;
}

/* A look has run user code that has ended the thread. */
static void dispatches_no_more(void *inbox)
{
    inbox_unref(inbox);
}

aside_status aside_inbox_dispatch(aside_inbox *inbox, size_t budget, size_t *dispatched)
{
    if (dispatched)
        *dispatched = 0;
    if (!inbox || !inbox_is(inbox))
        return ASIDE_E_INVALID;
    if (is_over(inbox))
        return inbox_is_lost(inbox) ? ASIDE_E_FORKED : ASIDE_E_INVALID;
    size_t done;
    struct quiet quiet = quiet_begin();
    inbox_ref(inbox);
    pthread_cleanup_push(dispatches_no_more, inbox);
    done = dispatch(inbox, budget);
    pthread_cleanup_pop(0);
    aside_status status = inbox_is_lost(inbox) ? ASIDE_E_FORKED : ASIDE_OK;
    inbox_unref(inbox);
    quiet_end(quiet);
    if (dispatched)
        *dispatched = done;
    return status;
}

/* ---- freeing --------------------------------------------------------------------------------- */

/* The latest first. Those that are BUSY are abandoned when they are ready. */
static struct inbox_item *next_to_abandon(aside_inbox *inbox)
{
    if (inbox_is_lost(inbox))
        return NULL;
    lock_take(&inbox->lock);
    struct inbox_item *item = inbox->all;
    while (item && item->state == INBOX_BUSY)
        item = item->all_next;
    if (item)
        seize(inbox, item);
    lock_release(&inbox->lock);
    return item;
}

/* Items of the parent's threads may keep a lost inbox for ever: not its descriptors and heap. */
static void strip(aside_inbox *inbox)
{
    close_all(inbox);
    mem_free(&mem_default, inbox->heap);
    inbox->heap = NULL;
}

void aside_inbox_free(aside_inbox *inbox)
{
    if (!inbox || !inbox_is(inbox) || exchange_acq_rel(&inbox->freed, true))
        return;
    struct quiet quiet = quiet_begin();
    struct inbox_item *item;
    while ((item = next_to_abandon(inbox)))
        item->ops->abandon(item);
    if (inbox_is_lost(inbox))
        strip(inbox);
    inbox_unref(inbox);
    quiet_end(quiet);
}
