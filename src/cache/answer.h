/*
 * cache/answer -- what a fetch's answer comes to in a cache: stored, renewed, remembered, or handed
 * over only.
 */
#ifndef ASIDE_CACHE_ANSWER_H
#define ASIDE_CACHE_ANSWER_H

#include "cache/cache.h"

/* Of a cache's flights: the fetch has decided. */
void answer_publish(struct flight *flight);

#endif
