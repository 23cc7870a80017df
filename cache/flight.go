package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/cache/flow"
)

// Load fetches a chunk from where the objects are. The result is the cache's:
// nobody may change it afterwards.
type Load = func(ctx context.Context) ([]byte, error)

// flight is the fetching of one chunk, from disk or by a load.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when data and err are set
	data   []byte
	err    error
	// waiters is the number of readers, and of prefetches, that want it.
	// Guarded by Cache.mu. At 0 the flight is cancelled.
	waiters int
}

// Chunk returns chunk index of the object at key, calling load if it is in no
// layer. The bytes are read-only and valid until release, which may be called
// once or never; the chunk is not copied, so its reader keeps all of it alive.
// When ctx is over, the reader stops waiting, and the load goes on if others
// wait for it; it carries the values of the first reader's context,
// and takes turns with others as a load of that reader's flow.
func (c *Cache) Chunk(ctx context.Context, key string, index int64, load Load) (b []byte, release func(), err error) {
	ck := chunkKey{key, index}
	f, data, err := c.find(ctx, ck, load)
	if f != nil {
		data, err = c.wait(ctx, ck, f)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("chunk %d of %s: %w", index, key, err)
	}
	return data, func() {}, nil
}

// find returns a chunk from memory, or the flight to wait for.
func (c *Cache) find(ctx context.Context, ck chunkKey, load Load) (*flight, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	if data, ok := c.memory.get(ck); ok {
		c.m.hits.WithLabelValues(layerMemory).Inc()
		return nil, data, nil
	}
	f := c.flights[ck]
	if f == nil {
		f = c.startLocked(ctx, ck, load, nil)
	} else {
		c.m.shared.Inc()
	}
	f.waiters++
	return f, nil, nil
}

func (c *Cache) wait(ctx context.Context, ck chunkKey, f *flight) ([]byte, error) {
	defer c.leave(ck, f)
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.quit:
		return nil, ErrClosed
	}
}

// leave takes a waiter off a flight. Without waiters it is cancelled, and the
// next reader begins another rather than joining one that is about to fail.
func (c *Cache) leave(ck chunkKey, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	f.cancel()
	if c.flights[ck] == f {
		delete(c.flights, ck)
	}
}

// Prefetch begins to load a chunk that the reader of ctx's flow will want. It
// does nothing if the chunk is in a layer or under way, or if enough is being
// prefetched. One on disk is left there: in memory it would displace what is
// wanted before it. The end of ctx does not end the load.
func (c *Cache) Prefetch(ctx context.Context, key string, index int64, load Load) {
	ck := chunkKey{key, index}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.memory.has(ck) || c.flights[ck] != nil || c.disk != nil && c.disk.has(key, index) {
		return
	}
	reader := flow.Of(ctx).Reader
	if !c.mayPrefetchLocked(reader) {
		c.m.prefetch.WithLabelValues(prefetchDropped).Inc()
		return
	}
	c.m.prefetch.WithLabelValues(prefetchStarted).Inc()
	c.prefetches++
	c.prefetching[reader]++
	f := c.startLocked(ctx, ck, load, func(f *flight) {
		c.mu.Lock()
		c.prefetches--
		if c.prefetching[reader]--; c.prefetching[reader] == 0 {
			delete(c.prefetching, reader)
		}
		c.mu.Unlock()
		c.leave(ck, f)
	})
	f.waiters++
}

// mayPrefetchLocked reports whether one more prefetch keeps to half of the loads,
// and to the reader's share of that. A reader that prefetches nothing yet need
// not wait for the others to come down to their shares.
func (c *Cache) mayPrefetchLocked(reader any) bool {
	loads, own, readers := c.cfg.loadsMax(), c.prefetching[reader], len(c.prefetching)
	if own == 0 {
		readers++
		if c.prefetches < loads-1 {
			return true
		}
	}
	half := max(1, loads/2)
	return c.prefetches < half && own < max(1, half/readers)
}

// startLocked starts a flight, which Close waits for. It calls landed, if not
// nil, when the flight is over.
func (c *Cache) startLocked(ctx context.Context, ck chunkKey, load Load, landed func(*flight)) *flight {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.LoadTimeout)
	f := &flight{cancel: cancel, done: make(chan struct{})}
	c.flights[ck] = f
	c.running.Go(func() {
		defer cancel()
		f.data, f.err = c.fetch(ctx, ck, load)
		c.land(ck, f)
		close(f.done)
		if landed != nil {
			landed(f)
		}
	})
	return f
}

// land moves a flight's chunk into memory.
func (c *Cache) land(ck chunkKey, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[ck] == f {
		delete(c.flights, ck)
	}
	if c.closed && f.err != nil {
		f.err = ErrClosed
	}
	if f.err == nil && len(f.data) > 0 {
		evicted := c.memory.put(ck, f.data)
		c.m.evictions.WithLabelValues(layerMemory).Add(float64(evicted))
		c.heldLocked()
	}
}

// fetch gets a chunk from disk, or else by load.
func (c *Cache) fetch(ctx context.Context, ck chunkKey, load Load) ([]byte, error) {
	data, err := c.fromDisk(ctx, ck)
	if data != nil || err != nil {
		return data, err
	}
	c.m.misses.Inc()
	begin := time.Now()
	if err := c.loads.acquire(ctx, flow.Of(ctx)); err != nil {
		return nil, fmt.Errorf("wait for other loads: %w", err)
	}
	defer c.loads.release()
	if err := c.rate.wait(ctx, c.cfg.ChunkBytes); err != nil {
		return nil, fmt.Errorf("wait for the bandwidth that reads may use: %w", err)
	}
	c.m.waits.Observe(time.Since(begin).Seconds())
	c.m.loads.Inc()
	defer c.m.loads.Dec()
	data, err = load(ctx)
	c.rate.back(c.cfg.ChunkBytes - int64(len(data)))
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			c.m.errors.WithLabelValues(errorLoad).Inc()
		}
		return nil, err
	}
	c.offer(ck, data)
	return data, nil
}

func (c *Cache) fromDisk(ctx context.Context, ck chunkKey) ([]byte, error) {
	if c.disk == nil {
		return nil, nil
	}
	if err := acquire(ctx, c.diskReads); err != nil {
		return nil, fmt.Errorf("wait for the disk: %w", err)
	}
	defer func() { <-c.diskReads }()
	data := c.disk.get(ck.key, ck.index)
	if data != nil {
		c.m.hits.WithLabelValues(layerDisk).Inc()
	}
	return data, nil
}

func acquire(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
