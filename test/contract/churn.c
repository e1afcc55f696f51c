/*
 * churn.c -- B1: memory does not creep. However many keys go through a full cache, what it has
 * allocated stays what it was when it had just become full, by a ledger that does not trust it.
 */
#include "helpers.h"

#define TURNS 30       /* times that all entries are replaced */
#define TTL_MS 3600000 /* no key lives to see it: all but the last leave by eviction */
#define MOST_PERCENT 105

static struct ledger ledger;

static aside_cache *open_for(long entries)
{
    aside_options options = ASIDE_OPTIONS_INIT; /* with a reaper */
    options.max_bytes = 0;
    options.max_entries = (size_t)entries;
    options.alloc = ledger_init(&ledger);
    return open_cache(&options);
}

/* Stores keys that nobody has seen before; returns the most bytes that were allocated meanwhile. */
static int64_t churn(aside_cache *cache, long first, long keys)
{
    static const char value[64] = "";
    int64_t most = 0;
    for (long i = first; i < first + keys; i++) {
        uint64_t key[2] = {0, (uint64_t)i};
        CHECK_STATUS(aside_set(cache, key, sizeof key, value, sizeof value, TTL_MS), ASIDE_OK);
        int64_t live = atomic_load(&ledger.live_bytes);
        most = live > most ? live : most;
    }
    return most;
}

/* A tenth of the keys is three times what the cache holds: it is full by then. */
TEST(unique_keys_without_end_take_no_more_memory_than_the_first)
{
    long entries = test_rounds(10000);
    if (entries < 500)
        entries = 500; /* in a smaller one a few bytes are many percent */
    long keys = entries * TURNS;
    aside_cache *cache = open_for(entries);
    int64_t early = churn(cache, 0, keys / 10);
    CHECK(STAT(cache, evicted) > 0);
    int64_t late = churn(cache, keys / 10, keys - keys / 10);
    CHECK(late * 100 <= early * MOST_PERCENT);
    CHECK_INT(STAT(cache, sets), keys);
    CHECK_INT(STAT(cache, entries) + STAT(cache, evicted), keys);
    CHECK(aside_count(cache) <= (size_t)entries);
    end_cache(cache);
    CHECK_INT(ledger.live_blocks, 0);
}
