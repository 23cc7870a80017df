package tiering

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/tidemark-io/tidemark/tiering/wal"
)

// HighWatermark, as an offset to delete records below, stands for the high
// watermark.
const HighWatermark = -1

// errBelowStart: what an edit was about lies below the log start offset by now.
var errBelowStart = errors.New("below the log start offset")

// trimmable tells why the log cannot begin at start.
func (m *manifest) trimmable(start int64) error {
	if start < m.logStart || start > m.end {
		return fmt.Errorf("%w: the log of offsets %d to %d cannot begin at %d", ErrOffsetOutOfRange, m.logStart, m.end, start)
	}
	return nil
}

// trim lets the log begin at start. What lies wholly below is in the manifest no
// longer, except in the page that start lies in: its entries below count for
// nothing, as those do that were tiered.
func (m *manifest) trim(start int64) error {
	if err := m.trimmable(start); err != nil {
		return err
	}
	m.logStart = start
	m.segmentPages = slices.Clone(m.segmentPages[findPage(m.segmentPages, start):])
	m.segments = slices.Clone(m.segments[findSegment(m.segments, start):])
	m.pages = slices.Clone(m.pages[findPage(m.pages, start):])
	m.tail = slices.Clone(m.tail[find(m.tail, start):])
	// The epoch that start lies in stays, and so does the last one.
	i := sort.Search(len(m.epochs), func(i int) bool { return m.epochs[i].Start > start })
	m.epochs = slices.Clone(m.epochs[max(0, i-1):])
	m.countUntiered()
	m.forgetAborted()
	return nil
}

// untieredFrom is the offset from which on nothing is tiered: entries of pages
// that end below it count for nothing.
func (m *manifest) untieredFrom() int64 { return max(m.tiered, m.logStart) }

// freed is what a partition named and does not name any more.
type freed struct {
	segments []wal.SegmentRef
	// segmentPages may reach beyond to: of what they name, segments that end in
	// [from, to) are meant.
	segmentPages []wal.PageRef
	pages        []wal.PageRef // of extents
	from, to     int64
}

func (f *freed) size() int { return len(f.segments) + len(f.segmentPages) + len(f.pages) }

// freedBy returns what trim(start) is going to free. Slots of write-ahead objects
// are not in it: the trim mark follows by itself.
func (m *manifest) freedBy(start int64) freed {
	f := freed{
		segments: m.segments[:findSegment(m.segments, start)],
		pages:    m.pages[:findPage(m.pages, start)],
		from:     m.logStart, to: start,
	}
	// Of a page that start lies in, some segments may go.
	n := findPage(m.segmentPages, start)
	if n < len(m.segmentPages) && m.segmentPages[n].Base < start {
		n++
	}
	f.segmentPages = m.segmentPages[:n]
	return f
}

// DeleteRecords has the log begin at offset, or at the high watermark, and
// returns the log start offset once that is committed. An offset that is below it
// already changes nothing. ErrOffsetOutOfRange when the offset is above the high
// watermark. When ctx ends first the records may be deleted all the same.
func (p *Partition) DeleteRecords(ctx context.Context, offset int64) (low int64, err error) {
	return p.trimTo(ctx, offset, "delete records")
}

// trimTo commits a LOGSTART.
func (p *Partition) trimTo(ctx context.Context, offset int64, reason string) (low int64, err error) {
	r := wal.Record{Type: wal.LogStart}
	e, err := p.beginTrim(ctx, &r, offset)
	if errors.Is(err, errBelowStart) {
		return p.Offsets().LogStart, nil
	}
	if err != nil {
		return -1, err
	}
	select {
	case <-e.done:
		err = p.endEdit(e)
	case <-ctx.Done():
		// The turn is given back when the fate is known, which the end of the
		// incarnation is the latest of.
		if !p.log.tasks.run(func(context.Context) { _ = p.endEdit(e) }) {
			_ = p.endEdit(e)
		}
		return -1, fmt.Errorf("%w: the log start offset of %s may be raised still: %w", ErrTimedOut, p.tp, context.Cause(ctx))
	}
	if err != nil {
		return -1, err
	}
	p.log.m.trimmed.WithLabelValues(reason).Inc()
	return r.Base, nil
}

// beginTrim is beginEdit of a LOGSTART; errBelowStart when there is nothing to do.
func (p *Partition) beginTrim(ctx context.Context, r *wal.Record, offset int64) (*flush, error) {
	return p.beginEdit(ctx, r, func(m *manifest) error {
		if r.Base = offset; offset == HighWatermark {
			r.Base = m.end
		}
		if r.Base <= m.end {
			// What belongs to an open transaction stays until its fate is known.
			r.Base = min(r.Base, m.lastStable())
		}
		if r.Base >= 0 && r.Base <= m.logStart {
			return errBelowStart
		}
		return m.trimmable(r.Base)
	})
}
