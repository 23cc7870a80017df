package broker

import (
	"context"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/txn"
)

// txnAsker is the coordinators of transactions as those whom partitions are
// verified with.
type txnAsker struct{ c TransactionCoordinator }

var _ TxnVerifier = txnAsker{}

// Verify implements TxnVerifier.
func (a txnAsker) Verify(ctx context.Context, t TxnPartitions) ([]int16, error) {
	q := coordinator.TxnQuestion{
		TransactionalID: t.TransactionalID, Producer: txn.Producer{ID: t.ProducerID, Epoch: t.ProducerEpoch}, Add: t.Add,
		Partitions: make([]coordinator.TxnTopicPartition, len(t.Partitions)),
	}
	for i, p := range t.Partitions {
		q.Partitions[i] = coordinator.TxnTopicPartition(p)
	}
	return a.c.AskTxn(ctx, q)
}

// txnTable is the part of the table that the coordinator of transactions serves.
func (s *Server) txnTable() []*api {
	t := s.cfg.Transactions
	if t == nil {
		return nil
	}
	return []*api{
		// Of other brokers, which ask about many transactions over one connection.
		{key: 24, min: 0, max: 5, start: grouped(t.AddPartitionsToTxn)},
		{key: 25, min: 0, max: 4, lane: changes, start: grouped(t.AddOffsetsToTxn)},
		{key: 26, min: 0, max: 5, lane: changes, start: grouped(t.EndTxn)},
		{key: 28, min: 0, max: 6, lane: changes, start: grouped(t.TxnOffsetCommit)},
		{key: 65, min: 0, max: 0, start: grouped(t.DescribeTransactions), bound: true},
		{key: 66, min: 0, max: 2, start: grouped(t.ListTransactions), bound: true},
	}
}
