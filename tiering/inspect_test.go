package tiering

import (
	"context"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// A chain that is trimmed while it is looked at, and whose old checkpoint lies
// there still, does not seem to end where the trimmed slots begin: a sweep would
// take what its later slots name for what nobody does.
func TestCurrentOfAChainThatIsTrimmedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.tune = still
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	checkpoint := func() metadata.Chain {
		t.Helper()
		if err := a.writeCheckpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.chain(a.cfg.Incarnation)
	}
	writeSpread(t, p, numbered("v", 20)...)
	before := checkpoint()
	key := wal.CheckpointKey(a.cfg.Incarnation, before.Checkpoint)
	old, err := w.store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	writeSpread(t, p, numbered("v", 20)...)
	s, err := p.untieredRefs(t.Context(), 1<<20)
	if err == nil {
		err = a.tier(t.Context(), true, []source{s})
	}
	if err != nil {
		t.Fatal(err)
	}
	if after := checkpoint(); after.Checkpoint <= before.Checkpoint {
		t.Fatalf("%+v after %+v", after, before)
	}
	if err := a.trimOwn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Create(t.Context(), key, old); err != nil {
		t.Fatal(err) // as if it could not be deleted
	}
	i := NewInspector(w.store, a.cfg.Cluster)
	tiered := func(s *ChainState) int64 { return s.state.epochs[Claim{partition(0), 0}].m.tiered }
	stale, err := i.current(t.Context(), a.cfg.Incarnation, before)
	if err != nil || tiered(stale) != 0 {
		t.Fatalf("the slots after the old checkpoint are there: %v", err)
	}
	now, err := i.Current(t.Context(), a.cfg.Incarnation, func(ctx context.Context, inc metadata.Incarnation) (metadata.Chain, error) {
		if c := before; c.Checkpoint > 0 {
			before = metadata.Chain{}
			return c, nil
		}
		return w.chains.Load(ctx, inc)
	})
	if err != nil || tiered(now) != p.seen().tiered {
		t.Errorf("tiered up to %d, %v; want %d", tiered(now), err, p.seen().tiered)
	}
}

// A successor that is late finds the chain of a predecessor inherited by others
// and deleted: that is no loss.
func TestReplayOfAChainThatIsCollectedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.tune = still
	a, b := w.start(w.store), w.start(w.store)
	writeSpread(t, w.lead(a, partition(0), owners(a)), numbered("v", 20)...)
	a.kill()
	if _, err := b.Seal(t.Context(), a.cfg.Incarnation); err != nil {
		t.Fatal(err)
	}
	before := w.chain(a.cfg.Incarnation)
	if _, err := metadata.CollectChains(t.Context(), w.kv, slotsKept); err != nil { // no owner list has it
		t.Fatal(err)
	}
	if _, err := b.deleteSlots(t.Context(), a.cfg.Incarnation, 0, w.chain(a.cfg.Incarnation).Trim); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if s, err := b.replay(ctx, a.cfg.Incarnation, before, heads{}); err != nil || len(s.epochs) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
