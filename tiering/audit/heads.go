package audit

import (
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// head checks one head against those before it; false when it ends the chain.
func (s *scan) head(h *wal.Head) (goOn bool) {
	if s.previous != nil && h.Kind != wal.Fence && h.Previous != *s.previous {
		s.problem(KindChainBroken, "slot %d does not name the bytes of slot %d", h.Slot, h.Slot-1)
	}
	switch {
	case h.Slot == 0 && h.Kind != wal.Start && h.Kind != wal.Fence:
		s.problem(KindChainBroken, "slot 0 holds a %s instead of a START", h.Kind)
	case h.Slot > 0 && h.Kind == wal.Start:
		s.problem(KindChainBroken, "slot %d holds a START", h.Slot)
	}
	if h.Kind == wal.Fence {
		return s.fence(h)
	}
	if h.Writer != s.inc {
		s.problem(KindChainBroken, "slot %d, a %s, was written by %s", h.Slot, h.Kind, h.Writer)
	}
	if h.Acknowledged > h.Slot || h.Acknowledged < s.acknowledged {
		s.problem(KindChainBroken, "slot %d says that slots below %d were acknowledged, an earlier one says %d", h.Slot, h.Acknowledged, s.acknowledged)
	}
	if h.Checkpoint > h.Slot || h.Checkpoint < s.checkpoint || h.Kind == wal.Close && h.Checkpoint != h.Slot {
		s.problem(KindChainBroken, "slot %d, a %s, names checkpoint %d, an earlier one %d", h.Slot, h.Kind, h.Checkpoint, s.checkpoint)
	}
	s.acknowledged, s.checkpoint = max(s.acknowledged, h.Acknowledged), max(s.checkpoint, h.Checkpoint)
	s.apply(h)
	s.previous, s.next = &h.Digest, h.Slot+1
	if h.Kind == wal.Close {
		s.ended, s.closed = true, true
		return false
	}
	return true
}

// fence ends the chain: it does not belong to it.
func (s *scan) fence(h *wal.Head) (goOn bool) {
	if end := s.chain.End; end != nil && *end != h.Slot {
		s.problem(KindChainEnd, "slot %d holds a FENCE, the recorded end is %d", h.Slot, *end)
		s.hole() // what the record says counts
		return true
	}
	s.ended = true
	return false
}

// apply follows what the head says of partitions.
func (s *scan) apply(h *wal.Head) {
	for i := range h.Extents {
		e := &h.Extents[i]
		claim := tiering.Claim{Partition: e.Partition, Epoch: e.Epoch}
		c, known := s.claims[claim]
		if !known {
			c = claimEnd{base: -1, end: e.Base}
		}
		switch {
		case s.start > 0 || s.holed: // the OPEN, or an extent before, may lie there
		case !known:
			s.problem(KindLeadership, "slot %d holds an extent of %s at epoch %d, which it never opened", h.Slot, s.a.partitionName(e.Partition), e.Epoch)
		case c.released:
			s.problem(KindLeadership, "slot %d holds an extent of %s at epoch %d behind its RELEASE", h.Slot, s.a.partitionName(e.Partition), e.Epoch)
		case c.end != e.Base:
			s.problem(KindLeadership, "slot %d holds an extent of %s at offset %d, the one before ended at %d", h.Slot, s.a.partitionName(e.Partition), e.Base, c.end)
		}
		c.end = e.Last() + 1
		s.claims[claim] = c
	}
	for i := range h.Records {
		s.applyRecord(h.Slot, &h.Records[i])
	}
}

func (s *scan) applyRecord(slot uint64, r *wal.Record) {
	if r.Type == wal.Trim {
		if r.Slot > slot || r.Slot > s.checkpoint && s.start == 0 || r.Slot < s.trimmed {
			s.problem(KindTrim, "slot %d trims below slot %d; the newest checkpoint named is %d, an earlier mark %d", slot, r.Slot, s.checkpoint, s.trimmed)
		}
		s.trimmed = max(s.trimmed, r.Slot)
		return
	}
	claim := tiering.Claim{Partition: r.Partition, Epoch: r.Epoch}
	c, known := s.claims[claim]
	name := s.a.partitionName(r.Partition)
	switch r.Type {
	case wal.Open:
		if known {
			s.problem(KindLeadership, "slot %d opens %s at epoch %d once more", slot, name, r.Epoch)
		}
		s.claims[claim] = claimEnd{base: r.Base, end: r.Base}
		s.a.chains.noteOpen(claim, s)
	case wal.Add, wal.LogStart:
		switch {
		case s.start > 0 || s.holed:
		case !known:
			s.problem(KindLeadership, "slot %d edits the manifest of %s at epoch %d, which it never opened", slot, name, r.Epoch)
		case c.released:
			s.problem(KindLeadership, "slot %d edits the manifest of %s at epoch %d behind its RELEASE", slot, name, r.Epoch)
		}
	case wal.Release:
		end, opened, err := tiering.ReleasedEnd(r)
		switch {
		case err != nil:
			s.problem(KindHeadDamaged, "slot %d: RELEASE of %s: %v", slot, name, err)
			return
		case !opened && known:
			s.problem(KindLeadership, "slot %d releases %s at epoch %d as never opened", slot, name, r.Epoch)
		case opened && known && c.end != end && !s.holed:
			s.problem(KindLeadership, "slot %d releases %s at epoch %d with end offset %d, its extents end at %d", slot, name, r.Epoch, end, c.end)
		}
		if opened {
			if !known {
				c = claimEnd{base: -1, end: end}
			}
			c.released = true
			s.claims[claim] = c
		}
	}
}
