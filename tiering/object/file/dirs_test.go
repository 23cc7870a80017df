package file

import (
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
)

// steps is a directory whose syncs the test lets end one by one.
type steps struct {
	dirs  *dirs
	begun int
	end   chan error
}

func newSteps(t *testing.T) *steps {
	s := &steps{end: make(chan error)}
	s.dirs = newDirs(t.TempDir(), func(*os.File) error {
		s.begun++
		return <-s.end
	})
	return s
}

// TestSyncIsShared: who asks while a sync runs is served by the next one, which
// begins later, and all who ask meanwhile share it.
func TestSyncIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSteps(t)
		var wg sync.WaitGroup
		done := make([]bool, 6)
		ask := func(i int) {
			wg.Go(func() {
				if err := s.dirs.sync(s.dirs.root); err != nil {
					t.Error(err)
				}
				done[i] = true
			})
			synctest.Wait()
		}
		check := func(when string, begun int, want ...int) {
			t.Helper()
			synctest.Wait()
			served := 0
			for _, i := range want {
				if done[i] {
					served++
				}
			}
			total := 0
			for _, d := range done {
				if d {
					total++
				}
			}
			if s.begun != begun || served != len(want) || total != len(want) {
				t.Fatalf("%s: %d syncs begun, served %v; want %d, %v", when, s.begun, done, begun, want)
			}
		}
		ask(0)
		ask(1)
		ask(2)
		check("while the first runs", 1)
		s.end <- nil
		check("after the first", 2, 0)
		ask(3)
		ask(4)
		check("while the second runs", 2, 0)
		s.end <- nil
		check("after the second", 3, 0, 1, 2)
		s.end <- nil
		check("after the third", 3, 0, 1, 2, 3, 4)
		ask(5)
		s.end <- nil
		check("alone again", 4, 0, 1, 2, 3, 4, 5)
		wg.Wait()
		if len(s.dirs.syncs) != 0 {
			t.Error("an idle directory is kept")
		}
	})
}

// TestNoSyncAfterAFailure: who waits for the next sync when one fails must not
// be told that all is well.
func TestNoSyncAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := &steps{end: make(chan error)}
		failures := 0
		s := &Store{
			onFail: func(error) { failures++ },
			ops: fileOps{sync: func(*os.File) error {
				steps.begun++
				return <-steps.end
			}},
		}
		s.dirs = newDirs(t.TempDir(), s.syncFile)
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = s.dirs.sync(s.dirs.root) })
			synctest.Wait()
		}
		steps.end <- errors.New("input/output error")
		wg.Wait()
		for i, err := range errs {
			if err == nil {
				t.Errorf("caller %d was told success", i)
			}
		}
		if steps.begun != 1 || failures != 1 {
			t.Errorf("%d syncs, %d calls of OnSyncFailure", steps.begun, failures)
		}
	})
}
