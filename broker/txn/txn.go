package txn

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// Versions of the protocol. A transaction has that of the request that ends it.
const (
	V1 int8 = 1 // the epoch stays
	V2 int8 = 2 // every end raises the epoch (KIP-890)
)

// Partitions is a set.
type Partitions map[metadata.TopicPartition]struct{}

// Txn is the state of a transactional id.
//
// Invariant: Partitions is empty unless the state is Ongoing or prepared, Next is
// -1 unless it is prepared in V2, and Producer.Epoch is -1 only before the first
// Init.
type Txn struct {
	Producer Producer
	Last     Producer
	// Next is the id that the producer gets when the prepared transaction is
	// complete, because the epochs of the one it has are used up; else -1.
	Next    int64
	State   State
	Version int8 // of the transaction that was ended last
	Timeout time.Duration
	// Started is when the transaction began, Updated when the state was made.
	Started, Updated time.Time
	Partitions       Partitions
}

// New is a transactional id that nobody used yet.
func New() *Txn { return &Txn{Producer: Nobody, Last: Nobody, Next: -1, Version: V1} }

// Check tells whether a state that was read can be one.
func (t *Txn) Check() error {
	switch {
	case t.State < Empty || t.State >= Dead:
		return fmt.Errorf("state %d", t.State)
	case t.Producer.ID < 0 || t.Producer.Epoch < 0:
		return errors.New("no producer")
	case t.Version != V1 && t.Version != V2:
		return fmt.Errorf("protocol version %d", t.Version)
	case t.Next >= 0 && !t.State.Prepared():
		return fmt.Errorf("a next producer id in state %s", t.State)
	case len(t.Partitions) > 0 && t.State != Ongoing && !t.State.Prepared():
		return fmt.Errorf("partitions in state %s", t.State)
	}
	return nil
}

// Step is what follows from an event.
type Step struct {
	// Next is the state to store before anything is answered; nil: it stays.
	Next *Txn
	// Err is to be answered, also when the state was stored: then it makes the
	// client ask again.
	Err *kerr.Error
	// NeedsID: the event has to be repeated with a new producer id.
	NeedsID bool
}

func refuse(err *kerr.Error) Step { return Step{Err: err} }

func (t *Txn) clone(now time.Time) *Txn {
	next := *t
	next.Updated = now
	return &next
}

// Told is what the producer is, or will be when the prepared transaction is
// complete: who it is told to be.
func (t *Txn) Told() Producer {
	if t.Next >= 0 {
		return Producer{ID: t.Next}
	}
	return t.Producer
}

// writable tells why p may not change the transaction, or nil.
func (t *Txn) writable(p Producer) *kerr.Error {
	switch {
	case t.State == Dead:
		return kerr.ConcurrentTransactions
	case t.State.Prepared() && p == t.Told():
		return kerr.ConcurrentTransactions // its next transaction has to wait
	case p.ID != t.Producer.ID:
		return kerr.InvalidProducerIDMapping
	case p.Epoch != t.Producer.Epoch:
		return kerr.ProducerFenced
	case t.State.Prepared():
		return kerr.ConcurrentTransactions
	}
	return nil
}

// Add takes partitions into the transaction, which begins with the first.
func (t *Txn) Add(p Producer, partitions []metadata.TopicPartition, now time.Time) Step {
	if err := t.writable(p); err != nil {
		return refuse(err)
	}
	missing := partitions[:0:0]
	for _, tp := range partitions {
		if _, ok := t.Partitions[tp]; !ok {
			missing = append(missing, tp)
		}
	}
	if t.State == Ongoing && len(missing) == 0 {
		return Step{}
	}
	next := t.clone(now)
	if t.State != Ongoing {
		// Who writes under this epoch knows it: what came before cannot be asked
		// for again.
		next.State, next.Started, next.Last = Ongoing, now, Nobody
	}
	if next.Partitions = maps.Clone(t.Partitions); next.Partitions == nil {
		next.Partitions = make(Partitions, len(missing))
	}
	for _, tp := range missing {
		next.Partitions[tp] = struct{}{}
	}
	return Step{Next: next}
}

// Verify tells whether the partition is part of the producer's transaction.
func (t *Txn) Verify(p Producer, tp metadata.TopicPartition) *kerr.Error {
	if err := t.writable(p); err != nil {
		return err
	}
	if _, ok := t.Partitions[tp]; !ok {
		return kerr.TransactionAbortable
	}
	return nil
}

// End decides the transaction's outcome. What is answered with success is
// Told of the state that is then stored.
func (t *Txn) End(p Producer, commit bool, version int8, fresh int64, now time.Time) Step {
	if version < V2 {
		return t.endV1(p, commit, now)
	}
	again := p == t.Last && (t.State.Prepared() || t.State.Complete())
	if !again {
		if err := t.writable(p); err != nil {
			return refuse(err)
		}
	}
	switch {
	case again && t.State.Commits() != commit:
		return refuse(kerr.InvalidTxnState)
	case again && t.State.Prepared():
		return refuse(kerr.ConcurrentTransactions)
	case again:
		return Step{}
	case t.State != Ongoing && commit:
		return refuse(kerr.InvalidTxnState)
	case t.Producer.exhausted() && fresh < 0:
		return Step{NeedsID: true}
	}
	next := t.clone(now)
	next.State, next.Version, next.Last, next.Producer = PrepareAbort, V2, t.Producer, t.Producer.raised()
	if commit {
		next.State = PrepareCommit
	}
	if t.Producer.exhausted() {
		next.Next = fresh
	}
	if t.State != Ongoing { // aborted before it began: there is nobody to tell
		next.Started = now
		next = next.Complete(now)
	}
	return Step{Next: next}
}

func (t *Txn) endV1(p Producer, commit bool, now time.Time) Step {
	switch {
	case t.State == Dead:
		return refuse(kerr.ConcurrentTransactions)
	case p.ID != t.Producer.ID:
		return refuse(kerr.InvalidProducerIDMapping)
	case p.Epoch != t.Producer.Epoch:
		return refuse(kerr.ProducerFenced)
	case t.State == Empty, t.State != Ongoing && t.State.Commits() != commit:
		return refuse(kerr.InvalidTxnState)
	case t.State.Prepared():
		return refuse(kerr.ConcurrentTransactions)
	case t.State.Complete():
		return Step{}
	}
	next := t.clone(now)
	next.State, next.Version = PrepareAbort, V1
	if commit {
		next.State = PrepareCommit
	}
	return Step{Next: next}
}

// Fence aborts an ongoing transaction without its producer, which is fenced.
func (t *Txn) Fence(now time.Time) *Txn {
	next := t.clone(now)
	next.State, next.Last = PrepareAbort, Nobody
	// A raised epoch makes the markers of either version those of version 2.
	if next.Version = V1; t.Producer.Epoch < math.MaxInt16 {
		next.Version, next.Producer = V2, t.Producer.raised()
	}
	return next
}

// Complete ends a prepared transaction, of which every partition has the marker.
func (t *Txn) Complete(now time.Time) *Txn {
	next := t.clone(now)
	next.State, next.Partitions = CompleteAbort, nil
	if t.State.Commits() {
		next.State = CompleteCommit
	}
	next.Producer, next.Next = t.Told(), -1
	return next
}

// Deadline is when an ongoing transaction is to be aborted.
func (t *Txn) Deadline() (time.Time, bool) { return t.Started.Add(t.Timeout), t.State == Ongoing }

// Expired tells whether nobody used the transactional id for so long.
func (t *Txn) Expired(now time.Time, unused time.Duration) bool {
	return (t.State == Empty || t.State.Complete()) && now.Sub(t.Updated) >= unused
}

// Die is the state while the transactional id is being forgotten.
func (t *Txn) Die() *Txn {
	next := *t
	next.State = Dead
	return &next
}
