package wal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tidemark-io/tidemark/metadata"
)

var (
	// ErrMalformed: the bytes are not what this package writes, or are damaged.
	ErrMalformed = errors.New("malformed object")
	// ErrVersion: written by a newer major version. Refuse to lead or seal.
	ErrVersion = errors.New("object format is newer than this program")
	// ErrCutShort: more bytes of the head are needed; see HeadLen.
	ErrCutShort = errors.New("head is cut short")
)

// Kind tells what an object is for.
type Kind byte

// START is slot 0 of a chain, DATA carries extents and records, CLOSE is a
// graceful end, FENCE is another broker's end of the chain.
const (
	Start Kind = 1 + iota
	Data
	Close
	Fence
)

// String is for logs.
func (k Kind) String() string {
	switch k {
	case Start:
		return "START"
	case Data:
		return "DATA"
	case Close:
		return "CLOSE"
	case Fence:
		return "FENCE"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

const (
	magicObject = "TIDEMARK"
	major       = 3 // what is written
	majorMin    = 2 // the oldest that is read: it has no transactions
	minor       = 0
	// HeaderLen is the fixed part; DigestLen ends the head.
	HeaderLen = 152
	DigestLen = sha256.Size
	// MaxHead bounds a head: 16 MiB of the smallest batches index to less.
	MaxHead = 64 << 20
)

// ClusterID is the cluster's identity as 16 bytes.
type ClusterID [16]byte

// Digest identifies an object's bytes.
type Digest [DigestLen]byte

// Head is an object without its data.
type Head struct {
	Kind         Kind
	Cluster      ClusterID
	Incarnation  metadata.Incarnation
	Slot         uint64
	Previous     Digest
	Acknowledged uint64
	Checkpoint   uint64
	Writer       metadata.Incarnation
	DataLen      int64
	DataHash     uint64
	Extents      []Extent
	Records      []Record

	// Len and Digest are set by EncodeHead and DecodeHead.
	Len    int
	Digest Digest
}

// EncodeHead returns the head's bytes and sets h.Len and h.Digest.
func EncodeHead(h *Head) []byte {
	size := HeaderLen + DigestLen
	for i := range h.Extents {
		size += 64 + len(h.Extents[i].Rows)*24
	}
	for i := range h.Records {
		size += 48 + len(h.Records[i].State)
	}
	b := make([]byte, HeaderLen, size)
	for i := range h.Extents {
		b = appendExtent(b, &h.Extents[i])
	}
	indexLen := len(b) - HeaderLen
	for i := range h.Records {
		b = appendRecord(b, &h.Records[i])
	}
	recordsLen := len(b) - HeaderLen - indexLen
	h.Len = len(b) + DigestLen

	be := binary.BigEndian
	copy(b, magicObject)
	be.PutUint16(b[8:], major)
	be.PutUint16(b[10:], minor)
	b[12] = byte(h.Kind)
	copy(b[16:], h.Cluster[:])
	be.PutUint64(b[32:], uint64(h.Incarnation))
	be.PutUint64(b[40:], h.Slot)
	copy(b[48:], h.Previous[:])
	be.PutUint64(b[80:], h.Acknowledged)
	be.PutUint64(b[88:], h.Checkpoint)
	be.PutUint32(b[96:], uint32(h.Len))
	be.PutUint32(b[100:], uint32(indexLen))
	be.PutUint32(b[104:], uint32(recordsLen))
	be.PutUint32(b[108:], uint32(len(h.Extents)))
	be.PutUint64(b[112:], uint64(h.DataLen))
	be.PutUint64(b[120:], h.DataHash)
	be.PutUint64(b[128:], uint64(h.Writer))
	be.PutUint32(b[144:], crc32.Checksum(b[HeaderLen:], castagnoli))
	be.PutUint32(b[148:], crc32.Checksum(b[:148], castagnoli))
	h.Digest = sha256.Sum256(b)
	return append(b, h.Digest[:]...)
}

// readable checks the major version of an object that begins with b.
func readable(b []byte) error {
	switch v := binary.BigEndian.Uint16(b[8:]); {
	case v > major:
		return fmt.Errorf("%w: major %d", ErrVersion, v)
	case v < majorMin:
		return fmt.Errorf("%w: major %d", ErrMalformed, v)
	}
	return nil
}

// HeadLen returns the length of the whole head, given at least its header.
func HeadLen(b []byte) (int, error) {
	if len(b) < HeaderLen {
		return 0, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if string(b[:8]) != magicObject {
		return 0, fmt.Errorf("%w: magic %q", ErrMalformed, b[:8])
	}
	if err := readable(b); err != nil {
		return 0, err
	}
	if crc32.Checksum(b[:148], castagnoli) != binary.BigEndian.Uint32(b[148:]) {
		return 0, fmt.Errorf("%w: header CRC32C", ErrMalformed)
	}
	n := binary.BigEndian.Uint32(b[96:])
	index, records := uint64(binary.BigEndian.Uint32(b[100:])), uint64(binary.BigEndian.Uint32(b[104:]))
	if n > MaxHead || uint64(n) != HeaderLen+index+records+DigestLen {
		return 0, fmt.Errorf("%w: head length %d", ErrMalformed, n)
	}
	return int(n), nil
}

// DecodeHead decodes and verifies a head; b may go on with data. It returns
// ErrCutShort when b is a proper prefix of a head.
func DecodeHead(b []byte) (*Head, error) {
	n, err := HeadLen(b)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, ErrCutShort
	}
	be := binary.BigEndian
	h := &Head{
		Kind:         Kind(b[12]),
		Incarnation:  metadata.Incarnation(be.Uint64(b[32:])),
		Slot:         be.Uint64(b[40:]),
		Acknowledged: be.Uint64(b[80:]),
		Checkpoint:   be.Uint64(b[88:]),
		DataLen:      int64(be.Uint64(b[112:])),
		DataHash:     be.Uint64(b[120:]),
		Writer:       metadata.Incarnation(be.Uint64(b[128:])),
		Len:          n,
	}
	copy(h.Cluster[:], b[16:])
	copy(h.Previous[:], b[48:])
	h.Digest = sha256.Sum256(b[:n-DigestLen])
	if string(h.Digest[:]) != string(b[n-DigestLen:n]) {
		return nil, fmt.Errorf("%w: digest", ErrMalformed)
	}
	if crc32.Checksum(b[HeaderLen:n-DigestLen], castagnoli) != be.Uint32(b[144:]) {
		return nil, fmt.Errorf("%w: body CRC32C", ErrMalformed)
	}
	if h.Kind < Start || h.Kind > Fence {
		return nil, fmt.Errorf("%w: kind %d", ErrMalformed, h.Kind)
	}
	if h.DataLen < 0 {
		return nil, fmt.Errorf("%w: data length", ErrMalformed)
	}
	indexEnd := HeaderLen + int(be.Uint32(b[100:]))
	if h.Extents, err = decodeIndex(b[HeaderLen:indexEnd], int(be.Uint32(b[108:])), h.DataLen); err != nil {
		return nil, err
	}
	if h.Records, err = decodeRecords(b[indexEnd : n-DigestLen]); err != nil {
		return nil, err
	}
	return h, nil
}
