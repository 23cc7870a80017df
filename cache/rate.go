package cache

import (
	"context"
	"sync"
	"time"
)

// rate spaces out loads so that together they keep to a bandwidth. A load is
// charged when it begins, for as much as it may bring, and given back the rest.
// nil means no limit.
type rate struct {
	perSecond float64

	mu   sync.Mutex
	next time.Time // when the next load may begin
}

func newRate(bytesPerSecond int64) *rate {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &rate{perSecond: float64(bytesPerSecond)}
}

func (r *rate) span(n int64) time.Duration {
	return time.Duration(float64(n) / r.perSecond * float64(time.Second))
}

// wait returns when n bytes may be asked for.
func (r *rate) wait(ctx context.Context, n int64) error {
	if r == nil {
		return ctx.Err()
	}
	r.mu.Lock()
	now := time.Now()
	if r.next.Before(now) {
		r.next = now
	}
	at := r.next
	r.next = at.Add(r.span(n))
	r.mu.Unlock()
	if !at.After(now) {
		return ctx.Err()
	}
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		r.back(n)
		return ctx.Err()
	}
}

// back returns what was charged and not used.
func (r *rate) back(n int64) {
	if r == nil || n == 0 {
		return
	}
	r.mu.Lock()
	r.next = r.next.Add(-r.span(n))
	r.mu.Unlock()
}
