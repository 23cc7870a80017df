package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// sealTimeout bounds one attempt to seal a chain. Sealing reads a few heads and
// writes one object; the rest is margin for a slow bucket.
const sealTimeout = 30 * time.Second

// guardian seals the chains of brokers that are in the way, if it falls to this
// broker and the guards allow it.
type guardian struct {
	n  *Node
	wg sync.WaitGroup

	mu      sync.Mutex // guards sealing
	sealing int        // calls of Seal in progress
	sealed  signal
}

func (g *guardian) inProgress() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sealing
}

func (g *guardian) run(ctx context.Context) error {
	defer g.wg.Wait()
	wake, unsubscribe := g.n.subscribeAll(&g.n.detector.changed, &g.sealed)
	defer unsubscribe()
	for {
		s := g.n.situation()
		for _, inc := range s.seals() {
			g.n.detector.condemn(inc)
			g.add(1)
			g.wg.Add(1)
			go func() { defer g.wg.Done(); g.seal(ctx, inc) }()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

func (g *guardian) add(d int) {
	g.mu.Lock()
	g.sealing += d
	g.mu.Unlock()
	g.sealed.notify()
}

// seal tries until the chain is sealed. It is entered with the attempt counted;
// a pause between attempts is not, so that one chain that cannot be sealed does
// not keep the others from it.
func (g *guardian) seal(ctx context.Context, inc metadata.Incarnation) {
	for failures := 1; ; failures++ {
		err := g.n.sealOnce(ctx, inc)
		g.add(-1)
		if err == nil || ctx.Err() != nil {
			return
		}
		sleep(ctx, retryDelay(failures))
		if ctx.Err() != nil {
			return
		}
		g.add(1)
	}
}

func (n *Node) sealOnce(ctx context.Context, inc metadata.Incarnation) error {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	begun := time.Now()
	end, err := n.cfg.Log.Seal(ctx, inc)
	if err != nil {
		n.log.Warn("chain not sealed", keyPeer, inc, keyError, err)
		return err
	}
	n.detector.markSealed(inc)
	n.log.Debug("peer sealed", keyPeer, inc, keyEnd, end, keyDuration, time.Since(begun))
	return nil
}

// sealOlder seals every other incarnation: on a machine with a single broker
// all of them are known to be dead.
func (n *Node) sealOlder(ctx context.Context) error {
	for failures := 1; ; failures++ {
		older, err := n.unsealed(ctx)
		for _, inc := range older {
			if e := n.sealOnce(ctx, inc); e != nil {
				err = e
			}
		}
		if err == nil {
			return nil
		}
		n.log.Warn("older incarnations not sealed yet", keyCount, len(older), keyError, err)
		sleep(ctx, retryDelay(failures))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// unsealed lists the other incarnations whose chain has no end.
func (n *Node) unsealed(ctx context.Context) ([]metadata.Incarnation, error) {
	ctx, cancel := context.WithTimeout(ctx, metadata.OpTimeout)
	defer cancel()
	entries, _, err := n.cfg.KV.Range(ctx, metadata.PrefixChains)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []metadata.Incarnation
	for _, e := range entries {
		inc, err := metadata.ParseIncarnation(e.Key[len(metadata.PrefixChains):])
		if err != nil || inc == n.cfg.Incarnation {
			continue // a key below a chain's, or our own
		}
		chain, err := decodeEntry[metadata.Chain](e)
		if err != nil {
			return nil, err
		}
		if chain.End == nil {
			out = append(out, inc)
		}
	}
	return out, nil
}
