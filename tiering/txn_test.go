package tiering

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// transactional makes a batch one of a transaction.
func transactional(raw []byte) ([]byte, batch.Header) {
	raw[22] |= 0x10
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	h, err := batch.Parse(raw)
	if err != nil {
		panic(err)
	}
	return raw, h
}

func txnBatch(pid int64, epoch int16, seq int32, values ...string) ([]byte, batch.Header) {
	raw, _ := makeBatch(pid, epoch, seq, 5, values...)
	return transactional(raw)
}

func marker(pid int64, epoch int16, coordinator int32, commit bool, version int8) TxnMarker {
	return TxnMarker{batch.Marker{ProducerID: pid, ProducerEpoch: epoch, CoordinatorEpoch: coordinator, Commit: commit}, version}
}

func settled(t *testing.T, a *Appended, err error) *Appended {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if <-a.Done(); a.Err() != nil {
		t.Fatal(a.Err())
	}
	return a
}

// The rules of Kafka's ProducerAppendInfo and of its verification, step by step.
func TestTxnRules(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	const pid = 7
	refused := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	begin := func(epoch int16, bumps bool) *TxnGuard {
		t.Helper()
		g, err := p.GuardTxn(pid, epoch, bumps)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	put := func(g *TxnGuard, epoch int16, seq int32) (*Appended, error) {
		raw, h := txnBatch(pid, epoch, seq, "v")
		return p.AppendTxn(raw, h, 0, false, g)
	}
	end := func(epoch int16, coordinator int32, commit bool, version int8) (*Appended, error) {
		return p.AppendMarker(marker(pid, epoch, coordinator, commit, version), 9, false)
	}
	stable := func(want int64) {
		t.Helper()
		if o := p.Offsets(); o.LastStable != want {
			t.Fatalf("offsets %+v, want last stable %d", o, want)
		}
	}

	_, err := put(nil, 0, 0)
	refused("nobody confirmed it", err, ErrInvalidTxnState)
	g := begin(0, false)
	if begin(0, false) != g {
		t.Fatal("two guards for one question")
	}
	m, err := end(0, 3, false, 1) // of the transaction before, to which it wrote nothing
	settled(t, m, err)
	stable(1)
	_, err = put(g, 0, 0)
	refused("a marker came between", err, ErrInvalidTxnState)
	p.UnguardTxn(g)
	p.UnguardTxn(g)
	if g = begin(0, false); g == nil {
		t.Fatal("no guard for a transaction that is not open")
	}
	_, err = put(g, 0, 4)
	refused("in the middle", err, ErrOutOfOrderSequence)
	raw, h := txnBatch(pid+1, 0, 0, "v")
	_, err = p.AppendTxn(raw, h, 0, false, g)
	refused("with somebody else's guard", err, ErrInvalidTxnState)
	ap, err := put(g, 0, 0)
	settled(t, ap, err)
	p.UnguardTxn(g)
	if len(p.guards) != 0 {
		t.Fatalf("guards %v", p.guards)
	}
	stable(1)
	if begin(0, false) != nil {
		t.Fatal("a guard for an open transaction")
	}
	ap, err = put(nil, 0, 1)
	settled(t, ap, err)
	if ap, err = put(nil, 0, 1); err != nil || !ap.Duplicate || ap.BaseOffset != 2 {
		t.Fatalf("duplicate %+v, %v", ap, err)
	}
	raw, h = makeBatch(pid, 0, 2, 0, "v")
	_, err = p.Append(raw, h, 0, false)
	refused("outside of the open transaction", err, ErrInvalidTxnState)
	raw, h = makeBatch(-1, -1, -1, 0, "v")
	ap, err = p.Append(raw, h, 0, false)
	settled(t, ap, err)
	early := begin(1, true) // the next transaction, before this one's end
	_, err = put(early, 1, 0)
	refused("a new epoch before the old one's end", err, ErrInvalidTxnState)

	_, err = end(0, 2, true, 1)
	refused("older coordinator", err, ErrCoordinatorFenced)
	_, err = end(0, 3, true, 2)
	refused("of version 2, without a new epoch", err, ErrInvalidProducerEpoch)
	stable(1)
	m, err = end(1, 3, true, 2)
	settled(t, m, err)
	stable(5)
	_, err = end(0, 4, true, 1)
	refused("older producer", err, ErrInvalidProducerEpoch)
	if m, err = end(1, 3, true, 2); err != nil || !m.Duplicate {
		t.Fatalf("the same again: %+v, %v", m, err)
	}
	settled(t, m, err)
	stable(5)
	_, err = put(nil, 0, 2)
	refused("after the end, at the old epoch", err, ErrInvalidProducerEpoch)
	_, err = p.GuardTxn(pid, 0, true)
	refused("a question for the old epoch", err, ErrInvalidProducerEpoch)
	if g = begin(1, true); g != early {
		t.Fatal("the marker of one transaction voided what was asked for the next")
	}
	p.UnguardTxn(early)
	_, err = put(g, 1, 2)
	refused("a new epoch in the middle", err, ErrOutOfOrderSequence)
	ap, err = put(g, 1, 0)
	settled(t, ap, err)
	stable(5)
	m, err = end(2, 5, false, 2)
	settled(t, m, err)
	stable(7)
	// In transactions of version 1 sequence numbers go on.
	g = begin(2, false)
	ap, err = put(g, 2, 0)
	settled(t, ap, err)
	m, err = end(2, 5, false, 1)
	settled(t, m, err)
	g = begin(2, false)
	_, err = put(g, 2, 0)
	refused("what was aborted, again", err, ErrOutOfOrderSequence)
	ap, err = put(g, 2, 1)
	settled(t, ap, err)
	stable(9)
	state := p.Producers()
	if len(state) != 1 || state[0] != (ProducerState{ID: pid, Epoch: 2, LastSequence: 1, LastTimestamp: 5, CoordinatorEpoch: 5, TxnStart: 9}) {
		t.Fatalf("producers %+v", state)
	}
	// Nothing is forgotten that has a transaction open.
	p.mu.Lock()
	p.manifest.producers.expire(1 << 62)
	p.mu.Unlock()
	if len(p.Producers()) != 1 {
		t.Fatal("the open transaction's producer was forgotten")
	}
	a.kill()
	b := w.start(w.store)
	p = w.lead(b, partition(0), owners(a, b))
	stable(9)
	if again := p.Producers(); len(again) != 1 || again[0] != state[0] {
		t.Fatalf("producers after a takeover %+v", again)
	}
	_, err = put(g, 2, 2)
	if err != nil {
		t.Fatalf("the open transaction, under a new leader: %v", err)
	}
	m, err = end(2, 5, true, 1)
	settled(t, m, err)
	stable(12)
}

// A list of aborted transactions that grew long moves to pages, is found there
// also by a successor, and is swept with what lies below the log start offset.
func TestAbortedPages(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	const pid, txns = 7, 2*wal.PageEntries + 300
	raw, h := txnBatch(99, 0, 0, "open long")
	g, err := p.GuardTxn(99, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	ap, err := p.AppendTxn(raw, h, 0, false, g)
	settled(t, ap, err)
	p.UnguardTxn(g)
	for i := range txns {
		g, err := p.GuardTxn(pid, int16(i), true)
		if err != nil {
			t.Fatal(err)
		}
		raw, h := txnBatch(pid, int16(i), 0, "v")
		if _, err := p.AppendTxn(raw, h, 0, false, g); err != nil {
			t.Fatal(err)
		}
		p.UnguardTxn(g)
		if ap, err = p.AppendMarker(marker(pid, int16(i)+1, 0, false, 2), 9, false); err != nil {
			t.Fatal(err)
		}
	}
	settled(t, ap, nil)
	if len(p.guards) != 0 {
		t.Fatalf("%d guards are left", len(p.guards))
	}
	ap, err = p.AppendMarker(marker(99, 1, 0, false, 2), 9, false)
	settled(t, ap, err)
	if err := a.writeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(p *Partition) {
		t.Helper()
		p.mu.RLock()
		m := p.manifest
		pages, tail := len(m.abortedPages), len(m.aborted)
		p.mu.RUnlock()
		if pages != 1 || tail != txns+1-wal.PageEntries {
			t.Fatalf("%d pages and %d in memory", pages, tail)
		}
		for _, from := range []int64{0, 1, 2, wal.PageEntries, 2*wal.PageEntries - 1, 2*wal.PageEntries + 1, 2 * txns} {
			res, err := p.ReadCommitted(t.Context(), from, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if got, next := committed(res, from); len(got) > 0 || next <= from {
				t.Errorf("from %d to %d: %q", from, next, got)
			}
			if n := len(res.Aborted); n == 0 || n > 10 {
				t.Errorf("from %d: %d aborted transactions", from, n)
			}
			res.Release()
		}
	}
	check(p)
	a.kill()
	b := w.start(w.store)
	q := w.lead(b, partition(0), owners(a, b))
	check(q)
	named, err := b.namedKeys(t.Context(), q.manifest)
	if err != nil || !named[wal.PageKey(q.tp, 0, 0)] {
		t.Fatalf("a sweep would delete the page: %v, %v", named, err)
	}
	q.mu.Lock()
	q.manifest.logStart = 2*txns - 9
	q.manifest.forgetAborted()
	pages, tail := len(q.manifest.abortedPages), len(q.manifest.aborted)
	q.mu.Unlock()
	if pages != 0 || tail != 6 {
		t.Fatalf("%d pages and %d in memory after the log start moved", pages, tail)
	}
}

// A bucket that does not answer for a page must not let aborted records through.
func TestAbortedPageMissing(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, "a", "b", "c")
	p.mu.Lock()
	p.manifest.abortedPages = []wal.PageRef{{Epoch: 0, Number: 5, Base: 1, Last: 2, Entries: 1}}
	p.mu.Unlock()
	if res, err := p.ReadCommitted(t.Context(), 0, 1000); !errors.Is(err, ErrDataLoss) || len(res.Records) > 0 {
		t.Fatalf("%v, %d bytes", err, len(res.Records))
	}
	if _, err := p.Read(t.Context(), 0, 1000); err != nil {
		t.Fatal(err)
	}
}
