package tiering

import (
	"slices"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// producerWindow is how many committed batches of a producer are remembered
// (Kafka: max.in.flight.requests.per.connection may be 5 with idempotence).
const producerWindow = 5

// producers is the idempotence state of one partition: what is committed, which
// checkpoints describe, and what is appended but still in flight. A flush never
// fails, so nothing in flight is ever taken back.
type producers struct {
	byID map[int64]*producer
	// expired: the state of some producer was forgotten for age.
	expired bool
}

type producer struct {
	epoch   int16
	updated int64 // milliseconds since the epoch
	batches []wal.ProducerBatch
	pending []pendingBatch
}

type pendingBatch struct {
	epoch int16
	wal.ProducerBatch
	flush *flush
}

func newProducers() *producers { return &producers{byID: make(map[int64]*producer)} }

// duplicate is a batch that the log already has, or will have with flush.
type duplicate struct {
	base      int64
	timestamp int64
	flush     *flush // nil when committed
}

// check decides whether h may be appended, as Kafka's ProducerAppendInfo does.
// A producer never seen here starts at sequence 0: accepting any first sequence
// silently loses a batch that a client still retries (KAFKA-15591). Only where
// state was really forgotten for age may a producer go on from where it was.
func (p *producers) check(h *batch.Header) (*duplicate, error) {
	if h.ProducerID < 0 {
		return nil, nil
	}
	s := p.byID[h.ProducerID]
	if s == nil {
		if h.BaseSequence == 0 || p.expired || seeded.AnyFirstSequence {
			return nil, nil
		}
		return nil, ErrOutOfOrderSequence
	}
	epoch, last, known := s.last()
	switch {
	case h.ProducerEpoch < epoch:
		return nil, ErrInvalidProducerEpoch
	case h.ProducerEpoch > epoch || !known:
		if h.BaseSequence != 0 {
			return nil, ErrOutOfOrderSequence
		}
		return nil, nil
	}
	if d := s.find(h); d != nil {
		return d, nil
	}
	if h.BaseSequence != batch.AddSequence(last, 1) {
		return nil, ErrOutOfOrderSequence
	}
	return nil, nil
}

// last returns the newest epoch and the last sequence under it.
func (s *producer) last() (epoch int16, seq int32, known bool) {
	if n := len(s.pending); n > 0 {
		b := &s.pending[n-1]
		return b.epoch, batch.AddSequence(b.BaseSequence, b.LastOffsetDelta), true
	}
	if n := len(s.batches); n > 0 {
		b := &s.batches[n-1]
		return s.epoch, batch.AddSequence(b.BaseSequence, b.LastOffsetDelta), true
	}
	return s.epoch, 0, false
}

func (s *producer) find(h *batch.Header) *duplicate {
	for i := range s.pending {
		b := &s.pending[i]
		if b.epoch == h.ProducerEpoch && b.BaseSequence == h.BaseSequence && b.LastOffsetDelta == h.LastOffsetDelta {
			return &duplicate{base: b.Base, timestamp: b.Timestamp, flush: b.flush}
		}
	}
	if s.epoch != h.ProducerEpoch {
		return nil
	}
	for _, b := range s.batches {
		if b.BaseSequence == h.BaseSequence && b.LastOffsetDelta == h.LastOffsetDelta {
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
	s := p.byID[h.ProducerID]
	if s == nil {
		s = &producer{epoch: h.ProducerEpoch}
		p.byID[h.ProducerID] = s
	}
	s.pending = append(s.pending, pendingBatch{
		epoch: h.ProducerEpoch,
		ProducerBatch: wal.ProducerBatch{
			BaseSequence: h.BaseSequence, LastOffsetDelta: h.LastOffsetDelta, Base: base, Timestamp: timestamp,
		},
		flush: f,
	})
}

// commit notes a batch that is committed at offset base; now is in milliseconds.
func (p *producers) commit(r *wal.Row, base, now int64) {
	if r.ProducerID < 0 {
		return
	}
	s := p.byID[r.ProducerID]
	if s == nil {
		s = &producer{epoch: r.ProducerEpoch}
		p.byID[r.ProducerID] = s
	}
	if len(s.pending) > 0 && s.pending[0].Base == base {
		s.pending = slices.Delete(s.pending, 0, 1)
	}
	if s.epoch != r.ProducerEpoch {
		s.epoch, s.batches = r.ProducerEpoch, nil
	}
	if len(s.batches) >= producerWindow {
		s.batches = slices.Delete(s.batches, 0, len(s.batches)-producerWindow+1)
	}
	s.batches = append(s.batches, wal.ProducerBatch{
		BaseSequence: r.BaseSequence, LastOffsetDelta: r.LastOffsetDelta, Base: base, Timestamp: r.MaxTimestamp,
	})
	s.updated = now
}

// expire forgets producers that wrote nothing since before (milliseconds).
func (p *producers) expire(before int64) {
	for id, s := range p.byID {
		if len(s.pending) == 0 && s.updated < before {
			delete(p.byID, id)
			p.expired = true
		}
	}
}

// committed returns the durable part, ordered by producer id.
func (p *producers) committed() []wal.Producer {
	out := make([]wal.Producer, 0, len(p.byID))
	for id, s := range p.byID {
		if len(s.batches) > 0 {
			out = append(out, wal.Producer{ID: id, Epoch: s.epoch, Updated: s.updated, Batches: s.batches})
		}
	}
	slices.SortFunc(out, func(a, b wal.Producer) int { return int(min(1, max(-1, a.ID-b.ID))) })
	return out
}

func producersOf(s *wal.PartitionState) *producers {
	p := newProducers()
	p.expired = s.Expired
	for _, w := range s.Producers {
		p.byID[w.ID] = &producer{epoch: w.Epoch, updated: w.Updated, batches: slices.Clone(w.Batches)}
	}
	return p
}
