package report

import (
	"fmt"
	"math"
	"slices"
)

// kind is one figure's place in the tables.
type kind struct {
	name   string
	unit   string
	better int // 1: more is better; -1: less is; 0: neither is said
}

// Names of the figures, each an entry of kinds.
const (
	Throughput    = "throughput"
	Delivered     = "delivered"
	BrokerCPU     = "broker processor"
	StoreCPU      = "store processor"
	EtcdCPU       = "etcd processor"
	GeneratorCPU  = "generator processor"
	BrokerCPUIn   = "broker processor of writing"
	BrokerCPUOut  = "broker processor of reading"
	AllocBytes    = "broker allocations"
	Allocs        = "broker allocated objects"
	PeakRSS       = "broker peak memory"
	IdleHeap      = "live heap per partition"
	Puts          = "PUTs"
	Gets          = "GETs"
	ObjectSize    = "mean object"
	PutRate       = "PUT rate"
	PutRateCalc   = "PUT rate, calculated"
	Dollars       = "requests and transfer"
	DollarsCalc   = "requests, calculated"
	EtcdRequests  = "etcd requests"
	RawCeiling    = "raw PUT ceiling"
	ShareOfRaw    = "throughput of raw PUTs"
	RawRatio50    = "ack p50 of raw PUT"
	RawRatio99    = "ack p99 of raw PUT"
	EndToEndExtra = "end to end p99 beyond ack p99"
	EtcdRate      = "raw etcd, 16 at once"
	Overruns      = "store slower than its model"
)

// kinds is the order of the rows.
var kinds = slices.Concat(
	[]kind{{Throughput, "MB/s", 1}, {Delivered, "MB/s", 1}},
	latency("ack"), latency("end to end"),
	[]kind{{EndToEndExtra, "ms", 0}},
	[]kind{{"late p50", "ms", 0}, {"late p99", "ms", 0}},
	latency("raw PUT"),
	[]kind{{RawRatio50, "×", -1}, {RawRatio99, "×", -1}, {RawCeiling, "MB/s", 0}, {ShareOfRaw, "%", 1}},
	[]kind{{"raw GET p50", "ms", 0}, {"raw GET p99", "ms", 0}, {"raw etcd p50", "ms", 0}, {"raw etcd p99", "ms", 0}, {EtcdRate, "/s", 0}},
	[]kind{
		{BrokerCPU, "s/GB", -1}, {BrokerCPUIn, "s/GB in", -1}, {BrokerCPUOut, "s/GB out", -1},
		{StoreCPU, "s/GB", 0}, {EtcdCPU, "s/GB", 0}, {GeneratorCPU, "s/GB", 0},
		{AllocBytes, "B/B", -1}, {Allocs, "/record", -1}, {PeakRSS, "MiB", -1}, {IdleHeap, "KiB", -1},
		{ObjectSize, "KiB", 0}, {PutRate, "/s", 0}, {PutRateCalc, "/s", 0}, {Puts, "/GB", 0}, {Gets, "/GB", 0}, {EtcdRequests, "/GB", 0},
		{Dollars, "$/GB", -1}, {DollarsCalc, "$/GB", 0}, {Overruns, "%", 0},
	},
)

func latency(of string) []kind {
	better := -1
	if of == "raw PUT" {
		better = 0
	}
	return []kind{{of + " p50", "ms", better}, {of + " p99", "ms", better}, {of + " p99.9", "ms", 0}, {of + " max", "ms", 0}}
}

// over is one figure of a phase in every round; NaN where a round lacks it.
func (p Phase) over(name string) []float64 {
	var values []float64
	found := false
	for _, f := range p.Rounds {
		v, ok := f[name]
		if !ok {
			v = math.NaN()
		}
		found = found || ok
		values = append(values, v)
	}
	if !found {
		return nil
	}
	return values
}

// spread is the median, least and greatest of what is a number.
func spread(values []float64) (median, least, most float64, ok bool) {
	sorted := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(sorted) == 0 {
		return 0, 0, 0, false
	}
	slices.Sort(sorted)
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1], true
}

// ratios is a over b, round by round.
func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = math.NaN()
		if b[i] != 0 {
			out[i] = a[i] / b[i]
		}
	}
	return out
}

// number writes v with about three digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= .01:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}

func cell(values []float64) string {
	median, least, most, ok := spread(values)
	switch {
	case !ok:
		return ""
	case len(values) == 1 || number(least) == number(most):
		return number(median)
	default:
		return fmt.Sprintf("%s [%s–%s]", number(median), number(least), number(most))
	}
}
