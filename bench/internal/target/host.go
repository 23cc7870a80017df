package target

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

// Host gives the harness what it expects of a test.
type Host struct {
	cleanups []func()
	failure  error
}

// Run calls body and then everything it left to clean up, last first.
func (h *Host) Run(body func() error) error {
	done := make(chan error)
	go func() {
		defer close(done)
		if err := body(); err != nil {
			h.failure = errors.Join(h.failure, err)
		}
	}()
	// The harness fails by ending its goroutine, as a test would.
	<-done
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
	return h.failure
}

func (h *Host) Helper()          {}
func (h *Host) Name() string     { return "bench" }
func (h *Host) Failed() bool     { return h.failure != nil }
func (h *Host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *Host) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (h *Host) Fatalf(format string, args ...any) {
	h.failure = fmt.Errorf(format, args...)
	runtime.Goexit()
}

func (h *Host) Skipf(format string, args ...any) { h.Fatalf(format, args...) }

func (h *Host) TempDir() string {
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		h.Fatalf("temporary directory: %v", err)
	}
	h.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
