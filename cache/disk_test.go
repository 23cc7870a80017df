package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"
)

// diskConfig has next to no memory, so that every read goes to the disk.
func diskConfig(t *testing.T, bytes int64) Config {
	t.Helper()
	return Config{Dir: t.TempDir(), Cluster: "one", DiskBytes: bytes, MemoryBytes: 1}
}

// drain waits until the writer has written what it was given.
func drain(t *testing.T, c *Cache) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); value(t, c.m.unwritten) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the writer does not finish")
		}
	}
}

func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetGauge().GetValue() + out.GetCounter().GetValue()
}

func filesIn(t *testing.T, dir string) (paths []string, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(path) == dir {
			return err
		}
		info, err := d.Info()
		if err == nil {
			paths, bytes = append(paths, path), bytes+info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths, bytes
}

// readAll reads chunks 0 to n-1 of key, and lets the writer keep up.
func readAll(t *testing.T, c *Cache, s *store, key string, n int) {
	t.Helper()
	for i := range n {
		if err := s.read(t.Context(), c, key, int64(i)); err != nil {
			t.Fatal(err)
		}
		drain(t, c)
	}
}

func TestDiskKeepsAcrossRestart(t *testing.T) {
	cfg := diskConfig(t, 1<<20)
	c := openMemory(t, cfg)
	s := &store{}
	readAll(t, c, s, "w/3f/1/2", 10)
	readAll(t, c, s, "w/3f/1/2", 10)
	if s.loads.Load() != 10 {
		t.Errorf("%d loads of 10 chunks", s.loads.Load())
	}
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("a second Open = %v", err)
	}
	held := value(t, c.m.bytes.WithLabelValues(layerDisk))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMemory(t, cfg)
	defer c.Close()
	if got := value(t, c.m.bytes.WithLabelValues(layerDisk)); got != held {
		t.Errorf("%v bytes after the restart, %v before", got, held)
	}
	readAll(t, c, s, "w/3f/1/2", 10)
	if s.loads.Load() != 10 {
		t.Errorf("%d loads after the restart", s.loads.Load())
	}
}

// TestDiskBound counts the bytes of all files after each write.
func TestDiskBound(t *testing.T) {
	const limit = 10_000
	cfg := diskConfig(t, limit)
	c := openMemory(t, cfg)
	defer c.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	most := int64(0)
	for i := range 300 {
		s := &store{size: rng.IntN(3000) + 1}
		if err := s.read(t.Context(), c, fmt.Sprintf("key%d", rng.IntN(40)), int64(i)); err != nil {
			t.Fatal(err)
		}
		drain(t, c)
		_, bytes := filesIn(t, cfg.Dir)
		if bytes > limit {
			t.Fatalf("%d bytes on disk, %d allowed", bytes, limit)
		}
		if held := int64(value(t, c.m.bytes.WithLabelValues(layerDisk))); held != bytes {
			t.Fatalf("%d bytes on disk, %d counted", bytes, held)
		}
		most = max(most, bytes)
	}
	if most < limit*8/10 {
		t.Errorf("never more than %d of %d bytes were used", most, limit)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.DiskBytes = limit / 2
	c = openMemory(t, cfg)
	defer c.Close()
	if _, bytes := filesIn(t, cfg.Dir); bytes > limit/2 || bytes == 0 {
		t.Errorf("%d bytes after the limit was lowered to %d", bytes, limit/2)
	}
}

// TestDamage: whatever happens to the files, readers get the right bytes.
func TestDamage(t *testing.T) {
	damage := map[string]func(path string, b []byte) error{
		"bit":       func(p string, b []byte) error { b[len(b)/2] ^= 4; return os.WriteFile(p, b, 0o600) },
		"header":    func(p string, b []byte) error { b[9] ^= 4; return os.WriteFile(p, b, 0o600) },
		"truncated": func(p string, b []byte) error { return os.Truncate(p, int64(len(b)/2)) },
		"empty":     func(p string, _ []byte) error { return os.Truncate(p, 0) },
		"longer":    func(p string, b []byte) error { return os.WriteFile(p, append(b, b...), 0o600) },
		"deleted":   func(p string, _ []byte) error { return os.Remove(p) },
		"swapped":   nil, // with another chunk's whole file
	}
	for name, change := range damage {
		for _, reopen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reopen %v", name, reopen), func(t *testing.T) {
				cfg := diskConfig(t, 1<<20)
				c := openMemory(t, cfg)
				s := &store{}
				readAll(t, c, s, "a", 4)
				paths, _ := filesIn(t, cfg.Dir)
				if len(paths) != 4 {
					t.Fatalf("files %v", paths)
				}
				if reopen {
					_ = c.Close()
				}
				for i, p := range paths {
					b, err := os.ReadFile(p)
					if err == nil && change != nil {
						err = change(p, b)
					} else if err == nil && i%2 == 1 {
						err = errors.Join(os.Rename(p, p+"x"), os.Rename(paths[i-1], p), os.Rename(p+"x", paths[i-1]))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if reopen {
					c = openMemory(t, cfg)
				}
				defer c.Close()
				readAll(t, c, s, "a", 4)
				if s.loads.Load() != 8 {
					t.Errorf("%d loads, want each chunk loaded again", s.loads.Load())
				}
				readAll(t, c, s, "a", 4)
				if s.loads.Load() != 8 {
					t.Error("the damaged chunks were not replaced")
				}
				if _, bytes := filesIn(t, cfg.Dir); bytes != int64(value(t, c.m.bytes.WithLabelValues(layerDisk))) {
					t.Errorf("%d bytes on disk, %v counted", bytes, value(t, c.m.bytes.WithLabelValues(layerDisk)))
				}
			})
		}
	}
}

func TestAnotherClustersDirectory(t *testing.T) {
	cfg := diskConfig(t, 1<<20)
	c := openMemory(t, cfg)
	s := &store{}
	readAll(t, c, s, "a", 3)
	_ = c.Close()
	foreign := filepath.Join(cfg.Dir, "00", "notes.txt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(foreign), 0o700), os.WriteFile(foreign, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	cfg.Cluster = "two"
	c = openMemory(t, cfg)
	defer c.Close()
	if paths, _ := filesIn(t, cfg.Dir); len(paths) != 1 || paths[0] != foreign {
		t.Errorf("files %v, want only the one that is not a chunk", paths)
	}
	readAll(t, c, s, "a", 3)
	if s.loads.Load() != 6 {
		t.Errorf("%d loads: chunks of another cluster were served", s.loads.Load())
	}
}

func TestUnusableDirectory(t *testing.T) {
	cfg := diskConfig(t, 1<<20)
	cfg.Dir = filepath.Join(cfg.Dir, "file")
	if err := os.WriteFile(cfg.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := openMemory(t, cfg)
	defer c.Close()
	if value(t, c.m.degraded) != 1 {
		t.Error("the metric does not tell")
	}
	s := &store{}
	readAll(t, c, s, "a", 3)
}

// TestFullAndBrokenDisk: a file system that fills up makes the cache smaller,
// one that fails makes it pause; readers notice neither.
func TestFullAndBrokenDisk(t *testing.T) {
	for _, failure := range []error{unix.ENOSPC, unix.EROFS} {
		t.Run(failure.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := diskConfig(t, 100_000)
				c := openMemory(t, cfg)
				defer c.Close()
				var mu sync.Mutex
				room := int64(5000) // on the file system
				c.disk.write = func(path string, parts ...[]byte) error {
					mu.Lock()
					defer mu.Unlock()
					_, used := filesIn(t, cfg.Dir)
					for _, p := range parts {
						used += int64(len(p))
					}
					if used > room {
						_ = writeFile(path, parts[0]) // cut short
						return &fs.PathError{Op: "write", Path: path, Err: failure}
					}
					return writeFile(path, parts...)
				}
				s := &store{}
				readAll(t, c, s, "a", 20)
				_, bytes := filesIn(t, cfg.Dir)
				if bytes > room || bytes < room/2 {
					t.Errorf("%d bytes on a file system with room for %d", bytes, room)
				}
				if held := int64(value(t, c.m.bytes.WithLabelValues(layerDisk))); held != bytes {
					t.Errorf("%d bytes on disk, %d counted", bytes, held)
				}
				last := filepath.Join(cfg.Dir, fileName(idOf("a", 19), int64(headerBytes("a")+1000)))
				_, err := os.Stat(last)
				if full := failure == unix.ENOSPC; full != (err == nil) {
					t.Errorf("the chunk read last is on disk: %v", err == nil)
				}
				mu.Lock()
				room = 1 << 20
				mu.Unlock()
				time.Sleep(2 * fullPause)
				readAll(t, c, s, "b", 20)
				if _, bytes := filesIn(t, cfg.Dir); bytes < 20_000 {
					t.Errorf("%d bytes after the file system has room again", bytes)
				}
				if value(t, c.m.degraded) != 0 {
					t.Error("still called degraded")
				}
			})
		})
	}
}

// TestUndeletableFiles: bytes that cannot be freed stay counted.
func TestUndeletableFiles(t *testing.T) {
	cfg := diskConfig(t, 5000)
	c := openMemory(t, cfg)
	defer c.Close()
	s := &store{}
	readAll(t, c, s, "a", 4)
	paths, _ := filesIn(t, cfg.Dir)
	for _, p := range paths { // a directory that is not empty is not removed
		if err := errors.Join(os.Remove(p), os.MkdirAll(filepath.Join(p, "x"), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	readAll(t, c, s, "b", 10)
	if _, bytes := filesIn(t, cfg.Dir); bytes > 1100 {
		t.Errorf("%d bytes written beside 4 files of 1,000 that cannot be deleted, with a limit of 5,000", bytes)
	}
}

func TestWriterIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := diskConfig(t, 1<<20)
		cfg.WriteQueue = 2
		c := openMemory(t, cfg)
		release := make(chan struct{})
		c.disk.write = func(string, ...[]byte) error { <-release; return nil }
		s := &store{}
		for i := range 10 {
			if err := s.read(t.Context(), c, "a", int64(i)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := value(t, c.m.dropped.WithLabelValues(droppedQueue)); n != 7 {
			t.Errorf("%v chunks were not written, want 7", n)
		}
		close(release)
		_ = c.Close()
	})
}

func TestScanResistance(t *testing.T) {
	cfg := diskConfig(t, 100*1100)
	c := openMemory(t, cfg)
	defer c.Close()
	s := &store{}
	for range 3 {
		readAll(t, c, s, "hot", 20)
	}
	readAll(t, c, s, "backfill", 500)
	before := s.loads.Load()
	readAll(t, c, s, "hot", 20)
	if again := s.loads.Load() - before; again > 0 {
		t.Errorf("a scan displaced %d of 20 hot chunks", again)
	}
}

// TestConcurrent runs readers, drops and damage at once, under the race detector.
func TestConcurrent(t *testing.T) {
	cfg := diskConfig(t, 50_000)
	cfg.MemoryBytes = 20_000
	c := openMemory(t, cfg)
	s := &store{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 0))
			for range 300 {
				key, index := fmt.Sprint("k", rng.IntN(20)), rng.Int64N(5)
				switch rng.IntN(20) {
				case 0:
					c.Drop(key, index)
				case 1:
					c.Prefetch(t.Context(), key, index, s.load(key, index))
				case 2:
					path := filepath.Join(cfg.Dir, fileName(idOf(key, index), int64(headerBytes(key)+1000)))
					_ = os.Truncate(path, 100)
				default:
					if err := s.read(t.Context(), c, key, index); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	drain(t, c)
	if _, bytes := filesIn(t, cfg.Dir); bytes > cfg.DiskBytes {
		t.Errorf("%d bytes on disk", bytes)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	paths, _ := filesIn(t, cfg.Dir)
	for _, p := range paths {
		if strings.Contains(filepath.Base(p), ".") {
			t.Errorf("unexpected file %s", p)
		}
	}
}

// A chunk on disk is not brought into memory before somebody reads it.
func TestPrefetchLeavesDiskAlone(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Cluster: "one", DiskBytes: 1 << 20}
	s := &store{}
	c := openMemory(t, cfg)
	readAll(t, c, s, "k", 1)
	drain(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMemory(t, cfg)
	defer c.Close()
	c.Prefetch(t.Context(), "k", 0, s.load("k", 0))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.flights) != 0 || c.memory.has(chunkKey{"k", 0}) {
		t.Error("a chunk on disk was prefetched")
	}
}
