package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

func sampleSegment(base int64) *SegmentRef {
	return &SegmentRef{
		Incarnation: 1<<48 | 3, Epoch: 5, ID: ULID{1, 2, 3}, Base: base, Last: base + 99, MaxTimestamp: 4711,
		Position: 97, Len: 50, CRC: 77, Stored: 1 << 20, Data: DataDigest{Batches: 3, Records: 100, Bytes: 1 << 21, Sum: 1 << 63},
	}
}

func sampleSegmentHead() *SegmentHead {
	topic := metadata.TopicID{9, 8}
	return &SegmentHead{
		Cluster: cluster, Incarnation: 1<<48 | 5, Shared: true, ID: NewULID(time.UnixMilli(1e12)), Created: 1e12, DataLen: 600, DataCRC: 3,
		Sections: []Section{
			{Partition: metadata.TopicPartition{Topic: topic, Partition: 1}, Epoch: 4, Base: 10, Data: DataDigest{2, 8, 900, 12}, Blocks: []Block{
				{Epoch: 3, Len: 100, RawLen: 400, Zstd: true, Base: 10, Last: 12, MaxTimestamp: 77, CRC: 1},
				{Epoch: 4, Len: 500, RawLen: 500, Base: 13, Last: 17, MaxTimestamp: -1, CRC: 2},
			}, Producers: []Producer{{ID: 5, Epoch: 1, Updated: 1e12, Batches: []ProducerBatch{{BaseSequence: 3, LastOffsetDelta: 2, Base: 13, Timestamp: 1e12 - 5}}, Txn: ProducerTxn{NoTxn, NoTxn, 1e12 - 5}}}},
			{Partition: metadata.TopicPartition{Topic: topic, Partition: 2}, Epoch: 0, Base: 0, Data: DataDigest{1, 1, 0, 0}, Blocks: []Block{
				{Base: 0, Last: 0},
			}},
		},
	}
}

func TestSegmentRoundTrip(t *testing.T) {
	h := sampleSegmentHead()
	b, refs, err := EncodeSegmentHead(h)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSegmentHead(append(bytes.Clone(b), "data"...))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(h, got) {
		t.Fatalf("decoded\n%+v\nwant\n%+v", got, h)
	}
	if _, err := DecodeSegmentHead(b[:len(b)-1]); !errors.Is(err, ErrCutShort) {
		t.Fatalf("cut head: %v", err)
	}
	for i := range refs {
		r := &refs[i]
		s, err := DecodeSection(b[r.Position:r.Position+r.Len], h.Sections[i].Partition, r)
		if err != nil || !reflect.DeepEqual(*s, h.Sections[i]) {
			t.Fatalf("section %d: %v\n%+v", i, err, s)
		}
		other := *r
		other.Last++
		if _, err := DecodeSection(b[r.Position:r.Position+r.Len], h.Sections[i].Partition, &other); err == nil {
			t.Fatal("a section that does not reach its last offset was accepted")
		}
	}
	blocks := h.Sections[0].Extents("x/some/key")
	if blocks[0].Position != int64(len(b)) || blocks[1].Position != int64(len(b))+100 || blocks[1].Key() != "x/some/key" {
		t.Fatalf("blocks %+v", blocks)
	}
}

// Every single changed bit is noticed.
func TestSegmentRefusesDamage(t *testing.T) {
	b, _, err := EncodeSegmentHead(sampleSegmentHead())
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if _, err := DecodeSegmentHead(bad); err == nil {
			t.Fatalf("byte %d changed and nobody noticed", i)
		}
	}
}

func TestSegmentKeys(t *testing.T) {
	tp := metadata.TopicPartition{Topic: metadata.TopicID{1, 2}, Partition: 12}
	s := SegmentRef{Base: 1 << 40, Epoch: 9, ID: NewULID(time.Now())}
	key := SegmentKey(tp, &s)
	if gotTP, got, ok := ParseSegmentKey(key); !ok || gotTP != tp || got != s {
		t.Errorf("%s: %v %+v %v", key, gotTP, got, ok)
	}
	s.Shared, s.Incarnation = true, 1<<48|7
	key = SegmentKey(tp, &s)
	if inc, id, ok := ParseSharedKey(key); !ok || inc != s.Incarnation || id != s.ID {
		t.Errorf("%s: %v %v %v", key, inc, id, ok)
	}
	if gotTP, epoch, n, ok := ParsePageKey(PageKey(tp, 3, 44)); !ok || gotTP != tp || epoch != 3 || n != 44 {
		t.Error("page key")
	}
	for _, bad := range []string{"", "s/00/x", key + "x", "x/00/0001000000000007/" + s.ID.String()[:25] + "Z"} {
		if _, _, ok := ParseSharedKey(bad); ok {
			t.Errorf("%q accepted", bad)
		}
		if _, _, ok := ParseSegmentKey(bad); ok {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestSegmentPage(t *testing.T) {
	refs := []SegmentRef{*sampleSegment(0), *sampleSegment(100)}
	ref := PageRef{Number: 4, Base: 0, Last: 199}
	b, err := EncodeSegmentPage(cluster, 9, 4, refs)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeSegmentPage(b, cluster, ref); err != nil || !reflect.DeepEqual(got, refs) {
		t.Fatalf("%v %+v", err, got)
	}
	if _, err := DecodePage(b, cluster, ref); err == nil {
		t.Error("a page of segments was taken for one of extents")
	}
	ref.Last++
	if _, err := DecodeSegmentPage(b, cluster, ref); err == nil {
		t.Error("a page that does not reach its last offset was accepted")
	}
}

// resealSegment gives hostile bytes valid checksums.
func resealSegment(b []byte) []byte {
	b = bytes.Clone(b)
	be := binary.BigEndian
	copy(b, magicSegment)
	be.PutUint16(b[8:], major)
	be.PutUint32(b[64:], uint32(len(b)))
	be.PutUint32(b[84:], crc32.Checksum(b[segmentHeaderLen:], castagnoli))
	be.PutUint32(b[92:], crc32.Checksum(b[:92], castagnoli))
	return b
}

func FuzzDecodeSegmentHead(f *testing.F) {
	b, _, _ := EncodeSegmentHead(sampleSegmentHead())
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= segmentHeaderLen {
			b = resealSegment(b)
		}
		h, err := DecodeSegmentHead(b)
		if err != nil {
			return
		}
		again, _, err := EncodeSegmentHead(h)
		if err != nil {
			t.Fatal(err)
		}
		if g, err := DecodeSegmentHead(again); err != nil || len(g.Sections) != len(h.Sections) || g.DataLen != h.DataLen {
			t.Fatalf("decoded %+v, encoded again: %v", h, err)
		}
	})
}

func FuzzDecodeSection(f *testing.F) {
	b, refs, _ := EncodeSegmentHead(sampleSegmentHead())
	for _, r := range refs {
		f.Add(b[r.Position : r.Position+r.Len])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSection(b)
		if err != nil {
			return
		}
		for _, e := range s.Extents("x") {
			if e.Position < 0 || e.Len < 0 || e.RawLen < 0 || e.Base < 0 || e.Last < e.Base {
				t.Fatalf("accepted %+v", e)
			}
		}
	})
}

func FuzzSegmentPageBody(f *testing.F) {
	f.Add(appendSegmentRefs(nil, []SegmentRef{*sampleSegment(0), *sampleSegment(100)}))
	f.Fuzz(func(t *testing.T, body []byte) {
		d := &decoder{b: body}
		for _, r := range decodeSegmentRefs(d) {
			if r.Base < 0 || r.Last < r.Base || r.Len < 0 || r.Stored < 0 {
				t.Fatalf("accepted %+v", r)
			}
		}
	})
}
