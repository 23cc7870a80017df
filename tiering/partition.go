package tiering

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// phase is a partition's way through an incarnation. It only grows.
type phase int

const (
	opening   phase = iota // OPEN is on its way
	serving                // OPEN is committed
	releasing              // no appends any more; reads go on until RELEASE is committed
	released               // somebody else's
)

// Partition is one partition under one leader epoch of this incarnation.
type Partition struct {
	log   *Log
	tp    metadata.TopicPartition
	epoch int32
	// opened is the flush that carries the OPEN.
	opened *flush
	// editing holds the turn to edit the manifest.
	editing chan struct{}

	// mu guards what follows. Appends hold it while they take their offset and
	// join the open flush, so that batches lie in a flush in offset order.
	mu    sync.RWMutex
	phase phase
	// end is the offset the next append gets; manifest.end, the high
	// watermark, follows it as flushes commit.
	end      int64
	manifest *manifest
	edits    int             // on their way
	encoded  []byte          // of manifest.state, nil when stale
	floors   []wal.SlotFloor // of the manifest that is encoded
	// waiting is since when something has waited to be tiered, zero if nothing does.
	waiting time.Time
	tierAt  time.Time // it is not tiered before: something of it could not be read
	watch   watch
	readers readAhead
	// guards are of producers whose transactions are being looked up.
	guards map[int64][]*TxnGuard

	// subsMu guards subs. Notifications never wait.
	subsMu sync.Mutex
	subs   map[chan<- struct{}]struct{}
}

// Offsets are a partition's bounds, in Kafka's words. Below LastStable every
// transaction has ended, by a marker that is committed: who reads committed
// records reads up to there, and the log start offset may not be set above it.
type Offsets struct {
	LogStart      int64
	HighWatermark int64
	LastStable    int64
	// Tiered is where write-ahead objects take over from segments: records from
	// LogStart up to it lie in segments.
	Tiered int64
}

// Appended is a batch that has its offset and is not yet committed.
type Appended struct {
	// BaseOffset is the batch's first offset. Tell a client only after Done
	// closed with a nil Err.
	BaseOffset int64
	// LogAppendTime is in milliseconds, -1 unless the broker set the timestamps.
	LogAppendTime int64
	LogStart      int64
	// Duplicate: the batch was in the log, or on its way, already.
	Duplicate bool
	flush     *flush // nil: committed long ago
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Done closes when the batch's fate is decided.
func (a *Appended) Done() <-chan struct{} {
	if a.flush == nil {
		return closedChan
	}
	return a.flush.done
}

// Err is valid after Done: nil when the batch is committed, ErrFenced when its
// fate is unknown.
func (a *Appended) Err() error {
	if a.flush == nil {
		return nil
	}
	if seeded.FlushFateShared && a.flush.err != nil && a.flush.failed.Swap(true) {
		return nil
	}
	return a.flush.err
}

// Trace names the span of the flush that carries the batch, to link the request
// to it. Valid after Done; empty for a batch committed long ago.
func (a *Appended) Trace() trace.SpanContext {
	select {
	case <-a.Done():
	default:
		return trace.SpanContext{} // the flush may not have its span yet
	}
	if a.flush == nil || a.flush.span == nil {
		return trace.SpanContext{}
	}
	return a.flush.span.SpanContext()
}

// LeaderEpoch is the epoch under which this incarnation leads.
func (p *Partition) LeaderEpoch() int32 { return p.epoch }

// readable reports whether reads may be served from here.
func (p *Partition) readable() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.phase == serving || p.phase == releasing
}

// Append gives one batch its offset and joins it to the open flush. records is
// exactly one validated batch that h describes; the log patches it in place and
// keeps it until the flush is encoded. now (milliseconds) is stamped on the
// batch when stamp is set (message.timestamp.type=LogAppendTime). It does no
// I/O. Any error means that nothing changed. Errors, and Duplicate, are of the
// producers as they are known here: a deposed leader knows older ones, so what may
// have changed since is to be told after Log.Check alone.
func (p *Partition) Append(records []byte, h batch.Header, now int64, stamp bool) (*Appended, error) {
	return p.AppendTxn(records, h, now, stamp, nil)
}

// AppendTxn is Append with the guard that GuardTxn gave, which the first batch of
// a transaction needs. nil is none.
func (p *Partition) AppendTxn(records []byte, h batch.Header, now int64, stamp bool, guard *TxnGuard) (*Appended, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != serving {
		return nil, ErrNotLeader
	}
	a := &Appended{LogAppendTime: -1, LogStart: p.manifest.logStart}
	dup, err := p.manifest.producers.check(&h, p.standing(guard))
	if err != nil {
		return nil, err
	}
	if dup != nil {
		a.BaseOffset, a.Duplicate, a.flush = dup.base, true, dup.flush
		if stamp {
			a.LogAppendTime = dup.timestamp
		}
		return a, nil
	}
	if stamp {
		batch.SetLogAppendTime(records, now)
		a.LogAppendTime, h.MaxTimestamp = now, now
	}
	row, err := rowOf(records, &h)
	if err != nil {
		return nil, err
	}
	base, f, err := p.join(records, &h, row)
	if err != nil {
		return nil, err
	}
	p.manifest.producers.append(&h, base, h.MaxTimestamp, f)
	a.BaseOffset, a.flush = base, f
	return a, nil
}

// join gives a batch its offset and joins it to the open flush; p.mu is held.
func (p *Partition) join(records []byte, h *batch.Header, row wal.Row) (base int64, f *flush, err error) {
	base = p.end
	batch.SetOffset(records, base, p.epoch)
	if f, err = p.log.add(p, base, records, row, h.Codec() != batch.None); err != nil {
		return 0, nil, err
	}
	p.end = base + int64(h.LastOffsetDelta) + 1
	return base, f, nil
}

// commit adds a durable extent. Readers see it at once.
func (p *Partition) commit(ref wal.ExtentRef, rows []wal.Row, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.encoded = nil
	if p.waiting.IsZero() {
		p.waiting = now
	}
	if p.watch.grew(ref.RawLen, now, p.log.cfg.RetentionInterval) {
		p.log.retainSoon()
	}
	return p.manifest.apply(ref, rows, now.UnixMilli())
}

// Offsets returns the partition's bounds.
func (p *Partition) Offsets() Offsets {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.manifest.offsets()
}

// EpochEnd answers OffsetForLeaderEpoch from committed state.
func (p *Partition) EpochEnd(epoch int32) EpochEnd {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.manifest.epochEnd(epoch)
}

// EpochOf is the leader epoch under which a committed offset was written, or -1.
func (p *Partition) EpochOf(offset int64) int32 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.manifest.epochOf(offset)
}

// Subscribe sends on ch, without ever waiting, when the high watermark or the
// leadership of the partition changes. ch should have room for one.
func (p *Partition) Subscribe(ch chan<- struct{}) (cancel func()) {
	p.subsMu.Lock()
	defer p.subsMu.Unlock()
	if p.subs == nil {
		p.subs = make(map[chan<- struct{}]struct{})
	}
	p.subs[ch] = struct{}{}
	return func() {
		p.subsMu.Lock()
		defer p.subsMu.Unlock()
		delete(p.subs, ch)
	}
}

func (p *Partition) notify() {
	p.subsMu.Lock()
	defer p.subsMu.Unlock()
	for ch := range p.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// encodeState returns the committed state for a checkpoint, the slots it rests
// on, and whether the partition is open. The state is nil when a checkpoint need
// not describe it. Producers idle since before are forgotten.
func (p *Partition) encodeState(before int64) (state []byte, floors []wal.SlotFloor, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	open = p.phase == serving || p.phase == releasing
	if dropped := p.phase == released && !p.settled(); !open && !dropped {
		return nil, nil, false
	}
	p.manifest.producers.expire(before)
	if p.encoded == nil {
		p.encoded, p.floors = wal.AppendState(nil, p.manifest.state()), p.manifest.floors()
	}
	return p.encoded, p.floors, open
}
