package model

// The transaction protocol: a producer that runs one transaction after the other,
// its coordinator and the next owner of the shard, and the leaders of two
// partitions. That what a leader appends is durable when it says so, and in one
// order for all of its successors, the other models have earned.

const (
	txnCount = 3
	txnParts = 2
)

// txnRules are the guards of the transaction protocol, each named for what happens
// without it. The zero value is the protocol as it is built.
type txnRules struct {
	// The leader.
	appendsUnverified bool // a batch is appended without asking the coordinator
	guardStays        bool // a marker does not void what was verified before it
	lateMarkers       bool // a marker of the epoch that has a transaction open ends it
	oldMarkers        bool // a marker of an older epoch than the producer's is taken
	anyCoordinator    bool // a marker of an older coordinator epoch is taken
	// The coordinator.
	lateEnds        bool // an EndTxn of an earlier transaction ends the current one
	completesEarly  bool // a transaction is complete when its markers are sent
	forgetsPrepared bool // a new owner does not know that a transaction was prepared
	unfenced        bool // a deposed owner's decisions are stored
	staleAnswers    bool // a deposed owner confirms partitions from memory
}

// txnBounds limit what is explored. Without bumps all transactions of a producer
// have one epoch: then requests of the client must not come late, and it ends a
// transaction only when all it sent is answered, if calm.
type txnBounds struct {
	txns        uint8
	bumps, calm bool
}

type partSet = uint8

// What became of a transaction, and of its batch in a partition.
const (
	undecided = iota
	committing
	aborting
)

const (
	absent = iota
	openBatch
	shownBatch
	hiddenBatch
)

// What became of the question about a batch's partition.
const (
	unasked = iota
	asked
	confirmed
)

// ledger is what a coordinator knows of the producer.
type ledger struct {
	txn    uint8 // it is at
	ending uint8 // decided and not complete
	parts  partSet
}

// leaderState is a partition.
type leaderState struct {
	batch       [txnCount]uint8
	question    [txnCount]uint8
	open        uint8 // transaction, plus 1
	epoch       uint8
	coordinator uint8
}

type txnState struct {
	client uint8             // the transaction it is at
	sent   [txnCount]partSet // batches
	acked  [txnCount]partSet
	asked  [txnCount]uint8 // to end, and how

	stored   ledger // in the metadata store, and the owner's
	outcome  [txnCount]uint8
	done     partSet // markers answered to the owner
	owner    uint8   // coordinator epoch
	deposed  ledger  // what the first owner remembers
	parts    [txnParts]leaderState
	markers  [2][3][txnParts]uint8 // sent, by coordinator epoch and kind: transactions, a bit each
	consumed [2][3][txnParts]uint8 // those of one epoch for all are delivered once
}

type txnProtocol struct {
	rules  txnRules
	bounds txnBounds
}

func (m txnProtocol) start() txnState { return txnState{} }

// epochOf is the producer epoch of a transaction's batches.
func (m txnProtocol) epochOf(t uint8) uint8 {
	if m.bounds.bumps {
		return t
	}
	return 0
}

// markerEpoch is the producer epoch of a transaction's markers.
func (m txnProtocol) markerEpoch(t uint8) uint8 {
	if m.bounds.bumps {
		return t + 1
	}
	return 0
}

func (m txnProtocol) broken(s *txnState) string {
	for t := range m.bounds.txns {
		if s.outcome[t] == committing && s.asked[t] != committing {
			return "a transaction is committed that its client did not"
		}
		for p := range s.parts {
			switch b := s.parts[p].batch[t]; {
			case b == shownBatch && s.outcome[t] != committing:
				return "a record is shown of a transaction that was not committed"
			case b == hiddenBatch && s.outcome[t] == committing:
				return "a record is hidden of a transaction that was committed"
			case b == openBatch && s.stored.txn > t:
				return "a transaction hangs"
			}
		}
	}
	return ""
}

func (m txnProtocol) next(s *txnState, yield func(txnState, step)) {
	m.clientSteps(s, yield)
	m.coordinatorSteps(s, yield)
	for p := range s.parts {
		m.leaderSteps(s, p, yield)
	}
}

func (m txnProtocol) clientSteps(s *txnState, yield func(txnState, step)) {
	t := s.client
	if t >= m.bounds.txns {
		return
	}
	for p := range txnParts {
		if bit := partSet(1) << p; s.asked[t] == undecided && s.sent[t]&bit == 0 {
			n := *s
			n.sent[t] |= bit
			if !m.bounds.bumps { // it adds the partition itself, and waits for that
				if s.stored.txn != t || s.stored.ending != undecided {
					continue
				}
				n.stored.parts |= bit
			}
			yield(n, step{"the client sends a batch of transaction %[2]d to partition %[1]d", p, int(t)})
		}
	}
	for how := committing; how <= aborting; how++ {
		if s.asked[t] != undecided || s.sent[t] == 0 || s.acked[t] != s.sent[t] && (how == committing || m.bounds.calm) {
			continue
		}
		n := *s
		n.asked[t] = uint8(how)
		yield(n, step{either(how, "%.0dthe client commits transaction %d", "%.0dthe client aborts transaction %d"), 0, int(t)})
	}
	if s.stored.txn > t { // it was told, or it begins anew
		n := *s
		n.client = s.stored.txn
		yield(n, step{"%.0[1]dthe client goes on with transaction %[2]d", 0, int(n.client)})
	}
}

// either is a step's text, by how a transaction ends.
func either(how int, commit, abort string) string {
	if how == committing {
		return commit
	}
	return abort
}

func (m txnProtocol) coordinatorSteps(s *txnState, yield func(txnState, step)) {
	for t := range m.bounds.txns { // EndTxn arrives
		if s.asked[t] == undecided {
			continue
		}
		late := t != s.stored.txn
		if m.bounds.bumps && (!late || m.rules.lateEnds && t < s.stored.txn) || !m.bounds.bumps && !late {
			m.decide(s, s.stored, int(s.asked[t]), false, yield)
		}
	}
	if m.bounds.bumps { // it times out
		m.decide(s, s.stored, aborting, true, yield)
	}
	if m.rules.unfenced && s.owner > 0 {
		m.decide(s, s.deposed, aborting, true, yield)
	}
	m.sendMarkers(s, s.stored, int(s.owner), yield)
	if s.owner > 0 {
		m.sendMarkers(s, s.deposed, 0, yield)
	}
	if l := s.stored; l.ending != undecided && (s.done&l.parts == l.parts || m.rules.completesEarly && m.allSent(s)) {
		n := *s
		n.stored, n.done = ledger{txn: l.txn + 1}, 0
		yield(n, step{"%.0[1]dthe owner completes transaction %[2]d", 0, int(l.txn)})
	}
	if s.owner == 0 {
		n := *s
		n.owner, n.deposed, n.done = 1, s.stored, 0
		if m.rules.forgetsPrepared {
			n.stored.ending = undecided
		}
		yield(n, step{"%.0[1]da new owner takes over at transaction %[2]d", 0, int(s.stored.txn)})
	}
}

// decide stores how a transaction ends, as whoever remembers l does.
func (m txnProtocol) decide(s *txnState, l ledger, how int, late bool, yield func(txnState, step)) {
	if l.ending != undecided || l.txn >= m.bounds.txns || l.parts == 0 && s.asked[l.txn] == undecided {
		return
	}
	n := *s
	l.ending = uint8(how)
	n.stored, n.done = l, 0
	n.outcome[l.txn] = uint8(how)
	text := either(how, "%.0da coordinator commits transaction %d", "%.0da coordinator aborts transaction %d")
	if late {
		text = "%.0da coordinator aborts transaction %d, which took too long"
	}
	yield(n, step{text, 0, int(l.txn)})
}

func (m txnProtocol) allSent(s *txnState) bool {
	for p := range txnParts {
		if s.stored.parts>>p&1 != 0 && s.markers[s.owner][s.stored.ending][p]>>s.stored.txn&1 == 0 {
			return false
		}
	}
	return true
}

func (m txnProtocol) sendMarkers(s *txnState, l ledger, epoch int, yield func(txnState, step)) {
	for p := range txnParts {
		bit := uint8(1) << l.txn
		if l.ending == undecided || l.parts>>p&1 == 0 || s.markers[epoch][l.ending][p]&bit != 0 {
			continue
		}
		n := *s
		n.markers[epoch][l.ending][p] |= bit
		yield(n, step{"coordinator epoch %d sends a marker to partition %d", epoch, p})
	}
}
