package tiering

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const abortedBytes = 24 // of a wal.AbortedTxn in memory

// abortedIndex is a manifest's list of aborted transactions at some moment. It is
// complete below the last stable offset of that moment.
type abortedIndex struct {
	pages []wal.PageRef
	tail  []wal.AbortedTxn
}

// within returns the transactions that have batches from offset from to last,
// both inclusive.
func (x abortedIndex) within(ctx context.Context, p *Partition, from, last int64) (out []wal.AbortedTxn, err error) {
	take := func(list []wal.AbortedTxn) {
		i := sort.Search(len(list), func(i int) bool { return list[i].Last >= from })
		for _, t := range list[i:] {
			if t.First <= last {
				out = append(out, t)
			}
		}
	}
	for i := findPage(x.pages, from); i < len(x.pages); i++ {
		if x.pages[i].Base > last {
			continue
		}
		list, err := p.log.loadAbortedPage(ctx, p.tp, x.pages[i])
		if err != nil {
			return nil, err
		}
		take(list)
	}
	take(x.tail)
	return out, nil
}

// loadAbortedPage returns the aborted transactions that a manifest page lists.
func (l *Log) loadAbortedPage(ctx context.Context, tp metadata.TopicPartition, ref wal.PageRef) ([]wal.AbortedTxn, error) {
	return l.abortedPages.get(ctx, wal.PageKey(tp, ref.Epoch, ref.Number), func(ctx context.Context) ([]wal.AbortedTxn, error) {
		return l.fetchAbortedPage(ctx, tp, ref)
	})
}

func (l *Log) fetchAbortedPage(ctx context.Context, tp metadata.TopicPartition, ref wal.PageRef) ([]wal.AbortedTxn, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	key := wal.PageKey(tp, ref.Epoch, ref.Number)
	b, err := l.cfg.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, missing(key, err)
	}
	list, err := wal.DecodeAbortedPage(b, l.cfg.Cluster, ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return list, nil
}

// forgetAborted drops what ended below the log start offset. Nobody asks for it;
// pages that nothing names any more go with the next sweep.
func (m *manifest) forgetAborted() {
	if i := findPage(m.abortedPages, m.logStart); i > 0 {
		m.abortedPages = slices.Clone(m.abortedPages[i:])
	}
	if i := sort.Search(len(m.aborted), func(i int) bool { return m.aborted[i].Last >= m.logStart }); i > 0 {
		m.aborted = slices.Clone(m.aborted[i:])
	}
}

// below returns the leading batches of b that lie below offset end, which is where
// a batch begins.
func below(b []byte, end int64) []byte {
	n := 0
	for n < len(b) {
		h, err := batch.Parse(b[n:])
		if err != nil || h.BaseOffset >= end {
			break
		}
		n += h.Length
	}
	return b[:n]
}
