package tiering

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// A PUT that landed long ago, before the chain was sealed, proves nothing of
// the moment when its answer was at last asked for.
func TestOldPutProvesNothingNew(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a, b := w.start(h), w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	if err := a.writeCheckpoint(t.Context()); err != nil { // it would notice the seal
		t.Fatal(err)
	}
	landed, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.set(nil, func(key string) error {
		once.Do(func() { close(landed) })
		<-gate
		return errors.New("answer lost")
	})
	raw, hd := makeBatch(-1, -1, -1, 0, "x")
	ap, err := p.Append(raw, hd, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	<-landed
	time.Sleep(300 * time.Millisecond)
	if _, err := b.Seal(t.Context(), a.cfg.Incarnation); err != nil {
		t.Fatal(err)
	}
	h.set(nil, nil)
	close(gate)
	<-ap.Done()
	if ap.Err() != nil {
		t.Fatal(ap.Err())
	}
	if err := a.Check(t.Context(), 200*time.Millisecond); !errors.Is(err, ErrFenced) {
		t.Fatalf("check of a sealed chain: %v", err)
	}
}

// Once its CLOSE has landed, the chain is nobody's.
func TestCheckAfterOwnClose(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a := w.start(h)
	w.lead(a, partition(0), owners(a))
	landed, gate := make(chan struct{}, 1), make(chan struct{})
	h.set(nil, func(key string) error {
		if key[0] == 'w' {
			landed <- struct{}{}
			<-gate
		}
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- a.Close(t.Context()) }()
	<-landed
	if err := a.Check(t.Context(), 0); err == nil {
		t.Error("a closed chain was proven to be its incarnation's")
	}
	close(gate)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
