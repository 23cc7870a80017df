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
	same := slices.EqualFunc(recent(rebuilt), recent(p.aborted), func(a, b wal.AbortedTxn) bool {
		return a.ProducerID == b.ProducerID && a.Last == b.Last && (a.First == b.First || a.First < m.LogStart)
	})
	if !same {
		to.add(KindTransaction, "%d aborted transactions are listed, by the batches there are %d, or others", len(recent(rebuilt)), len(recent(p.aborted)))
	}
}
