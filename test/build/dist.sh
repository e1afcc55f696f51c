#!/bin/sh
# `make dist` makes the same bytes at another time, in another directory, with another umask, by git's list of files and
# by the tarball's own; what it makes can be built and installed.
. test/build/common.inc
needs git tar gzip sha256sum
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR SOURCE_DATE_EPOCH

# A repository of the test's own, of the tree as it is now; the test must not depend on whether this tree is one.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org
export GIT_AUTHOR_DATE="1700000000 +0000" GIT_COMMITTER_DATE="1700000000 +0000"
first=$scratch/first
mkdir "$first"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$first"
git -C "$first" -c init.defaultBranch=main init -q
git -C "$first" add -A
git -C "$first" commit -q -m "The tree"
mkdir -p "$scratch/far/from/there"
(umask 077 && git clone -q "$first" "$scratch/far/from/there/second")
second=$scratch/far/from/there/second
# What git does not know stays out; so does what was built.
echo "notes" >"$second/notes.txt"
mkdir "$second/build"
echo "built" >"$second/build/built.o"

# dist DIRECTORY -- prints the tarball's path
dist() {
    "$MAKE" -C "$1" --no-print-directory -s dist >"$scratch/said" || { cat "$scratch/said"; fail "make dist in $1"; }
    echo "$1/$(tail -n 1 "$scratch/said")"
}

one=$(umask 022 && dist "$first")
sleep 1.1
two=$(umask 077 && TZ=Asia/Tokyo LC_ALL=C.UTF-8 dist "$second")
version=$(sed -n 's/^.define ASIDE_VERSION "\(.*\)"/\1/p' include/aside/aside.h)
[ "$(basename "$one")" = "libaside-$version.tar.gz" ] || fail "it is called $one"
sha256sum "$one" "$two"
cmp "$one" "$two" || fail "the two differ"

name=$(basename "$one" .tar.gz)
tar -tvzf "$one" >"$scratch/list"
if grep -vE '^(-rw-r--r--|-rwxr-xr-x|l[rwx-]*) 0/0 ' "$scratch/list"; then fail "owners and modes"; fi
tar -tzf "$one" >"$scratch/names"
LC_ALL=C sort -c "$scratch/names" || fail "the names are not sorted"
if grep -v "^$name/" "$scratch/names"; then fail "not below $name"; fi
if grep -E 'notes|/build/built|/\.git/' "$scratch/names"; then fail "has what it should not have"; fi
for wanted in Makefile LICENSE README.md include/aside/aside.h src/aside.pc.in test/run docs/packaging/debian/control; do
    grep -qx "$name/$wanted" "$scratch/names" || fail "$wanted is not in it"
done
(cd "$first" && git ls-files | sed "s|^|$name/|" | LC_ALL=C sort) | diff - "$scratch/names" ||
    fail "git's files (<) and the tarball's (>) differ"

# SOURCE_DATE_EPOCH has the last word on the date.
three=$(SOURCE_DATE_EPOCH=1600000000 dist "$second")
TZ=UTC tar -tvzf "$three" | head -n 1 | grep -q '2020-09-13' || fail "SOURCE_DATE_EPOCH"

# The tree out of the tarball: it makes the same tarball again, builds and installs.
mkdir "$scratch/unpacked"
(umask 077 && tar -xzf "$one" -C "$scratch/unpacked")
tree=$scratch/unpacked/$name
"$MAKE" -C "$tree" -s -j2 all CC="$CC" >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "does not build"; }
"$MAKE" -C "$tree" -s install CC="$CC" DESTDIR="$scratch/root" PREFIX=/usr >/dev/null || fail "does not install"
[ -e "$scratch/root/usr/lib/pkgconfig/aside.pc" ] || fail "aside.pc was not installed"
again=$(umask 002 && dist "$tree")
cmp "$one" "$again" || fail "the unpacked tree makes another tarball"
echo "$(wc -l <"$scratch/names") files, $(wc -c <"$one") bytes"
