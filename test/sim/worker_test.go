package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// Seeds are run by processes of their own, one a processor: goroutines that run
// on one thread, and are not preempted, take the same turns in each run, but
// for what the runtime decides by lot. And a panic in the code that is simulated,
// of which there is no other witness, ends no more than that process.
const (
	workerEnv = "TIDEMARK_SIM_SEEDS"
	stopEnv   = "TIDEMARK_SIM_STOP"  // at the first seed that breaks something
	traceEnv  = "TIDEMARK_SIM_TRACE" // the file that holds the trace of the seed that is run
)

const resultPrefix = "RESULT "

// workerRun is what became of a worker.
type workerRun struct {
	results []Result
	said    []byte // whatever else it wrote
	err     error
	crash   *crash // nil unless a panic ended it
}

// crash is a panic that ended a worker.
type crash struct {
	seed    string
	what    string
	product bool   // it was in the code that is simulated
	at      string // seconds into the run
	trace   []byte
}

func (c *crash) String() string { return fmt.Sprintf("at %ss %s", c.at, c.what) }

// runSeeds has a worker run seeds.
func runSeeds(t *testing.T, binary string, seeds []string, env ...string) workerRun {
	path := filepath.Join(t.TempDir(), "trace")
	cmd := workerOf(t, binary, seeds)
	cmd.Env = append(append(cmd.Env, traceEnv+"="+path), env...)
	out, err := cmd.CombinedOutput()
	o := workerRun{err: err}
	var said bytes.Buffer
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, after, ok := strings.Cut(lines.Text(), resultPrefix)
		if !ok {
			fmt.Fprintln(&said, lines.Text())
			continue
		}
		var r Result
		if err := json.Unmarshal([]byte(after), &r); err != nil {
			t.Error(err)
		}
		o.results = append(o.results, r)
	}
	o.said = said.Bytes()
	if n := len(o.results); err != nil && n < len(seeds) {
		if what, product := panicOf(o.said); what != "" {
			o.crash = &crash{seed: seeds[n], what: what, product: product}
			o.crash.read(t, path)
		}
	}
	return o
}

// workerOf is the process that runs seeds.
func workerOf(t *testing.T, binary string, seeds []string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestSeeds$", "-test.v", "-test.timeout=60m")
	cmd.Env = append(os.Environ(), workerEnv+"="+strings.Join(seeds, ","), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no orphans of a run that timed out
	return cmd
}

const module = "github.com/tidemark-io/tidemark/"

var panics = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*$`)

// panicOf finds the panic that ended a process in what it said, and tells whether
// it was in the code that is simulated: whose the first frame is that is ours, in
// the stack of who panicked, which comes first.
func panicOf(said []byte) (what string, product bool) {
	at := panics.FindIndex(said)
	if at == nil {
		return "", false
	}
	_, stack, _ := bytes.Cut(said[at[1]:], []byte("\ngoroutine "))
	stack, _, _ = bytes.Cut(stack, []byte("\n\n"))
	for frame := range bytes.Lines(stack) {
		if own, ok := bytes.CutPrefix(frame, []byte(module)); ok {
			product = !bytes.HasPrefix(own, []byte("test/"))
			break
		}
	}
	return string(said[at[0]:at[1]]), product
}

// read reads the trace of the run that crashed.
func (c *crash) read(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	c.trace, c.at = bytes.TrimRight(text, "\x00"), "0"
	end := bytes.LastIndexByte(c.trace, '\n') // the last line may be half a one
	if end < 0 {
		return
	}
	if last := bytes.Fields(c.trace[bytes.LastIndexByte(c.trace[:end], '\n')+1 : end]); len(last) > 0 {
		c.at = string(last[0])
	}
}

// keep writes the trace where those of other failures are.
func (c *crash) keep(t *testing.T) (path string) {
	path = filepath.Join(artifacts(), "sim-seed-"+c.seed+".trace")
	if err := os.WriteFile(path, c.trace, 0o644); err != nil {
		t.Error(err)
	}
	return path
}

// work runs seeds in this process.
func work(t *testing.T, seeds string) {
	debug.SetGCPercent(400) // little is kept, much is made
	var file *memoryFile
	if path := os.Getenv(traceEnv); path != "" {
		var err error
		if file, err = openMemory(path, traceMax); err != nil {
			t.Fatal(err)
		}
		defer file.close(t)
	}
	for _, s := range strings.Split(seeds, ",") {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if r := simulate(t, seed, file.clean(t)); len(r.Broken) > 0 && os.Getenv(stopEnv) != "" {
			return
		}
	}
}

// simulate runs one seed and reports what it broke.
func simulate(t *testing.T, seed uint64, memory []byte) *Result {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed) // names of topics and members
	var r *Result
	synctest.Test(t, func(*testing.T) { r = Run(seed, memory) })
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s%s\n", resultPrefix, line)
	if len(r.Broken) > 0 || os.Getenv("TIDEMARK_TRACE") != "" {
		keep(t, r)
	}
	return r
}

// memoryFile is memory that a file keeps when the process ends, however it does.
type memoryFile struct {
	f      *os.File
	memory []byte
}

func openMemory(path string, size int) (*memoryFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	return &memoryFile{f, memory}, err
}

// clean returns the memory, zeroed, which takes no room; nil if there is none.
func (m *memoryFile) clean(t *testing.T) []byte {
	if m == nil {
		return nil
	}
	for _, size := range []int{0, len(m.memory)} {
		if err := m.f.Truncate(int64(size)); err != nil {
			t.Fatal(err)
		}
	}
	return m.memory
}

func (m *memoryFile) close(t *testing.T) {
	if err := syscall.Munmap(m.memory); err != nil {
		t.Error(err)
	}
	if err := m.f.Close(); err != nil {
		t.Error(err)
	}
}

func TestPanics(t *testing.T) {
	for _, tc := range []struct {
		name, said, what string
		product          bool
	}{
		{"none", "=== RUN   TestSeeds\n--- FAIL: TestSeeds (0.1s)\n", "", false},
		{"of a broker", "=== RUN   TestSeeds\npanic: offsets 0 to 43 do not fit\n\ngoroutine 1025 [running, synctest bubble 1]:\n" +
			"panic({0x1?, 0x2?})\n\truntime/panic.go:792 +0x132\n" +
			module + "tiering.(*Partition).edited(0x1)\n\ttiering/edit.go:173 +0x257\n" +
			"created by golang.org/x/sync/errgroup.(*Group).Go in goroutine 1011\n\n" +
			"goroutine 7 [select]:\n" + module + "test/sim.Run(0x1)\n", "panic: offsets 0 to 43 do not fit", true},
		{"of the simulation", "panic: oh\n\ngoroutine 9 [running]:\n" + module + "test/sim.(*judge).saw(0x1)\n\n" +
			"goroutine 1 [select]:\n" + module + "tiering.(*Log).Run(0x1)\n", "panic: oh", false},
		{"below a broker's code", "fatal error: concurrent map writes\n\ngoroutine 9 [running]:\ninternal/runtime/maps.fatal()\n" +
			module + "broker.(*Server).admit(0x1)\n" + module + "test/sim.(*conn).Write(0x1)\n", "fatal error: concurrent map writes", true},
		{"a time-out", "panic: test timed out after 1h\n\ngoroutine 9 [running]:\ntesting.(*M).startAlarm.func1()\n\ngoroutine 1 [select]:\n" +
			module + "tiering.(*Log).Run(0x1)\n", "panic: test timed out after 1h", false},
	} {
		if what, product := panicOf([]byte(tc.said)); what != tc.what || product != tc.product {
			t.Errorf("%s: %q, %v", tc.name, what, product)
		}
	}
}

// TestTraceOutlivesTheProcess reads what a trace wrote through the file alone.
func TestTraceOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	m, err := openMemory(path, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close(t)
	for _, detail := range []string{"of the seed before", "of this seed"} {
		tr := newTrace(m.clean(t))
		for range 100 { // more than there is room for
			tr.add(1500000*1000, "b1.1", "started", detail)
		}
	}
	c := &crash{seed: "7"}
	c.read(t, path)
	line := "    1.500000  b1.1   started        of this seed\n"
	if n := len(c.trace) / len(line); n < 50 || string(c.trace) != strings.Repeat(line, n) || c.String() != "at 1.500000s " {
		t.Errorf("%v\n%s", c, c.trace)
	}
}
