package cache

import (
	"container/list"
	"context"
	"sync"

	"github.com/tidemark-io/tidemark/cache/flow"
)

// turns hands out a number of tokens. Those who wait for one take turns: readers
// first, then the streams of one reader, then whoever came first. So a reader
// that asks for a thousand chunks delays another's first by one chunk.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting rota[rota[list.List]] // readers, their streams, and the tickets of those
}

// ticket is a place in a line.
type ticket struct {
	flow  flow.Flow
	ready chan struct{} // closed when it holds a token
	place *list.Element // nil once it is out of the line
}

func newTurns(n int) *turns { return &turns{free: n} }

// acquire waits for a token.
func (t *turns) acquire(ctx context.Context, f flow.Flow) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	k := &ticket{flow: f, ready: make(chan struct{})}
	k.place = t.waiting.at(f.Reader).at(f.Stream).PushBack(k)
	t.mu.Unlock()
	select {
	case <-k.ready:
		return nil
	case <-ctx.Done():
		t.leave(k)
		return ctx.Err()
	}
}

// release gives a token to the next in turn.
func (t *turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.nextLocked(); k != nil {
		k.place = nil
		close(k.ready)
		return
	}
	t.free++
}

func (t *turns) nextLocked() *ticket {
	streams := t.waiting.next()
	if streams == nil {
		return nil
	}
	line := streams.next()
	k := line.Remove(line.Front()).(*ticket)
	t.tidyLocked(k.flow, streams, line)
	return k
}

// leave takes a ticket out of its line. One that was served just now passes its
// token on.
func (t *turns) leave(k *ticket) {
	t.mu.Lock()
	served := k.place == nil
	if !served {
		streams := t.waiting.at(k.flow.Reader)
		line := streams.at(k.flow.Stream)
		line.Remove(k.place)
		t.tidyLocked(k.flow, streams, line)
	}
	t.mu.Unlock()
	if served {
		t.release()
	}
}

// tidyLocked forgets lines in which nobody is left.
func (t *turns) tidyLocked(f flow.Flow, streams *rota[list.List], line *list.List) {
	if line.Len() > 0 {
		return
	}
	if streams.remove(f.Stream); len(streams.byKey) == 0 {
		t.waiting.remove(f.Reader)
	}
}

// rota is a set of things by key that are taken one after the other, round and
// round. The zero value is empty.
type rota[T any] struct {
	byKey map[any]*list.Element
	order list.List // of *shift[T], the next first
}

type shift[T any] struct {
	key   any
	value T
}

// at returns the thing of key, which is made, and is the last in turn, if there
// is none.
func (r *rota[T]) at(key any) *T {
	if e := r.byKey[key]; e != nil {
		return &e.Value.(*shift[T]).value
	}
	if r.byKey == nil {
		r.byKey = make(map[any]*list.Element)
	}
	s := &shift[T]{key: key}
	r.byKey[key] = r.order.PushBack(s)
	return &s.value
}

// next returns the thing whose turn it is, or nil, and makes it the last in turn.
func (r *rota[T]) next() *T {
	e := r.order.Front()
	if e == nil {
		return nil
	}
	r.order.MoveToBack(e)
	return &e.Value.(*shift[T]).value
}

func (r *rota[T]) remove(key any) {
	r.order.Remove(r.byKey[key])
	delete(r.byKey, key)
}
