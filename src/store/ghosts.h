/*
 * store/ghosts -- which keys were evicted of late: their prints, and no more.
 *
 * Sets of sixteen, a cache line each; the oldest of a full set goes when another comes. So together
 * they are nearly the queue of S3-FIFO's ghosts (Yang et al. 2023). Two keys with one print are
 * taken for one another: a wrong answer costs a little room, nothing else.
 */
#ifndef ASIDE_STORE_GHOSTS_H
#define ASIDE_STORE_GHOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GHOSTS_SET 16

struct ghosts {
    uint32_t *prints; /* zeroed, whoever made the ghosts owns them; NULL: remembers nothing */
    size_t mask;      /* sets - 1 */
};

/* count: a power of two, GHOSTS_SET or more. */
void ghosts_init(struct ghosts *ghosts, uint32_t *prints, size_t count);
/* most: how many are to be remembered, about. */
void ghosts_add(struct ghosts *ghosts, uint32_t print, size_t most);
/* True if it was there; it is forgotten then. */
bool ghosts_take(struct ghosts *ghosts, uint32_t print);

#endif
