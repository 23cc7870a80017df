package wal

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	txnMinLen     = 4
	abortedMinLen = 3
)

// appendTransactions encodes what transactions add to a partition state. Of most
// producers that is nothing.
func appendTransactions(b []byte, s *PartitionState) []byte {
	n := 0
	for i := range s.Producers {
		if s.Producers[i].transacts() {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for i := range s.Producers {
		p := &s.Producers[i]
		if !p.transacts() {
			continue
		}
		b = binary.AppendUvarint(b, uint64(p.ID))
		b = binary.AppendUvarint(b, uint64(p.Txn.First+1))
		b = binary.AppendUvarint(b, uint64(int64(p.Txn.CoordinatorEpoch)+1))
		b = binary.AppendVarint(b, p.Txn.Timestamp-p.Updated)
	}
	b = appendPageRefs(b, s.AbortedPages)
	return appendAborted(b, s.Aborted)
}

// transacts reports whether there is more to say of p than its batches do.
func (p *Producer) transacts() bool {
	return p.Txn.First >= 0 || p.Txn.CoordinatorEpoch >= 0 || len(p.Batches) == 0
}

// decodeTransactions decodes it. What major 2 wrote ends before it.
func decodeTransactions(d *decoder, s *PartitionState) {
	if d.err != nil || len(d.b) == 0 {
		return
	}
	at := 0
	for range d.count(txnMinLen, "transactional producers") {
		id := int64(d.uvarint(math.MaxInt64, "producer id"))
		for at < len(s.Producers) && s.Producers[at].ID != id { // both are in the order of ids
			at++
		}
		if at == len(s.Producers) {
			d.fail("transactional producer out of place")
			return
		}
		p := &s.Producers[at]
		p.Txn.First = int64(d.uvarint(math.MaxInt64, "first offset of a transaction")) - 1
		p.Txn.CoordinatorEpoch = int32(int64(d.uvarint(math.MaxInt32+1, "coordinator epoch")) - 1)
		p.Txn.Timestamp = p.Updated + d.varint("producer timestamp")
		if !p.transacts() {
			d.fail("a producer without transactions among those that have them")
		}
		if d.err != nil {
			return
		}
		at++
	}
	s.AbortedPages = emptyNil(decodePageRefs(d))
	s.Aborted = emptyNil(decodeAborted(d))
}

func emptyNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

// appendAborted encodes entries as differences.
func appendAborted(b []byte, list []AbortedTxn) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	last := int64(0)
	for _, t := range list {
		b = binary.AppendUvarint(b, uint64(t.ProducerID))
		b = binary.AppendUvarint(b, uint64(t.Last-last))
		b = binary.AppendUvarint(b, uint64(t.Last-t.First))
		last = t.Last
	}
	return b
}

func decodeAborted(d *decoder) []AbortedTxn {
	list := make([]AbortedTxn, d.count(abortedMinLen, "aborted transactions"))
	last := int64(0)
	for i := range list {
		t := &list[i]
		t.ProducerID = int64(d.uvarint(math.MaxInt64, "producer id"))
		t.Last = last + int64(d.uvarint(uint64(math.MaxInt64-last), "marker offset"))
		t.First = t.Last - int64(d.uvarint(uint64(t.Last), "first offset"))
		last = t.Last
		if d.err != nil {
			return nil
		}
	}
	return list
}

// AbortedPage is the reference of a page that is to hold list.
func AbortedPage(epoch int32, number uint32, list []AbortedTxn) PageRef {
	p := PageRef{Epoch: epoch, Number: number, Base: math.MaxInt64, Last: -1, MaxTimestamp: -1, Entries: int32(len(list))}
	for _, t := range list {
		p.Base, p.Last = min(p.Base, t.First), max(p.Last, t.Last)
	}
	return p
}

// EncodeAbortedPage writes aborted transactions that a leader moved out of its
// manifest.
func EncodeAbortedPage(cluster ClusterID, inc metadata.Incarnation, number uint32, list []AbortedTxn) ([]byte, error) {
	return seal(magicAborted, cluster, inc, uint64(number), appendAborted(nil, list))
}

// DecodeAbortedPage reads a page of aborted transactions.
func DecodeAbortedPage(b []byte, cluster ClusterID, ref PageRef) ([]AbortedTxn, error) {
	e, err := unsealPage(magicAborted, b, cluster, ref)
	if err != nil {
		return nil, err
	}
	d := &decoder{b: e.body}
	list := decodeAborted(d)
	if d.err != nil {
		return nil, d.err
	}
	says := AbortedPage(ref.Epoch, ref.Number, list)
	if says.Base != ref.Base || says.Last != ref.Last || says.Entries != ref.Entries {
		return nil, fmt.Errorf("%w: page %d holds %d aborted transactions from %d to %d instead of %d from %d to %d", ErrMalformed,
			ref.Number, says.Entries, says.Base, says.Last, ref.Entries, ref.Base, ref.Last)
	}
	if !slices.IsSortedFunc(list, func(a, b AbortedTxn) int { return int(max(-1, min(1, a.Last-b.Last))) }) {
		return nil, fmt.Errorf("%w: page %d is out of order", ErrMalformed, ref.Number)
	}
	return list, nil
}
