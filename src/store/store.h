/*
 * store/store -- the shards of one cache, and what a store that does not fit at once has to do.
 *
 * A write that finds no room gives up its shard's lock, makes room, and begins anew: never two
 * locks. The room is sought in the own shard first, then in the others. Every loop here is
 * bounded; what it cannot get in that many turns is refused with a code.
 */
#ifndef ASIDE_STORE_STORE_H
#define ASIDE_STORE_STORE_H

#include "base/counter.h"
#include "store/shard.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stdio.h>

struct store {
    struct hash_seed seed;    /* immutable */
    struct shard *shards;     /* immutable */
    size_t shard_mask;        /* immutable */
    bool evicts;              /* immutable: there is a bound, and a referee */
    aside_on_remove listener; /* immutable; fn NULL: none */
    struct home *home;        /* immutable */
    void *shards_block;
    struct budget budget;
    struct tags tags;
    struct referee referee;
    _Atomic uint32_t next_victim; /* shard at which the search for room goes on */
    _Atomic uint32_t next_reaped; /* and that for what is over */
};

/* How many shards a cache of such bounds has. */
size_t store_shards(size_t max_bytes, size_t max_entries);
/* bound: of the flights. False: no memory. */
bool store_init(struct store *store, struct home *home, const struct hash_seed *seed,
                struct flight_bound *bound, const aside_options *options, int64_t now_ns);
void store_fini(struct store *store);

#define STORE_SHARD_SHIFT 32

static inline struct shard *store_shard(const struct store *store, uint64_t hash)
{
    return &store->shards[hash >> STORE_SHARD_SHIFT & store->shard_mask];
}

/* Stores the entry and fences the key's flight. Takes the entry's reference if it returns
 * ASIDE_OK. */
aside_status store_put(struct store *store, uint64_t hash, struct entry *entry, enum shard_put how,
                       int64_t now_ns);
/* What a fetch's answer is for the store. */
enum store_news_kind {
    STORE_NOTHING, /* it is handed over only */
    STORE_PUT,     /* a value, or that there is none, to be remembered */
    STORE_KILL,    /* there is none: what was there goes */
    STORE_RENEW,   /* what was there is still good */
    STORE_FAILURE  /* what was there serves on, or the failure is remembered */
};

struct store_news {
    enum store_news_kind kind;
    struct entry *entry;    /* to put; of a failure, to remember it by, or NULL */
    struct entry_life life; /* to renew by */
    int64_t backoff_ms;     /* of a first failure */
};

/* Stores the news unless the flight may not, and settles the flight by its answer, in one hold of the
 * lock; wakes. Takes a reference of its own to the entry if it returns true. */
bool store_publish(struct store *store, struct flight *flight, const struct store_news *news,
                   int64_t now_ns);
/* The key's entry has this value still; and it is rare if that is asked. */
bool store_holds(struct store *store, uint64_t hash, const void *key, size_t key_len,
                 const aside_value *value, bool rare);

enum store_drop { STORE_DELETE, STORE_EXPIRE };
aside_status store_drop(struct store *store, uint64_t hash, const void *key, size_t key_len,
                        enum store_drop how, int64_t now_ns);
aside_status store_touch(struct store *store, uint64_t hash, const void *key, size_t key_len,
                         int64_t now_ns, int64_t until_ns);
/* A reader has met an entry that is over: remove it, if nobody holds the lock. */
void store_lazily_remove(struct store *store, uint64_t hash, const struct entry *entry,
                         const void *key, size_t key_len, int64_t now_ns);

/* Evicts until there is room for so many bytes; false if that cannot be. */
bool store_make_room(struct store *store, struct shard *near, size_t bytes);

/* Entries that a reap looks at in one hold of a lock. What is over lies in no cache, so each takes
 * longer than a whole set. */
#define STORE_REAP_SLICE 8
/* Removes what is over and frees what may be freed, at most budget entries (0: no bound). */
size_t store_reap(struct store *store, int64_t now_ns, size_t budget);
/* Every shard gets an empty table; closing: for good. */
void store_clear(struct store *store, bool closing, int64_t now_ns);
/* Dismantles what clear left, as far as readers allow. */
void store_dismantle(struct store *store);

/* In the child of a fork: what others had reserved is free again. */
void store_fork_child(struct store *store);

void store_gauge(struct store *store, size_t *limbo_bytes, size_t *visited_bytes);
bool store_check(struct store *store, FILE *why);

#endif
