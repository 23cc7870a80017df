package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
)

// ErrNotAvailable: the group's coordinator is not known at the moment.
var ErrNotAvailable = errors.New("group coordinator not available")

// ClientInfo is who sent a request.
type ClientInfo struct {
	ID string // client.id
	// Host is the client's address without a port.
	Host string
}

// Coordinator coordinates the groups of this broker's shards. Requests may be
// made at any time; those for groups of other brokers, and all of them outside
// Run, are refused with NOT_COORDINATOR.
type Coordinator struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	shards    [metadata.GroupShards]shard
	committer committer
	verifier  verifier
	// groupWrites limits the groups that are written at a time.
	groupWrites chan struct{}
	poked       chan struct{}
	images      images
	mirror      mirror
	txnWriter   txnWriter
	markers     markers
	draining    atomic.Bool
	sweeping    atomic.Bool
	// writes ends, by cutWrites, when accepted writes have had their time.
	writes    context.Context
	cutWrites context.CancelFunc

	// life guards the start and end of goroutines: none begins once closed.
	life struct {
		sync.Mutex
		ctx  context.Context // of Run; nil before it
		open bool
		wg   sync.WaitGroup
	}
}

// New returns a coordinator that does nothing until Run.
func New(cfg Config) (*Coordinator, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("group coordinator: %w", err)
	}
	c := &Coordinator{
		cfg: cfg, log: cfg.Logger,
		groupWrites: make(chan struct{}, groupWritesInFlight),
		poked:       make(chan struct{}, 1),
	}
	for i := range c.shards {
		c.shards[i].c, c.shards[i].id = c, i
		c.shards[i].waiters = map[group.Ticket]chan group.Reply{}
	}
	c.committer.c, c.verifier.c = c, c
	c.txnWriter.c, c.markers.c, c.markers.dests = c, c, map[metadata.Incarnation]*markerDest{}
	c.mirror.c, c.mirror.poked = c, make(chan struct{}, 1)
	c.writes, c.cutWrites = context.WithCancel(context.Background())
	var err error
	if c.metrics, err = newMetrics(cfg.Registerer, c); err != nil {
		return nil, fmt.Errorf("group coordinator metrics: %w", err)
	}
	return c, nil
}

// Run coordinates until ctx is done, then gives up every shard and waits for
// what is under way. It is called once.
func (c *Coordinator) Run(ctx context.Context) error {
	changed, cancel := c.cfg.View.Subscribe()
	defer cancel()
	c.life.Lock()
	c.life.ctx, c.life.open = ctx, true
	c.life.Unlock()

	if c.mirror.on() {
		c.spawn(func() { c.mirror.run(ctx) })
	}
	sweep := time.NewTicker(c.cfg.OffsetsRetentionCheck)
	defer sweep.Stop()
	c.reconcile()
	for {
		select {
		case <-changed:
			c.reconcile()
		case <-c.poked:
			c.reconcile()
		case <-sweep.C:
			c.spawn(c.sweep)
			c.mirror.refresh(time.Now())
		case <-ctx.Done():
			c.close()
			return nil
		}
	}
}

func (c *Coordinator) close() {
	c.draining.Store(true)
	c.dropAll()
	c.life.Lock()
	c.life.open = false
	c.life.Unlock()
	c.committer.stop()
	c.txnWriter.stop()
	c.life.wg.Wait()
	c.cutWrites()
}

func (c *Coordinator) dropAll() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.drop(kerr.NotCoordinator)
		sh.mu.Unlock()
	}
}

// ReleaseAll is the graceful stop: new requests are refused from now on, what
// was accepted is written, as far as ctx allows, and then every parked request
// is answered with NOT_COORDINATOR. Nothing is served afterwards.
func (c *Coordinator) ReleaseAll(ctx context.Context) error {
	c.draining.Store(true)
	err := errors.Join(c.committer.drain(ctx), c.txnWriter.drain(ctx))
	for err == nil && c.writing() {
		// Group writes end within their deadline; the semaphore's freeing
		// tells when, and taking every place means that none is under way.
		err = c.drainGroupWrites(ctx)
	}
	c.dropAll()
	if err != nil {
		c.cutWrites()
	}
	return err
}

// writing tells whether a group is being written or waits to be.
func (c *Coordinator) writing() bool {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for _, e := range sh.groups {
			if e.writing || e.queued != nil || e.changed {
				sh.mu.Unlock()
				return true
			}
		}
		sh.mu.Unlock()
	}
	return false
}

func (c *Coordinator) drainGroupWrites(ctx context.Context) error {
	taken := 0
	defer func() {
		for range taken {
			<-c.groupWrites
		}
	}()
	for taken < cap(c.groupWrites) {
		select {
		case c.groupWrites <- struct{}{}:
			taken++
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// spawn runs f in a goroutine that Run waits for, unless it is too late.
func (c *Coordinator) spawn(f func()) bool {
	if !c.enter() {
		return false
	}
	go func() {
		defer c.life.wg.Done()
		f()
	}()
	return true
}

// within runs f, called by a timer, so that Run waits for it.
func (c *Coordinator) within(f func()) {
	if c.enter() {
		defer c.life.wg.Done()
		f()
	}
}

func (c *Coordinator) enter() bool {
	c.life.Lock()
	defer c.life.Unlock()
	if c.life.open {
		c.life.wg.Add(1)
	}
	return c.life.open
}

// writeContext is for a write that was accepted: it outlives Run's context by
// its own deadline, unless ReleaseAll had no time for it.
func (c *Coordinator) writeContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.writes, c.cfg.WriteTimeout)
}

// poke makes Run look at the view again.
func (c *Coordinator) poke() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
}

// reconcile takes up and lets go of shards as the view says. The view may be
// behind what a shard knows from the store itself, never ahead of the store.
func (c *Coordinator) reconcile() {
	if c.draining.Load() {
		return
	}
	for i := range c.shards {
		owner, rev, ok := c.cfg.View.Coordinator(i)
		c.shards[i].reconcile(ok && owner.Incarnation == c.cfg.Incarnation, rev, ok)
	}
}

func (sh *shard) reconcile(ours bool, rev int64, known bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if known && rev <= sh.floor {
		return
	}
	switch sh.state {
	case shardNone:
		if ours {
			sh.startLoad(false)
		}
	case shardActive:
		if known && rev <= sh.rev {
			return
		}
		// Ours again under another revision means that in between it was
		// somebody else's, or may have been.
		sh.c.log.Debug("coordinator shard moved", slog.Int(logShard, sh.id), slog.Int64(logRevision, rev))
		sh.drop(kerr.NotCoordinator)
		if ours {
			sh.startLoad(false)
		}
	case shardLoading:
		// The load reads the key itself, and ends with a look at the view.
	}
}

// Coordinator returns the broker that coordinates the group, or ErrNotAvailable.
func (c *Coordinator) Coordinator(groupID string) (metadata.Broker, error) {
	shard := ShardOf(groupID)
	owner, _, ok := c.cfg.View.Coordinator(shard)
	if !ok {
		return metadata.Broker{}, fmt.Errorf("shard %d: %w", shard, ErrNotAvailable)
	}
	b, ok := c.cfg.View.Broker(owner.Incarnation)
	if !ok {
		return metadata.Broker{}, fmt.Errorf("shard %d of %s: %w", shard, owner.Incarnation, ErrNotAvailable)
	}
	return b, nil
}

func (c *Coordinator) shard(groupID string) *shard { return &c.shards[ShardOf(groupID)] }
