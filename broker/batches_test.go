package broker

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/tiering/batch"
)

// someBatch is an uncompressed batch of n records with keys.
func someBatch(n int) []byte { return makeBatch(n, []byte("key"), []byte("value")) }

// bigBatch is a batch of one record of about size bytes.
func bigBatch(size int) []byte { return makeBatch(1, []byte("key"), bytes.Repeat([]byte{'x'}, size)) }

func makeBatch(n int, key, value []byte) []byte {
	var records []byte
	for i := range n {
		r := kmsg.Record{OffsetDelta: int32(i), Key: key, Value: value}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		if b := r.AppendTo(nil); len(b)-lenVarint(r.Length) != int(r.Length) {
			r.Length = int32(len(b) - lenVarint(r.Length))
		}
		for {
			b := r.AppendTo(nil)
			if want := int32(len(b) - lenVarint(r.Length)); want != r.Length {
				r.Length = want
				continue
			}
			records = append(records, b...)
			break
		}
	}
	return sealBatch(records, int32(n), 0)
}

func lenVarint(v int32) int { return len(binary.AppendVarint(nil, int64(v))) }

// sealBatch wraps records in a header.
func sealBatch(records []byte, n int32, attributes int16) []byte {
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: attributes, LastOffsetDelta: n - 1,
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: n, Records: records}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	return resum(b.AppendTo(nil))
}

// resum renews the checksum.
func resum(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func mustParse(t *testing.T, b []byte) batch.Header {
	t.Helper()
	h, err := batch.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
