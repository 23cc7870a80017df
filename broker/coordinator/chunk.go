package coordinator

import (
	"bytes"
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

// chunk is up to 64 partitions' offsets as they are stored. A partition of which
// there is nothing is not in parts.
type chunk struct {
	rev   int64 // 0: not stored
	parts map[int32]place
	size  int // bounds the encoded length
	// batch is the transaction that is about to change the chunk.
	batch *batch
}

func newChunk() *chunk { return &chunk{parts: map[int32]place{}} }

// sizeWith bounds the encoded length after changes.
func (c *chunk) sizeWith(changes ...map[int32]place) int {
	size, seen := c.size, map[int32]place{}
	for _, parts := range changes {
		for p, now := range parts {
			old, ok := seen[p]
			if !ok {
				old = c.parts[p]
			}
			size += now.size() - old.size()
			seen[p] = now
		}
	}
	return size
}

// apply makes the changes in memory.
func (c *chunk) apply(changes map[int32]place) {
	c.size = c.sizeWith(changes)
	for p, now := range changes {
		if now.empty() {
			delete(c.parts, p)
		} else {
			c.parts[p] = now
		}
	}
}

// A chunk's value is {"format":1,"offsets":[[partition,offset,leader epoch,commit
// time],...]}, times in milliseconds. An offset with metadata, or with an expiry
// of its own, goes on with that time, 0 for none, and the metadata. Arrays,
// because every commit writes the chunk whole.
//
// In a chunk of format 2 transactions are under way: "pending" lists their
// offsets like the others, each after [producer id,epoch, in the order of a
// partition's commits.
type storedChunk struct {
	Format  int                 `json:"format"`
	Offsets [][]json.RawMessage `json:"offsets"`
	Pending [][]json.RawMessage `json:"pending"`
}

const pendingFormat = 2

// encode is the value of the chunk once changes are applied, or nil when no
// offset remains.
func (c *chunk) encode(changes map[int32]place) ([]byte, error) {
	var partitions []int32
	for p := range c.parts {
		if _, changed := changes[p]; !changed {
			partitions = append(partitions, p)
		}
	}
	pending := false
	for p, now := range changes {
		if !now.empty() {
			partitions = append(partitions, p)
		}
	}
	if len(partitions) == 0 {
		return nil, nil
	}
	slices.Sort(partitions)
	at := func(p int32) place {
		now, changed := changes[p]
		if !changed {
			now = c.parts[p]
		}
		return now
	}
	format := storedFormat
	for _, p := range partitions {
		if len(at(p).pending) > 0 {
			format, pending = pendingFormat, true
		}
	}
	b := fmt.Appendf(make([]byte, 0, 64+len(partitions)*40), `{"format":%d,"offsets":[`, format)
	var err error
	for _, p := range partitions {
		if o := at(p).offset; o != nil {
			if b, err = o.append(append(b, '['), p); err != nil {
				return nil, err
			}
			b = append(b, ',')
		}
	}
	b = bytes.TrimSuffix(b, []byte{','})
	if pending {
		b = append(b, `],"pending":[`...)
		for _, p := range partitions {
			for _, w := range at(p).pending {
				b = fmt.Appendf(b, "[%d,%d,", w.producer.ID, w.producer.Epoch)
				if b, err = w.offset.append(b, p); err != nil {
					return nil, err
				}
				b = append(b, ',')
			}
		}
		b = bytes.TrimSuffix(b, []byte{','})
	}
	return append(b, "]}"...), nil
}

// append goes on with an array that was begun.
func (o *offset) append(b []byte, partition int32) ([]byte, error) {
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
	if sc.Format != storedFormat && sc.Format != pendingFormat {
		return nil, fmt.Errorf("chunk has format %d, neither %d nor %d", sc.Format, storedFormat, pendingFormat)
	}
	c := newChunk()
	c.rev = e.ModRevision
	changes := make(map[int32]place, len(sc.Offsets))
	for _, fields := range sc.Offsets {
		p, o, err := id.decode(fields)
		if err != nil {
			return nil, err
		}
		changes[p] = place{offset: o}
	}
	for _, fields := range sc.Pending {
		var w pending
		if len(fields) < 2 {
			return nil, fmt.Errorf("pending offset of %d fields", len(fields))
		}
		for i, to := range []any{&w.producer.ID, &w.producer.Epoch} {
			if err := json.Unmarshal(fields[i], to); err != nil {
				return nil, err
			}
		}
		p, o, err := id.decode(fields[2:])
		if err != nil {
			return nil, err
		}
		now := changes[p]
		w.offset = o
		now.pending = append(now.pending, w)
		changes[p] = now
	}
	c.apply(changes)
	return c, nil
}

// decode decodes an offset of the chunk.
func (id chunkID) decode(fields []json.RawMessage) (int32, *offset, error) {
	p, o, err := decodeOffset(fields)
	if err == nil && (p < 0 || p/chunkPartitions != id.chunk) {
		err = fmt.Errorf("partition %d in chunk %d", p, id.chunk)
	}
	return p, o, err
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
