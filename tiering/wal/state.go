package wal

import (
	"encoding/binary"
	"math"

	"github.com/tidemark-io/tidemark/metadata"
)

// ExtentRef says where a run of batches lies: an extent, which a manifest names,
// or a block, which a segment's index does.
type ExtentRef struct {
	// Object is the key of the segment that a block lies in; empty for an
	// extent, which lies in a slot. It is not encoded.
	Object       string
	Incarnation  metadata.Incarnation
	Slot         uint64
	Position     int64 // in the object, not in its data
	Len          int64
	RawLen       int64
	Zstd         bool
	Base, Last   int64 // offsets, both inclusive
	MaxTimestamp int64
	Epoch        int32
	CRC          uint32
}

// Key is the key of the object that the batches lie in.
func (r *ExtentRef) Key() string {
	if r.Object != "" {
		return r.Object
	}
	return SlotKey(r.Incarnation, r.Slot)
}

// DataDigest identifies the batches of a range, whatever objects they lie in and
// however they are stored there. It does not depend on their order: offsets do.
type DataDigest struct {
	Batches int64
	Records int64
	Bytes   int64  // as served
	Sum     uint64 // of the XXH64 of each batch as served, modulo 2^64
}

// Plus is the digest of both.
func (d DataDigest) Plus(o DataDigest) DataDigest {
	return DataDigest{d.Batches + o.Batches, d.Records + o.Records, d.Bytes + o.Bytes, d.Sum + o.Sum}
}

// SegmentRef is a manifest entry: one partition's section of a segment.
type SegmentRef struct {
	Shared       bool
	Incarnation  metadata.Incarnation // that wrote it
	Epoch        int32                // the leader epoch of the partition under which it did
	ID           ULID
	Base, Last   int64
	MaxTimestamp int64
	Position     int64  // of the section in the object
	Len          int64  // of the section
	CRC          uint32 // CRC32C of the section
	Stored       int64  // bytes of its blocks in the object
	Data         DataDigest
}

// SlotFloor is the lowest slot of a chain that something rests on.
type SlotFloor struct {
	Incarnation metadata.Incarnation
	Slot        uint64
}

// PageRef is a manifest entry for a page of older extents, or of segments.
type PageRef struct {
	Epoch        int32 // of the leader that wrote the page
	Number       uint32
	Base, Last   int64
	MaxTimestamp int64
	Entries      int32
	Bytes        int64       // as served
	Floors       []SlotFloor // of a page of extents: which slots it names, a chain each
}

// EpochStart is the first offset of a leader epoch.
type EpochStart struct {
	Epoch int32
	Start int64
}

// ProducerBatch is one of the last batches of a producer, kept to recognise a
// duplicate and to answer it with the original offset.
type ProducerBatch struct {
	BaseSequence    int32
	LastOffsetDelta int32
	Base            int64
	Timestamp       int64
}

// Producer is the committed state of an idempotent producer in a partition.
type Producer struct {
	ID      int64
	Epoch   int16
	Updated int64 // milliseconds since the epoch, by the leader's clock
	Batches []ProducerBatch
	Txn     ProducerTxn
}

// ProducerTxn is what transactions add to the state of a producer.
type ProducerTxn struct {
	// First is the first offset of the open transaction, NoTxn without one.
	First int64
	// CoordinatorEpoch is the highest that a marker of the producer had, NoTxn if
	// there was none.
	CoordinatorEpoch int32
	// Timestamp is that of the newest batch or marker.
	Timestamp int64
}

// NoTxn stands for an offset or an epoch that there is not.
const NoTxn = -1

// AbortedTxn is a transaction whose batches nobody shall see who reads committed
// records: those of its producer from First to Last, the offset of the marker.
type AbortedTxn struct {
	ProducerID  int64
	First, Last int64
}

// PartitionState is all that a new leader needs to go on from End. SegmentPages
// and Segments cover the log up to Tiered, Pages and Tail go on from there to
// End. Entries of the first page that lie below Tiered were tiered since.
type PartitionState struct {
	Partition metadata.TopicPartition
	// Epoch is the leader epoch under which the state was written.
	Epoch    int32
	LogStart int64
	End      int64
	Epochs   []EpochStart

	SegmentPages []PageRef
	Segments     []SegmentRef
	Tiered       int64
	Pages        []PageRef
	NextPage     uint32
	Tail         []ExtentRef
	// Expired is set once the state of some producer was forgotten for age:
	// from then on an unknown producer may begin at any sequence.
	Expired   bool
	Producers []Producer
	// AbortedPages, then Aborted, are the aborted transactions in the order of
	// their markers. The base of such a page is the lowest first offset in it.
	AbortedPages []PageRef
	Aborted      []AbortedTxn
}

const (
	refMinLen      = 12
	pageRefMinLen  = 8
	floorMinLen    = 2
	segmentMinLen  = 1 + 1 + 16 + 1 + 1 + 1 + 1 + 1 + 1 + 4 + 1 + 3 + 8
	epochMinLen    = 2
	producerMinLen = 4
	batchMinLen    = 4
	stateMinLen    = 24 // with its length
)

// AppendState encodes s behind b.
func AppendState(b []byte, s *PartitionState) []byte {
	b = appendTopicPartition(b, s.Partition)
	b = binary.AppendUvarint(b, uint64(s.Epoch))
	b = binary.AppendUvarint(b, uint64(s.LogStart))
	b = binary.AppendUvarint(b, uint64(s.End))
	b = binary.AppendUvarint(b, uint64(len(s.Epochs)))
	for _, e := range s.Epochs {
		b = binary.AppendUvarint(b, uint64(e.Epoch))
		b = binary.AppendUvarint(b, uint64(e.Start))
	}
	b = appendPageRefs(b, s.SegmentPages)
	b = appendSegmentRefs(b, s.Segments)
	b = binary.AppendUvarint(b, uint64(s.Tiered))
	b = appendPageRefs(b, s.Pages)
	b = binary.AppendUvarint(b, uint64(s.NextPage))
	b = appendRefs(b, s.Tail)
	var flags byte
	if s.Expired {
		flags = 1
	}
	b = append(b, flags)
	b = appendProducers(b, s.Producers)
	return appendTransactions(b, s)
}

// DecodeState decodes one state that fills b (or a prefix of it, of a newer minor).
func DecodeState(b []byte) (*PartitionState, error) {
	d := &decoder{b: b}
	s := decodeState(d)
	return s, d.err
}

func decodeState(d *decoder) *PartitionState {
	s := &PartitionState{Partition: d.topicPartition()}
	s.Epoch = int32(d.uvarint(math.MaxInt32, "leader epoch"))
	s.LogStart = int64(d.uvarint(math.MaxInt64, "log start offset"))
	s.End = int64(d.uvarint(math.MaxInt64, "end offset"))
	s.Epochs = make([]EpochStart, d.count(epochMinLen, "epochs"))
	for i := range s.Epochs {
		s.Epochs[i].Epoch = int32(d.uvarint(math.MaxInt32, "epoch"))
		s.Epochs[i].Start = int64(d.uvarint(math.MaxInt64, "epoch start"))
	}
	s.SegmentPages = decodePageRefs(d)
	s.Segments = decodeSegmentRefs(d)
	s.Tiered = int64(d.uvarint(math.MaxInt64, "tiered"))
	s.Pages = decodePageRefs(d)
	s.NextPage = uint32(d.uvarint(math.MaxUint32, "next page"))
	s.Tail = decodeRefs(d)
	s.Expired = d.u8("flags")&1 != 0
	s.Producers = decodeProducers(d)
	decodeTransactions(d, s)
	return s
}

func appendPageRefs(b []byte, pages []PageRef) []byte {
	b = binary.AppendUvarint(b, uint64(len(pages)))
	for _, p := range pages {
		b = binary.AppendUvarint(b, uint64(p.Epoch))
		b = binary.AppendUvarint(b, uint64(p.Number))
		b = binary.AppendUvarint(b, uint64(p.Base))
		b = binary.AppendUvarint(b, uint64(p.Last-p.Base))
		b = binary.AppendVarint(b, p.MaxTimestamp)
		b = binary.AppendUvarint(b, uint64(p.Entries))
		b = binary.AppendUvarint(b, uint64(p.Bytes))
		b = binary.AppendUvarint(b, uint64(len(p.Floors)))
		for _, f := range p.Floors {
			b = binary.AppendUvarint(b, uint64(f.Incarnation))
			b = binary.AppendUvarint(b, f.Slot)
		}
	}
	return b
}

func decodePageRefs(d *decoder) []PageRef {
	pages := make([]PageRef, d.count(pageRefMinLen, "pages"))
	for i := range pages {
		p := &pages[i]
		p.Epoch = int32(d.uvarint(math.MaxInt32, "page epoch"))
		p.Number = uint32(d.uvarint(math.MaxUint32, "page number"))
		p.Base = int64(d.uvarint(math.MaxInt64, "page base"))
		p.Last = p.Base + int64(d.uvarint(uint64(math.MaxInt64-p.Base), "page last"))
		p.MaxTimestamp = d.varint("page timestamp")
		p.Entries = int32(d.uvarint(math.MaxInt32, "page entries"))
		p.Bytes = int64(d.uvarint(math.MaxInt64, "page bytes"))
		if n := d.count(floorMinLen, "page floors"); n > 0 {
			p.Floors = make([]SlotFloor, n)
		}
		for j := range p.Floors {
			p.Floors[j].Incarnation = metadata.Incarnation(d.uvarint(math.MaxUint64, "incarnation"))
			p.Floors[j].Slot = d.uvarint(math.MaxInt64, "slot")
		}
	}
	return pages
}

func appendSegmentRef(b []byte, s *SegmentRef) []byte {
	var flags byte
	if s.Shared {
		flags = 1
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(s.Incarnation))
	b = binary.AppendUvarint(b, uint64(s.Epoch))
	b = append(b, s.ID[:]...)
	b = binary.AppendUvarint(b, uint64(s.Base))
	b = binary.AppendUvarint(b, uint64(s.Last-s.Base))
	b = binary.AppendVarint(b, s.MaxTimestamp)
	b = binary.AppendUvarint(b, uint64(s.Position))
	b = binary.AppendUvarint(b, uint64(s.Len))
	b = binary.BigEndian.AppendUint32(b, s.CRC)
	b = binary.AppendUvarint(b, uint64(s.Stored))
	return appendDigest(b, s.Data)
}

func decodeSegmentRef(d *decoder, s *SegmentRef) {
	s.Shared = d.u8("segment flags")&1 != 0
	s.Incarnation = metadata.Incarnation(d.uvarint(math.MaxUint64, "incarnation"))
	s.Epoch = int32(d.uvarint(math.MaxInt32, "leader epoch"))
	copy(s.ID[:], d.take(len(s.ID), "segment name"))
	s.Base = int64(d.uvarint(math.MaxInt64, "base offset"))
	s.Last = s.Base + int64(d.uvarint(uint64(math.MaxInt64-s.Base), "last offset"))
	s.MaxTimestamp = d.varint("timestamp")
	s.Position = int64(d.uvarint(MaxHead, "section position"))
	s.Len = int64(d.uvarint(MaxHead, "section length"))
	s.CRC = d.u32("section CRC32C")
	s.Stored = int64(d.uvarint(math.MaxInt64, "stored bytes"))
	s.Data = decodeDigest(d)
}

func appendDigest(b []byte, v DataDigest) []byte {
	b = binary.AppendUvarint(b, uint64(v.Batches))
	b = binary.AppendUvarint(b, uint64(v.Records))
	b = binary.AppendUvarint(b, uint64(v.Bytes))
	return binary.BigEndian.AppendUint64(b, v.Sum)
}

func decodeDigest(d *decoder) (v DataDigest) {
	v.Batches = int64(d.uvarint(math.MaxInt64, "batches"))
	v.Records = int64(d.uvarint(math.MaxInt64, "records"))
	v.Bytes = int64(d.uvarint(math.MaxInt64, "bytes"))
	v.Sum = d.u64("digest")
	return v
}

func appendSegmentRefs(b []byte, refs []SegmentRef) []byte {
	b = binary.AppendUvarint(b, uint64(len(refs)))
	for i := range refs {
		b = appendSegmentRef(b, &refs[i])
	}
	return b
}

func decodeSegmentRefs(d *decoder) []SegmentRef {
	refs := make([]SegmentRef, d.count(segmentMinLen, "segments"))
	for i := range refs {
		if decodeSegmentRef(d, &refs[i]); d.err != nil {
			return nil
		}
	}
	return refs
}

// appendRefs encodes entries as differences, which zstd and varints both like.
func appendRefs(b []byte, refs []ExtentRef) []byte {
	b = binary.AppendUvarint(b, uint64(len(refs)))
	var prev ExtentRef
	for i := range refs {
		r := &refs[i]
		b = binary.AppendVarint(b, int64(r.Incarnation-prev.Incarnation))
		b = binary.AppendVarint(b, int64(r.Slot-prev.Slot))
		b = binary.AppendUvarint(b, uint64(r.Position))
		b = binary.AppendUvarint(b, uint64(r.Len))
		raw := uint64(0)
		if r.Zstd {
			raw = uint64(r.RawLen) + 1
		}
		b = binary.AppendUvarint(b, raw)
		b = binary.AppendVarint(b, r.Base-prev.Base)
		b = binary.AppendUvarint(b, uint64(r.Last-r.Base))
		b = binary.AppendVarint(b, r.MaxTimestamp-prev.MaxTimestamp)
		b = binary.AppendUvarint(b, uint64(r.Epoch))
		b = binary.BigEndian.AppendUint32(b, r.CRC)
		prev = *r
	}
	return b
}

func decodeRefs(d *decoder) []ExtentRef {
	refs := make([]ExtentRef, d.count(refMinLen, "extent references"))
	var prev ExtentRef
	for i := range refs {
		r := &refs[i]
		r.Incarnation = prev.Incarnation + metadata.Incarnation(d.varint("incarnation"))
		r.Slot = prev.Slot + uint64(d.varint("slot"))
		r.Position = int64(d.uvarint(math.MaxInt64, "position"))
		r.Len = int64(d.uvarint(math.MaxInt32, "length"))
		r.RawLen = r.Len
		if raw := d.uvarint(math.MaxInt32, "raw length"); raw > 0 {
			r.Zstd, r.RawLen = true, int64(raw)-1
		}
		r.Base = prev.Base + d.varint("base offset")
		if r.Base < 0 {
			d.fail("negative base offset")
		}
		r.Last = r.Base + int64(d.uvarint(uint64(min(math.MaxInt32, math.MaxInt64-max(0, r.Base))), "last offset"))
		r.MaxTimestamp = prev.MaxTimestamp + d.varint("timestamp")
		r.Epoch = int32(d.uvarint(math.MaxInt32, "epoch"))
		r.CRC = d.u32("CRC32C")
		prev = *r
		if d.err != nil {
			return nil
		}
	}
	return refs
}

func appendProducers(b []byte, producers []Producer) []byte {
	b = binary.AppendUvarint(b, uint64(len(producers)))
	for i := range producers {
		b = appendProducer(b, &producers[i])
	}
	return b
}

// decodeProducers decodes producers in the order of their ids, which no two share.
func decodeProducers(d *decoder) []Producer {
	producers := make([]Producer, d.count(producerMinLen, "producers"))
	for i := range producers {
		decodeProducer(d, &producers[i])
		if i > 0 && producers[i].ID <= producers[i-1].ID {
			d.fail("producer out of place")
		}
		if d.err != nil {
			return nil
		}
	}
	return producers
}

func appendProducer(b []byte, p *Producer) []byte {
	b = binary.AppendUvarint(b, uint64(p.ID))
	b = binary.AppendUvarint(b, uint64(uint16(p.Epoch)))
	b = binary.AppendVarint(b, p.Updated)
	b = binary.AppendUvarint(b, uint64(len(p.Batches)))
	for _, t := range p.Batches {
		b = binary.AppendUvarint(b, uint64(uint32(t.BaseSequence)))
		b = binary.AppendUvarint(b, uint64(t.LastOffsetDelta))
		b = binary.AppendUvarint(b, uint64(t.Base))
		b = binary.AppendVarint(b, t.Timestamp-p.Updated)
	}
	return b
}

func decodeProducer(d *decoder, p *Producer) {
	p.ID = int64(d.uvarint(math.MaxInt64, "producer id"))
	p.Epoch = int16(uint16(d.uvarint(math.MaxUint16, "producer epoch")))
	p.Updated = d.varint("producer time")
	p.Batches = make([]ProducerBatch, d.count(batchMinLen, "producer batches"))
	for i := range p.Batches {
		t := &p.Batches[i]
		t.BaseSequence = int32(uint32(d.uvarint(math.MaxUint32, "base sequence")))
		t.LastOffsetDelta = int32(d.uvarint(math.MaxInt32, "last offset delta"))
		t.Base = int64(d.uvarint(math.MaxInt64, "batch base"))
		t.Timestamp = p.Updated + d.varint("batch time")
	}
	p.Txn = ProducerTxn{First: NoTxn, CoordinatorEpoch: NoTxn, Timestamp: NoTxn}
	if n := len(p.Batches); n > 0 {
		p.Txn.Timestamp = p.Batches[n-1].Timestamp
	}
}
