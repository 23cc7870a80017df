package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	magicSegment     = "TIDESEGM"
	segmentHeaderLen = 96
	segmentShared    = 1
	blockZstd        = 1
	blockMinLen      = 1 + 1 + 1 + 1 + 1 + 4
	sectionMinLen    = 16 + 1 + 1 + 1 + 1 + 1 + 8 + 3 + 8 + 1 + 1

	extraProducers = 1
	// 2 is kept for aborted transactions, 3 for key blocks.
)

// SegmentHead is a segment without its data.
type SegmentHead struct {
	Cluster     ClusterID
	Incarnation metadata.Incarnation // that wrote it
	Shared      bool
	ID          ULID
	Created     int64 // milliseconds since the epoch
	DataLen     int64
	DataCRC     uint32 // CRC32C of all data
	Sections    []Section

	// Len is set by EncodeSegmentHead and DecodeSegmentHead.
	Len int
}

// Section is what a segment holds of one partition.
type Section struct {
	Partition metadata.TopicPartition
	Epoch     int32 // the leader epoch under which it was written
	Base      int64
	Start     int64 // position of the first block in the object; set when encoded
	Data      DataDigest
	Blocks    []Block
	// Producers is what the section's batches did to the idempotent producers:
	// folded in order, sections yield the state at their end.
	Producers []Producer
}

// Block is a run of whole batches of one leader epoch. Blocks lie one after the
// other and their offsets follow one another.
type Block struct {
	Epoch        int32
	Zstd         bool  // stored as one zstd frame of RawLen bytes
	Len          int64 // stored
	RawLen       int64 // as served; equals Len unless Zstd
	Base, Last   int64
	MaxTimestamp int64
	CRC          uint32 // CRC32C of the stored bytes
}

// Last is the section's last offset.
func (s *Section) Last() int64 {
	if len(s.Blocks) == 0 {
		return s.Base - 1
	}
	return s.Blocks[len(s.Blocks)-1].Last
}

// Extents lists the blocks as what a reader reads; key is the object's.
func (s *Section) Extents(key string) []ExtentRef {
	refs := make([]ExtentRef, len(s.Blocks))
	at := s.Start
	for i := range s.Blocks {
		b := &s.Blocks[i]
		refs[i] = ExtentRef{
			Object: key, Position: at, Len: b.Len, RawLen: b.RawLen, Zstd: b.Zstd,
			Base: b.Base, Last: b.Last, MaxTimestamp: b.MaxTimestamp, Epoch: b.Epoch, CRC: b.CRC,
		}
		at += b.Len
	}
	return refs
}

// ref is the section as a manifest entry, but for its place.
func (s *Section) ref(h *SegmentHead) SegmentRef {
	r := SegmentRef{
		Shared: h.Shared, Incarnation: h.Incarnation, Epoch: s.Epoch, ID: h.ID,
		Base: s.Base, Last: s.Last(), MaxTimestamp: -1, Data: s.Data,
	}
	for i := range s.Blocks {
		r.MaxTimestamp = max(r.MaxTimestamp, s.Blocks[i].MaxTimestamp)
		r.Stored += s.Blocks[i].Len
	}
	return r
}

// EncodeSegmentHead returns the head's bytes, sets h.Len and where each section's
// blocks begin, and returns what manifests say of the sections. The data is the
// sections' blocks in order.
func EncodeSegmentHead(h *SegmentHead) ([]byte, []SegmentRef, error) {
	b := make([]byte, segmentHeaderLen, segmentHeaderLen+64*len(h.Sections))
	refs := make([]SegmentRef, len(h.Sections))
	starts := make([]int, len(h.Sections)) // where Start is to be filled in
	for i := range h.Sections {
		s := &h.Sections[i]
		body, start := appendSection(nil, s)
		refs[i] = s.ref(h)
		b = binary.AppendUvarint(b, uint64(len(body)))
		refs[i].Position, refs[i].Len = int64(len(b)), int64(len(body))
		starts[i] = len(b) + start
		b = append(b, body...)
	}
	if len(b) > MaxHead {
		return nil, nil, fmt.Errorf("segment index of %d bytes is larger than %d, which readers accept", len(b), MaxHead)
	}
	h.Len = len(b)
	be := binary.BigEndian
	at := int64(h.Len)
	for i := range refs {
		h.Sections[i].Start = at
		be.PutUint64(b[starts[i]:], uint64(at))
		at += refs[i].Stored
		refs[i].CRC = crc32.Checksum(b[refs[i].Position:refs[i].Position+refs[i].Len], castagnoli)
	}
	if at-int64(h.Len) != h.DataLen {
		return nil, nil, fmt.Errorf("segment of %d data bytes indexes %d", h.DataLen, at-int64(h.Len))
	}
	copy(b, magicSegment)
	be.PutUint16(b[8:], major)
	be.PutUint16(b[10:], minor)
	if h.Shared {
		b[12] = segmentShared
	}
	copy(b[16:], h.Cluster[:])
	be.PutUint64(b[32:], uint64(h.Incarnation))
	copy(b[40:], h.ID[:])
	be.PutUint64(b[56:], uint64(h.Created))
	be.PutUint32(b[64:], uint32(h.Len))
	be.PutUint32(b[68:], uint32(len(h.Sections)))
	be.PutUint64(b[72:], uint64(h.DataLen))
	be.PutUint32(b[80:], h.DataCRC)
	be.PutUint32(b[84:], crc32.Checksum(b[segmentHeaderLen:], castagnoli))
	be.PutUint32(b[92:], crc32.Checksum(b[:92], castagnoli))
	return b, refs, nil
}

// appendSection also returns where the 8 bytes of Start lie.
func appendSection(b []byte, s *Section) (body []byte, start int) {
	b = appendTopicPartition(b, s.Partition)
	b = binary.AppendUvarint(b, uint64(s.Epoch))
	b = binary.AppendUvarint(b, uint64(s.Base))
	start = len(b)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Start))
	b = appendDigest(b, s.Data)
	b = binary.AppendUvarint(b, uint64(len(s.Blocks)))
	base := s.Base
	for i := range s.Blocks {
		k := &s.Blocks[i]
		var flags byte
		if k.Zstd {
			flags = blockZstd
		}
		b = append(b, flags)
		b = binary.AppendUvarint(b, uint64(k.Epoch))
		b = binary.AppendUvarint(b, uint64(k.Len))
		if k.Zstd {
			b = binary.AppendUvarint(b, uint64(k.RawLen))
		}
		b = binary.AppendUvarint(b, uint64(k.Last-base))
		b = binary.AppendVarint(b, k.MaxTimestamp)
		b = binary.BigEndian.AppendUint32(b, k.CRC)
		base = k.Last + 1
	}
	if len(s.Producers) == 0 {
		return append(b, 0), start
	}
	b = append(b, 1, extraProducers)
	return appendBytes(b, appendProducers(nil, s.Producers)), start
}

// DecodeSection decodes and verifies the section that ref, an entry of the
// manifest of tp, names.
func DecodeSection(b []byte, tp metadata.TopicPartition, ref *SegmentRef) (*Section, error) {
	if int64(len(b)) != ref.Len || crc32.Checksum(b, castagnoli) != ref.CRC {
		return nil, fmt.Errorf("%w: section CRC32C", ErrMalformed)
	}
	s, err := decodeSection(b)
	if err != nil {
		return nil, err
	}
	says := s.ref(&SegmentHead{Shared: ref.Shared, Incarnation: ref.Incarnation, ID: ref.ID})
	says.Position, says.Len, says.CRC = ref.Position, ref.Len, ref.CRC
	if s.Partition != tp || says != *ref {
		return nil, fmt.Errorf("%w: section of %s from offset %d to %d found where %s from %d to %d belongs", ErrMalformed, s.Partition, s.Base, s.Last(), tp, ref.Base, ref.Last)
	}
	return s, nil
}

func decodeSection(b []byte) (*Section, error) {
	d := &decoder{b: b}
	s := &Section{Partition: d.topicPartition()}
	s.Epoch = int32(d.uvarint(math.MaxInt32, "leader epoch"))
	s.Base = int64(d.uvarint(math.MaxInt64, "base offset"))
	s.Start = int64(d.u64("data position"))
	s.Data = decodeDigest(d)
	n := d.count(blockMinLen, "blocks")
	if d.err == nil && (n == 0 || s.Start < 0 || s.Start > math.MaxInt64/2) {
		d.fail("blocks")
	}
	if d.err != nil {
		return nil, d.err
	}
	s.Blocks = make([]Block, n)
	base, raw, stored := s.Base, int64(0), int64(0)
	for i := range s.Blocks {
		k := &s.Blocks[i]
		decodeBlock(d, k, base)
		if d.err != nil {
			return nil, d.err
		}
		if k.Last == math.MaxInt64 {
			d.fail("offsets overflow")
			return nil, d.err
		}
		base, raw, stored = k.Last+1, raw+k.RawLen, stored+k.Len
		if raw > math.MaxInt64/4 || stored > math.MaxInt64/4 {
			d.fail("section size")
			return nil, d.err
		}
	}
	if raw != s.Data.Bytes {
		d.fail("blocks do not hold the bytes of the section")
	}
	decodeExtras(d, s)
	if d.err != nil {
		return nil, d.err
	}
	return s, nil
}

func decodeBlock(d *decoder, k *Block, base int64) {
	k.Zstd = d.u8("block flags")&blockZstd != 0
	k.Epoch = int32(d.uvarint(math.MaxInt32, "block epoch"))
	k.Len = int64(d.uvarint(math.MaxInt32, "block length"))
	k.RawLen = k.Len
	if k.Zstd {
		k.RawLen = int64(d.uvarint(math.MaxInt32, "raw length"))
	}
	k.Base = base
	k.Last = base + int64(d.uvarint(uint64(math.MaxInt64-base), "block last offset"))
	k.MaxTimestamp = d.varint("block timestamp")
	k.CRC = d.u32("block CRC32C")
}

func decodeExtras(d *decoder, s *Section) {
	for range d.count(2, "extras") {
		typ := d.u8("extra type")
		e := &decoder{b: d.bytes("extra")}
		if d.err != nil || typ != extraProducers {
			continue // of a newer minor
		}
		if s.Producers = decodeProducers(e); e.err != nil {
			d.fail("producers")
			return
		}
	}
}

// SegmentHeadLen returns the length of the whole head, given at least the
// first SegmentHeaderLen bytes of a segment.
func SegmentHeadLen(b []byte) (int, error) {
	be := binary.BigEndian
	if len(b) < segmentHeaderLen || string(b[:8]) != magicSegment {
		return 0, fmt.Errorf("%w: not a segment", ErrMalformed)
	}
	if err := readable(b); err != nil {
		return 0, err
	}
	if crc32.Checksum(b[:92], castagnoli) != be.Uint32(b[92:]) {
		return 0, fmt.Errorf("%w: header CRC32C", ErrMalformed)
	}
	n := be.Uint32(b[64:])
	if n < segmentHeaderLen || n > MaxHead {
		return 0, fmt.Errorf("%w: head length %d", ErrMalformed, n)
	}
	return int(n), nil
}

// DecodeSegmentHead decodes and verifies a head; b may go on with data. It
// returns ErrCutShort when b is a proper prefix of a head.
func DecodeSegmentHead(b []byte) (*SegmentHead, error) {
	n, err := SegmentHeadLen(b)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, ErrCutShort
	}
	be := binary.BigEndian
	h := &SegmentHead{
		Incarnation: metadata.Incarnation(be.Uint64(b[32:])), Shared: b[12]&segmentShared != 0,
		Created: int64(be.Uint64(b[56:])), DataLen: int64(be.Uint64(b[72:])), DataCRC: be.Uint32(b[80:]), Len: n,
	}
	copy(h.Cluster[:], b[16:])
	copy(h.ID[:], b[40:])
	if crc32.Checksum(b[segmentHeaderLen:n], castagnoli) != be.Uint32(b[84:]) {
		return nil, fmt.Errorf("%w: body CRC32C", ErrMalformed)
	}
	d := &decoder{b: b[segmentHeaderLen:n]}
	count := be.Uint32(b[68:])
	if uint64(count) > uint64(len(d.b)/sectionMinLen) || h.DataLen < 0 {
		return nil, fmt.Errorf("%w: %d sections, %d data bytes", ErrMalformed, count, h.DataLen)
	}
	h.Sections = make([]Section, count)
	at := int64(n)
	for i := range h.Sections {
		body := d.bytes("section")
		if d.err != nil {
			return nil, d.err
		}
		s, err := decodeSection(body)
		if err != nil {
			return nil, err
		}
		if s.Start != at || i > 0 && !ordered(&h.Sections[i-1], s) {
			return nil, fmt.Errorf("%w: section of %s out of place", ErrMalformed, s.Partition)
		}
		for j := range s.Blocks {
			at += s.Blocks[j].Len
		}
		h.Sections[i] = *s
	}
	if at-int64(n) != h.DataLen {
		return nil, fmt.Errorf("%w: sections do not fill the data", ErrMalformed)
	}
	return h, nil
}

// ordered reports whether b may follow a: by topic, partition and offset.
func ordered(a, b *Section) bool {
	if c := slices.Compare(a.Partition.Topic[:], b.Partition.Topic[:]); c != 0 {
		return c < 0
	}
	if a.Partition.Partition != b.Partition.Partition {
		return a.Partition.Partition < b.Partition.Partition
	}
	return a.Last() < b.Base
}
