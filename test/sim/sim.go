package sim

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/test/checker"
)

// Result is the outcome of one seed.
type Result struct {
	Seed   uint64
	Broken []string // the rules that were broken, and by what
	Counts map[string]int
	Faults map[string]int
	Steps  int           // calls released
	Fake   time.Duration // time that passed in the world

	trace   *trace
	history *checker.History
}

// Keep writes the trace and the clients' history to files whose names begin
// with path.
func (r *Result) Keep(path string) error {
	f, err := os.Create(path + ".trace")
	if err != nil {
		return err
	}
	err = r.trace.write(f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return r.history.WriteFile(path + ".history.jsonl")
}

// Summary is a line about the run.
func (r *Result) Summary() string {
	return fmt.Sprintf("%d calls released in %v; %s; faults: %s", r.Steps, r.Fake.Round(time.Second), text(r.Counts), text(r.Faults))
}

// text lists counts by name.
func text(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(out, ", ")
}

// Run simulates one seed. It must be called in a bubble of testing/synctest, and
// returns when nothing of the world is left running. The trace is written to
// memory, unless that is nil, and the Result refers to it.
func Run(seed uint64, memory []byte) *Result {
	w := newWorld(seed, forecast(seed), newTrace(memory))
	w.judge = newJudge(w)
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.direct()
	}()
	w.run(over)
	_ = w.etcd.Close()
	broken := w.judge.verdict(hosts(w.weather.brokers))
	return &Result{Seed: seed, Broken: broken, Counts: w.judge.counts, Faults: w.faults, Steps: w.released, Fake: w.now(), trace: w.trace, history: w.judge.history}
}
