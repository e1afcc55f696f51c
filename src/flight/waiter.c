/* flight/waiter -- see waiter.h. */
#include "flight/waiter.h"

#include "base/clock.h"

#include <stddef.h>

void waiter_init(struct waiter *waiter, struct park *park, uint32_t number)
{
    atomic_init(&waiter->state, WAITER_PENDING);
    waiter->woken = NULL;
    waiter->park = park;
    waiter->next = NULL;
    waiter->link = NULL;
    parker_init(&waiter->parker, number);
}

void waiter_init_remote(struct waiter *waiter, void (*woken)(struct waiter *waiter))
{
    *waiter = (struct waiter){.woken = woken};
    atomic_init(&waiter->state, WAITER_PENDING);
}

void waiter_fini(struct waiter *waiter)
{
    parker_fini(&waiter->parker);
}

void waiter_cancel(struct waiter *waiter)
{
    uint32_t pending = WAITER_PENDING;
    if (compare_swap(&waiter->state, &pending, WAITER_CANCELLED))
        waiter_nudge(waiter);
}

void waiter_nudge(struct waiter *waiter)
{
    if (waiter->woken)
        waiter->woken(waiter);
    else
        park_wake_bit(waiter->park, waiter->parker.bit);
}

static bool is_past(const aside_clock *clock, int64_t deadline_ns)
{
    return deadline_ns != CLOCK_NEVER && clock_precise(clock) >= deadline_ns;
}

enum waiter_end waiter_wait(struct waiter *waiter, const _Atomic bool *settled,
                            const struct waiter_until *until)
{
    for (;;) {
        uint32_t ticket = park_ticket(waiter->park);
        if (load_acquire(settled))
            return WAITER_SETTLED;
        if (load_acquire(&waiter->state) == WAITER_CANCELLED)
            return WAITER_LEAVES_CANCELLED;
        if (is_past(until->clock, until->deadline_ns))
            return WAITER_LEAVES_LATE;
        int64_t alarm_ns = clock_alarm(until->clock, until->deadline_ns);
        if (until->token_deadline_ns) {
            int64_t deadline_ns = load_acquire(until->token_deadline_ns);
            if (is_past(until->token_clock, deadline_ns))
                return WAITER_LEAVES_WITH_TOKEN;
            if (deadline_ns < alarm_ns)
                alarm_ns = clock_alarm(until->token_clock, deadline_ns) < alarm_ns ? deadline_ns
                                                                                   : alarm_ns;
        }
        park_wait(waiter->park, &waiter->parker, ticket, alarm_ns);
    }
}
