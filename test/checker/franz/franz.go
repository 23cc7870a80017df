// Package franz tells a checker.History what franz-go clients do and see. Each
// function makes one call of a client and records it, from the invocation to
// the outcome; what is done in between, and how often, is up to the test.
package franz

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/checker"
)

// Produce sends one record of size bytes to a partition; the client's partitioner
// must be kgo.ManualPartitioner. done, which may be nil, is called like kgo's
// promise. ctx is the record's: once it is sent it is delivered whatever happens.
func Produce(ctx context.Context, cl *kgo.Client, p *checker.Producer, topic string, partition int32, size int, done func(*kgo.Record, error)) {
	Send(ctx, cl, p.Send(topic, partition), topic, partition, size, done)
}

// Send is Produce of a record that was begun already, in a transaction.
func Send(ctx context.Context, cl *kgo.Client, s *checker.Send, topic string, partition int32, size int, done func(*kgo.Record, error)) {
	cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: partition, Value: s.Bytes(size)}, func(r *kgo.Record, err error) {
		s.Done(r.Offset, err)
		if done != nil {
			done(r, err)
		}
	})
}

// Assign is the options of a consumer that reads partitions from their offset 0
// on and never lets its position be reset, and tells so.
func Assign(c *checker.Consumer, topic string, partitions int32) []kgo.Opt {
	told, offsets := make(map[checker.Key]int64), make(map[int32]kgo.Offset)
	for p := range partitions {
		told[checker.Key{Topic: topic, Partition: p}] = 0
		offsets[p] = kgo.NewOffset().At(0)
	}
	c.Assign(told)
	return []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}), kgo.ConsumeResetOffset(kgo.NoResetOffset())}
}

// Poll polls once and records what came. Errors that concern positions are told
// as resets; what else the fetches hold is for the caller.
func Poll(ctx context.Context, cl *kgo.Client, c *checker.Consumer) kgo.Fetches {
	return told(c, c.Poll(), func() kgo.Fetches { return cl.PollFetches(ctx) })
}

// PollIn is Poll as part of a transaction, of at most so many records.
func PollIn(ctx context.Context, cl *kgo.Client, c *checker.Consumer, t *checker.Txn, most int) kgo.Fetches {
	return told(c, c.Poll().In(t), func() kgo.Fetches { return cl.PollRecords(ctx, most) })
}

func told(c *checker.Consumer, p *checker.Poll, poll func() kgo.Fetches) kgo.Fetches {
	fetches := poll()
	fetches.EachPartition(func(t kgo.FetchTopicPartition) {
		if len(t.Records) == 0 {
			return
		}
		for _, r := range t.Records {
			p.Record(r.Topic, r.Partition, r.Offset, r.Value)
		}
		p.Marks(t.Topic, t.Partition, checker.Marks{Start: t.LogStartOffset, LSO: t.LastStableOffset, HW: t.HighWatermark})
	})
	p.Done(nil)
	for _, e := range fetches.Errors() {
		var lost *kgo.ErrDataLoss
		switch {
		case errors.As(e.Err, &lost):
			c.Reset(e.Topic, e.Partition, lost.ConsumedTo, lost.ResetTo)
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			c.Reset(e.Topic, e.Partition, -1, -1)
		}
	}
	return fetches
}
