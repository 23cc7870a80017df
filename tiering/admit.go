package tiering

import (
	"context"
	"sync"
)

// admission bounds what is appended but not committed. Room is given in the
// order it was asked for, so that a large request is not starved by small ones.
type admission struct {
	limit int64
	done  <-chan struct{} // closes when nothing is committed any more

	mu      sync.Mutex
	used    int64 // appended and uncommitted, plus what admitted requests may append
	waiters []*waiter
}

type waiter struct {
	n     int64
	ready chan struct{} // closed by give, under mu, when the room is the waiter's
}

// take waits for room for n bytes. A request larger than the limit is admitted
// alone. ErrFenced when done closes first.
func (a *admission) take(ctx context.Context, n int64) error {
	a.mu.Lock()
	if len(a.waiters) == 0 && a.fits(n) {
		a.used += n
		a.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	a.waiters = append(a.waiters, w)
	a.mu.Unlock()
	var err error
	select {
	case <-w.ready:
		return nil
	case <-a.done:
		err = ErrFenced
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-w.ready: // it came at the same moment: give it back
		a.used -= n
	default:
		for i := range a.waiters {
			if a.waiters[i] == w {
				a.waiters = append(a.waiters[:i], a.waiters[i+1:]...)
				break
			}
		}
	}
	a.admitLocked()
	return err
}

func (a *admission) fits(n int64) bool { return a.used == 0 || a.used+n <= a.limit }

// add counts bytes that were appended.
func (a *admission) add(n int64) {
	a.mu.Lock()
	a.used += n
	a.mu.Unlock()
}

// give returns room.
func (a *admission) give(n int64) {
	a.mu.Lock()
	a.used -= n
	a.admitLocked()
	a.mu.Unlock()
}

func (a *admission) admitLocked() {
	for len(a.waiters) > 0 && a.fits(a.waiters[0].n) {
		w := a.waiters[0]
		a.waiters = a.waiters[1:]
		a.used += w.n
		close(w.ready)
	}
}
