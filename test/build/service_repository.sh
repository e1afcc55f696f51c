#!/bin/sh
# Where the template service keeps its templates: its repository on SQLite and on a PostgreSQL of this test's own, its
# thread that writes, and its JSON. A database that is slow, stopped, killed or locked keeps nobody longer than the
# timeout, and is used again once it is there.
#
#   SANITIZE=address,undefined sh test/build/service_repository.sh      or thread
. test/build/common.inc
needs mkfifo
needs_service
. test/build/postgres.inc

rooms=
for room in template repository sqlite postgres writer log; do
    rooms="$rooms docs/examples/template-service/$room.c"
done
packages="libmicrohttpd sqlite3 libpq jansson"
[ -f $released/libaside.a ] || (unset MAKEFLAGS MFLAGS MAKELEVEL && "$MAKE" -s CC="$CC")
"$CC" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Werror -O1 -g ${SANITIZE:+-fsanitize=$SANITIZE -fno-sanitize-recover=all} \
    -Iinclude -pthread $(pkg-config --cflags $packages) test/consumers/service_repository.c $rooms \
    $released/libaside.a $(pkg-config --libs $packages) -o "$scratch/driver" ||
    fail "the driver does not compile"

# ---- the driver: one command, or a talk in lines ----

under=  # valgrind, or nothing
export ASAN_OPTIONS=exitcode=99 UBSAN_OPTIONS=exitcode=99
slack=1 # how many times longer than usual all may take
limit=500 # ms that a database has
driver= locker=

# Those descriptors that were inherited are not its own.
check_logs() {
    for log in "$scratch"/valgrind.*; do
        [ -e "$log" ] || continue
        if grep -q 'ERROR SUMMARY: [1-9]' "$log" || grep -A2 'Open .*descriptor\|Open .*socket' "$log" | grep -q ' at 0x'; then
            cat "$log"
            fail "valgrind has found something"
        fi
    done
}

driver() {
    timeout 600 $under "$scratch/driver" "$@" 2>>"$scratch/stderr"
}

must() {
    driver "$@" || fail "this fails: $*"
}

# By itself, and not because valgrind or a sanitizer has found something.
must_not() {
    status=0
    driver "$@" || status=$?
    [ $status = 1 ] || fail "this ends with $status: $*"
}

# begin ADDRESS TEMPLATES TIMEOUT_MS [DELAY_MS]
begin() {
    rm -f "$scratch/to" "$scratch/from"
    mkfifo "$scratch/to" "$scratch/from"
    driver talk "$@" <"$scratch/to" >"$scratch/from" &
    driver=$!
    exec 3>"$scratch/to" 4<"$scratch/from"
    read -r where <&4 || fail "it does not open: $*"
    most=$((10000 * slack)) # ms that an answer may take
}

end() {
    exec 3>&- 4<&-
    wait "$driver" || fail "the driver ends with $?"
    driver=
}

say() {
    echo "$*" >&3
}

# hear PATTERN: of the next answer
hear() {
    read -r answer <&4 || fail "no answer"
    took=${answer##* ms=}
    case ${answer% ms=*} in
    $1) ;;
    *) fail "is: $answer, should be: $1" ;;
    esac
    [ "$took" -le "$most" ] || fail "takes more than $most ms: $answer"
}

# expect COMMAND PATTERN
expect() {
    say "$1"
    hear "$2"
}

also_tidy() {
    if [ $status -ne 0 ] && [ -s "$scratch/stderr" ]; then tail -n 30 "$scratch/stderr"; fi
    if [ -n "$driver" ]; then kill "$driver" 2>/dev/null || :; fi
    if [ -n "$locker" ]; then kill "$locker" 2>/dev/null || :; fi
}

# ---- what holds for each database; query COMMAND asks it without the repository ----

# templates_are VERSION COUNT of the schema and of the rows
templates_are() {
    is="$(schema_version) $(query 'SELECT count(*) FROM templates')"
    [ "$is" = "$1 $2" ] || fail "schema and rows: $is, should be: $1 $2"
}

check_migrations() {
    echo "-- $1: four processes make the tables at once, a fifth finds them made"
    forget_tables
    opening=
    for _ in 1 2 3 4; do
        driver open "$address" 10 &
        opening="$opening $!"
    done
    for process in $opening; do wait "$process" || fail "one of four fails"; done
    templates_are 2 10
    query "DELETE FROM templates WHERE id > 8"
    must open "$address" 10
    templates_are 2 8

    echo "-- $1: tables of version 1 are brought to version 2, and keep their rows"
    forget_tables
    make_version_1
    must open "$address" 10
    templates_are 2 1
    [ "$(query 'SELECT count(*) FROM templates WHERE updated_at IS NOT NULL')" = 1 ] || fail "no updated_at"
    begin "$address" 10 $((5000 * slack))
    expect "find 5" "ok version=3 name=old query=1"
    end

    echo "-- $1: tables of a version that is not known are left alone"
    set_version_3
    must_not open "$address" 10
    grep -q 'the tables are of version 3, and 2 is what is known here' "$scratch/stderr" || fail "it does not say why"
    forget_tables
    must open "$address" 0
    templates_are 2 0
}

check_queries() {
    echo "-- $1: finds and puts"
    forget_tables
    begin "$address" 10 $((5000 * slack))
    [ "$where" = "$2" ] || fail "is: $where, should be: $2"
    expect "find 10" "ok version=1 name=template 10 query=1"
    expect "find 11" "not_found version=0 name= query=2"
    expect "find -9223372036854775808" "not_found version=0 name= query=3"
    expect "put 11 it's \"new\" é €" "created version=1"
    expect "put 11 newer" "ok version=2"
    expect "put 11 newer still" "ok version=3"
    expect "find 11" "ok version=3 name=newer still query=4"
    expect "put 9223372036854775807 it's \"new\" é €; --" "created version=1"
    expect "find 9223372036854775807" "ok version=1 name=it's \"new\" é €; -- query=5"
    expect "put -9223372036854775808 x" "created version=1"
    expect "change" "ok"
    expect "find 11" "ok version=4 name=newer still query=6"
    expect "find 1" "ok version=2 name=template 1 query=7"
    end
    must open "$address" 10
    templates_are 2 13

    echo "-- $1: the writer"
    forget_tables
    must writer "$address"
}

check_delay() {
    echo "-- $1: a delay is added"
    begin "$address" 10 $((5000 * slack)) 200
    expect "find 1" "ok version=* name=* query=1"
    [ "$took" -ge 200 ] || fail "it takes $took ms"
    end
}

# ---- JSON ----

check_json() {
    echo "-- JSON, both ways"
    must json
}

# ---- SQLite ----

check_sqlite() {
    address=$scratch/templates.db
    query() {
        "$scratch/driver" sql "$address" "$1"
    }
    schema_version() {
        query "PRAGMA user_version"
    }
    forget_tables() {
        rm -f "$address" "$address-wal" "$address-shm"
    }
    make_version_1() {
        query "CREATE TABLE templates (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL,
            subject TEXT NOT NULL, body TEXT NOT NULL); PRAGMA user_version = 1;
            INSERT INTO templates VALUES (5, 3, 'old', 's', 'b')"
    }
    set_version_3() {
        query "PRAGMA user_version = 3"
    }
    [ -n "$under" ] || check_migrations SQLite
    check_queries SQLite "SQLite, $address"

    echo "-- SQLite: a file that another program has locked"
    forget_tables
    begin "$address" 10 $limit
    expect "start 0" ok
    expect "lock" ok
    expect "find 1" "ok version=1 name=template 1 query=1"
    most=$((limit + 1500 * slack))
    expect "put 1 x" "timeout version=0"
    expect "write 1 x" "timeout version=0 forgotten=1"
    expect "change" timeout
    [ "$took" -ge $((limit - 100)) ] || fail "it gives up after $took ms"
    expect "unlock" ok
    expect "write 1 y" "ok version=2 forgotten=1"
    expect "find 1" "ok version=2 name=y query=2"
    expect "stop" ok
    end
}

check_bad_files() {
    echo "-- SQLite: no file, and none that can be made"
    must_not open "$scratch/none/x.db"
    must_not open ":memory:"
    must_not open "$scratch"
    echo "this is no database, although it is long enough to be one, with a header of a hundred bytes and then some" >"$scratch/text"
    must_not open "$scratch/text"
}

check_slow_sqlite() {
    echo "-- SQLite: a statement that takes too long"
    forget_tables
    begin "$address" 300000 50
    expect "change" timeout
    [ "$took" -le 1500 ] || fail "it gives up after $took ms"
    expect "find 7" "ok version=1 name=template 7 query=1"
    end
}

# ---- PostgreSQL ----

sessions() {
    sql "SELECT pid FROM pg_stat_activity WHERE application_name = 'template-service'"
}

has_no_sessions() {
    [ -z "$(sessions)" ]
}

# Those that wait for lock_table.
blocked() {
    sql "SELECT pid FROM pg_stat_activity WHERE application_name = 'template-service' AND wait_event_type = 'Lock'"
}

# Another one than $1, which may be ending. It is asked once: between two answers the old one goes.
is_blocked() {
    found=$(blocked)
    [ -n "$found" ] && [ "$found" != "${1:-}" ]
}

is_locked() {
    [ -n "$(sql "SELECT 1 FROM pg_locks WHERE relation = 'templates'::regclass AND mode = 'AccessExclusiveLock' AND granted")" ]
}

is_unlocked() {
    ! is_locked
}

lock_table() {
    sql "LOCK TABLE templates; SELECT pg_sleep(600)" >/dev/null 2>&1 3>&- 4>&- &
    locker=$!
    await is_locked
}

unlock_table() {
    sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%'" >/dev/null
    wait "$locker" || :
    locker=
    await is_unlocked
}

check_postgres() {
    address="postgresql:///postgres?host=$pg&user=postgres"
    query() {
        sql "$1"
    }
    schema_version() {
        sql "SELECT max(version) FROM schema_version"
    }
    forget_tables() {
        sql "SET client_min_messages = error; DROP TABLE IF EXISTS templates, schema_version"
    }
    make_version_1() {
        sql "CREATE TABLE schema_version (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
            INSERT INTO schema_version VALUES (1);
            CREATE TABLE templates (id bigint PRIMARY KEY, version bigint NOT NULL, name text NOT NULL,
            subject text NOT NULL, body text NOT NULL); INSERT INTO templates VALUES (5, 3, 'old', 's', 'b')"
    }
    set_version_3() {
        sql "INSERT INTO schema_version VALUES (3)"
    }
    [ -n "$under" ] || check_migrations PostgreSQL
    check_queries PostgreSQL "PostgreSQL, $pg"
    check_lost_connections
    check_locked_table
    check_stopped_server
}

check_lost_connections() {
    echo "-- PostgreSQL: the server is killed; while it is away everything fails at once; it is started again"
    forget_tables
    begin "$address" 10 $((3000 * slack))
    expect "start 0" ok
    expect "find 1" "ok version=1 name=template 1 query=1"
    expect "write 1 a" "ok version=2 forgotten=1"
    kill_server
    most=$((1000 * slack))
    expect "find 1" "not_asked version=0 name= query=0"
    expect "find 1" "not_asked version=0 name= query=0"
    expect "write 1 b" "not_asked version=0 forgotten=0"
    start_server
    most=$((10000 * slack))
    expect "find 1" "ok version=2 name=a query=2"
    expect "write 1 c" "ok version=3 forgotten=1"

    echo "-- PostgreSQL: killed and started between two finds"
    kill_server
    start_server
    expect "find 1" "ok version=3 name=c query=3"
    expect "put 1 d" "ok version=4"
    expect "write 1 e" "ok version=5 forgotten=1"

    echo "-- PostgreSQL: a connection that is lost with a find under way is tried again once, with a put it is not"
    expect "stop" ok
    lock_table
    say "find 1"
    lose_session
    await is_blocked "$lost"
    unlock_table
    hear "ok version=5 name=e query=5"
    lock_table
    say "find 1"
    lose_session
    lose_session
    hear "failed version=0 name= query=7"
    say "put 1 f"
    lose_session
    hear "failed version=0"
    unlock_table
    expect "find 1" "ok version=5 name=e query=8"
    end
}

# Ends the session that is under way, and waits until it has been noticed.
lose_session() {
    await is_blocked "${lost:-}"
    lost=$found
    sql "SELECT pg_terminate_backend($lost)" >/dev/null
}

check_locked_table() {
    echo "-- PostgreSQL: a table that is locked; the server ends the query, and the connection is kept"
    begin "$address" 10 $limit
    expect "find 1" "ok version=5 name=e query=1"
    expect "put 2 x" "ok version=2"
    kept=$(sessions)
    lock_table
    most=$((limit + 1500 * slack))
    expect "find 1" "timeout version=0 name= query=2"
    expect "put 1 x" "timeout version=0"
    [ "$took" -ge $((limit * 8 / 10)) ] || fail "it gives up after $took ms"
    unlock_table
    expect "find 1" "ok version=5 name=e query=3"
    if [ -z "$under" ]; then [ "$(sessions)" = "$kept" ] || fail "it is another connection"; fi
    end
}

check_stopped_server() {
    echo "-- PostgreSQL: a server that is stopped keeps nobody, and ends what was given up once it goes on"
    begin "$address" 10 $limit
    expect "start 0" ok
    expect "find 1" "ok version=5 name=e query=1"
    expect "write 2 y" "ok version=3 forgotten=1"
    stopped="$server $(sessions)"
    kill -STOP $stopped
    most=$((limit + 1500 * slack))
    expect "find 1" "timeout version=0 name= query=2"
    [ "$took" -ge $((limit - 50)) ] || fail "it gives up after $took ms"
    expect "find 1" "not_asked version=0 name= query=0"
    expect "write 2 z" "timeout version=0 forgotten=1"
    expect "write 2 z" "not_asked version=0 forgotten=0"
    kill -CONT $stopped
    most=$((10000 * slack))
    await "$bin/pg_isready" -q -h "$pg"
    expect "find 1" "ok version=5 name=e query=3"
    expect "write 3 z" "ok version=2 forgotten=1"
    end
    await has_no_sessions
}

check_addresses() {
    echo "-- PostgreSQL: addresses that are none, or lead nowhere; no password is said"
    must_not open "postgresql://me:secret@[::1"
    must_not open "postgresql://me:secret@/x?host=/nowhere"
    must_not open "postgresql://me:secret@/nowhere?host=$pg"
    if grep -q secret "$scratch/stderr"; then fail "a password is said"; fi
}

check_slow_postgres() {
    echo "-- PostgreSQL: a statement that takes too long"
    forget_tables
    begin "$address" 300000 200
    expect "find 7" "ok version=1 name=template 7 query=1"
    expect "change" timeout
    [ "$took" -le 1500 ] || fail "it gives up after $took ms"
    expect "find 7" "ok version=1 name=template 7 query=2"
    end
}

# ---- all of it, and once more under valgrind ----

start_postgres
check_json
check_sqlite
check_delay SQLite
check_bad_files
check_slow_sqlite
check_postgres
check_delay PostgreSQL
check_addresses
check_slow_postgres
[ -z "${SANITIZE:-}" ] && [ -n "${ASIDE_TEST_THOROUGH:-}" ] && command -v valgrind >/dev/null || exit 0

echo "-- under valgrind"
under="valgrind -q --fair-sched=yes --leak-check=full --errors-for-leak-kinds=definite,indirect,possible --error-exitcode=99 \
    --track-fds=yes --log-file=$scratch/valgrind.%p"
slack=4
limit=1000
check_json
check_sqlite
check_postgres
check_logs
