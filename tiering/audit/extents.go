package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

	// sum is what was read of the segment at hand, by the goroutine that checks;
	// sumHoled: some of it could not be.
	sum      wal.DataDigest
	sumHoled bool

	at    int64 // next offset; -1 before the first extent
	epoch int32
	ends  map[metadata.Incarnation]uint64 // of chains, or where they have come to
}

// fetch is an extent or a block on its way, or a mark for those that cannot be
// known.
type fetch struct {
	ref     wal.ExtentRef
	gap     bool
	segment *wal.SegmentRef // the block is the last one of this segment
	done    chan struct{}
	b       []byte
	err     error
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
	aborted, err := w.aborted(ctx)
	if err != nil {
		return err
	}
	if w.a.cfg.Quick {
		err := w.manifest(ctx, func(*wal.ExtentRef, *wal.SegmentRef) error { return nil })
		w.total.Records = w.view.state.End - w.view.state.LogStart
		return err
	}
	queue := make(chan *fetch, extentsAhead)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		return w.manifest(ctx, func(ref *wal.ExtentRef, ends *wal.SegmentRef) error { return w.begin(ctx, g, queue, ref, ends) })
	})
	findings := &findings{where: w.f.where} // w.f belongs to the other goroutine until the end
	g.Go(func() error { return w.check(ctx, queue, findings) })
	if err := g.Wait(); err != nil {
		return err
	}
	w.f.list, w.f.more = append(w.f.list, findings.list...), w.f.more+findings.more
	w.producers.compare(w.view.state, w.f)
	if aborted != nil {
		w.producers.compareAborted(w.view.state, aborted, w.f)
	}
	return nil
}

// visit is called with an extent or a block, and with the segment that it is the
// last block of; with nil for what cannot be known.
type visit func(ref *wal.ExtentRef, ends *wal.SegmentRef) error

// manifest calls f with every block and extent in offset order, and with nil in
// place of those of a page or a segment that cannot be read.
func (w *partitionWalk) manifest(ctx context.Context, f visit) error {
	m := w.view.state
	for _, page := range m.SegmentPages {
		var refs []wal.SegmentRef
		ok, err := w.page(ctx, page, f, func() (n int, err error) {
			refs, err = w.a.inspector.SegmentPage(ctx, w.tp, page)
			return len(refs), err
		})
		if err == nil && ok {
			err = w.segments(ctx, refs, f)
		}
		if err != nil {
			return err
		}
	}
	if err := w.segments(ctx, m.Segments, f); err != nil {
		return err
	}
	for _, page := range m.Pages {
		var refs []wal.ExtentRef
		ok, err := w.page(ctx, page, f, func() (n int, err error) {
			refs, err = w.a.inspector.Page(ctx, w.tp, page)
			return len(refs), err
		})
		if err == nil && ok {
			err = w.refs(ctx, untiered(refs, m), f)
		}
		if err != nil {
			return err
		}
	}
	return w.refs(ctx, untiered(m.Tail, m), f)
}

// untiered drops the extents of a page that have been tiered since, or that the
// log start offset has passed.
func untiered(refs []wal.ExtentRef, m *wal.PartitionState) []wal.ExtentRef {
	i, _ := slices.BinarySearchFunc(refs, max(m.Tiered, m.LogStart), func(r wal.ExtentRef, at int64) int { return cmp.Compare(r.Last, at) })
	return refs[i:]
}

// page loads a page; false when it cannot be read, which has been said.
func (w *partitionWalk) page(ctx context.Context, page wal.PageRef, f visit, load func() (int, error)) (bool, error) {
	w.a.named.add(wal.PageKey(w.tp, page.Epoch, page.Number))
	w.total.Pages++
	var n int
	var err error
	if e := w.a.request(ctx, func() { n, err = load() }); e != nil {
		return false, e
	}
	if err != nil {
		if unanswered(ctx, err) {
			return false, err
		}
		w.f.add(KindPage, "page %d of epoch %d, offsets %d to %d: %v", page.Number, page.Epoch, page.Base, page.Last, err)
		w.at = page.Last + 1
		return false, f(nil, nil)
	}
	if n != int(page.Entries) {
		w.f.add(KindPage, "page %d of epoch %d has %d entries instead of %d", page.Number, page.Epoch, n, page.Entries)
	}
	return true, nil
}

// segments reads the indexes of segments and goes through their blocks.
func (w *partitionWalk) segments(ctx context.Context, refs []wal.SegmentRef, f visit) error {
	for i := range refs {
		ref := &refs[i]
		if ref.Last < w.view.state.LogStart { // a page names it still, and nobody reads it
			continue
		}
		key := wal.SegmentKey(w.tp, ref)
		w.a.named.add(key)
		w.total.Segments++
		var section *wal.Section
		var err error
		if e := w.a.request(ctx, func() { section, err = w.a.inspector.Section(ctx, w.tp, ref) }); e != nil {
			return e
		}
		if err != nil {
			if unanswered(ctx, err) {
				return err
			}
			kind := KindSegment
			if errors.Is(err, tiering.ErrDataLoss) {
				kind = KindObjectMissing
			}
			w.f.add(kind, "offsets %d to %d: %v", ref.Base, ref.Last, err)
			w.at = ref.Last + 1
			if err := f(nil, nil); err != nil {
				return err
			}
			continue
		}
		blocks := section.Extents(key)
		for j := range blocks {
			var ends *wal.SegmentRef
			if j == len(blocks)-1 {
				ends = ref
			}
			if err := w.visit(ctx, &blocks[j], ends, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *partitionWalk) refs(ctx context.Context, refs []wal.ExtentRef, f visit) error {
	for i := range refs {
		w.total.Extents++
		if err := w.visit(ctx, &refs[i], nil, f); err != nil {
			return err
		}
	}
	return nil
}

func (w *partitionWalk) visit(ctx context.Context, ref *wal.ExtentRef, ends *wal.SegmentRef, f visit) error {
	if err := w.ref(ctx, ref); err != nil {
		return err
	}
	w.total.Bytes += ref.RawLen
	w.total.BytesStored += ref.Len
	w.a.extents.Add(1)
	return f(ref, ends)
}

// where says what a manifest entry lies in.
func where(ref *wal.ExtentRef) string {
	if ref.Object != "" {
		return "block of " + ref.Object
	}
	return fmt.Sprintf("extent of slot %d of chain %s", ref.Slot, ref.Incarnation)
}

// ref checks a manifest entry against its neighbours, the epochs and its chain.
func (w *partitionWalk) ref(ctx context.Context, ref *wal.ExtentRef) error {
	if w.at < 0 {
		if w.at = ref.Base; ref.Base > w.view.state.LogStart {
			w.f.add(KindManifest, "the %s begins at offset %d, the log at %d", where(ref), ref.Base, w.view.state.LogStart)
		}
	}
	if ref.Base != w.at || ref.Last < ref.Base {
		w.f.add(KindManifest, "the %s covers offsets %d to %d, the one before ended at %d", where(ref), ref.Base, ref.Last, w.at)
	}
	// Of epochs that ended below the log start nothing is remembered.
	known := ref.Last >= w.view.state.LogStart
	if ref.Epoch < w.epoch || known && ref.Epoch != epochOf(w.view.state, ref.Base) {
		w.f.add(KindManifest, "the extent at offset %d is of epoch %d; the epochs say %d, the one before it was of %d", ref.Base, ref.Epoch, epochOf(w.view.state, ref.Base), w.epoch)
	}
	w.at, w.epoch = ref.Last+1, max(w.epoch, ref.Epoch)
	if ref.Object != "" {
		return nil
	}
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
func (w *partitionWalk) begin(ctx context.Context, g *errgroup.Group, queue chan<- *fetch, ref *wal.ExtentRef, ends *wal.SegmentRef) error {
	f := &fetch{gap: ref == nil, segment: ends, done: make(chan struct{})}
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
	defer w.endSegment(f, to)
	switch {
	case f.gap:
		w.sum, w.sumHoled = wal.DataDigest{}, false
		w.producers.lost()
	case f.err == nil:
		w.batches(f, to)
	case unanswered(ctx, f.err):
		return f.err
	case errors.Is(f.err, tiering.ErrDataLoss):
		to.add(KindObjectMissing, "offsets %d to %d: %s is missing", f.ref.Base, f.ref.Last, f.ref.Key())
		w.sumHoled = true
		w.producers.lost()
	default:
		to.add(KindExtentDamaged, "offsets %d to %d, at position %d of %s: %v", f.ref.Base, f.ref.Last, f.ref.Position, f.ref.Key(), f.err)
		w.sumHoled = true
		w.producers.lost()
	}
	return nil
}

// endSegment compares what the blocks of a segment held with what the manifest
// says that it was made from.
func (w *partitionWalk) endSegment(f *fetch, to *findings) {
	if f.segment == nil {
		return
	}
	if s := f.segment; !w.sumHoled && w.sum != s.Data {
		to.add(KindDigest, "offsets %d to %d: %s holds %+v, the manifest says %+v", s.Base, s.Last, f.ref.Key(), w.sum, s.Data)
	}
	w.sum, w.sumHoled = wal.DataDigest{}, false
}

// batches checks an extent's batches against their place and themselves.
func (w *partitionWalk) batches(f *fetch, to *findings) {
	if f.ref.Object != "" {
		if d, err := tiering.Digest(f.b); err == nil {
			w.sum = w.sum.Plus(d)
		}
	}
	at, newest := f.ref.Base, int64(-1)
	for b := f.b; len(b) > 0; {
		h, err := batch.Parse(b)
		if err != nil {
			to.add(KindBatch, "offset %d, in %s: %v", at, f.ref.Key(), err)
			w.sumHoled = true
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
		w.producers.follow(b, &h, at, to)
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
