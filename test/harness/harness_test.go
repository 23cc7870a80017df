package harness

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

func TestMinIOKeepsObjectsOverAKill(t *testing.T) {
	System(t)
	m := StartMinIO(t)
	m.CreateBucket(bucket)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := m.Client().PutObject(ctx, bucket, "k", strings.NewReader("v"), 1, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	m.Kill()
	if m.Running() {
		t.Fatal("killed and still running")
	}
	m.Start()
	if _, err := m.Client().StatObject(ctx, bucket, "k", minio.StatObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestEtcdOfThreeSurvivesOne(t *testing.T) {
	System(t)
	e := StartEtcd(t, 3)
	e.Members[0].Kill()
	Eventually(t, 10*time.Second, "quorum of two", func() error { return okHTTP(e.Members[1].URL + "/readyz") })
	if took, err := e.Members[2].Terminate(10 * time.Second); err == errStillRunning {
		t.Errorf("etcd ignored SIGTERM for %v", took)
	}
}

func TestKafkaToolsRun(t *testing.T) {
	System(t)
	out, err := Kafka(t, "org.apache.kafka.tools.TopicCommand", "--version").Run()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(out.Stdout, []byte("4.")) {
		t.Errorf("version %q, stderr %q", out.Stdout, out.Stderr)
	}
	if _, err := Kafka(t, "org.apache.kafka.tools.NoSuchTool").Run(); err == nil {
		t.Error("a class that does not exist ran")
	}
}

func TestCommandLimit(t *testing.T) {
	begun := time.Now()
	_, err := Command{Path: "/bin/sh", Args: []string{"-c", "sleep 60 & wait"}, Limit: 100 * time.Millisecond}.Run()
	if err == nil || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}
