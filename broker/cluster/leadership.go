package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const (
	// leadTimeout bounds one attempt to lead a group of partitions: a release
	// that is not answered, a seal, a recovery.
	leadTimeout = 60 * time.Second
	// leadBatch bounds one group; what is left over follows in the next.
	leadBatch = 1000
	// leadGroups bounds how many groups are worked on at a time.
	leadGroups = 16
)

// leadership makes this broker lead what prefers it: it claims partitions, has
// the log open them, gives up what others have claimed since, and drops owner
// entries that are not needed any more.
//
// A source does nothing when another broker is preferred: it serves until the
// target has claimed the partition, and then releases it. So a partition whose
// target never comes is not left alone.
type leadership struct {
	n  *Node
	wg sync.WaitGroup
	// settled is notified when work on partitions has ended.
	settled signal

	// mu guards what follows; it is not held during I/O.
	mu       sync.Mutex
	parts    map[metadata.TopicPartition]*holding
	groups   map[metadata.Incarnation]bool // predecessors being dealt with
	trimming bool
	// trimFailures counts failures in a row.
	trimFailures int
	leaving      bool // nothing more is claimed
	releases     map[tiering.Claim]*release
}

// holding is what this broker has of one partition.
//
// Invariant: at most one worker has it busy; epoch, owners and state are
// changed by that worker or, to releasing and released, by a release.
type holding struct {
	state   holdState
	epoch   int32            // of our newest claim; -1 before the first
	owners  []metadata.Owner // as that claim wrote them
	rev     int64            // at which it did
	durable bool             // a durable checkpoint of ours describes the claim

	busy     bool
	failures int
	retryAt  time.Time
}

type holdState int

const (
	idle      holdState = iota // never claimed
	claimed                    // listed as owner, not open
	leading                    // open
	releasing                  // being given up: never led again at this epoch
	released                   // given up: the RELEASE is committed
)

// has reports a claim that others must wait for.
func (h *holding) has() bool {
	return h.state == claimed || h.state == leading || h.state == releasing
}

func newLeadership(n *Node) *leadership {
	return &leadership{
		n:        n,
		parts:    make(map[metadata.TopicPartition]*holding),
		groups:   make(map[metadata.Incarnation]bool),
		releases: make(map[tiering.Claim]*release),
	}
}

func (l *leadership) run(ctx context.Context) error {
	defer l.wg.Wait()
	wake, unsubscribe := l.n.subscribeAll(&l.settled)
	defer unsubscribe()
	for {
		next := l.reconcile(ctx, time.Now())
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// todo is what one look at the view found to be done.
type todo struct {
	lead    map[metadata.Incarnation][]metadata.TopicPartition // by newest predecessor
	release []relinquished
	trim    []metadata.OwnerEntry
	drop    []metadata.TopicPartition // led, and the topic is deleted
	forget  []tiering.Claim           // released, and needed by nobody
	next    time.Duration             // until a retry is due
}

// reconcile starts what is to be done and returns when to look again.
func (l *leadership) reconcile(ctx context.Context, now time.Time) time.Duration {
	l.mu.Lock()
	t := l.findLocked(now)
	l.beginLocked(ctx, &t)
	l.n.metrics.led.Set(float64(l.countLocked(leading)))
	l.mu.Unlock()
	for _, tp := range t.drop {
		l.n.cfg.Log.Drop(tp)
	}
	if len(t.forget) > 0 {
		l.n.cfg.Log.Forget(t.forget)
	}
	return t.next
}

// beginLocked starts the workers.
func (l *leadership) beginLocked(ctx context.Context, t *todo) {
	for pred, tps := range t.lead {
		if l.groups[pred] || len(l.groups) >= leadGroups {
			continue // looked at again when a group ends
		}
		l.groups[pred] = true
		tps = tps[:min(len(tps), leadBatch)]
		l.startLocked(tps, func() { l.lead(ctx, pred, tps) })
	}
	if len(t.release) > 0 {
		claims := t.release
		tps := make([]metadata.TopicPartition, len(claims))
		for i, c := range claims {
			tps[i] = c.Partition
		}
		l.startLocked(tps, func() { l.giveUp(ctx, claims) })
	}
	if len(t.trim) > 0 && !l.trimming {
		l.trimming = true
		l.startLocked(nil, func() { l.trim(ctx, t.trim) })
	}
}

// startLocked runs work in a goroutine that has the partitions busy.
func (l *leadership) startLocked(tps []metadata.TopicPartition, work func()) {
	for _, tp := range tps {
		l.parts[tp].busy = true
	}
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		work()
		l.mu.Lock()
		for _, tp := range tps {
			l.parts[tp].busy = false
		}
		l.mu.Unlock()
		l.settled.notify()
	}()
}

// findLocked compares the view with what is held.
func (l *leadership) findLocked(now time.Time) todo {
	t := todo{lead: make(map[metadata.Incarnation][]metadata.TopicPartition), next: time.Hour}
	seen := make(map[metadata.TopicPartition]bool)
	l.n.cfg.View.Partitions(func(tp metadata.TopicPartition, p *metadata.Partition) bool {
		h := l.parts[tp]
		wanted := p.Preferred == l.n.cfg.Incarnation && !l.leaving && l.n.exists(tp)
		if h == nil && wanted {
			h = &holding{epoch: -1}
			l.parts[tp] = h
		}
		if h != nil {
			seen[tp] = true
			if !h.busy {
				l.considerLocked(&t, now, tp, h, p, wanted)
			}
		}
		return true
	})
	for tp, h := range l.parts {
		if !seen[tp] && !h.busy {
			l.vanishedLocked(&t, tp, h)
		}
	}
	t.forget = l.forgetReleasesLocked(now)
	return t
}

// considerLocked decides about one partition in the view that is held or wanted.
func (l *leadership) considerLocked(t *todo, now time.Time, tp metadata.TopicPartition, h *holding, p *metadata.Partition, wanted bool) {
	newest, any := p.Newest()
	superseded := any && newest.Epoch > h.epoch
	switch {
	case h.has() && superseded, h.state == releasing:
		if t.due(now, h) {
			t.release = append(t.release, relinquished{tiering.Claim{Partition: tp, Epoch: h.epoch}, h.rev})
		}
	case h.state == leading:
		if h.durable && len(p.Owners) > 1 && newest == (metadata.Owner{Incarnation: l.n.cfg.Incarnation, Epoch: h.epoch}) {
			t.trim = append(t.trim, metadata.OwnerEntry{TP: tp, Owner: newest})
		}
	case !wanted:
		if h.state == idle || h.state == released && superseded {
			delete(l.parts, tp)
		}
	case h.state == released && newest.Epoch < h.epoch:
		// The view does not show our own claim yet: wait for it.
	case t.due(now, h):
		pred := l.predecessor(p)
		t.lead[pred] = append(t.lead[pred], tp)
	}
}

// vanishedLocked lets go of a partition that is not in the view: its topic was
// deleted, and topic ids never come back.
func (l *leadership) vanishedLocked(t *todo, tp metadata.TopicPartition, h *holding) {
	if h.state == leading || h.state == releasing {
		t.drop = append(t.drop, tp)
	}
	delete(l.parts, tp)
}

// due reports whether the pause after a failure is over; if not, it sees to it
// that the end of the pause is not missed.
func (t *todo) due(now time.Time, h *holding) bool {
	if wait := h.retryAt.Sub(now); wait > 0 {
		t.next = min(t.next, wait)
		return false
	}
	return true
}

// predecessor is the newest owner other than this broker, zero without one.
// Partitions with the same one are led together: what one slow predecessor
// takes does not delay the others.
func (l *leadership) predecessor(p *metadata.Partition) metadata.Incarnation {
	for i := len(p.Owners) - 1; i >= 0; i-- {
		if inc := p.Owners[i].Incarnation; inc != l.n.cfg.Incarnation {
			return inc
		}
	}
	return 0
}

func (l *leadership) countLocked(s holdState) int {
	n := 0
	for _, h := range l.parts {
		if h.state == s {
			n++
		}
	}
	return n
}

// leave stops claiming. What is held stays held until it is taken over.
func (l *leadership) leave() {
	l.mu.Lock()
	l.leaving = true
	l.mu.Unlock()
	l.settled.notify()
}

// held counts the partitions that others must wait for.
func (l *leadership) held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.countLocked(leading) + l.countLocked(claimed) + l.countLocked(releasing)
}

// underWay reports whether any of what others must wait for is being given up, or
// is preferred by one of the brokers that accept it and so about to be claimed.
func (l *leadership) underWay(accept map[metadata.Incarnation]bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for tp, h := range l.parts {
		if h.state == releasing {
			return true
		}
		if p, _, ok := l.n.cfg.View.PartitionEntry(tp); h.has() && ok && accept[p.Preferred] {
			return true
		}
	}
	return false
}

// checkpointed takes note of claims that a durable checkpoint describes.
func (l *leadership) checkpointed(claims []tiering.Claim) {
	l.mu.Lock()
	for _, c := range claims {
		if h := l.parts[c.Partition]; h != nil && h.epoch == c.Epoch {
			h.durable = true
		}
	}
	l.mu.Unlock()
	l.settled.notify()
}
