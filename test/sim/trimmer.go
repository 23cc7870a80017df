package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// trimmer deletes records now and then, never more than a part of what is known
// to be committed. What it asked for bounds from above where a log may begin, and
// what it was told bounds it from below: who reads holds what he is told against
// both.
type trimmer struct {
	w          *World
	c          *client
	d          *dice
	partitions int32
}

// trimmed is what is known of a partition's beginning.
type trimmed struct {
	asked int64 // the highest offset below which records were to be deleted
	done  int64 // the highest below which they are
}

func (j *judge) trimmed(partition int32) trimmed {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trims[partition]
}

// began notes where a log is said to begin. least is from before the question; a
// broker that did not have to prove that it leads may tell less.
func (j *judge) began(who, from string, partition int32, start, least int64) {
	if most := j.trimmed(partition).asked; start > most || start < least {
		j.broken("log start", "%s: partition %d begins at %d, says %s; records below %d are deleted, and below %d were to be", who, partition, start, from, least, most)
	}
}

func (t *trimmer) run(ctx context.Context) {
	defer t.c.close()
	for ctx.Err() == nil {
		rest(ctx, t.d.between(300*time.Millisecond, 3*time.Second))
		t.trim(ctx, int32(t.d.n(int(t.partitions))))
	}
}

func (t *trimmer) trim(ctx context.Context, partition int32) {
	l := t.c.leader(ctx, partition)
	if l.addr == "" {
		t.c.refresh(ctx)
		return
	}
	j := t.w.judge
	end, _ := j.known(partition)
	j.mu.Lock()
	before := j.trims[partition]
	to := before.asked + int64(t.d.between(0, time.Duration(max(0, end-before.asked)/2+1)))
	to = min(to, end)
	j.trims[partition] = trimmed{asked: max(before.asked, to), done: before.done}
	j.mu.Unlock()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Version, req.TimeoutMillis = 2, 3000
	req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: t.c.topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition, Offset: to}}}}
	resp, err := request[*kmsg.DeleteRecordsResponse](ctx, t.c, l.addr, req, 4*time.Second)
	if err != nil {
		t.c.mislaid(partition)
		return
	}
	switch got := resp.Topics[0].Partitions[0]; got.ErrorCode {
	case 0:
		j.began(t.c.name, l.addr, partition, got.LowWatermark, to)
		j.mu.Lock()
		now := j.trims[partition]
		now.done = max(now.done, to)
		j.trims[partition] = now
		j.mu.Unlock()
		j.count("trims")
		t.w.note(t.c.name, "deleted", fmt.Sprintf("partition %d below %d", partition, to))
	case kerr.OffsetOutOfRange.Code:
		j.broken("position reset", "%s: records of partition %d below %d, known to be committed, cannot be deleted: out of range at %s", t.c.name, partition, to, l.addr)
	default:
		t.c.mislaid(partition)
	}
}

// listStart asks a leader where a partition begins.
func listStart(ctx context.Context, c *client, l leader, partition int32) (offset int64, ok bool) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 7, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = c.topic
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.Timestamp, part.CurrentLeaderEpoch = partition, -2, -1
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.ListOffsetsResponse](ctx, c, l.addr, req, probeTimeout)
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		return 0, false
	}
	return resp.Topics[0].Partitions[0].Offset, true
}
