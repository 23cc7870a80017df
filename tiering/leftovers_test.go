package tiering

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// A partition of which something cannot be read is left out, and the others are
// tiered; once it can be read, it follows.
func TestUnreadableExtentStopsOnlyItsPartition(t *testing.T) {
	w := newWorld(t)
	w.tune = func(cfg *Config) { still(cfg); cfg.TierAge = time.Minute }
	a := w.start(w.store)
	p, q := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
	values := numbered("v", 4)
	writeSpread(t, p, values...)
	writeSpread(t, q, values...)
	a.tail = newMemoryTail(1)
	bucket := w.store.(*mem.Store)
	key := p.seen().tail[2].Key()
	saved, err := bucket.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(2 * time.Minute)
	a.tierRound(t.Context(), later)
	if m := q.seen(); m.untiered > 0 {
		t.Errorf("%d bytes of the readable partition are not tiered", m.untiered)
	}
	if m := p.seen(); m.tiered != 0 {
		t.Fatalf("tiered %d of what cannot be read", m.tiered)
	}
	if n := len(a.tierCandidates(time.Now())); n > 0 {
		t.Errorf("%d partitions are tried again at once", n)
	}
	if err := bucket.Create(t.Context(), key, saved); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.tierAt = time.Time{}
	p.mu.Unlock()
	a.tierRound(t.Context(), later)
	if m := p.seen(); m.untiered > 0 {
		t.Errorf("%d bytes are not tiered", m.untiered)
	}
	equal(t, readAll(t, p, 0, 1<<20), values)
	equal(t, readAll(t, q, 0, 1<<20), values)
}

// What is left of a page that is partly tiered counts as the whole page. It is not
// enough for a segment of the partition's own, and must not wait for ever.
func TestRestOfAPageIsShared(t *testing.T) {
	w := newWorld(t)
	w.tune = func(cfg *Config) { still(cfg); cfg.TierAge = time.Minute; cfg.FlushSpacing = time.Microsecond }
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	values := numbered("v", 2*wal.PageEntries+1)
	writeSpread(t, p, values...)
	if err := a.writeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := p.seen()
	if len(m.pages) != 1 {
		t.Fatalf("%d pages", len(m.pages))
	}
	s, err := p.untieredRefs(t.Context(), m.pages[0].Bytes/2)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.tier(t.Context(), false, []source{s}); err != nil {
		t.Fatal(err)
	}
	a.cfg.SegmentBytes = p.seen().untiered
	if rest, err := p.untieredRefs(t.Context(), a.cfg.SegmentBytesMax); err != nil || rest.bytes >= a.cfg.SegmentBytes {
		t.Fatalf("%d bytes are left, %d counted, %v", rest.bytes, a.cfg.SegmentBytes, err)
	}
	if a.tierRound(t.Context(), time.Now()); p.seen().untiered == 0 {
		t.Error("tiered before it is due")
	}
	if left := a.tierRound(t.Context(), time.Now().Add(2*time.Minute)); left > 0 {
		t.Errorf("%d bytes are left", left)
	}
	equal(t, readAll(t, p, 0, 1<<20), values)
}

// Sweeps find what came late: slots that were deleted, checkpoints that were
// replaced or never recorded; and leave what is needed.
func TestSweepOfChains(t *testing.T) {
	w := newTieringWorld(t)
	w.tune = func(cfg *Config) {
		still(cfg)
		cfg.SweepAge = time.Nanosecond
		cfg.Collects = func() bool { return true }
	}
	a, b := w.start(w.store), w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	writeSpread(t, p, numbered("v", 10)...)
	for range 2 {
		if err := a.writeCheckpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, p, "more")
	}
	chain := w.chain(a.cfg.Incarnation)
	chain.Trim, chain.Deleted = 3, 3
	w.put(metadata.ChainKey(a.cfg.Incarnation), chain)
	inc := a.cfg.Incarnation
	create := func(keys ...string) {
		for _, key := range keys {
			if err := w.store.Create(t.Context(), key, []byte("late")); err != nil {
				t.Fatal(err)
			}
		}
	}
	coming := wal.CheckpointKey(inc, chain.Checkpoint+1) // is being recorded, for all that is known
	create(wal.CheckpointKey(inc, chain.Checkpoint-1), coming)
	want := slices.DeleteFunc(w.keys(""), func(key string) bool {
		i, slot, ok := wal.ParseSlotKey(key)
		return ok && i == inc && slot < 3 || key == wal.CheckpointKey(inc, chain.Checkpoint-1)
	})
	if err := b.sweepChains(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.keys(""); !slices.Equal(got, want) {
		t.Errorf("left: %v\nwant: %v", got, want)
	}
	a.kill()
	if _, err := b.Seal(t.Context(), inc); err != nil {
		t.Fatal(err)
	}
	if err := b.sweepChains(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := w.keys("k/")
	if slices.Contains(got, coming) || !slices.Contains(got, wal.CheckpointKey(inc, chain.Checkpoint)) {
		t.Errorf("checkpoints of a sealed chain: %v", got)
	}
}

// A broker that never collects sweeps the shared segments that it wrote in vain,
// wherever the partitions are that its others are named by.
func TestSweepOfOwnSharedSegments(t *testing.T) {
	w := newTieringWorld(t)
	w.tune = func(cfg *Config) {
		still(cfg)
		cfg.SweepAge, cfg.DeleteGrace = time.Nanosecond, time.Nanosecond
		cfg.Collects = func() bool { return false }
	}
	a, b := w.start(w.store), w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	values := numbered("v", 5)
	writeSpread(t, p, values...)
	if err := a.tierShared(t.Context(), []candidate{p.candidate()}); err != nil {
		t.Fatal(err)
	}
	q := w.lead(b, partition(0), owners(a, b)) // the manifest moves on
	named := w.keys("x/")
	orphan, foreign := wal.SharedKey(a.cfg.Incarnation, wal.NewULID(time.Now())), wal.SharedKey(b.cfg.Incarnation, wal.NewULID(time.Now()))
	writing := wal.SharedKey(a.cfg.Incarnation, wal.NewULID(time.Now()))
	a.unnamed.add(writing)
	for _, key := range []string{orphan, foreign, writing} {
		if err := w.store.Create(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.sweepAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(named), foreign, writing)
	slices.Sort(want)
	for range 500 { // the grace is none, the deletion somebody else's
		if slices.Equal(w.keys("x/"), want) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := w.keys("x/"); !slices.Equal(got, want) {
		t.Errorf("left: %v\nwant: %v", got, want)
	}
	equal(t, readAll(t, q, 0, 1<<20), values)
}

// A sweep with more candidates than it may have goes on the next time.
func TestSweepGoesOn(t *testing.T) {
	w := newTieringWorld(t)
	w.tune = func(cfg *Config) { still(cfg); cfg.SweepAge = time.Nanosecond }
	a := w.start(w.store)
	for range listPage + 10 {
		if err := w.store.Create(t.Context(), wal.SharedKey(a.cfg.Incarnation, wal.NewULID(time.Now())), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	a.sweepMax = 1
	seen := make(map[string]bool)
	for range 2 {
		keys, err := a.listOld(t.Context(), "x/", func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			seen[key] = true
		}
	}
	if len(seen) != listPage+10 || len(a.sweptTo) > 0 {
		t.Errorf("%d keys seen, goes on at %v", len(seen), a.sweptTo)
	}
}

// dies is a bucket whose deletions end a context at one of them.
type dies struct {
	object.Store
	left   atomic.Int64
	cancel context.CancelFunc
}

func (d *dies) Delete(ctx context.Context, key string) error {
	if d.left.Add(-1) == 0 {
		d.cancel()
	}
	return d.Store.Delete(ctx, key)
}

// The collection of a chain that is too long for one turn goes on where it was.
func TestCollectionOfALongChainGoesOn(t *testing.T) {
	w := newWorld(t)
	store := &dies{Store: w.store}
	w.tune = func(cfg *Config) { still(cfg); cfg.DeleteRate = 1 << 30 }
	a := w.start(store)
	const inc = metadata.Incarnation(77)
	end := uint64(3 * slotsNoted)
	w.put(metadata.ChainKey(inc), metadata.Chain{Checkpoint: end - 1, End: &end})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	store.cancel = cancel
	store.left.Store(2*slotsNoted + 50)
	if err := a.collectSealed(ctx); err == nil {
		t.Fatal("it was cut short and says nothing")
	}
	if c := w.chain(inc); c.Deleted != 2*slotsNoted || c.Collected {
		t.Fatalf("written down: %+v", c)
	}
	if err := a.collectSealed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := w.chain(inc); c.Deleted != end-slotsKept || !c.Collected {
		t.Errorf("in the end: %+v", c)
	}
}

// Slots that the list has no room for are trimmed all the same, and then nothing
// more is.
func TestMoreSlotsThanAreListed(t *testing.T) {
	var g garbage
	for slot := range uint64(slotsMax + 100) {
		g.slot(slot)
	}
	if len(g.slots) != slotsMax {
		t.Fatalf("%d slots are listed", len(g.slots))
	}
	for _, mark := range []uint64{10, slotsMax, slotsMax + 50, slotsMax + 100} {
		if !g.freeable(mark) {
			t.Errorf("nothing to free below %d", mark)
		}
		g.publish(mark)
		if g.freeable(mark) {
			t.Errorf("something is left below the mark %d", mark)
		}
	}
	if g.freeable(1 << 40) {
		t.Error("something is left")
	}
	if g.slot(1 << 20); !g.freeable(1<<20 + 1) {
		t.Error("a new slot is not listed")
	}
}
