/*
 * base/counter -- the numbers of the counters that aside.h names.
 */
#ifndef ASIDE_BASE_COUNTER_H
#define ASIDE_BASE_COUNTER_H

#include "base/home.h"

#include <aside/aside.h>

#define COUNTER_TIMES 16

enum counter {
#define COUNTER_ENUM(name, text) COUNTER_##name,
    ASIDE_COUNTER_MAP(COUNTER_ENUM)
#undef COUNTER_ENUM
#define COUNTER_ENUM(verb) COUNTER_##verb##_ok, COUNTER_##verb##_none, COUNTER_##verb##_error,
        ASIDE_OPERATION_MAP(COUNTER_ENUM)
#undef COUNTER_ENUM
            COUNTER_fetch_ns, /* that all fetches took together */
    COUNTER_fetch_took        /* the first of COUNTER_TIMES: fetches by how long they took */
};
#define COUNTERS (COUNTER_fetch_took + COUNTER_TIMES)

_Static_assert(COUNTERS <= THREAD_COUNTERS, "a thread's record has room for every counter");

/* Of an operation, the first of whose three is given. */
static inline unsigned counter_of(unsigned ok, aside_status status)
{
    return status == ASIDE_OK ? ok : status > 0 ? ok + 1 : ok + 2;
}

static inline void counter_add(struct home *home, struct thread_record *self, enum counter counter,
                               uint64_t n)
{
    thread_count(&home->account, home->account.slot, self, counter, n);
}

#endif
