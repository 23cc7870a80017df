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
	at := noOffset
	err := p.again(ctx, func() error {
		s, err := p.beginSearch()
		if err != nil {
			return err
		}
		newest, err := s.newest(ctx)
		if err != nil || newest < 0 {
			return err
		}
		s.may, s.match = func(t int64) bool { return t >= newest }, func(t int64) bool { return t >= newest }
		at, err = s.run(ctx)
		return err
	})
	return at, err
}

// search finds the first record that matches, opening only pages, segments,
// extents and batches whose largest timestamp may.
func (p *Partition) search(ctx context.Context, may func(newest int64) bool, match func(ts int64) bool) (TimestampOffset, error) {
	at := noOffset
	err := p.again(ctx, func() error {
		s, err := p.beginSearch()
		if err != nil {
			return err
		}
		s.may, s.match = may, match
		at, err = s.run(ctx)
		return err
	})
	return at, err
}

// search goes through one state of the manifest.
type search struct {
	p                   *Partition
	start               int64 // nothing below it counts
	untiered            int64 // nothing below it counts in pages and tail
	segmentPages, pages []wal.PageRef
	segments            []wal.SegmentRef
	tail                []wal.ExtentRef

	may   func(newest int64) bool
	match func(ts int64) bool
}

func (p *Partition) beginSearch() (*search, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.phase != serving && p.phase != releasing {
		return nil, ErrNotLeader
	}
	return p.searchLocked(), nil
}

func (p *Partition) searchLocked() *search {
	m := p.manifest
	return &search{
		p: p, start: m.logStart, untiered: m.untieredFrom(),
		segmentPages: m.segmentPages, segments: m.segments, pages: m.pages, tail: m.tail,
	}
}

func (s *search) run(ctx context.Context) (TimestampOffset, error) {
	p := s.p
	for i := range s.segmentPages {
		if s.segmentPages[i].Last < s.start || !s.may(s.segmentPages[i].MaxTimestamp) {
			continue
		}
		refs, err := p.log.loadSegmentPage(ctx, p.tp, s.segmentPages[i])
		if err != nil {
			return noOffset, err
		}
		if at, err := s.inSegments(ctx, refs); err != nil || at.Offset >= 0 {
			return at, err
		}
	}
	if at, err := s.inSegments(ctx, s.segments); err != nil || at.Offset >= 0 {
		return at, err
	}
	for i := range s.pages {
		if s.pages[i].Last < s.untiered || !s.may(s.pages[i].MaxTimestamp) {
			continue
		}
		refs, err := p.log.loadPage(ctx, p, s.pages[i])
		if err != nil {
			return noOffset, err
		}
		if at, err := s.inExtents(ctx, refs, s.untiered); err != nil || at.Offset >= 0 {
			return at, err
		}
	}
	return s.inExtents(ctx, s.tail, s.untiered)
}

func (s *search) inSegments(ctx context.Context, refs []wal.SegmentRef) (TimestampOffset, error) {
	for i := range refs {
		if refs[i].Last < s.start || !s.may(refs[i].MaxTimestamp) {
			continue
		}
		blocks, err := s.p.log.loadSection(ctx, s.p.tp, &refs[i])
		if err != nil {
			return noOffset, err
		}
		if at, err := s.inExtents(ctx, blocks, s.start); err != nil || at.Offset >= 0 {
			return at, err
		}
	}
	return noOffset, nil
}

// inExtents looks into extents, or blocks, that do not end below from.
func (s *search) inExtents(ctx context.Context, refs []wal.ExtentRef, from int64) (TimestampOffset, error) {
	for i := range refs {
		if refs[i].Last < from || !s.may(refs[i].MaxTimestamp) {
			continue
		}
		b, release, err := s.p.log.extent(ctx, &refs[i])
		if err != nil {
			return noOffset, err
		}
		at, err := searchBatches(b, from, s.may, s.match)
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

// newest is the largest timestamp of any record from the log start on. What the
// log start lies in is looked into: its own largest may lie below.
func (s *search) newest(ctx context.Context) (int64, error) {
	newest := int64(-1)
	whole := func(base, last, ts int64) (partly bool) {
		if base >= s.start {
			newest = max(newest, ts)
		}
		return base < s.start && last >= s.start
	}
	segments, pages := s.segments, s.pages
	for i := range s.segmentPages {
		if page := &s.segmentPages[i]; whole(page.Base, page.Last, page.MaxTimestamp) {
			refs, err := s.p.log.loadSegmentPage(ctx, s.p.tp, *page)
			if err != nil {
				return -1, err
			}
			segments = append(refs[:len(refs):len(refs)], segments...)
		}
	}
	var partly []wal.ExtentRef
	for i := range segments {
		if whole(segments[i].Base, segments[i].Last, segments[i].MaxTimestamp) {
			blocks, err := s.p.log.loadSection(ctx, s.p.tp, &segments[i])
			if err != nil {
				return -1, err
			}
			partly = blocks
		}
	}
	for i := range pages {
		if page := &pages[i]; whole(page.Base, page.Last, page.MaxTimestamp) {
			refs, err := s.p.log.loadPage(ctx, s.p, *page)
			if err != nil {
				return -1, err
			}
			partly = append(partly[:len(partly):len(partly)], refs[find(refs, s.untiered):]...)
		}
	}
	for _, refs := range [][]wal.ExtentRef{partly, s.tail} {
		for i := range refs {
			if !whole(refs[i].Base, refs[i].Last, refs[i].MaxTimestamp) || refs[i].MaxTimestamp <= newest {
				continue
			}
			b, release, err := s.p.log.extent(ctx, &refs[i])
			if err != nil {
				return -1, err
			}
			ts, err := newestRecord(b, s.start)
			release()
			if err != nil {
				return -1, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			newest = max(newest, ts)
		}
	}
	return newest, nil
}

// newestRecord is the largest timestamp of the records from start on in whole
// batches; of a batch that cannot be looked into, that of its header.
func newestRecord(b []byte, start int64) (int64, error) {
	newest := int64(-1)
	for len(b) > 0 {
		h, err := batch.Parse(b)
		if err != nil {
			return -1, err
		}
		one := b[:h.Length]
		b = b[h.Length:]
		if h.LastOffset() < start || h.Control() {
			continue
		}
		if h.BaseOffset >= start || h.LogAppendTime() {
			newest = max(newest, h.MaxTimestamp)
			continue
		}
		inside := int64(-1)
		err = batch.Scan(one, &h, inflateMax, func(r *batch.Record) error {
			if h.BaseOffset+int64(r.OffsetDelta) >= start {
				inside = max(inside, h.BaseTimestamp+r.TimestampDelta)
			}
			return nil
		})
		if err != nil {
			inside = h.MaxTimestamp
		}
		newest = max(newest, inside)
	}
	return newest, nil
}
