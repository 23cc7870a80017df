// Package faulty wraps a store with aimed faults, for tests: this operation, on
// these keys, this many times.
//
//	f := faulty.New(mem.New())
//	f.Inject(&faulty.Fault{Op: object.OpCreate, Kind: faulty.After, Count: 1})
//
// The valuable one is After, the lie: the request was applied and the caller is
// told an error.
package faulty

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// Err is the error of a fault that names none: a failure with an unknown outcome.
var Err = errors.New("injected fault")

// Kind is what a fault does.
type Kind int

const (
	// Before fails the request without passing it on.
	Before Kind = iota
	// After passes the request on and fails it whatever its outcome.
	After
	// Delay waits for Fault.Delay, or until the context is over, and passes
	// the request on.
	Delay
	// Late fails a Create or Delete at once and applies it Fault.Delay later,
	// however long the caller has been gone by then.
	Late
	// Missing answers a Get with ErrNotFound.
	Missing
	// Corrupt inverts one bit in the middle of what a Get returns.
	Corrupt
	// Truncated cuts what a Get returns to half.
	Truncated
	// Hang blocks until the context is over.
	Hang
)

// Fault is one aimed fault. Its fields must not change after Inject.
type Fault struct {
	Op    string                // an object.Op…; empty for all
	Match func(key string) bool // nil for all keys; a List is matched by its prefix
	Skip  int                   // let this many matching requests pass first
	Count int                   // then hit this many; 0 means all until Remove
	Kind  Kind
	Err   error         // for Before, After and Late; default Err
	Delay time.Duration // for Delay and Late

	seen, hits int // guarded by Store.mu
}

// Prefix matches keys that begin with p.
func Prefix(p string) func(string) bool {
	return func(key string) bool { return strings.HasPrefix(key, p) }
}

// Key matches one key.
func Key(k string) func(string) bool {
	return func(key string) bool { return key == k }
}

// Store is a store with faults. Use New; Close waits for late requests.
type Store struct {
	store object.Store
	late  sync.WaitGroup

	mu     sync.Mutex // guards faults and their counters
	faults []*Fault
}

var _ object.Store = (*Store)(nil)

// New wraps store. Without faults every request passes.
func New(store object.Store) *Store { return &Store{store: store} }

// Unwrap returns the store without faults.
func (s *Store) Unwrap() object.Store { return s.store }

// Inject adds a fault. Of several that match a request the first one hits.
func (s *Store) Inject(f *Fault) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
	return f
}

// Remove takes a fault away again.
func (s *Store) Remove(f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.DeleteFunc(s.faults, func(g *Fault) bool { return g == f })
}

// Clear takes all faults away.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Hits returns how many requests f has hit.
func (s *Store) Hits(f *Fault) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.hits
}

// Close waits until late requests are applied.
func (s *Store) Close() { s.late.Wait() }

// hit returns the fault for a request, or nil.
func (s *Store) hit(op, key string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Op != "" && f.Op != op || f.Match != nil && !f.Match(key) {
			continue
		}
		f.seen++
		if f.seen <= f.Skip || f.Count > 0 && f.hits >= f.Count {
			continue
		}
		f.hits++
		return f
	}
	return nil
}

func (f *Fault) err() error {
	if f.Err != nil {
		return f.Err
	}
	return Err
}

// do runs request under the fault for it, if any.
func (s *Store) do(ctx context.Context, op, key string, request func(context.Context) error) error {
	f := s.hit(op, key)
	if f == nil {
		return request(ctx)
	}
	switch f.Kind {
	case Before:
		return f.err()
	case After:
		_ = request(ctx)
		return f.err()
	case Hang:
		<-ctx.Done()
		return ctx.Err()
	case Missing:
		return object.ErrNotFound
	case Late:
		s.late.Go(func() {
			time.Sleep(f.Delay)
			_ = request(context.WithoutCancel(ctx))
		})
		return f.err()
	case Delay:
		if !wait(ctx, f.Delay) {
			return ctx.Err()
		}
		return request(ctx)
	case Corrupt, Truncated:
		if err := request(ctx); err != nil {
			return err
		}
		return damage{f.Kind}
	}
	panic("faulty: unknown kind of fault")
}

// damage tells Get to damage what it returns.
type damage struct{ kind Kind }

func (damage) Error() string { return "damaged" }

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Create implements object.Store.
func (s *Store) Create(ctx context.Context, key string, data ...[]byte) error {
	own := slices.Concat(data...) // a late request outlives the caller's bytes
	return notDamage(s.do(ctx, object.OpCreate, key, func(ctx context.Context) error {
		return s.store.Create(ctx, key, own)
	}))
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	var b []byte
	err := s.do(ctx, object.OpGet, key, func(ctx context.Context) (err error) {
		b, err = s.store.Get(ctx, key, pos, length)
		return err
	})
	var d damage
	if errors.As(err, &d) {
		return d.apply(b), nil
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (d damage) apply(b []byte) []byte {
	if d.kind == Truncated {
		return b[:len(b)/2]
	}
	if len(b) > 0 {
		b[len(b)/2] ^= 0x10
	}
	return b
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return notDamage(s.do(ctx, object.OpDelete, key, func(ctx context.Context) error {
		return s.store.Delete(ctx, key)
	}))
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (infos []object.Info, err error) {
	err = notDamage(s.do(ctx, object.OpList, prefix, func(ctx context.Context) (err error) {
		infos, err = s.store.List(ctx, prefix, after, limit)
		return err
	}))
	if err != nil {
		return nil, err
	}
	return infos, nil
}

func notDamage(err error) error {
	if _, ok := err.(damage); ok { //nolint:errorlint // made a few lines above
		return nil
	}
	return err
}
