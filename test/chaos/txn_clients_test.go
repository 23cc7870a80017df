package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/checker/franz"
)

const (
	copyMost = 50 // records in a transaction
	// endMax bounds the end of a transaction, with all attempts. An application
	// would then begin anew, too.
	endMax   = 30 * time.Second
	mixPause = 50 * time.Millisecond
	mixWait  = 20 * time.Millisecond // for records to read
)

// promises collects how the records of one transaction fared.
type promises struct {
	mu  sync.Mutex
	err error
}

func (p *promises) done(_ *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

func (p *promises) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// gaveUp notes why a client began anew. Some errors no fault is a reason for.
func (x *txnLoad) gaveUp(who string, err error) {
	text, _, _ := strings.Cut(err.Error(), "\n")
	x.r.t.Logf("%s after %v: %s", who, milli(time.Since(x.r.begun)), text)
	for _, code := range []error{kerr.InvalidTxnState, kerr.InvalidProducerIDMapping, kerr.OutOfOrderSequenceNumber, kerr.UnknownServerError} {
		if errors.Is(err, code) {
			x.l.failed(fmt.Errorf("%s: %w", who, err))
			return
		}
	}
}

// copy copies until ctx ends. A session that cannot go on is followed by another
// of the same transactional id.
func (x *txnLoad) copy(ctx context.Context, id string) {
	for n := 0; ctx.Err() == nil; n++ {
		s, err := kgo.NewGroupTransactSession(x.r.options(x.r.logged(id), kgo.TransactionalID(id), kgo.TransactionTimeout(txnTimeout),
			kgo.ConsumerGroup(txnGroup), kgo.ConsumeTopics(txnIn), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1),
			kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(time.Second), kgo.RebalanceTimeout(10*time.Second))...)
		if err != nil {
			x.r.t.Error(err)
			return
		}
		name := fmt.Sprintf("%s/%d", id, n)
		if err := x.session(ctx, s, name); err != nil {
			x.gaveUp(name, err)
			sleep(ctx, askEvery)
		}
		s.Close()
	}
}

func (x *txnLoad) session(ctx context.Context, s *kgo.GroupTransactSession, name string) error {
	p := x.r.history.RetryingProducer(name)
	c := x.r.history.Consumer("consumer of "+name, checker.ReadCommitted, checker.Subscribed)
	c.Subscribe(txnGroup)
	defer c.Close()
	for round := 1; ctx.Err() == nil; round++ {
		t := p.Begin()
		fetches := x.l.poll(ctx, func(ctx context.Context) kgo.Fetches { return franz.PollIn(ctx, s.Client(), c, t, copyMost) })
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err := x.copyOnce(s, t, fetches, round%7 != 0); err != nil {
			return err
		}
	}
	return nil
}

// copyOnce copies what was polled, in one transaction.
func (x *txnLoad) copyOnce(s *kgo.GroupTransactSession, t *checker.Txn, fetches kgo.Fetches, commit bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), endMax)
	defer cancel()
	var sent promises
	next := make(map[checker.Key]int64)
	fetches.EachRecord(func(rec *kgo.Record) {
		value, err := checker.ValueOf(rec.Value)
		if err != nil {
			return // the poll has told of it
		}
		of := checker.Key{Topic: rec.Topic, Partition: rec.Partition}
		one := t.Copy(txnOut, rec.Partition, of, checker.Record{Offset: rec.Offset, Value: value})
		franz.Send(ctx, s.Client(), one, txnOut, rec.Partition, payloadBytes, sent.done)
		next[of] = rec.Offset + 1
	})
	if err := s.Client().Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err) // and never ask for the end
	}
	failed := sent.failed()
	commit = commit && failed == nil
	end := t.End(commit, txnGroup, next)
	committed, err := s.End(ctx, kgo.TransactionEndTry(commit))
	x.count(end, commit, committed, err)
	return errors.Join(failed, err)
}

// count tells the outcome of a transaction.
func (x *txnLoad) count(end *checker.End, commit, committed bool, err error) {
	switch {
	case err != nil:
		x.unknown.Add(1)
		end.Unknown(err)
	case commit && !committed:
		x.aborted.Add(1)
		end.Aborted(errors.New("it had to be aborted"))
	case commit:
		x.committed.Add(1)
		end.OK()
	default:
		x.aborted.Add(1)
		end.OK()
	}
}

// mix reads and writes one topic in transactions until ctx ends, commits some,
// aborts some, and dies in the middle of some.
func (x *txnLoad) mix(ctx context.Context, who, id string, opts ...kgo.Opt) {
	c := x.r.history.Consumer("consumer of "+who, checker.ReadCommitted, checker.Assigned, checker.Epochs)
	reader := x.r.newClient(append(franz.Assign(c, txnMix, txnPartitions), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	defer reader.Close()
	defer c.Close()
	for n := 0; ctx.Err() == nil; n++ {
		cl := x.producer(id, opts...)
		name := fmt.Sprintf("%s/%d", who, n)
		if err := x.life(ctx, &mixer{cl: cl, reader: reader, c: c, p: x.r.history.RetryingProducer(name)}); err != nil {
			x.gaveUp(name, err)
			sleep(ctx, askEvery)
		}
		cl.Close()
	}
}

// producer is an instance of a transactional producer.
func (x *txnLoad) producer(id string, opts ...kgo.Opt) *kgo.Client {
	return x.r.newClient(append(opts, x.r.logged(id), kgo.TransactionalID(id), kgo.TransactionTimeout(txnTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))...)
}

// mixer is one instance of a transactional producer, and what it reads with.
type mixer struct {
	cl, reader *kgo.Client
	c          *checker.Consumer
	p          *checker.Producer
}

// livesFor is how many transactions a mixer ends before it dies in the next.
const livesFor = 12

func (x *txnLoad) life(ctx context.Context, m *mixer) error {
	for round := 1; ctx.Err() == nil; round++ {
		t := m.p.Begin()
		waiting, cancel := context.WithTimeout(ctx, mixWait)
		fetches := franz.PollIn(waiting, m.reader, m.c, t, copyMost)
		cancel()
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, context.Canceled) && !transient(e.Err) {
				x.l.failed(fmt.Errorf("fetch of partition %d: %w", e.Partition, e.Err))
			}
		}
		if err := m.cl.BeginTransaction(); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if dies, err := x.mixOnce(m, t, round); dies || err != nil {
			return err
		}
		sleep(ctx, mixPause)
	}
	return nil
}

// mixOnce writes some records in one transaction, and ends it or dies.
func (x *txnLoad) mixOnce(m *mixer, t *checker.Txn, round int) (dies bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), endMax)
	defer cancel()
	var sent promises
	for range 1 + rand.IntN(6) {
		partition := rand.Int32N(txnPartitions)
		franz.Send(ctx, m.cl, t.Send(txnMix, partition), txnMix, partition, payloadBytes, sent.done)
	}
	if err := m.cl.Flush(ctx); err != nil {
		return false, fmt.Errorf("flush: %w", err)
	}
	if round > livesFor {
		x.left.Add(1)
		return true, nil
	}
	failed := sent.failed()
	commit := failed == nil && round%3 != 0
	end := t.End(commit, "", nil)
	if !commit {
		err = m.cl.AbortBufferedRecords(ctx)
	}
	err = errors.Join(err, m.cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)))
	x.count(end, commit, commit, err)
	return false, errors.Join(failed, err)
}
