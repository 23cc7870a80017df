package tiering

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/wal"
)

// A topic deleted while its records are on their way must not spoil the chain.
func TestDropInFlight(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a := w.start(h)
	p, q := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
	write(t, p, "p")
	write(t, q, "q")
	gate := make(chan struct{})
	h.set(func(key string) error {
		if key[0] == 'w' {
			<-gate
		}
		return nil
	}, nil)
	raw, hd := makeBatch(-1, -1, -1, 0, "in flight")
	ap, err := p.Append(raw, hd, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	a.Drop(partition(0))
	if err := a.writeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(gate)
	<-ap.Done()
	write(t, q, "q2")
	a.kill()
	b := w.start(w.store)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if errs := b.Lead(ctx, []LeadRequest{{Partition: partition(1), Owners: owners(a, b)}}); len(errs) > 0 {
		t.Fatal(errs)
	}
}

// However much is released at once, every object's head can be read.
func TestReleaseOfLargeStates(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	var flushes []*flush
	for i := range 6 {
		f, err := a.record(wal.Record{Type: wal.Release, Partition: partition(int32(i)), Epoch: 0, State: make([]byte, 15<<20)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		flushes = append(flushes, f)
	}
	for _, f := range flushes {
		<-f.done
		if f.err != nil {
			t.Fatal(f.err)
		}
		if _, err := a.readHead(t.Context(), a.cfg.Incarnation, f.slot); err != nil {
			t.Fatalf("slot %d: %v", f.slot, err)
		}
	}
}

// Whoever asks for a release while another does, or has, is told of a RELEASE
// that says the same.
func TestReleaseTwiceAtOnce(t *testing.T) {
	for range 200 {
		w := newWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		raw, hd := makeBatch(-1, -1, -1, 0, "x")
		if _, err := p.Append(raw, hd, 0, false); err != nil {
			t.Fatal(err)
		}
		claim := Claim{Partition: partition(0), Epoch: 0}
		var wg sync.WaitGroup
		wg.Go(func() { // others use the table, too
			for end := time.Now().Add(3 * time.Millisecond); time.Now().Before(end); {
				a.partsMu.Lock()
				time.Sleep(20 * time.Microsecond)
				a.partsMu.Unlock()
			}
		})
		for range 8 {
			wg.Go(func() {
				for end := time.Now().Add(3 * time.Millisecond); time.Now().Before(end); {
					got, err := a.Release(t.Context(), []Claim{claim})
					if err != nil || len(got) != 1 {
						t.Error(got, err)
						return
					}
					if e, _ := a.releases.get(claim); e.state == nil {
						t.Error("the state is forgotten")
						return
					}
					h, err := a.readHead(t.Context(), a.cfg.Incarnation, got[0].Slot)
					if err != nil {
						t.Error(err)
						return
					}
					for i := range h.Records {
						if r := &h.Records[i]; r.Type == wal.Release && r.State == nil {
							t.Errorf("the RELEASE in slot %d says that the partition was never opened", h.Slot)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		a.kill()
	}
}

// A record that no reader would accept is refused before it spoils the chain.
func TestRecordsThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(1), owners(a))
	bad := partition(-1)
	for _, c := range []Claim{{Partition: partition(0), Epoch: -1}, {Partition: bad, Epoch: 0}} {
		if _, err := a.Release(t.Context(), []Claim{c}); err == nil {
			t.Errorf("released %+v", c)
		}
	}
	if _, err := a.record(wal.Record{Type: wal.Release, Partition: partition(0), State: make([]byte, recordBytesMax+1)}, nil); err == nil {
		t.Error("a record larger than a head may be was accepted")
	}
	write(t, p, "1")
	a.kill()
	b := w.start(w.store)
	equal(t, readAll(t, w.lead(b, partition(1), owners(a, b)), 0, 1<<20), []string{"1"})
}

// A dropped partition does not come back at the same epoch: a chain with two
// OPENs of one claim could not be replayed.
func TestDropIsFinal(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(1), owners(a))
	w.lead(a, partition(0), owners(a))
	a.Drop(partition(0))
	if errs := a.Lead(t.Context(), []LeadRequest{{Partition: partition(0), Owners: owners(a)}}); len(errs) == 0 {
		t.Error("opened again")
	}
	write(t, p, "1")
	a.kill()
	b := w.start(w.store)
	equal(t, readAll(t, w.lead(b, partition(1), owners(a, b)), 0, 1<<20), []string{"1"})
}
