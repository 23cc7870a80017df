// Package raw measures what a broker stands on: the store and etcd by
// themselves, in the same run, so that a figure of the broker can be compared
// with the limit it had on that machine at that time.
package raw

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/tiering/object"
)

const requestTimeout = 30 * time.Second

// Store puts objects beside a broker's own.
type Store struct {
	store object.Store
	run   string
	next  atomic.Int64
}

// NewStore writes under keys that begin with raw/ and the name of the run.
func NewStore(store object.Store, run string) *Store { return &Store{store: store, run: run} }

func (s *Store) key(n int64) string { return fmt.Sprintf("raw/%s/%d", s.run, n) }

func (s *Store) put(ctx context.Context, data []byte) (int64, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	n := s.next.Add(1)
	begun := time.Now()
	err := s.store.Create(ctx, s.key(n), data)
	return n, time.Since(begun), err
}

// Puts creates objects of size for d, perSecond of them but one at a time, and
// counts what each takes from when it is sent.
func (s *Store) Puts(ctx context.Context, size int, perSecond float64, d time.Duration) (*hist.H, error) {
	var h hist.H
	data := noise(size)
	start := time.Now()
	for i := 0; ; i++ {
		due := start.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
		if !due.Before(start.Add(d)) || time.Since(start) >= d {
			return &h, nil
		}
		time.Sleep(time.Until(due))
		_, took, err := s.put(ctx, data)
		if err != nil {
			return nil, err
		}
		h.Record(took)
	}
}

// Gets reads objects that Puts has created, newest first, one at a time, for d
// or until there are no more.
func (s *Store) Gets(ctx context.Context, d time.Duration) (*hist.H, error) {
	var h hist.H
	start := time.Now()
	for n := s.next.Load(); n > 0 && time.Since(start) < d; n-- {
		begun := time.Now()
		if err := s.get(ctx, n); err != nil {
			return nil, err
		}
		h.Record(time.Since(begun))
	}
	return &h, nil
}

func (s *Store) get(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.store.Get(ctx, s.key(n), 0, -1)
	return err
}

// Ceiling is the bytes a second that inFlight concurrent PUTs of size reach
// while the generator produces as many: each PUT takes its bytes from what the
// sink received, so that the machine carries the clients' work too.
func (s *Store) Ceiling(ctx context.Context, sink *Sink, size, inFlight int, d time.Duration, generate func(context.Context) error) (float64, error) {
	data := noise(size)
	var puts atomic.Int64
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	g.Go(func() error {
		defer sink.Drain() // nobody takes the rest
		return generate(ctx)
	})
	for range inFlight {
		g.Go(func() error {
			for time.Since(start) < d && sink.take(ctx, int64(size)) {
				if _, _, err := s.put(ctx, data); err != nil {
					return err
				}
				puts.Add(1)
				sink.done(int64(size))
			}
			return nil
		})
	}
	// The generator, stopping at d too, needs the sink for what it has buffered.
	timer := time.AfterFunc(time.Until(start.Add(d)), sink.Drain)
	defer timer.Stop()
	err := g.Wait()
	return float64(puts.Load()) * float64(size) / time.Since(start).Seconds(), err
}

// noise is bytes that no compression makes smaller.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(b)
	return b
}
