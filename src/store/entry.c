/* store/entry -- see entry.h. */
#include "store/entry.h"

#include "base/clock.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

static_assert(sizeof(struct entry) == 24 && sizeof(struct entry_cold) == 48 &&
                  sizeof(struct entry_rare) == 72,
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

static unsigned marks_at(const struct home *home)
{
    return home->queues ? ENTRY_QUEUED : 0;
}

/* Bytes of a block up to the value. */
static size_t bytes_before_value(const struct home *home, unsigned marks, size_t key_len)
{
    return entry_front(home->id, marks) + sizeof(struct entry) + entry_key_room(key_len);
}

static struct entry *place(struct home *home, unsigned marks, char *block)
{
    if ((uint64_t)(uintptr_t)block >> ENTRY_POINTER_BITS) {
        mem_free(&home->mem, block);
        return NULL;
    }
    size_t front = entry_front(home->id, marks);
    memset(block, 0, front + sizeof(struct entry));
    if (home->id == HOME_FAR)
        memcpy(block, &home, sizeof(struct home *));
    struct entry *entry = (struct entry *)(block + front);
    atomic_init(&entry->head.refs, 1);
    atomic_init(&entry->head.marks, (uint8_t)marks);
    entry->head.home = home->id;
    return entry;
}

struct entry *entry_new_marked(struct home *home, unsigned marks, const void *key, size_t key_len,
                               size_t value_size)
{
    size_t size;
    marks |= marks_at(home);
    if (value_size > ENTRY_MAX_VALUE ||
        !size_add(bytes_before_value(home, marks, key_len), value_size, &size))
        return NULL;
    char *block = mem_alloc(&home->mem, size);
    struct entry *entry = block ? place(home, marks, block) : NULL;
    if (!entry)
        return NULL;
    entry->head.key_len = (uint16_t)key_len;
    entry->value_size = (uint32_t)value_size;
    if (key_len)
        memcpy(entry->bytes, key, key_len);
    return entry;
}

struct entry *entry_new_wrapping_marked(struct home *home, unsigned marks, const void *key,
                                        size_t key_len, aside_value *value)
{
    struct entry *entry =
        entry_new_marked(home, marks | ENTRY_WRAPS, key, key_len, sizeof(aside_value *));
    if (!entry)
        return NULL;
    aside_value_ref(value);
    memcpy(entry->bytes + entry_value_offset(entry), &value, sizeof(aside_value *));
    return entry;
}

bool entry_charge_of(const struct home *home, size_t key_len, size_t value_size, size_t *charge)
{
    size_t size;
    if (!size_add(bytes_before_value(home, marks_at(home), key_len), value_size, &size) ||
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
size_t entry_charge_of_special(const struct entry *entry, size_t own)
{
    const struct entry_rare *rare = entry_rare(entry);
    size_t sum = rare ? own + tags_charge(rare->tags) : own;
    if (!entry_wraps(entry))
        return sum;
    return size_add(value_cost(entry_wrapped(entry)), sum, &sum) ? sum & ~(size_t)15 : SIZE_MAX;
}

/* ---- its life -------------------------------------------------------------------------------- */

static int64_t after(int64_t at_ns, int64_t for_ns)
{
    int64_t sum;
    return __builtin_add_overflow(at_ns, for_ns, &sum) ? CLOCK_NEVER : sum;
}

/* Until when a hit need not look further. */
static int64_t simply_until(const struct entry *entry, const struct entry_rare *rare,
                            int64_t expires_ns)
{
    int64_t early_for_ns = load_relaxed(&rare->early_for_ns);
    if (rare->tags || entry_is_absent(entry) || early_for_ns >= expires_ns)
        return 0;
    return expires_ns == CLOCK_NEVER ? CLOCK_NEVER : expires_ns - early_for_ns;
}

void entry_move_life(struct entry *entry, int64_t expires_ns)
{
    struct entry_rare *rare = entry_rare(entry);
    int64_t until_ns = expires_ns, serve_until_ns = expires_ns;
    if (rare) {
        until_ns = simply_until(entry, rare, expires_ns);
        serve_until_ns = after(expires_ns, load_relaxed(&rare->serve_for_ns));
        store_relaxed(&rare->claimed_until_ns, 0);
        store_release(&rare->expires_ns, expires_ns);
    }
    store_relaxed(&entry_cold(entry)->serve_until_ns, serve_until_ns);
    store_release(&entry->fresh_until_ns, until_ns);
}

static void set_ttl(struct entry_rare *rare, int64_t ttl_ns)
{
    int64_t ttl_ms = ttl_ns / 1000000;
    store_relaxed(&rare->ttl_ms, ttl_ms < ENTRY_LONG_TTL ? (uint32_t)ttl_ms : ENTRY_LONG_TTL);
}

/* What is a share of the ttl grows with it, and what is not need not shrink: who looks too early sees no
 * more than that. */
static int64_t early_for(const struct entry_rare *rare, int64_t ttl_ns)
{
    uint32_t old_ms = load_relaxed(&rare->ttl_ms);
    int64_t early_ns = load_relaxed(&rare->early_for_ns);
    if (old_ms == ENTRY_LONG_TTL)
        return INT64_MAX;
    double scaled = (double)early_ns * ((double)ttl_ns / ((double)old_ms * 1e6));
    return scaled <= (double)early_ns ? early_ns : scaled < 9e18 ? (int64_t)scaled + 1 : INT64_MAX;
}

void entry_prolong_life(struct entry *entry, int64_t now_ns, int64_t expires_ns)
{
    struct entry_rare *rare = entry_rare(entry);
    if (rare && expires_ns != CLOCK_NEVER) {
        if (load_relaxed(&rare->early_for_ns) || load_relaxed(&rare->ttl_ms) == ENTRY_LONG_TTL)
            store_relaxed(&rare->early_for_ns, early_for(rare, expires_ns - now_ns));
        set_ttl(rare, expires_ns - now_ns);
    }
    entry_move_life(entry, expires_ns);
}

void entry_set_life(struct entry *entry, const struct entry_life *life)
{
    struct entry_rare *rare = entry_rare(entry);
    store_relaxed(&entry_cold(entry)->birth, entry_birth(life->now_ns, life->fetch_ns));
    if (rare) {
        store_relaxed(&rare->early_for_ns, life->early_for_ns);
        store_relaxed(&rare->stale_for_ns, life->stale_for_ns);
        store_relaxed(&rare->serve_for_ns, life->serve_for_ns);
        store_relaxed(&rare->failure, 0);
        store_relaxed(&rare->failures, 0);
        set_ttl(rare, life->expires_ns - life->now_ns);
    }
    entry_move_life(entry, life->expires_ns);
}

bool entry_is_fresh_after_all(const struct entry *entry, int64_t now_ns)
{
    const struct entry_rare *rare = entry_rare(entry);
    return rare && now_ns < load_relaxed(&rare->expires_ns) && !entry_is_absent(entry) &&
           entry_has_valid_tags(entry);
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

/* The tags are the cache's: they go as long as that is there. */
static void drop_tags(struct entry *entry)
{
    struct entry_rare *rare = entry_rare(entry);
    if (likely(!rare))
        return;
    tags_drop(rare->tags);
    rare->tags = NULL;
}

void entry_discard(struct entry *entry)
{
    struct home *home = home_of(entry);
    drop_tags(entry);
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
    drop_tags(entry);
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
