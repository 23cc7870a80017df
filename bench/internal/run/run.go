// Package run carries a workload out: it starts the systems, alternates the
// rounds between them and turns what was seen and used into figures.
package run

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/bench/internal/load"
	"github.com/tidemark-io/tidemark/bench/internal/price"
	"github.com/tidemark-io/tidemark/bench/internal/raw"
	"github.com/tidemark-io/tidemark/bench/internal/report"
	"github.com/tidemark-io/tidemark/bench/internal/s3model"
	"github.com/tidemark-io/tidemark/bench/internal/target"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
)

// Env is what runs need beside their workload.
type Env struct {
	Models    map[string]s3model.Model
	Prices    map[string]price.Table
	Bootstrap []string // of external systems
	Profiles  string   // directory for CPU profiles; empty: none
	Version   string   // of the tree
	Logf      func(format string, args ...any)
}

// side is one case while it runs.
type side struct {
	workload.Case
	env     Env
	target  *target.Target
	session *load.Session
	raw     *raw.Store // nil unless asked for
	price   *price.Table
	heap    float64 // per partition; 0 unless measured
	phases  []report.Phase
	hists   []map[string]*hist.H // of each phase, over all rounds that are complete
	now     roundOf
}

// roundOf is what a round has measured so far. It counts once every case is
// through, so that all of them have as many.
type roundOf struct {
	figures []report.Figures // of each phase
	hists   []map[string]*hist.H
}

func newRound(phases int) roundOf {
	r := roundOf{hists: make([]map[string]*hist.H, phases)}
	for i := range r.hists {
		r.hists[i] = make(map[string]*hist.H)
	}
	return r
}

// complete keeps the round.
func (s *side) complete() {
	for i, f := range s.now.figures {
		s.phases[i].Rounds = append(s.phases[i].Rounds, f)
		for name, h := range s.now.hists[i] {
			if s.hists[i][name] == nil {
				s.hists[i][name] = &hist.H{}
			}
			s.hists[i][name].Merge(h)
		}
	}
}

// Run measures a workload with servers of its own, which are gone afterwards.
// With an error there may still be a result, of the rounds that were complete.
func Run(ctx context.Context, w workload.Workload, env Env) (*report.Result, error) {
	h := &target.Host{}
	var result *report.Result
	err := h.Run(func() (err error) {
		result, err = run(ctx, h, w, env)
		return err
	})
	if err != nil {
		return result, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return result, nil
}

func run(ctx context.Context, h *target.Host, w workload.Workload, env Env) (*report.Result, error) {
	result := &report.Result{Workload: w.Name, About: w.About, Started: time.Now().UTC(), Rounds: w.Rounds, Host: host(env.Version)}
	var sides []*side
	defer func() {
		for _, s := range sides {
			s.close(ctx)
		}
	}()
	for _, c := range w.Cases {
		env.Logf("%s: starting %s", w.Name, c.Name)
		s, err := start(ctx, h, c, w.Phases, env)
		if err != nil {
			return nil, fmt.Errorf("case %s: %w", c.Name, err)
		}
		sides = append(sides, s)
	}
	for _, s := range sides {
		if err := s.warmUp(ctx, w.Phases); err != nil {
			return nil, fmt.Errorf("case %s: warm-up: %w", s.Name, err)
		}
	}
	complete, failed := rounds(ctx, w, sides)
	if complete == 0 {
		return nil, failed
	}
	result.Rounds = complete
	for _, s := range sides {
		result.Cases = append(result.Cases, s.result())
	}
	result.Took = time.Since(result.Started).Seconds()
	if failed != nil || env.Profiles == "" {
		return result, failed
	}
	for _, s := range sides {
		if err := s.profile(ctx, w); err != nil {
			return result, fmt.Errorf("case %s: profile: %w", s.Name, err)
		}
	}
	return result, nil
}

// close ends the clients, and leaves nothing behind where others live on.
func (s *side) close(ctx context.Context) {
	if processes, _ := s.target.Known(); !processes {
		if err := s.session.Drop(context.WithoutCancel(ctx)); err != nil {
			s.env.Logf("%s: %v", s.Name, err)
		}
	}
	s.session.Close()
}

// rounds returns how many were complete.
func rounds(ctx context.Context, w workload.Workload, sides []*side) (int, error) {
	for round := range w.Rounds {
		for _, s := range inTurn(sides, round) {
			if err := s.round(ctx, w); err != nil {
				return round, fmt.Errorf("case %s: round %d: %w", s.Name, round+1, err)
			}
		}
		for _, s := range sides {
			s.complete()
		}
	}
	return w.Rounds, nil
}

// inTurn is the order of a round: every other round goes backwards, so that no
// side always comes after the same other.
func inTurn(sides []*side, round int) []*side {
	order := slices.Clone(sides)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

func start(ctx context.Context, h *target.Host, c workload.Case, phases []workload.Phase, env Env) (s *side, err error) {
	s = &side{Case: c, env: env}
	defer func() {
		if err != nil && s.session != nil {
			s.session.Close()
		}
	}()
	if s.target, err = target.Start(h, c, env.Models, env.Bootstrap); err != nil {
		return s, err
	}
	if name := s.priceName(); name != "" {
		table, ok := env.Prices[name]
		if !ok {
			return s, fmt.Errorf("no price table %q", name)
		}
		s.price = &table
	}
	before, err := s.target.LiveHeap(ctx)
	if err != nil {
		return s, err
	}
	name := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	if s.session, err = load.Open(ctx, s.target.Seeds, c.Load, name); err != nil {
		return s, err
	}
	if err := s.session.CreateIdle(ctx, name+"-idle"); err != nil {
		return s, err
	}
	if err := s.partitionHeap(ctx, before); err != nil {
		return s, err
	}
	if store := s.target.Raw(); store != nil {
		s.raw = raw.NewStore(store, name)
	}
	for _, p := range phases {
		s.phases = append(s.phases, report.Phase{Name: p})
		s.hists = append(s.hists, make(map[string]*hist.H))
	}
	return s, nil
}

// manyPartitions is from how many on the heap says what one of them takes.
const manyPartitions = 1000

func (s *side) partitionHeap(ctx context.Context, before float64) error {
	n := s.Load.Topics*s.Load.Partitions + s.Load.Idle
	if _, tidemark := s.target.Known(); !tidemark || n < manyPartitions {
		return nil
	}
	after, err := s.target.LiveHeap(ctx)
	s.heap = (after - before) / float64(n)
	return err
}

// priceName is the table to count by: the case's own, or its model's.
func (s *side) priceName() string {
	if s.Price == "" && s.Model != "" {
		return s.env.Models[s.Model].Price
	}
	return s.Price
}

// warmUp does every phase once and forgets what it saw.
func (s *side) warmUp(ctx context.Context, phases []workload.Phase) error {
	if s.Load.WarmUp == 0 {
		return nil
	}
	from, err := s.session.Ends(ctx)
	if err != nil {
		return err
	}
	for _, p := range phases {
		if _, err := s.do(ctx, p, from, s.Load.WarmUp); err != nil {
			return err
		}
	}
	return nil
}

// profile does every phase once more, with the profiler running.
func (s *side) profile(ctx context.Context, w workload.Workload) error {
	from, err := s.session.Ends(ctx)
	if err != nil {
		return err
	}
	for _, p := range w.Phases {
		s.env.Logf("%s: %s %s, with the profiler", w.Name, s.Name, p)
		path := filepath.Join(s.env.Profiles, fmt.Sprintf("%s-%s-%s.prof", w.Name, s.Name, p))
		done := make(chan error, 1)
		profiling, stop := context.WithCancel(ctx)
		go func() { done <- s.target.Profile(profiling, profileTime(p, s.Load.Duration), path) }()
		_, err := s.do(ctx, p, from, s.Load.Duration)
		if err != nil {
			stop()
		}
		perr := <-done
		stop()
		if err != nil {
			return err
		}
		if perr != nil {
			return perr
		}
	}
	return nil
}

// profileTime is how long a phase lasts at least; a catch-up may be short.
func profileTime(p workload.Phase, d time.Duration) time.Duration {
	if p == workload.CatchUp {
		return 2 * time.Second
	}
	return d
}

func (s *side) result() report.Case {
	c := report.Case{Name: s.Name, System: s.System, Args: s.Args, Load: s.Load, Price: s.priceName(), Phases: s.phases}
	if s.Model != "" {
		m := s.env.Models[s.Model]
		c.Simulated = fmt.Sprintf("the store's latency, model %s (small PUT %v median, %v p99; GET %v, %v) before a MinIO on this machine",
			m.Name, m.Put.Median, m.Put.P99, m.Get.Median, m.Get.P99)
	}
	for i := range c.Phases {
		c.Phases[i].Curves = make(map[string][]report.Point)
		for name, h := range s.hists[i] {
			if points := report.Curve(h); points != nil {
				c.Phases[i].Curves[name] = points
			}
		}
	}
	return c
}
