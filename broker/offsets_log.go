package broker

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// offsetsRetention is how long __consumer_offsets keeps records. It is more than
// twice the time after which everything is copied again, so that a reader that
// begins at its start finds every offset.
const offsetsRetention = 24 * time.Hour

// OffsetsLog is the topic __consumer_offsets in the log. Its partitions are the
// shards of the groups, and the controller has each led by its coordinator.
type OffsetsLog struct {
	Log  Log
	View View
	KV   metadata.KV
}

var _ coordinator.OffsetsLog = OffsetsLog{}

var offsetsTopicID = metadata.InternalTopicID(metadata.OffsetsTopic)

// Create makes the topic if it does not exist.
func (o OffsetsLog) Create(ctx context.Context) error {
	if _, ok := o.View.TopicByID(offsetsTopicID); ok {
		return nil
	}
	_, _, err := metadata.CreateTopic(ctx, o.KV, metadata.TopicSpec{
		Name: metadata.OffsetsTopic, ID: offsetsTopicID, Partitions: metadata.GroupShards, ReplicationFactor: 1,
		Configs: map[string]string{
			"cleanup.policy": "delete",
			"retention.ms":   strconv.FormatInt(offsetsRetention.Milliseconds(), 10),
		},
		Preferred: func(partition int32) metadata.Incarnation {
			c, _, _ := o.View.Coordinator(int(partition))
			return c.Incarnation
		},
	})
	if errors.Is(err, metadata.ErrTopicExists) {
		return nil
	}
	return err
}

func (o OffsetsLog) partition(shard int) (Partition, error) {
	return o.Log.Partition(metadata.TopicPartition{Topic: offsetsTopicID, Partition: int32(shard)})
}

// Led returns the epoch in which this broker leads the shard's partition.
func (o OffsetsLog) Led(shard int) (int32, bool) {
	p, err := o.partition(shard)
	if err != nil {
		return 0, false
	}
	return p.LeaderEpoch(), true
}

// Append appends a record batch to the shard's partition.
func (o OffsetsLog) Append(ctx context.Context, shard int, records []byte) error {
	p, err := o.partition(shard)
	if err != nil {
		return err
	}
	release, err := o.Log.Admit(ctx, len(records))
	if err != nil {
		return err
	}
	defer release()
	h, err := batch.Parse(records)
	if err != nil {
		return err
	}
	_, err = p.Append(records, h, time.Now().UnixMilli(), false)
	return err
}
