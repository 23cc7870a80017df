package report

import (
	"bytes"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
)

func sample(t *testing.T) *Result {
	t.Helper()
	var h hist.H
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	phase := func(rates ...float64) []Phase {
		p := Phase{Name: workload.Produce, Curves: map[string][]Point{"ack": Curve(&h)}}
		for _, r := range rates {
			f := Figures{Throughput: r}
			f.Latencies("ack", &h)
			p.Rounds = append(p.Rounds, f)
		}
		return []Phase{p}
	}
	return &Result{
		Workload: "example", About: "What it is.", Rounds: 3, Started: time.Unix(0, 0).UTC(),
		Cases: []Case{
			{Name: "ours", System: "file", Load: workload.Load{Compression: "none"}, Phases: phase(20, 30, 40)},
			{Name: "theirs", System: "kafka", Simulated: "the clock", Load: workload.Load{Compression: "zstd"}, Phases: phase(10, 60, 10)},
		},
	}
}

// The ratio is taken within each round: 2, 0.5 and 4 have the median 2, where
// the medians themselves would have given 3.
func TestRatiosAreTakenWithinRounds(t *testing.T) {
	var out bytes.Buffer
	if err := Markdown(&out, []*Result{sample(t)}, nil); err != nil {
		t.Fatal(err)
	}
	want := "| throughput | MB/s | 30.0 [20.0–40.0] | 10.0 [10.0–60.0] | **2.00×** |"
	if !strings.Contains(out.String(), want) {
		t.Errorf("no line %q in\n%s", want, out.String())
	}
	if !strings.Contains(out.String(), "**Simulated:** the clock") {
		t.Error("does not say what is simulated")
	}
	if !strings.Contains(out.String(), "| ack p99 | ms | 991") && !strings.Contains(out.String(), "| ack p99 | ms | 99") {
		t.Errorf("no latencies in\n%s", out.String())
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in                  []float64
		median, least, most float64
		ok                  bool
	}{
		{nil, 0, 0, 0, false},
		{[]float64{math.NaN()}, 0, 0, 0, false},
		{[]float64{3}, 3, 3, 3, true},
		{[]float64{4, 1, math.NaN()}, 2.5, 1, 4, true},
		{[]float64{9, 1, 5}, 5, 1, 9, true},
	} {
		m, l, g, ok := spread(c.in)
		if m != c.median || l != c.least || g != c.most || ok != c.ok {
			t.Errorf("%v: %v %v %v %v", c.in, m, l, g, ok)
		}
	}
	if r := ratios([]float64{1, 2}, []float64{0, 4}); !math.IsNaN(r[0]) || r[1] != .5 {
		t.Errorf("ratios %v", r)
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 1234.5: "1234", 12.34: "12.3", 1.234: "1.23", .05: "0.05", .00123: "0.0012"} {
		if got := number(in); got != want {
			t.Errorf("%v is written %s, not %s", in, got, want)
		}
	}
}

// Every figure that can be recorded has a row, once.
func TestEveryFigureHasARow(t *testing.T) {
	seen := make(map[string]int)
	for _, k := range kinds {
		seen[k.name]++
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s has %d rows", name, n)
		}
	}
}

func TestFilesAndPlots(t *testing.T) {
	dir := t.TempDir()
	r := sample(t)
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	all, err := ReadAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || !reflect.DeepEqual(all[0], r) {
		t.Errorf("read back %+v", all)
	}
	names, err := r.Plots(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 2 {
		t.Fatalf("plots %v", names)
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}
