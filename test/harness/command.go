package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Output is what a command printed.
type Output struct {
	Stdout, Stderr []byte
}

// Command is a client program to run to its end.
type Command struct {
	Path  string
	Args  []string
	Stdin io.Reader
	Env   []string      // nil: the test's own
	Dir   string        // empty: the test's own
	Limit time.Duration // a minute when 0
}

// Run runs the command and returns what it printed, with an error that carries
// its standard error when it failed or took too long.
func (c Command) Run() (Output, error) {
	limit := c.Limit
	if limit == 0 {
		limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, &stdout, &stderr
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	out := Output{stdout.Bytes(), stderr.Bytes()}
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %v", limit)
	}
	if err != nil {
		err = fmt.Errorf("%s %v: %w\n%s", filepath.Base(c.Path), c.Args, err, last(out.Stderr, 4<<10))
	}
	return out, err
}

func last(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// Kafka is a command of Kafka's own tools, by the class its script runs.
func Kafka(t T, class string, args ...string) Command {
	t.Helper()
	dir := filepath.Join(Tools(), "kafka")
	Tool(t, "kafka")
	java, err := exec.LookPath("java")
	if err != nil {
		Missing(t, "java")
	}
	return Command{
		Path: java,
		Args: append([]string{
			"-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", // short-lived: start fast
			"-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.xml"),
			"-cp", filepath.Join(dir, "*"), class,
		}, args...),
		Limit: 2 * time.Minute,
	}
}

// Kcat is a run of kcat.
func Kcat(t T, args ...string) Command {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		Missing(t, "kcat")
	}
	return Command{Path: path, Args: args, Limit: 2 * time.Minute}
}
