/* store/entry -- see entry.h. */
#include "store/entry.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

static_assert(sizeof(struct entry) == 24 && sizeof(struct entry_cold) == 48,
              "the layout of an entry is part of what an entry costs");
static_assert(offsetof(struct entry, head) == 0 && offsetof(struct lone_value, head) == 0,
              "both forms of a handle begin with it");

static bool is_lone(const aside_value *value)
{
    return load_relaxed(&value->marks) & ENTRY_LONE;
}

/* What a value counts for that stands alone, with what malloc() takes. */
static size_t cost_of(size_t size)
{
    size_t cost;
    return size_add(size, sizeof(struct lone_value) + 24, &cost) ? cost : SIZE_MAX;
}

static char *block_of(const struct entry *entry)
{
    return (char *)(uintptr_t)entry - entry_front_of(entry);
}

static struct home *home_of(const struct entry *entry)
{
    if (entry->head.home != HOME_FAR)
        return home_near(entry->head.home);
    struct home *home;
    memcpy(&home, block_of(entry), sizeof home);
    return home;
}

/* ---- making ---------------------------------------------------------------------------------- */

/* Bytes of a block up to the value. */
static size_t bytes_before_value(const struct home *home, size_t key_len)
{
    return entry_front(home->id, home->queues) + sizeof(struct entry) + entry_key_room(key_len);
}

static struct entry *place(struct home *home, char *block)
{
    if ((uint64_t)(uintptr_t)block >> ENTRY_POINTER_BITS) {
        mem_free(&home->mem, block);
        return NULL;
    }
    size_t front = entry_front(home->id, home->queues);
    memset(block, 0, front + sizeof(struct entry));
    if (home->id == HOME_FAR)
        memcpy(block, &home, sizeof(struct home *));
    struct entry *entry = (struct entry *)(block + front);
    atomic_init(&entry->head.refs, 1);
    atomic_init(&entry->head.marks, home->queues ? ENTRY_QUEUED : 0);
    entry->head.home = home->id;
    return entry;
}

struct entry *entry_new(struct home *home, const void *key, size_t key_len, size_t value_size)
{
    size_t size;
    if (value_size > ENTRY_MAX_VALUE ||
        !size_add(bytes_before_value(home, key_len), value_size, &size))
        return NULL;
    char *block = mem_alloc(&home->mem, size);
    struct entry *entry = block ? place(home, block) : NULL;
    if (!entry)
        return NULL;
    entry->head.key_len = (uint16_t)key_len;
    entry->value_size = (uint32_t)value_size;
    if (key_len)
        memcpy(entry->bytes, key, key_len);
    return entry;
}

struct entry *entry_new_wrapping(struct home *home, const void *key, size_t key_len,
                                 aside_value *value)
{
    struct entry *entry = entry_new(home, key, key_len, sizeof(aside_value *));
    if (!entry)
        return NULL;
    uint8_t marks = load_relaxed(&entry->head.marks);
    atomic_init(&entry->head.marks, (uint8_t)(marks | ENTRY_WRAPS));
    aside_value_ref(value);
    memcpy(entry->bytes + entry_value_offset(entry), &value, sizeof(aside_value *));
    return entry;
}

bool entry_charge_of(const struct home *home, size_t key_len, size_t value_size, size_t *charge)
{
    size_t size;
    if (!size_add(bytes_before_value(home, key_len), value_size, &size) ||
        !size_add(size, 32, charge))
        return false;
    *charge = mem_charge(size);
    return true;
}

/* Of a value that an entry wraps. */
static size_t value_cost(const aside_value *value)
{
    return is_lone(value) ? ((const struct lone_value *)value)->cost
                          : cost_of(aside_value_size(value));
}

/* A wrapped size is the user's word: it may be any number. */
size_t entry_charge_wrapping(const struct entry *entry, size_t own)
{
    size_t sum;
    return size_add(value_cost(entry_wrapped(entry)), own, &sum) ? sum & ~(size_t)15 : SIZE_MAX;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void lone_value_free(struct lone_value *value)
{
    if (value->free_fn) {
        int before;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
        value->free_fn(value->data, value->ctx);
        pthread_setcancelstate(before, NULL);
    }
    free(value);
}

void entry_discard(struct entry *entry)
{
    struct home *home = home_of(entry);
    aside_value *wrapped = entry_wraps(entry) ? entry_wrapped(entry) : NULL;
    mem_free(&home->mem, block_of(entry));
    aside_value_unref(wrapped);
}

static void free_pinned(struct entry *entry)
{
    struct home *home = home_of(entry);
    size_t charge = entry_charge(entry);
    entry_discard(entry);
    home_unpin(home, charge);
}

void entry_pin(struct entry *entry)
{
    home_pin(home_of(entry), entry_charge(entry));
}

void entry_drop(struct entry *entry)
{
    /* Nobody can reach the entry any more: a count of 1 is the index's own and stays so. */
    if (load_acquire(&entry->head.refs) == 1) {
        entry_discard(entry);
        return;
    }
    entry_pin(entry);
    if (fetch_sub_acq_rel(&entry->head.refs, 1) == 1)
        free_pinned(entry);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* extra: bytes that follow the head, for a value that is one block with its copy. */
static struct lone_value *lone_value_new(size_t extra, size_t size)
{
    size_t whole;
    struct lone_value *value = NULL;
    if (size_add(sizeof *value, extra, &whole) && whole <= PTRDIFF_MAX)
        value = malloc(whole);
    if (!value)
        return NULL;
    memset((void *)value, 0, sizeof *value);
    atomic_init(&value->head.refs, 1);
    atomic_init(&value->head.marks, ENTRY_LONE);
    value->size = size;
    value->cost = cost_of(size);
    return value;
}

aside_status aside_value_copy(const void *data, size_t size, aside_value **value)
{
    if (value)
        *value = NULL;
    if (!value || (!data && size))
        return ASIDE_E_INVALID;
    struct lone_value *copy = lone_value_new(size, size);
    if (!copy)
        return ASIDE_E_NOMEM;
    copy->data = copy + 1;
    if (size)
        memcpy(copy->data, data, size);
    *value = &copy->head;
    return ASIDE_OK;
}

aside_status aside_value_wrap(void *ptr, size_t size, void (*free_fn)(void *ptr, void *ctx),
                              void *ctx, aside_value **value)
{
    if (value)
        *value = NULL;
    if (!value || (!ptr && size))
        return ASIDE_E_INVALID;
    struct lone_value *wrapped = lone_value_new(0, size);
    if (!wrapped)
        return ASIDE_E_NOMEM;
    wrapped->data = ptr;
    wrapped->free_fn = free_fn;
    wrapped->ctx = ctx;
    *value = &wrapped->head;
    return ASIDE_OK;
}

aside_status aside_value_set_cost(aside_value *value, size_t cost)
{
    if (!value || !is_lone(value) || load_acquire(&value->refs) != 1)
        return ASIDE_E_INVALID;
    ((struct lone_value *)value)->cost = cost_of(cost);
    return ASIDE_OK;
}

aside_value *aside_value_ref(aside_value *value)
{
    if (value)
        fetch_add_relaxed(&value->refs, 1);
    return value;
}

static void OUT_OF_LINE free_value(aside_value *value)
{
    if (is_lone(value))
        lone_value_free((struct lone_value *)value);
    else
        free_pinned((struct entry *)value);
}

void aside_value_unref(aside_value *value)
{
    if (value && fetch_sub_acq_rel(&value->refs, 1) == 1)
        free_value(value);
}

const void *aside_value_data(const aside_value *value)
{
    if (!value)
        return NULL;
    if (is_lone(value))
        return ((const struct lone_value *)value)->data;
    return entry_data((const struct entry *)value);
}

size_t aside_value_size(const aside_value *value)
{
    if (!value)
        return 0;
    if (is_lone(value))
        return ((const struct lone_value *)value)->size;
    return entry_size((const struct entry *)value);
}
