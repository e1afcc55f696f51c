/* base/table -- see table.h. */
#include "base/table.h"

/* uthash's macros name no context: these use the `mem` and `oom` of the function they stand in. */
#undef uthash_malloc
#undef uthash_free
#undef uthash_nonfatal_oom
#define uthash_malloc(size) mem_alloc(mem, size)
#define uthash_free(block, size) mem_free(mem, block)
#define uthash_nonfatal_oom(element) (oom = true)

/* A length that no key has, so that nobody finds the resident: its one byte is never compared. */
static const unsigned char resident_key[1];
#define RESIDENT_KEY_LEN UINT32_MAX

void table_init(struct table *table, const struct mem *mem)
{
    table->mem = mem;
    table->head = NULL;
    table->resident = NULL;
}

static bool add(struct table *table, struct table_node *node, const void *key, uint32_t key_len,
                unsigned hash)
{
    const struct mem *mem = table->mem;
    bool oom = false;
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, table->head, key, key_len, hash, node);
    return !oom;
}

static void del(struct table *table, struct table_node *node)
{
    const struct mem *mem = table->mem;
    HASH_DELETE(hh, table->head, node);
    (void)mem;
}

void table_fini(struct table *table)
{
    if (!table->resident)
        return;
    del(table, table->resident);
    mem_free(table->mem, table->resident);
    table->resident = NULL;
}

static bool make_resident(struct table *table)
{
    struct table_node *node = mem_zalloc(table->mem, sizeof *node);
    if (!node)
        return false;
    if (!add(table, node, resident_key, RESIDENT_KEY_LEN, 0)) {
        mem_free(table->mem, node);
        return false;
    }
    table->resident = node;
    return true;
}

struct table_node *table_find(const struct table *table, const void *key, uint32_t key_len,
                              uint64_t hash)
{
    struct table_node *found = NULL;
    struct table_node *head = table->head;
    HASH_FIND_BYHASHVALUE(hh, head, key, key_len, (unsigned)(hash >> 16), found);
    return found;
}

bool table_add(struct table *table, struct table_node *node, const void *key, uint32_t key_len,
               uint64_t hash)
{
    if (!table->resident && !make_resident(table))
        return false;
    return add(table, node, key, key_len, (unsigned)(hash >> 16));
}

void table_remove(struct table *table, struct table_node *node)
{
    del(table, node);
}

size_t table_count(const struct table *table)
{
    return table->head ? HASH_CNT(hh, table->head) - 1 : 0;
}
