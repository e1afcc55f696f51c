#!/bin/sh
# The first program of README.md compiles against the installed library, without a warning, and runs.
. test/build/common.inc
needs pkg-config
[ -e README.md ] || skip "there is no README.md yet"

awk '
    /^```c$/ { inside = 1; text = ""; next }
    /^```/ && inside { inside = 0; if (text ~ /int main\(/) { printf "%s", text; exit } }
    inside { text = text $0 "\n" }
' README.md >"$scratch/program.c"
[ -s "$scratch/program.c" ] || fail "README.md has no C program"

root=$scratch/root
install_to "$root"
# shellcheck disable=SC2046
$CC -std=c11 -Wall -Wextra -Werror "$scratch/program.c" -o "$scratch/program" $(pkg "$root" --cflags --libs) -pthread ||
    fail "does not compile"
(cd "$scratch" && LD_LIBRARY_PATH=$root/usr/lib timeout 60 ./program) || fail "exit status $?"
