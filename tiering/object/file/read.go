package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if err := object.CheckKey(key); err != nil {
		return nil, err
	}
	if err := object.CheckRange(pos); err != nil {
		return nil, err
	}
	b, err := s.get(ctx, key, pos, length)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return b, nil
}

func (s *Store) get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(key))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, object.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, object.ErrNotFound
	}
	from, to := object.Span(info.Size(), pos, length)
	if to-from > object.SizeMax {
		return nil, fmt.Errorf("%w: range of %d bytes", object.ErrRefused, to-from)
	}
	b := make([]byte, to-from)
	if _, err := io.ReadFull(io.NewSectionReader(f, from, to-from), b); err != nil {
		return nil, err
	}
	return b, nil
}

// Delete implements object.Store. It syncs nothing: an object that a loss of
// power brings back is an orphan like any other.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	err := unix.Unlink(s.path(key)) // os.Remove would take an empty directory too
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR),
		errors.Is(err, unix.EISDIR): // a directory is no object
		return nil
	}
	return fmt.Errorf("delete %s: %w", key, err)
}

// Check implements object.Checker: files do not expire.
func (s *Store) Check(context.Context, []string, func(string, error)) error { return nil }
