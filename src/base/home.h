/*
 * base/home -- what outlives a cache: its allocator, and the account of what handles still keep.
 *
 * An entry that a handle keeps may be freed after its cache is gone, by a thread that knows the
 * value alone. The entry therefore names its home, in one byte; homes beyond the 255th are named
 * by a pointer in front of the entry. A home is freed with its cache and its last pinned entry,
 * whichever is later.
 */
#ifndef ASIDE_BASE_HOME_H
#define ASIDE_BASE_HOME_H

#include "base/mem.h"
#include "base/thread.h"

#include <stdbool.h>
#include <stdint.h>

#define HOME_FAR 255 /* the name of every home that has no byte of its own */

struct home {
    struct mem mem; /* immutable */
    uint8_t id;     /* immutable */
    bool queues;    /* set before there are entries: they have links for a queue */
    struct thread_account account;
    char padding[CACHE_LINE]; /* hits read what is above, unrefs write what is below */
    _Atomic uint64_t pins;    /* the cache itself, and each entry that only handles keep */
    _Atomic uint64_t pinned_bytes;
};

/* NULL if there is no memory. */
struct home *home_open(const struct mem *mem);
/* The cache is gone. */
void home_close(struct home *home);

struct home *home_near(uint8_t id); /* id != HOME_FAR */

/* An entry of so many bytes has left the index while handles keep it; and it was freed. */
void home_pin(struct home *home, uint64_t bytes);
void home_unpin(struct home *home, uint64_t bytes);

#endif
