package audit

import (
	"slices"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// producerWindow is how many batches of a producer a leader remembers.
const producerWindow = 5

// producers follows the idempotent producers of a partition through its batches.
type producers struct {
	byID map[int64]*producer
	// expired: a leader forgot some producer for age, after which an unknown
	// one may begin anywhere.
	expired bool
	// holed: some batches could not be read.
	holed bool
	// aborted are the transactions that were, in the order of their markers.
	aborted []wal.AbortedTxn
	// from is the offset below which batches are gone, because the log start has
	// passed them; 0 when none are.
	from int64
}

type producer struct {
	epoch       int16
	batches     []wal.ProducerBatch
	txn         int64 // first offset of the open transaction, wal.NoTxn without one
	coordinator int32 // highest of a marker, wal.NoTxn if there was none
	unsure      bool  // batches of it may lie where nothing could be read
}

func newProducers(expired bool, logStart int64) *producers {
	return &producers{byID: make(map[int64]*producer), expired: expired, from: logStart}
}

// lost notes that some batches could not be read: any producer may have written
// them.
func (p *producers) lost() {
	p.holed = true
	for _, s := range p.byID {
		s.unsure = true
	}
}

// follow checks the batch at offset base: within an epoch, sequences go on
// without gap or repeat; a new epoch, and a new producer, begin at 0.
func (p *producers) follow(raw []byte, h *batch.Header, base int64, to *findings) {
	if h.ProducerID < 0 {
		return
	}
	p.from = min(p.from, base) // the log start may lie in a batch, or in a segment of many
	s := p.byID[h.ProducerID]
	first := s == nil
	if first {
		s = &producer{epoch: h.ProducerEpoch, txn: wal.NoTxn, coordinator: wal.NoTxn, unsure: p.holed}
		p.byID[h.ProducerID] = s
	}
	if h.Control() {
		p.marker(s, raw, h, base, to)
		return
	}
	s.transaction(h, base, to)
	switch n := len(s.batches); {
	case s.unsure || first && p.from > 0 || p.expired && (first || h.BaseSequence == 0):
	case h.ProducerEpoch < s.epoch:
		to.add(KindSequence, "offset %d: producer %d writes at epoch %d after epoch %d", base, h.ProducerID, h.ProducerEpoch, s.epoch)
	case first || h.ProducerEpoch > s.epoch:
		if h.BaseSequence != 0 {
			to.add(KindSequence, "offset %d: producer %d begins epoch %d at sequence %d", base, h.ProducerID, h.ProducerEpoch, h.BaseSequence)
		}
	default:
		want := int32(0)
		if n > 0 { // else the epoch was begun by a marker
			last := s.batches[n-1]
			want = batch.AddSequence(batch.AddSequence(last.BaseSequence, last.LastOffsetDelta), 1)
		}
		if h.BaseSequence != want && !p.expired {
			to.add(KindSequence, "offset %d: producer %d writes sequence %d instead of %d", base, h.ProducerID, h.BaseSequence, want)
		}
	}
	if s.epoch != h.ProducerEpoch {
		s.epoch, s.batches = h.ProducerEpoch, nil
	}
	s.unsure = false
	if len(s.batches) >= producerWindow {
		s.batches = slices.Delete(s.batches, 0, len(s.batches)-producerWindow+1)
	}
	s.batches = append(s.batches, wal.ProducerBatch{BaseSequence: h.BaseSequence, LastOffsetDelta: h.LastOffsetDelta, Base: base})
}

// transaction checks that a batch is of its producer's transaction, or begins it.
func (s *producer) transaction(h *batch.Header, base int64, to *findings) {
	switch {
	case s.txn >= 0 && !h.Transactional() && !s.unsure:
		to.add(KindTransaction, "offset %d: producer %d writes without a transaction, its own is open since offset %d", base, h.ProducerID, s.txn)
	case s.txn >= 0 && h.ProducerEpoch != s.epoch && !s.unsure:
		to.add(KindTransaction, "offset %d: producer %d writes at epoch %d to the transaction that epoch %d began at offset %d", base, h.ProducerID, h.ProducerEpoch, s.epoch, s.txn)
	case s.txn < 0 && h.Transactional():
		s.txn = base
	}
}

// marker follows a marker of the producer.
func (p *producers) marker(s *producer, raw []byte, h *batch.Header, base int64, to *findings) {
	m, err := batch.ParseMarker(raw, h)
	if err != nil || h.LastOffsetDelta != 0 || !h.Transactional() {
		to.add(KindBatch, "offset %d: not a transaction marker: %v", base, err)
		return
	}
	if !s.unsure {
		if h.ProducerEpoch < s.epoch {
			to.add(KindTransaction, "offset %d: marker of epoch %d after epoch %d of producer %d", base, h.ProducerEpoch, s.epoch, h.ProducerID)
		}
		if m.CoordinatorEpoch < s.coordinator {
			to.add(KindTransaction, "offset %d: marker of coordinator epoch %d after one of %d for producer %d", base, m.CoordinatorEpoch, s.coordinator, h.ProducerID)
		}
	}
	if s.txn >= 0 && !m.Commit {
		p.aborted = append(p.aborted, wal.AbortedTxn{ProducerID: h.ProducerID, First: s.txn, Last: base})
	}
	if h.ProducerEpoch != s.epoch {
		s.epoch, s.batches = h.ProducerEpoch, nil
	}
	s.txn, s.coordinator, s.unsure = wal.NoTxn, max(s.coordinator, m.CoordinatorEpoch), false
}

// compare checks that the state a leader would rebuild is what the batches say.
func (p *producers) compare(m *wal.PartitionState, to *findings) {
	if p.holed {
		return
	}
	rebuilt := make(map[int64]bool, len(m.Producers))
	for i := range m.Producers {
		w := m.Producers[i]
		rebuilt[w.ID] = true
		s := p.byID[w.ID]
		here := slices.IndexFunc(w.Batches, func(b wal.ProducerBatch) bool { return b.Base >= p.from })
		if s == nil && here < 0 {
			continue // all that is remembered of it is gone
		}
		if here < 0 {
			w.Batches = nil // there may be a marker of it still
		} else {
			w.Batches = w.Batches[here:]
		}
		if s == nil || s.epoch != w.Epoch || !sameBatches(w.Batches, s.batches) {
			to.add(KindProducer, "producer %d is rebuilt at epoch %d with %d batches remembered; the log has something else", w.ID, w.Epoch, len(w.Batches))
			continue
		}
		// Markers below the log start are gone, and with them their epochs.
		coordinator := s.coordinator == w.Txn.CoordinatorEpoch || m.Expired || p.from > 0 && s.coordinator < w.Txn.CoordinatorEpoch
		if s.txn != w.Txn.First || !coordinator {
			to.add(KindTransaction, "producer %d is rebuilt with an open transaction at %d and coordinator epoch %d; the log says %d and %d", w.ID, w.Txn.First, w.Txn.CoordinatorEpoch, s.txn, s.coordinator)
		}
	}
	for id := range p.byID {
		if !rebuilt[id] && !m.Expired {
			to.add(KindProducer, "producer %d has written and is unknown to the rebuilt state", id)
		}
	}
}

// sameBatches compares what is remembered with the newest of what was written.
// After it was forgotten for age a leader remembers less.
func sameBatches(remembered, written []wal.ProducerBatch) bool {
	if len(remembered) > len(written) || len(remembered) == 0 && len(written) > 0 {
		return false
	}
	written = written[len(written)-len(remembered):]
	return slices.EqualFunc(remembered, written, func(a, b wal.ProducerBatch) bool {
		return a.BaseSequence == b.BaseSequence && a.LastOffsetDelta == b.LastOffsetDelta && a.Base == b.Base
	})
}
