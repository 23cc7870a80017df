package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/objecttest"
)

func openDir(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, OnSyncFailure: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return openDir(t, t.TempDir()) })
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "deep")
	s := openDir(t, dir)
	if err := s.Create(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open = %v, want ErrLocked", err)
	}
	leftover := filepath.Join(dir, "tmp", "1f")
	if err := os.WriteFile(leftover, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir)
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
	if got, err := s.Get(t.Context(), "a/b", 0, -1); err != nil || string(got) != "x" {
		t.Errorf("Get after reopening = %q, %v", got, err)
	}
}

func TestNoTempFilesStay(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	for range 2 {
		_ = s.Create(t.Context(), "a", []byte("x"))
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(entries) != 0 {
		t.Errorf("temporary files %v, %v", entries, err)
	}
}

// recorder stands for the disk: it notes what was synced and fails on demand.
type recorder struct {
	mu   sync.Mutex
	root string
	log  []string
	fail string // part of a path whose sync fails
}

func (r *recorder) ops() fileOps {
	return fileOps{
		sync: func(f *os.File) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			name := strings.TrimPrefix(f.Name(), r.root+"/")
			if strings.HasPrefix(name, "tmp/") {
				name = "data"
			}
			r.log = append(r.log, name)
			if r.fail != "" && strings.Contains(name, r.fail) {
				return errors.New("input/output error")
			}
			return nil
		},
		syncfs: func(string) error { r.log = append(r.log, "syncfs"); return nil },
	}
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

func openRecorded(t *testing.T, r *recorder, onFail func(error)) *Store {
	t.Helper()
	r.root = t.TempDir()
	s, err := open(Config{Dir: r.root, OnSyncFailure: onFail}, r.ops())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSyncOrder(t *testing.T) {
	r := &recorder{}
	s := openRecorded(t, r, func(err error) { t.Error(err) })
	step := func(what string, want ...string) {
		t.Helper()
		if got := r.take(); !slices.Equal(got, want) {
			t.Errorf("%s: synced %q, want %q", what, got, want)
		}
	}
	step("open", "syncfs")
	_ = s.Create(t.Context(), "a/b/c", []byte("x"))
	step("first create", "objects", "objects/a", "data", "objects/a/b")
	_ = s.Create(t.Context(), "a/b/d", []byte("x"))
	step("create beside it", "data", "objects/a/b")
	if err := s.Create(t.Context(), "a/b/c", []byte("y")); !errors.Is(err, object.ErrExists) {
		t.Errorf("Create = %v, want ErrExists", err)
	}
	step("exists", "objects/a/b")

	// Another process cannot be there, but one's own racing call can: the
	// directory exists, and whether its entry is durable is not known.
	if err := os.Mkdir(filepath.Join(r.root, "objects", "z"), 0o750); err != nil {
		t.Fatal(err)
	}
	_ = s.Create(t.Context(), "z/1", []byte("x"))
	step("create in a directory just made by another", "objects", "data", "objects/z")
}

func TestSyncFailure(t *testing.T) {
	for _, fail := range []string{"data", "objects/a"} {
		t.Run(fail, func(t *testing.T) {
			r := &recorder{fail: fail}
			var failures []error
			s := openRecorded(t, r, func(err error) { failures = append(failures, err) })
			r.take()
			if err := s.Create(t.Context(), "a/b", []byte("x")); err == nil || errors.Is(err, object.ErrExists) {
				t.Fatalf("Create = %v", err)
			}
			synced := r.take()
			if len(failures) != 1 {
				t.Fatalf("OnSyncFailure was called %d times", len(failures))
			}
			if n := len(slices.DeleteFunc(synced, func(s string) bool { return !strings.Contains(s, fail) })); n != 1 {
				t.Errorf("the failed sync was tried %d times", n)
			}
			r.fail = ""
			for _, key := range []string{"a/b", "c"} {
				if err := s.Create(t.Context(), key, []byte("x")); err == nil || errors.Is(err, object.ErrExists) {
					t.Errorf("Create(%s) after a failed sync = %v", key, err)
				}
			}
			if got := r.take(); len(got) != 0 {
				t.Errorf("synced %q after a failed sync", got)
			}
		})
	}
}

// TestSharedDirectorySync: creates that wait for a directory sync share the next
// one, and no create rests on a sync that began before its link.
func TestSharedDirectorySync(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	syncs := 0
	begun := make(chan []string, 100) // what the directory held when a sync of it began
	release := make(chan struct{})
	s, err := open(Config{Dir: dir}, fileOps{
		syncfs: func(string) error { return nil },
		sync: func(f *os.File) error {
			if !strings.HasSuffix(f.Name(), "/objects") {
				return nil
			}
			mu.Lock()
			syncs++
			mu.Unlock()
			entries, _ := os.ReadDir(f.Name())
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			begun <- names
			<-release
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	create := func(key string) {
		wg.Go(func() {
			if err := s.Create(context.Background(), key, []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	create("first")
	<-begun
	for _, key := range []string{"1", "2", "3", "4", "5"} {
		create(key)
	}
	waitFor(t, func() bool { // all five are linked
		entries, _ := os.ReadDir(filepath.Join(dir, "objects"))
		return len(entries) == 6
	})
	close(release)
	wg.Wait()
	if syncs < 2 || syncs > 4 {
		t.Errorf("%d directory syncs for 6 creates", syncs)
	}
	close(begun)
	var last []string
	for names := range begun {
		last = names
	}
	if len(last) != 6 {
		t.Errorf("the last sync began when %q were linked", last)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come true")
		}
	}
}

func TestKeyBelowAnObject(t *testing.T) {
	s := openDir(t, t.TempDir())
	if err := s.Create(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "a/b", []byte("x")); !errors.Is(err, object.ErrRefused) {
		t.Errorf("Create below an object = %v", err)
	}
	if err := s.Create(t.Context(), "d/e", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "d", []byte("x")); !errors.Is(err, object.ErrRefused) {
		t.Errorf("Create of a directory's name = %v", err)
	}
	if err := s.Delete(t.Context(), "d"); err != nil {
		t.Errorf("Delete of a directory's name = %v", err)
	}
	if got, err := s.Get(t.Context(), "d/e", 0, -1); err != nil || !bytes.Equal(got, []byte("x")) {
		t.Errorf("Get = %q, %v", got, err)
	}
}
