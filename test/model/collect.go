package model

// The collection protocol: when the write-ahead objects of extents that were
// tiered may go, and when segments that nobody names. One partition, led by one
// incarnation after the other; every extent is an object of its leader's chain,
// in the order of the offsets. That a closed epoch leaves what it committed, and
// that a sealed chain takes no record, the other models have earned.

const (
	collectEpochs  = 4
	collectExtents = 3
	collectIncs    = 3
)

// collectRules are the guards of the collection protocol, each named for what
// happens without it. The zero value is the protocol as it is built.
type collectRules struct {
	// Write-ahead objects.
	trimsUploaded     bool // a segment counts for trimming as soon as it is uploaded
	trimsBehind       bool // the mark passes extents that are not tiered
	ignoresReleased   bool // what was released and not forgotten does not hold the mark
	ignoresDebts      bool // what heirs owe does not hold the mark
	forgetsWhenOpened bool // a release is forgotten once the successor has opened
	trimsOwnersUnowed bool // owner entries go before the debts are written
	collectsListed    bool // a sealed chain's mark rises although an owner list has its entry
	debtsFirst        bool // the collector reads the debts before the owner lists
	dropsDebtsSealed  bool // the debts of a sealed chain go before its entries do
	endsLast          bool // the collector looks which chains have ended after it read the owner lists
	latePays          bool // a request to write a debt, arriving late, replaces what was written since
	skipsSame         bool // a debt that says what it shall say is not written again
	believesOld       bool // a debt whose write was not answered is taken for what it was
	looksOnce         bool // what comes to a broker between its look and the debts' does not hold the mark
	// Segments.
	sweepsOwnEpoch bool // a leader sweeps segments of its own epoch that it does not name yet
	sweepsUnsealed bool // segments of writers that are not sealed are swept
	namesFirst     bool // the sweeper reads the manifests before it lists
}

// collectBounds limit what is explored.
type collectBounds struct {
	epochs, extents int
	incs            uint8 // collectIncs when 0
	// moves leaves segments out: what is left are leaders that follow one another,
	// what they owe, and their marks.
	moves bool
}

func (b collectBounds) incarnations() uint8 {
	if b.incs > 0 {
		return b.incs
	}
	return collectIncs
}

// extents are those below n: an offset, or a mark.
type bound = uint8

// collectState is everything anybody knows. Values of debts are one more than the
// extent meant, 0 for none.
type collectState struct {
	epochs uint8                 // opened
	oldest uint8                 // entry of the owner list; the newest is epochs-1
	owner  [collectEpochs]uint8  // incarnation
	tiered [collectEpochs]bound  // below it, extents lie in segments, as that leader's manifest says
	stored [collectEpochs]bound  // one more than the same in its newest durable checkpoint, 0: none
	known  [collectEpochs]bound  // extents that the checkpoint knows
	count  bound                 // extents written
	epoch  [collectExtents]uint8 // under which

	released  epochSet
	forgotten epochSet
	sealed    uint8 // incarnations, a bit each

	uploaded [collectEpochs]bound // what the epoch's segment holds ends there, 0: no segment
	from     [collectEpochs]bound // and begins here
	named    epochSet             // its ADD is committed
	swept    epochSet             // it was deleted

	owed    [collectIncs][collectIncs]uint8 // of a chain, by an heir
	lost    lostDebt
	mark    [collectIncs]bound
	trim    trimming
	deleted uint8 // extents, a bit each

	unlisted uint8              // chains that the collector found in no owner list
	debt     [collectIncs]uint8 // one more than the lowest that the collector read, 0: did not
	listed   epochSet           // segments that the sweeper listed
	unnamed  epochSet           // segments that the sweeper saw no manifest name, if it reads those first
}

// lostDebt is the one request to write a debt that is not answered. It may arrive
// at any time while the debt is as it was when it was sent.
type lostDebt struct {
	sent     bool
	of, heir uint8
	inFlight bool
	value    uint8
	// What the heir takes the debt for: belief if it is wrong, nothing if unsure,
	// and what it is if neither.
	unsure, wrong bool
	belief        uint8
}

// trimming is a broker on its way to raise its mark. One at a time is enough: a
// mark makes no difference to the others' looks.
type trimming struct {
	phase trimPhase
	inc   uint8
	mark  bound
}

type trimPhase uint8

const (
	trimNone   trimPhase = iota
	trimLooked           // mark is how far its own manifests let it rise
	trimAsked            // and the debts
	trimChosen           // nothing has come to it meanwhile
)

type collect struct {
	rules  collectRules
	bounds collectBounds
}

func (c collect) start() collectState { return collectState{} }

func (s *collectState) isSealed(inc uint8) bool { return s.sealed>>inc&1 != 0 }

// leads reports whether an epoch is open: nobody else may open the next.
func (s *collectState) leads(e uint8) bool {
	return e == s.epochs-1 && !s.released.has(e) && !s.isSealed(s.owner[e])
}

// chain is the incarnation whose object an extent is.
func (s *collectState) chain(i bound) uint8 { return s.owner[s.epoch[i]] }

// lists reports whether the owner list has an entry of an incarnation.
func (s *collectState) lists(inc uint8) bool {
	for e := s.oldest; e < s.epochs; e++ {
		if s.owner[e] == inc {
			return true
		}
	}
	return false
}

// floor is the lowest extent from tiered on that lies in a chain; limit if none
// below it does.
func (s *collectState) floor(chain uint8, tiered, limit bound) bound {
	for i := tiered; i < limit; i++ {
		if s.chain(i) == chain {
			return i
		}
	}
	return limit
}

// broken asks what the newest leader, or whoever takes over from it, would read.
func (c collect) broken(s *collectState) string {
	if s.epochs == 0 {
		return ""
	}
	e := s.epochs - 1
	if inc := s.owner[e]; s.isSealed(inc) && s.unlisted>>inc&1 != 0 {
		return "a chain is taken for inherited that the next leader has to replay"
	}
	for i := s.tiered[e]; i < s.count; i++ {
		if s.deleted>>i&1 != 0 {
			return "an extent is deleted that a manifest names"
		}
	}
	for w := range s.epochs {
		if s.named.has(w) && s.swept.has(w) {
			return "a segment is deleted that a manifest names"
		}
	}
	return ""
}

// holds is the lowest extent of chain that incarnation inc's own memory protects:
// of its open epoch as its durable checkpoint has it, and of epochs it released
// and has not forgotten.
func (c collect) holds(s *collectState, inc, chain uint8) bound {
	low := s.count
	for e := range s.epochs {
		if s.owner[e] != inc {
			continue
		}
		switch {
		case e == s.epochs-1 && !s.released.has(e):
			tiered := s.tiered[e]
			if s.stored[e] > 0 {
				tiered = s.stored[e] - 1
			}
			if c.rules.trimsUploaded && s.uploaded[e] > 0 {
				tiered = s.uploaded[e]
			}
			if c.rules.trimsBehind {
				tiered = s.count
			}
			if s.stored[e] == 0 && chain != inc {
				continue // its predecessors hold what it inherited
			}
			if s.stored[e] == 0 {
				// The mark is below the newest checkpoint, and so below this epoch; what
				// it inherited of its own chain is held by the release of it.
				tiered = s.firstOf(e)
			}
			low = min(low, s.floor(chain, tiered, s.count))
		case s.released.has(e) && !s.forgotten.has(e) && !c.rules.ignoresReleased:
			last := s.lastOf(e)
			if at := s.floor(chain, s.tiered[e], last); at < last || chain == inc { // its RELEASE lies behind it
				low = min(low, at)
			}
		}
	}
	return low
}

// firstOf is the first extent of an epoch, lastOf the one after its last.
func (s *collectState) firstOf(e uint8) bound {
	for i := range s.count {
		if s.epoch[i] >= e {
			return i
		}
	}
	return s.count
}

func (s *collectState) lastOf(e uint8) bound {
	for i := range s.count {
		if s.epoch[i] > e {
			return i
		}
	}
	return s.count
}
