package tiering

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// flush is one object: it fills, is encoded, uploaded and committed, and then
// shares one fate with everybody who waits for it. There is no rollback.
type flush struct {
	kind    wal.Kind
	extents map[*Partition]*openExtent
	order   []*Partition
	records []wal.Record
	// committed is called for records, in the commit loop, once the slot is.
	onCommit []func(slot uint64)
	size     int
	stated   int       // bytes of records
	urgent   bool      // clients or peers wait for a record in it
	first    time.Time // when the first append joined

	// Set by begin and encode, before the upload starts.
	slot    uint64
	head    *wal.Head
	digest  *wal.Digest // guarded by Log.mu: nil until encoded
	parts   [][]byte    // what is uploaded
	raw     *buffer     // batches as served
	takenAt time.Time
	alone   bool // guarded by Log.mu: nothing else was in flight meanwhile
	span    trace.Span
	// begun is a moment, by Config.Clock, after which the slot was bound: that
	// of the attempt that is known to have done it, else of the first.
	begun  time.Duration
	bound  time.Time
	failed atomic.Bool // an attempt failed

	once sync.Once
	done chan struct{} // closed by finish
	err  error         // valid after done
}

// openExtent collects one partition's batches of one flush.
type openExtent struct {
	base         int64
	batches      [][]byte
	rows         []wal.Row
	size         int
	incompatible bool // some batch is compressed already
}

func (l *Log) newFlush() *flush {
	return &flush{kind: wal.Data, extents: make(map[*Partition]*openExtent), done: make(chan struct{})}
}

func (f *flush) empty() bool { return f.size == 0 && len(f.records) == 0 && f.kind == wal.Data }

// strip lets go of everything but the outcome: partitions and clients hold on
// to a flush for longer than the memory tail holds on to its bytes.
func (f *flush) strip() {
	f.extents, f.order, f.records, f.onCommit = nil, nil, nil, nil
	f.head, f.parts, f.raw = nil, nil, nil
}

// finish decides the fate of everything in the flush.
func (f *flush) finish(err error) {
	f.once.Do(func() {
		f.err = err
		if f.span != nil {
			f.span.End()
		}
		close(f.done)
	})
}

// add joins a batch to the open flush. p.mu is held.
func (l *Log) add(p *Partition, base int64, records []byte, row wal.Row, compressed bool) (*flush, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return nil, ErrNotLeader
	}
	if l.open.size > 0 && l.open.size+len(records) > l.cfg.FlushBytesMax {
		l.ready = append(l.ready, l.open)
		l.open = l.newFlush()
	}
	f := l.open
	if f.size == 0 && len(f.records) == 0 {
		f.first = time.Now()
	}
	e := f.extents[p]
	if e == nil {
		e = &openExtent{base: base}
		f.extents[p] = e
		f.order = append(f.order, p)
	}
	e.batches = append(e.batches, records)
	e.rows = append(e.rows, row)
	e.size += len(records)
	e.incompatible = e.incompatible || compressed
	f.size += len(records)
	f.urgent = f.urgent || row.Control // its coordinator waits, and readers do
	l.room.add(int64(len(records)))
	if l.appending.Load() == 0 || f.size >= l.cfg.FlushBytes {
		l.kick()
	}
	return f, nil
}

// Records of one object, whose head has to stay readable: wal.MaxHead is the
// bound, and the index needs room beside them.
const (
	recordsBytesMax = 16 << 20 // beyond it the next record goes into the next object
	recordBytesMax  = 32 << 20
	recordOverhead  = 48
)

// record joins a leadership record to the open flush and hurries it. onCommit
// runs in the commit loop. A record that no reader would accept must not get
// into the chain, because the whole chain could not be read any more.
func (l *Log) record(r wal.Record, onCommit func(slot uint64)) (*flush, error) {
	if r.Epoch < 0 || r.Partition.Partition < 0 || len(r.State) > recordBytesMax {
		return nil, fmt.Errorf("record of %s at epoch %d with %d bytes of state cannot be written", r.Partition, r.Epoch, len(r.State))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return nil, ErrNotLeader
	}
	if l.open.stated > 0 && l.open.stated+len(r.State) > recordsBytesMax {
		l.ready = append(l.ready, l.open)
		l.open = l.newFlush()
	}
	f := l.open
	if f.empty() {
		f.first = time.Now()
	}
	f.records = append(f.records, r)
	f.stated += recordOverhead + len(r.State)
	if onCommit != nil {
		f.onCommit = append(f.onCommit, onCommit)
	}
	f.urgent = true
	l.kick()
	return f, nil
}

// flushLoop takes flushes when the pacer allows and uploads each in a goroutine
// of its own. It returns once all of them have.
func (l *Log) flushLoop(ctx context.Context) {
	var uploads sync.WaitGroup
	defer uploads.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		f, wait := l.take()
		if f != nil {
			uploads.Go(func() { l.upload(ctx, f) })
			continue
		}
		if wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
	}
}

// take encodes the next flush if one is due; otherwise it returns how long to
// wait, zero meaning until something happens.
func (l *Log) take() (*flush, time.Duration) {
	l.mu.Lock()
	f := l.open
	if len(l.ready) > 0 {
		f = l.ready[0]
	}
	if f.empty() || l.err != nil {
		l.mu.Unlock()
		return nil, 0
	}
	full := f.size >= l.cfg.FlushBytes || len(l.ready) > 0
	now := l.cfg.Clock()
	wait, open := l.pacer.wait(now, len(l.unresolved), f.urgent, full)
	if !open || wait > 0 {
		l.mu.Unlock()
		return nil, wait
	}
	l.pacer.start(now, f.urgent || full)
	if f == l.open {
		l.open = l.newFlush()
	} else {
		l.ready = l.ready[1:]
	}
	previous := l.previous
	l.begin(f, l.nextSlot)
	l.nextSlot++
	l.unresolved[f.slot] = f
	l.mu.Unlock()

	// Only the flush loop encodes, so the digests chain without the lock.
	l.encode(f, previous, l.committed.Load())
	l.mu.Lock()
	l.previous, f.digest = f.head.Digest, &f.head.Digest
	l.mu.Unlock()
	if !f.first.IsZero() {
		l.m.stage("wait").Observe(f.takenAt.Sub(f.first).Seconds())
	}
	return f, 0
}

// begin gives f its slot. From then on finish, which ends the span, may come at
// any moment; Log.mu is held.
func (l *Log) begin(f *flush, slot uint64) {
	f.slot, f.takenAt = slot, time.Now()
	_, f.span = l.cfg.Tracer.Start(context.Background(), "flush",
		trace.WithAttributes(attribute.Int64("slot", int64(slot)), attribute.Int("bytes", f.size)))
	f.alone = len(l.unresolved) == 0 // f is not in it yet
	for _, other := range l.unresolved {
		other.alone = false
	}
}

// encode lays the flush out as an object: what is served and, where storing
// it compressed saves more than it costs, what is uploaded in its place.
func (l *Log) encode(f *flush, previous wal.Digest, acknowledged uint64) {
	h := &wal.Head{
		Kind: f.kind, Cluster: l.cfg.Cluster, Incarnation: l.cfg.Incarnation, Slot: f.slot, Previous: previous,
		Acknowledged: acknowledged, Checkpoint: l.checkpoint.Load(), Writer: l.cfg.Incarnation,
		Records: f.records, Extents: make([]wal.Extent, 0, len(f.order)),
	}
	if f.kind == wal.Close {
		h.Checkpoint = f.slot
	}
	f.raw = l.pool.get(f.size)
	f.parts = make([][]byte, 1, 1+len(f.order)) // the head comes first
	hash := xxhash.New()
	at, run := 0, -1 // run: where the last part begins in raw; -1 when it does not lie there
	for _, p := range f.order {
		e := f.extents[p]
		start := at
		for _, b := range e.batches {
			at += copy(f.raw.b[at:], b)
		}
		e.batches = nil
		stored, zstd := f.raw.b[start:at], false
		if !e.incompatible {
			stored, zstd = l.comp.compress(p.tp.Topic, stored)
		}
		h.Extents = append(h.Extents, wal.Extent{
			Partition: p.tp, Epoch: p.epoch, Zstd: zstd, Position: h.DataLen, Len: int64(len(stored)), RawLen: int64(at - start),
			Base: e.base, CRC: crc32.Checksum(stored, castagnoli), Rows: e.rows,
		})
		h.DataLen += int64(len(stored))
		_, _ = hash.Write(stored) // never fails
		if n := len(f.parts) - 1; !zstd && run >= 0 {
			f.parts[n] = f.raw.b[run:at] // goes on where the last part ended
			continue
		}
		f.parts = append(f.parts, stored)
		run = start
		if zstd {
			run = -1
		}
	}
	h.DataHash = hash.Sum64()
	f.head = h
	f.parts[0] = wal.EncodeHead(h)
}

// Close ends the chain gracefully: appends are refused from now on, what was
// appended commits, a checkpoint of everything is written, and a CLOSE object
// that names it takes the last slot. A successor then needs two reads. After a
// nil error the incarnation is over and Run returns nil. That the metadata store
// has the end is not waited for beyond ctx: whoever comes next finds the CLOSE.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if err := l.err; err != nil {
		l.mu.Unlock()
		if errors.Is(err, ErrClosed) {
			return nil
		}
		return err
	}
	l.closing = true
	open, sent := l.open, l.last != nil
	open.urgent = true
	l.mu.Unlock()
	l.kick()
	if !sent {
		if err := l.drained(ctx, open); err != nil {
			return fmt.Errorf("close chain %s: %w", l.cfg.Incarnation, err)
		}
		if err := l.writeCheckpoint(ctx); err != nil {
			return fmt.Errorf("close chain %s: %w", l.cfg.Incarnation, err)
		}
		if err := failpoint.Hit(failpoint.BeforeClose); err != nil {
			return fmt.Errorf("close chain %s: %w", l.cfg.Incarnation, err)
		}
		if err := l.sendClose(); err != nil {
			return err
		}
	}
	select {
	case <-l.done: // conclude has run, or somebody else ended the chain
	case <-ctx.Done():
		if !l.closeCommitted() {
			return fmt.Errorf("close chain %s: %w", l.cfg.Incarnation, context.Cause(ctx))
		}
		l.fail(ErrClosed)
	}
	if !errors.Is(l.err, ErrClosed) {
		return l.err
	}
	return nil
}

// sendClose sends the CLOSE on its way, once.
func (l *Log) sendClose() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil && !errors.Is(l.err, ErrClosed) {
		return l.err
	}
	if l.last == nil {
		l.last = l.newFlush()
		l.last.kind, l.last.urgent = wal.Close, true
		l.open = l.last
		l.kick()
	}
	return nil
}

func (l *Log) closeCommitted() bool {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	select {
	case <-last.done:
		return last.err == nil
	default:
		return false
	}
}

// conclude ends the incarnation once its CLOSE is committed in slot, whether or
// not Close still waits for it.
func (l *Log) conclude(ctx context.Context, slot uint64) {
	ctx, cancel := context.WithTimeout(ctx, recordEndTimeout)
	defer cancel()
	if _, err := l.cfg.Chains.RecordEnd(ctx, l.cfg.Incarnation, slot+1); err != nil {
		// The CLOSE stands; whoever comes next records the end it finds.
		l.cfg.Logger.Warn("end of own chain not recorded", "error", err)
	}
	l.fail(ErrClosed)
}

const recordEndTimeout = 5 * time.Second

// drained waits until last, the final flush that takes appends, and everything
// before it are committed.
func (l *Log) drained(ctx context.Context, last *flush) error {
	l.mu.Lock()
	wait := append([]*flush(nil), l.ready...)
	for _, f := range l.unresolved {
		wait = append(wait, f)
	}
	if !last.empty() {
		wait = append(wait, last)
	}
	l.mu.Unlock()
	for _, f := range wait {
		select {
		case <-f.done:
			if f.err != nil {
				return f.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
