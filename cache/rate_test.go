package cache

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Loads of half a chunk each keep to the bandwidth, and an idle time saves up
// nothing for later.
func TestLoadsKeepToTheBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{ChunkBytes: 1 << 20, LoadBytesPerSecond: 5 << 20})
		defer c.Close()
		s := &store{size: 512 << 10}
		for round := range 2 {
			time.Sleep(time.Hour)
			begin := time.Now()
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					if err := s.read(t.Context(), c, "k", int64(100*round+i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if took := time.Since(begin); took < 9*time.Second || took > 12*time.Second {
				t.Errorf("50 MiB at 5 MiB/s took %v", took)
			}
		}
	})
}

func TestBandwidthOfThoseWhoGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRate(1000)
		if err := r.wait(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if r.wait(ctx, 1e6) == nil {
			t.Fatal("a second was not waited for")
		}
		begin := time.Now()
		if err := r.wait(t.Context(), 1); err != nil || time.Since(begin) > time.Second {
			t.Errorf("%v, %v behind one that gave up", err, time.Since(begin))
		}
	})
}
