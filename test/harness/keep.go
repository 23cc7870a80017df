package harness

import (
	"os"
	"path/filepath"
)

// Keep is the path for a file that explains a failure, a history for one. It is
// where the logs of t are kept; when nobody keeps logs, the file outlives a test
// that failed in a directory of its own, which is named.
func Keep(t T, name string) string {
	t.Helper()
	path := filepath.Join(logDir(t), name)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		if os.Getenv("TIDEMARK_TEST_LOGS") == "" {
			path = rescue(t, path)
		}
		t.Logf("%s is kept as %s", name, path)
	})
	return path
}

// rescue copies a file out of a directory that ends with the test.
func rescue(t T, path string) string {
	dir, err := os.MkdirTemp("", "tidemark-failed-")
	if err != nil {
		t.Logf("%v", err)
		return path
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.Base(path)), data, 0o644)
	}
	if err != nil {
		t.Logf("%v", err)
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}
