/*
 * base/epoch -- when may memory that a lock-free reader could still see be freed?
 *
 * A reader announces the epoch that it read before it touches the index, and withdraws that after.
 * What a writer has unlinked is tagged with the epoch afterwards; it is ripe when the epoch is two
 * further on. The epoch moves only when every announcement names the present one (epoch-based
 * reclamation, Fraser 2004).
 *
 * Why that is enough, in terms of C11: the announcement, the scan, the tag and the step are all
 * read-modify-writes, so each reads the latest value and synchronises with it. A scan of a record
 * comes before an announcement, and then the reader sees all that was unlinked before the scan; or
 * it comes after, and sees the announcement. A tag comes before the step that leaves its epoch, so
 * that who reads the next epoch sees what was unlinked before the tag. No seq_cst fence is needed,
 * and ThreadSanitizer sees all.
 *
 * A visit does not hold the epoch: it names its entry in a slot of its record before it leaves the
 * epoch. What is ripe was tagged after that, so epoch_named() finds the name if the visit still
 * goes on.
 */
#ifndef ASIDE_BASE_EPOCH_H
#define ASIDE_BASE_EPOCH_H

#include "base/atomic.h"
#include "base/thread.h"

#include <stdbool.h>
#include <stdint.h>

struct epoch_global {
    _Alignas(CACHE_LINE) _Atomic uint64_t now;
    char padding[CACHE_LINE - sizeof(uint64_t)];
};
extern struct epoch_global epoch_global;

static inline void epoch_enter(struct thread_record *self)
{
    exchange_acq_rel(&self->announced, 2 * load_acquire(&epoch_global.now) + 1);
}

static inline void epoch_leave(struct thread_record *self)
{
    store_release(&self->announced, 0);
}

/* The tag for what has been unlinked before. */
uint64_t epoch_tag(void);

static inline bool epoch_ripe(uint64_t tag)
{
    return load_acquire(&epoch_global.now) >= tag + 2;
}

/* Moves the epoch on by one if no reader is behind. */
void epoch_advance(void);

/* What the visits of all threads name at this moment. */
#define EPOCH_MAX_NAMES 32
struct epoch_names {
    unsigned count;
    bool overflow; /* there were more: each entry has to be looked for */
    const void *names[EPOCH_MAX_NAMES];
};
void epoch_named(struct epoch_names *names);
bool epoch_is_named(const struct epoch_names *names, const void *entry);

#endif
