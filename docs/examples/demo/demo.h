/*
 * demo.h -- what the four scenarios share: the source, the seed, and the figures of the last line.
 */
#ifndef DEMO_H
#define DEMO_H

#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct demo {
    /* set by main before the first scenario */
    struct source *source;
    struct source_char *chars; /* every character of the source, by code point */
    size_t char_count;
    uint64_t seed;
    size_t keys; /* code points that the outage scenario asks for */

    /* filled by the scenarios, printed at the end */
    uint64_t requests;
    uint64_t hits;
    uint64_t source_queries;
    uint64_t unprotected_queries;
    uint64_t viral_queries;
    double viral_ratio;
};

void outage_scenario(struct demo *demo); /* a cold start under load */
void viral_scenario(struct demo *demo);  /* everybody asks for one expired key */
void leaver_scenario(struct demo *demo); /* the caller who started the fetch leaves */
void reaper_scenario(struct demo *demo); /* expired entries that nobody asks for again */

#endif
