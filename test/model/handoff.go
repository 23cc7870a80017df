package model

// The hand-off protocol: who may open a partition, at which offset, and when
// what the predecessors left may be forgotten. One partition; each incarnation
// has one chain, which takes records one at a time until it is sealed: the chain
// protocol earns the right to see it so.

const (
	incarnations = 3
	epochsMax    = 5
)

// handoffRules are the guards of the hand-off protocol, each named for what
// happens without it. The zero value is the protocol as it is built.
type handoffRules struct {
	trustsOwnerList     bool // predecessors are not closed at all
	closesNewestOnly    bool // only the newest predecessor is closed
	stopsAtUnopened     bool // the walk ends at a closed entry that never opened
	appendsAfterRelease bool // a leader goes on after its RELEASE
	opensReleasedEpoch  bool // an epoch released unopened may open later
	anyReleaseCloses    bool // a RELEASE of another epoch closes this one too
	leadsReleasedEpoch  bool // an own entry is led again instead of claiming anew
	checkpointForgets   bool // a checkpoint describes open partitions only
	forgetsWhenOpened   bool // a release is forgotten once the successor has opened
	trimsBeforeDurable  bool // owner entries are dropped as soon as the OPEN is committed
	trimsByName         bool // a late trim asks only whose the newest entry is, not which
	checkpointsAfterEnd bool // a checkpoint counts although the chain was sealed before it was recorded
	closeBeforeDrained  bool // CLOSE names a checkpoint without the last append
}

// handoffBounds limit what is explored.
type handoffBounds struct {
	epochs  int // claims altogether
	appends int // data records per epoch
}

type role uint8

const (
	idle    role = iota
	claimed      // listed as owner, not open
	leading      // OPEN is committed
)

// member is one incarnation as it sees itself.
type member struct {
	role  role
	epoch uint8 // of its newest claim
	// oldest is the oldest entry of the owner list as that claim wrote it.
	oldest uint8
	// trimming is one more than the epoch for which a trim of the owner list was
	// decided and is on its way; 0 for none.
	trimming uint8
}

// epochSet has a bit per leader epoch.
type epochSet uint8

func (s epochSet) has(e uint8) bool { return s>>e&1 != 0 }
func (s *epochSet) add(e uint8)     { *s |= 1 << e }

// handoffState is everything anybody knows. The owner list is the epochs from
// oldest up to next: entries are added at one end and dropped from the other.
type handoffState struct {
	oldest, next uint8
	owner        [epochsMax]uint8 // whose entry
	base, count  [epochsMax]uint8 // of an opened epoch: first offset, records appended and acknowledged
	// inherited are the epochs whose records the manifest under which an epoch
	// was opened contains, and that epoch.
	inherited [epochsMax]epochSet

	opened   epochSet // OPEN is in its owner's chain
	released epochSet // RELEASE is
	unopened epochSet // that RELEASE says "never opened"
	// whole epochs are described by a durable checkpoint of their owner: what
	// came before them need not be read.
	whole    epochSet
	durable  epochSet // their owner believes them to be whole
	gone     epochSet // released, and a newer checkpoint no longer says so
	cut      epochSet // its RELEASE does not know the last record
	cutClose epochSet // the checkpoint that CLOSE names does not
	sealed   uint8    // chains, a bit each
	members  [incarnations]member
	harm     harm // that the last step did
}

// harm is a broken promise that a step brought about.
type harm uint8

const (
	none harm = iota
	ackedTwice
	ackedLost
	wrongBase
)

func (h harm) String() string {
	return [...]string{
		"",
		"an offset is acknowledged twice",
		"the successor inherits a log without an acknowledged record",
		"the successor cannot put the log together",
	}[h]
}

type handoff struct {
	rules  handoffRules
	bounds handoffBounds
}

func (h handoff) start() handoffState { return handoffState{} }

// broken checks every state by asking what a newcomer would find if every
// incarnation stopped now: all that was acknowledged, each offset once.
func (h handoff) broken(s *handoffState) string {
	if s.harm != none {
		return s.harm.String()
	}
	all := *s
	all.sealed = 1<<incarnations - 1
	m, ready := h.walk(&all, incarnations, s.oldest, s.next)
	if !ready {
		return "a sealed chain does not count as closed"
	}
	if lost := m.check(s); lost != none {
		return "with every chain sealed, " + lost.String()
	}
	return ""
}

func (s *handoffState) isSealed(inc uint8) bool { return s.sealed>>inc&1 != 0 }

// inheritance is what a walk along the owner list yields: the state of the
// partition as its next leader would open it.
type inheritance struct {
	epochs  epochSet // whose records are in it
	end     uint8    // the offset the next record gets
	missed  bool     // the last record of one of them is not
	corrupt bool     // a later part does not begin where an earlier one ends
}

// check compares an inheritance with what was acknowledged.
func (m inheritance) check(s *handoffState) harm {
	if m.corrupt {
		return wrongBase
	}
	if m.missed {
		return ackedLost
	}
	for e := range s.next {
		if s.count[e] > 0 && !m.epochs.has(e) {
			return ackedLost
		}
	}
	return none
}

// walk goes along the owner entries in [oldest, own) from the newest back to the
// first whose whole state is known, for incarnation inc. It is not ready while
// an entry that it meets may still be written under.
func (h handoff) walk(s *handoffState, inc, oldest, own uint8) (m inheritance, ready bool) {
	var onTop [epochsMax]uint8
	n := 0
	for e := own; e > oldest; {
		e--
		if !h.closed(s, inc, e) && !h.rules.trustsOwnerList && (!h.rules.closesNewestOnly || e == own-1) {
			return m, false
		}
		f := s.found(inc, e)
		switch {
		case !f.opened && h.rules.stopsAtUnopened:
			return m, true
		case !f.opened:
			continue
		}
		m.missed = m.missed || f.missed
		if f.whole {
			m.epochs, m.end = s.inherited[e], s.base[e]+s.count[e]
			break
		}
		onTop[n] = e
		n++
	}
	for n--; n >= 0; n-- {
		e := onTop[n]
		m.corrupt = m.corrupt || s.base[e] != m.end
		m.epochs.add(e)
		m.end = s.base[e] + s.count[e]
	}
	return m, true
}

// closed reports whether nothing can be written under an entry any more.
func (h handoff) closed(s *handoffState, inc, e uint8) bool {
	owner := s.owner[e]
	if owner == inc { // a new claim of ours is only made when the older are closed
		return true
	}
	if h.rules.anyReleaseCloses {
		for other := range s.next {
			if s.owner[other] == owner && s.released.has(other) {
				return true
			}
		}
	}
	return s.isSealed(owner) || s.released.has(e)
}

// finding is what is learnt of an entry that is closed.
type finding struct {
	opened bool
	whole  bool // the state is complete, not only what was added to the predecessors'
	missed bool // the last record is not in it
}

// found is what incarnation inc learns of an entry: from its own memory, from
// the RELEASE that the owner names, or, when the chain is sealed, from the
// newest checkpoint and the slots after it.
func (s *handoffState) found(inc, e uint8) finding {
	stated := s.released.has(e) && !s.unopened.has(e) // by the RELEASE
	switch {
	case !s.opened.has(e):
		return finding{}
	case s.owner[e] == inc || !s.isSealed(s.owner[e]):
		if s.released.has(e) && !stated {
			return finding{}
		}
		return finding{opened: true, whole: s.whole.has(e) || stated, missed: s.cut.has(e)}
	case s.gone.has(e):
		return finding{}
	}
	return finding{opened: true, whole: s.whole.has(e) || stated, missed: s.cutClose.has(e)}
}
