#!/bin/bash
# Plants each fault of test/mutants/*.patch in a copy of the tree and runs the test that should see it.
#
# A patch begins with lines that patch(1) ignores:
#   Fault: what is wrong, in a sentence
#   Killed-by: PROGRAM [TEST] [VARIANT]     contract/flight second_look tsan; TEST none: all of them;
#                                           VARIANT none: test. PROGRAM may be a script: models/run.sh.
#                                           More such lines: any of them may kill.
#   Rounds: FACTOR                          for the scenarios; none: 1
#
# The sound tree must pass the same tests first. A fault counts as killed when the test fails, runs out
# of time, or does not end; a patch that does not apply or does not compile is an error. One that
# survives is tried again when nothing else runs: threads that meet seldom meet less on a busy machine.
#
#   run.sh [PATCH...]     all, or the ones named
set -u
cd "$(dirname "$0")/../.." || exit 2
make="${MAKE:-make} --no-print-directory"
unset MAKEFLAGS MFLAGS MAKELEVEL WERROR
attempts=3   # a fault that needs luck has three chances, and if it survives ten more, alone
limit=60     # seconds a test
jobs=${JOBS:-2}

patches=("$@")
[ $# -gt 0 ] || patches=(test/mutants/*.patch)
if [ ! -e "${patches[0]}" ]; then
    echo "there are no planted faults"
    echo "mutants: 0/0"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sound=$scratch/sound
mkdir "$sound"
tar -cf - Makefile include src test docs/examples docs/packaging/packaging.mk | tar -C "$sound" -xf -
variants_known=" test parkfb asan asan-clang tsan "

# killers PATCH -- "PROGRAM TEST VARIANT" a line, - for no test
killers() {
    sed -n '/^--- /q; s/^Killed-by: *//p' "$1" | while read -r program second third; do
        local test=- variant=test
        if [ -n "${third:-}" ]; then
            test=$second variant=$third
        elif [ -n "${second:-}" ]; then
            case $variants_known in *" $second "*) variant=$second ;; *) test=$second ;; esac
        fi
        echo "$program $test $variant"
    done
}

header() {
    sed -n "/^--- /q; s/^$2: *//p" "$1" | head -n 1
}

# targets PROGRAM VARIANT -- what make must build before it can run
targets() {
    case $1 in
    build/service_*.sh) echo all template-service ;;
    *.sh) echo all ;;
    *) echo "build/$2/test/$1" ;;
    esac
}

# build TREE TARGET...
build() {
    # shellcheck disable=SC2086
    (cd "$1" && shift && $make -j"$jobs" "$@")
}

# passes TREE PROGRAM TEST VARIANT ROUNDS -- runs it once, or $attempts times until it fails
passes() {
    local tree=$1 program=$2 test=$3 variant=$4 rounds=$5 times=$6 plain=
    case $program in
    *.sh) (cd "$tree" && timeout -k 5 600 bash "test/$program"); return ;;
    esac
    [ "$test" != - ] || test=
    if setarch -R true 2>/dev/null; then plain="setarch -R"; fi
    for _ in $(seq "$times"); do
        (cd "$tree" && timeout -k 5 900 $plain "build/$variant/test/$program" --limit $limit --rounds "$rounds" $test) ||
            return 1
    done
}

# Until one more may run in the background.
wait_for_room() {
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
}

# ---- the sound tree ----

# Leaves what was said where it fails.
#   check_sound NUMBER PROGRAM TEST VARIANT ROUNDS
check_sound() {
    local log=$scratch/sound.$1
    shift
    if passes "$sound" "$@" 1 >"$log.said" 2>&1; then return; fi
    { echo "the sound tree fails $1 $2 ($3):"; sed 's/^/    | /' "$log.said"; } >"$log.failed"
}

declare -A seen
wanted=() checks=() broken=0
for patch in "${patches[@]}"; do
    rounds=$(header "$patch" Rounds)
    [ -n "$(killers "$patch")" ] && [ -n "$(header "$patch" Fault)" ] || {
        echo "$patch: needs the lines Fault: and Killed-by:"
        broken=1
        continue
    }
    while read -r program test variant; do
        key="$program $test $variant ${rounds:-1}"
        [ -z "${seen[$key]:-}" ] || continue
        seen[$key]=1
        checks+=("$key")
        wanted+=($(targets "$program" "$variant"))
    done < <(killers "$patch")
done

if ! build "$sound" "${wanted[@]}" >"$scratch/log" 2>&1; then
    echo "the sound tree does not build:"
    sed 's/^/    | /' "$scratch/log"
    broken=1
else
    for number in "${!checks[@]}"; do
        wait_for_room
        # shellcheck disable=SC2086
        check_sound "$number" ${checks[$number]} </dev/null &
    done
    wait
    cat "$scratch"/sound.*.failed 2>/dev/null && broken=1
fi
if [ $broken -ne 0 ]; then
    echo "mutants: not run, the sound tree must pass first"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

# ---- each fault ----

# Writes killed, survived or error and the killer into $scratch/NAME.verdict.
#   try PATCH ATTEMPTS
try() {
    local patch=$1 attempts=$2 name tree rounds verdict=survived by=
    name=$(basename "$patch" .patch)
    tree=$scratch/tree.$name
    rounds=$(header "$patch" Rounds)
    cp -a "$sound" "$tree"
    if ! patch -p1 -s -F0 -d "$tree" <"$patch" >"$scratch/$name.log" 2>&1; then
        verdict="error: does not apply"
    else
        while read -r program test variant; do
            if ! build "$tree" $(targets "$program" "$variant") >"$scratch/$name.log" 2>&1; then
                verdict="error: does not build"
                break
            fi
            if ! passes "$tree" "$program" "$test" "$variant" "${rounds:-1}" $attempts >"$scratch/$name.log" 2>&1; then
                verdict=killed by="$program $test ($variant)"
                break
            fi
        done < <(killers "$patch")
    fi
    rm -rf "$tree"
    echo "$verdict" >"$scratch/$name.verdict"
    printf '%-9s %-32s %s\n' "${verdict%%:*}" "$name" "$(header "$patch" Fault)${by:+  [${by/ - / }]}"
    case $verdict in error*)
        echo "    $verdict"
        sed 's/^/    | /' "$scratch/$name.log" ;;
    esac
}

for patch in "${patches[@]}"; do
    wait_for_room
    case $patch in /*) ;; *) patch=$PWD/$patch ;; esac
    try "$patch" $attempts </dev/null &
done
wait

for verdict in "$scratch"/*.verdict; do
    [ "$(cat "$verdict")" = survived ] || continue
    name=$(basename "$verdict" .verdict)
    for patch in "${patches[@]}"; do
        [ "$(basename "$patch" .patch)" != "$name" ] || try "$(realpath "$patch")" 10 </dev/null
    done
done

killed=$(cat "$scratch"/*.verdict | grep -c '^killed')
total=${#patches[@]}
echo "mutants: $killed/$total"
echo "$killed passed, $((total - killed)) failed, 0 skipped"
[ "$killed" -eq "$total" ]
