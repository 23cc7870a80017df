package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	if err := object.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	w := walk{store: s, prefix: prefix, after: after, limit: limit}
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if err := w.dir(ctx, dir); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return w.found, nil
}

// walk visits keys in order.
type walk struct {
	store         *Store
	prefix, after string
	limit         int
	found         []object.Info
}

// dir visits the directory dir, which is empty or ends in a slash.
func (w *walk) dir(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(w.found) >= w.limit {
		return nil
	}
	entries, err := os.ReadDir(w.store.path(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range inKeyOrder(entries) {
		if len(w.found) >= w.limit {
			return nil
		}
		if err := w.entry(ctx, dir+e.name, e.DirEntry); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, key string, e fs.DirEntry) error {
	if e.IsDir() {
		if w.mayHold(key) {
			return w.dir(ctx, key)
		}
		return nil
	}
	if key <= w.after || !strings.HasPrefix(key, w.prefix) || !e.Type().IsRegular() {
		return nil
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	w.found = append(w.found, object.Info{Key: key, Size: info.Size(), Modified: info.ModTime()})
	return nil
}

// mayHold reports whether dir, which ends in a slash, can hold a wanted key.
func (w *walk) mayHold(dir string) bool {
	if !strings.HasPrefix(dir, w.prefix) && !strings.HasPrefix(w.prefix, dir) {
		return false
	}
	return dir > w.after || strings.HasPrefix(w.after, dir)
}

// named is an entry with its part of the key: a directory's ends in a slash,
// which is what its keys sort by ("a-b" comes before "a/b").
type named struct {
	fs.DirEntry
	name string
}

func inKeyOrder(entries []fs.DirEntry) []named {
	list := make([]named, len(entries))
	for i, e := range entries {
		list[i] = named{DirEntry: e, name: e.Name()}
		if e.IsDir() {
			list[i].name += "/"
		}
	}
	slices.SortFunc(list, func(a, b named) int { return strings.Compare(a.name, b.name) })
	return list
}
