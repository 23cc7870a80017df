// Package producerid hands out producer ids that nobody else gets, from blocks
// that are reserved for one broker at a time.
package producerid

import (
	"context"
	"sync"
)

// Block is how many ids are reserved at a time, as in Kafka. What is left of a
// block when the broker stops is never used.
const Block = 1000

// Source gives ids from blocks.
type Source struct {
	// reserve takes n ids for ever and returns the first.
	reserve func(ctx context.Context, n int64) (int64, error)

	// mu guards next and end: ids in [next, end) are ours to give. refill is
	// held by whoever reserves the next block, so that one does.
	mu        sync.Mutex
	next, end int64
	refill    chan struct{}
}

// New returns a source that has nothing yet.
func New(reserve func(ctx context.Context, n int64) (int64, error)) *Source {
	return &Source{reserve: reserve, refill: make(chan struct{}, 1)}
}

func (s *Source) take() (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == s.end {
		return 0, false
	}
	s.next++
	return s.next - 1, true
}

// Get returns an id that nobody else gets.
func (s *Source) Get(ctx context.Context) (int64, error) {
	for {
		if id, ok := s.take(); ok {
			return id, nil
		}
		select {
		case s.refill <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		err := s.restock(ctx)
		<-s.refill
		if err != nil {
			return 0, err
		}
	}
}

func (s *Source) restock(ctx context.Context) error {
	s.mu.Lock()
	stocked := s.next < s.end // by whoever held refill before us
	s.mu.Unlock()
	if stocked {
		return nil
	}
	first, err := s.reserve(ctx, Block)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.next, s.end = first, first+Block
	s.mu.Unlock()
	return nil
}
