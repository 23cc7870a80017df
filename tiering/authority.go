package tiering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// authority remembers until when this incarnation is known to have been the one
// that its chain belongs to. A deposed leader must not mislead readers: fencing
// keeps it from writing, this keeps it from answering.
type authority struct {
	mu    sync.Mutex
	known bool
	begun time.Duration // the newest proof began then
	next  *proof        // shared by callers that need one begun after their call
	busy  bool
}

type proof struct {
	done  chan struct{}
	begun time.Duration
	err   error
}

// renew notes that a PUT, or a check, begun then found the chain ours.
func (a *authority) renew(begun time.Duration) {
	a.mu.Lock()
	if !a.known || begun > a.begun {
		a.known, a.begun = true, begun
	}
	a.mu.Unlock()
}

// Check proves that the chain had not been ended at most maxAge ago; with
// maxAge 0, at some moment after the call. It is free when an own PUT or an
// earlier check is recent enough, else it costs one request to the bucket that
// all callers share. ErrFenced, or ErrStoreUnavailable when nothing is proven.
func (l *Log) Check(ctx context.Context, maxAge time.Duration) error {
	if l.over() {
		return ErrFenced
	}
	a := &l.gate
	now := l.cfg.Clock()
	a.mu.Lock()
	if maxAge > 0 && a.known && now-a.begun < maxAge {
		a.mu.Unlock()
		return nil
	}
	if a.next == nil {
		a.next = &proof{done: make(chan struct{})}
	}
	p := a.next
	if !a.busy {
		if !l.tasks.run(l.prove) {
			a.mu.Unlock()
			return ErrFenced
		}
		a.busy = true
	}
	a.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-l.done:
		return ErrFenced
	case <-ctx.Done():
		return fmt.Errorf("%w: leadership not proven: %w", ErrStoreUnavailable, context.Cause(ctx))
	}
}

// prove runs proofs until nobody waits for one.
func (l *Log) prove(ctx context.Context) {
	a := &l.gate
	for {
		a.mu.Lock()
		p := a.next
		a.next = nil
		if p == nil {
			a.busy = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		p.begun = l.cfg.Clock()
		if p.err = l.probeEnd(ctx); p.err == nil {
			a.renew(p.begun)
		}
		close(p.done)
	}
}

const proofTimeout = 5 * time.Second

// probeEnd looks for a fence where a sealer would put one: at the first free
// slot. A slot in flight may have landed already; then the one after it counts.
func (l *Log) probeEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	for slot := l.committed.Load(); ; slot++ {
		if l.closedBelow(slot) {
			return fmt.Errorf("%w: own CLOSE is in place", ErrFenced)
		}
		h, err := l.readHead(ctx, l.cfg.Incarnation, slot)
		if errors.Is(err, object.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
		}
		if own := l.digestOf(slot); own == nil || *own != h.Digest {
			if slot < l.committed.Load() {
				continue // committed while we looked
			}
			err := fmt.Errorf("%w: slot %d holds a %s of %s", ErrFenced, slot, h.Kind, h.Writer)
			l.fail(err)
			return err
		}
	}
}

// closedBelow reports whether an earlier slot is the one of the own CLOSE.
func (l *Log) closedBelow(slot uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last != nil && !l.last.takenAt.IsZero() && l.last.slot < slot
}

// digestOf is the digest of a slot in flight, nil when there is none.
func (l *Log) digestOf(slot uint64) *wal.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.unresolved[slot]; f != nil {
		return f.digest
	}
	return nil
}
