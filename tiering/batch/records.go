package batch

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Record is one record of a batch. The slices point into the bytes it was read
// from; a nil Key or Value is Kafka's null.
type Record struct {
	OffsetDelta    int32
	TimestampDelta int64
	Key, Value     []byte
	Headers        int // how many
}

// Payload returns the records of a batch, inflated when they are compressed. b
// is exactly one batch. An inflated payload of more than inflatedMax bytes is
// ErrTooLarge; memory grows with what is inflated, not with what is claimed.
func Payload(b []byte, h *Header, inflatedMax int) ([]byte, error) {
	if h.Codec() == None {
		return b[HeaderLen:], nil
	}
	return Inflate(h.Codec(), b[HeaderLen:], inflatedMax)
}

// Walk calls f for each of count records laid end to end in payload and checks
// that they fill it exactly: every length, and that offset deltas count up from
// 0. It stops at the first error of f. It is ErrInvalid when anything is amiss.
func Walk(payload []byte, count int32, f func(*Record) error) error {
	var r Record
	for i := range count {
		rest, err := r.read(payload)
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if r.OffsetDelta != i {
			return fmt.Errorf("record %d: %w: offset delta %d", i, ErrInvalid, r.OffsetDelta)
		}
		if err := f(&r); err != nil {
			return err
		}
		payload = rest
	}
	if len(payload) != 0 {
		return fmt.Errorf("%w: %d bytes after the last record", ErrInvalid, len(payload))
	}
	return nil
}

// read decodes the first record of b and returns what follows it.
func (r *Record) read(b []byte) (rest []byte, err error) {
	length, n := binary.Varint(b)
	if n <= 0 || length < 0 || length > int64(len(b)-n) {
		return nil, fmt.Errorf("%w: length", ErrInvalid)
	}
	c := cursor{b: b[n : n+int(length)]}
	rest = b[n+int(length):]
	c.skip(1) // attributes, unused
	r.TimestampDelta = c.varint(math.MaxInt64)
	r.OffsetDelta = int32(c.varint(math.MaxInt32))
	r.Key = c.bytes()
	r.Value = c.bytes()
	headers := c.varint(math.MaxInt32)
	if headers < 0 || headers > int64(len(c.b)) {
		c.bad = true
		headers = 0
	}
	r.Headers = int(headers)
	for i := 0; i < r.Headers && !c.bad; i++ {
		if key := c.bytes(); key == nil {
			c.bad = true // a header key is never null
		}
		c.bytes()
	}
	if c.bad || len(c.b) != 0 {
		return nil, fmt.Errorf("%w: fields do not fill the record", ErrInvalid)
	}
	return rest, nil
}

// cursor reads a record's fields; after a mistake bad is set and stays set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) skip(n int) {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return
	}
	c.b = c.b[n:]
}

// varint reads a zigzag integer of a magnitude up to limit.
func (c *cursor) varint(limit int64) int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 || v > limit || v < -limit-1 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

var empty = []byte{}

// bytes reads a length and so many bytes; a length of -1 is null, nil.
func (c *cursor) bytes() []byte {
	n := c.varint(math.MaxInt32)
	switch {
	case n == -1 || c.bad:
		return nil
	case n < 0 || n > int64(len(c.b)):
		c.bad, c.b = true, nil
		return nil
	case n == 0:
		return empty
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}
