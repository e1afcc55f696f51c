#!/bin/sh
# The template service, in SQLite, answers as it should: every route, method, status and header, what clients share,
# what they do not, and how it starts and ends. With ASIDE_TEST_THOROUGH once more under valgrind: it loses nothing.
. test/build/common.inc
needs python3
needs_service

program=build/template-service/template-service
build_example template-service
export SYSLOG_TO_FILE="$scratch/syslog_to_file.so"
"$CC" -Wall -Wextra -Werror -shared -fPIC -o "$SYSLOG_TO_FILE" test/consumers/syslog_to_file.c

timeout 300 python3 -B test/build/service_http.py 1 "$program" || fail "template-service: see above"

[ -n "${ASIDE_TEST_THOROUGH:-}" ] && command -v valgrind >/dev/null || exit 0
timeout 900 python3 -B test/build/service_http.py 3 valgrind --fair-sched=yes --leak-check=full --error-exitcode=99 \
    --errors-for-leak-kinds=definite --track-fds=yes --log-file="$scratch/valgrind.%p" "$program" || {
    grep -h -A12 'ERROR SUMMARY: [1-9]\|lost in\|Invalid' "$scratch"/valgrind.* | head -n 60
    fail "template-service under valgrind: see above"
}
# Those that were inherited are not its own. What is closed after a fork valgrind takes for open; and the daemon whose
# query does not end keeps what its worker may use.
for log in "$scratch"/valgrind.*; do
    if grep -q -e '--daemonize' -e '--query-delay-ms 100000' "$log"; then continue; fi
    if grep -A2 'Open .*descriptor\|Open .*socket' "$log" | grep -q ' at 0x'; then
        cat "$log"
        fail "template-service leaves a descriptor open"
    fi
done
