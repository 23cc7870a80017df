package tiering

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/faulty"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// A writer with several slots in flight may leave objects beyond the fence that
// took an earlier one of them. They prove nothing and disturb nobody.
func TestObjectsBeyondFence(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, "1")
	a.kill()
	next := a.committed.Load()
	beyond := &wal.Head{Kind: wal.Data, Cluster: a.cfg.Cluster, Incarnation: a.cfg.Incarnation, Slot: next + 1, Previous: wal.Digest{1}, Writer: a.cfg.Incarnation}
	if err := w.store.Create(t.Context(), wal.SlotKey(a.cfg.Incarnation, next+1), wal.EncodeHead(beyond)); err != nil {
		t.Fatal(err)
	}
	b, c := w.start(w.store), w.start(w.store)
	end, err := b.fence(t.Context(), a.cfg.Incarnation, w.chain(a.cfg.Incarnation), heads{})
	if err != nil || end != next {
		t.Fatalf("end %d, %v; want %d", end, err, next)
	}
	// A second sealer finds the fence and the object behind it, and agrees.
	if end, err = c.Seal(t.Context(), a.cfg.Incarnation); err != nil || end != next {
		t.Fatalf("second sealer: end %d, %v; want %d", end, err, next)
	}
	equal(t, readAll(t, w.lead(c, partition(0), owners(a, c)), 0, 1<<20), []string{"1"})
}

// A takeover does not wait long for requests that got lost: everybody else waits
// for the takeover.
func TestSealOutlivesSilence(t *testing.T) {
	for name, fault := range map[string]*faulty.Fault{
		"head":  {Op: object.OpGet, Kind: faulty.Hang, Count: 1},
		"fence": {Op: object.OpCreate, Kind: faulty.Hang, Count: 1},
		"slow":  {Kind: faulty.Delay, Delay: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				store := faulty.New(w.store)
				a, b := w.start(w.store), w.start(store)
				a.kill()
				store.Inject(fault)
				begun := time.Now()
				if _, err := b.Seal(t.Context(), a.cfg.Incarnation); err != nil {
					t.Fatal(err)
				}
				most := 2 * time.Second
				if name == "slow" {
					most = time.Minute
				}
				if took := time.Since(begun); took > most {
					t.Errorf("took %v", took)
				}
				store.Clear()
			})
		})
	}
}

// Nor does it wait long for what it reads once the chain is sealed.
func TestTakeoverOutlivesSilence(t *testing.T) {
	for name, match := range map[string]func(string) bool{"checkpoint": faulty.Prefix("k/"), "head": faulty.Prefix("w/")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				store := faulty.New(w.store)
				a, b := w.start(w.store), w.start(store)
				p := w.lead(a, partition(0), owners(a))
				write(t, p, "1")
				if err := a.writeCheckpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
				write(t, p, "2")
				a.kill()
				store.Inject(&faulty.Fault{Op: object.OpGet, Match: match, Kind: faulty.Hang, Count: 1})
				begun := time.Now()
				q := w.lead(b, partition(0), owners(a, b))
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("took %v", took)
				}
				equal(t, readAll(t, q, 0, 1<<20), []string{"1", "2"})
			})
		})
	}
}
