/* cache/sight -- see sight.h. */
#include "cache/sight.h"

#include "base/counter.h"
#include "base/fork.h"

static uint64_t draw(void *cache)
{
    return dice_roll(&((aside_cache *)cache)->dice);
}

static enum sight sight_of_absent(const struct entry_rare *rare, const struct onlooker *by)
{
    bool failed = load_relaxed(&rare->failure) != 0;
    if (by->now_ns >= load_acquire(&rare->expires_ns) ||
        (failed ? by->own->backoff_ms : by->own->not_found_ttl_ms) == ASIDE_OFF)
        return SIGHT_NONE;
    return failed ? SIGHT_FAILED : SIGHT_ABSENT;
}

static bool has_failed(const struct entry_rare *rare)
{
    return entry_failure_status(load_relaxed(&rare->failure)) != ASIDE_OK;
}

/* The word that says what a refresh has failed with says, until then, in which process it runs: in the
 * child of a fork it does not. */
static bool is_claimed(const struct entry_rare *rare, int64_t now_ns)
{
    uint64_t failure = load_relaxed(&rare->failure);
    return now_ns < load_acquire(&rare->claimed_until_ns) &&
           (entry_failure_status(failure) != ASIDE_OK || (uint32_t)failure == fork_generation());
}

static enum sight sight_of_fresh(const struct entry *entry, const struct entry_rare *rare,
                                 int64_t expires_ns, const struct onlooker *by)
{
    if (expires_ns == CLOCK_NEVER || is_claimed(rare, by->now_ns))
        return SIGHT_FRESH;
    int64_t left_ns = expires_ns - by->now_ns;
    int64_t ttl_ns = load_relaxed(&rare->ttl_ms) * INT64_C(1000000);
    if (ttl_ns == ENTRY_LONG_TTL * INT64_C(1000000))
        ttl_ns = left_ns + entry_age_ms(entry, by->now_ns) * 1000000;
    return rules_refresh_early(by->rules, ttl_ns, left_ns, entry_fetch_ns(entry), draw, by->cache)
               ? SIGHT_EARLY
               : SIGHT_FRESH;
}

/* Whether somebody who accepts a value for that long past its ttl (0: as long as it says itself) may
 * have it now. */
static bool is_within(const struct entry_rare *rare, int64_t window_ns, int64_t own_ms,
                      int64_t now_ns)
{
    int64_t past_ns = now_ns - load_relaxed(&rare->expires_ns);
    return past_ns < window_ns && own_ms != ASIDE_OFF && (!own_ms || past_ns / 1000000 < own_ms);
}

static bool is_stale_for(const struct entry_rare *rare, const struct onlooker *by)
{
    return is_within(rare, load_relaxed(&rare->stale_for_ns), by->own->stale_ms, by->now_ns);
}

bool sight_is_reserve(const struct entry *entry, const struct onlooker *by)
{
    const struct entry_rare *rare = entry_rare(entry);
    return rare && entry_is_servable(entry, by->now_ns) &&
           (is_stale_for(rare, by) || is_within(rare, load_relaxed(&rare->serve_for_ns),
                                                by->own->stale_if_error_ms, by->now_ns));
}

static enum sight sight_of_stale(const struct entry *entry, const struct entry_rare *rare,
                                 const struct onlooker *by)
{
    if (!sight_is_reserve(entry, by))
        return SIGHT_NONE;
    bool claimed = is_claimed(rare, by->now_ns);
    if (claimed && has_failed(rare))
        return SIGHT_THROTTLED;
    if (!is_stale_for(rare, by))
        return SIGHT_RESERVE;
    return claimed ? SIGHT_REFRESHED : SIGHT_STALE;
}

enum sight sight_of(const struct entry *entry, const struct onlooker *by)
{
    const struct entry_rare *rare = entry_rare(entry);
    if (!rare)
        return entry_fresh(entry, by->now_ns) ? SIGHT_FRESH : SIGHT_NONE;
    if (!entry_has_valid_tags(entry))
        return SIGHT_NONE;
    if (entry_is_absent(entry))
        return sight_of_absent(rare, by);
    int64_t expires_ns = load_acquire(&rare->expires_ns);
    return by->now_ns < expires_ns ? sight_of_fresh(entry, rare, expires_ns, by)
                                   : sight_of_stale(entry, rare, by);
}

/* What an earlier one had failed with is no news any more. */
bool sight_claim(const struct entry *entry, int64_t now_ns, int64_t until_ns)
{
    struct entry_rare *rare = entry_rare(entry);
    int64_t claimed_ns = load_relaxed(&rare->claimed_until_ns);
    if (is_claimed(rare, now_ns) || !compare_swap(&rare->claimed_until_ns, &claimed_ns, until_ns))
        return false;
    store_relaxed(&rare->failure, entry_failure(ASIDE_OK, (int)fork_generation()));
    return true;
}

/* ---- what it answers ------------------------------------------------------------------------- */

static aside_status take_failure(const struct entry *entry, aside_result *result)
{
    uint64_t failure = load_relaxed(&entry_rare(entry)->failure);
    result->outcome = ASIDE_OUTCOME_ERROR;
    result->fetch_error = entry_failure_code(failure);
    return entry_failure_status(failure);
}

static void take_stale(enum sight sight, const struct entry *entry, aside_result *result)
{
    uint64_t failure = load_relaxed(&entry_rare(entry)->failure);
    bool throttled = sight == SIGHT_THROTTLED;
    result->outcome = ASIDE_OUTCOME_STALE;
    result->stale_cause = throttled ? ASIDE_STALE_THROTTLED : ASIDE_STALE_REFRESH;
    result->fetch_status = throttled ? entry_failure_status(failure) : ASIDE_OK;
    result->fetch_error = throttled ? entry_failure_code(failure) : 0;
}

aside_status sight_take(enum sight sight, struct entry *entry, int64_t now_ns, aside_result *result)
{
    result->age_ms = entry_age_ms(entry, now_ns);
    result->ttl_left_ms = clock_left_ms(entry_expires(entry), now_ns);
    if (sight == SIGHT_FAILED)
        return take_failure(entry, result);
    if (sight == SIGHT_ABSENT) {
        result->outcome = ASIDE_OUTCOME_NEGATIVE;
        return ASIDE_NOT_FOUND;
    }
    result->outcome = ASIDE_OUTCOME_HIT;
    if (sight != SIGHT_FRESH && sight != SIGHT_EARLY)
        take_stale(sight, entry, result);
    result->value = entry_handle(entry);
    return ASIDE_OK;
}

unsigned sight_counter(enum sight sight)
{
    switch (sight) {
    case SIGHT_FRESH:
    case SIGHT_EARLY: return COUNTER_hits;
    case SIGHT_ABSENT: return COUNTER_negative_hits;
    case SIGHT_FAILED: return COUNTER_error_hits;
    default: return COUNTER_stale;
    }
}
