//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Enabled tells whether this program has failpoints.
const Enabled = true

// armory is what is armed in this process.
type armory struct {
	mu  sync.Mutex // guards what follows
	dir string
	// armed are the points of the environment, files those armed by a file, with
	// the file they were read from: another file arms anew.
	armed map[Point]*Spec
	files map[Point]*armedFile
	hook  func(Point) error
	act   func(Action) // tests replace it
}

type armedFile struct {
	info os.FileInfo
	spec Spec
}

// own is this process's. Points are hit from everywhere, and a process has one
// environment.
var own = sync.OnceValue(func() *armory {
	specs, err := parseArmed(os.Getenv(EnvArmed))
	if err != nil {
		panic(err) // a test that arms nothing would show nothing
	}
	a := &armory{dir: os.Getenv(EnvDir), armed: make(map[Point]*Spec), files: make(map[Point]*armedFile), act: act}
	for p, s := range specs {
		a.armed[p] = &s
	}
	return a
})

// Hit is where a point is. It returns an error that wraps ErrInjected if the
// point is armed with Error and it is its turn.
func Hit(p Point) error { return own().hit(p) }

// Hook has f called at every point of this process first, until the function it
// returns is called: for tests that run several brokers in one process.
func Hook(f func(Point) error) (undo func()) {
	a := own()
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.hook
	a.hook = f
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.hook = before
	}
}

func (a *armory) hit(p Point) error {
	a.mu.Lock()
	hook := a.hook
	action, due := a.due(p)
	a.mu.Unlock()
	if hook != nil {
		if err := hook(p); err != nil {
			return err
		}
	}
	switch {
	case !due:
		return nil
	case action == Error:
		return fmt.Errorf("%w: %s", ErrInjected, p)
	}
	a.act(action)
	return nil
}

// due counts a hit and tells whether it acts. What it leaves on disk is there
// before the process dies of it.
func (a *armory) due(p Point) (Action, bool) {
	if s := a.armed[p]; s != nil {
		act := s.turn()
		if s.Count == 0 {
			delete(a.armed, p)
		}
		if act {
			a.report(p, s.Action)
			return s.Action, true
		}
	}
	s := a.fromFile(p)
	if s == nil || !s.turn() {
		return "", false
	}
	if s.Count == 0 {
		delete(a.files, p)
		_ = os.Remove(filepath.Join(a.dir, string(p))) // else it acts again, which a test sees
	}
	a.report(p, s.Action)
	return s.Action, true
}

// turn counts a hit.
func (s *Spec) turn() bool {
	if s.Skip > 0 {
		s.Skip--
		return false
	}
	if s.Count == 0 {
		return false
	}
	s.Count--
	return true
}

func (a *armory) fromFile(p Point) *Spec {
	if a.dir == "" {
		return nil
	}
	path := filepath.Join(a.dir, string(p))
	info, err := os.Stat(path)
	if err != nil {
		delete(a.files, p)
		return nil
	}
	if f := a.files[p]; f != nil && os.SameFile(f.info, info) && f.info.ModTime().Equal(info.ModTime()) {
		return &f.spec
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil // disarmed this moment
	}
	spec, err := ParseSpec(string(text))
	if err != nil {
		panic(err)
	}
	a.files[p] = &armedFile{info, spec}
	return &a.files[p].spec
}

func (a *armory) report(p Point, action Action) {
	if a.dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(a.dir, firedFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err) // whoever armed it would believe that it was never reached
	}
	fmt.Fprintf(f, "%s %s %s\n", p, action, time.Now().Format(time.RFC3339Nano))
	f.Close()
}

// act sends the own process a signal and does not return before it has arrived.
func act(a Action) {
	sig := syscall.SIGKILL
	if a == Stop {
		sig = syscall.SIGSTOP
	}
	if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
		panic(err)
	}
	if a == Kill {
		select {} // the signal is on its way
	}
	// A stop takes effect a moment after kill returns, on some thread; what
	// follows the point must not run before it.
	time.Sleep(50 * time.Millisecond)
}
