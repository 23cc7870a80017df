package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
)

// Ends is where every partition of the load ends now.
func (s *Session) Ends(ctx context.Context) (kadm.ListedOffsets, error) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	ends, err := s.admin.ListEndOffsets(ctx, s.topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	return ends, nil
}

// between is how many records lie between two ends.
func between(from, to kadm.ListedOffsets) (n int64) {
	to.Each(func(o kadm.ListedOffset) { n += o.Offset })
	from.Each(func(o kadm.ListedOffset) { n -= o.Offset })
	return n
}

// ProduceTail runs the load for d while every consumer reads all of it. It is
// an error if one does not get exactly what was acknowledged.
func (s *Session) ProduceTail(ctx context.Context, d time.Duration) (*Result, error) {
	from, err := s.Ends(ctx)
	if err != nil {
		return nil, err
	}
	// Consumers stop at a number that is known only when all is acknowledged.
	reading, stop := context.WithCancel(ctx)
	defer stop()
	readers := make([]*reader, s.load.Consumers)
	for i := range readers {
		if readers[i], err = s.reader(from, func(int) bool { return true }); err != nil {
			return nil, err
		}
		defer readers[i].cl.Close()
	}
	g, reading := errgroup.WithContext(reading)
	for _, r := range readers {
		g.Go(func() error { return r.run(reading) })
	}
	if err := sleep(ctx, positionTime); err != nil {
		return nil, err
	}
	start := time.Now()
	result, err := s.Produce(reading, d)
	if err != nil {
		stop()
		return nil, firstError(g.Wait(), err)
	}
	timer := time.AfterFunc(settle, stop)
	defer timer.Stop()
	for _, r := range readers {
		r.want <- result.Produced
	}
	err = g.Wait()
	result.Drained = time.Since(start)
	for _, r := range readers {
		result.Consumed += r.n
		result.EndToEnd.Merge(&r.latency)
		if err == nil && r.n != result.Produced {
			err = fmt.Errorf("a consumer got %d records of %d", r.n, result.Produced)
		}
	}
	return result, err
}

// firstError prefers the error that is not the other's consequence.
func firstError(readers, producers error) error {
	if readers != nil {
		return readers
	}
	return producers
}

// CatchUp reads everything between from and now, the consumers sharing the partitions.
func (s *Session) CatchUp(ctx context.Context, from kadm.ListedOffsets) (*Result, error) {
	to, err := s.Ends(ctx)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, 2*settle)
	defer stop()
	start := time.Now()
	result := &Result{}
	g, ctx := errgroup.WithContext(ctx)
	readers := make([]*reader, s.load.Consumers)
	for i := range readers {
		mine := func(p int) bool { return p%s.load.Consumers == i }
		if readers[i], err = s.reader(from, mine); err != nil {
			return nil, err
		}
		defer readers[i].cl.Close()
		readers[i].want <- between(filter(from, mine), filter(to, mine))
		g.Go(func() error { return readers[i].run(ctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	result.Elapsed = time.Since(start)
	for _, r := range readers {
		result.Consumed += r.n
		result.Bytes += r.bytes
	}
	if want := between(from, to); result.Consumed != want {
		return nil, fmt.Errorf("consumers got %d records of %d", result.Consumed, want)
	}
	return result, nil
}

func filter(offsets kadm.ListedOffsets, mine func(int) bool) kadm.ListedOffsets {
	out := make(kadm.ListedOffsets)
	offsets.Each(func(o kadm.ListedOffset) {
		if mine(int(o.Partition)) {
			if out[o.Topic] == nil {
				out[o.Topic] = make(map[int32]kadm.ListedOffset)
			}
			out[o.Topic][o.Partition] = o
		}
	})
	return out
}

// reader is one consumer.
type reader struct {
	cl      *kgo.Client
	want    chan int64 // gets, once, how many records to stop after
	n       int64
	bytes   int64 // of values
	latency hist.H
}

func (s *Session) reader(from kadm.ListedOffsets, mine func(partition int) bool) (*reader, error) {
	at := make(map[string]map[int32]kgo.Offset)
	filter(from, mine).Each(func(o kadm.ListedOffset) {
		if at[o.Topic] == nil {
			at[o.Topic] = make(map[int32]kgo.Offset)
		}
		at[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset)
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.seeds...), kgo.ConsumePartitions(at),
		kgo.FetchMaxBytes(50<<20), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return nil, err
	}
	return &reader{cl: cl, want: make(chan int64, 1)}, nil
}

// run reads until as many records were read as wanted.
func (r *reader) run(ctx context.Context) error {
	want := int64(-1) // not known yet
	poll, wake := context.WithCancel(ctx)
	defer func() { wake() }()
	told := make(chan int64, 1)
	watch := make(chan struct{})
	defer func() { <-watch }()
	defer func() { wake() }()
	go func() { // ends the poll in progress when the number is known
		defer close(watch)
		select {
		case n := <-r.want:
			told <- n
			wake()
		case <-poll.Done():
		}
	}()
	for want < 0 || r.n < want {
		fetches := r.cl.PollFetches(poll)
		now := time.Now()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("consume: %d records read of %d: %w", r.n, want, err)
		}
		if poll.Err() != nil && want < 0 {
			want = <-told
			poll = ctx
		} else if err := fetches.Err(); err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		fetches.EachRecord(func(rec *kgo.Record) { r.take(rec, now) })
	}
	return nil
}

func (r *reader) take(rec *kgo.Record, now time.Time) {
	r.n++
	r.bytes += int64(len(rec.Value))
	if len(rec.Key) == 8 {
		due := time.Unix(0, int64(binary.BigEndian.Uint64(rec.Key)))
		r.latency.Record(now.Sub(due))
	}
}
