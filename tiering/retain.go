package tiering

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// retainer has partitions looked at when something of theirs may be too old, or
// when they have grown to be too large.
type retainer struct {
	wake chan struct{} // holds at most one token
}

func (r *retainer) init() { r.wake = make(chan struct{}, 1) }

func (l *Log) retainSoon() {
	select {
	case l.retain.wake <- struct{}{}:
	default:
	}
}

// watch is what a partition is waited for by retention. Guarded by Partition.mu.
type watch struct {
	policy Policy
	look   time.Time // when to look; zero: when enough has come
	grown  int64     // bytes that came since the last look
	room   int64     // enough
	none   bool      // nothing is ever let go of
}

// grew notes committed bytes and reports whether somebody has to look.
func (w *watch) grew(bytes int64, now time.Time, interval time.Duration) bool {
	if w.none {
		return false
	}
	w.grown += bytes
	soon := now.Add(interval)
	if w.grown < w.room || !w.look.IsZero() && !w.look.After(soon) {
		return false
	}
	w.look = soon
	return true
}

// policyOf is what the topic's configs say now.
func (l *Log) policyOf(topic metadata.TopicID) Policy {
	if l.cfg.Policy == nil {
		return Policy{}
	}
	return l.cfg.Policy(topic)
}

// Reconsider has the partitions looked at whose topic's policy has changed. Call
// it when configs may have.
func (l *Log) Reconsider() {
	policies := make(map[metadata.TopicID]Policy)
	changed := false
	for _, p := range l.openParts() {
		policy, known := policies[p.tp.Topic]
		if !known {
			policy = l.policyOf(p.tp.Topic)
			policies[p.tp.Topic] = policy
		}
		p.mu.Lock()
		if p.watch.policy != policy {
			p.watch = watch{policy: policy, look: time.Now()}
			changed = true
		}
		p.mu.Unlock()
	}
	if changed {
		l.retainSoon()
	}
}

// retainLoop looks at partitions when it is time to. While there is nothing to
// wait for it costs nothing.
func (l *Log) retainLoop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-l.retain.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
		if next := l.retainRound(ctx, time.Now()); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}

// trimsAtOnce LOGSTARTs are on their way together.
const trimsAtOnce = 256

// retainRound looks at the partitions that are due and returns when the next one
// is, zero when none is waited for.
func (l *Log) retainRound(ctx context.Context, now time.Time) (next time.Time) {
	var due []*Partition
	for _, p := range l.openParts() {
		p.mu.RLock()
		look, open := p.watch.look, p.phase == serving
		p.mu.RUnlock()
		switch {
		case !open || look.IsZero():
		case look.After(now):
			next = earlier(next, look)
		default:
			due = append(due, p)
		}
	}
	for len(due) > 0 && ctx.Err() == nil {
		n := min(len(due), trimsAtOnce)
		for _, look := range l.retainSome(ctx, due[:n], now) {
			next = earlier(next, look)
		}
		due = due[n:]
	}
	return next
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// retainSome looks at some partitions and returns when to look at each again.
func (l *Log) retainSome(ctx context.Context, due []*Partition, now time.Time) []time.Time {
	looks, edits := make([]time.Time, len(due)), make([]*flush, len(due))
	starts, errs := make([]int64, len(due)), make([]error, len(due))
	expired := false
	for i, p := range due {
		starts[i], errs[i] = p.retainFrom(ctx, now)
		expired = expired || errs[i] == nil && starts[i] >= 0
	}
	var stale error
	if expired {
		stale = l.fresh(ctx)
	}
	for i, p := range due {
		if errs[i] == nil && starts[i] >= 0 {
			if errs[i] = stale; stale == nil && p.agrees() {
				edits[i], errs[i] = p.beginTrim(ctx, &wal.Record{Type: wal.LogStart}, starts[i])
			}
		}
		looks[i] = p.lookAgain(now, errs[i])
	}
	for i, e := range edits {
		if e == nil {
			continue
		}
		if err := due[i].endEdit(e); err == nil {
			l.m.trimmed.WithLabelValues("retention").Inc()
		}
	}
	return looks
}

const freshTimeout = 5 * time.Second

// fresh returns once policies are known as they are now.
func (l *Log) fresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	if err := l.cfg.Fresh(ctx); err != nil {
		return fmt.Errorf("find out what configs say now: %w", err)
	}
	return nil
}

// agrees reports whether the policy is still that of the last look. If not, there
// is another look at once.
func (p *Partition) agrees() bool {
	policy := p.log.policyOf(p.tp.Topic)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watch.policy == policy {
		return true
	}
	p.watch = watch{policy: policy, look: time.Now()}
	p.log.retainSoon()
	return false
}

// lookAgain returns when to look again, sooner after an error.
func (p *Partition) lookAgain(now time.Time, err error) time.Time {
	l := p.log
	if err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrFenced) && !errors.Is(err, errBelowStart) {
		l.cfg.Logger.Warn("retention failed, trying again", "partition", p.tp.String(), "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.watch.look = now.Add(l.cfg.RetentionInterval)
	}
	return p.watch.look
}

// retainFrom decides from which offset on the partition keeps its records, -1 when
// nothing goes, and when it is to be looked at next.
func (p *Partition) retainFrom(ctx context.Context, now time.Time) (int64, error) {
	l := p.log
	policy := l.policyOf(p.tp.Topic)
	p.mu.Lock()
	p.watch = watch{policy: policy, none: !policy.limited(), room: math.MaxInt64}
	s := p.searchLocked()
	p.mu.Unlock()
	if !policy.limited() {
		return -1, nil
	}
	bytes, err := s.bytes(ctx)
	if err != nil {
		return -1, err
	}
	j := judge(policy, now, s.start, bytes)
	if err := s.judge(ctx, j); err != nil {
		return -1, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watch.policy != policy { // changed while we looked
		return -1, nil
	}
	least := now.Add(l.cfg.RetentionInterval)
	p.watch.look, p.watch.room = j.look, j.room
	if !j.look.IsZero() && j.look.Before(least) {
		p.watch.look = least
	}
	if p.watch.grown >= j.room { // meanwhile
		p.watch.look = earlier(p.watch.look, least)
	}
	if j.start == s.start {
		return -1, nil
	}
	return j.start, nil
}

// bytes is how much the log holds, as served. Of the page that the log start lies
// in only what is above counts.
func (s *search) bytes(ctx context.Context) (sum int64, err error) {
	err = s.pieces(ctx, func(page *wal.PageRef) bool { return page.Base >= s.start },
		func(_, _, bytes int64) bool { sum += bytes; return true })
	return sum, err
}

// judge goes through the log, and into a page only when not all of it goes.
func (s *search) judge(ctx context.Context, j *judgment) error {
	whole := func(page *wal.PageRef) bool {
		rest := *j
		return page.Base >= s.start && rest.take(page.Last, page.MaxTimestamp, page.Bytes)
	}
	return s.pieces(ctx, whole, j.take)
}

// pieces calls f with last offset, newest timestamp and bytes of each piece of the
// log, oldest first, until it returns false: of each page, if whole says so, else
// of each segment and each extent.
func (s *search) pieces(ctx context.Context, whole func(*wal.PageRef) bool, f func(last, newest, bytes int64) bool) error {
	for i := range s.segmentPages {
		page := &s.segmentPages[i]
		if whole(page) {
			if !f(page.Last, page.MaxTimestamp, page.Bytes) {
				return nil
			}
			continue
		}
		refs, err := s.p.log.loadSegmentPage(ctx, s.p.tp, *page)
		if err != nil || !s.eachSegment(refs, f) {
			return err
		}
	}
	if !s.eachSegment(s.segments, f) {
		return nil
	}
	for i := range s.pages {
		page := &s.pages[i]
		if page.Base >= s.untiered && whole(page) {
			if !f(page.Last, page.MaxTimestamp, page.Bytes) {
				return nil
			}
			continue
		}
		refs, err := s.p.log.loadPage(ctx, s.p, *page)
		if err != nil || !s.eachExtent(refs, f) {
			return err
		}
	}
	s.eachExtent(s.tail, f)
	return nil
}

func (s *search) eachSegment(refs []wal.SegmentRef, f func(last, newest, bytes int64) bool) bool {
	for i := findSegment(refs, s.start); i < len(refs); i++ {
		if !f(refs[i].Last, newestOf(&refs[i]), refs[i].Data.Bytes) {
			return false
		}
	}
	return true
}

func (s *search) eachExtent(refs []wal.ExtentRef, f func(last, newest, bytes int64) bool) bool {
	for i := find(refs, s.untiered); i < len(refs); i++ {
		if !f(refs[i].Last, refs[i].MaxTimestamp, refs[i].RawLen) {
			return false
		}
	}
	return true
}
