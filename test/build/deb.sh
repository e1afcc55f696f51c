#!/bin/sh
# `make deb` builds packages that lintian finds nothing in but what is explained here, and a program of somebody else's is
# built against them as the package's own test does it: with the packages installed, on a copy of the system that nobody
# else sees, where mounting is allowed; else with their content unpacked into a directory.
. test/build/common.inc
needs dpkg-buildpackage dh dpkg-deb tar gzip pkg-config cmake meson ninja
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR

tree=$scratch/tree
mkdir "$tree"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$tree"
"$MAKE" -C "$tree" --no-print-directory deb >"$scratch/log" 2>&1 || { tail -n 100 "$scratch/log"; fail "make deb"; }
if grep -E 'dpkg-gensymbols: warning' "$scratch/log"; then
    sed -n '/^--- debian/,/^ *dh_/p' "$scratch/log"
    fail "the symbols file is not as the library is: make abi-update"
fi
grep -qE '^[1-9][0-9]* passed, 0 failed' "$scratch/log" || fail "the package did not run the contract tests"
version=$(dpkg-parsechangelog -l docs/packaging/debian/changelog -S Version)
machine=$(dpkg-architecture -q DEB_HOST_MULTIARCH)
architecture=$(dpkg-architecture -q DEB_HOST_ARCH)
built=$tree/build/deb
library=$built/libaside0_${version}_$architecture.deb
development=$built/libaside-dev_${version}_$architecture.deb

# What is in them
unpacked=$scratch/unpacked
dpkg-deb -x "$library" "$unpacked"
(cd "$unpacked" && find . ! -type d | sort) >"$scratch/shared"
if grep -vE "^\./usr/(lib/$machine/libaside\.so\.[0-9.]+|share/doc/libaside0/[a-zA-Z.]*)$" "$scratch/shared"; then
    fail "libaside0 has more than the library"
fi
dpkg-deb -x "$development" "$unpacked"
for file in include/aside/aside.h "lib/$machine/libaside.a" "lib/$machine/libaside.so" "lib/$machine/pkgconfig/aside.pc" \
    "lib/$machine/cmake/aside/aside-config.cmake"; do
    [ -e "$unpacked/usr/$file" ] || fail "libaside-dev lacks $file"
done
for page in docs/man/*.[37]; do
    [ -e "$page" ] || continue
    [ -e "$unpacked/usr/share/man/man${page##*.}/$(basename "$page").gz" ] || fail "libaside-dev lacks $page"
done
ls -l "$library" "$development" | awk '{ n = split($NF, path, "/"); print path[n] ": " $5 " bytes" }'

# These are left to whoever uploads: an address, and the number of the request for the package.
explained=bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs
if command -v lintian >/dev/null; then
    as_root=
    if [ "$(id -u)" = 0 ]; then as_root=--allow-root; fi
    (cd "$built/libaside-${version%-*}" && dpkg-buildpackage -us -uc -S -d) >"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; fail "the source package"; }
    lintian $as_root --fail-on error,warning --suppress-tags $explained "$built"/*.changes || fail "lintian"
else
    echo "left out: there is no lintian"
fi

cat >"$scratch/install" <<'END'
# install SCRATCH PACKAGE... -- in a mount namespace of its own; 77 where that cannot be
set -eu
scratch=$1
shift
mkdir "$scratch/layer"
mount -t tmpfs tmpfs "$scratch/layer" || exit 77
mkdir "$scratch/layer/upper" "$scratch/layer/work" "$scratch/layer/root"
root=$scratch/layer/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/layer/upper,workdir=$scratch/layer/work" "$root" || exit 77
mount --rbind /dev "$root/dev" && mount --rbind /proc "$root/proc" || exit 77
chroot "$root" sh -c 'command -v cc c++ cmake meson ninja pkg-config dpkg' >/dev/null || exit 77
mkdir -p "$root/aside-test/test" "$root/tmp"
cp -R "$scratch/tree/test/consumers" "$root/aside-test/test"
cp -R "$scratch/tree/docs/packaging/debian" "$root/aside-test/debian"
cp "$@" "$root/aside-test"
chroot "$root" sh -euc '
    cd /aside-test
    unset PKG_CONFIG_LIBDIR PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR CMAKE_PREFIX_PATH
    dpkg -i ./*.deb
    mkdir scratch
    AUTOPKGTEST_TMP=/aside-test/scratch debian/tests/consumer
    dpkg -r libaside-dev libaside0
    if ls -d /usr/include/aside /usr/lib/*/libaside.* /usr/lib/*/cmake/aside /usr/share/man/man3/aside_* 2>/dev/null; then
        echo "left after the removal" >&2
        exit 1
    fi
'
END

status=77
if [ "$(id -u)" = 0 ] && command -v unshare >/dev/null && ! dpkg-query -W libaside0 >/dev/null 2>&1; then
    status=0
    unshare -m sh "$scratch/install" "$scratch" "$library" "$development" >"$scratch/log" 2>&1 || status=$?
    case $status in
    0) echo "installed: $(grep '^[0-9]* programs$' "$scratch/log")" ;;
    77) tail -n 1 "$scratch/log" ;;
    *) cat "$scratch/log"; fail "the test of the installed packages" ;;
    esac
fi
if [ $status -eq 77 ]; then
    mkdir "$scratch/consumers"
    CC=$CC CXX=$CXX NEEDED="cmake meson ninja" CMAKE_PREFIX_PATH=$unpacked/usr PKG_CONFIG_SYSROOT_DIR=$unpacked \
        PKG_CONFIG_LIBDIR=$unpacked/usr/lib/$machine/pkgconfig \
        sh test/consumers/build.sh "$scratch/consumers" "$unpacked/usr/lib/$machine" >"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; fail "the test of the unpacked packages"; }
    echo "unpacked, not installed: $(tail -n 1 "$scratch/log")"
fi
