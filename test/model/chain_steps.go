package model

// next lets the writer, the network, the sealers and whoever deletes do
// whatever they may do next. An actor that is slow, paused or dead is one whose
// steps are not taken for a while, or ever.
func (c chain) next(s *chainState, emit func(chainState, step)) {
	yield := func(n chainState, by step) {
		n.tidy()
		emit(n, by)
	}
	if !s.dead {
		c.send(s, yield)
		c.resolve(s, yield)
		c.acknowledge(s, yield)
	}
	c.deliver(s, yield)
	for i := range s.sealers {
		c.seal(s, i, yield)
	}
	c.describe(s, yield)
	c.collect(s, yield)
	if c.bounds.reads && s.end > 0 && !s.dead {
		c.ask(s, yield)
	}
}

// tidy drops what can make no difference any more, and names the sealers, which
// differ in nothing, in one order.
func (s *chainState) tidy() {
	if s.dead {
		s.durable, s.answered, s.late, s.lateOK, s.proves, s.probe = 0, 0, 0, 0, 0, 0
	}
	a, b := s.sealers[0], s.sealers[1]
	if a.phase < b.phase || a.phase == b.phase && a.at < b.at {
		s.sealers[0], s.sealers[1] = b, a
	}
}

// send takes the next slot, for data or for CLOSE.
func (c chain) send(s *chainState, yield func(chainState, step)) {
	committed := s.acked.prefix()
	if int(s.next) >= c.bounds.slots || s.closeAt > 0 && !c.rules.goesOnAfterClose {
		return
	}
	if int(s.next-committed) < c.bounds.window {
		n := *s
		n.next++
		if s.end > 0 && c.bounds.reads {
			n.late.add(s.next)
		}
		yield(n, step{format: "the writer sends slot %[2]d", what: int(s.next)})
	}
	// CLOSE follows when everything is committed and a checkpoint describes it.
	if s.closeAt == 0 && committed == s.next && s.checkpoint == s.next {
		n := *s
		n.next++
		n.closeAt = n.next
		yield(n, step{format: "the writer sends CLOSE in slot %[2]d", what: int(s.next)})
	}
}

// bytes is what the writer has sent for a slot.
func (s *chainState) bytes(slot uint8) content {
	if s.closeAt == slot+1 {
		return closing
	}
	return ours
}

// resolve learns what became of a PUT: from its answer, or from the bytes found
// in the slot by an attempt that was told that it exists.
func (c chain) resolve(s *chainState, yield func(chainState, step)) {
	for i := range s.next {
		if s.durable.has(i) || s.acked.has(i) {
			continue
		}
		if s.answered.has(i) {
			n := *s
			n.durable.add(i)
			yield(n, step{format: "the writer is told that slot %[2]d is written", what: int(i)})
		}
		if s.lateOK.has(i) {
			n := *s
			n.durable.add(i)
			n.proves.add(i)
			n.misled = c.rules.provesEarly
			yield(n, step{format: "the writer is told that a late attempt wrote slot %[2]d", what: int(i)})
		}
		if s.slots[i] == free {
			continue // another attempt writes it, if any is delivered
		}
		n := *s
		own := s.slots[i] == s.bytes(i) || c.rules.believes412 || c.rules.comparesWriter && s.slots[i] != fence
		if !own {
			n.dead = true
			yield(n, step{format: "the writer finds something else in slot %[2]d and ends", what: int(i)})
			continue
		}
		n.durable.add(i)
		if c.rules.proves412 && s.late.has(i) {
			n.proves.add(i)
		}
		if s.slots[i] != s.bytes(i) {
			yield(n, step{format: "the writer finds slot %[2]d taken and believes that it was itself", what: int(i)})
			continue
		}
		yield(n, step{format: "the writer finds its own bytes in slot %[2]d", what: int(i)})
	}
}

// acknowledge acknowledges durable slots in order.
func (c chain) acknowledge(s *chainState, yield func(chainState, step)) {
	for i := range s.next {
		if s.durable.has(i) && !s.acked.has(i) && (i == s.acked.prefix() || c.rules.acksAcrossGaps) {
			n := *s
			n.acked.add(i)
			n.misled = s.proves.has(i)
			yield(n, step{format: "the writer acknowledges slot %[2]d", what: int(i)})
		}
	}
}

// deliver applies PUTs that were sent at some time. The answer comes later, or
// not at all.
func (c chain) deliver(s *chainState, yield func(chainState, step)) {
	for i := range s.next {
		n, possible, written := c.create(s, writer, i, s.bytes(i))
		if !possible {
			continue
		}
		late := n
		if written {
			n.answered.add(i)
			late.lateOK.add(i)
		}
		yield(n, step{format: n.created(written, i), what: int(i)})
		if written && s.late.has(i) {
			yield(late, step{format: "the store writes slot %[2]d for a late attempt", what: int(i)})
		}
	}
	for i := range uint8(c.bounds.slots + 1) {
		if s.fences.has(i) {
			if n, possible, written := c.create(s, fencer, i, fence); possible {
				yield(n, step{format: n.created(written, i), what: int(i)})
			}
		}
		if c.bounds.clone && int(i) < c.bounds.slots {
			if n, possible, written := c.create(s, clone, i, foreign); possible {
				yield(n, step{format: n.created(written, i), what: int(i)})
			}
		}
	}
}

// create is the store's create-if-absent. On a store where it is not one step,
// the first half only notes that the slot was free.
func (c chain) create(s *chainState, by sender, i uint8, what content) (n chainState, possible, written bool) {
	n = *s
	if !c.rules.createRaces {
		n.slots[i] = what
		return n, s.slots[i] == free, true
	}
	if s.checked[by].has(i) {
		n.checked[by] &^= 1 << i
		n.slots[i] = what
		return n, true, true
	}
	n.checked[by].add(i)
	return n, s.slots[i] == free, false
}

// created describes a step of create.
func (s *chainState) created(written bool, i uint8) string {
	if !written {
		return "the store checks that slot %[2]d is free"
	}
	switch s.slots[i] {
	case foreign:
		return "the store writes a copy's bytes into slot %[2]d"
	case fence:
		return "the store writes a fence into slot %[2]d"
	}
	return "the store writes slot %[2]d"
}
