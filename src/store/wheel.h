/*
 * store/wheel -- deadlines in O(1): a hierarchical timing wheel (Varghese and Lauck 1987).
 *
 * Six levels of 32 rings; a ring of level l spans 2^(22 + 5 l) nanoseconds, 4 ms on the lowest, 39
 * hours on the highest. Adding and removing are a few writes. wheel_advance() splices every ring
 * that time has passed into the list of what is due, without looking at a single entry, and
 * wheel_due() hands that out one by one: what is not over yet goes back, further down. Guarded by
 * the shard's lock.
 */
#ifndef ASIDE_STORE_WHEEL_H
#define ASIDE_STORE_WHEEL_H

#include "store/entry.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define WHEEL_LEVELS 6
#define WHEEL_RINGS 32

struct wheel {
    int64_t now_ns; /* up to which the rings have been passed */
    struct entry_link due;
    struct entry_link rings[WHEEL_LEVELS][WHEEL_RINGS];
};

void wheel_init(struct wheel *wheel, int64_t now_ns);
/* By its serve_until_ns; CLOCK_NEVER is not kept. */
void wheel_add(struct wheel *wheel, struct entry *entry);
/* Also of an entry that the wheel does not keep. */
void wheel_remove(struct entry *entry);
void wheel_advance(struct wheel *wheel, int64_t now_ns);
/* Takes an entry that may be over, or NULL. The caller removes it for good or adds it again. */
struct entry *wheel_due(struct wheel *wheel);

bool wheel_check(const struct wheel *wheel, FILE *why);

#endif
