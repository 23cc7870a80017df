// Package miniotest runs a real MinIO server for tests, on a free loopback port
// with its data in a directory of the test.
package miniotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The root credentials of every server.
const (
	AccessKey = "tidemark"
	SecretKey = "tidemark-secret"
	Region    = "us-east-1"
)

const (
	readyLimit = 30 * time.Second
	stopLimit  = 10 * time.Second
	pollPause  = 50 * time.Millisecond
	outputMax  = 64 << 10
)

// ErrNoBinary is returned by Find.
var ErrNoBinary = errors.New("no MinIO server found: set TIDEMARK_MINIO, put minio into PATH, or let make build it")

// Find returns the path of a MinIO server: $TIDEMARK_MINIO, minio in PATH, or
// minio in ${TIDEMARK_TOOLS:-$HOME/.cache/tidemark/tools}.
func Find() (string, error) {
	if path := os.Getenv("TIDEMARK_MINIO"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("TIDEMARK_MINIO: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("minio"); err == nil {
		return path, nil
	}
	tools := os.Getenv("TIDEMARK_TOOLS")
	if tools == "" {
		tools = filepath.Join(os.Getenv("HOME"), ".cache", "tidemark", "tools")
	}
	path, err := exec.LookPath(filepath.Join(tools, "minio"))
	if err != nil {
		return "", ErrNoBinary
	}
	return path, nil
}

// Require is Find for a test that cannot run without: it skips the test, or
// fails it where CI is set.
func Require(t testing.TB) string {
	t.Helper()
	path, err := Find()
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return ""
}

// Config says what to run.
type Config struct {
	Binary string
	Dir    string   // where data is kept
	Addr   string   // host:port; empty for a free loopback port
	Args   []string // instead of one drive under Dir: drives or pools
	Env    []string // added to the server's environment
}

// Server is a running server. Its fields do not change.
type Server struct {
	Endpoint string // http://127.0.0.1:<port>
	Addr     string
	cfg      Config
	cmd      *exec.Cmd
	output   *tail
	exited   chan struct{} // closed when the process has been waited for
}

// Start runs a server for the length of a test; see Require.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Run(Config{Binary: Require(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Run starts a server and returns when it answers. Stop it.
func Run(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		cfg.Addr = addr
	}
	if len(cfg.Args) == 0 {
		cfg.Args = []string{filepath.Join(cfg.Dir, "drive")}
	}
	s := &Server{
		Endpoint: "http://" + cfg.Addr, Addr: cfg.Addr, cfg: cfg,
		output: &tail{}, exited: make(chan struct{}),
	}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("start MinIO: %w", err)
	}
	if err := s.awaitReady(); err != nil {
		s.Kill()
		return nil, fmt.Errorf("start MinIO: %w\n%s", err, s.output)
	}
	return s, nil
}

// Again starts the server anew on its address and data, after Stop or Kill.
func (s *Server) Again() (*Server, error) { return Run(s.cfg) }

// freeAddr returns an address that was free a moment ago.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *Server) start() error {
	args := append([]string{"server", "--quiet", "--address", s.Addr}, s.cfg.Args...)
	s.cmd = exec.Command(s.cfg.Binary, args...)
	s.cmd.Env = append(os.Environ(),
		"MINIO_ROOT_USER="+AccessKey, "MINIO_ROOT_PASSWORD="+SecretKey,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CI_CD=1", // the last: drives may share the root disk
		"HOME="+s.cfg.Dir)
	s.cmd.Env = append(s.cmd.Env, s.cfg.Env...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with the process, which Stop and Kill wait for
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	return nil
}

func (s *Server) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	for {
		if s.ready(ctx) {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("the server exited")
		case <-ctx.Done():
			return fmt.Errorf("not ready within %v", readyLimit)
		case <-time.After(pollPause):
		}
	}
}

// ready asks for the health of the whole server, and then for a listing: a
// server of several drives reports ready a little before it is.
func (s *Server) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/minio/health/cluster", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	client, err := s.Client()
	if err != nil {
		return false
	}
	_, err = client.ListBuckets(ctx)
	return err == nil
}

// Client returns MinIO's own client for the server.
func (s *Server) Client() (*minio.Client, error) {
	return minio.New(s.Addr, &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region, MaxRetries: 1,
	})
}

// CreateBucket makes an empty bucket.
func (s *Server) CreateBucket(ctx context.Context, name string) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	return client.MakeBucket(ctx, name, minio.MakeBucketOptions{Region: Region})
}

// Signal sends sig, such as SIGSTOP, to the server.
func (s *Server) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// Stop ends the server and waits for it.
func (s *Server) Stop() {
	_ = s.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopLimit):
		s.Kill()
	}
}

// Kill ends the server at once and waits for it.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Output returns what the server printed last.
func (s *Server) Output() string { return s.output.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len()+len(p) > outputMax {
		t.buf.Reset()
	}
	return t.buf.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
