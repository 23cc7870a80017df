package broker

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/tiering"
)

// TxnVerifier asks the coordinators of transactions about partitions (KIP-890).
type TxnVerifier interface {
	// Verify returns an error code for each partition, in the order asked: 0 when
	// it is part of the producer's ongoing transaction, as the coordinator knows it
	// at some moment after the call. With Add the coordinator takes it in. These
	// are the codes that AddPartitionsToTxn of version 4 and up has for brokers. An
	// error means that the coordinator could not be asked, or did not answer: the
	// partitions may have been added all the same.
	Verify(ctx context.Context, t TxnPartitions) ([]int16, error)
}

// TxnPartitions is a transaction, and partitions that a producer writes to in it.
type TxnPartitions struct {
	TransactionalID string
	ProducerID      int64
	ProducerEpoch   int16
	// Add the partitions; otherwise they have to be part of it already.
	Add        bool
	Partitions []TxnPartition
}

// TxnPartition names a partition as AddPartitionsToTxn does.
type TxnPartition struct {
	Topic     string
	Partition int32
}

const (
	// verifyWait bounds the wait for a coordinator. Produce requests wait on their
	// connection's reading goroutine.
	verifyWait = 10 * time.Second
	// While a transaction is being ended the next one cannot begin. That is soon
	// over, so it is tried again here before the client is told (Kafka:
	// add.partitions.to.txn.retry.backoff.ms and .max.ms).
	verifyPause   = 20 * time.Millisecond
	verifyRetries = 5
)

// verifications are the questions to coordinators that are on their way. A
// question is about a guard, so requests that hold the same one share it; after a
// marker came there is another guard, and an older answer does not count.
type verifications struct {
	verifier TxnVerifier

	mu      sync.Mutex
	pending map[question]*verification
}

type question struct {
	guard *tiering.TxnGuard
	add   bool
}

type verification struct {
	done chan struct{}
	code int16 // valid after done, as is err
	err  error
}

func newVerifications(v TxnVerifier) *verifications {
	return &verifications{verifier: v, pending: make(map[question]*verification)}
}

// verify asks about t, whose partitions are guarded by guards, one each, and
// returns a code or an error for each. What others are asking is not asked again.
func (v *verifications) verify(ctx context.Context, t TxnPartitions, guards []*tiering.TxnGuard) ([]int16, []error) {
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	all := make([]*verification, len(guards))
	ask, own := t, []int(nil)
	ask.Partitions = nil
	v.mu.Lock()
	for i, g := range guards {
		q := question{g, t.Add}
		if all[i] = v.pending[q]; all[i] == nil {
			all[i] = &verification{done: make(chan struct{})}
			v.pending[q] = all[i]
			own = append(own, i)
			ask.Partitions = append(ask.Partitions, t.Partitions[i])
		}
	}
	v.mu.Unlock()
	if len(own) > 0 {
		v.answer(ctx, ask, all, own, guards)
	}
	codes, errs := make([]int16, len(all)), make([]error, len(all))
	for i, one := range all {
		select {
		case <-one.done:
			codes[i], errs[i] = one.code, one.err
		case <-ctx.Done():
			errs[i] = context.Cause(ctx)
		}
	}
	return codes, errs
}

// answer asks about t and tells whoever waits for it.
func (v *verifications) answer(ctx context.Context, t TxnPartitions, all []*verification, own []int, guards []*tiering.TxnGuard) {
	codes, err := []int16(nil), error(kerr.UnknownServerError)
	defer func() { // also when the verifier panics
		v.mu.Lock()
		defer v.mu.Unlock()
		for n, i := range own {
			if all[i].err = err; err == nil {
				all[i].code = codes[n]
			}
			delete(v.pending, question{guards[i], t.Add})
			close(all[i].done)
		}
	}()
	codes, err = v.ask(ctx, t)
}

// ask asks the coordinator, and again about partitions that have to wait for the
// end of the transaction before.
func (v *verifications) ask(ctx context.Context, t TxnPartitions) ([]int16, error) {
	codes, err := v.askOnce(ctx, t)
	for retry := 0; err == nil && t.Add && retry < verifyRetries; retry++ {
		var wait []int
		again := t
		again.Partitions = nil
		for i, code := range codes {
			if code == kerr.ConcurrentTransactions.Code {
				wait = append(wait, i)
				again.Partitions = append(again.Partitions, t.Partitions[i])
			}
		}
		if len(wait) == 0 {
			break
		}
		select {
		case <-time.After(verifyPause):
		case <-ctx.Done():
			return codes, nil
		}
		var more []int16
		if more, err = v.askOnce(ctx, again); err == nil {
			for n, i := range wait {
				codes[i] = more[n]
			}
		}
	}
	return codes, err
}

func (v *verifications) askOnce(ctx context.Context, t TxnPartitions) ([]int16, error) {
	codes, err := v.verifier.Verify(ctx, t)
	if err == nil && len(codes) != len(t.Partitions) {
		return nil, refuse(kerr.NetworkException, "%d answers about %d partitions", len(codes), len(t.Partitions))
	}
	return codes, err
}

// verifyError makes of the coordinator's answer the error of a produce request.
// Clients of older versions do not retry what they do not know from produce
// requests: they are told something that they do, and that does not make them
// look for another leader, as Kafka does.
func verifyError(code int16, asked error, version int16) error {
	if asked != nil {
		return refuse(kerr.NotEnoughReplicas, "the transaction coordinator did not answer: %v", asked)
	}
	switch e := kerr.ErrorForCode(code); e {
	case nil:
		return nil
	case kerr.InvalidTxnState:
		return refuse(kerr.InvalidTxnState, "the partition was not added to the transaction")
	case kerr.ProducerFenced:
		return refuse(kerr.InvalidProducerEpoch, "a newer instance of the producer has begun")
	case kerr.TransactionAbortable:
		if version < 11 {
			return refuse(kerr.InvalidTxnState, "the partition was not added to the transaction")
		}
		return e
	case kerr.ConcurrentTransactions:
		if version >= txnAddVersion {
			return e
		}
		return unverified(e)
	case kerr.NetworkException, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator:
		return unverified(e)
	default:
		return e
	}
}

func unverified(cause error) error {
	return refuse(kerr.NotEnoughReplicas, "the partition could not be verified to be part of the transaction: %v", cause)
}
