#!/bin/sh
# Adds to the Debian package's symbols file what the library exports and the file lacks. What the file has stays as it
# is: it says since which version each function has been there.
#
#   symbols.sh LIBRARY VERSION FILE
set -eu
library=$1 version=$2 file=$3
export LC_ALL=C

had=$(mktemp)
trap 'rm -f "$had"' EXIT
[ ! -e "$file" ] || sed -n 's/^ //p' "$file" >"$had"

{
    echo "$(basename "$library" | sed 's/\(\.so\.[0-9]*\).*/\1/') libaside0 #MINVER#"
    echo "* Build-Depends-Package: libaside-dev"
    {
        cat "$had"
        nm -D --defined-only "$library" | awk '{ sub(/@@/, "@", $3); print $2 == "A" ? $3 "@" $3 : $3 }' |
        while read -r symbol; do
            grep -q "^$symbol " "$had" || echo "$symbol $version"
        done
    } | sort | sed 's/^/ /'
} >"$file.new"
mv "$file.new" "$file"
