package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// TxnQuestion is whether partitions are part of a producer's transaction or, with
// Add, the wish that they be.
type TxnQuestion struct {
	TransactionalID string
	Producer        txn.Producer
	Add             bool
	Partitions      []TxnTopicPartition
}

// TxnTopicPartition names a partition as AddPartitionsToTxn does.
type TxnTopicPartition struct {
	Topic     string
	Partition int32
}

// AskTxn asks the transaction's coordinator, whichever broker that is. There is a
// code for each partition, in order. An error means that no coordinator answered:
// what was to be added may have been.
func (c *Coordinator) AskTxn(ctx context.Context, q TxnQuestion) ([]int16, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		codes, err := c.askOwner(ctx, &q)
		if err == nil && !elsewhere(codes) {
			return codes, nil
		}
		if !pauseUpTo(ctx, attempt, askPauseMax) {
			return codes, errors.Join(err, context.Cause(ctx))
		}
	}
}

const (
	// askTimeout bounds a question with all its repetitions.
	askTimeout = 5 * time.Second
	// askPauseMax bounds the pause before a coordinator that moves is asked again.
	askPauseMax = 200 * time.Millisecond
	// While a transaction is being ended the next cannot begin. That is soon over
	// (Kafka: add.partitions.to.txn.retry.backoff.ms).
	concurrentRetries = 5
	concurrentPause   = 20 * time.Millisecond
)

// elsewhere tells an answer that depends on who was asked and when. The codes
// of one question agree on that.
func elsewhere(codes []int16) bool {
	for _, code := range codes {
		switch kerr.ErrorForCode(code) {
		case kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable:
			return true
		}
	}
	return false
}

// askConcurrent asks again while the transaction before is being ended.
func (c *Coordinator) askConcurrent(ctx context.Context, q TxnQuestion) ([]int16, error) {
	for retry := 0; ; retry++ {
		codes, err := c.AskTxn(ctx, q)
		if err != nil || !q.Add || retry == concurrentRetries || len(codes) == 0 || codes[0] != kerr.ConcurrentTransactions.Code {
			return codes, err
		}
		select {
		case <-time.After(concurrentPause):
		case <-ctx.Done():
			return codes, nil
		}
	}
}

func (c *Coordinator) askOwner(ctx context.Context, q *TxnQuestion) ([]int16, error) {
	owner, _, ok := c.cfg.View.Coordinator(ShardOf(q.TransactionalID))
	if !ok {
		return nil, ErrNotAvailable
	}
	if owner.Incarnation == c.cfg.Incarnation {
		return c.answer(ctx, q), nil
	}
	b, ok := c.cfg.View.Broker(owner.Incarnation)
	if !ok || c.cfg.Peers == nil {
		return nil, ErrNotAvailable
	}
	resp, err := c.cfg.Peers.Request(ctx, b, askRequest(q))
	if err != nil {
		return nil, err
	}
	return askCodes(q, resp)
}

func askRequest(q *TxnQuestion) *kmsg.AddPartitionsToTxnRequest {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = 5
	t := kmsg.NewAddPartitionsToTxnRequestTransaction()
	t.TransactionalID, t.ProducerID, t.ProducerEpoch, t.VerifyOnly = q.TransactionalID, q.Producer.ID, q.Producer.Epoch, !q.Add
	at := map[string]int{}
	for _, p := range q.Partitions {
		i, ok := at[p.Topic]
		if !ok {
			i = len(t.Topics)
			at[p.Topic] = i
			rt := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
			rt.Topic = p.Topic
			t.Topics = append(t.Topics, rt)
		}
		t.Topics[i].Partitions = append(t.Topics[i].Partitions, p.Partition)
	}
	req.Transactions = append(req.Transactions, t)
	return req
}

func askCodes(q *TxnQuestion, resp kmsg.Response) ([]int16, error) {
	r, ok := resp.(*kmsg.AddPartitionsToTxnResponse)
	if !ok {
		return nil, errors.New("an answer to something else")
	}
	if r.ErrorCode != 0 {
		return nil, kerr.ErrorForCode(r.ErrorCode)
	}
	told := map[TxnTopicPartition]int16{}
	for _, t := range r.Transactions {
		for _, rt := range t.Topics {
			for _, p := range rt.Partitions {
				told[TxnTopicPartition{rt.Topic, p.Partition}] = p.ErrorCode
			}
		}
	}
	codes := make([]int16, len(q.Partitions))
	for i, p := range q.Partitions {
		if codes[i], ok = told[p]; !ok {
			return nil, errors.New("an answer without every partition")
		}
	}
	return codes, nil
}

// answer answers a question of which this broker is the coordinator.
func (c *Coordinator) answer(ctx context.Context, q *TxnQuestion) []int16 {
	codes := make([]int16, len(q.Partitions))
	partitions, known := c.known(q.Partitions, codes)
	if q.Add {
		if !known {
			for i := range codes {
				if codes[i] == 0 {
					codes[i] = kerr.OperationNotAttempted.Code
				}
			}
			return codes
		}
		_, err := c.change(ctx, q.TransactionalID, false, func(t *txn.Txn, _ int64, now time.Time) txn.Step {
			return t.Add(q.Producer, partitions, now)
		})
		for i := range codes {
			codes[i] = code(err)
		}
		return codes
	}
	verdicts := make([]int16, len(codes))
	_, err := c.change(ctx, q.TransactionalID, false, func(t *txn.Txn, _ int64, _ time.Time) txn.Step {
		for i, tp := range partitions {
			verdicts[i] = code(t.Verify(q.Producer, tp))
		}
		return txn.Step{}
	})
	for i := range codes {
		switch {
		case err != nil:
			codes[i] = err.Code
		case codes[i] == 0:
			codes[i] = verdicts[i]
		}
	}
	return codes
}

// known finds the partitions by name; it leaves a code for each that does not
// exist, and reports whether all do.
func (c *Coordinator) known(names []TxnTopicPartition, codes []int16) ([]metadata.TopicPartition, bool) {
	all := true
	out := make([]metadata.TopicPartition, len(names))
	for i, n := range names {
		id, count := offsetsTopicID, int32(metadata.GroupShards)
		if n.Topic != metadata.OffsetsTopic {
			t, ok := c.cfg.View.Topic(n.Topic)
			if !ok {
				codes[i], all = kerr.UnknownTopicOrPartition.Code, false
				continue
			}
			id, count = t.ID, t.Partitions
		}
		if n.Partition < 0 || n.Partition >= count {
			codes[i], all = kerr.UnknownTopicOrPartition.Code, false
		}
		out[i] = metadata.TopicPartition{Topic: id, Partition: n.Partition}
	}
	return out, all
}
