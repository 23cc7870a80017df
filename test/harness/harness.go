// Package harness runs real servers for the whole-system tests and the
// benchmarks: MinIO, etcd and brokers, each a process of its own on free
// loopback ports, with its output in a file that is shown when a test fails.
//
// Vocabulary: a process is one run of one program; a server (MinIO, Etcd,
// Broker) keeps its ports and directories over many processes, so it can be
// killed, wiped and started again at the same address. A cluster is one MinIO,
// some etcd members and some brokers; an embedded broker needs neither.
//
// Everything is torn down when the test ends. Should the test binary die first,
// the kernel kills what it started.
//
// Programs that are not Tidemark's come from $TIDEMARK_TOOLS (make tools). One
// that is missing skips the test, with the reason, and fails it when CI is set.
package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// T is what the harness needs of a test; *testing.T has it, and so has the
// benchmarks' own.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	Failed() bool
	TempDir() string
}

// System marks a whole-system test: it is skipped by the fast loop.
func System(t T) {
	t.Helper()
	if testing.Testing() && testing.Short() {
		t.Skipf("a whole-system test; the fast loop leaves it out")
	}
}

// Long tells whether the long forms of tests were asked for.
func Long() bool { return os.Getenv("TIDEMARK_TEST_LONG") != "" }

// Missing skips the test, or fails it when CI is set.
func Missing(t T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("missing dependency: "+format, args...)
	}
	t.Skipf("missing dependency: "+format, args...)
}

// Tools is the directory `make tools` fills.
func Tools() string {
	if dir := os.Getenv("TIDEMARK_TOOLS"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".cache", "tidemark", "tools")
}

// Tool is the path of a program or directory in Tools, or of a program on PATH.
func Tool(t T, name string) string {
	t.Helper()
	path := filepath.Join(Tools(), name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s; run make tools", name)
	}
	return path
}

// Binary is the broker that was built, $TIDEMARK_BIN or bin/tidemark in the tree.
func Binary(t T) string {
	t.Helper()
	if path := os.Getenv("TIDEMARK_BIN"); path != "" {
		return path
	}
	path := filepath.Join(Root(t), "bin", "tidemark")
	if _, err := os.Stat(path); err != nil {
		Missing(t, "%s; run make build", path)
	}
	return path
}

// Root is the top of the source tree.
func Root(t T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("working directory: %v", err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatalf("no go.mod above the working directory")
	return ""
}
