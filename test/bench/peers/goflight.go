// goflight.go -- Do of golang.org/x/sync/singleflight as a driver of the suite: the stampede, with
// as many goroutines as ours has threads. The protocol is that of driver.h.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const loader = 2 * time.Millisecond

func need(condition bool) {
	if !condition {
		panic("functional error")
	}
}

func load() (interface{}, error) {
	time.Sleep(loader)
	return make([]byte, 64), nil
}

// stampede returns the time from the beginning to the last return.
func stampede(group *singleflight.Group, key string, callers int) time.Duration {
	var ready, all sync.WaitGroup
	begin, ends := make(chan struct{}), make([]time.Time, callers)
	ready.Add(callers)
	all.Add(callers)
	for i := 0; i < callers; i++ {
		go func(i int) {
			defer all.Done()
			ready.Done()
			<-begin
			value, err, _ := group.Do(key, load)
			ends[i] = time.Now()
			need(err == nil && len(value.([]byte)) == 64)
		}(i)
	}
	ready.Wait()
	time.Sleep(5 * time.Millisecond)
	start := time.Now()
	close(begin)
	all.Wait()
	last := start
	for _, end := range ends {
		if end.After(last) {
			last = end
		}
	}
	return last.Sub(start)
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--cases" {
		fmt.Println("stampede")
		return
	}
	if len(os.Args) != 3 || os.Args[1] != "stampede" {
		fmt.Fprintln(os.Stderr, "usage: goflight --cases | stampede THREADS")
		os.Exit(2)
	}
	callers, err := strconv.Atoi(os.Args[2])
	need(err == nil && callers > 0)
	var group singleflight.Group
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for number := 0; lines.Scan(); number++ {
		took := stampede(&group, fmt.Sprintf("user:%011d", number), callers)
		fmt.Println(callers, took.Nanoseconds(), 0)
	}
}
