package coordinator

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// txnEntry is one transactional id of an active shard, guarded by the shard's
// lock. t is what the store has, always.
type txnEntry struct {
	id  string
	t   *txn.Txn
	rev int64 // of its key; 0: not stored
	// corrupt: what is stored cannot be read. It is left as it is.
	corrupt bool
	// busy closes when the fate of the state that is being written is known; nil
	// while there is none.
	busy chan struct{}
	// timer aborts the transaction when it is too old.
	timer *time.Timer
}

// findTxn returns the transactional id, or nil when there is none.
func (sh *shard) findTxn(id string) (*txnEntry, *kerr.Error) {
	if err := sh.serving(); err != nil {
		return nil, err
	}
	e := sh.txns[id]
	if e != nil && e.corrupt {
		return nil, kerr.UnknownServerError
	}
	return e, nil
}

func (sh *shard) loadTxns(entries []metadata.Entry) map[string]*txnEntry {
	txns := make(map[string]*txnEntry, len(entries))
	for _, en := range entries {
		id, err := parseTxnKey(sh.id, en.Key)
		if err != nil {
			sh.c.log.Error("unknown key among transactions", slog.String(logKey, en.Key), slog.Any(logError, err))
			continue
		}
		e := &txnEntry{id: id, rev: en.ModRevision}
		if e.t, err = decodeTxn(en.Value); err != nil {
			sh.c.log.Error("a stored transaction cannot be read and is not served", slog.Int(logShard, sh.id),
				slog.String(logTxn, id), slog.Any(logError, err))
			e.t, e.corrupt = txn.New(), true
		}
		txns[id] = e
	}
	return txns
}

// decision is what a request makes of a transactional id.
type decision func(t *txn.Txn, fresh int64, now time.Time) txn.Step

// change has decide look at what is stored of a transactional id, and stores what
// it returns. It returns the state that the answer is about. An answer that no
// write vouches for, and that would be final, is given only once the store shows
// that nobody else coordinates the shard.
func (c *Coordinator) change(ctx context.Context, id string, create bool, decide decision) (*txn.Txn, *kerr.Error) {
	if id == "" || checkGroupID(id, false) != nil {
		return nil, kerr.InvalidRequest
	}
	sh, fresh := c.shard(id), int64(-1)
	for {
		a := sh.attempt(id, create, fresh, decide)
		switch {
		case a.needsID:
			var err error
			if fresh, err = c.cfg.ProducerIDs.Get(ctx); err != nil {
				c.log.Warn("no producer id", slog.Any(logError, err))
				return nil, kerr.CoordinatorNotAvailable
			}
		case a.busy != nil:
			if _, ok := await(ctx, a.busy); !ok && !closed(a.busy) {
				return nil, kerr.ConcurrentTransactions
			}
		case a.stored != nil:
			err, ok := await(ctx, a.stored)
			if !ok {
				return nil, kerr.CoordinatorNotAvailable // nobody reads it
			}
			if err == nil {
				err = a.err
			}
			return a.t, err
		case a.err != nil && (a.err.Retriable || a.err == kerr.ConcurrentTransactions):
			return nil, a.err
		default:
			if current, err := sh.vouch(ctx, a.term); err != nil {
				return nil, err
			} else if current {
				return a.t, a.err
			}
		}
	}
}

// attempted is what came of one look at a transactional id: something to wait
// for, or an answer.
type attempted struct {
	t       *txn.Txn
	err     *kerr.Error
	term    uint64
	needsID bool
	busy    <-chan struct{}
	stored  <-chan *kerr.Error
}

func (sh *shard) attempt(id string, create bool, fresh int64, decide decision) attempted {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a := attempted{term: sh.term}
	e, err := sh.findTxn(id)
	switch {
	case err != nil:
		// An error of the moment, or of what is stored: both are true as they are.
		a.err, a.busy = err, nil
		if !err.Retriable {
			a.stored = told(err)
		}
		return a
	case e == nil && !create:
		a.err = kerr.InvalidProducerIDMapping
		return a
	case e == nil && len(sh.txns) >= sh.c.cfg.TxnsPerShardMax:
		a.err = kerr.CoordinatorNotAvailable
		return a
	case e == nil:
		e = &txnEntry{id: id, t: txn.New()}
	case e.busy != nil:
		a.busy = e.busy
		return a
	}
	step := decide(e.t, fresh, time.Now())
	a.t, a.err, a.needsID = e.t, step.Err, step.NeedsID
	if step.Next != nil {
		a.t, a.stored = step.Next, sh.putTxn(e, step.Next)
	}
	return a
}

func told(err *kerr.Error) <-chan *kerr.Error {
	ch := make(chan *kerr.Error, 1)
	ch <- err
	return ch
}

// vouch reports whether the shard is the same as in that term, by a read of its
// key that began after the call.
func (sh *shard) vouch(ctx context.Context, term uint64) (current bool, err *kerr.Error) {
	err = sh.c.verify(ctx, []int{sh.id})[sh.id]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err == nil {
		err = sh.serving()
	}
	return sh.term == term, err
}

// putTxn begins to store a state, which the entry has once it is stored.
func (sh *shard) putTxn(e *txnEntry, next *txn.Txn) <-chan *kerr.Error {
	key := txnKey(sh.id, e.id)
	op := &txnOp{
		keyOp: keyOp{sh: sh, term: sh.term, rev: sh.rev, cond: metadata.Cond{Key: key, ModRevision: e.rev}, op: metadata.Delete(key)},
		e:     e, next: next, done: make(chan *kerr.Error, 1),
	}
	if next.State != txn.Dead {
		value := encodeTxn(next)
		if next.State == txn.Ongoing && len(value)+3*len(key) > chunkBytesMax {
			return told(kerr.TransactionAbortable) // more partitions than one may have
		}
		op.op = metadata.Put(key, value)
	}
	if !sh.c.txnWriter.enqueue(op) {
		return told(kerr.NotCoordinator)
	}
	sh.txns[e.id] = e
	e.busy = make(chan struct{})
	return op.done
}

// txnOp is a state of a transactional id on its way to the store.
type txnOp struct {
	keyOp
	e    *txnEntry
	next *txn.Txn
	done chan *kerr.Error
}

func (op *txnOp) succeed(rev int64) {
	op.end(nil, func() {
		op.e.t, op.e.rev = op.next, rev
		if op.next.State == txn.Dead {
			delete(op.sh.txns, op.e.id)
			return
		}
		op.sh.c.metrics.txnStates.WithLabelValues(op.next.State.String()).Inc()
		op.sh.follow(op.e)
	})
}

func (op *txnOp) fail(err *kerr.Error) {
	op.end(err, func() {
		if op.e.rev == 0 {
			delete(op.sh.txns, op.e.id)
			return
		}
		op.sh.armTxn(op.e, txnRetry)
	})
}

// end tells the fate of the write. In a later term the entry is nobody's.
func (op *txnOp) end(err *kerr.Error, change func()) {
	op.sh.mu.Lock()
	defer op.sh.mu.Unlock()
	if op.sh.term == op.term {
		change()
	}
	close(op.e.busy)
	op.e.busy = nil
	op.done <- err
}

// txnRetry is how long an abort waits that could not be stored.
const txnRetry = time.Second

// follow begins what the stored state asks for: an ongoing transaction has its
// time, a prepared one is to be completed.
func (sh *shard) follow(e *txnEntry) {
	switch {
	case e.corrupt:
	case e.t.State.Prepared():
		term, t := sh.term, e.t
		sh.c.spawn(func() { sh.complete(term, e, t) })
	default:
		sh.armTxn(e, 0)
	}
}

// armTxn sets the timer of an ongoing transaction, at least so far ahead.
func (sh *shard) armTxn(e *txnEntry, least time.Duration) {
	deadline, ongoing := e.t.Deadline()
	if !ongoing {
		if e.timer != nil {
			e.timer.Stop()
		}
		return
	}
	in := max(time.Until(deadline), least)
	if e.timer == nil {
		term := sh.term
		e.timer = time.AfterFunc(in, func() { sh.c.within(func() { sh.abortOld(term, e) }) })
		return
	}
	e.timer.Reset(in)
}

// abortOld aborts a transaction whose time is up, and fences its producer.
func (sh *shard) abortOld(term uint64, e *txnEntry) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	deadline, ongoing := e.t.Deadline()
	now := time.Now()
	switch {
	case sh.term != term || sh.txns[e.id] != e || !ongoing || sh.serving() != nil:
	case e.busy != nil || now.Before(deadline):
		// What is being written is followed by a look at the time.
		if e.busy == nil {
			sh.armTxn(e, 0)
		}
	default:
		sh.c.log.Info("aborting a transaction whose time is up", slog.String(logTxn, e.id), slog.Int64(logProducer, e.t.Producer.ID))
		sh.c.metrics.txnTimeouts.Inc()
		sh.putTxn(e, e.t.Fence(now)) // its fate is followed
	}
}

// expireTxns forgets transactional ids that nobody used for long.
func (sh *shard) expireTxns(now time.Time) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.serving() != nil {
		return
	}
	for _, e := range sh.txns {
		if !e.corrupt && e.busy == nil && e.t.Expired(now, sh.c.cfg.TransactionalIDExpiration) {
			sh.putTxn(e, e.t.Die())
		}
	}
}
