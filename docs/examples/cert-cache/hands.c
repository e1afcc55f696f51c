/*
 * hands.c -- two clocks of the system, each with an offset.
 */
#include "hands.h"

#define NS_PER_S 1000000000

int64_t hands_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int64_t moved_now_ns(void *ctx)
{
    struct hands *hands = ctx;
    return hands_now_ns() + hands->moved_s * NS_PER_S;
}

aside_clock hands_clock(struct hands *hands)
{
    return (aside_clock){moved_now_ns, hands};
}

time_t hands_date(struct hands *hands)
{
    return time(NULL) + (time_t)(hands->moved_s + hands->set_s);
}

void hands_move(struct hands *hands, int64_t seconds, aside_cache *cache)
{
    hands->moved_s += seconds;
    aside_clock_changed(cache);
}
