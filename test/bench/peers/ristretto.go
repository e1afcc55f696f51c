// ristretto.go -- ristretto (github.com/dgraph-io/ristretto) as a driver of the suite: a bound, no
// expiry. The protocol, the cases and the load are those of driver.h. Keys are strings, values are
// slices, of which a store makes a copy. Goroutines are not pinned. There is no case fill: when it
// is busy, ristretto drops what it is to store.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/ristretto"
)

const (
	entries    = 100000
	bound      = entries * 3 / 2
	many       = 1000000
	asideBound = 100000
	fewPicks   = 1 << 18
	manyPicks  = 1 << 21
	settle     = 2000000
	batch      = 256
	setMark    = 1 << 31
	hotKey     = 4711
	valueSize  = 64
	loadSum    = 0x0123456789abcdef
)

func need(condition bool) {
	if !condition {
		panic("functional error")
	}
}

// ---- the load: lib_load.c ----

type random uint64 // splitmix64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (r *random) unit() float64 {
	return float64(r.next()>>11) * 0x1p-53
}

func makeKeys(count int) []string {
	keys := make([]string, count)
	for i := range keys {
		keys[i] = fmt.Sprintf("user:%011d", i)
	}
	return keys
}

func makeValue(number int) []byte {
	value := make([]byte, valueSize)
	state, rest := random(number), uint64(loadSum)
	for i := 8; i < valueSize; i += 8 {
		word := state.next()
		binary.LittleEndian.PutUint64(value[i:], word)
		rest -= word
	}
	binary.LittleEndian.PutUint64(value, rest)
	return value
}

func sum(value []byte) uint64 {
	total := uint64(0)
	for i := 0; i < valueSize; i += 8 {
		total += binary.LittleEndian.Uint64(value[i : i+8])
	}
	return total
}

func scatter(count int) []uint32 {
	state := random(99)
	to := make([]uint32, count)
	for i := range to {
		to[i] = uint32(i)
	}
	for i := count - 1; i > 0; i-- {
		j := state.next() % uint64(i+1)
		to[i], to[j] = to[j], to[i]
	}
	return to
}

func zipfShares(count int) []float64 {
	shares, total := make([]float64, count), 0.0
	for i := range shares {
		total += math.Pow(float64(i+1), -0.99)
		shares[i] = total
	}
	for i := range shares {
		shares[i] /= total
	}
	return shares
}

type zipf struct {
	shares    []float64
	to, guide []uint32
}

func newZipf(count int) *zipf {
	z := &zipf{shares: zipfShares(count), to: scatter(count), guide: make([]uint32, count+1)}
	rank := 0
	for part := range z.guide {
		for rank < count-1 && z.shares[rank] < float64(part)/float64(count) {
			rank++
		}
		z.guide[part] = uint32(rank)
	}
	return z
}

func (z *zipf) pick(state *random) uint32 {
	point := state.unit()
	part := int(point * float64(len(z.shares)))
	low, high := z.guide[part], z.guide[part+1]
	for low < high {
		middle := (low + high) / 2
		if z.shares[middle] < point {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return z.to[low]
}

func markSets(picks []uint32, seed int) {
	state := random(seed)
	for i := range picks {
		if state.next()%10 == 0 {
			picks[i] |= setMark
		}
	}
}

// ---- the cache ----

var (
	cache *ristretto.Cache
	keys  []string
)

func open(most int64) *ristretto.Cache {
	config := ristretto.Config{NumCounters: most * 10, MaxCost: most, BufferItems: 64}
	cache, err := ristretto.NewCache(&config)
	need(err == nil)
	return cache
}

func store(key string, value []byte) {
	cache.Set(key, append(make([]byte, 0, valueSize), value...), 1)
}

// fill stores until all are there: what it drops is stored again.
func fill(value func(int) []byte) {
	for missing := 1; missing > 0; time.Sleep(10 * time.Millisecond) {
		missing = 0
		for i, key := range keys {
			if _, found := cache.Get(key); !found {
				missing++
				store(key, value(i))
			}
			if missing%10000 == 9999 {
				time.Sleep(time.Millisecond)
			}
		}
	}
}

var (
	load    string
	popular *zipf
)

type worker struct {
	state     random
	picks     []uint32
	at        int
	value     []byte
	ops, hits int
	took      time.Duration
	_         [128]byte
}

func (w *worker) pickAll() {
	for i := range w.picks {
		switch load {
		case "zipf":
			w.picks[i] = popular.pick(&w.state)
		case "hot":
			w.picks[i] = hotKey
		default:
			w.picks[i] = uint32(w.state.next() % uint64(len(keys)))
		}
	}
	w.at = 0
}

func (w *worker) runHits(picks []uint32) {
	total := uint64(0)
	for _, pick := range picks {
		value, found := cache.Get(keys[pick])
		need(found)
		total += sum(value.([]byte))
	}
	expected := uint64(loadSum)
	need(total == expected*batch)
	w.hits += batch
}

func (w *worker) runMixed(picks []uint32) {
	total, hits := uint64(0), 0
	for _, pick := range picks {
		if pick&setMark != 0 {
			store(keys[pick&^setMark], w.value)
			continue
		}
		value, found := cache.Get(keys[pick])
		need(found)
		total += sum(value.([]byte))
		hits++
	}
	need(total == loadSum*uint64(hits))
	w.hits += hits
}

func (w *worker) runAside(picks []uint32) {
	total, hits := uint64(0), 0
	for _, pick := range picks {
		value, found := cache.Get(keys[pick])
		if !found {
			store(keys[pick], w.value)
			continue
		}
		total += sum(value.([]byte))
		hits++
	}
	need(total == loadSum*uint64(hits))
	w.hits += hits
}

func (w *worker) runBatch(what string) {
	picks := w.picks[w.at : w.at+batch]
	switch what {
	case "hit":
		w.runHits(picks)
	case "mixed":
		w.runMixed(picks)
	default:
		w.runAside(picks)
	}
	w.ops += batch
	w.at = (w.at + batch) % len(w.picks)
}

func (w *worker) runUntil(what string, slice time.Duration) {
	w.ops, w.hits = 0, 0
	start := time.Now()
	for w.took = 0; w.took < slice; w.took = time.Since(start) {
		w.runBatch(what)
	}
}

// ---- orders ----

func slice(what string, workers []*worker, length time.Duration) {
	var warm, all sync.WaitGroup
	warm.Add(len(workers))
	all.Add(len(workers))
	for _, w := range workers {
		if what == "aside" && w.at > len(w.picks)/2 {
			w.pickAll() // no sequence is asked for twice there
		}
	}
	for _, w := range workers {
		go func(w *worker) {
			defer all.Done()
			w.runUntil(what, length/10)
			warm.Done()
			warm.Wait()
			w.runUntil(what, length)
		}(w)
	}
	all.Wait()
}

func answer(workers []*worker) {
	ops, hits, ns := 0, 0, int64(0)
	for _, w := range workers {
		ops += w.ops
		hits += w.hits
		ns += w.took.Nanoseconds()
	}
	fmt.Println(ops, ns/int64(len(workers)), hits)
}

func heapBytes() int64 {
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapInuse)
}

// growth is of the heap in use: the resident size follows the collector. It stores hashes, no keys.
func growth() {
	keys = makeKeys(many)
	before := heapBytes()
	cache = open(many * 3 / 2)
	fill(makeValue)
	fmt.Println(heapBytes()-before, 1, len(keys))
}

// ---- making ----

func makeWorkers(what string, threads int) []*worker {
	count, picks := entries, fewPicks
	if what == "aside" {
		count, picks = many, manyPicks
	}
	keys = makeKeys(count)
	if load == "zipf" {
		popular = newZipf(count)
	}
	workers := make([]*worker, threads)
	for i := range workers {
		workers[i] = &worker{value: makeValue(i), picks: make([]uint32, picks), state: random(1 + i)}
		workers[i].pickAll()
		if what == "mixed" {
			markSets(workers[i].picks, 1001+i)
		}
	}
	return workers
}

func makeAll(what string, threads int) []*worker {
	workers := makeWorkers(what, threads)
	if what == "aside" {
		cache = open(asideBound)
		for i := 0; i < settle; i += batch {
			workers[i/batch%threads].runBatch(what)
		}
	} else {
		cache = open(bound)
		fill(makeValue)
	}
	slice(what, workers, 300*time.Millisecond)
	return workers
}

func readLines(do func(time.Duration)) {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ms, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "go "))
		need(err == nil)
		do(time.Duration(ms) * time.Millisecond)
	}
}

func main() {
	cases := "hit-uniform hit-zipf hit-hot mixed-zipf aside-zipf bytes"
	if len(os.Args) == 2 && os.Args[1] == "--cases" {
		fmt.Println(strings.ReplaceAll(cases, " ", "\n"))
		return
	}
	if len(os.Args) != 3 || !strings.Contains(cases, os.Args[1]) {
		fmt.Fprintln(os.Stderr, "usage: ristretto --cases | CASE THREADS")
		os.Exit(2)
	}
	threads, err := strconv.Atoi(os.Args[2])
	need(err == nil && threads > 0)
	parts := append(strings.SplitN(os.Args[1], "-", 2), "")
	if parts[0] == "bytes" {
		readLines(func(time.Duration) { growth() })
		return
	}
	runtime.GOMAXPROCS(runtime.NumCPU())
	load = parts[1]
	workers := makeAll(parts[0], threads)
	runtime.GC()
	readLines(func(length time.Duration) {
		slice(parts[0], workers, length)
		answer(workers)
	})
}
