package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/audit"
)

func TestAuditFlags(t *testing.T) {
	f, err := parseAuditFlags([]string{"--quick", "--data-dir", "/d", "--json=true", "--parallel=3", "--etcd=http://e:1", "--grace", "5m", "--topic", "t"}, &bytes.Buffer{})
	if err != nil || !f.quick || !f.json || f.parallel != 3 || f.grace != 5*time.Minute || f.topic != "t" {
		t.Errorf("%+v, %v", f, err)
	}
	if got := strings.Join(f.settings, " "); got != "--data-dir=/d --etcd=http://e:1" {
		t.Errorf("settings %s", got)
	}
	for _, args := range [][]string{{"--no-such"}, {"stray"}, {"--parallel", "0"}, {"--grace", "-1s"}, {"--parallel", "x"}} {
		if _, err := parseAuditFlags(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

func auditDir(t *testing.T, dir string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), append([]string{"audit", "--data-dir", dir}, args...), nil, &out, &errs)
	return status, out.String(), errs.String()
}

// The audit of an embedded broker's directory: refused while it runs and where
// there is none, then clean, then damaged.
func TestAuditOfEmbeddedBroker(t *testing.T) {
	dir := t.TempDir()
	if status, _, errs := auditDir(t, filepath.Join(dir, "none")); status != auditNotRun || !strings.Contains(errs, "no cluster there") {
		t.Fatalf("no directory: %d, %s", status, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("the audit created a directory")
	}
	data := filepath.Join(dir, "data")
	stop := serveEmbedded(t, data)
	if status, _, errs := auditDir(t, data); status != auditNotRun || !strings.Contains(errs, "stop the broker first") {
		t.Errorf("a running broker: %d, %s", status, errs)
	}
	stop()
	status, out, errs := auditDir(t, data, "--json")
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != auditClean || !r.Clean || r.Totals.Chains != 1 || r.Totals.ChainsSealed != 1 {
		t.Fatalf("stopped: %d, %v\n%s%s", status, err, out, errs)
	}
	if errs != "" {
		t.Errorf("standard error: %s", errs)
	}
	damageObject(t, filepath.Join(data, "bucket", "objects", "w"))
	if status, out, _ := auditDir(t, data); status != auditProblems || !strings.Contains(out, "PROBLEM head-damaged") {
		t.Errorf("damaged: %d\n%s", status, out)
	}
}

// serveEmbedded runs a broker until stop is called.
func serveEmbedded(t *testing.T, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var errs bytes.Buffer
	addr := freeAddress(t)
	go func() {
		ended <- run(ctx, []string{"serve", "--data-dir", dir, "--listen", addr, "--http", "", "--cache-bytes", "0"}, nil, &errs, &errs)
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the broker does not listen")
		}
	}
	// It listens before it has begun its chain.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(dir, "bucket", "objects", "w", "*", "*", "*")); len(found) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the broker begins no chain")
		}
	}
	return func() {
		cancel()
		if status := <-ended; status != exitOK {
			t.Errorf("serve ended with %d: %s", status, errs.String())
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// damageObject inverts a bit in the middle of the first object under dir.
func damageObject(t *testing.T, dir string) {
	t.Helper()
	var path string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && path == "" {
			path = p
		}
		return err
	})
	if err != nil || path == "" {
		t.Fatal(path, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
