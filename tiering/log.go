package tiering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// Log is one incarnation: its chain, and the partitions it leads.
type Log struct {
	cfg   Config
	m     *metrics
	pool  *bufferPool
	room  admission
	tail  *memoryTail
	hot   *lru[extentID, []byte]        // verified extents, as served
	pages *lru[string, []wal.ExtentRef] // manifest pages of extents, and the sections of segments
	// segmentPages are manifest pages of segments, by key.
	segmentPages *lru[string, []wal.SegmentRef]
	// abortedPages are manifest pages of aborted transactions, by key.
	abortedPages *lru[string, []wal.AbortedTxn]
	gate         authority
	tasks        tasks
	comp         compressor

	// done closes when the incarnation is over; err says how, and is set before.
	done chan struct{}
	err  error
	once sync.Once

	// wake tells the flusher that something changed; it holds at most one token.
	wake chan struct{}
	// durable hands flushes whose slot is bound to the commit loop. Its room is
	// the window, so that a PUT never waits to hand over.
	durable chan *flush
	// snapshots asks the commit loop for a checkpoint's content between slots.
	snapshots chan chan snapshot
	// soon asks for a checkpoint without waiting for the interval.
	soon chan struct{}

	// slots below committed are committed. Written by the commit loop only.
	committed atomic.Uint64
	// checkpoint is the newest durable and recorded checkpoint.
	checkpoint atomic.Uint64
	appending  atomic.Int32 // admitted requests that are appending
	// onCheckpoint is called with what the checkpoint describes. Set before Run.
	onCheckpoint func([]Claim)

	// mu guards what follows.
	mu         sync.Mutex
	open       *flush   // takes appends; never nil
	ready      []*flush // full ones that wait for the window
	unresolved map[uint64]*flush
	nextSlot   uint64
	previous   wal.Digest
	pacer      pacer
	closing    bool   // no appends and no records any more, but CLOSE
	last       *flush // carries the CLOSE; nil until that is sent

	// partsMu guards parts and closedEpochs.
	partsMu sync.RWMutex
	parts   map[metadata.TopicPartition]*Partition
	// served is closed, and replaced, whenever a partition begins to be served.
	served chan struct{}
	// closedEpochs: an epoch at or below it is never opened here.
	closedEpochs map[metadata.TopicPartition]int32
	releases     releaseBook

	recoveries recoveries
	// checkpointing holds the turn to make a checkpoint, and to announce it; what
	// follows belongs to who has it.
	checkpointing chan struct{}
	announced     []Claim                         // of the newest checkpoint, until they are
	debts         map[metadata.Incarnation]uint64 // as written down

	// tiering: the tiering timer runs. tierable starts it.
	tiering  atomic.Bool
	tierable chan struct{}
	tierComp compressor // of the tiering loop
	// lag is what could be tiered at the last look, and what was committed since.
	lag     atomic.Int64
	unnamed keySet // segments that were, or are being, written and not published yet
	// collectable wakes the collector; it holds at most one token.
	collectable chan struct{}
	garbage     garbage
	graves      graves
	retain      retainer
	abandoned   map[metadata.Incarnation]time.Time // since when they were seen so; the collector's
	// sweptTo is where sweeps that had too many candidates go on, by prefix;
	// sweepMax how many are too many. The sweeper's.
	sweptTo  map[string]string
	sweepMax int
}

// Open starts a chain: it binds slot 0 to a START object. The caller runs Run.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Log{
		cfg:           cfg,
		m:             newMetrics(cfg.Registerer),
		pool:          &bufferPool{max: cfg.TailBytes / 4},
		tail:          newMemoryTail(cfg.TailBytes),
		done:          make(chan struct{}),
		wake:          make(chan struct{}, 1),
		durable:       make(chan *flush, windowMax),
		snapshots:     make(chan chan snapshot),
		soon:          make(chan struct{}, 1),
		checkpointing: make(chan struct{}, 1),
		debts:         make(map[metadata.Incarnation]uint64),
		tierable:      make(chan struct{}, 1),
		tierComp:      compressor{level: zstd.SpeedDefault},
		collectable:   make(chan struct{}, 1),
		sweptTo:       make(map[string]string),
		sweepMax:      sweepMax,
		unresolved:    make(map[uint64]*flush),
		pacer:         newPacer(cfg.FlushSpacing, cfg.FlushBudget),
		parts:         make(map[metadata.TopicPartition]*Partition),
		served:        make(chan struct{}),
		closedEpochs:  make(map[metadata.TopicPartition]int32),
	}
	l.hot = newLRU[extentID](&l.tasks, cfg.ExtentCacheBytes, func(b []byte) int64 { return int64(cap(b)) })
	l.pages = newLRU[string](&l.tasks, pageCacheBytes, func(r []wal.ExtentRef) int64 { return int64(cap(r)) * refBytes })
	l.segmentPages = newLRU[string](&l.tasks, pageCacheBytes/4, func(r []wal.SegmentRef) int64 { return int64(cap(r)) * segmentBytes })
	l.abortedPages = newLRU[string](&l.tasks, pageCacheBytes/4, func(r []wal.AbortedTxn) int64 { return int64(cap(r)) * abortedBytes })
	l.room.limit, l.room.done = cfg.UnflushedBytesMax, l.done
	l.recoveries.init()
	l.releases.init()
	l.graves.init()
	l.retain.init()
	l.open = l.newFlush()
	if err := l.start(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// start binds slot 0.
func (l *Log) start(ctx context.Context) error {
	f := l.newFlush()
	f.kind = wal.Start
	l.begin(f, 0)
	l.encode(f, wal.Digest{}, 0)
	f.begun = l.cfg.Clock()
	for attempt := 0; ; attempt++ {
		err := l.attempt(ctx, f)
		if err == nil {
			break
		}
		if errors.Is(err, ErrFenced) || errors.Is(err, object.ErrRefused) || !sleep(ctx, nil, backoff(attempt)) {
			return fmt.Errorf("start chain %s: %w", l.cfg.Incarnation, err)
		}
	}
	l.nextSlot, l.previous = 1, f.head.Digest
	l.committed.Store(1)
	l.gate.renew(f.begun)
	f.finish(nil)
	return nil
}

// Incarnation names the chain.
func (l *Log) Incarnation() metadata.Incarnation { return l.cfg.Incarnation }

// Done closes when the incarnation is over, fenced or closed.
func (l *Log) Done() <-chan struct{} { return l.done }

// Run uploads, commits and checkpoints until the incarnation is over or ctx is
// done. It returns nil after Close, ErrFenced (wrapped, with the reason) when
// somebody ended the chain, and the context's error when ctx ended first; then
// the chain is left to be sealed by others.
func (l *Log) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { l.flushLoop(ctx); return nil })
	g.Go(func() error { l.commitLoop(ctx); return nil })
	g.Go(func() error { l.checkpointLoop(ctx); return nil })
	g.Go(func() error { l.tierLoop(ctx); return nil })
	g.Go(func() error { l.collectLoop(ctx); return nil })
	g.Go(func() error { l.sweepLoop(ctx); return nil })
	g.Go(func() error { l.retainLoop(ctx); return nil })
	g.Go(func() error { l.graveLoop(ctx); return nil })
	select {
	case <-ctx.Done():
		l.fail(fmt.Errorf("%w: %w", ErrFenced, context.Cause(ctx)))
	case <-l.done:
	}
	cancel()
	_ = g.Wait() // the loops return nothing; done and err tell all
	l.tasks.stop()
	if errors.Is(l.err, ErrClosed) {
		return nil
	}
	return l.err
}

// fail ends the incarnation: nothing more is acknowledged. The first reason stands.
func (l *Log) fail(err error) {
	l.once.Do(func() {
		l.mu.Lock()
		l.err = err
		l.closing = true
		flushes := append([]*flush{l.open}, l.ready...)
		for _, f := range l.unresolved {
			flushes = append(flushes, f)
		}
		close(l.done)
		l.mu.Unlock()
		for _, f := range flushes {
			f.finish(ErrFenced)
		}
		l.partsMu.RLock()
		for _, p := range l.parts {
			p.notify()
		}
		l.partsMu.RUnlock()
		if errors.Is(err, ErrClosed) {
			l.cfg.Logger.Info("chain closed", "incarnation", l.cfg.Incarnation.String())
		} else {
			l.cfg.Logger.Warn("incarnation is over", "incarnation", l.cfg.Incarnation.String(), "reason", err.Error())
		}
	})
}

// over reports whether the incarnation has ended.
func (l *Log) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Admit waits until size more bytes may be appended, and then brackets the
// appends of one request: they are flushed together where possible. ErrTimedOut
// when ctx ends first, ErrFenced when the incarnation does.
// While tiering is far behind, it takes its time.
func (l *Log) Admit(ctx context.Context, size int) (release func(), err error) {
	if err := l.brake(ctx); err != nil {
		return nil, err
	}
	if err := l.room.take(ctx, int64(size)); errors.Is(err, ErrFenced) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w: %d unflushed bytes: %w", ErrTimedOut, l.cfg.UnflushedBytesMax, err)
	}
	l.appending.Add(1)
	return sync.OnceFunc(func() {
		l.room.give(int64(size))
		l.appending.Add(-1)
		l.kick()
	}), nil
}

// kick wakes the flusher.
func (l *Log) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Partition returns a partition that this incarnation leads, or ErrNotLeader.
func (l *Log) Partition(tp metadata.TopicPartition) (*Partition, error) {
	if l.over() {
		return nil, ErrNotLeader
	}
	l.partsMu.RLock()
	p := l.parts[tp]
	l.partsMu.RUnlock()
	if p == nil || !p.readable() {
		return nil, ErrNotLeader
	}
	return p, nil
}

// Await is Partition, but waits for a partition that is not led yet until ctx
// ends: for callers who know that it is about to be.
func (l *Log) Await(ctx context.Context, tp metadata.TopicPartition) (*Partition, error) {
	for {
		l.partsMu.RLock()
		served := l.served
		l.partsMu.RUnlock()
		if p, err := l.Partition(tp); err == nil {
			return p, nil
		}
		select {
		case <-served:
		case <-l.done:
			return nil, ErrNotLeader
		case <-ctx.Done():
			return nil, ErrNotLeader
		}
	}
}

// OnCheckpoint sets what is called after each checkpoint that is durable and
// recorded, with the partitions it describes: what came before their epochs is
// no longer needed to recover them. Call it before Run.
func (l *Log) OnCheckpoint(f func([]Claim)) { l.onCheckpoint = f }

// StuckSince returns since when the oldest slot in flight could not be bound,
// if an attempt at it has failed or takes longer than a second.
func (l *Log) StuckSince() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest time.Time
	for _, f := range l.unresolved {
		if t := f.takenAt; (f.failed.Load() || time.Since(t) > time.Second) && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	return oldest, !oldest.IsZero()
}

// BucketFailing reports whether writes have been stuck for two seconds.
func (l *Log) BucketFailing() bool {
	since, stuck := l.StuckSince()
	return stuck && time.Since(since) > 2*time.Second
}
