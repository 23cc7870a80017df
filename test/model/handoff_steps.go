package model

// next lets every incarnation do whatever it may do next. Nothing waits for its
// turn: an incarnation that is slow, paused or dead is one whose steps are not
// taken for a while, or ever.
func (h handoff) next(s *handoffState, emit func(handoffState, step)) {
	yield := func(n handoffState, by step) {
		h.tidy(&n)
		emit(n, by)
	}
	for inc := range uint8(incarnations) {
		if m := s.members[inc]; m.trimming > 0 {
			h.trim(s, inc, m, yield)
		}
		if s.isSealed(inc) {
			if h.rules.checkpointsAfterEnd {
				h.checkpointLate(s, inc, yield)
			}
			continue
		}
		h.claim(s, inc, yield)
		h.lead(s, inc, yield)
		h.release(s, inc, yield)
		h.checkpoint(s, inc, yield)
		h.forget(s, inc, yield)
		h.end(s, inc, yield)
	}
}

// tidy drops what can make no difference any more, so that states which behave
// alike are one.
func (h handoff) tidy(s *handoffState) {
	for inc := range uint8(incarnations) {
		m := &s.members[inc]
		if s.isSealed(inc) && !h.rules.checkpointsAfterEnd {
			m.role = idle
		}
		if m.role == idle {
			m.epoch = 0
		}
		if m.role != claimed {
			m.oldest = 0
		}
		// The newest entry never becomes an older one again: such a trim is void.
		if m.trimming > 0 && m.trimming != s.next && !h.rules.trimsByName {
			m.trimming = 0
		}
	}
}

// claim appends the incarnation to the owner list, by compare-and-swap. Any may
// be preferred at any moment, the same one again and again.
func (h handoff) claim(s *handoffState, inc uint8, yield func(handoffState, step)) {
	m := s.members[inc]
	switch {
	case m.role == claimed: // the answer is lost; it will claim anew, with another epoch
		n := *s
		n.members[inc].role = idle
		yield(n, step{"incarnation %d does not learn that it claimed epoch %d", int(inc), int(m.epoch)})
		return
	case m.role == leading:
		return
	}
	if h.rules.leadsReleasedEpoch && s.next > 0 && s.owner[s.next-1] == inc && s.opened.has(s.next-1) {
		n := *s
		n.members[inc].role, n.members[inc].epoch = leading, s.next-1
		yield(n, step{"incarnation %d finds itself the newest owner and leads epoch %d", int(inc), int(s.next - 1)})
	}
	if int(s.next) >= h.bounds.epochs || !s.mayJoin(inc) {
		return
	}
	n := *s
	e := s.next
	n.owner[e] = inc
	n.next++
	n.members[inc].role, n.members[inc].epoch, n.members[inc].oldest = claimed, e, s.oldest
	yield(n, step{"incarnation %d claims epoch %d", int(inc), int(e)})
}

// mayJoin lets incarnations join in order: they differ in nothing but the name.
func (s *handoffState) mayJoin(inc uint8) bool {
	if inc == 0 {
		return true
	}
	for e := range s.next {
		if s.owner[e] == inc-1 {
			return true
		}
	}
	return false
}

// lead opens a claimed epoch once its predecessors are closed, and appends.
// Every append that is in the chain is acknowledged.
func (h handoff) lead(s *handoffState, inc uint8, yield func(handoffState, step)) {
	m := s.members[inc]
	e := m.epoch
	switch {
	case m.role == claimed && (!s.released.has(e) || h.rules.opensReleasedEpoch):
		left, ready := h.walk(s, inc, m.oldest, e)
		if !ready {
			return
		}
		n := *s
		n.members[inc].role = leading
		n.opened.add(e)
		n.base[e] = left.end
		left.epochs.add(e)
		n.inherited[e] = left.epochs
		n.harm = left.check(s)
		yield(n, step{"incarnation %d opens epoch %d", int(inc), int(e)})
	case m.role == leading && int(s.count[e]) < h.bounds.appends:
		n := *s
		offset := s.base[e] + s.count[e]
		if s.acknowledged(offset) {
			n.harm = ackedTwice
		}
		if s.released.has(e) {
			n.cut.add(e)
		}
		n.count[e]++
		yield(n, step{"incarnation %d appends and acknowledges offset %d", int(inc), int(offset)})
	}
}

func (s *handoffState) acknowledged(offset uint8) bool {
	for e := range s.next {
		if s.opened.has(e) && s.base[e] <= offset && offset < s.base[e]+s.count[e] {
			return true
		}
	}
	return false
}

// release gives claims up, as a peer asks or because a newer claim was seen. An
// epoch that never opened is released too and never opens afterwards.
func (h handoff) release(s *handoffState, inc uint8, yield func(handoffState, step)) {
	m := &s.members[inc]
	for e := range s.next {
		mine := s.owner[e] == inc && (e >= s.oldest || m.role != idle && m.epoch == e)
		if !mine || s.released.has(e) {
			continue
		}
		n := *s
		n.released.add(e)
		if !s.opened.has(e) {
			n.unopened.add(e)
		}
		if m.epoch == e && !h.keepsOn(m.role) {
			n.members[inc].role = idle
		}
		yield(n, step{"incarnation %d releases epoch %d", int(inc), int(e)})
	}
}

// keepsOn is true of a role that a broken implementation keeps after RELEASE.
func (h handoff) keepsOn(r role) bool {
	return r == leading && h.rules.appendsAfterRelease || r == claimed && h.rules.opensReleasedEpoch
}

// checkpoint makes the open epoch's state durable, and has the owner list
// trimmed afterwards.
func (h handoff) checkpoint(s *handoffState, inc uint8, yield func(handoffState, step)) {
	m := s.members[inc]
	if m.role != leading || m.trimming > 0 {
		return
	}
	if !s.whole.has(m.epoch) {
		n := *s
		n.whole.add(m.epoch)
		n.durable.add(m.epoch)
		yield(n, step{"incarnation %d's checkpoint with epoch %d is durable", int(inc), int(m.epoch)})
	}
	h.decideTrim(s, inc, yield)
}

// checkpointLate records a checkpoint although the end of the chain is recorded;
// whoever recovered the chain has read the one before it.
func (h handoff) checkpointLate(s *handoffState, inc uint8, yield func(handoffState, step)) {
	m := s.members[inc]
	if m.role != leading || m.trimming > 0 {
		return
	}
	if !s.durable.has(m.epoch) {
		n := *s
		n.durable.add(m.epoch)
		yield(n, step{"incarnation %d's checkpoint with epoch %d is recorded after the end", int(inc), int(m.epoch)})
	}
	h.decideTrim(s, inc, yield)
}

func (h handoff) decideTrim(s *handoffState, inc uint8, yield func(handoffState, step)) {
	e := s.members[inc].epoch
	if s.oldest >= e || !s.durable.has(e) && !h.rules.trimsBeforeDurable {
		return
	}
	n := *s
	n.members[inc].trimming = e + 1
	yield(n, step{"incarnation %d sends a trim of the owner list below epoch %d", int(inc), int(e)})
}

// trim drops the owner entries below the newest one. It was decided earlier, and
// much may have happened since.
func (h handoff) trim(s *handoffState, inc uint8, m member, yield func(handoffState, step)) {
	n := *s
	n.members[inc].trimming = 0
	newest := s.next - 1
	if newest != m.trimming-1 && (!h.rules.trimsByName || s.owner[newest] != inc) {
		yield(n, step{"incarnation %d's trim finds a newer entry than epoch %d", int(inc), int(m.trimming - 1)})
		return
	}
	n.oldest = newest
	yield(n, step{"incarnation %d's trim leaves the entry of epoch %d", int(inc), int(newest)})
}

// forget writes a checkpoint that no longer describes a released epoch, which
// is right once no owner list has its entry.
func (h handoff) forget(s *handoffState, inc uint8, yield func(handoffState, step)) {
	for e := range s.next {
		if s.owner[e] != inc || !s.released.has(e) || s.gone.has(e) || !s.opened.has(e) {
			continue
		}
		succeeded := s.opened>>(e+1) != 0
		if e < s.oldest || h.rules.checkpointForgets || h.rules.forgetsWhenOpened && succeeded {
			n := *s
			n.gone.add(e)
			yield(n, step{"incarnation %d's checkpoint forgets epoch %d", int(inc), int(e)})
		}
	}
}

// end ends a chain: anyone may seal it at any time, rightly or wrongly, and its
// incarnation may close it, with a checkpoint that says everything.
func (h handoff) end(s *handoffState, inc uint8, yield func(handoffState, step)) {
	n := *s
	n.sealed |= 1 << inc
	yield(n, step{format: "the chain of incarnation %[1]d is sealed", who: int(inc)})
	if m := s.members[inc]; m.role == leading {
		n.whole.add(m.epoch)
		n.durable.add(m.epoch)
		if h.rules.closeBeforeDrained && s.count[m.epoch] > 0 {
			n.cutClose.add(m.epoch)
		}
	}
	n.members[inc].role = idle
	yield(n, step{format: "incarnation %[1]d closes its chain", who: int(inc)})
}
