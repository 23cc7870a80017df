package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// txnAddVersion is the first version of Produce that adds a partition to the
// transaction; before, clients do, and the leader verifies that they did.
const txnAddVersion = 12

// enlistment is what came of verifying the partitions of a produce request. nil
// is that of a request without a transaction.
type enlistment struct {
	parts [][]enlisted // in the shape of the request; the partition is nil where there is nothing to verify
}

// enlisted is a partition whose transactional batch may be appended under a guard,
// or without one, or not at all.
type enlisted struct {
	part  Partition
	guard *tiering.TxnGuard
	err   error
	name  TxnPartition
}

func (e *enlistment) at(i, j int) *enlisted {
	if e == nil || e.parts[i] == nil {
		return nil
	}
	p := &e.parts[i][j]
	if p.part == nil && p.err == nil {
		return nil
	}
	return p
}

func (e *enlisted) held() *tiering.TxnGuard {
	if e == nil {
		return nil
	}
	return e.guard
}

// release gives the guards back.
func (e *enlistment) release() {
	if e == nil {
		return
	}
	for _, topic := range e.parts {
		for i := range topic {
			if topic[i].guard != nil {
				topic[i].part.UnguardTxn(topic[i].guard)
			}
		}
	}
}

// enlist has the coordinator verify that the partitions of a transactional
// request are part of the producer's transaction, or add them, where no batch of
// it has been written to them yet. What else is wrong with the batches is found
// later.
func (s *Server) enlist(ctx context.Context, req *kmsg.ProduceRequest, deadline time.Time) *enlistment {
	if req.TransactionID == nil || s.cfg.Txns == nil || req.Version < 3 {
		return nil
	}
	e := &enlistment{parts: make([][]enlisted, len(req.Topics))}
	open, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	t := TxnPartitions{TransactionalID: *req.TransactionID, ProducerID: -1, Add: req.Version >= txnAddVersion}
	var ask []*enlisted
	for i := range req.Topics {
		e.parts[i] = make([]enlisted, len(req.Topics[i].Partitions))
		for j := range req.Topics[i].Partitions {
			p := &e.parts[i][j]
			s.guard(open, req, i, j, p, &t)
			if p.guard != nil && p.err == nil {
				ask = append(ask, p)
			}
		}
	}
	if len(ask) == 0 {
		return e
	}
	guards := make([]*tiering.TxnGuard, len(ask))
	for n, p := range ask {
		guards[n] = p.guard
		t.Partitions = append(t.Partitions, p.name)
	}
	ctx, cancelAsk := context.WithDeadline(ctx, deadline)
	defer cancelAsk()
	codes, errs := s.txns.verify(ctx, t, guards)
	for n, p := range ask {
		p.err = verifyError(codes[n], errs[n], req.Version)
	}
	return e
}

// guard finds the partition of one batch and, if its transaction is not open
// there, takes a guard. A request speaks of one producer.
func (s *Server) guard(open context.Context, req *kmsg.ProduceRequest, i, j int, p *enlisted, t *TxnPartitions) {
	topic := &req.Topics[i]
	h, err := batch.Parse(topic.Partitions[j].Records)
	if err != nil || !h.Transactional() || h.ProducerID < 0 || h.ProducerEpoch < 0 {
		return
	}
	if t.ProducerID < 0 {
		t.ProducerID, t.ProducerEpoch = h.ProducerID, h.ProducerEpoch
	}
	if t.ProducerID != h.ProducerID || t.ProducerEpoch != h.ProducerEpoch {
		p.err = refuse(kerr.InvalidProducerIDMapping, "transactional records of more than one producer")
		return
	}
	found, err := s.resolve(req.Version >= 13, topic.TopicID, topic.Topic)
	if err != nil || isInternal(found.Name) {
		return
	}
	part, err := s.partition(open, found, topic.Partitions[j].Partition, -1)
	if err != nil {
		p.err = err
		return
	}
	p.part, p.name = part, TxnPartition{Topic: found.Name, Partition: topic.Partitions[j].Partition}
	p.guard, p.err = part.GuardTxn(h.ProducerID, h.ProducerEpoch, t.Add)
}
