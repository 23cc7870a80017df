package audit_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// damage is done to a log that build made; kinds is what must be reported, full
// and by a quick audit.
type damage struct {
	name  string
	do    func(w *world, a, b, c *node)
	kinds []string
	quick []string
}

// slots returns the heads of a chain.
func (w *world) slots(inc metadata.Incarnation) (heads []*wal.Head) {
	for slot := uint64(0); ; slot++ {
		b, err := w.bucket.Get(context.Background(), wal.SlotKey(inc, slot), 0, -1)
		if err != nil {
			return heads
		}
		h, err := wal.DecodeHead(b)
		if err != nil {
			w.t.Fatal(err)
		}
		heads = append(heads, h)
	}
}

func (w *world) chain(inc metadata.Incarnation) metadata.Chain {
	w.t.Helper()
	c, _, err := metadata.LoadChain(context.Background(), w.kv, inc)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// dataSlot is a slot with records, somewhere in the chain: before its checkpoint
// or behind.
func (w *world) dataSlot(n *node, behind bool) *wal.Head {
	w.t.Helper()
	for _, h := range w.slots(n.inc) {
		if h.Slot > 3 && len(h.Extents) > 0 && (h.Slot >= w.chain(n.inc).Checkpoint) == behind {
			return h
		}
	}
	w.t.Fatalf("chain %s has no such slot", n.inc)
	return nil
}

// craft writes a head of an own making.
func (w *world) craft(h *wal.Head) {
	h.Cluster = w.cluster
	w.create(wal.SlotKey(h.Incarnation, h.Slot), wal.EncodeHead(h))
}

var damages = []damage{
	{"a data object below the checkpoint deleted", func(w *world, a, b, c *node) {
		w.delete(wal.SlotKey(a.inc, w.dataSlot(a, false).Slot))
	}, []string{audit.KindSlotMissing, audit.KindObjectMissing}, []string{audit.KindSlotMissing}},
	{"a data object of an open chain deleted", func(w *world, a, b, c *node) {
		w.delete(wal.SlotKey(c.inc, w.dataSlot(c, true).Slot))
	}, []string{audit.KindSlotMissing, audit.KindRebuild}, []string{audit.KindSlotMissing, audit.KindRebuild}},
	{"a bit of data flipped", func(w *world, a, b, c *node) {
		h := w.dataSlot(b, false)
		w.flip(wal.SlotKey(b.inc, h.Slot), h.Len+7)
	}, []string{audit.KindExtentDamaged}, nil},
	{"an object cut short", func(w *world, a, b, c *node) {
		h := w.dataSlot(c, true)
		key := wal.SlotKey(c.inc, h.Slot)
		w.replace(key, w.get(key)[:h.Len+5])
	}, []string{audit.KindExtentDamaged}, nil},
	{"a bit of a head below the checkpoint flipped", func(w *world, a, b, c *node) {
		w.flip(wal.SlotKey(b.inc, w.dataSlot(b, false).Slot), 170)
	}, []string{audit.KindHeadDamaged}, []string{audit.KindHeadDamaged}},
	{"a bit of a head that replay needs flipped", func(w *world, a, b, c *node) {
		w.flip(wal.SlotKey(c.inc, w.dataSlot(c, true).Slot), 40)
	}, []string{audit.KindHeadDamaged, audit.KindRebuild}, []string{audit.KindHeadDamaged, audit.KindRebuild}},
	{"a head put in place of another", func(w *world, a, b, c *node) {
		h := w.slots(b.inc)[2]
		h.Acknowledged = 0 // other bytes, and valid in themselves
		key := wal.SlotKey(b.inc, 2)
		w.replace(key, append(wal.EncodeHead(h), w.get(key)[h.Len:]...))
	}, []string{audit.KindChainBroken}, []string{audit.KindChainBroken}},
	{"the fence removed", func(w *world, a, b, c *node) {
		w.delete(wal.SlotKey(a.inc, *w.chain(a.inc).End))
	}, []string{audit.KindFenceMissing}, []string{audit.KindFenceMissing}},
	{"the CLOSE removed", func(w *world, a, b, c *node) {
		w.delete(wal.SlotKey(b.inc, *w.chain(b.inc).End-1))
	}, []string{audit.KindSlotMissing, audit.KindFenceMissing}, []string{audit.KindSlotMissing, audit.KindFenceMissing}},
	{"data where the fence belongs", func(w *world, a, b, c *node) {
		end := *w.chain(a.inc).End
		w.delete(wal.SlotKey(a.inc, end))
		w.craft(&wal.Head{Kind: wal.Data, Incarnation: a.inc, Slot: end, Writer: a.inc})
	}, []string{audit.KindChainEnd}, []string{audit.KindChainEnd}},
	{"a slot acknowledged beyond the end", func(w *world, a, b, c *node) {
		end := *w.chain(a.inc).End
		w.craft(&wal.Head{Kind: wal.Data, Incarnation: a.inc, Slot: end + 2, Writer: a.inc, Acknowledged: end + 1})
	}, []string{audit.KindAckBeyondEnd}, []string{audit.KindAckBeyondEnd}},
	{"the recorded end moved", func(w *world, a, b, c *node) {
		chain := w.chain(a.inc)
		*chain.End -= 2
		w.put(metadata.ChainKey(a.inc), chain)
	}, []string{audit.KindChainEnd, audit.KindAckBeyondEnd, audit.KindLeadership, audit.KindManifest},
		[]string{audit.KindChainEnd, audit.KindAckBeyondEnd, audit.KindLeadership, audit.KindManifest}},
	{"the newest checkpoint deleted", func(w *world, a, b, c *node) {
		w.delete(wal.CheckpointKey(c.inc, w.chain(c.inc).Checkpoint))
	}, []string{audit.KindCheckpoint, audit.KindRebuild}, []string{audit.KindCheckpoint, audit.KindRebuild}},
	{"a bit of a checkpoint flipped", func(w *world, a, b, c *node) {
		w.flip(wal.CheckpointKey(b.inc, w.chain(b.inc).Checkpoint), 80)
	}, []string{audit.KindCheckpoint}, []string{audit.KindCheckpoint}},
	{"a checkpoint that tells another story", func(w *world, a, b, c *node) {
		slot := w.chain(b.inc).Checkpoint
		states, err := wal.DecodeCheckpoint(w.get(wal.CheckpointKey(b.inc, slot)), w.cluster, b.inc, slot)
		if err != nil {
			w.t.Fatal(err)
		}
		s := states[0]
		s.Tail = s.Tail[:len(s.Tail)-1]
		s.End = s.Tail[len(s.Tail)-1].Last + 1
		enc, err := wal.EncodeCheckpoint(w.cluster, b.inc, slot, 1, wal.AppendToCheckpoint(nil, wal.AppendState(nil, s)))
		if err != nil {
			w.t.Fatal(err)
		}
		w.replace(wal.CheckpointKey(b.inc, slot), enc)
	}, []string{audit.KindCheckpoint}, []string{audit.KindCheckpoint}},
	{"producer state in the checkpoint altered", func(w *world, a, b, c *node) {
		w.editCheckpoint(c, func(s *wal.PartitionState) {
			for i := range s.Producers {
				s.Producers[i].Epoch++
			}
		})
	}, []string{audit.KindProducer}, nil},
	{"an extent dropped from the manifest", func(w *world, a, b, c *node) {
		w.editCheckpoint(c, func(s *wal.PartitionState) { s.Tail = slices.Delete(s.Tail, 3, 4) })
	}, []string{audit.KindManifest, audit.KindSequence}, []string{audit.KindManifest}},
	{"trim mark above the checkpoint", func(w *world, a, b, c *node) {
		chain := w.chain(c.inc)
		chain.Trim = chain.Checkpoint + 1
		w.put(metadata.ChainKey(c.inc), chain)
	}, []string{audit.KindTrim}, []string{audit.KindTrim}},
	{"an OPEN whose base overlaps", func(w *world, a, b, c *node) {
		d := w.newChain()
		w.open(d, 0, 300)
	}, []string{audit.KindLeadership, audit.KindRebuild}, []string{audit.KindLeadership, audit.KindRebuild}},
	{"an OPEN that the owner list does not have", func(w *world, a, b, c *node) {
		d := w.newChain()
		inc, head := d, w.startHead(d)
		w.craft(&wal.Head{Kind: wal.Data, Incarnation: inc, Slot: 1, Writer: inc, Previous: head.Digest,
			Records: []wal.Record{{Type: wal.Open, Partition: w.tp(0), Epoch: 9, Base: (100 + 30 + 3 + 20) * 3}}})
	}, []string{audit.KindOwners}, []string{audit.KindOwners}},
	{"a chain's key deleted", func(w *world, a, b, c *node) {
		if _, err := w.kv.Txn(context.Background(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.ChainKey(a.inc))}}); err != nil {
			w.t.Fatal(err)
		}
	}, []string{audit.KindManifest}, []string{audit.KindManifest}},
	{"the bucket's identity deleted", func(w *world, a, b, c *node) { w.delete("_cluster/gen/1") },
		[]string{audit.KindIdentity}, []string{audit.KindIdentity}},
}

// editCheckpoint changes the states of the newest checkpoint of a chain.
func (w *world) editCheckpoint(n *node, edit func(*wal.PartitionState)) {
	w.t.Helper()
	slot := w.chain(n.inc).Checkpoint
	key := wal.CheckpointKey(n.inc, slot)
	states, err := wal.DecodeCheckpoint(w.get(key), w.cluster, n.inc, slot)
	if err != nil {
		w.t.Fatal(err)
	}
	var enc []byte
	for _, s := range states {
		edit(s)
		enc = wal.AppendToCheckpoint(enc, wal.AppendState(nil, s))
	}
	if enc, err = wal.EncodeCheckpoint(w.cluster, n.inc, slot, len(states), enc); err != nil {
		w.t.Fatal(err)
	}
	w.replace(key, enc)
}

func (w *world) newChain() metadata.Incarnation {
	w.next++
	w.put(metadata.ChainKey(w.next), metadata.Chain{})
	return w.next
}

func (w *world) startHead(inc metadata.Incarnation) *wal.Head {
	h := &wal.Head{Kind: wal.Start, Incarnation: inc, Writer: inc}
	w.craft(h)
	return h
}

// open crafts a chain that has opened a partition at base, listed as owner.
func (w *world) open(inc metadata.Incarnation, p int32, base int64) {
	start := w.startHead(inc)
	entries, _, err := w.kv.Get(context.Background(), metadata.PartitionKey(w.tp(p)))
	var part metadata.Partition
	if err == nil {
		err = json.Unmarshal(entries[0].Value, &part)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	newest, _ := part.Newest()
	part.Owners = append(part.Owners, metadata.Owner{Incarnation: inc, Epoch: newest.Epoch + 1})
	w.put(metadata.PartitionKey(w.tp(p)), part)
	w.craft(&wal.Head{Kind: wal.Data, Incarnation: inc, Slot: 1, Writer: inc, Previous: start.Digest,
		Records: []wal.Record{{Type: wal.Open, Partition: w.tp(p), Epoch: newest.Epoch + 1, Base: base}}})
}

func TestDamage(t *testing.T) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, b, c := w.build()
				c.kill() // its chain stays open, as after a kill of all brokers
				d.do(w, a, b, c)
				expect(t, w.audit(w.config()), d.kinds...)
				quick := w.config()
				quick.Quick = true
				expect(t, w.audit(quick), d.quick...)
			})
		})
	}
}
