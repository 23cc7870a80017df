package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	magicCheckpoint = "TIDECKPT"
	magicPage       = "TIDEPAGE"
	magicSegments   = "TIDESGPG"
	magicAborted    = "TIDEABPG"
	envelopeLen     = 64
	// maxBody bounds a checkpoint or page before it is inflated.
	maxBody = 1 << 30
)

// PageEntries is how many extents a page holds.
const PageEntries = 1024

// seal wraps a body in the envelope of package comment "Checkpoint and page".
func seal(magic string, cluster ClusterID, inc metadata.Incarnation, number uint64, body []byte) ([]byte, error) {
	if len(body) > maxBody {
		return nil, fmt.Errorf("%s of %d bytes is larger than %d, which readers accept", magic, len(body), maxBody)
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	b := w.EncodeAll(body, make([]byte, envelopeLen, envelopeLen+len(body)/2+64))
	be := binary.BigEndian
	copy(b, magic)
	be.PutUint16(b[8:], major)
	be.PutUint16(b[10:], minor)
	copy(b[16:], cluster[:])
	be.PutUint64(b[32:], uint64(inc))
	be.PutUint64(b[40:], number)
	be.PutUint64(b[48:], uint64(len(body)))
	be.PutUint32(b[56:], crc32.Checksum(b[envelopeLen:], castagnoli))
	be.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b, nil
}

type envelope struct {
	cluster ClusterID
	inc     metadata.Incarnation
	number  uint64
	body    []byte
}

func unseal(magic string, b []byte) (e envelope, err error) {
	be := binary.BigEndian
	if len(b) < envelopeLen || string(b[:8]) != magic {
		return e, fmt.Errorf("%w: not a %s", ErrMalformed, magic)
	}
	if err := readable(b); err != nil {
		return e, err
	}
	if crc32.Checksum(b[:60], castagnoli) != be.Uint32(b[60:]) {
		return e, fmt.Errorf("%w: header CRC32C", ErrMalformed)
	}
	if crc32.Checksum(b[envelopeLen:], castagnoli) != be.Uint32(b[56:]) {
		return e, fmt.Errorf("%w: body CRC32C", ErrMalformed)
	}
	raw := be.Uint64(b[48:])
	if raw > maxBody {
		return e, fmt.Errorf("%w: body of %d bytes", ErrMalformed, raw)
	}
	copy(e.cluster[:], b[16:])
	e.inc = metadata.Incarnation(be.Uint64(b[32:]))
	e.number = be.Uint64(b[40:])
	if e.body, err = Inflate(b[envelopeLen:], int64(raw)); err != nil {
		return e, err
	}
	return e, nil
}

// Inflate decompresses one zstd frame of exactly raw bytes.
func Inflate(stored []byte, raw int64) ([]byte, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(raw, 1<<20))))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// A frame inflates at most about 1:32,000 a block; trust the claim only for
	// the first MiB and let the slice grow with what is really there.
	body, err := r.DecodeAll(stored, make([]byte, 0, min(raw, 1<<20)))
	if err != nil || int64(len(body)) != raw {
		return nil, fmt.Errorf("%w: zstd frame of %d bytes, %d claimed: %v", ErrMalformed, len(body), raw, err)
	}
	return body, nil
}

// AppendToCheckpoint adds a partition state that AppendState encoded to the
// states of a checkpoint.
func AppendToCheckpoint(states, state []byte) []byte { return appendBytes(states, state) }

// EncodeCheckpoint wraps states that AppendToCheckpoint gathered, count of them,
// as the checkpoint of everything in the chain before slot.
func EncodeCheckpoint(cluster ClusterID, inc metadata.Incarnation, slot uint64, count int, states []byte) ([]byte, error) {
	body := binary.AppendUvarint(make([]byte, 0, len(states)+8), uint64(count))
	return seal(magicCheckpoint, cluster, inc, slot, append(body, states...))
}

// DecodeCheckpoint returns the states of the checkpoint of inc at slot.
func DecodeCheckpoint(b []byte, cluster ClusterID, inc metadata.Incarnation, slot uint64) ([]*PartitionState, error) {
	e, err := unseal(magicCheckpoint, b)
	if err != nil {
		return nil, err
	}
	if e.cluster != cluster || e.inc != inc || e.number != slot {
		return nil, fmt.Errorf("%w: checkpoint of %s at %d found where %s at %d belongs", ErrMalformed, e.inc, e.number, inc, slot)
	}
	d := &decoder{b: e.body}
	states := make([]*PartitionState, d.count(stateMinLen, "partitions"))
	for i := range states {
		one := &decoder{b: d.bytes("partition state")}
		if d.err != nil {
			return nil, d.err
		}
		if states[i] = decodeState(one); one.err != nil {
			return nil, one.err
		}
	}
	return states, nil
}

// EncodePage writes manifest entries that a leader moved out of its tail.
func EncodePage(cluster ClusterID, inc metadata.Incarnation, number uint32, refs []ExtentRef) ([]byte, error) {
	return seal(magicPage, cluster, inc, uint64(number), appendRefs(nil, refs))
}

// DecodePage reads a page's entries.
func DecodePage(b []byte, cluster ClusterID, ref PageRef) ([]ExtentRef, error) {
	e, err := unsealPage(magicPage, b, cluster, ref)
	if err != nil {
		return nil, err
	}
	d := &decoder{b: e.body}
	refs := decodeRefs(d)
	if d.err != nil {
		return nil, d.err
	}
	return refs, checkPage(ref, len(refs), func(i int) (base, last int64) { return refs[i].Base, refs[i].Last })
}

// EncodeSegmentPage writes segments that a leader moved out of its manifest.
func EncodeSegmentPage(cluster ClusterID, inc metadata.Incarnation, number uint32, refs []SegmentRef) ([]byte, error) {
	return seal(magicSegments, cluster, inc, uint64(number), appendSegmentRefs(nil, refs))
}

// DecodeSegmentPage reads a page of segments.
func DecodeSegmentPage(b []byte, cluster ClusterID, ref PageRef) ([]SegmentRef, error) {
	e, err := unsealPage(magicSegments, b, cluster, ref)
	if err != nil {
		return nil, err
	}
	d := &decoder{b: e.body}
	refs := decodeSegmentRefs(d)
	if d.err != nil {
		return nil, d.err
	}
	return refs, checkPage(ref, len(refs), func(i int) (base, last int64) { return refs[i].Base, refs[i].Last })
}

func unsealPage(magic string, b []byte, cluster ClusterID, ref PageRef) (envelope, error) {
	e, err := unseal(magic, b)
	if err == nil && (e.cluster != cluster || e.number != uint64(ref.Number)) {
		err = fmt.Errorf("%w: page %d found where %d belongs", ErrMalformed, e.number, ref.Number)
	}
	return e, err
}

// checkPage checks that the entries of a page cover what the manifest says.
func checkPage(ref PageRef, n int, entry func(int) (base, last int64)) error {
	next := ref.Base
	for i := range n {
		base, last := entry(i)
		if base != next {
			return fmt.Errorf("%w: page %d has offset %d where %d belongs", ErrMalformed, ref.Number, base, next)
		}
		next = last + 1
	}
	if n == 0 || next != ref.Last+1 {
		return fmt.Errorf("%w: page %d does not cover offsets %d to %d", ErrMalformed, ref.Number, ref.Base, ref.Last)
	}
	return nil
}

// PageLast is the last offset that a page, of extents or of segments, names.
func PageLast(b []byte, cluster ClusterID) (int64, error) {
	e, err := unseal(magicPage, b)
	segments := err != nil
	if segments {
		e, err = unseal(magicSegments, b)
	}
	if err != nil {
		return 0, err
	}
	if e.cluster != cluster {
		return 0, fmt.Errorf("%w: page of another cluster", ErrMalformed)
	}
	d := &decoder{b: e.body}
	last := int64(-1)
	if segments {
		for _, ref := range decodeSegmentRefs(d) {
			last = max(last, ref.Last)
		}
	} else {
		for _, ref := range decodeRefs(d) {
			last = max(last, ref.Last)
		}
	}
	return last, d.err
}
