#!/bin/bash
# make lint: each check prints what it finds; a tool that is not there is skipped and said so.
# Last line: N passed, N failed, N skipped.
#
#   run.sh 'FORMATTED FILES' 'SOURCES TO ANALYSE' 'COMPILER OPTIONS'
set -u
cd "$(dirname "$0")/../.." || exit 2
read -ra formatted <<<"$1"
read -ra sources <<<"$2"
read -ra options <<<"$3"

passed=0 failed=0 skipped=0

# check NAME TOOL COMMAND...
check() {
    local name=$1 tool=$2
    shift 2
    if ! command -v "$tool" >/dev/null; then
        echo "$name: skipped, there is no $tool"
        skipped=$((skipped + 1))
    elif "$@"; then
        echo "$name: ok"
        passed=$((passed + 1))
    else
        echo "$name: FAILED"
        failed=$((failed + 1))
    fi
}

format() {
    "$CLANG_FORMAT" --dry-run --Werror --ferror-limit=3 "${formatted[@]}"
}

tidy() {
    local log status
    log=$(mktemp)
    printf '%s\n' "${sources[@]}" | xargs -P "${JOBS:-2}" -n 4 sh -c \
        'tool=$1 options=$2; shift 2; "$tool" --quiet --warnings-as-errors="*" "$@" -- $options -DASIDE_SCHED -DASIDE_DEBUG 2>/dev/null' \
        sh "$CLANG_TIDY" "${options[*]}" >"$log"
    status=$?
    cat "$log"
    rm -f "$log"
    return $status
}

lock_annotations() {
    "$CLANG_NEW" "${options[@]}" -DASIDE_DEBUG -fsyntax-only -Wthread-safety -Wthread-safety-beta -Werror=thread-safety \
        -Werror=thread-safety-beta $(printf '%s\n' "${sources[@]}" | grep '^src/')
}

check "format" "$CLANG_FORMAT" format
check "layers" sh sh test/lint/layers.sh
check "lock annotations" clang-19 lock_annotations
check "clang-tidy" "$CLANG_TIDY" tidy
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
