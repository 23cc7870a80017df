package audit_test

import (
	"context"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

func TestCleanLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.build()
		r := w.audit(w.config())
		expect(t, r)
		if len(r.Strays) > 0 {
			t.Errorf("strays: %+v", r.Strays)
		}
		const batches = 100 + 40 + 30 + 5 + 20 + 3 + 20
		if r.Totals.Batches != batches || r.Totals.Records != 3*batches || r.Totals.Partitions != 2 || r.Totals.Chains != 3 || r.Totals.ChainsSealed != 2 {
			t.Errorf("totals %+v", r.Totals)
		}
		if len(r.Topics) != 1 || r.Topics[0].Name != "orders" || r.Topics[0].Records != 3*batches {
			t.Errorf("topics %+v", r.Topics)
		}
		quick := w.config()
		quick.Quick = true
		r = w.audit(quick)
		expect(t, r)
		if r.Totals.Records != 3*batches || r.Totals.Batches != 0 {
			t.Errorf("quick totals %+v", r.Totals)
		}
	})
}

func TestStrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b, c := w.build()
		end := *w.chain(a.inc).End
		w.craft(&wal.Head{Kind: wal.Data, Incarnation: a.inc, Slot: end + 1, Writer: a.inc, Acknowledged: end - 1})
		w.create(wal.SlotKey(b.inc, *w.chain(b.inc).End), []byte("x"))
		open := uint64(len(w.slots(c.inc)))
		w.craft(&wal.Head{Kind: wal.Data, Incarnation: c.inc, Slot: open + 1, Writer: c.inc})
		w.create(wal.SlotKey(7, 0), []byte("x"))
		w.create("w/00/no-chain", []byte("x"))
		w.create(wal.CheckpointKey(a.inc, 1), []byte("x"))
		w.create(wal.CheckpointKey(c.inc, 1<<20), []byte("x"))
		w.create(wal.PageKey(w.tp(0), 1, 0), []byte("x"))
		w.create(wal.PageKey(metadata.TopicPartition{Topic: metadata.TopicID{9}}, 1, 0), []byte("x"))
		r := w.audit(w.config())
		expect(t, r)
		if r.Totals.Strays != 8 || len(r.Strays) != 8 || r.Totals.OwedObjects != 1 {
			t.Errorf("strays\n%s", text(r))
		}
		time.Sleep(2 * time.Hour)
		r = w.audit(w.config())
		expect(t, r, audit.KindStray)
		if r.Totals.Problems != 8 {
			t.Errorf("strays past the grace\n%s", text(r))
		}
		for _, s := range r.Strays {
			if s.Expired != 1 || s.Oldest < 7000 {
				t.Errorf("stray %+v", s)
			}
		}
	})
}

// An extent's batches are checked, not only its checksum: a leader that patched
// wrong offsets stored them under a right one.
func TestBatchesInside(t *testing.T) {
	for name, c := range map[string]struct {
		base  int64
		epoch int32
		seqs  []int32
		flip  bool
		kinds []string
	}{
		"as they should be":       {0, 0, []int32{0, 1}, false, nil},
		"offset not patched":      {5, 0, []int32{0, 1}, false, []string{audit.KindBatch}},
		"epoch not patched":       {0, 3, []int32{0, 1}, false, []string{audit.KindBatch}},
		"sequence gap":            {0, 0, []int32{0, 2}, false, []string{audit.KindSequence}},
		"sequence repeated":       {0, 0, []int32{0, 0}, false, []string{audit.KindSequence}},
		"does not begin at zero":  {0, 0, []int32{4, 5}, false, []string{audit.KindSequence}},
		"producer's CRC mismatch": {0, 0, []int32{0, 1}, true, []string{audit.KindBatch}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				inc := w.newChain()
				w.put(metadata.PartitionKey(w.tp(0)), metadata.Partition{Owners: []metadata.Owner{{Incarnation: inc}}})
				start := w.startHead(inc)
				open := &wal.Head{Kind: wal.Data, Incarnation: inc, Slot: 1, Writer: inc, Previous: start.Digest,
					Records: []wal.Record{{Type: wal.Open, Partition: w.tp(0)}}}
				w.craft(open)
				e := wal.Extent{Partition: w.tp(0)}
				var data []byte
				for i, seq := range c.seqs {
					raw, h := makeBatch(5, 0, seq, 1000, "v")
					batch.SetOffset(raw, c.base+int64(i), c.epoch)
					if c.flip {
						raw[len(raw)-1] ^= 1
					}
					data = append(data, raw...)
					e.Rows = append(e.Rows, wal.Row{Len: int32(len(raw)), MaxTimestamp: h.MaxTimestamp, ProducerID: 5, BaseSequence: seq})
				}
				e.Len, e.RawLen, e.CRC = int64(len(data)), int64(len(data)), crc32.Checksum(data, castagnoli)
				h := &wal.Head{Kind: wal.Data, Cluster: w.cluster, Incarnation: inc, Slot: 2, Writer: inc, Previous: open.Digest,
					Extents: []wal.Extent{e}, DataLen: int64(len(data))}
				w.create(wal.SlotKey(inc, 2), append(wal.EncodeHead(h), data...))
				expect(t, w.audit(w.config()), c.kinds...)
			})
		})
	}
}

// A manifest long enough to have pages.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := w.start()
		p := &producer{id: 3}
		if err := p.write(w.mustLead(n, 0), 2*wal.PageEntries+100); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		r := w.audit(w.config())
		expect(t, r)
		if r.Totals.Pages != 1 || r.Totals.Extents != 2*wal.PageEntries+100 {
			t.Errorf("totals %+v", r.Totals)
		}
		key := wal.PageKey(w.tp(0), 0, 0)
		page := w.get(key)
		w.flip(key, 90)
		expect(t, w.audit(w.config()), audit.KindPage)
		w.delete(key)
		expect(t, w.audit(w.config()), audit.KindPage)
		w.create(key, page)
		expect(t, w.audit(w.config()))
	})
}

func TestCannotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.build()
		cfg := w.config()
		cfg.Topic = "no-such"
		if _, err := audit.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no-such") {
			t.Errorf("unknown topic: %v", err)
		}
		cfg = w.config()
		cfg.Store = down{w.bucket}
		if _, err := audit.Run(t.Context(), cfg); err == nil {
			t.Error("a bucket that does not answer gave a report")
		}
		w.replace("_cluster/id", []byte(`{"cluster_id":"another"}`))
		if _, err := audit.Run(t.Context(), w.config()); !errors.Is(err, metadata.ErrIdentity) {
			t.Errorf("another cluster's bucket: %v", err)
		}
	})
}

// down answers for the identity and for nothing else.
type down struct{ object.Store }

func (d down) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if strings.HasPrefix(key, "w/") {
		return nil, errors.New("connection refused")
	}
	return d.Store.Get(ctx, key, pos, length)
}
