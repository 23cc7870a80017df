// Package offsetrecord writes the records that Apache Kafka keeps in
// __consumer_offsets, so that tools which read that topic understand ours, and
// the record batches that carry them.
//
//	key                                      value, null when it is gone
//	version 1: group, topic, partition       version 3: offset, leader epoch, metadata, commit time
//	                                         version 1: offset, metadata, commit time, expiry
//	version 2: group                         version 3: a classic group with its members
//
// Kafka 4.3 writes offsets in version 4, which adds the topic's id; version 3 is
// what Kafka wrote before and what readers such as Burrow know.
package offsetrecord

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Record is one record; a nil value is a tombstone.
type Record struct {
	Key, Value []byte
	Time       time.Time
}

func (r *Record) size() int { return len(r.Key) + len(r.Value) + 32 }

// Offset is one committed offset.
type Offset struct {
	Offset      int64
	LeaderEpoch int32
	Metadata    string
	Committed   time.Time
	Expires     time.Time // zero: as the broker decides
}

// OffsetKey is the key of a partition's offset.
func OffsetKey(group, topic string, partition int32) []byte {
	k := kmsg.NewOffsetCommitKey()
	k.Version, k.Group, k.Topic, k.Partition = 1, group, topic, partition
	return k.AppendTo(nil)
}

// Value is the value of an offset.
func (o *Offset) Value() []byte {
	v := kmsg.NewOffsetCommitValue()
	v.Version, v.Offset, v.LeaderEpoch, v.Metadata = 3, o.Offset, o.LeaderEpoch, o.Metadata
	v.CommitTimestamp = o.Committed.UnixMilli()
	if !o.Expires.IsZero() {
		v.Version, v.ExpireTimestamp = 1, o.Expires.UnixMilli()
	}
	return v.AppendTo(nil)
}

// GroupKey is the key of a classic group.
func GroupKey(group string) []byte {
	k := kmsg.NewGroupMetadataKey()
	k.Version, k.Group = 2, group
	return k.AppendTo(nil)
}

// GroupValue is the value of a classic group. It sets the version.
func GroupValue(v *kmsg.GroupMetadataValue) []byte {
	v.Version = 3
	return v.AppendTo(nil)
}

// Batches packs records, in order, into record batches of at most bytesMax, if
// no single record is larger.
func Batches(records []Record, bytesMax int) [][]byte {
	var out [][]byte
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+records[n].size() <= bytesMax) {
			size += records[n].size()
			n++
		}
		out = append(out, encode(records[:n], size))
		records = records[n:]
	}
	return out
}

const (
	headerBytes = 61
	// crcFrom is where the part that the checksum covers begins.
	crcAt, crcFrom = 17, 21
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes a batch of magic 2 without compression, producer or sequence.
func encode(records []Record, size int) []byte {
	first, last := records[0].Time.UnixMilli(), records[0].Time.UnixMilli()
	for i := range records {
		ms := records[i].Time.UnixMilli()
		first, last = min(first, ms), max(last, ms)
	}
	b := make([]byte, headerBytes, headerBytes+size)
	be := binary.BigEndian
	be.PutUint32(b[12:], ^uint32(0)) // leader epoch: the log's to set
	b[16] = 2
	be.PutUint32(b[23:], uint32(len(records)-1))
	be.PutUint64(b[27:], uint64(first))
	be.PutUint64(b[35:], uint64(last))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	be.PutUint32(b[57:], uint32(len(records)))
	var body []byte
	for i := range records {
		body = appendRecord(body[:0], &records[i], i, records[i].Time.UnixMilli()-first)
		b = binary.AppendVarint(b, int64(len(body)))
		b = append(b, body...)
	}
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[crcAt:], crc32.Checksum(b[crcFrom:], castagnoli))
	return b
}

func appendRecord(b []byte, r *Record, delta int, since int64) []byte {
	b = append(b, 0) // attributes
	b = binary.AppendVarint(b, since)
	b = binary.AppendVarint(b, int64(delta))
	for _, field := range [][]byte{r.Key, r.Value} {
		if field == nil {
			b = binary.AppendVarint(b, -1)
			continue
		}
		b = binary.AppendVarint(b, int64(len(field)))
		b = append(b, field...)
	}
	return binary.AppendVarint(b, 0) // headers
}
