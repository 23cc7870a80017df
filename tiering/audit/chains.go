package audit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// chains knows every chain met, and keeps the states of the last few.
type chains struct {
	a *auditor

	mu    sync.Mutex
	scans map[metadata.Incarnation]*scan
	opens map[metadata.TopicPartition]map[int32]*scan
	kept  map[metadata.Incarnation]*keptState
	order []metadata.Incarnation

	// trimmed: of some chain not everything could be read, because it was trimmed.
	trimmed atomic.Bool

	// refreshing holds the turn to refresh; refreshes counts those begun.
	refreshing chan struct{}
	refreshes  int
}

type keptState struct {
	done chan struct{}
	i    *inspected
	err  error
}

// statesKept chains are kept replayed: partitions are walked chain by chain.
const statesKept = 4

func newChains(a *auditor) *chains {
	return &chains{
		a: a, scans: make(map[metadata.Incarnation]*scan), opens: make(map[metadata.TopicPartition]map[int32]*scan),
		kept: make(map[metadata.Incarnation]*keptState), refreshing: make(chan struct{}, 1),
	}
}

// scan returns the walk over inc's chain, which may not have begun.
func (c *chains) scan(inc metadata.Incarnation) *scan {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.scans[inc]
	if s == nil {
		s = newScan(c.a, inc)
		c.scans[inc] = s
	}
	return s
}

// known is scan for a chain that may not exist: false when it has no key.
func (c *chains) known(ctx context.Context, inc metadata.Incarnation) (*scan, bool, error) {
	c.mu.Lock()
	s := c.scans[inc]
	c.mu.Unlock()
	if s != nil {
		return s, true, nil
	}
	_, _, err := metadata.LoadChain(ctx, c.a.kv, inc)
	if errors.Is(err, metadata.ErrNoChain) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	s = c.scan(inc)
	return s, true, s.advance(ctx)
}

// noteOpen remembers who opened a partition at an epoch.
func (c *chains) noteOpen(claim tiering.Claim, s *scan) {
	c.mu.Lock()
	epochs := c.opens[claim.Partition]
	if epochs == nil {
		epochs = make(map[int32]*scan)
		c.opens[claim.Partition] = epochs
	}
	other := epochs[claim.Epoch]
	epochs[claim.Epoch] = s
	c.mu.Unlock()
	if other != nil && other != s {
		s.problem(KindLeadership, "it opened %s at epoch %d, as chain %s did", c.a.partitionName(claim.Partition), claim.Epoch, other.inc)
	}
}

// opened returns who opened a partition, by epoch.
func (c *chains) opened(tp metadata.TopicPartition) map[int32]*scan {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[int32]*scan, len(c.opens[tp]))
	for epoch, s := range c.opens[tp] {
		out[epoch] = s
	}
	return out
}

// inspect returns a chain's state, one of the last few or, when fresh, as it is
// now. However many ask, a chain is replayed once at a time.
func (c *chains) inspect(ctx context.Context, inc metadata.Incarnation, fresh bool) (*inspected, error) {
	if fresh {
		return c.scan(inc).inspect(ctx)
	}
	c.mu.Lock()
	k := c.kept[inc]
	if k != nil {
		c.mu.Unlock()
		select {
		case <-k.done:
			return k.i, k.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	k = &keptState{done: make(chan struct{})}
	c.kept[inc] = k
	if c.order = append(c.order, inc); len(c.order) > statesKept {
		delete(c.kept, c.order[0])
		c.order = c.order[1:]
	}
	c.mu.Unlock()
	k.i, k.err = c.scan(inc).inspect(ctx)
	close(k.done)
	return k.i, k.err
}

// refresh walks every chain, those that are new included, on to where it has
// come by now. Those who wait at the same time share one.
func (c *chains) refresh(ctx context.Context) error {
	c.mu.Lock()
	begun := c.refreshes
	c.mu.Unlock()
	select {
	case c.refreshing <- struct{}{}:
		defer func() { <-c.refreshing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	if c.refreshes > begun { // it began after this call did, and has ended
		c.mu.Unlock()
		return nil
	}
	c.refreshes++
	c.mu.Unlock()
	incs, err := c.a.listChains(ctx)
	if err != nil {
		return err
	}
	return c.advanceAll(ctx, incs)
}

// advanceAll advances chains that are not read to their end.
func (c *chains) advanceAll(ctx context.Context, incs []metadata.Incarnation) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.a.chainsDone.Store(0)
	var g errgroup.Group
	g.SetLimit(max(1, c.a.cfg.Parallel/4))
	for _, inc := range incs {
		g.Go(func() error {
			err := c.scan(inc).finish(ctx)
			if errors.Is(err, metadata.ErrNoChain) {
				err = nil // deleted meanwhile
			}
			if err != nil {
				cancel(err)
			}
			c.a.chainsDone.Add(1)
			return err
		})
	}
	return first(ctx, g.Wait())
}
