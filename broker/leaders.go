package broker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// leaderWait is how long an answer about a topic waits for partitions that
	// have no live leader. A takeover takes less; a client that is told "no
	// leader" instead asks again only after its own pause, which is five seconds
	// for some, and gives up after three tries, as others do.
	leaderWait = time.Second
	// waitPause is how long nobody waits after a wait was in vain, so that a
	// partition without a leader does not slow every answer down.
	waitPause = 10 * time.Second
)

// waits remembers when a wait was in vain, as a time.Time that was read from the
// clock and not made from a number: those count what passed since on the
// monotonic clock, so that a wall clock that is set back stops no waiting.
type waits struct {
	vain atomic.Pointer[time.Time]
}

func (w *waits) worth() bool {
	at := w.vain.Load()
	return at == nil || time.Since(*at) >= waitPause
}

// ended takes note of a wait that ended with ctx.
func (w *waits) ended(ctx context.Context) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		now := time.Now()
		w.vain.Store(&now)
	}
}

// awaitLeaders returns when every partition of t has a live leader, or after a
// short while.
func (s *Server) awaitLeaders(ctx context.Context, t *metadata.Topic) {
	if virtual(t) || s.allLed(t) || !s.leaderless.worth() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	changed, stop := s.cfg.View.Subscribe()
	defer stop()
	for !s.allLed(t) {
		select {
		case <-changed:
		case <-ctx.Done():
			s.leaderless.ended(ctx)
			return
		}
	}
}

func (s *Server) allLed(t *metadata.Topic) bool {
	for i := range t.Partitions {
		if !s.leaderOf(t, i).live {
			return false
		}
	}
	return true
}
