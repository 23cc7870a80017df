package jitter

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRange(t *testing.T) {
	for _, n := range []time.Duration{-1, 0, 1} {
		if d := N(n); d != 0 {
			t.Errorf("N(%d) = %d", n, d)
		}
	}
}

// Moments a nanosecond or a second apart have unrelated draws, spread evenly.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []time.Duration{1, time.Microsecond, time.Second} {
			var buckets [10]int
			for range 10_000 {
				time.Sleep(step)
				buckets[N(time.Second)/(time.Second/10)]++
			}
			for i, n := range buckets {
				if n < 800 || n > 1200 {
					t.Errorf("step %v: %d of 10,000 in tenth %d", step, n, i)
				}
			}
		}
	})
}
