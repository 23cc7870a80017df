package model

import "math/bits"

// seal takes one sealer a step on. The check of a fence against the trim mark
// and the recording of the end are one step here: the transaction that records
// it repeats the check.
func (c chain) seal(s *chainState, i int, yield func(chainState, step)) {
	n := *s
	me := &n.sealers[i]
	switch me.phase {
	case waiting:
		if s.end > 0 {
			me.phase, me.at = sealed, s.end-1
			yield(n, step{"sealer %d reads that the chain ends at %d", i, int(me.at)})
			return
		}
		me.phase, me.at = walking, max(s.trim, s.checkpoint)
		yield(n, step{"sealer %d begins to look at slot %d", i, int(me.at)})
	case walking:
		c.walk(s, i, yield)
	case ending:
		c.record(s, i, yield)
	}
}

// walk looks at one slot: it goes on after data, ends at a fence or after CLOSE,
// and fences a free slot.
func (c chain) walk(s *chainState, i int, yield func(chainState, step)) {
	n := *s
	me := &n.sealers[i]
	at := me.at
	switch found := s.slots[at]; {
	case found == free:
		c.fence(s, i, yield)
	case found == fence && (!c.rules.skipsFence || int(at) == c.bounds.slots):
		me.phase = ending
		yield(n, step{"sealer %d sees a fence in slot %d", i, int(at)})
	case found == closing:
		me.phase, me.at = ending, at+1
		yield(n, step{"sealer %d sees CLOSE in slot %d", i, int(at)})
	default:
		me.at++
		yield(n, step{"sealer %d goes past slot %d", i, int(at)})
	}
}

// fence sends a fence into the free slot that a sealer looks at.
func (c chain) fence(s *chainState, i int, yield func(chainState, step)) {
	n := *s
	me := &n.sealers[i]
	at := me.at
	target := at
	if c.rules.fencesBeyond || c.rules.ignoresGaps {
		target = max(at, s.beyond())
	}
	switch {
	case c.rules.trustsLease:
		me.phase = ending
		yield(n, step{"sealer %d takes slot %d for the end", i, int(at)})
	case c.rules.ignoresGaps && target != at:
		me.at = target
		yield(n, step{"sealer %d goes on to slot %d, after the highest object", i, int(target)})
	case s.slots[target] == fence:
		me.phase = ending
		yield(n, step{"sealer %d, with a fence further up, takes slot %d for the end", i, int(at)})
	case s.slots[target] == free && !s.fences.has(target):
		n.fences.add(target)
		yield(n, step{"sealer %d sends a fence for slot %d", i, int(target)})
	}
}

// beyond is the slot after the highest object.
func (s *chainState) beyond() uint8 {
	for i := uint8(slotsMax); i > 0; i-- {
		if s.slots[i-1] != free && s.slots[i-1] != fence {
			return i
		}
	}
	return 0
}

// record records the end where a sealer found it, unless it is recorded, or a
// trim mark has passed it: then what looks free was written and deleted before.
func (c chain) record(s *chainState, i int, yield func(chainState, step)) {
	n := *s
	me := &n.sealers[i]
	at := me.at
	switch {
	case s.end > 0:
		me.phase, me.at = sealed, s.end-1
		yield(n, step{"sealer %d finds the end recorded at %d", i, int(s.end - 1)})
	case at < max(s.trim, s.checkpoint) && !c.rules.believesFence:
		me.phase, me.at = walking, max(s.trim, s.checkpoint)
		yield(n, step{"sealer %d finds its fence void and goes on at slot %d", i, int(me.at)})
	default:
		n.end = at + 1
		me.phase = sealed
		yield(n, step{"sealer %d records that the chain ends at %d", i, int(at)})
	}
}

// describe writes checkpoints and raises the trim mark. A request to the
// metadata store may be on its way for as long as its condition holds.
func (c chain) describe(s *chainState, yield func(chainState, step)) {
	committed := s.acked.prefix()
	at := committed
	if c.rules.checkpointsUnacked {
		at = s.next
	}
	if !s.dead && s.closeAt == 0 && at > s.checkpoint && !s.checkpoints.has(at) {
		n := *s
		if n.checkpoints.add(at); c.rules.deletesCheckpoint {
			n.checkpoints &= 1 << at
		}
		yield(n, step{format: "the writer writes a checkpoint of everything below slot %[2]d", what: int(at)})
	}
	if newest := uint8(bits.Len8(uint8(s.checkpoints))); newest > s.checkpoint+1 && s.end == 0 {
		n := *s
		n.checkpoint = newest - 1
		n.checkpoints &= 1 << n.checkpoint
		yield(n, step{format: "the checkpoint at %[2]d is recorded, older ones are deleted", what: int(n.checkpoint)})
	}
	if s.acked.has(s.closeAt-1) && s.closeAt > 0 && s.end == 0 {
		n := *s
		n.end = s.closeAt + 1
		yield(n, step{format: "the writer records that its chain ends at %[2]d", what: int(s.closeAt)})
	}
	c.trim(s, committed, yield)
}

// trim raises the mark. TRIM(k) is committed in slot k or later, and a durable
// checkpoint tells of everything below k.
func (c chain) trim(s *chainState, committed uint8, yield func(chainState, step)) {
	for k := s.trim + 1; k < committed && (k <= s.checkpoint || c.rules.trimsUnchecked); k++ {
		n := *s
		n.trim = k
		yield(n, step{format: "the trim mark is raised to %[2]d", what: int(k)})
	}
	if c.rules.markFalls && s.trim > 0 {
		n := *s
		n.trim = 0
		yield(n, step{format: "a late request sets the trim mark back to %[2]d"})
	}
	if s.sealers[0].phase == sealed && !s.inherited {
		n := *s
		n.inherited = true
		yield(n, step{format: "the heirs hold everything below %[2]d", what: int(s.end - 1)})
	}
}

// collect deletes objects below the mark. What ended a chain stays for ever: a
// fence is at the mark at least, a CLOSE is spared.
func (c chain) collect(s *chainState, yield func(chainState, step)) {
	mark := c.mark(s)
	for i := range uint8(c.bounds.slots + 1) {
		below := i < mark || c.rules.deletesFences && i == mark && s.inherited && s.slots[i] == fence
		early := c.rules.deletesUntrimmed && s.acked.has(i) && !s.dead
		spared := s.slots[i] == free || s.slots[i] == closing && !c.rules.deletesCloses
		if !spared && (below || early) {
			n := *s
			n.slots[i] = free
			yield(n, step{format: "slot %[2]d is deleted", what: int(i)})
		}
	}
}

// ask lets the writer prove its leadership to a reader who asks after the end
// was recorded: by a PUT begun then, or by a check of the first free slot. It
// must not succeed.
func (c chain) ask(s *chainState, yield func(chainState, step)) {
	for i := range s.next {
		if !s.durable.has(i) && !s.acked.has(i) && !s.late.has(i) {
			n := *s
			n.late.add(i)
			yield(n, step{format: "after the end, the writer tries slot %[2]d again", what: int(i)})
		}
	}
	n := *s
	if s.probe == 0 {
		n.probe = s.acked.prefix() + 1
		yield(n, step{format: "after the end, the writer begins a check at slot %[2]d", what: int(n.probe - 1)})
		return
	}
	at := s.probe - 1
	own := at < s.next && s.slots[at] == s.bytes(at)
	switch {
	case s.closeAt > 0 && s.closeAt <= at && !c.rules.provesClosed:
		n.dead = true
		yield(n, step{format: "the check comes past CLOSE to slot %[2]d: the writer ends", what: int(at)})
	case s.slots[at] == free, own && c.rules.provesInSlot:
		n.misled = true
		yield(n, step{format: "the check is content with slot %[2]d", what: int(at)})
	case own, at < s.acked.prefix():
		n.probe++
		yield(n, step{format: "the check goes past slot %[2]d", what: int(at)})
	default:
		n.dead = true
		yield(n, step{format: "the check finds something else in slot %[2]d: the writer ends", what: int(at)})
	}
}
