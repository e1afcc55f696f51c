/*
 * store/shard -- one lock, and all that it guards: index, wheel, limbo, flights.
 *
 * Readers take no lock; everything else here does, for a bounded time: no function looks at more
 * than 64 entries, none calls user code, and what is to be freed is handed out as debris for after
 * the lock.
 *
 * An array that was replaced lies on the list of the doomed until no reader can be in it. If it
 * held entries (clear, close), they are taken out in slices then: nobody else can reach them, so
 * no lock is needed.
 */
#ifndef ASIDE_STORE_SHARD_H
#define ASIDE_STORE_SHARD_H

#include "base/lock.h"
#include "flight/group.h"
#include "store/budget.h"
#include "store/index.h"
#include "store/limbo.h"
#include "store/referee.h"
#include "store/removal.h"
#include "store/wheel.h"

#include <stdbool.h>
#include <stdio.h>

/* Most entries that one lock hold hands out to be freed, and most that a write frees on the side. */
#define SHARD_SLICE 32
#define SHARD_SIDE 8
/* Most looks of one search for victims, each at an entry or at two that compete. */
#define SHARD_LOOKS 24

/* Entries a bucket that the policy's memory is for: of the five that an index comes to hold, as the
 * memory is a power of two. */
#define SHARD_REMEMBERS 4

struct shard {
    struct index index; /* its array is read without the lock; the rest guarded */
    _Alignas(CACHE_LINE) struct lock lock;
    bool array_coming;               /* guarded by lock: somebody is making a larger array */
    struct referee *referee;         /* immutable; NULL: nothing is ever evicted */
    struct policy policy;            /* guarded by lock */
    void *memory;                    /* guarded by lock: the policy's, of keys */
    size_t memory_bytes;             /* guarded by lock: as the budget counts it */
    size_t limbo_max;                /* immutable: bytes in limbo above which writes are refused */
    const aside_on_remove *listener; /* immutable; NULL: nobody wants to hear of removals */
    struct link_list removals;   /* guarded by lock, empty when it is free: told to nobody yet */
    struct wheel wheel;          /* guarded by lock */
    struct limbo limbo;          /* guarded by lock */
    struct budget_room lacking;  /* guarded by lock: what the last shard_put() had no room for */
    size_t bytes;                /* guarded by lock: what the linked entries count for */
    struct index_array *doomed;  /* guarded by lock */
    struct index_array *in_hand; /* guarded by lock: of the doomed, that somebody is taking apart */
    size_t doomed_bytes;         /* guarded by lock */
    struct group group;          /* guarded by lock */
    struct budget *budget;
};

struct shard_debris {
    unsigned count;
    struct entry *entries[SHARD_SLICE];
};

enum shard_end {
    SHARD_OK,
    SHARD_MISS, /* there is no fresh entry */
    SHARD_EXISTS,
    SHARD_CLOSED,
    SHARD_FENCED, /* a write overtook the fetch */
    /* a store that store/store may help */
    SHARD_NO_ROOM,
    SHARD_LIMBO_FULL,
    SHARD_NO_ARRAY,
    SHARD_NO_MEMORY
};

enum shard_put { SHARD_SET, SHARD_ADD };

/* What the shards of a store have in common. */
struct shard_common {
    const struct mem *mem;
    const struct hash_seed *seed;
    struct budget *budget;
    struct flight_bound *bound;
    struct referee *referee;         /* NULL: nothing is ever evicted */
    const aside_on_remove *listener; /* NULL: nobody wants to hear of removals */
    size_t limbo_max;
};

void shard_init(struct shard *shard, const struct shard_common *common, int64_t now_ns);
/* Of a closed shard that nobody uses any more: all that waits in limbo is dropped now. */
void shard_fini(struct shard *shard);

/* ---- with the lock held ---------------------------------------------------------------------- */

/* Links the entry, whose times are set, in the place of what was there; takes its reference. */
enum shard_end shard_put(struct shard *shard, uint64_t hash, struct entry *entry,
                         enum shard_put how, int64_t now_ns) REQUIRES(shard->lock);
/* Unlinks the key; SHARD_OK if the entry was fresh. */
enum shard_end shard_delete(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                            int64_t now_ns) REQUIRES(shard->lock);
/* Ends an entry's time: it is reaped like any other. */
enum shard_end shard_expire(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                            int64_t now_ns) REQUIRES(shard->lock);
enum shard_end shard_touch(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                           int64_t now_ns, int64_t until_ns) REQUIRES(shard->lock);
/* Renews the key's entry, which has this value, in its place; read_at is the tags' count before the
 * source said that it is still good. False: it has been evicted, or reaped. */
bool shard_renew(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                 const aside_value *value, const struct entry_life *life, uint64_t read_at)
    REQUIRES(shard->lock);
/* A refresh has failed: until_ns, nobody else begins one. False: there is no value, fresh or stale, that
 * may be served instead. */
bool shard_rearm(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                 int64_t now_ns, int64_t until_ns, uint64_t failure) REQUIRES(shard->lock);
/* A refresh has ended well and changed nothing: whoever finds that due begins another. */
void shard_disarm(struct shard *shard, uint64_t hash, const void *key, size_t key_len)
    REQUIRES(shard->lock);
/* The key's entry, fresh or not, or NULL. */
struct entry *shard_find(struct shard *shard, uint64_t hash, const void *key, size_t key_len)
    REQUIRES(shard->lock);
/* Unlinks this very entry if it is still there and over. */
bool shard_remove_expired(struct shard *shard, uint64_t hash, const struct entry *entry,
                          const void *key, size_t key_len, int64_t now_ns) REQUIRES(shard->lock);
/* Evicts until there is room, or until it has looked at a few entries. */
void shard_evict(struct shard *shard, const struct budget_room *room, unsigned *evicted)
    REQUIRES(shard->lock);
/* Makes due what now_ns has passed. */
void shard_pass_time(struct shard *shard, int64_t now_ns) REQUIRES(shard->lock);
/* Looks at up to max entries that are due and removes those whose time is over. Returns how many
 * it looked at: less than max means all. */
unsigned shard_reap(struct shard *shard, int64_t now_ns, unsigned max, unsigned *reaped)
    REQUIRES(shard->lock);
/* Publishes an empty table; what was there is doomed. Fences all flights. */
void shard_clear(struct shard *shard, aside_cause cause, int64_t now_ns) REQUIRES(shard->lock);
/* What was unlinked in this hold of the lock: the caller tells it when he has released it. */
struct link_list shard_removals(struct shard *shard) REQUIRES(shard->lock);
/* A share of the housekeeping that every write does; *growth is a wish for shard_grow(). */
void shard_upkeep(struct shard *shard, bool pressed, struct shard_debris *debris, bool *growth)
    REQUIRES(shard->lock);

/* ---- without it ------------------------------------------------------------------------------ */

void shard_drop(struct shard_debris *debris);
/* Brings the larger array that the index wants; SHARD_NO_ROOM (for so many bytes) or
 * SHARD_NO_MEMORY if that is not to be had. After the last try nobody tries again for a while. */
enum shard_end shard_grow(struct shard *shard, bool last_try, size_t *room);
/* Takes a slice of at most max entries out of what is doomed; how many. *more: go on. */
unsigned shard_dismantle(struct shard *shard, unsigned max, bool *more);

/* In the child of a fork: what others were in the middle of is open again. */
void shard_fork_child(struct shard *shard);

bool shard_check(struct shard *shard, FILE *why);

#endif
