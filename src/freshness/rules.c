/* freshness/rules -- see rules.h. */
#include "freshness/rules.h"

#include "base/clock.h"

#define NS_OF_MS 1000000
/* An exponential deviate of mean 1, in units of 2^-ONE_BITS. */
#define ONE_BITS 32
/* No deviate is more: one in e^40 would be. */
#define MOST_DEVIATE 40

/* ---- the rules ------------------------------------------------------------------------------- */

static bool is_duration(int64_t ms)
{
    return ms >= ASIDE_OFF;
}

bool rules_are(const aside_freshness *rules)
{
    return is_duration(rules->stale_ms) && is_duration(rules->stale_if_error_ms) &&
           is_duration(rules->throttle_ms) && is_duration(rules->soft_timeout_ms) &&
           is_duration(rules->not_found_ttl_ms) && is_duration(rules->backoff_ms) &&
           is_duration(rules->backoff_max_ms) && rules->refresh_ahead < 1 &&
           (rules->refresh_ahead >= 0 || rules->refresh_ahead == (double)ASIDE_OFF) &&
           rules->xfetch_beta <= 1e6 &&
           (rules->xfetch_beta >= 0 || rules->xfetch_beta == (double)ASIDE_OFF);
}

static int64_t number(int64_t cache, int64_t call)
{
    int64_t ms = call ? call : cache;
    return ms > 0 ? ms : 0;
}

static double share(double cache, double call)
{
    double it = call != 0 ? call : cache;
    return it > 0 ? it : 0;
}

aside_freshness rules_of(const aside_freshness *cache, const aside_freshness *call)
{
    return (aside_freshness){
        .stale_ms = number(cache->stale_ms, call->stale_ms),
        .stale_if_error_ms = number(cache->stale_if_error_ms, call->stale_if_error_ms),
        .throttle_ms = number(cache->throttle_ms, call->throttle_ms),
        .soft_timeout_ms = number(cache->soft_timeout_ms, call->soft_timeout_ms),
        .not_found_ttl_ms = number(cache->not_found_ttl_ms, call->not_found_ttl_ms),
        .backoff_ms = number(cache->backoff_ms, call->backoff_ms),
        .backoff_max_ms = number(cache->backoff_max_ms, call->backoff_max_ms),
        .refresh_ahead = share(cache->refresh_ahead, call->refresh_ahead),
        .xfetch_beta = share(cache->xfetch_beta, call->xfetch_beta)};
}

bool rules_are_rare(const aside_freshness *rules)
{
    return rules->stale_ms || rules->stale_if_error_ms || rules->refresh_ahead > 0 ||
           rules->xfetch_beta > 0;
}

/* ---- after the ttl --------------------------------------------------------------------------- */

static int64_t ns_of_ms(int64_t ms)
{
    return ms <= INT64_MAX / NS_OF_MS ? ms * NS_OF_MS : CLOCK_NEVER;
}

int64_t rules_stale_for_ns(const aside_freshness *rules)
{
    return ns_of_ms(rules->stale_ms);
}

int64_t rules_serve_for_ns(const aside_freshness *rules)
{
    return ns_of_ms(rules->stale_ms > rules->stale_if_error_ms ? rules->stale_ms
                                                               : rules->stale_if_error_ms);
}

int64_t rules_backoff_ms(const aside_freshness *rules, int64_t first_ms, uint64_t failures)
{
    int64_t ms = first_ms, most_ms = rules->backoff_max_ms;
    if (most_ms < first_ms)
        most_ms = first_ms;
    for (; failures > 1 && ms < most_ms; failures--)
        ms = ms <= most_ms / 2 ? 2 * ms : most_ms;
    return ms;
}

/* ---- before its end -------------------------------------------------------------------------- */

static int64_t scaled(int64_t ns, double by)
{
    double product = (double)ns * by;
    return product < 9e18 ? (int64_t)product : INT64_MAX;
}

static int64_t ahead_for_ns(const aside_freshness *rules, int64_t ttl_ns)
{
    return rules->refresh_ahead > 0 ? scaled(ttl_ns, 1 - rules->refresh_ahead) : 0;
}

int64_t rules_early_for_ns(const aside_freshness *rules, int64_t ttl_ns, int64_t fetch_ns)
{
    if (ttl_ns == CLOCK_NEVER)
        return 0;
    int64_t ahead_ns = ahead_for_ns(rules, ttl_ns);
    int64_t drawn_ns = scaled(fetch_ns, rules->xfetch_beta * MOST_DEVIATE);
    return ahead_ns > drawn_ns ? ahead_ns : drawn_ns;
}

/* The length of the first run of falling draws tells the whole part, and its first draw the rest
 * (von Neumann, Various techniques used in connection with random digits, 1951). No logarithm, and
 * no draw of 0 to guard. */
static uint64_t exponential(uint64_t (*draw)(void *ctx), void *ctx)
{
    for (uint64_t whole = 0; whole < MOST_DEVIATE; whole++) {
        uint64_t first = draw(ctx), last = first, next;
        unsigned run = 1;
        for (; (next = draw(ctx)) < last; last = next)
            run++;
        if (run % 2)
            return whole << ONE_BITS | first >> (64 - ONE_BITS);
    }
    return (uint64_t)MOST_DEVIATE << ONE_BITS;
}

/* left <= took * beta * deviate, which has the probability exp(-left / (took * beta)). */
static bool drawn(const aside_freshness *rules, int64_t left_ns, int64_t fetch_ns,
                  uint64_t (*draw)(void *ctx), void *ctx)
{
    double mean_ns = (double)fetch_ns * rules->xfetch_beta;
    if (!(mean_ns > 0) || (double)left_ns > mean_ns * MOST_DEVIATE)
        return false;
    double deviate = (double)exponential(draw, ctx) / (double)(UINT64_C(1) << ONE_BITS);
    return (double)left_ns <= mean_ns * deviate;
}

bool rules_refresh_early(const aside_freshness *rules, int64_t ttl_ns, int64_t left_ns,
                         int64_t fetch_ns, uint64_t (*draw)(void *ctx), void *ctx)
{
    return (rules->refresh_ahead > 0 && left_ns <= ahead_for_ns(rules, ttl_ns)) ||
           drawn(rules, left_ns, fetch_ns, draw, ctx);
}
