#!/bin/sh
# An installed library is found by pkg-config and works from C and C++, shared and static; uninstall
# leaves no file.
. test/build/common.inc
needs pkg-config

root=$scratch/root
cat >"$scratch/use.c" <<'END'
#include <aside/aside.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    if (strcmp(aside_version(), ASIDE_VERSION) != 0)
        return 1;
    printf("%s\n", aside_strerror(ASIDE_MISS));
    return 0;
}
END
cp "$scratch/use.c" "$scratch/use.cc"

install_to "$root"
for file in include/aside/aside.h include/aside/group.h share/man/man3/aside_get.3 share/man/man7/aside.7 lib/libaside.a lib/libaside.so lib/pkgconfig/aside.pc; do
    [ -e "$root/usr/$file" ] || fail "$file was not installed"
done
version=$(PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig pkg-config --modversion aside)
grep -q "define ASIDE_VERSION \"$version\"" include/aside/aside.h || fail "aside.pc says version $version"
! grep -q @ "$root/usr/lib/pkgconfig/aside.pc" || fail "something was left open in aside.pc"

# use COMPILER SOURCE NAME
use() {
    # shellcheck disable=SC2046
    $1 -Wall -Werror "$2" -o "$scratch/$3.shared" $(pkg "$root" --cflags --libs) || fail "$1, shared"
    LD_LIBRARY_PATH=$root/usr/lib "$scratch/$3.shared" || fail "$1, shared, run"
    # shellcheck disable=SC2046
    $1 -static -Wall -Werror "$2" -o "$scratch/$3.static" $(pkg "$root" --cflags --libs) $(pkg "$root" --static --libs) ||
        fail "$1, static"
    "$scratch/$3.static" || fail "$1, static, run"
}
use "$CC" "$scratch/use.c" c
if command -v "${CXX%% *}" >/dev/null; then use "$CXX" "$scratch/use.cc" cxx; fi

(unset MAKEFLAGS MFLAGS MAKELEVEL && "$MAKE" -s uninstall DESTDIR="$root" PREFIX=/usr)
left=$(find "$root" ! -type d; find "$root" -name aside)
[ -z "$left" ] || fail "uninstall left: $left"
