package tiering

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// buffer is a reference-counted byte slice from a pool: the memory tail,
// readers and the upload of one object share it. A reference that is never
// given back costs the pool a buffer, and nothing else.
type buffer struct {
	b    []byte
	refs atomic.Int32
	pool *bufferPool
	keep bool // never pool: a store may still be reading it
}

func (b *buffer) retain() { b.refs.Add(1) }

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 && !b.keep {
		b.pool.put(b.b)
	}
}

// bufferPool reuses buffers by size class. Touching fresh pages for every flush
// costs more than all else that is done to its bytes.
type bufferPool struct {
	mu   sync.Mutex
	free [32][][]byte
	held int64
	max  int64
}

const bufferMin = 12 // log2: 4 KiB

func bufferClass(n int) int { return max(bufferMin, bits.Len(uint(max(n, 1)-1))) }

// get returns a buffer of n bytes, of arbitrary content, with one reference.
func (p *bufferPool) get(n int) *buffer {
	class := bufferClass(n)
	buf := &buffer{pool: p}
	buf.refs.Store(1)
	p.mu.Lock()
	if class < len(p.free) && len(p.free[class]) > 0 {
		last := len(p.free[class]) - 1
		buf.b = p.free[class][last][:n]
		p.free[class] = p.free[class][:last]
		p.held -= 1 << class
	}
	p.mu.Unlock()
	if buf.b == nil {
		buf.b = make([]byte, n, 1<<class)
	}
	return buf
}

func (p *bufferPool) put(b []byte) {
	class := bufferClass(cap(b))
	if cap(b) != 1<<class || class >= len(p.free) {
		return
	}
	p.mu.Lock()
	if p.held+int64(cap(b)) <= p.max {
		p.free[class] = append(p.free[class], b[:0])
		p.held += int64(cap(b))
	}
	p.mu.Unlock()
}
