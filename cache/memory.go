package cache

import "container/list"

// chunkKey names a chunk in memory.
type chunkKey struct {
	key   string
	index int64
}

// memory holds the chunks read last, up to a number of bytes. It is not safe
// for concurrent use. Readers may hold chunks it has dropped.
type memory struct {
	limit  int64
	bytes  int64
	chunks map[chunkKey]*list.Element // of memoryChunk
	order  *list.List                 // front: read last
}

type memoryChunk struct {
	key  chunkKey
	data []byte
}

// perChunkBytes is about what a chunk costs besides its bytes and key.
const perChunkBytes = 200

func newMemory(limit int64) *memory {
	return &memory{limit: limit, chunks: make(map[chunkKey]*list.Element), order: list.New()}
}

func (c memoryChunk) cost() int64 { return int64(cap(c.data)+len(c.key.key)) + perChunkBytes }

func (m *memory) get(key chunkKey) ([]byte, bool) {
	el := m.chunks[key]
	if el == nil {
		return nil, false
	}
	m.order.MoveToFront(el)
	return el.Value.(memoryChunk).data, true
}

func (m *memory) has(key chunkKey) bool { return m.chunks[key] != nil }

// put adds a chunk and returns how many others had to go.
func (m *memory) put(key chunkKey, data []byte) (evicted int) {
	c := memoryChunk{key, data}
	if c.cost() > m.limit {
		return 0
	}
	m.drop(key)
	m.chunks[key] = m.order.PushFront(c)
	m.bytes += c.cost()
	for m.bytes > m.limit {
		m.drop(m.order.Back().Value.(memoryChunk).key)
		evicted++
	}
	return evicted
}

func (m *memory) drop(key chunkKey) {
	if el := m.chunks[key]; el != nil {
		m.bytes -= m.order.Remove(el).(memoryChunk).cost()
		delete(m.chunks, key)
	}
}
