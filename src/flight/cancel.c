/* flight/cancel -- see cancel.h. */
#include "flight/cancel.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/lock.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define MAGIC 0x41544f4b /* "ATOK" */
#define STRIPES 64
#define NO_FD (-1)

struct aside_cancel {
    uint32_t magic;
    uint32_t stripe;               /* immutable */
    struct aside_cancel *parent;   /* immutable; a reference */
    struct aside_cancel *root;     /* immutable */
    aside_clock clock;             /* a root's: written once, before the first deadline */
    bool has_clock;                /* a root's; guarded by the stripe */
    uint32_t generation;           /* of the list of waiters; guarded by the stripe */
    struct waiter *first;          /* guarded by the stripe */
    struct aside_cancel *children; /* guarded by the stripe */
    struct aside_cancel *next, **link;
    uint32_t fd_generation; /* written before fd */
    _Atomic int fd;
    _Atomic uint32_t refs;  /* the users', and each child's */
    _Atomic uint32_t users; /* their references; the last closes the descriptor */
    _Atomic bool lit;       /* the descriptor has been made readable */
    _Atomic bool fired;
    _Atomic int64_t deadline_ns; /* the earliest of its own and its parents' */
};

static struct lock stripes[STRIPES] = {[0 ... STRIPES - 1] = LOCK_INIT(RANK_TOKEN)};
static _Atomic uint32_t next_stripe;

static struct lock *stripe_of(const aside_cancel *token)
{
    return &stripes[token->stripe];
}

static void fork_locks(struct fork_member *member, enum lock_rank rank,
                       void (*each)(struct lock *lock))
{
    (void)member;
    for (unsigned i = 0; rank == RANK_TOKEN && i < STRIPES; i++)
        each(&stripes[i]);
}

static const struct fork_ops fork_ops = {fork_locks, NULL};
static struct fork_member forks = {.ops = &fork_ops};

/* ---- descriptors ----------------------------------------------------------------------------- */

#ifdef __linux__
#include <sys/ioctl.h>
#include <sys/timerfd.h>

#ifndef TFD_IOC_SET_TICKS /* in <linux/timerfd.h>, which is at odds with <sys/timerfd.h> */
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

static int open_timer(void)
{
    return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
}

static void set_timer(int fd, int64_t at_ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ns / 1000000000),
                                           .tv_nsec = (long)(at_ns % 1000000000)}};
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Without an instant in which it is not. False: the kernel cannot (CONFIG_CHECKPOINT_RESTORE). */
static bool make_readable(int fd)
{
    const uint64_t ticks = 1;
    return ioctl(fd, TFD_IOC_SET_TICKS, &ticks) == 0;
}
#else
static int open_timer(void)
{
    errno = ENOSYS;
    return NO_FD;
}

static void set_timer(int fd, int64_t at_ns)
{
    (void)fd;
    (void)at_ns;
}

static bool make_readable(int fd)
{
    (void)fd;
    return false;
}
#endif

/* Its descriptor, or NO_FD where there is none or where it is the parent process's. */
static int own_fd(const aside_cancel *token)
{
    int fd = load_acquire(&token->fd);
    return fd != NO_FD && token->fd_generation == fork_generation() ? fd : NO_FD;
}

static void arm_for_deadline(const aside_cancel *token, int64_t deadline_ns)
{
    int fd = own_fd(token);
    int64_t at_ns = clock_alarm(&token->root->clock, deadline_ns);
    if (fd != NO_FD && at_ns != CLOCK_NEVER)
        set_timer(fd, at_ns);
}

static bool is_late(const aside_cancel *token)
{
    int64_t deadline_ns = load_acquire(&token->deadline_ns);
    return deadline_ns != CLOCK_NEVER && clock_precise(&token->root->clock) >= deadline_ns;
}

/* Readable from now on. Any number of threads may do it at once. A timer that is set anew is not
 * readable for an instant, though it was before: so one that has gone off is left alone. */
static void light(aside_cancel *token)
{
    int fd = own_fd(token);
    if (fd == NO_FD || load_acquire(&token->lit))
        return;
    if (!make_readable(fd) && (token->root->clock.now_ns || !is_late(token)))
        set_timer(fd, 1);
    store_release(&token->lit, true);
}

/* The system's timer knows nothing of a user's clock. */
static void light_if_late(const aside_cancel *token)
{
    if (token->root->clock.now_ns)
        light((aside_cancel *)(uintptr_t)token);
}

static bool make_fd(aside_cancel *token)
{
    int fd = open_timer();
    if (fd == NO_FD)
        return false;
    token->fd_generation = fork_generation();
    store_release(&token->fd, fd);
    if (load_acquire(&token->fired))
        light(token);
    else
        arm_for_deadline(token, load_acquire(&token->deadline_ns));
    return true;
}

aside_status aside_cancel_fd(aside_cancel *token, int *fd)
{
    aside_status status = ASIDE_OK;
    if (fd)
        *fd = NO_FD;
    if (!fd || !token || !cancel_is_token(token))
        return ASIDE_E_INVALID;
    lock_take(stripe_of(token));
    bool made = load_acquire(&token->fd) != NO_FD;
    if (!made && !make_fd(token))
        status = ASIDE_E_SYSTEM;
    else if (token->fd_generation != fork_generation())
        status = ASIDE_E_FORKED;
    else
        *fd = load_acquire(&token->fd);
    lock_release(stripe_of(token));
    (void)aside_cancel_status(token); /* a user's clock may have passed the deadline by now */
    return status;
}

/* ---- making and ending ----------------------------------------------------------------------- */

bool cancel_is_token(const aside_cancel *token)
{
    return token->magic == MAGIC;
}

static aside_cancel *new_token(aside_cancel *parent)
{
    struct aside_cancel *made = fork_join(&forks) ? calloc(1, sizeof *made) : NULL;
    if (!made)
        return NULL;
    made->magic = MAGIC;
    made->parent = parent;
    made->root = parent ? parent->root : made;
    made->stripe = parent ? parent->stripe : fetch_add_relaxed(&next_stripe, 1) % STRIPES;
    made->generation = fork_generation();
    atomic_init(&made->fd, NO_FD);
    atomic_init(&made->refs, 1);
    atomic_init(&made->users, 1);
    atomic_init(&made->fired, false);
    atomic_init(&made->deadline_ns, CLOCK_NEVER);
    return made;
}

aside_status aside_cancel_new(aside_cancel **token)
{
    if (!token)
        return ASIDE_E_INVALID;
    *token = new_token(NULL);
    return *token ? ASIDE_OK : ASIDE_E_NOMEM;
}

/* A fired parent has fired children, and none of their deadlines is later than its own. */
static void adopt(aside_cancel *parent, aside_cancel *child)
{
    invariant(child->stripe == parent->stripe); /* one lock guards a whole tree */
    lock_take(stripe_of(parent));
    child->next = parent->children;
    child->link = &parent->children;
    if (child->next)
        child->next->link = &child->next;
    parent->children = child;
    store_release(&child->deadline_ns, load_acquire(&parent->deadline_ns));
    store_release(&child->fired, load_acquire(&parent->fired));
    lock_release(stripe_of(parent));
}

aside_status aside_cancel_child(aside_cancel *parent, aside_cancel **token)
{
    if (token)
        *token = NULL;
    if (!token || !parent || !cancel_is_token(parent))
        return ASIDE_E_INVALID;
    aside_cancel *made = new_token(parent);
    if (!made)
        return ASIDE_E_NOMEM;
    fetch_add_relaxed(&parent->refs, 1);
    adopt(parent, made);
    *token = made;
    return ASIDE_OK;
}

aside_cancel *aside_cancel_ref(aside_cancel *token)
{
    if (token)
        fetch_add_relaxed(&token->users, 1);
    return token;
}

/* The waiters that are still there: a child has none of its parent's. */
static struct waiter *waiters_of(aside_cancel *token)
{
    if (token->generation != fork_generation()) {
        token->generation = fork_generation();
        token->first = NULL;
    }
    return token->first;
}

static void unlist(aside_cancel *child)
{
    lock_take(stripe_of(child));
    *child->link = child->next;
    if (child->next)
        child->next->link = child->link;
    lock_release(stripe_of(child));
}

/* With a child goes its reference to the parent. */
static void drop(aside_cancel *token)
{
    while (token && fetch_sub_acq_rel(&token->refs, 1) == 1) {
        aside_cancel *parent = token->parent;
        if (parent)
            unlist(token);
        invariant(!waiters_of(token)); /* each has a reference, or a caller who has one */
        token->magic = 0;
        free(token);
        token = parent;
    }
}

/* Under the lock, since a parent may be firing. */
static void close_fd(aside_cancel *token)
{
    lock_take(stripe_of(token));
    int fd = load_acquire(&token->fd);
    store_release(&token->fd, NO_FD);
    lock_release(stripe_of(token));
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    close(fd);
    pthread_setcancelstate(before, NULL);
}

void aside_cancel_unref(aside_cancel *token)
{
    if (!token || fetch_sub_acq_rel(&token->users, 1) != 1)
        return;
    if (load_acquire(&token->fd) != NO_FD)
        close_fd(token);
    drop(token);
}

/* ---- asking ---------------------------------------------------------------------------------- */

aside_status aside_cancel_status(const aside_cancel *token)
{
    if (!token)
        return ASIDE_OK;
    if (load_acquire(&token->fired))
        return ASIDE_E_CANCELLED;
    if (!is_late(token))
        return ASIDE_OK;
    light_if_late(token);
    return ASIDE_E_TIMEOUT;
}

int aside_cancel_fired(const aside_cancel *token)
{
    return aside_cancel_status(token) != ASIDE_OK;
}

int64_t cancel_alarm(const aside_cancel *token)
{
    int64_t deadline_ns = token ? load_acquire(&token->deadline_ns) : CLOCK_NEVER;
    return deadline_ns == CLOCK_NEVER ? deadline_ns : clock_alarm(&token->root->clock, deadline_ns);
}

/* ---- firing ---------------------------------------------------------------------------------- */

/* The next token of the tree below top, parents first; into says whether to go on below this
 * one. */
static aside_cancel *next_below(const aside_cancel *top, aside_cancel *token, bool into)
{
    if (into && token->children)
        return token->children;
    for (; token != top; token = token->parent)
        if (token->next)
            return token->next;
    return NULL;
}

static bool fire_one(aside_cancel *token)
{
    if (load_acquire(&token->fired))
        return false;
    store_release(&token->fired, true);
    for (struct waiter *w = waiters_of(token); w; w = w->next)
        waiter_cancel(w);
    light(token);
    return true;
}

void aside_cancel_fire(aside_cancel *token)
{
    if (!token)
        return;
    lock_take(stripe_of(token));
    for (aside_cancel *t = token; t;)
        t = next_below(token, t, fire_one(t));
    lock_release(stripe_of(token));
}

/* ---- deadlines ------------------------------------------------------------------------------- */

static bool bring_forward(aside_cancel *token, int64_t deadline_ns)
{
    if (load_acquire(&token->deadline_ns) <= deadline_ns)
        return false;
    store_release(&token->deadline_ns, deadline_ns);
    for (struct waiter *w = waiters_of(token); w; w = w->next)
        waiter_nudge(w);
    if (!load_acquire(&token->fired))
        arm_for_deadline(token, deadline_ns);
    return true;
}

static bool same_clock(const aside_clock *a, const aside_clock *b)
{
    return a->now_ns == b->now_ns && a->ctx == b->ctx;
}

aside_status aside_cancel_set_deadline(aside_cancel *token, int64_t timeout_ms,
                                       const aside_clock *clock)
{
    static const aside_clock system = {NULL, NULL};
    if (!token || !cancel_is_token(token) || timeout_ms < 0)
        return ASIDE_E_INVALID;
    if (timeout_ms == ASIDE_FOREVER)
        return ASIDE_OK;
    clock = clock ? clock : &system;
    int64_t deadline_ns = clock_after_ms(clock_precise(clock), timeout_ms);
    aside_cancel *root = token->root;
    lock_take(stripe_of(token));
    if (!root->has_clock)
        root->clock = *clock;
    root->has_clock = true;
    bool fits = same_clock(&root->clock, clock);
    for (aside_cancel *t = token; t && fits;)
        t = next_below(token, t, bring_forward(t, deadline_ns));
    lock_release(stripe_of(token));
    return fits ? ASIDE_OK : ASIDE_E_INVALID;
}

/* ---- waiting --------------------------------------------------------------------------------- */

void cancel_enlist(aside_cancel *token, struct waiter *waiter)
{
    if (!token)
        return;
    lock_take(stripe_of(token));
    struct waiter *others = waiters_of(token);
    if (load_acquire(&token->fired)) {
        waiter_cancel(waiter);
    } else {
        waiter->next = others;
        waiter->link = &token->first;
        if (others)
            others->link = &waiter->next;
        token->first = waiter;
    }
    lock_release(stripe_of(token));
}

void cancel_delist(aside_cancel *token, struct waiter *waiter)
{
    if (!token)
        return;
    lock_take(stripe_of(token));
    if (waiter->link) {
        *waiter->link = waiter->next;
        if (waiter->next)
            waiter->next->link = waiter->link;
        waiter->link = NULL;
    }
    lock_release(stripe_of(token));
}

enum waiter_end cancel_wait(aside_cancel *token, struct waiter *waiter, const _Atomic bool *settled,
                            struct waiter_until *until)
{
    if (!token)
        return waiter_wait(waiter, settled, until);
    until->token_clock = &token->root->clock;
    until->token_deadline_ns = &token->deadline_ns;
    cancel_enlist(token, waiter);
    enum waiter_end end = waiter_wait(waiter, settled, until);
    cancel_delist(token, waiter);
    if (end == WAITER_LEAVES_WITH_TOKEN)
        light_if_late(token);
    return end;
}
