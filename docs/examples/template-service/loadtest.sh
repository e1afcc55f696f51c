#!/bin/sh
# Loads the template service with wrk: 25 waves in which 200 clients ask for one template at the same time, and then
# 2,500 requests over many templates; 7,500 in all, exactly. Rows change meanwhile, and templates expire. This is done
# to a daemon as it is meant, to one with --no-cache, and to one with --no-singleflight, each with a fresh database.
#
#   make template-service
#   docs/examples/template-service/loadtest.sh [OPTION VALUE]...
#
# Options are the variables below, with -- and in lower case: --db postgresql://user@host/dbname, --waves 5,
# --ttl-ms 300. For PostgreSQL databases are created beside the named one, and dropped.
#
# A wave is one run of wrk in which each connection asks once (loadtest.lua). Each answer carries the number of the
# query that read it, so that the clients know how many queries there were: as many as there are distinct pairs of id
# and query in their answers, for a pair is a template during one ttl. In normal mode the daemon's db_hits_total must
# be that number, and no template may have had more of them than one for each ttl that has begun. In each mode the
# clients' count of requests, hits and shared answers must be the daemon's. Exit status 1 if anything of that is not so.
set -eu

DB=sqlite         # or postgresql://...
CLIENTS=200       # of the hot template
WAVES=25          # of them
STAMPEDE_EVERY=5  # before each so-manieth wave the ttl is over
SPREAD_CLIENTS=250
SPREAD_WAVES=10
SPREAD_IDS=200
TTL_MS=1000
CHANGE_EVERY_MS=150
QUERY_DELAY_MS=10 # of the database
WORKERS=16
SERVICE=build/template-service/template-service

HOT=1
here=$(dirname "$0")

usage() {
    sed -n '/^# Loads/,/^set -eu/p' "$0" | sed '$d; s/^# \{0,1\}//'
    sed -n '/^DB=/,/^SERVICE=/p' "$0" | sed 's/^/    /'
    exit "$1"
}

while [ $# -gt 0 ]; do
    [ "$1" != --help ] || usage 0
    name=$(printf '%s\n' "${1#--}" | tr 'a-z-' 'A-Z_')
    case $name in
    DB | CLIENTS | WAVES | STAMPEDE_EVERY | SPREAD_CLIENTS | SPREAD_WAVES | SPREAD_IDS | TTL_MS | CHANGE_EVERY_MS | \
        QUERY_DELAY_MS | WORKERS | SERVICE) [ $# -ge 2 ] || usage 64 >&2 ;;
    *) usage 64 >&2 ;;
    esac
    eval "$name=\$2"
    shift 2
done
for tool in wrk curl; do
    command -v $tool >/dev/null || { echo "there is no $tool" >&2; exit 69; }
done
[ -x "$SERVICE" ] || { echo "there is no $SERVICE: make template-service" >&2; exit 69; }
if [ "$DB" != sqlite ] && ! command -v psql >/dev/null; then echo "there is no psql" >&2; exit 69; fi
HOT_REQUESTS=$((CLIENTS * WAVES)) SPREAD_REQUESTS=$((SPREAD_CLIENTS * SPREAD_WAVES))
REQUESTS=$((HOT_REQUESTS + SPREAD_REQUESTS))

# ---- the daemon and its database ----

scratch=$(mktemp -d)
daemon= database=
# The same address with another database: what comes after the host and before a question mark.
address_of() {
    printf '%s\n' "$DB" | sed "s|^\([a-z]*://[^/?]*\)/\{0,1\}[^?]*|\1/$1|"
}

create_database() {
    database=aside_load_$$_$1
    psql -X -q -d "$DB" -c "CREATE DATABASE $database"
}

drop_database() {
    [ -n "$database" ] || return 0
    psql -X -q -d "$DB" -c "DROP DATABASE $database"
    database=
}

stop_daemon() {
    [ -n "$daemon" ] || return 0
    kill "$daemon"
    stopping=$daemon daemon=
    wait "$stopping" || { echo "the daemon has ended with $?" >&2; cat "$scratch/log" >&2; return 1; }
}

tidy() {
    status=$?
    trap - EXIT
    stop_daemon || status=1
    drop_database || status=1
    rm -rf "$scratch"
    exit $status
}
trap tidy EXIT
trap 'exit 130' INT TERM

# start_daemon MODE OPTION...: its address is in $url. No template is served past its ttl, so that an answer's query
# is one of its own ttl, and nobody gives up, however slow the machine.
start_daemon() {
    mode=$1
    shift
    : >"$scratch/log" # in which the last one has said where it listened
    case $DB in
    sqlite) source=$scratch/$mode.db ;;
    *)
        create_database "$(printf %s "$mode" | tr -c a-z _)"
        source=$(address_of "$database")
        ;;
    esac
    "$SERVICE" --port 0 --db "$source" --templates 1000 --ttl-ms "$TTL_MS" --stale-if-error-ms 0 \
        --change-every-ms "$CHANGE_EVERY_MS" --query-delay-ms "$QUERY_DELAY_MS" --workers "$WORKERS" \
        --timeout-ms 60000 --query-timeout-ms 30000 "$@" 2>"$scratch/log" &
    daemon=$!
    url=
    for _ in $(seq 200); do
        url=$(sed -n 's/.*listening on //p' "$scratch/log")
        [ -z "$url" ] || return 0
        sleep 0.05
    done
    cat "$scratch/log" >&2
    exit 1
}

# ---- one mode ----

now_ms() {
    date +%s%3N
}

# wave CLIENTS IDS FIRST
wave() {
    CLIENTS=$1 IDS=$2 FIRST=$3 ANSWERS="$scratch/answers" TIMES="$scratch/times" \
        wrk -t1 -c"$1" -d30s --timeout 30s -s "$here/loadtest.lua" "$url" >"$scratch/wrk" || {
        cat "$scratch/wrk" "$scratch/log" >&2
        exit 1
    }
}

pause_ms() {
    sleep "$(awk -v ms="$1" 'BEGIN { print ms / 1000 }')"
}

ask_all() {
    : >"$scratch/answers"
    : >"$scratch/times"
    began_ms=$(now_ms)
    for number in $(seq "$WAVES"); do
        if [ $((number % STAMPEDE_EVERY)) = 0 ]; then pause_ms $((TTL_MS + 20)); fi
        wave "$CLIENTS" 1 $HOT
    done
    for number in $(seq "$SPREAD_WAVES"); do
        wave "$SPREAD_CLIENTS" "$SPREAD_IDS" $((HOT + 1 + (number - 1) * SPREAD_CLIENTS % SPREAD_IDS))
    done
    took_ms=$(($(now_ms) - began_ms))
}

# metric NAME [LABELS]: 0 where it is not there
metric() {
    awk -v name="$1" 'index($0, name) == 1 { n = substr($0, length(name) + 1); if (n ~ /^ /) v = $NF } END { print v + 0 }' \
        "$scratch/metrics"
}

# A request is counted when the last of its answer has left, which is a moment before or after the client has it.
read_metrics() {
    for _ in $(seq 100); do
        curl -sfS "${url}metrics" >"$scratch/metrics"
        served=$(metric 'http_request_total{path="/template-details",method="GET",status="200"}')
        [ "$served" -lt "$REQUESTS" ] || return 0
        sleep 0.02
    done
}

clients_saw() {
    awk -v what="$1" '$3 == what { n++ } END { print n + 0 }' "$scratch/answers"
}

# quantile P, in milliseconds, of "microseconds count" lines in order
quantile() {
    awk -v p="$1" -v all="$REQUESTS" '{ n += $2 } n >= p * all { printf "%.1f", $1 / 1000; exit }' "$scratch/sorted"
}

failures=0
# equal WHAT ONE OTHER
equal() {
    [ "$2" != "$3" ] || return 0
    echo "$mode: $1: $2 is not $3" >&2
    failures=$((failures + 1))
}

# One more than the whole ttls that fit into the time it took: each query of a template came after the ttl of the last.
check_normal() {
    most=$((took_ms / TTL_MS + 1))
    worst=$(awk '!seen[$1, $2]++ { n[$1]++ } END { for (id in n) if (n[id] > worst) worst = n[id]; print worst + 0 }' "$scratch/answers")
    echo "normal: the clients saw $pairs distinct pairs of id and query; db_hits_total is $queries"
    echo "normal: in $took_ms ms, ttl $TTL_MS ms, no template had more than $worst queries; $most could have been"
    equal "pairs seen by clients, and db_hits_total" "$pairs" "$queries"
    if [ "$worst" -gt "$most" ]; then equal "queries of one template within the ttls that began" "$worst" "$most"; fi
}

run_mode() {
    start_daemon "$@"
    ask_all
    read_metrics
    sort -n "$scratch/times" >"$scratch/sorted"
    queries=$(metric db_hits_total) shared=$(metric singleflight_shared_total) hits=$(metric cache_hits_total)
    pairs=$(awk '!seen[$1, $2]++ { n++ } END { print n + 0 }' "$scratch/answers")
    equal "answers, and requests that were to be made" "$(wc -l <"$scratch/answers" | tr -d ' ')" $REQUESTS
    equal "answers of 200 by http_request_total" "$served" $REQUESTS
    equal "latencies by wrk" "$(awk '{ n += $2 } END { print n + 0 }' "$scratch/times")" $REQUESTS
    equal "hits by the clients, and by the daemon" "$(clients_saw hit)" "$hits"
    equal "shared answers by the clients, and by the daemon" "$(clients_saw shared)" "$shared"
    equal "answers without a query's number" "$(awk '$1 == "-" || $2 == "-" { n++ } END { print n + 0 }' "$scratch/answers")" 0
    awk -v mode="$mode" -v n="$served" -v hits="$hits" -v queries="$queries" -v shared="$shared" -v p50="$(quantile 0.5)" \
        -v p95="$(quantile 0.95)" -v p99="$(quantile 0.99)" 'BEGIN {
            printf "%-16s %8d %8.1f%% %8.1f%% %10d %8d %8s %8s %8s\n",
                mode, n, 100 * hits / n, 100 * (n - queries) / n, queries, shared, p50, p95, p99 }'
    if [ "$mode" = normal ]; then check_normal >"$scratch/claims"; fi
    stop_daemon
    drop_database
}

echo "$HOT_REQUESTS requests for one template, $WAVES waves of $CLIENTS; $SPREAD_REQUESTS over $SPREAD_IDS templates; ttl $TTL_MS ms"
printf '%-16s %8s %9s %9s %10s %8s %8s %8s %8s\n' mode requests 'hit rate' 'no query' queries shared 'p50 ms' 'p95 ms' 'p99 ms'
run_mode normal
run_mode no-cache --no-cache
run_mode no-singleflight --no-singleflight
cat "$scratch/claims"
[ $failures = 0 ]
