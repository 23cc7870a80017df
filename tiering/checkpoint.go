package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// checkpointLoop writes a checkpoint when the chain has moved and the interval
// has passed, or enough slots have, or a partition was opened. An idle chain
// costs nothing.
func (l *Log) checkpointLoop(ctx context.Context) {
	timer := time.NewTimer(l.cfg.CheckpointInterval)
	defer timer.Stop()
	for attempt := 0; ; {
		select {
		case <-l.soon:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
		next := l.cfg.CheckpointInterval
		err := l.writeCheckpoint(ctx)
		switch {
		case err == nil:
			attempt = 0
		case l.over() || ctx.Err() != nil:
			return
		default:
			// Recovery takes longer until it succeeds; nothing is lost.
			l.cfg.Logger.Warn("checkpoint failed, trying again", "error", err)
			next = backoff(attempt + 5)
			attempt++
		}
		timer.Reset(next)
	}
}

func (l *Log) checkpointSoon() {
	select {
	case l.soon <- struct{}{}:
	default:
	}
}

const checkpointTimeout = time.Minute

// writeCheckpoint moves old extents into pages, describes everything committed
// in one object, records it, and deletes the checkpoint before it. nil means
// that a checkpoint of everything committed when it was called is durable and
// recorded.
func (l *Log) writeCheckpoint(ctx context.Context) error {
	select { // Close and the loop take turns
	case l.checkpointing <- struct{}{}:
		defer func() { <-l.checkpointing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	if l.committed.Load() <= l.checkpoint.Load() {
		return l.announce(ctx)
	}
	if err := l.pageOut(ctx); err != nil {
		return l.checkpointed(fmt.Errorf("write manifest page: %w", err))
	}
	reply := make(chan snapshot, 1)
	select {
	case l.snapshots <- reply:
	case <-l.done:
		return ErrFenced
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s := <-reply
	b, err := wal.EncodeCheckpoint(l.cfg.Cluster, l.cfg.Incarnation, s.slot, len(s.claims)+s.kept, s.states)
	if err != nil {
		return l.checkpointed(err)
	}
	if err := l.createSame(ctx, wal.CheckpointKey(l.cfg.Incarnation, s.slot), true, b); err != nil {
		return l.checkpointed(fmt.Errorf("write checkpoint: %w", err))
	}
	if err := failpoint.Hit(failpoint.CheckpointMid); err != nil {
		return l.checkpointed(fmt.Errorf("record checkpoint: %w", err))
	}
	if err := l.cfg.Chains.Checkpointed(ctx, l.cfg.Incarnation, s.slot); err != nil {
		if errors.Is(err, ErrFenced) {
			l.fail(err)
		}
		return l.checkpointed(fmt.Errorf("record checkpoint: %w", err))
	}
	old := l.checkpoint.Swap(s.slot)
	if old > 0 {
		if err := l.cfg.Store.Delete(ctx, wal.CheckpointKey(l.cfg.Incarnation, old)); err != nil {
			l.cfg.Logger.Info("old checkpoint not deleted", "slot", old, "error", err)
		}
	}
	l.releases.checkpointed(s.slot, s.floors)
	l.announced = s.claims
	if err := l.announce(ctx); err != nil {
		return l.checkpointed(err)
	}
	return l.checkpointed(nil)
}

// announce tells of the claims in the newest checkpoint, once what they rest on
// of other chains is written down as owed: after that the predecessors' owner
// entries go, and with them what protected it. The caller has the turn to make a
// checkpoint.
func (l *Log) announce(ctx context.Context) error {
	if len(l.announced) == 0 {
		return nil
	}
	if err := l.publishDebts(ctx); err != nil {
		return fmt.Errorf("write down what is owed: %w", err)
	}
	if l.onCheckpoint != nil {
		l.onCheckpoint(l.announced)
	}
	l.announced = nil
	l.collectSoon()
	return nil
}

func (l *Log) checkpointed(err error) error {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	l.m.checkpoints.WithLabelValues(outcome).Inc()
	return err
}

var errOtherBytes = errors.New("object holds other bytes")

// createSame binds key to the parts, trying again until it is known to be bound.
// With other, different bytes of an earlier try are accepted: both say the same.
// Otherwise they are errOtherBytes.
func (l *Log) createSame(ctx context.Context, key string, other bool, parts ...[]byte) error {
	for attempt := 0; ; attempt++ {
		err := l.cfg.Store.Create(ctx, key, parts...)
		if err == nil {
			return nil
		}
		if errors.Is(err, object.ErrExists) {
			if other {
				return nil
			}
			var found []byte
			if found, err = l.cfg.Store.Get(ctx, key, 0, -1); err == nil {
				if bytes.Equal(found, bytes.Join(parts, nil)) {
					return nil
				}
				return fmt.Errorf("%w: %s", errOtherBytes, key)
			}
		}
		if attempt == 4 || !sleep(ctx, l.done, backoff(attempt)) {
			return err
		}
	}
}
