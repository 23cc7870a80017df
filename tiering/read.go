package tiering

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/cache/flow"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	readBytesMax    = 16 << 20 // one Read returns no more, but for a single larger batch
	readExtentsMax  = wal.PageEntries
	readConcurrency = 8
)

// ReadResult holds whole record batches. The first may begin before the offset
// asked for, as Kafka's fetch allows.
type ReadResult struct {
	Offsets
	Records []byte
	// Aborted are the transactions whose batches among Records nobody shall see who
	// reads committed records, and maybe more. ReadCommitted alone looks for them.
	Aborted []wal.AbortedTxn
	// Release gives the memory back; Records must not be used after it. It may
	// be called once, or never.
	Release func()
}

// Read returns committed batches from offset on, up to maxBytes, and at least
// one where there is one. At the high watermark it returns none. The error is
// ErrOffsetOutOfRange (with Offsets set), ErrNotLeader, ErrStoreUnavailable,
// ErrCorrupt or ErrDataLoss.
func (p *Partition) Read(ctx context.Context, offset int64, maxBytes int) (*ReadResult, error) {
	return p.readAgain(ctx, offset, maxBytes, false)
}

// ReadCommitted is Read up to the last stable offset, from where on it returns
// nothing, with the aborted transactions among what it returns.
func (p *Partition) ReadCommitted(ctx context.Context, offset int64, maxBytes int) (*ReadResult, error) {
	return p.readAgain(ctx, offset, maxBytes, true)
}

func (p *Partition) readAgain(ctx context.Context, offset int64, maxBytes int, committed bool) (res *ReadResult, err error) {
	err = p.again(ctx, func() (err error) {
		if res != nil { // of an attempt that failed
			res.Release()
		}
		res, err = p.read(ctx, offset, min(maxBytes, readBytesMax), committed)
		return err
	})
	return res, err
}

// rereads of the manifest before an object that it goes on naming counts as lost.
const rereads = 3

// again calls f, which reads the manifest and then objects that it names. An
// object may have been tiered and deleted in between; so when one is missing, the
// manifest is read again. What it still names must be there, unless this leader
// was deposed and does not know.
func (p *Partition) again(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		before := p.shape()
		err := f()
		if !errors.Is(err, ErrDataLoss) {
			return err
		}
		if attempt >= rereads && p.shape() == before {
			if proof := p.log.Check(ctx, 0); proof != nil {
				return proof
			}
			p.log.cfg.Logger.Error("object named by a manifest is missing from the bucket", "partition", p.tp.String(), "error", err)
			return err
		}
		if attempt >= 10*rereads || !sleep(ctx, p.log.done, backoff(attempt)) {
			return err
		}
	}
}

// shape changes with every edit of the manifest.
func (p *Partition) shape() [3]int64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	m := p.manifest
	return [3]int64{m.logStart, m.tiered, int64(len(m.pages) + len(m.segmentPages) + len(m.abortedPages))}
}

func (p *Partition) read(ctx context.Context, offset int64, maxBytes int, committed bool) (*ReadResult, error) {
	res := &ReadResult{Release: func() {}}
	var aborted abortedIndex
	refs, rest, err := p.plan(ctx, offset, maxBytes, committed, &res.Offsets, &aborted)
	if err != nil || len(refs) == 0 {
		return res, err
	}
	behind := !p.log.inMemory(&refs[0])
	if behind {
		ctx = flow.WithStream(ctx, p.tp)
	}
	first, release, err := p.log.extent(ctx, &refs[0])
	if err != nil {
		return res, err
	}
	whole := after(first, offset)
	res.Records = within(whole, maxBytes, true)
	res.Release = release
	if len(refs) > 1 && len(res.Records) == len(whole) && // else what comes next would leave a gap
		len(res.Records) < maxBytes && len(res.Records)+int(refs[1].RawLen) <= 2*maxBytes {
		err = p.gather(ctx, refs[1:], maxBytes, res)
	}
	if err == nil && committed {
		res.Records = below(res.Records, res.LastStable)
		if res.Aborted, err = aborted.within(ctx, p, offset, lastOffset(res.Records)); err != nil {
			res.Release()
			return &ReadResult{Offsets: res.Offsets, Release: func() {}}, err
		}
	}
	if behind {
		p.ahead(ctx, &refs[len(refs)-1], rest, offset, res)
	}
	return res, err
}

// plan lists the extents that a read needs, from one page, one segment or the
// tail, and those that follow them there.
func (p *Partition) plan(ctx context.Context, offset int64, maxBytes int, committed bool, o *Offsets, aborted *abortedIndex) (need, rest []wal.ExtentRef, err error) {
	p.mu.RLock()
	m := p.manifest
	*o = m.offsets()
	*aborted = abortedIndex{m.abortedPages, m.aborted} // complete below the last stable offset
	if p.phase != serving && p.phase != releasing {
		p.mu.RUnlock()
		return nil, nil, ErrNotLeader
	}
	if offset < m.logStart || offset > m.end {
		p.mu.RUnlock()
		return nil, nil, fmt.Errorf("%w: %d is not in [%d, %d]", ErrOffsetOutOfRange, offset, o.LogStart, o.HighWatermark)
	}
	if offset == m.end || committed && offset >= o.LastStable {
		p.mu.RUnlock()
		return nil, nil, nil
	}
	at := m.locate(offset)
	p.mu.RUnlock()
	refs, err := p.expand(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	i := find(refs, offset)
	if i == len(refs) || refs[i].Base > offset {
		return nil, nil, fmt.Errorf("%w: no extent of %s holds offset %d", ErrDataLoss, p.tp, offset)
	}
	n, bytes := i+1, refs[i].RawLen*(refs[i].Last-offset+1)/(refs[i].Last-refs[i].Base+1)
	for n < len(refs) && n-i < readExtentsMax && bytes < int64(maxBytes) && (!committed || refs[n].Base < o.LastStable) {
		bytes += refs[n].RawLen
		n++
	}
	return refs[i:n], refs[n:], nil
}

// Behind reports whether what is at offset has left memory, so that reading it
// takes the cache or the bucket.
func (p *Partition) Behind(offset int64) bool {
	p.mu.RLock()
	m := p.manifest
	at := m.locate(offset)
	end := m.end
	p.mu.RUnlock()
	if offset >= end || at.tail == nil {
		return offset < end
	}
	i := find(at.tail, offset)
	return i < len(at.tail) && !p.log.inMemory(&at.tail[i])
}

// piece is the part of a manifest in which an offset lies: a page, a segment, or
// the tail.
type piece struct {
	offset      int64
	page        *wal.PageRef // of extents
	segmentPage *wal.PageRef
	segment     *wal.SegmentRef
	tail        []wal.ExtentRef
}

// locate finds the piece that holds offset. What it returns may be used after
// the lock is given back: entries are never changed in place.
func (m *manifest) locate(offset int64) piece {
	at := piece{offset: offset}
	if offset < m.tiered {
		if i := findPage(m.segmentPages, offset); i < len(m.segmentPages) {
			at.segmentPage = &m.segmentPages[i]
		} else if i := findSegment(m.segments, offset); i < len(m.segments) {
			at.segment = &m.segments[i]
		}
		return at
	}
	if i := findPage(m.pages, offset); i < len(m.pages) {
		at.page = &m.pages[i]
	} else {
		at.tail = m.tail
	}
	return at
}

// expand loads the extents, or the blocks, of a piece.
func (p *Partition) expand(ctx context.Context, at piece) ([]wal.ExtentRef, error) {
	switch {
	case at.page != nil:
		return p.log.loadPage(ctx, p, *at.page)
	case at.segmentPage != nil:
		segments, err := p.log.loadSegmentPage(ctx, p.tp, *at.segmentPage)
		if err != nil {
			return nil, err
		}
		i := findSegment(segments, at.offset)
		if i == len(segments) {
			return nil, nil
		}
		return p.log.loadSection(ctx, p.tp, &segments[i])
	case at.segment != nil:
		return p.log.loadSection(ctx, p.tp, at.segment)
	}
	return at.tail, nil
}

// gather appends more extents to a result that has room. They are loaded at the
// same time; an error of a later one only makes the result shorter.
func (p *Partition) gather(ctx context.Context, refs []wal.ExtentRef, maxBytes int, res *ReadResult) error {
	type part struct {
		b       []byte
		release func()
	}
	parts := make([]part, len(refs))
	var g errgroup.Group
	g.SetLimit(readConcurrency)
	for i := range refs {
		g.Go(func() error {
			b, release, err := p.log.extent(ctx, &refs[i])
			parts[i] = part{b, release}
			return err
		})
	}
	_ = g.Wait() // the first missing part ends the result below
	size := len(res.Records)
	for i := range parts {
		size += len(parts[i].b)
	}
	out := make([]byte, 0, min(maxBytes, size))
	out = append(out, res.Records...)
	res.Release()
	res.Release = func() {}
	full := false
	for _, q := range parts {
		if q.release == nil {
			break
		}
		if !full {
			more := within(q.b, maxBytes-len(out), false)
			full = len(more) < len(q.b)
			out = append(out, more...)
		}
	}
	for _, q := range parts {
		if q.release != nil {
			q.release()
		}
	}
	res.Records = out
	return nil
}

// after drops the batches that end before offset. b is whole batches.
func after(b []byte, offset int64) []byte {
	for len(b) > 0 {
		h, err := batch.Parse(b)
		if err != nil || h.LastOffset() >= offset {
			return b
		}
		b = b[h.Length:]
	}
	return b
}

// within returns the leading whole batches of b that fit limit; with one, the
// first is returned whatever its size.
func within(b []byte, limit int, one bool) []byte {
	n := 0
	for n < len(b) {
		h, err := batch.Parse(b[n:])
		if err != nil || (n+h.Length > limit && !(one && n == 0)) {
			break
		}
		n += h.Length
	}
	return b[:n]
}

const (
	aheadMin     = ChunkLen
	aheadMax     = 8 * ChunkLen
	aheadReaders = 16
)

// readAhead recognises readers that go through a partition in order. Guarded by
// Partition.mu.
type readAhead []aheadReader

type aheadReader struct {
	next   int64
	window int64
}

// ahead lets the cache load what a sequential reader will want next: 4 MiB at
// first, doubling to 32 MiB as it goes on.
func (p *Partition) ahead(ctx context.Context, last *wal.ExtentRef, rest []wal.ExtentRef, offset int64, res *ReadResult) {
	c := p.log.cfg.Cache
	if c == nil || len(res.Records) == 0 || p.log.inMemory(last) {
		return // at the end of the log there is nothing to load
	}
	next := lastOffset(res.Records) + 1
	p.mu.Lock()
	i := slices.IndexFunc(p.readers, func(r aheadReader) bool { return r.next == offset })
	r := aheadReader{window: aheadMin / 2}
	if i >= 0 {
		r = p.readers[i]
		p.readers = slices.Delete(p.readers, i, i+1)
	}
	r.next, r.window = next, min(aheadMax, r.window*2)
	if len(p.readers) >= aheadReaders {
		p.readers = slices.Delete(p.readers, 0, 1)
	}
	p.readers = append(p.readers, r)
	p.mu.Unlock()
	if i >= 0 { // one read is not a sequence
		p.log.prefetch(ctx, c, rest, r.window)
	}
}

// prefetch asks for the chunks of the extents, up to window bytes of chunks: a
// partition may have little in each, and what is loaded is what costs.
func (l *Log) prefetch(ctx context.Context, c Cache, refs []wal.ExtentRef, window int64) {
	var key string
	var chunk int64 = -1
	for i := range refs {
		e := &refs[i]
		k := e.Key()
		for index := e.Position / ChunkLen; index*ChunkLen < e.Position+e.Len; index++ {
			if k == key && index == chunk {
				continue
			}
			if window -= ChunkLen; window < 0 {
				return
			}
			c.Prefetch(ctx, k, index, l.loadChunk(k, index))
			key, chunk = k, index
		}
	}
}

func lastOffset(b []byte) int64 {
	last := int64(-1)
	for len(b) > 0 {
		h, err := batch.Parse(b)
		if err != nil {
			break
		}
		last = h.LastOffset()
		b = b[h.Length:]
	}
	return last
}
