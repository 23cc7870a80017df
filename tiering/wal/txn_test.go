package wal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"testing"
)

// older makes what this program wrote the work of an older one.
func older(b []byte, checksum int) []byte {
	binary.BigEndian.PutUint16(b[8:], majorMin)
	binary.BigEndian.PutUint32(b[checksum:], crc32.Checksum(b[:checksum], castagnoli))
	return b
}

// What major 2 wrote opens: its states end behind the producers.
func TestReadsMajor2(t *testing.T) {
	s := sampleState(rand.New(rand.NewPCG(1, 1)), 3)
	s.Producers, s.AbortedPages, s.Aborted = s.Producers[:1], nil, nil
	b := AppendState(nil, s)
	b = b[:len(b)-3] // three counts of nothing
	got, err := DecodeState(b)
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Fatalf("%v, decoded\n%+v\nwant\n%+v", err, got, s)
	}
	enc, err := EncodeCheckpoint(cluster, 9, 12, 1, AppendToCheckpoint(nil, b))
	if err != nil {
		t.Fatal(err)
	}
	states, err := DecodeCheckpoint(older(enc, 60), cluster, 9, 12)
	if err != nil || !reflect.DeepEqual(states, []*PartitionState{s}) {
		t.Fatalf("checkpoint: %v", err)
	}
	h := sampleHead()
	h.Extents = h.Extents[:1] // no control batches
	h.DataLen = 300
	head := older(EncodeHead(h), 148)
	h.Digest = sha256.Sum256(head[:len(head)-DigestLen])
	copy(head[len(head)-DigestLen:], h.Digest[:])
	again, err := DecodeHead(head)
	if err != nil || !reflect.DeepEqual(h, again) {
		t.Fatalf("head: %v, decoded\n%+v\nwant\n%+v", err, again, h)
	}
	binary.BigEndian.PutUint16(head[8:], majorMin-1)
	if _, err := HeadLen(head); !errors.Is(err, ErrMalformed) {
		t.Fatalf("major 1: %v", err)
	}
}

func sampleAborted(n int) (list []AbortedTxn) {
	r := rand.New(rand.NewPCG(3, 4))
	last := int64(5)
	for range n {
		last += 1 + r.Int64N(100)
		list = append(list, AbortedTxn{ProducerID: r.Int64N(1 << 40), First: last - min(last, 1+r.Int64N(500)), Last: last})
	}
	return list
}

func TestAbortedPageRoundTrip(t *testing.T) {
	list := sampleAborted(PageEntries)
	ref := AbortedPage(3, 4, list)
	b, err := EncodeAbortedPage(cluster, 9, 4, list)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAbortedPage(b, cluster, ref)
	if err != nil || !reflect.DeepEqual(got, list) {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*PageRef){
		"base": func(r *PageRef) { r.Base++ }, "last": func(r *PageRef) { r.Last++ },
		"entries": func(r *PageRef) { r.Entries-- }, "number": func(r *PageRef) { r.Number++ },
	} {
		bad := ref
		change(&bad)
		if _, err := DecodeAbortedPage(b, cluster, bad); err == nil {
			t.Errorf("page of another %s accepted", name)
		}
	}
	if _, err := DecodePage(b, cluster, ref); err == nil {
		t.Error("taken for a page of extents")
	}
}

func FuzzAbortedPage(f *testing.F) {
	f.Add(appendAborted(nil, sampleAborted(20)))
	f.Fuzz(func(t *testing.T, body []byte) {
		d := &decoder{b: body}
		list := decodeAborted(d)
		if d.err != nil {
			return
		}
		for i, a := range list {
			if a.First < 0 || a.Last < a.First || i > 0 && a.Last < list[i-1].Last {
				t.Fatalf("accepted %+v", a)
			}
		}
		b, err := EncodeAbortedPage(cluster, 9, 4, list)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeAbortedPage(b, cluster, AbortedPage(0, 4, list)); err != nil || !reflect.DeepEqual(got, list) {
			t.Fatalf("%+v\n%+v\n%v", got, list, err)
		}
	})
}
