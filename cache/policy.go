package cache

import "container/list"

const (
	// smallShare of the bytes are for what has been read once (a tenth, as in
	// the S3-FIFO paper, SOSP 2023).
	smallShare = 10
	// readsMax is how many recent reads of a chunk count.
	readsMax = 3
)

// policy decides which chunks stay on disk. It does no I/O and is not safe for
// concurrent use.
//
// A new chunk joins the small queue. At the end of that queue, a chunk that was
// read again meanwhile moves to the main queue, any other is evicted and
// remembered. A chunk that comes back while it is remembered joins the main
// queue at once. At the end of the main queue, a chunk that was read goes round
// once more for each read that counts, any other is evicted.
//
// Invariant: bytes = sum of the sizes in small and main <= limit.
type policy struct {
	limit      int64
	entriesMax int
	bytes      int64
	smallBytes int64
	entries    map[chunkID]*list.Element // of *entry, in small or main
	small      *list.List                // front: newest
	main       *list.List
	ghosts     ghosts
	seq        uint64
}

type entry struct {
	id    chunkID
	size  int64
	seq   uint64 // tells this entry from a later one of the same id
	reads int8
	main  bool
}

func newPolicy(limit int64, entriesMax int) *policy {
	return &policy{
		limit: limit, entriesMax: entriesMax,
		entries: make(map[chunkID]*list.Element), small: list.New(), main: list.New(),
		ghosts: ghosts{ids: make(map[chunkID]*list.Element), order: list.New(), limit: limit, countMax: entriesMax},
	}
}

// read notes a read and returns the entry, or nil.
func (p *policy) read(id chunkID) *entry {
	e := p.find(id)
	if e != nil {
		e.reads = min(e.reads+1, readsMax)
	}
	return e
}

// find returns an entry, or nil, without noting a read.
func (p *policy) find(id chunkID) *entry {
	if el := p.entries[id]; el != nil {
		return el.Value.(*entry)
	}
	return nil
}

// makeRoom evicts entries until one of size bytes fits. It reports false, and
// evicts nothing, if that can never be.
func (p *policy) makeRoom(size int64) (victims []*entry, ok bool) {
	if size > p.limit || p.entriesMax < 1 {
		return nil, false
	}
	for p.bytes+size > p.limit || len(p.entries) >= p.entriesMax {
		if e := p.evict(); e != nil {
			victims = append(victims, e)
		}
	}
	return victims, true
}

// add adds an entry for which there is room.
func (p *policy) add(id chunkID, size int64) *entry {
	p.seq++
	e := &entry{id: id, size: size, seq: p.seq, main: p.ghosts.take(id)}
	p.insert(e)
	return e
}

// restore adds an entry that an earlier run left, oldest first. It has proved
// itself by being there.
func (p *policy) restore(id chunkID, size int64) {
	p.seq++
	p.insert(&entry{id: id, size: size, seq: p.seq, main: true})
}

func (p *policy) insert(e *entry) {
	p.bytes += e.size
	if e.main {
		p.entries[e.id] = p.main.PushFront(e)
		return
	}
	p.smallBytes += e.size
	p.entries[e.id] = p.small.PushFront(e)
}

// remove takes e out, unless it is out already.
func (p *policy) remove(e *entry) bool {
	el := p.entries[e.id]
	if el == nil || el.Value.(*entry).seq != e.seq {
		return false
	}
	p.unlink(el, e)
	return true
}

func (p *policy) unlink(el *list.Element, e *entry) {
	delete(p.entries, e.id)
	p.bytes -= e.size
	if e.main {
		p.main.Remove(el)
		return
	}
	p.smallBytes -= e.size
	p.small.Remove(el)
}

// evict makes one step: it evicts an entry and returns it, or moves one and
// returns nil. Each move uses up a read, so that steps end in an eviction.
func (p *policy) evict() *entry {
	if p.smallBytes*smallShare > p.limit || p.main.Len() == 0 {
		return p.evictSmall()
	}
	el := p.main.Back()
	e := el.Value.(*entry)
	if e.reads > 0 {
		e.reads--
		p.main.MoveToFront(el)
		return nil
	}
	p.unlink(el, e)
	return e
}

func (p *policy) evictSmall() *entry {
	el := p.small.Back()
	e := el.Value.(*entry)
	p.unlink(el, e)
	if e.reads > 0 {
		e.reads, e.main = 0, true
		p.insert(e)
		return nil
	}
	p.ghosts.add(e.id, e.size)
	return e
}

// ghosts remembers evicted chunks: about as many as would fill the cache.
type ghosts struct {
	ids      map[chunkID]*list.Element // of ghost
	order    *list.List                // front: newest
	bytes    int64
	limit    int64
	countMax int
}

type ghost struct {
	id   chunkID
	size int64
}

func (g *ghosts) add(id chunkID, size int64) {
	g.take(id)
	g.ids[id] = g.order.PushFront(ghost{id, size})
	g.bytes += size
	for g.bytes > g.limit || len(g.ids) > g.countMax {
		g.take(g.order.Back().Value.(ghost).id)
	}
}

// take forgets id and reports whether it was remembered.
func (g *ghosts) take(id chunkID) bool {
	el := g.ids[id]
	if el == nil {
		return false
	}
	g.bytes -= g.order.Remove(el).(ghost).size
	delete(g.ids, id)
	return true
}
