package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// joinDebounce is how long the set of brokers must be unchanged before load
	// is levelled: brokers that start together are dealt with together.
	joinDebounce = time.Second
	// planSpacing is the least time between two plans.
	planSpacing = 20 * time.Millisecond
	// gatherNotices is how long notices are gathered: what changes at one moment
	// comes in several, which shall be planned on together and not one now and
	// the next one a planSpacing later.
	gatherNotices = time.Millisecond
	// electionRetry is when a broker that cannot contend for the free key looks
	// at itself again; it may have registered since.
	electionRetry = 500 * time.Millisecond
	// controllerTimeout bounds reading and taking the key.
	controllerTimeout = 5 * time.Second
	// movesUnderWay bounds how many partitions are on the move for levelling.
	movesUnderWay = 50
)

// controller contends for the controller key and, while it holds it, assigns
// partitions and group shards.
type controller struct {
	n *Node
	// rev is the revision of the key as this broker wrote it, 0 without it. It
	// guards every assignment, so a controller that was deposed without knowing
	// writes nothing.
	rev int64
	// shown is a revision that the view must show before anything is planned on
	// it: that of the key, or of the newest assignment.
	shown int64

	accept   []metadata.Incarnation // of the last plan
	acceptAt time.Time              // when it changed
}

func (c *controller) run(ctx context.Context) error {
	defer c.n.metrics.controller.Set(0)
	wake, unsubscribe := c.n.subscribeAll(&c.n.detector.changed, &c.n.changed)
	defer unsubscribe()
	failures := 0
	for {
		again, err := c.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			failures = 0
		case errors.Is(err, errBehind):
			// The wait took its time. A watch that nothing comes through is found out
			// after a while, and then every partition without a leader waits for this.
			again = retryMin
			c.n.log.Warn("controller's work waits", keyError, err)
		default:
			failures++
			again = retryDelay(failures)
			c.n.log.Warn("controller's work failed", keyError, err)
		}
		// A failing store is left alone for the delay even when woken.
		pause := planSpacing
		if err != nil {
			pause = again
		}
		sleep(ctx, pause)
		timer := time.NewTimer(max(0, again-pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
		sleep(ctx, gatherNotices)
		drainOne(wake)
	}
}

// drainOne takes what is in a channel of capacity 1.
func drainOne(ch <-chan struct{}) {
	select {
	case <-ch:
	default:
	}
}

// step contends or assigns, and returns when to do so again unless woken.
func (c *controller) step(ctx context.Context) (time.Duration, error) {
	if c.rev != 0 {
		if err := c.n.waitRevision(ctx, c.shown); err != nil {
			return 0, err
		}
		c.checkTerm()
	}
	if c.rev == 0 {
		if _, taken := c.n.cfg.View.Controller(); taken && !c.heldByOldLease() {
			return time.Hour, nil
		}
		if !c.eligible() {
			return electionRetry, nil
		}
		if err := c.contend(ctx); err != nil {
			return 0, err
		}
		if c.rev == 0 {
			return time.Hour, nil // lost: the view will show to whom
		}
		c.n.metrics.controller.Set(1)
		if err := c.n.waitRevision(ctx, c.shown); err != nil {
			return 0, err
		}
	}
	return c.assign(ctx)
}

// assign plans and writes. It returns when to plan again although nothing changed.
func (c *controller) assign(ctx context.Context) (time.Duration, error) {
	m, again := c.membership(time.Now())
	rev1, err1 := c.assignPartitions(ctx, m)
	var rev2 int64
	var err2 error
	if c.rev != 0 {
		rev2, err2 = c.assignShards(ctx, m)
	}
	c.shown = max(c.shown, rev1, rev2)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	if c.rev == 0 {
		return 0, nil // look again who is the controller
	}
	return again, c.n.waitRevision(ctx, c.shown)
}

// membership derives from the situation who may be given and who keeps what.
// The second result is when calm is due, an hour if it is here or not in sight.
func (c *controller) membership(now time.Time) (membership, time.Duration) {
	s := c.n.situation()
	draining := make(map[metadata.Incarnation]bool)
	for _, b := range c.n.cfg.View.Brokers() {
		draining[b.Incarnation] = b.Draining
	}
	draining[s.self] = draining[s.self] || c.n.draining.Load()
	m := membership{stay: c.stay(&s, draining), calm: !s.failing}
	var failing []metadata.Incarnation
	add := func(inc metadata.Incarnation, fails bool) {
		switch {
		case draining[inc]:
		case fails:
			failing = append(failing, inc)
		default:
			m.accept = append(m.accept, inc)
		}
	}
	if s.registered {
		add(s.self, s.failing)
	}
	for _, p := range s.peers {
		switch p.verdict {
		case live:
			add(p.incarnation, p.failing)
			m.calm = m.calm && !p.failing
		case suspect, stuck, absent, dead:
			m.calm = false
		}
	}
	if len(m.accept) == 0 {
		m.accept = failing // better there than nowhere
	}
	slices.Sort(m.accept)
	if !slices.Equal(m.accept, c.accept) {
		c.accept, c.acceptAt = slices.Clone(m.accept), now
	}
	wait := c.acceptAt.Add(joinDebounce).Sub(now)
	if wait <= 0 {
		return m, time.Hour
	}
	m.calm = false
	return m, wait
}

// stay lists which of the brokers that have something keep it.
func (c *controller) stay(s *situation, draining map[metadata.Incarnation]bool) map[metadata.Incarnation]bool {
	stay := make(map[metadata.Incarnation]bool)
	consider := func(inc metadata.Incarnation) {
		if _, known := stay[inc]; !known {
			stay[inc] = s.mayKeep(inc) && !draining[inc]
		}
	}
	c.n.cfg.View.Partitions(func(_ metadata.TopicPartition, p *metadata.Partition) bool {
		consider(p.Preferred)
		return true
	})
	for shard := range metadata.GroupShards {
		if o, _, ok := c.n.cfg.View.Coordinator(shard); ok {
			consider(o.Incarnation)
		}
	}
	return stay
}

// assignPartitions returns the newest revision it wrote.
func (c *controller) assignPartitions(ctx context.Context, m membership) (int64, error) {
	var things []placed
	changes := c.followCoordinators()
	c.n.cfg.View.Partitions(func(tp metadata.TopicPartition, p *metadata.Partition) bool {
		if !c.n.exists(tp) || tp.Topic == offsetsTopicID {
			return true // not visible yet, or deleted, or not to be planned
		}
		newest, _ := p.Newest()
		things = append(things, placed{tp: tp, preferred: p.Preferred, owner: newest.Incarnation, weight: 1})
		return true
	})
	for _, mv := range plan(things, m, movesUnderWay) {
		p, rev, ok := c.n.cfg.View.PartitionEntry(mv.tp)
		if !ok || p.Preferred != mv.from {
			continue // the view has moved on: plan again
		}
		changes[mv.tp] = metadata.PreferredChange{Partition: *p, ModRevision: rev, Preferred: mv.to}
	}
	if len(changes) == 0 {
		return 0, nil
	}
	var out outcome
	guard := metadata.Cond{Key: metadata.KeyController, ModRevision: c.rev}
	for _, r := range metadata.SetPreferred(ctx, c.n.cfg.KV, guard, changes) {
		out.add(r.ModRevision, r.Err)
	}
	return c.conclude(out, "partition")
}

var offsetsTopicID = metadata.InternalTopicID(metadata.OffsetsTopic)

// followCoordinators has each partition of __consumer_offsets led by the
// coordinator of its shard, which writes it.
func (c *controller) followCoordinators() map[metadata.TopicPartition]metadata.PreferredChange {
	changes := make(map[metadata.TopicPartition]metadata.PreferredChange)
	for shard := range metadata.GroupShards {
		tp := metadata.TopicPartition{Topic: offsetsTopicID, Partition: int32(shard)}
		p, rev, ok := c.n.cfg.View.PartitionEntry(tp)
		if !ok || !c.n.exists(tp) {
			continue
		}
		o, _, ok := c.n.cfg.View.Coordinator(shard)
		if ok && o.Incarnation != p.Preferred {
			changes[tp] = metadata.PreferredChange{Partition: *p, ModRevision: rev, Preferred: o.Incarnation}
		}
	}
	return changes
}

// assignShards does for group shards what assignPartitions does for partitions.
func (c *controller) assignShards(ctx context.Context, m membership) (int64, error) {
	things := make([]placed, metadata.GroupShards)
	for shard := range things {
		o, _, _ := c.n.cfg.View.Coordinator(shard)
		tp := metadata.TopicPartition{Partition: int32(shard)}
		things[shard] = placed{tp: tp, preferred: o.Incarnation, owner: o.Incarnation, weight: 1}
	}
	owners := make(map[int]metadata.Incarnation)
	for _, mv := range plan(things, m, movesUnderWay) {
		owners[int(mv.tp.Partition)] = mv.to
	}
	if len(owners) == 0 {
		return 0, nil
	}
	var out outcome
	guard := metadata.Cond{Key: metadata.KeyController, ModRevision: c.rev}
	for _, r := range metadata.AssignCoordinators(ctx, c.n.cfg.KV, guard, owners) {
		out.add(r.ModRevision, r.Err)
	}
	return c.conclude(out, "shard")
}

// outcome sums up the results of a batch of guarded writes.
type outcome struct {
	written int
	newest  int64
	deposed bool
	err     error
}

func (o *outcome) add(rev int64, err error) {
	switch {
	case err == nil:
		o.written++
		o.newest = max(o.newest, rev)
	case errors.Is(err, metadata.ErrNotController):
		o.deposed = true
	case errors.Is(err, metadata.ErrUnknownPartition): // deleted meanwhile
	default:
		o.err = err
	}
}

func (c *controller) conclude(o outcome, kind string) (int64, error) {
	if o.written > 0 {
		c.n.metrics.assignments.WithLabelValues(kind).Add(float64(o.written))
		c.n.log.Info("assigned", keyKind, kind, keyCount, o.written)
	}
	if o.deposed {
		c.lost()
		return o.newest, nil
	}
	if o.err != nil {
		return o.newest, fmt.Errorf("assign: %w", o.err)
	}
	return o.newest, nil
}
