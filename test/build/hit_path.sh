#!/bin/sh
# A hit by aside_copy or aside_visit takes no lock and has one locked instruction: the exchange by which the thread
# announces its epoch in its own record. No more (a shared write), and no less (a plain store would let the processor
# read the index before the announcement is seen). Read off the machine code of what ships.

. test/build/common.inc

case $(uname -m) in
x86_64) ;;
*) skip "knows the instructions of x86-64 alone" ;;
esac
library=build/release/libaside.so.0
[ -e "$library" ] || library=$(ls build/release/libaside.so.*.*.* | head -n 1)

# body FUNCTION: its instructions, without the parts that the compiler has moved out as cold
body() {
    objdump -d --no-show-raw-insn "$library" |
        awk -v name="<$1>:" '$2 == name { inside = 1; next } /^$/ { inside = 0 } inside'
}

for function in aside_copy aside_visit cache_hash; do
    code=$(body "$function")
    if [ -z "$code" ]; then
        [ "$function" = cache_hash ] && continue # inlined
        fail "$function is not in $library"
    fi
    locked=$(printf '%s\n' "$code" | grep -c '[[:space:]]lock ' || true)
    exchanged=$(printf '%s\n' "$code" | grep -cE 'xchg .*\(%' || true)
    wanted=1
    [ "$function" = cache_hash ] && wanted=0
    echo "$function: $exchanged exchanges, $locked other locked instructions"
    [ "$locked" -eq 0 ] || fail "$function has a locked instruction on its hot path"
    [ "$exchanged" -eq "$wanted" ] || fail "$function: $exchanged exchanges, not $wanted"
    called=$(printf '%s\n' "$code" | grep -oE 'call +[0-9a-f]+ <[^>]+>' | grep -oE '<[^+>]+' | tr -d '<' | sort -u)
    for callee in $called; do
        case $callee in
        cache_hash | clock_gettime@plt | memcpy@plt | __stack_chk_fail@plt | *.cold | *.part.* | aside_value_data | aside_value_size) ;;
        plain_miss | copy_locked | visit_locked | visit_nested | plain_refuse | host_free_orphans | thread_enroll | thread_count_slowly) ;; # not on a hit
        referee_hear_hit) ;; # on a hit of a sampled key
        siphash) ;; # where the processor has no AES instructions
        *) fail "$function calls $callee: is that on the hot path?" ;;
        esac
    done
done
