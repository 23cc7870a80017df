package tiering

import (
	"fmt"
	"slices"
	"sort"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// manifest is the committed state of one partition: what a leader holds, a
// checkpoint describes and a replay rebuilds, with the same code. It does no
// I/O and knows no time.
//
// Invariant: segmentPages, then segments, cover the log up to tiered; pages, then
// tail, go on from there to end, without gap or overlap, in offset order. Entries
// of the first page that lie below tiered have been tiered since it was written.
// end is the high watermark. Slices are never changed in place, only appended to
// or replaced: readers hold them without the lock.
type manifest struct {
	partition    metadata.TopicPartition
	epoch        int32
	logStart     int64
	end          int64
	epochs       []wal.EpochStart
	segmentPages []wal.PageRef
	segments     []wal.SegmentRef
	tiered       int64
	pages        []wal.PageRef
	nextPage     uint32
	tail         []wal.ExtentRef
	producers    *producers
	// abortedPages, then aborted, list the aborted transactions in the order of
	// their markers.
	abortedPages []wal.PageRef
	aborted      []wal.AbortedTxn
	// untiered is about how many bytes, as served, pages and tail hold: of a page
	// that is partly tiered, the whole counts.
	untiered int64
}

func newManifest(tp metadata.TopicPartition) *manifest {
	return &manifest{partition: tp, epoch: -1, producers: newProducers()}
}

func manifestOf(s *wal.PartitionState) *manifest {
	m := &manifest{
		partition:    s.Partition,
		epoch:        s.Epoch,
		logStart:     s.LogStart,
		end:          s.End,
		epochs:       s.Epochs,
		segmentPages: s.SegmentPages,
		segments:     s.Segments,
		tiered:       s.Tiered,
		pages:        s.Pages,
		nextPage:     s.NextPage,
		tail:         s.Tail,
		producers:    producersOf(s),
		abortedPages: s.AbortedPages,
		aborted:      s.Aborted,
	}
	m.countUntiered()
	return m
}

// state is the inverse of manifestOf. It aliases m.
func (m *manifest) state() *wal.PartitionState {
	return &wal.PartitionState{
		Partition:    m.partition,
		Epoch:        m.epoch,
		LogStart:     m.logStart,
		End:          m.end,
		Epochs:       m.epochs,
		SegmentPages: m.segmentPages,
		Segments:     m.segments,
		Tiered:       m.tiered,
		Pages:        m.pages,
		NextPage:     m.nextPage,
		Tail:         m.tail,
		Expired:      m.producers.expired,
		Producers:    m.producers.committed(),
		AbortedPages: m.abortedPages,
		Aborted:      m.aborted,
	}
}

// clone returns a copy that shares nothing that changes.
func (m *manifest) clone() *manifest {
	c := manifestOf(m.state())
	c.epochs, c.pages, c.tail = slices.Clone(m.epochs), slices.Clone(m.pages), slices.Clone(m.tail)
	c.segmentPages, c.segments = slices.Clone(m.segmentPages), slices.Clone(m.segments)
	c.abortedPages, c.aborted = slices.Clone(m.abortedPages), slices.Clone(m.aborted)
	return c
}

// open begins a leader epoch at the manifest's end.
func (m *manifest) open(epoch int32) error {
	if epoch <= m.epoch {
		return fmt.Errorf("%s: epoch %d opened after epoch %d", m.partition, epoch, m.epoch)
	}
	// Of an epoch without a record no offset speaks: the new one takes its place.
	if n := len(m.epochs); n > 0 && m.epochs[n-1].Start == m.end {
		m.epochs = m.epochs[:n-1]
	}
	m.epochs = append(m.epochs, wal.EpochStart{Epoch: epoch, Start: m.end})
	m.epoch = epoch
	m.nextPage = 0
	return nil
}

// apply adds a committed extent; now is in milliseconds since the epoch.
func (m *manifest) apply(ref wal.ExtentRef, rows []wal.Row, now int64) error {
	if ref.Epoch != m.epoch || ref.Base != m.end {
		return fmt.Errorf("%s: extent at offset %d of epoch %d follows offset %d of epoch %d", m.partition, ref.Base, ref.Epoch, m.end, m.epoch)
	}
	base := ref.Base
	for i := range rows {
		if aborted, ended := m.producers.commit(&rows[i], base, now); ended {
			m.aborted = append(m.aborted, aborted)
		}
		base += int64(rows[i].LastOffsetDelta) + 1
	}
	m.tail = append(m.tail, ref)
	m.end = ref.Last + 1
	m.untiered += ref.RawLen
	return nil
}

// pageOut returns the oldest extents of a tail that is two pages long.
func (m *manifest) pageOut() ([]wal.ExtentRef, wal.PageRef, bool) {
	if len(m.tail) < 2*wal.PageEntries {
		return nil, wal.PageRef{}, false
	}
	refs := slices.Clone(m.tail[:wal.PageEntries])
	page := wal.PageRef{
		Epoch: m.epoch, Number: m.nextPage, Base: refs[0].Base, Last: refs[len(refs)-1].Last,
		MaxTimestamp: -1, Entries: int32(len(refs)),
	}
	for i := range refs {
		page.MaxTimestamp = max(page.MaxTimestamp, refs[i].MaxTimestamp)
		page.Bytes += refs[i].RawLen
	}
	page.Floors = floorsOf(refs)
	return refs, page, true
}

// paged replaces the extents that page holds by the page, once it is durable.
func (m *manifest) paged(page wal.PageRef) {
	m.pages = append(m.pages, page)
	m.nextPage = page.Number + 1
	// A fresh slice, so that the old entries can be collected and readers that
	// hold the old one are undisturbed.
	m.tail = slices.Clone(m.tail[page.Entries:])
}

// pageOutSegments is pageOut for segments.
func (m *manifest) pageOutSegments() ([]wal.SegmentRef, wal.PageRef, bool) {
	if len(m.segments) < 2*wal.PageEntries {
		return nil, wal.PageRef{}, false
	}
	refs := slices.Clone(m.segments[:wal.PageEntries])
	page := wal.PageRef{
		Epoch: m.epoch, Number: m.nextPage, Base: refs[0].Base, Last: refs[len(refs)-1].Last,
		MaxTimestamp: -1, Entries: int32(len(refs)),
	}
	for i := range refs {
		page.MaxTimestamp = max(page.MaxTimestamp, refs[i].MaxTimestamp)
		page.Bytes += refs[i].Data.Bytes
	}
	return refs, page, true
}

// pagedSegments is paged for segments.
func (m *manifest) pagedSegments(page wal.PageRef) {
	m.segmentPages = append(m.segmentPages, page)
	m.nextPage = page.Number + 1
	m.segments = slices.Clone(m.segments[page.Entries:])
}

// pageOutAborted is pageOut for aborted transactions.
func (m *manifest) pageOutAborted() ([]wal.AbortedTxn, wal.PageRef, bool) {
	if len(m.aborted) < 2*wal.PageEntries {
		return nil, wal.PageRef{}, false
	}
	list := slices.Clone(m.aborted[:wal.PageEntries])
	return list, wal.AbortedPage(m.epoch, m.nextPage, list), true
}

// pagedAborted is paged for aborted transactions.
func (m *manifest) pagedAborted(page wal.PageRef) {
	m.abortedPages = append(m.abortedPages, page)
	m.nextPage = page.Number + 1
	m.aborted = slices.Clone(m.aborted[page.Entries:])
}

// find returns the index in refs of the extent that holds offset; refs are in
// offset order and cover it.
func find(refs []wal.ExtentRef, offset int64) int {
	return sort.Search(len(refs), func(i int) bool { return refs[i].Last >= offset })
}

// findPage is find for pages.
func findPage(pages []wal.PageRef, offset int64) int {
	return sort.Search(len(pages), func(i int) bool { return pages[i].Last >= offset })
}

// findSegment is find for segments.
func findSegment(refs []wal.SegmentRef, offset int64) int {
	return sort.Search(len(refs), func(i int) bool { return refs[i].Last >= offset })
}

// epochEnd answers OffsetForLeaderEpoch from committed state only.
func (m *manifest) epochEnd(epoch int32) EpochEnd {
	if epoch < 0 || epoch > m.epoch {
		return EpochEnd{Epoch: -1, End: -1}
	}
	if epoch == m.epoch {
		return EpochEnd{Epoch: epoch, End: m.end}
	}
	// The first epoch above the one asked for ends it.
	i := sort.Search(len(m.epochs), func(i int) bool { return m.epochs[i].Epoch > epoch })
	switch {
	case i == len(m.epochs):
		return EpochEnd{Epoch: -1, End: -1}
	case i == 0: // older than all that is known, as Kafka's LeaderEpochFileCache answers
		return EpochEnd{Epoch: epoch, End: max(m.epochs[0].Start, m.logStart)}
	}
	return EpochEnd{Epoch: m.epochs[i-1].Epoch, End: m.epochs[i].Start}
}

// epochOf is the leader epoch under which offset was written.
func (m *manifest) epochOf(offset int64) int32 {
	i := sort.Search(len(m.epochs), func(i int) bool { return m.epochs[i].Start > offset })
	if i == 0 {
		return -1
	}
	return m.epochs[i-1].Epoch
}

// EpochEnd answers OffsetForLeaderEpoch: the largest epoch not above the one
// asked for, and that epoch's end offset; -1 and -1 when there is none.
type EpochEnd struct {
	Epoch int32
	End   int64
}
