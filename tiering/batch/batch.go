// Package batch reads and patches Kafka record batches of magic 2 where they
// lie, without copying. The broker validates produced batches with it; the log
// assigns offsets and indexes with it.
//
// Layout (Kafka protocol, "Record Batch"); big-endian, positions in bytes:
//
//	 0 baseOffset            int64
//	 8 batchLength           int32   bytes after this field
//	12 partitionLeaderEpoch  int32
//	16 magic                 int8    2
//	17 crc                   uint32  CRC32C of everything from attributes on
//	21 attributes            int16   bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon
//	23 lastOffsetDelta       int32
//	27 baseTimestamp         int64
//	35 maxTimestamp          int64
//	43 producerId            int64
//	51 producerEpoch         int16
//	53 baseSequence          int32
//	57 recordsCount          int32
//	61 records               (compressed as one block when a codec is set)
//
// Base offset and leader epoch lie outside the CRC, so the broker sets them in
// place and the client still receives exactly the bytes the producer sent.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// HeaderLen is the length of a batch header; Overhead is what precedes the
// bytes that batchLength counts.
const (
	HeaderLen = 61
	Overhead  = 12
	Magic     = 2
)

var (
	// ErrShort: the bytes end inside a batch.
	ErrShort = errors.New("record batch is cut short")
	// ErrMagic: not a batch of magic 2.
	ErrMagic = errors.New("record batch magic is not 2")
	// ErrCRC: the CRC32C does not match.
	ErrCRC = errors.New("record batch CRC32C mismatch")
	// ErrInvalid: fields contradict one another.
	ErrInvalid = errors.New("record batch is invalid")
)

// Codec is the compression of a batch's records.
type Codec int8

// Codecs as in the attributes field.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

// Attribute bits.
const (
	codecMask        = 0x07
	bitLogAppendTime = 0x08
	bitTransactional = 0x10
	bitControl       = 0x20
)

// Header is a decoded batch header.
type Header struct {
	BaseOffset      int64
	Length          int // whole batch in bytes, the 12 of overhead included
	LeaderEpoch     int32
	CRC             uint32
	Attributes      int16
	LastOffsetDelta int32
	BaseTimestamp   int64 // milliseconds since the epoch, -1 none
	MaxTimestamp    int64
	ProducerID      int64 // -1 none
	ProducerEpoch   int16
	BaseSequence    int32
	Records         int32
}

// Codec returns the compression codec.
func (h *Header) Codec() Codec { return Codec(h.Attributes & codecMask) }

// Transactional reports whether the batch belongs to a transaction.
func (h *Header) Transactional() bool { return h.Attributes&bitTransactional != 0 }

// Control reports whether the batch is a control batch (transaction marker).
func (h *Header) Control() bool { return h.Attributes&bitControl != 0 }

// LogAppendTime reports whether timestamps were set by the broker.
func (h *Header) LogAppendTime() bool { return h.Attributes&bitLogAppendTime != 0 }

// LastOffset is the offset of the batch's last record.
func (h *Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// LastSequence is the sequence of the last record. Sequences wrap from
// math.MaxInt32 to 0.
func (h *Header) LastSequence() int32 {
	return AddSequence(h.BaseSequence, h.LastOffsetDelta)
}

// AddSequence adds n to a sequence number, wrapping as Kafka does
// (DefaultRecordBatch.incrementSequence).
func AddSequence(seq, n int32) int32 {
	if seq > math.MaxInt32-n {
		return n - (math.MaxInt32 - seq) - 1
	}
	return seq + n
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Parse decodes the header of the first batch of b and checks that the whole
// batch is present. It does not check the CRC.
func Parse(b []byte) (Header, error) {
	if len(b) < Overhead {
		return Header{}, ErrShort
	}
	length := int32(binary.BigEndian.Uint32(b[8:]))
	if length < HeaderLen-Overhead {
		if len(b) > 16 && b[16] != Magic {
			return Header{}, ErrMagic
		}
		return Header{}, fmt.Errorf("%w: length %d", ErrInvalid, length)
	}
	if len(b) > 16 && b[16] != Magic {
		return Header{}, ErrMagic
	}
	if int64(len(b)) < int64(length)+Overhead {
		return Header{}, ErrShort
	}
	return Header{
		BaseOffset:      int64(binary.BigEndian.Uint64(b)),
		Length:          int(length) + Overhead,
		LeaderEpoch:     int32(binary.BigEndian.Uint32(b[12:])),
		CRC:             binary.BigEndian.Uint32(b[17:]),
		Attributes:      int16(binary.BigEndian.Uint16(b[21:])),
		LastOffsetDelta: int32(binary.BigEndian.Uint32(b[23:])),
		BaseTimestamp:   int64(binary.BigEndian.Uint64(b[27:])),
		MaxTimestamp:    int64(binary.BigEndian.Uint64(b[35:])),
		ProducerID:      int64(binary.BigEndian.Uint64(b[43:])),
		ProducerEpoch:   int16(binary.BigEndian.Uint16(b[51:])),
		BaseSequence:    int32(binary.BigEndian.Uint32(b[53:])),
		Records:         int32(binary.BigEndian.Uint32(b[57:])),
	}, nil
}

// CheckCRC verifies the batch's CRC32C. b is exactly one batch.
func CheckCRC(b []byte) error {
	if crc32.Checksum(b[21:], castagnoli) != binary.BigEndian.Uint32(b[17:]) {
		return ErrCRC
	}
	return nil
}

// SetOffset writes base offset and leader epoch in place. The CRC stays valid.
func SetOffset(b []byte, base int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[12:], uint32(leaderEpoch))
}

// SetLogAppendTime stamps the batch with the broker's time, as Kafka does under
// message.timestamp.type=LogAppendTime, and renews the CRC.
func SetLogAppendTime(b []byte, millis int64) {
	b[22] |= bitLogAppendTime
	setMaxTimestamp(b, millis)
}

// setMaxTimestamp rewrites the max timestamp and renews the CRC.
func setMaxTimestamp(b []byte, millis int64) {
	binary.BigEndian.PutUint64(b[35:], uint64(millis))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}
