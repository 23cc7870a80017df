package txn

import (
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

var (
	now = time.Unix(1_000_000, 0)
	p0  = metadata.TopicPartition{Topic: metadata.TopicID{1}}
	p1  = metadata.TopicPartition{Topic: metadata.TopicID{1}, Partition: 1}
)

// script drives one transactional id.
type script struct {
	*testing.T
	t     *Txn
	fresh int64
}

func newScript(t *testing.T) *script { return &script{T: t, t: New(), fresh: 100} }

// step applies what an event returns, which must be err.
func (s *script) step(step Step, err *kerr.Error) {
	s.Helper()
	if step.Err != err {
		s.Fatalf("%v, want %v, in %+v", step.Err, err, s.t)
	}
	if step.Next != nil {
		s.t = step.Next
		if e := s.t.Check(); e != nil {
			s.Fatalf("%v in %+v", e, s.t)
		}
	}
}

func (s *script) init(known Producer, err *kerr.Error) Producer {
	s.Helper()
	step := s.t.Init(known, time.Minute, -1, now)
	if step.NeedsID {
		s.fresh++
		step = s.t.Init(known, time.Minute, s.fresh, now)
	}
	s.step(step, err)
	return s.t.Producer
}

func (s *script) add(p Producer, err *kerr.Error, tps ...metadata.TopicPartition) {
	s.Helper()
	s.step(s.t.Add(p, tps, now), err)
}

func (s *script) end(p Producer, commit bool, version int8, err *kerr.Error) Producer {
	s.Helper()
	step := s.t.End(p, commit, version, -1, now)
	if step.NeedsID {
		s.fresh++
		step = s.t.End(p, commit, version, s.fresh, now)
	}
	s.step(step, err)
	return s.t.Told()
}

func (s *script) complete() {
	s.Helper()
	if !s.t.State.Prepared() {
		s.Fatalf("nothing to complete in %s", s.t.State)
	}
	s.t = s.t.Complete(now)
}

func (s *script) want(state State, p Producer) {
	s.Helper()
	if s.t.State != state || s.t.Producer != p {
		s.Fatalf("%s of %+v, want %s of %+v", s.t.State, s.t.Producer, state, p)
	}
}

func TestVersion1(t *testing.T) {
	s := newScript(t)
	p := s.init(Nobody, nil)
	s.want(Empty, Producer{101, 0})
	s.end(p, true, V1, kerr.InvalidTxnState)
	s.add(p, nil, p0)
	s.add(p, nil, p0)
	s.add(p, nil, p1)
	if len(s.t.Partitions) != 2 || s.t.Verify(p, p1) != nil || s.t.Verify(p, metadata.TopicPartition{}) != kerr.TransactionAbortable {
		t.Fatal(s.t.Partitions)
	}
	s.end(Producer{101, 1}, true, V1, kerr.ProducerFenced)
	s.end(Producer{5, 0}, true, V1, kerr.InvalidProducerIDMapping)
	s.end(p, true, V1, nil)
	s.want(PrepareCommit, p)
	s.add(p, kerr.ConcurrentTransactions, p0)
	s.end(p, true, V1, kerr.ConcurrentTransactions)
	s.end(p, false, V1, kerr.InvalidTxnState)
	s.init(Nobody, kerr.ConcurrentTransactions)
	s.complete()
	s.want(CompleteCommit, p)
	s.end(p, true, V1, nil) // its answer was lost
	s.end(p, false, V1, kerr.InvalidTxnState)
	s.add(p, nil, p1)
	s.end(p, false, V1, nil)
	s.complete()
	s.want(CompleteAbort, p)
}

func TestVersion2(t *testing.T) {
	s := newScript(t)
	p := s.init(Nobody, nil)
	s.add(p, nil, p0)
	next := s.end(p, true, V2, nil)
	if next != (Producer{101, 1}) {
		t.Fatal(next)
	}
	s.want(PrepareCommit, next)
	s.end(p, true, V2, kerr.ConcurrentTransactions)
	s.end(p, false, V2, kerr.InvalidTxnState)
	s.add(p, kerr.ProducerFenced, p0)
	s.add(next, kerr.ConcurrentTransactions, p0)
	s.end(next, false, V2, kerr.ConcurrentTransactions)
	s.complete()
	if again := s.end(p, true, V2, nil); again != next {
		t.Fatal(again)
	}
	s.end(p, false, V2, kerr.InvalidTxnState)
	s.end(next, true, V2, kerr.InvalidTxnState)
	// An abort of what never began raises the epoch at once.
	third := s.end(next, false, V2, nil)
	s.want(CompleteAbort, Producer{101, 2})
	if again := s.end(next, false, V2, nil); again != third {
		t.Fatal(again)
	}
	// Who writes on knows its epoch: what comes late is refused.
	s.add(third, nil, p0)
	s.end(next, false, V2, kerr.ProducerFenced)
	s.init(next, kerr.ProducerFenced)
}

// The last epoch of a producer id leads to a new id, told before the markers of
// the last transaction, whose epoch is higher still, are written.
func TestEpochsRunOut(t *testing.T) {
	s := newScript(t)
	p := s.init(Nobody, nil)
	for p.Epoch < epochLast {
		s.add(p, nil, p0)
		p = s.end(p, p.Epoch%2 == 0, V2, nil)
		s.complete()
	}
	s.want(s.t.State, Producer{101, 32766})
	s.add(p, nil, p0)
	next := s.end(p, true, V2, nil)
	if next != (Producer{102, 0}) {
		t.Fatal(next)
	}
	s.want(PrepareCommit, Producer{101, math.MaxInt16})
	s.add(next, kerr.ConcurrentTransactions, p0)
	s.end(p, true, V2, kerr.ConcurrentTransactions)
	s.complete()
	s.want(CompleteCommit, next)
	if again := s.end(p, true, V2, nil); again != next {
		t.Fatal(again)
	}
	if again := s.init(p, nil); again != next {
		t.Fatal(again)
	}
	s.add(next, nil, p0)
}

func TestInitWithExhaustedEpoch(t *testing.T) {
	s := newScript(t)
	s.init(Nobody, nil)
	for s.t.Producer.Epoch < epochLast {
		s.init(s.t.Producer, nil)
	}
	old := s.t.Producer
	p := s.init(old, nil)
	s.want(Empty, Producer{102, 0})
	if again := s.init(old, nil); again != p {
		t.Fatal(again)
	}
	if s.init(Nobody, nil) != (Producer{102, 1}) {
		t.Fatal(s.t.Producer)
	}
	s.init(old, kerr.ProducerFenced)
}

// A fence at the last epoch uses the one that only markers have. Nobody is ever
// told it, also not whose request caused the fence.
func TestFenceAtTheLastEpoch(t *testing.T) {
	s := newScript(t)
	p := s.init(Nobody, nil)
	for p.Epoch < epochLast {
		p = s.init(p, nil)
	}
	s.add(p, nil, p0)
	s.init(p, kerr.ConcurrentTransactions)
	s.want(PrepareAbort, Producer{101, math.MaxInt16})
	s.complete()
	got := s.init(p, nil)
	s.want(Empty, Producer{102, 0})
	if again := s.init(p, nil); again != got {
		t.Fatal(again)
	}
}

func TestRecovery(t *testing.T) {
	s := newScript(t)
	p := s.init(Nobody, nil)
	q := s.init(p, nil)
	if q != (Producer{101, 1}) {
		t.Fatal(q)
	}
	if again := s.init(p, nil); again != q {
		t.Fatal(again) // its answer was lost
	}
	s.add(q, nil, p0)
	s.init(p, kerr.ProducerFenced)
	s.want(Ongoing, q) // a zombie ends nothing
	// The holder itself: its transaction is aborted, and it asks again.
	s.init(q, kerr.ConcurrentTransactions)
	s.want(PrepareAbort, Producer{101, 2})
	s.add(q, kerr.ProducerFenced, p0)
	s.complete()
	r := s.init(q, nil)
	s.want(Empty, Producer{101, 2})
	// A new instance fences it.
	s.init(Nobody, nil)
	s.want(Empty, Producer{101, 3})
	s.init(q, kerr.ProducerFenced)
	s.init(r, kerr.ProducerFenced)
	s.init(Producer{7, 3}, kerr.ProducerFenced)
}

// After an abort that the producer did not ask for it is fenced, whatever it asks.
func TestTimeout(t *testing.T) {
	for _, version := range []int8{V1, V2} {
		s := newScript(t)
		p := s.init(Nobody, nil)
		s.add(p, nil, p0)
		deadline, ongoing := s.t.Deadline()
		if !ongoing || !deadline.Equal(now.Add(time.Minute)) {
			t.Fatal(deadline, ongoing)
		}
		s.t = s.t.Fence(now)
		for range 2 {
			s.end(p, true, version, kerr.ProducerFenced)
			s.end(p, false, version, kerr.ProducerFenced)
			s.add(p, kerr.ProducerFenced, p1)
			s.init(p, kerr.ProducerFenced)
			if s.t.State.Prepared() {
				s.complete()
			}
		}
		s.want(CompleteAbort, Producer{101, 1})
		if s.t.Expired(now.Add(time.Hour), 2*time.Hour) || !s.t.Expired(now.Add(2*time.Hour), 2*time.Hour) {
			t.Fatal("expiry")
		}
		s.t = s.t.Die()
		s.add(p, kerr.ConcurrentTransactions, p0)
		s.end(p, true, version, kerr.ConcurrentTransactions)
		s.init(Nobody, kerr.ConcurrentTransactions)
	}
}

func TestNewHereRecovers(t *testing.T) {
	s := newScript(t)
	if p := s.init(Producer{55, 9}, nil); p != (Producer{101, 0}) {
		t.Fatal(p)
	}
}
