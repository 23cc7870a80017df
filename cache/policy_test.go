package cache

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// use reads a chunk and adds it if it is not there, as the cache does.
func use(p *policy, name string, size int64) (hit bool, victims []*entry) {
	id := idOf(name, 0)
	if p.read(id) != nil {
		return true, nil
	}
	victims, ok := p.makeRoom(size)
	if ok {
		p.add(id, size)
	}
	return false, victims
}

// TestScanDisplacesNothing: a working set that is read again and again survives
// a scan of a hundred times the cache's size.
func TestScanDisplacesNothing(t *testing.T) {
	p := newPolicy(1000, 1000)
	for round := range 20 {
		for i := range 60 {
			use(p, fmt.Sprintf("hot%d", i), 10)
		}
		for i := range 10 {
			use(p, fmt.Sprintf("warm-up%d-%d", round, i), 10)
		}
	}
	for i := range 10_000 {
		use(p, fmt.Sprintf("scan%d", i), 10)
	}
	kept := 0
	for i := range 60 {
		if p.find(idOf(fmt.Sprintf("hot%d", i), 0)) != nil {
			kept++
		}
	}
	if kept < 55 {
		t.Errorf("%d of 60 hot chunks survived a scan", kept)
	}
}

// TestGhost: what comes back soon after its eviction was evicted wrongly, and
// is kept from then on.
func TestGhost(t *testing.T) {
	p := newPolicy(1000, 1000)
	for i := range 100 {
		use(p, fmt.Sprintf("old%d", i), 10)
	}
	use(p, "a", 10)
	for i := 0; p.find(idOf("a", 0)) != nil; i++ {
		use(p, fmt.Sprintf("filler%d", i), 10)
	}
	use(p, "a", 10)
	for i := range 500 {
		use(p, fmt.Sprintf("scan%d", i), 10)
	}
	if p.find(idOf("a", 0)) == nil {
		t.Error("a chunk that came back was evicted by a scan")
	}
}

// TestPolicyInvariants runs random operations and recounts after each.
func TestPolicyInvariants(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	const limit, entriesMax = 5000, 60
	p := newPolicy(limit, entriesMax)
	removed := map[uint64]bool{}
	for step := range 20_000 {
		name := fmt.Sprint(rng.IntN(300))
		switch rng.IntN(10) {
		case 0:
			if e := p.find(idOf(name, 0)); e != nil {
				if !p.remove(e) || p.remove(e) {
					t.Fatalf("seed %d: an entry was not removed exactly once", seed)
				}
				removed[e.seq] = true
			}
		default:
			_, victims := use(p, name, rng.Int64N(400)+1)
			for _, v := range victims {
				if removed[v.seq] || p.remove(v) {
					t.Fatalf("seed %d: a victim was still there, or gone before", seed)
				}
				removed[v.seq] = true
			}
		}
		recount(t, p, seed, step)
	}
	if _, ok := p.makeRoom(limit + 1); ok {
		t.Error("made room for more than the limit")
	}
}

func recount(t *testing.T, p *policy, seed uint64, step int) {
	t.Helper()
	var bytes, small int64
	for el := p.small.Front(); el != nil; el = el.Next() {
		small += el.Value.(*entry).size
	}
	bytes = small
	for el := p.main.Front(); el != nil; el = el.Next() {
		bytes += el.Value.(*entry).size
	}
	if bytes != p.bytes || small != p.smallBytes || bytes > p.limit || len(p.entries) != p.small.Len()+p.main.Len() ||
		len(p.entries) > p.entriesMax || p.ghosts.bytes > p.limit || len(p.ghosts.ids) > p.entriesMax ||
		p.ghosts.order.Len() != len(p.ghosts.ids) {
		t.Fatalf("seed %d, step %d: bytes %d (%d), small %d (%d), entries %d", seed, step, bytes, p.bytes, small, p.smallBytes, len(p.entries))
	}
}

func TestMemory(t *testing.T) {
	m := newMemory(10_000)
	key := func(i int) chunkKey { return chunkKey{"k", int64(i)} }
	for i := range 100 {
		m.put(key(i), make([]byte, 1000))
		m.get(key(0))
		var bytes int64
		for el := m.order.Front(); el != nil; el = el.Next() {
			bytes += el.Value.(memoryChunk).cost()
		}
		if bytes != m.bytes || bytes > m.limit || len(m.chunks) != m.order.Len() {
			t.Fatalf("%d bytes counted, %d held", m.bytes, bytes)
		}
	}
	if !m.has(key(0)) || !m.has(key(99)) || m.has(key(50)) {
		t.Error("the chunks read last are not those kept")
	}
	m.put(key(99), make([]byte, 500))
	m.put(chunkKey{"big", 0}, make([]byte, 10_000))
	if m.has(chunkKey{"big", 0}) || !m.has(key(0)) {
		t.Error("a chunk larger than the limit displaced others")
	}
	for i := range 100 {
		m.drop(key(i))
	}
	if m.bytes != 0 || len(m.chunks) != 0 {
		t.Errorf("%d bytes left", m.bytes)
	}
}
