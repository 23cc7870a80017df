package tiering

import (
	"container/list"
	"context"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark-io/tidemark/cache/flow"
)

// lru is a byte-bounded map of things loaded from the bucket, with one load of
// a key at a time however many ask for it. A caller that gives up does not fail
// the others: the load runs under the owner's context.
type lru[K comparable, V any] struct {
	max  int64
	size func(V) int64

	mu     sync.Mutex
	bytes  int64
	order  *list.List // of *entry, newest first
	byKey  map[K]*list.Element
	flight map[K]*load[V]
	tasks  *tasks
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
	size  int64
}

type load[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newLRU[K comparable, V any](t *tasks, limit int64, size func(V) int64) *lru[K, V] {
	return &lru[K, V]{
		tasks: t, max: limit, size: size, order: list.New(),
		byKey: make(map[K]*list.Element), flight: make(map[K]*load[V]),
	}
}

// get returns the value of key, calling fetch on a miss.
func (c *lru[K, V]) get(ctx context.Context, key K, fetch func(context.Context) (V, error)) (V, error) {
	c.mu.Lock()
	if e := c.byKey[key]; e != nil {
		c.order.MoveToFront(e)
		v := e.Value.(*lruEntry[K, V]).value
		c.mu.Unlock()
		return v, nil
	}
	l := c.flight[key]
	if l == nil {
		l = &load[V]{done: make(chan struct{})}
		// The load outlives an impatient caller, not the owner of the tasks;
		// fetch sets its own deadline.
		span, whose := trace.SpanFromContext(ctx), flow.Of(ctx)
		if !c.tasks.run(func(ctx context.Context) {
			c.load(flow.With(trace.ContextWithSpan(ctx, span), whose), key, l, fetch)
		}) {
			c.mu.Unlock()
			var zero V
			return zero, ErrFenced
		}
		c.flight[key] = l
	}
	c.mu.Unlock()
	select {
	case <-l.done:
		return l.value, l.err
	case <-ctx.Done():
		var zero V
		return zero, context.Cause(ctx)
	}
}

// put stores a value; mu is held.
func (c *lru[K, V]) put(key K, v V) {
	e := &lruEntry[K, V]{key: key, value: v, size: c.size(v)}
	if e.size > c.max {
		return
	}
	c.byKey[key] = c.order.PushFront(e)
	c.bytes += e.size
	for c.bytes > c.max {
		last := c.order.Back()
		old := c.order.Remove(last).(*lruEntry[K, V])
		delete(c.byKey, old.key)
		c.bytes -= old.size
	}
}

func (c *lru[K, V]) load(ctx context.Context, key K, l *load[V], fetch func(context.Context) (V, error)) {
	l.value, l.err = fetch(ctx)
	c.mu.Lock()
	delete(c.flight, key)
	if l.err == nil {
		c.put(key, l.value)
	}
	c.mu.Unlock()
	close(l.done)
}
