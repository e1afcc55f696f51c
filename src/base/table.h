/*
 * base/table -- small tables that change under a lock: the only room that knows uthash.
 *
 * Intrusive: a node is part of its owner, which also owns the key's bytes. The caller brings the
 * keyed 64-bit hash. Out of memory is an answer, not the end of the process; a resident node keeps
 * uthash from freeing its buckets with the last element, which would cost each lonely flight 30 ns.
 */
#ifndef ASIDE_BASE_TABLE_H
#define ASIDE_BASE_TABLE_H

#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

/* The project never leaves out-of-memory to uthash's default, which is exit(). */
#define HASH_NONFATAL_OOM 1
/* An empty key may have no address, which memcmp() must not be given. */
#define HASH_KEYCMP(a, b, n) ((n) ? memcmp(a, b, n) : 0)
#include <uthash.h>

struct table_node {
    UT_hash_handle hh;
};

/* Guarded by its owner's lock. */
struct table {
    const struct mem *mem;
    struct table_node *head;
    struct table_node *resident; /* NULL until the first table_add() */
};

void table_init(struct table *table, const struct mem *mem);
void table_fini(struct table *table); /* of an empty table */

struct table_node *table_find(const struct table *table, const void *key, uint32_t key_len,
                              uint64_t hash);
/* False if there is no memory. The key must not be in the table, and its bytes must stay. */
bool table_add(struct table *table, struct table_node *node, const void *key, uint32_t key_len,
               uint64_t hash);
void table_remove(struct table *table, struct table_node *node);
size_t table_count(const struct table *table);
static inline bool table_is_empty(const struct table *table)
{
    return !table->head || !table->head->hh.next; /* but for the resident */
}

#endif
