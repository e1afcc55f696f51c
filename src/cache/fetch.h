/*
 * cache/fetch -- a lookup that may fetch: what blocking callers and event loops have in common.
 */
#ifndef ASIDE_CACHE_FETCH_H
#define ASIDE_CACHE_FETCH_H

#include "cache/sight.h"
#include "flight/call.h"

enum lookup_meeting { MEET_ANSWER, MEET_JOIN, MEET_LEAD, MEET_REFUSED, MEET_NO_ROOM };

struct lookup {
    struct request request; /* first */
    aside_cache *cache;
    struct shard *shard;          /* once it may join or lead */
    const aside_freshness *rules; /* the cache's, where the call has none of its own */
    aside_freshness own_rules;    /* what they point to if it has */
    struct onlooker by;
    bool claims;         /* what is due may become this caller's to refresh */
    enum sight sight;    /* what he saw last */
    aside_status status; /* and what it answers; or why he may not join or lead */
    struct flight *joined, *old;
    struct flight_watcher *watcher; /* of a caller whose thread does not wait; else NULL */
    int64_t claimed_ns;             /* until then this caller has claimed it ... */
    int64_t under_way_ns;           /* ... but the one under way already is too old then */
};

/* Once its caller is inside the cache. Key and call stay the caller's. */
void lookup_init(struct lookup *l, aside_cache *cache, const struct host_call *inside,
                 const struct flight_key *key, const aside_call *call);
/* The same lookup, of a copy of the call and the key. */
void lookup_rebase(struct lookup *l, const aside_call *call, const void *key);
/* Whether there is an answer without joining or leading a flight, l->status; ASIDE_PENDING: there is
 * none, and the caller may. */
aside_status lookup_start(struct lookup *l, bool has_entry);
/* A flight that he may lead, or NULL. */
struct flight *lookup_new_flight(struct lookup *l);
/* Under the shard's lock: joins l->joined, or leads that flight, or neither, which is discarded by its
 * caller then. What happened to l->old is told. */
enum lookup_meeting lookup_meet(struct lookup *l, struct flight *mine);
/* What it answers to who neither joined nor led. */
aside_status lookup_turned_away(struct lookup *l, enum lookup_meeting met);
/* Before looking once more. */
void lookup_again(struct lookup *l);

#endif
