#!/bin/sh
# Every piece of C in these pages compiles by itself, without a warning; those with a main() run, and end with 0.
. test/build/common.inc

pages="docs/FRESHNESS.md docs/EVENT-LOOPS.md docs/CANCELLATION.md"
library=$released/libaside.a
[ -e "$library" ] || fail "there is no $library"

# compiles FILE OPTIONS... -- as a reader would
compiles() {
    file=$1
    shift
    $CC -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -Wno-unused-function -Iinclude "$file" "$@"
}

compiled=0
ran=0
for page in $pages; do
    name=$(basename "$page" .md)
    awk -v to="$scratch/$name" '
        /^```c$/ { inside = 1; out = to "-" FNR ".c"; next }
        /^```/ { if (inside) close(out); inside = 0 }
        inside { print >out }
    ' "$page"
    fences=$(grep -c '^```c$' "$page" || :)
    here=0
    for piece in "$scratch/$name"-*.c; do
        [ -e "$piece" ] || continue
        here=$((here + 1))
        where="$page, after line $(basename "$piece" .c | sed 's/.*-//')"
        compiles "$piece" -c -o "$scratch/piece.o" || fail "$where: does not compile"
        grep -q '^int main(' "$piece" || continue
        compiles "$piece" "$library" -pthread -o "$scratch/program" || fail "$where: cannot be linked"
        timeout 60 "$scratch/program" >"$scratch/said" 2>&1 || fail "$where: ends with $?, after: $(cat "$scratch/said")"
        ran=$((ran + 1))
    done
    if [ "$here" -ne "$fences" ] || [ "$here" -eq 0 ]; then fail "$page: $fences pieces of C, $here found"; fi
    compiled=$((compiled + here))
done
[ $ran -gt 0 ] || fail "no piece has a main()"
echo "$compiled pieces compile, $ran programs run"
