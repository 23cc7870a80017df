package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// Marker ends a transaction of a producer: a control batch of one record, whose
// key says how it ended and whose value who said so.
//
//	key   version int16 (0), type int16: 0 abort, 1 commit
//	value version int16 (0), coordinator epoch int32
type Marker struct {
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32
	Commit           bool
}

const (
	markerKeyLen   = 4
	markerValueLen = 6
	noSequence     = -1
	// of the record: attributes, timestamp delta, offset delta, key length, key,
	// value length, value, number of headers; and its length before it
	markerRecordLen = 1 + 1 + 1 + 1 + markerKeyLen + 1 + markerValueLen + 1
	// MarkerLen is the length of a marker's batch.
	MarkerLen = HeaderLen + 1 + markerRecordLen
)

// EncodeMarker returns the batch of m, written at a time in milliseconds, and its
// header.
func EncodeMarker(m Marker, millis int64) ([]byte, Header) {
	be := binary.BigEndian
	b := make([]byte, HeaderLen, MarkerLen)
	be.PutUint32(b[8:], MarkerLen-Overhead)
	be.PutUint32(b[12:], math.MaxUint32) // leader epoch: none yet
	b[16] = Magic
	be.PutUint16(b[21:], bitTransactional|bitControl)
	be.PutUint64(b[27:], uint64(millis))
	be.PutUint64(b[35:], uint64(millis))
	be.PutUint64(b[43:], uint64(m.ProducerID))
	be.PutUint16(b[51:], uint16(m.ProducerEpoch))
	be.PutUint32(b[53:], math.MaxUint32) // no sequence
	be.PutUint32(b[57:], 1)

	b = binary.AppendVarint(b, markerRecordLen)
	b = append(b, 0, 0, 0) // attributes, deltas
	b = binary.AppendVarint(b, markerKeyLen)
	var kind uint16
	if m.Commit {
		kind = 1
	}
	b = be.AppendUint16(be.AppendUint16(b, 0), kind)
	b = binary.AppendVarint(b, markerValueLen)
	b = be.AppendUint32(be.AppendUint16(b, 0), uint32(m.CoordinatorEpoch))
	b = append(b, 0) // no headers
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b, Header{
		Length: MarkerLen, LeaderEpoch: -1, CRC: be.Uint32(b[17:]), Attributes: bitTransactional | bitControl,
		BaseTimestamp: millis, MaxTimestamp: millis, ProducerID: m.ProducerID, ProducerEpoch: m.ProducerEpoch,
		BaseSequence: noSequence, Records: 1,
	}
}

// ParseMarker reads a control batch, of which h is the header. A newer version of
// key or value may go on behind what is known.
func ParseMarker(b []byte, h *Header) (Marker, error) {
	m := Marker{ProducerID: h.ProducerID, ProducerEpoch: h.ProducerEpoch}
	if !h.Control() || h.Codec() != None {
		return m, fmt.Errorf("%w: not a marker", ErrInvalid)
	}
	found := false
	err := Walk(b[HeaderLen:h.Length], h.Records, func(r *Record) error {
		if found || len(r.Key) < markerKeyLen || len(r.Value) < markerValueLen {
			return fmt.Errorf("%w: control record", ErrInvalid)
		}
		found = true
		switch kind := binary.BigEndian.Uint16(r.Key[2:]); kind {
		case 0, 1:
			m.Commit = kind == 1
		default:
			return fmt.Errorf("%w: control record of type %d", ErrInvalid, kind)
		}
		m.CoordinatorEpoch = int32(binary.BigEndian.Uint32(r.Value[2:]))
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: control batch without a record", ErrInvalid)
	}
	return m, err
}
