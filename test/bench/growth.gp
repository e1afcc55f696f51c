# One SVG a plot from what the growth bench printed.
#   gnuplot -e "folder='FOLDER'; l2=ENTRIES; l3=ENTRIES" growth.gp
# FOLDER has growth.tsv and gets the plots. l2, l3: entries that fill the processor's caches; 0: unknown.

set encoding utf8
set micro
set terminal svg size 800,460 font "sans-serif,13" background "white"
set datafile separator "\t"
set grid xtics ytics lc rgb "#d8d8d8" lt 1
set border 3 lc rgb "#404040"
set tics nomirror textcolor rgb "#202020"
set key top left reverse Left
set style fill transparent solid 0.15 noborder
set logscale x
set format x "%.0s%c"
set autoscale xfix

rows(plot, series) = sprintf("< awk -F '\\t' '$1 == \"%s\" && $2 == \"%s\"' '%s/growth.tsv'", plot, series, folder)
file(name) = folder . "/growth-" . name . ".svg"
blue = "#0072b2"
orange = "#d55e00"
range = "least to greatest round"

# Times are in the file in ns or us; the axes have seconds with a prefix.
set logscale y
set format y "%.0s %cs"

set output file("hit")
set title "A hit by aside\\_copy(): 16-byte keys, 64-byte values, uniform, one thread"
set xlabel "entries in the cache"
set ylabel "processor time a hit (seconds)"
if (l2 > 0) {
    set arrow 1 from first l2, graph 0 to first l2, graph 1 nohead lc rgb "#909090" dt 2
    set label 1 " entries fill L2" at first l2, graph 0.06 textcolor rgb "#606060"
}
if (l3 > 0) {
    set arrow 2 from first l3, graph 0 to first l3, graph 1 nohead lc rgb "#909090" dt 2
    set label 2 " entries fill L3" at first l3, graph 0.06 textcolor rgb "#606060"
}
plot rows("hit", "copy") using 3:($5 * 1e-9):($6 * 1e-9) with filledcurves lc rgb blue title range, \
     "" using 3:($4 * 1e-9) with linespoints pt 7 ps 0.5 lw 2 lc rgb blue title "median"
unset arrow
unset label

set output file("reap")
set title "aside\\_reap()"
set xlabel "entries"
set ylabel "processor time of the call (seconds)"
plot rows("reap", "expired") using 3:($5 * 1e-6):($6 * 1e-6) with filledcurves lc rgb blue notitle, \
     "" using 3:($4 * 1e-6) with linespoints pt 7 ps 0.5 lw 2 lc rgb blue title "by entries expired, none alive", \
     rows("reap", "live") using 3:($5 * 1e-6):($6 * 1e-6) with filledcurves lc rgb orange notitle, \
     "" using 3:($4 * 1e-6) with linespoints pt 5 ps 0.5 lw 2 lc rgb orange title "by entries alive, 1,000 expired"

set output file("wake")
set title "A flight completes: until the last of its callers has returned"
set xlabel "callers that wait, each a thread"
set ylabel "time (seconds)"
plot rows("wake", "last_return") using 3:($5 * 1e-6):($6 * 1e-6) with filledcurves lc rgb blue title range, \
     "" using 3:($4 * 1e-6) with linespoints pt 7 ps 0.5 lw 2 lc rgb blue title "median"

unset logscale y
set yrange [0:*]
set output file("wake-cpu")
set key top right noreverse Right
set title "A flight completes: what it costs a caller that waits"
set ylabel "processor time of all threads, a caller (seconds)"
plot rows("wake_cpu", "a_waiter") using 3:($5 * 1e-6):($6 * 1e-6) with filledcurves lc rgb blue title range, \
     "" using 3:($4 * 1e-6) with linespoints pt 7 ps 0.5 lw 2 lc rgb blue title "median"

set output file("bytes")
set title "Memory while a cache fills: 16-byte keys, 64-byte values"
set xlabel "entries in the cache"
set ylabel "bytes an entry"
set format y "%g"
set yrange [0:600]
plot rows("bytes", "resident") using 3:4 with lines lw 2 lc rgb orange title "resident", \
     rows("bytes", "requested") using 3:4 with lines lw 2 lc rgb blue title "requested of the allocator"
