#!/bin/sh
# The template service's parking: a request that waits is resumed once, whoever comes first, and a client who hangs up
# is noticed; without a data race and without touching what has been freed.
. test/build/common.inc
needs_service

plain= # ThreadSanitizer does not like addresses that are too random
if setarch -R true 2>/dev/null; then plain="setarch -R"; fi
for sanitizer in thread address,undefined; do
    "$CC" -std=gnu11 -g -O1 -Wall -Wextra -Werror -fsanitize=$sanitizer -Iinclude -Idocs/examples/template-service \
        -o "$scratch/parking" test/consumers/service_parking.c docs/examples/template-service/parking.c \
        "$released/libaside.a" -pthread
    timeout 300 $plain "$scratch/parking" || fail "parking, with -fsanitize=$sanitizer: see above"
done
