package tiering

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// hooked calls functions before and after what is created.
type hooked struct {
	object.Store
	mu     sync.Mutex
	before func(key string) error // called before a Create; its error is the answer
	after  func(key string) error // called after one that succeeded; its error is the answer
}

func (h *hooked) set(before, after func(string) error) {
	h.mu.Lock()
	h.before, h.after = before, after
	h.mu.Unlock()
}

func (h *hooked) Create(ctx context.Context, key string, data ...[]byte) error {
	h.mu.Lock()
	before, after := h.before, h.after
	h.mu.Unlock()
	if before != nil {
		if err := before(key); err != nil {
			return err
		}
	}
	err := h.Store.Create(ctx, key, data...)
	if err == nil && after != nil {
		err = after(key)
	}
	return err
}

// A CLOSE ends the incarnation even when nobody waits for it any more.
func TestCloseAbandoned(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a := w.start(h)
	w.lead(a, partition(0), owners(a))
	ctx, cancel := context.WithCancel(t.Context())
	gate := make(chan struct{})
	h.set(func(key string) error {
		if key[0] == 'w' {
			cancel()
			<-gate
		}
		return nil
	}, nil)
	if err := a.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(gate)
	select {
	case <-a.Done():
	case <-time.After(3 * time.Second):
		t.Fatal("a closed chain goes on")
	}
}

// Close returns when the incarnation ends under it.
func TestCloseOfFencedChain(t *testing.T) {
	for range 20 {
		w := newWorld(t)
		h := &hooked{Store: w.store}
		a := w.start(h)
		p := w.lead(a, partition(0), owners(a))
		h.set(nil, func(key string) error {
			if key[0] == 'k' {
				go a.fail(ErrFenced)
				<-a.Done()
			}
			return nil
		})
		raw, hd := makeBatch(-1, -1, -1, 0, "x") // so that there is something to checkpoint
		_, _ = p.Append(raw, hd, 0, false)       // it may be fenced already
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := a.Close(ctx)
		cancel()
		if !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
}

// Closing twice, one after the other or at once, is closing once.
func TestCloseTwice(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	w.lead(a, partition(0), owners(a))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- a.Close(ctx) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil && !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
}
