/*
 * flight/cancel -- tokens by which a caller leaves.
 *
 * A token lists those who wait with it. Firing swaps their states and wakes them, and touches
 * neither a flight nor a shard; whoever wakes takes himself off the list first, under the token's
 * lock alone, and leaves the flight after that, under the shard's lock alone. The locks are
 * process-wide stripes: a token is small, and there may be one for each request.
 *
 * Tokens form trees: a child keeps its parent, is listed by it, and shares its stripe, so that the
 * whole tree is guarded by one lock. The clock of a tree's deadlines is kept by its root; each
 * token knows the earliest deadline of its own and its parents'.
 *
 * A descriptor is a timer of the system, which serves for both ends: armed for the deadline, or for
 * a time long past when the token fires. Nobody reads it, so it stays readable.
 *
 * In the child of a fork the lists hold waiters of threads that are not there: a list is dropped
 * when it is next looked at. A descriptor of before the fork is the parent's as well, so the child
 * leaves it alone.
 */
#ifndef ASIDE_FLIGHT_CANCEL_H
#define ASIDE_FLIGHT_CANCEL_H

#include "flight/waiter.h"

#include <aside/aside.h>
#include <stdbool.h>

bool cancel_is_token(const aside_cancel *token);
/* The instant of CLOCK_MONOTONIC at which it is to be looked at again, CLOCK_NEVER for none. */
int64_t cancel_alarm(const aside_cancel *token);
/* From now on firing wakes the waiter; at once if the token has fired. The token may be NULL. */
void cancel_enlist(aside_cancel *token, struct waiter *waiter);
/* After the return nobody touches the waiter any more. */
void cancel_delist(aside_cancel *token, struct waiter *waiter);
/* Waits, by waiter_wait(), until the token says otherwise. Fills in the token's part
 * of *until. */
enum waiter_end cancel_wait(aside_cancel *token, struct waiter *waiter, const _Atomic bool *settled,
                            struct waiter_until *until);

#endif
