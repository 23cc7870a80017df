package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeBatch makes a record batch of values. Without a producer id, which is -1
// then, it has no epoch and no sequence either.
func encodeBatch(pid int64, seq int32, millis int64, values [][]byte) []byte {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: v}
		b := r.AppendTo(nil)
		r.Length = int32(len(b) - 1) // the length 0 took one byte
		records = append(records, r.AppendTo(nil)...)
	}
	epoch := int16(0)
	if pid < 0 {
		epoch = -1
	}
	n := int32(len(values))
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: n - 1, FirstTimestamp: millis, MaxTimestamp: millis,
		ProducerID: pid, ProducerEpoch: epoch, FirstSequence: seq, NumRecords: n, Records: records,
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], castagnoli))
	return out
}

// record is one that was fetched.
type record struct {
	offset int64
	value  []byte
}

var errBatch = errors.New("malformed batch")

// decodeBatches reads what a fetch returned.
func decodeBatches(b []byte) ([]record, error) {
	var out []record
	for len(b) > 0 {
		if len(b) < 61 {
			return nil, fmt.Errorf("%w: %d bytes left", errBatch, len(b))
		}
		n := 12 + int(int32(binary.BigEndian.Uint32(b[8:])))
		if n < 61 || n > len(b) {
			return nil, fmt.Errorf("%w: length %d of %d", errBatch, n, len(b))
		}
		if sum := crc32.Checksum(b[21:n], castagnoli); sum != binary.BigEndian.Uint32(b[17:]) {
			return nil, fmt.Errorf("%w: checksum", errBatch)
		}
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(b[:n]); err != nil {
			return nil, fmt.Errorf("%w: %w", errBatch, err)
		}
		records, err := decodeRecords(&batch)
		if err != nil {
			return nil, err
		}
		out = append(out, records...)
		b = b[n:]
	}
	return out, nil
}

func decodeRecords(batch *kmsg.RecordBatch) ([]record, error) {
	var out []record
	b := batch.Records
	for range batch.NumRecords {
		n, size := binary.Varint(b)
		if size <= 0 || n < 0 || int64(size)+n > int64(len(b)) {
			return nil, fmt.Errorf("%w: record length %d", errBatch, n)
		}
		var r kmsg.Record
		if err := r.ReadFrom(b[:int64(size)+n]); err != nil {
			return nil, fmt.Errorf("%w: %w", errBatch, err)
		}
		out = append(out, record{batch.FirstOffset + int64(r.OffsetDelta), r.Value})
		b = b[int64(size)+n:]
	}
	return out, nil
}
