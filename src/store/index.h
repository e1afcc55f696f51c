/*
 * store/index -- the hash table of one shard: read without a lock inside an epoch, written under
 * the shard's lock.
 *
 *   array   a power of two of 64-byte buckets
 *   bucket  7 words {16-bit tag, 48-bit pointer to an entry}, 0 = empty, and a link to
 *           an overflow bucket
 *
 * What readers rely on:
 *   - a word is published after the entry it names is filled
 *   - an overwrite exchanges the word in place, and a live word never moves within its chain, so
 *     that a reader never misses a key that was there all the time
 *   - growth copies the words of a bucket to the larger array first, and marks the link of the old
 *     one FORWARD then. A reader looks at the link before the words, and then in the larger array
 *   - an array that has been replaced, and an entry that was unlinked, stay for the grace period
 *
 * Growth is incremental: each write moves a few buckets (index_step). The array itself is made
 * outside the lock (index_array_new). An index begins with the shared empty array, which holds
 * nothing: the first write has to bring one. Hash bits: the lowest choose the bucket, 32 to 47 the
 * shard, the top 16 are the tag.
 */
#ifndef ASIDE_STORE_INDEX_H
#define ASIDE_STORE_INDEX_H

#include "base/atomic.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/budget.h"
#include "store/entry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define INDEX_WORDS 7
#define INDEX_FORWARD ((uintptr_t)1)
#define INDEX_TAG_SHIFT 48

struct index_bucket {
    _Atomic uint64_t word[INDEX_WORDS];
    _Atomic uintptr_t link; /* of a chain's first bucket: FORWARD or-ed in once it has moved */
};

/* Overflow buckets come in slabs that belong to an array and go with it. */
struct index_slab;

struct index_array {
    _Alignas(CACHE_LINE) size_t mask;   /* immutable */
    _Atomic(struct index_array *) next; /* set before the first bucket is forwarded */
    /* writers */
    struct index_slab *slabs;
    size_t slab_bytes;
    size_t moved; /* buckets forwarded so far, from 0 on */
    const struct mem *mem;
    void *block;  /* what to free */
    size_t bytes; /* that the budget counts, slabs not included */
    /* after it was replaced: of whoever dismantles it */
    struct index_array *doomed_next;
    uint64_t doomed_tag;
    size_t doomed_at;   /* buckets taken apart so far */
    bool holds_entries; /* that left the cache with it, ... */
    uint8_t cause;      /* ... which aside_cause says why */
    void *memory;       /* the policy's, which goes with it */
    /* the buckets follow */
};

static HOT_INLINE struct index_bucket *index_bucket_at(const struct index_array *array, size_t at)
{
    return (struct index_bucket *)(uintptr_t)(array + 1) + at;
}

struct index {
    _Alignas(CACHE_LINE) _Atomic(struct index_array *) array;
    /* Where its buckets are, for index_prefetch(): nothing relies on it. */
    _Atomic uintptr_t buckets;
    _Atomic size_t mask;
    /* writers, under the shard's lock */
    _Alignas(CACHE_LINE) const struct mem *mem;
    const struct hash_seed *seed;
    struct budget *budget;
    size_t count;   /* entries */
    size_t grow_at; /* count at which a larger array is wanted */
};

enum index_end { INDEX_OK, INDEX_NO_ROOM, INDEX_NO_MEMORY, INDEX_NO_ARRAY };

void index_init(struct index *index, const struct mem *mem, const struct hash_seed *seed,
                struct budget *budget);

/* ---- readers --------------------------------------------------------------------------------- */

static inline struct entry *index_entry(uint64_t word)
{
    return (struct entry *)(uintptr_t)(word & ((UINT64_C(1) << INDEX_TAG_SHIFT) - 1));
}

/* Has the bucket of a hash fetched while its reader still does other things. From outside the epoch:
 * the array is not looked at, and an address that is none any more does no harm. */
static HOT_INLINE void index_prefetch(const struct index *index, uint64_t hash)
{
    uintptr_t buckets = load_relaxed(&index->buckets);
    size_t at = (hash & load_relaxed(&index->mask)) * sizeof(struct index_bucket);
    __builtin_prefetch((const void *)(buckets + at));
}

/* Where in its bucket an entry is put if it can be, and looked for first: that saves most lookups the
 * scan, whose branches nobody can guess. */
static HOT_INLINE unsigned index_home(uint64_t hash)
{
    return (unsigned)((hash >> INDEX_TAG_SHIFT) * INDEX_WORDS >> (64 - INDEX_TAG_SHIFT));
}

static HOT_INLINE bool index_word_is(uint64_t word, uint64_t hash, const void *key, size_t key_len)
{
    return (word ^ hash) >> INDEX_TAG_SHIFT == 0 && index_entry(word) &&
           entry_has_key(index_entry(word), key, key_len);
}

static HOT_INLINE struct entry *index_find(const struct index *index, uint64_t hash,
                                           const void *key, size_t key_len)
{
    struct index_array *array = load_acquire(&index->array);
    for (;;) {
        struct index_bucket *bucket = index_bucket_at(array, hash & array->mask);
        uintptr_t link = load_acquire(&bucket->link);
        if (unlikely(link & INDEX_FORWARD)) {
            array = load_acquire(&array->next);
            continue;
        }
        uint64_t word = load_acquire(&bucket->word[index_home(hash)]);
        if (likely(index_word_is(word, hash, key, key_len)))
            return index_entry(word);
        for (;;) {
            for (unsigned i = 0; i < INDEX_WORDS; i++) {
                word = load_acquire(&bucket->word[i]);
                if (index_word_is(word, hash, key, key_len))
                    return index_entry(word);
            }
            if (likely(!link))
                return NULL;
            bucket = (struct index_bucket *)(link & ~INDEX_FORWARD);
            link = load_acquire(&bucket->link);
        }
    }
}

/* ---- writers --------------------------------------------------------------------------------- */

/* The word that holds this key, or NULL. */
_Atomic uint64_t *index_locate(struct index *index, uint64_t hash, const void *key, size_t key_len);
/* Links an entry whose key is not there. The entry counts towards grow_at from now. */
enum index_end index_insert(struct index *index, uint64_t hash, struct entry *entry);
/* Puts a new entry of the same key into the word; the old one is the caller's to retire. */
void index_replace(_Atomic uint64_t *word, uint64_t hash, struct entry *entry);
/* Empties the word; the entry is the caller's to retire. */
void index_remove(struct index *index, _Atomic uint64_t *word);

/* Moves a few buckets of a growing index; true if the old array is done with: *old is to be
 * retired then. */
bool index_step(struct index *index, struct index_array **old);
bool index_wants_array(const struct index *index);
bool index_is_stuck(const struct index *index); /* nothing can be inserted before it has one */
/* How many buckets the array that is wanted should have, and their bytes. */
size_t index_next_size(const struct index *index);
size_t index_array_bytes(size_t buckets);
size_t index_slab_bytes(void); /* that an insertion may take besides */
/* Zeroed; not under the lock: it may be large. Not charged. NULL: no memory. */
struct index_array *index_array_new(const struct mem *mem, size_t buckets);
/* Begins to grow into the array; false if it is too late: the array is the caller's to free. */
bool index_grow(struct index *index, struct index_array *array);
/* Nobody will bring an array for a while. */
void index_grow_later(struct index *index);
void index_array_free(
    struct index_array *array); /* arrays and slabs, no entries; refunds nothing */
/* Bytes of an array with its slabs, as the budget counts them. */
size_t index_array_charge(const struct index_array *array);

/* The same of all arrays that readers may be in. */
size_t index_charge(const struct index *index);

/* Publishes the empty array and returns what was there (and, by ->next, what it was growing into);
 * NULL if there was nothing. */
struct index_array *index_empty(struct index *index);

/* Takes up to max entries out of a replaced array that nobody reads; 0: it is empty. */
unsigned index_array_take(struct index_array *array, struct entry **entries, unsigned max);

/* True if every invariant holds; else says on why (may be NULL) what is broken. */
bool index_check(const struct index *index, FILE *why);

#endif
