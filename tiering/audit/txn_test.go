package audit_test

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"testing/synctest"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

func transactional(raw []byte) ([]byte, batch.Header) {
	raw[22] |= 0x10
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	h, err := batch.Parse(raw)
	if err != nil {
		panic(err)
	}
	return raw, h
}

// transact writes a transaction of one record and ends it.
func transact(t *testing.T, p *tiering.Partition, pid int64, epoch int16, commit bool) {
	t.Helper()
	g, err := p.GuardTxn(pid, epoch, true)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := makeBatch(pid, epoch, 0, 7, "value")
	raw, h := transactional(raw)
	if _, err := p.AppendTxn(raw, h, 0, false, g); err != nil {
		t.Fatal(err)
	}
	p.UnguardTxn(g)
	a, err := p.AppendMarker(tiering.TxnMarker{Marker: batch.Marker{ProducerID: pid, ProducerEpoch: epoch + 1, Commit: commit}, TransactionVersion: 2}, 8, false)
	if err != nil {
		t.Fatal(err)
	}
	if <-a.Done(); a.Err() != nil {
		t.Fatal(a.Err())
	}
}

// A log of transactions, with so many aborted ones that there is a page of them,
// over a change of leader.
func TestTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start()
		p := w.mustLead(a, 0)
		for i := range 2*wal.PageEntries + 50 {
			transact(t, p, 5, int16(i), i%5 == 4)
			if i%5 != 4 && i%100 == 1 {
				transact(t, p, int64(100+i), 0, false)
			}
		}
		a.kill()
		b := w.start()
		p = w.mustLead(b, 0)
		for i := range 2 * wal.PageEntries / 4 {
			transact(t, p, 6, int16(i), false)
		}
		g, err := p.GuardTxn(9, 0, true)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := makeBatch(9, 0, 0, 7, "open")
		raw, h := transactional(raw)
		if _, err := p.AppendTxn(raw, h, 0, false, g); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		expect(t, w.audit(w.config()))
		key, found := "", false
		for number := range uint32(20) {
			key = wal.PageKey(w.tp(0), 1, number)
			if b, err := w.bucket.Get(t.Context(), key, 0, -1); err == nil && string(b[:8]) == "TIDEABPG" {
				found = true
				break
			}
		}
		if !found {
			t.Fatal("no page of aborted transactions")
		}
		page := w.get(key)
		w.delete(key)
		expect(t, w.audit(w.config()), audit.KindPage)
		w.create(key, page)
		cfg := w.config()
		cfg.Quick = true
		expect(t, w.audit(cfg))
	})
}

// Rows that say of a marker what the marker does not.
func TestMarkersInside(t *testing.T) {
	right := batch.Marker{ProducerID: 5, ProducerEpoch: 1, CoordinatorEpoch: 4}
	for name, c := range map[string]struct {
		change func(m *batch.Marker)
		kinds  []string
	}{
		"as it should be":   {func(*batch.Marker) {}, nil},
		"commit for abort":  {func(m *batch.Marker) { m.Commit = true }, []string{audit.KindTransaction}},
		"coordinator epoch": {func(m *batch.Marker) { m.CoordinatorEpoch++ }, []string{audit.KindTransaction}},
		"of another":        {func(m *batch.Marker) { m.ProducerID++ }, []string{audit.KindTransaction, audit.KindProducer}},
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
				data, _ := makeBatch(5, 0, 0, 1000, "v")
				data, _ = transactional(data)
				m := right
				c.change(&m)
				end, _ := batch.EncodeMarker(m, 1001)
				batch.SetOffset(data, 0, 0)
				batch.SetOffset(end, 1, 0)
				e := wal.Extent{Partition: w.tp(0), Rows: []wal.Row{
					{Len: int32(len(data)), MaxTimestamp: 1000, ProducerID: 5, Transactional: true},
					{Len: int32(len(end)), MaxTimestamp: 1001, ProducerID: 5, ProducerEpoch: 1, BaseSequence: -1, Transactional: true, Control: true, CoordinatorEpoch: 4},
				}}
				data = append(data, end...)
				e.Len, e.RawLen, e.CRC = int64(len(data)), int64(len(data)), crc32.Checksum(data, castagnoli)
				h := &wal.Head{Kind: wal.Data, Cluster: w.cluster, Incarnation: inc, Slot: 2, Writer: inc, Previous: open.Digest,
					Extents: []wal.Extent{e}, DataLen: int64(len(data))}
				w.create(wal.SlotKey(inc, 2), append(wal.EncodeHead(h), data...))
				expect(t, w.audit(w.config()), c.kinds...)
			})
		})
	}
}
