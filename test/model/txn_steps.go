package model

func (m txnProtocol) leaderSteps(s *txnState, p int, yield func(txnState, step)) {
	for t := range m.bounds.txns {
		if s.sent[t]>>p&1 != 0 {
			m.produceSteps(s, p, t, yield)
		}
	}
	for epoch := range s.markers {
		for how := committing; how <= aborting; how++ {
			for t := range m.bounds.txns {
				if s.markers[epoch][how][p]>>t&1 != 0 {
					m.marker(s, p, epoch, how, t, yield)
				}
			}
		}
	}
}

// produceSteps are those about one batch, whose request may come at any time.
func (m txnProtocol) produceSteps(s *txnState, p int, t uint8, yield func(txnState, step)) {
	l := &s.parts[p]
	if m.epochOf(t) < l.epoch || l.batch[t] != absent {
		return // refused, or a duplicate
	}
	switch l.question[t] {
	case unasked:
		n := *s
		n.parts[p].question[t] = asked
		if m.rules.appendsUnverified {
			n.parts[p].question[t] = confirmed
		}
		yield(n, step{"partition %d asks about its batch of transaction %d", p, int(t)})
	case asked:
		m.confirm(s, &s.stored, true, p, t, yield)
		if m.rules.staleAnswers && s.owner > 0 {
			m.confirm(s, &s.deposed, false, p, t, yield)
		}
	case confirmed:
		if l.open != 0 {
			return
		}
		n := *s
		q := &n.parts[p]
		q.batch[t], q.open, q.epoch, q.question[t] = openBatch, t+1, m.epochOf(t), unasked
		n.acked[t] |= 1 << p
		yield(n, step{"partition %d appends the batch of transaction %d", p, int(t)})
	}
}

// confirm lets a coordinator that remembers l answer.
func (m txnProtocol) confirm(s *txnState, l *ledger, owner bool, p int, t uint8, yield func(txnState, step)) {
	n := *s
	n.parts[p].question[t] = unasked
	switch {
	case l.ending != undecided:
	case !m.bounds.bumps: // one epoch for all: it cannot tell which transaction is meant
		if l.parts>>p&1 != 0 {
			n.parts[p].question[t] = confirmed
		}
	case l.txn == t:
		if owner {
			n.stored.parts |= 1 << p
		}
		n.parts[p].question[t] = confirmed
	}
	format := "partition %d is told yes for transaction %d"
	if n.parts[p].question[t] != confirmed {
		format = "partition %d is told no for transaction %d"
	}
	yield(n, step{format, p, int(t)})
}

// marker lets one arrive.
func (m txnProtocol) marker(s *txnState, p, epoch, how int, t uint8, yield func(txnState, step)) {
	l := &s.parts[p]
	bit := uint8(1) << t
	if !m.bounds.bumps && s.consumed[epoch][how][p]&bit != 0 {
		return
	}
	e := m.markerEpoch(t)
	switch {
	case e < l.epoch && !m.rules.oldMarkers,
		m.bounds.bumps && e == l.epoch && l.open != 0 && !m.rules.lateMarkers,
		uint8(epoch) < l.coordinator && !m.rules.anyCoordinator:
		return // refused
	}
	n := *s
	if !m.bounds.bumps {
		n.consumed[epoch][how][p] |= bit
	}
	q := &n.parts[p]
	if q.open != 0 {
		q.batch[q.open-1] = shownBatch
		if how == aborting {
			q.batch[q.open-1] = hiddenBatch
		}
	}
	q.open, q.epoch, q.coordinator = 0, max(e, l.epoch), max(uint8(epoch), l.coordinator)
	if !m.rules.guardStays {
		q.question = [txnCount]uint8{}
	}
	if uint8(epoch) == s.owner && s.stored.txn == t && s.stored.ending == uint8(how) {
		n.done |= 1 << p
	}
	yield(n, step{either(how, "partition %d gets the COMMIT of transaction %d", "partition %d gets the ABORT of transaction %d"), p, int(t)})
}
