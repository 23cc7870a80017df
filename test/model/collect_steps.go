package model

// next lets leaders, their heirs, the collector and the sweepers do whatever they
// may do next.
func (c collect) next(s *collectState, emit func(collectState, step)) {
	yield := func(n collectState, by step) {
		n.tidy()
		emit(n, by)
	}
	c.open(s, yield)
	for e := range s.epochs {
		c.lead(s, e, yield)
		c.checkpoint(s, e, yield)
		c.forget(s, e, yield)
		c.sweepOwn(s, e, yield)
	}
	c.land(s, yield)
	c.raise(s, yield)
	for inc := range c.bounds.incarnations() {
		if !s.joined(inc) {
			break
		}
		c.pay(s, inc, yield)
		c.look(s, inc, yield)
		c.collectSealed(s, inc, yield)
		if !s.isSealed(inc) {
			n := *s
			n.sealed |= 1 << inc
			yield(n, step{format: "the chain of incarnation %[1]d is sealed", who: int(inc)})
		}
	}
	c.delete(s, yield)
	c.sweep(s, yield)
}

// tidy drops what can make no difference any more.
func (s *collectState) tidy() {
	for e := range s.epochs {
		if s.isSealed(s.owner[e]) {
			s.stored[e], s.known[e] = 0, 0
			s.forgotten.add(e)
		}
		if s.swept.has(e) {
			s.listed &^= 1 << e
		}
		if e < s.epochs-1 {
			s.stored[e], s.known[e] = 0, 0
		}
	}
	if t := s.trim; t.phase != trimNone && (s.isSealed(t.inc) || t.mark <= s.mark[t.inc]) {
		s.trim = trimming{}
	}
	l := &s.lost
	if l.sent && s.isSealed(l.heir) {
		*l = lostDebt{sent: true} // guarded by the heir's chain, too
	}
	if !l.inFlight {
		l.value = 0
	}
	if l.wrong && l.belief == s.owed[l.of][l.heir] {
		l.wrong = false
	}
	if !l.wrong {
		l.belief = 0
	}
	if l.sent && !l.inFlight && !l.unsure && !l.wrong {
		*l = lostDebt{sent: true}
	}
}

// came voids a mark that was not chosen before something came to inc.
func (c collect) came(s *collectState, inc uint8) {
	if t := &s.trim; t.inc == inc && (t.phase == trimLooked || t.phase == trimAsked) && !c.rules.looksOnce {
		*t = trimming{}
	}
}

// joined lets incarnations join in order.
func (s *collectState) joined(inc uint8) bool {
	for e := range s.epochs {
		if s.owner[e] == inc {
			return true
		}
	}
	return false
}

// open lets anyone follow a closed epoch. It inherits what that left.
func (c collect) open(s *collectState, yield func(collectState, step)) {
	e := s.epochs
	if int(e) == c.bounds.epochs || e > 0 && s.leads(e-1) {
		return
	}
	for inc := range c.bounds.incarnations() {
		if s.isSealed(inc) {
			continue
		}
		n := *s
		n.owner[e] = inc
		n.epochs++
		if e > 0 {
			n.tiered[e] = s.tiered[e-1]
		}
		yield(n, step{"incarnation %d opens epoch %d", int(inc), int(e)})
		if !s.joined(inc) {
			return // they differ in nothing but the name
		}
	}
}

// lead lets a leader append, write a segment, publish it, and release. A segment
// may be uploaded by one that does not know yet that it was deposed.
func (c collect) lead(s *collectState, e uint8, yield func(collectState, step)) {
	inc := int(s.owner[e])
	if s.uploaded[e] == 0 && !c.bounds.moves {
		for to := s.tiered[e] + 1; to <= s.lastOf(e); to++ {
			n := *s
			n.from[e], n.uploaded[e] = s.tiered[e], to
			yield(n, step{"the leader of epoch %d uploads a segment up to offset %d", int(e), int(to)})
		}
	}
	if !s.leads(e) {
		return
	}
	if int(s.count) < c.bounds.extents {
		n := *s
		n.epoch[s.count] = e
		n.count++
		yield(n, step{"incarnation %d writes the extent at offset %d", inc, int(s.count)})
	}
	if s.uploaded[e] > 0 && !s.named.has(e) {
		n := *s
		n.named.add(e)
		n.tiered[e] = s.uploaded[e]
		yield(n, step{"incarnation %d commits the ADD of its segment up to offset %d", inc, int(s.uploaded[e])})
	}
	n := *s
	n.released.add(e)
	c.came(&n, s.owner[e])
	yield(n, step{"incarnation %d releases epoch %d", inc, int(e)})
}

// checkpoint makes the manifest of an open epoch durable, and, once what is owed
// is written, drops the older owner entries.
func (c collect) checkpoint(s *collectState, e uint8, yield func(collectState, step)) {
	inc := s.owner[e]
	if s.leads(e) && (s.stored[e] != s.tiered[e]+1 || s.known[e] != s.count) {
		n := *s
		n.stored[e], n.known[e] = s.tiered[e]+1, s.count
		c.came(&n, inc)
		yield(n, step{"incarnation %d's checkpoint with epoch %d is durable", int(inc), int(e)})
	}
	if s.oldest >= e || e != s.epochs-1 || s.stored[e] == 0 || s.isSealed(inc) {
		return
	}
	for of := range uint8(collectIncs) {
		low := s.floor(of, s.stored[e]-1, s.lastOf(e))
		value, sure := s.believed(of, inc)
		written := sure && value > 0 && value-1 <= low
		if of != inc && low < s.lastOf(e) && !written && !c.rules.trimsOwnersUnowed {
			return
		}
	}
	n := *s
	n.oldest = e
	yield(n, step{"incarnation %d drops the owner entries below epoch %d", int(inc), int(e)})
}

// forget lets a leader forget what it released once the owner list has no entry
// of it.
func (c collect) forget(s *collectState, e uint8, yield func(collectState, step)) {
	if !s.released.has(e) || s.forgotten.has(e) || s.isSealed(s.owner[e]) {
		return
	}
	if e < s.oldest || c.rules.forgetsWhenOpened && e < s.epochs-1 {
		n := *s
		n.forgotten.add(e)
		yield(n, step{"incarnation %d forgets epoch %d", int(s.owner[e]), int(e)})
	}
}

// pay writes what an incarnation owes of another chain now, unless it knows that
// it is written. One request is not answered.
func (c collect) pay(s *collectState, heir uint8, yield func(collectState, step)) {
	if s.isSealed(heir) {
		return
	}
	for of := range c.bounds.incarnations() {
		if of == heir {
			continue
		}
		value := uint8(0)
		if low := c.holds(s, heir, of); low < s.count {
			value = low + 1
		}
		believed, sure := s.believed(of, heir)
		if sure && believed == value {
			continue
		}
		n := *s
		c.write(&n, of, heir, value)
		yield(n, step{"incarnation %d writes what it owes of chain %d", int(heir), int(of)})
		if s.lost.sent {
			continue
		}
		n = *s
		n.lost = lostDebt{sent: true, of: of, heir: heir, inFlight: true, value: value, unsure: !c.rules.believesOld}
		yield(n, step{"incarnation %d sends what it owes of chain %d and gets no answer", int(heir), int(of)})
	}
}

// write is a request that is answered. One that is still on its way finds
// another revision than the one that it was guarded by: so a debt is also written
// where it says that already.
func (c collect) write(s *collectState, of, heir, value uint8) {
	l := &s.lost
	mine := l.sent && l.of == of && l.heir == heir
	same := s.owed[of][heir] == value && (value == 0 || c.rules.skipsSame)
	if mine {
		l.unsure, l.wrong = false, false
		l.inFlight = l.inFlight && (same || c.rules.latePays)
	}
	s.owed[of][heir] = value
}

// believed is what an heir takes a debt for, and whether it takes it for anything.
func (s *collectState) believed(of, heir uint8) (value uint8, sure bool) {
	if l := &s.lost; l.sent && l.of == of && l.heir == heir {
		switch {
		case l.unsure:
			return 0, false
		case l.wrong:
			return l.belief, true
		}
	}
	return s.owed[of][heir], true
}

// land lets the request that was not answered arrive.
func (c collect) land(s *collectState, yield func(collectState, step)) {
	l := s.lost
	if !l.inFlight {
		return
	}
	n := *s
	if !l.unsure && !l.wrong {
		n.lost.wrong, n.lost.belief = true, s.owed[l.of][l.heir]
	}
	n.lost.inFlight = false
	n.owed[l.of][l.heir] = l.value
	yield(n, step{"what incarnation %d sent that it owes of chain %d arrives", int(l.heir), int(l.of)})
}

// lowestDebt is the lowest extent of a chain that any heir owes.
func (c collect) lowestDebt(s *collectState, of uint8) bound {
	low := s.count
	for _, v := range s.owed[of] {
		if v > 0 && !c.rules.ignoresDebts {
			low = min(low, v-1)
		}
	}
	return low
}

// look begins to raise the mark of a chain that is not sealed: its incarnation
// looks how far its own manifests let it.
func (c collect) look(s *collectState, inc uint8, yield func(collectState, step)) {
	if s.isSealed(inc) {
		return
	}
	if mark := c.holds(s, inc, inc); mark > s.mark[inc] {
		n := *s
		n.trim = trimming{trimLooked, inc, mark}
		yield(n, step{"incarnation %d looks how far its mark may rise, to %d", int(inc), int(mark)})
	}
}

// raise goes on: it reads the debts, looks again, and raises the mark if nothing
// came meanwhile. What may lie in its chain moves from it to an heir, and back.
func (c collect) raise(s *collectState, yield func(collectState, step)) {
	n, t := *s, s.trim
	by := step{who: int(t.inc), what: int(t.mark)}
	switch t.phase {
	case trimNone:
		return
	case trimLooked:
		n.trim.phase, n.trim.mark = trimAsked, min(t.mark, c.lowestDebt(s, t.inc))
		by.format = "incarnation %[1]d reads what others owe of its chain"
	case trimAsked:
		n.trim.phase = trimChosen
		by.format = "incarnation %[1]d looks again, and nothing came"
	case trimChosen:
		n.mark[t.inc] = t.mark
		by.format = "incarnation %d raises its mark to %d"
	}
	yield(n, by)
}

// collectSealed raises the mark of a sealed chain: it finds that no owner list has
// an entry of it, and then reads the debts. Only then may its own debts go.
func (c collect) collectSealed(s *collectState, inc uint8, yield func(collectState, step)) {
	sealed, found := s.isSealed(inc), s.unlisted>>inc&1 != 0
	if (sealed || c.rules.endsLast) && !found && (!s.lists(inc) || c.rules.collectsListed) {
		n := *s
		n.unlisted |= 1 << inc
		yield(n, step{format: "the collector finds chain %[1]d in no owner list", who: int(inc)})
	}
	if !sealed {
		return
	}
	if low := c.lowestDebt(s, inc); found && !c.rules.debtsFirst && s.debt[inc] != low+1 || c.rules.debtsFirst && s.debt[inc] == 0 {
		n := *s
		n.debt[inc] = low + 1
		yield(n, step{format: "the collector reads what is owed of chain %[1]d", who: int(inc)})
	}
	if mark := s.debt[inc]; found && mark > 0 && mark-1 > s.mark[inc] {
		n := *s
		n.mark[inc] = mark - 1
		yield(n, step{"the collector raises the mark of chain %d to %d", int(inc), int(mark - 1)})
	}
	for of := range c.bounds.incarnations() {
		if s.owed[of][inc] > 0 && (found || c.rules.dropsDebtsSealed) {
			n := *s
			n.owed[of][inc] = 0
			yield(n, step{"the collector drops what chain %d owed of chain %d", int(inc), int(of)})
		}
	}
}

// delete deletes extents below the mark of their chain.
func (c collect) delete(s *collectState, yield func(collectState, step)) {
	for i := range s.count {
		if s.deleted>>i&1 == 0 && i < s.mark[s.chain(i)] {
			n := *s
			n.deleted |= 1 << i
			yield(n, step{format: "the extent at offset %[2]d is deleted", what: int(i)})
		}
	}
}

// sweepOwn lets the leader of an epoch delete segments of earlier ones that its
// manifest does not name. It may be deposed and not know.
func (c collect) sweepOwn(s *collectState, e uint8, yield func(collectState, step)) {
	for w := range s.epochs {
		mine := w < e || c.rules.sweepsOwnEpoch && w == e
		if mine && s.uploaded[w] > 0 && !s.named.has(w) && !s.swept.has(w) {
			n := *s
			n.swept.add(w)
			yield(n, step{"the leader of epoch %d sweeps the segment of epoch %d", int(e), int(w)})
		}
	}
}

// sweep lets the sweeper of shared segments list those of sealed writers, and
// then delete what no manifest names.
func (c collect) sweep(s *collectState, yield func(collectState, step)) {
	for w := range s.epochs {
		if s.uploaded[w] == 0 || s.swept.has(w) {
			continue
		}
		if c.rules.namesFirst && !s.named.has(w) && !s.unnamed.has(w) {
			n := *s
			n.unnamed.add(w)
			yield(n, step{format: "the sweeper finds the segment of epoch %[2]d named by nobody", what: int(w)})
		}
		if !s.listed.has(w) && (!s.named.has(w) || c.rules.namesFirst) && (s.isSealed(s.owner[w]) || c.rules.sweepsUnsealed) {
			n := *s
			n.listed.add(w)
			yield(n, step{format: "the sweeper lists the segment of epoch %[2]d", what: int(w)})
		}
		unnamed := !s.named.has(w)
		if c.rules.namesFirst {
			unnamed = s.unnamed.has(w)
		}
		if s.listed.has(w) && unnamed {
			n := *s
			n.swept.add(w)
			yield(n, step{format: "the sweeper deletes the segment of epoch %[2]d", what: int(w)})
		}
	}
}
