/*
 * aside.h -- libaside: an in-process cache-aside library for C daemons.
 *
 * A memory cache with an expiry for each entry, a reaper thread that is stopped exactly once, and
 * aside_get_with_fetch(): callers that miss the same key together share one fetch, and each of them
 * may leave early without disturbing the others.
 *
 * Conventions
 *   Keys         pointer and length, any bytes, 0 to ASIDE_MAX_KEY of them. The pointer may be NULL
 *                only where the length is 0. Two keys are equal iff lengths and bytes are (O4).
 *   Durations    int64_t milliseconds, the unit in the name. Sums saturate.
 *   Statuses     0 is success, positive is "no value and no error", negative is an error.
 *   Objects      opaque. Options, calls, results and statistics are the only public structs; each
 *                starts with struct_size, so that it can grow at its end. Fields that an older
 *                struct_size lacks take their default. struct_size 0 is ASIDE_E_INVALID, and so is
 *                one that is larger than the library knows and has a non-zero byte past that.
 *   Threads      every function may be called from any thread at any time, unless it says so.
 *                A cache must not be used after the caller's last reference to it is gone.
 *   Callbacks    no lock of the library is held while user code runs, the allocator excepted (O3).
 *                User code may call the cache. It must not leave a callback by longjmp(). A fetch,
 *                a visit and a writer of text may end their thread (pthread_exit, cancellation);
 *                other callbacks must return. Deferred cancellation is disabled wherever the
 *                library waits or runs user code, a clock's excepted, and restored round fetches,
 *                visits and writers; asynchronous cancellation is not supported.
 *   Processes    a cache that was opened before fork() works in the child as well (P4): it has the
 *                entries, but none of the flights, and no threads: they are made again when a call
 *                misses or writes, never on a hit. What cannot cross answers ASIDE_E_FORKED there:
 *                a fetch that was under way, a descriptor of a token, an inbox, an executor of your
 *                own; nobody's callback is called there for an asynchronous call of before. What
 *                other threads held at that moment, handles say, stays allocated in the child.
 *                fork() waits for the library's locks, for a bounded time. A fork handler of your
 *                own (pthread_atfork) must not call the library; _Fork(), vfork() and clone() do
 *                not prepare it.
 *   Arguments    a NULL object, a NULL result pointer, a key longer than ASIDE_MAX_KEY, or a
 *                negative duration that is not one of the named constants, is ASIDE_E_INVALID;
 *                nothing has happened then. Whatever the error, a result that can be
 *                written says NULL, 0, or -1 for a descriptor.
 *                Where a function says "bad arguments", this is meant.
 *
 * Codes such as F1, W2 or O1 cite the promises in docs/GUARANTEES.md.
 *
 * Duration fields, and what each number means:
 *
 *   field                             0                     negative                ASIDE_FOREVER
 *   options.reaper_interval_ms        no thread             no thread               no thread
 *   options.default_ttl_ms            ASIDE_E_INVALID       ASIDE_E_INVALID         no expiry
 *   options.max_flight_age_ms         no bound              ASIDE_E_INVALID         no bound
 *   options.close_wait_ms             do not wait           ASIDE_E_INVALID         wait for ever
 *   ttl_ms of aside_set and its kin   store nothing, drop   ASIDE_DEFAULT_TTL, or   no expiry
 *                                     what was there        ASIDE_E_INVALID
 *   ttl_ms of aside_touch             drop what was there   as above                no expiry
 *   call.ttl_ms                       the default ttl       ASIDE_NO_STORE, or      no expiry
 *                                                           ASIDE_E_INVALID
 *   aside_fetch_set_ttl               as call.ttl_ms        as call.ttl_ms          no expiry
 *   options.freshness, all but        off                   ASIDE_OFF: off; else    no end
 *     soft_timeout_ms                                       ASIDE_E_INVALID
 *   call.freshness, all but           the cache's           ASIDE_OFF: off; else    no end
 *     soft_timeout_ms                                       ASIDE_E_INVALID
 *   options.freshness.soft_timeout_ms do not wait           ASIDE_NO_WAIT: the      wait for the
 *                                                           same; else INVALID      fetch to end
 *   call.freshness.soft_timeout_ms    the cache's           ASIDE_NO_WAIT: do not   as above
 *                                                           wait; else INVALID
 *   options.on_slow.threshold_ms      every fetch           ASIDE_E_INVALID         no fetch
 *   call.timeout_ms                   no deadline           ASIDE_NO_WAIT, or       no deadline
 *                                                           ASIDE_E_INVALID
 *   timeout_ms of                     at once               ASIDE_E_INVALID         no deadline
 *   aside_cancel_set_deadline
 */
#ifndef ASIDE_H
#define ASIDE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASIDE_VERSION_MAJOR 0
#define ASIDE_VERSION_MINOR 1
#define ASIDE_VERSION_PATCH 0
#define ASIDE_VERSION "0.1.0"

#if defined(__GNUC__)
#define ASIDE_API __attribute__((visibility("default")))
#define ASIDE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define ASIDE_API
#define ASIDE_MUST_CHECK
#endif

/* Longest key, in bytes. */
#define ASIDE_MAX_KEY 65535

/* No expiry, no deadline, no bound: see the table above. */
#define ASIDE_FOREVER INT64_MAX
/* ttl of aside_set and its kin: the cache's default_ttl_ms. */
#define ASIDE_DEFAULT_TTL ((int64_t)-2)
/* ttl of a call: hand the value over, store nothing. */
#define ASIDE_NO_STORE ((int64_t)-1)
/* timeout of a call: a hit or nothing. */
#define ASIDE_NO_WAIT ((int64_t)-1)
/* A member of aside_freshness: not at all, also where the cache would. */
#define ASIDE_OFF ((int64_t)-1)

/* Longest name of a tag, in bytes, and most tags of one value. */
#define ASIDE_MAX_TAG 255
#define ASIDE_MAX_TAGS 32

/* A string literal as (pointer, length). */
#define ASIDE_STR(literal) ("" literal), (sizeof(literal) - 1)

/* ---- statuses -------------------------------------------------------------------------------- */

/* X(name, number, text): the source of the enum, aside_status_name() and aside_strerror(). */
#define ASIDE_STATUS_MAP(X)                                                                        \
    X(ASIDE_OK, 0, "success")                                                                      \
    X(ASIDE_MISS, 1, "no fresh entry")                                                             \
    X(ASIDE_NOT_FOUND, 2, "the source says that there is no such thing")                           \
    X(ASIDE_PENDING, 3, "the fetch will be completed later")                                       \
    X(ASIDE_EXISTS, 4, "a fresh entry is there already")                                           \
    X(ASIDE_NOT_MODIFIED, 5, "the source says that the previous value is still good")              \
    X(ASIDE_E_INVALID, -1, "invalid argument")                                                     \
    X(ASIDE_E_NOMEM, -2, "out of memory")                                                          \
    X(ASIDE_E_CLOSED, -3, "the cache is closed")                                                   \
    X(ASIDE_E_CANCELLED, -4, "cancelled by the caller's token")                                    \
    X(ASIDE_E_TIMEOUT, -5, "the caller's deadline has passed")                                     \
    X(ASIDE_E_BUSY, -6, "a bound was reached, try again")                                          \
    X(ASIDE_E_TOO_LARGE, -7, "larger than the cache may hold")                                     \
    X(ASIDE_E_BUFFER, -8, "the buffer is too small")                                               \
    X(ASIDE_E_DEADLOCK, -9, "the fetch would wait for itself")                                     \
    X(ASIDE_E_ABANDONED, -10, "the fetch ended without an answer")                                 \
    X(ASIDE_E_FETCH, -11, "the fetch failed")                                                      \
    X(ASIDE_E_FETCH_TIMEOUT, -12, "the fetch took longer than a flight may")                       \
    X(ASIDE_E_WORKER, -13, "the worker-start hook failed")                                         \
    X(ASIDE_E_THREAD, -14, "a thread could not be created")                                        \
    X(ASIDE_E_SYSTEM, -15, "a call of the system failed")                                          \
    X(ASIDE_E_FORKED, -16, "it was made before this process was forked")

typedef enum aside_status {
#define ASIDE_STATUS_ENUM(name, number, text) name = number,
    ASIDE_STATUS_MAP(ASIDE_STATUS_ENUM)
#undef ASIDE_STATUS_ENUM
} aside_status;

/* ---- objects --------------------------------------------------------------------------------- */

typedef struct aside_cache aside_cache;   /* the cache; counted: aside_ref, aside_unref */
typedef struct aside_value aside_value;   /* immutable bytes; counted: aside_value_ref, _unref */
typedef struct aside_cancel aside_cancel; /* a token; counted: aside_cancel_ref, _unref */
typedef struct aside_fetch aside_fetch;   /* a fetch under way; counted: aside_fetch_ref, _unref */
typedef struct aside_job aside_job;       /* a fetch that a user's executor is to run or to drop */
typedef struct aside_inbox aside_inbox;   /* where results of aside_get_async() arrive; one owner */

/* ---- options --------------------------------------------------------------------------------- */

/* X(name, number, word): why an entry has left the cache; the source of the enum and of
 * aside_cause_name(). What was over when it was replaced or deleted has expired. */
#define ASIDE_CAUSE_MAP(X)                                                                         \
    X(ASIDE_CAUSE_EXPIRED, 1, "expired")   /* its time was over */                                 \
    X(ASIDE_CAUSE_EVICTED, 2, "evicted")   /* to keep a bound */                                   \
    X(ASIDE_CAUSE_DELETED, 3, "deleted")   /* by aside_delete(), or by ttl 0 */                    \
    X(ASIDE_CAUSE_REPLACED, 4, "replaced") /* by another value of its key */                       \
    X(ASIDE_CAUSE_CLEARED, 5, "cleared")   /* by aside_clear() */                                  \
    X(ASIDE_CAUSE_CLOSED, 6, "closed")     /* with the cache */

typedef enum aside_cause {
#define ASIDE_CAUSE_ENUM(name, number, word) name = number,
    ASIDE_CAUSE_MAP(ASIDE_CAUSE_ENUM)
#undef ASIDE_CAUSE_ENUM
} aside_cause;

/*
 * A listener: fn is called once for each entry that has left the cache, with its key, its value and
 * the cause. key and value are borrowed: aside_value_ref() keeps the value. fn NULL: none.
 * It is called soon after the entry has left, by whichever thread made it leave, before that call
 * returns: a writer, a reader that met what was over, the reaper. Of a clear and a close: when the
 * old table is taken apart, by the reaper or before the call returns; what a reader was just
 * looking at, later, with the last reference at the latest. So for one key the order of two calls
 * is not certain if two threads wrote. The value's destructor runs later.
 * It may call the cache. What it makes leave is told after it has returned, on the same thread
 * (inside it, where there is no memory for what the library keeps of a thread). One that stores
 * anew whatever is evicted takes the room from the call that made it, and may never end. Values
 * that were refused, or not stored, never were in the cache. ctx must outlive the cache and the
 * calls in it. In the child of a fork what leaves there is told there; what another thread of the
 * parent was about to tell at that moment is told in the parent alone.
 */
typedef struct aside_on_remove {
    void (*fn)(void *ctx, const void *key, size_t key_len, aside_value *value, aside_cause cause);
    void *ctx;
} aside_on_remove;

/*
 * Allocator of one cache: all four members or none (all zero: the C library's). malloc, realloc and
 * free behave as the C library's do, alignment included, and may be called from any thread, also
 * under a lock of the library: they must not call the library. ctx must outlive the cache, every
 * value handle that came from it, and the fetches that aside_close() did not wait for.
 */
typedef struct aside_alloc {
    void *(*malloc)(size_t size, void *ctx);
    void *(*realloc)(void *block, size_t size, void *ctx);
    void (*free)(void *block, void *ctx);
    void *ctx;
} aside_alloc;

/*
 * Clock of one cache, for tests: nanoseconds that never go back, more than 0. now_ns NULL: the
 * system's monotonic clock, whose coarse form (grain 1 to 10 ms) dates entries and whose precise
 * form dates flights and waits. After moving a clock of your own, call aside_clock_changed().
 */
typedef struct aside_clock {
    int64_t (*now_ns)(void *ctx);
    void *ctx;
} aside_clock;

/*
 * A context for each fetch worker, a database connection say. start is called on the new worker's
 * thread before its first fetch, stop on the same thread after its last; *worker is what
 * aside_fetch_worker() returns there. start NULL: no context. If start returns an error, the worker
 * ends and the fetch it was made for ends with ASIDE_E_WORKER and that error as fetch_error.
 * With a start hook fetches run on workers only. Not together with submit.
 */
typedef struct aside_worker {
    aside_status (*start)(void *ctx, void **worker);
    void (*stop)(void *ctx, void *worker);
    void *ctx;
} aside_worker;

/*
 * An executor of your own instead of the library's worker threads: fn takes the job and sees to it
 * that exactly one of aside_job_run() and aside_job_drop() is called with it, once, on any thread,
 * also at once. If fn returns an error it has not taken the job, and the caller gets ASIDE_E_BUSY.
 * fn NULL: the library's workers.
 */
typedef struct aside_submit {
    aside_status (*fn)(void *ctx, aside_job *job);
    void *ctx;
} aside_submit;

/* What a cache leaves out, so that a daemon can compare, or do without for a while. */
enum {
    ASIDE_ENABLED = 0,
    /* Nothing is stored: every lookup misses, aside_set and its kin do as with ttl 0. Callers who
     * miss together still share one fetch. */
    ASIDE_DISABLE_STORE = 1,
    /* Nor is anything shared: every aside_get_with_fetch() runs a fetch of its own. */
    ASIDE_DISABLE_ALL = 2
};

/*
 * How a ttl is spread when a value is stored or touched, so that what was stored together does not
 * expire together. amount is in milliseconds, but for ASIDE_JITTER_PERCENT. The ttl that comes of
 * it is at least 1 ms; ASIDE_FOREVER stays as it is. U(a, b) is an even draw of whole milliseconds,
 * both ends included. Draws follow from options.hash_seed where that is given: caches with one seed
 * that store in one order spread alike.
 */
typedef struct aside_jitter {
    int64_t kind;   /* one of these */
    int64_t amount; /* 0 or more */
} aside_jitter;

enum {
    ASIDE_JITTER_DEFAULT = 0, /* of a call: as the cache's; of a cache: none */
    ASIDE_JITTER_NONE = 1,    /* the ttl as it is */
    ASIDE_JITTER_ADD = 2,     /* ttl + U(0, amount) */
    ASIDE_JITTER_EQUAL = 3,   /* ttl + U(-amount / 2, amount / 2) */
    ASIDE_JITTER_FULL = 4,    /* U(amount, ttl); ttl if that is less than amount */
    ASIDE_JITTER_PERCENT = 5  /* ttl + U(-amount, amount) hundredths of ttl; at most 100 */
};

/*
 * What becomes of a value past its ttl, and of answers that are no value. All zero in a cache's
 * options: nothing of it. In a call's, 0 is as the cache has it. What a fetch stores goes by its
 * leader's (F5), and may be said from inside the fetch: aside_fetch_set_freshness().
 *
 *   set ---- ttl ----> expired ---- stale_ms ----> ---- to stale_if_error_ms ----> gone
 *        fresh               served at once, while          served if the
 *                            one refresh runs               source fails
 *
 * A refresh runs after its callers have returned: its arg must outlive them as if they might leave
 * (aside_get_with_fetch). It goes to a worker, or to submit; a nonblocking one, and any where there
 * are no workers (fetch_threads 0), runs on the thread of who found it due, before his call
 * returns. Plain verbs see fresh values only; what they store lives by the cache's freshness.
 */
typedef struct aside_freshness {
    /* Stale-while-revalidate: so long past its ttl a value is returned at once, while exactly one
     * refresh runs. Of a call that meets a value: the most that it accepts; the next member says
     * how much it accepts where the source fails. */
    int64_t stale_ms;
    /* Stale-if-error: so long past its ttl a value answers for a source that fails, for a bound
     * that was reached, and for a flight that grew too old. Counts from the ttl's end, as stale_ms;
     * the longer of the two counts here. */
    int64_t stale_if_error_ms;
    /* After a failed refresh nobody asks the source again for so long, as long as there is a stale
     * value to answer with. 1000 in ASIDE_OPTIONS_INIT. */
    int64_t throttle_ms;
    /* Who has a stale value at hand waits at most so long for the fetch, then takes it. 0: not at
     * all within stale_ms; past that, until the fetch ends. */
    int64_t soft_timeout_ms;
    /* How long ASIDE_NOT_FOUND is remembered, spread by jitter: callers get it at once. What is
     * remembered is an entry without a value: listeners do not hear of it. */
    int64_t not_found_ttl_ms;
    /* How long a failure is remembered, where no stale value answers for it: callers get it at
     * once. Doubled by each failure that follows, up to the second; a success begins anew. */
    int64_t backoff_ms;
    int64_t backoff_max_ms; /* 60000 in ASIDE_OPTIONS_INIT */
    /* Once this share of the ttl has passed, the next caller has the value refreshed while it is
     * still fresh: between 0 and 1, both excluded. */
    double refresh_ahead;
    /* XFetch: a caller has a fresh value refreshed with probability exp(-left / (beta * took)),
     * where left is what is left of its ttl, and took how long its fetch took; 1 is a good value,
     * more refreshes earlier; at most 1e6. Vattani, Chierichetti, Lowenstein: Optimal Probabilistic
     * Cache Stampede Prevention, VLDB 2015. */
    double xfetch_beta;
} aside_freshness;

/*
 * A listener for slow fetches: fn is called once for each fetch that took threshold_ms or more from
 * its start, on the thread that ended it, with what it ended with, under no lock. superseded: the
 * flight had grown too old, or the cache was closed. key is borrowed. It may call the cache. One
 * that never ends is never told: aside_flights_write() shows it. fn NULL: none.
 */
typedef struct aside_on_slow {
    void (*fn)(void *ctx, const void *key, size_t key_len, int64_t took_ms, aside_status status,
               int superseded);
    void *ctx;
    int64_t threshold_ms;
} aside_on_slow;

/* How a cache is opened. Start from ASIDE_OPTIONS_INIT. */
typedef struct aside_options {
    size_t struct_size;
    const char *name;           /* copied; for people; default "aside" */
    int64_t reaper_interval_ms; /* between two runs of the reaper; default 300000, five minutes */
    int64_t default_ttl_ms;     /* for callers that name none; default ASIDE_FOREVER */
    int64_t max_flight_age_ms;  /* a flight older than this is superseded (F8); default 30000 */
    int64_t close_wait_ms; /* aside_close() waits that long for running fetches; default 5000 */
    /* 0: no bound */
    size_t max_bytes;   /* reachable through the index (B1); default 64 MiB */
    size_t max_entries; /* default 0 */
    size_t max_flights; /* fetches under way or queued; default 65536 */
    size_t max_waiters; /* callers that join one flight, its leader not counted; default 65536 */
    size_t max_queued;  /* fetches that wait for a worker; default 4096 */
    /* 0: none, and whoever may leave gets ASIDE_E_BUSY */
    size_t fetch_threads; /* most workers; default 8 */
    /* 0: the system's */
    size_t thread_stack_bytes; /* of a worker and of the reaper; default 1 MiB */
    const uint8_t *hash_seed;  /* 16 bytes, copied; NULL: from the system's random source */
    aside_alloc alloc;
    aside_clock clock;
    aside_worker worker;
    aside_submit submit;
    aside_on_remove on_remove;
    int disabled; /* ASIDE_ENABLED, ASIDE_DISABLE_STORE or ASIDE_DISABLE_ALL; default the first */
    aside_jitter jitter; /* of every ttl; all zero: none */
    aside_freshness freshness;
    aside_on_slow on_slow;
} aside_options;

#define ASIDE_OPTIONS_INIT                                                                         \
    {                                                                                              \
        sizeof(aside_options), "aside", 300000, ASIDE_FOREVER, 30000, 5000, (size_t)64 << 20, 0,   \
            65536, 65536, 4096, 8, (size_t)1 << 20, NULL, {NULL, NULL, NULL, NULL}, {NULL, NULL},  \
            {NULL, NULL, NULL}, {NULL, NULL}, {NULL, NULL}, ASIDE_ENABLED,                         \
            {ASIDE_JITTER_DEFAULT, 0}, {0, 0, 1000, 0, 0, 0, 60000, 0, 0},                         \
        {                                                                                          \
            NULL, NULL, 0                                                                          \
        }                                                                                          \
    }

/* ---- life ------------------------------------------------------------------------------------ */

/*
 * Opens a cache. *cache is NULL unless ASIDE_OK is returned; the caller owns one reference.
 *   options  NULL: the defaults. Not kept: what must be kept is copied.
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments, an incomplete allocator, a clock that
 * returns 0 or less, an unknown number in disabled, a jitter of an unknown kind or with an amount
 * that does not suit it, a refresh_ahead of 1 or more, a freshness that is no number, both
 * worker.start and submit.fn; ASIDE_E_NOMEM;
 * ASIDE_E_THREAD if the reaper cannot be started; ASIDE_E_SYSTEM if getrandom(2) fails.
 * Blocking: no. Threads: starts the reaper if the interval asks for one (P2, P3); all signals
 * are blocked in it. With a reaper, aside_close() is owed.
 */
ASIDE_API aside_status aside_open(aside_cache **cache,
                                  const aside_options *options) ASIDE_MUST_CHECK;

/*
 * Closes a cache: callers that wait return ASIDE_E_CLOSED, later calls return ASIDE_E_CLOSED, the
 * reaper is stopped and joined exactly once, fetches that run or are pending are waited for up to
 * close_wait_ms (so whoever is to complete one on this very thread does so before), and every entry
 * is dropped (P1). What still runs then keeps what it needs alive. Handles stay valid. Until an
 * entry is dropped hits are served; but after a write that was told ASIDE_E_CLOSED nobody sees an
 * older value (W1). Idempotent and safe from many threads: all but the first wait until the first
 * has finished. From inside a callback of the same cache it does not wait for that callback, nor
 * for another closer. Returns ASIDE_OK, also the second time; ASIDE_E_INVALID for NULL.
 * Blocking: yes, as said. Callbacks: destructors of values, worker.stop.
 */
ASIDE_API aside_status aside_close(aside_cache *cache);

/* Takes one more reference and returns the cache; NULL for NULL. Blocking: no. */
ASIDE_API aside_cache *aside_ref(aside_cache *cache);

/*
 * Gives one reference back; NULL is ignored. The last one closes the cache if nobody has. From a
 * callback of the cache: allowed. Blocking and callbacks: as aside_close() then.
 */
ASIDE_API void aside_unref(aside_cache *cache);

/* ---- plain verbs ----------------------------------------------------------------------------- */

/*
 * A handle to the fresh value of a key, to be given back with aside_value_unref(). *value is NULL
 * unless ASIDE_OK is returned. The handle's bytes stay as they are whatever happens to the cache
 * (O1). Returns ASIDE_OK, ASIDE_MISS, ASIDE_E_CLOSED, ASIDE_E_INVALID for bad arguments. What is
 * stale, or remembered as not found or failed, is a miss here.
 * Blocking: no lock on a hit; a miss may try one, to remove what is over, and never waits for it (a
 * thread whose record could not be allocated, or that is in its last destructors, takes the shard's
 * lock instead). Callbacks: on a miss, destructors of values that are over.
 * A handle costs a counter on the entry: on a key that all cores read, prefer aside_copy or
 * aside_visit.
 */
ASIDE_API aside_status aside_get(aside_cache *cache, const void *key, size_t key_len,
                                 aside_value **value) ASIDE_MUST_CHECK;

/*
 * Copies the fresh value of a key into a buffer of capacity bytes. *size (may be NULL) is the
 * value's size, also where ASIDE_E_BUFFER is returned because that is more than capacity, nothing
 * being copied then; and 0 where there is none. buffer may be NULL where capacity is 0.
 * Returns ASIDE_OK, ASIDE_MISS, ASIDE_E_BUFFER, ASIDE_E_CLOSED, ASIDE_E_INVALID for bad arguments.
 * Blocking: as aside_get. Hits on a hot key write nothing that threads share.
 */
ASIDE_API aside_status aside_copy(aside_cache *cache, const void *key, size_t key_len, void *buffer,
                                  size_t capacity, size_t *size) ASIDE_MUST_CHECK;

/* Called with a value's bytes, valid and unchanged until it returns. data is 8-byte aligned unless
 * wrapped. */
typedef void aside_visit_fn(const void *data, size_t size, void *ctx);

/*
 * Reads the fresh value of a key in place: no handle, no copy. fn runs on this thread before the
 * call returns, for as long as it likes: it pins this one entry. It may call the cache and may
 * visit again. Returns ASIDE_OK if fn was called, ASIDE_MISS, ASIDE_E_CLOSED, ASIDE_E_INVALID for
 * bad arguments. Blocking: as aside_get, and as fn does. Hits on a hot key write nothing that
 * threads share.
 */
ASIDE_API aside_status aside_visit(aside_cache *cache, const void *key, size_t key_len,
                                   aside_visit_fn *fn, void *ctx) ASIDE_MUST_CHECK;

/*
 * Stores a copy of size bytes (at most 4 GiB - 1) for ttl_ms milliseconds from now; replaces what
 * was there, its ttl included. A fetch of the key that is under way is fenced: its result is not
 * stored (W1). data may be NULL where size is 0, and may lie inside the very entry that is
 * overwritten if a handle or a visit keeps it. ttl 0 stores nothing and drops what was there (W3).
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments; ASIDE_E_NOMEM; ASIDE_E_TOO_LARGE if it can
 * never fit (what was there stays); ASIDE_E_BUSY if room could not be made in time, or if what
 * waits for the grace period (a shard's share of an eighth of max_bytes, at least 16 KiB) could not
 * be freed because a reader stands still; ASIDE_E_CLOSED. Whatever the error, nothing is lost and
 * nothing is stored. Blocking: on the shard's lock, for a bounded time (B4). Callbacks:
 * destructors of other values.
 */
ASIDE_API aside_status aside_set(aside_cache *cache, const void *key, size_t key_len,
                                 const void *data, size_t size, int64_t ttl_ms) ASIDE_MUST_CHECK;

/*
 * As aside_set, for a value that exists: the cache takes a reference of its own, the caller keeps
 * his. The same value may be stored under many keys and in many caches.
 */
ASIDE_API aside_status aside_set_value(aside_cache *cache, const void *key, size_t key_len,
                                       aside_value *value, int64_t ttl_ms) ASIDE_MUST_CHECK;

/*
 * As aside_set if no fresh entry is there, else ASIDE_EXISTS and nothing happens. With ttl 0:
 * ASIDE_EXISTS or ASIDE_OK likewise, nothing is stored. Only a store fences.
 */
ASIDE_API aside_status aside_add(aside_cache *cache, const void *key, size_t key_len,
                                 const void *data, size_t size, int64_t ttl_ms) ASIDE_MUST_CHECK;

/*
 * Drops a key. A caller that enters after the return never sees an older value; a fetch of the key
 * under way is fenced, whether there was an entry or not (W1).
 * Returns ASIDE_OK if a fresh entry was dropped, else ASIDE_MISS; ASIDE_E_CLOSED, ASIDE_E_INVALID.
 * Blocking and callbacks: as aside_set.
 */
ASIDE_API aside_status aside_delete(aside_cache *cache, const void *key, size_t key_len);

/*
 * Ends a key's freshness now: the next caller misses, or is served the stale value as its windows
 * (aside_freshness) allow, which begin now. Fences as aside_delete does. The entry's memory is
 * given back by the reaper, a later write or eviction. What is remembered as not found or failed is
 * over. Returns ASIDE_OK if a fresh entry was expired, else ASIDE_MISS; ASIDE_E_CLOSED,
 * ASIDE_E_INVALID.
 */
ASIDE_API aside_status aside_expire(aside_cache *cache, const void *key, size_t key_len);

/*
 * Gives a fresh entry a new ttl that runs from now. Not a write: it fences nothing; but ttl 0 is
 * aside_delete().
 * Returns ASIDE_OK, ASIDE_MISS if no fresh entry is there, ASIDE_E_CLOSED, ASIDE_E_INVALID.
 */
ASIDE_API aside_status aside_touch(aside_cache *cache, const void *key, size_t key_len,
                                   int64_t ttl_ms);

/*
 * Drops every key and fences every fetch under way. No lock is held longer for a fuller cache: each
 * shard gets an empty table, and the old ones are dismantled in slices, by the reaper if there is
 * one, else before this returns. Not one instant for all keys: a caller that races it may see some.
 * Returns ASIDE_OK, ASIDE_E_CLOSED, ASIDE_E_INVALID. Callbacks: destructors of values.
 */
ASIDE_API aside_status aside_clear(aside_cache *cache);

/* Entries that the index holds, expired ones included that nobody has removed yet; 0 for NULL. */
ASIDE_API size_t aside_count(const aside_cache *cache);

/* ---- get_with_fetch -------------------------------------------------------------------------- */

/*
 * A fetch asks the source of truth for aside_fetch_key(fetch). It says what it found by one of
 *   return aside_fetch_copy(fetch, data, size);     a value: the bytes are copied
 *   aside_fetch_buffer(fetch, size, &to), fill to, return ASIDE_OK;     written in place
 *   return aside_fetch_give(fetch, value);          a value that exists; takes your reference
 *   return aside_fetch_not_modified(fetch);         the previous value is still good
 *   return aside_fetch_not_found(fetch);            there is no such thing
 *   return aside_fetch_fail(fetch, code);           the source failed; code reaches every caller
 *   return ASIDE_PENDING;                           aside_fetch_complete() comes later
 * The source that says "not found" ends a stale value; one that fails does not. Any other negative
 * status reaches the callers as it is; ASIDE_OK without a value, and any other positive status,
 * reaches them as ASIDE_E_INVALID.
 *
 * It runs on the leader's thread or on a worker (aside_call says which). It sees no caller's
 * deadline and no caller's token (C1). It may call the cache, also for its own key:
 * aside_get_with_fetch of that is ASIDE_E_DEADLOCK, plain verbs work, and a write fences this very
 * fetch (F9). Nothing but max_flight_age_ms bounds how long callers wait for it, and nothing stops
 * it: a fetch that may hang needs a timeout of its own.
 */
typedef aside_status aside_fetch_fn(aside_fetch *fetch, void *arg);

/*
 * One call. Zero is a good value for every member but struct_size and fetch:
 *   aside_call call = { ASIDE_CALL, .fetch = load_user, .ttl_ms = 30000 };
 */
typedef struct aside_call {
    size_t struct_size;
    aside_fetch_fn *fetch;
    void *arg;       /* handed to fetch */
    size_t arg_size; /* not 0: that many bytes at arg are copied; fetch sees the copy */
    void (*arg_retain)(void *arg); /* called once by who leads, before the fetch can run ... */
    void (*arg_release)(
        void *arg);          /* ... and this once after it: both or neither, not with arg_size */
    int64_t ttl_ms;          /* of the value, from the store (W3) */
    int64_t timeout_ms;      /* how long this caller waits */
    aside_cancel *cancel;    /* this caller's token; NULL: none. Borrowed for the call. */
    int stop_when_abandoned; /* not 0: aside_fetch_stopping() says so once every caller has left */
    aside_jitter jitter;     /* of the ttl, also of one that the fetch sets */
    aside_freshness freshness;
    /* not 0: fetch does not block, it starts something and returns ASIDE_PENDING, say. So its
     * leader's thread runs it whatever he may do, also in aside_get_async() and for a refresh, and
     * no worker is needed; with worker.start, a worker does all the same. */
    int nonblocking;
} aside_call;

#define ASIDE_CALL .struct_size = sizeof(aside_call)
#define ASIDE_CALL_INIT                                                                            \
    {                                                                                              \
        sizeof(aside_call), NULL, NULL, 0, NULL, NULL, 0, 0, NULL, 0, {ASIDE_JITTER_DEFAULT, 0},   \
            {0, 0, 0, 0, 0, 0, 0, 0, 0}, 0                                                         \
    }

/* How a call got what it got. */
typedef enum aside_outcome {
    ASIDE_OUTCOME_NONE = 0,     /* no flight was led or joined, and no entry was there */
    ASIDE_OUTCOME_HIT = 1,      /* a fresh entry */
    ASIDE_OUTCOME_FETCHED = 2,  /* this caller led the flight */
    ASIDE_OUTCOME_JOINED = 3,   /* another did */
    ASIDE_OUTCOME_STALE = 4,    /* a value past its ttl; stale_cause says why */
    ASIDE_OUTCOME_NEGATIVE = 5, /* it was remembered that there is no such thing */
    ASIDE_OUTCOME_ERROR = 6     /* a failure was remembered */
} aside_outcome;

/* Why a caller got a value past its ttl. */
typedef enum aside_stale_cause {
    ASIDE_STALE_NOT = 0,       /* he did not */
    ASIDE_STALE_REFRESH = 1,   /* a refresh is under way, or was asked for */
    ASIDE_STALE_LATE = 2,      /* the fetch took longer than soft_timeout_ms */
    ASIDE_STALE_ERROR = 3,     /* the fetch failed, or grew too old */
    ASIDE_STALE_THROTTLED = 4, /* an earlier one did, and throttle_ms is not over */
    ASIDE_STALE_BUSY = 5       /* no fetch could be started: a bound was reached */
} aside_stale_cause;

/* What a call came to. Start from ASIDE_RESULT_INIT; every call fills all members anew. A
 * struct_size that ends before outcome is ASIDE_E_INVALID: the value would be lost. */
typedef struct aside_result {
    size_t struct_size;
    aside_value *value; /* with ASIDE_OK: owned by the caller; else NULL */
    aside_outcome outcome;
    int shared;      /* two or more callers were attached when the flight completed (F3) */
    int fenced;      /* a write overtook the fetch, or it was superseded: not stored (W1) */
    int fetch_error; /* the code of aside_fetch_fail, or of worker.start; else 0 */
    int64_t age_ms;  /* since the value was stored, or renewed, or handed over */
    int64_t
        ttl_left_ms; /* of the stored entry; ASIDE_FOREVER; 0 where nothing was stored, or stale */
    aside_stale_cause stale_cause;
    aside_status fetch_status; /* of a stale value: what the fetch failed with, as far as it did */
} aside_result;

#define ASIDE_RESULT_INIT                                                                          \
    {                                                                                              \
        sizeof(aside_result), NULL, ASIDE_OUTCOME_NONE, 0, 0, 0, 0, 0, ASIDE_STALE_NOT, ASIDE_OK   \
    }

/*
 * The value of a key: from the cache, or by a fetch that all callers who miss together share (F1).
 * The first to miss leads: his call's fetch, arg, ttl, jitter and freshness count (F5). Whoever
 * joins waits for the same result. Who runs the fetch:
 *   - with worker.start: a worker, always
 *   - else the leader's own thread, if the call is nonblocking
 *   - else a leader with neither token nor deadline, hard or soft: his own thread, no hand-over
 *   - else a worker (or submit)
 *   - a thread inside a fetch that waits for another fetch in the queue runs that one itself
 * A leader with neither token nor deadline waits until his fetch has ended, whatever becomes of the
 * flight: an argument on his stack is safe. Any other may leave while it runs on, so arg must
 * outlive him: arg_size, or arg_retain with arg_release, or storage that lives for ever (C7).
 * A token that has fired, or ASIDE_NO_WAIT: a hit is served, or what is stale or remembered, else
 * nothing is started or joined, nor is a refresh begun (C2).
 *
 * Returns
 *   ASIDE_OK               result->value is set and owned by the caller; outcome says whether stale
 *   ASIDE_MISS             timeout_ms was ASIDE_NO_WAIT and there was no hit
 *   ASIDE_NOT_FOUND        the fetch said so, or had, and it is remembered
 *   ASIDE_E_FETCH          the fetch failed; result->fetch_error is its code; (F4)
 *   any negative status that the fetch itself returned
 *   ASIDE_E_ABANDONED      the fetch ended without an answer (F7)
 *   ASIDE_E_FETCH_TIMEOUT  the flight was older than max_flight_age_ms (F8)
 *   ASIDE_E_CANCELLED, ASIDE_E_TIMEOUT   this caller left; the fetch runs on (C1). The second also
 *                          where the deadline was his token's
 *   ASIDE_E_BUSY           max_flights, max_waiters, max_queued, max_bytes (of flights), no worker
 *   ASIDE_E_DEADLOCK       this thread is running the fetch of this key, or a fetch that this one
 *                          would wait for waits for a fetch of this thread, over any number of
 *                          threads and caches (F9). Not seen: what a pending fetch waits for
 *   ASIDE_E_FORKED         this thread forked inside the fetch, and is in the child now; or the
 *                          fetch would need options.submit of before a fork
 *   ASIDE_E_WORKER         worker.start failed; result->fetch_error is its status
 *   ASIDE_E_NOMEM, ASIDE_E_CLOSED, ASIDE_E_INVALID for bad arguments, fetch NULL, arg_size or hooks
 *                          that contradict each other, a jitter as in aside_open()
 * A value that could not be stored is handed over all the same (F10). Where a stale value may
 * answer for it (aside_freshness), it does, with ASIDE_OK, for: a fetch that failed or was
 * abandoned, ASIDE_E_FETCH_TIMEOUT, _BUSY, _WORKER and _NOMEM.
 * Blocking: a hit as aside_get; else until the flight completes, the token fires, the deadline or
 * the flight's age passes, or the cache is closed. Threads: may start a worker. Callbacks: fetch,
 * arg_retain, arg_release, destructors.
 */
ASIDE_API aside_status aside_get_with_fetch(aside_cache *cache, const void *key, size_t key_len,
                                            const aside_call *call,
                                            aside_result *result) ASIDE_MUST_CHECK;

/*
 * Has the value of a key fetched in the background, whatever there is, unless a fetch of it is
 * under way; everybody goes on with what there is meanwhile. As a refresh of aside_freshness: of
 * call count fetch, arg, ttl, jitter, freshness and nonblocking; token and timeout do not, nor does
 * stop_when_abandoned: a refresh has no callers who could leave it.
 * Returns ASIDE_OK: it was begun, or one is under way; ASIDE_E_BUSY, ASIDE_E_DEADLOCK,
 * ASIDE_E_FORKED, ASIDE_E_NOMEM, ASIDE_E_CLOSED, ASIDE_E_INVALID as aside_get_with_fetch().
 * Blocking: as aside_set, unless the fetch runs on this thread. Threads: may start a worker.
 * Callbacks: arg_retain, arg_release; the fetch where it runs here.
 */
ASIDE_API aside_status aside_refresh(aside_cache *cache, const void *key, size_t key_len,
                                     const aside_call *call) ASIDE_MUST_CHECK;

/* ---- event loops -----------------------------------------------------------------------------
 *
 * An inbox is one loop's: results of aside_get_async() wait in it until the loop's own thread
 * dispatches them. Any number of caches and flights may use one. aside_get_async() and what
 * completes fetches may run on any thread; aside_inbox_dispatch() and _free() on one thread at a
 * time.
 */

/* What came of an aside_get_async() that had returned ASIDE_PENDING: status and result are what
 * aside_get_with_fetch() would have given. result is borrowed and never NULL, but result->value,
 * NULL without ASIDE_OK, is owned by the callee. It may call the library, also dispatch or free the
 * inbox. */
typedef void aside_done_fn(void *ctx, aside_status status, aside_result *result);

/* A new inbox. *inbox is NULL unless ASIDE_OK is returned. ASIDE_OK, ASIDE_E_INVALID,
 * ASIDE_E_NOMEM; ASIDE_E_SYSTEM if the system gives no descriptors (errno says why), or has none of
 * this kind (other than Linux). Three descriptors, close-on-exec. Blocking: no. */
ASIDE_API aside_status aside_inbox_new(aside_inbox **inbox) ASIDE_MUST_CHECK;

/* The inbox's descriptor: readable while there is something to dispatch, deadlines that have passed
 * included. For poll(2) and its kin, level- or edge-triggered; it belongs to the inbox. *fd is -1
 * unless ASIDE_OK is returned. ASIDE_OK, ASIDE_E_INVALID, ASIDE_E_FORKED. Blocking: no. */
ASIDE_API aside_status aside_inbox_fd(const aside_inbox *inbox, int *fd) ASIDE_MUST_CHECK;

/*
 * Calls the callbacks of what has arrived, at most budget of them (0: as many as there are when it
 * begins), on this thread. *dispatched says how many; may be NULL. What is left keeps the
 * descriptor readable. Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments; ASIDE_E_FORKED in the
 * child of a fork for an inbox of before it. Blocking: no, but as aside_set() where a caller leaves
 * a flight. Callbacks: done; arg_release, destructors.
 */
ASIDE_API aside_status aside_inbox_dispatch(aside_inbox *inbox, size_t budget, size_t *dispatched);

/*
 * Frees an inbox; NULL is ignored. Each of its calls that is not dispatched yet, whether its result
 * has arrived or not, leaves: its callback is called with ASIDE_E_CANCELLED, before this returns.
 * Fetches run on. From a callback of the inbox: allowed; its memory is freed when that has
 * returned. In the child of a fork an inbox of before it is freed without calling anybody.
 * Blocking: as aside_set().
 */
ASIDE_API void aside_inbox_free(aside_inbox *inbox);

/*
 * aside_get_with_fetch() for who must not wait. Key and call are the caller's again at once. A hit,
 * a stale value that is served at once, and a refusal return at once, in *result, and done is not
 * called. Else ASIDE_PENDING: done will be called with ctx, exactly once, by aside_inbox_dispatch()
 * or aside_inbox_free() of inbox. It joins the same flights as blocking callers do.
 *   inbox  NULL: done is called by the thread that completes the flight, under no lock, perhaps
 *          before this returns. Then call->timeout_ms must be 0 or ASIDE_NO_WAIT, soft timeouts are
 *          not heeded, and call->cancel must be NULL: nobody could tell in time.
 * A leader's fetch goes to a worker or to submit, or runs here if the call is nonblocking or there
 * are no workers. Its arg must outlive the call, as where a caller may leave; who joins retains it
 * as well, and releases it when he is done. Where a fetch ends before this returns, its result may
 * still come by the inbox.
 * Cancelling: once call->cancel fires, or the deadline passes, done is called with
 * ASIDE_E_CANCELLED or ASIDE_E_TIMEOUT, unless the value was ready before that, which wins (C3). A
 * token that fires after done was called changes nothing. The token is kept as long as it is
 * needed.
 * Returns as aside_get_with_fetch(), ASIDE_PENDING, and ASIDE_E_FORKED for an inbox of before a
 * fork. Closing the cache completes such calls with ASIDE_E_CLOSED.
 * Blocking: as aside_set(); the fetch, where it runs here. Callbacks: as there.
 */
ASIDE_API aside_status aside_get_async(aside_cache *cache, const void *key, size_t key_len,
                                       const aside_call *call, aside_inbox *inbox,
                                       aside_done_fn *done, void *ctx,
                                       aside_result *result) ASIDE_MUST_CHECK;

/* ---- tags ------------------------------------------------------------------------------------ */

/*
 * Drops every value that has this tag (aside_fetch_add_tag), in O(1): a caller that enters after
 * the return never sees one that is older, fresh or stale (W1). A fetch under way that began before
 * it and adds the tag stores nothing: callers that had joined before get its result, flagged as
 * fenced; later ones start another fetch. The memory is given back by lookups and writes of the
 * keys, by eviction, and when ttl and windows end, as of any value. Returns ASIDE_OK if anything
 * has the tag, else ASIDE_MISS; ASIDE_E_CLOSED; ASIDE_E_INVALID for bad arguments, and for a tag
 * longer than ASIDE_MAX_TAG. Blocking: on a lock that no hit takes, for a bounded time.
 */
ASIDE_API aside_status aside_delete_tag(aside_cache *cache, const void *tag, size_t tag_len);

/* ---- inside a fetch --------------------------------------------------------------------------
 *
 * For the thread that runs the fetch, and after ASIDE_PENDING for the thread that completes it: one
 * thread at a time. None of them blocks or calls back. After completion they return
 * ASIDE_E_INVALID, and in the child of a fork, for a fetch of before it, ASIDE_E_FORKED. When
 * several results are noted, the last counts, and what an earlier one gave is released. For a NULL
 * fetch they return ASIDE_E_INVALID, NULL or 0.
 */

/* The key, valid as long as the fetch is referenced. *key_len may not be NULL. NULL for a NULL
 * fetch. */
ASIDE_API const void *aside_fetch_key(const aside_fetch *fetch, size_t *key_len);

/* What worker.start made for the thread that runs this fetch, or what aside_job_run() was given;
 * else NULL. */
ASIDE_API void *aside_fetch_worker(const aside_fetch *fetch);

/* 1 once every caller has left a call with stop_when_abandoned, the flight has grown too old, the
 * cache was closed, or the process is the child of a fork; else 0.
 * Once it has said 1 to a fetch, a new caller starts a fetch of its own instead of joining. */
ASIDE_API int aside_fetch_stopping(aside_fetch *fetch);

/* The ttl of this value instead of the call's: same meaning. ASIDE_OK, ASIDE_E_FORKED, or
 * ASIDE_E_INVALID. */
ASIDE_API aside_status aside_fetch_set_ttl(aside_fetch *fetch, int64_t ttl_ms);

/* The freshness of this answer, whatever it is, instead of the call's: how long it is served stale,
 * how long it is remembered that there is no such thing, or a failure, and so on. Members that are
 * 0 stay as they are. ASIDE_OK, ASIDE_E_FORKED, or ASIDE_E_INVALID for bad arguments. */
ASIDE_API aside_status aside_fetch_set_freshness(aside_fetch *fetch,
                                                 const aside_freshness *freshness);

/* Gives this value a tag, for aside_delete_tag(); a tag that it has is no error. Best before
 * aside_fetch_buffer() or _copy(): after it, storing costs a second small block. ASIDE_OK,
 * ASIDE_E_NOMEM, ASIDE_E_FORKED; ASIDE_E_BUSY with more than ASIDE_MAX_TAGS, or no room in
 * max_bytes; ASIDE_E_INVALID for bad arguments, a tag longer than ASIDE_MAX_TAG, and for a fetch of
 * a stand-alone group. */
ASIDE_API aside_status aside_fetch_add_tag(aside_fetch *fetch, const void *tag,
                                           size_t tag_len) ASIDE_MUST_CHECK;

/* The key's value in the cache when the fetch began, fresh or within its stale windows; NULL where
 * there is none. For conditional requests. Borrowed until completion: aside_value_ref() keeps
 * it. */
ASIDE_API const aside_value *aside_fetch_previous(const aside_fetch *fetch);

/* The previous value is still good: returns ASIDE_NOT_MODIFIED, for the fetch to return. The entry
 * is renewed in its place, without a copy, as if it were stored now; callers get the previous
 * value. Tags that the fetch adds take the place of those that it had; if it adds none they stay.
 * Returns ASIDE_E_INVALID, also if there is no previous value, or ASIDE_E_FORKED. */
ASIDE_API aside_status aside_fetch_not_modified(aside_fetch *fetch) ASIDE_MUST_CHECK;

/* Room for a value of size bytes (at most 4 GiB - 1) in *to, 8-byte aligned, not initialised, the
 * fetch's own until completion: fill it, then return ASIDE_OK. Any other status discards it.
 * ASIDE_OK, ASIDE_E_NOMEM, ASIDE_E_TOO_LARGE, ASIDE_E_FORKED, ASIDE_E_INVALID. */
ASIDE_API aside_status aside_fetch_buffer(aside_fetch *fetch, size_t size,
                                          void **to) ASIDE_MUST_CHECK;

/* The value is a copy of these bytes. Returns as aside_fetch_buffer. */
ASIDE_API aside_status aside_fetch_copy(aside_fetch *fetch, const void *data,
                                        size_t size) ASIDE_MUST_CHECK;

/* The value is this one. Takes the caller's reference, in every case but ASIDE_E_INVALID.
 * ASIDE_OK, ASIDE_E_FORKED. */
ASIDE_API aside_status aside_fetch_give(aside_fetch *fetch, aside_value *value) ASIDE_MUST_CHECK;

/* There is no such thing: returns ASIDE_NOT_FOUND, for the fetch to return. */
ASIDE_API aside_status aside_fetch_not_found(aside_fetch *fetch) ASIDE_MUST_CHECK;

/* The source failed with code (any int): returns ASIDE_E_FETCH, for the fetch to return. */
ASIDE_API aside_status aside_fetch_fail(aside_fetch *fetch, int code) ASIDE_MUST_CHECK;

/*
 * Completes a fetch from any thread, once, also before its callback has returned ASIDE_PENDING:
 * status is what the callback would have returned. The caller must hold a reference of his own
 * (aside_fetch_ref, taken inside the callback) and still owes aside_fetch_unref() afterwards.
 * Returns ASIDE_OK; ASIDE_E_INVALID the second time, for NULL, and for status ASIDE_PENDING;
 * ASIDE_E_FORKED in the child of a fork, where nobody waits for it.
 * Blocking: as aside_set. Callbacks: destructors, arg_release.
 */
ASIDE_API aside_status aside_fetch_complete(aside_fetch *fetch, aside_status status);

/* One more reference; returns fetch, NULL for NULL. Valid inside the callback or while another
 * reference is held. */
ASIDE_API aside_fetch *aside_fetch_ref(aside_fetch *fetch);

/* Gives a reference back; NULL is ignored. The last one without a completion abandons the flight:
 * its callers get ASIDE_E_ABANDONED (F7). */
ASIDE_API void aside_fetch_unref(aside_fetch *fetch);

/* ---- an executor of one's own ---------------------------------------------------------------- */

/* Runs the fetch on this thread. worker is what aside_fetch_worker() will return. Uses the job
 * up. In the child of a fork a job of before it is used up without being run. NULL is ignored. */
ASIDE_API void aside_job_run(aside_job *job, void *worker);

/* The fetch will not run: its callers get ASIDE_E_ABANDONED. Uses the job up. NULL is ignored. */
ASIDE_API void aside_job_drop(aside_job *job);

/* ---- cancellation tokens ---------------------------------------------------------------------
 *
 * A token is by what a caller leaves: for each request, say, one that fires when the client goes
 * away. Any number of calls may use one, on any threads and with any caches and groups (C6).
 */

/* A new token that has not fired; the caller owns one reference. ASIDE_OK, ASIDE_E_NOMEM,
 * ASIDE_E_INVALID. */
ASIDE_API aside_status aside_cancel_new(aside_cancel **token) ASIDE_MUST_CHECK;

/*
 * A new token that fires when parent does, at once if it has, and may be fired alone. It keeps what
 * it needs of its parent: the two may be given back in any order. Returns as aside_cancel_new.
 */
ASIDE_API aside_status aside_cancel_child(aside_cancel *parent,
                                          aside_cancel **token) ASIDE_MUST_CHECK;

/* One more reference; returns the token; NULL for NULL. */
ASIDE_API aside_cancel *aside_cancel_ref(aside_cancel *token);

/* Gives a reference back; NULL is ignored. Calls that use the token must have returned. The last
 * one closes its descriptor. */
ASIDE_API void aside_cancel_unref(aside_cancel *token);

/*
 * Fires a token and its children: every call that waits with one returns ASIDE_E_CANCELLED, unless
 * its value is ready, which wins (C3). For ever; idempotent; from any thread, also inside a fetch
 * (C6); not from a signal handler. NULL is ignored. Blocking: on a lock, for as long as it takes
 * to wake the token's waiters.
 */
ASIDE_API void aside_cancel_fire(aside_cancel *token);

/*
 * Gives a token a deadline, timeout_ms from now: past it, calls that use the token or a child of
 * it return ASIDE_E_TIMEOUT, and aside_cancel_fired() says 1. Of several deadlines, of the token
 * and of its parents, the earliest counts; a later one changes nothing. ASIDE_FOREVER is none.
 *   clock  NULL: the system's monotonic clock. Else as in aside_options, copied; its ctx must
 *          outlive the token and its children. A call waits by the earlier of its own and
 *          the token's deadline, each on its own clock; after moving a clock of your own, call
 *          aside_clock_changed() for the caches whose callers wait.
 * A token, its parents and its children have one clock: the first deadline among them decides.
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments, and for another clock than theirs.
 * Blocking: as aside_cancel_fire().
 */
ASIDE_API aside_status aside_cancel_set_deadline(aside_cancel *token, int64_t timeout_ms,
                                                 const aside_clock *clock) ASIDE_MUST_CHECK;

/* 1 if the token, or a parent of it, has fired or is past its deadline, else 0 (also for NULL).
 * Blocking: no. */
ASIDE_API int aside_cancel_fired(const aside_cancel *token);

/* What a call with the token would leave with now: ASIDE_OK, ASIDE_E_CANCELLED if it, or a parent,
 * has been fired, ASIDE_E_TIMEOUT if only a deadline is past. ASIDE_OK for NULL. Blocking: no. */
ASIDE_API aside_status aside_cancel_status(const aside_cancel *token);

/*
 * A descriptor that becomes readable, for good, when the token fires or its deadline passes: for
 * poll(2) and its kin. It belongs to the token: do not read, write or close it. Made by the first
 * call, close-on-exec; the same afterwards.
 * A deadline on a clock of your own makes it readable when somebody asks aside_cancel_fired() or
 * aside_cancel_status(), or waits with the token, after that.
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments, *fd is -1 then; ASIDE_E_SYSTEM if the system
 * gives none (errno says why), or has none of this kind (other than Linux); ASIDE_E_FORKED in the
 * child of a fork if it was made before. Blocking: as aside_cancel_fire().
 */
ASIDE_API aside_status aside_cancel_fd(aside_cancel *token, int *fd) ASIDE_MUST_CHECK;

/* ---- values ---------------------------------------------------------------------------------- */

/* A new value, a copy of size bytes. ASIDE_OK, ASIDE_E_NOMEM, ASIDE_E_INVALID. */
ASIDE_API aside_status aside_value_copy(const void *data, size_t size,
                                        aside_value **value) ASIDE_MUST_CHECK;

/*
 * A new value that stands for ptr. size is what a cache counts for it, and aside_value_size() says.
 * free_fn (may be NULL) is called exactly once, after the last reference is gone and no reader can
 * look at it any more, on whatever thread that happens, never under a lock (O2, O3).
 * On error ptr stays the caller's, and free_fn is not called. ptr may be NULL where size is 0.
 * Returns as aside_value_copy.
 */
ASIDE_API aside_status aside_value_wrap(void *ptr, size_t size,
                                        void (*free_fn)(void *ptr, void *ctx), void *ctx,
                                        aside_value **value) ASIDE_MUST_CHECK;

/*
 * Says what a cache is to count for a value in max_bytes, in the place of its size: what it keeps
 * alive elsewhere, or what it would cost to fetch it again. The entry that holds it is counted
 * besides, with its key. A cost that can never fit is refused like a size.
 * Only for a value of aside_value_copy() or _wrap() that has one reference, the caller's: nobody
 * else may use it yet, so no cache counts it.
 * Returns ASIDE_OK; ASIDE_E_INVALID for NULL, for a value that came from a cache and for one with
 * more references: nothing has changed then. Blocking: no.
 */
ASIDE_API aside_status aside_value_set_cost(aside_value *value, size_t cost) ASIDE_MUST_CHECK;

/* One more reference; returns value; NULL for NULL. */
ASIDE_API aside_value *aside_value_ref(aside_value *value);

/* Gives a reference back, on any thread, also after the cache is gone; NULL is ignored. Callbacks:
 * the value's destructor. */
ASIDE_API void aside_value_unref(aside_value *value);

/* The bytes, or the wrapped pointer; NULL for NULL. Valid while the reference is held. */
ASIDE_API const void *aside_value_data(const aside_value *value);

/* Their number; 0 for NULL. */
ASIDE_API size_t aside_value_size(const aside_value *value);

/* ---- upkeep ---------------------------------------------------------------------------------- */

/*
 * Removes expired entries and frees what nobody can reach any more, in slices of at most 64 entries
 * a lock hold (B4). For caches without a reaper; harmless beside one.
 *   budget   most entries to look at; 0: no bound. A call ends early once it is used up.
 *   *reaped  entries removed; may be NULL.
 * Returns ASIDE_OK, ASIDE_E_CLOSED, ASIDE_E_INVALID. Blocking: as aside_set. Callbacks:
 * destructors.
 */
ASIDE_API aside_status aside_reap(aside_cache *cache, size_t budget, size_t *reaped);

/* ASIDE_OK while the cache is open, else ASIDE_E_CLOSED; ASIDE_E_INVALID for NULL. */
ASIDE_API aside_status aside_health(const aside_cache *cache);

/* Says that options.clock has moved: whoever waits for an instant looks again. ASIDE_OK or
 * ASIDE_E_INVALID. */
ASIDE_API aside_status aside_clock_changed(aside_cache *cache);

/* ---- statistics ------------------------------------------------------------------------------ */

/*
 * X(name, text). Counters since the cache was opened, then gauges. While nothing runs the counters
 * are exact (S1): lookups = hits + stale + negative_hits + error_hits + misses + misses_led +
 * misses_joined + refused.
 */
#define ASIDE_COUNTER_MAP(X)                                                                       \
    X(hits, "lookups that a fresh entry answered")                                                 \
    X(stale, "lookups that a stale value answered at once")                                        \
    X(negative_hits, "lookups that a remembered not-found answered")                               \
    X(error_hits, "lookups that a remembered failure answered")                                    \
    X(misses, "plain lookups that found no fresh entry")                                           \
    X(misses_led, "calls that missed and led a flight")                                            \
    X(misses_joined, "calls that missed and joined a flight")                                      \
    X(refused, "calls that missed and were neither led nor joined")                                \
    X(sets, "entries stored by a caller")                                                          \
    X(deletes, "fresh entries dropped by delete, or by ttl 0")                                     \
    X(expires, "fresh entries ended by expire")                                                    \
    X(touches, "entries given a new ttl")                                                          \
    X(clears, "times the cache was cleared")                                                       \
    X(evicted, "entries removed to keep a bound")                                                  \
    X(expired, "entries removed because their time was over")                                      \
    X(store_refused, "values that could not be stored")                                            \
    X(fetches, "fetches that ran")                                                                 \
    X(fetch_stored, "fetches whose value was stored")                                              \
    X(fetch_not_modified, "fetches that renewed the previous value")                               \
    X(fetch_not_found, "fetches that found nothing")                                               \
    X(fetch_errors, "fetches that failed")                                                         \
    X(fetch_abandoned, "fetches that ended without an answer")                                     \
    X(fetch_fenced, "fetches overtaken by a write, by the flight's age, or by closing")            \
    X(superseded, "flights that grew too old")                                                     \
    X(refreshes, "fetches that were begun in the background")                                      \
    X(stale_late, "callers that waited, and took a stale value at their soft timeout")             \
    X(stale_errors, "callers that a stale value answered for a failure")                           \
    X(shared, "callers that were given a shared result")                                           \
    X(cancelled, "callers that left by their token")                                               \
    X(timeouts, "callers that left by their deadline")

#define ASIDE_GAUGE_MAP(X)                                                                         \
    X(entries, "entries that the index holds")                                                     \
    X(bytes, "bytes reachable through the index, as max_bytes bounds them")                        \
    X(limbo_bytes, "bytes that wait for the grace period")                                         \
    X(pinned_bytes, "bytes that only handles and visits keep")                                     \
    X(flights_now, "fetches under way or queued")                                                  \
    X(waiters_now, "callers that wait for a flight")                                               \
    X(queued_now, "fetches that wait for a worker")                                                \
    X(workers_now, "worker threads alive")

/*
 * X(verb). Calls by operation and by outcome: <verb>_ok counts ASIDE_OK; <verb>_none a positive
 * status, so no value and no error (ASIDE_MISS, ASIDE_NOT_FOUND, ASIDE_EXISTS); <verb>_error a
 * negative one, but for ASIDE_E_INVALID where there is no cache to count it. set counts
 * aside_set_value as well.
 */
#define ASIDE_OPERATION_MAP(X)                                                                     \
    X(get)                                                                                         \
    X(copy)                                                                                        \
    X(visit)                                                                                       \
    X(set)                                                                                         \
    X(add)                                                                                         \
    X(delete)                                                                                      \
    X(expire)                                                                                      \
    X(touch)                                                                                       \
    X(clear)                                                                                       \
    X(get_with_fetch)                                                                              \
    X(get_async)                                                                                   \
    X(refresh)                                                                                     \
    X(delete_tag)

typedef struct aside_stats {
    size_t struct_size;
#define ASIDE_STATS_MEMBER(name, text) uint64_t name;
    ASIDE_COUNTER_MAP(ASIDE_STATS_MEMBER)
    ASIDE_GAUGE_MAP(ASIDE_STATS_MEMBER)
#undef ASIDE_STATS_MEMBER
#define ASIDE_STATS_OPERATION(verb) uint64_t verb##_ok, verb##_none, verb##_error;
    ASIDE_OPERATION_MAP(ASIDE_STATS_OPERATION)
#undef ASIDE_STATS_OPERATION
} aside_stats;

/* Set stats->struct_size = sizeof *stats first; the rest is filled. ASIDE_OK, ASIDE_E_INVALID; a
 * closed cache answers too. Blocking: on locks that no hit takes. */
ASIDE_API aside_status aside_stats_get(const aside_cache *cache,
                                       aside_stats *stats) ASIDE_MUST_CHECK;

/* Takes a piece of text, not ended by 0. Any other status than ASIDE_OK ends the writing. */
typedef aside_status aside_write_fn(void *ctx, const char *text, size_t length);

/*
 * Writes the statistics of so many caches in Prometheus' text format (0.0.4), for a scrape:
 * counters as aside_<name>_total and gauges as aside_<name>, by the names of ASIDE_COUNTER_MAP and
 * ASIDE_GAUGE_MAP; aside_operations_total{operation,outcome}; and the histogram
 * aside_fetch_duration_seconds of fetches that ran. Every sample has the label cache, options.name.
 * write is called on this thread, several times, under no lock; pieces may end anywhere.
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments, and for two caches of one name, nothing
 * being written then; ASIDE_E_NOMEM, likewise; or what write returned. A closed cache answers too.
 * Blocking: as aside_stats_get. Callbacks: write.
 */
ASIDE_API aside_status aside_stats_write(aside_cache *const *caches, size_t count,
                                         aside_write_fn *write, void *ctx) ASIDE_MUST_CHECK;

/*
 * Writes the fetches of so many caches that are under way, as a JSON array of objects, for people
 * and their tools: cache (options.name), key (bytes outside of printable ASCII as \u00XX; cut after
 * 128 bytes), age_ms, waiters (callers attached), state ("queued", "running" or "pending"),
 * background (true: a refresh), fenced, superseded (true: it has grown too old, or the cache is
 * closed; its fetch still runs). Of a shard of a cache at most 32 are shown; an object with cache
 * and not_shown says how many are not. Not one instant for all.
 * write is called on this thread, several times, under no lock; pieces may end anywhere.
 * Returns ASIDE_OK; ASIDE_E_INVALID for bad arguments; ASIDE_E_NOMEM; or what write returned.
 * Blocking: on each shard's lock, for a bounded time. Callbacks: write.
 */
ASIDE_API aside_status aside_flights_write(aside_cache *const *caches, size_t count,
                                           aside_write_fn *write, void *ctx) ASIDE_MUST_CHECK;

/* ---- text ------------------------------------------------------------------------------------ */

/* What a status means, in a short sentence; "unknown status" for other numbers. Static storage. */
ASIDE_API const char *aside_strerror(aside_status status);

/* "ASIDE_E_BUSY" and the like; "ASIDE_UNKNOWN" for other numbers. Static storage. */
ASIDE_API const char *aside_status_name(aside_status status);

/* "expired" and the like, as ASIDE_CAUSE_MAP has them; "unknown" for other numbers. Static
 * storage. */
ASIDE_API const char *aside_cause_name(aside_cause cause);

/* ASIDE_VERSION of the library that is linked. Static storage. */
ASIDE_API const char *aside_version(void);

#ifdef __cplusplus
}
#endif

#endif
