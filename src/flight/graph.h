/*
 * flight/graph -- who waits for whom, so that a ring of fetches is found when it closes (F9).
 *
 * A flight whose fetch's thread waits for another flight points to that one. A thread that is
 * inside several fetches, one in the other, blocks them all. Each flight points to at most one, so
 * the way from the flight that is to be waited for is a walk without branches; a ring is there if
 * it comes to a flight that this thread is inside of. The walk and the setting of the pointers are
 * one hold of the lock GRAPH, so of those who close a ring together the last sees it.
 *
 * A pointer ends where the flight it leads to has a verdict: nobody waits for that any more, except
 * a leader who stays until his fetch has ended. It is taken back before the reference on what it
 * points to is given back.
 *
 * Threads that are inside no fetch come nowhere near the lock. What a pending fetch waits for is
 * not known here.
 */
#ifndef ASIDE_FLIGHT_GRAPH_H
#define ASIDE_FLIGHT_GRAPH_H

#include "base/thread.h"
#include "flight/group.h"

#include <stdbool.h>

/* A fork takes this room's lock as well, from the first host on. */
void graph_enlist(void);

/* This thread is about to wait for the flight; to_end: until its fetch has ended. False: that would
 * close a ring, and nothing is noted. */
bool graph_block(const struct thread_record *self, const struct flight *flight, bool to_end);
/* It waits no longer. */
void graph_unblock(const struct thread_record *self);

#endif
