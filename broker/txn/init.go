package txn

import (
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Init gives the transactional id to a new instance of the producer, which fences
// every earlier one, or raises the epoch of the instance that names what it has
// (KIP-360); known is Nobody for the first. An ongoing transaction is aborted
// before: the answer makes the client ask again. What is answered with success is
// the producer of the stored state.
func (t *Txn) Init(known Producer, timeout time.Duration, fresh int64, now time.Time) Step {
	first := t.Producer == Nobody
	current, before := known == t.Producer, known == t.Last && known != Nobody
	switch {
	case t.State == Dead:
		return refuse(kerr.ConcurrentTransactions)
	// Of a transactional id that is new here, whoever recovers is the first.
	case known != Nobody && !first && !current && !before:
		return refuse(kerr.ProducerFenced)
	case t.State.Prepared():
		return refuse(kerr.ConcurrentTransactions)
	case t.State == Ongoing && before:
		return refuse(kerr.ProducerFenced) // its successor is at work
	case t.State == Ongoing:
		next := t.Fence(now)
		next.Last = known // the same instance gets through when it asks again
		return Step{Next: next, Err: kerr.ConcurrentTransactions}
	}
	next := t.clone(now)
	next.State, next.Timeout, next.Started, next.Last = Empty, timeout, time.Time{}, known
	if first {
		next.Last = Nobody
	}
	rotate := first || t.Producer.exhausted()
	if before {
		// The answer to its last request was lost. The epoch that only markers
		// have is no producer's.
		rotate = t.Producer.Epoch == math.MaxInt16
	}
	switch {
	case rotate && fresh < 0:
		return Step{NeedsID: true}
	case rotate:
		next.Producer = Producer{ID: fresh}
	case !before:
		next.Producer = t.Producer.raised()
	}
	return Step{Next: next}
}
