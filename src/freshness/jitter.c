/* freshness/jitter -- see jitter.h. */
#include "freshness/jitter.h"

bool jitter_is(const aside_jitter *jitter)
{
    switch (jitter->kind) {
    case ASIDE_JITTER_DEFAULT:
    case ASIDE_JITTER_NONE:
    case ASIDE_JITTER_ADD:
    case ASIDE_JITTER_EQUAL:
    case ASIDE_JITTER_FULL: return jitter->amount >= 0;
    case ASIDE_JITTER_PERCENT: return jitter->amount >= 0 && jitter->amount <= 100;
    default: return false;
    }
}

/* From 0 to most, both included: evenly, as long as most is far below 2^64, and so for every ttl that
 * anybody means. */
static int64_t up_to(int64_t most, uint64_t draw)
{
    return (int64_t)(draw % ((uint64_t)most + 1));
}

static int64_t percent_of(int64_t ttl_ms, int64_t percent)
{
    return ttl_ms / 100 * percent + ttl_ms % 100 * percent / 100;
}

static int64_t sum(int64_t ttl_ms, int64_t more_ms)
{
    const int64_t most_ms = ASIDE_FOREVER - 1;
    return more_ms < most_ms - ttl_ms ? ttl_ms + more_ms : most_ms;
}

/* ttl less half of the range, plus a part of the range. */
static int64_t centred(int64_t ttl_ms, int64_t half_ms, int64_t range_ms, uint64_t draw)
{
    int64_t part_ms = up_to(range_ms, draw);
    return part_ms < half_ms ? ttl_ms - (half_ms - part_ms) : sum(ttl_ms, part_ms - half_ms);
}

static int64_t spread(const aside_jitter *jitter, int64_t ttl_ms, uint64_t draw)
{
    int64_t amount = jitter->amount;
    switch (jitter->kind) {
    case ASIDE_JITTER_ADD: return sum(ttl_ms, up_to(amount, draw));
    case ASIDE_JITTER_EQUAL: return centred(ttl_ms, amount / 2, amount, draw);
    case ASIDE_JITTER_FULL: return amount < ttl_ms ? amount + up_to(ttl_ms - amount, draw) : ttl_ms;
    case ASIDE_JITTER_PERCENT: {
        int64_t most_ms = percent_of(ttl_ms, amount);
        return centred(ttl_ms, most_ms, most_ms <= INT64_MAX / 2 ? 2 * most_ms : INT64_MAX, draw);
    }
    default: return ttl_ms;
    }
}

int64_t jitter_ttl_ms(const aside_jitter *jitter, int64_t ttl_ms, uint64_t draw)
{
    if (ttl_ms == ASIDE_FOREVER)
        return ASIDE_FOREVER;
    int64_t spread_ms = spread(jitter, ttl_ms, draw);
    return spread_ms > 1 ? spread_ms : 1;
}
