/* cache/options -- see options.h. */
#include "cache/options.h"

#include "flight/cancel.h"

#include <string.h>

bool options_copy(void *to, size_t to_size, const void *from)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size)
        return false;
    for (size_t i = to_size; i < size; i++)
        if (((const unsigned char *)from)[i] != 0)
            return false;
    memcpy(to, from, size < to_size ? size : to_size);
    memcpy(to, &to_size, sizeof to_size);
    return true;
}

static bool is_clock(const aside_clock *clock)
{
    return !clock->now_ns || clock->now_ns(clock->ctx) > 0;
}

bool options_take(aside_options *to, const aside_options *from)
{
    *to = (aside_options)ASIDE_OPTIONS_INIT;
    if (from && !options_copy(to, sizeof *to, from))
        return false;
    return to->default_ttl_ms > 0 && to->max_flight_age_ms >= 0 && to->close_wait_ms >= 0 &&
           is_clock(&to->clock) && to->disabled >= ASIDE_ENABLED &&
           to->disabled <= ASIDE_DISABLE_ALL;
}

/* At most one way to keep the argument. */
static bool is_argument(const aside_call *call)
{
    if (!call->arg_retain != !call->arg_release)
        return false;
    return !call->arg_size || (call->arg && !call->arg_retain);
}

bool options_take_call(aside_call *to, const aside_call *from)
{
    *to = (aside_call)ASIDE_CALL_INIT;
    return options_copy(to, sizeof *to, from) && to->fetch && is_argument(to) &&
           (to->ttl_ms >= 0 || to->ttl_ms == ASIDE_NO_STORE) &&
           (to->timeout_ms >= 0 || to->timeout_ms == ASIDE_NO_WAIT) &&
           (!to->cancel || cancel_is_token(to->cancel));
}

static void give(void *to, size_t to_size, const void *from, size_t from_size)
{
    memcpy(to, from, to_size < from_size ? to_size : from_size);
    memcpy(to, &to_size, sizeof to_size);
}

bool options_is_result(const aside_result *result)
{
    aside_result read;
    return result && options_copy(&read, sizeof read, result) &&
           result->struct_size >= offsetof(aside_result, outcome);
}

void options_give_result(aside_result *to, aside_result *from)
{
    give(to, to->struct_size, from, sizeof *from);
}

void options_give_stats(aside_stats *to, aside_stats *from)
{
    give(to, to->struct_size, from, sizeof *from);
}
