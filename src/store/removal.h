/*
 * store/removal -- tells the listener what has left the index, and why: once each, outside the locks.
 *
 *   unlinked, under the shard's lock -> noted -> lock released -> told by the same thread
 *
 * Who unlinks an entry notes it and takes the list along when it releases the lock. The list goes by
 * the queue's links, free by then, and keeps a reference to each entry; so what is told may be freed
 * in the meantime by nobody. The cause stands where the policy had its print.
 *
 * A listener that writes makes more leave. That is added to the list which its thread is telling
 * already, so that the stack does not grow with it.
 */
#ifndef ASIDE_STORE_REMOVAL_H
#define ASIDE_STORE_REMOVAL_H

#include "store/entry.h"

#include <aside/aside.h>

/* Of an entry that nobody can find any more, and in no queue. */
void removal_note(struct link_list *removals, struct entry *entry, aside_cause cause);
/* Empties the list. Without any lock; runs user code. */
void removal_tell_some(const aside_on_remove *listener, struct link_list *removals);

static inline void removal_tell(const aside_on_remove *listener, struct link_list *removals)
{
    if (unlikely(removals->first))
        removal_tell_some(listener, removals);
}

#endif
