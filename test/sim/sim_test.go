package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// How many seeds are run, unless TIDEMARK_SEEDS says otherwise.
const (
	seedsDefault = 100
	seedsCI      = 1000
)

// TestSeeds runs seeds, each in a world of its own. See the package comment for
// the variables that choose which.
func TestSeeds(t *testing.T) {
	if v := os.Getenv(workerEnv); v != "" {
		work(t, v)
		return
	}
	seeds := chosen(t)
	begun := time.Now()
	all := newTotals()
	workers := min(runtime.NumCPU(), len(seeds))
	var wg sync.WaitGroup
	for i := range workers {
		var mine []string
		for j := i; j < len(seeds); j += workers {
			mine = append(mine, strconv.FormatUint(seeds[j], 10))
		}
		wg.Go(func() { runWorker(t, mine, all) })
	}
	wg.Wait()
	took := time.Since(begun)
	t.Logf("%d seeds in %v, %.0f a minute; %d calls released, %v simulated\nclients: %s\nfaults: %s",
		all.Seeds, took.Round(time.Second), float64(all.Seeds)/took.Minutes(), all.Steps, all.Fake.Round(time.Second), text(all.Counts), text(all.Faults))
	if all.Seeds != len(seeds) {
		t.Errorf("%d of %d seeds were run", all.Seeds, len(seeds))
	}
	if len(seeds) >= seedsDefault && os.Getenv("TIDEMARK_SEED") == "" {
		all.enough(t)
	}
}

// chosen are the seeds to run.
func chosen(t *testing.T) []uint64 {
	if one := os.Getenv("TIDEMARK_SEED"); one != "" {
		seed, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Repeat([]uint64{seed}, int(number(t, "TIDEMARK_TIMES", 1)))
	}
	n := uint64(seedsDefault)
	switch {
	case testing.Short():
		n = seedsShort
	case os.Getenv("CI") != "":
		n = seedsCI
	}
	first := number(t, "TIDEMARK_FIRST_SEED", 1)
	var seeds []uint64
	for seed := first; seed < first+number(t, "TIDEMARK_SEEDS", n); seed++ {
		seeds = append(seeds, seed)
	}
	return seeds
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// runWorker has a worker run seeds, and reports what it does not itself.
func runWorker(t *testing.T, seeds []string, all *totals) {
	o := runSeeds(t, os.Args[0], seeds)
	for i := range o.results {
		all.add(&o.results[i])
	}
	switch c := o.crash; {
	case c != nil:
		t.Errorf("seed %s breaks what may not break:\n  %s\n  trace: %s\n  again: TIDEMARK_SEED=%s go test ./test/sim -run TestSeeds\n%s", c.seed, c, c.keep(t), c.seed, o.said)
	case o.err != nil:
		t.Errorf("%v\n%s", o.err, o.said)
	}
}

// keep writes what is needed to understand a run.
func keep(t *testing.T, r *Result) {
	path := filepath.Join(artifacts(), fmt.Sprintf("sim-seed-%d", r.Seed))
	if err := r.Keep(path); err != nil {
		t.Error(err)
	}
	if len(r.Broken) == 0 {
		t.Log(r.Summary())
		return
	}
	t.Errorf("seed %d breaks what may not break:\n  %s\n  %s\n  trace and history: %s.*\n  again: TIDEMARK_SEED=%d go test ./test/sim -run TestSeeds",
		r.Seed, strings.Join(r.Broken, "\n  "), r.Summary(), path, r.Seed)
}

// artifacts is where traces are kept.
func artifacts() string {
	if dir := os.Getenv("TIDEMARK_ARTIFACTS"); dir != "" {
		return dir
	}
	return os.TempDir()
}

// totals sums up results.
type totals struct {
	mu sync.Mutex
	Result
	Seeds int
	With  map[string]int // seeds in which a thing counted happened at all
}

func newTotals() *totals {
	return &totals{Result: Result{Counts: make(map[string]int), Faults: make(map[string]int)}, With: make(map[string]int)}
}

func (a *totals) add(r *Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Seeds++
	a.Steps += r.Steps
	a.Fake += r.Fake
	for k, n := range r.Counts {
		a.Counts[k] += n
		a.With[k]++
	}
	for k, n := range r.Faults {
		a.Faults[k] += n
	}
}

// enough fails when the simulation did less than it is for: a world in which
// nothing is written or nothing goes wrong proves nothing.
func (a *totals) enough(t *testing.T) {
	for _, m := range mishaps {
		if a.Faults[m.kind] == 0 {
			t.Errorf("no seed had %q", m.kind)
		}
	}
	for _, fault := range []string{"lost", "refused", "ambiguous", "late", "twice", "throttled", "slow", "silent", "bit flipped", "truncated", "missed"} {
		if a.Faults[fault] == 0 {
			t.Errorf("no request was %s", fault)
		}
	}
	// Every other seed tiers and deletes all the time.
	for _, what := range []string{"shared segments written", "slots deleted"} {
		if a.With[what]*5 < a.Seeds*2 {
			t.Errorf("%s in %d of %d seeds", what, a.With[what], a.Seeds)
		}
	}
	for _, what := range []string{"own segments written", "shared segments deleted", "own segments deleted", "trims", "positions trimmed"} {
		if a.Counts[what] == 0 {
			t.Errorf("no %s", what)
		}
	}
	for _, what := range []string{"acks", "polls", "probes", "commits", "offset fetches", "wandered"} {
		if a.Counts[what] < a.Seeds {
			t.Errorf("%d %s in %d seeds", a.Counts[what], what, a.Seeds)
		}
	}
}
