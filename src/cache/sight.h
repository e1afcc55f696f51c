/*
 * cache/sight -- what an entry is worth to a caller of aside_get_with_fetch() who has not found it
 * simply fresh.
 *
 * No locks, no flights: an entry, rules and an instant. Inside the epoch, or under the shard's lock.
 */
#ifndef ASIDE_CACHE_SIGHT_H
#define ASIDE_CACHE_SIGHT_H

#include "cache/cache.h"

enum sight {
    SIGHT_NONE,      /* of no use */
    SIGHT_FRESH,     /* a hit */
    SIGHT_EARLY,     /* a hit that should be refreshed, and nobody does so yet */
    SIGHT_STALE,     /* to be served at once, and nobody refreshes it yet */
    SIGHT_REFRESHED, /* to be served at once: somebody refreshes it */
    SIGHT_THROTTLED, /* to be served at once: a refresh has failed just now */
    SIGHT_RESERVE,   /* to be served if the source fails */
    SIGHT_ABSENT,    /* there is no such thing */
    SIGHT_FAILED     /* the source failed just now */
};

struct onlooker {
    aside_cache *cache;
    const aside_freshness *own;   /* as his call has them */
    const aside_freshness *rules; /* with the cache's where it has none */
    int64_t now_ns;               /* coarse */
};

enum sight sight_of(const struct entry *entry, const struct onlooker *by);
/* It could answer for a source that fails. */
bool sight_is_reserve(const struct entry *entry, const struct onlooker *by);

/* One of all who see that it is due: he refreshes it, and nobody else until then. */
bool sight_claim(const struct entry *entry, int64_t now_ns, int64_t until_ns);

/* The answer that it is, with a handle to its value. */
aside_status sight_take(enum sight sight, struct entry *entry, int64_t now_ns,
                        aside_result *result);

/* The counter of lookups that such a sight answers. */
unsigned sight_counter(enum sight sight);

#endif
