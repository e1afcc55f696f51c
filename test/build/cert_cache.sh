#!/bin/sh
# docs/examples/cert-cache compiles without a warning, runs, and says what it must: one download for 200 callers at
# the cold start and at expiry, no lock on hits, and each message judged as it was made. Under valgrind it loses nothing.
. test/build/common.inc
needs pkg-config timeout
pkg-config --exists 'libcurl >= 7.85' 'libcrypto >= 3.0' libmicrohttpd jansson ||
    skip "there is no libcurl 7.85, OpenSSL 3, libmicrohttpd or jansson to compile with (sh test/deps.sh cert-cache)"

program=build/cert-cache/cert-cache
build_example "$program"
if grep -i 'warning:' "$scratch/make"; then fail "does not compile without warnings"; fi

# run CALLERS COMMAND...: its last line, the one figure left out that depends on the machine
run() {
    callers=$1
    shift
    "$@" --callers "$callers" --messages "$scratch/messages" >"$scratch/out" 2>&1 </dev/null || {
        status=$?
        cat "$scratch/out"
        fail "exit status $status"
    }
    cat "$scratch/out"
    tail -n 1 "$scratch/out" | sed 's/ downloads_unshared=[0-9]*//' >"$scratch/last"
}

# expect CALLERS COUNT: of COUNT messages every other one is good; of the bad ones 2 in 19 are forged, and so on
expect() {
    share=$(($2 / 2 / 19))
    echo "cert-cache: messages=$2 verified=$(($2 / 2)) forged=$((2 * share)) untrusted=$((3 * share))" \
        "refused=$((10 * share)) unavailable=$((3 * share)) malformed=$share callers=$1" \
        "downloads_cold=1 downloads_expiry=1 downloads_failing=1 shared_cold=$1 shared_expiry=$1 locks_on_hits=0" \
        >"$scratch/expected"
    diff "$scratch/expected" "$scratch/last" || fail "the last line is not as expected"
    [ "$(wc -l <"$scratch/messages")" -eq "$2" ] || fail "not $2 lines in the file of messages"
}

# Downloads have longer than they need: a busy machine is no failing server.
run 200 timeout 300 "$program" --count 1140 --timeout-ms 20000
expect 200 1140

command -v valgrind >/dev/null || exit 0
run 20 timeout 600 valgrind -q --fair-sched=yes --leak-check=full --errors-for-leak-kinds=definite,indirect \
    --error-exitcode=99 "$program" --count 38 --timeout-ms 60000
expect 20 38
