package run

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sys/unix"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/bench/internal/load"
	"github.com/tidemark-io/tidemark/bench/internal/price"
	"github.com/tidemark-io/tidemark/bench/internal/report"
	"github.com/tidemark-io/tidemark/bench/internal/target"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
)

const (
	gb = 1e9
	mb = 1e6
	// fullBuffer is what a broker under load puts into one object at least.
	fullBuffer = 4 << 20
)

// round does every phase of one round and keeps the figures.
func (s *side) round(ctx context.Context, w workload.Workload) error {
	s.now = newRound(len(w.Phases))
	from, err := s.session.Ends(ctx)
	if err != nil {
		return err
	}
	for i, p := range w.Phases {
		if err := s.quiet(ctx, w.Pause); err != nil {
			return err
		}
		f, err := s.phase(ctx, i, p, from)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		s.env.Logf("%s: %s %s: %s", w.Name, s.Name, p, brief(f))
		s.now.figures = append(s.now.figures, f)
	}
	s.split(w.Phases, s.now.figures)
	return nil
}

// quiet lets the machine come to rest, so that what one side has left for later
// is not done while the next is measured.
func (s *side) quiet(ctx context.Context, pause time.Duration) error {
	unix.Sync()
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// do is a phase without figures.
func (s *side) do(ctx context.Context, p workload.Phase, from kadm.ListedOffsets, d time.Duration) (*load.Result, error) {
	switch p {
	case workload.Produce:
		return s.session.Produce(ctx, d)
	case workload.Tail:
		return s.session.ProduceTail(ctx, d)
	default:
		return s.session.CatchUp(ctx, from)
	}
}

func (s *side) phase(ctx context.Context, i int, p workload.Phase, from kadm.ListedOffsets) (report.Figures, error) {
	if err := s.target.ResetPeak(); err != nil {
		return nil, err
	}
	before, err := s.target.Read()
	if err != nil {
		return nil, err
	}
	r, err := s.do(ctx, p, from, s.Load.Duration)
	if err != nil {
		return nil, err
	}
	after, err := s.target.Read()
	if err != nil {
		return nil, err
	}
	f := report.Figures{report.Throughput: float64(r.Bytes) / mb / r.Elapsed.Seconds()}
	used := after.Since(before)
	s.usage(f, r, used)
	peak, err := s.target.PeakRSS()
	if err != nil {
		return nil, err
	}
	s.set(f, report.PeakRSS, peak/(1<<20))
	s.set(f, report.IdleHeap, s.heap/1024)
	s.latencies(f, i, p, r)
	// The ceiling of PUTs is that of writing alone.
	if s.raw != nil && p != workload.CatchUp && !(p == workload.Tail && s.Load.Rate == 0) {
		if err := s.limits(ctx, f, i, r, used); err != nil {
			return nil, fmt.Errorf("raw limits: %w", err)
		}
	}
	return f, nil
}

// set records what was measured; 0 means that it could not be.
func (s *side) set(f report.Figures, name string, v float64) {
	if v != 0 {
		f[name] = v
	}
}

func (s *side) latencies(f report.Figures, i int, p workload.Phase, r *load.Result) {
	if p == workload.Tail {
		f[report.Delivered] = float64(r.Consumed*int64(s.Load.RecordSize)) / mb / r.Drained.Seconds()
	}
	if s.Load.Rate == 0 || p == workload.CatchUp {
		return // nobody chose when a record was due
	}
	for name, h := range map[string]*hist.H{"ack": &r.Ack, "end to end": &r.EndToEnd, "late": &r.Late} {
		f.Latencies(name, h)
		s.keep(i, name, h)
	}
	if p == workload.Tail {
		f[report.EndToEndExtra] = f["end to end p99"] - f["ack p99"]
	}
}

// keep notes a phase's latencies of this round.
func (s *side) keep(i int, name string, h *hist.H) { s.now.hists[i][name] = h }

// usage turns what was used into figures per GB of record values.
func (s *side) usage(f report.Figures, r *load.Result, used target.Usage) {
	per := func(name string, v float64) { s.set(f, name, v/(float64(r.Bytes)/gb)) }
	per(report.GeneratorCPU, used.GeneratorCPU)
	processes, tidemark := s.target.Known()
	if !processes {
		return
	}
	per(report.BrokerCPU, used.BrokerCPU)
	per(report.StoreCPU, used.StoreCPU)
	per(report.EtcdCPU, used.EtcdCPU)
	if !tidemark {
		return
	}
	f[report.AllocBytes] = used.AllocBytes / float64(r.Bytes)
	f[report.Allocs] = used.Allocs / (float64(r.Bytes) / float64(s.Load.RecordSize))
	per(report.Puts, used.Requests.Puts)
	per(report.Gets, used.Requests.Gets)
	per(report.EtcdRequests, used.EtcdRequests)
	s.set(f, report.PutRate, used.Requests.Puts/r.Elapsed.Seconds())
	if used.Requests.Puts > 0 {
		f[report.ObjectSize] = used.Requests.PutBytes / used.Requests.Puts / 1024
	}
	if used.ProxyRequests > 0 {
		f[report.Overruns] = used.ProxyOverruns / used.ProxyRequests * 100
	}
	if s.price != nil {
		per(report.Dollars, s.price.Dollars(used.Requests))
		s.calculated(f, r)
	}
}

// calculated adds what the settings say the requests should have been, for a
// steady load that is written and read from memory.
func (s *side) calculated(f report.Figures, r *load.Result) {
	spacing, budget, ok := flushSettings(s.Args)
	if !ok || r.Produced == 0 {
		return
	}
	rate := float64(r.Bytes) / r.Elapsed.Seconds()
	uploads := price.Uploads(rate, spacing, budget, fullBuffer)
	f[report.PutRateCalc] = uploads
	f[report.DollarsCalc] = s.price.Dollars(price.Requests{Puts: uploads, PutBytes: rate}) / (rate / gb)
}

// flushSettings finds the settings in a broker's arguments; ok if both are there.
func flushSettings(args []string) (spacing time.Duration, budget float64, ok bool) {
	value := func(name string) string {
		if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		for _, a := range args {
			if v, found := strings.CutPrefix(a, name+"="); found {
				return v
			}
		}
		return ""
	}
	spacing, err1 := time.ParseDuration(value("--flush-spacing"))
	budget, err2 := strconv.ParseFloat(value("--flush-budget"), 64)
	return spacing, budget, err1 == nil && err2 == nil
}

// split tells reading from writing where a round did both and writing alone:
// what a tail costs beyond a produce is reading.
func (s *side) split(phases []workload.Phase, done []report.Figures) {
	produce, tail := slices.Index(phases, workload.Produce), slices.Index(phases, workload.Tail)
	if produce < 0 || tail < 0 {
		return
	}
	in, ok := done[produce][report.BrokerCPU]
	both, ok2 := done[tail][report.BrokerCPU]
	if !ok || !ok2 {
		return
	}
	done[tail][report.BrokerCPUIn] = in
	done[tail][report.BrokerCPUOut] = (both - in) / float64(s.Load.Consumers)
}

// brief is a figure's worth of progress.
func brief(f report.Figures) string {
	out := fmt.Sprintf("%.1f MB/s", f[report.Throughput])
	for _, name := range []string{"ack p50", "ack p99", "end to end p99", "raw PUT p50", "raw PUT p99"} {
		if v, ok := f[name]; ok {
			out += fmt.Sprintf(", %s %.1f ms", name, v)
		}
	}
	for _, name := range []string{report.RawCeiling, report.BrokerCPU} {
		if v, ok := f[name]; ok {
			out += fmt.Sprintf(", %s %.2f", name, v)
		}
	}
	return out
}
