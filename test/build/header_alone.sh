#!/bin/sh
# Each public header compiles on its own, first and twice, in C11 and in C++17, without a warning.
. test/build/common.inc

printf '#include <aside/group.h>\n#include <aside/aside.h>\n#include <aside/group.h>\n' >"$scratch/alone.c"
cat >>"$scratch/alone.c" <<'END'
aside_options options = ASIDE_OPTIONS_INIT;
aside_call call = ASIDE_CALL_INIT;
aside_result result = ASIDE_RESULT_INIT;
aside_status touch(aside_cache *cache);
aside_status touch(aside_cache *cache)
{
    return aside_delete(cache, ASIDE_STR("key"));
}
END
cp "$scratch/alone.c" "$scratch/alone.cc"

tried=0
for compiler in "$CC" gcc clang clang-19; do
    command -v "${compiler%% *}" >/dev/null || continue
    $compiler -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Werror -Iinclude -fsyntax-only "$scratch/alone.c" ||
        fail "$compiler -std=c11"
    tried=$((tried + 1))
done
for compiler in "$CXX" g++ clang++ clang++-19; do
    command -v "${compiler%% *}" >/dev/null || continue
    $compiler -std=c++17 -Wall -Wextra -Wpedantic -Wshadow -Werror -Iinclude -fsyntax-only "$scratch/alone.cc" ||
        fail "$compiler -std=c++17"
    tried=$((tried + 1))
done
echo "$tried compilers"
[ $tried -gt 0 ]
