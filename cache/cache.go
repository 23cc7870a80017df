package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrClosed is returned to readers of a closed cache.
var ErrClosed = errors.New("cache is closed")

// Config says how much may be kept and where. Zero values mean the defaults.
type Config struct {
	// Dir is the cache's own directory. It is made if it does not exist.
	Dir string
	// Cluster names whose chunks these are; a directory of another is emptied.
	Cluster string
	// DiskBytes is the most the chunk files take, headers included. 0: no disk.
	DiskBytes int64
	// MemoryBytes is the most that chunks in memory take (default 128 MiB).
	// Readers may hold more: a chunk lives on until its last reader is done.
	MemoryBytes int64
	// ChunkBytes is the size of a chunk, what one load counts for (4 MiB).
	ChunkBytes int64
	// LoadsMax and LoadBytesMax bound the loads under way (16, and 64 MiB).
	// More keep a fast link busy and take memory and bandwidth from others.
	LoadsMax     int
	LoadBytesMax int64
	// LoadBytesPerSecond is the bandwidth of all loads together. 0: no limit.
	LoadBytesPerSecond int64
	// LoadTimeout ends a load that takes too long (30 s). A reader's own
	// deadline ends its waiting, not the load others wait for.
	LoadTimeout time.Duration
	// WriteQueue is how many chunks may wait to be written to disk (8). They
	// are in memory until then; what finds the queue full is not written.
	WriteQueue int

	Registerer prometheus.Registerer // nil: metrics are not exported
	Logger     *slog.Logger          // nil: slog.Default()
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c *Config) ensureDefaults() {
	setDefault(&c.MemoryBytes, 128<<20)
	setDefault(&c.ChunkBytes, 4<<20)
	setDefault(&c.LoadsMax, 16)
	setDefault(&c.LoadBytesMax, 64<<20)
	setDefault(&c.LoadTimeout, 30*time.Second)
	setDefault(&c.WriteQueue, 8)
	setDefault(&c.Logger, slog.Default())
}

func (c *Config) validate() error {
	var errs []error
	if c.DiskBytes > 0 && c.Dir == "" {
		errs = append(errs, errors.New("a disk cache needs a directory"))
	}
	if c.DiskBytes < 0 || c.MemoryBytes < 0 || c.ChunkBytes < 0 || c.LoadsMax < 0 ||
		c.LoadBytesMax < 0 || c.LoadBytesPerSecond < 0 || c.LoadTimeout < 0 || c.WriteQueue < 0 {
		errs = append(errs, errors.New("a size is negative"))
	}
	return errors.Join(errs...)
}

// entriesMax bounds the index in memory (about 200 bytes an entry): objects may
// be far smaller than a chunk, and then the number of files is the limit.
func (c *Config) entriesMax() int {
	const averageBytes = 32 << 10
	return int(min(max(c.DiskBytes/averageBytes, 1024), 1<<20))
}

// loadsMax is the number of loads that keep to both bounds.
func (c *Config) loadsMax() int {
	return max(1, min(c.LoadsMax, int(c.LoadBytesMax/c.ChunkBytes)))
}

// Cache is a cache of chunks. Use Open; Close it.
type Cache struct {
	cfg  Config
	m    *metrics
	disk *disk // nil: none

	loads     *turns        // a token for each load under way
	rate      *rate         // of what they load
	diskReads chan struct{} // holds a token for each read from disk
	writes    chan write
	quit      chan struct{}  // closed by Close
	running   sync.WaitGroup // flights and the writer

	mu      sync.Mutex // guards the fields below; never held across I/O
	memory  *memory
	flights map[chunkKey]*flight
	// prefetches are flights begun by Prefetch, and prefetching those of a reader.
	prefetches  int
	prefetching map[any]int
	closed      bool
}

// write is a chunk on its way to disk.
type write struct {
	key  chunkKey
	data []byte
}

// diskReadsMax bounds the memory of reads from disk.
const diskReadsMax = 16

// Open opens a cache. A directory that cannot be used, because it is read-only
// or broken, means a cache without disk, a warning and a metric; ErrLocked, and
// a configuration that makes no sense, are errors.
func Open(cfg Config) (*Cache, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	c := &Cache{
		cfg: cfg, m: newMetrics(cfg.Registerer),
		loads: newTurns(cfg.loadsMax()), rate: newRate(cfg.LoadBytesPerSecond), diskReads: make(chan struct{}, diskReadsMax),
		writes: make(chan write, cfg.WriteQueue), quit: make(chan struct{}),
		memory: newMemory(cfg.MemoryBytes), flights: make(map[chunkKey]*flight),
		prefetching: make(map[any]int),
	}
	if cfg.DiskBytes == 0 {
		return c, nil
	}
	d, err := openDisk(cfg, c.m)
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("open cache %s: %w", cfg.Dir, err)
	}
	if err != nil {
		c.m.degraded.Set(1)
		cfg.Logger.Warn("disk cache cannot be used; all reads beyond memory go to the store", logDir, cfg.Dir, logError, err)
		return c, nil
	}
	c.disk = d
	c.running.Go(c.writeLoop)
	return c, nil
}

// Close fails waiting readers, ends loads, and waits for both and for the file
// being written. Chunks that still wait to be written are dropped.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for _, f := range c.flights {
		f.cancel()
	}
	c.mu.Unlock()
	close(c.quit)
	c.running.Wait()
	if c.disk != nil {
		return c.disk.lock.Close()
	}
	return nil
}

// Drop forgets a chunk that its reader found to be wrong although its checksum
// held, so that the next reader loads it anew.
func (c *Cache) Drop(key string, index int64) {
	c.mu.Lock()
	c.memory.drop(chunkKey{key, index})
	c.heldLocked()
	c.mu.Unlock()
	if c.disk != nil {
		c.disk.forget(key, index)
	}
}

func (c *Cache) heldLocked() { c.m.held(layerMemory, c.memory.bytes, len(c.memory.chunks)) }

// offer hands a loaded chunk to the writer, if the writer keeps up.
func (c *Cache) offer(key chunkKey, data []byte) {
	if c.disk == nil || len(data) == 0 || int64(len(data)) > c.cfg.ChunkBytes || len(key.key) > keyBytesMax {
		return
	}
	c.m.unwritten.Inc()
	select {
	case c.writes <- write{key, data}:
	default:
		c.m.unwritten.Dec()
		c.m.dropped.WithLabelValues(droppedQueue).Inc()
	}
}

func (c *Cache) writeLoop() {
	for {
		select {
		case <-c.quit:
			return
		default:
		}
		select {
		case w := <-c.writes:
			c.disk.put(w.key.key, w.key.index, w.data)
			c.m.unwritten.Dec()
		case <-c.quit:
			return
		}
	}
}
