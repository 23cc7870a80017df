package tiering

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// tiny makes everything that takes minutes and megabytes take a moment.
func tiny(cfg *Config) {
	cfg.TierInterval, cfg.TierAge = 100*time.Millisecond, 300*time.Millisecond
	cfg.SegmentBytes, cfg.SegmentBytesMax, cfg.BlockBytes = 4000, 8000, 500
	cfg.CheckpointInterval, cfg.CollectInterval = 500*time.Millisecond, 300*time.Millisecond
	cfg.SweepInterval, cfg.SweepAge = time.Second, 2*time.Second
	cfg.DeleteGrace, cfg.RetentionInterval = 200*time.Millisecond, 100*time.Millisecond
	cfg.Collects = func() bool { return true }
}

func newTieringWorld(t *testing.T) *world {
	w := newWorld(t)
	w.tune, w.listed, w.opened = tiny, true, w.trimOwners
	return w
}

// trimOwners has n drop older owner entries once its checkpoint describes a
// claim, as the cluster code does, and live predecessors forget.
func (w *world) trimOwners(n *node) {
	n.OnCheckpoint(func(claims []Claim) {
		for _, c := range claims {
			owners, err := w.chains.Owners(context.Background())
			if err != nil {
				w.t.Error(err)
				return
			}
			own := metadata.Owner{Incarnation: n.cfg.Incarnation, Epoch: c.Epoch}
			if r := metadata.TrimOwners(context.Background(), w.kv, []metadata.OwnerEntry{{TP: c.Partition, Owner: own}}); r[0].Err != nil {
				continue
			}
			w.mu.Lock()
			for _, o := range owners[c.Partition] {
				if l := w.logs[o.Incarnation]; l != nil && o != own {
					l.Forget([]Claim{{c.Partition, o.Epoch}})
				}
			}
			w.mu.Unlock()
		}
	})
}

// seen is a copy of the manifest.
func (p *Partition) seen() *manifest {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.manifest.clone()
}

// keys lists what lies under a prefix.
func (w *world) keys(prefix string) (keys []string) {
	w.t.Helper()
	infos, err := w.store.List(context.Background(), prefix, "", 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range infos {
		keys = append(keys, o.Key)
	}
	return keys
}

// writeSpread writes values, a flush each.
func writeSpread(t *testing.T, p *Partition, values ...string) {
	t.Helper()
	for i := range values {
		write(t, p, values[i])
	}
}

// What was written is tiered, its write-ahead objects go, and it reads the same,
// from here and after a takeover.
func TestTierOwnAndShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		large, small := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
		want, few := numbered("large", 200), numbered("small", 5)
		writeSpread(t, large, want...)
		writeSpread(t, small, few...)
		time.Sleep(3 * time.Second)
		if n := a.untieredBytes(); n > 0 {
			t.Errorf("%d bytes are not tiered", n)
		}
		if s, x := w.keys("s/"), w.keys("x/"); len(s) < 2 || len(x) == 0 {
			t.Errorf("segments %v, shared %v", s, x)
		}
		if slots := w.keys("w/"); len(slots) > 12 {
			t.Errorf("%d write-ahead objects are left of %d", len(slots), a.committed.Load())
		}
		equal(t, readAll(t, large, 0, 1<<20), want)
		equal(t, readAll(t, large, 77, 300), want[77:])
		equal(t, readAll(t, small, 0, 1<<20), few)
		write(t, large, "later")
		want = append(want, "later")
		a.kill()
		b := w.start(w.store)
		p, q := w.lead(b, partition(0), owners(a, b)), w.lead(b, partition(1), owners(a, b))
		equal(t, readAll(t, p, 0, 1<<20), want)
		equal(t, readAll(t, q, 0, 1<<20), few)
		// The heir tiers what it inherited; then the dead chain goes, but for its end.
		time.Sleep(5 * time.Second)
		chain := w.chain(a.cfg.Incarnation)
		if !chain.Inherited || !chain.Collected || chain.Trim < *chain.End-slotsKept {
			t.Errorf("the sealed chain: %+v, end %d", chain, *chain.End)
		}
		left := 0
		for _, key := range w.keys("w/") {
			if strings.Contains(key, a.cfg.Incarnation.String()) {
				left++
			}
		}
		if left == 0 || left > slotsKept+1 {
			t.Errorf("%d slots are left of the sealed chain, want the fence and at most %d", left, slotsKept)
		}
		equal(t, readAll(t, p, 0, 1<<20), want)
	})
}

// An idle broker writes nothing: tiering and trimming come to an end.
func TestTieringComesToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		writeSpread(t, p, numbered("v", 30)...)
		time.Sleep(10 * time.Second)
		slots := a.committed.Load()
		time.Sleep(time.Hour)
		if now := a.committed.Load(); now != slots {
			t.Errorf("an idle chain grew from %d to %d slots", slots, now)
		}
		if a.tiering.Load() {
			t.Error("the tiering timer runs with nothing to tier")
		}
	})
}

// Offsets by timestamp are exact to the record, wherever the record lies.
func TestTimestampsInSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		for i := range 300 {
			raw, h := makeBatch(-1, -1, -1, int64(1000+10*i), fmt.Sprint("v", i), "second")
			ap, err := p.Append(raw, h, 0, false)
			if err != nil {
				t.Fatal(err)
			}
			<-ap.Done()
			if i == 200 {
				time.Sleep(3 * time.Second)
			}
		}
		if m := p.seen(); m.tiered < 300 || m.tiered == m.end {
			t.Fatalf("tiered %d of %d", m.tiered, m.end)
		}
		for i := range 300 {
			at, err := p.OffsetForTimestamp(t.Context(), int64(1000+10*i-3))
			if err != nil || at.Offset != int64(2*i) || at.Timestamp != int64(1000+10*i) || at.Epoch != 0 {
				t.Fatalf("offset for record %d: %+v, %v", i, at, err)
			}
		}
		if at, err := p.MaxTimestamp(t.Context()); err != nil || at.Offset != 598 {
			t.Fatalf("max timestamp: %+v, %v", at, err)
		}
	})
}

// What an heir has not tiered yet keeps the write-ahead objects of a live
// predecessor.
func TestOwedExtentsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		w.lead(a, partition(1), owners(a))
		values := numbered("v", 20)
		writeSpread(t, p, values...)
		w.tune = func(cfg *Config) { tiny(cfg); cfg.TierAge = 10 * time.Second }
		b := w.start(w.store)
		q := w.lead(b, partition(0), owners(a, b))
		other, _ := a.Partition(partition(1))
		writeSpread(t, other, numbered("more", 20)...)
		time.Sleep(5 * time.Second)
		floor, any, err := w.chains.LowestDebt(t.Context(), a.cfg.Incarnation)
		if err != nil || !any || w.chain(a.cfg.Incarnation).Trim > floor {
			t.Fatalf("debt %d, %v, %v; mark %d", floor, any, err, w.chain(a.cfg.Incarnation).Trim)
		}
		if n := len(a.releases.entries); n != 0 {
			t.Fatalf("%d releases are remembered", n)
		}
		b.tail = newMemoryTail(1)
		equal(t, readAll(t, q, 0, 1<<20), values)
		time.Sleep(15 * time.Second)
		if _, any, _ := w.chains.LowestDebt(t.Context(), a.cfg.Incarnation); any {
			t.Error("still owed after tiering")
		}
		if mark := w.chain(a.cfg.Incarnation).Trim; mark <= floor {
			t.Errorf("mark %d did not pass %d", mark, floor)
		}
		equal(t, readAll(t, q, 0, 1<<20), values)
	})
}

// A release waits for a segment that is being published, and tells of it.
func TestReleaseWhileTiering(t *testing.T) {
	for round := range 20 {
		w := newWorld(t)
		a, b := w.start(w.store), w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 20)
		writeSpread(t, p, values...)
		done := make(chan error)
		go func() {
			s, err := p.untieredRefs(t.Context(), 1<<20)
			if err == nil && len(s.refs) == 0 {
				err = ErrNotLeader
			}
			if err == nil {
				err = a.tier(t.Context(), false, []source{s})
			}
			done <- err
		}()
		time.Sleep(time.Duration(round) * 50 * time.Microsecond)
		q := w.lead(b, partition(0), owners(a, b))
		err := <-done
		if err != nil && !errors.Is(err, ErrNotLeader) {
			t.Fatal(err)
		}
		if named := q.manifest.tiered > 0; named != (err == nil) {
			t.Fatalf("published: %v; the successor has tiered %d", err, q.manifest.tiered)
		}
		equal(t, readAll(t, q, 0, 1<<20), values)
		a.kill()
		b.kill()
	}
}

// Segments that nobody names go, those that somebody names stay.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 200)
		writeSpread(t, p, values...)
		time.Sleep(2 * time.Second)
		a.kill()
		b := w.start(w.store)
		q := w.lead(b, partition(0), owners(a, b))
		id := wal.NewULID(time.Now())
		gone := partition(9)
		orphans := []string{
			wal.SegmentKey(partition(0), &wal.SegmentRef{Epoch: 0, ID: id}),
			wal.SegmentKey(partition(0), &wal.SegmentRef{Epoch: 1, ID: id}),
			wal.SegmentKey(gone, &wal.SegmentRef{Epoch: 7, ID: id}),
			wal.PageKey(partition(0), 0, 5), wal.PageKey(gone, 0, 5),
			wal.SharedKey(a.cfg.Incarnation, id),
		}
		spared := []string{
			wal.SegmentKey(partition(0), &wal.SegmentRef{Epoch: 2, ID: id}), // of a leader to come
			wal.PageKey(partition(0), 1, 5),                                 // being written
		}
		for _, key := range append(orphans, spared...) {
			if err := w.store.Create(t.Context(), key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		for _, key := range orphans {
			if _, err := w.store.Get(t.Context(), key, 0, 1); err == nil {
				t.Errorf("%s is still there", key)
			}
		}
		for _, key := range spared {
			if _, err := w.store.Get(t.Context(), key, 0, 1); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
		b.hot = newLRU[extentID](&b.tasks, 1, func([]byte) int64 { return 2 })
		equal(t, readAll(t, q, 0, 1<<20), values)
	})
}

// Manifests of many segments, of pages of segments, and of a page of extents that
// is tiered in part.
func TestPagesOfSegments(t *testing.T) {
	w := newWorld(t)
	w.tune = func(c *Config) { c.CheckpointSlots = 1 << 30; c.FlushSpacing = time.Nanosecond }
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	n := 2*wal.PageEntries + 100
	values := numbered("v", n)
	writeSpread(t, p, values...)
	if err := a.writeCheckpoint(t.Context()); err != nil { // a page of extents
		t.Fatal(err)
	}
	for range wal.PageEntries + 50 { // one after the other, through the page and beyond it
		s, err := p.untieredRefs(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.tier(t.Context(), false, []source{s}); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.manifest.pages) != 0 || p.manifest.tiered != wal.PageEntries+50 {
		t.Fatalf("%d pages, tiered %d", len(p.manifest.pages), p.manifest.tiered)
	}
	equal(t, readAll(t, p, 0, 1<<20), values)
	for p.manifest.tiered < int64(n) {
		s, err := p.untieredRefs(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.tier(t.Context(), false, []source{s}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.writeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(p.manifest.segmentPages) != 1 {
		t.Fatalf("%d pages of segments", len(p.manifest.segmentPages))
	}
	equal(t, readAll(t, p, 0, 1<<20), values)
	at, err := p.OffsetForTimestamp(t.Context(), 0)
	if err != nil || at.Offset != 0 {
		t.Fatalf("offset for timestamp: %+v, %v", at, err)
	}
	a.kill()
	b := w.start(w.store)
	equal(t, readAll(t, w.lead(b, partition(0), owners(a, b)), 0, 1<<20), values)
}

// A reader whose plan was overtaken reads the manifest again; an object that is
// still named and gone is an alarm.
func TestMissingObjects(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	values := numbered("v", 10)
	writeSpread(t, p, values...)
	a.tail = newMemoryTail(1)
	bucket := w.store.(*mem.Store)
	key := p.manifest.tail[3].Key()
	saved, err := bucket.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(t.Context(), 3, 1); !errors.Is(err, ErrDataLoss) {
		t.Fatalf("read of what is gone: %v", err)
	}
	if err := bucket.Create(t.Context(), key, saved); err != nil {
		t.Fatal(err)
	}
	s, err := p.untieredRefs(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	refs := p.manifest.tail
	if err := a.tier(t.Context(), false, []source{s}); err != nil {
		t.Fatal(err)
	}
	for i := range refs {
		if err := bucket.Delete(t.Context(), refs[i].Key()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.fetchExtent(t.Context(), &refs[3]); !errors.Is(err, ErrDataLoss) {
		t.Fatalf("the old plan: %v", err)
	}
	equal(t, readAll(t, p, 0, 1<<20), values)
}

// The ADDs of a segment that many partitions share go together.
func TestManyShareOneSegment(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	const n = 1000
	var requests []LeadRequest
	for i := range int32(n) {
		requests = append(requests, LeadRequest{Partition: partition(i), Owners: owners(a)})
	}
	if errs := a.Lead(t.Context(), requests); len(errs) > 0 {
		t.Fatal(errs)
	}
	for i := range int32(n) {
		p, _ := a.Partition(partition(i))
		raw, h := makeBatch(-1, -1, -1, 0, "v")
		if _, err := p.Append(raw, h, 0, false); err != nil {
			t.Fatal(err)
		}
	}
	last, _ := a.Partition(partition(0))
	write(t, last, "w")
	for deadline := time.Now().Add(10 * time.Second); len(a.tierCandidates(time.Now())) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not committed")
		}
	}
	before := a.committed.Load()
	shared := chooseShared(a.tierCandidates(time.Now()), time.Now().Add(time.Hour), &a.cfg)
	if err := a.tierShared(t.Context(), shared); err != nil {
		t.Fatal(err)
	}
	if n := a.untieredBytes(); n > 0 {
		t.Errorf("%d bytes are left", n)
	}
	// How many ADDs a slot takes depends on how fast slots are written here.
	if slots, segments := a.committed.Load()-before, len(w.keys("x/")); slots > n/10 || segments != 1 {
		t.Errorf("%d slots for the ADDs, %d segments", slots, segments)
	}
}
