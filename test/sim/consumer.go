package sim

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
)

// reader reads one partition from its start, from whoever leads.
type reader struct {
	w         *World
	c         *client
	d         *dice
	name      string
	partition int32
	// knows: it tells the epoch that it believes in.
	knows    bool
	history  *checker.Consumer
	position int64
}

func (r *reader) run(ctx context.Context) {
	defer r.c.close()
	defer r.history.Close()
	for ctx.Err() == nil {
		l := r.c.leader(ctx, r.partition)
		if l.addr == "" || !r.fetch(ctx, l) {
			rest(ctx, r.d.between(50*time.Millisecond, 300*time.Millisecond))
		} else {
			r.w.breathe(ctx, r.d.between(0, r.w.weather.batchPause))
		}
	}
}

// fetchRequest asks one broker for one partition.
func fetchRequest(topic string, partition int32, offset int64, epoch int32, wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 12, int32(wait/time.Millisecond), 1, 1<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.CurrentLeaderEpoch, p.PartitionMaxBytes = partition, offset, epoch, 1<<20
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// fetch reads on, and reports whether the broker served it.
func (r *reader) fetch(ctx context.Context, l leader) bool {
	epoch := int32(-1)
	if r.knows {
		epoch = l.epoch
	}
	poll := r.history.Poll()
	defer poll.Done(nil)
	resp, err := request[*kmsg.FetchResponse](ctx, r.c, l.addr, fetchRequest(r.c.topic, r.partition, r.position, epoch, 500*time.Millisecond), 4*time.Second)
	if err != nil || resp.ErrorCode != 0 || len(resp.Topics) != 1 {
		r.c.mislaid(r.partition)
		return false
	}
	p := &resp.Topics[0].Partitions[0]
	switch {
	case p.ErrorCode == kerr.OffsetOutOfRange.Code:
		r.reset(ctx, l)
		return false
	case p.ErrorCode != 0:
		r.c.mislaid(r.partition)
		return false
	}
	r.take(poll, p, l.addr)
	return true
}

// reset is what a client does when told that its position does not exist: where
// nothing was to be deleted that lies there, the answer is wrong.
func (r *reader) reset(ctx context.Context, l leader) {
	known := r.w.judge.trimmed(r.partition)
	if r.position < known.asked {
		if start, ok := listStart(ctx, r.c, l, r.partition); !ok || start <= r.position {
			r.c.mislaid(r.partition) // answered by one that was the leader a moment ago
		} else {
			r.w.judge.began(r.name, l.addr, r.partition, start, 0)
			r.history.Reset(topicName, r.partition, r.position, start)
			r.position = start
			r.w.judge.count("positions trimmed")
		}
		rest(ctx, 100*time.Millisecond)
		return
	}
	r.w.judge.broken("position reset", "%s: offset %d of partition %d, read up to from leaders, is out of range at %s", r.name, r.position, r.partition, l.addr)
	r.history.Reset(topicName, r.partition, r.position, 0)
	r.position = 0
	r.c.mislaid(r.partition)
	rest(ctx, 100*time.Millisecond)
}

// take takes in what was fetched.
func (r *reader) take(poll *checker.Poll, p *kmsg.FetchResponseTopicPartition, from string) {
	r.w.judge.began(r.name, from, r.partition, p.LogStartOffset, 0)
	poll.Marks(topicName, r.partition, checker.Marks{Start: p.LogStartOffset, LSO: p.LastStableOffset, HW: p.HighWatermark})
	records, err := decodeBatches(p.RecordBatches)
	if err != nil {
		r.w.judge.broken("corrupt", "%s: fetch of partition %d at %d from %s: %v", r.name, r.partition, r.position, from, err)
		return
	}
	for _, rec := range records {
		if rec.offset < r.position {
			continue // of the batch that holds the position
		}
		r.position = rec.offset + 1
		poll.Record(topicName, r.partition, rec.offset, rec.value)
		r.w.judge.saw(r.partition, rec.offset)
		r.w.judge.count("polls")
	}
	if n := len(records); n > 0 {
		r.w.note(r.name, "polled", fmt.Sprintf("partition %d to %d from %s", r.partition, r.position, from))
	}
}

// scan reads the partition to its high watermark, by way of its leaders.
func (r *reader) scan(ctx context.Context, end int64) error {
	for r.position < end {
		if ctx.Err() != nil {
			return fmt.Errorf("scan of partition %d stopped at %d of %d: %w", r.partition, r.position, end, ctx.Err())
		}
		l := r.c.leader(ctx, r.partition)
		if l.addr == "" || !r.fetch(ctx, l) {
			rest(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// prober asks any broker, whether or not it leads, what only a leader may
// answer, and holds the answers against what it knew before it asked.
type prober struct {
	w          *World
	c          *client
	d          *dice
	partitions int32
	probes     int
}

func (p *prober) run(ctx context.Context) {
	defer p.c.close()
	for ctx.Err() == nil {
		partition := int32(p.d.n(int(p.partitions)))
		to := p.c.seeds[p.d.n(len(p.c.seeds))]
		switch p.d.n(3) {
		case 0:
			p.fetch(ctx, to, partition)
		case 1:
			p.list(ctx, to, partition)
		case 2:
			p.epochEnd(ctx, to, partition)
		}
		p.w.breathe(ctx, p.d.between(20*time.Millisecond, 400*time.Millisecond))
	}
}

const probeTimeout = 3 * time.Second

// fetch asks for what was acknowledged last: that exists.
func (p *prober) fetch(ctx context.Context, to string, partition int32) {
	end, _ := p.w.judge.known(partition)
	p.probes++
	history := p.w.judge.history.Consumer(fmt.Sprintf("%s.%d", p.c.name, p.probes), checker.ReadUncommitted, checker.Assigned)
	history.Assign(map[checker.Key]int64{{Topic: topicName, Partition: partition}: end})
	defer history.Close()
	poll := history.Poll()
	defer poll.Done(nil)
	resp, err := request[*kmsg.FetchResponse](ctx, p.c, to, fetchRequest(p.c.topic, partition, end, -1, 100*time.Millisecond), probeTimeout)
	if err != nil || resp.ErrorCode != 0 || len(resp.Topics) != 1 {
		return
	}
	part := &resp.Topics[0].Partitions[0]
	p.w.judge.count("probes")
	if part.ErrorCode == kerr.OffsetOutOfRange.Code {
		p.w.judge.broken("position reset", "%s: offset %d of partition %d, committed before the request, is out of range at %s", p.c.name, end, partition, to)
	}
	if part.ErrorCode == 0 && len(part.RecordBatches) > 0 {
		records, err := decodeBatches(part.RecordBatches)
		if err != nil {
			p.w.judge.broken("corrupt", "%s: fetch of partition %d at %d from %s: %v", p.c.name, partition, end, to, err)
		}
		for _, r := range records {
			if r.offset >= end {
				poll.Record(topicName, partition, r.offset, r.value)
			}
		}
	}
}

// staleness is how far behind an answer may be that names no leader epoch.
const staleness = time.Second

// list asks for the end of the log: beyond everything that was acknowledged
// longer ago than the staleness that is allowed.
func (p *prober) list(ctx context.Context, to string, partition int32) {
	_, old := p.w.judge.known(partition)
	told := p.w.judge.history.ListOffsets(p.c.name, checker.ReadUncommitted)
	offset, code, err := listEnd(ctx, p.c, to, partition)
	if err != nil || code != 0 {
		told.Done(to, nil, cmp.Or(err, error(kerr.ErrorForCode(code))))
		return
	}
	told.Done(to, map[checker.Key]checker.Marks{{Topic: topicName, Partition: partition}: {Start: -1, LSO: -1, HW: offset}}, nil)
	p.w.judge.count("probes")
	if offset < old {
		p.w.judge.broken("stale end", "%s: ListOffsets of partition %d at %s says %d; %d was acknowledged %v before the request", p.c.name, partition, to, offset, old-1, staleness)
	}
}

func listEnd(ctx context.Context, c *client, to string, partition int32) (offset int64, code int16, err error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 7, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = c.topic
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.Timestamp, part.CurrentLeaderEpoch = partition, -1, -1
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.ListOffsetsResponse](ctx, c, to, req, probeTimeout)
	if err != nil {
		return 0, 0, err
	}
	got := resp.Topics[0].Partitions[0]
	return got.Offset, got.ErrorCode, nil
}

// epochEnd asks where an epoch ends: once it is over, always at the same offset.
func (p *prober) epochEnd(ctx context.Context, to string, partition int32) {
	epoch := int32(p.d.n(4))
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.Version, req.ReplicaID = 4, -1
	t := kmsg.NewOffsetForLeaderEpochRequestTopic()
	t.Topic = p.c.topic
	part := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.LeaderEpoch = partition, -1, epoch
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.OffsetForLeaderEpochResponse](ctx, p.c, to, req, probeTimeout)
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		return
	}
	got := resp.Topics[0].Partitions[0]
	p.w.judge.count("probes")
	p.w.judge.epochEnd(p.c.name, to, partition, epoch, got.LeaderEpoch, got.EndOffset)
}

// follow has the reader's history told.
func (r *reader) follow(h *checker.History) {
	modes := []checker.Mode{checker.Assigned}
	if r.knows {
		modes = append(modes, checker.Epochs)
	}
	r.history = h.Consumer(r.name, checker.ReadUncommitted, modes...)
	r.history.Assign(map[checker.Key]int64{{Topic: topicName, Partition: r.partition}: 0})
}
