package run

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/bench/internal/price"
	"github.com/tidemark-io/tidemark/bench/internal/report"
	"github.com/tidemark-io/tidemark/bench/internal/s3model"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
	"github.com/tidemark-io/tidemark/test/harness"
)

func TestOrderOfRounds(t *testing.T) {
	a, b, c := &side{}, &side{}, &side{}
	sides := []*side{a, b, c}
	if o := inTurn(sides, 0); o[0] != a || o[2] != c {
		t.Error("the first round does not begin with the first case")
	}
	if o := inTurn(sides, 1); o[0] != c || o[2] != a {
		t.Error("the second round does not go backwards")
	}
	if sides[0] != a {
		t.Error("the cases themselves were reordered")
	}
}

// A round counts once all of its phases are there, with their latencies.
func TestRoundsCountWhenComplete(t *testing.T) {
	s := &side{phases: make([]report.Phase, 1), hists: []map[string]*hist.H{{}}}
	for n := 1; n <= 2; n++ {
		s.now = newRound(1)
		h := &hist.H{}
		h.Record(time.Duration(n))
		s.keep(0, "ack", h)
		if len(s.phases[0].Rounds) != n-1 || s.hists[0]["ack"] != nil && s.hists[0]["ack"].Count() != uint64(n-1) {
			t.Fatalf("round %d counts before it is complete", n)
		}
		s.now.figures = []report.Figures{{report.Throughput: float64(n)}}
		s.complete()
	}
	if len(s.phases[0].Rounds) != 2 || s.hists[0]["ack"].Count() != 2 || s.hists[0]["ack"].Max() != 2 {
		t.Errorf("%v, %d latencies", s.phases[0].Rounds, s.hists[0]["ack"].Count())
	}
}

func TestFlushSettings(t *testing.T) {
	for _, args := range [][]string{{"--flush-spacing", "25ms", "--flush-budget", "10"}, {"--flush-budget=10", "--flush-spacing=25ms"}} {
		spacing, budget, ok := flushSettings(args)
		if !ok || spacing != 25*time.Millisecond || budget != 10 {
			t.Errorf("%v: %v %v %v", args, spacing, budget, ok)
		}
	}
	for _, args := range [][]string{nil, {"--flush-spacing"}, {"--flush-budget", "10"}} {
		if _, _, ok := flushSettings(args); ok {
			t.Errorf("%v: settings were found", args)
		}
	}
}

// What a tail costs beyond a produce is reading, a consumer.
func TestReadingIsToldFromWriting(t *testing.T) {
	s := &side{Case: workload.Case{Load: workload.Load{Consumers: 4}}}
	done := []report.Figures{{report.BrokerCPU: 2}, {report.BrokerCPU: 5}}
	s.split([]workload.Phase{workload.Produce, workload.Tail}, done)
	if done[1][report.BrokerCPUIn] != 2 || done[1][report.BrokerCPUOut] != .75 {
		t.Errorf("%v", done[1])
	}
	s.split([]workload.Phase{workload.Tail}, done) // nothing to compare with
}

// One round of everything, with real servers.
func TestRunsForReal(t *testing.T) {
	harness.System(t)
	harness.Binary(t)
	harness.Tool(t, "minio")
	env := Env{Logf: t.Logf, Profiles: t.TempDir(), Version: "test"}
	var err error
	if env.Prices, err = price.Parse(read(t, "../../prices.yaml")); err != nil {
		t.Fatal(err)
	}
	if env.Models, err = s3model.Parse(read(t, "../../s3models.yaml")); err != nil {
		t.Fatal(err)
	}
	w, err := workload.Parse([]byte(`
name: everything
rounds: 1
pause: 10ms
phases: [produce, tail, catch-up]
partitions: 4
rate-mb: 1
duration: 1s
warm-up: 200ms
cases:
  - {name: files, system: file, raw: true}
  - {name: express, system: minio, model: s3-express, raw: true, args: [--flush-spacing, 2ms, --flush-budget, "0"]}
  - {name: flood, system: minio, raw: true, rate-mb: 0, price: s3-standard}
`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), w, env)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cases {
		for _, p := range c.Phases {
			checkPhase(t, c, p)
		}
	}
	if profiles, err := filepath.Glob(filepath.Join(env.Profiles, "*.prof")); err != nil || len(profiles) != 9 {
		t.Errorf("profiles %v, %v", profiles, err)
	}
}

func checkPhase(t *testing.T, c report.Case, p report.Phase) {
	t.Helper()
	f := p.Rounds[0]
	want := []string{report.Throughput, report.GeneratorCPU, report.PeakRSS}
	paced := c.Load.Rate > 0 && p.Name != workload.CatchUp
	if paced {
		want = append(want, "ack p50", "ack p99", "raw PUT p50", report.RawRatio50)
	}
	if paced && p.Name == workload.Tail {
		want = append(want, "end to end p99", report.Delivered)
	}
	if !paced && p.Name == workload.Produce {
		want = append(want, report.RawCeiling, report.ShareOfRaw, report.Dollars)
	}
	if c.Simulated != "" && p.Name == workload.Produce {
		want = append(want, report.Dollars, report.DollarsCalc)
		// The median of the model's PUT is a floor.
		if f["ack p50"] < 6 {
			t.Errorf("%s: acknowledged after %v ms, before the simulated store", c.Name, f["ack p50"])
		}
	}
	for _, name := range want {
		if v, ok := f[name]; !ok || !(v > 0) || math.IsInf(v, 0) {
			t.Errorf("%s %s: %s is %v", c.Name, p.Name, name, v)
		}
	}
	// A busy machine acknowledges the last records late, but nobody sends more.
	if rate := f[report.Throughput]; paced && (rate < .2 || rate > 1.05) {
		t.Errorf("%s %s: %v MB/s of 1 that was asked for", c.Name, p.Name, rate)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
