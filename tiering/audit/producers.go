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
}

type producer struct {
	epoch   int16
	batches []wal.ProducerBatch
	unsure  bool // batches of it may lie where nothing could be read
}

func newProducers(expired bool) *producers {
	return &producers{byID: make(map[int64]*producer), expired: expired}
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
func (p *producers) follow(h *batch.Header, base int64, to *findings) {
	if h.ProducerID < 0 || h.Control() {
		return
	}
	s := p.byID[h.ProducerID]
	first := s == nil
	if first {
		s = &producer{epoch: h.ProducerEpoch, unsure: p.holed}
		p.byID[h.ProducerID] = s
	}
	switch n := len(s.batches); {
	case s.unsure || p.expired && (first || h.BaseSequence == 0):
	case h.ProducerEpoch < s.epoch:
		to.add(KindSequence, "offset %d: producer %d writes at epoch %d after epoch %d", base, h.ProducerID, h.ProducerEpoch, s.epoch)
	case first || h.ProducerEpoch > s.epoch:
		if h.BaseSequence != 0 {
			to.add(KindSequence, "offset %d: producer %d begins epoch %d at sequence %d", base, h.ProducerID, h.ProducerEpoch, h.BaseSequence)
		}
	default:
		last := s.batches[n-1]
		if want := batch.AddSequence(batch.AddSequence(last.BaseSequence, last.LastOffsetDelta), 1); h.BaseSequence != want && !p.expired {
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

// compare checks that the state a leader would rebuild is what the batches say.
func (p *producers) compare(m *wal.PartitionState, to *findings) {
	if p.holed {
		return
	}
	rebuilt := make(map[int64]bool, len(m.Producers))
	for i := range m.Producers {
		w := &m.Producers[i]
		rebuilt[w.ID] = true
		s := p.byID[w.ID]
		if s == nil || s.epoch != w.Epoch || !sameBatches(w.Batches, s.batches) {
			to.add(KindProducer, "producer %d is rebuilt at epoch %d with %d batches remembered; the log has something else", w.ID, w.Epoch, len(w.Batches))
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
	if len(remembered) == 0 || len(remembered) > len(written) {
		return false
	}
	written = written[len(written)-len(remembered):]
	return slices.EqualFunc(remembered, written, func(a, b wal.ProducerBatch) bool {
		return a.BaseSequence == b.BaseSequence && a.LastOffsetDelta == b.LastOffsetDelta && a.Base == b.Base
	})
}
