#!/bin/sh
# Counts the instructions of each path by callgrind, beside the stored numbers. Exit status 1 if one
# has risen by more than 5 %; 77 where there is no valgrind. Numbers of another compiler, C library or
# machine are shown, but nothing is concluded from them.
#
#   sh test/bench/instructions.sh PROGRAM OPTIONS STORED
#
#   PROGRAM   what test/bench/instructions.c became
#   OPTIONS   a file with the command by which the library was compiled
#   STORED    the numbers to compare with; UPDATE=1 rewrites them
set -eu
program=$1 options=$2 stored=$3

command -v valgrind >/dev/null || { echo "skipped: there is no valgrind (sh test/deps.sh bench)"; exit 77; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
dumps=$scratch/dump names=$scratch/names counted=$scratch/counted.tsv

# Without these the code would be the same.
flags_in() {
    tr ' ' '\n' <"$1" | grep -E '^-(O|f|m|D|U|std=|pthread)' | tr '\n' ' ' | sed 's/ $//'
}

count_instructions() {
    valgrind --tool=callgrind --callgrind-out-file="$dumps" --toggle-collect=counted --dump-after=counted \
        "$program" >"$names" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 2; }
}

# The Nth path printed is the Nth dump.
paths() {
    calls=$(sed -n 's/^calls: //p' "$names")
    number=0
    for path in $(sed -n 's/^path: //p' "$names"); do
        number=$((number + 1))
        awk -v path="$path" -v calls="$calls" '/^totals:/ { printf "%s\t%.1f\n", path, $2 / calls }' "$dumps.$number"
    done
}

conditions() {
    echo "# compiler: $(sed -n 's/.* compiler="\([^"]*\)".*/\1/p' "$names")"
    echo "# flags: $(flags_in "$options")"
    echo "# machine: $(uname -m)"
    echo "# C library: $(getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown)"
}

count_instructions
{
    echo "# Instructions a call, by make bench-instructions UPDATE=1. What they depend on:"
    conditions
    printf 'path\tinstructions\n'
    paths
} >"$counted"

if [ "${UPDATE:-}" = 1 ]; then
    cp "$counted" "$stored"
    cat "$stored"
    exit 0
fi
[ -f "$stored" ] || { cat "$counted"; echo "there is no $stored to compare with: UPDATE=1 makes it"; exit 0; }

grep '^# ' "$stored" >"$scratch/before" || :
grep '^# ' "$counted" >"$scratch/now"
comparable=1
if ! diff "$scratch/before" "$scratch/now" >"$scratch/differs"; then
    comparable=0
    echo "not comparable: stored (<) and counted now (>) under other conditions"
    grep '^[<>]' "$scratch/differs"
fi

awk -F '\t' -v comparable=$comparable '
    /^#/ || $1 == "path" { next }
    NR == FNR { stored[$1] = $2; next }
    FNR != NR && !header++ { printf "%-22s %14s %10s %9s\n", "path", "instructions", "stored", "change" }
    !($1 in stored) { printf "%-22s %14.1f %10s\n", $1, $2, "none"; next }
    {
        change = ($2 / stored[$1] - 1) * 100
        printf "%-22s %14.1f %10.1f %+8.2f%%\n", $1, $2, stored[$1], change
        if (comparable && change > 5)
            risen[++rises] = sprintf("RISE: path %s: %.1f instructions a call, %.1f stored, %+.1f %%", $1, $2, stored[$1], change)
        delete stored[$1]
    }
    END {
        for (path in stored)
            printf "%-22s %14s %10.1f\n", path, "gone", stored[path]
        for (i = 1; i <= rises; i++)
            print risen[i]
        exit (rises > 0)
    }' "$stored" "$counted"
