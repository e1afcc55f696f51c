#!/bin/sh
# The manual pages say what the headers say: the same functions, prototypes, structures, defaults, statuses, statistics
# and durations, none missing and none stale; their examples compile, and mandoc has nothing to say against them.
# A function that shares a page with others has a symbolic link to it.
# shellcheck disable=SC2016
. test/build/common.inc
needs awk nm

LC_ALL=C
export LC_ALL
pages=docs/man
work=$scratch
wrong=0

# complain TEXT -- the test fails, once all checks have run
complain() {
    echo "$*" >&2
    wrong=1
}

# same WHAT LEFT RIGHT -- two files agree, and are not empty
same() {
    [ -s "$work/$2" ] || complain "$1: found nothing in $2"
    diff "$work/$2" "$work/$3" >"$work/diff" || {
        complain "$1: $2 (<) and $3 (>) differ"
        cat "$work/diff" >&2
    }
}

# ---- what the headers say ----------------------------------------------------------------------

# code_of FILE [all] -- C without comments, and unless all is said without lines of the preprocessor
code_of() {
    awk -v all="${2-}" '
        /\\$/ { sub(/\\$/, ""); held = held $0; next }
        { $0 = held $0; held = "" }
        {
            line = $0 "\n"; out = ""
            while (line != "") {
                if (inside) {
                    at = index(line, "*/")
                    if (!at) break
                    inside = 0; line = substr(line, at + 2)
                } else {
                    at = index(line, "/*")
                    if (!at) { out = out line; break }
                    out = out substr(line, 1, at - 1) " "; inside = 1; line = substr(line, at + 2)
                }
            }
            if (all || out !~ /^[ \t]*#/) printf "%s", out
        }' "$1"
}

# One spelling for all ways to set blanks
one_spelling() {
    sed -e 's/[[:space:]][[:space:]]*/ /g' -e 's/ *\([](),;*[]\) */\1/g' -e 's/^ //' -e 's/ $//'
}

for file in prototypes.h places.h comments code words.h names.3 files sources; do : >"$work/$file"; done
for header in include/aside/*.h; do
    code_of "$header" >>"$work/code"
    code_of "$header" | tr '\n' ' ' | sed 's/;/;\
/g' | sed -n -e 's/^.*ASIDE_API \(.*\);$/\1/p' -e 's/^.*\(typedef [a-z_ ]*[ *]aside_[a-z_]*_fn(.*)\);$/\1/p' |
        sed 's/ASIDE_MUST_CHECK//' | one_spelling >"$work/some"
    cat "$work/some" >>"$work/prototypes.h"
    sed "s|^.*[ *]\\(aside_[a-z_]*\\)(.*|\\1 ${header#include/}|" "$work/some" >>"$work/places.h"
    tr '\n' ' ' <"$header" | sed -e 's/ \* / /g' -e 's/  */ /g' >>"$work/comments"
    code_of "$header" all | tr -c 'A-Za-z0-9_' '\n' >>"$work/words.h"
done
sort -o "$work/prototypes.h" "$work/prototypes.h"
sort -o "$work/places.h" "$work/places.h"
sort -u -o "$work/words.h" "$work/words.h"
sed -n '/^typedef /!s/^.*[ *]\(aside_[a-z_]*\)(.*/\1/p' "$work/prototypes.h" | sed 's/(.*//' | sort >"$work/functions.h"

# x_map NAME -- what stands in the brackets of each X( ) of that macro
x_map() {
    awk -v name="$1" '
        $1 == "#define" && index($2, name "(") == 1 { inside = 1 }
        inside && match($0, /^ *X\(.*\)/) { print substr($0, RSTART, RLENGTH) }
        inside && !/\\$/ { exit }' include/aside/aside.h | sed -e 's/^ *X(//' -e 's/)$//'
}

# Members of every structure that is spelt out: "structure number declaration"
awk '
    { text = text $0 " " }
    END {
        while (match(text, /typedef struct aside_[a-z_]* *\{/)) {
            name = substr(text, RSTART, RLENGTH); sub(/ *\{$/, "", name); sub(/.* /, "", name)
            text = substr(text, RSTART + RLENGTH)
            end = index(text, "} " name ";")
            body = substr(text, 1, end - 1)
            if (body ~ /_MAP\(/) continue
            n = split(body, member, /;/)
            for (i = 1; i < n; i++) printf "%s %02d %s\n", name, i, member[i]
        }
    }' "$work/code" | one_spelling | sort >"$work/members.h"

# ---- what the pages say ------------------------------------------------------------------------

# Functions for awk that reads mdoc(7)
cat >"$work/mdoc.awk" <<'AWK'
# The arguments of the macro on this line into argument[]; how many
function arguments(line,    n) {
    n = 0
    sub(/^\.[A-Za-z]+ */, "", line)
    while (line != "") {
        if (substr(line, 1, 1) == "\"") {
            line = substr(line, 2)
            at = index(line, "\"")
            argument[++n] = substr(line, 1, at - 1)
            line = substr(line, at + 1)
        } else {
            at = index(line, " ")
            if (!at) at = length(line) + 1
            argument[++n] = substr(line, 1, at - 1)
            line = substr(line, at)
        }
        sub(/^ */, "", line)
    }
    return n
}
# What a line says, macros and escapes taken away
function said(line,    n, i, out) {
    if (line ~ /^\./) {
        n = arguments(line)
        out = ""
        for (i = 1; i <= n; i++)
            if (argument[i] !~ /^(Dv|Va|Fa|Vt|Fn|Ft|Li|Ar|Xr|Ql|Em|No|Ns|Pq)$/)
                out = out (out == "" || argument[i] ~ /^[.,;:]$/ ? "" : " ") argument[i]
        line = out
    }
    gsub(/\\-/, "-", line)
    return line
}
# a, then b: punctuation goes to the word before it
function joined(a, b) {
    return a == "" ? b : b ~ /^[.,;:]/ ? a b : a " " b
}
AWK

# from_pages PROGRAM FILE... -- PROGRAM for awk
from_pages() {
    program=$1
    shift
    cat "$work/mdoc.awk" >"$work/program.awk"
    printf '%s\n' "$program" >>"$work/program.awk"
    awk -f "$work/program.awk" "$@"
}

for page in "$pages"/*; do
    file=${page##*/}
    case $file in
    aside*.[37]) ;;
    *) complain "$page is no page of section 3 or 7" ;;
    esac
    if [ -L "$page" ]; then
        target=$(readlink "$page")
        case $target in
        */* | "$file") complain "$page links to $target, which is not beside it" ;;
        *) if [ ! -f "$pages/$target" ] || [ -L "$pages/$target" ]; then complain "$page links to $target, which is no page"; fi ;;
        esac
    else
        target=$file
        echo "$page" >>"$work/sources"
        title=$(sed -n 's/^\.Dt //p' "$page")
        wanted=$(echo "${file%.*} ${file##*.}" | tr '[:lower:]' '[:upper:]')
        [ "$title" = "$wanted" ] || complain "$page has the title '$title', not '$wanted'"
    fi
    echo "$target ${file%.*}" >>"$work/files"
    case $file in *.3) echo "${file%.3}" >>"$work/names.3" ;; esac
done
sort -o "$work/names.3" "$work/names.3"
sort -o "$work/files" "$work/files"
# shellcheck disable=SC2046
set -- $(cat "$work/sources")
for page in "$pages/aside.7" "$pages/aside_cancel.7"; do
    [ -f "$page" ] || complain "there is no $page"
done

# Prototypes, and the header that stands above each
from_pages '
    FNR == 1 { synopsis = 0 }
    /^\.Sh / { synopsis = $2 == "SYNOPSIS"; next }
    !synopsis { next }
    /^\.In / { header = $2 }
    /^\.Ft / { n = arguments($0); type = argument[1]; for (i = 2; i <= n; i++) type = type " " argument[i] }
    /^\.Fn / {
        n = arguments($0)
        text = type " " argument[1] "("
        for (i = 2; i <= n; i++) text = text (i > 2 ? "," : "") argument[i]
        print header "\t" text ")"
    }
    /^\.Fo / { arguments($0); text = type " " argument[1] "("; comma = "" }
    /^\.Fa / { n = arguments($0); for (i = 1; i <= n; i++) { text = text comma argument[i]; comma = "," } }
    /^\.Fc/ { print header "\t" text ")" }
' "$@" >"$work/synopses"
cut -f 2 "$work/synopses" | one_spelling | sort >"$work/prototypes.man"
sed 's/^\([^	]*\)	.*[ *]\(aside_[a-z_]*\)(.*/\2 \1/' "$work/synopses" | sort >"$work/places.man"

# Names under NAME, and functions under SYNOPSIS, of each page
from_pages '
    { file = FILENAME; sub(/.*\//, "", file) }
    /^\.Sh / { section = $2 }
    section == "NAME" && /^\.Nm / { print file, $2 }
' "$@" | sort >"$work/files.NAME"
from_pages '
    { file = FILENAME; sub(/.*\//, "", file) }
    /^\.Sh / { section = $2 }
    section == "SYNOPSIS" && /^\.Ft / { type = $2 }
    section == "SYNOPSIS" && /^\.F[no] / && type != "\"typedef" { print file, $2 }
' "$@" | sort >"$work/files.SYNOPSIS"

# ---- (a) functions, symbols and pages ----------------------------------------------------------

same "functions that have a page" functions.h names.3
same "names of pages" files files.NAME
grep '\.3 ' "$work/files" >"$work/files.3" || :
same "functions of pages" files.3 files.SYNOPSIS

library=$released/libaside.so
if [ -e "$library" ]; then
    nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/symbols"
    same "functions that are exported" functions.h symbols
    same "symbols that have a page" symbols names.3
else
    complain "there is no $library"
fi

# Every pattern under global: in the map fits a function, and every function a pattern.
sed -e 's/\/\*.*\*\///' src/libaside.map | tr ';{}' '[\n*]' | tr -d ' \t' |
    awk '{ part = 0 } sub(/^global:/, "") { global = 1 } /^local:/ { global = 0 } global && NF' >"$work/map"
awk '
    function fits(name, pattern) {
        gsub(/\*/, "[a-z0-9_]*", pattern)
        return name ~ ("^" pattern "$")
    }
    FNR == NR { pattern[++n] = $1; next }
    { found = 0; for (i = 1; i <= n; i++) if (fits($1, pattern[i])) { found = 1; used[i] = 1 }
      if (!found) print "libaside.map does not export " $1 }
    END { for (i = 1; i <= n; i++) if (!used[i]) print "libaside.map exports " pattern[i] ", which is no function" }
' "$work/map" "$work/functions.h" >"$work/unfit"
[ ! -s "$work/unfit" ] || complain "$(cat "$work/unfit")"

# ---- (b) prototypes ----------------------------------------------------------------------------

same "prototypes" prototypes.h prototypes.man
same "headers that declare them" places.h places.man

# ---- names that the pages use ------------------------------------------------------------------

# No page speaks of what is not there: in the headers, or among the samples for Prometheus ...
{ grep -oh 'aside_[a-z_]*_\(total\|seconds\)' include/aside/aside.h; cat "$work/words.h"; } | sort -u >"$work/words.all"
from_pages '
    /^\.Dt / { next }
    { line = $0; gsub(/\\-|\\e/, " ", line); n = split(line, word, /[^A-Za-z0-9_]+/)
      for (i = 1; i <= n; i++) if (word[i] ~ /^(aside|ASIDE)_/) print word[i] }
    /^\.(It )?Va / { n = split(said($0), word, /[^A-Za-z0-9_]+/)
      for (i = 1; i <= n; i++) if (word[i] ~ /^[a-z][a-z0-9]*(_[a-z0-9]+)+$/) print word[i] }
    /^\.Va / { n = split($2, word, /[^A-Za-z0-9_]+/); for (i = 1; i <= n; i++) print word[i] }
' "$@" | grep -v -x -e '' -e errno -e ASIDE_UNKNOWN -e aside_ | sort -u | comm -23 - "$work/words.all" >"$work/stale"
[ ! -s "$work/stale" ] || complain "pages use names that the headers have not: $(tr '\n' ' ' <"$work/stale")"

# ... nor of an argument that no function of the page has, nor a member that is one.
from_pages '
    FNR == 1 { split("", known) }
    /^\.Sh / { synopsis = $2 == "SYNOPSIS" }
    synopsis || /^\.It Vt / { n = split($0, word, /[^A-Za-z0-9_]+/); for (i = 1; i <= n; i++) known[word[i]]; next }
    { n = split($0, word, " ")
      for (i = 1; i < n; i++)
          if (word[i] ~ /^\.?Fa$/ && !(word[i + 1] in known)) { file = FILENAME; sub(/.*\//, "", file); print file ": " word[i + 1] } }
' "$@" >"$work/stale"
[ ! -s "$work/stale" ] || complain "pages use arguments that they do not declare: $(tr '\n' ' ' <"$work/stale")"

# ... and every name of the headers is spoken of somewhere.
for header in include/aside/*.h; do
    awk '
        /^#ifndef/ { guard[$2] }
        /^#undef/ { guard[$2] }
        /^#define ASIDE_/ { name = $2; sub(/\(.*/, "", name); print name }
        END { for (name in guard) print name, "-" }' "$header"
done | sort | awk '$2 == "-" { drop[$1]; next } { name[++n] = $1 } END { for (i = 1; i <= n; i++) if (!(name[i] in drop)) print name[i] }' >"$work/public"
tr -c 'A-Za-z0-9_' '\n' <"$work/code" | grep -E '^(ASIDE_[A-Z_0-9]+|aside_[a-z_]+)$' >>"$work/public" || :
x_map ASIDE_STATUS_MAP | sed 's/,.*//' >>"$work/public"
cat "$@" | tr -c 'A-Za-z0-9_' '\n' | sort -u >"$work/words.man"
sort -u "$work/public" | grep -v -x -e ASIDE_API -e ASIDE_STATUS_ENUM -e ASIDE_CAUSE_ENUM -e ASIDE_STATS_MEMBER -e ASIDE_STATS_OPERATION |
    comm -23 - "$work/words.man" >"$work/unsaid"
[ ! -s "$work/unsaid" ] || complain "no page speaks of: $(tr '\n' ' ' <"$work/unsaid")"

# References among the pages
from_pages '
    { n = split($0, word, " ")
      for (i = 1; i < n - 1; i++) if (word[i] ~ /^\.?Xr$/ && word[i + 1] ~ /^aside/) print word[i + 1] "." word[i + 2] }
' "$@" | sort -u | while read -r page; do [ -f "$pages/$page" ] || echo "$page"; done >"$work/dangling"
[ ! -s "$work/dangling" ] || complain "pages refer to pages that are not there: $(tr '\n' ' ' <"$work/dangling")"

# ---- members of structures ---------------------------------------------------------------------

from_pages '
    FNR == 1 { name = "" }
    /^\.S[hs] / { name = $NF; number = 0 }
    /^\.It Vt / && name ~ /^aside_/ {
        n = arguments($0); text = ""
        for (i = 2; i <= n; i++)
            if (argument[i] !~ /^(Vt|Va|Ns)$/) text = text " " argument[i]
        printf "%s %02d %s\n", name, ++number, text
    }' "$@" | one_spelling | sort >"$work/members.man"
same "members of structures" members.h members.man

# ---- (c) statuses, counters, gauges, operations ------------------------------------------------

# items SUBSECTION MACRO FILE -- names of the .It of a list, each with the first line of its text
items() {
    from_pages '
        FNR == 1 { inside = 0 }
        /^\.S[hs] / { inside = $2 == "'"$1"'"; next }
        waits { text = said($0); sub(/\.$/, "", text); print head ", \"" tolower(substr(text, 1, 1)) substr(text, 2) "\""; waits = 0 }
        inside && $1 == ".It" && $2 == "'"$2"'" && $4 != "Ns" { head = said($0); sub(/ /, ", ", head); sub(/^It, /, "", head); waits = 1 }
    ' "$3"
}

x_map ASIDE_STATUS_MAP >"$work/statuses.h"
items Statuses Dv "$pages/aside.7" >"$work/statuses.man"
same "statuses" statuses.h statuses.man
x_map ASIDE_COUNTER_MAP >"$work/counters.h"
items Counters Va "$pages/aside_stats_get.3" >"$work/counters.man"
same "counters" counters.h counters.man
x_map ASIDE_GAUGE_MAP >"$work/gauges.h"
items Gauges Va "$pages/aside_stats_get.3" >"$work/gauges.man"
same "gauges" gauges.h gauges.man
x_map ASIDE_OPERATION_MAP >"$work/operations.h"
items Operations Va "$pages/aside_stats_get.3" | sed 's/, .*//' >"$work/operations.man"
same "operations" operations.h operations.man
sed -n 's/^#define ASIDE_STATS_OPERATION(verb) uint64_t \(.*\);/\1/p' include/aside/aside.h | sed 's/verb##//g' | tr -d ' ' | tr ',' '\n' >"$work/suffixes.h"
sed -n 's/^\.It Ar verb Ns \(_[a-z]*\)$/\1/p' "$pages/aside_stats_get.3" >"$work/suffixes.man"
same "outcomes of operations" suffixes.h suffixes.man
awk 'match($0, /lookups = [a-z_ +]*\./) { print substr($0, RSTART + 10, RLENGTH - 11) }' "$work/comments" >"$work/lookups.h"
grep '^hits + ' "$pages/aside_stats_get.3" >"$work/lookups.man" || :
same "the sum of lookups" lookups.h lookups.man

# ---- durations ---------------------------------------------------------------------------------

# The table in the header: four columns, a cell may go on in the next line.
awk '
    function cell(line, from, to) { line = substr(line, from, to - from); sub(/^ +/, "", line); sub(/ +$/, "", line); return line }
    function add(old, new) { return new == "" ? old : old == "" ? new : old " " new }
    function put() { if (a != "") print a " | 0: " b "; negative: " c "; ASIDE_FOREVER: " d "." }
    / field +0 +negative +ASIDE_FOREVER/ {
        zero = index($0, " 0 ") + 1; negative = index($0, "negative"); forever = index($0, "ASIDE_FOREVER"); next
    }
    zero && /^ \*\/?$/ { put(); exit }
    zero {
        if (cell($0, 4, zero) != "" && cell($0, zero, negative) != "") { put(); a = b = c = d = "" }
        a = add(a, cell($0, 4, zero)); b = add(b, cell($0, zero, negative))
        c = add(c, cell($0, negative, forever)); d = add(d, cell($0, forever, 200))
    }' include/aside/aside.h >"$work/durations.h"
from_pages '
    /^\.S[hs] / { inside = $2 == "Durations" }
    !inside { next }
    /^\.(It|El)/ { if (head != "") print head " | " text; head = said($0); sub(/^It /, "", head); text = ""; next }
    head != "" { text = joined(text, said($0)) }
' "$pages/aside.7" >"$work/durations.man"
same "durations" durations.h durations.man

# ---- (d) defaults ------------------------------------------------------------------------------

# What the comments behind the members of aside_options state: "member value"
awk '/^typedef struct aside_options/ { inside = 1 } inside { print } /^} aside_options/ { inside = 0 }' include/aside/aside.h |
    sed 's/^ *\* / /' | tr '\n' ' ' | sed 's/  */ /g' >"$work/options.text"
awk '
    {
        text = $0
        while (match(text, /[a-z_]+; *\/\*[^*]*\*\//)) {
            part = substr(text, RSTART, RLENGTH); text = substr(text, RSTART + RLENGTH)
            name = part; sub(/;.*/, "", name)
            if (!match(part, /default /)) continue
            value = substr(part, RSTART + RLENGTH); sub(/ *[,;.*].*/, "", value)
            if (value == "the first" && match(part, /ASIDE_[A-Z_]+/)) value = substr(part, RSTART, RLENGTH)
            print name, value
        }
    }' "$work/options.text" >"$work/stated.h"
stated=$(awk '{ print gsub(/default /, "") }' "$work/options.text")
understood=$(wc -l <"$work/stated.h")
[ "$stated" -eq "$understood" ] || complain "of $stated defaults in the comments of aside_options $understood were understood"

# What the page states
from_pages '
    function put() {
        if (name != "" && match(text, /Default [^.,]+/)) print name, substr(text, RSTART + 8, RLENGTH - 8)
        name = ""
    }
    /^\.S[hs] / { put(); inside = $NF == "aside_options" }
    inside && /^\.(It|El)/ { put(); n = arguments($0); if ($1 == ".It") name = argument[n]; text = ""; next }
    name != "" { text = joined(text, said($0)) }
' "$pages/aside_open.3" >"$work/stated.man"
sed -n 's/^aside_options [0-9]* .*[ *]\([a-z_]*\)$/\1/p' "$work/members.h" >"$work/options"
grep -v -x struct_size "$work/options" >"$work/options.h" || :
sed 's/ .*//' "$work/stated.man" >"$work/options.man"
same "options with a default" options.h options.man

# A default stands in one place.
for page in "$@"; do
    [ "$page" = "$pages/aside_open.3" ] || ! grep -n -i -E '(default|by default|defaults to)( is| of|:)? *[0-9"]' "$page" ||
        complain "$page states a default, which is what aside_open.3 is for"
done

# What they are, by the compiler; and numbers that a page gives to a name, as in ".It Dv ASIDE_MISS Pq 1".
{
    cat <<'C'
#include <aside/aside.h>
#include <inttypes.h>
#include <stdio.h>

static aside_options options = ASIDE_OPTIONS_INIT;

static void put_text(const char *name, const void *at, size_t size)
{
    (void)size;
    printf("%s \"%s\"\n", name, *(const char *const *)at);
}
static void put_pointer(const char *name, const void *at, size_t size)
{
    (void)size;
    printf("%s %s\n", name, *(const void *const *)at ? "not NULL" : "NULL");
}
static void put_duration(const char *name, const void *at, size_t size)
{
    (void)size;
    printf("%s %" PRId64 "\n", name, *(const int64_t *)at);
}
static void put_size(const char *name, const void *at, size_t size)
{
    (void)size;
    printf("%s %zu\n", name, *(const size_t *)at);
}
static void put_int(const char *name, const void *at, size_t size)
{
    (void)size;
    printf("%s %d\n", name, *(const int *)at);
}
static void put_struct(const char *name, const void *at, size_t size)
{
    size_t i = 0;
    while (i < size && ((const unsigned char *)at)[i] == 0)
        i++;
    printf("%s %s\n", name, i == size ? "all zero" : "not zero");
}
#define PUT(m)                                                                                     \
    _Generic(options.m, const char *: put_text, const uint8_t *: put_pointer,                      \
             int64_t: put_duration, size_t: put_size, int: put_int,                                \
             default: put_struct)(#m, &options.m, sizeof options.m)
C
    cat "$@" | sed -n 's/^\.It Dv \(ASIDE_[A-Z_]*\) Pq \(.*\)$/_Static_assert(\1 == \2, "the page says that \1 is \2");/p' | sed 's/\\-/-/g'
    echo 'int main(int argc, char **argv) { (void)argv; if (argc == 1) {'
    sed 's/.*/    PUT(&);/' "$work/options.h"
    echo '} else {'
    cat "$work/stated.h" "$work/stated.man" | sed -n 's/^[a-z_]* \(ASIDE_[A-Z_]*\)$/\1/p' | sort -u |
        sed 's/.*/    printf("& %" PRId64 "\\n", (int64_t)&);/'
    echo '} return 0; }'
} >"$work/defaults.c"
if $CC -std=c11 -Wall -Wextra -Werror -Iinclude "$work/defaults.c" -o "$work/defaults"; then
    "$work/defaults" >"$work/defaults.are"
    "$work/defaults" constants >"$work/constants"
    # as_numbers FILE -- "64 MiB" and names of constants as numbers
    as_numbers() {
        awk 'FNR == NR { constant[$1] = $2; next }
            $3 == "MiB" { printf "%s %.0f\n", $1, $2 * 1048576; next }
            $3 == "KiB" { printf "%s %.0f\n", $1, $2 * 1024; next }
            $2 in constant { print $1, constant[$2]; next }
            { print }' "$work/constants" "$1"
    }
    as_numbers "$work/stated.man" >"$work/defaults.man"
    same "defaults, and those of the page" defaults.are defaults.man
    as_numbers "$work/stated.h" >"$work/defaults.comments"
    awk 'FNR == NR { stated[$1]; next } $1 in stated' "$work/stated.h" "$work/defaults.are" >"$work/defaults.stated"
    same "defaults, and those of the comments in the header" defaults.stated defaults.comments
else
    complain "numbers in the pages are not those of the header"
fi

# ---- examples ----------------------------------------------------------------------------------

mkdir "$work/examples"
from_pages '
    FNR == 1 { inside = 0; file = FILENAME; sub(/.*\//, "", file); number = 0 }
    /^\.Sh / { examples = $2 == "EXAMPLES" }
    examples && /^\.Bd -literal/ { out = "'"$work/examples/"'" file "-" ++number ".c"; inside = 1; next }
    /^\.Ed/ { if (inside) close(out); inside = 0 }
    inside { gsub(/\\-/, "-"); gsub(/\\\(aq/, "\047"); gsub(/\\e/, "\\"); print >out }
' "$@"
tried=0
for example in "$work"/examples/*.c; do
    [ -e "$example" ] || continue
    $CC -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -Wno-unused-function -Iinclude -fsyntax-only "$example" ||
        complain "the example ${example##*/} does not compile"
    tried=$((tried + 1))
done
sections=$(cat "$@" | grep -c '^\.Sh EXAMPLES')
if [ $tried -lt "$sections" ] || [ $tried -eq 0 ]; then complain "$sections pages with examples, $tried examples"; fi

program=$work/examples/aside.7-1.c
if [ -e "$program" ] && $CC -std=c11 -Wall -Wextra -Werror -Iinclude "$program" "$released/libaside.a" -pthread -o "$work/first"; then
    timeout 60 "$work/first" >"$work/first.out" || complain "the first program of aside.7 ends with $?"
    printf 'user 42\nuser 42\nuser 42\n' >"$work/first.wanted"
    same "what the first program of aside.7 prints" first.wanted first.out
else
    complain "the first program of aside.7 cannot be built"
fi

# ---- (e) mandoc --------------------------------------------------------------------------------

if command -v mandoc >/dev/null; then
    mandoc -Tlint -W warning "$pages"/* >"$work/lint" 2>&1 || :
    [ ! -s "$work/lint" ] || complain "$(cat "$work/lint")"
    # Style as well; but what pages a system has, and whether their index is new, is not ours to say.
    mandoc -Tlint -W style "$@" 2>"$work/noise" | grep -v 'STYLE: referenced manual not found' >"$work/lint" || :
    [ ! -s "$work/lint" ] || complain "$(cat "$work/lint")"
    [ ! -s "$work/noise" ] || ! grep -v 'outdated mandoc.db' "$work/noise" >&2 || wrong=1
fi

[ $wrong -eq 0 ] || fail "the manual pages and the headers do not agree"
echo "$(wc -l <"$work/functions.h") functions, $# pages, $tried examples"
needs mandoc
