/*
 * flight -- the singleflight state machine of src/flight/group.c with cancel, delete and close.
 *
 * Modelled: one key in one shard. The shard's lock, the index (read without a lock), the table of
 * flights, the parking word with the futex's compare-and-sleep, one token with its lock, references,
 * and freed memory. A caller without a token leads on its own thread, and what its fetch says is its
 * answer; the one with a token hands the fetch to a worker. The transitions group_join, group_lead,
 * group_settle, group_fence, group_fence_all, group_supersede and group_leave, and the fields of a
 * flight, carry the names that group.c gives them (names.sh compares).
 *
 * Left out: other keys (they share the lock and nothing else), expiry and stale values, the caller's
 * deadline (it leaves as a cancelled one does), asking an abandoned fetch to stop, fetches that complete
 * later, the caps on flights and waiters, failed allocation, spurious wake-ups (they could only hide a
 * lost one), close's wait for running fetches, and every order weaker than sequential: what is read
 * without a lock here (index, settled, the waiter's state, word) is published with release and read with
 * acquire there.
 *
 * A step: one access that others can see without the lock. What happens under a lock round one such
 * access belongs to its step, for nobody could tell; a lock hold with two of them is two steps.
 *
 * The source of truth counts versions, so an old value shows. `ghost` variables belong to the proof.
 * A fetch may also be SLOW: it ends only after everybody who can leave has left. So a caller that is
 * cancelled, closed or superseded and sleeps on shows as a deadlock, not as a late return.
 *
 * Configuration (-D):
 *   CALLERS=n    callers 0 .. n-1; caller 0 has the token. CANCEL, CLOSE, SUPERSEDE: the events.
 *   DELETE, SET, CLEAR  a writer that changes the source and deletes or sets the key, or clears all
 *                keys at once (the flights notice by their stamps), and then reads the key.
 *   FAIL         the fetch may fail.
 *
 * What is asserted, by the promise it belongs to:
 *   F1  at most one fetch that may still store; none where none is due (ghost `due`)
 *   F3  one verdict, one value, one `shared` bit a flight, and the bit is true
 *   W1  who enters after the write has returned sees no older value; who joined before gets it flagged
 *   C1-C3  only the token's owner is cancelled; a fired token joins nothing; a ready value wins
 *   P1  after close has returned nobody waits, and later calls get CLOSED
 *   memory: nothing is touched after it was freed; every flight is freed exactly once
 *   never the shard's and the token's lock together; every caller ends (no invalid end state)
 *
 * Faults, one at a time (-DFAULT_n), each of which has to be found:
 *   1  no second look at the index under the lock
 *   2  fence without detach
 *   3  settle removes whatever flight is in the table
 *   4  wake before settled
 *   5  cancel swaps the state but leaves the word: lost wake-up
 *   6  store does not test fenced
 *   7  the waiter's reference is dropped before it has unregistered: freed while the token wakes it
 *   8  close settles and wakes before it marks closed
 *   9  leave does not look at settled again
 *  10  the runner drops its reference before it wakes
 *  11  close wakes flights to which it holds no reference
 *  12  store does not test settled: a superseded fetch stores
 *  13  a second verdict overwrites the first
 *  14  the flight is removed in one lock hold, and the value stored in the next
 *  15  close settles the current flight only, not the detached ones
 *  16  a newcomer joins a flight that a clear overtook
 *  17  a fired token is believed without another look at the index
 */

#ifndef CALLERS
#define CALLERS 2
#endif
#if defined(DELETE) || defined(SET) || defined(CLEAR)
#define WRITER
#define N (CALLERS + 1) /* the writer reads afterwards, as caller number CALLERS */
#else
#define N CALLERS
#endif
#if defined(CANCEL) || defined(SUPERSEDE)
#define has_token(c) ((c) == 0)
#else
#define has_token(c) false
#endif

#define NONE N  /* no flight; a caller leads at most one, so N flights are enough */
#define EMPTY 0 /* no value in the index; versions count from 1 */

mtype = { NOTHING, VALUE, ERROR, FETCH_TIMEOUT, CLOSED, CANCELLED };

typedef flight {
    /* guarded by the shard's lock; settled is read without it, and once it is set, the results */
    bool current; /* in the table: the key's current one */
    bool fenced;  /* a write overtook it: the result is not stored */
    bool settled; /* the verdict is final */
    mtype verdict;
    byte value;
    bool overtaken; /* may not be stored: those who get it are told */
    bool shared;
    byte waiters;
    byte stamp; /* of the group when it was led */
    /* atomic */
    byte refs;
    byte word; /* the parking word: a sequence number */
    /* ghost */
    bool running, seen, freed; /* seen: a caller has taken the verdict */
};
flight fl[N];

/* The shard. */
byte shard_lock; /* 0, or 1 + the holder's process number */
byte index = EMPTY;
byte table = NONE;
bool closed;
byte stamp; /* moves when all keys are written at once */
byte flights; /* led so far */

/* The token, and each caller's waiter, which lives as long as the caller's reference. */
byte token_lock;
bool fired;
typedef waiter {
    bool registered;
    bool cancelled; /* the state: PENDING or CANCELLED */
    bool asleep;
    byte on; /* its flight */
};
waiter w[N];

byte handed = NONE; /* the flight that waits for the worker */
byte source = 1;

/* ghost */
bool due = true; /* a fetch is warranted: nothing is stored, and no fetch that may store runs */
byte newest = 1; /* the oldest version that a caller who enters now may see */
bool fire_returned, close_returned;
bool ready;       /* caller 0's flight had its value when the token fired */
bool met;         /* caller 0 has come to a flight */
bool kept;        /* before that, the index had the value when the token fired, and has it still */
bool returned[N]; /* the call is over */
bool inside[N];   /* runs a fetch on its own thread */

#define behind(f) (fl[f].stamp != stamp)
#define storable(f) (fl[f].running && !fl[f].fenced && !fl[f].settled && !behind(f))
#define touch(f) assert(!fl[f].freed)

/* Inside atomic { }. */
inline lock_shard()
{
    shard_lock == 0;
    shard_lock = 1 + _pid;
    assert(token_lock != 1 + _pid)
}

inline lock_token()
{
    token_lock == 0;
    token_lock = 1 + _pid;
    assert(shard_lock != 1 + _pid)
}

/* The last reference frees. What nobody can read any more goes to 0, which only merges states. */
inline unref(f)
{
    d_step {
        touch(f);
        assert(fl[f].refs > 0);
        fl[f].refs--;
        if
        :: fl[f].refs == 0 ->
            assert(!fl[f].current && table != f && !fl[f].running);
            fl[f].freed = true;
            fl[f].fenced = false; fl[f].verdict = NOTHING; fl[f].value = 0; fl[f].overtaken = false;
            fl[f].shared = false; fl[f].waiters = 0; fl[f].word = 0; fl[f].seen = false;
            fl[f].stamp = 0
        :: else
        fi
    }
}

inline wake_all(f)
{
    d_step { touch(f); fl[f].word++ }
    d_step {
        touch(f);
        for (i : 0 .. N - 1) {
            if
            :: w[i].on == f -> w[i].asleep = false
            :: else
            fi
        }
        i = 0
    }
}

/* ---- the transitions of src/flight/group.c; the shard's lock is held ---- */

/* The verdict, once. The flight leaves the table if it is the one in it. */
inline group_settle(f, v, val)
{
    d_step {
        touch(f);
        if
#ifndef FAULT_13
        :: fl[f].settled
#endif
        :: else ->
            assert(!fl[f].seen || (fl[f].verdict == v && fl[f].value == val));
            fl[f].verdict = v;
            fl[f].value = val;
            fl[f].shared = fl[f].waiters >= 2;
            fl[f].settled = true;
            if
            :: fl[f].current ->
                fl[f].current = false;
                table = NONE;
                due = due || v == ERROR || v == FETCH_TIMEOUT
            :: else ->
#ifdef FAULT_3
                table = NONE
#else
                skip
#endif
            fi
        fi
    }
}

/* A write: the result is not stored, later callers lead a new flight; who waits goes on waiting. */
inline group_fence(f)
{
    d_step {
        touch(f);
        fl[f].fenced = true;
#ifndef FAULT_2
        fl[f].current = false;
        table = NONE
#endif
    }
}

/* A write of all keys at once. */
inline group_fence_all()
{
    stamp++
}

/* Over age: a waiter or a newcomer ends it for all. */
inline group_supersede(f)
{
    group_settle(f, FETCH_TIMEOUT, 0)
}

/* A waiter goes, unless the flight is done by then: the verdict wins. */
inline group_leave(f)
{
    d_step {
        touch(f);
        if
#ifndef FAULT_9
        :: fl[f].settled
#endif
        :: else ->
            assert(fl[f].waiters > 0);
            fl[f].waiters--;
            told = CANCELLED
        fi
    }
}

/*
 * Joins the current flight (f), or leaves f NONE. A flight that a clear overtook, or that is over age,
 * goes off the table first; old is one to be woken then.
 */
inline group_join()
{
    if
#ifndef FAULT_16
    :: table != NONE && behind(table) -> group_fence(table)
    :: table == NONE || !behind(table)
#else
    :: true
#endif
#ifdef SUPERSEDE
    :: table != NONE && !behind(table) ->
        old = table;
        fl[old].refs++;
        group_supersede(old)
#endif
    fi;
    d_step {
        f = table;
        if
        :: f != NONE ->
            touch(f);
            assert(fl[f].current);
            fl[f].waiters++;
            fl[f].refs++
        :: else
        fi
    }
}

/* A new flight, with the leader attached and two references: his and the runner's. */
inline group_lead()
{
    d_step {
        f = flights;
        flights++;
        table = f;
        fl[f].current = true;
        fl[f].stamp = stamp;
        fl[f].waiters = 1;
        fl[f].refs = 2;
        fl[f].running = true;
        assert(due);
        due = false;
        for (i : 0 .. N - 1) {
            assert(i == f || !storable(i))
        }
        i = 0
    }
}

/* ---- the runner ---- */

/* Everybody who has a way out has taken it. */
#if defined(CLOSE) || defined(SUPERSEDE)
#define may_stay(c) (returned[c] || inside[c])
#elif defined(CANCEL)
#define may_stay(c) (returned[c] || (c) != 0)
#else
#define may_stay(c) true
#endif
#if N == 2
#define all_left (may_stay(0) && may_stay(1))
#elif N == 3
#define all_left (may_stay(0) && may_stay(1) && may_stay(2))
#elif N == 4
#define all_left (may_stay(0) && may_stay(1) && may_stay(2) && may_stay(3))
#else
#error two to four callers, the writer counted
#endif

#if defined(FAULT_6)
#define may_store(f) (!fl[f].settled && !behind(f))
#elif defined(FAULT_12) || defined(FAULT_14)
#define may_store(f) (!fl[f].fenced && !behind(f))
#else
#define may_store(f) (!fl[f].settled && !fl[f].fenced && !behind(f))
#endif

/* Leaves outcome and fetched. */
inline fetch_and_publish(f)
{
    d_step { outcome = VALUE; fetched = source }
    if
    :: skip
    :: true -> all_left /* SLOW: chosen first, then waited for */
#ifdef FAIL
    :: outcome = ERROR; fetched = 0
#endif
    fi;
#ifdef FAULT_4
    wake_all(f);
#endif
#ifdef FAULT_14
    atomic { lock_shard(); group_settle(f, outcome, fetched); shard_lock = 0 }
#endif
    atomic {
        lock_shard();
        touch(f);
        fl[f].overtaken = fl[f].settled || fl[f].fenced || behind(f);
        assert(outcome != VALUE || fetched >= newest || fl[f].overtaken);
        if
        :: outcome == VALUE && may_store(f) -> index = fetched
        :: else
        fi
    }
    atomic {
        group_settle(f, outcome, fetched);
        fl[f].running = false;
        shard_lock = 0
    }
#ifdef FAULT_10
    unref(f);
#endif
#ifndef FAULT_4
    wake_all(f);
#endif
#ifndef FAULT_10
    unref(f)
#endif
}

proctype worker()
{
    byte f = NONE, fetched, i;
    mtype outcome = NOTHING;

    if
    :: d_step { handed != NONE -> f = handed; handed = NONE }
        fetch_and_publish(f);
        d_step { outcome = NOTHING; fetched = 0; f = NONE }
    :: handed == NONE && returned[0]
    fi
}

/* ---- a caller ---- */

inline register_with_token(c)
{
    atomic {
        lock_token();
        if
        :: fired -> w[c].cancelled = true
        :: else -> w[c].registered = true
        fi;
        token_lock = 0
    }
}

inline unregister_from_token(c)
{
    atomic { lock_token(); w[c].registered = false; token_lock = 0 }
}

/* Returns when the flight is settled (done) or the waiter is cancelled. */
inline wait_for(c, f)
{
    do
    :: d_step { touch(f); ticket = fl[f].word }
        if
        :: fl[f].settled -> done = true; break
        :: else
        fi;
        if
        :: w[c].cancelled -> break
        :: else
        fi;
        d_step {
            touch(f);
            w[c].asleep = fl[f].word == ticket;
            ticket = 0
        }
        if
        :: !w[c].asleep
#ifdef SUPERSEDE
        :: atomic { /* the flight is over age */
            w[c].asleep && shard_lock == 0 ->
            w[c].asleep = false;
            lock_shard();
            group_supersede(f);
            shard_lock = 0 }
            wake_all(f)
#endif
        fi
    od;
    ticket = 0
}

inline take_verdict(f)
{
    touch(f);
    told = fl[f].verdict;
    value = fl[f].value;
    assert(fl[f].settled && told != NOTHING);
    assert(fl[f].shared == (fl[f].waiters >= 2));
    fl[f].seen = true
}

/* His own fetch's answer is the leader's, also where another verdict came first. */
inline take_answer(f)
{
    touch(f);
    told = outcome;
    value = fetched;
    assert(fl[f].settled);
    assert(fl[f].shared == (fl[f].waiters >= 2));
    assert((told == fl[f].verdict && value == fl[f].value) || fl[f].verdict == CLOSED ||
        fl[f].verdict == FETCH_TIMEOUT);
    outcome = NOTHING;
    fetched = 0
}

/* Under the lock: look again, then join or lead. f == NONE: told is the answer. */
inline meet(c)
{
    atomic {
        lock_shard();
        if
        :: closed -> told = CLOSED
#ifndef FAULT_1
        :: !closed && index != EMPTY -> told = VALUE; value = index
#endif
        :: else ->
            assert(!after_fire && !after_close);
            group_join();
            if
            :: f == NONE ->
                group_lead();
                if
                :: has_token(c) -> handed = f
                :: else -> inside[c] = true
                fi
            :: else
            fi;
            w[c].on = f;
            met = met || c == 0
        fi;
        shard_lock = 0
    }
#ifdef SUPERSEDE
    if
    :: old != NONE ->
        wake_all(old);
        unref(old);
        old = NONE
    :: else
    fi
#endif
}

/* As a waiter: the verdict, or CANCELLED. */
inline wait_or_leave(c)
{
    if
    :: has_token(c) -> register_with_token(c)
    :: else
    fi;
    wait_for(c, f);
#ifndef FAULT_7
    if
    :: has_token(c) -> unregister_from_token(c)
    :: else
    fi;
#endif
    if
    :: done
    :: else -> atomic { lock_shard(); group_leave(f); shard_lock = 0 }
    fi;
    atomic {
        done = false;
        if
        :: told == CANCELLED
        :: else -> take_verdict(f)
        fi;
        w[c].on = NONE;
        unref(f)
    }
#ifdef FAULT_7
    if
    :: has_token(c) -> unregister_from_token(c)
    :: else
    fi
#endif
}

/* A miss. */
inline fetch_through_flight(c)
{
    meet(c);
    if
    :: f == NONE
    :: f != NONE && inside[c] ->
        fetch_and_publish(f);
        atomic { take_answer(f); inside[c] = false; w[c].on = NONE; unref(f) }
    :: f != NONE && !inside[c] -> wait_or_leave(c)
    fi;
    f = NONE
}

inline get_with_fetch(c)
{
    atomic {
        at_least = newest;
        after_fire = has_token(c) && fire_returned;
        after_close = close_returned;
        value = index
    }
    if
    :: value != EMPTY -> told = VALUE
    :: value == EMPTY && has_token(c) && fired ->
#ifdef FAULT_17
        told = CANCELLED
#else
        atomic { value = index; told = (value != EMPTY -> VALUE : CANCELLED) }
#endif
    :: else -> fetch_through_flight(c)
    fi;
    d_step {
        assert(told != CANCELLED || (has_token(c) && fired));
        assert(told == VALUE || !(has_token(c) && (ready || kept)));
        assert(told != VALUE || value >= at_least);
        assert(told == CLOSED || told == CANCELLED || !after_close);
        assert(told != CLOSED || closed);
        told = NOTHING; value = 0; at_least = 0; after_fire = false; after_close = false;
        w[c].cancelled = false;
        returned[c] = true
    }
}

#define CALLER_LOCALS                                                                              \
    byte f = NONE, old = NONE, value, ticket, fetched, at_least, i;                                \
    mtype told = NOTHING, outcome = NOTHING;                                                       \
    bool done, after_fire, after_close

proctype caller(byte c)
{
    CALLER_LOCALS;
    get_with_fetch(c)
}

/* ---- the others ---- */

#ifdef WRITER
proctype writer()
{
    CALLER_LOCALS;
    source++;
    atomic {
        lock_shard();
        if
        :: closed
        :: else ->
#ifdef SET
            index = source;
            due = false;
#else
            index = EMPTY;
            due = true;
            kept = false;
#endif
#ifdef CLEAR
            group_fence_all();
#else
            if
            :: table != NONE -> group_fence(table)
            :: else
            fi;
#endif
            newest = source
        fi;
        shard_lock = 0
    }
    get_with_fetch(CALLERS)
}
#endif

#ifdef CANCEL
proctype firer()
{
    byte f = NONE;
    atomic {
        lock_token();
        fired = true;
        f = w[0].on;
        ready = f != NONE && fl[f].settled && fl[f].verdict == VALUE;
        kept = !met && !returned[0] && index != EMPTY;
        f = NONE
    }
    if
    :: w[0].registered ->
        d_step { w[0].cancelled = true; f = w[0].on } /* compare-and-swap; nobody else swaps it */
        assert(f != NONE);
#ifndef FAULT_5
        d_step { touch(f); fl[f].word++ }
#endif
        d_step { touch(f); w[0].asleep = false; f = NONE }
    :: else
    fi;
    d_step { token_lock = 0; fire_returned = true }
}
#endif

#ifdef CLOSE
inline mark_closed()
{
    atomic { lock_shard(); group_fence_all(); closed = true; index = EMPTY; kept = false; shard_lock = 0 }
}

#ifdef FAULT_15
#define settles(f) (f == table)
#else
#define settles(f) (f < flights && !fl[f].freed && !fl[f].settled)
#endif

/* Each flight in a lock hold of its own. */
inline settle_flights()
{
    for (j : 0 .. N - 1) {
        atomic {
            lock_shard();
            if
            :: settles(j) ->
                mine = true;
#ifndef FAULT_11
                fl[j].refs++; /* it may end while it is being woken */
#endif
                group_settle(j, CLOSED, 0)
            :: else
            fi;
            shard_lock = 0
        }
        if
        :: mine ->
            mine = false;
            wake_all(j);
#ifndef FAULT_11
            unref(j)
#endif
        :: else
        fi
    }
}

proctype closer()
{
    byte i, j;
    bool mine;
#ifdef FAULT_8
    settle_flights();
    mark_closed();
#else
    mark_closed();
    settle_flights();
#endif
    atomic {
        for (j : 0 .. N - 1) {
            assert(j >= flights || fl[j].freed || fl[j].settled)
        }
        j = 0;
        close_returned = true
    }
}
#endif

init
{
    byte i;
    atomic {
        for (i : 0 .. N - 1) {
            w[i].on = NONE;
            fl[i].verdict = NOTHING
        }
        for (i : 0 .. CALLERS - 1) {
            run caller(i)
        }
        i = 0;
        run worker();
#ifdef WRITER
        run writer();
#endif
#ifdef CANCEL
        run firer();
#endif
#ifdef CLOSE
        run closer()
#endif
    }
    d_step {
        _nr_pr == 1;
        for (i : 0 .. N - 1) {
            assert(fl[i].freed == (i < flights) && fl[i].refs == 0 && w[i].on == NONE);
            assert(!w[i].asleep && !w[i].registered && returned[i])
        }
        assert(table == NONE && shard_lock == 0 && token_lock == 0)
    }
}
