package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// errNotDir tells that a parent of a key is itself an object.
var errNotDir = unix.ENOTDIR

// durableMax bounds how many directories are remembered as durable. A forgotten
// one costs one sync of its parent.
const durableMax = 1 << 16

// dirs makes directories and their entries durable.
type dirs struct {
	root     string // durable from the start
	syncFile func(*os.File) error

	mu sync.Mutex // guards the fields below; never held across I/O
	// durable holds directories whose own entry in their parent has been
	// synced. Directories are never removed, so it never becomes wrong.
	durable map[string]struct{}
	syncs   map[string]*dirSync
}

// dirSync is the syncing of one directory: at most one sync runs and at most
// one waits to run, joined by all who ask meanwhile.
// Invariant: an entry of syncs has a running sync.
type dirSync struct {
	running *syncRun
	waiting *syncRun
}

type syncRun struct {
	done chan struct{} // closed when err is set
	err  error
}

func newDirs(root string, syncFile func(*os.File) error) *dirs {
	return &dirs{
		root:     root,
		syncFile: syncFile,
		durable:  make(map[string]struct{}),
		syncs:    make(map[string]*dirSync),
	}
}

// ensure makes dir, a descendant of root, and its parents, and makes sure that
// the loss of power leaves them in place. It cannot tell a directory that was
// there before from one that a racing call has just made, so it syncs the
// parent of each directory that is not known to be durable.
func (d *dirs) ensure(dir string) error {
	if dir == d.root || d.isDurable(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := d.ensure(parent); err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := d.sync(parent); err != nil {
		return err
	}
	d.setDurable(dir)
	return nil
}

func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o750)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s: %w", dir, errNotDir)
	}
	return err
}

func (d *dirs) isDurable(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.durable[dir]
	return ok
}

func (d *dirs) setDurable(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.durable) >= durableMax {
		clear(d.durable)
	}
	d.durable[dir] = struct{}{}
}

// sync returns when a sync of dir that began after the call has ended. Callers
// that come while one runs share the next.
func (d *dirs) sync(dir string) error {
	run, previous, mine := d.join(dir)
	if !mine {
		<-run.done
		return run.err
	}
	if previous != nil {
		<-previous.done
	}
	run.err = d.syncDir(dir)
	d.next(dir)
	close(run.done)
	return run.err
}

// join finds the run that covers the caller. mine tells that the caller is to
// execute it, once previous is done.
func (d *dirs) join(dir string) (run, previous *syncRun, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.syncs[dir]
	switch {
	case s == nil:
		run = &syncRun{done: make(chan struct{})}
		d.syncs[dir] = &dirSync{running: run}
		return run, nil, true
	case s.waiting == nil:
		s.waiting = &syncRun{done: make(chan struct{})}
		return s.waiting, s.running, true
	default:
		return s.waiting, nil, false
	}
}

// next makes the waiting run the running one. From here on it may begin, so
// nobody joins it any more.
func (d *dirs) next(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.syncs[dir]
	if s.waiting == nil {
		delete(d.syncs, dir)
		return
	}
	s.running, s.waiting = s.waiting, nil
}

// syncDir syncs dir. A directory that cannot be opened has not failed to sync:
// the caller's outcome is unknown, and it may ask again.
func (d *dirs) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.syncFile(f)
}
