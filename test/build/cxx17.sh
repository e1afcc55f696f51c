#!/bin/sh
# The public headers and their macros are C++17 in every way in which the contract tests use them: each test of
# test/contract, made C++ by test/consumers/cxx17, compiles by g++ and by clang++, and says as C++ what it says as C.
# A line that a compiler names is that line of the test.
. test/build/common.inc
needs sed

words=test/consumers/cxx17
mkdir "$scratch/contract"
for file in test/contract/*.[ch] test/harness/harness.h; do
    name=$(basename "$file")
    { printf '#line 1 "%s"\n' "$file"; sed -Ezf $words/c_words.sed "$file"; } >"$scratch/contract/${name%.c}"
done

# as_cxx COMPILER OPTION... -- with the options that each has
as_cxx() {
    "$@" -std=c++17 -D_GNU_SOURCE -pthread -Iinclude -I$words -I"$scratch/contract" -Itest/harness -Itest -include c_words.h
}

# What the warnings left out are about is how the tests are written: members that a designated initialiser does not name,
# and in clang's eyes designated initialisers and compound literals as such.
warnings="-Wall -Wextra -Werror -Wno-missing-field-initializers"
tried=""
wrong=""
for compiler in "$CXX" g++ clang++ clang++-19; do
    program=$(command -v "${compiler%% *}") || continue
    program=$(readlink -f "$program")
    case " $tried" in *" $program "*) continue ;; esac
    tried="$tried$program "
    own=""
    if $compiler --version | grep -qi clang; then own="-Wno-c99-designator -Wno-c++20-designator -Wno-c99-extensions"; fi
    for file in test/contract/*.c; do
        name=$(basename "$file" .c)
        # Word splitting is meant.
        if ! as_cxx $compiler -x c++ "$scratch/contract/$name" $warnings $own -fsyntax-only >"$scratch/said" 2>&1; then
            head -n 12 "$scratch/said"
            wrong="$wrong
$file: $(grep -c 'error:' "$scratch/said") errors by $compiler"
        fi
    done
done
[ -z "$wrong" ] || fail "not C++17:$wrong"
[ -n "$tried" ] || skip "there is no C++ compiler"
echo "compiled by $tried"

# And it runs, on the library and the harness of the tests in C.
library=build/test/libaside.a
command -v "${CXX%% *}" >/dev/null && [ -e $library ] || exit 0
passed=0
for file in test/contract/*.c; do
    name=$(basename "$file" .c)
    as_cxx $CXX -x c++ "$scratch/contract/$name" -w -g -O0 -c -o "$scratch/$name.o" || fail "$name"
    $CXX "$scratch/$name.o" build/test/harness/*.o -Wl,--whole-archive $library -Wl,--no-whole-archive -rdynamic -pthread -ldl \
        -o "$scratch/$name" || fail "$name"
    status=0
    ASIDE_TEST_ROUNDS=0.1 "$scratch/$name" >"$scratch/said" 2>&1 || status=$?
    [ $status -eq 0 ] || [ $status -eq 77 ] || { grep -v '^  ok' "$scratch/said"; fail "$name, run as C++: status $status"; }
    passed=$((passed + $(sed -n 's/^\([0-9]*\) passed, .*/\1/p' "$scratch/said" | tail -n 1)))
    rm "$scratch/$name.o" "$scratch/$name"
done
echo "$passed tests passed as C++"
