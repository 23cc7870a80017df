package sim

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/seeded"
)

// seededSeeds is how many seeds have to show a bug. The rarest, one that takes
// a deposed coordinator whose write is still on its way, shows in one of thirty.
const seededSeeds = 150

// TestSeededBugsAreFound builds the simulation with one bug at a time and has it
// find each: a simulation that does not would not find the unknown ones. CI does
// two by turns, and all of them are done on request.
func TestSeededBugsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the simulation anew for each bug")
	}
	for _, bug := range byTurns(seeded.Bugs()) {
		t.Run(bug.ID, func(t *testing.T) {
			t.Parallel()
			if slices.Contains(ofTransactions, bug.ID) {
				huntInTheLog(t, bug)
				return
			}
			hunt(t, build(t, bug, "."), bug)
		})
	}
}

// ofTransactions are bugs that only transactions show, which the simulation's
// clients do not use: the tests of the log in front of a model have to find them.
var ofTransactions = []string{"B7", "B9"}

// build compiles the tests of a package with a bug.
func build(t *testing.T, bug seeded.Bug, pkg string) string {
	binary := filepath.Join(t.TempDir(), "seeded.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", bug.Tag, "-o", binary, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func huntInTheLog(t *testing.T, bug seeded.Bug) {
	cmd := exec.CommandContext(t.Context(), build(t, bug, "../../tiering"), "-test.run=^TestTxnModel$", "-test.v")
	cmd.Dir = "../../tiering"
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		t.Errorf("%s is not found by the model of transactions: %s", bug.ID, bug.What)
	case !errors.As(err, &exit) || !bytes.Contains(out, []byte("--- FAIL: TestTxnModel")):
		t.Fatalf("%v\n%s", err, out)
	}
}

// byTurns picks the bugs to look for: those that TIDEMARK_SEEDED names, or two
// that change from day to day.
func byTurns(bugs []seeded.Bug) []seeded.Bug {
	switch v := os.Getenv("TIDEMARK_SEEDED"); v {
	case "all":
		return bugs
	case "":
		day := time.Now().YearDay()
		return []seeded.Bug{bugs[2*day%len(bugs)], bugs[(2*day+1)%len(bugs)]}
	default:
		return slices.DeleteFunc(bugs, func(b seeded.Bug) bool { return !slices.Contains(strings.Split(v, ","), b.ID) })
	}
}

// hunt runs seeds until one breaks something. A panic in a broker is found, too.
func hunt(t *testing.T, binary string, bug seeded.Bug) {
	var seeds []string
	for seed := 1; seed <= seededSeeds; seed++ {
		seeds = append(seeds, strconv.Itoa(seed))
	}
	begun := time.Now()
	o := runSeeds(t, binary, seeds, stopEnv+"=1", "TIDEMARK_ARTIFACTS="+t.TempDir())
	found := func(seed any, what string) {
		t.Logf("%s, %s: found by seed %v in %v: %s", bug.ID, bug.What, seed, time.Since(begun).Round(time.Second), what)
	}
	n := len(o.results)
	switch {
	case o.crash != nil && o.crash.product:
		found(o.crash.seed, o.crash.String())
	case o.err == nil:
		t.Errorf("%s is not found by %d seeds: %s", bug.ID, n, bug.What)
	case n == 0 || len(o.results[n-1].Broken) == 0:
		t.Fatalf("%v\n%s", o.err, o.said)
	default:
		found(o.results[n-1].Seed, o.results[n-1].Broken[0])
	}
}
