#!/usr/bin/env python3
"""Runs ours beside each peer and prints what came of it: a table, a TSV file, and plots.

Two drivers (peers/driver.h), ours and a peer's, are loaded with the same work and then run slices
in turn, within the same second; the order turns every round. What is compared are the two slices of
one round: a ratio is the median of the pairs' ratios, with the least and the greatest. Rows are
about rates (ours over theirs: more is better) or about times and bytes (less is better).

Benches that have a control of their own run as they are, and their lines become rows as well.
"""
import argparse
import collections
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

RATE, COST = 'rate', 'cost'  # what a ratio compares
FRESH_PAIRS = 3  # bytes are counted, not timed, and each needs processes of its own
FILL_PAIRS = 7  # they take long
BYTES = 195  # wanted of an entry of 80 bytes, at the worst moment of growth

Row = collections.namedtuple(
    'Row', 'name ours threads peer case peer_threads sense target least_hits')
Answer = collections.namedtuple('Answer', 'ops ns hits')
Result = collections.namedtuple(
    'Result', 'name threads ours peer sense ratio low high target verdict our_figure peer_figure '
    'our_hits peer_hits pairs')

# ---- what is compared ----------------------------------------------------------------------------

CACHES = ['glib16', 'compact16', 'uthash', 'caffeine', 'ristretto']  # these keep a bound
MAPS = ['urcu', 'cuckoo']
MISSING = 'missing'


def row(name, ours, threads, peer, case, target=None, sense=RATE):
    return Row(name, ours, threads, peer, case, threads, sense, target, None)


def hit_target(kind, threads, peer, op):
    """The least ratio wanted of hits, or None."""
    if threads == 1:
        return 1.7 if peer == 'glib16' and kind in ('uniform', 'zipf') and op != 'get' else None
    if op == 'get':
        return 3.0 if (kind, peer) == ('zipf', 'glib16') else None
    return {
        ('uniform', 'glib16'): 3.5, ('uniform', 'urcu'): 0.9,
        ('zipf', 'glib16'): 4.5, ('zipf', 'urcu'): 0.9,
        ('hot', 'glib16'): 9.0, ('hot', 'urcu'): 1.0,
    }.get((kind, peer))


def hit_rows(threads):
    for kind in ('uniform', 'zipf', 'hot'):
        pairs = [('copy', peer) for peer in CACHES + MAPS]
        pairs += [('visit', 'glib16'), ('visit', 'urcu'), ('get', 'glib16')]
        for op, peer in pairs:
            yield row(f'hit {kind} {op}', f'hit-{kind}-{op}', threads, peer, f'hit-{kind}',
                      hit_target(kind, threads, peer, op))
    for op in ('copy', 'visit', 'get'):
        yield row(f'hit sampled {op}', f'hit-sampled-{op}', threads, 'glib16', 'hit-hot',
                  hit_target('hot', threads, 'glib16', op))


def write_rows(threads):
    targets = {'glib16': 6.0, 'cuckoo': 1.2} if threads == 2 else {}
    for peer in CACHES + MAPS:
        yield row('90/10 zipf copy', 'mixed-zipf-copy', threads, peer, 'mixed-zipf',
                  targets.get(peer))
    for peer in CACHES:
        each = row('cache-aside copy', 'aside-zipf-copy', threads, peer, 'aside-zipf')
        wanted = threads == 2 and peer == 'glib16'
        yield each._replace(target=2.0, least_hits=0.80) if wanted else each
    yield row('cache-aside fetch', 'aside-zipf-fetch', threads, 'glib16', 'aside-zipf')


def once_rows():
    for peer in ('glib16', 'compact16', 'uthash', 'caffeine', 'urcu', 'cuckoo'):
        yield row('fill of a million', 'fill', 1, peer, 'fill')
    for peer in ('glib16', 'urcu', 'cuckoo'):
        yield row('fill of a million', 'fill', 2, peer, 'fill')
    for peer in CACHES + MAPS:
        yield row('bytes an entry', 'bytes', 1, peer, 'bytes', sense=COST)
    for threads in (100, 1000):
        for peer in ('hand', 'goflight', 'caffeine'):
            target = 1.1 if (threads, peer) == (100, 'hand') else None
            yield row('stampede', 'stampede', threads, peer, 'stampede', target, COST)
    yield row('miss with fetch / set', 'miss', 1, 'aside', 'set-full', 3.0, COST)
    yield row('miss with fetch', 'miss', 1, 'caffeine', 'miss', sense=COST)
    for peer in ('uthash', 'glib16', 'caffeine'):
        yield row('set, full', 'set-full', 1, peer, 'set-full')


def scale_rows():
    for kind in ('hot', 'zipf'):
        for op in ('copy', 'visit'):
            case = f'hit-{kind}-{op}'
            yield row(f'2 threads / 1, {kind} {op}', case, 2, 'aside', case,
                      1.85)._replace(peer_threads=1)


def all_rows():
    rows = [each for threads in (1, 2) for each in hit_rows(threads)]
    rows += [each for threads in (1, 2) for each in write_rows(threads)]
    return rows + list(scale_rows()) + list(once_rows())


# ---- drivers -------------------------------------------------------------------------------------

class Broken(Exception):
    """A driver ended, or said what it should not."""


class Driver:
    """A loaded driver: a process that waits for orders."""

    def __init__(self, path, case, threads):
        self.name = f'{os.path.basename(path)} {case} {threads}'
        self.process = subprocess.Popen([path, case, str(threads)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.read() != 'ready':
            raise Broken(f'{self.name}: is not ready')

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise Broken(f'{self.name}: ended with {self.process.wait()}')
        return line.strip()

    def go(self, slice_ms):
        self.process.stdin.write(f'go {slice_ms}\n')
        self.process.stdin.flush()
        return Answer(*(int(word) for word in self.read().split()))

    def close(self):
        self.process.stdin.close()
        status = self.process.wait()
        self.process.stdout.close()
        if status:
            raise Broken(f'{self.name}: ended with {status}')


def one_shot(path, case, threads):
    driver = Driver(path, case, threads)
    answer = driver.go(0)
    driver.close()
    return answer


class Loaded:
    """Our driver of the row before, as long as the next row wants the same."""

    def __init__(self, peers):
        self.peers, self.key, self.driver = peers, None, None

    def get(self, case, threads):
        if self.key != (case, threads):
            self.close()
            self.driver = Driver(os.path.join(self.peers, 'aside'), case, threads)
            self.key = (case, threads)
        return self.driver

    def close(self):
        driver, self.driver, self.key = self.driver, None, None
        if driver:
            driver.close()


# ---- pairs ---------------------------------------------------------------------------------------

def in_turn(ours, theirs, pairs):
    """Calls both so often, in an order that turns; a list of pairs of answers."""
    answers = []
    for number in range(pairs):
        if number % 2:
            their_answer, our_answer = theirs(), ours()
        else:
            our_answer, their_answer = ours(), theirs()
        answers.append((our_answer, their_answer))
    return answers


def pairs_for(wanted, options):
    if wanted.case == 'bytes':
        return min(FRESH_PAIRS, options.pairs)
    if wanted.case == 'fill':
        return min(FILL_PAIRS, options.pairs)
    return options.pairs * 3 if wanted.case == 'stampede' else options.pairs


def measure(wanted, loaded, options):
    """The pairs of answers of a row."""
    peer, aside = (os.path.join(loaded.peers, name) for name in (wanted.peer, 'aside'))
    if wanted.case == 'bytes':
        return in_turn(lambda: one_shot(aside, wanted.ours, 1),
                       lambda: one_shot(peer, wanted.case, 1), pairs_for(wanted, options))
    ours = loaded.get(wanted.ours, wanted.threads)
    theirs = Driver(peer, wanted.case, wanted.peer_threads)
    answers = in_turn(lambda: ours.go(options.slice), lambda: theirs.go(options.slice),
                      pairs_for(wanted, options))
    theirs.close()
    return answers


def verdict_of(ratio, sense, target, our_hits, least_hits):
    if target is None:
        return ''
    met = ratio >= target if sense == RATE else ratio <= target
    if least_hits is not None and our_hits < least_hits:
        met = False
    return 'met' if met else 'missed'


def figure(wanted, answer):
    """Million operations a second; or bytes, or microseconds, each."""
    if wanted.sense == RATE:
        return answer.ops * 1e3 / answer.ns
    if wanted.case == 'bytes':
        return answer.ops / answer.hits
    if wanted.case == 'stampede':
        return answer.ns / 1e3
    return answer.ns / answer.ops / 1e3


def hit_ratio(wanted, answers):
    return sum(each.hits for each in answers) / sum(each.ops for each in answers) \
        if 'aside' in wanted.case else None


def missing_result(wanted):
    return Result(wanted.name, wanted.threads, wanted.ours, wanted.peer, wanted.sense, None, None,
                  None, wanted.target, MISSING, None, None, None, None, 0)


def result_of(wanted, answers):
    ours = [figure(wanted, pair[0]) for pair in answers]
    theirs = [figure(wanted, pair[1]) for pair in answers]
    ratios = [our / their for our, their in zip(ours, theirs)]
    our_hits = hit_ratio(wanted, [pair[0] for pair in answers])
    ratio = statistics.median(ratios)
    return missing_result(wanted)._replace(
        ratio=ratio, low=min(ratios), high=max(ratios), pairs=len(answers),
        verdict=verdict_of(ratio, wanted.sense, wanted.target, our_hits, wanted.least_hits),
        our_figure=statistics.median(ours), peer_figure=statistics.median(theirs),
        our_hits=our_hits, peer_hits=hit_ratio(wanted, [pair[1] for pair in answers]))


# ---- benches with a control of their own ---------------------------------------------------------

Bench = collections.namedtuple('Bench', 'program arguments quick read')


def fields_of(line):
    return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))


def bench_row(name, threads, ours, peer, target):
    return row(name, ours, threads, peer, '', target, COST)


def judged(wanted, ratio, low, high, our_figure, peer_figure):
    """The result of a bench that compares by itself; figures are microseconds."""
    return missing_result(wanted)._replace(
        ratio=ratio, low=low, high=high, our_figure=our_figure, peer_figure=peer_figure,
        verdict=verdict_of(ratio, COST, wanted.target, None, None))


def spread_of(got, name):
    return (float(got[name + end]) for end in ('', '_min', '_max'))


def read_group(line):
    """value threads ours_ns min max go_ns min max ratio min max, between tabs"""
    words = line.split('\t')
    if len(words) != 11 or words[0] not in ('ready', 'fresh'):
        return None
    wanted = bench_row(f'group, {words[0]} value', int(words[1]), 'group', 'Go Do', 0.5)
    if words[5] == MISSING:
        return missing_result(wanted)
    ours, theirs, ratio, low, high = (float(words[i]) for i in (2, 5, 8, 9, 10))
    return judged(wanted, ratio, low, high, ours / 1e3, theirs / 1e3)


def read_tail(line):
    if not line.startswith('tail: '):
        return None
    got = fields_of(line)
    alone = (got['op'], got['meanwhile']) == ('set', 'growth')
    wanted = bench_row(f"p99.9 of {got['op']}, {got['meanwhile']}", 1 if alone else 2, 'tail',
                       'without', 1.5)
    return judged(wanted, *spread_of(got, 'ratio'), float(got['p999_ns']) / 1e3,
                  float(got['without_ns']) / 1e3)


def read_miss(line):
    if not line.startswith('miss: ') or 'op=fetch_store' not in line:
        return None
    got = fields_of(line)
    wanted = bench_row(f"miss, {got['mode']} cache / set", 1, 'miss', 'aside', 3.0)
    return judged(wanted, *spread_of(got, 'over_set'), float(got['ns']) / 1e3, None)


def read_wake(line):
    if not line.startswith('wake: '):
        return None
    got = fields_of(line)
    wanted = bench_row('wake-up of a crowd', int(got['waiters']), 'wake', 'bare futex', 1.1)
    return judged(wanted, *spread_of(got, 'ratio'), float(got['ours_ms']) * 1e3,
                  float(got['bare_ms']) * 1e3)


def read_bytes(line):
    """As a share of what is wanted: there is nothing that it alternates with."""
    got = fields_of(line)
    if not line.startswith('bytes: ') or got['measure'] not in ('requested', 'resident'):
        return None
    wanted = bench_row(f"bytes, {got['measure']}, worst", 1, 'bytes', str(BYTES), 1.0)
    share = float(got['worst']) / BYTES
    return judged(wanted, share, float(got['at_end']) / BYTES, share, float(got['worst']), BYTES)


BENCHES = [
    Bench('group', [], ['--pairs', '3', '--calls', '100000'], read_group),
    Bench('miss', ['--pairs', '11'], ['--pairs', '3', '--misses', '20000'], read_miss),
    Bench('wake', ['--rounds', '31'], ['--rounds', '5'], read_wake),
    Bench('tail', [], ['--pairs', '1', '--rounds', '1'], read_tail),
    Bench('bytes', [], [], read_bytes),
]


def run_bench(bench, options):
    """Rows, and the lines with figures that are not ratios."""
    arguments = bench.quick if options.quick else bench.arguments
    command = [os.path.join(options.build, bench.program)] + arguments
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise Broken(f'{bench.program}: ended with {run.returncode}')
    lines = run.stdout.splitlines()
    results = [result for result in map(bench.read, lines) if result]
    return results, [line for line in lines if re.match('(reap|bytes): ', line)]


# ---- the report ----------------------------------------------------------------------------------

def number(value, form='.2f'):
    return '-' if value is None else format(value, form)


def target_text(result):
    if result.target is None:
        return ''
    return ('>= ' if result.sense == RATE else '<= ') + format(result.target, '.2f')


def hits_text(result):
    if result.our_hits is None:
        return ''
    return f'  hits {result.our_hits:.3f} / {result.peer_hits:.3f}'


def print_head(text):
    print(f'\n{text}')
    print(f'{"case":30} {"threads":>7}  {"peer":10} {"ratio":>7}  {"min..max":>16}  target')


def print_result(result):
    begin = f'{result.name:30} {result.threads:7}  {result.peer:10}'
    if result.ratio is None:
        print(f'{begin} missing', flush=True)
        return
    spread = f'{result.low:.2f}..{result.high:.2f}'
    end = f'{target_text(result):8} {result.verdict}{hits_text(result)}'
    print(f'{begin} {result.ratio:7.2f}  {spread:>16}  {end}'.rstrip(), flush=True)


def first_line(command):
    try:
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    except OSError:
        return 'unknown'
    return (output.splitlines() or ['unknown'])[0]


def compiler(command):
    return first_line(command.split() + ['--version'])


def processor():
    try:
        with open('/proc/cpuinfo', encoding='ascii', errors='replace') as file:
            names = [line for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return names[0].split(':', 1)[1].strip() if names else 'unknown'


def machine_line(options):
    return (f'machine: cpu="{processor()}" cores={len(os.sched_getaffinity(0))} '
            f'kernel={platform.release()} compiler="{compiler(options.cc)}" '
            f'date={time.strftime("%Y-%m-%d")} load={os.getloadavg()[0]:.2f}')


COLUMNS = ('case threads ours peer compares ratio min max target verdict our_figure peer_figure '
           'our_hits peer_hits pairs').split()


def tsv_line(result):
    return '\t'.join([
        result.name, str(result.threads), result.ours, result.peer, result.sense,
        number(result.ratio, '.3f'), number(result.low, '.3f'), number(result.high, '.3f'),
        number(result.target), result.verdict or '-', number(result.our_figure, '.3f'),
        number(result.peer_figure, '.3f'), number(result.our_hits, '.4f'),
        number(result.peer_hits, '.4f'), str(result.pairs or '-')])


def write_tsv(path, machine, results, lines):
    with open(path, 'w', encoding='ascii', errors='replace') as file:
        file.write(f'# {machine}\n# rate: ours over theirs, figures in million operations a '
                   'second; cost: the same of microseconds, or of bytes\n')
        for line in lines:
            file.write(f'# {line}\n')
        file.write('\t'.join(COLUMNS) + '\n')
        for result in results:
            file.write(tsv_line(result) + '\n')


# ---- plots ---------------------------------------------------------------------------------------

BARS = CACHES + MAPS
GROUPS = [('hit uniform copy', 'uniform'), ('hit zipf copy', 'zipf'), ('hit hot copy', 'hot key'),
          ('90/10 zipf copy', '90/10 zipf'), ('cache-aside copy', 'cache-aside'),
          ('fill of a million', 'fill')]
COLOURS = dict(zip(BARS, ['#174f7c', '#3d8ac4', '#93c4e6', '#c8553d', '#f0a868', '#4f7d4a',
                          '#a3c585']))


def log2_of(value):
    return 'NaN' if value is None else f'{math.log2(value):.4f}'


def plotted(results, threads):
    """What the charts show of that, by case and peer."""
    return {(each.name, each.peer): each for each in results
            if each.threads == threads and each.name in dict(GROUPS) and each.peer in BARS
            and each.ratio}


def plot_data(found, peers):
    """A line for each group of bars; for each peer the ratio and its spread, as powers of two."""
    lines = []
    for name, label in GROUPS:
        if not any((name, peer) in found for peer in peers):
            continue
        cells = [f'"{label}"']
        for peer in peers:
            each = found.get((name, peer))
            spread = (each.ratio, each.low, each.high) if each else (None, None, None)
            cells += [log2_of(value) for value in spread]
        lines.append(' '.join(cells))
    return '\n'.join(lines)


def y_range(found):
    low = min(math.log2(each.low) for each in found.values())
    high = max(math.log2(each.high) for each in found.values())
    return f'[{min(-1, math.floor(low))}:{max(1, math.ceil(high))}]'


def plot_script(found, threads, path):
    peers = [peer for peer in BARS if any(key[1] == peer for key in found)]
    bars = ', '.join(
        f'$data using {2 + 3 * i}:{3 + 3 * i}:{4 + 3 * i}:xtic(1) title "{peer}" '
        f'lc rgb "{COLOURS[peer]}"' for i, peer in enumerate(peers))
    tics = ', '.join(f'"{text}" {power}' for power, text in
                     enumerate(['1/8', '1/4', '1/2', '1', '2', '4', '8', '16', '32', '64'], -3))
    return f'''set terminal svg size 1000,460 font "sans-serif,13" noenhanced background rgb "white"
set output "{path}"
set title "libaside (aside_copy) over its peers, {threads} thread{'s' if threads > 1 else ''}: \
times their rate, median of pairs with least and greatest"
set style data histogram
set style histogram errorbars gap 1.5 lw 1
set style fill solid 0.9
set yrange {y_range(found)}
set ytics ({tics})
set grid ytics lc rgb "#dddddd"
set arrow from graph 0, first 0 to graph 1, first 0 nohead lw 2 lc rgb "black" front
set key outside right top
set ylabel "ours / theirs"
$data << EOD
{plot_data(found, peers)}
EOD
plot {bars}
'''


def plot(results, folder):
    """One chart for each number of threads; returns what was written."""
    if not shutil.which('gnuplot'):
        print('missing: gnuplot (gnuplot-nox), so no plots')
        return []
    written = []
    for threads in (1, 2):
        found = plotted(results, threads)
        if not found:
            continue
        path = os.path.join(folder, f'peers-{threads}-thread{"s" if threads > 1 else ""}.svg')
        script = plot_script(found, threads, path)
        subprocess.run(['gnuplot'], input=script, text=True, check=True)
        written.append(path)
    return written


# ---- the run -------------------------------------------------------------------------------------

def wanted_rows(options):
    return [each for each in all_rows()
            if re.search(options.only, f'{each.name} {each.threads} {each.peer}')]


def wanted_benches(options):
    return [each for each in BENCHES if re.search(options.only, each.program)]


def run_rows(options, failures):
    """Rows in order: our driver stays as long as the case does."""
    loaded, results = Loaded(os.path.join(options.build, 'peers')), []
    for wanted in wanted_rows(options):
        try:
            if not os.access(os.path.join(loaded.peers, wanted.peer), os.X_OK):
                result = missing_result(wanted)
            else:
                result = result_of(wanted, measure(wanted, loaded, options))
            print_result(result)
            results.append(result)
        except (Broken, BrokenPipeError) as error:
            failures.append(str(error))
            print(f'{wanted.name:30} {wanted.threads:7}  {wanted.peer:10} FAILED: {error}')
            loaded = Loaded(loaded.peers)
    try:
        loaded.close()
    except Broken as error:
        failures.append(str(error))
    return results


def run_benches(options, failures):
    results, lines = [], []
    for bench in wanted_benches(options):
        try:
            rows, shown = run_bench(bench, options)
            for result in rows:
                print_result(result)
            results += rows
            lines += shown
        except Broken as error:
            failures.append(str(error))
            print(f'{bench.program:30} FAILED: {error}', flush=True)
    return results, lines


def summary(results, failures):
    verdicts = [each.verdict for each in results]
    met, missed = verdicts.count('met'), verdicts.count('missed')
    print(f'\n{met} of {met + missed} targets met')
    for peer in sorted({each.peer for each in results if each.verdict == MISSING}):
        print(f'missing: {peer}')
    for failure in failures:
        print(f'FAILED: {failure}')


def parse():
    parser = argparse.ArgumentParser(description='ours beside its peers')
    parser.add_argument('--build', default='build/bench', help='where the drivers and benches are')
    parser.add_argument('--out', default='build/bench/out', help='where peers.tsv and the plots go')
    parser.add_argument('--pairs', type=int, default=9, help='slices of ours and of the peer, each')
    parser.add_argument('--slice', type=int, default=120, metavar='MS', help='length of a slice')
    parser.add_argument('--only', default='', metavar='REGEX',
                        help='of "CASE THREADS PEER", and of the names of benches')
    parser.add_argument('--quick', action='store_true',
                        help='few short slices: to see that it runs')
    parser.add_argument('--cc', default=os.environ.get('CC', 'cc'), help='the compiler to name')
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.slice = min(options.pairs, 3), min(options.slice, 40)
    return options


def main():
    options, failures = parse(), []
    os.makedirs(options.out, exist_ok=True)
    machine = machine_line(options)
    print(machine)
    print(f'{options.pairs} pairs of {options.slice} ms; medians of the ratios of pairs')
    print_head('ours over theirs: of rates more is better; of bytes, stampedes and misses less')
    results = run_rows(options, failures)
    if wanted_benches(options):
        print_head('of what the same bench measures beside it: less is better')
    bench_results, lines = run_benches(options, failures)
    results += bench_results
    print('\n' + '\n'.join(lines))
    write_tsv(os.path.join(options.out, 'peers.tsv'), machine, results, lines)
    for path in [os.path.join(options.out, 'peers.tsv')] + plot(results, options.out):
        print(f'written: {path}')
    summary(results, failures)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
