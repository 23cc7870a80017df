package wal

import (
	"encoding/binary"
	"math"

	"github.com/tidemark-io/tidemark/metadata"
)

// RecordType tells what a record says.
type RecordType byte

// Open: the incarnation leads the partition at the epoch from this slot on, its
// first offset being Base. Release: it never appends to the partition at that
// epoch again. Trim: no manifest needs the slots below Slot any more. Add: the
// partition's oldest extents, up to the segment's last offset, now lie in the
// segment. LogStart: the log begins at Base. Numbers are for ever.
const (
	Open     RecordType = 1
	Release  RecordType = 2
	Trim     RecordType = 3
	Add      RecordType = 4
	LogStart RecordType = 6
)

// Record is one statement about a partition, or, a Trim, about the chain.
type Record struct {
	Type      RecordType
	Partition metadata.TopicPartition
	Epoch     int32
	Base      int64 // Open, LogStart
	// State is the encoded PartitionState of a Release; nil when the epoch was
	// claimed but never opened.
	State   []byte
	Slot    uint64      // Trim
	Segment *SegmentRef // Add
}

func appendRecord(b []byte, r *Record) []byte {
	p := make([]byte, 0, 48+len(r.State))
	if r.Type != Trim {
		p = appendTopicPartition(p, r.Partition)
		p = binary.AppendUvarint(p, uint64(r.Epoch))
	}
	switch r.Type {
	case Trim:
		p = binary.AppendUvarint(p, r.Slot)
	case Add:
		p = appendSegmentRef(p, r.Segment)
	case Open, LogStart:
		p = binary.AppendUvarint(p, uint64(r.Base))
	case Release:
		if r.State == nil {
			p = append(p, 0)
		} else {
			p = append(p, 1)
			p = appendBytes(p, r.State)
		}
	}
	b = append(b, byte(r.Type))
	return appendBytes(b, p)
}

func decodeRecords(b []byte) ([]Record, error) {
	d := &decoder{b: b}
	var records []Record
	for len(d.b) > 0 {
		typ := RecordType(d.u8("record type"))
		p := &decoder{b: d.bytes("record")}
		if d.err != nil {
			return nil, d.err
		}
		r := Record{Type: typ}
		switch typ {
		case Open, Release, Add, LogStart:
			r.Partition, r.Epoch = p.topicPartition(), int32(p.uvarint(math.MaxInt32, "leader epoch"))
		case Trim:
		default:
			continue // a newer minor's
		}
		switch typ {
		case Open, LogStart:
			r.Base = int64(p.uvarint(math.MaxInt64, "offset"))
		case Trim:
			r.Slot = p.uvarint(math.MaxInt64, "slot")
		case Add:
			r.Segment = new(SegmentRef)
			decodeSegmentRef(p, r.Segment)
		case Release:
			if p.u8("opened") != 0 {
				r.State = p.bytes("partition state")
			}
		}
		if p.err != nil {
			return nil, p.err
		}
		records = append(records, r)
	}
	return records, nil
}
