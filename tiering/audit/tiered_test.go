package audit_test

import (
	"context"
	"hash/crc32"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// tiny makes tiering, trimming and collection a matter of moments.
func tiny(cfg *tiering.Config) {
	cfg.TierInterval, cfg.TierAge = 50*time.Millisecond, 150*time.Millisecond
	cfg.SegmentBytes, cfg.SegmentBytesMax, cfg.BlockBytes = 8000, 16000, 1500
	cfg.CheckpointInterval, cfg.CollectInterval = 200*time.Millisecond, 100*time.Millisecond
	cfg.SweepInterval, cfg.SweepAge = time.Second, time.Second
	cfg.AbandonedAge = time.Hour // these worlds register no brokers
}

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// keys lists the bucket.
func (w *world) keys(prefix string) (keys []string) {
	w.t.Helper()
	infos, err := w.bucket.List(context.Background(), prefix, "", 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range infos {
		keys = append(keys, o.Key)
	}
	return keys
}

// tiered is build, with everything in segments, and nobody left alive.
func tiered(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.tune = tiny
	_, _, c := w.build()
	time.Sleep(10 * time.Second)
	c.kill()
	return w
}

func TestTieredLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := tiered(t)
		r := w.audit(w.config())
		expect(t, r)
		const batches = 100 + 40 + 30 + 5 + 20 + 3 + 20
		if r.Totals.Batches != batches || r.Totals.Records != 3*batches || r.Totals.Segments == 0 || r.Totals.Extents > 0 {
			t.Errorf("totals %+v", r.Totals)
		}
		if len(r.Strays) > 0 {
			t.Errorf("strays: %+v", r.Strays)
		}
		if len(w.keys("s/")) == 0 || len(w.keys("x/")) == 0 {
			t.Errorf("segments %v, shared %v", w.keys("s/"), w.keys("x/"))
		}
		if n := len(w.keys("w/")); n > 3*9+12 {
			t.Errorf("%d write-ahead objects are left", n)
		}
	})
}

// What is wrong with a segment is seen.
func TestSegmentDamage(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(w *world, own, shared string)
		kinds []string
		quick []string
	}{
		"a block changed":   {func(w *world, own, _ string) { w.flip(own, len(w.get(own))-5) }, []string{audit.KindExtentDamaged}, nil},
		"an index changed":  {func(w *world, own, _ string) { w.flip(own, 100) }, []string{audit.KindSegment}, []string{audit.KindSegment}},
		"cut short":         {func(w *world, own, _ string) { w.replace(own, w.get(own)[:len(w.get(own))-1]) }, []string{audit.KindExtentDamaged}, nil},
		"gone":              {func(w *world, own, _ string) { w.delete(own) }, []string{audit.KindObjectMissing}, []string{audit.KindObjectMissing}},
		"a shared one gone": {func(w *world, _, shared string) { w.delete(shared) }, []string{audit.KindObjectMissing}, []string{audit.KindObjectMissing}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := tiered(t)
				c.do(w, w.keys("s/")[0], w.keys("x/")[0])
				expect(t, w.audit(w.config()), c.kinds...)
				cfg := w.config()
				cfg.Quick = true
				expect(t, w.audit(cfg), c.quick...)
			})
		})
	}
}

// A segment that holds other batches than it was made from is seen, however right
// its own checksums are.
func TestSegmentDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		inc := w.newChain()
		raw, h := makeBatch(-1, -1, -1, 7, "value")
		stored := raw
		seg := &wal.SegmentHead{Cluster: w.cluster, Incarnation: inc, ID: wal.NewULID(time.Now()), DataLen: int64(len(stored)), DataCRC: crc(stored)}
		data, err := tiering.Digest(raw)
		if err != nil {
			t.Fatal(err)
		}
		data.Sum++
		seg.Sections = []wal.Section{{Partition: w.tp(0), Data: data, Blocks: []wal.Block{
			{Len: int64(len(stored)), RawLen: int64(len(stored)), Last: h.LastOffset(), MaxTimestamp: 7, CRC: crc(stored)},
		}}}
		head, refs, err := wal.EncodeSegmentHead(seg)
		if err != nil {
			t.Fatal(err)
		}
		w.create(wal.SegmentKey(w.tp(0), &refs[0]), append(head, stored...))
		rows := []wal.Row{{Len: int32(len(raw)), MaxTimestamp: 7, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}}
		previous := w.startHead(inc).Digest
		for i, h := range []*wal.Head{
			{Records: []wal.Record{{Type: wal.Open, Partition: w.tp(0)}}},
			{DataLen: int64(len(raw)), Extents: []wal.Extent{
				{Partition: w.tp(0), Len: int64(len(raw)), RawLen: int64(len(raw)), CRC: crc(raw), Rows: rows},
			}},
			{Records: []wal.Record{{Type: wal.Add, Partition: w.tp(0), Segment: &refs[0]}}},
		} {
			h.Kind, h.Incarnation, h.Slot, h.Writer, h.Previous = wal.Data, inc, uint64(i+1), inc, previous
			w.craft(h)
			previous = h.Digest
		}
		w.put(metadata.PartitionKey(w.tp(0)), metadata.Partition{Owners: []metadata.Owner{{Incarnation: inc}}})
		expect(t, w.audit(w.config()), audit.KindDigest)
	})
}

// Segments that nobody names are strays, those of deleted topics are owed.
func TestSegmentStrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := tiered(t)
		id := wal.NewULID(time.Now())
		shared := w.keys("x/")[0]
		w.create(shared[:len(shared)-26]+id.String(), w.get(shared))
		w.create(wal.SegmentKey(w.tp(0), &wal.SegmentRef{ID: id}), []byte("x"))
		w.create(wal.SegmentKey(metadata.TopicPartition{Topic: metadata.TopicID{9}}, &wal.SegmentRef{ID: id}), []byte("xyz"))
		r := w.audit(w.config())
		expect(t, r)
		if r.Totals.Strays != 2 || r.Totals.OwedObjects != 1 || r.Totals.OwedBytes != 3 {
			t.Errorf("%+v\n%s", r.Totals, text(r))
		}
		time.Sleep(2 * time.Hour)
		r = w.audit(w.config())
		expect(t, r, audit.KindStray)
		for _, s := range r.Strays {
			if !strings.Contains(s.Reason, "segment that no manifest names") {
				t.Errorf("stray %+v", s)
			}
		}
	})
}

// A log whose start was raised, in the middle of a segment and of a batch, is
// clean; what waits to be deleted is owed, whatever its age, and nothing that is
// missing above the log start goes unnoticed.
func TestLogStartRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(cfg *tiering.Config) {
			tiny(cfg)
			cfg.DeleteGrace, cfg.SweepInterval = 1000*time.Hour, 1000*time.Hour
		}
		_, _, c := w.build()
		time.Sleep(10 * time.Second)
		before := w.audit(w.config())
		var ends [2]int64
		for i := range ends {
			p, err := c.Partition(w.tp(int32(i)))
			if err != nil {
				t.Fatal(err)
			}
			ends[i] = p.Offsets().HighWatermark
			if _, err := p.DeleteRecords(t.Context(), ends[i]/2+1); err != nil {
				t.Fatal(err)
			}
		}
		r := w.audit(w.config())
		expect(t, r)
		if r.Totals.OwedObjects == 0 || r.Totals.Records >= before.Totals.Records || r.Totals.Records < (ends[0]+ends[1])/2-2 {
			t.Errorf("totals %+v, before %+v", r.Totals, before.Totals)
		}
		time.Sleep(3 * time.Hour)
		r = w.audit(w.config())
		expect(t, r)
		if len(r.Strays) > 0 || r.Totals.OwedObjects == 0 {
			t.Errorf("owed %d, strays %+v", r.Totals.OwedObjects, r.Strays)
		}
		c.kill()
		w.delete(w.keys("s/")[len(w.keys("s/"))-1])
		expect(t, w.audit(w.config()), audit.KindObjectMissing)
	})
}

// All of a log may be gone.
func TestLogEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(cfg *tiering.Config) { tiny(cfg); cfg.DeleteGrace = time.Second }
		_, _, c := w.build()
		time.Sleep(10 * time.Second)
		for i := range int32(2) {
			p, err := c.Partition(w.tp(i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.DeleteRecords(t.Context(), tiering.HighWatermark); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		c.kill()
		r := w.audit(w.config())
		expect(t, r)
		if r.Totals.Records > 0 || r.Totals.OwedObjects > 0 || len(r.Strays) > 0 {
			t.Errorf("totals %+v, strays %+v", r.Totals, r.Strays)
		}
		if left := append(w.keys("s/"), w.keys("x/")...); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}
