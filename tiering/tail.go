package tiering

import (
	"sort"
	"sync"

	"github.com/tidemark-io/tidemark/tiering/wal"
)

// memoryTail keeps the batches of the newest committed slots, by reference, for
// readers at the end of the log. Bounded in bytes; the oldest slot goes first.
type memoryTail struct {
	max int64

	mu     sync.RWMutex
	bytes  int64
	first  uint64 // oldest slot held; slots are added in order
	recent map[uint64]*recentSlot
	next   uint64
}

// recentSlot is one object's batches as served. Extents may lie elsewhere in the
// object, where they are stored compressed.
type recentSlot struct {
	buf     *buffer
	extents []recentExtent // by position
}

type recentExtent struct {
	position int64 // in the object
	at, end  int   // in buf
}

func newMemoryTail(limit int64) *memoryTail {
	return &memoryTail{max: limit, recent: make(map[uint64]*recentSlot)}
}

// add takes over f's reference to its batches.
func (t *memoryTail) add(f *flush) {
	r := &recentSlot{buf: f.raw, extents: make([]recentExtent, len(f.head.Extents))}
	at := 0
	for i := range f.head.Extents {
		e := &f.head.Extents[i]
		end := at + int(e.RawLen)
		r.extents[i] = recentExtent{position: int64(f.head.Len) + e.Position, at: at, end: end}
		at = end
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.recent) == 0 {
		t.first = f.slot
	}
	t.recent[f.slot] = r
	t.next = f.slot + 1
	t.bytes += int64(cap(f.raw.b))
	for t.bytes > t.max && t.first < t.next {
		if old := t.recent[t.first]; old != nil {
			t.bytes -= int64(cap(old.buf.b))
			delete(t.recent, t.first)
			old.buf.release()
		}
		t.first++
	}
}

// has reports whether the batches of a slot are held.
func (t *memoryTail) has(slot uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.recent[slot] != nil
}

// get returns the batches of an extent of this incarnation, with a reference
// that the caller releases, or nil.
func (t *memoryTail) get(ref *wal.ExtentRef) ([]byte, *buffer) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r := t.recent[ref.Slot]
	if r == nil {
		return nil, nil
	}
	i := sort.Search(len(r.extents), func(i int) bool { return r.extents[i].position >= ref.Position })
	if i == len(r.extents) || r.extents[i].position != ref.Position {
		return nil, nil
	}
	r.buf.retain()
	return r.buf.b[r.extents[i].at:r.extents[i].end], r.buf
}
