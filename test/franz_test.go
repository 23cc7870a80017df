package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

// foreignSkipped are franz-go's tests of what is not offered yet: transactions,
// authentication and share groups. It tests groups of both protocols.
const foreignSkipped = "^TestTxnEtl$|^TestSCRAM|^TestShare"

// TestFranzGo runs the client's own tests against a cluster of ours.
func TestFranzGo(t *testing.T) {
	harness.System(t)
	gobin, err := exec.LookPath("go")
	if err != nil {
		harness.Missing(t, "go")
	}
	c := harness.StartCluster(t, harness.Options{})
	records := "5000"
	if harness.Long() {
		records = "500000"
	}
	cmd := harness.Command{
		Path: gobin,
		Args: []string{"test", "-count=1", "-timeout", "20m", "-json", "-skip", foreignSkipped, "./pkg/kgo"},
		Dir:  copyModule(t, gobin, "github.com/twmb/franz-go"),
		Env: append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "KGO_SEEDS="+c.Bootstrap(), "KGO_TEST_RF=1",
			"KGO_TEST_RECORDS="+records, "KGO_TEST_STABLE_FETCH=true", "KGO_LOG_LEVEL=none"),
		Limit: 21 * time.Minute,
	}
	out, err := cmd.Run()
	passed := regexp.MustCompile(`(?m)"Action":"pass".*"Test":"([^"/]+)"`).FindAllSubmatch(out.Stdout, -1)
	failed := regexp.MustCompile(`(?m)"Action":"fail".*"Test":"([^"]+)"`).FindAllSubmatch(out.Stdout, -1)
	for _, f := range failed {
		t.Errorf("%s failed", f[1])
	}
	figure(t, "franz-go's tests: %d passed, %d failed", len(passed), len(failed))
	if err != nil {
		t.Errorf("%v\n%s", err, failureLines(string(out.Stdout)))
	}
	if !strings.Contains(string(out.Stdout), `"Action":"pass","Package":"github.com/twmb/franz-go/pkg/kgo","Test":"TestGroupETL"`) {
		t.Error("TestGroupETL did not pass")
	}
}

// copyModule puts a writable copy of a dependency's source into a directory.
func copyModule(t *testing.T, gobin, module string) string {
	t.Helper()
	out, err := harness.Command{Path: gobin, Args: []string{"list", "-m", "-f", "{{.Dir}}", module}}.Run()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "module")
	if err := os.CopyFS(dir, os.DirFS(strings.TrimSpace(string(out.Stdout)))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// failureLines are the lines of test output that tell what failed.
func failureLines(output string) string {
	var kept []string
	for _, line := range strings.Split(output, "\n") {
		if strings.Contains(line, `"Action":"output"`) && (strings.Contains(line, "_test.go:") || strings.Contains(line, "panic") || strings.Contains(line, "--- FAIL")) {
			kept = append(kept, line)
		}
	}
	if len(kept) > 60 {
		kept = kept[:60]
	}
	return strings.Join(kept, "\n")
}
