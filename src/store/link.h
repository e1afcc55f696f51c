/*
 * store/link -- what entries hang on, each by a link in its cold part: rings, in which a link knows
 * both neighbours, and lists, which are taken from the front. Guarded by what guards the ring or list.
 */
#ifndef ASIDE_STORE_LINK_H
#define ASIDE_STORE_LINK_H

#include <stdbool.h>
#include <stddef.h>

struct entry_link {
    struct entry_link *next, *prev;
};

/* ---- rings: one that nothing is on has itself for both neighbours ------------------------------ */

static inline void ring_init(struct entry_link *ring)
{
    ring->next = ring->prev = ring;
}

static inline bool ring_empty(const struct entry_link *ring)
{
    return ring->next == ring;
}

/* Behind another, or behind the ring itself: in front of all. */
static inline void ring_put_behind(struct entry_link *at, struct entry_link *link)
{
    link->prev = at;
    link->next = at->next;
    link->next->prev = link;
    at->next = link;
}

static inline void ring_take_out(const struct entry_link *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
}

/* ---- lists, by next alone; {NULL, NULL, 0} is an empty one --------------------------------------- */

struct link_list {
    struct entry_link *first, *last;
    size_t count;
};

/* Of one that is not empty; that is empty then. */
static inline void list_append(struct link_list *to, struct link_list *from)
{
    if (to->last)
        to->last->next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    to->count += from->count;
    *from = (struct link_list){NULL, NULL, 0};
}

static inline void list_push(struct link_list *list, struct entry_link *link)
{
    link->next = NULL;
    list_append(list, &(struct link_list){link, link, 1});
}

/* Of one that is not empty. */
static inline struct entry_link *list_pop(struct link_list *list)
{
    struct entry_link *link = list->first;
    list->first = link->next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    return link;
}

#endif
