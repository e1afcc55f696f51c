#!/bin/sh
# Whether a program that was linked with an earlier library works with this one.
#
#   compare.sh KEPT LIBRARY GROWTH ABIDW [OPTION...]
#
# the kept description, the shared library, what may change, and the command that describes a library. Exit status 0:
# it does, functions may have come; 1: it may not; 77: cannot be told here.
set -eu
kept=$1 library=$2 growth=$3
shift 3
abidiff=${ABIDIFF:-abidiff}

for tool in "$abidiff" "$1"; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: there is no $tool (package abigail-tools)"
        exit 77
    fi
done
if [ ! -e "$kept" ]; then
    echo "skipped: $kept does not exist; \`make abi-update\` writes it"
    exit 77
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Two descriptions are compared, made by the same options: abidiff leaves out other things than abidw when it reads a
# library itself, and takes a type of the kept description for a private one.
"$@" --out-file "$scratch/new.abi" "$library"

# compare [OPTION] -- status is abidiff's: 1 and 2 are errors of its own, 4 a change, 8 one that surely breaks programs
compare() {
    status=0
    "$abidiff" --suppressions "$growth" "$@" "$kept" "$scratch/new.abi" >"$scratch/report" 2>&1 || status=$?
    if [ $((status & 3)) -ne 0 ]; then
        cat "$scratch/report"
        echo "abidiff could not compare $kept with $library"
        exit 1
    fi
}

compare --no-added-syms
if [ "$status" -ne 0 ]; then
    cat "$scratch/report"
    cat <<END
INCOMPATIBLE: programs that were linked with the library of $kept may break.
Take the change back; or raise the major version, so that the soname is another; or, if that library was never
released, run \`make abi-update\`.
END
    exit 1
fi

compare
if [ "$status" -eq 0 ]; then
    echo "compatible: nothing has changed that a program can see"
else
    sed -n "s/.*\[A\] *'\(.*\)'.*/    \1/p" "$scratch/report"
    echo "compatible: only the functions above are new; \`make abi-update\` keeps them"
fi
