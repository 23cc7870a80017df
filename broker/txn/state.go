package txn

import "math"

// State is where a transactional id stands.
type State int8

// The states, as Kafka names them. A transactional id is Dead while it is being
// forgotten for its age.
const (
	Empty State = iota
	Ongoing
	PrepareCommit
	PrepareAbort
	CompleteCommit
	CompleteAbort
	Dead
)

var stateNames = [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"}

// States lists all states.
func States() []State {
	return []State{Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort, Dead}
}

func (s State) String() string { return stateNames[s] }

// ParseState is the inverse of String.
func ParseState(name string) (State, bool) {
	for s, n := range stateNames {
		if n == name {
			return State(s), true
		}
	}
	return 0, false
}

// Prepared tells that the outcome is decided and not everywhere known.
func (s State) Prepared() bool { return s == PrepareCommit || s == PrepareAbort }

// Complete tells that the last transaction has ended everywhere.
func (s State) Complete() bool { return s == CompleteCommit || s == CompleteAbort }

// Commits tells the outcome of a transaction that is prepared or complete.
func (s State) Commits() bool { return s == PrepareCommit || s == CompleteCommit }

// Producer is a producer id and an epoch of it.
type Producer struct {
	ID    int64
	Epoch int16
}

// Nobody is the producer that is none.
var Nobody = Producer{ID: -1, Epoch: -1}

// epochLast is the last epoch a producer is given under an id. One more exists,
// for the markers that end its last transaction.
const epochLast = math.MaxInt16 - 1

// exhausted: there is no higher epoch to give under this id.
func (p Producer) exhausted() bool { return p.Epoch >= epochLast }

func (p Producer) raised() Producer { return Producer{ID: p.ID, Epoch: p.Epoch + 1} }
