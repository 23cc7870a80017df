package tiering

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// tierLoop moves what lies in write-ahead objects into segments. While nothing
// does, it waits for the next commit and costs nothing.
func (l *Log) tierLoop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-l.tierable:
			timer.Reset(l.cfg.TierInterval)
			continue
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
		if l.tierRound(ctx, time.Now()) > 0 {
			timer.Reset(l.cfg.TierInterval)
			continue
		}
		l.tiering.Store(false)
		if l.untieredBytes() > 0 { // committed while we looked
			l.tierSoon()
		}
	}
}

// tierSoon starts the tiering timer unless it runs.
func (l *Log) tierSoon() {
	if !l.tiering.Swap(true) {
		l.tierable <- struct{}{} // room for one, and only one is ever sent
	}
}

func (l *Log) untieredBytes() (n int64) {
	for _, p := range l.openParts() {
		p.mu.RLock()
		n += p.manifest.untiered
		p.mu.RUnlock()
	}
	return n
}

// candidate is a partition with something to tier.
type candidate struct {
	p     *Partition
	bytes int64
	since time.Time
	// size is from how many bytes on it gets a segment of its own, max how large that
	// may be, and wait how long something of it waits: what the broker is set to, or
	// less by its topic's configs.
	size, max int64
	wait      time.Duration
}

// tierRound writes the segments that are due and returns how many bytes are left
// in write-ahead objects.
func (l *Log) tierRound(ctx context.Context, now time.Time) int64 {
	var rest []candidate
	for _, c := range l.tierCandidates(now) {
		if c.bytes >= c.size {
			left, err := l.tierOwn(ctx, c)
			if err != nil {
				l.tierFailed(ctx, err, "own")
				continue
			}
			// Few may have been left from the beginning: of a page that is partly tiered,
			// all counted.
			if c = c.p.candidate(); left < c.bytes {
				c.bytes = left
			}
		}
		if c.bytes > 0 {
			rest = append(rest, c)
		}
	}
	if err := l.tierShared(ctx, chooseShared(rest, now, &l.cfg)); err != nil {
		l.tierFailed(ctx, err, "shared")
	}
	l.look(now)
	left := l.untieredBytes()
	l.m.untiered.Set(float64(left))
	return left
}

// look counts what is left to tier, but for what cannot be read.
func (l *Log) look(now time.Time) {
	var lag int64
	for _, c := range l.tierCandidates(now) {
		lag += c.bytes
	}
	l.lag.Store(lag)
}

func (l *Log) tierFailed(ctx context.Context, err error, kind string) {
	if ctx.Err() != nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrNotLeader) || errors.Is(err, errBelowStart) {
		return // the next leader's work, or nobody's
	}
	l.m.segments.WithLabelValues(kind, "error").Inc()
	l.cfg.Logger.Warn("tiering failed, trying again", "error", err)
}

// unreadable puts off a partition of which something cannot be read, so that it
// does not keep the others from being tiered. It reports false when the reason is
// not the partition's: then nothing can be read, or the incarnation is over.
func (l *Log) unreadable(ctx context.Context, s *source, err error) bool {
	if ctx.Err() != nil || l.over() || errors.Is(err, ErrStoreUnavailable) {
		return false
	}
	if errors.Is(err, ErrDataLoss) && l.Check(ctx, 0) != nil {
		return false // whoever leads now may have tiered and deleted it
	}
	p := s.p
	p.mu.Lock()
	if p.manifest.logStart > s.start { // it may be gone because nobody needs it any more
		p.mu.Unlock()
		return true
	}
	led := p.phase == serving
	p.tierAt = time.Now().Add(l.cfg.TierAge)
	p.mu.Unlock()
	if led { // else it was given up, and others may have tiered and deleted what we read
		l.m.unreadable.Inc()
		l.cfg.Logger.Error("not tiering a partition for now: something of it cannot be read", "partition", p.tp.String(), "error", err)
	}
	return true
}

// tierCandidates returns the partitions that may be tiered now.
func (l *Log) tierCandidates(now time.Time) (all []candidate) {
	for _, p := range l.openParts() {
		p.mu.RLock()
		off := now.Before(p.tierAt)
		p.mu.RUnlock()
		if c := p.candidate(); c.bytes > 0 && !off {
			all = append(all, c)
		}
	}
	return all
}

// candidate says what the partition has to tier; nothing, if it is not led.
func (p *Partition) candidate() candidate {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.phase != serving {
		return candidate{p: p}
	}
	c := candidate{p: p, bytes: p.manifest.untiered, since: p.waiting}
	c.size, c.max, c.wait = p.watch.policy.tiering(&p.log.cfg)
	return c
}

// tiering returns from how many bytes on a partition gets a segment of its own,
// how large that may be, and how long something may wait for one.
func (p *Policy) tiering(cfg *Config) (size, most int64, wait time.Duration) {
	size, most, wait = cfg.SegmentBytes, cfg.SegmentBytesMax, cfg.TierAge
	if p.SegmentBytes > 0 {
		size, most = min(size, p.SegmentBytes), min(most, p.SegmentBytes)
	}
	if p.SegmentMillis > 0 && p.SegmentMillis < wait.Milliseconds() {
		wait = time.Duration(p.SegmentMillis) * time.Millisecond
	}
	return size, most, wait
}

// chooseShared decides which partitions share segments: all that are too small
// for one of their own, once the oldest has waited long enough or they have become
// too much; before that those whose topics do not wait so long.
func chooseShared(small []candidate, now time.Time, cfg *Config) []candidate {
	var bytes int64
	var impatient []candidate
	old := false
	for _, c := range small {
		bytes += c.bytes
		old = old || now.Sub(c.since) >= cfg.TierAge
		if now.Sub(c.since) >= c.wait {
			impatient = append(impatient, c)
		}
	}
	if !old && bytes < cfg.TierBytes {
		small = impatient
	}
	slices.SortFunc(small, func(a, b candidate) int { return comparePartitions(a.p, b.p) })
	return small
}

func comparePartitions(a, b *Partition) int {
	return cmp.Or(bytes.Compare(a.tp.Topic[:], b.tp.Topic[:]), cmp.Compare(a.tp.Partition, b.tp.Partition))
}

// source is what one partition puts into a segment.
type source struct {
	p     *Partition
	refs  []wal.ExtentRef
	bytes int64
	full  bool      // as much as may be; there may be more
	start int64     // the log start offset then
	taken time.Time // when refs were taken from the manifest
}

// untieredRefs returns the partition's oldest extents: as many as have limit
// bytes, but one at least, and all of them if there are fewer.
func (p *Partition) untieredRefs(ctx context.Context, limit int64) (s source, err error) {
	s = source{p: p, taken: time.Now()}
	p.mu.RLock()
	m := p.manifest
	from, pages, tail := m.untieredFrom(), m.pages, m.tail
	s.start = m.logStart
	may := p.phase == serving && !s.taken.Before(p.tierAt)
	p.mu.RUnlock()
	if !may {
		return s, nil
	}
	take := func(refs []wal.ExtentRef) (full bool) {
		for i := find(refs, from); i < len(refs); i++ {
			if len(s.refs) > 0 && s.bytes+refs[i].RawLen > limit {
				s.full = true
				return true
			}
			s.refs = append(s.refs, refs[i])
			s.bytes += refs[i].RawLen
		}
		s.full = s.bytes >= limit
		return s.full
	}
	for i := range pages {
		refs, err := p.log.loadPage(ctx, p, pages[i])
		if err != nil {
			return s, err
		}
		if take(refs) {
			return s, nil
		}
	}
	take(tail)
	return s, nil
}

// ownAtOnce segments of one partition are written before it is the others' turn:
// one that is written to as fast as it is tiered must not keep them waiting.
const ownAtOnce = 8

// tierOwn writes segments of one partition as long as it has enough for one, and
// returns how much is left of what is too little; of what is enough, nothing.
func (l *Log) tierOwn(ctx context.Context, c candidate) (left int64, err error) {
	for range ownAtOnce {
		s, err := c.p.untieredRefs(ctx, c.max)
		if err != nil && l.unreadable(ctx, &s, err) {
			return 0, nil
		}
		if err != nil || s.bytes < c.size && !s.full || len(s.refs) == 0 {
			return s.bytes, err
		}
		if err := l.tier(ctx, false, []source{s}); err != nil {
			return 0, err
		}
	}
	return 0, nil // the next round goes on
}

// tierShared writes segments that partitions share.
func (l *Log) tierShared(ctx context.Context, list []candidate) error {
	var batch []source
	var bytes int64
	for _, c := range list {
		s, err := c.p.untieredRefs(ctx, l.cfg.SegmentBytesMax)
		if err != nil && !l.unreadable(ctx, &s, err) {
			return err
		}
		if err != nil || len(s.refs) == 0 {
			continue
		}
		if len(batch) > 0 && bytes+s.bytes > l.cfg.SegmentBytesMax {
			if err := l.tier(ctx, true, batch); err != nil {
				return err
			}
			batch, bytes = nil, 0
		}
		batch, bytes = append(batch, s), bytes+s.bytes
	}
	if len(batch) == 0 {
		return nil
	}
	return l.tier(ctx, true, batch)
}

const segmentPutTimeout = 2 * time.Minute

// tier writes one segment and has the manifests name it. Until they do it is a
// proposal: what a deposed leader uploads is never named.
func (l *Log) tier(ctx context.Context, shared bool, sources []source) error {
	kind := "own"
	if shared {
		kind = "shared"
	}
	b := &segmentBuilder{log: l, head: wal.SegmentHead{
		Cluster: l.cfg.Cluster, Incarnation: l.cfg.Incarnation, Shared: shared, ID: wal.NewULID(time.Now()), Created: nowMillis(),
	}}
	sources, refs, err := b.build(ctx, sources)
	if err != nil {
		return fmt.Errorf("build segment: %w", err)
	}
	if len(sources) == 0 {
		return nil // none can be read
	}
	key := wal.SegmentKey(sources[0].p.tp, &refs[0])
	l.unnamed.add(key)
	defer l.unnamed.remove(key)
	if err := failpoint.Hit(failpoint.BeforeSegment); err != nil {
		return err
	}
	put, cancel := context.WithTimeout(ctx, segmentPutTimeout)
	err = l.createSame(put, key, true, b.parts...)
	cancel()
	if err != nil {
		l.discard("orphan", key) // nobody will name it, but it may be there
		return fmt.Errorf("write segment %s: %w", key, err)
	}
	if err := failpoint.Hit(failpoint.AfterSegment); err != nil {
		return err
	}
	sent, named, failed := publish(ctx, sources, refs)
	if err := failpoint.Hit(failpoint.AfterAdd); err != nil {
		return err
	}
	if named == 0 { // nobody will: the partitions moved on, or the incarnation is over
		if sent == 0 { // an ADD that was sent may be committed for those who come after
			l.discard("orphan", key)
		}
		return failed
	}
	l.look(time.Now())
	l.m.segments.WithLabelValues(kind, "ok").Inc()
	l.m.segmentSize.WithLabelValues("stored").Add(float64(b.head.DataLen))
	for i := range refs {
		l.m.segmentSize.WithLabelValues("raw").Add(float64(refs[i].Data.Bytes))
	}
	if errors.Is(failed, ErrNotLeader) { // some were given up meanwhile
		return nil
	}
	return failed
}

// publish has the manifests name a segment in place of the extents it was made
// from, and returns how many edits were sent, and how many are committed. They
// share objects on their way.
func publish(ctx context.Context, sources []source, refs []wal.SegmentRef) (sent, named int, failed error) {
	flushes, gone := make([]*flush, len(sources)), make([][]wal.PageRef, len(sources))
	for i := range sources {
		var err error
		flushes[i], err = sources[i].p.beginEdit(ctx, &wal.Record{Type: wal.Add, Segment: &refs[i]}, func(m *manifest) error {
			gone[i] = m.pages[:findPage(m.pages, refs[i].Last+1)]
			return m.addable(&refs[i])
		})
		if err != nil {
			failed = err
		}
	}
	for i := range sources {
		if flushes[i] == nil {
			continue
		}
		sent++
		if err := sources[i].p.endEdit(flushes[i]); err != nil {
			failed = err
			continue
		}
		named++
		sources[i].tiered(gone[i])
	}
	return sent, named, failed
}

// tiered runs when the manifest names the segment: pages that it no longer does
// may go.
func (s *source) tiered(gone []wal.PageRef) {
	p := s.p
	p.mu.Lock()
	p.waiting = s.taken // what came later is no older
	if p.manifest.untiered == 0 {
		p.waiting = time.Time{}
	}
	p.mu.Unlock()
	for i := range gone {
		p.log.discard("page", wal.PageKey(p.tp, gone[i].Epoch, gone[i].Number))
	}
}
