package tiering

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/tiering/wal"
)

// change is what a chain did to a partition after its OPEN: an extent, or an
// edit of the manifest. Replay gathers them where it does not know the state
// that they apply to.
type change struct {
	ref  wal.ExtentRef
	rows []wal.Row
	edit *wal.Record // nil: an extent
}

func (m *manifest) change(c *change, now int64) error {
	if c.edit != nil {
		return m.edit(c.edit)
	}
	return m.apply(c.ref, c.rows, now)
}

// isEdit reports whether a record edits the manifest of its partition.
func isEdit(t wal.RecordType) bool { return t == wal.Add || t == wal.LogStart }

// edit applies a committed edit. That it can be applied was checked when it was
// proposed: edits of a partition are committed one at a time, and extents that
// come meanwhile do not interfere.
func (m *manifest) edit(r *wal.Record) error {
	if r.Epoch != m.epoch {
		return fmt.Errorf("%s: edit of epoch %d at epoch %d", m.partition, r.Epoch, m.epoch)
	}
	if r.Type == wal.LogStart {
		return m.trim(r.Base)
	}
	return m.add(r.Segment)
}

// addable tells why a segment cannot take the place of the oldest extents.
func (m *manifest) addable(s *wal.SegmentRef) error {
	if s.Last < m.logStart {
		return fmt.Errorf("%s: segment of offsets %d to %d is %w, %d", m.partition, s.Base, s.Last, errBelowStart, m.logStart)
	}
	// It begins where the segments end or, when the log start has passed that, no
	// later than the log.
	if s.Base < m.tiered || s.Base > m.untieredFrom() || s.Last < s.Base || s.Last >= m.end {
		return fmt.Errorf("%s: segment of offsets %d to %d does not fit between %d and %d", m.partition, s.Base, s.Last, m.tiered, m.end)
	}
	if i := find(m.tail, s.Last); i < len(m.tail) && m.tail[i].Base <= s.Last && m.tail[i].Last != s.Last {
		return fmt.Errorf("%s: segment ends at offset %d, inside the extent of %d to %d", m.partition, s.Last, m.tail[i].Base, m.tail[i].Last)
	}
	return nil
}

// add lets a segment take the place of the oldest extents.
func (m *manifest) add(s *wal.SegmentRef) error {
	if err := m.addable(s); err != nil {
		return err
	}
	m.segments = append(m.segments, *s)
	m.tiered = s.Last + 1
	m.pages = slices.Clone(m.pages[findPage(m.pages, m.tiered):])
	m.tail = slices.Clone(m.tail[find(m.tail, m.tiered):])
	m.countUntiered()
	return nil
}

func (m *manifest) countUntiered() {
	m.untiered = 0
	for i := range m.pages {
		m.untiered += m.pages[i].Bytes
	}
	for i := range m.tail {
		m.untiered += m.tail[i].RawLen
	}
}

// floors returns, for every chain that the untiered part rests on, the lowest
// slot that it does; of a page that is partly tiered, no higher than it may be.
func (m *manifest) floors() []wal.SlotFloor {
	out := floorsOf(m.tail)
	for i := range m.pages {
		out = lowest(out, m.pages[i].Floors)
	}
	return out
}

func floorsOf(refs []wal.ExtentRef) (out []wal.SlotFloor) {
	for i := range refs {
		out = lower(out, wal.SlotFloor{Incarnation: refs[i].Incarnation, Slot: refs[i].Slot})
	}
	return out
}

// lower takes a floor into account. There are few chains in one list.
func lower(floors []wal.SlotFloor, f wal.SlotFloor) []wal.SlotFloor {
	for i := range floors {
		if floors[i].Incarnation == f.Incarnation {
			floors[i].Slot = min(floors[i].Slot, f.Slot)
			return floors
		}
	}
	return append(floors, f)
}

func lowest(floors, others []wal.SlotFloor) []wal.SlotFloor {
	for _, f := range others {
		floors = lower(floors, f)
	}
	return floors
}

// beginEdit sends an edit of the manifest on its way. Edits of a partition follow
// one another; check decides, when it is this one's turn, whether it still fits. A
// partition that is being given up takes none: what its RELEASE states must hold
// every edit, or what an edit made unneeded would be missed. After a nil error
// the caller has the turn until endEdit.
func (p *Partition) beginEdit(ctx context.Context, r *wal.Record, check func(*manifest) error) (*flush, error) {
	select {
	case p.editing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f, err := p.propose(r, check)
	if err != nil {
		<-p.editing
		return nil, fmt.Errorf("edit manifest of %s: %w", p.tp, err)
	}
	return f, nil
}

// endEdit waits until the edit is committed and applied.
func (p *Partition) endEdit(f *flush) error {
	<-f.done // it commits, or the incarnation is over: no other end
	<-p.editing
	return f.err
}

func (p *Partition) propose(r *wal.Record, check func(*manifest) error) (*flush, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != serving {
		return nil, ErrNotLeader
	}
	if err := check(p.manifest); err != nil {
		return nil, err
	}
	r.Partition, r.Epoch = p.tp, p.epoch
	f, err := p.log.record(*r, func(uint64) { p.edited(r) })
	if err == nil {
		p.edits++
	}
	return f, err
}

// edited runs in the commit loop.
func (p *Partition) edited(r *wal.Record) {
	p.mu.Lock()
	p.edits--
	p.encoded = nil
	var free freed
	if r.Type == wal.LogStart {
		free = p.manifest.freedBy(r.Base)
	}
	if err := p.manifest.edit(r); err != nil {
		// It was checked when it was proposed; going on would let others replay
		// something else than what is served.
		panic(err)
	}
	if p.manifest.untiered == 0 {
		p.waiting = time.Time{}
	}
	p.mu.Unlock()
	p.log.graves.bury(p.tp, free, time.Now().Add(p.log.cfg.DeleteGrace), false)
	p.notify() // a release may wait for it
}

// settled reports that everything appended and every edit is committed; p.mu is
// held.
func (p *Partition) settled() bool { return p.manifest.end == p.end && p.edits == 0 }
