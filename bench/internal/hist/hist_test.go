package hist

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketsCoverEverything(t *testing.T) {
	for _, v := range []uint64{0, 1, 255, 256, 257, 511, 512, 1 << 20, 1<<20 + 1, 1 << 40, math.MaxInt64} {
		i := index(v)
		if i < 0 || i >= buckets {
			t.Fatalf("index(%d) = %d of %d", v, i, buckets)
		}
		if upper(i) < v {
			t.Errorf("upper of the bucket of %d is %d", v, upper(i))
		}
		if i > 0 && upper(i-1) >= v {
			t.Errorf("%d belongs into an earlier bucket", v)
		}
		if over := float64(upper(i)-v) / math.Max(1, float64(v)); over > 1.0/128 {
			t.Errorf("bucket of %d ends %.4f above it", v, over)
		}
	}
	for i := range buckets {
		if got := index(upper(i)); got != i {
			t.Fatalf("upper of bucket %d lies in bucket %d", i, got)
		}
	}
}

// The answer is compared with a sorted list of the samples.
func TestQuantilesAgainstSortedSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 99, 100, 101, 5000} {
		var h H
		samples := make([]time.Duration, n)
		for i := range samples {
			samples[i] = time.Duration(math.Exp(rng.NormFloat64()*2+14)) * time.Nanosecond
			h.Record(samples[i])
		}
		slices.Sort(samples)
		for _, q := range []float64{0, .5, .9, .99, .999, 1} {
			rank := max(1, int(math.Ceil(q*float64(n)-1e-9)))
			want, got := samples[rank-1], h.Quantile(q)
			if got < want || float64(got) > float64(want)*(1+1.0/128) {
				t.Errorf("n=%d: quantile %v is %v, the sample is %v", n, q, got, want)
			}
		}
		if h.Max() != samples[n-1] || h.Quantile(1) != samples[n-1] || h.Count() != uint64(n) {
			t.Errorf("n=%d: max %v, count %d", n, h.Max(), h.Count())
		}
	}
}

func TestNearestRankOfSmallNumbers(t *testing.T) {
	var h H
	for i := 1; i <= 100; i++ {
		h.Record(time.Duration(i)) // every one exactly
	}
	for q, want := range map[float64]time.Duration{0: 1, .5: 50, .505: 51, .9: 90, .99: 99, .999: 100, 1: 100} {
		if got := h.Quantile(q); got != want {
			t.Errorf("quantile %v = %d, want %d", q, got, want)
		}
	}
	if h.Mean() != 50 {
		t.Errorf("mean %d", h.Mean())
	}
}

func TestMergeIsRecordingBoth(t *testing.T) {
	var a, b, both, empty H
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		both.Record(d)
		if i%3 == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Merge(&b)
	a.Merge(&empty)
	empty.Merge(&a)
	for _, h := range []*H{&a, &empty} {
		if h.Count() != both.Count() || h.Max() != both.Max() || h.Mean() != both.Mean() {
			t.Fatalf("count %d, max %v, mean %v", h.Count(), h.Max(), h.Mean())
		}
		for _, q := range []float64{.1, .5, .99} {
			if h.Quantile(q) != both.Quantile(q) {
				t.Errorf("quantile %v: %v and %v", q, h.Quantile(q), both.Quantile(q))
			}
		}
	}
}

func TestNothingAndNegative(t *testing.T) {
	var h H
	if h.Quantile(.5) != 0 || h.Mean() != 0 || h.Max() != 0 {
		t.Error("an empty histogram has figures")
	}
	h.Record(-time.Second)
	if h.Quantile(1) != 0 || h.Count() != 1 {
		t.Error("a negative sample is not 0")
	}
}
