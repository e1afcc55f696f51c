#!/bin/sh
# The shared library exports the functions of the public header and nothing else, in one version node;
# the static library defines no other global name either.
. test/build/common.inc
needs nm

declared_functions >"$scratch/declared"
[ -s "$scratch/declared" ] || fail "found no function in the header"

nm -D --defined-only "$released/libaside.so" >"$scratch/nm"
awk '$2 != "A" { print $3 }' "$scratch/nm" | sed 's/@.*//' | sort -u >"$scratch/exported"
diff "$scratch/declared" "$scratch/exported" || fail "declared (<) and exported (>) differ"
if awk '$2 != "A" { print $3 }' "$scratch/nm" | grep -v '@@LIBASIDE_[0-9.]*$'; then
    fail "exported without a version"
fi

nm -g --defined-only "$released/libaside.a" | awk 'NF == 3 { print $3 }' | sort -u >"$scratch/static"
diff "$scratch/declared" "$scratch/static" || fail "declared (<) and global in the static library (>) differ"
