/*
 * lookup.h -- how the demo uses libaside: keys, the fetch, a connection for each fetch worker.
 */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <aside/aside.h>
#include <stdbool.h>

#include "source.h"

struct lookup_key {
    char text[16]; /* "char:0041" */
    size_t len;
};

struct lookup_key lookup_key_of(uint32_t code);

/* Whether these bytes are the record of that character, and not of another. */
bool lookup_is(const void *data, size_t size, uint32_t code);

/* Opens a cache, or ends the program. */
aside_cache *lookup_open(const aside_options *options);

/* For options.worker: each fetch worker has a connection of its own while it lives. */
aside_worker lookup_worker(struct source *source);

/* The fetch of a cache with such workers. */
aside_status lookup_fetch(aside_fetch *fetch, void *arg);

/* What a fetch returns when the query has returned rc. */
aside_status lookup_answer(aside_fetch *fetch, int rc, const struct record *record);

/* A figure of the library's own statistics. */
aside_stats lookup_stats(const aside_cache *cache);

#endif
