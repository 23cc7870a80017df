// Package etcdtest runs real etcd servers, as processes, for tests.
//
// The binary is $TIDEMARK_ETCD, else etcd in
// ${TIDEMARK_TOOLS:-$HOME/.cache/tidemark/tools}, else etcd in $PATH. Where
// there is none a test is skipped, with the reason, unless $CI is set: then it
// fails.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Binary returns the etcd binary, or skips or fails t.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := find()
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

func find() (string, error) {
	if path := os.Getenv("TIDEMARK_ETCD"); path != "" {
		return path, nil
	}
	tools := os.Getenv("TIDEMARK_TOOLS")
	if tools == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		tools = filepath.Join(home, ".cache", "tidemark", "tools")
	}
	if path := filepath.Join(tools, "etcd"); executable(path) {
		return path, nil
	}
	path, err := exec.LookPath("etcd")
	if err != nil {
		return "", fmt.Errorf("no etcd binary: neither $TIDEMARK_ETCD, nor %s/etcd, nor in $PATH", tools)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Cluster is a number of etcd members on free ports of the loopback interface.
type Cluster struct {
	t       testing.TB
	binary  string
	initial string
	members []*member
}

type member struct {
	name, dir    string
	client, peer string // URLs
	cmd          *exec.Cmd
	output       *tail
	exited       chan struct{}
}

// Start starts n members with extra flags for each, and waits until they have a
// leader. The test's end stops them.
func Start(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, binary: Binary(t)}
	dir := t.TempDir()
	ports := freePorts(t, 2*n)
	var initial []string
	for i := range n {
		m := &member{
			name:   fmt.Sprintf("m%d", i),
			dir:    filepath.Join(dir, fmt.Sprint(i)),
			client: fmt.Sprintf("http://127.0.0.1:%d", ports[2*i]),
			peer:   fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1]),
		}
		initial = append(initial, m.name+"="+m.peer)
		c.members = append(c.members, m)
	}
	c.initial = strings.Join(initial, ",")
	t.Cleanup(c.stopAll)
	for i := range n {
		c.launch(i, flags...)
	}
	for i := range n {
		c.waitHealthy(i)
	}
	return c
}

// Endpoints returns the client URLs of all members.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, m.client)
	}
	return out
}

// Peer returns the peer URL of member i.
func (c *Cluster) Peer(i int) string { return c.members[i].peer }

// Kill ends member i with SIGKILL.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	c.signal(i, syscall.SIGKILL)
	<-c.members[i].exited
}

// Restart starts member i again after Kill, on the same data and ports.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.launch(i)
	c.waitHealthy(i)
}

// Pause stops member i with SIGSTOP; Resume lets it go on.
func (c *Cluster) Pause(i int) { c.t.Helper(); c.signal(i, syscall.SIGSTOP) }

// Resume ends a Pause.
func (c *Cluster) Resume(i int) { c.t.Helper(); c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, sig syscall.Signal) {
	c.t.Helper()
	if err := c.members[i].cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("signal etcd member %d: %v", i, err)
	}
}

func (c *Cluster) launch(i int, flags ...string) {
	c.t.Helper()
	m := c.members[i]
	args := append([]string{
		"--name", m.name, "--data-dir", m.dir,
		"--listen-client-urls", m.client, "--advertise-client-urls", m.client,
		"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", c.initial, "--initial-cluster-state", "new",
		"--log-level", "warn",
	}, flags...)
	m.output = &tail{}
	m.cmd = exec.Command(c.binary, args...)
	m.cmd.Stdout, m.cmd.Stderr = m.output, m.output
	m.exited = make(chan struct{})
	if err := m.cmd.Start(); err != nil {
		c.t.Fatalf("start etcd: %v", err)
	}
	go func() {
		_ = m.cmd.Wait()
		close(m.exited)
	}()
}

// waitHealthy asks member i until it says that it has a leader.
func (c *Cluster) waitHealthy(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m := c.members[i]
	for !healthy(ctx, m.client) {
		select {
		case <-m.exited:
			c.t.Fatalf("etcd member %d exited: %s", i, m.output)
		case <-ctx.Done():
			c.t.Fatalf("etcd member %d is not healthy after 30 s: %s", i, m.output)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func healthy(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/health", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (c *Cluster) stopAll() {
	for _, m := range c.members {
		if m.cmd == nil || m.cmd.Process == nil {
			continue
		}
		_ = m.cmd.Process.Signal(syscall.SIGKILL) // works on a stopped process too
		<-m.exited
	}
}

// freePorts finds ports that were free a moment ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// tail keeps the last of what a process wrote.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 8 << 10

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if len(w.buf) > tailBytes {
		w.buf = bytes.Clone(w.buf[len(w.buf)-tailBytes:])
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.buf)
}
