package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

// buildMax bounds a build from nothing.
const buildMax = 15 * time.Minute

// buildBroker builds another broker than the shipped one, beside the tree's
// other build products, and returns its path. The build cache makes the second
// time short.
func buildBroker(t *testing.T, name string, flags ...string) string {
	t.Helper()
	harness.System(t)
	goTool, err := exec.LookPath("go")
	if err != nil {
		harness.Missing(t, "go")
	}
	root := harness.Root(t)
	path := filepath.Join(root, ".build", "chaos", name)
	begun := time.Now()
	args := append([]string{"build", "-trimpath", "-o", path}, flags...)
	_, err = harness.Command{
		Path: goTool, Args: append(args, "./cmd/tidemark"), Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0"), Limit: buildMax,
	}.Run()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	t.Logf("built %s in %v", name, milli(time.Since(begun)))
	return path
}
