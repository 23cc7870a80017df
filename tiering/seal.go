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

// headsAtOnce is how many heads a sealer or a replay reads at the same time.
const headsAtOnce = 16

// heads are those of one chain that were read already.
type heads map[uint64]*wal.Head

// Seal ends the chain of inc, for ever, and returns its end: the first slot that
// does not belong to it. Anyone may, any number of times: the end is decided
// once. It needs no consent, so a wrong suspicion costs a healthy broker its
// incarnation, never data.
func (l *Log) Seal(ctx context.Context, inc metadata.Incarnation) (uint64, error) {
	chain, err := l.seal(ctx, inc, heads{})
	if err != nil {
		return 0, err
	}
	return *chain.End, nil
}

// seal returns the chain with its end recorded, and leaves the heads that it
// read in hs. Every step may be repeated.
func (l *Log) seal(ctx context.Context, inc metadata.Incarnation, hs heads) (metadata.Chain, error) {
	if inc == l.cfg.Incarnation {
		return metadata.Chain{}, fmt.Errorf("incarnation %s cannot seal itself", inc)
	}
	chain, err := l.loadChain(ctx, inc)
	if err != nil || chain.End != nil {
		return chain, err
	}
	end, err := l.fence(ctx, inc, chain, hs)
	if err != nil {
		l.m.seals.WithLabelValues("error").Inc()
		return chain, fmt.Errorf("seal %s: %w", inc, err)
	}
	stands, err := retry(ctx, l.done, func() (uint64, error) { return l.cfg.Chains.RecordEnd(ctx, inc, end) })
	if err != nil {
		return chain, fmt.Errorf("seal %s: record end: %w", inc, err)
	}
	l.m.seals.WithLabelValues("ok").Inc()
	l.cfg.Logger.Info("chain sealed", "sealed", inc.String(), "end", stands)
	if chain, err = l.loadChain(ctx, inc); err == nil && chain.End == nil {
		err = fmt.Errorf("seal %s: the recorded end %d cannot be read", inc, stands)
	}
	return chain, err
}

// fence finds or makes the end of a chain: a CLOSE, or a fence at the first
// free slot that no trim mark has passed when it is read after the fence landed.
func (l *Log) fence(ctx context.Context, inc metadata.Incarnation, chain metadata.Chain, hs heads) (uint64, error) {
	for slot := max(chain.Trim, chain.Checkpoint); ; {
		end, placed, err := l.fenceFrom(ctx, inc, slot, hs)
		if err != nil {
			return 0, err
		}
		if !placed { // a CLOSE ends the chain with itself
			return end, nil
		}
		if chain, err = l.loadChain(ctx, inc); err != nil {
			return 0, err
		}
		if chain.End != nil {
			return *chain.End, nil
		}
		if chain.Trim <= end {
			return end, nil
		}
		// What lay at the fence's slot was trimmed before: the fence is void.
		slot = chain.Trim
	}
}

// fenceFrom walks the chain from slot to its first free slot and fences that.
// placed is false when the chain ends with a CLOSE.
func (l *Log) fenceFrom(ctx context.Context, inc metadata.Incarnation, slot uint64, hs heads) (end uint64, placed bool, err error) {
	for {
		run, err := l.readHeads(ctx, inc, slot, headsAtOnce, hs)
		if err != nil {
			return 0, false, err
		}
		for _, h := range run {
			switch h.Kind {
			case wal.Fence:
				return h.Slot, true, nil
			case wal.Close:
				return h.Slot + 1, false, nil
			}
			slot = h.Slot + 1
		}
		if len(run) == headsAtOnce { // the last of them is data: go on
			continue
		}
		taken, err := l.putFence(ctx, inc, slot)
		if err != nil {
			return 0, false, err
		}
		if !taken { // ours stands
			return slot, true, nil
		}
		// Somebody was first: look at what it is.
	}
}

// putFence tries until the slot is known to be taken, by the same bytes each
// time. taken reports that something else may be there.
func (l *Log) putFence(ctx context.Context, inc metadata.Incarnation, slot uint64) (taken bool, err error) {
	h := &wal.Head{Kind: wal.Fence, Cluster: l.cfg.Cluster, Incarnation: inc, Slot: slot, Writer: l.cfg.Incarnation}
	b := wal.EncodeHead(h)
	var tries patience
	return retry(ctx, l.done, func() (bool, error) {
		ctx, cancel := tries.next(ctx, l.cfg.PutTimeout)
		defer cancel()
		if err := failpoint.Hit(failpoint.BeforeFence); err != nil {
			return false, err
		}
		err := l.cfg.Store.Create(ctx, wal.SlotKey(inc, slot), b)
		if errors.Is(err, object.ErrExists) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		return false, failpoint.Hit(failpoint.AfterFence)
	})
}

// readHeads reads up to n heads from slot on, in order, and ends at the first
// free slot, or with the fence or CLOSE that ends the chain: a writer that had
// several slots in flight may have left objects beyond a fence, which prove
// nothing. It checks that each head names the one before it.
func (l *Log) readHeads(ctx context.Context, inc metadata.Incarnation, slot uint64, n int, hs heads) ([]*wal.Head, error) {
	found := make([]*wal.Head, n)
	var mu sync.Mutex
	var g errgroup.Group
	for i := range n {
		if h := hs[slot+uint64(i)]; h != nil {
			found[i] = h
			continue
		}
		g.Go(func() error {
			var tries patience
			h, err := retry(ctx, l.done, func() (*wal.Head, error) {
				ctx, cancel := tries.next(ctx, l.cfg.PutTimeout)
				defer cancel()
				h, err := l.readHead(ctx, inc, slot+uint64(i))
				if errors.Is(err, object.ErrNotFound) {
					return nil, nil
				}
				return h, err
			})
			mu.Lock()
			found[i] = h
			mu.Unlock()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, h := range found {
		if h == nil {
			return found[:i], nil
		}
		if prev := hs[h.Slot-1]; prev != nil && h.Kind != wal.Fence && h.Previous != prev.Digest {
			return nil, fmt.Errorf("%w: slot %d of %s does not follow slot %d", ErrCorrupt, h.Slot, inc, prev.Slot)
		}
		hs[h.Slot] = h
		if h.Kind == wal.Fence || h.Kind == wal.Close {
			return found[:i+1], nil
		}
	}
	return found, nil
}

func (l *Log) loadChain(ctx context.Context, inc metadata.Incarnation) (metadata.Chain, error) {
	c, err := retry(ctx, l.done, func() (metadata.Chain, error) { return l.cfg.Chains.Load(ctx, inc) })
	if err != nil {
		return c, fmt.Errorf("load chain %s: %w", inc, err)
	}
	return c, nil
}

// patience is how long the next attempt at a request may take: little at first, because a takeover must not wait long for one that got lost on its way,
// then more each time, because the store may be slow.
type patience int

const patienceMin = 1500 * time.Millisecond

func (p *patience) next(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	d := min(patienceMin<<min(*p, 10), most)
	*p++
	return context.WithTimeout(ctx, d)
}

// retry calls f until it succeeds, fails for good, or ctx or done ends. Damaged
// bytes are read a few times more before they are believed.
func retry[T any](ctx context.Context, done <-chan struct{}, f func() (T, error)) (T, error) {
	for attempt := 0; ; attempt++ {
		v, err := f()
		if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, wal.ErrVersion) || errors.Is(err, metadata.ErrNoChain) {
			return v, err
		}
		if attempt >= 3 && (errors.Is(err, wal.ErrMalformed) || errors.Is(err, object.ErrRefused) || errors.Is(err, ErrDataLoss)) {
			return v, err
		}
		if !sleep(ctx, done, backoff(attempt)) {
			return v, err
		}
	}
}
