#!/bin/sh
# docs/examples/template-service/loadtest.sh, smaller than it is by itself: what it checks holds, and without the cache,
# or without singleflight, there are more queries.
. test/build/common.inc
needs wrk curl
needs_service

build_example template-service
hot=6 spread=2 clients=100
timeout 300 docs/examples/template-service/loadtest.sh --clients $clients --waves $hot --stampede-every 2 \
    --spread-clients $clients --spread-waves $spread --spread-ids $clients --ttl-ms 300 >"$scratch/table" 2>&1 || {
    status=$?
    cat "$scratch/table"
    fail "loadtest.sh: exit status $status"
}
cat "$scratch/table"

# column MODE NUMBER
column() {
    awk -v mode="$1" -v column="$2" '$1 == mode { print $column }' "$scratch/table"
}

requests=$(((hot + spread) * clients))
for mode in normal no-cache no-singleflight; do
    [ "$(column $mode 2)" = $requests ] || fail "$mode: not $requests requests"
done
[ "$(column no-cache 5)" = $requests ] || fail "no-cache: not a query a request"
[ "$(column no-cache 6)" = 0 ] || fail "no-cache: shared answers"
[ "$(column no-singleflight 6)" = 0 ] || fail "no-singleflight: shared answers"
[ "$(column normal 6)" -gt 0 ] || fail "normal: no answer was shared"
[ "$(column no-singleflight 5)" -gt "$(column normal 5)" ] || fail "no more queries without singleflight"
[ "$(column no-cache 5)" -gt "$(column no-singleflight 5)" ] || fail "no more queries without the cache"

# What it does not know it refuses.
if docs/examples/template-service/loadtest.sh --no-such-option 1 >/dev/null 2>&1; then fail "an unknown option is taken"; fi
