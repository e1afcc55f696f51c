#!/bin/bash
# run.sh -- searches the full state space of each model, and shows that each planted fault is found.
# One line a search; the last line is the sum. Needs spin and a C compiler; two searches at a time, each
# at most 8 GB (the largest takes 2.5).
set -u
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-gcc}

# verify MODEL NAME=VALUE...            the right model: no error, search complete
# cycles MODEL NAME=VALUE...            the right model: no infinite run at all, so every caller ends
# fault  MODEL NUMBER SIGN NAME=VALUE...  what it does is in the model's comment; SIGN is in the error
searches()
{
    cat <<'END'
verify epoch STEPS=2
verify flight CALLERS=2 SUPERSEDE DELETE
verify flight CALLERS=2 CANCEL DELETE
verify flight CALLERS=1 CANCEL CLOSE DELETE SUPERSEDE
verify flight CALLERS=2 CLOSE DELETE
verify flight CALLERS=2 CLOSE CLEAR
verify flight CALLERS=3 CLOSE
verify flight CALLERS=3 CANCEL FAIL
verify flight CALLERS=2 CANCEL SET
verify epoch STEPS=1 READER1=VISIT
verify epoch ROUNDS0=2 ROUNDS1=2 STEPS=0
verify epoch ROUNDS0=2 ROUNDS1=2 STEPS=0 READER0=HANDLE
verify epoch PLACES=1 STEPS=0 ROUNDS0=2
verify epoch PLACES=3 ROUNDS0=2 STEPS=0
verify flight CALLERS=2 CANCEL CLOSE
cycles flight CALLERS=2 CANCEL CLOSE
verify solo CALLERS=3 FORGET
verify solo CALLERS=2 FORGET CLOSE
fault flight 1 due CALLERS=2 CANCEL
fault flight 2 at_least CALLERS=2 CANCEL DELETE
fault flight 3 due CALLERS=2 CANCEL DELETE
fault flight 4 end.state CALLERS=2 CANCEL
fault flight 5 end.state CALLERS=2 CANCEL
fault flight 6 at_least CALLERS=2 CANCEL DELETE
fault flight 7 freed CALLERS=2 CANCEL
fault flight 8 settled CALLERS=2 CANCEL CLOSE
fault flight 9 ready CALLERS=2 CANCEL DELETE
fault flight 10 freed CALLERS=2 CANCEL
fault flight 11 freed CALLERS=2 CANCEL CLOSE
fault flight 12 at_least CALLERS=2 SUPERSEDE DELETE
fault flight 13 seen CALLERS=2 SUPERSEDE DELETE
fault flight 14 due CALLERS=2 CANCEL
fault flight 15 settled CALLERS=2 CLOSE DELETE
fault flight 16 at_least CALLERS=2 CANCEL CLEAR
fault flight 17 kept CALLERS=2 CANCEL
fault solo 1 due CALLERS=2
fault solo 2 due CALLERS=2
fault solo 3 close_returned CALLERS=2 CLOSE
fault solo 4 end.state CALLERS=2
fault solo 5 due CALLERS=2
fault solo 6 end.state CALLERS=2
fault epoch 1 freed STEPS=2
fault epoch 2 freed STEPS=2
fault epoch 3 freed STEPS=2
fault epoch 4 freed STEPS=2
fault epoch 5 freed STEPS=2
fault epoch 6 freed STEPS=2
fault epoch 7 freed STEPS=2
fault epoch 8 freed STEPS=2
fault epoch 9 freed STEPS=2
fault epoch 10 freed STEPS=2
END
}

# search DIRECTORY MODEL COMPILE RUN DEFINES...: leaves the report in DIRECTORY/report. COMPILE is split.
search()
{
    local directory=$1 model=$2 compile=$3 run=$4
    shift 4
    mkdir "$directory" && cd "$directory" || exit 1
    spin "${@/#/-D}" -a "$here/$model.pml" >report 2>&1 &&
        $cc -DMEMLIM=8000 $compile -o pan pan.c >report 2>&1 &&
        ./pan -m100000 -w25 ${run:+"$run"} >report 2>&1
    rm -f pan pan.? ./*.trail
}

# verified REPORT KIND. The reached end says that the assertions there were tested: a model that never gets
# there proves nothing. A search for cycles does not enter the last step, so it is not asked.
verified()
{
    grep -q 'errors: 0$' "$1" && ! grep -Eqi 'not completed|too small|truncated|out of memory' "$1" &&
        { [ "$2" = cycles ] || grep -A1 'unreached in init' "$1" | grep -q '(0 of'; }
}

states_of()
{
    awk '/states, stored/ { n = $1 } /elapsed time/ { t = $4 } END { printf "%d states, %.0f s", n, t }' "$1"
}

# The line of the model's opening comment for this fault.
fault_text()
{
    sed -n "s/^ \*  *$2  \(.*\)/\1/p" "$here/$1.pml" | head -n 1
}

one()
{
    local kind=$1 model=$2
    shift 2
    local directory=$work/$BASHPID report
    report=$directory/report
    if [ "$kind" = fault ]; then
        local number=$1 sign=$2 error
        shift 2
        (search "$directory" "$model" '-O1 -DSAFETY' '' "FAULT_$number" "$@")
        error=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' "$report")
        if [[ $error =~ ${sign/./ } ]]; then
            echo "found     $model fault $number, $(fault_text "$model" "$number"): $error"
            return
        fi
        echo "NOT FOUND $model fault $number, $(fault_text "$model" "$number"): ${error:-no error}"
        return
    fi
    case $kind in
    cycles) (search "$directory" "$model" '-O2 -DNP' -l "$@") ;;
    *) (search "$directory" "$model" '-O2 -DSAFETY' '' "$@") ;;
    esac
    if verified "$report" "$kind"; then
        echo "verified  $model $* ($kind): $(states_of "$report")"
    else
        echo "FAILED    $model $* ($kind)"
        grep -E '^pan|rror|not completed' "$report" | sed 's/^/          /'
    fi
}

if [ "${1:-}" = --one ]; then
    shift
    one "$@"
    exit
fi

command -v spin >/dev/null || { echo 'models: spin is not installed' >&2; exit 77; }
work=$(mktemp -d) || exit 1
export work
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$here/names.sh"
names=$?
searches | xargs -P 2 -L 1 "$BASH" "$0" --one | tee "$work/lines"
wanted=$(searches | grep -vc '^fault')
planted=$(searches | grep -c '^fault')
verified=$(grep -c '^verified ' "$work/lines")
found=$(grep -c '^found ' "$work/lines")
echo "models: $verified verified, $found faults found of $planted"
[ $names = 0 ] && [ "$verified" = "$wanted" ] && [ "$found" = "$planted" ]
