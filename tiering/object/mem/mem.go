// Package mem is a bucket in memory, for tests. It keeps the whole contract of
// package object, so that what passes on it fails nowhere else for reasons of
// semantics; only durability is missing.
package mem

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

var (
	_ object.Store   = (*Store)(nil)
	_ object.Checker = (*Store)(nil)
)

// Store is a bucket in memory. Use New.
type Store struct {
	mu      sync.RWMutex // guards objects; the byte slices in it never change
	objects map[string]entry
}

type entry struct {
	data     []byte
	modified time.Time
}

// New returns an empty bucket.
func New() *Store {
	return &Store{objects: make(map[string]entry)}
}

// Create implements object.Store.
func (s *Store) Create(ctx context.Context, key string, data ...[]byte) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	if _, err := object.CheckSize(data); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	own := slices.Concat(data...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return fmt.Errorf("create %s: %w", key, object.ErrExists)
	}
	s.objects[key] = entry{data: own, modified: time.Now()}
	return nil
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if err := object.CheckKey(key); err != nil {
		return nil, err
	}
	if err := object.CheckRange(pos); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	s.mu.RLock()
	e, ok := s.objects[key]
	s.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, object.ErrNotFound)
	}
	from, to := object.Span(int64(len(e.data)), pos, length)
	return slices.Clone(e.data[from:to]), nil
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	s.mu.Lock()
	delete(s.objects, key)
	s.mu.Unlock()
	return nil
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	if err := object.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	infos := s.matching(prefix, after)
	slices.SortFunc(infos, func(a, b object.Info) int { return strings.Compare(a.Key, b.Key) })
	return infos[:min(max(limit, 0), len(infos))], nil
}

func (s *Store) matching(prefix, after string) []object.Info {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var infos []object.Info
	for key, e := range s.objects {
		if key > after && strings.HasPrefix(key, prefix) {
			infos = append(infos, object.Info{Key: key, Size: int64(len(e.data)), Modified: e.modified})
		}
	}
	return infos
}

// Check implements object.Checker: memory expires nothing.
func (s *Store) Check(context.Context, []string, func(string, error)) error { return nil }
