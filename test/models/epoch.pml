/*
 * epoch -- base/epoch with store/limbo: may an entry be freed while a reader can still touch it?
 *
 * Modelled: one index word that a writer replaces twice; the global epoch; each reader's record with its
 * announcement and one visit slot; limbo with its batches (open, waiting with a tag, ripe, visited) under
 * the shard's lock; the entries' counts; a second thread that moves the epoch on for another shard.
 * A reader enters (load the epoch, exchange the announcement), loads the index, and
 *   visits:          names the entry in its slot, leaves the epoch, uses the entry, clears the slot; or
 *   takes a handle:  counts a reference, leaves the epoch, uses the entry, drops the reference.
 *
 * Store buffers: what a reader stores plainly goes through a buffer of PLACES stores, in order, and reaches
 * memory at any later time (total store order, as on x86). A read-modify-write waits until the buffer is
 * empty. A reader never loads what it has stored, so there is no forwarding. Writers and reclaimers store
 * by read-modify-write or under the lock, and need no buffer.
 *
 * Left out: machines weaker than that (epoch.h says why its orders are enough there), the index's shape and
 * growth, nested visits, a record that changes hands, counters that wrap, and readers without a record,
 * which take the lock. One shard's lock hold makes at most one attempt to move the epoch on; the code makes
 * two, which is this with the writer idle in between.
 *
 * Asserted: no freed entry is touched, nobody counts up from 0, nothing is freed twice, and at the end
 * every entry is freed, the reader's words are 0, and nobody hangs (no invalid end state).
 *
 * Configuration (-D): READER0, READER1 = VISIT or HANDLE; ROUNDS0, ROUNDS1 = how often each reads; PLACES=n;
 * STEPS=n attempts of the other shard to move the epoch on.
 *
 * Faults, one at a time (-DFAULT_n), each of which has to be found:
 *   1  the announcement is a plain store: it waits in the buffer while the reader reads on
 *   2  ripe one epoch early
 *   3  the index's reference is dropped at unlink
 *   4  the visit slot is cleared before the callback has done with the entry
 *   5  the visit slot is set after leaving the epoch
 *   6  the tag is read before the unlink
 *   7  the scan skips a record
 *   8  the slots are read before the batch is found ripe
 *   9  an entry that was once kept for a visit is dropped without another look
 *  10  the handle is counted after leaving the epoch
 */

#define VISIT 0
#define HANDLE 1
#ifndef READER0
#define READER0 VISIT
#endif
#ifndef READER1
#define READER1 HANDLE
#endif
#ifndef ROUNDS0
#define ROUNDS0 1
#endif
#ifndef ROUNDS1
#define ROUNDS1 1
#endif
#ifndef PLACES
#define PLACES 2
#endif
#ifndef STEPS
#define STEPS 1
#endif

#define ENTRIES 3
#define READERS 2
#define NOBODY ENTRIES /* no entry */

mtype = { LINKED, OPEN, WAITING, RIPE, VISITED, TAKEN, DROPPED };
mtype = { ANNOUNCED, SLOT };

/* Memory. */
byte epoch;
byte index = 0; /* the entry that readers find */
typedef entry {
    byte refs; /* the index's own and the handles */
    mtype place;
    bool freed; /* ghost */
};
entry en[ENTRIES];
byte announced[READERS]; /* 0, or the epoch + 1 */
byte slot[READERS] = NOBODY;

/* Guarded by the shard's lock, as the entries' places. */
bool lock;
byte tag; /* of what is WAITING */
#ifdef FAULT_6
byte noted;
#endif

/* ghost */
byte finished;
bool written;

chan buffer[READERS] = [PLACES] of { mtype, byte };

#define touch(e) assert(!en[e].freed)
#define any(p) (en[0].place == p || en[1].place == p || en[2].place == p)

/* The one place where memory goes. */
inline free(e)
{
    assert(!en[e].freed && en[e].refs == 0);
    en[e].freed = true
}

/* One reference less; the last frees. */
inline unref(e)
{
    assert(!en[e].freed && en[e].refs > 0);
    en[e].refs--;
    if
    :: en[e].refs == 0 -> free(e)
    :: else
    fi
}

/* ---- a reader ---- */

/* What has been stored reaches memory, some time. */
proctype memory(byte r)
{
    mtype word = SLOT;
    byte value;
end:
    do
    :: d_step {
        buffer[r]?word, value ->
            if
            :: word == ANNOUNCED -> announced[r] = value
            :: else -> slot[r] = value
            fi;
            word = SLOT; value = 0 }
    od
}

#define store(word, value) buffer[r]!word, value

inline enter()
{
    now = epoch;
#ifdef FAULT_1
    store(ANNOUNCED, now + 1);
#else
    d_step { empty(buffer[r]) -> announced[r] = now + 1; now = 0 }
#endif
}

inline leave()
{
    store(ANNOUNCED, 0)
}

/* Freed is freed for ever: the last touch of an entry stands for all before it. */
inline visit()
{
    enter();
#ifdef FAULT_5
    atomic { e = index; leave() }
    store(SLOT, e);
#else
    atomic { e = index; store(SLOT, e); leave() }
#endif
#ifdef FAULT_4
    store(SLOT, NOBODY);
    touch(e) /* the callback */
#else
    atomic { nfull(buffer[r]) -> touch(e); store(SLOT, NOBODY) }
#endif
}

inline take_handle()
{
    enter();
    e = index;
#ifdef FAULT_10
    leave();
    d_step { empty(buffer[r]) -> touch(e); assert(en[e].refs > 0); en[e].refs++ }
#else
    atomic { empty(buffer[r]) -> touch(e); assert(en[e].refs > 0); en[e].refs++; leave() }
#endif
    d_step { empty(buffer[r]) -> touch(e); unref(e) }
}

proctype reader(byte r; byte how; byte rounds)
{
    byte now, e = NOBODY;
    do
    :: rounds > 0 && how == VISIT -> visit(); e = NOBODY; rounds--
    :: rounds > 0 && how == HANDLE -> take_handle(); e = NOBODY; rounds--
    :: rounds == 0 -> break
    od;
    atomic { empty(buffer[r]) -> finished++ }
}

/* ---- the writer ---- */

/* Exchanges the word and puts the old entry into the open batch; both under the lock. */
inline replace(e)
{
#ifdef FAULT_6
    atomic { !lock -> lock = true; noted = epoch }
    d_step { old = index; index = e; en[old].place = OPEN; lock = false }
#else
    d_step { !lock -> old = index; index = e; en[old].place = OPEN }
#endif
#ifdef FAULT_3
    d_step { unref(old) }
#endif
}

proctype writer()
{
    byte old;
    replace(1);
    replace(2);
    d_step { written = true; finished++ }
}

/* ---- reclamation ---- */

/* Moves the epoch on by one if no reader is behind. */
inline advance()
{
    now = epoch;
    behind = false;
#ifdef FAULT_7
    r = 1;
#else
    r = 0;
#endif
    do
    :: r < READERS && !behind ->
        atomic { behind = announced[r] != 0 && announced[r] != now + 1; r++ }
    :: else -> break
    od;
    atomic {
        epoch = (!behind && epoch == now -> now + 1 : epoch);
        now = 0; behind = false; r = 0
    }
}

inline move(from, to)
{
    for (i : 0 .. ENTRIES - 1) {
        if
        :: en[i].place == from -> en[i].place = to
        :: else
        fi
    }
    i = 0
}

#ifdef FAULT_2
#define GRACE 1
#else
#define GRACE 2
#endif

/* What is ripe, and then a tag for what was open. */
inline collect()
{
    d_step {
        if
        :: any(WAITING) && epoch >= tag + GRACE -> tag = 0; move(WAITING, RIPE)
        :: else
        fi;
        if
        :: !any(WAITING) && any(OPEN) ->
#ifdef FAULT_6
            tag = noted; noted = 0;
#else
            tag = epoch;
#endif
            move(OPEN, WAITING)
        :: else
        fi
    }
}

#define named(e) (name[0] == e || name[1] == e)

/* What a visit names is kept and looked at again later. */
inline take()
{
    atomic {
#ifndef FAULT_8
        name[1] = slot[1];
#endif
        for (i : 0 .. ENTRIES - 1) {
            if
#ifdef FAULT_9
            :: en[i].place == RIPE && named(i) -> en[i].place = VISITED
            :: (en[i].place == RIPE && !named(i)) || en[i].place == VISITED -> en[i].place = TAKEN
#else
            :: (en[i].place == RIPE || en[i].place == VISITED) ->
                en[i].place = (named(i) -> VISITED : TAKEN)
#endif
            :: else
            fi
        }
        i = 0; name[0] = NOBODY; name[1] = NOBODY;
        lock = false
    }
}

/* The index's own reference. A count of 1 is that one, and nobody can add to it any more. */
inline drop(e)
{
    if
    :: en[e].place == TAKEN ->
#ifndef FAULT_3
        if
        :: en[e].refs == 1 ->
            d_step { assert(en[e].refs == 1); en[e].refs = 0; free(e) }
        :: else -> d_step { unref(e) }
        fi;
#endif
        en[e].place = DROPPED
    :: else
    fi
}

proctype reclaimer()
{
    byte now, r, i;
    byte name[READERS] = NOBODY;
    bool behind;
    do
    :: atomic {
        !lock && (any(OPEN) || any(WAITING) || any(VISITED)) -> lock = true;
#ifdef FAULT_8
        name[0] = slot[0]; name[1] = slot[1];
#endif
        collect() }
        if
        :: any(WAITING) -> advance(); collect()
        :: else
        fi;
#ifndef FAULT_8
        name[0] = slot[0];
#endif
        take();
        drop(0);
        drop(1)
    :: d_step { written && en[0].place == DROPPED && en[1].place == DROPPED -> finished++ }
        break
    od
}

/* Another shard's reclaimer. */
proctype other()
{
    byte now, r, turn;
    bool behind;
    do
    :: turn < STEPS -> advance(); turn++
    :: else -> break
    od;
    finished++
}

init
{
    byte i;
    atomic {
        for (i : 0 .. ENTRIES - 1) {
            en[i].refs = 1;
            en[i].place = LINKED
        }
        i = 0;
        run memory(0);
        run memory(1);
        run reader(0, READER0, ROUNDS0);
        run reader(1, READER1, ROUNDS1);
        run writer();
        run reclaimer();
        run other()
    }
    d_step {
        finished == READERS + 3;
        unref(index); /* the cache is destroyed */
        for (i : 0 .. ENTRIES - 1) {
            assert(en[i].freed && en[i].refs == 0)
        }
        for (i : 0 .. READERS - 1) {
            assert(announced[i] == 0 && slot[i] == NOBODY)
        }
        assert(!lock)
    }
}
