/*
 * ledger.c -- an allocator that counts every byte, fails on demand and guards every block.
 *
 *   [ header 32: magic, owner, size ][ the block ][ 16 guard bytes ]
 *
 * A freed block is filled with a pattern and rests for a while in a ring, so that a second free and a
 * write after the free are found. The sanitizers do that better, so there it goes at once. Counts are
 * relaxed: the ledger must not put an order between threads that the library lacks.
 */
#include "internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GUARD_BYTES = 16,
    RESTING = 2048,
    REST_MOST_BYTES = 16384,
    GUARD = 0xA5,
    FRESH = 0xCD,
    DEAD = 0xDD
};

#define MAGIC_LIVE UINT64_C(0x6c65646765723031)
#define MAGIC_DEAD UINT64_C(0x6465616462656566)

struct header {
    _Alignas(16) uint64_t magic;
    struct ledger *owner;
    size_t size;
    uint64_t spare;
};

static _Atomic(struct header *) resting[RESTING];
static _Atomic uint64_t next_rest;

#define relaxed_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

bool countdown_hit(_Atomic int64_t *left, const _Atomic int *for_ever)
{
    int64_t now = atomic_load_explicit(left, memory_order_relaxed);

    while (now > 0) {
        bool last = now == 1;
        if (last && atomic_load_explicit(for_ever, memory_order_relaxed))
            return true;
        if (atomic_compare_exchange_weak_explicit(left, &now, now - 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return last;
    }
    return false;
}

static _Noreturn void broken(const char *what, const void *block, size_t size)
{
    char why[128];

    snprintf(why, sizeof why, "block %p of %zu bytes", block, size);
    fprintf(stderr, "ledger: ");
    test_fail(__FILE__, __LINE__, what, why);
}

static bool all_bytes(const unsigned char *bytes, size_t count, unsigned char value)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static void note_peak(struct ledger *ledger, int64_t live)
{
    int64_t peak = atomic_load_explicit(&ledger->peak_bytes, memory_order_relaxed);

    while (live > peak &&
           !atomic_compare_exchange_weak_explicit(&ledger->peak_bytes, &peak, live,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

/* For sure not failing on demand: that was decided before. */
static void *block_new(struct ledger *ledger, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    struct header *header = malloc(sizeof *header + size + GUARD_BYTES);
    if (!header)
        return NULL;
    unsigned char *block = (unsigned char *)(header + 1);
    header->magic = MAGIC_LIVE;
    header->owner = ledger;
    header->size = size;
    if (!UNDER_ASAN)
        memset(block, FRESH, size);
    memset(block + size, GUARD, GUARD_BYTES);
    relaxed_add(&ledger->live_blocks, 1);
    note_peak(ledger, relaxed_add(&ledger->live_bytes, (int64_t)size) + (int64_t)size);
    return block;
}

static void check_rested(struct header *header)
{
    const unsigned char *block = (const unsigned char *)(header + 1);

    if (header->magic != MAGIC_DEAD || !all_bytes(block, header->size, DEAD))
        broken("written after it was freed", block, header->size);
}

static void rest(struct header *header)
{
    if (UNDER_ASAN || UNDER_TSAN || header->size > REST_MOST_BYTES) {
        free(header);
        return;
    }
    memset(header + 1, DEAD, header->size);
    uint64_t slot = atomic_fetch_add_explicit(&next_rest, 1, memory_order_relaxed) % RESTING;
    struct header *old = atomic_exchange_explicit(&resting[slot], header, memory_order_acq_rel);
    if (!old)
        return;
    check_rested(old);
    free(old);
}

static struct header *check_live(void *block, const struct ledger *ledger)
{
    struct header *header = (struct header *)block - 1;

    if (header->magic == MAGIC_DEAD)
        broken("freed twice", block, header->size);
    if (header->magic != MAGIC_LIVE)
        broken("not a block of any ledger, or written before its begin", block, 0);
    if (header->owner != ledger)
        broken("given to another ledger than it came from", block, header->size);
    if (!all_bytes((const unsigned char *)block + header->size, GUARD_BYTES, GUARD))
        broken("written past its end", block, header->size);
    return header;
}

static void block_free(struct ledger *ledger, void *block)
{
    struct header *header = check_live(block, ledger);

    header->magic = MAGIC_DEAD;
    relaxed_add(&ledger->live_blocks, -1);
    relaxed_add(&ledger->live_bytes, -(int64_t)header->size);
    rest(header);
}

static bool fails(struct ledger *ledger)
{
    relaxed_add(&ledger->calls, 1);
    return countdown_hit(&ledger->fail_at, &ledger->fail_for_ever);
}

static void *ledger_malloc(size_t size, void *ctx)
{
    return fails(ctx) ? NULL : block_new(ctx, size);
}

static void ledger_free(void *block, void *ctx)
{
    if (block)
        block_free(ctx, block);
}

/* Always moves, so that a pointer kept to the old place shows. */
static void *ledger_realloc(void *block, size_t size, void *ctx)
{
    if (!block)
        return ledger_malloc(size, ctx);
    size_t old_size = check_live(block, ctx)->size;
    if (size > old_size && fails(ctx))
        return NULL;
    void *moved = block_new(ctx, size);
    if (!moved)
        return NULL;
    memcpy(moved, block, size < old_size ? size : old_size);
    block_free(ctx, block);
    return moved;
}

aside_alloc ledger_init(struct ledger *ledger)
{
    memset(ledger, 0, sizeof *ledger);
    return (aside_alloc){ledger_malloc, ledger_realloc, ledger_free, ledger};
}
