// Package file keeps a bucket as files under one directory of one machine, with
// the durability a bucket has: what Create answered survives the loss of power.
//
//	<dir>/lock           locked while the store is open
//	<dir>/tmp/           objects being written; emptied when the store opens
//	<dir>/objects/<key>  one file per object, never written in place
//
// Create writes a temporary file, syncs it, links it to its name, which fails if
// the name is taken, and syncs the directory, and before that the parent of each
// directory it had to make. The same directory sync comes before ErrExists, so
// that a caller who meets its own earlier attempt rests on nothing unsynced.
//
// A sync that failed is never tried again: the kernel may have dropped the dirty
// pages and would report success. The store calls Config.OnSyncFailure, which
// ends the process; on the next start one syncfs before any read makes sure that
// what is visible is also durable.
//
// Directories stay when their last object is deleted.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/tidemark-io/tidemark/tiering/object"
)

var (
	_ object.Store   = (*Store)(nil)
	_ object.Checker = (*Store)(nil)
)

// ErrLocked is returned by Open when another process has the directory open.
var ErrLocked = errors.New("directory is in use by another process")

// errDamaged is what every Create returns after a failed sync, for the time
// until the process ends.
var errDamaged = errors.New("an earlier sync failed")

// Config says where the bucket is.
type Config struct {
	// Dir is made if it does not exist. It must lie on a local file system.
	Dir string
	// OnSyncFailure is called once a sync has failed, with no lock held. The
	// default logs the error and exits with status 1. If it returns, which is
	// for tests, the store creates nothing more.
	OnSyncFailure func(error)
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Store is a bucket in a directory. Use Open.
type Store struct {
	objects string // <dir>/objects
	tmp     string // <dir>/tmp
	lock    *os.File
	dirs    *dirs
	onFail  func(error)
	damaged atomic.Bool
	tmpSeq  atomic.Uint64
	ops     fileOps
}

// fileOps are the calls whose order and failures tests look at.
type fileOps struct {
	sync   func(*os.File) error
	syncfs func(dir string) error
}

// Open locks the directory, removes what an interrupted Create left, and makes
// everything that is visible durable. ErrLocked means another process has it.
func Open(cfg Config) (*Store, error) {
	return open(cfg, fileOps{sync: (*os.File).Sync, syncfs: syncfs})
}

func open(cfg Config, ops fileOps) (*Store, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open object directory %s: %w", cfg.Dir, err)
	}
	s := &Store{
		objects: filepath.Join(dir, "objects"),
		tmp:     filepath.Join(dir, "tmp"),
		onFail:  cfg.OnSyncFailure,
		ops:     ops,
	}
	if s.onFail == nil {
		s.onFail = exitOn(cfg.Logger)
	}
	s.dirs = newDirs(s.objects, s.syncFile)
	if err := s.start(dir); err != nil {
		return nil, fmt.Errorf("open object directory %s: %w", dir, err)
	}
	return s, nil
}

func exitOn(logger *slog.Logger) func(error) {
	if logger == nil {
		logger = slog.Default()
	}
	return func(err error) {
		logger.Error("sync of the object directory failed, exiting: what is on disk is unknown until the next start",
			"error", err)
		os.Exit(1)
	}
}

// start does what must be done before the first read.
func (s *Store) start(dir string) (err error) {
	for _, d := range []string{s.objects, s.tmp} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return err
		}
	}
	if s.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = s.lock.Close()
		}
	}()
	if err := removeFiles(s.tmp); err != nil {
		return fmt.Errorf("remove leftovers: %w", err)
	}
	if err := s.ops.syncfs(s.objects); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}

func removeFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close unlocks the directory. The store must not be in use.
func (s *Store) Close() error {
	return s.lock.Close()
}

// syncFile syncs f, and ends the process if that fails.
func (s *Store) syncFile(f *os.File) error {
	if s.damaged.Load() {
		return errDamaged
	}
	err := s.ops.sync(f)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("sync %s: %w", f.Name(), err)
	if s.damaged.CompareAndSwap(false, true) {
		s.onFail(err)
	}
	return err
}

func (s *Store) path(key string) string {
	return filepath.Join(s.objects, filepath.FromSlash(key))
}
