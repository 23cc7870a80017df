package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/embedded"
	"github.com/tidemark-io/tidemark/metadata/etcd"
	"github.com/tidemark-io/tidemark/metadata/metatest"
)

func start(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	begun := time.Now()
	s, err := embedded.Start(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begun))
	return s
}

func open(t *testing.T, endpoints []string, cluster string) *etcd.KV {
	t.Helper()
	kv, err := etcd.Open(t.Context(), etcd.Config{Endpoints: endpoints, Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestConformance(t *testing.T) {
	s := start(t, t.TempDir())
	n := 0
	metatest.Run(t, func(t *testing.T) metadata.KV {
		n++
		kv := open(t, s.Endpoints(), fmt.Sprintf("c%d", n))
		t.Cleanup(func() { _ = kv.Close() })
		return kv
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRestartKeepsData(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		s := start(t, dir)
		kv := open(t, s.Endpoints(), "c")
		entries, _, err := kv.Range(t.Context(), "")
		if err != nil || len(entries) != i {
			t.Fatalf("start %d: %v, %v", i, entries, err)
		}
		if _, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Put(fmt.Sprint(i), nil)}}); err != nil {
			t.Fatal(err)
		}
		_ = kv.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A stop with a watch still open must not wait for it.
func TestCloseIsQuick(t *testing.T) {
	s := start(t, t.TempDir())
	kv := open(t, s.Endpoints(), "c")
	ch := kv.Watch(t.Context(), "", 1)
	if _, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Put("a", nil)}}); err != nil {
		t.Fatal(err)
	}
	<-ch
	begun := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("close took %v", took)
	} else {
		t.Logf("closed in %v", took)
	}
	_ = kv.Close()
}

// A start that is given up leaves nothing running and the directory free.
func TestStartCanceled(t *testing.T) {
	dir := t.TempDir()
	for patience := time.Duration(0); ; patience += 20 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := embedded.Start(ctx, dir, nil)
		cancel()
		if err == nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if err := start(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondServerRefused(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	if _, err := embedded.Start(t.Context(), dir, nil); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("second start: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
}

// What the metadata package does works on a real etcd as on the one in memory.
func TestCluster(t *testing.T) {
	const partitions = 2000
	s := start(t, t.TempDir())
	defer s.Close()
	kv := open(t, s.Endpoints(), "c")
	defer kv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v := metadata.NewView(kv, nil)
	done := make(chan error, 2)
	go func() { done <- v.Run(ctx) }()
	session, err := metadata.Register(ctx, kv, metadata.SessionConfig{TTL: 2 * time.Second, Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- session.Run(ctx) }()
	inc := session.Incarnation()
	took := func(what string, begun time.Time) { t.Logf("%s: %v", what, time.Since(begun)) }

	begun := time.Now()
	topic, rev, err := metadata.CreateTopic(ctx, kv, metadata.TopicSpec{
		Name: "t", Partitions: partitions, Preferred: func(int32) metadata.Incarnation { return inc },
	})
	if err != nil {
		t.Fatal(err)
	}
	took("create a topic of 2000 partitions", begun)
	begun = time.Now()
	if err := v.WaitRevision(ctx, rev); err != nil {
		t.Fatal(err)
	}
	took("view", begun)
	var tps []metadata.TopicPartition
	var requests []metadata.ClaimRequest
	v.Partitions(func(tp metadata.TopicPartition, _ *metadata.Partition) bool {
		tps = append(tps, tp)
		requests = append(requests, metadata.ClaimRequest{TP: tp})
		return true
	})
	if len(tps) != partitions {
		t.Fatalf("%d partitions in the view", len(tps))
	}
	for range 2 {
		begun = time.Now()
		for _, c := range metadata.ClaimPartitions(ctx, kv, inc, requests) {
			if c.Err != nil {
				t.Fatal(c.Err)
			}
		}
		took("claim them all", begun)
	}
	begun = time.Now()
	var newest []metadata.OwnerEntry
	for _, tp := range tps {
		newest = append(newest, metadata.OwnerEntry{TP: tp, Owner: metadata.Owner{Incarnation: inc, Epoch: 1}})
	}
	for _, r := range metadata.TrimOwners(ctx, kv, newest) {
		if r.Err != nil || len(r.Partition.Owners) != 1 || r.Partition.Owners[0].Epoch != 1 {
			t.Fatalf("%+v", r)
		}
	}
	took("trim them all", begun)
	if _, err := metadata.RecordEnd(ctx, kv, inc, 7); err != nil {
		t.Fatal(err)
	}
	if rev, err = metadata.DeleteTopic(ctx, kv, topic.ID); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	if err := v.WaitRevision(ctx, rev); err != nil {
		t.Fatal(err)
	}
	took("view of the deletion", begun)
	if len(v.Topics()) != 0 || len(v.Brokers()) != 0 {
		t.Errorf("topics %v, brokers %v", v.Topics(), v.Brokers())
	}
	if err := <-done; !errors.Is(err, metadata.ErrIncarnationOver) {
		t.Errorf("session: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

const helperDir = "TIDEMARK_TEST_EMBEDDED_DIR"

// TestHelperProcess is the process that TestKill kills: it writes keys, and
// prints each one once it is written, until it dies.
func TestHelperProcess(t *testing.T) {
	dir := os.Getenv(helperDir)
	if dir == "" {
		t.Skip("only as a process of TestKill")
	}
	s, err := embedded.Start(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := etcd.Open(context.Background(), etcd.Config{Endpoints: s.Endpoints(), Cluster: "c"})
	if err != nil {
		t.Fatal(err)
	}
	entries, _, err := kv.Range(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i := len(entries); ; i++ {
		key := fmt.Sprintf("%06d", i)
		if _, err := kv.Txn(context.Background(), metadata.Txn{Then: []metadata.Op{metadata.Put(key, []byte("v"))}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("wrote " + key)
	}
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	written := map[string]bool{}
	for range 3 {
		killAfter(t, dir, 50, written)
	}
	s := start(t, dir)
	defer s.Close()
	kv := open(t, s.Endpoints(), "c")
	defer kv.Close()
	entries, _, err := kv.Range(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		delete(written, e.Key)
	}
	if len(written) > 0 {
		t.Errorf("lost %v", written)
	}
}

// killAfter runs the helper and kills it after it has written n keys.
func killAfter(t *testing.T, dir string, n int, written map[string]bool) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for wrote := 0; wrote < n && lines.Scan(); {
		if key, ok := strings.CutPrefix(lines.Text(), "wrote "); ok {
			written[key] = true
			wrote++
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if len(written) == 0 {
		t.Fatal("the helper wrote nothing")
	}
}
