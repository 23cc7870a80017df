package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata/jitter"
)

// OpTimeout bounds an operation of this package whose context has no deadline.
const OpTimeout = 30 * time.Second

// ErrConflict: others kept changing the same keys until the attempts ran out.
// Nothing was written.
var ErrConflict = errors.New("metadata changed concurrently")

// bounded gives ctx a deadline if it has none, so that no retry loop is endless.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, OpTimeout)
}

// backoff waits longer each time, with jitter, from 10 ms up to max (1 s when
// unset). The zero value is ready.
type backoff struct {
	next, max time.Duration
}

// wait sleeps, or returns the context's error as ErrUnavailable.
func (b *backoff) wait(ctx context.Context) error {
	if b.max == 0 {
		b.max = time.Second
	}
	b.next = min(max(2*b.next, 10*time.Millisecond), b.max)
	return pause(ctx, b.next/2+jitter.N(b.next/2+1))
}

// pause sleeps for d, or returns the context's error as ErrUnavailable.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// read calls f until it answers, waiting between attempts; f only reads.
func read[T any](ctx context.Context, f func() (T, error)) (T, error) {
	var b backoff
	for {
		v, err := f()
		if !errors.Is(err, ErrUnavailable) {
			return v, err
		}
		if b.wait(ctx) != nil {
			return v, err
		}
	}
}

// get reads keys, retrying while the store is unavailable.
func get(ctx context.Context, kv KV, keys ...string) ([]Entry, error) {
	return read(ctx, func() ([]Entry, error) {
		entries, _, err := kv.Get(ctx, keys...)
		return entries, err
	})
}

// encode is for the types of this package, which JSON can always express.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

// decode parses an entry's value into a new T.
func decode[T any](e Entry) (T, error) {
	var v T
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return v, fmt.Errorf("value of key %q: %w", e.Key, err)
	}
	return v, nil
}
