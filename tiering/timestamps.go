package tiering

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// inflateMax bounds one batch while a record is looked for in it.
const inflateMax = 64 << 20

// TimestampOffset is a record's place and time; all fields are -1 when there is
// no such record.
type TimestampOffset struct {
	Offset    int64
	Timestamp int64 // milliseconds
	Epoch     int32
}

var noOffset = TimestampOffset{Offset: -1, Timestamp: -1, Epoch: -1}

// OffsetForTimestamp returns the first record whose timestamp is at or after ts
// (ListOffsets by time), exact to the record.
func (p *Partition) OffsetForTimestamp(ctx context.Context, ts int64) (TimestampOffset, error) {
	return p.search(ctx, func(newest int64) bool { return newest >= ts }, func(t int64) bool { return t >= ts })
}

// MaxTimestamp returns the first record that has the largest timestamp of the log.
func (p *Partition) MaxTimestamp(ctx context.Context) (TimestampOffset, error) {
	p.mu.RLock()
	newest := p.manifest.maxTimestamp()
	p.mu.RUnlock()
	if newest < 0 {
		return noOffset, nil
	}
	return p.OffsetForTimestamp(ctx, newest)
}

func (m *manifest) maxTimestamp() int64 {
	newest := int64(-1)
	for _, pages := range [][]wal.PageRef{m.segmentPages, m.pages} {
		for i := range pages {
			newest = max(newest, pages[i].MaxTimestamp)
		}
	}
	for i := range m.segments {
		newest = max(newest, m.segments[i].MaxTimestamp)
	}
	for i := range m.tail {
		newest = max(newest, m.tail[i].MaxTimestamp)
	}
	return newest
}

// search finds the first record that matches, opening only pages, segments,
// extents and batches whose largest timestamp may.
func (p *Partition) search(ctx context.Context, may func(newest int64) bool, match func(ts int64) bool) (TimestampOffset, error) {
	var at TimestampOffset
	err := p.again(ctx, func() (err error) {
		s := &timeSearch{p: p, may: may, match: match}
		at, err = s.run(ctx)
		return err
	})
	return at, err
}

// timeSearch is one search by timestamp through one state of the manifest.
type timeSearch struct {
	p     *Partition
	start int64 // nothing below it counts
	may   func(newest int64) bool
	match func(ts int64) bool
}

func (s *timeSearch) run(ctx context.Context) (TimestampOffset, error) {
	p := s.p
	p.mu.RLock()
	if p.phase != serving && p.phase != releasing {
		p.mu.RUnlock()
		return noOffset, ErrNotLeader
	}
	m := p.manifest
	segmentPages, segments, pages, tail, tiered := m.segmentPages, m.segments, m.pages, m.tail, m.tiered
	s.start = m.logStart
	p.mu.RUnlock()
	for i := range segmentPages {
		if segmentPages[i].Last < s.start || !s.may(segmentPages[i].MaxTimestamp) {
			continue
		}
		refs, err := p.log.loadSegmentPage(ctx, p.tp, segmentPages[i])
		if err != nil {
			return noOffset, err
		}
		if at, err := s.segments(ctx, refs); err != nil || at.Offset >= 0 {
			return at, err
		}
	}
	if at, err := s.segments(ctx, segments); err != nil || at.Offset >= 0 {
		return at, err
	}
	s.start = max(s.start, tiered)
	for i := range pages {
		if pages[i].Last < s.start || !s.may(pages[i].MaxTimestamp) {
			continue
		}
		refs, err := p.log.loadPage(ctx, p, pages[i])
		if err != nil {
			return noOffset, err
		}
		if at, err := s.extents(ctx, refs); err != nil || at.Offset >= 0 {
			return at, err
		}
	}
	return s.extents(ctx, tail)
}

func (s *timeSearch) segments(ctx context.Context, refs []wal.SegmentRef) (TimestampOffset, error) {
	for i := range refs {
		if refs[i].Last < s.start || !s.may(refs[i].MaxTimestamp) {
			continue
		}
		blocks, err := s.p.log.loadSection(ctx, s.p.tp, &refs[i])
		if err != nil {
			return noOffset, err
		}
		if at, err := s.extents(ctx, blocks); err != nil || at.Offset >= 0 {
			return at, err
		}
	}
	return noOffset, nil
}

func (s *timeSearch) extents(ctx context.Context, refs []wal.ExtentRef) (TimestampOffset, error) {
	for i := range refs {
		if refs[i].Last < s.start || !s.may(refs[i].MaxTimestamp) {
			continue
		}
		b, release, err := s.p.log.extent(ctx, &refs[i])
		if err != nil {
			return noOffset, err
		}
		at, err := searchBatches(b, s.start, s.may, s.match)
		release()
		if err != nil {
			return noOffset, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if at.Offset >= 0 {
			at.Epoch = s.p.EpochOf(at.Offset)
			return at, nil
		}
	}
	return noOffset, nil
}

var errFound = errors.New("found")

// searchBatches looks for the record in whole batches. Of a compressed batch
// nobody has seen the inside when it was produced: one that cannot be looked
// into, or is too large to, is answered by its header, so that it does not spoil
// every lookup in the partition.
func searchBatches(b []byte, start int64, may func(int64) bool, match func(int64) bool) (TimestampOffset, error) {
	for len(b) > 0 {
		h, err := batch.Parse(b)
		if err != nil {
			return noOffset, err
		}
		one := b[:h.Length]
		b = b[h.Length:]
		if h.LastOffset() < start || !may(h.MaxTimestamp) {
			continue
		}
		whole := TimestampOffset{Offset: max(start, h.BaseOffset), Timestamp: h.MaxTimestamp}
		if h.LogAppendTime() { // every record has the batch's time
			return whole, nil
		}
		at := noOffset
		err = batch.Scan(one, &h, inflateMax, func(r *batch.Record) error {
			offset, ts := h.BaseOffset+int64(r.OffsetDelta), h.BaseTimestamp+r.TimestampDelta
			if offset < start || !match(ts) {
				return nil
			}
			at = TimestampOffset{Offset: offset, Timestamp: ts}
			return errFound
		})
		if errors.Is(err, errFound) {
			return at, nil
		}
		if err != nil { // it cannot be looked into: the whole of it may be meant
			return whole, nil
		}
	}
	return noOffset, nil
}
