package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

// host gives the harness what it expects of a test.
type host struct {
	cleanups []func()
	failure  error
}

// run calls body and then everything it left to clean up, last first.
func (h *host) run(body func() error) error {
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

func (h *host) Helper()          {}
func (h *host) Name() string     { return "bench" }
func (h *host) Failed() bool     { return h.failure != nil }
func (h *host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *host) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (h *host) Fatalf(format string, args ...any) {
	h.failure = fmt.Errorf(format, args...)
	runtime.Goexit()
}

func (h *host) Skipf(format string, args ...any) { h.Fatalf(format, args...) }

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		h.Fatalf("temporary directory: %v", err)
	}
	h.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
