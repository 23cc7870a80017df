package tiering

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// graves are the objects that manifests named until the log start offset passed
// them, or the topic was deleted, and that are deleted after a grace. They are
// remembered here only: what an incarnation that ends leaves behind, sweeps find.
type graves struct {
	mu    sync.Mutex
	queue []grave // the graces are as long as one another: in the order they end
	keys  map[string]int
	size  int
	dug   chan struct{} // wakes the loop; holds at most one token
}

// grave is what one edit freed, or one object that a sweep found.
type grave struct {
	due   time.Time
	tp    metadata.TopicPartition
	freed freed
	// gone: it is the whole partition, because its topic seems to be deleted.
	gone   bool
	shared string // the key of a shared segment, without a partition
}

func (g *graves) init() {
	g.keys, g.dug = make(map[string]int), make(chan struct{}, 1)
}

// bury has what a manifest names no more deleted when it is due.
func (g *graves) bury(tp metadata.TopicPartition, f freed, due time.Time, gone bool) {
	if f.size() > 0 {
		g.add(grave{due: due, tp: tp, freed: f, gone: gone})
	}
}

func (g *graves) add(one grave) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := max(1, one.freed.size())
	if g.size+n > discardsMax {
		return // left to the sweeps
	}
	g.size += n
	g.queue = append(g.queue, one)
	one.names(func(key string) { g.keys[key]++ })
	select {
	case g.dug <- struct{}{}:
	default:
	}
}

// names calls f with the keys that are known without reading anything.
func (g *grave) names(f func(key string)) {
	if g.shared != "" {
		f(g.shared)
	}
	for i := range g.freed.segments {
		f(wal.SegmentKey(g.tp, &g.freed.segments[i]))
	}
	for _, pages := range [][]wal.PageRef{g.freed.pages, g.freed.segmentPages} {
		for i := range pages {
			f(wal.PageKey(g.tp, pages[i].Epoch, pages[i].Number))
		}
	}
}

// has reports whether an object is known to wait for its end here.
func (g *graves) has(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.keys[key] > 0
}

// peek returns what is due, or tells when there will be something.
func (g *graves) peek(now time.Time) (*grave, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peekLocked(now)
}

func (g *graves) peekLocked(now time.Time) (*grave, time.Time) {
	if len(g.queue) == 0 {
		return nil, time.Time{}
	}
	one := g.queue[0]
	if one.due.After(now) {
		return nil, one.due
	}
	return &one, time.Time{}
}

// next takes what peek returns.
func (g *graves) next(now time.Time) (*grave, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one, due := g.peekLocked(now)
	if one == nil {
		return nil, due
	}
	g.queue = g.queue[1:]
	g.size -= max(1, one.freed.size())
	return one, time.Time{}
}

// done forgets what was taken.
func (g *graves) done(one *grave) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one.names(func(key string) {
		if g.keys[key]--; g.keys[key] <= 0 {
			delete(g.keys, key)
		}
	})
}

// graveLoop deletes what is due. While nothing waits it costs nothing.
func (l *Log) graveLoop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-l.graves.dug:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
		if next := l.digUp(ctx, time.Now()); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}

// digUp deletes what is due now and returns when it is to be called next, zero
// when nothing waits.
func (l *Log) digUp(ctx context.Context, now time.Time) time.Time {
	d := &digging{shared: make(map[string]bool)}
	if one, next := l.graves.peek(now); one == nil {
		return next
	}
	// Nothing rests on it; but a broker that is cut off deletes nothing.
	if err := l.fresh(ctx); err != nil {
		l.cfg.Logger.Info("deletion of what is below the log start is put off", "error", err)
		return time.Now().Add(l.cfg.CollectInterval)
	}
	for ctx.Err() == nil {
		one, next := l.graves.next(now)
		if one == nil {
			l.digShared(ctx, d.shared)
			return next
		}
		err := l.endGrave(ctx, one, d)
		l.graves.done(one)
		if err != nil && ctx.Err() == nil {
			l.cfg.Logger.Warn("deletion of what is below the log start failed, trying again", "partition", one.tp.String(), "error", err)
			one.due = now.Add(l.cfg.DeleteGrace) // in order with the others
			l.graves.add(*one)
		}
	}
	return time.Time{}
}

// digging is what one round of deletions knows.
type digging struct {
	shared map[string]bool // segments that others may need
	owners map[metadata.TopicPartition][]metadata.Owner
}

// endGrave deletes one partition's objects and notes the shared segments among
// them.
func (l *Log) endGrave(ctx context.Context, one *grave, d *digging) error {
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	if one.shared != "" {
		d.shared[one.shared] = true
		return nil
	}
	if one.gone {
		if d.owners == nil { // a topic that is deleted stays so
			owners, err := l.cfg.Chains.Owners(ctx)
			if err != nil {
				return err
			}
			d.owners = owners
		}
		if _, there := d.owners[one.tp]; there {
			return nil // whoever leads it has its manifest
		}
	}
	segments := func(refs []wal.SegmentRef) error {
		for i := range refs {
			key := wal.SegmentKey(one.tp, &refs[i])
			if refs[i].Shared {
				d.shared[key] = true
			} else if err := l.deleteObjects(ctx, "segment", key); err != nil {
				return err
			}
		}
		return nil
	}
	for _, page := range one.freed.segmentPages {
		if err := l.endPage(ctx, one, page, segments); err != nil {
			return err
		}
	}
	if err := segments(one.freed.segments); err != nil {
		return err
	}
	for _, page := range one.freed.pages {
		if err := l.deleteObjects(ctx, "page", wal.PageKey(one.tp, page.Epoch, page.Number)); err != nil {
			return err
		}
	}
	return nil
}

// endPage deletes the segments of a page that lie below the log start, and the
// page behind them, if it does.
func (l *Log) endPage(ctx context.Context, one *grave, page wal.PageRef, end func([]wal.SegmentRef) error) error {
	refs, err := l.loadSegmentPage(ctx, one.tp, page)
	if errors.Is(err, ErrDataLoss) {
		return nil // done by an earlier try, or swept
	}
	if err != nil {
		return err
	}
	first, last := findSegment(refs, one.freed.from), findSegment(refs, one.freed.to-1)
	if last < len(refs) && refs[last].Last < one.freed.to {
		last++
	}
	if first < last {
		if err := end(refs[first:last]); err != nil {
			return err
		}
	}
	if page.Last >= one.freed.to {
		return nil
	}
	return l.deleteObjects(ctx, "page", wal.PageKey(one.tp, page.Epoch, page.Number))
}

// digShared deletes those of some shared segments that nobody names any more.
func (l *Log) digShared(ctx context.Context, keys map[string]bool) {
	if len(keys) == 0 || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	dead, err := l.deadShared(ctx, keys)
	for _, key := range dead {
		if err == nil {
			err = l.deleteObjects(ctx, "segment", key)
		}
	}
	if err != nil && ctx.Err() == nil {
		l.cfg.Logger.Warn("deletion of shared segments failed, trying again", "error", err)
		for key := range keys {
			l.graves.add(grave{due: time.Now().Add(l.cfg.DeleteGrace), shared: key})
		}
	}
}

// deadShared returns those of some shared segments that no manifest names and
// that none can come to name: sealed chains wrote them, or this one did and knows
// what became of them. The others are left to whoever frees their last section,
// to their writer's sweep, and to the sweep of whoever collects.
func (l *Log) deadShared(ctx context.Context, keys map[string]bool) ([]string, error) {
	settled := make(map[metadata.Incarnation]bool)
	parts := make(map[metadata.TopicPartition]bool)
	inspector := NewInspector(l.cfg.Store, l.cfg.Cluster)
	var candidates []string
	any := false // some may be anybody's
	for key := range keys {
		inc, _, ok := wal.ParseSharedKey(key)
		if !ok || inc == l.cfg.Incarnation && l.unnamed.has(key) {
			continue
		}
		if _, known := settled[inc]; !known && inc != l.cfg.Incarnation {
			chain, err := l.cfg.Chains.Load(ctx, inc)
			if err != nil && !errors.Is(err, metadata.ErrNoChain) {
				return nil, err
			}
			settled[inc] = err == nil && chain.End != nil
		}
		if inc != l.cfg.Incarnation && !settled[inc] {
			continue
		}
		sections, err := inspector.SharedSections(ctx, key)
		if errors.Is(err, ErrDataLoss) {
			continue // deleted
		}
		if errors.Is(err, ErrCorrupt) {
			any = true
		} else if err != nil {
			return nil, err
		}
		for i := range sections {
			parts[sections[i].Partition] = true
		}
		candidates = append(candidates, key)
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	// An edit whose fate is not known ends the incarnation before its segment
	// leaves the unnamed ones.
	if l.over() {
		return nil, ErrFenced
	}
	left := make(map[string]bool, len(candidates))
	for _, key := range candidates {
		left[key] = true
	}
	if err := l.strikeNamed(ctx, left, func(tp metadata.TopicPartition) bool { return any || parts[tp] }); err != nil {
		return nil, fmt.Errorf("find out who names shared segments: %w", err)
	}
	dead := candidates[:0]
	for _, key := range candidates {
		if left[key] {
			dead = append(dead, key)
		}
	}
	return dead, nil
}

// everything is what a manifest names.
func (m *manifest) everything() freed {
	return freed{segments: m.segments, segmentPages: m.segmentPages, pages: m.pages, from: 0, to: math.MaxInt64}
}
