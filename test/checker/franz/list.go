package franz

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/checker"
)

// List asks for the high watermarks, last stable offsets or log starts of a
// topic, as one of Ends, Stable and Starts says.
func List(ctx context.Context, cl *kgo.Client, h *checker.History, proc, topic string, what What) (map[int32]int64, error) {
	adm, isol := kadm.NewClient(cl), checker.ReadUncommitted
	ask := adm.ListEndOffsets
	switch what {
	case Stable:
		ask, isol = adm.ListCommittedOffsets, checker.ReadCommitted
	case Starts:
		ask = adm.ListStartOffsets
	}
	call := h.ListOffsets(proc, isol)
	listed, err := ask(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	told, offsets := make(map[checker.Key]checker.Marks), make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			offsets[o.Partition] = o.Offset
			told[checker.Key{Topic: o.Topic, Partition: o.Partition}] = what.marks(o.Offset)
		}
	})
	if len(told) > 0 {
		call.Done("", told, nil) // what was answered is judged, whatever failed beside it
	} else {
		call.Done("", nil, errors.Join(err, errNothing))
	}
	return offsets, err
}

var errNothing = errors.New("no partition answered")

// What is asked of ListOffsets.
type What int

// What can be asked.
const (
	Ends What = iota
	Stable
	Starts
)

func (w What) marks(offset int64) checker.Marks {
	m := checker.NoMarks
	switch w {
	case Ends:
		m.HW = offset
	case Stable:
		m.LSO = offset
	case Starts:
		m.Start = offset
	}
	return m
}

// Scan reads a topic from its log starts to its high watermarks with a fresh
// client of one broker, named node, and records all of it.
func Scan(ctx context.Context, h *checker.History, proc, node, addr, topic string, opts ...kgo.Opt) error {
	return scan(ctx, h.Scanner(proc, node, checker.ReadUncommitted), Ends, node, addr, topic, opts)
}

// ScanCommitted is Scan of what is committed, up to the last stable offsets. No
// transaction may be open: where one holds them back, what lies just before may
// be nothing that is ever read.
func ScanCommitted(ctx context.Context, h *checker.History, proc, node, addr, topic string, opts ...kgo.Opt) error {
	opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	return scan(ctx, h.Scanner(proc, node, checker.ReadCommitted), Stable, node, addr, topic, opts)
}

func scan(ctx context.Context, c *checker.Consumer, to What, node, addr, topic string, opts []kgo.Opt) error {
	defer c.Close()
	opts = append(opts, kgo.SeedBrokers(addr), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords()) // the last one may be a marker
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	poll := c.Poll()
	left, err := bounds(ctx, cl, topic, to, poll)
	poll.Done(err)
	if err != nil {
		return fmt.Errorf("scan %s at %s: %w", topic, node, err)
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: left.starts})
	for len(left.ends) > 0 {
		poll := c.Poll()
		fetches := cl.PollFetches(ctx)
		if err := failure(ctx, fetches); err != nil {
			poll.Done(err)
			return fmt.Errorf("scan %s at %s: %w", topic, node, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left.ends[r.Partition]; ok && r.Offset < end {
				if !r.Attrs.IsControl() {
					poll.Record(r.Topic, r.Partition, r.Offset, r.Value)
				}
				if r.Offset == end-1 {
					delete(left.ends, r.Partition)
				}
			}
		})
		poll.Done(nil)
	}
	return nil
}

type unread struct {
	starts map[int32]kgo.Offset
	ends   map[int32]int64 // of partitions that are not read yet
}

// bounds asks where the log begins and ends, as often as clients do whose
// partitions' leaders are just moving.
func bounds(ctx context.Context, cl *kgo.Client, topic string, to What, poll *checker.Poll) (unread, error) {
	adm := kadm.NewClient(cl)
	ask := adm.ListEndOffsets
	if to == Stable {
		ask = adm.ListCommittedOffsets
	}
	for {
		starts, err := adm.ListStartOffsets(ctx, topic)
		if err == nil {
			err = starts.Error()
		}
		var ends kadm.ListedOffsets
		if err == nil {
			if ends, err = ask(ctx, topic); err == nil {
				err = ends.Error()
			}
		}
		if err == nil {
			return between(topic, starts, ends, to, poll), nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return unread{}, errors.Join(err, ctx.Err())
		}
	}
}

func between(topic string, starts, ends kadm.ListedOffsets, to What, poll *checker.Poll) unread {
	u := unread{starts: make(map[int32]kgo.Offset), ends: make(map[int32]int64)}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		marks := to.marks(end.Offset)
		marks.Start = start.Offset
		poll.Marks(topic, end.Partition, marks)
		if end.Offset > start.Offset {
			u.starts[end.Partition], u.ends[end.Partition] = kgo.NewOffset().At(start.Offset), end.Offset
		}
	})
	return u
}

// failure is an error that a scan cannot go on after.
func failure(ctx context.Context, fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		if ctx.Err() != nil || !Transient(e.Err) {
			return fmt.Errorf("partition %d: %w", e.Partition, e.Err)
		}
	}
	return nil
}
