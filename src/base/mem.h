/*
 * base/mem -- the allocator of one cache, and sizes that cannot overflow.
 *
 * mem_charge() is what a block is counted for in every bound: the bytes asked for, rounded as
 * common allocators round them, so that a bound in bytes is near the resident size.
 */
#ifndef ASIDE_BASE_MEM_H
#define ASIDE_BASE_MEM_H

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>

struct mem {
    aside_alloc hooks; /* immutable */
};

/* False if the hooks are neither all there nor all absent. */
bool mem_init(struct mem *mem, const aside_alloc *hooks);
/* The C library's allocator, for what belongs to no cache. */
extern const struct mem mem_default;

void *mem_alloc(const struct mem *mem, size_t size); /* not initialised; NULL if there is none */
void *mem_zalloc(const struct mem *mem, size_t size);
void mem_free(const struct mem *mem, void *block);

/* A zeroed block at a multiple of CACHE_LINE; *raw is what mem_free() wants. */
void *mem_zalloc_lines(const struct mem *mem, size_t size, void **raw);

static inline bool size_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* So that what follows is aligned for anything. */
static inline size_t size_padded(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

static inline size_t mem_charge(size_t size)
{
    return size_padded(size + 8);
}

#endif
