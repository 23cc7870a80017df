package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// Create implements object.Store.
func (s *Store) Create(ctx context.Context, key string, data ...[]byte) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	if _, err := object.CheckSize(data); err != nil {
		return err
	}
	if err := s.create(ctx, key, data); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

func (s *Store) create(ctx context.Context, key string, data [][]byte) error {
	if s.damaged.Load() {
		return errDamaged
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	path := s.path(key)
	dir := filepath.Dir(path)
	if err := s.dirs.ensure(dir); err != nil {
		return refuseNotDir(err)
	}
	if info, err := os.Lstat(path); err == nil { // spares the write; the link below decides
		return s.exists(dir, info)
	}
	tmp, err := s.writeTemp(data)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) //nolint:errcheck // a leftover is removed at the next start
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.bind(tmp, path)
}

// bind links tmp to path, unless path exists, and makes the entry durable.
func (s *Store) bind(tmp, path string) error {
	err := os.Link(tmp, path)
	dir := filepath.Dir(path)
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		return s.exists(dir, info)
	}
	if err != nil {
		return err
	}
	return s.dirs.sync(dir)
}

// exists answers ErrExists, once the entry that was met is durable.
func (s *Store) exists(dir string, info fs.FileInfo) error {
	if info.IsDir() {
		return fmt.Errorf("%w: the key is a directory of other keys", object.ErrRefused)
	}
	if err := s.dirs.sync(dir); err != nil {
		return err
	}
	return object.ErrExists
}

// writeTemp writes data to a new synced file and returns its path.
func (s *Store) writeTemp(data [][]byte) (path string, err error) {
	path = filepath.Join(s.tmp, strconv.FormatUint(s.tmpSeq.Add(1), 16))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return "", err
	}
	defer func() {
		_ = f.Close() // after a sync it has nothing left to report
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	for _, d := range data {
		if _, err := f.Write(d); err != nil {
			return "", err
		}
	}
	return path, s.syncFile(f)
}

// refuseNotDir marks the definite case of a key below another key's object.
func refuseNotDir(err error) error {
	if errors.Is(err, errNotDir) {
		return fmt.Errorf("%w: %w", object.ErrRefused, err)
	}
	return err
}
