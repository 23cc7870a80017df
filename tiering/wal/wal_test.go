package wal

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/tidemark-io/tidemark/metadata"
)

var cluster = ClusterID{1, 2, 3}

func sampleHead() *Head {
	tp := metadata.TopicPartition{Topic: metadata.TopicID{9, 8}, Partition: 7}
	return &Head{
		Kind: Data, Cluster: cluster, Incarnation: 1<<48 | 5, Slot: 77, Previous: Digest{4}, Acknowledged: 70, Checkpoint: 64,
		Writer: 1<<48 | 5, DataLen: 400, DataHash: 99,
		Extents: []Extent{
			{Partition: tp, Epoch: 3, Position: 0, Len: 300, RawLen: 300, Base: 1000, CRC: 5, Rows: []Row{
				{Len: 100, LastOffsetDelta: 9, MaxTimestamp: 1234, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1},
				{Len: 200, LastOffsetDelta: 0, MaxTimestamp: -1, ProducerID: 44, ProducerEpoch: 2, BaseSequence: 17, Transactional: true},
			}},
			{Partition: tp, Epoch: 3, Zstd: true, Position: 300, Len: 100, RawLen: 250, Base: 1011, CRC: 6, Rows: []Row{
				{Len: 250, LastOffsetDelta: 3, MaxTimestamp: 5, ProducerID: 1, ProducerEpoch: 0, BaseSequence: -1, Control: true, Transactional: true, Commit: true, CoordinatorEpoch: 12},
			}},
		},
		Records: []Record{
			{Type: Open, Partition: tp, Epoch: 4, Base: 1015},
			{Type: Release, Partition: tp, Epoch: 4, State: []byte("state")},
			{Type: Release, Partition: tp, Epoch: 5},
			{Type: Trim, Slot: 60},
			{Type: Add, Partition: tp, Epoch: 4, Segment: sampleSegment(700)},
			{Type: LogStart, Partition: tp, Epoch: 4, Base: 12},
		},
	}
}

func TestHeadRoundTrip(t *testing.T) {
	h := sampleHead()
	b := EncodeHead(h)
	got, err := DecodeHead(append(b, "data behind it"...))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(h, got) {
		t.Fatalf("decoded\n%+v\nwant\n%+v", got, h)
	}
	if n, err := HeadLen(b[:HeaderLen]); err != nil || n != len(b) {
		t.Fatalf("HeadLen = %d, %v; want %d", n, err, len(b))
	}
	if _, err := DecodeHead(b[:len(b)-1]); !errors.Is(err, ErrCutShort) {
		t.Fatalf("cut head: %v", err)
	}
	if last := h.Extents[0].Last(); last != 1010 {
		t.Fatalf("last offset %d", last)
	}
}

// Every single changed bit is noticed.
func TestHeadRefusesDamage(t *testing.T) {
	b := EncodeHead(sampleHead())
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if _, err := DecodeHead(bad); err == nil {
			t.Fatalf("byte %d changed and nobody noticed", i)
		}
	}
}

func TestHeadRefusesNewerMajor(t *testing.T) {
	b := EncodeHead(sampleHead())
	b[9]++
	if _, err := DecodeHead(b); !errors.Is(err, ErrVersion) {
		t.Fatalf("newer major: %v", err)
	}
}

func sampleState(r *rand.Rand, tails int) *PartitionState {
	s := &PartitionState{
		Partition: metadata.TopicPartition{Topic: metadata.TopicID{1}, Partition: 3}, Epoch: 6, LogStart: 10, End: 5000, NextPage: 2, Expired: true,
		Epochs:       []EpochStart{{0, 0}, {6, 900}},
		SegmentPages: []PageRef{{Epoch: 0, Number: 0, Base: 10, Last: 699, MaxTimestamp: 80, Entries: 1024, Bytes: 1 << 40}},
		Segments:     []SegmentRef{*sampleSegment(700)},
		Tiered:       800,
		Pages:        []PageRef{{Epoch: 0, Number: 1, Base: 750, Last: 899, MaxTimestamp: 88, Entries: 1024, Bytes: 5, Floors: []SlotFloor{{1<<48 | 1, 7}, {1<<48 | 2, 0}}}},
		Producers: []Producer{{ID: 5, Epoch: 1, Updated: 1e12, Batches: []ProducerBatch{{BaseSequence: 3, LastOffsetDelta: 2, Base: 30, Timestamp: 1e12 - 5}}, Txn: ProducerTxn{NoTxn, NoTxn, 1e12 - 5}},
			{ID: 6, Epoch: 4, Updated: 1e12, Batches: []ProducerBatch{}, Txn: ProducerTxn{NoTxn, 7, 1e12 - 9}},
			{ID: 9, Epoch: 0, Updated: 1e12, Batches: []ProducerBatch{{BaseSequence: 0, LastOffsetDelta: 2, Base: 4000, Timestamp: 1e12 - 5}}, Txn: ProducerTxn{4000, NoTxn, 1e12 - 5}}},
		AbortedPages: []PageRef{{Epoch: 0, Number: 7, Base: 12, Last: 899, MaxTimestamp: -1, Entries: 1024}},
		Aborted:      []AbortedTxn{{6, 900, 950}, {3, 12, 951}},
		Tail:         []ExtentRef{},
	}
	base := int64(900)
	for i := range tails {
		n := r.Int64N(1000)
		s.Tail = append(s.Tail, ExtentRef{
			Incarnation: 1<<48 | metadata.Incarnation(r.IntN(3)), Slot: uint64(i), Position: r.Int64N(1 << 22), Len: 100, RawLen: 100,
			Base: base, Last: base + n, MaxTimestamp: r.Int64N(1e12), Epoch: 6, CRC: r.Uint32(),
		})
		if i%3 == 0 {
			s.Tail[i].Zstd, s.Tail[i].RawLen = true, 900
		}
		base += n + 1
	}
	return s
}

func TestCheckpointAndPageRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a, b := sampleState(r, 500), sampleState(r, 0)
	enc, err := EncodeCheckpoint(cluster, 9, 12, 2, AppendToCheckpoint(AppendToCheckpoint(nil, AppendState(nil, a)), AppendState(nil, b)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeCheckpoint(enc, cluster, 9, 12)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, []*PartitionState{a, b}) {
		t.Fatalf("decoded %+v", got)
	}
	if _, err := DecodeCheckpoint(enc, cluster, 9, 13); err == nil {
		t.Fatal("checkpoint of another slot accepted")
	}
	refs := a.Tail
	ref := PageRef{Number: 4, Base: refs[0].Base, Last: refs[len(refs)-1].Last}
	if enc, err = EncodePage(cluster, 9, 4, refs); err != nil {
		t.Fatal(err)
	}
	page, err := DecodePage(enc, cluster, ref)
	if err != nil || !reflect.DeepEqual(page, refs) {
		t.Fatalf("page: %v", err)
	}
	ref.Last++
	if _, err := DecodePage(enc, cluster, ref); err == nil {
		t.Fatal("page that does not reach its last offset accepted")
	}
}

func FuzzDecodeHead(f *testing.F) {
	f.Add(EncodeHead(sampleHead()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= HeaderLen { // let the fuzzer past the checksums
			b = reseal(b)
		}
		if h, err := DecodeHead(b); err == nil {
			again, err := DecodeHead(EncodeHead(h))
			if err != nil || again.DataLen != h.DataLen || len(again.Extents) != len(h.Extents) {
				t.Fatalf("decoded %+v, encoded again: %v", h, err)
			}
		}
	})
}

func FuzzUnseal(f *testing.F) {
	enc, _ := EncodePage(cluster, 9, 4, sampleState(rand.New(rand.NewPCG(1, 1)), 20).Tail)
	f.Add(enc)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodePage(b, cluster, PageRef{})
		_, _ = DecodeCheckpoint(b, cluster, 9, 4)
	})
}

// A decoder that expects more of an element than its writer needs refuses what
// it should read.
func TestLeastLengths(t *testing.T) {
	for what, c := range map[string]struct {
		least int
		enc   []byte // a list of one, the shortest
	}{
		"extent reference": {refMinLen, appendRefs(nil, []ExtentRef{{}})},
		"page reference":   {pageRefMinLen, appendPageRefs(nil, []PageRef{{}})},
		"page floor":       {floorMinLen, appendPageRefs(nil, []PageRef{{Floors: []SlotFloor{{}}}})[pageRefMinLen:]},
		"segment":          {segmentMinLen, appendSegmentRefs(nil, []SegmentRef{{}})},
		"producer":         {producerMinLen, appendProducers(nil, []Producer{{}})},
		"producer batch":   {batchMinLen, appendProducer(nil, &Producer{Batches: []ProducerBatch{{}}})[producerMinLen-1:]},
		"aborted":          {abortedMinLen, appendAborted(nil, []AbortedTxn{{}})},
		"transaction":      {txnMinLen, appendTransactions(nil, &PartitionState{Producers: []Producer{{}}})[:1+txnMinLen]},
		"partition state":  {stateMinLen, AppendToCheckpoint([]byte{1}, AppendState(nil, &PartitionState{}))},
	} {
		if n := len(c.enc) - 1; n < c.least { // without the count
			t.Errorf("%s: the shortest has %d bytes, %d are expected", what, n, c.least)
		}
	}
}

// What decodes encodes again to what decodes the same.
func FuzzDecodeState(f *testing.F) {
	f.Add(AppendState(nil, sampleState(rand.New(rand.NewPCG(1, 1)), 20)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		again, err := DecodeState(AppendState(nil, s))
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%+v\nencoded again: %v\n%+v", s, err, again)
		}
	})
}

func FuzzPageBody(f *testing.F) {
	f.Add(appendRefs(nil, sampleState(rand.New(rand.NewPCG(1, 1)), 20).Tail))
	f.Fuzz(func(t *testing.T, body []byte) {
		enc, err := seal(magicPage, cluster, 9, 4, body)
		if err != nil {
			t.Fatal(err)
		}
		d := &decoder{b: body}
		refs := decodeRefs(d)
		if d.err != nil || len(refs) == 0 {
			return
		}
		got, err := DecodePage(enc, cluster, PageRef{Number: 4, Base: refs[0].Base, Last: refs[len(refs)-1].Last})
		if err != nil {
			return
		}
		for i := range got {
			r := &got[i]
			if r.Base < 0 || r.Last < r.Base || r.Len < 0 || r.RawLen < 0 || r.Epoch < 0 {
				t.Fatalf("accepted %+v", r)
			}
		}
	})
}

func FuzzCheckpointBody(f *testing.F) {
	f.Add(append([]byte{1}, AppendToCheckpoint(nil, AppendState(nil, sampleState(rand.New(rand.NewPCG(1, 1)), 5)))...))
	f.Fuzz(func(t *testing.T, body []byte) {
		enc, err := seal(magicCheckpoint, cluster, 9, 12, body)
		if err != nil {
			t.Fatal(err)
		}
		states, err := DecodeCheckpoint(enc, cluster, 9, 12)
		if err == nil && len(states) > len(body) {
			t.Fatal("more states than bytes")
		}
	})
}

// No offset of a reference overflows.
func TestRefsRefuseOverflow(t *testing.T) {
	b := appendRefs(nil, []ExtentRef{{Base: math.MaxInt64 - 1, Last: math.MaxInt64 - 1, Len: 1, RawLen: 1}})
	d := &decoder{b: b}
	if refs := decodeRefs(d); d.err != nil || len(refs) != 1 {
		t.Fatal(d.err)
	}
	last := []ExtentRef{{Base: math.MaxInt64 - 1, Len: 1, RawLen: 1}}
	last[0].Last = last[0].Base
	last[0].Last += 5 // wraps
	d = &decoder{b: appendRefs(nil, last)}
	if decodeRefs(d); d.err == nil {
		t.Fatal("a last offset beyond the largest was accepted")
	}
}
