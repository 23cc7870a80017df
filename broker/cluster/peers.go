package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const (
	// askTimeout bounds asking for a release when the caller set no deadline.
	askTimeout = 2 * time.Second
	// askAgain is the pause before a peer that could not be reached is asked again.
	askAgain = 100 * time.Millisecond
)

var _ peer.Handler = (*Node)(nil)

// AskRelease has the broker that runs incarnation from give claims up. A broker
// that cannot be reached is asked again until the deadline, unless it is known
// to be gone: then the error comes at once.
func (n *Node) AskRelease(ctx context.Context, from metadata.Incarnation, claims []tiering.Claim) ([]tiering.Released, error) {
	if from == n.cfg.Incarnation {
		return n.leadership.Release(ctx, from, claims)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	changed, unsubscribe := n.detector.changed.subscribe()
	defer unsubscribe()
	for {
		addr, err := n.reachable(from)
		if err != nil {
			return nil, err
		}
		released, err := n.askOnce(ctx, from, addr, claims, changed)
		if err == nil || !errors.Is(err, peer.ErrUnreachable) || ctx.Err() != nil {
			return released, err
		}
		sleep(ctx, jittered(askAgain))
	}
}

// askOnce asks, and stops waiting for the answer when the peer's standing
// changes to one that will not answer.
func (n *Node) askOnce(ctx context.Context, from metadata.Incarnation, addr string, claims []tiering.Claim, changed <-chan struct{}) ([]tiering.Released, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				if _, err := n.reachable(from); err != nil {
					cancel()
				}
			}
		}
	}()
	released, err := n.net.AskRelease(ctx, from, addr, claims)
	cancel()
	<-watched
	return released, err
}

// reachable returns where a peer is reached, or why it is not worth trying.
func (n *Node) reachable(inc metadata.Incarnation) (string, error) {
	addr, v := n.detector.lookup(inc)
	switch v {
	case unknown:
		b, ok := n.cfg.View.Broker(inc) // registered a moment ago
		if !ok {
			return "", fmt.Errorf("incarnation %s is not registered", inc)
		}
		return b.Peer, nil
	case suspect, dead, condemned:
		return "", fmt.Errorf("incarnation %s is %s", inc, v)
	}
	return addr, nil
}

// Status answers probes.
func (n *Node) Status() peer.Status {
	return peer.Status{
		BucketFailing: n.cfg.Log.BucketFailing(),
		SessionValid:  n.cfg.Session.State().Valid,
		StuckFor:      n.stuckFor(),
	}
}

func (n *Node) stuckFor() time.Duration {
	since, stuck := n.cfg.Log.StuckSince()
	if !stuck {
		return 0
	}
	return max(time.Since(since), time.Millisecond)
}

// Release answers peers that ask for releases.
func (n *Node) Release(ctx context.Context, from metadata.Incarnation, claims []tiering.Claim) ([]tiering.Released, error) {
	return n.leadership.Release(ctx, from, claims)
}
