/*
 * flight/group -- singleflight: for one key, at most one fetch under way that may still store its
 * result (F1).
 *
 * Most groups have one flight at a time, so one is kept outside the table: that is half the work
 * for a flight which nobody joins.
 *
 * A group belongs to whoever owns the lock that it is used under: a shard of a cache, or a
 * stand-alone group. A flight is one fetch with all who wait for it.
 *
 * Where the owner allows it, a group in which nothing is under way has room for one flight that its
 * thread begins and ends without the lock (flight/solo):
 *
 *   room -- compare and swap --> solo -- compare and swap --> room     nobody came
 *     |                           |
 *     |                           \-- group_lock: adopted --\          then it is like any other
 *     \-- group_lock --------------------------------------> shared
 *                                       shared -- group_unlock, nothing under way --> room
 *
 * Only who holds the lock leaves `shared`, and whoever takes it looks there first: so under the lock
 * all is as if there were no such flights.
 *
 *   current ----- group_settle ------------------> settled       completion: stored
 *      |  \------ group_supersede ---------------> settled       too old
 *      |                                              |
 *      \- group_fence -> detached, fenced -- settle --+       a write came between
 *
 *   current    the table leads from the key to it: newcomers join
 *   fenced     its result must not be stored
 *   settled    the verdict for those who wait is final. Set once, under the lock; read without it.
 *
 * A flight may be settled while its fetch still runs (superseded, closed): the fetch then finds it
 * so, and stores nothing. Settling happens under the lock, waking after it is released
 * (flight_wake), by one who holds a reference.
 *
 * References: the fetch's handles hold one together, each waiter one. At 0 the flight is freed.
 *
 * In the child of a fork the flights of before it are lost: they are in no table, nobody decides
 * them, and those that other threads had a reference to stay allocated.
 */
#ifndef ASIDE_FLIGHT_GROUP_H
#define ASIDE_FLIGHT_GROUP_H

#include "base/clock.h"
#include "base/fork.h"
#include "base/home.h"
#include "base/lock.h"
#include "base/park.h"
#include "base/table.h"
#include "flight/executor.h"
#include "store/entry.h"

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct flight;

/* What the room above does for its flights. No lock is held. */
struct flight_owner {
    /* The fetch has decided: store, settle and wake. */
    void (*publish)(struct flight *flight);
    /* A flight that was led has been freed; it was charged so many bytes. */
    void (*release)(void *owned_by, size_t charge);
    /* Under the group's lock: a flight was begun without it. NULL: that is not done. */
    void (*adopt)(void *owned_by);
    /* Makes room for so many bytes in what bounds the owner; false if that cannot be. NULL: nothing
     * does. */
    bool (*make_room)(const struct flight *flight, size_t bytes);
};

#define GROUP_SHARED ((struct flight *)1)

/* Who is told what becomes of a flight, without a thread that waits for it. */
struct flight_watcher {
    /* guarded by *group->lock */
    struct flight_watcher *next, *prev;
    bool listed;
    /* It is settled: once, by who has taken the watcher off the list. No lock is held. */
    void (*settled)(struct flight_watcher *watcher);
    /* The clock has moved. The group's lock is held. */
    void (*nudged)(struct flight_watcher *watcher);
};

/*
 * How many flights there may be in all groups of one owner. Groups take credits one by one, and
 * keep a few of those that come back, so that flights of different keys write no line in common.
 */
struct flight_bound {
    size_t max;  /* immutable; 0: no bound */
    size_t kept; /* immutable: most that one group keeps */
    _Atomic size_t credits;
};

struct group {
    struct lock *lock;          /* the owner's; immutable */
    struct flight_bound *bound; /* immutable; NULL: none */
    struct flight *only;        /* a current flight that is not in the table; guarded by *lock */
    struct table current;       /* the others, by key; guarded by *lock */
    struct flight *flights;     /* every flight that is not settled; guarded by *lock */
    struct flight *outrun;      /* those that are, though their fetch goes on; guarded by *lock */
    uint64_t stamp;             /* moves when all keys are written at once; guarded by *lock */
    size_t running;             /* flights under way or queued; guarded by *lock */
    size_t credits;             /* for more of them; guarded by *lock */
    bool closed;                /* nothing may be led or joined; guarded by *lock */
    bool has_room;              /* for solo flights; immutable */
    _Atomic(struct flight *) solo; /* NULL: room for one; or GROUP_SHARED */
};

enum flight_stop { STOP_NO, STOP_ASKED, STOP_HEARD };

/* How far a fetch has come. */
enum flight_phase { FLIGHT_QUEUED, FLIGHT_RUNNING, FLIGHT_PENDING };

/* What the fetch has said so far. The fetch's own until it decides; immutable after that. */
struct flight_answer {
    aside_status status;
    struct entry *entry; /* with the value inside, not yet linked */
    aside_value *given;  /* or a value that existed */
    bool not_modified;   /* which is the previous one */
    int code;
    int64_t ttl_ms; /* these two as in aside_call */
    aside_jitter jitter;
    struct tag_set *tags; /* NULL: none */
};

struct flight {
    uint32_t magic;
    /* immutable */
    const struct flight_owner *owner;
    void *owned_by; /* the host */
    struct group *group;
    struct executor *executor; /* NULL: none */
    struct home *home;
    const aside_clock *clock;
    uint64_t hash;
    aside_fetch_fn *fetch;
    void *arg;
    void (*arg_release)(void *arg);
    uint32_t generation; /* of the process */
    int64_t started_ns;
    int64_t deadline_ns; /* past it the flight is too old; CLOCK_NEVER */
    bool stops;          /* stop_when_abandoned */
    bool rare;           /* what it brings is made to live by its rules */
    bool background;     /* it is a refresh: nobody led it who waits */
    struct tags *tags;   /* of its owner; NULL: it has none */
    uint64_t read_at;    /* the tags' count when it began */
    aside_freshness
        rules; /* only a cache's flights have any; the stale windows are the fetch's own */
    aside_value *previous; /* a reference to what was there when it was led, or NULL */
    bool previous_tagged;  /* that had tags */
    size_t charge;
    size_t key_len;
    const unsigned char *key;
    /* guarded by *group->lock */
    struct table_node node;
    /* from here on all is 0 at first */
    struct flight *next, **link; /* of group->flights, or of group->outrun */
    _Atomic(struct flight_watcher *)
        watchers;                        /* read without the lock to see if there are any ... */
    struct flight_watcher *last_watcher; /* ... first come, first told */
    bool current, fenced;
    uint32_t waiters;     /* callers attached, the leader included ... */
    bool leader_attached; /* ... as long as he has not left */
    uint64_t stamp;
    bool on_worker;       /* its fetch runs on one of the executor's threads ... */
    bool leftover;        /* ... and nobody waits for that any more: counted by the executor */
    _Atomic bool counted; /* in group->running; read without the lock */
    _Atomic bool offered; /* its job is in the executor's queue by now, or will never be */
    /* settled under the lock, read without */
    _Atomic bool settled;
    aside_status verdict; /* these two before settled, never after */
    bool shared;
    struct park park;
    /* atomic */
    _Atomic uint32_t refs;
    _Atomic uint32_t handles; /* of the fetch: its runner, and aside_fetch_ref */
    _Atomic uint32_t decided;
    _Atomic uint32_t stop;  /* enum flight_stop */
    _Atomic uint32_t phase; /* enum flight_phase; for who writes down what is under way */
    /* the fetch's own */
    void *worker;
    bool ran;
    bool decides_at_leaders; /* was decided in the call that led it, which gave no handle away */
    int64_t began_ns;        /* precise clock: when the fetch left the queue */
    struct flight_answer answer;
    /* set by publish, before settled */
    aside_value *value; /* the flight's reference */
    bool answered;      /* the verdict is the answer */
    bool stored;
    _Atomic bool ended;   /* the fetch has decided, and all that is above is set */
    bool overtaken;       /* it was fenced, or superseded, or the cache closed */
    bool outdated;        /* by a tag that it has, or that the previous value had which it brings */
    int64_t published_ns; /* coarse clock; 0: just now */
    int64_t fresh_until_ns;
    struct job job;
    /* guarded by GRAPH */
    const struct flight *blocked_on;    /* what the thread that runs the fetch waits for ... */
    bool awaits_end;                    /* ... until its fetch has ended, whatever its verdict */
    _Alignas(16) unsigned char bytes[]; /* arg, then key */
};

struct flight_key {
    uint64_t hash;
    const void *bytes;
    size_t len;
};

struct flight_options {
    const struct flight_owner *owner;
    void *owned_by;
    struct executor *executor;
    struct home *home;
    const aside_clock *clock;
    int64_t now_ns; /* precise */
    int64_t max_age_ms;
};

/* groups: how many share the bound. */
void flight_bound_init(struct flight_bound *bound, size_t max, size_t groups);
void group_init(struct group *group, struct lock *lock, const struct mem *mem,
                struct flight_bound *bound);
void group_fini(struct group *group);
/* Once, before it is used: solo flights may be. */
void group_make_room(struct group *group);

void group_lock(struct group *group) ACQUIRES(group->lock);
void group_unlock(struct group *group) RELEASES(group->lock);

/* ---- a flight -------------------------------------------------------------------------------- */

/* Bytes of a flight for this key and call, or 0 if that cannot be said. */
size_t flight_size(size_t key_len, const aside_call *call);
/* With the lock held, of a flight that is not settled. */
void flight_watch(struct flight *flight, struct flight_watcher *watcher);
/* Takes the lock. False: it was told, or will be at once. */
bool flight_unwatch(struct flight *flight, struct flight_watcher *watcher);
/* With the lock held: the clock has moved, so whoever waits looks again. */
void flight_nudge(struct flight *flight);

/* A flight in a block of flight_size(), with two references, the leader's and the fetch's, and one
 * waiter attached. */
void flight_prepare(struct flight *flight, const struct flight_options *options,
                    const struct flight_key *key, const aside_call *call);
/* The same in a new block. NULL: no memory. */
struct flight *flight_new(const struct flight_options *options, const struct flight_key *key,
                          const aside_call *call);
/* When it began, and when it is too old; max_age_ms 0: never. */
static inline void flight_date(struct flight *flight, int64_t now_ns, int64_t max_age_ms)
{
    flight->started_ns = flight->began_ns = now_ns;
    flight->deadline_ns = max_age_ms ? clock_after_ms(now_ns, max_age_ms) : CLOCK_NEVER;
}
/* Of one that is to be led by nobody who waits for it, before others can see it. offered: its job will
 * never be in the executor's queue. */
void flight_go_unattended(struct flight *flight, bool offered);
/* Retains the argument of a flight that is led, for a call that has arg_retain, before its fetch
 * can run: user code, so not under the lock. */
void flight_keep_argument(struct flight *flight, const aside_call *call);
/* Of a flight that was led or joined. */
void flight_unref(struct flight *flight);
/* Of one that nobody else has seen. */
void flight_discard(struct flight *flight);
/* After settling, and after the lock is released. */
void flight_wake(struct flight *flight);
/* The same by who has decided it: a leader who was alone is awake. */
static inline void flight_wake_others(struct flight *flight)
{
    if (!flight->decides_at_leaders || flight->shared)
        flight_wake(flight);
}
/* It was made before this process was forked. */
static inline bool flight_is_lost(const struct flight *flight)
{
    return flight->generation != fork_generation();
}

/* How entries are made for what it brings. */
static inline unsigned flight_marks(const struct flight *flight)
{
    return flight->rare ? ENTRY_RARE : 0;
}

/* Counts the fetch by what came of it, before its callers can see that. Under any lock. */
void flight_count(const struct flight *flight);
/* The part of it that says why there is no value. */
void flight_count_failure(const struct flight *flight);

static inline bool flight_is_settled(const struct flight *flight)
{
    return load_acquire(&flight->settled);
}

/* ---- transitions; the lock is held ---------------------------------------------------------- */

/*
 * The key's current flight, joined: one more waiter, and a reference for him. NULL: there is none;
 * or *full, as many have joined as max_waiters says (0: no bound). A flight that is past its age,
 * that a write to all keys overtook, or that has been told to stop is put off the table first; if
 * that settled it, *old comes with a reference: the caller wakes and unrefs it after releasing the
 * lock.
 */
struct flight *group_join(struct group *group, const struct flight_key *key, int64_t now_ns,
                          size_t max_waiters, bool *full, struct flight **old);
/* The one that could be joined, without joining it; NULL: none. */
struct flight *group_find(struct group *group, const struct flight_key *key, int64_t now_ns,
                          struct flight **old);
/* Counts a flight that is to be led; false if there are as many as there may be. */
bool group_begin(struct group *group, struct flight *flight);
/* Its fetch has ended, or it is not led after all. Idempotent. */
void group_end(struct group *group, struct flight *flight);
/* Makes a flight the key's current one, after group_join() found none. False: no memory. */
bool group_lead(struct group *group, struct flight *flight);
/* The same, but nobody will join it. */
void group_lead_alone(struct group *group, struct flight *flight);
/* The verdict; false if there is one already. Then it is offered as well. */
bool group_settle(struct flight *flight, aside_status verdict);
/* A write of the key: its flight, if there is one, is fenced and detached. True if there was. */
bool group_fence(struct group *group, const struct flight_key *key);
/* A write of all keys, in O(1): the flights notice by their stamps. */
void group_fence_all(struct group *group);
/* True if a result of the flight may be stored. */
bool group_may_store(const struct flight *flight);
/* The flight is too old: false if it was settled by then. */
bool group_supersede(struct flight *flight);
/* A worker is about to run the fetch: false if it is too late for that; and it has run it. */
bool group_begin_on_worker(struct flight *flight);
void group_end_on_worker(struct flight *flight);
/* One caller leaves; false if the flight is settled by then, and its verdict is his. */
bool group_leave(struct flight *flight, bool is_leader);
/* In the child of a fork. */
void group_fork_child(struct group *group);

#endif
