/*
 * lib_baseline.h -- the cache that a C programmer writes by hand in an afternoon: 64 shards, each a
 * uthash table under a mutex, counted handles, an expiry for each entry. The yardstick of hit.c.
 */
#ifndef ASIDE_BENCH_BASELINE_H
#define ASIDE_BENCH_BASELINE_H

#include <stddef.h>
#include <stdint.h>

struct baseline;
struct baseline_entry;

struct baseline *baseline_open(void);
void baseline_close(struct baseline *baseline);

/* Stores a copy for ttl_ms milliseconds; replaces what was there. */
void baseline_set(struct baseline *baseline, const void *key, size_t key_len, const void *data,
                  size_t size, int64_t ttl_ms);

/* A counted handle to the fresh entry of a key, else NULL. */
struct baseline_entry *baseline_get(struct baseline *baseline, const void *key, size_t key_len);
const void *baseline_data(const struct baseline_entry *entry, size_t *size);
void baseline_unref(struct baseline_entry *entry);

#endif
