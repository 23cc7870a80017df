package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func openMemory(t *testing.T, cfg Config) *Cache {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// store is where objects are: it counts loads and can be slow or failing.
type store struct {
	loads   atomic.Int64
	running atomic.Int64
	most    atomic.Int64
	delay   time.Duration
	err     error
	size    int
}

func (s *store) content(key string, index int64) []byte {
	size := s.size
	if size == 0 {
		size = 1000
	}
	return bytes.Repeat([]byte(fmt.Sprintf("%s#%d|", key, index)), size)[:size]
}

func (s *store) load(key string, index int64) Load {
	return func(ctx context.Context) ([]byte, error) {
		s.loads.Add(1)
		n := s.running.Add(1)
		defer s.running.Add(-1)
		for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
		}
		if s.delay > 0 {
			select {
			case <-time.After(s.delay):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if s.err != nil {
			return nil, s.err
		}
		return s.content(key, index), nil
	}
}

func (s *store) read(ctx context.Context, c *Cache, key string, index int64) error {
	b, release, err := c.Chunk(ctx, key, index, s.load(key, index))
	if err != nil {
		return err
	}
	defer release()
	if !bytes.Equal(b, s.content(key, index)) {
		return fmt.Errorf("chunk %d of %s has other bytes", index, key)
	}
	return nil
}

func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{})
		defer c.Close()
		s := &store{delay: time.Second}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := s.read(t.Context(), c, "k", 3); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := s.read(t.Context(), c, "k", 3); err != nil || s.loads.Load() != 1 {
			t.Errorf("%d loads for 51 reads, %v", s.loads.Load(), err)
		}
	})
}

func TestCancelledReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{})
		defer c.Close()
		s := &store{delay: 10 * time.Second}
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.read(first, c, "k", 0); !errors.Is(err, context.Canceled) {
				t.Errorf("the reader that gave up: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := s.read(t.Context(), c, "k", 0); err != nil {
				t.Errorf("the reader that stayed: %v", err)
			}
		})
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if s.loads.Load() != 1 {
			t.Errorf("%d loads", s.loads.Load())
		}

		// The last one to give up ends the load, and a new reader starts afresh.
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.read(short, c, "other", 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read = %v", err)
		}
		if err := s.read(t.Context(), c, "other", 0); err != nil || s.loads.Load() != 3 {
			t.Errorf("after an abandoned load: %v, %d loads", err, s.loads.Load())
		}
		if n := s.running.Load(); n != 0 {
			t.Errorf("%d loads still run", n)
		}
	})
}

func TestLoadError(t *testing.T) {
	c := openMemory(t, Config{})
	defer c.Close()
	s := &store{err: errors.New("no answer")}
	if err := s.read(t.Context(), c, "k", 0); !errors.Is(err, s.err) {
		t.Fatalf("read = %v", err)
	}
	s.err = nil
	if err := s.read(t.Context(), c, "k", 0); err != nil {
		t.Fatalf("the failure was cached: %v", err)
	}
}

func TestLoadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{LoadTimeout: time.Second})
		defer c.Close()
		s := &store{delay: time.Hour}
		if err := s.read(t.Context(), c, "k", 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read = %v", err)
		}
	})
}

func TestLoadsAreBounded(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want int64
	}{
		{Config{LoadsMax: 3}, 3},
		{Config{LoadsMax: 100, ChunkBytes: 1 << 20, LoadBytesMax: 5 << 20}, 5},
		{Config{LoadsMax: 100, ChunkBytes: 8 << 20, LoadBytesMax: 1 << 20}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			cache := openMemory(t, c.cfg)
			defer cache.Close()
			s := &store{delay: time.Second}
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if err := s.read(t.Context(), cache, "k", int64(i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if s.most.Load() != c.want {
				t.Errorf("%d loads at once, want %d", s.most.Load(), c.want)
			}
		})
	}
}

// TestPrefetchLeavesRoom: however much is prefetched, a reader that waits is
// served at once.
func TestPrefetchLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{LoadsMax: 4})
		defer c.Close()
		s := &store{delay: 10 * time.Second}
		for i := range 10 {
			c.Prefetch(t.Context(), "ahead", int64(i), s.load("ahead", int64(i)))
			c.Prefetch(t.Context(), "ahead", int64(i), s.load("ahead", int64(i)))
		}
		synctest.Wait()
		if s.loads.Load() != 2 {
			t.Errorf("%d prefetches at once, want 2", s.loads.Load())
		}
		start := time.Now()
		if err := s.read(t.Context(), c, "now", 0); err != nil || time.Since(start) != s.delay {
			t.Errorf("a reader waited %v behind prefetches, %v", time.Since(start), err)
		}
		loads := s.loads.Load()
		if err := s.read(t.Context(), c, "ahead", 1); err != nil || s.loads.Load() != loads {
			t.Errorf("what was prefetched was loaded again: %v", err)
		}
		// A reader that joins a prefetch and gives up leaves it running.
		c.Prefetch(t.Context(), "later", 0, s.load("later", 0))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = s.read(short, c, "later", 0)
		time.Sleep(s.delay)
		loads = s.loads.Load()
		if err := s.read(t.Context(), c, "later", 0); err != nil || s.loads.Load() != loads {
			t.Errorf("the prefetch ended with its first reader: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{})
		s := &store{delay: time.Hour}
		c.Prefetch(t.Context(), "ahead", 0, s.load("ahead", 0))
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.read(t.Context(), c, "k", 0); !errors.Is(err, ErrClosed) {
				t.Errorf("a waiting reader: %v", err)
			}
		})
		synctest.Wait()
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if s.running.Load() != 0 {
			t.Error("a load runs after Close")
		}
		if err := s.read(t.Context(), c, "k", 0); !errors.Is(err, ErrClosed) {
			t.Errorf("a late reader: %v", err)
		}
		c.Prefetch(t.Context(), "k", 0, s.load("k", 0))
	})
}

func TestDrop(t *testing.T) {
	c := openMemory(t, Config{})
	defer c.Close()
	s := &store{}
	for range 2 {
		if err := s.read(t.Context(), c, "k", 0); err != nil {
			t.Fatal(err)
		}
	}
	c.Drop("k", 0)
	if err := s.read(t.Context(), c, "k", 0); err != nil || s.loads.Load() != 2 {
		t.Errorf("%v, %d loads", err, s.loads.Load())
	}
}

func TestConfig(t *testing.T) {
	if _, err := Open(Config{DiskBytes: 1}); err == nil {
		t.Error("a disk without a directory")
	}
	if _, err := Open(Config{MemoryBytes: -1}); err == nil {
		t.Error("a negative size")
	}
}
