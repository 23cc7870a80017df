package tiering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// chainState is what a sealed chain says of the partitions it led. Read-only
// once built.
type chainState struct {
	epochs map[Claim]*epochLog
}

// epochLog is what a chain says of one partition under one leader epoch.
type epochLog struct {
	opened bool
	base   int64 // where the epoch begins
	// m is the whole state, when a checkpoint or a RELEASE gave it. Otherwise the
	// state at base is the predecessors', and added is what came on top.
	m     *manifest
	added []change
	end   int64
}

// recoveries runs one recovery of a chain at a time, however many partitions
// need it, and remembers the last few.
type recoveries struct {
	mu    sync.Mutex
	byInc map[metadata.Incarnation]*recovery
	order []metadata.Incarnation
}

type recovery struct {
	done  chan struct{}
	state *chainState
	err   error
}

const (
	recoveriesKept  = 4
	recoveryTimeout = 2 * time.Minute
)

func (r *recoveries) init() { r.byInc = make(map[metadata.Incarnation]*recovery) }

// recover seals the chain of inc, if need be, and replays it.
func (l *Log) recover(ctx context.Context, inc metadata.Incarnation) (*chainState, error) {
	r := &l.recoveries
	r.mu.Lock()
	run := r.byInc[inc]
	if run == nil {
		run = &recovery{done: make(chan struct{})}
		if !l.tasks.run(func(ctx context.Context) { l.runRecovery(ctx, inc, run) }) {
			r.mu.Unlock()
			return nil, ErrFenced
		}
		r.byInc[inc] = run
	}
	r.mu.Unlock()
	select {
	case <-run.done:
		return run.state, run.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *Log) runRecovery(ctx context.Context, inc metadata.Incarnation, run *recovery) {
	ctx, cancel := context.WithTimeout(ctx, recoveryTimeout)
	defer cancel()
	began := time.Now()
	hs := heads{}
	var chain metadata.Chain
	if chain, run.err = l.seal(ctx, inc, hs); run.err == nil {
		run.err = failpoint.Hit(failpoint.AfterSeal)
	}
	if run.err == nil {
		run.state, run.err = l.replay(ctx, inc, chain, hs)
	}
	if run.err != nil {
		l.cfg.Logger.Warn("chain not recovered", "chain", inc.String(), "error", run.err)
	} else {
		l.cfg.Logger.Info("chain recovered", "chain", inc.String(), "checkpoint", chain.Checkpoint, "end", *chain.End, "seconds", time.Since(began).Seconds())
	}
	r := &l.recoveries
	r.mu.Lock()
	if run.err != nil {
		delete(r.byInc, inc) // whoever still needs it tries again
	} else if r.order = append(r.order, inc); len(r.order) > recoveriesKept {
		delete(r.byInc, r.order[0])
		r.order = r.order[1:]
	}
	r.mu.Unlock()
	close(run.done)
}

// replay loads the newest checkpoint and applies the heads from there to the
// end. Time and requests follow what was written since the checkpoint, not the
// age of the log.
func (l *Log) replay(ctx context.Context, inc metadata.Incarnation, chain metadata.Chain, hs heads) (*chainState, error) {
	for {
		state, err := l.replayFrom(ctx, inc, chain, hs)
		if !errors.Is(err, ErrDataLoss) {
			return state, err
		}
		// The chain may have been checkpointed and trimmed while we read, or
		// inherited and collected.
		again, loadErr := l.loadChain(ctx, inc)
		if loadErr != nil {
			return nil, loadErr
		}
		if again.Checkpoint <= chain.Checkpoint && again.Inherited == chain.Inherited {
			l.cfg.Logger.Error("an object that recovery needs is missing from the bucket", "chain", inc.String(), "error", err)
			return nil, err
		}
		chain = again
	}
}

func (l *Log) replayFrom(ctx context.Context, inc metadata.Incarnation, chain metadata.Chain, hs heads) (*chainState, error) {
	s := &chainState{epochs: make(map[Claim]*epochLog)}
	if chain.Inherited {
		// Each of its partitions has a later leader in an owner list without it. An
		// entry that came back was claimed by a zombie and never opened.
		return s, nil
	}
	if chain.Checkpoint > 0 {
		if err := l.loadCheckpoint(ctx, inc, chain.Checkpoint, s); err != nil {
			return nil, err
		}
	}
	now := time.Now().UnixMilli()
	for slot := chain.Checkpoint; slot < *chain.End; {
		n := int(min(headsAtOnce, *chain.End-slot))
		run, err := l.readHeads(ctx, inc, slot, n, hs)
		if err != nil {
			return nil, err
		}
		if len(run) < n {
			return nil, fmt.Errorf("%w: %s", ErrDataLoss, wal.SlotKey(inc, slot+uint64(len(run))))
		}
		for _, h := range run {
			if err := s.apply(h, now); err != nil {
				return nil, fmt.Errorf("replay slot %d of %s: %w", h.Slot, inc, err)
			}
			delete(hs, h.Slot-1) // the next one still names this one
		}
		slot += uint64(n)
	}
	return s, nil
}

func (l *Log) loadCheckpoint(ctx context.Context, inc metadata.Incarnation, slot uint64, s *chainState) error {
	key := wal.CheckpointKey(inc, slot)
	var tries patience
	states, err := retry(ctx, l.done, func() ([]*wal.PartitionState, error) {
		ctx, cancel := tries.next(ctx, fetchTimeout)
		defer cancel()
		b, err := l.cfg.Store.Get(ctx, key, 0, -1)
		if errors.Is(err, object.ErrNotFound) {
			return nil, fmt.Errorf("%w: %s", ErrDataLoss, key)
		}
		if err != nil {
			return nil, err
		}
		return wal.DecodeCheckpoint(b, l.cfg.Cluster, inc, slot)
	})
	if err != nil {
		return fmt.Errorf("load checkpoint %s: %w", key, err)
	}
	for _, state := range states {
		s.epochs[Claim{Partition: state.Partition, Epoch: state.Epoch}] = &epochLog{opened: true, m: manifestOf(state), end: state.End}
	}
	return nil
}

// apply adds one slot to the state.
func (s *chainState) apply(h *wal.Head, now int64) error {
	for i := range h.Extents {
		e := &h.Extents[i]
		log := s.epochs[Claim{Partition: e.Partition, Epoch: e.Epoch}]
		if log == nil || !log.opened || log.end != e.Base {
			return fmt.Errorf("%w: extent of %s at offset %d, epoch %d, fits nothing", ErrCorrupt, e.Partition, e.Base, e.Epoch)
		}
		ref := e.Ref(h.Incarnation, h.Slot, h.Len)
		log.end = ref.Last + 1
		if log.m == nil {
			log.added = append(log.added, change{ref: ref, rows: e.Rows})
		} else if err := log.m.apply(ref, e.Rows, now); err != nil {
			return err
		}
	}
	for i := range h.Records {
		r := &h.Records[i]
		claim := Claim{Partition: r.Partition, Epoch: r.Epoch}
		switch {
		case r.Type == wal.Open:
			if s.epochs[claim] != nil {
				return fmt.Errorf("%w: %s opened twice at epoch %d", ErrCorrupt, r.Partition, r.Epoch)
			}
			s.epochs[claim] = &epochLog{opened: true, base: r.Base, end: r.Base}
		case isEdit(r.Type):
			log := s.epochs[claim]
			if log == nil || !log.opened {
				return fmt.Errorf("%w: edit of %s at epoch %d, which is not open", ErrCorrupt, r.Partition, r.Epoch)
			}
			if log.m == nil {
				log.added = append(log.added, change{edit: r})
			} else if err := log.m.edit(r); err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		case r.Type == wal.Release && r.State != nil:
			log, err := releasedLog(r)
			if err != nil {
				return err
			}
			s.epochs[claim] = log
		}
	}
	return nil
}

// releasedLog is what a RELEASE says of the partition.
func releasedLog(r *wal.Record) (*epochLog, error) {
	if r.State == nil {
		return &epochLog{}, nil
	}
	state, err := wal.DecodeState(r.State)
	if err != nil {
		return nil, err
	}
	return &epochLog{opened: true, m: manifestOf(state), end: state.End}, nil
}
