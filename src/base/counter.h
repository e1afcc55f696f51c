/*
 * base/counter -- the numbers of the counters that aside.h names.
 */
#ifndef ASIDE_BASE_COUNTER_H
#define ASIDE_BASE_COUNTER_H

#include "base/home.h"

#include <aside/aside.h>

enum counter {
#define COUNTER_ENUM(name, text) COUNTER_##name,
    ASIDE_COUNTER_MAP(COUNTER_ENUM)
#undef COUNTER_ENUM
        COUNTERS
};

_Static_assert(COUNTERS <= THREAD_COUNTERS, "a thread's record has room for every counter");

static inline void counter_add(struct home *home, struct thread_record *self, enum counter counter,
                               uint64_t n)
{
    thread_count(&home->account, home->account.slot, self, counter, n);
}

#endif
