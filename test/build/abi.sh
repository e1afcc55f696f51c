#!/bin/sh
# `make abi` says of the library as it is that it is compatible. It lets pass what a linked program cannot notice, new
# functions and structs that grow at their end, and fails on the rest: a function that goes or changes, a struct that
# changes elsewhere.
. test/build/common.inc
needs abidw abidiff tar
unset MAKEFLAGS MFLAGS MAKELEVEL WERROR # the variants cause warnings

tree=$scratch/tree
mkdir "$tree"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$tree"

# in_tree TARGET -- what it printed is in $scratch/said
in_tree() {
    "$MAKE" -C "$tree" --no-print-directory -s -j2 "$1" CC="$CC" CFLAGS=-O0 >"$scratch/said" 2>&1
}

# The library as it is, against the description that is kept. Where there is none for this machine the rest goes on.
in_tree abi || grep -q '^skipped' "$scratch/said" || { grep -v '^  [A-Z]* ' "$scratch/said"; fail "make abi"; }
tail -n 1 "$scratch/said"

# A function and a struct of the test's own, so that most variants compile one small file.
cat >"$tree/include/aside/example.h" <<'END'
#include <aside/aside.h>
typedef struct aside_example {
    int width;
    int height;
} aside_example;
ASIDE_API int aside_example_area(const aside_example *example, int scale);
ASIDE_API int aside_example_other(void);
END
cat >"$tree/src/base/example.c" <<'END'
#include <aside/example.h>
int aside_example_area(const aside_example *example, int scale)
{
    return example->width * example->height * scale;
}
int aside_example_other(void)
{
    return 1;
}
END

in_tree abi-update || { cat "$scratch/said"; fail "abi-update"; }
kept=$tree/docs/packaging/abi/$($CC -dumpmachine).abi
bytes=$(wc -c <"$kept")
echo "description: $bytes bytes"
[ "$bytes" -lt 300000 ] || fail "that is too much"
if grep -nE "$scratch|$PWD|/usr/|/home/" "$kept"; then fail "the description names a directory"; fi
grep -q ' aside_example_area@LIBASIDE_[0-9.]* ' "$tree/docs/packaging/debian/libaside0.symbols" ||
    fail "the package's symbols lack a function"
mkdir "$scratch/base"
cp -Rp "$tree/include" "$tree/src" "$scratch/base"

# variant WANTED NAME FILE SED-SCRIPT [FILE SED-SCRIPT]... -- what `make abi` says to the tree so changed
variant() {
    wanted=$1 name=$2 changed=
    shift 2
    while [ $# -gt 0 ]; do
        sed -i "$2" "$tree/$1"
        ! cmp -s "$tree/$1" "$scratch/base/$1" || fail "$name: nothing was changed in $1"
        changed="$changed $1"
        shift 2
    done
    status=0
    in_tree abi || status=$?
    cp "$scratch/said" "$scratch/report"
    grep -qE '^(compatible|INCOMPATIBLE)' "$scratch/report" || { cat "$scratch/report"; fail "$name: no verdict"; }
    if [ "$wanted" = passes ]; then right=$((status == 0)); else right=$((status != 0)); fi
    if [ $right -eq 0 ]; then
        cat "$scratch/report"
        fail "$name: status $status, though it $wanted"
    fi
    echo "$wanted: $name"
    # Back to what they were, with a new date: objects of the variant are older. Nothing else is compiled again.
    for file in $changed; do
        cp "$scratch/base/$file" "$tree/$file"
    done
}

header=include/aside/example.h
code=src/base/example.c
public=include/aside/aside.h

variant passes "nothing"
variant passes "a new function" $header '$a ASIDE_API int aside_example_new(void);' \
    $code '$a int aside_example_new(void) { return 2; }'
grep -q aside_example_new "$scratch/report" || fail "the new function is not named"
variant passes "a new status" $public 's/^    X(ASIDE_OK, 0, "success")/    X(ASIDE_EXAMPLE, 99, "an example") &/'
variant passes "aside_call grows at its end" $public 's/^} aside_call;/    int example;\n&/'

variant fails "a function goes" src/libaside.map 's/^ *local:/& aside_example_other;/'
variant fails "a function has another parameter" $header 's/int scale/long scale/' $code 's/int scale/long scale/'
variant fails "a function returns something else" $header 's/int aside_example_other/long aside_example_other/' \
    $code 's/int aside_example_other/long aside_example_other/'
variant fails "a version node changes its name" src/libaside.map 's/^LIBASIDE_[0-9.]*/LIBASIDE_99.1/'
variant fails "a status changes its number" $public 's/X(ASIDE_MISS, 1,/X(ASIDE_MISS, 98,/'
variant fails "a struct is squeezed" $public 's/^    aside_cancel \*cancel;/    int64_t example;\n&/'
variant fails "a struct that may not grow grows" $header 's/^} aside_example;/    int depth;\n&/'
variant fails "a member of a struct that may grow changes its type" $public \
    's/^    int64_t timeout_ms;/    int timeout_ms, example;/'
variant fails "a struct grows at its end and is squeezed as well" $public \
    's/^    aside_cancel \*cancel;/    int64_t example;\n&/; s/^} aside_call;/    int64_t another;\n&/'

rm "$kept"
status=0
in_tree abi || status=$?
[ $status -ne 0 ] && grep -q 'make abi-update' "$scratch/said" || fail "without a description: status $status"
