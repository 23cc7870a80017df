package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/objecttest"
	"github.com/tidemark-io/tidemark/tiering/object/objecttest/miniotest"
)

// shared is one server for all tests of the package; TestMain stops it.
var shared struct {
	server *miniotest.Server
	dir    string
	seq    atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.Stop()
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

func server(t *testing.T) *miniotest.Server {
	t.Helper()
	binary := miniotest.Require(t)
	if shared.server != nil {
		return shared.server
	}
	dir, err := os.MkdirTemp("", "tidemark-s3-")
	if err != nil {
		t.Fatal(err)
	}
	shared.dir = dir
	if shared.server, err = miniotest.Run(miniotest.Config{Binary: binary, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	return shared.server
}

func bucket(t *testing.T, srv *miniotest.Server) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", shared.seq.Add(1))
	if err := srv.CreateBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

func config(srv *miniotest.Server, bucket string) Config {
	return Config{
		Endpoint: srv.Endpoint, Bucket: bucket,
		AccessKey: miniotest.AccessKey, SecretKey: miniotest.SecretKey,
	}
}

func openStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestStore runs the suite below a prefix that needs escaping: one bucket, and
// neighbours that must not be seen.
func TestStore(t *testing.T) {
	srv := server(t)
	name := bucket(t, srv)
	objecttest.Run(t, func(t *testing.T) object.Store {
		cfg := config(srv, name)
		cfg.Prefix = fmt.Sprintf("/clusters/a+b%%/%d/", shared.seq.Add(1))
		return openStore(t, cfg)
	})
}

func TestStoreWithoutPrefix(t *testing.T) {
	srv := server(t)
	s := openStore(t, config(srv, bucket(t, srv)))
	if err := s.Create(t.Context(), "w/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "w/1", 0, -1); err != nil || string(got) != "x" {
		t.Errorf("Get = %q, %v", got, err)
	}
	if infos, err := s.List(t.Context(), "w/", "", 10); err != nil || len(infos) != 1 || infos[0].Key != "w/1" {
		t.Errorf("List = %v, %v", infos, err)
	}
}

func TestCheck(t *testing.T) {
	srv := server(t)
	name := bucket(t, srv)
	noWarning := func(msg string, err error) { t.Errorf("warned %s: %v", msg, err) }
	check := func(cfg Config) error {
		return openStore(t, cfg).Check(t.Context(), []string{"w/", "k/"}, noWarning)
	}
	wantError := func(what string, err error, words ...string) {
		t.Helper()
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", what, err, w)
			}
		}
	}
	cfg := config(srv, name)
	if err := check(cfg); err != nil {
		t.Errorf("a good bucket: %v", err)
	}
	cfg.Bucket = "no-such-bucket"
	err := check(cfg)
	wantError("no bucket", err, "no-such-bucket", srv.Endpoint, "does not exist")
	if !errors.Is(err, object.ErrRefused) {
		t.Errorf("no bucket: %v is not ErrRefused", err)
	}
	s := openStore(t, cfg)
	if err := s.Create(t.Context(), "a", []byte("x")); !errors.Is(err, object.ErrRefused) {
		t.Errorf("Create without a bucket = %v", err)
	}
	if _, err := s.Get(t.Context(), "a", 0, -1); !errors.Is(err, object.ErrRefused) || errors.Is(err, object.ErrNotFound) {
		t.Errorf("Get without a bucket = %v", err)
	}

	cfg = config(srv, name)
	cfg.SecretKey = "wrong-secret"
	wantError("wrong secret", check(cfg), name, "denied")
	if err := openStore(t, cfg).Create(t.Context(), "a", []byte("x")); !errors.Is(err, object.ErrRefused) {
		t.Errorf("Create with a wrong secret = %v", err)
	}
	cfg = config(srv, name)
	cfg.Endpoint = "http://127.0.0.1:1"
	err = check(cfg)
	wantError("no server", err, name, "127.0.0.1:1", "cannot be reached")
	if errors.Is(err, object.ErrRefused) {
		t.Error("an unreachable server is not a refusal")
	}
}

func TestCheckLifecycle(t *testing.T) {
	srv := server(t)
	client, err := srv.Client()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		rule lifecycle.Rule
		bad  bool
	}{
		{"everything", lifecycle.Rule{ID: "all", Status: "Enabled", Expiration: lifecycle.Expiration{Days: 7}}, true},
		{"our prefix", lifecycle.Rule{ID: "ours", Status: "Enabled", RuleFilter: lifecycle.Filter{Prefix: "tm/w/"}, Expiration: lifecycle.Expiration{Days: 7}}, true},
		{"a part of ours", lifecycle.Rule{ID: "part", Status: "Enabled", RuleFilter: lifecycle.Filter{Prefix: "tm/w/3f"}, Expiration: lifecycle.Expiration{Days: 7}}, true},
		{"another prefix", lifecycle.Rule{ID: "other", Status: "Enabled", RuleFilter: lifecycle.Filter{Prefix: "logs/"}, Expiration: lifecycle.Expiration{Days: 7}}, false},
		{"disabled", lifecycle.Rule{ID: "off", Status: "Disabled", Expiration: lifecycle.Expiration{Days: 7}}, false},
		{"old versions", lifecycle.Rule{ID: "old", Status: "Enabled", NoncurrentVersionExpiration: lifecycle.NoncurrentVersionExpiration{NoncurrentDays: 3}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := bucket(t, srv)
			if err := client.SetBucketLifecycle(t.Context(), name, &lifecycle.Configuration{Rules: []lifecycle.Rule{c.rule}}); err != nil {
				t.Fatal(err)
			}
			cfg := config(srv, name)
			cfg.Prefix = "tm"
			err := openStore(t, cfg).Check(t.Context(), []string{"w/", "k/"}, func(m string, err error) { t.Error(m, err) })
			switch {
			case c.bad && (err == nil || !strings.Contains(err.Error(), `"`+c.rule.ID+`"`)):
				t.Errorf("Check = %v, want an error that names the rule", err)
			case !c.bad && err != nil:
				t.Errorf("Check = %v", err)
			}
		})
	}
}

// damaging inverts a bit of every body on its way to the server.
type damaging struct{ http.RoundTripper }

func (d damaging) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPut {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		b[len(b)/2] ^= 1
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(strings.NewReader(string(b)))
	}
	return d.RoundTripper.RoundTrip(req)
}

func TestDamagedUploadIsRejected(t *testing.T) {
	srv := server(t)
	s := openStore(t, config(srv, bucket(t, srv)))
	s.client.Transport = damaging{s.transport}
	err := s.Create(t.Context(), "a", []byte("some bytes that matter"))
	if err == nil || errors.Is(err, object.ErrExists) || errors.Is(err, object.ErrRefused) {
		t.Fatalf("Create = %v, want an error that may pass", err)
	}
	if _, err := s.Get(t.Context(), "a", 0, -1); !errors.Is(err, object.ErrNotFound) {
		t.Fatalf("Get = %v", err)
	}
}

// TestExistsWithABigBody: the answer to a PUT may come before the server has
// read the body, and must not be lost among the broken pipes.
func TestExistsWithABigBody(t *testing.T) {
	srv := server(t)
	s := openStore(t, config(srv, bucket(t, srv)))
	data := make([]byte, 16<<20)
	for i := range 10 {
		err := s.Create(t.Context(), "big", data)
		if i > 0 && !errors.Is(err, object.ErrExists) || i == 0 && err != nil {
			t.Fatalf("Create no. %d = %v", i, err)
		}
	}
}

func TestServerGone(t *testing.T) {
	srv := miniotest.Start(t)
	name := bucket(t, srv)
	s := openStore(t, config(srv, name))
	if err := s.Create(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Get(ctx, "a", 0, -1); object.Outcome(err) != object.OutcomeError {
		t.Errorf("Get = %v", err)
	}
	if err := s.Create(ctx, "b", []byte("x")); object.Outcome(err) != object.OutcomeError {
		t.Errorf("Create = %v", err)
	}
	again, err := srv.Again()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if got, err := s.Get(ctx, "a", 0, -1); err != nil || string(got) != "x" {
		t.Errorf("Get after the restart = %q, %v", got, err)
	}
}

// TestProbeTwoPools: a server of two pools loses the race between its pools.
func TestProbeTwoPools(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server of four drives")
	}
	binary, dir := miniotest.Require(t), t.TempDir()
	srv, err := miniotest.Run(miniotest.Config{
		Binary: binary, Dir: dir,
		Args: []string{filepath.Join(dir, "a{1...2}"), filepath.Join(dir, "b{1...2}")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	s := openStore(t, config(srv, bucket(t, srv)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var notAtomic *object.NotAtomicError
	if err := object.Probe(ctx, s, 20, 8); !errors.As(err, &notAtomic) {
		t.Errorf("Probe = %v, want a NotAtomicError", err)
	} else {
		t.Log(err)
	}
}
