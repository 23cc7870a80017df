package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// figure is one measured line.
type figure struct {
	Scenario string  `json:"scenario"`
	What     string  `json:"what"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Aim      string  `json:"aim,omitempty"`
}

type figures []figure

func (f *figures) add(scenario, what string, value float64, unit, aim string) {
	*f = append(*f, figure{scenario, what, value, unit, aim})
}

// latencies adds the percentiles of samples and returns p50 and p99.
func (f *figures) latencies(scenario, what string, samples []time.Duration) (p50, p99 float64) {
	sorted := slices.Sorted(slices.Values(samples))
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}, {"max", 1}} {
		f.add(scenario, what+" "+q.name, percentile(sorted, q.at).Seconds()*1000, "ms", "")
	}
	return percentile(sorted, .5).Seconds(), percentile(sorted, .99).Seconds()
}

// percentile is the smallest sample that a share q of all does not exceed.
func percentile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}

func (f figures) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tFIGURE\tVALUE\tUNIT\tAIM")
	for _, l := range f {
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%s\t%s\n", l.Scenario, l.What, l.Value, l.Unit, l.Aim)
	}
	t.Flush()
}
