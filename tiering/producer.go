package tiering

import (
	"cmp"
	"slices"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	// producerWindow is how many committed batches of a producer are remembered
	// (Kafka: max.in.flight.requests.per.connection may be 5 with idempotence).
	producerWindow = 5
	// openTxnsMax bounds the transactions that are open in a partition, whose
	// producers are never forgotten for age.
	openTxnsMax = 10_000
)

// producers is the state of the producers of one partition: what is committed,
// which checkpoints describe, and what is appended but still in flight. A flush
// never fails, so nothing in flight is ever taken back.
//
// Invariant: open holds the committed open transactions, by first offset.
type producers struct {
	byID map[int64]*producer
	open []openTxn
	// expired: the state of some producer was forgotten for age.
	expired bool
}

type openTxn struct{ first, producer int64 }

type producer struct {
	now     stand // committed
	ahead   stand // with all that is in flight
	updated int64 // milliseconds since the epoch
	written bool  // something of it is committed
	batches []wal.ProducerBatch
	pending []pendingBatch
}

// stand is where a producer stands in a partition at some offset.
type stand struct {
	epoch       int16
	sequence    int32 // the last under epoch, -1 none
	coordinator int32 // the highest coordinator epoch of a marker, -1 none
	txn         int64 // first offset of the open transaction, -1 none
	timestamp   int64 // of the newest batch or marker
}

// pendingBatch is a batch, or a marker, that is on its way.
type pendingBatch struct {
	epoch  int16
	marker bool
	wal.ProducerBatch
	flush *flush
}

// batch is the producer's next batch.
func (s *stand) batch(epoch int16, b *wal.ProducerBatch, transactional bool) {
	s.epoch, s.sequence, s.timestamp = epoch, batch.AddSequence(b.BaseSequence, b.LastOffsetDelta), b.Timestamp
	if transactional && s.txn < 0 {
		s.txn = b.Base
	}
}

// marker ends the producer's transaction, if one is open. The sequences of a new
// epoch begin anew.
func (s *stand) marker(epoch int16, coordinator int32, timestamp int64) {
	if epoch != s.epoch {
		s.epoch, s.sequence = epoch, noSequence
	}
	s.coordinator, s.txn, s.timestamp = max(s.coordinator, coordinator), wal.NoTxn, timestamp
}

const noSequence = -1

func newProducers() *producers { return &producers{byID: make(map[int64]*producer)} }

// get returns the state of a producer, made now if there is none.
func (p *producers) get(id int64, epoch int16) *producer {
	s := p.byID[id]
	if s == nil {
		first := stand{epoch: epoch, sequence: noSequence, coordinator: wal.NoTxn, txn: wal.NoTxn, timestamp: wal.NoTxn}
		s = &producer{now: first, ahead: first}
		p.byID[id] = s
	}
	return s
}

// duplicate is a batch that the log already has, or will have with flush.
type duplicate struct {
	base      int64
	timestamp int64
	flush     *flush // nil when committed
}

// check decides whether h may be appended, as Kafka's ProducerAppendInfo does. v
// is the guard under which the coordinator confirmed the batch's transaction, nil
// if it did not.
// A producer never seen here starts at sequence 0: accepting any first sequence
// silently loses a batch that a client still retries (KAFKA-15591). Only where
// state was really forgotten for age may a producer go on from where it was.
func (p *producers) check(h *batch.Header, v *TxnGuard) (*duplicate, error) {
	if h.ProducerID < 0 {
		return nil, nil
	}
	s := p.byID[h.ProducerID]
	if s == nil {
		if err := p.checkTxn(nil, h, v); err != nil {
			return nil, err
		}
		anyFirst := p.expired && (v == nil || !v.bumps) || seeded.AnyFirstSequence
		if h.BaseSequence == 0 || anyFirst {
			return nil, nil
		}
		return nil, ErrOutOfOrderSequence
	}
	a := &s.ahead
	if h.ProducerEpoch < a.epoch {
		return nil, ErrInvalidProducerEpoch
	}
	if d := s.find(h); d != nil {
		return d, nil
	}
	if err := p.checkTxn(a, h, v); err != nil {
		return nil, err
	}
	next := int32(0)
	if h.ProducerEpoch == a.epoch && a.sequence >= 0 {
		next = batch.AddSequence(a.sequence, 1)
	}
	if h.BaseSequence != next {
		return nil, ErrOutOfOrderSequence
	}
	return nil, nil
}

// find looks for the batch among those that are remembered. A transactional one
// can only be found in the open transaction: after an abort, a client may use
// the sequence numbers of what it gave up again.
func (s *producer) find(h *batch.Header) *duplicate {
	from := int64(0)
	if h.Transactional() {
		if from = s.ahead.txn; from < 0 {
			return nil
		}
	}
	same := func(b *wal.ProducerBatch) bool {
		return b.Base >= from && b.BaseSequence == h.BaseSequence && b.LastOffsetDelta == h.LastOffsetDelta
	}
	for i := range s.pending {
		b := &s.pending[i]
		if !b.marker && b.epoch == h.ProducerEpoch && same(&b.ProducerBatch) {
			return &duplicate{base: b.Base, timestamp: b.Timestamp, flush: b.flush}
		}
	}
	if s.now.epoch != h.ProducerEpoch {
		return nil
	}
	for i := range s.batches {
		if b := &s.batches[i]; same(b) {
			return &duplicate{base: b.Base, timestamp: b.Timestamp}
		}
	}
	return nil
}

// append notes a batch that joined f at offset base.
func (p *producers) append(h *batch.Header, base, timestamp int64, f *flush) {
	if h.ProducerID < 0 {
		return
	}
	s := p.get(h.ProducerID, h.ProducerEpoch)
	b := wal.ProducerBatch{BaseSequence: h.BaseSequence, LastOffsetDelta: h.LastOffsetDelta, Base: base, Timestamp: timestamp}
	s.ahead.batch(h.ProducerEpoch, &b, h.Transactional())
	s.pending = append(s.pending, pendingBatch{epoch: h.ProducerEpoch, ProducerBatch: b, flush: f})
}

// commit notes a batch that is committed at offset base; now is in milliseconds.
// It returns the transaction that it ends by an abort, if it does.
func (p *producers) commit(r *wal.Row, base, now int64) (aborted wal.AbortedTxn, ended bool) {
	if r.ProducerID < 0 {
		return aborted, false
	}
	s := p.get(r.ProducerID, r.ProducerEpoch)
	if len(s.pending) > 0 && s.pending[0].Base == base {
		s.pending = slices.Delete(s.pending, 0, 1)
	}
	if s.now.epoch != r.ProducerEpoch {
		s.batches = nil
	}
	before := s.now.txn
	if r.Control {
		s.now.marker(r.ProducerEpoch, r.CoordinatorEpoch, r.MaxTimestamp)
		if before >= 0 {
			p.close(before)
			aborted, ended = wal.AbortedTxn{ProducerID: r.ProducerID, First: before, Last: base}, !r.Commit
		}
	} else {
		b := wal.ProducerBatch{BaseSequence: r.BaseSequence, LastOffsetDelta: r.LastOffsetDelta, Base: base, Timestamp: r.MaxTimestamp}
		s.remember(b)
		if s.now.batch(r.ProducerEpoch, &b, r.Transactional); before < 0 && s.now.txn >= 0 {
			p.open = append(p.open, openTxn{s.now.txn, r.ProducerID})
		}
	}
	if len(s.pending) == 0 {
		s.ahead = s.now
	}
	s.updated, s.written = now, true
	return aborted, ended
}

func (s *producer) remember(b wal.ProducerBatch) {
	if len(s.batches) >= producerWindow {
		s.batches = slices.Delete(s.batches, 0, len(s.batches)-producerWindow+1)
	}
	s.batches = append(s.batches, b)
}

// close takes the transaction that begins at first off the open ones.
func (p *producers) close(first int64) {
	i, found := slices.BinarySearchFunc(p.open, first, func(o openTxn, at int64) int { return cmp.Compare(o.first, at) })
	if found {
		p.open = slices.Delete(p.open, i, i+1)
	}
}

// firstOpen is the first offset of the oldest open transaction, if there is one.
func (p *producers) firstOpen() (int64, bool) {
	if len(p.open) == 0 {
		return 0, false
	}
	return p.open[0].first, true
}

// expire forgets producers that wrote nothing since before (milliseconds). One
// with an open transaction is never forgotten: nobody could end it any more.
func (p *producers) expire(before int64) {
	for id, s := range p.byID {
		if len(s.pending) == 0 && s.now.txn < 0 && s.updated < before {
			delete(p.byID, id)
			p.expired = true
		}
	}
}

// committed returns the durable part, ordered by producer id.
func (p *producers) committed() []wal.Producer {
	out := make([]wal.Producer, 0, len(p.byID))
	for id, s := range p.byID {
		if !s.written {
			continue
		}
		out = append(out, wal.Producer{
			ID: id, Epoch: s.now.epoch, Updated: s.updated, Batches: s.batches,
			Txn: wal.ProducerTxn{First: s.now.txn, CoordinatorEpoch: s.now.coordinator, Timestamp: s.now.timestamp},
		})
	}
	slices.SortFunc(out, func(a, b wal.Producer) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func producersOf(s *wal.PartitionState) *producers {
	p := newProducers()
	p.expired = s.Expired
	for _, w := range s.Producers {
		q := p.get(w.ID, w.Epoch)
		q.updated, q.written, q.batches = w.Updated, true, slices.Clone(w.Batches)
		q.now.coordinator, q.now.txn, q.now.timestamp = w.Txn.CoordinatorEpoch, w.Txn.First, w.Txn.Timestamp
		if n := len(w.Batches); n > 0 {
			b := &w.Batches[n-1]
			q.now.sequence = batch.AddSequence(b.BaseSequence, b.LastOffsetDelta)
		}
		q.ahead = q.now
		if q.now.txn >= 0 {
			p.open = append(p.open, openTxn{q.now.txn, w.ID})
		}
	}
	slices.SortFunc(p.open, func(a, b openTxn) int { return cmp.Compare(a.first, b.first) })
	return p
}
