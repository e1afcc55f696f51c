/* lib_memory.c -- see lib_memory.h. */
#include "lib_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the ledger ------------------------------------------------------------------------------ */

#define HEADER 16 /* holds the size asked for; keeps malloc's alignment */

static void *counted_malloc(size_t size, void *ctx)
{
    struct memory_ledger *ledger = ctx;
    char *block = size > SIZE_MAX - HEADER ? NULL : malloc(size + HEADER);
    if (!block)
        return NULL;
    memcpy(block, &size, sizeof size);
    atomic_fetch_add(&ledger->live_bytes, (int64_t)size);
    return block + HEADER;
}

static size_t size_of(const void *block)
{
    size_t size;
    memcpy(&size, (const char *)block - HEADER, sizeof size);
    return size;
}

static void counted_free(void *block, void *ctx)
{
    struct memory_ledger *ledger = ctx;
    if (!block)
        return;
    atomic_fetch_sub(&ledger->live_bytes, (int64_t)size_of(block));
    free((char *)block - HEADER);
}

static void *counted_realloc(void *block, size_t size, void *ctx)
{
    void *grown = counted_malloc(size, ctx);
    if (!block || !grown)
        return grown;
    size_t old_size = size_of(block);
    memcpy(grown, block, old_size < size ? old_size : size);
    counted_free(block, ctx);
    return grown;
}

aside_alloc memory_ledger_alloc(struct memory_ledger *ledger)
{
    return (aside_alloc){counted_malloc, counted_realloc, counted_free, ledger};
}

/* ---- the process ----------------------------------------------------------------------------- */

int64_t memory_resident_bytes(void)
{
    char text[128];
    long long total, resident;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    NEED(length > 0);
    text[length] = '\0';
    NEED(sscanf(text, "%lld %lld", &total, &resident) == 2);
    return resident * sysconf(_SC_PAGESIZE);
}

int64_t memory_available_bytes(void)
{
    char line[128];
    long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file) && sscanf(line, "MemAvailable: %lld kB", &kib) != 1)
        ;
    fclose(file);
    return kib * 1024;
}
