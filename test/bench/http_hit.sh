#!/bin/sh
# What a hit of the template service costs beside bare libmicrohttpd that answers a constant of the same size: wrk
# asks one and the other in turn, the order turned each time; a figure is the median of the ratios of pairs, with the
# least and the greatest. Both are started alike; the bare one has no header but Content-Type. Processor time is that of
# the server alone: it counts what the program does, whoever else uses the machine.
#
#   sh test/bench/http_hit.sh SERVICE BARE [PAIRS [SECONDS]]
#
# Exit status 77 where there is no wrk. Otherwise nothing is concluded.
set -eu
service=$1 bare=$2 pairs=${3:-9} seconds=${4:-1}
for tool in wrk curl; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool (sh test/deps.sh bench)"; exit 77; }
done

scratch=$(mktemp -d)
ours= theirs=
end_servers() {
    for server in $ours $theirs; do kill "$server" && wait "$server" 2>/dev/null || :; done
    ours= theirs=
}
trap 'end_servers; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# await FILE EXPRESSION: the first line of the file that sed makes something of
await() {
    for _ in $(seq 200); do
        found=$(sed -n "$2" "$1" | head -n 1)
        if [ -n "$found" ]; then return 0; fi
        sleep 0.05
    done
    cat "$1" >&2
    exit 2
}

# start_servers THREADS
start_servers() {
    : >"$scratch/log"
    : >"$scratch/port"
    "$service" --port 0 --db "$scratch/$1.db" --ttl-ms 86400000 --http-threads "$1" 2>"$scratch/log" &
    ours=$!
    await "$scratch/log" 's/.*listening on //p'
    ours_url=${found}template-details?id=42
    curl -sf "$ours_url" >"$scratch/body" # from here on it is a hit
    "$bare" "$(wc -c <"$scratch/body")" "$1" >"$scratch/port" &
    theirs=$!
    await "$scratch/port" p
    theirs_url="http://127.0.0.1:$found/template-details?id=42"
}

ticks_of() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

# measure PID URL CONNECTIONS: requests a second, microseconds of processor time a request
measure() {
    before=$(ticks_of "$1")
    wrk -t1 -c"$3" -d"$seconds"s "$2" >"$scratch/wrk"
    after=$(ticks_of "$1")
    awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
        / requests in / { count = $1 } /^Requests.sec/ { rate = $2 }
        /Non-2xx|Socket errors/ { exit 2 }
        END { print rate, ticks / hz * 1e6 / count }' "$scratch/wrk"
}

# compare THREADS CONNECTIONS
compare() {
    : >"$scratch/pairs"
    for pair in $(seq "$pairs"); do
        if [ $((pair % 2)) = 1 ]; then
            a=$(measure "$ours" "$ours_url" "$2") b=$(measure "$theirs" "$theirs_url" "$2")
        else
            b=$(measure "$theirs" "$theirs_url" "$2") a=$(measure "$ours" "$ours_url" "$2")
        fi
        echo "$a $b" >>"$scratch/pairs"
    done
    awk '{ print $1 / $3 }' "$scratch/pairs" | sort -g >"$scratch/ratios"
    for column in 1 3 2 4; do awk -v c=$column '{ print $c }' "$scratch/pairs" | sort -g | middle; done | paste -s >"$scratch/medians"
    awk -v threads="$1" -v connections="$2" -v ratio="$(middle <"$scratch/ratios")" \
        -v least="$(head -n 1 "$scratch/ratios")" -v most="$(tail -n 1 "$scratch/ratios")" \
        '{ printf "%7d %11d %9.0f %9.0f %6.2f  (%.2f to %.2f) %9.2f %9.2f %6.2f\n", threads, connections, $1, $2, ratio, least, most, $3, $4, $4 / $3 }' \
        "$scratch/medians"
}

middle() {
    awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

echo "a hit of the template service, and bare libmicrohttpd: $pairs pairs of $seconds s each, medians"
echo "threads connections    ours/s    bare/s  ratio  (of pairs)       ours us   bare us  ratio of processor time, bare/ours"
for threads in 1 2; do
    start_servers $threads
    for connections in 1 64 200; do compare $threads $connections; done
    end_servers
done
