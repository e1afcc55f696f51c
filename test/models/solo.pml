/*
 * solo -- the flight that a thread begins and ends without the lock (flight/group, flight/solo): does
 * everybody else see a flight like any other?
 *
 * Modelled: one group with one key; its lock, and the word `solo` beside it; callers that go twice, so that a
 * flight nobody joined is used again; flights with their references; forgetting; closing. The names are those
 * of group.c: group_lock adopts, group_unlock makes room.
 *
 * Left out: what is not told apart by the word: other keys, tokens, workers, what the fetch says, the bound (a
 * credit is kept), forks, and every order weaker than sequential: the word is changed by acquire-release
 * read-modify-writes, and stored with release under the lock.
 *
 * A step: one access that others can see without the lock.
 *
 * Configuration (-D): CALLERS=n; FORGET, CLOSE: one thread each that does so once.
 *
 * Asserted: of one key at most one fetch that was not forgotten (`due`); a flight that somebody joined is not
 * ended alone, used again or freed; nothing begins after close has returned; and everybody ends (no invalid end
 * state), after which nothing is under way.
 *
 * Faults, one at a time (-DFAULT_n), each of which has to be found:
 *   1  group_lock does not look at the word
 *   2  group_unlock makes room while a flight is under way
 *   3  group_unlock makes room in a closed group
 *   4  the end of a solo flight does not look whether it was adopted
 *   5  a solo flight begins by look and store
 *   6  group_lock adopts with a look and a store
 */

#ifndef CALLERS
#define CALLERS 2
#endif
#define FLIGHTS (2 * CALLERS)
#define NONE 100
#define ROOM 101
#define SHARED 102

byte solo = ROOM;
bool locked, closed, close_returned;
byte running, current = NONE;
byte refs[FLIGHTS];
bool settled[FLIGHTS], fenced[FLIGHTS], joined[FLIGHTS], freed[FLIGHTS];
byte due, out;

#define BEGIN_DUE due++; assert(due == 1); assert(!close_returned)
#define END_DUE(f) if :: fenced[f] :: else -> due-- fi

inline group_lock(old)
{
	atomic { !locked -> locked = true };
#ifndef FAULT_1
#ifdef FAULT_6
	old = solo;
	solo = SHARED;
#else
	atomic { old = solo; solo = SHARED };
#endif
	d_step {
		if
		:: old < NONE ->
			assert(running == 0);
			assert(current == NONE);
			running = 1;
			current = old
		:: else
		fi;
		old = NONE
	}
#endif
}

inline group_unlock()
{
	d_step {
		if
#ifdef FAULT_2
		:: !closed -> solo = ROOM
#else
#ifdef FAULT_3
		:: running == 0 -> solo = ROOM
#else
		:: running == 0 && !closed -> solo = ROOM
#endif
#endif
		:: else
		fi;
		locked = false
	}
}

inline drop(f)
{
	d_step {
		assert(!freed[f]);
		refs[f]--;
		if
		:: refs[f] == 0 -> freed[f] = true
		:: else
		fi
	}
}

/* Under the lock. */
inline settle(f)
{
	if
	:: !settled[f] ->
		settled[f] = true;
		if :: current == f -> current = NONE :: else fi
	:: else
	fi
}

proctype caller(byte self)
{
	byte mine = self, round = 0, other = NONE, old = NONE;
	bool alone, leads;
	do
	:: round == 2 -> break
	:: else ->
		d_step {
			round++;
			assert(!freed[mine]);
			refs[mine] = 1;
			settled[mine] = false;
			fenced[mine] = false;
			joined[mine] = false
		};
#ifdef FAULT_5
		if
		:: solo == ROOM ->
			d_step { solo = mine; BEGIN_DUE; alone = true; leads = true }
		:: solo != ROOM -> alone = false
		fi;
#else
		d_step {
			if
			:: solo == ROOM -> solo = mine; BEGIN_DUE; alone = true; leads = true
			:: else -> alone = false
			fi
		};
#endif
		if
		:: alone -> skip
		:: else ->
			group_lock(old);
			d_step {
				other = NONE;
				leads = false;
				if
				:: closed
				:: !closed && current != NONE ->
					other = current;
					assert(!freed[other]);
					refs[other]++;
					joined[other] = true
				:: !closed && current == NONE ->
					leads = true;
					running++;
					current = mine;
					BEGIN_DUE
				fi
			};
			group_unlock();
			if
			:: other != NONE ->
				settled[other];
				assert(!freed[other]);
				drop(other)
			:: else
			fi
		fi;
		/* the fetch is over: end alone, or under the lock */
		if
		:: alone ->
#ifdef FAULT_4
			d_step { solo = ROOM; END_DUE(mine); assert(!joined[mine]); assert(refs[mine] == 1); leads = false }
#else
			d_step {
				if
				:: solo == mine ->
					solo = ROOM;
					END_DUE(mine);
					assert(!joined[mine]);
					assert(refs[mine] == 1);
					leads = false
				:: else
				fi
			}
#endif
		:: else
		fi;
		if
		:: leads ->
			group_lock(old);
			d_step { END_DUE(mine); assert(running > 0); running--; settle(mine) };
			group_unlock();
			drop(mine);
			mine = mine + CALLERS /* a new one */
		:: else
		fi
	od;
	out++
}

#ifdef FORGET
proctype forgetter()
{
	byte old = NONE;
	group_lock(old);
	d_step {
		if
		:: current != NONE ->
			fenced[current] = true;
			due--;
			current = NONE
		:: else
		fi
	};
	group_unlock();
	out++
}
#endif

#ifdef CLOSE
proctype closer()
{
	byte old = NONE, f;
	group_lock(old);
	closed = true;
	group_unlock();
	group_lock(old);
	d_step {
		if
		:: current != NONE -> f = current; settle(f)
		:: else
		fi
	};
	group_unlock();
	running == 0;
	close_returned = true;
	out++
}
#endif

init
{
	byte i;
	byte all = CALLERS;
	atomic {
		for (i : 0 .. CALLERS - 1) { run caller(i) };
#ifdef FORGET
		run forgetter();
		all++;
#endif
#ifdef CLOSE
		run closer();
		all++;
#endif
	};
	out == all;
	assert(running == 0 && current == NONE && due == 0);
	assert(solo == (closed -> SHARED : ROOM))
}
