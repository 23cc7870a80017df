package audit

import (
	"context"
	"slices"

	"github.com/tidemark-io/tidemark/tiering/wal"
)

// aborted returns the aborted transactions that the rebuilt state lists, nil when
// some page of them cannot be read, which has been said.
func (w *partitionWalk) aborted(ctx context.Context) ([]wal.AbortedTxn, error) {
	m := w.view.state
	list := make([]wal.AbortedTxn, 0, len(m.Aborted))
	whole := true
	for _, ref := range m.AbortedPages {
		if ref.Last < m.LogStart {
			continue // nobody reads it any more, and it may be gone
		}
		w.a.named.add(wal.PageKey(w.tp, ref.Epoch, ref.Number))
		w.total.Pages++
		var page []wal.AbortedTxn
		var err error
		if e := w.a.request(ctx, func() { page, err = w.a.inspector.AbortedPage(ctx, w.tp, ref) }); e != nil {
			return nil, e
		}
		if err != nil {
			if unanswered(ctx, err) {
				return nil, err
			}
			w.f.add(KindPage, "page %d of epoch %d, of aborted transactions: %v", ref.Number, ref.Epoch, err)
			whole = false
		}
		list = append(list, page...)
	}
	if !whole {
		return nil, nil
	}
	return append(list, m.Aborted...), nil
}

// compareAborted checks that the rebuilt state lists the transactions that the
// markers abort. Of those that ended below the log start offset nothing is asked.
func (p *producers) compareAborted(m *wal.PartitionState, rebuilt []wal.AbortedTxn, to *findings) {
	if p.holed {
		return
	}
	recent := func(list []wal.AbortedTxn) []wal.AbortedTxn {
		i, _ := slices.BinarySearchFunc(list, m.LogStart, func(t wal.AbortedTxn, at int64) int { return int(max(-1, min(1, t.Last-at))) })
		return list[i:]
	}
	listed, written := recent(rebuilt), recent(p.aborted)
	if !sameAborted(listed, written, m.LogStart) {
		to.add(KindTransaction, "%d aborted transactions are listed, by the batches there are %d, or others", len(listed), len(written))
	}
}

// sameAborted compares what is listed with what was written, both in the order of
// their markers. Of a transaction that began below the log start offset the first
// batches may be gone, or all of them.
func sameAborted(listed, written []wal.AbortedTxn, logStart int64) bool {
	for _, t := range listed {
		found := len(written) > 0 && written[0].Last == t.Last && written[0].ProducerID == t.ProducerID
		switch {
		case t.First >= logStart && (!found || written[0].First != t.First):
			return false
		case found:
			written = written[1:]
		}
	}
	return len(written) == 0
}
