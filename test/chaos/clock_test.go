package chaos

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A broker whose clock can be set is built with one file of the standard library
// replaced: Go programs read the clock without asking the C library, so nothing
// outside them can change what they see of it. Every reading goes through a page
// of memory shared with the test:
//
//	wall offset (8)   nanoseconds added to the wall clock
//	wall rate (8)     float64 bits; the wall clock's speed since the process began, 0 means 1
//	mono rate (8)     the same for the monotonic clock as time.Now shows it
//
// Timers and deadlines of the runtime and the kernel keep true time, as they do
// in a process whose clock is wrong.
const (
	clockEnv  = "TIDEMARK_TEST_CLOCK"
	clockSize = 4096
)

// skewSource is added to package time.
const skewSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var skewPage atomic.Pointer[[3]uint64]

var skewBegun struct{ wall, mono int64 }

func init() {
	path, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic("test clock: " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("test clock: " + err.Error())
	}
	sec, nsec, mono := runtimeNow()
	skewBegun.wall, skewBegun.mono = sec*1e9+int64(nsec), mono
	skewPage.Store((*[3]uint64)(unsafe.Pointer(&b[0])))
}

func skewedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	p := skewPage.Load()
	if p == nil {
		return
	}
	wall := sec*1e9 + int64(nsec)
	if rate := skewRate(&p[1]); rate != 0 {
		wall = skewBegun.wall + int64(float64(wall-skewBegun.wall)*rate)
	}
	wall += int64(atomic.LoadUint64(&p[0]))
	if rate := skewRate(&p[2]); rate != 0 && mono != 0 {
		mono = skewBegun.mono + int64(float64(mono-skewBegun.mono)*rate)
	}
	return wall / 1e9, int32(wall % 1e9), mono
}

func skewRate(bits *uint64) float64 {
	b := atomic.LoadUint64(bits)
	return *(*float64)(unsafe.Pointer(&b))
}
`

// buildClockBroker builds a broker whose clock can be set.
func buildClockBroker(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(dir, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	calls := []byte("sec, nsec, mono := runtimeNow()")
	if bytes.Count(source, calls) == 0 {
		t.Fatal("this version of Go reads the clock in another way: the overlay has to be adapted")
	}
	work := t.TempDir()
	patched, skew := filepath.Join(work, "time.go"), filepath.Join(work, "skew.go")
	write := func(path string, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(patched, bytes.ReplaceAll(source, calls, []byte("sec, nsec, mono := skewedNow()")))
	write(skew, []byte(skewSource))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(dir, "time.go"): patched, filepath.Join(dir, "zz_skew.go"): skew,
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(work, "overlay.json"), overlay)
	return buildBroker(t, "tidemark-clock", "-overlay", filepath.Join(work, "overlay.json"))
}

// clock is what one broker believes of time.
type clock struct{ page []byte }

// newClock makes the page that a broker with path in its environment reads.
func newClock(t *testing.T) (c clock, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(path, make([]byte, clockSize), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.page, err = syscall.Mmap(int(f.Fd()), 0, clockSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(c.page) })
	return c, path
}

func (c clock) store(word int, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&c.page[8*word])), v)
}

// offset moves the wall clock by d from the truth.
func (c clock) offset(d time.Duration) { c.store(0, uint64(d)) }

// rates set the speeds of the wall and of the monotonic clock; 1 is the truth.
func (c clock) rates(wall, mono float64) {
	c.store(1, math.Float64bits(wall))
	c.store(2, math.Float64bits(mono))
}
