package object

import (
	"context"
	"errors"
	"time"

	"github.com/tidemark-io/tidemark/metadata/jitter"
)

// RetryConfig bounds what Retrying does. The zero value means the defaults.
type RetryConfig struct {
	// Attempts is the most requests one call makes. Default 10.
	Attempts int
	// AttemptTimeout cuts off one request, so that a connection that hangs
	// does not use up the caller's whole deadline. Default 15 s: a store that
	// moves less than 4 MiB in that time is not usable anyway.
	AttemptTimeout time.Duration
	// Backoff is the largest first pause; it doubles up to BackoffMax, and
	// each pause is drawn evenly from zero to that. Defaults 50 ms and 2 s.
	Backoff    time.Duration
	BackoffMax time.Duration
}

func (c RetryConfig) withDefaults() RetryConfig {
	if c.Attempts <= 0 {
		c.Attempts = 10
	}
	if c.AttemptTimeout <= 0 {
		c.AttemptTimeout = 15 * time.Second
	}
	if c.Backoff <= 0 {
		c.Backoff = 50 * time.Millisecond
	}
	if c.BackoffMax < c.Backoff {
		c.BackoffMax = max(2*time.Second, c.Backoff)
	}
	return c
}

type retrying struct {
	Store // Create passes through: its caller alone may repeat it
	cfg   RetryConfig
}

// Retrying repeats Get, Delete and List after failures that may pass, within
// the caller's deadline. It never repeats a Create.
func Retrying(store Store, cfg RetryConfig) Store {
	return &retrying{Store: store, cfg: cfg.withDefaults()}
}

func (s *retrying) Unwrap() Store { return s.Store }

func (s *retrying) Get(ctx context.Context, key string, pos, length int64) (b []byte, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		b, err = s.Store.Get(ctx, key, pos, length)
		return err
	})
	return b, err
}

func (s *retrying) Delete(ctx context.Context, key string) error {
	return s.do(ctx, func(ctx context.Context) error { return s.Store.Delete(ctx, key) })
}

func (s *retrying) List(ctx context.Context, prefix, after string, limit int) (infos []Info, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		infos, err = s.Store.List(ctx, prefix, after, limit)
		return err
	})
	return infos, err
}

func (s *retrying) do(ctx context.Context, request func(context.Context) error) error {
	pause := s.cfg.Backoff
	for attempt := 1; ; attempt++ {
		err := s.once(ctx, request)
		if !mayPass(err) || ctx.Err() != nil || attempt == s.cfg.Attempts {
			return err
		}
		if !sleep(ctx, jittered(pause, errors.Is(err, ErrThrottled))) {
			return err // the store's error says more than "deadline exceeded"
		}
		pause = min(2*pause, s.cfg.BackoffMax)
	}
}

func (s *retrying) once(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AttemptTimeout)
	defer cancel()
	return request(ctx)
}

// mayPass reports whether the same request may succeed later. ErrCorrupt may:
// bytes are corrupted on the way more often than at rest.
func mayPass(err error) bool {
	return failed(err) && !errors.Is(err, ErrRefused)
}

// jittered draws a pause. A store that asks for fewer requests is given at
// least half the pause; for other failures an immediate repeat is fine.
func jittered(pause time.Duration, throttled bool) time.Duration {
	if throttled {
		return pause/2 + jitter.N(pause/2+1)
	}
	return jitter.N(pause + 1)
}

// sleep waits and reports whether the whole pause passed. It does not begin a
// pause that would outlast the deadline.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
