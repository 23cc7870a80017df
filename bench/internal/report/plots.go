package report

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

const (
	plotWidth  = 9 * vg.Inch
	plotHeight = 4.5 * vg.Inch
	barWidth   = 24 // points
)

// Plots draws a result into dir and returns the names of the files.
func (r *Result) Plots(dir string) ([]string, error) {
	var names []string
	for _, draw := range []func(string) ([]string, error){r.latencyPlots, r.barPlots} {
		n, err := draw(dir)
		if err != nil {
			return nil, fmt.Errorf("plots of %s: %w", r.Workload, err)
		}
		names = append(names, n...)
	}
	return names, nil
}

// latencyPlots are one plot for each phase that has latencies: quantiles in
// nines against milliseconds, both logarithmic.
func (r *Result) latencyPlots(dir string) ([]string, error) {
	var names []string
	for i, phase := range r.Cases[0].Phases {
		p := plot.New()
		p.Title.Text = fmt.Sprintf("%s: %s, latency by quantile, all rounds", r.Workload, phase.Name)
		p.X.Label.Text, p.Y.Label.Text = "quantile", "milliseconds"
		p.X.Tick.Marker = plot.ConstantTicks(nines)
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.Title.Padding, p.Legend.YOffs = vg.Points(6), vg.Points(6) // below right: quantiles rise
		lines := 0
		for _, c := range r.Cases {
			n, err := addCurves(p, c.Name, c.Phases[i].Curves, lines)
			if err != nil {
				return nil, err
			}
			lines += n
		}
		if lines == 0 {
			continue
		}
		p.Add(plotter.NewGrid())
		name := fileName(r.Workload, string(phase.Name), "latency") + ".png"
		if err := p.Save(plotWidth, plotHeight, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func addCurves(p *plot.Plot, name string, curves map[string][]Point, from int) (int, error) {
	n := 0
	for _, what := range []string{"ack", "end to end", "raw PUT"} {
		points := xys(curves[what])
		if len(points) == 0 {
			continue
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return 0, err
		}
		line.Color, line.Dashes, line.Width = plotutil.Color(from+n), plotutil.Dashes(from+n), vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(name+", "+what, line)
		n++
	}
	return n, nil
}

// nines are the ticks of a quantile axis.
var nines = []plot.Tick{
	{Value: 0, Label: "0"}, {Value: inNines(.5), Label: "50 %"}, {Value: 1, Label: "90 %"}, {Value: 2, Label: "99 %"},
	{Value: 3, Label: "99.9 %"}, {Value: 4, Label: "99.99 %"},
}

func inNines(q float64) float64 { return -math.Log10(1 - q) }

// xys leaves out the maximum, which lies infinitely many nines away, and what a
// logarithmic axis cannot show.
func xys(points []Point) plotter.XYs {
	var out plotter.XYs
	for _, p := range points {
		if p.Quantile < 1 && p.Millis > 0 {
			out = append(out, plotter.XY{X: inNines(p.Quantile), Y: p.Millis})
		}
	}
	return out
}

// barPlots show throughput and processor time by phase.
func (r *Result) barPlots(dir string) ([]string, error) {
	var names []string
	for _, what := range []struct{ figure, unit string }{{Throughput, "MB/s"}, {BrokerCPU, "seconds per GB"}} {
		if what.figure == Throughput && r.Cases[0].Load.Rate > 0 {
			continue // it was chosen
		}
		p := plot.New()
		p.Title.Text = fmt.Sprintf("%s: %s, median of %d rounds", r.Workload, what.figure, r.Rounds)
		p.Y.Label.Text, p.Y.Min = what.unit, 0
		p.Legend.Top = true
		drawn := false
		for i, c := range r.Cases {
			values := c.medians(what.figure)
			drawn = drawn || slices.Max(values) > 0
			bars, err := plotter.NewBarChart(values, vg.Points(barWidth))
			if err != nil {
				return nil, err
			}
			bars.Color, bars.LineStyle.Width = plotutil.Color(i), 0
			bars.Offset = vg.Points(barWidth * (float64(i) - float64(len(r.Cases)-1)/2))
			p.Add(bars)
			p.Legend.Add(c.Name, bars)
		}
		if !drawn {
			continue
		}
		var phases []string
		for _, ph := range r.Cases[0].Phases {
			phases = append(phases, string(ph.Name))
		}
		p.NominalX(phases...)
		p.X.Min, p.X.Max = -.5, float64(len(phases))-.5
		p.Title.Padding = vg.Points(6)
		p.Y.Max *= 1.25 // room for the legend
		name := fileName(r.Workload, what.figure) + ".png"
		if err := p.Save(plotWidth, plotHeight, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// medians is a figure by phase; 0 where a phase has none.
func (c Case) medians(name string) plotter.Values {
	var out plotter.Values
	for _, p := range c.Phases {
		m, _, _, _ := spread(p.over(name))
		out = append(out, m)
	}
	return out
}
