/*
 * flight/cancel -- tokens by which a caller leaves.
 *
 * A token lists those who wait with it. Firing swaps their states and wakes them, and touches
 * neither a flight nor a shard; whoever wakes takes himself off the list first, under the token's
 * lock alone, and leaves the flight after that, under the shard's lock alone. The locks are
 * process-wide stripes: a token is small, and there may be one for each request.
 */
#ifndef ASIDE_FLIGHT_CANCEL_H
#define ASIDE_FLIGHT_CANCEL_H

#include "flight/waiter.h"

#include <aside/aside.h>
#include <stdbool.h>

bool cancel_is_token(const aside_cancel *token);
/* From now on firing wakes the waiter; at once if the token has fired. The token may be NULL. */
void cancel_enlist(aside_cancel *token, struct waiter *waiter);
/* After the return nobody touches the waiter any more. */
void cancel_delist(aside_cancel *token, struct waiter *waiter);

#endif
