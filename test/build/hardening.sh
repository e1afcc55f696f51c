#!/bin/sh
# The shared library as readelf sees it.
. test/build/common.inc
needs readelf

library=$released/libaside.so
readelf -W -d "$library" >"$scratch/dynamic"
readelf -W -l "$library" >"$scratch/segments"

for wanted in BIND_NOW NODELETE 'soname: \[libaside.so.0\]'; do
    grep -q "$wanted" "$scratch/dynamic" || fail "dynamic section lacks $wanted"
done
grep -q GNU_RELRO "$scratch/segments" || fail "no RELRO"
grep GNU_STACK "$scratch/segments" | grep -q ' RW ' || fail "the stack is executable"
! grep -q TEXTREL "$scratch/dynamic" || fail "text relocations"
! grep -Eq 'RPATH|RUNPATH' "$scratch/dynamic" || fail "a run path"
! grep -q ' RWE ' "$scratch/segments" || fail "a segment is writable and executable"

# libgcc_s holds what unwinds a thread that ends inside a fetch.
for needed in $(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$scratch/dynamic"); do
    case $needed in
    libc.* | libpthread.* | libgcc_s.* | ld-linux* | ld-musl*) ;;
    *) fail "needs $needed" ;;
    esac
done
# Without thread-local storage of the library's own by the slow model.
! nm -D --undefined-only "$library" | grep -q __tls_get_addr || fail "calls __tls_get_addr"
