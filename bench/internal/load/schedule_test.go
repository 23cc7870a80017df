package load

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
)

func TestProducersShareTheRateEvenly(t *testing.T) {
	start := time.Unix(1000, 0)
	seen := make(map[time.Duration]int)
	for p := range 4 {
		s := schedule{start: start, perSecond: 1000, producer: p, producers: 4}
		for i := range 250 {
			seen[s.due(i).Sub(start)]++
		}
	}
	for i := range 1000 {
		if at := time.Duration(i) * time.Millisecond; seen[at] != 1 {
			t.Fatalf("%d records due at %v", seen[at], at)
		}
	}
}

// Rounding does not add up over an hour.
func TestScheduleDoesNotDrift(t *testing.T) {
	s := schedule{start: time.Unix(0, 0), perSecond: 976.5625, producers: 3}
	n := int(976.5625 * 3600 / 3)
	if off := s.due(n).Sub(time.Unix(3600, 0)); off < -time.Millisecond || off > time.Millisecond {
		t.Errorf("after an hour off by %v", off)
	}
}

// A server that stops for a second in ten delays every record that was due
// meanwhile. Measured from the sends, one record of a thousand would look slow;
// from when they were due, a tenth of them was.
func TestAStallIsSeenByAllItDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := schedule{start: start, perSecond: 100, producers: 1}
		var fromDue, fromSend hist.H
		stalled := false
		err := s.pace(context.Background(), start.Add(10*time.Second), func(due time.Time) {
			sent := time.Now()
			if !stalled && sent.Sub(start) >= 5*time.Second {
				stalled = true
				time.Sleep(time.Second)
			}
			time.Sleep(time.Microsecond) // the service time
			fromDue.Record(time.Since(due))
			fromSend.Record(time.Since(sent))
		})
		if err != nil {
			t.Fatal(err)
		}
		if fromDue.Count() != 1000 {
			t.Errorf("%d records sent, not all 1000 that were due", fromDue.Count())
		}
		if p := fromSend.Quantile(.99); p > time.Millisecond {
			t.Errorf("service time p99 %v", p)
		}
		// Due at 5.00, 5.01, ... 5.99: delays of 1 s, 0.99 s, ... so that the
		// 990th of the 1000 sorted delays is 0.91 s.
		if p := fromDue.Quantile(.99); p < 890*time.Millisecond || p > 920*time.Millisecond {
			t.Errorf("p99 from when due %v", p)
		}
		if p := fromDue.Quantile(.95); p < 490*time.Millisecond || p > 520*time.Millisecond {
			t.Errorf("p95 from when due %v", p)
		}
		if p := fromDue.Quantile(.89); p > time.Millisecond {
			t.Errorf("p89 from when due %v", p)
		}
		if took := time.Since(start); took > 10*time.Second+time.Millisecond {
			t.Errorf("the schedule took %v", took)
		}
	})
}

func TestPaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start, n := time.Now(), 0
		err := schedule{start: start, perSecond: 10, producers: 1}.pace(ctx, start.Add(time.Hour), func(time.Time) { n++ })
		if !errors.Is(err, context.DeadlineExceeded) || n > 11 {
			t.Errorf("%v after %d records", err, n)
		}
	})
}
