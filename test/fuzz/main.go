// Command fuzz runs every fuzz target of the module in turn and tells how often
// each was executed. What makes a target fail is kept by the go tool under the
// package's testdata/fuzz, from where it is a test from then on.
//
//	fuzz -each 1m             every target for a minute
//	fuzz -total 2m            two minutes, shared by all targets
//	fuzz -run Frame -each 1h  one of them, for long
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	each := flag.Duration("each", time.Minute, "how long each target runs")
	total := flag.Duration("total", 0, "how long all targets run together, in place of -each")
	run := flag.String("run", "", "run only targets whose package and name match this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fuzz(ctx, *each, *total, *run); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// target is one fuzz function of one package.
type target struct{ pkg, name string }

// share is a target's part of the time that all have together. The whole broker
// has so much code that to take down what each seed reaches takes seconds.
func (t target) share() int {
	if strings.HasSuffix(t.pkg, "/broker") {
		return 3
	}
	return 1
}

func fuzz(ctx context.Context, each, total time.Duration, run string) error {
	match, err := regexp.Compile(run)
	if err != nil {
		return err
	}
	targets, err := list(ctx, match)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("no fuzz target matches")
	}
	shares := 0
	for _, t := range targets {
		shares += t.share()
	}
	var executions int64
	failed := 0
	for _, t := range targets {
		d := each
		if total > 0 {
			d = max(total*time.Duration(t.share())/time.Duration(shares), time.Second)
		}
		n, err := t.run(ctx, d)
		executions += n
		fmt.Printf("%-16s %-60s %12d executions\n", t.name, t.pkg, n)
		if err != nil {
			failed++
			fmt.Println(err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Printf("%d targets: %d executions, %d failed\n", len(targets), executions, failed)
	if failed > 0 {
		return fmt.Errorf("%d fuzz targets failed", failed)
	}
	return nil
}

// list finds the targets: every function that go test lists as one.
func list(ctx context.Context, match *regexp.Regexp) (targets []target, err error) {
	// Packages without a file that says so are not worth compiling.
	found, err := output(ctx, "go", "list", "-f", `{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}`, "./...")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(found) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		names, err := declared(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if match.MatchString(pkg + "." + name) {
				targets = append(targets, target{pkg, name})
			}
		}
	}
	return targets, nil
}

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

func declared(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(dir + "/" + e.Name())
		if err != nil {
			return nil, err
		}
		for _, m := range declaration.FindAllSubmatch(src, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names, nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

var execs = regexp.MustCompile(`execs: (\d+)`)

// run fuzzes one target and returns how often it was executed.
func (t target) run(ctx context.Context, d time.Duration) (executions int64, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", d.String(),
		// Coverage of concurrent code varies; to minimise what looks new takes most of the time.
		"-fuzzminimizetime", "50x", t.pkg)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var printed bytes.Buffer
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := execs.FindSubmatch(lines.Bytes()); m != nil {
			executions, _ = strconv.ParseInt(string(m[1]), 10, 64) // digits: it can only be too many of them
			continue
		}
		if printed.Len() < 64<<10 {
			printed.Write(append(lines.Bytes(), '\n'))
		}
	}
	_, _ = io.Copy(io.Discard, out) // a line too long to scan
	if err := cmd.Wait(); err != nil && !ranOut(t.name, printed.String()) {
		return executions, fmt.Errorf("%s.%s: %w\n%s", t.pkg, t.name, err, printed.String())
	}
	return executions, nil
}

// ranOut tells that nothing failed but the end of the run: before Go 1.27 the go
// tool sometimes reports its own -fuzztime as the target's failure
// (golang/go#75804). Whatever a target did wrong says more than that one line: an
// input that was written, a panic, a message of its own.
func ranOut(name, printed string) bool {
	_, verdict, failed := strings.Cut(printed, "--- FAIL: "+name+" (")
	if !failed || strings.Contains(printed, "Failing input written to") || strings.Contains(printed, "panic: ") {
		return false
	}
	lines := strings.Split(verdict, "\n")
	return len(lines) > 2 && strings.TrimSpace(lines[1]) == context.DeadlineExceeded.Error() && lines[2] == "FAIL"
}
