package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// Inspector reads chains and rebuilds partitions with the code a successor
// uses, but never seals and never writes: it is for audits. What it finds in a
// chain that is not sealed is a moment of it.
type Inspector struct{ log *Log }

// NewInspector returns an Inspector of the bucket of a cluster.
func NewInspector(store object.Store, cluster wal.ClusterID) *Inspector {
	cfg := Config{Store: store, Cluster: cluster, PutTimeout: fetchTimeout, Logger: slog.New(slog.DiscardHandler)}
	cfg.ensureDefaults()
	return &Inspector{log: &Log{cfg: cfg, done: make(chan struct{})}}
}

// Head reads and verifies the head in a slot; object.ErrNotFound when it is free.
func (i *Inspector) Head(ctx context.Context, inc metadata.Incarnation, slot uint64) (*wal.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return i.log.readHead(ctx, inc, slot)
}

// ChainState is what a successor would learn from a chain.
type ChainState struct{ state *chainState }

// Replay loads the checkpoint that chain names and applies the heads from there
// to end. ErrDataLoss when one of them is missing: the caller reads the chain's
// key again before it believes that.
func (i *Inspector) Replay(ctx context.Context, inc metadata.Incarnation, chain metadata.Chain, end uint64) (*ChainState, error) {
	ctx, cancel := context.WithTimeout(ctx, recoveryTimeout)
	defer cancel()
	chain.End = &end
	state, err := i.log.replayFrom(ctx, inc, chain, heads{})
	if err != nil {
		return nil, err
	}
	return &ChainState{state}, nil
}

// Ends calls f with every claim that the state describes and with its end.
func (s *ChainState) Ends(f func(c Claim, end int64)) {
	for claim, log := range s.state.epochs {
		if log != nil && log.opened {
			f(claim, log.end)
		}
	}
}

// Inherit rebuilds a partition from its owner list, oldest first, as the next
// leader would. state returns what a chain says and is asked newest owner first,
// no further back than needed. The result aliases the chain states.
func (i *Inspector) Inherit(ctx context.Context, tp metadata.TopicPartition, owners []metadata.Owner, state func(context.Context, metadata.Incarnation) (*ChainState, error)) (*wal.PartitionState, error) {
	// Every claim that the walk will meet is answered beforehand, so that it
	// asks and seals nobody.
	c := &closer{log: i.log, released: make(map[metadata.Incarnation]map[Claim]*epochLog), failed: make(map[metadata.Incarnation]bool)}
	for n := len(owners) - 1; n >= 0; n-- {
		o := owners[n]
		s, err := state(ctx, o.Incarnation)
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", o.Incarnation, err)
		}
		claim := Claim{Partition: tp, Epoch: o.Epoch}
		if c.released[o.Incarnation] == nil {
			c.released[o.Incarnation] = make(map[Claim]*epochLog)
		}
		log := s.state.epochs[claim]
		c.released[o.Incarnation][claim] = log
		if log != nil && log.opened && log.m != nil {
			owners = owners[n:]
			break
		}
	}
	m, err := c.inherit(ctx, tp, owners)
	if err != nil {
		return nil, err
	}
	return m.state(), nil
}

// Extent reads an extent from the bucket, verifies it and returns its batches as
// served. ErrDataLoss when it is missing and ErrCorrupt when it is damaged are
// both the answer of two reads.
func (i *Inspector) Extent(ctx context.Context, ref *wal.ExtentRef) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return i.log.fetchExtent(ctx, ref)
}

// Page reads a manifest page. ErrDataLoss when it is missing, ErrCorrupt when it
// is damaged or says something else than ref.
func (i *Inspector) Page(ctx context.Context, tp metadata.TopicPartition, ref wal.PageRef) ([]wal.ExtentRef, error) {
	return inspectPage(ctx, i, tp, ref, wal.DecodePage)
}

// SegmentPage is Page for a page of segments.
func (i *Inspector) SegmentPage(ctx context.Context, tp metadata.TopicPartition, ref wal.PageRef) ([]wal.SegmentRef, error) {
	return inspectPage(ctx, i, tp, ref, wal.DecodeSegmentPage)
}

func inspectPage[T any](ctx context.Context, i *Inspector, tp metadata.TopicPartition, ref wal.PageRef, decode func([]byte, wal.ClusterID, wal.PageRef) ([]T, error)) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	key := wal.PageKey(tp, ref.Epoch, ref.Number)
	b, err := i.log.cfg.Store.Get(ctx, key, 0, -1)
	if errors.Is(err, object.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrDataLoss, key)
	}
	if err != nil {
		return nil, err
	}
	refs, err := decode(b, i.log.cfg.Cluster, ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return refs, nil
}

// AbortedPage is Page for aborted transactions.
func (i *Inspector) AbortedPage(ctx context.Context, tp metadata.TopicPartition, ref wal.PageRef) ([]wal.AbortedTxn, error) {
	return i.log.fetchAbortedPage(ctx, tp, ref)
}

// Section reads the index of a partition's part of a segment. ErrDataLoss when
// the segment is missing, ErrCorrupt when it is damaged or says something else
// than ref.
func (i *Inspector) Section(ctx context.Context, tp metadata.TopicPartition, ref *wal.SegmentRef) (*wal.Section, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return i.log.fetchSection(ctx, tp, ref)
}

// PageLast is the last offset that a manifest page names, whoever wrote it.
func (i *Inspector) PageLast(ctx context.Context, key string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b, err := i.log.cfg.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return 0, missing(key, err)
	}
	last, err := wal.PageLast(b, i.log.cfg.Cluster)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return last, nil
}

// SharedSections returns the sections of a shared segment.
func (i *Inspector) SharedSections(ctx context.Context, key string) ([]wal.Section, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	b, err := i.log.cfg.Store.Get(ctx, key, 0, headGuess)
	if err != nil {
		return nil, missing(key, err)
	}
	n, err := wal.SegmentHeadLen(b)
	if err == nil && n > len(b) {
		if b, err = i.log.cfg.Store.Get(ctx, key, 0, int64(n)); err != nil {
			return nil, missing(key, err)
		}
	}
	var h *wal.SegmentHead
	if err == nil {
		h, err = wal.DecodeSegmentHead(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return h.Sections, nil
}

// Current is the state of a chain as it is now: of one that is not sealed, up to
// its first free slot. load reads the chain's key: a slot may also be free because
// it was trimmed since, and then what was read begins too early and ends there.
func (i *Inspector) Current(ctx context.Context, inc metadata.Incarnation, load func(context.Context, metadata.Incarnation) (metadata.Chain, error)) (*ChainState, error) {
	ctx, cancel := context.WithTimeout(ctx, recoveryTimeout)
	defer cancel()
	for {
		chain, err := load(ctx, inc)
		if err != nil {
			return nil, err
		}
		state, err := i.current(ctx, inc, chain)
		if err != nil && !errors.Is(err, ErrDataLoss) {
			return nil, err
		}
		after, loadErr := load(ctx, inc)
		switch {
		case loadErr != nil:
			return nil, loadErr
		case chain.Inherited:
			return state, err
		case after.Inherited || after.Trim > chain.Checkpoint, err != nil && after.Checkpoint > chain.Checkpoint:
			continue // what was to be read may have gone: that is published first
		}
		return state, err
	}
}

func (i *Inspector) current(ctx context.Context, inc metadata.Incarnation, chain metadata.Chain) (*ChainState, error) {
	hs := heads{}
	for end := chain.Checkpoint; chain.End == nil; end += headsAtOnce {
		run, err := i.log.readHeads(ctx, inc, end, headsAtOnce, hs)
		if err != nil {
			return nil, err
		}
		if len(run) == headsAtOnce && run[len(run)-1].Kind == wal.Data {
			continue
		}
		end += uint64(len(run))
		if n := len(run); n > 0 && run[n-1].Kind == wal.Fence {
			end--
		}
		chain.End = &end
		break
	}
	state, err := i.log.replayFrom(ctx, inc, chain, hs)
	if err != nil {
		return nil, err
	}
	return &ChainState{state}, nil
}

// ReleasedEnd returns the end offset that a RELEASE states; false when the epoch
// had never opened.
func ReleasedEnd(r *wal.Record) (end int64, opened bool, err error) {
	log, err := releasedLog(r)
	if err != nil {
		return 0, false, err
	}
	return log.end, log.opened, nil
}
