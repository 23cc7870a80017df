package coordinator

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// fencedCode is the code for err as clients of a version know it: a fenced
// producer was one with an invalid epoch before since.
func fencedCode(err *kerr.Error, version, since int16) int16 {
	if err == kerr.ProducerFenced && version < since {
		err = kerr.InvalidProducerEpoch
	}
	return code(err)
}

// InitProducerID gives a transactional id to a new instance of its producer, or
// raises the epoch of the one that asks.
func (c *Coordinator) InitProducerID(ctx context.Context, _ ClientInfo, req *kmsg.InitProducerIDRequest) *kmsg.InitProducerIDResponse {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.Version = req.Version
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	t, err := c.initProducer(ctx, req)
	if err != nil {
		resp.ErrorCode = fencedCode(err, req.Version, 4)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = t.Producer.ID, t.Producer.Epoch
	return resp
}

func (c *Coordinator) initProducer(ctx context.Context, req *kmsg.InitProducerIDRequest) (*txn.Txn, *kerr.Error) {
	known := txn.Nobody
	if req.Version >= 3 {
		known = txn.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	}
	timeout := time.Duration(req.TransactionTimeoutMillis) * time.Millisecond
	switch {
	case req.TransactionalID == nil || (known.ID == -1) != (known.Epoch == -1):
		return nil, kerr.InvalidRequest
	case timeout <= 0 || timeout > c.cfg.TransactionTimeoutMax:
		return nil, kerr.InvalidTransactionTimeout
	}
	return c.change(ctx, *req.TransactionalID, true, func(t *txn.Txn, fresh int64, now time.Time) txn.Step {
		return t.Init(known, timeout, fresh, now)
	})
}

// addedAtOnce bounds the transactions of one request that are served at a time.
const addedAtOnce = 8

// AddPartitionsToTxn takes partitions into a transaction, for its producer or,
// since version 4, into many for other brokers.
func (c *Coordinator) AddPartitionsToTxn(ctx context.Context, _ ClientInfo, req *kmsg.AddPartitionsToTxnRequest) *kmsg.AddPartitionsToTxnResponse {
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	resp.Version = req.Version
	if req.Version < 4 {
		resp.Topics = c.addOld(ctx, req)
		return resp
	}
	resp.Transactions = make([]kmsg.AddPartitionsToTxnResponseTransaction, len(req.Transactions))
	var g errgroup.Group
	g.SetLimit(addedAtOnce)
	for i := range req.Transactions {
		g.Go(func() error {
			resp.Transactions[i] = c.addOne(ctx, &req.Transactions[i])
			return nil
		})
	}
	_ = g.Wait() // none of them fails
	return resp
}

func (c *Coordinator) addOld(ctx context.Context, req *kmsg.AddPartitionsToTxnRequest) []kmsg.AddPartitionsToTxnResponseTopic {
	q := TxnQuestion{TransactionalID: req.TransactionalID, Producer: txn.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}, Add: true}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			q.Partitions = append(q.Partitions, TxnTopicPartition{t.Topic, p})
		}
	}
	codes, n := c.answer(ctx, &q), 0
	var topics []kmsg.AddPartitionsToTxnResponseTopic
	for _, t := range req.Topics {
		rt := kmsg.NewAddPartitionsToTxnResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p, codes[n]
			switch {
			case codes[n] == kerr.ProducerFenced.Code && req.Version < 2:
				rp.ErrorCode = kerr.InvalidProducerEpoch.Code
			case codes[n] == kerr.TransactionAbortable.Code:
				rp.ErrorCode = kerr.InvalidTxnState.Code
			}
			rt.Partitions = append(rt.Partitions, rp)
			n++
		}
		topics = append(topics, rt)
	}
	return topics
}

func (c *Coordinator) addOne(ctx context.Context, req *kmsg.AddPartitionsToTxnRequestTransaction) kmsg.AddPartitionsToTxnResponseTransaction {
	q := TxnQuestion{TransactionalID: req.TransactionalID, Producer: txn.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}, Add: !req.VerifyOnly}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			q.Partitions = append(q.Partitions, TxnTopicPartition{t.Topic, p})
		}
	}
	codes, n := c.answer(ctx, &q), 0
	resp := kmsg.NewAddPartitionsToTxnResponseTransaction()
	resp.TransactionalID = req.TransactionalID
	for _, t := range req.Topics {
		rt := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
			rp.Partition, rp.ErrorCode = p, codes[n]
			rt.Partitions = append(rt.Partitions, rp)
			n++
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// AddOffsetsToTxn takes a group's partition of __consumer_offsets into a
// transaction.
func (c *Coordinator) AddOffsetsToTxn(ctx context.Context, _ ClientInfo, req *kmsg.AddOffsetsToTxnRequest) *kmsg.AddOffsetsToTxnResponse {
	resp := kmsg.NewPtrAddOffsetsToTxnResponse()
	resp.Version = req.Version
	err := checkGroupID(req.Group, false)
	if err == nil {
		partition := []metadata.TopicPartition{{Topic: offsetsTopicID, Partition: int32(ShardOf(req.Group))}}
		_, err = c.change(ctx, req.TransactionalID, false, func(t *txn.Txn, _ int64, now time.Time) txn.Step {
			return t.Add(txn.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}, partition, now)
		})
	}
	if err == kerr.TransactionAbortable {
		err = kerr.InvalidTxnState
	}
	resp.ErrorCode = fencedCode(err, req.Version, 2)
	return resp
}

// bumpVersion is the first version of EndTxn that raises the producer's epoch
// (KIP-890).
const bumpVersion = 5

// EndTxn commits or aborts a transaction. It answers once the outcome is stored,
// when nothing can change it any more; the markers follow.
func (c *Coordinator) EndTxn(ctx context.Context, _ ClientInfo, req *kmsg.EndTxnRequest) *kmsg.EndTxnResponse {
	resp := kmsg.NewPtrEndTxnResponse()
	resp.Version = req.Version
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	version := txn.V1
	if req.Version >= bumpVersion {
		version = txn.V2
	}
	t, err := c.change(ctx, req.TransactionalID, false, func(t *txn.Txn, fresh int64, now time.Time) txn.Step {
		return t.End(txn.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}, req.Commit, version, fresh, now)
	})
	if err != nil {
		resp.ErrorCode = fencedCode(err, req.Version, 2)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = t.Told().ID, t.Told().Epoch
	return resp
}
