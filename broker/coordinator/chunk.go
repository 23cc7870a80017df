package coordinator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	chunkPartitions = 64
	// chunkBytesMax keeps a chunk within one transaction: 64 offsets with
	// metadata of the default limit take some 360 KiB at worst.
	chunkBytesMax = 400 << 10
	chunkOverhead = 64 // what surrounds the offsets
	offsetBytes   = 88 // one offset's numbers and punctuation, at most
)

// chunkID names a chunk within its group.
type chunkID struct {
	topic metadata.TopicID
	chunk int32
}

func chunkOf(topic metadata.TopicID, partition int32) chunkID {
	return chunkID{topic: topic, chunk: partition / chunkPartitions}
}

// offset is one committed offset.
type offset struct {
	offset   int64
	epoch    int32
	metadata string
	at       time.Time // when it was committed
	expires  time.Time // what an old client asked for, or zero
}

func (o *offset) size() int { return offsetBytes + text(o.metadata).size() }

// chunk is up to 64 partitions' offsets as they are stored.
type chunk struct {
	rev   int64 // 0: not stored
	parts map[int32]*offset
	size  int // bounds the encoded length
	// batch is the transaction that is about to change the chunk.
	batch *batch
}

func newChunk() *chunk { return &chunk{parts: map[int32]*offset{}} }

// sizeWith bounds the encoded length after changes; nil removes a partition.
func (c *chunk) sizeWith(changes ...map[int32]*offset) int {
	size, seen := c.size, map[int32]*offset{}
	for _, parts := range changes {
		for p, o := range parts {
			old, ok := seen[p]
			if !ok {
				old = c.parts[p]
			}
			if old != nil {
				size -= old.size()
			}
			if o != nil {
				size += o.size()
			}
			seen[p] = o
		}
	}
	return size
}

// apply makes the changes in memory.
func (c *chunk) apply(changes map[int32]*offset) {
	c.size = c.sizeWith(changes)
	for p, o := range changes {
		if o == nil {
			delete(c.parts, p)
		} else {
			c.parts[p] = o
		}
	}
}

// A chunk's value is {"format":1,"offsets":[[partition,offset,leader epoch,commit
// time],...]}, times in milliseconds. An offset with metadata, or with an expiry
// of its own, goes on with that time, 0 for none, and the metadata. Arrays,
// because every commit writes the chunk whole.
type storedChunk struct {
	Format  int                 `json:"format"`
	Offsets [][]json.RawMessage `json:"offsets"`
}

// encode is the value of the chunk once changes are applied, or nil when no
// offset remains.
func (c *chunk) encode(changes map[int32]*offset) ([]byte, error) {
	var partitions []int32
	for p := range c.parts {
		if _, changed := changes[p]; !changed {
			partitions = append(partitions, p)
		}
	}
	for p, o := range changes {
		if o != nil {
			partitions = append(partitions, p)
		}
	}
	if len(partitions) == 0 {
		return nil, nil
	}
	slices.Sort(partitions)
	b := fmt.Appendf(make([]byte, 0, 64+len(partitions)*40), `{"format":%d,"offsets":[`, storedFormat)
	for i, p := range partitions {
		o, changed := changes[p]
		if !changed {
			o = c.parts[p]
		}
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = o.append(b, p); err != nil {
			return nil, err
		}
	}
	return append(b, "]}"...), nil
}

func (o *offset) append(b []byte, partition int32) ([]byte, error) {
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(partition), 10)
	for _, n := range []int64{o.offset, int64(o.epoch), o.at.UnixMilli()} {
		b = strconv.AppendInt(append(b, ','), n, 10)
	}
	if o.metadata == "" && o.expires.IsZero() {
		return append(b, ']'), nil
	}
	var expires int64
	if !o.expires.IsZero() {
		expires = o.expires.UnixMilli()
	}
	b = strconv.AppendInt(append(b, ','), expires, 10)
	m, err := text(o.metadata).MarshalJSON()
	b = append(append(b, ','), m...)
	return append(b, ']'), err
}

func decodeChunk(id chunkID, e metadata.Entry) (*chunk, error) {
	var sc storedChunk
	if err := json.Unmarshal(e.Value, &sc); err != nil {
		return nil, err
	}
	if sc.Format != storedFormat {
		return nil, fmt.Errorf("chunk has format %d, not %d", sc.Format, storedFormat)
	}
	c := newChunk()
	c.rev = e.ModRevision
	changes := make(map[int32]*offset, len(sc.Offsets))
	for _, fields := range sc.Offsets {
		p, o, err := decodeOffset(fields)
		if err != nil {
			return nil, err
		}
		if p < 0 || p/chunkPartitions != id.chunk {
			return nil, fmt.Errorf("partition %d in chunk %d", p, id.chunk)
		}
		changes[p] = o
	}
	c.apply(changes)
	return c, nil
}

func decodeOffset(fields []json.RawMessage) (int32, *offset, error) {
	var (
		p           int32
		at, expires int64
		m           text
		o           = &offset{}
	)
	if len(fields) != 4 && len(fields) != 6 {
		return 0, nil, fmt.Errorf("offset of %d fields", len(fields))
	}
	for i, to := range []any{&p, &o.offset, &o.epoch, &at, &expires, &m}[:len(fields)] {
		if err := json.Unmarshal(fields[i], to); err != nil {
			return 0, nil, err
		}
	}
	o.at, o.metadata = time.UnixMilli(at), string(m)
	if expires != 0 {
		o.expires = time.UnixMilli(expires)
	}
	return p, o, nil
}
