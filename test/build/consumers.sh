#!/bin/sh
# Programs find an installed library by pkg-config, by CMake and by Meson, shared and static, in C and C++: in a staging
# directory, and in one with another layout.
. test/build/common.inc
needs pkg-config cmake meson ninja "${CXX%% *}"
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR

# built_against NAME SYSROOT PREFIX LIBDIR -- where the two lie below SYSROOT
built_against() {
    mkdir "$scratch/$1"
    CC=$CC CXX=$CXX NEEDED="cmake meson ninja" PKG_CONFIG_SYSROOT_DIR=$2 PKG_CONFIG_LIBDIR=$2$4/pkgconfig \
        CMAKE_PREFIX_PATH=$2$3 sh test/consumers/build.sh "$scratch/$1" "$2$4" >"$scratch/$1.log" 2>&1 ||
        { cat "$scratch/$1.log"; fail "$1"; }
    echo "$1: $(tail -n 1 "$scratch/$1.log")"
}

root=$scratch/root
install_to "$root"
built_against staged "$root" /usr /usr/lib

# As Debian lays it out, below a prefix of its own.
machine=$($CC -print-multiarch 2>/dev/null || :)
libdir=/opt/aside/lib${machine:+/$machine}
other=$scratch/other_root
"$MAKE" -s install DESTDIR="$other" PREFIX=/opt/aside LIBDIR="$libdir" CC="$CC" >/dev/null
built_against layout "$other" /opt/aside "$libdir"

# A prefix that was moved: whoever says where it is now hears of no other place.
for words in $(PKG_CONFIG_LIBDIR=$other$libdir/pkgconfig pkg-config --define-variable=prefix="/moved" --cflags --libs aside); do
    case $words in
    -I/moved/include | "-L/moved${libdir#/opt/aside}" | -laside) ;;
    *) fail "pkg-config says $words of a moved prefix" ;;
    esac
done

# Every file that was installed is one that is known here, and all may read it.
manual=$(ls docs/man/*.3 docs/man/*.7 2>/dev/null | sed 's|.*/\(.*\)\.\(.\)$|share/man/man\2/\1.\2|' || :)
version=$(sed -n 's/^.define ASIDE_VERSION "\(.*\)"/\1/p' include/aside/aside.h)
major=${version%%.*}
# Word splitting is meant.
printf '%s\n' include/aside/*.h $manual lib/cmake/aside/aside-config.cmake lib/cmake/aside/aside-config-version.cmake \
    lib/libaside.a lib/libaside.so "lib/libaside.so.$major" "lib/libaside.so.$version" lib/pkgconfig/aside.pc |
    sort >"$scratch/known"
(cd "$root/usr" && find . ! -type d | sed 's|^\./||' | sort) >"$scratch/there"
diff "$scratch/known" "$scratch/there" || fail "known (<) and installed (>) differ"
[ -z "$(find "$root" ! -type l ! -perm -444)" ] || fail "not all may read what was installed"
if grep -rn '@[A-Z_]*@' "$root/usr/lib/cmake" "$root/usr/lib/pkgconfig"; then fail "something was left open"; fi

# CMake takes neither a later version nor another major number.
mkdir "$scratch/versions"
for asked in "" "$version" "${version%.*}" "$version.1" "$major.999" $((major + 1)).0; do
    cat >"$scratch/versions/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.22)
project(versions LANGUAGES C)
find_package(aside $asked CONFIG)
message(STATUS "asked for version '$asked', found: \${aside_FOUND}")
END
    CMAKE_PREFIX_PATH=$root/usr cmake -S "$scratch/versions" -B "$scratch/versions/build" >"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; fail "cmake"; }
    grep -- '-- asked for' "$scratch/log"
    rm -r "$scratch/versions/build/CMakeCache.txt"
done >"$scratch/asked"
cat "$scratch/asked"
[ "$(grep -c 'found: 1' "$scratch/asked")" = 3 ] && [ "$(grep -c 'found: 0' "$scratch/asked")" = 3 ] || fail "versions"

"$MAKE" -s uninstall DESTDIR="$other" PREFIX=/opt/aside LIBDIR="$libdir"
left=$(find "$other" ! -type d)
[ -z "$left" ] || fail "uninstall left: $left"
