// Package hist counts durations in a fixed amount of memory and answers for
// their quantiles.
//
// A duration below 256 ns has a bucket of its own; above, every power of two is
// divided into 128 buckets, so that a quantile is at most 1/128 (0.8 %) above
// the sample it stands for, at any magnitude, and never below it. The largest
// sample is kept exactly.
package hist

import (
	"math"
	"math/bits"
	"time"
)

const (
	subBits = 7 // 128 buckets for each power of two
	exact   = 1 << (subBits + 1)
	buckets = exact + (63-subBits-1)<<subBits
)

// H is a histogram. The zero value is empty and ready; it is not safe for
// concurrent use.
type H struct {
	counts []uint64
	n      uint64
	sum    float64
	max    time.Duration
}

// Record counts d; what is negative counts as 0.
func (h *H) Record(d time.Duration) {
	d = max(d, 0)
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
	}
	h.counts[index(uint64(d))]++
	h.n++
	h.sum += float64(d)
	h.max = max(h.max, d)
}

// Merge adds what o counted.
func (h *H) Merge(o *H) {
	if o.n == 0 {
		return
	}
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
	}
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Count is the number of samples.
func (h *H) Count() uint64 { return h.n }

// Max is the largest sample, exactly.
func (h *H) Max() time.Duration { return h.max }

// Mean is the mean of all samples, not of buckets.
func (h *H) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile is the smallest duration that at least a share q of the samples does
// not exceed: the nearest-rank quantile, rounded up to the end of its bucket.
func (h *H) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	// A rank is a whole number; q·n may miss it by a rounding error.
	rank := uint64(math.Ceil(q*float64(h.n) - 1e-9))
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return h.max
}

// index is the bucket of v.
func index(v uint64) int {
	if v < exact {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return exact + (shift-1)<<subBits + int(v>>shift) - exact/2
}

// upper is the largest value in bucket i.
func upper(i int) uint64 {
	if i < exact {
		return uint64(i)
	}
	i -= exact
	shift := i>>subBits + 1
	return (uint64(i&(1<<subBits-1)+exact/2)+1)<<shift - 1
}
