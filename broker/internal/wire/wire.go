// Package wire bounds what a request costs before it is decoded.
//
// kmsg's decoders allocate an array as soon as its count is at most the number
// of bytes left, and loop over as many tagged fields as are claimed. An element
// may be a hundred times larger in memory than on the wire, so a frame of
// hostile counts could cost a hundred times its size, or minutes of a core.
// Check walks the bytes with a schema of each request, allocates nothing, and
// adds up what decoding would allocate: the memory of each array's elements as
// its count is met, before the elements are looked at, and the strings, which
// are copied. Byte fields (records, assignments) are not copied and cost
// nothing. Only a request that passes is decoded.
//
// The schemas are generated from kmsg's own declarations; a test encodes every
// request at every version and checks that the walk ends at the last byte.
package wire

//go:generate go run ./gen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

var (
	// ErrMalformed: the bytes are not a request of this key and version.
	ErrMalformed = errors.New("malformed request")
	// ErrCostly: decoding would take more memory than allowed.
	ErrCostly = errors.New("request takes too much memory to decode")
)

// TagsMax bounds the tagged fields of one structure. Kafka's richest has six.
const TagsMax = 64

const maxVersion = math.MaxInt16

type kind uint8

const (
	fixed    kind = iota // width bytes
	text                 // a string, nullable or not
	blob                 // bytes, nullable or not
	array                // of elem
	inline               // a structure in place
	nullable             // one byte, then a structure unless that is -1
)

type field struct {
	min, max int16
	kind     kind
	width    int
	elem     *structure
}

// structure is a struct on the wire. bare marks an array element that is not a
// struct and so carries no tagged fields.
type structure struct {
	size   uintptr
	bare   bool
	fields []field
}

// Known reports whether there is a schema for the key.
func Known(key int16) bool { return schemas[key] != nil }

// Check walks the body of a request of the given key and version. It returns
// the bytes that decoding would allocate, ErrMalformed when the body is cut
// short or contradicts itself, and ErrCostly when the cost exceeds budget. Bytes
// after the request are ignored, as Kafka ignores them.
func Check(key, version int16, flexible bool, body []byte, budget int64) (int64, error) {
	cost, _, err := walk(key, version, flexible, body, budget)
	return cost, err
}

func walk(key, version int16, flexible bool, body []byte, budget int64) (cost int64, rest []byte, err error) {
	s := schemas[key]
	if s == nil {
		return 0, nil, fmt.Errorf("%w: unknown key %d", ErrMalformed, key)
	}
	w := walker{src: body, version: version, flexible: flexible, budget: budget, left: budget - int64(s.size)}
	w.structure(s)
	return w.budget - w.left, w.src, w.err
}

// Tags skips one block of tagged fields at the start of src, as a flexible
// request header ends in, and returns what follows.
func Tags(src []byte) ([]byte, error) {
	w := walker{src: src}
	w.tags()
	return w.src, w.err
}

type walker struct {
	src      []byte
	version  int16
	flexible bool
	budget   int64
	left     int64
	err      error
}

func (w *walker) fail(what string) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	w.src = nil
}

func (w *walker) spend(n int64) bool {
	if w.left -= n; w.left < 0 {
		if w.err == nil {
			w.err = ErrCostly
		}
		w.src = nil
		return false
	}
	return true
}

func (w *walker) skip(n int) {
	if n < 0 || n > len(w.src) {
		w.fail("cut short")
		return
	}
	w.src = w.src[n:]
}

func (w *walker) structure(s *structure) {
	for i := range s.fields {
		f := &s.fields[i]
		if w.version < f.min || w.version > f.max {
			continue
		}
		w.field(f)
		if w.err != nil {
			return
		}
	}
	if w.flexible && !s.bare {
		w.tags()
	}
}

func (w *walker) field(f *field) {
	switch f.kind {
	case fixed:
		w.skip(f.width)
	case text:
		n := w.length(2)
		if n > 0 && w.spend(int64(n)) {
			w.skip(n)
		}
	case blob:
		if n := w.length(4); n > 0 {
			w.skip(n)
		}
	case array:
		w.array(f.elem)
	case inline:
		w.structure(f.elem)
	case nullable:
		if len(w.src) == 0 {
			w.fail("cut short")
			return
		}
		present := int8(w.src[0]) != -1
		w.skip(1)
		if present && w.spend(int64(f.elem.size)) {
			w.structure(f.elem)
		}
	}
}

func (w *walker) array(elem *structure) {
	n := w.length(4)
	if n <= 0 {
		return
	}
	if n > len(w.src) {
		w.fail("array count exceeds the bytes left")
		return
	}
	if !w.spend(int64(n) * int64(elem.size)) {
		return
	}
	for i := 0; i < n && w.err == nil; i++ {
		w.structure(elem)
	}
}

// length reads a length or count: a compact one when flexible, else a signed
// integer of width bytes. Null is -1.
func (w *walker) length(width int) int {
	if w.flexible {
		return int(w.uvarint()) - 1
	}
	if len(w.src) < width {
		w.fail("cut short")
		return -1
	}
	var n int
	if width == 2 {
		n = int(int16(binary.BigEndian.Uint16(w.src)))
	} else {
		n = int(int32(binary.BigEndian.Uint32(w.src)))
	}
	w.src = w.src[width:]
	if n < -1 {
		w.fail("negative length")
		return -1
	}
	return n
}

// uvarint reads an unsigned variable-length integer of at most 5 bytes.
func (w *walker) uvarint() uint32 {
	var v uint64
	for i := 0; i < 5; i++ {
		if i >= len(w.src) {
			w.fail("cut short")
			return 0
		}
		b := w.src[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			w.src = w.src[i+1:]
			if v > math.MaxInt32 {
				w.fail("varint out of range")
				return 0
			}
			return uint32(v)
		}
	}
	w.fail("varint too long")
	return 0
}

func (w *walker) tags() {
	n := w.uvarint()
	if n > TagsMax {
		w.fail("too many tagged fields")
		return
	}
	for i := uint32(0); i < n && w.err == nil; i++ {
		w.uvarint()
		// An unknown tag lands in a map entry; 64 is a generous guess.
		if size := w.uvarint(); w.err == nil && w.budget > 0 && !w.spend(int64(size)+64) {
			return
		} else if w.err == nil {
			w.skip(int(size))
		}
	}
}
