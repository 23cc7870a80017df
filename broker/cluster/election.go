package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// checkTerm gives the term up once the view, which is recent enough, shows that
// the key is not ours any more.
func (c *controller) checkTerm() {
	if holder, ok := c.n.cfg.View.Controller(); !ok || holder.Incarnation != c.n.cfg.Incarnation {
		c.lost()
	}
}

func (c *controller) lost() {
	c.n.log.Info("no longer the controller")
	c.n.metrics.controller.Set(0)
	c.rev = 0
}

// heldByOldLease reports that the view shows this broker as the controller
// although it holds no term: the key may hang on a lease that is gone.
func (c *controller) heldByOldLease() bool {
	holder, ok := c.n.cfg.View.Controller()
	return ok && holder.Incarnation == c.n.cfg.Incarnation
}

// eligible: a broker that leaves, is not registered, or cannot write while
// others can does not contend.
func (c *controller) eligible() bool {
	s := c.n.situation()
	if c.n.draining.Load() || !s.registered || !c.n.cfg.Session.State().Valid {
		return false
	}
	return !s.failing || !slices.ContainsFunc(s.peers, func(p standing) bool { return p.verdict == live && !p.failing })
}

// contend takes the key if it is free, or anew if it is ours.
func (c *controller) contend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, controllerTimeout)
	defer cancel()
	kv, lease := c.n.cfg.KV, c.n.cfg.Session.Lease()
	entries, now, err := kv.Get(ctx, metadata.KeyController)
	if err != nil {
		return fmt.Errorf("read controller: %w", err)
	}
	cur := entries[0]
	if cur.Exists() {
		holder, err := decodeEntry[metadata.Controller](cur)
		if err != nil {
			return err
		}
		if holder.Incarnation != c.n.cfg.Incarnation {
			return nil
		}
		if cur.Lease == lease { // an earlier attempt whose answer was lost
			c.elected(holder, cur.ModRevision)
			return nil
		}
	}
	// The revision at which the key was seen absent is above every earlier
	// controller's, so it serves as the epoch.
	next := metadata.Controller{Incarnation: c.n.cfg.Incarnation, Epoch: now}
	res, err := kv.Txn(ctx, metadata.Txn{
		If:   []metadata.Cond{{Key: metadata.KeyController, ModRevision: cur.ModRevision}},
		Then: []metadata.Op{metadata.PutLeased(metadata.KeyController, encode(next), lease)},
	})
	if err != nil {
		return fmt.Errorf("take the controller key: %w", err)
	}
	if res.Succeeded {
		c.elected(next, res.Revision)
	}
	return nil
}

func (c *controller) elected(t metadata.Controller, rev int64) {
	c.rev, c.shown = rev, rev
	c.n.log.Info("elected controller", keyEpoch, t.Epoch)
}
