package tiering

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark-io/tidemark/metadata/jitter"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// upload binds f's slot. A slot is bound to its bytes: whatever goes wrong, the
// same bytes are tried again on the same key until the slot is known to hold
// them, or something else, which ends the incarnation.
func (l *Log) upload(ctx context.Context, f *flush) {
	ctx = trace.ContextWithSpan(ctx, f.span)
	f.begun = l.cfg.Clock()
	if seeded.AckBeforeDurable {
		f.finish(nil)
	}
	for attempt := 0; ; attempt++ {
		err := l.attempt(ctx, f)
		if err == nil {
			break
		}
		if errors.Is(err, ErrFenced) {
			l.fail(err)
			return
		}
		if !f.failed.Swap(true) || attempt%10 == 9 {
			l.cfg.Logger.Warn("upload failed, trying again", "slot", f.slot, "attempt", attempt+1, "error", err)
		}
		if !sleep(ctx, l.done, backoff(attempt)) {
			return // fail has finished, or will finish, every waiter
		}
	}
	f.bound = time.Now()
	latency := f.bound.Sub(f.takenAt)
	l.m.stage("put").Observe(latency.Seconds())
	l.m.flushBytes.Observe(float64(f.size))
	l.mu.Lock()
	l.pacer.finish(f.size, latency, f.alone)
	l.mu.Unlock()
	select {
	case l.durable <- f:
	case <-l.done:
	}
}

// attempt tries once to bind f's slot to f's bytes. nil means that they are
// there; ErrFenced that something else is; any other error that nobody knows.
func (l *Log) attempt(ctx context.Context, f *flush) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.PutTimeout)
	defer cancel()
	begun := l.cfg.Clock()
	err := l.create(ctx, wal.SlotKey(l.cfg.Incarnation, f.slot), f.parts)
	switch {
	case err == nil:
		f.begun = begun
		return nil
	case errors.Is(err, object.ErrExists):
		if seeded.CommitWithoutRace {
			return nil
		}
		// An earlier attempt of ours, or a fence: only the bytes tell. Which
		// attempt it was nobody knows; the chain may have been ended since, so
		// this one's time is no proof of leadership.
		return l.compare(ctx, f)
	}
	// The store may still be reading the bytes: never reuse them.
	f.raw.keep = true
	return err
}

func (l *Log) create(ctx context.Context, key string, parts [][]byte) error {
	if err := failpoint.Hit(failpoint.BeforePut); err != nil {
		return err
	}
	if err := l.cfg.Store.Create(ctx, key, parts...); err != nil {
		return err
	}
	return failpoint.Hit(failpoint.AfterPut)
}

// compare reads the head found in f's slot. Own digest: the slot is ours.
func (l *Log) compare(ctx context.Context, f *flush) error {
	h, err := l.readHead(ctx, l.cfg.Incarnation, f.slot)
	switch {
	case errors.Is(err, object.ErrNotFound):
		return fmt.Errorf("%w: slot %d exists and cannot be found", ErrFenced, f.slot)
	case err != nil && !errors.Is(err, wal.ErrMalformed) && !errors.Is(err, wal.ErrVersion):
		return fmt.Errorf("read back slot %d: %w", f.slot, err)
	case err == nil && h.Digest == f.head.Digest:
		return nil
	case err == nil:
		return fmt.Errorf("%w: slot %d holds a %s of %s", ErrFenced, f.slot, h.Kind, h.Writer)
	}
	return fmt.Errorf("%w: slot %d holds foreign bytes: %w", ErrFenced, f.slot, err)
}

// headGuess is how much of an object is read before its head's length is known.
const headGuess = 64 << 10

// readHead reads and verifies the head of a slot of any chain. object.ErrNotFound
// when the slot is free.
func (l *Log) readHead(ctx context.Context, inc incarnation, slot uint64) (*wal.Head, error) {
	key := wal.SlotKey(inc, slot)
	b, err := l.cfg.Store.Get(ctx, key, 0, headGuess)
	if err != nil {
		return nil, err
	}
	n, err := wal.HeadLen(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if n > len(b) && len(b) == headGuess {
		rest, err := l.cfg.Store.Get(ctx, key, headGuess, int64(n-headGuess))
		if err != nil {
			return nil, err
		}
		b = append(b, rest...)
	}
	h, err := wal.DecodeHead(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if h.Cluster != l.cfg.Cluster || h.Incarnation != inc || h.Slot != slot {
		return nil, fmt.Errorf("%s: %w: it says slot %d of %s", key, wal.ErrMalformed, h.Slot, h.Incarnation)
	}
	return h, nil
}

// backoff is 20 ms doubling to 2 s, with jitter.
func backoff(attempt int) time.Duration {
	d := min(2*time.Second, 20*time.Millisecond<<min(attempt, 10))
	return d/2 + jitter.N(d/2)
}

// sleep waits for d and reports whether it could; it cannot when ctx or done
// ends first.
func sleep(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-done:
	}
	return false
}
