package model

import "math/bits"

// The chain protocol: how one incarnation's slots are written, acknowledged,
// ended by others and deleted. One writer that may be a zombie for as long as
// it likes, two sealers, the heirs who delete, and a store that may apply a
// request late, again, or without an answer.

const (
	slotsMax = 4
	sealers  = 2
)

// chainRules are the guards of the chain protocol, each named for what happens
// without it. The zero value is the protocol as it is built.
type chainRules struct {
	// The writer.
	acksAcrossGaps     bool // a durable slot is acknowledged although an earlier one is not
	believes412        bool // "exists" after a PUT of its own is taken for success
	comparesWriter     bool // an object found in the slot is ours if our name is in it
	goesOnAfterClose   bool // slots are used after CLOSE was sent
	checkpointsUnacked bool // a checkpoint describes slots that were sent, not committed
	// The sealers.
	trustsLease   bool // the chain is taken to end at the first free slot, no fence
	fencesBeyond  bool // the fence goes after the highest object, not into the first gap
	skipsFence    bool // what lies beyond a fence is counted
	believesFence bool // a fence counts although the trim mark has passed it
	ignoresGaps   bool // the end is taken from the highest object
	// What is deleted.
	deletesFences     bool // a fence goes with the slots below it
	deletesCloses     bool // a CLOSE goes with the slots below it
	deletesUntrimmed  bool // an object goes before the trim mark that covers it is recorded
	trimsUnchecked    bool // the trim mark passes the newest checkpoint
	markFalls         bool // a late, older trim mark replaces a newer one
	deletesCheckpoint bool // the old checkpoint goes before the new one is recorded
	// The store.
	createRaces bool // create-if-absent is a check, then a write
	// What proves leadership to readers.
	provesEarly  bool // a PUT proves it when it is answered, not when it commits
	proves412    bool // a slot found to be ours proves that it is ours now
	provesInSlot bool // an own object where the check looks is proof enough
	provesClosed bool // a free slot after the own CLOSE is
	heirsTakeAll bool // heirs delete the newest slots of a sealed chain too
}

// chainBounds limit what is explored.
type chainBounds struct {
	slots  int
	window int  // PUTs in flight
	clone  bool // a copy of the process writes other bytes into the same slots
	reads  bool // the writer answers readers
}

// content is what lies in a slot.
type content uint8

const (
	free content = iota
	ours
	foreign // other bytes under the writer's name
	closing
	fence
)

// slotSet has a bit per slot, or per mark below which slots lie.
type slotSet uint8

func (s slotSet) has(i uint8) bool { return s>>i&1 != 0 }
func (s *slotSet) add(i uint8)     { *s |= 1 << i }

// prefix is how many slots from 0 on are in the set.
func (s slotSet) prefix() uint8 { return uint8(bits.TrailingZeros8(^uint8(s))) }

// sealing is a sealer's way to the end of the chain.
type sealing uint8

const (
	waiting sealing = iota
	walking         // looks at slot at
	ending          // a fence or CLOSE says that the chain ends at at
	sealed          // the chain ends at at
)

// sender tells whose PUT it is that reaches the store.
type sender uint8

const (
	writer sender = iota
	clone
	fencer
	senders
)

type sealer struct {
	phase sealing
	at    uint8
}

// chainState is everything anybody knows. What was sent stays sent: the network
// may deliver it at any time, any number of times, or never.
type chainState struct {
	slots [slotsMax + 1]content // in the bucket

	// The writer. Slots below next were sent; CLOSE takes the last of them.
	next     uint8
	closeAt  uint8   // one more than CLOSE's slot, 0 if not sent
	durable  slotSet // known to hold our bytes
	acked    slotSet
	dead     bool
	probe    uint8   // one more than the slot where a check looks next, 0: no check
	misled   bool    // leadership was proven although the chain had been ended before
	answered slotSet // a PUT was answered 200, and the answer is on its way
	late     slotSet // an attempt was begun after the end was recorded
	lateOK   slotSet // and was answered 200
	proves   slotSet // the writer takes that answer's time for a proof, once it commits

	fences slotSet // sent by sealers
	// checked is of a store that checks first, then writes: the check of that
	// sender's PUT found the slot free.
	checked [senders]slotSet

	// chains/<inc> in the metadata store.
	checkpoint, trim uint8
	end              uint8 // one more than the recorded end, 0: none

	checkpoints slotSet // objects in the bucket
	inherited   bool    // every heir has a durable checkpoint of its own
	sealers     [sealers]sealer
}

type chain struct {
	rules  chainRules
	bounds chainBounds
}

func (c chain) start() chainState { return chainState{} }

// mark is the slot below which objects may be deleted. Heirs leave the newest
// slots of a chain: a writer that does not know that it was sealed may have
// requests in flight there, and looks there to learn it. Acknowledgements do not
// need that, so it is left out where there are no readers.
func (c chain) mark(s *chainState) uint8 {
	if !s.inherited {
		return s.trim
	}
	end := s.end - 1
	switch {
	case c.rules.heirsTakeAll || !c.bounds.reads:
		return end
	case int(end) <= c.bounds.window:
		return s.trim
	}
	return max(s.trim, end-uint8(c.bounds.window))
}

// broken holds the promises of an acknowledgement and of an end.
func (c chain) broken(s *chainState) string {
	if s.misled {
		return "a deposed leader proved its leadership"
	}
	for i := c.mark(s); int(i) < c.bounds.slots; i++ {
		if s.acked.has(i) && s.slots[i] == foreign {
			return "an acknowledged slot holds other bytes"
		}
	}
	if s.end == 0 {
		return ""
	}
	end := s.end - 1
	if int(end) < bits.Len8(uint8(s.acked)) {
		return "an acknowledged slot lies beyond the end"
	}
	for _, other := range s.sealers {
		valid := other.phase == sealed || other.phase == ending && other.at >= max(c.mark(s), s.checkpoint)
		if valid && other.at != end {
			return "sealers disagree about the end"
		}
	}
	if s.checkpoint > 0 && !s.checkpoints.has(s.checkpoint) {
		return "the recorded checkpoint is missing"
	}
	// A checkpoint tells of the slots below it and names their objects.
	from := min(s.trim, s.checkpoint)
	if s.inherited {
		from = c.mark(s)
	}
	for i := from; i < end; i++ {
		if s.slots[i] == free || s.slots[i] == fence {
			return "a slot below the end is missing"
		}
	}
	return ""
}
