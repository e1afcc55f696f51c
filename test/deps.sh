#!/bin/sh
# Installs what is missing to build or test, by package name; does nothing, and needs no network, when
# all is there. Works on a system without even make.
#
#   sh test/deps.sh build        a compiler, make, uthash
#   sh test/deps.sh demo         and SQLite, and the data that the demo reads
#   sh test/deps.sh cert-cache   a compiler and so on, and what the example with certificates uses
#   sh test/deps.sh loops        a compiler and so on, what the examples with event loops use, and a PostgreSQL to test
#                                with; Debian's package starts a server of its own, which is not used
#   sh test/deps.sh serve        a compiler and so on, and what the template service uses
#   sh test/deps.sh test         and what `make test` needs
#   sh test/deps.sh check-all    and what `make check-all` needs
#   sh test/deps.sh bench        a compiler and so on, and the peers that benches compare with
#
# With apt it installs, by sudo where it is not root. For dnf, apk and brew it prints the command.
set -eu

what=${1:-test}

# A name that begins with ? is left out where the distribution has no such package.
apt_build="gcc libc6-dev make pkg-config uthash-dev"
apt_demo="libsqlite3-dev unicode-data"
apt_cert="libcurl4-openssl-dev libssl-dev libmicrohttpd-dev libjansson-dev"
apt_loops="libsqlite3-dev libuv1-dev libpq-dev postgresql python3"
apt_serve="libmicrohttpd-dev libsqlite3-dev libpq-dev libjansson-dev ?libsystemd-dev curl"
apt_test="g++ binutils util-linux mandoc"
apt_bench="zstd gnuplot-nox valgrind ?golang-go ?golang-golang-x-sync-dev python3 ?g++ ?libglib2.0-dev ?liburcu-dev ?libcuckoo-dev ?golang-github-dgraph-io-ristretto-dev ?openjdk-17-jdk-headless ?libcaffeine-java ?wrk"
apt_check="clang clang-format clang-tidy ?libclang-rt-dev ?clang-19 ?clang-tidy-19 valgrind libc6-dbg gdb spin gcovr patch python3 cmake meson ninja-build abigail-tools debhelper dpkg-dev lintian git ?prometheus ?wrk ?chromium ?chromium-driver"

dnf_build="gcc make pkgconf-pkg-config uthash-devel"
dnf_demo="sqlite-devel unicode-ucd"
dnf_cert="libcurl-devel openssl-devel libmicrohttpd-devel jansson-devel"
dnf_loops="sqlite-devel libuv-devel libpq-devel postgresql-server python3"
dnf_serve="libmicrohttpd-devel sqlite-devel libpq-devel jansson-devel ?systemd-devel curl"
dnf_test="gcc-c++ binutils util-linux glibc-static ?mandoc"
dnf_bench="zstd gnuplot-minimal valgrind golang golang-x-sync-devel python3 gcc-c++ glib2-devel userspace-rcu-devel java-latest-openjdk-devel"
dnf_check="clang clang-tools-extra compiler-rt libasan libubsan libtsan valgrind gdb spin gcovr patch python3 cmake meson ninja-build libabigail git"

apk_build="gcc musl-dev make pkgconf uthash-dev"
apk_demo="sqlite-dev unicode-character-database"
apk_cert="curl-dev openssl-dev libmicrohttpd-dev jansson-dev"
apk_loops="sqlite-dev libuv-dev libpq-dev postgresql python3"
apk_serve="libmicrohttpd-dev sqlite-dev libpq-dev jansson-dev curl"
apk_test="g++ bash binutils util-linux mandoc"
apk_bench="zstd gnuplot valgrind go python3 g++ glib-dev userspace-rcu-dev openjdk17"
apk_check="clang clang-extra-tools compiler-rt valgrind gdb spin gcovr patch python3 cmake meson ninja git"

brew_build="make pkg-config uthash"
brew_demo="sqlite"
brew_cert="curl openssl@3 libmicrohttpd jansson"
brew_loops="sqlite libuv libpq postgresql python"
brew_serve="libmicrohttpd sqlite libpq jansson curl"
brew_test="bash binutils mandoc"
brew_bench="zstd gnuplot go python glib openjdk"
brew_check="llvm spin gcovr cmake meson ninja"

# packages MANAGER -- the names for $what
packages() {
    case $what in
    build) eval "echo \$$1_build" ;;
    demo) eval "echo \$$1_build \$$1_demo" ;;
    cert-cache) eval "echo \$$1_build \$$1_cert" ;;
    loops) eval "echo \$$1_build \$$1_loops" ;;
    serve) eval "echo \$$1_build \$$1_serve" ;;
    test) eval "echo \$$1_build \$$1_test" ;;
    bench) eval "echo \$$1_build \$$1_serve \$$1_bench" ;;
    check-all) eval "echo \$$1_build \$$1_demo \$$1_cert \$$1_loops \$$1_serve \$$1_test \$$1_check" ;;
    *) echo "usage: sh test/deps.sh build|demo|cert-cache|loops|serve|test|check-all|bench" >&2; exit 2 ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    else
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

is_installed() {
    dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q ' ok installed$'
}

has_candidate() {
    apt-cache show --no-all-versions "$1" >/dev/null 2>&1
}

# missing_of PACKAGE... -- those that are not installed, optional ones with their mark
missing_of() {
    for package in "$@"; do
        is_installed "${package#\?}" || printf '%s ' "$package"
    done
}

# wanted_of PACKAGE... -- without the marks, and without optional ones that do not exist here
wanted_of() {
    for package in "$@"; do
        case $package in
        \?*) has_candidate "${package#\?}" && printf '%s ' "${package#\?}" ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

all_known() {
    for package in "$@"; do
        has_candidate "${package#\?}" || return 1
    done
}

with_apt() {
    missing=$(missing_of $(packages apt))
    [ -n "$missing" ] || return 0
    updated=no
    if ! all_known $missing; then
        echo "reading the package lists"
        as_root apt-get update -qq
        updated=yes
    fi
    wanted=$(wanted_of $missing)
    [ -n "$wanted" ] || return 0
    echo "installing: $wanted"
    # Word splitting is meant.
    if as_root apt-get install -y -qq --no-install-recommends $wanted >/dev/null; then
        return 0
    fi
    [ $updated = no ] || return 1
    echo "trying again with fresh package lists"
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends $wanted >/dev/null
}

packages apt >/dev/null
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    with_apt
elif command -v dnf >/dev/null; then
    echo "needed: sudo dnf install $(packages dnf)"
elif command -v apk >/dev/null; then
    echo "needed: apk add $(packages apk)"
elif command -v brew >/dev/null; then
    echo "needed: brew install $(packages brew)"
else
    echo "needed: a C11 compiler, make, pkg-config, uthash; for the demo SQLite; for the tests a C++ compiler, bash"
fi
