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
// epoch again. Numbers are for ever.
const (
	Open    RecordType = 1
	Release RecordType = 2
)

// Record is one statement about a partition's leadership.
type Record struct {
	Type      RecordType
	Partition metadata.TopicPartition
	Epoch     int32
	Base      int64 // Open
	// State is the encoded PartitionState of a Release; nil when the epoch was
	// claimed but never opened.
	State []byte
}

func appendRecord(b []byte, r *Record) []byte {
	p := appendTopicPartition(make([]byte, 0, 48+len(r.State)), r.Partition)
	p = binary.AppendUvarint(p, uint64(r.Epoch))
	switch r.Type {
	case Open:
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
		if typ != Open && typ != Release {
			continue // a newer minor's
		}
		r := Record{Type: typ, Partition: p.topicPartition(), Epoch: int32(p.uvarint(math.MaxInt32, "leader epoch"))}
		if typ == Open {
			r.Base = int64(p.uvarint(math.MaxInt64, "base offset"))
		} else if p.u8("opened") != 0 {
			r.State = p.bytes("partition state")
		}
		if p.err != nil {
			return nil, p.err
		}
		records = append(records, r)
	}
	return records, nil
}
