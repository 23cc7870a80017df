package tiering

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// lookedIn is a chain registry at which something happens in between.
type lookedIn struct {
	Chains
	owe    func(error) error // turns the answer to Owe into another one
	lowest func()            // runs before a question of the test's for the lowest debt arrives
}

// asking marks the test's own questions: the collector wakes up now and then.
type asking struct{}

func (h *lookedIn) Owe(ctx context.Context, heir, of metadata.Incarnation, slot *uint64) error {
	err := h.Chains.Owe(ctx, heir, of, slot)
	if h.owe != nil {
		err = h.owe(err)
	}
	return err
}

func (h *lookedIn) LowestDebt(ctx context.Context, inc metadata.Incarnation) (uint64, bool, error) {
	if ctx.Value(asking{}) != nil {
		h.lowest()
	}
	return h.Chains.LowestDebt(ctx, inc)
}

// still makes a log do nothing by itself.
func still(cfg *Config) {
	cfg.CheckpointInterval, cfg.CollectInterval, cfg.TierInterval, cfg.SweepInterval = time.Hour, time.Hour, time.Hour, time.Hour
}

// A debt whose raise was applied and not answered is not taken for what it was.
func TestDebtAfterAnAmbiguousRaise(t *testing.T) {
	w := newWorld(t)
	w.tune = still
	h := &lookedIn{Chains: w.chains}
	of := w.start(w.store)
	w.chains = h
	l := w.start(w.store)
	rest := func(slot uint64) error {
		l.releases.checkpointed(1, []wal.SlotFloor{{Incarnation: of.cfg.Incarnation, Slot: slot}})
		return l.payDebts(t.Context())
	}
	if err := rest(5); err != nil {
		t.Fatal(err)
	}
	h.owe = func(error) error { return errors.New("no answer") }
	if err := rest(9); err == nil {
		t.Fatal("the raise was answered")
	}
	h.owe = nil
	// Another partition that lies in the slot is taken over.
	if err := rest(5); err != nil {
		t.Fatal(err)
	}
	if got, _, err := w.chains.LowestDebt(t.Context(), of.cfg.Incarnation); err != nil || got != 5 {
		t.Errorf("debt %d, %v; want 5", got, err)
	}
}

// A partition that comes back while its first leader looks for what it may
// delete is owed by the heir no more, and not seen here yet.
func TestTrimWhileAPartitionComesBack(t *testing.T) {
	w := newWorld(t)
	w.tune = still
	h := &lookedIn{Chains: w.chains}
	w.chains = h
	a, b := w.start(w.store), w.start(w.store)
	values := numbered("v", 20)
	writeSpread(t, w.lead(a, partition(0), owners(a)), values...)
	checkpoint := func(n *node) {
		t.Helper()
		if err := n.writeCheckpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint(a)
	w.lead(b, partition(0), owners(a, b))
	writeSpread(t, w.lead(a, partition(1), owners(a)), "other") // a RELEASE is no longer the newest there is
	checkpoint(b)
	a.Forget([]Claim{{partition(0), 0}})
	checkpoint(a)
	var back *Partition
	h.lowest = func() {
		back = w.lead(a, partition(0), owners(a, b, a))
		checkpoint(a)
		b.Forget([]Claim{{partition(0), 1}})
		writeSpread(t, w.lead(b, partition(2), owners(b)), "more")
		checkpoint(b)
		if err := b.payDebts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, any, err := w.chains.LowestDebt(t.Context(), a.cfg.Incarnation); err != nil || any {
			t.Fatalf("the heir owes still: %v", err)
		}
	}
	if err := a.trimOwn(context.WithValue(t.Context(), asking{}, true)); err != nil {
		t.Fatal(err)
	}
	if back == nil {
		t.Fatal("nobody asked for debts")
	}
	equal(t, readAll(t, back, 0, 1<<20), values)
	for _, ref := range back.seen().tail {
		if _, err := w.store.Get(t.Context(), wal.SlotKey(ref.Incarnation, ref.Slot), 0, 1); err != nil {
			t.Fatalf("offset %d: %v", ref.Base, err)
		}
	}
}
