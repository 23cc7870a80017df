package tiering

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// A sweep deletes what failures left behind: objects that were written and never
// named by a manifest, or whose deletion was cut short. It lists first and reads
// the manifests then: an object may only be named for the first time by the
// incarnation and under the leader epoch that wrote it, so one that lies there
// when that is over, and that no manifest names afterwards, never will be named.

// keySet is a set of keys.
type keySet struct {
	mu sync.Mutex
	m  map[string]bool
}

func (s *keySet) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]bool)
	}
	s.m[key] = true
}

func (s *keySet) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
}

func (s *keySet) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key]
}

// sweepFirst is how long after its start a broker sweeps first.
const sweepFirst = 10 * time.Minute

func (l *Log) sweepLoop(ctx context.Context) {
	wait := min(l.cfg.SweepInterval, sweepFirst)
	for sleep(ctx, l.done, wait/2+rand.N(wait/2+1)) {
		if err := l.sweepAll(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Logger.Warn("sweep failed, trying again", "error", err)
		}
		wait = l.cfg.SweepInterval
	}
}

// sweepAll sweeps the partitions led here and, where this broker collects, what
// belongs to no partition or to many.
func (l *Log) sweepAll(ctx context.Context) error {
	for _, p := range l.openParts() {
		if err := p.sweepObjects(ctx); err != nil {
			return fmt.Errorf("sweep %s: %w", p.tp, err)
		}
	}
	if !l.cfg.Collects() {
		if err := l.sweepShared(ctx, wal.SharedPrefix(l.cfg.Incarnation)); err != nil {
			return fmt.Errorf("sweep own shared segments: %w", err)
		}
		return nil
	}
	if err := l.sweepDeletedTopics(ctx); err != nil {
		return fmt.Errorf("sweep deleted topics: %w", err)
	}
	if err := l.sweepShared(ctx, "x/"); err != nil {
		return fmt.Errorf("sweep shared segments: %w", err)
	}
	if err := l.sweepChains(ctx); err != nil {
		return fmt.Errorf("sweep chains: %w", err)
	}
	return nil
}

const (
	listPage = 1000
	// sweepMax bounds the candidates of one sweep; the next one goes on behind them.
	sweepMax = 100_000
)

// listOld returns the keys under prefix that are old enough and that pick
// chooses. If those are too many, it goes on where it ended the next time.
func (l *Log) listOld(ctx context.Context, prefix string, pick func(key string) bool) (keys []string, err error) {
	after := l.sweptTo[prefix]
	delete(l.sweptTo, prefix)
	for {
		infos, err := retry(ctx, l.done, func() ([]object.Info, error) {
			ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
			defer cancel()
			return l.cfg.Store.List(ctx, prefix, after, listPage)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range infos {
			if time.Since(o.Modified) >= l.cfg.SweepAge && pick(o.Key) {
				keys = append(keys, o.Key)
			}
		}
		if len(infos) < listPage {
			return keys, nil
		}
		if after = infos[len(infos)-1].Key; len(keys) >= l.sweepMax {
			l.sweptTo[prefix] = after
			return keys, nil
		}
	}
}

// sweepObjects deletes segments and pages of a partition that its manifest does
// not name: of earlier epochs, which are closed, and of this one, where this
// leader knows that it will not name them.
func (p *Partition) sweepObjects(ctx context.Context) error {
	l := p.log
	segments, err := l.listOld(ctx, wal.SegmentPrefix(p.tp), func(key string) bool {
		_, s, ok := wal.ParseSegmentKey(key)
		return ok && s.Epoch <= p.epoch && !l.unnamed.has(key)
	})
	if err != nil {
		return err
	}
	pages, err := l.listOld(ctx, wal.PagePrefix(p.tp), func(key string) bool {
		_, epoch, _, ok := wal.ParsePageKey(key)
		return ok && epoch <= p.epoch
	})
	if err != nil || len(segments)+len(pages) == 0 {
		return err
	}
	// An edit whose fate is not known ends the incarnation before its segment
	// leaves the unnamed ones.
	if l.over() {
		return ErrFenced
	}
	p.mu.RLock()
	m, open := p.manifest.clone(), p.phase == serving
	p.mu.RUnlock()
	if !open {
		return nil // the next leader's work
	}
	named, err := l.namedKeys(ctx, m)
	if err != nil {
		return err
	}
	for _, key := range segments {
		if named[key] || l.graves.has(key) {
			continue
		}
		if _, s, _ := wal.ParseSegmentKey(key); s.Base < m.logStart { // named once, perhaps: nobody knows until when
			l.graves.bury(p.tp, freed{segments: []wal.SegmentRef{s}}, time.Now().Add(l.cfg.DeleteGrace), false)
			continue
		}
		if err := l.sweepObject(ctx, key); err != nil {
			return err
		}
	}
	for _, key := range pages {
		_, epoch, number, _ := wal.ParsePageKey(key)
		if !named[key] && !l.graves.has(key) && (epoch < p.epoch || number < m.nextPage) { // else it is being written
			if err := l.sweepObject(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) sweepObject(ctx context.Context, key string) error {
	l.cfg.Logger.Info("deleting an object that nobody needs", "key", key)
	return l.deleteObjects(ctx, "orphan", key)
}

// namedKeys returns the keys of the segments and pages that a manifest names.
func (l *Log) namedKeys(ctx context.Context, m *manifest) (map[string]bool, error) {
	named := make(map[string]bool)
	segments := func(refs []wal.SegmentRef) {
		for i := findSegment(refs, m.logStart); i < len(refs); i++ { // a page may name older ones still
			named[wal.SegmentKey(m.partition, &refs[i])] = true
		}
	}
	segments(m.segments)
	for _, page := range m.pages {
		named[wal.PageKey(m.partition, page.Epoch, page.Number)] = true
	}
	for _, page := range m.abortedPages {
		named[wal.PageKey(m.partition, page.Epoch, page.Number)] = true
	}
	for _, page := range m.segmentPages {
		named[wal.PageKey(m.partition, page.Epoch, page.Number)] = true
		refs, err := l.loadSegmentPage(ctx, m.partition, page)
		if err != nil {
			return nil, err
		}
		segments(refs)
	}
	return named, nil
}

// sweepDeletedTopics deletes segments and pages of partitions that do not exist:
// topic ids never come back, and nothing is written of a topic before its
// partitions have their keys.
func (l *Log) sweepDeletedTopics(ctx context.Context) error {
	exists, err := l.cfg.Chains.Owners(ctx)
	if err != nil {
		return err
	}
	var gone []string
	for _, prefix := range []string{"s/", "m/"} {
		keys, err := l.listOld(ctx, prefix, func(key string) bool {
			tp, ok := partitionOf(key)
			_, there := exists[tp]
			return ok && !there
		})
		if err != nil {
			return err
		}
		gone = append(gone, keys...)
	}
	if len(gone) == 0 {
		return nil
	}
	if exists, err = l.cfg.Chains.Owners(ctx); err != nil { // some were created since
		return err
	}
	found := make(map[metadata.TopicPartition]*freed)
	for _, key := range gone {
		tp, _ := partitionOf(key)
		if _, there := exists[tp]; there || l.graves.has(key) {
			continue
		}
		f := found[tp]
		if f == nil {
			f = new(freed)
			found[tp] = f
		}
		if _, s, ok := wal.ParseSegmentKey(key); ok {
			f.segments = append(f.segments, s)
		} else if _, epoch, number, ok := wal.ParsePageKey(key); ok {
			f.pages = append(f.pages, wal.PageRef{Epoch: epoch, Number: number})
		}
	}
	for tp, f := range found { // it may have been deleted a moment ago
		l.graves.bury(tp, *f, time.Now().Add(l.cfg.DeleteGrace), true)
	}
	return nil
}

func partitionOf(key string) (tp metadata.TopicPartition, ok bool) {
	if tp, _, ok = wal.ParseSegmentKey(key); !ok {
		tp, _, _, ok = wal.ParsePageKey(key)
	}
	return tp, ok
}

// sweepShared deletes shared segments that no manifest names: of chains that are
// sealed, and own ones whose fate is known.
func (l *Log) sweepShared(ctx context.Context, prefix string) error {
	sealed := make(map[metadata.Incarnation]bool)
	var failed error
	keys, err := l.listOld(ctx, prefix, func(key string) bool {
		inc, _, ok := wal.ParseSharedKey(key)
		if !ok {
			return false
		}
		if inc == l.cfg.Incarnation {
			return !l.unnamed.has(key)
		}
		is, known := sealed[inc]
		if !known {
			chain, err := l.cfg.Chains.Load(ctx, inc)
			if err != nil {
				failed = err // one that is not known to be sealed is left alone
			}
			is = err == nil && chain.End != nil
			sealed[inc] = is
		}
		return is
	})
	if err != nil {
		return err
	}
	if failed != nil {
		l.cfg.Logger.Info("some chains could not be read, their shared segments stay", "error", failed)
	}
	if l.over() {
		return ErrFenced
	}
	orphans := make(map[string]bool, len(keys))
	for _, key := range keys {
		orphans[key] = true
	}
	// What is named here is most of it, and costs no question to anybody.
	for _, p := range l.openParts() {
		p.mu.RLock()
		m := p.manifest.clone()
		p.mu.RUnlock()
		if err := l.strike(ctx, orphans, m); err != nil {
			return err
		}
	}
	if err := l.strikeNamed(ctx, orphans, func(metadata.TopicPartition) bool { return true }); err != nil {
		return err
	}
	for key := range orphans {
		// It may have been named until a moment ago. After the grace it is looked at
		// once more.
		if !l.graves.has(key) {
			l.graves.add(grave{due: time.Now().Add(l.cfg.DeleteGrace), shared: key})
		}
	}
	return nil
}

// strike takes the keys that a manifest names out of a set.
func (l *Log) strike(ctx context.Context, keys map[string]bool, m *manifest) error {
	if len(keys) == 0 {
		return nil
	}
	named, err := l.namedKeys(ctx, m)
	for key := range named {
		delete(keys, key)
	}
	return err
}

// strikeNamed takes the keys that the manifests of some partitions name, as of some
// moment after the call, out of a set. Any partition that cannot be read is an
// error. Their owner lists must be the same afterwards: while its entry is listed,
// a chain goes on describing what it led, and the walk finds it.
func (l *Log) strikeNamed(ctx context.Context, keys map[string]bool, of func(metadata.TopicPartition) bool) error {
	for attempt := 0; len(keys) > 0; attempt++ {
		before, err := l.ownersOf(ctx, of)
		if err != nil {
			return err
		}
		err = l.strikeNamedBy(ctx, keys, before)
		after, again := l.ownersOf(ctx, of)
		switch {
		case again != nil:
			return again
		case maps.EqualFunc(before, after, slices.Equal[[]metadata.Owner]):
			return err
		case attempt == 9:
			return errors.New("leaders change all the time")
		}
	}
	return nil
}

func (l *Log) ownersOf(ctx context.Context, of func(metadata.TopicPartition) bool) (map[metadata.TopicPartition][]metadata.Owner, error) {
	owners, err := l.cfg.Chains.Owners(ctx)
	maps.DeleteFunc(owners, func(tp metadata.TopicPartition, _ []metadata.Owner) bool { return !of(tp) })
	return owners, err
}

func (l *Log) strikeNamedBy(ctx context.Context, keys map[string]bool, owners map[metadata.TopicPartition][]metadata.Owner) error {
	// Not as this incarnation, which would take a look at its own entries for a
	// wish to succeed itself.
	inspector := NewInspector(l.cfg.Store, l.cfg.Cluster)
	states := make(map[metadata.Incarnation]*ChainState)
	for tp, list := range owners {
		state, err := inspector.Inherit(ctx, tp, list, func(ctx context.Context, inc metadata.Incarnation) (*ChainState, error) {
			if s := states[inc]; s != nil {
				return s, nil
			}
			s, err := inspector.Current(ctx, inc, l.loadChain)
			if err == nil {
				states[inc] = s
			}
			return s, err
		})
		if err != nil {
			return fmt.Errorf("read manifest of %s: %w", tp, err)
		}
		if err := l.strike(ctx, keys, manifestOf(state)); err != nil {
			return err
		}
	}
	return nil
}

// sweepChains deletes what is left of chains below what is published of them:
// slots below the trim mark, which a PUT that arrived late created again, and
// checkpoints that others have replaced or that were never recorded.
func (l *Log) sweepChains(ctx context.Context) error {
	chains := make(map[metadata.Incarnation]*metadata.Chain)
	load := func(inc metadata.Incarnation) *metadata.Chain {
		c, known := chains[inc]
		if !known {
			if chain, err := l.cfg.Chains.Load(ctx, inc); err == nil {
				c = &chain
			}
			chains[inc] = c // nil, what is not known stays
		}
		return c
	}
	slots, err := l.listOld(ctx, "w/", func(key string) bool {
		inc, slot, ok := wal.ParseSlotKey(key)
		if !ok {
			return false
		}
		c := load(inc)
		return c != nil && slot < c.Trim
	})
	if err != nil {
		return err
	}
	checkpoints, err := l.listOld(ctx, "k/", func(key string) bool {
		inc, slot, ok := wal.ParseCheckpointKey(key)
		if !ok {
			return false
		}
		c := load(inc)
		// The newest of a chain without an end may be about to be recorded.
		return c != nil && (slot < c.Checkpoint || c.Collected || c.End != nil && slot > c.Checkpoint)
	})
	if err != nil {
		return err
	}
	for _, key := range append(slots, checkpoints...) {
		if err := l.sweepObject(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
