#!/bin/sh
# What docs/DROP-IN.md says: its commands, taken from it, build a program from src and include alone, in C and C++, by gcc
# and by clang, with warnings as errors. A fetch that ends its thread shows that the flags are the right ones.
. test/build/common.inc
document=docs/DROP-IN.md

# blocks LANGUAGE -- the document's commands, a file each: $scratch/LANGUAGE.1 and so on
blocks() {
    awk -v language="$1" -v to="$scratch/$1." '
        $0 == "```" language { number++; inside = 1; next }
        /^```/ { inside = 0 }
        inside { print > (to number) }
    ' $document
}
blocks sh
blocks cmake
# 1: all at once. 2: in a C++ program. 3: hidden names.
[ -s "$scratch/sh.3" ] && [ ! -e "$scratch/sh.4" ] && [ -s "$scratch/cmake.1" ] && [ ! -e "$scratch/cmake.2" ] ||
    fail "$document has other blocks"
grep -q 'program.cc' "$scratch/sh.2" && grep -q 'localize' "$scratch/sh.3" ||
    fail "$document has its blocks in another order"
for word in $(grep -oE '(^| )-(std|D|f|I|p)[^ ]*' "$scratch/sh.1"); do
    grep -q "^| .\?$word" $document || fail "$document says nothing of $word"
done

mkdir "$scratch/libaside" "$scratch/yours" "$scratch/bin"
cp -R include src "$scratch/libaside"
cp test/consumers/consumer.c "$scratch/yours/program.c"
cp test/consumers/consumer.cc "$scratch/yours/program.cc"

# The document's cc and c++, with warnings as errors.
# compilers CC CXX
compilers() {
    set -- "$(command -v "${1%% *}")" "${1#"${1%% *}"}" "$(command -v "${2%% *}" || :)" "${2#"${2%% *}"}"
    printf '#!/bin/sh\nexec %s %s -O2 -Wall -Wextra -Werror "$@"\n' "$1" "$2" >"$scratch/bin/cc"
    printf '#!/bin/sh\nexec %s %s -O2 -Wall -Wextra -Werror "$@"\n' "$3" "$4" >"$scratch/bin/c++"
    chmod 755 "$scratch/bin/cc" "$scratch/bin/c++"
}

# follow NUMBER -- does what that block says, in yours, and runs what came of it
follow() {
    rm -f "$scratch/yours/program"
    (cd "$scratch/yours" && PATH=$scratch/bin:$PATH sh -eu "$scratch/sh.$1") || fail "block $1"
    (cd "$scratch/yours" && timeout 60 ./program) >"$scratch/output" || fail "block $1: exit status $?"
    diff test/consumers/expected "$scratch/output" || fail "block $1: the program says something else"
    echo "block $1: ok ($(sed -n "s,.*exec \([^ ]*\).*,\1,p" "$scratch/bin/cc"))"
}

compilers "$CC" "$CXX"
follow 1
# uthash lies beside the library's files, as the document allows: then it is that one.
header=$(printf '#include <uthash.h>\n' | $CC -E -x c - | sed -n 's/^# [0-9]* "\(.*uthash\.h\)".*/\1/p' | head -n 1)
cp "$header" "$scratch/yours/aside/src"
(cd "$scratch/yours" && $CC -std=c11 -D_GNU_SOURCE -Iaside/include -Iaside/src -M aside/src/base/table.c) |
    grep -q ' aside/src/uthash.h' || fail "not the uthash.h that was copied"

if command -v "${CXX%% *}" >/dev/null; then
    follow 2
    # A fetch that ends its thread, and one that an exception leaves: both tell the other caller, who has joined them.
    cat >"$scratch/yours/ends.cc" <<'END'
#include <aside/aside.h>
#include <pthread.h>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <unistd.h>

static aside_cache *cache;
static int thrown;

static aside_status ends(aside_fetch *, void *)
{
    aside_stats stats = {};
    do {
        usleep(1000);
        stats.struct_size = sizeof stats;
    } while (aside_stats_get(cache, &stats) == ASIDE_OK && stats.waiters_now == 0);
    if (thrown)
        throw std::runtime_error("thrown");
    pthread_exit(nullptr);
}

static aside_status ask()
{
    aside_call call = ASIDE_CALL_INIT;
    aside_result result = ASIDE_RESULT_INIT;
    call.fetch = ends;
    return aside_get_with_fetch(cache, ASIDE_STR("key"), &call, &result);
}

static void *lead(void *)
{
    try {
        if (ask() == ASIDE_OK)
            abort();
    } catch (const std::runtime_error &) {
    }
    return nullptr;
}

int main()
{
    for (thrown = 0; thrown < 2; thrown++) {
        pthread_t leader;
        aside_stats stats = {};
        if (aside_open(&cache, nullptr) != ASIDE_OK || pthread_create(&leader, nullptr, lead, nullptr) != 0)
            return 1;
        do {
            usleep(1000);
            stats.struct_size = sizeof stats;
        } while (aside_stats_get(cache, &stats) == ASIDE_OK && stats.fetches + stats.flights_now == 0);
        aside_status status = ask();
        std::printf("%s\n", aside_status_name(status));
        pthread_join(leader, nullptr);
        aside_unref(cache);
    }
}
END
    (cd "$scratch/yours" && "$scratch/bin/c++" -std=c++17 -pthread -Iaside/include ends.cc objects/*.o -o ends) || fail "ends.cc"
    timeout 60 "$scratch/yours/ends" >"$scratch/output" || fail "ends: exit status $?"
    printf 'ASIDE_E_ABANDONED\nASIDE_E_ABANDONED\n' | diff - "$scratch/output" || fail "a fetch that ends its thread"
fi

if command -v objcopy >/dev/null; then
    follow 3
    nm -g --defined-only "$scratch/yours/aside.o" | awk '$3 !~ /^aside_/ { print; bad = 1 } END { exit bad }' ||
        fail "a name is not hidden"
fi

if command -v clang >/dev/null && command -v clang++ >/dev/null; then
    rm -rf "$scratch/yours/aside"
    compilers clang clang++
    follow 1
fi

if command -v cmake >/dev/null && command -v "${CXX%% *}" >/dev/null; then
    cd "$scratch/yours"
    {
        printf 'cmake_minimum_required(VERSION 3.16)\nproject(yours LANGUAGES C CXX)\n'
        cat "$scratch/cmake.1"
        printf 'add_executable(in_c program.c)\ntarget_link_libraries(in_c PRIVATE aside)\n'
        printf 'add_executable(in_cxx program.cc)\ntarget_link_libraries(in_cxx PRIVATE aside)\n'
        printf 'set_target_properties(in_cxx PROPERTIES CXX_STANDARD 17)\n'
    } >CMakeLists.txt
    {
        CC=$CC CXX=$CXX CFLAGS=-Werror CXXFLAGS=-Werror cmake -S . -B made && cmake --build made --parallel 2
    } >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "cmake"; }
    for program in made/in_c made/in_cxx; do
        timeout 60 $program | diff "$OLDPWD/test/consumers/expected" - || fail "cmake: $program"
    done
    echo "cmake: ok"
fi
