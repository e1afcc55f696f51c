#!/bin/sh
# The programs of docs/examples/loops compile without a warning, by each compiler there is, and do what they say:
# epoll_sqlite with clients that share, leave, come late and wait at the end; uv_pq with a PostgreSQL of this test's
# own, where 10,000 lookups are one query and one task, and each is answered when the connection or the server dies.
. test/build/common.inc
needs pkg-config timeout python3
pkg-config --exists sqlite3 libuv libpq ||
    skip "there is no SQLite, libuv or libpq to compile with (sh test/deps.sh loops)"
. test/build/postgres.inc

# ---- both programs, by each compiler ----

# compile COMPILER PROGRAM SOURCE PACKAGE...
compile() {
    compiler=$1 program=docs/examples/loops/$2.c second=docs/examples/loops/$3.c
    shift 3
    "$compiler" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -Iinclude -pthread $(pkg-config --cflags "$@") \
        "$program" "$second" $released/libaside.a $(pkg-config --libs "$@") -o "$scratch/program" ||
        fail "$compiler does not compile $program"
}

for compiler in "$CC" clang-14 clang; do
    command -v "$compiler" >/dev/null || continue
    compile "$compiler" epoll_sqlite lines sqlite3
    compile "$compiler" uv_pq postgres libuv libpq
done

programs=build/loops
build_example loops

# ---- epoll_sqlite ----

timeout 300 python3 test/build/loops_clients.py 200 "$programs/epoll_sqlite" || fail "epoll_sqlite: see above"
if command -v valgrind >/dev/null; then
    timeout 600 python3 test/build/loops_clients.py 20 valgrind --fair-sched=yes --leak-check=full --error-exitcode=99 \
        --track-fds=yes --log-file="$scratch/valgrind.%p" "$programs/epoll_sqlite" || {
        cat "$scratch"/valgrind.*
        fail "epoll_sqlite under valgrind: see above"
    }
    # Those that were inherited are not its own.
    for log in "$scratch"/valgrind.*; do
        if grep -A2 'Open .*descriptor\|Open .*socket' "$log" | grep -q ' at 0x'; then
            cat "$log"
            fail "epoll_sqlite leaves a descriptor open"
        fi
    done
fi

# ---- a PostgreSQL of our own ----

client=
also_tidy() {
    if [ -n "$client" ]; then kill "$client" 2>/dev/null || :; fi
}
start_postgres
sql "CREATE TABLE pairs AS SELECT 'user:' || i AS key, 'name of user ' || i AS value FROM generate_series(0, 999) AS i"

# ---- uv_pq ----

# Starts it in the background; what it says, and then its exit status, go to $scratch/said.
start_client() {
    {
        timeout 300 "$programs/uv_pq" "host=$pg user=postgres dbname=postgres" || echo "exit status $?"
    } >"$scratch/said" 2>&1 &
    client=$!
}

finish_client() {
    wait "$client"
    client=
    cat "$scratch/said"
}

# The lines it has said must be these, but for how long it took.
has_said() {
    sed 's/ elapsed_ms=.*//' "$scratch/said" >"$scratch/is"
    cat >"$scratch/expected"
    diff "$scratch/expected" "$scratch/is" || fail "uv_pq has not said what it should"
}

well=$(cat <<'END'
one cold key: lookups=10000 at_once=0 callbacks=10000 values=10000 errors=0 queries=1 queue=1 connections=1 tasks=1
cold keys: lookups=10000 at_once=0 callbacks=10000 values=10000 errors=0 queries=100 queue=100 connections=0 tasks=1
the same keys: lookups=10000 at_once=10000 callbacks=0 values=10000 errors=0 queries=0 queue=0 connections=0 tasks=1
END
)
lost="one cold key: lookups=10000 at_once=0 callbacks=10000 values=0 errors=10000 queries=1 queue=1 connections=1 tasks=1"

# Holds a lock, so that queries stay under way, until its backend is ended.
lock_table() {
    sql "LOCK TABLE pairs; SELECT pg_sleep(600)" >/dev/null 2>&1 &
    await has_rows "pg_locks WHERE relation = 'pairs'::regclass AND mode = 'AccessExclusiveLock' AND granted"
}

has_rows() {
    [ "$(sql "SELECT count(*) > 0 FROM $1")" = t ]
}

# The backend of a query that waits for the lock; nothing where there is none.
blocked() {
    sql "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT value%'"
}

query_is_blocked() {
    [ -n "$(blocked)" ]
}

is_not_blocked() {
    [ "$(blocked)" != "$1" ]
}

lose_connection() {
    await query_is_blocked
    backend=$(blocked)
    sql "SELECT pg_terminate_backend($backend)" >/dev/null
    await is_not_blocked "$backend"
}

unlock_table() {
    sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%'" >/dev/null
}

echo "-- a server that is well"
start_client
finish_client
has_said <<END
$well
END

echo "-- connections that are lost with a query under way: that one fails, another connection asks those behind it"
lock_table
start_client
lose_connection
lose_connection
unlock_table
finish_client
sed -i '3d' "$scratch/said" # goes by how long a failure is remembered
has_said <<END
$lost
cold keys: lookups=10000 at_once=0 callbacks=10000 values=9900 errors=100 queries=100 queue=100 connections=2 tasks=1
END

echo "-- a server that is killed with a query under way: no lookup is left without an answer"
lock_table
start_client
await query_is_blocked
kill_server
finish_client
grep -qF "$lost" "$scratch/said" || fail "not one query that all were waiting for"
[ "$(grep -c 'values=0 errors=10000 .* tasks=1 ' "$scratch/said")" -eq 3 ] || fail "not three times 10,000 errors"
if grep -q 'exit status' "$scratch/said"; then fail "lookups were left without an answer"; fi

echo "-- and is started again"
start_server
start_client
finish_client
has_said <<END
$well
END
stop_server
