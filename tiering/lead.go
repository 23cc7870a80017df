package tiering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// LeadRequest asks to open a partition. Owners is its owner list as it stands
// in the metadata store, oldest first, the caller's own entry last.
type LeadRequest struct {
	Partition metadata.TopicPartition
	Owners    []metadata.Owner
}

const leadConcurrency = 16

// Lead opens partitions: it closes every earlier entry of their owner lists, by
// the owners' consent or by sealing their chains, inherits what they left,
// commits an OPEN, and serves. It blocks until each request succeeded or failed
// and returns the failures; a partition without one is being served.
func (l *Log) Lead(ctx context.Context, requests []LeadRequest) map[metadata.TopicPartition]error {
	c := &closer{log: l, released: make(map[metadata.Incarnation]map[Claim]*epochLog), failed: make(map[metadata.Incarnation]bool)}
	c.askAll(ctx, requests)
	var mu sync.Mutex
	failures := make(map[metadata.TopicPartition]error)
	var opens []*openAttempt
	var g errgroup.Group
	g.SetLimit(leadConcurrency)
	for _, r := range requests {
		g.Go(func() error {
			a, err := l.prepare(ctx, c, r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures[r.Partition] = err
			} else {
				opens = append(opens, a)
			}
			return nil
		})
	}
	_ = g.Wait() // failures carries the errors
	for _, a := range opens {
		if err := a.commit(l); err != nil {
			failures[a.p.tp] = err
		}
	}
	opened := false
	for _, a := range opens {
		if failures[a.p.tp] == nil {
			<-a.flush.done // it commits, or the incarnation is over: no other end
			if a.flush.err != nil {
				failures[a.p.tp] = a.flush.err
			} else {
				opened = true
			}
		}
	}
	if opened {
		if err := failpoint.Hit(failpoint.AfterOpen); err != nil {
			l.fail(fmt.Errorf("%w: %w", ErrFenced, err))
		}
		l.checkpointSoon()
	}
	return failures
}

// openAttempt is a partition on its way to OPEN.
type openAttempt struct {
	p     *Partition
	flush *flush
}

// prepare closes the predecessors of a request and builds the partition.
func (l *Log) prepare(ctx context.Context, c *closer, r LeadRequest) (*openAttempt, error) {
	if len(r.Owners) == 0 || r.Owners[len(r.Owners)-1].Incarnation != l.cfg.Incarnation {
		return nil, fmt.Errorf("lead %s: own entry is not the newest of its owner list", r.Partition)
	}
	own := r.Owners[len(r.Owners)-1]
	m, err := c.inherit(ctx, r.Partition, r.Owners[:len(r.Owners)-1])
	if err != nil {
		return nil, fmt.Errorf("lead %s at epoch %d: %w", r.Partition, own.Epoch, err)
	}
	if err := m.open(own.Epoch); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return &openAttempt{p: &Partition{log: l, tp: r.Partition, epoch: own.Epoch, editing: make(chan struct{}, 1), manifest: m, end: m.end}}, nil
}

// commit registers the partition and sends its OPEN on its way.
func (a *openAttempt) commit(l *Log) error {
	p := a.p
	l.partsMu.Lock()
	defer l.partsMu.Unlock()
	if closed, ok := l.closedEpochs[p.tp]; ok && closed >= p.epoch {
		return fmt.Errorf("%w: epoch %d of %s was given up", ErrNotLeader, p.epoch, p.tp)
	}
	if old := l.parts[p.tp]; old != nil {
		return fmt.Errorf("%w: %s is still open at epoch %d", ErrNotLeader, p.tp, old.epoch)
	}
	if err := failpoint.Hit(failpoint.BeforeOpen); err != nil {
		return err
	}
	f, err := l.record(wal.Record{Type: wal.Open, Partition: p.tp, Epoch: p.epoch, Base: p.end}, func(uint64) { p.serve() })
	if err != nil {
		return err
	}
	a.flush = f
	p.opened = f
	l.parts[p.tp] = p
	return nil
}

// serve runs in the commit loop, when the OPEN is committed.
func (p *Partition) serve() {
	p.mu.Lock()
	if p.phase == opening { // else it was dropped
		p.phase = serving
	}
	p.watch.look = time.Now()
	p.log.retainSoon()
	if p.manifest.untiered > 0 {
		p.waiting = time.Now()
		p.log.tierSoon()
	}
	p.mu.Unlock()
	p.notify()
	l := p.log
	l.partsMu.Lock()
	close(l.served)
	l.served = make(chan struct{})
	l.partsMu.Unlock()
}

// closer closes entries of owner lists for one call of Lead.
type closer struct {
	log *Log

	mu       sync.Mutex
	released map[metadata.Incarnation]map[Claim]*epochLog // by consent
	failed   map[metadata.Incarnation]bool                // did not consent in time
}

// askAll asks every live newest predecessor at once for all it shall give up.
func (c *closer) askAll(ctx context.Context, requests []LeadRequest) {
	claims := make(map[metadata.Incarnation][]Claim)
	for _, r := range requests {
		if n := len(r.Owners); n > 1 && r.Owners[n-2].Incarnation != c.log.cfg.Incarnation {
			o := r.Owners[n-2]
			claims[o.Incarnation] = append(claims[o.Incarnation], Claim{Partition: r.Partition, Epoch: o.Epoch})
		}
	}
	var g errgroup.Group
	for inc, list := range claims {
		g.Go(func() error { c.ask(ctx, inc, list); return nil })
	}
	_ = g.Wait() // what was not released is sealed later
}

// ask asks a predecessor whose chain is not sealed for some claims, and reads
// what it committed about them.
func (c *closer) ask(ctx context.Context, inc metadata.Incarnation, claims []Claim) {
	l := c.log
	fail := func(err error) {
		l.cfg.Logger.Info("predecessor did not release, its chain will be sealed", "predecessor", inc.String(), "error", err)
		c.mu.Lock()
		c.failed[inc] = true
		c.mu.Unlock()
	}
	if chain, err := l.loadChain(ctx, inc); err != nil || chain.End != nil {
		return
	}
	if l.cfg.Peers == nil {
		fail(errors.New("no way to ask"))
		return
	}
	deadline, cancel := context.WithTimeout(ctx, l.cfg.ReleaseTimeout)
	defer cancel()
	answer, err := l.cfg.Peers.AskRelease(deadline, inc, claims)
	if err != nil {
		fail(err)
		return
	}
	slots := make(map[uint64]*wal.Head)
	for _, r := range answer {
		h := slots[r.Slot]
		if h == nil {
			if h, err = l.readNamed(ctx, inc, r.Slot); err != nil {
				fail(err)
				return
			}
			slots[r.Slot] = h
		}
		if err := c.note(inc, r.Claim, h); err != nil {
			fail(err)
			return
		}
	}
}

// readNamed reads the head of a slot that a peer says is committed.
func (l *Log) readNamed(ctx context.Context, inc metadata.Incarnation, slot uint64) (*wal.Head, error) {
	var tries patience
	h, err := retry(ctx, l.done, func() (*wal.Head, error) {
		ctx, cancel := tries.next(ctx, l.cfg.PutTimeout)
		defer cancel()
		h, err := l.readHead(ctx, inc, slot)
		if errors.Is(err, object.ErrNotFound) {
			return nil, nil // reads are consistent: asking again is in vain
		}
		return h, err
	})
	if err == nil && h == nil {
		err = fmt.Errorf("slot %d of %s is free", slot, inc)
	}
	return h, err
}

// note takes a RELEASE out of the slot that the predecessor named.
func (c *closer) note(inc metadata.Incarnation, claim Claim, h *wal.Head) error {
	for i := range h.Records {
		r := &h.Records[i]
		if r.Type != wal.Release || r.Partition != claim.Partition || r.Epoch != claim.Epoch {
			continue
		}
		log, err := releasedLog(r)
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.released[inc] == nil {
			c.released[inc] = make(map[Claim]*epochLog)
		}
		c.released[inc][claim] = log
		return nil
	}
	return fmt.Errorf("slot %d of %s holds no RELEASE of %s at epoch %d", h.Slot, inc, claim.Partition, claim.Epoch)
}

// inherit returns the state that the newest opened entry of owners left. It
// walks back to the first entry whose OPEN is committed; every entry it meets,
// that one included, is closed first. An entry that never opened contributes
// nothing and does not end the walk.
func (c *closer) inherit(ctx context.Context, tp metadata.TopicPartition, owners []metadata.Owner) (*manifest, error) {
	var onTop []*epochLog
	var epochs []int32
	m := newManifest(tp)
	for i := len(owners) - 1; i >= 0; i-- {
		log, err := c.closed(ctx, owners[i], tp)
		if err != nil {
			return nil, err
		}
		if log == nil || !log.opened {
			continue
		}
		if log.m != nil {
			m = log.m.clone()
			break
		}
		onTop, epochs = append(onTop, log), append(epochs, owners[i].Epoch)
	}
	// What opened but was never checkpointed is put on top, oldest first.
	for i := len(onTop) - 1; i >= 0; i-- {
		if onTop[i].base != m.end {
			return nil, fmt.Errorf("%w: %s opened at offset %d, its predecessor ended at %d", ErrCorrupt, tp, onTop[i].base, m.end)
		}
		if err := m.open(epochs[i]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		for j := range onTop[i].added {
			if err := m.change(&onTop[i].added[j], nowMillis()); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
	}
	return m, nil
}

// closed makes sure that an entry can never be written under again and returns
// what it left; nil when it never opened.
func (c *closer) closed(ctx context.Context, o metadata.Owner, tp metadata.TopicPartition) (*epochLog, error) {
	l := c.log
	claim := Claim{Partition: tp, Epoch: o.Epoch}
	if o.Incarnation == l.cfg.Incarnation {
		return l.ownClosed(claim)
	}
	if log, ok := c.consented(o.Incarnation, claim); ok {
		return log, nil
	}
	c.mu.Lock()
	failed := c.failed[o.Incarnation]
	c.mu.Unlock()
	if !failed { // sealed already, or an entry further back than the first
		c.ask(ctx, o.Incarnation, []Claim{claim})
		if log, ok := c.consented(o.Incarnation, claim); ok {
			return log, nil
		}
	}
	state, err := l.recover(ctx, o.Incarnation)
	if err != nil {
		return nil, err
	}
	return state.epochs[claim], nil
}

func (c *closer) consented(inc metadata.Incarnation, claim Claim) (*epochLog, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, ok := c.released[inc][claim]
	return log, ok
}
