package test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

// refuseWithin is how long a broker may look for what it rests on.
const refuseWithin = 15 * time.Second

// TestRefusals starts brokers that must not run: each ends by itself, in time,
// with a non-zero exit code and a message that names the reason.
func TestRefusals(t *testing.T) {
	harness.System(t)
	minio, etcd := harness.StartMinIO(t), harness.StartEtcd(t, 1)
	minio.CreateBucket("good")
	s3 := func(bucket string) []string {
		return []string{"--store", "s3://" + bucket, "--s3-endpoint", minio.Endpoint()}
	}
	with := func(args []string, more ...string) []string { return append(append([]string(nil), args...), more...) }

	t.Run("etcd unreachable", func(t *testing.T) {
		refused(t, with(s3("good"), "--etcd", "http://"+harness.FreeAddr(t)), minio.Env(), "etcd")
	})
	t.Run("etcd silent", func(t *testing.T) {
		refused(t, with(s3("good"), "--etcd", "http://"+silent(t)), minio.Env(), "etcd")
	})
	t.Run("store unreachable", func(t *testing.T) {
		refused(t, []string{"--etcd", etcd.URLs(), "--store", "s3://good", "--s3-endpoint", "http://" + harness.FreeAddr(t)}, minio.Env(), "store")
	})
	t.Run("store silent", func(t *testing.T) {
		refused(t, []string{"--etcd", etcd.URLs(), "--store", "s3://good", "--s3-endpoint", "http://" + silent(t)}, minio.Env(), "store")
	})
	t.Run("bucket missing", func(t *testing.T) {
		refused(t, with(s3("missing"), "--etcd", etcd.URLs()), minio.Env(), "missing")
	})
	t.Run("credentials wrong", func(t *testing.T) {
		refused(t, with(s3("good"), "--etcd", etcd.URLs()), []string{"AWS_ACCESS_KEY_ID=who", "AWS_SECRET_ACCESS_KEY=nobody-knows"}, "store")
	})
	t.Run("etcd without store", func(t *testing.T) {
		refused(t, []string{"--etcd", etcd.URLs()}, nil, "--etcd without --store")
	})
	t.Run("store without etcd", func(t *testing.T) {
		refused(t, s3("good"), minio.Env(), "--store without --etcd")
	})
	t.Run("bucket and etcd of different clusters", func(t *testing.T) {
		differentClusters(t, minio, etcd)
	})
	t.Run("store with server pools", func(t *testing.T) {
		pools := harness.StartMinIO(t, "pool-1/drive{1...4}", "pool-2/drive{1...4}")
		pools.CreateBucket("pools")
		refused(t, []string{"--etcd", etcd.URLs(), "--cluster", "pools", "--store", "s3://pools", "--s3-endpoint", pools.Endpoint()}, pools.Env(), "atomic")
	})
}

// TestOneProcessPerDataDirectory starts a second broker where one runs.
func TestOneProcessPerDataDirectory(t *testing.T) {
	harness.System(t)
	first := harness.StartEmbedded(t).Brokers[0]
	refused(t, []string{"--data-dir", first.Dir}, nil, first.Dir)
	if !first.Running() {
		t.Error("the first broker ended")
	}
}

func differentClusters(t *testing.T, minio *harness.MinIO, etcd *harness.Etcd) {
	minio.CreateBucket("one")
	minio.CreateBucket("two")
	for _, name := range []string{"one", "two"} {
		b := harness.NewBroker(t, name, []string{"--etcd", etcd.URLs(), "--cluster", name,
			"--store", "s3://" + name, "--s3-endpoint", minio.Endpoint()}, minio.Env())
		b.Start()
		if _, err := b.Terminate(20 * time.Second); err != nil {
			t.Fatalf("stop of a first broker: %v", err)
		}
	}
	mixed := func(cluster, bucket string) {
		t.Helper()
		refused(t, []string{"--etcd", etcd.URLs(), "--cluster", cluster,
			"--store", "s3://" + bucket, "--s3-endpoint", minio.Endpoint()}, minio.Env(), "cluster")
	}
	mixed("one", "two")
	mixed("three", "two") // etcd of a cluster that was never there, bucket of one that was
	minio.CreateBucket("fresh")
	mixed("one", "fresh") // and the reverse
}

// refused runs a broker that must end by itself and say why.
func refused(t *testing.T, args, env []string, reason string) {
	t.Helper()
	b := harness.NewBroker(t, "refused", args, env)
	begun := time.Now()
	b.Launch()
	select {
	case <-b.Done():
	case <-time.After(refuseWithin):
		t.Fatalf("still running after %v:\n%s", refuseWithin, b.Log())
	}
	code := b.ExitCode()
	if code != 1 && code != 2 {
		t.Errorf("exit code %d, want a plain failure:\n%s", code, b.Log())
	}
	if !strings.Contains(b.Log(), reason) {
		t.Errorf("no %q in the message:\n%s", reason, b.Log())
	}
	t.Logf("refused in %v: %s", time.Since(begun).Round(time.Millisecond), lastLine(b.Log()))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// silent is the address of a server that accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	return l.Addr().String()
}
