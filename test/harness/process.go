package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// logTail is how much of each log a failing test shows.
const logTail = 6 << 10

// process is one run of one program, in a process group of its own.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process was waited for; err is set before
	err  error
}

// logDir is where output files of t go: a directory that outlives the test if
// TIDEMARK_TEST_LOGS names one.
func logDir(t T) string {
	base := os.Getenv("TIDEMARK_TEST_LOGS")
	if base == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(mkdir(t, filepath.Join(base, t.Name())), "run-")
	if err != nil {
		t.Fatalf("log directory: %v", err)
	}
	return dir
}

func mkdir(t T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("make directory: %v", err)
	}
	return dir
}

// launch starts cmd with its output appended to the file log.
func launch(name, log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	fmt.Fprintf(out, "--- %s started %s\n", name, time.Now().Format(time.RFC3339Nano))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// signal reaches the whole process group.
func (p *process) signal(sig syscall.Signal) {
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// pauseLimit is far more than a busy machine takes to stop a process.
const pauseLimit = 10 * time.Second

// awaitStopped waits until all threads have stopped, and tells whether they have
// or the process ended. Each stops when it is next scheduled: on a busy machine a
// signalled process goes on for a while, reads requests and sends some. Where
// there is no /proc it does not wait.
func (p *process) awaitStopped(limit time.Duration) bool {
	for end := time.Now().Add(limit); p.running() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid()))
		if err != nil || !slices.ContainsFunc(stats, runs) {
			return true
		}
	}
	return !p.running()
}

// runs tells whether the thread with this stat file is not stopped. The state
// follows the name, which is in parentheses and may hold any (proc(5)).
func runs(stat string) bool {
	b, err := os.ReadFile(stat)
	if err != nil {
		return false // it has ended
	}
	i := bytes.LastIndexByte(b, ')')
	return i < 0 || i+2 >= len(b) || b[i+2] != 'T' && b[i+2] != 't'
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

var errStillRunning = errors.New("still running")

// stop sends sig and waits up to limit for the process to end by itself. The
// duration it took and the exit error are returned; past the limit the process is killed.
func (p *process) stop(sig syscall.Signal, limit time.Duration) (time.Duration, error) {
	begun := time.Now()
	p.signal(sig)
	select {
	case <-p.done:
		return time.Since(begun), p.err
	case <-time.After(limit):
		p.kill()
		return time.Since(begun), errStillRunning
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// tail is the end of a log file.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > logTail {
		data = data[len(data)-logTail:]
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	return string(data)
}

// server is the part that MinIO, etcd members and brokers have in common: a
// program that can be ended and started again with the same arguments.
type server struct {
	t    T
	name string
	log  string
	make func() *exec.Cmd

	mu   sync.Mutex // guards proc
	proc *process
}

// newServer registers the clean-up; start it separately.
func newServer(t T, name, log string, make func() *exec.Cmd) *server {
	s := &server{t: t, name: name, log: log, make: make}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, tail(log))
		}
	})
	return s
}

// Start begins a new process; the one before must have ended.
func (s *server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.running() {
		s.t.Fatalf("%s is already running", s.name)
	}
	proc, err := launch(s.name, s.log, s.make())
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	s.proc = proc
}

func (s *server) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Running tells whether the server has a live process.
func (s *server) Running() bool {
	p := s.process()
	return p != nil && p.running()
}

// Done is closed once the current process has ended.
func (s *server) Done() <-chan struct{} { return s.process().done }

// Kill ends the process with SIGKILL, if there is one, and waits for it.
func (s *server) Kill() {
	if p := s.process(); p != nil {
		p.kill()
	}
}

// Pause stops the process with SIGSTOP and returns once it does nothing more;
// Resume lets it go on.
func (s *server) Pause() {
	s.t.Helper()
	p := s.process()
	p.signal(syscall.SIGSTOP)
	if !p.awaitStopped(pauseLimit) {
		s.t.Fatalf("%s has not stopped %v after SIGSTOP", s.name, pauseLimit)
	}
}

func (s *server) Resume() { s.process().signal(syscall.SIGCONT) }

// Signal sends the process any signal and does not wait.
func (s *server) Signal(sig syscall.Signal) { s.process().signal(sig) }

// Terminate sends SIGTERM and Interrupt SIGINT, as Ctrl-C does; both wait up to
// limit and return how long the process took to end and how it ended.
func (s *server) Terminate(limit time.Duration) (time.Duration, error) {
	return s.process().stop(syscall.SIGTERM, limit)
}

func (s *server) Interrupt(limit time.Duration) (time.Duration, error) {
	return s.process().stop(syscall.SIGINT, limit)
}

// PID is the process id of the current process.
func (s *server) PID() int { return s.process().pid() }

// Log is everything the server's processes have written so far.
func (s *server) Log() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// ExitCode is how the process that ended last did; -1 when a signal ended it.
func (s *server) ExitCode() int {
	p := s.process()
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}
