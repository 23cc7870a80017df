package peer

import (
	"fmt"

	"github.com/tidemark-io/tidemark/broker/cluster/peer/peerpb"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

func topicPartition(topic []byte, partition int32) (metadata.TopicPartition, error) {
	var tp metadata.TopicPartition
	if len(topic) != len(tp.Topic) || partition < 0 {
		return tp, fmt.Errorf("partition %d of a topic id of %d bytes", partition, len(topic))
	}
	copy(tp.Topic[:], topic)
	tp.Partition = partition
	return tp, nil
}

func ownedToWire(parts []tiering.Claim) []*peerpb.OwnedPartition {
	out := make([]*peerpb.OwnedPartition, len(parts))
	for i := range parts {
		p := &parts[i]
		out[i] = &peerpb.OwnedPartition{Topic: p.Partition.Topic[:], Partition: p.Partition.Partition, Epoch: p.Epoch}
	}
	return out
}

func ownedFromWire(in []*peerpb.OwnedPartition) ([]tiering.Claim, error) {
	out := make([]tiering.Claim, len(in))
	for i, p := range in {
		tp, err := topicPartition(p.GetTopic(), p.GetPartition())
		if err != nil {
			return nil, err
		}
		out[i] = tiering.Claim{Partition: tp, Epoch: p.GetEpoch()}
	}
	return out, nil
}

func releasedToWire(parts []tiering.Released) []*peerpb.ReleasedPartition {
	out := make([]*peerpb.ReleasedPartition, len(parts))
	for i := range parts {
		p := &parts[i]
		out[i] = &peerpb.ReleasedPartition{
			Topic: p.Partition.Topic[:], Partition: p.Partition.Partition, Epoch: p.Epoch, Slot: p.Slot,
		}
	}
	return out
}

func releasedFromWire(in []*peerpb.ReleasedPartition) ([]tiering.Released, error) {
	out := make([]tiering.Released, len(in))
	for i, p := range in {
		tp, err := topicPartition(p.GetTopic(), p.GetPartition())
		if err != nil {
			return nil, err
		}
		out[i] = tiering.Released{Claim: tiering.Claim{Partition: tp, Epoch: p.GetEpoch()}, Slot: p.GetSlot()}
	}
	return out, nil
}
