/* flight/waiter -- see waiter.h. */
#include "flight/waiter.h"

#include "base/clock.h"

#include <stddef.h>

void waiter_init(struct waiter *waiter, struct park *park, uint32_t number)
{
    atomic_init(&waiter->state, WAITER_PENDING);
    waiter->park = park;
    waiter->next = NULL;
    waiter->link = NULL;
    parker_init(&waiter->parker, number);
}

void waiter_fini(struct waiter *waiter)
{
    parker_fini(&waiter->parker);
}

void waiter_cancel(struct waiter *waiter)
{
    uint32_t pending = WAITER_PENDING;
    if (compare_swap(&waiter->state, &pending, WAITER_CANCELLED))
        park_wake_bit(waiter->park, waiter->parker.bit);
}

enum waiter_end waiter_wait(struct waiter *waiter, const _Atomic bool *settled,
                            const aside_clock *clock, int64_t deadline_ns)
{
    for (;;) {
        uint32_t ticket = park_ticket(waiter->park);
        if (load_acquire(settled))
            return WAITER_SETTLED;
        if (load_acquire(&waiter->state) == WAITER_CANCELLED)
            return WAITER_LEAVES_CANCELLED;
        if (deadline_ns != CLOCK_NEVER && clock_precise(clock) >= deadline_ns)
            return WAITER_LEAVES_LATE;
        park_wait(waiter->park, &waiter->parker, ticket, clock_alarm(clock, deadline_ns));
    }
}
