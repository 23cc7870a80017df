package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// drainIdle is how long nothing may move, or be on its way, before a draining
	// broker stops waiting: for the first move, the controller needs a few round
	// trips to etcd.
	drainIdle = 300 * time.Millisecond
	// drainMax bounds the wait for others to take over, and closeMax what comes
	// after it; together with endMax, which is left for the end of the session
	// whatever came before, they stay within the 5 s a stop may take.
	drainMax = 2500 * time.Millisecond
	closeMax = 2 * time.Second
	endMax   = 300 * time.Millisecond
)

// Drain leaves the cluster in good order while Run goes on; then Run returns.
// See the package comment for the order. An error means that the chain was not
// closed and a peer will have to seal it.
func (n *Node) Drain(ctx context.Context) error {
	if n.draining.Swap(true) {
		<-n.drained
		return nil
	}
	defer close(n.drained)
	begun := time.Now()
	n.leadership.leave()
	n.changed.notify()
	if len(n.accepting()) > 0 {
		n.handOver(ctx)
	}
	n.log.Info("closing the log", keyCount, n.leadership.held(), keyDuration, time.Since(begun))
	closing, cancel := context.WithTimeout(ctx, closeMax)
	defer cancel()
	err := n.cfg.Log.Close(closing)
	if err != nil {
		err = fmt.Errorf("close the log: %w", err)
	}
	// The registration goes last: without it, peers would take over. That is
	// what they shall do when the log could not be closed.
	ending, cancelEnding := context.WithTimeout(context.WithoutCancel(ctx), endMax)
	defer cancelEnding()
	if e := n.cfg.Session.Close(ending); e != nil {
		err = errors.Join(err, fmt.Errorf("end the session: %w", e))
	}
	n.log.Info("drained", keyDuration, time.Since(begun))
	return err
}

// accepting returns the other brokers that could take over.
func (n *Node) accepting() map[metadata.Incarnation]bool {
	draining := make(map[metadata.Incarnation]bool)
	for _, b := range n.cfg.View.Brokers() {
		draining[b.Incarnation] = b.Draining
	}
	accept := make(map[metadata.Incarnation]bool)
	for _, p := range n.detector.standings() {
		if p.verdict == live && !draining[p.incarnation] {
			accept[p.incarnation] = true
		}
	}
	return accept
}

// handOver announces the departure and waits while others take over.
func (n *Node) handOver(ctx context.Context) {
	// What is not taken over in time is better closed than sealed.
	patience := drainMax
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		patience = min(patience, max(left-closeMax, left/2))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	wake, unsubscribe := n.subscribeAll(&n.leadership.settled)
	defer unsubscribe()
	if err := n.register(ctx, func(b *metadata.Broker) { b.Draining = true }); err != nil {
		n.log.Warn("departure not announced", keyError, err)
		return
	}
	idle := time.NewTimer(drainIdle)
	defer idle.Stop()
	for left := n.remaining(); left > 0; {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			// What is on its way is waited for, however slow the others are: it
			// is served meanwhile, and would not be while the chain is closed.
			if n.leadership.underWay(n.accepting()) {
				idle.Reset(drainIdle)
				continue
			}
			n.log.Info("nobody takes over", keyCount, left)
			return
		case <-wake:
		}
		if now := n.remaining(); now != left {
			left = now
			idle.Reset(drainIdle)
		}
	}
}

// remaining measures what is still to be handed over: partitions that prefer
// this broker, partitions it holds, and group shards it coordinates.
func (n *Node) remaining() int {
	count := n.leadership.held()
	n.cfg.View.Partitions(func(_ metadata.TopicPartition, p *metadata.Partition) bool {
		if p.Preferred == n.cfg.Incarnation {
			count++
		}
		return true
	})
	for shard := range metadata.GroupShards {
		if o, _, ok := n.cfg.View.Coordinator(shard); ok && o.Incarnation == n.cfg.Incarnation {
			count++
		}
	}
	return count
}
