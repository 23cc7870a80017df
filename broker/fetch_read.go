package broker

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/cache/flow"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/seeded"
)

const (
	// authorityMax is how old the proof of leadership behind an answer "there
	// is nothing more" may be.
	authorityMax = time.Second
	// fetchFloor is what a fetch is content with when memory is short.
	fetchFloor = 1 << 20
	// fetchSlack is taken beyond what is estimated, as batches are read whole.
	fetchSlack = 64 << 10
	// fetchReaders is how many partitions of a fetch are read from the bucket at once.
	fetchReaders = 8
)

// budget takes memory for the response from what all fetches share, of which
// those that are behind get half. It returns the bytes that may be read.
func (f *fetch) budget(ctx context.Context) (int, error) {
	n := f.need(int64(max(0, min(f.req.MaxBytes, f.s.cfg.FetchBytesMax))))
	if f.behind() {
		f.shares = append(f.shares, f.s.behindBytes)
	}
	f.shares = append(f.shares, f.s.fetchBytes)
	for i, share := range f.shares {
		if share.TryAcquire(n) {
			continue
		}
		less := min(n, fetchFloor)
		for _, taken := range f.shares[:i] {
			taken.Release(n - less)
		}
		n = less
		if err := share.Acquire(ctx, n); err != nil {
			for _, taken := range f.shares[:i] {
				taken.Release(n)
			}
			f.shares = nil
			return 0, err
		}
	}
	return int(n), nil
}

// giveBack returns n bytes to what all fetches share.
func (f *fetch) giveBack(n int64) {
	for _, share := range f.shares {
		share.Release(n)
	}
}

// behind reports whether something that is asked for has left memory.
func (f *fetch) behind() bool {
	any := false
	for i := range f.want {
		w := &f.want[i]
		w.behind = w.err == nil && w.part.Behind(w.FetchOffset)
		any = any || w.behind
	}
	return any
}

// need is about how many bytes there are to read, at most limit. Memory is kept
// until the response is sent, so what a fetch may use at most would let a few
// slow readers keep out everybody who is at the end of the log.
func (f *fetch) need(limit int64) int64 {
	n := min(fetchSlack, limit)
	for i := range f.want {
		if w := &f.want[i]; w.err == nil {
			w.expected = f.available(w)
			n = min(n+w.expected, limit)
		}
	}
	return n
}

// readAll reads the partitions in order until the response is full, several at
// once as far as they fit in. The first that has anything yields at least one
// batch, so that a batch above the limits is not a dead end.
func (f *fetch) readAll(ctx context.Context) {
	granted, err := f.budget(ctx)
	if err != nil {
		for i := range f.want {
			f.want[i].err = err
		}
		return
	}
	if f.r.conn != nil {
		ctx = flow.WithReader(ctx, f.r.conn)
	}
	left, first := granted, true
	for i := 0; i < len(f.want); {
		n := f.fitting(i, left)
		read := f.readSome(ctx, f.want[i:i+n], left, first)
		left, first = max(0, left-read), first && read == 0
		i += n
	}
	if first {
		f.readLarge(ctx)
	}
	f.settle(ctx, int64(granted))
	f.prove(ctx)
}

// fitting is how many partitions from i on, at least one, may be read at once: as
// far as is known, what there is to read of them fits in left.
func (f *fetch) fitting(i, left int) int {
	n := 1
	for sum := f.want[i].expected; i+n < len(f.want); n++ {
		if sum += f.want[i+n].expected; sum > int64(left) {
			break
		}
	}
	return n
}

// limit is how much of a partition may be read where left bytes are.
func (w *wanted) limit(left int) int { return min(int(max(w.MaxBytes, 0)), left) }

// readSome reads partitions, those that take I/O at the same time, and returns
// how many bytes there are: no more than left, but that with first the first may
// exceed its limit.
func (f *fetch) readSome(ctx context.Context, want []wanted, left int, first bool) (read int) {
	var g errgroup.Group
	g.SetLimit(fetchReaders)
	for i := range want {
		w, one := &want[i], first && i == 0
		switch {
		case w.err != nil:
		case len(want) > 1 && w.behind:
			g.Go(func() error {
				w.err = f.readOne(ctx, w, left, one)
				return nil
			})
		default:
			w.err = f.readOne(ctx, w, left, one)
		}
	}
	_ = g.Wait() // each keeps its own error
	for i := range want {
		w := &want[i]
		if n := len(w.read.Records); read == 0 || read+n <= left {
			read += n
			continue
		}
		if w.read.Release != nil { // there was more than expected; the next fetch begins with it
			w.read.Release()
		}
		w.read = tiering.ReadResult{}
	}
	return read
}

// readLarge reads the first batch of the first partition that has one, when the
// limits of all were too small for theirs.
func (f *fetch) readLarge(ctx context.Context) {
	for i := range f.want {
		if w := &f.want[i]; w.err == nil && w.large {
			w.err = f.readOne(ctx, w, 0, true)
			return
		}
	}
}

// settle gives back what was taken and not used, and the rest when the response
// is gone. A first batch may exceed the limit; the overrun is not accounted.
func (f *fetch) settle(_ context.Context, granted int64) {
	var used int64
	for i := range f.want {
		used += int64(len(f.want[i].read.Records))
		f.r.hold(f.want[i].read.Release)
	}
	f.s.metrics.records.WithLabelValues("out").Add(float64(used))
	used = min(used, granted)
	f.giveBack(granted - used)
	if used > 0 {
		f.r.hold(func() { f.giveBack(used) })
	}
}

// readOne reads one partition: at most its own limit and what is left.
func (f *fetch) readOne(ctx context.Context, w *wanted, left int, first bool) error {
	w.offsets = w.part.Offsets()
	if f.diverges(w) {
		return f.divergence(ctx, w)
	}
	limit := w.limit(left)
	o := w.offsets
	if w.FetchOffset >= o.LogStart && w.FetchOffset <= o.HighWatermark && limit == 0 && !first {
		return nil
	}
	if w.FetchOffset >= f.end(o) && w.FetchOffset <= o.HighWatermark {
		w.atEnd = true
		return nil
	}
	read := w.part.Read
	if f.committed() {
		read = w.part.ReadCommitted
	}
	got, err := read(ctx, w.FetchOffset, limit)
	if errors.Is(err, tiering.ErrOffsetOutOfRange) {
		return f.outOfRange(ctx, err)
	}
	if err != nil {
		return err
	}
	w.offsets = got.Offsets
	w.atEnd = len(got.Records) == 0
	if len(got.Records) > limit && !first {
		if got.Release != nil {
			got.Release()
		}
		w.large = true
		return nil // the next fetch begins with it
	}
	w.read = *got
	return nil
}

// outOfRange confirms that this broker may say so: clients reset their position
// on it, so a deposed leader must not.
func (f *fetch) outOfRange(ctx context.Context, err error) error {
	if seeded.OutOfRangeUnproven {
		return err
	}
	if unproven := f.s.cfg.Log.Check(ctx, 0); unproven != nil {
		return unproven
	}
	return err
}

// divergence tells the client where its log leaves ours.
func (f *fetch) divergence(ctx context.Context, w *wanted) error {
	end := w.part.EpochEnd(w.LastFetchedEpoch)
	if err := f.s.cfg.Log.Check(ctx, 0); err != nil {
		return err
	}
	if end.Epoch < 0 {
		return refuse(kerr.OffsetOutOfRange, "the end of epoch %d is not known", w.LastFetchedEpoch)
	}
	w.diverging = &end
	return nil
}

// prove makes sure that "there is nothing more" comes from the leader: a
// deposed one would keep consumers waiting at an old end.
func (f *fetch) prove(ctx context.Context) {
	var err error
	checked := false
	for i := range f.want {
		w := &f.want[i]
		if !w.atEnd || w.err != nil {
			continue
		}
		if !checked {
			err, checked = f.s.cfg.Log.Check(ctx, authorityMax), true
		}
		w.err = err
	}
}
