package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark-io/tidemark/tiering/seeded"
)

// finding is what came of the hunt for one bug.
type finding struct {
	by    string        // the suite; empty: nothing found it
	after time.Duration // of looking
	what  string        // the first thing that was wrong
}

func (f finding) line(b seeded.Bug, took time.Duration) string {
	if f.by == "" {
		return fmt.Sprintf("%-7s NOT FOUND in %v (%s)", b.ID, f.after.Round(time.Second), b.What)
	}
	return fmt.Sprintf("%-7s found by %s after %v, %v with builds: %s", b.ID, f.by, f.after.Round(100*time.Millisecond), took.Round(time.Second), f.what)
}

// suite is one way to look for bugs.
type suite struct {
	name string
	pkg  string
	// share is the part of the limit, in percent, that the suite may use when
	// others come after it.
	share int
	// binary: the suite runs a broker, which is built with the bug.
	binary bool
	// rounds yields the arguments and the environment of one run after the other.
	rounds func(round int) (args, env []string)
}

// seedsARound keeps runs short, so that a bug is told of soon after it is found.
const seedsARound = 50

// txnSeeds is how many seeds the log's own tests run at a time.
const txnSeeds = 12

var suites = map[string]suite{
	// Transactions, in the log alone: a model and random schedules.
	"log": {name: "the log's own tests", pkg: "./tiering", share: 5, rounds: func(round int) (args, env []string) {
		return []string{"-test.run=^TestTxn"}, []string{"TIDEMARK_FIRST_SEED=" + strconv.Itoa(round*txnSeeds)}
	}},
	"sim": {name: "simulation", pkg: "./test/sim", share: 40, rounds: func(round int) (args, env []string) {
		return []string{"-test.run=^TestSeeds$"}, []string{
			"TIDEMARK_FIRST_SEED=" + strconv.Itoa(1+round*seedsARound), "TIDEMARK_SEEDS=" + strconv.Itoa(seedsARound), "TIDEMARK_SIM_STOP=1"}
	}},
	// Scenarios that build brokers of their own, without the bug, are left out.
	// The first rounds are those that most bugs are of.
	"rig": {name: "the rig", pkg: "./test/chaos", share: 100, binary: true, rounds: func(round int) (args, env []string) {
		order := []string{"^TestS2", "^TestS13", "^TestS1", "^TestS3", "^TestS8", "^TestS4", "^TestS6", "^TestS12", "^TestS5Etcd"}
		return []string{"-test.run=" + order[round%len(order)], "-test.failfast"}, []string{"CI=true", "TIDEMARK_ROTATE=" + strconv.Itoa(round)}
	}},
}

// hunt looks for a bug until it is found or the limit is used up.
func hunt(ctx context.Context, b seeded.Bug, look []suite, limit time.Duration, logs string) (finding, error) {
	var f finding
	for i, s := range look {
		budget := limit - f.after
		if i < len(look)-1 {
			budget = limit * time.Duration(s.share) / 100
		}
		test, env, err := build(ctx, b, s, logs)
		if err != nil {
			return f, err
		}
		for round := 0; budget > 0; round++ {
			begun := time.Now()
			what, err := s.once(ctx, b, test, env, round, budget, logs)
			took := time.Since(begun)
			f.after += took
			budget -= took
			if err != nil {
				return f, err
			}
			if what != "" {
				f.by, f.what = s.name, what
				return f, nil
			}
		}
	}
	return f, nil
}

// build compiles a suite, and the broker if it runs one, with the bug.
func build(ctx context.Context, b seeded.Bug, s suite, logs string) (test string, env []string, err error) {
	test = filepath.Join(logs, b.ID+"-"+filepath.Base(s.pkg)+".test")
	if err := tool(ctx, "test", "-c", "-trimpath", "-tags", b.Tag, "-o", test, s.pkg); err != nil {
		return "", nil, err
	}
	if s.binary {
		broker := filepath.Join(logs, b.ID+"-tidemark")
		if err := tool(ctx, "build", "-trimpath", "-tags", b.Tag, "-o", broker, "./cmd/tidemark"); err != nil {
			return "", nil, err
		}
		env = append(env, "TIDEMARK_BIN="+broker)
	}
	return test, env, nil
}

func tool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// once runs a suite once, in its own directory, for no longer than budget. It
// returns what was wrong, empty if nothing was, or time ran out.
func (s suite) once(ctx context.Context, b seeded.Bug, test string, env []string, round int, budget time.Duration, logs string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	args, more := s.rounds(round)
	cmd := exec.CommandContext(ctx, test, append(args, "-test.v", "-test.timeout=0")...)
	cmd.Dir = s.pkg
	cmd.Env = append(append(os.Environ(), env...), more...)
	kept := filepath.Join(logs, b.ID)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return "", err
	}
	cmd.Env = append(cmd.Env, "TIDEMARK_TEST_LOGS="+kept, "TIDEMARK_ARTIFACTS="+kept)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The suite's workers are in its group; its servers die with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if werr := os.WriteFile(filepath.Join(logs, fmt.Sprintf("%s-%s-%d.txt", b.ID, filepath.Base(s.pkg), round)), out.Bytes(), 0o644); werr != nil {
		return "", werr
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(parent(ctx))
	case err == nil && !ran.Match(out.Bytes()):
		return "", fmt.Errorf("%s %v: no test ran\n%s", s.name, args, out.Bytes())
	case err == nil:
		return "", nil
	case errors.As(err, &exit) && (exit.ExitCode() == 1 || exit.ExitCode() == 2) && failed.Match(out.Bytes()):
		return symptom(out.Bytes()), nil
	}
	return "", fmt.Errorf("%s %v: %w\n%s", s.name, args, err, out.Bytes())
}

// parent is nil-caused: that a suite used up its time is no error.
func parent(ctx context.Context) context.Context {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return context.Background()
	}
	return ctx
}

var (
	ran    = regexp.MustCompile(`(?m)^\s*--- PASS: `)
	failed = regexp.MustCompile(`(?m)^\s*--- FAIL: |^panic: `)
	broken = regexp.MustCompile(`\bC\d+ [a-z-]+: .*|^panic: .*|^\s+at [0-9.hms]+ .*`) // the checker, Go, the simulation
	said   = regexp.MustCompile(`^(figure: |exit status)`)
	blamed = regexp.MustCompile(`_test\.go:\d+: (.*)`)
)

// symptom is the first broken invariant in a test's output, or else the first
// complaint.
func symptom(out []byte) string {
	first := "a test failed"
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if m := broken.Find(lines.Bytes()); m != nil {
			return short(strings.TrimSpace(string(m)))
		}
		if m := blamed.FindSubmatch(lines.Bytes()); m != nil && first == "a test failed" && !said.Match(m[1]) {
			first = string(m[1])
		}
	}
	return short(first)
}

func short(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// turn numbers the commit: by how many there are, or, where history is cut off,
// by its name.
func turn(ctx context.Context) (int, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	shallow, err := git("rev-parse", "--is-shallow-repository")
	if err != nil {
		return 0, err
	}
	if shallow == "false" {
		count, err := git("rev-list", "--count", "HEAD")
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(count)
	}
	name, err := git("rev-parse", "--short=6", "HEAD")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(name[:6], 16, 32)
	return int(n), err
}
