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
	if l.committed.Load() <= l.checkpoint.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
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
	if err := l.createSame(ctx, wal.CheckpointKey(l.cfg.Incarnation, s.slot), b, true); err != nil {
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
	if l.onCheckpoint != nil && len(s.claims) > 0 {
		l.onCheckpoint(s.claims)
	}
	return l.checkpointed(nil)
}

func (l *Log) checkpointed(err error) error {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	l.m.checkpoints.WithLabelValues(outcome).Inc()
	return err
}

// createSame binds key to b, trying again until it is known to be bound. With
// other, different bytes of an earlier try are accepted: both say the same of
// the same slots, and pages are only ever an other way to say it.
func (l *Log) createSame(ctx context.Context, key string, b []byte, other bool) error {
	for attempt := 0; ; attempt++ {
		err := l.cfg.Store.Create(ctx, key, b)
		if err == nil {
			return nil
		}
		if errors.Is(err, object.ErrExists) {
			if other {
				return nil
			}
			var found []byte
			if found, err = l.cfg.Store.Get(ctx, key, 0, -1); err == nil {
				if bytes.Equal(found, b) {
					return nil
				}
				return fmt.Errorf("%s holds other bytes", key)
			}
		}
		if attempt == 4 || !sleep(ctx, l.done, backoff(attempt)) {
			return err
		}
	}
}

// pageOut writes manifest pages for partitions whose tail has grown long.
func (l *Log) pageOut(ctx context.Context) error {
	l.partsMu.RLock()
	parts := make([]*Partition, 0, len(l.parts))
	for _, p := range l.parts {
		parts = append(parts, p)
	}
	l.partsMu.RUnlock()
	for _, p := range parts {
		for {
			p.mu.RLock()
			refs, page, due := p.manifest.pageOut()
			due = due && p.phase == serving
			p.mu.RUnlock()
			if !due {
				break
			}
			b, err := wal.EncodePage(l.cfg.Cluster, l.cfg.Incarnation, page.Number, refs)
			if err != nil {
				return err
			}
			if err := failpoint.Hit(failpoint.BeforePage); err != nil {
				return err
			}
			if err := l.createSame(ctx, wal.PageKey(p.tp, page.Epoch, page.Number), b, false); err != nil {
				return err
			}
			p.mu.Lock()
			p.manifest.paged(page)
			p.encoded = nil
			p.mu.Unlock()
		}
	}
	return nil
}
