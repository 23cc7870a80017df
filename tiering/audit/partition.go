package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	// looks is how often a partition is rebuilt before what does not fit is
	// believed; each but the first is afresh, after a pause.
	looks = 3
	// rebuilds is how often leaders may change under one look.
	rebuilds = 20
	// walks is how often a partition is walked through before objects count as
	// missing.
	walks     = 4
	lookPause = 500 * time.Millisecond
	// findingsMax bounds what is kept of one partition.
	findingsMax = 100
)

// findings are the problems of one partition, in the order found.
type findings struct {
	where string
	list  []Problem
	more  int
}

func (f *findings) add(kind, format string, args ...any) {
	if len(f.list) >= findingsMax {
		f.more++
		return
	}
	f.list = append(f.list, Problem{kind, f.where, fmt.Sprintf(format, args...)})
}

// checkPartition rebuilds a partition and checks it, down to its batches.
func (a *auditor) checkPartition(ctx context.Context, tp metadata.TopicPartition) error {
	f, total, err := a.walkPartition(ctx, tp)
	if err != nil || f == nil {
		return err
	}
	if len(f.list) > 0 {
		if _, there, err := a.partition(ctx, tp); err != nil || !there {
			return err // its topic was deleted meanwhile
		}
	}
	for _, p := range f.list {
		a.out.problem(p)
	}
	if f.more > 0 {
		a.out.add(func(t *Totals) { t.Problems += int64(f.more) })
	}
	a.out.topic(total)
	return nil
}

// walkPartition rebuilds a partition and walks through it; nil when it is gone.
// What a live leader has tiered since the partition was rebuilt is deleted under
// the walk: so when objects are missing, it is rebuilt afresh and walked again.
func (a *auditor) walkPartition(ctx context.Context, tp metadata.TopicPartition) (*findings, Topic, error) {
	for look := 1; ; look++ {
		f := &findings{where: "partition " + a.partitionName(tp)}
		total := Topic{Name: a.topicName(tp.Topic), Partitions: 1}
		v, err := a.rebuild(ctx, tp, look > 1, f)
		if err != nil || v == nil {
			return nil, total, err
		}
		if v.state != nil {
			a.named.begins(tp, v.state.LogStart)
			w := &partitionWalk{a: a, tp: tp, view: v, f: f, total: &total, producers: newProducers(v.state.Expired, v.state.LogStart)}
			if err := w.run(ctx); err != nil {
				return nil, total, err
			}
		}
		gone := slices.ContainsFunc(f.list, func(p Problem) bool { return p.Kind == KindObjectMissing || p.Kind == KindPage })
		if !gone || look == walks {
			return f, total, nil
		}
	}
}

// view is a partition as the next leader would find it.
type view struct {
	owners []metadata.Owner
	state  *wal.PartitionState // nil: it cannot be rebuilt
}

// rebuild returns the partition as it is, nil when it is gone, and adds to f
// what did not fit at every look.
func (a *auditor) rebuild(ctx context.Context, tp metadata.TopicPartition, fresh bool, f *findings) (*view, error) {
	for look := 1; ; look++ {
		now := &findings{where: f.where}
		v, err := a.rebuildOnce(ctx, tp, fresh || look > 1, now)
		if err != nil || v == nil {
			return nil, err
		}
		if len(now.list) == 0 || look == looks {
			f.list, f.more = append(f.list, now.list...), f.more+now.more
			return v, nil
		}
		if err := pause(ctx, lookPause*time.Duration(look)); err != nil {
			return nil, err
		}
	}
}

// rebuildOnce rebuilds the partition from one owner list: what a chain says of a
// partition counts only while the list has its entry, after that it forgets. So
// the list has to be the same afterwards.
func (a *auditor) rebuildOnce(ctx context.Context, tp metadata.TopicPartition, fresh bool, f *findings) (*view, error) {
	for try := 1; ; try++ {
		now := &findings{where: f.where}
		v, err := a.rebuildFrom(ctx, tp, fresh || try > 1, now)
		if err != nil || v == nil {
			return nil, err
		}
		p, there, err := a.partition(ctx, tp)
		if err != nil || !there {
			return nil, err
		}
		if slices.Equal(p.Owners, v.owners) || try == rebuilds {
			f.list, f.more = append(f.list, now.list...), f.more+now.more
			return v, nil
		}
	}
}

// rebuildFrom reads opens before owners and owners before chains, newest first:
// what it then misses is older than what it has.
func (a *auditor) rebuildFrom(ctx context.Context, tp metadata.TopicPartition, fresh bool, f *findings) (*view, error) {
	opened := a.chains.opened(tp)
	p, there, err := a.partition(ctx, tp)
	if err != nil || !there {
		return nil, err
	}
	v := &view{owners: p.Owners}
	a.checkOwners(p.Owners, opened, f)
	met := make(map[metadata.Incarnation]*inspected)
	state, err := a.inspector.Inherit(ctx, tp, p.Owners, func(ctx context.Context, inc metadata.Incarnation) (*tiering.ChainState, error) {
		if met[inc] == nil {
			i, err := a.inspectKnown(ctx, inc, fresh)
			if err != nil {
				return nil, err
			}
			met[inc] = i
		}
		return met[inc].state, met[inc].err
	})
	if err != nil {
		if unanswered(ctx, err) {
			return nil, err
		}
		f.add(KindRebuild, "the next leader cannot rebuild it: %v", err)
		return v, a.checkSuccession(ctx, tp, f)
	}
	v.state = state
	newest, _ := p.Newest()
	for epoch, s := range opened {
		if epoch > state.Epoch && epoch <= newest.Epoch { // one beyond the list was reported
			f.add(KindRebuild, "chain %s opened it at epoch %d, rebuilt it is at epoch %d", s.inc, epoch, state.Epoch)
		}
	}
	for _, o := range p.Owners {
		i, claim := met[o.Incarnation], tiering.Claim{Partition: tp, Epoch: state.Epoch}
		if o.Epoch != state.Epoch || i == nil || i.holed {
			continue
		}
		if c, ok := i.claims[claim]; ok && c.end != state.End {
			f.add(KindManifest, "rebuilt, it ends at offset %d, by the heads of chain %s at %d", state.End, o.Incarnation, c.end)
		}
	}
	checkShape(state, f)
	return v, a.checkSuccession(ctx, tp, f)
}

// inspectKnown is inspect for a chain that may have no key.
func (a *auditor) inspectKnown(ctx context.Context, inc metadata.Incarnation, fresh bool) (*inspected, error) {
	if _, known, err := a.chains.known(ctx, inc); err != nil {
		return nil, err
	} else if !known {
		return nil, fmt.Errorf("%w: %s", metadata.ErrNoChain, inc)
	}
	return a.chains.inspect(ctx, inc, fresh)
}

// checkOwners checks the owner list against itself and against what was opened.
func (a *auditor) checkOwners(owners []metadata.Owner, opened map[int32]*scan, f *findings) {
	newest := int32(-1)
	for _, o := range owners {
		if o.Epoch <= newest {
			f.add(KindOwners, "the owner list has epoch %d behind epoch %d", o.Epoch, newest)
		}
		newest = max(newest, o.Epoch)
		if s := opened[o.Epoch]; s != nil && s.inc != o.Incarnation {
			f.add(KindOwners, "epoch %d belongs to chain %s by the owner list, but chain %s opened it", o.Epoch, o.Incarnation, s.inc)
		}
	}
	for epoch, s := range opened {
		if epoch > newest {
			f.add(KindOwners, "chain %s opened epoch %d, the newest of the owner list is %d", s.inc, epoch, newest)
		}
	}
}

// checkShape checks a manifest's outline. That its extents follow one another is
// seen when they are walked.
func checkShape(m *wal.PartitionState, f *findings) {
	if m.LogStart < 0 || m.LogStart > m.End {
		f.add(KindManifest, "log start offset %d, end %d", m.LogStart, m.End)
	}
	epoch, start := int32(-1), int64(-1)
	for _, e := range m.Epochs {
		if e.Epoch <= epoch || e.Start <= start || e.Epoch > m.Epoch || e.Start > m.End {
			f.add(KindManifest, "leader epoch %d begins at offset %d, behind epoch %d at %d; the newest is %d, the end %d", e.Epoch, e.Start, epoch, start, m.Epoch, m.End)
		}
		epoch, start = e.Epoch, e.Start
	}
	first, end := m.LogStart, m.LogStart
	piece := func(base, last int64) {
		if base < first || end == m.LogStart {
			first = base
		}
		end = last + 1
	}
	for _, p := range m.SegmentPages {
		piece(p.Base, p.Last)
	}
	for i := range m.Segments {
		piece(m.Segments[i].Base, m.Segments[i].Last)
	}
	if (len(m.SegmentPages) > 0 || len(m.Segments) > 0) && end != m.Tiered {
		f.add(KindManifest, "segments end at %d, it is tiered up to %d", end, m.Tiered)
	}
	for _, p := range m.Pages {
		piece(max(p.Base, m.Tiered), p.Last)
	}
	for i := range m.Tail {
		piece(m.Tail[i].Base, m.Tail[i].Last)
	}
	if first > m.LogStart || end != m.End {
		f.add(KindManifest, "it covers offsets %d to %d, but the log begins at %d and ends at %d", first, end, m.LogStart, m.End)
	}
}

// checkSuccession checks that each OPEN begins where the newest opened epoch
// before it ended. An OPEN is committed when everything before it is closed: what
// does not fit is looked at again once all chains, whose walks may be behind
// those of others, have been read on to where they are now.
func (a *auditor) checkSuccession(ctx context.Context, tp metadata.TopicPartition, f *findings) error {
	before, err := a.misfits(ctx, tp)
	if err != nil || len(before) == 0 {
		return err
	}
	if err := a.chains.refresh(ctx); err != nil {
		return err
	}
	after, err := a.misfits(ctx, tp)
	for _, epoch := range slices.Sorted(maps.Keys(after)) {
		if _, confirmed := before[epoch]; confirmed {
			f.add(KindLeadership, "%s", after[epoch])
		}
	}
	return err
}

// misfits returns, by epoch, what is wrong with where it was opened.
func (a *auditor) misfits(ctx context.Context, tp metadata.TopicPartition) (map[int32]string, error) {
	out := make(map[int32]string)
	opened := a.chains.opened(tp)
	epochs := slices.Sorted(maps.Keys(opened))
	for i := 1; i < len(epochs); i++ {
		older, newer := epochs[i-1], epochs[i]
		to, _, _, err := opened[newer].claim(ctx, tiering.Claim{Partition: tp, Epoch: newer})
		if err != nil {
			return nil, err
		}
		from, _, holed, err := opened[older].claim(ctx, tiering.Claim{Partition: tp, Epoch: older})
		if err != nil {
			return nil, err
		}
		// Between them, one may have opened in a chain whose beginning is trimmed.
		follows := from.end == to.base || newer > older+1 && from.end < to.base && a.chains.trimmed.Load()
		if !follows && to.base >= 0 && !holed {
			out[newer] = fmt.Sprintf("epoch %d opened at offset %d in chain %s, epoch %d had ended at %d in chain %s",
				newer, to.base, opened[newer].inc, older, from.end, opened[older].inc)
		}
	}
	return out, nil
}

// nameSet remembers which segments and pages manifests name, by a hash of their
// keys, and where partitions begin.
type nameSet struct {
	mu     sync.Mutex
	seen   map[uint64]struct{}
	starts map[metadata.TopicPartition]int64 // but those that begin at 0
}

func (p *nameSet) init() {
	p.seen, p.starts = make(map[uint64]struct{}), make(map[metadata.TopicPartition]int64)
}

// begins notes a log start offset.
func (p *nameSet) begins(tp metadata.TopicPartition, start int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if start > p.starts[tp] {
		p.starts[tp] = start
	}
}

func (p *nameSet) start(tp metadata.TopicPartition) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts[tp]
}

func (p *nameSet) add(key string) {
	p.mu.Lock()
	p.seen[hashKey(key)] = struct{}{}
	p.mu.Unlock()
}

func (p *nameSet) has(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.seen[hashKey(key)]
	return ok
}
