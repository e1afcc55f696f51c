/*
 * flight/inbox -- what one loop's thread is to look at, and a descriptor that says when.
 *
 * An item is something that the loop waits for. Whoever changes it posts it, from any thread; the
 * loop's thread, when it dispatches, looks at each item that was posted, or whose alarm has passed.
 * A post says no more than "look again": an item that is posted already is not posted twice, and
 * one look too many does no harm.
 *
 *   inbox_enlist --> BUSY --inbox_ready--> IDLE --posted, or late--> QUEUED --its turn--> BUSY
 *   of a look:       BUSY --not done--> IDLE, or QUEUED;  BUSY --inbox_delist--> gone
 *
 * An item is BUSY while it is made and while it is looked at. What is posted then is queued when
 * that is over: so no look begins before its maker is ready, nor inside another look at the same
 * item.
 *
 * The descriptor is an epoll of an eventfd, which is written when the queue begins to have items
 * and read when it has none, and of a timerfd, set to the earliest alarm or to an earlier instant.
 *
 * Guarded by the inbox's lock: the queue, the heap of alarms, the list of all items. Counted: its
 * user holds it until inbox_free, each item from enlist to delist, and whoever writes to its
 * eventfd. So who posts need keep the item enlisted only until it is queued. In the child of a fork
 * an inbox of before it is lost: nothing of it is touched but the count.
 */
#ifndef ASIDE_FLIGHT_INBOX_H
#define ASIDE_FLIGHT_INBOX_H

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inbox_item;

/* On the thread that dispatches or frees the inbox, under no lock, cancellation disabled. The item
 * is in no queue then. */
struct inbox_ops {
    /* Looks whether the item is done; true if so, and its callback was called. It may be gone then;
     * before that, inbox_delist() was called. False: it is still enlisted. User code may run before
     * inbox_delist() as well: should it dispatch or free the inbox, that passes this item over. */
    bool (*look)(struct inbox_item *item);
    /* The inbox is being freed: the item is to end now. Calls inbox_delist(). */
    void (*abandon)(struct inbox_item *item);
};

enum inbox_state { INBOX_BUSY, INBOX_IDLE, INBOX_QUEUED };

struct inbox_item {
    const struct inbox_ops *ops; /* immutable */
    aside_inbox *inbox;          /* immutable */
    /* guarded by the inbox's lock */
    enum inbox_state state;
    bool missed;                    /* it was posted while it was BUSY */
    struct inbox_item *next, *prev; /* of the queue */
    int64_t alarm_ns;               /* CLOCK_MONOTONIC; CLOCK_NEVER */
    size_t place;                   /* in the heap, from 1 on; 0: it is not there */
    struct inbox_item *all_next, **all_link;
};

bool inbox_is(const aside_inbox *inbox);
/* For who posts an item that may have been delisted by then: that does nothing, as long as both are
 * still there. */
void inbox_ref(aside_inbox *inbox);
void inbox_unref(aside_inbox *inbox);
/* It was made before this process was forked. */
bool inbox_is_lost(const aside_inbox *inbox);

/* From now on the inbox knows the item, and keeps room for its alarm. Sets all of its members.
 * ASIDE_OK, ASIDE_E_NOMEM, ASIDE_E_FORKED, or ASIDE_E_INVALID: it is being freed. */
aside_status inbox_enlist(aside_inbox *inbox, struct inbox_item *item, const struct inbox_ops *ops);
/* Its maker is ready with it. Under no lock: if the inbox was freed meanwhile, the item is
 * abandoned here. It may be gone when this returns. */
void inbox_ready(struct inbox_item *item);
/* Nobody looks at it any more; it is taken out of queue and heap. Its reference is given back. By
 * its maker before it is ready, else by a look or by abandon. */
void inbox_delist(struct inbox_item *item);
/* Have it looked at, soon. From any thread. May be called under a shard's or a token's lock. */
void inbox_post(struct inbox_item *item);
/* The same at that instant, in the place of any other; CLOCK_NEVER: at none. An alarm that has
 * passed is used up. May be called under the same locks. */
void inbox_alarm(struct inbox_item *item, int64_t alarm_ns);

#endif
