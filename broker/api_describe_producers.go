package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// describeProducers tells of the producers of partitions that this broker leads:
// what is needed to find a transaction that hangs, and to end it.
func (s *Server) describeProducers(ctx context.Context, r *Request, req *kmsg.DescribeProducersRequest) kmsg.Response {
	open, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	resp := kmsg.NewPtrDescribeProducersResponse()
	for i := range req.Topics {
		t := kmsg.NewDescribeProducersResponseTopic()
		t.Topic = req.Topics[i].Topic
		topic, err := s.resolve(false, metadata.TopicID{}, t.Topic)
		for _, partition := range req.Topics[i].Partitions {
			p := kmsg.NewDescribeProducersResponseTopicPartition()
			p.Partition = partition
			var list []tiering.ProducerState
			perr := err
			if perr == nil {
				list, perr = s.producersOf(ctx, open, topic, partition)
			}
			if perr != nil {
				p.ErrorCode, p.ErrorMessage = r.code(perr), errorText(perr)
			}
			for _, state := range list {
				p.ActiveProducers = append(p.ActiveProducers, activeProducer(state))
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (s *Server) producersOf(ctx, open context.Context, t *metadata.Topic, partition int32) ([]tiering.ProducerState, error) {
	part, err := s.partition(open, t, partition, -1)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Log.Check(ctx, authorityMax); err != nil {
		return nil, err
	}
	return part.Producers(), nil
}

func activeProducer(p tiering.ProducerState) kmsg.DescribeProducersResponseTopicPartitionActiveProducer {
	out := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
	out.ProducerID, out.ProducerEpoch, out.LastSequence, out.LastTimestamp = p.ID, int32(p.Epoch), p.LastSequence, p.LastTimestamp
	out.CoordinatorEpoch, out.CurrentTxnStartOffset = p.CoordinatorEpoch, p.TxnStart
	return out
}
