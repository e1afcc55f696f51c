// singleflight.go -- the peer of the group bench: Do of golang.org/x/sync/singleflight. A process
// that stays. It says its version; then each line "threads calls seed value" on standard input is
// one measurement, answered by a line with the nanoseconds that a goroutine took for a call.
//
// Goroutines are neither locked to threads nor pinned: that is how Go programs call it, and locking
// and pinning made two of them slower, not faster. Nothing is timed before all have warmed up, and
// one that has finished goes on calling until the last one has, which would run undisturbed else.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	keysEach  = 1024 // distinct ones, a goroutine; group.c has the same
	valueSize = 64
	batch     = 256 // calls between two looks at whether all have finished
)

type fetch = func() (interface{}, error)

var (
	source             = make([]byte, valueSize)
	ready  interface{} = source // made once: to put a slice into an interface allocates
)

func fetchReady() (interface{}, error) {
	return ready, nil
}

func fetchFresh() (interface{}, error) {
	value := make([]byte, valueSize)
	copy(value, source)
	return value, nil
}

func need(condition bool) {
	if !condition {
		panic("functional error")
	}
}

func keysOf(number int) []string {
	keys := make([]string, keysEach)
	for i := range keys {
		keys[i] = fmt.Sprintf("user:%011d", number*keysEach+i)
	}
	return keys
}

func callAll(group *singleflight.Group, keys []string, calls int, fetch fetch) {
	for i := 0; i < calls; i++ {
		value, err, shared := group.Do(keys[i%keysEach], fetch)
		need(err == nil && !shared && len(value.([]byte)) == valueSize)
	}
}

type measurement struct {
	group          singleflight.Group
	threads, calls int
	fetch          fetch
	begun, ended   int32
	all            sync.WaitGroup
}

// run is one goroutine's part; it returns nanoseconds a call.
func (m *measurement) run(keys []string) float64 {
	callAll(&m.group, keys, m.calls/10+1, m.fetch)
	atomic.AddInt32(&m.begun, 1)
	for atomic.LoadInt32(&m.begun) < int32(m.threads) {
	}
	start := time.Now()
	callAll(&m.group, keys, m.calls, m.fetch)
	took := time.Since(start)
	atomic.AddInt32(&m.ended, 1)
	for atomic.LoadInt32(&m.ended) < int32(m.threads) {
		callAll(&m.group, keys, batch, m.fetch)
	}
	return float64(took.Nanoseconds()) / float64(m.calls)
}

// measure returns the mean of the goroutines; seed says which keys.
func measure(threads, calls, seed int, fetch fetch) float64 {
	runtime.GOMAXPROCS(threads)
	runtime.GC() // what earlier measurements left behind is not this one's to clear away
	m := &measurement{threads: threads, calls: calls, fetch: fetch}
	ns := make([]float64, threads)
	m.all.Add(threads)
	for i := 0; i < threads; i++ {
		go func(i int) {
			defer m.all.Done()
			ns[i] = m.run(keysOf(seed*threads + i))
		}(i)
	}
	m.all.Wait()
	sum := 0.0
	for _, each := range ns {
		sum += each
	}
	return sum / float64(threads)
}

func main() {
	fetches := map[string]fetch{"ready": fetchReady, "fresh": fetchFresh}
	fmt.Println(runtime.Version())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var threads, calls, seed int
		var value string
		_, err := fmt.Sscan(lines.Text(), &threads, &calls, &seed, &value)
		fetch, known := fetches[value]
		need(err == nil && known && threads > 0 && calls > 0 && seed >= 0)
		fmt.Printf("%.3f\n", measure(threads, calls, seed, fetch))
	}
}
