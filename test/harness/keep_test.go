package harness

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// failing is a test that has failed, with its clean-ups in our hands.
type failing struct {
	*testing.T
	cleanups []func()
	logged   string
}

func (f *failing) Failed() bool                    { return true }
func (f *failing) Cleanup(c func())                { f.cleanups = append(f.cleanups, c) }
func (f *failing) Logf(format string, args ...any) { f.logged += fmt.Sprintf(format, args...) }

func TestWhatExplainsAFailureIsKept(t *testing.T) {
	for _, logs := range []string{"", t.TempDir()} {
		t.Setenv("TIDEMARK_TEST_LOGS", logs)
		t.Setenv("TMPDIR", t.TempDir())
		f := &failing{T: t}
		path := Keep(f, "story")
		if err := os.WriteFile(path, []byte("what happened"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.cleanups {
			c()
		}
		_, kept, _ := strings.Cut(f.logged, "story is kept as ")
		if data, err := os.ReadFile(kept); err != nil || string(data) != "what happened" {
			t.Errorf("logs %q, said %q: %q, %v", logs, f.logged, data, err)
		}
		if logs == "" && kept == path {
			t.Error("a file that ends with the test is no help")
		}
	}
}
