package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// failedPause is how long nothing is written after a write failed.
	failedPause = time.Minute
	// fullPause is how long the cache keeps to the space it found when the
	// file system was full, before it tries to grow again.
	fullPause = time.Minute
)

const (
	logError = "error"
	logDir   = "dir"
	logPath  = "path"
	logBytes = "bytes"
)

// disk is the layer of chunk files. Any number of goroutines read; one writes.
//
// Invariant: the files' sizes sum up to at most policy.bytes, plus the one being
// written, for which room has been made; together at most the limit. So a file
// is deleted before its entry is removed for good.
type disk struct {
	dir   string
	limit int64 // as configured
	// fileMax is the largest file this cache writes, and so the most memory a
	// read takes, whatever is found in the directory.
	fileMax int64
	m       *metrics
	logger  *slog.Logger
	lock    *os.File
	write   func(path string, parts ...[]byte) error // replaced in tests

	mu         sync.Mutex // guards the fields below; never held across I/O
	policy     *policy
	stuckBytes int64     // of files that could not be deleted
	pausedTill time.Time // nothing is written before
	fullTill   time.Time // policy.limit is below limit until then
	failing    bool      // the last write failed; logged
}

// get returns a chunk's bytes, or nil.
func (d *disk) get(key string, index int64) []byte {
	id := idOf(key, index)
	d.mu.Lock()
	e := d.policy.read(id)
	d.mu.Unlock()
	if e == nil {
		return nil
	}
	b, err := d.readFile(e)
	if err == nil {
		var data []byte
		if data, err = decodeChunk(b, key, index); err == nil {
			return data
		}
	}
	d.failedRead(e, err)
	return nil
}

// has tells whether there is a file for the chunk, without reading it.
func (d *disk) has(key string, index int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy.find(idOf(key, index)) != nil
}

func (d *disk) readFile(e *entry) ([]byte, error) {
	f, err := os.Open(d.path(e))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, e.size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if n, _ := f.Read(make([]byte, 1)); n != 0 {
		return nil, fmt.Errorf("%w: longer than written", errDamaged)
	}
	return b, nil
}

// failedRead forgets a chunk that is gone or damaged. Other failures, such as
// too many open files, say nothing about it.
func (d *disk) failedRead(e *entry, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.drop(e) // evicted since, or deleted by somebody
	case errors.Is(err, errDamaged):
		d.m.errors.WithLabelValues(errorCorrupt).Inc()
		d.logger.Warn("dropped a damaged chunk", logPath, d.path(e), logError, err)
		d.drop(e)
	default:
		d.m.errors.WithLabelValues(errorRead).Inc()
	}
}

// forget drops a chunk that its reader found wrong.
func (d *disk) forget(key string, index int64) {
	d.mu.Lock()
	e := d.policy.find(idOf(key, index))
	d.mu.Unlock()
	if e != nil {
		d.drop(e)
	}
}

// drop deletes a chunk file, then its entry.
func (d *disk) drop(e *entry) {
	ok := d.unlink(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policy.remove(e) && !ok {
		d.stuckLocked(e.size)
	}
	d.heldLocked()
}

// put writes a chunk, and makes room for it first. Only the writer calls it.
func (d *disk) put(key string, index int64, data []byte) {
	id, size := idOf(key, index), int64(headerBytes(key)+len(data))
	victims, ok := d.reserve(id, size)
	for _, v := range victims {
		d.m.evictions.WithLabelValues(layerDisk).Inc()
		ok = d.evicted(v) && ok
	}
	if !ok {
		return
	}
	e := &entry{id: id, size: size}
	if err := d.write(d.path(e), encodeHeader(key, index, data), data); err != nil {
		d.failedWrite(e, err)
		return
	}
	d.written(e)
}

// reserve decides whether a chunk is written, and what has to go for it.
func (d *disk) reserve(id chunkID, size int64) (victims []*entry, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if now.Before(d.pausedTill) {
		d.m.dropped.WithLabelValues(droppedDegraded).Inc()
		return nil, false
	}
	if !now.Before(d.fullTill) {
		d.policy.limit = d.limit - d.stuckBytes
	}
	if d.policy.find(id) != nil {
		return nil, false
	}
	return d.policy.makeRoom(size)
}

// evicted deletes a victim's file.
func (d *disk) evicted(e *entry) bool {
	if d.unlink(e) {
		return true
	}
	d.m.errors.WithLabelValues(errorWrite).Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stuckLocked(e.size)
	d.pausedTill = time.Now().Add(failedPause)
	return false
}

// stuckLocked gives up bytes that could not be freed.
func (d *disk) stuckLocked(size int64) {
	d.stuckBytes += size
	d.policy.limit -= size
}

func (d *disk) written(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy.add(e.id, e.size)
	d.heldLocked()
	if d.failing {
		d.failing = false
		d.m.degraded.Set(0)
		d.logger.Info("disk cache can be written again", logDir, d.dir)
	}
}

// failedWrite stops writing for a while, so that a broken disk is not asked
// with every chunk. A full file system only makes the cache smaller: it keeps
// to the space it has, and writes go on by evicting.
func (d *disk) failedWrite(e *entry, err error) {
	d.m.errors.WithLabelValues(errorWrite).Inc()
	ok := d.unlink(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !ok {
		d.stuckLocked(e.size)
	}
	now := time.Now()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		d.policy.limit, d.fullTill = d.policy.bytes, now.Add(fullPause)
	} else {
		d.pausedTill = now.Add(failedPause)
	}
	d.m.degraded.Set(1)
	if !d.failing {
		d.failing = true
		d.logger.Warn("disk cache cannot be written; reads go on", logDir, d.dir, logError, err,
			logBytes, d.policy.bytes)
	}
}

func (d *disk) heldLocked() { d.m.held(layerDisk, d.policy.bytes+d.stuckBytes, len(d.policy.entries)) }

func (d *disk) path(e *entry) string { return filepath.Join(d.dir, fileName(e.id, e.size)) }

// unlink deletes a chunk file and reports whether it is gone.
func (d *disk) unlink(e *entry) bool {
	err := os.Remove(d.path(e))
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// writeFile writes a new file in place, and its directory if need be.
func writeFile(path string, parts ...[]byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	}
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			_ = f.Close()
			return err
		}
	}
	return f.Close()
}
