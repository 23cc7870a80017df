package cluster

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// healthInterval is how often the log is asked whether it can write: a look
// into memory, which costs neither bucket nor store anything.
const healthInterval = 500 * time.Millisecond

// reportHealth keeps the registration's word on the bucket true.
func (n *Node) reportHealth(ctx context.Context) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	sure := true // what is registered is what we last registered
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		failing := n.cfg.Log.BucketFailing()
		if sure && failing == n.failing.Load() || !n.cfg.Session.State().Valid {
			continue
		}
		if err := n.register(ctx, func(b *metadata.Broker) { b.BucketFailing = failing }); err != nil {
			n.log.Warn("bucket's state not registered yet", keyFailing, failing, keyError, err)
			sure = false // it may be all the same, now or with the next registration
			continue
		}
		sure = true
		n.failing.Store(failing)
		n.log.Info("bucket's state changed", keyFailing, failing)
		n.changed.notify()
	}
}

func (n *Node) register(ctx context.Context, change func(*metadata.Broker)) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	return n.cfg.Session.Update(ctx, change)
}

// registerTimeout bounds a change of the registration.
const registerTimeout = 2 * time.Second
