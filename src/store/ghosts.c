/* store/ghosts -- see ghosts.h. */
#include "store/ghosts.h"

#include <string.h>

void ghosts_init(struct ghosts *ghosts, uint32_t *prints, size_t count)
{
    ghosts->prints = prints;
    ghosts->mask = prints ? count / GHOSTS_SET - 1 : 0;
}

static uint32_t *set_of(const struct ghosts *ghosts, uint32_t print)
{
    size_t number = (size_t)((print * UINT64_C(0xd1b54a32d192ed03)) >> 40) & ghosts->mask;
    return ghosts->prints + number * GHOSTS_SET;
}

/* 0 is an empty place. */
static uint32_t name_of(uint32_t print)
{
    return print ? print : 1;
}

void ghosts_add(struct ghosts *ghosts, uint32_t print, size_t most)
{
    if (!ghosts->prints)
        return;
    uint32_t *set = set_of(ghosts, print);
    size_t depth = most / (ghosts->mask + 1) + 1;
    depth = depth < GHOSTS_SET ? depth : GHOSTS_SET;
    memmove(set + 1, set, (depth - 1) * sizeof *set);
    memset(set + depth, 0, (GHOSTS_SET - depth) * sizeof *set);
    set[0] = name_of(print);
}

bool ghosts_take(struct ghosts *ghosts, uint32_t print)
{
    if (!ghosts->prints)
        return false;
    uint32_t *set = set_of(ghosts, print);
    unsigned i = 0;
    while (i < GHOSTS_SET && set[i] != name_of(print))
        i++;
    if (i == GHOSTS_SET)
        return false;
    memmove(set + i, set + i + 1, (GHOSTS_SET - 1 - i) * sizeof *set);
    set[GHOSTS_SET - 1] = 0;
    return true;
}
