/* base/epoch -- see epoch.h. */
#include "base/epoch.h"

struct epoch_global epoch_global = {.now = 1};

uint64_t epoch_tag(void)
{
    return fetch_add_acq_rel(&epoch_global.now, 0);
}

void epoch_advance(void)
{
    uint64_t now = load_acquire(&epoch_global.now);
    for (struct thread_record *r = thread_first(); r; r = r->next) {
        uint64_t announced = fetch_add_acq_rel(&r->announced, 0);
        if (announced != 0 && announced != 2 * now + 1)
            return;
    }
    compare_swap(&epoch_global.now, &now, now + 1);
}

void epoch_named(struct epoch_names *names)
{
    names->count = 0;
    names->overflow = false;
    for (struct thread_record *r = thread_first(); r; r = r->next) {
        for (unsigned i = 0; i < THREAD_VISITS; i++) {
            const void *name = load_acquire(&r->visiting[i]);
            if (!name)
                continue;
            if (names->count == EPOCH_MAX_NAMES)
                names->overflow = true;
            else
                names->names[names->count++] = name;
        }
    }
}

/* Looked for in the slots themselves. What is ripe cannot come to be named any more. */
static bool is_visited(const void *entry)
{
    for (struct thread_record *r = thread_first(); r; r = r->next)
        for (unsigned i = 0; i < THREAD_VISITS; i++)
            if (load_acquire(&r->visiting[i]) == entry)
                return true;
    return false;
}

bool epoch_is_named(const struct epoch_names *names, const void *entry)
{
    for (unsigned i = 0; i < names->count; i++)
        if (names->names[i] == entry)
            return true;
    return names->overflow && is_visited(entry);
}
