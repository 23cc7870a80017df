package audit

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// extentsAhead is how many extents of one partition are fetched ahead of the one
// that is checked.
const extentsAhead = 8

// partitionWalk reads a partition from its beginning to its end.
type partitionWalk struct {
	a         *auditor
	tp        metadata.TopicPartition
	view      *view
	f         *findings
	total     *Topic
	producers *producers

	at    int64 // next offset; -1 before the first extent
	epoch int32
	ends  map[metadata.Incarnation]uint64 // of chains, or where they have come to
}

// fetch is an extent on its way, or a mark for extents that cannot be known.
type fetch struct {
	ref  wal.ExtentRef
	gap  bool
	done chan struct{}
	b    []byte
	err  error
}

// weight is what an extent takes in memory while it is checked.
func (f *fetch) weight() int64 {
	if f.gap {
		return 0
	}
	w := f.ref.Len
	if f.ref.Zstd {
		w += f.ref.RawLen
	}
	return min(max(w, 1), extentBytesMax)
}

func (w *partitionWalk) run(ctx context.Context) error {
	w.at, w.ends = -1, make(map[metadata.Incarnation]uint64)
	if w.a.cfg.Quick {
		err := w.manifest(ctx, func(*wal.ExtentRef) error { return nil })
		w.total.Records = w.view.state.End - w.view.state.LogStart
		return err
	}
	queue := make(chan *fetch, extentsAhead)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		return w.manifest(ctx, func(ref *wal.ExtentRef) error { return w.begin(ctx, g, queue, ref) })
	})
	findings := &findings{where: w.f.where} // w.f belongs to the other goroutine until the end
	g.Go(func() error { return w.check(ctx, queue, findings) })
	if err := g.Wait(); err != nil {
		return err
	}
	w.f.list, w.f.more = append(w.f.list, findings.list...), w.f.more+findings.more
	w.producers.compare(w.view.state, w.f)
	return nil
}

// manifest calls f with every extent in offset order, and with nil in place of
// those of a page that cannot be read.
func (w *partitionWalk) manifest(ctx context.Context, f func(*wal.ExtentRef) error) error {
	m := w.view.state
	for _, page := range m.Pages {
		key := wal.PageKey(w.tp, page.Epoch, page.Number)
		w.a.pages.add(key)
		w.total.Pages++
		var refs []wal.ExtentRef
		var err error
		if e := w.a.request(ctx, func() { refs, err = w.a.inspector.Page(ctx, w.tp, page) }); e != nil {
			return e
		}
		if err != nil {
			if unanswered(ctx, err) {
				return err
			}
			w.f.add(KindPage, "page %d of epoch %d, offsets %d to %d: %v", page.Number, page.Epoch, page.Base, page.Last, err)
			w.at = page.Last + 1
			if err := f(nil); err != nil {
				return err
			}
			continue
		}
		if len(refs) != int(page.Entries) {
			w.f.add(KindPage, "page %d of epoch %d has %d entries instead of %d", page.Number, page.Epoch, len(refs), page.Entries)
		}
		if err := w.refs(ctx, refs, f); err != nil {
			return err
		}
	}
	return w.refs(ctx, m.Tail, f)
}

func (w *partitionWalk) refs(ctx context.Context, refs []wal.ExtentRef, f func(*wal.ExtentRef) error) error {
	for i := range refs {
		ref := &refs[i]
		if err := w.ref(ctx, ref); err != nil {
			return err
		}
		w.total.Extents++
		w.total.Bytes += ref.RawLen
		w.total.BytesStored += ref.Len
		w.a.extents.Add(1)
		if err := f(ref); err != nil {
			return err
		}
	}
	return nil
}

// ref checks a manifest entry against its neighbours, the epochs and its chain.
func (w *partitionWalk) ref(ctx context.Context, ref *wal.ExtentRef) error {
	if w.at < 0 {
		w.at = ref.Base
	}
	if ref.Base != w.at || ref.Last < ref.Base {
		w.f.add(KindManifest, "the extent of slot %d of chain %s covers offsets %d to %d, the one before ended at %d", ref.Slot, ref.Incarnation, ref.Base, ref.Last, w.at)
	}
	if ref.Epoch < w.epoch || ref.Epoch != epochOf(w.view.state, ref.Base) {
		w.f.add(KindManifest, "the extent at offset %d is of epoch %d; the epochs say %d, the one before it was of %d", ref.Base, ref.Epoch, epochOf(w.view.state, ref.Base), w.epoch)
	}
	w.at, w.epoch = ref.Last+1, max(w.epoch, ref.Epoch)
	end, err := w.chainEnd(ctx, ref)
	if err == nil && ref.Slot >= end {
		w.f.add(KindManifest, "the extent at offset %d lies in slot %d of chain %s, which ended at %d", ref.Base, ref.Slot, ref.Incarnation, end)
	}
	if errors.Is(err, metadata.ErrNoChain) {
		w.f.add(KindManifest, "the extent at offset %d lies in chain %s, which has no key", ref.Base, ref.Incarnation)
		w.ends[ref.Incarnation] = ref.Slot + 1 // said once
		return nil
	}
	return err
}

// chainEnd is an end of the chain that is above the slot of ref, if it has one.
func (w *partitionWalk) chainEnd(ctx context.Context, ref *wal.ExtentRef) (uint64, error) {
	if end, ok := w.ends[ref.Incarnation]; ok && ref.Slot < end {
		return end, nil
	}
	s, known, err := w.a.chains.known(ctx, ref.Incarnation)
	if err != nil {
		return 0, err
	}
	if !known {
		return 0, metadata.ErrNoChain
	}
	next, _, chain, err := s.position(ctx)
	if err == nil && chain.End == nil && ref.Slot >= next {
		if err = s.advance(ctx); err == nil {
			next, _, chain, err = s.position(ctx)
		}
	}
	if chain.End != nil {
		next = *chain.End
	}
	w.ends[ref.Incarnation] = next
	return next, err
}

func epochOf(m *wal.PartitionState, offset int64) int32 {
	i, found := slices.BinarySearchFunc(m.Epochs, offset, func(e wal.EpochStart, at int64) int {
		switch {
		case e.Start < at:
			return -1
		case e.Start > at:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return -1
	}
	return m.Epochs[i].Epoch
}

// begin starts to fetch an extent and puts it into the queue. Room is taken in
// the order of the queue, so what is checked next always has its room.
func (w *partitionWalk) begin(ctx context.Context, g *errgroup.Group, queue chan<- *fetch, ref *wal.ExtentRef) error {
	f := &fetch{gap: ref == nil, done: make(chan struct{})}
	if ref != nil {
		f.ref = *ref
	}
	if err := w.a.bytes.Acquire(ctx, f.weight()); err != nil {
		return context.Cause(ctx)
	}
	g.Go(func() error {
		defer close(f.done)
		if f.gap {
			return nil
		}
		err := w.a.request(ctx, func() { f.b, f.err = w.a.inspector.Extent(ctx, &f.ref) })
		w.a.bytesRead.Add(f.ref.Len)
		return err
	})
	select {
	case queue <- f:
		return nil
	case <-ctx.Done():
		w.a.bytes.Release(f.weight())
		return context.Cause(ctx)
	}
}

// check checks extents in offset order.
func (w *partitionWalk) check(ctx context.Context, queue <-chan *fetch, to *findings) error {
	for f := range queue {
		err := w.checkFetched(ctx, f, to)
		w.a.bytes.Release(f.weight())
		if err != nil {
			for rest := range queue { // give their room back; the producer has the same context
				w.a.bytes.Release(rest.weight())
			}
			return err
		}
	}
	return nil
}

func (w *partitionWalk) checkFetched(ctx context.Context, f *fetch, to *findings) error {
	select {
	case <-f.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case f.gap:
		w.producers.lost()
	case f.err == nil:
		w.batches(f, to)
	case unanswered(ctx, f.err):
		return f.err
	case errors.Is(f.err, tiering.ErrDataLoss):
		to.add(KindObjectMissing, "offsets %d to %d: %s is missing", f.ref.Base, f.ref.Last, wal.SlotKey(f.ref.Incarnation, f.ref.Slot))
		w.producers.lost()
	default:
		to.add(KindExtentDamaged, "offsets %d to %d, at position %d of %s: %v", f.ref.Base, f.ref.Last, f.ref.Position, wal.SlotKey(f.ref.Incarnation, f.ref.Slot), f.err)
		w.producers.lost()
	}
	return nil
}

// batches checks an extent's batches against their place and themselves.
func (w *partitionWalk) batches(f *fetch, to *findings) {
	at, newest := f.ref.Base, int64(-1)
	for b := f.b; len(b) > 0; {
		h, err := batch.Parse(b)
		if err != nil {
			to.add(KindBatch, "offset %d, in %s: %v", at, wal.SlotKey(f.ref.Incarnation, f.ref.Slot), err)
			w.producers.lost()
			return
		}
		if err := batch.CheckCRC(b[:h.Length]); err != nil {
			to.add(KindBatch, "offset %d: %v", at, err)
		}
		if h.BaseOffset != at || h.LastOffsetDelta < 0 || h.Records != h.LastOffsetDelta+1 {
			to.add(KindBatch, "the batch at offset %d says base offset %d, last offset delta %d, %d records", at, h.BaseOffset, h.LastOffsetDelta, h.Records)
		}
		if h.LeaderEpoch != f.ref.Epoch {
			to.add(KindBatch, "the batch at offset %d says leader epoch %d instead of %d", at, h.LeaderEpoch, f.ref.Epoch)
		}
		w.producers.follow(&h, at, to)
		w.total.Batches++
		w.total.Records += int64(h.Records)
		newest = max(newest, h.MaxTimestamp)
		at += int64(max(h.LastOffsetDelta, 0)) + 1
		b = b[h.Length:]
	}
	if at != f.ref.Last+1 {
		to.add(KindBatch, "the batches from offset %d end at %d instead of %d", f.ref.Base, at-1, f.ref.Last)
	}
	if newest != f.ref.MaxTimestamp {
		to.add(KindBatch, "the newest timestamp from offset %d to %d is %d instead of %d", f.ref.Base, f.ref.Last, newest, f.ref.MaxTimestamp)
	}
}
