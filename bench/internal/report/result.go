// Package report keeps what benchmarks measured and shows it: as JSON, which is
// the whole of it, as Markdown tables and as plots.
//
// A figure is a number with a name that is listed in figures.go. A cell of a
// table is the median over the rounds, with the least and the greatest in
// brackets; a ratio is the median of the ratios within each round, so that a
// busy moment touches both of its sides.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
)

// Result is one run of one workload.
type Result struct {
	Workload string    `json:"workload"`
	About    string    `json:"about"`
	Started  time.Time `json:"started"`
	Took     float64   `json:"took_seconds"`
	Host     Host      `json:"host"`
	Rounds   int       `json:"rounds"`
	Cases    []Case    `json:"cases"`
}

// Host is the machine that all of it ran on.
type Host struct {
	Cores   int     `json:"cores"`
	CPU     string  `json:"cpu"`
	Kernel  string  `json:"kernel"`
	Memory  float64 `json:"memory_bytes"`
	Loaded  float64 `json:"load_average"` // before the first round
	Version string  `json:"version"`      // of the tree measured
}

// Case is one side of the comparison.
type Case struct {
	Name      string        `json:"name"`
	System    string        `json:"system"`
	Simulated string        `json:"simulated,omitempty"` // what of it is not real
	Args      []string      `json:"args,omitempty"`
	Price     string        `json:"price,omitempty"`
	Load      workload.Load `json:"load"`
	Phases    []Phase       `json:"phases"`
}

// Phase is one phase of a case over all rounds.
type Phase struct {
	Name   workload.Phase     `json:"name"`
	Rounds []Figures          `json:"rounds"`
	Curves map[string][]Point `json:"curves,omitempty"` // latency by quantile, over all rounds
}

// Figures are numbers by name.
type Figures map[string]float64

// Point is a quantile and its latency.
type Point struct {
	Quantile float64 `json:"q"`
	Millis   float64 `json:"ms"`
}

// curveQuantiles are spaced evenly in nines.
var curveQuantiles = []float64{
	0, .1, .2, .3, .4, .5, .6, .7, .75, .8, .85, .9, .925, .95, .965, .98, .9875, .99, .995, .998, .999, .9995, .9998, .9999, 1,
}

// Curve is the quantiles of h.
func Curve(h *hist.H) []Point {
	if h.Count() == 0 {
		return nil
	}
	var points []Point
	for _, q := range curveQuantiles {
		points = append(points, Point{q, h.Quantile(q).Seconds() * 1000})
	}
	return points
}

// Latencies adds the quantiles of h under a name.
func (f Figures) Latencies(name string, h *hist.H) {
	if h.Count() == 0 {
		return
	}
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p99", .99}, {"p99.9", .999}, {"max", 1}} {
		f[name+" "+q.name] = h.Quantile(q.at).Seconds() * 1000
	}
}

// Write stores the result under dir by the workload's name.
func (r *Result) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Workload+".json"), append(out, '\n'), 0o644)
}

// ReadAll reads the results under dir, in the order of the workloads' names.
func ReadAll(dir string) ([]*Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []*Result
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		r := &Result{}
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fmt.Errorf("result %s: %w", path, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// fileName makes a case's or phase's name part of one.
func fileName(parts ...string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '/' || r == ',' {
			return '-'
		}
		return r
	}, strings.Join(parts, "-"))
}
