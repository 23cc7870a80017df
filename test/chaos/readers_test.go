package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/checker/franz"
)

const (
	group        = "chaos-group"
	groupMembers = 2
	// loneGroups are groups without members, whose offsets one client commits
	// and another reads. Their names fall on different shards.
	loneGroups = 3
	askEvery   = 200 * time.Millisecond
)

func (l *load) startReaders(ctx context.Context) {
	l.reading.Go(func() { l.readAssigned(ctx) })
	for i := range groupMembers {
		l.join(ctx, fmt.Sprintf("member-%d", i))
	}
	l.reading.Go(func() { l.askWatermarks(ctx) })
	if l.o.reread {
		l.reading.Go(func() { l.rereadAll(ctx) })
	}
	for i := range loneGroups {
		g := fmt.Sprintf("lone-%d", i)
		l.reading.Go(func() { l.commitAlone(ctx, g) })
		l.reading.Go(func() { l.askCommitted(ctx, g) })
	}
	l.reading.Go(func() { l.askCommitted(ctx, group) })
}

// readAssigned reads everything and never resets its position.
func (l *load) readAssigned(ctx context.Context) {
	c := l.r.history.Consumer("reader", checker.ReadUncommitted, checker.Assigned, checker.Epochs)
	cl := l.r.client(franz.Assign(c, topic, l.o.partitions)...)
	defer c.Close()
	for ctx.Err() == nil {
		l.poll(ctx, func(ctx context.Context) kgo.Fetches { return franz.Poll(ctx, cl, c) })
	}
}

// poll is one call of a consumer, and notes what it should not have met.
func (l *load) poll(ctx context.Context, once func(context.Context) kgo.Fetches) kgo.Fetches {
	waiting, cancel := context.WithTimeout(ctx, askEvery)
	defer cancel()
	fetches := once(waiting)
	for _, e := range fetches.Errors() {
		if waiting.Err() == nil && !transient(e.Err) {
			l.failed(fmt.Errorf("fetch of partition %d: %w", e.Partition, e.Err))
		}
	}
	return fetches
}

// rereadAll reads the log from its beginning to where it was a while ago, over
// and over, each time as a new consumer.
func (l *load) rereadAll(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		l.rereadOnce(ctx, fmt.Sprintf("rereader-%d", n))
		sleep(ctx, pick(rereadPause, 10*rereadPause)) // what is read is kept in memory
	}
}

const (
	rereadPause = 500 * time.Millisecond
	rereadMax   = 10 * time.Second
)

func (l *load) rereadOnce(ctx context.Context, who string) {
	c := l.r.history.Consumer(who, checker.ReadUncommitted, checker.Assigned, checker.Epochs)
	cl := l.r.newClient(franz.Assign(c, topic, l.o.partitions)...)
	defer cl.Close()
	defer c.Close()
	left := make(map[int32]int64)
	for p := range l.o.partitions {
		left[p] = l.lastAcked(p)
	}
	for end := time.Now().Add(rereadMax); ctx.Err() == nil && len(left) > 0 && time.Now().Before(end); {
		fetches := l.poll(ctx, func(ctx context.Context) kgo.Fetches { return franz.Poll(ctx, cl, c) })
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
		})
	}
}

// join runs a member of the group, which polls and commits.
func (l *load) join(ctx context.Context, name string) {
	m, err := franz.Join(l.r.history, name, group, topic, l.r.options(kgo.Balancers(kgo.RangeBalancer()),
		kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(time.Second), kgo.RebalanceTimeout(10*time.Second))...)
	if err != nil {
		l.r.t.Fatal(err)
	}
	l.reading.Go(func() {
		defer m.Close()
		for ctx.Err() == nil {
			l.poll(ctx, m.Poll)
			commit, cancel := context.WithTimeout(ctx, callTimeout)
			_ = m.Commit(commit) // its outcome is in the history
			cancel()
		}
	})
}

// commitAlone commits rising offsets for a group without members.
func (l *load) commitAlone(ctx context.Context, group string) {
	cl := l.r.client()
	for n := int64(1); ctx.Err() == nil; n++ {
		l.commit(ctx, cl, group, map[int32]int64{0: n, 1: n})
		sleep(ctx, askEvery/2)
	}
}

// commit sends one OffsetCommit of nobody.
func (l *load) commit(ctx context.Context, cl *kgo.Client, group string, next map[int32]int64) {
	offsets := make(map[checker.Key]int64)
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	for p, offset := range next {
		offsets[checker.Key{Topic: topic, Partition: p}] = offset
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset = p, offset
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	// The client tries again by itself, so an error tells only of the last try.
	call := l.r.history.OffsetCommit("committer of "+group, group, "", -1, offsets).Retried()
	waiting, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := req.RequestWith(waiting, cl)
	if err == nil {
		err = commitErr(resp)
	}
	call.Done("", err)
}

// commitErr is the error of a commit, which must be one for all partitions.
func commitErr(resp *kmsg.OffsetCommitResponse) error {
	var codes []int16
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if !slices.Contains(codes, p.ErrorCode) {
				codes = append(codes, p.ErrorCode)
			}
		}
	}
	if len(codes) != 1 {
		return fmt.Errorf("partitions of one commit were answered %v", codes)
	}
	return kerr.ErrorForCode(codes[0])
}

// askCommitted reads a group's offsets again and again.
func (l *load) askCommitted(ctx context.Context, group string) {
	cl := l.r.client()
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, callTimeout)
		_ = franz.Fetch(waiting, cl, l.r.history, "fetcher of "+group, group, topic, l.o.partitions) // it is in the history
		cancel()
		sleep(ctx, askEvery)
	}
}

// askWatermarks asks for the bounds of all partitions again and again.
func (l *load) askWatermarks(ctx context.Context) {
	cl := l.r.client()
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, callTimeout)
		for _, what := range []franz.What{franz.Ends, franz.Stable, franz.Starts} {
			_, _ = franz.List(waiting, cl, l.r.history, "lister", topic, what) // it is in the history
		}
		cancel()
		sleep(ctx, askEvery)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
