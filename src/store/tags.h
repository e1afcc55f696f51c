/*
 * store/tags -- names by which many values are invalidated at once, in O(1).
 *
 * Time is a count of invalidations, one for the whole cache. A tag knows at which count it was last
 * invalidated. Whoever is about to read the source of truth notes the count first (tags_now); what
 * he brings is good as long as none of its tags was invalidated after that. So invalidating is one
 * addition and one store, however many values have the tag, and a value finds out when it is looked
 * at, without a lock. The count moves before the tag has it: who finds his value outdated and
 * begins anew must not note a count at which what he brings is outdated too.
 *
 *   in no table --tags_add--> referenced --the last tags_drop--> out of the table, freed
 *
 * A tag is there as long as a value has it, or a fetch that will. Its references come to 0 under
 * the lock alone, in the hold that takes it out of the table: so whoever finds a tag under the lock
 * may add a reference, and the last dropper looks again there: somebody may have come meanwhile.
 *
 * When a tag was invalidated must not be forgotten with it, since a fetch that began before may
 * still come to name it. So what is invalidated without being there, and what leaves, raises the
 * floor of its slot, and a tag that is made anew begins at that floor. Tags that share a slot may
 * so fence each other's fetches, if the tag is new; never a value that is stored.
 *
 * Tags and floors count in the budget of what lasts (B1), sets with the entry that has them. In the
 * child of a fork tags are as they were, if the lock was seized; what lost flights refer to stays.
 */
#ifndef ASIDE_STORE_TAGS_H
#define ASIDE_STORE_TAGS_H

#include "base/atomic.h"
#include "base/lock.h"
#include "base/table.h"
#include "store/budget.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At most; a small cache has fewer, no more than a 64th of its bytes. A power of two. */
#define TAGS_FLOORS 1024

struct tags;

/* What others write is in front, away from what hits read. */
struct tag {
    _Atomic uint64_t refs; /* from 0 to 1 never, from 1 to 0 under the lock */
    struct table_node node;
    _Atomic uint64_t at; /* the count at which it was last invalidated; written under the lock */
    uint32_t slot;       /* immutable, as are the others: of its floor */
    uint32_t length;
    char name[];
};

/* The tags of one value. Filled by one thread; immutable once others can see it. */
struct tag_set {
    struct tags *tags;
    uint32_t count, room;
    struct tag *tag[]; /* a reference each */
};

struct tags {
    const struct mem *mem; /* immutable, as are the next three */
    struct budget *budget;
    uint64_t key[2]; /* of the hash */
    uint32_t floor_mask;
    _Atomic uint64_t now; /* written under the lock */
    struct lock lock;     /* RANK_TAGS; a fork seizes it. It guards the rest */
    struct table table;
    uint64_t *floors;      /* NULL until there is a tag or an invalidation, and room for them */
    uint64_t floor_of_all; /* raised instead of theirs as long as there are none */
    size_t lasting;        /* what this room has reserved */
};

void tags_init(struct tags *tags, const struct mem *mem, struct budget *budget,
               const uint8_t key[16]);
/* No set is left. */
void tags_fini(struct tags *tags);

static inline uint64_t tags_now(const struct tags *tags)
{
    return load_acquire(&tags->now);
}

/* From now on what was read before is no longer good if it has this tag. ASIDE_OK, or ASIDE_MISS if
 * nobody has the tag. It never fails: without memory for the floors it fences more than it had to,
 * namely every fetch under way that comes to add a new tag. */
aside_status tags_invalidate(struct tags *tags, const void *name, size_t length);

/* Adds a tag to a set, which is made if *set is NULL, and may move. One that is in it already is
 * ASIDE_OK. Else the set is as it was: ASIDE_E_NOMEM; ASIDE_E_BUSY if tags_is_full(), or if the
 * budget has no room for tag_charge() bytes: it is worth another try once somebody has made it. */
aside_status tags_add(struct tags *tags, struct tag_set **set, const void *name, size_t length);
/* Gives the references back; NULL is ignored. Under no lock of this rank or a higher one; before
 * tags_fini(), which an entry may outlive that a handle keeps: it has no set any more by then. */
void tags_drop(struct tag_set *set);

/* What a tag counts for that nobody has yet; and what the set itself counts for, NULL: 0. */
static inline size_t tag_charge(size_t length)
{
    return mem_charge(sizeof(struct tag) + length);
}

static inline size_t tags_charge(const struct tag_set *set)
{
    return set ? mem_charge(sizeof *set + set->room * sizeof set->tag[0]) : 0;
}

static inline bool tags_is_full(const struct tag_set *set)
{
    return set && set->count == ASIDE_MAX_TAGS;
}

/* What tags and floors have reserved: for who counts the budget anew. */
size_t tags_lasting(struct tags *tags);

/* Whether what was read at that count is still good. Without a lock. NULL: it is. */
static inline bool tags_valid(const struct tag_set *set, uint64_t read_at)
{
    for (uint32_t i = 0; set && i < set->count; i++)
        if (load_acquire(&set->tag[i]->at) > read_at)
            return false;
    return true;
}

#endif
