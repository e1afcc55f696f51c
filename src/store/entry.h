/*
 * store/entry -- a key with its value: counted, and immutable once a reader can reach it.
 *
 * Two forms: the value's bytes inside, or a reference to a value that exists already. A handle
 * (aside_value *) is the entry itself in the first case and that value in the second: a lone
 * value, made by aside_value_copy or _wrap, or an entry again, of this cache or another.
 *
 *   entry:      rare, 72 or 0 bytes | cold, 48 or 32 | 24 bytes | key, padded to 8 | value's bytes,
 *                                                                               or an aside_value *
 *
 * What hits read lies together, and a pointer to an entry points there; what only writers need lies in
 * front of it. The queue's links come first: where nothing is evicted an entry does without them. What
 * few entries have lies in front of that: whatever is not simply fresh until an instant and gone after
 * it. A hit tests one word (fresh_until_ns), which is 0, or too early, in all such entries; whoever finds
 * it so looks at the rest.
 *
 * Life of the count: the index holds one reference until the grace period after unlinking is over
 * (entry_drop), so a reader inside its epoch never meets 0 and may simply add. An entry that
 * leaves the index while handles keep it is counted as pinned at its home.
 */
#ifndef ASIDE_STORE_ENTRY_H
#define ASIDE_STORE_ENTRY_H

#include "base/atomic.h"
#include "base/bytes.h"
#include "base/home.h"
#include "store/link.h"
#include "store/tags.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What marks say. Readers write heat only, together with the rest, which never changes. */
enum {
    ENTRY_HEAT = 0x03,
    ENTRY_ABSENT = 0x08, /* no value: it is remembered that there is none, or a failure */
    ENTRY_RARE = 0x10,   /* has a struct entry_rare */
    ENTRY_QUEUED = 0x20,
    ENTRY_LONE = 0x40,
    ENTRY_WRAPS = 0x80
};

/* What a handle points to: both forms begin with it. */
struct aside_value {
    _Atomic uint32_t refs;
    uint16_t key_len; /* immutable; 0 in a lone value */
    _Atomic uint8_t marks;
    uint8_t home; /* immutable; 0 in a lone value */
};

struct entry {
    struct aside_value head;
    _Atomic int64_t fresh_until_ns; /* the one word that a hit tests; 0: whatever is unusual */
    uint32_t value_size;            /* immutable; of the bytes inside, or of the pointer */
    uint32_t print; /* the policy's, as are the queues; guarded by the shard's lock */
    unsigned char bytes[];
};

/* In front of each entry; guarded by the shard's lock. */
struct entry_cold {
    /* only if the marks say ENTRY_QUEUED: of the policy, then of removals */
    struct entry_link queue;
    struct entry_link link;         /* of the wheel, then of limbo */
    _Atomic int64_t serve_until_ns; /* after that it is gone; the wheel's deadline */
    _Atomic uint64_t birth;         /* see entry_birth() */
};

/* In front of that, only if the marks say ENTRY_RARE. Written under the shard's lock, the claim by
 * readers too; read without it. */
struct entry_rare {
    _Atomic int64_t expires_ns;   /* the end of its ttl */
    _Atomic int64_t early_for_ns; /* so long before it a hit has to look further */
    _Atomic int64_t stale_for_ns; /* so long after it the value is served at once ... */
    _Atomic int64_t serve_for_ns; /* ... and so long, at least as long, where the source fails */
    _Atomic int64_t claimed_until_ns; /* until then nobody else begins to refresh it */
    _Atomic uint64_t failure;  /* what is remembered, or of the last refresh; else whose claim */
    _Atomic uint64_t read_at;  /* the tags' count before its value was read */
    _Atomic uint32_t failures; /* so many in a row */
    _Atomic uint32_t ttl_ms;   /* as it was given; ENTRY_LONG_TTL: that or longer */
    struct tag_set *tags;      /* immutable while it is linked; NULL: none */
};

#define ENTRY_LONG_TTL UINT32_MAX

/* When an entry was stored, and when it is what; of one that is not rare, the first three. */
struct entry_life {
    int64_t now_ns;
    int64_t fetch_ns; /* how long its fetch took */
    int64_t expires_ns;
    int64_t early_for_ns, stale_for_ns, serve_for_ns;
};

/* A value that stands alone: made by aside_value_copy or aside_value_wrap. */
struct lone_value {
    struct aside_value head;
    size_t size;
    size_t cost; /* what an entry counts for it; set while it has one reference */
    void *data;
    void (*free_fn)(void *ptr, void *ctx);
    void *ctx;
};

/* At the front of a block whose home has no byte of its own. 16 keeps the entry aligned. */
#define ENTRY_FAR_PREFIX 16
/* Bytes of an entry with neither key nor value. */
#define ENTRY_BARE (sizeof(struct entry_cold) + sizeof(struct entry))
#define ENTRY_MAX_VALUE UINT32_MAX
/* Room of a refused pointer: index words have 48 bits for it. */
#define ENTRY_POINTER_BITS 48

/* With one reference, not yet in an index. The value's bytes are not set. NULL: no memory. marks: 0,
 * ENTRY_RARE, or that with ENTRY_ABSENT. */
struct entry *entry_new_marked(struct home *home, unsigned marks, const void *key, size_t key_len,
                               size_t value_size);
static inline struct entry *entry_new(struct home *home, const void *key, size_t key_len,
                                      size_t value_size)
{
    return entry_new_marked(home, 0, key, key_len, value_size);
}
/* Takes its own reference to the value. marks: 0, or ENTRY_RARE. */
struct entry *entry_new_wrapping_marked(struct home *home, unsigned marks, const void *key,
                                        size_t key_len, aside_value *value);
static inline struct entry *entry_new_wrapping(struct home *home, const void *key, size_t key_len,
                                               aside_value *value)
{
    return entry_new_wrapping_marked(home, 0, key, key_len, value);
}
/* Frees an entry that nobody else knows. */
void entry_discard(struct entry *entry);
/* The index's reference is given back; the grace period is over. */
void entry_drop(struct entry *entry);
/* What was never in an index is from now on kept by handles alone. */
void entry_pin(struct entry *entry);

/* What an entry counts for that wraps a value, or has tags: its own charge, and theirs. */
size_t entry_charge_of_special(const struct entry *entry, size_t own) OUT_OF_LINE;
/* What an entry will count for, before there is one. False: it cannot be said in a size_t. */
bool entry_charge_of(const struct home *home, size_t key_len, size_t value_size, size_t *charge);

static inline struct entry_cold *entry_cold(const struct entry *entry)
{
    return (struct entry_cold *)(uintptr_t)entry - 1;
}

static inline struct entry *entry_of_cold(void *cold)
{
    return (struct entry *)((struct entry_cold *)cold + 1);
}

static inline struct entry *entry_of_link(struct entry_link *link)
{
    return entry_of_cold(container_of(link, struct entry_cold, link));
}

/* What a key takes up. */
static inline size_t entry_key_room(size_t key_len)
{
    return (key_len + 7) & ~(size_t)7;
}

static inline size_t entry_value_offset(const struct entry *entry)
{
    return entry_key_room(entry->head.key_len);
}

static inline bool entry_wraps(const struct entry *entry)
{
    return atomic_load_explicit(&entry->head.marks, memory_order_relaxed) & ENTRY_WRAPS;
}

static inline aside_value *entry_wrapped(const struct entry *entry)
{
    aside_value *value;
    memcpy(&value, entry->bytes + entry_value_offset(entry), sizeof value);
    return value;
}

static inline unsigned entry_marks(const struct entry *entry)
{
    return load_relaxed(&entry->head.marks);
}

/* Bytes of an entry in front of it, from what is cold on. */
static inline size_t entry_cold_size(unsigned marks)
{
    return sizeof(struct entry_cold) - (marks & ENTRY_QUEUED ? 0 : sizeof(struct entry_link));
}

/* Bytes of the block in front of the entry. */
static inline size_t entry_front(uint8_t home, unsigned marks)
{
    size_t front = entry_cold_size(marks);
    if (unlikely(marks & ENTRY_RARE))
        front += sizeof(struct entry_rare);
    return unlikely(home == HOME_FAR) ? front + ENTRY_FAR_PREFIX : front;
}

static inline size_t entry_front_of(const struct entry *entry)
{
    return entry_front(entry->head.home, entry_marks(entry));
}

/* NULL: it has none. */
static inline struct entry_rare *entry_rare(const struct entry *entry)
{
    unsigned marks = entry_marks(entry);
    if (likely(!(marks & ENTRY_RARE)))
        return NULL;
    return (struct entry_rare *)((uintptr_t)entry - entry_cold_size(marks)) - 1;
}

static inline bool entry_is_absent(const struct entry *entry)
{
    return entry_marks(entry) & ENTRY_ABSENT;
}

/* Bytes that the entry counts for in every bound, a wrapped value's included. */
static inline size_t entry_charge(const struct entry *entry)
{
    size_t own = mem_charge(entry_front_of(entry) + sizeof *entry + entry_value_offset(entry) +
                            entry->value_size);
    return unlikely(entry_marks(entry) & (ENTRY_WRAPS | ENTRY_RARE))
               ? entry_charge_of_special(entry, own)
               : own;
}

/* Of one whose key has this length. Whoever knows it does not wait for the entry to say so: where
 * the entry lies in no cache, its lines are fetched at the same time. */
static inline const void *entry_data_behind(const struct entry *entry, size_t key_len)
{
    return unlikely(entry_wraps(entry)) ? aside_value_data(entry_wrapped(entry))
                                        : entry->bytes + entry_key_room(key_len);
}

static inline const void *entry_data(const struct entry *entry)
{
    return entry_data_behind(entry, entry->head.key_len);
}

static inline size_t entry_size(const struct entry *entry)
{
    return unlikely(entry_wraps(entry)) ? aside_value_size(entry_wrapped(entry))
                                        : entry->value_size;
}

/* A handle to the bytes inside, for one who holds a reference or is inside the epoch. */
static inline aside_value *entry_own_handle(struct entry *entry)
{
    fetch_add_relaxed(&entry->head.refs, 1);
    return &entry->head;
}

/* The same of any entry. */
static inline aside_value *entry_handle(struct entry *entry)
{
    if (unlikely(entry_wraps(entry)))
        return aside_value_ref(entry_wrapped(entry));
    return entry_own_handle(entry);
}

/* The value is what handles of this entry point to. */
static inline bool entry_holds(const struct entry *entry, const aside_value *value)
{
    return value == (entry_wraps(entry) ? entry_wrapped(entry) : &entry->head);
}

/* Eight bytes at a time, the last of them overlapping: keys are short, and a call costs more than the
 * comparison. */
static inline bool entry_same_bytes(const unsigned char *a, const unsigned char *b, size_t length)
{
    size_t left = length;
    for (; left >= 8; left -= 8, a += 8, b += 8)
        if (bytes_load64(a) != bytes_load64(b))
            return false;
    if (left && length >= 8)
        return bytes_load64(a + left - 8) == bytes_load64(b + left - 8);
    for (; left; left--)
        if (*a++ != *b++)
            return false;
    return true;
}

/* Lengths and bytes, never the hash alone (O4). */
static inline bool entry_has_key(const struct entry *entry, const void *key, size_t key_len)
{
    return entry->head.key_len == key_len && entry_same_bytes(entry->bytes, key, key_len);
}

static inline bool entry_fresh(const struct entry *entry, int64_t now_ns)
{
    return now_ns < load_acquire(&entry->fresh_until_ns);
}

/*
 * When the value came to be, in milliseconds (40 bits, whatever the clock counts from), and how
 * long its fetch took, in units of 10 microseconds (24 bits, saturating at 167 s).
 */
#define ENTRY_MAX_AGE ((UINT64_C(1) << 40) - 1)

static inline uint64_t entry_birth(int64_t now_ns, int64_t fetch_ns)
{
    uint64_t took = (uint64_t)fetch_ns / 10000;
    return (uint64_t)now_ns / 1000000 << 24 | (took < 0xffffff ? took : 0xffffff);
}

/* Of an entry that is not rare, before anybody can see it. */
static inline void entry_set_times(struct entry *entry, int64_t now_ns, int64_t until_ns,
                                   int64_t fetch_ns)
{
    store_relaxed(&entry->fresh_until_ns, until_ns);
    store_relaxed(&entry_cold(entry)->serve_until_ns, until_ns);
    store_relaxed(&entry_cold(entry)->birth, entry_birth(now_ns, fetch_ns));
}

/* Of any, also under the lock, to renew it, though not while it is in the wheel. The tags, if it has
 * any, come first. */
void entry_set_life(struct entry *entry, const struct entry_life *life);
/* The same life, with another end of the ttl. */
void entry_move_life(struct entry *entry, int64_t expires_ns);
/* A new ttl from now on; the rest of its life goes with it. */
void entry_prolong_life(struct entry *entry, int64_t now_ns, int64_t expires_ns);

/* ---- what is not simply fresh ---------------------------------------------------------------- */

/* Of one that hits do not find fresh at once. */
bool entry_is_fresh_after_all(const struct entry *entry, int64_t now_ns) OUT_OF_LINE;

static inline bool entry_is_fresh(const struct entry *entry, int64_t now_ns)
{
    return entry_fresh(entry, now_ns) || entry_is_fresh_after_all(entry, now_ns);
}

/* The end of its ttl, also where hits look at an earlier instant. */
static inline int64_t entry_expires(const struct entry *entry)
{
    const struct entry_rare *rare = entry_rare(entry);
    return unlikely(rare != NULL) ? load_relaxed(&rare->expires_ns)
                                  : load_relaxed(&entry->fresh_until_ns);
}

static inline bool entry_has_tags(const struct entry *entry)
{
    const struct entry_rare *rare = entry_rare(entry);
    return rare && rare->tags;
}

/* None of its tags was invalidated after it was read. */
static inline bool entry_has_valid_tags(const struct entry *entry)
{
    const struct entry_rare *rare = entry_rare(entry);
    return !rare || tags_valid(rare->tags, load_relaxed(&rare->read_at));
}

/* It has a value, which may be served for one reason or another. */
static inline bool entry_is_servable(const struct entry *entry, int64_t now_ns)
{
    return now_ns < load_relaxed(&entry_cold(entry)->serve_until_ns) && !entry_is_absent(entry) &&
           entry_has_valid_tags(entry);
}

/* Neither of use now nor ever again. */
static inline bool entry_is_over(const struct entry *entry, int64_t now_ns)
{
    return load_relaxed(&entry_cold(entry)->serve_until_ns) <= now_ns ||
           !entry_has_valid_tags(entry);
}

/* A failure, in one word. */
static inline uint64_t entry_failure(aside_status status, int code)
{
    return (uint64_t)(uint32_t)status << 32 | (uint32_t)code;
}

static inline aside_status entry_failure_status(uint64_t failure)
{
    return (aside_status)(int32_t)(uint32_t)(failure >> 32);
}

static inline int entry_failure_code(uint64_t failure)
{
    return (int)(uint32_t)failure;
}

static inline int64_t entry_age_ms(const struct entry *entry, int64_t now_ns)
{
    uint64_t birth = load_relaxed(&entry_cold(entry)->birth);
    uint64_t age = ((uint64_t)now_ns / 1000000 - (birth >> 24)) & ENTRY_MAX_AGE;
    return age <= ENTRY_MAX_AGE / 2 ? (int64_t)age : 0;
}

/* How long its fetch took. */
static inline int64_t entry_fetch_ns(const struct entry *entry)
{
    return (int64_t)(load_relaxed(&entry_cold(entry)->birth) & 0xffffff) * 10000;
}

#endif
