/*
 * aside/group.h -- libaside: the singleflight group without a cache.
 *
 * Callers that ask for the same key together share one fetch; nothing is kept when it has ended. It
 * is the code that aside_get_with_fetch() runs: the same aside_fetch_fn, aside_call and
 * aside_result, the same promises (F, C, O and P in docs/GUARANTEES.md), the same bounds.
 *
 * The conventions of aside.h hold here too.
 */
#ifndef ASIDE_GROUP_H
#define ASIDE_GROUP_H

#include <aside/aside.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct aside_group aside_group; /* counted: aside_group_ref, aside_group_unref */

/*
 * A new group. *group is NULL unless ASIDE_OK is returned; the caller owns one reference.
 *   options  as for aside_open(); NULL: the defaults. What is about storing (reaper_interval_ms,
 *            default_ttl_ms, max_bytes, max_entries, on_remove, disabled, jitter, freshness) is
 *            checked and has no effect; nor has on_slow.
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments, as aside_open(); ASIDE_E_NOMEM;
 * ASIDE_E_SYSTEM if getrandom(2) fails. Blocking: no. Threads: none before a fetch needs one.
 */
ASIDE_API aside_status aside_group_new(aside_group **group,
                                       const aside_options *options) ASIDE_MUST_CHECK;

/*
 * Runs call->fetch for a key, or waits for the fetch of it that is under way, and gives its result.
 * Who runs the fetch, who may leave, what must outlive whom: as aside_get_with_fetch().
 * call->ttl_ms, jitter and freshness have no effect, and timeout_ms ASIDE_NO_WAIT is ASIDE_MISS. In
 * the result, outcome is ASIDE_OUTCOME_FETCHED or ASIDE_OUTCOME_JOINED, shared tells whether two or
 * more callers got this one result, fenced whether the key was forgotten meanwhile (or the flight
 * superseded), and ttl_left_ms is 0. A value is owned by the caller, its destructor runs after the
 * last reference. Returns, blocking, threads and callbacks: as aside_get_with_fetch(), a hit
 * excepted.
 */
ASIDE_API aside_status aside_group_do(aside_group *group, const void *key, size_t key_len,
                                      const aside_call *call,
                                      aside_result *result) ASIDE_MUST_CHECK;

/*
 * Forgets a key: callers that come after the return start a fetch of their own, though one may be
 * under way; those who wait for that one still get its result.
 * Returns ASIDE_OK if a fetch was under way, else ASIDE_MISS; ASIDE_E_CLOSED, ASIDE_E_INVALID for
 * bad arguments. Blocking: on a lock, for a bounded time.
 */
ASIDE_API aside_status aside_group_forget(aside_group *group, const void *key, size_t key_len);

/*
 * Counters and gauges, as aside_stats_get(): those of flights and fetches count, the others are 0.
 * lookups = misses_led + misses_joined + refused + misses (of ASIDE_NO_WAIT); get_with_fetch_ok and
 * its kin count aside_group_do().
 */
ASIDE_API aside_status aside_group_stats_get(const aside_group *group,
                                             aside_stats *stats) ASIDE_MUST_CHECK;

/* Says that options.clock has moved: whoever waits looks again. ASIDE_OK, or ASIDE_E_INVALID. */
ASIDE_API aside_status aside_group_clock_changed(aside_group *group);

/*
 * Closes a group: callers that wait, and later ones, return ASIDE_E_CLOSED; running fetches are
 * waited for up to close_wait_ms, the workers joined. Owed only where fetches may run on workers.
 * Idempotent, safe from many threads and from callbacks, as aside_close().
 * Returns ASIDE_OK; ASIDE_E_INVALID for NULL. Callbacks: worker.stop.
 */
ASIDE_API aside_status aside_group_close(aside_group *group);

/* Takes one more reference and returns the group; NULL for NULL. Blocking: no. */
ASIDE_API aside_group *aside_group_ref(aside_group *group);

/* Gives one reference back; NULL is ignored. The last one closes the group if nobody has. */
ASIDE_API void aside_group_unref(aside_group *group);

#ifdef __cplusplus
}
#endif

#endif
