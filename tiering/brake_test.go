package tiering

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

func TestBrakeTime(t *testing.T) {
	const gib = 1 << 30
	tests := []struct {
		lag  int64
		want time.Duration
	}{
		{0, 0}, {8 * gib, 0}, {9 * gib, 250 * time.Millisecond}, {12 * gib, time.Second}, {100 * gib, time.Second}, {math.MaxInt64, time.Second},
	}
	for _, test := range tests {
		if got := brakeTime(test.lag, 4*gib); got != test.want {
			t.Errorf("%d bytes: %v, want %v", test.lag, got, test.want)
		}
	}
}

// unwilling is a bucket that takes no segments.
type unwilling struct {
	object.Store
	no atomic.Bool
}

func (u *unwilling) Create(ctx context.Context, key string, data ...[]byte) error {
	if u.no.Load() && (key[0] == 's' || key[0] == 'x') {
		return errors.New("no segments")
	}
	return u.Store.Create(ctx, key, data...)
}

// Producers wait while tiering is far behind, and no more once it has caught up.
func TestProducersWaitForTiering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		store := &unwilling{Store: w.store}
		store.no.Store(true)
		w.tune = func(cfg *Config) { tiny(cfg); cfg.TierBytes = 1000 }
		a := w.start(store)
		p := w.lead(a, partition(0), owners(a))
		admitted := func() time.Duration {
			begun := time.Now()
			release, err := a.Admit(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			release()
			return time.Since(begun)
		}
		if d := admitted(); d > 0 {
			t.Errorf("waited %v with nothing to tier", d)
		}
		values := numbered("v", 100)
		writeSpread(t, p, values...)
		if d := admitted(); d != brakeMax {
			t.Errorf("waited %v while %d bytes are not tiered", d, a.lag.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), brakeMax/2)
		defer cancel()
		if _, err := a.Admit(ctx, 1); !errors.Is(err, ErrTimedOut) {
			t.Errorf("timed out: %v", err)
		}
		store.no.Store(false)
		time.Sleep(time.Minute)
		if d := admitted(); d > 0 {
			t.Errorf("waited %v with everything tiered", d)
		}
		equal(t, readAll(t, p, 0, 1<<20), values)
	})
}
