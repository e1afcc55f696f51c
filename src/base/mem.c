/* base/mem -- see mem.h. */
#include "base/mem.h"

#include "base/check.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *system_malloc(size_t size, void *ctx)
{
    (void)ctx;
    return malloc(size);
}

static void *system_realloc(void *block, size_t size, void *ctx)
{
    (void)ctx;
    return realloc(block, size);
}

static void system_free(void *block, void *ctx)
{
    (void)ctx;
    free(block);
}

const struct mem mem_default = {{system_malloc, system_realloc, system_free, NULL}};

bool mem_init(struct mem *mem, const aside_alloc *hooks)
{
    if (!hooks->malloc && !hooks->realloc && !hooks->free) {
        *mem = mem_default;
        return true;
    }
    mem->hooks = *hooks;
    return hooks->malloc && hooks->realloc && hooks->free;
}

void *mem_alloc(const struct mem *mem, size_t size)
{
    return mem->hooks.malloc(size, mem->hooks.ctx);
}

void *mem_zalloc(const struct mem *mem, size_t size)
{
    void *block = mem_alloc(mem, size);
    if (block)
        memset(block, 0, size);
    return block;
}

void mem_free(const struct mem *mem, void *block)
{
    if (block)
        mem->hooks.free(block, mem->hooks.ctx);
}

void *mem_zalloc_lines(const struct mem *mem, size_t size, void **raw)
{
    size_t padded;
    if (!size_add(size, CACHE_LINE, &padded))
        return NULL;
    *raw = mem_zalloc(mem, padded);
    if (!*raw)
        return NULL;
    uintptr_t start = ((uintptr_t)*raw + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1);
    return (void *)start;
}
