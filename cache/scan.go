package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned by Open when another process uses the directory.
var ErrLocked = errors.New("cache directory is in use by another process")

// openDisk prepares the directory and rebuilds the index from file names.
func openDisk(cfg Config, m *metrics) (*disk, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	d := &disk{
		dir: cfg.Dir, limit: cfg.DiskBytes, m: m, logger: cfg.Logger, lock: lock, write: writeFile,
		fileMax: cfg.ChunkBytes + headerBytesMax,
		policy:  newPolicy(cfg.DiskBytes, cfg.entriesMax()),
	}
	if err := d.restore(cfg.Cluster); err != nil {
		_ = lock.Close()
		return nil, err
	}
	d.heldLocked()
	return d, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// restore takes over what an earlier run of the same cluster left, and deletes
// chunk files of any other. It deletes nothing that is not named as a chunk.
func (d *disk) restore(cluster string) error {
	owner := filepath.Join(d.dir, "owner")
	want := fmt.Sprintf("tidemark-cache %d %s\n", formatVersion, cluster)
	got, err := os.ReadFile(owner)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := scan(d.dir)
	if err != nil {
		return err
	}
	if string(got) != want {
		if len(files) > 0 {
			d.logger.Info("cache directory is not of this cluster and version, emptying it", logDir, d.dir)
		}
		for _, f := range files {
			if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return os.WriteFile(owner, []byte(want), 0o640)
	}
	return d.adopt(files)
}

// chunkFile is a file with a chunk's name.
type chunkFile struct {
	path     string
	id       chunkID
	size     int64 // by its name
	actual   int64
	modified int64
}

// scan finds the chunk files. Their content is looked at when they are read.
func scan(dir string) ([]chunkFile, error) {
	var files []chunkFile
	for i := range 256 {
		sub := fmt.Sprintf("%02x", i)
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			id, size, ok := parseFileName(sub, e.Name())
			info, err := e.Info()
			if !ok || err != nil || !info.Mode().IsRegular() {
				continue
			}
			files = append(files, chunkFile{
				path: filepath.Join(dir, sub, e.Name()), id: id, size: size,
				actual: info.Size(), modified: info.ModTime().UnixNano(),
			})
		}
	}
	return files, nil
}

// adopt fills the index, newest files first until it is full, and deletes what
// was cut short or has no room.
func (d *disk) adopt(files []chunkFile) error {
	slices.SortFunc(files, func(a, b chunkFile) int { return cmp.Compare(b.modified, a.modified) })
	var keep []chunkFile
	var bytes int64
	seen := make(map[chunkID]bool)
	for _, f := range files {
		fits := f.size <= d.fileMax && bytes+f.size <= d.limit && len(keep) < d.policy.entriesMax
		if fits && f.size == f.actual && !seen[f.id] {
			keep, seen[f.id] = append(keep, f), true
			bytes += f.size
			continue
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, f := range slices.Backward(keep) {
		d.policy.restore(f.id, f.size)
	}
	d.logger.Info("disk cache opened", logDir, d.dir, slog.Int("chunks", len(keep)), slog.Int64(logBytes, bytes))
	return nil
}
