#!/bin/sh
# Builds the consumer in every way against the libaside that pkg-config finds, runs each, and looks whether the shared
# library is in it or not.
#
#   test/consumers/build.sh SCRATCH [LIBDIR]
#
# SCRATCH is an empty directory. LIBDIR is where the shared library lies if the system's linker does not look there.
# Environment: CC, CXX; PKG_CONFIG_LIBDIR and PKG_CONFIG_SYSROOT_DIR as pkg-config reads them; CMAKE_PREFIX_PATH. A build
# tool that is not there is left out, but for those in NEEDED ("cmake meson").
set -eu
here=$(cd "$(dirname "$0")" && pwd)
scratch=$1
libdir=${2:-}
CC=${CC:-cc}
CXX=${CXX:-c++}
built=0

fail() {
    echo "$*" >&2
    exit 1
}

there_is() {
    if command -v "$1" >/dev/null; then return 0; fi
    case " ${NEEDED:-} " in *" $1 "*) fail "there is no $1" ;; esac
    echo "left out: there is no $1"
    return 1
}

# runs PROGRAM shared|static
runs() {
    LD_LIBRARY_PATH=$libdir "$1" >"$scratch/output" || fail "$1: exit status $?"
    diff "$here/expected" "$scratch/output" || fail "$1 says something else"
    LD_LIBRARY_PATH=$libdir ldd "$1" >"$scratch/ldd" 2>&1 || : # complains of a program that is static as a whole
    linked=static
    if grep -q 'libaside' "$scratch/ldd"; then linked=shared; fi
    [ $linked = "$2" ] || { cat "$scratch/ldd"; fail "$1 is $linked, not $2"; }
    built=$((built + 1))
    echo "$2: ${1#"$scratch/"}"
}

# ---- the compilers ----

# Word splitting is meant of $CC and of what pkg-config says.
# plain NAME COMPILER SOURCE
plain() {
    $2 -Wall -Wextra -Werror $(pkg-config --cflags aside) "$here/$3" $(pkg-config --libs aside) -o "$scratch/$1.shared"
    runs "$scratch/$1.shared" shared
    $2 -Wall -Wextra -Werror -static $(pkg-config --static --cflags aside) "$here/$3" $(pkg-config --static --libs aside) -o "$scratch/$1.static"
    runs "$scratch/$1.static" static
    # Only this library static, the system's as usual.
    $2 -Wall -Wextra -Werror $(pkg-config --cflags aside) "$here/$3" \
        -Wl,-Bstatic $(pkg-config --libs aside) -Wl,-Bdynamic $(pkg-config --static --libs-only-other aside) -o "$scratch/$1.half"
    runs "$scratch/$1.half" static
}
there_is pkg-config || exit 77
plain c "$CC -std=c11" consumer.c
if there_is "${CXX%% *}"; then plain cc "$CXX -std=c++17" consumer.cc; fi

# ---- CMake and Meson, which want both compilers ----

command -v "${CXX%% *}" >/dev/null || exit 0
export CC CXX
ninja=
if command -v ninja >/dev/null; then ninja="-G Ninja"; fi

if there_is cmake; then
    cmake $ninja -S "$here" -B "$scratch/cmake" >"$scratch/log" 2>&1 && cmake --build "$scratch/cmake" --parallel 2 >>"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; fail "cmake"; }
    for kind in shared static; do
        for program in "$scratch"/cmake/*."$kind"; do runs "$program" $kind; done
    done
    [ -e "$scratch/cmake/cc.config.static" ] || fail "cmake built too little"
fi

if there_is meson && there_is ninja; then
    meson setup "$scratch/meson" "$here" >"$scratch/log" 2>&1 && ninja -C "$scratch/meson" >>"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; fail "meson"; }
    for kind in shared static; do
        for program in "$scratch"/meson/*."$kind"; do runs "$program" $kind; done
    done
    [ -e "$scratch/meson/cc.static" ] || fail "meson built too little"
fi

echo "$built programs"
