#!/bin/sh
# Nothing lies at the top of the tree but what belongs there.
. test/build/common.inc

for name in *; do
    case $name in
    Makefile | include | src | test | docs | README.md | LICENSE) ;;
    build) grep -qx '/build/' .gitignore || fail "build/ is not ignored" ;;
    *) fail "$name does not belong at the top" ;;
    esac
done
for name in Makefile include src test docs LICENSE; do
    [ -e "$name" ] || fail "$name is missing"
done
