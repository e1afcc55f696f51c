#!/bin/sh
# Runs the growth bench into a folder: growth.tsv, one SVG a plot where there is gnuplot, and in words
# how fast each cost grows.
#
#   sh test/bench/growth.sh PROGRAM FOLDER [options of the program]
set -eu
program=$1 folder=$2
shift 2
here=$(dirname "$0")

mkdir -p "$folder"
data=$folder/growth.tsv
"$program" "$@" >"$data.part"
mv "$data.part" "$data"

# cache_bytes LEVEL -- the size of the first processor's cache; 0 where the system does not say
cache_bytes() {
    for index in /sys/devices/system/cpu/cpu0/cache/index*; do
        [ "$(cat "$index/level" 2>/dev/null)" = "$1" ] || continue
        size=$(cat "$index/size" 2>/dev/null) || continue
        case $size in
        *K) echo $((${size%K} * 1024)); return ;;
        *M) echo $((${size%M} * 1048576)); return ;;
        esac
    done
    echo 0
}

# entries_in BYTES -- how many entries there are when the cache first takes that many bytes; 0: never
entries_in() {
    awk -F '\t' -v most="$1" '$1 == "bytes" && $2 == "requested" && most > 0 && $3 * $4 >= most { print $3; found = 1; exit }
        END { if (!found) print 0 }' "$data"
}

l2=$(entries_in "$(cache_bytes 2)")
l3=$(entries_in "$(cache_bytes 3)")

grep '^#' "$data"
awk -F '\t' -v l2="$l2" -v l3="$l3" '
    /^#/ || $1 == "plot" { next }
    { of = $1 " " $2; n = ++count[of]; x[of, n] = $3; y[of, n] = $4; last[of] = $3 }

    function commas(number,    text) {
        text = sprintf("%d", number)
        while (match(text, /^[0-9]+[0-9][0-9][0-9]/) && sub(/[0-9][0-9][0-9](,|$)/, ",&", text))
            ;
        return text
    }

    # The exponent of x that fits y best, by least squares of the logarithms.
    function exponent(of, from, to,    i, n, a, b, sa, sb, saa, sab) {
        for (i = 1; i <= count[of]; i++) {
            if (x[of, i] < from || x[of, i] > to)
                continue
            n++; a = log(x[of, i]); b = log(y[of, i])
            sa += a; sb += b; saa += a * a; sab += a * b
        }
        return n < 2 ? "none" : (n * sab - sa * sb) / (n * saa - sa * sa)
    }

    function in_words(e) {
        if (e > 1.1)
            return "faster than in proportion"
        if (e >= 0.9)
            return "in proportion"
        if (e >= 0.05)
            return "slower than in proportion"
        return e > -0.05 ? "not at all" : "down"
    }

    function slope(of, what, unit, from, to,    e) {
        to = to < last[of] ? to : last[of]
        e = exponent(of, from, to)
        if (e == "none")
            return
        printf "%s: by a factor of %.2f a decade between %s and %s %s: %s (exponent %.2f)\n",
            what, 10 ^ e, commas(from), commas(to), unit, in_words(e), e
    }

    function decades(of, what, unit,    from) {
        for (from = 1000; from < last[of]; from *= 10)
            slope(of, what, unit, from, from * 10)
    }

    function each(of, what, unit, scale,    n) {
        n = count[of]
        if (n)
            printf "%s: %.3g %s each at %s, %.3g at %s\n", what, y[of, 1] * scale / x[of, 1], unit, commas(x[of, 1]),
                y[of, n] * scale / x[of, n], commas(x[of, n])
    }

    function extremes(of, what, from,    i, low, high) {
        for (i = 1; i <= count[of]; i++) {
            if (x[of, i] < from)
                continue
            if (!low || y[of, i] < y[of, low])
                low = i
            if (!high || y[of, i] > y[of, high])
                high = i
        }
        if (low)
            printf "%s: from %s entries on between %.1f (at %s) and %.1f (at %s), %.1f at the end\n", what, commas(from),
                y[of, low], commas(x[of, low]), y[of, high], commas(x[of, high]), y[of, count[of]]
    }

    END {
        decades("hit copy", "hit time grows", "entries")
        slope("hit copy", "hit time grows", "entries", 10000, 1000000)
        if (l2)
            printf "hit: the entries fill the processor'"'"'s second cache at %s", commas(l2)
        if (l2)
            print (l3 ? ", its third at " commas(l3) : "")
        decades("reap expired", "reap time grows with the expired", "entries")
        slope("reap expired", "reap time grows with the expired", "entries", 1000, 1e9)
        each("reap expired", "reap, a removed entry", "ns", 1000)
        slope("reap live", "reap time grows with the live", "entries", 1000, 1e9)
        slope("wake last_return", "wake-up time grows", "waiters", 1, 1e9)
        each("wake last_return", "wake, a waiter", "us", 1)
        slope("wake_cpu a_waiter", "processor time a waiter grows", "waiters", 1, 1e9)
        slope("bytes requested", "bytes an entry (requested) grow", "entries", 10000, 1e9)
        slope("bytes resident", "bytes an entry (resident) grow", "entries", 10000, 1e9)
        extremes("bytes requested", "bytes an entry, requested", 100000)
        extremes("bytes resident", "bytes an entry, resident", 100000)
    }' "$data" | tee "$folder/growth.txt"

if command -v gnuplot >/dev/null; then
    gnuplot -e "folder='$folder'; l2=$l2; l3=$l3" "$here/growth.gp"
    echo "figures and plots: $folder/growth*"
else
    echo "figures: $data; no plots, there is no gnuplot (sh test/deps.sh bench)"
fi
