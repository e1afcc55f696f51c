/* cache/options -- see options.h. */
#include "cache/options.h"

#include "flight/cancel.h"
#include "freshness/jitter.h"
#include "freshness/rules.h"

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
           to->disabled <= ASIDE_DISABLE_ALL && !(to->worker.start && to->submit.fn) &&
           jitter_is(&to->jitter) && rules_are(&to->freshness) && to->on_slow.threshold_ms >= 0;
}

/* At most one way to keep the argument. */
static bool is_argument(const aside_call *call)
{
    if (!call->arg_retain != !call->arg_release)
        return false;
    return !call->arg_size || (call->arg && !call->arg_retain);
}

static bool is_call(const aside_call *call)
{
    return call->fetch && is_argument(call) &&
           (call->ttl_ms >= 0 || call->ttl_ms == ASIDE_NO_STORE) &&
           (call->timeout_ms >= 0 || call->timeout_ms == ASIDE_NO_WAIT) &&
           (!call->cancel || cancel_is_token(call->cancel)) &&
           (call->jitter.kind == ASIDE_JITTER_DEFAULT || jitter_is(&call->jitter));
}

const aside_call *options_call(const aside_call *call, aside_call *own)
{
    if (call && call->struct_size != sizeof *call) {
        *own = (aside_call)ASIDE_CALL_INIT;
        call = options_copy(own, sizeof *own, call) ? own : NULL;
    }
    return call && is_call(call) ? call : NULL;
}

static void give(void *to, size_t to_size, const void *from, size_t from_size)
{
    memcpy(to, from, to_size < from_size ? to_size : from_size);
    memcpy(to, &to_size, sizeof to_size);
}

aside_result *options_result(aside_result *given, aside_result *own)
{
    const aside_result none = ASIDE_RESULT_INIT;
    if (given && given->struct_size != sizeof *given)
        given = options_copy(own, sizeof *own, given) &&
                        given->struct_size >= offsetof(aside_result, outcome)
                    ? own
                    : NULL;
    if (given)
        *given = none;
    return given;
}

void options_give_result(aside_result *to, const aside_result *from)
{
    size_t size = to->struct_size;
    if (size != sizeof *to) {
        give(to, size, from, sizeof *from);
        return;
    }
    *to = *from;
    to->struct_size = size;
}

void options_give_stats(aside_stats *to, const aside_stats *from)
{
    give(to, to->struct_size, from, sizeof *from);
}
