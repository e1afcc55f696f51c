/*
 * freshness/rules -- what aside_freshness comes to: pure functions of rules, instants and draws.
 *
 *   stored --------- early ---- expires ------- stale ------- served for failures only ----- gone
 *          simply fresh   |  fresh, but    |  served while     |
 *                         |  looked at     |  it is refreshed  |
 */
#ifndef ASIDE_FRESHNESS_RULES_H
#define ASIDE_FRESHNESS_RULES_H

#include <aside/aside.h>
#include <stdbool.h>
#include <stdint.h>

/* Numbers that make sense; of a call or of a cache. */
bool rules_are(const aside_freshness *rules);
/* The cache's rules where the call has none of its own, with 0 for what is off. */
aside_freshness rules_of(const aside_freshness *cache, const aside_freshness *call);
/* Of a call: all as in the cache. */
static inline bool rules_are_none(const aside_freshness *rules)
{
    return !(rules->stale_ms | rules->stale_if_error_ms | rules->throttle_ms |
             rules->soft_timeout_ms | rules->not_found_ttl_ms | rules->backoff_ms |
             rules->backoff_max_ms) &&
           rules->refresh_ahead == 0 && rules->xfetch_beta == 0;
}

/* What lives by them is more than fresh until its ttl ends. */
bool rules_are_rare(const aside_freshness *rules);

/* How long before its end something of that ttl may first be refreshed; the ttl CLOCK_NEVER: 0. */
int64_t rules_early_for_ns(const aside_freshness *rules, int64_t ttl_ns, int64_t fetch_ns);
/* How long after it it is served while it is refreshed, and how long at all. */
int64_t rules_stale_for_ns(const aside_freshness *rules);
int64_t rules_serve_for_ns(const aside_freshness *rules);

/* What is still fresh for left_ns of its ttl is to be refreshed now. draw gives 64 random bits a
 * call. */
bool rules_refresh_early(const aside_freshness *rules, int64_t ttl_ns, int64_t left_ns,
                         int64_t fetch_ns, uint64_t (*draw)(void *ctx), void *ctx);

/* How long a failure is remembered that is so many in a row; first_ms for the first. */
int64_t rules_backoff_ms(const aside_freshness *rules, int64_t first_ms, uint64_t failures);

#endif
