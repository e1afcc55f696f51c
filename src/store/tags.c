/* store/tags -- see tags.h. */
#include "store/tags.h"

#include "base/check.h"
#include "base/fork.h"
#include "base/siphash.h"

#include <assert.h>
#include <string.h>

static_assert((TAGS_FLOORS & (TAGS_FLOORS - 1)) == 0, "a slot is some bits of the hash");

/* ---- making ---------------------------------------------------------------------------------- */

static uint32_t floors_for(size_t max_bytes)
{
    uint32_t floors = TAGS_FLOORS;
    while (floors > 1 && floors * sizeof(uint64_t) > max_bytes / 64)
        floors /= 2;
    return floors;
}

void tags_init(struct tags *tags, const struct mem *mem, struct budget *budget,
               const uint8_t key[16])
{
    *tags = (struct tags){.mem = mem, .budget = budget};
    memcpy(tags->key, key, sizeof tags->key);
    tags->floor_mask = floors_for(budget->max_bytes) - 1;
    atomic_init(&tags->now, 0);
    lock_init(&tags->lock, RANK_TAGS);
    table_init(&tags->table, mem);
}

static bool reserve(struct tags *tags, size_t charge) REQUIRES(tags->lock)
{
    bool fits = budget_reserve_lasting(tags->budget, charge);
    tags->lasting += fits ? charge : 0;
    return fits;
}

static void refund(struct tags *tags, size_t charge) REQUIRES(tags->lock)
{
    budget_refund_lasting(tags->budget, charge);
    tags->lasting -= charge;
}

size_t tags_lasting(struct tags *tags)
{
    lock_take(&tags->lock);
    size_t lasting = tags->lasting;
    lock_release(&tags->lock);
    return lasting;
}

/* ---- floors ---------------------------------------------------------------------------------- */

static size_t floors_size(const struct tags *tags)
{
    return (tags->floor_mask + (size_t)1) * sizeof tags->floors[0];
}

/* Later is as good: until then one floor stands for all. */
static void make_floors(struct tags *tags) REQUIRES(tags->lock)
{
    size_t size = floors_size(tags);
    if (tags->floors || !reserve(tags, mem_charge(size)))
        return;
    tags->floors = mem_zalloc(tags->mem, size);
    if (!tags->floors)
        refund(tags, mem_charge(size));
}

static void raise_floor(struct tags *tags, uint32_t slot, uint64_t at) REQUIRES(tags->lock)
{
    uint64_t *floor = tags->floors ? &tags->floors[slot] : &tags->floor_of_all;
    if (*floor < at)
        *floor = at;
}

static uint64_t floor_at(const struct tags *tags, uint32_t slot) REQUIRES(tags->lock)
{
    uint64_t floor = tags->floors ? tags->floors[slot] : 0;
    return floor > tags->floor_of_all ? floor : tags->floor_of_all;
}

/* In the child of a fork what threads hold that are not there is lost, the tags of their sets as well. */
void tags_fini(struct tags *tags)
{
    invariant(table_is_empty(&tags->table) || fork_generation());
    lock_take(&tags->lock);
    table_fini(&tags->table);
    if (tags->floors)
        refund(tags, mem_charge(floors_size(tags)));
    mem_free(tags->mem, tags->floors);
    invariant(tags->lasting == 0 || fork_generation());
    lock_release(&tags->lock);
    lock_fini(&tags->lock);
}

/* ---- tags ------------------------------------------------------------------------------------ */

/* What tells one tag from another. */
struct tag_name {
    const void *bytes;
    uint32_t length;
    uint64_t hash;
};

static struct tag_name name_of(const struct tags *tags, const void *bytes, size_t length)
{
    invariant(length <= ASIDE_MAX_TAG);
    return (struct tag_name){bytes, (uint32_t)length, siphash(tags->key, bytes, length)};
}

/* The table looks at other bits. */
static uint32_t slot_of(const struct tags *tags, const struct tag_name *name)
{
    return (uint32_t)name->hash & tags->floor_mask;
}

static struct tag *find(const struct tags *tags, const struct tag_name *name) REQUIRES(tags->lock)
{
    struct table_node *node = table_find(&tags->table, name->bytes, name->length, name->hash);
    return node ? container_of(node, struct tag, node) : NULL;
}

static void fill(struct tag *tag, const struct tag_name *name, uint32_t slot, uint64_t at)
{
    atomic_init(&tag->refs, 1);
    atomic_init(&tag->at, at);
    tag->slot = slot;
    tag->length = name->length;
    if (name->length)
        memcpy(tag->name, name->bytes, name->length);
}

static struct tag *make(struct tags *tags, const struct tag_name *name) REQUIRES(tags->lock)
{
    struct tag *tag = mem_alloc(tags->mem, sizeof *tag + name->length);
    if (!tag)
        return NULL;
    uint32_t slot = slot_of(tags, name);
    fill(tag, name, slot, floor_at(tags, slot));
    if (table_add(&tags->table, &tag->node, tag->name, tag->length, name->hash))
        return tag;
    mem_free(tags->mem, tag);
    return NULL;
}

/* One that nobody has yet. */
static aside_status add(struct tags *tags, const struct tag_name *name, struct tag **tag)
    REQUIRES(tags->lock)
{
    if (!reserve(tags, tag_charge(name->length)))
        return ASIDE_E_BUSY;
    *tag = make(tags, name);
    if (!*tag) {
        refund(tags, tag_charge(name->length));
        return ASIDE_E_NOMEM;
    }
    make_floors(tags);
    return ASIDE_OK;
}

static aside_status ref(struct tags *tags, const struct tag_name *name, struct tag **tag)
{
    aside_status status = ASIDE_OK;
    lock_take(&tags->lock);
    *tag = find(tags, name);
    if (*tag)
        fetch_add_relaxed(&(*tag)->refs, 1);
    else
        status = add(tags, name, tag);
    lock_release(&tags->lock);
    return status;
}

static void leave(struct tags *tags, struct tag *tag) REQUIRES(tags->lock)
{
    table_remove(&tags->table, &tag->node);
    raise_floor(tags, tag->slot, load_relaxed(&tag->at));
    refund(tags, tag_charge(tag->length));
}

static void unref(struct tags *tags, struct tag *tag)
{
    uint64_t refs = load_relaxed(&tag->refs);
    while (refs > 1)
        if (compare_swap(&tag->refs, &refs, refs - 1))
            return;
    lock_take(&tags->lock);
    bool last = fetch_sub_acq_rel(&tag->refs, 1) == 1;
    if (last)
        leave(tags, tag);
    lock_release(&tags->lock);
    if (last)
        mem_free(tags->mem, tag);
}

aside_status tags_invalidate(struct tags *tags, const void *name, size_t length)
{
    struct tag_name its_name = name_of(tags, name, length);
    lock_take(&tags->lock);
    make_floors(tags);
    struct tag *tag = find(tags, &its_name);
    uint64_t now = load_relaxed(&tags->now) + 1;
    store_release(&tags->now, now);
    if (tag)
        store_release(&tag->at, now);
    else
        raise_floor(tags, slot_of(tags, &its_name), now);
    lock_release(&tags->lock);
    return tag ? ASIDE_OK : ASIDE_MISS;
}

/* ---- sets ------------------------------------------------------------------------------------ */

static bool has(const struct tag_set *set, const void *name, size_t length)
{
    for (uint32_t i = 0; set && i < set->count; i++) {
        const struct tag *tag = set->tag[i];
        if (tag->length == length && (!length || memcmp(tag->name, name, length) == 0))
            return true;
    }
    return false;
}

/* One more than twice as much: with what malloc() takes for itself an odd number fills a block. */
static bool make_room(struct tags *tags, struct tag_set **set)
{
    struct tag_set *old = *set;
    if (old && old->count < old->room)
        return true;
    uint32_t room = old ? 2 * old->room + 1 : 1;
    room = room < ASIDE_MAX_TAGS ? room : ASIDE_MAX_TAGS;
    struct tag_set *grown = mem_alloc(tags->mem, sizeof *grown + room * sizeof grown->tag[0]);
    if (!grown)
        return false;
    *grown = (struct tag_set){tags, old ? old->count : 0, room};
    if (old)
        memcpy(grown->tag, old->tag, old->count * sizeof old->tag[0]);
    mem_free(tags->mem, old);
    *set = grown;
    return true;
}

aside_status tags_add(struct tags *tags, struct tag_set **set, const void *name, size_t length)
{
    if (has(*set, name, length))
        return ASIDE_OK;
    if (tags_is_full(*set))
        return ASIDE_E_BUSY;
    struct tag *tag;
    struct tag_name its_name = name_of(tags, name, length);
    aside_status status = ref(tags, &its_name, &tag);
    if (status != ASIDE_OK)
        return status;
    if (!make_room(tags, set)) {
        unref(tags, tag);
        return ASIDE_E_NOMEM;
    }
    (*set)->tag[(*set)->count++] = tag;
    return ASIDE_OK;
}

void tags_drop(struct tag_set *set)
{
    if (!set)
        return;
    struct tags *tags = set->tags;
    for (uint32_t i = 0; i < set->count; i++)
        unref(tags, set->tag[i]);
    mem_free(tags->mem, set);
}
