#!/bin/sh
# The template service under load, in front of a PostgreSQL of this test's own that is killed, stopped and slow, and
# with clients who misbehave, leave, or come as 10,000 at once: a line for each fault says what the others saw.
. test/build/common.inc
needs python3
needs_service
. test/build/postgres.inc

program=build/template-service/template-service
build_example template-service

client=
also_tidy() {
    if [ -n "$client" ]; then kill "$client" 2>/dev/null || :; fi
}

# ---- what the client orders, while it keeps up the load ----

signal_server() {
    kill -"$1" "$server" # first, so that no other child is begun
    kill -"$1" $(children_of_server) || : # some may have ended by themselves
}

slow_down() {
    sql "ALTER TABLE templates RENAME TO kept; CREATE VIEW templates AS SELECT kept.* FROM kept,
         LATERAL (SELECT pg_sleep(1) FROM (SELECT kept.id) AS one) AS slow"
}

speed_up() {
    sql "DROP VIEW templates; ALTER TABLE kept RENAME TO templates"
}

lock_table() {
    sql "LOCK TABLE templates; SELECT pg_sleep(600)" >/dev/null 2>&1 3>&- 4>&- &
    await has_lock
}

has_lock() {
    [ "$(sql "SELECT count(*) FROM pg_locks
              WHERE relation = 'templates'::regclass AND mode = 'AccessExclusiveLock' AND granted")" = 1 ]
}

unlock_table() {
    sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%'" >/dev/null
}

# ---- the load ----

start_postgres
ulimit -n "$(ulimit -Hn)"
mkfifo "$scratch/orders" "$scratch/done"
timeout 600 python3 -B test/build/service_faults.py "$scratch/orders" "$scratch/done" "host=$pg&user=postgres" "$program" &
client=$!
exec 3<"$scratch/orders" 4>"$scratch/done"
while read -r order <&3; do
    $order
    echo >&4
done
status=0
wait "$client" || status=$?
client=
[ $status -eq 0 ] || fail "template-service: see above"
stop_server
