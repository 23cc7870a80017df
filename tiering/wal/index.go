package wal

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tidemark-io/tidemark/metadata"
)

// Extent is one partition's run of batches in an object.
type Extent struct {
	Partition metadata.TopicPartition
	Epoch     int32
	Zstd      bool  // stored as one zstd frame of RawLen bytes
	Position  int64 // in data
	Len       int64 // stored bytes
	RawLen    int64 // bytes as served; equals Len unless Zstd
	Base      int64
	CRC       uint32 // CRC32C of the stored bytes
	Rows      []Row
}

// Row describes one record batch.
type Row struct {
	Len             int32
	LastOffsetDelta int32
	MaxTimestamp    int64
	Transactional   bool
	Control         bool
	ProducerID      int64 // -1 none; then epoch and sequence are -1
	ProducerEpoch   int16
	BaseSequence    int32
	// Of a control batch, which ends a transaction of its producer.
	Commit           bool
	CoordinatorEpoch int32
}

// Last is the extent's last offset.
func (e *Extent) Last() int64 {
	last := e.Base - 1
	for i := range e.Rows {
		last += int64(e.Rows[i].LastOffsetDelta) + 1
	}
	return last
}

// MaxTimestamp is the largest of the rows'.
func (e *Extent) MaxTimestamp() int64 {
	ts := int64(-1)
	for i := range e.Rows {
		ts = max(ts, e.Rows[i].MaxTimestamp)
	}
	return ts
}

// Ref is the extent as a manifest entry of the object in slot, whose head is
// headLen bytes long.
func (e *Extent) Ref(inc metadata.Incarnation, slot uint64, headLen int) ExtentRef {
	return ExtentRef{
		Incarnation:  inc,
		Slot:         slot,
		Position:     int64(headLen) + e.Position,
		Len:          e.Len,
		RawLen:       e.RawLen,
		Zstd:         e.Zstd,
		Base:         e.Base,
		Last:         e.Last(),
		MaxTimestamp: e.MaxTimestamp(),
		Epoch:        e.Epoch,
		CRC:          e.CRC,
	}
}

const (
	extentZstd       = 1
	rowTransactional = 1
	rowControl       = 2
	rowProducer      = 4
	rowCommit        = 8

	extentMinLen = 16 + 1 + 1 + 1 + 1 + 1 + 1 + 4 + 1
	rowMinLen    = 4
)

func appendTopicPartition(b []byte, tp metadata.TopicPartition) []byte {
	b = append(b, tp.Topic[:]...)
	return binary.AppendUvarint(b, uint64(tp.Partition))
}

func (d *decoder) topicPartition() (tp metadata.TopicPartition) {
	copy(tp.Topic[:], d.take(16, "topic id"))
	tp.Partition = int32(d.uvarint(math.MaxInt32, "partition"))
	return tp
}

func appendExtent(b []byte, e *Extent) []byte {
	b = appendTopicPartition(b, e.Partition)
	b = binary.AppendUvarint(b, uint64(e.Epoch))
	var flags byte
	if e.Zstd {
		flags |= extentZstd
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(e.Position))
	b = binary.AppendUvarint(b, uint64(e.Len))
	if e.Zstd {
		b = binary.AppendUvarint(b, uint64(e.RawLen))
	}
	b = binary.AppendUvarint(b, uint64(e.Base))
	b = binary.BigEndian.AppendUint32(b, e.CRC)
	b = binary.AppendUvarint(b, uint64(len(e.Rows)))
	for i := range e.Rows {
		b = appendRow(b, &e.Rows[i])
	}
	return b
}

func appendRow(b []byte, r *Row) []byte {
	b = binary.AppendUvarint(b, uint64(r.Len))
	b = binary.AppendUvarint(b, uint64(r.LastOffsetDelta))
	b = binary.AppendVarint(b, r.MaxTimestamp)
	var flags byte
	if r.Transactional {
		flags |= rowTransactional
	}
	if r.Control {
		flags |= rowControl
	}
	if r.ProducerID >= 0 {
		flags |= rowProducer
	}
	if r.Commit {
		flags |= rowCommit
	}
	b = append(b, flags)
	if r.ProducerID >= 0 {
		b = binary.AppendUvarint(b, uint64(r.ProducerID))
		b = binary.AppendUvarint(b, uint64(uint16(r.ProducerEpoch)))
		b = binary.AppendUvarint(b, uint64(uint32(r.BaseSequence)))
	}
	if r.Control {
		b = binary.AppendUvarint(b, uint64(uint32(r.CoordinatorEpoch)))
	}
	return b
}

func decodeIndex(b []byte, n int, dataLen int64) ([]Extent, error) {
	if n > len(b)/extentMinLen {
		return nil, fmt.Errorf("%w: %d extents in %d bytes", ErrMalformed, n, len(b))
	}
	d := &decoder{b: b}
	extents := make([]Extent, n)
	for i := range extents {
		decodeExtent(d, &extents[i], dataLen)
		if d.err != nil {
			return nil, d.err
		}
	}
	return extents, nil
}

func decodeExtent(d *decoder, e *Extent, dataLen int64) {
	e.Partition = d.topicPartition()
	e.Epoch = int32(d.uvarint(math.MaxInt32, "leader epoch"))
	e.Zstd = d.u8("extent flags")&extentZstd != 0
	e.Position = int64(d.uvarint(uint64(dataLen), "extent position"))
	e.Len = int64(d.uvarint(uint64(dataLen-e.Position), "extent length"))
	e.RawLen = e.Len
	if e.Zstd {
		e.RawLen = int64(d.uvarint(math.MaxInt32, "raw length"))
	}
	e.Base = int64(d.uvarint(math.MaxInt64, "base offset"))
	e.CRC = d.u32("extent CRC32C")
	n := d.count(rowMinLen, "rows")
	if d.err != nil {
		return
	}
	if n == 0 {
		d.fail("extent without rows")
		return
	}
	e.Rows = make([]Row, n)
	end, raw := e.Base, int64(0)
	for i := range e.Rows {
		r := &e.Rows[i]
		decodeRow(d, r)
		if d.err != nil {
			return
		}
		if end > math.MaxInt64-int64(r.LastOffsetDelta)-1 {
			d.fail("offsets overflow")
			return
		}
		end += int64(r.LastOffsetDelta) + 1
		raw += int64(r.Len)
	}
	if raw != e.RawLen {
		d.fail("rows do not fill the extent")
	}
}

func decodeRow(d *decoder, r *Row) {
	r.Len = int32(d.uvarint(math.MaxInt32, "batch length"))
	r.LastOffsetDelta = int32(d.uvarint(math.MaxInt32, "last offset delta"))
	r.MaxTimestamp = d.varint("max timestamp")
	flags := d.u8("row flags")
	r.Transactional = flags&rowTransactional != 0
	r.Control = flags&rowControl != 0
	r.ProducerID, r.ProducerEpoch, r.BaseSequence = -1, -1, -1
	if flags&rowProducer != 0 {
		r.ProducerID = int64(d.uvarint(math.MaxInt64, "producer id"))
		r.ProducerEpoch = int16(uint16(d.uvarint(math.MaxUint16, "producer epoch")))
		r.BaseSequence = int32(uint32(d.uvarint(math.MaxUint32, "base sequence")))
	}
	if r.Control {
		r.Commit = flags&rowCommit != 0
		r.CoordinatorEpoch = int32(uint32(d.uvarint(math.MaxUint32, "coordinator epoch")))
	}
}
