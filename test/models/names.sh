#!/bin/sh
# names.sh [group.c] -- the model flight.pml and the code have to speak of the same transitions and fields.
# Both ways for the five transitions; every other group_* that the model mentions has to exist too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
model=$here/flight.pml
code=${1:-$here/../../src/flight/group.c}
header=$(dirname "$code")/group.h
transitions='group_join group_settle group_fence group_supersede group_leave'
fields='current fenced settled verdict waiters shared stamp refs value overtaken'
wrong=0

complain()
{
    echo "names: $*" >&2
    wrong=1
}

for file in "$code" "$header"; do
    [ -f "$file" ] || { complain "no file $file"; exit 1; }
done

# A definition begins in column 1 and is no prototype.
in_code=$(grep -E '^[A-Za-z_][A-Za-z0-9_ *]*[ *]group_[a-z_]+\(' "$code" | grep -v ';[[:space:]]*$' |
    sed 's/(.*//; s/.*[ *]//' | sort -u)
in_model=$(sed -n 's/^inline \(group_[a-z_]*\)(.*/\1/p' "$model" | sort -u)
mentioned=$(grep -oE '\bgroup_[a-z_]+' "$model" | sort -u)

has()
{
    printf '%s\n' "$1" | grep -qx "$2"
}

for name in $transitions; do
    has "$in_code" "$name" || complain "$name: no such function in group.c"
    has "$in_model" "$name" || complain "$name: no such transition in flight.pml"
done
for name in $mentioned; do
    has "$in_code" "$name" || complain "$name: in flight.pml, but no function in group.c"
    has "$in_model" "$name" || complain "$name: mentioned in flight.pml, but not modelled"
done

# The words of a struct, without its comments.
struct_of()
{
    sed -n "/^$1 {/,/^}/p" "$2" | sed 's:/\*.*\*/::' | grep -oE '[a-z_]+' | sort -u
}
of_code=$(struct_of 'struct flight' "$header")
of_model=$(struct_of 'typedef flight' "$model")
for name in $fields; do
    has "$of_code" "$name" || complain "$name: no such field of struct flight in group.h"
    has "$of_model" "$name" || complain "$name: no such field of flight in flight.pml"
done

[ $wrong = 0 ] && echo "names: $(echo "$mentioned" | wc -l) transitions, $(echo $fields | wc -w) fields agree"
exit $wrong
