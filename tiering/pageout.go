package tiering

import (
	"context"
	"errors"

	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// openParts returns the partitions in the table.
func (l *Log) openParts() []*Partition {
	l.partsMu.RLock()
	defer l.partsMu.RUnlock()
	parts := make([]*Partition, 0, len(l.parts))
	for _, p := range l.parts {
		parts = append(parts, p)
	}
	return parts
}

// pageOut writes manifest pages for partitions whose tail, or whose list of
// segments, has grown long.
func (l *Log) pageOut(ctx context.Context) error {
	for _, p := range l.openParts() {
		if err := p.pageOut(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *Partition) pageOut(ctx context.Context) error {
	select { // an edit would take away what is being written
	case p.editing <- struct{}{}:
		defer func() { <-p.editing }()
	default:
		return nil // at the next checkpoint
	}
	for {
		more, err := p.pageOutOnce(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// pageOutOnce writes one page, of extents, segments or aborted transactions, if one
// is due.
func (p *Partition) pageOutOnce(ctx context.Context) (more bool, err error) {
	l := p.log
	p.mu.Lock()
	if p.phase != serving {
		p.mu.Unlock()
		return false, nil
	}
	p.manifest.forgetAborted()
	refs, page, due := p.manifest.pageOut()
	paged := p.manifest.paged
	var segments []wal.SegmentRef
	if !due {
		segments, page, due = p.manifest.pageOutSegments()
		paged = p.manifest.pagedSegments
	}
	var aborted []wal.AbortedTxn
	if !due {
		aborted, page, due = p.manifest.pageOutAborted()
		paged = p.manifest.pagedAborted
	}
	p.mu.Unlock()
	if !due {
		return false, nil
	}
	var b []byte
	switch {
	case segments != nil:
		b, err = wal.EncodeSegmentPage(l.cfg.Cluster, l.cfg.Incarnation, page.Number, segments)
	case aborted != nil:
		b, err = wal.EncodeAbortedPage(l.cfg.Cluster, l.cfg.Incarnation, page.Number, aborted)
	default:
		b, err = wal.EncodePage(l.cfg.Cluster, l.cfg.Incarnation, page.Number, refs)
	}
	if err != nil {
		return false, err
	}
	if err := failpoint.Hit(failpoint.BeforePage); err != nil {
		return false, err
	}
	err = l.createSame(ctx, wal.PageKey(p.tp, page.Epoch, page.Number), false, b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(err, errOtherBytes) {
		// An earlier try whose answer was lost, before extents were tiered: no
		// manifest names it, and it goes with the next sweep.
		p.manifest.nextPage++
		p.encoded = nil
		return true, nil
	}
	if err != nil {
		return false, err
	}
	paged(page)
	p.encoded = nil
	return true, nil
}
