/*
 * freshness/jitter -- spreads a ttl, so that what was stored together does not expire together.
 */
#ifndef ASIDE_FRESHNESS_JITTER_H
#define ASIDE_FRESHNESS_JITTER_H

#include <aside/aside.h>
#include <stdbool.h>
#include <stdint.h>

/* A kind that exists, with an amount that suits it. */
bool jitter_is(const aside_jitter *jitter);

/* The ttl by a number of 64 random bits: at least 1 ms, and never ASIDE_FOREVER unless it was. For a
 * ttl that is not negative. */
int64_t jitter_ttl_ms(const aside_jitter *jitter, int64_t ttl_ms, uint64_t draw);

#endif
