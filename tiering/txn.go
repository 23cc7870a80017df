package tiering

import (
	"slices"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// TxnGuard stands between a question to the coordinator, whether a partition is
// part of a producer's transaction, and the append that rests on the answer. A
// marker that is appended in between voids it, if the answer may be about the
// transaction that the marker ended. Whoever got one gives it back with
// UnguardTxn.
type TxnGuard struct {
	producer int64
	epoch    int16
	bumps    bool
	users    int // guarded by Partition.mu
}

// GuardTxn tells whether a batch of a producer's transaction needs the
// coordinator's word. It returns nil when the transaction is open here, and
// otherwise the guard to append with once the coordinator, asked after this call,
// has confirmed it. Concurrent callers share one. bumps: the producer's epoch is
// raised at the end of every transaction, so its sequence numbers begin at 0.
//
// The transaction before may still be open here, at an older epoch: the
// coordinator, which knows that its marker is on the way, then has the client wait.
func (p *Partition) GuardTxn(producerID int64, epoch int16, bumps bool) (*TxnGuard, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != serving {
		return nil, ErrNotLeader
	}
	if s := p.manifest.producers.byID[producerID]; s != nil {
		switch a := &s.ahead; {
		case epoch < a.epoch:
			return nil, ErrInvalidProducerEpoch
		case a.txn >= 0 && a.epoch == epoch:
			return nil, nil
		}
	}
	for _, g := range p.guards[producerID] {
		if g.epoch == epoch && g.bumps == bumps {
			g.users++
			return g, nil
		}
	}
	g := &TxnGuard{producer: producerID, epoch: epoch, bumps: bumps, users: 1}
	if p.guards == nil {
		p.guards = make(map[int64][]*TxnGuard)
	}
	p.guards[producerID] = append(p.guards[producerID], g)
	return g, nil
}

// UnguardTxn gives a guard back, used or not. nil is nothing.
func (p *Partition) UnguardTxn(g *TxnGuard) {
	if g == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.users--; g.users == 0 {
		p.dropGuards(g.producer, func(o *TxnGuard) bool { return o == g })
	}
}

// void voids the guards that a marker makes worthless; p.mu is held. Since
// version 2 a marker's epoch is that of the next transaction, about which an
// answer stands; before, of this one and the next.
func (p *Partition) void(m *TxnMarker) {
	p.dropGuards(m.ProducerID, func(g *TxnGuard) bool {
		return g.epoch < m.ProducerEpoch || g.epoch == m.ProducerEpoch && m.TransactionVersion < 2
	})
}

func (p *Partition) dropGuards(producerID int64, which func(*TxnGuard) bool) {
	if left := slices.DeleteFunc(p.guards[producerID], which); len(left) > 0 {
		p.guards[producerID] = left
	} else {
		delete(p.guards, producerID)
	}
}

// standing returns g if it is still good, else nil; p.mu is held.
func (p *Partition) standing(g *TxnGuard) *TxnGuard {
	if g != nil && slices.Contains(p.guards[g.producer], g) {
		return g
	}
	return nil
}

// checkTxn decides whether the producer's batch fits its transaction; a is nil
// for a producer without any state.
func (p *producers) checkTxn(a *stand, h *batch.Header, v *TxnGuard) error {
	open := a != nil && a.txn >= 0
	switch {
	case !h.Transactional() && open, open && a.epoch != h.ProducerEpoch:
		return ErrInvalidTxnState
	case !h.Transactional() || open:
		return nil
	case v == nil || v.producer != h.ProducerID || v.epoch != h.ProducerEpoch:
		return ErrInvalidTxnState
	case len(p.open) >= openTxnsMax:
		return ErrTooManyTxns
	}
	return nil
}

// TxnMarker is a marker to be written. Since transactions of version 2 its epoch is
// above that of the batches it ends.
type TxnMarker struct {
	batch.Marker
	TransactionVersion int8
}

// AppendMarker ends a producer's transaction in the partition. What is answered
// rests on Done and Err, as with Append. A marker that was written already, or is
// on its way, is not written again. It takes effect at once: what is verified and
// not yet appended has to be verified anew.
func (p *Partition) AppendMarker(m TxnMarker, now int64, stamp bool) (*Appended, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != serving {
		return nil, ErrNotLeader
	}
	a := &Appended{LogAppendTime: -1, LogStart: p.manifest.logStart}
	again, err := p.manifest.producers.checkMarker(&m)
	if err != nil {
		return nil, err
	}
	if again != nil {
		p.void(&m)
		a.Duplicate = true
		if n := len(again.pending); n > 0 {
			a.flush = again.pending[n-1].flush
		}
		return a, nil
	}
	raw, h := batch.EncodeMarker(m.Marker, now)
	if stamp {
		batch.SetLogAppendTime(raw, now)
		a.LogAppendTime = now
	}
	base, f, err := p.join(raw, &h, wal.Row{
		Len: int32(len(raw)), MaxTimestamp: now, Transactional: true, Control: true,
		ProducerID: m.ProducerID, ProducerEpoch: m.ProducerEpoch, BaseSequence: noSequence,
		Commit: m.Commit, CoordinatorEpoch: m.CoordinatorEpoch,
	})
	if err != nil {
		return nil, err
	}
	p.void(&m)
	s := p.manifest.producers.get(m.ProducerID, m.ProducerEpoch)
	s.ahead.marker(m.ProducerEpoch, m.CoordinatorEpoch, now)
	s.pending = append(s.pending, pendingBatch{epoch: m.ProducerEpoch, marker: true, ProducerBatch: wal.ProducerBatch{Base: base}, flush: f})
	a.BaseOffset, a.flush = base, f
	if seeded.MarkerNotAwaited {
		a.flush = nil
	}
	return a, nil
}

// checkMarker decides whether a marker may be written. It returns the producer
// when writing it would change nothing: it is the same again.
func (p *producers) checkMarker(m *TxnMarker) (again *producer, err error) {
	s := p.byID[m.ProducerID]
	if s == nil {
		return nil, nil
	}
	a := &s.ahead
	switch {
	case m.ProducerEpoch < a.epoch:
		return nil, ErrInvalidProducerEpoch
	case m.ProducerEpoch == a.epoch && a.txn >= 0 && m.TransactionVersion >= 2:
		// The marker of the epoch's own transaction has a higher one: this is a
		// late one of the transaction before.
		return nil, ErrInvalidProducerEpoch
	case m.CoordinatorEpoch < a.coordinator:
		return nil, ErrCoordinatorFenced
	case m.ProducerEpoch == a.epoch && m.CoordinatorEpoch == a.coordinator && a.txn < 0:
		return s, nil
	}
	return nil, nil
}

// offsets are the partition's bounds.
func (m *manifest) offsets() Offsets {
	return Offsets{LogStart: m.logStart, HighWatermark: m.end, LastStable: m.lastStable(), Tiered: m.untieredFrom()}
}

// lastStable is the first offset that may belong to an open transaction. It rests
// on what is committed alone: a marker that is not has ended nothing.
func (m *manifest) lastStable() int64 {
	if seeded.LastStableIsHigh {
		return m.end
	}
	if first, any := m.producers.firstOpen(); any {
		return max(m.logStart, min(first, m.end))
	}
	return m.end
}

// ProducerState is what DescribeProducers tells of a producer.
type ProducerState struct {
	ID               int64
	Epoch            int16
	LastSequence     int32 // -1 none
	LastTimestamp    int64 // milliseconds, -1 none
	CoordinatorEpoch int32 // -1 none
	TxnStart         int64 // first offset of the open transaction, -1 none
}

// Producers returns the committed state of the partition's producers, by id.
func (p *Partition) Producers() []ProducerState {
	p.mu.RLock()
	defer p.mu.RUnlock()
	list := p.manifest.producers.committed()
	out := make([]ProducerState, len(list))
	for i := range list {
		n := &p.manifest.producers.byID[list[i].ID].now
		out[i] = ProducerState{
			ID: list[i].ID, Epoch: n.epoch, LastSequence: n.sequence, LastTimestamp: n.timestamp,
			CoordinatorEpoch: n.coordinator, TxnStart: n.txn,
		}
	}
	return out
}
