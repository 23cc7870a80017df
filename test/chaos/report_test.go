package chaos

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

// long tells whether the long forms were asked for.
func long() bool { return os.Getenv("TIDEMARK_CHAOS") == "long" }

// pick is the short form's value, or the long form's.
func pick[V any](short, longer V) V {
	if long() {
		return longer
	}
	return short
}

// mixDuration is how long the mixed scenario goes on in the long form.
func mixDuration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("TIDEMARK_CHAOS_DURATION")
	if text == "" {
		return 30 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TIDEMARK_CHAOS_DURATION: %v", err)
	}
	return d
}

func commit(t *testing.T) string {
	out, err := exec.Command("git", "-C", harness.Root(t), "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// rotation is a number that changes from commit to commit: what a short form
// leaves out is run by a later one.
func rotation(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("TIDEMARK_ROTATE"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("TIDEMARK_ROTATE: %v", err)
		}
		return n
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(commit(t)))
	return int(h.Sum32() >> 1)
}

// rotate picks n of the items in the short form, others at other commits; the
// long form has them all.
func rotate[V any](t *testing.T, items []V, n int) []V {
	t.Helper()
	if long() || n >= len(items) {
		return items
	}
	var out []V
	for i := range n {
		out = append(out, items[(rotation(t)*n+i)%len(items)])
	}
	return out
}

// figures are what a scenario measured, by name.
type figures map[string]any

// report prints figures, and appends them to the results file if there is one.
func (r *rig) report(what string, f figures) {
	report(r.t, r.name, what, r.seed, time.Since(r.begun), f)
}

func report(t *testing.T, scenario, what string, seed uint64, took time.Duration, f figures) {
	t.Helper()
	var text []string
	for _, k := range slices.Sorted(maps.Keys(f)) {
		text = append(text, fmt.Sprintf("%s %v", k, f[k]))
	}
	t.Logf("figure: %s %s: %s", scenario, what, strings.Join(text, ", "))
	path := os.Getenv("TIDEMARK_RESULTS")
	if path == "" {
		return
	}
	line, err := json.Marshal(map[string]any{
		"date": time.Now().UTC().Format(time.RFC3339), "commit": commit(t), "test": t.Name(), "scenario": scenario,
		"figure": what, "values": f, "seed": seed, "seconds": int(took.Seconds()), "failed": t.Failed(),
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// openHistory begins the history, in a file that outlives a test that fails.
func (r *rig) openHistory() {
	r.t.Helper()
	h, done, err := checker.CreateHistory(harness.Keep(r.t, "history.jsonl"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.history, r.closeHistory = h, sync.OnceValue(done)
	r.t.Cleanup(func() { _ = r.closeHistory() })
}

// gap is the longest stretch between two times that none of at falls in.
func gap(from, to time.Time, at []time.Time) time.Duration {
	slices.SortFunc(at, time.Time.Compare)
	last, longest := from, time.Duration(0)
	for _, a := range append(at, to) {
		longest = max(longest, a.Sub(last))
		last = a
	}
	return longest
}

// milli makes durations readable.
func milli(d time.Duration) string { return d.Round(time.Millisecond).String() }
