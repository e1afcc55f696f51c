/* store/index -- see index.h. */
#include "store/index.h"

#define FIRST_BUCKETS 8
#define GROW_LOAD 5     /* entries a bucket at which the array is doubled */
#define MOST_LOAD 20    /* beyond that nothing is inserted before the array has grown */
#define STEP_BUCKETS 2  /* moved by each write */
#define STEP_ENTRIES 12 /* after which a step ends early */
#define SLAB_BUCKETS 7

struct index_slab {
    _Alignas(64) struct index_slab *next;
    void *block;
    unsigned used;
    _Alignas(64) struct index_bucket buckets[SLAB_BUCKETS];
};

/* A writable object that nobody writes: readers meet it like any other. */
static struct {
    struct index_array array;
    struct index_bucket bucket;
} nothing;

_Static_assert(sizeof(struct index_bucket) == 64, "a bucket is one line");
_Static_assert(sizeof(struct index_array) % 64 == 0, "and begins with one");

#define index_nothing_array (&nothing.array)

static uint64_t word_of(uint64_t hash, const struct entry *entry)
{
    return hash >> INDEX_TAG_SHIFT << INDEX_TAG_SHIFT | (uint64_t)(uintptr_t)entry;
}

static uint64_t hash_of(const struct index *index, const struct entry *entry)
{
    return hash_bytes(index->seed, entry->bytes, entry->head.key_len);
}

static void publish(struct index *index, struct index_array *array)
{
    store_relaxed(&index->buckets, (uintptr_t)(array + 1));
    store_relaxed(&index->mask, array->mask);
    store_release(&index->array, array);
}

void index_init(struct index *index, const struct mem *mem, const struct hash_seed *seed,
                struct budget *budget)
{
    index->mem = mem;
    index->seed = seed;
    index->budget = budget;
    index->count = 0;
    index->grow_at = 0;
    publish(index, index_nothing_array);
}

/* ---- arrays ---------------------------------------------------------------------------------- */

static size_t array_size(size_t buckets)
{
    return sizeof(struct index_array) + buckets * sizeof(struct index_bucket);
}

size_t index_array_bytes(size_t buckets)
{
    return mem_charge(array_size(buckets) + CACHE_LINE);
}

struct index_array *index_array_new(const struct mem *mem, size_t buckets)
{
    void *block;
    if (buckets > SIZE_MAX / 2 / sizeof(struct index_bucket))
        return NULL;
    struct index_array *array = mem_zalloc_lines(mem, array_size(buckets), &block);
    if (!array)
        return NULL;
    array->mask = buckets - 1;
    array->mem = mem;
    array->block = block;
    array->bytes = index_array_bytes(buckets);
    return array;
}

size_t index_array_charge(const struct index_array *array)
{
    return array->bytes + array->slab_bytes;
}

static struct index_array *array_of(const struct index *index)
{
    return load_relaxed(&index->array);
}

static struct index_array *next_of(const struct index_array *array)
{
    return load_relaxed(&array->next);
}

size_t index_charge(const struct index *index)
{
    size_t charge = 0;
    for (const struct index_array *a = array_of(index); a; a = next_of(a))
        charge += index_array_charge(a);
    return charge;
}

void index_array_free(struct index_array *array)
{
    struct index_slab *next;
    for (struct index_slab *slab = array->slabs; slab; slab = next) {
        next = slab->next;
        mem_free(array->mem, slab->block);
    }
    if (array->memory)
        mem_free(array->mem, array->memory);
    mem_free(array->mem, array->block);
}

size_t index_slab_bytes(void)
{
    return mem_charge(sizeof(struct index_slab) + CACHE_LINE);
}

static enum index_end add_slab(struct index *index, struct index_array *array)
{
    size_t charge = index_slab_bytes();
    if (!budget_reserve_lasting(index->budget, charge))
        return INDEX_NO_ROOM;
    void *block;
    struct index_slab *slab = mem_zalloc_lines(index->mem, sizeof *slab, &block);
    if (!slab) {
        budget_refund_lasting(index->budget, charge);
        return INDEX_NO_MEMORY;
    }
    slab->block = block;
    slab->next = array->slabs;
    array->slabs = slab;
    array->slab_bytes += charge;
    return INDEX_OK;
}

/* ---- chains ---------------------------------------------------------------------------------- */

/* The array in which this hash is written now, and its bucket there. */
static struct index_array *array_for(const struct index *index, uint64_t hash,
                                     struct index_bucket **bucket)
{
    struct index_array *array = array_of(index);
    *bucket = index_bucket_at(array, hash & array->mask);
    if (load_relaxed(&(*bucket)->link) & INDEX_FORWARD) {
        array = next_of(array);
        *bucket = index_bucket_at(array, hash & array->mask);
    }
    return array;
}

static struct index_bucket *next_bucket(const struct index_bucket *bucket)
{
    return (struct index_bucket *)(load_relaxed(&bucket->link) & ~INDEX_FORWARD);
}

_Atomic uint64_t *index_locate(struct index *index, uint64_t hash, const void *key, size_t key_len)
{
    struct index_bucket *bucket;
    array_for(index, hash, &bucket);
    for (; bucket; bucket = next_bucket(bucket)) {
        for (unsigned i = 0; i < INDEX_WORDS; i++) {
            uint64_t word = load_relaxed(&bucket->word[i]);
            if (index_word_is(word, hash, key, key_len))
                return &bucket->word[i];
        }
    }
    return NULL;
}

/* An empty word of the chain, lengthened by a bucket where there is none. */
static enum index_end empty_word(struct index *index, struct index_array *array,
                                 struct index_bucket *bucket, uint64_t hash,
                                 _Atomic uint64_t **word)
{
    *word = &bucket->word[index_home(hash)];
    if (load_relaxed(*word) == 0)
        return INDEX_OK;
    for (;; bucket = next_bucket(bucket)) {
        for (unsigned i = 0; i < INDEX_WORDS; i++) {
            if (load_relaxed(&bucket->word[i]) == 0) {
                *word = &bucket->word[i];
                return INDEX_OK;
            }
        }
        if (!next_bucket(bucket))
            break;
    }
    if (!array->slabs || array->slabs->used == SLAB_BUCKETS) {
        enum index_end end = add_slab(index, array);
        if (end != INDEX_OK)
            return end;
    }
    struct index_bucket *more = &array->slabs->buckets[array->slabs->used++];
    store_release(&bucket->link, (uintptr_t)more);
    *word = &more->word[0];
    return INDEX_OK;
}

bool index_is_stuck(const struct index *index)
{
    const struct index_array *array = array_of(index);
    if (array == index_nothing_array)
        return true;
    return !next_of(array) && index->count >= MOST_LOAD * (array->mask + 1);
}

enum index_end index_insert(struct index *index, uint64_t hash, struct entry *entry)
{
    if (index_is_stuck(index))
        return INDEX_NO_ARRAY;
    struct index_bucket *bucket;
    struct index_array *array = array_for(index, hash, &bucket);
    _Atomic uint64_t *word;
    enum index_end end = empty_word(index, array, bucket, hash, &word);
    if (end != INDEX_OK)
        return end;
    store_release(word, word_of(hash, entry));
    index->count++;
    return INDEX_OK;
}

void index_replace(_Atomic uint64_t *word, uint64_t hash, struct entry *entry)
{
    exchange_acq_rel(word, word_of(hash, entry));
}

void index_remove(struct index *index, _Atomic uint64_t *word)
{
    exchange_acq_rel(word, 0);
    index->count--;
}

/* ---- growth ---------------------------------------------------------------------------------- */

bool index_wants_array(const struct index *index)
{
    return index->count >= index->grow_at && !next_of(array_of(index));
}

size_t index_next_size(const struct index *index)
{
    const struct index_array *array = array_of(index);
    return array == index_nothing_array ? FIRST_BUCKETS : 2 * (array->mask + 1);
}

void index_grow_later(struct index *index)
{
    if (!index_wants_array(index))
        return;
    index->grow_at = index->count + index->count / 4 + GROW_LOAD;
}

bool index_grow(struct index *index, struct index_array *array)
{
    struct index_array *old = array_of(index);
    if (next_of(old) || array->mask + 1 != index_next_size(index))
        return false;
    index->grow_at = GROW_LOAD * (array->mask + 1);
    if (old == index_nothing_array)
        publish(index, array);
    else
        store_release(&old->next, array);
    return true;
}

/* The two chains that a moved bucket goes to are nobody else's yet: emptying them undoes a move. */
static void undo_move(struct index_array *to, size_t at)
{
    for (struct index_bucket *b = index_bucket_at(to, at); b; b = next_bucket(b))
        for (unsigned i = 0; i < INDEX_WORDS; i++)
            store_relaxed(&b->word[i], 0);
}

/* *touched: the entries moved. MOST_LOAD keeps a chain far shorter than a lock hold may touch. */
static bool move_bucket(struct index *index, struct index_array *from, struct index_array *to,
                        size_t at, size_t *touched)
{
    for (struct index_bucket *b = index_bucket_at(from, at); b; b = next_bucket(b)) {
        for (unsigned i = 0; i < INDEX_WORDS; i++) {
            struct entry *entry = index_entry(load_relaxed(&b->word[i]));
            if (!entry)
                continue;
            ++*touched;
            uint64_t hash = hash_of(index, entry);
            _Atomic uint64_t *word;
            if (empty_word(index, to, index_bucket_at(to, hash & to->mask), hash, &word) !=
                INDEX_OK) {
                undo_move(to, at);
                undo_move(to, at + from->mask + 1);
                return false;
            }
            store_release(word, word_of(hash, entry));
        }
    }
    uintptr_t link = load_relaxed(&index_bucket_at(from, at)->link);
    store_release(&index_bucket_at(from, at)->link, link | INDEX_FORWARD);
    return true;
}

bool index_step(struct index *index, struct index_array **old)
{
    struct index_array *from = array_of(index);
    struct index_array *to = next_of(from);
    if (!to)
        return false;
    size_t touched = 0;
    for (unsigned i = 0; i < STEP_BUCKETS && touched < STEP_ENTRIES && from->moved <= from->mask;
         i++) {
        if (!move_bucket(index, from, to, from->moved, &touched))
            break;
        from->moved++;
    }
    lock_touch(touched);
    if (from->moved <= from->mask)
        return false;
    publish(index, to);
    *old = from;
    return true;
}

struct index_array *index_empty(struct index *index)
{
    struct index_array *old = array_of(index);
    publish(index, index_nothing_array);
    index->count = 0;
    index->grow_at = 0;
    return old == index_nothing_array ? NULL : old;
}

/* ---- dismantling ------------------------------------------------------------------------------ */

static unsigned take(struct index_bucket *bucket, struct entry **entries, unsigned max)
{
    unsigned n = 0;
    for (; bucket; bucket = next_bucket(bucket)) {
        for (unsigned i = 0; i < INDEX_WORDS && n < max; i++) {
            struct entry *entry = index_entry(load_relaxed(&bucket->word[i]));
            if (!entry)
                continue;
            store_relaxed(&bucket->word[i], 0);
            entries[n++] = entry;
        }
    }
    return n;
}

unsigned index_array_take(struct index_array *array, struct entry **entries, unsigned max)
{
    unsigned n = 0;
    while (array->doomed_at <= array->mask) {
        struct index_bucket *bucket = index_bucket_at(array, array->doomed_at);
        if (!(load_relaxed(&bucket->link) & INDEX_FORWARD))
            n += take(bucket, entries + n, max - n);
        if (n == max)
            return n;
        array->doomed_at++;
    }
    return n;
}

/* ---- invariants ------------------------------------------------------------------------------ */

static size_t count_chain(const struct index *index, const struct index_array *array, size_t at,
                          FILE *why, bool *sound)
{
    size_t count = 0;
    for (const struct index_bucket *b = index_bucket_at(array, at); b; b = next_bucket(b)) {
        for (unsigned i = 0; i < INDEX_WORDS; i++) {
            uint64_t word = load_relaxed(&b->word[i]);
            if (!index_entry(word))
                continue;
            count++;
            uint64_t hash = hash_of(index, index_entry(word));
            if ((hash & array->mask) == at && hash >> INDEX_TAG_SHIFT == word >> INDEX_TAG_SHIFT)
                continue;
            *sound = false;
            if (why)
                fprintf(why, "index: an entry in bucket %zu belongs elsewhere\n", at);
        }
    }
    return count;
}

bool index_check(const struct index *index, FILE *why)
{
    bool sound = true;
    size_t count = 0;
    for (const struct index_array *array = array_of(index); array; array = next_of(array))
        for (size_t at = 0; at <= array->mask; at++)
            if (!(load_relaxed(&index_bucket_at(array, at)->link) & INDEX_FORWARD))
                count += count_chain(index, array, at, why, &sound);
    if (count == index->count)
        return sound;
    if (why)
        fprintf(why, "index: %zu entries linked, %zu counted\n", count, index->count);
    return false;
}
